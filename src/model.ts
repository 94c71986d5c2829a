import { createBulkAccounts } from './accounts/bulk.ts'
import { createBulkAccountsRepository } from './accounts/bulk-repository.ts'
import { createAccountsRepository } from './accounts/repository.ts'
import { createAccountsService } from './accounts/service.ts'
import { createAuditRepository } from './audit/repository.ts'
import type { PasswordHasher } from './auth/passwords.ts'
import { createClientsRepository } from './clients/repository.ts'
import { createClientsService } from './clients/service.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import type { Database, Executor, Tx } from './db/client.ts'
import { createErasureRepository } from './erasure/repository.ts'
import { createErasureService } from './erasure/service.ts'
import { AppError } from './errors.ts'
import { createInstancesRepository } from './instances/repository.ts'
import { createInstancesService } from './instances/service.ts'
import { createInvitesRepository } from './invites/repository.ts'
import { createInvitesService } from './invites/service.ts'
import type { Mailer } from './mail/service.ts'
import { createPasswordOwnersRepository } from './passwords/repository.ts'
import { createPasswordRules } from './passwords/rules.ts'
import { createPermitBulk } from './permit/bulk.ts'
import { createPermitInstances } from './permit/instances.ts'
import { createPermitInstancesRepository } from './permit/instances-repository.ts'
import { createPermitRepository } from './permit/repository.ts'
import { createPermitResources } from './permit/resources.ts'
import { createPermitRoleSets } from './permit/role-sets.ts'
import { createPermitRoles } from './permit/roles.ts'
import { createPermitService } from './permit/service.ts'
import { createPermitSets } from './permit/sets.ts'
import { createSetsRepository } from './permit/sets-repository.ts'
import { createStatisticsRepository } from './permit/statistics-repository.ts'
import { createUserPagesRepository } from './permit/user-pages-repository.ts'
import { createPermitImportRepository } from './permit-import/repository.ts'
import { createDecisions, type Decisions, type DecisionsDependencies } from './policy/decisions.ts'
import { createPolicyFileService } from './policy-file/service.ts'
import type { UserPrincipal } from './principal.ts'
import { createProxiesRepository } from './proxies/repository.ts'
import { createProxiesService } from './proxies/service.ts'
import { createDefinitionsRepositories } from './resources/definitions-repository.ts'
import { createResourcesRepository } from './resources/repository.ts'
import { createResourcesService } from './resources/service.ts'
import { createBulkRoles } from './roles/bulk.ts'
import { createBulkRolesRepository } from './roles/bulk-repository.ts'
import { createRolesRepository } from './roles/repository.ts'
import { createRolesService } from './roles/service.ts'
import { createRulesRepository } from './rules/repository.ts'
import { createRulesService } from './rules/service.ts'
import { createSessionsRepository } from './sessions/repository.ts'
import { createNewcomers } from './user-import/newcomers.ts'
import { createUserImportRepository } from './user-import/repository.ts'
import { createUserImport } from './user-import/service.ts'
import { createUpdates } from './user-import/updates.ts'
import { createBulkUsers } from './users/bulk.ts'
import { createBulkUsersRepository } from './users/bulk-repository.ts'
import type { RecencyCheck } from './users/protection.ts'
import { createUsersRepository } from './users/repository.ts'
import { createUsersService } from './users/service.ts'
import type { Vault } from './vault.ts'
import type { Addresses } from './webhooks/addresses.ts'
import { createWebhooksRepository } from './webhooks/repository.ts'
import { createWebhooksService } from './webhooks/service.ts'

/** The services of one environment: its people, accounts, roles and policy. */
export type Model = ReturnType<typeof createModel>

/** The model of an environment, for routes: which one a request means is said in http/environment.ts. */
export type ModelOf = (environmentId: string) => Model

type Dependencies = {
  config: Config
  database: Database
  passwords: PasswordHasher
  mailer: Mailer
  vault: Vault
  /** Where webhooks may lead to. */
  addresses: Addresses
  /** The audience of this service itself. */
  audience: string
  clock: Clock
  /** @throws AppError reauthentication_required */
  assertRecentAuthentication: (person: UserPrincipal, ex?: Executor) => Promise<void>
  decisions: Omit<DecisionsDependencies, 'environmentId'>
  /** The same questions, answered by the engine that is configured. */
  decisionsBy: (local: Decisions) => Decisions
}

/** Builds the services of one environment. Opens no connection and holds no state of its own. */
export function createModel(environmentId: string, dependencies: Dependencies) {
  const { config, database, passwords, mailer } = dependencies
  const audit = createAuditRepository(database, environmentId)
  const usersRepository = createUsersRepository(database, environmentId)
  const accountsRepository = createAccountsRepository(database, environmentId)
  const sessions = createSessionsRepository(database, environmentId)

  const rolesRepository = createRolesRepository(database, environmentId)

  const assertRecentAuthentication: RecencyCheck = async ({ principal }, tx) => {
    if (principal.type === 'user') await dependencies.assertRecentAuthentication(principal, tx)
  }
  const roles = createRolesService({
    database,
    environmentId,
    roles: rolesRepository,
    users: usersRepository,
    audit,
    assertRecentAuthentication,
    addMember: async (accountId: string, userId: string, tx: Tx) => {
      if (!(await accountsRepository.lockAccount(accountId, tx, 'share')))
        throw new AppError('account_not_found')
      await accountsRepository.ensureMember(accountId, userId, tx)
    },
  })
  const resources = createResourcesService({
    database,
    resources: createResourcesRepository(database, environmentId),
    definitions: createDefinitionsRepositories(database, environmentId),
    roles: rolesRepository,
    rolesService: roles,
    users: usersRepository,
    audit,
  })
  const accounts = createAccountsService({
    database,
    accounts: accountsRepository,
    users: usersRepository,
    roles,
    audit,
    assertRecentAuthentication,
  })
  const passwordRules = createPasswordRules({
    owners: createPasswordOwnersRepository(database, environmentId),
    passwords,
    mfaRule: config.mfa.requiredFor,
  })
  const users = createUsersService({
    database,
    environmentId,
    users: usersRepository,
    sessions,
    accounts,
    roles,
    passwords,
    passwordRules,
    mailer,
    audit,
    assertRecentAuthentication,
    mustChangeWhenSetByAdmin: config.passwords.mustChangeWhenSetByAdmin,
  })
  const erasure = createErasureService({
    database,
    erasure: createErasureRepository(database, config.authzen.subjectTypes, environmentId),
    users: usersRepository,
    usersService: users,
    sessions,
    roles,
    audit,
    isOpenToPeople: config.deletion.isOpenToPeople,
  })
  const policyFile = createPolicyFileService({
    database,
    environmentId,
    lockDefinitions: rolesRepository.lockDefinitions,
    raiseTokenVersions: usersRepository.raiseTokenVersions,
    assertRecentAuthentication,
    audit,
  })
  const clients = createClientsService({
    database,
    environmentId,
    clients: createClientsRepository(database, environmentId),
    accounts,
    audit,
    audience: dependencies.audience,
    clock: dependencies.clock,
  })
  const webhooks = createWebhooksService({
    database,
    webhooks: createWebhooksRepository(database, environmentId),
    accounts,
    addresses: dependencies.addresses,
    audit,
    vault: dependencies.vault,
  })
  const decisions = dependencies.decisionsBy(createDecisions({ environmentId, ...dependencies.decisions }))
  const instances = createInstancesService({
    database,
    environmentId,
    instances: createInstancesRepository(database, environmentId),
    audit,
  })
  const permit = createPermitService({
    database,
    permit: createPermitRepository(database, environmentId),
    userPages: createUserPagesRepository(database, environmentId),
    users,
    usersRepository,
    accounts,
    accountsRepository,
    roles,
    rolesRepository,
    instances,
  })
  const permitRoles = createPermitRoles({ database, roles, rolesRepository, resources })
  const permitRoleSets = createPermitRoleSets({
    database,
    roles,
    rolesRepository,
    resources,
    permitRoles,
  })
  const permitResources = createPermitResources({
    database,
    resources,
    roles,
    rolesRepository,
    permitRoleSets,
  })
  const permitInstances = createPermitInstances({
    facts: createPermitInstancesRepository(database),
    permit,
    instances,
    resources,
  })
  const bulkAccounts = createBulkAccounts({ accounts: createBulkAccountsRepository(environmentId), audit })
  const userImportRepository = createUserImportRepository(database, environmentId)
  const userImport = createUserImport({
    repository: userImportRepository,
    newcomers: createNewcomers({ database, repository: userImportRepository, accounts: bulkAccounts, audit }),
    updates: createUpdates({
      database,
      users: usersRepository,
      usersService: users,
      roles,
      rolesRepository,
      accounts,
      audit,
    }),
    usersService: users,
    passwords,
    hashLanes: config.passwords.concurrency,
    mustChangeWhenSetByAdmin: config.passwords.mustChangeWhenSetByAdmin,
  })
  const permitBulk = createPermitBulk({
    database,
    users: createBulkUsers({ users: createBulkUsersRepository(environmentId), roles, audit }),
    roles: createBulkRoles({
      roles: createBulkRolesRepository(environmentId),
      users: usersRepository,
      audit,
    }),
    accounts: bulkAccounts,
    instances,
  })
  const rules = createRulesService({
    database,
    rules: createRulesRepository(database, environmentId),
    audit,
    lockDefinitions: rolesRepository.lockDefinitions,
  })
  const proxies = createProxiesService({
    database,
    proxies: createProxiesRepository(database, environmentId),
    audit,
    lockDefinitions: rolesRepository.lockDefinitions,
  })
  const invites = createInvitesService({
    database,
    invites: createInvitesRepository(database, environmentId),
    accounts: accountsRepository,
    roles,
    rolesRepository,
    users,
    usersRepository,
    audit,
  })
  const permitSets = createPermitSets({
    rules,
    sets: createSetsRepository(database, environmentId),
    resources,
  })
  return {
    environmentId,
    audit,
    resources,
    instances,
    rules,
    usersRepository,
    roles,
    accounts,
    users,
    erasure,
    permit,
    statistics: createStatisticsRepository(database, environmentId),
    permitInstances,
    permitBulk,
    userImport,
    permitImport: createPermitImportRepository(database, environmentId),
    permitRoles,
    permitRoleSets,
    permitResources,
    permitSets,
    proxies,
    invites,
    policyFile,
    clients,
    webhooks,
    decisions,
  }
}

const KEPT_ENVIRONMENTS = 1000

/** `create`, with what it made for the environments used last kept at hand. */
export function memoizeByEnvironment<T>(create: (environmentId: string) => T): (environmentId: string) => T {
  const made = new Map<string, T>()
  return (environmentId) => {
    const known = made.get(environmentId)
    if (known !== undefined) return known
    const fresh = create(environmentId)
    made.set(environmentId, fresh)
    const [oldest] = made.keys()
    if (made.size > KEPT_ENVIRONMENTS && oldest !== undefined) made.delete(oldest)
    return fresh
  }
}
