import type { AccountRow, AccountsRepository } from '../accounts/repository.ts'
import type { AccountsService } from '../accounts/service.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { InstancesService } from '../instances/service.ts'
import { assertHoldsAnywhere, type Caller } from '../principal.ts'
import type { RolesRepository } from '../roles/repository.ts'
import type { RolesService } from '../roles/service.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { SyncedUser, SyncedUserChanges, UsersService } from '../users/service.ts'
import { findApplicationRole } from './lookup.ts'
import { dashed } from './names.ts'
import type { GrantRow, Holdings, NumberedPage, PermitRepository } from './repository.ts'
import type { PlaceIds } from './schemas.ts'
import type { UserPage, UserPagesRepository } from './user-pages-repository.ts'

/** A role for somebody, by keys or ids: in an account, or on an instance (`type:key`). */
export type Grant = { user: string; role: string; tenant?: string | undefined; instance?: string | undefined }

/** What happens to a role for somebody who is not there. */
export type MissingUserPolicy = 'fail' | 'ignore' | 'create'

export type UserWithHoldings = { user: UserRow; holdings: Holdings }

type Dependencies = {
  database: Database
  permit: PermitRepository
  userPages: UserPagesRepository
  users: UsersService
  usersRepository: UsersRepository
  accounts: AccountsService
  accountsRepository: AccountsRepository
  roles: RolesService
  rolesRepository: RolesRepository
  instances: InstancesService
}

export type PermitService = ReturnType<typeof createPermitService>

/** A role and where it is held, found by the names of a grant. */
type Resolved = { userId: string; roleId: string; accountId: string; instanceId: string | null }

/**
 * What Permit's management API does in one call and ours in several: people with their roles, roles by keys. The
 * rules are those of the services behind it; built-in roles are not there.
 */
export function createPermitService(dependencies: Dependencies) {
  const { database, permit, users, usersRepository, accounts, accountsRepository, roles, rolesRepository } =
    dependencies
  const { instances, userPages } = dependencies
  const { db } = database

  async function userById(id: string): Promise<UserWithHoldings> {
    return { user: await users.getUser(id), holdings: await permit.findHoldings(id) }
  }

  async function findUser(name: string, ex: Executor = db): Promise<UserRow | undefined> {
    const id = dashed(name)
    return (
      (await usersRepository.findUserByKey(name, ex)) ??
      (isUuid(id) ? await usersRepository.findUser(id, ex) : undefined)
    )
  }

  async function getUser(name: string): Promise<UserRow> {
    return (await findUser(name)) ?? fail('user_not_found')
  }

  async function findAccount(name: string, ex: Executor = db): Promise<AccountRow | undefined> {
    const id = dashed(name)
    return (
      (await accountsRepository.findAccountByKey(name, ex)) ??
      (isUuid(id) ? await accountsRepository.findAccount(id, ex) : undefined)
    )
  }

  async function getAccount(name: string, ex: Executor = db): Promise<AccountRow> {
    return (await findAccount(name, ex)) ?? fail('account_not_found')
  }

  /** A role of the application by key or id: of a resource, or, with null, one held in accounts. */
  async function findRoleId(
    name: string,
    resourceId: string | null,
    ex: Executor = db,
  ): Promise<string | undefined> {
    return (await findApplicationRole(rolesRepository, name, resourceId, ex))?.id
  }

  async function getRoleId(name: string, resourceId: string | null, tx: Tx): Promise<string> {
    return (await findRoleId(name, resourceId, tx)) ?? fail('role_not_found')
  }

  /** The account that the grant names. @throws AppError account_not_found, validation_failed */
  async function accountIdOf(tenant: string | undefined, tx: Tx): Promise<string> {
    if (tenant === undefined) throw invalid('/body/tenant', 'is required')
    return (await getAccount(tenant, tx)).id
  }

  /** What the grant names; with `create`, an instance that is not there is made in the account that it names. */
  async function resolve(
    grant: Grant,
    userId: string,
    create: Caller | undefined,
    tx: Tx,
  ): Promise<Resolved> {
    const { role, tenant, instance } = grant
    if (instance === undefined) {
      const accountId = await accountIdOf(tenant, tx)
      return { userId, roleId: await getRoleId(role, null, tx), accountId, instanceId: null }
    }
    const name = dashed(instance)
    const found =
      (await rolesRepository.findInstance(name, tx)) ??
      (create ? await makeInstance(create, name, tenant, tx) : fail('instance_not_found'))
    if (tenant !== undefined && (await accountIdOf(tenant, tx)) !== found.accountId)
      throw new AppError('instances_in_different_accounts')
    const roleId = await getRoleId(role, found.resourceId, tx)
    return { userId, roleId, accountId: found.accountId, instanceId: found.id }
  }

  /** Who may give roles may not for that reason make what they are held on. */
  async function makeInstance(caller: Caller, name: string, tenant: string | undefined, tx: Tx) {
    assertHoldsAnywhere(caller, 'postern.policy:write')
    return await instances.ensureInstance(caller, name, tenant, tx)
  }

  /** Gives the role unless it is held; the user's row must be locked. @returns the id of the new assignment */
  async function give(caller: Caller, user: UserRow, grant: Grant, tx: Tx): Promise<string | undefined> {
    const resolved = await resolve(grant, user.id, caller, tx)
    if (await permit.findAssignmentId(resolved, tx)) return undefined
    const { roleId, accountId, instanceId } = resolved
    const terms = instanceId === null ? {} : { instance: instanceId }
    return (await roles.assign(caller, user, roleId, accountId, false, tx, terms)).id
  }

  /** Takes the role away if it is held; the user's row must be locked. */
  async function take(caller: Caller, user: UserRow, grant: Grant, tx: Tx): Promise<boolean> {
    const id = await permit.findAssignmentId(await resolve(grant, user.id, undefined, tx), tx)
    const held = id === undefined ? undefined : await rolesRepository.findAssignment(user.id, id, tx)
    if (!held) return false
    await roles.unassign(caller, held, user.accountId, tx)
    return true
  }

  async function lock(userId: string, tx: Tx): Promise<UserRow> {
    return (await usersRepository.lockUser(userId, tx)) ?? fail('user_not_found')
  }

  async function insert(caller: Caller, user: SyncedUser, grants: readonly Omit<Grant, 'user'>[], tx: Tx) {
    const id = await users.insertSynced(caller, user, tx)
    const locked = await lock(id, tx)
    for (const grant of grants) await give(caller, locked, { ...grant, user: id }, tx)
    return id
  }

  /** Makes a person what is said, or makes the person, and `finish`es, in one transaction. */
  async function sync(
    caller: Caller,
    name: string,
    changes: SyncedUserChanges,
    grants: readonly Omit<Grant, 'user'>[],
    finish: (id: string, tx: Tx) => Promise<void> = async () => {},
  ): Promise<{ id: string; isNew: boolean }> {
    const user = { ...changes, key: userKeyOf(name) }
    const known = await findUser(name)
    if (!known) {
      const made = await unlessTaken(
        async () =>
          await transact(db, async (tx) => {
            const id = await insert(caller, user, grants, tx)
            await finish(id, tx)
            return id
          }),
      )
      if (made !== undefined) return { id: made, isNew: true }
    }
    const { id } = known ?? (await getUser(name))
    await transact(db, async (tx) => {
      const locked = await lock(id, tx)
      await users.writeSynced(caller, locked, changes, tx)
      for (const grant of grants) await give(caller, locked, { ...grant, user: id }, tx)
      await finish(id, tx)
    })
    return { id, isNew: false }
  }

  return {
    findPlace: permit.findPlace,
    listGrants: permit.listGrants,
    countGrants: permit.countGrants,

    /** The account by key or id, with or without dashes. */
    findAccount,

    /** The same. @throws AppError account_not_found */
    getAccount,

    /** @throws AppError user_not_found */
    async getUser(name: string): Promise<UserWithHoldings> {
      return await userById((await getUser(name)).id)
    },

    /** The key of the person with this key, id or email. */
    async findUserKey(name: string): Promise<string | undefined> {
      const found = await findUser(name)
      if (found) return found.key
      const id = await usersRepository.findUserIdByEmail(name)
      return id === undefined ? undefined : (await usersRepository.findUser(id))?.key
    },

    /**
     * One page of people, of one account or all, as JSON: those first who were first in the list. An unknown role is held
     * by nobody.
     */
    async listUsers(
      filters: { search?: string | undefined; role?: string | undefined; accountId?: string | undefined },
      { page, perPage }: NumberedPage,
      place: PlaceIds,
    ): Promise<UserPage> {
      const { search, role, accountId } = filters
      if (search === undefined && role === undefined && accountId === undefined)
        return await userPages.listAll({ page, perPage }, place)
      const roleId = role === undefined ? undefined : await findRoleId(role, null)
      if (role !== undefined && roleId === undefined) return { data: '[]', total: 0 }
      const { ids, total } = await usersRepository.listIdsByArrival(
        {
          ...(search !== undefined && { q: search }),
          ...(roleId !== undefined && { roleId }),
          ...(accountId !== undefined && { memberOf: accountId }),
        },
        { limit: perPage, skip: (page - 1) * perPage },
      )
      return { data: await userPages.describe(ids, place, accountId), total }
    },

    /** @throws AppError user_key_taken, email_taken, role_not_found, account_not_found, grant_exceeds_own */
    async createUser(
      caller: Caller,
      user: SyncedUser,
      grants: readonly Omit<Grant, 'user'>[] = [],
    ): Promise<UserWithHoldings> {
      return await userById(await transact(db, async (tx) => await insert(caller, user, grants, tx)))
    },

    /**
     * Makes a person what is said, or makes the person; roles are added to those held.
     * @throws AppError user_is_protected, user_key_taken, email_taken, role_not_found, account_not_found,
     *   grant_exceeds_own
     */
    async syncUser(
      caller: Caller,
      name: string,
      changes: SyncedUserChanges,
      grants: readonly Omit<Grant, 'user'>[] = [],
    ): Promise<UserWithHoldings & { isNew: boolean }> {
      const { id, isNew } = await sync(caller, name, changes, grants)
      return { ...(await userById(id)), isNew }
    },

    /**
     * Names of the person with this email; whoever is not known is made, with the email as key.
     * @throws AppError grant_exceeds_own, user_key_taken
     */
    async syncUserByEmail(
      caller: Caller,
      email: string,
      names: { firstName: string; lastName: string },
    ): Promise<UserWithHoldings> {
      const known = await usersRepository.findUserIdByEmail(email)
      if (known === undefined) return await this.syncUser(caller, email, { ...names, email })
      await transact(db, async (tx) => await users.writeSynced(caller, await lock(known, tx), names, tx))
      return await userById(known)
    },

    /** @throws AppError user_not_found, user_is_protected, email_taken, grant_exceeds_own */
    async updateUser(caller: Caller, name: string, changes: SyncedUserChanges): Promise<UserWithHoldings> {
      const { id } = await getUser(name)
      await transact(db, async (tx) => await users.writeSynced(caller, await lock(id, tx), changes, tx))
      return await userById(id)
    },

    /** @throws AppError user_not_found, user_is_protected */
    async deleteUser(caller: Caller, name: string): Promise<void> {
      await users.deleteSynced(caller, (await getUser(name)).id)
    },

    /**
     * Makes the person a member of the account, and makes the person first when there is none: all of it or nothing.
     * @throws AppError account_not_found, and as syncUser does
     */
    async addUserToAccount(
      caller: Caller,
      tenant: string,
      { key, ...changes }: SyncedUser,
      grants: readonly Omit<Grant, 'user'>[] = [],
    ): Promise<UserWithHoldings> {
      const account = await getAccount(tenant)
      const { id } = await sync(caller, key, changes, grants, async (userId, tx) => {
        await accounts.addLockedMember(caller, account.id, userId, tx)
      })
      return await userById(id)
    },

    /**
     * Takes away all that the person holds in the account; they stay a member, as with Permit.
     * @throws AppError account_not_found, user_not_found, member_not_found, grant_exceeds_own
     */
    async removeUserFromAccount(caller: Caller, tenant: string, name: string): Promise<void> {
      const account = await getAccount(tenant)
      const { id } = await getUser(name)
      await transact(db, async (tx) => {
        const user = await lock(id, tx)
        const { members } = await permit.findHoldings(id, tx)
        if (!members.some((member) => member.tenant === account.key)) throw new AppError('member_not_found')
        for (const held of await rolesRepository.listAssignments(id, tx)) {
          if (held.accountId !== account.id) continue
          if (await permit.findGrant(held.id, tx)) await roles.unassign(caller, held, user.accountId, tx)
        }
      })
    },

    /**
     * Gives a role, and makes the instance that it is on when that is not there but its account is named.
     * @throws AppError user_not_found, role_not_found, account_not_found, instance_not_found, resource_not_found,
     *   role_already_assigned, instances_in_different_accounts, grant_exceeds_own
     */
    async assign(caller: Caller, grant: Grant): Promise<GrantRow> {
      const { id } = await getUser(grant.user)
      return await transact(db, async (tx) => {
        const given = (await give(caller, await lock(id, tx), grant, tx)) ?? fail('role_already_assigned')
        return (await permit.findGrant(given, tx)) ?? fail('assignment_not_found')
      })
    },

    /** @throws AppError user_not_found, role_not_found, account_not_found, assignment_not_found, grant_exceeds_own */
    async unassign(caller: Caller, grant: Grant): Promise<void> {
      const { id } = await getUser(grant.user)
      await transact(db, async (tx) => {
        if (!(await take(caller, await lock(id, tx), grant, tx))) throw new AppError('assignment_not_found')
      })
    },
  }
}

/** What `create` makes; `undefined` when somebody else has just taken the key. */
async function unlessTaken<T>(create: () => Promise<T>): Promise<T | undefined> {
  try {
    return await create()
  } catch (error) {
    if (error instanceof AppError && error.code === 'user_key_taken') return undefined
    throw error
  }
}

const USER_KEY = /^[^\s\p{Cc}]{1,254}$/u

/** @throws AppError validation_failed for what no user may be named */
export function userKeyOf(name: string, pointer = '/body/key'): string {
  if (USER_KEY.test(name)) return name
  throw invalid(pointer, 'must have up to 254 characters, none of them white space')
}

const invalid = (pointer: string, detail: string): AppError =>
  new AppError('validation_failed', { errors: [{ pointer, detail }] })
