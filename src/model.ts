import { createAccountsRepository } from './accounts/repository.ts'
import { createAccountsService } from './accounts/service.ts'
import { createAuditRepository } from './audit/repository.ts'
import type { PasswordHasher } from './auth/passwords.ts'
import type { Config } from './config.ts'
import type { Database, Tx } from './db/client.ts'
import { AppError } from './errors.ts'
import { createRolesRepository } from './roles/repository.ts'
import { createRolesService } from './roles/service.ts'
import { createUsersRepository } from './users/repository.ts'
import { createUsersService } from './users/service.ts'

/** The services of one environment: its people, accounts, roles and policy. */
export type Model = ReturnType<typeof createModel>

/** The model of an environment, for routes: which one a request means is said in http/environment.ts. */
export type ModelOf = (environmentId: string) => Model

type Dependencies = { config: Config; database: Database; passwords: PasswordHasher }

/** Builds the services of one environment. Opens no connection and holds no state of its own. */
export function createModel(environmentId: string, { config, database, passwords }: Dependencies) {
  const audit = createAuditRepository(database, environmentId)
  const usersRepository = createUsersRepository(database, environmentId)
  const accountsRepository = createAccountsRepository(database, environmentId)

  const roles = createRolesService({
    database,
    environmentId,
    roles: createRolesRepository(database, environmentId),
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
  return { environmentId, audit, usersRepository, roles, accounts, users }
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
