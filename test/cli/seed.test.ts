import t from 'tap'
import { readDemo } from '../../src/cli/demo.ts'
import { PASSWORD, SECRET_KEY } from '../helpers/config.ts'
import { emptyDatabase, freshDatabase, onServer } from '../helpers/database.ts'
import {
  aDataDir,
  isServerRunning,
  runPostern,
  signIn,
  spawnPostern,
  startService,
  stopService,
} from '../helpers/processes.ts'

const demo = readDemo()

/** Everything that the database says, but for what changes by reading. */
const contentOf = (url: string) =>
  onServer(url, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `select table_name as name from information_schema.tables where table_schema = 'public' order by 1`,
    )
    const content: Record<string, unknown[]> = {}
    for (const { name } of rows) {
      content[name] = (
        await client.query(`select * from ${client.escapeIdentifier(name)} order by 1, 2`)
      ).rows
    }
    return content
  })

t.test('the demo data are what the documentation promises', async (t) => {
  const admins = demo.users.filter(({ role }) => role === 'ACCOUNT_ADMIN')
  const inBoth = demo.users.filter(({ account, further_roles: further }) =>
    further?.some((role) => role.account !== account),
  )

  t.equal(demo.users.length, 12)
  t.strictSame(
    demo.accounts.map(({ key }) => key),
    ['acme', 'globex'],
  )
  t.strictSame(admins.map(({ account }) => account).sort(), ['acme', 'globex'])
  t.ok(inBoth.length > 0)
  t.ok(demo.password.length >= 15)
  t.strictSame(
    [...new Set(demo.roles.flatMap(({ scopes }) => scopes.map((scope) => scope.split(':')[0])))].sort(),
    ['comment', 'post'],
  )
})

t.test('seed makes what a first start makes, and tells the password once', async (t) => {
  const { url } = await emptyDatabase(t)
  const env = { DATABASE_URL: url, SECRET_KEY }

  const first = await runPostern(t, ['seed'], { env })
  const password = /^Password: (\S+) /m.exec(first.stdout)?.[1] ?? ''
  const before = await contentOf(url)
  const second = await runPostern(t, ['seed'], { env })

  t.match(first, { code: 0, stderr: '', stdout: /super admin admin@example\.com\.\nPassword: \S{15,} / })
  t.match(second, { code: 0, stderr: '', stdout: 'Nothing to do: everything is there.\n' })
  t.strictSame(await contentOf(url), before)
  const service = await startService(t, env)
  t.notMatch(service.said().stdout, /Admin password/)
  t.equal((await signIn(service, 'admin@example.com', password)).status, 200)
})

t.test('seed --demo', async (t) => {
  const { url } = await freshDatabase(t)
  const env = { DATABASE_URL: url, SECRET_KEY }

  await t.test('is refused for production, unless forced', async (t) => {
    const before = await contentOf(url)
    const refused = await runPostern(t, ['seed', '--demo'], { env: { ...env, ENVIRONMENT: 'prod' } })

    t.match(refused, { code: 1, stdout: '', stderr: /^ENVIRONMENT is prod[^\n]+--force[^\n]+\.\n$/ })
    t.strictSame(await contentOf(url), before)

    const forced = await runPostern(t, ['seed', '--demo', '--force'], {
      env: { ...env, ENVIRONMENT: 'prod' },
    })
    t.match(forced, { code: 0, stdout: /^Loaded demo data: 2 accounts, 5 roles, 12 users, 15 role/ })
  })
  await t.test('the second time changes nothing, and says so', async (t) => {
    const before = await contentOf(url)
    const { code, stdout } = await runPostern(t, ['seed', '--demo'], { env })

    t.strictSame([code, stdout], [0, 'Nothing to do: the demo data is there.\n'])
    t.strictSame(await contentOf(url), before)
  })
  await t.test('every demo user signs in, with the scopes of their roles', async (t) => {
    const service = await startService(t, env)
    for (const { email, role } of demo.users) {
      const answer = await signIn(service, email, demo.password)
      const { scope } = (await answer.json()) as { scope: string }
      t.equal(answer.status, 200)
      const scopes = demo.roles.find(({ key }) => key === role)?.scopes ?? []
      for (const wanted of scopes) t.ok(scope.split(' ').includes(wanted), `${email} ${wanted}`)
    }
    const elsewhere = await fetch(`${service.url}/api/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email: 'aron@acme.example', password: demo.password, account: 'globex' }),
    })
    t.match(await elsewhere.json(), { scope: 'comment:read post:read' })
  })
  await t.test('two at once make one set', async (t) => {
    const { url: other } = await emptyDatabase(t)
    const both = await Promise.all(
      [1, 2].map(
        async () =>
          await spawnPostern(t, ['seed', '--demo'], { env: { DATABASE_URL: other, SECRET_KEY } }).ended,
      ),
    )

    t.strictSame(
      both.map(({ code }) => code),
      [0, 0],
    )
    t.equal(both.filter(({ stdout }) => stdout.includes('Loaded demo data')).length, 1)
    t.equal((await contentOf(other))['users']?.length, 13)
  })
})

t.test('with the embedded database', async (t) => {
  const dataDir = await aDataDir(t)
  const env = { DATA_DIR: dataDir, FIRST_SUPER_ADMIN_PASSWORD: PASSWORD }

  await t.test('while nothing runs: starts it for its own time', async (t) => {
    t.match(await runPostern(t, ['seed', '--demo'], { env }), { code: 0, stdout: /Loaded demo data/ })
    t.equal(await isServerRunning(dataDir), false)
  })
  await t.test('while the service runs: beside it, and leaves it alone', async (t) => {
    const service = await startService(t, env)

    const beside = await spawnPostern(t, ['seed', '--demo'], { env }).ended
    t.match(beside, { code: 0, stdout: /Nothing to do/ })
    t.equal((await signIn(service, 'alice@acme.example', demo.password)).status, 200)
    t.match(await stopService(service), { code: 0 })
    t.equal(await isServerRunning(dataDir), false)
  })
})

t.test('Ctrl-C leaves nothing running', async (t) => {
  const dataDir = await aDataDir(t)
  const { child, ended, said } = spawnPostern(t, ['seed', '--demo'], { env: { DATA_DIR: dataDir } })
  await new Promise<void>((resolve) => child.stderr?.on('data', () => resolve()))
  t.match(said().stderr, /Creating the database/)

  child.kill('SIGINT')

  t.match(await ended, { code: 130, signal: null, stdout: '' })
  t.equal(await isServerRunning(dataDir), false)
})
