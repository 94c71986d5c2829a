import t, { type Test } from 'tap'
import { wireTo } from '../db/cuttable-proxy.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { freshDatabase } from '../helpers/database.ts'
import { pythonClient, storeExample } from '../helpers/permit.ts'

const F = '/v2/facts/default/default'
const S = '/v2/schema/default/default'

type Call = { method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'; path: string; body?: unknown }

/** Status and code, and whether FastAPI's list of faults is there. */
async function refusal(client: Client, { method = 'DELETE', path, body }: Call) {
  const response = await client.send(method, path, body)
  const { error_code: code, detail } = response.json<{ error_code?: string; detail?: unknown }>()
  return { status: response.statusCode, code, hasDetail: Array.isArray(detail), text: response.body }
}

t.test('what is refused, and is neither there already nor a fault of a field, is 400 or 403', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, { tenants: [{ key: 'acme' }, { key: 'globex' }], users: [{ key: 'ada' }] })
  const client = await pythonClient(postern)
  const homes = await postern.account('Homes')
  await postern.person('GUEST', { accountId: homes })
  await childOfAnotherResource(postern)
  const { client: organization } = await anApiKey(postern, { level: 'org' })
  for (const body of [
    { key: 'elders', name: 'Elders', type: 'userset', conditions: {}, parent_id: 'adults' },
    { key: 'cycle', name: 'Cycle', type: 'userset', conditions: {} },
  ])
    t.equal((await client.post(`${S}/condition_sets`, body)).statusCode, 200)
  await client.post(`${F}/resource_instances`, { resource: 'folder', key: 'f', tenant: 'acme' })
  const assignments = { role: 'reader', tenant: 'acme' }

  const cases: (Call & { by?: Client; is: [number, string] })[] = [
    { path: `${F}/tenants/default`, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: `${F}/tenants/${homes}`, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: `${F}/bulk/tenants`, body: { idents: ['default'] }, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: `${F}/bulk/tenants`, body: { idents: [homes] }, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: '/v2/projects/default/envs/default', by: organization, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: '/v2/projects/default', by: organization, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: `${S}/resources/folder`, is: [403, 'FORBIDDEN_ACCESS'] },
    { path: `${S}/condition_sets/adults`, is: [403, 'FORBIDDEN_ACCESS'] },
    {
      method: 'PATCH',
      path: `${S}/condition_sets/adults`,
      body: { parent_id: 'elders' },
      is: [400, 'INVALID_INPUT'],
    },
    {
      method: 'POST',
      path: `${F}/relationship_tuples`,
      body: { subject: 'document:d', relation: 'parent', object: 'document:e', tenant: 'acme' },
      is: [400, 'MISMATCH_RELATION_TYPE'],
    },
    {
      method: 'POST',
      path: `${S}/resources/document/roles/editor/implicit_grants`,
      body: { role: 'editor', on_resource: 'document', linked_by_relation: 'parent' },
      is: [400, 'MISMATCH_RELATION_TYPE'],
    },
    {
      method: 'POST',
      path: `${F}/role_assignments`,
      body: { user: 'ada', role: 'owner', resource_instance: 'folder:f', tenant: 'globex' },
      is: [400, 'MISMATCH_RESOURCE_INSTANCES_TENANTS'],
    },
    // What is there already stays what it is, and so does a person who can sign in.
    { method: 'POST', path: `${F}/users`, body: { key: 'ada' }, is: [409, 'DUPLICATE_ENTITY'] },
    { path: `${F}/users/${postern.rootId}`, is: [409, 'FORBIDDEN_ACCESS'] },
    { method: 'POST', path: `${F}/users`, body: { key: 7 }, is: [422, 'INVALID_INPUT'] },
    { method: 'POST', path: `${F}/role_assignments`, body: assignments, is: [422, 'INVALID_INPUT'] },
  ]
  for (const { is, by = client, ...call } of cases) {
    const { status, code, hasDetail, text } = await refusal(by, call)
    t.same([status, code, hasDetail], [...is, is[0] === 422], `${call.path}: ${text}`)
  }
})

/** A resource set of `document` below one of `folder`, as older data may have it. */
async function childOfAnotherResource({ services }: TestApp): Promise<void> {
  await services.database.pool.query(
    `with parent as (insert into condition_sets (id, environment_id, type, resource_id, key, name, conditions)
       select gen_random_uuid(), environment_id, 'resourceset', id, 'parent', 'p', '{}' from resources
       where key = 'folder' returning id)
     insert into condition_sets (id, environment_id, type, resource_id, key, name, conditions, parent_id)
     select gen_random_uuid(), r.environment_id, 'resourceset', r.id, 'child', 'c', '{}', parent.id
     from resources r, parent where r.key = 'document'`,
  )
}

t.test('what fails in the database is answered in the same shape', async (t) => {
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const postern = await buildTestApp(t, { databaseUrl: wire.url })
  const client = await pythonClient(postern)
  const { pool } = postern.services.database
  await pool.query(`create function fail_as_named() returns trigger language plpgsql as $$
    begin raise exception 'secret of the database' using errcode = new.description; end $$`)
  await pool.query(`create trigger accounts_fail before insert on accounts for each row
    when (new.description is not null) execute function fail_as_named()`)
  const tenant = (description: string): Call => ({
    method: 'POST',
    path: `${F}/tenants`,
    body: { key: 'odd', name: 'Odd', description },
  })
  const failsAs = async (t: Test, call: Call, status: number, code: string) => {
    const { method = 'GET', path, body } = call
    const response = await client.send(method, path, body)
    t.match([response.statusCode, response.json()], [status, { error_code: code, id: String, title: String }])
    t.equal(response.headers['content-type'], 'application/json')
    t.notMatch(response.body, /secret of the database|ECONN|127\.0\.0\.1/)
    return response
  }

  await failsAs(t, tenant('40001'), 400, 'CONCURRENT_OPERATION_DISALLOWED')
  await failsAs(t, tenant('40P01'), 400, 'CONCURRENT_OPERATION_DISALLOWED')
  await failsAs(t, tenant('XX000'), 500, 'UNEXPECTED_ERROR')
  t.equal((await client.get(`${F}/tenants/odd`)).statusCode, 404)
  wire.cut()
  for (const call of [tenant('none'), { path: `${F}/users` }, { path: `${S}/roles` }]) {
    const response = await failsAs(t, call, 503, 'UNEXPECTED_ERROR')
    t.match(response.headers['retry-after'], /^\d+$/)
  }
  wire.mend()
})

t.test('each limit is the one that the documentation names, with its answer', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, { tenants: [{ key: 'acme' }], users: [{ key: 'ada' }] })
  const client = await pythonClient(postern)
  const many = <T>(count: number, of: (index: number) => T): T[] =>
    Array.from({ length: count }, (_, at) => of(at))
  const mapOf = (count: number, value: unknown) => Object.fromEntries(many(count, (at) => [`k${at}`, value]))
  const role = (fields: object): Call => ({
    method: 'POST',
    path: `${S}/roles`,
    body: { key: 'big', name: 'B', ...fields },
  })
  const resource = (fields: object): Call => ({
    method: 'POST',
    path: `${S}/resources`,
    body: { key: 'big', name: 'Big', actions: {}, ...fields },
  })
  const list = (query: string): Call => ({ method: 'GET', path: `${F}/${query}` })
  const rule = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
  const actions = Object.fromEntries(many(501, (at) => [`a${at}`, {}]))
  t.equal((await client.post(`${S}/resources`, { key: 'wide', name: 'Wide', actions })).statusCode, 200)
  const permissions = many(501, (at) => `wide:a${at}`)

  for (const [what, most, beyond, call] of [
    ['permissions of a role', 500, 422, (n: number) => role({ permissions: permissions.slice(0, n) })],
    ['extended roles', 50, 422, (n: number) => role({ extends: many(n, () => 'reader') })],
    [
      'derivations of a role',
      100,
      422,
      (n: number): Call => ({
        method: 'PATCH',
        path: `${S}/resources/document/roles/editor`,
        body: { granted_to: { users_with_role: many(n, () => rule) } },
      }),
    ],
    ['actions of a resource', 1000, 422, (n: number) => resource({ actions: mapOf(n, {}) })],
    [
      'attributes of a resource',
      500,
      422,
      (n: number) => resource({ attributes: mapOf(n, { type: 'bool' }) }),
    ],
    ['relations of a resource', 200, 422, (n: number) => resource({ relations: mapOf(n, 'folder') })],
    ['roles of a resource', 200, 422, (n: number) => resource({ roles: mapOf(n, {}) })],
    [
      'actions of a group',
      1000,
      422,
      (n: number): Call => ({
        method: 'POST',
        path: `${S}/resources/document/action_groups`,
        body: { key: 'big', name: 'Big', actions: many(n, () => 'read') },
      }),
    ],
    ['search among people', 128, 422, (n: number) => list(`users?search=${'x'.repeat(n)}`)],
    ['search among tenants', 128, 422, (n: number) => list(`tenants?search=${'x'.repeat(n)}`)],
    ['search among instances', 641, 422, (n: number) => list(`resource_instances?search=${'x'.repeat(n)}`)],
    [
      'values of a filter',
      100,
      422,
      (n: number) => list(`role_assignments?${many(n, (at) => `user=u${at}`).join('&')}`),
    ],
    ['the number of a page', 1_000_000, 422, (n: number) => list(`users?page=${n}`)],
  ] as const) {
    const asked = async (n: number) => {
      const { method = 'GET', path, body } = call(n)
      return await client.send(method, path, body)
    }
    const [fits, over] = [await asked(most), await asked(most + 1)]
    t.equal(fits.statusCode, 200, `${what}: ${fits.body.slice(0, 200)}`)
    t.match([over.statusCode, over.json()], [beyond, { error_code: 'INVALID_INPUT', detail: Array }], what)
    for (const path of ['roles/big', 'resources/big', 'resources/document/action_groups/big'])
      await client.delete(`${S}/${path}`)
  }

  // One more than there may be, of what is there already.
  t.equal(
    (await client.post(`${S}/roles`, { key: 'full', name: 'F', permissions: permissions.slice(0, 500) }))
      .statusCode,
    200,
  )
  const added = await client.post(`${S}/roles/full/permissions`, { permissions: permissions.slice(500) })
  t.match([added.statusCode, added.json()], [400, { error_code: 'INVALID_INPUT' }])
})

t.test('lists are filtered by ids without dashes as by those with them', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, {
    tenants: [{ key: 'acme' }, { key: 'globex' }],
    users: [{ key: 'ada' }, { key: 'bob' }],
  })
  const client = await pythonClient(postern)
  const assign = async (body: object) => (await client.post(`${F}/role_assignments`, body)).json()
  const held = await assign({ user: 'ada', role: 'owner', resource_instance: 'folder:f', tenant: 'acme' })
  await assign({ user: 'bob', role: 'reader', tenant: 'globex' })
  const parent = { subject: 'folder:f', relation: 'parent', object: 'document:d' }
  const tuple = (await client.post(`${F}/relationship_tuples`, parent)).json()
  const folder = (await client.get(`${S}/resources/folder`)).json()
  const document = (await client.get(`${S}/resources/document`)).json()

  for (const [list, filter, id, key, found] of [
    ['role_assignments', 'user', held.user_id, 'ada', held.id],
    ['role_assignments', 'role', held.role_id, 'owner', held.id],
    ['role_assignments', 'tenant', held.tenant_id, 'acme', held.id],
    ['role_assignments', 'resource', folder.id, 'folder', held.id],
    ['role_assignments', 'resource_instance', held.resource_instance_id, 'folder:f', held.id],
    ['relationship_tuples', 'relation', tuple.relation_id, 'parent', tuple.id],
    ['relationship_tuples', 'subject', tuple.subject_id, 'folder:f', tuple.id],
    ['relationship_tuples', 'object', tuple.object_id, 'document:d', tuple.id],
    ['relationship_tuples', 'tenant', tuple.tenant_id, 'acme', tuple.id],
    ['relationship_tuples', 'subject_type', folder.id, 'folder', tuple.id],
    ['relationship_tuples', 'object_type', document.id, 'document', tuple.id],
  ] as const) {
    for (const name of [key, id, id.replaceAll('-', '')]) {
      const answer = await client.get(`${F}/${list}?${filter}=${encodeURIComponent(name)}`)
      t.match(answer.json(), [{ id: found }], `${list}?${filter}=${name}`)
      t.equal(answer.json().length, 1, `${list}?${filter}=${name}`)
    }
    const none = await client.get(`${F}/${list}?${filter}=${'0'.repeat(32)}`)
    t.same(none.json(), [], `${list}?${filter}`)
  }
})
