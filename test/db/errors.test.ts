import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import t, { type Test } from 'tap'
import { isConcurrencyFailure, isUnavailable, isUniqueViolation, isUnstorable } from '../../src/db/errors.ts'
import { toAppError } from '../../src/http/problem.ts'
import { databaseUrl, freshDatabase, onServer } from '../helpers/database.ts'
import { wireTo } from './cuttable-proxy.ts'

async function errorOf(work: Promise<unknown>): Promise<Error> {
  const error = await work.then(
    () => undefined,
    (cause: unknown) => cause,
  )
  if (error instanceof Error) return error
  throw new Error('no error came')
}

function poolOf(t: Test, url: string, options: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 1, ...options })
  pool.on('error', () => {})
  t.teardown(async () => {
    if (!pool.ended) await pool.end()
  })
  return pool
}

/** The error of a statement, as Postgres sends it and as Drizzle wraps it. */
async function bothOf(t: Test, url: string, statement: string): Promise<Error[]> {
  const pool = poolOf(t, url)
  return [
    await errorOf(pool.query(statement)),
    await errorOf(
      drizzle(pool)
        .execute(sql.raw(statement))
        .then((result) => result),
    ),
  ]
}

t.test('a database that is away is unavailable, in every way that pg tells it', async (t) => {
  const { url } = await freshDatabase(t)
  const wire = await wireTo(t, url)
  const errors: Record<string, Error> = {}

  errors['nobody listens'] = await errorOf(poolOf(t, 'postgres://x@127.0.0.1:1/x').query('select 1'))
  errors['no such host'] = await errorOf(poolOf(t, 'postgres://x@nowhere.invalid/x').query('select 1'))
  errors['no such socket'] = await errorOf(poolOf(t, 'postgres:///x?host=/nowhere').query('select 1'))

  const full = poolOf(t, url, { connectionTimeoutMillis: 50 })
  const held = await full.connect()
  errors['the pool is full'] = await errorOf(full.query('select 1'))
  held.release()

  const cut = await poolOf(t, wire.url).connect()
  cut.on('error', () => {})
  const sleeping = cut.query('select pg_sleep(60)')
  wire.breakOnce()
  errors['the connection broke under a query'] = await errorOf(sleeping)
  errors['the connection was broken before'] = await errorOf(cut.query('select 1'))
  cut.release()
  wire.cut()
  errors['the connection broke at its beginning'] = await errorOf(poolOf(t, wire.url).query('select 1'))

  const ended = poolOf(t, url)
  await ended.end()
  errors['the pool has ended'] = await errorOf(ended.query('select 1'))

  const slow = poolOf(t, url, { query_timeout: 50 })
  errors['no answer in time'] = await errorOf(slow.query('select pg_sleep(1)'))

  const client = new pg.Client(url)
  await client.connect()
  await client.end()
  errors['the client was closed'] = await errorOf(client.query('select 1'))

  for (const [what, error] of Object.entries(errors)) {
    t.equal(isUnavailable(error), true, `${what}: ${error.message}`)
    t.equal(toAppError(error).code, 'database_unavailable', what)
  }
})

t.test('a server that ends, refuses or limits is unavailable', async (t) => {
  const { url } = await freshDatabase(t)
  const pool = poolOf(t, url, { max: 3 })
  const errors: Record<string, Error> = {}

  errors['ended by an administrator (57P01)'] = await errorOf(
    pool.query('select pg_terminate_backend(pg_backend_pid())'),
  )
  errors['statement timeout (57014)'] = await errorOf(
    poolOf(t, url, { statement_timeout: 50 }).query('select pg_sleep(5)'),
  )
  errors['lock timeout (55P03)'] = await onServer(url, async (client) => {
    await client.query('begin; lock table users')
    return await errorOf(pool.query(`set lock_timeout = 50; select from users for update`))
  })
  errors['read only (25006)'] = await errorOf(
    poolOf(t, url).query(`begin read only; insert into settings values ('a', 'b')`),
  )
  await onServer(databaseUrl(url, 'postgres'), (client) =>
    client.query(`alter database ${new URL(url).pathname.slice(1)} connection limit 0`),
  )
  errors['too many connections (53300)'] = await errorOf(poolOf(t, url).query('select 1'))

  for (const [what, error] of Object.entries(errors)) t.equal(isUnavailable(error), true, `${what}: ${error}`)
})

t.test('what Drizzle wraps is the same', async (t) => {
  const away = drizzle(poolOf(t, 'postgres://x@127.0.0.1:1/x'))

  const error = await errorOf(away.execute(sql`select 1`).then((result) => result))

  t.equal(error.constructor.name, 'DrizzleQueryError')
  t.equal(isUnavailable(error), true)
})

t.test('constraints are told apart by their names', async (t) => {
  const { url } = await freshDatabase(t)
  const account = `insert into accounts (id, environment_id, key, name, search_text)
    select gen_random_uuid(), environment_id, key, name, '' from accounts`
  const member = `insert into account_members (environment_id, account_id, user_id)
    select environment_id, gen_random_uuid(), id from users`

  for (const error of await bothOf(t, url, account)) {
    t.equal(isUniqueViolation(error, 'accounts_key_key'), true)
    t.equal(isUniqueViolation(error, 'users_email_key'), false)
    t.equal(isUnavailable(error), false)
  }
  for (const error of await bothOf(t, url, member)) {
    t.equal(isUniqueViolation(error, 'account_members_account_id_fkey'), false)
  }
})

t.test('two transactions in each other’s way are a concurrency failure', async (t) => {
  const { url } = await freshDatabase(t)
  const error = await onServer(url, async (first) =>
    onServer(url, async (second) => {
      await first.query(`begin; select pg_advisory_xact_lock(1)`)
      await second.query(`begin; select pg_advisory_xact_lock(2)`)
      const waiting = [
        first.query('select pg_advisory_xact_lock(2)'),
        second.query('select pg_advisory_xact_lock(1)'),
      ]
      const results = await Promise.allSettled(waiting)
      return results.find((result) => result.status === 'rejected')?.reason as Error
    }),
  )

  t.equal(isConcurrencyFailure(error), true)
  t.equal(isUnavailable(error), false)
  t.equal(toAppError(error).code, 'conflict')
})

t.test('a serialization failure is a concurrency failure', async (t) => {
  const { url } = await freshDatabase(t)

  const error = await onServer(url, async (first) =>
    onServer(url, async (second) => {
      await first.query(`insert into settings values ('x', '1')`)
      await first.query(`begin isolation level repeatable read; select * from settings`)
      await second.query(`update settings set value = '2' where name = 'x'`)
      return await errorOf(first.query(`update settings set value = '3' where name = 'x'`))
    }),
  )

  t.equal(isConcurrencyFailure(error), true)
})

t.test('what Postgres cannot hold is unstorable', async (t) => {
  const { url } = await freshDatabase(t)
  const pool = poolOf(t, url)

  for (const [statement, value] of [
    ['select $1::text', 'a\0b'],
    ['select $1::jsonb', '{"a": "\\u0000"}'],
    ['select $1::jsonb', '{"a": "\\ud800"}'],
    ['select $1::uuid', 'no uuid'],
  ] as const) {
    const error = await errorOf(pool.query(statement, [value]))
    t.equal(isUnstorable(error), true, `${statement} ${JSON.stringify(value)}`)
    t.equal(toAppError(error).code, 'validation_failed')
  }
})

t.test('a fault of ours is none of these', async (t) => {
  const { url } = await freshDatabase(t)
  const faults = [
    ...(await bothOf(t, url, 'select nonsense from nowhere')),
    ...(await bothOf(t, url, 'select 1/0')),
    new TypeError('x is not a function'),
    new Error('something else'),
    Object.assign(new Error('coded'), { code: 'EWHATEVER' }),
  ]

  for (const error of faults) {
    t.equal(isUnavailable(error), false, error.message)
    t.equal(isConcurrencyFailure(error), false)
    t.equal(isUnstorable(error), false)
    t.equal(toAppError(error).code, 'internal_error')
  }
  t.equal(isUnavailable(undefined), false)
  t.equal(isUnavailable('Connection terminated'), false)
})
