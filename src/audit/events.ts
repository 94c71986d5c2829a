import type { Caller } from '../principal.ts'

/** Everything that the audit trail can say happened. `resource.past_tense`. */
export const AUDIT_ACTIONS = [
  'access.refused',
  'account.activated',
  'account.created',
  'account.deactivated',
  'account.deleted',
  'account.updated',
  'member.added',
  'member.removed',
  'role.assigned',
  'role.created',
  'role.deleted',
  'role.unassigned',
  'role.updated',
  'service.initialized',
  'session.created',
  'sign_in.refused',
  'signing_key.created',
  'user.activated',
  'user.created',
  'user.deactivated',
  'user.deleted',
  'user.moved',
  'user.password_changed',
  'user.registered',
  'user.updated',
] as const

export type AuditAction = (typeof AUDIT_ACTIONS)[number]

/** What an event is about. */
export type AuditTarget = {
  type: 'user' | 'account' | 'role' | 'signing_key' | 'environment' | 'route'
  id: string
}

/**
 * One event. `details` holds ids, names of fields and values that identify nobody; everything personal (emails,
 * names, addresses) goes into `personal`, which is kept apart and can be erased.
 */
export type AuditEvent = {
  action: AuditAction
  caller: Caller | AnonymousCaller
  target?: AuditTarget
  /** The account whose administrators may see the event. */
  accountId?: string | null
  details?: Record<string, unknown>
  personal?: Record<string, unknown>
}

/** Somebody who has not signed in. */
export type AnonymousCaller = {
  principal: undefined
  requestId: string | undefined
  address: string | undefined
}
