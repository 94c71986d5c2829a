import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import type { LoggedDecision } from '../../src/policy/decision-log.ts'
import type { Question } from '../../src/policy/engine/model.ts'
import { createServices } from '../../src/services.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import { matchEach } from '../helpers/matching.ts'
import { storeFacts, storePolicy } from './loading.ts'

const HEADER = 'x-postern-consistency'
const QUESTION: Question = {
  user: { key: 'anna' },
  action: { name: 'read' },
  resource: { type: 'doc', key: '1', tenant: 'default' },
}
const POLICY = {
  resources: [{ key: 'doc', actions: ['read'], roles: [], relations: [] }],
  roles: [{ key: 'reader', permissions: ['doc:read'], extends: [] }],
}

t.test('the answer to a write carries a token, and a request that sends it back is answered', async (t) => {
  const { root, databaseUrl } = await buildTestApp(t)
  const versionOf = (token: string): number => Number(token.split('.')[1])
  const written = await root.post('/api/v1/roles', { name: 'Reader', key: 'reader' })
  const token = String(written.headers[HEADER])
  t.match(token, /^[0-9a-f-]{36}\.\d+$/)
  t.notOk((await root.get('/api/v1/roles')).headers[HEADER], 'reading has no version')

  const next = await root.post('/api/v1/roles', { name: 'Writer', key: 'writer' })
  t.ok(versionOf(String(next.headers[HEADER])) > versionOf(token), 'each write has one of its own')

  const other = await buildTestApp(t, { databaseUrl })
  t.equal((await other.root.get('/api/v1/roles', { [HEADER]: token })).statusCode, 200)
})

t.test('a token that no write has returned is refused', async (t) => {
  const { root } = await buildTestApp(t)
  await root.post('/api/v1/environments', { key: 'other', name: 'Other' })
  const elsewhere = { 'postern-environment': 'default/other' }
  const ofOther = String((await root.post('/api/v1/roles', { name: 'Reader' }, elsewhere)).headers[HEADER])
  t.equal((await root.get('/api/v1/roles', { ...elsewhere, [HEADER]: ofOther })).statusCode, 200)

  const here = DEFAULT_ENVIRONMENT
  const versions = ['999999', 'abc', '-1', '1e3', '99999999999999999999', '0', '01', '1.1', '']
  for (const token of [ofOther, '1', here, `x${here}.1`, ...versions.map((one) => `${here}.${one}`)]) {
    const response = await root.get('/api/v1/roles', { [HEADER]: token })
    t.equal(response.statusCode, 400, token)
    t.match(response.json(), { type: '/problems/unknown_consistency' })
  }
})

t.test('a refused write has no token', async (t) => {
  const { root } = await buildTestApp(t)
  const refused = await root.post('/api/v1/roles', { name: '' })

  t.equal(refused.statusCode, 422)
  t.notOk(refused.headers[HEADER])
})

t.test('decisions are written to the table when the operator wants it, and removed in time', async (t) => {
  const { services } = await buildTestApp(t, { env: { DECISION_LOG: 'database' } })
  await storePolicy(services, DEFAULT_ENVIRONMENT, POLICY)
  await storeFacts(services, DEFAULT_ENVIRONMENT, {
    users: [{ key: 'anna', roles: [{ role: 'reader', tenant: 'default' }] }],
  })
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  await decisions.check(QUESTION, { requestId: 'r-1' })
  await decisions.checkMany([
    { ...QUESTION, user: { key: 'bert\0' } },
    { ...QUESTION, action: { name: 'burn' } },
  ])

  const logged = async () =>
    (await services.database.pool.query('select * from decision_log order by reason')).rows
  for (const deadline = Date.now() + 5000; (await logged()).length < 3 && Date.now() < deadline; )
    await sleep(50)
  matchEach(t, await logged(), [
    { user_key: 'anna', action: 'burn', is_allowed: false, reason: 'no_such_action', request_id: null },
    { user_key: 'bert', is_allowed: false, reason: 'not_allowed' },
    {
      user_key: 'anna',
      resource: 'doc:1',
      tenant: 'default',
      is_allowed: true,
      reason: 'rbac',
      request_id: 'r-1',
    },
  ])

  await services.database.pool.query(
    `update decision_log set decided_at = now() - interval '31 days' where user_key = 'anna'`,
  )
  await services.decisionLog.prune()
  t.equal((await logged()).length, 1)
})

t.test('decisions can go to the log, or a share of none of them', async (t) => {
  const { url } = await freshDatabase(t)
  for (const [sample, count] of [
    ['1', 1],
    ['0', 0],
  ] as const) {
    const written: LoggedDecision[] = []
    const services = createServices(testConfig({ DECISION_LOG: 'log', DECISION_LOG_SAMPLE: sample }), {
      databaseUrl: url,
      secretKey: SECRET_KEY,
      logDecision: (decision) => written.push(decision),
    })
    t.teardown(services.close)
    await services.modelOf(DEFAULT_ENVIRONMENT).decisions.check(QUESTION)
    t.equal(written.length, count)
  }
})

t.test('a log that cannot be written fails no decision', async (t) => {
  const { services } = await buildTestApp(t, { env: { DECISION_LOG: 'database' } })
  await services.database.pool.query('drop table decision_log')
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)

  t.equal((await decisions.check(QUESTION)).allowed, false)
  await sleep(1100)
  t.equal((await decisions.check(QUESTION)).allowed, false)
})

t.test('the metrics tell decisions and how the cache does', async (t) => {
  const { services, anonymous } = await buildTestApp(t)
  await storePolicy(services, DEFAULT_ENVIRONMENT, POLICY)
  await storeFacts(services, DEFAULT_ENVIRONMENT, {
    users: [{ key: 'anna', roles: [{ role: 'reader', tenant: 'default' }] }],
  })
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  await decisions.check(QUESTION)
  await decisions.check({ ...QUESTION, user: { key: 'bert' } })

  const { body } = await anonymous.get('/metrics')
  t.match(body, 'postern_policy_decisions_total{allowed="true"} 1')
  t.match(body, 'postern_policy_decisions_total{allowed="false"} 1')
  t.match(body, 'postern_policy_cache_entries{kind="users"} 2')
  t.match(body, /postern_policy_cache_lookups_total\{kind="users",outcome="hit"\} [1-9]/)
  t.match(body, 'postern_policy_behind 0')
  t.match(body, /postern_policy_staleness_seconds 0\.\d/)
})
