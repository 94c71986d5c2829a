import { grouped } from '../grouping.ts'
import { commitmentTo, GENESIS, hashOf } from './canonical.ts'
import type { ChainRow, Link } from './chain-repository.ts'
import type { Checkpoint, CheckpointSigner } from './signing.ts'

/** The first thing that is wrong with a trail. */
export type Fault = {
  position: number
  eventId: string | null
  /** The end of a sentence that begins with the position. */
  reason: string
}

/** What a walk has seen so far. */
export type WalkState = {
  last: Link
  events: number
  /** Events whose personal side is there, and those whose side was erased. */
  personal: number
  erased: number
  /** How many positions with checkpoints were met, and the last of them that a key at hand has signed. */
  checkpoints: number
  coveredUpTo: number
  /** Checkpoints that were met, and whose key is not at hand. */
  unverified: number
}

/** A link as somebody claims it to be. */
export type ClaimedRow = Omit<ChainRow, 'checkpoint'> & { checkpoint?: Checkpoint | null }

type Options = {
  /** Absent: signatures are not looked at. */
  signer: CheckpointSigner | undefined
  /** Checkpoints that were kept elsewhere. */
  kept: readonly Checkpoint[]
  /**
   * Whether a stored checkpoint may be signed with a key that is not at hand. It proves nothing then: whoever makes
   * hashes anew can make such a signature too.
   */
  acceptsUnknownKeys?: boolean
  /** Where it begins; what comes before is taken as it is. */
  start?: Link
}

type Judgement = { reason: string; isSigned?: never } | { reason?: never; isSigned: boolean }

/**
 * Events are sealed in the order in which they were committed, and no transaction takes so long: one that is dated before
 * one that it follows was put there later.
 */
const LONGEST_DELAY_MS = 3_600_000

/** Goes along a chain, position by position, and holds each against what is said of it. Pure. */
export function createChainWalk({
  signer,
  kept,
  acceptsUnknownKeys = false,
  start = { position: 0, hash: GENESIS },
}: Options) {
  const expected = grouped(kept, ({ position }) => position)
  let newestAt = Number.NEGATIVE_INFINITY
  const state: WalkState = {
    last: start,
    events: 0,
    personal: 0,
    erased: 0,
    checkpoints: 0,
    coveredUpTo: start.position,
    unverified: 0,
  }

  function faultOfEvent(row: ClaimedRow): string | undefined {
    const { event, personal } = row
    if (!event) return 'its event was removed'
    if (event.id !== row.eventId || hashOf(row.position, event, state.last.hash) !== row.hash)
      return 'its event is not the one that was sealed here: it was changed, moved or put in'
    if (personal && commitmentTo(personal.data, personal.salt) !== event.personalCommitment)
      return 'what is personal about its event was changed'
    if (event.occurredAt.getTime() < newestAt - LONGEST_DELAY_MS)
      return 'its event is dated before others that were sealed earlier: it was put in later'
    return undefined
  }

  /** What is wrong with a checkpoint, or how good its signature is. */
  function judge(checkpoint: Checkpoint, link: Link, isStored: boolean): Judgement {
    if (checkpoint.hash !== link.hash)
      return {
        reason: `it does not lead to its checkpoint: the chain was written anew after position ${state.coveredUpTo}`,
      }
    const signature = signer?.verify(checkpoint) ?? 'unknown_key'
    if (signature === 'wrong') return { reason: 'its checkpoint is not one that was signed here' }
    if (signature === 'unknown_key' && isStored && !acceptsUnknownKeys)
      return {
        reason:
          'its checkpoint was signed with a key that is not at hand (AUDIT_HMAC_KEY_PREVIOUS can name it), as whoever writes the chain anew would sign it',
      }
    return { isSigned: signature === 'valid' }
  }

  return {
    state: state as Readonly<WalkState>,

    /** Takes the next position. */
    step(row: ClaimedRow): Fault | undefined {
      const { position, hash, eventId } = row
      const fault = faultOfEvent(row)
      if (fault !== undefined || !row.event) return { position, eventId, reason: fault ?? '' }
      state.events++
      if (row.personal) state.personal++
      else if (row.event.personalCommitment !== null) state.erased++
      newestAt = Math.max(newestAt, row.event.occurredAt.getTime())
      const link = { position, hash }
      const keptHere = expected.get(position) ?? []
      const judgements = [
        ...(row.checkpoint ? [judge(row.checkpoint, link, true)] : []),
        ...keptHere.map((checkpoint) => judge(checkpoint, link, false)),
      ]
      for (const { reason } of judgements) if (reason !== undefined) return { position, eventId, reason }
      if (judgements.length > 0) state.checkpoints++
      if (judgements.some(({ isSigned }) => isSigned)) state.coveredUpTo = position
      state.unverified += judgements.filter(({ isSigned }) => !isSigned).length
      state.last = link
      return undefined
    },

    /** Goes on from another place: what lies between was removed by retention, or is not in the file. */
    jump(link: Link): void {
      state.last = link
    },
  }
}

/** What is said of a position that is not there. */
export const missing = (position: number): Fault => ({ position, eventId: null, reason: 'it was removed' })
