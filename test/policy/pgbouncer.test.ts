import t, { type Test } from 'tap'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { pythonClient } from '../helpers/permit.ts'
import { bouncerTo, lacksPgbouncer } from '../helpers/pgbouncer.ts'
import { type Service, signIn, startService } from '../helpers/processes.ts'
import { isInTime } from './in-time.ts'

const HEADER = 'x-postern-consistency'
const skip = await lacksPgbouncer()

/** A process that serves, as far as one test process can hold two. */
async function serving(t: Test, databaseUrl: string, env: NodeJS.ProcessEnv = {}) {
  const app = await buildTestApp(t, { databaseUrl, env: { DB_PREPARE: 'false', ...env } })
  app.services.start()
  const pdp = await pythonClient(app)
  return { ...app, pdp, isListening: () => app.services.policyCache.state().isListening }
}

const mayRead = async (pdp: Client, user: string, headers?: Record<string, string>): Promise<boolean> => {
  const question = { user: { key: user }, action: 'read', resource: { type: 'report', tenant: 'default' } }
  const response = await pdp.post('/allowed', question, headers)
  if (response.statusCode !== 200) throw new Error(`${response.statusCode} ${response.body}`)
  return response.json<{ allow: boolean }>().allow
}

/** Makes the role and somebody without it. */
async function aPersonAndARole({ root, person }: TestApp): Promise<{ user: string; role: string }> {
  const made = await root.post('/api/v1/roles', { name: 'reader', scopes: ['report:read'] })
  return { user: (await person()).id, role: made.json<{ id: string }>().id }
}

const assign = async ({ root }: TestApp, user: string, role: string) =>
  await root.post('/api/v1/user-roles', { user_id: user, role_id: role })

const unassign = async ({ root }: TestApp, user: string) => await root.delete(`/api/v1/user-roles/${user}`)

t.test('behind PgBouncer in transaction mode', { skip }, async (t) => {
  await t.test('what one process writes it sees at once, and another one follows by asking', async (t) => {
    const bouncer = await bouncerTo(t, (await freshDatabase(t)).url)
    const writer = await serving(t, bouncer.url)
    const other = await serving(t, bouncer.url)
    const { user, role } = await aPersonAndARole(writer)

    for (let round = 0; round < 3; round++) {
      t.equal(await mayRead(writer.pdp, user), false)
      t.ok(await isInTime(async () => !(await mayRead(other.pdp, user))), 'what was taken is refused')

      t.equal((await assign(writer, user, role)).statusCode, 201)
      t.equal(await mayRead(writer.pdp, user), true)
      t.ok(await isInTime(async () => await mayRead(other.pdp, user)), 'what was given is allowed')

      const taken = await unassign(writer, user)
      t.equal(await mayRead(other.pdp, user, { [HEADER]: String(taken.headers[HEADER]) }), false)
    }
    t.same([writer.isListening(), other.isListening()], [false, false], 'nobody believes to hear anything')
  })

  await t.test('with DATABASE_DIRECT_URL the other process hears of it', async (t) => {
    const { url } = await freshDatabase(t)
    const bouncer = await bouncerTo(t, url)
    const env = { DATABASE_DIRECT_URL: url }
    const writer = await serving(t, bouncer.url, env)
    const other = await serving(t, bouncer.url, env)
    t.ok(await isInTime(() => writer.isListening() && other.isListening()))

    const { user, role } = await aPersonAndARole(writer)
    t.equal(await mayRead(other.pdp, user), false)
    await assign(writer, user, role)

    t.equal(await mayRead(writer.pdp, user), true)
    t.ok(await isInTime(async () => await mayRead(other.pdp, user)))
  })

  await t.test('one that ends and comes back costs no restart', async (t) => {
    const { url } = await freshDatabase(t)
    const bouncer = await bouncerTo(t, url)
    const writer = await serving(t, bouncer.url, { DATABASE_DIRECT_URL: url })
    const other = await serving(t, bouncer.url)
    const { user, role } = await aPersonAndARole(writer)
    t.equal(await mayRead(other.pdp, user), false)

    await bouncer.stop()
    t.equal((await assign(writer, user, role)).statusCode, 503)
    await bouncer.start()

    t.ok(await isInTime(async () => (await assign(writer, user, role)).statusCode === 201))
    t.equal(await mayRead(writer.pdp, user), true)
    t.ok(await isInTime(async () => await mayRead(other.pdp, user)))
  })

  await t.test('many at once, over fewer connections than they have', async (t) => {
    const bouncer = await bouncerTo(t, (await freshDatabase(t)).url)
    // What is looked at is that they all get through, not how soon.
    const env = {
      DATABASE_POOL_MAX: '20',
      DATABASE_CONNECT_TIMEOUT_MS: '60000',
      POLICY_MAX_STALENESS: '60',
    }
    const [writer, other] = [await serving(t, bouncer.url, env), await serving(t, bouncer.url, env)]
    const { role } = await aPersonAndARole(writer)
    const users = await Promise.all(Array.from({ length: 20 }, async () => (await writer.person()).id))

    let told = 0
    const answers = await Promise.all(
      users.map(async (user, n) => {
        const { body, headers, statusCode } = await assign(n % 2 === 0 ? writer : other, user, role)
        if (statusCode !== 201) return body
        const token = headers[HEADER]
        // A write is not told its version when the database is too busy to say it; then the processes find out by themselves.
        if (token === undefined) {
          const isSeen = ({ pdp }: { pdp: Client }) => isInTime(async () => await mayRead(pdp, user))
          return [statusCode, await isSeen(writer), await isSeen(other)]
        }
        told++
        const since = { [HEADER]: String(token) }
        return [statusCode, await mayRead(writer.pdp, user, since), await mayRead(other.pdp, user, since)]
      }),
    )

    t.same(answers, Array(20).fill([201, true, true]))
    t.ok(told > 0, 'some are told')
  })

  await t.test('one that knows no time limits takes connections without them', async (t) => {
    const bouncer = await bouncerTo(t, (await freshDatabase(t)).url, { ignoresTimeLimits: false })
    const app = await serving(t, bouncer.url, { DATABASE_STATEMENT_TIMEOUT_MS: '0' })

    t.equal((await app.root.get('/api/v1/users/me')).statusCode, 200)
    await t.rejects(buildTestApp(t, { databaseUrl: bouncer.url }), {
      cause: { message: /unsupported startup parameter: statement_timeout/ },
    })
  })

  await t.test('processes start, serve and see each other, also what nobody told them', async (t) => {
    const { url } = await freshDatabase(t)
    const bouncer = await bouncerTo(t, url)
    const env = {
      DATABASE_URL: bouncer.url,
      DATABASE_DIRECT_URL: url,
      DB_PREPARE: 'false',
      SECRET_KEY,
      // A token of one is one of the other.
      PUBLIC_URL: 'https://postern.test',
    }

    const [first, second] = await Promise.all([startService(t, env), startService(t, env)])

    t.equal((await signIn(first, SUPER_ADMIN_EMAIL, PASSWORD)).status, 200)
    const signedIn = await signIn(second, SUPER_ADMIN_EMAIL, PASSWORD)
    t.equal(signedIn.status, 200)
    const { access_token: token } = (await signedIn.json()) as { access_token: string }
    const post = async <T>({ url }: Service, path: string, body: unknown): Promise<T> => {
      const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` }
      const response = await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
      return (await response.json()) as T
    }
    const mayRead = async (service: Service, user: string): Promise<boolean> => {
      const resource = { type: 'report', tenant: 'default' }
      const question = { user: { key: user }, action: 'read', resource }
      return (await post<{ allow: boolean }>(service, '/allowed', question)).allow
    }
    const role = await post<{ id: string }>(first, '/api/v1/roles', {
      name: 'reader',
      scopes: ['report:read'],
    })

    for (const key of ['told', 'untold']) {
      const person = { key, email: `${key}@postern.test`, password: PASSWORD }
      const user = await post<{ id: string }>(first, '/api/v1/users', person)
      t.ok(await isInTime(async () => !(await mayRead(second, key))))
      await onServer(url, async (client) => {
        const state = key === 'told' ? 'enable' : 'disable'
        await client.query(`alter table policy_versions ${state} trigger policy_versions_notify`)
      })
      await post(first, `/api/v1/users/${user.id}/roles`, { role_id: role.id, account_id: null })
      t.equal(await mayRead(first, key), true)
      t.ok(await isInTime(async () => await mayRead(second, key)), key)
    }
  })
})
