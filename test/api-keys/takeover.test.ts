import t from 'tap'
import { anApiKey, anEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'

const stateOf = async (root: Client, id: string) => (await root.get(`/api/v1/users/${id}`)).json<object>()

t.test('nobody is taken over with an API key', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, account, roleId, services } = postern
  const { client } = await anApiKey(postern)
  const there = await account()
  const synced = (
    await root.post('/api/v1/users', { email: 'synced@postern.test', password: PASSWORD })
  ).json<{
    id: string
  }>().id
  // Somebody with a built-in role, but no password.
  await services.database.pool.query('delete from user_credentials where user_id = $1', [synced])
  await root.post(`/api/v1/users/${synced}/roles`, { role_id: await roleId('GUEST'), account_id: there })
  const victims = {
    'the super admin': postern.rootId,
    'another super admin': (await person('SUPER_ADMIN')).id,
    'an account admin': (await person('ACCOUNT_ADMIN')).id,
    'somebody with a password and no role': (await person()).id,
    'somebody with a built-in role and no password': synced,
  }

  for (const [who, id] of Object.entries(victims)) {
    await t.test(`${who} keeps what they are`, async (t) => {
      const user = `/api/v1/users/${id}`
      const before = await stateOf(root, id)

      for (const [method, path, body] of [
        ['PATCH', user, { email: 'mine@postern.test' }],
        ['PUT', user, { email: 'mine@postern.test', full_name: 'x' }],
        ['PATCH', user, { key: 'mine' }],
        ['PATCH', user, { is_active: false }],
        ['PATCH', user, { password: 'a password of the attacker' }],
        ['PATCH', user, { account_id: there }],
        ['POST', `${user}/deactivate`],
        ['POST', `/api/v1/accounts/${there}/users`, { user_id: id }],
        ['DELETE', user],
      ] as const) {
        const response = await client.send(method, path, body)
        isProblem(t, response, 'user_is_protected', `${method} ${path} ${JSON.stringify(body)}`)
      }
      t.same(await stateOf(root, id), before, 'nothing has changed')
    })
    await t.test(`${who} may be called and described differently`, async (t) => {
      const { email, key } = (await stateOf(root, id)) as { email: string; key: string }
      const changes = { full_name: 'Renamed', attributes: { from: 'a directory' } }

      const response = await client.patch(`/api/v1/users/${id}`, { ...changes, email, key, is_active: true })

      t.equal(response.statusCode, 200, response.body)
      t.match(response.json(), { ...changes, email, key, is_active: true })
    })
  }

  await t.test('nor reactivated, which only looks harmless', async (t) => {
    const { id } = await person('GUEST')
    await root.post(`/api/v1/users/${id}/deactivate`)

    isProblem(t, await client.post(`/api/v1/users/${id}/reactivate`), 'user_is_protected')
  })
  await t.test('and whoever nobody signs in as may be changed', async (t) => {
    const { id } = (await client.post('/api/v1/users', { key: 'robot' })).json<{ id: string }>()
    const user = `/api/v1/users/${id}`

    t.equal((await client.patch(user, { email: 'robot@postern.test', key: 'r2' })).statusCode, 200)
    t.equal((await client.post(`${user}/deactivate`)).statusCode, 200)
    t.equal((await client.patch(user, { account_id: there })).statusCode, 200)
    t.equal((await client.delete(user)).statusCode, 204)
  })
})

t.test('a key gives nobody a password', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, anonymous } = postern
  const { client } = await anApiKey(postern)
  const fields = { email: 'ada@postern.test', password: 'a password of the attacker' }

  const created = await client.post('/api/v1/users', fields)
  const { id } = (await client.post('/api/v1/users', { email: fields.email })).json<{ id: string }>()
  const changed = await client.patch(`/api/v1/users/${id}`, { password: fields.password })

  for (const response of [created, changed]) {
    isProblem(t, response, 'validation_failed')
    t.same(pointersOf(response), ['/body/password'])
  }
  isProblem(t, await anonymous.post('/api/v1/auth/login', fields), 'invalid_credentials')

  await t.test('while people must give one', async (t) => {
    const response = await root.post('/api/v1/users', { full_name: 'x' })

    isProblem(t, response, 'validation_failed')
    t.same(pointersOf(response), ['/body/email', '/body/password'])
  })
  await t.test('and the administrator, with a token, may give one later', async (t) => {
    t.equal((await root.patch(`/api/v1/users/${id}`, { password: PASSWORD })).statusCode, 200)

    isProblem(t, await client.patch(`/api/v1/users/${id}`, { email: 'x@postern.test' }), 'user_is_protected')
    t.ok(await postern.signIn(fields.email))
  })
  t.ok(await person())
})

t.test('a key gives and takes no built-in role', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId, account, home } = postern
  const { client } = await anApiKey(postern)
  const { id: robot } = (await client.post('/api/v1/users', { key: 'robot', account_id: home })).json<{
    id: string
  }>()
  const custom = (await client.post('/api/v1/roles', { name: 'editor' })).json<{ id: string }>().id
  const admin = (await person('ADMIN')).id
  const guest = (await person('GUEST')).id

  for (const role of ['GUEST', 'ACCOUNT_MANAGER', 'ACCOUNT_ADMIN', 'ADMIN', 'SUPER_ADMIN']) {
    const role_id = await roleId(role)
    const account_id = home
    isProblem(
      t,
      await client.post('/api/v1/user-roles', { user_id: robot, role_id }),
      'grant_exceeds_own',
      role,
    )
    isProblem(
      t,
      await client.post(`/api/v1/users/${robot}/roles`, { role_id, account_id }),
      'grant_exceeds_own',
    )
    isProblem(t, await client.put(`/api/v1/roles/${role_id}`, { name: 'x' }), 'role_is_builtin')
  }
  for (const id of [postern.rootId, admin, guest]) {
    const held = (await root.get(`/api/v1/users/${id}/roles`)).json<{ id: string }[]>()
    isProblem(t, await client.put(`/api/v1/user-roles/${id}`, { role_id: custom }), 'grant_exceeds_own')
    isProblem(t, await client.delete(`/api/v1/user-roles/${id}`), 'grant_exceeds_own')
    isProblem(t, await client.delete(`/api/v1/users/${id}/roles/${held[0]?.id}`), 'grant_exceeds_own')
    t.same((await root.get(`/api/v1/users/${id}/roles`)).json(), held)
  }

  await t.test('nor by ending a membership', async (t) => {
    const there = await account()
    const { id } = await person()
    await root.put(`/api/v1/accounts/${there}/members/${id}`)
    await root.post(`/api/v1/users/${id}/roles`, { role_id: await roleId('GUEST'), account_id: there })

    isProblem(t, await client.delete(`/api/v1/accounts/${there}/members/${id}`), 'grant_exceeds_own')
  })
  await t.test('but roles of the application as it likes', async (t) => {
    t.equal((await client.post('/api/v1/user-roles', { user_id: robot, role_id: custom })).statusCode, 201)
    t.equal((await client.post(`/api/v1/users/${admin}/roles`, { role_id: custom })).statusCode, 201)
    t.equal((await client.delete(`/api/v1/user-roles/${robot}`)).statusCode, 204)
  })
})

t.test('accounts that people are at home in stay as active as they are', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, account, home } = postern
  const { client } = await anApiKey(postern)
  const [lively, blocked, robots] = [await account(), await account(), await account()]
  await person(undefined, { accountId: lively })
  await person(undefined, { accountId: blocked })
  await root.post(`/api/v1/accounts/${blocked}/deactivate`)
  await client.post('/api/v1/users', { key: 'robot', account_id: robots })

  for (const id of [home, lively]) {
    const path = `/api/v1/accounts/${id}`
    isProblem(t, await client.post(`${path}/deactivate`), 'user_is_protected')
    isProblem(t, await client.patch(path, { is_active: false }), 'user_is_protected')
    t.match((await root.get(path)).json(), { is_active: true })
    t.equal((await client.patch(path, { description: 'x', is_active: true })).statusCode, 200)
  }
  isProblem(t, await client.delete(`/api/v1/accounts/${lively}`), 'account_has_people')
  isProblem(t, await client.post(`/api/v1/accounts/${blocked}/reactivate`), 'user_is_protected')
  t.equal((await client.post(`/api/v1/accounts/${robots}/deactivate`)).statusCode, 200)
})

t.test('in other environments nobody has a password, and nobody is the last super admin', async (t) => {
  const postern = await buildTestApp(t)
  const environment = await anEnvironment(postern)
  const header = { 'postern-environment': environment.name }
  const { client } = await anApiKey(postern, { environment: environment.name })

  for (const asked of [
    await postern.root.post('/api/v1/users', { email: 'a@postern.test', password: PASSWORD }, header),
    await client.post('/api/v1/users', { email: 'a@postern.test', password: PASSWORD }),
  ]) {
    isProblem(t, asked, 'validation_failed')
    t.same(pointersOf(asked), ['/body/password'])
  }
  const created = await postern.root.post('/api/v1/users', { key: 'ada' }, header)
  t.equal(created.statusCode, 201, created.body)
  t.match(created.json(), { key: 'ada', email: null })
  const user = `/api/v1/users/${created.json<{ id: string }>().id}`
  const password = await postern.root.patch(user, { password: PASSWORD }, header)
  isProblem(t, password, 'validation_failed')
  t.equal((await client.post(`${user}/deactivate`)).statusCode, 200)
  t.equal((await client.post(`${user}/reactivate`)).statusCode, 200)
  t.equal((await postern.root.delete(user, header)).statusCode, 204)
})
