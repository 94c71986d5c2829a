import { decodeJwt } from 'jose'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { anEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, pythonClient, refusalOf, sdk, storeExample } from '../helpers/permit.ts'

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/
const F = '/v2/facts/default/default'

t.test('the management API', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, { tenants: [{ key: 'acme' }] })
  const permit = await pythonClient(postern)
  const reader = await pythonClient(postern, 'read')

  await t.test('tells what a key opens, and takes its environment in every spelling', async (t) => {
    const scope = (await permit.get('/v2/api-key/scope')).json()
    t.match(scope, { organization_id: UUID, project_id: UUID, environment_id: DEFAULT_ENVIRONMENT })
    const undashed = (id: string) => id.replaceAll('-', '')
    for (const path of [
      `${scope.project_id}/${scope.environment_id}`,
      `${undashed(scope.project_id)}/${undashed(scope.environment_id).toUpperCase()}`,
      'default/default',
    ])
      t.equal((await permit.get(`/v2/facts/${path}/users`)).statusCode, 200, path)
    t.equal((await permit.get('/facts/users')).statusCode, 200)

    const { name } = await anEnvironment(postern)
    for (const path of [name, `default/nowhere`, `nowhere/default`, `${DEFAULT_ENVIRONMENT}/default`]) {
      const refused = await permit.get(`/v2/facts/${path}/users`)
      t.equal(refused.statusCode, 403, path)
      t.equal(refused.json().error_code, 'FORBIDDEN_ACCESS')
    }
  })

  await t.test('a key of all environments reaches the one of the path', async (t) => {
    const environment = await anEnvironment(postern)
    const { key } = await postern.services.apiKeys.createKey(
      SYSTEM,
      { name: 'org', access: 'full', level: 'org' },
      DEFAULT_ENVIRONMENT,
    )
    const org = postern.as(key)

    t.match((await org.get('/v2/api-key/scope')).json(), { project_id: null, environment_id: null })
    t.equal((await org.put(`/v2/facts/${environment.name}/users/far`, {})).statusCode, 201)
    t.equal((await org.get(`/v2/facts/${environment.name}/users/far`)).json().environment_id, environment.id)
    t.equal((await org.get(`${F}/users/far`)).statusCode, 404)
    t.equal((await org.get('/v2/facts/default/nowhere/users')).statusCode, 404)
  })

  await t.test('shows people whole, by key and by id with or without dashes', async (t) => {
    const made = await permit.post(`${F}/users`, { key: 'ada', email: 'Ada@x.test', unknown: 1 })
    t.equal(made.statusCode, 200)
    const ada = made.json()
    t.match(ada, { id: UUID, organization_id: UUID, project_id: UUID, environment_id: UUID })
    t.same([ada.attributes, ada.roles, ada.associated_tenants], [{}, [], []])
    for (const name of [ada.id, ada.id.replaceAll('-', ''), 'ada'])
      t.same((await permit.get(`${F}/users/${name}`)).json(), ada)
  })

  await t.test('answers failures as Permit does', async (t) => {
    const missing = await permit.get(`${F}/users/nobody`)
    t.equal(missing.headers['content-type'], 'application/json')
    t.match(missing.json(), {
      id: String,
      title: 'User does not exist',
      error_code: 'NOT_FOUND',
      message: String,
      support_link: 'http://postern.test/problems/user_not_found',
      additional_info: null,
    })
    const taken = await permit.post(`${F}/users`, { key: 'ada' })
    t.match([taken.statusCode, taken.json()], [409, { error_code: 'DUPLICATE_ENTITY' }])
    t.equal((await permit.post(`${F}/users`, { key: 'other', email: 'ADA@x.test' })).statusCode, 409)
    const invalid = await permit.post(`${F}/users`, { key: 'a b', email: 'no' })
    t.equal(invalid.statusCode, 422)
    t.match(invalid.json(), {
      detail: [{ loc: ['body', 'key'], msg: String, type: 'value_error' }, { loc: ['body', 'email'] }],
    })
    const stranger = await postern.anonymous.get(`${F}/users`)
    t.match([stranger.statusCode, stranger.json()], [401, { error_code: 'UNAUTHORIZED' }])
    t.equal((await permit.get(`${F}/users?per_page=101`)).statusCode, 422)
    t.equal((await permit.post(`${F}/role_assignments`, { user: 'ada', role: 'reader' })).statusCode, 422)
    for (const grant of [
      { user: 'ada', role: 'reader', tenant: 'nowhere' },
      { user: 'ada', role: 'nothing', tenant: 'acme' },
      { user: 'nobody', role: 'reader', tenant: 'acme' },
      { user: 'ada', role: 'editor', resource_instance: 'nothing:x', tenant: 'acme' },
      { user: 'ada', role: 'reader', resource_instance: 'document:x', tenant: 'acme' },
    ])
      t.equal((await permit.post(`${F}/role_assignments`, grant)).statusCode, 404, JSON.stringify(grant))
  })

  await t.test('roles of one user, as the Python SDK gives and takes them', async (t) => {
    const grant = { role: 'reader', tenant: 'acme', resource_instance: null }
    t.match((await permit.post(`${F}/users/ada/roles`, grant)).json(), {
      user: 'ada',
      role: 'reader',
      tenant: 'acme',
    })
    t.equal((await permit.post('/facts/users/ada/roles', grant)).statusCode, 409)
    t.equal((await permit.send('DELETE', `${F}/users/ada/roles`, grant)).statusCode, 204)
    t.equal((await permit.send('DELETE', `${F}/users/ada/roles`, grant)).statusCode, 404)
  })

  await t.test('filters may be repeated, and waiting may be asked for', async (t) => {
    for (const user of ['ada', 'bob', 'cyd']) {
      await permit.put(`${F}/users/${user}`, {}, { 'x-wait-timeout': '0', 'x-timeout-policy': 'fail' })
      await permit.post(`${F}/role_assignments`, { user, role: 'reader', tenant: 'acme' })
    }
    const listed = (await permit.get(`${F}/role_assignments?user=ada&user=cyd&tenant=`)).json<
      { user: string }[]
    >()
    t.same(
      listed.map(({ user }) => user),
      ['ada', 'cyd'],
    )
  })

  await t.test('missing users of a bulk request: refused, left out or made', async (t) => {
    const grants = [{ user: 'eve', role: 'reader', tenant: 'acme' }]
    const bulk = async (policy: string, client = permit) =>
      await client.post(`${F}/role_assignments/bulk?missing_user_policy=${policy}`, grants)
    t.equal((await bulk('fail')).statusCode, 404)
    t.same((await bulk('ignore')).json(), { assignments_created: 0 })
    t.same((await bulk('create')).json(), { assignments_created: 1 })
    t.equal((await permit.get(`${F}/users/eve`)).statusCode, 200)
    t.equal((await bulk('magic')).statusCode, 422)
  })

  await t.test('adds people to a tenant', async (t) => {
    const added = await permit.post(`${F}/tenants/acme/users`, { key: 'fay' })
    t.match(added.json(), { key: 'fay', associated_tenants: [{ tenant: 'acme', status: 'active' }] })
    t.same(added.json().associated_tenants[0].roles, [])
    const { data } = (await permit.get(`${F}/tenants/acme/users?search=fay`)).json()
    matchEach(t, data, [{ key: 'fay' }])
    t.equal((await permit.delete(`${F}/tenants/default/users/fay`)).statusCode, 404)
  })

  await t.test('a key that may only read writes nothing', async (t) => {
    t.equal((await reader.get(`${F}/users`)).statusCode, 200)
    t.equal((await reader.get(`${F}/role_assignments`)).statusCode, 200)
    for (const [method, path, body] of [
      ['POST', 'users', { key: 'x' }],
      ['PUT', 'users/x', { key: 'x' }],
      ['DELETE', 'users/ada', undefined],
      ['POST', 'tenants', { key: 'x', name: 'X' }],
      ['DELETE', 'tenants/acme', undefined],
      ['POST', 'role_assignments', { user: 'ada', role: 'reader', tenant: 'default' }],
    ] as const) {
      const refused = await reader.send(method, `${F}/${path}`, body)
      t.match(
        [refused.statusCode, refused.json()],
        [403, { error_code: 'FORBIDDEN_ACCESS' }],
        `${method} ${path}`,
      )
    }
  })

  await t.test('built-in roles can be neither seen nor given', async (t) => {
    const builtin = await postern.roleId('SUPER_ADMIN')
    for (const role of ['SUPER_ADMIN', builtin])
      t.equal(
        (await permit.post(`${F}/role_assignments`, { user: 'ada', role, tenant: 'default' })).statusCode,
        404,
      )
    const root = (await permit.get(`${F}/users/${postern.rootId}`)).json()
    t.equal(root.email, SUPER_ADMIN_EMAIL)
    t.same(root.roles, [])
    t.same((await permit.get(`${F}/role_assignments?user=${postern.rootId}`)).json(), [])
    t.equal((await permit.get(`${F}/users?role=SUPER_ADMIN`)).json().total_count, 0)
  })

  await t.test('whoever can sign in keeps email, activity and existence', async (t) => {
    const person = await postern.person()
    const path = `${F}/users/${person.id}`
    for (const response of [
      await permit.patch(path, { email: 'taken-over@x.test' }),
      await permit.patch(path, { email: null }),
      await permit.put(path, { email: 'taken-over@x.test' }),
      await permit.delete(path),
      await permit.patch(`${F}/users/${postern.rootId}`, { email: 'taken-over@x.test' }),
      await permit.delete(`${F}/users/${postern.rootId}`),
    ])
      t.equal(response.statusCode, 409)

    const kept = await permit.patch(path, {
      email: person.email.toUpperCase(),
      first_name: 'New',
      attributes: { a: 1 },
    })
    t.match(kept.json(), { email: person.email, first_name: 'New', attributes: { a: 1 } })
    t.equal((await permit.patch(path, { is_active: false })).statusCode, 200)
    t.equal((await person.client.get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test(
    'a synced user is the one that an administrator sees, and signs in with synced roles',
    async (t) => {
      const { root, signIn, services } = postern
      const { api } = sdk((await listenForSdk(t, postern)).url, (await apiKey(postern)).key, {
        log: { level: 'silent' },
      })
      const email = 'uma@postern.test'
      await api.roles.create({ key: 'editor', name: 'Editor', permissions: ['document:edit'] })
      const { user, created } = await api.users.sync({
        key: 'app|uma',
        email,
        first_name: 'Uma',
        attributes: { level: 3 },
        role_assignments: [{ role: 'editor', tenant: 'acme' }],
      })
      t.equal(created, true)

      const acme = await services.accounts.findByKeyOrId('acme')
      const [seen] = (await root.get(`/api/v1/users?email=${email}`)).json<{ id: string }[]>()
      t.match(seen, { id: user.id, key: 'app|uma', email, first_name: 'Uma', attributes: { level: 3 } })
      matchEach(t, (await root.get(`/api/v1/users/${user.id}/roles`)).json(), [
        { role: { name: 'Editor' }, account_id: acme?.id },
      ])
      const members = (await root.get(`/api/v1/accounts/${acme?.id}/members`)).json<{ user_id: string }[]>()
      t.equal(members.filter(({ user_id }) => user_id === user.id).length, 1)
      const changes = { first_name: 'Una', attributes: { level: 4 } }
      t.equal((await root.patch(`/api/v1/users/${user.id}`, changes)).statusCode, 200)
      t.match(await api.users.get('app|uma'), { id: user.id, ...changes })
      t.match(await api.users.sync({ key: 'app|uma', last_name: 'Two' }), { created: false, user: changes })

      const credentials = { password: PASSWORD, account_id: acme?.id }
      t.equal((await root.patch(`/api/v1/users/${user.id}`, credentials)).statusCode, 200)
      const claims = decodeJwt(await signIn(email))
      t.match(claims, { sub: user.id, account_id: acme?.id, scope: 'document:edit' })
      t.same(claims['roles'], ['editor'])

      const other = 'mallory@postern.test'
      for (const [what, call] of Object.entries({
        update: () => api.users.update('app|uma', { email: other }),
        sync: () => api.users.sync({ key: user.id, email: other }),
        'sync of another with the email': () => api.users.sync({ key: 'mallory', email }),
        create: () => api.users.create({ key: 'mallory', email: email.toUpperCase() }),
        'create under the id': () => api.users.create({ key: user.id, email: other }),
        delete: () => api.users.delete('app|uma'),
        'bulk create': () => api.users.bulkUserCreate([{ key: 'mallory', email }]),
        'bulk replace': () => api.users.bulkUserReplace([{ key: 'app|uma', email: other }]),
        'bulk delete': () => api.users.bulkUserDelete(['app|uma']),
      }))
        t.match(await refusalOf(call()), /^409 /, what)
      t.equal(decodeJwt(await signIn(email)).sub, user.id)
    },
  )

  await t.test('a tenant with people of its own stays', async (t) => {
    const accountId = await postern.account('Homes')
    await postern.person('GUEST', { accountId })
    t.equal((await permit.delete(`${F}/tenants/${accountId}`)).statusCode, 403)

    await permit.post(`${F}/tenants`, { key: 'passing', name: 'Passing' })
    const grant = { user: 'ada', role: 'editor', resource_instance: 'document:p1', tenant: 'passing' }
    await permit.post(`${F}/role_assignments`, grant)
    t.equal((await permit.delete(`${F}/tenants/passing`)).statusCode, 204)
    t.equal((await permit.get(`${F}/role_assignments?resource_instance=document:p1`)).json().length, 0)
    await permit.post(`${F}/role_assignments`, { ...grant, tenant: 'acme' })
    matchEach(t, (await permit.get(`${F}/role_assignments?resource_instance=document:p1`)).json(), [
      { tenant: 'acme' },
    ])
  })

  await t.test('writes are in the audit trail, by the key that made them', async (t) => {
    const events = (await postern.root.get('/api/v1/audit-events?limit=1000')).json<
      { action: string; actor_type: string }[]
    >()
    const made = events.filter(({ action }) =>
      ['user.created', 'role.assigned', 'instance.created'].includes(action),
    )
    t.ok(made.some((event) => event.actor_type === 'api_key'))
  })

  await t.test('an administrator of all accounts may use it, one of an account may not', async (t) => {
    const admin = await postern.person('ADMIN')
    const accountAdmin = await postern.person('ACCOUNT_ADMIN')
    t.equal((await admin.client.get(`${F}/users`)).statusCode, 200)
    t.equal((await accountAdmin.client.get(`${F}/users`)).statusCode, 403)
    t.equal((await admin.client.patch(`${F}/users/${postern.rootId}`, { first_name: 'X' })).statusCode, 403)
  })

  await t.test('two syncs of one new person at the same time both succeed', async (t) => {
    const responses = await Promise.all(
      [1, 2, 3, 4].map(async (age) => await permit.put(`${F}/users/twin`, { attributes: { age } })),
    )
    t.same(responses.map(({ statusCode }) => statusCode).sort(), [200, 200, 200, 201])
  })
})
