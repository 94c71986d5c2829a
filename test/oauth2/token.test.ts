import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, SignJWT } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t from 'tap'
import { anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { aClient, basic, fetchOf, type RegisteredClient, sendForm } from '../helpers/oauth.ts'

const ISSUER = 'http://postern.test'
const TOKEN = '/oauth2/token'
const ORDERS = 'https://orders.example.com'
const BILLING = 'https://billing.example.com'

type Answer = Record<string, unknown> & { access_token: string }

const postern = await buildTestApp(t)

t.test('client_credentials', async (t) => {
  const scopes = ['post:read', 'post:write', 'postern.accounts:read']
  const client = await aClient(postern, { scopes })
  const ask = async (form: Record<string, string> | [string, string][], headers = basic(client)) =>
    await sendForm(postern, TOKEN, form, headers)
  const GRANT = { grant_type: 'client_credentials' }
  const oauthOptions = {
    [oauth.allowInsecureRequests]: true as const,
    [oauth.customFetch]: fetchOf(postern),
  }
  const server = await oauth.processDiscoveryResponse(
    new URL(ISSUER),
    await oauth.discoveryRequest(new URL(ISSUER), { ...oauthOptions, algorithm: 'oauth2' }),
  )

  await t.test('gives a token that oauth4webapi and its RFC 9068 validation accept', async (t) => {
    const response = await oauth.clientCredentialsGrantRequest(
      server,
      { client_id: client.client_id },
      oauth.ClientSecretBasic(client.client_secret),
      {},
      oauthOptions,
    )
    const issued = await oauth.processClientCredentialsResponse(server, client, response)
    const request = new Request(`${ISSUER}/api/v1/accounts`, {
      headers: { authorization: `Bearer ${issued.access_token}` },
    })
    const claims = await oauth.validateJwtAccessToken(server, request, ISSUER, oauthOptions)

    t.equal(claims.sub, client.client_id)
    t.equal(claims.client_id, client.client_id)
    t.equal(issued.refresh_token, undefined)
    t.equal(issued.expires_in, 900)
    t.same(claims['roles'], [])
    t.notOk('role' in claims)
    t.notOk('sid' in claims)
    t.equal(claims['account_id'], null)
    t.equal(decodeProtectedHeader(issued.access_token).typ, 'at+jwt')
    t.equal((await postern.as(issued.access_token).get('/api/v1/accounts')).statusCode, 200)
  })

  await t.test('works with openid-client, by post where the client is registered for it', async (t) => {
    const poster = await aClient(postern, { scopes, token_endpoint_auth_method: 'client_secret_post' })
    const config = await openid.discovery(
      new URL(ISSUER),
      poster.client_id,
      poster.client_secret,
      openid.ClientSecretPost(poster.client_secret),
      {
        algorithm: 'oauth2',
        execute: [openid.allowInsecureRequests],
        [openid.customFetch]: fetchOf(postern),
      },
    )

    const issued = await openid.clientCredentialsGrant(config, { scope: 'post:read' })
    const told = await openid.tokenIntrospection(config, issued.access_token)
    await openid.tokenRevocation(config, issued.access_token)
    const afterwards = await openid.tokenIntrospection(config, issued.access_token)

    t.equal(issued.scope, 'post:read')
    t.match(told, { active: true, client_id: poster.client_id, scope: 'post:read', iss: ISSUER })
    t.strictSame({ ...afterwards }, { active: false })
    t.equal((await ask(GRANT, basic(poster))).statusCode, 200, 'Basic is for everybody with a secret')
  })

  await t.test('holds what is asked for and registered, and says it', async (t) => {
    const all = (await ask(GRANT)).json<Answer>()
    const some = (await ask({ ...GRANT, scope: 'post:read post:delete  unknown' })).json<Answer>()
    const none = await ask({ ...GRANT, scope: 'post:delete' })
    const empty = (await ask({ ...GRANT, scope: '', resource: '' })).json<Answer>()

    t.equal(
      all['scope'],
      scopes
        .flatMap((scope) => [scope, `${scope}:any`])
        .sort()
        .join(' '),
    )
    t.equal(decodeJwt(all.access_token)['scope'], all['scope'])
    t.equal(some['scope'], 'post:read')
    t.equal(decodeJwt(some.access_token)['scope'], 'post:read')
    t.equal(empty['scope'], all['scope'], 'a parameter without a value is one that was not sent')
    t.match([none.statusCode, none.json<Answer>()], [400, { error: 'invalid_scope' }])
    t.equal((await postern.as(all.access_token).get('/api/v1/users')).statusCode, 403)
  })

  await t.test('is bound to one account where the client is', async (t) => {
    const own = await aClient(postern, { scopes, account_id: postern.home })
    const other = await postern.account()
    const { access_token, scope } = (await ask(GRANT, basic(own))).json<Answer>()
    const machine = postern.as(access_token)

    t.equal(scope, [...scopes].sort().join(' '))
    t.equal(decodeJwt(access_token)['account_id'], postern.home)
    t.equal((await machine.get(`/api/v1/accounts/${postern.home}`)).statusCode, 200)
    t.equal((await machine.get(`/api/v1/accounts/${other}`)).statusCode, 404)
    t.equal((await machine.get('/api/v1/accounts')).statusCode, 403)
    t.equal((await machine.get('/api/v1/users/me')).statusCode, 403, 'a machine has no record of its own')
  })

  await t.test('answers are kept by nobody, errors neither', async (t) => {
    for (const response of [
      await ask(GRANT),
      await ask({ grant_type: 'magic' }),
      await ask(GRANT, {} as never),
    ]) {
      t.equal(response.headers['cache-control'], 'no-store')
      t.equal(response.headers.pragma, 'no-cache')
      t.match(response.headers['content-type'], /^application\/json/)
    }
  })

  await t.test('every fault has the answer that RFC 6749 gives it', async (t) => {
    const publicClient = await aClient(postern, {
      token_endpoint_auth_method: 'none',
      grant_types: ['refresh_token'],
    })
    const refresher = await aClient(postern, { grant_types: ['refresh_token'] })
    const id = client.client_id
    const secret = client.client_secret
    const wrong = basic({ ...client, client_secret: 'wrong' })
    const asPublic = { client_id: publicClient.client_id }
    const cases: [string, [string, string][], Record<string, string>, number, string][] = [
      ['no grant type', [], basic(client), 400, 'invalid_request'],
      [
        'a repeated parameter',
        [
          ['grant_type', 'client_credentials'],
          ['grant_type', 'client_credentials'],
        ],
        basic(client),
        400,
        'invalid_request',
      ],
      [
        'a repeated scope',
        [...Object.entries(GRANT), ['scope', 'post:read'], ['scope', 'post:write']],
        basic(client),
        400,
        'invalid_request',
      ],
      ['an unknown grant type', [['grant_type', 'magic']], basic(client), 400, 'unsupported_grant_type'],
      [
        'the password grant',
        Object.entries({ grant_type: 'password', username: 'root@postern.test', password: PASSWORD }),
        basic(client),
        400,
        'unsupported_grant_type',
      ],
      [
        'the password grant of nobody',
        Object.entries({ grant_type: 'password', username: 'root@postern.test', password: PASSWORD }),
        {},
        400,
        'unsupported_grant_type',
      ],
      [
        'the code grant',
        [
          ['grant_type', 'authorization_code'],
          ['code', 'x'],
        ],
        basic(client),
        400,
        'unsupported_grant_type',
      ],
      ['no credentials', Object.entries(GRANT), {}, 401, 'invalid_client'],
      ['a wrong secret', Object.entries(GRANT), wrong, 401, 'invalid_client'],
      [
        'an empty secret',
        Object.entries(GRANT),
        basic({ ...client, client_secret: '' }),
        401,
        'invalid_client',
      ],
      [
        'an unknown client',
        Object.entries(GRANT),
        basic({ ...client, client_id: crypto.randomUUID() }),
        401,
        'invalid_client',
      ],
      [
        'a client id that is no id',
        Object.entries(GRANT),
        basic({ ...client, client_id: "' or 1=1 --" }),
        401,
        'invalid_client',
      ],
      [
        'Basic without a colon',
        Object.entries(GRANT),
        { authorization: `Basic ${Buffer.from(id).toString('base64')}` },
        401,
        'invalid_client',
      ],
      [
        'Basic that is not base64',
        Object.entries(GRANT),
        { authorization: 'Basic %%%' },
        401,
        'invalid_client',
      ],
      [
        'Basic with a broken escape',
        Object.entries(GRANT),
        { authorization: `Basic ${Buffer.from(`${id}:%zz`).toString('base64')}` },
        401,
        'invalid_client',
      ],
      [
        'another scheme',
        Object.entries(GRANT),
        { authorization: `Bearer ${postern.rootToken}` },
        401,
        'invalid_client',
      ],
      [
        'post, registered for Basic',
        Object.entries({ ...GRANT, client_id: id, client_secret: secret }),
        {},
        401,
        'invalid_client',
      ],
      [
        'nothing but the id, registered for Basic',
        Object.entries({ ...GRANT, client_id: id }),
        {},
        401,
        'invalid_client',
      ],
      [
        'Basic and post at once',
        Object.entries({ ...GRANT, client_id: id, client_secret: secret }),
        basic(client),
        400,
        'invalid_request',
      ],
      [
        'Basic and an assertion at once',
        Object.entries({ ...GRANT, client_assertion: 'x' }),
        basic(client),
        400,
        'invalid_request',
      ],
      [
        'Basic of one and the id of another',
        Object.entries({ ...GRANT, client_id: refresher.client_id }),
        basic(client),
        400,
        'invalid_request',
      ],
      ['a public client', Object.entries({ ...GRANT, ...asPublic }), {}, 400, 'unauthorized_client'],
      [
        'the sign-in client itself',
        Object.entries({ ...GRANT, client_id: 'first-party' }),
        {},
        400,
        'unauthorized_client',
      ],
      ['a grant that it does not have', Object.entries(GRANT), basic(refresher), 400, 'unauthorized_client'],
      [
        'a refresh without a token',
        [['grant_type', 'refresh_token']],
        basic(refresher),
        400,
        'invalid_request',
      ],
      [
        'a refresh with a made-up token',
        Object.entries({ grant_type: 'refresh_token', refresh_token: 'x.y' }),
        basic(refresher),
        400,
        'invalid_grant',
      ],
      [
        'an unknown resource',
        Object.entries({ ...GRANT, resource: ORDERS }),
        basic(client),
        400,
        'invalid_target',
      ],
      [
        'a resource with a fragment',
        Object.entries({ ...GRANT, resource: `${ISSUER}#x` }),
        basic(client),
        400,
        'invalid_target',
      ],
      [
        'a relative resource',
        Object.entries({ ...GRANT, resource: '/orders' }),
        basic(client),
        400,
        'invalid_target',
      ],
      [
        'U+0000',
        Object.entries({ ...GRANT, client_id: '\u0000', client_secret: '\u0000' }),
        {},
        401,
        'invalid_client',
      ],
    ]

    for (const [what, form, headers, status, error] of cases) {
      const response = await ask(form, headers as never)
      const body = response.json<Record<string, string>>()
      t.match([response.statusCode, body['error']], [status, error], what)
      t.match(body['error_description'], /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/, `${what}: description`)
      t.equal('www-authenticate' in response.headers, status === 401, `${what}: challenge`)
      if (status === 401) t.match(response.headers['www-authenticate'], /^Basic realm=/, what)
    }
  })

  await t.test('it takes forms by POST, and nothing else', async (t) => {
    const { app } = postern
    const json = await app.inject({ method: 'POST', url: TOKEN, payload: GRANT, headers: basic(client) })
    const nothing = await app.inject({ method: 'POST', url: TOKEN, headers: basic(client) })
    const get = await app.inject({ url: `${TOKEN}?grant_type=client_credentials`, headers: basic(client) })
    const inQuery = await sendForm(
      postern,
      `${TOKEN}?client_id=${client.client_id}&client_secret=${client.client_secret}`,
      GRANT,
    )
    const large = await ask({ ...GRANT, x: 'x'.repeat(70_000) })

    t.match([json.statusCode, json.json()], [400, { error: 'invalid_request' }])
    t.match([nothing.statusCode, nothing.json()], [400, { error: 'invalid_request' }])
    t.match([get.statusCode, get.headers.allow], [405, 'POST'])
    t.match([inQuery.statusCode, inQuery.json()], [401, { error: 'invalid_client' }])
    t.equal(large.statusCode, 413)
  })

  await t.test('id and secret in Basic are form-encoded each, and the scheme has any case', async (t) => {
    const escaped = (text: string) =>
      [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
    const pair = Buffer.from(`${escaped(client.client_id)}:${escaped(client.client_secret)}`).toString(
      'base64',
    )

    t.equal((await ask(GRANT, { authorization: `bAsIc ${pair}` })).statusCode, 200)
  })
})

t.test('C.4 9.2.4: a token names the audience that it is for, one of its client’s', async (t) => {
  const client = await aClient(postern, { audiences: [ORDERS, BILLING], scopes: ['post:read'] })
  const ask = async (...resources: string[]) =>
    await sendForm(
      postern,
      TOKEN,
      [['grant_type', 'client_credentials'], ...resources.map((one): [string, string] => ['resource', one])],
      basic(client),
    )
  const audienceOf = async (...resources: string[]) =>
    decodeJwt((await ask(...resources)).json<Answer>().access_token).aud

  t.equal(await audienceOf(), ORDERS, 'the first one by default')
  t.equal(await audienceOf(BILLING), BILLING)
  t.same(await audienceOf(BILLING, ORDERS, BILLING), [BILLING, ORDERS])
  for (const foreign of ['https://orders.example.com.evil.test', `${ORDERS}/`, ISSUER, 'urn:x', `${ORDERS}#`])
    t.match((await ask(ORDERS, foreign)).json(), { error: 'invalid_target' }, foreign)
  const { access_token } = (await ask()).json<Answer>()
  const here = await postern.as(access_token).get('/api/v1/roles')
  t.equal(here.statusCode, 401, 'this service takes only what is for itself')
})

t.test('private_key_jwt', async (t) => {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = { ...(await exportJWK(publicKey)), kid: 'a', alg: 'ES256' }
  const client = await aClient(postern, {
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [jwk] },
  })
  const id = client.client_id
  const server = {
    issuer: ISSUER,
    token_endpoint: `${ISSUER}${TOKEN}`,
  }
  const now = () => Math.floor(Date.now() / 1000)
  const claims = () => ({ iss: id, sub: id, aud: ISSUER, exp: now() + 60, jti: crypto.randomUUID() })
  const sign = async (
    payload: Record<string, unknown>,
    header: Record<string, unknown> = {},
    key = privateKey,
  ) => await new SignJWT(payload).setProtectedHeader({ alg: 'ES256', kid: 'a', ...header }).sign(key)
  const ask = async (assertion: string, more: Record<string, string> = {}) =>
    await sendForm(postern, TOKEN, {
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
      ...more,
    })

  await t.test('of oauth4webapi is accepted', async (t) => {
    const response = await oauth.clientCredentialsGrantRequest(
      server,
      { client_id: id },
      oauth.PrivateKeyJwt({ key: privateKey, kid: 'a' }),
      {},
      { [oauth.allowInsecureRequests]: true, [oauth.customFetch]: fetchOf(postern) },
    )

    t.ok((await oauth.processClientCredentialsResponse(server, { client_id: id }, response)).access_token)
  })

  await t.test('for the issuer or the endpoint is taken once', async (t) => {
    const assertion = await sign(claims())
    const answers = await Promise.all(
      Array.from({ length: 5 }, async () => (await ask(assertion)).statusCode),
    )

    t.same(answers.sort(), [200, 401, 401, 401, 401])
    t.equal((await ask(await sign({ ...claims(), aud: [`${ISSUER}${TOKEN}`] }))).statusCode, 200)
    t.equal(
      (await ask(await sign(claims(), { kid: undefined }))).statusCode,
      200,
      'the only key needs no name',
    )
    t.equal((await ask(await sign(claims()), { client_id: id })).statusCode, 200)
  })

  await t.test('that is not right in everything is refused', async (t) => {
    const other = await generateKeyPair('ES256', { extractable: true })
    const rsa = await generateKeyPair('RS256')
    const another = await aClient(postern)
    const changed = async (changes: Record<string, unknown>) => await sign({ ...claims(), ...changes })
    const [head, body] = (await sign(claims())).split('.')
    const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.`
    const attacks: Record<string, string> = {
      'another key': await sign(claims(), {}, other.privateKey),
      'another key in the header': await sign(
        claims(),
        { jwk: await exportJWK(other.publicKey) },
        other.privateKey,
      ),
      'another algorithm': await new SignJWT(claims())
        .setProtectedHeader({ alg: 'RS256', kid: 'a' })
        .sign(rsa.privateKey),
      'an unknown kid': await sign(claims(), { kid: 'b' }),
      'alg none': none,
      'no signature': `${head}.${body}.`,
      'an unknown crit': `${Buffer.from('{"alg":"ES256","crit":["x"],"x":1}').toString('base64url')}.${body}.AAAA`,
      'another issuer': await changed({ iss: another.client_id }),
      'another subject': await changed({ sub: another.client_id }),
      'another audience': await changed({ aud: 'https://other.example.com' }),
      'two audiences': await changed({ aud: [ISSUER, 'https://other.example.com'] }),
      'no audience': await changed({ aud: undefined }),
      'no exp': await changed({ exp: undefined }),
      'a long life': await changed({ exp: now() + 600 }),
      expired: await changed({ exp: now() - 1 }),
      'exp as text': await changed({ exp: String(now() + 60) }),
      'from tomorrow on': await changed({ nbf: now() + 86_400 }),
      'made tomorrow': await changed({ iat: now() + 86_400 }),
      'no jti': await changed({ jti: undefined }),
      'an empty jti': await changed({ jti: '' }),
      'no JWT': 'x',
    }

    for (const [what, assertion] of Object.entries(attacks)) {
      const response = await ask(assertion)
      // After some of them the client has to wait, which says no less that they are refused.
      t.ok([401, 429].includes(response.statusCode), `${what}: ${response.statusCode}`)
    }
    t.equal((await ask(await sign(claims()))).statusCode, 200, 'the right one works all the while')
    const secret = await sendForm(
      postern,
      TOKEN,
      { grant_type: 'client_credentials' },
      basic({ ...client, client_secret: 'x' }),
    )
    t.ok([401, 429].includes(secret.statusCode))
  })
})

t.test(
  'C.2: failures of one client are slowed down, and neither the client nor people are kept out',
  async (t) => {
    const postern = await buildTestApp(t, { env: { LOGIN_MAX_FAILURES: '3' } })
    const client = await aClient(postern)
    const form = { grant_type: 'client_credentials' }
    const wrong = basic({ ...client, client_secret: 'wrong' })

    const answers = []
    for (let attempt = 0; attempt < 5; attempt++)
      answers.push((await sendForm(postern, TOKEN, form, wrong)).statusCode)
    const blocked = await sendForm(postern, TOKEN, form, wrong)

    t.same(answers, [401, 401, 401, 429, 429])
    t.ok(Number(blocked.headers['retry-after']) > 0)
    t.equal((await sendForm(postern, TOKEN, form, basic(client))).statusCode, 200)
    t.ok(await postern.signIn('root@postern.test'))
    const { rows } = await postern.services.database.pool.query(
      `select target_id, details, repeat_count from audit_events where action = 'client.refused' order by id`,
    )
    t.same(rows, [
      { target_id: client.client_id, details: { method: 'client_secret_basic' }, repeat_count: 3 },
      { target_id: null, details: { reason: 'throttled' }, repeat_count: 3 },
    ])
  },
)

t.test('a token lives as long as its client, in every process', async (t) => {
  const elsewhere = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  elsewhere.services.start()
  const tokenOf = async (client: RegisteredClient) =>
    (await sendForm(postern, TOKEN, { grant_type: 'client_credentials' }, basic(client))).json<Answer>()
      .access_token
  const isTaken = async (app: typeof postern, token: string) =>
    (await app.as(token).get('/api/v1/roles')).statusCode === 200
  const changes: Record<string, (client: RegisteredClient) => Promise<unknown>> = {
    deactivated: async ({ client_id }) =>
      await postern.root.patch(`/api/v1/clients/${client_id}`, { is_active: false }),
    deleted: async ({ client_id }) => await postern.root.delete(`/api/v1/clients/${client_id}`),
    'left with fewer scopes': async ({ client_id }) =>
      await postern.root.patch(`/api/v1/clients/${client_id}`, { scopes: ['post:read'] }),
    'for another audience': async ({ client_id }) =>
      await postern.root.patch(`/api/v1/clients/${client_id}`, { audiences: [ORDERS] }),
    'bound to its account, which is deactivated': async () =>
      await postern.root.post(`/api/v1/accounts/${account}/deactivate`),
  }
  const account = await postern.account()

  for (const [what, change] of Object.entries(changes)) {
    const bound = what.includes('account') ? { account_id: account } : {}
    const client = await aClient(postern, { scopes: ['post:read', 'post:write'], ...bound })
    const token = await tokenOf(client)
    t.ok((await isTaken(postern, token)) && (await isTaken(elsewhere, token)), `${what}: works before`)

    await change(client)

    t.notOk(await isTaken(postern, token), `${what}: refused at once`)
    const until = Date.now() + 5000
    while ((await isTaken(elsewhere, token)) && Date.now() < until)
      await new Promise((go) => setTimeout(go, 20))
    t.notOk(await isTaken(elsewhere, token), `${what}: refused elsewhere`)
  }

  const client = await aClient(postern, { scopes: ['post:read'] })
  const token = await tokenOf(client)
  await postern.root.patch(`/api/v1/clients/${client.client_id}`, {
    name: 'Renamed',
    scopes: ['post:read', 'post:write'],
  })
  t.ok(await isTaken(postern, token), 'what only adds ends nothing')
})

t.test('a client of an environment acts there and nowhere else', async (t) => {
  const environment = await anEnvironment(postern)
  const there = inEnvironment(environment.name)
  const body = { name: 'there', scopes: ['postern.users:read', 'post:read'] }
  const client = (await postern.root.post('/api/v1/clients', body, there)).json<RegisteredClient>()
  const issued = await sendForm(postern, TOKEN, { grant_type: 'client_credentials' }, basic(client))
  const machine = postern.as(issued.json<Answer>().access_token)

  t.same((await machine.get('/api/v1/users')).json(), [], 'not the people of the default environment')
  t.equal((await machine.get('/api/v1/users', inEnvironment('default/default'))).statusCode, 403)
  t.equal((await machine.get('/api/v1/users', there)).statusCode, 200)
  const tooMuch = { name: 'x', scopes: ['postern.keys:rotate'] }
  t.equal((await postern.root.post('/api/v1/clients', tooMuch, there)).statusCode, 422)
  t.equal((await postern.root.get(`/api/v1/clients/${client.client_id}`)).statusCode, 404)
})

t.test('the metadata names what is there, under both names of an issuer with a path', async (t) => {
  const postern = await buildTestApp(t, { env: { PUBLIC_URL: 'http://postern.test/auth' } })
  const metadata = (await postern.anonymous.get('/.well-known/oauth-authorization-server')).json<
    Record<string, unknown>
  >()

  t.equal(metadata['issuer'], 'http://postern.test/auth')
  t.same((await postern.anonymous.get('/.well-known/oauth-authorization-server/auth')).json(), metadata)
  for (const [name, url] of Object.entries(metadata).filter(([key]) => /_endpoint$|_uri$/.test(key))) {
    const path = String(url).replace('http://postern.test/auth', '')
    const response =
      name === 'jwks_uri' ? await postern.anonymous.get(path) : await sendForm(postern, path, {})
    t.ok(response.statusCode !== 404 && response.statusCode < 500, `${name}: ${response.statusCode}`)
  }
  t.same(metadata['grant_types_supported'], [
    'client_credentials',
    'refresh_token',
    'urn:ietf:params:oauth:grant-type:token-exchange',
  ])
  t.notOk('authorization_endpoint' in metadata)
})
