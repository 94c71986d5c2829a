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
}

/** Whoever is certain to have shown who they are, and where they ask from. */
export type VerificationGate = (
  person: Pick<SignInRow, 'id' | 'emailVerifiedAt'>,
  origin: { requestId: string; address: string },
) => Promise<void>

/**
 * What keeps out whoever has not confirmed their address where that is required, like a wrong password (ASVS 6.3.8),
 * after a further link was mailed. Only for those who have shown the password or another factor.
 * @throws AppError invalid_credentials
 */
export function createVerificationGate({
  database,
  repository,
  links,
  isRequired,
}: Dependencies): VerificationGate {
  return async ({ id, emailVerifiedAt }, origin) => {
    if (!isRequired || emailVerifiedAt !== null) return
    const email = (await repository.findRecipient(id))?.email
    if (email !== undefined && (await links.mayBeSent('email_verification', email))) {
      await transact(database.db, async (tx) => {
        const recipient = await repository.lockRecipient(id, tx)
        const caller = { principal: undefined, ...origin }
        if (recipient) await links.send('email_verification', recipient, caller, tx)
      })
    }
    throw new AppError('invalid_credentials')
  }
}
