import { Writable } from 'node:stream'
import t from 'tap'
import { buildApp } from '../../src/app.ts'
import { loggerOptions } from '../../src/http/request-log.ts'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList } from '../helpers/lists.ts'
import { eventually } from '../helpers/processes.ts'

type Shown = { id: string; key_hint: string; revoked_at: string | null; last_used_at: string | null }
const DEFAULT_ENVIRONMENT = '00000000-0000-7000-8000-000000000001'
const users = '/api/v1/users'
const apiKeys = '/api/v1/api-keys'

t.test('a super admin makes a key, which is shown once and then works', async (t) => {
  const postern = await buildTestApp(t)
  const { root, as, services } = postern

  const response = await root.post(apiKeys, { name: 'deployment', access: 'full' })

  t.equal(response.statusCode, 201)
  t.equal(response.headers['cache-control'], 'no-store')
  const { key, ...shown } = response.json<Shown & { key: string }>()
  t.match(key, /^permit_key_[0-9A-Za-z]{86,}$/)
  t.match(shown, {
    name: 'deployment',
    access: 'full',
    level: 'environment',
    environment: 'default/default',
    environment_id: DEFAULT_ENVIRONMENT,
    project: null,
    key_hint: key.slice(-4),
    last_used_at: null,
    expires_at: null,
    revoked_at: null,
  })
  t.equal(response.headers['location'], `${apiKeys}/${shown.id}`)
  t.equal((await as(key).get(users)).statusCode, 200)

  await t.test('and is stored as a hash only', async (t) => {
    const { rows } = await services.database.pool.query<{ row: string }>(
      'select api_keys::text as row from api_keys',
    )

    t.equal(rows.length, 1)
    t.notMatch(rows[0]?.row, key.slice('permit_key_'.length))
  })
  await t.test('and no list, record or audit row has it', async (t) => {
    const answers = [
      await root.get(apiKeys),
      await root.get(`${apiKeys}/${shown.id}`),
      await root.get('/api/v1/audit-events?limit=1000'),
    ]

    for (const answer of answers) t.notMatch(answer.body, key.slice(0, 40))
    t.match(answers[1]?.json(), { id: shown.id, name: 'deployment' })
    t.equal('key' in (answers[1]?.json<object>() ?? {}), false)
    t.match(
      answers[2]
        ?.json<{ action: string; target_id: string }[]>()
        .find(({ action }) => action === 'api_key.created'),
      { target_id: shown.id, details: { level: 'environment', access: 'full' } },
    )
  })
  await t.test('and its last use is noted', async (t) => {
    await eventually(
      async () => (await root.get(`${apiKeys}/${shown.id}`)).json<Shown>().last_used_at !== null,
    )
    const first = (await root.get(`${apiKeys}/${shown.id}`)).json<Shown>().last_used_at

    await as(key).get(users)
    await as(key).get(users)

    t.equal((await root.get(`${apiKeys}/${shown.id}`)).json<Shown>().last_used_at, first, 'once a minute')
  })
})

t.test('a key of full access reads and writes the model, as the audit trail shows', async (t) => {
  const postern = await buildTestApp(t)
  const { id, client } = await anApiKey(postern)
  const created = async (path: string, body: object) => {
    const response = await client.post(`/api/v1${path}`, body)
    t.equal(response.statusCode, 201, `${path}: ${response.body}`)
    return response.json<{ id: string }>().id
  }

  const userId = await created('/users', { email: 'ada@postern.test', first_name: 'Ada' })
  const accountId = await created('/accounts', { name: 'Acme' })
  const roleId = await created('/roles', { name: 'editor', scopes: ['post:read'] })
  const assigned = await created(`/users/${userId}/roles`, { role_id: roleId, account_id: accountId })

  t.match((await client.get(`${users}/${userId}`)).json(), { email: 'ada@postern.test', full_name: 'Ada' })
  t.equal((await client.patch(`${users}/${userId}`, { email: 'ada2@postern.test' })).statusCode, 200)
  t.equal((await client.post(`${users}/${userId}/deactivate`)).statusCode, 200)
  t.equal((await client.post(`/api/v1/accounts/${accountId}/users`, { user_id: userId })).statusCode, 200)
  t.equal((await client.delete(`${users}/${userId}/roles/${assigned}`)).statusCode, 204)
  t.equal((await client.delete(`${users}/${userId}`)).statusCode, 204)
  t.equal((await client.patch(`/api/v1/roles/${roleId}`, { scopes: [] })).statusCode, 200)
  t.equal((await client.delete(`/api/v1/roles/${roleId}`)).statusCode, 204)
  t.equal((await client.delete(`/api/v1/accounts/${accountId}`)).statusCode, 204)
  const events = (await postern.root.get(`/api/v1/audit-events?actor_id=${id}`)).json<
    { actor_type: string; action: string }[]
  >()
  t.ok(events.length >= 10)
  t.ok(events.every(({ actor_type }) => actor_type === 'api_key'))
})

t.test('what a key can never do is refused', async (t) => {
  const postern = await buildTestApp(t)
  const { client } = await anApiKey(postern)

  for (const [method, path, body] of [
    ['GET', '/api-keys'],
    ['POST', '/api-keys', { name: 'another', access: 'full' }],
    ['GET', '/audit-events'],
    ['GET', '/environments'],
    ['POST', '/environments', { key: 'x', name: 'x' }],
    ['GET', '/users/me'],
    ['PATCH', '/users/me', { full_name: 'x' }],
    ['GET', '/users/me/permissions'],
    ['GET', '/accounts/me'],
    ['POST', '/auth/change-password', { current_password: 'x', new_password: PASSWORD }],
  ] as const) {
    isProblem(t, await client.send(method, `/api/v1${path}`, body), 'insufficient_scope', `${method} ${path}`)
  }
})

t.test('a key of read access reads and changes nothing', async (t) => {
  const postern = await buildTestApp(t)
  const { client } = await anApiKey(postern, { access: 'read' })
  const { rootId, home } = postern

  for (const path of ['/users', '/roles', '/accounts', `/users/${rootId}`, `/accounts/${home}`])
    t.equal((await client.get(`/api/v1${path}`)).statusCode, 200, path)
  for (const [method, path, body] of [
    ['POST', '/users', { email: 'x@postern.test' }],
    ['PATCH', `/users/${rootId}`, { full_name: 'x' }],
    ['DELETE', `/users/${rootId}`],
    ['POST', '/accounts', { name: 'x' }],
    ['PATCH', `/accounts/${home}`, { description: 'x' }],
    ['POST', '/roles', { name: 'x' }],
    ['POST', '/user-roles', { user_id: rootId, role_id: NO_SUCH_ID }],
  ] as const) {
    isProblem(t, await client.send(method, `/api/v1${path}`, body), 'insufficient_scope', `${method} ${path}`)
  }
})

t.test('a key is refused', async (t) => {
  let now = Date.now()
  const postern = await buildTestApp(t, { clock: { now: () => new Date(now) } })
  const { root, as } = postern

  await t.test('when it was revoked, at once, and stays in the list', async (t) => {
    const { id, client } = await anApiKey(postern)
    t.equal((await client.get(users)).statusCode, 200)

    const revoked = await root.delete(`${apiKeys}/${id}`)

    t.equal(revoked.statusCode, 204)
    isProblem(t, await client.get(users), 'invalid_token')
    t.equal((await root.delete(`${apiKeys}/${id}`)).statusCode, 204, 'once more is no difference')
    const events = (await root.get(`/api/v1/audit-events?target_id=${id}`)).json<{ action: string }[]>()
    t.same(events.map(({ action }) => action).sort(), ['api_key.created', 'api_key.revoked'])
    t.type((await root.get(`${apiKeys}/${id}`)).json<Shown>().revoked_at, 'string')
    isProblem(t, await root.post(`${apiKeys}/${id}/rotate`), 'api_key_is_revoked')
  })
  await t.test('when it was revoked behind the back of this process', async (t) => {
    const { id, client } = await anApiKey(postern)
    t.equal((await client.get(users)).statusCode, 200)

    await postern.services.database.pool.query('update api_keys set revoked_at = now() where id = $1', [id])

    await eventually(async () => (await client.get(users)).statusCode === 401)
    isProblem(t, await client.get(users), 'invalid_token')
  })
  await t.test('when it has expired, however often it was used before', async (t) => {
    const expires_at = new Date(now + 60_000).toISOString()
    const { client } = await anApiKey(postern, { expires_at })
    t.equal((await client.get(users)).statusCode, 200)

    now += 60_000

    isProblem(t, await client.get(users), 'invalid_token')
    now = Date.now()
  })
  await t.test('when it was rotated; the new one works', async (t) => {
    const { id, client, key } = await anApiKey(postern)
    t.equal((await client.get(users)).statusCode, 200)

    const rotated = await root.post(`${apiKeys}/${id}/rotate`)

    t.equal(rotated.statusCode, 200)
    isProblem(t, await client.get(users), 'invalid_token')
    const next = rotated.json<{ id: string; key: string; key_hint: string }>()
    t.match(next, { id, key_hint: next.key.slice(-4) })
    t.not(next.key, key)
    t.equal((await as(next.key).get(users)).statusCode, 200)
  })
  await t.test('when it is not one', async (t) => {
    const { key } = await anApiKey(postern)
    const other = key.endsWith('A') ? 'B' : 'A'

    for (const wrong of [
      `${key.slice(0, -1)}${other}`,
      `${key}A`,
      key.slice(0, -1),
      'permit_key_',
      `permit_key_${"'".repeat(86)}`,
      key.toUpperCase(),
      key.slice('permit_key_'.length),
    ]) {
      isProblem(t, await as(wrong).get(users), 'invalid_token', wrong)
    }
    isProblem(
      t,
      await postern.anonymous.get(users, { authorization: `Basic ${key}` }),
      'authentication_required',
    )
    isProblem(t, await postern.anonymous.get(`${users}?access_token=${key}`), 'authentication_required')
  })
  await t.test('but not for the case of the scheme', async (t) => {
    const { key } = await anApiKey(postern)

    for (const scheme of ['bearer', 'BEARER', 'Bearer'])
      t.equal((await postern.anonymous.get(users, { authorization: `${scheme} ${key}` })).statusCode, 200)
  })
})

t.test('keys are made for an environment, a project or everything', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const shop = (await root.post('/api/v1/projects', { key: 'shop', name: 'Shop' })).json<{ id: string }>()
  const environment = await anEnvironment(postern, { project: 'shop' })

  for (const [body, shown] of [
    [
      { environment: environment.name },
      { level: 'environment', environment: environment.name, project: null },
    ],
    [{ environment: environment.id }, { environment_id: environment.id }],
    [
      { level: 'project', project: 'shop' },
      { level: 'project', project: 'shop', environment: null },
    ],
    [{ level: 'org' }, { level: 'org', project: null, environment_id: null }],
  ] as const) {
    const response = await root.post(apiKeys, { name: 'x', access: 'read', ...body })
    t.equal(response.statusCode, 201, response.body)
    t.match(response.json(), shown)
  }
  const inHeader = await root.post(apiKeys, { name: 'x', access: 'read' }, inEnvironment(environment.name))
  t.match(inHeader.json(), { environment: environment.name })
  t.same(
    (await root.get(`${apiKeys}?environment_id=${environment.id}`)).json<Shown[]>().length,
    3,
    'the list can be of one environment',
  )
  isProblem(
    t,
    await root.post(apiKeys, { name: 'x', access: 'read', environment: 'nope' }),
    'environment_not_found',
  )
  isProblem(
    t,
    await root.post(apiKeys, { name: 'x', access: 'read', level: 'project', project: 'nope' }),
    'project_not_found',
  )

  await t.test('and go with them', async (t) => {
    const ofProject = await anApiKey(postern, { level: 'project', project: 'shop' })
    const ofEnvironment = await anApiKey(postern, { environment: environment.name })
    const header = inEnvironment(environment.name)
    t.equal((await ofProject.client.get(users, header)).statusCode, 200)
    t.equal((await ofEnvironment.client.get(users)).statusCode, 200)

    t.equal((await root.delete(`/api/v1/environments/${environment.id}`)).statusCode, 204)
    isProblem(t, await ofEnvironment.client.get(users), 'invalid_token')
    isProblem(t, await ofProject.client.get(users, header), 'environment_not_found')
    t.equal((await root.delete(`/api/v1/projects/${shop.id}`)).statusCode, 204)
    isProblem(t, await ofProject.client.get(users, header), 'invalid_token')

    await root.post('/api/v1/projects', { key: 'shop', name: 'Another shop' })
    isProblem(t, await ofProject.client.get(users, header), 'invalid_token', 'it is not the same project')
  })
})

t.test('a key gives no more than its maker holds', async (t) => {
  const { anonymous, as } = await buildTestApp(t)
  const scope = 'postern.api-keys:write postern.api-keys:write:any postern.users:read postern.users:read:any'
  const signIn = { email: 'root@postern.test', password: PASSWORD, scope }
  const { access_token } = (await anonymous.post('/api/v1/auth/login', signIn)).json<{
    access_token: string
  }>()

  const response = await as(access_token).post(apiKeys, { name: 'x', access: 'read' })

  isProblem(t, response, 'grant_exceeds_own')
})

t.test('every fault of a new key is named by a pointer', async (t) => {
  const { root, app, rootToken } = await buildTestApp(t)
  const valid = { name: 'x', access: 'full' }

  for (const [body, pointer] of [
    [{ access: 'full' }, '/body/name'],
    [{ ...valid, name: '' }, '/body/name'],
    [{ ...valid, name: 'x'.repeat(256) }, '/body/name'],
    [{ name: 'x' }, '/body/access'],
    [{ ...valid, access: 'admin' }, '/body/access'],
    [{ ...valid, level: 'account' }, '/body/level'],
    [{ ...valid, environment: 'a/b/c' }, '/body/environment'],
    [{ ...valid, environment: '' }, '/body/environment'],
    [{ ...valid, level: 'org', environment: 'default' }, '/body/environment'],
    [{ ...valid, project: 'default' }, '/body/project'],
    [{ ...valid, level: 'project' }, '/body/project'],
    [{ ...valid, expires_at: '2001-01-01T00:00:00Z' }, '/body/expires_at'],
    [{ ...valid, expires_at: 'tomorrow' }, '/body/expires_at'],
    [{ ...valid, key: 'permit_key_mine' }, '/body/key'],
  ] as const) {
    const response = await root.post(apiKeys, body)
    isProblem(t, response, 'validation_failed', JSON.stringify(body))
    t.same(pointersOf(response), [pointer])
  }
  for (const id of BAD_IDS) isProblem(t, await root.get(`${apiKeys}/${id}`), 'validation_failed', id)
  for (const [method, path] of [
    ['GET', ''],
    ['DELETE', ''],
    ['POST', '/rotate'],
  ] as const) {
    isProblem(t, await root.send(method, `${apiKeys}/${NO_SUCH_ID}${path}`), 'api_key_not_found')
  }
  t.equal((await root.get(apiKeys)).body, '[]', 'nothing was made')
  await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: apiKeys })
})

t.test('keys are listed in pages', async (t) => {
  const postern = await buildTestApp(t)
  for (let count = 0; count < 6; count++) await anApiKey(postern, { name: `key ${count}` })

  await pagesLikeEveryList(t, { client: postern.root, path: apiKeys, sorts: ['created_at'] })
})

t.test('a key never stands in the log', async (t) => {
  const postern = await buildTestApp(t)
  const { key } = await anApiKey(postern)
  let log = ''
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      log += chunk.toString()
      done()
    },
  })
  const app = await buildApp(postern.services, {
    logger: { ...loggerOptions(postern.config), level: 'trace', stream },
  })
  t.teardown(async () => await app.close())
  const authorization = `Bearer ${key}`

  await app.inject({ url: users, headers: { authorization } })
  await app.inject({ url: users, headers: { authorization: `${authorization}x` } })
  await app.inject({
    method: 'POST',
    url: apiKeys,
    headers: { authorization: `Bearer ${postern.rootToken}` },
    payload: { name: 'x', access: 'full' },
  })

  t.match(log, /"status":200/)
  t.notMatch(log, /permit_key_/)
})

t.test('a key in use is not read from the database for each request', async (t) => {
  const postern = await buildTestApp(t)
  const { key } = await anApiKey(postern)
  const { apiKeyVerifier, database } = postern.services
  await apiKeyVerifier.verify(key)
  const reads: string[] = []
  const { query } = database.pool
  database.pool.query = ((...args: unknown[]) => {
    reads.push(JSON.stringify(args[0]))
    return Reflect.apply(query, database.pool, args)
  }) as typeof query

  await Promise.all([1, 2, 3, 4, 5].map(async () => await apiKeyVerifier.verify(key)))

  t.ok(reads.filter((text) => text.includes('key_hash')).length <= 1, reads.join('\n'))
  database.pool.query = query
})
