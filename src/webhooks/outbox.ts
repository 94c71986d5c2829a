import { sql } from 'drizzle-orm'
import type { Database, Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { webhookDeliveries } from '../db/schema.ts'

/** A message that is this process's to send until its lease ends. */
export type DueDelivery = {
  id: string
  webhookId: string
  subject: string
  event: string
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

export type OutboxState = { pending: number; failed: number; oldestAt: Date | undefined }

export type Outbox = ReturnType<typeof createOutbox>

/** What is to be sent, of all environments. */
export function createOutbox({ db, pool }: Database) {
  return {
    /**
     * Takes up to `perWebhook` messages of each webhook: none whose subject has an earlier one that was not delivered.
     * They are nobody else's for `leaseSeconds`.
     * @param busy webhooks that have enough under way
     */
    async claim(busy: readonly string[], perWebhook: number, leaseSeconds: number): Promise<DueDelivery[]> {
      const { rows } = await pool.query<DueDelivery>(CLAIM, [busy, perWebhook, leaseSeconds])
      return rows
    },

    async markDelivered(id: string, status: number): Promise<void> {
      await db.execute(sql`update webhook_deliveries set status = 'delivered', delivered_at = now(), last_status = ${status},
        last_error = null where id = ${id}`)
    },

    /** What waits behind it waits as long, so that nobody looks at it in vain. */
    async postpone(
      { id, webhookId, subject }: Pick<DueDelivery, 'id' | 'webhookId' | 'subject'>,
      { status, error, seconds }: { status: number | undefined; error: string; seconds: number },
    ): Promise<void> {
      await db.execute(sql`
        with failed as (
          update webhook_deliveries set last_status = ${status ?? null}::int, last_error = ${error},
            next_attempt_at = now() + ${seconds}::float8 * interval '1 second'
          where id = ${id} and status = 'pending' returning next_attempt_at, sequence)
        update webhook_deliveries d set next_attempt_at = failed.next_attempt_at from failed
        where d.webhook_id = ${webhookId} and d.subject = ${subject} and d.status = 'pending'
          and d.sequence > failed.sequence and d.next_attempt_at < failed.next_attempt_at`)
    },

    /** Gives a message up; those behind it go on. */
    async markFailed(id: string, status: number | undefined, error: string): Promise<void> {
      await db.execute(sql`
        with failed as (
          update webhook_deliveries set status = 'failed', last_status = ${status ?? null}::int, last_error = ${error}
          where id = ${id} and status = 'pending' returning webhook_id, subject)
        update webhook_deliveries d set next_attempt_at = now() from failed
        where d.webhook_id = failed.webhook_id and d.subject = failed.subject and d.status = 'pending' and d.id <> ${id}`)
    },

    /** True when nothing has reached the webhook for so many seconds, though something was sent. */
    async hasBeenDeadFor(webhookId: string, seconds: number): Promise<boolean> {
      const { rows } = await db.execute<{ is_dead: boolean }>(sql`
        select not exists (select from webhook_deliveries where webhook_id = ${webhookId}
          and delivered_at > now() - ${seconds}::float8 * interval '1 second') as is_dead`)
      return rows[0]?.is_dead ?? false
    },

    /** Switches a webhook off, and says so in the trail by `record`. Nothing when it is off already. */
    async disable(webhookId: string, reason: string, tx: Tx): Promise<boolean> {
      const { rowCount } =
        await tx.execute(sql`update webhooks set is_active = false, disabled_reason = ${reason},
        revision = revision + 1, updated_at = now() where id = ${webhookId} and is_active`)
      return (rowCount ?? 0) > 0
    },

    /** Removes what was delivered or given up 30 days ago. Returns how many went. */
    async prune(): Promise<number> {
      return await prune(
        db,
        webhookDeliveries,
        sql`status <> 'pending' and created_at < now() - interval '30 days'`,
      )
    },

    async state(): Promise<OutboxState> {
      const { rows } = await db.execute<{ pending: number; failed: number; oldest: string | null }>(sql`
        select count(*) filter (where status = 'pending')::int as pending,
          count(*) filter (where status = 'failed')::int as failed,
          min(created_at) filter (where status = 'pending') as oldest
        from webhook_deliveries d join webhooks w on w.id = d.webhook_id and w.is_active where status <> 'delivered'`)
      const [row] = rows
      return {
        pending: row?.pending ?? 0,
        failed: row?.failed ?? 0,
        oldestAt: row?.oldest ? new Date(row.oldest) : undefined,
      }
    },
  }
}

const CLAIM = `
  with due as (
    select d.id from webhooks w cross join lateral (
      select id from webhook_deliveries d
      where d.webhook_id = w.id and d.status = 'pending' and d.next_attempt_at <= now()
        and not exists (
          select from webhook_deliveries earlier
          where earlier.webhook_id = d.webhook_id and earlier.subject = d.subject and earlier.status = 'pending'
            and earlier.sequence < d.sequence)
      order by d.sequence limit $2 for update skip locked) d
    where w.is_active and w.id <> all($1::uuid[])),
  taken as (
    update webhook_deliveries d set attempts = d.attempts + 1,
      next_attempt_at = now() + $3::float8 * interval '1 second'
    from due where d.id = due.id and d.status = 'pending' and d.next_attempt_at <= now()
    returning d.*)
  select taken.id, taken.webhook_id as "webhookId", taken.subject, taken.event, taken.attempts, w.url,
    w.account_id as "accountId", w.environment_id as "environmentId", w.secret_sealed as "secretSealed",
    case when w.previous_secret_expires_at > now() then w.previous_secret_sealed end as "previousSecretSealed",
    taken.audit_event_id as "auditEventId", e.occurred_at as "occurredAt", e.actor_type as "actorType",
    e.actor_id as "actorId", e.target_type as "targetType", e.target_id as "targetId",
    e.account_id as "eventAccountId", e.details
  from taken join webhooks w on w.id = taken.webhook_id left join audit_events e on e.id = taken.audit_event_id`
