import { Writable } from 'node:stream'
import Fastify from 'fastify'
import t from 'tap'
import { buildApp } from '../../src/app.ts'
import { loggerOptions } from '../../src/http/request-log.ts'
import { createServices } from '../../src/services.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL, testConfig } from '../helpers/config.ts'
import { emptyDatabase, freshDatabase } from '../helpers/database.ts'
import { matchEach } from '../helpers/matching.ts'

t.test('health answers as the original does, and says more to orchestrators', async (t) => {
  const { anonymous } = await buildTestApp(t)

  for (const url of ['/health', '/health/', '/health/live', '/health/ready']) {
    const answer = await anonymous.get(url)
    t.equal(answer.statusCode, 200, url)
    t.same(answer.json(), { message: 'ok!', status: 'ok' }, url)
  }
})

t.test('a service whose database is not migrated lives, but is not ready', async (t) => {
  const { url } = await emptyDatabase(t)
  const services = createServices(testConfig(), { databaseUrl: url, secretKey: SECRET_KEY })
  const app = await buildApp(services, { logger: false })
  t.teardown(async () => {
    await app.close()
    await services.close()
  })

  const live = await app.inject('/health/live')
  const ready = await app.inject('/health/ready')

  t.equal(live.statusCode, 200)
  t.equal(ready.statusCode, 503)
  t.ok(ready.headers['retry-after'])
  t.equal(ready.json<{ type: string }>().type, '/problems/database_unavailable')
})

t.test('metrics count requests by route and sign-ins by outcome', async (t) => {
  const { anonymous, person, as } = await buildTestApp(t)
  const { token } = await person('GUEST')
  await as(token).get('/api/v1/users/me')
  await anonymous.post('/api/v1/auth/login', { email: 'nobody@postern.test', password: PASSWORD })

  const answer = await anonymous.get('/metrics')

  t.match(answer.headers['content-type'], /^text\/plain/)
  t.match(
    answer.body,
    /postern_http_request_duration_seconds_count\{method="GET",route="\/api\/v1\/users\/me",status="200"\} 2/,
  )
  t.match(answer.body, /postern_sign_ins_total\{outcome="success"\} 2/)
  t.match(answer.body, /postern_sign_ins_total\{outcome="refused"\} 1/)
  t.match(answer.body, /postern_database_connections\{state="idle"\} \d/)
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'nodejs_heap_size_used_bytes',
  ])
    t.match(answer.body, new RegExp(`^postern_${name} [\\d.]+$`, 'm'))
  t.match(answer.body, /postern_nodejs_eventloop_lag_p99_seconds/)
  t.notMatch(answer.body, /nodejs_gc/, 'what measures collections causes them')
  t.notMatch(answer.body, /nobody@postern/)
})

t.test('with METRICS_TOKEN, metrics are for those who send it', async (t) => {
  const { anonymous, root } = await buildTestApp(t, { env: { METRICS_TOKEN: 'a token for prometheus' } })

  t.equal((await anonymous.get('/metrics')).statusCode, 401)
  t.equal((await root.get('/metrics')).statusCode, 401)
  t.equal(
    (await anonymous.get('/metrics', { authorization: 'Bearer a token for prometheus' })).statusCode,
    200,
  )
})

t.test(
  'the id of a request is the client’s when it is harmless, and in the answer, the problem and the audit row',
  async (t) => {
    const { anonymous, root } = await buildTestApp(t)

    const refused = await anonymous.get('/api/v1/users/me', { 'x-request-id': 'trace-42' })
    const hostile = await anonymous.get('/health', { 'x-request-id': 'a b<script>' })
    await root.post('/api/v1/accounts', { name: 'Traced' }, { 'x-request-id': 'trace-43' })
    const events = await root.get('/api/v1/audit-events?action=account.created&limit=1')

    t.equal(refused.headers['x-request-id'], 'trace-42')
    t.equal(refused.json<{ instance: string }>().instance, 'trace-42')
    t.match(hostile.headers['x-request-id'], /^[0-9a-f-]{36}$/)
    matchEach(t, events.json(), [{ request_id: 'trace-43' }])
  },
)

t.test('the log has a line for each request, and no password, token or email', async (t) => {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString())
      done()
    },
  })
  const { url } = await freshDatabase(t)
  const config = testConfig({ LOG_LEVEL: 'trace' })
  const services = createServices(config, { databaseUrl: url, secretKey: SECRET_KEY })
  const app = await buildApp(services, { logger: { ...loggerOptions(config), stream } })
  t.teardown(async () => {
    await app.close()
    await services.close()
  })

  const login = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: SUPER_ADMIN_EMAIL, password: PASSWORD },
  })
  const token = login.json<{ access_token: string }>().access_token
  await app.inject({
    url: `/api/v1/users?email=${SUPER_ADMIN_EMAIL}`,
    headers: { authorization: `Bearer ${token}` },
  })
  await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: 'wrong@postern.test', password: 'a wrong password' },
  })
  await services.database.pool.query('alter table users rename to people')
  const broken = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: SUPER_ADMIN_EMAIL, password: PASSWORD },
  })

  const log = lines.join('')
  t.equal(broken.statusCode, 500)
  t.notMatch(broken.body, /select|people|stack/)
  t.match(log, /"path":"\/api\/v1\/users","status":200/)
  t.match(log, /request failed/)
  for (const secret of [
    PASSWORD,
    'a wrong password',
    token,
    SUPER_ADMIN_EMAIL,
    'wrong@postern.test',
    '$argon2id',
  ]) {
    t.notOk(log.includes(secret), `not in the log: ${secret.slice(0, 12)}…`)
  }
})

t.test('the logger takes secrets out of whatever is logged', async (t) => {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString())
      done()
    },
  })
  const app = Fastify({ logger: { ...loggerOptions(testConfig({ LOG_LEVEL: 'info' })), stream } })
  t.teardown(() => app.close())

  app.log.info(
    { body: { password: 'hunter2hunter2' }, headers: { authorization: 'Bearer abc', cookie: 'sid=1' } },
    'careless',
  )

  t.notMatch(lines.join(''), /hunter2|Bearer abc|sid=1/)
})

t.test('the type of a problem leads to its meaning', async (t) => {
  const { anonymous } = await buildTestApp(t)
  const problem = (await anonymous.get('/api/v1/users/me')).json<{ type: string }>()

  const meaning = await anonymous.get(problem.type)
  const unknown = await anonymous.get('/problems/__proto__')

  t.match(meaning.json(), { status: 401, help: /Bearer/ })
  t.equal(unknown.statusCode, 404)
})

t.test('a request that says JSON and has no body has an empty one', async (t) => {
  const { app, rootToken, person } = await buildTestApp(t)
  const { id } = await person()
  const headers = { authorization: `Bearer ${rootToken}`, 'content-type': 'application/json' }

  const deactivated = await app.inject({ method: 'POST', url: `/api/v1/users/${id}/deactivate`, headers })
  const created = await app.inject({ method: 'POST', url: '/api/v1/users', headers })

  t.equal(deactivated.statusCode, 200)
  t.equal(created.statusCode, 422)
})
