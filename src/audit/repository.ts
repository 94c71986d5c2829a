import { randomBytes } from 'node:crypto'
import { and, eq, gte, inArray, lt, type SQL, sql } from 'drizzle-orm'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { auditEvents, auditPersonalData } from '../db/schema.ts'
import { newId } from '../ids.ts'
import { principalId } from '../principal.ts'
import { commitmentTo, type SealedEvent } from './canonical.ts'
import type { AuditAction, AuditEvent } from './events.ts'

/** An event, with what of it can be erased. */
export type AuditRow = Omit<SealedEvent, 'outcome'> & {
  outcome: AuditOutcome
  personal: Record<string, unknown> | null
}

export type AuditFilters = {
  /** One of these. */
  actions?: readonly AuditAction[]
  outcome?: AuditOutcome
  actorId?: string
  targetType?: string
  targetId?: string
  accountId?: string
  /** Half open: from <= occurred < until. */
  from?: Date
  until?: Date
}

/** The columns of a sealed event. */
export const eventColumns = {
  id: auditEvents.id,
  environmentId: auditEvents.environmentId,
  occurredAt: auditEvents.occurredAt,
  action: auditEvents.action,
  outcome: auditEvents.outcome,
  actorType: auditEvents.actorType,
  actorId: auditEvents.actorId,
  targetType: auditEvents.targetType,
  targetId: auditEvents.targetId,
  accountId: auditEvents.accountId,
  requestId: auditEvents.requestId,
  details: auditEvents.details,
  personalCommitment: auditEvents.personalCommitment,
  repeatCount: auditEvents.repeatCount,
}

const sortKeys: Record<string, SortKey<AuditRow>> = {
  occurred_at: { by: auditEvents.id, cast: 'uuid', value: (row) => row.id },
}

export type AuditRepository = ReturnType<typeof createAuditRepository>

/** Appends to the audit trail of one environment, and reads it. */
export function createAuditRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  return {
    /** Appends one event, in the caller's transaction when `ex` is one. */
    async append(event: AuditEvent, ex: Executor = db): Promise<void> {
      await ex.execute(insertion(event, 'success', null))
    },

    /** Records many events in one statement. */
    async appendAll(events: readonly AuditEvent[], ex: Executor = db): Promise<void> {
      if (events.length === 0) return
      await ex.execute(sql`
        with entries as materialized (
          select * from jsonb_to_recordset(${JSON.stringify(events.map((event) => entryOf(event)))}::jsonb) as x
            (id uuid, action text, outcome text, "actorType" text, "actorId" text, "targetType" text, "targetId" text,
              "accountId" uuid, "requestId" text, details text, "personalCommitment" text, "subjectId" uuid,
              salt text, personal text, "emailNormalized" text)),
        event as (
          insert into audit_events (id, environment_id, action, outcome, actor_type, actor_id, target_type, target_id,
            account_id, request_id, details, personal_commitment)
          select id, ${environmentId}, action, outcome, "actorType", "actorId", "targetType", "targetId", "accountId",
            "requestId", details::jsonb, "personalCommitment" from entries
          returning id)
        insert into audit_personal_data (audit_event_id, subject_id, salt, data, email_normalized)
        select id, "subjectId", salt, personal::jsonb, "emailNormalized" from entries join event using (id)
        where personal is not null`)
    },

    /**
     * Records a refused attempt. The same attempt within the same minute raises the count of its one row, so
     * that strangers cannot fill the disk; `repeatOf` says what makes two attempts the same.
     */
    async appendRefusal(event: AuditEvent, repeatOf: string, now: Date): Promise<void> {
      const minute = now.toISOString().slice(0, 16)
      await db.execute(insertion(event, 'refused', `${event.action}|${repeatOf}|${minute}`))
    },

    async listEvents(filters: AuditFilters, request: PageRequest): Promise<Page<AuditRow>> {
      const clauses = pageClauses(request, sortKeys, auditEvents.id)
      const matching = and(eq(auditEvents.environmentId, environmentId), ...eventClauses(filters))
      const page = clauses.toPage(
        await db
          .select({ ...eventColumns, personal: auditPersonalData.data })
          .from(auditEvents)
          .leftJoin(auditPersonalData, eq(auditPersonalData.auditEventId, auditEvents.id))
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(auditEvents, matching) } : page
    },
  }

  /** One statement that writes the event and, when there is any, its personal side. */
  function insertion(event: AuditEvent, outcome: AuditOutcome, repeatKey: string | null): SQL {
    const entry = entryOf(event, outcome)
    return sql`
      with event as (
        insert into audit_events (id, environment_id, action, outcome, actor_type, actor_id, target_type, target_id,
          account_id, request_id, details, personal_commitment, repeat_key)
        values (${entry.id}, ${environmentId}, ${entry.action}, ${outcome}, ${entry.actorType}, ${entry.actorId},
          ${entry.targetType}, ${entry.targetId}, ${entry.accountId}, ${entry.requestId}, ${entry.details},
          ${entry.personalCommitment}, ${repeatKey})
        on conflict (repeat_key) do update set repeat_count = audit_events.repeat_count + 1
        returning id, repeat_count)
      insert into audit_personal_data (audit_event_id, subject_id, salt, data, email_normalized)
      select id, ${entry.subjectId}::uuid, ${entry.salt}, ${entry.personal}::jsonb, ${entry.emailNormalized}
      from event where ${entry.personal}::text is not null and repeat_count = 1`
  }
}

/** What events must be to pass. */
export function eventClauses(filters: AuditFilters): (SQL | undefined)[] {
  const { actions, outcome, actorId, targetType, targetId, accountId, from, until } = filters
  return [
    actions === undefined ? undefined : inArray(auditEvents.action, [...actions]),
    outcome === undefined ? undefined : eq(auditEvents.outcome, outcome),
    actorId === undefined ? undefined : eq(auditEvents.actorId, actorId),
    targetType === undefined ? undefined : eq(auditEvents.targetType, targetType),
    targetId === undefined ? undefined : eq(auditEvents.targetId, targetId),
    accountId === undefined ? undefined : eq(auditEvents.accountId, accountId),
    from === undefined ? undefined : gte(auditEvents.occurredAt, from),
    until === undefined ? undefined : lt(auditEvents.occurredAt, until),
  ]
}

type AuditOutcome = 'success' | 'refused'

/** An event as the columns of its two tables have it. `personal` and `salt` are null when nothing is personal. */
export type AuditEntry = ReturnType<typeof entryOf>

/** For statements that write an event together with the change it records. */
export function entryOf(event: AuditEvent, outcome: AuditOutcome = 'success') {
  const { caller, target } = event
  const all = personalOf(event)
  const personal = all && JSON.stringify(all)
  const salt = personal && randomBytes(16).toString('base64url')
  const subjectId = target?.type === 'user' ? target.id : null
  const email = all?.['email']
  return {
    id: newId(),
    action: event.action,
    outcome,
    actorType: caller.principal?.type ?? 'anonymous',
    actorId: caller.principal === undefined ? null : (principalId(caller.principal) ?? null),
    targetType: target?.type ?? null,
    targetId: target?.id ?? null,
    accountId: event.accountId ?? null,
    requestId: caller.requestId ?? null,
    details: JSON.stringify(detailsOf(event)),
    // To what can be read again: JSON leaves out what is undefined.
    personalCommitment: personal && salt ? commitmentTo(JSON.parse(personal), salt) : null,
    subjectId,
    salt: salt ?? null,
    personal: personal ?? null,
    /** Of nobody who is known here: erasing whoever has the email finds it by this. */
    emailNormalized: subjectId === null && typeof email === 'string' ? normalizeEmail(email) : null,
  }
}

/** Whoever acts for a person is named beside what they did. */
function detailsOf({ caller: { principal }, details = {} }: AuditEvent): Record<string, unknown> {
  const actingClientId = principal?.type === 'user' ? principal.actingClientId : undefined
  return actingClientId === undefined ? details : { ...details, acting_client_id: actingClientId }
}

function personalOf({ caller, personal }: AuditEvent): Record<string, unknown> | undefined {
  if (caller.address !== undefined) return { address: caller.address, ...personal }
  return personal && Object.keys(personal).length > 0 ? personal : undefined
}
