import { createApiKeysRepository } from './api-keys/repository.ts'
import { createApiKeysService } from './api-keys/service.ts'
import { createApiKeyVerifier } from './api-keys/verifier.ts'
import { createAccessTokens } from './auth/access-tokens.ts'
import { createPasswordHasher } from './auth/passwords.ts'
import { createAuthRepository } from './auth/repository.ts'
import { createAuthService } from './auth/service.ts'
import { createThrottle } from './auth/throttle.ts'
import { createTokenIssuer } from './auth/tokens.ts'
import { createClientsInUse } from './clients/in-use.ts'
import { createFindClientOnUse } from './clients/repository.ts'
import { type Clock, systemClock } from './clock.ts'
import { type Config, publicUrl } from './config.ts'
import { createDatabase, DEFAULT_ENVIRONMENT } from './db/client.ts'
import { isMigrated } from './db/migrate.ts'
import { createEnvironmentsRepository } from './environments/repository.ts'
import { createEnvironmentsService } from './environments/service.ts'
import { createMetrics, observePermit, observePolicy } from './http/metrics.ts'
import { createKeysRepository } from './keys/repository.ts'
import { createKeyRotation } from './keys/rotation.ts'
import { createKeysService } from './keys/service.ts'
import { createModel, memoizeByEnvironment } from './model.ts'
import { createClientAuthentication } from './oauth2/client-authentication.ts'
import { createDpopVerifier } from './oauth2/dpop.ts'
import { createOAuth2Repository } from './oauth2/repository.ts'
import { createRevokedTokens } from './oauth2/revoked-tokens.ts'
import { createOAuth2Service } from './oauth2/service.ts'
import { createPolicyCache } from './policy/cache.ts'
import { createDecisionLog, type LoggedDecision } from './policy/decision-log.ts'
import type { DecisionCounts } from './policy/decisions.ts'
import { createPolicyEngines, type Warn } from './policy/engines.ts'
import { createRevocationsRepository } from './revocations/repository.ts'
import { createRevocationsService } from './revocations/service.ts'
import { createRefreshTokens } from './sessions/refresh-tokens.ts'
import { createSessionsRepository } from './sessions/repository.ts'
import { createSessionsService } from './sessions/service.ts'
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
  const vault = createVault(options.secretKey, config.previousSecretKey)
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
      audience,
      clock,
      decisions,
      decisionsBy: engines.decisionsBy,
    }),
  )
  const model = modelOf(DEFAULT_ENVIRONMENT)
  const keysRepository = createKeysRepository(database)
  const keys = createKeysService({
    keys: keysRepository,
    rotation: createKeyRotation({
      database,
      keys: keysRepository,
      audit: model.audit,
      vault,
      algorithm: config.tokens.algorithm,
      rotationSeconds: config.tokens.keyRotationSeconds,
    }),
    vault,
    clock,
    onFailure: (error) =>
      options.warn?.({ err: error }, 'signing keys could not be rotated; it is tried again'),
  })
  const revocations = createRevocationsService({
    revocations: createRevocationsRepository(database),
    ttlSeconds: config.tokens.ttlSeconds,
    now: () => performance.now(),
  })
  const tokens = createTokenIssuer({ keys, issuer, audience, ttlSeconds: config.tokens.ttlSeconds, clock })
  const attempts = createAuthRepository(database)
  const throttleLimits = {
    ...config.throttle,
    registrationsPerAddressAndHour: config.registration.perAddressAndHour,
  }
  const sessions = createSessionsService({
    database,
    sessions: createSessionsRepository(database),
    refreshTokens: createRefreshTokens(vault),
    attempts,
    tokens,
    users: model.usersRepository,
    roles: model.roles,
    audit: model.audit,
    limits: config.sessions,
    audience,
    clock,
  })
  const auth = createAuthService({
    database,
    attempts,
    throttle: createThrottle({ attempts, vault, limits: throttleLimits }),
    passwords,
    sessions,
    users: model.usersRepository,
    usersService: model.users,
    audit: model.audit,
    clock,
    onSignIn: metrics.onSignIn,
  })

  const apiKeysRepository = createApiKeysRepository(database)
  const apiKeyVerifier = createApiKeyVerifier({ apiKeys: apiKeysRepository, clock })
  policyCache.onCredentialsChanged('api_key', apiKeyVerifier.forget)
  const clientsInUse = createClientsInUse({ read: createFindClientOnUse(database), audience, clock })
  policyCache.onCredentialsChanged('client', clientsInUse.forget)
  const oauth2Repository = createOAuth2Repository(database)
  const revoked = createRevokedTokens({ read: oauth2Repository.listRevokedTokens })
  policyCache.onCredentialsChanged('token', revoked.onRevoked)
  const accessTokens = createAccessTokens({
    keys,
    issuer,
    users: model.usersRepository,
    clients: clientsInUse,
    revoked,
  })
  const clientAuthentication = createClientAuthentication({
    clients: clientsInUse,
    repository: oauth2Repository,
    throttle: createThrottle({ attempts, vault, limits: throttleLimits, realm: 'clients' }),
    audit: model.audit,
    issuer,
    audience,
    clock,
  })
  const oauth2 = createOAuth2Service({
    database,
    issuer,
    tokens,
    accessTokens,
    revoked,
    sessions,
    repository: oauth2Repository,
    audit: model.audit,
    clock,
  })
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
    vault,
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
    revocations,
    passwords,
    policy: engines.guard,
    /** What mirrors to Permit and asks it; only with a configuration that uses Permit. */
    permit: engines.permit,
    auth,
    sessions,
    apiKeyVerifier,
    apiKeys,
    accessTokens,
    clientAuthentication,
    dpop: createDpopVerifier({ issuer, repository: oauth2Repository, clock }),
    oauth2,
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
      revocations.feed.start(directUrl)
      engines.permit?.worker.start(directUrl)
      keys.start()
    },
    async close() {
      keys.stop()
      await engines.permit?.worker.stop()
      await policyCache.stop()
      await revocations.feed.stop()
      await decisionLog.close()
      await database.close()
    },
  }
}
