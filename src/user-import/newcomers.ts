import type { BulkAccounts } from '../accounts/bulk.ts'
import type { NamedAccount } from '../accounts/bulk-repository.ts'
import { keyFromName } from '../accounts/service.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { isUnstorable } from '../db/errors.ts'
import { AppError, fail } from '../errors.ts'
import { idInSeries, isUuid, newId } from '../ids.ts'
import { SYSTEM } from '../principal.ts'
import { assignmentEvent } from '../roles/service.ts'
import { nameOf } from '../users/service.ts'
import type { ImportOptions, ImportRun, Refusal } from './progress.ts'
import type { ImportedUser } from './records.ts'
import type { NamedRole, NewGrant, NewPerson, UserImportRepository } from './repository.ts'

/** Somebody as a line has it. */
export type Item = { line: number; record: ImportedUser }

export type Credentials = { passwordHash: string | null; mustChange: boolean }

/** Somebody who is not there yet. */
export type Newcomer = Item & Credentials

export type Newcomers = ReturnType<typeof createNewcomers>

type Inserted = { created: number; refusals: Refusal[] }
type Named<T> = (name: string) => T
type Options = Pick<ImportOptions, 'isDryRun' | 'createsAccounts'> & { run: ImportRun }

type Dependencies = {
  database: Database
  repository: UserImportRepository
  accounts: BulkAccounts
  audit: AuditRepository
}

/** Writes many new people at a time, with home account, credentials and roles. */
export function createNewcomers({ database, repository, accounts, audit }: Dependencies) {
  const { db } = database

  /** Finds accounts by key, by id or, where accounts may be made, by name; makes those that are missing then. */
  async function accountsNamed(
    names: readonly string[],
    { isDryRun, createsAccounts }: Options,
    tx: Tx,
  ): Promise<Named<NamedAccount>> {
    const keyOf = (name: string): string => (createsAccounts && !isUuid(name) ? keyFromName(name) : name)
    const keys = new Map(names.flatMap((name) => orNothing(() => [[keyOf(name), name] as const])))
    const lock = async () =>
      await accounts.lockAccounts([...new Set([...names, ...keys.keys()])], 'share', tx)
    const found = names.length === 0 ? [] : await lock()
    const known = new Set(found.flatMap(({ id, key }) => [id, key]))
    const missing = createsAccounts
      ? [...keys].filter(([key, name]) => !isUuid(name) && !known.has(key) && !known.has(name))
      : []
    const rows = missing.map(([key, name]) => ({ key, name, description: null, attributes: null }))
    if (!isDryRun && rows.length > 0) await accounts.insertMany(SYSTEM, rows, tx)
    const made = isDryRun
      ? rows.map(({ key }) => ({ key, id: newId() }))
      : rows.length > 0
        ? await lock()
        : []
    const find = finder([...found, ...made])
    return (name) =>
      find(name) ??
      find(keyOf(name)) ??
      fail('account_not_found', { detail: `there is no account ${JSON.stringify(name)}` })
  }

  async function rolesNamed(names: readonly string[], tx: Tx): Promise<Named<NamedRole>> {
    const find = finder(names.length === 0 ? [] : await repository.holdRoles(names, tx))
    return (name) =>
      find(name) ?? fail('role_not_found', { detail: `there is no role ${JSON.stringify(name)}` })
  }

  async function write(people: readonly NewPerson[], grants: readonly Grant[], tx: Tx): Promise<void> {
    await repository.insertPeople(people, tx)
    await repository.insertGrants(grants, tx)
    await audit.appendAll(
      people.map(({ id, accountId, email }) => ({
        action: 'user.created',
        caller: SYSTEM,
        target: { type: 'user', id },
        accountId,
        personal: { email },
      })),
      tx,
    )
    const homeOf = new Map(people.map(({ id, accountId }) => [id, accountId]))
    await audit.appendAll(
      grants.map((grant) =>
        assignmentEvent(
          'role.assigned',
          SYSTEM,
          { ...grant, instanceId: null, expiresAt: null },
          homeOf.get(grant.userId) ?? null,
        ),
      ),
      tx,
    )
  }

  /** All of it in one transaction; whose account or role is not there is refused. */
  async function insertAtOnce(newcomers: readonly Newcomer[], options: Options): Promise<Inserted> {
    const named = (names: (record: ImportedUser) => readonly string[]): string[] => [
      ...new Set(newcomers.flatMap(({ record }) => names(record))),
    ]
    return await transact(db, async (tx) => {
      const accountOf = await accountsNamed(
        named(({ account }) => (account === undefined ? [] : [account])),
        options,
        tx,
      )
      const roleOf = await rolesNamed(named(rolesOf), tx)
      const people: NewPerson[] = []
      const grants: Grant[] = []
      const refusals: Refusal[] = []
      for (const newcomer of newcomers) {
        try {
          const { account } = newcomer.record
          const accountId = account === undefined ? null : accountOf(account).id
          const person = personOf(newcomer, accountId, options.run)
          grants.push(...grantsOf(newcomer.record, person, roleOf))
          people.push(person)
        } catch (error) {
          refusals.push({ line: newcomer.line, reason: reasonOf(error) })
        }
      }
      if (!options.isDryRun && people.length > 0) await write(people, grants, tx)
      return { created: people.length, refusals }
    })
  }

  /**
   * Writes them, those who can be. When together they cannot, they are tried by halves, until the line is found that
   * stands against it.
   */
  async function insert(newcomers: readonly Newcomer[], options: Options): Promise<Inserted> {
    const [first] = newcomers
    if (!first) return { created: 0, refusals: [] }
    try {
      return await insertAtOnce(newcomers, options)
    } catch (error) {
      if (newcomers.length === 1)
        return { created: 0, refusals: [{ line: first.line, reason: reasonOf(error) }] }
      if (!isFaultOfLine(error)) throw error
      const half = Math.ceil(newcomers.length / 2)
      const one = await insert(newcomers.slice(0, half), options)
      const other = await insert(newcomers.slice(half), options)
      return { created: one.created + other.created, refusals: [...one.refusals, ...other.refusals] }
    }
  }

  return { insert }
}

type Grant = NewGrant & { role: NamedRole }

/** The id of whoever a line makes. */
export const idOf = ({ line, record }: Item, { startedAt, mark }: ImportRun): string =>
  idInSeries(createdAtOf(record) ?? startedAt, line, mark)

const createdAtOf = ({ created_at: text }: ImportedUser): Date | null =>
  text === undefined ? null : new Date(text)

function personOf(newcomer: Newcomer, accountId: string | null, run: ImportRun): NewPerson {
  const { record, passwordHash, mustChange } = newcomer
  const createdAt = createdAtOf(record)
  if (createdAt && createdAt > new Date())
    throw new AppError('validation_failed', { detail: 'created_at lies in the future' })
  const id = idOf(newcomer, run)
  const { fullName = null, firstName = null, lastName = null, phoneNumber = null } = namesOf(record)
  return {
    id,
    key: record.key ?? id,
    email: record.email ?? null,
    fullName,
    firstName,
    lastName,
    phoneNumber,
    attributes: record.attributes ?? null,
    isActive: record.is_active ?? true,
    accountId,
    createdAt,
    isEmailVerified: record.email !== undefined && (record.email_verified ?? false),
    passwordHash,
    mustChange,
  }
}

/** What a line says of how a person is called; the whole name is made of the parts where it is not given. */
export function namesOf(record: ImportedUser) {
  const {
    full_name: fullName,
    first_name: firstName,
    last_name: lastName,
    phone_number: phoneNumber,
  } = record
  const parts = { ...(firstName !== undefined && { firstName }), ...(lastName !== undefined && { lastName }) }
  const whole = fullName ?? nameOf(parts)
  return {
    ...parts,
    ...(whole !== undefined && { fullName: whole }),
    ...(phoneNumber !== undefined && { phoneNumber }),
  }
}

const rolesOf = ({ role, roles = [] }: ImportedUser): string[] =>
  role === undefined ? roles : [role, ...roles]

/** The primary role and the further ones, each once: in every account if that is its reach, else in the home account. */
function grantsOf(record: ImportedUser, person: NewPerson, roleOf: Named<NamedRole>): Grant[] {
  const primary = record.role === undefined ? undefined : roleOf(record.role)
  const distinct = new Map(
    rolesOf(record)
      .map(roleOf)
      .map((role) => [role.id, role]),
  )
  return [...distinct.values()].map((role) => ({
    id: newId(),
    userId: person.id,
    role,
    roleId: role.id,
    accountId: placeOf(role, person.accountId),
    isPrimary: role.id === primary?.id,
  }))
}

function placeOf({ key, defaultReach }: NamedRole, homeAccountId: string | null): string | null {
  if (defaultReach === 'any') return null
  return (
    homeAccountId ??
    fail('no_home_account', { detail: `the role ${key} is held in an account, and none is given` })
  )
}

/** Finds one by its key or, failing that, by its id. */
function finder<T extends { id: string; key: string }>(rows: readonly T[]): (name: string) => T | undefined {
  const byKey = new Map(rows.map((row) => [row.key, row]))
  const byId = new Map(rows.map((row) => [row.id, row]))
  return (name) => byKey.get(name) ?? byId.get(name.toLowerCase())
}

function orNothing<T>(work: () => T[]): T[] {
  try {
    return work()
  } catch {
    return []
  }
}

/** Whether it is what a line holds that stands against it. */
const isFaultOfLine = (error: unknown): boolean => error instanceof AppError || isUnstorable(error)

/** Why a line is refused, in words. @throws the error again when it is none of the line's */
export function reasonOf(error: unknown): string {
  if (!isFaultOfLine(error)) throw error
  if (!(error instanceof AppError)) return 'holds a character that cannot be stored'
  const faults = error.errors?.map(({ pointer, detail }) => `${pointer.replace('/body/', '')} ${detail}`)
  return faults?.join('; ') ?? error.message
}
