import { DrizzleQueryError } from 'drizzle-orm'
import pg from 'pg'

/** The error that Postgres sent, if that is what `error` is or wraps. */
function databaseError(error: unknown): pg.DatabaseError | undefined {
  const inner = error instanceof DrizzleQueryError ? error.cause : error
  return inner instanceof pg.DatabaseError ? inner : undefined
}

/** True for a broken unique constraint or index of this name (SQLSTATE 23505). */
export function isUniqueViolation(error: unknown, constraint: string): boolean {
  const found = databaseError(error)
  return found?.code === '23505' && found.constraint === constraint
}

/** True for a broken foreign key of a name that matches (SQLSTATE 23503). */
export function isForeignKeyViolation(error: unknown, constraint: RegExp): boolean {
  const found = databaseError(error)
  return found?.code === '23503' && constraint.test(found.constraint ?? '')
}

/** True when two transactions got in each other's way: serialization failure 40001, deadlock 40P01. */
export function isConcurrencyFailure(error: unknown): boolean {
  const code = databaseError(error)?.code
  return code === '40001' || code === '40P01'
}

/** True for text that Postgres cannot hold: U+0000 and broken Unicode (22021, 22P05), or JSON with it (22P02). */
export function isUnstorable(error: unknown): boolean {
  const code = databaseError(error)?.code
  return code === '22021' || code === '22P05' || code === '22P02'
}

/**
 * True when the database is away, starting, stopping or out of room, or gave no connection or answer in time:
 * classes 08, 53 and 57, read-only after a fail-over (25006), and the errors of sockets and of the pool.
 */
export function isUnavailable(error: unknown): boolean {
  const code = databaseError(error)?.code
  if (code !== undefined) return /^(08|53|57|25006|55P03)/.test(code)
  const inner = error instanceof DrizzleQueryError ? error.cause : error
  if (!(inner instanceof Error)) return false
  if ('code' in inner && typeof inner.code === 'string' && SOCKET_ERRORS.has(inner.code)) return true
  return POOL_ERRORS.some((sentence) => inner.message.startsWith(sentence))
}

const SOCKET_ERRORS = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENOENT',
  'EAI_AGAIN',
])

/** The `pg` package gives these no code; held by test/db/errors.test.ts. */
const POOL_ERRORS = [
  'timeout exceeded when trying to connect',
  'Connection terminated',
  'Client has encountered a connection error',
  'Client was closed and is not queryable',
  'Cannot use a pool after calling end on the pool',
  'Query read timeout',
]
