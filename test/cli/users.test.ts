import t, { type Test } from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { emptyDatabase, freshDatabase } from '../helpers/database.ts'
import { enrolTotp } from '../helpers/factors.ts'
import { runPostern, spawnPostern } from '../helpers/processes.ts'

const GENERATED = /^Password: (\S{15,}) {3}\(shown only now\)$/m
const ADA = ['--email', 'ada@postern.test', '--name', 'Ada Lovelace']

/** A service in this process, and `postern` beside it on the same database. */
async function withCommand(t: Test) {
  const service = await buildTestApp(t)
  const env = { DATABASE_URL: service.databaseUrl, SECRET_KEY }
  const postern = async (args: readonly string[], input?: string) =>
    await runPostern(t, args, { env, ...(input !== undefined && { input }) })
  const auditOf = async (userId: string) =>
    (await service.root.get(`/api/v1/audit-events?target_id=${userId}`))
      .json<{ action: string; actor_type: string }[]>()
      .map(({ action, actor_type }) => `${actor_type} ${action}`)
  const rolesOf = async (userId: string) =>
    (await service.root.get(`/api/v1/users/${userId}/roles`))
      .json<{ role: { name: string }; account_id: string | null; is_primary: boolean }[]>()
      .map(({ role, account_id, is_primary }) => [role.name, account_id, is_primary])
  return { ...service, postern, auditOf, rolesOf }
}

t.test('sessions end', async (t) => {
  const { postern, root, person } = await withCommand(t)
  const { client } = await person('GUEST')

  t.match(await postern(['sessions', 'end']), { code: 2, stderr: /--all is missing/ })
  t.equal((await client.get('/api/v1/users/me')).statusCode, 200)
  t.match(await postern(['sessions', 'end', '--all']), { code: 0, stdout: 'Ended 2 sessions.\n' })
  for (const one of [client, root]) t.equal((await one.get('/api/v1/users/me')).statusCode, 401)
})

t.test('users create', async (t) => {
  const { postern, root, home, signIn, account, auditOf, rolesOf, services } = await withCommand(t)
  const find = async (email: string) => (await services.users.findByEmailOrId(email))?.id ?? ''

  await t.test('with a generated password, which works and is printed once', async (t) => {
    const { code, stdout, stderr } = await postern([
      ...['users', 'create', ...ADA, '--role', 'ADMIN'],
      '--generate-password',
    ])
    const id = await find('ada@postern.test')

    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, `Created ada@postern.test with the id ${id} and the role ADMIN.`)
    t.ok(await signIn('ada@postern.test', GENERATED.exec(stdout)?.[1]))
    t.match((await root.get(`/api/v1/users/${id}`)).json(), { full_name: 'Ada Lovelace', account_id: home })
    t.strictSame(await rolesOf(id), [['ADMIN', null, true]])
    t.strictSame((await auditOf(id)).sort(), [
      'system role.assigned',
      'system user.created',
      'user session.created',
    ])
  })
  await t.test('with a password from standard input, in an account', async (t) => {
    const accountId = await account('Acme')
    const { code, stdout } = await postern(
      [
        'users',
        'create',
        '--email',
        'b@postern.test',
        '--name',
        'B',
        '--account',
        'acme',
        '--password-stdin',
      ],
      'a password with spaces \n',
    )

    t.equal(code, 0)
    t.notMatch(stdout, /password/i)
    t.ok(await signIn('b@postern.test', 'a password with spaces '))
    t.match((await root.get(`/api/v1/users/${await find('b@postern.test')}`)).json(), {
      account_id: accountId,
      user_role: null,
    })
  })

  const refusals: [name: string, args: string[], input: string, sentence: string][] = [
    ['an email that is taken', [...ADA, '--generate-password'], '', 'A user with this email already exists.'],
    [
      'a short password',
      ['--email', 'c@postern.test', '--name', 'C', '--password-stdin'],
      'short',
      'The password must have at least 15 characters.',
    ],
    [
      'an unknown role',
      ['--email', 'c@postern.test', '--name', 'C', '--role', 'nope', '--generate-password'],
      '',
      'There is no role nope: GET /api/v1/roles lists the keys of all roles.',
    ],
  ]
  for (const [name, args, input, sentence] of refusals) {
    await t.test(`refuses ${name}, and changes nothing`, async (t) => {
      const { code, stdout, stderr } = await postern(['users', 'create', ...args], input)

      t.strictSame([code, stdout, stderr], [1, '', `${sentence}\n`])
      t.equal(await find('c@postern.test'), '')
    })
  }
})

t.test('users set-password', async (t) => {
  const { postern, person, as, services, anonymous, signIn, auditOf, rootId, root, databaseUrl } =
    await withCommand(t)
  const lost = await person('ADMIN')
  for (let n = 0; n < 5; n++) {
    await anonymous.post('/api/v1/auth/login', { email: lost.email, password: 'not the right password' })
  }

  await t.test('is the way back in: the password holds, sessions end, waits are over', async (t) => {
    const waiting = await anonymous.post('/api/v1/auth/login', {
      email: lost.email,
      password: 'whatever it is',
    })
    const { code, stdout } = await postern([
      'users',
      'set-password',
      lost.email.toUpperCase(),
      '--generate-password',
    ])

    t.equal(waiting.statusCode, 429)
    t.equal(code, 0)
    t.equal((await lost.client.get('/api/v1/users/me')).statusCode, 401)
    t.ok(await signIn(lost.email, GENERATED.exec(stdout)?.[1]))
    t.same((await auditOf(lost.id)).slice(0, 2), ['user session.created', 'system user.password_changed'])
  })
  await t.test('by id, from standard input, to be changed at the next sign-in', async (t) => {
    const { code, stdout } = await spawnPostern(
      t,
      ['users', 'set-password', lost.id, '--password-stdin', '--must-change'],
      { env: { DATABASE_URL: databaseUrl, SECRET_KEY }, input: 'the next long password' },
    ).ended
    const token = await signIn(lost.email, 'the next long password')

    t.equal(code, 0)
    t.notMatch(stdout, /the next long password/)
    t.match((await as(token).get('/api/v1/users')).json(), { type: '/problems/password_change_required' })
  })
  await t.test('says so when the user is not active', async (t) => {
    await services.users.setActive(SYSTEM, lost.id, false)
    const { stdout } = await postern(['users', 'set-password', lost.id, '--generate-password'])

    t.match(stdout, /is not active/)
  })
  await t.test('users reset-mfa is the way back in without a second factor', async (t) => {
    const boss = await person('SUPER_ADMIN')
    await enrolTotp(boss.client)
    const { code, stdout } = await postern(['users', 'reset-mfa', boss.email])

    t.match({ code, stdout }, { code: 0, stdout: `Removed the second factors of ${boss.email}` })
    t.equal((await boss.client.get('/api/v1/users/me')).statusCode, 401)
    t.ok(await signIn(boss.email))
    t.ok((await auditOf(boss.id)).includes('system user.factors_reset'))
  })
  await t.test('users unlock ends the waits and leaves the password as it is', async (t) => {
    const ada = await person('SUPER_ADMIN')
    const wrong = { email: ada.email, password: 'not the right password' }
    for (let n = 0; n < 5; n++) await anonymous.post('/api/v1/auth/login', wrong)
    t.equal((await anonymous.post('/api/v1/auth/login', wrong)).statusCode, 429)

    const { code, stdout } = await postern(['users', 'unlock', ada.email])

    t.match({ code, stdout }, { code: 0, stdout: `${ada.email} can try again.` })
    t.ok(await signIn(ada.email))
    t.equal((await ada.client.get('/api/v1/users/me')).statusCode, 200, 'and the sessions')
  })
  await t.test('refuses an unknown user and a short password', async (t) => {
    const nobody = await postern(['users', 'set-password', 'nobody@postern.test', '--generate-password'])
    const short = await postern(['users', 'set-password', rootId, '--password-stdin'], 'short')

    t.match(nobody, { code: 1, stdout: '', stderr: 'There is no user nobody@postern.test.\n' })
    t.match(short, { code: 1, stderr: 'The password must have at least 15 characters.\n' })
    t.equal((await root.get('/api/v1/users/me')).statusCode, 200)
  })
})

t.test('users grant', async (t) => {
  const { postern, person, account, root, home, auditOf, rolesOf } = await withCommand(t)
  await root.post('/api/v1/roles', { name: 'editor', scopes: ['post:read'] })
  const acme = await account('Acme')
  const somebody = await person()
  const grant = async (...args: string[]) => await postern(['users', 'grant', somebody.email, ...args])

  await t.test('where the role says, in an account, everywhere, as the primary one', async (t) => {
    t.match(await grant('editor'), { code: 0, stdout: /has the role editor in the account default\./ })
    t.match(await grant('editor', '--account', 'acme'), { code: 0, stdout: /in the account acme\./ })
    t.match(await grant('editor', '--everywhere'), { code: 0, stdout: /in every account\./ })
    t.match(await grant('ACCOUNT_ADMIN', '--primary'), { code: 0 })
    t.match(await grant('SUPER_ADMIN', '--primary'), { code: 0, stdout: /SUPER_ADMIN in every account\./ })

    t.strictSame(await rolesOf(somebody.id), [
      ['editor', home, false],
      ['editor', acme, false],
      ['editor', null, false],
      ['SUPER_ADMIN', null, true],
    ])
    t.same((await auditOf(somebody.id)).slice(0, 2), ['system role.assigned', 'system role.unassigned'])
  })
  await t.test('refuses what is there, and what is not', async (t) => {
    t.match(await grant('editor'), { code: 1, stderr: /^This user has already been assigned a role\.\n$/ })
    t.match(await grant('nope'), { code: 1, stderr: /^There is no role nope/ })
    t.match(await grant('editor', '--account', 'nope'), { code: 1, stderr: 'There is no account nope.\n' })
    t.match(await grant('editor', '--account', 'acme', '--primary'), {
      code: 2,
      stderr: /^Give one of[^\n]+\.\nUsage: postern users grant EMAIL\|ID ROLE /,
    })
  })
})

t.test('a database that is not set up, or not with this key, is refused', async (t) => {
  const create = ['users', 'create', ...ADA, '--generate-password']
  const { url: empty } = await emptyDatabase(t)
  const { url: other } = await freshDatabase(t)

  t.match(await runPostern(t, create, { env: { DATABASE_URL: empty, SECRET_KEY } }), {
    code: 1,
    stderr: /^The database is not set up for this version: run "postern seed" first\.\n$/,
  })
  t.match(
    await runPostern(t, create, {
      env: { DATABASE_URL: other, SECRET_KEY: 'another key of more than 32 letters' },
    }),
    { code: 1, stderr: /^SECRET_KEY does not fit this database: [^\n]+\n$/ },
  )
})
