import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { AppError, StartupError } from '../../src/errors.ts'
import { createCircuitBreaker } from '../../src/policy/circuit-breaker.ts'
import { createPermitAdapter } from '../../src/policy/permit-adapter.ts'
import { createPermitClient } from '../../src/policy/permit-client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { testConfig } from '../helpers/config.ts'
import { isProblem } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { pythonClient } from '../helpers/permit.ts'
import { may } from './adapter-contract.ts'
import { buildPermit, buildUserOf, type Way } from './permit-double.ts'

const FAULTS: Record<string, Way> = {
  'does not answer': 'slow',
  'hangs up': 'cut',
  'hangs up in the middle of an allow': 'cut_within',
  'trickles an allow without an end': 'trickle',
  'knows no such key': { status: 401 },
  'refuses the key': { status: 403, body: '{"allow":true}' },
  'is broken': { status: 500, body: '{"allow":true}' },
  'is overloaded': { status: 503, body: '{"allow":true}' },
  moved: { status: 302, body: '{"allow":true}' },
  'did not find the path': { status: 404, body: '{"allow":true}' },
  'answers with another success': { status: 201, body: '{"allow":true}' },
  'answers with garbage': { body: '<html>allow: true</html>' },
  'answers with nothing': { body: '' },
  'answers with null': { body: 'null' },
  'answers with an empty object': { body: '{}' },
  'answers yes': { body: '{"allow":"yes"}' },
  'answers the text true': { body: '{"allow":"true"}' },
  'answers one': { body: '{"allow":1}' },
  'answers a list': { body: '{"allow":[true]}' },
  'answers an object': { body: '{"allow":{"allow":true}}' },
  'answers yes in the old form': { body: '{"result":{"allow":"yes"}}' },
}

/** Anna may read in `north`, here and in Permit. */
async function buildPair(t: Test, env: NodeJS.ProcessEnv = {}) {
  const permit = await buildPermit(t)
  const postern = await buildUserOf(t, permit, {
    POLICY_ENGINE: 'permit',
    PERMIT_TIMEOUT_MS: '300',
    PERMIT_BREAKER_FAILURES: '1000',
    ...env,
  })
  const { services } = postern
  const { id: accountId } = await services.accounts.createAccount(SYSTEM, { name: 'north', key: 'north' })
  const { id } = await services.users.createUser(SYSTEM, {
    key: 'anna',
    email: 'anna@postern.test',
    password: 'correct horse battery staple',
    accountId,
  })
  await services.roles.assignFurther(SYSTEM, id, await postern.roleId('reader'), accountId)
  await postern.settled()
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  return { permit, postern, decisions, services }
}

/** What a question comes to: an answer, or the code and waiting time of a refusal to answer. */
async function outcomeOf(ask: () => Promise<unknown>): Promise<unknown> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof AppError) return [error.code, error.status, (error.retryAfterSeconds ?? 0) > 0]
    throw error
  }
}

const UNAVAILABLE = ['policy_engine_unavailable', 503, true]

t.test('a Permit that fails allows nothing', async (t) => {
  const { permit, postern, decisions } = await buildPair(t)
  const client = await pythonClient(postern)
  t.equal((await decisions.check(may('anna'))).allowed, true)

  for (const [name, way] of Object.entries(FAULTS)) {
    await t.test(name, async (t) => {
      permit.set(way)
      t.same(await outcomeOf(async () => await decisions.check(may('anna'))), UNAVAILABLE, 'one question')
      t.same(
        await outcomeOf(async () => await decisions.checkMany([may('anna'), may('anna', 'write')])),
        UNAVAILABLE,
        'many questions',
      )
      permit.set('open')
      t.equal((await decisions.check(may('anna'))).allowed, true, 'and it is back')
    })
  }

  await t.test('too few and too many answers are none', async (t) => {
    for (const body of [
      '{"allow":[{"allow":true}]}',
      '{"allow":[{"allow":true},{"allow":true},{"allow":true}]}',
      '{"allow":[{"allow":"yes"},{"allow":true}]}',
      '{"allow":[]}',
    ]) {
      permit.set({ body })
      t.same(
        await outcomeOf(async () => await decisions.checkMany([may('anna'), may('anna', 'write')])),
        UNAVAILABLE,
        body,
      )
    }
    permit.set('open')
  })

  await t.test('no list of permissions is made of nonsense', async (t) => {
    for (const body of [
      '[]',
      '"all"',
      '{"__tenant:north":true}',
      '{"__tenant:north":{"permissions":"all"}}',
      '{"__tenant:north":{"permissions":[1]}}',
    ]) {
      permit.set({ body })
      t.same(
        await outcomeOf(async () => await decisions.userPermissions({ user: { key: 'anna' } })),
        UNAVAILABLE,
        body,
      )
    }
    permit.set('open')
  })

  await t.test('whoever asks over HTTP hears 503, and when to come back', async (t) => {
    permit.set('cut')
    const response = await client.post('/allowed', {
      user: { key: 'anna' },
      action: 'read',
      resource: { type: 'document', tenant: 'north' },
    })
    t.equal(response.statusCode, 503)
    t.ok(Number(response.headers['retry-after']) > 0)
    permit.set('open')
  })
})

t.test('whoever asks for reasons hears the answer of Permit, and reasons where they fit', async (t) => {
  const { permit, postern } = await buildPair(t)
  const client = await pythonClient(postern)
  const ask = async (action: string) =>
    await client.post('/allowed', {
      user: { key: 'anna' },
      action,
      resource: { type: 'document', tenant: 'north' },
      use_debugger: true,
    })
  t.match((await ask('read')).json(), {
    allow: true,
    allowing_sources: ['rbac'],
    debug: { rbac: { allow: true } },
  })

  permit.set({ body: '{"allow":false}' })
  const refused = (await ask('read')).json()
  t.match(refused, { allow: false, result: false, debug: { request: { user: { key: 'anna' } } } })
  t.same([refused.allowing_sources, refused.debug.rbac], [[], undefined], 'no reasons for another answer')
  permit.set({ body: '{"allow":true}' })
  const given = (await ask('write')).json()
  t.same([given.allow, given.allowing_sources], [true, []])
  permit.set('cut')
  t.equal((await ask('read')).statusCode, 503)
})

t.test('reasons for a list are asked of Permit as one list', async (t) => {
  const { permit, postern } = await buildPair(t, {
    PERMIT_TIMEOUT_MS: '20000',
    PERMIT_BREAKER_FAILURES: '3',
  })
  const client = await pythonClient(postern)
  const body = { user: { key: 'anna' }, action: 'read', resource: { type: 'document', tenant: 'north' } }
  const bulk = Array.from({ length: 200 }, (_, n) => ({ ...body, use_debugger: n !== 0 }))
  const ask = async () => {
    permit.requests.length = 0
    return await client.post('/allowed/bulk', bulk)
  }

  const { allow } = (await ask()).json<{ allow: { allow: boolean; debug?: object }[] }>()
  t.equal(allow.filter((one) => one.allow).length, 200)
  t.equal(allow.filter((one) => one.debug).length, 199)
  t.equal(permit.requests.length, 2, 'those that ask for reasons, and those that do not')

  permit.set('cut')
  t.equal((await ask()).statusCode, 503)
  t.equal(permit.requests.length, 1)
  t.equal(postern.permit.state().breakers.pdp, 'closed', 'one failure')
})

t.test('what Permit does not take is told to whoever asks it, and is no sign that it is away', async (t) => {
  const { permit, postern, decisions } = await buildPair(t, {
    PERMIT_TIMEOUT_MS: '20000',
    PERMIT_BREAKER_FAILURES: '2',
    POLICY_FALLBACK: 'local',
  })
  for (const [status, refusal] of [
    [400, ['validation_failed', 422, false]],
    [422, ['validation_failed', 422, false]],
    [413, ['payload_too_large', 413, false]],
  ] as const) {
    permit.set({ status, body: '{"allow":true}' })
    for (const ask of [
      async () => await decisions.check(may('anna')),
      async () => await decisions.checkMany([may('anna'), may('anna')]),
      async () => await decisions.userPermissions({ user: { key: 'anna' } }),
    ])
      t.same(await outcomeOf(ask), refusal, `${status}`)
  }
  const { breakers, fallbacks, faults } = postern.permit.state()
  t.same([breakers.pdp, fallbacks], ['closed', 0])
  t.same(faults, [{ service: 'pdp', fault: 'refused', count: 9 }], 'but it is counted')

  permit.set('open')
  permit.requests.length = 0
  const large = { ...may('anna'), user: { key: 'anna', attributes: { notes: 'x'.repeat(3000) } } }
  const answers = await decisions.checkMany(Array.from({ length: 500 }, () => large))
  t.ok(
    answers.length === 500 && answers.every(({ allowed }) => allowed),
    'what is large together goes in parts',
  )
  t.equal(permit.requests.length, 3)
  t.equal(postern.permit.state().fallbacks, 0)
})

t.test('a list that shares something large is refused, and holds nobody up', async (t) => {
  const { permit, postern, decisions } = await buildPair(t, {
    PERMIT_TIMEOUT_MS: '20000',
    PERMIT_BREAKER_FAILURES: '5',
  })
  const wide = { notes: 'x'.repeat(870 * 1024) }
  const resource = { type: 'document', id: '1', properties: { tenant: 'north' } }
  const items = Array.from({ length: 1000 }, () => ({}))
  permit.requests.length = 0

  for (const shared of [
    { subject: { type: 'user', id: 'anna', properties: wide }, resource },
    {
      subject: { type: 'user', id: 'anna' },
      resource: { ...resource, properties: { tenant: 'north', ...wide } },
    },
    { subject: { type: 'user', id: 'anna' }, resource, context: wide },
  ]) {
    const [refused, answered] = await Promise.all([
      postern.root.post('/access/v1/evaluations', {
        ...shared,
        action: { name: 'read' },
        evaluations: items,
      }),
      decisions.check(may('anna')),
    ])
    isProblem(t, refused, 'payload_too_large')
    t.equal(answered.allowed, true)
  }
  t.equal(permit.requests.length, 3, 'only the single questions were sent')
  t.equal(postern.permit.state().breakers.pdp, 'closed')

  permit.requests.length = 0
  let open = (): void => {}
  permit.set({ opensAfter: new Promise<void>((resolve) => (open = resolve)) })
  const large = { ...may('anna'), context: { notes: 'x'.repeat(100_000) } }
  const answers = decisions.checkMany(Array.from({ length: 60 }, () => large))
  await until(() => permit.requests.length >= 4)
  await sleep(100)
  t.equal(permit.requests.length, 4, 'four calls at a time')
  open()
  t.ok((await answers).every(({ allowed }) => allowed))
  t.equal(permit.requests.length, 12)

  permit.requests.length = 0
  permit.set('cut')
  t.same(
    await outcomeOf(async () => await decisions.checkMany(Array.from({ length: 60 }, () => large))),
    UNAVAILABLE,
  )
  t.equal(permit.requests.length, 4, 'and none after one that failed')
  t.equal(postern.permit.state().breakers.pdp, 'closed')
})

t.test('when the database goes away after its facts were read, that is what is told', async (t) => {
  const { decisions, services } = await buildPair(t)
  t.equal((await decisions.check(may('stranger'))).allowed, false)
  await services.database.pool.query('alter schema graphile_worker rename to elsewhere')
  t.equal((await decisions.check(may('stranger'))).allowed, false, 'without jobs nothing waits')
  await services.database.pool.query('alter schema elsewhere rename to graphile_worker')

  const lost = createPermitAdapter({
    permit: createPermitClient({ config: testConfig().permit, onFault: () => {} }),
    readFacts: async (read) => read({ user: () => null, tenant: () => null, instance: () => null }),
    listGone: async () => await Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' })),
  })
  t.same(await outcomeOf(async () => await lost.check(may('anna'))), ['policy_unavailable', 503, true])
})

t.test('what Permit does not take says nothing about whether it is there', async (t) => {
  const { permit, postern, decisions } = await buildPair(t, {
    PERMIT_BREAKER_FAILURES: '2',
    PERMIT_BREAKER_OPEN_MS: '10',
  })
  const ask = async (status: number) => {
    permit.set({ status })
    return await outcomeOf(async () => await decisions.check(may('anna')))
  }
  for (const status of [500, 413, 422, 400]) await ask(status)
  t.equal(postern.permit.state().breakers.pdp, 'closed')
  t.same(await ask(500), UNAVAILABLE)
  await until(() => postern.permit.state().breakers.pdp === 'half_open')

  t.same(await ask(422), ['validation_failed', 422, false])
  t.equal(postern.permit.state().breakers.pdp, 'half_open')
})

t.test('a dead Permit is left alone, and tried again after a while', async (t) => {
  const { permit, postern, decisions } = await buildPair(t, {
    PERMIT_BREAKER_FAILURES: '3',
    PERMIT_BREAKER_OPEN_MS: '400',
  })
  permit.set({ status: 500 })
  for (let count = 0; count < 3; count++)
    t.same(await outcomeOf(async () => await decisions.check(may('anna'))), UNAVAILABLE)
  t.equal(postern.permit.state().breakers.pdp, 'open')

  permit.requests.length = 0
  const refused = await Promise.all(
    Array.from({ length: 20 }, async () => await outcomeOf(async () => await decisions.check(may('anna')))),
  )
  t.same(
    refused,
    Array.from({ length: 20 }, () => UNAVAILABLE),
  )
  t.equal(permit.requests.length, 0, 'nobody waits for it')

  await sleep(450)
  permit.set('slow')
  await Promise.all(
    Array.from({ length: 20 }, async () => await outcomeOf(async () => await decisions.check(may('anna')))),
  )
  t.equal(permit.requests.length, 1, 'one call tries')

  permit.set('open')
  await sleep(450)
  t.equal((await decisions.check(may('anna'))).allowed, true)
  t.equal(postern.permit.state().breakers.pdp, 'closed')
  t.match(
    postern.permit.state().faults.find(({ fault }) => fault === 'server_error'),
    { service: 'pdp', count: 3 },
  )
})

t.test('with a fallback the local engine answers while Permit does not', async (t) => {
  const { permit, postern, decisions } = await buildPair(t, { POLICY_FALLBACK: 'local' })
  for (const way of ['cut', { body: '{"allow":"yes"}' }, { status: 401 }] satisfies Way[]) {
    permit.set(way)
    t.equal((await decisions.check(may('anna'))).allowed, true)
    t.equal((await decisions.check(may('anna', 'write'))).allowed, false)
    t.same(
      (await decisions.checkMany([may('anna'), may('bert')])).map(({ allowed }) => allowed),
      [true, false],
    )
    matchEach(t, await decisions.userPermissions({ user: { key: 'anna' } }), [
      { permissions: ['document:read'] },
    ])
  }
  t.equal(postern.permit.state().fallbacks, 12)

  const metrics = (await postern.anonymous.get('/metrics')).body
  t.match(metrics, 'postern_policy_fallbacks_total 12')
  t.match(metrics, 'postern_permit_faults_total{service="pdp",fault="unauthorized"} 4')
  t.match(metrics, 'postern_mirror_jobs{state="pending"} 0')
})

t.test('the shadow is asked too, its differences are told, and nobody waits for it', async (t) => {
  const permit = await buildPermit(t)
  const warnings: unknown[] = []
  const postern = await buildUserOf(
    t,
    permit,
    { POLICY_SHADOW: 'permit', PERMIT_TIMEOUT_MS: '20000' },
    { warn: (details) => warnings.push(details) },
  )
  const { services } = postern
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  const shadow = () => postern.permit.state().shadow

  t.equal((await decisions.check(may('zoe'))).allowed, false)
  await until(() => shadow().same === 1)
  permit.set({ body: '{"allow":[{"allow":true}]}' })
  t.equal(
    (await decisions.check({ ...may('zoe'), user: { key: 'zoe', attributes: { secret: 'x' } } })).allowed,
    false,
  )
  await until(() => shadow().different === 1)
  t.same(warnings, [
    { user: 'zoe', action: 'read', resource: 'document', tenant: 'north', answered: false, shadow: true },
  ])

  permit.set('slow')
  const answers = await Promise.all(
    Array.from({ length: 150 }, async () => (await decisions.check(may('zoe'))).allowed),
  )
  t.same(new Set(answers), new Set([false]), 'a shadow that does not answer holds nobody up')
  await until(() => shadow().skipped > 0)
  permit.set('cut')
  await until(() => shadow().failed > 0)
})

async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error('it did not come to that')
    await sleep(20)
  }
}

t.test('the breaker opens after failures in a row, lets one call try, and closes again', async (t) => {
  let now = 0
  const breaker = createCircuitBreaker({ failures: 2, openMs: 100, now: () => now })
  const failing = async () =>
    await breaker.run(async () => await Promise.reject(new Error('down'))).catch(String)
  const working = async () => await breaker.run(async () => 'well').catch(String)

  await failing()
  t.equal(await working(), 'well')
  await failing()
  t.equal(breaker.state(), 'closed', 'a success in between counts')
  await failing()
  t.equal(breaker.state(), 'open')
  t.match(await working(), /CircuitOpenError/)
  now = 99
  t.match(await working(), /CircuitOpenError/)
  now = 100
  t.equal(breaker.state(), 'half_open')
  await failing()
  t.equal(breaker.state(), 'open')
  now = 200
  let finish = (_: string): void => {}
  const probe = breaker.run(async () => await new Promise<string>((resolve) => (finish = resolve)))
  t.match(await working(), /CircuitOpenError/, 'one at a time')
  finish('well')
  t.equal(await probe, 'well')
  t.equal(breaker.state(), 'closed')

  const telling = async () =>
    await breaker.run(
      async () => 'refused',
      () => false,
    )
  await failing()
  t.equal(await telling(), 'refused')
  await failing()
  t.equal(breaker.state(), 'open', 'what says nothing does not count in between')
  now = 300
  t.equal(await telling(), 'refused')
  t.equal(breaker.state(), 'half_open', 'nor does it close it')
  t.equal(await working(), 'well')
  t.equal(breaker.state(), 'closed')
})

t.test('without the SDK the start says what to install', async (t) => {
  const client = createPermitClient({
    config: testConfig({ POLICY_ENGINE: 'permit', PERMIT_API_KEY: 'k' }).permit,
    onFault: () => {},
    importPackage: async () =>
      await Promise.reject(
        Object.assign(new Error("Cannot find package 'permitio'"), { code: 'ERR_MODULE_NOT_FOUND' }),
      ),
  })
  await t.rejects(client.load(), StartupError)
  await t.rejects(client.load(), /npm install .*permitio@2.*--build-arg PERMIT_SDK=permitio@2/)
})

t.test('settings that do not fit together are refused in one sentence', async (t) => {
  t.throws(
    () => testConfig({ POLICY_ENGINE: 'permit' }),
    /PERMIT_API_KEY must be set too with POLICY_ENGINE=permit/,
  )
  t.throws(() => testConfig({ POLICY_SHADOW: 'local' }), /POLICY_SHADOW must name the other engine/)
  t.throws(() => testConfig({ POLICY_FALLBACK: 'local' }), /POLICY_FALLBACK=local needs/)
})
