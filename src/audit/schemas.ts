import Type, { type Static } from 'typebox'
import { nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import { AUDIT_ACTIONS, type AuditAction } from './events.ts'
import type { AuditFilters, AuditRow } from './repository.ts'

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

export const ListAuditEventsQuery = Type.Object(
  {
    ...pageQuery(['occurred_at'], '-occurred_at'),
    action: Type.Optional(Type.Unsafe<AuditAction>({ type: 'string', enum: [...AUDIT_ACTIONS] })),
    outcome: Type.Optional(Outcome),
    actor_id: Type.Optional(Type.String({ maxLength: 128 })),
    target_id: Type.Optional(Type.String({ maxLength: 256 })),
    account_id: Type.Optional(Uuid),
    from: Type.Optional(Type.String({ format: 'date-time', description: 'Not before this time' })),
    until: Type.Optional(Type.String({ format: 'date-time', description: 'Before this time' })),
  },
  { additionalProperties: false },
)

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

export function auditFilters(query: Static<typeof ListAuditEventsQuery>): AuditFilters {
  const {
    action,
    outcome,
    actor_id: actorId,
    target_id: targetId,
    account_id: accountId,
    from,
    until,
  } = query
  const all = {
    action,
    outcome,
    actorId,
    targetId,
    accountId,
    from: from === undefined ? undefined : new Date(from),
    until: until === undefined ? undefined : new Date(until),
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}
