import { isDeepStrictEqual } from 'node:util'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, type FieldError } from '../errors.ts'
import { validateCondition } from '../policy/engine/conditions.ts'
import { assertHoldsAnywhere, type Caller } from '../principal.ts'
import type { RecencyCheck } from '../users/protection.ts'
import { type Change, diffOf } from './diff.ts'
import { assertWithinLimits } from './limits.ts'
import { type PolicyRecord, RECORD_KINDS, type RecordKind, recordsOf } from './records.ts'
import { createPolicyFileRepository } from './repository.ts'
import type { PolicyFacts, PolicyFile } from './schema.ts'
import { fileOf } from './write.ts'

type Dependencies = {
  database: Database
  environmentId: string
  /** Lets the changes of definitions through one at a time. */
  lockDefinitions: (tx: Tx) => Promise<void>
  /** Ends the tokens of these people. */
  raiseTokenVersions: (userIds: readonly string[], tx: Tx) => Promise<void>
  /** Machines pass. @throws AppError reauthentication_required */
  assertRecentAuthentication: RecencyCheck
  audit: AuditRepository
}

/** How many changes an audit row names. */
const NAMED_CHANGES = 200

/** The definitions of an environment as one document: read, compared and applied as a whole. */
export function createPolicyFileService(dependencies: Dependencies) {
  const { database, environmentId, lockDefinitions, raiseTokenVersions, assertRecentAuthentication, audit } =
    dependencies
  const { db } = database
  const repository = createPolicyFileRepository(environmentId)
  return {
    /** Every definition of the application, of one moment. */
    async read(): Promise<PolicyRecord[]> {
      return await db.transaction(async (tx) => await repository.readRecords(tx), {
        isolationLevel: 'repeatable read',
        accessMode: 'read only',
      })
    },

    /**
     * What applying the file would change. @throws AppError validation_failed, limit_reached
     * @param only `additions` leaves out what the file does not say: a template is laid over what is there
     */
    async diff(file: PolicyFile, only: 'everything' | 'additions' = 'everything'): Promise<Change[]> {
      const wanted = wantedRecords(file)
      return changesTo(await this.read(), wanted, only)
    },

    /**
     * Makes the definitions what the file says, in one transaction; the same file again changes nothing. Facts in
     * it are added and updated, never removed; those about accounts and people take what their own routes take, and so
     * does a role that no longer demands a second factor.
     * @throws AppError validation_failed, limit_reached, role_is_builtin, insufficient_scope, reauthentication_required
     */
    async apply(
      caller: Caller,
      file: PolicyFile,
      only: 'everything' | 'additions' = 'everything',
    ): Promise<Change[]> {
      const wanted = wantedRecords(file)
      if (file.facts) assertMayWrite(caller, file.facts)
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        await assertNoBuiltins(wanted, tx)
        const changes = changesTo(await repository.readRecords(tx), wanted, only)
        await assertMayLift(caller, changes, tx)
        await write(changes, tx)
        const given = file.facts ? await repository.writeFacts(file.facts, tx) : []
        if (changes.length > 0 || file.facts)
          await record(caller, changes, file.facts ? { facts: countsOf(file.facts) } : {}, tx)
        await audit.appendAll(
          given.map(({ userId, role, accountId, instanceId }) => ({
            action: 'role.assigned',
            caller,
            target: { type: 'user', id: userId },
            accountId,
            details: {
              role,
              account_id: accountId,
              ...(instanceId !== null && { resource_instance_id: instanceId }),
            },
          })),
          tx,
        )
        return changes
      })
    },

    /**
     * Lays definitions of another environment over those that are here, in the caller's transaction; nothing is
     * deleted.
     * @throws AppError definition_exists, validation_failed when something refers to what is neither among them nor
     *   here, limit_reached, role_is_builtin, insufficient_scope and reauthentication_required for a role that no
     *   longer demands a second factor
     */
    async overlay(
      caller: Caller,
      records: readonly PolicyRecord[],
      { onConflict, from }: { onConflict: 'fail' | 'overwrite'; from: string },
      tx: Tx,
    ): Promise<void> {
      await lockDefinitions(tx)
      const current = await repository.readRecords(tx)
      assertNoConflict(current, records, onConflict)
      const merged = new Map([...current, ...records].map((one) => [`${one.kind} ${one.name}`, one]))
      // As a file, so that it is checked as one that is applied; what `fileOf` writes is one.
      const wanted = wantedRecords(fileOf([...merged.values()]) as PolicyFile)
      await assertNoBuiltins(wanted, tx)
      const changes = changesTo(current, wanted, 'everything')
      await assertMayLift(caller, changes, tx)
      await write(changes, tx)
      if (changes.length > 0) await record(caller, changes, { copied_from: from }, tx)
    },
  }

  async function record(
    caller: Caller,
    changes: readonly Change[],
    further: Record<string, unknown>,
    tx: Tx,
  ): Promise<void> {
    await audit.append(
      {
        action: 'policy.applied',
        caller,
        target: { type: 'environment', id: environmentId },
        details: {
          changes: changes
            .slice(0, NAMED_CHANGES)
            .map(({ change, kind, name }) => `${change} ${kind} ${name}`),
          count: changes.length,
          ...further,
        },
      },
      tx,
    )
  }

  /**
   * Whoever has a role no longer demand a second factor needs what that takes on the role itself.
   * @throws AppError insufficient_scope, reauthentication_required
   */
  async function assertMayLift(caller: Caller, changes: readonly Change[], tx: Tx): Promise<void> {
    if (!changes.some(liftsDemand)) return
    assertHoldsAnywhere(caller, 'postern.roles:write')
    await assertRecentAuthentication(caller, tx)
  }

  async function write(changes: readonly Change[], tx: Tx): Promise<void> {
    const shrunk = changes.filter((change) => change.change !== 'add' && takesAway(change))
    const losing = await repository.listRolesBelow(
      shrunk.filter(({ kind }) => kind === 'role').map(({ name }) => name),
      tx,
    )
    const losesActions = shrunk.some(({ kind }) => kind === 'action' || kind === 'resource')
    // Asked before: with a role goes the knowledge of who held it.
    const holders = await repository.listHolders(losesActions ? undefined : losing, tx)
    for (const kind of RECORD_KINDS) {
      const written = changes.filter((change) => change.kind === kind && change.change !== 'delete')
      await repository.writeRecords(
        kind,
        written.map((change) => ('after' in change ? change.after : {})),
        tx,
      )
    }
    for (const kind of [...RECORD_KINDS].reverse()) {
      const removed = changes.filter((change) => change.kind === kind && change.change === 'delete')
      await repository.removeRecords(
        kind,
        removed.map((change) => ('before' in change ? change.before : {})),
        tx,
      )
    }
    await raiseTokenVersions(holders, tx)
  }

  async function assertNoBuiltins(wanted: readonly PolicyRecord[], tx: Tx): Promise<void> {
    const builtins = await repository.listBuiltinKeys(tx)
    const clash = wanted.find(({ kind, name }) => kind === 'role' && builtins.roles.includes(name))
    if (clash) throw new AppError('role_is_builtin', { detail: `${clash.name} is a built-in role` })
  }
}

/** @throws AppError insufficient_scope */
function assertMayWrite(caller: Caller, { accounts, users }: PolicyFacts): void {
  if (accounts) assertHoldsAnywhere(caller, 'postern.accounts:write')
  if (!users) return
  assertHoldsAnywhere(caller, 'postern.users:write')
  if (Object.values(users).some(({ roles }) => roles?.length))
    assertHoldsAnywhere(caller, 'postern.roles:assign')
}

/** @throws AppError validation_failed */
function wantedRecords(file: PolicyFile): PolicyRecord[] {
  const faults: FieldError[] = []
  for (const part of ['user_sets', 'resource_sets'] as const) {
    for (const [key, { conditions }] of Object.entries(file[part] ?? {})) {
      for (const { pointer, detail } of validateCondition(conditions)) {
        faults.push({ pointer: `/body/${part}/${key}/conditions${pointer}`, detail })
      }
    }
  }
  if (faults.length > 0) throw new AppError('validation_failed', { errors: faults.slice(0, 100) })
  return recordsOf(file)
}

/** Kinds whose definitions conflict when they have the same name; of others, only what they say matters. */
const CONFLICTING: ReadonlySet<RecordKind> = new Set(['resource', 'role', 'user_set', 'resource_set'])

/** @throws AppError definition_exists */
function assertNoConflict(
  current: readonly PolicyRecord[],
  records: readonly PolicyRecord[],
  onConflict: 'fail' | 'overwrite',
): void {
  const known = new Map(current.map((record) => [`${record.kind} ${record.name}`, record.value]))
  for (const { kind, name, value } of records) {
    const there = known.get(`${kind} ${name}`)
    if (!there) continue
    const isRefused =
      onConflict === 'overwrite'
        ? kind === 'relation' && there['subject_resource'] !== value['subject_resource']
        : CONFLICTING.has(kind) || !isDeepStrictEqual(there, value)
    if (isRefused)
      throw new AppError('definition_exists', { detail: `The environment already has the ${kind} ${name}` })
  }
}

/** @throws AppError limit_reached */
function changesTo(
  current: readonly PolicyRecord[],
  wanted: readonly PolicyRecord[],
  only: 'everything' | 'additions',
): Change[] {
  const changes = diffOf(current, wanted)
  if (only === 'everything') {
    assertWithinLimits(wanted)
    return changes
  }
  const isNew = new Set(
    changes.filter(({ change }) => change === 'add').map(({ kind, name }) => `${kind} ${name}`),
  )
  assertWithinLimits([...current, ...wanted.filter(({ kind, name }) => isNew.has(`${kind} ${name}`))])
  return changes.filter(({ change }) => change !== 'delete')
}

const countsOf = ({ accounts = {}, users = {}, instances = [], relationships = [] }: PolicyFacts) => ({
  accounts: Object.keys(accounts).length,
  users: Object.keys(users).length,
  roles: Object.values(users).reduce((count, { roles = [] }) => count + roles.length, 0),
  instances: instances.length,
  relationships: relationships.length,
})

/** True when a role no longer demands a second factor after the change. */
const liftsDemand = (change: Change): boolean =>
  change.change === 'update' &&
  change.kind === 'role' &&
  change.before['is_mfa_required'] === true &&
  change.after['is_mfa_required'] !== true

/** True when somebody may hold less after the change. */
function takesAway(change: Change): boolean {
  if (change.change === 'delete') return ['role', 'action', 'resource'].includes(change.kind)
  if (change.change === 'add' || change.kind !== 'role') return false
  const listOf = (value: PolicyRecord['value'], name: string) => new Set(value[name] as string[])
  return ['permissions', 'extends'].some((name) =>
    [...listOf(change.before, name)].some((held) => !listOf(change.after, name).has(held)),
  )
}
