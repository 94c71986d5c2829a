import { performance } from 'node:perf_hooks'
import { LRUCache } from 'lru-cache'
import type { Config } from '../config.ts'
import { afterCommit, type Database, DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { createChangeFollower } from './change-follower.ts'
import { createEnvironment, type Environment } from './environment.ts'
import { createFactCaches } from './fact-cache.ts'
import { createFactsRepository } from './facts-repository.ts'
import { createPolicyRepository } from './policy-repository.ts'
import { type CredentialKind, createVersionsRepository } from './versions.ts'

/** Policies and facts that this process keeps at hand, in step with the database. */
export type PolicyCache = ReturnType<typeof createPolicyCache>

type Dependencies = { database: Database; config: Config['policy'] }
type CredentialListener = (refs: readonly string[] | undefined) => void

const MOST_ENVIRONMENTS = 1000

/** Opens no connection and runs nothing by itself until `start`; after each commit of this process it catches up. */
export function createPolicyCache({ database, config }: Dependencies) {
  const policies = createPolicyRepository(database)
  const repository = createFactsRepository(database)
  const versions = createVersionsRepository(database)
  const caches = createFactCaches({ users: config.cachedUsers, instances: config.cachedInstances })
  const now = () => performance.now()
  const credentialListeners = new Set<{ kind: CredentialKind; listener: CredentialListener }>()

  const environments = new LRUCache<string, Environment>({
    max: MOST_ENVIRONMENTS,
    dispose: (environment) => environment.forgetEverything(),
  })

  function environmentOf(environmentId: string): Environment {
    const known = environments.get(environmentId)
    if (known) return known
    const fresh = createEnvironment({
      environmentId,
      policies,
      repository,
      cache: caches.forEnvironment(),
      onCredentials: (changed, refs) => {
        if (environmentId !== DEFAULT_ENVIRONMENT) return
        for (const { kind, listener } of credentialListeners)
          if (changed === undefined || changed === kind) listener(refs)
      },
      now,
    })
    environments.set(environmentId, fresh)
    return fresh
  }

  const follower = createChangeFollower({
    versions,
    environments: () => {
      if (credentialListeners.size > 0) environmentOf(DEFAULT_ENVIRONMENT)
      return [...environments.values()].filter(
        (one) =>
          one.version() !== undefined ||
          one.isLoading() ||
          (one.environmentId === DEFAULT_ENVIRONMENT && credentialListeners.size > 0),
      )
    },
    environment: (environmentId) => environments.peek(environmentId),
    maxStalenessMs: config.maxStalenessMs,
    now,
  })
  afterCommit(database.db, follower.onCommit)

  return {
    environmentOf,
    repository,
    ensureFresh: follower.ensureFresh,
    isFresh: follower.isFresh,
    /** Learns what has changed until now. */
    catchUp: follower.catchUp,

    /**
     * The version of the environment after a commit of this process; `undefined` when the database does not say.
     * From then on the environment is followed.
     */
    async versionAfterCommit(environmentId: string): Promise<number | undefined> {
      const environment = environmentOf(environmentId)
      if (environment.version() === undefined) {
        const startedAt = now()
        const [progress] = await versions
          .readProgress([{ environmentId, version: undefined }])
          .catch(() => [])
        if (progress) environment.advance(undefined, progress, startedAt)
      }
      return follower.state().isBehind ? undefined : environment.version()
    },

    /**
     * Has `listener` hear the ids of credentials that were made, changed or removed; `undefined`: any may have been. It
     * also hears that when it is not known what was missed.
     */
    onCredentialsChanged(kind: CredentialKind, listener: CredentialListener): void {
      credentialListeners.add({ kind, listener })
    },

    /** Hears of the changes of other processes from now on; `directUrl` reaches Postgres without a pooler. */
    start: follower.start,
    stop: follower.stop,
    pruneChanges: versions.pruneChanges,

    /** For the metrics. */
    state: () => ({
      ...follower.state(),
      stalenessSeconds: Math.max(
        0,
        ...[...environments.values()]
          .filter((one) => one.version() !== undefined)
          .map((one) => (now() - one.freshAt()) / 1000),
      ),
      kinds: Object.entries(caches.counts).map(([kind, { counts, order }]) => ({
        kind,
        entries: order.size,
        ...counts,
      })),
    }),
  }
}
