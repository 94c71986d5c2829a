import t from 'tap'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { nextOf, pagesLikeEveryList, walk } from '../helpers/lists.ts'
import { matchEach } from '../helpers/matching.ts'

const OTHER_PASSWORD = 'another long password of mine'
const SORTS = ['created_at', 'email', 'full_name', 'updated_at']

type User = {
  id: string
  key: string
  email: string
  full_name: string | null
  is_active: boolean
  updated_at: string
}

/** A user as an administrator creates one. */
async function aUser({ root }: TestApp, fields: Record<string, unknown> = {}): Promise<User> {
  const body = { email: `user-${crypto.randomUUID()}@postern.test`, password: PASSWORD, ...fields }
  const response = await root.post('/api/v1/users', body)
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<User>()
}

t.test('the signed-in user is told who they are', async (t) => {
  const { person, home } = await buildTestApp(t)
  const editor = await person('GUEST')

  const response = await editor.client.get('/api/v1/users/me')

  t.equal(response.statusCode, 200)
  const user = response.json<Record<string, unknown>>()
  t.match(user, {
    id: editor.id,
    key: editor.id,
    email: editor.email,
    full_name: 'Person 1',
    phone_number: null,
    is_active: true,
    account_id: home,
    user_role: { user_id: editor.id, role: { name: 'GUEST', description: 'A Guest Account' } },
  })
  t.same(Object.keys(user).sort(), [
    'account_id',
    'attributes',
    'created_at',
    'email',
    'first_name',
    'full_name',
    'id',
    'is_active',
    'key',
    'last_name',
    'phone_number',
    'updated_at',
    'user_role',
  ])
})

t.test('an administrator creates a user', async (t) => {
  const { root, anonymous, home, account } = await buildTestApp(t)
  const accountId = await account()
  const fields = {
    email: 'ada@postern.test',
    full_name: 'Ada Lovelace',
    first_name: 'Ada',
    last_name: 'Lovelace',
    phone_number: '+44 20 7946 0000',
    key: 'ada',
    attributes: { team: { name: 'engine' }, level: 3 },
    account_id: accountId,
  }

  await t.test('with every field', async (t) => {
    const response = await root.post('/api/v1/users', { ...fields, password: PASSWORD })

    t.equal(response.statusCode, 201)
    const user = response.json<User>()
    t.match(user, { ...fields, is_active: true, user_role: null })
    t.notMatch(response.body, /password|argon2/)
    t.equal(response.headers['location'], `/api/v1/users/${user.id}`)
    t.equal(response.headers['etag'], (await root.get(`/api/v1/users/${user.id}`)).headers['etag'])
    const login = await anonymous.post('/api/v1/auth/login', { email: fields.email, password: PASSWORD })
    t.equal(login.statusCode, 200)
  })

  await t.test('with an email and a password alone', async (t) => {
    const response = await root.post('/api/v1/users/', { email: 'bare@postern.test', password: PASSWORD })

    t.equal(response.statusCode, 201)
    const user = response.json<User>()
    t.match(user, { key: user.id, full_name: null, phone_number: null, account_id: null, is_active: true })
  })

  await t.test('whose full name falls back to the first and last one', async (t) => {
    const response = await root.post('/api/v1/users', {
      email: 'grace@postern.test',
      password: PASSWORD,
      first_name: 'Grace',
      last_name: 'Hopper',
    })

    t.equal(response.json<User>().full_name, 'Grace Hopper')
  })

  await t.test('who is not active', async (t) => {
    const email = 'later@postern.test'
    const response = await root.post('/api/v1/users', { email, password: PASSWORD, is_active: false })

    t.equal(response.json<User>().is_active, false)
    t.equal((await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD })).statusCode, 401)
  })

  await t.test('but not with an email, key or account that cannot be', async (t) => {
    const create = async (change: object) =>
      await root.post('/api/v1/users', { email: 'new@postern.test', password: PASSWORD, ...change })
    const someone = (await root.get('/api/v1/users?key=ada')).json<User[]>()[0]

    isProblem(t, await create({ email: 'ADA@postern.test' }), 'email_taken')
    isProblem(t, await create({ key: 'ada' }), 'user_key_taken')
    isProblem(t, await create({ key: someone?.id }), 'user_key_taken')
    isProblem(t, await create({ account_id: NO_SUCH_ID }), 'account_not_found')
    t.equal((await create({ account_id: home })).statusCode, 201, 'nothing was left behind')
  })

  await t.test('and every fault is named by a pointer', async (t) => {
    const valid = { email: 'new2@postern.test', password: PASSWORD }
    for (const [change, pointer] of [
      [{ email: undefined }, '/body/email'],
      [{ email: 'no email' }, '/body/email'],
      [{ email: '' }, '/body/email'],
      [{ email: null }, '/body/email'],
      [{ email: 5 }, '/body/email'],
      [{ email: ['a@x.test'] }, '/body/email'],
      [{ email: `${'a'.repeat(250)}@x.test` }, '/body/email'],
      [{ password: undefined }, '/body/password'],
      [{ password: 'fourteen chars' }, '/body/password'],
      [{ password: '😀'.repeat(14) }, '/body/password'],
      [{ password: 'x'.repeat(257) }, '/body/password'],
      [{ password: 123456789012345 }, '/body/password'],
      [{ full_name: '' }, '/body/full_name'],
      [{ full_name: 'x'.repeat(256) }, '/body/full_name'],
      [{ full_name: 5 }, '/body/full_name'],
      [{ phone_number: 442079460000 }, '/body/phone_number'],
      [{ is_active: 'true' }, '/body/is_active'],
      [{ is_active: 1 }, '/body/is_active'],
      [{ is_active: null }, '/body/is_active'],
      [{ account_id: 'default' }, '/body/account_id'],
      [{ account_id: `urn:uuid:${NO_SUCH_ID}` }, '/body/account_id'],
      [{ key: 'a key' }, '/body/key'],
      [{ key: '' }, '/body/key'],
      [{ attributes: [] }, '/body/attributes'],
      [{ attributes: 'x' }, '/body/attributes'],
      [{ attributes: { ['k'.repeat(129)]: 1 } }, '/body/attributes'],
      [{ colour: 'red' }, '/body/colour'],
    ] as const) {
      const response = await root.post('/api/v1/users', { ...valid, ...change })

      isProblem(t, response, 'validation_failed', JSON.stringify(change).slice(0, 80))
      t.ok(
        pointersOf(response).every((found) => found.startsWith(pointer)) && pointersOf(response).length > 0,
        `${pointer}: ${pointersOf(response)}`,
      )
    }
    const both = await root.post('/api/v1/users', { email: 'x', password: '', colour: 1 })
    t.same(pointersOf(both).sort(), ['/body/colour', '/body/email', '/body/password'], 'all at once')
  })
})

t.test('two users created with one email at the same time are one', async (t) => {
  const { root } = await buildTestApp(t)
  const create = async (email: string) => await root.post('/api/v1/users', { email, password: PASSWORD })

  const responses = await Promise.all(['one@x.test', 'ONE@x.test', 'One@X.test', 'one@x.test'].map(create))

  t.same(responses.map(({ statusCode }) => statusCode).sort(), [201, 409, 409, 409])
  t.equal((await root.get('/api/v1/users?email=oNe@x.test')).json<User[]>().length, 1)
})

t.test('a list of users', async (t) => {
  const postern = await buildTestApp(t)
  const { root, account, roleId, person } = postern
  const accountId = await account()
  const names = ['Élodie Straße', 'ΣΊΣΥΦΟΣ', '100% sure', 'under_score', 'back\\slash', 'Ada', 'Bob']
  const users = new Map<string, User>()
  for (const [index, name] of names.entries()) {
    const fields = {
      full_name: name,
      email: `n${index}@list.test`,
      key: `key-${index}`,
      account_id: accountId,
    }
    users.set(name, await aUser(postern, fields))
  }
  const found = async (query: Record<string, string>) =>
    (await root.get(`/api/v1/users?${new URLSearchParams(query)}`))
      .json<User[]>()
      .map((user) => user.full_name)

  await pagesLikeEveryList(t, { client: root, path: '/api/v1/users', sorts: SORTS })
  await pagesLikeEveryList(t, { client: root, path: `/api/v1/accounts/${accountId}/users`, sorts: SORTS })

  await t.test('is searched without regard to case, in every script', async (t) => {
    t.same(await found({ q: 'éLODIE' }), ['Élodie Straße'])
    t.same(await found({ q: 'E\u0301lodie' }), ['Élodie Straße'], 'composed and decomposed letters are one')
    t.same(await found({ q: 'STRASSE' }), ['Élodie Straße'])
    t.same(await found({ q: 'strasse' }), ['Élodie Straße'])
    t.same(await found({ q: 'σίσυφος' }), ['ΣΊΣΥΦΟΣ'])
    t.same(await found({ q: 'Σίσυφοσ' }), ['ΣΊΣΥΦΟΣ'])
    t.same(await found({ q: 'N3@LIST' }), ['under_score'], 'in the email')
    t.same(await found({ q: 'KEY-4' }), ['back\\slash'], 'in the key')
    t.same(await found({ q: 'nobody has this' }), [])
  })

  await t.test('is searched for % _ and \\ as they are', async (t) => {
    t.same(await found({ q: '%' }), ['100% sure'])
    t.same(await found({ q: '0% s' }), ['100% sure'])
    t.same(await found({ q: '_' }), ['under_score'])
    t.same(await found({ q: '\\' }), ['back\\slash'])
    t.same(await found({ q: '\\_' }), [])
    t.same(await found({ q: "'" }), [])
  })

  await t.test('is filtered', async (t) => {
    await root.post(`/api/v1/users/${users.get('Bob')?.id}/deactivate`)
    const role_id = await roleId('ACCOUNT_MANAGER')
    await root.post('/api/v1/user-roles', { user_id: users.get('Ada')?.id, role_id })

    t.same(await found({ email: 'N5@LIST.TEST' }), ['Ada'])
    t.same(await found({ key: 'key-5' }), ['Ada'])
    t.same(await found({ key: 'KEY-5' }), [], 'keys are compared exactly')
    t.same(await found({ is_active: 'false' }), ['Bob'])
    t.same(await found({ account_id: accountId, is_active: 'true' }), names.slice(0, -1))
    t.same(await found({ account_id: accountId.toUpperCase(), is_active: 'false' }), ['Bob'])
    t.same(await found({ account_id: NO_SUCH_ID }), [])
    t.same(await found({ role_id }), ['Ada'])
    t.same(await found({ role_id, q: 'bob' }), [], 'filters are joined by and')
    const counted = await root.get(`/api/v1/users?account_id=${accountId}&is_active=true&limit=1&total=true`)
    t.equal(counted.headers['x-total-count'], '6', 'the total is that of the filter')
    t.match(nextOf(counted), /account_id=.*is_active=true.*limit=1/, 'the next page keeps the filter')
    for (const [query, pointer] of [
      ['is_active=maybe', '/query/is_active'],
      ['role_id=GUEST', '/query/role_id'],
      ['account_id=x', '/query/account_id'],
      ['q=', '/query/q'],
      [`q=${'x'.repeat(129)}`, '/query/q'],
      [`email=${'x'.repeat(255)}`, '/query/email'],
    ] as const) {
      const response = await root.get(`/api/v1/users?${query}`)
      isProblem(t, response, 'validation_failed', query)
      t.same(pointersOf(response), [pointer])
    }
    for (const query of ['q=%00', 'email=%00', 'key=a%00b']) {
      isProblem(t, await root.get(`/api/v1/users?${query}`), 'validation_failed', query)
    }
  })

  await t.test('is sorted by the name that is asked for', async (t) => {
    const values = async (sort: string, field: 'email' | 'full_name' | 'updated_at') =>
      (await root.get(`/api/v1/users?sort=${sort}&q=@list.test`)).json<User[]>().map((user) => user[field])

    t.same(
      await values('email', 'email'),
      names.map((_, index) => `n${index}@list.test`),
    )
    t.same(
      (await values('full_name', 'full_name')).filter((name) => /^[A-C]/.test(name ?? '')),
      ['Ada', 'Bob'],
    )
    const times = await values('-updated_at', 'updated_at')
    t.same(times, times.toSorted().toReversed())
  })

  await t.test('shows nobody who was deleted, and no hash', async (t) => {
    const gone = await person('GUEST')
    await root.delete(`/api/v1/users/${gone.id}`)

    const response = await root.get('/api/v1/users?limit=1000')

    t.notOk(response.json<User[]>().some(({ id }) => id === gone.id))
    t.notMatch(response.body, /argon2|password/)
  })
})

t.test('pages by cursor show everybody once while others are created', async (t) => {
  const postern = await buildTestApp(t)
  for (let index = 0; index < 9; index++)
    await aUser(postern, { full_name: index % 3 === 0 ? null : `Name ${index % 2}` })

  for (const sort of SORTS.flatMap((name) => [name, `-${name}`])) {
    const before = (await postern.root.get('/api/v1/users?limit=1000')).json<User[]>().map(({ id }) => id)

    const walked = await walk<User>(postern.root, `/api/v1/users?limit=4&sort=${sort}`, async (page) => {
      if (page > 4) return
      // One at each end and one in the middle, at the same time.
      await Promise.all(['0', 'Name 0', 'zz'].map(async (full_name) => await aUser(postern, { full_name })))
    })

    const ids = walked.map(({ id }) => id)
    t.equal(new Set(ids).size, ids.length, `${sort}: nobody twice`)
    t.same(
      before.filter((id) => !ids.includes(id)),
      [],
      `${sort}: nobody missing`,
    )
  }
})

t.test('a user is read by id', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, app, rootToken } = postern
  const user = await person('GUEST')

  const response = await root.get(`/api/v1/users/${user.id}/`)

  t.equal(response.statusCode, 200)
  t.equal(response.json<User>().id, user.id)
  t.match(response.headers['etag'], /^"\d+"$/)
  t.equal((await root.get(`/api/v1/users/${user.id.toUpperCase()}`)).json<User>().id, user.id)
  isProblem(t, await root.get(`/api/v1/users/${NO_SUCH_ID}`), 'user_not_found')
  for (const id of BAD_IDS) {
    for (const [method, path, body] of [
      ['GET', ''],
      ['PATCH', '', { full_name: 'x' }],
      ['DELETE', ''],
      ['POST', '/deactivate'],
      ['GET', '/roles'],
    ] as const) {
      const bad = await root.send(method, `/api/v1/users/${id}${path}`, body)
      isProblem(t, bad, 'validation_failed', `${method} ${id.slice(0, 40)}${path}`)
      t.same(pointersOf(bad), ['/path/user_id'])
    }
  }
  const endless = await app.inject({
    url: `/api/v1/users/${'a'.repeat(8000)}`,
    headers: { authorization: `Bearer ${rootToken}` },
  })
  t.ok(endless.statusCode >= 400 && endless.statusCode < 500, 'an id without end')
  isProblem(t, await root.get('/api/v1/users/%zz'), 'malformed_request')
})

t.test('an administrator changes a user', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootToken, app, account, anonymous } = postern

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(`with ${method}: absent fields stay, null clears`, async (t) => {
      const user = await aUser(postern, { full_name: 'Ada', phone_number: '123', attributes: { a: 1 } })

      const response = await root.send(method, `/api/v1/users/${user.id}`, {
        phone_number: null,
        last_name: 'Byron',
      })

      t.equal(response.statusCode, 200)
      t.match(response.json(), {
        full_name: 'Ada',
        last_name: 'Byron',
        phone_number: null,
        attributes: { a: 1 },
        email: user.email,
      })
      const cleared = await root.send(method, `/api/v1/users/${user.id}/`, {
        attributes: null,
        full_name: null,
      })
      t.match(cleared.json(), { full_name: null, attributes: null, last_name: 'Byron' })
    })

    await t.test(`with ${method}: every field`, async (t) => {
      const user = await aUser(postern)
      const accountId = await account()
      const fields = {
        email: `changed-${method}@postern.test`,
        full_name: 'Augusta',
        first_name: 'A',
        last_name: 'B',
        phone_number: '1',
        key: `changed-${method}`,
        attributes: { b: [1, { c: null }] },
        account_id: accountId,
        is_active: true,
      }

      const response = await root.send(method, `/api/v1/users/${user.id}`, {
        ...fields,
        password: OTHER_PASSWORD,
      })

      t.equal(response.statusCode, 200)
      t.match(response.json(), fields)
      t.same((await root.get(`/api/v1/users/${user.id}`)).json(), response.json())
      const login = await anonymous.post('/api/v1/auth/login', {
        email: fields.email,
        password: OTHER_PASSWORD,
      })
      t.equal(login.statusCode, 200)
    })

    await t.test(`with ${method}: faults leave the record alone`, async (t) => {
      const user = await aUser(postern, { key: `kept-${method}` })
      const other = await aUser(postern)
      const path = `/api/v1/users/${user.id}`

      isProblem(t, await root.send(method, path, { email: other.email.toUpperCase() }), 'email_taken')
      isProblem(t, await root.send(method, path, { key: other.id }), 'user_key_taken')
      isProblem(
        t,
        await root.send(method, path, { account_id: NO_SUCH_ID, full_name: 'x' }),
        'account_not_found',
      )
      isProblem(
        t,
        await root.send(method, `/api/v1/users/${NO_SUCH_ID}`, { full_name: 'x' }),
        'user_not_found',
      )
      for (const [body, pointer] of [
        [{}, '/body'],
        [{ email: null }, '/body/email'],
        [{ key: null }, '/body/key'],
        [{ is_active: null }, '/body/is_active'],
        [{ is_active: 'false' }, '/body/is_active'],
        [{ password: 'short' }, '/body/password'],
        [{ password: null }, '/body/password'],
        [{ full_name: 1 }, '/body/full_name'],
        [{ full_name: '' }, '/body/full_name'],
        [{ account_id: 'x' }, '/body/account_id'],
      ] as const) {
        const response = await root.send(method, path, body)
        isProblem(t, response, 'validation_failed', JSON.stringify(body))
        t.same(pointersOf(response), [pointer])
      }
      for (const body of [
        { full_name: 'a\0b' },
        { attributes: { 'a\0': 1 } },
        { attributes: { a: '\0' } },
        { attributes: { a: '\ud800' } },
      ]) {
        isProblem(t, await root.send(method, path, body), 'validation_failed', JSON.stringify(body))
      }
      t.same((await root.get(path)).json(), user)
    })

    await t.test(`with ${method}: bodies that are none`, async (t) => {
      const user = await aUser(postern)
      await refusesBadBodies(t, { app, token: rootToken, method, url: `/api/v1/users/${user.id}` })
      t.same((await root.get(`/api/v1/users/${user.id}`)).json(), user)
    })
  }

  await t.test('attributes keep what a JSON object can hold', async (t) => {
    const user = await aUser(postern)
    const attributes = {
      '': 1,
      'a.b': [null, true, 1.5e300, -0.1],
      emoji: '😀',
      constructor: 'x',
      toString: 1,
      deep: { a: { b: { c: {} } } },
    }

    const response = await root.patch(`/api/v1/users/${user.id}`, { attributes })

    t.equal(response.statusCode, 200)
    t.same(response.json<{ attributes: unknown }>().attributes, attributes)
  })
})

t.test('POST /users refuses bodies that are none', async (t) => {
  const { app, rootToken } = await buildTestApp(t)

  await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: '/api/v1/users' })
})

t.test('a change is made only to the state it is meant for', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  const tagOf = async (path: string) => String((await root.get(path)).headers['etag'])

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(method, async (t) => {
      const { id } = await aUser(postern)
      const path = `/api/v1/users/${id}`
      const send = async (ifMatch: string, full_name: string) =>
        await root.send(method, path, { full_name }, { 'if-match': ifMatch })
      const first = await tagOf(path)

      const changed = await send(first, 'first')

      t.equal(changed.statusCode, 200)
      t.not(changed.headers['etag'], first)
      t.equal(changed.headers['etag'], await tagOf(path))
      isProblem(t, await send(first, 'lost'), 'precondition_failed')
      for (const tag of [
        `W/${await tagOf(path)}`,
        '""',
        '"x"',
        'x',
        '',
        '"0"',
        '"99999999999999999999"',
        `"0${(await tagOf(path)).slice(1)}`,
      ]) {
        isProblem(t, await send(tag, 'lost'), 'precondition_failed', tag)
      }
      t.match((await root.get(path)).json(), { full_name: 'first' })
      t.equal((await send(`"x", ${await tagOf(path)}`, 'second')).statusCode, 200, 'one of a list')
      t.equal((await send('*', 'third')).statusCode, 200, 'any state')
      isProblem(t, await send('"x" '.repeat(400), 'lost'), 'validation_failed', 'a header without end')
    })
  }

  await t.test('DELETE', async (t) => {
    const { id } = await aUser(postern)
    const stale = await tagOf(`/api/v1/users/${id}`)
    await root.patch(`/api/v1/users/${id}`, { full_name: 'x' })

    isProblem(t, await root.delete(`/api/v1/users/${id}`, { 'if-match': stale }), 'precondition_failed')
    const fresh = await tagOf(`/api/v1/users/${id}`)
    t.equal((await root.delete(`/api/v1/users/${id}`, { 'if-match': fresh })).statusCode, 204)
  })

  await t.test('one’s own record', async (t) => {
    const { client } = await person('GUEST')
    const tag = String((await client.get('/api/v1/users/me')).headers['etag'])

    t.equal((await client.patch('/api/v1/users/me', { full_name: 'x' }, { 'if-match': tag })).statusCode, 200)
    isProblem(
      t,
      await client.put('/api/v1/users/me', { full_name: 'y' }, { 'if-match': tag }),
      'precondition_failed',
    )
  })

  await t.test('of two changes at the same time, one', async (t) => {
    const { id } = await aUser(postern)
    const tag = await tagOf(`/api/v1/users/${id}`)
    const send = async (full_name: string) =>
      await root.patch(`/api/v1/users/${id}`, { full_name }, { 'if-match': tag })

    const responses = await Promise.all(['a', 'b', 'c', 'd'].map(send))

    t.same(responses.map(({ statusCode }) => statusCode).sort(), [200, 412, 412, 412])
  })
})

t.test('a deleted user is gone, and the email and key are free again', async (t) => {
  const postern = await buildTestApp(t)
  const { root, anonymous } = postern
  const user = await aUser(postern, { key: 'once' })

  const response = await root.delete(`/api/v1/users/${user.id}`)

  t.equal(response.statusCode, 204)
  t.equal(response.body, '')
  for (const again of [
    await root.get(`/api/v1/users/${user.id}`),
    await root.patch(`/api/v1/users/${user.id}`, { full_name: 'x' }),
    await root.delete(`/api/v1/users/${user.id}`),
    await root.post(`/api/v1/users/${user.id}/reactivate`),
    await root.get(`/api/v1/users/${user.id}/roles`),
  ]) {
    isProblem(t, again, 'user_not_found')
  }
  t.equal(
    (await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD })).statusCode,
    401,
  )
  const reborn = await aUser(postern, { email: user.email, key: 'once' })
  t.not(reborn.id, user.id)
})

t.test('a deactivated user can be reactivated, and old tokens stay dead', async (t) => {
  const { root, person, signIn, anonymous } = await buildTestApp(t)
  const user = await person('GUEST')

  const off = await root.post(`/api/v1/users/${user.id}/deactivate`)
  const refused = await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD })
  const on = await root.post(`/api/v1/users/${user.id}/reactivate`)

  t.match(off.json(), { id: user.id, is_active: false })
  t.match(off.headers['etag'], /^"\d+"$/)
  t.equal(refused.statusCode, 401)
  t.match(on.json(), { is_active: true })
  t.ok(await signIn(user.email))
  t.equal((await user.client.get('/api/v1/users/me')).statusCode, 401)
  t.equal(
    (await root.post(`/api/v1/users/${user.id}/reactivate`, '', { 'content-type': 'application/json' }))
      .statusCode,
    200,
    'once more, with an empty body, changes nothing',
  )
  isProblem(t, await root.post(`/api/v1/users/${NO_SUCH_ID}/deactivate`), 'user_not_found')
})

t.test('a user changes their own record', async (t) => {
  const { person, app, root } = await buildTestApp(t)

  for (const method of ['PUT', 'PATCH'] as const) {
    await t.test(method, async (t) => {
      const { client, email, token } = await person('GUEST')
      const change = { full_name: 'Me', first_name: 'M', last_name: null, phone_number: '1' }

      const response = await client.send(method, '/api/v1/users/me', { ...change, email })

      t.equal(response.statusCode, 200)
      t.match(response.json(), { ...change, email })
      t.same((await client.get('/api/v1/users/me')).json(), response.json())
      t.equal(response.headers['etag'], (await client.get('/api/v1/users/me')).headers['etag'])
      isProblem(
        t,
        await client.send(method, '/api/v1/users/me', { full_name: 'x', email: 'other@postern.test' }),
        'email_change_not_allowed',
      )
      t.match(
        (await client.get('/api/v1/users/me')).json(),
        { full_name: 'Me', email },
        'nothing of a refused change is kept',
      )
      await refusesBadBodies(t, { app, token, method, url: '/api/v1/users/me' })
    })
  }

  await t.test('administrators of every account change their own email too', async (t) => {
    const admin = await person('ADMIN')

    const response = await admin.client.patch('/api/v1/users/me', { email: 'Admin.New@postern.test' })

    t.equal(response.json<User>().email, 'Admin.New@postern.test')
    t.equal((await root.get('/api/v1/users?email=admin.new@postern.test')).json<User[]>()[0]?.id, admin.id)
    isProblem(t, await admin.client.patch('/api/v1/users/me', { email: 'root@postern.test' }), 'email_taken')
  })
})

t.test('a user learns what they may do, and where they belong', async (t) => {
  const { person, root, account, roleId, anonymous, as, home } = await buildTestApp(t)
  const second = await account('Second')
  const role_id = (
    await root.post('/api/v1/roles', { name: 'editor', scopes: ['post:read', 'post:write'] })
  ).json<{ id: string }>().id
  const user = await person('ACCOUNT_MANAGER')
  await root.post(`/api/v1/users/${user.id}/roles`, { role_id, account_id: second })
  await root.post(`/api/v1/users/${user.id}/roles`, { role_id: await roleId('GUEST'), account_id: null })
  const signIn = async (account: string) => {
    const response = await anonymous.post('/api/v1/auth/login', {
      email: user.email,
      password: PASSWORD,
      account,
    })
    return as(response.json<{ access_token: string }>().access_token)
  }

  const atHome = await (await signIn('default')).get('/api/v1/users/me/permissions')
  const away = await (await signIn(second)).get('/api/v1/users/me/permissions')
  const accounts = await (await signIn(second)).get('/api/v1/users/me/accounts')

  t.same(atHome.json(), {
    account_id: home,
    role: 'ACCOUNT_MANAGER',
    roles: ['ACCOUNT_MANAGER', 'GUEST'],
    scopes: [],
  })
  t.same(away.json(), {
    account_id: second,
    role: 'GUEST',
    roles: ['GUEST', 'editor'],
    scopes: ['post:read', 'post:write'],
  })
  matchEach(t, accounts.json(), [
    { account: { id: home, key: 'default' }, is_home: true, status: 'active' },
    { account: { id: second, name: 'Second' }, is_home: false, status: 'active' },
  ])
})

t.test('a user changes their own password by giving the old one', async (t) => {
  const { person, anonymous, as, signIn, app } = await buildTestApp(t)
  const user = await person('GUEST')
  const elsewhere = as(await signIn(user.email))
  const change = async (current_password: unknown, new_password: unknown) =>
    await user.client.post('/api/v1/auth/change-password', { current_password, new_password })

  isProblem(t, await change(OTHER_PASSWORD, OTHER_PASSWORD), 'invalid_password')
  isProblem(t, await anonymous.post('/api/v1/auth/change-password', {}), 'authentication_required')
  for (const [current, next, pointers] of [
    [PASSWORD, 'short', ['/body/new_password']],
    [PASSWORD, undefined, ['/body/new_password']],
    [undefined, OTHER_PASSWORD, ['/body/current_password']],
    [5, null, ['/body/current_password', '/body/new_password']],
  ] as const) {
    const response = await change(current, next)
    isProblem(t, response, 'validation_failed', `${current}, ${next}`)
    t.same(pointersOf(response).sort(), pointers)
  }
  await refusesBadBodies(t, { app, token: user.token, method: 'POST', url: '/api/v1/auth/change-password' })
  const login = async (password: string) =>
    (await anonymous.post('/api/v1/auth/login', { email: user.email, password })).statusCode
  t.equal(await login(PASSWORD), 200, 'refused changes changed nothing')

  const changed = await change(PASSWORD, OTHER_PASSWORD)

  t.equal(changed.statusCode, 204)
  t.equal(await login(OTHER_PASSWORD), 200)
  t.equal(await login(PASSWORD), 401)
  t.equal((await user.client.get('/api/v1/users/me')).statusCode, 200, 'the session that changed it goes on')
  t.equal((await elsewhere.get('/api/v1/users/me')).statusCode, 401, 'every other session has ended')
})

t.test('anyone registers while registration is open', async (t) => {
  const { anonymous, app, signIn, as } = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '100' } })
  const register = async (change: object = {}) =>
    await anonymous.post('/api/v1/users/open', {
      email: 'new@postern.test',
      password: PASSWORD,
      full_name: 'New',
      ...change,
    })

  const response = await register({ phone_number: '1' })

  t.equal(response.statusCode, 201)
  t.match(response.json(), {
    email: 'new@postern.test',
    full_name: 'New',
    phone_number: '1',
    is_active: true,
    account_id: null,
    user_role: null,
  })
  const me = as(await signIn('new@postern.test'))
  t.equal((await me.get('/api/v1/users/me')).statusCode, 200)
  t.same((await me.get('/api/v1/users/me/permissions')).json(), {
    account_id: null,
    role: 'GUEST',
    roles: [],
    scopes: [],
  })
  isProblem(t, await me.get('/api/v1/accounts/me'), 'account_not_found')
  isProblem(t, await register({ email: 'NEW@postern.test' }), 'email_taken')
  for (const [change, pointer] of [
    [{ full_name: undefined }, '/body/full_name'],
    [{ email: 'x' }, '/body/email'],
    [{ password: 'short' }, '/body/password'],
    [{ is_active: true }, '/body/is_active'],
    [{ account_id: NO_SUCH_ID }, '/body/account_id'],
  ] as const) {
    t.same(pointersOf(await register(change)), [pointer])
  }
  await refusesBadBodies(t, { app, token: '', method: 'POST', url: '/api/v1/users/open' })
})

t.test('registrations from one address have a limit', async (t) => {
  const { anonymous } = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '2' } })
  const register = async (email: string) =>
    await anonymous.post('/api/v1/users/open', { email, password: PASSWORD, full_name: 'New' })

  const responses = [await register('a@x.test'), await register('b@x.test'), await register('c@x.test')]

  t.same(
    responses.map(({ statusCode }) => statusCode),
    [201, 201, 429],
  )
  t.ok(Number(responses[2]?.headers['retry-after']) > 0)
})

t.test('nobody registers while registration is closed', async (t) => {
  const { anonymous, root } = await buildTestApp(t, { env: { USERS_OPEN_REGISTRATION: 'false' } })

  const response = await anonymous.post('/api/v1/users/open', {
    email: 'n@x.test',
    password: PASSWORD,
    full_name: 'New',
  })

  isProblem(t, response, 'registration_closed')
  t.same((await root.get('/api/v1/users?email=n@x.test')).json(), [])
})

t.test('other methods are refused with those that there are', async (t) => {
  const { root } = await buildTestApp(t)

  for (const [method, path, allow] of [
    ['DELETE', '/api/v1/users', 'GET, HEAD, POST'],
    ['POST', '/api/v1/users/me', 'GET, HEAD, PUT, PATCH, DELETE'],
    ['POST', `/api/v1/users/${NO_SUCH_ID}`, 'GET, HEAD, PUT, PATCH, DELETE'],
    ['GET', '/api/v1/users/open', 'POST'],
    ['GET', `/api/v1/users/${NO_SUCH_ID}/deactivate`, 'POST'],
  ] as const) {
    const response = await root.send(method, path)
    isProblem(t, response, 'method_not_allowed', `${method} ${path}`)
    t.equal(response.headers['allow'], allow)
  }
  isProblem(t, await root.get('/api/v1/people'), 'not_found')
})
