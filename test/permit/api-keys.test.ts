import t from 'tap'
import { anApiKey, anEnvironment, type IssuedKey, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Method, type TestApp } from '../helpers/app.ts'
import { listenForSdk, refusalOf, sdk } from '../helpers/permit.ts'

const ORGANIZATION = '00000000-0000-7000-8000-000000000003'
const NO_SUCH_ID = '00000000-0000-7000-8000-0000000000ff'
const KEYS = '/v2/api-key'

type Shown = { id: string; secret: string; access_level: string }
const secretOf = async (client: Client, path: string): Promise<string> =>
  (await client.get(`${KEYS}/${path}`)).json<Shown>().secret

/** Two projects with two environments each, and a key of every level and access. */
async function aWorld(postern: TestApp) {
  for (const project of ['shop', 'blog']) {
    await postern.root.post('/api/v1/projects', { key: project, name: project })
    for (const key of ['dev', 'live']) await anEnvironment(postern, { project, key })
  }
  const keys: Record<string, IssuedKey> = {}
  for (const [name, fields] of Object.entries({
    org: { level: 'org' },
    'org read': { level: 'org', access: 'read' },
    shop: { level: 'project', project: 'shop' },
    'shop read': { level: 'project', project: 'shop', access: 'read' },
    blog: { level: 'project', project: 'blog' },
    dev: { environment: 'shop/dev' },
    'dev read': { environment: 'shop/dev', access: 'read' },
    live: { environment: 'shop/live' },
    'blog dev': { environment: 'blog/dev' },
  }))
    keys[name] = await anApiKey(postern, fields)
  return (name: string): IssuedKey => keys[name] ?? failToFind(name)
}

function failToFind(name: string): never {
  throw new Error(`no key ${name}`)
}

t.test('an environment has a key of its own, which is shown again', async (t) => {
  const postern = await buildTestApp(t)
  const keyOf = await aWorld(postern)
  const { root, as, person, services } = postern
  const org = keyOf('org').client

  await t.test('the same to everybody who asks at once, and it works', async (t) => {
    const answers = await Promise.all(
      ['org', 'shop', 'org', 'shop'].map(async (name) => await keyOf(name).client.get(`${KEYS}/shop/dev`)),
    )

    const [first] = answers.map((answer) => answer.json<Shown>())
    for (const answer of answers) t.same(answer.json<Shown>().secret, first?.secret, answer.body)
    t.match(first, {
      organization_id: ORGANIZATION,
      object_type: 'env',
      access_level: 'admin',
      owner_type: 'pdp_config',
      secret: /^permit_key_.{86}$/,
    })
    t.equal(answers[0]?.headers['cache-control'], 'no-store')
    const client = as(first?.secret ?? '')
    t.equal((await client.get('/v2/facts/shop/dev/users')).statusCode, 200)
    t.equal((await client.get('/v2/facts/shop/live/users')).statusCode, 403)
    t.equal(await secretOf(client, 'shop/dev'), first?.secret, 'also to itself')
    t.equal(await secretOf(root, 'shop/dev'), first?.secret, 'and to a super admin')
    t.equal((await keyOf('dev').client.get(`${KEYS}/shop/dev`)).statusCode, 403, 'to no other key of it')
  })
  await t.test('and by ids, through the SDK', async (t) => {
    const { url } = await listenForSdk(t, postern)
    const { api } = sdk(url, keyOf('org').key)
    const { project_id, id } = await api.environments.get('shop', 'dev')

    t.equal((await api.environments.getApiKey('shop', 'dev')).secret, await secretOf(org, 'shop/dev'))
    t.match(await api.environments.getApiKey(project_id, id), { environment_id: id, project_id })
    t.equal(await refusalOf(api.environments.getApiKey('shop', 'nowhere')), '404 NOT_FOUND')
  })
  await t.test('never to one who can do less, or elsewhere', async (t) => {
    const admin = (await person('ADMIN')).client
    for (const client of [
      keyOf('org read').client,
      keyOf('shop read').client,
      keyOf('dev read').client,
      admin,
    ]) {
      const response = await client.get(`${KEYS}/shop/dev`)
      t.match([response.statusCode, response.json()], [403, { error_code: 'FORBIDDEN_ACCESS' }])
      t.notMatch(response.body, 'permit_key_')
    }
    for (const name of ['blog', 'live', 'blog dev'])
      t.equal((await keyOf(name).client.get(`${KEYS}/shop/dev`)).statusCode, 404, name)
  })
  await t.test('nor to a key that it would outlast', async (t) => {
    const expires_at = new Date(Date.now() + 3_600_000).toISOString()
    const passing = await anApiKey(postern, { level: 'org', expires_at })

    t.equal((await passing.client.get(`${KEYS}/shop/live`)).statusCode, 403)
    t.equal((await passing.client.get(`${KEYS}/shop/dev`)).statusCode, 403)
  })
  await t.test('the database holds it sealed, and the audit trail not at all', async (t) => {
    const secret = await secretOf(org, 'shop/dev')
    const { rows } = await services.database.pool.query<{ row: string }>(
      'select api_keys::text as row from api_keys',
    )
    const trail = await root.get('/api/v1/audit-events?limit=1000')

    for (const { row } of rows) t.notMatch(row, secret.slice('permit_key_'.length))
    t.notMatch(trail.body, secret.slice(0, 40))
    const own = rows.filter(({ row }) => row.includes('v1.'))
    t.equal(own.length, 1, 'and only such keys')
    const { id } = (await org.get(`${KEYS}/shop/dev`)).json<Shown>()
    const events = (await root.get(`/api/v1/audit-events?target_id=${id}`)).json<{ action: string }[]>()
    t.equal(events.filter(({ action }) => action === 'api_key.created').length, 1)
    t.ok(events.some(({ action }) => action === 'api_key.shown'))
  })
  await t.test('a rotated one is shown as it is now, by whichever face', async (t) => {
    const before = (await org.get(`${KEYS}/shop/dev`)).json<Shown>()
    for (const rotate of [`${KEYS}/${before.id}/rotate-secret`, `/api/v1/api-keys/${before.id}/rotate`]) {
      t.equal((await root.post(rotate)).statusCode, 200)
      const now = await secretOf(org, 'shop/dev')
      t.not(now, before.secret)
      t.equal((await as(now).get('/v2/facts/shop/dev/users')).statusCode, 200)
    }
    t.equal((await as(before.secret).get('/v2/facts/shop/dev/users')).statusCode, 401)
  })
  await t.test('and one that was revoked makes room for another', async (t) => {
    const before = (await org.get(`${KEYS}/shop/dev`)).json<Shown>()
    t.equal((await org.delete(`${KEYS}/${before.id}`)).statusCode, 204)
    t.equal((await org.get(`${KEYS}/${before.id}`)).statusCode, 404)

    const next = (await org.get(`${KEYS}/shop/dev`)).json<Shown>()

    t.not(next.id, before.id)
    t.not(next.secret, before.secret)
    t.equal((await as(before.secret).get('/v2/facts/shop/dev/users')).statusCode, 401)
  })
})

t.test('keys manage keys within what they open', async (t) => {
  const postern = await buildTestApp(t)
  const keyOf = await aWorld(postern)
  const { root, as, person } = postern
  const admin = (await person('ADMIN')).client
  const make = async (client: Client, body: object) =>
    await client.post(KEYS, { organization_id: ORGANIZATION, ...body })

  await t.test('a key of everything makes keys of every kind', async (t) => {
    const org = keyOf('org').client
    for (const [body, shown, opens] of [
      [
        { object_type: 'org', access_level: 'admin', name: 'CLI' },
        { access_level: 'admin', name: 'CLI' },
        'blog/dev',
      ],
      [{ object_type: 'org', access_level: 'read', project_id: null }, { access_level: 'read' }, 'blog/dev'],
      [
        { object_type: 'project', project_id: 'shop', access_level: 'admin' },
        { environment_id: null },
        'shop/live',
      ],
      [
        { project_id: 'shop', environment_id: 'live', access_level: 'write' },
        { access_level: 'write' },
        'shop/live',
      ],
      [
        { project_id: 'shop', environment_id: 'live', owner_type: 'pdp_config' },
        { object_type: 'env' },
        'shop/live',
      ],
    ] as const) {
      const made = await make(org, body)
      t.equal(made.statusCode, 200, made.body)
      t.equal(made.headers['cache-control'], 'no-store')
      t.match(made.json(), {
        organization_id: ORGANIZATION,
        secret: /^permit_key_/,
        owner_type: 'member',
        ...shown,
      })
      const { id, secret } = made.json<Shown>()
      t.equal((await as(secret).get(`/v2/facts/${opens}/users`)).statusCode, 200)
      const read = (await org.get(`${KEYS}/${id.replaceAll('-', '')}`)).json<object>()
      t.match(read, { id })
      t.notOk('secret' in read, 'whose secret is shown once')
    }
  })
  await t.test('and a key of a project those of it', async (t) => {
    const shop = keyOf('shop').client
    for (const body of [
      { object_type: 'project', project_id: 'shop', access_level: 'read' },
      { object_type: 'env', project_id: 'shop', environment_id: 'dev', access_level: 'admin' },
    ])
      t.equal((await make(shop, body)).statusCode, 200)
    for (const [body, status] of [
      [{ object_type: 'org', access_level: 'read' }, 403],
      [{ object_type: 'org', access_level: 'admin' }, 403],
      [{ object_type: 'project', project_id: 'blog', access_level: 'read' }, 404],
      [{ object_type: 'project', project_id: 'default' }, 404],
      [{ object_type: 'project', project_id: 'nowhere' }, 404],
      [{ project_id: 'blog', environment_id: 'dev' }, 404],
      [{ environment_id: '00000000-0000-7000-8000-000000000001' }, 404],
      [{ environment_id: 'default' }, 404],
    ] as const) {
      const refused = await make(shop, body)
      t.equal(refused.statusCode, status, JSON.stringify(body))
      t.notMatch(refused.body, 'permit_key_')
    }
  })
  await t.test('over /api/v1 as well, and no further', async (t) => {
    const shop = keyOf('shop').client
    for (const [body, status] of [
      [{ level: 'project', project: 'shop' }, 201],
      [{ environment: 'shop/live' }, 201],
      [{ level: 'org' }, 403],
      [{ level: 'project', project: 'blog' }, 404],
      [{ environment: 'blog/dev' }, 404],
      [{ environment: 'default/default' }, 404],
    ] as const) {
      const headers = inEnvironment('shop/dev')
      const answer = await shop.post('/api/v1/api-keys', { name: 'x', access: 'full', ...body }, headers)
      t.equal(answer.statusCode, status, JSON.stringify(body))
    }
    for (const name of ['org', 'blog', 'blog dev']) {
      const path = `/api/v1/api-keys/${keyOf(name).id}`
      t.equal((await shop.get(path)).statusCode, 404, name)
      t.equal((await shop.post(`${path}/rotate`)).statusCode, 404, name)
      t.equal((await shop.delete(path)).statusCode, 404, name)
    }
    const listed = (await shop.get('/api/v1/api-keys?limit=1000')).json<{ id: string }[]>()
    t.ok(listed.length > 3)
    for (const name of ['org', 'blog', 'blog dev'])
      t.notOk(
        listed.some(({ id }) => id === keyOf(name).id),
        name,
      )
  })
  await t.test('keys of environments, keys that read, and administrators manage none', async (t) => {
    for (const client of [
      ...['dev', 'dev read', 'shop read', 'org read'].map((name) => keyOf(name).client),
      admin,
    ])
      for (const [method, path, body] of [
        ['GET', KEYS],
        ['GET', `${KEYS}/${keyOf('dev').id}`],
        ['POST', KEYS, { project_id: 'shop', environment_id: 'dev', access_level: 'read' }],
        ['POST', `${KEYS}/${keyOf('dev').id}/rotate-secret`],
        ['DELETE', `${KEYS}/${keyOf('dev').id}`],
        ['GET', '/api/v1/api-keys'],
        ['POST', '/api/v1/api-keys', { name: 'x', access: 'read', environment: 'shop/dev' }],
        ['POST', `/api/v1/api-keys/${keyOf('dev').id}/rotate`],
        ['DELETE', `/api/v1/api-keys/${keyOf('dev').id}`],
      ] as const)
        t.equal(
          (await client.send(method, path, body, inEnvironment('shop/dev'))).statusCode,
          403,
          `${method} ${path}`,
        )
  })
  await t.test('what a key does not manage is not there for it', async (t) => {
    const shop = keyOf('shop').client
    const ids = async (query = '') =>
      (await shop.get(`${KEYS}?per_page=100${query}`)).json<{ data: Shown[] }>().data.map(({ id }) => id)

    for (const name of ['org', 'org read', 'blog', 'blog dev']) {
      const { id } = keyOf(name)
      t.notOk((await ids()).includes(id), name)
      t.equal((await shop.get(`${KEYS}/${id}`)).statusCode, 404, name)
      t.equal((await shop.delete(`${KEYS}/${id}`)).statusCode, 404, name)
      t.equal((await shop.post(`${KEYS}/${id}/rotate-secret`)).statusCode, 404, name)
      t.equal((await keyOf(name).client.get(`${KEYS}/scope`)).statusCode, 200, 'and still works')
    }
    t.equal((await shop.get(`${KEYS}?proj_id=blog`)).statusCode, 404)
    t.ok((await ids('&proj_id=shop')).includes(keyOf('live').id))
    t.ok((await ids('&object_type=project')).includes(keyOf('shop').id))
    t.notOk((await ids('&object_type=env')).includes(keyOf('shop').id))
    t.match((await keyOf('org').client.get(`${KEYS}?object_type=env&proj_id=blog&per_page=1`)).json(), {
      data: [{ id: keyOf('blog dev').id, object_type: 'env' }],
      total_count: 1,
      page_count: 1,
    })
  })
  await t.test('a key gives nothing that outlasts it', async (t) => {
    const expires_at = new Date(Date.now() + 3_600_000).toISOString()
    const later = new Date(Date.now() + 7_200_000).toISOString()
    const passing = await anApiKey(postern, { level: 'org', expires_at })
    const org = { name: 'x', access: 'full', level: 'org' }

    const inherited = await make(passing.client, { object_type: 'org' })
    t.equal(inherited.statusCode, 200)
    const { id } = inherited.json<Shown>()
    t.match((await root.get(`/api/v1/api-keys/${id}`)).json(), { expires_at })
    t.equal((await passing.client.post('/api/v1/api-keys', { ...org, expires_at: later })).statusCode, 403)
    t.equal((await passing.client.post(`${KEYS}/${keyOf('org').id}/rotate-secret`)).statusCode, 403)
    t.equal((await passing.client.post(`${KEYS}/${passing.id}/rotate-secret`)).statusCode, 200, 'itself')
  })
  await t.test('and nothing once it is revoked, however quickly it asks', async (t) => {
    const doomed = await anApiKey(postern, { level: 'org' })
    const [revoked, ...made] = await Promise.all([
      root.delete(`/api/v1/api-keys/${doomed.id}`),
      ...Array.from(
        { length: 6 },
        async (_, n) => await make(doomed.client, { object_type: 'org', name: `d${n}` }),
      ),
    ])

    t.equal(revoked?.statusCode, 204)
    for (const { statusCode } of made) t.ok([200, 401].includes(statusCode), String(statusCode))
    t.equal((await make(doomed.client, { object_type: 'org' })).statusCode, 401)
  })
  await t.test('what no key can be is refused', async (t) => {
    const org = keyOf('org').client
    for (const body of [
      { object_type: 'project' },
      { object_type: 'org', project_id: 'shop' },
      { object_type: 'project', project_id: 'shop', environment_id: 'dev' },
      { object_type: 'env', project_id: 'shop' },
      { object_type: 'magic' },
      { object_type: 'org', access_level: 'root' },
      { object_type: 'org', owner_type: 'elements' },
      { object_type: 'org', organization_id: NO_SUCH_ID },
      { object_type: 'org', name: '' },
    ]) {
      const refused = await make(org, body)
      t.match(
        [refused.statusCode, refused.json()],
        [422, { detail: [{ loc: ['body', String] }] }],
        JSON.stringify(body),
      )
    }
    for (const path of [NO_SUCH_ID, 'x', '%00', 'scope%2F'])
      t.equal((await org.get(`${KEYS}/${path}`)).statusCode, 404, path)
    t.equal((await make(org, { project_id: 'shop', environment_id: 'no/pe' })).statusCode, 404)
  })
  await t.test('a super admin manages all of them here too', async (t) => {
    const made = (await make(root, { object_type: 'org', access_level: 'admin' })).json<Shown>()

    t.equal((await as(made.secret).get('/v2/projects')).statusCode, 200)
    t.equal((await root.delete(`${KEYS}/${made.id}`)).statusCode, 204)
    t.equal((await root.delete(`${KEYS}/${made.id}`)).statusCode, 404)
    t.equal((await as(made.secret).get('/v2/projects')).statusCode, 401)
  })
})

t.test('what a key may do is for its level and its access to say', async (t) => {
  const postern = await buildTestApp(t)
  await aWorld(postern)
  const { root, as, services } = postern
  const { pool } = services.database
  const header = inEnvironment('shop/dev')
  let made = 0
  const fresh = (what: string): string => `${what}-${++made}`

  const LEVELS = [
    ['org', { level: 'org' }],
    ['project', { level: 'project', project: 'shop' }],
    ['environment', { environment: 'shop/dev' }],
  ] as const
  const KEEPERS = ['org full', 'project full']
  const WRITERS = [
    'org full',
    'org write',
    'project full',
    'project write',
    'environment full',
    'environment write',
  ]
  const EVERYBODY = [...WRITERS, 'org read', 'project read', 'environment read']

  const anotherKey = async () =>
    `${(await anApiKey(postern, { environment: 'shop/live', access: 'read' })).id}`
  const anotherEnvironment = async () => await anEnvironment(postern, { project: 'shop' })
  async function anotherProject(): Promise<{ id: string; key: string }> {
    return (await root.post('/api/v1/projects', { key: fresh('project'), name: 'Another' })).json()
  }
  const keyOf = (name: string) => name.slice(name.indexOf('/') + 1)
  type Call = { path?: string; body?: object }
  type Row = [who: string[], route: string, make?: () => Promise<Call>]
  const ROUTES: Row[] = [
    [EVERYBODY, 'GET /v2/facts/shop/dev/users'],
    [EVERYBODY, 'GET /v2/schema/shop/dev/roles'],
    [EVERYBODY, 'GET /v2/projects'],
    [EVERYBODY, 'GET /v2/projects/shop'],
    [EVERYBODY, 'GET /v2/projects/shop/envs'],
    [EVERYBODY, 'GET /v2/projects/shop/envs/dev'],
    [EVERYBODY, 'GET /v2/projects/shop/envs/dev/stats'],
    [EVERYBODY, 'GET /v2/api-key/scope'],
    [
      EVERYBODY,
      'POST /allowed',
      async () => ({ body: { user: { key: 'ada' }, action: 'read', resource: { type: 'document' } } }),
    ],
    [WRITERS, 'POST /v2/facts/shop/dev/users', async () => ({ body: { key: fresh('user') } })],
    [WRITERS, 'POST /v2/facts/shop/dev/tenants', async () => ({ body: { key: fresh('tenant'), name: 'T' } })],
    [WRITERS, 'POST /v2/schema/shop/dev/roles', async () => ({ body: { key: fresh('role'), name: 'R' } })],
    [WRITERS, 'POST /api/v1/roles', async () => ({ body: { name: fresh('role'), scopes: ['post:read'] } })],
    [WRITERS, 'POST /api/v1/users', async () => ({ body: { email: `${fresh('user')}@postern.test` } })],
    [['org full'], 'POST /v2/projects', async () => ({ body: { key: fresh('project'), name: 'P' } })],
    [['org full'], 'POST /api/v1/projects', async () => ({ body: { key: fresh('project'), name: 'P' } })],
    [['org full'], 'DELETE /v2/projects', async () => ({ path: `/${(await anotherProject()).key}` })],
    [['org full'], 'DELETE /api/v1/projects', async () => ({ path: `/${(await anotherProject()).id}` })],
    [KEEPERS, 'PATCH /v2/projects/shop', async () => ({ body: { name: fresh('Shop') } })],
    [KEEPERS, 'GET /api/v1/projects'],
    [KEEPERS, 'GET /api/v1/environments'],
    [KEEPERS, 'POST /v2/projects/shop/envs', async () => ({ body: { key: fresh('env'), name: 'E' } })],
    [
      KEEPERS,
      'POST /api/v1/environments',
      async () => ({ body: { project: 'shop', key: fresh('env'), name: 'E' } }),
    ],
    [KEEPERS, 'PATCH /v2/projects/shop/envs/dev', async () => ({ body: { name: fresh('Dev') } })],
    [
      KEEPERS,
      'PATCH /api/v1/environments',
      async () => ({ path: `/${(await anotherEnvironment()).id}`, body: { name: 'Renamed' } }),
    ],
    [
      KEEPERS,
      'POST /v2/projects/shop/envs/dev/copy',
      async () => ({ body: { target_env: { new: { key: fresh('env'), name: 'Copy' } } } }),
    ],
    [
      KEEPERS,
      'DELETE /v2/projects/shop/envs',
      async () => ({ path: `/${keyOf((await anotherEnvironment()).name)}` }),
    ],
    [KEEPERS, 'DELETE /api/v1/environments', async () => ({ path: `/${(await anotherEnvironment()).id}` })],
    [KEEPERS, 'GET /v2/api-key'],
    [KEEPERS, 'GET /v2/api-key', async () => ({ path: `/${await anotherKey()}` })],
    [KEEPERS, 'GET /v2/api-key/shop/dev'],
    [KEEPERS, 'GET /api/v1/api-keys'],
    [KEEPERS, 'GET /api/v1/api-keys', async () => ({ path: `/${await anotherKey()}` })],
    ...(['admin', 'write', 'read'] as const).map(
      (access_level): Row => [
        KEEPERS,
        'POST /v2/api-key',
        async () => ({ body: { project_id: 'shop', environment_id: 'dev', access_level } }),
      ],
    ),
    ...(['full', 'write', 'read'] as const).map(
      (access): Row => [
        KEEPERS,
        'POST /api/v1/api-keys',
        async () => ({ body: { name: 'x', environment: 'shop/dev', access } }),
      ],
    ),
    [KEEPERS, 'POST /v2/api-key', async () => ({ path: `/${await anotherKey()}/rotate-secret` })],
    [KEEPERS, 'POST /api/v1/api-keys', async () => ({ path: `/${await anotherKey()}/rotate` })],
    [KEEPERS, 'DELETE /v2/api-key', async () => ({ path: `/${await anotherKey()}` })],
    [KEEPERS, 'DELETE /api/v1/api-keys', async () => ({ path: `/${await anotherKey()}` })],
  ]
  /** All that only keys of full access may change. */
  const kept = async () =>
    (
      await pool.query(`select (select json_agg(p order by id) from projects p) as projects,
        (select json_agg(e order by id) from environments e) as environments,
        (select json_agg(to_jsonb(k) - 'last_used_at' order by id) from api_keys k) as keys`)
    ).rows

  // The environment has a key of its own, so that there is one to be seen.
  await secretOf(root, 'shop/dev')
  const objects = new Map<Row, Call>()
  for (const row of ROUTES) objects.set(row, (await row[2]?.()) ?? {})

  for (const [level, opens] of LEVELS)
    for (const access of ['full', 'write', 'read'] as const) {
      const who = `${level} ${access}`
      await t.test(who, async (t) => {
        const { client } = await anApiKey(postern, { ...opens, access })
        const send = async ([, route]: Row, { path = '', body }: Call = {}) => {
          const [method, url = ''] = route.split(' ')
          const answer = await client.send(method as Method, url + path, body, header)
          return { ...answer, said: `${route} ${answer.statusCode} ${answer.body.slice(0, 200)}` }
        }
        const before = await kept()
        for (const row of ROUTES.filter(([allowed]) => !allowed.includes(who))) {
          const { statusCode, body, said } = await send(row, objects.get(row))
          // A project that a key does not open is not there for it.
          if (who !== 'project full' || statusCode !== 404) t.equal(statusCode, 403, said)
          t.notMatch(body, 'permit_key_', said)
        }
        t.same(await kept(), before, 'what is refused changes nothing')
        for (const row of ROUTES.filter(([allowed]) => allowed.includes(who))) {
          const { statusCode, said } = await send(row, await row[2]?.())
          t.ok(statusCode < 300, said)
        }
      })
    }

  await t.test('each kind is made over Permit’s API and shown by both', async (t) => {
    const org = (await anApiKey(postern, { level: 'org' })).client
    for (const [access_level, access] of [
      ['admin', 'full'],
      ['write', 'write'],
      ['read', 'read'],
    ] as const)
      for (const [object_type, ids] of [
        ['org', {}],
        ['project', { project_id: 'shop' }],
        ['env', { project_id: 'shop', environment_id: 'dev' }],
      ] as const) {
        const { id, ...issued } = (await org.post(KEYS, { object_type, access_level, ...ids })).json<Shown>()
        t.match(
          [issued.access_level, (await org.get(`${KEYS}/${id}`)).json()],
          [access_level, { access_level, object_type }],
        )
        t.match((await root.get(`/api/v1/api-keys/${id}`)).json(), { access })
        const rotated = (await org.post(`${KEYS}/${id}/rotate-secret`)).json<Shown>()
        t.equal(rotated.access_level, access_level, 'also when it is rotated')
        const writes = await as(rotated.secret).put(`/v2/facts/shop/dev/users/${fresh('user')}`, {})
        t.equal(writes.statusCode, access === 'read' ? 403 : 201, `${object_type} ${access_level}`)
      }
  })

  await t.test(
    'a key of a project makes one that writes there, and none that writes elsewhere',
    async (t) => {
      const shop = (await anApiKey(postern, { level: 'project', project: 'shop' })).client
      for (const [body, status] of [
        [{ object_type: 'project', project_id: 'shop' }, 200],
        [{ object_type: 'project', project_id: 'blog' }, 404],
        [{ project_id: 'blog', environment_id: 'dev' }, 404],
        [{ object_type: 'org' }, 403],
      ] as const)
        t.equal((await shop.post(KEYS, { ...body, access_level: 'write' })).statusCode, status)
      const { client } = await anApiKey(postern, { level: 'project', project: 'shop', access: 'write' })
      for (const [path, status] of [
        ['shop/live', 201],
        ['blog/dev', 403],
        ['default/default', 403],
      ] as const)
        t.equal((await client.put(`/v2/facts/${path}/users/${fresh('user')}`, {})).statusCode, status, path)
    },
  )

  await t.test('a key that a process of the version before has made as `write` is one', async (t) => {
    const { id, client } = await anApiKey(postern, { environment: 'shop/dev' })
    await pool.query('update api_keys set is_called_write = true where id = $1', [id])

    t.match((await root.get(`${KEYS}/${id}`)).json(), { access_level: 'write', object_type: 'env' })
    t.match((await root.get(`/api/v1/api-keys/${id}`)).json(), { access: 'write' })
    t.equal((await client.put('/v2/facts/shop/dev/users/late', {})).statusCode, 201)
    t.equal((await client.get(`${KEYS}/shop/dev`)).statusCode, 403)
  })

  await t.test('and the SDK works with one that writes, and gets no further', async (t) => {
    const { url } = await listenForSdk(t, postern)
    const apiOf = async (opens: object) =>
      sdk(url, (await anApiKey(postern, { ...opens, access: 'write' })).key).api
    const [org, project, dev] = [
      await apiOf(LEVELS[0][1]),
      await apiOf(LEVELS[1][1]),
      await apiOf(LEVELS[2][1]),
    ]

    t.equal((await dev.users.create({ key: 'sue' })).key, 'sue')
    t.equal((await dev.roles.create({ key: 'clerk', name: 'Clerk' })).key, 'clerk')
    const granted = await dev.users.assignRole({ user: 'sue', role: 'clerk', tenant: 'default' })
    t.equal(granted.role, 'clerk')
    for (const { projects, environments } of [org, project]) {
      t.ok((await projects.list()).some(({ key }) => key === 'shop'))
      const target_env = { new: { key: 'mine', name: 'Mine' } }
      for (const call of [
        async () => await projects.update('shop', { name: 'Mine' }),
        async () => await environments.create('shop', { key: 'mine', name: 'Mine' }),
        async () => await environments.copy('shop', 'dev', { target_env }),
        async () => await environments.delete('shop', 'live'),
        async () => await environments.getApiKey('shop', 'dev'),
      ])
        t.equal(await refusalOf(call()), '403 FORBIDDEN_ACCESS', String(call))
    }
    t.equal(await refusalOf(org.projects.create({ key: 'mine', name: 'Mine' })), '403 FORBIDDEN_ACCESS')
    t.equal(await refusalOf(org.projects.delete('blog')), '403 FORBIDDEN_ACCESS')
  })
})
