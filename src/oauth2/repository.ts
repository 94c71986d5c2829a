import { createHash } from 'node:crypto'
import { and, eq, gt, lt, sql } from 'drizzle-orm'
import type { Database, Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { revocations, seenTokens } from '../db/schema.ts'

export type OAuth2Repository = ReturnType<typeof createOAuth2Repository>

/** How long the clocks of others may be wrong. */
const SKEW = sql`interval '60 seconds'`

/** The statements of what OAuth requests use up, and of the subjects of their tokens. */
export function createOAuth2Repository({ db, pool, prepare }: Database) {
  return {
    /**
     * Notes a one-time token of somebody else until it expires. False when it was noted before: of requests that send
     * the same one at once, one hears true.
     */
    async useOnce(kind: 'client_assertion' | 'dpop_proof', name: string, expiresAt: Date): Promise<boolean> {
      const { rowCount } = await pool.query({
        text: 'insert into seen_tokens (kind, key_hash, expires_at) values ($1, $2, $3) on conflict do nothing',
        values: [kind, createHash('sha256').update(name).digest('base64url'), expiresAt],
        ...(prepare && { name: 'use_once' }),
      })
      return rowCount === 1
    },

    /** Notes that an access token is dead before it expires. False when it was noted before. */
    async revokeToken(jti: string, expiresAt: Date, tx: Tx): Promise<boolean> {
      const { rowCount } = await tx.execute(sql`
        insert into revocations (kind, ref, expires_at)
        select 'token', ${jti}, ${expiresAt.toISOString()}::timestamptz + ${SKEW}
        where not exists (select from revocations where kind = 'token' and ref = ${jti})`)
      return rowCount === 1
    },

    /** The `jti` of the access tokens that were revoked one by one and could still live. */
    async listRevokedTokens(): Promise<string[]> {
      const rows = await db
        .select({ jti: revocations.ref })
        .from(revocations)
        .where(and(eq(revocations.kind, 'token'), gt(revocations.expiresAt, sql`now()`)))
      return rows.map(({ jti }) => jti)
    },

    /** Removes one-time tokens that have expired. Returns how many rows went. */
    async prune(signal?: AbortSignal): Promise<number> {
      return await prune(db, seenTokens, lt(seenTokens.expiresAt, sql`now() - ${SKEW}`), signal)
    },
  }
}
