import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import Type, { type Static } from 'typebox'
import Value from 'typebox/value'
import { StartupError } from '../errors.ts'
import type { ChainRepository, ExportedRow } from './chain-repository.ts'
import { createChainWalk, type Fault, type WalkState } from './chain-walk.ts'
import type { AuditFilters } from './repository.ts'
import type { Checkpoint, CheckpointSigner } from './signing.ts'

const POSITIONS_AT_ONCE = 1000

const text = Type.Union([Type.String(), Type.Null()])
const object = Type.Record(Type.String(), Type.Unknown())

/** A line of an export: an event as the API shows it, its place in the chain, and what opens its commitment. */
const ExportedLine = Type.Object({
  position: Type.Integer({ minimum: 1 }),
  hash: Type.String(),
  previous_hash: Type.String(),
  id: Type.String(),
  environment_id: Type.String(),
  occurred_at: Type.String(),
  action: Type.String(),
  outcome: Type.String(),
  actor_type: Type.String(),
  actor_id: text,
  target_type: text,
  target_id: text,
  account_id: text,
  request_id: text,
  details: object,
  personal_commitment: text,
  repeat_count: Type.Integer(),
  personal: Type.Union([object, Type.Null()]),
  personal_salt: text,
})

/**
 * The sealed events that pass, as lines of JSON, in the order of the chain, up to where it ends now. What is handed out
 * at a time is bounded; nothing is held open in between.
 */
export async function* exportedLines(
  chain: ChainRepository,
  filters: AuditFilters,
  environmentId?: string,
): AsyncGenerator<string> {
  const { position: end } = await chain.findHead()
  const removed = await chain.findRetentionCheckpoint()
  for (let after = removed?.removedUpTo ?? 0; after < end; after += POSITIONS_AT_ONCE) {
    const upTo = Math.min(after + POSITIONS_AT_ONCE, end)
    const rows = await chain.readMatching({ after, upTo }, filters, environmentId)
    if (rows.length > 0) yield rows.map(lineOf).join('')
  }
}

function lineOf({ position, hash, previousHash, event, personal }: ExportedRow): string {
  const line: Static<typeof ExportedLine> = {
    position,
    hash,
    previous_hash: previousHash,
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
    personal: personal?.data ?? null,
    personal_salt: personal?.salt ?? null,
  }
  return `${JSON.stringify(line)}\n`
}

type FileOptions = {
  signer: CheckpointSigner | undefined
  kept: readonly Checkpoint[]
  /** The export was filtered: positions may be left out. */
  isPartial: boolean
}

/**
 * Verifies an export, line by line, without a database. Where it begins is taken as it says, unless a checkpoint speaks of
 * the position before.
 * @throws StartupError when the file cannot be read, or a line of it is none of an export
 */
export async function verifyFile(
  path: string,
  { signer, kept, isPartial }: FileOptions,
): Promise<{ fault?: Fault; state: WalkState }> {
  const walk = createChainWalk({ signer, kept })
  const byPosition = new Map(kept.map((checkpoint) => [checkpoint.position, checkpoint]))
  let isFirst = true
  for await (const row of readRows(path)) {
    const { last } = walk.state
    const before = row.position - 1
    if (row.position <= last.position)
      return faulty({ position: row.position, eventId: row.eventId, reason: 'it comes twice or too late' })
    if (last.position !== before) {
      if (!isFirst && !isPartial)
        return faulty({ position: last.position + 1, eventId: null, reason: 'it is not in the file' })
      walk.jump({ position: before, hash: row.previousHash })
    }
    isFirst = false
    const known = byPosition.get(before)
    if (row.previousHash !== walk.state.last.hash || (known && known.hash !== row.previousHash))
      return faulty({
        position: row.position,
        eventId: row.eventId,
        reason: 'it does not follow the one before',
      })
    const fault = walk.step(row)
    if (fault) return faulty(fault)
  }
  const end = walk.state.last.position
  const beyond = isPartial ? undefined : kept.find(({ position }) => position > end)
  if (beyond)
    return faulty({
      position: end + 1,
      eventId: null,
      reason: `it is not in the file, nor are those up to the checkpoint at ${beyond.position}`,
    })
  return { state: walk.state }

  function faulty(fault: Fault) {
    return { fault, state: walk.state }
  }
}

async function* readRows(path: string) {
  let number = 0
  try {
    const input = createReadStream(path === '-' ? '/dev/stdin' : path, 'utf8')
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      number++
      if (line.trim() !== '') yield rowOf(line, number)
    }
  } catch (error) {
    if (error instanceof StartupError) throw error
    throw new StartupError(
      `Cannot read ${path}: ${error instanceof Error ? error.message : String(error)}.`,
      {
        cause: error,
      },
    )
  }
}

function rowOf(line: string, number: number) {
  const parsed = parse(line)
  const occurredAt = new Date(Value.Check(ExportedLine, parsed) ? parsed.occurred_at : '')
  if (!Value.Check(ExportedLine, parsed) || Number.isNaN(occurredAt.getTime()))
    throw new StartupError(`Line ${number} is not one of an export of the audit trail.`)
  const { personal, personal_salt: salt } = parsed
  return {
    position: parsed.position,
    hash: parsed.hash,
    previousHash: parsed.previous_hash,
    eventId: parsed.id,
    event: {
      id: parsed.id,
      environmentId: parsed.environment_id,
      occurredAt,
      action: parsed.action,
      outcome: parsed.outcome,
      actorType: parsed.actor_type,
      actorId: parsed.actor_id,
      targetType: parsed.target_type,
      targetId: parsed.target_id,
      accountId: parsed.account_id,
      requestId: parsed.request_id,
      details: parsed.details,
      personalCommitment: parsed.personal_commitment,
      repeatCount: parsed.repeat_count,
    },
    personal: personal === null ? null : { data: personal, salt: salt ?? '' },
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
