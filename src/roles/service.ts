import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { APPLICATION_KEY, covers, coversPerson, holdsIn, type Reach, SUPER_ADMIN } from '../permissions.ts'
import { lockPolicyVersion } from '../policy/versions.ts'
import type { Caller } from '../principal.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { AssignmentRow, RoleRow, RolesRepository } from './repository.ts'

export type NewRole = {
  key?: string
  name: string
  description?: string | null
  defaultReach?: Reach
  permissions?: readonly string[]
}

export type RoleUpdate = {
  name?: string
  description?: string | null
  defaultReach?: Reach
  permissions?: readonly string[]
}

export type RolesService = ReturnType<typeof createRolesService>

type Dependencies = {
  database: Database
  environmentId: string
  roles: RolesRepository
  users: UsersRepository
  audit: AuditRepository
  addMember: (accountId: string, userId: string, tx: Tx) => Promise<void>
}

export function createRolesService({
  database,
  environmentId,
  roles,
  users,
  audit,
  addMember,
}: Dependencies) {
  const { db } = database
  return {
    /** @throws AppError role_not_found */
    async getRole(id: string): Promise<RoleRow> {
      return (await roles.findRole(id)) ?? fail('role_not_found')
    },

    listRoles: roles.listRoles,

    /** Defines a role of the application. @throws AppError role_key_taken, validation_failed */
    async createRole(caller: Caller, input: NewRole): Promise<RoleRow> {
      const { permissions = [], ...fields } = input
      const key = input.key ?? keyFromName(input.name)
      return await transact(db, async (tx) => {
        const id = newId()
        await roles.insertRole({ ...fields, id, key }, tx)
        await roles.replacePermissions(id, permissions, tx)
        await audit.append(
          {
            action: 'role.created',
            caller,
            target: { type: 'role', id },
            details: { key, permissions: [...permissions] },
          },
          tx,
        )
        return (await roles.findRole(id, tx)) ?? fail('role_not_found')
      })
    },

    /**
     * Changes a role of the application. Tokens of its holders end at once when it loses a permission; what it
     * gains is in their next token.
     * @throws AppError role_not_found, role_is_builtin, precondition_failed
     */
    async updateRole(caller: Caller, id: string, changes: RoleUpdate, ifMatch: IfMatch): Promise<RoleRow> {
      return await transact(db, async (tx) => {
        const role = (await roles.lockRole(id, tx)) ?? fail('role_not_found')
        if (role.isBuiltin) throw new AppError('role_is_builtin')
        assertMatches(ifMatch, role.revision)
        const { permissions, ...fields } = changes
        await roles.updateRole(id, fields, tx)
        if (permissions) await roles.replacePermissions(id, permissions, tx)
        if (permissions && role.permissions.some((held) => !permissions.includes(held))) {
          await users.raiseTokenVersions(await roles.listHolderIds(id, tx, 'heirs'), tx)
        }
        await audit.append(
          {
            action: 'role.updated',
            caller,
            target: { type: 'role', id },
            details: {
              fields: Object.keys(changes),
              before: role.permissions,
              after: permissions ?? role.permissions,
            },
          },
          tx,
        )
        return (await roles.findRole(id, tx)) ?? fail('role_not_found')
      })
    },

    /** @throws AppError role_not_found, role_is_builtin, role_in_use, precondition_failed */
    async deleteRole(caller: Caller, id: string, ifMatch: IfMatch): Promise<void> {
      await transact(db, async (tx) => {
        const role = (await roles.lockRole(id, tx)) ?? fail('role_not_found')
        if (role.isBuiltin) throw new AppError('role_is_builtin')
        assertMatches(ifMatch, role.revision)
        if ((await roles.listHolderIds(id, tx)).length > 0) throw new AppError('role_in_use')
        await roles.deleteRole(id, tx)
        await audit.append(
          { action: 'role.deleted', caller, target: { type: 'role', id }, details: { key: role.key } },
          tx,
        )
      })
    },

    /** Every role of a user. @throws AppError user_not_found */
    async listAssignments(userId: string): Promise<AssignmentRow[]> {
      if (!(await users.findUser(userId))) throw new AppError('user_not_found')
      return await roles.listAssignments(userId)
    },

    /** @throws AppError user_not_found, role_not_assigned */
    async getPrimary(userId: string): Promise<AssignmentRow> {
      if (!(await users.findUser(userId))) throw new AppError('user_not_found')
      return (await roles.findPrimaryAssignment(userId)) ?? fail('role_not_assigned')
    },

    /**
     * Gives a user the one primary role: in every account if that is the role's reach, else in the home account.
     * @throws AppError user_not_found, role_not_found, role_already_assigned, no_home_account, grant_exceeds_own
     */
    async assignPrimary(caller: Caller, userId: string, roleId: string): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        if (await roles.findPrimaryAssignment(userId, tx)) throw new AppError('role_already_assigned')
        return await this.assign(caller, user, roleId, undefined, true, tx)
      })
    },

    /**
     * Replaces the primary role; both the old and the new must be within the caller's own.
     * @throws AppError user_not_found, role_not_found, role_not_assigned, last_super_admin, grant_exceeds_own
     */
    async changePrimary(caller: Caller, userId: string, roleId: string): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const current = (await roles.findPrimaryAssignment(userId, tx)) ?? fail('role_not_assigned')
        if (current.role.id === roleId) return current
        await this.unassign(caller, current, user.accountId, tx)
        const assigned = await this.assign(caller, user, roleId, undefined, true, tx)
        await this.assertSuperAdminStays(tx, [current.role.key])
        return assigned
      })
    },

    /** Takes the primary role away. @throws AppError user_not_found, role_not_assigned, last_super_admin, grant_exceeds_own */
    async removePrimary(caller: Caller, userId: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const current = (await roles.findPrimaryAssignment(userId, tx)) ?? fail('role_not_assigned')
        await this.unassign(caller, current, user.accountId, tx)
        await this.assertSuperAdminStays(tx, [current.role.key])
      })
    },

    /**
     * Gives a user a further role, in `accountId` (null: in every account; undefined: by the role's reach).
     * @throws AppError user_not_found, role_not_found, account_not_found, role_already_assigned, grant_exceeds_own
     */
    async assignFurther(
      caller: Caller,
      userId: string,
      roleId: string,
      accountId: string | null | undefined,
    ): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        return await this.assign(caller, user, roleId, accountId, false, tx)
      })
    },

    /** @throws AppError user_not_found, assignment_not_found, last_super_admin, grant_exceeds_own */
    async removeAssignment(caller: Caller, userId: string, assignmentId: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const held = (await roles.findAssignment(userId, assignmentId, tx)) ?? fail('assignment_not_found')
        await this.unassign(caller, held, user.accountId, tx)
        await this.assertSuperAdminStays(tx, [held.role.key])
      })
    },

    /** Writes one assignment under the rules of granting. The user's row must be locked. */
    async assign(
      caller: Caller,
      user: { id: string; accountId: string | null },
      roleId: string,
      accountId: string | null | undefined,
      isPrimary: boolean,
      tx: Tx,
    ): Promise<AssignmentRow> {
      const role = (await roles.lockRole(roleId, tx, 'share')) ?? fail('role_not_found')
      const heldIn = accountId === undefined ? placeOf(role, user.accountId) : accountId
      assertMayGrant(caller, role, heldIn)
      if (heldIn !== null) await addMember(heldIn, user.id, tx)
      const id = await roles.insertAssignment({ userId: user.id, roleId, accountId: heldIn, isPrimary }, tx)
      await users.raiseTokenVersions([user.id], tx)
      await audit.append(
        assignmentEvent('role.assigned', caller, user.id, role.key, heldIn, user.accountId),
        tx,
      )
      return (await roles.findAssignment(user.id, id, tx)) ?? fail('assignment_not_found')
    },

    /** Takes one assignment away under the same rules. The caller counts the super admins afterwards. */
    async unassign(caller: Caller, held: AssignmentRow, homeAccountId: string | null, tx: Tx): Promise<void> {
      const role = (await roles.lockRole(held.role.id, tx, 'share')) ?? fail('role_not_found')
      assertMayGrant(caller, role, held.accountId)
      await roles.deleteAssignment(held.id, tx)
      await users.raiseTokenVersions([held.userId], tx)
      await audit.append(
        assignmentEvent('role.unassigned', caller, held.userId, role.key, held.accountId, homeAccountId),
        tx,
      )
    },

    /**
     * Refuses to touch a person whose built-in permissions or reach exceed the caller's own.
     * @throws AppError grant_exceeds_own
     */
    async assertCoversPerson(caller: Caller, userId: string, ex: Executor = db): Promise<void> {
      const held = await roles.listHeldRoles(userId, ex)
      if (!coversPerson(caller.principal, held)) throw new AppError('grant_exceeds_own')
    },

    /** The same for everybody at home in an account, whom its deactivation disables. @throws AppError grant_exceeds_own */
    async assertCoversResidents(caller: Caller, accountId: string, tx: Tx): Promise<void> {
      const held = await roles.listBuiltinRolesOfResidents(accountId, tx)
      if (!coversPerson(caller.principal, held)) throw new AppError('grant_exceeds_own')
    },

    /** The same for the roles that the person holds in one account. @throws AppError grant_exceeds_own */
    async assertCoversRolesIn(caller: Caller, userId: string, accountId: string, tx: Tx): Promise<void> {
      const held = await roles.listHeldRoles(userId, tx)
      if (
        !coversPerson(
          caller.principal,
          held.filter((role) => role.accountId === accountId),
        )
      ) {
        throw new AppError('grant_exceeds_own')
      }
    },

    /**
     * To be called after the change and before the commit of everything that can take a super admin away. It
     * locks the policy version, which lets such transactions through one at a time: the second counts what the
     * first has left.
     * @param roleKeys the roles that the change took away; nothing is checked without SUPER_ADMIN among them
     * @throws AppError last_super_admin
     */
    async assertSuperAdminStays(tx: Tx, roleKeys?: readonly string[]): Promise<void> {
      if (roleKeys && !roleKeys.includes(SUPER_ADMIN)) return
      await lockPolicyVersion(environmentId, tx)
      if ((await roles.countSuperAdmins(tx)) === 0) throw new AppError('last_super_admin')
    },

    movePrimaryAssignment: roles.movePrimaryAssignment,
    findRoleByKey: roles.findRoleByKey,
  }
}

function assertMayGrant(caller: Caller, role: RoleRow, accountId: string | null): void {
  const { principal } = caller
  if (accountId !== null && !holdsIn(principal, 'postern.roles:assign', accountId)) {
    throw new AppError('account_not_found', { boundary: true })
  }
  if (!covers(principal, { accountId, permissions: role.permissions }))
    throw new AppError('grant_exceeds_own')
}

function placeOf(role: RoleRow, homeAccountId: string | null): string | null {
  if (role.defaultReach === 'any') return null
  return homeAccountId ?? fail('no_home_account')
}

function keyFromName(name: string): string {
  if (new RegExp(APPLICATION_KEY).test(name)) return name
  throw new AppError('validation_failed', {
    errors: [
      {
        pointer: '/body/key',
        detail: 'is required, because the name has characters other than letters, digits, _ and -',
      },
    ],
  })
}

function assignmentEvent(
  action: 'role.assigned' | 'role.unassigned',
  caller: Caller,
  userId: string,
  roleKey: string,
  heldIn: string | null,
  homeAccountId: string | null,
) {
  return {
    action,
    caller,
    target: { type: 'user', id: userId },
    accountId: heldIn ?? homeAccountId,
    details: { role: roleKey, account_id: heldIn },
  } as const
}
