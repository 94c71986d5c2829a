import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '../config.ts'
import { createPool, type Database, type Executor, timeLimits } from '../db/client.ts'
import type { JobsRepository, NewJob, QueueState } from './repository.ts'

/** What is done with the jobs of one name. */
export type JobTask = {
  /** @throws when the job is to be tried again: after three seconds, and ever later */
  run(payload: unknown, attempt: Attempt): Promise<void>
  /** A failed job does not wait longer than this for its next try. Default: up to some hours. */
  retriesWithinMs?: number
  /** Somebody waits for it: it has slots that nothing else takes, however much waits or hangs. */
  isUrgent?: boolean
}

/**
 * What is done again and again. When the signal is aborted, whoever may take long stops where it stands by throwing its
 * reason, and is run again soon.
 */
export type ScheduledWork = (signal: AbortSignal) => Promise<unknown>

/** Which try of a job this is, and whether it is given up when it fails. */
export type Attempt = { number: number; isLast: boolean }

/** A job as the library has it. */
type RunningJob = { id: string; locked_by: string | null; attempts: number; max_attempts: number }

type Dependencies = {
  database: Database
  repository: JobsRepository
  /** The limits of connections, and whether named prepared statements may be used. */
  config: Config['database']
  onWarning: (details: Record<string, unknown>, message: string) => void
}

const CONCURRENCY = 3
const URGENT_CONCURRENCY = 2
/** How soon a try that has become due is noticed; a new job is told of at once. */
const POLL_MS = 1000
const TEND_MS = 15_000
/** Whoever works on a job says so this often, and is taken for dead when nothing was heard for so long. */
const SIGN_OF_LIFE_MS = 15_000
const DEAD_AFTER_MS = 60_000

/** Batches of jobs that are done are written down before a worker ends; single ones are not waited for. */
const PRESET = { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } }

/** Scheduled work is in one queue, so that it takes one slot at most, and is not behind thousands of other jobs. */
const SCHEDULE_QUEUE = 'schedule'
const SCHEDULE_PRIORITY = 10
/** Work that takes longer is told to pause, and goes on when the others have had their turn. */
const LONGEST_SHIFT_MS = 20_000

/** After the database was away for long, the library gives up, and is started anew. */
const RESTART_MS = 2000

export type Jobs = ReturnType<typeof createJobs>

/**
 * What is done later and again until it is done, by any process that serves. A job that is added in a transaction is
 * there when that commits, and never otherwise. Jobs may run twice, after a process was killed. The library is loaded
 * when it is used.
 */
export function createJobs({ database, repository, config, onWarning }: Dependencies) {
  const tasks = new Map<string, JobTask>()
  const scheduled = new Set<string>()
  let running: Promise<unknown> | undefined
  const stopping = new AbortController()

  const namesOf = (isUrgent: boolean): string[] =>
    [...tasks].flatMap(([name, task]) => ((task.isUrgent ?? false) === isUrgent ? [name] : []))

  async function options(only: readonly string[] = [...tasks.keys()]) {
    const { Logger } = await import('graphile-worker')
    const logger = new Logger(() => (level, message) => {
      if (level === 'error' || level === 'warning') onWarning({ job: message }, 'a job failed')
    })
    const chosen = [...tasks].filter(([name]) => only.includes(name))
    const taskList = Object.fromEntries(
      chosen.map(([name, task]) => [
        name,
        async (payload: unknown, { job }: { job: RunningJob }) => await runAlive(task, payload, job),
      ]),
    )
    return { logger, preset: PRESET, taskList, noHandleSignals: true, noPreparedStatements: !config.prepare }
  }

  async function runAlive(task: JobTask, payload: unknown, job: RunningJob): Promise<void> {
    const sign = (): void => void repository.keepLocked(job.id, job.locked_by).catch(() => {})
    const alive = setInterval(sign, SIGN_OF_LIFE_MS).unref()
    try {
      await task.run(payload, { number: job.attempts, isLast: job.attempts >= job.max_attempts })
    } finally {
      clearInterval(alive)
    }
  }

  async function tend(): Promise<void> {
    const patience = [...tasks].flatMap(([task, { retriesWithinMs }]) =>
      retriesWithinMs === undefined ? [] : [{ task, retriesWithinMs }],
    )
    await repository.tend([...tasks.keys()], DEAD_AFTER_MS, patience)
  }

  async function runUntilStopped(directUrl: string, names: readonly string[], slots: number): Promise<void> {
    const { signal } = stopping
    while (!signal.aborted && names.length > 0) {
      try {
        await runOnceStarted(directUrl, names, slots)
      } catch (error) {
        onWarning({ err: error }, 'the job worker ended, and is started again')
      }
      await sleep(RESTART_MS, undefined, { signal }).catch(() => {})
    }
  }

  /** Returns when it was stopped; throws when it ended otherwise. */
  async function runOnceStarted(directUrl: string, names: readonly string[], slots: number): Promise<void> {
    const { signal } = stopping
    const { run } = await import('graphile-worker')
    // The library stops to hear of errors of a pool of its own before that has ended: one then ends the process.
    const limits = { max: slots + 2, ...timeLimits(config) }
    const pool = createPool({ connectionString: directUrl, ...limits }, (error) =>
      onWarning({ err: error }, 'a connection of the job worker was lost'),
    )
    try {
      const runner = await run({
        ...(await options(names)),
        pgPool: pool,
        concurrency: slots,
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
    } finally {
      void pool.end()
    }
  }

  /** Runs the work, and asks for its next time, whether it failed or not: at once for what paused. */
  const scheduledTask = (name: string, everySeconds: number, work: ScheduledWork): JobTask => ({
    async run() {
      // Not `AbortSignal.any`: one that nobody listens to may be collected as garbage before it aborts.
      const shift = new AbortController()
      const { signal } = shift
      const end = (): void => shift.abort()
      const timer = setTimeout(end, LONGEST_SHIFT_MS).unref()
      stopping.signal.addEventListener('abort', end)
      if (stopping.signal.aborted) end()
      let hasPaused = false
      try {
        // A worker that ends may still take one.
        signal.throwIfAborted()
        await work(signal)
      } catch (error) {
        hasPaused = signal.aborted && error === signal.reason
        if (!hasPaused)
          onWarning(
            { err: error, work: name },
            'scheduled work failed, and is tried again when its time comes',
          )
      } finally {
        clearTimeout(timer)
        stopping.signal.removeEventListener('abort', end)
      }
      const runAt = new Date(Date.now() + (hasPaused ? 0 : everySeconds * 1000))
      await repository.add(name, [
        { payload: {}, key: name, queue: SCHEDULE_QUEUE, priority: SCHEDULE_PRIORITY, runAt },
      ])
    },
  })

  return {
    /** Says what is done with the jobs of a name. Before `start`. */
    handle(name: string, task: JobTask): void {
      tasks.set(name, task)
    },

    /**
     * Has `work` run every so many seconds, by one process at a time of all that serve one database, and one work at a
     * time. It must bear to be run again after a process was killed. A failure is told to the log. Before `start`.
     */
    schedule(name: string, everySeconds: number, work: ScheduledWork): void {
      const task = `schedule:${name}`
      tasks.set(task, scheduledTask(task, everySeconds, work))
      scheduled.add(task)
    },

    /** Adds a job, in the caller's transaction when `ex` is one. */
    async add(task: string, job: NewJob, ex?: Executor): Promise<void> {
      await repository.add(task, [job], ex)
    },

    /** How each task stands that has jobs. */
    states: async (): Promise<QueueState[]> => await repository.states(),

    /** Takes jobs from now on. `directUrl`: a connection without a pooler hears of new ones at once; else they are polled for. */
    start(directUrl: string): void {
      const tendAndSchedule = async (): Promise<void> => {
        await tend()
        await repository.ensure([...scheduled], SCHEDULE_QUEUE, SCHEDULE_PRIORITY)
      }
      const tendLater = (): void =>
        void tendAndSchedule().catch((error: unknown) =>
          onWarning({ err: error }, 'jobs could not be tended'),
        )
      tendLater()
      const tending = setInterval(tendLater, TEND_MS).unref()
      stopping.signal.addEventListener('abort', () => clearInterval(tending), { once: true })
      running = Promise.all([
        runUntilStopped(directUrl, namesOf(true), URGENT_CONCURRENCY),
        runUntilStopped(directUrl, namesOf(false), CONCURRENCY),
      ])
    },

    /** Finishes what is under way, and takes no more. */
    async stop(): Promise<void> {
      stopping.abort()
      await running
    },

    /** Does what is due, once, and returns: what fails is tried again later. `only`: the tasks that are meant. */
    async runDue(only?: readonly string[]): Promise<void> {
      await tend()
      const { runOnce } = await import('graphile-worker')
      const once = async () => await runOnce({ ...(await options(only)), pgPool: database.pool })
      await Promise.all(Array.from({ length: CONCURRENCY }, once))
    },

    /** Makes or updates the tables of the jobs, in a schema of their own, as a plain owner of the database. */
    async install(): Promise<void> {
      // A version of the library that needs other tables changes them when it starts to work.
      if (await repository.isInstalled()) return
      const { Logger, runMigrations } = await import('graphile-worker')
      await runMigrations({ pgPool: database.pool, logger: new Logger(() => () => {}) })
    },
  }
}
