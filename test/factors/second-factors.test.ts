import type { LightMyRequestResponse } from 'fastify'
import { decodeJwt } from 'jose'
import t from 'tap'
import { hashOfRecoveryCode, newRecoveryCode } from '../../src/factors/recovery-codes.ts'
import { newTotpSecret, stepOfCode } from '../../src/factors/totp.ts'
import { newChallenge } from '../../src/passkeys/relying-party.ts'
import { createServices } from '../../src/services.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { createAuthenticator } from '../helpers/authenticator.ts'
import { PASSWORD, SECRET_KEY, testConfig } from '../helpers/config.ts'
import {
  codeOf,
  enrolTotp,
  letSessionsAge,
  letTimePass,
  login,
  mfaTokenOf,
  wrongCodeOf,
} from '../helpers/factors.ts'
import { isProblem } from '../helpers/hostile.ts'
import { aMailLink } from '../helpers/mail-links.ts'

const VERIFY = '/api/v1/auth/mfa/verify'
const TOTP = '/api/v1/auth/mfa/totp'
const STEP_UP = '/api/v1/auth/step-up'

type Tokens = { access_token: string; refresh_token: string; scope: string }

const withFactor = async (postern: TestApp, role = 'GUEST') => {
  const person = await postern.person(role)
  return { ...person, ...(await enrolTotp(person.client)) }
}
const actionsOn = async ({ root }: TestApp, userId: string): Promise<string[]> =>
  (await root.get(`/api/v1/audit-events?target_id=${userId}`))
    .json<{ action: string }[]>()
    .map(({ action }) => action)

t.test('E TOTP: codes are those of RFC 6238, appendix B', async (t) => {
  // Base32 of the ASCII text 12345678901234567890.
  const secret = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'
  const vectors: [seconds: number, code: string][] = [
    [59, '287082'],
    [1_111_111_109, '081804'],
    [1_111_111_111, '050471'],
    [1_234_567_890, '005924'],
    [2_000_000_000, '279037'],
    [20_000_000_000, '353130'],
  ]

  for (const [seconds, code] of vectors) {
    const step = Math.floor(seconds / 30)
    const at = (offset: number, last: number | null = null) =>
      stepOfCode(secret, code, new Date((seconds + offset) * 1000), last)
    t.equal(at(0), step)
    t.equal(at(30), step, 'a step later')
    t.equal(at(-30), step, 'a step earlier')
    t.equal(at(60), undefined, 'two steps later')
    if (seconds > 60) t.equal(at(-60), undefined, 'two steps earlier')
    t.equal(at(0, step - 1), step)
    t.equal(at(0, step), undefined, 'accepted before')
    t.equal(at(-30, step + 5), undefined, 'a clock that went back')
  }
})

t.test('C.7, E: seeds have 160 random bits, recovery codes 140, challenges 256', (t) => {
  const bits: [made: () => string, bits: number, pattern: RegExp][] = [
    [newTotpSecret, 160, /^[A-Z2-7]{32}$/],
    [newRecoveryCode, 140, /^([0-9a-hjkmnp-tv-z]{4}-){6}[0-9a-hjkmnp-tv-z]{4}$/],
    [() => newChallenge().challenge, 256, /^[\w-]{43}$/],
    [() => newChallenge().token, 256, /^[\w-]{43}$/],
  ]
  for (const [make, length, pattern] of bits) {
    const made = Array.from({ length: 100 }, make)
    t.equal(new Set(made).size, 100, `${length} bits`)
    for (const one of made) t.match(one, pattern)
  }
  t.end()
})

t.test('second factors', async (t) => {
  const postern = await buildTestApp(t, {
    env: { SMTP_URL: 'smtp://127.0.0.1:1', MAIL_FROM: 'a@postern.test' },
  })
  const { anonymous, services, as } = postern
  const { pool } = services.database
  const verify = async (body: Record<string, unknown>) => await anonymous.post(VERIFY, body)

  t.test(
    'E TOTP: an authenticator app counts after its first code, and its secret lies sealed',
    async (t) => {
      const ada = await postern.person('GUEST')
      const begun = (await ada.client.post(TOTP)).json<{ secret: string; otpauth_url: string }>()

      const before = await login(postern, ada)
      const wrong = await ada.client.post(`${TOTP}/verify`, { code: wrongCodeOf(begun.secret) })
      const again = (await ada.client.post(TOTP)).json<{ secret: string }>()
      const replaced = await ada.client.post(`${TOTP}/verify`, { code: codeOf(begun.secret) })
      const confirmed = await ada.client.post(`${TOTP}/verify`, { code: codeOf(again.secret) })
      const after = await login(postern, ada)
      const { rows } = await pool.query('select secret_sealed from totp_factors where user_id = $1', [ada.id])

      t.match(begun.secret, /^[A-Z2-7]{32}$/, '160 bits')
      t.match(
        begun.otpauth_url,
        /^otpauth:\/\/totp\/Postern:person-\d+%40postern\.test\?secret=[A-Z2-7]{32}&issuer=Postern/,
      )
      t.equal(before.statusCode, 200, 'nothing is demanded before')
      isProblem(t, wrong, 'invalid_code')
      isProblem(t, replaced, 'invalid_code')
      t.equal(confirmed.json<{ recovery_codes: string[] }>().recovery_codes.length, 10)
      isProblem(t, after, 'mfa_required')
      t.equal(rows.length, 1)
      t.notOk(JSON.stringify(rows).includes(again.secret))
      t.ok((await actionsOn(postern, ada.id)).includes('totp.enrolled'))
    },
  )

  t.test('E TOTP: an enrolment that waits for longer than an hour is void', async (t) => {
    const ada = await postern.person('GUEST')
    const { secret } = (await ada.client.post(TOTP)).json<{ secret: string }>()
    await pool.query(
      `update totp_factors set created_at = now() - interval '61 minutes' where user_id = $1`,
      [ada.id],
    )

    isProblem(t, await ada.client.post(`${TOTP}/verify`, { code: codeOf(secret) }), 'factor_not_found')
  })

  t.test('the second step gives what the first has asked for, and says how it was', async (t) => {
    await postern.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
    const ada = await withFactor(postern, 'writer')
    const elsewhere = await postern.account()
    await postern.root.put(`/api/v1/accounts/${elsewhere}/members/${ada.id}`)
    await letTimePass(postern, ada.id)

    const narrow = await login(postern, ada, { scope: 'post:read' })
    const signedIn = await verify({ mfa_token: mfaTokenOf(narrow), code: codeOf(ada.secret) })
    await letTimePass(postern, ada.id)
    const there = await verify({
      mfa_token: mfaTokenOf(await login(postern, ada, { account: elsewhere })),
      code: codeOf(ada.secret),
    })
    const tokens = signedIn.json<Tokens>()
    const refreshed = await anonymous.post('/api/v1/auth/refresh', { refresh_token: tokens.refresh_token })

    t.match(narrow.json(), { methods: ['totp', 'recovery_code'], expires_in: 300, mfa_token: /^[\w-]{43}$/ })
    t.notOk('access_token' in narrow.json<object>())
    t.equal(tokens.scope, 'post:read')
    t.equal(decodeJwt(there.json<Tokens>().access_token)['account_id'], elsewhere)
    for (const { access_token } of [tokens, refreshed.json<Tokens>()]) {
      const { amr, acr, auth_time, iat = 0 } = decodeJwt(access_token)
      t.same([amr, acr], [['pwd', 'otp', 'mfa'], 'urn:postern:acr:2'])
      t.ok(Math.abs(Number(auth_time) - iat) < 60)
    }
    t.match(decodeJwt(ada.token), { amr: ['pwd'], acr: 'urn:postern:acr:1' })
  })

  t.test('the OAuth form demands it as OAuth does', async (t) => {
    const ada = await withFactor(postern)
    const form = new URLSearchParams({ grant_type: 'password', username: ada.email, password: PASSWORD })
    const response = await postern.app.inject({
      method: 'POST',
      url: '/api/v1/auth/access-token',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: String(form),
    })
    await letTimePass(postern, ada.id)
    const signedIn = await verify({ mfa_token: mfaTokenOf(response), code: codeOf(ada.secret) })

    t.equal(response.statusCode, 400)
    t.match(response.json(), { error: 'mfa_required', methods: ['totp', 'recovery_code'], expires_in: 300 })
    t.equal(signedIn.statusCode, 200)
  })

  t.test('C.3: a wrong password is answered alike with and without a factor', async (t) => {
    const [ada, bob] = [await withFactor(postern), await postern.person('GUEST')]

    const [known, plain, unknown] = [
      await login(postern, ada, { password: 'a wrong password of good length' }),
      await login(postern, bob, { password: 'a wrong password of good length' }),
      await login(postern, { email: 'nobody@postern.test' }),
    ].map((response) => {
      const { instance: _, ...body } = response.json<Record<string, unknown>>()
      return { status: response.statusCode, body, headers: Object.keys(response.headers).sort() }
    })

    t.equal(known?.status, 401)
    t.same(known, plain)
    t.same(known, unknown)
  })

  t.test('where mails are sent, a factor is for who has confirmed the address', async (t) => {
    const accountId = await postern.account()
    const ada = await postern.person('GUEST', { accountId })
    const device = createAuthenticator({ origin: 'http://postern.test' })
    const options = '/api/v1/auth/passkeys/registration-options'
    const begun = (await ada.client.post(TOTP)).json<{ secret: string }>()
    const response = device.create((await ada.client.post(options)).json())
    await pool.query('update user_credentials set email_verified_at = null where user_id = $1', [ada.id])

    const refused = [
      await ada.client.post(TOTP),
      await ada.client.post(`${TOTP}/verify`, { code: codeOf(begun.secret) }),
      await ada.client.post(options),
      await ada.client.post('/api/v1/auth/passkeys', { name: 'Key', response }),
    ]
    await postern.root.patch(`/api/v1/accounts/${accountId}`, { is_mfa_required: true })
    const limited = as((await login(postern, ada)).json<Tokens>().access_token)
    const mailed = await limited.post('/api/v1/auth/email-verification')
    const token = await aMailLink(postern, ada.id, 'email_verification')
    await anonymous.post('/api/v1/auth/email-verification/confirm', { token })

    for (const answer of refused) isProblem(t, answer, 'email_not_verified')
    t.equal(mailed.statusCode, 202, 'also before a factor that is demanded')
    t.equal((await enrolTotp(limited)).recoveryCodes.length, 10)
  })

  t.test('E: an mfa_token opens nothing else, and ends in five minutes or with a new password', async (t) => {
    const ada = await withFactor(postern)
    const token = mfaTokenOf(await login(postern, ada))
    const age = async (seconds: number) =>
      await pool.query(
        `update challenges set expires_at = expires_at - $2::int * interval '1 second' where user_id = $1`,
        [ada.id, seconds],
      )

    const asBearer = await as(token).get('/api/v1/users/me')
    const asRefresh = await anonymous.post('/api/v1/auth/refresh', { refresh_token: token })
    await age(300)
    await letTimePass(postern, ada.id)
    const late = await verify({ mfa_token: token, code: codeOf(ada.secret) })
    const fresh = mfaTokenOf(await login(postern, ada))
    await postern.root.patch(`/api/v1/users/${ada.id}`, { password: 'another password of good length' })
    const changed = await verify({ mfa_token: fresh, code: codeOf(ada.secret) })
    const c111 = await login(postern, ada, { password: 'another password of good length' })

    isProblem(t, asBearer, 'invalid_token')
    isProblem(t, asRefresh, 'invalid_refresh_token')
    isProblem(t, late, 'invalid_mfa_token')
    isProblem(t, changed, 'invalid_mfa_token')
    isProblem(t, c111, 'mfa_required')
    isProblem(t, await verify({ mfa_token: 'made-up', code: '123456' }), 'invalid_mfa_token')
    for (const body of [
      { mfa_token: fresh },
      { mfa_token: fresh, code: '12345' },
      { mfa_token: fresh, code: '123456', recovery_code: 'x' },
    ])
      isProblem(t, await verify(body), 'validation_failed')
  })

  t.test('E: five wrong codes burn an mfa_token, and a new one gives no new guesses', async (t) => {
    const ada = await withFactor(postern)
    await letTimePass(postern, ada.id)
    const token = mfaTokenOf(await login(postern, ada))
    const wrong = { code: wrongCodeOf(ada.secret) }

    const guesses = []
    for (let guess = 0; guess < 5; guess++) guesses.push(await verify({ mfa_token: token, ...wrong }))
    const held = await verify({ mfa_token: mfaTokenOf(await login(postern, ada)), code: codeOf(ada.secret) })
    await pool.query('update login_attempts set blocked_until = null')
    const burnt = await verify({ mfa_token: token, recovery_code: ada.recoveryCodes[0] })
    await pool.query('update login_attempts set blocked_until = null')
    const fresh = await verify({
      mfa_token: mfaTokenOf(await login(postern, ada)),
      recovery_code: ada.recoveryCodes[0],
    })

    for (const guess of guesses) isProblem(t, guess, 'invalid_code')
    isProblem(t, held, 'too_many_requests')
    isProblem(t, burnt, 'invalid_mfa_token')
    t.equal(fresh.statusCode, 200, 'a recovery code is counted by itself')
    t.ok((await actionsOn(postern, ada.id)).includes('sign_in.refused'))
  })

  t.test('C.2: codes, recovery codes, enrolment and step-up are throttled', async (t) => {
    const [ada, bob] = [await withFactor(postern), await postern.person('GUEST')]
    await ada.client.post(TOTP)
    const wrong = { code: wrongCodeOf(ada.secret) }
    const guesses: [how: string, code: string, guess: () => Promise<LightMyRequestResponse>][] = [
      ['code', 'invalid_code', async () => await ada.client.post(STEP_UP, wrong)],
      ['recovery code', 'invalid_code', async () => await ada.client.post(STEP_UP, { recovery_code: 'x' })],
      ['enrolment', 'invalid_code', async () => await ada.client.post(`${TOTP}/verify`, wrong)],
      ['password', 'invalid_password', async () => await bob.client.post(STEP_UP, { password: 'wrong' })],
    ]

    for (const [how, code, guess] of guesses) {
      const answers = []
      for (let round = 0; round < 6; round++) answers.push((await guess()).json<{ type: string }>().type)
      t.same(answers, [...Array(5).fill(`/problems/${code}`), '/problems/too_many_requests'], how)
    }
    await letTimePass(postern, ada.id)
    const mfa_token = mfaTokenOf(await login(postern, ada))
    isProblem(t, await verify({ mfa_token, code: codeOf(ada.secret) }), 'too_many_requests')
    const [recovery_code] = ada.recoveryCodes
    isProblem(t, await verify({ mfa_token, recovery_code }), 'too_many_requests')
  })

  t.test(
    'C.2: a hundred wrong codes in a row stop codes, and nothing else, until an unlock or a reset',
    async (t) => {
      const ada = await withFactor(postern)
      const attempts = async (set: string) => await pool.query(`update login_attempts set ${set}`)
      const signInWith = async (proof: object) =>
        await verify({ mfa_token: mfaTokenOf(await login(postern, ada)), ...proof })
      const stopCodes = async () => {
        for (const set of ["consecutive = 99 where kind = 'email'", 'blocked_until = null']) {
          await ada.client.post(STEP_UP, { code: wrongCodeOf(ada.secret) })
          await ada.client.post(STEP_UP, { recovery_code: 'wrong' })
          await attempts(set)
        }
        await letTimePass(postern, ada.id)
      }
      await pool.query('delete from login_attempts')

      await stopCodes()
      const stopped = await signInWith({ code: codeOf(ada.secret) })
      const recovered = await signInWith({ recovery_code: ada.recoveryCodes[0] })
      const unlocked = await postern.root.post(`/api/v1/users/${ada.id}/unlock`)
      const open = await signInWith({ code: codeOf(ada.secret) })
      await stopCodes()
      const again = await signInWith({ code: codeOf(ada.secret) })
      await postern.root.delete(`/api/v1/users/${ada.id}/mfa`)
      const { secret } = await enrolTotp(as((await login(postern, ada)).json<Tokens>().access_token))
      await letTimePass(postern, ada.id)
      const reset = await signInWith({ code: codeOf(secret) })

      isProblem(t, stopped, 'too_many_requests')
      t.equal(recovered.statusCode, 200, recovered.body)
      t.equal(unlocked.statusCode, 204)
      t.equal(open.statusCode, 200, open.body)
      isProblem(t, again, 'too_many_requests')
      t.equal(reset.statusCode, 200, reset.body)
    },
  )

  t.test('C.7: of two parallel uses of a code one wins', async (t) => {
    const ada = await withFactor(postern)
    const tokens = await Promise.all([1, 2, 3, 4].map(async () => mfaTokenOf(await login(postern, ada))))
    await letTimePass(postern, ada.id)
    const code = codeOf(ada.secret)

    const uses = await Promise.all(
      tokens.slice(0, 2).map(async (mfa_token) => await verify({ mfa_token, code })),
    )
    const late = await verify({ mfa_token: tokens[2], code })
    const recoveries = await Promise.all(
      (await Promise.all([1, 2].map(async () => mfaTokenOf(await login(postern, ada))))).map(
        async (mfa_token) => await verify({ mfa_token, recovery_code: ada.recoveryCodes[0] }),
      ),
    )
    const twice = await Promise.all(
      [1, 2].map(
        async (use) => await verify({ mfa_token: tokens[3], recovery_code: ada.recoveryCodes[use] }),
      ),
    )

    t.same(uses.map(({ statusCode }) => statusCode).sort(), [200, 400])
    isProblem(t, late, 'invalid_code')
    t.same(recoveries.map(({ statusCode }) => statusCode).sort(), [200, 400])
    t.same(twice.map(({ statusCode }) => statusCode).sort(), [200, 401], 'an mfa_token works once')
  })

  t.test('E: recovery codes work once each, lie hashed, are told of and end with new ones', async (t) => {
    const ada = await withFactor(postern)
    const [first = '', second = ''] = ada.recoveryCodes
    const signInWith = async (recovery_code: string) =>
      await verify({ mfa_token: mfaTokenOf(await login(postern, ada)), recovery_code })

    const used = await signInWith(` ${first.toUpperCase().replaceAll('-', ' ')}`)
    const again = await signInWith(first)
    const mine = as(used.json<Tokens>().access_token)
    const status = (await mine.get('/api/v1/auth/mfa')).json<object>()
    const renewed = await mine.post('/api/v1/auth/mfa/recovery-codes')
    const old = await signInWith(second)
    const { rows } = await pool.query<{ code_hash: string }>(
      'select code_hash from recovery_codes where user_id = $1',
      [ada.id],
    )
    const jobs = await pool.query<{ payload: { sealed: string } }>(
      'select payload from graphile_worker._private_jobs',
    )
    const mails = jobs.rows.map(({ payload }) => services.vault.open('mail', payload.sealed) ?? '')
    const codes = renewed.json<{ recovery_codes: string[] }>().recovery_codes

    t.match(first, /^([0-9a-z]{4}-){6}[0-9a-z]{4}$/)
    t.same(decodeJwt(used.json<Tokens>().access_token)['amr'], ['pwd', 'recovery', 'mfa'])
    isProblem(t, again, 'invalid_code')
    t.match(status, { totp: Object, passkeys: 0, recovery_codes_left: 9, is_required: false })
    t.equal(codes.length, 10)
    isProblem(t, old, 'invalid_code')
    t.equal((await ada.client.get('/api/v1/users/me')).statusCode, 401, 'other sessions end')
    t.same(rows.map(({ code_hash }) => code_hash).sort(), codes.map(hashOfRecoveryCode).sort())
    const actions = await actionsOn(postern, ada.id)
    t.ok(['recovery_code.used', 'recovery_codes.created'].every((action) => actions.includes(action)))
    for (const told of [
      'authenticator app was added',
      'recovery code was used',
      'recovery codes were replaced',
    ])
      t.ok(
        mails.some((mail) => mail.includes(ada.email) && mail.includes(told)),
        told,
      )
  })

  t.test('C.4 7.4.3: a change of factors ends every other session and sign-ins under way', async (t) => {
    const ada = await postern.person('GUEST')
    const other = as(await postern.signIn(ada.email))

    const { secret } = await enrolTotp(ada.client)
    const otherAfter = await other.get('/api/v1/users/me')
    await letTimePass(postern, ada.id)
    const underWay = mfaTokenOf(await login(postern, ada))
    const removed = await ada.client.delete(TOTP)
    const step = await verify({ mfa_token: underWay, code: codeOf(secret) })

    isProblem(t, otherAfter, 'invalid_token')
    t.equal(removed.statusCode, 204, removed.body)
    isProblem(t, step, 'invalid_mfa_token')
    t.equal((await login(postern, ada)).statusCode, 200)
    isProblem(t, await ada.client.delete(TOTP), 'factor_not_found')
    isProblem(t, await ada.client.post('/api/v1/auth/mfa/recovery-codes'), 'no_second_factor')
  })

  t.test(
    'C.4 7.5.1: factors change only soon after an authentication, with the factor if there is one',
    async (t) => {
      const ada = await postern.person('GUEST')
      await letSessionsAge(postern, ada.id, 601)

      const tooOld = await ada.client.post(TOTP)
      const wrong = await ada.client.post(STEP_UP, { password: 'a wrong password of good length' })
      const stepped = await ada.client.post(STEP_UP, { password: PASSWORD })
      const { secret } = await enrolTotp(as(stepped.json<Tokens>().access_token))
      await letSessionsAge(postern, ada.id, 601)
      await letTimePass(postern, ada.id)
      const byPassword = await ada.client.post(STEP_UP, { password: PASSWORD })
      const refused = await ada.client.delete(TOTP)
      const byCode = await ada.client.post(STEP_UP, { code: codeOf(secret) })
      const repeated = await ada.client.post(STEP_UP, { code: codeOf(secret) })
      const claims = decodeJwt(byCode.json<Tokens>().access_token)

      isProblem(t, tooOld, 'reauthentication_required')
      t.equal(
        tooOld.headers['www-authenticate'],
        'Bearer realm="postern", error="insufficient_user_authentication", error_description="Authenticate again", max_age="600"',
      )
      isProblem(t, wrong, 'invalid_password')
      t.notOk('refresh_token' in stepped.json<object>())
      isProblem(t, byPassword, 'mfa_required')
      t.notOk('mfa_token' in byPassword.json<object>())
      isProblem(t, refused, 'reauthentication_required')
      isProblem(t, repeated, 'invalid_code')
      t.match(
        [claims['acr'], [...(claims['amr'] as string[])].sort()],
        ['urn:postern:acr:2', ['mfa', 'otp', 'pwd']],
      )
      t.ok(Number(claims['auth_time']) > Date.now() / 1000 - 60)
      t.equal((await ada.client.delete(TOTP)).statusCode, 204)
    },
  )

  t.test('administrators reset the factors of those whom they may edit', async (t) => {
    const ada = await withFactor(postern)
    const [boss, admin] = [await withFactor(postern, 'ADMIN'), await postern.person('ACCOUNT_ADMIN')]
    const reset = (id: string) => `/api/v1/users/${id}/mfa`
    const key = as((await anApiKey(postern)).key)

    const beyond = await admin.client.delete(reset(boss.id))
    const byKey = await key.delete(reset(ada.id))
    const done = await admin.client.delete(reset(ada.id))
    await letSessionsAge(postern, admin.id, 601)
    const late = await admin.client.delete(reset(ada.id))

    isProblem(t, beyond, 'grant_exceeds_own')
    isProblem(t, byKey, 'user_is_protected')
    t.equal(done.statusCode, 204)
    isProblem(t, late, 'reauthentication_required')
    t.equal((await ada.client.get('/api/v1/users/me')).statusCode, 401)
    t.equal((await login(postern, ada)).statusCode, 200)
    t.ok((await actionsOn(postern, ada.id)).includes('user.factors_reset'))
  })

  t.test('secrets are sealed anew after SECRET_KEY has changed', async (t) => {
    const ada = await withFactor(postern)
    const options = {
      databaseUrl: postern.databaseUrl,
      secretKey: 'another secret key that only the tests have',
    }
    const changed = createServices(testConfig({ SECRET_KEY_PREVIOUS: SECRET_KEY }), options)
    const after = createServices(testConfig(), options)
    t.teardown(async () => await Promise.all([changed.close(), after.close()]))
    await changed.factors.reseal(changed.database.db)
    const { rows } = await pool.query<{ secret_sealed: string }>(
      'select secret_sealed from totp_factors where user_id = $1',
      [ada.id],
    )

    t.equal(after.vault.open('totp', rows[0]?.secret_sealed ?? ''), ada.secret)
  })
})

t.test('where a second factor is required', async (t) => {
  const postern = await buildTestApp(t)
  const { root, anonymous, as } = postern
  const refresh = async (refresh_token: string) =>
    (await anonymous.post('/api/v1/auth/refresh', { refresh_token })).json<Tokens>()
  const session = async (email: string) => (await login(postern, { email })).json<Tokens>()

  t.test('an account demands it at once, of whoever was in already, and lets them enrol', async (t) => {
    const account = await postern.account()
    const admin = await postern.person('ACCOUNT_ADMIN', { accountId: account })
    const before = await session(admin.email)

    const set = await admin.client.patch(`/api/v1/accounts/${account}`, { is_mfa_required: true })
    const dead = await as(before.access_token).get(`/api/v1/accounts/${account}`)
    const limited = await refresh(before.refresh_token)
    const mine = as(limited.access_token)
    const refused = await mine.get(`/api/v1/accounts/${account}`)
    const off = await mine.patch(`/api/v1/accounts/${account}`, { is_mfa_required: false })
    const status = await mine.get('/api/v1/auth/mfa')
    const signedIn = await login(postern, admin, { scope: 'postern.users:read' })
    await enrolTotp(mine)
    const full = await refresh(limited.refresh_token)
    const last = await as(full.access_token).delete(TOTP)
    const passed = await as(full.access_token).get(`/api/v1/accounts/${account}`)

    t.match(set.json(), { is_mfa_required: true })
    isProblem(t, dead, 'invalid_token')
    t.equal(limited.scope, '')
    t.same([decodeJwt(limited.access_token)['roles'], decodeJwt(limited.access_token)['role']], [[], 'GUEST'])
    isProblem(t, refused, 'mfa_enrolment_required')
    isProblem(t, off, 'mfa_enrolment_required')
    t.match(status.json(), { is_required: true, totp: null })
    t.equal(signedIn.json<Tokens>().scope, '', 'a new sign-in gives no more')
    t.ok(full.scope.includes('postern.accounts:write'))
    isProblem(t, last, 'last_factor')
    t.equal(passed.statusCode, 200)
  })

  t.test('a token for another account is not concerned, and one for this account is', async (t) => {
    const [strict, free] = [await postern.account(), await postern.account()]
    const ada = await postern.person(undefined, { accountId: free })
    await root.put(`/api/v1/accounts/${strict}/members/${ada.id}`)
    await root.patch(`/api/v1/accounts/${strict}`, { is_mfa_required: true })
    const tokens = await session(ada.email)

    const there = await anonymous.post('/api/v1/auth/refresh', {
      refresh_token: tokens.refresh_token,
      account: strict,
    })

    t.equal((await as(tokens.access_token).get('/api/v1/users/me/permissions')).statusCode, 200)
    const refused = await as(there.json<Tokens>().access_token).get('/api/v1/users/me/permissions')
    isProblem(t, refused, 'mfa_enrolment_required')
  })

  t.test('a role demands it, built-in ones too, and machines are exempt', async (t) => {
    const made = await root.post('/api/v1/roles', {
      name: 'banker',
      scopes: ['money:move'],
      is_mfa_required: true,
    })
    const builtin = `/api/v1/roles/${await postern.roleId('ACCOUNT_MANAGER')}`
    const banker = await postern.person('banker')
    const manager = await postern.person('ACCOUNT_MANAGER')
    const key = as((await anApiKey(postern)).key)

    const set = await root.patch(builtin, { is_mfa_required: true })
    const renamed = await root.patch(builtin, { name: 'Renamed', is_mfa_required: false })
    const guarded = await Promise.all(
      [banker, manager].map(async ({ client }) => await client.get('/api/v1/roles')),
    )
    await enrolTotp(banker.client)
    const stepped = await banker.client.post(STEP_UP, { code: '000000' })

    t.match(made.json(), { is_mfa_required: true })
    t.match(set.json(), { is_mfa_required: true, is_builtin: true })
    isProblem(t, renamed, 'role_is_builtin')
    isProblem(t, guarded[0] ?? renamed, 'mfa_enrolment_required')
    isProblem(t, guarded[1] ?? renamed, 'invalid_token')
    isProblem(t, stepped, 'invalid_code')
    t.equal((await key.get('/api/v1/roles')).statusCode, 200)
    t.equal((await banker.client.get('/api/v1/roles')).statusCode, 200, 'the session has two factors now')
  })
})

t.test('C.5 8.4.2: MFA_REQUIRED_FOR=admins concerns holders of permissions of this service', async (t) => {
  const postern = await buildTestApp(t, { env: { MFA_REQUIRED_FOR: 'admins' } })
  const [admin, guest] = [await postern.person('ACCOUNT_ADMIN'), await postern.person('ACCOUNT_MANAGER')]

  const [adminSees, guestSees] = [
    await admin.client.get('/api/v1/users/me/permissions'),
    await guest.client.get('/api/v1/users/me/permissions'),
  ]
  await postern.services.database.pool.query('update user_credentials set email_verified_at = null')
  await enrolTotp(admin.client)

  isProblem(t, adminSees, 'mfa_enrolment_required')
  t.equal(guestSees.statusCode, 200)
  isProblem(t, await admin.client.delete(TOTP), 'last_factor')
})
