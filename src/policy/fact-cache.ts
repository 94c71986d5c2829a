import { LRUCache } from 'lru-cache'
import type { InstanceFacts, TenantFacts, UserFacts } from './engine/model.ts'

/** What is known under some names; `null` facts: that there is no such row. */
type Entry<F> = { readonly facts: F | null; readonly names: readonly string[]; readonly table: Names<F> }
type Names<F> = Map<string, Entry<F>>

/** Facts of one kind in one environment, each under all names that it goes by. */
export type FactTable<F> = ReturnType<typeof createTable<F>>

/** How often a fact was at hand, and how often not. */
export type CacheCounts = { hits: number; misses: number }

/** The facts of one environment. */
export type EnvironmentFacts = {
  users: FactTable<UserFacts>
  tenants: FactTable<TenantFacts>
  instances: FactTable<InstanceFacts>
}

/** So many bytes count as one person, account or instance; ordinary ones have fewer. */
const BYTES_OF_ONE = 1024

/**
 * The facts that this process keeps, of all environments together: at most so many people, accounts and instances,
 * those used last. A name without a row counts as one, what takes more than a kibibyte as one for each, and what is
 * larger than all of it is not kept.
 */
export function createFactCaches(limits: { users: number; instances: number }) {
  const users = kind<UserFacts>(limits.users)
  const tenants = kind<TenantFacts>(limits.users)
  const instances = kind<InstanceFacts>(limits.instances)
  const kinds = { users, tenants, instances }
  return {
    forEnvironment: (): EnvironmentFacts => ({
      users: createTable(users),
      tenants: createTable(tenants),
      instances: createTable(instances),
    }),
    counts: kinds as Record<keyof typeof kinds, { counts: CacheCounts; order: { size: number } }>,
  }
}

type Kind<F> = { order: LRUCache<Entry<F>, true>; counts: CacheCounts }

function kind<F>(max: number): Kind<F> {
  const order = new LRUCache<Entry<F>, true>({
    max,
    maxSize: max,
    dispose: (_, entry) => {
      for (const name of entry.names) if (entry.table.get(name) === entry) entry.table.delete(name)
    },
  })
  return { order, counts: { hits: 0, misses: 0 } }
}

function createTable<F>({ order, counts }: Kind<F>) {
  const table: Names<F> = new Map()
  const forget = (name: string): void => {
    const entry = table.get(name)
    if (entry) order.delete(entry)
  }
  return {
    /** `undefined`: not known whether there is such a row. */
    get(name: string): F | null | undefined {
      const entry = table.get(name)
      if (!entry) {
        counts.misses++
        return undefined
      }
      counts.hits++
      order.get(entry)
      return entry.facts
    },

    /** Keeps what is known under these names, in place of what was known under any of them. */
    put(names: readonly string[], facts: F | null): void {
      for (const name of names) forget(name)
      const size = Math.max(1, Math.ceil(sizeOf(facts) / BYTES_OF_ONE))
      if (size > order.maxSize) return
      const entry: Entry<F> = { facts, names, table }
      for (const name of names) table.set(name, entry)
      order.set(entry, true, { size })
    },

    forget,

    forgetWhere(matches: (facts: F) => boolean): void {
      for (const entry of new Set(table.values()))
        if (entry.facts !== null && matches(entry.facts)) order.delete(entry)
    },

    clear(): void {
      for (const entry of new Set(table.values())) order.delete(entry)
    },
  }
}

/** What a value takes besides its characters. */
const BYTES_OF_A_VALUE = 16

/** About how many bytes a value takes in memory, with all that is in it. */
function sizeOf(whole: unknown): number {
  const rest = [whole]
  let size = 0
  for (let value = rest.pop(); value !== undefined || rest.length > 0; value = rest.pop()) {
    size += BYTES_OF_A_VALUE
    if (typeof value === 'string') size += value.length
    if (typeof value !== 'object' || value === null) continue
    const entries = value instanceof Map || value instanceof Set ? value.entries() : Object.entries(value)
    for (const [name, part] of entries) {
      size += String(name).length
      rest.push(part)
    }
  }
  return size
}
