import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, clientOf, type Method } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { listenForSdk, refusalOf, sdk } from '../helpers/permit.ts'

const SILENT = { log: { level: 'silent' } } as const

t.test('what applications do with it from beginning to end', async (t) => {
  const postern = await buildTestApp(t)
  const { url } = await listenForSdk(t, postern)
  const organization = sdk(url, (await anApiKey(postern, { level: 'org' })).key, SILENT).api
  await organization.projects.create({ key: 'flows', name: 'Flows' })
  let environments = 0

  /** A clean environment: its key, and requests as the Python SDK sends them. */
  async function open() {
    const key = `e${++environments}`
    await organization.environments.create('flows', { key, name: key })
    const { secret = '' } = await organization.environments.getApiKey('flows', key)
    const inject = clientOf(
      async ({ headers, ...options }) =>
        await postern.app.inject({
          ...options,
          headers: { 'content-type': 'application/json', ...headers, authorization: `bearer ${secret}` },
        }),
    )
    /** The status, and what the answer says. */
    const python = async (method: Method, path: string, body?: unknown) => {
      const full = path.replace(/^F\//, `/v2/facts/flows/${key}/`).replace(/^S\//, `/v2/schema/flows/${key}/`)
      const { statusCode, body: said } = await inject.send(method, full, body)
      return { status: statusCode, said: said === '' ? undefined : JSON.parse(said) }
    }
    return { secret, permit: sdk(url, secret, SILENT), python }
  }

  await t.test('roles in tenants, by Python', async (t) => {
    const { python, permit } = await open()
    const ok = async (method: Method, path: string, body?: unknown, status = 200) => {
      const answer = await python(method, path, body)
      t.equal(answer.status, status, `${method} ${path} ${JSON.stringify(answer.said)}`)
      return answer.said
    }
    for (const [path, expected] of [
      ['S/roles', []],
      ['S/resources', []],
      ['F/tenants', [{ key: 'default' }]],
    ] as const) {
      const shown = await ok('GET', path)
      t.equal(shown.length, expected.length, 'an environment begins empty')
      t.match(shown, expected)
    }
    const none = { description: null, urn: null, attributes: null, roles: null, relations: null }
    const document = await ok('POST', 'S/resources', {
      key: 'Document',
      name: 'Document',
      ...none,
      urn: 'prn:gdrive:document',
      actions: {
        create: { name: null, description: null, attributes: null },
        'read-it': {},
        update_it: {},
      },
    })
    t.match(document, { urn: 'prn:gdrive:document', description: null })
    t.same([document.relations, document.roles], [{}, {}])
    t.same(Object.keys(document.actions).sort(), ['create', 'read-it', 'update_it'])
    t.equal((await python('POST', 'S/resources', { key: 'Document', name: 'x', actions: {} })).status, 409)

    const admin = await ok('POST', 'S/roles', {
      key: 'admin',
      name: 'Admin',
      description: 'an admin',
      permissions: ['Document:create', 'Document:read-it'],
      extends: null,
      granted_to: null,
    })
    t.match(admin, { description: 'an admin', granted_to: null })
    t.same(admin.extends, [])
    t.same((await ok('POST', 'S/roles', { key: 'viewer', name: 'Viewer' })).permissions, [])
    t.same(
      (await ok('POST', 'S/roles/viewer/permissions', { permissions: ['Document:read-it'] })).permissions,
      ['Document:read-it'],
    )
    const tenants = ['ten1', 'ten2'].map((key) => ({ key, name: key, description: null, attributes: null }))
    await ok('POST', 'F/bulk/tenants', { operations: tenants })
    t.equal((await ok('GET', 'F/tenants/ten1')).attributes, null)
    const users = ['asaf@x.test', 'auth0|john', 'auth0|jane'].map((key, n) => ({
      key,
      email: `user-${n}@x.test`,
      first_name: null,
      last_name: null,
      attributes: { age: 20 + n },
      role_assignments: null,
    }))
    await ok('PUT', 'F/bulk/users', { operations: users })
    t.equal((await ok('GET', 'F/users')).total_count, 3)
    const john = await ok('GET', 'F/users/auth0%7Cjohn')
    t.same([john.key, john.roles, john.associated_tenants], ['auth0|john', [], []])
    t.match(await ok('GET', 'F/users/auth0|john'), { key: 'auth0|john' }, 'Python encodes nothing')

    const held = (user: string, role: string, tenant: string) => ({
      user,
      role,
      tenant,
      resource_instance: null,
    })
    t.same(
      await ok('POST', 'F/role_assignments/bulk', [
        held('asaf@x.test', 'admin', 'ten1'),
        held('auth0|john', 'viewer', 'ten1'),
      ]),
      { assignments_created: 2 },
    )
    const own = { role: 'viewer', tenant: 'ten2', resource_instance: null }
    t.match(await ok('POST', 'F/users/auth0|jane/roles', own), { user: 'auth0|jane', ...own })
    t.equal((await python('POST', 'F/users/auth0|jane/roles', own)).status, 409)
    await ok('POST', 'F/users/asaf@x.test/roles', { ...own, role: 'admin' })
    t.equal((await ok('GET', 'F/tenants/ten1/users')).total_count, 2)
    t.equal((await ok('GET', 'F/role_assignments?user=asaf@x.test&tenant=ten1&detailed=false')).length, 1)
    t.equal((await ok('GET', 'F/role_assignments?user=asaf@x.test')).length, 2)

    const resource = { type: 'Document', tenant: 'ten1' }
    t.equal(await permit.check('auth0|john', 'read-it', resource), true)
    t.equal(await permit.check('auth0|john', 'create', resource), false)
    t.equal(await permit.check('auth0|john', 'read-it', { type: 'Document', tenant: 'ten2' }), false)
    const asked = [
      ['asaf@x.test', 'create'],
      ['auth0|jane', 'read-it'],
    ].map(([key, action]) => ({
      user: { key },
      action,
      resource: { ...resource, context: { tenant: 'ten1' } },
    }))
    t.match(await ok('POST', '/allowed/bulk', asked), { allow: [{ allow: true }, { allow: false }] })
    t.same(
      await ok('GET', '/local/role_assignments?user=auth0|jane'),
      [{ user: 'auth0|jane', role: 'viewer', tenant: 'ten2' }],
      'and no null',
    )
    const authorized = await ok('POST', '/authorized_users', {
      action: 'read-it',
      resource: { ...resource, key: null, attributes: null },
      context: {},
    })
    t.same(Object.keys(authorized.users).sort(), ['asaf@x.test', 'auth0|john'])

    await ok('DELETE', 'F/tenants/ten2/users/asaf@x.test', undefined, 204)
    const { data, total_count: members } = await ok('GET', 'F/tenants/ten2/users')
    t.equal(members, 2, 'who had a role stays a member')
    const asaf = data.find(({ key }: { key: string }) => key === 'asaf@x.test')
    t.same(asaf.roles, [])
    t.same(
      asaf.associated_tenants.map((of: { tenant: string; roles: string[] }) => [of.tenant, of.roles]),
      [['ten2', []]],
      'and a tenant shows what concerns it',
    )
    t.equal((await ok('GET', 'F/tenants/ten2/users?role=admin')).total_count, 0)
    t.equal((await ok('GET', 'F/tenants/ten1/users?role=admin')).total_count, 1)
    await ok('DELETE', 'F/users/auth0|jane/roles', own, 204)
    t.equal((await python('DELETE', 'F/users/auth0|jane/roles', own)).status, 404)
    t.same(
      await ok('DELETE', 'F/role_assignments/bulk', [
        held('asaf@x.test', 'admin', 'ten1'),
        held('auth0|john', 'viewer', 'ten1'),
      ]),
      { assignments_removed: 2 },
    )
    t.same(await ok('GET', 'F/role_assignments'), [])
    t.equal(await permit.check('auth0|john', 'read-it', resource), false)
    await ok('DELETE', 'F/bulk/users', { idents: users.map(({ key }) => key) })
    await ok('DELETE', 'F/bulk/tenants', { idents: ['ten1', 'ten2'] })
    for (const path of ['S/roles/admin', 'S/roles/viewer', 'S/resources/Document'])
      await ok('DELETE', path, undefined, 204)
    t.equal((await python('DELETE', 'S/roles/admin')).status, 404)
  })

  await t.test('documents in folders of accounts, by Node', async (t) => {
    const { permit } = await open()
    const { api } = permit
    await api.resources.create({
      key: 'account',
      name: 'Account',
      actions: { create: {}, invite_user: {}, view_members: {} },
      roles: {
        admin: { name: 'Admin', permissions: ['create', 'invite_user'] },
        member: { name: 'Member', permissions: ['view_members'] },
      },
    })
    await api.resources.create({
      key: 'folder',
      name: 'Folder',
      actions: { read: {}, rename: {} },
      relations: { account: 'account' },
    })
    await api.resources.create({
      key: 'document',
      name: 'Document',
      actions: { read: {}, comment: {}, update: {} },
    })
    for (const [role, permissions] of [
      ['viewer', ['read']],
      ['commenter', ['read', 'comment']],
      ['editor', ['read', 'comment', 'update']],
    ] as const) {
      await api.resourceRoles.create('document', { key: role, name: role, permissions: [...permissions] })
      await api.resourceRoles.create('folder', {
        key: role,
        name: role,
        permissions: role === 'editor' ? ['read', 'rename'] : ['read'],
        ...(role === 'editor' && {
          granted_to: {
            users_with_role: [{ role: 'admin', on_resource: 'account', linked_by_relation: 'account' }],
          },
        }),
      })
    }
    await api.resourceRelations.create('document', { key: 'parent', name: 'In', subject_resource: 'folder' })
    await Promise.all(
      ['viewer', 'commenter', 'editor'].map(
        async (role) =>
          await api.resourceRoles.createRoleDerivation('document', role, {
            role,
            on_resource: 'folder',
            linked_by_relation: 'parent',
          }),
      ),
    )
    for (const key of ['permit', 'cola']) await api.tenants.create({ key, name: key })
    await api.users.create({ key: 'ann', email: 'ann@x.test' })
    await api.users.create({ key: 'zoe' })
    const tuples = [
      ['folder:finance', 'parent', 'document:budget', 'permit'],
      ['folder:rnd', 'parent', 'document:plan', 'permit'],
      ['account:one', 'account', 'folder:finance', 'permit'],
      ['account:one', 'account', 'folder:rnd', 'permit'],
      ['folder:recipes', 'parent', 'document:secret', 'cola'],
      ['account:two', 'account', 'folder:recipes', 'cola'],
    ] as const
    await Promise.all(
      tuples.map(async ([subject, relation, object, tenant]) => {
        const tuple = { subject, relation, object, tenant }
        t.match(await api.relationshipTuples.create(tuple), tuple)
      }),
    )
    t.equal((await api.resourceInstances.list()).length, 8, 'each was made once')
    const may = async (user: string, action: string, ref: string, tenant = 'permit') => {
      const [type = '', key = ''] = ref.split(':')
      return await permit.check(user, action, { type, key, tenant })
    }
    const give = async (user: string, role: string, ref: string, tenant = 'permit') =>
      await api.roleAssignments.assign({ user, role, resource_instance: ref, tenant })

    await give('ann', 'viewer', 'document:plan')
    t.equal(await may('ann', 'read', 'document:plan'), true)
    t.equal(await may('ann', 'comment', 'document:plan'), false)
    await give('ann', 'commenter', 'folder:rnd')
    t.equal(await may('ann', 'comment', 'document:plan'), true)
    t.equal(await may('ann', 'update', 'document:plan'), false)
    t.equal(await may('ann', 'read', 'document:budget'), false)
    await give('ann', 'admin', 'account:one')
    await give('zoe', 'admin', 'account:two', 'cola')
    t.equal(await may('ann', 'rename', 'folder:finance'), true)
    t.equal(await may('ann', 'update', 'document:plan'), true)
    t.equal(await may('ann', 'read', 'document:secret', 'cola'), false)
    t.equal(await may('ann', 'read', 'document:secret'), false, 'nor under another name')
    t.equal(await may('zoe', 'update', 'document:secret', 'cola'), true)

    await t.test(
      'a role held directly keeps the derived one away, and what would follow from it',
      async (t) => {
        await api.resourceRoles.updateRoleDerivationConditions('folder', 'editor', {
          no_direct_roles_on_object: true,
        })
        t.equal(await may('ann', 'rename', 'folder:rnd'), false, 'she comments there')
        t.equal(await may('ann', 'update', 'document:plan'), false)
        t.equal(await may('ann', 'update', 'document:budget'), true, 'there she holds nothing herself')
        t.match(await permit.getUserPermissions('ann', ['permit'], [], ['document']), {
          'document:budget': { permissions: ['document:comment', 'document:read', 'document:update'] },
          'document:plan': { permissions: ['document:comment', 'document:read'] },
        })
      },
    )

    await t.test('it ends in the order that people end it in', async (t) => {
      await api.tenants.delete('cola')
      t.equal(await refusalOf(api.resourceInstances.get('document:secret')), '404 NOT_FOUND')
      t.same(await api.roleAssignments.list({ user: 'zoe' }), [])
      await api.tenants.delete('permit')
      for (const key of ['account', 'folder', 'document']) await api.resources.delete(key)
      await api.users.delete('ann')
      t.same(
        [
          await api.resources.list(),
          await api.resourceInstances.list(),
          await api.relationshipTuples.list({}),
        ],
        [[], [], []],
      )
    })
  })

  await t.test('lists of people, with a search that finds the one', async (t) => {
    const { api } = (await open()).permit
    await api.users.bulkUserCreate(Array.from({ length: 10 }, (_, n) => ({ key: `user-${n}` })))
    t.match(await api.users.list(), { total_count: 10, page_count: 1 })
    const paged = await api.users.list({ page: 1, perPage: 5 })
    t.same([paged.total_count, paged.data.length, paged.page_count], [10, 5, 2])
    const found = await api.users.list({ search: 'user-1' })
    t.same([found.total_count, found.data.map(({ key }) => key)], [1, ['user-1']])
  })

  await t.test('facts by way of the PDP, seen by the check that follows', async (t) => {
    const { secret, permit, python } = await open()
    await permit.api.resources.create({
      key: 'document',
      name: 'Document',
      actions: { read: {} },
      roles: { viewer: { name: 'Viewer', permissions: ['read'] } },
    })
    const local = sdk(url, secret, { ...SILENT, proxyFactsViaPdp: true, factsSyncTimeout: 10 })
    await local.api.tenants.create({ key: 'acme', name: 'Acme' })
    await local.api.users.sync({ key: 'ida' })
    await local.api.resourceInstances.create({ key: 'd', resource: 'document', tenant: 'acme' })
    const held = { user: 'ida', role: 'viewer', resource_instance: 'document:d' }
    await local.api.roleAssignments.waitForSync(5, 'fail').assign(held)
    t.equal(await local.check('ida', 'read', { type: 'document', key: 'd', tenant: 'acme' }), true)
    matchEach(t, (await python('GET', '/facts/role_assignments?user=ida')).said, [held])
    t.equal((await python('DELETE', '/facts/role_assignments', { ...held, tenant: null })).status, 204)
    t.equal(await local.check('ida', 'read', { type: 'document', key: 'd', tenant: 'acme' }), false)
  })

  await t.test('attributes decide, with ids without dashes', async (t) => {
    const { python, permit } = await open()
    const post = async (path: string, body: unknown) => {
      const { status, said } = await python('POST', path, body)
      t.equal(status, 200, JSON.stringify(said))
      return said
    }
    const hex = ({ id }: { id: string }) => id.replaceAll('-', '')
    const resource = await post('S/resources', {
      key: 'doc',
      name: 'Doc',
      actions: { sign: {} },
      attributes: { private: { type: 'bool', description: null } },
    })
    await post('S/resources/__user/attributes', { key: 'department', type: 'string', description: null })
    const users = await post('S/condition_sets', {
      key: 'engineers',
      name: 'Engineers',
      type: 'userset',
      resource_id: null,
      autogenerated: false,
      parent_id: null,
      conditions: { allOf: [{ 'user.department': { equals: 'Engineering' } }] },
    })
    const docs = await post('S/condition_sets', {
      key: 'private_docs',
      name: 'Private',
      type: 'resourceset',
      resource_id: hex(resource),
      conditions: { allOf: [{ 'resource.private': { equals: true } }] },
    })
    const [rule] = await post('F/set_rules', {
      user_set: hex(users),
      permission: 'doc:sign',
      resource_set: hex(docs),
      is_role: null,
      is_resource: null,
    })
    t.match(rule, { user_set: 'engineers', resource_set: 'private_docs', permission: 'doc:sign' })
    const sign = async (department: string, isPrivate: boolean) =>
      await permit.check({ key: 'eve', attributes: { department } }, 'sign', {
        type: 'doc',
        attributes: { private: isPrivate },
      })
    t.equal(await sign('Engineering', true), true)
    t.equal(await sign('Engineering', false), false)
    t.equal(await sign('Sales', true), false)
    t.equal((await python('DELETE', `S/condition_sets/${hex(users)}`)).status, 204)
    t.equal(await sign('Engineering', true), false)
    t.same((await python('GET', 'F/set_rules')).said, [])
  })

  await t.test('a change that says nothing, or nothing but nulls, is no error', async (t) => {
    const { python } = await open()
    const nothing = {
      name: null,
      description: null,
      attributes: null,
      urn: null,
      actions: null,
      relations: null,
      roles: null,
      permissions: null,
      extends: null,
      granted_to: null,
      type: null,
      conditions: null,
      parent_id: null,
      email: null,
      first_name: null,
      last_name: null,
      role_assignments: null,
      mapping_rules: null,
      secret: null,
      auth_mechanism: null,
      settings: null,
      surplus: [{}],
    }
    for (const [list, body, name] of [
      ['S/resources', { key: 'doc', name: 'Doc', actions: { read: {} }, roles: { own: {} } }, 'doc'],
      ['S/resources/doc/actions', { key: 'edit', name: 'Edit' }, 'edit'],
      ['S/resources/doc/action_groups', { key: 'use', name: 'Use', actions: ['read'] }, 'use'],
      ['S/resources/doc/attributes', { key: 'size', type: 'number' }, 'size'],
      ['S/resources/doc/roles', { key: 'see', name: 'See', permissions: ['read'] }, 'see'],
      ['S/users/attributes', { key: 'age', type: 'number' }, 'age'],
      ['S/roles', { key: 'reader', name: 'Reader', permissions: ['doc:read'] }, 'reader'],
      ['S/condition_sets', { key: 'all', name: 'All', conditions: { 'user.age': { equals: 1 } } }, 'all'],
      ['F/tenants', { key: 'acme', name: 'Acme' }, 'acme'],
      ['F/users', { key: 'ida' }, 'ida'],
      ['F/resource_instances', { key: 'd', resource: 'doc', tenant: 'acme' }, 'doc:d'],
      ['F/proxy_configs', { key: 'gate', name: 'Gate', secret: '', mapping_rules: [] }, 'gate'],
    ] as const) {
      const made = await python('POST', list, { ...body, id: 'surplus', created_at: 'surplus' })
      t.equal(made.status, 200, `${list} ${JSON.stringify(made.said)}`)
      for (const change of [{}, nothing]) {
        const changed = await python('PATCH', `${list}/${name}`, change)
        t.equal(changed.status, 200, `${list}/${name} ${JSON.stringify(changed.said)}`)
        t.same(
          { ...changed.said, updated_at: '', last_action_at: '' },
          { ...made.said, updated_at: '', last_action_at: '' },
        )
      }
    }
    t.equal((await python('PUT', 'F/users/ida', { ...nothing, key: null })).status, 200)
    t.equal((await python('PUT', 'F/users/new', nothing)).status, 201)
    t.equal((await python('PUT', 'S/resources/doc', { ...nothing, name: 'Doc' })).status, 200)
    t.same((await python('GET', 'S/resources/doc')).said.actions, {}, 'but a replacement leaves nothing')
  })

  await t.test('names that nobody gave are not found, and break nothing', async (t) => {
    const { python } = await open()
    await python('POST', 'S/resources', { key: 'doc', name: 'Doc', actions: {} })
    const paths = [
      'F/users/N',
      'F/tenants/N',
      'F/tenants/N/users',
      'F/tenants/default/users/N',
      'F/resource_instances/N',
      'F/user_invites/N',
      'F/proxy_configs/N',
      'S/roles/N',
      'S/roles/N/ancestors',
      'S/resources/N',
      'S/resources/N/actions',
      'S/resources/doc/actions/N',
      'S/resources/doc/action_groups/N',
      'S/resources/doc/attributes/N',
      'S/resources/doc/relations/N',
      'S/resources/doc/roles/N',
      'S/users/attributes/N',
      'S/condition_sets/N',
      'S/condition_sets/N/ancestors',
      '/v2/projects/N',
      '/v2/projects/flows/envs/N',
      '/v2/api-key/N',
    ]
    const names = [
      '%00',
      '%F0%9F%94%A5',
      '%ED%A0%80',
      '..%2F..',
      '__proto__',
      "'--",
      'x:y:z',
      ':',
      '%20',
      'a'.repeat(600),
    ]
    for (const path of paths)
      for (const name of [...names, '0192f4d17d0e7c3a9d2b3f6a5c1e8b40'])
        for (const method of ['GET', 'PATCH', 'DELETE'] as const) {
          const { status, said } = await python(
            method,
            path.replace('N', name),
            method === 'PATCH' ? {} : undefined,
          )
          const what = `${method} ${path} ${name} ${status} ${JSON.stringify(said)}`
          if (![400, 403, 404, 405, 422].includes(status)) t.fail(what)
          else if (!said?.detail && !said?.error_code) t.fail(what)
        }
    for (const path of ['S/groups', 'F/nothing', '/facts/nothing', '/v2/orgs', '/v2/nothing/at/all']) {
      const { status, said } = await python('GET', path)
      t.match([status, said], [404, { error_code: 'NOT_FOUND', message: String, id: String }], path)
    }
  })
})
