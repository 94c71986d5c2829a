import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import AjvCompiler from '@fastify/ajv-compiler'
import Type, { type Static, type TSchema } from 'typebox'
import { isResource, LONGEST_AUDIENCE } from './audiences.ts'
import type { HashingPriority } from './auth/hashing-priority.ts'
import { StartupError } from './errors.ts'

const text = (description: string, options: Record<string, unknown> = {}) =>
  Type.String({ description, ...options })
const secret = (description: string, options: Record<string, unknown> = {}) =>
  Type.Optional(Type.String({ description, secret: true, ...options }))
const whole = (description: string, minimum: number, maximum: number, fallback: number) =>
  Type.Integer({ description, minimum, maximum, default: fallback })
const port = (description: string) => Type.Integer({ description, minimum: 1, maximum: 65_535 })
const flag = (description: string, fallback: boolean) => Type.Boolean({ description, default: fallback })
const oneOf = <const T extends string>(values: readonly T[], description: string, fallback: NoInfer<T>) =>
  Type.Unsafe<T>(
    Type.Union(
      values.map((value) => Type.Literal(value)),
      { description, default: fallback },
    ),
  )
/** A path of the application, below APP_URL. The token goes after `#`, where no server and no log sees it. */
const linkPath = (purpose: string, fallback: string) =>
  text(`The page of the application that ${purpose}, below APP_URL`, {
    default: fallback,
    maxLength: 1024,
    pattern: '^/[^\\s{}]*\\{token\\}[^\\s{}]*$',
    patternHint: 'begin with a slash and contain {token} once',
  })
const permitUrl = (description: string, fallback: string) =>
  text(description, {
    default: fallback,
    pattern: '^https?://[^/?#]+(/[^?#]*[^/?#])?$',
    patternHint: 'be an http(s) URL without query, fragment or slash at its end',
  })

/**
 * Every environment variable this service reads: the one source of defaults, bounds, README and `.env.example`.
 * Each one marked `secret` may also come from the file named by `<NAME>_FILE`.
 */
export const EnvSchema = Type.Object({
  HOST: text('Address to listen on', { default: '127.0.0.1', minLength: 1 }),
  PORT: whole('Port to listen on', 1, 65_535, 8000),
  PUBLIC_URL: Type.Optional(
    text(
      'The address by which clients reach this service: issuer of the tokens and base of every printed URL. Default: http://HOST:PORT',
      {
        pattern: '^https?://[^/?#]+(/[^?#]*[^/?#])?$',
        patternHint: 'be an http(s) URL without query, fragment or slash at its end',
      },
    ),
  ),
  ENVIRONMENT: Type.Union([Type.Literal('dev'), Type.Literal('test'), Type.Literal('prod')], {
    description:
      'dev prints readable logs, and in them mails with their links while there is no SMTP_URL: for development only. test and prod print JSON lines, and never a mail',
    default: 'dev',
  }),
  LOG_LEVEL: Type.Union(
    ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map((level) => Type.Literal(level)),
    { description: 'Least severe level that is logged', default: 'info' },
  ),
  TRUST_PROXY: text(
    'Whose X-Forwarded-For is believed: false, or a comma-separated list of proxy addresses and CIDR ranges (or loopback, linklocal, uniquelocal)',
    { default: 'false' },
  ),
  CORS_ORIGINS: text('Comma-separated origins whose browsers may call the API; empty: none', {
    default: '',
    pattern: '^$|^https?://[^/,\\s]+(\\s*,\\s*https?://[^/,\\s]+)*$',
    patternHint: 'be a comma-separated list of origins such as https://app.example.com',
  }),
  DATABASE_URL: secret('Postgres 15 or newer. Without it an embedded server runs under DATA_DIR', {
    pattern: '^postgres(ql)?://',
    patternHint: 'begin with postgres://',
  }),
  DB_HOST: Type.Optional(text('With DB_USER, DB_PASSWORD and DB_NAME: used when DATABASE_URL is not set')),
  DB_USER: Type.Optional(text('See DB_HOST')),
  DB_PASSWORD: secret('See DB_HOST'),
  DB_NAME: Type.Optional(text('See DB_HOST')),
  DATABASE_DIRECT_URL: secret(
    'The same database without a pooler in transaction mode, for advisory locks and LISTEN. Default: DATABASE_URL',
    { pattern: '^postgres(ql)?://', patternHint: 'begin with postgres://' },
  ),
  DATABASE_POOL_MAX: whole(
    'Most connections for requests; jobs and what listens to the database take up to 11 more',
    2,
    500,
    10,
  ),
  DATABASE_CONNECT_TIMEOUT_MS: whole('How long a request waits for a free connection', 100, 60_000, 5000),
  DATABASE_STATEMENT_TIMEOUT_MS: whole(
    'Postgres ends a statement after this time; 0 sends no limit (for poolers that refuse start-up parameters)',
    0,
    600_000,
    10_000,
  ),
  DB_PREPARE: flag('Use named prepared statements; off for PgBouncer before 1.21 in transaction mode', true),
  DATA_DIR: text('Folder of the embedded database and of generated secrets', {
    default: '.postern',
    minLength: 1,
  }),
  SECRET_KEY: secret(
    'Encrypts the signing keys at rest; at least 32 characters. Generated into DATA_DIR when the embedded database is used',
    { minLength: 32, maxLength: 1024 },
  ),
  SECRET_KEY_PREVIOUS: secret(
    'The SECRET_KEY before, after it was changed: the next start seals anew what was sealed under it',
    { minLength: 32, maxLength: 1024 },
  ),
  KEY_ROTATION_DAYS: whole('A signing key is replaced after so long; 0: never by itself', 0, 3650, 30),
  ACCESS_TOKEN_EXPIRE_MINUTES: whole('Lifetime of an access token', 1, 1440, 15),
  REFRESH_REUSE_INTERVAL_SECONDS: whole(
    'How long the refresh token before the last is answered with the same successor, so that a lost answer ends no session; 0: never',
    0,
    300,
    10,
  ),
  SESSION_IDLE_DAYS: whole('A session that is not refreshed for so long ends', 1, 365, 7),
  SESSION_MAX_DAYS: whole('Every session ends after so long, however much it is used', 1, 365, 30),
  WEBAUTHN_RP_ID: Type.Optional(
    text(
      'The domain that passkeys belong to: that of the pages that use them, or a parent of it. Whoever changes it makes every passkey useless. Default: the host of PUBLIC_URL',
      {
        pattern: '^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$',
        patternHint: 'be a domain such as example.com',
        maxLength: 253,
      },
    ),
  ),
  WEBAUTHN_ORIGINS: Type.Optional(
    text(
      'Comma-separated origins of the pages where passkeys are used. Default: the origin of PUBLIC_URL, and CORS_ORIGINS',
      {
        pattern: '^https?://[^/,\\s]+(\\s*,\\s*https?://[^/,\\s]+)*$',
        patternHint: 'be a comma-separated list of origins such as https://app.example.com',
      },
    ),
  ),
  WEBAUTHN_RP_NAME: text('The name of the service in the dialogs of passkeys and in authenticator apps', {
    default: 'Postern',
    minLength: 1,
    maxLength: 64,
  }),
  APP_URL: Type.Optional(
    text('The application that links in mails lead to. Default: PUBLIC_URL', {
      pattern: '^https?://[^/?#]+(/[^?#]*[^/?#])?$',
      patternHint: 'be an http(s) URL without query, fragment or slash at its end',
    }),
  ),
  SMTP_URL: secret(
    'Where mails are handed in: smtps://user:password@host or smtp://…. With a password TLS is a must. Without SMTP_URL no mail is sent, and what needs one answers 503; with ENVIRONMENT=dev they are printed to the log instead. Must be set with EMAIL_VERIFICATION=required, unless ENVIRONMENT=dev',
    {
      pattern: '^smtps?://[^/?#\\s]+/?(\\?\\S*)?$',
      patternHint: 'begin with smtp:// or smtps://, and name a host',
    },
  ),
  MAIL_FROM: text('Sender of the mails: an address, or Name <address>. Must be set with SMTP_URL', {
    default: 'no-reply@localhost',
    maxLength: 320,
    pattern: '^([^<>@"\\r\\n]+ <[^<>@\\s]+@[^<>@\\s]+>|[^<>@\\s]+@[^<>@\\s]+)$',
    patternHint: 'be an address, or Name <address>',
  }),
  MAIL_TEMPLATES_DIR: Type.Optional(
    text('Folder of templates that replace the built-in ones: <name>.subject.txt, <name>.txt, <name>.html', {
      minLength: 1,
    }),
  ),
  PASSWORD_RESET_PATH: linkPath('sets a new password', '/reset-password#token={token}'),
  EMAIL_VERIFICATION_PATH: linkPath('confirms an address', '/verify-email#token={token}'),
  EMAIL_CHANGE_PATH: linkPath('confirms a change of the address', '/change-email#token={token}'),
  MAGIC_LINK_PATH: linkPath('signs in by mail', '/sign-in#token={token}'),
  INVITATION_PATH: linkPath('accepts an invitation', '/accept-invitation#token={token}'),
  EMAIL_VERIFICATION: oneOf(
    ['off', 'optional', 'required'],
    'Whether those who register are asked to confirm their address, and whether people sign in before they have',
    'off',
  ),
  MAGIC_LINK_SIGN_IN: flag('Whether people may sign in by a link that is mailed to them', false),
  MAILS_PER_RECIPIENT: whole(
    'Links of one kind that anybody may have sent to one address within an hour; more are not sent',
    1,
    1000,
    5,
  ),
  MAIL_REQUESTS_PER_ADDRESS: whole(
    'Links of one kind that may be asked for from one network address within an hour',
    1,
    100_000,
    30,
  ),
  TOKEN_AUDIENCE: Type.Optional(
    text('The aud claim of access tokens. Default: PUBLIC_URL', { minLength: 1 }),
  ),
  SERVICE_AUDIENCES: text(
    'Comma-separated audiences of your services, absolute URIs, that people may name in `resource` for tokens that hold there and not here; empty: none',
    { default: '' },
  ),
  TOKEN_ALGORITHM: Type.Union([Type.Literal('ES256'), Type.Literal('RS256'), Type.Literal('EdDSA')], {
    description: 'Signature of access tokens; another one is used from the next key on',
    default: 'ES256',
  }),
  USERS_OPEN_REGISTRATION: flag('Whether anyone may register at POST /api/v1/users/open', true),
  INVITATION_EXPIRE_DAYS: whole('The link of an invitation to an account works for so long', 1, 90, 7),
  ACCOUNTS_OPEN_CREATION: flag(
    'Whether anyone who is signed in may open an account of their own, whose ACCOUNT_ADMIN they become',
    false,
  ),
  ACCOUNTS_PER_PERSON: whole('Accounts that one person may have opened', 1, 1000, 5),
  FIRST_SUPER_ADMIN_EMAIL: text('Email of the super admin made on the first start', {
    default: 'admin@example.com',
    format: 'email',
  }),
  FIRST_SUPER_ADMIN_PASSWORD: secret(
    'Password of the first super admin; generated and printed once when not set',
  ),
  FIRST_SUPER_ADMIN_ACCOUNT_NAME: text('Name of the first account, whose key is `default`', {
    default: 'Default',
    minLength: 1,
    maxLength: 255,
  }),
  PASSWORD_MIN_LENGTH: whole(
    'Shortest password in Unicode code points (NIST SP 800-63B-4 §3.1.1.2: 15)',
    8,
    64,
    15,
  ),
  PASSWORD_MIN_LENGTH_WITH_MFA: whole(
    'The same for people who never get in without a second factor (NIST SP 800-63B-4 §3.1.1.2: 8)',
    8,
    64,
    8,
  ),
  PASSWORD_BLOCKED_WORDS: text(
    'Comma-separated names of products and of the organization: a password that is little more than these is refused',
    { default: '', maxLength: 4096 },
  ),
  PASSWORD_PEPPER: secret(
    'Password hashes are made with this key too, so that the database alone is not enough to guess passwords; at least 32 characters. Whoever loses it loses every password',
    { minLength: 32, maxLength: 1024 },
  ),
  PASSWORD_PEPPER_PREVIOUS: secret(
    'The PASSWORD_PEPPER before, after it was changed: each password gets the new one at the next sign-in',
    { minLength: 32, maxLength: 1024 },
  ),
  PASSWORD_SET_BY_ADMIN_MUST_CHANGE: flag(
    'A password set by an administrator must be changed at first sign-in',
    false,
  ),
  ARGON2_MEMORY_KIB: whole('Memory of one password hash (OWASP minimum 19456)', 19_456, 4_194_304, 19_456),
  ARGON2_TIME_COST: whole('Passes of one password hash', 2, 20, 2),
  ARGON2_PARALLELISM: whole('Lanes of one password hash', 1, 16, 1),
  PASSWORD_IMPORT_MEMORY_KIB: whole(
    'Memory that verifying an imported argon2 or scrypt hash may take; the import refuses others. ARGON2_MEMORY_KIB counts where it is more',
    1024,
    262_144,
    65_536,
  ),
  HASH_CONCURRENCY: whole(
    'Password hashes at the same time, at most UV_THREADPOOL_SIZE (4); 0: one fewer than there are cores, so that one is left for everything else',
    0,
    128,
    0,
  ),
  HASH_PRIORITY: Type.Optional(
    Type.Union([Type.Literal('idle'), Type.Literal('low')], {
      description:
        'What the threads that hash passwords get of a core that something else wants too, on Linux: idle nothing, low about a tenth. Default: idle with ENVIRONMENT=prod and more than one core, else low',
    }),
  ),
  HASH_QUEUE: Type.Optional(
    Type.Integer({
      description:
        'Password hashes that may wait; beyond it sign-in answers 503. Default: as many as have their turn within 0.6 s, at the speed of the last hashes, and ten for each at the same time at least',
      minimum: 0,
      maximum: 10_000,
    }),
  ),
  LOGIN_MAX_FAILURES: whole('Wrong passwords for one email from one address before waits begin', 1, 100, 5),
  LOGIN_MAX_FAILURES_PER_EMAIL: whole(
    'Wrong passwords for one email from all addresses before waits begin, for devices that are not known; after 100 in a row these must do without a password',
    1,
    100,
    20,
  ),
  LOGIN_MAX_FAILURES_PER_ADDRESS: whole(
    'Wrong passwords from one address within an hour before waits begin; sign-ins under way count too',
    1,
    100_000,
    200,
  ),
  LOGIN_BACKOFF_SECONDS: whole(
    'The first wait; it doubles with each further failure, up to an hour',
    1,
    3600,
    30,
  ),
  REGISTRATIONS_PER_ADDRESS: whole('Open registrations from one address within an hour', 1, 100_000, 20),
  BODY_LIMIT_BYTES: whole('Largest request body', 1024, 104_857_600, 1_048_576),
  REQUEST_TIMEOUT_MS: whole('Longest time for a client to send its request', 1000, 600_000, 30_000),
  SHUTDOWN_TIMEOUT_MS: whole('How long SIGTERM waits for requests under way', 0, 600_000, 10_000),
  POLICY_CACHE_USERS: whole(
    'Most users, and most accounts, that this process keeps for decisions',
    10,
    10_000_000,
    50_000,
  ),
  POLICY_CACHE_INSTANCES: whole(
    'Most resource instances that this process keeps for decisions',
    10,
    10_000_000,
    100_000,
  ),
  POLICY_MAX_STALENESS: whole(
    'Seconds for which decisions are made from what is cached while the database does not answer; then 503',
    0,
    3600,
    5,
  ),
  DECISION_LOG: Type.Union([Type.Literal('off'), Type.Literal('log'), Type.Literal('database')], {
    description: 'Where decisions are written down: nowhere, to the log, or to the table decision_log',
    default: 'off',
  }),
  DECISION_LOG_SAMPLE: Type.Number({
    description: 'The share of decisions that is written down',
    minimum: 0,
    maximum: 1,
    default: 1,
  }),
  DECISION_LOG_RETENTION_DAYS: whole('Decisions in the table are removed after so many days', 1, 3650, 30),
  POLICY_DEBUG: flag(
    'Answers to permission checks of the PDP and of AuthZEN say why; without it only to requests that ask (`use_debugger`, `options.reason`)',
    false,
  ),
  POLICY_ENGINE: oneOf(
    ['local', 'permit'],
    'Who decides on application permissions in the default environment',
    'local',
  ),
  POLICY_GUARD: oneOf(
    ['token', 'permit'],
    'What guards the routes of this service: the scopes of the token, or these and Permit',
    'token',
  ),
  POLICY_FALLBACK: oneOf(
    ['none', 'local'],
    'Who answers while Permit does not: nobody (503), or the local engine and the scopes of the token',
    'none',
  ),
  POLICY_SHADOW: oneOf(
    ['none', 'permit', 'local'],
    'A second engine that is asked the same; differences are logged and counted, the answer is that of POLICY_ENGINE',
    'none',
  ),
  PERMIT_API_KEY: secret('API key of the Permit environment; needed as soon as Permit is used', {
    minLength: 1,
    maxLength: 1024,
  }),
  PERMIT_PDP_URL: permitUrl('Where Permit decides (PDP)', 'http://localhost:7766'),
  PERMIT_API_URL: permitUrl('Where users, accounts and roles are mirrored to', 'https://api.permit.io'),
  PERMIT_TIMEOUT_MS: whole('How long one call of Permit may take', 10, 60_000, 1000),
  PERMIT_BREAKER_FAILURES: whole(
    'After so many failed calls in a row Permit is left alone for a while',
    1,
    1000,
    5,
  ),
  PERMIT_BREAKER_OPEN_MS: whole('How long; then one call tries whether it is back', 10, 600_000, 5000),
  PDP_PORT: Type.Optional(
    port(
      'A further port for the same service, where SDKs of Permit look for their PDP (7766). Default: none',
    ),
  ),
  OPA_PORT: Type.Optional(
    port('A further port for the same service, where SDKs of Permit look for OPA (8181). Default: none'),
  ),
  PDP_KONG_INTEGRATION: flag(
    'POST /kong answers the OPA plugin of Kong, which has no key: on PDP_PORT only, to whoever reaches it',
    false,
  ),
  PDP_KONG_ROUTES: Type.Optional(
    text(
      'With PDP_KONG_INTEGRATION, a JSON file that says which resource a path is: [["^/documents", "document"]]',
      { minLength: 1 },
    ),
  ),
  AUTHZEN_SUBJECT_TYPES: text(
    'Comma-separated types of AuthZEN subjects that are users here; any other type is unknown',
    {
      default: 'user,identity',
      pattern: '^[^,\\s]+(\\s*,\\s*[^,\\s]+)*$',
      patternHint: 'be a comma-separated list of types such as user,identity',
    },
  ),
  MFA_REQUIRED_FOR: oneOf(
    ['none', 'admins', 'everyone'],
    'Who must sign in with a second factor, beside the members of accounts and the holders of roles that demand one; admins: whoever holds a permission of this service',
    'none',
  ),
  STEP_UP_MAX_AGE_SECONDS: whole(
    'How long after an authentication factors and the like may be changed; then one must authenticate again',
    30,
    86_400,
    600,
  ),
  AUDIT_RETENTION_DAYS: whole(
    'Events of the audit trail are removed after so many days; 0: never',
    0,
    36_500,
    0,
  ),
  AUDIT_HMAC_KEY: secret(
    'Signs checkpoints of the audit trail, for whoever shall verify them without SECRET_KEY. Default: a key derived from SECRET_KEY',
    { minLength: 32, maxLength: 1024 },
  ),
  AUDIT_HMAC_KEY_PREVIOUS: secret(
    'The AUDIT_HMAC_KEY before, after it was changed: the next start signs anew what is stored',
    { minLength: 32, maxLength: 1024 },
  ),
  USER_DELETION_GRACE_DAYS: whole(
    'A deleted user can be restored for so long; then everything personal is erased',
    0,
    3650,
    30,
  ),
  USERS_SELF_DELETION: flag('Whether people may delete themselves at DELETE /api/v1/users/me', true),
  WEBHOOKS_ALLOWED_NETWORKS: text(
    'Comma-separated addresses and CIDR ranges of private networks that webhooks may lead to, also without TLS; empty: none',
    { default: '' },
  ),
  METRICS_TOKEN: secret('When set, GET /metrics asks for it as a Bearer token', { minLength: 16 }),
})

type Env = Static<typeof EnvSchema>

/** The settings of one process, frozen. Units are in the names. */
export type Config = ReturnType<typeof toConfig>

/**
 * Reads, checks and freezes the configuration.
 * @throws StartupError that lists every variable at fault, each with the rule it breaks and without secret values
 */
export function loadConfig(variables: NodeJS.ProcessEnv = process.env): Config {
  const { env, faults } = readEnv(variables)
  if (faults.length > 0) {
    throw new StartupError(
      `The configuration has ${faults.length === 1 ? 'a fault' : 'faults'}:\n  ${faults.join('\n  ')}`,
    )
  }
  return toConfig(env as Env, threadPoolSize(variables))
}

const validate = AjvCompiler()(
  {},
  { customOptions: { coerceTypes: true, useDefaults: true, allErrors: true, strict: false } },
)({ schema: EnvSchema } as never)

/** The variables as the schema has them, numbers and booleans read from their text, and a sentence for each fault. */
function readEnv(variables: NodeJS.ProcessEnv): { env: Record<string, unknown>; faults: string[] } {
  const env: Record<string, unknown> = {}
  const faults: string[] = []
  for (const [name, schema] of Object.entries<TSchema>(EnvSchema.properties)) {
    const given = readVariable(name, schema, variables, faults)
    if (given !== undefined) env[name] = given
  }
  validate(env)
  const atFault = new Set((validate.errors ?? []).map(({ instancePath }) => instancePath.slice(1)))
  for (const [name, schema] of Object.entries<TSchema>(EnvSchema.properties)) {
    if (!atFault.has(name)) continue
    const given = isSecret(schema) ? '' : `, not ${JSON.stringify(variables[name])}`
    faults.push(`${name} must ${expectation(schema)}${given}`)
  }
  faults.push(...crossFaults(env, faults), ...hashingFaults(env, variables))
  return { env, faults }
}

function readVariable(
  name: string,
  schema: TSchema,
  variables: NodeJS.ProcessEnv,
  faults: string[],
): string | undefined {
  const direct = variables[name]
  const file = isSecret(schema) ? variables[`${name}_FILE`] : undefined
  if (!file) return direct === '' && name !== 'CORS_ORIGINS' ? undefined : direct
  if (direct) {
    faults.push(`${name} and ${name}_FILE are both set; keep one`)
    return undefined
  }
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    faults.push(`${name}_FILE names a file that cannot be read: ${file}`)
    return undefined
  }
}

/** Faults that no single variable's schema can tell. */
function crossFaults(env: Record<string, unknown>, faults: readonly string[]): string[] {
  return [
    ...databaseFaults(env, faults),
    ...proxyFaults(String(env['TRUST_PROXY'] ?? 'false')),
    ...networkFaults(String(env['WEBHOOKS_ALLOWED_NETWORKS'] ?? '')),
    ...audienceFaults(String(env['SERVICE_AUDIENCES'] ?? '')),
    ...engineFaults(env, faults),
    ...kongFaults(env, faults),
    ...mailFaults(env),
  ]
}

function mailFaults(env: Record<string, unknown>): string[] {
  const isConfigured = env['SMTP_URL'] !== undefined
  return [
    ...(isConfigured && env['MAIL_FROM'] === 'no-reply@localhost'
      ? ['MAIL_FROM must be set too with SMTP_URL']
      : []),
    ...(env['EMAIL_VERIFICATION'] === 'required' && !isConfigured && env['ENVIRONMENT'] !== 'dev'
      ? ['SMTP_URL must be set too with EMAIL_VERIFICATION=required']
      : []),
  ]
}

function kongFaults(env: Record<string, unknown>, faults: readonly string[]): string[] {
  if (String(env['PDP_KONG_INTEGRATION']) !== 'true') return []
  return ['PDP_PORT', 'PDP_KONG_ROUTES']
    .filter((name) => env[name] === undefined && !faults.some((fault) => fault.startsWith(name)))
    .map((name) => `${name} must be set too with PDP_KONG_INTEGRATION=true`)
}

function hashingFaults(env: Record<string, unknown>, variables: NodeJS.ProcessEnv): string[] {
  const [wanted, threads] = [Number(env['HASH_CONCURRENCY']), threadPoolSize(variables)]
  return wanted > threads
    ? [
        `HASH_CONCURRENCY must be at most UV_THREADPOOL_SIZE, which is ${threads}; raise that too for ${wanted}`,
      ]
    : []
}

const PERMIT_USERS = ['POLICY_ENGINE', 'POLICY_GUARD', 'POLICY_SHADOW'] as const

function engineFaults(env: Record<string, unknown>, faults: readonly string[]): string[] {
  const users = PERMIT_USERS.filter((name) => env[name] === 'permit')
  const isKeyAtFault = faults.some((fault) => fault.startsWith('PERMIT_API_KEY'))
  return [
    ...(users.length > 0 && env['PERMIT_API_KEY'] === undefined && !isKeyAtFault
      ? [`PERMIT_API_KEY must be set too with ${users.map((name) => `${name}=permit`).join(' and ')}`]
      : []),
    ...(env['POLICY_SHADOW'] !== 'none' && env['POLICY_SHADOW'] === env['POLICY_ENGINE']
      ? [
          `POLICY_SHADOW must name the other engine than POLICY_ENGINE, not ${JSON.stringify(env['POLICY_SHADOW'])}`,
        ]
      : []),
    ...(env['POLICY_FALLBACK'] === 'local' &&
    env['POLICY_ENGINE'] !== 'permit' &&
    env['POLICY_GUARD'] !== 'permit'
      ? ['POLICY_FALLBACK=local needs POLICY_ENGINE=permit or POLICY_GUARD=permit']
      : []),
  ]
}

const PROXY_GROUPS = new Set(['loopback', 'linklocal', 'uniquelocal'])

function proxyFaults(value: string): string[] {
  if (value === 'false') return []
  const wrong = list(value).find((entry) => !PROXY_GROUPS.has(entry) && !isAddressOrRange(entry))
  if (wrong === undefined) return []
  return [
    `TRUST_PROXY must be false or a list of addresses, CIDR ranges, loopback, linklocal or uniquelocal, not "${wrong}"`,
  ]
}

function networkFaults(value: string): string[] {
  const wrong = list(value).find((entry) => !isAddressOrRange(entry))
  if (wrong === undefined) return []
  return [`WEBHOOKS_ALLOWED_NETWORKS must be a list of addresses and CIDR ranges, not "${wrong}"`]
}

function audienceFaults(value: string): string[] {
  const wrong = list(value).find((entry) => !isResource(entry) || entry.length > LONGEST_AUDIENCE)
  if (wrong === undefined) return []
  return [
    `SERVICE_AUDIENCES must be a list of absolute URIs without a fragment, at most ${LONGEST_AUDIENCE} characters each, not "${wrong}"`,
  ]
}

function isAddressOrRange(entry: string): boolean {
  const [address = '', bits, ...rest] = entry.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

function databaseFaults(env: Record<string, unknown>, faults: readonly string[]): string[] {
  const parts = ['DB_HOST', 'DB_USER', 'DB_PASSWORD', 'DB_NAME']
  const missing = parts.filter(
    (name) => env[name] === undefined && !faults.some((fault) => fault.startsWith(name)),
  )
  if (env['DATABASE_URL'] !== undefined || missing.length === 0 || missing.length === parts.length) return []
  return [
    `${missing.join(', ')} must be set too when the database is named by DB_HOST, DB_USER, DB_PASSWORD and DB_NAME`,
  ]
}

const isSecret = (schema: TSchema): boolean => 'secret' in schema

/** What a schema allows, as the end of a sentence that begins with "must". */
export function expectation(schema: TSchema): string {
  const rule = schema as Record<string, unknown>
  if (rule['anyOf'])
    return `be one of ${(rule['anyOf'] as { const: string }[]).map((one) => one.const).join(', ')}`
  if (rule['type'] === 'integer') return `be a whole number from ${rule['minimum']} to ${rule['maximum']}`
  if (rule['type'] === 'number') return `be a number from ${rule['minimum']} to ${rule['maximum']}`
  if (rule['type'] === 'boolean') return 'be true or false'
  if (rule['patternHint']) return String(rule['patternHint'])
  if (rule['format'] === 'email') return 'be an email address'
  return `have ${rule['minLength'] ?? 0} to ${rule['maxLength'] ?? 'any number of'} characters`
}

const hashConcurrency = (env: Env, threads: number): number =>
  env.HASH_CONCURRENCY || Math.max(1, Math.min(availableParallelism() - 1, threads))

/** On one core the thread that answers requests could keep hashes from ever having their turn. */
const hashPriority = (env: Env): HashingPriority =>
  env.HASH_PRIORITY ?? (env.ENVIRONMENT === 'prod' && availableParallelism() > 1 ? 'idle' : 'low')

/** How many threads libuv has for hashes, and for reading files and looking up names. */
const threadPoolSize = (variables: NodeJS.ProcessEnv): number => Number(variables['UV_THREADPOOL_SIZE']) || 4

function toConfig(env: Env, threads: number) {
  const port = env.PORT
  return deepFreeze({
    environment: env.ENVIRONMENT,
    logLevel: env.LOG_LEVEL,
    dataDir: resolve(env.DATA_DIR),
    secretKey: env.SECRET_KEY,
    previousSecretKey: env.SECRET_KEY_PREVIOUS,
    http: {
      host: env.HOST,
      port,
      publicUrl: env.PUBLIC_URL,
      trustProxy: trustProxy(env.TRUST_PROXY),
      corsOrigins: list(env.CORS_ORIGINS),
      bodyLimitBytes: env.BODY_LIMIT_BYTES,
      requestTimeoutMs: env.REQUEST_TIMEOUT_MS,
      shutdownTimeoutMs: env.SHUTDOWN_TIMEOUT_MS,
      metricsToken: env.METRICS_TOKEN,
    },
    database: {
      url: env.DATABASE_URL ?? urlFromParts(env),
      directUrl: env.DATABASE_DIRECT_URL,
      poolMax: env.DATABASE_POOL_MAX,
      connectTimeoutMs: env.DATABASE_CONNECT_TIMEOUT_MS,
      statementTimeoutMs: env.DATABASE_STATEMENT_TIMEOUT_MS,
      prepare: env.DB_PREPARE,
    },
    tokens: {
      ttlSeconds: env.ACCESS_TOKEN_EXPIRE_MINUTES * 60,
      audience: env.TOKEN_AUDIENCE,
      serviceAudiences: list(env.SERVICE_AUDIENCES),
      algorithm: env.TOKEN_ALGORITHM,
      keyRotationSeconds: env.KEY_ROTATION_DAYS * 86_400,
    },
    passkeys: {
      rpId: env.WEBAUTHN_RP_ID?.toLowerCase(),
      rpName: env.WEBAUTHN_RP_NAME,
      origins: env.WEBAUTHN_ORIGINS === undefined ? undefined : list(env.WEBAUTHN_ORIGINS),
    },
    sessions: {
      reuseIntervalSeconds: env.REFRESH_REUSE_INTERVAL_SECONDS,
      idleSeconds: Math.min(env.SESSION_IDLE_DAYS, env.SESSION_MAX_DAYS) * 86_400,
      maxSeconds: env.SESSION_MAX_DAYS * 86_400,
    },
    mail: {
      appUrl: env.APP_URL ?? publicUrlOf(env),
      smtpUrl: env.SMTP_URL,
      from: env.MAIL_FROM,
      templatesDir: env.MAIL_TEMPLATES_DIR,
      paths: {
        passwordReset: env.PASSWORD_RESET_PATH,
        emailVerification: env.EMAIL_VERIFICATION_PATH,
        emailChange: env.EMAIL_CHANGE_PATH,
        magicLink: env.MAGIC_LINK_PATH,
        invitation: env.INVITATION_PATH,
      },
      verification: env.EMAIL_VERIFICATION,
      signsInByLink: env.MAGIC_LINK_SIGN_IN,
      perRecipientAndHour: env.MAILS_PER_RECIPIENT,
      requestsPerAddressAndHour: env.MAIL_REQUESTS_PER_ADDRESS,
    },
    mfa: { requiredFor: env.MFA_REQUIRED_FOR, stepUpMaxAgeSeconds: env.STEP_UP_MAX_AGE_SECONDS },
    registration: { isOpen: env.USERS_OPEN_REGISTRATION, perAddressAndHour: env.REGISTRATIONS_PER_ADDRESS },
    invitations: { expireSeconds: env.INVITATION_EXPIRE_DAYS * 86_400 },
    accounts: { isCreationOpen: env.ACCOUNTS_OPEN_CREATION, perPerson: env.ACCOUNTS_PER_PERSON },
    firstSuperAdmin: {
      email: env.FIRST_SUPER_ADMIN_EMAIL,
      password: env.FIRST_SUPER_ADMIN_PASSWORD,
      accountName: env.FIRST_SUPER_ADMIN_ACCOUNT_NAME,
    },
    passwords: {
      minLength: env.PASSWORD_MIN_LENGTH,
      minLengthWithMfa: env.PASSWORD_MIN_LENGTH_WITH_MFA,
      blockedWords: list(env.PASSWORD_BLOCKED_WORDS),
      pepper: env.PASSWORD_PEPPER,
      previousPepper: env.PASSWORD_PEPPER_PREVIOUS,
      mustChangeWhenSetByAdmin: env.PASSWORD_SET_BY_ADMIN_MUST_CHANGE,
      memoryKib: env.ARGON2_MEMORY_KIB,
      importMemoryKib: env.PASSWORD_IMPORT_MEMORY_KIB,
      timeCost: env.ARGON2_TIME_COST,
      parallelism: env.ARGON2_PARALLELISM,
      concurrency: hashConcurrency(env, threads),
      queue: env.HASH_QUEUE,
      threads,
      priority: hashPriority(env),
    },
    policy: {
      cachedUsers: env.POLICY_CACHE_USERS,
      cachedInstances: env.POLICY_CACHE_INSTANCES,
      maxStalenessMs: env.POLICY_MAX_STALENESS * 1000,
      debug: env.POLICY_DEBUG,
    },
    engine: {
      decidesWith: env.POLICY_ENGINE,
      guardsWith: env.POLICY_GUARD,
      fallsBackTo: env.POLICY_FALLBACK,
      shadow: env.POLICY_SHADOW,
    },
    permit: {
      apiKey: env.PERMIT_API_KEY,
      pdpUrl: env.PERMIT_PDP_URL,
      apiUrl: env.PERMIT_API_URL,
      timeoutMs: env.PERMIT_TIMEOUT_MS,
      breakerFailures: env.PERMIT_BREAKER_FAILURES,
      breakerOpenMs: env.PERMIT_BREAKER_OPEN_MS,
    },
    pdp: {
      port: env.PDP_PORT,
      opaPort: env.OPA_PORT,
      kongRoutes: env.PDP_KONG_INTEGRATION ? env.PDP_KONG_ROUTES : undefined,
    },
    authzen: { subjectTypes: list(env.AUTHZEN_SUBJECT_TYPES) },
    decisionLog: {
      target: env.DECISION_LOG,
      sample: env.DECISION_LOG_SAMPLE,
      retentionDays: env.DECISION_LOG_RETENTION_DAYS,
    },
    audit: {
      retentionDays: env.AUDIT_RETENTION_DAYS,
      hmacKey: env.AUDIT_HMAC_KEY,
      previousHmacKey: env.AUDIT_HMAC_KEY_PREVIOUS,
    },
    webhooks: { allowedNetworks: list(env.WEBHOOKS_ALLOWED_NETWORKS) },
    deletion: { graceDays: env.USER_DELETION_GRACE_DAYS, isOpenToPeople: env.USERS_SELF_DELETION },
    throttle: {
      maxFailures: env.LOGIN_MAX_FAILURES,
      maxFailuresPerEmail: env.LOGIN_MAX_FAILURES_PER_EMAIL,
      maxFailuresPerAddress: env.LOGIN_MAX_FAILURES_PER_ADDRESS,
      backoffSeconds: env.LOGIN_BACKOFF_SECONDS,
    },
  })
}

/** The address by which clients reach the service: the issuer of its tokens. Never the Host header. */
export function publicUrl({ publicUrl, host, port }: Config['http']): string {
  return publicUrlOf({ PUBLIC_URL: publicUrl, HOST: host, PORT: port })
}

function publicUrlOf(env: { PUBLIC_URL?: string | undefined; HOST: string; PORT: number }): string {
  if (env.PUBLIC_URL) return env.PUBLIC_URL
  const host = env.HOST.includes(':') ? `[${env.HOST}]` : env.HOST
  return `http://${host}:${env.PORT}`
}

const list = (value: string): string[] =>
  value
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')

function trustProxy(value: string): false | string[] {
  return value === 'false' ? false : list(value)
}

function urlFromParts({ DB_HOST, DB_USER, DB_PASSWORD, DB_NAME }: Env): string | undefined {
  if (!DB_HOST || !DB_USER || !DB_PASSWORD || !DB_NAME) return undefined
  const [user, password, name] = [DB_USER, DB_PASSWORD, DB_NAME].map(encodeURIComponent)
  return `postgres://${user}:${password}@${DB_HOST}/${name}`
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner)
  return Object.freeze(value)
}
