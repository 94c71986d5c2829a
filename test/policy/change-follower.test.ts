import { EventEmitter, once } from 'node:events'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { createServices, type Services } from '../../src/services.ts'
import { wireTo } from '../db/cuttable-proxy.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { isInTime } from './in-time.ts'
import { newEnvironment, storeFacts, storePolicy } from './loading.ts'

const POLICY = {
  resources: [{ key: 'doc', actions: ['read'], roles: [], relations: [] }],
  roles: [{ key: 'reader', permissions: ['doc:read'], extends: [] }],
}
const FACTS = { users: [{ key: 'anna', roles: [{ role: 'reader', tenant: 'default' }] }] }

const mayRead = async ({ modelOf }: Services): Promise<boolean> => {
  const { allowed } = await modelOf(DEFAULT_ENVIRONMENT).decisions.check({
    user: { key: 'anna' },
    action: { name: 'read' },
    resource: { type: 'doc', tenant: 'default' },
  })
  return allowed
}

/** How many connections listen to the database. */
const listeners = async (url: string): Promise<number> =>
  await onServer(url, async (client) => {
    const { rows } = await client.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
        where datname = current_database() and state = 'idle' and query like 'listen%'`,
    )
    return rows[0]?.count ?? 0
  })

t.test('whether LISTEN works is found out when the pool comes back after it', async (t) => {
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const services = createServices(testConfig({ DATABASE_DIRECT_URL: url }), {
    databaseUrl: wire.url,
    secretKey: SECRET_KEY,
  })
  t.teardown(services.close)
  const isListening = () => services.policyCache.state().isListening
  wire.cut()

  services.start()
  t.ok(await isInTime(async () => (await listeners(url)) === 1))
  t.equal(isListening(), false)
  wire.mend()

  t.ok(await isInTime(isListening))
})

t.test('a listener that is cut off is made anew, and what was told meanwhile is learnt', async (t) => {
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const services = createServices(testConfig({ DATABASE_DIRECT_URL: wire.url }), {
    databaseUrl: url,
    secretKey: SECRET_KEY,
  })
  t.teardown(services.close)
  const writer = await buildTestApp(t, { databaseUrl: url })
  await storePolicy(writer.services, DEFAULT_ENVIRONMENT, POLICY)
  const isListening = () => services.policyCache.state().isListening
  services.start()
  t.ok(await isInTime(isListening))
  t.equal(await mayRead(services), false)

  wire.cut()
  t.ok(await isInTime(() => !isListening()))
  await storeFacts(writer.services, DEFAULT_ENVIRONMENT, FACTS)
  t.ok(await isInTime(async () => await mayRead(services)), 'without a listener by asking')
  wire.mend()

  t.ok(await isInTime(isListening))
})

t.test('a write while a policy is loaded for the first time has a version of its own', async (t) => {
  const { services } = await buildTestApp(t)
  // The default one is followed from the beginning, because of API keys.
  const environmentId = await newEnvironment(services, 'other')
  const letGo = await holdBackLoading(services, () =>
    services.policyCache.environmentOf(environmentId).compiledPolicy(),
  )

  await storePolicy(services, environmentId, POLICY)
  await letGo()

  const { rows } = await services.database.pool.query(
    'select version::int from policy_versions where environment_id = $1',
    [environmentId],
  )
  t.equal(await services.modelOf(environmentId).decisions.versionOfWrites(), rows[0].version)
})

/** Begins to load a policy and keeps back what the database has answered, until told to let go. */
async function holdBackLoading(
  { database: { pool } }: Services,
  load: () => Promise<unknown>,
): Promise<() => Promise<void>> {
  const query = pool.query.bind(pool) as (...args: unknown[]) => Promise<unknown>
  const gate = new EventEmitter()
  pool.query = (async (...args: unknown[]) => {
    const answer = await query(...args)
    if (JSON.stringify(args).includes('own_resources')) {
      const isOpen = once(gate, 'open')
      gate.emit('reached')
      await isOpen
    }
    return answer
  }) as unknown as typeof pool.query
  const isReached = once(gate, 'reached')
  const loading = load()
  await isReached
  pool.query = query as unknown as typeof pool.query
  return async () => {
    gate.emit('open')
    await loading
  }
}
