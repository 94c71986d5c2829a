import { sql } from 'drizzle-orm'
import type { Database, Executor } from '../db/client.ts'

/** What is to be done. */
export type NewJob = {
  payload: Readonly<Record<string, unknown>>
  /** One that waits under the same key is the same job: it is replaced. */
  key?: string
  /** Jobs of one queue run one after the other. */
  queue?: string
  /** Default: at once. */
  runAt?: Date
  /** After so many failures it is given up. */
  mostAttempts?: number
  /** Of what is due, the lowest number comes first. Default: 0. */
  priority?: number
}

/** How the jobs of one task stand. */
export type QueueState = {
  task: string
  /** Jobs that are due, wait for another try, or run. */
  pending: number
  /** Those of them that have failed before. */
  failed: number
  /** Since when the oldest of them waits; `undefined` without any. */
  oldestAt: Date | undefined
  /** What the last failures said. */
  errors: readonly string[]
}

const JOBS_IN_BATCH = 1000

export type JobsRepository = ReturnType<typeof createJobsRepository>

/** The jobs of every task, in the tables of graphile-worker. */
export function createJobsRepository({ db }: Database) {
  return {
    /** Adds jobs, in the caller's transaction when `ex` is one. */
    async add(task: string, jobs: readonly NewJob[], ex: Executor = db): Promise<void> {
      for (let start = 0; start < jobs.length; start += JOBS_IN_BATCH) {
        const specs = JSON.stringify(jobs.slice(start, start + JOBS_IN_BATCH))
        await ex.execute(sql`
          select count(*) from graphile_worker.add_jobs(array(
            select (${task}, s.payload, s.queue, s."runAt", s."mostAttempts", s.key, s.priority,
              null::text[])::graphile_worker.job_spec
            from json_to_recordset(${specs}::json) as s
              (payload json, queue text, "runAt" timestamptz, "mostAttempts" smallint, key text, priority smallint)
            order by s.key))`)
      }
    },

    /** Adds each job of these tasks that does not wait or run already, under the name of its task. */
    async ensure(tasks: readonly string[], queue: string, priority: number): Promise<void> {
      if (tasks.length === 0) return
      await db.execute(sql`
        select count(*) from graphile_worker.add_jobs(array(
          select (task, '{}'::json, ${queue}, null::timestamptz, null::smallint, task, ${priority}::smallint,
            null::text[])::graphile_worker.job_spec
          from unnest(${sql.param([...tasks])}::text[]) as task
          where not exists (select from graphile_worker.jobs where key = task)
          order by task), true)`)
    },

    /** How each task stands that has jobs; nothing where the tables were never made. */
    async states(): Promise<QueueState[]> {
      if (!(await this.isInstalled())) return []
      const { rows } = await db.execute<{
        task: string
        pending: number
        failed: number
        oldest: string
        errors: string[] | null
      }>(sql`
        select task_identifier as task, count(*)::int as pending,
          count(*) filter (where last_error is not null)::int as failed, min(created_at) as oldest,
          (array_agg(last_error order by updated_at desc) filter (where last_error is not null))[1:5] as errors
        from graphile_worker.jobs
        where (run_at <= now() or last_error is not null)
          -- One that runs while a later job has taken its place has lost its key.
          and not (key is null and attempts >= max_attempts)
        group by task_identifier`)
      return rows.map(({ oldest, errors, ...counts }) => ({
        ...counts,
        oldestAt: new Date(oldest),
        errors: (errors ?? []).map((error) => error.split('\n', 1)[0] ?? ''),
      }))
    },

    /** Notes that the worker of a job is alive. The library has no function for it. */
    async keepLocked(id: string, lockedBy: string | null): Promise<void> {
      await db.execute(sql`
        update graphile_worker._private_jobs set locked_at = now() where id = ${id} and locked_by = ${lockedBy}`)
    },

    /**
     * Lets go of jobs whose worker died with them, has failed ones tried again in time, and removes those that a later
     * job has taken the place of or that were given up.
     */
    async tend(
      tasks: readonly string[],
      deadAfterMs: number,
      patience: readonly { task: string; retriesWithinMs: number }[],
    ): Promise<void> {
      const isOurs = sql`task_identifier = any(${sql.param([...tasks])}::text[])`
      await db.execute(sql`
        select graphile_worker.force_unlock_workers(array(
          select distinct locked_by from graphile_worker.jobs
          where ${isOurs} and locked_at < now() - ${deadAfterMs}::int * interval '1 millisecond'))`)
      for (const { task, retriesWithinMs } of patience) {
        const latest = sql`now() + ${retriesWithinMs}::int * interval '1 millisecond'`
        await db.execute(sql`
          select count(*) from graphile_worker.reschedule_jobs(array(
            select id from graphile_worker.jobs
            where task_identifier = ${task} and locked_at is null and last_error is not null
              and attempts < max_attempts and run_at > ${latest}),
            run_at := ${latest})`)
      }
      await db.execute(sql`
        select count(*) from graphile_worker.complete_jobs(array(
          select id from graphile_worker.jobs where ${isOurs} and locked_at is null and attempts >= max_attempts))`)
    },

    /** Whether the tables of the jobs are there. */
    async isInstalled(): Promise<boolean> {
      const { rows } = await db.execute<{ found: string | null }>(
        sql`select to_regclass('graphile_worker.jobs') as found`,
      )
      return rows[0]?.found != null
    },
  }
}
