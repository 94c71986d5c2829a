import type { Database } from '../db/client.ts'
import type { Attributes, HeldRole, InstanceFacts, TenantFacts, UserFacts } from './engine/model.ts'
import { MOST_VISITS } from './engine/relations.ts'
import { type Progress, type ProgressRow, progressColumns, progressOf } from './versions.ts'

/** Names of what is wanted. Users and accounts: key or id. Instances: `type:key` or `type:id`. */
export type Wanted = {
  users: readonly string[]
  tenants: readonly string[]
  instances: readonly string[]
}

/** A relation of a resource: its tuples lead from instances of `resource` (the objects) to their subjects. */
export type Edge = { resource: string; relation: string }

/** What was found under each name that was asked for: `null` when there is no such row. */
export type LoadedFacts = {
  progress: Progress
  users: Map<string, UserFacts | null>
  tenants: Map<string, TenantFacts | null>
  instances: Map<string, InstanceFacts | null>
  /** Instances that came along, because those asked for are related to them. */
  related: InstanceFacts[]
}

/** The most instances of one statement; who needs more asks for the rest. */
const MOST_INSTANCES = 10_000
/** The most subjects that are read of one relation of an instance: one more than a decision looks at. */
const MOST_SUBJECTS = MOST_VISITS + 1
/** So many roles of somebody on instances are read at most: those in the accounts where they hold the fewest. */
const MOST_INSTANCE_ROLES = MOST_VISITS

const IS_IN_FORCE = 'coalesce(x.expires_at > now(), true)'

const USERS = `
  (select json_agg(json_build_array(w.ref, case when u.id is not null then json_build_object(
      'id', u.id, 'key', u.key, 'isActive', u.is_active, 'attributes', u.attributes,
      'email', u.email, 'firstName', u.first_name, 'lastName', u.last_name,
      'crowdedTenants', c.crowded,
      'tenants', (
        select json_agg(a.key) from account_members m
        join accounts a on a.id = m.account_id and a.deleted_at is null
        where m.user_id = u.id and m.status = 'active'),
      'roles', (
        select json_agg(json_build_array(r.key, a.key, t.key || ':' || i.key,
          (extract(epoch from x.expires_at) * 1000)::bigint))
        from role_assignments x
        join roles r on r.id = x.role_id and not r.is_builtin
          and (r.resource_id is null) = (x.resource_instance_id is null)
        left join accounts a on a.id = x.account_id and a.deleted_at is null
        left join account_members m on m.account_id = x.account_id and m.user_id = x.user_id
        left join resource_instances i on i.id = x.resource_instance_id
        left join resources t on t.id = i.resource_id
        where x.user_id = u.id
          and (x.resource_instance_id is null or not h.has_many
            or (${IS_IN_FORCE} and (c.crowded ? x.account_id::text) is not true))
          and (x.account_id is null or (a.id is not null and m.status = 'active')))
    ) end))
    from unnest($3::text[], $4::uuid[]) as w(ref, id)
    left join users k on k.environment_id = $1 and k.key = w.ref and k.deleted_at is null
    left join users u on u.environment_id = $1 and u.id = coalesce(k.id, w.id) and u.deleted_at is null
    left join lateral (select count(*) > ${MOST_INSTANCE_ROLES} as has_many from (
      select from role_assignments x where x.user_id = u.id and x.resource_instance_id is not null
      limit ${MOST_INSTANCE_ROLES + 1}) x) h on true
    left join lateral (select jsonb_object_agg(id, key) as crowded from (
      select a.id, a.key, sum(count(*)) over (order by count(*), a.id) as roles
      from role_assignments x
      join accounts a on a.id = x.account_id and a.deleted_at is null
      join account_members m on m.account_id = a.id and m.user_id = x.user_id and m.status = 'active'
      where h.has_many and x.user_id = u.id and x.resource_instance_id is not null and ${IS_IN_FORCE}
      group by a.id) s where s.roles > ${MOST_INSTANCE_ROLES}) c on true
  ) as users`

const TENANTS = `
  (select json_agg(json_build_array(w.ref, case when a.id is not null then json_build_object(
      'id', a.id, 'key', a.key, 'isActive', a.is_active, 'attributes', a.attributes) end))
    from unnest($5::text[], $6::uuid[]) as w(ref, id)
    left join accounts k on k.environment_id = $1 and k.key = w.ref and k.deleted_at is null
    left join accounts a on a.environment_id = $1 and a.id = coalesce(k.id, w.id) and a.deleted_at is null
  ) as tenants`

const WITH_INSTANCES = `
  with recursive edges as materialized (
    select x.id, x.resource_id, x.key from unnest($11::text[], $12::text[]) as w(resource, relation)
    join resources r on r.environment_id = $1 and r.key = w.resource
    join relations x on x.resource_id = r.id and x.key = w.relation),
  wanted as (
    select w.ref, coalesce(k.id, i.id) as id
    from unnest($7::text[], $8::text[], $9::text[], $10::uuid[]) as w(ref, type, key, id)
    left join resources r on r.environment_id = $1 and r.key = w.type
    left join resource_instances k on k.resource_id = r.id and k.key = w.key
    left join resource_instances i on k.id is null and i.resource_id = r.id and i.id = w.id),
  closure(id) as (
    select id from wanted where id is not null
    union
    select p.subject_id from closure c join relationship_tuples p on p.object_id = c.id
    where p.relation_id in (select id from edges)),
  loaded as materialized (select id from closure limit ${MOST_INSTANCES})`

const INSTANCES = `
  (select json_agg(json_build_array(ref, id)) from wanted) as names,
  (select json_agg(json_build_object('id', i.id, 'type', r.key, 'key', i.key, 'tenant', a.key,
      'attributes', i.attributes, 'subjects', (
        select json_agg(json_build_array(e.key, sr.key || ':' || s.key))
        from edges e cross join lateral (select subject_id from relationship_tuples
          where object_id = i.id and relation_id = e.id limit ${MOST_SUBJECTS}) p
        join resource_instances s on s.id = p.subject_id join resources sr on sr.id = s.resource_id
        where e.resource_id = i.resource_id)))
    from loaded l join resource_instances i on i.id = l.id join resources r on r.id = i.resource_id
    join accounts a on a.id = i.account_id and a.deleted_at is null
  ) as instances`

const PROGRESS = progressColumns('$1', '$2::bigint')
const LOAD = `select ${PROGRESS}, ${USERS}, ${TENANTS}`
const LOAD_WITH_INSTANCES = `${WITH_INSTANCES} select ${PROGRESS}, ${USERS}, ${TENANTS}, ${INSTANCES}`

type UserJson = {
  id: string
  key: string
  isActive: boolean
  attributes: Attributes | null
  email: string | null
  firstName: string | null
  lastName: string | null
  crowdedTenants: Record<string, string> | null
  tenants: string[] | null
  roles: [role: string, tenant: string | null, instance: string | null, expiresAt: number | null][] | null
}

type InstanceJson = {
  id: string
  type: string
  key: string
  tenant: string
  attributes: Attributes | null
  subjects: [relation: string, subject: string][] | null
}

type Row = ProgressRow & {
  users: [ref: string, user: UserJson | null][] | null
  tenants: [
    ref: string,
    tenant: (Omit<TenantFacts, 'attributes'> & { attributes: Attributes | null }) | null,
  ][]
  names?: [ref: string, id: string | null][] | null
  instances?: InstanceJson[] | null
}

export type FactsRepository = ReturnType<typeof createFactsRepository>

/** The statements that load facts, of all environments. */
export function createFactsRepository({ pool, prepare }: Database) {
  return {
    /**
     * All that is stored about those named, and about the instances that they are related to by `edges`, in one
     * statement and so as of one version. Deleted people and accounts, and instances of deleted accounts, are not
     * there; neither are built-in roles, and roles held in an account of which one is no active member. Of roles on
     * instances 100,000 of one person are: all of an account or none, beginning with the accounts that have fewest.
     */
    async loadFacts(
      environmentId: string,
      wanted: Wanted,
      edges: readonly Edge[],
      known: number | undefined,
    ): Promise<LoadedFacts> {
      const instances = wanted.instances.map((ref) => ({ ref, ...splitInstance(ref) }))
      const hasInstances = instances.length > 0
      const { rows } = await pool.query<Row>({
        text: hasInstances ? LOAD_WITH_INSTANCES : LOAD,
        values: [
          environmentId,
          known ?? null,
          wanted.users,
          wanted.users.map(asUuid),
          wanted.tenants,
          wanted.tenants.map(asUuid),
          ...(hasInstances
            ? [
                wanted.instances,
                instances.map(({ type }) => type),
                instances.map(({ key }) => key),
                instances.map(({ key }) => asUuid(key)),
                edges.map(({ resource }) => resource),
                edges.map(({ relation }) => relation),
              ]
            : []),
        ],
        ...(prepare && { name: hasInstances ? 'policy_facts_with_instances' : 'policy_facts' }),
      })
      const [row] = rows
      if (!row) throw new Error('a statement without FROM has one row')
      return factsOf(row, known)
    },

    /** Keys of up to `limit` people after `after`, in the order of the database; with an account, its active members. */
    async listUserKeys(
      environmentId: string,
      page: { after: string | undefined; limit: number; accountId?: string | undefined },
    ): Promise<string[]> {
      const { rows } = await pool.query<{ key: string }>({
        text: `select u.key from users u where u.environment_id = $1 and u.deleted_at is null and u.is_active
            and ($2::text is null or u.key > $2)
            and ($3::uuid is null or exists (select from account_members m
              where m.account_id = $3 and m.user_id = u.id and m.status = 'active'))
          order by u.key limit $4`,
        values: [environmentId, page.after ?? null, page.accountId ?? null, page.limit],
        ...(prepare && { name: 'policy_user_keys' }),
      })
      return rows.map(({ key }) => key)
    },

    /**
     * Keys of up to `limit` people after `after` who hold a role everywhere, in the account, or on one of the
     * instances, whatever the role gives.
     */
    async listHolderKeys(
      environmentId: string,
      page: { after: string | undefined; limit: number; accountId: string; instanceIds: readonly string[] },
    ): Promise<string[]> {
      const { rows } = await pool.query<{ key: string }>({
        text: `select u.key from users u where u.environment_id = $1 and u.deleted_at is null and u.is_active
            and ($2::text is null or u.key > $2)
            and exists (select from role_assignments x join roles r on r.id = x.role_id and not r.is_builtin
              where x.user_id = u.id and (x.account_id is null
                or (x.account_id = $3 and x.resource_instance_id is null)
                or x.resource_instance_id = any($4::uuid[])))
          order by u.key limit $5`,
        values: [environmentId, page.after ?? null, page.accountId, page.instanceIds, page.limit],
        ...(prepare && { name: 'policy_holder_keys' }),
      })
      return rows.map(({ key }) => key)
    },

    /** Keys of up to `limit` instances of `type` after `after`, of all accounts or one, in the order of the database. */
    async listInstanceKeys(
      environmentId: string,
      type: string,
      page: { after: string | undefined; limit: number; accountId?: string | undefined },
    ): Promise<string[]> {
      const { rows } = await pool.query<{ key: string }>({
        text: `select i.key from resource_instances i
          join resources r on r.id = i.resource_id and r.environment_id = $1 and r.key = $2 and not r.is_builtin
          join accounts a on a.id = i.account_id and a.deleted_at is null and a.is_active
          where ($3::text is null or i.key > $3) and ($4::uuid is null or i.account_id = $4)
          order by i.key limit $5`,
        values: [environmentId, type, page.after ?? null, page.accountId ?? null, page.limit],
        ...(prepare && { name: 'policy_instance_keys' }),
      })
      return rows.map(({ key }) => key)
    },

    /**
     * The instances named, and those related to them by `edges`, however far: `type:key`, at most `limit`. A role on
     * one of the former can give one on any of the latter.
     */
    async listReachable(
      environmentId: string,
      names: readonly string[],
      edges: readonly Edge[],
      limit: number,
    ): Promise<string[]> {
      const instances = names.map(splitInstance)
      const { rows } = await pool.query<{ name: string }>({
        text: `with recursive edges as (
            select x.id from unnest($4::text[], $5::text[]) as w(resource, relation)
            join resources r on r.environment_id = $1 and r.key = w.resource
            join relations x on x.resource_id = r.id and x.key = w.relation),
          reached(id) as (
            select i.id from unnest($2::text[], $3::text[]) as w(type, key)
            join resources r on r.environment_id = $1 and r.key = w.type
            join resource_instances i on i.resource_id = r.id and i.key = w.key
            union
            select p.object_id from reached c join relationship_tuples p on p.subject_id = c.id
            where p.relation_id in (select id from edges)),
          found as materialized (select id from reached limit $6)
          select r.key || ':' || i.key as name from found f
          join resource_instances i on i.id = f.id join resources r on r.id = i.resource_id
          order by name collate "C"`,
        values: [
          environmentId,
          instances.map(({ type }) => type),
          instances.map(({ key }) => key),
          edges.map(({ resource }) => resource),
          edges.map(({ relation }) => relation),
          limit,
        ],
        ...(prepare && { name: 'policy_reachable' }),
      })
      return rows.map(({ name }) => name)
    },

    /** Keys of up to `limit` accounts after `after`, inactive ones left out. */
    async listTenantKeys(
      environmentId: string,
      page: { after: string | undefined; limit: number },
    ): Promise<string[]> {
      const { rows } = await pool.query<{ key: string }>({
        text: `select key from accounts where environment_id = $1 and deleted_at is null and is_active
            and ($2::text is null or key > $2) order by key limit $3`,
        values: [environmentId, page.after ?? null, page.limit],
        ...(prepare && { name: 'policy_tenant_keys' }),
      })
      return rows.map(({ key }) => key)
    },
  }
}

/** Postgres also reads UUIDs without dashes, which some SDKs send. */
const UUID = /^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i

const asUuid = (ref: string): string | null => (UUID.test(ref) ? ref : null)

/** `type:key`; the key may hold further colons. */
export function splitInstance(ref: string): { type: string; key: string } {
  const colon = ref.indexOf(':')
  return colon < 0 ? { type: ref, key: '' } : { type: ref.slice(0, colon), key: ref.slice(colon + 1) }
}

function factsOf(row: Row, known: number | undefined): LoadedFacts {
  const found = (row.instances ?? []).map(instanceOf)
  const byId = new Map(found.map((instance) => [instance.id, instance]))
  const instances = new Map<string, InstanceFacts | null>()
  for (const [ref, id] of row.names ?? []) instances.set(ref, (id !== null && byId.get(id)) || null)
  const asked = new Set(instances.values())
  return {
    progress: progressOf(row, known),
    users: new Map((row.users ?? []).map(([ref, user]) => [ref, user && userOf(user)])),
    tenants: new Map(
      (row.tenants ?? []).map(([ref, tenant]) => [
        ref,
        tenant && { ...tenant, attributes: tenant.attributes ?? NONE },
      ]),
    ),
    instances,
    related: found.filter((instance) => !asked.has(instance)),
  }
}

// Empty ones are shared: most people have no instance roles, and a Map is larger than all else that is kept of them.
const NONE: Attributes = Object.freeze({})
const NO_NAMES: readonly string[] = Object.freeze([])
const NO_HELD_ROLES: readonly HeldRole[] = Object.freeze([])
const NO_ROLES: ReadonlyMap<string, readonly HeldRole[]> = new Map()
const NO_SUBJECTS: ReadonlyMap<string, readonly string[]> = new Map()

function userOf(json: UserJson): UserFacts {
  const everywhere: HeldRole[] = []
  const tenantRoles = new Map<string, HeldRole[]>()
  const instanceRoles = new Map<string, HeldRole[]>()
  for (const [role, tenant, instance, expiresAt] of json.roles ?? []) {
    const held = expiresAt === null ? forever(role) : { role, expiresAt }
    if (instance !== null) push(instanceRoles, instance, held)
    else if (tenant !== null) push(tenantRoles, tenant, held)
    else everywhere.push(held)
  }
  return {
    id: json.id,
    key: json.key,
    isActive: json.isActive,
    attributes: attributesOf(json),
    tenants: json.tenants ?? NO_NAMES,
    tenantRoles: tenantRoles.size === 0 ? NO_ROLES : tenantRoles,
    everywhere: everywhere.length === 0 ? NO_HELD_ROLES : everywhere,
    instanceRoles: instanceRoles.size === 0 ? NO_ROLES : instanceRoles,
    ...(json.crowdedTenants && { crowdedTenants: new Set(Object.values(json.crowdedTenants)) }),
  }
}

function attributesOf({ attributes, email, firstName, lastName }: UserJson): Attributes {
  if (email === null && firstName === null && lastName === null) return attributes ?? NONE
  return {
    ...attributes,
    ...(email !== null && { email }),
    ...(firstName !== null && { first_name: firstName }),
    ...(lastName !== null && { last_name: lastName }),
  }
}

function instanceOf({ subjects, attributes, ...instance }: InstanceJson): InstanceFacts {
  const byRelation = new Map<string, string[]>()
  for (const [relation, subject] of subjects ?? []) push(byRelation, relation, subject)
  return {
    attributes: attributes ?? NONE,
    subjects: byRelation.size === 0 ? NO_SUBJECTS : byRelation,
    ...instance,
  }
}

function push<T>(lists: Map<string, T[]>, name: string, value: T): void {
  const list = lists.get(name)
  if (list) list.push(value)
  else lists.set(name, [value])
}

const MOST_SHARED = 10_000
const shared = new Map<string, HeldRole>()

/** A role that does not expire is the same for everybody who holds it. */
function forever(role: string): HeldRole {
  const known = shared.get(role)
  if (known) return known
  if (shared.size >= MOST_SHARED) shared.clear()
  const held = Object.freeze({ role, expiresAt: undefined })
  shared.set(role, held)
  return held
}
