import { randomBytes } from 'node:crypto'
import type { AuditEvent } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { CountKind, Throttle } from '../auth/throttle.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Clock } from '../clock.ts'
import type { Tx } from '../db/client.ts'
import { newId } from '../ids.ts'
import { durationInWords, type LinkedPage, type Mailer } from '../mail/service.ts'
import type { MailTemplate } from '../mail/templates.ts'
import { hashOf } from '../sessions/refresh-tokens.ts'
import type { Vault } from '../vault.ts'
import type { FoundLink, LinkKind, MailLinksRepository, Recipient } from './repository.ts'

/** What a link knows beside the person; sealed, because it names addresses. */
export type LinkData = {
  /** The address that the email is to become. */
  newEmail?: string
  /** Whether the link to the other address was followed already. */
  isOtherConfirmed?: boolean
  /** SHA-256 of what the browser keeps that has asked for the link. */
  requestHash?: string
}

/** Seconds. A link that signs in is out-of-band authentication, for which ten minutes are the limit (ASVS 6.5.5). */
const LIFETIMES: Record<LinkKind, number> = {
  password_reset: 3600,
  magic_link: 600,
  email_verification: 86_400,
  email_change: 3600,
  email_change_consent: 3600,
}

const PAGES: Record<LinkKind, LinkedPage> = {
  password_reset: 'passwordReset',
  magic_link: 'magicLink',
  email_verification: 'emailVerification',
  email_change: 'emailChange',
  email_change_consent: 'emailChange',
}

export type Links = ReturnType<typeof createLinks>

type Dependencies = {
  repository: MailLinksRepository
  mailer: Mailer
  throttle: Throttle
  audit: AuditRepository
  vault: Vault
  clock: Clock
  /** How many of one kind anybody may have sent to one address within an hour. */
  perRecipientAndHour: number
}

const AN_HOUR = 3600
/**
 * How many times as many may be sent to one mailbox for requests from everywhere as for those from one address, of what
 * works only where it was asked for: there a link for a stranger is of no use to whoever reads the mail.
 */
const EVERYWHERE = 10

const TEMPLATES = {
  password_reset: 'password-reset',
  magic_link: 'magic-link',
  email_verification: 'email-verification',
} as const satisfies Partial<Record<LinkKind, MailTemplate>>

/** Links that are mailed: 256 random bits, kept as SHA-256, which work once and for a short time. */
export function createLinks(dependencies: Dependencies) {
  const { repository, mailer, throttle, audit, vault, clock, perRecipientAndHour } = dependencies
  const seal = (data: LinkData): string => vault.seal('mail', JSON.stringify(data))

  /**
   * Writes a new link of the kind, and returns what its mail says of it. It ends those before but where each works in one
   * browser only: a stranger could end them.
   */
  async function insert(
    userId: string,
    kind: LinkKind,
    tx: Tx,
    data?: LinkData,
  ): Promise<{ data: { link: string; expires_in: string }; expiresAt: Date }> {
    const token = randomBytes(32).toString('base64url')
    const secondsToLive = LIFETIMES[kind]
    if (data?.requestHash === undefined) await repository.endLinks(userId, [kind], tx)
    await repository.insertLink(
      {
        id: newId(),
        userId,
        kind,
        tokenHash: hashOf(token),
        dataSealed: data === undefined ? null : seal(data),
        secondsToLive,
      },
      tx,
    )
    return {
      data: { link: mailer.linkTo(PAGES[kind], token), expires_in: durationInWords(secondsToLive) },
      expiresAt: new Date(clock.now().getTime() + secondsToLive * 1000),
    }
  }

  return {
    insert,

    /**
     * Whether a mailbox may be sent another one: those that went before are enough then, and are not made void.
     * @param address where it was asked for, of what works there only
     */
    async mayBeSent(kind: CountKind, email: string, address?: string): Promise<boolean> {
      const to = `email|${normalizeEmail(email)}`
      if (address === undefined) return await throttle.isWithin(kind, to, perRecipientAndHour, AN_HOUR)
      const fromThere = `${to}|address|${throttle.addressKey(address)}`
      return (
        (await throttle.isWithin(kind, fromThere, perRecipientAndHour, AN_HOUR)) &&
        (await throttle.isWithin(kind, to, perRecipientAndHour * EVERYWHERE, AN_HOUR))
      )
    },

    /** Mails a link of one of the kinds that need nothing besides, and records that it did. */
    async send(
      kind: keyof typeof TEMPLATES,
      { id, email, accountId }: Pick<Recipient, 'id' | 'email' | 'accountId'>,
      caller: AuditEvent['caller'],
      tx: Tx,
      data?: LinkData,
    ): Promise<void> {
      await mailer.send({ to: email, template: TEMPLATES[kind], ...(await insert(id, kind, tx, data)) }, tx)
      await audit.append(
        { action: 'user.link_sent', caller, target: { type: 'user', id }, accountId, details: { kind } },
        tx,
      )
    },

    /** A link that can still be followed, by its token. */
    find: async (token: string, kinds: readonly LinkKind[]) =>
      await repository.findLink(hashOf(token), kinds),

    seal,

    /** What a link knows; nothing when it was sealed under another SECRET_KEY. */
    dataOf({ dataSealed }: FoundLink): LinkData {
      const text = dataSealed === null ? undefined : vault.open('mail', dataSealed)
      return text === undefined ? {} : (JSON.parse(text) as LinkData)
    },

    /** Seals under the key of now what lies sealed under the one before. */
    async reseal(tx: Tx): Promise<void> {
      for (const { id, dataSealed } of await repository.listSealed(tx)) {
        const anew = dataSealed === null ? undefined : vault.reseal('mail', dataSealed)
        if (anew !== undefined) await repository.setData(id, anew, tx)
      }
    },
  }
}
