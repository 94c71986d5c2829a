import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../db/client.ts'
import { LONGEST_JOB_MS, type MirrorToPermit } from './mirror-to-permit.ts'
import { type JobsRepository, MIRROR_TASK, type MirrorSubject } from './repository.ts'

type Dependencies = {
  database: Database
  jobs: JobsRepository
  mirror: MirrorToPermit
  /** Whether named prepared statements may be used. */
  prepare: boolean
  onWarning: (details: Record<string, unknown>, message: string) => void
}

const CONCURRENCY = 2
const POLL_MS = 1000
const TEND_MS = 15_000
/** Twice as long as a job may take: its worker is no more. */
const DEAD_AFTER_MS = 2 * LONGEST_JOB_MS
const RETRY_MS = 60_000

/** After the database was away for long, the library gives up, and is started anew. */
const RESTART_MS = 2000

/** Runs the jobs. The library is loaded when it is used. */
export function createJobWorker({ database, jobs, mirror, prepare, onWarning }: Dependencies) {
  let running: Promise<void> | undefined
  const stopping = new AbortController()

  const taskList = { [MIRROR_TASK]: async (payload: unknown) => await mirror.run(payload as MirrorSubject) }

  async function options() {
    const { Logger } = await import('graphile-worker')
    const logger = new Logger(() => (level, message) => {
      if (level === 'error' || level === 'warning') onWarning({ job: message }, 'a job failed')
    })
    return { logger, taskList, noHandleSignals: true, noPreparedStatements: !prepare }
  }

  async function tend(): Promise<void> {
    await jobs.tend({ deadAfterMs: DEAD_AFTER_MS, retryMs: RETRY_MS })
  }

  async function runUntilStopped(directUrl: string): Promise<void> {
    const { signal } = stopping
    while (!signal.aborted) {
      try {
        await runOnceStarted(directUrl, signal)
      } catch (error) {
        onWarning({ err: error }, 'the job worker ended, and is started again')
      }
      await sleep(RESTART_MS, undefined, { signal }).catch(() => {})
    }
  }

  /** Returns when it was stopped; throws when it ended otherwise. */
  async function runOnceStarted(directUrl: string, signal: AbortSignal): Promise<void> {
    const { run } = await import('graphile-worker')
    const runner = await run({
      ...(await options()),
      connectionString: directUrl,
      maxPoolSize: CONCURRENCY + 2,
      concurrency: CONCURRENCY,
      pollInterval: POLL_MS,
    })
    const stop = (): void => void runner.stop().catch(() => {})
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    try {
      await runner.promise
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  return {
    /** Takes jobs from now on. `directUrl`: a connection without a pooler hears of new ones at once; else they are polled for. */
    start(directUrl: string): void {
      const tendLater = (): void =>
        void tend().catch((error: unknown) => onWarning({ err: error }, 'jobs could not be tended'))
      tendLater()
      const tending = setInterval(tendLater, TEND_MS).unref()
      stopping.signal.addEventListener('abort', () => clearInterval(tending), { once: true })
      running = runUntilStopped(directUrl)
    },

    /** Finishes what is under way, and takes no more. */
    async stop(): Promise<void> {
      stopping.abort()
      await running
    },

    /** Does what is due, once, and returns: what fails is tried again later. */
    async runDue(): Promise<void> {
      await tend()
      const { runOnce } = await import('graphile-worker')
      const once = async () => await runOnce({ ...(await options()), pgPool: database.pool })
      await Promise.all(Array.from({ length: CONCURRENCY }, once))
    },
  }
}

/** Makes or updates the tables of the jobs, in a schema of their own, as a plain owner of the database. */
export async function installJobs({ pool }: Database): Promise<void> {
  const { Logger, runMigrations } = await import('graphile-worker')
  await runMigrations({ pgPool: pool, logger: new Logger(() => () => {}) })
}
