import { lte, sql } from 'drizzle-orm'
import type { Database, Executor } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { revocationFeed, revocations } from '../db/schema.ts'

/** What ends: all tokens of a session, one token, those of a user or client whose `ver` is lower, or all of a key. */
export type Revocation = {
  version: number
  kind: 'session' | 'token' | 'user' | 'client' | 'key'
  /** The `sid`, `jti`, `sub` or `kid` of the tokens. */
  ref: string
  ver: number | null
  /** Seconds since 1970 after which no token that it ends is alive. */
  exp: number
}

/** A stretch of the history, as one snapshot of the database saw it. */
export type Stretch = {
  epoch: string
  /** The version given last. */
  head: number
  /** Up to this version the rows are all that there are. */
  upTo: number
  rows: Revocation[]
}

/** Beyond the configured life of a token: for clocks that differ. */
const SKEW_SECONDS = 60

type StretchRow = {
  epoch: string
  head: string
  version: string | null
  kind: Revocation['kind']
  ref: string
  ver: number | null
  exp: string
}

export type RevocationsRepository = ReturnType<typeof createRevocationsRepository>

/** The statements of the revocation feed, of all environments. */
export function createRevocationsRepository({ db, pool, prepare }: Database) {
  return {
    /** What is still of use after version `since`, in order, at most `limit`; `limit` 0 asks for the head alone. */
    async readSince(since: number, limit: number): Promise<Stretch> {
      const { rows } = await pool.query<StretchRow>({
        text: `select f.epoch, f.version as head, r.version, r.kind, r.ref, r.token_version as ver,
            ceil(extract(epoch from r.expires_at))::bigint as exp
          from revocation_feed f left join lateral (
            select version, kind, ref, token_version, expires_at from revocations
            where version > $1 and expires_at > now() order by version limit $2
          ) r on true order by r.version`,
        values: [since, limit],
        ...(prepare && { name: 'revocations_since' }),
      })
      const [first] = rows
      if (!first) throw new Error('the table revocation_feed is empty')
      const found = rows.flatMap(({ version, kind, ref, ver, exp }) =>
        version === null ? [] : [{ version: Number(version), kind, ref, ver, exp: Number(exp) }],
      )
      const head = Number(first.head)
      const last = found.at(-1)
      return {
        epoch: first.epoch,
        head,
        upTo: last && found.length === limit ? last.version : head,
        rows: found,
      }
    },

    /** Ends one token. Other kinds are written by triggers, and keys with their withdrawal. */
    async insertToken(jti: string, expiresAt: Date, ex: Executor): Promise<void> {
      const until = sql`${expiresAt.toISOString()}::timestamptz + make_interval(secs => ${SKEW_SECONDS})`
      await ex.insert(revocations).values({ kind: 'token', ref: jti, expiresAt: until })
    },

    /** From now on rows stay for at least `seconds`: tokens may live so long. */
    async noteTokenLifetime(seconds: number, ex: Executor): Promise<void> {
      await ex
        .update(revocationFeed)
        .set({ tokenLifetimeSeconds: seconds })
        .where(sql`${revocationFeed.tokenLifetimeSeconds} < ${seconds}`)
    },

    /** Has every process that listens hear `payload`. */
    async notify(channel: string, payload: string): Promise<void> {
      await db.execute(sql`select pg_notify(${channel}, ${payload})`)
    },

    /** Removes rows that no token outlives. */
    async prune(signal?: AbortSignal): Promise<void> {
      await prune(db, revocations, lte(revocations.expiresAt, sql`now()`), signal)
    },
  }
}
