import { drizzle } from 'drizzle-orm/node-postgres'
import { DEFAULT_ACCOUNT_KEY } from './accounts/service.ts'
import { type Db, DEFAULT_ENVIRONMENT, transact } from './db/client.ts'
import { migrate, pendingMigrations, withStartLock } from './db/migrate.ts'
import { readSetting, writeSetting } from './db/settings.ts'
import { AppError, fail, StartupError } from './errors.ts'
import { isPepperInUse } from './passwords/repository.ts'
import { SUPER_ADMIN } from './permissions.ts'
import { SYSTEM } from './principal.ts'
import { syncBuiltins } from './roles/builtins.ts'
import type { Services } from './services.ts'

/** What a start found and did. */
export type SetupResult = {
  /** Names of the migrations that were applied. */
  migrated: string[]
  /** The first super admin, when this start made it; with the password only when it was generated. */
  firstSuperAdmin?: FirstSuperAdmin
}

export type FirstSuperAdmin = { email: string; password?: string }

/**
 * Brings a database to the state that the service needs: migrations, SECRET_KEY's canary, built-in roles, the
 * signing key, and on the very first start the first account and super admin. Idempotent; processes that start
 * at once go through it one after the other.
 * @param databaseUrl a direct connection, because the lock belongs to a session
 * @throws StartupError with a sentence that says what to do
 */
export async function setUp(services: Services, databaseUrl: string): Promise<SetupResult> {
  return await withStartLock(databaseUrl, async (client) => {
    const migrated = await migrate(client)
    await services.permit?.prepare()
    await services.jobs.install()
    const db = drizzle(client, { casing: 'snake_case' })
    await assertSecretKeyFits(db, services)
    await assertPeppersFit(db, services)
    await sealAnew(services)
    await services.auditChain.resign()
    await db.transaction(async (tx) => await syncBuiltins(tx))
    await services.keys.ensureCurrentKey(db)
    await services.revocations.noteTokenLifetime(db)
    const firstSuperAdmin = await createFirstSuperAdmin(services)
    return { migrated, ...(firstSuperAdmin && { firstSuperAdmin }) }
  })
}

/**
 * Makes sure that `setUp` has run on this database, by code no older than this, and with this SECRET_KEY.
 * @throws StartupError with a sentence that says what to do
 */
export async function assertSetUp(services: Services, databaseUrl: string): Promise<void> {
  await withStartLock(databaseUrl, async (client) => {
    const pending = await pendingMigrations(client)
    const db = drizzle(client, { casing: 'snake_case' })
    if (pending.length > 0 || (await readSetting(db, CANARY_NAME)) === undefined) {
      throw new StartupError('The database is not set up for this version: run "postern seed" first.')
    }
    await assertSecretKeyFits(db, services)
    await assertPeppersFit(db, services)
    await services.permit?.prepare()
    await services.jobs.install()
  })
}

const CANARY_NAME = 'secret_key_canary'
const CANARY = 'postern'

/** A sealed word proves that SECRET_KEY is the one this database was set up with. */
async function assertSecretKeyFits(db: Db, { vault }: Services): Promise<void> {
  const canary = await readSetting(db, CANARY_NAME)
  if (canary === undefined) await writeSetting(db, CANARY_NAME, vault.seal('canary', CANARY))
  else if (vault.open('canary', canary) !== CANARY) {
    throw new StartupError('SECRET_KEY does not fit this database: set the one that it was set up with.')
  }
}

const PEPPERS_NAME = 'password_peppers'

/** The names of the peppers that passwords here may be hashed with: without one of these, nobody would get in. */
async function assertPeppersFit(db: Db, { passwords }: Services): Promise<void> {
  const { current, known } = passwords.pepperIds
  const noted = ((await readSetting(db, PEPPERS_NAME)) ?? '').split(' ').filter(Boolean)
  for (const id of noted.filter((one) => !known.includes(one))) {
    if (await isPepperInUse(db, id)) {
      throw new StartupError(
        'Passwords in this database were hashed with another PASSWORD_PEPPER: set that one, or set it as PASSWORD_PEPPER_PREVIOUS beside a new one.',
      )
    }
  }
  const next = new Set([
    ...noted.filter((id) => known.includes(id)),
    ...(current === undefined ? [] : [current]),
  ])
  if (next.size > 0 || noted.length > 0) await writeSetting(db, PEPPERS_NAME, [...next].join(' '))
}

/**
 * After SECRET_KEY was changed: what was sealed under the one before, all of it or nothing. Done at every start that
 * knows the one before, because processes that still ran with it may have sealed more since.
 */
async function sealAnew(services: Services): Promise<void> {
  const { config, database, vault, keys, apiKeys, factors, mailLinks, webhookSender } = services
  if (config.previousSecretKey === undefined) return
  await transact(database.db, async (tx) => {
    const canary = vault.reseal('canary', (await readSetting(tx, CANARY_NAME)) ?? '')
    await keys.reseal(tx)
    await apiKeys.reseal(tx)
    await factors.reseal(tx)
    await mailLinks.reseal(tx)
    await webhookSender.reseal(tx)
    if (canary !== undefined) await writeSetting(tx, CANARY_NAME, canary)
  })
}

/** The first account and its super admin, in one transaction; nothing when the account is there already. */
async function createFirstSuperAdmin(services: Services): Promise<FirstSuperAdmin | undefined> {
  const { accounts, users, roles, passwords, audit, config, database, modelOf } = services
  if (await accounts.findByKeyOrId(DEFAULT_ACCOUNT_KEY)) return undefined
  const { email, accountName } = config.firstSuperAdmin
  const password = (await givenPassword(services)) ?? passwords.generate()
  const hash = await passwords.hash(password)
  await transact(database.db, async (tx) => {
    const accountId = await accounts.insertAccount(
      SYSTEM,
      { key: DEFAULT_ACCOUNT_KEY, name: accountName },
      tx,
    )
    const id = await users.insertUser({ email, fullName: 'First Super Admin', accountId }, hash, false, tx)
    await modelOf(DEFAULT_ENVIRONMENT).usersRepository.verifyEmail(id, tx)
    const role = (await roles.findRoleByKey(SUPER_ADMIN, tx)) ?? fail('role_not_found')
    await audit.append(
      {
        action: 'service.initialized',
        caller: SYSTEM,
        target: { type: 'environment', id: DEFAULT_ENVIRONMENT },
        details: { user_id: id },
      },
      tx,
    )
    await roles.assign(SYSTEM, { id, accountId }, role.id, undefined, true, tx)
  })
  return { email, ...(config.firstSuperAdmin.password === undefined && { password }) }
}

/** @throws StartupError when FIRST_SUPER_ADMIN_PASSWORD breaks the rules of passwords */
async function givenPassword({ users, config }: Services): Promise<string | undefined> {
  const { password, email } = config.firstSuperAdmin
  if (password === undefined) return undefined
  try {
    await users.assertPasswordFits(password, { email })
    return password
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    throw new StartupError(`FIRST_SUPER_ADMIN_PASSWORD ${error.errors?.[0]?.detail ?? 'is not acceptable'}.`)
  }
}
