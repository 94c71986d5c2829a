import type { AuditRepository } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, transact } from '../db/client.ts'
import { fail } from '../errors.ts'
import { identifiersOf } from '../factors/proofs.ts'
import type { Caller } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import { refuseOneself, refuseTakeover, refuseTakeoverAcrossAccounts } from '../users/protection.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { Throttle } from './throttle.ts'

type Dependencies = {
  database: Database
  users: UsersRepository
  roles: RolesService
  /** Of passwords, and of second factors. */
  throttle: Throttle
  factorsThrottle: Throttle
  audit: AuditRepository
}

/** What failed attempts have closed, and how an administrator opens it. */
export function createLocks({ database, users, roles, throttle, factorsThrottle, audit }: Dependencies) {
  return {
    /**
     * Ends the waits and stops after wrong passwords and codes of a person. It makes guessing easier for a while, so that
     * it takes what editing the person takes.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_belongs_to_other_accounts,
     * not_for_oneself
     */
    async unlock(caller: Caller, userId: string): Promise<void> {
      refuseOneself(caller, userId)
      const email = await transact(database.db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        await refuseTakeover(caller, userId, users, tx)
        await roles.assertCoversPerson(caller, userId, tx)
        await refuseTakeoverAcrossAccounts(caller, userId, 'postern.users:write', users, tx)
        await audit.append(
          {
            action: 'user.unlocked',
            caller,
            target: { type: 'user', id: userId },
            accountId: user.accountId,
          },
          tx,
        )
        return user.email
      })
      if (email !== null) await throttle.forgive(normalizeEmail(email))
      await throttle.forgive(ownPassword(userId))
      for (const identifier of identifiersOf(userId)) await factorsThrottle.forgive(identifier)
    },
  }
}

/** Whose failures are counted where somebody who is signed in shows the password again. */
export const ownPassword = (userId: string): string => `change-password|${userId}`
