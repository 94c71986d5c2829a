import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { furtherListener, listenOn } from '../../src/http/listeners.ts'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { pythonClient, storeExample } from '../helpers/permit.ts'

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/
const P = '/v2/facts/default/default/proxy_configs'
const API = 'https://api.test'

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await once(server.close(), 'close')
  return port
}

t.test('proxies, and questions about URLs', async (t) => {
  const kongRoutes = join(t.testdir(), 'kong_routes.json')
  writeFileSync(kongRoutes, '[["^/documents", "document"], ["^/(v[0-9]+)/([a-z]+)s", 1]]')
  const pdpPort = await freePort()
  const postern = await buildTestApp(t, {
    env: { PDP_KONG_INTEGRATION: 'true', PDP_KONG_ROUTES: kongRoutes, PDP_PORT: String(pdpPort) },
  })
  await storeExample(postern, {
    tenants: [{ key: 'acme' }],
    users: [{ key: 'ida', roles: [{ role: 'reader', tenant: 'acme' }] }],
  })
  const python = await pythonClient(postern)
  const reader = await pythonClient(postern, 'read')

  const rule = { url: `${API}/documents/{id}`, http_method: 'get', resource: 'document', action: 'read' }
  const proxy = { key: 'gateway', name: 'Gateway', secret: 'hush', auth_mechanism: 'Bearer' }
  const asked = { user: { key: 'ida' }, http_method: 'GET', url: `${API}/documents/1`, tenant: 'acme' }
  const allowed = async (more: object = {}) =>
    (await python.post('/allowed_url', { ...asked, ...more })).json<{
      allow: boolean
      debug?: { reason?: string; mapping_rules: object[] }
    }>()

  await t.test(
    'a proxy is kept with its rules, not with its secret, and by them URLs are actions at once',
    async (t) => {
      const before = await allowed()
      t.match(before, { allow: false, result: false, debug: { reason: String } })
      t.same(before.debug?.mapping_rules, [])
      const made = await python.post(P, {
        ...proxy,
        mapping_rules: [{ ...rule, headers: { 'x-token': 'hush' } }],
      })
      t.equal(made.statusCode, 200, made.body)
      const config = made.json()
      t.match(config, { id: UUID, key: 'gateway', name: 'Gateway', organization_id: UUID, secret: '' })
      t.same(config.mapping_rules, [{ ...rule, url_type: null, priority: 0, headers: { 'x-token': 'hush' } }])
      t.match(await allowed(), { allow: true, result: true })
      t.match(await allowed({ tenant: 'default' }), { allow: false })
      t.match(await allowed({ user: { key: 'somebody' } }), { allow: false })

      const unmapped = await allowed({ url: `${API}/other` })
      t.same(unmapped.debug?.mapping_rules, [{ ...rule, url_type: null, priority: 0 }], 'no headers')

      const undashed = config.id.replaceAll('-', '')
      for (const name of ['gateway', config.id, undashed])
        t.equal((await python.get(`${P}/${name}`)).json().id, config.id)
      const expression = `${API}/documents/(?P<status>[a-z]+)`
      const changed = await python.patch(`${P}/${undashed}`, {
        name: null,
        mapping_rules: [
          { ...rule, should_delete: true },
          { url: expression, url_type: 'regex', http_method: 'GET', resource: 'document', action: null },
        ],
      })
      t.match(changed.json(), { name: 'Gateway', mapping_rules: [{ url: expression, http_method: 'get' }] })
      t.match(await allowed(), { allow: false })
      t.match(await allowed({ url: `${API}/documents/draft` }), { allow: false }, 'there is no action `get`')

      t.same((await python.get(P)).json(), [changed.json()])
      t.match((await python.get(`${P}?include_total_count=true`)).json(), { total_count: 1, page_count: 1 })
      t.equal((await python.send('DELETE', `${P}/gateway`)).statusCode, 204)
      for (const method of ['GET', 'PATCH', 'DELETE'] as const)
        t.equal(
          (await python.send(method, `${P}/gateway`, method === 'PATCH' ? {} : undefined)).statusCode,
          404,
        )
    },
  )

  await t.test('what a URL says is an attribute of the resource', async (t) => {
    await python.post('/v2/schema/default/default/condition_sets', {
      key: 'drafts',
      name: 'Drafts',
      type: 'resourceset',
      resource_id: 'document',
      conditions: { 'resource.status': { equals: 'draft' } },
    })
    await python.post('/v2/facts/default/default/set_rules', {
      user_set: 'adults',
      permission: 'document:read',
      resource_set: 'drafts',
    })
    const rules = [
      { ...rule, url: `${API}/(?P<status>[a-z]+)/`, url_type: 'regex', priority: 1 },
      { ...rule, url: `${API}/{status}/x`, action: 'nothing' },
      { ...rule, url: `${API}/documents?status={status}` },
    ]
    t.equal((await python.post(P, { ...proxy, key: 'status', mapping_rules: rules })).statusCode, 200)
    const user = { key: 'somebody', attributes: { age: 30 } }
    for (const [url, allow] of [
      [`${API}/draft/x`, true],
      [`${API}/final/x`, false],
      [`${API}/documents?status=draft&more=1`, true],
      [`${API}/documents?status=final`, false],
      [`${API}/draft/../final/x`, false],
    ] as const)
      t.equal((await allowed({ user, url })).allow, allow, url)
    t.equal((await python.delete(`${P}/status`)).statusCode, 204)
  })

  await t.test('what is wrong is refused, and nothing is changed', async (t) => {
    await python.post(P, { ...proxy, key: 'kept', mapping_rules: [rule] })
    const wide = Array.from({ length: 501 }, () => rule)
    for (const [body, status] of [
      [{ ...proxy, key: 'no key' }, 422],
      [{ ...proxy, key: 'kept' }, 409],
      [{ key: 'nameless' }, 422],
      [{ ...proxy, mapping_rules: [{ ...rule, http_method: 'fetch' }] }, 422],
      [{ ...proxy, mapping_rules: [{ ...rule, url_type: '' }] }, 422],
      [{ ...proxy, mapping_rules: [{ ...rule, resource: 'postern.users' }] }, 422],
      [{ ...proxy, mapping_rules: [{ ...rule, headers: { a: 1 } }] }, 422],
      [{ ...proxy, mapping_rules: wide }, 422],
      ...['(', '(?=a)', '(a)\\1', '((a{30}){30}){30}', '[a-z]{1000}{9}', '\\pL{900}\\pL{900}'].map(
        (url) => [{ ...proxy, mapping_rules: [{ ...rule, url, url_type: 'regex' }] }, 422] as const,
      ),
    ] as const)
      t.equal((await python.post(P, body)).statusCode, status, JSON.stringify(body).slice(0, 200))
    const endless = { ...rule, url: `(?:${'[^a]'.repeat(480)}){1000}`, url_type: 'regex' }
    const many = await python.post(P, { ...proxy, mapping_rules: Array.from({ length: 500 }, () => endless) })
    t.equal(many.statusCode, 422, 'without compiling any of them, which would take minutes')
    const large = { ...rule, url: 'a{900}', url_type: 'regex' }
    const tooMuch = await python.patch(`${P}/kept`, {
      mapping_rules: Array.from({ length: 12 }, () => large),
    })
    t.match([tooMuch.statusCode, tooMuch.json().error_code], [400, 'INVALID_INPUT'])
    matchEach(t, (await python.get(P)).json(), [{ key: 'kept', mapping_rules: [rule] }])
    t.equal((await reader.post(P, proxy)).statusCode, 403)
    t.equal((await reader.get(P)).statusCode, 200)
    for (const body of [
      { ...asked, url: undefined },
      { ...asked, user: 'ida' },
      { ...asked, http_method: 1 },
      'x',
    ])
      t.equal((await python.post('/allowed_url', body)).statusCode, 422)
    t.equal((await postern.anonymous.post('/allowed_url', asked)).statusCode, 401)
  })

  await t.test(
    'who may ask about one account is neither answered about others nor shown the rules',
    async (t) => {
      const accountId = await postern.account('Initrode')
      const { client } = await postern.person('ACCOUNT_ADMIN', { accountId })
      t.equal((await client.post('/allowed_url', asked)).statusCode, 403)
      const own = await client.post('/allowed_url', { ...asked, tenant: undefined })
      t.match([own.statusCode, own.json().allow], [200, false])
      const unmapped = await client.post('/allowed_url', { ...asked, url: `${API}/other` })
      t.same(unmapped.json().debug.mapping_rules, [])
    },
  )

  await t.test('Kong is answered at its port only', async (t) => {
    await python.post('/v2/schema/default/default/resources/document/actions', { key: 'get', name: 'Get' })
    await python.post('/v2/schema/default/default/roles', {
      key: 'getter',
      name: 'Getter',
      permissions: ['document:get'],
    })
    const grant = { user: 'ida', role: 'getter', tenant: 'default' }
    t.equal((await python.post('/v2/facts/default/default/role_assignments', grant)).statusCode, 200)
    const input = (username: string | null, path: string, method = 'GET') => ({
      input: { request: { http: { method, path } }, ...(username !== null && { consumer: { username } }) },
    })
    t.equal((await postern.anonymous.post('/kong', input('ida', '/documents/1'))).statusCode, 404)

    const listener = furtherListener(postern.app)
    await listenOn(listener, { host: '127.0.0.1', port: pdpPort })
    t.teardown(async () => await once(listener.close(), 'close'))
    const ask = async (body: unknown) =>
      await fetch(`http://127.0.0.1:${pdpPort}/kong`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', connection: 'close' },
        body: JSON.stringify(body),
      })
    for (const [username, path, method, result] of [
      ['ida', '/documents/1', 'GET', true],
      ['ida', '/v2/documents', 'get', true],
      ['ida', '/documents/1', 'POST', false],
      ['ida', '/v2/folders', 'GET', false],
      ['ida', '/nothing', 'GET', false],
      ['ida', '/documents/../nothing', 'GET', false],
      ['somebody', '/documents/1', 'GET', false],
      [null, '/documents/1', 'GET', false],
    ] as const)
      t.same(
        await (await ask(input(username, path, method))).json(),
        { result },
        `${username} ${method} ${path}`,
      )
    for (const body of [{}, [], { input: { request: { http: { method: 'GET' } } } }])
      t.equal((await ask(body)).status, 422)
  })
})

t.test('without the setting there is no answer for Kong', async (t) => {
  const { anonymous } = await buildTestApp(t)
  t.equal((await anonymous.post('/kong', { input: {} })).statusCode, 503)
})
