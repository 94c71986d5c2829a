import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import t from 'tap'
import { hashOf } from '../../src/sessions/refresh-tokens.ts'
import { buildTestApp, type Person } from '../helpers/app.ts'
import { createAuthenticator } from '../helpers/authenticator.ts'
import { PASSWORD } from '../helpers/config.ts'
import { codeOf, enrolTotp, letTimePass, mfaTokenOf } from '../helpers/factors.ts'
import { aMailLink } from '../helpers/mail-links.ts'
import { aClient, basic, fetchOf, sendForm } from '../helpers/oauth.ts'

const ISSUER = 'http://postern.test'
const POSTS = 'https://posts.example.com'
const BILLING = 'https://billing.example.com'
const FOREIGN = 'https://evil.example.com'

type Tokens = { access_token: string; refresh_token: string }

const env = { SERVICE_AUDIENCES: `${POSTS}, ${BILLING}`, MAGIC_LINK_SIGN_IN: 'true' }
const postern = await buildTestApp(t, { env })
const { anonymous, root } = postern
await root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
const writer = await postern.person('writer')

const login = async ({ email }: Person, more: object = {}) =>
  await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD, ...more })
const refresh = async (refresh_token: string, more: object = {}) =>
  await anonymous.post('/api/v1/auth/refresh', { refresh_token, ...more })
type Response = Awaited<ReturnType<typeof login>>
const tokensOf = (response: Response): Tokens => response.json<Tokens>()
const audienceOf = (response: Response) => decodeJwt(tokensOf(response).access_token).aud
const problemOf = (response: Response): string =>
  `${response.statusCode} ${response.json<{ type?: string }>().type}`
const INVALID_TARGET = '400 /problems/invalid_target'
/** The status of a request with the token here, and at a service that jose guards. */
async function takenAt(token: string, audience: string): Promise<[here: number, there: string]> {
  const keys = createLocalJWKSet((await anonymous.get('/.well-known/jwks.json')).json())
  const there = await jwtVerify(token, keys, { issuer: ISSUER, audience, typ: 'at+jwt' }).then(
    () => 'taken',
    (error: { code: string; claim?: string }) => `${error.code} ${error.claim}`,
  )
  return [(await postern.as(token).get('/api/v1/users/me')).statusCode, there]
}
const REFUSED_THERE = 'ERR_JWT_CLAIM_VALIDATION_FAILED aud'

t.test(
  'a session without a resource is of this service, and refreshes to tokens of any service',
  async (t) => {
    const first = await login(writer)
    const there = await refresh(tokensOf(first).refresh_token, { resource: POSTS })
    const both = await refresh(tokensOf(there).refresh_token, { resource: [POSTS, BILLING] })
    const back = await refresh(tokensOf(both).refresh_token)

    t.equal(audienceOf(first), ISSUER)
    t.same(await takenAt(tokensOf(first).access_token, POSTS), [200, REFUSED_THERE])
    t.equal(audienceOf(there), POSTS)
    t.same(
      await takenAt(tokensOf(there).access_token, POSTS),
      [401, 'taken'],
      'the service cannot come here with it',
    )
    t.same(await takenAt(tokensOf(there).access_token, BILLING), [401, REFUSED_THERE])
    t.same(audienceOf(both), [POSTS, BILLING])
    t.equal(audienceOf(back), ISSUER)
    for (const resource of [FOREIGN, [POSTS, FOREIGN], 'posts', `${POSTS}/`, `${POSTS}#x`])
      t.equal(problemOf(await refresh(tokensOf(back).refresh_token, { resource })), INVALID_TARGET)
    for (const resource of ['', [], Array(6).fill(POSTS), 7, null])
      t.equal((await refresh(tokensOf(back).refresh_token, { resource })).statusCode, 422)
    t.equal((await refresh(tokensOf(back).refresh_token)).statusCode, 200, 'nothing was used up')
  },
)

t.test('a session with a resource is limited to it', async (t) => {
  const first = await login(writer, { resource: [POSTS, BILLING] })
  const one = await refresh(tokensOf(first).refresh_token, { resource: BILLING })
  const next = await refresh(tokensOf(one).refresh_token)

  t.same(audienceOf(first), [POSTS, BILLING])
  t.same(await takenAt(tokensOf(first).access_token, POSTS), [401, 'taken'])
  t.equal(audienceOf(one), BILLING)
  t.same(audienceOf(next), [POSTS, BILLING])
  for (const resource of [ISSUER, [POSTS, ISSUER], FOREIGN])
    t.equal(problemOf(await refresh(tokensOf(next).refresh_token, { resource })), INVALID_TARGET)
  t.equal(audienceOf(await login(writer, { resource: ISSUER })), ISSUER)
})

t.test('an unknown resource is told to whoever knows the password, and is no failure to count', async (t) => {
  for (let attempt = 0; attempt < 8; attempt++)
    t.equal(problemOf(await login(writer, { resource: FOREIGN })), INVALID_TARGET)
  t.equal((await login(writer)).statusCode, 200)
  const wrong = await anonymous.post('/api/v1/auth/login', {
    email: writer.email,
    password: `not ${PASSWORD}`,
    resource: FOREIGN,
  })
  t.equal(problemOf(wrong), '401 /problems/invalid_credentials')
})

t.test('the OAuth faces take it too, once or several times', async (t) => {
  const server = {
    issuer: ISSUER,
    token_endpoint: `${ISSUER}/api/v1/auth/access-token`,
    jwks_uri: `${ISSUER}/.well-known/jwks.json`,
  }
  const options = { [oauth.allowInsecureRequests]: true as const, [oauth.customFetch]: fetchOf(postern) }
  const client = { client_id: 'first-party' }
  const form = new URLSearchParams({ username: writer.email, password: PASSWORD, resource: POSTS })
  form.append('resource', BILLING)
  const signedIn = await oauth.processGenericTokenEndpointResponse(
    server,
    client,
    await oauth.genericTokenEndpointRequest(server, client, oauth.None(), 'password', form, options),
  )
  const atTokenEndpoint = { ...server, token_endpoint: `${ISSUER}/oauth2/token` }
  const refreshed = await oauth.processRefreshTokenResponse(
    atTokenEndpoint,
    client,
    await oauth.refreshTokenGrantRequest(
      atTokenEndpoint,
      client,
      oauth.None(),
      signedIn.refresh_token ?? '',
      { ...options, additionalParameters: { resource: POSTS } },
    ),
  )
  const request = new Request(POSTS, { headers: { authorization: `Bearer ${refreshed.access_token}` } })

  t.same(decodeJwt(signedIn.access_token).aud, [POSTS, BILLING])
  t.equal((await oauth.validateJwtAccessToken(server, request, POSTS, options)).sub, writer.id)
  await t.rejects(oauth.validateJwtAccessToken(server, request, BILLING, options), /unexpected JWT "aud"/)
  const credentials = { username: writer.email, password: PASSWORD }
  const wrong = await sendForm(postern, '/api/v1/auth/access-token', { ...credentials, resource: FOREIGN })
  t.match([wrong.statusCode, wrong.json()], [400, { error: 'invalid_target' }])
  const empty = await sendForm(postern, '/api/v1/auth/access-token', { ...credentials, resource: '' })
  t.equal(audienceOf(empty), ISSUER, 'a parameter without a value is not there (RFC 6749 §3.2)')
  const other = await sendForm(postern, '/oauth2/token', {
    grant_type: 'refresh_token',
    client_id: 'first-party',
    refresh_token: refreshed.refresh_token ?? '',
    resource: ISSUER,
  })
  t.match([other.statusCode, other.json()], [400, { error: 'invalid_target' }])
})

t.test('every way of signing in takes it along', async (t) => {
  const device = createAuthenticator({ origin: ISSUER })
  const ada = await postern.person('writer')
  const options = (await ada.client.post('/api/v1/auth/passkeys/registration-options')).json()
  await ada.client.post('/api/v1/auth/passkeys', { name: 'Key', response: device.create(options) })
  const byPasskey = async (resource: string) => {
    const asked = (await anonymous.post('/api/v1/auth/passkey/options', {})).json()
    const { challenge_token } = asked
    const response = device.get(asked.options)
    return await anonymous.post('/api/v1/auth/passkey/verify', { challenge_token, response, resource })
  }
  const bob = await postern.person('writer')
  const byLink = async (resource: string) => {
    const request_token = 'x'.repeat(43)
    const token = await aMailLink(postern, bob.id, 'magic_link', { requestHash: hashOf(request_token) })
    return await anonymous.post('/api/v1/auth/magic-link/verify', { token, request_token, resource })
  }
  const cyd = await postern.person('writer')
  const { secret } = await enrolTotp(cyd.client)
  const bySecondStep = async (resource: string) => {
    await letTimePass(postern, cyd.id)
    const first = await login(cyd, { resource })
    if (first.statusCode !== 403) return first
    const mfa_token = mfaTokenOf(first)
    return await anonymous.post('/api/v1/auth/mfa/verify', { mfa_token, code: codeOf(secret) })
  }

  for (const signIn of [byPasskey, byLink, bySecondStep]) {
    const signedIn = await signIn(POSTS)
    t.equal(audienceOf(signedIn), POSTS, signIn.name)
    const next = await refresh(tokensOf(signedIn).refresh_token)
    t.equal(audienceOf(next), POSTS)
    t.equal(problemOf(await refresh(tokensOf(next).refresh_token, { resource: ISSUER })), INVALID_TARGET)
    t.equal(problemOf(await signIn(FOREIGN)), INVALID_TARGET)
  }
})

t.test('a page with the refresh token in a cookie names it too', async (t) => {
  const headers = { origin: ISSUER }
  const { email } = writer
  const signedIn = await anonymous.post(
    '/api/v1/auth/login',
    { email, password: PASSWORD, use_cookie: true },
    headers,
  )
  const [cookie = ''] = String(signedIn.headers['set-cookie']).split(';')
  const there = await anonymous.post('/api/v1/auth/refresh', { resource: POSTS }, { ...headers, cookie })

  t.equal(audienceOf(there), POSTS)
  t.notOk(tokensOf(there).refresh_token)
})

t.test('a service exchanges and introspects the tokens that are for it, and no other', async (t) => {
  const posts = await aClient(postern, {
    grant_types: ['urn:ietf:params:oauth:grant-type:token-exchange'],
    scopes: ['post:read'],
    audiences: [POSTS],
  })
  const answers = async (token: string) => {
    const form = {
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    }
    const exchanged = await sendForm(postern, '/oauth2/token', form, basic(posts))
    const told = await sendForm(postern, '/oauth2/introspect', { token }, basic(posts))
    return [exchanged.statusCode, told.json<{ active: boolean }>().active]
  }

  t.same(await answers(tokensOf(await login(writer, { resource: POSTS })).access_token), [200, true])
  t.same(await answers(tokensOf(await login(writer, { resource: BILLING })).access_token), [400, false])
  t.same(await answers(tokensOf(await login(writer)).access_token), [400, false])
})

t.test('what SERVICE_AUDIENCES no longer names is not to be had', async (t) => {
  const session = tokensOf(await login(writer, { resource: [POSTS, BILLING] }))
  const later = await buildTestApp(t, {
    databaseUrl: postern.databaseUrl,
    env: { SERVICE_AUDIENCES: POSTS },
  })
  const refreshLater = async (more: object = {}) =>
    await later.anonymous.post('/api/v1/auth/refresh', { refresh_token: session.refresh_token, ...more })

  t.equal(problemOf(await refreshLater({ resource: BILLING })), INVALID_TARGET)
  t.equal(problemOf(await refreshLater()), INVALID_TARGET)
  t.equal(audienceOf(await refreshLater({ resource: POSTS })), POSTS)
})
