import { LOWEST_ID } from '../ids.ts'
import { GENESIS } from './canonical.ts'
import type { ChainRepository, Link } from './chain-repository.ts'
import { createChainWalk, type Fault, missing, type WalkState } from './chain-walk.ts'
import type { Checkpoint, CheckpointSigner } from './signing.ts'

/** What a verification came to. `fault`: the first thing that is wrong. */
export type Verification = {
  fault?: Fault
  /** Where it began, and what was seen from there on. */
  start: Link
  state: WalkState
  /** Positions that retention has removed. */
  removedUpTo: number
}

export type VerifyOptions = {
  /** Checkpoints that were kept elsewhere. */
  kept?: readonly Checkpoint[]
  /** The first position to be looked at; it begins at the last checkpoint before it. */
  from?: number
  /** Whether stored checkpoints may be signed with keys that are not at hand; see the walk. */
  acceptsUnknownKeys?: boolean
}

type Options = VerifyOptions & { chain: ChainRepository; signer: CheckpointSigner }

const PAGE = 1000
const STRAY_PAGE = 5000

/**
 * Goes through the whole trail of a database that may be in use, page by page: every position, its event, what is
 * personal about it as long as it is there, checkpoints stored and kept, and events that are in no chain.
 */
export async function verifyTrail({
  chain,
  signer,
  kept = [],
  from = 1,
  acceptsUnknownKeys = false,
}: Options): Promise<Verification> {
  const removal = await removedBefore()
  if ('fault' in removal) return nothing(removal.fault)
  const start = await startOf(removal.link)
  const walk = createChainWalk({ signer, kept, acceptsUnknownKeys, start })
  const fault =
    faultOfKept(removal.link) ??
    (await faultOfBeginning(removal.link)) ??
    (await walkThrough()) ??
    (await faultOfEnd()) ??
    (await faultOfRest())
  return {
    ...(fault && { fault }),
    start,
    state: walk.state,
    removedUpTo: (await chain.findRetentionCheckpoint())?.position ?? 0,
  }

  /** What retention has left in place of the positions that it removed. */
  async function removedBefore(): Promise<{ link: Link } | { fault: Fault }> {
    const left = await chain.findRetentionCheckpoint()
    if (!left) return { link: { position: 0, hash: GENESIS } }
    const { removedUpTo } = left
    const anchor = await chain.findCheckpoint(removedUpTo)
    const signature = anchor?.removedUpTo === removedUpTo ? signer.verify(anchor) : 'wrong'
    if (!anchor || signature === 'wrong' || (signature === 'unknown_key' && !acceptsUnknownKeys)) {
      return {
        fault: {
          position: removedUpTo,
          eventId: null,
          reason: 'what is before it is said to be removed by retention, and no checkpoint of ours says so',
        },
      }
    }
    return { link: anchor }
  }

  async function startOf(removed: Link): Promise<Link> {
    if (from <= removed.position + 1) return removed
    const before = await chain.findLatestCheckpoint(undefined, from - 1)
    if (!before || before.position < removed.position || signer.verify(before) !== 'valid') return removed
    return before
  }

  /** Of what retention has removed nothing can be said but that a kept checkpoint is one of ours, and fits its end. */
  function faultOfKept(removed: Link): Fault | undefined {
    for (const checkpoint of kept) {
      const { position, hash } = checkpoint
      if (signer.verify(checkpoint) === 'wrong')
        return { position, eventId: null, reason: 'the checkpoint that was kept of it is not one of ours' }
      if (position === removed.position && hash !== removed.hash)
        return { position, eventId: null, reason: 'the checkpoint that was kept of it says something else' }
    }
    return undefined
  }

  /** Retention removes positions and leaves its checkpoint in one transaction, so nothing ever lies before that. */
  async function faultOfBeginning(removed: Link): Promise<Fault | undefined> {
    const found = await chain.findUpTo(removed.position)
    return found && { ...found, reason: 'it lies before the beginning of the chain: it was put in' }
  }

  async function walkThrough(): Promise<Fault | undefined> {
    for (;;) {
      const rows = await chain.readPage(walk.state.last.position, PAGE)
      for (const row of rows) {
        const next = walk.state.last.position + 1
        if (row.position !== next) {
          // Retention may have gone on meanwhile.
          const removal = await removedBefore()
          if ('fault' in removal) return removal.fault
          if (removal.link.position < next) return missing(next)
          walk.jump(removal.link)
          break
        }
        const fault = walk.step(row)
        if (fault) return fault
      }
      if (rows.length === 0) return undefined
    }
  }

  async function faultOfEnd(): Promise<Fault | undefined> {
    const end = walk.state.last.position
    const beyond =
      (await chain.findCheckpointBeyondEnd()) ?? kept.find((checkpoint) => checkpoint.position > end)
    return beyond && { ...missing(end + 1), reason: `it was removed, and all up to ${beyond.position}` }
  }

  async function faultOfRest(): Promise<Fault | undefined> {
    const position = walk.state.last.position + 1
    const lostId = await chain.findLostId()
    if (lostId !== undefined)
      return { position, eventId: lostId, reason: 'an event was removed before it was sealed' }
    for (let after: string | undefined = LOWEST_ID; after !== undefined; ) {
      const { strayId, upTo }: Awaited<ReturnType<typeof chain.findStray>> = await chain.findStray(
        after,
        STRAY_PAGE,
      )
      if (strayId !== null)
        return { position, eventId: strayId, reason: 'there is an event that no chain knows: it was put in' }
      after = upTo
    }
    return undefined
  }

  function nothing(fault: Fault): Verification {
    const begin = { position: 0, hash: GENESIS }
    const { state } = createChainWalk({ signer, kept, acceptsUnknownKeys, start: begin })
    return { fault, start: begin, state, removedUpTo: fault.position }
  }
}
