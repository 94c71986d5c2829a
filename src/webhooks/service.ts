import type { AccountsService } from '../accounts/service.ts'
import type { AuditAction } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import { assertBelow } from '../resources/limits.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { Vault } from '../vault.ts'
import type { Addresses } from './addresses.ts'
import { TEST_EVENT } from './events.ts'
import type { DeliveryRow, DeliveryStatus, WebhookRow, WebhooksRepository } from './repository.ts'
import { newWebhookSecret } from './signature.ts'

export type WebhookInput = {
  url: string
  description: string | null
  events: string[]
  /** Whose events it hears; null: of every account, and those of none. */
  accountId: string | null
}
export type WebhookUpdate = Partial<Omit<WebhookInput, 'accountId'> & { isActive: boolean }>

/** A webhook with its secret, which is not shown again. */
export type IssuedWebhook = { webhook: WebhookRow; secret: string }

type Dependencies = {
  database: Database
  webhooks: WebhooksRepository
  accounts: Pick<AccountsService, 'getAccount'>
  addresses: Addresses
  audit: AuditRepository
  vault: Vault
}

/** How long the secret before signs too. */
const PREVIOUS_SECRET_MS = 24 * 3600 * 1000
const BEING_DELETED = 'It is being deleted'

/** Where events are sent to. */
export function createWebhooksService(dependencies: Dependencies) {
  const { database, webhooks, accounts, addresses, audit, vault } = dependencies
  const { db } = database

  function assertAcceptable(url: string | undefined): void {
    const fault = url === undefined ? undefined : addresses.faultOf(url)
    if (fault) throw new AppError('validation_failed', { errors: [{ pointer: '/body/url', detail: fault }] })
  }

  async function record(
    action: AuditAction,
    caller: Caller,
    { id, accountId }: Pick<WebhookRow, 'id' | 'accountId'>,
    details: Record<string, unknown>,
    tx: Tx,
  ): Promise<void> {
    await audit.append({ action, caller, target: { type: 'webhook', id }, accountId, details }, tx)
  }

  const lock = async (id: string, tx: Tx): Promise<WebhookRow> =>
    (await webhooks.lockWebhook(id, tx)) ?? fail('webhook_not_found')

  const read = async (id: string, tx: Tx): Promise<WebhookRow> =>
    (await webhooks.findWebhook(id, tx)) ?? fail('webhook_not_found')

  return {
    listWebhooks: webhooks.listWebhooks,

    /** @throws AppError webhook_not_found */
    async getWebhook(id: string): Promise<WebhookRow> {
      return (await webhooks.findWebhook(id)) ?? fail('webhook_not_found')
    },

    /** The account whose events a webhook hears, null for all; `undefined` when there is no such webhook. */
    async findAccountOf(id: string): Promise<string | null | undefined> {
      return (await webhooks.findWebhook(id))?.accountId
    },

    /** @throws AppError validation_failed for a URL that leads into a private network, account_not_found, limit_reached */
    async createWebhook(caller: Caller, input: WebhookInput): Promise<IssuedWebhook> {
      assertAcceptable(input.url)
      if (input.accountId !== null) await accounts.getAccount(input.accountId)
      const [id, secret] = [newId(), newWebhookSecret()]
      return await transact(db, async (tx) => {
        await webhooks.lockForAdding(tx)
        if (input.accountId !== null)
          assertBelow('accountWebhooks', await webhooks.countWebhooks(input.accountId, tx))
        assertBelow('webhooks', await webhooks.countWebhooks(undefined, tx))
        await record('webhook.created', caller, { ...input, id }, { events: input.events }, tx)
        await webhooks.insertWebhook({ ...input, id, secretSealed: vault.seal('webhooks', secret) }, tx)
        return { webhook: await read(id, tx), secret }
      })
    },

    /**
     * What is switched off hears of nothing that happens meanwhile; what waits to be sent is sent when it is switched on.
     * @throws AppError webhook_not_found, precondition_failed, validation_failed
     */
    async updateWebhook(
      caller: Caller,
      id: string,
      update: WebhookUpdate,
      ifMatch: IfMatch,
    ): Promise<WebhookRow> {
      assertAcceptable(update.url)
      return await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        assertMatches(ifMatch, webhook.revision)
        await webhooks.updateWebhook(id, { ...update, ...(update.isActive && { disabledReason: null }) }, tx)
        if (update.isActive || update.url !== undefined) await webhooks.forgetFailures(id, tx)
        await record('webhook.updated', caller, webhook, { fields: Object.keys(update) }, tx)
        return await read(id, tx)
      })
    },

    /**
     * With everything that was to be sent to it. Switched off first, and removed when little is left to be removed with
     * it: whatever is written meanwhile in the environment would wait for that. When it fails half-way, the webhook is
     * off: do it again. One that somebody switches on meanwhile stays.
     * @throws AppError webhook_not_found, precondition_failed
     */
    async deleteWebhook(caller: Caller, id: string, ifMatch: IfMatch): Promise<void> {
      await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        assertMatches(ifMatch, webhook.revision)
        await webhooks.switchOff(id, BEING_DELETED, tx)
        if (webhook.isActive) await record('webhook.disabled', caller, webhook, { reason: BEING_DELETED }, tx)
      })
      await webhooks.deleteDeliveries(id)
      await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        assertMatches(ifMatch, webhook.revision)
        if (webhook.disabledReason !== BEING_DELETED) throw new AppError('precondition_failed')
        await webhooks.deleteWebhook(id, tx)
        await record('webhook.deleted', caller, webhook, {}, tx)
      })
    },

    /** A new secret; the one before signs too for a day. @throws AppError webhook_not_found */
    async rotateSecret(caller: Caller, id: string, now: Date): Promise<IssuedWebhook> {
      const secret = newWebhookSecret()
      return await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        const until = new Date(now.getTime() + PREVIOUS_SECRET_MS)
        await webhooks.replaceSecret(id, vault.seal('webhooks', secret), until, tx)
        await record('webhook.secret_rotated', caller, webhook, { previous_until: until }, tx)
        return { webhook: await read(id, tx), secret }
      })
    },

    /** @throws AppError webhook_not_found */
    async listDeliveries(
      id: string,
      status: DeliveryStatus | undefined,
      request: PageRequest,
    ): Promise<Page<DeliveryRow>> {
      await this.getWebhook(id)
      return await webhooks.listDeliveries(id, status, request)
    },

    /** Sends a message once more, whatever became of it. @throws AppError webhook_not_found, delivery_not_found */
    async redeliver(caller: Caller, id: string, deliveryId: string): Promise<DeliveryRow> {
      return await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        const delivery = (await webhooks.redeliver(id, deliveryId, tx)) ?? fail('delivery_not_found')
        await webhooks.endPause(id, tx)
        await record('webhook.redelivered', caller, webhook, { delivery_id: deliveryId }, tx)
        return delivery
      })
    },

    /** Sends a message about nothing, so that a receiver can be tried. @throws AppError webhook_not_found */
    async sendTest(id: string): Promise<DeliveryRow> {
      return await transact(db, async (tx) => {
        const webhook = await lock(id, tx)
        const messageId = newId()
        await webhooks.endPause(id, tx)
        return await webhooks.insertDelivery(
          {
            id: newId(),
            webhookId: webhook.id,
            auditEventId: messageId,
            event: TEST_EVENT,
            subject: messageId,
          },
          tx,
        )
      })
    },
  }
}
