import t from 'tap'
import { SECRET_KEY } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { aDataDir, freePort, refusedInOneSentence, runPostern } from '../helpers/processes.ts'

t.test('a database that cannot be used: one sentence, exit code 1, and no password in it', async (t) => {
  const { url } = await freshDatabase(t)
  const start = async (changes: NodeJS.ProcessEnv) =>
    await runPostern(t, ['serve'], {
      env: { DATABASE_URL: url, SECRET_KEY, PORT: String(await freePort()), ...changes },
    })
  const changed = (change: (url: URL) => void): string => {
    const other = new URL(url)
    other.password = 'hunter2-hunter2'
    change(other)
    return other.href
  }
  const closedPort = String(await freePort())
  const cases: [name: string, databaseUrl: string, pattern: RegExp][] = [
    [
      'refused',
      changed((url) => {
        url.port = closedPort
      }),
      /^Cannot reach the database \(.*ECONNREFUSED.*DATABASE_URL/,
    ],
    ['wrong password', changed(() => {}), /^Cannot reach the database \(.*password authentication failed/],
    [
      'no such host',
      changed((url) => {
        url.hostname = 'nowhere.invalid'
      }),
      /^Cannot reach the database \(.*nowhere\.invalid/,
    ],
    [
      'no such database',
      changed((other) => {
        other.password = new URL(url).password
        other.pathname = '/none'
      }),
      /^Cannot reach the database \(.*"none" does not exist/,
    ],
    ['not a URL', 'postgres://postern:hunter2-hunter2@host:port/%zz', /DATABASE_URL/],
  ]
  for (const [name, databaseUrl, pattern] of cases) {
    await t.test(name, async (t) => {
      const ended = await start({ DATABASE_URL: databaseUrl })

      refusedInOneSentence(t, ended, pattern)
      t.notMatch(ended.stdout + ended.stderr, /hunter2/)
      t.notMatch(ended.stdout + ended.stderr, new URL(url).password)
    })
  }

  await t.test('SECRET_KEY of another database', async (t) => {
    const ended = await start({ SECRET_KEY: 'another key, which is long enough for it' })

    refusedInOneSentence(t, ended, /^SECRET_KEY does not fit this database: /)
  })

  await t.test('no SECRET_KEY', async (t) => {
    const ended = await start({ SECRET_KEY: '', DATA_DIR: await aDataDir(t) })

    refusedInOneSentence(t, ended, /^SECRET_KEY is not set: /)
  })

  await t.test('a schema that needs newer code', async (t) => {
    await onServer(url, (client) => client.query('update schema_compatibility set min_code = 9999'))

    const ended = await start({})

    refusedInOneSentence(t, ended, /needs newer code \(schema level 9999, .*start the newer version/)
  })
})

t.test('a configuration with faults names all of them at once, without secrets', async (t) => {
  const { code, stdout, stderr } = await runPostern(t, ['serve'], {
    env: {
      PORT: '99999',
      LOG_LEVEL: 'loud',
      DATABASE_URL: 'mysql://me:hunter2-hunter2@host/db',
      SECRET_KEY: 'too-short-a-key',
      SHUTDOWN_TIMEOUT_MS: 'soon',
      FIRST_SUPER_ADMIN_PASSWORD_FILE: '/no/such/file',
    },
  })

  t.equal(code, 1)
  t.equal(stdout, '')
  for (const name of ['PORT', 'LOG_LEVEL', 'DATABASE_URL', 'SECRET_KEY', 'SHUTDOWN_TIMEOUT_MS']) {
    t.match(stderr, new RegExp(`^ {2}${name} must `, 'm'))
  }
  t.match(stderr, /^ {2}FIRST_SUPER_ADMIN_PASSWORD_FILE names a file that cannot be read/m)
  t.notMatch(stderr, /hunter2|too-short-a-key| {4}at /)
})
