import { createApiKeysRepository } from './api-keys/repository.ts'
import { createApiKeysService } from './api-keys/service.ts'
import { createApiKeyVerifier } from './api-keys/verifier.ts'
import { createPasswordHasher } from './auth/passwords.ts'
import { createAuthRepository } from './auth/repository.ts'
import { createAuthService } from './auth/service.ts'
import { createThrottle } from './auth/throttle.ts'
import { createTokenIssuer } from './auth/tokens.ts'
import { type Clock, systemClock } from './clock.ts'
import { type Config, publicUrl } from './config.ts'
import { createDatabase, DEFAULT_ENVIRONMENT } from './db/client.ts'
import { isMigrated } from './db/migrate.ts'
import { createEnvironmentsRepository } from './environments/repository.ts'
import { createEnvironmentsService } from './environments/service.ts'
import { createMetrics, observePermit, observePolicy } from './http/metrics.ts'
import { createKeysRepository } from './keys/repository.ts'
import { createKeysService } from './keys/service.ts'
import { createModel, memoizeByEnvironment } from './model.ts'
import { createPolicyCache } from './policy/cache.ts'
import { createDecisionLog, type LoggedDecision } from './policy/decision-log.ts'
import type { DecisionCounts } from './policy/decisions.ts'
import { createPolicyEngines, type Warn } from './policy/engines.ts'
import { createVault } from './vault.ts'

/** Everything that one process works with. */
export type Services = ReturnType<typeof createServices>

export type ServiceOptions = {
  databaseUrl: string
  secretKey: string
  clock?: Clock
  onDatabaseError?: (error: Error) => void
  /** Where decisions are written with DECISION_LOG=log. */
  logDecision?: (decision: LoggedDecision) => void
  /** What an operator should hear of. */
  warn?: Warn
}

/** Builds the services: the one place where things are constructed. Opens no connection yet. */
export function createServices(config: Config, options: ServiceOptions) {
  const { clock = systemClock } = options
  const database = createDatabase(config.database, options.databaseUrl, options.onDatabaseError)
  const vault = createVault(options.secretKey)
  const issuer = publicUrl(config.http)
  const audience = config.tokens.audience ?? issuer
  const metrics = createMetrics(database.pool)

  const policyCache = createPolicyCache({ database, config: config.policy })
  const decisionLog = createDecisionLog({
    database,
    config: config.decisionLog,
    write: options.logDecision ?? (() => {}),
  })
  const decisionCounts: DecisionCounts = { allowed: 0, refused: 0 }
  observePolicy(metrics, () => ({
    ...policyCache.state(),
    ...decisionCounts,
    unlogged: decisionLog.lost(),
  }))

  const decisions = { cache: policyCache, log: decisionLog, clock, counts: decisionCounts }
  const engines = createPolicyEngines({ config, database, decisions, warn: options.warn ?? (() => {}) })
  if (engines.permit) observePermit(metrics, engines.permit)

  const passwords = createPasswordHasher(config.passwords)
  const modelOf = memoizeByEnvironment((environmentId) =>
    createModel(environmentId, {
      config,
      database,
      passwords,
      decisions,
      decisionsBy: engines.decisionsBy,
    }),
  )
  const model = modelOf(DEFAULT_ENVIRONMENT)
  const keys = createKeysService({
    keys: createKeysRepository(database),
    audit: model.audit,
    vault,
    algorithm: config.tokens.algorithm,
    clock,
  })
  const tokens = createTokenIssuer({ keys, issuer, audience, ttlSeconds: config.tokens.ttlSeconds, clock })
  const attempts = createAuthRepository(database)
  const auth = createAuthService({
    database,
    attempts,
    throttle: createThrottle({
      attempts,
      vault,
      limits: { ...config.throttle, registrationsPerAddressAndHour: config.registration.perAddressAndHour },
    }),
    passwords,
    tokens,
    users: model.usersRepository,
    usersService: model.users,
    audit: model.audit,
    clock,
    onSignIn: metrics.onSignIn,
  })

  const apiKeysRepository = createApiKeysRepository(database)
  const apiKeyVerifier = createApiKeyVerifier({ apiKeys: apiKeysRepository, clock })
  policyCache.onApiKeysChanged(apiKeyVerifier.forget)
  const environments = createEnvironmentsService({
    database,
    environments: createEnvironmentsRepository(database),
    apiKeys: apiKeysRepository,
    modelOf,
    audit: model.audit,
    onKeysGone: apiKeyVerifier.forget,
  })
  const apiKeys = createApiKeysService({
    database,
    apiKeys: apiKeysRepository,
    verifier: apiKeyVerifier,
    environments,
    audit: model.audit,
    clock,
  })

  return {
    config,
    clock,
    database,
    vault,
    issuer,
    audience,
    metrics,
    keys,
    passwords,
    policy: engines.guard,
    /** What mirrors to Permit and asks it; only with a configuration that uses Permit. */
    permit: engines.permit,
    holders: model.usersRepository,
    auth,
    apiKeyVerifier,
    apiKeys,
    environments,
    /** The model of the default environment, the one that people sign in to. */
    audit: model.audit,
    roles: model.roles,
    accounts: model.accounts,
    users: model.users,
    /** The model of any environment. */
    modelOf,
    /** Whether the database answers and has the migrations that this code needs. */
    isReady: async () => await isMigrated(database.pool),
    policyCache,
    decisionLog,
    /** Hears of the changes of other processes, and works through jobs, from now on. Only what serves needs it. */
    start(): void {
      const directUrl = config.database.directUrl ?? options.databaseUrl
      policyCache.start(directUrl)
      engines.permit?.worker.start(directUrl)
    },
    async close() {
      await engines.permit?.worker.stop()
      await policyCache.stop()
      await decisionLog.close()
      await database.close()
    },
  }
}
