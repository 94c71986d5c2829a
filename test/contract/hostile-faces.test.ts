import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Method } from '../helpers/app.ts'

const HOSTILE: unknown[] = [
  null,
  true,
  -1,
  1e308,
  '',
  'a\0b',
  '\ud800',
  '😀'.repeat(300),
  'x'.repeat(20_000),
  "' or 1=1; --",
  '__proto__',
  'constructor',
  'toString',
  '00000000-0000-7000-8000-000000000001',
  '00000000000070008000000000000001',
  ':',
  'Post:\0',
  [],
  [null],
  [[]],
  ['a\0', '\ud800'],
  {},
  { toString: 1, hasOwnProperty: 2, length: 1e9 },
  { key: 'a\0', attributes: { 'a\0': '\ud800' } },
  { key: '\ud800', attributes: [] },
]

const USER = { key: 'ada', attributes: { age: 1 } }
const RESOURCE = { type: 'Post', key: 'p1', tenant: 'default', attributes: {} }
const CHECK = { user: USER, action: 'read', resource: RESOURCE, context: {} }
const GRANT = { user: 'ada', role: 'owner', tenant: 'default', resource_instance: 'Post:p1' }
const PERSON = { key: 'eve', email: 'eve@postern.test', first_name: 'E', last_name: 'V', attributes: {} }
const FACTS = {
  accounts: { acme: { name: 'Acme', attributes: {} } },
  users: { ada: { first_name: 'A', attributes: {}, roles: [{ role: 'owner', instance: 'Post:p1' }] } },
  instances: [{ resource: 'Post', key: 'p1', account: 'default', attributes: {} }],
  relationships: [{ subject: 'Post:p1', relation: 'parent', object: 'Post:p2' }],
}

const REQUESTS: [Method, string, unknown][] = [
  ['POST', '/allowed', CHECK],
  ['POST', '/allowed', { ...CHECK, use_debugger: true }],
  ['POST', '/v1/data/permit/root', { input: CHECK }],
  ['POST', '/allowed/bulk', [CHECK, CHECK]],
  ['POST', '/allowed/all-tenants', CHECK],
  ['POST', '/allowed/all-tenants', { params: CHECK, headers: { Authorization: 'x' } }],
  [
    'POST',
    '/user-permissions',
    { user: USER, tenants: ['default'], resources: ['Post:p1'], resource_types: ['Post'], context: {} },
  ],
  ['POST', '/user-tenants', { user: USER }],
  ['POST', '/authorized_users', { action: 'read', resource: RESOURCE, context: {} }],
  ['POST', '/sync-user', { email: 'eve@postern.test', first_name: 'E', last_name: 'V' }],
  ['POST', '/create-tenant', { key: 'acme', name: 'Acme', description: 'x' }],
  ['POST', '/check-permission', { user: USER, action: 'read', resource: RESOURCE, tenant: 'default' }],
  ['POST', '/facts/users', { ...PERSON, role_assignments: [GRANT] }],
  ['PUT', '/facts/users/eve', { ...PERSON, role_assignments: [GRANT] }],
  ['PATCH', '/facts/users/ada', PERSON],
  ['POST', '/facts/users/ada/roles', GRANT],
  ['DELETE', '/facts/users/ada/roles', GRANT],
  ['POST', '/facts/tenants', { key: 'acme', name: 'Acme', description: 'x', attributes: {} }],
  ['PATCH', '/facts/tenants/acme', { name: 'Acme', description: 'x', attributes: {} }],
  ['POST', '/facts/tenants/default/users', { ...PERSON, role_assignments: [GRANT] }],
  ['POST', '/facts/role_assignments', GRANT],
  ['DELETE', '/facts/role_assignments', GRANT],
  ['POST', '/facts/role_assignments/bulk', [GRANT]],
  ['POST', '/facts/role_assignments/bulk?missing_user_policy=create', [GRANT]],
  ['DELETE', '/facts/role_assignments/bulk', [GRANT]],
  ['POST', '/api/v1/policy', { version: 1, ...{ facts: FACTS } }],
]

const PATHS: [Method, (name: string) => string][] = [
  ['GET', (name) => `/facts/users/${name}`],
  ['PATCH', (name) => `/facts/tenants/${name}`],
  ['GET', (name) => `/facts/tenants/${name}/users`],
  ['DELETE', (name) => `/facts/tenants/default/users/${name}`],
  ['GET', (name) => `/v2/facts/${name}/${name}/users`],
  ['GET', (name) => `/facts/users?search=${name}&role=${name}`],
  ['GET', (name) => `/facts/tenants?search=${name}&include_total_count=true`],
  [
    'GET',
    (name) =>
      `/facts/role_assignments?user=${name}&role=${name}&tenant=${name}&resource=${name}&resource_instance=${name}`,
  ],
  ['GET', (name) => `/local/role_assignments?user=${name}&resource_instance=${name}&resource=${name}`],
]

t.test('nothing that a client sends to the foreign faces, or in a policy file, gives a 500', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const policy = {
    version: 1,
    resources: {
      Post: {
        actions: ['read'],
        relations: { parent: 'Post' },
        roles: { owner: { permissions: ['read'] } },
      },
    },
    facts: {
      users: { ada: {} },
      instances: [
        { resource: 'Post', key: 'p1' },
        { resource: 'Post', key: 'p2' },
      ],
    },
  }
  const applied = await root.post('/api/v1/policy', policy)
  t.equal(applied.statusCode, 200, applied.body)
  const { client } = await anApiKey(postern, { level: 'org' })
  let requests = 0
  const send = async (method: Method, path: string, body?: unknown, headers?: Record<string, string>) => {
    requests++
    const text = JSON.stringify(body)
    const response = await client.send(method, path, text, {
      ...(text !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    })
    if (response.statusCode >= 500)
      t.fail(
        `${method} ${path} ${text?.slice(0, 300)}: ${response.statusCode} ${response.body.slice(0, 300)}`,
      )
  }

  for (const [method, path, body] of REQUESTS) {
    const sent = path === '/api/v1/policy' ? { ...policy, ...(body as object) } : body
    for (const value of HOSTILE)
      for (const changed of replaced(sent, value)) await send(method, path, changed)
    const deep = `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`
    const response = await client.send(method, path, deep, { 'content-type': 'application/json' })
    t.ok(response.statusCode < 500, `${path}: deep`)
  }
  for (const value of HOSTILE.filter((one) => typeof one === 'string')) {
    const name = encodeURIComponent(value.toWellFormed().slice(0, 900))
    for (const [method, path] of PATHS) await send(method, path(name), method === 'PATCH' ? {} : undefined)
    if (!/^[\x20-\x7e]*$/.test(value)) continue
    await send('POST', '/nginx_allowed', undefined, {
      'permit-user-key': value.slice(0, 2000),
      'permit-action': value.slice(0, 2000),
      'permit-resource-type': value.slice(0, 2000),
      'permit-tenant-id': value.slice(0, 2000),
    })
  }
  t.ok(requests > 3000, `${requests} requests`)
  t.equal((await root.get('/health/ready')).statusCode, 200)
})

/** Copies of a value with one part of it, at any depth, replaced. */
function* replaced(value: unknown, by: unknown): Generator<unknown> {
  yield by
  if (typeof value !== 'object' || value === null) return
  for (const [name, inner] of Object.entries(value)) {
    for (const changed of replaced(inner, by)) {
      if (Array.isArray(value))
        yield value.map((one: unknown, place) => (String(place) === name ? changed : one))
      else yield { ...value, [name]: changed }
    }
    if (!Array.isArray(value) && typeof by === 'string' && by !== '__proto__') {
      const { [name]: moved, ...rest } = value as Record<string, unknown>
      yield { ...rest, [by]: moved }
    }
  }
}
