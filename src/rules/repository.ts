import { and, asc, eq, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { actions, conditionSets, resources, roles, setRules } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'

type Json = Record<string, unknown>

export type SetType = 'userset' | 'resourceset'

export type ConditionSetRow = {
  id: string
  key: string
  name: string
  type: SetType
  /** The resource of a resource set, by id and by key. */
  resourceId: string | null
  resource: string | null
  description: string | null
  conditions: Json
  /** By id and by key. */
  parentId: string | null
  parent: string | null
  createdAt: Date
  updatedAt: Date
}

export type ConditionSetChanges = Partial<
  Pick<ConditionSetRow, 'name' | 'description' | 'conditions' | 'parentId'>
>

/** `resource`: key. `parent`: key or id. */
export type ConditionSetFilters = { type?: SetType; key?: string; resource?: string; parent?: string }

/** A user set or a role (`role`, or `resource#role`); a resource set or a resource; by key, and by id. */
export type SetRuleRow = {
  id: string
  userSetId: string | null
  userSet: string | null
  roleId: string | null
  role: string | null
  actionId: string
  /** `resource:action`. */
  permission: string
  resourceSetId: string | null
  resourceSet: string | null
  resourceId: string | null
  resource: string | null
  createdAt: Date
}

/** `userSet`, `resourceSet`, `action`: key or id. The others are keys. */
export type SetRuleFilters = {
  userSet?: string
  role?: string
  permission?: string
  action?: string
  resourceSet?: string
  resource?: string
}

/** What a rule points at. */
export type RuleEnds = {
  userSetId: string | null
  roleId: string | null
  actionId: string
  resourceSetId: string | null
  resourceId: string | null
}

const parents = alias(conditionSets, 'parents')

const setColumns = {
  id: conditionSets.id,
  key: conditionSets.key,
  name: conditionSets.name,
  type: conditionSets.type,
  resourceId: conditionSets.resourceId,
  resource: resources.key,
  description: conditionSets.description,
  conditions: conditionSets.conditions,
  parentId: conditionSets.parentId,
  parent: parents.key,
  createdAt: conditionSets.createdAt,
  updatedAt: conditionSets.updatedAt,
}

const setSortKeys: Record<string, SortKey<ConditionSetRow>> = {
  created_at: { by: conditionSets.id, cast: 'uuid', value: (row) => row.id },
  key: { by: conditionSets.key, cast: 'text', value: (row) => row.key },
}

/** The names that a list of sets can be sorted by. */
export const CONDITION_SET_SORTS = ['created_at', 'key'] as const

const userSets = alias(conditionSets, 'user_sets')
const resourceSets = alias(conditionSets, 'resource_sets')
const roleResources = alias(resources, 'role_resources')
const actionResources = alias(resources, 'action_resources')

const roleName = sql<
  string | null
>`case when ${roleResources.key} is null then ${roles.key} else ${roleResources.key} || '#' || ${roles.key} end`
const permission = sql<string>`${actionResources.key} || ':' || ${actions.key}`

const ruleColumns = {
  id: setRules.id,
  userSetId: setRules.userSetId,
  userSet: userSets.key,
  roleId: setRules.roleId,
  role: roleName,
  actionId: setRules.actionId,
  permission,
  resourceSetId: setRules.resourceSetId,
  resourceSet: resourceSets.key,
  resourceId: setRules.resourceId,
  resource: resources.key,
  createdAt: setRules.createdAt,
}

const ruleSortKeys: Record<string, SortKey<SetRuleRow>> = {
  created_at: { by: setRules.id, cast: 'uuid', value: (row) => row.id },
}

export type RulesRepository = ReturnType<typeof createRulesRepository>

/**
 * Condition sets and the rules over them. What a transaction looks up in order to point at it is locked, so that it
 * is still there when the row that points at it is written.
 */
export function createRulesRepository({ db, prepare }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const env = sql`${environmentId}::uuid`

  return {
    async listConditionSets(
      filters: ConditionSetFilters,
      request: PageRequest,
    ): Promise<Page<ConditionSetRow>> {
      const clauses = pageClauses(request, setSortKeys, conditionSets.id)
      const { type, key, resource, parent } = filters
      const matching = allOf(
        eq(conditionSets.environmentId, environmentId),
        type === undefined ? undefined : eq(conditionSets.type, type),
        key === undefined ? undefined : eq(conditionSets.key, key),
        resource === undefined
          ? undefined
          : sql`${conditionSets.resourceId} = (select r.id from resources r
              where r.environment_id = ${env} and r.key = ${resource})`,
        parent === undefined ? undefined : sql`${conditionSets.parentId} = ${setNamed(parent)}`,
      )
      const page = clauses.toPage(
        await selectSets(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(conditionSets, matching) } : page
    },

    /** By key, then by id. */
    async findConditionSet(ref: string, ex: Executor = db): Promise<ConditionSetRow | undefined> {
      const [row] = await selectSets(ex).where(sql`${conditionSets.id} = ${setNamed(ref)}`)
      return row
    },

    /** The same by id, locked for a change. */
    async lockConditionSet(id: string, tx: Tx): Promise<ConditionSetRow | undefined> {
      const [locked] = await tx
        .select({ id: conditionSets.id })
        .from(conditionSets)
        .where(and(eq(conditionSets.id, id), eq(conditionSets.environmentId, environmentId)))
        .for('update')
      if (!locked) return undefined
      const [row] = await selectSets(tx).where(eq(conditionSets.id, id))
      return row
    },

    /** The same by key, then by id, held until the transaction ends. */
    async holdConditionSet(ref: string, tx: Tx): Promise<ConditionSetRow | undefined> {
      const [row] = await selectSets(tx)
        .where(sql`${conditionSets.id} = ${setNamed(ref)}`)
        .for('key share', { of: conditionSets })
      return row
    },

    /** A resource of the application by key, then by id, held until the transaction ends. */
    async holdResource(ref: string, tx: Tx): Promise<{ id: string; key: string } | undefined> {
      const [row] = await tx
        .select({ id: resources.id, key: resources.key })
        .from(resources)
        .where(
          and(
            eq(resources.environmentId, environmentId),
            eq(resources.isBuiltin, false),
            sql`(${resources.key} = ${ref} or ${resources.id} = ${isUuid(ref) ? ref : null}::uuid)`,
          ),
        )
        .orderBy(sql`${resources.key} = ${ref} desc`)
        .limit(1)
        .for('key share')
      return row
    },

    /** An action of a resource, by key, held until the transaction ends. */
    async holdAction(resourceId: string, key: string, tx: Tx): Promise<string | undefined> {
      const [row] = await tx
        .select({ id: actions.id })
        .from(actions)
        .where(and(eq(actions.resourceId, resourceId), eq(actions.key, key)))
        .for('key share')
      return row?.id
    },

    /** A role of the application, of a resource or (`null`) of accounts, by key, held until the transaction ends. */
    async holdRole(resource: string | null, key: string, tx: Tx): Promise<string | undefined> {
      const [row] = await tx
        .select({ id: roles.id })
        .from(roles)
        .where(
          and(
            eq(roles.environmentId, environmentId),
            eq(roles.isBuiltin, false),
            eq(roles.key, key),
            resource === null
              ? sql`${roles.resourceId} is null`
              : sql`${roles.resourceId} = (select r.id from resources r where r.environment_id = ${env}
                  and r.key = ${resource} and not r.is_builtin)`,
          ),
        )
        .for('key share')
      return row?.id
    },

    async countConditionSets(tx: Tx): Promise<number> {
      return await tx.$count(conditionSets, eq(conditionSets.environmentId, environmentId))
    },

    /** @throws AppError condition_set_key_taken */
    async insertConditionSet(
      set: ConditionSetChanges & {
        id: string
        key: string
        name: string
        type: SetType
        resourceId: string | null
        conditions: Json
      },
      tx: Tx,
    ): Promise<void> {
      if (isUuid(set.key)) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(
          conditionSets,
          and(eq(conditionSets.environmentId, environmentId), eq(conditionSets.id, set.key)),
        )
        if (clashes > 0) throw new AppError('condition_set_key_taken')
      }
      try {
        await tx.insert(conditionSets).values({ ...set, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'condition_sets_key_key'))
          throw new AppError('condition_set_key_taken', { cause: error })
        throw error
      }
    },

    async updateConditionSet(id: string, changes: ConditionSetChanges, tx: Tx): Promise<void> {
      await tx
        .update(conditionSets)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(conditionSets.id, id))
    },

    /** With the rules that name it. */
    async deleteConditionSet(id: string, tx: Tx): Promise<void> {
      await tx.delete(conditionSets).where(eq(conditionSets.id, id))
    },

    async hasChildren(id: string, tx: Tx): Promise<boolean> {
      return (await tx.$count(conditionSets, eq(conditionSets.parentId, id))) > 0
    },

    /** Whether `ancestorId` is the set itself, its parent, a parent of that, and so on. UNION ends a cycle. */
    async descendsFrom(id: string, ancestorId: string, tx: Tx): Promise<boolean> {
      const { rows } = await tx.execute<{ found: boolean }>(sql`with recursive line (id) as (
          select ${id}::uuid
          union select c.parent_id from line join condition_sets c on c.id = line.id where c.parent_id is not null)
        select exists (select from line where id = ${ancestorId}::uuid) as found`)
      return rows[0]?.found === true
    },

    /** Those whose conditions must hold too, or those for which the set's must: the oldest first. */
    async listConditionSetLine(id: string, towards: 'ancestors' | 'descendants'): Promise<ConditionSetRow[]> {
      const next =
        towards === 'ancestors'
          ? sql`select c.parent_id from line join condition_sets c on c.id = line.id where c.parent_id is not null`
          : sql`select c.id from line join condition_sets c on c.parent_id = line.id`
      return await selectSets(db)
        .where(
          sql`${conditionSets.id} <> ${id}::uuid and ${conditionSets.environmentId} = ${env}
            and ${conditionSets.id} in (
              with recursive line (id) as (select ${id}::uuid union ${next}) select id from line)`,
        )
        .orderBy(asc(conditionSets.id))
    },

    async listSetRules(filters: SetRuleFilters, request: PageRequest): Promise<Page<SetRuleRow>> {
      const clauses = pageClauses(request, ruleSortKeys, setRules.id)
      const { userSet, role, permission: wanted, action, resourceSet, resource } = filters
      const matching = allOf(
        eq(setRules.environmentId, environmentId),
        userSet === undefined ? undefined : sql`${setRules.userSetId} = ${setNamed(userSet)}`,
        role === undefined ? undefined : sql`${roleName} = ${role}`,
        wanted === undefined ? undefined : sql`${permission} = ${wanted}`,
        action === undefined
          ? undefined
          : or(eq(actions.key, action), isUuid(action) ? eq(actions.id, action) : undefined),
        resourceSet === undefined ? undefined : sql`${setRules.resourceSetId} = ${setNamed(resourceSet)}`,
        resource === undefined ? undefined : eq(resources.key, resource),
      )
      const page = clauses.toPage(
        await selectRules(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      if (!request.total) return page
      const counted = selectRules(db).where(matching).as('counted')
      const [count] = await db.select({ total: sql<number>`count(*)::int` }).from(counted)
      return { ...page, total: count?.total ?? 0 }
    },

    async findSetRule(id: string, ex: Executor = db): Promise<SetRuleRow | undefined> {
      const [row] = await selectRules(ex)
        .where(and(eq(setRules.id, id), eq(setRules.environmentId, environmentId)))
        .prepare(prepare ? 'set_rule' : '')
        .execute()
      return row
    },

    /** The rule that points at these, if there is one. */
    async findSetRuleOf(ends: RuleEnds, ex: Executor = db): Promise<SetRuleRow | undefined> {
      const same = (column: SQL | (typeof setRules)['roleId'], value: string | null) =>
        sql`${column} is not distinct from ${value}::uuid`
      const [row] = await selectRules(ex)
        .where(
          and(
            eq(setRules.environmentId, environmentId),
            eq(setRules.actionId, ends.actionId),
            same(sql`${setRules.userSetId}`, ends.userSetId),
            same(sql`${setRules.roleId}`, ends.roleId),
            same(sql`${setRules.resourceSetId}`, ends.resourceSetId),
            same(sql`${setRules.resourceId}`, ends.resourceId),
          ),
        )
        .orderBy(asc(setRules.id))
        .prepare(prepare ? 'set_rule_of_ends' : '')
        .execute()
      return row
    },

    async countSetRules(tx: Tx): Promise<number> {
      return await tx.$count(setRules, eq(setRules.environmentId, environmentId))
    },

    /** False when there is one already. */
    async insertSetRule(rule: RuleEnds & { id: string }, tx: Tx): Promise<boolean> {
      const inserted = await tx
        .insert(setRules)
        .values({ ...rule, environmentId })
        .onConflictDoNothing()
        .returning({ id: setRules.id })
      return inserted.length > 0
    },

    /** False when there was none. */
    async deleteSetRule(id: string, tx: Tx): Promise<boolean> {
      const gone = await tx
        .delete(setRules)
        .where(and(eq(setRules.id, id), eq(setRules.environmentId, environmentId)))
        .returning({ id: setRules.id })
      return gone.length > 0
    },
  }

  function selectSets(ex: Executor) {
    return ex
      .select(setColumns)
      .from(conditionSets)
      .leftJoin(resources, eq(resources.id, conditionSets.resourceId))
      .leftJoin(parents, eq(parents.id, conditionSets.parentId))
  }

  function selectRules(ex: Executor) {
    return ex
      .select(ruleColumns)
      .from(setRules)
      .innerJoin(actions, eq(actions.id, setRules.actionId))
      .innerJoin(actionResources, eq(actionResources.id, actions.resourceId))
      .leftJoin(userSets, eq(userSets.id, setRules.userSetId))
      .leftJoin(roles, eq(roles.id, setRules.roleId))
      .leftJoin(roleResources, eq(roleResources.id, roles.resourceId))
      .leftJoin(resourceSets, eq(resourceSets.id, setRules.resourceSetId))
      .leftJoin(resources, eq(resources.id, setRules.resourceId))
  }

  /** By key, then by id. */
  function setNamed(ref: string): SQL {
    const byKey = sql`(select c.id from condition_sets c where c.environment_id = ${env} and c.key = ${ref})`
    if (!isUuid(ref)) return byKey
    return sql`coalesce(${byKey},
      (select c.id from condition_sets c where c.environment_id = ${env} and c.id = ${ref}::uuid))`
  }
}
