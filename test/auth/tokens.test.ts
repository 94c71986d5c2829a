import { createPublicKey } from 'node:crypto'
import {
  CompactSign,
  createLocalJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  type JSONWebKeySet,
  jwtVerify,
  SignJWT,
} from 'jose'
import t, { type Test } from 'tap'
import { createServices } from '../../src/services.ts'
import { setUp } from '../../src/setup.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
import { emptyDatabase } from '../helpers/database.ts'
import { type Json, openForge } from './forging.ts'

const ISSUER = 'http://postern.test'
const INVALID_TOKEN =
  'Bearer realm="postern", error="invalid_token", error_description="The access token is not valid"'
const NO_TOKEN = 'Bearer realm="postern"'
const REQUIRED_CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id', 'scope', 'sid', 'ver']
type PrivateKey = Awaited<ReturnType<typeof generateKeyPair>>['privateKey']
const now = () => Math.floor(Date.now() / 1000)

async function buildForge(t: Test) {
  const app = await buildTestApp(t)
  const victim = await app.person('SUPER_ADMIN')
  return { app, victim, forge: await openForge(app, victim.token) }
}

const me = async ({ app }: TestApp, authorization: string) =>
  await app.inject({ url: '/api/v1/users/me', headers: { authorization } })

async function assertRefused(t: Test, app: TestApp, token: string, what: string): Promise<void> {
  const response = await me(app, `Bearer ${token}`)

  t.equal(response.statusCode, 401, what)
  t.equal(response.headers['www-authenticate'], INVALID_TOKEN, `${what}: challenge`)
  t.equal(response.json<{ type: string }>().type, '/problems/invalid_token', `${what}: code`)
}

const signWith = async (key: PrivateKey | Uint8Array, header: Json, claims: Json): Promise<string> =>
  await new CompactSign(new TextEncoder().encode(JSON.stringify(claims)))
    .setProtectedHeader(header as { alg: string })
    .sign(key)

t.test('a token that was signed with the real key and changed in nothing is accepted', async (t) => {
  const { app, forge } = await buildForge(t)

  t.equal((await me(app, `Bearer ${await forge.signed()}`)).statusCode, 200)
  t.equal((await me(app, `Bearer ${forge.signedByHand({})}`)).statusCode, 200)
})

t.test('C.4 9.1.1, 9.1.2: a token of a foreign or confused key is refused', async (t) => {
  const { app, forge } = await buildForge(t)
  const pem = createPublicKey({ key: forge.publicJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
  const bytes = (text: string) => new TextEncoder().encode(text)
  const hmac = async (secret: string) =>
    await signWith(bytes(secret), { ...forge.header, alg: 'HS256' }, forge.claims)
  const ec = await generateKeyPair('ES256', { extractable: true })
  const rsa = await generateKeyPair('RS256', { extractable: true })
  const ed = await generateKeyPair('EdDSA', { extractable: true })
  const ecJwk = await exportJWK(ec.publicKey)
  const attacks: Record<string, string> = {
    'alg none without a signature': forge.assembled({ alg: 'none' }, ''),
    'alg nOnE without a signature': forge.assembled({ alg: 'nOnE' }, ''),
    'alg NONE with the old signature': forge.assembled({ alg: 'NONE' }, forge.token.split('.')[2] ?? ''),
    'no alg': forge.assembled({ alg: undefined }, forge.token.split('.')[2] ?? ''),
    'the right alg without a signature': forge.assembled({}, ''),
    'HS256 keyed with the public PEM': await hmac(String(pem)),
    'HS256 keyed with the public PEM, trimmed': await hmac(String(pem).trim()),
    'HS256 keyed with the public PEM after a newline': await hmac(`\n${pem}`),
    'HS256 keyed with the public JWK': await hmac(JSON.stringify(forge.publicJwk)),
    'HS256 keyed with the kid': await hmac(forge.kid),
    'a foreign key under our kid': await signWith(ec.privateKey, forge.header, forge.claims),
    'a foreign key under its own kid': await signWith(
      ec.privateKey,
      { ...forge.header, kid: 'attacker' },
      forge.claims,
    ),
    'a foreign RSA key under our kid': await signWith(
      rsa.privateKey,
      { ...forge.header, alg: 'RS256' },
      forge.claims,
    ),
    'a foreign Ed25519 key under our kid': await signWith(
      ed.privateKey,
      { ...forge.header, alg: 'EdDSA' },
      forge.claims,
    ),
    'an embedded jwk': await signWith(ec.privateKey, { ...forge.header, jwk: ecJwk }, forge.claims),
    'an embedded jwk without kid': await signWith(
      ec.privateKey,
      { alg: 'ES256', typ: 'at+jwt', jwk: ecJwk },
      forge.claims,
    ),
    'a jku header': await signWith(
      ec.privateKey,
      { ...forge.header, jku: 'http://127.0.0.1:9/jwks.json' },
      forge.claims,
    ),
    'an x5u header': await signWith(
      ec.privateKey,
      { ...forge.header, x5u: 'http://127.0.0.1:9/cert.pem' },
      forge.claims,
    ),
    'an x5c header': await signWith(ec.privateKey, { ...forge.header, x5c: ['MIIB'] }, forge.claims),
  }

  for (const [what, token] of Object.entries(attacks)) await assertRefused(t, app, token, what)
})

t.test('C.4 9.1.3: a kid is a name and nothing else', async (t) => {
  const { app, forge } = await buildForge(t)
  const kids = [
    undefined,
    null,
    '',
    'unknown',
    '../../../../dev/null',
    '/dev/null',
    "' or 1=1 --",
    `${forge.kid}' or '1'='1`,
    `${forge.kid}\u0000`,
    ` ${forge.kid}`,
    'constructor',
    '__proto__',
    42,
    [forge.kid],
    { kid: forge.kid },
    'k'.repeat(2000),
  ]

  for (const kid of kids)
    await assertRefused(t, app, forge.signedByHand({ kid }), `kid ${JSON.stringify(kid)}`)
})

t.test('a token whose header asks for an unknown extension is refused', async (t) => {
  const { app, forge } = await buildForge(t)

  await assertRefused(t, app, forge.signedByHand({ crit: ['exp2'], exp2: 1 }), 'unknown crit')
  await assertRefused(t, app, forge.signedByHand({ crit: ['b64'], b64: false }), 'crit b64')
})

t.test('C.4 9.2.2: only access tokens are access tokens', async (t) => {
  const { app, forge } = await buildForge(t)

  for (const typ of [undefined, 'JWT', 'jwt', 'id_token+jwt', 'rt+jwt', 'dpop+jwt', 'at+jwt2', '']) {
    await assertRefused(t, app, await forge.signed({}, { typ }), `typ ${typ}`)
  }
})

t.test('the long name of the type is accepted too, as RFC 9068 §4 says', async (t) => {
  const { app, forge } = await buildForge(t)

  const token = await forge.signed({}, { typ: 'application/at+jwt' })

  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200)
})

t.test('a token with a true signature is refused without any one of the required claims', async (t) => {
  const { app, forge } = await buildForge(t)

  for (const claim of REQUIRED_CLAIMS) {
    await assertRefused(t, app, await forge.signed({ [claim]: undefined }), `without ${claim}`)
  }
})

t.test(
  'C.4 9.2.1, 9.2.3: a token with a true signature is refused for any one claim that is not right',
  async (t) => {
    const { app, victim, forge } = await buildForge(t)
    const other = await app.person('GUEST')
    const otherSession = decodeJwt(other.token)['sid']
    const changes: Record<string, Json> = {
      'expired an hour ago': { exp: now() - 3600 },
      'expired a second ago': { exp: now() - 1 },
      'exp as a string': { exp: String(now() + 600) },
      'exp null': { exp: null },
      'valid only in an hour': { nbf: now() + 3600 },
      'nbf as a string': { nbf: 'tomorrow' },
      'a foreign issuer': { iss: 'http://evil.test' },
      'the issuer with a slash': { iss: `${ISSUER}/` },
      'the issuer in other case': { iss: ISSUER.toUpperCase() },
      'an array of issuers with ours': { iss: [ISSUER, 'http://evil.test'] },
      'a foreign audience': { aud: 'http://evil.test' },
      'an audience that begins as ours': { aud: `${ISSUER}.evil.test` },
      'the beginning of our audience': { aud: 'http://postern' },
      'an array of foreign audiences': { aud: ['http://evil.test', 'http://other.test'] },
      'no audience in the array': { aud: [] },
      'a subject that is no user': { sub: '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40' },
      'a subject that is no id': { sub: 'admin' },
      'a subject with SQL': { sub: `${victim.id}' or '1'='1` },
      'the subject of somebody else': { sub: other.id },
      'the session of somebody else': { sid: otherSession },
      'a session that is no id': { sid: 'x' },
      'an older version': { ver: 0 },
      'a later version': { ver: 99 },
      'the version as a string': { ver: String(forge.claims['ver']) },
    }

    for (const [what, change] of Object.entries(changes)) {
      await assertRefused(t, app, await forge.signed(change), what)
    }
  },
)

t.test('an array of audiences that holds ours is accepted', async (t) => {
  const { app, forge } = await buildForge(t)

  const token = await forge.signed({ aud: ['http://other.test', ISSUER] })

  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200)
})

t.test('C.4 9.1.1: a token that was changed after signing is refused', async (t) => {
  const { app, forge } = await buildForge(t)
  const [header = '', payload = '', signature = ''] = forge.token.split('.')
  const half = Math.floor(signature.length / 2)
  const flipped = `${signature.slice(0, half)}${signature[half] === 'A' ? 'B' : 'A'}${signature.slice(half + 1)}`
  const attacks: Record<string, string> = {
    'another payload': forge.assembled({}, signature, { ...forge.claims, scope: 'postern.users:read:any' }),
    'another header': forge.assembled({ cty: 'x' }, signature),
    'a flipped signature': `${header}.${payload}.${flipped}`,
    'a zero signature': `${header}.${payload}.${Buffer.alloc(64).toString('base64url')}`,
    'a DER signature': forge.signedByHand({}, 'der'),
    'half a signature': `${header}.${payload}.${signature.slice(0, half)}`,
    'a fourth part': `${forge.token}.AAAA`,
    'an empty fourth part': `${forge.token}.`,
    'a padded part': `${header}=.${payload}.${signature}`,
    'two parts': `${header}.${payload}`,
    'an empty payload': `${header}..${signature}`,
    'five parts, as a JWE': `${forge.token}.AAAA.AAAA`,
    'no JWT at all': 'nonsense',
    dots: '..',
    'a payload that is no JSON': `${header}.${Buffer.from('{').toString('base64url')}.${signature}`,
  }

  for (const [what, token] of Object.entries(attacks)) await assertRefused(t, app, token, what)
})

t.test('white space within or around a token is not read over', async (t) => {
  const { app, forge } = await buildForge(t)
  const [header, payload, signature] = forge.token.split('.')

  for (const token of [
    `${header} .${payload}.${signature}`,
    `${header}.${payload}. ${signature}`,
    `${header}.\t${payload}.${signature}`,
    `${forge.token} ${forge.token}`,
    `${forge.token}, Bearer ${forge.token}`,
    `${forge.token},${forge.token}`,
  ]) {
    await assertRefused(t, app, token, JSON.stringify(token).slice(0, 60))
  }
})

t.test('the scheme is compared without regard to case', async (t) => {
  const { app, forge } = await buildForge(t)

  for (const scheme of ['bearer', 'BEARER', 'bEaReR']) {
    t.equal((await me(app, `${scheme} ${forge.token}`)).statusCode, 200, scheme)
  }
})

t.test('a token anywhere but in the Authorization header is not looked at', async (t) => {
  const { app, forge } = await buildForge(t)
  const requests = {
    'no token': app.app.inject({ url: '/api/v1/users/me' }),
    'in the query': app.app.inject({ url: `/api/v1/users/me?access_token=${forge.token}` }),
    'in a JSON body': app.app.inject({
      method: 'POST',
      url: '/api/v1/auth/test-token',
      payload: { access_token: forge.token },
    }),
    'in a form': app.app.inject({
      method: 'POST',
      url: '/api/v1/auth/test-token',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: `access_token=${forge.token}`,
    }),
    'in a cookie': app.app.inject({ url: '/api/v1/users/me', headers: { cookie: `token=${forge.token}` } }),
    'under Basic': me(app, `Basic ${Buffer.from(`x:${forge.token}`).toString('base64')}`),
    'under an unknown scheme': me(app, `Token ${forge.token}`),
    'without a scheme': me(app, forge.token),
    'under a scheme that begins alike': me(app, `BearerX ${forge.token}`),
  }

  for (const [what, request] of Object.entries(requests)) {
    const response = await request
    t.equal(response.statusCode, 401, what)
    t.equal(response.headers['www-authenticate'], NO_TOKEN, `${what}: a challenge without an error`)
  }
})

t.test('a scheme without a token is an invalid token', async (t) => {
  const { app } = await buildForge(t)

  for (const authorization of ['Bearer', 'Bearer ', 'bearer  \t']) {
    const response = await me(app, authorization)
    t.equal(response.statusCode, 401, JSON.stringify(authorization))
    t.equal(response.headers['www-authenticate'], INVALID_TOKEN)
  }
})

t.test('a missing scope is named in the challenge, once', async (t) => {
  const app = await buildTestApp(t)
  const guest = await app.person('GUEST')

  const response = await guest.client.get('/api/v1/users')

  t.equal(response.statusCode, 403)
  t.equal(
    response.headers['www-authenticate'],
    'Bearer realm="postern", error="insufficient_scope", scope="postern.users:read:any"',
  )
  t.match(response.json(), {
    type: '/problems/insufficient_scope',
    required: 'postern.users:read:any',
  })
})

t.test('a spelling of a token that verifies as well is revoked with it', async (t) => {
  const { app, victim, forge } = await buildForge(t)
  // 64 bytes leave four unused bits in the last character of an ES256 signature.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(forge.token.at(-1) ?? '')
  const twin = `${forge.token.slice(0, -1)}${alphabet[last ^ 1]}`
  const before = await me(app, `Bearer ${twin}`)

  await app.root.post(`/api/v1/users/${victim.id}/deactivate`)

  t.ok([200, 401].includes(before.statusCode))
  await assertRefused(t, app, forge.token, 'the token')
  await assertRefused(t, app, twin, 'its twin')
})

t.test('a person whose role gives nothing has a token without scopes', async (t) => {
  const app = await buildTestApp(t)
  const guest = await app.person('GUEST')

  const { scope } = decodeJwt(guest.token)

  t.equal(scope, '')
})

for (const algorithm of ['ES256', 'RS256', 'EdDSA'] as const) {
  t.test(`a token signed with ${algorithm} verifies with jose by the published keys`, async (t) => {
    const app = await buildAppWith(t, algorithm)
    const published = await app.anonymous.get('/.well-known/jwks.json')
    const keys = createLocalJWKSet(published.json<JSONWebKeySet>())

    const { payload, protectedHeader } = await jwtVerify(app.rootToken, keys, {
      issuer: ISSUER,
      audience: ISSUER,
      typ: 'at+jwt',
      algorithms: [algorithm],
      requiredClaims: REQUIRED_CLAIMS,
    })

    t.equal(payload.sub, app.rootId)
    t.equal(protectedHeader.kid, published.json<{ keys: { kid: string }[] }>().keys[0]?.kid)
    t.same(Object.keys(protectedHeader).sort(), ['alg', 'kid', 'typ'])
  })
}

t.test('C.4 9.1.2: with RS256, HS256 keyed with the public PEM is refused', async (t) => {
  const app = await buildAppWith(t, 'RS256')
  const forge = await openForge(app, app.rootToken)
  const pem = createPublicKey({ key: forge.publicJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
  const token = await new SignJWT(forge.claims)
    .setProtectedHeader({ ...forge.header, alg: 'HS256' })
    .sign(new TextEncoder().encode(String(pem)))

  await assertRefused(t, app, token, 'key confusion')
})

t.test('another algorithm of the same family does not find the key', async (t) => {
  const app = await buildAppWith(t, 'RS256')
  const forge = await openForge(app, app.rootToken)

  for (const alg of ['RS384', 'RS512', 'PS256']) {
    await assertRefused(t, app, forge.signedByHand({ alg }), alg)
  }
})

t.test('the key set shows public parts only, with caching and a kid that names the key', async (t) => {
  for (const algorithm of ['ES256', 'RS256', 'EdDSA'] as const) {
    const app = await buildAppWith(t, algorithm)

    const response = await app.anonymous.get('/.well-known/jwks.json')

    const { keys } = response.json<{ keys: Json[] }>()
    t.equal(keys.length, 1)
    t.match(keys[0], { alg: algorithm, use: 'sig' })
    for (const member of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'])
      t.notOk(member in (keys[0] ?? {}), member)
    t.match(response.headers['cache-control'], /public, max-age=\d+/)
    t.match(response.headers['content-type'], /^application\/(jwk-set\+)?json/)
    t.notMatch(response.body, /PRIVATE|v1\./)
  }
})

t.test('the claims are those of the design, of people in an account', async (t) => {
  const app = await buildTestApp(t)
  await app.root.post('/api/v1/roles', { name: 'editor', scopes: ['post:read', 'post:write'] })
  const editor = await app.person('editor')

  const claims = decodeJwt(editor.token)

  t.match(decodeProtectedHeader(editor.token), { alg: 'ES256', typ: 'at+jwt' })
  t.same(Object.keys(claims).sort(), [
    'account_id',
    'acr',
    'amr',
    'aud',
    'auth_time',
    'client_id',
    'exp',
    'iat',
    'iss',
    'jti',
    'role',
    'roles',
    'scope',
    'sid',
    'sub',
    'ver',
  ])
  t.match(claims, {
    iss: ISSUER,
    aud: ISSUER,
    sub: editor.id,
    client_id: 'first-party',
    scope: 'post:read post:write',
    role: 'editor',
    roles: ['editor'],
    account_id: app.home,
  })
  t.equal(Number(claims.exp) - Number(claims.iat), 15 * 60)
  t.equal(typeof claims['ver'], 'number')
  t.match(claims.jti, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
})

t.test('a permission held everywhere stands there plain and with :any', async (t) => {
  const app = await buildTestApp(t)

  const scopes = String(decodeJwt(app.rootToken)['scope']).split(' ')

  t.ok(scopes.includes('postern.users:read'))
  t.ok(scopes.includes('postern.users:read:any'))
  t.same(scopes, [...new Set(scopes)].sort())
})

t.test('C.4 7.2.4: every token has an id and a session of its own', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person()
  const tokens = [person.token, await app.signIn(person.email), await app.signIn(person.email)]

  const ids = new Set(tokens.flatMap((token) => [decodeJwt(token).jti, decodeJwt(token)['sid']]))

  t.equal(ids.size, 6)
})

t.test('people without a home or role get a token that says so', async (t) => {
  const app = await buildTestApp(t)
  const nobody = await app.person(undefined, { accountId: null })

  const { account_id, role, roles, scope } = decodeJwt(nobody.token)
  t.same({ account_id, role, roles, scope }, { account_id: null, role: 'GUEST', roles: [], scope: '' })
  t.equal((await nobody.client.get('/api/v1/users/me')).statusCode, 200)
})

t.test('TOKEN_AUDIENCE and ACCESS_TOKEN_EXPIRE_MINUTES are what the token says', async (t) => {
  const env = { TOKEN_AUDIENCE: 'https://api.example.com', ACCESS_TOKEN_EXPIRE_MINUTES: '5' }
  const app = await buildTestApp(t, { env })

  const { aud, exp, iat } = decodeJwt(app.rootToken)

  t.equal(aud, 'https://api.example.com')
  t.equal(Number(exp) - Number(iat), 300)
  t.equal((await app.root.get('/api/v1/users/me')).statusCode, 200)
})

t.test('C.4 9.2.3: a token for another service of the same issuer is not taken here', async (t) => {
  const here = await buildTestApp(t)
  const elsewhere = await buildTestApp(t, {
    databaseUrl: here.databaseUrl,
    env: { TOKEN_AUDIENCE: 'https://api.example.com' },
  })

  await assertRefused(t, here, elsewhere.rootToken, 'the token of the other audience')
})

t.test('C.4 9.2.1: an expired token is refused even when it was seen while it was valid', async (t) => {
  const clock = { now: () => new Date(Date.now() - (15 * 60 - 2) * 1000) }
  const app = await buildTestApp(t, { clock })
  const token: string = app.rootToken

  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200)

  const deadline = Date.now() + 5000
  while ((await me(app, `Bearer ${token}`)).statusCode === 200 && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  await assertRefused(t, app, token, 'after its time')
})

async function buildAppWith(t: Test, algorithm: 'ES256' | 'RS256' | 'EdDSA'): Promise<TestApp> {
  const env = { TOKEN_ALGORITHM: algorithm }
  const { url } = await emptyDatabase(t)
  const services = createServices(testConfig(env), { databaseUrl: url, secretKey: SECRET_KEY })
  await setUp(services, url)
  await services.close()
  return await buildTestApp(t, { env, databaseUrl: url })
}
