import { and, asc, eq, type SQL, sql } from 'drizzle-orm'
import type { Database, Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { webhookDeliveries, webhooks } from '../db/schema.ts'

/** A message that is this process's to send until its lease ends. */
export type DueDelivery = {
  id: string
  /** The end of the lease. As long as the database holds it, nobody else has taken the message since. */
  leasedUntil: Date
  webhookId: string
  subject: string
  event: string
  /** How many tries there were before. */
  attempts: number
  url: string
  accountId: string | null
  environmentId: string
  secretSealed: string
  previousSecretSealed: string | null
  auditEventId: string
  /** Null when the audit trail does not hold it any more. */
  occurredAt: Date | null
  actorType: string | null
  actorId: string | null
  targetType: string | null
  targetId: string | null
  eventAccountId: string | null
  details: Record<string, unknown> | null
}

/** Where to send, and what signs. */
export type Target = Pick<DueDelivery, 'url' | 'secretSealed' | 'previousSecretSealed'>

/** The secrets of a webhook, as the database holds them. */
export type SealedSecrets = { id: string; sealed: string; previous: string | null }

export type OutboxState = { pending: number; failed: number; oldestAt: Date | undefined }

/** How a webhook stands after a failure. */
export type Failing = {
  /** How many tries have failed since one succeeded. */
  failures: number
  /** Whether nothing is sent to it for now. */
  isPaused: boolean
  /** Whether nothing has reached it for so long that nothing will. */
  isDead: boolean
}

type Taken = DueDelivery & { isBehind: false }
type Behind = { id: string; isBehind: true; dueAt: string }

/** So many failures in a row pause a webhook: for half a minute, and twice as long after each further one, up to an hour. */
export const FAILURES_BEFORE_PAUSE = 5
const FIRST_PAUSE_SECONDS = 30
const LONGEST_PAUSE_SECONDS = 3600
/** A webhook that nothing has reached for so long is switched off. */
const DEAD_AFTER_DAYS = 3

export type Outbox = ReturnType<typeof createOutbox>

/** What is to be sent, and the secrets that sign it, of all environments. */
export function createOutbox({ db, pool }: Database) {
  return {
    /**
     * Takes messages that are due, of each webhook the longest due first; they are nobody else's for `leaseSeconds`. Looks
     * at up to `perWebhook` of each webhook, and at about `inAll` of all, which webhooks share alike. What has an earlier
     * one of the same subject before it is not taken and not looked at again until that one's next try or end. One message
     * of a webhook that was paused is taken, to see whether it answers again.
     * @param busy webhooks that have enough under way
     */
    async claim(
      busy: readonly string[],
      { perWebhook, inAll, leaseSeconds }: { perWebhook: number; inAll: number; leaseSeconds: number },
    ): Promise<DueDelivery[]> {
      // Further where nothing could be taken: thousands may be about one subject.
      for (let looked = perWebhook; ; looked = Math.min(4 * looked, inAll)) {
        const { rows } = await pool.query<Taken | Behind>(CLAIM, [busy, looked, inAll, leaseSeconds])
        const behind = rows.filter((row) => row.isBehind)
        if (behind.length > 0) {
          const seen = [behind.map(({ id }) => id), behind.map(({ dueAt }) => dueAt)]
          await pool.query(SET_ASIDE, [...seen, leaseSeconds])
        }
        const taken = rows.filter((row) => !row.isBehind)
        if (taken.length > 0 || behind.length === 0) return taken
      }
    },

    /** How the webhook stands now; `undefined` when nothing is to be sent to it. */
    async targetOf(webhookId: string): Promise<Target | undefined> {
      const { rows } = await pool.query<Target>(TARGET, [webhookId])
      return rows[0]
    },

    /** Gives back what was taken and not sent, unless somebody else has taken it since. */
    async release(deliveries: readonly DueDelivery[]): Promise<void> {
      if (deliveries.length === 0) return
      const ids = sql.param(deliveries.map(({ id }) => id))
      const leases = sql.param(deliveries.map(({ leasedUntil }) => leasedUntil.toISOString()))
      await db.execute(sql`update webhook_deliveries d set next_attempt_at = ${NOW}
        from unnest(${ids}::uuid[], ${leases}::timestamptz[]) as taken (id, leased_until)
        where d.id = taken.id and d.next_attempt_at = taken.leased_until and d.status = 'pending'`)
    },

    /** Leaves a message alone for a while, without counting a try. */
    async putOff(
      { id, leasedUntil }: DueDelivery,
      { error, seconds }: { error: string; seconds: number },
    ): Promise<void> {
      await db.execute(sql`
        update webhook_deliveries set last_error = ${error},
          next_attempt_at = now() + ${seconds}::float8 * interval '1 second'
        where id = ${id} and next_attempt_at = ${leasedUntil.toISOString()} and status = 'pending'`)
    },

    /** Those behind it go on, and nothing is held against its webhook any more. */
    async markDelivered({ id, webhookId }: DueDelivery, status: number): Promise<void> {
      await db.execute(
        endOf(
          id,
          sql`status = 'delivered', delivered_at = now(), attempts = attempts + 1, last_status = ${status},
            last_error = null`,
        ),
      )
      await db.execute(sql`update webhooks set failures = 0, failing_since = null, paused_until = null
        where id = ${webhookId} and failures > 0`)
    },

    /** Counts a try that failed. */
    async postpone(
      { id, leasedUntil }: DueDelivery,
      { status, error, seconds }: { status: number | undefined; error: string; seconds: number },
    ): Promise<void> {
      await db.execute(sql`
        update webhook_deliveries set attempts = attempts + 1, last_status = ${status ?? null}::int,
          last_error = ${error}, next_attempt_at = now() + ${seconds}::float8 * interval '1 second'
        where id = ${id} and next_attempt_at = ${leasedUntil.toISOString()} and status = 'pending'`)
    },

    /** Gives a message up; those behind it go on. */
    async markFailed({ id }: DueDelivery, status: number | undefined, error: string): Promise<void> {
      await db.execute(
        endOf(
          id,
          sql`status = 'failed', attempts = attempts + 1, last_status = ${status ?? null}::int,
            last_error = ${error}`,
        ),
      )
    },

    /** Counts a failure; `undefined` for one that was under way when the pause began. */
    async noteFailure(webhookId: string): Promise<Failing | undefined> {
      const doublings = sql`least(failures + 1 - ${FAILURES_BEFORE_PAUSE}::int, 10)`
      const { rows } = await db.execute<Failing>(sql`
        update webhooks set failures = failures + 1, failing_since = coalesce(failing_since, now()),
          paused_until = case when failures + 1 >= ${FAILURES_BEFORE_PAUSE}::int then now() + interval '1 second'
            * least(${LONGEST_PAUSE_SECONDS}::int, ${FIRST_PAUSE_SECONDS}::int * 2 ^ ${doublings}) end
        where id = ${webhookId} and coalesce(paused_until <= now(), true)
        returning failures, paused_until is not null as "isPaused",
          failing_since < now() - make_interval(days => ${DEAD_AFTER_DAYS}::int) as "isDead"`)
      return rows[0]
    },

    /** Switches a webhook off, and says so in the trail by `record`. Nothing when it is off already. */
    async disable(webhookId: string, reason: string, tx: Tx): Promise<boolean> {
      const { rowCount } =
        await tx.execute(sql`update webhooks set is_active = false, disabled_reason = ${reason},
        revision = revision + 1, updated_at = now() where id = ${webhookId} and is_active`)
      return (rowCount ?? 0) > 0
    },

    /**
     * Removes what was delivered or given up 30 days ago, and what has waited for so long for a webhook that is switched
     * off. Returns how many went.
     */
    async prune(signal?: AbortSignal): Promise<number> {
      return await prune(
        db,
        webhookDeliveries,
        sql`created_at < now() - interval '30 days'
          and (status <> 'pending' or webhook_id in (select id from webhooks where not is_active))`,
        signal,
      )
    },

    /** Every sealed secret, to be sealed anew. */
    async listSecrets(tx: Tx): Promise<SealedSecrets[]> {
      return await tx
        .select({ id: webhooks.id, sealed: webhooks.secretSealed, previous: webhooks.previousSecretSealed })
        .from(webhooks)
        .orderBy(asc(webhooks.id))
    },

    /** Replaces the seals, unless a secret was rotated since `before` was read. */
    async storeSecrets(
      before: SealedSecrets,
      { sealed, previous }: Omit<SealedSecrets, 'id'>,
      tx: Tx,
    ): Promise<void> {
      await tx
        .update(webhooks)
        .set({ secretSealed: sealed, previousSecretSealed: previous })
        .where(
          and(
            eq(webhooks.id, before.id),
            eq(webhooks.secretSealed, before.sealed),
            sql`${webhooks.previousSecretSealed} is not distinct from ${before.previous}`,
          ),
        )
    },

    /** How many messages wait for webhooks that are on, since when the oldest does, and how many were given up. */
    async state(): Promise<OutboxState> {
      const { rows } = await db.execute<{ pending: number; failed: number; oldest: string | null }>(sql`
        select count(*)::int as pending, min(d.created_at) as oldest,
          (select count(*)::int from webhook_deliveries f join webhooks w on w.id = f.webhook_id and w.is_active
            where f.status = 'failed') as failed
        from webhook_deliveries d join webhooks w on w.id = d.webhook_id and w.is_active where d.status = 'pending'`)
      const [row] = rows
      return {
        pending: row?.pending ?? 0,
        failed: row?.failed ?? 0,
        oldestAt: row?.oldest ? new Date(row.oldest) : undefined,
      }
    },
  }
}

/** The columns round to milliseconds: `now()` may be stored as a moment that is still to come. */
const NOW = sql`date_trunc('milliseconds', now())`

/** Ends the message, and has the next one of its subject sent: the last word, where others set that one aside just now. */
const endOf = (id: string, set: SQL): SQL => sql`
  with ended as (
    update webhook_deliveries set ${set} where id = ${id} and status = 'pending' returning webhook_id, subject)
  update webhook_deliveries d set next_attempt_at = ${NOW} from ended
  where d.id = (
    select next.id from webhook_deliveries next
    where next.webhook_id = ended.webhook_id and next.subject = ended.subject and next.status = 'pending'
      and next.id <> ${id}
    order by next.sequence limit 1)`

const IS_SENT_TO = `w.is_active and coalesce(w.paused_until <= now(), true)`
const PREVIOUS_SECRET = `case when w.previous_secret_expires_at > now() then w.previous_secret_sealed end`

const TARGET = `
  select w.url, w.secret_sealed as "secretSealed", ${PREVIOUS_SECRET} as "previousSecretSealed"
  from webhooks w where w.id = $1::uuid and ${IS_SENT_TO}`

// Each webhook's messages are read in the order of the index on what is due, so that what a backlog costs is what is
// taken of it. In random order, so that each has its turn where there are too many.
export const CLAIM = `
  with due as materialized (
    select w.id, w.failures from webhooks w cross join lateral (
      select from webhook_deliveries
      where webhook_id = w.id and status = 'pending' and next_attempt_at <= now()
      order by next_attempt_at, sequence limit 1) d
    where ${IS_SENT_TO} and w.id <> all($1::uuid[])
    order by random() limit $3::int),
  share as (select greatest(1, $3::int / greatest(1, count(*))) as size from due),
  seen as materialized (
    select d.id, d.webhook_id, d.sequence, d.next_attempt_at as due_at, w.failures, exists (
        select from webhook_deliveries earlier
        where earlier.webhook_id = w.id and earlier.subject = d.subject and earlier.status = 'pending'
          and earlier.sequence < d.sequence) as is_behind
    from due w cross join share cross join lateral (
      select * from (
        select id, webhook_id, subject, sequence, next_attempt_at from webhook_deliveries
        where webhook_id = w.id and status = 'pending' and next_attempt_at <= now()
        order by next_attempt_at, sequence limit share.size for update skip locked) shared
      limit $2::int) d),
  looked as (
    select *, row_number() over (partition by webhook_id, is_behind order by due_at, sequence) as place from seen),
  taken as (
    update webhook_deliveries d set next_attempt_at = now() + $4::float8 * interval '1 second'
    from looked where d.id = looked.id and not looked.is_behind
      and (looked.failures < ${FAILURES_BEFORE_PAUSE} or looked.place = 1)
    returning d.*)
  select looked.id, looked.is_behind as "isBehind", looked.due_at::text as "dueAt",
    taken.next_attempt_at as "leasedUntil", taken.webhook_id as "webhookId", taken.subject, taken.event, taken.attempts, w.url,
    w.account_id as "accountId", w.environment_id as "environmentId", w.secret_sealed as "secretSealed",
    ${PREVIOUS_SECRET} as "previousSecretSealed",
    taken.audit_event_id as "auditEventId", e.occurred_at as "occurredAt", e.actor_type as "actorType",
    e.actor_id as "actorId", e.target_type as "targetType", e.target_id as "targetId",
    e.account_id as "eventAccountId", e.details
  from looked left join taken on taken.id = looked.id left join webhooks w on w.id = taken.webhook_id
    left join audit_events e on e.id = taken.audit_event_id
  where looked.is_behind or taken.id is not null`

// Not what was changed since it was seen: the one before it may have come to its end. In a transaction of its own, which
// sees that end.
const SET_ASIDE = `
  with behind as (
    select d.id, earlier.next_attempt_at
    from unnest($1::uuid[], $2::timestamptz[]) as seen (id, due_at)
    join webhook_deliveries d on d.id = seen.id and d.next_attempt_at = seen.due_at and d.status = 'pending'
    cross join lateral (
      select next_attempt_at from webhook_deliveries earlier
      where earlier.webhook_id = d.webhook_id and earlier.subject = d.subject and earlier.status = 'pending'
        and earlier.sequence < d.sequence
      order by earlier.sequence limit 1) earlier
    order by d.id for update of d skip locked)
  update webhook_deliveries d
    set next_attempt_at = greatest(behind.next_attempt_at, now() + $3::float8 * interval '1 second')
  from behind where d.id = behind.id`
