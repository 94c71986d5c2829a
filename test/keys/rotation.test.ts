import { setTimeout as sleep } from 'node:timers/promises'
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import t from 'tap'
import { StartupError } from '../../src/errors.ts'
import { SYSTEM } from '../../src/principal.ts'
import { createServices } from '../../src/services.ts'
import { setUp } from '../../src/setup.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL, testConfig } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { eventually, runPostern, type Service, signIn, startService } from '../helpers/processes.ts'

type Key = { kid: string; state: string; activates_at: string | null; retired_at: string | null }

const PUBLIC_URL = 'http://postern.test'
/** How long the verifier of the last test keeps the key set. */
const KEPT_MS = 1000
const NEW_SECRET_KEY = 'another secret key that only the tests have'

const keysOf = async ({ root }: TestApp) => (await root.get('/api/v1/keys')).json<Key[]>()
const statesOf = async (postern: TestApp) => (await keysOf(postern)).map(({ state }) => state)
const rotate = async ({ root }: TestApp, query = '') => await root.post(`/api/v1/keys/rotate${query}`)
const published = async ({ anonymous }: TestApp) =>
  (await anonymous.get('/.well-known/jwks.json'))
    .json<{ keys: { kid: string }[] }>()
    .keys.map(({ kid }) => kid)
const kidOf = (token: string) => decodeProtectedHeader(token).kid
const isAccepted = async ({ as }: TestApp, token: string) =>
  (await as(token).get('/api/v1/users/me')).statusCode === 200

const signInFor = async ({ anonymous }: TestApp) =>
  (await anonymous.post('/api/v1/auth/login', { email: SUPER_ADMIN_EMAIL, password: PASSWORD })).json<{
    refresh_token: string
  }>().refresh_token
const refresh = async ({ anonymous }: TestApp, refresh_token: string) =>
  await anonymous.post('/api/v1/auth/refresh', { refresh_token })

/** Moves the times of the keys into the past, as if so long had gone by. */
async function letPass(url: string, time: string): Promise<void> {
  await onServer(url, (client) =>
    client.query(
      `update signing_keys set activates_at = activates_at - $1::interval,
        activated_at = activated_at - $1::interval, retired_at = retired_at - $1::interval`,
      [time],
    ),
  )
}

t.test('a key is published before it signs, and for as long as its tokens live', async (t) => {
  const postern = await buildTestApp(t)
  const { services, databaseUrl, rootToken } = postern
  const old = kidOf(rootToken)

  const answer = await rotate(postern)
  const next = answer.json<Key>()
  t.equal(answer.statusCode, 200)
  t.equal(next.state, 'next')
  const leadMs = Date.parse(next.activates_at ?? '') - Date.now()
  t.ok(leadMs > 300_000 && leadMs < 400_000, 'longer than a verifier may keep the key set')
  t.same((await rotate(postern)).json(), next, 'asking again changes nothing')
  t.same(await published(postern), [old, next.kid])

  await services.keys.advance()
  t.equal(kidOf(await postern.signIn(SUPER_ADMIN_EMAIL)), old, 'it does not sign yet')

  await letPass(databaseUrl, '7 minutes')
  await Promise.all([1, 2, 3, 4].map(async () => await services.keys.advance()))
  t.same(await statesOf(postern), ['retired', 'current'])
  const token = await postern.signIn(SUPER_ADMIN_EMAIL)
  t.equal(kidOf(token), next.kid)
  t.ok((await isAccepted(postern, token)) && (await isAccepted(postern, rootToken)), 'both are accepted')

  await letPass(databaseUrl, '15 minutes')
  await services.keys.advance()
  t.same(await published(postern), [old, next.kid], 'a clock may be late')
  await letPass(databaseUrl, '5 minutes')
  await services.keys.advance()
  t.same(await published(postern), [next.kid])
  t.notOk(await isAccepted(postern, rootToken))
  t.same(
    (await postern.as(token).get('/api/v1/audit-events?limit=50'))
      .json<{ action: string; target_id: string }[]>()
      .filter(({ action }) => action.startsWith('signing_key.'))
      .map(({ action, target_id: id }) => [action, id])
      .slice(0, 3)
      .sort(),
    [
      ['signing_key.activated', next.kid],
      ['signing_key.created', next.kid],
      ['signing_key.removed', old],
    ],
  )
})

t.test('a key is replaced after KEY_ROTATION_DAYS, or never', async (t) => {
  const postern = await buildTestApp(t, { env: { KEY_ROTATION_DAYS: '30', TOKEN_ALGORITHM: 'EdDSA' } })
  await letPass(postern.databaseUrl, '29 days')
  await postern.services.keys.advance()
  t.same(await statesOf(postern), ['current'])
  await letPass(postern.databaseUrl, '1 day')
  await postern.services.keys.advance()
  await postern.services.keys.advance()
  t.same(await statesOf(postern), ['current', 'next'])
  await letPass(postern.databaseUrl, '7 minutes')
  await postern.services.keys.advance()
  t.equal(decodeProtectedHeader(await postern.signIn(SUPER_ADMIN_EMAIL)).alg, 'EdDSA')

  const still = await buildTestApp(t, { env: { KEY_ROTATION_DAYS: '0' } })
  await letPass(still.databaseUrl, '10 years')
  await still.services.keys.advance()
  t.same(await statesOf(still), ['current'])
})

t.test('many rotations at once make one key', async (t) => {
  const postern = await buildTestApp(t)
  const other = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  const answers = await Promise.all(
    Array.from({ length: 8 }, async (_, n) => await rotate(n % 2 ? postern : other)),
  )
  t.equal(new Set(answers.map((answer) => answer.json<Key>().kid)).size, 1)
  await letPass(postern.databaseUrl, '7 minutes')
  await Promise.all(
    [postern, other, postern, other].map(async ({ services }) => await services.keys.advance()),
  )
  t.same(await statesOf(postern), ['retired', 'current'])
  t.same(await keysOf(other), await keysOf(postern))
})

t.test('a step that is cut off half way has not happened', async (t) => {
  const postern = await buildTestApp(t)
  const { databaseUrl, services } = postern
  await rotate(postern)
  await letPass(databaseUrl, '7 minutes')
  const before = await keysOf(postern)
  await onServer(databaseUrl, (client) =>
    client.query(`create function cut() returns trigger language plpgsql as $$ begin
        if new.action = 'signing_key.activated' then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$;
      create trigger cut before insert on audit_events for each row execute function cut()`),
  )
  await t.rejects(services.keys.advance())
  t.same(await keysOf(postern), before)
  t.equal(kidOf(await postern.signIn(SUPER_ADMIN_EMAIL)), before[0]?.kid)
  await onServer(databaseUrl, (client) => client.query('drop trigger cut on audit_events'))
  await services.keys.advance()
  t.same(await statesOf(postern), ['retired', 'current'])
})

t.test('--force withdraws every key, and tokens that were accepted before are refused', async (t) => {
  const postern = await buildTestApp(t)
  const other = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  await rotate(postern)
  t.ok(await isAccepted(other, postern.rootToken), 'its signature is remembered')

  const answer = await rotate(postern, '?force=true')
  t.equal(answer.json<Key>().state, 'current')
  t.same(await published(postern), [answer.json<Key>().kid])
  t.notOk(await isAccepted(postern, postern.rootToken))
  await eventually(async () => !(await isAccepted(other, postern.rootToken)))
  const token = await postern.signIn(SUPER_ADMIN_EMAIL)
  t.ok((await isAccepted(postern, token)) && (await isAccepted(other, token)))
})

t.test('the key set can be kept and asked for again by anybody', async (t) => {
  const postern = await buildTestApp(t)
  const answer = await postern.anonymous.get('/.well-known/jwks.json', { origin: 'https://elsewhere.test' })
  t.match(answer.headers, {
    'content-type': 'application/jwk-set+json',
    'cache-control': 'public, max-age=300',
    'access-control-allow-origin': '*',
  })
  t.notMatch(answer.body, /"(d|p|q|dp|dq|qi|k)":/)
  const { etag } = answer.headers
  const same = await postern.anonymous.get('/.well-known/jwks.json', { 'if-none-match': `"x", ${etag}` })
  t.same([same.statusCode, same.body], [304, ''])
  await rotate(postern)
  const changed = await postern.anonymous.get('/.well-known/jwks.json', { 'if-none-match': String(etag) })
  t.equal(changed.statusCode, 200)
})

t.test('SECRET_KEY can be changed', async (t) => {
  const postern = await buildTestApp(t)
  const { url } = { url: postern.databaseUrl }
  await postern.root.get('/v2/api-key/default/default')
  const own = (await postern.root.get('/v2/api-key/default/default')).json<{ secret: string }>().secret
  t.ok(own)
  await rotate(postern)
  const begun = await signInFor(postern)
  const followed = (await refresh(postern, begun)).json<{ refresh_token: string }>().refresh_token

  const start = async (secretKey: string, previous?: string) => {
    const services = createServices(testConfig(previous ? { SECRET_KEY_PREVIOUS: previous } : {}), {
      databaseUrl: url,
      secretKey,
    })
    try {
      await setUp(services, url)
      return (await services.keys.currentKey()).kid
    } finally {
      await services.close()
    }
  }
  await t.rejects(start(NEW_SECRET_KEY), StartupError, 'not without the one before')
  await t.rejects(start(NEW_SECRET_KEY, 'a secret key that nobody has ever had'), StartupError)
  const [first, second] = await Promise.all([
    start(NEW_SECRET_KEY, SECRET_KEY),
    start(NEW_SECRET_KEY, SECRET_KEY),
  ])
  t.same([first, second], [kidOf(postern.rootToken), kidOf(postern.rootToken)])

  const config = testConfig({ SECRET_KEY_PREVIOUS: SECRET_KEY, REFRESH_REUSE_INTERVAL_SECONDS: '300' })
  const changed = createServices(config, { databaseUrl: url, secretKey: NEW_SECRET_KEY })
  t.teardown(async () => await changed.close())
  const going = { clientId: 'first-party', requestId: 'test', address: '127.0.0.1' }
  const again = await changed.sessions.refresh({ ...going, token: begun })
  t.equal(again.refreshToken, followed, 'an answer that was lost in the change ends nothing')
  t.ok((await changed.sessions.refresh({ ...going, token: followed })).refreshToken)

  // A process that still runs with the one before, and makes another key.
  await postern.root.post('/api/v1/environments', { key: 'late', name: 'Late' })
  const late = (await postern.root.get('/v2/api-key/default/late')).json<{ secret: string }>().secret
  t.ok(late)
  await start(NEW_SECRET_KEY, SECRET_KEY)
  t.equal(await start(NEW_SECRET_KEY), kidOf(postern.rootToken), 'the one before is no longer needed')
  await t.rejects(start(SECRET_KEY), StartupError)

  const after = createServices(testConfig(), { databaseUrl: url, secretKey: NEW_SECRET_KEY })
  t.teardown(async () => await after.close())
  const issued = await after.apiKeys.getEnvironmentsOwnKey(SYSTEM, 'default/default')
  t.equal(issued.key, own, 'what is shown again was sealed anew as well')
  t.equal((await after.apiKeys.getEnvironmentsOwnKey(SYSTEM, 'default/late')).key, late)
})

t.test('nobody who verifies sees a rotation, and a process that is killed does not stop it', async (t) => {
  const { url: databaseUrl } = await freshDatabase(t)
  const env = { DATABASE_URL: databaseUrl, SECRET_KEY, PUBLIC_URL }
  const [first, second] = await Promise.all([startService(t, env), startService(t, env)])
  const jwksUrl = new URL(`${second.url}/.well-known/jwks.json`)
  const keySet = createRemoteJWKSet(jwksUrl, { cacheMaxAge: KEPT_MS, cooldownDuration: KEPT_MS })
  const tokens: string[] = []
  const failures: unknown[] = []
  let isOver = false

  async function issueAndVerify(service: Service): Promise<void> {
    const answer = await signIn(service, SUPER_ADMIN_EMAIL, PASSWORD)
    const { access_token: token } = (await answer.json()) as { access_token: string }
    tokens.push(token)
    for (const one of tokens.slice(-20)) {
      await jwtVerify(one, keySet, { issuer: PUBLIC_URL, audience: PUBLIC_URL, typ: 'at+jwt' })
      const { status } = await fetch(`${second.url}/api/v1/users/me`, {
        headers: { authorization: `Bearer ${one}` },
      })
      if (status !== 200) throw new Error(`${status} from ${second.url}`)
    }
  }
  const verifier = (async () => {
    while (!isOver) await issueAndVerify(second).catch((error: unknown) => failures.push(error))
  })()

  const made = await runPostern(t, ['keys', 'rotate', '--json'], { env })
  const next = JSON.parse(made.stdout) as Key
  const listed = await runPostern(t, ['keys', 'list'], { env })
  t.match(listed.stdout, new RegExp(`${next.kid} +ES256 +next +from 20`))
  first.child.kill('SIGKILL')
  await first.ended
  const before = tokens.length
  await eventually(async () => tokens.length > before + 3)
  // What six minutes give everybody time for: the set has the key, and the verifier has asked for the set since.
  await eventually(async () => {
    const set = (await (await fetch(jwksUrl)).json()) as { keys: { kid: string }[] }
    return set.keys.some(({ kid }) => kid === next.kid)
  })
  await sleep(2 * KEPT_MS)
  await letPass(databaseUrl, '359 seconds')
  await eventually(async () => kidOf(tokens.at(-1) ?? '') === next.kid)
  const since = tokens.length
  await eventually(async () => tokens.length > since + 5)
  isOver = true
  await verifier
  t.same(failures, [])
  t.equal(new Set(tokens.map(kidOf)).size, 2)
})
