import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import t, { type Test } from 'tap'
import {
  codeVersion,
  isMigrated,
  knownMigrations,
  migrate,
  pendingMigrations,
  withStartLock,
} from '../../src/db/migrate.ts'
import { StartupError } from '../../src/errors.ts'
import { emptyDatabase, freshDatabase, onServer } from '../helpers/database.ts'

const run = promisify(execFile)
const names = () => knownMigrations().map(({ name }) => name)

async function isReady(url: string): Promise<boolean> {
  const pool = new pg.Pool({ connectionString: url })
  try {
    return await isMigrated(pool)
  } finally {
    await pool.end()
  }
}

t.test('an empty database is brought to the schema of the code', async (t) => {
  const { url } = await emptyDatabase(t)

  const pending = await withStartLock(url, pendingMigrations)
  const applied = await withStartLock(url, migrate)

  t.same(
    pending.map(({ name }) => name),
    names(),
  )
  t.same(applied, names())
  t.equal(await isReady(url), true)
})

t.test('a second time nothing is applied', async (t) => {
  const { url } = await emptyDatabase(t)
  await withStartLock(url, migrate)

  t.same(await withStartLock(url, pendingMigrations), [])
  t.same(await withStartLock(url, migrate), [])
})

t.test('processes that start at once on an empty database migrate it once', async (t) => {
  const { url } = await emptyDatabase(t)

  const applied = await Promise.all(Array.from({ length: 4 }, async () => withStartLock(url, migrate)))

  t.same(
    applied.filter((migrations) => migrations.length > 0),
    [names()],
  )
})

t.test('a start waits for the one before it', async (t) => {
  const { url } = await emptyDatabase(t)
  const order: string[] = []
  let letGo = () => {}
  const gate = new Promise<void>((resolve) => {
    letGo = resolve
  })

  const first = withStartLock(url, async () => {
    order.push('first begins')
    await gate
    order.push('first ends')
  })
  while (order.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  const second = withStartLock(url, async () => {
    order.push('second begins')
  })
  letGo()
  await Promise.all([first, second])

  t.same(order, ['first begins', 'first ends', 'second begins'])
})

t.test('a migration that fails leaves the database as it was', async (t) => {
  const { url } = await emptyDatabase(t)
  await onServer(url, (client) => client.query('create table accounts (nonsense int)'))

  await t.rejects(withStartLock(url, migrate))

  await onServer(url, async (client) => {
    const { rows } = await client.query(
      `select table_name from information_schema.tables where table_schema = 'public' order by 1`,
    )
    t.same(
      rows.filter(({ table_name }) => !['accounts', 'schema_migrations'].includes(table_name)),
      [],
    )
  })
  t.equal(await isReady(url).catch(() => false), false)
})

t.test('a schema that asks for newer code is refused with one sentence', async (t) => {
  const { url } = await freshDatabase(t)
  await onServer(url, (client) =>
    client.query('insert into schema_compatibility (version, min_code) values (99, 99)'),
  )

  for (const work of [migrate, pendingMigrations]) {
    const error = await withStartLock<unknown>(url, work).catch((cause: unknown) => cause)
    t.ok(error instanceof StartupError)
    t.match(error, { message: /^The database schema needs newer code .*start the newer version/ })
    t.notMatch(error, { message: /\n/ })
  }
  t.equal(await isReady(url), false)
})

t.test('a newer schema that this code can run on is accepted', async (t) => {
  const { url } = await freshDatabase(t)
  await onServer(url, async (client) => {
    await client.query('alter table users add column nickname text')
    await client.query(`insert into schema_compatibility (version, min_code) values (99, $1)`, [
      codeVersion(),
    ])
    await client.query(`insert into schema_migrations (hash, created_at) values ('newer', $1)`, [
      Date.now() + 1e9,
    ])
  })

  t.same(await withStartLock(url, migrate), [])
  t.equal(await isReady(url), true)
})

t.test('each migration records which code can run on it, and says what it is for', async (t) => {
  const { url } = await freshDatabase(t)

  const { rows } = await onServer(url, (client) =>
    client.query<{ version: number; min_code: number }>(
      'select version, min_code from schema_compatibility order by version',
    ),
  )

  t.same(
    rows.map(({ version }) => version),
    knownMigrations().map((_, index) => index + 1),
  )
  for (const { version, min_code } of rows) t.ok(min_code >= 1 && min_code <= version)
  for (const { name, sql } of knownMigrations()) {
    t.match(sql, /^-- .{20,}/, `${name}: a header`)
    t.match(sql, /insert into "?schema_compatibility"?/i, name)
  }
})

t.test('every migration file is in the journal, in the order of its number', async (t) => {
  const folder = new URL('../../migrations/', import.meta.url)
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()

  t.same(
    files,
    names().map((name) => `${name}.sql`),
  )
  const made = knownMigrations().map(({ madeAt }) => madeAt)
  t.same(
    made,
    [...made].sort((a, b) => a - b),
  )
})

t.test('the migrations make the schema of the code: drizzle-kit finds nothing to add', async (t) => {
  const folder = await copyOfMigrations(t)
  const schema = fileURLToPath(new URL('../../src/db/schema.ts', import.meta.url))
  const config = { dialect: 'postgresql', schema, out: './migrations', casing: 'snake_case' }
  await writeFile(join(folder, 'drizzle.config.json'), JSON.stringify(config))
  const before = await readdir(join(folder, 'migrations'))

  const kit = fileURLToPath(new URL('../../node_modules/.bin/drizzle-kit', import.meta.url))
  const { stdout } = await run(kit, ['generate', '--config=drizzle.config.json', '--name=drift'], {
    cwd: folder,
    env: { ...process.env, NODE_OPTIONS: '' },
  })

  t.match(stdout, /No schema changes/)
  t.same(await readdir(join(folder, 'migrations')), before)
})

t.test('a database made by the migrations has every table and column of the code', async (t) => {
  const { url } = await freshDatabase(t)
  const snapshot = JSON.parse(await readFile(await lastSnapshot(), 'utf8')) as {
    tables: Record<string, { name: string; columns: Record<string, { notNull: boolean }> }>
  }
  const expected = Object.values(snapshot.tables).flatMap(({ name, columns }) =>
    Object.entries(columns).map(([column, { notNull }]) => `${name}.${column}${notNull ? ' not null' : ''}`),
  )

  const { rows } = await onServer(url, (client) =>
    client.query<{ named: string }>(`select table_name || '.' || column_name ||
      case is_nullable when 'NO' then ' not null' else '' end as named
      from information_schema.columns where table_schema = 'public' and table_name <> 'schema_migrations'`),
  )

  t.same(rows.map(({ named }) => named).sort(), expected.sort())
})

t.test('an upgrade keeps what is there, and says of it what the schema has since', async (t) => {
  const { url } = await emptyDatabase(t)
  const upTo = knownMigrations().findIndex(({ name }) => name.startsWith('0005'))
  await onServer(url, async (client) => {
    await client.query(
      `create table schema_migrations (id serial primary key, hash text not null, created_at bigint)`,
    )
    for (const { sql, madeAt } of knownMigrations().slice(0, upTo)) {
      await client.query(`begin;\n${sql};\ncommit`)
      await client.query(`insert into schema_migrations (hash, created_at) values ('before', $1)`, [madeAt])
    }
    await client.query(`
      insert into environments (id, project, key, name) select md5(n::text)::uuid, 'default', 'e' || n, 'E' from generate_series(1, 2) n;
      insert into policy_versions (environment_id) select id from environments where key like 'e%';
      insert into users (id, environment_id, key, search_text, deleted_at)
        select gen_random_uuid(), e.id, 'u' || n, '', case when n % 5 = 0 then now() end
        from environments e, generate_series(1, 10) n where e.key in ('default', 'e1');
      insert into api_keys (id, name, level, access, environment_id, key_hash, key_hint, created_by_type, is_called_write)
        select gen_random_uuid(), 'k' || n, 'environment', 'full', md5('1')::uuid, 'h' || n, 'h', 'system', n = 1
        from generate_series(1, 2) n`)
  })

  t.same(await withStartLock(url, migrate), names().slice(upTo))

  await onServer(url, async (client) => {
    const people = async () =>
      (
        await client.query<{ key: string; people: string; is_new: boolean }>(
          `select e.key, v.people::int, v.people_version = v.version as is_new
          from policy_versions v join environments e on e.id = v.environment_id order by e.key desc`,
        )
      ).rows
    t.match(await people(), [
      { key: 'e2', people: 0 },
      { key: 'e1', people: 8, is_new: true },
      { key: 'default', people: 8, is_new: true },
    ])
    await client.query(`delete from users where key = 'u1'`)
    await client.query(`update users set first_name = 'U' where key = 'u2'`)
    t.match(await people(), [
      { key: 'e2', people: 0 },
      { key: 'e1', people: 7, is_new: false },
      { key: 'default', people: 7, is_new: false },
    ])
    const keys = await client.query(`select name, access, is_called_write from api_keys order by name`)
    t.same(keys.rows, [
      { name: 'k1', access: 'full', is_called_write: true },
      { name: 'k2', access: 'full', is_called_write: false },
    ])
  })
})

t.test('a database that does not answer is told in one sentence without its password', async (t) => {
  const url = 'postgres://somebody:hush-hush@127.0.0.1:1/x'

  const error = await withStartLock(url, migrate).catch((cause: unknown) => cause)

  t.ok(error instanceof StartupError)
  t.match(error, { message: /^Cannot reach the database .*check DATABASE_URL/ })
  t.notMatch(error, { message: /hush/ })
})

async function copyOfMigrations(t: Test): Promise<string> {
  const out = await mkdtemp(join(tmpdir(), 'postern-drift-'))
  t.teardown(async () => rm(out, { recursive: true }))
  await cp(new URL('../../migrations', import.meta.url), join(out, 'migrations'), { recursive: true })
  return out
}

async function lastSnapshot(): Promise<URL> {
  const folder = new URL('../../migrations/meta/', import.meta.url)
  const last = (await readdir(folder))
    .filter((file) => file.endsWith('_snapshot.json'))
    .sort()
    .at(-1)
  return new URL(last ?? '', folder)
}
