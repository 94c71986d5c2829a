import t from 'tap'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { nextOf, pagesLikeEveryList, walk } from '../helpers/lists.ts'
import { matchEach } from '../helpers/matching.ts'

const SORTS = ['created_at', 'name', 'updated_at']

type Account = { id: string; key: string; name: string; updated_at: string }
type Member = { user_id: string; is_home: boolean; status: string }
type User = { id: string; account_id: string | null }

async function anAccount({ root }: TestApp, fields: Record<string, unknown> = {}): Promise<Account> {
  const response = await root.post('/api/v1/accounts', { name: `Account ${crypto.randomUUID()}`, ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<Account>()
}

const membersOf = async ({ root }: TestApp, accountId: string): Promise<Member[]> =>
  (await root.get(`/api/v1/accounts/${accountId}/members`)).json<Member[]>()

t.test('an administrator creates an account', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern

  await t.test('with every field', async (t) => {
    const fields = {
      name: 'Acme & Söhne',
      description: 'Makers of everything',
      is_active: false,
      plan_id: NO_SUCH_ID,
      current_subscription_ends: '2030-01-01T00:00:00.000Z',
      attributes: { region: 'eu' },
    }

    const response = await root.post('/api/v1/accounts', fields)

    t.equal(response.statusCode, 201)
    const account = response.json<Account>()
    t.match(account, { ...fields, key: 'acme-sohne' })
    t.equal(response.headers['location'], `/api/v1/accounts/${account.id}`)
    const read = await root.get(`/api/v1/accounts/${account.id}`)
    t.same(read.json(), account)
    t.equal(response.headers['etag'], read.headers['etag'])
  })

  await t.test('with a name alone', async (t) => {
    const response = await root.post('/api/v1/accounts/', { name: 'Plain' })

    const account = response.json<Record<string, unknown>>()
    t.match(account, {
      key: 'plain',
      description: null,
      is_active: true,
      plan_id: null,
      current_subscription_ends: null,
      attributes: null,
    })
    t.same(Object.keys(account).sort(), [
      'attributes',
      'created_at',
      'current_subscription_ends',
      'description',
      'id',
      'is_active',
      'is_mfa_required',
      'key',
      'name',
      'plan_id',
      'updated_at',
    ])
  })

  await t.test('but not with a name or key that is taken', async (t) => {
    const other = await anAccount(postern, { name: 'Taken' })

    isProblem(t, await root.post('/api/v1/accounts', { name: 'Taken' }), 'account_key_taken')
    isProblem(t, await root.post('/api/v1/accounts', { name: 'TAKEN!' }), 'account_key_taken')
    isProblem(t, await root.post('/api/v1/accounts', { name: 'x', key: 'taken' }), 'account_key_taken')
    isProblem(
      t,
      await root.post('/api/v1/accounts', { name: 'x', key: other.id }),
      'account_key_taken',
      'an id as key',
    )
    isProblem(t, await root.post('/api/v1/accounts', { name: other.id.toUpperCase() }), 'account_key_taken')
    t.match(await anAccount(postern, { name: 'Taken', key: 'Taken' }), { name: 'Taken', key: 'Taken' })
    const raced = await Promise.all(
      ['r', 'R', 'r!'].map(async (name) => await root.post('/api/v1/accounts', { name })),
    )
    t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  })

  await t.test('and every fault is named by a pointer', async (t) => {
    for (const [body, pointer] of [
      [{}, '/body/name'],
      [{ name: '' }, '/body/name'],
      [{ name: 'x'.repeat(256) }, '/body/name'],
      [{ name: null }, '/body/name'],
      [{ name: '会社' }, '/body/key'],
      [{ name: 'x', key: 'a b' }, '/body/key'],
      [{ name: 'x', key: 'x'.repeat(129) }, '/body/key'],
      [{ name: 'x', description: 5 }, '/body/description'],
      [{ name: 'x', is_active: 'yes' }, '/body/is_active'],
      [{ name: 'x', plan_id: 'basic' }, '/body/plan_id'],
      [{ name: 'x', attributes: [] }, '/body/attributes'],
      [{ name: 'x', owner: 'me' }, '/body/owner'],
      ...[
        'tomorrow',
        '2030-01-01',
        '2030-01-01T00:00:00',
        '2030-02-30T00:00:00Z',
        '2030-13-01T00:00:00Z',
        '2016-12-31T23:59:60Z',
        '0000-01-01T00:00:00Z',
        '0001-01-01T00:00:00Z',
        '1970-01-01T00:00:00+00:01',
        '9999-12-31T23:59:59-23:59',
        '2030-01-01T00:00:00+01',
        '2030-01-01T25:00:00Z',
        '+012030-01-01T00:00:00Z',
        'infinity',
        1893456000,
      ].map(
        (ends) =>
          [{ name: 'x', current_subscription_ends: ends }, '/body/current_subscription_ends'] as const,
      ),
    ] as const) {
      const response = await root.post('/api/v1/accounts', body)
      isProblem(t, response, 'validation_failed', JSON.stringify(body).slice(0, 80))
      t.same([...new Set(pointersOf(response))], [pointer], JSON.stringify(body).slice(0, 80))
    }
    for (const body of [
      { name: 'x\0' },
      { name: 'x', attributes: { a: '\0' } },
      { name: 'x', description: '\0' },
    ]) {
      isProblem(t, await root.post('/api/v1/accounts', body), 'validation_failed', JSON.stringify(body))
    }
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: '/api/v1/accounts' })
    t.same((await root.get('/api/v1/accounts?key=x')).json(), [])
  })

  await t.test('a time is kept as the instant it is', async (t) => {
    for (const [given, kept] of [
      ['2030-06-01T12:00:00+02:00', '2030-06-01T10:00:00.000Z'],
      ['2030-06-01T12:00:00.123456Z', '2030-06-01T12:00:00.123Z'],
      ['1970-01-01T00:00:00Z', '1970-01-01T00:00:00.000Z'],
      ['9999-12-31T23:59:59.999Z', '9999-12-31T23:59:59.999Z'],
    ] as const) {
      t.match(await anAccount(postern, { current_subscription_ends: given }), {
        current_subscription_ends: kept,
      })
    }
  })
})

t.test('a list of accounts', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const names = ['Élan Straße', 'ΣΊΣΥΦΟΣ co', '100% co', 'under_co', 'back\\co', 'Plain']
  for (const [index, name] of names.entries()) await anAccount(postern, { name, key: `list-${index}` })
  const found = async (query: Record<string, string>) =>
    (await root.get(`/api/v1/accounts?${new URLSearchParams(query)}`))
      .json<Account[]>()
      .map(({ name }) => name)

  await pagesLikeEveryList(t, { client: root, path: '/api/v1/accounts', sorts: SORTS })

  await t.test('is searched without regard to case, and for wildcards as they are', async (t) => {
    t.same(await found({ q: 'éLAN' }), ['Élan Straße'])
    t.same(await found({ q: 'STRASSE' }), ['Élan Straße'])
    t.same(await found({ q: 'σίσυφος' }), ['ΣΊΣΥΦΟΣ co'])
    t.same(await found({ q: '%' }), ['100% co'])
    t.same(await found({ q: '_' }), ['under_co'])
    t.same(await found({ q: '\\' }), ['back\\co'])
    t.same(await found({ q: 'LIST-5' }), ['Plain'], 'in the key')
  })

  await t.test('is filtered', async (t) => {
    const plain = (await root.get('/api/v1/accounts?key=list-5')).json<Account[]>()[0]
    await root.patch(`/api/v1/accounts/${plain?.id}`, { is_active: false })

    t.same(await found({ is_active: 'false' }), ['Plain'])
    t.same(await found({ is_active: 'true', q: 'plain' }), [])
    const counted = await root.get('/api/v1/accounts?is_active=true&q=co&limit=1&total=true')
    t.equal(counted.headers['x-total-count'], '4')
    t.match(nextOf(counted), /is_active=true.*q=co/)
    for (const query of [
      'is_active=1',
      'q=',
      `q=${'x'.repeat(129)}`,
      `key=${'x'.repeat(129)}`,
      'q=%00',
      'key=%00',
    ]) {
      isProblem(t, await root.get(`/api/v1/accounts?${query}`), 'validation_failed', query)
    }
  })

  await t.test('shows each account once while others are created', async (t) => {
    for (const sort of SORTS.flatMap((name) => [name, `-${name}`])) {
      const before = (await root.get('/api/v1/accounts?limit=1000')).json<Account[]>().map(({ id }) => id)

      const walked = await walk<Account>(root, `/api/v1/accounts?limit=3&sort=${sort}`, async (page) => {
        if (page < 4)
          await Promise.all(
            ['A', 'Plain', 'zz'].map(
              async (name) => await anAccount(postern, { name, key: crypto.randomUUID() }),
            ),
          )
      })

      const ids = walked.map(({ id }) => id)
      t.equal(new Set(ids).size, ids.length, `${sort}: none twice`)
      t.same(
        before.filter((id) => !ids.includes(id)),
        [],
        `${sort}: none missing`,
      )
    }
  })
})

t.test('an account is changed', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(`with ${method}: absent fields stay, null clears`, async (t) => {
      const account = await anAccount(postern, {
        description: 'Old',
        plan_id: NO_SUCH_ID,
        attributes: { a: 1 },
      })
      const path = `/api/v1/accounts/${account.id}`

      const renamed = await root.send(method, path, { name: 'Renamed' })
      const cleared = await root.send(method, `${path}/`, {
        plan_id: null,
        attributes: null,
        current_subscription_ends: '2030-01-01T00:00:00Z',
      })

      t.match(renamed.json(), {
        name: 'Renamed',
        key: account.key,
        description: 'Old',
        plan_id: NO_SUCH_ID,
        attributes: { a: 1 },
      })
      t.match(cleared.json(), {
        description: 'Old',
        plan_id: null,
        attributes: null,
        current_subscription_ends: '2030-01-01T00:00:00.000Z',
      })
      t.same((await root.get(path)).json(), cleared.json())
    })

    await t.test(`with ${method}: only in the state it is meant for`, async (t) => {
      const { id } = await anAccount(postern)
      const path = `/api/v1/accounts/${id}`
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
      const account = await anAccount(postern)
      const path = `/api/v1/accounts/${account.id}`

      for (const [body, pointer] of [
        [{}, '/body'],
        [{ name: null }, '/body/name'],
        [{ key: 'x' }, '/body/key'],
        [{ is_active: null }, '/body/is_active'],
        [{ current_subscription_ends: '2016-12-31T23:59:60Z' }, '/body/current_subscription_ends'],
      ] as const) {
        const response = await root.send(method, path, body)
        isProblem(t, response, 'validation_failed', JSON.stringify(body))
        t.same(pointersOf(response), [pointer])
      }
      await refusesBadBodies(t, { app, token: rootToken, method, url: path })
      isProblem(
        t,
        await root.send(method, `/api/v1/accounts/${NO_SUCH_ID}`, { name: 'x' }),
        'account_not_found',
      )
      t.same((await root.get(path)).json(), account)
    })
  }
})

t.test('a deactivated account lets nobody in until it is reactivated', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, anonymous, signIn } = postern
  const { id } = await anAccount(postern)
  const user = await person('GUEST', { accountId: id })
  const login = async () =>
    (await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD })).statusCode

  const off = await root.post(`/api/v1/accounts/${id}/deactivate`)

  t.match(off.json(), { id, is_active: false })
  t.match(off.headers['etag'], /^"\d+"$/)
  t.equal((await user.client.get('/api/v1/users/me')).statusCode, 401)
  t.equal(await login(), 401)
  t.match((await root.post(`/api/v1/accounts/${id}/reactivate`)).json(), { is_active: true })
  t.ok(await signIn(user.email))
  isProblem(t, await root.post(`/api/v1/accounts/${NO_SUCH_ID}/deactivate`), 'account_not_found')
})

t.test('an account is deleted when nobody is in it', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, home } = postern
  const account = await anAccount(postern)
  const path = `/api/v1/accounts/${account.id}`
  const resident = await person('GUEST', { accountId: account.id })
  const member = await person('GUEST')
  await root.put(`${path}/members/${member.id}`)

  isProblem(t, await root.delete(path), 'account_has_people')
  await root.delete(`/api/v1/users/${resident.id}`)
  isProblem(t, await root.delete(path), 'account_has_people', 'members count too')
  await root.delete(`${path}/members/${member.id}`)
  isProblem(t, await root.delete(path, { 'if-match': '"999"' }), 'precondition_failed')
  const response = await root.delete(path)

  t.equal(response.statusCode, 204)
  for (const again of [
    await root.get(path),
    await root.delete(path),
    await root.patch(path, { name: 'x' }),
    await root.get(`${path}/users`),
    await root.get(`${path}/members`),
    await root.put(`${path}/members/${member.id}`),
    await root.post(`${path}/users`, { user_id: member.id }),
    await root.post(`/api/v1/users/${member.id}/roles`, {
      role_id: await postern.roleId('GUEST'),
      account_id: account.id,
    }),
    await root.patch(`/api/v1/users/${member.id}`, { account_id: account.id }),
  ]) {
    isProblem(t, again, 'account_not_found')
  }
  isProblem(t, await root.delete(`/api/v1/accounts/${home}`), 'account_is_default')
  t.match(await anAccount(postern, { name: account.name }), { key: account.key }, 'the key is free again')
})

t.test('nobody is put into an account while it is being deleted', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern

  for (let round = 0; round < 5; round++) {
    const { id } = await anAccount(postern)
    const user = await person()

    const [deleted, moved] = await Promise.all([
      root.delete(`/api/v1/accounts/${id}`),
      root.post(`/api/v1/accounts/${id}/users`, { user_id: user.id }),
    ])

    const outcome = `${deleted.statusCode} ${moved.statusCode}`
    t.ok(['204 404', '409 200'].includes(outcome), outcome)
  }
})

t.test('the own account is that of the token', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root, roleId, anonymous, as, home } = postern
  const { id } = await anAccount(postern)
  const admin = await person('ACCOUNT_ADMIN', { accountId: id })
  await root.post(`/api/v1/users/${admin.id}/roles`, {
    role_id: await roleId('ACCOUNT_ADMIN'),
    account_id: home,
  })
  const login = { email: admin.email, password: PASSWORD }
  const signIn = async (account?: string) =>
    as(
      (await anonymous.post('/api/v1/auth/login', { ...login, account })).json<{ access_token: string }>()
        .access_token,
    )
  const [here, there] = [await signIn(), await signIn('default')]

  t.equal((await here.get('/api/v1/accounts/me/')).json<Account>().id, id)
  t.match((await here.get('/api/v1/accounts/me')).headers['etag'], /^"\d+"$/)
  t.equal((await there.get('/api/v1/accounts/me')).json<Account>().id, home)
  const users = async (client: typeof here) =>
    (await client.get('/api/v1/accounts/users/me')).json<User[]>().map(({ account_id }) => account_id)
  t.same(await users(here), [id])
  t.ok((await users(there)).every((accountId) => accountId === home))
})

t.test('the users of an account are those at home there', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  const { id } = await anAccount(postern)
  const residents = [
    await person('GUEST', { accountId: id }),
    await person('ACCOUNT_ADMIN', { accountId: id }),
  ]
  const member = await person('GUEST')
  await root.put(`/api/v1/accounts/${id}/members/${member.id}`)

  const response = await root.get(`/api/v1/accounts/${id}/users/`)

  t.same(
    response.json<User[]>().map((user) => user.id),
    residents.map((one) => one.id),
  )
  const own = await residents[1]?.client.get('/api/v1/accounts/users/me')
  t.same(own?.json(), response.json())
  const query = `q=${residents[0]?.email}&limit=1&total=true`
  t.equal((await root.get(`/api/v1/accounts/${id}/users?${query}`)).headers['x-total-count'], '1')
  isProblem(t, await root.get(`/api/v1/accounts/${NO_SUCH_ID}/users`), 'account_not_found')
})

t.test('a user moves to another account', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId, home, app, rootToken } = postern
  const guest = await roleId('GUEST')
  const move = async (accountId: string, user_id: string) =>
    await root.post(`/api/v1/accounts/${accountId}/users`, { user_id })
  const rolesOf = async (id: string) =>
    (await root.get(`/api/v1/users/${id}/roles`))
      .json<{ role: { name: string }; account_id: string | null; is_primary: boolean }[]>()
      .map((one) => [one.role.name, one.account_id, one.is_primary])

  await t.test('with the primary role, leaving other roles of the old account behind', async (t) => {
    const { id } = await anAccount(postern)
    const user = await person('ACCOUNT_MANAGER')
    await root.post(`/api/v1/users/${user.id}/roles`, { role_id: guest, account_id: home })
    await root.post(`/api/v1/users/${user.id}/roles`, { role_id: guest, account_id: null })

    const response = await move(id, user.id)

    t.equal(response.statusCode, 200)
    t.match(response.json(), {
      id: user.id,
      account_id: id,
      user_role: { role: { name: 'ACCOUNT_MANAGER' } },
    })
    t.same(
      (await rolesOf(user.id)).sort(),
      [
        ['ACCOUNT_MANAGER', id, true],
        ['GUEST', null, false],
      ].sort(),
    )
    t.notOk((await membersOf(postern, home)).some(({ user_id }) => user_id === user.id))
    matchEach(t, await membersOf(postern, id), [{ user_id: user.id, is_home: true, status: 'active' }])
    t.equal((await membersOf(postern, id)).length, 1)
    t.equal(
      (await user.client.get('/api/v1/users/me')).statusCode,
      401,
      'tokens of the old account have ended',
    )
  })

  await t.test('where the role of the primary one is held already', async (t) => {
    const { id } = await anAccount(postern)
    const user = await person('GUEST')
    await root.post(`/api/v1/users/${user.id}/roles`, { role_id: guest, account_id: id })

    const response = await move(id, user.id)

    t.equal(response.statusCode, 200)
    t.same(await rolesOf(user.id), [['GUEST', id, true]])
  })

  await t.test('where a role everywhere stays everywhere', async (t) => {
    const { id } = await anAccount(postern)
    const admin = await person('ADMIN')

    t.equal((await move(id, admin.id)).statusCode, 200)
    t.same(await rolesOf(admin.id), [['ADMIN', null, true]])
  })

  await t.test('from no account', async (t) => {
    const user = await person(undefined, { accountId: null })

    t.match((await move(home, user.id)).json(), { account_id: home })
  })

  await t.test('and moving there again does nothing', async (t) => {
    const user = await person('GUEST')

    t.equal((await move(home, user.id)).statusCode, 200)
    t.same(await rolesOf(user.id), [['GUEST', home, true]])
    t.equal((await user.client.get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test('also by a change of the record', async (t) => {
    const { id } = await anAccount(postern)
    const user = await person('GUEST')

    const response = await root.patch(`/api/v1/users/${user.id}`, { account_id: id, full_name: 'Moved' })

    t.match(response.json(), { account_id: id, full_name: 'Moved' })
    t.same(await rolesOf(user.id), [['GUEST', id, true]])
    const away = await root.patch(`/api/v1/users/${user.id}`, { account_id: null })
    isProblem(t, away, 'validation_failed')
    t.same(pointersOf(away), ['/body/account_id'])
  })

  await t.test('unless one of them is unknown', async (t) => {
    const user = await person('GUEST')

    isProblem(t, await move(NO_SUCH_ID, user.id), 'account_not_found')
    isProblem(t, await move(home, NO_SUCH_ID), 'user_not_found')
    t.same(pointersOf(await root.post(`/api/v1/accounts/${home}/users`, { user_id: 'x' })), ['/body/user_id'])
    await refusesBadBodies(t, {
      app,
      token: rootToken,
      method: 'POST',
      url: `/api/v1/accounts/${home}/users`,
    })
  })

  await t.test('and moves at the same time leave one home', async (t) => {
    const accounts = [await anAccount(postern), await anAccount(postern), await anAccount(postern)]
    const user = await person('GUEST')

    const responses = await Promise.all(accounts.map(async ({ id }) => await move(id, user.id)))

    t.same(
      responses.map(({ statusCode }) => statusCode),
      [200, 200, 200],
    )
    const after = (await root.get(`/api/v1/users/${user.id}`)).json<User>()
    t.same(await rolesOf(user.id), [['GUEST', after.account_id, true]])
  })
})

t.test('an account has members', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId, as, anonymous, home } = postern
  const { id } = await anAccount(postern)
  const resident = await person('GUEST', { accountId: id })
  const people = [await person('GUEST'), await person('GUEST'), await person('GUEST'), await person('GUEST')]
  const path = `/api/v1/accounts/${id}/members`

  await t.test('who are added', async (t) => {
    for (const one of people) t.equal((await root.put(`${path}/${one.id}`)).statusCode, 204)

    t.equal((await root.put(`${path}/${people[0]?.id}/`)).statusCode, 204, 'once more is no error')
    t.same(
      (await membersOf(postern, id)).map((one) => [one.user_id, one.is_home, one.status]),
      [resident, ...people].map((one) => [one.id, one === resident, 'active']),
    )
    isProblem(t, await root.put(`${path}/${NO_SUCH_ID}`), 'user_not_found')
    isProblem(t, await root.put(`/api/v1/accounts/${NO_SUCH_ID}/members/${resident.id}`), 'account_not_found')
    isProblem(t, await root.get(`/api/v1/accounts/${NO_SUCH_ID}/members`), 'account_not_found')
  })

  await pagesLikeEveryList(t, { client: root, path, sorts: ['created_at'] })

  await t.test('who sign in to it', async (t) => {
    const login = { email: people[0]?.email, password: PASSWORD, account: id }
    const token = (await anonymous.post('/api/v1/auth/login', login)).json<{ access_token: string }>()
      .access_token

    t.equal((await as(token).get('/api/v1/accounts/me')).json<Account>().id, id)
    t.equal((await root.get(`/api/v1/users/${people[0]?.id}`)).json<User>().account_id, home)
  })

  await t.test('who leave with the roles they hold there', async (t) => {
    const one = people[1]
    await root.post(`/api/v1/users/${one?.id}/roles`, {
      role_id: await roleId('ACCOUNT_MANAGER'),
      account_id: id,
    })

    const response = await root.delete(`${path}/${one?.id}`)

    t.equal(response.statusCode, 204)
    const held = (await root.get(`/api/v1/users/${one?.id}/roles`)).json<{ account_id: string }[]>()
    t.same(
      held.map(({ account_id }) => account_id),
      [home],
    )
    const login = { email: one?.email, password: PASSWORD, account: id }
    t.equal((await anonymous.post('/api/v1/auth/login', login)).statusCode, 401)
    isProblem(t, await root.delete(`${path}/${one?.id}`), 'member_not_found')
    isProblem(t, await root.delete(`${path}/${resident.id}`), 'home_account_membership')
    isProblem(t, await root.delete(`${path}/${NO_SUCH_ID}`), 'user_not_found')
  })
})

t.test('ids that are none are refused wherever they stand', async (t) => {
  const { root, rootId, home } = await buildTestApp(t)

  for (const id of BAD_IDS) {
    for (const [method, path, pointer, body] of [
      ['GET', `/${id}`, '/path/account_id'],
      ['PATCH', `/${id}`, '/path/account_id', { name: 'x' }],
      ['DELETE', `/${id}`, '/path/account_id'],
      ['POST', `/${id}/deactivate`, '/path/account_id'],
      ['GET', `/${id}/users`, '/path/account_id'],
      ['POST', `/${id}/users`, '/path/account_id', { user_id: rootId }],
      ['GET', `/${id}/members`, '/path/account_id'],
      ['PUT', `/${id}/members/${rootId}`, '/path/account_id'],
      ['DELETE', `/${home}/members/${id}`, '/path/user_id'],
    ] as const) {
      const response = await root.send(method, `/api/v1/accounts${path}`, body)
      isProblem(t, response, 'validation_failed', `${method} ${path.slice(0, 60)}`)
      t.same(pointersOf(response), [pointer])
    }
  }
})
