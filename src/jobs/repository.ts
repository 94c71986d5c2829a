import { createHash } from 'node:crypto'
import { type SQL, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { isUuid } from '../ids.ts'
import type { MirroredTenant, MirroredUser } from '../policy/adapter.ts'

/** The name of the jobs that take a change over to Permit. */
export const MIRROR_TASK = 'mirror_to_permit'

/** What is to be mirrored: a user or account by key or id, or everything. */
export type MirrorSubject = { kind: 'user' | 'account'; ref: string } | { kind: 'everything' }

/** A user as stored; `isActive` is false for one that is deleted too. */
export type StoredUser = MirroredUser & { id: string; isActive: boolean }

export type StoredAccount = MirroredTenant & { id: string; isActive: boolean; isDeleted: boolean }

/** A role that somebody holds now; `account` null: in every account. */
export type StoredAssignment = {
  role: string
  isBuiltin: boolean
  account: string | null
  /** `type:key`, for a role on one instance. */
  instance: string | null
  expiresAt: Date | null
}

/** How the mirror stands. */
export type QueueState = {
  /** Jobs that wait or run. */
  pending: number
  /** Those of them that have failed before. */
  failed: number
  /** Since when the oldest of them waits; `undefined` without any. */
  oldestAt: Date | undefined
  /** What the last failures said. */
  errors: readonly string[]
}

/** Twenty days of attempts, once a minute: in the end every job is done. */
const MOST_ATTEMPTS = 32_767
const JOBS_IN_BATCH = 1000

export type JobsRepository = ReturnType<typeof createJobsRepository>

export function createJobsRepository({ db }: Database, environmentId: string) {
  return {
    /** Adds jobs for what this transaction has changed in the environment, as its triggers wrote it down. */
    async enqueueChangesOf(tx: Tx): Promise<void> {
      const { rows } = await tx.execute<{ kind: string; refs: string[] }>(sql`
        select kind, refs from policy_changes
        where transaction_id = pg_current_xact_id_if_assigned() and version is null
          and environment_id = ${environmentId} and kind in ('user', 'account', 'everything')`)
      if (rows.length === 0) return
      const refsOf = (kind: string) => [
        ...new Set(rows.filter((row) => row.kind === kind).flatMap(({ refs }) => refs)),
      ]
      const subjects: MirrorSubject[] = [
        ...(await withoutAliases(sql`users`, refsOf('user'), tx)).map(
          (ref) => ({ kind: 'user', ref }) as const,
        ),
        ...(await withoutAliases(sql`accounts`, refsOf('account'), tx)).map(
          (ref) => ({ kind: 'account', ref }) as const,
        ),
        ...(rows.some(({ kind }) => kind === 'everything') ? [{ kind: 'everything' } as const] : []),
      ]
      await this.enqueue(subjects, tx)
    },

    /**
     * Adds a job for each subject; one that waits already is the same job. All jobs of one subject are in one queue,
     * so that they run one after the other.
     */
    async enqueue(subjects: readonly MirrorSubject[], ex: Executor = db, runAt?: Date): Promise<void> {
      for (let start = 0; start < subjects.length; start += JOBS_IN_BATCH) {
        const specs = subjects.slice(start, start + JOBS_IN_BATCH).map((subject) => ({
          payload: subject,
          name: jobName(subject),
        }))
        await ex.execute(sql`
          select count(*) from graphile_worker.add_jobs(array(
            select (${MIRROR_TASK}, s.payload, s.name, ${runAt ?? null}::timestamptz, ${MOST_ATTEMPTS}::smallint,
              s.name, null::smallint, null::text[])::graphile_worker.job_spec
            from json_to_recordset(${JSON.stringify(specs)}::json) as s(payload json, name text)
            order by s.name))`)
      }
    },

    async findUser(ref: string): Promise<StoredUser | undefined> {
      const { rows } = await db.execute<StoredUser>(sql`
        select id, key, email, first_name as "firstName", last_name as "lastName", attributes,
          is_active and deleted_at is null as "isActive"
        from users where environment_id = ${environmentId} and ${named(ref)}
        order by deleted_at is null desc, key = ${ref} desc limit 1`)
      return rows[0]
    },

    async findAccount(ref: string): Promise<StoredAccount | undefined> {
      const { rows } = await db.execute<StoredAccount>(sql`
        select id, key, name, description, attributes, is_active as "isActive", deleted_at is not null as "isDeleted"
        from accounts where environment_id = ${environmentId} and ${named(ref)}
        order by deleted_at is null desc, key = ${ref} desc limit 1`)
      return rows[0]
    },

    /** The roles that a user holds now, in accounts that are active. */
    async listAssignments(userId: string): Promise<StoredAssignment[]> {
      const { rows } = await db.execute<
        Omit<StoredAssignment, 'expiresAt'> & { expiresAt: string | null }
      >(sql`
        select r.key as role, r.is_builtin as "isBuiltin", a.key as account,
          t.key || ':' || i.key as instance, g.expires_at as "expiresAt"
        from role_assignments g
        join roles r on r.id = g.role_id
        left join accounts a on a.id = g.account_id
        left join resource_instances i on i.id = g.resource_instance_id
        left join resources t on t.id = i.resource_id
        where g.environment_id = ${environmentId} and g.user_id = ${userId}
          and (g.expires_at is null or g.expires_at > now())
          and (g.account_id is null or (a.is_active and a.deleted_at is null))`)
      return rows.map((row) => ({
        ...row,
        expiresAt: row.expiresAt === null ? null : new Date(row.expiresAt),
      }))
    },

    /** The application's roles: `role`, and `resource#role` for one held on instances. */
    async listRoleNames(): Promise<string[]> {
      const { rows } = await db.execute<{ name: string }>(sql`
        select coalesce(t.key || '#', '') || r.key as name from roles r left join resources t on t.id = r.resource_id
        where r.environment_id = ${environmentId} and not r.is_builtin`)
      return rows.map(({ name }) => name)
    },

    async listActiveAccountKeys(): Promise<string[]> {
      const { rows } = await db.execute<{ key: string }>(sql`
        select key from accounts where environment_id = ${environmentId} and is_active and deleted_at is null`)
      return rows.map(({ key }) => key)
    },

    /** Who holds a role in the account, or one of the application's in every account: whom its change concerns. */
    async listHolderIds(accountId: string): Promise<string[]> {
      const { rows } = await db.execute<{ id: string }>(sql`
        select distinct g.user_id as id from role_assignments g join roles r on r.id = g.role_id
        where g.environment_id = ${environmentId}
          and (g.account_id = ${accountId} or (g.account_id is null and not r.is_builtin))`)
      return rows.map(({ id }) => id)
    },

    /** The ids of all accounts or users that are not deleted, in pages: those after `after`. */
    async listIds(kind: 'user' | 'account', after: string | undefined, limit: number): Promise<string[]> {
      const table = kind === 'user' ? sql`users` : sql`accounts`
      const { rows } = await db.execute<{ id: string }>(sql`
        select id from ${table} where environment_id = ${environmentId} and deleted_at is null
          ${after === undefined ? sql`` : sql`and id > ${after}`} order by id limit ${limit}`)
      return rows.map(({ id }) => id)
    },

    /** How the mirror stands; nothing waits where it was never installed. */
    async queueState(): Promise<QueueState> {
      if (!(await isInstalled())) return { pending: 0, failed: 0, oldestAt: undefined, errors: [] }
      const { rows } = await db.execute<{
        pending: number
        failed: number
        oldest: string | null
        errors: string[] | null
      }>(sql`
        select count(*)::int as pending, count(*) filter (where last_error is not null)::int as failed,
          min(created_at) as oldest,
          (array_agg(last_error order by updated_at desc) filter (where last_error is not null))[1:5] as errors
        from graphile_worker.jobs
        where task_identifier = ${MIRROR_TASK} and key is not null and (run_at <= now() or last_error is not null)`)
      const { pending = 0, failed = 0, oldest = null, errors = null } = rows[0] ?? {}
      return {
        pending,
        failed,
        oldestAt: oldest === null ? undefined : new Date(oldest),
        errors: (errors ?? []).map((error) => error.split('\n', 1)[0] ?? ''),
      }
    },

    /**
     * Lets go of jobs whose worker died with them, tries failed ones again within `retryMs`, and removes those that a
     * later job has taken the place of.
     */
    async tend({ deadAfterMs, retryMs }: { deadAfterMs: number; retryMs: number }): Promise<void> {
      const ofMirror = sql`task_identifier = ${MIRROR_TASK}`
      await db.execute(sql`
        select graphile_worker.force_unlock_workers(array(
          select distinct locked_by from graphile_worker.jobs
          where ${ofMirror} and locked_at < now() - make_interval(secs => ${deadAfterMs / 1000})))`)
      await db.execute(sql`
        select count(*) from graphile_worker.reschedule_jobs(array(
          select id from graphile_worker.jobs
          where ${ofMirror} and locked_at is null and last_error is not null and attempts < max_attempts
            and run_at > now() + make_interval(secs => ${retryMs / 1000})),
          run_at := now() + make_interval(secs => ${retryMs / 1000}))`)
      await db.execute(sql`
        select count(*) from graphile_worker.complete_jobs(array(
          select id from graphile_worker.jobs
          where ${ofMirror} and locked_at is null and attempts >= max_attempts and key is null))`)
    },
  }

  async function isInstalled(): Promise<boolean> {
    const { rows } = await db.execute<{ found: string | null }>(
      sql`select to_regclass('graphile_worker.jobs') as found`,
    )
    return rows[0]?.found != null
  }

  /** `refs` without the keys of rows whose ids are among them too: one name for each. */
  async function withoutAliases(table: SQL, refs: readonly string[], tx: Tx): Promise<string[]> {
    const ids = refs.filter(isUuid)
    if (ids.length === 0) return [...refs]
    const { rows } = await tx.execute<{ id: string; key: string }>(sql`
      select id, key from ${table} where environment_id = ${environmentId}
        and id = any(${sql.param(ids)}::uuid[])`)
    const aliases = new Set(rows.filter(({ id, key }) => id !== key).map(({ key }) => key))
    return refs.filter((ref) => !aliases.has(ref))
  }
}

const named = (ref: string): SQL =>
  isUuid(ref) ? sql`(key = ${ref} or id = ${ref}::uuid)` : sql`key = ${ref}`

const LONGEST_NAME = 100

/** The names of queues have a limit that keys do not have. */
function jobName(subject: MirrorSubject): string {
  if (subject.kind === 'everything') return 'mirror:everything'
  const { kind, ref } = subject
  const name = ref.length > LONGEST_NAME ? createHash('sha256').update(ref).digest('hex') : ref
  return `mirror:${kind}:${name}`
}
