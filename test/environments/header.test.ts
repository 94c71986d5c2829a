import t from 'tap'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'

const idOf = (response: { json: <T>() => T }): string => response.json<{ id: string }>().id

/** Two environments, a key of each, and an account, user and role in the first. */
async function twoEnvironments(postern: TestApp) {
  const [a, b] = [await anEnvironment(postern), await anEnvironment(postern)]
  const inA = await anApiKey(postern, { environment: a.name })
  const inB = await anApiKey(postern, { environment: b.name })
  const accountId = idOf(await inA.client.post('/api/v1/accounts', { name: 'Acme' }))
  const userId = idOf(await inA.client.post('/api/v1/users', { key: 'ada', account_id: accountId }))
  const roleId = idOf(await inA.client.post('/api/v1/roles', { name: 'editor', scopes: ['post:read'] }))
  const ids = { accountId, userId, roleId }
  return { a, b, keyOfA: inA.client, keyOfB: inB.client, ids }
}

t.test('a key of one environment knows nothing of another', async (t) => {
  const postern = await buildTestApp(t)
  const { keyOfA, keyOfB, ids } = await twoEnvironments(postern)
  const { accountId, userId, roleId } = ids
  const ofDefault = await anApiKey(postern)

  for (const [who, client] of [
    ['a key of another environment', keyOfB],
    ['a key of the default environment', ofDefault.client],
    ['a super admin in the default environment', postern.root],
  ] as const) {
    for (const list of ['/users', '/accounts', '/roles']) {
      const body = (await client.get(`/api/v1${list}?limit=1000`)).body
      for (const id of Object.values(ids)) t.notMatch(body, id, `${who}: ${list}`)
    }
    for (const [method, path, body, code] of [
      ['GET', `/users/${userId}`, undefined, 'user_not_found'],
      ['PATCH', `/users/${userId}`, { full_name: 'x' }, 'user_not_found'],
      ['DELETE', `/users/${userId}`, undefined, 'user_not_found'],
      ['POST', `/users/${userId}/deactivate`, undefined, 'user_not_found'],
      ['GET', `/users/${userId}/roles`, undefined, 'user_not_found'],
      ['POST', `/users/${userId}/roles`, { role_id: roleId }, 'user_not_found'],
      ['POST', '/user-roles', { user_id: userId, role_id: roleId }, 'user_not_found'],
      ['GET', `/accounts/${accountId}`, undefined, 'account_not_found'],
      ['PATCH', `/accounts/${accountId}`, { description: 'x' }, 'account_not_found'],
      ['DELETE', `/accounts/${accountId}`, undefined, 'account_not_found'],
      ['GET', `/accounts/${accountId}/users`, undefined, 'account_not_found'],
      ['GET', `/accounts/${accountId}/members`, undefined, 'account_not_found'],
      ['GET', `/roles/${roleId}`, undefined, 'role_not_found'],
      ['PATCH', `/roles/${roleId}`, { description: 'x' }, 'role_not_found'],
      ['DELETE', `/roles/${roleId}`, undefined, 'role_not_found'],
    ] as const) {
      isProblem(t, await client.send(method, `/api/v1${path}`, body), code, `${who}: ${method} ${path}`)
    }
  }

  await t.test('and mixes nothing of its own with it', async (t) => {
    const own = idOf(await keyOfB.post('/api/v1/users', { key: 'ada' }))
    const home = idOf(await keyOfB.post('/api/v1/accounts', { name: 'Acme' }))
    const role = idOf(await keyOfB.post('/api/v1/roles', { name: 'editor' }))

    for (const [path, body, code] of [
      ['/users', { key: 'x', account_id: accountId }, 'account_not_found'],
      [`/users/${own}/roles`, { role_id: roleId }, 'role_not_found'],
      [`/users/${own}/roles`, { role_id: role, account_id: accountId }, 'account_not_found'],
      [`/accounts/${home}/users`, { user_id: userId }, 'user_not_found'],
      [`/accounts/${accountId}/users`, { user_id: own }, 'account_not_found'],
    ] as const) {
      isProblem(t, await keyOfB.post(`/api/v1${path}`, body), code, path)
    }
    const member = await keyOfB.put(`/api/v1/accounts/${home}/members/${userId}`)
    isProblem(t, member, 'user_not_found')
  })
  t.match((await keyOfA.get(`/api/v1/users/${userId}`)).json(), {
    key: 'ada',
    is_active: true,
    full_name: null,
  })
})

t.test('a key of an environment opens that one only', async (t) => {
  const postern = await buildTestApp(t)
  const { a, b, keyOfA } = await twoEnvironments(postern)
  const list = async (client: Client, name: string) => await client.get('/api/v1/users', inEnvironment(name))

  for (const name of [a.name, a.name.replace('default/', ''), a.id, a.id.toUpperCase()])
    t.equal((await list(keyOfA, name)).statusCode, 200, name)
  for (const name of [b.name, b.id, 'default', 'default/default', 'nope', 'no/pe'])
    isProblem(t, await list(keyOfA, name), 'environment_not_allowed', name)
})

t.test('keys of projects and of everything name the environment', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  await root.post('/api/v1/projects', { key: 'shop', name: 'Shop' })
  const shop = await anEnvironment(postern, { project: 'shop' })
  const other = await anEnvironment(postern)
  const ofShop = (await anApiKey(postern, { level: 'project', project: 'shop' })).client
  const ofAll = (await anApiKey(postern, { level: 'org' })).client
  const make = async (client: Client, headers?: Record<string, string>) =>
    await client.post('/api/v1/users', { key: crypto.randomUUID() }, headers)

  const made = idOf(await make(ofShop, inEnvironment(shop.name)))
  t.equal((await ofAll.get(`/api/v1/users/${made}`, inEnvironment(shop.id))).statusCode, 200)
  isProblem(t, await ofAll.get(`/api/v1/users/${made}`, inEnvironment(other.name)), 'user_not_found')
  isProblem(t, await ofAll.get(`/api/v1/users/${made}`), 'user_not_found', 'default/default')
  t.equal((await ofAll.get(`/api/v1/users/${postern.rootId}`)).statusCode, 200)
  isProblem(t, await make(ofAll, inEnvironment('nope')), 'environment_not_found')
  isProblem(t, await make(ofShop, inEnvironment('shop/nope')), 'environment_not_found')
  for (const name of [other.name, other.id, 'default/default', 'default', 'blog/nope'])
    isProblem(t, await make(ofShop, inEnvironment(name)), 'environment_not_allowed', name)
  isProblem(t, await make(ofShop), 'environment_not_found', 'the project has no environment `default`')
  await anEnvironment(postern, { project: 'shop', key: 'default' })
  t.equal((await make(ofShop)).statusCode, 201)
})

t.test('of people only those who hold it everywhere may name another environment', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  const { a, ids } = await twoEnvironments(postern)
  const user = `/api/v1/users/${ids.userId}`

  t.equal((await root.get(user, inEnvironment(a.name))).statusCode, 200)
  t.equal((await root.patch(user, { full_name: 'Ada' }, inEnvironment(a.name))).statusCode, 200)
  t.equal((await root.get('/api/v1/audit-events', inEnvironment(a.id))).statusCode, 200)
  for (const role of ['ADMIN', 'ACCOUNT_ADMIN', 'GUEST']) {
    const { client } = await person(role)
    for (const path of [user, '/api/v1/roles', '/api/v1/users'])
      isProblem(t, await client.get(path, inEnvironment(a.name)), 'insufficient_scope', `${role} ${path}`)
    isProblem(t, await client.get('/api/v1/roles', inEnvironment('nope')), 'insufficient_scope')
    for (const name of ['default', 'default/default', '00000000-0000-7000-8000-000000000001'])
      t.equal((await client.get('/api/v1/roles', inEnvironment(name))).statusCode, 200, `${role} ${name}`)
  }

  await t.test('and what one holds in one account counts nowhere else', async (t) => {
    const { client, id } = await person('ACCOUNT_ADMIN')
    const reader = await root.post('/api/v1/roles', { name: 'reader' })
    await root.post(`/api/v1/users/${id}/roles`, { role_id: idOf(reader) })
    // The one permission that opens environments, held everywhere beside those of the account.
    const { pool } = postern.services.database
    await pool.query(
      `insert into role_permissions (environment_id, role_id, action_id)
       select r.environment_id, r.id, a.id from roles r, actions a join resources s on s.id = a.resource_id
       where r.id = $1 and s.key = 'postern.environments' and a.key = 'read'`,
      [idOf(reader)],
    )
    await pool.query('update role_assignments set account_id = null where role_id = $1', [idOf(reader)])
    const { email } = (await root.get(`/api/v1/users/${id}`)).json<{ email: string }>()
    const there = postern.as(await postern.signIn(email))

    t.equal((await there.get('/api/v1/roles', inEnvironment(a.name))).statusCode, 200)
    isProblem(t, await there.get(user, inEnvironment(a.name)), 'insufficient_scope')
    const account = `/api/v1/accounts/${ids.accountId}`
    isProblem(t, await there.get(account, inEnvironment(a.name)), 'insufficient_scope')
    t.equal((await there.get(`/api/v1/accounts/${postern.home}`)).statusCode, 200)
    t.ok(client)
  })
})

t.test('a header that is no name is refused, and nothing done', async (t) => {
  const postern = await buildTestApp(t)
  const { client } = await anApiKey(postern, { level: 'org' })

  for (const name of ['', 'a/b/c', '/', 'a/', '/a', 'a b', "x' or 1", 'ä', '..', 'x'.repeat(129), 'a, b']) {
    for (const caller of [postern.root, client]) {
      const response = await caller.post('/api/v1/users', { key: 'x' }, inEnvironment(name))
      isProblem(t, response, 'validation_failed', name)
      t.same(pointersOf(response), ['/headers/postern-environment'])
    }
  }
  isProblem(t, await postern.root.get('/api/v1/users', inEnvironment('nope')), 'environment_not_found')
  isProblem(t, await postern.anonymous.get('/api/v1/users', inEnvironment('a b')), 'authentication_required')
  t.same((await postern.root.get('/api/v1/users?key=x')).json(), [])
})

t.test('what is a person’s own is of the default environment', async (t) => {
  const postern = await buildTestApp(t)
  const { a } = await twoEnvironments(postern)
  const { client, id } = await postern.person('GUEST')
  const header = inEnvironment(a.name)

  t.match((await client.get('/api/v1/users/me', header)).json(), { id })
  t.equal((await client.get('/api/v1/users/me/accounts', header)).statusCode, 200)
  t.equal((await client.get('/api/v1/accounts/me', header)).statusCode, 200)
  t.equal((await client.post('/api/v1/auth/test-token', undefined, header)).statusCode, 200)
})

t.test('an environment that goes while it is written to is a 404, and no fault', async (t) => {
  const postern = await buildTestApp(t)
  const { root, services } = postern
  const { id, name } = await anEnvironment(postern)
  const { client } = await anApiKey(postern, { level: 'org' })
  const header = inEnvironment(name)
  t.equal((await client.get('/api/v1/users', header)).statusCode, 200)
  // As another process would: this one still takes it for there.
  await services.database.pool.query('delete from environments where id = $1', [id])

  for (const [path, body] of [
    ['/users', { key: 'x' }],
    ['/accounts', { name: 'x' }],
    ['/roles', { name: 'x' }],
  ] as const) {
    const response = await client.post(`/api/v1${path}`, body, header)
    t.equal(response.statusCode, 404, `${path}: ${response.body}`)
  }
  isProblem(t, await root.delete(`/api/v1/environments/${id}`), 'environment_not_found')
})
