import { and, eq, isNull, or, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../db/client.ts'
import { actions, resources, roles } from '../db/schema.ts'
import { isUuid } from '../ids.ts'

/** What a set that Permit makes by itself stands for: the holders of a role, or all of a resource. */
export type SetOwner = { id: string; key: string; createdAt: Date; updatedAt: Date }
/** `name`: the key, or `resource#role`. `resourceId`: of a role of a resource. */
export type RoleOwner = SetOwner & { name: string; resourceId: string | null }

const owners = alias(resources, 'owners')

export type SetsRepository = ReturnType<typeof createSetsRepository>

/** Roles and resources of the application, by the names that rules have for them. Built-in ones are not there. */
export function createSetsRepository({ db }: Database, environmentId: string) {
  return {
    /** A role held in accounts by key, one of a resource as `resource#role`, or either by id. */
    async findRole(name: string): Promise<RoleOwner | undefined> {
      const hash = name.indexOf('#')
      const isNamed =
        hash < 0
          ? and(isNull(roles.resourceId), eq(roles.key, name))
          : and(eq(owners.key, name.slice(0, hash)), eq(roles.key, name.slice(hash + 1)))
      const [row] = await db
        .select({
          id: roles.id,
          key: roles.key,
          owner: owners.key,
          resourceId: roles.resourceId,
          createdAt: roles.createdAt,
          updatedAt: roles.updatedAt,
        })
        .from(roles)
        .leftJoin(owners, eq(owners.id, roles.resourceId))
        .where(
          and(
            eq(roles.environmentId, environmentId),
            eq(roles.isBuiltin, false),
            or(isNamed, isUuid(name) ? eq(roles.id, name) : undefined),
          ),
        )
        .orderBy(sql`${roles.id}::text = ${name}`)
        .limit(1)
      if (!row) return undefined
      const { owner, ...role } = row
      return { ...role, name: owner === null ? role.key : `${owner}#${role.key}` }
    },

    /** `resource:action` of the action with this id. */
    async findPermission(actionId: string): Promise<string | undefined> {
      const [row] = await db
        .select({ permission: sql<string>`${resources.key} || ':' || ${actions.key}` })
        .from(actions)
        .innerJoin(resources, eq(resources.id, actions.resourceId))
        .where(
          and(
            eq(actions.id, actionId),
            eq(resources.environmentId, environmentId),
            eq(resources.isBuiltin, false),
          ),
        )
      return row?.permission
    },
  }
}
