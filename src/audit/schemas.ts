import Type, { type Static } from 'typebox'
import { nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import { CHECKPOINT_SORTS } from './chain-repository.ts'
import { AUDIT_ACTIONS, type AuditAction } from './events.ts'
import type { AuditFilters, AuditRow } from './repository.ts'
import type { Checkpoint } from './signing.ts'

const Outcome = Type.Unsafe<'success' | 'refused'>({ type: 'string', enum: ['success', 'refused'] })

export const AuditEventSchema = Type.Object(
  {
    id: Uuid,
    occurred_at: Timestamp,
    action: Type.String({ examples: ['role.assigned'] }),
    outcome: Outcome,
    actor_type: Type.String({ enum: ['user', 'client', 'api_key', 'system', 'anonymous'] }),
    actor_id: nullable(Type.String()),
    target_type: nullable(Type.String({ examples: ['user'] })),
    target_id: nullable(Type.String()),
    account_id: nullable(Uuid),
    request_id: nullable(Type.String()),
    details: Type.Object({}, { additionalProperties: true }),
    personal: Type.Unsafe<Record<string, unknown> | null>({
      type: ['object', 'null'],
      additionalProperties: true,
      description: 'What is personal: emails, addresses. Null when there is none, or when it was erased',
    }),
    repeat_count: Type.Integer({ description: 'How often the same refusal happened within its minute' }),
  },
  { $id: 'AuditEvent', title: 'Audit event' },
)

const filters = {
  action: Type.Optional(Type.Unsafe<AuditAction>({ type: 'string', enum: [...AUDIT_ACTIONS] })),
  action_prefix: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 64,
      pattern: '^[a-z_]+\\.?[a-z_]*$',
      examples: ['user.'],
      description: 'What the action begins with',
    }),
  ),
  outcome: Type.Optional(Outcome),
  actor_id: Type.Optional(Type.String({ maxLength: 128 })),
  target_type: Type.Optional(Type.String({ maxLength: 64 })),
  target_id: Type.Optional(Type.String({ maxLength: 256 })),
  account_id: Type.Optional(Uuid),
  from: Type.Optional(Type.String({ format: 'date-time', description: 'Not before this time' })),
  until: Type.Optional(Type.String({ format: 'date-time', description: 'Before this time' })),
}

export const ListAuditEventsQuery = Type.Object(
  { ...pageQuery(['occurred_at'], '-occurred_at'), ...filters },
  { additionalProperties: false },
)

export const ExportAuditEventsQuery = Type.Object(filters, { additionalProperties: false })

export const ListCheckpointsQuery = Type.Object(pageQuery(CHECKPOINT_SORTS, '-position'), {
  additionalProperties: false,
})

export const CheckpointSchema = Type.Object(
  {
    position: Type.Integer({ minimum: 0, examples: [1024] }),
    hash: Type.String({ description: 'The hash at this position: SHA-256, base64url' }),
    removed_up_to: Type.Integer({
      minimum: 0,
      description: 'Positions up to this one have been removed by retention',
    }),
    created_at: Timestamp,
    signature: Type.String({ description: 'HMAC-SHA-256 over the other fields: `v1.<key id>.<mac>`' }),
  },
  { $id: 'AuditCheckpoint', title: 'Checkpoint of the audit trail' },
)

/** A signed checkpoint of the audit trail as it is answered. */
export const presentCheckpoint = (checkpoint: Checkpoint): Static<typeof CheckpointSchema> => ({
  position: checkpoint.position,
  hash: checkpoint.hash,
  removed_up_to: checkpoint.removedUpTo,
  created_at: checkpoint.createdAt.toISOString(),
  signature: checkpoint.signature,
})

/** An event of the audit trail as it is answered. */
export const presentAuditEvent = (row: AuditRow): Static<typeof AuditEventSchema> => ({
  id: row.id,
  occurred_at: row.occurredAt.toISOString(),
  action: row.action,
  outcome: row.outcome,
  actor_type: row.actorType,
  actor_id: row.actorId,
  target_type: row.targetType,
  target_id: row.targetId,
  account_id: row.accountId,
  request_id: row.requestId,
  details: row.details,
  personal: row.personal,
  repeat_count: row.repeatCount,
})

/** The filters of a query as the repository takes them. */
export function auditFilters(query: Static<typeof ExportAuditEventsQuery>): AuditFilters {
  const { outcome, from, until } = query
  const all = {
    actions: actionsOf(query),
    outcome,
    actorId: query.actor_id,
    targetType: query.target_type,
    targetId: query.target_id,
    accountId: query.account_id,
    from: from === undefined ? undefined : new Date(from),
    until: until === undefined ? undefined : new Date(until),
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function actionsOf({ action, action_prefix: prefix = '' }: Static<typeof ExportAuditEventsQuery>) {
  if (action === undefined && prefix === '') return undefined
  return AUDIT_ACTIONS.filter((one) => one.startsWith(prefix) && (action === undefined || one === action))
}
