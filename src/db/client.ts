import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import type { Config } from '../config.ts'
import { isConcurrencyFailure, isUnavailable } from './errors.ts'

/** Drizzle over the pool. */
export type Db = NodePgDatabase
/** Drizzle inside a transaction. */
export type Tx = Parameters<Parameters<Db['transaction']>[0]>[0]
/** Where a statement runs: on any connection, or inside the caller's transaction. */
export type Executor = Db | Tx

/** The pool of one process. */
export type Database = {
  db: Db
  pool: pg.Pool
  /** A name for a prepared statement, or `undefined` when DB_PREPARE is off. */
  prepare: boolean
  close(): Promise<void>
}

/** The id of project `default`, environment `default`, which the first migration makes. */
export const DEFAULT_ENVIRONMENT = '00000000-0000-7000-8000-000000000001'

/** How much longer than Postgres itself we wait for the answer of a statement. */
const ANSWER_TIME_MS = 1000

/**
 * A pool that connects lazily and outlives its connections. One that breaks while idle is reported to `onError` and
 * replaced by the next request, so that a database that comes back needs no restart.
 */
export function createPool(options: pg.PoolConfig, onError: (error: Error) => void): pg.Pool {
  const pool = new pg.Pool({ keepAlive: true, application_name: 'postern', ...options })
  pool.on('error', onError)
  // The pool listens to idle connections only. One that breaks between two statements of a transaction would end
  // the process; the next statement on it fails by itself.
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** How long a connection of a pool, and a statement on it, may be waited for. */
export function timeLimits({
  connectTimeoutMs,
  statementTimeoutMs,
}: Pick<Config['database'], 'connectTimeoutMs' | 'statementTimeoutMs'>): pg.PoolConfig {
  return {
    connectionTimeoutMillis: connectTimeoutMs,
    ...(statementTimeoutMs > 0 && {
      statement_timeout: statementTimeoutMs,
      // A network that swallows everything would keep requests for as long as TCP tries.
      query_timeout: statementTimeoutMs + ANSWER_TIME_MS,
      idle_in_transaction_session_timeout: statementTimeoutMs * 3,
    }),
  }
}

/** The database by a pool with the limits of the configuration. */
export function createDatabase(
  config: Config['database'],
  url: string,
  onError: (error: Error) => void = () => {},
): Database {
  const options = { connectionString: url, max: config.poolMax, idleTimeoutMillis: 30_000 }
  const pool = createPool({ ...options, ...timeLimits(config) }, onError)
  return {
    pool,
    db: drizzle(pool, { casing: 'snake_case' }),
    prepare: config.prepare,
    async close() {
      await pool.end()
    },
  }
}

const TRIES = 4

const commitListeners = new WeakMap<Db, () => Promise<void>>()

/** Has `listener` run after each transaction of `transact` on this pool, before its caller goes on. It must not throw. */
export function afterCommit(db: Db, listener: () => Promise<void>): void {
  commitListeners.set(db, listener)
}

const commitPreparers = new WeakMap<Db, (tx: Tx) => Promise<void>>()

/** Has `prepare` run as the last statements of each transaction of `transact` on this pool. If it throws, nothing is written. */
export function beforeCommit(db: Db, prepare: (tx: Tx) => Promise<void>): void {
  commitPreparers.set(db, prepare)
}

/**
 * Runs `work` in a transaction, again from its start when Postgres ended it because two transactions got in each
 * other's way (deadlock, serialization failure). `work` must therefore do nothing but statements on `tx`.
 */
export async function transact<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await transactOnce(db, work)
      await commitListeners.get(db)?.()
      return result
    } catch (error) {
      if (attempt === TRIES || !isConcurrencyFailure(error)) throw error
    }
  }
}

/** Drizzle's own `transaction` keeps the connection for ever when BEGIN fails on it; this one gives it back. */
async function transactOnce<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  const pool = (db as Db & { $client: pg.Pool }).$client
  const client = await pool.connect()
  let isBroken = false
  try {
    return await drizzle(client, { casing: 'snake_case' }).transaction(async (tx) => {
      const result = await work(tx)
      await commitPreparers.get(db)?.(tx)
      return result
    })
  } catch (error) {
    isBroken = isUnavailable(error)
    throw error
  } finally {
    client.release(isBroken)
  }
}
