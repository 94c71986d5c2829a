import { createHash } from 'node:crypto'

/** An event as the chain seals it: everything but what can be erased. */
export type SealedEvent = {
  id: string
  environmentId: string
  occurredAt: Date
  action: string
  outcome: string
  actorType: string
  actorId: string | null
  targetType: string | null
  targetId: string | null
  accountId: string | null
  requestId: string | null
  details: Record<string, unknown>
  personalCommitment: string | null
  repeatCount: number
}

/** What the hash of the first position stands on. */
export const GENESIS = ''

/** JSON with sorted keys and without spaces (RFC 8785): the same text for the same value, however it was stored. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const fields = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return `{${fields
    .sort(byKey)
    .map(([key, inner]) => `${JSON.stringify(key)}:${canonicalJson(inner)}`)
    .join(',')}}`
}

/** By UTF-16 code units, as RFC 8785 §3.2.3 has it. */
const byKey = ([a]: [string, unknown], [b]: [string, unknown]): number => (a < b ? -1 : 1)

/** An event by the names of the API, as it is hashed and exported. */
export const sealedFields = (event: SealedEvent) => ({
  id: event.id,
  environment_id: event.environmentId,
  occurred_at: event.occurredAt.toISOString(),
  action: event.action,
  outcome: event.outcome,
  actor_type: event.actorType,
  actor_id: event.actorId,
  target_type: event.targetType,
  target_id: event.targetId,
  account_id: event.accountId,
  request_id: event.requestId,
  details: event.details,
  personal_commitment: event.personalCommitment,
  repeat_count: event.repeatCount,
})

/**
 * The hash of one position: SHA-256 (base64url) over a version, the hash of the position before, and the event with its
 * position as JSON with sorted keys.
 */
export function hashOf(position: number, event: SealedEvent, previousHash: string): string {
  const text = canonicalJson({ position, ...sealedFields(event) })
  return createHash('sha256').update(`postern audit 1\n${previousHash}\n${text}`).digest('base64url')
}

/** SHA-256 over the salt and the data with sorted keys: proves later what the erasable side said. */
export function commitmentTo(data: Record<string, unknown>, salt: string): string {
  const canonical = canonicalJson(Object.entries(data).sort(byKey))
  return createHash('sha256').update(`${salt}.${canonical}`).digest('base64url')
}
