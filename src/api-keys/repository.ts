import { and, eq, inArray, isNotNull, isNull, or, type SQL, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { apiKeys, environments, projects } from '../db/schema.ts'
import type { ApiKeyAccess, ApiKeyLevel } from '../permissions.ts'

export type ApiKeyRow = {
  id: string
  name: string
  level: ApiKeyLevel
  access: ApiKeyAccess
  project: string | null
  environmentId: string | null
  /** `project/key` of the environment. */
  environment: string | null
  /** The id and key of the project that the key is within, for all but those that open everything. */
  projectId: string | null
  withinProject: string | null
  isEnvironmentsOwn: boolean
  keyHint: string
  createdAt: Date
  lastUsedAt: Date | null
  expiresAt: Date | null
  revokedAt: Date | null
}

/** What authentication needs to know of a key. */
export type KeyOnUse = Pick<
  ApiKeyRow,
  'id' | 'level' | 'access' | 'project' | 'environmentId' | 'lastUsedAt' | 'expiresAt'
>

export type NewApiKey = Pick<
  ApiKeyRow,
  'id' | 'name' | 'level' | 'access' | 'project' | 'environmentId' | 'keyHint' | 'expiresAt'
> & {
  keyHash: string
  createdByType: string
  createdById: string | null
  isEnvironmentsOwn?: boolean
  keySealed?: string
}

export type ApiKeyFilters = {
  environmentId?: string
  level?: ApiKeyLevel
  /** Keys of this project and of its environments; not those that open everything. */
  withinProject?: string
  isRevoked?: boolean
}

/** Processes of the version before have another way to say `write`. */
const access = sql<ApiKeyAccess>`case when ${apiKeys.isCalledWrite} then 'write' else ${apiKeys.access} end`

const columns = {
  id: apiKeys.id,
  name: apiKeys.name,
  level: apiKeys.level,
  access,
  project: apiKeys.project,
  environmentId: apiKeys.environmentId,
  environment: sql<string | null>`${environments.project} || '/' || ${environments.key}`,
  projectId: projects.id,
  withinProject: projects.key,
  isEnvironmentsOwn: apiKeys.isEnvironmentsOwn,
  keyHint: apiKeys.keyHint,
  createdAt: apiKeys.createdAt,
  lastUsedAt: apiKeys.lastUsedAt,
  expiresAt: apiKeys.expiresAt,
  revokedAt: apiKeys.revokedAt,
}

const sortKeys: Record<string, SortKey<ApiKeyRow>> = {
  created_at: { by: apiKeys.id, cast: 'uuid', value: (row) => row.id },
}

export type ApiKeysRepository = ReturnType<typeof createApiKeysRepository>

/** The statements of API keys, of all environments. */
export function createApiKeysRepository({ db, prepare }: Database) {
  const select = (ex: Executor) =>
    ex
      .select(columns)
      .from(apiKeys)
      .leftJoin(environments, eq(environments.id, apiKeys.environmentId))
      .leftJoin(projects, eq(projects.key, sql`coalesce(${apiKeys.project}, ${environments.project})`))

  const matching = (filters: ApiKeyFilters): SQL | undefined =>
    and(
      filters.environmentId === undefined ? undefined : eq(apiKeys.environmentId, filters.environmentId),
      filters.level === undefined ? undefined : eq(apiKeys.level, filters.level),
      filters.withinProject === undefined
        ? undefined
        : or(
            eq(apiKeys.project, filters.withinProject),
            inArray(
              apiKeys.environmentId,
              db
                .select({ id: environments.id })
                .from(environments)
                .where(eq(environments.project, filters.withinProject)),
            ),
          ),
      filters.isRevoked === undefined
        ? undefined
        : filters.isRevoked
          ? isNotNull(apiKeys.revokedAt)
          : isNull(apiKeys.revokedAt),
    )

  const onUse = db
    .select({
      id: apiKeys.id,
      level: apiKeys.level,
      access,
      project: apiKeys.project,
      environmentId: apiKeys.environmentId,
      lastUsedAt: apiKeys.lastUsedAt,
      expiresAt: apiKeys.expiresAt,
    })
    .from(apiKeys)
    .where(and(eq(apiKeys.keyHash, sql.placeholder('keyHash')), isNull(apiKeys.revokedAt)))
    .prepare(prepare ? 'api_key_by_hash' : '')

  return {
    async listKeys(filters: ApiKeyFilters, request: PageRequest): Promise<Page<ApiKeyRow>> {
      const clauses = pageClauses(request, sortKeys, apiKeys.id)
      const where = matching(filters)
      const page = clauses.toPage(
        await select(db)
          .where(allOf(where, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(apiKeys, where) } : page
    },

    async findKey(id: string, ex: Executor = db): Promise<ApiKeyRow | undefined> {
      const [row] = await select(ex).where(eq(apiKeys.id, id))
      return row
    },

    /** The key with this hash, unless it was revoked; whether it has expired is for the clock to say. */
    async findKeyOnUse(keyHash: string): Promise<KeyOnUse | undefined> {
      const [row] = await onUse.execute({ keyHash })
      return row
    },

    async lockKey(id: string, tx: Tx): Promise<ApiKeyRow | undefined> {
      const [locked] = await tx
        .select({ id: apiKeys.id })
        .from(apiKeys)
        .where(eq(apiKeys.id, id))
        .for('no key update')
      return locked && (await this.findKey(id, tx))
    },

    async insertKey(key: NewApiKey, tx: Tx): Promise<void> {
      await tx.insert(apiKeys).values(key)
    },

    /** Writes an environment's own key, unless it has one. */
    async insertEnvironmentsOwn(key: NewApiKey & { keySealed: string }, tx: Tx): Promise<boolean> {
      const inserted = await tx
        .insert(apiKeys)
        .values({ ...key, isEnvironmentsOwn: true })
        .onConflictDoNothing({
          target: apiKeys.environmentId,
          where: sql`is_environments_own and revoked_at is null`,
        })
        .returning({ id: apiKeys.id })
      return inserted.length > 0
    },

    /** The environment's own key with its sealed secret, if it has one that is in force. */
    async findEnvironmentsOwn(
      environmentId: string,
      tx: Tx,
    ): Promise<(ApiKeyRow & { keySealed: string }) | undefined> {
      const [row] = await tx
        .select({ id: apiKeys.id, keySealed: apiKeys.keySealed })
        .from(apiKeys)
        .where(
          and(
            eq(apiKeys.environmentId, environmentId),
            eq(apiKeys.isEnvironmentsOwn, true),
            isNull(apiKeys.revokedAt),
          ),
        )
      const key = row && (await this.findKey(row.id, tx))
      return key && row.keySealed !== null ? { ...key, keySealed: row.keySealed } : undefined
    },

    async revokeKey(id: string, tx: Tx): Promise<void> {
      await tx.update(apiKeys).set({ revokedAt: sql`now()` }).where(eq(apiKeys.id, id))
    },

    async replaceSecret(
      id: string,
      secret: { keyHash: string; keyHint: string; keySealed: string | null },
      tx: Tx,
    ): Promise<void> {
      await tx.update(apiKeys).set(secret).where(eq(apiKeys.id, id))
    },

    /** The keys that are kept sealed, those of environments. */
    async listSealed(ex: Executor): Promise<{ id: string; keySealed: string }[]> {
      const rows = await ex
        .select({ id: apiKeys.id, keySealed: apiKeys.keySealed })
        .from(apiKeys)
        .where(isNotNull(apiKeys.keySealed))
      return rows.flatMap(({ id, keySealed }) => (keySealed === null ? [] : [{ id, keySealed }]))
    },

    /** Nothing for a key that got another secret since it was read. */
    async replaceSealed(id: string, before: string, keySealed: string, ex: Executor): Promise<void> {
      await ex
        .update(apiKeys)
        .set({ keySealed })
        .where(and(eq(apiKeys.id, id), eq(apiKeys.keySealed, before)))
    },

    async deleteKeysOfProject(project: string, tx: Tx): Promise<void> {
      await tx.delete(apiKeys).where(eq(apiKeys.project, project))
    },

    /** Notes the use, unless another process noted one within the minute. */
    async recordUse(id: string, at: Date): Promise<void> {
      await db
        .update(apiKeys)
        .set({ lastUsedAt: at })
        .where(
          and(
            eq(apiKeys.id, id),
            sql`coalesce(${apiKeys.lastUsedAt} <= ${at.toISOString()}::timestamptz - interval '1 minute', true)`,
          ),
        )
    },
  }
}
