import { and, eq, type SQL, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { prune } from '../db/prune.ts'
import { environments, webhookDeliveries, webhooks } from '../db/schema.ts'

export type WebhookRow = {
  id: string
  url: string
  description: string | null
  events: string[]
  accountId: string | null
  isActive: boolean
  disabledReason: string | null
  previousSecretExpiresAt: Date | null
  /** Nothing is sent to it before, as what was sent last has failed. */
  pausedUntil: Date | null
  revision: number
  createdAt: Date
  updatedAt: Date
}

export type NewWebhook = Pick<WebhookRow, 'id' | 'url' | 'description' | 'events' | 'accountId'> & {
  secretSealed: string
}

export type WebhookChanges = Partial<
  Pick<WebhookRow, 'url' | 'description' | 'events' | 'isActive' | 'disabledReason'>
>

export type DeliveryStatus = 'pending' | 'delivered' | 'failed'

export type DeliveryRow = {
  id: string
  auditEventId: string
  event: string
  subject: string
  sequence: number
  status: DeliveryStatus
  attempts: number
  nextAttemptAt: Date
  lastStatus: number | null
  lastError: string | null
  createdAt: Date
  deliveredAt: Date | null
}

const columns = {
  id: webhooks.id,
  url: webhooks.url,
  description: webhooks.description,
  events: webhooks.events,
  accountId: webhooks.accountId,
  isActive: webhooks.isActive,
  disabledReason: webhooks.disabledReason,
  previousSecretExpiresAt: webhooks.previousSecretExpiresAt,
  pausedUntil: webhooks.pausedUntil,
  revision: webhooks.revision,
  createdAt: webhooks.createdAt,
  updatedAt: webhooks.updatedAt,
}

const deliveryColumns = {
  id: webhookDeliveries.id,
  auditEventId: webhookDeliveries.auditEventId,
  event: webhookDeliveries.event,
  subject: webhookDeliveries.subject,
  sequence: webhookDeliveries.sequence,
  status: webhookDeliveries.status,
  attempts: webhookDeliveries.attempts,
  nextAttemptAt: webhookDeliveries.nextAttemptAt,
  lastStatus: webhookDeliveries.lastStatus,
  lastError: webhookDeliveries.lastError,
  createdAt: webhookDeliveries.createdAt,
  deliveredAt: webhookDeliveries.deliveredAt,
}

const sortKeys: Record<string, SortKey<WebhookRow>> = {
  created_at: { by: webhooks.id, cast: 'uuid', value: (row) => row.id },
}
const deliverySortKeys: Record<string, SortKey<DeliveryRow>> = {
  created_at: { by: webhookDeliveries.sequence, cast: 'bigint', value: (row) => String(row.sequence) },
}

export type WebhooksRepository = ReturnType<typeof createWebhooksRepository>

/** The webhooks of one environment, and what was and will be sent to them. */
export function createWebhooksRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const own = (id: string): SQL | undefined =>
    and(eq(webhooks.environmentId, environmentId), eq(webhooks.id, id))

  const inAccount = (accountId: string | undefined): SQL | undefined =>
    and(
      eq(webhooks.environmentId, environmentId),
      accountId === undefined ? undefined : eq(webhooks.accountId, accountId),
    )

  return {
    /** @param accountId those of one account; `undefined`: all */
    async listWebhooks(accountId: string | undefined, request: PageRequest): Promise<Page<WebhookRow>> {
      const clauses = pageClauses(request, sortKeys, webhooks.id)
      const matching = inAccount(accountId)
      const page = clauses.toPage(
        await db
          .select(columns)
          .from(webhooks)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(webhooks, matching) } : page
    },

    async findWebhook(id: string, ex: Executor = db): Promise<WebhookRow | undefined> {
      const [row] = await ex.select(columns).from(webhooks).where(own(id))
      return row
    },

    /** Against other changes. Events are still put into its outbox, as they need its key alone. */
    async lockWebhook(id: string, tx: Tx): Promise<WebhookRow | undefined> {
      const [row] = await tx.select(columns).from(webhooks).where(own(id)).for('no key update')
      return row
    },

    /** Against others who add one to the environment: what is counted after it holds until the end of `tx`. */
    async lockForAdding(tx: Tx): Promise<void> {
      await tx
        .select({ id: environments.id })
        .from(environments)
        .where(eq(environments.id, environmentId))
        .for('no key update')
    },

    /** @param accountId those of one account; `undefined`: all */
    async countWebhooks(accountId: string | undefined, tx: Tx): Promise<number> {
      return await tx.$count(webhooks, inAccount(accountId))
    },

    async insertWebhook(webhook: NewWebhook, tx: Tx): Promise<void> {
      await tx.insert(webhooks).values({ ...webhook, environmentId })
    },

    async updateWebhook(id: string, changes: WebhookChanges, tx: Tx): Promise<void> {
      await tx
        .update(webhooks)
        .set({ ...changes, revision: sql`${webhooks.revision} + 1`, updatedAt: sql`now()` })
        .where(own(id))
    },

    /** Switched off, at the same revision: whoever had read it before may still delete it. */
    async switchOff(id: string, disabledReason: string, tx: Tx): Promise<void> {
      await tx.update(webhooks).set({ isActive: false, disabledReason, updatedAt: sql`now()` }).where(own(id))
    },

    /** Nothing is held against it any more: it is sent to at once. */
    async forgetFailures(id: string, tx: Tx): Promise<void> {
      await tx.update(webhooks).set({ failures: 0, failingSince: null, pausedUntil: null }).where(own(id))
    },

    /** It is tried at once. What has failed until now counts on. */
    async endPause(id: string, tx: Tx): Promise<void> {
      await tx.update(webhooks).set({ pausedUntil: null }).where(own(id))
    },

    /** The secret of now signs beside the new one until `previousUntil`. */
    async replaceSecret(id: string, secretSealed: string, previousUntil: Date, tx: Tx): Promise<void> {
      await tx
        .update(webhooks)
        .set({
          secretSealed,
          previousSecretSealed: sql`${webhooks.secretSealed}`,
          previousSecretExpiresAt: previousUntil,
          revision: sql`${webhooks.revision} + 1`,
          updatedAt: sql`now()`,
        })
        .where(own(id))
    },

    /** Removes what was and will be sent to it, in parts; what somebody else changes or removes meanwhile may stay. */
    async deleteDeliveries(webhookId: string): Promise<void> {
      for (let removed = 1; removed > 0; )
        removed = await prune(db, webhookDeliveries, eq(webhookDeliveries.webhookId, webhookId))
    },

    /** With the deliveries that are left. */
    async deleteWebhook(id: string, tx: Tx): Promise<void> {
      await tx.delete(webhooks).where(own(id))
    },

    /** The newest first, unless `request` says otherwise. */
    async listDeliveries(
      webhookId: string,
      status: DeliveryStatus | undefined,
      request: PageRequest,
    ): Promise<Page<DeliveryRow>> {
      const clauses = pageClauses(request, deliverySortKeys, webhookDeliveries.id)
      const matching = and(
        eq(webhookDeliveries.webhookId, webhookId),
        status === undefined ? undefined : eq(webhookDeliveries.status, status),
      )
      const page = clauses.toPage(
        await db
          .select(deliveryColumns)
          .from(webhookDeliveries)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(webhookDeliveries, matching) } : page
    },

    /** Sends it again, as the first try of a new message about the same event. `undefined` when there is none. */
    async redeliver(webhookId: string, deliveryId: string, tx: Tx): Promise<DeliveryRow | undefined> {
      const [row] = await tx
        .update(webhookDeliveries)
        .set({ status: 'pending', attempts: 0, nextAttemptAt: sql`now()`, deliveredAt: null })
        .where(and(eq(webhookDeliveries.webhookId, webhookId), eq(webhookDeliveries.id, deliveryId)))
        .returning(deliveryColumns)
      return row
    },

    /** A message that was not caused by an event of its own, to be sent at once. */
    async insertDelivery(
      delivery: Pick<DeliveryRow, 'id' | 'auditEventId' | 'event' | 'subject'> & { webhookId: string },
      tx: Tx,
    ): Promise<DeliveryRow> {
      const [row] = await tx.insert(webhookDeliveries).values(delivery).returning(deliveryColumns)
      if (!row) throw new Error('the delivery was not written')
      return row
    },
  }
}
