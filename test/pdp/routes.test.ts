import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { anEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, pythonClient, storeExample } from '../helpers/permit.ts'
import { storeFacts } from '../policy/loading.ts'

const FACTS = {
  tenants: [{ key: 'acme', attributes: { tier: 'gold' } }, { key: 'globex' }],
  users: [
    {
      key: 'ada',
      email: 'ada@x.test',
      roles: [
        { role: 'reader', tenant: 'acme' },
        { role: 'reader', tenant: 'globex' },
      ],
    },
    {
      key: 'cyd',
      roles: [
        { role: 'owner', instance: 'folder:f1' },
        { role: 'owner', instance: 'folder:g1' },
      ],
    },
  ],
  instances: [
    { type: 'folder', key: 'f1', tenant: 'acme' },
    { type: 'folder', key: 'g1', tenant: 'globex' },
    { type: 'document', key: 'd1', tenant: 'acme', subjects: { parent: ['folder:f1'] } },
  ],
}
const question = (user: unknown, action: string, resource: object = {}) => ({
  user: typeof user === 'string' ? { key: user } : user,
  action,
  resource: { type: 'document', tenant: 'acme', ...resource },
})
const YES = { allow: true, result: true }
const NO = { allow: false, result: false }

t.test('the PDP', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, FACTS)
  const pdp = await pythonClient(postern)
  const reader = await pythonClient(postern, 'read')

  await t.test('answers a check in both spellings', async (t) => {
    const allowed = await pdp.post('/allowed', question('ada', 'read'))
    t.equal(allowed.statusCode, 200)
    t.same(allowed.json(), YES)
    t.same((await pdp.post('/allowed', question('ada', 'edit'))).json(), NO)
    t.same((await pdp.post('/v1/data/permit/root', { input: question('ada', 'read') })).json(), {
      result: YES,
    })
    t.same((await reader.post('/allowed', question('ada', 'read'))).json(), YES)
  })

  await t.test('ignores what it does not know, and takes an empty key for none', async (t) => {
    const whole = {
      id: '1',
      key: 'ada',
      email: null,
      first_name: null,
      roles: [{ role: 'x' }],
      attributes: null,
    }
    const body = {
      ...question(whole, 'read', { key: '', context: { tenant: 'acme' } }),
      sdk: 'python',
      context: null,
    }

    t.same((await pdp.post('/allowed', body)).json(), YES)
  })

  await t.test('takes null for no filter, as the Python SDK sends it', async (t) => {
    const permissionsOf = async (filters: object) =>
      Object.keys((await pdp.post('/user-permissions', { user: { key: 'ada' }, ...filters })).json())
    const none = { tenants: null, resources: null, resource_types: null, context: null }
    const all = await permissionsOf({})
    t.ok(all.includes('__tenant:acme'))
    t.same(await permissionsOf(none), all)
    t.same(await permissionsOf({ ...none, tenants: ['default'] }), [])
    t.same(await permissionsOf({ ...none, resource_types: ['document'] }), [])
    t.same(await permissionsOf({ ...none, user: { key: 'ada', email: null, attributes: null } }), all)
    const tenants = await pdp.post('/user-tenants', { user: { key: 'ada', email: null }, context: null })
    matchEach(t, tenants.json(), [{ key: 'acme' }, { key: 'globex' }])
  })

  await t.test('takes an account by id, and names in either spelling as attributes', async (t) => {
    const acme = await postern.services.accounts.findByKeyOrId('acme')
    t.same((await pdp.post('/allowed', question('ada', 'read', { tenant: acme?.id }))).json(), YES)

    const debug = async (user: object) =>
      (await pdp.post('/allowed', { ...question(user, 'read'), use_debugger: true })).json().debug.request
        .user.attributes
    t.match(await debug({ key: 'n', firstName: 'N', last_name: 'M' }), { first_name: 'N', last_name: 'M' })
  })

  await t.test('says why when it is asked to', async (t) => {
    const body = (await pdp.post('/allowed', { ...question('ada', 'read'), use_debugger: true })).json()
    t.match(body, { ...YES, allowing_sources: ['rbac'], debug: { rbac: { allow: true, code: 'allow' } } })
    t.match((await pdp.post('/allowed', { ...question('nobody', 'read'), use_debugger: true })).json(), {
      ...NO,
      debug: {
        request: { user: { key: 'nobody', synced: false }, tenant: 'acme', resource: { type: 'document' } },
        rbac: { code: 'user_not_synced', support_link: 'https://docs.permit.io/errors/user_not_synced' },
      },
    })
    t.notOk('debug' in (await pdp.post('/allowed', question('ada', 'read'))).json())

    const bulk = [
      question('ada', 'read'),
      { ...question('ada', 'edit'), use_debugger: true },
      { ...question('ada', 'read'), use_debugger: false },
      { ...question('ada', 'read'), use_debugger: true },
    ]
    const [first, second, third, fourth] = (await pdp.post('/allowed/bulk', bulk)).json().allow
    t.same([first, third], [YES, YES])
    t.match([second, fourth], {
      0: { ...NO, debug: { rbac: { code: 'no_permission' } } },
      1: { ...YES, debug: { rbac: { code: 'allow' } } },
    })
  })

  await t.test('explains the checks of a list that ask, until the reasons are very long', async (t) => {
    const wide = { key: 'wide', tenants: ['acme'], attributes: { notes: 'x'.repeat(300 * 1024) } }
    await storeFacts(postern.services, DEFAULT_ENVIRONMENT, { users: [wide] })
    const asked = { ...question('wide', 'read'), use_debugger: true }
    const bulk = Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? asked : question('ada', 'read')))
    const response = await pdp.post('/allowed/bulk', bulk)
    const { allow } = response.json<{ allow: { allow: boolean; debug?: object }[] }>()

    t.same(
      allow.map((one) => one.allow),
      bulk.map((one) => one !== asked),
    )
    const explained = allow.flatMap((one, place) => (one.debug ? [place] : []))
    t.same(
      explained,
      [...explained.keys()].map((n) => 2 * n),
      'those that ask, from the first on',
    )
    t.ok(explained.length > 20 && explained.length < 40, String(explained.length))
  })

  await t.test('is connected to itself, and tells how it is as OPA does', async (t) => {
    t.same((await reader.get('/control-plane/connectivity')).json(), {
      control_plane_connectivity_disabled: false,
      offline_mode_enabled: false,
    })
    for (const change of ['enable', 'disable']) {
      const refused = await pdp.post(`/control-plane/connectivity/${change}`)
      t.same(
        [refused.statusCode, refused.json()],
        [400, { detail: `Cannot ${change} control plane connectivity: offline mode is not enabled` }],
      )
    }
    for (const what of ['ready', 'healthy'])
      t.same((await reader.get(`/healthchecks/opa/${what}`)).json(), { result: true })
    t.same((await reader.get('/healthchecks/opa/system')).json(), { result: { ready: true, healthy: true } })
    t.same(
      (await postern.anonymous.get('/ready?check_cache=true')).json(),
      (await postern.anonymous.get('/ready')).json(),
    )
  })

  await t.test('derives a role of a tenant from nothing', async (t) => {
    const derived = {
      key: 'steward',
      name: 'Steward',
      granted_to: {
        users_with_role: [{ role: 'editor', on_resource: 'folder', linked_by_relation: 'parent' }],
      },
    }
    t.equal((await pdp.post('/v2/schema/default/default/roles', derived)).statusCode, 422)
    t.equal((await pdp.get('/v2/schema/default/default/roles/steward')).statusCode, 404)
  })

  await t.test('refuses what is no check with 422 and a detail', async (t) => {
    const wrong: [unknown, string][] = [
      [undefined, 'The request is required'],
      [[], 'The request must be an object'],
      [{ ...question('ada', 'read'), user: 'ada' }, 'user must be an object with a key'],
      [{ ...question('ada', 'read'), user: { key: '' } }, 'user.key must be a text that is not empty'],
      [{ ...question('ada', 'read'), user: { key: 5 } }, 'user.key must be a text that is not empty'],
      [{ ...question('ada', 'read'), action: {} }, 'action must be a text that is not empty'],
      [{ ...question('ada', 'read'), resource: { id: 'x' } }, 'resource.type is required'],
      [question('ada', 'read', { tenant: 5 }), 'resource.tenant must be a text that is not empty'],
      [{ ...question('ada', 'read'), context: [] }, 'context must be an object'],
    ]
    for (const [body, detail] of wrong) {
      const response = await pdp.post('/allowed', body)
      t.equal(response.statusCode, 422, detail)
      t.same(response.json(), { detail })
    }
    t.match((await pdp.post('/allowed/bulk', [question('ada', 'read'), {}])).json(), {
      detail: '1.user is required',
    })
    const broken = await pdp.post('/allowed', '{"user":')
    t.equal(broken.statusCode, 422)
    t.match(broken.json(), { detail: String })
    const polluting =
      '{"user":{"key":"ada","__proto__":{"x":1}},"action":"read","resource":{"type":"document"}}'
    t.equal((await pdp.post('/allowed', polluting)).statusCode, 422)
    const deep = {
      ...question('ada', 'read'),
      context: JSON.parse(`${'{"a":'.repeat(70)}1${'}'.repeat(70)}`),
    }
    t.equal((await pdp.post('/allowed', deep)).statusCode, 422)
    t.equal((await pdp.post('/allowed', `{"a":"${'x'.repeat(1_048_576)}"}`)).statusCode, 413)
  })

  await t.test('limits a bulk request', async (t) => {
    const many = (count: number) => Array.from({ length: count }, () => question('ada', 'read'))
    const answers = (await pdp.post('/allowed/bulk', many(1000))).json()
    t.equal(answers.allow.length, 1000)
    t.same(answers.allow[0], YES)
    const refused = await pdp.post('/allowed/bulk', many(1001))
    t.equal(refused.statusCode, 422)
    t.match(refused.json(), { detail: /at most 1000/ })
    t.same((await pdp.post('/allowed/bulk', [])).json(), { allow: [] })
  })

  await t.test('tells the tenants of a user, and where something is allowed', async (t) => {
    const tenants = (await pdp.post('/user-tenants', { user: { key: 'ada' } })).json()
    t.same(tenants, [
      { key: 'acme', attributes: { tier: 'gold' } },
      { key: 'globex', attributes: {} },
    ])
    const { allowed_tenants, allowedTenants } = (
      await pdp.post('/allowed/all-tenants', question('ada', 'read'))
    ).json()
    t.same(allowed_tenants, [
      { ...YES, tenant: { key: 'acme', attributes: { tier: 'gold' } } },
      { ...YES, tenant: { key: 'globex', attributes: {} } },
    ])
    t.same(allowedTenants, allowed_tenants)
  })

  await t.test('tells who is authorized', async (t) => {
    const { user: _, ...asked } = question('', 'edit', { key: 'd1' })
    t.same((await pdp.post('/authorized_users', asked)).json(), {
      resource: 'document:d1',
      tenant: 'acme',
      users: { cyd: [{ user: 'cyd', tenant: 'acme', resource: 'folder:f1', role: 'folder#owner' }] },
    })
    const { user: __, ...type } = question('', 'read')
    t.same((await pdp.post('/authorized_users', type)).json(), {
      resource: 'document:*',
      tenant: 'acme',
      users: { ada: [{ user: 'ada', tenant: 'acme', resource: '__tenant:acme', role: 'reader' }] },
    })
  })

  await t.test('takes a check from the headers of a gateway', async (t) => {
    const headers = { 'permit-user-key': 'ada', 'permit-tenant-id': 'acme', 'permit-action': 'read' }
    const asked = { ...headers, 'permit-resource-type': 'document' }
    t.same((await pdp.post('/nginx_allowed', undefined, asked)).json(), YES)
    const refused = await pdp.post('/nginx_allowed', undefined, { ...asked, 'permit-action': 'edit' })
    t.same([refused.statusCode, refused.json()], [200, NO])
    t.same((await pdp.post('/nginx_allowed', undefined, headers)).json(), {
      detail: 'permit-resource-type is required',
    })
  })

  await t.test('lists role assignments, built-in ones left out', async (t) => {
    const all = (await pdp.get('/local/role_assignments')).json()
    t.same(all, [
      { user: 'ada', role: 'reader', tenant: 'acme' },
      { user: 'ada', role: 'reader', tenant: 'globex' },
      { user: 'cyd', role: 'owner', tenant: 'acme', resource_instance: 'folder:f1' },
      { user: 'cyd', role: 'owner', tenant: 'globex', resource_instance: 'folder:g1' },
    ])
    const listed = async (query: string) => (await pdp.get(`/local/role_assignments?${query}`)).json().length
    t.equal(await listed('user=ada&tenant=acme'), 1)
    t.equal(await listed('resource_instance=folder:f1'), 1)
    t.equal(await listed('resource=folder'), 2)
    t.equal(await listed('role=reader&per_page=1'), 1)
    t.equal((await pdp.get('/local/role_assignments?per_page=101')).statusCode, 422)
  })

  await t.test('tells its version and health, and takes legacy triggers', async (t) => {
    t.same((await pdp.get('/version')).json(), { api_version: 4 })
    t.match((await postern.anonymous.get('/healthy')).json(), { status: 'ok' })
    t.match((await postern.anonymous.get('/ready')).json(), {
      status: 'ok',
      components: { opa: { status: 'ok' } },
    })
    for (const path of ['/update_policy', '/update_policy_data'])
      t.equal((await pdp.post(path)).statusCode, 200)
  })

  await t.test('refuses strangers with a detail', async (t) => {
    for (const path of ['/allowed', '/allowed/all-tenants']) {
      const nobody = await postern.anonymous.post(path, question('ada', 'read'))
      t.equal(nobody.statusCode, 401)
      t.same(nobody.json(), { detail: 'Authentication is required' })
    }
    const wrong = await postern.as('permit_key_wrong').post('/allowed', question('ada', 'read'))
    t.match([wrong.statusCode, wrong.json()], [401, { detail: String }])
    const guest = await postern.person('GUEST')
    const refused = await guest.client.post('/allowed', question('ada', 'read'))
    t.same([refused.statusCode, typeof refused.json().detail], [403, 'string'])
  })

  await t.test('a key of another environment knows nothing of this one', async (t) => {
    const { name } = await anEnvironment(postern)
    const { key } = await postern.services.apiKeys.createKey(
      SYSTEM,
      { name: 'other', access: 'full', environment: name },
      '',
    )
    const other = postern.as(key)

    t.same((await other.post('/allowed', question('ada', 'read'))).json(), NO)
    t.same((await other.get('/local/role_assignments')).json(), [])
    t.same((await other.post('/user-permissions', { user: { key: 'ada' } })).json(), {})
  })

  await t.test('an account administrator asks about the own account only', async (t) => {
    const acme = await postern.services.accounts.findByKeyOrId('acme')
    const { client } = await postern.person('ACCOUNT_ADMIN', { accountId: acme?.id ?? '' })
    const { tenant: _, ...anywhere } = question('ada', 'read').resource
    const elsewhere = question('ada', 'read', { tenant: 'globex' })

    t.same((await client.post('/allowed', question('ada', 'read'))).json(), YES)
    t.same((await client.post('/allowed', question('ada', 'read', { tenant: acme?.id }))).json(), YES)
    t.same((await client.post('/allowed', { ...elsewhere, resource: anywhere })).json(), YES)
    t.equal((await client.post('/allowed', elsewhere)).statusCode, 403)
    t.equal((await client.post('/allowed/bulk', [question('ada', 'read'), elsewhere])).statusCode, 403)
    t.equal((await client.post('/v1/data/permit/root', { input: elsewhere })).statusCode, 403)
    t.equal((await client.post('/authorized_users', elsewhere)).statusCode, 403)
    t.equal((await client.get('/local/role_assignments?tenant=globex')).statusCode, 403)
    const own = (await client.get('/local/role_assignments')).json<{ tenant: string }[]>()
    t.same([...new Set(own.map(({ tenant }) => tenant))], ['acme'])
    t.same((await client.post('/user-tenants', { user: 'ada' })).json(), [
      { key: 'acme', attributes: { tier: 'gold' } },
    ])
    t.same(Object.keys((await client.post('/user-permissions', { user: 'cyd' })).json()).sort(), [
      'document:d1',
      'folder:f1',
    ])
    t.equal((await client.post('/user-permissions', { user: 'cyd', tenants: ['globex'] })).statusCode, 403)
    const { allowed_tenants } = (await client.post('/allowed/all-tenants', elsewhere)).json()
    t.same(
      allowed_tenants.map((one: { tenant: { key: string } }) => one.tenant.key),
      ['acme'],
    )
  })

  await t.test(
    'an account administrator hears why of the own members only, and of no other account',
    async (t) => {
      const acme = await postern.services.accounts.findByKeyOrId('acme')
      const globex = await postern.services.accounts.findByKeyOrId('globex')
      const { client } = await postern.person('ACCOUNT_ADMIN', { accountId: acme?.id ?? '' })
      const stranger = await postern.person(undefined, { accountId: globex?.id ?? '' })
      const asked = (user: string) => ({ ...question(user, 'read'), use_debugger: true })
      const tenantsShown = (answer: {
        debug?: { request: { user: { attributes: { tenants: string[] } } } }
      }) => answer.debug?.request.user.attributes.tenants

      const member = (await client.post('/allowed', asked('ada'))).json()
      t.match(member, { ...YES, debug: { rbac: { code: 'allow' } } })
      t.same(tenantsShown(member), ['acme'])
      t.same(tenantsShown((await pdp.post('/allowed', asked('ada'))).json()), ['acme', 'globex'])
      for (const user of [stranger.id, 'nobody']) {
        t.same((await client.post('/allowed', asked(user))).json(), NO)
        t.same((await client.post('/allowed/bulk', [asked(user)])).json(), { allow: [NO] })
      }
      t.same(tenantsShown((await pdp.post('/allowed', asked(stranger.id))).json()), ['globex'])
    },
  )
})

t.test('with POLICY_DEBUG every answer says why', async (t) => {
  const postern = await buildTestApp(t, { env: { POLICY_DEBUG: 'true' } })
  await storeExample(postern)
  const { key } = await apiKey(postern)
  const pdp = postern.as(key)

  t.match((await pdp.post('/allowed', question('x', 'read'))).json(), { debug: { rbac: { allow: false } } })
  t.match((await pdp.post('/allowed/bulk', [question('x', 'read')])).json(), {
    allow: [{ debug: { rbac: { allow: false } } }],
  })
})
