import fc from 'fast-check'
import t from 'tap'
import { createAuthRepository } from '../../src/auth/repository.ts'
import { addressBlock, createThrottle } from '../../src/auth/throttle.ts'
import { systemClock } from '../../src/clock.ts'
import { createVault } from '../../src/vault.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { enrolTotp, login, mfaTokenOf, wrongCodeOf } from '../helpers/factors.ts'
import { aClient, basic } from '../helpers/oauth.ts'

const WRONG = 'a wrong password of good length'
const VICTIM = 'victim@postern.test'

type Attempt = { email?: string; password?: string; from?: string; forwardedFor?: string }

const attempt = async (
  { app }: TestApp,
  { email = VICTIM, password = WRONG, from = '192.0.2.1', forwardedFor }: Attempt = {},
) =>
  await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    remoteAddress: from,
    headers: { ...(forwardedFor && { 'x-forwarded-for': forwardedFor }) },
    payload: { email, password },
  })

async function statuses(app: TestApp, attempts: Attempt[]): Promise<number[]> {
  const seen = []
  for (const one of attempts) seen.push((await attempt(app, one)).statusCode)
  return seen
}

const times = (count: number, one: Attempt = {}): Attempt[] => Array<Attempt>(count).fill(one)

const victims = new Map<string, Promise<TestApp>>()

/** An application with a person, the victim, who has the usual password, and without failures: one for each environment. */
async function aVictim(env: NodeJS.ProcessEnv = {}): Promise<TestApp> {
  const name = JSON.stringify(env)
  const built = victims.get(name) ?? buildVictim(env)
  victims.set(name, built)
  const app = await built
  await app.services.database.pool.query('delete from login_attempts')
  return app
}

async function buildVictim(env: NodeJS.ProcessEnv): Promise<TestApp> {
  const app = await buildTestApp(t, { env })
  await app.person('GUEST', { email: VICTIM })
  return app
}

/** Lets the waits end, without waiting. */
const endWaits = async ({ services }: TestApp) =>
  await services.database.pool.query(`update login_attempts set blocked_until = now() - interval '1 second'
    where blocked_until is not null`)

const counters = async ({ services }: TestApp) => {
  const { rows } = await services.database.pool.query<{ kind: string; failures: number }>(
    'select kind, failures from login_attempts order by kind, failures',
  )
  return rows
}

/** Rows of the audit trail about refusals, and the attempts that they tell of. */
async function refusals({ services }: TestApp): Promise<{ rows: number; attempts: number }> {
  const { rows } = await services.database.pool.query<{ rows: number; attempts: number }>(
    `select count(*)::int as rows, coalesce(sum(repeat_count), 0)::int as attempts
      from audit_events where outcome = 'refused'`,
  )
  return rows[0] ?? { rows: 0, attempts: 0 }
}

t.test(
  'C.2: waits begin with the failure that reaches the limit for one email from one address',
  async (t) => {
    const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })

    t.same(await statuses(app, times(5)), [401, 401, 401, 429, 429])
  },
)

t.test('C.2: fifty failures from one address do not keep the victim from signing in elsewhere', async (t) => {
  const app = await aVictim()

  t.same(await statuses(app, times(50, { from: '192.0.2.1' })), [
    ...Array<number>(5).fill(401),
    ...Array<number>(45).fill(429),
  ])
  t.same(await statuses(app, [{ from: '198.51.100.7', password: PASSWORD }]), [200])
})

t.test('C.2: failures for one email from all addresses have a limit too', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3', LOGIN_MAX_FAILURES_PER_EMAIL: '5' })
  const from = (n: number): Attempt => ({ from: `192.0.2.${n}` })

  t.same(await statuses(app, [1, 2, 3, 4, 5, 6, 7].map(from)), [401, 401, 401, 401, 401, 429, 429])
  t.same(await statuses(app, [{ email: 'other@postern.test', from: '192.0.2.6' }]), [401])
})

t.test('C.2: failures from one address for all emails have a limit too', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3', LOGIN_MAX_FAILURES_PER_ADDRESS: '5' })
  const email = (n: number): Attempt => ({ email: `person${n}@postern.test` })

  t.same(await statuses(app, [1, 2, 3, 4, 5, 6, 7].map(email)), [401, 401, 401, 401, 401, 429, 429])
  t.same(await statuses(app, [{ email: 'person6@postern.test', from: '192.0.2.99' }]), [401])
})

t.test(
  'C.2: of a hundred guesses at once no more are looked at than the limit, and all of those are counted',
  async (t) => {
    const app = await aVictim()

    const responses = await Promise.all(times(100).map((one) => attempt(app, one)))

    const withStatus = (status: number) => responses.filter(({ statusCode }) => statusCode === status)
    const counted = (await counters(app)).find(({ kind }) => kind === 'email_and_address')
    t.equal(withStatus(401).length, 5)
    const [waited, beyond] = [withStatus(429).length, withStatus(503)]
    t.equal(waited + beyond.length, 95)
    t.ok(beyond.length > 0, 'few wait, as each holds a place of the pool that hashes')
    t.match(beyond[0]?.json(), { type: '/problems/sign_in_busy' })
    t.equal(beyond[0]?.headers['retry-after'], '1')
    t.equal(counted?.failures, 5)
  },
)

t.test('C.2: two processes that guess at once have one limit between them', async (t) => {
  const app = await aVictim()
  const second = await buildTestApp(t, { databaseUrl: app.databaseUrl })
  await app.services.database.pool.query('delete from login_attempts')

  const responses = await Promise.all(times(40).flatMap((one) => [attempt(app, one), attempt(second, one)]))

  const admitted = responses.filter(({ statusCode }) => statusCode === 401).length
  t.equal(admitted, 5)
  t.same([...new Set(responses.map(({ statusCode }) => statusCode))].sort(), [401, 429, 503])
})

t.test('two processes, with limits of a hundred', async (t) => {
  const env = { LOGIN_MAX_FAILURES: '100', LOGIN_MAX_FAILURES_PER_EMAIL: '100', DATABASE_POOL_MAX: '20' }
  const app = await aVictim(env)
  const second = await buildTestApp(t, { databaseUrl: app.databaseUrl, env })

  await t.test('C.2: right and wrong passwords at once end in no conflict and no fault', async (t) => {
    const responses = await Promise.all(
      times(60).map((one, n) =>
        attempt(n % 2 === 0 ? app : second, { ...one, password: n % 3 === 0 ? PASSWORD : WRONG }),
      ),
    )

    const seen = new Set(responses.map(({ statusCode }) => statusCode))
    t.same([...seen].sort(), [200, 401])
  })

  await t.test('C.2: a hundred parallel guesses that were admitted are all counted', async (t) => {
    const { pool } = app.services.database
    await pool.query('delete from login_attempts')

    const responses = await Promise.all(
      times(100).map(async (one, n) => await attempt(n % 2 === 0 ? app : second, one)),
    )

    t.same([...new Set(responses.map(({ statusCode }) => statusCode))], [401])
    t.same(
      await counters(app),
      ['address', 'email', 'email_and_address'].map((kind) => ({ kind, failures: 100 })),
    )
    const { rows } = await pool.query(`select consecutive from login_attempts where kind = 'email'`)
    t.same(rows, [{ consecutive: 100 }])
    t.equal((await attempt(second)).statusCode, 429)
  })
})

t.test('C.2: counting and forgiving at once never lock each other out', async (t) => {
  const app = await buildTestApp(t, { env: { DATABASE_POOL_MAX: '20' } })
  const attempts = createAuthRepository(app.services.database)
  const key = (keyHash: string) => ({ keyHash, limit: 1_000_000 })
  const near = { ...key('near'), kind: 'email_and_address' as const }
  const keys = { near, email: key('email'), address: key('address') }

  const results = await Promise.allSettled(
    Array.from({ length: 1500 }, async (_, n) =>
      n % 2 === 0 ? attempts.countAttempt(keys, { email: 'nobody' }, 30, 100) : attempts.forgiveAttempt(keys),
    ),
  )

  t.same(
    results.filter(({ status }) => status === 'rejected'),
    [],
  )
})

t.test('C.3: known and unknown people are made to wait from the same attempt on', async (t) => {
  const app = await aVictim()

  const known = await statuses(app, times(7))
  const unknown = await statuses(app, times(7, { email: 'nobody@postern.test', from: '192.0.2.2' }))

  t.same(known, [401, 401, 401, 401, 401, 429, 429])
  t.same(unknown, known)
})

t.test('C.2: spellings of one email share a counter', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })

  const spellings = [VICTIM, VICTIM.toUpperCase(), ` ${VICTIM} `, 'Victim@Postern.test']

  t.same(
    await statuses(
      app,
      spellings.map((email) => ({ email })),
    ),
    [401, 401, 401, 429],
  )
})

t.test('C.2: a wait is told in Retry-After, in whole seconds', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '1', LOGIN_BACKOFF_SECONDS: '40' })
  await attempt(app)

  const response = await attempt(app)

  t.equal(response.statusCode, 429)
  t.match(response.headers['retry-after'], /^\d+$/)
  const seconds = Number(response.headers['retry-after'])
  t.ok(seconds > 30 && seconds <= 40, `${seconds}`)
  t.match(response.json(), { type: '/problems/too_many_requests', status: 429 })
})

t.test('C.2: the right password is refused while a wait lasts, unseen', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '2' })
  await statuses(app, times(2))
  let verified = 0
  const { verify } = app.services.passwords
  t.teardown(() => {
    app.services.passwords.verify = verify
  })
  app.services.passwords.verify = async (...args) => {
    verified++
    return await verify(...args)
  }

  const right = await attempt(app, { password: PASSWORD })
  const wrong = await attempt(app)

  t.equal(right.statusCode, 429)
  t.same(right.json<{ type: string }>().type, wrong.json<{ type: string }>().type)
  t.equal(verified, 0)
})

t.test('C.2: an attempt that is refused during a wait makes the wait no longer', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '2', LOGIN_BACKOFF_SECONDS: '30' })
  await statuses(app, times(2))

  await statuses(app, times(20))

  t.ok(Number((await attempt(app)).headers['retry-after']) <= 30)
  t.equal((await counters(app)).find(({ kind }) => kind === 'email_and_address')?.failures, 2)
})

t.test('C.2: each failure after a wait doubles it, up to an hour', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '1', LOGIN_BACKOFF_SECONDS: '60' })
  const waits = []

  for (let n = 0; n < 9; n++) {
    t.equal((await attempt(app)).statusCode, 401)
    const seconds = Number((await attempt(app)).headers['retry-after'])
    waits.push(Math.ceil(seconds / 60) * 60)
    await endWaits(app)
  }

  t.same(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600])
})

t.test('C.2: a success begins the count anew', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })

  t.same(
    await statuses(app, [{}, {}, { password: PASSWORD }, {}, {}, {}, {}]),
    [401, 401, 200, 401, 401, 401, 429],
  )
})

t.test('C.2: one’s own sign-ins do not clear the counter of one’s address', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES_PER_ADDRESS: '6', LOGIN_MAX_FAILURES: '100' })
  const own: Attempt = { email: SUPER_ADMIN_EMAIL, password: PASSWORD }
  const guess = (n: number): Attempt => ({ email: `person${n}@postern.test` })

  const seen = await statuses(
    app,
    [0, 1, 2, 3, 4, 5, 6, 7].flatMap((n) => [guess(n), own]),
  )

  t.same(seen.slice(0, 10), [401, 200, 401, 200, 401, 200, 401, 200, 401, 200])
  t.ok(seen.slice(10).includes(429), 'the sixth guess of another email leads to a wait')
})

t.test('C.2: a day after the last attempt all is forgotten', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })
  await statuses(app, times(3))
  await app.services.database.pool.query(
    `update login_attempts set last_attempt_at = now() - interval '25 hours', blocked_until = blocked_until - interval '25 hours'`,
  )

  t.same(await statuses(app, times(4)), [401, 401, 401, 429])
})

t.test('C.2: X-Forwarded-For of strangers changes nothing', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })
  const spoofed = [1, 2, 3, 4, 5].map((n): Attempt => ({ forwardedFor: `203.0.113.${n}` }))

  t.same(await statuses(app, spoofed), [401, 401, 401, 429, 429])
})

t.test(
  'C.2: X-Forwarded-For is believed from the proxy that TRUST_PROXY names, and from nobody else',
  async (t) => {
    const app = await aVictim({ LOGIN_MAX_FAILURES: '2', TRUST_PROXY: '10.0.0.1' })
    const through = (proxy: string, forwardedFor: string): Attempt => ({ from: proxy, forwardedFor })

    t.same(
      await statuses(
        app,
        [1, 2, 3, 4].map((n) => through('10.0.0.1', `203.0.113.${n}`)),
      ),
      [401, 401, 401, 401],
    )
    t.same(await statuses(app, times(3, through('10.0.0.1', '203.0.113.9'))), [401, 401, 429])
    t.same(
      await statuses(
        app,
        [5, 6, 7].map((n) => through('10.0.0.2', `203.0.113.${n}`)),
      ),
      [401, 401, 429],
    )
    t.same(
      await statuses(
        app,
        [1, 2, 3].map((n) => through('10.0.0.1', `198.51.100.${n}, 203.0.113.77`)),
      ),
      [401, 401, 429],
      'what the client itself wrote into the header is not its address',
    )
  },
)

t.test('C.2: counters outlive a restart', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })
  await statuses(app, times(3))

  const restarted = await buildTestApp(t, {
    databaseUrl: app.databaseUrl,
    env: { LOGIN_MAX_FAILURES: '3' },
  })

  t.same(await statuses(restarted, [{}, { password: PASSWORD }]), [429, 429])
})

t.test('C.2: a whole /64 of IPv6 addresses is one address', async (t) => {
  const app = await aVictim({ LOGIN_MAX_FAILURES: '3' })
  const from = (address: string): Attempt => ({ from: address })

  t.same(
    await statuses(app, ['2001:db8::1', '2001:db8::2', '2001:db8::ffff:1', '2001:db8:0:0:a::1'].map(from)),
    [401, 401, 401, 429],
  )
  t.same(await statuses(app, ['2001:db8:0:1::1'].map(from)), [401])
})

t.test(
  'C.2: what waits for nothing writes one audit row for a /64 and minute, not one for each address',
  async (t) => {
    const app = await aVictim({ LOGIN_MAX_FAILURES: '2', LOGIN_MAX_FAILURES_PER_ADDRESS: '3' })
    const client = await aClient(app)
    const ada = await app.person('GUEST')
    const { secret } = await enrolTotp(ada.client)
    const mfaToken = mfaTokenOf(await login(app, ada))
    const post = async (remoteAddress: string, url: string, payload: object | string, headers = {}) =>
      await app.app.inject({ method: 'POST', url, remoteAddress, payload, headers })
    const asClient = {
      ...basic({ ...client, client_secret: 'wrong' }),
      'content-type': 'application/x-www-form-urlencoded',
    }
    const ways: Record<string, (from: string, n: number) => Promise<{ statusCode: number }>> = {
      'a password': async (from, n) => await attempt(app, { from, email: `nobody-${n}@postern.test` }),
      'a code': async (from) =>
        await post(from, '/api/v1/auth/mfa/verify', { mfa_token: mfaToken, code: wrongCodeOf(secret) }),
      'a client': async (from) =>
        await post(from, '/oauth2/token', 'grant_type=client_credentials', asClient),
    }
    for (const [what, guess] of Object.entries(ways)) {
      const before = await refusals(app)
      const answers = []
      for (let n = 1; n <= 12; n++)
        answers.push((await guess(`2001:db8:0:7::${n.toString(16)}`, n)).statusCode)
      const after = await refusals(app)

      t.equal(answers.at(-1), 429, what)
      // Those that were looked at have rows of their own; a minute may end meanwhile.
      const looked = answers.filter((status) => status !== 429).length
      t.ok(after.rows - before.rows <= looked + 2, `${what}: ${after.rows - before.rows} rows`)
      t.equal(after.attempts - before.attempts, 12, `${what}: every attempt is counted`)
    }
  },
)

t.test('C.2: a whole /64 of IPv6 addresses waits in one line', async (t) => {
  const { services } = await aVictim()
  const throttle = createThrottle({
    attempts: createAuthRepository(services.database),
    vault: createVault(SECRET_KEY),
    limits: {
      maxFailures: 2,
      maxFailuresPerEmail: 20,
      maxFailuresPerAddress: 200,
      backoffSeconds: 30,
      registrationsPerAddressAndHour: 20,
    },
    clock: systemClock,
  })
  let open = (): void => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const work = async ({ succeed }: { succeed(): Promise<void> }) => {
    await opened
    await succeed()
  }

  const waiting = Array.from(
    { length: 20 },
    async (_, n) => await throttle.attempt(VICTIM, `2001:db8:0:9::${n}`, work),
  )
  const elsewhere = throttle.attempt(VICTIM, '2001:db8:0:a::1', work)
  open()

  const results = await Promise.allSettled(waiting)
  const refused = results.filter((one) => one.status === 'rejected').map(({ reason }) => reason.code)
  t.same(refused, Array(11).fill('sign_in_busy'), 'one at a time, and eight who wait')
  await t.resolves(elsewhere)
})

t.test('C.2: registrations from one address have a limit within the hour', async (t) => {
  const app = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '2' } })
  let people = 0
  const register = async (from: string) =>
    await app.app.inject({
      method: 'POST',
      url: '/api/v1/users/open',
      remoteAddress: from,
      payload: { email: `new${++people}@postern.test`, password: PASSWORD, full_name: 'New' },
    })

  const seen = []
  for (let n = 0; n < 4; n++) seen.push(await register('192.0.2.1'))
  const elsewhere = await register('192.0.2.2')

  t.same(
    seen.map(({ statusCode }) => statusCode),
    [201, 201, 429, 429],
  )
  t.match(seen.at(-1)?.headers['retry-after'], /^\d+$/)
  t.equal(elsewhere.statusCode, 201)

  await endWaits(app)
  t.equal((await register('192.0.2.1')).statusCode, 201, 'after the hour')
})

t.test('C.2: registrations at once have the same limit', async (t) => {
  const app = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '3' } })

  const responses = await Promise.all(
    Array.from({ length: 12 }, async (_, n) =>
      app.anonymous.post('/api/v1/users/open', {
        email: `new${n}@postern.test`,
        password: PASSWORD,
        full_name: 'New',
      }),
    ),
  )

  t.equal(responses.filter(({ statusCode }) => statusCode === 201).length, 3)
  t.equal(responses.filter(({ statusCode }) => statusCode === 429).length, 9)
})

t.test('C.2: the table of counters names nobody', async (t) => {
  const app = await aVictim()
  await statuses(app, times(2, { from: '203.0.113.77' }))

  const { rows } = await app.services.database.pool.query('select * from login_attempts')

  t.equal(rows.length, 3)
  t.notMatch(JSON.stringify(rows), /victim|postern\.test|203\.0\.113/i)
})

t.test('C.2: the same person is another name under another SECRET_KEY', async (t) => {
  const app = await aVictim()
  const { createVault } = await import('../../src/vault.ts')

  const here = app.services.vault.mac('identifiers', VICTIM)
  const elsewhere = createVault('another secret key of good length').mac('identifiers', VICTIM)

  t.not(here, elsewhere)
})

const BLOCKS: [address: string, block: string][] = [
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['::FFFF:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:0DB8:0001:0002:0003:0004:0005:0006', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['2001:db8:0:0::', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['1::', '1:0:0:0::/64'],
  ['::2:3:4:5:6:7:8', '0:2:3:4::/64'],
  ['1:2:3:4:5:6:7::', '1:2:3:4::/64'],
  ['64:ff9b::192.0.2.33', '64:ff9b:0:0::/64'],
]

t.test('C.2: the block of an address is what one subscriber holds', async (t) => {
  for (const [address, block] of BLOCKS) t.equal(addressBlock(address), block, address)
})

t.test('C.2: every spelling of an IPv6 address is in the block of its first four groups', async () => {
  const group = fc.integer({ min: 0, max: 0xffff })
  const groups = fc.array(fc.oneof(fc.constant(0), group), { minLength: 8, maxLength: 8 })

  fc.assert(
    fc.property(groups, fc.boolean(), fc.boolean(), (numbers, isPadded, isUpper) => {
      const plain = numbers.map((number) => number.toString(16))
      const spelled = plain.map((text) => (isPadded ? text.padStart(4, '0') : text)).join(':')
      const shortened = new URL(`http://[${plain.join(':')}]/`).hostname.slice(1, -1)
      const expected = `${plain.slice(0, 4).join(':')}::/64`

      return [spelled, shortened].every(
        (address) => addressBlock(isUpper ? address.toUpperCase() : address) === expected,
      )
    }),
  )
})

t.test('C.2: addresses of different /64s never share a block', async () => {
  const half = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 4, maxLength: 4 })
  const block = (numbers: number[]) => addressBlock(numbers.map((number) => number.toString(16)).join(':'))

  fc.assert(
    fc.property(half, half, half, (one, other, rest) => {
      const isSame = one.join() === other.join()

      return (block([...one, ...rest]) === block([...other, ...rest])) === isSame
    }),
  )
})
