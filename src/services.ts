import { createAccountsRepository } from './accounts/repository.ts'
import { createAccountsService } from './accounts/service.ts'
import { createAuditRepository } from './audit/repository.ts'
import { createPasswordHasher } from './auth/passwords.ts'
import { createAuthRepository } from './auth/repository.ts'
import { createAuthService } from './auth/service.ts'
import { createThrottle } from './auth/throttle.ts'
import { createTokenIssuer } from './auth/tokens.ts'
import { type Clock, systemClock } from './clock.ts'
import { type Config, publicUrl } from './config.ts'
import { createDatabase, type Tx } from './db/client.ts'
import { isMigrated } from './db/migrate.ts'
import { AppError } from './errors.ts'
import { createMetrics } from './http/metrics.ts'
import { createKeysRepository } from './keys/repository.ts'
import { createKeysService } from './keys/service.ts'
import { createTokenScopesAdapter } from './policy/token-scopes.ts'
import { createRolesRepository } from './roles/repository.ts'
import { createRolesService } from './roles/service.ts'
import { createUsersRepository } from './users/repository.ts'
import { createUsersService } from './users/service.ts'
import { createVault } from './vault.ts'

/** Everything that one process works with. */
export type Services = ReturnType<typeof createServices>

export type ServiceOptions = {
  databaseUrl: string
  secretKey: string
  clock?: Clock
  onDatabaseError?: (error: Error) => void
}

/** Builds the services: the one place where things are constructed. Opens no connection yet. */
export function createServices(config: Config, options: ServiceOptions) {
  const { clock = systemClock } = options
  const database = createDatabase(config.database, options.databaseUrl, options.onDatabaseError)
  const vault = createVault(options.secretKey)
  const issuer = publicUrl(config.http)
  const audience = config.tokens.audience ?? issuer
  const metrics = createMetrics(database.pool)

  const audit = createAuditRepository(database)
  const usersRepository = createUsersRepository(database)
  const accountsRepository = createAccountsRepository(database)
  const attempts = createAuthRepository(database)

  const passwords = createPasswordHasher(config.passwords)
  const keys = createKeysService({
    keys: createKeysRepository(database),
    audit,
    vault,
    algorithm: config.tokens.algorithm,
    clock,
  })
  const tokens = createTokenIssuer({ keys, issuer, audience, ttlSeconds: config.tokens.ttlSeconds, clock })

  const roles = createRolesService({
    database,
    roles: createRolesRepository(database),
    users: usersRepository,
    audit,
    addMember: async (accountId: string, userId: string, tx: Tx) => {
      if (!(await accountsRepository.lockAccount(accountId, tx, 'share')))
        throw new AppError('account_not_found')
      await accountsRepository.ensureMember(accountId, userId, tx)
    },
  })
  const accounts = createAccountsService({
    database,
    accounts: accountsRepository,
    users: usersRepository,
    roles,
    audit,
  })
  const users = createUsersService({
    database,
    users: usersRepository,
    accounts,
    roles,
    passwords,
    audit,
    mustChangeWhenSetByAdmin: config.passwords.mustChangeWhenSetByAdmin,
  })
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
    users: usersRepository,
    usersService: users,
    audit,
    clock,
    onSignIn: metrics.onSignIn,
  })

  return {
    config,
    clock,
    database,
    vault,
    issuer,
    audience,
    metrics,
    audit,
    keys,
    passwords,
    policy: createTokenScopesAdapter(),
    holders: usersRepository,
    roles,
    accounts,
    users,
    auth,
    /** Whether the database answers and has the migrations that this code needs. */
    isReady: async () => await isMigrated(database.pool),
    close: database.close,
  }
}
