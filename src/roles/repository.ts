import { and, asc, eq, inArray, isNull, ne, notInArray, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import {
  accounts,
  actions,
  environments,
  relations,
  resourceInstances,
  resources,
  roleAssignments,
  roleDerivations,
  roleParents,
  rolePermissions,
  roles,
  userCredentials,
  users,
} from '../db/schema.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import { type HeldRole, type Reach, SUPER_ADMIN, splitPermission } from '../permissions.ts'
import { assertBelow } from '../resources/limits.ts'

export type RoleRow = {
  id: string
  /** Null: a role held in an account or everywhere. Else a role held on instances of this resource. */
  resourceId: string | null
  key: string
  name: string
  description: string | null
  defaultReach: Reach
  attributes: Record<string, unknown> | null
  noDirectRolesOnObject: boolean
  /** Whether whoever holds it must sign in with two factors. */
  isMfaRequired: boolean
  isBuiltin: boolean
  revision: number
  createdAt: Date
  updatedAt: Date
  /** `resource:action`, sorted; the role's own. */
  permissions: string[]
  /** The same with those of every role that it extends, directly or not. */
  effectivePermissions: string[]
  /** Keys of the roles that it extends, sorted. */
  extends: string[]
  /** Oldest first. Only a role of a resource has some. */
  derivations: DerivationRow[]
}

/** Whoever holds `role` of `onResource` on what an object names by the relation holds the derived role on the object. */
export type DerivationRow = {
  id: string
  role: string
  onResource: string
  linkedByRelation: string
  noDirectRolesOnObject: boolean
  sourceRoleId: string
  onResourceId: string
  relationId: string
}

export type RoleChanges = Partial<
  Pick<
    RoleRow,
    'name' | 'description' | 'defaultReach' | 'attributes' | 'noDirectRolesOnObject' | 'isMfaRequired'
  >
>

/** A role as one user holds it; `accountId` null means in every account. */
export type AssignmentRow = {
  id: string
  userId: string
  accountId: string | null
  /** The instance that it is held on, with its name `type:key`. */
  instanceId: string | null
  instanceName: string | null
  isPrimary: boolean
  /** From then on it is no longer held. */
  expiresAt: Date | null
  createdAt: Date
  role: { id: string; key: string; name: string; description: string | null; resourceId: string | null }
}

/** An instance of a resource, as an assignment on it needs it. */
export type InstanceRow = { id: string; accountId: string; resourceId: string }

/**
 * The permissions of `roles.id` of the statement around it, as a sorted text array. Names are written out, because
 * Drizzle leaves the table's name away in a statement over one table.
 */
const permissionsOfRole = sql<string[]>`coalesce((
  select array_agg(resources.key || ':' || actions.key order by (resources.key || ':' || actions.key) collate "C")
  from role_permissions
  join actions on actions.id = role_permissions.action_id
  join resources on resources.id = actions.resource_id
  where role_permissions.role_id = roles.id), '{}')`

/** The same with those of the roles that it extends. */
export const effectivePermissionsOfRole = sql<string[]>`coalesce((
  select array_agg(distinct (resources.key || ':' || actions.key) collate "C"
    order by (resources.key || ':' || actions.key) collate "C")
  from role_permissions
  join actions on actions.id = role_permissions.action_id
  join resources on resources.id = actions.resource_id
  where role_permissions.role_id in (select role_and_ancestors(roles.id))), '{}')`

const parentsOfRole = sql<string[]>`coalesce((
  select array_agg(parent.key order by parent.key collate "C")
  from role_parents join roles parent on parent.id = role_parents.parent_id
  where role_parents.role_id = roles.id), '{}')`

const derivationsOfRole = sql<DerivationRow[]>`coalesce((
  select json_agg(json_build_object('id', d.id, 'role', source.key, 'onResource', subject.key,
    'linkedByRelation', relations.key, 'noDirectRolesOnObject', d.no_direct_roles_on_object,
    'sourceRoleId', source.id, 'onResourceId', subject.id, 'relationId', relations.id) order by d.id)
  from role_derivations d
  join roles source on source.id = d.source_role_id
  join relations on relations.id = d.relation_id
  join resources subject on subject.id = relations.subject_resource_id
  where d.role_id = roles.id), '[]')`

const roleColumns = {
  id: roles.id,
  resourceId: roles.resourceId,
  key: roles.key,
  name: roles.name,
  description: roles.description,
  defaultReach: roles.defaultReach,
  attributes: roles.attributes,
  noDirectRolesOnObject: roles.noDirectRolesOnObject,
  isMfaRequired: roles.isMfaRequired,
  isBuiltin: roles.isBuiltin,
  revision: roles.revision,
  createdAt: roles.createdAt,
  updatedAt: roles.updatedAt,
  permissions: permissionsOfRole,
  effectivePermissions: effectivePermissionsOfRole,
  extends: parentsOfRole,
  derivations: derivationsOfRole,
}

const assignmentColumns = {
  id: roleAssignments.id,
  userId: roleAssignments.userId,
  accountId: roleAssignments.accountId,
  instanceId: roleAssignments.resourceInstanceId,
  instanceName: sql<string | null>`${resources.key} || ':' || ${resourceInstances.key}`,
  isPrimary: roleAssignments.isPrimary,
  expiresAt: roleAssignments.expiresAt,
  createdAt: roleAssignments.createdAt,
  role: {
    id: roles.id,
    key: roles.key,
    name: roles.name,
    description: roles.description,
    resourceId: roles.resourceId,
  },
}

/** True of an assignment that still holds. */
const isInForce = sql`coalesce(${roleAssignments.expiresAt} > now(), true)`

const sortKeys: Record<string, SortKey<RoleRow>> = {
  created_at: { by: roles.id, cast: 'uuid', value: (row) => row.id },
}

export type RolesRepository = ReturnType<typeof createRolesRepository>

/** The statements of roles, what they give and who holds them, of one environment. */
export function createRolesRepository({ db, prepare }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  /** For what every write to roles reads: planning its lists of permissions costs more than running them. */
  const named = (name: string): string => (prepare ? name : '')

  /** The roles of a resource; with null those that are held in accounts or everywhere. */
  const isRoleOf = (resourceId: string | null) =>
    and(
      eq(roles.environmentId, environmentId),
      resourceId === null ? isNull(roles.resourceId) : eq(roles.resourceId, resourceId),
    )

  const isApplicationResource = and(
    eq(resources.environmentId, environmentId),
    eq(resources.isBuiltin, false),
  )

  return {
    /**
     * Lets the changes of an environment's definitions through one at a time, so that checks over several rows (a
     * cycle, a limit, whether a derivation fits) hold at the commit. Taken before any other lock.
     */
    async lockDefinitions(tx: Tx): Promise<void> {
      const [locked] = await tx
        .select({ id: environments.id })
        .from(environments)
        .where(eq(environments.id, environmentId))
        .for('no key update')
      if (!locked) throw new AppError('not_found')
    },

    /** A page of roles: those of a resource, or, without one, those held in accounts or everywhere. */
    async listRoles(
      filters: { key?: string; resourceId?: string; isBuiltin?: boolean },
      request: PageRequest,
    ): Promise<Page<RoleRow>> {
      const clauses = pageClauses(request, sortKeys, roles.id)
      const matching = allOf(
        isRoleOf(filters.resourceId ?? null),
        filters.key === undefined ? undefined : eq(roles.key, filters.key),
        filters.isBuiltin === undefined ? undefined : eq(roles.isBuiltin, filters.isBuiltin),
      )
      const page = clauses.toPage(
        await db
          .select(roleColumns)
          .from(roles)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(roles, matching) } : page
    },

    /** All roles of these resources, the oldest first. */
    async listRolesOf(resourceIds: readonly string[], ex: Executor = db): Promise<RoleRow[]> {
      return await ex
        .select(roleColumns)
        .from(roles)
        .where(
          and(
            eq(roles.environmentId, environmentId),
            sql`${roles.resourceId} = any(${sql.param([...resourceIds])}::uuid[])`,
          ),
        )
        .orderBy(asc(roles.id))
        .prepare(named('roles_of_resources'))
        .execute()
    },

    async findRole(
      id: string,
      ex: Executor = db,
      resourceId: string | null = null,
    ): Promise<RoleRow | undefined> {
      const [row] = await ex
        .select(roleColumns)
        .from(roles)
        .where(and(eq(roles.id, id), isRoleOf(resourceId)))
        .prepare(named(resourceId === null ? 'role' : 'role_of_resource'))
        .execute()
      return row
    },

    async findRoleByKey(
      key: string,
      ex: Executor = db,
      resourceId: string | null = null,
    ): Promise<RoleRow | undefined> {
      const [row] = await ex
        .select(roleColumns)
        .from(roles)
        .where(and(eq(roles.key, key), isRoleOf(resourceId)))
      return row
    },

    /** The same as `findRole`, locked: its permissions and its deletion wait for the transaction. */
    async lockRole(
      id: string,
      tx: Tx,
      strength: 'no key update' | 'share' = 'no key update',
      resourceId: string | null = null,
    ): Promise<RoleRow | undefined> {
      const [locked] = await tx
        .select({ id: roles.id })
        .from(roles)
        .where(and(eq(roles.id, id), isRoleOf(resourceId)))
        .for(strength)
      return locked && (await this.findRole(id, tx, resourceId))
    },

    /** Writes roles of one resource, or some held in accounts. @throws AppError role_key_taken, limit_reached */
    async insertRoles(
      resourceId: string | null,
      rows: readonly (RoleChanges & { id: string; key: string; name: string })[],
      tx: Tx,
    ): Promise<void> {
      if (rows.length === 0) return
      const limit = resourceId === null ? 'roles' : 'resourceRoles'
      assertBelow(limit, await tx.$count(roles, isRoleOf(resourceId)), rows.length)
      const idLike = rows.map(({ key }) => key).filter(isUuid)
      if (idLike.length > 0) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(
          roles,
          and(eq(roles.environmentId, environmentId), inArray(roles.id, idLike)),
        )
        if (clashes > 0) throw new AppError('role_key_taken')
      }
      try {
        await tx.insert(roles).values(rows.map((row) => ({ ...row, resourceId, environmentId })))
      } catch (error) {
        if (isUniqueViolation(error, 'roles_key_key')) throw new AppError('role_key_taken', { cause: error })
        throw error
      }
    },

    /** Roles of a resource, or some held in accounts, by their keys; those that are not there are not in it. */
    async listRolesByKeys(keys: readonly string[], resourceId: string | null, tx: Tx): Promise<RoleRow[]> {
      if (keys.length === 0) return []
      return await tx
        .select(roleColumns)
        .from(roles)
        .where(and(isRoleOf(resourceId), sql`${roles.key} = any(${sql.param([...keys])}::text[])`))
    },

    /** Adds actions to roles, as pairs. */
    async insertPermissions(pairs: readonly { roleId: string; actionId: string }[], tx: Tx): Promise<void> {
      if (pairs.length === 0) return
      await tx.execute(sql`insert into role_permissions (environment_id, role_id, action_id)
        select ${environmentId}::uuid, pair.role_id, pair.action_id
        from unnest(${sql.param(pairs.map(({ roleId }) => roleId))}::uuid[],
          ${sql.param(pairs.map(({ actionId }) => actionId))}::uuid[]) as pair (role_id, action_id)
        on conflict do nothing`)
    },

    async updateRole(id: string, changes: RoleChanges, tx: Tx): Promise<void> {
      await tx
        .update(roles)
        .set({ ...changes, revision: sql`${roles.revision} + 1`, updatedAt: sql`now()` })
        .where(eq(roles.id, id))
    },

    async deleteRole(id: string, tx: Tx): Promise<void> {
      await tx.delete(roles).where(eq(roles.id, id))
    },

    /** Makes `permissions` the role's own, declaring unknown resources and actions on the way. @throws AppError limit_reached */
    async replacePermissions(roleId: string, permissions: readonly string[], tx: Tx): Promise<void> {
      await this.replaceActions(roleId, await declareActions(permissions, tx), tx)
    },

    async replaceActions(roleId: string, actionIds: readonly string[], tx: Tx): Promise<void> {
      await tx
        .delete(rolePermissions)
        .where(
          and(
            eq(rolePermissions.roleId, roleId),
            actionIds.length > 0 ? notInArray(rolePermissions.actionId, [...actionIds]) : undefined,
          ),
        )
      if (actionIds.length === 0) return
      await tx
        .insert(rolePermissions)
        .values(actionIds.map((actionId) => ({ environmentId, roleId, actionId })))
        .onConflictDoNothing()
    },

    /** The ids of the application's actions by `resource:action`; those that are not declared are not in it. */
    async findActionIds(permissions: readonly string[], tx: Tx): Promise<Map<string, string>> {
      const found = await tx
        .select({ id: actions.id, name: sql<string>`${resources.key} || ':' || ${actions.key}` })
        .from(actions)
        .innerJoin(resources, and(eq(resources.id, actions.resourceId), eq(resources.isBuiltin, false)))
        .where(
          and(
            eq(resources.environmentId, environmentId),
            sql`${resources.key} || ':' || ${actions.key} = any(${sql.param([...permissions])}::text[])`,
          ),
        )
      return new Map(found.map(({ id, name }) => [name, id]))
    },

    /** The same by id: `resource:action` of each. */
    async findActionNames(ids: readonly string[], tx: Tx): Promise<Map<string, string>> {
      if (ids.length === 0) return new Map()
      const found = await tx
        .select({ id: actions.id, name: sql<string>`${resources.key} || ':' || ${actions.key}` })
        .from(actions)
        .innerJoin(resources, and(eq(resources.id, actions.resourceId), eq(resources.isBuiltin, false)))
        .where(and(eq(actions.environmentId, environmentId), inArray(actions.id, [...ids])))
      return new Map(found.map(({ id, name }) => [id, name]))
    },

    /**
     * The roles that the role extends, or those that extend it, directly or not, itself left out. Oldest first.
     */
    async listRelatives(
      { id, resourceId }: Pick<RoleRow, 'id' | 'resourceId'>,
      which: 'ancestors' | 'descendants',
    ): Promise<RoleRow[]> {
      const found = which === 'ancestors' ? sql`role_and_ancestors` : sql`role_and_descendants`
      return await db
        .select(roleColumns)
        .from(roles)
        .where(
          and(isRoleOf(resourceId), ne(roles.id, id), sql`${roles.id} in (select ${found}(${id}::uuid))`),
        )
        .orderBy(asc(roles.id))
    },

    async replaceParents(roleId: string, parentIds: readonly string[], tx: Tx): Promise<void> {
      await tx.delete(roleParents).where(eq(roleParents.roleId, roleId))
      if (parentIds.length === 0) return
      await tx.insert(roleParents).values(parentIds.map((parentId) => ({ environmentId, roleId, parentId })))
    },

    /** True when one of the roles is `roleId` or extends it, directly or not. */
    async isAncestorOf(roleId: string, ids: readonly string[], tx: Tx): Promise<boolean> {
      const { rows } = await tx.execute(sql`select from unnest(${sql.param([...ids])}::uuid[]) as start (id)
        where ${roleId}::uuid in (select role_and_ancestors(start.id)) limit 1`)
      return rows.length > 0
    },

    /** @throws AppError derivation_exists, limit_reached */
    async insertDerivation(
      derivation: {
        roleId: string
        sourceRoleId: string
        relationId: string
        noDirectRolesOnObject: boolean
      },
      tx: Tx,
    ): Promise<string> {
      const id = newId()
      assertBelow(
        'derivations',
        await tx.$count(roleDerivations, eq(roleDerivations.roleId, derivation.roleId)),
      )
      try {
        await tx.insert(roleDerivations).values({ ...derivation, id, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'role_derivations_key')) {
          throw new AppError('derivation_exists', { cause: error })
        }
        throw error
      }
      return id
    },

    /** False when the role has no such derivation. */
    async deleteDerivation(roleId: string, id: string, tx: Tx): Promise<boolean> {
      const gone = await tx
        .delete(roleDerivations)
        .where(and(eq(roleDerivations.id, id), eq(roleDerivations.roleId, roleId)))
        .returning({ id: roleDerivations.id })
      return gone.length > 0
    },

    /** The relation of a resource, with the resource of its subjects. */
    async findRelationByKey(
      resourceId: string,
      key: string,
      tx: Tx,
    ): Promise<{ id: string; subjectResourceId: string } | undefined> {
      const [row] = await tx
        .select({ id: relations.id, subjectResourceId: relations.subjectResourceId })
        .from(relations)
        .where(and(eq(relations.resourceId, resourceId), eq(relations.key, key)))
      return row
    },

    /** How many assignments of the role there are, expired ones included. */
    async countAssignments(roleId: string, tx: Tx): Promise<number> {
      return await tx.$count(roleAssignments, eq(roleAssignments.roleId, roleId))
    },

    /** True when a live user holds the role itself. */
    async isHeld(roleId: string, tx: Tx): Promise<boolean> {
      const [held] = await tx
        .select({ id: roleAssignments.id })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .where(and(eq(roleAssignments.roleId, roleId), isInForce))
        .limit(1)
      return held !== undefined
    },

    /**
     * The live users whose tokens may carry the permissions of these roles: who can sign in and holds one, or one that
     * extends it. The roles are locked first, so that nobody is given one meanwhile. Expired assignments count, because
     * a token outlives them; those on instances do not, because no token carries them.
     */
    async lockHolderIds(roleIds: readonly string[], tx: Tx): Promise<string[]> {
      if (roleIds.length === 0) return []
      const heirs = sql`(select role_and_descendants(start.id) from unnest(${sql.param([...roleIds])}::uuid[]) as start (id))`
      await tx
        .select({ id: roles.id })
        .from(roles)
        .where(sql`${roles.id} in ${heirs}`)
        .orderBy(asc(roles.id))
        .for('no key update')
      const held = await tx
        .selectDistinct({ userId: roleAssignments.userId })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        // Most of those who hold a role of an application were synced from elsewhere and have no tokens.
        .innerJoin(userCredentials, eq(userCredentials.userId, users.id))
        .where(and(sql`${roleAssignments.roleId} in ${heirs}`, isNull(roleAssignments.resourceInstanceId)))
        .orderBy(asc(roleAssignments.userId))
      return held.map((row) => row.userId)
    },

    /** The roles that hold one of a resource's actions as their own, or the one action. */
    async listRoleIdsWith(what: { resourceId: string } | { actionId: string }, tx: Tx): Promise<string[]> {
      const found = await tx
        .selectDistinct({ roleId: rolePermissions.roleId })
        .from(rolePermissions)
        .innerJoin(actions, eq(actions.id, rolePermissions.actionId))
        .where('actionId' in what ? eq(actions.id, what.actionId) : eq(actions.resourceId, what.resourceId))
      return found.map(({ roleId }) => roleId)
    },

    /** Every role that the user holds, with its permissions: what `coversPerson` judges. */
    async listHeldRoles(userId: string, ex: Executor = db): Promise<(HeldRole & { isBuiltin: boolean })[]> {
      return await ex
        .select({
          accountId: roleAssignments.accountId,
          permissions: effectivePermissionsOfRole,
          isBuiltin: roles.isBuiltin,
        })
        .from(roleAssignments)
        .innerJoin(roles, eq(roles.id, roleAssignments.roleId))
        .where(and(eq(roleAssignments.userId, userId), isInForce))
    },

    /** The built-in roles that people at home in the account hold, wherever they hold them. */
    async listBuiltinRolesOfResidents(accountId: string, tx: Tx): Promise<HeldRole[]> {
      return await tx
        .selectDistinct({ accountId: roleAssignments.accountId, permissions: permissionsOfRole })
        .from(roleAssignments)
        .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, true)))
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .where(and(eq(users.accountId, accountId), isInForce))
    },

    async listAssignments(userId: string, ex: Executor = db): Promise<AssignmentRow[]> {
      return await selectAssignments(ex)
        .where(eq(roleAssignments.userId, userId))
        .orderBy(asc(roleAssignments.id))
    },

    async findPrimaryAssignment(userId: string, ex: Executor = db): Promise<AssignmentRow | undefined> {
      const [row] = await selectAssignments(ex).where(
        and(eq(roleAssignments.userId, userId), eq(roleAssignments.isPrimary, true)),
      )
      return row
    },

    async findAssignment(userId: string, id: string, ex: Executor = db): Promise<AssignmentRow | undefined> {
      const [row] = await selectAssignments(ex).where(
        and(eq(roleAssignments.userId, userId), eq(roleAssignments.id, id)),
      )
      return row
    },

    /** The instance named `type:key`, or by its id; it cannot go before the transaction ends. */
    async findInstance(ref: string, tx: Tx): Promise<InstanceRow | undefined> {
      const { resource, action: key } = splitPermission(ref)
      const [row] = await tx
        .select({
          id: resourceInstances.id,
          accountId: resourceInstances.accountId,
          resourceId: resourceInstances.resourceId,
        })
        .from(resourceInstances)
        .innerJoin(resources, eq(resources.id, resourceInstances.resourceId))
        .where(
          and(
            eq(resourceInstances.environmentId, environmentId),
            isUuid(ref)
              ? eq(resourceInstances.id, ref)
              : and(eq(resources.key, resource), eq(resourceInstances.key, key)),
          ),
        )
        .for('key share', { of: resourceInstances })
      return row
    },

    /**
     * Writes an assignment, in place of the same one that has expired.
     * @throws AppError role_already_assigned, validation_failed when it would have expired already
     */
    async insertAssignment(
      assignment: {
        userId: string
        roleId: string
        accountId: string | null
        instanceId: string | null
        isPrimary: boolean
        expiresAt: Date | null
      },
      tx: Tx,
    ): Promise<string> {
      const id = newId()
      const { userId, roleId, accountId, instanceId } = assignment
      await tx
        .delete(roleAssignments)
        .where(
          and(
            eq(roleAssignments.userId, userId),
            eq(roleAssignments.roleId, roleId),
            sql`${roleAssignments.accountId} is not distinct from ${accountId}::uuid`,
            sql`${roleAssignments.resourceInstanceId} is not distinct from ${instanceId}::uuid`,
            sql`${roleAssignments.expiresAt} <= now()`,
          ),
        )
      try {
        const [written] = await tx
          .insert(roleAssignments)
          .values({ ...assignment, resourceInstanceId: instanceId, id, environmentId })
          .returning({ isInForce })
        if (!written?.isInForce) {
          fail('validation_failed', {
            errors: [{ pointer: '/body/expires_at', detail: 'must be in the future' }],
          })
        }
      } catch (error) {
        if (
          isUniqueViolation(error, 'role_assignments_key') ||
          isUniqueViolation(error, 'role_assignments_primary_key')
        ) {
          throw new AppError('role_already_assigned', { cause: error })
        }
        throw error
      }
      return id
    },

    async deleteAssignment(id: string, tx: Tx): Promise<void> {
      await tx.delete(roleAssignments).where(eq(roleAssignments.id, id))
    },

    /**
     * Lets the primary assignment follow the home account; it must be one with account reach. The same role held
     * there already as a further one becomes the primary one.
     */
    async movePrimaryAssignment(userId: string, accountId: string, tx: Tx): Promise<void> {
      await tx.delete(roleAssignments).where(
        and(
          eq(roleAssignments.userId, userId),
          eq(roleAssignments.accountId, accountId),
          eq(roleAssignments.isPrimary, false),
          sql`role_id = (select held.role_id from role_assignments held
            where held.user_id = ${userId} and held.is_primary and held.account_id is not null)`,
        ),
      )
      await tx
        .update(roleAssignments)
        .set({ accountId })
        .where(
          and(
            eq(roleAssignments.userId, userId),
            eq(roleAssignments.isPrimary, true),
            sql`${roleAssignments.accountId} is not null`,
          ),
        )
    },

    async deleteAssignmentsIn(userId: string, accountId: string, tx: Tx): Promise<void> {
      await tx
        .delete(roleAssignments)
        .where(and(eq(roleAssignments.userId, userId), eq(roleAssignments.accountId, accountId)))
    },

    /** How many people could sign in right now and hold SUPER_ADMIN everywhere and for good. */
    async countSuperAdmins(tx: Tx): Promise<number> {
      const [row] = await tx
        .select({ count: sql<number>`count(distinct ${users.id})::int` })
        .from(roleAssignments)
        .innerJoin(roles, eq(roles.id, roleAssignments.roleId))
        .innerJoin(users, eq(users.id, roleAssignments.userId))
        .innerJoin(userCredentials, eq(userCredentials.userId, users.id))
        .leftJoin(accounts, eq(accounts.id, users.accountId))
        .where(
          and(
            eq(roles.environmentId, environmentId),
            eq(roles.key, SUPER_ADMIN),
            eq(roles.isBuiltin, true),
            isNull(roleAssignments.accountId),
            isNull(roleAssignments.expiresAt),
            eq(users.isActive, true),
            isNull(users.deletedAt),
            sql`${users.emailNormalized} is not null`,
            sql`(${userCredentials.passwordHash} is not null or exists (
              select from passkeys p where p.user_id = ${users.id} and p.is_user_verifying))`,
            sql`coalesce(${accounts.isActive} and ${accounts.deletedAt} is null, true)`,
          ),
        )
      return row?.count ?? 0
    },
  }

  function selectAssignments(ex: Executor) {
    return ex
      .select(assignmentColumns)
      .from(roleAssignments)
      .innerJoin(roles, eq(roles.id, roleAssignments.roleId))
      .leftJoin(resourceInstances, eq(resourceInstances.id, roleAssignments.resourceInstanceId))
      .leftJoin(resources, eq(resources.id, resourceInstances.resourceId))
  }

  /** The ids of the actions, in the order of their names so that two writers never wait for each other in a ring. */
  async function declareActions(permissions: readonly string[], tx: Tx): Promise<string[]> {
    if (permissions.length === 0) return []
    const named = [...new Set(permissions)].sort().map(splitPermission)
    const resourceKeys = [...new Set(named.map(({ resource }) => resource))]
    await tx
      .insert(resources)
      .values(resourceKeys.map((key) => ({ id: newId(), environmentId, key, name: key })))
      .onConflictDoNothing()
    const found = await tx
      .select({ id: resources.id, key: resources.key })
      .from(resources)
      .where(and(eq(resources.environmentId, environmentId), inArray(resources.key, resourceKeys)))
    const resourceIds = new Map(found.map(({ key, id }) => [key, id]))
    assertBelow('resources', await tx.$count(resources, isApplicationResource), 0)
    await tx
      .insert(actions)
      .values(
        named.map(({ resource, action }) => ({
          id: newId(),
          environmentId,
          resourceId: resourceIds.get(resource) ?? '',
          key: action,
          name: action,
        })),
      )
      .onConflictDoNothing()
    const fullest = await tx
      .select({ count: sql<number>`count(*)::int` })
      .from(actions)
      .where(inArray(actions.resourceId, [...resourceIds.values()]))
      .groupBy(actions.resourceId)
    for (const { count } of fullest) assertBelow('actions', count, 0)
    const declared = await tx
      .select({ id: actions.id, name: sql<string>`${resources.key} || ':' || ${actions.key}` })
      .from(actions)
      .innerJoin(resources, eq(resources.id, actions.resourceId))
      .where(and(eq(resources.environmentId, environmentId), inArray(resources.key, resourceKeys)))
    const wanted = new Set(permissions)
    return declared.filter(({ name }) => wanted.has(name)).map(({ id }) => id)
  }
}
