import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { AnonymousCaller } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { ownPassword } from '../auth/locks.ts'
import type { PasswordHasher } from '../auth/passwords.ts'
import type { AuthRepository } from '../auth/repository.ts'
import type { SignedIn, SignInCompletion, SignInContext } from '../auth/sign-in.ts'
import type { CountKind, Throttle } from '../auth/throttle.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Config } from '../config.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { TellOfFactor } from '../factors/notices.ts'
import type { Jobs } from '../jobs/service.ts'
import type { Mailer } from '../mail/service.ts'
import { type Caller, sessionHolder, type UserPrincipal } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import { hashOf } from '../sessions/refresh-tokens.ts'
import type { SessionsRepository } from '../sessions/repository.ts'
import { refuseTakeover } from '../users/protection.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import { isSameEmail, type NewUser, type UsersService } from '../users/service.ts'
import type { Vault } from '../vault.ts'
import type { Links } from './links.ts'
import type { FoundLink, LinkKind, MailLinksRepository } from './repository.ts'

/** Where a request of somebody who has not signed in comes from. */
export type Origin = { requestId: string; address: string }

/** What anybody may have sent to an address. */
type AskedKind = 'password_reset' | 'magic_link'

/** What is to be sent if there is somebody to send it to. */
type AskedLink = { kind: AskedKind; email: string; requestHash?: string } & Origin

/** The name of the jobs that look whether there is somebody to send a link to. */
const LINK_TASK = 'send_link'
/** Some minutes of tries: nobody waits longer for a link. */
const MOST_ATTEMPTS = 5
const AN_HOUR = 3600

type Dependencies = {
  database: Database
  config: Config['mail']
  repository: MailLinksRepository
  links: Links
  mailer: Mailer
  jobs: Pick<Jobs, 'add' | 'handle'>
  throttle: Throttle
  vault: Vault
  attempts: AuthRepository
  signIn: SignInCompletion
  passwords: PasswordHasher
  users: UsersRepository
  usersService: UsersService
  sessions: SessionsRepository
  roles: RolesService
  audit: AuditRepository
  tell: TellOfFactor
}

/**
 * What is proved by a mail: passwords are set anew, addresses confirmed and changed, people signed in. What strangers
 * may ask for is answered the same, and takes the same time, whether somebody has the address or not: a job finds out.
 */
export function createMailLinksService(dependencies: Dependencies) {
  const { database, config, repository, links, mailer, jobs, throttle, vault } = dependencies
  const { attempts, signIn, passwords, users, usersService, sessions, roles, audit, tell } = dependencies
  const { db } = database

  /** @throws AppError too_many_requests when the network address has asked for too many */
  async function countFrom(kind: CountKind, address: string): Promise<void> {
    const key = `address|${throttle.addressKey(address)}`
    await throttle.count(kind, key, config.requestsPerAddressAndHour, AN_HOUR)
  }

  async function askFor(asked: AskedLink): Promise<void> {
    mailer.assertConfigured()
    const { kind, email, requestHash, address } = asked
    await countFrom(kind, address)
    if (!(await links.mayBeSent(kind, email, requestHash === undefined ? undefined : address))) return
    const payload = { sealed: vault.seal('mail', JSON.stringify(asked)) }
    await jobs.add(LINK_TASK, { payload, mostAttempts: MOST_ATTEMPTS })
  }

  jobs.handle(LINK_TASK, {
    isUrgent: true,
    async run(payload) {
      const text = vault.open('mail', (payload as { sealed: string }).sealed)
      if (text === undefined) return
      const { kind, email, requestHash, requestId, address } = JSON.parse(text) as AskedLink
      await transact(db, async (tx) => {
        const recipient = await repository.lockRecipientByEmail(email, tx)
        if (!recipient) return
        const caller: AnonymousCaller = { principal: undefined, requestId, address }
        await links.send(kind, recipient, caller, tx, requestHash === undefined ? undefined : { requestHash })
      })
    },
  })

  /** Uses a link up, for an active person, whose row is locked. @throws AppError invalid_link */
  async function take(link: FoundLink, tx: Tx): Promise<UserRow> {
    const user = await users.lockUser(link.userId, tx)
    if (!user?.isActive || !(await repository.takeLink(link.id, tx))) throw new AppError('invalid_link')
    return user
  }

  const found = async (token: string, ...kinds: LinkKind[]) =>
    (await links.find(token, kinds)) ?? fail('invalid_link')

  /** Whoever follows a link, as the audit trail names them. */
  const followerOf = (user: UserRow, { requestId, address }: Origin): Caller => ({
    principal: sessionHolder(user.id, user.accountId, ''),
    requestId,
    address,
  })

  /**
   * An email as whoever has it has written it. What a stranger writes may be another mailbox, which is compared as the
   * same (UTS 36 §2.10.2).
   */
  async function storedForm(email: string): Promise<string | undefined> {
    const id = await users.findUserIdByEmail(email)
    return (id === undefined ? undefined : await users.findUser(id))?.email ?? undefined
  }

  async function tellOfAccount(email: string, ex: Executor): Promise<void> {
    await mailer.send({ to: email, template: 'account-exists', data: {} }, ex)
  }

  /** Notes that the person reads what is sent to their email; false when that was known. */
  async function verifyEmail(user: UserRow, origin: Origin, tx: Tx): Promise<boolean> {
    if (!(await users.verifyEmail(user.id, tx))) return false
    const target = { type: 'user', id: user.id } as const
    const caller = followerOf(user, origin)
    await audit.append({ action: 'user.email_verified', caller, target, accountId: user.accountId }, tx)
    return true
  }

  /**
   * The same for who has shown nothing but the mailbox. A password from before is perhaps that of a stranger, who has
   * registered with the address to be in once its owner comes: it goes, and with it what it has opened.
   */
  async function verifyByMailbox(user: UserRow, origin: Origin, tx: Tx): Promise<void> {
    if (!(await verifyEmail(user, origin, tx))) return
    await sessions.endSessionsOf(user.id, 'password_changed', tx)
    await users.raiseTokenVersions([user.id], tx)
    if (!(await users.removePassword(user.id, tx))) return
    const target = { type: 'user', id: user.id } as const
    const caller = followerOf(user, origin)
    await audit.append({ action: 'user.password_removed', caller, target, accountId: user.accountId }, tx)
    await tell(user, 'unproven_password_removed', tx)
  }

  return {
    /**
     * Mails a link to set a new password, if somebody active with credentials has the email.
     * @throws AppError mail_not_configured, too_many_requests; the same for known and unknown emails
     */
    async requestPasswordReset(email: string, origin: Origin): Promise<void> {
      await askFor({ kind: 'password_reset', email, ...origin })
    },

    /**
     * Sets a new password for whoever has followed the link, and ends their sessions, waits and other links. It signs
     * nobody in: second factors are asked for as ever (ASVS 6.4.3).
     * @throws AppError invalid_link, validation_failed, password_blocklisted, sign_in_busy
     */
    async confirmPasswordReset(token: string, password: string, origin: Origin): Promise<void> {
      const link = await found(token, 'password_reset')
      const owner = (await users.findUser(link.userId)) ?? fail('invalid_link')
      await usersService.assertPasswordFits(password, owner)
      const hash = await passwords.hash(password)
      const { id, email } = await transact(db, async (tx) => {
        const user = await take(link, tx)
        await usersService.setPassword(followerOf(user, origin), user, hash, false, tx)
        await verifyEmail(user, origin, tx)
        return user
      })
      if (email !== null) await throttle.forgive(normalizeEmail(email))
      await throttle.forgive(ownPassword(id))
    },

    /**
     * Mails a person a link to set a new password, for an administrator who shall not know it (ASVS 6.4.6).
     * @throws AppError mail_not_configured, user_not_found, user_gets_no_mail, grant_exceeds_own, user_is_protected
     */
    async sendPasswordReset(caller: Caller, userId: string): Promise<void> {
      mailer.assertConfigured()
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        await refuseTakeover(caller, userId, users, tx)
        await roles.assertCoversPerson(caller, userId, tx)
        const recipient = (await repository.lockRecipient(user.id, tx)) ?? fail('user_gets_no_mail')
        await links.send('password_reset', recipient, caller, tx)
      })
    },

    /**
     * Mails a link that signs in, if somebody active with credentials has the email. Returns what must be presented
     * together with it, so that it works only where it was asked for (ASVS 6.6.3).
     * @throws AppError magic_links_off, mail_not_configured, too_many_requests
     */
    async requestMagicLink(email: string, origin: Origin): Promise<string> {
      if (!config.signsInByLink) throw new AppError('magic_links_off')
      const requestToken = randomBytes(32).toString('base64url')
      await askFor({ kind: 'magic_link', email, requestHash: hashOf(requestToken), ...origin })
      return requestToken
    },

    /**
     * Signs in whoever has followed the link in the browser that asked for it. A second factor is asked for as ever. The
     * first proof of an address removes a password that was set before.
     * @throws AppError magic_links_off, invalid_link, and what `complete` of a sign-in throws
     */
    async signInByLink(token: string, requestToken: string, input: SignInContext): Promise<SignedIn> {
      if (!config.signsInByLink) throw new AppError('magic_links_off')
      const link = await found(token, 'magic_link')
      const { requestHash = '' } = links.dataOf(link)
      const [given, expected] = [Buffer.from(hashOf(requestToken)), Buffer.from(requestHash)]
      if (given.length !== expected.length || !timingSafeEqual(given, expected))
        throw new AppError('invalid_link')
      await transact(db, async (tx) => await verifyByMailbox(await take(link, tx), input, tx))
      const person = (await attempts.findForSignInById(link.userId)) ?? fail('invalid_link')
      return await signIn.complete(person, ['email'], input)
    },

    /** Whether and when a person has shown to read what is sent to their email. */
    async emailState(userId: string): Promise<{ email: string | null; verifiedAt: Date | null }> {
      const recipient = await repository.findRecipient(userId)
      return { email: recipient?.email ?? null, verifiedAt: recipient?.emailVerifiedAt ?? null }
    },

    /**
     * Mails the caller a link to confirm their own address, unless that was done.
     * @throws AppError mail_not_configured, too_many_requests, user_gets_no_mail
     */
    async requestVerification(caller: Caller, { userId }: UserPrincipal): Promise<void> {
      mailer.assertConfigured()
      await throttle.count('email_verification', `user|${userId}`, config.perRecipientAndHour, AN_HOUR)
      await transact(db, async (tx) => {
        const recipient = (await repository.lockRecipient(userId, tx)) ?? fail('user_gets_no_mail')
        if (recipient.emailVerifiedAt === null) await links.send('email_verification', recipient, caller, tx)
      })
    },

    /** Notes that the address is the person's. @throws AppError invalid_link */
    async confirmVerification(token: string, origin: Origin): Promise<void> {
      const link = await found(token, 'email_verification')
      await transact(db, async (tx) => {
        await verifyEmail(await take(link, tx), origin, tx)
      })
    },

    /**
     * Begins a change of the caller's email, which both addresses must confirm: the new one that it is theirs, the one
     * in force that they want it. Whether somebody has the new address already is said to nobody but that address.
     * @throws AppError mail_not_configured, too_many_requests, user_gets_no_mail, validation_failed
     */
    async requestEmailChange(caller: Caller, { userId }: UserPrincipal, newEmail: string): Promise<void> {
      mailer.assertConfigured()
      await throttle.count('email_change', `user|${userId}`, config.perRecipientAndHour, AN_HOUR)
      const isWelcome = await links.mayBeSent('email_change', newEmail)
      const taken = await storedForm(newEmail)
      await transact(db, async (tx) => {
        const { id, email, accountId } =
          (await repository.lockRecipient(userId, tx)) ?? fail('user_gets_no_mail')
        if (isSameEmail(email, newEmail)) throw isInForce()
        const consent = await links.insert(id, 'email_change_consent', tx, { newEmail })
        const data = { ...consent.data, new_email: newEmail }
        await mailer.send({ ...consent, to: email, template: 'email-change-notice', data }, tx)
        const proof = await links.insert(id, 'email_change', tx, { newEmail })
        if (isWelcome && taken !== undefined) await tellOfAccount(taken, tx)
        else if (isWelcome) await mailer.send({ ...proof, to: newEmail, template: 'email-change' }, tx)
        await audit.append(
          {
            action: 'user.email_change_requested',
            caller,
            target: { type: 'user', id },
            accountId,
            personal: { email_before: email, email_after: newEmail },
          },
          tx,
        )
      })
    },

    /**
     * Confirms a change of an email from one of its two addresses; true when it was the second, so that it is done.
     * @throws AppError invalid_link, email_taken
     */
    async confirmEmailChange(token: string, origin: Origin): Promise<boolean> {
      const link = await found(token, 'email_change', 'email_change_consent')
      return await transact(db, async (tx) => {
        const user = await users.lockUser(link.userId, tx)
        // Read under the lock: the other address may just have confirmed.
        const current = await repository.findLinkOf(link.userId, link.kind, tx)
        if (!user?.isActive || current?.id !== link.id || !(await repository.takeLink(link.id, tx)))
          throw new AppError('invalid_link')
        const { newEmail = fail('invalid_link'), isOtherConfirmed } = links.dataOf(current)
        if (isOtherConfirmed) {
          await usersService.writeChanges(followerOf(user, origin), user, { email: newEmail }, tx)
          await verifyEmail(user, origin, tx)
          return true
        }
        const otherKind = link.kind === 'email_change' ? 'email_change_consent' : 'email_change'
        const other = (await repository.findLinkOf(user.id, otherKind, tx)) ?? fail('invalid_link')
        await repository.setData(other.id, links.seal({ newEmail, isOtherConfirmed: true }), tx)
        return false
      })
    },

    /**
     * Registers somebody and mails them a link to confirm their address, as EMAIL_VERIFICATION says. Where that is
     * required nothing here tells whether the email was taken: whoever has it is told by mail.
     * @returns the user; `undefined` when the email was taken and nobody shall know
     * @throws AppError email_taken, validation_failed, password_blocklisted, sign_in_busy
     */
    async register(caller: AnonymousCaller, input: NewUser): Promise<UserRow | undefined> {
      const { verification } = config
      const isMailed = verification !== 'off' && mailer.isConfigured
      const isWelcome = isMailed && (await links.mayBeSent('email_verification', input.email))
      try {
        return await usersService.registerUser(caller, input, async ({ id }, tx) => {
          const recipient = { id, email: input.email, accountId: null }
          if (isWelcome) await links.send('email_verification', recipient, caller, tx)
        })
      } catch (error) {
        const isTaken = error instanceof AppError && error.code === 'email_taken'
        if (!isTaken || verification !== 'required') throw error
        const owner = isWelcome ? await storedForm(input.email) : undefined
        if (owner !== undefined) await tellOfAccount(owner, db)
        return undefined
      }
    },

    prune: repository.prune,
    reseal: links.reseal,
  }
}

const isInForce = (): AppError =>
  new AppError('validation_failed', {
    errors: [{ pointer: '/body/email', detail: 'is the address that is in force' }],
  })
