import type { AddressInfo } from 'node:net'
import type { LightMyRequestResponse } from 'fastify'
import { decodeJwt } from 'jose'
import * as oauth from 'oauth4webapi'
import t from 'tap'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'

const FORM = 'application/x-www-form-urlencoded'
const WRONG = 'a wrong password of good length'
const CREDENTIALS = { grant_type: 'password', username: SUPER_ADMIN_EMAIL, password: PASSWORD }

const postForm = async (
  { app }: TestApp,
  form: Record<string, string> | string,
  headers: Record<string, string> = {},
) =>
  await app.inject({
    method: 'POST',
    url: '/api/v1/auth/access-token',
    headers: { 'content-type': FORM, ...headers },
    payload: String(new URLSearchParams(form)),
  })

const login = async ({ anonymous }: TestApp, body: unknown, headers?: Record<string, string>) =>
  await anonymous.post('/api/v1/auth/login', body, headers)

const scopeOf = (response: LightMyRequestResponse): string => response.json<{ scope: string }>().scope
const tokenOf = (response: LightMyRequestResponse): string =>
  response.json<{ access_token: string }>().access_token
const claimsOf = (response: LightMyRequestResponse) => decodeJwt(tokenOf(response))

/** A person with the role `writer` (post:read, post:write) in the first account. */
async function buildWriter(t: Parameters<typeof buildTestApp>[0]) {
  const app = await buildTestApp(t)
  await app.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
  return { app, writer: await app.person('writer') }
}

t.test('the form and the JSON login answer alike', async (t) => {
  const app = await buildTestApp(t)

  const byForm = await postForm(app, CREDENTIALS)
  const byJson = await login(app, { email: SUPER_ADMIN_EMAIL, password: PASSWORD })

  for (const response of [byForm, byJson]) {
    t.equal(response.statusCode, 200)
    t.same(Object.keys(response.json()).sort(), [
      'access_token',
      'device_token',
      'expires_in',
      'refresh_token',
      'scope',
      'token_type',
    ])
    t.match(response.json(), { token_type: 'bearer', expires_in: 900 })
    t.equal(response.headers['cache-control'], 'no-store')
    t.equal(response.headers['pragma'], 'no-cache')
    t.match(response.headers['content-type'], /^application\/json/)
    t.equal(claimsOf(response)['scope'], scopeOf(response))
  }
  t.equal(scopeOf(byForm), scopeOf(byJson))
})

t.test('an OAuth client of another maker signs in with the password grant', async (t) => {
  const { app, writer } = await buildWriter(t)
  await app.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.app.server.address() as AddressInfo
  const server = {
    issuer: app.config.http.publicUrl ?? '',
    token_endpoint: `http://127.0.0.1:${port}/api/v1/auth/access-token`,
  }
  const client = { client_id: 'a microservice' }
  const request = async (parameters: Record<string, string>) =>
    await oauth.processGenericTokenEndpointResponse(
      server,
      client,
      await oauth.genericTokenEndpointRequest(server, client, oauth.None(), 'password', parameters, {
        [oauth.allowInsecureRequests]: true,
      }),
    )

  const granted = await request({ username: writer.email, password: PASSWORD, scope: 'post:read' })

  t.equal(granted.token_type, 'bearer')
  t.equal(granted.scope, 'post:read')
  t.equal(granted.expires_in, 900)
  const refused = await request({ username: writer.email, password: WRONG }).catch((error) => error)
  t.match(refused, { name: 'ResponseBodyError', error: 'invalid_grant', status: 400 })
  const tooWide = { username: writer.email, password: PASSWORD, scope: 'nothing:held' }
  t.match(await request(tooWide).catch((error) => error), { error: 'invalid_scope', status: 400 })
})

t.test('the token endpoint names each fault of a request as RFC 6749 §5.2 does', async (t) => {
  const app = await buildTestApp(t)
  const form = 'grant_type=password&username=a@b.example&password=x'
  const faults: [what: string, form: string, error: string][] = [
    ['an empty form', '', 'invalid_request'],
    ['no username', 'grant_type=password&password=x', 'invalid_request'],
    ['no password', 'grant_type=password&username=a@b.example', 'invalid_request'],
    ['an empty username', 'grant_type=password&username=&password=x', 'invalid_request'],
    ['grant_type twice', `grant_type=password&${form}`, 'invalid_request'],
    ['grant_type twice, one foreign', `grant_type=refresh_token&${form}`, 'invalid_request'],
    ['username twice', `${form}&username=c@d.example`, 'invalid_request'],
    ['password twice', `${form}&password=y`, 'invalid_request'],
    ['scope twice', `${form}&scope=a&scope=b`, 'invalid_request'],
    ['account twice', `${form}&account=a&account=b`, 'invalid_request'],
    [
      'a username beyond its length',
      `grant_type=password&password=x&username=${'a'.repeat(255)}`,
      'invalid_request',
    ],
    ['a scope beyond its length', `${form}&scope=${'a'.repeat(5000)}`, 'invalid_request'],
    ['a foreign grant', `${form.replace('password', 'client_credentials')}`, 'unsupported_grant_type'],
    ['a foreign grant and nothing else', 'grant_type=authorization_code', 'unsupported_grant_type'],
    ['a grant in other case', form.replace('password', 'Password'), 'unsupported_grant_type'],
    ['a wrong password', form, 'invalid_grant'],
  ]

  for (const [what, payload, error] of faults) {
    const response = await postForm(app, payload)
    const body = response.json<{ error: string; error_description: string; detail: string }>()

    t.equal(response.statusCode, 400, what)
    t.equal(body.error, error, what)
    t.match(body.error_description, /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/, `${what}: description`)
    t.equal(body.detail, body.error_description)
    t.equal(response.headers['cache-control'], 'no-store', `${what}: cache-control`)
    t.equal(response.headers['pragma'], 'no-cache', `${what}: pragma`)
    t.match(response.headers['content-type'], /^application\/json/)
  }
})

t.test('a token request of another kind is an invalid request', async (t) => {
  const app = await buildTestApp(t)
  const url = '/api/v1/auth/access-token'
  const requests = {
    'a JSON body': app.app.inject({ method: 'POST', url, payload: CREDENTIALS }),
    'a text body': app.app.inject({
      method: 'POST',
      url,
      headers: { 'content-type': 'text/plain' },
      payload: 'grant_type=password',
    }),
    'no body': app.app.inject({ method: 'POST', url }),
    'credentials in the query': app.app.inject({
      method: 'POST',
      url: `${url}?${new URLSearchParams(CREDENTIALS)}`,
      headers: { 'content-type': FORM },
      payload: '',
    }),
  }

  for (const [what, request] of Object.entries(requests)) {
    const response = await request
    t.equal(response.statusCode, 400, what)
    t.equal(response.json<{ error: string }>().error, 'invalid_request', what)
    t.equal(response.headers['cache-control'], 'no-store', what)
  }
})

t.test('the token endpoint takes POST only', async (t) => {
  const app = await buildTestApp(t)

  const response = await app.anonymous.get(`/api/v1/auth/access-token?${new URLSearchParams(CREDENTIALS)}`)

  t.equal(response.statusCode, 405)
  t.equal(response.headers['allow'], 'POST')
  t.notMatch(response.body, /access_token/)
})

t.test('parameters that are unknown are ignored, and those without a value are absent', async (t) => {
  const app = await buildTestApp(t)
  const full = scopeOf(await postForm(app, CREDENTIALS))

  const withUnknown = await postForm(app, { ...CREDENTIALS, target: 'x', nonce: 'y', client_id: 'z' })
  const withEmpty = await postForm(app, {
    ...CREDENTIALS,
    scope: '',
    account: '',
    resource: '',
    client_secret: '',
  })
  const withoutGrantType = await postForm(app, { username: SUPER_ADMIN_EMAIL, password: PASSWORD })

  for (const response of [withUnknown, withEmpty, withoutGrantType]) {
    t.equal(response.statusCode, 200)
    t.equal(scopeOf(response), full)
  }
})

t.test('a form with a charset is a form', async (t) => {
  const app = await buildTestApp(t)

  const response = await postForm(app, CREDENTIALS, { 'content-type': `${FORM}; charset=UTF-8` })

  t.equal(response.statusCode, 200)
})

t.test('a body beyond the limit is refused in the words of OAuth', async (t) => {
  const app = await buildTestApp(t, { env: { BODY_LIMIT_BYTES: '2048' } })

  const response = await postForm(app, { ...CREDENTIALS, padding: 'x'.repeat(4096) })

  t.equal(response.statusCode, 413)
  t.equal(response.json<{ error: string }>().error, 'invalid_request')
})

t.test('a refused JSON login is a problem with status 401', async (t) => {
  const app = await buildTestApp(t)

  const response = await login(app, { email: SUPER_ADMIN_EMAIL, password: WRONG })

  t.equal(response.statusCode, 401)
  t.match(response.headers['content-type'], /^application\/problem\+json/)
  t.match(response.json(), { type: '/problems/invalid_credentials', status: 401 })
})

t.test('a refused JSON login is kept by nobody', async (t) => {
  const app = await buildTestApp(t)

  const refused = await login(app, { email: SUPER_ADMIN_EMAIL, password: WRONG })

  t.equal(refused.headers['cache-control'], 'no-store')
})

t.test('the JSON login refuses what is no login, and checks no password for it', async (t) => {
  const app = await buildTestApp(t)
  const bodies = [
    {},
    { email: SUPER_ADMIN_EMAIL },
    { password: PASSWORD },
    { email: SUPER_ADMIN_EMAIL, password: PASSWORD, extra: 1 },
    { email: [SUPER_ADMIN_EMAIL], password: PASSWORD },
    { email: { $ne: '' }, password: { $ne: '' } },
    { email: SUPER_ADMIN_EMAIL, password: '' },
    { email: '', password: PASSWORD },
    { email: SUPER_ADMIN_EMAIL, password: PASSWORD, scope: ['a'] },
    { email: SUPER_ADMIN_EMAIL, password: PASSWORD, account: null },
    [],
    'text',
    null,
  ]

  for (const body of bodies) {
    const response = await app.app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify(body),
    })
    t.equal(response.statusCode, 422, JSON.stringify(body))
  }
})

t.test('a requested scope narrows the token', async (t) => {
  const { app, writer } = await buildWriter(t)
  const signIn = async (scope: string) => await login(app, { email: writer.email, password: PASSWORD, scope })

  t.equal(scopeOf(await signIn('post:read')), 'post:read')
  t.equal(scopeOf(await signIn('post:write post:read post:read')), 'post:read post:write')
  t.equal(scopeOf(await signIn('  post:read   nothing:held ')), 'post:read')
  t.equal(scopeOf(await signIn('post:read postern.users:read:any post:read:any')), 'post:read')
})

t.test('C.5 8.3.1: a scope that is not held is not given, in whatever form it is asked for', async (t) => {
  const { app, writer } = await buildWriter(t)

  for (const scope of [
    'postern.users:read',
    'postern.users:read:any',
    'post:read:any',
    'post:*',
    '*',
    'POST:READ',
    'post:read\tpost:write',
    'openid',
  ]) {
    const byJson = await login(app, { email: writer.email, password: PASSWORD, scope })
    const byForm = await postForm(app, { username: writer.email, password: PASSWORD, scope })

    t.equal(byJson.statusCode, 400, scope)
    t.match(byJson.json(), { type: '/problems/invalid_scope' })
    t.equal(byForm.statusCode, 400, scope)
    t.match(byForm.json(), { error: 'invalid_scope' })
  }
})

t.test('a narrowed token of a super admin may do what it says and nothing else', async (t) => {
  const app = await buildTestApp(t)
  const narrowed = await login(app, {
    email: SUPER_ADMIN_EMAIL,
    password: PASSWORD,
    scope: 'postern.accounts:read:any',
  })
  const client = app.as(tokenOf(narrowed))

  t.equal((await client.get('/api/v1/accounts')).statusCode, 200)
  t.equal((await client.get('/api/v1/users')).statusCode, 403)
  t.equal((await client.post('/api/v1/roles', { name: 'x' })).statusCode, 403)
  t.equal((await client.patch('/api/v1/users/me', { email: 'else@postern.test' })).statusCode, 403)
  t.equal((await client.post(`/api/v1/users/${app.rootId}/deactivate`)).statusCode, 403)
})

t.test('whether a scope is held is told only to those who know the password', async (t) => {
  const { app, writer } = await buildWriter(t)

  const response = await login(app, { email: writer.email, password: WRONG, scope: 'nothing:held' })

  t.equal(response.statusCode, 401)
})

t.test('a token is for the account that was asked for, by its key or id', async (t) => {
  const { app, writer } = await buildWriter(t)
  const acme = await app.account('Acme')
  await app.root.post(`/api/v1/users/${writer.id}/roles`, {
    role_id: await app.roleId('ACCOUNT_ADMIN'),
    account_id: acme,
  })
  const signIn = async (account?: string) => {
    const response = await login(app, { email: writer.email, password: PASSWORD, account })
    t.equal(response.statusCode, 200, account ?? 'the home account')
    return claimsOf(response)
  }

  t.match(await signIn(), { account_id: app.home, role: 'writer', roles: ['writer'] })
  t.match(await signIn('default'), { account_id: app.home, role: 'writer' })
  t.match(await signIn('acme'), { account_id: acme, role: 'GUEST', roles: ['ACCOUNT_ADMIN'] })
  t.match(await signIn(acme), { account_id: acme, roles: ['ACCOUNT_ADMIN'] })
  t.match(await signIn(acme.toUpperCase()), { account_id: acme })
  t.notMatch(String((await signIn('acme'))['scope']), /post:read/)
  t.match(String((await signIn('acme'))['scope']), /postern\.users:read(?!:any)/)
})

t.test(
  'an account that one is not an active member of refuses the sign-in, as every other refusal',
  async (t) => {
    const { app, writer } = await buildWriter(t)
    const acme = await app.account('Acme')
    const idle = await app.account('Idle')
    const pending = await app.account('Pending')
    for (const id of [idle, pending]) await app.root.put(`/api/v1/accounts/${id}/members/${writer.id}`)
    await app.root.post(`/api/v1/accounts/${idle}/deactivate`)
    await app.services.database.pool.query(
      `update account_members set status = 'pending' where account_id = $1`,
      [pending],
    )

    for (const account of ['acme', acme, 'idle', idle, 'pending', pending, 'nowhere', "' or 1=1 --"]) {
      const response = await login(app, { email: writer.email, password: PASSWORD, account })
      const form = await postForm(app, { username: writer.email, password: PASSWORD, account })

      t.equal(response.statusCode, 401, account)
      t.match(response.json(), { type: '/problems/invalid_credentials' })
      t.match(form.json(), { error: 'invalid_grant' })
      await app.services.database.pool.query('delete from login_attempts')
    }
  },
)

t.test('a super admin is no member of every account', async (t) => {
  const app = await buildTestApp(t)
  await app.account('Acme')

  const response = await login(app, { email: SUPER_ADMIN_EMAIL, password: PASSWORD, account: 'acme' })

  t.equal(response.statusCode, 401)
})

t.test('C.3: every refusal is answered alike, byte for byte', async (t) => {
  const app = await buildTestApp(t)
  const acme = await app.account('Acme')
  const known = await app.person('GUEST')
  const disabled = await app.person('GUEST')
  const ofClosedAccount = await app.person('GUEST', { accountId: acme })
  const deleted = await app.person('GUEST')
  const synced = await app.person('GUEST')
  await app.root.post(`/api/v1/users/${disabled.id}/deactivate`)
  await app.root.post(`/api/v1/accounts/${acme}/deactivate`)
  await app.root.delete(`/api/v1/users/${deleted.id}`)
  await app.services.database.pool.query('delete from user_credentials where user_id = $1', [synced.id])
  const attempts: [what: string, email: string, password: string, account?: string][] = [
    ['an unknown email', 'nobody@postern.test', PASSWORD],
    ['a wrong password', known.email, WRONG],
    ['a foreign account', known.email, PASSWORD, 'acme'],
    ['a disabled user', disabled.email, PASSWORD],
    ['a disabled user, wrong password', disabled.email, WRONG],
    ['a user of a closed account', ofClosedAccount.email, PASSWORD],
    ['a deleted user', deleted.email, PASSWORD],
    ['a user without a password', synced.email, PASSWORD],
    ['what is no email', 'nonsense', PASSWORD],
  ]

  for (const send of [
    async (email: string, password: string, account?: string) =>
      await login(app, { email, password, account }, { 'x-request-id': 'same' }),
    async (username: string, password: string, account?: string) =>
      await postForm(app, { username, password, ...(account && { account }) }, { 'x-request-id': 'same' }),
  ]) {
    const seen = new Map<string, string>()
    for (const [what, email, password, account] of attempts) {
      const { statusCode, headers, body } = await send(email, password, account)
      seen.set(what, JSON.stringify([statusCode, { ...headers, date: '' }, body]))
    }
    t.equal(new Set(seen.values()).size, 1, JSON.stringify([...seen], null, 1))
  }
})

/** What a sign-in does, in order: repeats of a step stand once. */
function watchSteps({ services: { passwords, database } }: TestApp) {
  const steps: string[] = []
  const note = (step: string): void => void (steps.at(-1) !== step && steps.push(step))
  const { admit, verify } = passwords
  passwords.admit = (isKnown) => {
    note('admit')
    const ticket = admit(isKnown)
    return {
      release() {
        note('release')
        ticket.release()
      },
    }
  }
  passwords.verify = async (...given) => {
    note('verify')
    return await verify(...given)
  }
  const { pool } = database
  const query = pool.query
  pool.query = ((...given: unknown[]) => {
    const [statement] = given as [string | { text: string }]
    const text = typeof statement === 'string' ? statement : statement.text
    if (text.includes('login_attempts')) note('count')
    else if (/\bfrom "?users\b/.test(text)) note('find')
    return Reflect.apply(query, pool, given)
  }) as typeof query
  return () => steps.splice(0)
}

t.test('C.2: a place in the pool, the throttle, the look-up, the hash: in this order', async (t) => {
  const app = await buildTestApp(t, {
    env: { HASH_CONCURRENCY: '1', HASH_QUEUE: '0', LOGIN_MAX_FAILURES: '1' },
  })
  const [{ email }, ofLogin, ofForm] = [
    await app.person('GUEST'),
    await app.person('GUEST'),
    await app.person('GUEST'),
  ]
  await app.services.database.pool.query('delete from login_attempts')
  const counters = async () => (await app.services.database.pool.query('select from login_attempts')).rowCount
  const stepsOfNow = watchSteps(app)
  const ways = [
    {
      way: 'login',
      person: ofLogin,
      signIn: async (of: string) => await login(app, { email: of, password: WRONG }),
    },
    {
      way: 'form',
      person: ofForm,
      signIn: async (of: string) => await postForm(app, { username: of, password: WRONG }),
    },
  ]

  const full = app.services.passwords.admit()
  stepsOfNow()
  for (const { way, signIn } of ways) {
    t.equal((await signIn(email)).statusCode, 503, way)
    t.same(stepsOfNow(), ['admit'], `${way}: a full pool ends it`)
  }
  t.equal(await counters(), 0)
  full.release()
  stepsOfNow()

  for (const { way, person, signIn } of ways) {
    for (const who of [person.email, `nobody-${way}@postern.test`]) {
      await signIn(who)
      const steps = stepsOfNow()
      t.same(steps.slice(0, steps.indexOf('release') + 1), ['admit', 'count', 'find', 'verify', 'release'])

      t.equal((await signIn(who)).statusCode, 429, way)
      t.same(stepsOfNow(), ['admit', 'count', 'release'], `${way}: a wait ends it, unseen`)
    }
  }
  t.equal((await login(app, { email, password: PASSWORD })).statusCode, 200, 'every place was given back')
})

t.test('C.3: known, unknown and disabled people are locked alike, byte for byte', async (t) => {
  const app = await buildTestApp(t, { env: { LOGIN_MAX_FAILURES: '2' } })
  const known = await app.person('GUEST')
  const disabled = await app.person('GUEST')
  await app.root.post(`/api/v1/users/${disabled.id}/deactivate`)
  const answers = []

  for (const email of ['nobody@postern.test', known.email, disabled.email]) {
    for (let n = 0; n < 3; n++) {
      const response = await login(app, { email, password: WRONG }, { 'x-request-id': 'same' })
      const { 'retry-after': wait, ...headers } = response.headers
      if (n === 2) answers.push([response.statusCode, { ...headers, date: '' }, response.body])
      t.equal(wait !== undefined, n === 2)
    }
  }

  t.match(answers[0], [429])
  t.same(answers[1], answers[0])
  t.same(answers[2], answers[0])
})

t.test('every refused sign-in is in the audit trail, repeats on one line', async (t) => {
  const app = await buildTestApp(t)
  const known = await app.person('GUEST')

  for (let n = 0; n < 3; n++) await login(app, { email: known.email, password: WRONG })
  await login(app, { email: 'nobody@postern.test', password: WRONG })

  const { rows } = await app.services.database.pool.query<{ target_id: string | null; count: number }>(
    `select target_id, sum(repeat_count)::int as count from audit_events
      where action = 'sign_in.refused' and outcome = 'refused' group by target_id`,
  )
  t.same(
    new Map(rows.map((row) => [row.target_id, row.count])),
    new Map([
      [known.id, 3],
      [null, 1],
    ]),
  )
})

t.test('neither a password nor a hash is in the audit trail', async (t) => {
  const app = await buildTestApp(t)

  await login(app, { email: SUPER_ADMIN_EMAIL, password: WRONG })
  await app.person('GUEST')

  const { rows } = await app.services.database.pool.query(
    'select e.*, p.* from audit_events e left join audit_personal_data p on p.audit_event_id = e.id',
  )
  t.notMatch(JSON.stringify(rows), new RegExp(`${WRONG}|${PASSWORD}|argon2`))
})

t.test('an email is compared without regard to case and surrounding space', async (t) => {
  const app = await buildTestApp(t)
  await app.person('GUEST', { email: 'Ärger.STRASSE@Postern.test' })

  for (const email of [
    'ÄRGER.strasse@postern.TEST',
    'ärger.straße@postern.test',
    'ärger.strasse@postern.test'.normalize('NFD'),
    '  ärger.strasse@postern.test ',
  ]) {
    t.equal((await login(app, { email, password: PASSWORD })).statusCode, 200, email)
  }
})

t.test('C.1.5: a password is the same however its letters are composed', async (t) => {
  const app = await buildTestApp(t)
  const composed = 'un été à la plage, déjà vu'.normalize('NFC')
  const decomposed = composed.normalize('NFD')
  await app.root.post('/api/v1/users', { email: 'ete@postern.test', password: composed })

  t.not(composed, decomposed)
  t.equal((await login(app, { email: 'ete@postern.test', password: decomposed })).statusCode, 200)
  t.equal((await login(app, { email: 'ete@postern.test', password: composed })).statusCode, 200)
})

t.test('C.1.4, C.1.5: compatible letters are not equal ones, and spaces of a password stay', async (t) => {
  const app = await buildTestApp(t)
  await app.root.post('/api/v1/users', { email: 'fi@postern.test', password: ' ﬁve words and a ligature ' })

  const signIn = async (password: string) =>
    (await login(app, { email: 'fi@postern.test', password })).statusCode

  t.equal(await signIn(' ﬁve words and a ligature '), 200)
  t.equal(await signIn(' five words and a ligature '), 401)
  t.equal(await signIn('ﬁve words and a ligature'), 401)
})

t.test('a form keeps every character of a password', async (t) => {
  const app = await buildTestApp(t)
  const password = ' a+b%20&c=d;é 🔐 "quoted" \\ '
  await app.root.post('/api/v1/users', { email: 'odd@postern.test', password })

  t.equal((await postForm(app, { username: 'odd@postern.test', password })).statusCode, 200)
})

t.test('more scopes than a token carries must be named', async (t) => {
  const app = await buildTestApp(t)
  const scopes = Array.from({ length: 40 }, (_, n) => `${'resource'.repeat(15)}-${n}:read`)
  await app.root.post('/api/v1/roles', { name: 'everything', scopes })
  const user = await app.root.post('/api/v1/users', {
    email: 'every@postern.test',
    password: PASSWORD,
    account_id: app.home,
  })
  await app.root.post('/api/v1/user-roles', {
    user_id: user.json<{ id: string }>().id,
    role_id: await app.roleId('everything'),
  })
  const signIn = async (scope?: string) =>
    await login(app, { email: 'every@postern.test', password: PASSWORD, scope })

  const all = await signIn()
  const form = await postForm(app, { username: 'every@postern.test', password: PASSWORD })
  const some = await signIn(scopes.slice(0, 3).join(' '))

  t.equal(all.statusCode, 400)
  t.match(all.json(), { type: '/problems/scope_too_large' })
  t.match(all.json<{ detail: string }>().detail, /\d{4} bytes/)
  t.equal(form.json<{ error: string }>().error, 'invalid_scope')
  t.equal(some.statusCode, 200)
  t.equal(scopeOf(some).split(' ').length, 3)
  t.equal((await signIn(`${scopes[0]} ${'x'.repeat(4090)}`)).statusCode, 422, 'the request has a bound too')
})

t.test('more roles than a token carries are left out when its scopes are named', async (t) => {
  const app = await buildTestApp(t)
  const user = await app.root.post('/api/v1/users', {
    email: 'many@postern.test',
    password: PASSWORD,
    account_id: app.home,
  })
  const give = async (name: string) => {
    await app.root.post('/api/v1/roles', { name, scopes: ['posts:read', 'posts:write'] })
    const further = `/api/v1/users/${user.json<{ id: string }>().id}/roles`
    const given = await app.root.post(further, { role_id: await app.roleId(name), account_id: app.home })
    t.equal(given.statusCode, 201)
  }
  const signIn = async (scope?: string) =>
    await login(app, { email: 'many@postern.test', password: PASSWORD, scope })
  const rolesOf = async (scope?: string) => (claimsOf(await signIn(scope))['roles'] as string[]).length
  const names = Array.from({ length: 80 }, (_, n) => `${'a-long-role-'.repeat(8)}-${100 + n}`)

  for (const name of names.slice(0, 39)) await give(name)
  t.equal(await rolesOf(), 39)
  t.equal(await rolesOf('posts:read'), 39)

  for (const name of names.slice(39)) await give(name)
  const all = await signIn()
  const some = await signIn('posts:read')

  t.equal(all.statusCode, 400)
  t.match(all.json(), { type: '/problems/scope_too_large', detail: /the roles 8240;/ })
  t.match(claimsOf(some), { scope: 'posts:read', roles: [] })
  const { refresh_token } = some.json<{ refresh_token: string }>()
  const next = await app.anonymous.post('/api/v1/auth/refresh', { refresh_token })
  t.match(claimsOf(next), { scope: 'posts:read', roles: [] })
})

t.test('C.1 argon2: a hash of other parameters is renewed at sign-in', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const stored = async () => {
    const { rows } = await app.services.database.pool.query<{ password_hash: string }>(
      'select password_hash from user_credentials where user_id = $1',
      [person.id],
    )
    return rows[0]?.password_hash ?? ''
  }
  const before = await stored()
  const stronger = await buildTestApp(t, { databaseUrl: app.databaseUrl, env: { ARGON2_TIME_COST: '3' } })

  t.equal((await login(stronger, { email: person.email, password: WRONG })).statusCode, 401)
  t.equal(await stored(), before, 'a wrong password renews nothing')
  t.equal((await login(stronger, { email: person.email, password: PASSWORD })).statusCode, 200)

  const after = await stored()
  t.match(before, /t=2,p=1/)
  t.match(after, /t=3,p=1/)
  t.equal((await login(stronger, { email: person.email, password: PASSWORD })).statusCode, 200)
  t.equal(await stored(), after, 'a hash of today is left alone')
})

t.test('a hash is renewed even when the pool has one place', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const env = { ARGON2_TIME_COST: '3', HASH_CONCURRENCY: '1', HASH_QUEUE: '0' }
  const stronger = await buildTestApp(t, { databaseUrl: app.databaseUrl, env })

  t.equal((await login(stronger, { email: person.email, password: PASSWORD })).statusCode, 200)
})

t.test('sign-ins are counted by their outcome', async (t) => {
  const app = await buildTestApp(t, { env: { LOGIN_MAX_FAILURES: '1' } })
  await login(app, { email: 'nobody@postern.test', password: WRONG })
  await login(app, { email: 'nobody@postern.test', password: WRONG })

  const metrics = (await app.anonymous.get('/metrics')).body

  t.match(metrics, /postern_\w*sign_?ins?\w*\{[^}]*outcome="success"[^}]*\} 1/)
  t.match(metrics, /postern_\w*sign_?ins?\w*\{[^}]*outcome="refused"[^}]*\} 1/)
  t.match(metrics, /postern_\w*sign_?ins?\w*\{[^}]*outcome="throttled"[^}]*\} 1/)
})
