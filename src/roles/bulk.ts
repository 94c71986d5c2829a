import type { AuditRepository } from '../audit/repository.ts'
import type { Tx } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { holdsIn } from '../permissions.ts'
import type { Caller } from '../principal.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { BulkRolesRepository, GrantableRole } from './bulk-repository.ts'
import { assertMayGrant, assignmentEvent } from './service.ts'

/** A role for a user, in an account or on an instance of it. Role, account and instance must be held against change. */
export type BulkGrant = {
  userId: string
  role: GrantableRole
  accountId: string
  instanceId: string | null
}

export type BulkRoles = ReturnType<typeof createBulkRoles>

type Dependencies = { roles: BulkRolesRepository; users: UsersRepository; audit: AuditRepository }

/** Roles for many people at a time, in the caller's transaction, under the rules that hold for one. */
export function createBulkRoles({ roles, users, audit }: Dependencies) {
  /** Ends the tokens that hold one of these. A role on an instance is in no token. */
  async function raiseTokenVersions(
    changed: readonly Pick<BulkGrant, 'userId' | 'instanceId'>[],
    tx: Tx,
  ): Promise<void> {
    const inTokens = changed.filter(({ instanceId }) => instanceId === null).map(({ userId }) => userId)
    await users.raiseTokenVersions([...new Set(inTokens)].sort(), tx)
  }

  return {
    holdRoles: roles.holdRoles,

    /**
     * Gives those that are not held yet. The rows of users who may have tokens must be locked.
     * @param options.toNewUsers true when nobody of them can have a token that this would end
     * @returns how many are new
     * @throws AppError grant_exceeds_own, account_not_found, instance_not_found
     */
    async giveMany(
      caller: Caller,
      grants: readonly BulkGrant[],
      { toNewUsers }: { toNewUsers: boolean },
      tx: Tx,
    ): Promise<number> {
      if (grants.length === 0) return 0
      assertReachesInstances(caller, grants)
      assertMayGrantAll(caller, grants)

      await roles.ensureMembers(
        grants.map(({ accountId, userId }) => ({ accountId, userId })),
        tx,
      )
      const assignments = grants.map((grant) => ({ ...grant, id: newId() }))
      const given = await roles.insertAssignments(
        assignments.map(({ role, ...assignment }) => ({ ...assignment, roleId: role.id })),
        tx,
      )
      const isNew = assignments.filter(({ id }) => given.has(id))
      if (!toNewUsers) await raiseTokenVersions(isNew, tx)
      await audit.appendAll(
        isNew.map((held) => assignmentEvent('role.assigned', caller, { ...held, expiresAt: null }, null)),
        tx,
      )
      return isNew.length
    },

    /**
     * Takes away those that are held. The rows of the users must be locked.
     * @returns how many were held
     * @throws AppError grant_exceeds_own, account_not_found
     */
    async takeMany(caller: Caller, grants: readonly BulkGrant[], tx: Tx): Promise<number> {
      if (grants.length === 0) return 0
      const ended = await roles.deleteAssignments(
        grants.map(({ role, ...assignment }) => ({ ...assignment, roleId: role.id })),
        tx,
      )
      const known = new Map(grants.map(({ role }) => [role.id, role]))
      const taken = ended.map((held) => ({ ...held, role: known.get(held.roleId) ?? fail('role_not_found') }))
      assertMayGrantAll(caller, taken)
      await raiseTokenVersions(taken, tx)
      await audit.appendAll(
        taken.map((held) => assignmentEvent('role.unassigned', caller, held, null)),
        tx,
      )
      return taken.length
    },
  }
}

/**
 * An instance in an account where the caller gives no roles is one that is not there.
 * @throws AppError instance_not_found
 */
function assertReachesInstances({ principal }: Caller, grants: readonly BulkGrant[]): void {
  const places = new Set(
    grants.flatMap(({ instanceId, accountId }) => (instanceId === null ? [] : accountId)),
  )
  for (const accountId of places)
    if (!holdsIn(principal, 'postern.roles:assign', accountId))
      throw new AppError('instance_not_found', { boundary: true })
}

/** @throws AppError grant_exceeds_own, account_not_found */
function assertMayGrantAll(caller: Caller, grants: readonly Pick<BulkGrant, 'role' | 'accountId'>[]): void {
  const places = new Map(grants.map((grant) => [`${grant.role.id} ${grant.accountId}`, grant]))
  for (const { role, accountId } of places.values()) assertMayGrant(caller, role, accountId)
}
