import t, { type Test } from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Person, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { isInTime } from '../policy/in-time.ts'

type Entry = { kind: string; ref: string; ver: number | null; exp: number }
type Page = { revocations: Entry[]; next: string; has_more: boolean }
type Sent = { id: string; name: string; data: unknown }

const PATH = '/api/v1/revocations'

/** Postern, a machine that reads the feed, and what is in it after the place that the test begins at. */
async function buildFeed(t: Test, postern?: TestApp) {
  const app = postern ?? (await buildTestApp(t))
  const machine = await anApiKey(app, { access: 'read' })
  const read = async (query = ''): Promise<Page> => {
    const response = await machine.client.get(`${PATH}${query}`)
    t.equal(response.statusCode, 200, response.body)
    return response.json<Page>()
  }
  /** What `work` adds to the feed. */
  const addedBy = async (work: () => Promise<unknown>): Promise<Entry[]> => {
    const { next } = await read()
    await work()
    return (await read(`?since=${next}`)).revocations
  }
  return { app, machine, read, addedBy }
}

const claimsOf = ({ token }: Pick<Person, 'token'>) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sid: string; ver: number }

t.test('what ends tokens is in the feed', async (t) => {
  const { app, addedBy, read } = await buildFeed(t)
  const { root } = app

  await t.test('a deactivated user, with the version that lives on', async (t) => {
    const person = await app.person('GUEST')
    const added = await addedBy(() => root.post(`/api/v1/users/${person.id}/deactivate`))
    const { sid, ver } = claimsOf(person)

    t.ok(
      added.some(({ kind, ref }) => kind === 'session' && ref === sid) ||
        added.some((one) => one.kind === 'user' && one.ref === person.id && (one.ver ?? 0) > ver),
    )
    const life = (added[0]?.exp ?? 0) - Date.now() / 1000
    t.ok(life > 900 && life < 1000, 'it stays a little longer than a token lives')
  })

  await t.test('a user whose roles changed, and nobody who has no session', async (t) => {
    const person = await app.person('GUEST')
    const { id } = await app.services.users.createUser(SYSTEM, {
      email: 'nobody@postern.test',
      password: PASSWORD,
      fullName: 'Nobody',
      accountId: app.home,
    })
    const role_id = await app.roleId('ACCOUNT_MANAGER')
    const added = await addedBy(async () => {
      await root.post(`/api/v1/users/${id}/roles`, { role_id })
      await root.post(`/api/v1/users/${person.id}/roles`, { role_id })
    })

    matchEach(t, added, [{ kind: 'user', ref: person.id, ver: claimsOf(person).ver + 1 }])
    t.equal(added.length, 1)
  })

  await t.test('the sessions of an account that is switched off, and no others', async (t) => {
    const account = await app.account()
    const inside = await app.person('GUEST', { accountId: account })
    const outside = await app.person('GUEST')
    const added = await addedBy(() => root.post(`/api/v1/accounts/${account}/deactivate`))

    matchEach(t, added, [{ kind: 'session', ref: claimsOf(inside).sid, ver: null }])
    t.equal(added.length, 1)
    t.equal((await outside.client.get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test('what somebody took from it before they went on in another account', async (t) => {
    const account = await app.account()
    const [mover, stayer, elsewhere] = [
      await app.person('GUEST'),
      await app.person('GUEST'),
      await app.person('GUEST'),
    ]
    for (const { id } of [mover, stayer]) await root.put(`/api/v1/accounts/${account}/members/${id}`)
    const tokens = async (path: string, body: object) =>
      (await app.anonymous.post(`/api/v1/auth/${path}`, body)).json<{
        access_token: string
        refresh_token: string
      }>()
    const moved = async ({ email }: Person, first: string, second: string) => {
      const before = await tokens('login', { email, password: PASSWORD, account: first })
      const { refresh_token } = before
      return [before, await tokens('refresh', { refresh_token, account: second })] as const
    }
    const [inside, outside] = await moved(mover, account, app.home)
    await moved(elsewhere, app.home, app.home)
    await app.signIn(stayer.email)
    const added = await addedBy(() => root.post(`/api/v1/accounts/${account}/deactivate`))

    matchEach(t, added, [
      { kind: 'user', ref: mover.id, ver: claimsOf({ token: inside.access_token }).ver + 1 },
    ])
    t.equal(added.length, 1, 'who was never there, or nowhere since, keeps what they have')
    const goesOn = await tokens('refresh', { refresh_token: outside.refresh_token })
    t.equal((await app.as(goesOn.access_token).get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test('a client that is disabled, and one that is deleted', async (t) => {
    const { pool } = app.services.database
    const [first, second] = [crypto.randomUUID(), crypto.randomUUID()]
    const added = await addedBy(async () => {
      await pool.query(
        `insert into clients (id, environment_id, name, grant_types, scopes, audiences, token_endpoint_auth_method)
         select id, '00000000-0000-7000-8000-000000000001', 'x', '{}', '{}', '{}', 'client_secret_basic'
         from unnest($1::uuid[]) as id`,
        [[first, second]],
      )
      await pool.query(`update clients set is_active = false where id = $1`, [first])
      await pool.query(`update clients set name = 'y' where id = $1`, [second])
      await pool.query(`delete from clients where id = $1`, [second])
    })

    matchEach(t, added, [
      { kind: 'client', ref: first, ver: 2 },
      { kind: 'client', ref: second, ver: 2 },
    ])
    t.equal(added.length, 2)
  })

  await t.test('one token', async (t) => {
    const expiresAt = new Date(Date.now() + 60_000)
    const added = await addedBy(() =>
      app.services.revocations.revokeToken('some-jti', expiresAt, app.services.database.db),
    )

    matchEach(t, added, [{ kind: 'token', ref: 'some-jti' }])
    t.equal(added.length, 1)
    t.equal(added[0]?.ver, null)
    t.ok((added[0]?.exp ?? 0) * 1000 >= expiresAt.getTime())
  })

  await t.test('a refresh and a sign-in add nothing', async (t) => {
    const person = await app.person('GUEST')

    t.same(await addedBy(() => app.signIn(person.email)), [])
  })

  await t.test('pages hold each entry once, in the order of commits, also of one transaction', async (t) => {
    const { pool } = app.services.database
    const { next: start } = await read()
    const insert = `insert into revocations (kind, ref, expires_at)
      select 'token', $1::text || n, now() + interval '1 minute' from generate_series(1, $2::int) n`
    await Promise.all(['a', 'b', 'c'].map(async (prefix) => await pool.query(insert, [prefix, 40])))

    const found: string[] = []
    let [since, more] = [start, true]
    while (more) {
      const page = await read(`?since=${since}&limit=7`)
      found.push(...page.revocations.map(({ ref }) => ref))
      ;[since, more] = [page.next, page.has_more]
    }

    t.equal(found.length, 120)
    t.equal(new Set(found).size, 120)
    t.equal(
      found
        .map((ref) => ref[0])
        .join('')
        .replaceAll(/(.)\1*/g, '$1').length,
      3,
      'transactions are not mixed',
    )
  })

  await t.test('what no token outlives is gone; a place of another history begins anew', async (t) => {
    await app.services.database.pool.query(
      `insert into revocations (kind, ref, expires_at) values ('token', 'expired', now() - interval '1 second')`,
    )
    const all = await read()

    t.notOk(all.revocations.some(({ ref }) => ref === 'expired'))
    for (const since of ['000000000000-5', `${all.next}99999`, 'nonsense', '-1'])
      t.same((await read(`?since=${since}`)).revocations, all.revocations, since)
    await app.services.revocations.prune()
    const { rows } = await app.services.database.pool.query(`select 1 from revocations where ref = 'expired'`)
    t.same(rows, [])
    t.same((await read()).revocations, all.revocations)
  })

  await t.test('a longer life of tokens keeps entries longer, a shorter one changes nothing', async (t) => {
    const { db, pool } = app.services.database
    await pool.query('update revocation_feed set token_lifetime_seconds = 7200')
    await app.services.revocations.noteTokenLifetime(db)
    const person = await app.person('GUEST')
    const [added] = await addedBy(() => root.post(`/api/v1/users/${person.id}/deactivate`))

    t.ok((added?.exp ?? 0) > Date.now() / 1000 + 7200)
  })
})

t.test('who may read the feed, and what it says to them', async (t) => {
  const { app, machine, read } = await buildFeed(t)
  const address = await app.app.listen({ host: '127.0.0.1', port: 0 })

  async function open(t: Test, headers: Record<string, string> = {}) {
    const controller = new AbortController()
    t.teardown(() => controller.abort())
    const response = await fetch(`${address}${PATH}`, {
      headers: { accept: 'text/event-stream', authorization: `Bearer ${machine.key}`, ...headers },
      signal: controller.signal,
    })
    return { response, sent: eventsOf(response), close: () => controller.abort() }
  }

  await t.test('a stream sends what there is, says that it is all, and goes on', async (t) => {
    const { response, sent } = await open(t)
    t.equal(response.status, 200)
    t.match(response.headers.get('content-type'), /^text\/event-stream/)
    t.match(response.headers.get('cache-control'), /no-store/)
    const first = await until(sent, ({ name }) => name === 'current')
    t.ok((first.data as { age_seconds: number }).age_seconds < 5)

    const person = await app.person('GUEST')
    await app.root.post(`/api/v1/users/${person.id}/deactivate`)
    const next = await until(sent, ({ name }) => name === 'revoked')

    t.same(next.data, (await read(`?since=${first.id}`)).revocations)
    const again = await open(t, { 'last-event-id': first.id })
    t.same((await until(again.sent, ({ name }) => name === 'revoked')).data, next.data, 'it resumes')
    const after = await open(t, { 'last-event-id': next.id })
    t.equal((await after.sent.next()).value?.name, 'current', 'and repeats nothing')
  })

  await t.test('people need the permission everywhere, strangers are asked who they are', async (t) => {
    const guest = await app.person('ACCOUNT_ADMIN')
    for (const [token, status] of [
      [guest.token, 403],
      [app.rootToken, 200],
      ['nonsense', 401],
    ] as const)
      t.equal((await open(t, { authorization: `Bearer ${token}` })).response.status, status)
  })

  await t.test('one caller does not take every place', async (t) => {
    const own = await anApiKey(app, { access: 'read' })
    const { feed } = app.services.revocations
    const held = await Promise.all(
      Array.from({ length: 200 }, () => feed.stream(undefined, `api_key:${own.id}`)),
    )

    const refused = await open(t, { authorization: `Bearer ${own.key}` })
    t.equal(refused.response.status, 503)
    t.ok(refused.response.headers.get('retry-after'))
    t.equal((await open(t)).response.status, 200, 'another one has places left')
    for (const { controller } of held) controller.abort()
    t.equal((await open(t, { authorization: `Bearer ${own.key}` })).response.status, 200)
  })

  await t.test('a client that is gone leaves nothing behind', async (t) => {
    const { feed } = app.services.revocations
    t.ok(await isInTime(() => feed.state().streams === 0), 'those before are gone')
    const { sent, close } = await open(t)
    await until(sent, ({ name }) => name === 'current')
    t.equal(feed.state().streams, 1)

    close()
    t.ok(await isInTime(() => feed.state().streams === 0))
  })

  await t.test('the end of the service ends every stream', async (t) => {
    const { sent } = await open(t)
    await until(sent, ({ name }) => name === 'current')

    const closed = app.app.close()
    for await (const _ of sent) t.fail('nothing more is said')
    // What the clients of this test keep open without a request.
    app.app.server.closeAllConnections()
    await closed
  })
})

async function* eventsOf(response: Response): AsyncGenerator<Sent, undefined> {
  let unread = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body ?? []) {
    unread += decoder.decode(chunk, { stream: true })
    const parts = unread.split('\n\n')
    unread = parts.pop() ?? ''
    for (const part of parts) {
      const {
        id = '',
        name,
        data,
      } = /^id: (?<id>.*)\nevent: (?<name>.*)\ndata: (?<data>.*)$/.exec(part)?.groups ?? {}
      if (name !== undefined && data !== undefined) yield { id, name, data: JSON.parse(data) }
    }
  }
  return undefined
}

async function until(sent: AsyncGenerator<Sent, undefined>, isIt: (one: Sent) => boolean): Promise<Sent> {
  for (;;) {
    const { value } = await sent.next()
    if (!value) throw new Error('the stream ended')
    if (isIt(value)) return value
  }
}
