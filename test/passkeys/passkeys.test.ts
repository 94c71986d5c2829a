import { createHash } from 'node:crypto'
import type { LightMyRequestResponse } from 'fastify'
import { decodeJwt } from 'jose'
import t from 'tap'
import { relyingPartySettings } from '../../src/passkeys/relying-party.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type Client, type Person } from '../helpers/app.ts'
import { type Authenticator, type Ceremony, createAuthenticator } from '../helpers/authenticator.ts'
import { PASSWORD, testConfig } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'

const ORIGIN = 'http://postern.test'
const APP_ORIGIN = 'https://app.postern.test'

type Passkey = { id: string; name: string; recovery_codes?: string[]; is_user_verifying: boolean }
type Options = { challenge: string; rpId: string; allowCredentials: { id: string; transports: string[] }[] }
type SignInOptions = { challenge_token: string; expires_in: number; options: Options }

const postern = await buildTestApp(t, {
  env: { CORS_ORIGINS: APP_ORIGIN, LOGIN_MAX_FAILURES_PER_ADDRESS: '25' },
})
const { anonymous, root, app } = postern
const { pool } = postern.services.database

const authenticator = (traits: Partial<Parameters<typeof createAuthenticator>[0]> = {}): Authenticator =>
  createAuthenticator({ origin: ORIGIN, ...traits })

const registrationOptions = async (client: Client) =>
  (await client.post('/api/v1/auth/passkeys/registration-options')).json()

async function register(
  { client }: Pick<Person, 'client'>,
  device: Authenticator,
  ceremony: Ceremony = {},
): Promise<LightMyRequestResponse> {
  const response = device.create(await registrationOptions(client), ceremony)
  return await client.post('/api/v1/auth/passkeys', { name: 'Key', response })
}

/** A person with a passkey of this authenticator. */
async function holder(device: Authenticator): Promise<Person & { passkey: Passkey }> {
  const person = await postern.person('GUEST')
  const registered = await register(person, device)
  if (registered.statusCode !== 201) throw new Error(registered.body)
  return { ...person, passkey: registered.json<Passkey>() }
}

const signInOptions = async (email?: string): Promise<SignInOptions> =>
  (await anonymous.post('/api/v1/auth/passkey/options', email === undefined ? {} : { email })).json()

async function signIn(
  device: Authenticator,
  { email, ...ceremony }: Ceremony & { email?: string } = {},
  further: object = {},
): Promise<LightMyRequestResponse> {
  const { challenge_token, options } = await signInOptions(email)
  return await anonymous.post('/api/v1/auth/passkey/verify', {
    challenge_token,
    response: device.get(options, ceremony),
    ...further,
  })
}

const tokenOf = (response: LightMyRequestResponse): string =>
  response.json<{ access_token: string }>().access_token
const codeOf = (response: LightMyRequestResponse): string =>
  `${response.statusCode} ${response.json<{ type: string }>().type.replace('/problems/', '')}`
/** Long enough ago that it is not recent any more. */
const growOld = async (userId: string) =>
  await pool.query(`update sessions set authenticated_at = now() - interval '1 day' where user_id = $1`, [
    userId,
  ])

async function anonymousRefusals(): Promise<number> {
  const { rows } = await pool.query(
    `select 1 from audit_events where action = 'sign_in.refused' and target_id is null`,
  )
  return rows.length
}

async function refusalsOf(userId: string, action: string): Promise<object[]> {
  const { rows } = await pool.query<{ details: object }>(
    'select details from audit_events where action = $1 and target_id = $2 order by id',
    [action, userId],
  )
  return rows.map(({ details }) => details)
}

t.test('E.3: a passkey is registered, listed, renamed, signs in alone, and is removed', async (t) => {
  const device = authenticator({ isSynced: true })
  const ada = await holder(device)
  t.match(ada.passkey, {
    name: 'Key',
    is_user_verifying: true,
    is_backup_eligible: true,
    is_backed_up: true,
    transports: ['hybrid', 'internal'],
    last_used_at: null,
  })
  t.equal(ada.passkey.recovery_codes?.length, 10, 'the first second factor brings recovery codes')
  const second = (await register(ada, authenticator())).json<Passkey>()
  t.notOk(second.recovery_codes, 'the next one brings none')

  const signedIn = await signIn(device, {}, { scope: '' })

  t.equal(signedIn.statusCode, 200, signedIn.body)
  t.equal(signedIn.headers['cache-control'], 'no-store')
  t.equal(decodeJwt(tokenOf(signedIn)).sub, ada.id)
  const mine = postern.as(tokenOf(signedIn))
  const renamed = await mine.patch(`/api/v1/auth/passkeys/${ada.passkey.id}`, { name: 'Phone' })
  t.equal(renamed.json<Passkey>().name, 'Phone')
  t.equal((await mine.delete(`/api/v1/auth/passkeys/${second.id}`)).statusCode, 204)
  const listed = (await mine.get('/api/v1/auth/passkeys')).json<(Passkey & { last_used_at: string })[]>()
  t.same(
    listed.map(({ id }) => id),
    [ada.passkey.id],
  )
  t.ok(listed[0]?.last_used_at)
  const { rows } = await pool.query('select * from passkeys where id = $1', [ada.passkey.id])
  matchEach(t, rows, [
    {
      credential_id: device.credentials[0]?.id.toString('base64url'),
      public_key: /^[\w-]{90,}$/,
      counter: '2',
      transports: ['hybrid', 'internal'],
      device_type: 'multiDevice',
      is_backed_up: true,
      aaguid: '00000000-0000-0000-0000-000000000000',
      name: 'Phone',
      last_used_at: Date,
    },
  ])
  const stranger = await postern.person('SUPER_ADMIN')
  for (const send of [
    async () => await stranger.client.patch(`/api/v1/auth/passkeys/${ada.passkey.id}`, { name: 'Mine' }),
    async () => await stranger.client.delete(`/api/v1/auth/passkeys/${ada.passkey.id}`),
  ])
    t.equal(codeOf(await send()), '404 passkey_not_found')
  const cookie = await signIn(device, {}, { use_cookie: true })
  t.match(cookie.headers['set-cookie'], /^postern-refresh=/)
  t.notOk(cookie.json<{ refresh_token?: string }>().refresh_token)
})

t.test(
  'E.1: a challenge is answered once, in time, for what it was asked for, and in its session',
  async (t) => {
    const device = authenticator()
    const ada = await holder(device)
    const { challenge_token, expires_in, options } = await signInOptions()
    t.equal(Buffer.from(options.challenge, 'base64url').length, 32)
    t.ok(expires_in <= 300)
    const body = { challenge_token, response: device.get(options) }
    t.equal((await anonymous.post('/api/v1/auth/passkey/verify', body)).statusCode, 200)
    t.equal(codeOf(await anonymous.post('/api/v1/auth/passkey/verify', body)), '401 invalid_passkey', 'again')

    const late = await signInOptions()
    await pool.query('update challenges set expires_at = now()')
    t.equal(
      codeOf(
        await anonymous.post('/api/v1/auth/passkey/verify', {
          challenge_token: late.challenge_token,
          response: device.get(late.options),
        }),
      ),
      '401 invalid_passkey',
      'too late',
    )
    const [first, other] = [await signInOptions(), await signInOptions()]
    t.equal(
      codeOf(
        await anonymous.post('/api/v1/auth/passkey/verify', {
          challenge_token: other.challenge_token,
          response: device.get(first.options),
        }),
      ),
      '401 invalid_passkey',
      'with the token of another challenge',
    )
    const failed = await signInOptions()
    for (const origin of ['https://evil.test', ORIGIN])
      t.equal(
        codeOf(
          await anonymous.post('/api/v1/auth/passkey/verify', {
            challenge_token: failed.challenge_token,
            response: device.get(failed.options, { origin }),
          }),
        ),
        '401 invalid_passkey',
        'a wrong answer uses it up',
      )
    const stepUp = (await ada.client.post('/api/v1/auth/step-up/passkey/options')).json<Options>()
    t.equal(
      codeOf(
        await anonymous.post('/api/v1/auth/passkey/verify', {
          challenge_token: challenge_token,
          response: device.get(stepUp),
        }),
      ),
      '401 invalid_passkey',
      'asked for a step-up',
    )

    const newDevice = authenticator()
    const response = newDevice.create(await registrationOptions(ada.client))
    const elsewhere = postern.as(tokenOf(await signIn(device)))
    t.equal(
      codeOf(await elsewhere.post('/api/v1/auth/passkeys', { name: 'Key', response })),
      '400 passkey_not_registered',
      'another session of the same person',
    )
    t.equal(
      codeOf(await ada.client.post('/api/v1/auth/passkeys', { name: 'Key', response })),
      '400 passkey_not_registered',
      'used up by that',
    )
  },
)

t.test('E.2: origin and domain come from the configuration, never from the Host header', async (t) => {
  const device = authenticator()
  const ada = await holder(device)
  const { challenge_token, options } = (
    await app.inject({
      method: 'POST',
      url: '/api/v1/auth/passkey/options',
      headers: { host: 'evil.test' },
      payload: {},
    })
  ).json<SignInOptions>()
  t.equal(options.rpId, 'postern.test')

  const refused = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/passkey/verify',
    headers: { host: 'evil.test', origin: 'http://evil.test' },
    payload: {
      challenge_token,
      response: device.get(options, { origin: 'http://evil.test', rpId: 'evil.test' }),
    },
  })

  t.equal(codeOf(refused), '401 invalid_passkey')
  for (const wrong of [
    { origin: 'http://evil.test' },
    { origin: 'https://postern.test' },
    { origin: 'http://postern.test.evil.test' },
    { rpId: 'evil.test' },
    { type: 'webauthn.create' },
    { isUserPresent: false },
    { crossOrigin: true },
    { challenge: 'A'.repeat(43) },
    { challenge: '\u0000' },
  ])
    t.equal(codeOf(await signIn(device, wrong)), '401 invalid_passkey', JSON.stringify(wrong))
  t.equal((await signIn(device, { origin: APP_ORIGIN })).statusCode, 200, 'an origin of CORS_ORIGINS')
  for (const wrong of [{ origin: 'http://evil.test' }, { rpId: 'evil.test' }, { crossOrigin: true }])
    t.equal(codeOf(await register(ada, authenticator(), wrong)), '400 passkey_not_registered')
})

t.test('E.2: where nothing is said, domain and origins follow from PUBLIC_URL and CORS_ORIGINS', (t) => {
  const settings = (env: Record<string, string>) => relyingPartySettings(testConfig(env))

  t.same(settings({ PUBLIC_URL: 'https://auth.example.com/base', CORS_ORIGINS: 'https://example.com' }), {
    rpId: 'auth.example.com',
    rpName: 'Postern',
    origins: ['https://auth.example.com', 'https://example.com'],
  })
  t.match(settings({ PUBLIC_URL: '', PORT: '8123' }), {
    rpId: 'localhost',
    origins: ['http://localhost:8123'],
  })
  t.match(settings({ PUBLIC_URL: 'http://[::1]:80' }), { rpId: 'localhost', origins: ['http://localhost'] })
  t.same(
    settings({
      WEBAUTHN_RP_ID: 'Example.com',
      WEBAUTHN_RP_NAME: 'Shop',
      WEBAUTHN_ORIGINS: 'https://a.example.com, https://b.example.com',
      CORS_ORIGINS: 'https://c.example.com',
    }),
    { rpId: 'example.com', rpName: 'Shop', origins: ['https://a.example.com', 'https://b.example.com'] },
  )
  for (const env of [{ WEBAUTHN_RP_ID: 'https://example.com' }, { WEBAUTHN_ORIGINS: 'example.com' }])
    t.throws(() => settings(env), { message: new RegExp(Object.keys(env)[0] ?? '') })
  t.end()
})

t.test('E.3: credential ids are unique, whoever has them', async (t) => {
  const credentialId = createHash('sha256').update('the same id').digest()
  const [ada, eve] = [await postern.person(), await postern.person()]

  t.equal((await register(ada, authenticator(), { credentialId })).statusCode, 201)
  t.equal(codeOf(await register(eve, authenticator(), { credentialId })), '409 passkey_exists')
  t.equal(codeOf(await register(ada, authenticator(), { credentialId })), '409 passkey_exists')
})

t.test(
  'E.4: a counter that does not grow is refused and audited; who does not count stays at zero',
  async (t) => {
    const device = authenticator()
    const ada = await holder(device)
    t.equal((await signIn(device, { counter: 40 })).statusCode, 200)

    for (const counter of [40, 39, 0])
      t.equal(codeOf(await signIn(device, { counter })), '401 invalid_passkey')

    matchEach(t, await refusalsOf(ada.id, 'passkey.counter_regressed'), [
      { passkey_id: ada.passkey.id, counter: 40, last_counter: 40 },
    ])
    t.equal((await signIn(device, { counter: 41 })).statusCode, 200)
    const target = authenticator()
    const eve = await holder(target)
    const { challenge_token, options } = await signInOptions()
    const forged = target.get(options, { counter: 0 })
    forged.response.signature = target.get(options).response.signature
    await anonymous.post('/api/v1/auth/passkey/verify', { challenge_token, response: forged })
    t.same(
      await refusalsOf(eve.id, 'passkey.counter_regressed'),
      [],
      'without the key nobody makes the trail say so',
    )

    const uncounted = authenticator({ counts: false })
    await holder(uncounted)
    t.equal((await signIn(uncounted)).statusCode, 200)
    t.equal((await signIn(uncounted)).statusCode, 200)
  },
)

t.test('E.5: registration excludes what is there, asks for no attestation, and reads none', async (t) => {
  const device = authenticator()
  const ada = await holder(device)
  const options = await registrationOptions(ada.client)
  t.match(options, {
    rp: { id: 'postern.test', name: 'Postern' },
    user: { name: ada.email },
    attestation: 'none',
    authenticatorSelection: { residentKey: 'preferred', userVerification: 'preferred' },
    excludeCredentials: [{ id: device.credentials[0]?.id.toString('base64url'), type: 'public-key' }],
  })
  t.throws(() => device.create(options), /InvalidStateError/)

  const fresh = authenticator()
  for (const attestationObject of ['oA', 'gYGBgYGBgYGB', Buffer.alloc(6000, 0x81).toString('base64url')]) {
    const made = fresh.create(await registrationOptions(ada.client))
    const response = { ...made, response: { ...made.response, attestationObject } }
    t.equal(
      codeOf(await ada.client.post('/api/v1/auth/passkeys', { name: 'Key', response })),
      '400 passkey_not_registered',
    )
  }
  t.equal(
    (await register(ada, fresh, { isCertified: true })).statusCode,
    201,
    'its certificates are not read',
  )
  const own = (await ada.client.get('/api/v1/auth/passkeys')).json<Passkey[]>()
  t.equal(own.length, 2)
  await pool.query(
    `insert into passkeys (id, environment_id, user_id, credential_id, public_key, device_type, name)
     select gen_random_uuid(), environment_id, user_id, 'copy' || n, public_key, device_type, name
     from passkeys, generate_series(1, 18) n where id = $1`,
    [own[0]?.id],
  )
  t.equal(
    codeOf(await ada.client.post('/api/v1/auth/passkeys/registration-options')),
    '409 limit_reached',
    'there are 20 at most',
  )
})

t.test('E.6: without a name the credential names the person, and the user handle must agree', async (t) => {
  const device = authenticator()
  const ada = await holder(device)
  const eve = await holder(authenticator())
  const handleOfEve = Buffer.from(eve.id.replaceAll('-', ''), 'hex').toString('base64url')

  t.equal(decodeJwt(tokenOf(await signIn(device))).sub, ada.id)
  t.equal(codeOf(await signIn(device, { userHandle: handleOfEve })), '401 invalid_passkey')
  t.equal(codeOf(await signIn(device, { userHandle: null })), '401 invalid_passkey')
  t.equal((await signIn(device, { email: ada.email.toUpperCase(), userHandle: null })).statusCode, 200)
  t.equal(codeOf(await signIn(device, { email: ada.email, userHandle: handleOfEve })), '401 invalid_passkey')
})

t.test(
  'E.7, C.3: an unknown email gets plausible options, always the same, and no answer tells it apart',
  async (t) => {
    const device = authenticator()
    const ada = await holder(device)
    const bare = await postern.person()
    const shapeOf = ({ challenge_token, expires_in, options }: SignInOptions) => ({
      keys: Object.keys(options).sort(),
      token: challenge_token.length,
      expires_in,
      credentials: options.allowCredentials.every(({ id, ...rest }) => id !== '' && 'transports' in rest),
    })
    const known = await signInOptions(ada.email)
    t.same(
      known.options.allowCredentials.map(({ id }) => id),
      device.credentials.map(({ id }) => id.toString('base64url')),
    )

    for (const email of ['nobody@postern.test', bare.email]) {
      const [one, two] = [await signInOptions(email), await signInOptions(` ${email.toUpperCase()}`)]
      t.same(shapeOf(one), shapeOf(known))
      t.ok(one.options.allowCredentials.length > 0)
      t.same(one.options.allowCredentials, two.options.allowCredentials)
    }
    const others = new Set<string>()
    for (let i = 0; i < 20; i++)
      for (const { id } of (await signInOptions(`nobody-${i}@postern.test`)).options.allowCredentials)
        others.add(id)
    t.ok(others.size >= 20, 'each of their own')

    // One's own passkey must not tell either, whether the email of somebody else is known.
    const mine = authenticator()
    await holder(mine)
    const bodies = new Set<string>()
    for (const email of [ada.email, bare.email, 'nobody@postern.test']) {
      const refused = await signIn(mine, { email })
      bodies.add(JSON.stringify({ ...refused.json<object>(), instance: '' }))
      t.equal(refused.statusCode, 401)
    }
    const disabled = authenticator()
    const { id: disabledId } = await holder(disabled)
    t.equal((await root.post(`/api/v1/users/${disabledId}/deactivate`)).statusCode, 200)
    const unknown = authenticator()
    unknown.create(await registrationOptions(bare.client))
    for (const refused of [
      await signIn(disabled),
      await signIn(unknown),
      await signIn(device, { rpId: 'evil.test' }),
      await signIn(device, {}, { account: 'no-such-account' }),
    ])
      bodies.add(JSON.stringify({ ...refused.json<object>(), instance: '' }))
    t.equal(bodies.size, 1, 'one answer for every refusal')
    matchEach(t, await refusalsOf(disabledId, 'sign_in.refused'), [{ reason: 'invalid_passkey' }])
  },
)

t.test('E.8: adding and removing takes a recent authentication', async (t) => {
  const device = authenticator()
  const ada = await holder(device)
  await growOld(ada.id)

  for (const send of [
    async () => await ada.client.post('/api/v1/auth/passkeys/registration-options'),
    async () => await ada.client.delete(`/api/v1/auth/passkeys/${ada.passkey.id}`),
    async () => await ada.client.delete('/api/v1/auth/password'),
  ])
    t.equal(codeOf(await send()), '401 reauthentication_required')

  const options = (await ada.client.post('/api/v1/auth/step-up/passkey/options')).json<Options>()
  const steppedUp = await ada.client.post('/api/v1/auth/step-up', { passkey: device.get(options) })
  t.equal(steppedUp.statusCode, 200, steppedUp.body)
  t.match(decodeJwt(tokenOf(steppedUp)), { acr: 'urn:postern:acr:2' })
  const client = postern.as(tokenOf(steppedUp))
  const other = postern.as(tokenOf(await signIn(device)))
  t.equal((await client.delete(`/api/v1/auth/passkeys/${ada.passkey.id}`)).statusCode, 204)
  t.equal((await client.get('/api/v1/users/me')).statusCode, 200)
  t.equal((await other.get('/api/v1/users/me')).statusCode, 401, 'every other session ends')
  t.equal(codeOf(await signIn(device)), '401 invalid_passkey')
})

t.test('E.8: the last factor stays where one is required', async (t) => {
  const accountId = await postern.account()
  const device = authenticator()
  const ada = await postern.person(undefined, { accountId })
  const { id } = (await register(ada, device)).json<Passkey>()
  await pool.query('update accounts set is_mfa_required = true where id = $1', [accountId])
  const client = postern.as(tokenOf(await signIn(device)))

  t.equal(codeOf(await client.delete(`/api/v1/auth/passkeys/${id}`)), '409 last_factor')

  const spare = (await register({ client }, authenticator())).json<Passkey>()
  t.equal((await client.delete(`/api/v1/auth/passkeys/${spare.id}`)).statusCode, 204)
})

t.test(
  'E.9: a passkey that has verified its user is two factors; another one is the first, or the second',
  async (t) => {
    const synced = authenticator({ isSynced: true })
    await holder(synced)
    t.match(decodeJwt(tokenOf(await signIn(synced))), {
      amr: ['swk', 'user', 'mfa'],
      acr: 'urn:postern:acr:2',
    })

    const key = authenticator({ isUserVerified: false })
    const ada = await holder(key)
    t.equal(ada.passkey.is_user_verifying, false)
    const alone = await signIn(key)
    t.equal(codeOf(alone), '403 mfa_required')
    const { mfa_token: tokenOfKey } = alone.json<{ mfa_token: string }>()
    const again = (
      await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token: tokenOfKey })
    ).json<Options>()
    const twice = await anonymous.post('/api/v1/auth/mfa/verify', {
      mfa_token: tokenOfKey,
      passkey: key.get(again),
    })
    t.not(twice.statusCode, 200, 'the same key twice is one factor')

    const password = { email: ada.email, password: PASSWORD }
    const first = await anonymous.post('/api/v1/auth/login', password)
    t.equal(codeOf(first), '403 mfa_required')
    const { mfa_token, methods } = first.json<{ mfa_token: string; methods: string[] }>()
    t.ok(methods.includes('passkey'))
    const options = (await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token })).json<Options>()
    t.same(
      options.allowCredentials.map((one) => one.id),
      key.credentials.map((one) => one.id.toString('base64url')),
    )
    const stranger = authenticator()
    await holder(stranger)
    t.not(
      (
        await anonymous.post('/api/v1/auth/mfa/verify', {
          mfa_token,
          passkey: stranger.get({ ...options, allowCredentials: [] }),
        })
      ).statusCode,
      200,
      'the passkey of somebody else',
    )
    const fresh = (await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token })).json<Options>()
    const second = await anonymous.post('/api/v1/auth/mfa/verify', { mfa_token, passkey: key.get(fresh) })
    t.equal(second.statusCode, 200, second.body)
    t.match(decodeJwt(tokenOf(second)), { amr: ['pwd', 'hwk', 'mfa'], acr: 'urn:postern:acr:2' })

    const [one, two] = await Promise.all(
      [0, 1].map(async () =>
        (await anonymous.post('/api/v1/auth/login', password)).json<{ mfa_token: string }>(),
      ),
    )
    const ofOne = (
      await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token: one?.mfa_token })
    ).json<Options>()
    t.not(
      (
        await anonymous.post('/api/v1/auth/mfa/verify', {
          mfa_token: two?.mfa_token,
          passkey: key.get(ofOne),
        })
      ).statusCode,
      200,
      'asked for another sign-in',
    )
    t.equal(
      codeOf(await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token: 'AAAA' })),
      '401 invalid_mfa_token',
    )
  },
)

t.test('whoever has a passkey that verifies its user may do without a password', async (t) => {
  const key = authenticator({ isUserVerified: false })
  const keyHolder = await holder(key)
  const bare = await postern.person()
  t.equal(codeOf(await bare.client.delete('/api/v1/auth/password')), '409 no_passkey')
  const { mfa_token } = (
    await anonymous.post('/api/v1/auth/login', { email: keyHolder.email, password: PASSWORD })
  ).json<{ mfa_token: string }>()
  const options = (await anonymous.post('/api/v1/auth/mfa/passkey/options', { mfa_token })).json<Options>()
  const withKey = await anonymous.post('/api/v1/auth/mfa/verify', { mfa_token, passkey: key.get(options) })
  t.equal(codeOf(await postern.as(tokenOf(withKey)).delete('/api/v1/auth/password')), '409 no_passkey')

  const device = authenticator()
  const ada = await holder(device)
  const client = postern.as(tokenOf(await signIn(device)))
  t.equal((await client.delete('/api/v1/auth/password')).statusCode, 204)

  t.equal(codeOf(await client.delete('/api/v1/auth/password')), '409 no_password')
  const [removed, unknown] = await Promise.all(
    [ada.email, 'nobody@postern.test'].map(
      async (email) => await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD }),
    ),
  )
  t.equal(removed?.statusCode, 401)
  t.same(
    { ...removed?.json<object>(), instance: '' },
    { ...unknown?.json<object>(), instance: '' },
    'refused like any wrong password',
  )
  t.equal(
    codeOf(
      await client.post('/api/v1/auth/change-password', {
        current_password: PASSWORD,
        new_password: `another ${PASSWORD}`,
      }),
    ),
    '400 invalid_password',
  )
  t.equal((await signIn(device)).statusCode, 200)
  t.equal(codeOf(await client.delete(`/api/v1/auth/passkeys/${ada.passkey.id}`)), '409 last_credential')
  const unverified = (await register({ client }, authenticator({ isUserVerified: false }))).json<Passkey>()
  t.equal(codeOf(await client.delete(`/api/v1/auth/passkeys/${ada.passkey.id}`)), '409 last_credential')
  t.equal((await client.delete(`/api/v1/auth/passkeys/${unverified.id}`)).statusCode, 204)
  const next = `an administrator sets ${PASSWORD}`
  t.equal((await root.patch(`/api/v1/users/${ada.id}`, { password: next })).statusCode, 200)
  t.equal(
    codeOf(await anonymous.post('/api/v1/auth/login', { email: ada.email, password: next })),
    '403 mfa_required',
  )
})

t.test('the last super admin, who has passkeys only, keeps them', async (t) => {
  const device = authenticator()
  await register({ client: root }, device)
  const client = postern.as(tokenOf(await signIn(device)))
  await pool.query(
    `update users set is_active = false where id in (
       select user_id from role_assignments a join roles r on r.id = a.role_id where r.key = 'SUPER_ADMIN') and id <> $1`,
    [postern.rootId],
  )
  t.equal((await client.delete('/api/v1/auth/password')).statusCode, 204)

  await t.rejects(postern.services.factors.resetFactors(SYSTEM, postern.rootId), { code: 'last_super_admin' })
  const other = await postern.person('SUPER_ADMIN')
  t.equal((await client.get('/api/v1/users/me')).statusCode, 200)
  t.equal((await other.client.delete(`/api/v1/users/${postern.rootId}/mfa`)).statusCode, 204)
})

t.test(
  'refused signatures are counted for their address; success and other addresses are not held up',
  async (t) => {
    const device = authenticator()
    await holder(device)
    const from = async (remoteAddress: string, ceremony: Ceremony = {}) => {
      const { challenge_token, options } = await signInOptions()
      const payload = { challenge_token, response: device.get(options, ceremony) }
      return (
        await app.inject({ method: 'POST', url: '/api/v1/auth/passkey/verify', remoteAddress, payload })
      ).statusCode
    }
    t.equal(await from('203.0.113.7'), 200)

    const statuses = []
    for (let i = 0; i < 26; i++) statuses.push(await from('203.0.113.7', { rpId: 'evil.test' }))

    t.same(statuses, [...Array(25).fill(401), 429])
    t.equal(await from('203.0.113.7'), 429)
    t.equal(await from('203.0.113.8'), 200)
  },
)

t.test('C.2: refused passkeys from one /64 share an audit row for each minute', async (t) => {
  const device = authenticator()
  await holder(device)
  const refuse = async (n: number) => {
    const { challenge_token, options } = await signInOptions()
    const payload = { challenge_token, response: device.get(options, { rpId: 'evil.test' }) }
    const remoteAddress = `2001:db8::${n.toString(16)}`
    return (await app.inject({ method: 'POST', url: '/api/v1/auth/passkey/verify', remoteAddress, payload }))
      .statusCode
  }
  for (let n = 1; n <= 25; n++) await refuse(n)
  const rowsBefore = await anonymousRefusals()

  const statuses = []
  for (let n = 26; n <= 37; n++) statuses.push(await refuse(n))

  t.same(statuses, Array(12).fill(429))
  // A minute may end meanwhile.
  t.ok((await anonymousRefusals()) - rowsBefore <= 2)
})
