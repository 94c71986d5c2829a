import type { AuditRepository } from '../audit/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, type FieldError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import {
  APPLICATION_KEY,
  covers,
  coversPerson,
  holdsIn,
  isBuiltinPermission,
  type Reach,
  SUPER_ADMIN,
} from '../permissions.ts'
import { lockPolicyVersion } from '../policy/versions.ts'
import { type Caller, isMachine } from '../principal.ts'
import { assertApplicationKey } from '../resources/keys.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { RecencyCheck } from '../users/protection.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { AssignmentRow, DerivationRow, RoleRow, RolesRepository } from './repository.ts'

export type RoleUpdate = {
  name?: string
  description?: string | null
  defaultReach?: Reach
  attributes?: Record<string, unknown> | null
  noDirectRolesOnObject?: boolean
  /** Whether whoever holds it must sign in with two factors. */
  isMfaRequired?: boolean
  /** `resource:action`; of a role of a resource, the action alone means one of that resource. */
  permissions?: readonly string[]
  /** Keys of roles of the same kind whose permissions this one has too. */
  extends?: readonly string[]
}

export type NewRole = RoleUpdate & { key?: string; name: string }

/** What a role belongs to that is held on instances of a resource. */
export type RoleOwner = { id: string; key: string }

/** A derivation, in keys. */
export type NewDerivation = Pick<DerivationRow, 'role' | 'onResource' | 'linkedByRelation'> & {
  noDirectRolesOnObject?: boolean
}

/** The same, in ids of what is known to be there: a relation of the role's resource, a role of its subjects. */
export type DerivationEnds = Pick<DerivationRow, 'sourceRoleId' | 'relationId' | 'noDirectRolesOnObject'>

/** Where and until when a further role is held. */
export type AssignmentTerms = {
  /** `type:key` or id: the role is held on this instance only. */
  instance?: string
  expiresAt?: Date
}

export type RolesService = ReturnType<typeof createRolesService>

type Dependencies = {
  database: Database
  environmentId: string
  roles: RolesRepository
  users: UsersRepository
  audit: AuditRepository
  assertRecentAuthentication: RecencyCheck
  addMember: (accountId: string, userId: string, tx: Tx) => Promise<void>
}

/** The rules for roles and their holders in one environment: nobody grants more than they hold. */
export function createRolesService({
  database,
  environmentId,
  roles,
  users,
  audit,
  assertRecentAuthentication,
  addMember,
}: Dependencies) {
  const { db } = database
  return {
    /** A role held in accounts or everywhere, or one of a resource. @throws AppError role_not_found */
    async getRole(id: string, resourceId: string | null = null): Promise<RoleRow> {
      return (await roles.findRole(id, undefined, resourceId)) ?? fail('role_not_found')
    },

    /** The same by key or, failing that, by id. @throws AppError role_not_found */
    async resolveRole(keyOrId: string, resourceId: string | null = null): Promise<RoleRow> {
      const named = await roles.findRoleByKey(keyOrId, undefined, resourceId)
      if (named || !isUuid(keyOrId)) return named ?? fail('role_not_found')
      return await this.getRole(keyOrId, resourceId)
    },

    listRoles: roles.listRoles,

    /**
     * Defines a role of the application, held in accounts or everywhere.
     * @throws AppError role_key_taken, validation_failed, limit_reached
     */
    async createRole(caller: Caller, input: NewRole): Promise<RoleRow> {
      return await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        return await this.addRole(caller, input, undefined, tx)
      })
    },

    /**
     * The same in the caller's transaction, which holds `lockDefinitions`; with an owner, a role on its instances.
     * `at` points to the role in the body.
     */
    async addRole(
      caller: Caller,
      input: NewRole,
      owner: RoleOwner | undefined,
      tx: Tx,
      at = '/body',
    ): Promise<RoleRow> {
      const { permissions = [], extends: parents = [], ...fields } = input
      const key = input.key ?? keyFromName(input.name)
      assertApplicationKey(key, `${at}/key`)
      const id = newId()
      const parentIds = await parentsNamed(parents, owner, tx, at)
      await roles.insertRoles(owner?.id ?? null, [{ ...fields, id, key }], tx)
      if (permissions.length > 0) await givePermissions(id, permissions, owner, tx, at)
      if (parentIds.length > 0) await roles.replaceParents(id, parentIds, tx)
      await audit.append(
        {
          action: 'role.created',
          caller,
          target: { type: 'role', id },
          details: {
            key,
            ...(owner && { resource: owner.key }),
            permissions: [...permissions],
            ...(parents.length > 0 && { extends: [...parents] }),
          },
        },
        tx,
      )
      return (await roles.findRole(id, tx, owner?.id)) ?? fail('role_not_found')
    },

    /**
     * Defines many roles of one owner in few statements, in the caller's transaction, which holds `lockDefinitions`.
     * They extend none, and their permissions are `resource:action` of actions that are declared.
     * @throws AppError role_key_taken, action_not_found, validation_failed, limit_reached
     */
    async addRoles(
      caller: Caller,
      inputs: readonly (Omit<RoleUpdate, 'extends'> & { key: string; name: string })[],
      owner: RoleOwner | undefined,
      tx: Tx,
    ): Promise<void> {
      for (const { key } of inputs) assertApplicationKey(key, '/body/key')
      const rows = inputs.map(({ permissions = [], ...fields }) => ({ fields, permissions, id: newId() }))
      await roles.insertRoles(
        owner?.id ?? null,
        rows.map(({ fields, id }) => ({ ...fields, id })),
        tx,
      )
      const named = rows.flatMap(({ permissions }) => permissions)
      const actionIds = named.length === 0 ? new Map<string, string>() : await roles.findActionIds(named, tx)
      const pairs = rows.flatMap(({ id, permissions }) =>
        permissions.map((permission) => ({
          roleId: id,
          actionId: actionIds.get(permission) ?? fail('action_not_found'),
        })),
      )
      await roles.insertPermissions(pairs, tx)
      await audit.appendAll(
        rows.map(({ id, fields, permissions }) => ({
          action: 'role.created',
          caller,
          target: { type: 'role', id },
          details: { key: fields.key, ...(owner && { resource: owner.key }), permissions: [...permissions] },
        })),
        tx,
      )
    },

    /**
     * Changes a role of the application; of a built-in one, whether it demands two factors. Tokens of its holders, and of
     * the holders of roles that extend it, end at once when it loses a permission; what it gains is in their next token.
     * A person who has it no longer demand two factors has authenticated recently.
     * @throws AppError role_not_found, role_is_builtin, role_cycle, validation_failed, limit_reached, precondition_failed,
     * reauthentication_required
     */
    async updateRole(
      caller: Caller,
      id: string,
      changes: RoleUpdate,
      ifMatch: IfMatch,
      owner?: RoleOwner,
    ): Promise<RoleRow> {
      return await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const role = (await roles.lockRole(id, tx, 'no key update', owner?.id)) ?? fail('role_not_found')
        assertMatches(ifMatch, role.revision)
        return await this.changeRole(caller, role, changes, owner, tx)
      })
    },

    /** The same in the caller's transaction, which holds `lockDefinitions` and has found the role in it. */
    async changeRole(
      caller: Caller,
      role: RoleRow,
      changes: RoleUpdate,
      owner: RoleOwner | undefined,
      tx: Tx,
    ): Promise<RoleRow> {
      const { id } = role
      if (role.isBuiltin && Object.keys(changes).some((field) => field !== 'isMfaRequired'))
        throw new AppError('role_is_builtin')
      if (role.isMfaRequired && changes.isMfaRequired === false) await assertRecentAuthentication(caller, tx)
      const { permissions, extends: parents, ...fields } = changes
      await roles.updateRole(id, fields, tx)
      if (permissions) await givePermissions(id, permissions, owner, tx, '/body')
      if (parents) {
        const parentIds = await parentsNamed(parents, owner, tx, '/body')
        if (await roles.isAncestorOf(id, parentIds, tx)) throw new AppError('role_cycle')
        await roles.replaceParents(id, parentIds, tx)
      }
      const changed = (await roles.findRole(id, tx, owner?.id)) ?? fail('role_not_found')
      const left = new Set(changed.effectivePermissions)
      if (!owner && role.effectivePermissions.some((held) => !left.has(held))) {
        await users.raiseTokenVersions(await roles.lockHolderIds([id], tx), tx)
      }
      await audit.append(
        {
          action: 'role.updated',
          caller,
          target: { type: 'role', id },
          details: {
            fields: Object.keys(changes),
            before: role.permissions,
            after: changed.permissions,
            ...(parents && { extended: role.extends, extends: changed.extends }),
          },
        },
        tx,
      )
      return changed
    },

    /**
     * Deletes a role that nobody holds. Roles that extend it lose what they had from it, and tokens with that end.
     * @throws AppError role_not_found, role_is_builtin, role_in_use, precondition_failed
     */
    async deleteRole(caller: Caller, id: string, ifMatch: IfMatch, owner?: RoleOwner): Promise<void> {
      await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const role = await lockChangeable(id, owner, tx)
        assertMatches(ifMatch, role.revision)
        if (await roles.isHeld(id, tx)) throw new AppError('role_in_use')
        await this.dropRole(caller, role, owner, tx)
      })
    },

    /**
     * Deletes a role with all assignments of it, in the caller's transaction, which holds `lockDefinitions`. Its
     * holders stay members of the accounts that they held it in.
     * @throws AppError role_not_found, role_is_builtin
     */
    async dropRole(
      caller: Caller,
      { id }: Pick<RoleRow, 'id'>,
      owner: RoleOwner | undefined,
      tx: Tx,
    ): Promise<void> {
      const role = await lockChangeable(id, owner, tx)
      const taken = await roles.countAssignments(id, tx)
      if (!owner && (taken > 0 || role.effectivePermissions.length > 0)) {
        await users.raiseTokenVersions(await roles.lockHolderIds([id], tx), tx)
      }
      await roles.deleteRole(id, tx)
      await audit.append(
        {
          action: 'role.deleted',
          caller,
          target: { type: 'role', id },
          details: {
            key: role.key,
            ...(owner && { resource: owner.key }),
            ...(taken > 0 && { assignments: taken }),
          },
        },
        tx,
      )
    },

    /**
     * Has a role of a resource be held by whoever holds another one on a related instance.
     * @throws AppError role_not_found, derivation_exists, limit_reached, validation_failed when it does not fit:
     *   the relation must be one of this resource with subjects of `onResource`, and `role` one of that resource
     */
    async addDerivation(
      caller: Caller,
      roleId: string,
      owner: RoleOwner,
      input: NewDerivation,
      findResourceId: (key: string, tx: Tx) => Promise<string | undefined>,
    ): Promise<DerivationRow> {
      return await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const role = (await roles.lockRole(roleId, tx, 'no key update', owner.id)) ?? fail('role_not_found')
        const subjectId =
          (await findResourceId(input.onResource, tx)) ?? misfit('on_resource', 'is no resource')
        const relation =
          (await roles.findRelationByKey(owner.id, input.linkedByRelation, tx)) ??
          misfit('linked_by_relation', `is no relation of ${owner.key}`)
        if (relation.subjectResourceId !== subjectId) {
          misfit('on_resource', `is not the subject of the relation ${input.linkedByRelation}`)
        }
        const source =
          (await roles.findRoleByKey(input.role, tx, subjectId)) ??
          misfit('role', `is no role of ${input.onResource}`)
        const { noDirectRolesOnObject = false } = input
        const ends = { sourceRoleId: source.id, relationId: relation.id, noDirectRolesOnObject }
        return await this.derive(caller, role, owner, ends, tx)
      })
    },

    /**
     * The same in ids, in the caller's transaction, which holds `lockDefinitions` and has seen that they fit.
     * @throws AppError derivation_exists, limit_reached
     */
    async derive(
      caller: Caller,
      role: Pick<RoleRow, 'id' | 'key'>,
      owner: RoleOwner,
      ends: DerivationEnds,
      tx: Tx,
    ): Promise<DerivationRow> {
      const id = await roles.insertDerivation({ ...ends, roleId: role.id }, tx)
      await roles.updateRole(role.id, {}, tx)
      const written = await roles.findRole(role.id, tx, owner.id)
      const derivation = written?.derivations.find((one) => one.id === id) ?? fail('derivation_not_found')
      await audit.append(
        {
          action: 'derivation.created',
          caller,
          target: { type: 'derivation', id },
          details: {
            role: role.key,
            resource: owner.key,
            from: derivation.role,
            on_resource: derivation.onResource,
            linked_by_relation: derivation.linkedByRelation,
          },
        },
        tx,
      )
      return derivation
    },

    /** @throws AppError role_not_found, derivation_not_found */
    async removeDerivation(
      caller: Caller,
      roleId: string,
      owner: RoleOwner,
      derivationId: string,
    ): Promise<void> {
      await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const role = (await roles.lockRole(roleId, tx, 'no key update', owner.id)) ?? fail('role_not_found')
        await this.underive(caller, role, owner, derivationId, tx)
      })
    },

    /** The same in the caller's transaction, which holds `lockDefinitions`. @throws AppError derivation_not_found */
    async underive(
      caller: Caller,
      role: Pick<RoleRow, 'id' | 'key'>,
      owner: RoleOwner,
      derivationId: string,
      tx: Tx,
    ): Promise<void> {
      if (!(await roles.deleteDerivation(role.id, derivationId, tx)))
        throw new AppError('derivation_not_found')
      await roles.updateRole(role.id, {}, tx)
      await audit.append(
        {
          action: 'derivation.deleted',
          caller,
          target: { type: 'derivation', id: derivationId },
          details: { role: role.key, resource: owner.key },
        },
        tx,
      )
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
     * @throws AppError user_not_found, role_not_found, role_already_assigned, no_home_account, grant_exceeds_own,
     * reauthentication_required
     */
    async assignPrimary(caller: Caller, userId: string, roleId: string): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        if (await roles.findPrimaryAssignment(userId, tx)) throw new AppError('role_already_assigned')
        const assigned = await this.assign(caller, user, roleId, undefined, true, tx)
        await this.assertRecentFor(caller, [roleId], tx)
        return assigned
      })
    },

    /**
     * Replaces the primary role; both the old and the new must be within the caller's own.
     * @throws AppError user_not_found, role_not_found, role_not_assigned, last_super_admin, grant_exceeds_own,
     * reauthentication_required
     */
    async changePrimary(caller: Caller, userId: string, roleId: string): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const current = (await roles.findPrimaryAssignment(userId, tx)) ?? fail('role_not_assigned')
        if (current.role.id === roleId) return current
        await this.unassign(caller, current, user.accountId, tx)
        const assigned = await this.assign(caller, user, roleId, undefined, true, tx)
        await this.assertSuperAdminStays(tx, [current.role.key])
        await this.assertRecentFor(caller, [current.role.id, roleId], tx)
        return assigned
      })
    },

    /**
     * Takes the primary role away.
     * @throws AppError user_not_found, role_not_assigned, last_super_admin, grant_exceeds_own, reauthentication_required
     */
    async removePrimary(caller: Caller, userId: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const current = (await roles.findPrimaryAssignment(userId, tx)) ?? fail('role_not_assigned')
        await this.unassign(caller, current, user.accountId, tx)
        await this.assertSuperAdminStays(tx, [current.role.key])
        await this.assertRecentFor(caller, [current.role.id], tx)
      })
    },

    /**
     * Gives a user a further role, in `accountId` (null: in every account; undefined: by the role's reach), or on an
     * instance, and then in its account. A role on an instance is in no token, so giving one ends none.
     * @throws AppError user_not_found, role_not_found, account_not_found, instance_not_found, role_already_assigned,
     *   grant_exceeds_own, validation_failed, reauthentication_required
     */
    async assignFurther(
      caller: Caller,
      userId: string,
      roleId: string,
      accountId: string | null | undefined,
      terms: AssignmentTerms = {},
    ): Promise<AssignmentRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const assigned = await this.assign(caller, user, roleId, accountId, false, tx, terms)
        await this.assertRecentFor(caller, [roleId], tx)
        return assigned
      })
    },

    /** @throws AppError user_not_found, assignment_not_found, last_super_admin, grant_exceeds_own, reauthentication_required */
    async removeAssignment(caller: Caller, userId: string, assignmentId: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
        const held = (await roles.findAssignment(userId, assignmentId, tx)) ?? fail('assignment_not_found')
        await this.unassign(caller, held, user.accountId, tx)
        await this.assertSuperAdminStays(tx, [held.role.key])
        await this.assertRecentFor(caller, [held.role.id], tx)
      })
    },

    /**
     * For people who give or take permissions of this service: a stolen token must not make itself last by giving them
     * to somebody else. Roles without such permissions ask for nothing.
     * @throws AppError reauthentication_required
     */
    async assertRecentFor(caller: Caller, roleIds: readonly string[], tx: Tx): Promise<void> {
      for (const id of roleIds) {
        const role = await roles.findRole(id, tx)
        if (role?.effectivePermissions.some(isBuiltinPermission))
          return await assertRecentAuthentication(caller, tx)
      }
    },

    /** Writes one assignment under the rules of granting. The user's row must be locked. */
    async assign(
      caller: Caller,
      user: { id: string; accountId: string | null },
      roleId: string,
      accountId: string | null | undefined,
      isPrimary: boolean,
      tx: Tx,
      { instance: ref, expiresAt }: AssignmentTerms = {},
    ): Promise<AssignmentRow> {
      const instance =
        ref === undefined ? undefined : ((await roles.findInstance(ref, tx)) ?? fail('instance_not_found'))
      if (instance && !holdsIn(caller.principal, 'postern.roles:assign', instance.accountId)) {
        throw new AppError('instance_not_found', { boundary: true })
      }
      if (instance && accountId !== undefined && accountId !== instance.accountId) {
        throw new AppError('validation_failed', {
          errors: [{ pointer: '/body/account_id', detail: 'must be the account of the instance' }],
        })
      }
      const role = (await roles.lockRole(roleId, tx, 'share', instance?.resourceId)) ?? fail('role_not_found')
      const heldIn =
        instance?.accountId ?? (accountId === undefined ? placeOf(role, user.accountId) : accountId)
      assertMayGrant(caller, role, heldIn)
      if (heldIn !== null) await addMember(heldIn, user.id, tx)
      const id = await roles.insertAssignment(
        {
          userId: user.id,
          roleId,
          accountId: heldIn,
          instanceId: instance?.id ?? null,
          isPrimary,
          expiresAt: expiresAt ?? null,
        },
        tx,
      )
      if (!instance) await users.raiseTokenVersions([user.id], tx)
      const assigned = (await roles.findAssignment(user.id, id, tx)) ?? fail('assignment_not_found')
      await audit.append(assignmentEvent('role.assigned', caller, assigned, user.accountId), tx)
      return assigned
    },

    /** Takes one assignment away under the same rules. The caller counts the super admins afterwards. */
    async unassign(caller: Caller, held: AssignmentRow, homeAccountId: string | null, tx: Tx): Promise<void> {
      const { id, resourceId } = held.role
      const role = (await roles.lockRole(id, tx, 'share', resourceId)) ?? fail('role_not_found')
      assertMayGrant(caller, role, held.accountId)
      await roles.deleteAssignment(held.id, tx)
      if (held.instanceId === null) await users.raiseTokenVersions([held.userId], tx)
      await audit.append(assignmentEvent('role.unassigned', caller, held, homeAccountId), tx)
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

    /** The same for roles held in these accounts (null: in every account). @throws AppError grant_exceeds_own */
    async assertCoversRolesIn(
      caller: Caller,
      userId: string,
      accountIds: readonly (string | null)[],
      tx: Tx,
    ): Promise<void> {
      const held = (await roles.listHeldRoles(userId, tx)).filter((role) =>
        accountIds.includes(role.accountId),
      )
      if (held.some(({ isBuiltin }) => isBuiltin)) refuseMachine(caller)
      if (!coversPerson(caller.principal, held)) throw new AppError('grant_exceeds_own')
    },

    /**
     * To be called after the change and before the commit of everything that can take a super admin away. It
     * locks the policy version, which lets such transactions through one at a time: the second counts what the
     * first has left.
     * @param roleKeys the roles that the change took away; nothing is checked without SUPER_ADMIN among them
     * @throws AppError last_super_admin
     */
    async assertSuperAdminStays(tx: Tx, roleKeys?: readonly string[]): Promise<void> {
      if (environmentId !== DEFAULT_ENVIRONMENT) return // nobody signs in to it
      if (roleKeys && !roleKeys.includes(SUPER_ADMIN)) return
      await lockPolicyVersion(environmentId, tx)
      if ((await roles.countSuperAdmins(tx)) === 0) throw new AppError('last_super_admin')
    },

    movePrimaryAssignment: roles.movePrimaryAssignment,
    findRoleByKey: roles.findRoleByKey,
  }

  /** @throws AppError validation_failed for what is no permission of the application, or is not declared though it must be */
  async function lockChangeable(id: string, owner: RoleOwner | undefined, tx: Tx): Promise<RoleRow> {
    const role = (await roles.lockRole(id, tx, 'no key update', owner?.id)) ?? fail('role_not_found')
    if (role.isBuiltin) throw new AppError('role_is_builtin')
    return role
  }

  async function givePermissions(
    roleId: string,
    permissions: readonly string[],
    owner: RoleOwner | undefined,
    tx: Tx,
    at: string,
  ): Promise<void> {
    const field = `${at}/${owner ? 'permissions' : 'scopes'}`
    const named = permissions.map((one) => (owner && !one.includes(':') ? `${owner.key}:${one}` : one))
    refuse(named, field, (one) => (PERMISSION.test(one) ? undefined : 'is no permission of the application'))
    const ids = await roles.findActionIds(named, tx)
    const isDeclared = (one: string) => ids.has(one)
    if (!owner && !named.every(isDeclared)) return await roles.replacePermissions(roleId, named, tx)
    refuse(named, field, (one) => (isDeclared(one) ? undefined : 'is no action that a resource has'))
    await roles.replaceActions(roleId, [...ids.values()], tx)
  }

  /** The ids of the roles named. A role extends others of its own kind, and never a built-in one. */
  async function parentsNamed(
    keys: readonly string[],
    owner: RoleOwner | undefined,
    tx: Tx,
    at: string,
  ): Promise<string[]> {
    const found = new Map<string, RoleRow | undefined>()
    for (const key of keys) found.set(key, await roles.findRoleByKey(key, tx, owner?.id))
    refuse(keys, `${at}/extends`, (key) => {
      const parent = found.get(key)
      if (!parent) return owner ? `is no role of ${owner.key}` : 'is no role'
      return parent.isBuiltin ? 'is a built-in role, which no other role may extend' : undefined
    })
    return [...found.values()].flatMap((parent) => (parent ? [parent.id] : []))
  }
}

const PERMISSION = /^[A-Za-z0-9_-]+:[A-Za-z0-9_-]+$/

/** Refuses the values that `fault` has a word on. @throws AppError validation_failed */
function refuse(values: readonly string[], at: string, fault: (value: string) => string | undefined): void {
  const errors = values.flatMap((value, index): FieldError[] => {
    const detail = fault(value)
    return detail === undefined ? [] : [{ pointer: `${at}/${index}`, detail }]
  })
  if (errors.length > 0) throw new AppError('validation_failed', { errors: errors.slice(0, 50) })
}

function misfit(field: 'role' | 'on_resource' | 'linked_by_relation', detail: string): never {
  throw new AppError('validation_failed', { errors: [{ pointer: `/body/${field}`, detail }] })
}

/** No machine gives or takes a built-in role, those without permissions included. @throws AppError grant_exceeds_own */
function refuseMachine({ principal }: Caller): void {
  if (isMachine(principal)) throw new AppError('grant_exceeds_own')
}

/**
 * Refuses to give or take a role beyond the caller's own. `accountId`: where it is held, null for everywhere.
 * @throws AppError grant_exceeds_own, account_not_found
 */
export function assertMayGrant(
  caller: Caller,
  role: Pick<RoleRow, 'isBuiltin' | 'effectivePermissions'>,
  accountId: string | null,
): void {
  const { principal } = caller
  if (accountId !== null && !holdsIn(principal, 'postern.roles:assign', accountId)) {
    throw new AppError('account_not_found', { boundary: true })
  }
  if (role.isBuiltin) refuseMachine(caller)
  if (!covers(principal, { accountId, permissions: role.effectivePermissions }))
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

/** What the audit trail says of a role given or taken. */
export function assignmentEvent(
  action: 'role.assigned' | 'role.unassigned',
  caller: Caller,
  held: Pick<AssignmentRow, 'userId' | 'accountId' | 'instanceId' | 'expiresAt'> & { role: { key: string } },
  homeAccountId: string | null,
) {
  return {
    action,
    caller,
    target: { type: 'user', id: held.userId },
    accountId: held.accountId ?? homeAccountId,
    details: {
      role: held.role.key,
      account_id: held.accountId,
      ...(held.instanceId !== null && { resource_instance_id: held.instanceId }),
      ...(held.expiresAt !== null && { expires_at: held.expiresAt.toISOString() }),
    },
  } as const
}
