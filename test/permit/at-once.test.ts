import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'

type Row = Record<string, unknown>

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
    for (const role of roles) t.match(shown[role]?.granted_to.users_with_role, [{ role }])

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

  await t.test(
    'a page that follows shows what was there, once, however much is added meanwhile',
    async (t) => {
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
      const remove = async (path: string, body?: object) => await client.send('DELETE', path, body)
      const lists: [
        path: string,
        create: (n: number) => object,
        remove: (n: number) => ReturnType<typeof remove>,
      ][] = [
        [`${F}/tenants`, (n) => ({ key: `p${n}`, name: `${9 - n}` }), (n) => remove(`${F}/tenants/p${n}`)],
        [`${F}/users`, (n) => ({ key: `p${n}` }), (n) => remove(`${F}/users/p${n}`)],
        [
          `${F}/resource_instances`,
          (n) => ({ key: `p${9 - n}`, resource: 'document', tenant: 'acme' }),
          (n) => remove(`${F}/resource_instances/document:p${9 - n}`),
        ],
        [`${F}/relationship_tuples`, tuple, (n) => remove(`${F}/relationship_tuples`, tuple(n))],
        [`${S}/roles`, (n) => ({ key: `p${9 - n}`, name: 'x' }), (n) => remove(`${S}/roles/p${9 - n}`)],
        [
          `${S}/resources`,
          (n) => ({ key: `p${9 - n}`, name: 'x', actions: {} }),
          (n) => remove(`${S}/resources/p${9 - n}`),
        ],
        [
          `${S}/resources/document/actions`,
          (n) => ({ key: `a${n}`, name: 'x' }),
          (n) => remove(`${S}/resources/document/actions/a${n}`),
        ],
        [
          `${S}/resources/document/roles`,
          (n) => ({ key: `p${9 - n}`, name: 'x' }),
          (n) => remove(`${S}/resources/document/roles/p${9 - n}`),
        ],
        [
          `${S}/condition_sets`,
          (n) => ({ key: `p${9 - n}`, name: 'x', conditions: {} }),
          (n) => remove(`${S}/condition_sets/p${9 - n}`),
        ],
        [`${F}/set_rules`, permission, (n) => remove(`${F}/set_rules`, permission(n))],
        [
          `${F}/role_assignments`,
          (n) => ({ user: `u${n}`, role: 'reader', tenant: 'acme' }),
          (n) => remove(`${F}/role_assignments`, { user: `u${n}`, role: 'reader', tenant: 'acme' }),
        ],
      ]
      await client.post(`${F}/bulk/users`, {
        operations: [0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => ({ key: `u${n}` })),
      })
      for (let n = 0; n < 9; n++)
        await client.post(`${S}/resources/document/actions`, { key: `a${n}`, name: 'x' })

      for (const [path, bodyOf, end] of lists) {
        const isActions = path.endsWith('/actions')
        const idsOf = async (page: number, perPage = 2) => {
          const answer = (await client.get(`${path}?page=${page}&per_page=${perPage}`)).json<
            Row[] | { data: Row[] }
          >()
          return (Array.isArray(answer) ? answer : answer.data).map(({ id }) => id)
        }
        const add = async (n: number) => {
          const { statusCode, body } = await client.post(path, bodyOf(n))
          t.equal(statusCode, 200, body)
        }
        const first = isActions ? 9 : 0
        for (let n = first; n < first + 6; n++) await add(n)
        const before = await idsOf(1, 100)
        const seen: unknown[] = []
        const pages = Math.ceil(before.length / 2)
        for (let page = 1; page <= pages; page++) {
          seen.push(...(await idsOf(page)))
          // Something comes to the end, and after the first page the last of what is to come goes.
          if (page === 1) {
            t.equal((await end(first + 5)).statusCode, 204, path)
            await add(first + 6)
          }
        }
        const there = before.filter((id) => id !== before.at(-1))
        t.same(seen.slice(0, there.length), there, `${path}: in the same order, each once`)
        t.equal(new Set(seen).size, seen.length, path)
      }
    },
  )

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
