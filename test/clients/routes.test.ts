import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { NO_SUCH_ID } from '../helpers/hostile.ts'
import { aClient, basic, type RegisteredClient, sendForm } from '../helpers/oauth.ts'

type Shown = RegisteredClient & { secrets: { id: string; hint: string; expires_at: string | null }[] }

const postern = await buildTestApp(t)
const { root } = postern
const PATH = '/api/v1/clients'
const works = async (client: RegisteredClient): Promise<boolean> =>
  (await sendForm(postern, '/oauth2/token', { grant_type: 'client_credentials' }, basic(client)))
    .statusCode === 200
const jwk = (type: 'ec' | 'rsa', bits = 2048) =>
  (type === 'ec'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('rsa', { modulusLength: bits })
  ).publicKey.export({ format: 'jwk' })

t.test(
  'a client is registered, read, changed and deleted; its secret is shown once and stored as a hash',
  async (t) => {
    const created = await root.post(PATH, {
      name: 'orders',
      grant_types: ['client_credentials'],
      scopes: ['post:read'],
      audiences: ['https://orders.example.com'],
      token_endpoint_auth_method: 'client_secret_basic',
    })
    const client = created.json<Shown>()
    const path = `${PATH}/${client.client_id}`
    const etag = String(created.headers.etag)

    t.equal(created.statusCode, 201)
    t.equal(created.headers.location, path)
    t.equal(created.headers['cache-control'], 'no-store')
    t.match(client.client_secret, /^[\w-]{43}$/)
    const read = await root.get(path)
    const { client_secret, ...rest } = client
    t.strictSame(read.json(), rest)
    const stored = await postern.services.database.pool.query('select * from client_secrets')
    t.notMatch(JSON.stringify(stored.rows), client_secret)

    const renamed = await root.patch(path, { name: 'Orders' }, { 'if-match': etag })
    t.match([renamed.statusCode, renamed.json()], [200, { name: 'Orders', scopes: ['post:read'] }])
    t.equal((await root.put(path, { name: 'x' }, { 'if-match': etag })).statusCode, 412)
    t.equal((await root.delete(path, { 'if-match': etag })).statusCode, 412)
    t.ok(await works(client))
    t.ok(
      (await root.get(`${PATH}?total=true`))
        .json<Shown[]>()
        .some(({ client_id }) => client_id === client.client_id),
    )
    t.equal((await root.delete(path)).statusCode, 204)
    t.notOk(await works(client))
    t.equal((await root.get(path)).statusCode, 404)
    const audit = await root.get(`/api/v1/audit-events?target_id=${client.client_id}&outcome=success`)
    t.same(
      audit.json<{ action: string }[]>().map(({ action }) => action),
      ['client.deleted', 'client.updated', 'client.created'],
    )
  },
)

t.test('two secrets hold at once, so that one can replace the other', async (t) => {
  const client = await aClient(postern)
  const path = `${PATH}/${client.client_id}/secrets`
  const second = (await root.post(path, {})).json<Shown>()
  t.ok((await works(client)) && (await works(second)))

  const third = await root.post(path, {})
  t.match([third.statusCode, third.json()], [409, { type: '/problems/limit_reached' }])

  const [first] = second.secrets
  t.equal((await root.delete(`${path}/${first?.id}`)).statusCode, 204)
  t.notOk(await works(client))
  t.ok(await works(second))
  t.equal((await root.delete(`${path}/${first?.id}`)).statusCode, 404)
  const last = await root.post(path, { others_expire_at: '2020-01-01T00:00:00Z' })
  t.equal(last.statusCode, 201)
  t.notOk(await works(second), 'the one before has expired')
  t.ok(await works(last.json<Shown>()))
  const other = await aClient(postern)
  const foreign = `${path}/${(await root.get(`${PATH}/${other.client_id}`)).json<Shown>().secrets[0]?.id}`
  t.equal((await root.delete(foreign)).statusCode, 404, 'not through another client')
})

t.test('of many secrets that are asked for at once no third one comes', async (t) => {
  const client = await aClient(postern)
  const statuses = await Promise.all(
    Array.from(
      { length: 4 },
      async () => (await root.post(`${PATH}/${client.client_id}/secrets`, {})).statusCode,
    ),
  )
  t.same(statuses.sort(), [201, 409, 409, 409])
})

t.test('nobody makes, changes or takes over a client that may do more here than they', async (t) => {
  const maker = await aClient(postern, {
    scopes: ['postern.clients:read', 'postern.clients:write', 'postern.users:read'],
  })
  const issued = await sendForm(postern, '/oauth2/token', { grant_type: 'client_credentials' }, basic(maker))
  const machine = postern.as(issued.json<{ access_token: string }>().access_token)
  const strong = await aClient(postern, { scopes: ['postern.users:write'] })
  const make = async (scopes: string[]) => (await machine.post(PATH, { name: 'x', scopes })).statusCode

  t.equal(await make(['postern.users:read', 'post:read']), 201)
  for (const scopes of [
    ['postern.users:write'],
    ['postern.keys:rotate'],
    ['postern.users:read', 'postern.audit:read'],
  ])
    t.equal(await make(scopes), 403, String(scopes))
  const path = `${PATH}/${strong.client_id}`
  t.match((await machine.patch(path, { name: 'mine' })).json(), { type: '/problems/grant_exceeds_own' })
  t.equal((await machine.post(`${path}/secrets`, {})).statusCode, 403)
  t.equal((await machine.delete(path)).statusCode, 403)
  t.equal(
    (await machine.patch(`${PATH}/${maker.client_id}`, { scopes: ['postern.users:delete'] })).statusCode,
    403,
  )
  t.ok(await works(strong))
  t.equal((await (await anApiKey(postern)).client.post(PATH, { name: 'x' })).statusCode, 403)
  t.equal((await (await postern.person('ADMIN')).client.get(PATH)).statusCode, 403)
})

t.test('a client takes nobody over: it goes by the rule of API keys', async (t) => {
  const scopes = ['users:read', 'users:write', 'users:delete', 'roles:read', 'roles:assign']
  const client = await aClient(postern, { scopes: scopes.map((scope) => `postern.${scope}`) })
  const issued = await sendForm(postern, '/oauth2/token', { grant_type: 'client_credentials' }, basic(client))
  const machine = postern.as(issued.json<{ access_token: string }>().access_token)
  const { id } = await postern.person()
  const path = `/api/v1/users/${id}`

  for (const change of [{ email: 'mine@postern.test' }, { is_active: false }, { key: 'mine' }])
    t.match((await machine.patch(path, change)).json(), { type: '/problems/user_is_protected' })
  t.match((await machine.patch(path, { password: 'a password of mine' })).statusCode, 409)
  t.equal((await machine.delete(path)).statusCode, 409)
  const made = await machine.post('/api/v1/users', { key: 'synced', email: 'synced@postern.test' })
  t.equal(made.statusCode, 201, made.body)
  const withPassword = { email: 'x@postern.test', password: 'a password of mine', full_name: 'X' }
  t.match((await machine.post('/api/v1/users', withPassword)).json(), {
    errors: [{ pointer: '/body/password' }],
  })
  const guest = { user_id: id, role_id: await postern.roleId('GUEST') }
  t.match((await machine.post('/api/v1/user-roles', guest)).json(), { type: '/problems/grant_exceeds_own' })
  t.equal((await machine.patch(path, { full_name: 'Renamed' })).statusCode, 200)
})

t.test('what makes no sense is refused, and nothing is kept', async (t) => {
  const count = async () => Number((await root.get(`${PATH}?total=true`)).headers['x-total-count'])
  const before = await count()
  const ec = jwk('ec')
  const KEYS = { token_endpoint_auth_method: 'private_key_jwt' }
  const bodies: [string, object][] = [
    ['an unknown grant', { grant_types: ['password'] }],
    ['an unknown method', { token_endpoint_auth_method: 'client_secret_jwt' }],
    ['a public client with client_credentials', { token_endpoint_auth_method: 'none' }],
    ['a built-in permission that is none', { scopes: ['postern.users:admin'] }],
    ['a built-in resource that is none', { scopes: ['postern.__proto__:read'] }],
    ['a reach', { scopes: ['postern.users:read:any'] }],
    ['a scope with a space', { scopes: ['a b'] }],
    ['a scope with a quote', { scopes: ['a"b'] }],
    ['the same scope twice', { scopes: ['a:b', 'a:b'] }],
    ['a relative audience', { audiences: ['/orders'] }],
    ['an audience with a fragment', { audiences: ['https://a.test/#x'] }],
    ['keys without private_key_jwt', { jwks: { keys: [ec] } }],
    ['private_key_jwt without keys', KEYS],
    ['no key', { ...KEYS, jwks: { keys: [] } }],
    ['a private key', { ...KEYS, jwks: { keys: [{ ...ec, d: 'AAAA' }] } }],
    ['a secret key', { ...KEYS, jwks: { keys: [{ kty: 'oct', k: 'AAAA' }] } }],
    ['a short RSA key', { ...KEYS, jwks: { keys: [jwk('rsa', 1024)] } }],
    ['a point that is not on the curve', { ...KEYS, jwks: { keys: [{ ...ec, x: ec.y, y: ec.y }] } }],
    [
      'another curve',
      {
        ...KEYS,
        jwks: {
          keys: [generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' })],
        },
      },
    ],
    ['a key for encryption', { ...KEYS, jwks: { keys: [{ ...ec, use: 'enc' }] } }],
    ['two keys without names', { ...KEYS, jwks: { keys: [ec, jwk('ec')] } }],
    [
      'two keys of one name',
      {
        ...KEYS,
        jwks: {
          keys: [
            { ...ec, kid: 'a' },
            { ...jwk('ec'), kid: 'a' },
          ],
        },
      },
    ],
    ['an address of keys', { ...KEYS, jwks_uri: 'http://127.0.0.1/keys' }],
    ['an id of one’s own', { client_id: postern.rootId }],
    ['U+0000', { name: '\u0000' }],
  ]

  for (const [what, body] of bodies)
    t.equal((await root.post(PATH, { name: 'x', ...body })).statusCode, 422, what)
  t.equal((await root.post(PATH, { name: 'x', account_id: NO_SUCH_ID })).statusCode, 404)
  t.equal(await count(), before)
  const keyed = await root.post(PATH, {
    name: 'x',
    ...KEYS,
    jwks: {
      keys: [
        { ...ec, kid: 'a' },
        { ...jwk('rsa'), kid: 'b' },
      ],
    },
  })
  t.equal(keyed.statusCode, 201)
  t.notOk('client_secret' in keyed.json<object>())
  const { client_id } = keyed.json<Shown>()
  t.equal((await root.post(`${PATH}/${client_id}/secrets`, {})).statusCode, 409)
  t.equal(
    (await root.patch(`${PATH}/${client_id}`, { jwks: { keys: [{ kty: 'oct', k: 'AAAA' }] } })).statusCode,
    422,
  )
})

t.test('the id of a client is never that of a person', async (t) => {
  const insertion = postern.services.database.pool.query(
    `insert into clients (id, environment_id, name, grant_types, scopes, audiences, token_endpoint_auth_method)
     select id, environment_id, 'x', '{}', '{}', '{}', 'none' from users where id = $1`,
    [postern.rootId],
  )

  await t.rejects(insertion, { message: 'a user has this id' })
})
