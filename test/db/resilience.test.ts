import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { transact } from '../../src/db/client.ts'
import { settings } from '../../src/db/schema.ts'
import { openForge } from '../auth/forging.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { wireTo } from './cuttable-proxy.ts'

async function buildWired(t: Test, env: NodeJS.ProcessEnv = {}) {
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const app = await buildTestApp(t, { databaseUrl: wire.url, env })
  return { app, wire, url }
}

/** Asks again until the answer is `status`, for five seconds at most. */
async function eventually(
  status: number,
  ask: () => Promise<LightMyRequestResponse>,
): Promise<LightMyRequestResponse> {
  const deadline = Date.now() + 5000
  for (;;) {
    const response = await ask()
    if (response.statusCode === status || Date.now() > deadline) return response
    await sleep(50)
  }
}

const signIn = async ({ anonymous }: TestApp, password = PASSWORD) =>
  await anonymous.post('/api/v1/auth/login', { email: SUPER_ADMIN_EMAIL, password })

const signInByForm = async ({ app }: TestApp) =>
  await app.inject({
    method: 'POST',
    url: '/api/v1/auth/access-token',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    payload: new URLSearchParams({ username: SUPER_ADMIN_EMAIL, password: PASSWORD }).toString(),
  })

const newUser = () => ({ email: `${randomUUID()}@postern.test`, password: PASSWORD })

function assertUnavailable(t: Test, response: LightMyRequestResponse, what: string): void {
  t.equal(response.statusCode, 503, `${what}: ${response.body}`)
  t.match(response.headers['retry-after'], /^\d+$/, `${what}: Retry-After`)
  t.match(response.headers['content-type'], /^application\/problem\+json/, what)
  t.match(response.json(), { type: '/problems/database_unavailable', status: 503 }, what)
  t.notMatch(response.body, /ECONN|select |postgres:|127\.0\.0\.1/, what)
}

t.test('while the database is away, whatever needs it answers 503 and lets nobody in', async (t) => {
  const { app, wire } = await buildWired(t)
  const person = await app.person('GUEST')
  const forge = await openForge(app, person.token)
  const unknownKid = forge.signedByHand({ kid: 'a-kid-that-is-not-known' })

  wire.cut()

  assertUnavailable(t, await app.root.get('/api/v1/users/me'), 'a read with a good token')
  assertUnavailable(t, await app.root.get('/api/v1/users'), 'a list')
  assertUnavailable(t, await app.root.post('/api/v1/users', newUser()), 'a write')
  assertUnavailable(t, await app.root.patch('/api/v1/users/me', { full_name: 'X' }), 'an update')
  assertUnavailable(t, await app.root.delete(`/api/v1/users/${person.id}`), 'a delete')
  assertUnavailable(t, await signIn(app), 'a sign-in')
  assertUnavailable(t, await signIn(app, 'a wrong password'), 'a sign-in with a wrong password')
  assertUnavailable(
    t,
    await app.anonymous.post('/api/v1/users/open', { ...newUser(), full_name: 'X' }),
    'a registration',
  )
  assertUnavailable(t, await app.anonymous.get('/health/ready'), 'readiness')
  t.equal((await app.as(await forge.signed({ exp: 1 })).get('/api/v1/users/me')).statusCode, 401)
  t.equal((await app.anonymous.get('/api/v1/users/me')).statusCode, 401)
  const unknown = await eventually(503, async () => await app.as(unknownKid).get('/api/v1/users/me'))
  assertUnavailable(t, unknown, 'a token with a kid that is not known')
})

t.test('while the database is away, the token endpoint says so as OAuth does', async (t) => {
  const { app, wire } = await buildWired(t)

  wire.cut()
  const response = await signInByForm(app)

  t.equal(response.statusCode, 503)
  t.match(response.json(), { error: 'temporarily_unavailable' })
  t.match(response.headers['retry-after'], /^\d+$/)
  t.equal(response.headers['cache-control'], 'no-store')
})

t.test('what needs no database works without it', async (t) => {
  const { app, wire } = await buildWired(t)

  wire.cut()

  t.equal((await app.anonymous.get('/health')).statusCode, 200)
  t.equal((await app.anonymous.get('/health/live')).statusCode, 200)
  t.equal((await app.anonymous.get('/.well-known/jwks.json')).statusCode, 200)
})

t.test('when the database comes back, everything works again without a restart', async (t) => {
  const { app, wire } = await buildWired(t)
  wire.cut()
  await Promise.all(
    Array.from({ length: 30 }, async (_, n) =>
      n % 2 === 0 ? app.root.get('/api/v1/users') : app.root.post('/api/v1/users', newUser()),
    ),
  )

  wire.mend()

  t.equal((await eventually(200, async () => app.root.get('/api/v1/users/me'))).statusCode, 200)
  t.equal((await eventually(200, async () => app.anonymous.get('/health/ready'))).statusCode, 200)
  t.equal((await signIn(app)).statusCode, 200)
  t.equal((await signInByForm(app)).statusCode, 200)
  t.equal((await app.root.post('/api/v1/users', newUser())).statusCode, 201)
})

t.test(
  'connections that break under requests, again and again, end in no fault and are replaced',
  async (t) => {
    const { app, wire } = await buildWired(t)
    const seen = new Set<number>()

    for (let round = 0; round < 12; round++) {
      const requests = Array.from({ length: 8 }, async (_, n) => {
        if (n % 4 === 0) return await app.root.get('/api/v1/users/me')
        if (n % 4 === 1) return await app.root.patch('/api/v1/users/me', { full_name: `Round ${round}` })
        if (n % 4 === 2) return await signIn(app)
        return await app.root.post('/api/v1/roles', { name: `role-${round}-${n}`, scopes: ['post:read'] })
      })
      if (round % 2 === 0) await sleep(round)
      wire.breakOnce()
      for (const { statusCode } of await Promise.all(requests)) seen.add(statusCode)
    }

    const unexpected = [...seen].filter((status) => ![200, 201, 429, 503].includes(status))
    t.same(unexpected, [])
    t.equal(
      (await eventually(200, async () => app.root.patch('/api/v1/users/me', { full_name: 'After' })))
        .statusCode,
      200,
    )
  },
)

t.test('a connection that breaks as a transaction begins gives its place in the pool back', async (t) => {
  const { app } = await buildWired(t, { DATABASE_POOL_MAX: '3', DATABASE_CONNECT_TIMEOUT_MS: '1000' })
  const { db, pool } = app.services.database

  for (let n = 0; n < 8; n++) {
    await pool.query('select 1')
    const begun = transact(db, async (tx) => await tx.select().from(settings))
    // The pool has handed its idle connection over, and it ends before the server could answer.
    for (const client of clientsOf(pool)) client.connection?.stream.destroy()
    await begun.catch(() => {})
  }

  t.equal((await eventually(200, async () => app.root.get('/api/v1/users/me'))).statusCode, 200)
  t.ok((await transact(db, async (tx) => await tx.select().from(settings))).length > 0)
})

t.test('the server ending every connection is survived', async (t) => {
  const { app, url } = await buildWired(t)
  const others = Array.from({ length: 10 }, async () => app.root.post('/api/v1/users', newUser()))

  await onServer(url, (client) =>
    client.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`,
    ),
  )

  for (const { statusCode } of await Promise.all(others))
    t.ok([201, 503].includes(statusCode), `${statusCode}`)
  t.equal((await eventually(200, async () => app.root.get('/api/v1/users/me'))).statusCode, 200)
})

t.test('a full pool answers 503 after its time, and serves again when there is room', async (t) => {
  const app = await buildTestApp(t, {
    env: { DATABASE_POOL_MAX: '2', DATABASE_CONNECT_TIMEOUT_MS: '200' },
  })
  const held = [await app.services.database.pool.connect(), await app.services.database.pool.connect()]

  const refused = await Promise.all([
    app.root.get('/api/v1/users/me'),
    app.root.post('/api/v1/users', newUser()),
    signIn(app),
  ])

  for (const response of refused) assertUnavailable(t, response, 'a full pool')
  for (const client of held) client.release()
  t.equal((await app.root.get('/api/v1/users/me')).statusCode, 200)
  t.equal((await signIn(app)).statusCode, 200)
})

t.test('a statement beyond its time is ended, and answered 503', async (t) => {
  const { url } = await freshDatabase(t)
  const app = await buildTestApp(t, { databaseUrl: url, env: { DATABASE_STATEMENT_TIMEOUT_MS: '300' } })

  const response = await onServer(url, async (client) => {
    await client.query('begin; lock table users in access exclusive mode')
    const waiting = await app.root.get('/api/v1/users/me')
    await client.query('rollback')
    return waiting
  })

  assertUnavailable(t, response, 'a lock that is held')
  t.equal((await app.root.get('/api/v1/users/me')).statusCode, 200)
})

t.test('a network that swallows everything is answered 503, and left behind when it is mended', async (t) => {
  const env = {
    DATABASE_STATEMENT_TIMEOUT_MS: '200',
    DATABASE_CONNECT_TIMEOUT_MS: '300',
    DATABASE_POOL_MAX: '3',
  }
  const { app, wire } = await buildWired(t, env)
  wire.stall()

  const refused = await Promise.all([
    app.root.get('/api/v1/users/me'),
    app.root.get('/api/v1/users'),
    app.root.patch('/api/v1/users/me', { full_name: 'X' }),
    signIn(app),
  ])

  for (const response of refused) assertUnavailable(t, response, 'a stalled network')
  wire.mend()
  t.equal((await eventually(200, async () => app.root.get('/api/v1/users/me'))).statusCode, 200)
  const update = async () => app.root.patch('/api/v1/users/me', { full_name: 'Y' })
  t.equal((await eventually(200, update)).statusCode, 200)
})

t.test('a transaction that is cut in the middle leaves nothing behind', async (t) => {
  const { app, wire, url } = await buildWired(t)
  const count = async () =>
    await onServer(url, async (client) => {
      const { rows } = await client.query(`select
        (select count(*) from users)::int as users, (select count(*) from account_members)::int as members,
        (select count(*) from user_credentials)::int as credentials, (select count(*) from audit_events)::int as events`)
      return rows[0]
    })
  const before = await count()

  const cut = transact(app.services.database.db, async (tx) => {
    const fields = { email: 'half@postern.test', accountId: app.home }
    await app.services.users.insertUser(fields, 'no hash', false, tx)
    wire.breakOnce()
    await tx.select().from(settings)
  })

  await t.rejects(cut)
  t.same(await count(), before)
})

t.test('a write that is cut off is done wholly or not at all', async (t) => {
  const { app, wire, url } = await buildWired(t)
  const emails = Array.from({ length: 12 }, (_, n) => `cut${n}@postern.test`)

  const answers = emails.map(async (email) => {
    const response = await app.root.post('/api/v1/users', { email, password: PASSWORD, account_id: app.home })
    return { email, status: response.statusCode }
  })
  await sleep(15)
  wire.breakOnce()
  const done = await Promise.all(answers)

  const { rows } = await onServer(url, (client) =>
    client.query<{ email: string; whole: boolean }>(`select email,
      exists (select from user_credentials c where c.user_id = u.id)
      and exists (select from account_members m where m.user_id = u.id)
      and exists (select from audit_events e where e.target_id = u.id::text and e.action = 'user.created') as whole
      from users u where email like 'cut%'`),
  )
  const stored = new Set(rows.map(({ email }) => email))
  t.ok(
    rows.every(({ whole }) => whole),
    'nobody is there by half',
  )
  for (const { email, status } of done) {
    t.ok([201, 503].includes(status), `${status}`)
    if (status === 201) t.ok(stored.has(email), 'what was answered is stored')
  }
})

t.test('an outage does not count as a wrong password', async (t) => {
  const { app, wire } = await buildWired(t, { LOGIN_MAX_FAILURES: '3' })
  wire.cut()
  for (let n = 0; n < 10; n++) await signIn(app)

  wire.mend()

  t.equal((await eventually(200, async () => signIn(app))).statusCode, 200)
})

t.test('keys that are known outlive an outage', async (t) => {
  let offset = 0
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const app = await buildTestApp(t, {
    databaseUrl: wire.url,
    clock: { now: () => new Date(Date.now() + offset) },
  })
  t.equal((await app.anonymous.get('/.well-known/jwks.json')).statusCode, 200)

  wire.cut()
  offset = 60_000

  t.equal((await app.anonymous.get('/.well-known/jwks.json')).statusCode, 200)
})

type PoolInside = { _clients: { connection?: { stream: { destroy(): void } } }[] }

/** The connections of a pool, which it does not show. */
const clientsOf = (pool: unknown): PoolInside['_clients'] => (pool as PoolInside)._clients
