import t from 'tap'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList, walk } from '../helpers/lists.ts'

type Role = {
  id: string
  key: string
  name: string
  description: string | null
  scopes: string[]
  is_builtin: boolean
}
type Assignment = { id: string; account_id: string | null; is_primary: boolean; role: { name: string } }

async function aRole({ root }: TestApp, fields: Record<string, unknown> = {}): Promise<Role> {
  const response = await root.post('/api/v1/roles', { name: `role-${crypto.randomUUID()}`, ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<Role>()
}

const scopesOf = async (client: Client): Promise<string[]> =>
  (await client.get('/api/v1/users/me/permissions')).json<{ scopes: string[] }>().scopes

t.test('the five roles are there from the start, and anyone signed in may read them', async (t) => {
  const { person } = await buildTestApp(t)
  const { client } = await person()

  const response = await client.get('/api/v1/roles/')

  t.equal(response.statusCode, 200)
  const roles = response.json<(Role & { default_reach: string })[]>()
  t.same(roles.map(({ name, description, default_reach }) => [name, description, default_reach]).sort(), [
    ['ACCOUNT_ADMIN', 'Primary Administrator/Superuser For an Account', 'account'],
    ['ACCOUNT_MANAGER', 'Day to Day Administrator of Events For an Account', 'account'],
    ['ADMIN', 'Admin of Application Ecosystem', 'any'],
    ['GUEST', 'A Guest Account', 'account'],
    ['SUPER_ADMIN', 'Super Administrator of Application Ecosystem', 'any'],
  ])
  t.ok(roles.every((role) => role.is_builtin && role.key === role.name))
  const one = await client.get(`/api/v1/roles/${roles[0]?.id}`)
  t.same(one.json(), roles[0])
  t.match(one.headers['etag'], /^"\d+"$/)
})

t.test('a role of the application is created', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern

  await t.test('with its scopes, which are declared on the way', async (t) => {
    const fields = {
      name: 'editor',
      description: 'May write posts',
      scopes: ['post:write', 'post:read', 'draft-2:do_it'],
    }

    const response = await root.post('/api/v1/roles', fields)

    t.equal(response.statusCode, 201)
    const role = response.json<Role>()
    t.match(role, {
      key: 'editor',
      name: 'editor',
      description: 'May write posts',
      default_reach: 'account',
      is_builtin: false,
    })
    t.same(role.scopes, ['draft-2:do_it', 'post:read', 'post:write'])
    t.equal(response.headers['location'], `/api/v1/roles/${role.id}`)
    const read = await root.get(`/api/v1/roles/${role.id}`)
    t.same(read.json(), role)
    t.equal(response.headers['etag'], read.headers['etag'])
  })

  await t.test('with a key of its own when the name is none', async (t) => {
    const unnamed = await root.post('/api/v1/roles', { name: 'Chief editor' })
    const named = await root.post('/api/v1/roles/', {
      name: 'Chief editor',
      key: 'chief-editor',
      default_reach: 'any',
    })

    isProblem(t, unnamed, 'validation_failed')
    t.same(pointersOf(unnamed), ['/body/key'])
    t.match(named.json(), { key: 'chief-editor', name: 'Chief editor', default_reach: 'any' })
    t.equal(named.json().description, null)
    t.same(named.json().scopes, [])
  })

  await t.test('but not with a key or id that another role has', async (t) => {
    const other = await aRole(postern)

    isProblem(t, await root.post('/api/v1/roles', { name: other.key }), 'role_key_taken')
    isProblem(t, await root.post('/api/v1/roles', { name: 'x', key: other.id }), 'role_key_taken')
    isProblem(t, await root.post('/api/v1/roles', { name: 'GUEST' }), 'role_key_taken')
    const raced = await Promise.all(
      ['r', 'r', 'r'].map(async (name) => await root.post('/api/v1/roles', { name })),
    )
    t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  })

  await t.test('and every fault is named by a pointer', async (t) => {
    for (const [body, pointer] of [
      [{}, '/body/name'],
      [{ name: '' }, '/body/name'],
      [{ name: 'x'.repeat(129) }, '/body/name'],
      [{ name: 5 }, '/body/name'],
      [{ name: 'x', key: 'a b' }, '/body/key'],
      [{ name: 'x', key: 'postern.x' }, '/body/key'],
      [{ name: 'x', key: '' }, '/body/key'],
      [{ name: 'x', key: null }, '/body/key'],
      [{ name: 'x', description: 'x'.repeat(1001) }, '/body/description'],
      [{ name: 'x', default_reach: 'everywhere' }, '/body/default_reach'],
      [{ name: 'x', default_reach: null }, '/body/default_reach'],
      [{ name: 'x', scopes: 'post:read' }, '/body/scopes'],
      [{ name: 'x', scopes: null }, '/body/scopes'],
      [{ name: 'x', scopes: ['post:read', 'post'] }, '/body/scopes/1'],
      [{ name: 'x', scopes: [5] }, '/body/scopes/0'],
      [{ name: 'x', scopes: ['a:b', 'a:b'] }, '/body/scopes'],
      [{ name: 'x', scopes: Array.from({ length: 501 }, (_, index) => `a:b${index}`) }, '/body/scopes'],
      [{ name: 'x', scopes: [`${'a'.repeat(257)}:b`] }, '/body/scopes/0'],
      [{ name: 'x', permissions: [] }, '/body/permissions'],
    ] as const) {
      const response = await root.post('/api/v1/roles', body)
      isProblem(t, response, 'validation_failed', JSON.stringify(body).slice(0, 80))
      t.ok(pointersOf(response).includes(pointer), `${pointer}: ${pointersOf(response)}`)
    }
    isProblem(t, await root.post('/api/v1/roles', { name: 'x\0', key: 'x' }), 'validation_failed')
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: '/api/v1/roles' })
  })
})

t.test('roles that name the same new resource at the same time are all created', async (t) => {
  const { root } = await buildTestApp(t)
  const scopes = Array.from({ length: 20 }, (_, index) => `shared${index}:read`)

  const responses = await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      const shuffled = index % 2 === 0 ? scopes : scopes.toReversed()
      return await root.post('/api/v1/roles', { name: `parallel-${index}`, scopes: shuffled })
    }),
  )

  t.same(
    responses.map(({ statusCode }) => statusCode),
    [201, 201, 201, 201, 201, 201],
  )
  t.ok(responses.every((response) => response.json<Role>().scopes.length === 20))
})

t.test('a list of roles', async (t) => {
  const postern = await buildTestApp(t)
  for (let index = 0; index < 4; index++) await aRole(postern, { name: `listed-${index}` })

  await pagesLikeEveryList(t, { client: postern.root, path: '/api/v1/roles', sorts: ['created_at'] })

  await t.test('is filtered by key', async (t) => {
    const found = (await postern.root.get('/api/v1/roles?key=listed-2')).json<Role[]>()

    t.same(
      found.map(({ key }) => key),
      ['listed-2'],
    )
    t.same((await postern.root.get('/api/v1/roles?key=LISTED-2')).json(), [])
    isProblem(t, await postern.root.get('/api/v1/roles?key=%00'), 'validation_failed')
    isProblem(t, await postern.root.get(`/api/v1/roles?key=${'x'.repeat(129)}`), 'validation_failed')
  })

  await t.test('shows each role once while others are created', async (t) => {
    const before = (await postern.root.get('/api/v1/roles')).json<Role[]>().map(({ id }) => id)

    const walked = await walk<Role>(postern.root, '/api/v1/roles?limit=2', async (page) => {
      if (page < 4) await Promise.all([aRole(postern), aRole(postern)])
    })

    const ids = walked.map(({ id }) => id)
    t.equal(new Set(ids).size, ids.length)
    t.same(
      before.filter((id) => !ids.includes(id)),
      [],
    )
  })
})

t.test('a role of the application is changed', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(`with ${method}: absent fields stay, null clears, scopes are replaced`, async (t) => {
      const role = await aRole(postern, { description: 'Old', scopes: ['a:read', 'a:write'] })
      const path = `/api/v1/roles/${role.id}`

      const renamed = await root.send(method, path, { name: 'New name' })
      const rescoped = await root.send(method, `${path}/`, {
        description: null,
        scopes: ['b:read', 'a:read'],
        default_reach: 'any',
      })

      t.match(renamed.json(), {
        name: 'New name',
        key: role.key,
        description: 'Old',
        scopes: ['a:read', 'a:write'],
      })
      t.match(rescoped.json(), { name: 'New name', description: null, default_reach: 'any' })
      t.same(rescoped.json<Role>().scopes, ['a:read', 'b:read'])
      t.same((await root.send(method, path, { scopes: [] })).json<Role>().scopes, [])
    })

    await t.test(`with ${method}: only in the state it is meant for`, async (t) => {
      const { id } = await aRole(postern)
      const path = `/api/v1/roles/${id}`
      const tag = String((await root.get(path)).headers['etag'])
      const send = async (ifMatch: string) =>
        await root.send(method, path, { name: 'x' }, { 'if-match': ifMatch })

      const responses = await Promise.all([send(tag), send(tag), send(tag)])

      t.same(responses.map(({ statusCode }) => statusCode).sort(), [200, 412, 412])
      const now = String((await root.get(path)).headers['etag'])
      isProblem(t, await send(`W/${now}`), 'precondition_failed')
      t.equal((await send(`"nope", ${now}`)).statusCode, 200)
      t.equal((await send('*')).statusCode, 200)
    })

    await t.test(`with ${method}: faults leave it alone`, async (t) => {
      const role = await aRole(postern, { scopes: ['a:read'] })
      const path = `/api/v1/roles/${role.id}`

      for (const [body, pointer] of [
        [{}, '/body'],
        [{ name: null }, '/body/name'],
        [{ key: 'x' }, '/body/key'],
        [{ is_builtin: true }, '/body/is_builtin'],
        [{ scopes: ['a'] }, '/body/scopes/0'],
      ] as const) {
        const response = await root.send(method, path, body)
        isProblem(t, response, 'validation_failed', JSON.stringify(body))
        t.same(pointersOf(response), [pointer])
      }
      await refusesBadBodies(t, { app, token: rootToken, method, url: path })
      isProblem(t, await root.send(method, `/api/v1/roles/${NO_SUCH_ID}`, { name: 'x' }), 'role_not_found')
      t.same((await root.get(path)).json(), role)
    })
  }

  await t.test('and its holders have at once what is left of it', async (t) => {
    const { person, signIn, as, roleId } = postern
    const role = await aRole(postern, { scopes: ['post:read', 'post:write'] })
    const holder = await person(role.key)
    const bystander = await person('GUEST')

    await root.patch(`/api/v1/roles/${role.id}`, { scopes: ['post:read', 'post:write', 'post:delete'] })
    t.equal((await holder.client.get('/api/v1/users/me')).statusCode, 200, 'gaining a scope ends no token')
    await root.patch(`/api/v1/roles/${role.id}`, { scopes: ['post:read'] })

    t.equal((await holder.client.get('/api/v1/users/me')).statusCode, 401, 'losing a scope ends the token')
    t.equal((await bystander.client.get('/api/v1/users/me')).statusCode, 200)
    t.same(await scopesOf(as(await signIn(holder.email))), ['post:read'])
    t.ok(await roleId('GUEST'))
  })
})

t.test('a role is deleted when nobody holds it', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  const role = await aRole(postern)
  const path = `/api/v1/roles/${role.id}`
  const holder = await person(role.key)

  isProblem(t, await root.delete(path), 'role_in_use')
  await root.delete(`/api/v1/users/${holder.id}`)
  isProblem(t, await root.delete(path, { 'if-match': '"999"' }), 'precondition_failed')
  const response = await root.delete(path)

  t.equal(response.statusCode, 204)
  isProblem(t, await root.get(path), 'role_not_found')
  isProblem(t, await root.delete(path), 'role_not_found')
  t.equal((await root.post('/api/v1/roles', { name: role.key })).statusCode, 201, 'the key is free again')
})

t.test('a user has one primary role', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId, app, rootToken } = postern
  const guest = await roleId('GUEST')
  const manager = await roleId('ACCOUNT_MANAGER')
  const user = await person()
  const path = `/api/v1/user-roles/${user.id}`

  await t.test('given once', async (t) => {
    isProblem(t, await root.get(path), 'role_not_assigned')
    isProblem(t, await root.put(path, { role_id: guest }), 'role_not_assigned')
    isProblem(t, await root.delete(path), 'role_not_assigned')

    const response = await root.post('/api/v1/user-roles/', { user_id: user.id, role_id: guest })

    t.equal(response.statusCode, 201)
    t.same(response.json(), {
      user_id: user.id,
      role_id: guest,
      role: { id: guest, name: 'GUEST', description: 'A Guest Account' },
    })
    t.equal(response.headers['location'], path)
    t.same((await root.get(path)).json(), response.json())
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: user.id, role_id: manager }),
      'role_already_assigned',
    )
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: user.id, role_id: guest }),
      'role_already_assigned',
    )
  })

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(`replaced with ${method}`, async (t) => {
      const response = await root.send(method, path, { role_id: manager })

      t.equal(response.statusCode, 200)
      t.match(response.json(), { user_id: user.id, role: { name: 'ACCOUNT_MANAGER' } })
      t.same(
        (await root.send(method, `${path}/`, { role_id: manager.toUpperCase() })).json(),
        response.json(),
        'the same again',
      )
      isProblem(t, await root.send(method, path, { role_id: NO_SUCH_ID }), 'role_not_found')
      t.same((await root.get(path)).json(), response.json(), 'a refused change keeps the old role')
      await refusesBadBodies(t, { app, token: rootToken, method, url: path })
      t.equal((await root.send(method, path, { role_id: guest })).statusCode, 200)
    })
  }

  await t.test('taken away', async (t) => {
    t.equal((await root.delete(path)).statusCode, 204)
    isProblem(t, await root.get(path), 'role_not_assigned')
    t.equal((await root.get(`/api/v1/users/${user.id}`)).json<{ user_role: unknown }>().user_role, null)
  })

  await t.test('of unknown people and roles there is none', async (t) => {
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: NO_SUCH_ID, role_id: guest }),
      'user_not_found',
    )
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: user.id, role_id: NO_SUCH_ID }),
      'role_not_found',
    )
    isProblem(t, await root.get(`/api/v1/user-roles/${NO_SUCH_ID}`), 'user_not_found')
    isProblem(t, await root.put(`/api/v1/user-roles/${NO_SUCH_ID}`, { role_id: guest }), 'user_not_found')
    isProblem(t, await root.delete(`/api/v1/user-roles/${NO_SUCH_ID}`), 'user_not_found')
    const faulty = await root.post('/api/v1/user-roles', { user_id: 'x', role_id: 5 })
    isProblem(t, faulty, 'validation_failed')
    t.same(
      pointersOf(faulty).sort(),
      ['/body/role_id', '/body/role_id', '/body/user_id'].slice(-pointersOf(faulty).length),
    )
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: '/api/v1/user-roles' })
  })

  await t.test('which needs a home account unless it holds everywhere', async (t) => {
    const homeless = await person(undefined, { accountId: null })
    const give = async (role_id: string) =>
      await root.post('/api/v1/user-roles', { user_id: homeless.id, role_id })

    isProblem(t, await give(guest), 'no_home_account')
    t.equal((await give(await roleId('ADMIN'))).statusCode, 201)
    isProblem(t, await root.put(`/api/v1/user-roles/${homeless.id}`, { role_id: guest }), 'no_home_account')
    t.equal((await root.get(`/api/v1/user-roles/${homeless.id}`)).json().role.name, 'ADMIN')
  })

  await t.test('even when two are given at the same time', async (t) => {
    const { id } = await person()
    const give = async (role_id: string) => await root.post('/api/v1/user-roles', { user_id: id, role_id })

    const responses = await Promise.all([give(guest), give(manager), give(guest)])

    t.same(responses.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  })

  await t.test('and changes of it at the same time leave one', async (t) => {
    const { id } = await person('GUEST')
    const roles = [manager, guest, await roleId('ACCOUNT_ADMIN'), manager]

    const responses = await Promise.all(
      roles.map(async (role_id) => await root.put(`/api/v1/user-roles/${id}`, { role_id })),
    )

    t.same(
      responses.map(({ statusCode }) => statusCode),
      [200, 200, 200, 200],
    )
    const held = (await root.get(`/api/v1/users/${id}/roles`)).json<Assignment[]>()
    t.equal(held.length, 1)
    t.same(
      held.map(({ is_primary }) => is_primary),
      [true],
    )
  })
})

t.test('a user has further roles, in several accounts', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId, account, home, anonymous, as, app, rootToken } = postern
  const guest = await roleId('GUEST')
  const second = await account()
  const editor = await aRole(postern, { scopes: ['post:read', 'post:write'] })
  const auditor = await aRole(postern, { scopes: ['report:read'], default_reach: 'any' })
  const user = await person('GUEST')
  const path = `/api/v1/users/${user.id}/roles`
  const tokenFor = async (accountId: string) => {
    const login = { email: user.email, password: 'correct horse battery staple', account: accountId }
    return as(
      (await anonymous.post('/api/v1/auth/login', login)).json<{ access_token: string }>().access_token,
    )
  }

  await t.test('each where it is given', async (t) => {
    const away = await root.post(path, { role_id: editor.id, account_id: second })
    const everywhere = await root.post(`${path}/`, { role_id: auditor.id })
    const atHome = await root.post(path, { role_id: editor.id })

    t.equal(away.statusCode, 201)
    t.match(away.json(), { user_id: user.id, role_id: editor.id, account_id: second, is_primary: false })
    t.equal(away.headers['location'], `${path}/${away.json<Assignment>().id}`)
    t.match(everywhere.json(), { account_id: null })
    t.match(atHome.json(), { account_id: home }, 'by the reach of the role')
    const held = (await root.get(path)).json<Assignment[]>()
    t.same(
      held.map((one) => [one.role.name, one.account_id, one.is_primary]).sort(),
      [
        ['GUEST', home, true],
        [auditor.name, null, false],
        [editor.name, home, false],
        [editor.name, second, false],
      ].sort(),
    )
    t.same(await scopesOf(await tokenFor(second)), [
      'post:read',
      'post:write',
      'report:read',
      'report:read:any',
    ])
    const members = (await root.get(`/api/v1/accounts/${second}/members`)).json<{ user_id: string }[]>()
    t.ok(
      members.some(({ user_id }) => user_id === user.id),
      'a role in an account makes a member',
    )
  })

  await t.test('each once', async (t) => {
    isProblem(t, await root.post(path, { role_id: editor.id, account_id: second }), 'role_already_assigned')
    isProblem(t, await root.post(path, { role_id: auditor.id, account_id: null }), 'role_already_assigned')
    isProblem(t, await root.post(path, { role_id: guest }), 'role_already_assigned', 'the primary one too')
    isProblem(t, await root.post(path, { role_id: NO_SUCH_ID }), 'role_not_found')
    isProblem(t, await root.post(path, { role_id: guest, account_id: NO_SUCH_ID }), 'account_not_found')
    isProblem(t, await root.post(`/api/v1/users/${NO_SUCH_ID}/roles`, { role_id: guest }), 'user_not_found')
    const homeless = await person(undefined, { accountId: null })
    isProblem(t, await root.post(`/api/v1/users/${homeless.id}/roles`, { role_id: guest }), 'no_home_account')
    const faulty = await root.post(path, { account_id: 'default' })
    t.same(pointersOf(faulty).sort(), ['/body/account_id', '/body/role_id'])
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: path })
  })

  await t.test('each taken away by itself', async (t) => {
    const held = (await root.get(path)).json<Assignment[]>()
    const away = held.find(({ account_id }) => account_id === second)
    const before = await tokenFor(second)

    const response = await root.delete(`${path}/${away?.id}`)

    t.equal(response.statusCode, 204)
    isProblem(t, await root.delete(`${path}/${away?.id}`), 'assignment_not_found')
    t.equal((await before.get('/api/v1/users/me')).statusCode, 401, 'tokens with the role have ended')
    t.same(await scopesOf(await tokenFor(second)), ['report:read', 'report:read:any'])
    isProblem(t, await root.delete(`/api/v1/users/${NO_SUCH_ID}/roles/${NO_SUCH_ID}`), 'user_not_found')
    const other = await person('GUEST')
    const theirs = (await root.get(`/api/v1/users/${other.id}/roles`)).json<Assignment[]>()[0]
    isProblem(t, await root.delete(`${path}/${theirs?.id}`), 'assignment_not_found', 'of somebody else')
  })

  await t.test('the primary one as well', async (t) => {
    const primary = (await root.get(path)).json<Assignment[]>().find(({ is_primary }) => is_primary)

    t.equal((await root.delete(`${path}/${primary?.id}`)).statusCode, 204)
    isProblem(t, await root.get(`/api/v1/user-roles/${user.id}`), 'role_not_assigned')
  })
})

t.test('ids that are none are refused wherever they stand', async (t) => {
  const { root, rootId } = await buildTestApp(t)

  for (const id of BAD_IDS) {
    for (const [method, path, pointer, body] of [
      ['GET', `/roles/${id}`, '/path/role_id'],
      ['PUT', `/roles/${id}`, '/path/role_id', { name: 'x' }],
      ['DELETE', `/roles/${id}`, '/path/role_id'],
      ['GET', `/user-roles/${id}`, '/path/user_id'],
      ['PUT', `/user-roles/${id}`, '/path/user_id', { role_id: NO_SUCH_ID }],
      ['DELETE', `/user-roles/${id}`, '/path/user_id'],
      ['POST', `/users/${id}/roles`, '/path/user_id', { role_id: NO_SUCH_ID }],
      ['DELETE', `/users/${rootId}/roles/${id}`, '/path/assignment_id'],
    ] as const) {
      const response = await root.send(method, `/api/v1${path}`, body)
      isProblem(t, response, 'validation_failed', `${method} ${path.slice(0, 60)}`)
      t.same(pointersOf(response), [pointer])
    }
  }
})
