import { and, asc, eq, type InferSelectModel, ne, or, type SQL, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { proxyConfigs } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'

export type ProxyConfigRow = InferSelectModel<typeof proxyConfigs>
export type ProxyMappingRule = ProxyConfigRow['mappingRules'][number]
export type ProxyConfigFields = Pick<ProxyConfigRow, 'key' | 'name' | 'mappingRules'>
export type ProxyConfigChanges = Partial<Omit<ProxyConfigFields, 'key'>>

const sortKeys: Record<string, SortKey<ProxyConfigRow>> = {
  created_at: { by: proxyConfigs.id, cast: 'uuid', value: (row) => row.id },
}

export type ProxiesRepository = ReturnType<typeof createProxiesRepository>

/** The statements of proxy configurations, of one environment. */
export function createProxiesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isOwn = eq(proxyConfigs.environmentId, environmentId)
  const isNamed = (ref: string): SQL | undefined =>
    and(isOwn, or(eq(proxyConfigs.key, ref), isUuid(ref) ? eq(proxyConfigs.id, ref) : undefined))

  return {
    async listProxyConfigs(request: PageRequest): Promise<Page<ProxyConfigRow>> {
      const clauses = pageClauses(request, sortKeys, proxyConfigs.id)
      const page = clauses.toPage(
        await db
          .select()
          .from(proxyConfigs)
          .where(and(isOwn, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(proxyConfigs, isOwn) } : page
    },

    /** By key, then by id. */
    async findProxyConfig(ref: string, ex: Executor = db): Promise<ProxyConfigRow | undefined> {
      const [row] = await ex
        .select()
        .from(proxyConfigs)
        .where(isNamed(ref))
        .orderBy(sql`${proxyConfigs.key} = ${ref} desc`)
        .limit(1)
      return row
    },

    async countProxyConfigs(tx: Tx): Promise<number> {
      return await tx.$count(proxyConfigs, isOwn)
    },

    /** The rules of all proxies but one. */
    async listOtherRules(id: string, tx: Tx): Promise<ProxyMappingRule[]> {
      const rows = await tx
        .select({ mappingRules: proxyConfigs.mappingRules })
        .from(proxyConfigs)
        .where(and(isOwn, ne(proxyConfigs.id, id)))
        .orderBy(asc(proxyConfigs.id))
      return rows.flatMap(({ mappingRules }) => mappingRules)
    },

    /** @throws AppError proxy_config_key_taken */
    async insertProxyConfig(config: ProxyConfigFields & { id: string }, tx: Tx): Promise<void> {
      // A key that equals another row's id would make both names ambiguous.
      if (isUuid(config.key) && (await this.findProxyConfig(config.key, tx)))
        throw new AppError('proxy_config_key_taken')
      try {
        await tx.insert(proxyConfigs).values({ ...config, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'proxy_configs_key_key'))
          throw new AppError('proxy_config_key_taken', { cause: error })
        throw error
      }
    },

    async updateProxyConfig(id: string, changes: ProxyConfigChanges, tx: Tx): Promise<void> {
      await tx
        .update(proxyConfigs)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(and(isOwn, eq(proxyConfigs.id, id)))
    },

    async deleteProxyConfig(id: string, tx: Tx): Promise<void> {
      await tx.delete(proxyConfigs).where(and(isOwn, eq(proxyConfigs.id, id)))
    },
  }
}
