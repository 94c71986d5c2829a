import { and, eq, ne, sql } from 'drizzle-orm'
import type { Grantee } from '../auth/grants.ts'
import { HELD_ROLES } from '../auth/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { sessions } from '../db/schema.ts'

/** Why a session ended, as its row says it. That of a closed account is ended by a trigger. */
export type EndReason =
  | 'signed_out'
  | 'ended_by_user'
  | 'ended_by_admin'
  | 'token_revoked'
  | 'refresh_token_reused'
  | 'password_changed'
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
  /** Null: this service. */
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
export type Rotated = Grantee & {
  userId: string
  accountId: string | null
  scope: string | null
  audiences: string[] | null
  tokenVersion: number
  /** Until the end of the session, however much it is used. */
  secondsLeft: number
  /** Until its end unless it is refreshed before. */
  idleSecondsLeft: number
}

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
      const { rows } = await pool.query<Rotated>({
        ...named('rotate_refresh_token'),
        text: ROTATE,
        values: [
          ...[rotation.sessionId, rotation.clientId, rotation.hash, rotation.successorHash],
          ...[limits.reuseIntervalSeconds, rotation.accountId, limits.idleSeconds, rotation.dpopThumbprint],
        ],
      })
      return rows[0]
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

    /** Removes sessions that decide nothing any more: no access token of theirs can live. Returns how many went. */
    async prune(): Promise<number> {
      const gone = await db
        .delete(sessions)
        .where(
          sql`least(${sessions.expiresAt}, ${sessions.idleExpiresAt}, ${sessions.endedAt}) < now() - interval '1 day'`,
        )
      return gone.rowCount ?? 0
    },
  }
}

/** A session that was ended just now. */
export type Ended = Pick<SessionRow, 'id' | 'userId' | 'accountId'>

const end = (reason: EndReason) => ({ endedAt: sql`now()`, endReason: reason })

// Written out and prepared by name, because planning it anew costs more than it does. What it sets is the same for the
// current token and for the one before; only the times differ. A public client, and no other has sessions yet, is bound
// to the key that it proves first (RFC 9449 §5).
const ROTATE = `
  update sessions s set
    account_id = coalesce($6::uuid, s.account_id),
    refresh_hash = $4,
    previous_refresh_hash = $3,
    dpop_thumbprint = coalesce(s.dpop_thumbprint, $8),
    refreshed_at = case when s.refresh_hash = $3 then now() else s.refreshed_at end,
    idle_expires_at = case when s.refresh_hash = $3
      then least(now() + $7::int * interval '1 second', s.expires_at) else s.idle_expires_at end
  from users
  where s.id = $1 and s.client_id = $2
    and (s.refresh_hash = $3
      or s.previous_refresh_hash = $3 and s.refresh_hash = $4
        and $5::int > 0 and s.refreshed_at > now() - $5::int * interval '1 second')
    and s.ended_at is null and s.expires_at > now() and s.idle_expires_at > now()
    and (s.dpop_thumbprint is null or s.dpop_thumbprint = $8)
    and users.id = s.user_id and users.is_active and users.deleted_at is null
    and (coalesce($6, s.account_id) is null or exists (
      select from account_members m join accounts a on a.id = m.account_id
      where m.account_id = coalesce($6, s.account_id) and m.user_id = s.user_id and m.status = 'active'
        and a.is_active and a.deleted_at is null))
  returning s.user_id as "userId", s.account_id as "accountId", s.scope, s.audiences,
    users.token_version as "tokenVersion",
    coalesce((select must_change from user_credentials c where c.user_id = users.id), false) as "mustChange",
    floor(extract(epoch from s.expires_at - now()))::int as "secondsLeft",
    floor(extract(epoch from s.idle_expires_at - now()))::int as "idleSecondsLeft",
    ${HELD_ROLES} as roles`
