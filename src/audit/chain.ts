import type { Clock } from '../clock.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { LOWEST_ID } from '../ids.ts'
import type { Warn } from '../policy/engines.ts'
import { hashOf } from './canonical.ts'
import type { ChainRepository, Link } from './chain-repository.ts'
import { createChainWalk, type Fault } from './chain-walk.ts'
import { exportedLines } from './export.ts'
import type { AuditFilters } from './repository.ts'
import type { Checkpoint, CheckpointSigner } from './signing.ts'
import { type Verification, type VerifyOptions, verifyTrail } from './verification.ts'

type Dependencies = {
  database: Database
  chain: ChainRepository
  signer: CheckpointSigner
  clock: Clock
  /** Events older than this are removed; 0: never. */
  retentionDays: number
  warn: Warn
}

const SEALED_AT_ONCE = 1000
const REMOVED_AT_ONCE = 2000
const RESIGNED_AT_ONCE = 1000
const LOOK_MS = 2000
const CHECKPOINT_EVERY_SECONDS = 3600
const CHECKPOINT_EVERY_POSITIONS = 10_000
const DAY_MS = 86_400_000

export type AuditChain = ReturnType<typeof createAuditChain>

/**
 * The order of the audit trail. Events are sealed after they are committed, so that no write waits for another: each gets
 * the next position, and a hash over itself and the hash before. Of several processes one at a time does so; one that is
 * killed leaves nothing half done. Each process remembers the last link it has seen: if that is not there any more,
 * somebody has written the chain anew, and this process seals and signs nothing on top of it.
 */
export function createAuditChain(dependencies: Dependencies) {
  const { database, chain, signer, clock, retentionDays, warn } = dependencies
  const { db } = database
  let timer: NodeJS.Timeout | undefined
  let looking: Promise<void> = Promise.resolve()
  let isStopped = false
  let seen: Link | undefined

  /** Remembers a link that is committed. */
  function remember(link: Link): void {
    if (!seen || link.position > seen.position) seen = link
  }

  /** @throws Error when the chain is not the one that this process has seen */
  async function assertAsSeen(ex: Executor): Promise<void> {
    const known = seen
    if (!known) return
    const stored = await chain.findHash(known.position, ex)
    if (stored === known.hash) return
    if (stored === undefined && ((await findRemoved(ex))?.position ?? 0) >= known.position) return
    throw new Error(
      `position ${known.position} of the audit trail is not what this process has seen there: the chain was written anew, and nothing is sealed or signed on top of it`,
    )
  }

  /**
   * Seals some of what waits after `after`; returns how much, and where to go on: `undefined` at the end or while another
   * is at it.
   */
  async function sealSome(after: string, isPatient: boolean): Promise<{ count: number; next?: string }> {
    const sealed = await transact(db, async (tx) => {
      if (!(await chain.lock(isPatient, tx))) return undefined
      await assertAsSeen(tx)
      const ids = await chain.listWaiting(after, SEALED_AT_ONCE, tx)
      await chain.closeRefusals(ids, tx)
      const { due, sealedIds } = await chain.readDue(ids, tx)
      let last: Link = await chain.findHead(tx)
      const links = due.map((event) => {
        const position = last.position + 1
        last = { position, hash: hashOf(position, event, last.hash) }
        return { ...last, eventId: event.id }
      })
      await chain.append(links, tx)
      await chain.stopWaiting([...sealedIds, ...due.map(({ id }) => id)], tx)
      return { last, count: due.length, next: ids.length === SEALED_AT_ONCE ? ids.at(-1) : undefined }
    })
    if (!sealed) return { count: 0 }
    remember(sealed.last)
    return { count: sealed.count, ...(sealed.next !== undefined && { next: sealed.next }) }
  }

  /** Seals all that waits, signs in between when that is much, and ends early when `isOver`. */
  async function sealAll(isPatient: boolean, isOver = () => false): Promise<void> {
    let uncovered = 0
    for (let after: string | undefined = LOWEST_ID; after !== undefined && !isOver(); ) {
      const { count, next }: Awaited<ReturnType<typeof sealSome>> = await sealSome(after, isPatient)
      uncovered += count
      after = next
      if (uncovered >= CHECKPOINT_EVERY_POSITIONS) {
        await sign()
        uncovered = 0
      }
    }
  }

  /** Up to where retention has removed the trail, by a checkpoint of ours. */
  async function findRemoved(ex: Executor): Promise<Link | undefined> {
    const removed = await chain.findRetentionCheckpoint(ex)
    if (!removed) return undefined
    const anchor = await chain.findCheckpoint(removed.removedUpTo, ex)
    if (!anchor || signer.verify(removed) !== 'valid' || signer.verify(anchor) !== 'valid')
      throw new Error(
        `a checkpoint of the audit trail is not ours (positions up to ${removed.removedUpTo} are said to be removed)`,
      )
    return anchor
  }

  /** Signs where the chain ends; `undefined` as long as it is empty. */
  async function sign(): Promise<Checkpoint | undefined> {
    const checkpoint = await transact(db, signHead)
    if (checkpoint) remember(checkpoint)
    return checkpoint
  }

  async function signHead(tx: Tx): Promise<Checkpoint | undefined> {
    await chain.lock(true, tx)
    await assertAsSeen(tx)
    const head = await chain.findHead(tx)
    if (head.position === 0) return undefined
    const known = await chain.findCheckpoint(head.position, tx)
    if (known && signer.verify(known) === 'valid') return known
    if (known) throw new Error(`the checkpoint at position ${head.position} of the audit trail is not ours`)
    const removedUpTo = (await findRemoved(tx))?.position ?? 0
    const checkpoint = signer.sign({ ...head, removedUpTo, createdAt: clock.now() })
    await chain.insertCheckpoint(checkpoint, tx)
    return checkpoint
  }

  /** Removes the oldest positions, if they are what was sealed: retention must not cover up what somebody has changed. */
  async function removeSome(tx: Tx): Promise<number> {
    await chain.lock(true, tx)
    await assertAsSeen(tx)
    const removed = await findRemoved(tx)
    const begin = removed?.position ?? 0
    const putIn = await chain.findUpTo(begin, tx)
    if (putIn) throw refusal({ ...putIn, reason: 'it lies before the beginning of the chain' })
    const walk = createChainWalk({ signer, kept: [], ...(removed && { start: removed }) })
    const before = new Date(clock.now().getTime() - retentionDays * DAY_MS)
    const eventIds: string[] = []
    for (const row of await chain.readPage(begin, REMOVED_AT_ONCE, tx)) {
      if (row.event && row.event.occurredAt >= before) break
      const fault = walk.step(row)
      if (fault) throw refusal(fault)
      eventIds.push(row.eventId)
    }
    if (eventIds.length === 0) return 0
    const { last } = walk.state
    const checkpoint = signer.sign({ ...last, removedUpTo: last.position, createdAt: clock.now() })
    await chain.asRetention(async () => await chain.removeUpTo(checkpoint, begin, eventIds, tx), tx)
    return eventIds.length
  }

  const refusal = ({ position, reason }: Fault): Error =>
    new Error(
      `the audit trail is not what was sealed at position ${position}, and nothing of it is removed: ${reason}`,
    )

  /** Seals what waits, and signs when it is time. Other processes may be at it: then there is nothing to do. */
  async function look(): Promise<void> {
    await assertAsSeen(db)
    remember(await chain.findHead())
    const { isWaiting, uncovered, checkpointAgeSeconds } = await chain.lookAround()
    if (isWaiting) await sealAll(false, () => isStopped)
    const isTime =
      uncovered >= CHECKPOINT_EVERY_POSITIONS ||
      (uncovered > 0 && checkpointAgeSeconds >= CHECKPOINT_EVERY_SECONDS)
    if (isTime && !isStopped) await sign()
  }

  function lookLater(): void {
    if (isStopped) return
    timer = setTimeout(() => {
      looking = look()
        .catch((error: unknown) =>
          warn({ err: error }, 'the audit trail could not be sealed; it is tried again'),
        )
        .finally(lookLater)
    }, LOOK_MS).unref()
  }

  return {
    /** Seals every event that is committed, but refusals that may still be counted up. */
    async seal(): Promise<void> {
      await sealAll(true)
    },

    /** Seals, and signs where the chain ends then; `undefined` as long as nothing has ever happened. */
    async checkpoint(): Promise<Checkpoint | undefined> {
      await sealAll(true)
      return await sign()
    },

    listCheckpoints: async (request: PageRequest): Promise<Page<Checkpoint & { id: string }>> =>
      await chain.listCheckpoints(request),

    /**
     * The sealed events that pass, as lines of JSON, in the order of the chain. Seals first, so that what is committed is
     * there, but refusals that may still be counted up. `environmentId` absent: of all environments.
     */
    async *exportLines(filters: AuditFilters, environmentId?: string): AsyncGenerator<string> {
      await sealAll(true)
      yield* exportedLines(chain, filters, environmentId)
    },

    /** Where the chain ends. */
    head: async (): Promise<Link> => await chain.findHead(),

    /** What waits to be sealed. */
    backlog: chain.backlog,

    /** Holds the stored trail against its hashes and checkpoints, and those that were kept elsewhere. */
    async verify(options: VerifyOptions = {}): Promise<Verification> {
      return await verifyTrail({ chain, signer, ...options })
    },

    /**
     * Removes what is older than AUDIT_RETENTION_DAYS from the beginning of the chain, and leaves a checkpoint in its
     * place. Returns how many events went.
     * @throws Error when what is to be removed is not what was sealed
     */
    async applyRetention(signal?: AbortSignal): Promise<number> {
      if (retentionDays === 0) return 0
      let all = 0
      for (let some = REMOVED_AT_ONCE; some === REMOVED_AT_ONCE; all += some) {
        signal?.throwIfAborted()
        some = await transact(db, removeSome)
      }
      return all
    },

    /** Signs anew what was signed under a key that is known and no longer the one that signs. */
    async resign(): Promise<void> {
      await transact(db, async (tx) => {
        await chain.asRetention(async () => {
          for (let after: number | undefined = 0; after !== undefined; ) {
            const outdated = await chain.listSignedOtherwise(signer.prefix, after, RESIGNED_AT_ONCE, tx)
            for (const checkpoint of outdated)
              if (signer.verify(checkpoint) === 'valid')
                await chain.replaceSignature(signer.sign(checkpoint), tx)
            after = outdated.at(-1)?.position
          }
        }, tx)
      })
    },

    /** Seals and signs from now on, some at a time. */
    start(): void {
      lookLater()
    },

    /** Ends what `start` began; what is being sealed is brought to its end, and no more is taken up. */
    async stop(): Promise<void> {
      isStopped = true
      clearTimeout(timer)
      await looking
    },
  }
}
