import { createHash } from 'node:crypto'
import bcrypt from 'bcrypt'
import fc from 'fast-check'
import t from 'tap'
import { createPasswordHasher } from '../../src/auth/passwords.ts'
import {
  comparable,
  createBlocklist,
  personalWords,
  readCommonPasswords,
} from '../../src/passwords/blocklist.ts'
import { encodeHashedSet, readHashedSet } from '../../src/passwords/hashed-set.ts'
import { setUp } from '../../src/setup.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL, testConfig } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { FOREIGN_HASHES, HASHED, LONG } from './hashes.ts'

const SETTINGS = { minLength: 15, memoryKib: 1024, timeCost: 2, parallelism: 1, concurrency: 2, queue: 100 }
const emptyList = () => readHashedSet(encodeHashedSet([]))

t.test('C.1.6: the list of common passwords', async (t) => {
  const list = readCommonPasswords()

  await t.test('has tens of thousands that are long enough to be chosen', async (t) => {
    t.ok(list.size > 470_000, `${list.size} of 8 characters or more`)
    const lengthy = [
      ...[
        'passwordpassword',
        '1qaz2wsx3edc4rfv',
        'qwertyuiopasdfghjkl',
        '123456789987654321',
        'worldofwarcraft',
      ],
      ...[
        'cristianoronaldo',
        'manchesterunited',
        '30secondstomars',
        'stairwaytoheaven',
        'neversaymypassword',
      ],
      ...[
        'q1w2e3r4t5y6u7i8',
        'youngandrestless',
        'password',
        'trustno1',
        'baseball',
        'qwerty123',
        '12345678',
      ],
    ]
    for (const password of lengthy) t.ok(list.has(password), password)
  })
  await t.test('has no other ones', async (t) => {
    const others = Array.from({ length: 20_000 }, (_, n) =>
      createHash('sha256').update(`${n}`).digest('base64').slice(0, 16),
    )

    t.strictSame(
      others.filter((text) => list.has(comparable(text))),
      [],
    )
  })
})

t.test('a set of hashes holds what a plain set holds', async (t) => {
  const texts = fc.uniqueArray(fc.string({ unit: 'grapheme', minLength: 1 }), { maxLength: 300 })
  fc.assert(
    fc.property(texts, texts, (held, asked) => {
      const oracle = new Set(held)
      const set = readHashedSet(encodeHashedSet(held))

      return (
        set.size === oracle.size && [...held, ...asked].every((text) => set.has(text) === oracle.has(text))
      )
    }),
    { seed: 1, numRuns: 15 },
  )
  const file = encodeHashedSet(['a', 'b'])
  for (const broken of [file.subarray(1), file.subarray(0, -1), Buffer.alloc(9), Buffer.concat([file, file])])
    t.throws(() => readHashedSet(broken), /no set of hashes/)
})

t.test('C.1.6: what is derived from common words', async (t) => {
  const blocklist = createBlocklist(['Postern', 'Globex'], () => readHashedSet(encodeHashedSet(['sunshine'])))
  const words = personalWords({
    email: 'ada.lovelace@example.com',
    fullName: 'Ada Lovelace',
    accountName: 'Head Office',
  })
  const faultOf = (password: string) => blocklist.faultOf(password, words)

  const refused: [fault: RegExp, passwords: string[]][] = [
    [/attackers try first/, ['sunshine', 'SunShine']],
    [
      /repeats/,
      [
        'sunshinesunshine',
        'SunshinesunshineSUN',
        'aaaaaaaaaaaaaaa',
        ' '.repeat(15),
        'xk4xk4xk4xk4xk4',
        '🔐'.repeat(15),
      ],
    ],
    [
      /sequences/,
      [
        'qwertyuiopasdfghjkl',
        '1qaz2wsx3edc4rfv',
        'abcdefghijklmno1234',
        '987654321qwertz',
        'йцукенгшщзфывапр',
        'q1w2e3r4t5y6u7i8',
      ],
    ],
    [
      /little more than/,
      [
        'ada.lovelace@example.com',
        'AdaLovelace2024!',
        'postern-postern-globex',
        'Lovelace.19151210',
        'headoffice!12345',
        'headOFFICE-Globex-2025',
      ],
    ],
  ]
  for (const [fault, passwords] of refused)
    for (const password of passwords) t.match(faultOf(password), fault, password)
  const taken = [
    PASSWORD,
    'ada was a countess of lovelace',
    'sunshine over the globex pier',
    'nqvzhwkryplmtbx',
    '738201946258173',
    'пароль из слов длинный',
  ]
  for (const password of taken) t.equal(faultOf(password), undefined, password)

  const letters = fc.string({ unit: fc.constantFrom('x', 'ü', '🔐', 'M'), minLength: 8, maxLength: 40 })
  const plain = createBlocklist([], emptyList)
  fc.assert(
    fc.property(letters, (password) => {
      const text = comparable(password)
      const periods = Array.from({ length: text.length >> 1 }, (_, n) => n + 1)
      const period = periods.find((p) => text.slice(p) === text.slice(0, -p))
      const isRepeated = plain.faultOf(password)?.startsWith('repeats') ?? false
      const isShort = period !== undefined && Array.from(text.slice(0, period)).length < 8
      return isShort ? isRepeated : period === undefined ? !isRepeated : true
    }),
    { seed: 1, numRuns: 300 },
  )
})

t.test('hashes of other programs', async (t) => {
  const hasher = createPasswordHasher(SETTINGS)

  for (const [name, foreign] of Object.entries(FOREIGN_HASHES)) {
    const adopted = hasher.adopt(foreign)
    const hash = 'hash' in adopted ? adopted.hash : ''
    const password = name.endsWith('LONG') ? LONG : HASHED
    t.equal(await hasher.verify(hash, password), true, name)
    t.equal(await hasher.verify(hash, `X${password}`), false, `${name}, another password`)
    t.equal(hasher.needsRehash(hash), true, `${name} is to be replaced`)
  }

  await t.test('bcrypt sees 72 bytes, and what replaces it sees all', async (t) => {
    const hash = FOREIGN_HASHES['passlib bcrypt of LONG'] ?? ''
    const other = `${LONG} and more`

    t.equal(await hasher.verify(hash, other), true)
    t.equal(await hasher.verify(await hasher.hash(other), LONG), false)
  })
  await t.test('that would cost too much, or say nothing, are refused and never verified', async (t) => {
    const salt = 'c2FsdHNhbHRzYWx0c2FsdA'
    const digest = 'R4oT91v1teZM1cwjvLk3pBaCua9R7QyzfLvtixkxJNY'
    const refused: [hash: string, reason: RegExp][] = [
      [`$2b$31$${'a'.repeat(53)}`, /costs more/],
      [`$2b$03$${'a'.repeat(53)}`, /parameters/],
      [`$bcrypt-sha256$v=2,t=2b,r=99$${'a'.repeat(22)}$${'a'.repeat(31)}`, /costs more/],
      [`$scrypt$ln=30,r=8,p=1$${salt}$${digest}`, /costs more/],
      [`$scrypt$ln=14,r=8,p=999$${salt}$${digest}`, /costs more/],
      [`scrypt:1000:8:1$salt$${'ab'.repeat(32)}`, /parameters/],
      [`scrypt:65536:1:1$salt$${'ab'.repeat(32)}`, /parameters/],
      [`pbkdf2:sha1:1000000$salt$${'ab'.repeat(64)}`, /costs more/],
      [`pbkdf2_sha256$999999999$salt$${digest}=`, /costs more/],
      [`pbkdf2_sha256$1000$salt$YWI=`, /digest/],
      [`$pbkdf2-sha512$1000$${salt}$${'a'.repeat(500)}`, /digest/],
      [`$argon2id$v=19$m=4194304,t=2,p=1$${salt}$${digest}`, /costs more/],
      [`$argon2id$v=19$m=262144,t=50,p=1$${salt}$${digest}`, /costs more/],
      [`$argon2id$v=19$m=4,t=1,p=1$${salt}$${digest}`, /parameters/],
      [`$argon2id$v=19$m=1024,t=1,p=1$${salt}$YWI`, /digest/],
      ['5f4dcc3b5aa765d61d8327deb882cf99', /no known format/],
      ['$6$rounds=5000$salt$digest', /no known format/],
      ['!', /no known format/],
    ]
    for (const [hash, reason] of refused) {
      t.match(hasher.adopt(hash), { fault: reason }, hash)
    }
    const stored = refused[0]?.[0]
    t.equal(await hasher.verify(stored, HASHED), false, 'where one is stored all the same')
    t.match(hasher.adopt(`pbkdf2:sha1:1000000$salt$${'ab'.repeat(20)}`), { hash: /^pbkdf2/ })
  })
  await t.test(
    'that take more memory than is configured are not imported, and verified where they are stored',
    async (t) => {
      const warnings: string[] = []
      const [salt, digest] = ['MDEyMzQ1Njc4OWFiY2RlZg', 'a'.repeat(43)]
      const argon2 = (kib: number) => `$argon2id$v=19$m=${kib},t=2,p=1$${salt}$${digest}`
      const scrypt = (ln: number) => `$scrypt$ln=${ln},r=8,p=1$${salt}$${digest}`
      const bounded = createPasswordHasher(
        { ...SETTINGS, importMemoryKib: 65_536 },
        { warn: (_context, message) => warnings.push(message) },
      )
      const roomy = createPasswordHasher({ ...SETTINGS, memoryKib: 131_072, importMemoryKib: 65_536 })

      for (const [least, above] of [
        [argon2(65_536), argon2(65_537)],
        [scrypt(16), scrypt(17)],
      ]) {
        t.same(bounded.adopt(least ?? ''), { hash: least })
        t.match(bounded.adopt(above ?? ''), {
          fault: /KiB to verify, and PASSWORD_IMPORT_MEMORY_KIB is 65536$/,
        })
        t.same(roomy.adopt(above ?? ''), { hash: above }, 'what our own take, imported ones may take')
      }
      t.equal(await bounded.verify(scrypt(17), PASSWORD), false)
      t.same(warnings, [], 'as what it is')
      t.same(testConfig().passwords.importMemoryKib, 65_536)
    },
  )

  await t.test('that fail while they are verified are no failure of the sign-in', async (t) => {
    const warnings: string[] = []
    const watched = createPasswordHasher(SETTINGS, { warn: (_context, message) => warnings.push(message) })
    t.intercept(bcrypt, 'compare', { value: async () => await Promise.reject(new Error('broken')) })

    t.equal(await watched.verify(FOREIGN_HASHES['passlib bcrypt'], HASHED), false)
    t.strictSame(warnings, ['a stored password hash cannot be verified'])
  })
})

t.test('a pepper', async (t) => {
  const [old, next] = ['an old pepper of thirty-two bytes', 'a new pepper of thirty-two bytes!']
  const warnings: unknown[] = []
  const plain = createPasswordHasher(SETTINGS, { warn: (context) => warnings.push(context) })
  const first = createPasswordHasher({ ...SETTINGS, pepper: old })
  const second = createPasswordHasher({ ...SETTINGS, pepper: next, previousPepper: old })
  const hash = await first.hash(PASSWORD)

  await t.test('is needed to verify what was hashed with it', async (t) => {
    t.equal(await first.verify(hash, PASSWORD), true)
    t.equal(await plain.verify(hash, PASSWORD), false)
    t.equal(
      await plain.verify(hash.slice(hash.indexOf('$')), PASSWORD),
      false,
      'without the name of the pepper',
    )
    t.equal(await createPasswordHasher({ ...SETTINGS, pepper: next }).verify(hash, PASSWORD), false)
    matchEach(t, warnings, [{ reason: /PASSWORD_PEPPER/ }])
    t.notMatch(hash, old)
  })
  await t.test('is turned on and changed with each sign-in', async (t) => {
    const bare = await plain.hash(PASSWORD)

    t.strictSame([await first.verify(bare, PASSWORD), first.needsRehash(bare)], [true, true])
    t.strictSame([await second.verify(hash, PASSWORD), second.needsRehash(hash)], [true, true])
    t.equal(second.needsRehash(await second.hash(PASSWORD)), false)
  })
})

t.test('over HTTP', async (t) => {
  const app = await buildTestApp(t, { env: { PASSWORD_BLOCKED_WORDS: 'Globex, Initech' } })
  const { root, anonymous, services, signIn } = app

  await t.test(
    'C.1.6: a common password is refused wherever one is set, with a stable code and the reason',
    async (t) => {
      const person = await app.person('GUEST')
      const password = 'ManchesterUnited'
      const refused = [
        ['/body/password', await root.post('/api/v1/users', { email: 'new@postern.test', password })],
        [
          '/body/password',
          await anonymous.post('/api/v1/users/open', {
            email: 'new@postern.test',
            password,
            full_name: 'New',
          }),
        ],
        ['/body/password', await root.patch(`/api/v1/users/${person.id}`, { password })],
        ['/body/password', await root.post('/api/v1/auth/hash-password', { password })],
        [
          '/body/new_password',
          await person.client.post('/api/v1/auth/change-password', {
            current_password: PASSWORD,
            new_password: password,
          }),
        ],
      ] as const

      for (const [pointer, response] of refused) {
        t.equal(response.statusCode, 422)
        t.match(response.json(), {
          type: '/problems/password_blocklisted',
          detail: 'The password is one of the passwords that attackers try first',
          errors: [{ pointer }],
        })
        t.notMatch(response.body, password)
      }
      t.ok(await signIn(person.email), 'the password is what it was')
    },
  )
  await t.test(
    'C.1.6: names of the person, of the account and of the service are no passwords',
    async (t) => {
      const accountId = await app.account('Kwik-E-Mart Springfield')
      const open = async (password: string, names: object) =>
        (
          await anonymous.post('/api/v1/users/open', { email: 'grace.hopper@navy.test', password, ...names })
        ).json<{ type: string }>().type
      const create = async (password: string) =>
        (
          await root.post('/api/v1/users', { email: 'apu@postern.test', password, account_id: accountId })
        ).json<{ type: string }>().type

      for (const password of [
        'Grace.Hopper@navy.test',
        'hopper-grace-1906',
        'Postern2025Globex',
        'initechinitech1',
      ]) {
        t.equal(
          await open(password, { full_name: 'Amazing Grace' }),
          '/problems/password_blocklisted',
          password,
        )
      }
      t.equal(await create('springfield-KWIK-1'), '/problems/password_blocklisted')
      t.equal((await root.get('/api/v1/users?email=apu@postern.test')).json<unknown[]>().length, 0)
    },
  )
  await t.test('C.1.6: whoever has such a password already signs in with it', async (t) => {
    const person = await app.person('GUEST')
    const hash = await services.passwords.hash('password')
    await services.database.pool.query('update user_credentials set password_hash = $1 where user_id = $2', [
      hash,
      person.id,
    ])

    t.ok(await signIn(person.email, 'password'))
  })
  await t.test('C.1.1: eight characters are enough for whoever always shows a second factor', async (t) => {
    const accountId = await app.account('Vault')
    const [guarded, other] = [
      await app.person('GUEST', { accountId }),
      await app.person('GUEST', { accountId }),
    ]
    const { pool } = services.database
    const enrol = async (id: string) =>
      await pool.query(
        `insert into totp_factors (id, environment_id, user_id, secret_sealed, confirmed_at)
         select gen_random_uuid(), environment_id, id, 'sealed', now() from users where id = $1`,
        [id],
      )
    const set = async (id: string, password: string) =>
      (await root.patch(`/api/v1/users/${id}`, { password })).statusCode
    await enrol(guarded.id)

    t.equal(await set(guarded.id, 'x7#Kq9!w'), 422, 'enrolled, and nobody demands it')
    await pool.query('update accounts set is_mfa_required = true where id = $1', [accountId])
    t.equal(await set(other.id, 'x7#Kq9!w'), 422, 'demanded, and not enrolled yet')
    t.equal(await set(guarded.id, 'x7#Kq9!w'), 200)
    t.equal(await set(guarded.id, 'x7#Kq9!'), 422)
    t.equal(await set(guarded.id, 'trustno1'), 422, 'the list holds for it too')
    await pool.query(
      'insert into account_members (environment_id, account_id, user_id) select environment_id, $1, id from users where id = $2',
      [app.home, guarded.id],
    )
    t.equal(await set(guarded.id, 'p3&Zt8?v'), 422, 'a member of an account that does not demand it')
  })
  await t.test('an imported hash signs in, and is replaced by one of ours', async (t) => {
    const stored = async (id: string) =>
      (
        await services.database.pool.query<{ hash: string }>(
          'select password_hash as hash from user_credentials where user_id = $1',
          [id],
        )
      ).rows[0]?.hash ?? ''
    for (const name of ['passlib bcrypt', 'werkzeug pbkdf2', 'django scrypt', 'argon2i']) {
      const { id, email } = await app.person('GUEST')
      await services.database.pool.query(
        'update user_credentials set password_hash = $1 where user_id = $2',
        [FOREIGN_HASHES[name], id],
      )

      const wrong = await anonymous.post('/api/v1/auth/login', { email, password: 'not the right password' })
      t.equal(wrong.statusCode, 401, name)
      t.equal(await stored(id), FOREIGN_HASHES[name], 'a wrong password changes nothing')
      t.ok(await signIn(email, HASHED), name)
      t.match(await stored(id), /^\$argon2id\$/, name)
      t.ok(await signIn(email, HASHED), `${name}, again`)
    }
    const { id, email } = await app.person('GUEST')
    const manyLanes = `scrypt:2:100:999$salt$${'ab'.repeat(64)}`
    await services.database.pool.query('update user_credentials set password_hash = $1 where user_id = $2', [
      manyLanes,
      id,
    ])
    t.equal((await anonymous.post('/api/v1/auth/login', { email, password: HASHED })).statusCode, 401)
  })
  await t.test(
    'C.3: unknown emails are given the work of all kinds of hashes that are stored, each always the same',
    async (t) => {
      await services.database.pool.query(
        'update user_credentials set password_hash = $1 where user_id <> $2',
        [FOREIGN_HASHES['passlib bcrypt'], app.rootId],
      )
      const fresh = await buildTestApp(t, {
        databaseUrl: app.databaseUrl,
        env: { LOGIN_MAX_FAILURES_PER_ADDRESS: '10000' },
      })
      const { verify } = fresh.services.passwords
      const work = new Map<string, Set<string>>()
      let email = ''
      fresh.services.passwords.verify = async (hash, password, like) => {
        work.set(email, (work.get(email) ?? new Set()).add(String((hash ?? like)?.slice(0, 4))))
        return await verify(hash, password, like)
      }
      for (let n = 0; n < 60; n++) {
        email = `nobody${n % 30}@postern.test`
        await fresh.anonymous.post('/api/v1/auth/login', { email, password: PASSWORD })
      }

      t.equal(work.size, 30)
      t.ok(
        [...work.values()].every((kinds) => kinds.size === 1),
        'the second time as the first',
      )
      t.strictSame([...new Set([...work.values()].flatMap((kinds) => [...kinds]))].sort(), ['$2b$', '$arg'])
    },
  )
})

t.test('PASSWORD_PEPPER over time', async (t) => {
  const before = await buildTestApp(t)
  const { databaseUrl } = before
  const pool = before.services.database.pool
  const peppers = { PASSWORD_PEPPER: 'an old pepper of thirty-two bytes' }
  const nextPeppers = {
    PASSWORD_PEPPER: 'a new pepper of thirty-two bytes!',
    PASSWORD_PEPPER_PREVIOUS: peppers.PASSWORD_PEPPER,
  }
  const hashOfRoot = async () =>
    (
      await pool.query<{ hash: string }>(
        'select password_hash as hash from user_credentials where user_id = $1',
        [before.rootId],
      )
    ).rows[0]?.hash ?? ''

  const first = await buildTestApp(t, { databaseUrl, env: peppers })
  await setUp(first.services, databaseUrl)
  const peppered = await hashOfRoot()
  t.match(peppered, /^[\w-]{8}\$argon2id\$/, 'the first sign-in with it has hashed the password anew')

  await t.test('without it nothing starts, and nobody gets in', async (t) => {
    await t.rejects(
      setUp(before.services, databaseUrl),
      /^Passwords in this database were hashed with another PASSWORD_PEPPER/,
    )
    const refused = await before.anonymous.post('/api/v1/auth/login', {
      email: SUPER_ADMIN_EMAIL,
      password: PASSWORD,
    })
    t.match(refused.json(), { type: '/problems/invalid_credentials' })
  })
  await t.test(
    'after a change the one before is needed until the last password is hashed anew',
    async (t) => {
      const second = await buildTestApp(t, { databaseUrl, env: nextPeppers })
      await setUp(second.services, databaseUrl)
      const now = await hashOfRoot()

      t.not(now.slice(0, 8), peppered.slice(0, 8))
      const { PASSWORD_PEPPER } = nextPeppers
      const last = await buildTestApp(t, { databaseUrl, env: { PASSWORD_PEPPER } })
      await setUp(last.services, databaseUrl)
      t.ok(await last.signIn(SUPER_ADMIN_EMAIL))
    },
  )
})
