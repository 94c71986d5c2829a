import t from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'

const WRONG = 'a wrong password of good length'
const NEXT = 'another pass phrase of good length'
const VICTIM = 'victim@postern.test'
const NOBODY = 'nobody@postern.test'
const VICTIMS_ADDRESS = '198.51.100.7'

type Attempt = {
  email?: string
  password?: string
  from?: string
  device?: string | undefined
  cookie?: string
}

const postern = await buildTestApp(t, {
  env: { LOGIN_MAX_FAILURES: '3', LOGIN_MAX_FAILURES_PER_EMAIL: '5' },
})
const victim = await postern.person('GUEST', { email: VICTIM })
t.beforeEach(async () => void (await postern.services.database.pool.query('delete from login_attempts')))

const attempt = async ({
  email = VICTIM,
  password = WRONG,
  from = VICTIMS_ADDRESS,
  device,
  cookie,
}: Attempt = {}) =>
  await postern.app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    remoteAddress: from,
    headers: { ...(cookie !== undefined && { cookie }) },
    payload: { email, password, ...(device !== undefined && { device_token: device }) },
  })

const status = async (one: Attempt): Promise<number> => (await attempt(one)).statusCode

const signIn = async (one: Attempt = {}) =>
  (await attempt({ password: PASSWORD, ...one })).json<{ device_token?: string }>()

/** Failures of strangers, until a device that is not known must wait wherever it is. */
async function failElsewhere(email = VICTIM): Promise<void> {
  for (let n = 1; n <= 6; n++) await attempt({ email, from: `192.0.2.${n}` })
}

/** Lets the waits end, without waiting. */
const endWaits = async () =>
  await postern.services.database.pool.query(`update login_attempts set blocked_until = now() - interval '1 second'
    where blocked_until is not null`)

/** As if this had been the ninety-ninth failure in a row for every email that has failed. */
const comeClose = async () => {
  await endWaits()
  await postern.services.database.pool.query(
    `update login_attempts set consecutive = 99 where kind = 'email'`,
  )
}

t.test('known devices', async (t) => {
  await t.test('C.2: a known device is not held up by the failures of strangers', async (t) => {
    const { device_token: device } = await signIn()
    await failElsewhere()

    t.equal(await status({ password: PASSWORD }), 429, 'a device that is not known waits')
    t.equal(await status({ password: PASSWORD, device }), 200)
    t.equal(await status({ password: PASSWORD, device, from: '192.0.2.1' }), 200)
  })

  await t.test('C.2: nor by those from its own address', async (t) => {
    const { device_token: device } = await signIn()
    for (let n = 0; n < 4; n++) await attempt()

    t.equal(await status({ password: PASSWORD }), 429)
    t.equal(await status({ password: PASSWORD, device }), 200)
  })

  await t.test('C.2: the failures of a known device count, and make it one that is not known', async (t) => {
    const { device_token: device } = await signIn()
    await failElsewhere()

    const seen = []
    for (let n = 0; n < 5; n++) seen.push(await status({ device }))

    t.same(seen, [401, 401, 401, 429, 429])
    t.equal(await status({ password: PASSWORD, device }), 429)
    const { rows } = await postern.services.database.pool.query(
      `select consecutive from login_attempts where kind = 'email'`,
    )
    t.same(rows, [{ consecutive: 8 }], 'five of strangers, three of the device')
  })

  await t.test('C.2: guesses at once with the token of a device are all counted', async (t) => {
    const { device_token: device } = await signIn()

    const answers = await Promise.all(Array.from({ length: 100 }, () => status({ device })))

    const admitted = answers.filter((one) => one === 401).length
    t.equal(admitted, 6, 'three of the device, and three of one that is not known')
    t.same([...new Set(answers)].sort(), [401, 429, 503])
    const { rows } = await postern.services.database.pool.query<{ consecutive: number }>(
      `select consecutive from login_attempts where kind = 'email'`,
    )
    // One that came with the last of them may have been refused by the one counter and counted by the other.
    const uncounted = admitted - (rows[0]?.consecutive ?? 0)
    t.ok(uncounted === 0 || uncounted === -1, String(uncounted))
  })

  await t.test('C.2: a success begins the count of the device anew', async (t) => {
    const { device_token: device } = await signIn()

    const passwords = [WRONG, WRONG, PASSWORD, WRONG, WRONG, PASSWORD]
    const seen = []
    for (const password of passwords) seen.push(await status({ password, device }))

    t.same(seen, [401, 401, 200, 401, 401, 200])
  })

  await t.test(
    'C.2: a token makes known the person who has signed in with it, and nobody else',
    async (t) => {
      const other = await postern.person('GUEST')
      const { device_token: others = '' } = await signIn({ email: other.email })
      const { device_token: own = '' } = await signIn()
      await failElsewhere()

      const [name = '', issued = '', mac = ''] = own.split('.')
      const forged = [
        others,
        `${name}.${(Number.parseInt(issued, 36) + 1).toString(36)}.${mac}`,
        `${name}.${issued}.${'A'.repeat(43)}`,
        `${own}.`,
        mac,
        '',
      ]
      for (const device of forged) t.equal(await status({ password: PASSWORD, device }), 429, device)
      t.equal(await status({ password: PASSWORD, device: own }), 200)
      t.notMatch(own, /victim/)
    },
  )

  await t.test('C.2: a browser has it in a cookie that scripts and other sites do not get', async (t) => {
    const response = await postern.anonymous.post('/api/v1/auth/login', {
      email: VICTIM,
      password: PASSWORD,
      use_cookie: true,
    })
    const cookie = response.cookies.find(({ name }) => name === 'postern-device')
    await failElsewhere()

    t.match(cookie, { httpOnly: true, sameSite: 'Strict', path: '/', maxAge: 400 * 86_400 })
    t.notOk('device_token' in response.json<object>())
    const known = { password: PASSWORD, cookie: `postern-device=${cookie?.value}` }
    t.equal(await status({ ...known, cookie: 'postern-device=x' }), 429)
    t.equal(await status(known), 200)
  })

  await t.test(
    'C.2: places in the pool are kept for a known device when strangers fill all others',
    async (t) => {
      const { device_token: device } = await signIn()
      const { passwords } = postern.services
      const tickets: { release(): void }[] = []
      try {
        for (;;) tickets.push(passwords.admit())
      } catch (error) {
        t.match(error, { code: 'sign_in_busy' })
      }

      t.equal(await status({ password: PASSWORD }), 503)
      t.equal(await status({ password: PASSWORD, device: 'made-up' }), 503)
      t.equal(await status({ password: PASSWORD, device }), 200)
      for (const ticket of tickets) ticket.release()
    },
  )

  await t.test('C.2: the OAuth form gives and takes it too', async (t) => {
    const form = async (fields: Record<string, string>) =>
      await postern.app.inject({
        method: 'POST',
        url: '/api/v1/auth/access-token',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        payload: new URLSearchParams({ username: VICTIM, password: PASSWORD, ...fields }).toString(),
      })
    const { device_token = '' } = (await form({})).json<{ device_token?: string }>()
    await failElsewhere()

    t.equal((await form({})).statusCode, 429)
    t.equal((await form({ device_token: '' })).statusCode, 429)
    t.equal((await form({ device_token })).statusCode, 200)
  })
})

t.test('a hundred failures in a row', async (t) => {
  let device: string | undefined

  t.beforeEach(async () => {
    device = (await signIn()).device_token
    await attempt({ from: '192.0.2.1' })
    await comeClose()
    await attempt({ from: '192.0.2.2' })
    await endWaits()
  })

  await t.test('C.2: stop the password, unseen, on devices that are not known', async (t) => {
    let verified = 0
    const { verify } = postern.services.passwords
    postern.services.passwords.verify = async (...args) => {
      verified++
      return await verify(...args)
    }
    t.teardown(() => {
      postern.services.passwords.verify = verify
    })

    t.equal(await status({ password: PASSWORD }), 429)
    t.equal(await status({ password: PASSWORD, from: '203.0.113.9' }), 429)
    t.equal(verified, 0)
    t.equal(await status({ password: PASSWORD, device }), 200)
    await endWaits()
    t.equal(await status({ password: PASSWORD }), 429, 'for as long as nobody lifts it')
  })

  await t.test('C.3: do so for people and for nobody alike', async (t) => {
    await attempt({ email: NOBODY, from: '192.0.2.1' })
    await comeClose()
    await attempt({ email: NOBODY, from: '192.0.2.2' })
    await attempt({ from: '192.0.2.2' })
    await endWaits()

    const [known, unknown] = [await attempt(), await attempt({ email: NOBODY })]

    t.equal(known.statusCode, 429)
    t.equal(unknown.statusCode, 429)
    t.equal(unknown.headers['retry-after'], known.headers['retry-after'])
    const { instance: _one, ...said } = known.json<Record<string, unknown>>()
    const { instance: _other, ...alsoSaid } = unknown.json<Record<string, unknown>>()
    t.same(alsoSaid, said)
  })

  await t.test('C.2: do so until there is a new password', async (t) => {
    const set = await postern.root.patch(`/api/v1/users/${victim.id}`, { password: NEXT })
    t.equal(set.statusCode, 200)

    t.equal(await status({}), 401, 'failures count anew, for the new one')
    t.equal(await status({ password: NEXT }), 200)
    await postern.services.users.updateUser(SYSTEM, victim.id, { password: PASSWORD }, undefined)
  })

  await t.test('C.2: stop it for who is signed in too, until there is a new one', async (t) => {
    const { client, id } = await postern.person('GUEST')
    const change = async (current_password: string) =>
      (await client.post('/api/v1/auth/change-password', { current_password, new_password: NEXT })).statusCode
    await change(WRONG)
    await comeClose()
    await change(WRONG)
    await endWaits()

    t.equal(await change(PASSWORD), 429)
    await postern.services.users.updateUser(SYSTEM, id, { password: PASSWORD }, undefined)
    const again = postern.as(await postern.signIn((await postern.services.users.getUser(id)).email ?? ''))
    const changed = await again.post('/api/v1/auth/change-password', {
      current_password: PASSWORD,
      new_password: NEXT,
    })
    t.equal(changed.statusCode, 204)
  })

  await t.test('C.2: do so until an administrator lifts the stop', async (t) => {
    const unlocked = await postern.root.post(`/api/v1/users/${victim.id}/unlock`)

    t.equal(unlocked.statusCode, 204)
    t.equal(await status({ password: PASSWORD }), 200)
    const events = await postern.root.get(`/api/v1/audit-events?action=user.unlocked&target_id=${victim.id}`)
    t.equal(events.json<unknown[]>().length, 1)
  })

  await t.test('ASVS 8.2.2: neither a stranger’s administrator nor a machine lifts it', async (t) => {
    const elsewhere = await postern.person('ACCOUNT_ADMIN', { accountId: await postern.account() })
    const machine = await anApiKey(postern)
    const url = `/api/v1/users/${victim.id}/unlock`

    t.equal((await elsewhere.client.post(url)).statusCode, 404)
    t.equal((await machine.client.post(url)).statusCode, 409)
    t.equal((await (await postern.person('GUEST')).client.post(url)).statusCode, 403)
    t.equal(await status({ password: PASSWORD }), 429)
  })

  await t.test('C.2: are forgotten after ninety days, but a stop never is', async (t) => {
    const { pool } = postern.services.database
    const age = async (days: number) =>
      await pool.query(
        `update login_attempts set last_attempt_at = last_attempt_at - $1 * interval '1 day'`,
        [days],
      )
    await attempt({ email: NOBODY })
    const left = async () =>
      (await pool.query(`select consecutive from login_attempts where kind = 'email' order by 1`)).rows

    await age(89)
    await postern.services.auth.prune()
    t.same(await left(), [{ consecutive: 1 }, { consecutive: 100 }])
    await age(2)
    await postern.services.auth.prune()
    t.same(await left(), [{ consecutive: 100 }])
  })
})

t.test(
  'C.2: what is counted within a window is refused beyond its limit, and counted anew after it',
  async (t) => {
    const { throttle } = postern.services
    const count = async () => await throttle.count('passkey', 'somebody', 3, 60)

    await Promise.all([count(), count(), count()])
    await t.rejects(count(), { code: 'too_many_requests', retryAfterSeconds: Number })
    t.notOk(await throttle.isWithin('passkey', 'somebody', 3, 60))
    await throttle.count('passkey', 'somebody else', 3, 60)
    await throttle.count('magic_link', 'somebody', 3, 60)

    await throttle.forget('passkey', 'somebody')
    await count()
  },
)
