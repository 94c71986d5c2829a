import { isDeepStrictEqual } from 'node:util'
import { type Permit, PermitApiError, PermitConnectionError, PermitContextError } from 'permitio'
import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { listenForSdk, methodsOf, noting, refusalOf, sdk } from '../helpers/permit.ts'

const SILENT = { log: { level: 'silent' } } as const
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/

type Row = { id: string; key: string }
/** How the SDK keeps things of one kind. `names`: the ways to one, by its key and by its id. */
type Kind = {
  create: () => Promise<Row>
  names: (row: Row) => (() => Promise<Row>)[]
  list: () => Promise<readonly Row[]>
  change?: (row: Row) => Promise<Row>
  remove: (row: Row) => Promise<unknown>
}

t.test('each method of the Node SDK', async (t) => {
  const postern = await buildTestApp(t)
  const { url } = await listenForSdk(t, postern)
  const called = new Set<string>()
  const organization = whole(sdk(url, (await anApiKey(postern, { level: 'org' })).key, SILENT))
  await organization.api.projects.create({ key: 'life', name: 'Life' })
  let made = 0

  /** The SDK with all its parts, each noting what is called. */
  function whole(permit: Permit) {
    const { api } = permit
    const part = <Part extends object>(name: string, one: Part): Part => noting(one, name, called)
    return {
      permit: part('permit', permit),
      elements: part('elements', permit.elements),
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

  /** An environment that nothing was written to, and the SDK with its own key. */
  async function cleanEnvironment() {
    const key = `e${++made}`
    await organization.api.environments.create('life', { key, name: key })
    const { secret = '' } = await organization.api.environments.getApiKey('life', key)
    return whole(sdk(url, secret, SILENT))
  }

  /** With a resource `document`, which has a relation `parent` to `folder`, and roles of all sorts. */
  async function withPolicy() {
    const permit = await cleanEnvironment()
    const { api } = permit
    await api.resources.create({
      key: 'folder',
      name: 'Folder',
      actions: { open: {} },
      roles: { owner: { name: 'Owner', permissions: ['open'] } },
    })
    await api.resources.create({
      key: 'document',
      name: 'Document',
      actions: { read: {}, edit: {} },
      relations: { parent: 'folder' },
      roles: { editor: { name: 'Editor', permissions: ['read', 'edit'] } },
    })
    await api.roles.create({ key: 'reader', name: 'Reader', permissions: ['document:read'] })
    await api.users.create({ key: 'ida' })
    await api.tenants.create({ key: 'acme', name: 'Acme' })
    return permit
  }

  const kinds: Record<string, () => Promise<Kind>> = {
    projects: async () => {
      const { projects } = organization.api
      return {
        create: async () => await projects.create({ key: 'one', name: 'One' }),
        names: ({ id, key }) => [
          () => projects.get(key),
          () => projects.getByKey(key),
          () => projects.getById(id),
        ],
        list: async () => await projects.list(),
        change: async ({ key }) => await projects.update(key, { name: 'Another', description: 'Changed' }),
        remove: async ({ key }) => await projects.delete(key),
      }
    },
    environments: async () => {
      const { environments } = organization.api
      const { id: project } = await organization.api.projects.get('life')
      return {
        create: async () => await environments.create('life', { key: 'one', name: 'One' }),
        names: ({ id, key }) => [
          () => environments.get('life', key),
          () => environments.getByKey('life', key),
          () => environments.getById(project, id),
        ],
        list: async () => await environments.list({ projectKey: 'life' }),
        change: async ({ key }) => await environments.update('life', key, { description: 'Changed' }),
        remove: async ({ key }) => await environments.delete('life', key),
      }
    },
    resources: async () => {
      const { resources } = (await cleanEnvironment()).api
      return {
        create: async () => await resources.create({ key: 'one', name: 'One', actions: { read: {} } }),
        names: ({ id, key }) => [
          () => resources.get(key),
          () => resources.getByKey(key),
          () => resources.getById(id),
        ],
        list: async () => await resources.list(),
        change: async ({ key }) => {
          await resources.update(key, { description: 'Changed' })
          return await resources.replace(key, { name: 'Another', actions: { write: {} } })
        },
        remove: async ({ key }) => await resources.delete(key),
      }
    },
    roles: async () => {
      const { roles } = (await withPolicy()).api
      return {
        create: async () => await roles.create({ key: 'one', name: 'One' }),
        names: ({ id, key }) => [() => roles.get(key), () => roles.getByKey(key), () => roles.getById(id)],
        list: async () => await roles.list(),
        change: async ({ key }) => {
          await roles.assignPermissions(key, ['document:read', 'document:edit'])
          await roles.removePermissions(key, ['document:read'])
          return await roles.update(key, { name: 'Another' })
        },
        remove: async ({ key }) => await roles.delete(key),
      }
    },
    tenants: async () => {
      const { tenants } = (await cleanEnvironment()).api
      return {
        create: async () => await tenants.create({ key: 'one', name: 'One' }),
        names: ({ id, key }) => [
          () => tenants.get(key),
          () => tenants.getByKey(key),
          () => tenants.getById(id),
        ],
        list: async () => await tenants.list(),
        change: async ({ key }) => await tenants.update(key, { attributes: { tier: 1 } }),
        remove: async ({ key }) => await tenants.delete(key),
      }
    },
    users: async () => {
      const { users } = (await cleanEnvironment()).api
      return {
        create: async () => await users.create({ key: 'a|one+x@y.test', email: 'one@y.test' }),
        names: ({ id, key }) => [() => users.get(key), () => users.getByKey(key), () => users.getById(id)],
        list: async () => (await users.list()).data,
        change: async ({ key }) => await users.update(key, { first_name: 'Ida', attributes: { age: 3 } }),
        remove: async ({ key }) => await users.delete(key),
      }
    },
    conditionSets: async () => {
      const { conditionSets } = (await cleanEnvironment()).api
      return {
        create: async () => await conditionSets.create({ key: 'one', name: 'One', conditions: {} }),
        names: ({ id, key }) => [
          () => conditionSets.get(key),
          () => conditionSets.getByKey(key),
          () => conditionSets.getById(id),
        ],
        list: async () => await conditionSets.list(),
        change: async ({ key }) =>
          await conditionSets.update(key, { conditions: { 'user.age': { equals: 3 } } }),
        remove: async ({ key }) => await conditionSets.delete(key),
      }
    },
    resourceActions: async () => {
      const { resourceActions, resources } = (await withPolicy()).api
      const { id: owner } = await resources.get('document')
      return {
        create: async () => await resourceActions.create('document', { key: 'one', name: 'One' }),
        names: ({ id, key }) => [
          () => resourceActions.get('document', key),
          () => resourceActions.getByKey('document', key),
          () => resourceActions.getById(owner, id),
        ],
        list: async () => await resourceActions.list({ resourceKey: 'document' }),
        change: async ({ key }) => await resourceActions.update('document', key, { name: 'Another' }),
        remove: async ({ key }) => await resourceActions.delete('document', key),
      }
    },
    actionGroups: async () => {
      const { actionGroups, resources } = (await withPolicy()).api
      const { id: owner } = await resources.get('document')
      return {
        create: async () =>
          await actionGroups.create('document', { key: 'one', name: 'One', actions: ['read'] }),
        names: ({ id, key }) => [
          () => actionGroups.get('document', key),
          () => actionGroups.getByKey('document', key),
          () => actionGroups.getById(owner, id),
        ],
        list: async () => await actionGroups.list({ resourceKey: 'document' }),
        change: async ({ key }) => await actionGroups.update('document', key, { actions: ['edit', 'read'] }),
        remove: async ({ key }) => await actionGroups.delete('document', key),
      }
    },
    resourceAttributes: async () => {
      const { resourceAttributes, resources } = (await withPolicy()).api
      const { id: owner } = await resources.get('document')
      return {
        create: async () => await resourceAttributes.create('document', { key: 'one', type: 'bool' }),
        names: ({ id, key }) => [
          () => resourceAttributes.get('document', key),
          () => resourceAttributes.getByKey('document', key),
          () => resourceAttributes.getById(owner, id),
        ],
        list: async () => await resourceAttributes.list({ resourceKey: 'document' }),
        change: async ({ key }) =>
          await resourceAttributes.update('document', key, { type: 'number', description: 'Changed' }),
        remove: async ({ key }) => await resourceAttributes.delete('document', key),
      }
    },
    resourceRelations: async () => {
      const { resourceRelations, resources } = (await withPolicy()).api
      const { id: owner } = await resources.get('document')
      return {
        create: async () =>
          await resourceRelations.create('document', { key: 'one', name: 'One', subject_resource: 'folder' }),
        names: ({ id, key }) => [
          () => resourceRelations.get('document', key),
          () => resourceRelations.getByKey('document', key),
          () => resourceRelations.getById(owner, id),
        ],
        list: async () => await resourceRelations.list({ resourceKey: 'document' }),
        remove: async ({ key }) => await resourceRelations.delete('document', key),
      }
    },
    resourceRoles: async () => {
      const { resourceRoles, resources } = (await withPolicy()).api
      const { id: owner } = await resources.get('document')
      const rule = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
      return {
        create: async () => await resourceRoles.create('document', { key: 'one', name: 'One' }),
        names: ({ id, key }) => [
          () => resourceRoles.get('document', key),
          () => resourceRoles.getByKey('document', key),
          () => resourceRoles.getById(owner, id),
        ],
        list: async () => await resourceRoles.list({ resourceKey: 'document' }),
        change: async ({ key }) => {
          await resourceRoles.assignPermissions('document', key, ['read', 'edit'])
          await resourceRoles.removePermissions('document', key, ['edit'])
          await resourceRoles.createRoleDerivation('document', key, rule)
          await resourceRoles.deleteRoleDerivation('document', key, rule)
          await resourceRoles.updateRoleDerivationConditions('document', key, {
            no_direct_roles_on_object: true,
          })
          return await resourceRoles.update('document', key, { name: 'Another' })
        },
        remove: async ({ key }) => await resourceRoles.delete('document', key),
      }
    },
    resourceInstances: async () => {
      const { resourceInstances } = (await withPolicy()).api
      return {
        create: async () =>
          await resourceInstances.create({ key: 'a/b', resource: 'document', tenant: 'acme' }),
        names: ({ id, key }) => [
          () => resourceInstances.get(`document:${key}`),
          () => resourceInstances.getByKey(`document:${key}`),
          () => resourceInstances.getById(id),
        ],
        list: async () => await resourceInstances.list(),
        change: async ({ id }) => await resourceInstances.update(id, { attributes: { draft: true } }),
        remove: async ({ key }) => await resourceInstances.delete(`document:${key}`),
      }
    },
  }

  for (const [name, open] of Object.entries(kinds)) {
    await t.test(`${name}: made, found by every name, listed, changed and gone`, async (t) => {
      const { create, names, list, change, remove } = await open()
      const before = (await list()).map(({ key }) => key)

      const made = await create()

      t.match(made, { id: UUID, key: String, created_at: /Z$/, organization_id: UUID })
      for (const find of names(made)) t.same(await find(), made)
      t.equal(await refusalOf(create()), '409 DUPLICATE_ENTITY')
      t.same(
        (await list()).filter(({ id }) => id === made.id),
        [made],
        'the list shows it as it is',
      )
      t.same(
        (await list()).map(({ key }) => key),
        [...before, made.key],
      )
      if (change) {
        const changed = await change(made)
        t.equal(changed.id, made.id)
        t.notOk(isDeepStrictEqual(changed, made))
        for (const find of names(made)) t.same(await find(), changed)
      }
      await remove(made)
      for (const find of names(made)) t.equal(await refusalOf(find()), '404 NOT_FOUND')
      t.equal(await refusalOf(remove(made)), '404 NOT_FOUND')
      t.same(
        (await list()).map(({ key }) => key),
        before,
      )
      const again = await create()
      t.not(again.id, made.id, 'the key is free again')
    })
  }

  await t.test('users, many at a time and with what they hold', async (t) => {
    const { api, permit } = await withPolicy()
    const { users, tenants, roleAssignments } = api
    const keys = async () => (await users.list()).data.map(({ key }) => key)

    t.same(await users.bulkUserCreate([{ key: 'ada' }, { key: 'bob', email: 'bob@x.test' }]), {})
    t.same(await keys(), ['ida', 'ada', 'bob'])
    t.same(await users.bulkUserReplace([{ key: 'bob', first_name: 'Bob' }, { key: 'cyd' }]), {})
    t.match(await users.get('bob'), { first_name: 'Bob', email: 'bob@x.test' })
    t.match(await users.sync({ key: 'dan' }), { created: true, user: { key: 'dan' } })
    t.match(await users.sync({ key: 'dan', email: null as unknown as string }), { created: false })
    t.same(await users.bulkUserDelete(['ada', 'cyd', 'nobody']), {})
    t.same(await keys(), ['ida', 'bob', 'dan'])

    const held = { user: 'bob', role: 'reader', tenant: 'acme' }
    const document = { type: 'document', tenant: 'acme' }
    t.match(await users.assignRole(held), { ...held, id: UUID, resource_instance: null })
    t.equal(await permit.check('bob', 'read', document), true)
    matchEach(t, await users.getAssignedRoles({ user: 'bob', tenant: 'acme' }), [held])
    t.match(await roleAssignments.list({ role: 'reader', detailed: true, includeTotalCount: true }), {
      data: [{ user: { key: 'bob' }, tenant: { key: 'acme' }, role: { permissions: ['document:read'] } }],
      total_count: 1,
    })
    await users.unassignRole(held)
    t.equal(await permit.check('bob', 'read', document), false)
    t.same(await users.getAssignedRoles({ user: 'bob' }), [])

    t.match(await roleAssignments.assign(held), held)
    t.equal(await refusalOf(roleAssignments.assign(held)), '409 DUPLICATE_ENTITY')
    t.match(await tenants.listTenantUsers({ tenantKey: 'acme' }), { data: [{ key: 'bob' }], total_count: 1 })
    await tenants.deleteTenantUser('acme', 'bob')
    t.equal(await refusalOf(roleAssignments.unassign(held)), '404 NOT_FOUND')
    const several = [held, { ...held, user: 'dan' }]
    t.match(await roleAssignments.bulkAssign(several), { assignments_created: 2 })
    t.match(await roleAssignments.bulkUnassign([held]), { assignments_removed: 1 })
    await roleAssignments.unassign({ ...held, user: 'dan' })
    t.same(await roleAssignments.list({}), [])
  })

  await t.test('relationships, and what they give', async (t) => {
    const { api, permit } = await withPolicy()
    const { relationshipTuples, resourceRoles, roleAssignments } = api
    await resourceRoles.createRoleDerivation('document', 'editor', {
      role: 'owner',
      on_resource: 'folder',
      linked_by_relation: 'parent',
    })
    await roleAssignments.assign({
      user: 'ida',
      role: 'owner',
      resource_instance: 'folder:f',
      tenant: 'acme',
    })
    const tuples = ['d1', 'd2'].map((key) => ({
      subject: 'folder:f',
      relation: 'parent',
      object: `document:${key}`,
      tenant: 'acme',
    }))
    const [first = { subject: '', relation: '', object: '' }] = tuples
    const mayEdit = async (key: string) =>
      await permit.check('ida', 'edit', { type: 'document', key, tenant: 'acme' })

    t.match(await relationshipTuples.create(first), { ...first, id: UUID })
    t.same([await mayEdit('d1'), await mayEdit('d2')], [true, false])
    await relationshipTuples.delete(first)
    t.equal(await mayEdit('d1'), false)
    t.same(await relationshipTuples.bulkRelationshipTuples(tuples), {})
    t.same([await mayEdit('d1'), await mayEdit('d2')], [true, true])
    matchEach(t, await relationshipTuples.list({ object: 'document:d2' }), [tuples[1]])
    t.same(await relationshipTuples.bulkUnRelationshipTuples(tuples), {})
    t.same(await relationshipTuples.list({}), [])
    t.same([await mayEdit('d1'), await mayEdit('d2')], [false, false])
  })

  await t.test('rules over sets', async (t) => {
    const { api, permit } = await withPolicy()
    await api.conditionSets.create({
      key: 'grown',
      name: 'Grown',
      conditions: { 'user.age': { 'greater-than': 17 } },
    })
    const rule = {
      user_set: 'grown',
      permission: 'document:edit',
      resource_set: 'document',
      is_resource: true,
    }
    const shown = { user_set: 'grown', permission: 'document:edit', resource_set: '__autogen_document' }
    const any = { userSetKey: '', permissionKey: '', resourceSetKey: '' }
    const mayEdit = async () =>
      await permit.check({ key: 'eva', attributes: { age: 18 } }, 'edit', 'document')

    t.match(await api.conditionSetRules.create(rule), shown)
    matchEach(t, await api.conditionSetRules.list({ ...any, userSetKey: 'grown' }), [shown])
    t.equal(await mayEdit(), true)
    await api.conditionSetRules.delete(rule)
    t.equal(await mayEdit(), false)
    t.same(await api.conditionSetRules.list(any), [])
  })

  await t.test('an environment is copied, counted, and has a key', async (t) => {
    const { environments } = organization.api
    await (await withPolicy()).api.roles.create({ key: 'mine', name: 'Mine' })
    const from = `e${made}`

    const copied = await environments.copy('life', from, {
      target_env: { new: { key: 'copy', name: 'Copy' } },
    })

    t.match(copied, { key: 'copy', name: 'Copy' })
    t.match(await environments.getStats('life', 'copy'), { stats: { resources: 2, users: 0, tenants: 1 } })
    const { secret = '' } = await environments.getApiKey('life', 'copy')
    matchEach(t, await sdk(url, secret).api.roles.list(), [{ key: 'mine' }, { key: 'reader' }])
    t.match(await sdk(url, secret).api.resourceRoles.get('document', 'editor'), {
      permissions: ['edit', 'read'],
    })
  })

  await t.test('questions', async (t) => {
    const { api, permit } = await withPolicy()
    await api.users.assignRole({ user: 'ida', role: 'reader', tenant: 'acme' })
    const document = { type: 'document', tenant: 'acme' }

    t.equal(await permit.check('ida', 'read', document), true)
    t.equal(await permit.check('ida', 'read', document, {}, { useOpa: true }), true)
    t.equal(await permit.check('ida', 'read', 'document'), false, 'in the tenant that SDKs add')
    t.same(
      await permit.bulkCheck([
        { user: 'ida', action: 'edit', resource: document },
        { user: 'ida', action: 'read', resource: document },
        { user: 'eva', action: 'read', resource: document },
      ]),
      [false, true, false],
    )
    matchEach(t, await permit.checkAllTenants('ida', 'read', 'document'), [{ key: 'acme' }])
    t.match(await permit.getUserPermissions('ida'), {
      '__tenant:acme': { tenant: { key: 'acme' }, permissions: ['document:read'] },
    })
  })

  await t.test('waiting for what is there already', async (t) => {
    const { api } = await withPolicy()
    t.equal((await api.users.waitForSync(1, 'fail').get('ida')).key, 'ida')
    t.equal((await api.tenants.waitForSync(0).get('acme')).key, 'acme')
    t.same(await api.resourceInstances.waitForSync(null).list(), [])
    t.same(await api.roleAssignments.waitForSync(1).list({}), [])
    t.same(await api.relationshipTuples.waitForSync(1).list({}), [])
  })

  await t.test('what an SDK tells apart by the kind of refusal', async (t) => {
    const { api, permit, elements } = await withPolicy()
    const outside = sdk(url, 'permit_key_none', SILENT)
    await api.conditionSets.create({ key: 'grown', name: 'Grown', conditions: {} })
    const environment = `life/e${made}`
    const reading = sdk(url, (await anApiKey(postern, { environment, access: 'read' })).key, SILENT).api
    const key = await anApiKey(postern, { environment })
    const { api: revoked } = sdk(url, key.key, SILENT)
    matchEach(t, await revoked.roles.list(), [{ key: 'reader' }])
    await postern.root.delete(`/api/v1/api-keys/${key.id}`)
    const { api: whole } = sdk(url, (await anApiKey(postern, { level: 'org' })).key, SILENT)

    const login = await elements.loginAs({ userId: 'ida', tenantId: 'acme' }).catch((error) => error)
    t.equal(login?.response?.status, 501)
    await t.rejects(outside.check('ida', 'read', 'document'), PermitConnectionError)
    t.equal(await outside.check('ida', 'read', 'document', {}, { throwOnError: false }), false)
    for (const [what, call, message] of [
      ['a key that opens nothing', () => outside.api.users.list(), /could not fetch the api key scope/],
      [
        'a key of an environment, for more',
        () => reading.projects.create({ key: 'a', name: 'A' }),
        /requires an API Key with access level/,
      ],
      ['a key of all, and nowhere said where', () => whole.users.list(), /less specific context level/],
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

  await t.test('has been called', async (t) => {
    const permit = sdk(url, 'none')
    const { api } = organization
    const parts = Object.entries(permit.api).filter(([name]) => !isInside(name))
    t.same(parts.map(([name]) => name).sort(), Object.keys(api).sort(), 'there is no further part')
    const all = [
      ...methodsOf(permit).map((name) => `permit.${name}`),
      ...methodsOf(permit.elements).map((name) => `elements.${name}`),
      ...parts.flatMap(([name, part]) => methodsOf(part).map((method) => `${name}.${method}`)),
    ]
    t.same(
      all.filter((name) => !called.has(name)),
      [],
    )
    t.ok(all.length > 100, `${all.length} methods`)
  })
})

/** What the SDK keeps for itself. */
const isInside = (name: string): boolean =>
  name.startsWith('_') || ['config', 'logger', 'openapiClientConfig', 'scopeApi'].includes(name)
