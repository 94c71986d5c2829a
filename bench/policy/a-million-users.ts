import { performance } from 'node:perf_hooks'
import autocannon from 'autocannon'
import pg from 'pg'
import {
  adminToken,
  type Bench,
  placeProcesses,
  post,
  report,
  residentMib,
  type Server,
  startPostern,
} from '../harness.ts'

const USERS = Number(process.env['BENCH_USERS'] ?? 1_000_000)
const BATCH = 100
const CACHED = 10_000
const ROLES = ['viewer', 'editor']

/** Memory after one check for each of a million users, cold checks, and a role change under 10,000 cached users. */
export async function aMillionUsers(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  const postern = await startPostern(bench)
  try {
    const { token, key } = await loadPolicy(postern)
    await loadUsers(bench.databaseUrl)
    const ask = asker(postern, key)

    report('one check each, in batches of 100', [await everyUserOnce(ask)], '/s')
    report('resident memory after it', [residentMib(postern.pid)], 'MiB')
    for (const [kind, { hits, misses }] of await cacheCounts(postern))
      if (hits + misses > 0)
        report(`facts of kind ${kind} that were at hand`, [(100 * hits) / (hits + misses)], '%')
    report('first check of somebody cold', await coldChecks(ask), 'ms')
    const { quiet, changing } = await pausesAroundARoleChange(postern, ask, token, key)
    report(`longest pause, ${CACHED.toLocaleString('en')} users cached`, [quiet], 'ms')
    report('longest pause while a role of theirs changes', [changing], 'ms')
  } finally {
    await postern.stop()
  }
}

type Ask = (first: number, count: number, mayEdit?: boolean) => Promise<void>

const questionAbout = (place: number) => ({
  user: { key: `million-${place}` },
  action: 'update',
  resource: { type: 'document', tenant: 'default' },
})

/** Asks about users in a row, and compares every answer: editors may unless `mayEdit` is false, viewers may not. */
function asker({ url }: Server, key: string): Ask {
  return async (first, count, mayEdit = true) => {
    const questions = Array.from({ length: count }, (_, index) => questionAbout(first + index))
    const response = await post(`${url}/allowed/bulk`, questions, key)
    const { allow } = (await response.json()) as { allow: { allow: boolean }[] }
    allow.forEach((answer, index) => {
      if (answer.allow !== (mayEdit && (first + index) % ROLES.length === 1))
        throw new Error(`wrong answer about ${first + index}`)
    })
  }
}

/** Checks per second, eight requests at a time. */
async function everyUserOnce(ask: Ask): Promise<number> {
  const startedAt = performance.now()
  let next = 0
  const lane = async () => {
    while (next < USERS) {
      const first = next
      next += BATCH
      await ask(first, BATCH)
    }
  }
  await Promise.all(Array.from({ length: 8 }, lane))
  return (USERS * 1000) / (performance.now() - startedAt)
}

async function coldChecks(ask: Ask): Promise<number[]> {
  const times: number[] = []
  for (let place = 0; place < 200; place++) {
    const startedAt = performance.now()
    await ask(place * 17, 1)
    times.push(performance.now() - startedAt)
  }
  return times
}

/**
 * How long the server's event loop stood still at the most, in ms, under checks about people who are cached. After each
 * change all of them are asked about: who may be answered as before has not seen it.
 */
async function pausesAroundARoleChange({ url }: Server, ask: Ask, token: string, key: string) {
  const longest = async (seconds: number) => {
    await longestLag(url)
    const result = await autocannon({
      url: `${url}/allowed`,
      connections: 4,
      overallRate: 2000,
      duration: seconds,
      requests: Array.from({ length: CACHED }, (_, place) => ({
        method: 'POST' as const,
        headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
        body: JSON.stringify(questionAbout(USERS - 1 - place)),
      })),
    })
    if (result.non2xx + result.errors > 0) throw new Error('some checks failed')
    return await longestLag(url)
  }
  await longest(Math.ceil((2 * CACHED) / 2000)) // everybody is cached now
  const quiet = await longest(3)
  const measured = longest(3)
  for (const mayEdit of [false, true]) {
    await new Promise((resolve) => setTimeout(resolve, 700))
    const permissions = mayEdit ? ['document:read', 'document:update'] : ['document:read']
    await post(`${url}/api/v1/policy`, policyWith(permissions), token)
    for (let first = USERS - CACHED; first < USERS; first += BATCH) await ask(first, BATCH, mayEdit)
  }
  return { quiet, changing: await measured }
}

/** Since it was last asked for: each question begins anew. */
async function longestLag(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return 1000 * Number(/^postern_nodejs_eventloop_lag_max_seconds ([\d.e-]+)$/m.exec(text)?.[1])
}

const policyWith = (permissions: string[]) => ({
  version: 1,
  resources: { document: { actions: ['read', 'update'] } },
  roles: { viewer: { permissions: ['document:read'] }, editor: { permissions } },
})

async function loadPolicy({ url }: Server) {
  const token = await adminToken(url)
  await post(`${url}/api/v1/policy`, policyWith(['document:read', 'document:update']), token)
  const made = await post(`${url}/api/v1/api-keys`, { name: 'million', access: 'read' }, token)
  return { token, key: ((await made.json()) as { key: string }).key }
}

/** A million people with a role each, written as an import would. */
async function loadUsers(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  const environment = `(select id from environments where project = 'default' and key = 'default')`
  try {
    await client.query(
      `insert into users (id, environment_id, key, search_text)
       select gen_random_uuid(), ${environment}, 'million-' || place, 'million-' || place
       from generate_series(0, $1::int - 1) place`,
      [USERS],
    )
    await client.query(
      `insert into account_members (environment_id, account_id, user_id)
       select u.environment_id, a.id, u.id from users u
       join accounts a on a.environment_id = u.environment_id and a.key = 'default' where u.key like 'million-%'`,
    )
    await client.query(
      `insert into role_assignments (id, environment_id, user_id, role_id, account_id)
       select gen_random_uuid(), u.environment_id, u.id, r.id, m.account_id from users u
       join account_members m on m.user_id = u.id
       join roles r on r.environment_id = u.environment_id and r.resource_id is null and r.key = case
         when split_part(u.key, '-', 2)::int % 2 = 1 then 'editor' else 'viewer' end
       where u.key like 'million-%'`,
    )
    await client.query('vacuum analyze')
  } finally {
    await client.end()
  }
}

/** Lookups since the start, by the kind of what was looked up. */
async function cacheCounts({ url }: Server): Promise<Map<string, { hits: number; misses: number }>> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const counts = new Map<string, { hits: number; misses: number }>()
  for (const [, labels = '', value] of text.matchAll(
    /^postern_policy_cache_lookups_total\{([^}]*)\} (\d+)/gm,
  )) {
    const kind = /kind="(\w+)"/.exec(labels)?.[1] ?? labels
    const count = counts.get(kind) ?? { hits: 0, misses: 0 }
    counts.set(kind, count)
    count[labels.includes('outcome="hit"') ? 'hits' : 'misses'] += Number(value)
  }
  return counts
}
