import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LightMyRequestResponse } from 'fastify'
import { decodeJwt } from 'jose'
import type pg from 'pg'
import t, { type Test } from 'tap'
import { buildTestApp, type Person, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { onServer } from '../helpers/database.ts'
import { matchEach } from '../helpers/matching.ts'

type Tokens = { access_token: string; refresh_token: string; expires_in: number; scope: string }
type Shown = { id: string; is_current: boolean; device: string | null; last_used_at: string }

const REFRESH = '/api/v1/auth/refresh'

const signIn = async ({ anonymous }: TestApp, email: string, more: object = {}): Promise<Tokens> =>
  (await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD, ...more })).json<Tokens>()
const refresh = async ({ anonymous }: TestApp, refresh_token: string, more: object = {}) =>
  await anonymous.post(REFRESH, { refresh_token, ...more })
const refreshed = async (app: TestApp, token: string, more: object = {}): Promise<Tokens> =>
  (await refresh(app, token, more)).json<Tokens>()
const problemOf = (response: LightMyRequestResponse): string =>
  `${response.statusCode} ${response.json<{ type?: string }>().type}`
const REFUSED = '401 /problems/invalid_refresh_token'
const sidOf = ({ access_token }: Tokens): string => String(decodeJwt(access_token)['sid'])
const isAlive = async (app: TestApp, { access_token }: Tokens): Promise<boolean> =>
  (await app.as(access_token).get('/api/v1/users/me')).statusCode === 200

const query = async ({ databaseUrl: url }: TestApp, sql: string, values: unknown[] = []) =>
  await onServer(url, async (client: pg.Client) => (await client.query(sql, values)).rows)

/** A person with the role `writer` (post:read, post:write) at home. */
async function aWriter(app: TestApp): Promise<Person> {
  await app.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
  return await app.person('writer')
}

t.test('a refresh token', async (t) => {
  const app = await buildTestApp(t)
  const writer = await aWriter(app)

  await t.test('gives the next tokens of the same session, with one statement', async (t) => {
    const first = await signIn(app, writer.email)
    const { pool } = app.services.database
    let statements = 0
    const original = pool.query
    pool.query = ((...given: Parameters<typeof original>) => {
      statements++
      return original.apply(pool, given)
    }) as typeof original
    const response = await refresh(app, first.refresh_token)
    pool.query = original

    t.equal(statements, 1)
    t.equal(response.statusCode, 200)
    t.equal(response.headers['cache-control'], 'no-store')
    const next = response.json<Tokens>()
    t.same(Object.keys(next).sort(), ['access_token', 'expires_in', 'refresh_token', 'scope', 'token_type'])
    t.not(next.refresh_token, first.refresh_token)
    t.equal(sidOf(next), sidOf(first))
    t.match(next, { scope: 'post:read post:write', expires_in: 900 })
    t.ok(await isAlive(app, next))
    t.match(next.refresh_token, new RegExp(`^${sidOf(next)}\\.[\\w-]{43}$`))
    const rows = JSON.stringify(await query(app, 'select * from sessions'))
    for (const { refresh_token } of [first, next])
      t.notOk(rows.includes(refresh_token.slice(37)), 'only hashes are stored')
  })

  await t.test('C.4 7.2.3: has 128 random bits, and is stored as a hash', async (t) => {
    const tokens = await Promise.all(Array.from({ length: 3 }, async () => await signIn(app, writer.email)))
    const nonces = tokens.map(({ refresh_token }) => refresh_token.slice(37, 59))

    t.equal(new Set(nonces).size, tokens.length)
    for (const nonce of nonces) t.equal(Buffer.from(nonce, 'base64url').length, 16)
    for (const one of tokens) {
      const [stored] = await query(app, 'select * from sessions where id = $1', [sidOf(one)])
      const hash = createHash('sha256').update(one.refresh_token).digest('base64url')
      t.equal(stored.refresh_hash, hash)
      t.notMatch(JSON.stringify(stored), one.refresh_token.slice(37))
    }
  })

  await t.test('is found by an index', async (t) => {
    const plan = await query(
      app,
      `explain update sessions s set refresh_hash = 'x' from users
       where s.id = $1 and s.refresh_hash = 'y' and users.id = s.user_id`,
      [sidOf(await signIn(app, writer.email))],
    )
    t.match(JSON.stringify(plan), /Index Scan using sessions_pkey/)
  })

  await t.test('is good once more for a client that lost the answer, and gives the same', async (t) => {
    const first = await signIn(app, writer.email)
    const answers = await Promise.all(Array.from({ length: 50 }, () => refresh(app, first.refresh_token)))

    t.same([...new Set(answers.map(({ statusCode }) => statusCode))], [200])
    const successors = new Set(answers.map((answer) => answer.json<Tokens>().refresh_token))
    t.equal(successors.size, 1)
    t.equal((await refresh(app, [...successors][0] ?? '')).statusCode, 200)
  })

  await t.test('that is older ends the session, and is recorded', async (t) => {
    const first = await signIn(app, writer.email)
    const second = await refreshed(app, first.refresh_token)
    const third = await refreshed(app, second.refresh_token)

    t.equal(problemOf(await refresh(app, first.refresh_token)), REFUSED)
    t.equal(problemOf(await refresh(app, third.refresh_token)), REFUSED, 'the newest is dead too')
    t.notOk(await isAlive(app, third), 'and so is its access token')
    const events = await app.root.get(`/api/v1/audit-events?action=session.ended&target_id=${writer.id}`)
    matchEach(t, events.json(), [
      { actor_type: 'anonymous', details: { session_id: sidOf(first), reason: 'refresh_token_reused' } },
    ])
  })

  await t.test('before the last ends the session when the interval is over', async (t) => {
    const first = await signIn(app, writer.email)
    const second = await refreshed(app, first.refresh_token)
    await query(app, "update sessions set refreshed_at = now() - interval '11 seconds' where id = $1", [
      sidOf(first),
    ])

    t.equal(problemOf(await refresh(app, first.refresh_token)), REFUSED)
    t.equal(problemOf(await refresh(app, second.refresh_token)), REFUSED)
  })

  await t.test('that nobody issued ends nothing, even with the id of a session', async (t) => {
    const first = await signIn(app, writer.email)
    const sid = sidOf(first)
    const secret = first.refresh_token.slice(37)
    const flipped = `${secret[0] === 'A' ? 'B' : 'A'}${secret.slice(1)}`
    for (const token of [
      `${sid}.${'A'.repeat(43)}`,
      `${sid}.${flipped}`,
      `${sid}.${secret.slice(0, -1)}`,
      `${sid.toUpperCase()}.${secret}`,
      `${sid}.${secret}\n`,
      `00000000-0000-7000-8000-000000000000.${secret}`,
      first.access_token.slice(0, 500),
      'nonsense',
      'ü'.repeat(80),
    ]) {
      t.equal(problemOf(await refresh(app, token)), REFUSED, token.slice(0, 80))
    }
    t.equal((await refresh(app, first.refresh_token)).statusCode, 200)
    t.equal(problemOf(await app.anonymous.post(REFRESH)), REFUSED, 'none at all')
    t.equal((await app.anonymous.post(REFRESH, { refresh_token: 7 })).statusCode, 422)
    t.equal((await app.anonymous.post(REFRESH, { refresh_token: 'x', client_id: 'y' })).statusCode, 422)
  })

  await t.test('narrows the scope within what was asked for at sign-in, for one access token', async (t) => {
    const first = await signIn(app, writer.email, { scope: 'post:read' })

    t.match(
      problemOf(await refresh(app, first.refresh_token, { scope: 'post:write' })),
      /^400 .*invalid_scope/,
    )
    t.match(problemOf(await refresh(app, first.refresh_token, { scope: 'x:y' })), /^400 .*invalid_scope/)
    const next = await refreshed(app, first.refresh_token)
    t.equal(next.scope, 'post:read', 'a refused request uses up no token')
    t.notOk(await app.services.sessions.findByRefreshToken(`${first.refresh_token}x`))

    const all = await signIn(app, writer.email)
    const narrow = await refreshed(app, all.refresh_token, { scope: 'post:write other:scope' })
    t.equal(narrow.scope, 'post:write')
    t.equal((await refreshed(app, narrow.refresh_token)).scope, 'post:read post:write')
  })

  await t.test('goes on in another account of the person, and in no other', async (t) => {
    const [branch, foreign] = [await app.account('Branch'), await app.account('Foreign')]
    await app.root.put(`/api/v1/accounts/${branch}/members/${writer.id}`)
    const first = await signIn(app, writer.email)

    for (const account of [foreign, 'foreign', 'nowhere'])
      t.match(problemOf(await refresh(app, first.refresh_token, { account })), /^404 .*account_not_found/)
    const there = await refreshed(app, first.refresh_token, { account: 'branch' })
    t.match(decodeJwt(there.access_token), { account_id: branch, scope: '' })
    const stays = await refreshed(app, there.refresh_token)
    t.match(decodeJwt(stays.access_token), { account_id: branch })

    await app.root.post(`/api/v1/accounts/${branch}/deactivate`)
    t.equal(problemOf(await refresh(app, stays.refresh_token)), REFUSED)
    t.notOk(await isAlive(app, stays))
  })

  await t.test('is worth nothing without its client or its key', async (t) => {
    const { refresh_token: token } = await signIn(app, writer.email)
    const request = { token, requestId: 'r', address: '127.0.0.1' }
    const { sessions } = app.services
    await t.rejects(sessions.refresh({ ...request, clientId: 'another' }), { code: 'invalid_refresh_token' })
    await query(app, "update sessions set dpop_thumbprint = 'jkt' where id = $1", [token.slice(0, 36)])
    for (const dpopThumbprint of [undefined, 'other'])
      await t.rejects(sessions.refresh({ ...request, clientId: 'first-party', dpopThumbprint }), {
        code: 'invalid_refresh_token',
      })
    const bound = await sessions.refresh({ ...request, clientId: 'first-party', dpopThumbprint: 'jkt' })
    t.match(decodeJwt(bound.accessToken), { cnf: { jkt: 'jkt' } })
  })

  await t.test(
    'C.4 7.3.1, 7.3.2: ends when it was not used for long, and with the session however much it is used',
    async (t) => {
      const idle = await signIn(app, writer.email)
      const [row] = await query(
        app,
        `select extract(epoch from idle_expires_at - created_at)::int as idle,
        extract(epoch from expires_at - created_at)::int as most from sessions where id = $1`,
        [sidOf(idle)],
      )
      t.same(row, { idle: 7 * 86_400, most: 30 * 86_400 })
      await query(app, 'update sessions set idle_expires_at = now() where id = $1', [sidOf(idle)])
      t.equal(problemOf(await refresh(app, idle.refresh_token)), REFUSED)

      const old = await signIn(app, writer.email)
      await query(app, "update sessions set expires_at = now() + interval '60 seconds' where id = $1", [
        sidOf(old),
      ])
      const last = await refreshed(app, old.refresh_token)
      t.ok(last.expires_in <= 60, 'the access token lives no longer than its session')
      await query(app, 'update sessions set expires_at = now() where id = $1', [sidOf(old)])
      t.equal(problemOf(await refresh(app, last.refresh_token)), REFUSED)

      await query(app, "update sessions set expires_at = now() - interval '2 days' where id = $1", [
        sidOf(idle),
      ])
      const live = await signIn(app, writer.email)
      await app.services.sessions.prune()
      const left = (await query(app, 'select id from sessions')).map((one: { id: string }) => one.id)
      t.notOk(left.includes(sidOf(idle)))
      t.ok(left.includes(sidOf(live)))
    },
  )
})

t.test('sessions that are refreshed at the same time', async (t) => {
  const app = await buildTestApp(t)
  const { email } = await app.person('GUEST')
  const { pool } = app.services.database
  const held = await signIn(app, email)
  const others: Tokens[] = []
  for (let n = 0; n < 9; n++) others.push(await signIn(app, email))
  /** The refreshes of all of them, each before the first is answered, after what `query` does to the statements. */
  const refreshAll = async (t: Test, failure?: Error) => {
    const original = pool.query
    const calls = t.capture(pool, 'query', function (
      this: typeof pool,
      ...given: Parameters<typeof original>
    ) {
      const [{ name }] = given as unknown as [{ name?: string }]
      return failure && name === 'rotate_refresh_tokens'
        ? sleep(100).then(() => Promise.reject(failure))
        : original.apply(this, given)
    } as typeof original)
    const answers = others.map(async ({ refresh_token }) => await refresh(app, refresh_token))
    const statuses = (await Promise.all(answers)).map((answer, place) => {
      if (answer.statusCode === 200) others[place] = answer.json<Tokens>()
      return answer.statusCode
    })
    calls.restore()
    return { statuses: [...new Set(statuses)], statements: calls().length }
  }

  await t.test('share statements, and each gets its own', async (t) => {
    const before = others.map(sidOf)
    const { statuses, statements } = await refreshAll(t)
    t.same(statuses, [200])
    t.ok(statements < others.length, `${statements} statements`)
    t.same(others.map(sidOf), before)
  })

  await t.test('do not wait for one that somebody else writes to', async (t) => {
    const waiting = await onServer(app.databaseUrl, async (client) => {
      await client.query('begin')
      await client.query('select from sessions where id = $1 for update', [sidOf(held)])
      let isAnswered = false
      // The first ones go at once, and this one together with the rest.
      const all = refreshAll(t)
      const waiting = refresh(app, held.refresh_token).finally(() => {
        isAnswered = true
      })
      t.same((await all).statuses, [200])
      t.equal(isAnswered, false)
      await client.query('commit')
      return await waiting
    })
    t.equal(waiting.statusCode, 200)
  })

  await t.test('do not fail with one another, but all of them without a database', async (t) => {
    t.same((await refreshAll(t, new Error('something about one of them'))).statuses, [200])
    const { statuses, statements } = await refreshAll(t, new Error('Connection terminated unexpectedly'))
    t.same(statuses, [503])
    t.ok(statements <= 2, 'those who waited did not ask once more')
    t.same((await refreshAll(t)).statuses, [200])
  })
})

t.test('with an interval of 0 one of many wins, and the double use ends the session', async (t) => {
  const app = await buildTestApp(t, { env: { REFRESH_REUSE_INTERVAL_SECONDS: '0' } })
  const { email } = await app.person('GUEST')
  const first = await signIn(app, email)
  const answers = await Promise.all(Array.from({ length: 50 }, () => refresh(app, first.refresh_token)))

  const won = answers.filter(({ statusCode }) => statusCode === 200)
  t.equal(won.length, 1)
  t.equal(answers.filter(({ statusCode }) => statusCode === 401).length, 49)
  t.equal(problemOf(await refresh(app, won[0]?.json<Tokens>().refresh_token ?? '')), REFUSED)
})

t.test('what happens to the person', async (t) => {
  const app = await buildTestApp(t)

  await t.test(
    'a change of roles ends access tokens, and the session goes on with the new ones',
    async (t) => {
      const person = await app.person('GUEST')
      const before = await signIn(app, person.email)
      await app.root.put(`/api/v1/user-roles/${person.id}`, { role_id: await app.roleId('ACCOUNT_ADMIN') })

      t.notOk(await isAlive(app, before))
      const after = await refreshed(app, before.refresh_token)
      t.match(after.scope, /postern\.users:read/)
      t.ok(await isAlive(app, after))
    },
  )

  await t.test('C.4 7.4.3: a new password of one’s own ends the other sessions', async (t) => {
    const person = await app.person('GUEST')
    const [here, there] = [await signIn(app, person.email), await signIn(app, person.email)]
    const next = { current_password: PASSWORD, new_password: 'another horse battery staple' }
    t.equal((await app.as(here.access_token).post('/api/v1/auth/change-password', next)).statusCode, 204)

    t.equal((await refresh(app, here.refresh_token)).statusCode, 200)
    t.equal(problemOf(await refresh(app, there.refresh_token)), REFUSED)
  })

  await t.test(
    'C.4 7.4.2: an administrator’s password, deactivation and deletion end all of them',
    async (t) => {
      for (const act of [
        (id: string) => app.root.patch(`/api/v1/users/${id}`, { password: 'another horse battery staple' }),
        (id: string) => app.root.post(`/api/v1/users/${id}/deactivate`),
        (id: string) => app.root.delete(`/api/v1/users/${id}`),
      ]) {
        const person = await app.person('GUEST')
        const tokens = await signIn(app, person.email)
        t.ok((await act(person.id)).statusCode < 300)
        t.equal(problemOf(await refresh(app, tokens.refresh_token)), REFUSED)
        await app.root.post(`/api/v1/users/${person.id}/reactivate`)
        t.equal(problemOf(await refresh(app, tokens.refresh_token)), REFUSED, 'for good')
      }
    },
  )

  await t.test('a password that was changed beside the sign-in begins no session', async (t) => {
    const person = await app.person('GUEST')
    const { services } = app
    const original = services.passwords.needsRehash
    services.passwords.needsRehash = () => true
    t.teardown(() => {
      services.passwords.needsRehash = original
    })
    const hash = services.passwords.hash
    services.passwords.hash = async (...given) => {
      services.passwords.hash = hash
      await app.root.patch(`/api/v1/users/${person.id}`, { password: 'another horse battery staple' })
      return await hash(...given)
    }
    const late = await app.anonymous.post('/api/v1/auth/login', { email: person.email, password: PASSWORD })
    t.equal(late.statusCode, 401)
    t.same(
      await query(app, 'select id from sessions where user_id = $1 and ended_at is null', [person.id]),
      [],
    )
  })
})

t.test('sessions are listed and ended', async (t) => {
  const app = await buildTestApp(t)
  const owner = await app.person('ACCOUNT_ADMIN')
  const signInFrom = async (agent: string): Promise<Tokens> =>
    (
      await app.anonymous.post(
        '/api/v1/auth/login',
        { email: owner.email, password: PASSWORD },
        { 'user-agent': agent },
      )
    ).json<Tokens>()
  const shown = async (tokens: Tokens): Promise<Shown[]> =>
    (await app.as(tokens.access_token).get('/api/v1/auth/sessions')).json<Shown[]>()

  await t.test('C.4 7.5.2: by their owner: each, and all others at once', async (t) => {
    const desk = await signInFrom('Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0')
    const phone = await signInFrom(
      'Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Mobile/15E148 Safari/604.1',
    )
    const tool = await signInFrom('curl/8.10.1')
    const listed = await shown(desk)
    t.match(listed.slice(0, 3), [
      { id: sidOf(tool), device: 'curl', is_current: false, address: '127.0.0.1' },
      { id: sidOf(phone), device: 'Safari on iPhone', is_current: false },
      { id: sidOf(desk), device: 'Firefox on Linux', is_current: true, client_id: 'first-party' },
    ])
    t.same(
      Object.keys(listed[0] ?? {}).filter((name) => /hash|token/.test(name)),
      [],
    )
    const page = await app.as(desk.access_token).get('/api/v1/auth/sessions?limit=1&total=true')
    t.match(page.headers, { 'x-total-count': String(listed.length), link: /rel="next"/ })

    const used = await refreshed(app, phone.refresh_token)
    const before = listed.find(({ id }) => id === sidOf(phone))?.last_used_at ?? ''
    const after = (await shown(desk)).find(({ id }) => id === sidOf(phone))?.last_used_at ?? ''
    t.ok(after > before, 'a refresh is a use')

    const me = app.as(desk.access_token)
    t.equal((await me.delete(`/api/v1/auth/sessions/${sidOf(phone)}`)).statusCode, 204)
    t.equal((await me.delete(`/api/v1/auth/sessions/${sidOf(phone)}`)).statusCode, 404)
    t.equal(problemOf(await refresh(app, used.refresh_token)), REFUSED)
    const foreign = sidOf(await signIn(app, (await app.person('GUEST')).email))
    t.match(problemOf(await me.delete(`/api/v1/auth/sessions/${foreign}`)), /^404 .*session_not_found/)

    t.equal((await me.delete('/api/v1/auth/sessions')).statusCode, 204)
    t.equal(problemOf(await refresh(app, tool.refresh_token)), REFUSED)
    t.same(
      (await shown(desk)).map(({ id }) => id),
      [sidOf(desk)],
    )
  })

  await t.test('C.4 7.4.5: by administrators within their reach, and of nobody above them', async (t) => {
    const [guest, chief] = [await app.person('GUEST'), await app.person('SUPER_ADMIN')]
    const outsider = await app.person('GUEST', { accountId: await app.account() })
    const tokens = await signIn(app, guest.email)
    const other = await signIn(app, guest.email)
    const admin = app.as((await signIn(app, owner.email)).access_token)
    const of = (id: string) => `/api/v1/users/${id}/sessions`

    t.match((await admin.get(of(guest.id))).json<Shown[]>()[0], { id: sidOf(other), is_current: false })
    t.match(problemOf(await admin.get(of(outsider.id))), /^404 .*user_not_found/)
    t.match(problemOf(await admin.delete(of(outsider.id))), /^404 .*user_not_found/)
    t.match(problemOf(await admin.delete(of(chief.id))), /^403 .*grant_exceeds_own/)
    t.match(problemOf(await guest.client.get(of(guest.id))), /^403 .*insufficient_scope/)
    t.match(problemOf(await app.root.get(of('00000000-0000-7000-8000-000000000000'))), /^404/)
    const chiefs = sidOf(await signIn(app, chief.email))
    t.match(problemOf(await admin.delete(`${of(guest.id)}/${chiefs}`)), /^404 .*session_not_found/)

    t.equal((await admin.delete(`${of(guest.id)}/${sidOf(tokens)}`)).statusCode, 204)
    t.equal(problemOf(await refresh(app, tokens.refresh_token)), REFUSED)
    t.equal((await refresh(app, other.refresh_token)).statusCode, 200)
    t.equal((await admin.delete(of(guest.id))).statusCode, 204)
    t.same((await admin.get(of(guest.id))).json(), [])
    const events = await app.root.get(`/api/v1/audit-events?action=session.ended&target_id=${guest.id}`)
    matchEach(t, events.json(), [
      { actor_id: owner.id, details: { sessions: 2, reason: 'ended_by_admin' } },
      { actor_id: owner.id, details: { session_id: sidOf(tokens), reason: 'ended_by_admin' } },
    ])
  })

  await t.test('C.4 7.4.1: by signing out, with any of their tokens, as often as one likes', async (t) => {
    const logout = async (body?: object, headers?: Record<string, string>) =>
      (await app.anonymous.post('/api/v1/auth/logout', body, headers)).statusCode
    const bearer = ({ access_token }: Tokens) => ({ authorization: `Bearer ${access_token}` })

    const first = await signIn(app, owner.email)
    t.equal(await logout(undefined, bearer(first)), 204)
    t.equal(await logout(undefined, bearer(first)), 204)
    t.equal(problemOf(await refresh(app, first.refresh_token)), REFUSED)

    const second = await signIn(app, owner.email)
    const { refresh_token } = await refreshed(app, second.refresh_token)
    t.equal(await logout({ refresh_token: second.refresh_token }), 204, 'with the token before')
    t.equal(await logout({ refresh_token }), 204)
    t.notOk(await isAlive(app, second))

    t.equal(await logout({ refresh_token: `${sidOf(second)}.${'A'.repeat(43)}` }), 204)
    t.equal(await logout(), 204)
    t.equal(await logout(undefined, { authorization: 'Bearer nonsense' }), 401)
    const third = await signIn(app, owner.email)
    const forged = `${third.access_token.slice(0, -20)}${'A'.repeat(20)}`
    t.equal(await logout(undefined, { authorization: `Bearer ${forged}` }), 401)
    t.ok(await isAlive(app, third))
  })

  await t.test('C.4 7.4.5: all of them by a super admin, however many, in parts', async (t) => {
    const [guest, chief] = [await app.person('GUEST'), await app.person('SUPER_ADMIN')]
    const tokens = await signIn(app, guest.email)
    const another = await signIn(app, chief.email)
    const admin = await app.person('ADMIN')
    t.match(problemOf(await admin.client.delete('/api/v1/sessions')), /^403 .*grant_exceeds_own/)
    t.match(problemOf(await guest.client.delete('/api/v1/sessions')), /^403 .*insufficient_scope/)
    const aged = await signIn(app, chief.email)
    await query(app, "update sessions set authenticated_at = now() - interval '1 day' where id = $1", [
      sidOf(aged),
    ])
    const late = await app.as(aged.access_token).delete('/api/v1/sessions')
    t.match(problemOf(late), /^401 .*reauthentication_required/)
    t.ok(await isAlive(app, tokens))
    await query(
      app,
      `insert into sessions (id, environment_id, user_id, client_id, amr, expires_at, idle_expires_at)
      select gen_random_uuid(), environment_id, user_id, client_id, amr, expires_at, idle_expires_at
      from sessions, generate_series(1, 2100) where id = $1`,
      [sidOf(tokens)],
    )
    const [live] = await query(app, 'select count(*)::int as count from sessions where ended_at is null')
    // As a process does whose clock is behind: while the first are ended, one begins whose id is before theirs.
    await query(
      app,
      `create function begin_late() returns trigger language plpgsql as $$ begin
        insert into sessions (id, environment_id, user_id, client_id, amr, expires_at, idle_expires_at)
          select '00000000-0000-7000-8000-000000000000', environment_id, user_id, client_id, amr, expires_at, idle_expires_at
          from sessions where id = '${sidOf(tokens)}' on conflict do nothing;
        return null;
      end $$`,
    )
    await query(
      app,
      'create trigger begin_late after insert on audit_events for each row execute function begin_late()',
    )

    t.equal((await chief.client.delete('/api/v1/sessions')).statusCode, 204)
    await query(app, 'drop trigger begin_late on audit_events')

    t.same(
      (await query(app, 'select id from sessions where ended_at is null')).map(({ id }) => id),
      [sidOf({ ...another, access_token: chief.token })],
      'the session that asks goes on',
    )
    for (const ended of [tokens, another]) {
      t.notOk(await isAlive(app, ended))
      t.equal(problemOf(await refresh(app, ended.refresh_token)), REFUSED)
    }
    const feed = await query(app, "select from revocations where kind = 'session' and ref = $1", [
      sidOf(tokens),
    ])
    t.equal(feed.length, 1)
    const parts = await query(
      app,
      "select (details ->> 'sessions')::int as sessions from audit_events where details ? 'everybody'",
    )
    t.ok(parts.length > 2, 'no transaction ends all of them')
    t.equal(
      parts.reduce((sum, { sessions }) => sum + sessions, 0),
      live.count,
      'all but the one that asks, and the one that came late',
    )
    t.ok(await isAlive(app, await signIn(app, guest.email)))
  })
})

t.test('in browsers the refresh token stays in a cookie', async (t) => {
  const origin = 'https://app.example.com'
  const app = await buildTestApp(t, {
    env: { PUBLIC_URL: 'https://auth.example.com', CORS_ORIGINS: origin },
  })
  const { email } = await app.person('GUEST')
  const login = async (headers: Record<string, string> = { origin }) =>
    await app.anonymous.post('/api/v1/auth/login', { email, password: PASSWORD, use_cookie: true }, headers)
  const cookieOf = (response: LightMyRequestResponse): string =>
    String(response.headers['set-cookie']).split(';')[0] ?? ''
  const send = async (path: string, headers: Record<string, string>, body: object | undefined = {}) =>
    await app.anonymous.post(`/api/v1/auth/${path}`, body, headers)

  await t.test('which no script, other site or plain connection gets', async (t) => {
    const answer = await login()
    t.equal(answer.statusCode, 200)
    t.notOk('refresh_token' in answer.json<object>())
    matchEach(t, answer.headers['set-cookie'], [
      /^__Host-postern-refresh=[\w.-]+; Max-Age=604800; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
      /^__Host-postern-device=[\w.-]+; Max-Age=34560000; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
    ])
    t.match(problemOf(await login({ origin: 'https://evil.example' })), /^403/)
  })

  await t.test('is replaced by each refresh and cleared by signing out', async (t) => {
    const first = cookieOf(await login())
    const next = await send('refresh', { origin, cookie: `theme=dark; ${first}` })
    t.equal(next.statusCode, 200)
    t.notOk('refresh_token' in next.json<object>())
    t.not(cookieOf(next), first)
    t.equal((await send('refresh', { 'sec-fetch-site': 'same-origin', cookie: first })).statusCode, 200)

    const out = await send('logout', { origin, cookie: cookieOf(next) })
    t.equal(out.statusCode, 204)
    t.match(String(out.headers['set-cookie']), /^__Host-postern-refresh=; Max-Age=0; Path=\/; .*Secure/)
    const refused = await send('refresh', { origin, cookie: cookieOf(next) })
    t.equal(problemOf(refused), REFUSED)
    t.match(String(refused.headers['set-cookie']), /Max-Age=0/, 'what is of no use is taken back')
  })

  await t.test('does nothing for pages of other sites', async (t) => {
    const cookie = cookieOf(await login())
    const json = { 'content-type': 'application/json' }
    for (const [what, headers] of Object.entries({
      'another origin': { ...json, origin: 'https://evil.example' },
      'a sibling': { ...json, origin: 'https://other.example.com', 'sec-fetch-site': 'same-site' },
      'no origin': { ...json, origin: 'null' },
      'only the site': { ...json, 'sec-fetch-site': 'cross-site' },
      'a form': { origin, 'content-type': 'application/x-www-form-urlencoded' },
      'a text': { origin, 'content-type': 'text/plain' },
      'nothing said': { origin },
    })) {
      for (const path of ['refresh', 'logout']) {
        const answer = await app.app.inject({
          method: 'POST',
          url: `/api/v1/auth/${path}`,
          headers: { ...headers, cookie },
        })
        t.match(String(answer.statusCode), /^(403|415)$/, `${path}: ${what}`)
        t.notOk(answer.headers['set-cookie'], `${path}: ${what}`)
      }
    }
    t.equal((await send('refresh', { origin, cookie })).statusCode, 200, 'it still holds')
  })

  await t.test('may be sent along from named origins, to the routes of a session only', async (t) => {
    const ask = async (url: string) =>
      (
        await app.app.inject({
          method: 'OPTIONS',
          url,
          headers: {
            origin,
            'access-control-request-method': 'POST',
            'access-control-request-headers': 'content-type',
          },
        })
      ).headers
    t.match(await ask('/api/v1/auth/refresh'), {
      'access-control-allow-origin': origin,
      'access-control-allow-credentials': 'true',
    })
    t.notOk((await ask('/api/v1/users'))['access-control-allow-credentials'])
    const { headers } = await send('refresh', { origin: 'https://evil.example' })
    t.notOk(headers['access-control-allow-origin'])
  })
})
