import { decodeJwt } from 'jose'
import { generate } from 'otplib'
import t, { type Test } from 'tap'
import { transact } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { createServices } from '../../src/services.ts'
import { hashOf } from '../../src/sessions/refresh-tokens.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { createAuthenticator } from '../helpers/authenticator.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { eventually } from '../helpers/processes.ts'
import { mailServer, tokenIn } from '../helpers/smtp.ts'

const NEW_PASSWORD = 'a rather different pass phrase'
const LOGIN = '/api/v1/auth/login'
const RESET = '/api/v1/auth/password-reset'
const MAGIC_LINK = '/api/v1/auth/magic-link'
const EMAIL_CHANGE = '/api/v1/auth/email-change'
const VERIFICATION = '/api/v1/auth/email-verification'

type PasskeyOptions = {
  challenge_token: string
  options: Parameters<ReturnType<typeof createAuthenticator>['get']>[0]
}
type Tokens = { access_token: string; refresh_token: string }
type Answer = { statusCode: number; headers: object; body: string; json(): unknown }

async function buildMailingApp(t: Test, env: NodeJS.ProcessEnv = {}) {
  const inbox = await mailServer(t)
  const postern = await buildTestApp(t, {
    env: {
      SMTP_URL: inbox.url,
      MAIL_FROM: 'Postern <no-reply@postern.test>',
      APP_URL: 'https://app.postern.test',
      MAGIC_LINK_SIGN_IN: 'true',
      ...env,
    },
  })
  const { services, anonymous } = postern
  /** The last mail to somebody, after everything that is due was done. */
  const lastTo = async (email: string) => {
    await services.jobs.runDue()
    return inbox.to(email).at(-1)
  }
  const requestReset = async (email: string) => {
    await anonymous.post(RESET, { email })
    return tokenIn(await lastTo(email))
  }
  const confirmReset = async (token: string, password = NEW_PASSWORD) =>
    await anonymous.post(`${RESET}/confirm`, { token, password })
  const requestMagicLink = async (email: string) => {
    const { request_token } = (await anonymous.post(MAGIC_LINK, { email })).json<{ request_token: string }>()
    return { token: tokenIn(await lastTo(email)), request_token }
  }
  const login = async (email: string, password = PASSWORD) => await anonymous.post(LOGIN, { email, password })
  const stateOf = async (token: string) =>
    (await postern.as(token).get(VERIFICATION)).json<{ verified_at: string | null }>()
  return {
    ...postern,
    inbox,
    lastTo,
    requestReset,
    confirmReset,
    requestMagicLink,
    login,
    stateOf,
    db: services.database.pool,
  }
}

/** The answer without what is different each time. */
function timeless({ statusCode, headers, body }: Answer): object {
  const { 'x-request-id': _id, date: _date, ...others } = headers as Record<string, unknown>
  return { statusCode, headers: others, body: body.replaceAll(/"[\w-]{36,}"/g, '"…"') }
}

const codeOf = (answer: Answer): string | undefined =>
  (answer.json() as { type: string }).type.split('/').at(-1)

t.test('with a mail server', async (t) => {
  const postern = await buildMailingApp(t)
  const { anonymous, root, person, inbox, lastTo, requestReset, confirmReset, requestMagicLink } = postern
  const { login, stateOf, db, services } = postern

  await t.test('C.1.11: a password is set anew by a link, once, and every session ends', async (t) => {
    const ada = await person()
    const older = await requestReset(ada.email)
    const token = await requestReset(ada.email)
    t.equal((await confirmReset(token, 'short')).statusCode, 422, 'the rules of passwords apply')
    t.equal(codeOf(await confirmReset(older)), 'invalid_link', 'a newer one ends the older')

    const [first, second] = await Promise.all([confirmReset(token), confirmReset(token)])

    t.same([first.statusCode, second.statusCode].sort(), [204, 400], 'of two at once one wins')
    t.notOk(first.headers['set-cookie'])
    t.equal(codeOf(await confirmReset(token)), 'invalid_link')
    t.equal((await ada.client.get('/api/v1/users/me')).statusCode, 401)
    t.equal((await login(ada.email)).statusCode, 401)
    t.equal((await login(ada.email, NEW_PASSWORD)).statusCode, 200)
    t.match((await lastTo(ada.email))?.headers['subject'], /password .* has changed/)
    const events = (await root.get(`/api/v1/audit-events?target_id=${ada.id}`)).json<{ action: string }[]>()
    const eventOf = (action: string) => events.find((event) => event.action === action)
    t.match(eventOf('user.password_changed'), { actor_type: 'user', actor_id: ada.id })
    t.match(eventOf('user.link_sent'), { actor_type: 'anonymous', details: { kind: 'password_reset' } })
  })

  await t.test('C.1.11: a new password ends waits, and a second factor is asked for as before', async (t) => {
    const bea = await person()
    const { secret } = (await bea.client.post('/api/v1/auth/mfa/totp')).json<{ secret: string }>()
    await bea.client.post('/api/v1/auth/mfa/totp/verify', { code: await generate({ secret }) })
    for (let attempt = 0; attempt < 6; attempt++) await login(bea.email, 'wrong')
    t.equal((await login(bea.email)).statusCode, 429)

    t.equal((await confirmReset(await requestReset(bea.email))).statusCode, 204)

    t.equal(codeOf(await login(bea.email, NEW_PASSWORD)), 'mfa_required')
    const byLink = await anonymous.post(`${MAGIC_LINK}/verify`, await requestMagicLink(bea.email))
    t.equal(codeOf(byLink), 'mfa_required')
  })

  await t.test(
    'C.3: known and unknown addresses are answered alike, and only those with credentials get a link',
    async (t) => {
      const ida = await person()
      const gone = await person()
      await root.post(`/api/v1/users/${gone.id}/deactivate`)
      await services.users.createUser(SYSTEM, {
        email: 'cyd@postern.test',
        password: PASSWORD,
        fullName: 'Cyd',
      })
      await db.query(
        "delete from user_credentials where user_id = (select id from users where email = 'cyd@postern.test')",
      )
      await services.jobs.runDue()
      const emails = [ida.email, gone.email, 'cyd@postern.test', 'nobody@postern.test']
      inbox.mails.length = 0

      for (const path of [RESET, MAGIC_LINK]) {
        const answers: object[] = []
        for (const email of emails) {
          answers.push(timeless(await anonymous.post(path, { email })))
          const { rows } = await db.query<{ payload: object }>(
            'select payload from graphile_worker._private_jobs',
          )
          t.equal(rows.length, 1, 'the same work waits')
          t.notMatch(JSON.stringify(rows), email, 'and names nobody')
          await services.jobs.runDue()
        }
        t.match(answers[0], { statusCode: 202 })
        for (const answer of answers) t.same(answer, answers[0])
      }
      t.same(
        inbox.mails.map(({ to }) => to),
        [[ida.email], [ida.email]],
      )
    },
  )

  await t.test('C.2: a mailbox gets five links within an hour, and the last of them works on', async (t) => {
    const dora = await person()
    for (let round = 0; round < 6; round++) {
      t.equal((await anonymous.post(RESET, { email: dora.email })).statusCode, 202)
      await services.jobs.runDue()
    }

    const last = tokenIn(await lastTo(dora.email))

    t.equal(inbox.to(dora.email).length, 5)
    t.equal((await confirmReset(last)).statusCode, 204)
  })

  await t.test('C.2: a network address asks for so many links, for whomever', async (t) => {
    const ask = async (email: string) =>
      await postern.app.inject({
        method: 'POST',
        url: RESET,
        payload: { email },
        remoteAddress: '198.51.100.7',
      })
    for (let round = 0; round < 30; round++) await ask(`nobody-${round}@postern.test`)

    const [known, unknown] = [await ask(SUPER_ADMIN_EMAIL), await ask('nobody@postern.test')]

    t.equal(known.statusCode, 429)
    t.ok(Number(known.headers['retry-after']) > 0)
    t.equal(unknown.statusCode, 429)
  })

  await t.test(
    'a link is void when it is too old, of another kind, or what it was for has changed',
    async (t) => {
      const eve = await person()
      const reset = await requestReset(eve.email)
      const other = await anonymous.post(`${VERIFICATION}/confirm`, { token: reset })
      t.equal(codeOf(other), 'invalid_link', 'another kind')
      await db.query("update mail_tokens set expires_at = now() - interval '1 second' where user_id = $1", [
        eve.id,
      ])
      t.equal(codeOf(await confirmReset(reset)), 'invalid_link', 'too old')

      for (const change of [
        { email: 'eve-2@postern.test' },
        { password: NEW_PASSWORD },
        { is_active: false },
      ]) {
        await root.patch(`/api/v1/users/${eve.id}`, { is_active: true })
        const { email } = (await root.get(`/api/v1/users/${eve.id}`)).json<{ email: string }>()
        const { token, request_token } = await requestMagicLink(email)
        t.equal((await root.patch(`/api/v1/users/${eve.id}`, change)).statusCode, 200)
        const answer = await anonymous.post(`${MAGIC_LINK}/verify`, { token, request_token })
        t.equal(codeOf(answer), 'invalid_link', JSON.stringify(change))
      }
      const { rows } = await db.query('select from mail_tokens where user_id = $1', [eve.id])
      t.same(rows, [])
    },
  )

  await t.test('C.1.9: an administrator has a link sent, and never sees it', async (t) => {
    const fay = await person()
    const admin = await person('ACCOUNT_ADMIN')
    const machine = await anApiKey(postern)
    const path = (id: string) => `/api/v1/users/${id}/password-reset`
    inbox.mails.length = 0

    const sent = await admin.client.post(path(fay.id))

    t.same([sent.statusCode, sent.json()], [202, { status: 'accepted' }])
    t.equal((await confirmReset(tokenIn(await lastTo(fay.email)))).statusCode, 204)
    t.equal(codeOf(await admin.client.post(path(postern.rootId))), 'grant_exceeds_own')
    t.equal(codeOf(await postern.as(machine.key).post(path(fay.id))), 'user_is_protected')
    await db.query('delete from user_credentials where user_id = $1', [fay.id])
    t.equal(codeOf(await root.post(path(fay.id))), 'user_gets_no_mail')
    await services.jobs.runDue()
    t.same(inbox.to(SUPER_ADMIN_EMAIL), [])
  })

  await t.test('C.7: a magic link signs in once, and only where it was asked for', async (t) => {
    const gus = await person()
    const asked = await requestMagicLink(gus.email)
    const verify = async (body: object) => await anonymous.post(`${MAGIC_LINK}/verify`, body)
    const elsewhere = (await anonymous.post(MAGIC_LINK, { email: 'nobody@postern.test' })).json<object>()
    t.equal(codeOf(await verify({ ...asked, ...elsewhere })), 'invalid_link')

    const uses = await Promise.all([verify(asked), verify(asked)])

    t.same(uses.map(({ statusCode }) => statusCode).sort(), [200, 400], 'of two at once one wins')
    const signedIn = uses.find(({ statusCode }) => statusCode === 200)
    t.equal(signedIn?.headers['cache-control'], 'no-store')
    const access_token = signedIn?.json<Tokens>().access_token ?? ''
    t.match(decodeJwt(access_token), { sub: gus.id, amr: ['email'] })
    t.equal(codeOf(await verify(asked)), 'invalid_link')
  })

  await t.test('C.1.11, C.7: links end in time, and lie in the database as hashes', async (t) => {
    const gia = await person()
    const tokens = [await requestReset(gia.email), (await requestMagicLink(gia.email)).token]

    const { rows } = await db.query<{ token_hash: string; kind: string; seconds: number }>(
      `select kind, token_hash, extract(epoch from expires_at - now())::int as seconds from mail_tokens
       where user_id = $1 order by kind desc`,
      [gia.id],
    )

    t.same(
      rows.map(({ kind }) => kind),
      ['password_reset', 'magic_link'],
    )
    for (const [index, most] of [3600, 600].entries()) {
      const { seconds = 0, token_hash } = rows[index] ?? {}
      t.ok(seconds > 0 && seconds <= most, `${seconds}`)
      t.equal(token_hash, hashOf(tokens[index] ?? ''))
    }
  })

  await t.test('C.2: what strangers ask for neither keeps a magic link back nor ends it', async (t) => {
    const nia = await person()
    const askFrom = async (remoteAddress: string) => {
      const payload = { email: nia.email }
      const asked = await postern.app.inject({ method: 'POST', url: MAGIC_LINK, remoteAddress, payload })
      await services.jobs.runDue()
      return asked.json<{ request_token: string }>()
    }
    for (let round = 0; round < 6; round++) await askFrom('192.0.2.1')
    t.equal(inbox.to(nia.email).length, 5)

    const { request_token } = await askFrom('198.51.100.7')
    const token = tokenIn(await lastTo(nia.email))
    for (let round = 0; round < 6; round++) await askFrom('192.0.2.2')

    t.equal(inbox.to(nia.email).length, 11)
    t.equal((await anonymous.post(`${MAGIC_LINK}/verify`, { token, request_token })).statusCode, 200)
    const count = async () => await services.throttle.isWithin('magic_link', `email|${nia.email}`, 50, 3600)
    await Promise.all(Array.from({ length: 38 }, count))
    for (const from of ['192.0.2.3', '192.0.2.4']) await askFrom(from)
    t.equal(inbox.to(nia.email).length, 12, 'fifty from everywhere')
  })

  await t.test(
    'who shows an address by mail alone ends what strangers have set up with it before',
    async (t) => {
      const email = 'victim@postern.test'
      await anonymous.post('/api/v1/users/open', { email, password: PASSWORD, full_name: 'Mallory' })
      const strangers = (await login(email)).json<Tokens>()
      const signInByLink = async () =>
        await anonymous.post(`${MAGIC_LINK}/verify`, await requestMagicLink(email))

      const signedIn = await signInByLink()

      t.equal(signedIn.statusCode, 200)
      t.equal((await login(email)).statusCode, 401)
      const { access_token, refresh_token } = strangers
      t.equal((await postern.as(access_token).get('/api/v1/users/me')).statusCode, 401)
      t.equal((await anonymous.post('/api/v1/auth/refresh', { refresh_token })).statusCode, 401)
      t.match((await lastTo(email))?.text, /The password was removed, because/)
      const own = postern.as(signedIn.json<Tokens>().access_token)
      const { id } = (await own.get('/api/v1/users/me')).json<{ id: string }>()
      const removals = await root.get(`/api/v1/audit-events?action=user.password_removed&target_id=${id}`)
      matchEach(t, removals.json(), [{ actor_id: id }])
      t.equal((await confirmReset(await requestReset(email))).statusCode, 204)
      await signInByLink()
      t.equal((await login(email, NEW_PASSWORD)).statusCode, 200, 'a password set since stays')
    },
  )

  await t.test(
    'C.2: passkeys, magic links and resets go on while the password is stopped; a reset ends the stop',
    async (t) => {
      const ora = await person()
      const device = createAuthenticator({ origin: 'http://postern.test' })
      const signInByPasskey = async () => {
        const asked = (await anonymous.post('/api/v1/auth/passkey/options', {})).json<PasskeyOptions>()
        const response = device.get(asked.options)
        const { challenge_token } = asked
        return await anonymous.post('/api/v1/auth/passkey/verify', { challenge_token, response })
      }
      const endWaits = async (consecutive: string) =>
        await db.query(`update login_attempts set blocked_until = null, consecutive = ${consecutive}`)
      await login(ora.email, 'wrong')
      await endWaits('99')
      await login(ora.email, 'wrong')
      await endWaits('consecutive')
      t.equal((await login(ora.email)).statusCode, 429)

      const byLink = await anonymous.post(`${MAGIC_LINK}/verify`, await requestMagicLink(ora.email))
      t.equal(byLink.statusCode, 200)
      const client = postern.as(byLink.json<Tokens>().access_token)
      const changePassword = async ({ post }: typeof client, current_password: string) =>
        await post('/api/v1/auth/change-password', { current_password, new_password: `${NEW_PASSWORD}!` })
      for (let guess = 0; guess < 5; guess++) await changePassword(client, 'wrong')
      t.equal((await changePassword(client, PASSWORD)).statusCode, 429)
      const creation = (await client.post('/api/v1/auth/passkeys/registration-options')).json()
      const created = { name: 'Key', response: device.create(creation) }
      t.equal((await client.post('/api/v1/auth/passkeys', created)).statusCode, 201)
      t.equal((await signInByPasskey()).statusCode, 200)
      t.equal((await login(ora.email)).statusCode, 429, 'another factor is no new password')

      t.equal((await confirmReset(await requestReset(ora.email))).statusCode, 204)

      t.equal(codeOf(await login(ora.email, NEW_PASSWORD)), 'mfa_required')
      const later = postern.as((await signInByPasskey()).json<Tokens>().access_token)
      t.equal((await changePassword(later, NEW_PASSWORD)).statusCode, 204)
    },
  )

  await t.test('an address is confirmed by its owner, and another one is not', async (t) => {
    const hal = await person()
    await db.query('update user_credentials set email_verified_at = null where user_id = $1', [hal.id])
    t.same(await stateOf(hal.token), { email: hal.email, verified_at: null })
    t.equal((await hal.client.post(VERIFICATION)).statusCode, 202)
    const token = tokenIn(await lastTo(hal.email))

    t.equal((await anonymous.post(`${VERIFICATION}/confirm`, { token })).statusCode, 204)

    t.ok((await stateOf(hal.token)).verified_at)
    t.equal(codeOf(await anonymous.post(`${VERIFICATION}/confirm`, { token })), 'invalid_link')
    const mails = inbox.to(hal.email).length
    await hal.client.post(VERIFICATION)
    await services.jobs.runDue()
    t.equal(inbox.to(hal.email).length, mails, 'once is enough')
    for (const [email, isConfirmed] of [
      ['hal@straße.de', false],
      ['HAL@STRAße.de', true],
      ['hal@strasse.de', false],
    ] as const) {
      await services.users.updateUser(SYSTEM, hal.id, { email }, undefined)
      t.equal((await stateOf(hal.token)).verified_at !== null, isConfirmed, email)
      await db.query('update user_credentials set email_verified_at = now() where user_id = $1', [hal.id])
    }
  })

  await t.test(
    'C.4: an email is changed when both addresses have confirmed it, in either order',
    async (t) => {
      for (const order of [
        ['old', 'new'],
        ['new', 'old'],
      ] as const) {
        const ivy = await person()
        const fresh = `fresh-${order[0]}@postern.test`
        t.equal((await ivy.client.post(EMAIL_CHANGE, { email: fresh })).statusCode, 202)
        const tokens = { old: tokenIn(await lastTo(ivy.email)), new: tokenIn(await lastTo(fresh)) }
        t.match((await lastTo(ivy.email))?.text, fresh)
        const confirm = async (token: string) => await anonymous.post(`${EMAIL_CHANGE}/confirm`, { token })
        const emailNow = async () =>
          (await ivy.client.get('/api/v1/users/me')).json<{ email: string }>().email

        t.same((await confirm(tokens[order[0]])).json(), { is_changed: false })
        t.equal(
          codeOf(await confirm(tokens[order[0]])),
          'invalid_link',
          'one address does not confirm for both',
        )
        t.equal(await emailNow(), ivy.email)
        t.same((await confirm(tokens[order[1]])).json(), { is_changed: true })

        t.equal(await emailNow(), fresh)
        t.ok((await stateOf(ivy.token)).verified_at)
        t.equal((await login(fresh)).statusCode, 200)
        t.equal((await login(ivy.email)).statusCode, 401)
      }
    },
  )

  await t.test('both addresses at once confirm a change', async (t) => {
    const joe = await person()
    await joe.client.post(EMAIL_CHANGE, { email: 'joe-2@postern.test' })
    const tokens = [tokenIn(await lastTo(joe.email)), tokenIn(await lastTo('joe-2@postern.test'))]

    const answers = await Promise.all(
      tokens.map((token) => anonymous.post(`${EMAIL_CHANGE}/confirm`, { token })),
    )

    t.same(answers.map((answer) => answer.json<{ is_changed: boolean }>().is_changed).sort(), [false, true])
  })

  await t.test('C.3: a change to an address that somebody has is answered as any other', async (t) => {
    const kim = await person()
    const taken = await person()
    const answers = [
      await kim.client.post(EMAIL_CHANGE, { email: 'kim-2@postern.test' }),
      await kim.client.post(EMAIL_CHANGE, { email: taken.email.toUpperCase() }),
    ].map(timeless)

    t.same(answers[0], answers[1])
    t.match((await lastTo(taken.email))?.headers['subject'], /You have an account/)
    t.match((await lastTo(kim.email))?.text, /is to be changed to/)
    t.equal((await kim.client.post(EMAIL_CHANGE, { email: kim.email.toUpperCase() })).statusCode, 422)
  })

  await t.test('after a change of SECRET_KEY links work on', async (t) => {
    const max = await person()
    await max.client.post(EMAIL_CHANGE, { email: 'max-2@postern.test' })
    const tokens = [tokenIn(await lastTo(max.email)), tokenIn(await lastTo('max-2@postern.test'))]
    const secretKey = 'another secret key that only this test has'
    const rotated = createServices(
      { ...postern.config, previousSecretKey: SECRET_KEY },
      { databaseUrl: postern.databaseUrl, secretKey },
    )
    const later = createServices(postern.config, { databaseUrl: postern.databaseUrl, secretKey })
    t.teardown(async () => await Promise.all([rotated.close(), later.close()]))

    await transact(rotated.database.db, async (tx) => await rotated.mailLinks.reseal(tx))

    const origin = { requestId: 'x', address: '198.51.100.1' }
    const confirmed: boolean[] = []
    for (const token of tokens) confirmed.push(await later.mailLinks.confirmEmailChange(token, origin))
    t.same(confirmed, [false, true])
  })

  await t.test('C.4: whoever signed in a while ago does so again before an email changes', async (t) => {
    const lea = await person()
    await db.query("update sessions set authenticated_at = now() - interval '1 hour' where user_id = $1", [
      lea.id,
    ])

    const answer = await lea.client.post(EMAIL_CHANGE, { email: 'lea-2@postern.test' })

    t.same([answer.statusCode, codeOf(answer)], [401, 'reauthentication_required'])
  })
})

t.test(
  'C.3: where addresses must be confirmed, registration tells nothing and nobody signs in before',
  async (t) => {
    const postern = await buildMailingApp(t, { EMAIL_VERIFICATION: 'required', MAGIC_LINK_SIGN_IN: 'false' })
    const { anonymous, root, lastTo, login, inbox } = postern
    const register = async (email: string) =>
      await anonymous.post('/api/v1/users/open', { email, password: PASSWORD, full_name: 'New' })
    const confirm = async (token: string) => await anonymous.post(`${VERIFICATION}/confirm`, { token })

    const [taken, fresh] = [await register(SUPER_ADMIN_EMAIL), await register('ada@postern.test')]
    t.equal(fresh.statusCode, 202)
    t.same(timeless(taken), timeless(fresh))
    t.match((await lastTo(SUPER_ADMIN_EMAIL))?.headers['subject'], /You have an account/)
    const first = tokenIn(await lastTo('ada@postern.test'))

    t.same(timeless(await login('ada@postern.test')), timeless(await login('ada@postern.test', 'wrong')))
    await eventually(async () => {
      await lastTo('ada@postern.test')
      return inbox.to('ada@postern.test').length === 2
    })
    const second = tokenIn(await lastTo('ada@postern.test'))
    t.equal(
      inbox.to('ada@postern.test').length,
      2,
      'the right password has another link sent, a wrong one has not',
    )
    t.equal((await confirm(first)).statusCode, 400)
    t.equal((await confirm(second)).statusCode, 204)
    t.equal((await login('ada@postern.test')).statusCode, 200)

    const byAdmin = { email: 'bea@postern.test', password: PASSWORD, full_name: 'Bea' }
    t.equal((await root.post('/api/v1/users', byAdmin)).statusCode, 201)
    t.equal((await login('bea@postern.test')).statusCode, 401, 'nobody else confirms an address')
    t.equal((await login(SUPER_ADMIN_EMAIL)).statusCode, 200, 'but the operator')
    t.equal(codeOf(await anonymous.post(MAGIC_LINK, { email: 'bea@postern.test' })), 'magic_links_off')
    t.equal(
      codeOf(await anonymous.post(`${MAGIC_LINK}/verify`, { token: 'x', request_token: 'x' })),
      'magic_links_off',
    )
  },
)

t.test('without a mail server', async (t) => {
  const postern = await buildTestApp(t, { env: { MAGIC_LINK_SIGN_IN: 'true' } })
  const { anonymous, root, person } = postern
  const ada = await person()
  for (const email of [SUPER_ADMIN_EMAIL, 'nobody@postern.test']) {
    for (const path of [RESET, MAGIC_LINK])
      t.equal(codeOf(await anonymous.post(path, { email })), 'mail_not_configured')
  }
  t.equal(codeOf(await root.post(`/api/v1/users/${ada.id}/password-reset`)), 'mail_not_configured')
  t.equal(codeOf(await ada.client.post(EMAIL_CHANGE, { email: 'ada-2@postern.test' })), 'mail_not_configured')

  const passwords = { current_password: PASSWORD, new_password: NEW_PASSWORD }
  t.equal(
    (await ada.client.post('/api/v1/auth/change-password', passwords)).statusCode,
    204,
    'notices are left out',
  )
  t.same((await postern.services.database.pool.query('select from graphile_worker._private_jobs')).rows, [])
})
