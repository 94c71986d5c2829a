import type { Config } from '../config.ts'
import { beforeCommit, type Database, DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { createMirrorRepository, MIRROR_TASK, type MirrorSubject } from '../jobs/mirror-repository.ts'
import { createMirrorToPermit } from '../jobs/mirror-to-permit.ts'
import type { JobsRepository } from '../jobs/repository.ts'
import type { Jobs } from '../jobs/service.ts'
import type { BreakerState } from './circuit-breaker.ts'
import {
  createDecisions,
  type DecisionOptions,
  type Decisions,
  type DecisionsDependencies,
} from './decisions.ts'
import type { Decision, Facts, Question } from './engine/model.ts'
import { createShadow, decidedBy, type ShadowOutcome, withFallback, withShadow } from './engine-choice.ts'
import { createPermitAdapter } from './permit-adapter.ts'
import { syncBuiltinsToPermit } from './permit-builtins.ts'
import { createPermitClient, type PermitFault, type PermitService } from './permit-client.ts'
import { createPermitGuard } from './permit-guard.ts'
import { createTokenScopesAdapter } from './token-scopes.ts'

/** What an operator should hear of, with what belongs to it. */
export type Warn = (details: Record<string, unknown>, message: string) => void

type Dependencies = {
  config: Config
  database: Database
  decisions: Omit<DecisionsDependencies, 'environmentId'>
  jobs: Jobs
  jobsRepository: JobsRepository
  warn: Warn
}

/** True when anything is asked of Permit, so that it must know who holds what. */
const usesPermit = ({ engine }: Config): boolean =>
  engine.decidesWith === 'permit' || engine.guardsWith === 'permit' || engine.shadow === 'permit'

const WARN_EVERY_MS = 10_000
/** How soon what could not be mirrored is tried again, however often it failed. */
const MIRROR_RETRY_MS = 60_000

/** The engines that the configuration chooses, for the default environment and for the guard of the routes. */
export function createPolicyEngines(dependencies: Dependencies) {
  const { config } = dependencies
  const scopes = createTokenScopesAdapter()
  if (!usesPermit(config))
    return { guard: scopes, decisionsBy: (local: Decisions) => local, permit: undefined }

  const { database, decisions } = dependencies
  const { cache, clock, log, counts } = decisions
  const { decidesWith, guardsWith, fallsBackTo, shadow } = config.engine
  const warn = sparingly(dependencies.warn)
  const faults = new Map<string, { service: PermitService; fault: PermitFault; count: number }>()
  const outcomes: Record<ShadowOutcome, number> = { same: 0, different: 0, failed: 0, skipped: 0 }
  let fallbacks = 0

  const client = createPermitClient({
    config: config.permit,
    onFault(service, fault, error) {
      const name = `${service}:${fault}`
      const known = faults.get(name) ?? { service, fault, count: 0 }
      faults.set(name, { ...known, count: known.count + 1 })
      warn(name, { service, fault, ...(fault !== 'left_alone' && { err: error }) }, 'Permit is not available')
    },
  })
  // A second opinion and a stand-in are no decisions of their own.
  const quiet = createDecisions({
    environmentId: DEFAULT_ENVIRONMENT,
    cache,
    clock,
    log: { ...log, isOn: false },
    counts: { allowed: 0, refused: 0 },
  })

  async function readFacts<T>(read: (facts: Facts) => T, { minVersion }: DecisionOptions): Promise<T> {
    const environment = cache.environmentOf(DEFAULT_ENVIRONMENT)
    await cache.ensureFresh(environment)
    if (minVersion !== undefined) await quiet.ensureVersion(minVersion)
    return await environment.evaluate((_policy, facts) => read(facts))
  }

  const jobs = createMirrorRepository(database, dependencies.jobsRepository, DEFAULT_ENVIRONMENT)
  const adapter = createPermitAdapter({
    permit: client,
    readFacts,
    listGone: async (kind, refs) => await jobs.listGone(kind, refs),
  })
  const mirror = createMirrorToPermit({
    jobs,
    mirror: adapter,
    scope: { application: decidesWith === 'permit' || shadow === 'permit', builtin: guardsWith === 'permit' },
  })
  dependencies.jobs.handle(MIRROR_TASK, {
    // Nobody else adds jobs of this name.
    run: async (payload) => await mirror.run(payload as MirrorSubject),
    retriesWithinMs: MIRROR_RETRY_MS,
  })
  beforeCommit(database.db, async (tx) => await jobs.enqueueChangesOf(tx))

  const onFallback = (): void => {
    fallbacks++
  }
  const shadowOf = (engine: typeof adapter | Decisions) =>
    createShadow(engine, {
      onOutcome: (outcome) => {
        outcomes[outcome]++
      },
      onDifference: (difference) => dependencies.warn(difference, 'the shadow engine answers otherwise'),
    })

  function record(question: Question, decision: Decision, options: DecisionOptions): void {
    if (decision.allowed) counts.allowed++
    else counts.refused++
    if (!log.isOn) return
    const { now = clock.now(), requestId } = options
    log.record(DEFAULT_ENVIRONMENT, question, decision, { decidedAt: now, requestId })
  }

  return {
    guard:
      guardsWith === 'permit'
        ? createPermitGuard({ scopes, permit: adapter, fallsBack: fallsBackTo === 'local', onFallback })
        : scopes,

    /** The decisions of the default environment as the chosen engine makes them; those of others are local. */
    decisionsBy(local: Decisions): Decisions {
      if (local.environmentId !== DEFAULT_ENVIRONMENT) return local
      if (decidesWith === 'local') return shadow === 'permit' ? withShadow(local, shadowOf(adapter)) : local
      const chosen = decidedBy(
        {
          engine: fallsBackTo === 'local' ? withFallback(adapter, quiet, onFallback) : adapter,
          readFacts,
          listTenantKeys: async (after, limit) =>
            await cache.repository.listTenantKeys(DEFAULT_ENVIRONMENT, { after, limit }),
          onDecision: (question, decision, options) => record(question, decision, options),
          explaining: quiet,
        },
        local,
      )
      return shadow === 'local' ? withShadow(chosen, shadowOf(quiet)) : chosen
    },

    permit: {
      adapter,
      jobs,

      /** Loads the SDK. @throws StartupError when it is not installed */
      async prepare(): Promise<void> {
        await client.load()
      },

      /** Writes what the guard asks for, if it asks Permit. @throws PermitUnavailableError, PermitRefusalError */
      async syncBuiltins(): Promise<void> {
        if (guardsWith === 'permit') await syncBuiltinsToPermit(client, adapter)
      },

      /** For the metrics. */
      state: (): PermitState => ({
        breakers: client.state(),
        faults: [...faults.values()],
        fallbacks,
        shadow: outcomes,
      }),
    },
  }
}

/** What this process has seen of Permit. */
export type PermitState = {
  breakers: Record<PermitService, BreakerState>
  faults: readonly { service: PermitService; fault: PermitFault; count: number }[]
  fallbacks: number
  shadow: Readonly<Record<ShadowOutcome, number>>
}

/** `warn` for each kind of thing once in ten seconds, with how often it was held back. */
export function sparingly(warn: Warn): (kind: string, ...warning: Parameters<Warn>) => void {
  const last = new Map<string, { at: number; heldBack: number }>()
  return (kind, details, message) => {
    const now = performance.now()
    const known = last.get(kind)
    if (known && now - known.at < WARN_EVERY_MS) {
      known.heldBack++
      return
    }
    last.set(kind, { at: now, heldBack: 0 })
    warn(known?.heldBack ? { ...details, held_back: known.heldBack } : details, message)
  }
}
