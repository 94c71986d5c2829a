import { setTimeout as sleep } from 'node:timers/promises'
import type { AuditAction } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import { SYSTEM } from '../principal.ts'
import type { Vault } from '../vault.ts'
import type { Addresses } from './addresses.ts'
import { type Answer, post } from './delivery.ts'
import { TEST_EVENT } from './events.ts'
import type { DueDelivery, Outbox } from './outbox.ts'
import { signatureHeaders } from './signature.ts'

/** How long to wait after each failed try, in seconds: three days in all (Standard Webhooks, "Retry schedule"). */
const WAITS_SECONDS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
/** A webhook that nothing has reached for so long while something was given up is switched off. */
const DEAD_AFTER_SECONDS = 3 * 86_400

const POLL_MS = 1000
const TIMEOUT_MS = 10_000
/** Longer than any try takes: whoever took a message and has not answered by then was killed. */
const LEASE_SECONDS = 30
const AT_ONCE_PER_WEBHOOK = 4
const AT_ONCE = 32
/** RFC 9110 §15.5.11: the receiver is there no more, and will not be. */
const GONE = 410

type Dependencies = {
  database: Database
  outbox: Outbox
  auditOf: (environmentId: string) => Pick<AuditRepository, 'append'>
  vault: Vault
  addresses: Addresses
  clock: Clock
  onDelivery: (outcome: 'delivered' | 'retried' | 'failed') => void
  onWarning: (details: Record<string, unknown>, message: string) => void
}

/**
 * Sends what the outbox holds: those of one subject one after the other, at least once. Any number of processes may do
 * so at once.
 */
export function createWebhookSender(dependencies: Dependencies) {
  const { database, outbox, auditOf, vault, addresses, clock, onDelivery, onWarning } = dependencies
  const stopping = new AbortController()
  const underWay = new Map<string, number>()
  const sending = new Set<Promise<void>>()
  let polling: Promise<void> | undefined

  async function send(delivery: DueDelivery): Promise<void> {
    const body = bodyOf(delivery)
    if (body === undefined)
      return await giveUp(delivery, undefined, 'the event is not in the audit trail any more')
    const secrets = secretsOf(delivery)
    if (secrets === undefined) {
      onWarning(
        { webhook: delivery.webhookId },
        'the secret of a webhook was sealed under another SECRET_KEY',
      )
      return await retry(delivery, { status: undefined, error: 'the secret cannot be opened' })
    }
    const answer = await post(
      delivery.url,
      body,
      signatureHeaders(delivery.auditEventId, clock.now(), body, secrets),
      {
        addresses,
        timeoutMs: TIMEOUT_MS,
        signal: stopping.signal,
      },
    )
    if (stopping.signal.aborted && answer.status === undefined) return
    if (answer.status !== undefined && answer.status >= 200 && answer.status < 300) {
      await outbox.markDelivered(delivery.id, answer.status)
      onDelivery('delivered')
    } else if (answer.status === GONE) {
      await giveUp(delivery, GONE, 'the receiver says that it is gone')
      await disable(delivery, 'The receiver answered 410 Gone')
    } else await retry(delivery, answer)
  }

  async function retry(delivery: DueDelivery, { status, error }: Answer): Promise<void> {
    const wait = WAITS_SECONDS[delivery.attempts - 1]
    const reason = error ?? `the receiver answered ${status}`
    if (wait === undefined) {
      await giveUp(delivery, status, reason)
      if (await outbox.hasBeenDeadFor(delivery.webhookId, DEAD_AFTER_SECONDS))
        await disable(delivery, 'Nothing has reached it for three days')
      return
    }
    // A tenth more or less, so that what failed together does not come back together.
    await outbox.postpone(delivery, { status, error: reason, seconds: wait * (0.9 + Math.random() * 0.2) })
    onDelivery('retried')
  }

  async function giveUp(delivery: DueDelivery, status: number | undefined, error: string): Promise<void> {
    await outbox.markFailed(delivery.id, status, error)
    onDelivery('failed')
  }

  async function disable(
    { webhookId, environmentId, accountId }: DueDelivery,
    reason: string,
  ): Promise<void> {
    await transact(database.db, async (tx) => {
      if (!(await outbox.disable(webhookId, reason, tx))) return
      await auditOf(environmentId).append(
        {
          action: 'webhook.disabled',
          caller: SYSTEM,
          target: { type: 'webhook', id: webhookId },
          accountId,
          details: { reason },
        },
        tx,
      )
    })
    onWarning({ webhook: webhookId, reason }, 'a webhook was switched off')
  }

  function secretsOf({ secretSealed, previousSecretSealed }: DueDelivery): string[] | undefined {
    const secret = vault.open('webhooks', secretSealed)
    if (secret === undefined) return undefined
    const previous = previousSecretSealed === null ? undefined : vault.open('webhooks', previousSecretSealed)
    return previous === undefined ? [secret] : [secret, previous]
  }

  /** Takes what is due and begins to send it. @returns how many were taken */
  async function takeDue(): Promise<number> {
    const busy = [...underWay].filter(([, count]) => count >= AT_ONCE_PER_WEBHOOK).map(([id]) => id)
    if (sending.size >= AT_ONCE) return 0
    const due = await outbox.claim(busy, AT_ONCE_PER_WEBHOOK, LEASE_SECONDS)
    for (const delivery of due) {
      const { webhookId } = delivery
      underWay.set(webhookId, (underWay.get(webhookId) ?? 0) + 1)
      const sent: Promise<void> = send(delivery)
        .catch((error: unknown) =>
          onWarning({ err: error, webhook: webhookId }, 'a webhook could not be sent'),
        )
        .finally(() => {
          sending.delete(sent)
          const left = (underWay.get(webhookId) ?? 1) - 1
          if (left > 0) underWay.set(webhookId, left)
          else underWay.delete(webhookId)
        })
      sending.add(sent)
    }
    return due.length
  }

  async function poll(): Promise<void> {
    const { signal } = stopping
    while (!signal.aborted) {
      const taken = await takeDue().catch((error: unknown) => {
        onWarning({ err: error }, 'webhooks could not be read; it is tried again')
        return 0
      })
      // While there is more, the next follows as soon as one of these is done.
      if (taken > 0) await Promise.race(sending)
      else await sleep(POLL_MS, undefined, { signal }).catch(() => {})
    }
  }

  return {
    /** Sends from now on. */
    start(): void {
      polling = poll()
    },

    /** Takes no more; what is under way is sent again by whoever comes after. */
    async stop(): Promise<void> {
      stopping.abort()
      await polling
      await Promise.all(sending)
    },

    /** Sends what is due, once, and returns. */
    async sendDue(): Promise<void> {
      do await Promise.all(sending)
      while ((await takeDue()) > 0)
    },
  }
}

/** What a receiver reads. Ids and the names of fields, nothing personal: the API tells the rest to whoever may ask. */
function bodyOf(delivery: DueDelivery): string | undefined {
  const { event, auditEventId, environmentId, occurredAt } = delivery
  if (event === TEST_EVENT) {
    return JSON.stringify({
      id: auditEventId,
      type: event,
      timestamp: new Date().toISOString(),
      environment_id: environmentId,
      data: {},
    })
  }
  if (occurredAt === null) return undefined
  return JSON.stringify({
    id: auditEventId,
    type: event as AuditAction,
    timestamp: new Date(occurredAt).toISOString(),
    environment_id: environmentId,
    account_id: delivery.eventAccountId,
    actor: { type: delivery.actorType, id: delivery.actorId },
    subject: delivery.targetType === null ? null : { type: delivery.targetType, id: delivery.targetId },
    data: delivery.details ?? {},
  })
}
