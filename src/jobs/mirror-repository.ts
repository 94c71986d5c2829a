import { createHash } from 'node:crypto'
import { type SQL, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { isUuid } from '../ids.ts'
import type { MirroredTenant, MirroredUser } from '../policy/adapter.ts'
import type { JobsRepository, NewJob, QueueState } from './repository.ts'

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

/** Twenty days of attempts, once a minute: in the end every job is done. */
const MOST_ATTEMPTS = 32_767
/** Behind everything else that is due. */
const PRIORITY = 20
/** Whoever looks for a job locks all queues, so that there must not be one for each subject. */
const QUEUES = 16

export type MirrorRepository = ReturnType<typeof createMirrorRepository>

/** The statements of what waits to be mirrored to Permit, of one environment. */
export function createMirrorRepository(
  { db }: Database,
  jobs: Pick<JobsRepository, 'add' | 'states' | 'isInstalled'>,
  environmentId: string,
) {
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
     * so that they run one after the other; each queue has many subjects.
     */
    async enqueue(subjects: readonly MirrorSubject[], ex: Executor = db): Promise<void> {
      await jobs.add(
        MIRROR_TASK,
        subjects.map((subject) => jobOf(subject)),
        ex,
      )
    },

    /**
     * Has the user with this id looked at when something of theirs ends. That is a job beside the one for changes: they
     * may be waiting already, and must not be put off.
     */
    async enqueueAt(endsAt: Date, userId: string): Promise<void> {
      const subject = { kind: 'user', ref: userId } as const
      await jobs.add(MIRROR_TASK, [{ ...jobOf(subject), key: `mirror:user-ends:${userId}`, runAt: endsAt }])
    },

    /**
     * Which of these names nobody has any more: only deleted people or accounts had them, or a change that took them
     * away waits to be mirrored. To be asked of names that are nobody's now.
     */
    async listGone(kind: 'user' | 'account', refs: readonly string[]): Promise<string[]> {
      const table = kind === 'user' ? sql`users` : sql`accounts`
      const { rows } = await db.execute<{ ref: string }>(sql`
        with asked as materialized (
          select * from unnest(${sql.param([...refs])}::text[],
            ${sql.param(refs.map((ref) => (isUuid(ref) ? ref : null)))}::uuid[],
            ${sql.param(refs.map((ref) => jobName({ kind, ref })))}::text[]) as a(ref, id, job))
        select ref from asked a join ${table} x on x.environment_id = ${environmentId} and x.key = a.ref
          where x.deleted_at is not null
        union select ref from asked a join ${table} x on x.environment_id = ${environmentId} and x.id = a.id
          where x.deleted_at is not null
        ${(await jobs.isInstalled()) ? sql`union select ref from asked a join graphile_worker.jobs j on j.key = a.job` : sql``}`)
      return rows.map(({ ref }) => ref)
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

    /** The application's roles, those that were deleted too: `role`, and `resource#role` for one held on instances. */
    async listRoleNames(): Promise<string[]> {
      const { rows } = await db.execute<{ name: string }>(sql`
        select coalesce(t.key || '#', '') || r.key as name from roles r left join resources t on t.id = r.resource_id
        where r.environment_id = ${environmentId} and not r.is_builtin
        union select name from gone_roles where environment_id = ${environmentId}`)
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

    /** The ids of all accounts or users, deleted ones too, in pages: those after `after`. */
    async listIds(kind: 'user' | 'account', after: string | undefined, limit: number): Promise<string[]> {
      const table = kind === 'user' ? sql`users` : sql`accounts`
      const { rows } = await db.execute<{ id: string }>(sql`
        select id from ${table} where environment_id = ${environmentId}
          ${after === undefined ? sql`` : sql`and id > ${after}`} order by id limit ${limit}`)
      return rows.map(({ id }) => id)
    },

    /** How the mirror stands. */
    async queueState(): Promise<QueueState> {
      const known = (await jobs.states()).find(({ task }) => task === MIRROR_TASK)
      return known ?? { task: MIRROR_TASK, pending: 0, failed: 0, oldestAt: undefined, errors: [] }
    },
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

/** The same of every process for the same name. */
const queueOf = (name: string): string =>
  `mirror:${createHash('sha256').update(name).digest().readUInt8() % QUEUES}`

function jobOf(subject: MirrorSubject): NewJob {
  const key = jobName(subject)
  return { payload: subject, key, queue: queueOf(key), priority: PRIORITY, mostAttempts: MOST_ATTEMPTS }
}

const LONGEST_NAME = 100

/** The keys of jobs have a limit that keys of users do not have. */
function jobName(subject: MirrorSubject): string {
  if (subject.kind === 'everything') return 'mirror:everything'
  const { kind, ref } = subject
  const name = ref.length > LONGEST_NAME ? createHash('sha256').update(ref).digest('hex') : ref
  return `mirror:${kind}:${name}`
}
