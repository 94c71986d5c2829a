import { and, eq, inArray, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, containing, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { accounts, relations, relationshipTuples, resourceInstances, resources } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { splitInstance } from '../policy/facts-repository.ts'

type Json = Record<string, unknown>

export type InstanceRow = {
  id: string
  resourceId: string
  /** The key of the resource. */
  resource: string
  key: string
  accountId: string
  /** The key of the account. */
  account: string
  attributes: Json | null
  createdAt: Date
  updatedAt: Date
}

/** `account`: key or id. `resource`: key. `q`: a part of the key. */
export type InstanceFilters = { account?: string; resource?: string; key?: string; q?: string }

/** What an instance is named by: the key of its resource, and its own key or id. */
export type InstanceName = { type: string; key: string }

/** Where an instance is. `name` is the one that it was asked for by. */
export type Located = { name: InstanceName; id: string; accountId: string }

export type NewInstanceRow = {
  id: string
  resourceId: string
  key: string
  accountId: string
  /** Absent: none, or those that are there. */
  attributes?: Json | null
}

export type TupleRow = {
  id: string
  subjectId: string
  /** `type:key`. */
  subject: string
  relationId: string
  relation: string
  objectId: string
  /** `type:key`. */
  object: string
  accountId: string
  /** The key of the account. */
  account: string
  createdAt: Date
}

/** `subject`, `object`: an id, `type:key` or `type:id`. `account`, `relation`: key or id. The others are keys. */
export type TupleFilters = {
  subject?: string
  /** Of several, any. */
  relation?: string | readonly string[]
  object?: string
  account?: string
  subjectType?: string
  objectType?: string
}

export type RelationRow = { id: string; objectType: string; key: string; subjectType: string }

const instanceColumns = {
  id: resourceInstances.id,
  resourceId: resourceInstances.resourceId,
  resource: resources.key,
  key: resourceInstances.key,
  accountId: resourceInstances.accountId,
  account: accounts.key,
  attributes: resourceInstances.attributes,
  createdAt: resourceInstances.createdAt,
  updatedAt: resourceInstances.updatedAt,
}

const instanceSortKeys: Record<string, SortKey<InstanceRow>> = {
  created_at: { by: resourceInstances.id, cast: 'uuid', value: (row) => row.id },
}

const subjects = alias(resourceInstances, 'subjects')
const objects = alias(resourceInstances, 'objects')
const subjectTypes = alias(resources, 'subject_types')
const objectTypes = alias(resources, 'object_types')

const tupleColumns = {
  id: relationshipTuples.id,
  subjectId: relationshipTuples.subjectId,
  subject: sql<string>`${subjectTypes.key} || ':' || ${subjects.key}`,
  relationId: relationshipTuples.relationId,
  relation: relations.key,
  objectId: relationshipTuples.objectId,
  object: sql<string>`${objectTypes.key} || ':' || ${objects.key}`,
  accountId: relationshipTuples.accountId,
  account: accounts.key,
  createdAt: relationshipTuples.createdAt,
}

const tupleSortKeys: Record<string, SortKey<TupleRow>> = {
  created_at: { by: relationshipTuples.id, cast: 'uuid', value: (row) => row.id },
}

const texts = (values: readonly string[]): SQL => sql`${sql.param([...values])}::text[]`
const uuids = (values: readonly string[]): SQL => sql`${sql.param([...values])}::uuid[]`

export type InstancesRepository = ReturnType<typeof createInstancesRepository>

/**
 * Instances of the application's resources and the relationships between them. What a transaction looks up in order
 * to point at it is locked, so that it is still there when the row that points at it is written.
 */
export function createInstancesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const env = sql`${environmentId}::uuid`

  return {
    async listInstances(filters: InstanceFilters, request: PageRequest): Promise<Page<InstanceRow>> {
      const clauses = pageClauses(request, instanceSortKeys, resourceInstances.id)
      const matching = allOf(
        eq(resourceInstances.environmentId, environmentId),
        filters.account === undefined
          ? undefined
          : sql`${resourceInstances.accountId} = ${accountNamed(filters.account)}`,
        filters.resource === undefined
          ? undefined
          : sql`${resourceInstances.resourceId} = ${resourceNamed(filters.resource)}`,
        filters.key === undefined ? undefined : eq(resourceInstances.key, filters.key),
        filters.q === undefined ? undefined : sql`${resourceInstances.key} like ${containing(filters.q)}`,
      )
      const page = clauses.toPage(
        await selectInstances(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(resourceInstances, matching) } : page
    },

    async findInstance(id: string, ex: Executor = db): Promise<InstanceRow | undefined> {
      const [row] = await selectInstances(ex).where(
        and(eq(resourceInstances.id, id), eq(resourceInstances.environmentId, environmentId)),
      )
      return row
    },

    /** The same, locked for a change. */
    async lockInstance(id: string, tx: Tx): Promise<InstanceRow | undefined> {
      const [row] = await selectInstances(tx)
        .where(and(eq(resourceInstances.id, id), eq(resourceInstances.environmentId, environmentId)))
        .for('update', { of: resourceInstances })
      return row
    },

    /** The instance of this id or name: `type:key`, then `type:id`. */
    async findInstanceNamed(ref: string, ex: Executor = db): Promise<InstanceRow | undefined> {
      const [row] = await selectInstances(ex).where(
        and(
          sql`${resourceInstances.id} = ${instanceReferred(ref)}`,
          eq(resourceInstances.environmentId, environmentId),
        ),
      )
      return row
    },

    /** Those of `names` that are there, held until the transaction ends. Each name stands once; keys come before ids. */
    async holdInstances(names: readonly InstanceName[], tx: Tx): Promise<Located[]> {
      const byKey = await held(names, sql`i.key = x.key`, tx)
      const missing = names.filter(
        ({ type, key }) => isUuid(key) && !byKey.some(({ name }) => name.type === type && name.key === key),
      )
      return missing.length === 0 ? byKey : [...byKey, ...(await held(missing, sql`i.id = x.key::uuid`, tx))]
    },

    /** Those of `ids` that are there, held until the transaction ends, each under its name. */
    async holdInstancesById(ids: readonly string[], tx: Tx): Promise<Located[]> {
      if (ids.length === 0) return []
      type Row = { type: string; key: string; id: string; account_id: string }
      const { rows } = await tx.execute<Row>(sql`select r.key as type, i.key, i.id, i.account_id
        from resource_instances i join resources r on r.id = i.resource_id
        where i.environment_id = ${env} and i.id = any(${uuids(ids)})
        order by i.id for key share of i`)
      return rows.map(({ type, key, id, account_id: accountId }) => ({ name: { type, key }, id, accountId }))
    },

    /** Those of `ids` that are there, locked for a change. */
    async lockInstances(ids: readonly string[], tx: Tx): Promise<InstanceRow[]> {
      return await selectInstances(tx)
        .where(
          and(
            eq(resourceInstances.environmentId, environmentId),
            sql`${resourceInstances.id} = any(${uuids(ids)})`,
          ),
        )
        .orderBy(resourceInstances.id)
        .for('update', { of: resourceInstances })
    },

    async listInstancesById(ids: readonly string[], tx: Tx): Promise<InstanceRow[]> {
      return await selectInstances(tx)
        .where(sql`${resourceInstances.id} = any(${uuids(ids)})`)
        .orderBy(resourceInstances.id)
    },

    /** The ids of those of `keys` that are resources of the application, held until the transaction ends. */
    async holdResources(keys: readonly string[], tx: Tx): Promise<Map<string, string>> {
      const { rows } = await tx.execute<{ id: string; key: string }>(sql`select r.id, r.key from resources r
        where r.environment_id = ${env} and r.key = any(${texts(keys)}) and not r.is_builtin
        order by r.id for key share`)
      return new Map(rows.map(({ id, key }) => [key, id]))
    },

    /** The ids of those of `refs`, keys or ids, that are accounts, which stay until the transaction ends. */
    async holdAccounts(refs: readonly string[], tx: Tx): Promise<Map<string, string>> {
      const { rows } = await tx.execute<{ id: string; key: string }>(sql`select a.id, a.key from accounts a
        where a.environment_id = ${env} and a.deleted_at is null
          and (a.key = any(${texts(refs)}) or a.id = any(${uuids(refs.filter(isUuid))}))
        order by a.id for share`)
      const ids = new Map(rows.map(({ id }) => [id, id]))
      const keys = new Map(rows.map(({ id, key }) => [key, id]))
      return new Map(
        refs.flatMap((ref) => {
          const id = keys.get(ref) ?? ids.get(ref.toLowerCase())
          return id === undefined ? [] : [[ref, id]]
        }),
      )
    },

    /** The relations named, by the key of the object's resource and their own, held until the transaction ends. */
    async holdRelations(
      names: readonly { objectType: string; key: string }[],
      tx: Tx,
    ): Promise<RelationRow[]> {
      const { rows } = await tx.execute<RelationRow>(sql`
        select l.id, o.key as "objectType", l.key, s.key as "subjectType"
        from unnest(${texts(names.map((name) => name.objectType))}, ${texts(names.map(({ key }) => key))})
          as x(object_type, key)
        join resources o on o.environment_id = ${env} and o.key = x.object_type
        join relations l on l.resource_id = o.id and l.key = x.key
        join resources s on s.id = l.subject_resource_id
        order by l.id for key share of l`)
      return rows
    },

    /** @throws AppError instance_key_taken */
    async insertInstance(instance: NewInstanceRow, tx: Tx): Promise<void> {
      await assertNoIds([instance.key], tx)
      try {
        await tx.insert(resourceInstances).values({ ...instance, environmentId })
      } catch (error) {
        if (isUniqueViolation(error, 'resource_instances_key_key'))
          throw new AppError('instance_key_taken', { cause: error })
        throw error
      }
    },

    /** Inserts those that are not there yet. @returns the ids of the new ones. @throws AppError instance_key_taken */
    async insertMissingInstances(instances: readonly NewInstanceRow[], tx: Tx): Promise<string[]> {
      await assertNoIds(
        instances.map(({ key }) => key),
        tx,
      )
      const { rows } = await tx.execute<{ id: string }>(sql`insert into resource_instances
          (id, environment_id, account_id, resource_id, key, attributes) ${valuesOf(instances)}
        on conflict (resource_id, key) do nothing returning id`)
      return rows.map(({ id }) => id)
    },

    /**
     * Inserts new instances; those that are there get the attributes that are given. Two of them must not have one
     * name. One that is there in another account is left alone.
     * @returns what was written, and whether it is new
     * @throws AppError instance_key_taken
     */
    async upsertInstances(
      instances: readonly NewInstanceRow[],
      tx: Tx,
    ): Promise<{ resourceId: string; key: string; isNew: boolean }[]> {
      await assertNoIds(
        instances.map(({ key }) => key),
        tx,
      )
      const { rows } = await tx.execute<{ resourceId: string; key: string; isNew: boolean }>(sql`
        insert into resource_instances as i (id, environment_id, account_id, resource_id, key, attributes)
          ${valuesOf(instances)}
        on conflict (resource_id, key) do update
          set attributes = coalesce(excluded.attributes, i.attributes), updated_at = now()
          where i.account_id = excluded.account_id
        returning resource_id as "resourceId", key, xmax = 0 as "isNew"`)
      return rows
    },

    async updateInstance(id: string, changes: { attributes: Json | null }, tx: Tx): Promise<void> {
      await tx
        .update(resourceInstances)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(resourceInstances.id, id))
    },

    /** With their relationships and the roles held on them. */
    async deleteInstances(ids: readonly string[], tx: Tx): Promise<void> {
      await tx.delete(resourceInstances).where(sql`${resourceInstances.id} = any(${uuids(ids)})`)
    },

    async listTuples(filters: TupleFilters, request: PageRequest): Promise<Page<TupleRow>> {
      const clauses = pageClauses(request, tupleSortKeys, relationshipTuples.id)
      const { subject, relation, object, account, subjectType, objectType } = filters
      const matching = allOf(
        eq(relationshipTuples.environmentId, environmentId),
        subject === undefined
          ? undefined
          : sql`${relationshipTuples.subjectId} = ${instanceReferred(subject)}`,
        object === undefined ? undefined : sql`${relationshipTuples.objectId} = ${instanceReferred(object)}`,
        account === undefined ? undefined : sql`${relationshipTuples.accountId} = ${accountNamed(account)}`,
        relation === undefined
          ? undefined
          : or(
              inArray(relations.key, [relation].flat()),
              inArray(relations.id, [relation].flat().filter(isUuid)),
            ),
        subjectType === undefined ? undefined : sql`${subjects.resourceId} = ${resourceNamed(subjectType)}`,
        objectType === undefined ? undefined : sql`${objects.resourceId} = ${resourceNamed(objectType)}`,
      )
      const page = clauses.toPage(
        await selectTuples(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      if (!request.total) return page
      const [count] = await db
        .select({ total: sql<number>`count(*)::int` })
        .from(relationshipTuples)
        .innerJoin(relations, eq(relations.id, relationshipTuples.relationId))
        .innerJoin(subjects, eq(subjects.id, relationshipTuples.subjectId))
        .innerJoin(objects, eq(objects.id, relationshipTuples.objectId))
        .where(matching)
      return { ...page, total: count?.total ?? 0 }
    },

    async findTuple(id: string, ex: Executor = db): Promise<TupleRow | undefined> {
      const [row] = await selectTuples(ex).where(
        and(eq(relationshipTuples.id, id), eq(relationshipTuples.environmentId, environmentId)),
      )
      return row
    },

    /** Inserts those that are not there yet. @returns the ids of the new ones */
    async insertMissingTuples(
      tuples: readonly {
        id: string
        subjectId: string
        relationId: string
        objectId: string
        accountId: string
      }[],
      tx: Tx,
    ): Promise<string[]> {
      const column = (name: keyof (typeof tuples)[number]) => uuids(tuples.map((tuple) => tuple[name]))
      const { rows } = await tx.execute<{ id: string }>(sql`insert into relationship_tuples
          (id, environment_id, account_id, subject_id, relation_id, object_id)
        select x.id, ${env}, x.account_id, x.subject_id, x.relation_id, x.object_id
        from unnest(${column('id')}, ${column('accountId')}, ${column('subjectId')}, ${column('relationId')},
          ${column('objectId')}) as x(id, account_id, subject_id, relation_id, object_id)
        order by x.object_id, x.relation_id, x.subject_id
        on conflict (object_id, relation_id, subject_id) do nothing returning id`)
      return rows.map(({ id }) => id)
    },

    /** Deletes those that are there. @returns their ids */
    async deleteTuples(
      tuples: readonly { subjectId: string; relation: string; objectId: string }[],
      tx: Tx,
    ): Promise<string[]> {
      const { rows } = await tx.execute<{ id: string }>(sql`delete from relationship_tuples t
        using unnest(${uuids(tuples.map((one) => one.subjectId))}, ${texts(tuples.map((one) => one.relation))},
          ${uuids(tuples.map((one) => one.objectId))}) as x(subject_id, relation, object_id),
          relations l
        where t.environment_id = ${env} and t.subject_id = x.subject_id and t.object_id = x.object_id
          and l.id = t.relation_id and l.key = x.relation
        returning t.id`)
      return rows.map(({ id }) => id)
    },

    /** False when there was none. */
    async deleteTuple(id: string, tx: Tx): Promise<boolean> {
      const gone = await tx
        .delete(relationshipTuples)
        .where(and(eq(relationshipTuples.id, id), eq(relationshipTuples.environmentId, environmentId)))
        .returning({ id: relationshipTuples.id })
      return gone.length > 0
    },
  }

  function selectInstances(ex: Executor) {
    return ex
      .select(instanceColumns)
      .from(resourceInstances)
      .innerJoin(resources, eq(resources.id, resourceInstances.resourceId))
      .innerJoin(accounts, eq(accounts.id, resourceInstances.accountId))
  }

  function selectTuples(ex: Executor) {
    return ex
      .select(tupleColumns)
      .from(relationshipTuples)
      .innerJoin(relations, eq(relations.id, relationshipTuples.relationId))
      .innerJoin(subjects, eq(subjects.id, relationshipTuples.subjectId))
      .innerJoin(subjectTypes, eq(subjectTypes.id, subjects.resourceId))
      .innerJoin(objects, eq(objects.id, relationshipTuples.objectId))
      .innerJoin(objectTypes, eq(objectTypes.id, objects.resourceId))
      .innerJoin(accounts, eq(accounts.id, relationshipTuples.accountId))
  }

  async function held(names: readonly InstanceName[], isMeant: SQL, tx: Tx): Promise<Located[]> {
    if (names.length === 0) return []
    type Row = { type: string; key: string; id: string; account_id: string }
    const { rows } = await tx.execute<Row>(sql`select x.type, x.key, i.id, i.account_id
      from unnest(${texts(names.map(({ type }) => type))}, ${texts(names.map(({ key }) => key))}) as x(type, key)
      join resources r on r.environment_id = ${env} and r.key = x.type and not r.is_builtin
      join resource_instances i on i.resource_id = r.id and ${isMeant}
      order by i.id for key share of i`)
    return rows.map(({ type, key, id, account_id: accountId }) => ({ name: { type, key }, id, accountId }))
  }

  /** The rows of an insert, in the order of their names so that two writers never wait for each other in a ring. */
  function valuesOf(instances: readonly NewInstanceRow[]): SQL {
    const column = (name: 'id' | 'accountId' | 'resourceId') =>
      uuids(instances.map((instance) => instance[name]))
    const attributes = instances.map((instance) =>
      instance.attributes ? JSON.stringify(instance.attributes) : null,
    )
    return sql`select x.id, ${env}, x.account_id, x.resource_id, x.key, x.attributes::jsonb
      from unnest(${column('id')}, ${column('accountId')}, ${column('resourceId')},
        ${texts(instances.map(({ key }) => key))}, ${sql.param(attributes)}::text[])
        as x(id, account_id, resource_id, key, attributes)
      order by x.resource_id, x.key`
  }

  /** A key that equals another row's id would make both names ambiguous. @throws AppError instance_key_taken */
  async function assertNoIds(keys: readonly string[], tx: Tx): Promise<void> {
    const suspects = keys.filter(isUuid)
    if (suspects.length === 0) return
    const clashes = await tx.$count(
      resourceInstances,
      and(
        eq(resourceInstances.environmentId, environmentId),
        sql`${resourceInstances.id} = any(${uuids(suspects)})`,
      ),
    )
    if (clashes > 0) throw new AppError('instance_key_taken')
  }

  function accountNamed(ref: string): SQL {
    return sql`(select a.id from accounts a where a.environment_id = ${env} and a.deleted_at is null
      and (a.key = ${ref} or a.id = ${isUuid(ref) ? ref : null}::uuid) order by a.key = ${ref} desc limit 1)`
  }

  function resourceNamed(key: string): SQL {
    return sql`(select r.id from resources r where r.environment_id = ${env} and r.key = ${key})`
  }

  /** An id, `type:key` or `type:id`. */
  function instanceReferred(ref: string): SQL {
    if (isUuid(ref)) return sql`${ref}::uuid`
    const { type, key } = splitInstance(ref)
    const ofType = sql`select i.id from resource_instances i where i.resource_id = ${resourceNamed(type)}`
    const byKey = sql`(${ofType} and i.key = ${key})`
    return isUuid(key) ? sql`coalesce(${byKey}, (${ofType} and i.id = ${key}::uuid))` : byKey
  }
}
