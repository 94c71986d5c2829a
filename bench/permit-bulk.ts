import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import pg from 'pg'
import {
  adminToken,
  type Bench,
  placeProcesses,
  post,
  ROUNDS,
  report,
  type Server,
  startPostern,
  withMemory,
} from './harness.ts'
import { pages } from './permit-bulk/pages.ts'
import { schemaWrites } from './permit-bulk/schema-writes.ts'

const USERS = Number(process.env['BENCH_BULK_USERS'] ?? 100_000)
/** The most that Permit takes in one request. */
const OPERATIONS = 3000
const LANES = 2
const ROLES = 1000
const FACTS = '/v2/facts/default/default'

/**
 * Permit's management API: loading people with a role each by bulk requests, beside bare inserts of the same rows; pages
 * of 100 of them; and changes of the schema among 1,000 roles, each followed by a check that must know of it.
 */
export async function permitBulk(bench: Bench): Promise<void> {
  const postern = await startPostern({ ...bench, isPinned: false })
  try {
    const key = await loadPolicy(postern)
    await bulkLoad(bench, postern, key)
    await pages(bench, postern, key, Math.floor(USERS / 100 / 2))
    await schemaWrites(postern, key, ROLES)
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
  const memory: number[][] = []
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
      const measured = await withMemory(
        postern.pid,
        async () =>
          await rateOf(perRound, `bulk-${run}`, async (people) => {
            const operations = people.map((person) => ({
              ...person,
              role_assignments: [{ role: 'viewer', tenant: 'default' }],
            }))
            await post(`${postern.url}${FACTS}/bulk/users`, { operations }, key)
          }),
      )
      ours.push(measured.result)
      memory.push(measured.memory)
    }
  } finally {
    await Promise.all(clients.map(async (client) => await client.end()))
  }
  report('bare inserts: people, members, assignments', bare, 'users/s')
  report(`POST ${FACTS}/bulk/users, ${OPERATIONS} in one`, ours, 'users/s', bare)
  const mostIn = (samples: number[] = []) => [Math.max(...samples)]
  report('resident memory before the first of them', memory[0]?.slice(0, 1) ?? [], 'MiB')
  report('the most while the first third is loaded', mostIn(memory.at(0)), 'MiB')
  report('the most while the last third is loaded', mostIn(memory.at(-1)), 'MiB')
  report('the most of all', mostIn(memory.flat()), 'MiB')
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
