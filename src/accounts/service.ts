import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import type { BUILTIN_ROLES } from '../permissions.ts'
import { assertHoldsAnywhere, type Caller, SYSTEM } from '../principal.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { RolesService } from '../roles/service.ts'
import { type RecencyCheck, refuseTakeover, refuseTakeoverOfResidents } from '../users/protection.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { AccountChanges, AccountRow, AccountsRepository, MemberRow, Membership } from './repository.ts'

/** The key of the first account, which requests that name none mean. */
export const DEFAULT_ACCOUNT_KEY = 'default'

export type NewAccount = Omit<AccountChanges, 'key' | 'name'> & { name: string; key?: string }
export type AccountUpdate = Omit<AccountChanges, 'key'>
/** What a person may say of an account that they open for themselves. */
export type OwnAccount = Pick<NewAccount, 'name' | 'key' | 'description' | 'attributes' | 'isMfaRequired'>

/** The role of whoever opens an account for themselves. */
const OWNER_ROLE = 'ACCOUNT_ADMIN' satisfies keyof typeof BUILTIN_ROLES

export type AccountsService = ReturnType<typeof createAccountsService>

type Dependencies = {
  database: Database
  accounts: AccountsRepository
  users: UsersRepository
  roles: RolesService
  audit: AuditRepository
  assertRecentAuthentication: RecencyCheck
}

/** The rules for accounts and members of one environment. */
export function createAccountsService(dependencies: Dependencies) {
  const { database, accounts, users, roles, audit, assertRecentAuthentication } = dependencies
  const { db } = database
  return {
    listAccounts: accounts.listAccounts,

    /** @throws AppError account_not_found */
    async getAccount(id: string): Promise<AccountRow> {
      return (await accounts.findAccount(id)) ?? fail('account_not_found')
    },

    /** @throws AppError account_key_taken, validation_failed when no key can be made from the name */
    async createAccount(caller: Caller, input: NewAccount): Promise<AccountRow> {
      const key = input.key ?? keyFromName(input.name)
      return await transact(db, async (tx) => {
        const id = await this.insertAccount(caller, { ...input, key }, tx)
        return (await accounts.findAccount(id, tx)) ?? fail('account_not_found')
      })
    },

    /**
     * An account that a person opens for themselves: they are its administrator, at home in it if they had no home.
     * @param most how many of them one person may have
     * @throws AppError account_limit_reached, account_key_taken, validation_failed
     */
    async openAccount(caller: Caller, userId: string, input: OwnAccount, most: number): Promise<AccountRow> {
      const key = input.key ?? keyFromName(input.name)
      // Nobody may give themselves a role: it is the service that gives this one.
      const service = { ...caller, principal: SYSTEM.principal }
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        if ((await accounts.countOpenedBy(userId, tx)) >= most) throw new AppError('account_limit_reached')
        const id = await this.insertAccount(caller, { ...input, key, openedByUserId: userId }, tx)
        const role = (await roles.findRoleByKey(OWNER_ROLE, tx)) ?? fail('role_not_found')
        const isHome = user.accountId === null
        if (isHome) await this.moveLockedUser(service, user, id, tx)
        else await accounts.upsertMember(id, userId, tx)
        await roles.assign(service, user, role.id, id, isHome && user.primaryRole === null, tx)
        return (await accounts.findAccount(id, tx)) ?? fail('account_not_found')
      })
    },

    /** Writes the account and its audit row; returns the id. @throws AppError account_key_taken */
    async insertAccount(
      caller: Caller,
      account: NewAccount & { key: string; openedByUserId?: string },
      tx: Tx,
    ): Promise<string> {
      const id = newId()
      await accounts.insertAccount({ ...account, id }, tx)
      await audit.append(
        {
          action: 'account.created',
          caller,
          target: { type: 'account', id },
          accountId: id,
          details: { key: account.key },
        },
        tx,
      )
      return id
    },

    /**
     * @throws AppError account_not_found, precondition_failed, grant_exceeds_own, user_is_protected, last_super_admin,
     * insufficient_scope for another plan from who administers this account only, reauthentication_required of a person
     * who has it no longer demand two factors
     */
    async updateAccount(
      caller: Caller,
      id: string,
      changes: AccountUpdate,
      ifMatch: IfMatch,
    ): Promise<AccountRow> {
      return await transact(db, async (tx) => {
        const account = (await accounts.lockAccount(id, tx)) ?? fail('account_not_found')
        assertMatches(ifMatch, account.revision)
        if (changesPlan(account, changes)) assertHoldsAnywhere(caller, 'postern.accounts:write')
        if (account.isMfaRequired && changes.isMfaRequired === false)
          await assertRecentAuthentication(caller, tx)
        const toggled = changes.isActive !== undefined && changes.isActive !== account.isActive
        if (toggled) await refuseTakeoverOfResidents(caller, id, users, tx)
        if (toggled && !changes.isActive) await roles.assertCoversResidents(caller, id, tx)
        await accounts.updateAccount(account, changes, tx)
        await audit.append(
          {
            action: !toggled
              ? 'account.updated'
              : changes.isActive
                ? 'account.activated'
                : 'account.deactivated',
            caller,
            target: { type: 'account', id },
            accountId: id,
            details: { fields: Object.keys(changes) },
          },
          tx,
        )
        if (toggled && !changes.isActive) await roles.assertSuperAdminStays(tx)
        return (await accounts.findAccount(id, tx)) ?? fail('account_not_found')
      })
    },

    /** @throws AppError account_not_found, account_has_people, account_is_default, precondition_failed */
    async deleteAccount(caller: Caller, id: string, ifMatch: IfMatch): Promise<void> {
      await transact(db, async (tx) => {
        const account = (await accounts.lockAccount(id, tx)) ?? fail('account_not_found')
        assertMatches(ifMatch, account.revision)
        if (account.key === DEFAULT_ACCOUNT_KEY) throw new AppError('account_is_default')
        if (await accounts.hasPeople(id, tx)) throw new AppError('account_has_people')
        await this.deleteLocked(caller, account, tx)
      })
    },

    /**
     * The end of an account that another system keeps, with the memberships of the people whom it keeps and the
     * instances of resources in it. Whoever is at home there, can sign in or holds a built-in role stands against it.
     * @throws AppError account_not_found, account_has_people, account_is_default
     */
    async deleteSynced(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const account = (await accounts.lockAccount(id, tx)) ?? fail('account_not_found')
        if (account.key === DEFAULT_ACCOUNT_KEY) throw new AppError('account_is_default')
        if (await accounts.hasOwnPeople(id, tx)) throw new AppError('account_has_people')
        await this.deleteLocked(caller, account, tx)
      })
    },

    /** Writes the end of an account, whose row must be locked, and of what is in it. */
    async deleteLocked(caller: Caller, { id, key }: AccountRow, tx: Tx): Promise<void> {
      await accounts.deleteContents(id, tx)
      await accounts.softDeleteAccount(id, tx)
      await audit.append(
        {
          action: 'account.deleted',
          caller,
          target: { type: 'account', id },
          accountId: id,
          details: { key },
        },
        tx,
      )
    },

    /**
     * Makes the account the user's home: the primary account role moves along, other roles held in the old
     * account are dropped, and so is the membership there.
     * @throws AppError account_not_found, user_not_found, grant_exceeds_own, user_is_protected, last_super_admin
     */
    async moveUser(caller: Caller, accountId: string, userId: string): Promise<UserRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        await this.moveLockedUser(caller, user, accountId, tx)
        return (await users.findUser(userId, tx)) ?? fail('user_not_found')
      })
    },

    /** The same within a transaction that holds the user's row. Does nothing when the account is home already. */
    async moveLockedUser(caller: Caller, user: UserRow, accountId: string, tx: Tx): Promise<void> {
      if (user.accountId === accountId) return
      await this.lockForPeople(accountId, tx)
      await refuseTakeover(caller, user.id, users, tx)
      await roles.assertCoversPerson(caller, user.id, tx)
      await accounts.upsertMember(accountId, user.id, tx)
      await users.updateUser(user, { accountId }, tx)
      if (user.accountId !== null) {
        // What the primary role allows, it allows there from now on.
        await roles.assertRecentFor(caller, user.primaryRole ? [user.primaryRole.id] : [], tx)
        await roles.movePrimaryAssignment(user.id, accountId, tx)
        await accounts.deleteMember(user.accountId, user.id, tx)
      }
      await users.raiseTokenVersions([user.id], tx)
      await audit.append(
        {
          action: 'user.moved',
          caller,
          target: { type: 'user', id: user.id },
          accountId,
          details: { from: user.accountId, to: accountId },
        },
        tx,
      )
      await roles.assertSuperAdminStays(tx)
    },

    /** @throws AppError account_not_found */
    async listMembers(accountId: string, request: PageRequest): Promise<Page<MemberRow>> {
      await this.getAccount(accountId)
      return await accounts.listMembers(accountId, request)
    },

    /** Makes the user a member beside the home account. @throws AppError account_not_found, user_not_found */
    async addMember(caller: Caller, accountId: string, userId: string): Promise<void> {
      await transact(db, async (tx) => {
        if (!(await users.lockUser(userId, tx))) throw new AppError('user_not_found')
        await this.addLockedMember(caller, accountId, userId, tx)
      })
    },

    /** The same within a transaction that holds the user's row. @throws AppError account_not_found */
    async addLockedMember(caller: Caller, accountId: string, userId: string, tx: Tx): Promise<void> {
      await this.lockForPeople(accountId, tx)
      await accounts.upsertMember(accountId, userId, tx)
      await audit.append(
        { action: 'member.added', caller, target: { type: 'user', id: userId }, accountId },
        tx,
      )
    },

    /**
     * Ends a membership and every role held through it. Whoever belongs to other accounts too, so that nobody here may
     * deactivate them, loses their home with it, and has none.
     * @throws AppError user_not_found, member_not_found, home_account_membership, user_is_protected, grant_exceeds_own
     */
    async removeMember(caller: Caller, accountId: string, userId: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const isHome = user.accountId === accountId
        if (isHome && !(await users.belongsBeyond(userId, accountId, tx)))
          throw new AppError('home_account_membership')
        if (isHome) await refuseTakeover(caller, userId, users, tx)
        await roles.assertCoversRolesIn(caller, userId, isHome ? [accountId, null] : [accountId], tx)
        if (isHome) await users.updateUser(user, { accountId: null }, tx)
        if (!(await accounts.deleteMember(accountId, userId, tx))) throw new AppError('member_not_found')
        await users.raiseTokenVersions([userId], tx)
        await audit.append(
          {
            action: 'member.removed',
            caller,
            target: { type: 'user', id: userId },
            accountId,
            ...(isHome && { details: { was_home: true } }),
          },
          tx,
        )
      })
    },

    /** The accounts that a person belongs to, by name. */
    async listMemberships(userId: string): Promise<Membership[]> {
      return await accounts.listMemberships(userId)
    },

    /** Writes the membership, with no rule but those of the database. */
    insertMember: accounts.upsertMember,

    /** Holds the account against deletion while somebody is put into it. @throws AppError account_not_found */
    async lockForPeople(accountId: string, tx: Tx): Promise<AccountRow> {
      return (await accounts.lockAccount(accountId, tx, 'share')) ?? fail('account_not_found')
    },

    /** An account by its key or id, whichever it is. */
    async findByKeyOrId(keyOrId: string): Promise<AccountRow | undefined> {
      return (
        (await accounts.findAccountByKey(keyOrId)) ??
        (isUuid(keyOrId) ? await accounts.findAccount(keyOrId) : undefined)
      )
    },
  }
}

/** What an account has paid for is not for its own administrators to say. */
const changesPlan = (
  account: AccountRow,
  { planId, currentSubscriptionEnds: ends }: AccountUpdate,
): boolean =>
  (planId !== undefined && planId?.toLowerCase() !== account.planId?.toLowerCase()) ||
  (ends !== undefined && ends?.getTime() !== account.currentSubscriptionEnds?.getTime())

/** `Acme & Söhne` becomes `acme-sohne`. @throws AppError validation_failed when nothing is left of it */
export function keyFromName(name: string): string {
  const key = name
    .normalize('NFKD')
    .replaceAll(/\p{Mark}/gu, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9_]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
  if (key !== '') return key
  throw new AppError('validation_failed', {
    errors: [{ pointer: '/body/key', detail: 'is required, because no key can be made from the name' }],
  })
}
