import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import Type, { type Static } from 'typebox'
import Value from 'typebox/value'
import { StartupError } from '../errors.ts'
import { LOWEST_ID } from '../ids.ts'
import { sealedFields } from './canonical.ts'
import type { ChainRepository, ExportedRow } from './chain-repository.ts'
import { createChainWalk, type Fault, type WalkState } from './chain-walk.ts'
import type { AuditFilters } from './repository.ts'
import { presentCheckpoint } from './schemas.ts'
import type { Checkpoint, CheckpointSigner } from './signing.ts'

const POSITIONS_AT_ONCE = 1000
const EVENTS_LOOKED_UP_AT_ONCE = 10_000
/** Beyond so many, going through the whole chain is not much more work, and takes no memory. */
const MOST_EVENTS_LOOKED_UP = 1_000_000

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

const ExportedCheckpoint = Type.Object({
  position: Type.Integer({ minimum: 0 }),
  hash: Type.String(),
  removed_up_to: Type.Integer({ minimum: 0 }),
  created_at: Type.String(),
  signature: Type.String(),
})

/** A checkpoint as the API shows it and as it is kept; `undefined` for anything else. */
export function parseCheckpoint(value: unknown): Checkpoint | undefined {
  if (!Value.Check(ExportedCheckpoint, value)) return undefined
  const createdAt = new Date(value.created_at)
  if (Number.isNaN(createdAt.getTime())) return undefined
  const { position, hash, removed_up_to: removedUpTo, signature } = value
  return { position, hash, removedUpTo, createdAt, signature }
}

/**
 * The sealed events that pass, as lines of JSON, in the order of the chain, up to where it ends now. What is handed out
 * at a time is bounded; nothing is held open in between. Of all environments, the first line is the checkpoint that
 * retention has left, if it has removed anything.
 */
export async function* exportedLines(
  chain: ChainRepository,
  filters: AuditFilters,
  environmentId?: string,
): AsyncGenerator<string> {
  const { position: end } = await chain.findHead()
  const begin = (await chain.findRetentionCheckpoint())?.removedUpTo ?? 0
  const anchor = environmentId === undefined && begin > 0 ? await chain.findCheckpoint(begin) : undefined
  if (anchor) yield `${JSON.stringify(presentCheckpoint(anchor))}\n`
  const positions = await positionsOf(chain, filters, environmentId)
  const parts = positions ? partsOf(positions) : rangesOf(begin, end)
  for (const part of parts) {
    const rows = await chain.readMatching(part, filters, environmentId)
    if (rows.length > 0) yield rows.map(lineOf).join('')
  }
}

/**
 * Where the events of an environment or account are, in order, so that an export of few events does not read those of
 * everybody; `undefined` when they are most of the chain, or very many.
 */
async function positionsOf(
  chain: ChainRepository,
  { accountId }: AuditFilters,
  environmentId: string | undefined,
): Promise<Float64Array | undefined> {
  if (environmentId === undefined) return undefined
  const all: number[] = []
  let count = 0
  for (let after: string | undefined = LOWEST_ID; after !== undefined; ) {
    const found: Awaited<ReturnType<typeof chain.listPositions>> = await chain.listPositions(
      environmentId,
      accountId,
      after,
      EVENTS_LOOKED_UP_AT_ONCE,
    )
    all.push(...found.positions)
    count += EVENTS_LOOKED_UP_AT_ONCE
    if (count > MOST_EVENTS_LOOKED_UP) return undefined
    after = found.upTo
  }
  return Float64Array.from(all).sort()
}

function* partsOf(positions: Float64Array): Generator<number[]> {
  for (let index = 0; index < positions.length; index += POSITIONS_AT_ONCE)
    yield Array.from(positions.subarray(index, index + POSITIONS_AT_ONCE))
}

function* rangesOf(begin: number, end: number): Generator<{ after: number; upTo: number }> {
  for (let after = begin; after < end; after += POSITIONS_AT_ONCE)
    yield { after, upTo: Math.min(after + POSITIONS_AT_ONCE, end) }
}

function lineOf({ position, hash, previousHash, event, personal }: ExportedRow): string {
  const line: Static<typeof ExportedLine> = {
    position,
    hash,
    previous_hash: previousHash,
    ...sealedFields(event),
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

/** What a verification of a file came to. */
type FileVerification = {
  fault?: Fault
  state: WalkState
  /** Positions that retention has removed, by a checkpoint of ours at the head of the file. */
  removedUpTo: number
  /** The first position in the file, when it is not the first there was, and retention did not remove the others. */
  beginsAt?: number
}

/**
 * Verifies an export, line by line, without a database. It may begin where retention has ended, by the checkpoint at its
 * head; where else it begins is a fault if a checkpoint was kept of what comes before, and `beginsAt` if none was.
 * @throws StartupError when the file cannot be read, or a line of it is none of an export
 */
export async function verifyFile(
  path: string,
  { signer, kept, isPartial }: FileOptions,
): Promise<FileVerification> {
  const walk = createChainWalk({ signer, kept })
  let anchor: Checkpoint | undefined
  let beginsAt: number | undefined
  for await (const entry of readEntries(path)) {
    if ('signature' in entry) {
      anchor = entry
      walk.jump(anchor)
      const reason = faultOfAnchor(anchor)
      if (reason !== undefined) return conclude({ position: anchor.position, eventId: null, reason })
      continue
    }
    const fault = faultOf(entry) ?? walk.step(entry)
    if (fault) return conclude(fault)
  }
  const end = walk.state.last.position
  const beyond = isPartial ? undefined : kept.find(({ position }) => position > end)
  return conclude(
    beyond && {
      position: end + 1,
      eventId: null,
      reason: `it is not in the file, nor are those up to the checkpoint at ${beyond.position}`,
    },
  )

  function faultOf(row: FileRow): Fault | undefined {
    const { position, eventId, previousHash } = row
    const { last, events } = walk.state
    const before = position - 1
    if (position <= last.position) return { position, eventId, reason: 'it comes twice or too late' }
    if (last.position !== before) {
      const isBeginning = events === 0 && !anchor
      if (!isBeginning && !isPartial)
        return { position: last.position + 1, eventId: null, reason: 'it is not in the file' }
      if (isBeginning) beginsAt = position
      walk.jump({ position: before, hash: previousHash })
    }
    if (previousHash !== walk.state.last.hash)
      return { position, eventId, reason: 'it does not follow the one before' }
    const reason = faultOfKept(before, previousHash)
    return reason === undefined ? undefined : { position, eventId, reason }
  }

  /** What kept checkpoints have against an event that follows this position. */
  function faultOfKept(before: number, hash: string): string | undefined {
    const here = kept.filter(({ position }) => position === before)
    if (here.some((checkpoint) => checkpoint.hash !== hash || signer?.verify(checkpoint) === 'wrong'))
      return 'it does not follow the one before, of which a checkpoint was kept'
    if (isPartial || here.length > 0 || walk.state.events > 0 || isRemoved()) return undefined
    const earlier = kept.find(({ position }) => position <= before)
    return (
      earlier &&
      `what is before it is not in the file, and a checkpoint was kept of position ${earlier.position}`
    )
  }

  function faultOfAnchor(checkpoint: Checkpoint): string | undefined {
    if (checkpoint.removedUpTo !== checkpoint.position)
      return 'the checkpoint at the head of the file is not one that retention has left'
    return signer?.verify(checkpoint) === 'wrong'
      ? 'the checkpoint at the head of the file is not one of ours'
      : undefined
  }

  /** Whether retention has removed what comes before the file, as a key at hand proves. */
  function isRemoved(): boolean {
    return anchor !== undefined && signer?.verify(anchor) === 'valid'
  }

  function conclude(fault: Fault | undefined): FileVerification {
    const begin = beginsAt ?? (anchor && !isRemoved() ? anchor.position + 1 : undefined)
    return {
      ...(fault && { fault }),
      state: walk.state,
      removedUpTo: (isRemoved() && anchor?.position) || 0,
      ...(begin !== undefined && !isPartial && { beginsAt: begin }),
    }
  }
}

type FileRow = Exclude<ReturnType<typeof entryOf>, Checkpoint>

async function* readEntries(path: string): AsyncGenerator<Checkpoint | FileRow> {
  let number = 0
  try {
    const input = createReadStream(path === '-' ? '/dev/stdin' : path, 'utf8')
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      number++
      if (line.trim() !== '') yield entryOf(line, number)
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

/** The first line may be the checkpoint that retention has left. */
function entryOf(line: string, number: number) {
  const parsed = parse(line)
  const checkpoint = number === 1 ? parseCheckpoint(parsed) : undefined
  if (checkpoint) return checkpoint
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
