import { asc, eq, sql } from 'drizzle-orm'
import { DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { resources, roleAssignments, roles } from '../db/schema.ts'
import { isUuid } from '../ids.ts'
import { effectivePermissionsOfRole } from './repository.ts'

/** A role as a bulk write judges it. `resource`: the key of the resource on whose instances it is held, if any. */
export type GrantableRole = {
  id: string
  key: string
  resource: string | null
  isBuiltin: boolean
  effectivePermissions: string[]
}

/** A role held in an account, or on an instance of it. */
export type NewAssignment = {
  id: string
  userId: string
  roleId: string
  accountId: string
  instanceId: string | null
}

/** One that was held until now. */
export type EndedAssignment = Omit<NewAssignment, 'id'> & { expiresAt: Date | null }

export type BulkRolesRepository = ReturnType<typeof createBulkRolesRepository>

/** Many assignments at a time: each function is one statement, whatever the number. */
export function createBulkRolesRepository(environmentId = DEFAULT_ENVIRONMENT) {
  return {
    /** The application's roles with these keys or ids, of whatever resource; their permissions wait for the transaction. */
    async holdRoles(names: readonly string[], tx: Tx): Promise<GrantableRole[]> {
      return await tx
        .select({
          id: roles.id,
          key: roles.key,
          resource: resources.key,
          isBuiltin: roles.isBuiltin,
          effectivePermissions: effectivePermissionsOfRole,
        })
        .from(roles)
        .leftJoin(resources, eq(resources.id, roles.resourceId))
        .where(
          sql`${roles.environmentId} = ${environmentId} and not ${roles.isBuiltin}
            and (${roles.key} = any(${sql.param([...names])}::text[])
              or ${roles.id} = any(${sql.param(names.filter(isUuid))}::uuid[]))`,
        )
        .orderBy(asc(roles.id))
        .for('share', { of: roles })
    },

    /** Makes the users members of the accounts, unless they are. */
    async ensureMembers(members: readonly { accountId: string; userId: string }[], tx: Tx): Promise<void> {
      await tx.execute(sql`
        insert into account_members (environment_id, account_id, user_id)
        select distinct ${environmentId}::uuid, "accountId", "userId"
        from json_to_recordset(${JSON.stringify(members)}::json) as x ("accountId" uuid, "userId" uuid)
        order by "accountId", "userId"
        on conflict do nothing`)
    },

    /** Ends those that are held and have not expired. @returns them */
    async deleteAssignments(
      assignments: readonly Omit<NewAssignment, 'id'>[],
      tx: Tx,
    ): Promise<EndedAssignment[]> {
      return await tx
        .delete(roleAssignments)
        .where(
          sql`${roleAssignments.id} in (
            select a.id from ${recordsOf(assignments)}
            join role_assignments a on a.user_id = x."userId" and a.role_id = x."roleId"
              and a.account_id = x."accountId" and a.resource_instance_id is not distinct from x."instanceId"
            where coalesce(a.expires_at > now(), true))`,
        )
        .returning({
          userId: roleAssignments.userId,
          roleId: roleAssignments.roleId,
          accountId: sql<string>`${roleAssignments.accountId}`,
          instanceId: roleAssignments.resourceInstanceId,
          expiresAt: roleAssignments.expiresAt,
        })
    },

    /** Writes those that are not held yet, also in place of the same ones that have expired. @returns their ids */
    async insertAssignments(assignments: readonly NewAssignment[], tx: Tx): Promise<Set<string>> {
      const records = recordsOf(assignments)
      await tx.execute(sql`
        delete from role_assignments a using ${records}
        where a.user_id = x."userId" and a.role_id = x."roleId" and a.account_id = x."accountId"
          and a.resource_instance_id is not distinct from x."instanceId" and a.expires_at <= now()`)
      const { rows } = await tx.execute<{ id: string }>(sql`
        insert into role_assignments (id, environment_id, user_id, role_id, account_id, resource_instance_id)
        select id, ${environmentId}::uuid, "userId", "roleId", "accountId", "instanceId" from ${records}
        order by "userId", "roleId"
        on conflict do nothing returning id`)
      return new Set(rows.map(({ id }) => id))
    },
  }
}

/** The assignments as a table `x`. */
const recordsOf = (assignments: readonly Partial<NewAssignment>[]) =>
  sql`json_to_recordset(${JSON.stringify(assignments)}::json) as x (id uuid, "userId" uuid, "roleId" uuid,
    "accountId" uuid, "instanceId" uuid)`
