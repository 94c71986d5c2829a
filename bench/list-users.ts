import pg from 'pg'
import { adminToken, type Bench, load, placeProcesses, ROUNDS, report, startPostern } from './harness.ts'

const USERS = 10_000
const PAGE = 20

/** A page of 20 users among 10,000: by skip, and by the cursor that the Link header gives. */
export async function listUsers(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  const { databaseUrl } = bench
  const postern = await startPostern({ databaseUrl })
  try {
    await insertUsers(databaseUrl)
    const headers = { authorization: `Bearer ${await adminToken(postern.url)}` }
    const list = `${postern.url}/api/v1/users?limit=${PAGE}`
    const [middle, last] = await cursors(list, headers)
    const pages: [string, string][] = [
      ['first page', list],
      ['middle page by cursor', `${list}&after=${middle}`],
      ['last page by cursor', `${list}&after=${last}`],
      ['last page by skip', `${list}&skip=${USERS - PAGE}`],
      ['first page sorted by email', `${list}&sort=email`],
      ['search for one name', `${list}&q=person+4711`],
    ]
    const rounds = new Map<string, number[]>(pages.map(([name]) => [name, []]))
    await load({ url: list, headers, seconds: 2 })
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, url] of pages) rounds.get(name)?.push((await load({ url, headers })).perSecond)
    }
    for (const [name, values] of rounds) report(name, values, '/s', rounds.get('first page'))
  } finally {
    await postern.stop()
  }
}

async function insertUsers(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  await client.query(
    `insert into users (id, environment_id, key, email, email_normalized, full_name, search_text)
     select id, '00000000-0000-7000-8000-000000000001', id, email, email, 'Person ' || n, email || ' person ' || n
     from (select n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id, 'person' || n || '@bench.test' as email
           from generate_series(1, $1::int) n) as made
     on conflict do nothing`,
    [USERS],
  )
  await client.query('vacuum analyze users')
  await client.end()
}

/** The cursors of the middle and of the last page, found as a client would: by following Link. */
async function cursors(list: string, headers: Record<string, string>): Promise<string[]> {
  const found: string[] = []
  let url: string | undefined = list.replace(`limit=${PAGE}`, 'limit=1000')
  while (url) {
    const response: Response = await fetch(url, { headers })
    const next: string | undefined = /after=([^&>]+)/.exec(response.headers.get('link') ?? '')?.[1]
    await response.arrayBuffer()
    if (next) found.push(next)
    url = next && `${list.replace(`limit=${PAGE}`, 'limit=1000')}&after=${next}`
  }
  return [found[Math.floor(found.length / 2)] ?? '', found.at(-1) ?? '']
}
