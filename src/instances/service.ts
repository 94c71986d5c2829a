import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail, type ProblemCode } from '../errors.ts'
import { type Fault, throwFirst } from '../faults.ts'
import { isUuid, newId } from '../ids.ts'
import { APPLICATION_KEY } from '../permissions.ts'
import { splitInstance } from '../policy/facts-repository.ts'
import type { Caller } from '../principal.ts'
import type { InstanceName, InstanceRow, InstancesRepository, Located, TupleRow } from './repository.ts'

type Json = Record<string, unknown>

/** `resource`: key. `account`: key or id. */
export type NewInstance = { resource: string; key: string; account: string; attributes?: Json | null }

/** `subject` and `object`: `type:key`, or `type:id`. `relation`: key. */
export type TupleName = { subject: string; relation: string; object: string }

/** `account`, key or id: where instances that are missing are created. */
export type NewTuple = TupleName & { account?: string }

/** `isBesideOther`: an end that is missing is created in the account of the other one, if the tuple names none. */
type Placement = { isBesideOther?: boolean }

/** What a bulk write of tuples did. */
export type TuplesChanged = {
  created: number
  /** Those to create that were there. */
  existing: number
  deleted: number
  /** Those to delete that were not there. */
  missing: number
  instancesCreated: number
}

/** The keys of instances: whatever is printable. Under the flag `u`, so that halves of characters are refused. */
export const INSTANCE_KEY = '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\ud800-\\udfff]+$'
export const LONGEST_INSTANCE_KEY = 512

const LONGEST_KEY = 128
const ENDS = ['subject', 'object'] as const

export type InstancesService = ReturnType<typeof createInstancesService>

type Dependencies = {
  database: Database
  environmentId: string
  instances: InstancesRepository
  audit: AuditRepository
}

/** Instances of the application's resources, and the relationships between them. */
export function createInstancesService({ database, environmentId, instances, audit }: Dependencies) {
  const { db } = database
  const environment = { type: 'environment', id: environmentId } as const

  return {
    listInstances: instances.listInstances,
    listTuples: instances.listTuples,

    /** @throws AppError instance_not_found */
    async getInstance(id: string): Promise<InstanceRow> {
      return (await instances.findInstance(id)) ?? fail('instance_not_found')
    },

    /** The instance of this id or name (`type:key`, then `type:id`), if there is one. */
    findInstance: instances.findInstanceNamed,

    /** @throws AppError resource_not_found, account_not_found, instance_key_taken, validation_failed */
    async createInstance(caller: Caller, input: NewInstance): Promise<InstanceRow> {
      return await transact(db, async (tx) => {
        throwFirst(keyFaults(input.key, '/body/key'))
        const { resource, account, ...fields } = input
        const resourceId = (await instances.holdResources([resource], tx)).get(resource)
        const accountId = (await instances.holdAccounts([account], tx)).get(account)
        const id = newId()
        await instances.insertInstance(
          {
            ...fields,
            id,
            resourceId: resourceId ?? fail('resource_not_found'),
            accountId: accountId ?? fail('account_not_found'),
          },
          tx,
        )
        const created = (await instances.findInstance(id, tx)) ?? fail('instance_not_found')
        await audit.append(instanceEvent('instance.created', caller, created), tx)
        return created
      })
    },

    /** Replaces the attributes. @throws AppError instance_not_found */
    async updateInstance(
      caller: Caller,
      id: string,
      changes: { attributes: Json | null },
    ): Promise<InstanceRow> {
      return await transact(db, async (tx) => {
        const instance = (await instances.lockInstance(id, tx)) ?? fail('instance_not_found')
        await instances.updateInstance(id, changes, tx)
        await audit.append(instanceEvent('instance.updated', caller, instance), tx)
        return (await instances.findInstance(id, tx)) ?? fail('instance_not_found')
      })
    },

    /** Deletes it with its relationships and the roles held on it. @throws AppError instance_not_found */
    async deleteInstance(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const instance = (await instances.lockInstance(id, tx)) ?? fail('instance_not_found')
        await instances.deleteInstances([id], tx)
        await audit.append(instanceEvent('instance.deleted', caller, instance), tx)
      })
    },

    /**
     * The same for many, all of them or none; those that are not there are passed over.
     * @param refs names (`type:key`, then `type:id`) or ids
     * @param pointer where in the request the list stands
     * @throws AppError validation_failed for what is no name
     */
    async deleteInstances(caller: Caller, refs: readonly string[], pointer: string): Promise<void> {
      await transact(db, async (tx) => {
        const { located } = await locate(
          refs.map((ref, index) => ({ ref, pointer: `${pointer}/${index}` })),
          tx,
          'find',
        )
        const ids = distinct([...located.values()].map(({ id }) => id))
        if (ids.length === 0) return
        const rows = await instances.lockInstances(ids, tx)
        await instances.deleteInstances(ids, tx)
        await audit.appendAll(
          rows.map((row) => instanceEvent('instance.deleted', caller, row)),
          tx,
        )
      })
    },

    /**
     * Creates what is not there and gives what is there the attributes that are given, all of it or nothing.
     * @param pointer where in the request the list stands
     * @throws AppError resource_not_found, account_not_found, validation_failed; instance_key_taken for one that is
     *   there in another account
     */
    async upsertInstances(
      caller: Caller,
      inputs: readonly NewInstance[],
      pointer = '/body/instances',
    ): Promise<{ created: number; updated: number }> {
      if (inputs.length === 0) return { created: 0, updated: 0 }
      return await transact(db, async (tx) => {
        const resourceIds = await instances.holdResources(distinct(inputs.map((one) => one.resource)), tx)
        const accountIds = await instances.holdAccounts(distinct(inputs.map((one) => one.account)), tx)
        const faults: Fault[] = []
        const places = new Map<string, string>()
        const rows = inputs.map((input, index) => {
          const at = `${pointer}/${index}`
          const resourceId = resourceIds.get(input.resource)
          const accountId = accountIds.get(input.account)
          if (resourceId === undefined) faults.push(faultOf('resource_not_found', `${at}/resource`))
          if (accountId === undefined) faults.push(faultOf('account_not_found', `${at}/account`))
          faults.push(...keyFaults(input.key, `${at}/key`))
          const name = `${input.resource}:${input.key}`
          if (places.has(name))
            faults.push(faultOf('validation_failed', `${at}/key`, `is that of ${places.get(name)} too`))
          places.set(name, at)
          return {
            id: newId(),
            resourceId: resourceId ?? '',
            accountId: accountId ?? '',
            key: input.key,
            attributes: input.attributes ?? null,
          }
        })
        throwFirst(faults)
        const written = await instances.upsertInstances(rows, tx)
        const done = new Set(written.map(({ resourceId, key }) => `${resourceId}:${key}`))
        throwFirst(
          rows.flatMap(({ resourceId, key }, index) =>
            done.has(`${resourceId}:${key}`)
              ? []
              : [faultOf('instance_key_taken', `${pointer}/${index}/key`, 'is taken in another account')],
          ),
        )
        const created = written.filter(({ isNew }) => isNew).length
        const counts = { created, updated: written.length - created }
        await audit.append(
          {
            action: 'instance.bulk_upserted',
            caller,
            target: environment,
            accountId: theOne(rows.map(({ accountId }) => accountId)),
            details: counts,
          },
          tx,
        )
        return counts
      })
    },

    /**
     * The instance of this name, held until the transaction ends; with `account` (key or id) it is created when it is
     * missing.
     * @throws AppError instance_not_found, resource_not_found, account_not_found, instance_key_taken, validation_failed
     */
    async ensureInstance(
      caller: Caller,
      ref: string,
      account: string | undefined,
      tx: Tx,
    ): Promise<InstanceRow> {
      const pointer = '/body/resource_instance'
      const { id } =
        (await this.ensureInstances(caller, [{ ref, account, pointer }], tx)).get(ref) ??
        fail('instance_not_found')
      return (await instances.findInstance(id, tx)) ?? fail('instance_not_found')
    },

    /**
     * The same for many, by the names or ids that they were asked for by.
     * @param creating is called before instances are created, and may refuse; `find`: none are
     */
    async ensureInstances(
      caller: Caller,
      named: readonly NamedInstance[],
      tx: Tx,
      creating: (() => void) | 'find' = () => {},
    ): Promise<Map<string, Located>> {
      if (named.length === 0) return new Map()
      const { located, created } = await locate(named, tx, creating)
      if (created.length === 0) return located
      await audit.appendAll(
        (await instances.listInstancesById(created, tx)).map((row) =>
          instanceEvent('instance.created', caller, row),
        ),
        tx,
      )
      return located
    },

    /** @throws AppError tuple_not_found */
    async getTuple(id: string): Promise<TupleRow> {
      return (await instances.findTuple(id)) ?? fail('tuple_not_found')
    },

    /**
     * Puts one instance into a relation to another. Those that are missing are created in `account`; without one, or
     * when both are there, it says nothing.
     * @throws AppError tuple_exists, instance_not_found, resource_not_found, account_not_found, relation_mismatch,
     *   instances_in_different_accounts, validation_failed
     */
    async createTuple(
      caller: Caller,
      input: NewTuple,
      { isBesideOther = false }: Placement = {},
    ): Promise<TupleRow> {
      return await transact(db, async (tx) => {
        const { ids, created } = await writeTuples([input], () => '/body', isBesideOther, tx)
        const [id = fail('tuple_exists')] = ids
        for (const instanceId of created) {
          const instance = (await instances.findInstance(instanceId, tx)) ?? fail('instance_not_found')
          await audit.append(instanceEvent('instance.created', caller, instance), tx)
        }
        const tuple = (await instances.findTuple(id, tx)) ?? fail('tuple_not_found')
        await audit.append(tupleEvent('tuple.created', caller, tuple), tx)
        return tuple
      })
    },

    /** @throws AppError tuple_not_found */
    async deleteTuple(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const tuple = (await instances.findTuple(id, tx)) ?? fail('tuple_not_found')
        if (!(await instances.deleteTuple(id, tx))) throw new AppError('tuple_not_found')
        await audit.append(tupleEvent('tuple.deleted', caller, tuple), tx)
      })
    },

    /**
     * The same as `createTuple` for many, all of them or none.
     * @param options.existing whether one that is there is an error or left alone
     * @param options.pointer where in the request the list stands
     * @throws AppError as createTuple does
     */
    async createTuples(
      caller: Caller,
      tuples: readonly NewTuple[],
      { pointer, ...options }: { existing: 'fail' | 'skip'; pointer?: string } & Placement,
    ): Promise<TuplesChanged> {
      const pointers = pointer === undefined ? {} : { create: pointer }
      return await changeTuples(caller, { create: tuples }, { ...options, missing: 'skip', pointers })
    },

    /**
     * Deletes many, all of them or none.
     * @param options.missing whether one that is not there is an error or passed over
     * @throws AppError tuple_not_found, validation_failed
     */
    async deleteTuples(
      caller: Caller,
      tuples: readonly TupleName[],
      { missing, pointer }: { missing: 'fail' | 'skip'; pointer?: string },
    ): Promise<TuplesChanged> {
      const pointers = pointer === undefined ? {} : { delete: pointer }
      return await changeTuples(caller, { delete: tuples }, { existing: 'skip', missing, pointers })
    },

    changeTuples,
  }

  /**
   * Deletes, then creates, in one transaction.
   * @throws AppError as createTuple does; tuple_not_found
   */
  async function changeTuples(
    caller: Caller,
    changes: { create?: readonly NewTuple[]; delete?: readonly TupleName[] },
    options: {
      existing: 'fail' | 'skip'
      missing: 'fail' | 'skip'
      pointers?: { create?: string; delete?: string }
    } & Placement,
  ): Promise<TuplesChanged> {
    const { create = [], delete: remove = [] } = changes
    const { existing, missing, pointers, isBesideOther = false } = options
    const at = { create: '/body/create', delete: '/body/delete', ...pointers }
    return await transact(db, async (tx) => {
      const deleted = await removeTuples(remove, (index) => `${at.delete}/${index}`, tx)
      const written = await writeTuples(create, (index) => `${at.create}/${index}`, isBesideOther, tx)
      const counts = {
        created: written.ids.length,
        existing: create.length - written.ids.length,
        deleted: deleted.ids.length,
        missing: remove.length - deleted.ids.length,
        instancesCreated: written.created.length,
      }
      if (counts.existing > 0 && existing === 'fail') throw new AppError('tuple_exists')
      if (counts.missing > 0 && missing === 'fail') throw new AppError('tuple_not_found')
      if (counts.created + counts.deleted > 0) {
        await audit.append(
          {
            action: 'tuple.bulk_changed',
            caller,
            target: environment,
            accountId: theOne([...deleted.accountIds, ...written.accountIds]),
            details: {
              created: counts.created,
              deleted: counts.deleted,
              instances_created: counts.instancesCreated,
            },
          },
          tx,
        )
      }
      return counts
    })
  }

  async function removeTuples(tuples: readonly TupleName[], at: (index: number) => string, tx: Tx) {
    if (tuples.length === 0) return { ids: [], accountIds: [] }
    const { located } = await locate(namesOf(tuples, at), tx, 'find')
    const known = tuples.flatMap(({ subject, relation, object }) => {
      const [from, to] = [located.get(subject), located.get(object)]
      return from && to ? [{ subjectId: from.id, relation, objectId: to.id, accountId: to.accountId }] : []
    })
    const ids = known.length === 0 ? [] : await instances.deleteTuples(known, tx)
    return { ids, accountIds: known.map(({ accountId }) => accountId) }
  }

  /** Those that name no account with that of the end that is there. */
  async function besideOther(tuples: readonly NewTuple[], at: (index: number) => string, tx: Tx) {
    const homeless = tuples.filter(({ account }) => account === undefined)
    if (homeless.length === 0) return tuples
    const { located } = await locate(namesOf(homeless, at), tx, 'find')
    return tuples.map((tuple): NewTuple => {
      const other = located.get(tuple.subject) ?? located.get(tuple.object)
      return tuple.account === undefined && other ? { ...tuple, account: other.accountId } : tuple
    })
  }

  /** @returns the ids of new tuples and of instances created for them */
  async function writeTuples(
    tuples: readonly NewTuple[],
    at: (index: number) => string,
    isBesideOther: boolean,
    tx: Tx,
  ) {
    if (tuples.length === 0) return { ids: [], created: [], accountIds: [] }
    const placed = isBesideOther ? await besideOther(tuples, at, tx) : tuples
    const { located, created } = await locate(namesOf(placed, at), tx)
    const ends = tuples.map(({ subject, relation, object }) => ({
      from: located.get(subject) ?? fail('instance_not_found'),
      relation,
      to: located.get(object) ?? fail('instance_not_found'),
    }))
    throwFirst(
      ends.flatMap(({ from, to }, index) =>
        from.accountId === to.accountId
          ? []
          : [
              faultOf(
                'instances_in_different_accounts',
                `${at(index)}/object`,
                'belongs to another account than the subject',
              ),
            ],
      ),
    )
    const wanted = new Map(
      ends.map(({ relation, to }) => [
        `${to.name.type}#${relation}`,
        { objectType: to.name.type, key: relation },
      ]),
    )
    const relations = new Map(
      (await instances.holdRelations([...wanted.values()], tx)).map((relation) => [
        `${relation.objectType}#${relation.key}`,
        relation,
      ]),
    )
    const faults: Fault[] = []
    const rows = ends.map(({ from, relation: key, to }, index) => {
      const relation = relations.get(`${to.name.type}#${key}`)
      if (relation?.subjectType !== from.name.type) {
        faults.push(
          faultOf(
            'relation_mismatch',
            `${at(index)}/relation`,
            relation
              ? `connects ${relation.subjectType}, not ${from.name.type}, to ${to.name.type}`
              : `is not a relation of ${to.name.type}`,
          ),
        )
      }
      const { id: subjectId, accountId } = from
      return { id: newId(), subjectId, relationId: relation?.id ?? '', objectId: to.id, accountId }
    })
    throwFirst(faults)
    return {
      ids: await instances.insertMissingTuples(rows, tx),
      created,
      accountIds: rows.map(({ accountId }) => accountId),
    }
  }

  /**
   * The instances of these names or ids, held until the transaction ends. One that is missing is created in the
   * account that stands beside its name, or, to `find` only, left out.
   */
  async function locate(
    named: readonly NamedInstance[],
    tx: Tx,
    creating: (() => void) | 'find' = () => {},
  ): Promise<{ located: Map<string, Located>; created: string[] }> {
    const byId = named.filter(({ ref }) => isUuid(ref))
    const byName = named.filter(({ ref }) => !isUuid(ref))
    throwFirst(byName.flatMap(({ ref, pointer }) => nameFaults(ref, pointer)))
    const names = distinctNames(byName)
    const located = byRef(byName, await instances.holdInstances(names, tx))
    const ids = distinct(byId.map(({ ref }) => ref))
    const known = new Map((await instances.holdInstancesById(ids, tx)).map((one) => [one.id, one]))
    for (const { ref } of byId) {
      const found = known.get(ref.toLowerCase())
      if (found) located.set(ref, found)
    }
    const missing = named.filter(({ ref }) => !located.has(ref))
    if (missing.length === 0 || creating === 'find') return { located, created: [] }
    throwFirst(
      missing.flatMap(({ ref, account, pointer }) =>
        account === undefined || isUuid(ref) ? [faultOf('instance_not_found', pointer)] : [],
      ),
    )
    creating()
    const created = await createMissing(missing, tx)
    for (const [ref, found] of byRef(byName, await instances.holdInstances(names, tx)))
      located.set(ref, found)
    return { located, created }
  }

  async function createMissing(missing: readonly NamedInstance[], tx: Tx): Promise<string[]> {
    const resourceIds = await instances.holdResources(
      distinct(missing.map(({ ref }) => splitInstance(ref).type)),
      tx,
    )
    const accountIds = await instances.holdAccounts(distinct(missing.map(({ account = '' }) => account)), tx)
    const rows = new Map<string, { id: string; resourceId: string; key: string; accountId: string }>()
    const faults: Fault[] = []
    for (const { ref, account = '', pointer } of missing) {
      const { type, key } = splitInstance(ref)
      const [resourceId, accountId] = [resourceIds.get(type), accountIds.get(account)]
      if (resourceId === undefined) faults.push(faultOf('resource_not_found', pointer))
      else if (accountId === undefined)
        faults.push(faultOf('account_not_found', pointer.replace(/[^/]+$/, 'account')))
      else if ((rows.get(ref)?.accountId ?? accountId) !== accountId)
        faults.push(faultOf('instances_in_different_accounts', pointer, 'would be created in two accounts'))
      else if (!rows.has(ref)) rows.set(ref, { id: newId(), resourceId, key, accountId })
    }
    throwFirst(faults)
    return await instances.insertMissingInstances([...rows.values()], tx)
  }
}

/** A name or id as the request has it, where, and the account beside it. */
export type NamedInstance = { ref: string; account?: string | undefined; pointer: string }

/** The names of both ends. */
const namesOf = (tuples: readonly NewTuple[], at: (index: number) => string): NamedInstance[] =>
  tuples.flatMap((tuple, index) =>
    ENDS.map((end) => ({ ref: tuple[end], account: tuple.account, pointer: `${at(index)}/${end}` })),
  )

const distinct = (values: readonly string[]): string[] => [...new Set(values)]

const distinctNames = (named: readonly NamedInstance[]): InstanceName[] =>
  distinct(named.map(({ ref }) => ref)).map(splitInstance)

function byRef(named: readonly NamedInstance[], found: readonly Located[]): Map<string, Located> {
  const known = new Map(found.map((one) => [`${one.name.type}:${one.name.key}`, one]))
  return new Map(
    named.flatMap(({ ref }) => {
      const located = known.get(ref)
      return located ? [[ref, located]] : []
    }),
  )
}

/** The one value that all of them are; null when there are several, or none. */
const theOne = (values: readonly string[]): string | null => {
  const [only, ...others] = new Set(values)
  return only === undefined || others.length > 0 ? null : only
}

const TYPE = new RegExp(APPLICATION_KEY)
const KEY = new RegExp(INSTANCE_KEY, 'u')

function nameFaults(ref: string, pointer: string): Fault[] {
  const { type, key } = splitInstance(ref)
  if (TYPE.test(type) && type.length <= LONGEST_KEY && isKey(key)) return []
  return [faultOf('validation_failed', pointer, 'must be `type:key`')]
}

const keyFaults = (key: string, pointer: string): Fault[] =>
  isKey(key)
    ? []
    : [faultOf('validation_failed', pointer, `must be 1 to ${LONGEST_INSTANCE_KEY} printable characters`)]

const isKey = (key: string): boolean => KEY.test(key) && [...key].length <= LONGEST_INSTANCE_KEY

const faultOf = (code: ProblemCode, pointer: string, detail = 'does not exist'): Fault => ({
  code,
  pointer,
  detail,
})

/** Keys of instances may be what identifies somebody, and are kept apart. */
const instanceEvent = (
  action: 'instance.created' | 'instance.updated' | 'instance.deleted',
  caller: Caller,
  { id, resource, key, accountId }: InstanceRow,
) =>
  ({
    action,
    caller,
    target: { type: 'instance', id },
    accountId,
    details: { resource },
    personal: { key },
  }) as const

const tupleEvent = (action: 'tuple.created' | 'tuple.deleted', caller: Caller, tuple: TupleRow) =>
  ({
    action,
    caller,
    target: { type: 'tuple', id: tuple.id },
    accountId: tuple.accountId,
    details: { subject_id: tuple.subjectId, relation: tuple.relation, object_id: tuple.objectId },
  }) as const
