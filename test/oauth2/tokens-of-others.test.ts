import { decodeJwt, exportJWK, generateKeyPair, SignJWT } from 'jose'
import * as oauth from 'oauth4webapi'
import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { aClient, basic, fetchOf, type RegisteredClient, sendForm } from '../helpers/oauth.ts'

const ISSUER = 'http://postern.test'
const ORDERS = 'https://orders.example.com'
const BILLING = 'https://billing.example.com'
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

type Answer = Record<string, unknown> & { access_token: string; refresh_token: string }

const postern = await buildTestApp(t)
const { root } = postern
const role = await root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
const writer = async () => {
  const person = await postern.person('writer')
  const login = await postern.anonymous.post('/api/v1/auth/login', {
    email: person.email,
    password: PASSWORD,
  })
  return { ...person, ...login.json<Answer>() }
}
t.equal(role.statusCode, 201)

const tokenOf = async (client: RegisteredClient, more: Record<string, string> = {}) =>
  (
    await sendForm(postern, '/oauth2/token', { grant_type: 'client_credentials', ...more }, basic(client))
  ).json<Answer>().access_token
const introspect = async (token: string, client: RegisteredClient, more: Record<string, string> = {}) =>
  (await sendForm(postern, '/oauth2/introspect', { token, ...more }, basic(client))).json<
    Record<string, unknown>
  >()
const revoke = async (token: string, headers: Record<string, string>, more: Record<string, string> = {}) =>
  await sendForm(postern, '/oauth2/revoke', { token, ...more }, headers)
const isTaken = async (token: string): Promise<boolean> =>
  (await postern.as(token).get('/api/v1/roles')).statusCode === 200

t.test('introspection (RFC 7662)', async (t) => {
  const service = await aClient(postern, { scopes: ['post:read'] })
  const person = await writer()

  await t.test('tells a service of the tokens that are for it', async (t) => {
    const own = await tokenOf(service)
    const claims = decodeJwt(own)

    t.same(await introspect(own, service), {
      active: true,
      ...claims,
      nbf: claims.iat,
      token_type: 'Bearer',
    })
    t.match(await introspect(person.access_token, service), {
      active: true,
      sub: person.id,
      client_id: 'first-party',
      token_type: 'Bearer',
      scope: 'post:read post:write',
      role: 'writer',
    })
    t.match(await introspect(own, service, { token_type_hint: 'refresh_token' }), { active: true })
  })

  await t.test('says of every other token exactly that it is not active', async (t) => {
    const orders = await aClient(postern, { audiences: [ORDERS] })
    const session = await writer()
    await root.post(`/api/v1/users/${session.id}/deactivate`)
    const [head, , signature] = person.access_token.split('.')
    const forged = Buffer.from(JSON.stringify({ ...decodeJwt(person.access_token), sub: postern.rootId }))
    const tokens = {
      'for another service': await tokenOf(orders),
      'of somebody who is not active': session.access_token,
      'a refresh token of another client': person.refresh_token,
      'a forged one': `${head}.${forged.toString('base64url')}.${signature}`,
      'no token': 'x',
      'two dots': '..',
      'U+0000': '\u0000',
      'very long': 'x'.repeat(20_000),
    }

    for (const [what, token] of Object.entries(tokens)) {
      const response = await sendForm(postern, '/oauth2/introspect', { token }, basic(service))
      t.equal(response.statusCode, 200, what)
      t.equal(response.body, '{"active":false}', what)
      t.equal(response.headers['cache-control'], 'no-store', what)
    }
    t.equal((await introspect(person.access_token, orders))['active'], false)
  })

  await t.test('answers those only who show who they are', async (t) => {
    const token = await tokenOf(service)
    const ask = async (headers: Record<string, string>, more: Record<string, string> = {}) =>
      await sendForm(postern, '/oauth2/introspect', { token, ...more }, headers)
    const bearer = (given: string) => ({ authorization: `Bearer ${given}` })
    const trusted = await ask(bearer(postern.rootToken))

    t.equal((await ask({})).statusCode, 401)
    t.equal((await ask({}, { client_id: 'first-party' })).statusCode, 401, 'a public client is anybody')
    t.match((await ask(bearer('x'))).headers['www-authenticate'], /^Bearer .*invalid_token/)
    t.equal((await ask(bearer(person.access_token))).statusCode, 403)
    t.match(trusted.json(), { active: true, client_id: service.client_id })
    const { refresh_token } = person
    const session = await sendForm(
      postern,
      '/oauth2/introspect',
      { token: refresh_token },
      bearer(postern.rootToken),
    )
    t.match(session.json(), { active: true, sub: person.id, client_id: 'first-party' })
    t.equal((await sendForm(postern, '/oauth2/introspect', {}, basic(service))).statusCode, 400)
    t.equal((await postern.app.inject({ url: `/oauth2/introspect?token=${token}` })).statusCode, 405)
  })
})

t.test('revocation (RFC 7009)', async (t) => {
  const service = await aClient(postern, { scopes: ['post:read'] })
  const elsewhere = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  elsewhere.services.start()
  const FIRST_PARTY = { client_id: 'first-party' }

  await t.test('of an access token ends that one, everywhere', async (t) => {
    const [token, other] = [await tokenOf(service), await tokenOf(service)]
    const takenElsewhere = async () => (await elsewhere.as(token).get('/api/v1/roles')).statusCode === 200
    t.ok((await isTaken(token)) && (await takenElsewhere()))

    const response = await revoke(token, basic(service), { token_type_hint: 'refresh_token' })

    t.match([response.statusCode, response.body], [200, ''])
    t.notOk(await isTaken(token))
    t.same(await introspect(token, service), { active: false })
    t.ok(await isTaken(other))
    const until = Date.now() + 5000
    while ((await takenElsewhere()) && Date.now() < until) await new Promise((go) => setTimeout(go, 20))
    t.notOk(await takenElsewhere())
    const late = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
    t.equal((await late.as(token).get('/api/v1/roles')).statusCode, 401, 'in a process that starts later')
  })

  await t.test('of a refresh token ends the session and its access tokens', async (t) => {
    const person = await writer()
    const issued = await oauth.processRefreshTokenResponse(
      { issuer: ISSUER },
      FIRST_PARTY,
      await oauth.refreshTokenGrantRequest(
        { issuer: ISSUER, token_endpoint: `${ISSUER}/oauth2/token` },
        FIRST_PARTY,
        oauth.None(),
        person.refresh_token,
        { [oauth.allowInsecureRequests]: true, [oauth.customFetch]: fetchOf(postern) },
      ),
    )
    t.ok(await isTaken(issued.access_token))

    await revoke(issued.refresh_token ?? '', {}, FIRST_PARTY)

    t.notOk(await isTaken(issued.access_token))
    t.notOk(await isTaken(person.access_token))
    const again = { grant_type: 'refresh_token', refresh_token: issued.refresh_token ?? '', ...FIRST_PARTY }
    t.match((await sendForm(postern, '/oauth2/token', again)).json(), { error: 'invalid_grant' })
  })

  await t.test('of what is no token is done, of what is another’s is refused', async (t) => {
    const person = await writer()
    const other = await aClient(postern)
    const token = await tokenOf(service)

    for (const nothing of ['x', 'x.y.z', '\u0000', `${crypto.randomUUID()}.${'A'.repeat(43)}`])
      t.equal((await revoke(nothing, basic(service))).statusCode, 200, nothing)
    for (const foreign of [token, person.access_token, person.refresh_token])
      t.match((await revoke(foreign, basic(other))).json(), { error: 'invalid_grant' })
    t.equal((await revoke(token, {})).statusCode, 401)
    t.equal((await revoke(token, {}, { client_id: service.client_id })).statusCode, 401)
    t.equal((await sendForm(postern, '/oauth2/revoke', {}, basic(service))).statusCode, 400)
    t.ok((await isTaken(token)) && (await isTaken(person.access_token)))
  })
})

t.test('the refresh grant', async (t) => {
  const FIRST_PARTY = { grant_type: 'refresh_token', client_id: 'first-party' }
  const confidential = await aClient(postern, { grant_types: ['refresh_token'] })
  const refresh = async (refresh_token: string, more: Record<string, string> = {}) =>
    await sendForm(postern, '/oauth2/token', { ...FIRST_PARTY, refresh_token, ...more })
  const person = await writer()

  const foreign = await sendForm(
    postern,
    '/oauth2/token',
    { grant_type: 'refresh_token', refresh_token: person.refresh_token },
    basic(confidential),
  )
  const wider = await refresh(person.refresh_token, { scope: 'postern.users:read' })
  const elsewhere = await refresh(person.refresh_token, { resource: ORDERS })
  const narrow = await refresh(person.refresh_token, { scope: 'post:read' })
  const next = await refresh(narrow.json<Answer>().refresh_token)

  t.match(foreign.json(), { error: 'invalid_grant' }, 'another client')
  t.match(wider.json(), { error: 'invalid_scope' })
  t.match(elsewhere.json(), { error: 'invalid_target' })
  t.equal(narrow.json<Answer>().scope, 'post:read')
  t.equal(narrow.json().token_type, 'Bearer')
  t.equal(next.json<Answer>().scope, 'post:read post:write', 'the session keeps the scope that it began with')
})

t.test('C.5 8.3.3: token exchange (RFC 8693)', async (t) => {
  const gateway = await aClient(postern, {
    grant_types: [EXCHANGE, 'client_credentials'],
    scopes: ['post:read', 'post:delete', 'postern.users:read'],
    audiences: [ISSUER, ORDERS],
  })
  const orders = await aClient(postern, {
    grant_types: [EXCHANGE, 'client_credentials'],
    scopes: ['post:read', 'post:write'],
    audiences: [ORDERS, BILLING],
  })
  const exchange = async (
    client: RegisteredClient,
    subject_token: string,
    more: Record<string, string> = {},
  ) =>
    await sendForm(
      postern,
      '/oauth2/token',
      { grant_type: EXCHANGE, subject_token, subject_token_type: ACCESS_TOKEN, ...more },
      basic(client),
    )
  const person = await writer()

  await t.test('gives a narrower token that names who acts', async (t) => {
    const response = await exchange(gateway, person.access_token, { resource: ORDERS })
    const issued = response.json<Answer>()
    const first = decodeJwt(issued.access_token)
    const further = await exchange(orders, issued.access_token, { audience: BILLING })
    const second = decodeJwt(further.json<Answer>().access_token)

    t.match(issued, { issued_token_type: ACCESS_TOKEN, token_type: 'Bearer' })
    t.equal(issued.scope, 'post:read')
    t.notOk('refresh_token' in issued)
    t.match(first, {
      sub: person.id,
      client_id: gateway.client_id,
      aud: ORDERS,
      act: { sub: gateway.client_id },
    })
    for (const { auth_time, amr, acr } of [first, second])
      t.match({ auth_time, amr, acr }, { auth_time: Number, amr: ['pwd'], acr: 'urn:postern:acr:1' })
    t.same(first['roles'], [])
    t.ok(Number(first.exp) <= Number(decodeJwt(person.access_token).exp))
    t.same(second['act'], {
      sub: orders.client_id,
      ver: 1,
      act: { sub: gateway.client_id, ver: 1 },
    })
    t.match(second, { sub: person.id, aud: BILLING, client_id: orders.client_id })
    t.equal(second['scope'], 'post:read')
    t.match(await introspect(issued.access_token, orders), { active: true, act: { sub: gateway.client_id } })
  })

  await t.test('gives nothing that is not both’s to have', async (t) => {
    const other = await aClient(postern, { grant_types: [EXCHANGE], audiences: [BILLING] })
    const without = await aClient(postern)
    const bound = await aClient(postern, { grant_types: [EXCHANGE], account_id: await postern.account() })
    const own = await tokenOf(orders)
    const cases: [string, RegisteredClient, string, Record<string, string>, string][] = [
      ['a token that was not sent to the client', other, person.access_token, {}, 'invalid_grant'],
      ['a client without the grant', without, person.access_token, {}, 'unauthorized_client'],
      ['a client of another account', bound, person.access_token, {}, 'invalid_grant'],
      [
        'an audience that is not the client’s',
        gateway,
        person.access_token,
        { audience: BILLING },
        'invalid_target',
      ],
      [
        'a scope that only the client has',
        gateway,
        person.access_token,
        { scope: 'post:delete' },
        'invalid_scope',
      ],
      [
        'a scope that only the person has',
        gateway,
        person.access_token,
        { scope: 'post:write' },
        'invalid_scope',
      ],
      ['a refresh token', gateway, person.refresh_token, {}, 'invalid_grant'],
      ['no token', gateway, 'x', {}, 'invalid_grant'],
      [
        'another type of token',
        gateway,
        person.access_token,
        { subject_token_type: 'urn:ietf:params:oauth:token-type:id_token' },
        'invalid_request',
      ],
      [
        'another type to be had',
        gateway,
        person.access_token,
        { requested_token_type: 'urn:ietf:params:oauth:token-type:refresh_token' },
        'invalid_request',
      ],
      [
        'an actor that is another client',
        gateway,
        person.access_token,
        { actor_token: own, actor_token_type: ACCESS_TOKEN },
        'invalid_grant',
      ],
      ['an actor without its type', gateway, person.access_token, { actor_token: own }, 'invalid_request'],
    ]

    for (const [what, client, token, more, error] of cases)
      t.match((await exchange(client, token, more)).json(), { error }, what)
  })

  await t.test('ends with the session, and with either client', async (t) => {
    const gone = await aClient(postern, {
      grant_types: [EXCHANGE],
      audiences: [ISSUER],
      scopes: ['post:read'],
    })
    const exchanged = async (client: RegisteredClient, subject: string) =>
      (await exchange(client, subject)).json<Answer>().access_token
    const [first, second] = [
      await exchanged(gateway, person.access_token),
      await exchanged(gone, person.access_token),
    ]
    t.ok((await isTaken(first)) && (await isTaken(second)))
    const delegated = postern.as(first)
    t.equal((await delegated.get('/api/v1/users/me')).statusCode, 200)
    t.equal((await delegated.patch('/api/v1/users/me', { full_name: 'x' })).statusCode, 403, 'not oneself')
    t.equal((await delegated.post('/api/v1/auth/logout')).statusCode, 403, 'nor their session to end')
    t.equal((await delegated.get('/api/v1/auth/sessions')).statusCode, 403, 'nor their devices')
    t.ok(await isTaken(person.access_token))

    await root.patch(`/api/v1/clients/${gone.client_id}`, { is_active: false })
    t.notOk(await isTaken(second), 'the client that acts is gone')

    const former = await aClient(postern, {
      grant_types: [EXCHANGE],
      audiences: [ISSUER],
      scopes: ['post:read', 'post:write'],
    })
    const throughFormer = await exchanged(former, person.access_token)
    const chained = await exchanged(gateway, throughFormer)
    t.ok((await isTaken(throughFormer)) && (await isTaken(chained)))
    await root.patch(`/api/v1/clients/${former.client_id}`, { scopes: ['post:read'] })
    t.notOk(await isTaken(throughFormer), 'the client may no longer do what it could')
    t.notOk(await isTaken(chained), 'nor does what others made of it hold')
    const renewed = await exchanged(former, person.access_token)
    t.match(decodeJwt(renewed), { act: { sub: former.client_id, ver: 2 } })
    t.ok(await isTaken(renewed))
    await postern.as(person.access_token).post('/api/v1/auth/logout')
    t.notOk(await isTaken(first), 'the session is gone')
    t.match((await exchange(gateway, person.access_token)).json(), { error: 'invalid_grant' })
  })

  await t.test('chains do not grow without end', async (t) => {
    const someone = await writer()
    let token = someone.access_token
    const answers = []
    for (let hop = 0; hop < 6; hop++) {
      const response = await exchange(gateway, token)
      answers.push(response.statusCode)
      token = response.json<Answer>().access_token ?? token
    }
    t.same(answers, [200, 200, 200, 200, 200, 400])
  })
})

t.test('DPoP (RFC 9449)', async (t) => {
  const bound = await aClient(postern, { scopes: ['post:read'], dpop_bound_access_tokens: true })
  const free = await aClient(postern, { scopes: ['post:read'] })
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(publicKey)
  const now = () => Math.floor(Date.now() / 1000)
  const hashOf = async (token: string) =>
    Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token))).toString('base64url')
  const proof = async (
    claims: Record<string, unknown>,
    header: Record<string, unknown> = {},
    key = privateKey,
  ) =>
    await new SignJWT({ jti: crypto.randomUUID(), iat: now(), ...claims })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk, ...header })
      .sign(key)
  const TOKEN_REQUEST = { htm: 'POST', htu: `${ISSUER}/oauth2/token` }
  const ask = async (client: RegisteredClient, dpop?: string) =>
    await sendForm(
      postern,
      '/oauth2/token',
      { grant_type: 'client_credentials' },
      { ...basic(client), ...(dpop !== undefined && { dpop }) },
    )
  const { access_token: token } = (await ask(bound, await proof(TOKEN_REQUEST))).json<Answer>()
  const call = async (authorization: string, dpop?: string) =>
    await postern.app.inject({
      url: '/api/v1/roles?limit=1',
      headers: { authorization, ...(dpop !== undefined && { dpop }) },
    })
  const CALL = { htm: 'GET', htu: `${ISSUER}/api/v1/roles`, ath: await hashOf(token) }

  await t.test('of oauth4webapi works from the token to the resource', async (t) => {
    const client = { client_id: bound.client_id }
    const keys = await oauth.generateKeyPair('ES256', { extractable: true })
    const DPoP = oauth.DPoP({}, keys)
    const options = { [oauth.allowInsecureRequests]: true as const, [oauth.customFetch]: fetchOf(postern) }
    const server = {
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/oauth2/token`,
      jwks_uri: `${ISSUER}/.well-known/jwks.json`,
    }
    const issued = await oauth.processClientCredentialsResponse(
      server,
      client,
      await oauth.clientCredentialsGrantRequest(
        server,
        client,
        oauth.ClientSecretBasic(bound.client_secret),
        {},
        { ...options, DPoP },
      ),
    )
    const response = await oauth.protectedResourceRequest(
      issued.access_token,
      'GET',
      new URL(`${ISSUER}/api/v1/roles`),
      new Headers(),
      null,
      { ...options, DPoP },
    )

    t.equal(issued.token_type, 'dpop')
    t.equal(response.status, 200)
    const sent: Request[] = []
    await oauth.protectedResourceRequest(
      issued.access_token,
      'GET',
      new URL(`${ISSUER}/api/v1/roles`),
      new Headers(),
      null,
      {
        DPoP,
        [oauth.allowInsecureRequests]: true,
        [oauth.customFetch]: async (url, { method, headers }) => {
          sent.push(new Request(url, { method, headers }))
          return new Response()
        },
      },
    )
    const [request = new Request(ISSUER)] = sent
    const validation = { ...options, requireDPoP: true as const }
    const claims = await oauth.validateJwtAccessToken(server, request, ISSUER, validation)
    t.equal(claims.sub, bound.client_id)
  })

  await t.test('binds a token to a key, by demand of the client or of its registration', async (t) => {
    const unproven = await ask(bound)
    const byChoice = (await ask(free, await proof(TOKEN_REQUEST))).json<Answer>()

    t.match([unproven.statusCode, unproven.json()], [400, { error: 'invalid_dpop_proof' }])
    t.equal(byChoice['token_type'], 'DPoP')
    t.same(decodeJwt(byChoice.access_token)['cnf'], decodeJwt(token)['cnf'])
    t.match(await introspect(token, bound), {
      active: true,
      token_type: 'DPoP',
      cnf: decodeJwt(token)['cnf'] as object,
    })
    t.equal((await call(`DPoP ${token}`, await proof(CALL))).statusCode, 200)
    t.equal(
      (await call(`dpop ${token}`, await proof({ ...CALL, htu: `${CALL.htu}?limit=1#x` }))).statusCode,
      200,
    )
  })

  await t.test('a refresh token of a public client is bound to the key that is proved first', async (t) => {
    const person = await writer()
    const refresh = async (refresh_token: string, dpop?: string) =>
      await sendForm(
        postern,
        '/oauth2/token',
        { grant_type: 'refresh_token', client_id: 'first-party', refresh_token },
        dpop === undefined ? {} : { dpop },
      )
    const other = await generateKeyPair('ES256', { extractable: true })
    const foreign = await proof(TOKEN_REQUEST, { jwk: await exportJWK(other.publicKey) }, other.privateKey)

    const first = await refresh(person.refresh_token, await proof(TOKEN_REQUEST))
    const { refresh_token: next } = first.json<Answer>()

    t.match(first.json(), { token_type: 'DPoP' })
    for (const attempt of [await refresh(next), await refresh(next, foreign)])
      t.match(attempt.json(), { error: 'invalid_grant' })
    const stolen = await postern.anonymous.post('/api/v1/auth/refresh', { refresh_token: next })
    t.equal(stolen.statusCode, 401)
    t.equal((await refresh(next, await proof(TOKEN_REQUEST))).statusCode, 200)
  })

  await t.test('strangers, who can be a public client, have no proof noted', async (t) => {
    const listed = await aClient(postern, {
      grant_types: ['refresh_token'],
      token_endpoint_auth_method: 'none',
    })
    const { refresh_token } = await writer()
    const madeUp = `${refresh_token.slice(0, 37)}${'A'.repeat(43)}`
    const noted = async () =>
      (await postern.services.database.pool.query('select count(*)::int from seen_tokens')).rows[0].count
    const before = await noted()
    const send = async (client_id: string, form: Record<string, string>) =>
      (
        await sendForm(postern, '/oauth2/token', { client_id, ...form }, { dpop: await proof(TOKEN_REQUEST) })
      ).json<{ error: string }>().error

    for (const client of ['first-party', listed.client_id]) {
      for (const token of [madeUp, 'x'])
        t.equal(await send(client, { grant_type: 'refresh_token', refresh_token: token }), 'invalid_grant')
      t.equal(await send(client, { grant_type: 'refresh_token' }), 'invalid_request')
      t.equal(await send(client, { grant_type: 'client_credentials' }), 'unauthorized_client')
      t.equal(await send(client, { grant_type: EXCHANGE }), 'unauthorized_client')
    }

    t.equal(await noted(), before)
  })

  await t.test('a bound token is taken only with a proof, and a free one never with', async (t) => {
    const plain = await tokenOf(free)

    t.equal((await call(`Bearer ${token}`)).statusCode, 401)
    t.equal((await call(`Bearer ${token}`, await proof(CALL))).statusCode, 401)
    t.equal((await call(`DPoP ${token}`)).statusCode, 401)
    t.equal((await call(`DPoP ${plain}`, await proof({ ...CALL, ath: await hashOf(plain) }))).statusCode, 401)
    t.match(
      (await call(`DPoP ${token}`)).headers['www-authenticate'],
      /^DPoP algs="ES256 EdDSA PS256 RS256", realm="postern", error="invalid_dpop_proof"/,
    )
    const htu = `${ISSUER}/api/v1/audit-events`
    const beyond = await postern.app.inject({
      url: '/api/v1/audit-events',
      headers: { authorization: `DPoP ${token}`, dpop: await proof({ ...CALL, htu }) },
    })
    t.equal(beyond.statusCode, 403)
    t.match(beyond.headers['www-authenticate'], /^DPoP .*, error="insufficient_scope"/)
    t.equal((await call(`Bearer ${plain}`)).statusCode, 200)
  })

  await t.test('a proof is for one request, made just now, and taken once', async (t) => {
    const other = await generateKeyPair('ES256', { extractable: true })
    const weak = { ...jwk, d: (await exportJWK(privateKey)).d }
    const [head, body] = (await proof(CALL)).split('.')
    const used = await proof(CALL)
    const uses = await Promise.all(
      Array.from({ length: 4 }, async () => (await call(`DPoP ${token}`, used)).statusCode),
    )
    const attacks: Record<string, string> = {
      'used before': used,
      'two proofs': `${await proof(CALL)}, ${await proof(CALL)}`,
      'of another key': await proof(CALL, { jwk: await exportJWK(other.publicKey) }, other.privateKey),
      'signed with another key than it shows': await proof(CALL, {}, other.privateKey),
      'without a key': await proof(CALL, { jwk: undefined }),
      'with the private key': await proof(CALL, { jwk: weak }),
      'of another type': await proof(CALL, { typ: 'JWT' }),
      unsigned: `${head}.${body}.`,
      'alg none': `${Buffer.from(JSON.stringify({ alg: 'none', typ: 'dpop+jwt', jwk })).toString('base64url')}.${body}.AA`,
      'HS256 with the public key': await new SignJWT({ ...CALL, jti: 'a', iat: now() })
        .setProtectedHeader({ alg: 'HS256', typ: 'dpop+jwt', jwk })
        .sign(new TextEncoder().encode(JSON.stringify(jwk))),
      'for another method': await proof({ ...CALL, htm: 'POST' }),
      'for another path': await proof({ ...CALL, htu: `${ISSUER}/api/v1/users` }),
      'for another host': await proof({ ...CALL, htu: 'http://evil.test/api/v1/roles' }),
      'for another token': await proof({ ...CALL, ath: await hashOf('x') }),
      'without ath': await proof({ ...CALL, ath: undefined }),
      'without jti': await proof({ ...CALL, jti: undefined }),
      'with a number as jti': await proof({ ...CALL, jti: 1 }),
      'without iat': await proof({ ...CALL, iat: undefined }),
      'of two minutes ago': await proof({ ...CALL, iat: now() - 120 }),
      'of the future': await proof({ ...CALL, iat: now() + 120 }),
      'no JWT': 'x',
    }

    t.same(uses.sort(), [200, 401, 401, 401])
    for (const [what, attack] of Object.entries(attacks)) {
      const response = await call(`DPoP ${token}`, attack)
      t.equal(response.statusCode, 401, what)
    }
    const atTokenEndpoint = await ask(bound, await proof({ ...TOKEN_REQUEST, htm: 'GET' }))
    t.match([atTokenEndpoint.statusCode, atTokenEndpoint.json()], [400, { error: 'invalid_dpop_proof' }])
  })
})
