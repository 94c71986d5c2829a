import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, type FieldError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { instructionsOf, MOST_INSTRUCTIONS } from '../policy/url-mapping.ts'
import type { Caller } from '../principal.ts'
import { assertApplicationKey } from '../resources/keys.ts'
import { assertBelow } from '../resources/limits.ts'
import type {
  ProxiesRepository,
  ProxyConfigChanges,
  ProxyConfigFields,
  ProxyConfigRow,
  ProxyMappingRule,
} from './repository.ts'

type Dependencies = {
  database: Database
  proxies: ProxiesRepository
  audit: AuditRepository
  lockDefinitions: (tx: Tx) => Promise<void>
}

/** Proxies before services, and which action on which resource a request to one of their URLs is. */
export function createProxiesService({ database, proxies, audit, lockDefinitions }: Dependencies) {
  const { db } = database

  return {
    listProxyConfigs: proxies.listProxyConfigs,

    /** By key, then by id. @throws AppError proxy_config_not_found */
    async getProxyConfig(ref: string): Promise<ProxyConfigRow> {
      return (await proxies.findProxyConfig(ref)) ?? fail('proxy_config_not_found')
    },

    /** @throws AppError proxy_config_key_taken, validation_failed for a faulty expression, limit_reached */
    async createProxyConfig(caller: Caller, config: ProxyConfigFields): Promise<ProxyConfigRow> {
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        return await create(caller, config, '/body', tx)
      })
    },

    /** @throws AppError proxy_config_not_found, validation_failed for a faulty expression, limit_reached */
    async updateProxyConfig(
      caller: Caller,
      ref: string,
      changes: ProxyConfigChanges,
    ): Promise<ProxyConfigRow> {
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        const found = (await proxies.findProxyConfig(ref, tx)) ?? fail('proxy_config_not_found')
        return await update(caller, found, changes, '/body', tx)
      })
    },

    /**
     * Creates or replaces all of them, by key, or none. A pointer to a fault begins with the key of its proxy.
     * @throws AppError validation_failed for a faulty expression, limit_reached, proxy_config_key_taken
     */
    async putProxyConfigs(caller: Caller, configs: readonly ProxyConfigFields[]): Promise<void> {
      await transact(db, async (tx) => {
        await lockDefinitions(tx)
        for (const { key, ...fields } of configs) {
          const found = await proxies.findProxyConfig(key, tx)
          if (found?.key === key) await update(caller, found, fields, `/body/${key}`, tx)
          else await create(caller, { key, ...fields }, `/body/${key}`, tx)
        }
      })
    },

    /** @throws AppError proxy_config_not_found */
    async deleteProxyConfig(caller: Caller, ref: string): Promise<void> {
      await transact(db, async (tx) => {
        await lockDefinitions(tx)
        const { id, key } = (await proxies.findProxyConfig(ref, tx)) ?? fail('proxy_config_not_found')
        await proxies.deleteProxyConfig(id, tx)
        const target = { type: 'proxy_config', id } as const
        await audit.append({ action: 'proxy_config.deleted', caller, target, details: { key } }, tx)
      })
    },
  }

  async function create(
    caller: Caller,
    config: ProxyConfigFields,
    pointer: string,
    tx: Tx,
  ): Promise<ProxyConfigRow> {
    assertApplicationKey(config.key, `${pointer}/key`)
    assertBelow('proxyConfigs', await proxies.countProxyConfigs(tx))
    const id = newId()
    await assertRules(id, config.mappingRules, pointer, tx)
    await proxies.insertProxyConfig({ ...config, id }, tx)
    return await written('proxy_config.created', caller, id, { key: config.key }, tx)
  }

  async function update(
    caller: Caller,
    { id, key }: ProxyConfigRow,
    changes: ProxyConfigChanges,
    pointer: string,
    tx: Tx,
  ): Promise<ProxyConfigRow> {
    if (changes.mappingRules) await assertRules(id, changes.mappingRules, pointer, tx)
    await proxies.updateProxyConfig(id, changes, tx)
    const details = { key, fields: Object.keys(changes) }
    return await written('proxy_config.updated', caller, id, details, tx)
  }

  async function written(
    action: 'proxy_config.created' | 'proxy_config.updated',
    caller: Caller,
    id: string,
    details: Record<string, unknown>,
    tx: Tx,
  ): Promise<ProxyConfigRow> {
    await audit.append({ action, caller, target: { type: 'proxy_config', id }, details }, tx)
    return (await proxies.findProxyConfig(id, tx)) ?? fail('proxy_config_not_found')
  }

  /** Expressions are matched one after the other for each URL, so what bounds that work is the sum of all. */
  async function assertRules(
    id: string,
    rules: readonly ProxyMappingRule[],
    owner: string,
    tx: Tx,
  ): Promise<void> {
    const others = await proxies.listOtherRules(id, tx)
    assertBelow('mappingRules', others.length, rules.length)
    const faults: FieldError[] = []
    let total = others.reduce((sum, rule) => sum + costOf(rule), 0)
    for (const [place, rule] of rules.entries()) {
      if (rule.urlType !== 'regex') continue
      const size = instructionsOf(rule.url)
      const pointer = `${owner}/mapping_rules/${place}/url`
      if (size === undefined)
        faults.push({ pointer, detail: 'must be a regular expression in the syntax of RE2' })
      else if (size > MOST_INSTRUCTIONS)
        faults.push({ pointer, detail: 'is too large: repeat less, or a shorter text' })
      else {
        total += size
        assertBelow('expressions', 0, total)
      }
      if (faults.length >= MOST_FAULTS) break
    }
    if (faults.length > 0) throw new AppError('validation_failed', { errors: faults })
  }
}

/** To find out that an expression is faulty takes time as well. */
const MOST_FAULTS = 10

const costOf = (rule: ProxyMappingRule): number =>
  rule.urlType === 'regex' ? (instructionsOf(rule.url) ?? 0) : 0
