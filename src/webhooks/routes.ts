import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { IfMatchHeaders, NoContent, problem, ref } from '../http/schemas.ts'
import { anywhere } from '../permissions.ts'
import type { Services } from '../services.ts'
import {
  CreateWebhookBody,
  DeliveryParams,
  IssuedWebhookSchema,
  ListDeliveriesQuery,
  ListWebhooksQuery,
  newWebhook,
  presentDelivery,
  presentIssuedWebhook,
  presentWebhook,
  UpdateWebhookBody,
  WebhookDeliverySchema,
  WebhookIdParams,
  WebhookSchema,
  webhookChanges,
} from './schemas.ts'

const READ = 'postern.webhooks:read'
const WRITE = 'postern.webhooks:write'

const noWebhook = { 404: problem('No such webhook') }

/** Where events are sent to: of every account for those who hold the permission everywhere, else of the own one. */
export function webhooksRoutes({
  modelOf,
  clock,
}: Pick<Services, 'modelOf' | 'clock'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).webhooks

  const toOne = (permission: typeof READ | typeof WRITE): Access => ({
    permission,
    accounts: async (request) => {
      const { webhook_id } = request.params as { webhook_id: string }
      return [(await of(request).findAccountOf(webhook_id)) ?? []].flat()
    },
    otherwise: 'webhook_not_found',
  })
  const read = { access: toOne(READ) }
  const write = { access: toOne(WRITE) }
  const change = { ...write, needsRecentAuthentication: true }
  /** Those who may not read everywhere see what is for the account of their token. */
  const visibleAccount = ({ principal, query }: FastifyRequest): string | undefined => {
    const { account_id } = query as { account_id?: string }
    if (principal?.scopes.has(anywhere(READ))) return account_id?.toLowerCase()
    return account_id?.toLowerCase() ?? principal?.accountId ?? undefined
  }

  return async (app) => {
    app.get(
      '/webhooks',
      {
        config: {
          access: {
            permission: READ,
            accounts: (request) => [visibleAccount(request) ?? []].flat(),
            otherwise: 'account_not_found',
          },
        },
        schema: {
          operationId: 'listWebhooks',
          tags: ['Webhooks'],
          summary: 'List webhooks',
          querystring: ListWebhooksQuery,
          response: { 200: Type.Array(ref(WebhookSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const page = await of(request).listWebhooks(visibleAccount(request), pageRequestOf(request.query))
        return sendPage(request, reply, page, presentWebhook)
      },
    )

    app.post(
      '/webhooks',
      {
        config: {
          access: {
            permission: WRITE,
            accounts: ({ body }) =>
              [(body as { account_id?: string | null }).account_id?.toLowerCase() ?? []].flat(),
            otherwise: 'account_not_found',
          },
          needsRecentAuthentication: true,
        },
        schema: {
          operationId: 'createWebhook',
          tags: ['Webhooks'],
          summary: 'Have events sent to a URL; the secret that signs them is shown only in this answer',
          body: CreateWebhookBody,
          response: {
            201: ref(IssuedWebhookSchema),
            404: problem('No such account'),
            409: problem('There are too many webhooks'),
          },
        },
      },
      async (request, reply) => {
        const issued = await of(request).createWebhook(callerOf(request), newWebhook(request.body))
        setEtag(reply, issued.webhook)
        forbidCaching(reply)
        return reply
          .code(201)
          .header('location', `/api/v1/webhooks/${issued.webhook.id}`)
          .send(presentIssuedWebhook(issued))
      },
    )

    app.get(
      '/webhooks/:webhook_id',
      {
        config: read,
        schema: {
          operationId: 'getWebhook',
          tags: ['Webhooks'],
          summary: 'Get a webhook, without its secret',
          params: WebhookIdParams,
          response: { 200: ref(WebhookSchema), ...noWebhook },
        },
      },
      async (request, reply) => {
        const webhook = await of(request).getWebhook(request.params.webhook_id)
        setEtag(reply, webhook)
        return presentWebhook(webhook)
      },
    )

    app.patch(
      '/webhooks/:webhook_id',
      {
        config: change,
        schema: {
          operationId: 'updateWebhook',
          tags: ['Webhooks'],
          summary: 'Change a webhook, or switch it off or on',
          params: WebhookIdParams,
          headers: IfMatchHeaders,
          body: UpdateWebhookBody,
          response: { 200: ref(WebhookSchema), ...noWebhook, 412: problem('The record has changed') },
        },
      },
      async (request, reply) => {
        const webhook = await of(request).updateWebhook(
          callerOf(request),
          request.params.webhook_id,
          webhookChanges(request.body),
          ifMatchOf(request),
        )
        setEtag(reply, webhook)
        return presentWebhook(webhook)
      },
    )

    app.delete(
      '/webhooks/:webhook_id',
      {
        config: write,
        schema: {
          operationId: 'deleteWebhook',
          tags: ['Webhooks'],
          summary: 'Delete a webhook, and what was to be sent to it',
          params: WebhookIdParams,
          headers: IfMatchHeaders,
          response: { 204: NoContent, ...noWebhook, 412: problem('The record has changed') },
        },
      },
      async (request, reply) => {
        await of(request).deleteWebhook(callerOf(request), request.params.webhook_id, ifMatchOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/webhooks/:webhook_id/rotate-secret',
      {
        config: change,
        schema: {
          operationId: 'rotateWebhookSecret',
          tags: ['Webhooks'],
          summary: 'Replace the secret of a webhook; the one before signs too for a day',
          params: WebhookIdParams,
          response: { 200: ref(IssuedWebhookSchema), ...noWebhook },
        },
      },
      async (request, reply) => {
        const issued = await of(request).rotateSecret(
          callerOf(request),
          request.params.webhook_id,
          clock.now(),
        )
        setEtag(reply, issued.webhook)
        forbidCaching(reply)
        return presentIssuedWebhook(issued)
      },
    )

    app.post(
      '/webhooks/:webhook_id/test',
      {
        config: write,
        schema: {
          operationId: 'testWebhook',
          tags: ['Webhooks'],
          summary: 'Send `webhook.test`, so that the receiver can be tried',
          params: WebhookIdParams,
          response: { 202: ref(WebhookDeliverySchema), ...noWebhook },
        },
      },
      async (request, reply) =>
        reply.code(202).send(presentDelivery(await of(request).sendTest(request.params.webhook_id))),
    )

    app.get(
      '/webhooks/:webhook_id/deliveries',
      {
        config: read,
        schema: {
          operationId: 'listWebhookDeliveries',
          tags: ['Webhooks'],
          summary: 'What was and will be sent to a webhook, newest first',
          params: WebhookIdParams,
          querystring: ListDeliveriesQuery,
          response: { 200: Type.Array(ref(WebhookDeliverySchema)), ...noWebhook },
        },
      },
      async (request, reply) => {
        const { params, query } = request
        const page = await of(request).listDeliveries(params.webhook_id, query.status, pageRequestOf(query))
        return sendPage(request, reply, page, presentDelivery)
      },
    )

    app.post(
      '/webhooks/:webhook_id/deliveries/:delivery_id/redeliver',
      {
        config: write,
        schema: {
          operationId: 'redeliverWebhookDelivery',
          tags: ['Webhooks'],
          summary: 'Send it once more, with the same id',
          params: DeliveryParams,
          response: { 202: ref(WebhookDeliverySchema), 404: problem('No such webhook or delivery') },
        },
      },
      async (request, reply) => {
        const { webhook_id, delivery_id } = request.params
        const delivery = await of(request).redeliver(callerOf(request), webhook_id, delivery_id)
        return reply.code(202).send(presentDelivery(delivery))
      },
    )
  }
}
