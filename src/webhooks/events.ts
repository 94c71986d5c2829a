import { AUDIT_ACTIONS, type AuditAction } from '../audit/events.ts'

/** Stands for every event, those of later versions too. */
export const EVERY_EVENT = '*'

/** What only happens to somebody who was refused: nobody is told of it. */
const isRefusal = (action: AuditAction): boolean => action.endsWith('.refused')

/** The events that a webhook may ask for: what the audit trail says was done. */
export const WEBHOOK_EVENTS: readonly AuditAction[] = AUDIT_ACTIONS.filter((action) => !isRefusal(action))

/** What a webhook receives by `POST /webhooks/{id}/test`; it is about nothing. */
export const TEST_EVENT = 'webhook.test'
