import { and, asc, eq, inArray, isNull, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database, Executor, Tx } from '../db/client.ts'
import {
  accountMembers,
  accounts,
  environments,
  projects,
  resourceInstances,
  resources,
  roleAssignments,
  roles,
  users,
} from '../db/schema.ts'
import { isUuid } from '../ids.ts'
import { dashed } from './names.ts'

/** Where an environment is. */
export type Place = { projectId: string; projectKey: string; environmentId: string; environmentKey: string }

type Json = Record<string, unknown>

/** A role as Permit shows it held: in an account, or on an instance. */
export type GrantRow = {
  id: string
  createdAt: Date
  /** When it ends by itself. */
  expiresAt: Date | null
  user: Named & {
    email: string | null
    firstName: string | null
    lastName: string | null
    attributes: Json | null
    isActive: boolean
  }
  role: Named & { name: string; permissions: string[] }
  tenant: Named & { name: string; attributes: Json | null; isActive: boolean }
  instance: (Named & { resource: string; attributes: Json | null }) | null
}
type Named = { id: string; key: string }

/**
 * Keys or ids, with or without dashes. Several of one field: any of them. `instance`: `type:key` or id; `resource`: of such
 * an instance.
 */
export type GrantFilters = {
  users?: readonly string[] | undefined
  roles?: readonly string[] | undefined
  tenants?: readonly string[] | undefined
  resource?: string | undefined
  instance?: string | undefined
}

/** A page as Permit counts them, from 1 on. */
export type NumberedPage = { page: number; perPage: number }

/** What one user belongs to and holds. */
export type Holdings = {
  members: { tenant: string; status: 'active' | 'pending' }[]
  grants: { role: string; tenant: string; resource: string | null; instance: string | null }[]
}

const types = alias(resources, 'types')

const permissionsOfRole = sql<string[]>`coalesce((
  select array_agg(resources.key || ':' || actions.key order by (resources.key || ':' || actions.key) collate "C")
  from role_permissions
  join actions on actions.id = role_permissions.action_id
  join resources on resources.id = actions.resource_id
  where role_permissions.role_id = ${roles.id}), '{}')`

const isNamed = (
  table: typeof users | typeof roles | typeof accounts | typeof types,
  names: readonly string[],
): SQL | undefined => or(inArray(table.key, [...names]), inArray(table.id, names.map(dashed).filter(isUuid)))

export type PermitRepository = ReturnType<typeof createPermitRepository>

/** What Permit's own shapes hold of several tables. Built-in roles are not there. */
export function createPermitRepository({ db, prepare }: Database, environmentId: string) {
  const isInForce = sql`coalesce(${roleAssignments.expiresAt} > now(), true)`

  /** Roles that are held everywhere have no tenant to be shown in. */
  const grantsFrom = (ex: Executor) => ({
    select: () =>
      ex
        .select({
          id: roleAssignments.id,
          createdAt: roleAssignments.createdAt,
          expiresAt: roleAssignments.expiresAt,
          user: {
            id: users.id,
            key: users.key,
            email: users.email,
            firstName: users.firstName,
            lastName: users.lastName,
            attributes: users.attributes,
            isActive: users.isActive,
          },
          role: { id: roles.id, key: roles.key, name: roles.name, permissions: permissionsOfRole },
          tenant: {
            id: accounts.id,
            key: accounts.key,
            name: accounts.name,
            attributes: accounts.attributes,
            isActive: accounts.isActive,
          },
          instanceId: resourceInstances.id,
          instanceKey: resourceInstances.key,
          instanceAttributes: resourceInstances.attributes,
          resource: types.key,
        })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, false)))
        .innerJoin(accounts, and(eq(accounts.id, roleAssignments.accountId), isNull(accounts.deletedAt)))
        .leftJoin(resourceInstances, eq(resourceInstances.id, roleAssignments.resourceInstanceId))
        .leftJoin(types, eq(types.id, resourceInstances.resourceId)),
    count: () =>
      ex
        .select({ total: sql<number>`count(*)::int` })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, false)))
        .innerJoin(accounts, and(eq(accounts.id, roleAssignments.accountId), isNull(accounts.deletedAt)))
        .leftJoin(resourceInstances, eq(resourceInstances.id, roleAssignments.resourceInstanceId))
        .leftJoin(types, eq(types.id, resourceInstances.resourceId)),
  })

  const membershipsOf = (ex: Executor, name = '') =>
    ex
      .select({ tenant: accounts.key, status: accountMembers.status })
      .from(accountMembers)
      .innerJoin(accounts, and(eq(accounts.id, accountMembers.accountId), isNull(accounts.deletedAt)))
      .where(eq(accountMembers.userId, sql.placeholder('userId')))
      .orderBy(asc(accounts.key))
      .prepare(name)

  const heldBy = (ex: Executor, name = '') =>
    ex
      .select({
        role: roles.key,
        tenant: accounts.key,
        resource: types.key,
        instance: resourceInstances.key,
      })
      .from(roleAssignments)
      .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, false)))
      .innerJoin(accounts, and(eq(accounts.id, roleAssignments.accountId), isNull(accounts.deletedAt)))
      .leftJoin(resourceInstances, eq(resourceInstances.id, roleAssignments.resourceInstanceId))
      .leftJoin(types, eq(types.id, resourceInstances.resourceId))
      .where(and(eq(roleAssignments.userId, sql.placeholder('userId')), isInForce))
      .orderBy(asc(roleAssignments.id))
      .prepare(name)

  // Every answer about one person asks for these two, so they are planned once.
  const membershipsOnPool = membershipsOf(db, prepare ? 'permit_memberships' : '')
  const holdingsOnPool = heldBy(db, prepare ? 'permit_holdings' : '')

  const matching = (filters: GrantFilters): SQL | undefined =>
    and(
      eq(roleAssignments.environmentId, environmentId),
      isInForce,
      filters.users && isNamed(users, filters.users),
      filters.roles && isNamed(roles, filters.roles),
      filters.tenants && isNamed(accounts, filters.tenants),
      filters.resource === undefined ? undefined : isNamed(types, [filters.resource]),
      filters.instance === undefined ? undefined : isInstanceNamed(dashed(filters.instance)),
    )

  return {
    /** Where this environment is; `undefined` when it is gone. */
    async findPlace(): Promise<Place | undefined> {
      const [row] = await db
        .select({
          projectId: projects.id,
          projectKey: projects.key,
          environmentId: environments.id,
          environmentKey: environments.key,
        })
        .from(environments)
        .innerJoin(projects, eq(projects.key, environments.project))
        .where(eq(environments.id, environmentId))
      return row
    },

    /** One page of the roles that are held, the oldest first. */
    async listGrants(filters: GrantFilters, { page, perPage }: NumberedPage): Promise<GrantRow[]> {
      const rows = await grantsFrom(db)
        .select()
        .where(matching(filters))
        .orderBy(asc(roleAssignments.id))
        .limit(perPage)
        .offset((page - 1) * perPage)
      return rows.map(grantOf)
    },

    async countGrants(filters: GrantFilters): Promise<number> {
      const [row] = await grantsFrom(db).count().where(matching(filters))
      return row?.total ?? 0
    },

    async findGrant(id: string, tx: Tx): Promise<GrantRow | undefined> {
      const [row] = await grantsFrom(tx)
        .select()
        .where(and(eq(roleAssignments.environmentId, environmentId), eq(roleAssignments.id, id)))
      return row && grantOf(row)
    },

    /** The assignment of this role to this user in the account, or on an instance of it. */
    async findAssignmentId(
      held: { userId: string; roleId: string; accountId: string; instanceId: string | null },
      tx: Tx,
    ): Promise<string | undefined> {
      const [row] = await tx
        .select({ id: roleAssignments.id })
        .from(roleAssignments)
        .where(
          and(
            eq(roleAssignments.environmentId, environmentId),
            eq(roleAssignments.userId, held.userId),
            eq(roleAssignments.roleId, held.roleId),
            eq(roleAssignments.accountId, held.accountId),
            held.instanceId === null
              ? isNull(roleAssignments.resourceInstanceId)
              : eq(roleAssignments.resourceInstanceId, held.instanceId),
            isInForce,
          ),
        )
      return row?.id
    },

    /** What a user belongs to and holds. */
    async findHoldings(userId: string, ex: Executor = db): Promise<Holdings> {
      const members = ex === db ? membershipsOnPool : membershipsOf(ex)
      const grants = ex === db ? holdingsOnPool : heldBy(ex)
      return { members: await members.execute({ userId }), grants: await grants.execute({ userId }) }
    },
  }

  type Selected = Awaited<ReturnType<ReturnType<typeof grantsFrom>['select']>>[number]

  function grantOf({ instanceId, instanceKey, instanceAttributes, resource, ...grant }: Selected): GrantRow {
    const instance =
      instanceId === null || instanceKey === null || resource === null
        ? null
        : { id: instanceId, key: instanceKey, resource, attributes: instanceAttributes }
    return { ...grant, instance }
  }

  function isInstanceNamed(name: string): SQL | undefined {
    if (isUuid(name)) return eq(resourceInstances.id, name)
    const colon = name.indexOf(':')
    return and(eq(types.key, name.slice(0, colon)), eq(resourceInstances.key, name.slice(colon + 1)))
  }
}
