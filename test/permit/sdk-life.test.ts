import { type Permit, PermitApiError, PermitConnectionError, PermitContextError } from 'permitio'
import t, { type Test } from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { asPython, listenForSdk, methodsOf, noting, refusalOf, sdk } from '../helpers/permit.ts'

const SILENT = { log: { level: 'silent' } } as const
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/

/**
 * What there is in the environment of a method: nothing; a policy; people besides. Or a project, for what is above
 * environments.
 */
type Start = 'empty' | 'policy' | 'people' | 'project'
/** Where a method is tried: the SDK with all its parts, and requests without it. */
type Scene = ReturnType<typeof whole> & {
  called: Set<string>
  raw: Client
  python: Client
  /** `project/environment`. */
  environment: string
  project: string
  facts: string
  schema: string
}
type Row = { id: string; key: string }
/** How the SDK keeps things of one kind, each of which is made by `body`. */
type Kind = {
  start: Start
  /** Where raw requests make and list it. */
  path: (scene: Scene) => string
  /** What is behind that for one of them. Default: its key. */
  name?: (key: string) => string
  body: { key: string; name?: string }
  create: (scene: Scene) => Promise<Row>
  get: (scene: Scene, name: string) => Promise<Row>
  getByKey: (scene: Scene, name: string) => Promise<Row>
  getById: (scene: Scene, id: string) => Promise<Row>
  list: (scene: Scene) => Promise<readonly Row[] | { data: readonly Row[] }>
  /** What it is then, beside what it was. */
  update?: { call: (scene: Scene, name: string) => Promise<Row>; changes: object }
  delete: (scene: Scene, name: string) => Promise<unknown>
}
type Part<New, Changes> = {
  create: (body: New) => Promise<Row>
  get: (name: string) => Promise<Row>
  getByKey: (name: string) => Promise<Row>
  getById: (id: string) => Promise<Row>
  list: () => Promise<readonly Row[] | { data: readonly Row[] }>
  update: (name: string, changes: Changes) => Promise<Row>
  delete: (name: string) => Promise<unknown>
}
/** Of things on other things. */
type InnerPart<New> = {
  create: (owner: string, body: New) => Promise<Row>
  get: (owner: string, name: string) => Promise<Row>
  getByKey: (owner: string, name: string) => Promise<Row>
  getById: (owner: string, id: string) => Promise<Row>
  list: (on: { resourceKey: string }) => Promise<readonly Row[] | { data: readonly Row[] }>
  delete: (owner: string, name: string) => Promise<unknown>
}
type ChangeablePart<New, Changes> = InnerPart<New> & {
  update: (owner: string, name: string, changes: Changes) => Promise<Row>
}

/** A kind of things that are on nothing else. */
const outer = <New extends { key: string }, Changes extends object>(
  part: (scene: Scene) => Part<New, Changes>,
  path: Kind['path'],
  body: New,
  changes: Changes,
  { start = 'empty', name = (key) => key }: Pick<Partial<Kind>, 'start' | 'name'> = {},
): Kind => ({
  start,
  path,
  name,
  body,
  create: async (scene) => await part(scene).create(body),
  get: async (scene, one) => await part(scene).get(one),
  getByKey: async (scene, one) => await part(scene).getByKey(one),
  getById: async (scene, id) => await part(scene).getById(id),
  list: async (scene) => await part(scene).list(),
  update: { call: async (scene, one) => await part(scene).update(one, changes), changes },
  delete: async (scene, one) => await part(scene).delete(one),
})

/** A kind of things that are on the resource `document`. */
const ofDocument = <New extends { key: string }>(
  part: (scene: Scene) => InnerPart<New>,
  path: string,
  body: New,
): Kind => ({
  start: 'policy',
  path: ({ schema }) => `${schema}/resources/document/${path}`,
  body,
  create: async (scene) => await part(scene).create('document', body),
  get: async (scene, one) => await part(scene).get('document', one),
  getByKey: async (scene, one) => await part(scene).getByKey('document', one),
  getById: async (scene, id) =>
    await part(scene).getById(await idAt(scene.raw, `${scene.schema}/resources/document`), id),
  list: async (scene) => await part(scene).list({ resourceKey: 'document' }),
  delete: async (scene, one) => await part(scene).delete('document', one),
})

const changeableOfDocument = <New extends { key: string }, Changes extends object>(
  part: (scene: Scene) => ChangeablePart<New, Changes>,
  path: string,
  body: New,
  changes: Changes,
): Kind => ({
  ...ofDocument(part, path, body),
  update: { call: async (scene, one) => await part(scene).update('document', one, changes), changes },
})

const KINDS: Record<string, Kind> = {
  projects: {
    ...outer(
      ({ api }) => api.projects,
      () => '/v2/projects',
      { key: 'one', name: 'One' },
      { name: 'Another' },
    ),
    start: 'project',
  },
  environments: {
    start: 'project',
    path: ({ project }) => `/v2/projects/${project}/envs`,
    body: { key: 'one', name: 'One' },
    create: async ({ api, project }) => await api.environments.create(project, { key: 'one', name: 'One' }),
    get: async ({ api, project }, key) => await api.environments.get(project, key),
    getByKey: async ({ api, project }, key) => await api.environments.getByKey(project, key),
    getById: async ({ api, raw, project }, id) =>
      await api.environments.getById(await idAt(raw, `/v2/projects/${project}`), id),
    list: async ({ api, project }) => await api.environments.list({ projectKey: project }),
    update: {
      call: async ({ api, project }, key) =>
        await api.environments.update(project, key, { description: 'Changed' }),
      changes: { description: 'Changed' },
    },
    delete: async ({ api, project }, key) => await api.environments.delete(project, key),
  },
  resources: outer(
    ({ api }) => api.resources,
    ({ schema }) => `${schema}/resources`,
    { key: 'one', name: 'One', actions: { read: {} } },
    { description: 'Changed' },
  ),
  roles: outer(
    ({ api }) => api.roles,
    ({ schema }) => `${schema}/roles`,
    { key: 'one', name: 'One' },
    { name: 'Another' },
  ),
  tenants: outer(
    ({ api }) => api.tenants,
    ({ facts }) => `${facts}/tenants`,
    { key: 'one', name: 'One' },
    { attributes: { tier: 1 } },
  ),
  users: outer(
    ({ api }) => api.users,
    ({ facts }) => `${facts}/users`,
    { key: 'a|one+x@y.test', email: 'one@y.test' },
    { first_name: 'Ida', attributes: { age: 3 } },
  ),
  conditionSets: outer(
    ({ api }) => api.conditionSets,
    ({ schema }) => `${schema}/condition_sets`,
    { key: 'one', name: 'One', conditions: {} },
    { conditions: { 'user.age': { equals: 3 } } },
  ),
  resourceInstances: outer(
    ({ api }) => api.resourceInstances,
    ({ facts }) => `${facts}/resource_instances`,
    { key: 'a/b', resource: 'document', tenant: 'default' },
    { attributes: { draft: true } },
    { start: 'policy', name: (key) => `document:${key}` },
  ),
  resourceActions: changeableOfDocument(
    ({ api }) => api.resourceActions,
    'actions',
    { key: 'one', name: 'One' },
    { name: 'Another' },
  ),
  actionGroups: changeableOfDocument(
    ({ api }) => api.actionGroups,
    'action_groups',
    { key: 'one', name: 'One', actions: ['read'] },
    { actions: ['edit'] },
  ),
  resourceAttributes: changeableOfDocument(
    ({ api }) => api.resourceAttributes,
    'attributes',
    { key: 'one', type: 'bool' },
    { type: 'number', description: 'Changed' },
  ),
  resourceRelations: ofDocument(({ api }) => api.resourceRelations, 'relations', {
    key: 'one',
    name: 'One',
    subject_resource: 'folder',
  }),
  resourceRoles: changeableOfDocument(
    ({ api }) => api.resourceRoles,
    'roles',
    { key: 'one', name: 'One' },
    { name: 'Another' },
  ),
}

/** A resource `document` with a relation `parent` to `folder`, and roles of all sorts. */
const POLICY = [
  [
    'resources',
    {
      key: 'folder',
      name: 'Folder',
      actions: { open: {} },
      roles: { owner: { name: 'Owner', permissions: ['open'] } },
    },
  ],
  [
    'resources',
    {
      key: 'document',
      name: 'Document',
      actions: { read: {}, edit: {} },
      relations: { parent: 'folder' },
      roles: { editor: { name: 'Editor', permissions: ['read'] } },
    },
  ],
  ['roles', { key: 'reader', name: 'Reader', permissions: ['document:read'] }],
] as const

const HELD = { user: 'ida', role: 'reader', tenant: 'acme' }
const OTHER = { ...HELD, user: 'bob' }
const DOCUMENT = { type: 'document', tenant: 'acme' }
const TUPLES = ['d1', 'd2'].map((key) => ({
  subject: 'folder:f',
  relation: 'parent',
  object: `document:${key}`,
  tenant: 'acme',
}))
const [TUPLE = { subject: '', relation: '', object: '' }] = TUPLES
const DERIVATION = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
const GROWN = { key: 'grown', name: 'Grown', conditions: { 'user.age': { 'greater-than': 17 } } }
const RULE = { user_set: 'grown', permission: 'document:edit', resource_set: 'document', is_resource: true }
const SHOWN_RULE = { user_set: 'grown', permission: 'document:edit', resource_set: '__autogen_document' }

t.test('each method of the Node SDK, in an environment of its own', async (t) => {
  const postern = await buildTestApp(t)
  const { url } = await listenForSdk(t, postern)
  const organization = await anApiKey(postern, { level: 'org' })
  const tried = new Set<string>()
  let made = 0

  await sent(organization.client.post('/v2/projects', { key: 'life', name: 'Life' }))
  await sent(organization.client.post('/v2/projects/life/envs', { key: 'policy', name: 'Policy' }))
  for (const [path, body] of POLICY)
    await sent(organization.client.post(`/v2/schema/life/policy/${path}`, body))

  /** A place that nothing was written to but what is said. */
  async function open(start: Start): Promise<Scene> {
    const key = `e${++made}`
    const isProject = start === 'project'
    const project = isProject ? key : 'life'
    const envs = '/v2/projects/life/envs'
    if (isProject) await sent(organization.client.post('/v2/projects', { key, name: key }))
    else if (start === 'empty') await sent(organization.client.post(envs, { key, name: key }))
    else
      await sent(organization.client.post(`${envs}/policy/copy`, { target_env: { new: { key, name: key } } }))
    const secret = isProject
      ? organization.key
      : (await sent(organization.client.get(`/v2/api-key/life/${key}`))).json<{ secret: string }>().secret
    const called = new Set<string>()
    const scene: Scene = {
      ...whole(sdk(url, secret, SILENT), called),
      called,
      raw: postern.as(secret),
      python: asPython(postern, secret),
      environment: `${project}/${key}`,
      project,
      facts: `/v2/facts/${project}/${key}`,
      schema: `/v2/schema/${project}/${key}`,
    }
    if (start === 'people') {
      await sent(scene.raw.post(`${scene.facts}/tenants`, { key: 'acme', name: 'Acme' }))
      for (const user of ['ida', 'bob']) await sent(scene.raw.post(`${scene.facts}/users`, { key: user }))
    }
    return scene
  }

  /** One method, or one request, tried where there is only what is said. */
  async function method(name: string, start: Start, run: (t: Test, scene: Scene) => Promise<void>) {
    await t.test(name, async (t) => {
      const scene = await open(start)
      await run(t, scene)
      t.ok(scene.called.has(name), 'has been called')
      tried.add(name)
    })
  }

  for (const [part, kind] of Object.entries(KINDS)) {
    const { start, path, name = (key) => key, body, update } = kind
    const { key } = body
    const pathOf = (scene: Scene, one: string) => `${path(scene)}/${encodeURIComponent(one)}`
    const make = async (scene: Scene) => (await sent(scene.raw.post(path(scene), body))).json<Row>()
    const stored = async (scene: Scene, one = name(key)) =>
      (await sent(scene.raw.get(pathOf(scene, one)))).json<Row>()
    const isGone = async (scene: Scene) => (await scene.raw.get(pathOf(scene, name(key)))).statusCode === 404
    const listed = async (scene: Scene) => {
      const found = await kind.list(scene)
      return 'data' in found ? found.data : found
    }
    const way = async (of: string, run: (t: Test, scene: Scene) => Promise<void>) =>
      await method(`${part}.${of}`, start, async (t, scene) => {
        await run(t, scene)
        // All projects are beside each other in the one organization.
        if (part === 'projects') await scene.raw.delete(pathOf(scene, key))
      })

    await way('create', async (t, scene) => {
      const one = await kind.create(scene)
      t.match(one, { ...body, id: UUID, created_at: /Z$/, organization_id: UUID })
      t.same(one, await stored(scene))
      t.equal(await refusalOf(kind.create(scene)), '409 DUPLICATE_ENTITY')
    })
    for (const [of, find, ref] of [
      ['get', kind.get, (row: Row) => name(row.key)],
      ['getByKey', kind.getByKey, (row: Row) => name(row.key)],
      ['getById', kind.getById, (row: Row) => row.id],
    ] as const) {
      await way(of, async (t, scene) => {
        const one = await make(scene)
        t.same(await find(scene, ref(one)), one)
        await sent(scene.raw.delete(pathOf(scene, name(key))))
        t.equal(await refusalOf(find(scene, ref(one))), '404 NOT_FOUND')
      })
    }
    await way('list', async (t, scene) => {
      const before = await listed(scene)
      const one = await make(scene)
      t.same(await listed(scene), [...before, one])
    })
    if (update)
      await way('update', async (t, scene) => {
        const { id } = await make(scene)
        const changed = await update.call(scene, name(key))
        t.match(changed, { ...body, id, ...update.changes })
        t.same(changed, await stored(scene))
        t.equal(await refusalOf(update.call(scene, name('none'))), '404 NOT_FOUND')
      })
    await way('delete', async (t, scene) => {
      const one = await make(scene)
      await kind.delete(scene, name(key))
      t.ok(await isGone(scene))
      t.equal(await refusalOf(kind.delete(scene, name(key))), '404 NOT_FOUND')
      t.not((await make(scene)).id, one.id, 'the key is free again')
    })
  }

  const may = async ({ raw }: Scene, key: string, action: string, about: object = {}, attributes = {}) =>
    (
      await sent(
        raw.post('/allowed', {
          user: { key, attributes },
          action,
          resource: { ...DOCUMENT, ...about },
        }),
      )
    ).json<{ allow: boolean }>().allow
  const read = async ({ raw }: Scene, path: string) => (await sent(raw.get(path))).json()
  const write = async ({ raw }: Scene, path: string, body: object) => await sent(raw.post(path, body))
  const hold = async (scene: Scene, ...all: object[]) =>
    await write(scene, `${scene.facts}/role_assignments/bulk`, all)
  const held = async (scene: Scene) => await read(scene, `${scene.facts}/role_assignments`)
  const keysOf = async (scene: Scene, path: string) =>
    (await read(scene, `${path}?include_total_count=true`)).data.map((row: Row) => row.key)
  const isThere = async ({ raw }: Scene, path: string) => (await raw.get(path)).statusCode === 200
  /** Of a refusal; flat methods have no class of their own for them. */
  const statusOf = async (call: Promise<unknown>) =>
    await call.then(
      () => 'done',
      (error) => error.response?.status,
    )

  await method('resources.replace', 'policy', async (t, scene) => {
    const replaced = await scene.api.resources.replace('document', { name: 'Paper', actions: { write: {} } })
    t.match(replaced, { key: 'document', name: 'Paper', actions: { write: { name: 'write' } } })
    t.same([Object.keys(replaced.actions ?? {}), replaced.roles, replaced.relations], [['write'], {}, {}])
    t.same(replaced, await read(scene, `${scene.schema}/resources/document`))
    t.match(await read(scene, `${scene.schema}/roles/reader`), { permissions: [] })
  })

  for (const [part, role] of [
    ['roles', 'roles/reader'],
    ['resourceRoles', 'resources/document/roles/editor'],
  ] as const) {
    const isOuter = part === 'roles'
    const named = (action: string) => (isOuter ? `document:${action}` : action)
    await method(`${part}.assignPermissions`, 'policy', async (t, scene) => {
      const { roles, resourceRoles } = scene.api
      const given = isOuter
        ? await roles.assignPermissions('reader', [named('edit')])
        : await resourceRoles.assignPermissions('document', 'editor', [named('edit')])
      t.same(given.permissions, [named('edit'), named('read')])
      t.same(given, await read(scene, `${scene.schema}/${role}`))
    })
    await method(`${part}.removePermissions`, 'policy', async (t, scene) => {
      const { roles, resourceRoles } = scene.api
      const left = isOuter
        ? await roles.removePermissions('reader', [named('read')])
        : await resourceRoles.removePermissions('document', 'editor', [named('read')])
      t.same(left.permissions, [])
      t.same(left, await read(scene, `${scene.schema}/${role}`))
    })
  }

  const EDITOR = 'resources/document/roles/editor'
  const derivations = async (scene: Scene) =>
    (await read(scene, `${scene.schema}/${EDITOR}`)).granted_to?.users_with_role ?? []
  await method('resourceRoles.createRoleDerivation', 'policy', async (t, scene) => {
    const rule = await scene.api.resourceRoles.createRoleDerivation('document', 'editor', DERIVATION)
    t.match(rule, { ...DERIVATION, role_id: UUID, resource_id: UUID, relation_id: UUID })
    t.same(await derivations(scene), [rule])
  })
  await method('resourceRoles.deleteRoleDerivation', 'policy', async (t, scene) => {
    await write(scene, `${scene.schema}/${EDITOR}/implicit_grants`, DERIVATION)
    await scene.api.resourceRoles.deleteRoleDerivation('document', 'editor', DERIVATION)
    t.same(await derivations(scene), [])
  })
  await method('resourceRoles.updateRoleDerivationConditions', 'policy', async (t, scene) => {
    const when = { no_direct_roles_on_object: true }
    t.same(await scene.api.resourceRoles.updateRoleDerivationConditions('document', 'editor', when), when)
    t.match(await read(scene, `${scene.schema}/${EDITOR}`), { granted_to: { when } })
  })

  await method('users.sync', 'empty', async (t, { api }) => {
    t.match(await api.users.sync({ key: 'ida' }), { created: true, user: { key: 'ida', first_name: null } })
    t.match(await api.users.sync({ key: 'ida', first_name: 'Ida' }), {
      created: false,
      user: { key: 'ida', first_name: 'Ida' },
    })
  })
  await method('users.bulkUserCreate', 'empty', async (t, scene) => {
    const made = [{ key: 'ada' }, { key: 'bob', email: 'bob@x.test' }]
    t.same(await scene.api.users.bulkUserCreate(made), {})
    t.same(await keysOf(scene, `${scene.facts}/users`), ['ada', 'bob'])
    t.equal(await refusalOf(scene.api.users.bulkUserCreate(made)), '409 DUPLICATE_ENTITY')
  })
  await method('users.bulkUserReplace', 'people', async (t, scene) => {
    t.same(await scene.api.users.bulkUserReplace([{ key: 'bob', first_name: 'Bob' }, { key: 'cyd' }]), {})
    t.same(await keysOf(scene, `${scene.facts}/users`), ['ida', 'bob', 'cyd'])
    t.match(await read(scene, `${scene.facts}/users/bob`), { first_name: 'Bob' })
  })
  await method('users.bulkUserDelete', 'people', async (t, scene) => {
    t.same(await scene.api.users.bulkUserDelete(['bob', 'nobody']), {})
    t.same(await keysOf(scene, `${scene.facts}/users`), ['ida'])
  })
  for (const [name, assign] of [
    ['users.assignRole', async ({ api }: Scene) => await api.users.assignRole(HELD)],
    ['roleAssignments.assign', async ({ api }: Scene) => await api.roleAssignments.assign(HELD)],
    ['api.assignRole', async ({ flat }: Scene) => await flat.assignRole(HELD)],
  ] as const) {
    await method(name, 'people', async (t, scene) => {
      const given = await assign(scene)
      t.match(given, { ...HELD, id: UUID, resource_instance: null })
      t.same(await held(scene), [given])
      t.equal(await may(scene, 'ida', 'read'), true)
      t.equal(await statusOf(assign(scene)), 409)
    })
  }
  for (const [name, unassign] of [
    ['users.unassignRole', async ({ api }: Scene) => await api.users.unassignRole(HELD)],
    ['roleAssignments.unassign', async ({ api }: Scene) => await api.roleAssignments.unassign(HELD)],
    ['api.unassignRole', async ({ flat }: Scene) => void (await flat.unassignRole(HELD))],
  ] as const) {
    await method(name, 'people', async (t, scene) => {
      await hold(scene, HELD, OTHER)
      await unassign(scene)
      matchEach(t, await held(scene), [OTHER])
      t.equal(await may(scene, 'ida', 'read'), false)
      t.equal(await statusOf(unassign(scene)), 404)
    })
  }
  await method('users.getAssignedRoles', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    const { users } = scene.api
    matchEach(t, await users.getAssignedRoles({ user: 'ida', tenant: 'acme' }), [HELD])
    t.same(await users.getAssignedRoles({ user: 'ida', tenant: 'default' }), [])
  })
  await method('roleAssignments.list', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    const { roleAssignments } = scene.api
    matchEach(t, await roleAssignments.list({}), [HELD, OTHER])
    t.match(await roleAssignments.list({ user: 'bob', detailed: true, includeTotalCount: true }), {
      data: [{ user: { key: 'bob' }, tenant: { key: 'acme' }, role: { permissions: ['document:read'] } }],
      total_count: 1,
    })
  })
  await method('roleAssignments.bulkAssign', 'people', async (t, scene) => {
    t.match(await scene.api.roleAssignments.bulkAssign([HELD, OTHER]), { assignments_created: 2 })
    matchEach(t, await held(scene), [HELD, OTHER])
  })
  await method('roleAssignments.bulkUnassign', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    t.match(await scene.api.roleAssignments.bulkUnassign([HELD]), { assignments_removed: 1 })
    matchEach(t, await held(scene), [OTHER])
  })
  await method('tenants.listTenantUsers', 'people', async (t, scene) => {
    await hold(scene, OTHER)
    const found = await scene.api.tenants.listTenantUsers({ tenantKey: 'acme' })
    matchEach(t, found.data, [{ key: 'bob', roles: [{ role: 'reader', tenant: 'acme' }] }])
    t.equal(found.total_count, 1)
  })
  await method('tenants.deleteTenantUser', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    await scene.api.tenants.deleteTenantUser('acme', 'ida')
    matchEach(t, await held(scene), [OTHER])
    t.equal(await may(scene, 'ida', 'read'), false)
  })

  const related = async (scene: Scene) => await read(scene, `${scene.facts}/relationship_tuples`)
  const relate = async (scene: Scene) =>
    await write(scene, `${scene.facts}/relationship_tuples/bulk`, { operations: TUPLES })
  await method('relationshipTuples.create', 'people', async (t, scene) => {
    const tuple = await scene.api.relationshipTuples.create(TUPLE)
    t.match(tuple, { ...TUPLE, id: UUID })
    t.same(await related(scene), [tuple])
    t.equal(await refusalOf(scene.api.relationshipTuples.create(TUPLE)), '409 DUPLICATE_ENTITY')
  })
  await method('relationshipTuples.delete', 'people', async (t, scene) => {
    await relate(scene)
    await scene.api.relationshipTuples.delete(TUPLE)
    matchEach(t, await related(scene), [TUPLES[1]])
    t.equal(await refusalOf(scene.api.relationshipTuples.delete(TUPLE)), '404 NOT_FOUND')
  })
  await method('relationshipTuples.list', 'people', async (t, scene) => {
    await relate(scene)
    t.same(await scene.api.relationshipTuples.list({}), await related(scene))
    matchEach(t, await scene.api.relationshipTuples.list({ object: 'document:d2' }), [TUPLES[1]])
  })
  await method('relationshipTuples.bulkRelationshipTuples', 'people', async (t, scene) => {
    const mayEdit = async (key: string) => await may(scene, 'ida', 'read', { key })
    await write(scene, `${scene.schema}/${EDITOR}/implicit_grants`, DERIVATION)
    await hold(scene, { user: 'ida', role: 'owner', resource_instance: 'folder:f', tenant: 'acme' })
    t.same([await mayEdit('d1'), await mayEdit('d2')], [false, false])
    t.same(await scene.api.relationshipTuples.bulkRelationshipTuples(TUPLES), {})
    matchEach(t, await related(scene), TUPLES)
    t.same([await mayEdit('d1'), await mayEdit('d2')], [true, true])
  })
  await method('relationshipTuples.bulkUnRelationshipTuples', 'people', async (t, scene) => {
    await relate(scene)
    t.same(await scene.api.relationshipTuples.bulkUnRelationshipTuples([TUPLE]), {})
    matchEach(t, await related(scene), [TUPLES[1]])
  })

  const rules = async (scene: Scene) => await read(scene, `${scene.facts}/set_rules`)
  const isGrown = async (scene: Scene) => await may(scene, 'eva', 'edit', {}, { age: 18 })
  const withSet = async (scene: Scene) => await write(scene, `${scene.schema}/condition_sets`, GROWN)
  const withRule = async (scene: Scene) => {
    await withSet(scene)
    await write(scene, `${scene.facts}/set_rules`, RULE)
    t.equal(await isGrown(scene), true)
  }
  const ANY = { userSetKey: '', permissionKey: '', resourceSetKey: '' }
  await method('conditionSetRules.create', 'policy', async (t, scene) => {
    await withSet(scene)
    const rule = await scene.api.conditionSetRules.create(RULE)
    t.match(rule, SHOWN_RULE)
    t.same(await rules(scene), [rule])
    t.equal(await isGrown(scene), true)
  })
  await method('conditionSetRules.list', 'policy', async (t, scene) => {
    await withRule(scene)
    const { conditionSetRules } = scene.api
    matchEach(t, await conditionSetRules.list({ ...ANY, userSetKey: 'grown' }), [SHOWN_RULE])
    t.same(await conditionSetRules.list({ ...ANY, permissionKey: 'document:read' }), [])
  })
  await method('conditionSetRules.delete', 'policy', async (t, scene) => {
    await withRule(scene)
    await scene.api.conditionSetRules.delete(RULE)
    t.same(await rules(scene), [])
    t.equal(await isGrown(scene), false)
  })

  await method('environments.copy', 'project', async (t, { api, project, raw }) => {
    await sent(raw.post(`/v2/schema/${project}/dev/roles`, { key: 'mine', name: 'Mine' }))
    const copied = await api.environments.copy(project, 'dev', {
      target_env: { new: { key: 'copy', name: 'Copy' } },
    })
    t.match(copied, { key: 'copy', name: 'Copy' })
    matchEach(t, (await sent(raw.get(`/v2/schema/${project}/copy/roles`))).json(), [{ key: 'mine' }])
  })
  await method('environments.getStats', 'project', async (t, { api, project, raw }) => {
    await sent(raw.post(`/v2/facts/${project}/dev/users`, { key: 'ida' }))
    t.match(await api.environments.getStats(project, 'dev'), {
      stats: { resources: 0, users: 1, tenants: 1 },
    })
  })
  await method('environments.getApiKey', 'project', async (t, { api, project }) => {
    const { secret = '', environment_id: id } = await api.environments.getApiKey(project, 'dev')
    t.equal((await api.environments.get(project, 'dev')).id, id)
    t.same(await sdk(url, secret, SILENT).api.roles.list(), [])
  })

  await method('elements.loginAs', 'people', async (t, { elements }) => {
    const refusal = await elements.loginAs({ userId: 'ida', tenantId: 'acme' }).catch((error) => error)
    t.equal(refusal?.response?.status, 501)
  })
  await method('permit.check', 'people', async (t, scene) => {
    const { permit } = scene
    await hold(scene, HELD)
    t.equal(await permit.check('ida', 'read', DOCUMENT), true)
    t.equal(await permit.check('ida', 'read', DOCUMENT, {}, { useOpa: true }), true)
    t.equal(await permit.check('ida', 'edit', DOCUMENT), false)
    t.equal(await permit.check('ida', 'read', 'document'), false, 'in the tenant that SDKs add')
  })
  await method('permit.bulkCheck', 'people', async (t, scene) => {
    await hold(scene, HELD)
    const questions = [
      { user: 'ida', action: 'edit', resource: DOCUMENT },
      { user: 'ida', action: 'read', resource: DOCUMENT },
      { user: 'eva', action: 'read', resource: DOCUMENT },
    ]
    t.same(await scene.permit.bulkCheck(questions), [false, true, false])
  })
  await method('permit.checkAllTenants', 'people', async (t, scene) => {
    await hold(scene, HELD)
    matchEach(t, await scene.permit.checkAllTenants('ida', 'read', 'document'), [{ key: 'acme' }])
  })
  await method('permit.getUserPermissions', 'people', async (t, scene) => {
    await hold(scene, HELD)
    t.match(await scene.permit.getUserPermissions('ida'), {
      '__tenant:acme': { tenant: { key: 'acme' }, permissions: ['document:read'] },
    })
    t.same(await scene.permit.getUserPermissions('ida', ['default']), {})
  })

  await method('users.waitForSync', 'people', async (t, { api }) => {
    t.equal((await api.users.waitForSync(1, 'fail').get('ida')).key, 'ida')
  })
  await method('tenants.waitForSync', 'people', async (t, { api }) => {
    t.equal((await api.tenants.waitForSync(0).get('acme')).key, 'acme')
  })
  await method('resourceInstances.waitForSync', 'people', async (t, { api }) => {
    t.same(await api.resourceInstances.waitForSync(null).list(), [])
  })
  await method('roleAssignments.waitForSync', 'people', async (t, { api }) => {
    t.same(await api.roleAssignments.waitForSync(1).list({}), [])
  })
  await method('relationshipTuples.waitForSync', 'people', async (t, { api }) => {
    t.same(await api.relationshipTuples.waitForSync(1).list({}), [])
  })

  // The flat methods, which do what those of the parts do.
  for (const [create, update, remove, get, list, path, body, changes] of [
    [
      'createUser',
      'updateUser',
      'deleteUser',
      'getUser',
      'listUsers',
      'facts/users',
      { key: 'one' },
      { first_name: 'One' },
    ],
    [
      'createTenant',
      'updateTenant',
      'deleteTenant',
      'getTenant',
      'listTenants',
      'facts/tenants',
      { key: 'one', name: 'One' },
      { description: 'Changed' },
    ],
    [
      'createRole',
      'updateRole',
      'deleteRole',
      'getRole',
      'listRoles',
      'schema/roles',
      { key: 'one', name: 'One' },
      { description: 'Changed' },
    ],
    [
      'createResource',
      'updateResource',
      'deleteResource',
      undefined,
      undefined,
      'schema/resources',
      { key: 'one', name: 'One', actions: {} },
      { name: 'Another' },
    ],
    [
      'createConditionSet',
      'updateConditionSet',
      'deleteConditionSet',
      undefined,
      undefined,
      'schema/condition_sets',
      { key: 'one', name: 'One' },
      { name: 'Another' },
    ],
  ] as const) {
    const pathOf = (scene: Scene) =>
      `${scene[path.startsWith('facts') ? 'facts' : 'schema']}/${path.split('/')[1]}`
    const make = async (scene: Scene) => (await write(scene, pathOf(scene), body)).json()
    await method(`api.${create}`, 'empty', async (t, scene) => {
      const one = await scene.flat[create]({ name: 'One', actions: {}, ...body })
      t.match(one, { ...body, id: UUID })
      t.same(one, await read(scene, `${pathOf(scene)}/one`))
    })
    await method(`api.${update}`, 'empty', async (t, scene) => {
      const { id } = await make(scene)
      t.match(await scene.flat[update]('one', changes), { id, ...changes })
      t.match(await read(scene, `${pathOf(scene)}/one`), { id, ...changes })
    })
    await method(`api.${remove}`, 'empty', async (t, scene) => {
      await make(scene)
      t.equal((await scene.flat[remove]('one')).status, 204, 'with the answer as it came')
      t.notOk(await isThere(scene, `${pathOf(scene)}/one`))
    })
    if (get)
      await method(`api.${get}`, 'empty', async (t, scene) => {
        const one = await make(scene)
        t.same(await scene.flat[get]('one'), one)
      })
    if (list)
      await method(`api.${list}`, 'empty', async (t, scene) => {
        const one = await make(scene)
        t.same((await scene.flat[list]()).at(-1), one)
      })
  }
  await method('api.syncUser', 'empty', async (t, scene) => {
    t.match(await scene.flat.syncUser({ key: 'bob' }), { key: 'bob' })
    t.ok(await isThere(scene, `${scene.facts}/users/bob`))
  })
  await method('api.getAssignedRoles', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    matchEach(t, await scene.flat.getAssignedRoles('ida', 'acme'), [HELD])
  })
  await method('api.listConditionSets', 'policy', async (t, scene) => {
    await withSet(scene)
    matchEach(t, await scene.flat.listConditionSets('userset', 1, 10), [{ key: 'grown' }])
    t.same(await scene.flat.listConditionSets('resourceset', 1, 10), [])
  })
  await method('api.assignConditionSetRule', 'policy', async (t, scene) => {
    await withSet(scene)
    matchEach(t, await scene.flat.assignConditionSetRule(RULE), [SHOWN_RULE])
    t.equal(await isGrown(scene), true)
  })
  await method('api.listConditionSetsRules', 'policy', async (t, scene) => {
    await withRule(scene)
    matchEach(t, await scene.flat.listConditionSetsRules(1, 10), [SHOWN_RULE])
  })
  await method('api.unassignConditionSetRule', 'policy', async (t, scene) => {
    await withRule(scene)
    await scene.flat.unassignConditionSetRule(RULE)
    t.same(await rules(scene), [])
    t.equal(await isGrown(scene), false)
  })

  await t.test('what an SDK tells apart by the kind of refusal', async (t) => {
    const { api, permit, environment } = await open('people')
    const outside = sdk(url, 'permit_key_none', SILENT)
    await api.conditionSets.create({ key: 'grown', name: 'Grown', conditions: {} })
    const reading = sdk(url, (await anApiKey(postern, { environment, access: 'read' })).key, SILENT).api
    const key = await anApiKey(postern, { environment })
    const { api: revoked } = sdk(url, key.key, SILENT)
    matchEach(t, await revoked.roles.list(), [{ key: 'reader' }])
    await postern.root.delete(`/api/v1/api-keys/${key.id}`)
    const { api: above } = sdk(url, (await anApiKey(postern, { level: 'org' })).key, SILENT)

    await t.rejects(outside.check('ida', 'read', 'document'), PermitConnectionError)
    t.equal(await outside.check('ida', 'read', 'document', {}, { throwOnError: false }), false)
    for (const [what, call, message] of [
      ['a key that opens nothing', () => outside.api.users.list(), /could not fetch the api key scope/],
      [
        'a key of an environment, for more',
        () => reading.projects.create({ key: 'a', name: 'A' }),
        /requires an API Key with access level/,
      ],
      ['a key of all, and nowhere said where', () => above.users.list(), /less specific context level/],
    ] as const) {
      const error = await call().catch((refusal: unknown) => refusal)
      t.ok(error instanceof PermitContextError, what)
      t.match(error, { message }, what)
    }
    for (const [call, status, code] of [
      [() => api.users.get('nobody'), 404, 'NOT_FOUND'],
      [() => api.tenants.create({ key: 'acme', name: 'Again' }), 409, 'DUPLICATE_ENTITY'],
      [() => api.roles.create({ key: 'a', name: 'A', permissions: ['document:fly'] }), 404, 'NOT_FOUND'],
      [() => api.conditionSets.update('grown', { parent_id: 'grown' }), 400, 'INVALID_INPUT'],
      [() => reading.roles.create({ key: 'a', name: 'A' }), 403, 'FORBIDDEN_ACCESS'],
      [() => revoked.roles.list(), 401, 'UNAUTHORIZED'],
    ] as const) {
      const error = await call().catch((refusal: unknown) => refusal)
      t.ok(error instanceof PermitApiError)
      if (!(error instanceof PermitApiError)) continue
      const { response, message } = error
      t.match(response, { status, headers: { 'content-type': 'application/json' } })
      t.equal(response?.headers['content-type'], 'application/json')
      t.match(response?.data, { id: String, title: String, error_code: code, message, additional_info: null })
      t.doesNotThrow(() => new URL(response?.data.support_link))
    }
    const invalid = await api.users.create({ key: 'a b' }).catch((refusal: unknown) => refusal)
    t.match(invalid, {
      response: {
        status: 422,
        headers: { 'content-type': 'application/json' },
        data: { detail: [{ loc: ['body', 'key'], msg: String, type: String }] },
      },
    })
    const tooMany = await api.tenants.list({ perPage: 101 }).catch((refusal: unknown) => refusal)
    t.match(tooMany, { response: { status: 422, data: { error_code: 'PAGINATION_SIZE_OVERREACHED' } } })
    t.equal(await permit.check('nobody', 'read', 'document'), false, 'a question is never refused')
  })

  await t.test('each of them was tried, and there is no further one', async (t) => {
    const permit = sdk(url, 'none')
    const parts = Object.entries(permit.api).filter(([name]) => !isInside(name))
    const all = [
      ...methodsOf(permit).map((name) => `permit.${name}`),
      ...methodsOf(permit.elements).map((name) => `elements.${name}`),
      ...methodsOf(permit.api).map((name) => `api.${name}`),
      ...parts.flatMap(([name, part]) => methodsOf(part).map((method) => `${name}.${method}`)),
    ]
    t.same([...tried].sort(), all.sort())
    t.ok(all.length > 130, `${all.length} methods`)
  })

  // What the Node SDK has no method for, as the Python SDK sends it.
  const request = async (name: string, start: Start, run: (t: Test, scene: Scene) => Promise<void>) =>
    await t.test(`Python: ${name}`, async (t) => await run(t, await open(start)))
  const { role, tenant } = HELD
  const GRANT = { role, tenant, resource_instance: null }

  await request('users.assign_role', 'people', async (t, scene) => {
    const given = await sent(scene.python.post(`${scene.facts}/users/ida/roles`, GRANT))
    t.match(given.json(), HELD)
    t.same(await held(scene), [given.json()])
  })
  await request('users.unassign_role', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    const path = `${scene.facts}/users/ida/roles`
    t.equal((await scene.python.send('DELETE', path, GRANT)).statusCode, 204)
    matchEach(t, await held(scene), [OTHER])
    t.equal((await scene.python.send('DELETE', path, GRANT)).statusCode, 404)
  })
  await request('tenants.bulk_create', 'empty', async (t, scene) => {
    const operations = ['t1', 't2'].map((key) => ({ key, name: key, description: null, attributes: null }))
    t.same((await sent(scene.python.post(`${scene.facts}/bulk/tenants`, { operations }))).json(), {})
    t.same(await keysOf(scene, `${scene.facts}/tenants`), ['default', 't1', 't2'])
  })
  await request('tenants.bulk_delete', 'people', async (t, scene) => {
    const path = `${scene.facts}/bulk/tenants`
    t.same((await sent(scene.python.send('DELETE', path, { idents: ['acme', 'none'] }))).json(), {})
    t.same(await keysOf(scene, `${scene.facts}/tenants`), ['default'])
  })
  const INSTANCES = ['d1', 'd2'].map((key) => ({
    key,
    resource: 'document',
    tenant: 'acme',
    attributes: { key },
  }))
  const putInstances = async ({ python, facts }: Scene) =>
    (await sent(python.put(`${facts}/bulk/resource_instances`, { operations: INSTANCES }))).json()
  await request('resource_instances.bulk_replace', 'people', async (t, scene) => {
    await write(scene, `${scene.facts}/resource_instances`, { ...INSTANCES[0], attributes: { old: true } })
    t.same(await putInstances(scene), {})
    matchEach(t, await read(scene, `${scene.facts}/resource_instances`), INSTANCES)
  })
  await request('resource_instances.bulk_delete', 'people', async (t, scene) => {
    await putInstances(scene)
    const body = { idents: ['document:d1', 'document:none'] }
    t.same(
      (await sent(scene.python.send('DELETE', `${scene.facts}/bulk/resource_instances`, body))).json(),
      {},
    )
    matchEach(t, await read(scene, `${scene.facts}/resource_instances`), [INSTANCES[1]])
  })

  const invited = async (scene: Scene) => {
    const body = {
      key: 'gil@x.test',
      status: 'pending',
      email: 'gil@x.test',
      first_name: 'Gil',
      last_name: null,
      role_id: await idAt(scene.raw, `${scene.schema}/roles/reader`),
      tenant_id: await idAt(scene.raw, `${scene.facts}/tenants/acme`),
      resource_instance_id: null,
    }
    return (await sent(scene.python.post(`${scene.facts}/user_invites`, body))).json<Row>()
  }
  await request('user_invites.create', 'people', async (t, scene) => {
    const invite = await invited(scene)
    t.match(invite, { id: UUID, key: 'gil@x.test', status: 'pending', role_id: UUID, tenant_id: UUID })
    t.same((await read(scene, `${scene.facts}/user_invites`)).data, [invite])
  })
  await request('user_invites.list', 'people', async (t, scene) => {
    const invite = await invited(scene)
    const list = async (query: string) =>
      (await sent(scene.python.get(`${scene.facts}/user_invites?${query}`))).json().data
    t.same(await list('page=1&per_page=100&search=gil'), [invite])
    t.same(await list('page=1&per_page=100&search=eva'), [])
  })
  await request('user_invites.get', 'people', async (t, scene) => {
    const invite = await invited(scene)
    t.same((await sent(scene.python.get(`${scene.facts}/user_invites/${invite.id}`))).json(), invite)
  })
  await request('user_invites.approve', 'people', async (t, scene) => {
    const { id } = await invited(scene)
    const body = { email: 'gil@x.test', key: 'gil', attributes: null }
    const user = (await sent(scene.python.post(`${scene.facts}/user_invites/${id}/approve`, body))).json()
    t.match(user, { key: 'gil', email: 'gil@x.test', roles: [{ role: 'reader', tenant: 'acme' }] })
    t.equal(await may(scene, 'gil', 'read'), true)
  })
  await request('user_invites.delete', 'people', async (t, scene) => {
    const { id } = await invited(scene)
    t.equal((await scene.python.delete(`${scene.facts}/user_invites/${id}`)).statusCode, 204)
    t.same((await read(scene, `${scene.facts}/user_invites`)).data, [])
  })

  await request('resource_attributes of __user', 'empty', async (t, scene) => {
    const path = `${scene.schema}/resources/__user/attributes`
    const made = await sent(scene.python.post(path, { key: 'age', type: 'number', description: null }))
    t.match(made.json(), { key: 'age', type: 'number', resource_key: '__user' })
    t.same(await read(scene, `${scene.schema}/users/attributes`), [made.json()])
  })
  await request('wait_for_sync', 'people', async (t, { python }) => {
    const headers = { 'x-wait-timeout': '10.0', 'x-timeout-policy': 'fail' }
    t.equal((await sent(python.get('/facts/users/ida', headers))).json().key, 'ida')
  })
  await request('pdp_api.role_assignments.list', 'people', async (t, scene) => {
    await hold(scene, HELD, OTHER)
    const list = await sent(scene.python.get('/local/role_assignments?user=ida&page=1&per_page=100'))
    t.same(list.json(), [HELD])
  })
  await request('authorized_users', 'people', async (t, scene) => {
    await hold(scene, HELD)
    const resource = { ...DOCUMENT, context: { tenant } }
    const found = await sent(
      scene.python.post('/authorized_users', { action: 'read', resource, sdk: 'python' }),
    )
    t.match(found.json(), { tenant, users: { ida: [{ user: 'ida', tenant, role }] } })
    t.same(Object.keys(found.json().users), ['ida'])
  })
  await request('filter_objects', 'people', async (t, scene) => {
    await hold(scene, HELD)
    const asked = ['ida', 'bob'].map((key) => ({
      user: { key },
      action: 'read',
      resource: { ...DOCUMENT, context: { tenant } },
      context: {},
    }))
    const { allow } = (await sent(scene.python.post('/allowed/bulk', asked))).json()
    matchEach(t, allow, [{ allow: true }, { allow: false }])
  })
  await request('get_user_permissions', 'people', async (t, scene) => {
    await hold(scene, HELD)
    const all = { tenants: null, resources: null, resource_types: null }
    const found = await sent(scene.python.post('/user-permissions', { user: { key: 'ida' }, ...all }))
    t.match(found.json(), { '__tenant:acme': { permissions: ['document:read'], roles: ['reader'] } })
    t.same(Object.keys(found.json()), ['__tenant:acme'])
  })
})

/** The SDK with all its parts, each noting in `called` what of it is called. */
function whole(permit: Permit, called: Set<string>) {
  const { api } = permit
  const part = <Part extends object>(name: string, one: Part): Part => noting(one, name, called)
  return {
    permit: part('permit', permit),
    elements: part('elements', permit.elements),
    flat: part('api', api),
    api: {
      actionGroups: part('actionGroups', api.actionGroups),
      conditionSetRules: part('conditionSetRules', api.conditionSetRules),
      conditionSets: part('conditionSets', api.conditionSets),
      environments: part('environments', api.environments),
      projects: part('projects', api.projects),
      relationshipTuples: part('relationshipTuples', api.relationshipTuples),
      resourceActions: part('resourceActions', api.resourceActions),
      resourceAttributes: part('resourceAttributes', api.resourceAttributes),
      resourceInstances: part('resourceInstances', api.resourceInstances),
      resourceRelations: part('resourceRelations', api.resourceRelations),
      resourceRoles: part('resourceRoles', api.resourceRoles),
      resources: part('resources', api.resources),
      roleAssignments: part('roleAssignments', api.roleAssignments),
      roles: part('roles', api.roles),
      tenants: part('tenants', api.tenants),
      users: part('users', api.users),
    },
  }
}

/** The answer to a request that must not be refused. */
async function sent(request: ReturnType<Client['send']>): ReturnType<Client['send']> {
  const response = await request
  if (response.statusCode < 300) return response
  throw new Error(`${response.statusCode} ${response.body}`)
}

const idAt = async (raw: Client, path: string): Promise<string> => (await sent(raw.get(path))).json<Row>().id

/** What the SDK keeps for itself. */
const isInside = (name: string): boolean =>
  name.startsWith('_') || ['config', 'logger', 'openapiClientConfig', 'scopeApi'].includes(name)
