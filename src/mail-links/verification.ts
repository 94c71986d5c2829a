import type { SignInRow } from '../auth/repository.ts'
import { type Database, transact } from '../db/client.ts'
import { AppError } from '../errors.ts'
import type { Links } from './links.ts'
import type { MailLinksRepository } from './repository.ts'

type Dependencies = {
  database: Database
  repository: MailLinksRepository
  links: Links
  /** Whether people must have confirmed their address before they sign in. */
  isRequired: boolean
  onWarning: (details: Record<string, unknown>, message: string) => void
}

/** Whoever is certain to have shown who they are, and where they ask from. */
export type VerificationGate = (
  person: Pick<SignInRow, 'id' | 'emailVerifiedAt'>,
  origin: { requestId: string; address: string },
) => void

/**
 * What keeps out whoever has not confirmed their address where that is required, like a wrong password (ASVS 6.3.8), and
 * mails them a further link. Only for those who have shown the password or another factor.
 * @throws AppError invalid_credentials
 */
export function createVerificationGate({
  database,
  repository,
  links,
  isRequired,
  onWarning,
}: Dependencies): VerificationGate {
  async function send(userId: string, origin: Parameters<VerificationGate>[1]): Promise<void> {
    const email = (await repository.findRecipient(userId))?.email
    if (email === undefined || !(await links.mayBeSent('email_verification', email))) return
    await transact(database.db, async (tx) => {
      const recipient = await repository.lockRecipient(userId, tx)
      const caller = { principal: undefined, requestId: origin.requestId, address: origin.address }
      if (recipient) await links.send('email_verification', recipient, caller, tx)
    })
  }

  return ({ id, emailVerifiedAt }, origin) => {
    if (!isRequired || emailVerifiedAt !== null) return
    // Not waited for: a right password is to be answered as soon as a wrong one. Who gets no link signs in once more.
    void send(id, origin).catch((error: unknown) =>
      onWarning({ err: error }, 'a link to confirm an address was not sent'),
    )
    throw new AppError('invalid_credentials')
  }
}
