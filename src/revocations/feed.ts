import { setTimeout as sleep } from 'node:timers/promises'
import { createFollowing } from '../db/follow.ts'
import { AppError } from '../errors.ts'
import type { Revocation, RevocationsRepository, Stretch } from './repository.ts'

/** The channel on which Postgres tells the newest version. */
const CHANNEL = 'postern_revocations'
/** The most rows of one answer, or of one event of a stream. */
export const PAGE_SIZE = 1000
/** So many of the newest rows are kept, so that streams that keep up cost the database nothing. */
const KEPT_ROWS = 20_000
/** How often a stream says that nothing is missing. */
const HEARTBEAT_MS = 10_000
/** A client that takes nothing for so long is cut off; it comes back and goes on where it was. */
const STALLED_MS = 30_000
/** Streams end by themselves, so that who may no longer read is found out. */
const LONGEST_STREAM_MS = 300_000
const MOST_STREAMS = 2000
/** One caller may not take every place. */
const MOST_STREAMS_PER_CALLER = 200
/** How long a first reader waits for the database. */
const WAIT_MS = 5000

/** A place in the history. Opaque to clients. */
export type Cursor = { epoch: string; version: number }

/** A page of the history. */
export type Page = { revocations: Revocation[]; next: Cursor; hasMore: boolean }

/** One event of a stream (WHATWG HTML §9.2): rows, or that everything until `ageSeconds` ago has been sent. */
export type FeedEvent = { cursor: Cursor } & ({ rows: readonly Revocation[] } | { ageSeconds: number })

type Dependencies = {
  revocations: RevocationsRepository
  /** Monotonic milliseconds. */
  now: () => number
}

/**
 * What ended tokens, for verifiers elsewhere. One reader in each process follows the table as long as somebody
 * streams; each stream takes from it at its own pace, so that a slow client holds nothing but its place.
 */
export function createRevocationFeed({ revocations, now }: Dependencies) {
  /** The end of the history that this process has read, and the rows between `keptFrom` and there. */
  let end: Cursor | undefined
  let kept: Revocation[] = []
  let keptFrom = 0
  let readAt = Number.NEGATIVE_INFINITY
  let beat = 0
  let heartbeat: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isAskedAgain = false
  let directUrl: string | undefined
  let isClosed = false
  const streams = new Map<AbortController, string>()
  const waiting = new Set<() => void>()

  function wakeAll(): void {
    for (const wake of waiting) wake()
    waiting.clear()
  }

  function take(stretch: Stretch): void {
    const { epoch, head, rows, upTo } = stretch
    if (!end || end.epoch !== epoch || head < end.version) {
      // The first look, or a database that was put back to an earlier state: what was kept is of another history.
      kept = []
      keptFrom = head
      end = { epoch, version: head }
      return
    }
    for (const row of rows) kept.push(row)
    end = { epoch, version: upTo }
    const surplus = kept.length - KEPT_ROWS
    // Only now and then, because it moves all that stay.
    if (surplus > KEPT_ROWS / 2) {
      kept = kept.slice(surplus)
      keptFrom = (kept[0]?.version ?? upTo + 1) - 1
    }
  }

  async function read(): Promise<void> {
    do {
      isAskedAgain = false
      const startedAt = now()
      const known = end
      const stretch = known
        ? await revocations.readSince(known.version, PAGE_SIZE)
        : await revocations.readSince(0, 0)
      take(stretch)
      if (stretch.upTo === stretch.head) readAt = startedAt
      else isAskedAgain = true
      if (known?.version !== end?.version || known?.epoch !== end?.epoch) wakeAll()
    } while (isAskedAgain && !isClosed)
  }

  /** Learns what has been revoked until now. Whoever comes while it reads has it read once more. */
  async function catchUp(): Promise<void> {
    if (running !== undefined) isAskedAgain = true
    running ??= read().finally(() => {
      running = undefined
    })
    await running
  }

  const newFollowing = () =>
    createFollowing({
      channel: CHANNEL,
      notify: revocations.notify,
      catchUp,
      isNews: (payload) => Number(payload) > (end?.version ?? -1),
    })
  let following: ReturnType<typeof newFollowing> | undefined

  function follow(): void {
    if (following || isClosed) return
    following = newFollowing()
    following.start(directUrl)
    heartbeat = setInterval(() => {
      beat++
      wakeAll()
    }, HEARTBEAT_MS).unref()
  }

  async function unfollow(): Promise<void> {
    const last = following
    following = undefined
    end = undefined
    kept = []
    clearInterval(heartbeat)
    await last?.stop()
  }

  /** Where a reader goes on: from the start of the history unless the cursor is a place in this one. */
  const placeOf = (cursor: Cursor | undefined, history: Cursor): number =>
    cursor && cursor.epoch === history.epoch && cursor.version <= history.version ? cursor.version : 0

  /** Rows after `version` that are at hand: one page of them, and up to where. */
  function keptAfter(version: number, until: number): { rows: Revocation[]; upTo: number } {
    let low = 0
    for (let high = kept.length; low < high; ) {
      const middle = (low + high) >>> 1
      if ((kept[middle]?.version ?? 0) <= version) low = middle + 1
      else high = middle
    }
    const rows = kept.slice(low, low + PAGE_SIZE)
    return { rows, upTo: rows.length === PAGE_SIZE ? (rows.at(-1)?.version ?? until) : until }
  }

  const change = async (): Promise<void> => {
    await new Promise<void>((resolve) => waiting.add(resolve))
  }

  async function* events(since: Cursor | undefined, signal: AbortSignal): AsyncGenerator<FeedEvent> {
    if (!end) return
    const { epoch } = end
    let place = placeOf(since, end)
    let saidAt = -1
    while (!signal.aborted && end?.epoch === epoch && place <= end.version) {
      if (place < end.version) {
        const stretch = place < keptFrom ? await readOlder(place) : keptAfter(place, end.version)
        if (!stretch) return
        place = stretch.upTo
        if (stretch.rows.length > 0) yield { cursor: { epoch, version: place }, rows: stretch.rows }
      } else if (saidAt !== beat) {
        saidAt = beat
        yield { cursor: { epoch, version: place }, ageSeconds: Math.max(0, now() - readAt) / 1000 }
      } else await change()
    }
  }

  /** Rows that are no longer at hand; `undefined` when the database does not give them. */
  async function readOlder(place: number): Promise<Stretch | undefined> {
    try {
      const stretch = await revocations.readSince(place, PAGE_SIZE)
      // It may know more than the reader, which then has to know it too.
      if (stretch.upTo > (end?.version ?? 0)) await catchUp()
      return stretch
    } catch {
      return undefined
    }
  }

  /** What `source` gives, until whoever takes it lets it wait for too long. */
  async function* cutWhenStalled<T>(source: AsyncGenerator<T>, controller: AbortController) {
    let timer: NodeJS.Timeout | undefined
    try {
      for await (const one of source) {
        timer = setTimeout(() => controller.abort(), STALLED_MS).unref()
        yield one
        clearTimeout(timer)
      }
    } finally {
      clearTimeout(timer)
      controller.abort()
    }
  }

  return {
    /** One page of the history after `since`; from its start when `since` is of another one. */
    async page(since: Cursor | undefined, limit: number): Promise<Page> {
      let stretch = await revocations.readSince(since?.version ?? 0, limit)
      const place = placeOf(since, { epoch: stretch.epoch, version: stretch.head })
      if (since && place !== since.version) stretch = await revocations.readSince(0, limit)
      const { epoch, upTo, head, rows } = stretch
      return { revocations: rows, next: { epoch, version: upTo }, hasMore: upTo < head }
    },

    /**
     * The history after `since` and then whatever happens, until the signal that comes with it is aborted: after five
     * minutes, when the consumer stalls, or when the service ends. Whoever consumes it aborts it at the end.
     * @throws AppError stream_limit_reached, database_unavailable
     */
    async stream(
      since: Cursor | undefined,
      caller: string,
    ): Promise<{ events: AsyncGenerator<FeedEvent>; controller: AbortController }> {
      const own = [...streams.values()].filter((name) => name === caller).length
      if (isClosed || streams.size >= MOST_STREAMS || own >= MOST_STREAMS_PER_CALLER)
        throw new AppError('stream_limit_reached', { retryAfterSeconds: 5 })
      const controller = new AbortController()
      streams.set(controller, caller)
      const longest = setTimeout(() => controller.abort(), LONGEST_STREAM_MS).unref()
      controller.signal.addEventListener('abort', () => {
        clearTimeout(longest)
        streams.delete(controller)
        wakeAll()
        if (streams.size === 0) void unfollow()
      })
      const isFirst = following === undefined
      follow()
      try {
        // Whoever joins later finds a reader that is up to date.
        if (isFirst || !end) await Promise.race([catchUp(), lateDatabase()])
      } catch (error) {
        controller.abort()
        throw error
      }
      return { events: cutWhenStalled(events(since, controller.signal), controller), controller }
    },

    /** Where the notifications of other processes are heard; without it the database is asked again and again. */
    start(url: string): void {
      directUrl = url
    },

    /** Ends every stream. Their clients find another process, or this one when it is back. */
    endStreams(): void {
      isClosed = true
      for (const controller of [...streams.keys()]) controller.abort()
    },

    async stop(): Promise<void> {
      this.endStreams()
      await unfollow()
      await running?.catch(() => {})
    },

    /** For the metrics. */
    state: () => ({ streams: streams.size, isListening: following?.isListening() ?? false }),
  }
}

async function lateDatabase(): Promise<never> {
  await sleep(WAIT_MS, undefined, { ref: false })
  throw new AppError('database_unavailable', { retryAfterSeconds: 1 })
}
