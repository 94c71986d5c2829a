import t from 'tap'
import { anApiKey, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { aClient, basic, sendForm } from '../helpers/oauth.ts'
import { listenForSdk, refusalOf, sdk } from '../helpers/permit.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const ORGANIZATION = '00000000-0000-7000-8000-000000000003'

const POLICY = {
  version: 1,
  resources: {
    folder: { actions: ['read'], roles: { owner: { permissions: ['read'] } } },
    document: {
      actions: ['read', 'write'],
      attributes: { secret: 'bool' },
      action_groups: { all: ['read', 'write'] },
      relations: { parent: 'folder' },
      roles: {
        reader: { permissions: ['read'], derived_from: [{ role: 'owner', on: 'folder', via: 'parent' }] },
      },
    },
  },
  user_attributes: { level: 'number' },
  roles: { editor: { permissions: ['document:write'] }, admin: { extends: ['editor'] } },
  user_sets: { seniors: { conditions: { 'user.level': { 'greater-than': 3 } } } },
  resource_sets: {
    open: { resource: 'document', conditions: { 'resource.secret': { equals: false } } },
  },
  rules: [{ user_set: 'seniors', permissions: ['document:read'], resource_set: 'open' }],
}

t.test('the Node SDK keeps projects and environments', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const { url } = await listenForSdk(t, postern)
  const organization = await anApiKey(postern, { level: 'org' })
  const { api } = sdk(url, organization.key)
  const policyOf = async (name: string) =>
    (await root.get('/api/v1/policy', inEnvironment(name))).json<Record<string, unknown>>()

  await t.test('a project comes with two environments', async (t) => {
    const shop = await api.projects.create({ key: 'shop', name: 'Shop', description: 'Sells' })

    t.match(shop, {
      key: 'shop',
      id: UUID,
      organization_id: ORGANIZATION,
      name: 'Shop',
      description: 'Sells',
      urn_namespace: null,
      active_policy_repo_id: null,
      created_at: /Z$/,
    })
    t.same(shop.settings, {})
    t.same(
      (await api.projects.list()).map(({ key }) => key),
      ['default', 'shop'],
    )
    for (const name of ['shop', shop.id, shop.id.replaceAll('-', '')])
      t.same(await api.projects.get(name), shop)
    matchEach(t, await api.environments.list({ projectKey: 'shop' }), [
      { key: 'dev', name: 'Development', project_id: shop.id, custom_branch_name: null, jwks: null },
      { key: 'prod', name: 'Production' },
    ])
    t.match(await api.projects.update('shop', { name: 'The shop' }), { id: shop.id, name: 'The shop' })
    t.equal(await refusalOf(api.projects.create({ key: 'shop', name: 'x' })), '409 DUPLICATE_ENTITY')
    t.equal(await refusalOf(api.projects.get('nowhere')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.projects.delete('default')), '403 FORBIDDEN_ACCESS')
    t.equal((await api.projects.get('default')).key, 'default')
  })

  await t.test('environments are made, found, changed and deleted', async (t) => {
    const made = await api.environments.create('shop', { key: 'staging', name: 'Staging' })

    t.match(made, { key: 'staging', id: UUID, organization_id: ORGANIZATION, description: null })
    for (const name of ['staging', made.id, made.id.replaceAll('-', '').toUpperCase()])
      t.same(await api.environments.get('shop', name), made)
    t.same(await api.environments.getById(made.project_id, made.id), made)
    t.match(await api.environments.update('shop', 'staging', { description: 'Before prod' }), {
      name: 'Staging',
      description: 'Before prod',
    })
    const { id, pdp_configs, stats } = await api.environments.getStats('shop', 'staging')
    t.same(
      { id, pdp_configs, stats },
      {
        id: made.id,
        pdp_configs: [],
        stats: {
          roles: 0,
          users: 0,
          resources: 0,
          tenants: 1,
          policies: 0,
          has_decision_logs: false,
          members: [],
        },
      },
    )
    matchEach(
      t,
      (await organization.client.get('/v2/facts/shop/staging/tenants')).json(),
      [{ key: 'default', environment_id: made.id }],
      'and hold one tenant',
    )
    t.equal(
      await refusalOf(api.environments.create('shop', { key: 'staging', name: 'x' })),
      '409 DUPLICATE_ENTITY',
    )
    for (const key of [made.id, made.id.replaceAll('-', '')])
      t.equal(
        await refusalOf(api.environments.create('shop', { key, name: 'x' })),
        '409 DUPLICATE_ENTITY',
        'a key that is the id of another',
      )
    t.equal(await refusalOf(api.environments.create('nowhere', { key: 'x', name: 'x' })), '404 NOT_FOUND')
    t.equal(await refusalOf(api.environments.get('default', 'staging')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.environments.delete('default', 'default')), '403 FORBIDDEN_ACCESS')
    await api.environments.delete('shop', 'staging')
    t.equal(await refusalOf(api.environments.get('shop', made.id)), '404 NOT_FOUND')
    t.equal((await organization.client.get('/v2/facts/shop/staging/tenants')).statusCode, 404)
  })

  await t.test('a policy is copied whole, without facts, and can be copied over another one', async (t) => {
    await root.post('/api/v1/policy', POLICY, inEnvironment('shop/dev'))
    await organization.client.post('/v2/facts/shop/dev/tenants', { key: 'acme', name: 'Acme' })

    const copied = await api.environments.copy('shop', 'dev', {
      target_env: { new: { key: 'copy', name: 'Copy' } },
    })

    t.match(copied, { key: 'copy', name: 'Copy', id: UUID })
    t.same(await policyOf('shop/copy'), await policyOf('shop/dev'))
    matchEach(t, (await organization.client.get('/v2/facts/shop/copy/tenants')).json(), [{ key: 'default' }])
    t.match(await api.environments.getStats('shop', 'copy'), {
      stats: { roles: 4, users: 0, resources: 2, tenants: 1, policies: 1 },
    })

    const own = { ...POLICY, roles: { ...POLICY.roles, editor: {}, extra: {} } }
    await root.post('/api/v1/policy', own, inEnvironment('shop/prod'))
    const toProd = { target_env: { existing: 'prod' } }
    const before = await policyOf('shop/prod')
    t.equal(await refusalOf(api.environments.copy('shop', 'dev', toProd)), '409 DUPLICATE_ENTITY')
    t.same(await policyOf('shop/prod'), before)
    await api.environments.copy('shop', 'dev', { ...toProd, conflict_strategy: 'overwrite' })
    t.same(await policyOf('shop/prod'), {
      ...(await policyOf('shop/dev')),
      roles: { ...POLICY.roles, extra: {} },
    })
    const events = (await root.get('/api/v1/audit-events?action=policy.applied')).json<object[]>()
    t.equal(events.length, 0, 'the trail of the default environment has nothing of it')

    const narrow = await aClient(postern, { scopes: ['postern.environments:write', 'postern.policy:read'] })
    const issued = await sendForm(
      postern,
      '/oauth2/token',
      { grant_type: 'client_credentials' },
      basic(narrow),
    )
    const machine = postern.as(issued.json<{ access_token: string }>().access_token)
    const over = { ...toProd, conflict_strategy: 'overwrite' }
    const refused = await machine.post('/v2/projects/shop/envs/dev/copy', over)
    t.equal(refused.statusCode, 403, 'of environments, but not of what is in them')
  })

  await t.test('what is copied can be chosen', async (t) => {
    const copy = async (key: string, scope: object) =>
      await api.environments.copy('shop', 'dev', { target_env: { new: { key, name: key } }, scope })
    const none = { exclude: ['*'] }

    await copy('some', { resources: { include: ['f*r'] }, roles: none, user_sets: none, resource_sets: none })
    t.match(await policyOf('shop/some'), {
      resources: { folder: Object },
      user_attributes: { level: 'number' },
    })
    t.strictSame(Object.keys((await policyOf('shop/some'))['resources'] as object), ['folder'])
    t.notOk((await policyOf('shop/some'))['roles'])
    await copy('roleless', { roles: { exclude: ['edi*', 'a*n'] } })
    t.match(await policyOf('shop/roleless'), { resources: POLICY.resources, rules: POLICY.rules })
    t.notOk((await policyOf('shop/roleless'))['roles'])

    t.match(
      await refusalOf(copy('dangling', { resources: { include: ['document'] } })),
      /^422/,
      'but nothing that refers to what would not be there',
    )
    t.equal(await refusalOf(api.environments.get('shop', 'dangling')), '404 NOT_FOUND', 'and then nothing is')
  })

  await t.test('a copy is refused that cannot be', async (t) => {
    const copies = '/v2/projects/shop/envs/dev/copy'
    const { client } = organization
    for (const [body, status] of [
      [{ target_env: { existing: 'dev' } }, 422],
      [{ target_env: { existing: 'nowhere' } }, 404],
      [{ target_env: { new: { key: 'prod', name: 'x' } } }, 409],
      [{ target_env: {} }, 422],
      [{ target_env: { existing: 'prod', new: { key: 'x', name: 'x' } } }, 422],
      [{ target_env: { existing: 'prod', new: null }, conflict_strategy: 'magic' }, 422],
      [{ target_env: { new: { key: 'a.b', name: 'x' } } }, 422],
      [{}, 422],
      [undefined, 422],
    ] as const)
      t.equal((await client.post(copies, body)).statusCode, status, JSON.stringify(body))
    const other = await root.post('/api/v1/environments', { key: 'elsewhere', name: 'Elsewhere' })
    const { id } = other.json<{ id: string }>()
    t.equal((await client.post(copies, { target_env: { existing: id } })).statusCode, 404, 'another project')
    await root.post(
      '/api/v1/policy',
      { version: 1, resources: { document: { relations: { parent: 'document' } }, folder: {} } },
      inEnvironment('shop/some'),
    )
    const over = { target_env: { existing: 'some' }, conflict_strategy: 'overwrite' }
    t.match((await client.post(copies, over)).json(), {
      error_code: 'DUPLICATE_ENTITY',
      message: /document#parent/,
    })
  })

  await t.test('pages and Python’s habits', async (t) => {
    const json = { 'content-type': 'application/json' }
    const { client } = organization
    const page = await client.get('/v2/projects/shop/envs?page=2&per_page=2&include_total_count=true', json)
    t.match(page.json(), { total_count: 5, page_count: 3 })
    t.equal(page.json().data.length, 2)
    t.match((await client.get('/v2/projects?include_total_count=true')).json(), { total_count: 2 })
    t.match((await client.get('/v2/projects?per_page=101')).json(), {
      error_code: 'PAGINATION_SIZE_OVERREACHED',
    })
    const nulls = { name: null, description: null, settings: null, jwks: null }
    for (const [path, name] of [
      ['/v2/projects/shop', 'The shop'],
      ['/v2/projects/shop/envs/dev', 'Development'],
    ] as const) {
      t.match((await client.patch(path, { description: 'Old' })).json(), { name, description: 'Old' })
      t.match((await client.patch(path, nulls)).json(), { name, description: null })
    }
    const made = await client.post('/v2/projects', { key: 'p2', name: 'P', urn_namespace: null, extra: 1 })
    t.match(made.json(), { key: 'p2', description: null })
    for (const path of [
      '/v2/projects/a%2Fb',
      '/v2/projects/%00',
      '/v2/projects/shop/envs/a%2Fb',
      '/v2/projects/-/envs',
    ])
      t.equal((await client.get(path)).statusCode, 404, path)
    t.equal((await client.delete('/v2/projects/p2', json)).statusCode, 204, 'its environments go along')
    t.equal((await client.get('/v2/projects/p2/envs/dev')).statusCode, 404)
    t.equal((await root.get('/api/v1/environments?project=p2')).json<object[]>().length, 0)
  })

  await t.test(
    'what has no meaning here is accepted, and the answer shows that it is not kept',
    async (t) => {
      const { client } = organization
      const [F, S] = ['/v2/facts/lost/dev', '/v2/schema/lost/dev']
      const settings = { theme: 'dark' }
      const repository = '0192f4d1-0000-7000-8000-00000000dead'
      const place = { name: 'Lost', settings }
      const project = { ...place, urn_namespace: 'urn:lost', active_policy_repo_id: repository }
      const environment = { ...place, custom_branch_name: 'main', jwks: { ttl: 60, url: 'https://x.test' } }
      const noProject = { settings: {}, urn_namespace: null, active_policy_repo_id: null }
      const noEnvironment = { settings: {}, custom_branch_name: null, jwks: null }
      for (const [method, path, body, shown] of [
        ['POST', '/v2/projects', { ...project, key: 'lost' }, noProject],
        ['PATCH', '/v2/projects/lost', project, noProject],
        ['POST', '/v2/projects/lost/envs', { ...environment, key: 'more' }, noEnvironment],
        ['PATCH', '/v2/projects/lost/envs/dev', environment, noEnvironment],
        [
          'POST',
          '/v2/api-key',
          { project_id: 'lost', environment_id: 'dev', owner_type: 'pdp_config' },
          { owner_type: 'member' },
        ],
        [
          'POST',
          `${S}/condition_sets`,
          { key: 'set', name: 'Set', conditions: {}, autogenerated: true },
          { autogenerated: false },
        ],
        [
          'POST',
          `${F}/proxy_configs`,
          { key: 'proxy', name: 'Proxy', secret: 's3cret', auth_mechanism: 'Basic' },
          { secret: '', auth_mechanism: 'Bearer' },
        ],
        ['PUT', `${F}/users/ida`, { key: 'other', roles: [{ role: 'x' }] }, { key: 'ida', roles: [] }],
      ] as const) {
        const answer = await client.send(method, path, body)
        t.ok([200, 201].includes(answer.statusCode), `${method} ${path} ${answer.body}`)
        const said = answer.json<Record<string, unknown>>()
        for (const [field, value] of Object.entries(shown))
          t.strictSame(said[field], value, `${method} ${path} ${field}`)
      }
      t.equal((await client.get(`${F}/users/other`)).statusCode, 404)
      await client.post(`${S}/resources`, { key: 'document', name: 'Document', actions: {} })
      const resources = await client.get(`${S}/resources?include_built_in=true`)
      t.same(
        resources.json<{ key: string }[]>().map(({ key }) => key),
        ['document'],
      )
      await client.post(`${F}/resource_instances`, { key: 'd', resource: 'document', tenant: 'default' })
      for (const [attributes, shown] of [
        [{ a: 1 }, { a: 1 }],
        [undefined, { a: 1 }],
        [null, {}],
      ]) {
        const instance = await client.patch(`${F}/resource_instances/document:d`, { attributes })
        t.strictSame(instance.json<{ attributes: object }>().attributes, shown)
      }
      t.equal((await client.delete('/v2/projects/lost')).statusCode, 204)
    },
  )

  await t.test('of many creations of one project one is done, with its environments', async (t) => {
    const { client } = organization
    const made = await Promise.all(
      [1, 2, 3, 4].map(async () => await client.post('/v2/projects', { key: 'race', name: 'Race' })),
    )

    t.same(made.map(({ statusCode }) => statusCode).sort(), [200, 409, 409, 409])
    t.equal((await client.get('/v2/projects/race/envs')).json<object[]>().length, 2)
  })

  await t.test('elements are not offered', async (t) => {
    const { elements } = sdk(url, organization.key)
    t.equal(await refusalOf(elements.loginAs({ userId: 'ada', tenantId: 'acme' })), '501 UNEXPECTED_ERROR')
  })
})

t.test('who reaches what', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  for (const key of ['shop', 'blog']) {
    await root.post('/api/v1/projects', { key, name: key })
    for (const environment of ['default', 'dev', 'live'])
      if (!(key === 'shop' && environment === 'default'))
        await root.post('/api/v1/environments', { project: key, key: environment, name: environment })
  }
  const ofOrganization = (await anApiKey(postern, { level: 'org' })).client
  const ofOrganizationReading = (await anApiKey(postern, { level: 'org', access: 'read' })).client
  const ofShop = (await anApiKey(postern, { level: 'project', project: 'shop' })).client
  const ofShopReading = (await anApiKey(postern, { level: 'project', project: 'shop', access: 'read' }))
    .client
  const ofDev = (await anApiKey(postern, { environment: 'shop/dev' })).client
  const ofDevReading = (await anApiKey(postern, { environment: 'shop/dev', access: 'read' })).client
  const admin = (await person('ADMIN')).client
  const keysOf = async (client: Client, path: string) =>
    (await client.get(path)).json<{ key: string }[]>().map(({ key }) => key)

  await t.test('each sees the projects and environments that it opens', async (t) => {
    for (const client of [ofOrganization, ofOrganizationReading, root]) {
      t.same(await keysOf(client, '/v2/projects'), ['default', 'shop', 'blog'])
      t.same(await keysOf(client, '/v2/projects/shop/envs'), ['dev', 'live'])
    }
    for (const client of [ofShop, ofShopReading]) {
      t.same(await keysOf(client, '/v2/projects'), ['shop'])
      t.same(await keysOf(client, '/v2/projects/shop/envs'), ['dev', 'live'])
      for (const path of [
        'blog',
        'blog/envs',
        'blog/envs/dev',
        'blog/envs/dev/stats',
        'default/envs/default',
      ])
        t.equal((await client.get(`/v2/projects/${path}`)).statusCode, 404, path)
    }
    for (const client of [ofDev, ofDevReading]) {
      t.same(await keysOf(client, '/v2/projects'), ['shop'])
      t.same(await keysOf(client, '/v2/projects/shop/envs'), ['dev'])
      t.equal((await client.get('/v2/projects/shop/envs/dev/stats')).statusCode, 200)
      for (const path of ['blog', 'shop/envs/live', 'shop/envs/live/stats', 'blog/envs/dev'])
        t.equal((await client.get(`/v2/projects/${path}`)).statusCode, 404, path)
    }
    t.same(await keysOf(admin, '/v2/projects'), ['default'], 'an administrator only where they sign in')
    t.same(await keysOf(admin, '/v2/projects/default/envs'), ['default'])
    t.equal((await admin.get('/v2/projects/shop')).statusCode, 404)
  })

  await t.test('and writes no others', async (t) => {
    const live = '/v2/projects/shop/envs/live'
    for (const [method, path, body] of [
      ['POST', '/v2/projects', { key: 'x', name: 'x' }],
      ['PATCH', '/v2/projects/shop', { name: 'x' }],
      ['DELETE', '/v2/projects/shop'],
      ['POST', '/v2/projects/shop/envs', { key: 'x', name: 'x' }],
      ['PATCH', '/v2/projects/shop/envs/dev', { name: 'x' }],
      ['DELETE', '/v2/projects/shop/envs/dev'],
      ['POST', '/v2/projects/shop/envs/dev/copy', { target_env: { existing: 'live' } }],
    ] as const)
      for (const client of [ofDev, ofDevReading, ofShopReading, ofOrganizationReading, admin])
        t.match(
          (await client.send(method, path, body)).json(),
          { error_code: 'FORBIDDEN_ACCESS' },
          `${method} ${path}`,
        )
    for (const [method, path, body, status] of [
      ['POST', '/v2/projects', { key: 'x', name: 'x' }, 403],
      ['PATCH', '/v2/projects/blog', { name: 'x' }, 404],
      ['DELETE', '/v2/projects/blog', undefined, 404],
      ['POST', '/v2/projects/blog/envs', { key: 'x', name: 'x' }, 404],
      ['PATCH', '/v2/projects/blog/envs/dev', { name: 'x' }, 404],
      ['DELETE', '/v2/projects/blog/envs/dev', undefined, 404],
      ['POST', '/v2/projects/blog/envs/dev/copy', { target_env: { new: { key: 'x', name: 'x' } } }, 404],
    ] as const)
      t.equal((await ofShop.send(method, path, body)).statusCode, status, `${method} ${path}`)
    t.equal((await ofShop.patch(live, { name: 'Live' })).statusCode, 200)
    t.equal((await root.patch('/v2/projects/blog', { name: 'Blog' })).statusCode, 200)
  })

  await t.test('a key of one environment is refused on every path of another', async (t) => {
    const prefixes = [
      'facts/P/E/users',
      'facts/P/E/users/x',
      'facts/P/E/tenants',
      'facts/P/E/role_assignments',
      'facts/P/E/resource_instances',
      'facts/P/E/relationship_tuples',
      'facts/P/E/set_rules',
      'schema/P/E/resources',
      'schema/P/E/roles',
      'schema/P/E/condition_sets',
    ]
    for (const [project, environment] of [
      ['shop', 'live'],
      ['blog', 'dev'],
      ['default', 'default'],
      ['nowhere', 'dev'],
      ['shop', 'nowhere'],
      ['shop', '%00'],
      ['dev', 'dev'],
    ])
      for (const prefix of prefixes) {
        const path = `/v2/${prefix.replace('P', project ?? '').replace('E', environment ?? '')}`
        for (const headers of [{}, inEnvironment('shop/dev')]) {
          const response = await ofDev.get(path, headers)
          t.match([response.statusCode, response.json()], [403, { error_code: 'FORBIDDEN_ACCESS' }], path)
        }
      }
    t.equal((await ofShop.get('/v2/facts/blog/dev/users')).statusCode, 403)
    t.equal((await ofShop.get('/v2/facts/shop/nowhere/users')).statusCode, 404)
    t.equal((await ofOrganization.get('/v2/facts/shop/nowhere/users')).statusCode, 404)
    t.equal((await admin.get('/v2/facts/shop/dev/users')).statusCode, 403)
    t.equal(
      (await ofOrganization.get('/v2/facts/shop/dev/users', inEnvironment('blog/dev'))).statusCode,
      403,
      'nor may path and header name two',
    )
  })

  await t.test('a key of a project needs no default environment', async (t) => {
    const { id } = (await ofShop.get('/v2/projects/shop')).json<{ id: string }>()
    t.same((await ofShop.get('/v2/api-key/scope')).json(), {
      organization_id: ORGANIZATION,
      project_id: id,
      environment_id: null,
    })
    t.same((await ofOrganization.get('/v2/api-key/scope')).json(), {
      organization_id: ORGANIZATION,
      project_id: null,
      environment_id: null,
    })
    t.match((await ofDev.get('/v2/api-key/scope')).json(), { project_id: id, environment_id: UUID })
    t.match((await root.get('/v2/api-key/scope')).json(), {
      environment_id: '00000000-0000-7000-8000-000000000001',
    })
    t.match((await root.get('/v2/api-key/scope', inEnvironment('shop/dev'))).json(), { project_id: id })
    t.equal((await ofShop.put('/v2/facts/shop/dev/users/ada', {})).statusCode, 201)
    t.match((await root.get('/v2/facts/shop/dev/users/ada')).json(), { project_id: id })
    t.equal((await ofDev.get('/v2/facts/shop/dev/users/ada')).statusCode, 200)
  })

  await t.test('a version that is demanded is one of the environment in the path', async (t) => {
    let token = ''
    for (let n = 0; n < 5; n++) {
      const written = await ofOrganization.put(`/v2/facts/blog/live/users/u${n}`, {})
      token = String(written.headers['x-postern-consistency'])
    }
    t.match(token, /^[0-9a-f-]{36}\.\d+$/)
    const demanding = { 'x-postern-consistency': token }
    t.equal((await ofOrganization.get('/v2/facts/blog/live/users', demanding)).statusCode, 200)
    t.equal((await ofOrganization.get('/v2/projects', demanding)).statusCode, 200, 'projects have none')
    const far = { 'x-postern-consistency': '900000000' }
    t.equal((await ofOrganization.get('/v2/facts/blog/live/users', far)).statusCode, 400)
    t.equal((await ofOrganization.get('/v2/projects', far)).statusCode, 200)
  })
})
