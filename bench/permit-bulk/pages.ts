import { performance } from 'node:perf_hooks'
import pg from 'pg'
import { type Bench, load, ROUNDS, report, type Server, send } from '../harness.ts'

const PER_PAGE = 100
const LANES = 2
const BARE_SECONDS = Number(process.env['BENCH_SECONDS'] ?? 3)
const WRITE_EVERY_MS = 20
const READ_AFTER_WRITES = 50

type Person = { id: string; key: string }
type Page = { data: Person[]; total_count: number; page_count: number }
type Users = ReturnType<typeof usersOf>

/**
 * Pages of 100 people: one page again and again, beside a bare statement; all of them one after another; and a page while
 * somebody writes, which changes neither how many there are nor where the page starts.
 */
export async function pages(bench: Bench, { url }: Server, key: string, middle: number): Promise<void> {
  const pool = new pg.Pool({ connectionString: bench.databaseUrl, max: LANES })
  const users = usersOf(url, key)
  try {
    await pool.query('vacuum analyze')
    const rounds = {
      bare: [] as number[],
      first: [] as number[],
      middle: [] as number[],
      written: [] as number[],
      writes: [] as number[],
      bareAlone: [] as number[],
      walk: [] as number[],
    }
    const headers = { authorization: `Bearer ${key}` }
    const page = async (number: number) =>
      (await load({ url: users.pageUrl(number), headers, connections: 16 })).perSecond
    for (let round = -1; round < ROUNDS; round++) {
      const measured = {
        bare: await barePages(pool, LANES),
        first: await page(1),
        middle: await page(middle),
        ...(await whileWriting(pool, users, async () => await page(middle))),
        bareAlone: await barePages(pool, 1),
        walk: await walk(users),
      }
      if (round < 0) continue // warm-up
      for (const name of Object.keys(rounds) as (keyof typeof rounds)[]) rounds[name].push(measured[name])
    }
    report('bare statement: 100 people with their roles, as JSON', rounds.bare, '/s')
    report('page of 100 people with their roles, first', rounds.first, '/s', rounds.bare)
    report('the same, in the middle', rounds.middle, '/s', rounds.bare)
    report('the same, while somebody writes', rounds.written, '/s', rounds.bare)
    report('what is written meanwhile', rounds.writes, 'users/s')
    report('bare statement, one at a time', rounds.bareAlone, '/s')
    report('all pages, one after another', rounds.walk, '/s', rounds.bareAlone)
    const alone = await afterWrites(users, middle)
    report('a page of the middle alone', alone.unchanged, 'ms')
    report('the same right after a write', alone.changed, 'ms', alone.unchanged)
  } finally {
    await pool.end()
  }
}

function usersOf(url: string, key: string) {
  const users = `${url}/v2/facts/default/default/users`
  const pageUrl = (number: number) => `${users}?per_page=${PER_PAGE}&page=${number}`
  return {
    pageUrl,
    /** The text of a page. */
    async read(number: number): Promise<string> {
      const response = await fetch(pageUrl(number), { headers: { authorization: `Bearer ${key}` } })
      const text = await response.text()
      if (!response.ok) throw new Error(`page ${number}: ${response.status} ${text}`)
      return text
    },
    /** Changes somebody so that it can be seen. */
    async change(name: string): Promise<void> {
      const attributes = { changed_at: performance.now() }
      await send('PATCH', `${users}/${name}`, { attributes }, key)
    },
  }
}

const pageOf = (text: string) => JSON.parse(text) as Page

/** Pages per second that a program reads which asks Postgres itself, and counts nothing. */
async function barePages(pool: pg.Pool, lanes: number): Promise<number> {
  const startedAt = performance.now()
  let pages = 0
  const lane = async () => {
    while (performance.now() < startedAt + BARE_SECONDS * 1000) {
      const { rows } = await pool.query({ name: 'bare_page', text: BARE_PAGE })
      if (JSON.stringify(rows).length < 1000) throw new Error('there are no people')
      pages++
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  return (pages * 1000) / (performance.now() - startedAt)
}

const DEFAULT_ENVIRONMENT = `(select id from environments where project = 'default' and key = 'default')`
const BARE_PAGE = `
  select u.id, u.key, u.email, u.first_name, u.last_name, u.attributes, u.created_at, u.updated_at, (
    select json_agg(json_build_object('role', r.key, 'tenant', a.key))
    from role_assignments x join roles r on r.id = x.role_id join accounts a on a.id = x.account_id
    where x.user_id = u.id) as roles
  from users u
  where u.environment_id = ${DEFAULT_ENVIRONMENT} and u.deleted_at is null
  order by u.id limit ${PER_PAGE}`

/**
 * Pages per second from the first to the last. Everybody must be on exactly one of them, and each must count as many as
 * there are. What this process does with a page is not counted.
 */
async function walk(users: Users): Promise<number> {
  const { total_count: total, page_count: count } = pageOf(await users.read(1))
  const seen = new Set<string>()
  let spentMs = 0
  for (let number = 1; number <= count; number++) {
    const startedAt = performance.now()
    const text = await users.read(number)
    spentMs += performance.now() - startedAt
    const page = pageOf(text)
    if (page.total_count !== total) throw new Error(`page ${number} counts ${page.total_count}, not ${total}`)
    for (const { id } of page.data) seen.add(id)
    const expected = Math.min(number * PER_PAGE, total)
    if (seen.size !== expected)
      throw new Error(`${seen.size} people on ${number} pages, which should be ${expected}`)
  }
  return (count * 1000) / spentMs
}

/** Pages per second while somebody is changed every 20 ms, and how many changes that were in a second. */
async function whileWriting(
  pool: pg.Pool,
  users: Users,
  read: () => Promise<number>,
): Promise<{ written: number; writes: number }> {
  const { data: people } = pageOf(await users.read(1))
  const before = await policyVersion(pool)
  const changes: Promise<void>[] = []
  const startedAt = performance.now()
  const timer = setInterval(() => {
    const change = users.change(people[changes.length % people.length]?.id ?? '')
    change.catch(() => undefined) // thrown below, when the load is over
    changes.push(change)
  }, WRITE_EVERY_MS)
  const written = await read().finally(() => clearInterval(timer))
  const writes = (changes.length * 1000) / (performance.now() - startedAt)
  await Promise.all(changes)
  const raised = (await policyVersion(pool)) - before
  if (raised < changes.length) throw new Error(`${changes.length} changes raised the version ${raised} times`)
  return { written, writes }
}

async function policyVersion(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ version: string }>(
    `select version from policy_versions where environment_id = ${DEFAULT_ENVIRONMENT}`,
  )
  return Number(rows[0]?.version)
}

/** How long one page takes, in ms, right after a change and again when nothing has changed. */
async function afterWrites(
  users: Users,
  number: number,
): Promise<{ changed: number[]; unchanged: number[] }> {
  const times = { changed: [] as number[], unchanged: [] as number[] }
  const [somebody] = pageOf(await users.read(1)).data
  for (let n = 0; n < READ_AFTER_WRITES; n++) {
    await users.change(somebody?.id ?? '')
    for (const into of [times.changed, times.unchanged]) {
      const startedAt = performance.now()
      await users.read(number)
      into.push(performance.now() - startedAt)
    }
  }
  return times
}
