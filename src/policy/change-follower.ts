import { createFollowing } from '../db/follow.ts'
import { AppError } from '../errors.ts'
import type { Environment } from './environment.ts'
import type { VersionsRepository } from './versions.ts'

/** The channel on which Postgres tells every new version, as `environment:version`. */
const CHANNEL = 'postern_policy'
/** How long a question waits for the database to say what has changed, and then for how long none does. */
const WAIT_MS = 500
const RETRY_MS = 200

type Dependencies = {
  versions: VersionsRepository
  /** The environments that this process has in memory. */
  environments: () => readonly Environment[]
  environment: (environmentId: string) => Environment | undefined
  /** How long what is cached may be served without hearing from the database. */
  maxStalenessMs: number
  now: () => number
}

/** Makes nothing run by itself: `catchUp` and `ensureFresh` work without `start`. */
export function createChangeFollower(deps: Dependencies) {
  const { versions, environments, environment, maxStalenessMs, now } = deps
  let running: Promise<void> | undefined
  let queued: Promise<void> | undefined
  let failedAt = Number.NEGATIVE_INFINITY
  /** Since when a change of this process itself is committed that its cache may not know. */
  let behindSince: number | undefined

  async function run(): Promise<void> {
    const followed = environments()
    const startedAt = now()
    if (followed.length > 0) {
      const from = followed.map(({ version }) => version())
      const known = followed.map(({ environmentId }, place) => ({ environmentId, version: from[place] }))
      try {
        const progress = await versions.readProgress(known)
        followed.forEach((one, place) => {
          const made = progress[place]
          if (made) one.advance(from[place], made, startedAt)
        })
      } catch (error) {
        failedAt = now()
        throw error
      }
    }
    if (behindSince !== undefined && startedAt >= behindSince) behindSince = undefined
  }

  const begin = (): Promise<void> => {
    running ??= run().finally(() => {
      running = undefined
    })
    return running
  }

  /** Learns what has changed until now. Whoever comes while a run is under way shares the next one. */
  async function catchUp(): Promise<void> {
    if (!running) return await begin()
    const again = async () => {
      queued = undefined
      await begin()
    }
    queued ??= running.then(again, again)
    return await queued
  }

  const isFresh = (one: Environment): boolean =>
    behindSince === undefined && now() - one.freshAt() <= maxStalenessMs

  const following = createFollowing({
    channel: CHANNEL,
    notify: versions.notify,
    catchUp,
    isNews: (payload) => {
      const colon = payload.indexOf(':')
      const version = environment(payload.slice(0, colon))?.version()
      return version !== undefined && Number(payload.slice(colon + 1)) > version
    },
  })

  return {
    catchUp,

    /** After a commit of this process: the next question sees what it wrote. Never fails. */
    async onCommit(): Promise<void> {
      const committedAt = now()
      try {
        await within(WAIT_MS, catchUp())
      } catch {
        behindSince = committedAt
      }
    },

    /** True: what is cached of the environment may be served as it is. */
    isFresh,

    /**
     * Asks the database what has changed. When it does not answer, what is cached is served for as long as it may.
     * @throws AppError policy_unavailable beyond that time
     */
    async ensureFresh(one: Environment): Promise<void> {
      if (isFresh(one) || one.version() === undefined) return
      if (now() - failedAt >= RETRY_MS) {
        await within(WAIT_MS, catchUp()).catch(() => {
          failedAt = now()
        })
      }
      if (one.version() !== undefined && now() - one.freshAt() > Math.max(maxStalenessMs, WAIT_MS)) {
        throw new AppError('policy_unavailable', { retryAfterSeconds: 1 })
      }
    },

    /** Hears of changes as they happen, and asks once a second all the same; `url` is for LISTEN. */
    start: (url: string): void => following.start(url),

    async stop(): Promise<void> {
      await following.stop()
      await running?.catch(() => {})
    },

    /** For the metrics. */
    state: () => ({ isBehind: behindSince !== undefined, isListening: following.isListening() }),
  }
}

async function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new AppError('policy_unavailable')), milliseconds)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
