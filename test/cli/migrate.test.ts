import { existsSync } from 'node:fs'
import t from 'tap'
import { knownMigrations } from '../../src/db/migrate.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { emptyDatabase, onServer } from '../helpers/database.ts'
import { aDataDir, isServerRunning, runPostern } from '../helpers/processes.ts'

const names = knownMigrations().map(({ name }) => name)
const tablesOf = (url: string) =>
  onServer(url, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `select table_name as name from information_schema.tables where table_schema = 'public' order by 1`,
    )
    return rows.map(({ name }) => name)
  })

t.test('migrate, without SECRET_KEY', async (t) => {
  const { url } = await emptyDatabase(t)
  const env = { DATABASE_URL: url }

  await t.test('--plan prints files and statements and changes nothing; psql would take it', async (t) => {
    const { code, stdout } = await runPostern(t, ['migrate', '--plan'], { env })

    t.equal(code, 0)
    for (const name of names) t.match(stdout, `-- ${name}.sql\n`)
    t.match(stdout, /CREATE TABLE "users"/)
    t.strictSame(await tablesOf(url), [])
    const { url: copy } = await emptyDatabase(t)
    await onServer(copy, (client) => client.query(stdout))
    t.ok((await tablesOf(copy)).includes('users'))
  })
  await t.test('applies what is pending, and nothing the second time', async (t) => {
    const first = await runPostern(t, ['migrate'], { env })
    const second = await runPostern(t, ['migrate'], { env })
    const plan = await runPostern(t, ['migrate', '--plan'], { env })

    t.match(first, { code: 0, stdout: names.map((name) => `Applied ${name}.sql\n`).join('') })
    t.match(second, { code: 0, stdout: 'The schema is up to date.\n' })
    t.match(plan, { code: 0, stdout: '-- The schema is up to date.\n' })
    t.ok((await tablesOf(url)).includes('users'))
  })
  await t.test('refuses a schema that needs newer code', async (t) => {
    await onServer(url, (client) => client.query('update schema_compatibility set min_code = 9999'))

    for (const args of [['migrate'], ['migrate', '--plan'], ['seed']]) {
      t.match(await runPostern(t, args, { env: { ...env, SECRET_KEY } }), {
        code: 1,
        stdout: '',
        stderr: /^The database schema needs newer code [^\n]+\.\n$/,
      })
    }
  })
})

t.test('migrate with the embedded database', async (t) => {
  const dataDir = await aDataDir(t)
  const env = { DATA_DIR: dataDir }

  t.match(await runPostern(t, ['migrate', '--plan'], { env }), { code: 0, stdout: /CREATE TABLE/ })
  t.equal(existsSync(dataDir), false)
  t.match(await runPostern(t, ['migrate'], { env }), { code: 0, stdout: /^Applied / })
  t.match(await runPostern(t, ['migrate', '--plan'], { env }), { code: 0, stdout: /up to date/ })
  t.equal(await isServerRunning(dataDir), false)
})

t.test('a database that cannot be reached', async (t) => {
  const env = { DATABASE_URL: 'postgres://me:hunter2-hunter2@nowhere.invalid/db', SECRET_KEY }

  for (const args of [['migrate'], ['seed'], ['users', 'set-password', 'x', '--generate-password']]) {
    const { code, stderr } = await runPostern(t, args, { env })
    t.equal(code, 1)
    t.match(stderr, /^Cannot reach the database \([^\n]+\.\n$/)
    t.notMatch(stderr, /hunter2/)
  }
})
