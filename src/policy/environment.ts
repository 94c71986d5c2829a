import { isUnavailable } from '../db/errors.ts'
import { AppError } from '../errors.ts'
import { type CompiledPolicy, compilePolicy } from './engine/compile.ts'
import { edgesOf } from './engine/lists.ts'
import type { Facts, InstanceFacts, TenantFacts, UserFacts } from './engine/model.ts'
import type { EnvironmentFacts } from './fact-cache.ts'
import type { Edge, FactsRepository, LoadedFacts, Wanted } from './facts-repository.ts'
import type { PolicyRepository } from './policy-repository.ts'
import { createUrlMapping, type UrlMapping } from './url-mapping.ts'
import type { Change, CredentialKind, Progress } from './versions.ts'

/** What this process knows of one environment: how far it has followed its changes, its policy, and facts. */
export type Environment = ReturnType<typeof createEnvironment>

type Kind = 'users' | 'tenants' | 'instances'
type ByKind<T> = Record<Kind, T>
const KINDS = ['users', 'tenants', 'instances'] as const
const byKind = <T>(make: () => T): ByKind<T> => ({ users: make(), tenants: make(), instances: make() })

/** Facts that a question has loaded for itself, so that it is answered even when the cache is smaller than it. */
type Pins = {
  changes: number
  users: Map<string, UserFacts | null>
  tenants: Map<string, TenantFacts | null>
  instances: Map<string, InstanceFacts | null>
}

/** A statement under way, and what was changed since it began: at which version, by name. */
type Load = { from: number | undefined; changed: ByKind<Map<string, number>>; everything: number }

type Batch = { wanted: ByKind<Set<string>>; size: number; done: Promise<Pins> }

type Dependencies = {
  environmentId: string
  policies: PolicyRepository
  repository: FactsRepository
  cache: EnvironmentFacts
  /** Hears which credentials of a kind changed; without a kind, any may have. */
  onCredentials: (kind?: CredentialKind, refs?: readonly string[]) => void
  now: () => number
}

/** A question that needs more rounds of loading than this is given up. */
const MOST_ROUNDS = 50
const MOST_IN_BATCH = 2000
const MOST_STATEMENTS = 4
const MOST_NAMED_TENANTS = 50_000
/** No key is longer, so that a longer name is that of nothing; and what is cached under a name stays small. */
const LONGEST_NAME = 1024
/** False for what the database has, and can have, nothing under. */
export const isPossibleName = (ref: string): boolean => ref.length <= LONGEST_NAME && !ref.includes('\0')

/** Starts with nothing known and nothing loaded. */
export function createEnvironment(deps: Dependencies) {
  const { environmentId, policies, repository, cache, onCredentials, now } = deps
  let known: number | undefined
  let freshAt = Number.NEGATIVE_INFINITY
  let policy: CompiledPolicy | undefined
  let edges: readonly Edge[] = []
  let urls = createUrlMapping([])
  let policyLoad: Promise<CompiledPolicy> | undefined
  /** Counts the times that something was forgotten. */
  let changes = 0
  /** Accounts that cached people or instances may name; `undefined` when there are too many to tell. */
  let namedTenants: Set<string> | undefined = new Set()
  const loads = new Set<Load>()

  const underway = byKind(() => new Map<string, Batch>())
  let gathering: Batch | undefined
  let statements = 0
  const waiting: (() => void)[] = []

  const missing = byKind(() => new Set<string>())
  let pinned: Pins | undefined
  const facts: Facts = {
    user: (ref) => lookUp(cache.users.get(ref), 'users', ref) as UserFacts | null | undefined,
    tenant: (ref) => lookUp(cache.tenants.get(ref), 'tenants', ref) as TenantFacts | null | undefined,
    instance: (ref) => lookUp(cache.instances.get(ref), 'instances', ref) as InstanceFacts | null | undefined,
  }

  function lookUp<F>(cached: F | null | undefined, kind: Kind, ref: string): F | null | undefined {
    if (cached !== undefined) return cached
    const own = pinned?.[kind].get(ref)
    if (own !== undefined) return own as F | null
    if (!isPossibleName(ref)) return null
    missing[kind].add(ref)
    return undefined
  }

  const isMissing = (): boolean =>
    missing.users.size > 0 || missing.tenants.size > 0 || missing.instances.size > 0

  /** `evaluate` over what is at hand; `undefined` when something is missing, which is then in `missing`. */
  function attempt<T>(
    compiled: CompiledPolicy,
    evaluate: (policy: CompiledPolicy, facts: Facts) => T,
    pins: Pins | undefined,
  ): { result: T } | undefined {
    if (isMissing()) for (const kind of KINDS) missing[kind].clear()
    pinned = pins
    try {
      const result = evaluate(compiled, facts)
      return isMissing() ? undefined : { result }
    } finally {
      pinned = undefined
    }
  }

  async function compiledPolicy(): Promise<CompiledPolicy> {
    if (policy) return policy
    policyLoad ??= loadPolicy().finally(() => {
      policyLoad = undefined
    })
    return await policyLoad
  }

  async function loadPolicy(): Promise<CompiledPolicy> {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const compiled = await during(async (load) => {
        const startedAt = now()
        const { progress, document, mappingRules } = await policies.loadPolicy(environmentId, load.from)
        advance(load.from, progress, startedAt)
        if (progress.version === undefined) throw new AppError('not_found')
        if (load.everything > progress.version) return undefined
        policy = compilePolicy(document)
        edges = edgesOf(policy)
        urls = createUrlMapping(mappingRules)
        return policy
      })
      if (compiled) return compiled
    }
    throw new AppError('policy_unavailable', { retryAfterSeconds: 1 })
  }

  /** Runs a load, while which changes are written down for it too. */
  async function during<T>(work: (load: Load) => Promise<T>): Promise<T> {
    const load: Load = { from: known, changed: byKind(() => new Map()), everything: 0 }
    loads.add(load)
    try {
      return await work(load)
    } catch (error) {
      if (error instanceof Error && isUnavailable(error)) {
        throw new AppError('policy_unavailable', { cause: error, retryAfterSeconds: 1 })
      }
      throw error
    } finally {
      loads.delete(load)
    }
  }

  /** Loads facts; whatever else is wanted at the same time goes into the same statement. */
  async function load(wanted: Wanted): Promise<Pins[]> {
    const batches = new Set<Batch>()
    for (const kind of KINDS) {
      for (const ref of wanted[kind]) {
        const batch = underway[kind].get(ref) ?? gather(kind, ref)
        batches.add(batch)
      }
    }
    return await Promise.all([...batches].map(async ({ done }) => await done))
  }

  function gather(kind: Kind, ref: string): Batch {
    if (!gathering || gathering.size >= MOST_IN_BATCH) gathering = openBatch()
    gathering.wanted[kind].add(ref)
    gathering.size++
    underway[kind].set(ref, gathering)
    return gathering
  }

  function openBatch(): Batch {
    const wanted = byKind(() => new Set<string>())
    const batch: Batch = { wanted, size: 0, done: Promise.resolve().then(async () => await run(batch)) }
    return batch
  }

  async function run(batch: Batch): Promise<Pins> {
    await new Promise((resolve) => setImmediate(resolve))
    if (statements >= MOST_STATEMENTS) await new Promise<void>((resolve) => waiting.push(resolve))
    else statements++
    if (gathering === batch) gathering = undefined
    try {
      return await during(async (load) => await loadBatch(batch, load))
    } finally {
      for (const kind of KINDS) for (const ref of batch.wanted[kind]) underway[kind].delete(ref)
      const next = waiting.shift()
      if (next) next()
      else statements--
    }
  }

  async function loadBatch({ wanted }: Batch, load: Load): Promise<Pins> {
    const compiled = policy
    const startedAt = now()
    const loaded = await repository.loadFacts(
      environmentId,
      { users: [...wanted.users], tenants: [...wanted.tenants], instances: [...wanted.instances] },
      edges,
      load.from,
    )
    advance(load.from, loaded.progress, startedAt)
    const pins: Pins = { changes, users: new Map(), tenants: new Map(), instances: new Map() }
    const { version } = loaded.progress
    if (version === undefined) throw new AppError('not_found')
    keep(wanted, loaded, load, version, pins, compiled)
    return pins
  }

  /** Keeps what was loaded as of `version`, except what has changed since. */
  function keep(
    wanted: Batch['wanted'],
    loaded: LoadedFacts,
    load: Load,
    version: number,
    pins: Pins,
    compiled: CompiledPolicy | undefined,
  ): void {
    const isOld = (kind: Kind, names: readonly string[], tenants: readonly string[]): boolean =>
      load.everything > version ||
      names.some((name) => (load.changed[kind].get(name) ?? 0) > version) ||
      tenants.some((name) => (load.changed.tenants.get(name) ?? 0) > version)

    for (const ref of wanted.users) {
      const user = loaded.users.get(ref) ?? null
      const names = user ? namesOf(ref, user.id, user.key) : namesOf(ref)
      const tenants = user ? [...user.tenants, ...user.tenantRoles.keys()] : []
      if (isOld('users', names, tenants)) continue
      nameTenants(tenants)
      cache.users.put(names, user)
      for (const name of names) pins.users.set(name, user)
    }
    for (const ref of wanted.tenants) {
      const tenant = loaded.tenants.get(ref) ?? null
      const names = tenant ? namesOf(ref, tenant.id, tenant.key) : namesOf(ref)
      if (isOld('tenants', names, [])) continue
      cache.tenants.put(names, tenant)
      for (const name of names) pins.tenants.set(name, tenant)
    }
    // Which relations were followed is the business of a policy; of another one others may matter.
    if (compiled === undefined || compiled !== policy) return
    const keepInstance = (ref: string | undefined, instance: InstanceFacts | null) => {
      const names = namesOfInstance(ref, instance)
      if (isOld('instances', names, instance ? [instance.tenant] : [])) return
      if (instance) nameTenants([instance.tenant])
      cache.instances.put(names, instance)
      for (const name of names) pins.instances.set(name, instance)
    }
    for (const instance of loaded.related) keepInstance(undefined, instance)
    for (const ref of wanted.instances) keepInstance(ref, loaded.instances.get(ref) ?? null)
  }

  /**
   * Forgets what has changed, as a statement that began at `startedAt` saw it, when version `from` was known. A
   * statement that began earlier and ends later has nothing to add.
   */
  function advance(from: number | undefined, progress: Progress, startedAt: number): void {
    const { version } = progress
    if (version === undefined) {
      forgetEverything(Number.POSITIVE_INFINITY)
      known = undefined
      freshAt = Number.NEGATIVE_INFINITY
      return
    }
    freshAt = Math.max(freshAt, startedAt)
    if (known !== undefined && from !== undefined && version < from) {
      // The database was set back; other statements under way may have seen the time before.
      forgetEverything(Number.POSITIVE_INFINITY)
      known = version
      return
    }
    if (known !== undefined && version <= known) return
    if (known === undefined || progress.changes === undefined) forgetEverything(version)
    else for (const change of progress.changes) if (change.version > known) apply(change)
    known = version
  }

  function apply({ version, kind, refs }: Change): void {
    switch (kind) {
      case 'policy':
        changes++
        policy = undefined
        cache.instances.clear()
        // A policy under way may be the one of before.
        for (const load of loads) load.everything = Math.max(load.everything, version)
        return
      case 'everything':
        forgetEverything(version)
        return
      case 'api_key':
      case 'client':
      case 'token':
        onCredentials(kind, refs)
        return
      case 'user':
        forget('users', refs, version)
        return
      case 'instance':
        forget('instances', refs, version)
        return
      case 'account':
        forget('tenants', refs, version)
        forgetTenants(refs)
        return
    }
  }

  function forget(kind: Kind, names: readonly string[], version: number): void {
    changes++
    for (const name of names) {
      cache[kind].forget(name)
      for (const load of loads) load.changed[kind].set(name, version)
    }
  }

  function nameTenants(keys: readonly string[]): void {
    for (const key of keys) namedTenants?.add(key)
    if (namedTenants && namedTenants.size > MOST_NAMED_TENANTS) namedTenants = undefined
  }

  /** An account may have gone, and its key may come back as the name of another one. */
  function forgetTenants(keys: readonly string[]): void {
    const named = new Set(keys.filter((key) => namedTenants?.delete(key) ?? true))
    if (named.size === 0) return
    cache.instances.forgetWhere(({ tenant }) => named.has(tenant))
    cache.users.forgetWhere(
      ({ tenants, tenantRoles }) =>
        tenants.some((tenant) => named.has(tenant)) ||
        [...tenantRoles.keys()].some((tenant) => named.has(tenant)),
    )
  }

  function forgetEverything(version: number): void {
    changes++
    policy = undefined
    for (const kind of KINDS) cache[kind].clear()
    namedTenants = new Set()
    for (const load of loads) load.everything = Math.max(load.everything, version)
    onCredentials()
  }

  return {
    environmentId,
    /** The version up to which changes are known. */
    version: (): number | undefined => known,
    /** Whether something is being loaded, which a change from now on may make old. */
    isLoading: (): boolean => loads.size > 0,
    /** When the last statement began that told what has changed, on the clock `now`. */
    freshAt: (): number => freshAt,
    advance,
    forgetEverything: (): void => {
      forgetEverything(Number.POSITIVE_INFINITY)
      known = undefined
    },
    /** The policy as compiled. @throws AppError not_found, policy_unavailable */
    compiledPolicy,

    /** Which action a URL is, as of the policy. @throws AppError not_found, policy_unavailable */
    async urlMapping(): Promise<UrlMapping> {
      await compiledPolicy()
      return urls
    },

    /** What `evaluate` says over what is at hand; `undefined` when something would have to be loaded first. */
    evaluateAtHand<T>(evaluate: (policy: CompiledPolicy, facts: Facts) => T): T | undefined {
      return policy && attempt(policy, evaluate, undefined)?.result
    },

    /**
     * What `evaluate` says, with whatever it looks for loaded first. It is called again after each load, so it must
     * do nothing but read.
     * @throws AppError not_found, policy_unavailable
     */
    async evaluate<T>(evaluate: (policy: CompiledPolicy, facts: Facts) => T): Promise<T> {
      const pins: Pins = { changes, users: new Map(), tenants: new Map(), instances: new Map() }
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const compiled = policy ?? (await compiledPolicy())
        const answer = attempt(compiled, evaluate, pins)
        if (answer) return answer.result
        const loaded = await load({
          users: [...missing.users],
          tenants: [...missing.tenants],
          instances: [...missing.instances],
        })
        if (pins.changes !== changes) for (const kind of KINDS) pins[kind].clear()
        pins.changes = changes
        for (const one of loaded) if (one.changes === changes) pin(one, pins)
      }
      throw new AppError('policy_unavailable', { retryAfterSeconds: 1 })
    },
  }
}

function pin(from: Pins, to: Pins): void {
  for (const [name, user] of from.users) to.users.set(name, user)
  for (const [name, tenant] of from.tenants) to.tenants.set(name, tenant)
  for (const [name, instance] of from.instances) to.instances.set(name, instance)
}

const namesOf = (...names: string[]): string[] => [...new Set(names)]

/** An instance changes under its id or as `type:key`; one asked for as `type:id` and not there, under its id. */
function namesOfInstance(ref: string | undefined, instance: InstanceFacts | null): string[] {
  if (instance)
    return namesOf(...(ref === undefined ? [] : [ref]), `${instance.type}:${instance.key}`, instance.id)
  if (ref === undefined) return []
  return namesOf(ref, ref.slice(ref.indexOf(':') + 1).toLowerCase())
}
