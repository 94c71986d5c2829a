import type { Caller } from '../principal.ts'

/** Everything that the audit trail can say happened. `resource.past_tense`. */
export const AUDIT_ACTIONS = [
  'access.refused',
  'account.activated',
  'account.created',
  'account.deactivated',
  'account.deleted',
  'account.updated',
  'action.created',
  'action.deleted',
  'action.updated',
  'action_group.created',
  'action_group.deleted',
  'action_group.updated',
  'api_key.created',
  'api_key.revoked',
  'api_key.rotated',
  'api_key.shown',
  'client.created',
  'client.deleted',
  'client.refused',
  'client.secret_created',
  'client.secret_deleted',
  'client.updated',
  'attribute.created',
  'attribute.deleted',
  'attribute.updated',
  'derivation.created',
  'derivation.deleted',
  'condition_set.created',
  'condition_set.deleted',
  'condition_set.updated',
  'environment.created',
  'environment.deleted',
  'environment.updated',
  'instance.bulk_upserted',
  'instance.created',
  'instance.deleted',
  'instance.updated',
  'invitation.accepted',
  'invitation.created',
  'invitation.resent',
  'invitation.revoked',
  'invite.approved',
  'invite.created',
  'invite.deleted',
  'member.added',
  'member.removed',
  'passkey.counter_regressed',
  'passkey.created',
  'passkey.deleted',
  'passkey.updated',
  'policy.applied',
  'project.created',
  'project.deleted',
  'project.updated',
  'proxy_config.created',
  'proxy_config.deleted',
  'proxy_config.updated',
  'relation.created',
  'relation.deleted',
  'relation.updated',
  'resource.created',
  'resource.deleted',
  'resource.updated',
  'role.assigned',
  'role.created',
  'role.deleted',
  'role.unassigned',
  'role.updated',
  'service.initialized',
  'session.created',
  'session.ended',
  'session.reauthenticated',
  'recovery_code.used',
  'recovery_codes.created',
  'set_rule.created',
  'set_rule.deleted',
  'sign_in.refused',
  'signing_key.activated',
  'signing_key.created',
  'signing_key.removed',
  'signing_key.withdrawn',
  'token.revoked',
  'totp.enrolled',
  'totp.removed',
  'tuple.bulk_changed',
  'tuple.created',
  'tuple.deleted',
  'user.activated',
  'user.created',
  'user.deactivated',
  'user.deleted',
  'user.email_change_requested',
  'user.email_verified',
  'user.erased',
  'user.exported',
  'user.factors_reset',
  'user.link_sent',
  'user.moved',
  'user.password_changed',
  'user.password_removed',
  'user.registered',
  'user.restored',
  'user.unlocked',
  'user.updated',
  'webhook.created',
  'webhook.deleted',
  'webhook.disabled',
  'webhook.redelivered',
  'webhook.secret_rotated',
  'webhook.updated',
] as const

export type AuditAction = (typeof AUDIT_ACTIONS)[number]

/** What an event is about. */
export type AuditTarget = {
  type:
    | 'user'
    | 'account'
    | 'role'
    | 'signing_key'
    | 'environment'
    | 'project'
    | 'api_key'
    | 'client'
    | 'token'
    | 'route'
    | 'instance'
    | 'tuple'
    | 'condition_set'
    | 'set_rule'
    | 'resource'
    | 'action'
    | 'action_group'
    | 'attribute'
    | 'relation'
    | 'derivation'
    | 'proxy_config'
    | 'invite'
    | 'invitation'
    | 'webhook'
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
