import { type MfaRule, needsSecondFactor } from '../auth/grants.ts'
import type { PasswordHasher } from '../auth/passwords.ts'
import { personalWords } from './blocklist.ts'
import type { PasswordOwnersRepository } from './repository.ts'

/** Whose password it is to be, as far as it is known: `id` when the person is there already. */
export type PasswordOwner = {
  id?: string
  email?: string | null
  fullName?: string | null
  firstName?: string | null
  lastName?: string | null
  phoneNumber?: string | null
  key?: string
  accountId?: string | null
}

export type PasswordRules = ReturnType<typeof createPasswordRules>

type Dependencies = {
  owners: PasswordOwnersRepository
  passwords: Pick<PasswordHasher, 'assertAcceptable'>
  mfaRule: MfaRule
}

/** The rules for a password that somebody is to have. */
export function createPasswordRules({ owners, passwords, mfaRule }: Dependencies) {
  /** Who has a second factor and must show it wherever they sign in. A factor that is still to be enrolled is none. */
  async function alwaysNeedsSecondFactor(userId: string): Promise<boolean> {
    const demands = await owners.findDemands(userId)
    if (!demands?.hasSecondFactor) return false
    return demands.accounts.every((account) => needsSecondFactor(mfaRule, demands.roles, account))
  }

  return {
    /**
     * Checks a password that is to be set, whoever sets it.
     * @throws AppError validation_failed when it is too short or too long; password_blocklisted when attackers would
     * try it, or it is little more than a name of the person, of the account or of the service
     */
    async assertFits(password: string, owner: PasswordOwner, pointer = '/body/password'): Promise<void> {
      const { id, accountId, ...person } = owner
      const accountName = accountId == null ? undefined : await owners.findAccountName(accountId)
      passwords.assertAcceptable(password, pointer, {
        words: personalWords({ ...person, accountName }),
        needsSecondFactor: id !== undefined && (await alwaysNeedsSecondFactor(id)),
      })
    },
  }
}
