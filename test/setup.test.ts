import t, { type Test } from 'tap'
import { readDemo } from '../src/cli/demo.ts'
import { StartupError } from '../src/errors.ts'
import { createServices } from '../src/services.ts'
import { type SetupResult, setUp } from '../src/setup.ts'
import { buildTestApp } from './helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL, testConfig } from './helpers/config.ts'
import { emptyDatabase, freshDatabase, onServer } from './helpers/database.ts'

/** One start of a process over the database. */
async function start(
  url: string,
  env: NodeJS.ProcessEnv = {},
  secretKey: string = SECRET_KEY,
): Promise<SetupResult> {
  const services = createServices(testConfig(env), { databaseUrl: url, secretKey })
  try {
    return await setUp(services, url)
  } finally {
    await services.close()
  }
}

/** What the built-in roles may do, resource by resource. Written out here, so that no change of it goes unseen. */
const BUILTIN: Record<string, Record<string, string[]>> = {
  GUEST: {},
  ACCOUNT_MANAGER: {},
  ACCOUNT_ADMIN: {
    users: ['read', 'write'],
    accounts: ['read', 'write'],
    roles: ['read', 'assign'],
    sessions: ['read', 'revoke'],
    webhooks: ['read', 'write'],
    audit: ['read'],
    policy: ['check'],
  },
  ADMIN: {
    users: ['read', 'write', 'delete'],
    accounts: ['read', 'write', 'delete'],
    roles: ['read', 'assign'],
    sessions: ['read', 'revoke'],
    webhooks: ['read', 'write'],
    audit: ['read'],
    policy: ['read', 'check'],
  },
  SUPER_ADMIN: {
    users: ['read', 'write', 'delete'],
    accounts: ['read', 'write', 'delete'],
    roles: ['read', 'write', 'assign'],
    policy: ['read', 'write', 'check'],
    environments: ['read', 'write'],
    clients: ['read', 'write'],
    'api-keys': ['read', 'write'],
    keys: ['read', 'rotate'],
    sessions: ['read', 'revoke'],
    webhooks: ['read', 'write'],
    audit: ['read'],
  },
}

/** What a start makes, as counts. */
async function census(url: string) {
  const { rows } = await onServer(url, (client) =>
    client.query(`select
      (select count(*)::int from accounts) as accounts,
      (select count(*)::int from users) as users,
      (select count(*)::int from user_credentials) as credentials,
      (select count(*)::int from role_assignments) as assignments,
      (select count(*)::int from roles) as roles,
      (select count(*)::int from resources) as resources,
      (select count(*)::int from actions) as actions,
      (select count(*)::int from signing_keys) as keys,
      (select count(*)::int from settings where name = 'secret_key_canary') as canaries,
      (select count(*)::int from audit_events where action = 'service.initialized') as initialized`),
  )
  return rows[0]
}

const FIRST = {
  accounts: 1,
  users: 1,
  credentials: 1,
  assignments: 1,
  roles: 5,
  resources: 11,
  actions: 25,
  keys: 1,
  canaries: 1,
  initialized: 1,
}

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

async function assertOneSentence(t: Test, work: Promise<unknown>, sentence: RegExp): Promise<void> {
  const error = await errorOf(work)
  t.ok(error instanceof StartupError, String(error))
  t.match(error, { message: sentence })
  t.notMatch(error, { message: /\n/ })
}

t.test('C.1.10: the first start makes the first account, its super admin, the roles and a key', async (t) => {
  const { url } = await emptyDatabase(t)

  const result = await start(url)

  t.same(result.firstSuperAdmin, { email: SUPER_ADMIN_EMAIL }, 'a given password is not repeated')
  t.same(await census(url), FIRST)
  const app = await buildTestApp(t, { databaseUrl: url })
  t.match((await app.root.get('/api/v1/accounts/me')).json(), { key: 'default', name: 'Head Office' })
  t.match((await app.root.get('/api/v1/users/me')).json(), { user_role: { role: { name: 'SUPER_ADMIN' } } })
})

t.test('every further start changes nothing', async (t) => {
  const { url } = await emptyDatabase(t)
  await start(url)
  const rows = async () =>
    await onServer(url, async (client) => {
      const tables = ['accounts', 'users', 'user_credentials', 'roles', 'signing_keys', 'settings']
      return await Promise.all(
        tables.map(async (table) => (await client.query(`select * from ${table} order by 1`)).rows),
      )
    })
  const before = await rows()

  const again = await start(url, {
    FIRST_SUPER_ADMIN_PASSWORD: 'another password of good length',
    FIRST_SUPER_ADMIN_EMAIL: 'else@postern.test',
    FIRST_SUPER_ADMIN_ACCOUNT_NAME: 'Elsewhere',
    TOKEN_ALGORITHM: 'RS256',
  })

  t.same(again, { migrated: [] })
  t.same(await rows(), before)
  t.same(await census(url), FIRST)
})

t.test('starts at once on an empty database all come up, with one admin and one key', async (t) => {
  const { url } = await emptyDatabase(t)

  const results = await Promise.all(Array.from({ length: 4 }, async () => start(url)))

  t.equal(results.filter(({ firstSuperAdmin }) => firstSuperAdmin).length, 1)
  t.equal(results.filter(({ migrated }) => migrated.length > 0).length, 1)
  t.same(await census(url), FIRST)
  t.ok((await buildTestApp(t, { databaseUrl: url })).rootToken)
})

t.test('C.1.10: without a password one is generated, told once, and works', async (t) => {
  const { url } = await emptyDatabase(t)
  const env = {
    FIRST_SUPER_ADMIN_PASSWORD: '',
    LOGIN_MAX_FAILURES: '90',
    LOGIN_MAX_FAILURES_PER_EMAIL: '90',
    LOGIN_MAX_FAILURES_PER_ADDRESS: '90',
  }

  const { firstSuperAdmin } = await start(url, env)
  const again = await start(url, env)

  const password = firstSuperAdmin?.password ?? ''
  t.ok(password.length >= 20)
  t.equal(again.firstSuperAdmin, undefined)
  const services = createServices(testConfig(env), { databaseUrl: url, secretKey: SECRET_KEY })
  t.teardown(async () => services.close())
  const signIn = async (email: string, password: string) =>
    await services.auth.signIn({
      email,
      password,
      requestId: 'x',
      address: '192.0.2.1',
      userAgent: undefined,
    })
  t.ok(await signIn(SUPER_ADMIN_EMAIL, password))

  await t.test('C.1.10: and on an empty database no other sign-in does', async (t) => {
    const emails = [SUPER_ADMIN_EMAIL, 'admin@example.com', 'admin', 'postern', 'ada@acme.example', '']
    const passwords = ['', 'admin', 'password', 'postern', 'changeme', readDemo().password, PASSWORD]

    for (const email of emails)
      for (const guess of passwords)
        await t.rejects(signIn(email, guess), { code: 'invalid_credentials' }, `${email} ${guess}`)
  })
})

t.test('two first starts generate two passwords', async (t) => {
  const env = { FIRST_SUPER_ADMIN_PASSWORD: '' }
  const databases = [await emptyDatabase(t), await emptyDatabase(t)]

  const results = await Promise.all(databases.map(async ({ url }) => start(url, env)))

  t.equal(new Set(results.map(({ firstSuperAdmin }) => firstSuperAdmin?.password)).size, 2)
})

t.test('too short a password for the first admin is refused, and nothing is made', async (t) => {
  const { url } = await emptyDatabase(t)

  await assertOneSentence(
    t,
    start(url, { FIRST_SUPER_ADMIN_PASSWORD: 'too short' }),
    /^FIRST_SUPER_ADMIN_PASSWORD must have at least 15 characters/,
  )

  t.match(await census(url), { accounts: 0, users: 0 })
  t.ok((await start(url)).firstSuperAdmin, 'and the next start makes it')
})

t.test('a wrong SECRET_KEY is refused with one sentence, and changes nothing', async (t) => {
  const { url } = await freshDatabase(t)
  const before = await census(url)

  await assertOneSentence(
    t,
    start(url, {}, 'another secret key, not that of the database'),
    /^SECRET_KEY does not fit this database/,
  )

  t.same(await census(url), before)
  t.ok(await start(url), 'the right one is still right')
})

t.test('a schema that asks for newer code refuses to start', async (t) => {
  const { url } = await freshDatabase(t)
  await onServer(url, (client) =>
    client.query('insert into schema_compatibility (version, min_code) values (99, 99)'),
  )

  await assertOneSentence(t, start(url), /newer code/)
})

t.test('a newer schema that this code can run on starts and serves', async (t) => {
  const { url } = await freshDatabase(t)
  await onServer(url, async (client) => {
    await client.query('alter table users add column nickname text; create table things (id int)')
    await client.query('insert into schema_compatibility (version, min_code) values (99, 1)')
  })

  t.same(await start(url), { migrated: [] })
  const app = await buildTestApp(t, { databaseUrl: url })
  t.equal((await app.root.get('/api/v1/users')).statusCode, 200)
  t.equal((await app.anonymous.get('/health/ready')).statusCode, 200)
})

t.test('built-in roles that were tampered with are put right by a start', async (t) => {
  const { url } = await freshDatabase(t)
  await onServer(url, (client) =>
    client.query(`
      insert into role_permissions (environment_id, role_id, action_id)
        select r.environment_id, r.id, a.id from roles r, actions a where r.key = 'GUEST' limit 5;
      delete from role_permissions where role_id = (select id from roles where key = 'SUPER_ADMIN')`),
  )

  await start(url)

  const app = await buildTestApp(t, { databaseUrl: url })
  const roles = (await app.root.get('/api/v1/roles')).json<{ key: string; scopes: string[] }[]>()
  for (const [key, resources] of Object.entries(BUILTIN)) {
    const permissions = Object.entries(resources).flatMap(([resource, actions]) =>
      actions.map((action) => `postern.${resource}:${action}`),
    )
    t.same(roles.find((role) => role.key === key)?.scopes, permissions.sort(), key)
  }
})

t.test('the private key is sealed, and the password is a hash', async (t) => {
  const { url } = await freshDatabase(t)

  const dump = await onServer(url, async (client) =>
    JSON.stringify([
      (await client.query('select * from signing_keys')).rows,
      (await client.query('select * from user_credentials')).rows,
      (await client.query('select * from settings')).rows,
      (await client.query('select * from audit_events')).rows,
    ]),
  )

  t.notMatch(dump, /PRIVATE KEY|MIGH/)
  t.notMatch(dump, new RegExp(PASSWORD))
  t.notMatch(dump, new RegExp(SECRET_KEY))
  t.match(dump, /\$argon2id\$/)
})
