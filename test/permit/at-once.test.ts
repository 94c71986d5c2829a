import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { eventually } from '../helpers/processes.ts'
import { routesOf } from '../helpers/routes.ts'

type Row = Record<string, unknown>
type Queries = { query(text: string): Promise<{ rowCount: number | null }> }

t.test('much at the same time', async (t) => {
  const postern = await buildTestApp(t)
  const { client: organization } = await anApiKey(postern, { level: 'org' })
  await organization.post('/v2/projects', { key: 'busy', name: 'Busy' })
  let environments = 0

  /** A fresh environment with documents in folders, by its own key. */
  async function open(): Promise<{ client: Client; F: string; S: string; P: string }> {
    const key = `e${++environments}`
    await organization.post('/v2/projects/busy/envs', { key, name: key })
    const { secret } = (await organization.get(`/v2/api-key/busy/${key}`)).json<{ secret: string }>()
    const client = postern.as(secret)
    const [F, S] = [`/v2/facts/busy/${key}`, `/v2/schema/busy/${key}`]
    const ready = async (path: string, body: object) => {
      const { statusCode, body: said } = await client.post(path, body)
      if (statusCode !== 200) throw new Error(said)
    }
    await ready(`${S}/resources`, {
      key: 'folder',
      name: 'Folder',
      actions: { open: {} },
      roles: { owner: { permissions: ['open'] }, guest: {}, friend: {} },
    })
    await ready(`${S}/resources`, {
      key: 'document',
      name: 'Document',
      actions: { read: {}, edit: {} },
      relations: { parent: 'folder' },
      roles: { owner: { permissions: ['read', 'edit'] }, guest: {}, friend: {} },
    })
    await ready(`${S}/roles`, { key: 'reader', name: 'Reader', permissions: ['document:read'] })
    await ready(`${S}/condition_sets`, { key: 'all', name: 'All', conditions: {} })
    for (const key of ['acme', 'globex']) await ready(`${F}/tenants`, { key, name: key })
    await ready(`${F}/bulk/users`, { operations: [{ key: 'ida' }, { key: 'bob' }] })
    return { client, F, S, P: `/v2/projects/busy/envs` }
  }

  await t.test('of several who make the same thing one does, and nothing is half made', async (t) => {
    const { client, F, S, P } = await open()
    const grant = { user: 'ida', role: 'owner', resource_instance: 'document:new', tenant: 'acme' }
    const derivation = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
    for (const [path, body, list] of [
      [`${F}/tenants`, { key: 'same', name: 'Same' }],
      [`${F}/users`, { key: 'same', email: 'same@x.test' }],
      [`${S}/roles`, { key: 'same', name: 'Same', permissions: ['document:read'] }],
      [`${S}/resources`, { key: 'same', name: 'Same', actions: { a: {}, b: {} } }],
      [`${S}/resources/document/actions`, { key: 'same', name: 'Same' }],
      [`${S}/resources/document/action_groups`, { key: 'same', name: 'Same' }],
      [`${S}/resources/document/attributes`, { key: 'same', type: 'bool' }],
      [`${S}/resources/document/relations`, { key: 'same', name: 'Same', subject_resource: 'folder' }],
      [`${S}/resources/document/roles`, { key: 'same', name: 'Same' }],
      [`${S}/condition_sets`, { key: 'same', name: 'Same', conditions: {} }],
      [`${F}/resource_instances`, { key: 'same', resource: 'document', tenant: 'acme' }],
      [`${F}/role_assignments`, { user: 'ida', role: 'reader', tenant: 'acme' }],
      [`${F}/role_assignments`, grant],
      [
        `${F}/relationship_tuples`,
        { subject: 'folder:x', relation: 'parent', object: 'document:x', tenant: 'acme' },
      ],
      [`${F}/proxy_configs`, { key: 'same', name: 'Same', secret: '', mapping_rules: [] }],
      [P, { key: 'same', name: 'Same' }],
      [
        `${S}/resources/document/roles/owner/implicit_grants`,
        derivation,
        `${S}/resources/document/roles/owner`,
      ],
    ] as const) {
      const what = `${path} ${JSON.stringify(body)}`
      const answers = await Promise.all(Array.from({ length: 4 }, async () => await client.post(path, body)))
      // An environment's key makes no environments.
      const [done, not] = path === P ? [0, 403] : [1, 409]
      t.equal(answers.filter(({ statusCode }) => statusCode === 200).length, done, what)
      t.equal(answers.filter(({ statusCode }) => statusCode === not).length, 4 - done, what)
      if (list || path === P) continue
      const rows = (await client.get(`${path}?include_total_count=true&per_page=100`)).json<{ data: Row[] }>()
      t.equal(
        rows.data.filter((row) =>
          Object.entries(body).every(
            ([name, value]) => !(name in row) || typeof value === 'object' || row[name] === value,
          ),
        ).length,
        1,
        what,
      )
    }
    const rule = { user_set: 'all', permission: 'document:read', resource_set: 'document' }
    const rules = await Promise.all([1, 2, 3, 4].map(async () => await client.post(`${F}/set_rules`, rule)))
    t.same(rules.map((one) => one.json<Row[]>().length).sort(), [0, 0, 0, 1])
  })

  await t.test('several derivations of several roles, and bulk requests in each other’s way', async (t) => {
    const { client, F, S } = await open()
    const roles = ['owner', 'guest', 'friend']
    const derived = await Promise.all(
      roles.map(
        async (role) =>
          await client.post(`${S}/resources/document/roles/${role}/implicit_grants`, {
            role,
            on_resource: 'folder',
            linked_by_relation: 'parent',
          }),
      ),
    )
    t.same(
      derived.map(({ statusCode }) => statusCode),
      [200, 200, 200],
    )
    const { roles: shown } = (await client.get(`${S}/resources/document`)).json<{
      roles: Record<string, { granted_to: { users_with_role: { role: string }[] } }>
    }>()
    for (const role of roles) matchEach(t, shown[role]?.granted_to.users_with_role, [{ role }])

    const tuples = Array.from({ length: 30 }, (_, n) => ({
      subject: `folder:f${n % 5}`,
      relation: 'parent',
      object: `document:d${n}`,
      tenant: 'acme',
    }))
    const grants = Array.from({ length: 30 }, (_, n) => ({
      user: n % 2 ? 'ida' : 'bob',
      role: 'owner',
      resource_instance: `folder:f${n % 5}`,
      tenant: 'acme',
    }))
    const backwards = <T>(all: readonly T[]) => [...all].reverse()
    const answers = await Promise.all([
      client.post(`${F}/relationship_tuples/bulk`, { operations: tuples }),
      client.post(`${F}/role_assignments/bulk`, grants),
      client.post(`${F}/relationship_tuples/bulk`, { operations: backwards(tuples) }),
      client.post(`${F}/role_assignments/bulk`, backwards(grants)),
      client.post(`${F}/relationship_tuples/bulk`, { operations: tuples.slice(10) }),
    ])
    t.same(
      answers.map(({ statusCode, body }) => (statusCode === 200 ? 200 : body)),
      [200, 200, 200, 200, 200],
    )
    t.equal((await client.get(`${F}/relationship_tuples?include_total_count=true`)).json().total_count, 30)
    t.equal((await client.get(`${F}/role_assignments?include_total_count=true`)).json().total_count, 10)
    t.equal((await client.get(`${F}/resource_instances?include_total_count=true`)).json().total_count, 35)
    const mayEdit = await client.post('/allowed', {
      user: { key: 'ida' },
      action: 'edit',
      resource: { type: 'document', key: 'd29', tenant: 'acme' },
    })
    t.match(mayEdit.json(), { allow: true })
  })

  await t.test('whoever lists sees a bulk request whole or not at all', async (t) => {
    const { client, F } = await open()
    const put = async (n: number) =>
      await client.put(`${F}/bulk/resource_instances`, {
        operations: Array.from({ length: 20 }, (_, key) => ({
          key: `i${key}`,
          resource: 'document',
          tenant: 'acme',
          attributes: { n },
        })),
      })
    await put(0)
    let isWriting = true
    const reading = (async () => {
      const seen: number[] = []
      while (isWriting) {
        const rows = (await client.get(`${F}/resource_instances?per_page=100`)).json<
          { attributes: { n: number } }[]
        >()
        const numbers = new Set(rows.map(({ attributes }) => attributes.n))
        t.equal(numbers.size, 1, [...numbers].join())
        seen.push(...numbers)
      }
      return seen
    })()
    const written = await Promise.all([1, 2, 3, 4, 5, 6].map(put))
    isWriting = false
    t.ok((await reading).length > 0)
    t.same(new Set(written.map(({ statusCode }) => statusCode)), new Set([200]))
  })

  await t.test('what ends while it is used leaves nothing that refers to it', async (t) => {
    const { client, F, S } = await open()
    const statuses = new Map<number, string>()
    const note = async (sent: ReturnType<Client['post']>) => {
      const { statusCode, body } = await sent
      statuses.set(statusCode, body)
    }
    for (let round = 0; round < 4; round++) {
      const tuple = { subject: 'folder:x', relation: 'parent', object: 'document:x', tenant: 'acme' }
      const onInstance = { user: 'ida', role: 'owner', resource_instance: 'document:x', tenant: 'acme' }
      await Promise.all([
        note(client.post(`${F}/role_assignments`, { user: 'ida', role: 'reader', tenant: 'acme' })),
        note(client.delete(`${S}/roles/reader`)),
        note(client.post(`${F}/role_assignments`, onInstance)),
        note(client.delete(`${F}/users/ida`)),
        note(client.post(`${F}/relationship_tuples`, tuple)),
        note(client.delete(`${S}/resources/document/relations/parent`)),
        note(client.delete(`${F}/tenants/acme`)),
        note(client.delete(`${S}/resources/document`)),
        note(
          client.put(`${F}/bulk/resource_instances`, {
            operations: [{ key: 'y', resource: 'document', tenant: 'acme' }],
          }),
        ),
        note(
          client.put(`${F}/users/ida`, {
            key: 'ida',
            role_assignments: [{ role: 'reader', tenant: 'acme' }],
          }),
        ),
        note(client.post(`${S}/roles`, { key: 'reader', name: 'Reader', permissions: ['document:read'] })),
        note(client.post(`${F}/tenants`, { key: 'acme', name: 'Acme' })),
        note(
          client.post(`${S}/resources`, {
            key: 'document',
            name: 'Document',
            actions: { read: {} },
            relations: { parent: 'folder' },
            roles: { owner: { permissions: ['read'] } },
          }),
        ),
      ])
      const keysOf = async (path: string) => {
        const rows = (await client.get(`${path}?include_total_count=true&per_page=100`)).json<{
          data: Row[]
        }>()
        return new Set(
          rows.data.map(({ key, resource }) => (path.endsWith('instances') ? `${resource}:${key}` : key)),
        )
      }
      const [users, tenants, roles, instances] = [
        await keysOf(`${F}/users`),
        await keysOf(`${F}/tenants`),
        await keysOf(`${S}/roles`),
        await keysOf(`${F}/resource_instances`),
      ]
      for (const grant of (await client.get(`${F}/role_assignments`)).json<Row[]>()) {
        t.ok(users.has(grant['user']) && tenants.has(grant['tenant']), JSON.stringify(grant))
        const on = grant['resource_instance']
        t.ok(on === null ? roles.has(grant['role']) : instances.has(on), JSON.stringify(grant))
      }
      for (const one of (await client.get(`${F}/relationship_tuples`)).json<Row[]>())
        t.ok(instances.has(one['subject']) && instances.has(one['object']), JSON.stringify(one))
    }
    t.notOk(
      [...statuses].find(([status]) => status >= 500),
      [...statuses.values()].join('\n'),
    )
  })

  await t.test('each list shows what was there, once, however much is added between its pages', async (t) => {
    const { client, F, S } = await open()
    const tuple = (n: number) => ({
      subject: 'folder:p',
      relation: 'parent',
      object: `document:p${n}`,
      tenant: 'acme',
    })
    const permission = (n: number) => ({
      user_set: 'all',
      permission: `document:a${n}`,
      resource_set: 'document',
    })
    const grant = (n: number) => ({ user: `u${n}`, role: 'reader', tenant: 'acme' })
    // In the order of their keys and names they would be the other way round.
    const named = (n: number) => ({ key: `p${9 - n}`, name: `${9 - n}` })
    const onFolder = `${S}/resources/folder`
    await client.post(`${F}/bulk/users`, {
      operations: [0, 1, 2, 3, 4].map((n) => ({ key: `u${n}` })),
    })
    for (let n = 0; n < 5; n++)
      await client.post(`${S}/resources/document/actions`, { key: `a${n}`, name: 'x' })
    await organization.post('/v2/projects', { key: 'paged', name: 'Paged' })

    const lists: {
      path: string
      create: (n: number) => object
      /** What is deleted to end one of them, by its id; the list itself, with a body that names it, if there is one. */
      end?: (id: unknown) => string
      endBody?: (n: number) => object
      by?: Client
    }[] = [
      { path: '/v2/projects', create: named, by: organization },
      { path: '/v2/projects/paged/envs', create: named, by: organization },
      {
        path: '/v2/api-key',
        create: (n) => ({ object_type: 'org', name: `${9 - n}` }),
        by: organization,
      },
      { path: `${F}/tenants`, create: named },
      { path: `${F}/users`, create: (n) => ({ key: `p${9 - n}` }) },
      {
        path: `${F}/tenants/globex/users`,
        create: (n) => ({ key: `t${9 - n}` }),
        end: (id) => `${F}/users/${id}`,
      },
      {
        path: `${F}/resource_instances`,
        create: (n) => ({ key: `p${9 - n}`, resource: 'document', tenant: 'acme' }),
      },
      { path: `${F}/relationship_tuples`, create: tuple, endBody: tuple },
      { path: `${F}/role_assignments`, create: grant, endBody: grant },
      { path: `${F}/set_rules`, create: permission, endBody: permission },
      {
        path: `${F}/proxy_configs`,
        create: (n) => ({ ...named(n), secret: '', mapping_rules: [] }),
      },
      {
        path: `${F}/user_invites`,
        create: (n) => ({
          key: `i${9 - n}`,
          email: `i${9 - n}@x.test`,
          role_id: 'reader',
          tenant_id: 'acme',
        }),
      },
      { path: `${S}/roles`, create: named },
      { path: `${S}/resources`, create: (n) => ({ ...named(n), actions: {} }) },
      { path: `${onFolder}/actions`, create: named },
      { path: `${onFolder}/action_groups`, create: named },
      { path: `${onFolder}/attributes`, create: (n) => ({ key: `p${9 - n}`, type: 'bool' }) },
      { path: `${onFolder}/relations`, create: (n) => ({ ...named(n), subject_resource: 'document' }) },
      { path: `${onFolder}/roles`, create: named },
      { path: `${S}/users/attributes`, create: (n) => ({ key: `p${9 - n}`, type: 'bool' }) },
      { path: `${S}/condition_sets`, create: (n) => ({ ...named(n), conditions: {} }) },
    ]

    for (const { path, create, end = (id: unknown) => `${path}/${id}`, endBody, by = client } of lists) {
      const idsOf = async (page: number, perPage = 2) => {
        const answer = (await by.get(`${path}?page=${page}&per_page=${perPage}`)).json<
          Row[] | { data: Row[] }
        >()
        return (Array.isArray(answer) ? answer : answer.data).map(({ id }) => id)
      }
      const add = async (n: number) => {
        const { statusCode, body } = await by.post(path, create(n))
        t.equal(statusCode, 200, body)
      }
      for (let n = 0; n < 4; n++) await add(n)
      const before = await idsOf(1, 100)
      t.ok(before.length >= 4, path)
      const seen: unknown[] = []
      const pages = Math.ceil(before.length / 2)
      for (let page = 1; page <= pages; page++) {
        seen.push(...(await idsOf(page)))
        // Something comes to the end, and after the first page the last of what is to come goes.
        if (page === 1) {
          const [url, body] = endBody ? [path, endBody(3)] : [end(before.at(-1)), undefined]
          t.equal((await by.send('DELETE', url, body)).statusCode, 204, url)
          await add(4)
        }
      }
      const there = before.slice(0, -1)
      t.same(seen.slice(0, there.length), there, `${path}: in the same order, each once`)
      t.equal(new Set(seen).size, seen.length, path)
      const tooLarge = await by.get(`${path}?per_page=101`)
      t.match([tooLarge.statusCode, tooLarge.json()], [422, { error_code: 'PAGINATION_SIZE_OVERREACHED' }])
    }

    const isShown = (path: string) => {
      const pattern = new RegExp(`^${path.replaceAll(/:\w+/g, '[^/]+')}$`)
      return lists.some((list) => pattern.test(list.path))
    }
    const offered = new Set(
      routesOf(postern.app.printRoutes({ commonPrefix: false })).flatMap(
        (route) => /^GET (\/v2\/[^*]*[^*/])\/?$/.exec(route)?.[1] ?? [],
      ),
    )
    let found = 0
    for (const path of offered) {
      const inPlace = path.replace('/:proj_id/:env_id', F.replace('/v2/facts', ''))
      const url = `${inPlace.replace(':proj_id', 'paged').replaceAll(/:\w+/g, 'x')}?per_page=101`
      const isList = (await organization.get(url)).body.includes('PAGINATION_SIZE_OVERREACHED')
      if (isList) found++
      t.equal(isList, isShown(path), path)
    }
    t.equal(found, lists.length)
  })

  await t.test('what was begun earlier and is committed later hides nothing that was there', async (t) => {
    const { client, F } = await open()
    const { pool } = postern.services.database
    const environmentId = (await client.get('/v2/api-key/scope')).json<Row>()['environment_id']
    await client.post(`${F}/bulk/users`, { operations: [{ key: 'p1' }, { key: 'p2' }] })
    const keysOf = async (page: number) =>
      (await client.get(`${F}/users?page=${page}&per_page=2`))
        .json<{ data: { key: string }[] }>()
        .data.map(({ key }) => key)

    const other = await pool.connect()
    await other.query('begin')
    await other.query(`select from accounts where key = 'acme' and environment_id = $1 for update`, [
      environmentId,
    ])
    const slow = client.post(`${F}/bulk/users`, {
      operations: ['slow1', 'slow2'].map((key) => ({
        key,
        role_assignments: [{ role: 'reader', tenant: 'acme' }],
      })),
    })
    await waitsForLock(other)
    await client.post(`${F}/users`, { key: 'quick' })
    const seen = [await keysOf(1), await keysOf(2), await keysOf(3)]
    t.same(seen, [['ida', 'bob'], ['p1', 'p2'], ['quick']])
    await other.query('rollback')
    other.release()
    t.equal((await slow).statusCode, 200)
    t.same([await keysOf(3), await keysOf(4)], [['slow1', 'slow2'], ['quick']], 'shown a second time')
  })

  await t.test('who was there long before, and comes into a list later, comes at its end', async (t) => {
    const { client, F } = await open()
    const all = ['old', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6']
    await client.post(`${F}/bulk/users`, { operations: all.map((key) => ({ key })) })
    for (const tenant of ['walked', 'other']) await client.post(`${F}/tenants`, { key: tenant, name: tenant })
    const assign = async (user: string, tenant = 'walked') =>
      await client.post(`${F}/role_assignments`, { user, role: 'reader', tenant })
    const lists = [
      {
        path: 'tenants/walked/users?',
        join: async (key: string) => await client.post(`${F}/tenants/walked/users`, { key }),
      },
      { path: 'tenants/walked/users?role=reader&', join: assign },
      {
        path: 'tenants/walked/users?search=p&',
        join: async (key: string) => await client.post(`${F}/tenants/walked/users`, { key }),
      },
      { path: 'users?role=reader&', join: async (key: string) => await assign(key, 'other') },
    ]
    for (const { path, join } of lists) {
      const page = async (number: number, perPage = 2) =>
        (await client.get(`${F}/${path}page=${number}&per_page=${perPage}`)).json<{
          data: { key: string }[]
          total_count: number
        }>()
      const keys = async (number: number, perPage?: number) =>
        (await page(number, perPage)).data.map(({ key }) => key)
      // The younger are there first.
      for (const key of ['p5', 'p4', 'p3']) t.equal((await join(key)).statusCode, 200)
      const before = await keys(1, 100)
      t.same(before.slice(-3), ['p5', 'p4', 'p3'], path)
      const seen = await keys(1)
      for (const key of ['p1', 'p6', 'p2']) t.equal((await join(key)).statusCode, 200)
      for (let number = 2; number <= Math.ceil((before.length + 3) / 2); number++)
        seen.push(...(await keys(number)))
      t.same(seen, [...before, 'p1', 'p6', 'p2'], path)
      t.equal((await page(1)).total_count, seen.length)
      await client.send('DELETE', `${F}/bulk/users`, { idents: all })
      await client.post(`${F}/bulk/users`, { operations: all.map((key) => ({ key })) })
    }
  })

  await t.test('a person comes to a tenant with all that was said of them, or not at all', async (t) => {
    const { client, F } = await open()
    const { pool } = postern.services.database
    const environmentId = (await client.get('/v2/api-key/scope')).json<Row>()['environment_id']
    const role_assignments = [{ role: 'reader', tenant: 'acme' }]
    const before = (await client.get(`${F}/users/ida`)).json<Row>()

    for (const [key, status] of [
      ['ida', 200],
      ['new', 404],
    ] as const) {
      // The tenant ends after it was found, and before the membership in it is written.
      const tenant = `ends-${key}`
      await client.post(`${F}/tenants`, { key: tenant, name: 'Ends' })
      const other = await pool.connect()
      await other.query('begin')
      await other.query('update accounts set deleted_at = now() where key = $1 and environment_id = $2', [
        tenant,
        environmentId,
      ])
      const added = client.post(`${F}/tenants/${tenant}/users`, { key, first_name: 'Ida', role_assignments })
      await waitsForLock(other)
      await other.query('commit')
      other.release()
      t.match([(await added).statusCode, (await added).json()], [404, { error_code: 'NOT_FOUND' }])
      const found = await client.get(`${F}/users/${key}`)
      t.equal(found.statusCode, status)
      if (status === 200) t.strictSame(found.json(), before)
    }

    const added = await client.post(`${F}/tenants/globex/users`, { key: 'new', role_assignments })
    const { roles, associated_tenants: tenants } = added.json<{
      roles: Row[]
      associated_tenants: { tenant: string; roles: string[] }[]
    }>()
    t.same(roles, role_assignments)
    t.same(
      tenants.map(({ tenant, roles: held }) => [tenant, held]),
      [
        ['acme', ['reader']],
        ['globex', []],
      ],
    )
  })

  await t.test('who can sign in stays as they are, also when several would change that', async (t) => {
    const { client } = await anApiKey(postern)
    const person = await postern.person('GUEST', { email: 'guarded@x.test' })
    const { key } = (await client.get(`/facts/users/${person.id}`)).json<{ key: string }>()
    const url = `/facts/users/${encodeURIComponent(key)}`
    const answers = await Promise.all([
      client.delete(url),
      client.patch(url, { email: 'mine@x.test' }),
      client.put(url, { key, email: 'mine@x.test' }),
      client.send('DELETE', '/facts/bulk/users', { idents: [person.id] }),
      client.put('/facts/bulk/users', { operations: [{ key, email: 'mine@x.test' }] }),
    ])
    t.same(
      answers.map(({ statusCode }) => statusCode),
      [409, 409, 409, 409, 409],
    )
    t.ok(await postern.signIn('guarded@x.test', PASSWORD))
  })
})

/** Until some request waits for what the transaction of `other` holds. */
async function waitsForLock(other: Queries): Promise<void> {
  await eventually(async () => {
    const { rowCount } = await other.query(
      'select from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))',
    )
    return rowCount === 1
  })
}
