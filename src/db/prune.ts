import { type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { Db } from './client.ts'

const AT_ONCE = 5000

/**
 * Removes the rows that pass, some thousand in a statement, so that none takes long and none holds many rows. A row that
 * somebody changes meanwhile stays until the next time, and nobody is waited for: of two who do this at once, each takes
 * what the other has not. Returns how many went.
 * @throws the reason of `signal` between two statements, when it is aborted
 */
export async function prune(
  db: Db,
  table: PgTable,
  condition: SQL | undefined,
  signal?: AbortSignal,
): Promise<number> {
  for (let all = 0; ; ) {
    signal?.throwIfAborted()
    const some = db
      .select({ ctid: sql`ctid` })
      .from(table)
      .where(condition)
      .limit(AT_ONCE)
      .for('update', { skipLocked: true })
    const { rowCount } = await db.delete(table).where(sql`ctid = any(array(${some}))`)
    all += rowCount ?? 0
    if ((rowCount ?? 0) < AT_ONCE) return all
  }
}
