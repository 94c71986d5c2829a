import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Config, EnvSchema, expectation, loadConfig, publicUrl } from '../src/config.ts'
import { StartupError } from '../src/errors.ts'
import { readKongRoutes } from '../src/pdp/kong.ts'

type Rule = { type?: string; minimum?: number; maximum?: number; default?: unknown; secret?: boolean }

const RULES = Object.entries(EnvSchema.properties) as [name: string, rule: Rule][]
const SECRET = 'a-secret-value-that-nobody-may-see-0123456789'

/** The sentence with which a configuration is refused; empty when it is not. */
function refusalOf(env: NodeJS.ProcessEnv): string {
  try {
    loadConfig(env)
    return ''
  } catch (error) {
    if (!(error instanceof StartupError)) throw error
    return error.message
  }
}

function fileWith(t: Test, content: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-config-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'secret')
  writeFileSync(path, content)
  return path
}

t.test('nothing has to be set', async (t) => {
  const config = loadConfig({})

  t.same(config.http.corsOrigins, [])
  t.match(config, {
    environment: 'dev',
    logLevel: 'info',
    http: {
      host: '127.0.0.1',
      port: 8000,
      publicUrl: undefined,
      trustProxy: false,
      bodyLimitBytes: 1_048_576,
    },
    database: { url: undefined, poolMax: 10, statementTimeoutMs: 10_000, prepare: true },
    tokens: { ttlSeconds: 900, audience: undefined, algorithm: 'ES256' },
    passwords: { minLength: 15, memoryKib: 19_456, timeCost: 2, parallelism: 1 },
    throttle: { maxFailures: 5, maxFailuresPerEmail: 20, backoffSeconds: 30 },
    registration: { isOpen: true, perAddressAndHour: 20 },
    firstSuperAdmin: { email: 'admin@example.com', password: undefined, accountName: 'Default' },
  })
  t.match(config.dataDir, /\/\.postern$/)
  const { concurrency, queue } = config.passwords
  t.ok(concurrency >= 1)
  t.equal(queue, undefined, 'as long as hashes are quick enough')
})

t.test('an empty variable is one that is not set', async (t) => {
  const empty = Object.fromEntries(RULES.map(([name]) => [name, '']))

  t.same(loadConfig(empty), loadConfig({}))
})

t.test('variables of other programs are no matter', async (t) => {
  t.same(loadConfig({ PATH: '/bin', PORT_: '1', NODE_ENV: 'production' }), loadConfig({}))
})

for (const [name, { type, minimum = 0, maximum = 0 }] of RULES.filter(([, { type }]) => type === 'integer')) {
  t.test(`${name} is a whole number from ${minimum} to ${maximum}`, async (t) => {
    t.equal(type, 'integer')
    for (const good of [minimum, maximum])
      t.equal(refusalOf({ [name]: String(good), UV_THREADPOOL_SIZE: '128' }), '', `${good}`)
    for (const bad of [minimum - 1, maximum + 1, `${minimum}.5`, 'many', `${minimum}x`, 'NaN', 'Infinity']) {
      const sentence = refusalOf({ [name]: String(bad) })
      t.match(sentence, `${name} must be a whole number from ${minimum} to ${maximum}`, `${bad}`)
      t.match(sentence, `"${bad}"`)
    }
  })
}

/** What PDP_KONG_INTEGRATION needs. */
const KONG = { PDP_PORT: '7766', PDP_KONG_ROUTES: 'routes.json' }

for (const [name] of RULES.filter(([, { type }]) => type === 'boolean')) {
  t.test(`${name} is true or false`, async (t) => {
    t.equal(refusalOf({ ...KONG, [name]: 'true' }), '')
    t.equal(refusalOf({ [name]: 'false' }), '')
    for (const bad of ['yes', 'on', 'TRUE!', 'falsch']) {
      t.match(refusalOf({ [name]: bad }), `${name} must be true or false`, bad)
    }
  })
}

t.test('every variable has a description, and every default is within its bounds', async (t) => {
  for (const [name, rule] of RULES) {
    t.ok((rule as { description?: string }).description, name)
    if (rule.default !== undefined && rule.default !== '') {
      t.equal(refusalOf({ [name]: String(rule.default) }), '', name)
    }
    t.ok(expectation(rule as Parameters<typeof expectation>[0]).length > 0, name)
  }
})

t.test('texts have their rules', async (t) => {
  const bad: [name: string, value: string][] = [
    ['PUBLIC_URL', 'example.com'],
    ['PUBLIC_URL', 'https://example.com/'],
    ['PUBLIC_URL', 'https://example.com?x=1'],
    ['PUBLIC_URL', 'https://example.com/#x'],
    ['PUBLIC_URL', 'ftp://example.com'],
    ['ENVIRONMENT', 'production'],
    ['LOG_LEVEL', 'verbose'],
    ['TOKEN_ALGORITHM', 'none'],
    ['TOKEN_ALGORITHM', 'HS256'],
    ['CORS_ORIGINS', '*'],
    ['CORS_ORIGINS', 'https://a.example/path'],
    ['CORS_ORIGINS', 'a.example'],
    ['SERVICE_AUDIENCES', 'posts'],
    ['SERVICE_AUDIENCES', 'https://a.example, https://b.example/#x'],
    ['SERVICE_AUDIENCES', `https://a.example/${'x'.repeat(200)}`],
    ['TRUST_PROXY', 'true'],
    ['TRUST_PROXY', '10.0.0.0/33'],
    ['TRUST_PROXY', 'everybody'],
    ['FIRST_SUPER_ADMIN_EMAIL', 'admin'],
    ['DATABASE_URL', 'mysql://x'],
    ['SECRET_KEY', 'short'],
    ['METRICS_TOKEN', 'short'],
  ]
  const good: [name: string, value: string][] = [
    ['PUBLIC_URL', 'https://auth.example.com'],
    ['PUBLIC_URL', 'https://example.com:8443/auth'],
    ['CORS_ORIGINS', 'https://a.example, http://localhost:5173'],
    ['SERVICE_AUDIENCES', 'https://a.example, urn:example:b'],
    ['TRUST_PROXY', 'loopback, 10.0.0.0/8, 2001:db8::/32'],
    ['DATABASE_URL', 'postgresql://u:p@h/d'],
    ['TOKEN_ALGORITHM', 'EdDSA'],
  ]

  for (const [name, value] of bad) t.match(refusalOf({ [name]: value }), `${name} must`, `${name}=${value}`)
  for (const [name, value] of good) t.equal(refusalOf({ [name]: value }), '', `${name}=${value}`)
})

t.test('all faults are told at once', async (t) => {
  const sentence = refusalOf({
    PORT: '99999',
    LOG_LEVEL: 'loud',
    SECRET_KEY: 'short',
    DB_HOST: 'db',
    METRICS_TOKEN_FILE: '/nowhere/at/all',
    ARGON2_TIME_COST: '0',
  })

  t.match(sentence, /^The configuration has faults:\n/)
  for (const name of [
    'PORT',
    'LOG_LEVEL',
    'SECRET_KEY',
    'DB_USER',
    'METRICS_TOKEN_FILE',
    'ARGON2_TIME_COST',
  ]) {
    t.match(sentence, name)
  }
})

t.test('a secret is never printed', async (t) => {
  const secrets = RULES.filter(([, { secret }]) => secret).map(([name]) => name)
  const file = fileWith(t, `${SECRET} with-a-fault`)
  const printed = [
    refusalOf({ SECRET_KEY: 'hush-hush', METRICS_TOKEN: 'hush', DATABASE_URL: `mysql://u:${SECRET}@h/d` }),
    refusalOf({ DATABASE_URL_FILE: file, DATABASE_DIRECT_URL: SECRET }),
    refusalOf({ SECRET_KEY: SECRET, SECRET_KEY_FILE: file, PORT: 'x' }),
    refusalOf({ DB_PASSWORD: SECRET }),
  ]

  t.same(secrets.sort(), [
    'AUDIT_HMAC_KEY',
    'AUDIT_HMAC_KEY_PREVIOUS',
    'DATABASE_DIRECT_URL',
    'DATABASE_URL',
    'DB_PASSWORD',
    'FIRST_SUPER_ADMIN_PASSWORD',
    'METRICS_TOKEN',
    'PASSWORD_PEPPER',
    'PASSWORD_PEPPER_PREVIOUS',
    'PERMIT_API_KEY',
    'SECRET_KEY',
    'SECRET_KEY_PREVIOUS',
    'SMTP_URL',
  ])
  for (const sentence of printed) {
    t.not(sentence, '')
    t.notMatch(sentence, /hush|a-secret-value/)
  }
})

t.test('a secret may come from a file, without the line break at its end', async (t) => {
  const file = fileWith(t, `${SECRET}\n`)

  t.equal(loadConfig({ SECRET_KEY_FILE: file }).secretKey, SECRET)
  t.equal(loadConfig({ FIRST_SUPER_ADMIN_PASSWORD_FILE: file }).firstSuperAdmin.password, SECRET)
  t.equal(loadConfig({ METRICS_TOKEN_FILE: file }).http.metricsToken, SECRET)
})

t.test('what comes from a file has the same rules', async (t) => {
  const file = fileWith(t, 'short')

  const sentence = refusalOf({ SECRET_KEY_FILE: file })

  t.match(sentence, /SECRET_KEY must have 32 to 1024 characters/)
  t.notMatch(sentence, /short/)
})

t.test('a secret and its file at once are refused', async (t) => {
  const file = fileWith(t, SECRET)

  t.match(
    refusalOf({ SECRET_KEY: SECRET, SECRET_KEY_FILE: file }),
    /SECRET_KEY and SECRET_KEY_FILE are both set; keep one/,
  )
})

t.test('a file that cannot be read is refused by its name', async (t) => {
  t.match(refusalOf({ SECRET_KEY_FILE: '/nowhere/secret' }), /SECRET_KEY_FILE .*\/nowhere\/secret/)
  t.match(refusalOf({ SECRET_KEY_FILE: tmpdir() }), /SECRET_KEY_FILE/)
})

t.test('only secrets are read from files', async (t) => {
  const file = fileWith(t, '9999')

  t.equal(loadConfig({ PORT_FILE: file }).http.port, 8000)
})

t.test('a database may be named by its parts, which are escaped', async (t) => {
  const parts = { DB_HOST: 'db.internal:5433', DB_USER: 'us/er', DB_PASSWORD: 'p@ss:w?rd#', DB_NAME: 'auth' }

  const { url = '' } = loadConfig(parts).database

  const parsed = new URL(url)
  t.equal(parsed.host, 'db.internal:5433')
  t.equal(decodeURIComponent(parsed.username), 'us/er')
  t.equal(decodeURIComponent(parsed.password), 'p@ss:w?rd#')
  t.equal(parsed.pathname, '/auth')
  t.equal(loadConfig({ ...parts, DATABASE_URL: 'postgres://other/x' }).database.url, 'postgres://other/x')
})

t.test('a database that is named by some of its parts only is refused with those that lack', async (t) => {
  const sentence = refusalOf({ DB_HOST: 'db', DB_NAME: 'auth' })

  t.match(sentence, /DB_USER, DB_PASSWORD must be set too/)
  t.equal(refusalOf({ DB_HOST: 'db', DATABASE_URL: 'postgres://u@h/d' }), '')
})

t.test('the configuration is frozen, to its depths', async (t) => {
  const config = loadConfig({ CORS_ORIGINS: 'https://a.example' })
  const isFrozen = (value: unknown): boolean =>
    typeof value !== 'object' ||
    value === null ||
    (Object.isFrozen(value) && Object.values(value).every(isFrozen))

  t.ok(isFrozen(config))
  t.throws(() => Object.assign(config.http, { port: 1 }), TypeError)
})

t.test('the address printed is PUBLIC_URL, else that of HOST and the port listened on', async (t) => {
  const http = (env: NodeJS.ProcessEnv): Config['http'] => loadConfig(env).http

  t.equal(publicUrl(http({})), 'http://127.0.0.1:8000')
  t.equal(publicUrl(http({ PORT: '4321' })), 'http://127.0.0.1:4321')
  t.equal(publicUrl(http({ HOST: '::1' })), 'http://[::1]:8000')
  t.equal(publicUrl(http({ PUBLIC_URL: 'https://auth.example.com' })), 'https://auth.example.com')
})

t.test('hashes run when a core is idle: in production, where there is another one', async (t) => {
  const priorityWith = (env: NodeJS.ProcessEnv) => loadConfig(env).passwords.priority
  t.equal(priorityWith({}), 'low')
  t.equal(priorityWith({ ENVIRONMENT: 'prod' }), availableParallelism() > 1 ? 'idle' : 'low')
  t.equal(priorityWith({ ENVIRONMENT: 'prod', HASH_PRIORITY: 'low' }), 'low')
  t.equal(priorityWith({ HASH_PRIORITY: 'idle' }), 'idle')
})

t.test('HASH_CONCURRENCY of 0 leaves a core for everything else', async (t) => {
  const { concurrency } = loadConfig({ HASH_CONCURRENCY: '0' }).passwords
  t.ok(concurrency >= 1)
  t.ok(concurrency === 1 || concurrency < availableParallelism())
  t.equal(loadConfig({ HASH_CONCURRENCY: '3' }).passwords.concurrency, 3)
})

t.test('no more hashes are made at a time than there are threads for them', async (t) => {
  const threads = { UV_THREADPOOL_SIZE: '16' }
  t.match(
    refusalOf({ HASH_CONCURRENCY: '5' }),
    'HASH_CONCURRENCY must be at most UV_THREADPOOL_SIZE, which is 4;',
  )
  t.match(refusalOf({ HASH_CONCURRENCY: '17', ...threads }), 'which is 16;')
  t.equal(loadConfig({ HASH_CONCURRENCY: '16', ...threads }).passwords.concurrency, 16)
})

t.test('Kong is answered only with a port and routes of its own', async (t) => {
  t.equal(loadConfig({ PDP_KONG_INTEGRATION: 'true', ...KONG }).pdp.kongRoutes, 'routes.json')
  t.equal(loadConfig(KONG).pdp.kongRoutes, undefined)
  for (const missing of ['PDP_PORT', 'PDP_KONG_ROUTES'])
    t.match(
      refusalOf({ PDP_KONG_INTEGRATION: 'true', ...KONG, [missing]: undefined }),
      `${missing} must be set too with PDP_KONG_INTEGRATION=true`,
    )

  t.equal(readKongRoutes(fileWith(t, '[["^/(a|b)/", 0], ["/x", "document"]]'))('/b/1'), 'b')
  for (const table of [
    '{',
    '{}',
    '[[]]',
    '[["("]]',
    '[["(", "document"]]',
    '[["/x", 0]]',
    '[["/(x)", 1]]',
    '[["/x", ""]]',
  ])
    t.throws(() => readKongRoutes(fileWith(t, table)), StartupError, table)
  t.throws(() => readKongRoutes('/nowhere/routes.json'), StartupError)
})
