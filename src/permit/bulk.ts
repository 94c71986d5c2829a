import type { BulkAccounts } from '../accounts/bulk.ts'
import type { NamedAccount, WrittenAccount } from '../accounts/bulk-repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail, type ProblemCode } from '../errors.ts'
import { type Fault, throwFirst } from '../faults.ts'
import { grouped } from '../grouping.ts'
import { isUuid } from '../ids.ts'
import type { Located } from '../instances/repository.ts'
import type { InstancesService, NamedInstance } from '../instances/service.ts'
import { assertHoldsAnywhere, type Caller } from '../principal.ts'
import type { BulkGrant, BulkRoles } from '../roles/bulk.ts'
import type { GrantableRole } from '../roles/bulk-repository.ts'
import { type BulkUsers, listed } from '../users/bulk.ts'
import type { SyncedUser } from '../users/service.ts'
import { dashed } from './names.ts'
import { type Grant, type MissingUserPolicy, userKeyOf } from './service.ts'

/** A person with roles to give, all of it by keys or ids. */
export type UserToWrite = { user: SyncedUser; grants: readonly Omit<Grant, 'user'>[] }

/** Where the list stands in Permit's bulk requests. */
const OPERATIONS = '/body/operations'
/** Of all the users of a request together: ten times as many would keep every other request waiting for seconds. */
const MOST_GRANTS = 10_000

type Dependencies = {
  database: Database
  users: BulkUsers
  roles: BulkRoles
  accounts: BulkAccounts
  instances: InstancesService
}

/** A name of nobody, and the first grant of the request that has it. */
type UnknownUser = { name: string; at: number }

/** A grant with where in the request it stands, and for whom. */
type Asked = { userId: string; grant: Omit<Grant, 'user'>; pointer: string }

/**
 * Permit's bulk requests for people and tenants: all of it or nothing, in one transaction of a few statements, whatever
 * the number.
 */
export function createPermitBulk({ database, users, roles, accounts, instances }: Dependencies) {
  const { db } = database

  /**
   * What grants name, held until the transaction ends. Faults of instances that are to be made come first, then those
   * of the first grant that has any.
   * @param missing whether instances that are not there are made
   */
  async function resolve(
    caller: Caller,
    asked: readonly Asked[],
    tx: Tx,
    missing: 'create' | 'fail' = 'create',
  ): Promise<BulkGrant[]> {
    const accountOf = await accountsNamed(
      asked.flatMap(({ grant: { tenant = [] } }) => tenant),
      'share',
      tx,
    )
    const locate = await instancesNamed(caller, asked, accountOf, tx, missing)
    const roleOf = await rolesNamed(
      asked.map(({ grant }) => grant.role),
      tx,
    )

    function resolveOne({ userId, grant, pointer }: Asked): BulkGrant | Fault {
      const fault = (code: ProblemCode, field: string, detail: string): Fault => ({
        code,
        pointer: `${pointer}/${field}`,
        detail,
      })
      const { tenant, instance: ref } = grant
      const account = tenant === undefined ? undefined : accountOf(tenant)
      const instance = ref === undefined ? undefined : locate(ref, account)
      const isTenantMissing = tenant !== undefined && !account
      // One that would be made, if only its tenant were there, is not what is missed.
      if (
        ref !== undefined &&
        !instance &&
        !(isTenantMissing && missing === 'create' && !isUuid(dashed(ref)))
      )
        return fault('instance_not_found', 'resource_instance', 'does not exist')
      if (isTenantMissing) return fault('account_not_found', 'tenant', 'does not exist')
      const accountId = instance?.accountId ?? account?.id
      if (accountId === undefined) return fault('validation_failed', 'tenant', 'is required')
      if (account && account.id !== accountId)
        return fault('instances_in_different_accounts', 'tenant', 'is another one than that of the instance')
      const role = roleOf(grant.role, instance?.name.type ?? null)
      if (!role) return fault('role_not_found', 'role', 'does not exist')
      return { userId, role, accountId, instanceId: instance?.id ?? null }
    }

    const faults: Fault[] = []
    const distinct = new Map<string, BulkGrant>()
    for (const one of asked) {
      const found = resolveOne(one)
      if ('code' in found) faults.push(found)
      else distinct.set(`${found.userId} ${found.role.id} ${found.accountId} ${found.instanceId}`, found)
    }
    throwFirst(faults, placeOf)
    return [...distinct.values()]
  }

  /**
   * Finds the instances that grants name, those that are not there once they are made in the accounts beside them. To be
   * asked in the order of the grants.
   * @throws AppError insufficient_scope, resource_not_found, instances_in_different_accounts, validation_failed
   */
  async function instancesNamed(
    caller: Caller,
    asked: readonly Asked[],
    accountOf: (name: string) => NamedAccount | undefined,
    tx: Tx,
    missing: 'create' | 'fail',
  ): Promise<(name: string, account: NamedAccount | undefined) => Located | undefined> {
    const named = asked.flatMap(({ grant: { instance, tenant }, pointer }): NamedInstance[] => {
      if (instance === undefined) return []
      const account = tenant === undefined ? undefined : accountOf(tenant)
      return [{ ref: dashed(instance), account: account?.id, pointer: `${pointer}/resource_instance` }]
    })
    const known = await instances.ensureInstances(caller, named, tx, 'find')
    const unknown = missing === 'fail' ? [] : named.filter(({ ref }) => !known.has(ref))
    // Who may give roles may not for that reason make what they are held on.
    if (unknown.length > 0) assertHoldsAnywhere(caller, 'postern.policy:write')
    const made = await instances.ensureInstances(
      caller,
      unknown.filter(({ ref, account }) => account !== undefined && !isUuid(ref)),
      tx,
    )
    const namedSoFar = new Set<string>()
    return (name, account) => {
      const ref = dashed(name)
      // One grant after the other: what a later one makes is not there yet.
      if (account) namedSoFar.add(ref)
      return known.get(ref) ?? (namedSoFar.has(ref) ? made.get(ref) : undefined)
    }
  }

  async function accountsNamed(
    names: readonly string[],
    strength: 'share' | 'no key update',
    tx: Tx,
  ): Promise<(name: string) => NamedAccount | undefined> {
    if (names.length === 0) return () => undefined
    return byName(await accounts.lockAccounts(withIds(names), strength, tx))
  }

  /** Finds a role by its name among those of a resource, or, with null, those held in accounts. */
  async function rolesNamed(
    names: readonly string[],
    tx: Tx,
  ): Promise<(name: string, resource: string | null) => GrantableRole | undefined> {
    if (names.length === 0) return () => undefined
    const byResource = grouped(await roles.holdRoles(withIds(names), tx), ({ resource }) => resource)
    const finders = new Map([...byResource].map(([resource, found]) => [resource, byName(found)]))
    return (name, resource) => finders.get(resource)?.(name)
  }

  const grantsOf = (
    inputs: readonly { at: number; userId: string; grants: UserToWrite['grants'] }[],
  ): Asked[] =>
    inputs.flatMap(({ at, userId, grants }) =>
      grants.map((grant, index) => ({
        userId,
        grant,
        pointer: `${OPERATIONS}/${at}/role_assignments/${index}`,
      })),
    )

  /** The grants of those who are there, who are locked. `missing` answers for the others: their ids, or none. */
  async function grantsToUsers(
    grants: readonly Grant[],
    missing: (unknown: readonly UnknownUser[]) => Promise<ReadonlyMap<string, string>>,
    tx: Tx,
  ): Promise<Asked[]> {
    const names = [...new Set(grants.map(({ user }) => user))]
    const firstAt = new Map(grants.map(({ user }, at): [string, number] => [user, at]).reverse())
    const findUser = byName(await users.lockUsers(names, names.map(dashed).filter(isUuid), tx))
    const unknown = names.filter((name) => !findUser(name))
    const others = await missing(unknown.map((name) => ({ name, at: firstAt.get(name) ?? 0 })))
    return grants.flatMap((grant, at) => {
      const userId = findUser(grant.user)?.id ?? others.get(grant.user)
      return userId === undefined ? [] : [{ userId, grant, pointer: `/body/${at}` }]
    })
  }

  /** What happens to names of nobody. @returns the ids of those who were made */
  async function makeMissing(
    caller: Caller,
    unknown: readonly UnknownUser[],
    policy: MissingUserPolicy,
    tx: Tx,
  ): Promise<ReadonlyMap<string, string>> {
    if (unknown.length === 0 || policy === 'ignore') return new Map()
    if (policy === 'fail')
      throw new AppError('user_not_found', {
        detail: `There is no user ${listed(unknown.map(({ name }) => name))}`,
      })
    assertHoldsAnywhere(caller, 'postern.users:write')
    const made = unknown.map(({ name, at }) => ({ key: userKeyOf(name, `/body/${at}/user`) }))
    const ids = await users.insertMany(caller, made, tx)
    return new Map(unknown.map(({ name }, at) => [name, ids[at] ?? fail('user_not_found')]))
  }

  async function replaceAll(caller: Caller, inputs: readonly UserToWrite[]): Promise<void> {
    await transact(db, async (tx) => {
      const keys = inputs.map(({ user }) => user.key)
      const known = new Map((await users.lockUsers(keys, [], tx)).map((user) => [user.key, user]))
      const placed = inputs.map((input, at) => ({ at, known: known.get(input.user.key), ...input }))
      const writes = placed.flatMap(({ known: user, user: { key: _, ...changes } }) =>
        user ? [{ user, changes }] : [],
      )
      await users.writeMany(caller, writes, tx)
      const made = placed.filter((one) => !one.known)
      const ids = await users.insertMany(
        caller,
        made.map(({ user }) => user),
        tx,
      )
      const toNew = grantsOf(made.map(({ at, grants }, index) => ({ at, grants, userId: ids[index] ?? '' })))
      const toKnown = grantsOf(
        placed.flatMap(({ at, grants, known: user }) => (user ? [{ at, grants, userId: user.id }] : [])),
      )
      await roles.giveMany(
        caller,
        await resolve(caller, [...toKnown, ...toNew], tx),
        { toNewUsers: false },
        tx,
      )
    })
  }

  return {
    /**
     * Makes all of these people, with their roles, or none.
     * @throws AppError user_key_taken, email_taken, role_not_found, account_not_found, instance_not_found,
     *   resource_not_found, instances_in_different_accounts, grant_exceeds_own, validation_failed, limit_reached
     */
    async createUsers(caller: Caller, inputs: readonly UserToWrite[]): Promise<void> {
      assertDistinct(inputs.map(({ user }) => user.key))
      assertFewGrants(inputs)
      if (inputs.length === 0) return
      await transact(db, async (tx) => {
        const ids = await users.insertMany(
          caller,
          inputs.map(({ user }) => user),
          tx,
        )
        const asked = grantsOf(inputs.map(({ grants }, at) => ({ at, grants, userId: ids[at] ?? '' })))
        await roles.giveMany(caller, await resolve(caller, asked, tx), { toNewUsers: true }, tx)
      })
    },

    /**
     * Makes all of these people what is said, or makes the people; roles are added to those held. All of it or nothing.
     * @throws AppError as createUsers does; user_is_protected
     */
    async replaceUsers(caller: Caller, inputs: readonly UserToWrite[]): Promise<void> {
      assertDistinct(inputs.map(({ user }) => user.key))
      assertFewGrants(inputs)
      if (inputs.length === 0) return
      await onceMoreIfTaken(async () => await replaceAll(caller, inputs))
    },

    /** Deletes those of these people, by keys or ids, who are there; all or none. @throws AppError user_is_protected */
    async deleteUsers(caller: Caller, names: readonly string[]): Promise<void> {
      if (names.length === 0) return
      await transact(db, async (tx) => {
        const found = await users.lockUsers(names, names.map(dashed).filter(isUuid), tx)
        const findUser = byName(found)
        const meant = new Map(names.flatMap((name) => findUser(name) ?? []).map((user) => [user.id, user]))
        await users.deleteMany(caller, [...meant.values()], tx)
      })
    },

    /**
     * Gives all of these roles or none; what is held already is left.
     * @returns how many are new
     * @throws AppError user_not_found, role_not_found, account_not_found, instance_not_found, resource_not_found,
     *   instances_in_different_accounts, grant_exceeds_own, validation_failed
     */
    async assign(caller: Caller, grants: readonly Grant[], missingUsers: MissingUserPolicy): Promise<number> {
      return await onceMoreIfTaken(
        async () =>
          await transact(db, async (tx) => {
            const missing = async (unknown: readonly UnknownUser[]) =>
              await makeMissing(caller, unknown, missingUsers, tx)
            const asked = await grantsToUsers(grants, missing, tx)
            return await roles.giveMany(caller, await resolve(caller, asked, tx), { toNewUsers: false }, tx)
          }),
      )
    },

    /**
     * Takes all of these roles away or none; what is not held is left, and so are people who are not there.
     * @returns how many are gone
     * @throws AppError role_not_found, account_not_found, instance_not_found, instances_in_different_accounts,
     *   grant_exceeds_own, validation_failed
     */
    async unassign(caller: Caller, grants: readonly Grant[]): Promise<number> {
      return await transact(db, async (tx) => {
        const asked = await grantsToUsers(grants, async () => new Map(), tx)
        const resolved = await resolve(caller, asked, tx, 'fail')
        return await roles.takeMany(caller, resolved, tx)
      })
    },

    /** Makes all of these tenants or none. @throws AppError account_key_taken, validation_failed */
    async createTenants(caller: Caller, inputs: readonly Omit<WrittenAccount, 'id'>[]): Promise<void> {
      assertDistinct(inputs.map(({ key }) => key))
      if (inputs.length === 0) return
      await transact(db, async (tx) => await accounts.insertMany(caller, inputs, tx))
    },

    /**
     * Deletes those of these tenants, by keys or ids, that are there; all or none.
     * @throws AppError account_has_people, account_is_default
     */
    async deleteTenants(caller: Caller, names: readonly string[]): Promise<void> {
      if (names.length === 0) return
      await transact(db, async (tx) => {
        const find = await accountsNamed(names, 'no key update', tx)
        const meant = new Map(
          names.flatMap((name) => find(name) ?? []).map((account) => [account.id, account]),
        )
        await accounts.deleteMany(caller, [...meant.values()], tx)
      })
    },
  }
}

/** Tries again when somebody else has just made one of those who were new. */
async function onceMoreIfTaken<T>(write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if (!(error instanceof AppError && error.code === 'user_key_taken')) throw error
    return await write()
  }
}

/** The names, and the ids that some of them may be. */
const withIds = (names: readonly string[]): string[] => [
  ...new Set(names.flatMap((name) => [name, dashed(name)])),
]

/** Finds one by its key or, failing that, by its id, with or without dashes. */
function byName<T extends { id: string; key: string }>(rows: readonly T[]): (name: string) => T | undefined {
  const byKey = new Map(rows.map((row) => [row.key, row]))
  const byId = new Map(rows.map((row) => [row.id, row]))
  return (name) => byKey.get(name) ?? byId.get(dashed(name).toLowerCase())
}

/** SDKs show the sentence alone, so that it names the place. */
const placeOf = ({ code, pointer, detail }: Fault): string | undefined =>
  code === 'validation_failed' ? undefined : `${pointer} ${detail}`

/** @throws AppError limit_reached */
function assertFewGrants(inputs: readonly UserToWrite[]): void {
  const count = inputs.reduce((sum, { grants }) => sum + grants.length, 0)
  if (count > MOST_GRANTS)
    throw new AppError('limit_reached', {
      detail: `A request may give ${MOST_GRANTS} roles at most; this one gives ${count}`,
    })
}

/** @throws AppError validation_failed when a key stands there twice */
function assertDistinct(keys: readonly string[]): void {
  const places = new Map<string, number>()
  const faults = keys.flatMap((key, at): Fault[] => {
    const first = places.get(key)
    if (first === undefined) places.set(key, at)
    const pointer = `${OPERATIONS}/${at}/key`
    return first === undefined
      ? []
      : [{ code: 'validation_failed', pointer, detail: `is that of ${first} too` }]
  })
  throwFirst(faults, placeOf)
}
