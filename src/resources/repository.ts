import { and, eq, type SQL, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { conditionSets, resources } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { assertBelow } from './limits.ts'

export type ResourceRow = {
  id: string
  key: string
  name: string
  description: string | null
  urn: string | null
  createdAt: Date
  updatedAt: Date
}

export type ResourceChanges = Partial<Pick<ResourceRow, 'name' | 'description' | 'urn'>>

const resourceColumns = {
  id: resources.id,
  key: resources.key,
  name: resources.name,
  description: resources.description,
  urn: resources.urn,
  createdAt: resources.createdAt,
  updatedAt: resources.updatedAt,
}

const sortKeys: Record<string, SortKey<ResourceRow>> = {
  created_at: { by: resources.id, cast: 'uuid', value: (row) => row.id },
  key: { by: resources.key, cast: 'text', value: (row) => row.key },
}

export type ResourcesRepository = ReturnType<typeof createResourcesRepository>

/** The resources of the application. Built-in ones are not among them. */
export function createResourcesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isOurs = and(eq(resources.environmentId, environmentId), eq(resources.isBuiltin, false))

  return {
    /** A page of resources. @throws AppError validation_failed for a foreign cursor */
    async listResources(filters: { key?: string }, request: PageRequest): Promise<Page<ResourceRow>> {
      const clauses = pageClauses(request, sortKeys, resources.id)
      const matching = allOf(isOurs, filters.key === undefined ? undefined : eq(resources.key, filters.key))
      const page = clauses.toPage(
        await db
          .select(resourceColumns)
          .from(resources)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(resources, matching) } : page
    },

    async findResource(id: string, ex: Executor = db): Promise<ResourceRow | undefined> {
      return await findWhere(eq(resources.id, id), ex)
    },

    async findResourceByKey(key: string, ex: Executor = db): Promise<ResourceRow | undefined> {
      return await findWhere(eq(resources.key, key), ex)
    },

    /** @throws AppError resource_key_taken, limit_reached */
    async insertResource(
      resource: ResourceChanges & { id: string; key: string; name: string },
      tx: Tx,
    ): Promise<void> {
      assertBelow('resources', await tx.$count(resources, isOurs))
      if (isUuid(resource.key)) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(resources, and(isOurs, eq(resources.id, resource.key)))
        if (clashes > 0) throw new AppError('resource_key_taken')
      }
      try {
        await tx.insert(resources).values({ ...resource, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'resources_key_key')) {
          throw new AppError('resource_key_taken', { cause: error })
        }
        throw error
      }
    },

    async updateResource(id: string, changes: ResourceChanges, tx: Tx): Promise<void> {
      await tx
        .update(resources)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(resources.id, id))
    },

    /** Deletes it with everything that is defined on it, its instances and what is held on them. */
    async deleteResource(id: string, tx: Tx): Promise<void> {
      await tx.delete(resources).where(eq(resources.id, id))
    },

    /** True when sets of other resources descend from sets of this one, which its deletion would leave without. */
    async hasForeignDescendants(id: string, tx: Tx): Promise<boolean> {
      const [child] = await tx
        .select({ id: conditionSets.id })
        .from(conditionSets)
        .where(
          sql`${conditionSets.resourceId} is distinct from ${id}::uuid and ${conditionSets.parentId} in
            (select parent.id from condition_sets parent where parent.resource_id = ${id})`,
        )
        .limit(1)
      return child !== undefined
    },
  }

  async function findWhere(condition: SQL | undefined, ex: Executor): Promise<ResourceRow | undefined> {
    const [row] = await ex.select(resourceColumns).from(resources).where(and(isOurs, condition))
    return row
  }
}
