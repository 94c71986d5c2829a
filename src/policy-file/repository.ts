import { type SQL, sql } from 'drizzle-orm'
import { foldCase } from '../case-folding.ts'
import type { Executor, Tx } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import type { PolicyRecord, RecordKind } from './records.ts'
import type { PolicyFacts } from './schema.ts'

type Row = Record<string, unknown>

/** A role that somebody holds in the account, or on the instance of it. */
export type GivenRole = { userId: string; role: string; accountId: string; instanceId: string | null }

/** Reads and writes the definitions of one environment, a kind at a time, each kind in one statement. */
export function createPolicyFileRepository(environmentId: string) {
  const env = sql`${environmentId}::uuid`
  const ofEnvironment = (alias: string) => sql`${sql.raw(alias)}.environment_id = ${env}`

  /** What each kind of definition is, as the records of a file have it. */
  const readers: Record<RecordKind, { query: SQL; name: (row: Row) => string }> = {
    resource: {
      query: sql`select key, name, description, urn from resources r
        where ${ofEnvironment('r')} and not is_builtin order by key collate "C"`,
      name: (row) => String(row['key']),
    },
    action: {
      query: sql`select r.key as resource, a.key, a.name, a.description, a.attributes
        from actions a join resources r on r.id = a.resource_id
        where ${ofEnvironment('a')} and not r.is_builtin order by r.key collate "C", a.key collate "C"`,
      name: (row) => `${row['resource']}:${row['key']}`,
    },
    attribute: {
      query: sql`select r.key as resource, a.key, a.type, a.description
        from attribute_definitions a join resources r on r.id = a.resource_id
        where ${ofEnvironment('a')} and not r.is_builtin order by r.key collate "C", a.key collate "C"`,
      name: (row) => `${row['resource']}.${row['key']}`,
    },
    action_group: {
      query: sql`select r.key as resource, g.key, g.name, g.description, g.attributes, coalesce((
          select json_agg(a.key order by a.key collate "C") from action_group_actions m
          join actions a on a.id = m.action_id where m.group_id = g.id), '[]') as actions
        from action_groups g join resources r on r.id = g.resource_id
        where ${ofEnvironment('g')} and not r.is_builtin order by r.key collate "C", g.key collate "C"`,
      name: (row) => `${row['resource']}:${row['key']}`,
    },
    relation: {
      query: sql`select r.key as resource, l.key, l.name, l.description, s.key as subject_resource
        from relations l join resources r on r.id = l.resource_id join resources s on s.id = l.subject_resource_id
        where ${ofEnvironment('l')} order by r.key collate "C", l.key collate "C"`,
      name: (row) => `${row['resource']}#${row['key']}`,
    },
    user_attribute: {
      query: sql`select key, type, description from attribute_definitions a
        where ${ofEnvironment('a')} and resource_id is null order by key collate "C"`,
      name: (row) => String(row['key']),
    },
    role: {
      query: sql`select o.key, o.name, o.description, o.attributes, o.default_reach as reach, o.is_mfa_required,
          ${permissionsOf}, ${parentsOf}
        from roles o where ${ofEnvironment('o')} and o.resource_id is null and not o.is_builtin
        order by o.key collate "C"`,
      name: (row) => String(row['key']),
    },
    resource_role: {
      query: sql`select r.key as resource, o.key, o.name, o.description, o.attributes, ${permissionsOf}, ${parentsOf},
          o.no_direct_roles_on_object
        from roles o join resources r on r.id = o.resource_id
        where ${ofEnvironment('o')} order by r.key collate "C", o.key collate "C"`,
      name: (row) => `${row['resource']}#${row['key']}`,
    },
    derivation: {
      query: sql`select r.key as resource, o.key as role, sr.key as on_resource, s.key as source_role,
          l.key as relation, d.no_direct_roles_on_object
        from role_derivations d
        join roles o on o.id = d.role_id join resources r on r.id = o.resource_id
        join roles s on s.id = d.source_role_id join resources sr on sr.id = s.resource_id
        join relations l on l.id = d.relation_id
        where ${ofEnvironment('d')}
        order by r.key collate "C", o.key collate "C", sr.key collate "C", s.key collate "C", l.key collate "C"`,
      name: (row) =>
        `${row['resource']}#${row['role']} from ${row['on_resource']}#${row['source_role']} via ${row['relation']}`,
    },
    user_set: {
      query: sql`select c.key, c.name, c.description, c.conditions, p.key as parent
        from condition_sets c left join condition_sets p on p.id = c.parent_id
        where ${ofEnvironment('c')} and c.type = 'userset' order by c.key collate "C"`,
      name: (row) => String(row['key']),
    },
    resource_set: {
      query: sql`select c.key, c.name, c.description, r.key as resource, c.conditions, p.key as parent
        from condition_sets c join resources r on r.id = c.resource_id
        left join condition_sets p on p.id = c.parent_id
        where ${ofEnvironment('c')} and c.type = 'resourceset' order by c.key collate "C"`,
      name: (row) => String(row['key']),
    },
    rule: {
      query: sql`select u.key as user_set, case when rr.key is null then o.key else rr.key || '#' || o.key end as role,
          ar.key || ':' || a.key as permission, s.key as resource_set, r.key as resource
        from set_rules x
        join actions a on a.id = x.action_id join resources ar on ar.id = a.resource_id
        left join condition_sets u on u.id = x.user_set_id
        left join roles o on o.id = x.role_id left join resources rr on rr.id = o.resource_id
        left join condition_sets s on s.id = x.resource_set_id
        left join resources r on r.id = x.resource_id
        where ${ofEnvironment('x')} order by 3, 1, 2, 4, 5`,
      name: (row) => {
        const who = row['user_set'] === null ? `role ${row['role']}` : `set ${row['user_set']}`
        const what =
          row['resource_set'] === null ? `resource ${row['resource']}` : `set ${row['resource_set']}`
        return `${who} may ${row['permission']} on ${what}`
      },
    },
  }

  /** The rows of a statement's JSON parameter, typed by `columns`. */
  const given = (rows: readonly Row[], columns: string) =>
    sql`jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as x(${sql.raw(columns)})`

  const roleOf = sql`o.environment_id = ${env} and o.key = x.key and not o.is_builtin`

  /** Writes records of one kind, new ones and changed ones alike. */
  const writers: Record<RecordKind, (rows: readonly Row[], tx: Tx) => Promise<void>> = {
    async resource(rows, tx) {
      await tx.execute(sql`insert into resources (id, environment_id, key, name, description, urn)
        select x.id, ${env}, x.key, x.name, x.description, x.urn
        from ${given(rows, 'id uuid, key text, name text, description text, urn text')}
        on conflict (environment_id, key) do update set name = excluded.name, description = excluded.description,
          urn = excluded.urn, updated_at = now()`)
    },
    async action(rows, tx) {
      await tx.execute(sql`insert into actions (id, environment_id, resource_id, key, name, description, attributes)
        select x.id, ${env}, r.id, x.key, x.name, x.description, x.attributes
        from ${given(rows, 'id uuid, resource text, key text, name text, description text, attributes jsonb')}
        join resources r on ${ofEnvironment('r')} and r.key = x.resource
        on conflict (resource_id, key) do update set name = excluded.name, description = excluded.description,
          attributes = excluded.attributes, updated_at = now()`)
    },
    async attribute(rows, tx) {
      await tx.execute(sql`insert into attribute_definitions (id, environment_id, resource_id, key, type, description)
        select x.id, ${env}, r.id, x.key, x.type, x.description
        from ${given(rows, 'id uuid, resource text, key text, type text, description text')}
        join resources r on ${ofEnvironment('r')} and r.key = x.resource
        on conflict (environment_id, resource_id, key) do update set type = excluded.type,
          description = excluded.description, updated_at = now()`)
    },
    async user_attribute(rows, tx) {
      await tx.execute(sql`insert into attribute_definitions (id, environment_id, key, type, description)
        select x.id, ${env}, x.key, x.type, x.description
        from ${given(rows, 'id uuid, key text, type text, description text')}
        on conflict (environment_id, resource_id, key) do update set type = excluded.type,
          description = excluded.description, updated_at = now()`)
    },
    async action_group(rows, tx) {
      const columns =
        'id uuid, resource text, key text, name text, description text, attributes jsonb, actions jsonb'
      await tx.execute(sql`insert into action_groups (id, environment_id, resource_id, key, name, description, attributes)
        select x.id, ${env}, r.id, x.key, x.name, x.description, x.attributes from ${given(rows, columns)}
        join resources r on ${ofEnvironment('r')} and r.key = x.resource
        on conflict (resource_id, key) do update set name = excluded.name, description = excluded.description,
          attributes = excluded.attributes, updated_at = now()`)
      const groups = sql`${given(rows, columns)}
        join resources r on ${ofEnvironment('r')} and r.key = x.resource
        join action_groups g on g.resource_id = r.id and g.key = x.key`
      await tx.execute(sql`delete from action_group_actions where group_id in (select g.id from ${groups})`)
      await tx.execute(sql`insert into action_group_actions (resource_id, group_id, action_id)
        select r.id, g.id, a.id from ${groups}
        cross join lateral jsonb_array_elements_text(x.actions) member(key)
        join actions a on a.resource_id = r.id and a.key = member.key`)
    },
    async relation(rows, tx) {
      await assertNothingLoses(rows, tx)
      await tx.execute(sql`insert into relations
          (id, environment_id, resource_id, subject_resource_id, key, name, description)
        select x.id, ${env}, r.id, s.id, x.key, x.name, x.description
        from ${given(rows, 'id uuid, resource text, subject_resource text, key text, name text, description text')}
        join resources r on ${ofEnvironment('r')} and r.key = x.resource
        join resources s on ${ofEnvironment('s')} and s.key = x.subject_resource
        on conflict (resource_id, key) do update set name = excluded.name, description = excluded.description,
          subject_resource_id = excluded.subject_resource_id, updated_at = now()`)
    },
    async role(rows, tx) {
      const columns =
        'id uuid, key text, name text, description text, attributes jsonb, reach text, is_mfa_required boolean, permissions jsonb, extends jsonb'
      await tx.execute(sql`insert into roles (id, environment_id, key, name, description, attributes, default_reach,
          is_mfa_required)
        select x.id, ${env}, x.key, x.name, x.description, x.attributes, x.reach, x.is_mfa_required
        from ${given(rows, columns)}
        on conflict (environment_id, resource_id, key) do update set name = excluded.name,
          description = excluded.description, attributes = excluded.attributes,
          default_reach = excluded.default_reach, is_mfa_required = excluded.is_mfa_required,
          revision = roles.revision + 1, updated_at = now()`)
      await replaceGrants(
        sql`${given(rows, columns)} join roles o on ${roleOf} and o.resource_id is null`,
        sql`p.environment_id = ${env} and p.resource_id is null and p.key = parent.key`,
        tx,
      )
    },
    async resource_role(rows, tx) {
      const columns =
        'id uuid, resource text, key text, name text, description text, attributes jsonb, no_direct_roles_on_object boolean, permissions jsonb, extends jsonb'
      await tx.execute(sql`insert into roles (id, environment_id, resource_id, key, name, description, attributes,
          no_direct_roles_on_object)
        select x.id, ${env}, r.id, x.key, x.name, x.description, x.attributes, x.no_direct_roles_on_object
        from ${given(rows, columns)} join resources r on ${ofEnvironment('r')} and r.key = x.resource
        on conflict (environment_id, resource_id, key) do update set name = excluded.name,
          description = excluded.description, attributes = excluded.attributes,
          no_direct_roles_on_object = excluded.no_direct_roles_on_object, revision = roles.revision + 1,
          updated_at = now()`)
      await replaceGrants(
        sql`${given(rows, columns)} join resources r on ${ofEnvironment('r')} and r.key = x.resource
          join roles o on ${roleOf} and o.resource_id = r.id`,
        sql`p.resource_id = o.resource_id and p.key = parent.key`,
        tx,
      )
    },
    async derivation(rows, tx) {
      const columns =
        'id uuid, resource text, role text, on_resource text, source_role text, relation text, no_direct_roles_on_object boolean'
      await tx.execute(sql`insert into role_derivations
          (id, environment_id, role_id, source_role_id, relation_id, no_direct_roles_on_object)
        select x.id, ${env}, o.id, s.id, l.id, x.no_direct_roles_on_object from ${given(rows, columns)}
        ${derivationEnds}
        on conflict (role_id, source_role_id, relation_id)
          do update set no_direct_roles_on_object = excluded.no_direct_roles_on_object`)
    },
    user_set: async (rows, tx) => await writeSets('userset', rows, tx),
    resource_set: async (rows, tx) => await writeSets('resourceset', rows, tx),
    async rule(rows, tx) {
      const columns = 'id uuid, user_set text, role text, permission text, resource_set text, resource text'
      await tx.execute(sql`insert into set_rules
          (id, environment_id, user_set_id, role_id, action_id, resource_set_id, resource_id)
        select x.id, ${env}, u.id, o.id, a.id, s.id, r.id from ${given(rows, columns)} ${ruleEnds}
        on conflict do nothing`)
    },
  }

  /** Removes definitions of one kind; what depends on them goes along. */
  const removers: Record<RecordKind, (rows: readonly Row[], tx: Tx) => Promise<void>> = {
    async resource(rows, tx) {
      await tx.execute(sql`delete from resources r using ${given(rows, 'key text')}
        where ${ofEnvironment('r')} and r.key = x.key and not r.is_builtin`)
    },
    action: async (rows, tx) => await removeNested('actions', rows, tx),
    attribute: async (rows, tx) => await removeNested('attribute_definitions', rows, tx),
    action_group: async (rows, tx) => await removeNested('action_groups', rows, tx),
    relation: async (rows, tx) => await removeNested('relations', rows, tx),
    resource_role: async (rows, tx) => await removeNested('roles', rows, tx),
    async user_attribute(rows, tx) {
      await tx.execute(sql`delete from attribute_definitions a using ${given(rows, 'key text')}
        where ${ofEnvironment('a')} and a.resource_id is null and a.key = x.key`)
    },
    async role(rows, tx) {
      await tx.execute(sql`delete from roles o using ${given(rows, 'key text')}
        where ${roleOf} and o.resource_id is null`)
    },
    async derivation(rows, tx) {
      const columns = 'resource text, role text, on_resource text, source_role text, relation text'
      await tx.execute(sql`delete from role_derivations where id in (
        select d.id from ${given(rows, columns)} ${derivationEnds}
        join role_derivations d on d.role_id = o.id and d.source_role_id = s.id and d.relation_id = l.id)`)
    },
    user_set: async (rows, tx) => await removeSets('userset', rows, tx),
    resource_set: async (rows, tx) => await removeSets('resourceset', rows, tx),
    async rule(rows, tx) {
      const columns = 'user_set text, role text, permission text, resource_set text, resource text'
      await tx.execute(sql`delete from set_rules where id in (
        select d.id from ${given(rows, columns)} ${ruleEnds}
        join set_rules d on d.action_id = a.id and d.user_set_id is not distinct from u.id
          and d.role_id is not distinct from o.id and d.resource_set_id is not distinct from s.id
          and d.resource_id is not distinct from r.id)`)
    },
  }

  const derivationEnds = sql`
    join resources r on ${ofEnvironment('r')} and r.key = x.resource
    join roles o on o.resource_id = r.id and o.key = x.role
    join resources sr on ${ofEnvironment('sr')} and sr.key = x.on_resource
    join roles s on s.resource_id = sr.id and s.key = x.source_role
    join relations l on l.resource_id = r.id and l.key = x.relation`

  const ruleEnds = sql`
    join resources ar on ${ofEnvironment('ar')} and ar.key = split_part(x.permission, ':', 1)
    join actions a on a.resource_id = ar.id and a.key = split_part(x.permission, ':', 2)
    left join condition_sets u on ${ofEnvironment('u')} and u.key = x.user_set
    left join resources rr on ${ofEnvironment('rr')} and strpos(x.role, '#') > 0 and rr.key = split_part(x.role, '#', 1)
    left join roles o on ${ofEnvironment('o')} and not o.is_builtin and o.resource_id is not distinct from rr.id
      and o.key = case when strpos(x.role, '#') > 0 then split_part(x.role, '#', 2) else x.role end
    left join condition_sets s on ${ofEnvironment('s')} and s.key = x.resource_set
    left join resources r on ${ofEnvironment('r')} and r.key = x.resource`

  /** Makes the permissions and parents of roles those given. `roles` joins x with the roles as o. */
  async function replaceGrants(roles: SQL, isParent: SQL, tx: Tx): Promise<void> {
    await tx.execute(sql`delete from role_permissions where role_id in (select o.id from ${roles})`)
    await tx.execute(sql`insert into role_permissions (environment_id, role_id, action_id)
      select ${env}, o.id, a.id from ${roles}
      cross join lateral jsonb_array_elements_text(x.permissions) permission(name)
      join resources pr on ${ofEnvironment('pr')} and pr.key = split_part(permission.name, ':', 1)
      join actions a on a.resource_id = pr.id and a.key = split_part(permission.name, ':', 2)`)
    await tx.execute(sql`delete from role_parents where role_id in (select o.id from ${roles})`)
    await tx.execute(sql`insert into role_parents (environment_id, role_id, parent_id)
      select ${env}, o.id, p.id from ${roles}
      cross join lateral jsonb_array_elements_text(x.extends) parent(key)
      join roles p on ${isParent} and not p.is_builtin`)
  }

  async function writeSets(type: 'userset' | 'resourceset', rows: readonly Row[], tx: Tx): Promise<void> {
    const columns =
      'id uuid, key text, name text, description text, resource text, conditions jsonb, parent text'
    await tx.execute(sql`insert into condition_sets
        (id, environment_id, type, resource_id, key, name, description, conditions)
      select x.id, ${env}, ${type}, r.id, x.key, x.name, x.description, x.conditions from ${given(rows, columns)}
      left join resources r on ${ofEnvironment('r')} and r.key = x.resource
      on conflict (environment_id, key) do update set name = excluded.name, description = excluded.description,
        type = excluded.type, conditions = excluded.conditions, resource_id = excluded.resource_id, updated_at = now()`)
    await tx.execute(sql`update condition_sets c set parent_id = p.id
      from ${given(rows, columns)} left join condition_sets p on ${ofEnvironment('p')} and p.key = x.parent
      where ${ofEnvironment('c')} and c.key = x.key and c.parent_id is distinct from p.id`)
  }

  /** One of the same key but of the other type has taken its place. */
  async function removeSets(type: 'userset' | 'resourceset', rows: readonly Row[], tx: Tx): Promise<void> {
    await tx.execute(sql`delete from condition_sets c using ${given(rows, 'key text')}
      where ${ofEnvironment('c')} and c.key = x.key and c.type = ${type}`)
  }

  type Nested = 'actions' | 'attribute_definitions' | 'action_groups' | 'relations' | 'roles'
  async function removeNested(table: Nested, rows: readonly Row[], tx: Tx): Promise<void> {
    await tx.execute(sql`delete from ${sql.raw(table)} t using ${given(rows, 'resource text, key text')}
      join resources r on ${ofEnvironment('r')} and r.key = x.resource
      where t.resource_id = r.id and t.key = x.key`)
  }

  return {
    async readRecords(ex: Executor): Promise<PolicyRecord[]> {
      const records: PolicyRecord[] = []
      for (const [kind, { query, name }] of Object.entries(readers)) {
        const { rows } = await ex.execute<Row>(query)
        for (const row of rows) records.push({ kind: kind as RecordKind, name: name(row), value: row })
      }
      return records
    },

    async writeRecords(kind: RecordKind, values: readonly Row[], tx: Tx): Promise<void> {
      if (values.length > 0)
        await writers[kind](
          values.map((value) => ({ ...value, id: newId() })),
          tx,
        )
    },

    async removeRecords(kind: RecordKind, values: readonly Row[], tx: Tx): Promise<void> {
      if (values.length > 0) await removers[kind](values, tx)
    },

    /** The keys of the built-in roles and resources, which no file may name. */
    async listBuiltinKeys(ex: Executor): Promise<{ roles: string[]; resources: string[] }> {
      const { rows } = await ex.execute<{ roles: string[]; resources: string[] }>(sql`select
        array(select key from roles o where ${ofEnvironment('o')} and is_builtin) as roles,
        array(select key from resources r where ${ofEnvironment('r')} and is_builtin) as resources`)
      return rows[0] ?? { roles: [], resources: [] }
    },

    /** The tenant roles among `keys` and those that extend them, by id. */
    async listRolesBelow(keys: readonly string[], tx: Tx): Promise<string[]> {
      const { rows } = await tx.execute<{ id: string }>(sql`select distinct d.id from roles o
        cross join lateral role_and_descendants(o.id) d(id)
        where ${ofEnvironment('o')} and o.resource_id is null and o.key = any(${sql.param([...keys])}::text[])`)
      return rows.map(({ id }) => id)
    },

    /**
     * Who can sign in and holds one of these roles, which nobody is given meanwhile; `undefined`: any role of the
     * application.
     */
    async listHolders(roleIds: readonly string[] | undefined, tx: Tx): Promise<string[]> {
      if (roleIds?.length === 0) return []
      const isMeant = roleIds ? sql`and o.id = any(${sql.param([...roleIds])}::uuid[])` : sql``
      await tx.execute(sql`select from roles o where ${ofEnvironment('o')} and not o.is_builtin ${isMeant}
        order by o.id for no key update`)
      const { rows } = await tx.execute<{
        id: string
      }>(sql`select distinct a.user_id as id from role_assignments a
        join roles o on o.id = a.role_id and not o.is_builtin
        join user_credentials c on c.user_id = a.user_id where ${ofEnvironment('a')} ${isMeant} order by 1`)
      return rows.map(({ id }) => id)
    },

    /**
     * Adds what is missing of the facts, and updates names and attributes of what is there. Removes nothing.
     * @returns the roles that were not held before
     */
    async writeFacts(facts: PolicyFacts, tx: Tx): Promise<GivenRole[]> {
      await writeAccounts(facts, tx)
      await writeUsers(facts, tx)
      await writeInstances(facts, tx)
      return await writeAssignments(facts, tx)
    },
  }

  /** A relation with relationships cannot connect other resources: they would lose their meaning. */
  async function assertNothingLoses(rows: readonly Row[], tx: Tx): Promise<void> {
    const { rows: used } = await tx.execute<{ name: string }>(sql`select r.key || '#' || x.key as name
      from ${given(rows, 'resource text, subject_resource text, key text')}
      join resources r on ${ofEnvironment('r')} and r.key = x.resource
      join resources s on ${ofEnvironment('s')} and s.key = x.subject_resource
      join relations l on l.resource_id = r.id and l.key = x.key and l.subject_resource_id <> s.id
      where exists (select from relationship_tuples t where t.relation_id = l.id)`)
    const [first] = used
    if (!first) return
    throw new AppError('conflict', {
      detail: `The relation ${first.name} has relationships, so it cannot connect other resources: delete them first`,
    })
  }

  /** A new key that is the id of another row would be found in its place. */
  async function assertKeysAreNoIds(
    table: 'accounts' | 'users',
    keys: readonly string[],
    tx: Tx,
  ): Promise<void> {
    const ids = keys.filter(isUuid)
    if (ids.length === 0) return
    const { rows } = await tx.execute(sql`select from ${sql.raw(table)} t
      join unnest(${sql.param(ids)}::text[]) as x(key) on t.id = x.key::uuid
      where ${ofEnvironment('t')} and (t.key <> x.key or t.deleted_at is not null)`)
    if (rows.length === 0) return
    throw new AppError('validation_failed', {
      errors: [{ pointer: `/body/facts/${table}`, detail: `has ${rows.length} keys that are ids of others` }],
    })
  }

  async function writeAccounts({ accounts = {} }: PolicyFacts, tx: Tx): Promise<void> {
    await assertKeysAreNoIds('accounts', Object.keys(accounts), tx)
    const rows = Object.entries(accounts).map(([key, { name = key, description, ...further }]) => ({
      id: newId(),
      key,
      name,
      description: description ?? null,
      attributes: further.attributes ?? null,
      is_mfa_required: further.is_mfa_required ?? false,
      search: foldCase([name, key, description].filter(Boolean).join(' ')),
    }))
    if (rows.length === 0) return
    const columns =
      'id uuid, key text, name text, description text, attributes jsonb, is_mfa_required boolean, search text'
    await tx.execute(sql`insert into accounts
        (id, environment_id, key, name, description, attributes, is_mfa_required, search_text)
      select x.id, ${env}, x.key, x.name, x.description, x.attributes, x.is_mfa_required, x.search
      from ${given(rows, columns)}
      on conflict (environment_id, key) where deleted_at is null do update set
        name = excluded.name, description = excluded.description, search_text = excluded.search_text,
        attributes = coalesce(excluded.attributes, accounts.attributes),
        is_mfa_required = accounts.is_mfa_required or excluded.is_mfa_required,
        revision = accounts.revision + 1, updated_at = now()`)
  }

  async function writeUsers({ users = {} }: PolicyFacts, tx: Tx): Promise<void> {
    await assertKeysAreNoIds('users', Object.keys(users), tx)
    const rows = Object.entries(users).map(([key, { first_name, last_name, attributes }]) => ({
      id: newId(),
      key,
      first_name: first_name ?? null,
      last_name: last_name ?? null,
      attributes: attributes ?? null,
      search: foldCase([first_name, last_name, key].filter(Boolean).join(' ')),
    }))
    if (rows.length === 0) return
    await tx.execute(sql`insert into users (id, environment_id, key, first_name, last_name, attributes, search_text)
      select x.id, ${env}, x.key, x.first_name, x.last_name, x.attributes, x.search
      from ${given(rows, 'id uuid, key text, first_name text, last_name text, attributes jsonb, search text')}
      on conflict (environment_id, key) where deleted_at is null do update set
        first_name = coalesce(excluded.first_name, users.first_name),
        last_name = coalesce(excluded.last_name, users.last_name),
        attributes = coalesce(excluded.attributes, users.attributes),
        revision = users.revision + 1, updated_at = now()`)
  }

  async function writeInstances({ instances = [], relationships = [] }: PolicyFacts, tx: Tx): Promise<void> {
    await writeThings(instances, tx)
    await writeTuples(relationships, tx)
  }

  async function writeThings(instances: Facts<'instances'>, tx: Tx): Promise<void> {
    const rows = instances.map(({ resource, key, account = 'default', attributes = null }) => ({
      id: newId(),
      resource,
      key,
      account,
      attributes,
    }))
    if (rows.length === 0) return
    const { rows: written } = await tx.execute(sql`insert into resource_instances
        (id, environment_id, account_id, resource_id, key, attributes)
      select x.id, ${env}, a.id, r.id, x.key, x.attributes
      from ${given(rows, 'id uuid, resource text, key text, account text, attributes jsonb')}
      join accounts a on ${ofEnvironment('a')} and a.key = x.account and a.deleted_at is null
      join resources r on ${ofEnvironment('r')} and r.key = x.resource and not r.is_builtin
      on conflict (resource_id, key) do update set
        attributes = coalesce(excluded.attributes, resource_instances.attributes), updated_at = now()
        where resource_instances.account_id = excluded.account_id
      returning id`)
    assertAllWritten(
      'instances',
      rows.length,
      written.length,
      'a resource or account that is not there, or that it does not belong to',
    )
  }

  async function writeTuples(relationships: Facts<'relationships'>, tx: Tx): Promise<void> {
    const tuples = relationships.map(({ subject, relation, object }) => ({
      id: newId(),
      relation,
      ...instanceNamed('subject', subject),
      ...instanceNamed('object', object),
    }))
    if (tuples.length === 0) return
    const columns =
      'id uuid, relation text, subject_type text, subject_key text, object_type text, object_key text'
    const ends = sql`${given(tuples, columns)}
      join resources so on ${ofEnvironment('so')} and so.key = x.subject_type
      join resource_instances s on s.resource_id = so.id and s.key = x.subject_key
      join resources oo on ${ofEnvironment('oo')} and oo.key = x.object_type
      join resource_instances o on o.resource_id = oo.id and o.key = x.object_key and o.account_id = s.account_id
      join relations l on l.resource_id = oo.id and l.key = x.relation and l.subject_resource_id = so.id`
    const { rows: found } = await tx.execute(sql`select x.id from ${ends}`)
    assertAllWritten(
      'relationships',
      tuples.length,
      found.length,
      'a relation or instance that is not there, or instances of two accounts',
    )
    await tx.execute(sql`insert into relationship_tuples
        (id, environment_id, account_id, subject_id, relation_id, object_id)
      select x.id, ${env}, o.account_id, s.id, l.id, o.id from ${ends} on conflict do nothing`)
  }

  async function writeAssignments({ users = {} }: PolicyFacts, tx: Tx): Promise<GivenRole[]> {
    const rows = Object.entries(users).flatMap(([user, { roles = [] }]) =>
      roles.map(({ role, account = 'default', instance }) => ({
        id: newId(),
        user,
        role,
        account,
        ...(instance !== undefined && instanceNamed('instance', instance)),
      })),
    )
    if (rows.length === 0) return []
    const columns = 'id uuid, "user" text, role text, account text, instance_type text, instance_key text'
    const ends = sql`${given(rows, columns)}
      join users u on ${ofEnvironment('u')} and u.key = x."user" and u.deleted_at is null
      left join resources r on ${ofEnvironment('r')} and r.key = x.instance_type
      left join resource_instances i on i.resource_id = r.id and i.key = x.instance_key
      join accounts a on ${ofEnvironment('a')} and a.deleted_at is null
        and (a.id = i.account_id or x.instance_type is null and a.key = x.account)
      join roles o on ${ofEnvironment('o')} and not o.is_builtin and o.key = x.role
        and o.resource_id is not distinct from r.id`
    const { rows: found } = await tx.execute(sql`select x.id from ${ends}`)
    assertAllWritten('users', rows.length, found.length, 'a role, account or instance that is not there')
    await tx.execute(sql`insert into account_members (environment_id, account_id, user_id)
      select distinct ${env}, a.id, u.id from ${ends} on conflict do nothing`)
    const { rows: fresh } = await tx.execute<GivenRole>(sql`with fresh as (insert into role_assignments
          (id, environment_id, user_id, role_id, account_id, resource_instance_id)
        select x.id, ${env}, u.id, o.id, a.id, i.id from ${ends} on conflict do nothing
        returning user_id, role_id, account_id, resource_instance_id)
      select g.user_id as "userId", o.key as role, g.account_id as "accountId",
        g.resource_instance_id as "instanceId" from fresh g join roles o on o.id = g.role_id`)
    return fresh
  }
}

const permissionsOf = sql`coalesce((
  select json_agg(pr.key || ':' || a.key order by (pr.key || ':' || a.key) collate "C")
  from role_permissions rp join actions a on a.id = rp.action_id join resources pr on pr.id = a.resource_id
  where rp.role_id = o.id), '[]') as permissions`

const parentsOf = sql`coalesce((
  select json_agg(p.key order by p.key collate "C") from role_parents rp join roles p on p.id = rp.parent_id
  where rp.role_id = o.id), '[]') as extends`

type Facts<K extends keyof PolicyFacts> = NonNullable<PolicyFacts[K]>

/** @throws AppError validation_failed when some entries found no partner */
function assertAllWritten(part: keyof PolicyFacts, wanted: number, found: number, what: string): void {
  if (found >= wanted) return
  throw new AppError('validation_failed', {
    errors: [
      { pointer: `/body/facts/${part}`, detail: `${wanted - found} of ${wanted} entries name ${what}` },
    ],
  })
}

/** `type:key` in two columns. */
function instanceNamed(prefix: string, instance: string): Record<string, string> {
  const colon = instance.indexOf(':')
  return { [`${prefix}_type`]: instance.slice(0, colon), [`${prefix}_key`]: instance.slice(colon + 1) }
}
