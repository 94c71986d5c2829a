import { and, asc, eq, inArray, isNull, notInArray, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import {
  accounts,
  actions,
  resources,
  roleAssignments,
  rolePermissions,
  roles,
  userCredentials,
  users,
} from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import { type HeldRole, type Reach, SUPER_ADMIN, splitPermission } from '../permissions.ts'

export type RoleRow = {
  id: string
  key: string
  name: string
  description: string | null
  defaultReach: Reach
  isBuiltin: boolean
  revision: number
  createdAt: Date
  updatedAt: Date
  /** `resource:action`, sorted. */
  permissions: string[]
}

export type RoleChanges = Partial<Pick<RoleRow, 'name' | 'description' | 'defaultReach'>>

/** A role as one user holds it; `accountId` null means in every account. */
export type AssignmentRow = {
  id: string
  userId: string
  accountId: string | null
  isPrimary: boolean
  createdAt: Date
  role: { id: string; key: string; name: string; description: string | null }
}

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

const roleColumns = {
  id: roles.id,
  key: roles.key,
  name: roles.name,
  description: roles.description,
  defaultReach: roles.defaultReach,
  isBuiltin: roles.isBuiltin,
  revision: roles.revision,
  createdAt: roles.createdAt,
  updatedAt: roles.updatedAt,
  permissions: permissionsOfRole,
}

const assignmentColumns = {
  id: roleAssignments.id,
  userId: roleAssignments.userId,
  accountId: roleAssignments.accountId,
  isPrimary: roleAssignments.isPrimary,
  createdAt: roleAssignments.createdAt,
  role: { id: roles.id, key: roles.key, name: roles.name, description: roles.description },
}

const sortKeys: Record<string, SortKey<RoleRow>> = {
  created_at: { by: roles.id, cast: 'uuid', value: (row) => row.id },
}

export type RolesRepository = ReturnType<typeof createRolesRepository>

export function createRolesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isAccountRole = and(eq(roles.environmentId, environmentId), isNull(roles.resourceId))

  return {
    async listRoles(filters: { key?: string }, request: PageRequest): Promise<Page<RoleRow>> {
      const clauses = pageClauses(request, sortKeys, roles.id)
      const matching = allOf(
        isAccountRole,
        filters.key === undefined ? undefined : eq(roles.key, filters.key),
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

    async findRole(id: string, ex: Executor = db): Promise<RoleRow | undefined> {
      const [row] = await ex
        .select(roleColumns)
        .from(roles)
        .where(and(eq(roles.id, id), isAccountRole))
      return row
    },

    async findRoleByKey(key: string, ex: Executor = db): Promise<RoleRow | undefined> {
      const [row] = await ex
        .select(roleColumns)
        .from(roles)
        .where(and(eq(roles.key, key), isAccountRole))
      return row
    },

    /** The same, locked: its permissions and its deletion wait for the transaction. */
    async lockRole(
      id: string,
      tx: Tx,
      strength: 'no key update' | 'share' = 'no key update',
    ): Promise<RoleRow | undefined> {
      const [locked] = await tx
        .select({ id: roles.id })
        .from(roles)
        .where(and(eq(roles.id, id), isAccountRole))
        .for(strength)
      return locked && (await this.findRole(id, tx))
    },

    /** @throws AppError role_key_taken */
    async insertRole(role: RoleChanges & { id: string; key: string; name: string }, tx: Tx): Promise<void> {
      if (isUuid(role.key)) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(
          roles,
          and(eq(roles.environmentId, environmentId), eq(roles.id, role.key)),
        )
        if (clashes > 0) throw new AppError('role_key_taken')
      }
      try {
        await tx.insert(roles).values({ ...role, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'roles_key_key')) throw new AppError('role_key_taken', { cause: error })
        throw error
      }
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

    /** Makes `permissions` the role's own, declaring unknown resources and actions on the way. */
    async replacePermissions(roleId: string, permissions: readonly string[], tx: Tx): Promise<void> {
      const actionIds = await declareActions(permissions, tx)
      await tx
        .delete(rolePermissions)
        .where(
          and(
            eq(rolePermissions.roleId, roleId),
            actionIds.length > 0 ? notInArray(rolePermissions.actionId, actionIds) : undefined,
          ),
        )
      if (actionIds.length === 0) return
      await tx
        .insert(rolePermissions)
        .values(actionIds.map((actionId) => ({ environmentId, roleId, actionId })))
        .onConflictDoNothing()
    },

    /** The live users who hold the role itself, or one that has its permissions, in any account. */
    async listHolderIds(roleId: string, tx: Tx, which: 'itself' | 'heirs' = 'itself'): Promise<string[]> {
      const held = await tx
        .selectDistinct({ userId: roleAssignments.userId })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .where(
          which === 'itself'
            ? eq(roleAssignments.roleId, roleId)
            : sql`${roleAssignments.roleId} in (select role_and_descendants(${roleId}))`,
        )
        .orderBy(asc(roleAssignments.userId))
      return held.map((row) => row.userId)
    },

    /** Every role that the user holds, with its permissions: what `coversPerson` judges. */
    async listHeldRoles(userId: string, ex: Executor = db): Promise<HeldRole[]> {
      return await ex
        .select({ accountId: roleAssignments.accountId, permissions: permissionsOfRole })
        .from(roleAssignments)
        .innerJoin(roles, eq(roles.id, roleAssignments.roleId))
        .where(eq(roleAssignments.userId, userId))
    },

    /** The built-in roles that people at home in the account hold, wherever they hold them. */
    async listBuiltinRolesOfResidents(accountId: string, tx: Tx): Promise<HeldRole[]> {
      return await tx
        .selectDistinct({ accountId: roleAssignments.accountId, permissions: permissionsOfRole })
        .from(roleAssignments)
        .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, true)))
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .where(eq(users.accountId, accountId))
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

    /** @throws AppError role_already_assigned */
    async insertAssignment(
      assignment: { userId: string; roleId: string; accountId: string | null; isPrimary: boolean },
      tx: Tx,
    ): Promise<string> {
      const id = newId()
      try {
        await tx.insert(roleAssignments).values({ ...assignment, id, environmentId })
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

    /** How many people could sign in right now and hold SUPER_ADMIN everywhere. */
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
            eq(users.isActive, true),
            isNull(users.deletedAt),
            sql`${users.emailNormalized} is not null`,
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
    const declared = await tx
      .select({ id: actions.id, name: sql<string>`${resources.key} || ':' || ${actions.key}` })
      .from(actions)
      .innerJoin(resources, eq(resources.id, actions.resourceId))
      .where(and(eq(resources.environmentId, environmentId), inArray(resources.key, resourceKeys)))
    const wanted = new Set(permissions)
    return declared.filter(({ name }) => wanted.has(name)).map(({ id }) => id)
  }
}
