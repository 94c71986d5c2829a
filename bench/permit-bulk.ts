import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import pg from 'pg'
import {
  adminToken,
  type Bench,
  load,
  placeProcesses,
  post,
  ROUNDS,
  report,
  residentMib,
  type Server,
  startPostern,
} from './harness.ts'

const USERS = Number(process.env['BENCH_BULK_USERS'] ?? 100_000)
/** The most that Permit takes in one request. */
const OPERATIONS = 3000
const LANES = 2
const ROLES = 1000
const SCHEMA_WRITES = 100
const FACTS = '/v2/facts/default/default'
const SCHEMA = '/v2/schema/default/default'

/**
 * Permit's management API: loading people with a role each by bulk requests, beside bare inserts of the same rows; pages
 * of 100 of them; and changes of roles among 1,000, each followed by a check that must know of it.
 */
export async function permitBulk(bench: Bench): Promise<void> {
  const postern = await startPostern({ ...bench, isPinned: false })
  try {
    const key = await loadPolicy(postern)
    await bulkLoad(bench, postern, key)
    await pages(bench, postern, key)
    await schemaWrites(postern, key)
  } finally {
    await postern.stop()
  }
}

async function loadPolicy({ url }: Server): Promise<string> {
  const token = await adminToken(url)
  const actions = ['read', 'update', 'delete']
  const roles = Array.from({ length: ROLES }, (_, place) => {
    const permissions = [`document:${actions[place % actions.length]}`]
    return [place === 0 ? 'viewer' : `role-${place}`, { permissions }]
  })
  await post(
    `${url}/api/v1/policy`,
    { version: 1, resources: { document: { actions } }, roles: Object.fromEntries(roles) },
    token,
  )
  const made = await post(`${url}/api/v1/api-keys`, { name: 'bulk', access: 'full' }, token)
  return ((await made.json()) as { key: string }).key
}

const personOf = (prefix: string, place: number) => ({
  key: `${prefix}-${place}`,
  email: `${prefix}-${place}@bench.test`,
  first_name: 'Person',
  last_name: String(place),
  attributes: { department: `d${place % 50}`, level: place % 10 },
})

type Person = ReturnType<typeof personOf>

async function bulkLoad(bench: Bench, postern: Server, key: string): Promise<void> {
  placeProcesses(bench, false)
  const ours: number[] = []
  const bare: number[] = []
  const memory: number[] = []
  const perRound = Math.ceil(USERS / ROUNDS / OPERATIONS) * OPERATIONS
  const clients = await Promise.all(
    Array.from({ length: LANES }, async () => {
      const client = new pg.Client({ connectionString: bench.databaseUrl })
      await client.connect()
      return client
    }),
  )
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const run = randomUUID().slice(0, 8)
      bare.push(
        await rateOf(perRound, `bare-${run}`, async (people, lane) => {
          const client = clients[lane]
          if (client) await insertBare(client, people)
        }),
      )
      ours.push(
        await rateOf(perRound, `bulk-${run}`, async (people) => {
          const operations = people.map((person) => ({
            ...person,
            role_assignments: [{ role: 'viewer', tenant: 'default' }],
          }))
          await post(`${postern.url}${FACTS}/bulk/users`, { operations }, key)
        }),
      )
      memory.push(residentMib(postern.pid))
    }
  } finally {
    await Promise.all(clients.map(async (client) => await client.end()))
  }
  report('bare inserts: people, members, assignments', bare, 'users/s')
  report(`POST ${FACTS}/bulk/users, ${OPERATIONS} in one`, ours, 'users/s', bare)
  report('resident memory after a third of them', memory.slice(0, 1), 'MiB')
  report('the same after all', memory.slice(-1), 'MiB')
}

/** People per second, `LANES` requests at a time. */
async function rateOf(
  count: number,
  prefix: string,
  write: (people: Person[], lane: number) => Promise<void>,
): Promise<number> {
  const startedAt = performance.now()
  let next = 0
  const work = async (lane: number) => {
    while (next < count) {
      const first = next
      next += OPERATIONS
      await write(
        Array.from({ length: OPERATIONS }, (_, index) => personOf(prefix, first + index)),
        lane,
      )
    }
  }
  await Promise.all(Array.from({ length: LANES }, async (_, lane) => await work(lane)))
  return (count * 1000) / (performance.now() - startedAt)
}

/** The same rows without rules, audit trail or HTTP. */
async function insertBare(client: pg.Client, people: Person[]): Promise<void> {
  await client.query(
    `with x as materialized (
      select gen_random_uuid() as id, * from json_to_recordset($1::json) as p
        (key text, email text, first_name text, last_name text, attributes jsonb)),
    person as (
      insert into users (id, environment_id, key, email, email_normalized, full_name, first_name, last_name, attributes,
        search_text)
      select id, e.environment_id, key, email, email, first_name || ' ' || last_name, first_name, last_name, attributes,
        lower(concat_ws(' ', email, first_name, last_name, key))
      from x, (select id as environment_id from environments where project = 'default' and key = 'default') e
      returning id, environment_id),
    member as (
      insert into account_members (environment_id, account_id, user_id)
      select p.environment_id, a.id, p.id from person p
      join accounts a on a.environment_id = p.environment_id and a.key = 'default'
      returning environment_id, account_id, user_id)
    insert into role_assignments (id, environment_id, user_id, role_id, account_id)
    select gen_random_uuid(), m.environment_id, m.user_id, r.id, m.account_id from member m
    join roles r on r.environment_id = m.environment_id and r.resource_id is null and r.key = 'viewer'`,
    [JSON.stringify(people)],
  )
}

async function pages(bench: Bench, { url }: Server, key: string): Promise<void> {
  const pool = new pg.Pool({ connectionString: bench.databaseUrl, max: LANES })
  try {
    await pool.query('vacuum analyze')
    const headers = { authorization: `Bearer ${key}` }
    const middle = Math.floor(USERS / 100 / 2)
    const rounds = { bare: [] as number[], first: [] as number[], middle: [] as number[] }
    for (let round = -1; round < ROUNDS; round++) {
      const page = async (number: number) =>
        (await load({ url: `${url}${FACTS}/users?per_page=100&page=${number}`, headers, connections: 16 }))
          .perSecond
      const measured = { bare: await barePages(pool), first: await page(1), middle: await page(middle) }
      if (round < 0) continue // warm-up
      rounds.bare.push(measured.bare)
      rounds.first.push(measured.first)
      rounds.middle.push(measured.middle)
    }
    report('bare statement: 100 people with their roles, as JSON', rounds.bare, '/s')
    report('page of 100 people with their roles, first', rounds.first, '/s', rounds.bare)
    report('the same, in the middle', rounds.middle, '/s', rounds.bare)
  } finally {
    await pool.end()
  }
}

/** Pages per second that a program reads which asks Postgres itself, and counts nothing. */
async function barePages(pool: pg.Pool): Promise<number> {
  const startedAt = performance.now()
  let pages = 0
  const lane = async () => {
    while (performance.now() < startedAt + BARE_SECONDS * 1000) {
      const { rows } = await pool.query({ name: 'bare_page', text: BARE_PAGE })
      if (JSON.stringify(rows).length < 1000) throw new Error('there are no people')
      pages++
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return (pages * 1000) / (performance.now() - startedAt)
}

const BARE_SECONDS = 3
const BARE_PAGE = `
  select u.id, u.key, u.email, u.first_name, u.last_name, u.attributes, u.created_at, u.updated_at, (
    select json_agg(json_build_object('role', r.key, 'tenant', a.key))
    from role_assignments x join roles r on r.id = x.role_id join accounts a on a.id = x.account_id
    where x.user_id = u.id) as roles
  from users u
  where u.environment_id = (select id from environments where project = 'default' and key = 'default')
    and u.deleted_at is null
  order by u.id limit 100`

/** Each change is followed by a check, and the check must know of it. */
async function schemaWrites({ url }: Server, key: string): Promise<void> {
  const times = { create: [] as number[], patch: [] as number[], check: [] as number[] }
  const timed = async (into: number[], work: () => Promise<unknown>) => {
    const startedAt = performance.now()
    await work()
    into.push(performance.now() - startedAt)
  }
  const expectAllowed = async (user: string, action: string, expected: boolean) => {
    const question = { user: { key: user }, action, resource: { type: 'document', tenant: 'default' } }
    await timed(times.check, async () => {
      const { allow } = (await (await post(`${url}/allowed`, question, key)).json()) as { allow: boolean }
      if (allow !== expected) throw new Error(`wrong answer about ${user} and ${action}`)
    })
  }
  const run = randomUUID().slice(0, 8)
  for (let place = 0; place < SCHEMA_WRITES; place++) {
    const [role, user] = [`new-${run}-${place}`, `holder-${run}-${place}`]
    const body = { key: role, name: role, permissions: ['document:read'] }
    await timed(times.create, async () => await post(`${url}${SCHEMA}/roles`, body, key))
    const grant = { role, tenant: 'default' }
    await post(`${url}${FACTS}/users`, { key: user, role_assignments: [grant] }, key)
    await expectAllowed(user, 'read', true)
    await expectAllowed(user, 'update', false)
    await timed(times.patch, async () => {
      const response = await fetch(`${url}${SCHEMA}/roles/${role}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
        body: JSON.stringify({ permissions: ['document:update'] }),
      })
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
    })
    await expectAllowed(user, 'read', false)
    await expectAllowed(user, 'update', true)
  }
  report(`role created among ${ROLES.toLocaleString('en')}`, times.create, 'ms')
  report('role changed among them', times.patch, 'ms')
  report('the next check', times.check, 'ms')
}
