import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, pythonClient, sdk, storeExample } from '../helpers/permit.ts'

const F = '/v2/facts/default/default'
type User = {
  key: string
  id: string
  email: string | null
  first_name: string | null
  attributes: object
  roles: object[]
}

t.test('bulk requests for people and tenants', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, { tenants: [{ key: 'acme' }, { key: 'globex' }] })
  const { key } = await apiKey(postern)
  const { url } = await listenForSdk(t, postern)
  const permit = sdk(url, key)
  const { api } = permit
  const python = await pythonClient(postern)
  const send = async (method: 'POST' | 'PUT' | 'DELETE', what: string, body: object) =>
    await python.send(method, `${F}/bulk/${what}`, body)
  const user = async (name: string) => await python.get(`${F}/users/${encodeURIComponent(name)}`)
  const whole = async (name: string) => (await user(name)).json<User & { associated_tenants: object[] }>()
  const reader = { role: 'reader', tenant: 'acme' }

  await t.test('people come with their roles, which hold at once', async (t) => {
    t.same(
      await api.users.bulkUserCreate([
        { key: 'ann', email: 'Ann@x.test', first_name: 'Ann', attributes: { age: 30 } },
        { key: 'auth0|ben', role_assignments: [reader, reader, { role: 'reader', tenant: 'globex' }] },
        {
          key: 'cat',
          role_assignments: [{ role: 'editor', tenant: 'acme', resource_instance: 'document:c1' }],
        },
      ]),
      {},
    )

    const ann = await whole('ann')
    t.match(ann, { email: 'Ann@x.test', first_name: 'Ann', attributes: { age: 30 } })
    t.same([ann.roles, ann.associated_tenants], [[], []])
    t.match(await whole('auth0|ben'), {
      email: null,
      roles: [reader, { role: 'reader', tenant: 'globex' }],
      associated_tenants: [{ tenant: 'acme' }, { tenant: 'globex' }],
    })
    t.equal((await whole('auth0|ben')).roles.length, 2)
    t.equal(await permit.check('auth0|ben', 'read', { type: 'document', tenant: 'acme' }), true)
    t.equal(await permit.check('cat', 'edit', { type: 'document', key: 'c1', tenant: 'acme' }), true)
    t.equal((await api.users.list({ search: 'ann@x' })).total_count, 1)
  })

  await t.test('one bad operation leaves nothing of the others, and is named', async (t) => {
    const good = { key: 'nobody-else', role_assignments: [reader] }
    for (const [operations, status, said] of [
      [[good, { key: 'ann' }], 409, 'ann'],
      [[good, { key: 'other', email: 'ANN@x.test' }], 409, 'ANN@x.test'],
      [[good, { key: 'same' }, { key: 'same' }], 422, 'operations'],
      [[good, { key: 'a', email: 'a@x.test' }, { key: 'b', email: 'A@x.test' }], 409, 'A@x.test'],
      [[good, { key: (await whole('ann')).id }], 409, (await whole('ann')).id],
      [[good, { key: 'a b' }], 422, 'operations'],
      [[good, { key: 'a', role_assignments: [{ ...reader, role: 'nothing' }] }], 404, 'role_assignments'],
      [[good, { key: 'a', role_assignments: [{ ...reader, role: 'editor' }] }], 404, 'role_assignments'],
      [[good, { key: 'a', role_assignments: [{ ...reader, role: 'SUPER_ADMIN' }] }], 404, 'role_assignments'],
      [[good, { key: 'a', role_assignments: [{ role: 'reader', tenant: 'nowhere' }] }], 404, 'tenant'],
      [[good, { key: 'a', role_assignments: [{ role: 'reader' }] }], 422, 'tenant'],
      [
        [
          good,
          { key: 'a', role_assignments: [{ ...reader, tenant: 'globex', resource_instance: 'document:c1' }] },
        ],
        400,
        'tenant',
      ],
      [
        [good, { key: 'a', role_assignments: [{ role: 'editor', resource_instance: 'document:no' }] }],
        404,
        '',
      ],
      [[good, { key: 'a', attributes: { text: '\u0000' } }], 422, ''],
      [
        Array.from({ length: 101 }, (_, n) => ({
          key: `n${n}`,
          role_assignments: Array.from({ length: 100 }, () => reader),
        })),
        400,
        '10100',
      ],
    ] as const) {
      for (const method of ['POST', 'PUT'] as const) {
        const isUpdate = method === 'PUT' && said === 'ann'
        const refused = await send(method, 'users', { operations })
        t.equal(refused.statusCode, isUpdate ? 200 : status, `${method} ${refused.body}`)
        if (isUpdate) await send('DELETE', 'users', { idents: ['nobody-else'] })
        else t.ok(refused.body.includes(said), refused.body)
        t.equal((await user('nobody-else')).statusCode, 404)
      }
    }
  })

  await t.test('whoever is there is changed, roles are added, and others are made', async (t) => {
    t.same(
      await api.users.bulkUserReplace([
        { key: 'ann', first_name: 'Anna', attributes: { age: 31 }, role_assignments: [reader] },
        { key: 'dan', email: 'dan@x.test', role_assignments: [reader] },
        { key: 'auth0|ben', role_assignments: [reader] },
      ]),
      {},
    )
    t.match(await whole('ann'), {
      email: 'Ann@x.test',
      first_name: 'Anna',
      attributes: { age: 31 },
      roles: [reader],
    })
    t.match(await whole('dan'), { email: 'dan@x.test', roles: [reader] })
    t.equal((await whole('auth0|ben')).roles.length, 2)
    t.equal((await api.users.list({ search: 'anna' })).total_count, 1)
    const taken = await send('PUT', 'users', { operations: [{ key: 'ann', email: 'dan@x.test' }] })
    t.match([taken.statusCode, taken.json().message], [409, /dan@x\.test/])
  })

  await t.test('each person has a row in the audit trail, by the key that wrote', async (t) => {
    const { id } = await whole('ann')
    const rows = (await postern.root.get(`/api/v1/audit-events?target_id=${id}`)).json<
      { action: string; actor_type: string }[]
    >()
    t.same(rows.map(({ action }) => action).sort(), ['role.assigned', 'user.created', 'user.updated'])
    t.ok(rows.every(({ actor_type }) => actor_type === 'api_key'))
  })

  await t.test('whoever can sign in keeps email and existence, also among many', async (t) => {
    const person = await postern.person()
    const { key: name } = await whole(person.id)
    for (const response of [
      await send('PUT', 'users', {
        operations: [
          { key: 'ann', first_name: 'X' },
          { key: name, email: 'x@y.test' },
        ],
      }),
      await send('DELETE', 'users', { idents: ['ann', person.id] }),
    ]) {
      t.match([response.statusCode, response.json().message], [409, new RegExp(name)])
      t.match(await whole('ann'), { first_name: 'Anna' })
    }
    t.equal((await send('PUT', 'users', { operations: [{ key: name, first_name: 'N' }] })).statusCode, 200)
    t.equal((await person.client.get('/api/v1/users/me')).statusCode, 200)
  })

  await t.test('a key that may only read, or somebody who may not give roles, writes nothing', async (t) => {
    const only = await pythonClient(postern, 'read')
    for (const [method, what, body] of [
      ['POST', 'users', { operations: [{ key: 'x' }] }],
      ['PUT', 'users', { operations: [{ key: 'x' }] }],
      ['DELETE', 'users', { idents: ['ann'] }],
      ['POST', 'tenants', { operations: [{ key: 'x', name: 'X' }] }],
      ['DELETE', 'tenants', { idents: ['acme'] }],
    ] as const)
      t.equal((await only.send(method, `${F}/bulk/${what}`, body)).statusCode, 403, `${method} ${what}`)
    const { client } = await postern.person('ADMIN')
    const onNew = { role: 'editor', tenant: 'acme', resource_instance: 'document:new' }
    const made = { operations: [{ key: 'x', role_assignments: [onNew] }] }
    t.equal((await client.post(`${F}/bulk/users`, made)).statusCode, 403, 'makes an instance')
    t.equal((await user('x')).statusCode, 404)
  })

  await t.test('people end by key or id; those who are gone are passed over', async (t) => {
    const { id } = await whole('dan')
    t.same(await api.users.bulkUserDelete(['ann', id.replaceAll('-', ''), 'gone', 'ann']), {})
    for (const name of ['ann', 'dan']) t.equal((await user(name)).statusCode, 404)
    t.equal(await permit.check('ann', 'read', { type: 'document', tenant: 'acme' }), false)
    t.equal(
      (await send('POST', 'users', { operations: [{ key: 'ann', email: 'ann@x.test' }] })).statusCode,
      200,
    )
  })

  await t.test('the same new people from two sides at once: each is there once', async (t) => {
    const operations = (side: number) =>
      Array.from({ length: 200 }, (_, n) => ({
        key: `twin-${n}`,
        attributes: { side },
        first_name: `Side ${side}`,
        role_assignments: [reader],
      }))
    const responses = await Promise.all(
      [1, 2, 3].map(async (side) => await send('PUT', 'users', { operations: operations(side) })),
    )
    t.same(
      responses.map(({ statusCode }) => statusCode),
      [200, 200, 200],
    )
    const { data, total_count } = (await python.get(`${F}/users?search=twin-&per_page=100`)).json<{
      data: User[]
      total_count: number
    }>()
    t.equal(total_count, 200)
    t.equal(new Set(data.map(({ first_name }) => first_name)).size, 1)
    for (const one of data)
      t.match(one, { attributes: { side: Number(one.first_name?.slice(5)) }, roles: [reader] })
  })

  await t.test('a reader sees a replaced person whole, before or after', async (t) => {
    let isDone = false
    const writing = (async () => {
      for (let side = 4; side < 10; side++) {
        const operations = Array.from({ length: 200 }, (_, n) => ({
          key: `twin-${n}`,
          attributes: { side },
          first_name: `Side ${side}`,
        }))
        await send('PUT', 'users', { operations })
      }
      isDone = true
    })()
    while (!isDone) {
      const { data } = (await python.get(`${F}/users?search=twin-&per_page=100`)).json<{ data: User[] }>()
      t.equal(new Set(data.map(({ first_name }) => first_name)).size, 1, 'one request at a time')
      for (const one of data)
        if (one.first_name !== `Side ${(one.attributes as { side: number }).side}`) t.fail('a mix')
    }
    await writing
  })

  await t.test('how many there are is right after each change', async (t) => {
    const count = async () =>
      (await python.get(`${F}/users?per_page=1`)).json<{ total_count: number }>().total_count
    const before = await count()
    await send('POST', 'users', { operations: [{ key: 'one-more' }] })
    t.equal(await count(), before + 1)
    await send('DELETE', 'users', { idents: ['one-more', 'ann'] })
    t.equal(await count(), before - 1)
    const there = async () =>
      (await python.get(`${F}/tenants/globex/users?per_page=1`)).json<{ total_count: number }>().total_count
    const members = await there()
    const grant = { role: 'reader', tenant: 'globex' }
    await send('PUT', 'users', { operations: [{ key: 'twin-1', role_assignments: [grant] }] })
    t.equal(await there(), members + 1)
  })

  await t.test('roles are given and taken many at a time: all or nothing', async (t) => {
    const path = `${F}/role_assignments/bulk`
    const give = async (grants: object[], missing = 'fail') =>
      await python.send('POST', `${path}?missing_user_policy=${missing}`, grants)
    const take = async (grants: object[]) => await python.send('DELETE', path, grants)
    const onDocument = { role: 'editor', tenant: 'acme', resource_instance: 'document:many' }
    await send('POST', 'users', { operations: [{ key: 'gil' }, { key: 'hal' }] })
    const { id } = await whole('hal')
    const grants = [
      { user: 'gil', ...reader },
      { user: id.replaceAll('-', ''), ...reader },
      { user: 'hal', ...reader },
      { user: 'gil', ...onDocument },
    ]

    for (const [wrong, status] of [
      [{ user: 'nobody', ...reader }, 404],
      [{ user: 'gil', role: 'nothing', tenant: 'acme' }, 404],
      [{ user: 'gil', role: 'SUPER_ADMIN', tenant: 'acme' }, 404],
      [{ user: 'gil', role: 'reader', tenant: 'nowhere' }, 404],
      [{ user: 'gil', role: 'reader' }, 422],
      [{ user: 'gil', role: 'reader', tenant: 'acme', resource_instance: 'document:many' }, 404],
      [{ user: 'gil', ...onDocument, resource_instance: 'document:c1', tenant: 'globex' }, 400],
    ] as const)
      t.equal((await give([...grants, wrong])).statusCode, status, JSON.stringify(wrong))
    t.equal((await give([...grants, { user: 'no key', ...reader }], 'create')).statusCode, 422)
    t.same([(await whole('gil')).roles, (await whole('hal')).roles], [[], []])

    const newcomers = [1, 2].map(() => ({ user: 'ivy', ...reader }))
    t.same((await give([...grants, ...newcomers], 'ignore')).json(), { assignments_created: 3 })
    t.same((await give([...grants, ...newcomers], 'create')).json(), { assignments_created: 1 })
    t.same((await give(grants)).json(), { assignments_created: 0 }, 'what is held is left')
    t.match(await whole('gil'), {
      roles: [reader],
      associated_tenants: [{ resource_instance_roles: [{ role: 'editor', resource_instance: 'many' }] }],
    })
    t.same((await whole('ivy')).roles, [reader])
    t.equal(await permit.check('hal', 'read', { type: 'document', tenant: 'acme' }), true)

    t.equal(
      (
        await take([
          { user: 'gil', ...reader },
          { ...onDocument, user: 'gil', role: 'nothing' },
        ])
      ).statusCode,
      404,
    )
    t.equal((await take([{ ...onDocument, user: 'gil', resource_instance: 'document:no' }])).statusCode, 404)
    t.same((await whole('gil')).roles, [reader])
    t.same((await take([...grants, { user: 'nobody', ...reader }])).json(), { assignments_removed: 3 })
    t.same((await take(grants)).json(), { assignments_removed: 0 })
    t.same([(await whole('gil')).roles, (await whole('hal')).roles], [[], []])
    t.equal(await permit.check('hal', 'read', { type: 'document', tenant: 'acme' }), false)
    const trail = (await postern.root.get(`/api/v1/audit-events?target_id=${id}`)).json<
      { action: string; details: object }[]
    >()
    t.same(
      trail.map(({ action }) => action).sort(),
      ['role.assigned', 'role.unassigned', 'user.created'],
      'one row for each change',
    )
  })

  await t.test('a bad grant is refused for the same reason alone and among many', async (t) => {
    const home = await postern.account('Corp')
    const { client } = await postern.person('ACCOUNT_ADMIN', { accountId: home })
    const { key: homeKey } = (await postern.root.get(`/api/v1/accounts/${home}`)).json<{ key: string }>()
    await send('PUT', 'users', {
      operations: [
        {
          key: 'jim',
          role_assignments: [{ role: 'editor', tenant: 'acme', resource_instance: 'document:c1' }, reader],
        },
      ],
    })
    const reasonOf = (response: { statusCode: number; body: string }): string => {
      const { support_link, detail } = JSON.parse(response.body) as {
        support_link?: string
        detail?: { loc: string[] }[]
      }
      return `${response.statusCode} ${support_link?.split('/').at(-1) ?? detail?.map(({ loc }) => loc.at(-1))}`
    }
    const nowhere = '0192f4d1-0000-7000-8000-00000000dead'
    const document = (key: string, more: object = {}) => ({
      role: 'editor',
      resource_instance: `document:${key}`,
      ...more,
    })
    for (const [grant, callers] of [
      [{ user: 'nobody', ...reader }, 'both'],
      [{ role: 'nothing', tenant: homeKey }, 'both'],
      [{ role: 'SUPER_ADMIN', tenant: homeKey }, 'both'],
      [{ role: 'editor', tenant: homeKey }, 'both'],
      [{ role: 'reader', tenant: 'nowhere' }, 'both'],
      [{ role: 'reader' }, 'both'],
      [document('no'), 'both'],
      [document('no', { tenant: 'nowhere' }), 'both'],
      [document('c1', { tenant: 'globex' }), 'both'],
      [document('c1', { tenant: 'nowhere' }), 'both'],
      [document('c1', { role: 'reader' }), 'both'],
      [document('new', { tenant: homeKey, role: 'reader' }), 'both'],
      [{ role: 'editor', tenant: homeKey, resource_instance: 'nothing:x' }, 'both'],
      [{ role: 'editor', tenant: homeKey, resource_instance: nowhere }, 'both'],
      [{ role: 'editor', tenant: 'nowhere', resource_instance: nowhere }, 'both'],
      [reader, 'the administrator of one account'],
      [document('c1'), 'the administrator of one account'],
      [document('c1', { tenant: 'acme' }), 'the administrator of one account'],
    ] as const) {
      const asked = { user: 'jim', ...grant }
      for (const [by, who] of [
        [client, 'the administrator of one account'],
        [python, 'a key for everything'],
      ] as const) {
        if (callers !== 'both' && callers !== who) continue
        for (const method of ['POST', 'DELETE'] as const) {
          const alone = reasonOf(await by.send(method, `${F}/role_assignments`, asked))
          const response = await by.send(method, `${F}/role_assignments/bulk`, [asked])
          const what = `${method} ${JSON.stringify(asked)} by ${who}`
          if (response.statusCode === 200 && method === 'DELETE') {
            // Alone, what is not held is an error.
            t.same(response.json(), { assignments_removed: 0 }, what)
            t.match(alone, /^404 (assignment|user)_not_found$/, what)
          } else t.equal(reasonOf(response), alone, what)
        }
      }
    }
    const newcomer = [
      { user: 'jim', ...reader },
      { user: 'a b', ...reader },
    ]
    const refused = await python.send(
      'POST',
      `${F}/role_assignments/bulk?missing_user_policy=create`,
      newcomer,
    )
    t.match(refused.json(), { detail: [{ loc: ['body', 1, 'user'] }] })
  })

  await t.test('as many grants as are allowed are not too large, one more is too many', async (t) => {
    const grants = Array.from({ length: 2000 }, (_, n) => ({
      ...{ user: `${'u'.repeat(396)}${n}`, role: 'editor', tenant: 'acme' },
      resource_instance: `document:${'d'.repeat(400)}`,
    }))
    t.ok(JSON.stringify(grants).length > postern.config.http.bodyLimitBytes)
    for (const [method, path, answer] of [
      ['POST', `${F}/role_assignments/bulk?missing_user_policy=ignore`, { assignments_created: 0 }],
      ['DELETE', `${F}/role_assignments/bulk`, { assignments_removed: 0 }],
    ] as const) {
      const response = await python.send(method, path, grants)
      t.equal(response.statusCode, 200, method)
      t.same(response.json(), answer)
      t.equal((await python.send(method, path, [...grants, grants[0]])).statusCode, 422, method)
    }
  })

  await t.test('who is given or loses a role in many signs on with it, and old tokens end', async (t) => {
    const path = `${F}/role_assignments/bulk`
    const person = await postern.person('GUEST')
    const grant = [{ user: person.id, role: 'reader', tenant: 'default' }]
    for (const method of ['POST', 'DELETE'] as const) {
      const token = await postern.signIn(person.email)
      t.equal((await postern.as(token).get('/api/v1/users/me')).statusCode, 200)
      t.equal((await python.send(method, path, grant)).statusCode, 200)
      t.equal((await postern.as(token).get('/api/v1/users/me')).statusCode, 401, method)
    }
  })

  await t.test('a page of people says of each what the person’s own path says', async (t) => {
    const { pool } = postern.services.database
    const odd = '"\\/\u007f\u2028é漢𝕏'
    const attributes = {
      [odd]: odd,
      '10': [1, '1', null, true, [], {}],
      a: { b: { c: [{ d: 'e\n\t\b\f\r\u001f' }] } },
      numbers: [0, -1.5, 1e300, 5e-324, 9007199254740991, 1e21, 1e-7, 123456789012345680000, 0.1],
    }
    const tenants = ['old', 'later'].map((name) => ({ key: name, name, attributes: null }))
    await send('POST', 'tenants', { operations: tenants })
    const everywhere = ['globex', 'acme', 'later', 'old'].map((tenant) => ({ role: 'reader', tenant }))
    const onInstances = ['d', odd.slice(0, 4).replace('\u007f', ''), '𝕏 y'].map((name) => ({
      role: 'editor',
      tenant: 'globex',
      resource_instance: `document:${name}`,
    }))
    const operations = [
      { key: `odd-${odd.replaceAll(/[\u007f\u2028]/g, '')}`, first_name: odd, attributes },
      { key: 'odd-null', email: 'Odd+Null@x.test', last_name: '', attributes: {} },
      { key: 'odd-held', role_assignments: [...everywhere, ...onInstances] },
      { key: 'odd-expired', role_assignments: [...everywhere, ...onInstances] },
      { key: 'odd-gone' },
      { key: 'odd-last', role_assignments: onInstances },
    ]
    const made = await send('POST', 'users', { operations })
    t.equal(made.statusCode, 200, made.body)
    await pool.query(`update role_assignments g set expires_at = now() - interval '1 hour'
      from users u where u.id = g.user_id and u.key = 'odd-expired' and g.resource_instance_id is null`)
    await pool.query(`update role_assignments g set expires_at = now() + interval '1 hour'
      from users u where u.id = g.user_id and u.key = 'odd-last'`)
    await pool.query(`update account_members m set status = 'pending' from users u, accounts a
      where u.id = m.user_id and u.key = 'odd-held' and a.id = m.account_id and a.key = 'acme'`)
    await pool.query(`update users set attributes = null, created_at = '1999-12-31T23:59:59.990Z',
      updated_at = '2030-01-01T05:00:00+05:00' where key = 'odd-null'`)
    await pool.query(`update accounts set deleted_at = now() where key = 'old'`)
    const twins = Array.from({ length: 200 }, (_, n) => `twin-${n}`)
    await send('DELETE', 'users', { idents: ['odd-gone', ...twins] })
    await postern.person('ADMIN')

    type Page = { data: (User & { associated_tenants: { tenant: string }[] })[]; total_count: number }
    const pages = async (perPage: number, path = 'users', more = '') => {
      const found: Page['data'] = []
      for (let page = 1; ; page++) {
        const response = await python.get(`${F}/${path}?per_page=${perPage}&page=${page}${more}`)
        const { data, total_count } = response.json<Page>()
        found.push(...data)
        if (data.length < perPage) {
          t.equal(found.length, total_count)
          return found
        }
      }
    }
    const alone = async ({ id }: User) => (await python.get(`${F}/users/${id}`)).json<Page['data'][number]>()
    const everybody = await pages(100)
    for (const one of everybody) t.strictSame(one, await alone(one), one.key)
    t.same(
      everybody.map(({ id }) => id),
      everybody.map(({ id }) => id).sort(),
    )
    const held = (name: string) => everybody.find(({ key: one }) => one === name)
    matchEach(t, held('odd-held')?.associated_tenants, [
      { tenant: 'acme' },
      { tenant: 'globex' },
      { tenant: 'later' },
    ])
    t.same(held('odd-expired')?.roles, [])
    t.equal(held('odd-gone'), undefined)
    t.strictSame(held(operations[0]?.key ?? '')?.attributes, attributes)

    await t.test('whatever the size of the page, and after each change', async (t) => {
      for (let round = 0; round < 2; round++) t.strictSame(await pages(4), everybody, `round ${round}`)
      await send('DELETE', 'users', { idents: ['gil'] })
      const others = everybody.filter(({ key: one }) => one !== 'gil')
      t.equal(others.length, everybody.length - 1)
      t.strictSame(await pages(4), others)
      await send('POST', 'users', { operations: [{ key: 'odd-newest' }] })
      t.strictSame((await pages(4)).slice(0, -1), others)
      t.same((await python.get(`${F}/users?per_page=4&page=1000`)).json<Page>().data, [])
    })

    await t.test('a change of somebody stands on the page, and on all others what stood there', async (t) => {
      const before = await pages(4)
      for (const { key: one } of before.slice(4, 6))
        t.equal((await python.patch(`${F}/users/${one}`, { first_name: 'Changed' })).statusCode, 200)

      const after = await pages(4)

      t.same(
        after.flatMap(({ first_name: name }, place) => (name === 'Changed' ? [place] : [])),
        [4, 5],
      )
      const unchanged = (people: Page['data']) => people.filter((_, place) => place < 4 || place > 5)
      t.strictSame(unchanged(after), unchanged(before))
      for (const one of before.slice(4, 6))
        await python.patch(`${F}/users/${one.key}`, { first_name: one.first_name })
    })

    await t.test('when one goes as another comes back, other people stand there', async (t) => {
      const before = await pages(1)
      const swap = async () =>
        await pool.query(`update users set deleted_at = case when deleted_at is null then now() end
          where key in ('odd-gone', 'odd-null')`)
      await swap()

      // Not one after another: each page says where the next one starts.
      const backwards: string[] = []
      for (let page = before.length; page > 0; page--) {
        const { data } = (await python.get(`${F}/users?per_page=1&page=${page}`)).json<Page>()
        backwards.push(...data.map(({ key: one }) => one))
      }

      const after = (await pages(100)).map(({ key: one }) => one)
      t.same(backwards.reverse(), after)
      t.notOk(after.includes('odd-null'))
      t.ok(after.includes('odd-gone'))
      await swap()
      t.strictSame(await pages(100), before)
    })

    await t.test('also of those who are searched for, and of a tenant only what is held there', async (t) => {
      const searched = everybody.filter(({ key: one }) => one.startsWith('odd-'))
      t.strictSame((await pages(2, 'users', '&search=odd-')).slice(0, searched.length), searched)
      t.same(await pages(3, 'users', '&role=nothing'), [])
      const inGlobex = await pages(3, 'tenants/globex/users')
      for (const one of inGlobex) {
        const { associated_tenants: tenants, roles, ...rest } = await alone(one)
        const here = ({ tenant }: { tenant?: string }) => tenant === 'globex'
        t.strictSame(one, { ...rest, associated_tenants: tenants.filter(here), roles: roles.filter(here) })
      }
      t.ok(inGlobex.some(({ key: one }) => one === 'odd-held'))
    })
  })

  await t.test('what is too large is refused as such, and nothing of it is done', async (t) => {
    const text = 'x'.repeat(postern.config.http.bodyLimitBytes)
    const user = { key: 'large', attributes: { text } }
    for (const [path, body] of [
      [`${F}/users`, user],
      [`${F}/bulk/users`, { operations: Array.from({ length: 11 }, () => user) }],
    ] as const) {
      const refused = await python.post(path, body)
      t.equal(refused.statusCode, 413)
      t.match(refused.json(), {
        error_code: 'INVALID_INPUT',
        message: String,
        support_link: /payload_too_large$/,
      })
    }
    t.equal((await python.get(`${F}/users/large`)).statusCode, 404)
  })

  await t.test('each bulk request takes as many as is said, and not one more', async (t) => {
    const { client } = await anApiKey(postern, { level: 'org' })
    const { pool } = postern.services.database
    await client.post('/v2/projects', { key: 'large', name: 'Large' })
    const large = '/v2/facts/large/dev'
    await client.post('/v2/schema/large/dev/resources', {
      key: 'document',
      name: 'Document',
      actions: {},
      relations: { parent: 'document' },
    })
    await client.post('/v2/schema/large/dev/roles', { key: 'reader', name: 'Reader' })
    await client.post(`${large}/users`, { key: 'ida' })

    const keyOf = (n: number) => `k${n}`
    // What is not there is passed over, which is cheap.
    const nobodyOf = (n: number) => `none${n}`
    const aUser = (n: number) => ({ key: keyOf(n) })
    const aTenant = (n: number) => ({ key: keyOf(n), name: 'T' })
    const anInstance = (n: number) => ({ key: keyOf(n), resource: 'document', tenant: 'default' })
    const aTuple = (n: number) => ({
      subject: 'document:s',
      relation: 'parent',
      object: `document:o${n}`,
      tenant: 'default',
    })
    const aGrant = () => ({ user: 'ida', role: 'reader', tenant: 'default' })
    const versions = async () =>
      (await pool.query('select environment_id, version from policy_versions order by 1')).rows
    for (const [method, path, most, itemOf, list] of [
      ['POST', `${large}/bulk/users`, 3000, aUser, 'operations'],
      ['PUT', `${large}/bulk/users`, 3000, aUser, 'operations'],
      ['DELETE', `${large}/bulk/users`, 3000, nobodyOf, 'idents'],
      ['POST', `${large}/bulk/tenants`, 2000, aTenant, 'operations'],
      ['DELETE', `${large}/bulk/tenants`, 2000, nobodyOf, 'idents'],
      ['PUT', `${large}/bulk/resource_instances`, 3000, anInstance, 'operations'],
      ['DELETE', `${large}/bulk/resource_instances`, 3000, (n: number) => `document:none${n}`, 'idents'],
      ['POST', `${large}/relationship_tuples/bulk`, 1000, aTuple, 'operations'],
      ['DELETE', `${large}/relationship_tuples/bulk`, 1000, aTuple, 'idents'],
      ['POST', `${large}/role_assignments/bulk`, 2000, aGrant, undefined],
      ['DELETE', `${large}/role_assignments/bulk`, 2000, aGrant, undefined],
      ['PUT', '/v2/schema/large/prod/bulk/roles', 2000, aUser, 'operations'],
    ] as const) {
      const send = async (count: number) => {
        const items = Array.from({ length: count }, (_, n) => itemOf(n))
        return await client.send(method, path, list === undefined ? items : { [list]: items })
      }
      const before = await versions()
      const refused = await send(most + 1)
      t.equal(refused.statusCode, 422, `${method} ${path}`)
      t.match(
        refused.json(),
        {
          error_code: 'INVALID_INPUT',
          message: new RegExp(`${most} items`),
          detail: [{ msg: new RegExp(`${most}`), type: String }],
        },
        `${method} ${path}`,
      )
      t.same(refused.json().detail[0].loc, list ? ['body', list] : ['body'], `${method} ${path}`)
      t.same(await versions(), before, `${method} ${path}: nothing is written`)
      const taken = await send(most)
      t.equal(taken.statusCode, 200, `${method} ${path} ${taken.body}`)
    }
  })

  await t.test('tenants are made and end, many at a time', async (t) => {
    const tenants = ['t1', 't2', 't3'].map((name) => ({ key: name, name, attributes: null }))
    t.same((await send('POST', 'tenants', { operations: tenants })).json(), {})
    t.match((await python.get(`${F}/tenants/t2`)).json(), { key: 't2', name: 't2', attributes: null })
    for (const [operations, status] of [
      [[{ key: 't4', name: 'T' }, tenants[0]], 409],
      [
        [
          { key: 't4', name: 'T' },
          { key: 't4', name: 'T' },
        ],
        422,
      ],
    ] as const) {
      t.equal((await send('POST', 'tenants', { operations })).statusCode, status)
      t.equal((await python.get(`${F}/tenants/t4`)).statusCode, 404)
    }
    await send('PUT', 'users', {
      operations: [{ key: 'eve', role_assignments: [{ role: 'reader', tenant: 't1' }] }],
    })
    const home = await postern.account('Homes')
    await postern.person('GUEST', { accountId: home })
    for (const kept of [home, 'default']) {
      t.equal((await send('DELETE', 'tenants', { idents: ['t1', kept] })).statusCode, 403)
      t.equal((await python.get(`${F}/tenants/t1`)).statusCode, 200)
    }
    const { id } = (await python.get(`${F}/tenants/t2`)).json<{ id: string }>()
    t.same((await send('DELETE', 'tenants', { idents: ['t1', id.replaceAll('-', ''), 'gone'] })).json(), {})
    for (const name of ['t1', 't2']) t.equal((await python.get(`${F}/tenants/${name}`)).statusCode, 404)
    t.same((await whole('eve')).roles, [])
  })
})
