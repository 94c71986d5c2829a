import { createApiKeysRepository } from './api-keys/repository.ts'
import { createApiKeysService } from './api-keys/service.ts'
import { createApiKeyVerifier } from './api-keys/verifier.ts'
import { createAudiences } from './audiences.ts'
import { createAuditChain } from './audit/chain.ts'
import { createChainRepository } from './audit/chain-repository.ts'
import { createCheckpointSigner } from './audit/signing.ts'
import { createAccessTokens } from './auth/access-tokens.ts'
import { createLocks } from './auth/locks.ts'
import { createPasswordHasher } from './auth/passwords.ts'
import { createAuthRepository } from './auth/repository.ts'
import { createAuthService } from './auth/service.ts'
import { createSignIn } from './auth/sign-in.ts'
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
import { createEraseDeleted } from './erasure/due.ts'
import { createErasureRepository } from './erasure/repository.ts'
import { createChallengesRepository } from './factors/challenges-repository.ts'
import { createTellOfFactor } from './factors/notices.ts'
import { createProofs } from './factors/proofs.ts'
import { createFactorsRepository } from './factors/repository.ts'
import { createSecondStep } from './factors/second-step.ts'
import { createFactorsService } from './factors/service.ts'
import {
  createMetrics,
  observeAuditChain,
  observeJobs,
  observePermit,
  observePolicy,
  observeWebhooks,
} from './http/metrics.ts'
import { createInviters } from './invitations/inviters.ts'
import { createInvitationsRepository } from './invitations/repository.ts'
import { createInvitationsService } from './invitations/service.ts'
import { createJobsRepository } from './jobs/repository.ts'
import { createJobs } from './jobs/service.ts'
import { scheduleUpkeep } from './jobs/upkeep.ts'
import { createKeysRepository } from './keys/repository.ts'
import { createKeyRotation } from './keys/rotation.ts'
import { createKeysService } from './keys/service.ts'
import { createMailer, type LogMail } from './mail/service.ts'
import { createLinks } from './mail-links/links.ts'
import { createMailLinksRepository } from './mail-links/repository.ts'
import { createMailLinksService } from './mail-links/service.ts'
import { createVerificationGate } from './mail-links/verification.ts'
import { createModel, memoizeByEnvironment } from './model.ts'
import { createClientAuthentication } from './oauth2/client-authentication.ts'
import { createDpopVerifier } from './oauth2/dpop.ts'
import { createOAuth2Repository } from './oauth2/repository.ts'
import { createRevokedTokens } from './oauth2/revoked-tokens.ts'
import { createOAuth2Service } from './oauth2/service.ts'
import { createPasskeyAssertions } from './passkeys/assertions.ts'
import { createRelyingParty, relyingPartySettings } from './passkeys/relying-party.ts'
import { createPasskeysRepository } from './passkeys/repository.ts'
import { createPasskeysService } from './passkeys/service.ts'
import { createBlocklist, serviceWords } from './passwords/blocklist.ts'
import { createDecoys } from './passwords/decoys.ts'
import { createPasswordOwnersRepository } from './passwords/repository.ts'
import { createPolicyCache } from './policy/cache.ts'
import { createDecisionLog, type LoggedDecision } from './policy/decision-log.ts'
import type { DecisionCounts } from './policy/decisions.ts'
import { createPolicyEngines, sparingly, type Warn } from './policy/engines.ts'
import { createRevocationsRepository } from './revocations/repository.ts'
import { createRevocationsService } from './revocations/service.ts'
import { createRolesRepository } from './roles/repository.ts'
import { createRefreshTokens } from './sessions/refresh-tokens.ts'
import { createSessionsRepository } from './sessions/repository.ts'
import { createSessionsService } from './sessions/service.ts'
import { createVault } from './vault.ts'
import { createAddresses } from './webhooks/addresses.ts'
import { createOutbox } from './webhooks/outbox.ts'
import { createWebhookSender } from './webhooks/sender.ts'

/** Everything that one process works with. */
export type Services = ReturnType<typeof createServices>

export type ServiceOptions = {
  databaseUrl: string
  secretKey: string
  clock?: Clock
  onDatabaseError?: (error: Error) => void
  /** Where decisions are written with DECISION_LOG=log. */
  logDecision?: (decision: LoggedDecision) => void
  /** Where mails are written with ENVIRONMENT=dev and no SMTP_URL. */
  logMail?: LogMail
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
  const warn: Warn = options.warn ?? (() => {})
  const warnOfJobs = sparingly(warn)
  const jobsRepository = createJobsRepository(database)
  const jobs = createJobs({
    database,
    repository: jobsRepository,
    config: config.database,
    onWarning: (details, message) => warnOfJobs(message, details, message),
  })
  observeJobs(metrics, jobs)
  const engines = createPolicyEngines({ config, database, decisions, jobs, jobsRepository, warn })
  if (engines.permit) observePermit(metrics, engines.permit)
  const mailer = createMailer({
    config: config.mail,
    jobs,
    vault,
    clock,
    log: config.environment === 'dev' ? (options.logMail ?? (() => {})) : undefined,
    onMail: metrics.onMail,
    onWarning: (details, message) => warnOfJobs(message, details, message),
  })

  const warnOfHashes = sparingly(warn)
  const passwords = createPasswordHasher(config.passwords, {
    blocklist: createBlocklist(
      serviceWords(
        ['Postern', config.passkeys.rpName, ...config.passwords.blockedWords],
        [issuer, config.mail.appUrl],
      ),
    ),
    warn: (details, message) => warnOfHashes(message, details, message),
  })
  const addresses = createAddresses(config.webhooks.allowedNetworks)
  const modelOf = memoizeByEnvironment((environmentId) =>
    createModel(environmentId, {
      config,
      database,
      passwords,
      mailer,
      vault,
      addresses,
      audience,
      clock,
      assertRecentAuthentication: async (person, ex) => await factors.assertRecentAuthentication(person, ex),
      decisions,
      decisionsBy: engines.decisionsBy,
    }),
  )
  const model = modelOf(DEFAULT_ENVIRONMENT)
  const outbox = createOutbox(database)
  const warnOfWebhooks = sparingly(warn)
  const webhookSender = createWebhookSender({
    database,
    outbox,
    auditOf: (environmentId) => modelOf(environmentId).audit,
    vault,
    addresses,
    clock,
    onDelivery: metrics.onWebhookDelivery,
    onWarning: (details, message) => warnOfWebhooks(message, details, message),
  })
  observeWebhooks(metrics, outbox)
  const { hmacKey, previousHmacKey, retentionDays } = config.audit
  const warnOfAudit = sparingly(warn)
  const auditChain = createAuditChain({
    database,
    chain: createChainRepository(database),
    signer: createCheckpointSigner({ vault, hmacKey, previousHmacKey }),
    clock,
    retentionDays,
    warn: (details, message) => warnOfAudit(message, details, message),
  })
  observeAuditChain(metrics, auditChain)
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
  const throttle = createThrottle({ attempts, vault, limits: throttleLimits, clock })
  const sessionsRepository = createSessionsRepository(database)
  const sessions = createSessionsService({
    database,
    sessions: sessionsRepository,
    refreshTokens: createRefreshTokens(vault),
    attempts,
    tokens,
    users: model.usersRepository,
    roles: model.roles,
    audit: model.audit,
    limits: config.sessions,
    mfaRule: config.mfa.requiredFor,
    audiences: createAudiences(audience, config.tokens.serviceAudiences),
    clock,
  })
  const challenges = createChallengesRepository(database)
  const mailLinksRepository = createMailLinksRepository(database)
  const links = createLinks({
    repository: mailLinksRepository,
    mailer,
    throttle,
    audit: model.audit,
    vault,
    clock,
    perRecipientAndHour: config.mail.perRecipientAndHour,
  })
  const verificationGate = createVerificationGate({
    database,
    repository: mailLinksRepository,
    links,
    isRequired: config.mail.verification === 'required',
    onWarning: (details, message) => warnOfJobs(message, details, message),
  })
  const signIn = createSignIn({
    attempts,
    sessions,
    challenges,
    mfaRule: config.mfa.requiredFor,
    verificationGate,
    clock,
    deviceTokenFor: throttle.deviceTokenFor,
    onSignIn: metrics.onSignIn,
  })
  const tellOfFactor = createTellOfFactor(mailer)
  const mailLinks = createMailLinksService({
    database,
    config: config.mail,
    repository: mailLinksRepository,
    links,
    mailer,
    jobs,
    throttle,
    vault,
    attempts,
    signIn,
    passwords,
    users: model.usersRepository,
    usersService: model.users,
    sessions: sessionsRepository,
    roles: model.roles,
    audit: model.audit,
    tell: tellOfFactor,
  })
  const auth = createAuthService({
    database,
    attempts,
    throttle,
    passwords,
    decoys: createDecoys({
      owners: createPasswordOwnersRepository(database),
      mac: (text) => vault.mac('identifiers', text),
      now: () => performance.now(),
    }),
    signIn,
    users: model.usersRepository,
    usersService: model.users,
    audit: model.audit,
    clock,
    onSignIn: metrics.onSignIn,
  })
  const passkeysRepository = createPasskeysRepository(database)
  const relyingParty = createRelyingParty(relyingPartySettings(config))
  const passkeyAssertions = createPasskeyAssertions({
    passkeys: passkeysRepository,
    challenges,
    relyingParty,
    audit: model.audit,
    clock,
  })
  const factorsRepository = createFactorsRepository(database)
  const factorsThrottle = createThrottle({
    attempts,
    vault,
    limits: throttleLimits,
    clock,
    realm: 'second-factors',
  })
  const proofs = createProofs({
    database,
    factors: factorsRepository,
    passkeys: passkeyAssertions,
    users: model.usersRepository,
    audit: model.audit,
    vault,
    clock,
    tell: tellOfFactor,
  })
  const factors = createFactorsService({
    database,
    factors: factorsRepository,
    challenges,
    proofs,
    attempts,
    auth,
    throttle: factorsThrottle,
    users: model.usersRepository,
    roles: model.roles,
    sessions: sessionsRepository,
    sessionsService: sessions,
    audit: model.audit,
    vault,
    tell: tellOfFactor,
    mailsLinks: mailer.isConfigured,
    mfaRule: config.mfa.requiredFor,
    issuerName: config.passkeys.rpName,
    stepUpMaxAgeSeconds: config.mfa.stepUpMaxAgeSeconds,
  })
  const passkeys = createPasskeysService({
    database,
    passkeys: passkeysRepository,
    challenges,
    relyingParty,
    assertions: passkeyAssertions,
    users: model.usersRepository,
    sessions: sessionsRepository,
    attempts,
    throttle,
    maxFailuresPerAddress: config.throttle.maxFailuresPerAddress,
    signIn,
    onSignIn: metrics.onSignIn,
    factors,
    audit: model.audit,
    tell: tellOfFactor,
    vault,
    clock,
  })
  const secondStep = createSecondStep({
    challenges,
    attempts,
    proofs,
    signIn,
    throttle: factorsThrottle,
    audit: model.audit,
    clock,
    onSignIn: metrics.onSignIn,
  })

  const locks = createLocks({
    database,
    users: model.usersRepository,
    roles: model.roles,
    throttle,
    factorsThrottle,
    audit: model.audit,
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
    mfaRule: config.mfa.requiredFor,
  })
  const clientAuthentication = createClientAuthentication({
    clients: clientsInUse,
    repository: oauth2Repository,
    throttle: createThrottle({ attempts, vault, limits: throttleLimits, clock, realm: 'clients' }),
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
  const rolesRepository = createRolesRepository(database)
  const invitations = createInvitationsService({
    database,
    invitations: createInvitationsRepository(database),
    inviters: createInviters({
      users: model.usersRepository,
      roles: rolesRepository,
      apiKeys: apiKeysRepository,
      clients: clientsInUse,
      clock,
    }),
    accounts: model.accounts,
    roles: model.roles,
    rolesRepository,
    users: model.usersRepository,
    usersService: model.users,
    passwords,
    throttle,
    mailer,
    audit: model.audit,
    secondsToLive: config.invitations.expireSeconds,
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

  const eraseDeleted = createEraseDeleted({
    erasure: createErasureRepository(database, config.authzen.subjectTypes),
    erasureOf: (environmentId) => modelOf(environmentId).erasure,
    graceDays: config.deletion.graceDays,
  })
  scheduleUpkeep(jobs, {
    prune_login_attempts: auth.prune,
    prune_seen_tokens: oauth2.prune,
    prune_sessions: sessions.prune,
    prune_challenges: factors.prune,
    prune_mail_tokens: mailLinks.prune,
    prune_invitations: invitations.prune,
    prune_policy_changes: policyCache.pruneChanges,
    prune_decision_log: decisionLog.prune,
    prune_revocations: revocations.prune,
    prune_webhook_deliveries: outbox.prune,
    erase_deleted_users: eraseDeleted,
    apply_audit_retention: auditChain.applyRetention,
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
    throttle,
    locks,
    invitations,
    policy: engines.guard,
    /** What mirrors to Permit and asks it; only with a configuration that uses Permit. */
    permit: engines.permit,
    /** What is done later: `handle` and `schedule` say how, `add` asks for it. */
    jobs,
    mailer,
    mailLinks,
    auth,
    /** The end of every sign-in, and its second step. */
    signIn,
    secondStep,
    factors,
    passkeys,
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
    auditChain,
    eraseDeleted,
    roles: model.roles,
    accounts: model.accounts,
    users: model.users,
    userImport: model.userImport,
    webhookSender,
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
      jobs.start(directUrl)
      auditChain.start()
      webhookSender.start()
      keys.start()
    },
    async close() {
      keys.stop()
      await jobs.stop()
      await auditChain.stop()
      await webhookSender.stop()
      await policyCache.stop()
      await revocations.feed.stop()
      await decisionLog.close()
      await database.close()
    },
  }
}
