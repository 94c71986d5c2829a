import fc from 'fast-check'
import t from 'tap'
import { foldCase } from '../../src/case-folding.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'

type Row = Record<string, unknown> & { id: string }
type List = {
  path: string
  /** What each sort compares, as the row in the answer has it. */
  sorts: Record<string, (row: Row) => string>
  idOf?: (row: Row) => string
}

const text = (field: string) => (row: Row) => String(row[field] ?? '')

const LISTS: List[] = [
  {
    path: '/api/v1/users',
    sorts: {
      created_at: text('id'),
      email: (row) => foldCase(text('email')(row)),
      full_name: text('full_name'),
      updated_at: text('updated_at'),
    },
  },
  {
    path: '/api/v1/accounts',
    sorts: { created_at: text('id'), name: text('name'), updated_at: text('updated_at') },
  },
  { path: '/api/v1/roles', sorts: { created_at: text('id') } },
  { path: '/api/v1/audit-events', sorts: { occurred_at: text('id') } },
]

/** Postgres under locale C compares bytes. */
const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

function sorted(rows: Row[], value: (row: Row) => string, isDescending: boolean): string[] {
  const ascending = [...rows].sort((a, b) => byBytes(value(a), value(b)) || byBytes(a.id, b.id))
  return (isDescending ? ascending.reverse() : ascending).map(({ id }) => id)
}

/** The ids of a list as a client gets them that follows the links, and the sizes of the pages. */
async function walk(app: TestApp, path: string, query: Record<string, string>) {
  const ids: string[] = []
  const sizes: number[] = []
  let url: string | undefined = `${path}?${new URLSearchParams(query)}`
  while (url) {
    const response = await app.root.get(url)
    if (response.statusCode !== 200) throw new Error(`${url}: ${response.statusCode} ${response.body}`)
    const rows = response.json<Row[]>()
    ids.push(...rows.map(({ id }) => id))
    sizes.push(rows.length)
    if (sizes.length > 200) throw new Error('the list has no end')
    url = /<([^>]+)>; rel="next"/.exec(String(response.headers['link'] ?? ''))?.[1]
  }
  return { ids, sizes }
}

/** Rows with equal, missing, odd and non-ASCII values; the times of change fall together. */
async function buildFullApp(t: Parameters<typeof buildTestApp>[0]): Promise<TestApp> {
  const app = await buildTestApp(t)
  const names = [
    'Ada',
    'ada',
    'ADA',
    'Ädä',
    'Zoë',
    'zoe',
    '',
    '100%',
    'a_b',
    'a\\b',
    "O'Neil",
    '名前',
    '🔐',
    ' x',
  ]
  const uuid = `('01900000-0000-7000-8000-' || lpad(to_hex(n * 7919 % 4096), 12, '0'))::uuid`
  await app.services.database.pool.query(
    `insert into users (id, environment_id, key, email, email_normalized, full_name, search_text, updated_at)
      select ${uuid}, environment_id, 'key-' || n,
        case when n % 4 > 0 then 'Person' || n || '@example.com' end,
        case when n % 4 > 0 then 'person' || n || '@example.com' end,
        case when n % 5 > 0 then ($1::text[])[1 + n % cardinality($1)] end, '',
        timestamptz '2026-01-01' + (n % 3) * interval '1 millisecond'
      from generate_series(1, 37) n, accounts a where a.key = 'default'`,
    [names],
  )
  await app.services.database.pool.query(
    `insert into accounts (id, environment_id, key, name, search_text, updated_at)
      select ${uuid}, environment_id, 'key-' || n, ($1::text[])[1 + n % cardinality($1)], '',
        timestamptz '2026-01-01' + (n % 3) * interval '1 millisecond'
      from generate_series(1, 23) n, accounts a where a.key = 'default'`,
    [names],
  )
  for (let n = 0; n < 9; n++) await app.root.post('/api/v1/roles', { name: `role-${n}` })
  return app
}

t.test('walking any list in any order with any size of page gives each row once, in order', async (t) => {
  const app = await buildFullApp(t)

  for (const { path, sorts } of LISTS) {
    const all = (await app.root.get(`${path}?limit=1000`)).json<Row[]>()
    t.ok(all.length > 5, `${path} has ${all.length}`)
    const orders = Object.entries(sorts).flatMap(([sort, value]) => [
      { sort, value, isDescending: false },
      { sort: `-${sort}`, value, isDescending: true },
    ])

    for (const { sort, value, isDescending } of orders) {
      const expected = sorted(all, value, isDescending)
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: all.length + 2 }), async (limit) => {
          const { ids, sizes } = await walk(app, path, { sort, limit: String(limit) })

          t.strictSame(ids, expected, `${path} by ${sort}, ${limit} at a time`)
          t.ok(sizes.slice(0, -1).every((size) => size === limit))
        }),
        { numRuns: 4 },
      )
    }
  }
})

t.test('skip and limit cut the same list', async (t) => {
  const app = await buildFullApp(t)

  for (const { path, sorts } of LISTS) {
    for (const sort of Object.keys(sorts)) {
      const all = (await app.root.get(`${path}?limit=1000&sort=${sort}`)).json<Row[]>().map(({ id }) => id)
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 0, max: all.length + 3 }),
          fc.integer({ min: 1, max: all.length + 3 }),
          async (skip, limit) => {
            const response = await app.root.get(`${path}?sort=${sort}&skip=${skip}&limit=${limit}&total=true`)

            t.strictSame(
              response.json<Row[]>().map(({ id }) => id),
              all.slice(skip, skip + limit),
            )
            t.equal(response.headers['x-total-count'], String(all.length))
          },
        ),
        { numRuns: 4 },
      )
    }
  }
})

t.test('members of an account are walked once each', async (t) => {
  const app = await buildTestApp(t)
  const accountId = await app.account('Acme')
  const people = []
  for (let n = 0; n < 7; n++) people.push((await app.person(undefined, { accountId })).id)
  const path = `/api/v1/accounts/${accountId}/members`

  for (const limit of [1, 2, 3, 7, 8]) {
    const ids: string[] = []
    let url: string | undefined = `${path}?limit=${limit}`
    while (url) {
      const response = await app.root.get(url)
      ids.push(...response.json<{ user_id: string }[]>().map(({ user_id }) => user_id))
      url = /<([^>]+)>; rel="next"/.exec(String(response.headers['link'] ?? ''))?.[1]
    }
    t.same(ids, [...people].sort(), `${limit} at a time`)
  }
})

t.test('a filter goes along from page to page', async (t) => {
  const app = await buildFullApp(t)

  const { ids } = await walk(app, '/api/v1/accounts', { key: 'key-3', limit: '1' })

  t.equal(ids.length, 1)
})

t.test('rows that come and go while one walks disturb no other', async (t) => {
  const app = await buildFullApp(t)
  const first = await app.root.get('/api/v1/accounts?sort=name&limit=10')
  const seen = first.json<Row[]>().map(({ id }) => id)
  const rest = (await app.root.get('/api/v1/accounts?sort=name&skip=10&limit=1000')).json<Row[]>()
  const next = /<([^>]+)>/.exec(String(first.headers['link']))?.[1] ?? ''

  await app.root.delete(`/api/v1/accounts/${seen[0]}`)
  await app.root.post('/api/v1/accounts', { name: '!', key: 'before-all' })

  const url = next.replace('limit=10', 'limit=1000')
  t.same(
    (await app.root.get(url)).json<Row[]>().map(({ id }) => id),
    rest.map(({ id }) => id),
  )
})

t.test('no cursor leads to a fault', async (t) => {
  const app = await buildTestApp(t)
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const sort = fc.constantFrom(
    ...LISTS.flatMap(({ path, sorts }) =>
      Object.keys(sorts).flatMap((name) => [`${path} ${name}`, `${path} -${name}`]),
    ),
  )
  const value = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(
      '',
      '\0',
      '\ud800',
      'now',
      'infinity',
      '-infinity',
      'epoch',
      '0',
      '12',
      '2026',
      '2026-02-30',
      '1e999',
    ),
    fc.constantFrom('0000-01-01T00:00:00.000Z', '2026-02-31T00:00:00Z', '9999-12-31T23:59:59.999Z'),
    fc.constantFrom(
      '2026-01-01T24:00:00Z',
      '2026-01-01T00:00:60Z',
      '+275760-09-13T00:00:00.000Z',
      '2026-1-1',
      "');--",
    ),
    fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
  )
  const id = fc.oneof(fc.uuid(), fc.constantFrom('', 'x', '\0', '00000000-0000-0000-0000-000000000000'))
  const cursor = (name: string) =>
    fc.oneof(
      { weight: 4, arbitrary: fc.tuple(fc.constant(name), value, id).map(encode) },
      fc.jsonValue().map(encode),
      fc.string(),
      fc.base64String(),
    )

  await fc.assert(
    fc.asyncProperty(
      sort.chain((named) => fc.tuple(fc.constant(named), cursor(named.split(' ')[1] ?? ''))),
      async ([named, after]) => {
        const [path, order = ''] = named.split(' ')
        const response = await app.root.get(`${path}?${new URLSearchParams({ sort: order, after })}`)

        if (![200, 422].includes(response.statusCode))
          throw new Error(`${response.statusCode} ${response.body}`)
      },
    ),
    { numRuns: 400 },
  )
})

t.test('a cursor of another list or order is refused', async (t) => {
  const app = await buildFullApp(t)
  const { link } = (await app.root.get('/api/v1/users?sort=email&limit=1')).headers
  const after = new URLSearchParams(/\?([^>]+)/.exec(String(link))?.[1]).get('after') ?? ''

  for (const url of [
    `/api/v1/users?sort=-email&after=${after}`,
    `/api/v1/users?sort=full_name&after=${after}`,
    `/api/v1/accounts?sort=name&after=${after}`,
    `/api/v1/users?sort=email&skip=1&after=${after}`,
  ]) {
    t.equal((await app.root.get(url)).statusCode, 422, url)
  }
})
