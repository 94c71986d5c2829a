import type { Runner } from 'graphile-worker'
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

export type JobWorker = ReturnType<typeof createJobWorker>

const CONCURRENCY = 2
const POLL_MS = 1000
const TEND_MS = 15_000
/** Twice as long as a job may take: its worker is no more. */
const DEAD_AFTER_MS = 2 * LONGEST_JOB_MS
const RETRY_MS = 60_000

/** Runs the jobs. The library is loaded when it is used. */
export function createJobWorker({ database, jobs, mirror, prepare, onWarning }: Dependencies) {
  let runner: Promise<Runner> | undefined
  let tending: NodeJS.Timeout | undefined

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

  return {
    /** Takes jobs from now on. `directUrl`: a connection without a pooler hears of new ones at once; else they are polled for. */
    async start(directUrl: string): Promise<void> {
      const { run } = await import('graphile-worker')
      const starting = options().then(
        async (common) =>
          await run({
            ...common,
            connectionString: directUrl,
            maxPoolSize: CONCURRENCY + 2,
            concurrency: CONCURRENCY,
            pollInterval: POLL_MS,
          }),
      )
      runner = starting
      await starting
      const tendLater = (): void =>
        void tend().catch((error: unknown) => onWarning({ err: error }, 'jobs could not be tended'))
      tendLater()
      tending = setInterval(tendLater, TEND_MS).unref()
    },

    /** Finishes what is under way, and takes no more. */
    async stop(): Promise<void> {
      clearInterval(tending)
      const stopping = await runner?.catch(() => undefined)
      runner = undefined
      await stopping?.stop()
    },

    /** Does what is due, once, and returns: what fails is tried again later. */
    async runDue(): Promise<void> {
      await tend()
      const { runOnce } = await import('graphile-worker')
      await runOnce({ ...(await options()), pgPool: database.pool })
    },
  }
}

/**
 * Makes or updates the tables of the jobs, in a schema of their own, as a plain owner of the database.
 * @param url a direct connection; the caller holds the start lock
 */
export async function installJobs(url: string): Promise<void> {
  const { Logger, runMigrations } = await import('graphile-worker')
  await runMigrations({ connectionString: url, maxPoolSize: 1, logger: new Logger(() => () => {}) })
}
