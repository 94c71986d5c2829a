import Type, { type Static } from 'typebox'
import { nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import { EVERY_EVENT, WEBHOOK_EVENTS } from './events.ts'
import type { DeliveryRow, DeliveryStatus, WebhookRow } from './repository.ts'
import type { IssuedWebhook, WebhookInput, WebhookUpdate } from './service.ts'

const Url = Type.String({
  minLength: 1,
  maxLength: 2048,
  examples: ['https://crm.example.com/hooks/postern'],
})
const Description = Type.String({ minLength: 1, maxLength: 1024, examples: ['Keeps the CRM up to date'] })
const Events = Type.Array(Type.Unsafe<string>({ type: 'string', enum: [EVERY_EVENT, ...WEBHOOK_EVENTS] }), {
  minItems: 1,
  uniqueItems: true,
  description: 'Actions of the audit trail, or `*` for every one',
  examples: [['user.created', 'role.assigned']],
})

const fields = {
  id: Uuid,
  url: Url,
  description: nullable(Description),
  events: Events,
  account_id: Type.Unsafe<string | null>({
    ...nullable(Uuid),
    description: 'The account whose events it hears; null: of every account',
  }),
  is_active: Type.Boolean(),
  disabled_reason: nullable(Type.String({ description: 'Why it was switched off, if nobody did' })),
  previous_secret_expires_at: nullable(Timestamp),
  paused_until: Type.Unsafe<string | null>({
    ...nullable(Timestamp),
    description: 'When it is tried next, as it did not answer several times in a row',
  }),
  created_at: Timestamp,
  updated_at: Timestamp,
}

export const WebhookSchema = Type.Object(fields, { $id: 'Webhook', title: 'Webhook' })

export const IssuedWebhookSchema = Type.Object(
  { ...fields, secret: Type.String({ description: 'Shown only now', examples: ['whsec_…'] }) },
  { $id: 'IssuedWebhook', title: 'Webhook with its secret' },
)

const Status = Type.Unsafe<DeliveryStatus>({ type: 'string', enum: ['pending', 'delivered', 'failed'] })

export const WebhookDeliverySchema = Type.Object(
  {
    id: Uuid,
    event_id: Uuid,
    event: Type.String({ examples: ['user.created'] }),
    status: Status,
    attempts: Type.Integer(),
    next_attempt_at: nullable(Timestamp),
    last_status: nullable(Type.Integer({ description: 'Of the last answer' })),
    last_error: nullable(Type.String()),
    created_at: Timestamp,
    delivered_at: nullable(Timestamp),
  },
  { $id: 'WebhookDelivery', title: 'Delivery of an event' },
)

export const CreateWebhookBody = Type.Object(
  {
    url: Url,
    description: Type.Optional(nullable(Description)),
    events: Events,
    account_id: Type.Optional(nullable(Uuid)),
  },
  { additionalProperties: false },
)

export const UpdateWebhookBody = Type.Object(
  {
    url: Type.Optional(Url),
    description: Type.Optional(nullable(Description)),
    events: Type.Optional(Events),
    is_active: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false, minProperties: 1, examples: [{ is_active: false }] },
)

export const WebhookIdParams = Type.Object({ webhook_id: Uuid })
export const DeliveryParams = Type.Object({ webhook_id: Uuid, delivery_id: Uuid })
export const ListWebhooksQuery = Type.Object({
  account_id: Type.Optional(Uuid),
  ...pageQuery(['created_at'], 'created_at'),
})
export const ListDeliveriesQuery = Type.Object({
  status: Type.Optional(Status),
  ...pageQuery(['created_at'], '-created_at'),
})

/** The webhook that the body of a request asks for. */
export const newWebhook = (body: Static<typeof CreateWebhookBody>): WebhookInput => ({
  url: body.url,
  description: body.description ?? null,
  events: body.events,
  accountId: body.account_id?.toLowerCase() ?? null,
})

/** The changes that the body of a request asks for. */
export const webhookChanges = ({ is_active, ...rest }: Static<typeof UpdateWebhookBody>): WebhookUpdate => ({
  ...rest,
  ...(is_active !== undefined && { isActive: is_active }),
})

/** A webhook as it is answered, without its secret. */
export const presentWebhook = (row: WebhookRow): Static<typeof WebhookSchema> => ({
  id: row.id,
  url: row.url,
  description: row.description,
  events: row.events,
  account_id: row.accountId,
  is_active: row.isActive,
  disabled_reason: row.disabledReason,
  previous_secret_expires_at: row.previousSecretExpiresAt?.toISOString() ?? null,
  paused_until: row.pausedUntil?.toISOString() ?? null,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** A webhook with its secret, for the one answer that shows it. */
export const presentIssuedWebhook = ({
  webhook,
  secret,
}: IssuedWebhook): Static<typeof IssuedWebhookSchema> => ({ ...presentWebhook(webhook), secret })

/** A message to a webhook, and what became of it, as it is answered. */
export const presentDelivery = (row: DeliveryRow): Static<typeof WebhookDeliverySchema> => ({
  id: row.id,
  event_id: row.auditEventId,
  event: row.event,
  status: row.status,
  attempts: row.attempts,
  next_attempt_at: row.status === 'pending' ? row.nextAttemptAt.toISOString() : null,
  last_status: row.lastStatus,
  last_error: row.lastError,
  created_at: row.createdAt.toISOString(),
  delivered_at: row.deliveredAt?.toISOString() ?? null,
})
