import { and, eq, gt, inArray, ne, sql } from 'drizzle-orm'
import type { Grantee } from '../auth/grants.ts'
import { HELD_ROLES } from '../auth/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { prune } from '../db/prune.ts'
import { sessions } from '../db/schema.ts'

/** Why a session ended, as its row says it. That of a closed account is ended by a trigger. */
export type EndReason =
  | 'signed_out'
  | 'ended_by_user'
  | 'ended_by_admin'
  | 'token_revoked'
  | 'refresh_token_reused'
  | 'password_changed'
  | 'factor_changed'
  | 'factors_reset'
  | 'user_deactivated'
  | 'user_deleted'
  | 'account_closed'

/** A session as lists show it. */
export type SessionRow = {
  id: string
  userId: string
  accountId: string | null
  clientId: string
  userAgent: string | null
  address: string | null
  createdAt: Date
  /** When its last refresh was, or its beginning. */
  lastUsedAt: Date
  /** When it ends unless it is refreshed before. */
  expiresAt: Date
}

/** A live session, as a refresh token names it. */
export type SessionOfToken = {
  id: string
  userId: string
  accountId: string | null
  clientId: string
  /** What was asked for at sign-in; null: all that is held. */
  scope: string | null
  /** What it is limited to since sign-in; null: nothing, and its tokens are for this service. */
  audiences: string[] | null
  dpopThumbprint: string | null
  createdAt: Date
  /** When the token can no longer be used, unless it is before. */
  expiresAt: Date
  /** False for a token that another one has followed. */
  isCurrent: boolean
  /** True for the token before the current one. */
  isPrevious: boolean
  /** True for that one as long as it may be presented again. */
  isRepeatable: boolean
}

/** What one refresh is about. Times are the database's. */
export type Rotation = {
  sessionId: string
  clientId: string
  /** Hashes of the token presented and of its successor. */
  hash: string
  successorHash: string
  /** The account that the session goes on in; null: as before. */
  accountId: string | null
  dpopThumbprint: string | null
}

/** A session that was refreshed, and what its holder may do now. */
export type Rotated = Pick<Grantee, 'mustChange' | 'roles'> & {
  userId: string
  accountId: string | null
  isAccountMfaRequired: boolean
  amr: string[]
  authenticatedAt: Date
  scope: string | null
  audiences: string[] | null
  tokenVersion: number
  /** Until the end of the session, however much it is used. */
  secondsLeft: number
  /** Until its end unless it is refreshed before. */
  idleSecondsLeft: number
}

/** A live session as it stands, for a further access token of it. */
export type SessionForToken = Rotated & { clientId: string; dpopThumbprint: string | null }

export type SessionLimits = { reuseIntervalSeconds: number; idleSeconds: number }

export type SessionsRepository = ReturnType<typeof createSessionsRepository>

const IS_LIVE = sql`${sessions.endedAt} is null and ${sessions.expiresAt} > now()
  and coalesce(${sessions.idleExpiresAt} > now(), true)`

/** Whether a token with this hash is the one before the current one, and may be presented again. */
const isRepeatable = (hash: string, reuseIntervalSeconds: number) =>
  sql<boolean>`coalesce(${sessions.previousRefreshHash} = ${hash} and ${reuseIntervalSeconds}::int > 0
    and ${sessions.refreshedAt} > now() - ${reuseIntervalSeconds}::int * interval '1 second', false)`

const sortKeys: Record<string, SortKey<SessionRow>> = {
  created_at: { by: sessions.id, cast: 'uuid', value: (row) => row.id },
}

/** The statements of sessions and their refresh tokens, of one environment. */
export function createSessionsRepository(
  { db, pool, prepare }: Database,
  environmentId = DEFAULT_ENVIRONMENT,
) {
  const named = (name: string): { name?: string } => (prepare ? { name } : {})
  const isOurs = eq(sessions.environmentId, environmentId)

  return {
    /**
     * Replaces the refresh token of a live session whose holder may sign in, in one indexed statement; undefined when
     * the token is not the current one nor, within the interval, the one before, or the request does not fit. Of
     * concurrent requests the first writes, the others wait for its row and find its work done.
     */
    async rotate(rotation: Rotation, limits: SessionLimits): Promise<Rotated | undefined> {
      const { sessionId, clientId, hash, successorHash, accountId, dpopThumbprint } = rotation
      const { rows } = await pool.query<Rotated>({
        text: ROTATE,
        values: [
          ...[limits.reuseIntervalSeconds, limits.idleSeconds],
          ...[sessionId, clientId, hash, successorHash, accountId, dpopThumbprint],
        ],
        ...named('rotate_refresh_token'),
      })
      return rows[0]
    },

    /**
     * The same for several sessions, in one statement, which passes over those whose row somebody else holds.
     * @returns those that were refreshed, by session
     */
    async rotateMany(
      rotations: readonly Rotation[],
      limits: SessionLimits,
    ): Promise<ReadonlyMap<string, Rotated>> {
      const { rows } = await pool.query<Rotated & { sessionId: string }>({
        text: ROTATE_MANY,
        values: [
          ...[limits.reuseIntervalSeconds, limits.idleSeconds],
          rotations.map(({ sessionId }) => sessionId),
          rotations.map(({ clientId }) => clientId),
          rotations.map(({ hash }) => hash),
          rotations.map(({ successorHash }) => successorHash),
          rotations.map(({ accountId }) => accountId),
          rotations.map(({ dpopThumbprint }) => dpopThumbprint),
        ],
        ...named('rotate_refresh_tokens'),
      })
      return new Map(rows.map((row) => [row.sessionId, row]))
    },

    /** A live session that can be refreshed, and what a token with this hash is to it. */
    async findByToken(
      id: string,
      hash: string,
      reuseIntervalSeconds: number,
    ): Promise<SessionOfToken | undefined> {
      const [row] = await db
        .select({
          id: sessions.id,
          userId: sessions.userId,
          accountId: sessions.accountId,
          clientId: sessions.clientId,
          scope: sessions.scope,
          audiences: sessions.audiences,
          dpopThumbprint: sessions.dpopThumbprint,
          createdAt: sessions.createdAt,
          expiresAt: sql`least(${sessions.expiresAt}, ${sessions.idleExpiresAt})`.mapWith(sessions.expiresAt),
          isCurrent: sql<boolean>`${sessions.refreshHash} = ${hash}`,
          isPrevious: sql<boolean>`coalesce(${sessions.previousRefreshHash} = ${hash}, false)`,
          isRepeatable: isRepeatable(hash, reuseIntervalSeconds),
        })
        .from(sessions)
        .where(and(eq(sessions.id, id), sql`${sessions.refreshHash} is not null`, IS_LIVE))
      return row
    },

    /** The live sessions of somebody. */
    async listSessions(userId: string, request: PageRequest): Promise<Page<SessionRow>> {
      const clauses = pageClauses(request, sortKeys, sessions.id)
      const matching = and(isOurs, eq(sessions.userId, userId), IS_LIVE)
      const page = clauses.toPage(
        await db
          .select({
            id: sessions.id,
            userId: sessions.userId,
            accountId: sessions.accountId,
            clientId: sessions.clientId,
            userAgent: sessions.userAgent,
            address: sessions.address,
            createdAt: sessions.createdAt,
            lastUsedAt: sql`coalesce(${sessions.refreshedAt}, ${sessions.createdAt})`.mapWith(
              sessions.createdAt,
            ),
            expiresAt: sql`least(${sessions.expiresAt}, ${sessions.idleExpiresAt})`.mapWith(
              sessions.expiresAt,
            ),
          })
          .from(sessions)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(sessions, matching) } : page
    },

    /** Whose session it is; live ones only. */
    async findHolderId(id: string, ex: Executor = db): Promise<string | undefined> {
      const [row] = await ex
        .select({ userId: sessions.userId })
        .from(sessions)
        .where(and(isOurs, eq(sessions.id, id), IS_LIVE))
      return row?.userId
    },

    /** How the holder of a live session was authenticated, and how long ago. */
    async findAuthentication(
      id: string,
      ex: Executor = db,
    ): Promise<{ amr: string[]; ageSeconds: number } | undefined> {
      const [row] = await ex
        .select({
          amr: sessions.amr,
          ageSeconds: sql<number>`extract(epoch from now() - ${sessions.authenticatedAt})::float8`,
        })
        .from(sessions)
        .where(and(isOurs, eq(sessions.id, id), IS_LIVE))
      return row
    },

    /** Notes that the holder of a live session has shown these factors just now, beside those shown before. */
    async reauthenticate(id: string, methods: readonly string[], tx: Tx): Promise<boolean> {
      const renewed = await tx
        .update(sessions)
        .set({
          amr: sql`array(select distinct unnest(${sessions.amr} || ${sql.param([...methods])}::text[]))`,
          authenticatedAt: sql`now()`,
        })
        .where(and(isOurs, eq(sessions.id, id), IS_LIVE))
        .returning({ id: sessions.id })
      return renewed.length === 1
    },

    /** What an access token of a live session may say now, as a refresh would find it. */
    async findForToken(id: string): Promise<SessionForToken | undefined> {
      const { rows } = await pool.query<SessionForToken>(
        `select s.client_id as "clientId", s.dpop_thumbprint as "dpopThumbprint", ${GRANTED}
        from sessions s join users on users.id = s.user_id
        where s.id = $1 and s.ended_at is null and s.expires_at > now() and s.idle_expires_at > now()`,
        [id],
      )
      return rows[0]
    },

    /** Ends a live session; returns whose it was. */
    async endSession(id: string, reason: EndReason, tx: Tx): Promise<Ended | undefined> {
      const [ended] = await tx
        .update(sessions)
        .set(end(reason))
        .where(and(isOurs, eq(sessions.id, id), IS_LIVE))
        .returning({ id: sessions.id, userId: sessions.userId, accountId: sessions.accountId })
      return ended
    },

    /** Ends a live session that a token was presented for which is older than those that may be presented. */
    async endReused(
      { sessionId, hash }: Pick<Rotation, 'sessionId' | 'hash'>,
      reuseIntervalSeconds: number,
      tx: Tx,
    ): Promise<Ended | undefined> {
      const mayCome = sql`${sessions.refreshHash} = ${hash} or ${isRepeatable(hash, reuseIntervalSeconds)}`
      const [ended] = await tx
        .update(sessions)
        .set(end('refresh_token_reused'))
        .where(and(isOurs, eq(sessions.id, sessionId), IS_LIVE, sql`not (${mayCome})`))
        .returning({ id: sessions.id, userId: sessions.userId, accountId: sessions.accountId })
      return ended
    },

    /** Ends every session of somebody but `except`; returns how many lived. */
    async endSessionsOf(userId: string, reason: EndReason, tx: Tx, except?: string): Promise<number> {
      const ended = await tx
        .update(sessions)
        .set(end(reason))
        .where(
          and(
            isOurs,
            eq(sessions.userId, userId),
            IS_LIVE,
            except === undefined ? undefined : ne(sessions.id, except),
          ),
        )
      return ended.rowCount ?? 0
    },

    /** Ends the next `most` live sessions in the order of ids, whoever's they are, but `except`. */
    async endNext(
      { after, most, except }: { after: string; most: number; except?: string },
      reason: EndReason,
      tx: Tx,
    ): Promise<EndedSome> {
      const isMeant = and(isOurs, IS_LIVE, except === undefined ? undefined : ne(sessions.id, except))
      const next = await tx
        .select({ id: sessions.id })
        .from(sessions)
        .where(and(isMeant, gt(sessions.id, after)))
        .orderBy(sessions.id)
        .limit(most)
      const ids = next.map(({ id }) => id)
      const ended = await tx
        .update(sessions)
        .set(end(reason))
        .where(and(isMeant, inArray(sessions.id, ids)))
      return { count: ended.rowCount ?? 0, last: ids.length < most ? undefined : ids.at(-1) }
    },

    /**
     * Removes sessions that decide nothing any more: no access token of theirs can live. One that was only not used any more
     * stays until its longest life is over: each refresh changes that time, and an index of it would make refreshes slower.
     * @returns how many went
     */
    async prune(signal?: AbortSignal): Promise<number> {
      return await prune(
        db,
        sessions,
        sql`least(${sessions.expiresAt}, ${sessions.endedAt}) < now() - interval '1 day'`,
        signal,
      )
    },
  }
}

/** A session that was ended just now. */
export type Ended = Pick<SessionRow, 'id' | 'userId' | 'accountId'>

/** How many sessions were ended, and the id to go on after; `undefined` when there are no more. */
export type EndedSome = { count: number; last: string | undefined }

const end = (reason: EndReason) => ({ endedAt: sql`now()`, endReason: reason })

/** What the tokens of the session `s` of `users` may say now. */
const GRANTED = `s.user_id as "userId", s.account_id as "accountId", s.scope, s.audiences,
    s.amr, s.authenticated_at as "authenticatedAt",
    coalesce((select a.is_mfa_required from accounts a where a.id = s.account_id), false) as "isAccountMfaRequired",
    users.token_version as "tokenVersion",
    coalesce((select must_change from user_credentials c where c.user_id = users.id), false) as "mustChange",
    floor(extract(epoch from s.expires_at - now()))::int as "secondsLeft",
    floor(extract(epoch from s.idle_expires_at - now()))::int as "idleSecondsLeft",
    ${HELD_ROLES} as roles`

// Written out and prepared by name, because planning it anew costs more than it does. What it sets is the same for the
// current token and for the one before; only the times differ. A public client, and no other has sessions yet, is bound
// to the key that it proves first (RFC 9449 §5).
const rotation = (asked: string): string => `
  update sessions s set
    account_id = coalesce(x.account_id, s.account_id),
    refresh_hash = x.successor_hash,
    previous_refresh_hash = x.hash,
    dpop_thumbprint = coalesce(s.dpop_thumbprint, x.dpop_thumbprint),
    refreshed_at = case when s.refresh_hash = x.hash then now() else s.refreshed_at end,
    idle_expires_at = case when s.refresh_hash = x.hash
      then least(now() + $2::int * interval '1 second', s.expires_at) else s.idle_expires_at end
  from ${asked}, users
  where s.id = x.id and s.client_id = x.client_id
    and (s.refresh_hash = x.hash
      or s.previous_refresh_hash = x.hash and s.refresh_hash = x.successor_hash
        and $1::int > 0 and s.refreshed_at > now() - $1::int * interval '1 second')
    and s.ended_at is null and s.expires_at > now() and s.idle_expires_at > now()
    and (s.dpop_thumbprint is null or s.dpop_thumbprint = x.dpop_thumbprint)
    and users.id = s.user_id and users.is_active and users.deleted_at is null
    and (coalesce(x.account_id, s.account_id) is null or exists (
      select from account_members m join accounts a on a.id = m.account_id
      where m.account_id = coalesce(x.account_id, s.account_id) and m.user_id = s.user_id and m.status = 'active'
        and a.is_active and a.deleted_at is null))
  returning s.id as "sessionId", ${GRANTED}`

const ROTATE =
  rotation(`(select $3::uuid as id, $4::text as client_id, $5::text as hash, $6::text as successor_hash,
    $7::uuid as account_id, $8::text as dpop_thumbprint) x`)

// What waits for no lock holds nobody up, and is in no deadlock.
const ROTATE_MANY = `
  with asked as materialized (
    select * from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[])
      as x (id, client_id, hash, successor_hash, account_id, dpop_thumbprint)),
  free as materialized (
    select s.id from sessions s join asked x on x.id = s.id
    where s.refresh_hash = x.hash or s.previous_refresh_hash = x.hash
    for no key update of s skip locked)
  ${rotation('asked x join free using (id)')}`
