import type { AuditRepository } from '../audit/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, type FieldError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import { APPLICATION_KEY, covers, coversPerson, holdsIn, type Reach, SUPER_ADMIN } from '../permissions.ts'
import { lockPolicyVersion } from '../policy/versions.ts'
import type { Caller } from '../principal.ts'
import { assertApplicationKey } from '../resources/keys.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { AssignmentRow, DerivationRow, RoleRow, RolesRepository } from './repository.ts'

export type RoleUpdate = {
  name?: string
  description?: string | null
  defaultReach?: Reach
  attributes?: Record<string, unknown> | null
  noDirectRolesOnObject?: boolean
  /** `resource:action`; of a role of a resource, the action alone means one of that resource. */
  permissions?: readonly string[]
  /** Keys of roles of the same kind whose permissions this one has too. */
  extends?: readonly string[]
}

export type NewRole = RoleUpdate & { key?: string; name: string }

/** What a role belongs to that is held on instances of a resource. */
export type RoleOwner = { id: string; key: string }

/** A derivation, in keys. */
export type NewDerivation = Omit<DerivationRow, 'id' | 'noDirectRolesOnObject'> & {
  noDirectRolesOnObject?: boolean
}

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
      await roles.insertRole({ ...fields, id, key, resourceId: owner?.id ?? null }, tx)
      await givePermissions(id, permissions, owner, tx, at)
      await roles.replaceParents(id, parentIds, tx)
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
     * Changes a role of the application. Tokens of its holders, and of the holders of roles that extend it, end at
     * once when it loses a permission; what it gains is in their next token.
     * @throws AppError role_not_found, role_is_builtin, role_cycle, validation_failed, limit_reached, precondition_failed
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
        if (role.isBuiltin) throw new AppError('role_is_builtin')
        assertMatches(ifMatch, role.revision)
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
      })
    },

    /**
     * Deletes a role that nobody holds. Roles that extend it lose what they had from it, and tokens with that end.
     * @throws AppError role_not_found, role_is_builtin, role_in_use, precondition_failed
     */
    async deleteRole(caller: Caller, id: string, ifMatch: IfMatch, owner?: RoleOwner): Promise<void> {
      await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const role = (await roles.lockRole(id, tx, 'no key update', owner?.id)) ?? fail('role_not_found')
        if (role.isBuiltin) throw new AppError('role_is_builtin')
        assertMatches(ifMatch, role.revision)
        if (await roles.isHeld(id, tx)) throw new AppError('role_in_use')
        if (!owner && role.effectivePermissions.length > 0) {
          await users.raiseTokenVersions(await roles.lockHolderIds([id], tx), tx)
        }
        await roles.deleteRole(id, tx)
        await audit.append(
          {
            action: 'role.deleted',
            caller,
            target: { type: 'role', id },
            details: { key: role.key, ...(owner && { resource: owner.key }) },
          },
          tx,
        )
      })
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
        const id = await roles.insertDerivation(
          {
            roleId,
            sourceRoleId: source.id,
            relationId: relation.id,
            noDirectRolesOnObject: input.noDirectRolesOnObject ?? false,
          },
          tx,
        )
        await roles.updateRole(roleId, {}, tx)
        const { role: from, onResource, linkedByRelation } = input
        await audit.append(
          {
            action: 'derivation.created',
            caller,
            target: { type: 'derivation', id },
            details: {
              role: role.key,
              resource: owner.key,
              from,
              on_resource: onResource,
              linked_by_relation: linkedByRelation,
            },
          },
          tx,
        )
        const written = await roles.findRole(roleId, tx, owner.id)
        return written?.derivations.find((one) => one.id === id) ?? fail('derivation_not_found')
      })
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
        if (!(await roles.deleteDerivation(roleId, derivationId, tx)))
          throw new AppError('derivation_not_found')
        await roles.updateRole(roleId, {}, tx)
        await audit.append(
          {
            action: 'derivation.deleted',
            caller,
            target: { type: 'derivation', id: derivationId },
            details: { role: role.key, resource: owner.key },
          },
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
     * Gives a user a further role, in `accountId` (null: in every account; undefined: by the role's reach), or on an
     * instance, and then in its account. A role on an instance is in no token, so giving one ends none.
     * @throws AppError user_not_found, role_not_found, account_not_found, instance_not_found, role_already_assigned,
     *   grant_exceeds_own, validation_failed
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
        return await this.assign(caller, user, roleId, accountId, false, tx, terms)
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

    /** The same for the roles that the person holds in one account. @throws AppError grant_exceeds_own */
    async assertCoversRolesIn(caller: Caller, userId: string, accountId: string, tx: Tx): Promise<void> {
      const held = (await roles.listHeldRoles(userId, tx)).filter((role) => role.accountId === accountId)
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
    if (!owner) return await roles.replacePermissions(roleId, named, tx)
    const ids = await roles.findActionIds(named, tx)
    refuse(named, field, (one) => (ids.has(one) ? undefined : 'is no action that a resource has'))
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
  if (principal.type === 'api_key') throw new AppError('grant_exceeds_own')
}

function assertMayGrant(caller: Caller, role: RoleRow, accountId: string | null): void {
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

function assignmentEvent(
  action: 'role.assigned' | 'role.unassigned',
  caller: Caller,
  held: AssignmentRow,
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
