import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { LOWEST_ID } from '../ids.ts'
import type { Caller, UserPrincipal } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import type { SessionsRepository } from '../sessions/repository.ts'
import { refuseTakeover, refuseTakeoverAcrossAccounts } from '../users/protection.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import type { AnyUser, ErasureRepository } from './repository.ts'

export type ErasureService = ReturnType<typeof createErasureService>

type Dependencies = {
  database: Database
  erasure: ErasureRepository
  users: UsersRepository
  usersService: UsersService
  sessions: SessionsRepository
  roles: RolesService
  audit: AuditRepository
  /** Whether people may delete themselves. */
  isOpenToPeople: boolean
}

const EXPORTED_AT_ONCE = 500

/** The end of a person's life here, the way back, and what was known of them. */
export function createErasureService(dependencies: Dependencies) {
  const { database, erasure, users, usersService, sessions, roles, audit, isOpenToPeople } = dependencies
  const { db } = database

  /** Holds somebody whose data there is, and whom the caller may decide on. @throws AppError user_not_found, … */
  async function lockFor(caller: Caller, id: string, tx: Tx): Promise<AnyUser> {
    const user = (await erasure.lockAnyUser(id, tx)) ?? fail('user_not_found')
    await refuseTakeover(caller, id, users, tx)
    await roles.assertCoversPerson(caller, id, tx)
    return user
  }

  /** Removes everything personal; the row must be locked. */
  async function eraseLocked(caller: Caller, user: AnyUser, tx: Tx): Promise<void> {
    if (user.deletedAt === null) await sessions.endSessionsOf(user.id, 'user_deleted', tx)
    await erasure.eraseUser(user, tx)
    await audit.append(
      {
        action: 'user.erased',
        caller,
        target: { type: 'user', id: user.id },
        accountId: user.accountId,
      },
      tx,
    )
  }

  async function* describe(user: AnyUser): AsyncGenerator<string> {
    const fixed = { exported_at: new Date().toISOString(), ...(await erasure.describeUser(user)) }
    yield JSON.stringify(fixed).slice(0, -1)
    for (const [name, read] of [
      ['decisions', erasure.readDecisions],
      ['audit_events', erasure.readEvents],
    ] as const) {
      yield `,${JSON.stringify(name)}:[`
      let after: string | undefined = LOWEST_ID
      for (let isFirst = true; after !== undefined; isFirst = false) {
        const rows: { id: string }[] = await read(user, after, EXPORTED_AT_ONCE)
        if (rows.length > 0) yield (isFirst ? '' : ',') + rows.map((row) => JSON.stringify(row)).join(',')
        after = rows.length < EXPORTED_AT_ONCE ? undefined : rows.at(-1)?.id
      }
      yield ']'
    }
    yield '}'
  }

  return {
    /**
     * Everything that is stored about somebody, as one JSON document in pieces. That it was asked for is an event.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected
     */
    async exportUser(caller: Caller, id: string): Promise<AsyncGenerator<string>> {
      const user = await transact(db, async (tx) => {
        const found = await lockFor(caller, id, tx)
        if (found.erasedAt !== null) throw new AppError('user_not_found')
        await audit.append(
          { action: 'user.exported', caller, target: { type: 'user', id }, accountId: found.accountId },
          tx,
        )
        return found
      })
      return describe(user)
    },

    /** The same of oneself. */
    async exportOwn(caller: Caller, { userId }: UserPrincipal): Promise<AsyncGenerator<string>> {
      const user = await transact(db, async (tx) => {
        const found = (await erasure.lockAnyUser(userId, tx)) ?? fail('user_not_found')
        await audit.append(
          {
            action: 'user.exported',
            caller,
            target: { type: 'user', id: userId },
            accountId: found.accountId,
          },
          tx,
        )
        return found
      })
      return describe(user)
    },

    /**
     * Removes at once and for good what is known of somebody, deleted before or not. Does nothing for who is erased.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_belongs_to_other_accounts,
     * last_super_admin
     */
    async eraseUser(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = await lockFor(caller, id, tx)
        if (user.erasedAt !== null) return
        await refuseTakeoverAcrossAccounts(caller, id, 'postern.users:delete', users, tx)
        await eraseLocked(caller, user, tx)
        if (user.deletedAt === null) await roles.assertSuperAdminStays(tx)
      })
    },

    /**
     * Undoes a deletion, with the roles and accounts that the person had, but for accounts that were deleted meanwhile:
     * whose home was one of these has none. They sign in anew.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_not_deleted, email_taken, user_key_taken
     */
    async restoreUser(caller: Caller, id: string): Promise<UserRow> {
      return await transact(db, async (tx) => {
        const user = await lockFor(caller, id, tx)
        if (user.erasedAt !== null) throw new AppError('user_not_found')
        if (user.deletedAt === null) throw new AppError('user_not_deleted')
        const left = await erasure.restoreUser(id, tx)
        await audit.append(
          {
            action: 'user.restored',
            caller,
            target: { type: 'user', id },
            accountId: user.accountId,
            ...(left.length > 0 && { details: { deleted_account_ids: left } }),
          },
          tx,
        )
        return (await users.findUser(id, tx)) ?? fail('user_not_found')
      })
    },

    /**
     * A person leaves: every session ends, and what is known of them is erased later, as of everybody who is deleted.
     * @throws AppError self_deletion_disabled, last_super_admin
     */
    async deleteOwn(caller: Caller, { userId }: UserPrincipal): Promise<void> {
      if (!isOpenToPeople) throw new AppError('self_deletion_disabled')
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        await usersService.deleteLocked(caller, user, tx)
        await roles.assertSuperAdminStays(tx)
      })
    },

    /** Erases somebody whose time after the deletion is over; nobody who was restored meanwhile. */
    async eraseDeleted(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = await erasure.lockAnyUser(id, tx)
        if (user && user.deletedAt !== null && user.erasedAt === null) await eraseLocked(caller, user, tx)
      })
    },

    /** Where the record of somebody belongs who may be deleted, for the guard. */
    async homeAccountOf(id: string): Promise<string[]> {
      return [(await erasure.findHomeAccount(id)) ?? []].flat()
    },
  }
}
