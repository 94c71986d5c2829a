import { Readable } from 'node:stream'
import type { LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { faultFinder } from '../src/cli/input.ts'
import { NOTHING_DONE } from '../src/user-import/progress.ts'
import { ImportedUserSchema, readPeople } from '../src/user-import/records.ts'
import { readCsv } from '../src/user-import/source.ts'
import { anApiKey, anEnvironment, inEnvironment } from './helpers/api-keys.ts'
import { buildTestApp, type Method, type Person, type TestApp } from './helpers/app.ts'
import { PASSWORD } from './helpers/config.ts'

const statusesOf = (responses: LightMyRequestResponse[]): number[] =>
  responses.map(({ statusCode }) => statusCode).sort()

/** Two processes over one database, as two servers behind a balancer. */
async function buildPair(t: Test): Promise<[TestApp, TestApp]> {
  const first = await buildTestApp(t)
  return [first, await buildTestApp(t, { databaseUrl: first.databaseUrl })]
}

/** Sends `count` requests at once, in turn to either process. */
async function atOnce(
  [first, second]: [TestApp, TestApp],
  count: number,
  send: (app: TestApp, n: number) => Promise<LightMyRequestResponse>,
): Promise<LightMyRequestResponse[]> {
  return await Promise.all(
    Array.from({ length: count }, async (_, n) => await send(n % 2 === 0 ? first : second, n)),
  )
}

const codesOf = (responses: LightMyRequestResponse[], status: number): string[] => [
  ...new Set(
    responses
      .filter(({ statusCode }) => statusCode === status)
      .map((response) => response.json<{ type: string }>().type),
  ),
]

async function countOf({ services }: TestApp, from: string, values: unknown[] = []): Promise<number> {
  const { rows } = await services.database.pool.query(`select count(*)::int as count from ${from}`, values)
  return Number(rows[0]?.count)
}

t.test('of many creations of one email one is done', async (t) => {
  const pair = await buildPair(t)
  const spellings = ['Ada@example.com', 'ADA@EXAMPLE.COM', 'ada@example.com']

  const responses = await atOnce(pair, 8, async ({ root }, n) =>
    root.post('/api/v1/users', { email: spellings[n % 3], password: PASSWORD }),
  )

  t.same(statusesOf(responses), [201, ...Array<number>(7).fill(409)])
  t.same(codesOf(responses, 409), ['/problems/email_taken'])
  t.equal(await countOf(pair[0], `users where email_normalized = 'ada@example.com'`), 1)
})

t.test('of an administrator’s creation and a registration of one email one is done', async (t) => {
  const pair = await buildPair(t)

  const responses = await atOnce(pair, 6, async ({ root, anonymous }, n) => {
    const body = { email: 'ada@example.com', password: PASSWORD, full_name: 'Ada' }
    return n % 3 === 0
      ? await root.post('/api/v1/users', body)
      : await anonymous.post('/api/v1/users/open', body)
  })

  t.same(statusesOf(responses), [201, 409, 409, 409, 409, 409])
})

t.test('two people who take one email leave one with it', async (t) => {
  const pair = await buildPair(t)
  const people = [await pair[0].person(), await pair[0].person()]

  const responses = await atOnce(pair, 2, async ({ root }, n) =>
    root.patch(`/api/v1/users/${people[n]?.id}`, { email: 'wanted@example.com' }),
  )

  t.same(statusesOf(responses), [200, 409])
})

t.test('of many accounts and roles of one key one is made', async (t) => {
  const pair = await buildPair(t)

  const accounts = await atOnce(pair, 6, async ({ root }) => root.post('/api/v1/accounts', { name: 'Acme' }))
  const roles = await atOnce(pair, 6, async ({ root }) =>
    root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'page:read'] }),
  )

  t.same(statusesOf(accounts), [201, 409, 409, 409, 409, 409])
  t.same(codesOf(accounts, 409), ['/problems/account_key_taken'])
  t.same(statusesOf(roles), [201, 409, 409, 409, 409, 409])
  t.same(codesOf(roles, 409), ['/problems/role_key_taken'])
})

t.test('roles that declare the same resources at once are all made, and each is declared once', async (t) => {
  const pair = await buildPair(t)
  const scopes = ['post:read', 'post:write', 'page:read', 'page:write']

  const responses = await atOnce(pair, 8, async ({ root }, n) =>
    root.post('/api/v1/roles', {
      name: `role-${n}`,
      scopes: n % 2 === 0 ? scopes : [...scopes].reverse(),
    }),
  )

  t.same(statusesOf(responses), Array(8).fill(201))
  for (const response of responses) t.same(response.json<{ scopes: string[] }>().scopes, [...scopes].sort())
  t.equal(await countOf(pair[0], `resources where key in ('post', 'page')`), 2)
})

t.test('of many primary assignments one is done', async (t) => {
  const pair = await buildPair(t)
  const person = await pair[0].person()
  const roles = [await pair[0].roleId('GUEST'), await pair[0].roleId('ACCOUNT_MANAGER')]

  const responses = await atOnce(pair, 6, async ({ root }, n) =>
    root.post('/api/v1/user-roles', { user_id: person.id, role_id: roles[n % 2] }),
  )

  t.same(statusesOf(responses), [201, 409, 409, 409, 409, 409])
  t.same(codesOf(responses, 409), ['/problems/role_already_assigned'])
  t.equal(await countOf(pair[0], 'role_assignments where user_id = $1', [person.id]), 1)
})

t.test('of many further assignments of one role one is done', async (t) => {
  const pair = await buildPair(t)
  const person = await pair[0].person('GUEST')
  const role_id = await pair[0].roleId('ACCOUNT_MANAGER')

  const responses = await atOnce(pair, 6, async ({ root }) =>
    root.post(`/api/v1/users/${person.id}/roles`, { role_id }),
  )

  t.same(statusesOf(responses), [201, 409, 409, 409, 409, 409])
})

t.test('role changes of one person at once come one after the other', async (t) => {
  const pair = await buildPair(t)
  const person = await pair[0].person('GUEST')
  const keys = ['ACCOUNT_MANAGER', 'ACCOUNT_ADMIN', 'ADMIN', 'GUEST']
  const ids = await Promise.all(keys.map(async (key) => pair[0].roleId(key)))

  const responses = await atOnce(pair, 8, async ({ root }, n) =>
    root.put(`/api/v1/user-roles/${person.id}`, { role_id: ids[n % 4] }),
  )

  t.same(statusesOf(responses), Array(8).fill(200))
  t.equal(await countOf(pair[0], 'role_assignments where user_id = $1 and is_primary', [person.id]), 1)
  t.equal((await person.client.get('/api/v1/users/me')).statusCode, 401)
})

t.test('moves of one person at once leave one home, one membership and the role there', async (t) => {
  const pair = await buildPair(t)
  const person = await pair[0].person('ACCOUNT_MANAGER')
  const accounts = [await pair[0].account('A'), await pair[0].account('B'), await pair[0].account('C')]

  const responses = await atOnce(pair, 9, async ({ root }, n) =>
    root.post(`/api/v1/accounts/${accounts[n % 3]}/users`, { user_id: person.id }),
  )

  t.same(statusesOf(responses), Array(9).fill(200))
  const { account_id: home } = (await pair[0].root.get(`/api/v1/users/${person.id}`)).json<{
    account_id: string
  }>()
  t.ok(accounts.includes(home))
  t.equal(await countOf(pair[0], 'account_members where user_id = $1', [person.id]), 1)
  t.equal(
    await countOf(pair[0], 'role_assignments where user_id = $1 and account_id = $2', [person.id, home]),
    1,
  )
})

t.test('of updates with one ETag one is done, and the others are 412', async (t) => {
  const pair = await buildPair(t)
  const [{ root }] = pair
  const person = await pair[0].person('GUEST')
  const account = await pair[0].account('Acme')
  await root.post('/api/v1/roles', { name: 'writer' })
  const records: [url: string, field: string][] = [
    [`/api/v1/users/${person.id}`, 'full_name'],
    [`/api/v1/accounts/${account}`, 'description'],
    [`/api/v1/roles/${await pair[0].roleId('writer')}`, 'description'],
  ]

  for (const [url, field] of records) {
    const headers = { 'if-match': String((await root.get(url)).headers.etag) }
    const responses = await atOnce(pair, 5, async (app, n) =>
      app.root.patch(url, { [field]: `Change ${n}` }, headers),
    )

    t.same(statusesOf(responses), [200, 412, 412, 412, 412], url)
    const done = responses.find(({ statusCode }) => statusCode === 200)
    t.equal((await root.get(url)).headers.etag, done?.headers.etag)
    t.same((await root.get(url)).json(), done?.json())
  }
})

t.test('a role that is edited while it is granted ends in one of the two orders', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair
  await first.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
  const role_id = await first.roleId('writer')
  const people: Person[] = []
  for (let n = 0; n < 6; n++) people.push(await first.person())

  const responses = await atOnce(pair, 12, async ({ root }, n) =>
    n % 2 === 0
      ? root.post('/api/v1/user-roles', { user_id: people[n / 2]?.id, role_id })
      : root.patch(`/api/v1/roles/${role_id}`, { scopes: n % 4 === 1 ? ['post:read'] : ['post:write'] }),
  )

  t.same(
    statusesOf(responses).filter((status) => ![200, 201, 409].includes(status)),
    [],
  )
  const { scopes } = (await first.root.get(`/api/v1/roles/${role_id}`)).json<{ scopes: string[] }>()
  t.equal(scopes.length, 1)
  for (const person of people) {
    const token = await first.signIn(person.email)
    const permissions = await first.as(token).get('/api/v1/users/me/permissions')
    const held = permissions.json<{ scopes: string[] }>().scopes
    t.ok(held.length === 0 || held.join() === scopes.join())
  }
})

t.test('a role that is deleted while it is assigned is either gone or held', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair

  for (let round = 0; round < 5; round++) {
    const name = `role-${round}`
    await first.root.post('/api/v1/roles', { name, scopes: ['post:read'] })
    const role_id = await first.roleId(name)
    const person = await first.person()

    const [assigned, deleted] = await atOnce(pair, 2, async ({ root }, n) =>
      n === 0
        ? root.post('/api/v1/user-roles', { user_id: person.id, role_id })
        : root.delete(`/api/v1/roles/${role_id}`),
    )

    const outcome = [assigned?.statusCode, deleted?.statusCode].join()
    t.ok(['201,409', '404,204'].includes(outcome), outcome)
    const exists = (await first.root.get(`/api/v1/roles/${role_id}`)).statusCode === 200
    t.equal(exists, outcome === '201,409')
  }
})

t.test('an account that is deleted while somebody moves in is either gone or inhabited', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair

  for (let round = 0; round < 5; round++) {
    const account = await first.account(`Account ${round}`)
    const person = await first.person()

    const [moved, deleted] = await atOnce(pair, 2, async ({ root }, n) =>
      n === 0
        ? root.post(`/api/v1/accounts/${account}/users`, { user_id: person.id })
        : root.delete(`/api/v1/accounts/${account}`),
    )

    const outcome = [moved?.statusCode, deleted?.statusCode].join()
    t.ok(['200,409', '404,204'].includes(outcome), outcome)
  }
})

t.test('of two super admins who demote each other one stays', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair

  for (const remove of [
    async (app: TestApp, token: string, id: string) =>
      app.as(token).put(`/api/v1/user-roles/${id}`, { role_id: await first.roleId('GUEST') }),
    async (app: TestApp, token: string, id: string) => app.as(token).delete(`/api/v1/user-roles/${id}`),
    async (app: TestApp, token: string, id: string) => app.as(token).post(`/api/v1/users/${id}/deactivate`),
    async (app: TestApp, token: string, id: string) => app.as(token).delete(`/api/v1/users/${id}`),
  ]) {
    const other = await first.person('SUPER_ADMIN')
    const rootToken = await first.signIn((await first.services.users.getUser(first.rootId)).email ?? '')

    const responses = await atOnce(pair, 2, async (app, n) =>
      n === 0 ? await remove(app, rootToken, other.id) : await remove(app, other.token, first.rootId),
    )

    t.notMatch(statusesOf(responses), [200, 200])
    const admins = await countOf(
      first,
      `role_assignments a join roles r on r.id = a.role_id join users u on u.id = a.user_id
        where r.key = 'SUPER_ADMIN' and u.is_active and u.deleted_at is null`,
    )
    t.equal(admins, 1)
    await first.services.database.pool.query(`delete from role_assignments where user_id in ($1, $2)`, [
      other.id,
      first.rootId,
    ])
    await first.services.database.pool.query(
      `update users set is_active = true, deleted_at = null where id = $1`,
      [first.rootId],
    )
    const { SYSTEM } = await import('../src/principal.ts')
    await first.services.roles.assignPrimary(SYSTEM, first.rootId, await first.roleId('SUPER_ADMIN'))
  }
})

t.test('a person who deactivates the account of a sign-in under way is not let in afterwards', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair
  const person = await first.person('GUEST')

  const [signedIn] = await Promise.all([
    first.anonymous.post('/api/v1/auth/login', { email: person.email, password: PASSWORD }),
    first.root.post(`/api/v1/users/${person.id}/deactivate`),
  ])

  t.ok([200, 401].includes(signedIn.statusCode))
  if (signedIn.statusCode === 200) {
    const { access_token: token } = signedIn.json<{ access_token: string }>()
    t.equal((await first.as(token).get('/api/v1/users/me')).statusCode, 401)
  }
})

t.test('changes of one’s password at once leave one that works', async (t) => {
  const pair = await buildPair(t)
  const person = await pair[0].person('GUEST')
  const passwords = [1, 2, 3, 4].map((n) => `a new password, number ${n}`)

  const responses = await atOnce(pair, 4, async (app, n) =>
    app.as(person.token).post('/api/v1/auth/change-password', {
      current_password: PASSWORD,
      new_password: passwords[n],
    }),
  )

  const statuses = statusesOf(responses)
  t.equal(statuses.filter((status) => status === 204).length, 1, statuses.join())
  t.same(
    statuses.filter((status) => ![204, 400, 409].includes(status)),
    [],
  )
  const working = []
  for (const password of passwords) {
    const response = await pair[0].anonymous.post('/api/v1/auth/login', { email: person.email, password })
    if (response.statusCode === 200) working.push(password)
  }
  t.equal(working.length, 1)
})

t.test('a mixture of changes to the same few records ends in no fault', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair
  await first.root.post('/api/v1/roles', { name: 'one', scopes: ['post:read', 'post:write'] })
  await first.root.post('/api/v1/roles', { name: 'two', scopes: ['page:read'] })
  const roles = [await first.roleId('one'), await first.roleId('two')]
  const people = [await first.person('one'), await first.person('two'), await first.person('one')]
  const accounts = [first.home, await first.account('A'), await first.account('B')]
  const pick = <T>(list: T[], n: number): T => list[n % list.length] as T
  const changes = [
    (app: TestApp, n: number) =>
      app.root.put(`/api/v1/user-roles/${pick(people, n).id}`, { role_id: pick(roles, n) }),
    (app: TestApp, n: number) =>
      app.root.patch(`/api/v1/roles/${pick(roles, n)}`, {
        scopes: n % 2 ? ['post:read'] : ['page:read', 'a:b'],
      }),
    (app: TestApp, n: number) =>
      app.root.post(`/api/v1/accounts/${pick(accounts, n)}/users`, { user_id: pick(people, n).id }),
    (app: TestApp, n: number) =>
      app.root.patch(`/api/v1/users/${pick(people, n).id}`, { is_active: n % 2 === 0 }),
    (app: TestApp, n: number) =>
      app.root.put(`/api/v1/accounts/${pick(accounts, n)}/members/${pick(people, n + 1).id}`),
    (app: TestApp, n: number) =>
      app.root.delete(`/api/v1/accounts/${pick(accounts, n)}/members/${pick(people, n).id}`),
    (app: TestApp, n: number) =>
      app.root.post(`/api/v1/users/${pick(people, n).id}/roles`, {
        role_id: pick(roles, n + 1),
        account_id: pick(accounts, n),
      }),
    (app: TestApp, n: number) =>
      app.root.patch(`/api/v1/accounts/${pick(accounts, n)}`, { description: `Change ${n}` }),
  ]

  const responses = await atOnce(pair, 48, async (app, n) => pick(changes, n)(app, Math.floor(n / 8) + n))

  // 503: a request that waited for a connection while others waited for each other.
  const unmeant = responses.filter(({ statusCode }) => ![200, 201, 204, 404, 409, 503].includes(statusCode))
  t.same(
    unmeant.map(({ statusCode, body }) => `${statusCode} ${body}`),
    [],
  )
  t.ok(responses.some(({ statusCode }) => statusCode < 300))
  t.equal(
    await countOf(
      first,
      `role_assignments a where a.account_id is not null and not exists (
        select from account_members m where m.account_id = a.account_id and m.user_id = a.user_id)`,
    ),
    0,
  )
})

t.test('how many people there are is known, whatever happens to them at once', async (t) => {
  const pair = await buildPair(t)
  const [first] = pair
  const { pool } = first.services.database
  const further = await anEnvironment(first)
  const places = ['default/default', further.name]
  const { key } = await anApiKey(first, { level: 'org' })
  let last = 0
  const fresh = () => `p${++last}`
  const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T
  const permit = async (method: Method, what: string, body: object) =>
    await pick(pair)
      .as(key)
      .send(method, `/v2/facts/${pick(places)}/${what}`, body)
  const newcomers = (count: number) => ({
    operations: Array.from({ length: count }, () => ({ key: fresh() })),
  })

  async function somebody(isDeleted: boolean): Promise<string> {
    const { rows } = await pool.query<{ id: string }>(
      `select id from users where key like 'p%' and (deleted_at is not null) = $1 order by random() limit 1`,
      [isDeleted],
    )
    return rows[0]?.id ?? further.id
  }

  const insert = `insert into users (id, environment_id, key, search_text)
    select gen_random_uuid(), $1, $2 || n, '' from generate_series(1, $3::int) n`
  /** All that SQL can do, some of which is taken back. */
  async function inTransaction(end: 'commit' | 'rollback'): Promise<void> {
    const client = await pool.connect()
    const prefix = `raw-${fresh()}-`
    try {
      await client.query('begin')
      await client.query(insert, [further.id, prefix, 7])
      await client.query('savepoint here')
      await client.query(
        `update users set deleted_at = now() where starts_with(key, $1) and key < $1 || '5'`,
        [prefix],
      )
      await client.query(insert, [further.id, `${prefix}x`, 5])
      if (Math.random() < 0.5) await client.query('rollback to here')
      await client.query(
        `update users set deleted_at = case when deleted_at is null then now() end
          where starts_with(key, $1) and key > $1 || '3'`,
        [prefix],
      )
      await client.query(`delete from users where starts_with(key, $1) and key < $1 || '3'`, [prefix])
      await client.query(end)
    } finally {
      client.release()
    }
  }

  const steps: (() => Promise<unknown>)[] = [
    async () => await permit('POST', 'bulk/users', newcomers(20)),
    async () => await permit('PUT', 'bulk/users', newcomers(3)),
    async () => await permit('PUT', `users/${fresh()}`, {}),
    async () => {
      const idents = [await somebody(false), await somebody(false), await somebody(true)]
      return await permit('DELETE', 'bulk/users', { idents })
    },
    async () => {
      const lines = Array.from({ length: 4 }, () => `${fresh()},P`)
      const source = readCsv(Readable.from([Buffer.from(['key,full_name', ...lines].join('\n'))]), new Map())
      await pick(pair).services.userImport.run(readPeople(source, faultFinder(ImportedUserSchema)), {
        onConflict: 'skip',
        isDryRun: false,
        createsAccounts: false,
        from: NOTHING_DONE,
        onRefused: async () => {},
        onProgress: async () => {},
      })
    },
    async () => await pick(pair).root.delete(`/api/v1/users/${await somebody(false)}`),
    async () => await pick(pair).root.post(`/api/v1/users/${await somebody(true)}/restore`),
    async () => await pick(pair).root.post(`/api/v1/users/${await somebody(pick([true, false]))}/erase`),
    async () =>
      await pick(pair).root.patch(`/api/v1/users/${await somebody(false)}`, { first_name: fresh() }),
    async () => await inTransaction('commit'),
    async () => await inTransaction('rollback'),
  ]
  async function assertKnown(t: Test, when: string): Promise<void> {
    const { rows } = await pool.query<{ known: number; there: number }>(
      `select people::int as known, (
        select count(*)::int from users u where u.environment_id = v.environment_id and u.deleted_at is null) as there
      from policy_versions v order by environment_id`,
    )
    t.same(
      rows.map(({ known }) => known),
      rows.map(({ there }) => there),
      when,
    )
    for (const app of pair)
      for (const place of places) {
        const page = await app.as(key).get(`/v2/facts/${place}/users?per_page=1`)
        const list = await app.root.get('/api/v1/users?limit=1&total=true', inEnvironment(place))
        const counted = [
          page.json<{ total_count: number }>().total_count,
          Number(list.headers['x-total-count']),
        ]
        const there = rows[places.indexOf(place)]?.there
        t.same(counted, [there, there], `${when}: ${place}`)
      }
  }

  await assertKnown(t, 'before')
  for (let round = 1; round <= 3; round++) {
    const done = steps.flatMap((step) => [step, step, step]).sort(() => Math.random() - 0.5)
    await Promise.all(done.map(async (step) => await step()))
    await assertKnown(t, `round ${round}`)
  }

  // More than caches are told one by one.
  await pool.query(insert, [further.id, 'many-', 10_500])
  await assertKnown(t, 'very many come')
  await pool.query(`update users set deleted_at = now() where key like 'many-%'`)
  await assertKnown(t, 'and go')
  await pool.query(`update users set deleted_at = null where key like 'many-%'`)
  await pool.query(`delete from users where key like 'many-%'`)
  await assertKnown(t, 'and go for good')

  const doomed = await anEnvironment(first)
  const load = await first.as(key).post(`/v2/facts/${doomed.name}/bulk/users`, newcomers(9))
  t.equal(load.statusCode, 200, load.body)
  await Promise.all([
    first.root.delete(`/api/v1/environments/${doomed.id}`),
    ...[1, 2].map(async () => await first.as(key).post(`/v2/facts/${doomed.name}/bulk/users`, newcomers(9))),
  ])
  t.equal(await countOf(first, 'users where environment_id = $1', [doomed.id]), 0)
  await assertKnown(t, 'an environment has gone')
})
