import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import type { LightMyRequestResponse } from 'fastify'
import t from 'tap'
import { PROBLEMS } from '../../src/errors.ts'
import { sendProblem, toAppError } from '../../src/http/problem.ts'
import { buildTestApp, type Method, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'

const LEAKS =
  /\$argon2|node_modules|\bat [\w.<>]+ \(|file:\/\/|\.ts:\d|select .* from |password_hash|PRIVATE KEY|postgres:\/\//i

/** Throws unless the answer is one that the service means to give. */
function assertMeant(response: LightMyRequestResponse, what: unknown): void {
  const { statusCode, body, headers } = response
  const said = `${JSON.stringify(what).slice(0, 500)}: ${statusCode} ${body.slice(0, 500)}`
  if (statusCode >= 500) throw new Error(`a fault: ${said}`)
  if (LEAKS.test(body)) throw new Error(`a leak: ${said}`)
  if (statusCode < 400) return
  const type = String(headers['content-type'])
  if (!type.startsWith('application/problem+json') && !('error' in response.json<object>()))
    throw new Error(`no problem document: ${said}`)
}

const nasty = fc.constantFrom(
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\udfff\ud800',
  '\u202e',
  "' or 1=1 --",
  '"; drop table users; --',
  '%',
  '%00',
  '_',
  '\\',
  '../../etc/passwd',
  '__proto__',
  'constructor',
  'null',
  'NaN',
  '1e400',
  '2016-12-31T23:59:60Z',
  '0000-01-01T00:00:00Z',
  '9999-12-31T23:59:59-23:59',
  '+275760-09-13T00:00:00Z',
  '2026-02-30T00:00:00Z',
  'urn:uuid:0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40',
  '00000000-0000-0000-0000-000000000000',
  'x'.repeat(5000),
  '👩‍👩‍👧‍👦'.repeat(50),
  '<script>alert(1)</script>',
  '#{7*7}{{7*7}}',
  'İıſẞ@example.com',
)
const anyText = fc.oneof(nasty, fc.string({ unit: 'binary', maxLength: 60 }), fc.uuid(), fc.emailAddress())
const anyJson = fc.oneof(
  anyText,
  fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<unknown>,
  fc.constantFrom<unknown>(-1, 0, 1e308, -0.5, 2 ** 53, [], {}, [[]], null, true, ['a:b'], {
    a: { b: ['\0'] },
  }),
  fc.dictionary(anyText, anyText, { maxKeys: 5 }),
)

const FIELDS = [
  'email',
  'password',
  'full_name',
  'first_name',
  'phone_number',
  'key',
  'name',
  'description',
  'attributes',
  'account_id',
  'plan_id',
  'current_subscription_ends',
  'is_active',
  'scopes',
  'default_reach',
  'user_id',
  'role_id',
  'scope',
  'account',
  'current_password',
  'new_password',
] as const

/** Values that a route would take, so that the odd one beside them comes further than the validation. */
const good = {
  email: fc.uuid().map((id) => `${id}@example.com`),
  password: fc.constant(PASSWORD),
  full_name: fc.string({ minLength: 1, maxLength: 50, unit: 'binary' }),
  name: fc.string({ minLength: 1, maxLength: 50, unit: 'binary' }),
  key: fc.uuid(),
  attributes: fc.dictionary(fc.string({ maxLength: 20 }), fc.jsonValue({ maxDepth: 3 })),
  scopes: fc.uniqueArray(fc.stringMatching(/^[a-z]{1,3}:[a-z]{1,3}$/), { maxLength: 4 }),
  current_subscription_ends: fc.oneof(
    fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
    nasty,
  ),
  description: anyText,
}

type Route = { method: Method; url: string; fields: readonly (typeof FIELDS)[number][] }

const routesOf = ({ home }: TestApp, user: string, role: string, account: string): Route[] => [
  { method: 'POST', url: '/api/v1/auth/login', fields: ['email', 'password', 'scope', 'account'] },
  { method: 'POST', url: '/api/v1/auth/change-password', fields: ['current_password', 'new_password'] },
  {
    method: 'POST',
    url: '/api/v1/users',
    fields: ['email', 'password', 'full_name', 'key', 'attributes', 'account_id'],
  },
  { method: 'POST', url: '/api/v1/users/open', fields: ['email', 'password', 'full_name', 'phone_number'] },
  { method: 'PATCH', url: '/api/v1/users/me', fields: ['full_name', 'first_name', 'phone_number'] },
  {
    method: 'PATCH',
    url: `/api/v1/users/${user}`,
    fields: ['email', 'full_name', 'key', 'attributes', 'is_active'],
  },
  {
    method: 'POST',
    url: '/api/v1/accounts',
    fields: ['name', 'key', 'description', 'attributes', 'plan_id'],
  },
  {
    method: 'PUT',
    url: `/api/v1/accounts/${account}`,
    fields: ['name', 'description', 'attributes', 'current_subscription_ends', 'plan_id'],
  },
  { method: 'POST', url: `/api/v1/accounts/${home}/users`, fields: ['user_id'] },
  { method: 'POST', url: '/api/v1/roles', fields: ['name', 'key', 'description', 'scopes', 'default_reach'] },
  {
    method: 'PATCH',
    url: `/api/v1/roles/${role}`,
    fields: ['name', 'description', 'scopes', 'default_reach'],
  },
  { method: 'POST', url: '/api/v1/user-roles', fields: ['user_id', 'role_id'] },
  { method: 'PUT', url: `/api/v1/user-roles/${user}`, fields: ['role_id'] },
  { method: 'POST', url: `/api/v1/users/${user}/roles`, fields: ['role_id', 'account_id'] },
]

async function buildFuzzed(t: Parameters<typeof buildTestApp>[0]) {
  const env = { REGISTRATIONS_PER_ADDRESS: '100000', LOGIN_MAX_FAILURES_PER_ADDRESS: '100000' }
  const app = await buildTestApp(t, { env })
  const user = (await app.person('GUEST')).id
  const account = await app.account('Fuzzed')
  await app.root.post('/api/v1/roles', { name: 'fuzzed', scopes: ['a:b'] })
  return { app, routes: routesOf(app, user, await app.roleId('fuzzed'), account) }
}

t.test('no JSON body leads to a fault or tells what is inside', async (t) => {
  const { app, routes } = await buildFuzzed(t)
  const payload = fc.oneof(
    anyJson,
    fc.dictionary(fc.constantFrom(...FIELDS), anyJson, { maxKeys: 8 }) as fc.Arbitrary<unknown>,
  )

  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routes), payload, async ({ method, url }, body) => {
      const response = await app.app.inject({
        method,
        url,
        headers: { authorization: `Bearer ${app.rootToken}`, 'content-type': 'application/json' },
        payload: JSON.stringify(body),
      })

      assertMeant(response, { method, url, body })
    }),
    { numRuns: 300 },
  )
})

t.test('no odd value beside good ones leads to a fault', async (t) => {
  const { app, routes } = await buildFuzzed(t)
  const request = fc
    .constantFrom(...routes)
    .chain((route) =>
      fc.tuple(
        fc.constant(route),
        fc.record(
          Object.fromEntries(
            route.fields.map((field): [string, fc.Arbitrary<unknown>] => [
              field,
              fc.oneof(
                { weight: 3, arbitrary: (good as Record<string, fc.Arbitrary<unknown>>)[field] ?? anyText },
                { weight: 1, arbitrary: anyJson },
              ),
            ]),
          ),
          { requiredKeys: [] },
        ),
      ),
    )

  await fc.assert(
    fc.asyncProperty(request, async ([{ method, url }, body]) => {
      assertMeant(await app.root.send(method, url, { ...body }), { method, url, body })
    }),
    { numRuns: 500 },
  )
})

t.test('no text in a query, path or header leads to a fault', async (t) => {
  const { app } = await buildFuzzed(t)
  const parameter = fc.constantFrom(
    ...['q', 'email', 'key', 'is_active', 'role_id', 'account_id', 'skip', 'limit', 'sort', 'after', 'total'],
    ...['action', 'actor_id', 'target_id', 'from', 'until', 'outcome'],
  )
  const path = fc.constantFrom(
    ...[
      '/api/v1/users',
      '/api/v1/accounts',
      '/api/v1/roles',
      '/api/v1/audit-events',
      '/api/v1/accounts/users/me',
    ],
  )
  const header = fc.constantFrom('if-match', 'x-request-id', 'x-forwarded-for', 'accept', 'content-type')
  const headerText = fc.oneof(
    fc.string({ unit: 'grapheme-ascii', maxLength: 50 }),
    fc.constantFrom('"', '*', 'W/', '"1",', ',', '"99999999999999999999999"'),
  )

  await fc.assert(
    fc.asyncProperty(path, fc.dictionary(parameter, anyText, { maxKeys: 4 }), async (url, query) => {
      const text = Object.entries(query)
        .map(([name, value]) => `${name}=${encodeURIComponent(value.toWellFormed())}`)
        .join('&')

      assertMeant(await app.root.get(`${url}?${text}`), { url, query })
    }),
    { numRuns: 300 },
  )
  await fc.assert(
    fc.asyncProperty(path, anyText, async (url, text) => {
      const segment = encodeURIComponent(text.toWellFormed())

      assertMeant(await app.root.get(`${url}/${segment}`), { url, text })
      assertMeant(await app.root.get(`${url}/${text.replaceAll(/[^\x21-\x7e]/g, '')}`), { url, text })
    }),
    { numRuns: 100 },
  )
  await fc.assert(
    fc.asyncProperty(header, headerText, async (name, text) => {
      assertMeant(await app.root.patch('/api/v1/users/me', { full_name: 'X' }, { [name]: text }), {
        name,
        text,
      })
    }),
    { numRuns: 100 },
  )
})

t.test('no bytes in a body lead to a fault', async (t) => {
  const { app } = await buildFuzzed(t)
  const type = fc.constantFrom(
    ...[
      'application/json',
      'application/x-www-form-urlencoded',
      'text/plain',
      'multipart/form-data',
      'x',
      '',
    ],
  )
  const url = fc.constantFrom('/api/v1/auth/login', '/api/v1/auth/access-token', '/api/v1/users/open')

  await fc.assert(
    fc.asyncProperty(
      url,
      type,
      fc.oneof(fc.uint8Array().map(Buffer.from), fc.json().map(Buffer.from)),
      async (path, contentType, payload) => {
        const response = await app.app.inject({
          method: 'POST',
          url: path,
          headers: { ...(contentType && { 'content-type': contentType }) },
          payload,
        })

        assertMeant(response, { path, contentType, payload: payload.toString('hex') })
      },
    ),
    { numRuns: 200 },
  )
})

t.test('no form leads to a fault of the token endpoint, and every description is fit to print', async (t) => {
  const { app } = await buildFuzzed(t)
  const names = fc.constantFrom(
    'grant_type',
    'username',
    'password',
    'scope',
    'account',
    'client_id',
    '__proto__',
    '"\\',
  )
  const form = fc.array(fc.tuple(names, anyText), { maxLength: 6 })

  await fc.assert(
    fc.asyncProperty(form, async (pairs) => {
      const response = await app.app.inject({
        method: 'POST',
        url: '/api/v1/auth/access-token',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        payload: new URLSearchParams(
          pairs.map(([name, value]): [string, string] => [name, value]),
        ).toString(),
      })
      assertMeant(response, pairs)
      const { error_description: description } = response.json<{ error_description: string }>()

      return /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/.test(description)
    }),
    { numRuns: 200 },
  )
})

t.test('a body nested to the depths is refused, not a fault', async (t) => {
  const { app } = await buildFuzzed(t)

  for (const depth of [10, 60, 500, 6000, 100_000]) {
    const payload = `{"name":"n","key":"${randomUUID()}","attributes":{"a":${'['.repeat(depth)}${']'.repeat(depth)}}}`
    const response = await app.app.inject({
      method: 'POST',
      url: '/api/v1/accounts',
      headers: { authorization: `Bearer ${app.rootToken}`, 'content-type': 'application/json' },
      payload,
    })

    t.ok([201, 422].includes(response.statusCode), `${depth}: ${response.statusCode}`)
  }
})

t.test('whatever is thrown becomes a problem of the table, and a fault of ours tells nothing', async (t) => {
  const thrown = fc.oneof(
    fc.string().map((message) => new Error(message)),
    fc
      .record({ code: anyJson, statusCode: anyJson, message: anyText })
      .map((fields) => Object.assign(new Error(), fields)),
    fc.string().map((message) => new TypeError(message)),
  )
  const headers = new Map<string, unknown>()
  const reply = {
    request: { headers: {} },
    header: (name: string, value: unknown) => headers.set(name, value) && reply,
    code: () => reply,
    type: () => reply,
    serializer: () => reply,
  }

  await fc.assert(
    fc.asyncProperty(thrown, async (error) => {
      const problem = toAppError(error)
      const body = JSON.parse(await sendProblem(problem, { id: 'x' } as never, reply as never)) as {
        detail?: string
      }

      if (!(problem.code in PROBLEMS)) throw new Error(`no such code ${problem.code}`)
      if (problem.status === 500 && body.detail !== undefined) throw new Error('it tells')
    }),
  )
  t.pass()
})
