import { readdirSync } from 'node:fs'
import { getPriority } from 'node:os'
import argon2 from 'argon2'
import t, { type Test } from 'tap'
import { lowerHashingPriority } from '../../src/auth/hashing-priority.ts'
import { createPasswordHasher, type HashTicket, type PasswordHasher } from '../../src/auth/passwords.ts'
import { AppError } from '../../src/errors.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'

const PARAMETERS = {
  minLength: 15,
  memoryKib: 1024,
  timeCost: 2,
  parallelism: 1,
  concurrency: 2,
  queue: 100 as number | undefined,
}

const hasherWith = (parameters: Partial<typeof PARAMETERS> = {}) =>
  createPasswordHasher({ ...PARAMETERS, ...parameters })

/** Why a password is refused; `undefined` when it is not. */
function refusalOf(password: string, hasher = hasherWith()): string | undefined {
  try {
    hasher.assertAcceptable(password)
    return undefined
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return error.errors?.[0]?.detail
  }
}

t.test('C.1 argon2: a hash names its algorithm, version and parameters', async (t) => {
  const hash = await hasherWith({ memoryKib: 19_456, timeCost: 2, parallelism: 1 }).hash(PASSWORD)

  t.match(hash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22,}\$[A-Za-z0-9+/]{43}$/)
})

t.test('C.1 argon2: the defaults are those of OWASP or stronger', async (t) => {
  const { loadConfig } = await import('../../src/config.ts')

  const { passwords } = loadConfig({})

  t.match(passwords, { memoryKib: 19_456, timeCost: 2, parallelism: 1, minLength: 15 })
  t.throws(() => loadConfig({ ARGON2_MEMORY_KIB: '19455' }), /ARGON2_MEMORY_KIB/)
  t.throws(() => loadConfig({ ARGON2_TIME_COST: '1' }), /ARGON2_TIME_COST/)
})

t.test('C.1 argon2: every hash has a salt of its own, of 16 bytes', async (t) => {
  const hasher = hasherWith()
  const hashes = await Promise.all(Array.from({ length: 20 }, async () => hasher.hash(PASSWORD)))

  const salts = hashes.map((hash) => hash.split('$')[4] ?? '')

  t.equal(new Set(salts).size, 20)
  for (const salt of salts) t.equal(Buffer.from(salt, 'base64').length, 16)
})

t.test('a hash verifies its own password only', async (t) => {
  const hasher = hasherWith()
  const hash = await hasher.hash(PASSWORD)

  t.equal(await hasher.verify(hash, PASSWORD), true)
  for (const other of [`${PASSWORD} `, PASSWORD.toUpperCase(), PASSWORD.slice(0, -1), `${PASSWORD}\0`, '']) {
    t.equal(await hasher.verify(hash, other), false, JSON.stringify(other))
  }
})

t.test('where there is no hash, no password is right, not even the decoy', async (t) => {
  const hasher = hasherWith()
  await hasher.warmUp()

  t.equal(await hasher.verify(undefined, PASSWORD), false)
  t.equal(await hasher.verify(undefined, ''), false)
})

t.test('C.3: without a hash the same work is done as with one', async (t) => {
  const counted = await countingHasher(t, {})

  await counted.hasher.warmUp()
  counted.release()
  await counted.hasher.verify(undefined, PASSWORD)
  const unknown = counted.verified()
  await counted.hasher.verify('$argon2id$known', PASSWORD)

  t.equal(unknown, 1)
  t.equal(counted.verified(), 2)
})

t.test('C.1.2: length is counted in code points', async (t) => {
  t.equal(refusalOf('a'.repeat(15)), undefined)
  t.match(refusalOf('a'.repeat(14)), /at least 15/)
  t.equal(refusalOf('🔐'.repeat(15)), undefined)
  t.match(refusalOf('🔐'.repeat(8)), /at least 15/, '8 code points are 16 UTF-16 units')
  t.match(refusalOf('é'.normalize('NFD').repeat(8)), /at least 15/, 'composed before it is counted')
  t.match(refusalOf(''), /at least 15/)
})

t.test('C.1.4: there are no rules of composition', async (t) => {
  for (const password of [
    'aaaaaaaaaaaaaaa',
    '               ',
    'correct horse battery',
    'пароль из слов длинный',
    '一二三四五六七八九十一二三四五',
  ]) {
    t.equal(refusalOf(password), undefined, password)
  }
})

t.test('C.1.3: long passwords are taken, and too long ones refused, never cut', async (t) => {
  t.equal(refusalOf('a'.repeat(64)), undefined)
  t.equal(refusalOf('a'.repeat(256)), undefined)
  t.match(refusalOf('a'.repeat(257)), /at most 256/)
  t.equal(refusalOf('🔐'.repeat(256)), undefined)
  t.match(refusalOf('🔐'.repeat(257)), /at most/)
})

t.test('C.1.1: PASSWORD_MIN_LENGTH moves the lower bound', async (t) => {
  t.equal(refusalOf('a'.repeat(8), hasherWith({ minLength: 8 })), undefined)
  t.match(refusalOf('a'.repeat(19), hasherWith({ minLength: 20 })), /at least 20/)
})

t.test('C.1.3: two passwords that begin alike for 72 bytes and more are two', async (t) => {
  const hasher = hasherWith()
  const beginning = 'x'.repeat(200)
  const hash = await hasher.hash(`${beginning}1`)

  t.equal(await hasher.verify(hash, `${beginning}2`), false)
  t.equal(await hasher.verify(hash, beginning), false)
  t.equal(await hasher.verify(hash, `${beginning}1`), true)
})

t.test('C.1.3: a password of a megabyte is refused without a hash', async (t) => {
  const app = await buildTestApp(t, { env: { BODY_LIMIT_BYTES: '4000000' } })
  const counter = { hashes: 0 }
  const { hash, verify } = app.services.passwords
  app.services.passwords.hash = async (...given) => {
    counter.hashes++
    return await hash(...given)
  }
  app.services.passwords.verify = async (...given) => {
    counter.hashes++
    return await verify(...given)
  }
  const password = 'x'.repeat(1_000_000)

  const login = await app.anonymous.post('/api/v1/auth/login', { email: SUPER_ADMIN_EMAIL, password })
  const form = await app.app.inject({
    method: 'POST',
    url: '/api/v1/auth/access-token',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    payload: `grant_type=password&username=${SUPER_ADMIN_EMAIL}&password=${password}`,
  })
  const register = await app.anonymous.post('/api/v1/users/open', {
    email: 'new@postern.test',
    password,
    full_name: 'New',
  })
  const create = await app.root.post('/api/v1/users', { email: 'new@postern.test', password })

  t.equal(login.statusCode, 422)
  t.ok([400, 413].includes(form.statusCode))
  t.equal(register.statusCode, 422)
  t.equal(create.statusCode, 422)
  t.equal(counter.hashes, 0)
  for (const { body } of [login, form, register, create]) t.ok(body.length < 2000, 'and is not sent back')
})

t.test('C.1.3: a body of a megabyte is refused before it is read', async (t) => {
  const app = await buildTestApp(t)

  const response = await app.anonymous.post('/api/v1/auth/login', {
    email: SUPER_ADMIN_EMAIL,
    password: 'x'.repeat(1_100_000),
  })

  t.equal(response.statusCode, 413)
})

t.test('C.1.1: too short a password is refused everywhere that sets one, with a pointer to it', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const short = 'only 14 chars.'
  const refused = [
    await app.root.post('/api/v1/users', { email: 'new@postern.test', password: short }),
    await app.anonymous.post('/api/v1/users/open', {
      email: 'new@postern.test',
      password: short,
      full_name: 'New',
    }),
    await app.root.patch(`/api/v1/users/${person.id}`, { password: short }),
    await app.root.post('/api/v1/auth/hash-password', { password: short }),
  ]

  t.equal(short.length, 14)
  for (const response of refused) {
    t.equal(response.statusCode, 422)
    t.match(response.json(), {
      errors: [{ pointer: '/body/password', detail: 'must have at least 15 characters' }],
    })
  }
})

t.test('a hash of other parameters wants to be made anew', async (t) => {
  const hash = await hasherWith().hash(PASSWORD)

  t.equal(hasherWith().needsRehash(hash), false)
  t.equal(hasherWith({ timeCost: 3 }).needsRehash(hash), true)
  t.equal(hasherWith({ memoryKib: 2048 }).needsRehash(hash), true)
  t.equal(await hasherWith({ timeCost: 3 }).verify(hash, PASSWORD), true)
})

t.test('no more hashes run at once than the pool has places', async (t) => {
  const counted = await countingHasher(t, { concurrency: 3, queue: 50 })

  const all = Array.from({ length: 20 }, async () => counted.hasher.hash(PASSWORD))
  await counted.settled()
  t.equal(counted.running(), 3)
  counted.release()
  await Promise.all(all)

  t.equal(counted.most(), 3)
})

t.test('beyond pool and queue everything is refused at once', async (t) => {
  const counted = await countingHasher(t, { concurrency: 2, queue: 1 })
  const admitted = [1, 2, 3].map(async () => counted.hasher.hash(PASSWORD))

  await t.rejects(counted.hasher.hash(PASSWORD), { code: 'sign_in_busy', retryAfterSeconds: 1 })

  t.throws(() => counted.hasher.admit(), { code: 'sign_in_busy' })
  counted.release()
  await Promise.all(admitted)
  t.ok(await counted.hasher.hash(PASSWORD), 'and works again when there is room')
})

t.test('by default as many may wait as soon have their turn, at the speed of the last hashes', async (t) => {
  const { hasher, release } = await countingHasher(t, { concurrency: 5, queue: undefined })
  const places = (isKnown = false): number => {
    const tickets = ticketsOf(hasher, isKnown)
    for (const ticket of tickets) ticket.release()
    return tickets.length
  }
  t.equal(places(), 5 + 100)

  const slow = Array.from({ length: 5 }, async () => hasher.hash(PASSWORD))
  await new Promise((resolve) => setTimeout(resolve, 300))
  release()
  await Promise.all(slow)
  const afterSlow = places()
  t.equal(afterSlow, 5 + 50, 'ten for each at the same time, however slow')
  t.equal(places(true) - 5, Math.ceil((afterSlow - 5) * 1.5), 'half as many more for those known here')

  for (let n = 0; n < 50; n++) await hasher.hash(PASSWORD)
  t.ok(places() > 5 + 100)
})

t.test('the threads that hash get a lower priority, and the one that answers does not', async (t) => {
  const ours = getPriority()
  const found = await lowerHashingPriority(4, 'low')

  if (process.platform !== 'linux') {
    t.equal(found, undefined)
    return
  }
  t.ok(found !== undefined && found >= 1)
  t.equal(getPriority(process.pid), ours)
  const threads = readdirSync('/proc/self/task').map((thread) => getPriority(Number(thread)))
  t.ok(
    threads.filter((priority) => priority === Math.min(ours + 10, 19)).length >= (found ?? 1),
    threads.join(),
  )
})

t.test('a place in the pool comes back once, however often it is released', async (t) => {
  const hasher = hasherWith({ concurrency: 1, queue: 1 })
  const first = hasher.admit()
  hasher.admit()

  first.release()
  first.release()
  hasher.admit()

  t.throws(() => hasher.admit(), { code: 'sign_in_busy' })
})

t.test('a hash that fails gives its place back', async (t) => {
  const hasher = hasherWith({ concurrency: 1, queue: 0 })

  for (let n = 0; n < 5; n++) t.equal(await hasher.verify('no hash at all', PASSWORD), false)
  const badHasher = hasherWith({ concurrency: 1, queue: 0, memoryKib: 0 })
  for (let n = 0; n < 5; n++) {
    const error = await badHasher.hash(PASSWORD).catch((cause: unknown) => cause)
    t.notMatch(error, { code: 'sign_in_busy' })
  }

  t.ok(await hasher.hash(PASSWORD))
})

t.test('what unknown emails are verified against is made again after a fault', async (t) => {
  const hasher = hasherWith()
  const { hash } = argon2
  argon2.hash = async () => await Promise.reject(new Error('out of memory'))
  await t.rejects(hasher.verify(undefined, PASSWORD), /out of memory/)
  argon2.hash = hash

  t.equal(await hasher.verify(undefined, PASSWORD), false)
})

t.test('a flood of sign-ins is answered 503 with Retry-After, and nothing else is refused', async (t) => {
  const app = await buildTestApp(t, {
    env: { HASH_CONCURRENCY: '1', HASH_QUEUE: '1', LOGIN_MAX_FAILURES: '100' },
  })

  const [logins, other] = await Promise.all([
    Promise.all(
      Array.from({ length: 20 }, async (_, n) =>
        app.anonymous.post('/api/v1/auth/login', { email: `person${n}@postern.test`, password: PASSWORD }),
      ),
    ),
    Promise.all(Array.from({ length: 5 }, async () => app.root.get('/api/v1/users/me'))),
  ])

  const busy = logins.filter(({ statusCode }) => statusCode === 503)
  t.equal(logins.filter(({ statusCode }) => statusCode === 401).length + busy.length, 20)
  t.ok(busy.length >= 10)
  for (const response of busy) {
    t.match(response.json(), { type: '/problems/sign_in_busy', status: 503 })
    t.match(response.headers['retry-after'], /^\d+$/)
  }
  for (const response of other) t.equal(response.statusCode, 200)
  t.ok(await app.signIn(SUPER_ADMIN_EMAIL), 'afterwards there is room')
})

t.test('a full pool is told to OAuth clients in their words', async (t) => {
  const app = await buildTestApp(t, { env: { HASH_CONCURRENCY: '1', HASH_QUEUE: '0' } })
  const ticket = app.services.passwords.admit()

  const response = await app.app.inject({
    method: 'POST',
    url: '/api/v1/auth/access-token',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    payload: new URLSearchParams({ username: SUPER_ADMIN_EMAIL, password: PASSWORD }).toString(),
  })

  ticket.release()
  t.equal(response.statusCode, 503)
  t.match(response.json(), { error: 'temporarily_unavailable' })
  t.match(response.headers['retry-after'], /^\d+$/)
})

t.test('refused and failed sign-ins leave no place in the pool taken', async (t) => {
  const app = await buildTestApp(t, {
    env: { HASH_CONCURRENCY: '1', HASH_QUEUE: '0', LOGIN_MAX_FAILURES: '2' },
  })
  const signIn = async (body: object) => await app.anonymous.post('/api/v1/auth/login', body)

  for (let n = 0; n < 5; n++) await signIn({ email: 'nobody@postern.test', password: PASSWORD })
  for (let n = 0; n < 2; n++)
    await signIn({ email: SUPER_ADMIN_EMAIL, password: PASSWORD, scope: 'nothing:held' })
  for (let n = 0; n < 2; n++) {
    await app.root.post('/api/v1/auth/change-password', {
      current_password: 'not the right password',
      new_password: 'another horse battery staple',
    })
  }

  t.ok(await app.signIn(SUPER_ADMIN_EMAIL))
})

/** All tickets that there are. */
function ticketsOf(hasher: PasswordHasher, isKnown: boolean): HashTicket[] {
  const tickets: HashTicket[] = []
  for (;;) {
    try {
      tickets.push(hasher.admit(isKnown))
    } catch {
      return tickets
    }
  }
}

/** A hasher over an argon2 that only counts, and works when it is released. */
async function countingHasher(t: Test, parameters: Partial<typeof PARAMETERS>) {
  let running = 0
  let most = 0
  let verified = 0
  let open = () => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  const work = async <T>(result: T): Promise<T> => {
    running++
    most = Math.max(most, running)
    if (parameters.concurrency !== undefined) await gate
    await new Promise((resolve) => setImmediate(resolve))
    running--
    return result
  }
  const argon2 = {
    argon2id: 2,
    hash: async () => await work('$argon2id$fake'),
    verify: async () => {
      verified++
      return await work(true)
    },
    needsRehash: () => false,
  }
  const mocked = await t.mockImport<typeof import('../../src/auth/passwords.ts')>(
    '../../src/auth/passwords.ts',
    { argon2: { default: argon2 }, '../../src/errors.ts': await import('../../src/errors.ts') },
  )
  return {
    hasher: mocked.createPasswordHasher({ ...PARAMETERS, ...parameters }),
    running: () => running,
    most: () => most,
    verified: () => verified,
    release: () => open(),
    /** Resolves when everything that could begin has begun. */
    settled: async () => await new Promise((resolve) => setTimeout(resolve, 20)),
  }
}
