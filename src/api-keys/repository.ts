import { and, eq, isNull, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { apiKeys, environments } from '../db/schema.ts'
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
> & { keyHash: string; createdByType: string; createdById: string | null }

const columns = {
  id: apiKeys.id,
  name: apiKeys.name,
  level: apiKeys.level,
  access: apiKeys.access,
  project: apiKeys.project,
  environmentId: apiKeys.environmentId,
  environment: sql<string | null>`${environments.project} || '/' || ${environments.key}`,
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

export function createApiKeysRepository({ db, prepare }: Database) {
  const select = (ex: Executor) =>
    ex.select(columns).from(apiKeys).leftJoin(environments, eq(environments.id, apiKeys.environmentId))

  const onUse = db
    .select({
      id: apiKeys.id,
      level: apiKeys.level,
      access: apiKeys.access,
      project: apiKeys.project,
      environmentId: apiKeys.environmentId,
      lastUsedAt: apiKeys.lastUsedAt,
      expiresAt: apiKeys.expiresAt,
    })
    .from(apiKeys)
    .where(and(eq(apiKeys.keyHash, sql.placeholder('keyHash')), isNull(apiKeys.revokedAt)))
    .prepare(prepare ? 'api_key_by_hash' : '')

  return {
    async listKeys(filters: { environmentId?: string }, request: PageRequest): Promise<Page<ApiKeyRow>> {
      const clauses = pageClauses(request, sortKeys, apiKeys.id)
      const matching =
        filters.environmentId === undefined ? undefined : eq(apiKeys.environmentId, filters.environmentId)
      const page = clauses.toPage(
        await select(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(apiKeys, matching) } : page
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

    async revokeKey(id: string, tx: Tx): Promise<void> {
      await tx.update(apiKeys).set({ revokedAt: sql`now()` }).where(eq(apiKeys.id, id))
    },

    async replaceSecret(id: string, secret: { keyHash: string; keyHint: string }, tx: Tx): Promise<void> {
      await tx.update(apiKeys).set(secret).where(eq(apiKeys.id, id))
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
