import type { Database } from '../db/client.ts'
import { LOWEST_ID } from '../ids.ts'
import type { NumberedPage } from './repository.ts'
import type { PlaceIds } from './schemas.ts'

/** People as the text of a JSON array, and how many there are on all pages. */
export type UserPage = { data: string; total: number }

/** What holds of the list of everybody as long as the same people are in it. */
type Known = {
  peopleVersion: string
  /** The id that stands at a place of the list, for places where pages began or ended. */
  starts: Map<number, string>
}

/** Of how many places the ids are kept, for each environment. */
const KEPT_STARTS = 1000

export type UserPagesRepository = ReturnType<typeof createUserPagesRepository>

/**
 * Pages of people with what they belong to and hold, in Permit's shape. Postgres writes the JSON: to read the rows of
 * a page, make objects of them and write those took Node three times as long as all the rest of the request.
 */
export function createUserPagesRepository({ pool, prepare }: Database, environmentId: string) {
  let known: Known | undefined

  return {
    /**
     * A page of everybody, the oldest first. As long as the same people are in the list, what stands before a known
     * place is not walked over.
     */
    async listAll({ page, perPage }: NumberedPage, place: PlaceIds): Promise<UserPage> {
      const skip = (page - 1) * perPage
      const before = known
      const { rows } = await pool.query<ListedRow>({
        text: everybody(perPage),
        values: [
          ...placeValues(place),
          ...[environmentId, skip, before?.peopleVersion ?? null, before?.starts.get(skip) ?? null],
        ],
        ...(prepare && { name: `permit_users_${perPage}` }),
      })
      const [row] = rows
      // The environment has just been deleted.
      if (!row) return { data: '[]', total: 0 }
      const { data, total, people_version: peopleVersion } = row
      if (known?.peopleVersion !== peopleVersion) known = { peopleVersion, starts: new Map() }
      remember(known.starts, skip, row.first)
      remember(known.starts, skip + perPage, row.next)
      return { data, total }
    },

    /** These people, in this order; with `accountId`, only what concerns that account. */
    async describe(ids: readonly string[], place: PlaceIds, accountId?: string): Promise<string> {
      const { rows } = await pool.query<{ data: string }>({
        text: NAMED,
        values: [...placeValues(place), [...ids], accountId ?? null],
        ...(prepare && { name: 'permit_users_named' }),
      })
      return rows[0]?.data ?? '[]'
    },
  }
}

type ListedRow = {
  data: string
  people_version: string
  total: number
  first: string | null
  /** Who begins the page after this one. */
  next: string | null
}

function remember(starts: Map<number, string>, place: number, id: string | null): void {
  starts.delete(place)
  if (id === null) return
  starts.set(place, id)
  const [oldest] = starts.keys()
  if (starts.size > KEPT_STARTS && oldest !== undefined) starts.delete(oldest)
}

const placeValues = (place: PlaceIds) => [place.organization_id, place.project_id, place.environment_id]

/** As JavaScript writes a date. */
const instant = (column: string): string =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

/**
 * The JSON of the people with these ids, an expression of type uuid[]; with an account, an expression too, only what
 * concerns that. Everything is read for all of them at once, because statements within statements, one for each of a
 * hundred people, cost more than twice as much. `$1` to `$3`: the place.
 */
const described = (ids: string, account: string): string => `
  held as materialized (
    select g.user_id, g.account_id, g.id, r.key as role, a.key as tenant, case when g.resource_instance_id is not null
      then (select json_build_object('role', r.key, 'resource', t.key, 'resource_instance', i.key)
        from resource_instances i join resources t on t.id = i.resource_id where i.id = g.resource_instance_id)
      end as on_instance
    from role_assignments g
    join roles r on r.id = g.role_id and not r.is_builtin
    join accounts a on a.id = g.account_id and a.deleted_at is null
    where g.user_id = any(${ids}) and coalesce(g.expires_at > now(), true)),
  by_tenant as (
    select user_id, account_id, json_agg(role order by id) filter (where on_instance is null) as roles,
      json_agg(on_instance order by id) filter (where on_instance is not null) as on_instances
    from held group by user_id, account_id),
  by_user as (
    select user_id, json_agg(json_build_object('role', role, 'tenant', tenant) order by id) as roles
    from held where on_instance is null and (${account} is null or account_id = ${account}) group by user_id),
  memberships as (
    select m.user_id, m.account_id, m.status, a.key
    from account_members m
    join accounts a on a.id = m.account_id and a.deleted_at is null
    where m.user_id = any(${ids}) and (${account} is null or m.account_id = ${account})),
  tenants as (
    select user_id, json_agg(json_build_object('tenant', key, 'roles', coalesce(roles, '[]'),
      'status', status, 'resource_instance_roles', coalesce(on_instances, '[]')) order by key)
      filter (where key is not null) as of_user
    from memberships full join by_tenant using (user_id, account_id) group by user_id),
  people as (
    select u.id, u.is_active, to_json(shown) as shown
    from users u
    left join tenants on tenants.user_id = u.id
    left join by_user on by_user.user_id = u.id
    cross join lateral (
      select u.key, u.id, $1::text as organization_id, $2::text as project_id, $3::text as environment_id,
        coalesce(tenants.of_user, '[]') as associated_tenants, coalesce(by_user.roles, '[]') as roles,
        u.email, u.first_name, u.last_name, coalesce(u.attributes, '{}') as attributes,
        ${instant('u.created_at')} as created_at, ${instant('u.updated_at')} as updated_at) shown
    where u.id = any(${ids}))`

/** Whoever is not active is marked so, as `presentUser` does. */
const peopleBy = (order: string): string => `(
  select coalesce(json_agg(case when is_active then shown
    else (shown::jsonb || '{"is_active": false}')::json end order by ${order}), '[]')::text from people)`

const NAMED = `with ${described('$4::uuid[]', '$5::uuid')} select ${peopleBy('array_position($4::uuid[], id)')} as data`

/**
 * The size of the page is written out, or Postgres would expect a tenth of the table and plan anew each time. Ids
 * alone are walked over, in the index. `$4`: environment, `$5`: people to skip, `$6`: the version of the list that is
 * known, `$7`: the id that stands there then.
 */
function everybody(perPage: number): string {
  const onPage = `(select ids[1:${perPage}] from walked)::uuid[]`
  return `
    with current as materialized (
      select people::int as total, people_version, case when people_version = $6::bigint then $7::uuid end as start
      from policy_versions where environment_id = $4),
    walked as materialized (select array(
      select id from users
      where environment_id = $4 and deleted_at is null and id >= (select coalesce(start, '${LOWEST_ID}') from current)
      order by id limit ${perPage + 1} offset (select case when start is null then $5::int else 0 end from current)
    ) as ids),
    ${described(onPage, 'null::uuid')}
    select ${peopleBy('id')} as data, total, people_version, ids[1] as first, ids[${perPage + 1}] as next
    from current, walked`
}
