import type { AuditAction, AuditTarget } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError, fail, type ProblemCode } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import type { DefinitionRow, DefinitionsRepository, Values } from './definitions-repository.ts'
import { assertApplicationKey } from './keys.ts'
import type { ResourceRow } from './repository.ts'

type Kind = Extract<AuditTarget['type'], 'action' | 'action_group' | 'attribute' | 'relation'>

/** The resource that a definition is on; null for what is defined of users. */
export type Owner = ResourceRow | null

/** What sets one kind of definition apart from the others. */
type Ways<Row extends DefinitionRow, Input extends object> = {
  kind: Kind
  notFound: ProblemCode
  rows: DefinitionsRepository<Row>
  /** The columns that the fields of an input stand for. `at` points to the input in the body. */
  valuesOf(input: Input, tx: Tx, at: string): Values | Promise<Values>
  /** Writes what is not in the row itself. */
  link?(id: string, owner: Owner, input: Input, tx: Tx, at: string): Promise<void>
  /** Runs before a definition is deleted, for those who lose by it. */
  beforeDelete?(row: Row, tx: Tx): Promise<void>
}

type Dependencies = {
  database: Database
  audit: AuditRepository
  lockDefinitions: (tx: Tx) => Promise<void>
  /** @throws AppError resource_not_found */
  requireOwner: (resourceId: string | null, ex?: Executor) => Promise<Owner>
}

export type DefinitionsService<Row extends DefinitionRow, New, Changes> = {
  /** @throws AppError resource_not_found, validation_failed for a foreign cursor */
  list(resourceId: string | null, filters: { key?: string }, request: PageRequest): Promise<Page<Row>>
  /** @throws AppError resource_not_found, or that there is no such definition */
  get(resourceId: string | null, id: string): Promise<Row>
  /** The same by key or, failing that, by id. */
  resolve(resourceId: string | null, keyOrId: string): Promise<Row>
  /** The same; `undefined` when there is none. */
  findNamed(resourceId: string | null, keyOrId: string, ex?: Executor): Promise<Row | undefined>
  /** @throws AppError resource_not_found, validation_failed, limit_reached, or that the key is taken */
  create(caller: Caller, resourceId: string | null, input: New): Promise<Row>
  /** The same in the caller's transaction, which holds `lockDefinitions`. `at` points to the input in the body. */
  add(caller: Caller, owner: Owner, input: New, tx: Tx, at: string): Promise<Row>
  /** @throws AppError resource_not_found, validation_failed, or that there is no such definition */
  update(caller: Caller, resourceId: string | null, id: string, changes: Changes): Promise<Row>
  /** The same in the caller's transaction, which holds `lockDefinitions`. */
  change(caller: Caller, owner: Owner, id: string, changes: Changes, tx: Tx): Promise<Row>
  /** @throws AppError resource_not_found, or that there is no such definition */
  remove(caller: Caller, resourceId: string | null, id: string): Promise<void>
  /** The same in the caller's transaction, which holds `lockDefinitions`. */
  drop(caller: Caller, owner: Owner, id: string, tx: Tx): Promise<void>
}

/** The rules that all definitions on a resource share. */
export function createDefinitionsService<
  Row extends DefinitionRow,
  New extends { key: string },
  Changes extends object,
>(
  { database, audit, lockDefinitions, requireOwner }: Dependencies,
  { kind, notFound, rows, valuesOf, link, beforeDelete }: Ways<Row, New | Changes>,
): DefinitionsService<Row, New, Changes> {
  const { db } = database

  const note = async (
    what: 'created' | 'updated' | 'deleted',
    caller: Caller,
    owner: Owner,
    { id, key }: Row,
    fields: readonly string[] | undefined,
    tx: Tx,
  ): Promise<void> =>
    await audit.append(
      {
        action: `${kind}.${what}` satisfies AuditAction,
        caller,
        target: { type: kind, id },
        details: { key, ...(owner && { resource: owner.key }), ...(fields && { fields }) },
      },
      tx,
    )

  return {
    async list(resourceId, filters, request) {
      await requireOwner(resourceId)
      return await rows.list(resourceId, filters, request)
    },

    async get(resourceId, id) {
      await requireOwner(resourceId)
      return (await rows.find(resourceId, id)) ?? fail(notFound)
    },

    async resolve(resourceId, keyOrId) {
      const named = await rows.findByKey(resourceId, keyOrId)
      if (named || !isUuid(keyOrId)) return named ?? fail(notFound)
      return await this.get(resourceId, keyOrId)
    },

    async findNamed(resourceId, keyOrId, ex) {
      const named = await rows.findByKey(resourceId, keyOrId, ex)
      return named ?? (isUuid(keyOrId) ? await rows.find(resourceId, keyOrId, ex) : undefined)
    },

    async create(caller, resourceId, input) {
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        return await this.add(caller, await requireOwner(resourceId, tx), input, tx, '/body')
      })
    },

    async add(caller, owner, input, tx, at) {
      assertApplicationKey(input.key, `${at}/key`)
      const id = newId()
      const values = await valuesOf(input, tx, at)
      await rows.insert({ ...values, id, key: input.key, resourceId: owner?.id ?? null }, tx)
      await link?.(id, owner, input, tx, at)
      const row = (await rows.find(owner?.id ?? null, id, tx)) ?? fail(notFound)
      await note('created', caller, owner, row, undefined, tx)
      return row
    },

    async update(caller, resourceId, id, changes) {
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        return await this.change(caller, await requireOwner(resourceId, tx), id, changes, tx)
      })
    },

    async change(caller, owner, id, changes, tx) {
      const resourceId = owner?.id ?? null
      if (!(await rows.find(resourceId, id, tx))) throw new AppError(notFound)
      await rows.update(id, await valuesOf(changes, tx, '/body'), tx)
      await link?.(id, owner, changes, tx, '/body')
      const row = (await rows.find(resourceId, id, tx)) ?? fail(notFound)
      await note('updated', caller, owner, row, Object.keys(changes), tx)
      return row
    },

    async remove(caller, resourceId, id) {
      await transact(db, async (tx) => {
        await lockDefinitions(tx)
        await this.drop(caller, await requireOwner(resourceId, tx), id, tx)
      })
    },

    async drop(caller, owner, id, tx) {
      const row = (await rows.find(owner?.id ?? null, id, tx)) ?? fail(notFound)
      await beforeDelete?.(row, tx)
      await rows.delete(id, tx)
      await note('deleted', caller, owner, row, undefined, tx)
    },
  }
}
