import { PermitApiError } from 'permitio'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, pythonClient, sdk } from '../helpers/permit.ts'

type Json = Record<string, unknown>
const UUID = /^[0-9a-f-]{36}$/

t.test('the Node SDK keeps the policy', async (t) => {
  const postern = await buildTestApp(t)
  const { key } = await apiKey(postern)
  const { url } = await listenForSdk(t, postern)
  const permit = sdk(url, key, { log: { level: 'silent' } })
  const { api } = permit
  const allowed = async (user: string, action: string, type: string, instance?: string) =>
    await permit.check(user, action, { type, tenant: 'default', ...(instance && { key: instance }) })

  await t.test('resources with actions, attributes, relations and roles that name one another', async (t) => {
    t.same(await api.resources.list(), [])
    const folder = await api.resources.create({
      key: 'folder',
      name: 'Folder',
      actions: { open: {} },
      relations: { parent: 'folder' },
      roles: {
        owner: {
          name: 'Owner',
          permissions: ['open'],
          extends: ['guest'],
          granted_to: {
            users_with_role: [{ role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }],
          },
        },
        guest: { name: 'Guest' },
      },
    })
    t.match(folder, {
      key: 'folder',
      id: UUID,
      organization_id: UUID,
      project_id: UUID,
      environment_id: DEFAULT_ENVIRONMENT,
      description: null,
      urn: null,
      actions: { open: { id: UUID, key: 'open', name: 'open', description: null, attributes: null } },
      relations: { parent: { resource: 'folder', resource_id: folder.id } },
      roles: {
        owner: {
          key: 'owner',
          resource: 'folder',
          resource_id: folder.id,
          permissions: ['open'],
          extends: ['guest'],
          granted_to: {
            id: UUID,
            when: { no_direct_roles_on_object: false },
            users_with_role: [
              { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent', resource_id: folder.id },
            ],
          },
        },
        guest: { key: 'guest', granted_to: null },
      },
    })
    t.same([folder.attributes, folder.action_groups], [{}, {}])
    const { guest } = folder.roles as { guest?: { permissions: unknown; extends: unknown } }
    t.same([guest?.permissions, guest?.extends], [[], []])
    const document = await api.resources.create({
      key: 'document',
      name: 'Document',
      urn: 'prn:document',
      actions: { read: { name: 'Read', description: 'To read' }, edit: {}, toss: {} },
      attributes: { private: { type: 'bool', description: 'Not for all' } },
      relations: { parent: folder.id },
    })
    t.match(document.attributes, { private: { id: UUID, key: 'private', type: 'bool' } })
    t.match(await api.resources.getById(document.id), document)
    t.same(
      (await api.resources.list()).map((one) => one.key),
      ['folder', 'document'],
    )
    t.match(await api.resources.list({ page: 2, perPage: 1, includeTotalCount: true }), {
      data: [{ key: 'document' }],
      total_count: 2,
      page_count: 2,
    })
    t.equal(
      await refusalOf(api.resources.create({ key: 'folder', name: 'Again', actions: {} })),
      '409 DUPLICATE_ENTITY',
    )
    t.equal(await refusalOf(api.resources.get('nowhere')), '404 NOT_FOUND')
  })

  await t.test('a resource that is refused leaves nothing behind', async (t) => {
    const create = async (body: Json) =>
      await refusalOf(api.resources.create({ key: 'half', name: 'Half', actions: { read: {} }, ...body }))

    t.equal(await create({ relations: { parent: 'nowhere' } }), '404 NOT_FOUND')
    t.equal(await create({ roles: { viewer: { permissions: ['fly'] } } }), '404 NOT_FOUND')
    t.equal(await create({ roles: { viewer: { extends: ['nobody'] } } }), '404 NOT_FOUND')
    t.equal(
      await create({ roles: { a: { extends: ['b'] }, b: { extends: ['a'] } } }),
      '400 INVALID_INPUT',
      'a cycle',
    )
    t.equal(await create({ attributes: { colour: { type: 'paint' } } }), '422 INVALID_INPUT')
    t.equal(await create({ key: '__user' }), '409 DUPLICATE_ENTITY')
    t.equal(await refusalOf(api.resources.get('half')), '404 NOT_FOUND')
  })

  await t.test('a change replaces the parts that it names, a replacement all', async (t) => {
    const patched = await api.resources.update('document', { actions: { read: {}, edit: {}, share: {} } })
    t.same(Object.keys(patched.actions ?? {}).sort(), ['edit', 'read', 'share'])
    t.match(patched, { name: 'Document', urn: 'prn:document', actions: { read: { name: 'read' } } })
    t.match(patched.attributes, { private: { type: 'bool' } })
    const { read } = (await api.resources.get('document')).actions ?? {}
    const replaced = await api.resources.replace('document', {
      name: 'Document',
      actions: { read: {}, edit: {} },
      relations: { parent: 'folder' },
    })
    t.match(replaced, { urn: null, relations: { parent: { resource: 'folder' } } })
    t.same(replaced.attributes, {})
    t.equal(replaced.actions?.['read']?.id, read?.id, 'what stays is the same as before')
    t.match(
      await api.resources.replace('document', JSON.parse(JSON.stringify(replaced))),
      { ...replaced, updated_at: String },
      'what was read can be sent back',
    )
  })

  await t.test('actions', async (t) => {
    const made = await api.resourceActions.create('document', { key: 'print', name: 'Print' })
    t.match(made, { key: 'print', permission_name: 'document:print', resource_id: UUID, description: null })
    t.match(await api.resourceActions.getById(made.resource_id, made.id), made)
    t.match(await api.resourceActions.update('document', 'print', { name: 'To paper' }), {
      name: 'To paper',
    })
    t.same(
      (await api.resourceActions.list({ resourceKey: 'document' })).map((one) => one.key),
      ['read', 'edit', 'print'],
    )
    t.equal(
      await refusalOf(api.resourceActions.create('document', { key: 'print', name: 'Print' })),
      '409 DUPLICATE_ENTITY',
    )
    await api.resourceActions.delete('document', 'print')
    t.equal(await refusalOf(api.resourceActions.get('document', 'print')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.resourceActions.delete('nowhere', 'print')), '404 NOT_FOUND')
  })

  await t.test('action groups', async (t) => {
    const made = await api.actionGroups.create('document', {
      key: 'use',
      name: 'Use',
      actions: ['read', 'edit'],
    })
    t.match(made, { key: 'use', actions: ['edit', 'read'], resource_id: UUID })
    t.match(await api.actionGroups.get('document', 'use'), made)
    matchEach(t, await api.actionGroups.list({ resourceKey: 'document' }), [made])
    t.match((await api.resources.get('document')).action_groups, { use: ['edit', 'read'] })
    t.equal(
      await refusalOf(api.actionGroups.create('document', { key: 'fly', name: 'Fly', actions: ['fly'] })),
      '422 INVALID_INPUT',
    )
    await api.actionGroups.delete('document', 'use')
    t.same(await api.actionGroups.list({ resourceKey: 'document' }), [])
  })

  await t.test('attributes of resources and of users', async (t) => {
    const made = await api.resourceAttributes.create('document', { key: 'size', type: 'number' })
    t.match(made, { key: 'size', type: 'number', resource_key: 'document', built_in: false })
    t.match(await api.resourceAttributes.update('document', 'size', { type: 'string' }), { type: 'string' })
    t.equal(
      await refusalOf(api.resourceAttributes.create('document', { key: 'size', type: 'number' })),
      '409 DUPLICATE_ENTITY',
    )
    await api.resourceAttributes.delete('document', 'size')
    t.same(await api.resourceAttributes.list({ resourceKey: 'document' }), [])

    const age = await api.resourceAttributes.create('__user', { key: 'age', type: 'number' })
    t.match(age, { key: 'age', resource_key: '__user', resource_id: UUID })
    t.match(await api.resourceAttributes.getById(age.resource_id, age.id), age)
    matchEach(t, await api.resourceAttributes.list({ resourceKey: '__user' }), [age])
    t.equal(await refusalOf(api.resources.get('__user')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.resourceActions.list({ resourceKey: '__user' })), '404 NOT_FOUND')
  })

  await t.test('relations', async (t) => {
    const made = await api.resourceRelations.create('document', {
      key: 'copy',
      name: 'Copy of',
      subject_resource: 'document',
    })
    t.match(made, {
      key: 'copy',
      subject_resource: 'document',
      subject_resource_id: made.object_resource_id,
      object_resource: 'document',
    })
    t.match(await api.resourceRelations.getById('document', made.id), made)
    t.same(
      (await api.resourceRelations.list({ resourceKey: 'document' })).map((one) => one.key),
      ['parent', 'copy'],
    )
    t.equal(
      await refusalOf(
        api.resourceRelations.create('document', { key: 'of', name: 'Of', subject_resource: 'nothing' }),
      ),
      '404 NOT_FOUND',
    )
    await api.resourceRelations.delete('document', 'copy')
    t.equal(await refusalOf(api.resourceRelations.get('document', 'copy')), '404 NOT_FOUND')
  })

  await t.test('roles held in tenants, in force at once', async (t) => {
    const empty = await api.roles.create({ key: 'reader', name: 'Reader' })
    t.match(empty, {
      id: UUID,
      environment_id: DEFAULT_ENVIRONMENT,
      key: 'reader',
      name: 'Reader',
      description: null,
      granted_to: null,
    })
    t.same([empty.permissions, 'extends' in empty && empty.extends], [[], []])
    await api.users.create({ key: 'ida', role_assignments: [{ role: 'reader', tenant: 'default' }] })
    t.equal(await allowed('ida', 'read', 'document'), false)

    const { read } = (await api.resources.get('document')).actions ?? {}
    const held = await api.roles.assignPermissions('reader', ['document:read', read?.id ?? '', 'folder:open'])
    t.same(held.permissions, ['document:read', 'folder:open'])
    t.equal(await allowed('ida', 'read', 'document'), true)
    t.same((await api.roles.assignPermissions(empty.id, ['document:read'])).permissions, held.permissions)
    const left = await api.roles.removePermissions('reader', ['folder:open', 'folder:fly'])
    t.same(left.permissions, ['document:read'])
    t.equal(await allowed('ida', 'open', 'folder'), false)

    t.match(await api.roles.update('reader', { name: 'Readers', description: 'They read' }), {
      name: 'Readers',
      description: 'They read',
      permissions: ['document:read'],
    })
    const editor = { key: 'editor', name: 'Editor', permissions: ['document:edit'], extends: ['reader'] }
    t.match(await api.roles.create(editor), { extends: ['reader'], permissions: ['document:edit'] })
    await api.users.assignRole({ user: 'ida', role: 'editor', tenant: 'default' })
    await api.users.unassignRole({ user: 'ida', role: 'reader', tenant: 'default' })
    t.equal(await allowed('ida', 'read', 'document'), true, 'by what the role extends')
    t.equal(await allowed('ida', 'edit', 'document'), true)
    matchEach(t, await api.roles.list(), [{ key: 'reader' }, { key: 'editor' }], 'no built-in ones')
    t.match(await api.roles.list({ page: 1, perPage: 1, includeTotalCount: true }), {
      data: [{ key: 'reader' }],
      total_count: 2,
      page_count: 2,
    })
  })

  await t.test('roles are refused what is not there', async (t) => {
    const create = async (body: Json) =>
      await refusalOf(api.roles.create({ key: 'new', name: 'New', ...body }))

    for (const permission of ['document:fly', 'nowhere:read', 'read', 'postern.users:read', 'a:b:c'])
      t.equal(await create({ permissions: [permission] }), '404 NOT_FOUND', permission)
    t.equal(await create({ extends: ['ADMIN'] }), '404 NOT_FOUND')
    t.equal(
      await create({
        granted_to: {
          users_with_role: [{ role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }],
        },
      }),
      '422 INVALID_INPUT',
    )
    t.equal(await create({ key: 'reader' }), '409 DUPLICATE_ENTITY')
    t.equal(await create({ key: 'ADMIN' }), '409 DUPLICATE_ENTITY')
    t.equal(await create({ key: 'a.b' }), '422 INVALID_INPUT')
    t.equal(await refusalOf(api.roles.get('ADMIN')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.roles.update('ADMIN', { permissions: [] })), '404 NOT_FOUND')
    t.equal(await refusalOf(api.roles.delete('SUPER_ADMIN')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.roles.assignPermissions('reader', ['document:fly'])), '404 NOT_FOUND')
    t.equal(await refusalOf(api.roles.update('reader', { extends: ['editor'] } as Json)), '400 INVALID_INPUT')
    t.equal(await refusalOf(api.roles.get('new')), '404 NOT_FOUND')
    t.same((await api.roles.get('reader')).permissions, ['document:read'])
  })

  await t.test('a role that is deleted is taken from its holders', async (t) => {
    await api.roles.delete('editor')
    t.equal(await allowed('ida', 'edit', 'document'), false)
    t.same((await api.users.get('ida')).roles, [])
    t.equal(await refusalOf(api.roles.delete('editor')), '404 NOT_FOUND')
  })

  await t.test('roles on instances, and what they are derived from', async (t) => {
    const { resourceRoles } = api
    const editor = await resourceRoles.create('document', {
      key: 'editor',
      name: 'Editor',
      permissions: ['read', 'document:edit', 'folder:open'],
    })
    t.match(editor, { resource: 'document', permissions: ['edit', 'read', 'folder:open'], granted_to: null })
    t.match(await resourceRoles.getById(editor.resource_id, editor.id), editor)
    matchEach(t, await resourceRoles.list({ resourceKey: 'document' }), [editor])
    t.same(
      (await resourceRoles.removePermissions('document', 'editor', ['folder:open', 'read'])).permissions,
      ['edit'],
    )
    t.same((await resourceRoles.assignPermissions('document', 'editor', ['read'])).permissions, [
      'edit',
      'read',
    ])
    const rule = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
    const derivation = await resourceRoles.createRoleDerivation('document', 'editor', rule)
    t.match(derivation, {
      ...rule,
      role_id: UUID,
      resource_id: UUID,
      relation_id: UUID,
      when: { no_direct_roles_on_object: false },
    })
    t.equal(
      await refusalOf(resourceRoles.createRoleDerivation('document', 'editor', rule)),
      '409 DUPLICATE_ENTITY',
    )
    for (const [wrong, refusal] of [
      [{ role: 'nobody' }, '404 NOT_FOUND'],
      [{ on_resource: 'nowhere' }, '404 NOT_FOUND'],
      [{ linked_by_relation: 'none' }, '404 NOT_FOUND'],
      [{ on_resource: 'document', role: 'editor' }, '400 MISMATCH_RELATION_TYPE'],
    ] as const) {
      const call = resourceRoles.createRoleDerivation('document', 'editor', { ...rule, ...wrong })
      t.equal(await refusalOf(call), refusal)
    }

    await api.users.create({ key: 'eve' })
    const { instances } = postern.services.modelOf(DEFAULT_ENVIRONMENT)
    await instances.createInstance(SYSTEM, { resource: 'folder', key: 'f', account: 'default' })
    await instances.createInstance(SYSTEM, { resource: 'document', key: 'd', account: 'default' })
    await instances.createTuple(SYSTEM, { subject: 'folder:f', relation: 'parent', object: 'document:d' })
    await api.roleAssignments.assign({ user: 'eve', role: 'owner', resource_instance: 'folder:f' })
    t.equal(await allowed('eve', 'edit', 'document', 'd'), true)

    const conditions = { no_direct_roles_on_object: true }
    t.same(await resourceRoles.updateRoleDerivationConditions('document', 'editor', conditions), conditions)
    t.match(await resourceRoles.get('document', 'editor'), {
      granted_to: { when: conditions, users_with_role: [rule] },
    })
    t.equal(await allowed('eve', 'edit', 'document', 'd'), true)
    await resourceRoles.create('document', { key: 'marked', name: 'Marked' })
    await api.roleAssignments.assign({ user: 'eve', role: 'marked', resource_instance: 'document:d' })
    t.equal(await allowed('eve', 'edit', 'document', 'd'), false, 'who has a direct role gets no derived one')

    await resourceRoles.update('document', 'editor', {
      granted_to: { when: { no_direct_roles_on_object: false }, users_with_role: [] },
    })
    t.equal((await resourceRoles.get('document', 'editor')).granted_to, null)
    await resourceRoles.createRoleDerivation('document', 'editor', rule)
    t.equal(await allowed('eve', 'edit', 'document', 'd'), true)
    await resourceRoles.deleteRoleDerivation('document', 'editor', rule)
    t.equal(await allowed('eve', 'edit', 'document', 'd'), false)
    t.equal(await refusalOf(resourceRoles.deleteRoleDerivation('document', 'editor', rule)), '404 NOT_FOUND')
    await resourceRoles.delete('document', 'marked')
    matchEach(t, await api.roleAssignments.list({ user: 'eve' }), [{ role: 'owner' }])
    t.equal(await refusalOf(api.roles.get('owner')), '404 NOT_FOUND', 'it is one of a resource')
  })

  await t.test('derivations that are made at the same time are all there', async (t) => {
    await api.resources.update('folder', {
      roles: { owner: { permissions: ['open'] }, guest: {}, lender: {}, heir: {} },
    })
    const from = ['owner', 'guest', 'lender', 'heir']
    const made = await Promise.all(
      from.map(
        async (role) =>
          await api.resourceRoles.createRoleDerivation('document', 'editor', {
            role,
            on_resource: 'folder',
            linked_by_relation: 'parent',
          }),
      ),
    )
    t.same(made.map(({ role }) => role).sort(), [...from].sort())
    const { granted_to: granted } = await api.resourceRoles.get('document', 'editor')
    t.same(granted?.users_with_role?.map(({ role }) => role).sort(), [...from].sort())
  })

  await t.test('of two who create the same, one does', async (t) => {
    const both = await Promise.all([
      refusalOf(api.roles.create({ key: 'twin', name: 'Twin' })),
      refusalOf(api.roles.create({ key: 'twin', name: 'Twin' })),
    ])
    t.same(both.sort(), ['409 DUPLICATE_ENTITY', 'done'])
  })

  await t.test('a role made here is in the next token of its holder', async (t) => {
    const email = 'una@postern.test'
    await postern.services.modelOf(DEFAULT_ENVIRONMENT).users.createUser(SYSTEM, {
      email,
      password: PASSWORD,
      fullName: 'Una',
      key: 'una',
      accountId: postern.home,
    })
    await api.roles.create({ key: 'printer', name: 'Printer', permissions: ['document:read'] })
    await api.users.assignRole({ user: 'una', role: 'printer', tenant: 'default' })
    const token = await postern.signIn(email)
    t.same(scopesOf(token), ['document:read'])
    const me = async () => (await postern.as(token).get('/api/v1/users/me')).statusCode
    t.equal(await me(), 200)

    await api.roles.assignPermissions('printer', ['document:edit'])
    t.equal(await me(), 200, 'a token with less than the role has is no danger')
    t.same(scopesOf(await postern.signIn(email)), ['document:edit', 'document:read'])
    await api.roles.removePermissions('printer', ['document:read'])
    t.equal(await me(), 401, 'one with more ends at once')
    const next = await postern.signIn(email)
    await api.roles.delete('printer')
    t.equal((await postern.as(next).get('/api/v1/users/me')).statusCode, 401)
    t.same(scopesOf(await postern.signIn(email)), [])
  })

  await t.test('a resource that is deleted takes all that is on it', async (t) => {
    await api.resources.delete('folder')
    t.equal(await refusalOf(api.resources.get('folder')), '404 NOT_FOUND')
    t.same((await api.resources.get('document')).relations, {})
    t.equal((await api.resourceRoles.get('document', 'editor')).granted_to, null)
  })
})

t.test('clients of other habits keep the policy too', async (t) => {
  const postern = await buildTestApp(t)
  const python = await pythonClient(postern)
  const S = '/v2/schema/default/default'
  const put = async (path: string, body: Json) => (await python.put(`${S}${path}`, body)).json<Json>()
  const post = async (path: string, body: Json) => (await python.post(`${S}${path}`, body)).json<Json>()

  await t.test('nulls say nothing, ids have no dashes, bodies are empty', async (t) => {
    const resource = await post('/resources', {
      key: 'post',
      name: 'Post',
      urn: null,
      description: null,
      actions: { read: { name: null, description: null, attributes: null } },
      attributes: null,
      roles: null,
      relations: null,
      surplus: 1,
    })
    t.match(resource, { key: 'post', actions: { read: { name: 'read' } } })
    const role = await post('/roles', {
      key: 'reader',
      name: 'Reader',
      description: 'Reads',
      permissions: null,
      attributes: null,
      extends: null,
      granted_to: null,
    })
    t.same([role.permissions, role.extends], [[], []])
    const id = String(role['id']).replaceAll('-', '')
    t.match((await python.get(`${S}/roles/${id}`)).json(), { key: 'reader' })
    const changed = await python.patch(`${S}/roles/${id.toUpperCase()}`, { permissions: null, name: null })
    t.match(changed.json(), { name: 'Reader', description: 'Reads' })
    t.match((await python.patch(`${S}/roles/reader`, { description: null })).json(), { description: null })
    matchEach(t, (await python.get(`${S}/roles`)).json(), [{ key: 'reader' }])
    const attribute = await post('/users/attributes', { key: 'age', type: 'number', description: null })
    t.match((await python.get(`${S}/resources/__user/attributes/${String(attribute['id'])}`)).json(), {
      key: 'age',
    })
    t.equal((await python.delete(`${S}/users/attributes/age`)).statusCode, 204)
  })

  await t.test('the older paths of inheritance', async (t) => {
    for (const key of ['a', 'b', 'c']) await post('/roles', { key, name: key })
    t.match(await put('/roles/a/parents/b', {}), { key: 'a', extends: ['b'] })
    t.match(await put('/roles/b/parents/c', {}), { extends: ['c'] })
    const cycle = await python.put(`${S}/roles/c/parents/a`)
    t.match([cycle.statusCode, cycle.json()], [400, { error_code: 'INVALID_INPUT', message: String }])
    matchEach(t, (await python.get(`${S}/roles/a/ancestors`)).json(), [{ key: 'b' }, { key: 'c' }])
    matchEach(t, (await python.get(`${S}/roles/c/descendants`)).json(), [{ key: 'a' }, { key: 'b' }])
    t.same((await python.delete(`${S}/roles/a/parents/b`)).json().extends, [])
    t.same((await python.get(`${S}/roles/a/ancestors`)).json(), [])
    t.equal((await python.put(`${S}/roles/a/parents/ADMIN`)).statusCode, 404)
  })

  await t.test('many roles at once, of tenants and of resources, all or none', async (t) => {
    const operations = [
      { key: 'reader', name: 'Reader', permissions: ['post:read'] },
      { key: 'author', name: 'Author', extends: ['reader'] },
      { key: 'author', name: 'Author', resource: 'post', permissions: ['read'] },
    ]
    t.same(await put('/bulk/roles', { operations }), { created: ['author', 'author'], updated: ['reader'] })
    t.match((await python.get(`${S}/resources/post/roles/author`)).json(), { permissions: ['read'] })
    const wrong = [
      { key: 'reader', name: 'R' },
      { key: 'x', permissions: ['post:fly'] },
    ]
    t.match(await put('/bulk/roles', { operations: wrong }), { error_code: 'NOT_FOUND' })
    t.match((await python.get(`${S}/roles/reader`)).json(), { name: 'Reader', permissions: ['post:read'] })
    t.match(await put('/bulk/roles', { operations: [{ key: 'ADMIN', name: 'x' }] }), {
      error_code: 'DUPLICATE_ENTITY',
    })
  })

  await t.test('pages stay as they are while there is more, and have a largest size', async (t) => {
    const keys = async (query: string) =>
      (await python.get(`${S}/roles?${query}`)).json<{ key: string }[]>().map(({ key }) => key)
    const [first, second] = [await keys('page=1&per_page=2'), await keys('page=2&per_page=2')]
    await post('/roles', { key: '0', name: 'Sorts first' })
    t.same([await keys('page=1&per_page=2'), await keys('page=2&per_page=2')], [first, second])
    t.match((await python.get(`${S}/roles?per_page=101`)).json(), {
      error_code: 'PAGINATION_SIZE_OVERREACHED',
      message: /100/,
    })
  })

  await t.test('a key that may only read changes nothing', async (t) => {
    const reader = await pythonClient(postern, 'read')
    t.equal((await reader.get(`${S}/resources/post`)).statusCode, 200)
    for (const [method, path, body] of [
      ['POST', '/roles', { key: 'mine', name: 'Mine' }],
      ['DELETE', '/roles/reader', undefined],
      ['PUT', '/bulk/roles', { operations: [] }],
      ['PATCH', '/resources/post', { name: 'Mine' }],
      ['DELETE', '/resources/post/actions/read', undefined],
    ] as const) {
      const { statusCode } = await reader.send(method, `${S}${path}`, body)
      t.equal(statusCode, 403, `${method} ${path}`)
    }
    t.equal((await python.get('/v2/schema/default/nowhere/roles')).statusCode, 403)
  })
})

/** The scopes that a token carries. */
const scopesOf = (token: string): string[] => {
  const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()
  return (JSON.parse(payload) as { scope?: string }).scope?.split(' ').filter(Boolean) ?? []
}

/** The status and code that a call is refused with. */
async function refusalOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'done'
  } catch (error) {
    if (!(error instanceof PermitApiError)) throw error
    return `${error.response?.status} ${error.response?.data.error_code}`
  }
}
