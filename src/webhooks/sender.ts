import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AuditAction } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { SYSTEM } from '../principal.ts'
import type { Vault } from '../vault.ts'
import type { Addresses } from './addresses.ts'
import { type Answer, post } from './delivery.ts'
import { TEST_EVENT } from './events.ts'
import { type DueDelivery, FAILURES_BEFORE_PAUSE, type Outbox } from './outbox.ts'
import { signatureHeaders } from './signature.ts'

/** How long to wait after each failed try, in seconds: three days in all (Standard Webhooks, "Retry schedule"). */
const WAITS_SECONDS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]

const POLL_MS = 1000
const TIMEOUT_MS = 10_000
const AT_ONCE_PER_WEBHOOK = 4
const AT_ONCE = 32
/** An account has all of its webhooks send so many; one that hears of every account counts as an account of its own. */
const AT_ONCE_PER_ACCOUNT = 8
/** Places that only an account takes that has nothing under way: a few slow ones do not fill all. */
const KEPT_FOR_OTHERS = 8
/** What is taken beforehand, to be sent as the ones before it are done. */
const HELD_PER_WEBHOOK = 50
const HELD_IN_ALL = 500
/** What was held for longer is sent to where the webhook is then, if it still is to be sent. */
const HELD_AS_TAKEN_MS = 1000
/** Whoever took a message and has not told of it by then was killed. */
const LEASE_SECONDS = 60
/** What is not begun by then could outlast its lease, and is left to whoever takes it next. */
const BEGUN_WITHIN_MS = LEASE_SECONDS * 1000 - TIMEOUT_MS - 5000
/** RFC 9110 §15.5.11: the receiver is there no more, and will not be. */
const GONE = 410
/** For a process that knows the SECRET_KEY of now. */
const UNOPENED_WAIT_SECONDS = 60

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

/** A message that was taken and not begun. */
type Held = { delivery: DueDelivery; takenAt: number }

/**
 * Sends what the outbox holds: those of one subject one after the other, at least once. Any number of processes may do
 * so at once.
 */
export function createWebhookSender(dependencies: Dependencies) {
  const { database, outbox, auditOf, vault, addresses, clock, onDelivery, onWarning } = dependencies
  const stopping = new AbortController()
  setMaxListeners(0, stopping.signal)
  /** The webhook whose turn it is first. */
  const held = new Map<string, Held[]>()
  const underWay = new Map<string, number>()
  const underWayOfAccount = new Map<string, number>()
  const sending = new Set<Promise<void>>()
  let lookedAt = 0
  let polling: Promise<void> | undefined

  async function send({ delivery, takenAt }: Held): Promise<void> {
    if (performance.now() < takenAt + HELD_AS_TAKEN_MS) return await sendTo(delivery)
    const target = await outbox.targetOf(delivery.webhookId)
    if (target) await sendTo({ ...delivery, ...target })
    else await outbox.release([delivery])
  }

  async function sendTo(delivery: DueDelivery): Promise<void> {
    const body = bodyOf(delivery)
    if (body === undefined)
      return await giveUp(delivery, undefined, 'the event is not in the audit trail any more')
    const secrets = secretsOf(delivery)
    if (secrets === undefined) {
      onWarning(
        { webhook: delivery.webhookId },
        'the secret of a webhook was sealed under another SECRET_KEY',
      )
      // Not the receiver's fault: a process that was started before SECRET_KEY was changed takes messages too.
      const unopened = { error: 'the secret cannot be opened', seconds: UNOPENED_WAIT_SECONDS }
      return await outbox.putOff(delivery, unopened)
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
    if (stopping.signal.aborted && answer.status === undefined) return await outbox.release([delivery])
    if (answer.status !== undefined && answer.status >= 200 && answer.status < 300) {
      await outbox.markDelivered(delivery, answer.status)
      onDelivery('delivered')
    } else if (answer.status === GONE) {
      await giveUp(delivery, GONE, 'the receiver says that it is gone')
      await disable(delivery, 'The receiver answered 410 Gone')
    } else await retry(delivery, answer)
  }

  async function retry(delivery: DueDelivery, { status, error }: Answer): Promise<void> {
    const wait = WAITS_SECONDS[delivery.attempts]
    const reason = error ?? `the receiver answered ${status}`
    if (wait === undefined) await giveUp(delivery, status, reason)
    else {
      // A tenth more or less, so that what failed together does not come back together.
      await outbox.postpone(delivery, { status, error: reason, seconds: wait * (0.9 + Math.random() * 0.2) })
      onDelivery('retried')
    }
    await noteFailure(delivery)
  }

  /** A webhook that does not answer is left alone for ever longer, and in the end for good. */
  async function noteFailure(delivery: DueDelivery): Promise<void> {
    const { webhookId } = delivery
    const webhook = await outbox.noteFailure(webhookId)
    if (webhook?.isDead) await disable(delivery, 'Nothing has reached it for three days')
    if (!webhook?.isPaused) return
    if (webhook.failures === FAILURES_BEFORE_PAUSE)
      onWarning({ webhook: webhookId }, 'a webhook does not answer, and is tried less and less often')
    const dropped = held.get(webhookId) ?? []
    held.delete(webhookId)
    await outbox.release(dropped.map((one) => one.delivery))
  }

  async function giveUp(delivery: DueDelivery, status: number | undefined, error: string): Promise<void> {
    await outbox.markFailed(delivery, status, error)
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

  /** Takes what is due and begins to send it, unless enough is held. @returns how many were taken */
  async function takeDue(): Promise<number> {
    const waiting = [...held.values()].reduce((sum, { length }) => sum + length, 0)
    // Some room is always left, for webhooks of which nothing was due until now.
    const room = Math.floor((HELD_IN_ALL - waiting) / 2)
    const takenAt = performance.now()
    const isEnough = waiting >= AT_ONCE && takenAt < lookedAt + POLL_MS
    if (isEnough || room < AT_ONCE) return 0
    lookedAt = takenAt
    const full = [...underWay].filter(([, count]) => count >= AT_ONCE_PER_WEBHOOK).map(([id]) => id)
    const due = await outbox.claim([...held.keys(), ...full], {
      perWebhook: HELD_PER_WEBHOOK,
      inAll: room,
      leaseSeconds: LEASE_SECONDS,
    })
    for (const delivery of due) {
      const { webhookId } = delivery
      held.set(webhookId, [...(held.get(webhookId) ?? []), { delivery, takenAt }])
    }
    beginHeld()
    return due.length
  }

  /** Begins to send what was taken, as far as there is room. */
  function beginHeld(): void {
    if (stopping.signal.aborted) return
    for (let next = takeTurn(); next !== undefined; next = takeTurn())
      if (performance.now() < next.takenAt + BEGUN_WITHIN_MS) begin(next)
  }

  /**
   * The next message that may be begun: of the account with the least under way, of its webhook with the least, each in
   * its turn.
   */
  function takeTurn(): Held | undefined {
    let first: { webhookId: string; ofAccount: number; ofWebhook: number } | undefined
    for (const [webhookId, [one]] of held) {
      const ofAccount = one === undefined ? 0 : (underWayOfAccount.get(accountOf(one)) ?? 0)
      const ofWebhook = underWay.get(webhookId) ?? 0
      if (ofAccount >= AT_ONCE_PER_ACCOUNT || ofWebhook >= AT_ONCE_PER_WEBHOOK) continue
      const isLess =
        first === undefined ||
        ofAccount < first.ofAccount ||
        (ofAccount === first.ofAccount && ofWebhook < first.ofWebhook)
      if (isLess) first = { webhookId, ofAccount, ofWebhook }
      if (ofAccount === 0) break
    }
    if (first === undefined) return undefined
    if (sending.size >= (first.ofAccount === 0 ? AT_ONCE : AT_ONCE - KEPT_FOR_OTHERS)) return undefined
    const { webhookId } = first
    const [next, ...waiting] = held.get(webhookId) ?? []
    held.delete(webhookId)
    if (waiting.length > 0) held.set(webhookId, waiting)
    return next
  }

  function begin(one: Held): void {
    const { webhookId } = one.delivery
    count(underWay, webhookId, 1)
    count(underWayOfAccount, accountOf(one), 1)
    const sent: Promise<void> = send(one)
      .catch((error: unknown) => onWarning({ err: error, webhook: webhookId }, 'a webhook could not be sent'))
      .finally(() => {
        sending.delete(sent)
        count(underWay, webhookId, -1)
        count(underWayOfAccount, accountOf(one), -1)
        beginHeld()
      })
    sending.add(sent)
  }

  async function poll(): Promise<void> {
    const { signal } = stopping
    while (!signal.aborted) {
      const taken = await takeDue().catch((error: unknown) => {
        onWarning({ err: error }, 'webhooks could not be read; it is tried again')
        return 0
      })
      // While there is more, the next follows as soon as one of these is done.
      await pause(taken > 0 || held.size > 0 ? sending : [])
    }
  }

  /** Until the next look, until one of these is done, or until no more is to be taken. */
  async function pause(until: Iterable<Promise<void>>): Promise<void> {
    if (stopping.signal.aborted) return
    const over = new AbortController()
    const end = (): void => over.abort()
    stopping.signal.addEventListener('abort', end)
    await Promise.race([sleep(POLL_MS, undefined, { signal: over.signal }).catch(() => {}), ...until])
    stopping.signal.removeEventListener('abort', end)
    end()
  }

  async function finish(): Promise<void> {
    while (sending.size > 0) await Promise.all(sending)
  }

  return {
    /** Sends from now on. */
    start(): void {
      polling = poll()
    },

    /** Takes no more; what was taken and has not arrived is sent by whoever comes after. */
    async stop(): Promise<void> {
      stopping.abort()
      await polling
      await finish()
      const left = [...held.values()].flat().map(({ delivery }) => delivery)
      held.clear()
      await outbox.release(left).catch(() => {})
    },

    /** Sends what is due, once, and returns. */
    async sendDue(): Promise<void> {
      do await finish()
      while ((await takeDue()) > 0)
    },

    /** Seals every secret anew that was sealed under the SECRET_KEY before. */
    async reseal(tx: Tx): Promise<void> {
      for (const before of await outbox.listSecrets(tx)) {
        const { sealed, previous } = before
        const anew = vault.reseal('webhooks', sealed)
        const previousAnew = previous === null ? undefined : vault.reseal('webhooks', previous)
        if (anew === undefined && previousAnew === undefined) continue
        await outbox.storeSecrets(before, { sealed: anew ?? sealed, previous: previousAnew ?? previous }, tx)
      }
    },
  }
}

/** Whose messages are counted together. */
const accountOf = ({ delivery }: Held): string => delivery.accountId ?? delivery.webhookId

function count(counts: Map<string, number>, id: string, change: 1 | -1): void {
  const now = (counts.get(id) ?? 0) + change
  if (now > 0) counts.set(id, now)
  else counts.delete(id)
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
