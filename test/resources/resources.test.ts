import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList } from '../helpers/lists.ts'
import { matchEach } from '../helpers/matching.ts'

type Thing = { id: string; key: string; [field: string]: unknown }

const RESOURCES = '/api/v1/resources'
let made = 0

async function aResource({ root }: TestApp, fields: Record<string, unknown> = {}): Promise<Thing> {
  const response = await root.post(RESOURCES, { key: `resource-${++made}`, ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<Thing>()
}

async function created(client: Client, url: string, body: Record<string, unknown>): Promise<Thing> {
  const response = await client.post(url, body)
  if (response.statusCode !== 201) throw new Error(`${url}: ${response.body}`)
  return response.json<Thing>()
}

const keysOf = (things: unknown): string[] => (things as Thing[]).map(({ key }) => key)

t.test('a resource lives', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern

  await t.test('created with a key alone, which is its name until it has one', async (t) => {
    const response = await root.post(RESOURCES, { key: 'note' })

    t.equal(response.statusCode, 201)
    const { id, created_at, updated_at, ...note } = response.json()
    t.match({ id, created_at, updated_at }, { id: /-/, created_at: /Z$/, updated_at: /Z$/ })
    t.same(note, {
      key: 'note',
      name: 'note',
      description: null,
      urn: null,
      actions: [],
      action_groups: [],
      attributes: [],
      relations: [],
      roles: [],
    })
    t.equal(response.headers['location'], `${RESOURCES}/${id}`)
    t.same((await root.get(`${RESOURCES}/${id}`)).json(), response.json())
  })

  await t.test('or with all that is on it', async (t) => {
    const folder = await aResource(postern, { key: 'folder' })
    const response = await root.post(RESOURCES, {
      key: 'document',
      name: 'Document',
      description: 'Paper',
      urn: 'urn:x:document',
      actions: ['read', { key: 'write', name: 'Write', description: 'w', attributes: { risk: 1 } }],
      attributes: [{ key: 'status', type: 'string' }],
      relations: [
        { key: 'parent', subject_resource: 'folder' },
        { key: 'twin', name: 'Twin', subject_resource: 'document' },
        { key: 'attic', subject_resource: folder.id },
      ],
      roles: [
        { key: 'viewer', permissions: ['read'] },
        { key: 'editor', name: 'Editor', permissions: ['document:write'], extends: ['viewer'] },
      ],
    })

    t.equal(response.statusCode, 201)
    const document = response.json<Record<string, Thing[]>>()
    t.match(document, { name: 'Document', description: 'Paper', urn: 'urn:x:document' })
    matchEach(t, document['actions'], [
      { key: 'read', name: 'read', description: null, attributes: null },
      { key: 'write', name: 'Write', description: 'w', attributes: { risk: 1 } },
    ])
    matchEach(t, document['attributes'], [{ key: 'status', type: 'string' }])
    matchEach(t, document['relations'], [
      { key: 'parent', name: 'parent', subject_resource: 'folder', subject_resource_id: folder.id },
      { key: 'twin', name: 'Twin', subject_resource: 'document' },
      { key: 'attic', subject_resource: 'folder' },
    ])
    const roles = document['roles']
    matchEach(t, roles, [
      { key: 'viewer', name: 'viewer', permissions: ['document:read'] },
      {
        key: 'editor',
        permissions: ['document:write'],
        extends: ['viewer'],
        effective_permissions: ['document:read', 'document:write'],
        no_direct_roles_on_object: false,
      },
    ])
    t.same([roles?.[0]?.['extends'], roles?.[1]?.['derivations']], [[], []])
    t.same((await root.get(`${RESOURCES}/${String(document['id'])}`)).json(), document)
  })

  await t.test('all or nothing', async (t) => {
    for (const [part, code, pointers] of [
      [{ actions: ['a', 'a'] }, 'action_key_taken', []],
      [
        { relations: [{ key: 'r', subject_resource: 'nothing' }] },
        'validation_failed',
        ['/body/relations/0/subject_resource'],
      ],
      [
        { relations: [{ key: 'r', subject_resource: 'postern-users' }] },
        'validation_failed',
        ['/body/relations/0/subject_resource'],
      ],
      [{ roles: [{ key: 'r', permissions: ['fly'] }] }, 'validation_failed', ['/body/roles/0/permissions/0']],
      [
        { roles: [{ key: 'r', permissions: ['a:fly'] }] },
        'validation_failed',
        ['/body/roles/0/permissions/0'],
      ],
      [
        { roles: [{ key: 'q' }, { key: 'r', extends: ['q', 'later'] }] },
        'validation_failed',
        ['/body/roles/1/extends/1'],
      ],
      [{ roles: [{ key: 'r', extends: ['SUPER_ADMIN'] }] }, 'validation_failed', ['/body/roles/0/extends/0']],
    ] as const) {
      const response = await root.post(RESOURCES, { key: 'half', ...part })

      isProblem(t, response, code, JSON.stringify(part))
      t.same(pointersOf(response), pointers)
    }
    t.same((await root.get(`${RESOURCES}?key=half`)).json(), [])
  })

  await t.test('renamed, but its key stays', async (t) => {
    const { id, key } = await aResource(postern, { actions: ['read'] })
    const path = `${RESOURCES}/${id}`

    const renamed = await root.patch(path, { name: 'New', description: 'd', urn: 'u' })
    const cleared = await root.patch(path, { description: null, urn: null })

    t.match(renamed.json(), { key, name: 'New', description: 'd', urn: 'u' })
    t.match(cleared.json(), { key, name: 'New', description: null, urn: null })
    t.same(keysOf(cleared.json<Record<string, unknown>>()['actions']), ['read'])
    for (const body of [{}, { key: 'x' }, { name: null }, { name: '' }, { actions: [] }]) {
      isProblem(t, await root.patch(path, body), 'validation_failed', JSON.stringify(body))
    }
    await refusesBadBodies(t, { app, token: rootToken, method: 'PATCH', url: path })
  })

  await t.test('deleted, and its key is free again', async (t) => {
    const { id, key } = await aResource(postern)

    t.equal((await root.delete(`${RESOURCES}/${id}`)).statusCode, 204)

    isProblem(t, await root.get(`${RESOURCES}/${id}`), 'resource_not_found')
    isProblem(t, await root.delete(`${RESOURCES}/${id}`), 'resource_not_found')
    isProblem(t, await root.patch(`${RESOURCES}/${id}`, { name: 'x' }), 'resource_not_found')
    await aResource(postern, { key })
  })

  await t.test('under a key that no other has, as key or id', async (t) => {
    const { id, key } = await aResource(postern)

    isProblem(t, await root.post(RESOURCES, { key }), 'resource_key_taken')
    isProblem(t, await root.post(RESOURCES, { key: id }), 'resource_key_taken')
    for (const bad of ['postern.users', 'a b', '', 'x'.repeat(129), 5, null]) {
      const response = await root.post(RESOURCES, { key: bad })
      isProblem(t, response, 'validation_failed', String(bad))
      t.ok(pointersOf(response).includes('/body/key'))
    }
    const raced = await Promise.all(
      ['raced', 'raced', 'raced'].map(async (one) => await root.post(RESOURCES, { key: one })),
    )
    t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: RESOURCES })
  })

  await t.test('and the built-in ones are as if they were not there', async (t) => {
    const { rows } = await postern.services.database.pool.query<{ id: string }>(
      "select id from resources where key = 'postern.users'",
    )
    const path = `${RESOURCES}/${rows[0]?.id}`

    t.same((await root.get(`${RESOURCES}?key=postern.users`)).json(), [])
    isProblem(t, await root.get(path), 'resource_not_found')
    isProblem(t, await root.patch(path, { name: 'x' }), 'resource_not_found')
    isProblem(t, await root.delete(path), 'resource_not_found')
    isProblem(t, await root.get(`${path}/actions`), 'resource_not_found')
    isProblem(t, await root.post(`${path}/actions`, { key: 'x' }), 'resource_not_found')
    isProblem(t, await root.post(`${path}/roles`, { key: 'x' }), 'resource_not_found')
  })
})

t.test('a list of resources', async (t) => {
  const postern = await buildTestApp(t)
  for (let index = 0; index < 6; index++) await aResource(postern, { key: `listed-${index}` })

  await pagesLikeEveryList(t, { client: postern.root, path: RESOURCES, sorts: ['created_at', 'key'] })
  t.same(keysOf((await postern.root.get(`${RESOURCES}?key=listed-2`)).json()), ['listed-2'])
})

const KINDS = [
  {
    path: 'actions',
    one: 'action',
    fields: { name: 'N', description: 'd', attributes: { a: 1 } },
    change: { name: 'M', description: null, attributes: null },
    faults: [{ name: '' }, { attributes: [] }, { key: 'other' }],
  },
  {
    path: 'action-groups',
    one: 'action_group',
    fields: { name: 'N', description: 'd', actions: ['read'] },
    change: { name: 'M', actions: ['read', 'write'] },
    faults: [{ actions: 'read' }, { actions: ['read', 'read'] }, { actions: ['fly'] }],
  },
  {
    path: 'attributes',
    one: 'attribute',
    fields: { type: 'string', description: 'd' },
    change: { type: 'object_array', description: null },
    faults: [{ type: 'text' }, { type: null }, { name: 'x' }],
  },
  {
    path: 'relations',
    one: 'relation',
    fields: { name: 'N', description: 'd', subject_resource: 'folder' },
    change: { name: 'M', description: null },
    faults: [{ subject_resource: 'folder' }, { name: null }],
  },
  {
    path: 'roles',
    one: 'role',
    fields: { name: 'N', description: 'd', permissions: ['thing:read'], attributes: { a: 1 } },
    change: {
      name: 'M',
      description: null,
      permissions: ['thing:read', 'thing:write'],
      no_direct_roles_on_object: true,
    },
    faults: [{ permissions: ['fly'] }, { extends: ['nobody'] }, { scopes: [] }],
  },
] as const

t.test('what is defined on a resource', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern
  await aResource(postern, { key: 'folder' })
  const thing = await aResource(postern, { key: 'thing', actions: ['read', 'write'] })
  const other = await aResource(postern, { key: 'other' })

  const places = [
    ...KINDS.map((kind) => ({ ...kind, url: `${RESOURCES}/${thing.id}/${kind.path}`, owner: thing.id })),
    ...KINDS.filter(({ path }) => path === 'attributes').map((kind) => ({
      ...kind,
      path: 'user attributes',
      url: '/api/v1/user-attributes',
      owner: null as string | null,
    })),
  ]
  for (const { path, one, fields, change, faults, url, owner } of places) {
    await t.test(`${path} are created, shown, changed and deleted`, async (t) => {
      const response = await root.post(url, { key: 'first', ...fields })

      t.equal(response.statusCode, 201)
      const row = response.json<Thing>()
      t.match(row, { key: 'first', resource_id: owner, ...fields })
      t.equal(response.headers['location'], `${url}/${row.id}`)
      t.same((await root.get(`${url}/${row.id}`)).json(), row)
      t.same((await root.get(`${url}?key=first`)).json(), [row])
      const changed = await root.patch(`${url}/${row.id}`, change)
      t.equal(changed.statusCode, 200)
      t.match(changed.json(), { id: row.id, key: 'first', ...change })
      t.same((await root.get(`${url}/${row.id}`)).json(), changed.json())
      t.equal((await root.delete(`${url}/${row.id}`)).statusCode, 204)
      for (const gone of [
        await root.get(`${url}/${row.id}`),
        await root.patch(`${url}/${row.id}`, change),
        await root.delete(`${url}/${row.id}`),
      ]) {
        isProblem(t, gone, `${one}_not_found`)
      }
    })

    await t.test(`${path} have keys of their own`, async (t) => {
      const row = await created(root, url, { key: 'mine', ...fields })

      isProblem(t, await root.post(url, { key: 'mine', ...fields }), `${one}_key_taken`)
      isProblem(t, await root.post(url, { key: row.id, ...fields }), `${one}_key_taken`)
      const raced = await Promise.all(
        [1, 2, 3].map(async () => await root.post(url, { key: 'raced', ...fields })),
      )
      t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
      const faulty = await root.post(url, { key: 'a.b', ...fields })
      isProblem(t, faulty, 'validation_failed')
      t.same(pointersOf(faulty), ['/body/key'])
    })

    await t.test(`${path} refuse what is faulty, and stay as they are`, async (t) => {
      const row = await created(root, url, { key: 'kept', ...fields })

      for (const fault of [...faults, {}]) {
        const response = await root.patch(`${url}/${row.id}`, fault)
        isProblem(t, response, 'validation_failed', JSON.stringify(fault))
        t.match(pointersOf(response)[0], /^\/body/)
      }
      t.same((await root.get(`${url}/${row.id}`)).json(), row)
      await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url })
      await refusesBadBodies(t, { app, token: rootToken, method: 'PATCH', url: `${url}/${row.id}` })
      for (const id of BAD_IDS) {
        isProblem(t, await root.get(`${url}/${id}`), 'validation_failed', id.slice(0, 40))
      }
      isProblem(t, await root.get(`${url}/${NO_SUCH_ID}`), `${one}_not_found`)
    })

    await t.test(`${path} come in pages`, async (t) => {
      for (let index = 0; index < 5; index++) await created(root, url, { key: `page-${index}`, ...fields })

      await pagesLikeEveryList(t, { client: root, path: url, sorts: ['created_at'] })
    })

    if (owner === null) continue
    await t.test(`${path} are found on their own resource only`, async (t) => {
      const row = await created(root, url, { key: 'placed', ...fields })
      const elsewhere = `${RESOURCES}/${other.id}/${path}/${row.id}`

      isProblem(t, await root.get(elsewhere), `${one}_not_found`)
      isProblem(t, await root.patch(elsewhere, change), `${one}_not_found`)
      isProblem(t, await root.delete(elsewhere), `${one}_not_found`)
      t.equal((await root.get(`${url}/${row.id}`)).statusCode, 200)
      const nowhere = `${RESOURCES}/${NO_SUCH_ID}/${path}`
      isProblem(t, await root.get(nowhere), 'resource_not_found')
      isProblem(t, await root.post(nowhere, { key: 'x', ...fields }), 'resource_not_found')
    })
  }
})

t.test('definitions name only what is there', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const { id } = await aResource(postern, { actions: ['read'] })

  const group = await root.post(`${RESOURCES}/${id}/action-groups`, { key: 'g', actions: ['read', 'fly'] })
  const relation = await root.post(`${RESOURCES}/${id}/relations`, { key: 'r', subject_resource: NO_SUCH_ID })
  const permission = await root.post(`${RESOURCES}/${id}/roles`, {
    key: 'r',
    permissions: ['read', 'postern-users:read'],
  })

  t.same(pointersOf(group), ['/body/actions/1'])
  t.same(pointersOf(relation), ['/body/subject_resource'])
  t.same(pointersOf(permission), ['/body/permissions/1'])
  t.same((await root.get(`${RESOURCES}/${id}/action-groups`)).json(), [])
  t.same((await root.get(`${RESOURCES}/${id}/roles`)).json(), [])
})

t.test('a service refuses permissions and keys of its own resources, whoever calls it', async (t) => {
  const { services } = await buildTestApp(t)
  const { resources, roles } = services.modelOf(DEFAULT_ENVIRONMENT)

  for (const key of ['postern.x', 'a.b', '']) {
    await t.rejects(resources.createResource(SYSTEM, { key }), { code: 'validation_failed' }, key)
    await t.rejects(roles.createRole(SYSTEM, { key, name: 'x' }), { code: 'validation_failed' }, key)
  }
  for (const permission of ['postern.users:read', 'postern.users:read:any', 'post', ':', 'post:']) {
    await t.rejects(
      roles.createRole(SYSTEM, { key: 'sly', name: 'x', permissions: [permission] }),
      { code: 'validation_failed' },
      permission,
    )
  }
})

t.test('there are limits, and their problem says which', async (t) => {
  const postern = await buildTestApp(t)
  const { root, services } = postern
  const { id } = await aResource(postern, { key: 'full', actions: ['read'] })
  await services.database.pool.query(
    `insert into actions (id, environment_id, resource_id, key, name)
     select gen_random_uuid(), environment_id, id, 'a' || n, 'a' from resources, generate_series(1, 999) n where id = $1`,
    [id],
  )

  const byItself = await root.post(`${RESOURCES}/${id}/actions`, { key: 'one-more' })
  const onTheWay = await root.post('/api/v1/roles', { name: 'limit', scopes: ['full:one-more'] })

  for (const response of [byItself, onTheWay]) {
    isProblem(t, response, 'limit_reached')
    t.match(response.json<{ detail: string }>().detail, /1000 actions of a resource/)
  }
  t.equal((await root.post('/api/v1/roles', { name: 'known', scopes: ['full:read'] })).statusCode, 201)
})

t.test('two environments know nothing of each other’s definitions', async (t) => {
  const { services, root } = await buildTestApp(t)
  const other = crypto.randomUUID()
  await services.database.pool.query(
    `with e as (insert into environments (id, project, key, name) values ($1, 'default', 'other', 'Other') returning id)
     insert into policy_versions (environment_id) select id from e`,
    [other],
  )
  const here = (await root.post(RESOURCES, { key: 'shared', actions: ['read'] })).json<Thing>()
  const { resources: there, roles } = services.modelOf(other)

  const made = await there.createResource(SYSTEM, { key: 'shared', actions: [{ key: 'write' }] })
  const role = await roles.createRole(SYSTEM, { name: 'writer', permissions: ['shared:write'] })

  t.not(made.id, here.id)
  t.same(keysOf((await root.get(RESOURCES)).json()), ['shared'])
  isProblem(t, await root.get(`${RESOURCES}/${made.id}`), 'resource_not_found')
  isProblem(t, await root.get(`/api/v1/roles/${role.id}`), 'role_not_found')
  isProblem(t, await root.post(`${RESOURCES}/${made.id}/actions`, { key: 'x' }), 'resource_not_found')
  await t.rejects(there.getResource(here.id), { code: 'resource_not_found' })
  await t.rejects(there.deleteResource(SYSTEM, here.id), { code: 'resource_not_found' })
  await t.rejects(there.actions.list(here.id, {}, { limit: 1, skip: 0, sort: 'created_at' }), {
    code: 'resource_not_found',
  })
  await t.rejects(there.relations.create(SYSTEM, made.id, { key: 'r', subjectResource: here.id }), {
    code: 'validation_failed',
  })
  t.equal((await there.resolveResource('shared')).id, made.id)
  t.equal((await there.resolveResource(made.id)).id, made.id)
  t.equal((await there.resolveAction(made.id, 'write')).id, made.actions[0]?.id)
  await t.rejects(there.resolveAction(made.id, 'read'), { code: 'action_not_found' })
  await t.rejects(there.resolveResource(here.id), { code: 'resource_not_found' })
})

t.test('definitions are read and written by those who may do so everywhere', async (t) => {
  const postern = await buildTestApp(t)
  const { person } = postern
  const { id } = await aResource(postern)
  const { id: roleId } = await created(postern.root, `${RESOURCES}/${id}/roles`, { key: 'r' })
  const [admin, accountAdmin] = [await person('ADMIN'), await person('ACCOUNT_ADMIN')]
  const bodies = {
    [RESOURCES]: { key: 'x' },
    [`${RESOURCES}/${id}/actions`]: { key: 'x' },
    [`${RESOURCES}/${id}/relations`]: { key: 'x', subject_resource: 'x' },
    [`${RESOURCES}/${id}/roles`]: { key: 'x' },
    [`${RESOURCES}/${id}/roles/${roleId}/derivations`]: {
      role: 'x',
      on_resource: 'x',
      linked_by_relation: 'x',
    },
    '/api/v1/user-attributes': { key: 'x', type: 'string' },
  }

  for (const [url, body] of Object.entries(bodies)) {
    t.equal((await admin.client.get(url)).statusCode, 200, `ADMIN reads ${url}`)
    isProblem(t, await admin.client.post(url, body), 'insufficient_scope', `ADMIN writes ${url}`)
    isProblem(t, await accountAdmin.client.get(url), 'insufficient_scope', `ACCOUNT_ADMIN reads ${url}`)
    isProblem(
      t,
      await accountAdmin.client.post(url, body),
      'insufficient_scope',
      `ACCOUNT_ADMIN writes ${url}`,
    )
  }
})

t.test('each change is in the audit trail', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const { id } = await aResource(postern, { actions: ['read'] })
  const attribute = await created(root, '/api/v1/user-attributes', { key: 'team', type: 'string' })
  await root.patch(`/api/v1/user-attributes/${attribute.id}`, { description: 'd' })
  await root.delete(`/api/v1/user-attributes/${attribute.id}`)
  await root.patch(`${RESOURCES}/${id}`, { name: 'x' })
  await root.delete(`${RESOURCES}/${id}`)

  const events = (await root.get('/api/v1/audit-events?limit=7')).json<{ action: string }[]>()

  t.same(
    events.map(({ action }) => action).sort(),
    [
      'action.created',
      'attribute.created',
      'attribute.deleted',
      'attribute.updated',
      'resource.created',
      'resource.deleted',
      'resource.updated',
    ].sort(),
  )
})
