import { and, asc, eq, inArray, isNull, sql } from 'drizzle-orm'
import type { SelectedFields } from 'drizzle-orm/pg-core'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import {
  type AttributeType,
  actionGroupActions,
  actionGroups,
  actions,
  attributeDefinitions,
  relations,
} from '../db/schema.ts'
import { AppError, type ProblemCode } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { assertBelow, type LIMITS } from './limits.ts'

/** What every definition on a resource has. `resourceId` null: an attribute of users. */
export type DefinitionRow = {
  id: string
  resourceId: string | null
  key: string
  description: string | null
  createdAt: Date
  updatedAt: Date
}
type Json = Record<string, unknown>
export type ActionRow = DefinitionRow & { name: string; attributes: Json | null }
export type ActionGroupRow = ActionRow & { actions: string[] }
export type AttributeRow = DefinitionRow & { type: AttributeType }
export type RelationRow = DefinitionRow & { name: string; subjectResourceId: string; subjectResource: string }

type Table = typeof actions | typeof actionGroups | typeof attributeDefinitions | typeof relations

/** How the definitions of one kind are stored, and what is said when they cannot be. */
type Storage = {
  table: Table
  /** The columns beyond those that every definition has. */
  columns: SelectedFields
  uniqueKey: string
  taken: ProblemCode
  limitOf: (resourceId: string | null) => keyof typeof LIMITS
}

export type DefinitionsRepository<Row extends DefinitionRow> = {
  list(resourceId: string | null, filters: { key?: string }, request: PageRequest): Promise<Page<Row>>
  /** All of these resources, the oldest first. */
  listOf(resourceIds: readonly string[], ex?: Executor): Promise<Row[]>
  find(resourceId: string | null, id: string, ex?: Executor): Promise<Row | undefined>
  findByKey(resourceId: string | null, key: string, ex?: Executor): Promise<Row | undefined>
  /** @throws AppError `taken` of the kind, limit_reached */
  insert(values: Values & { id: string; key: string }, tx: Tx): Promise<void>
  update(id: string, changes: Values, tx: Tx): Promise<void>
  delete(id: string, tx: Tx): Promise<void>
}

/** Columns to write. `undefined` keeps what is there. */
export type Values = {
  resourceId?: string | null
  name?: string
  description?: string | null
  attributes?: Json | null
  type?: AttributeType
  subjectResourceId?: string
}

const actionsOfGroup = sql`coalesce((
  select array_agg(member.key order by member.key collate "C")
  from action_group_actions join actions member on member.id = action_group_actions.action_id
  where action_group_actions.group_id = action_groups.id), '{}')`

const subjectOfRelation = sql`(
  select subject.key from resources subject where subject.id = relations.subject_resource_id)`

export type DefinitionsRepositories = ReturnType<typeof createDefinitionsRepositories>

/** Actions, action groups, attributes and relations: four tables of the same shape. */
export function createDefinitionsRepositories(database: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const repositoryOf = <Row extends DefinitionRow>(storage: Storage) =>
    createRepository<Row>(database, environmentId, storage)

  return {
    actions: repositoryOf<ActionRow>({
      table: actions,
      columns: { name: actions.name, attributes: actions.attributes },
      uniqueKey: 'actions_key_key',
      taken: 'action_key_taken',
      limitOf: () => 'actions',
    }),
    actionGroups: repositoryOf<ActionGroupRow>({
      table: actionGroups,
      columns: { name: actionGroups.name, attributes: actionGroups.attributes, actions: actionsOfGroup },
      uniqueKey: 'action_groups_key_key',
      taken: 'action_group_key_taken',
      limitOf: () => 'actionGroups',
    }),
    attributes: repositoryOf<AttributeRow>({
      table: attributeDefinitions,
      columns: { type: attributeDefinitions.type },
      uniqueKey: 'attribute_definitions_key_key',
      taken: 'attribute_key_taken',
      limitOf: (resourceId) => (resourceId === null ? 'userAttributes' : 'attributes'),
    }),
    relations: repositoryOf<RelationRow>({
      table: relations,
      columns: {
        name: relations.name,
        subjectResourceId: relations.subjectResourceId,
        subjectResource: subjectOfRelation,
      },
      uniqueKey: 'relations_key_key',
      taken: 'relation_key_taken',
      limitOf: () => 'relations',
    }),

    /** The ids of a resource's actions by key; those that it does not have are not in it. */
    async findActionIds(resourceId: string, keys: readonly string[], tx: Tx): Promise<Map<string, string>> {
      if (keys.length === 0) return new Map()
      const found = await tx
        .select({ id: actions.id, key: actions.key })
        .from(actions)
        .where(and(eq(actions.resourceId, resourceId), inArray(actions.key, [...keys])))
      return new Map(found.map(({ id, key }) => [key, id]))
    },

    async replaceGroupActions(
      groupId: string,
      resourceId: string,
      actionIds: readonly string[],
      tx: Tx,
    ): Promise<void> {
      await tx.delete(actionGroupActions).where(eq(actionGroupActions.groupId, groupId))
      if (actionIds.length === 0) return
      await tx
        .insert(actionGroupActions)
        .values(actionIds.map((actionId) => ({ resourceId, groupId, actionId })))
    },
  }
}

function createRepository<Row extends DefinitionRow>(
  { db }: Database,
  environmentId: string,
  { table: stored, columns: further, uniqueKey, taken, limitOf }: Storage,
): DefinitionsRepository<Row> {
  // The four tables differ in columns that are named by `further` and `Values` alone.
  const table = stored as typeof attributeDefinitions
  const columns = {
    id: table.id,
    resourceId: table.resourceId,
    key: table.key,
    description: table.description,
    createdAt: table.createdAt,
    updatedAt: table.updatedAt,
    ...further,
  }
  const sortKeys: Record<string, SortKey<Row>> = {
    created_at: { by: table.id, cast: 'uuid', value: (row) => row.id },
  }
  const isOf = (resourceId: string | null) =>
    and(
      eq(table.environmentId, environmentId),
      resourceId === null ? isNull(table.resourceId) : eq(table.resourceId, resourceId),
    )
  // What `columns` selects is a Row by the choice of `further`, which Drizzle's types cannot follow.
  const select = (ex: Executor) => ex.select(columns as typeof table._.columns).from(table)
  const rowsOf = (rows: unknown[]) => rows as Row[]

  return {
    async list(resourceId, filters, request) {
      const clauses = pageClauses(request, sortKeys, table.id)
      const matching = allOf(
        isOf(resourceId),
        filters.key === undefined ? undefined : eq(table.key, filters.key),
      )
      const page = clauses.toPage(
        rowsOf(
          await select(db)
            .where(allOf(matching, clauses.where))
            .orderBy(...clauses.orderBy)
            .limit(clauses.limit)
            .offset(clauses.offset),
        ),
      )
      return request.total ? { ...page, total: await db.$count(table, matching) } : page
    },

    async listOf(resourceIds, ex = db) {
      return rowsOf(
        await select(ex)
          .where(and(eq(table.environmentId, environmentId), inArray(table.resourceId, [...resourceIds])))
          .orderBy(asc(table.id)),
      )
    },

    async find(resourceId, id, ex = db) {
      return rowsOf(await select(ex).where(and(isOf(resourceId), eq(table.id, id))))[0]
    },

    async findByKey(resourceId, key, ex = db) {
      return rowsOf(await select(ex).where(and(isOf(resourceId), eq(table.key, key))))[0]
    },

    async insert(values, tx) {
      const resourceId = values.resourceId ?? null
      assertBelow(limitOf(resourceId), await tx.$count(table, isOf(resourceId)))
      if (isUuid(values.key)) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(
          table,
          and(eq(table.environmentId, environmentId), eq(table.id, values.key)),
        )
        if (clashes > 0) throw new AppError(taken)
      }
      try {
        await tx.insert(table).values({ ...values, environmentId } as typeof table.$inferInsert)
      } catch (error) {
        if (isUniqueViolation(error, uniqueKey)) throw new AppError(taken, { cause: error })
        throw error
      }
    },

    async update(id, changes, tx) {
      await tx
        .update(table)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(table.id, id))
    },

    async delete(id, tx) {
      await tx.delete(table).where(eq(table.id, id))
    },
  }
}
