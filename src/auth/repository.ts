import { and, eq, isNull, lt, or, sql } from 'drizzle-orm'
import type { AuditEntry } from '../audit/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { accountMembers, accounts, loginAttempts, userCredentials, users } from '../db/schema.ts'
import type { RoleAtSignIn } from './grants.ts'

/** What an attempt is counted under, each with its own limit. */
export type AttemptKeys = Record<'both' | 'email' | 'address', { keyHash: string; limit: number }>

/** Everything that a sign-in needs of a person, in one row. */
export type SignInRow = {
  id: string
  isActive: boolean
  accountId: string | null
  isAccountActive: boolean
  tokenVersion: number
  passwordHash: string | null
  credentialsChangedAt: Date | null
  mustChange: boolean
  roles: RoleAtSignIn[]
}

export type NewSession = {
  id: string
  userId: string
  accountId: string | null
  clientId: string
  userAgent: string | null
  address: string | null
  /** What was asked for; null: all that is held. */
  scope: string | null
  refreshHash: string
  idleSeconds: number
  maxSeconds: number
}

export type AuthRepository = ReturnType<typeof createAuthRepository>

export function createAuthRepository({ db, pool, prepare }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const heldRoles = sql<RoleAtSignIn[]>`${sql.raw(HELD_ROLES)}`

  const signInColumns = {
    id: users.id,
    isActive: users.isActive,
    accountId: users.accountId,
    isAccountActive: sql<boolean>`coalesce(${accounts.isActive} and ${accounts.deletedAt} is null, true)`,
    tokenVersion: users.tokenVersion,
    passwordHash: userCredentials.passwordHash,
    credentialsChangedAt: userCredentials.credentialsChangedAt,
    mustChange: sql<boolean>`coalesce(${userCredentials.mustChange}, false)`,
    roles: heldRoles,
  }

  const byEmail = db
    .select(signInColumns)
    .from(users)
    .leftJoin(userCredentials, eq(userCredentials.userId, users.id))
    .leftJoin(accounts, eq(accounts.id, users.accountId))
    .where(
      and(
        eq(users.environmentId, environmentId),
        eq(users.emailNormalized, sql.placeholder('email')),
        isNull(users.deletedAt),
      ),
    )
    .prepare(prepare ? 'user_for_sign_in' : '')

  const named = (name: string): { name?: string } => (prepare ? { name } : {})

  return {
    /** @param email normalised */
    async findForSignIn(email: string): Promise<SignInRow | undefined> {
      const [row] = await byEmail.execute({ email })
      return row
    },

    /** An active account that the user is an active member of, by its key or id. */
    async findMembership(userId: string, keyOrId: string): Promise<string | undefined> {
      const [row] = await db
        .select({ id: accounts.id })
        .from(accounts)
        .innerJoin(
          accountMembers,
          and(
            eq(accountMembers.accountId, accounts.id),
            eq(accountMembers.userId, userId),
            eq(accountMembers.status, 'active'),
          ),
        )
        .where(
          and(
            eq(accounts.environmentId, environmentId),
            sql`(${accounts.key} = ${keyOrId} or ${accounts.id}::text = ${keyOrId.toLowerCase()})`,
            eq(accounts.isActive, true),
            isNull(accounts.deletedAt),
          ),
        )
      return row?.id
    },

    /** The roles that a user holds, as a token would carry them. */
    async findRolesAtSignIn(userId: string): Promise<RoleAtSignIn[]> {
      const [row] = await db.select({ roles: heldRoles }).from(users).where(eq(users.id, userId))
      return row?.roles ?? []
    },

    /**
     * Counts one attempt under each key, unless a wait lasts for one of them. Returns the seconds to wait, 0 when
     * the attempt is admitted. One statement; concurrent attempts queue on the rows and see each other's counts.
     */
    async countAttempt({ both, email, address }: AttemptKeys, backoffSeconds: number): Promise<number> {
      const { rows } = await pool.query<{ wait: number | null }>({
        ...named('count_sign_in_attempt'),
        text: COUNT_ATTEMPT,
        values: [...[both, email, address].flatMap(({ keyHash, limit }) => [keyHash, limit]), backoffSeconds],
      })
      return rows[0]?.wait ?? 0
    },

    /** Takes an attempt back: the email's counters begin anew, the address's loses the one. */
    async forgiveAttempt({ both, email, address }: AttemptKeys): Promise<void> {
      await pool.query(`with ${FORGIVE} select 1`, [both.keyHash, email.keyHash, address.keyHash])
    },

    /**
     * The end of a sign-in in one statement: the attempt is taken back, the session begins, the audit row says so.
     * @returns the `ver` of the person's tokens now; `undefined` when the password that was looked at is no longer the
     * one in force, or its owner no longer active: a session that began beside the change would outlive it
     */
    async startSession(
      keys: AttemptKeys,
      session: NewSession,
      credentialsChangedAt: Date | null,
      entry: AuditEntry,
    ): Promise<number | undefined> {
      const { rows } = await pool.query<{ token_version: number }>({
        ...named('start_session'),
        text: START_SESSION,
        values: [
          ...[keys.both.keyHash, keys.email.keyHash, keys.address.keyHash, environmentId],
          ...[
            session.id,
            session.userId,
            session.accountId,
            session.clientId,
            session.userAgent,
            session.address,
          ],
          ...[session.scope, session.refreshHash, session.idleSeconds, session.maxSeconds],
          ...[entry.id, entry.action, entry.actorType, entry.actorId, entry.accountId],
          ...[entry.requestId, entry.details, entry.personalCommitment, entry.salt, entry.personal],
          credentialsChangedAt,
        ],
      })
      return rows[0]?.token_version
    },

    /** Removes the counters of an email, alone and together with any address. */
    async forgiveEmail(emailHash: string): Promise<void> {
      await db
        .delete(loginAttempts)
        .where(
          or(
            and(eq(loginAttempts.kind, 'email'), eq(loginAttempts.keyHash, emailHash)),
            and(
              eq(loginAttempts.kind, 'email_and_address'),
              sql`starts_with(${loginAttempts.keyHash}, ${`${emailHash}.`})`,
            ),
          ),
        )
    },

    /** Counts within the hour; returns the seconds to wait, 0 when the registration is admitted. */
    async countRegistration(keyHash: string, limit: number): Promise<number> {
      const { rows } = await db.execute<{ wait: number }>(sql`
        insert into login_attempts as a (kind, key_hash, failures, blocked_until)
        values ('registration', ${keyHash}, 1, now() + interval '1 hour')
        on conflict (kind, key_hash) do update set
          failures = case when a.blocked_until > now() then a.failures + 1 else 1 end,
          blocked_until = case when a.blocked_until > now() then a.blocked_until else now() + interval '1 hour' end,
          last_attempt_at = now()
        returning case when failures > ${limit}::int
          then ceil(extract(epoch from blocked_until - now()))::int else 0 end as wait`)
      return rows[0]?.wait ?? 0
    },

    /** Removes counters that decide nothing any more. Returns how many rows went. */
    async prune(): Promise<number> {
      const attempts = await db
        .delete(loginAttempts)
        .where(lt(loginAttempts.lastAttemptAt, sql`now() - interval '24 hours'`))
      return attempts.rowCount ?? 0
    },
  }
}

/** The roles of the row of `users` as `RoleAtSignIn[]`. Names are written out, for statements of any kind around it. */
export const HELD_ROLES = `coalesce((
    select json_agg(json_build_object('key', roles.key, 'accountId', role_assignments.account_id,
      'isPrimary', role_assignments.is_primary, 'expiresAt', role_assignments.expires_at, 'permissions', coalesce((
        select json_agg(resources.key || ':' || actions.key)
        from role_permissions
        join actions on actions.id = role_permissions.action_id
        join resources on resources.id = actions.resource_id
        where role_permissions.role_id = any(case
          when exists (select from role_parents where role_parents.role_id = roles.id)
          then array(select role_and_ancestors(roles.id)) else array[roles.id] end)), '[]')))
    from role_assignments join roles on roles.id = role_assignments.role_id
    where role_assignments.user_id = users.id and role_assignments.resource_instance_id is null
      and coalesce(role_assignments.expires_at > now(), true)), '[]')`

// The statements of every sign-in are written out and prepared by name: planning them anew costs more than they do.

/** An address is shared by many people, whose slips must not add up for ever: its count begins anew each hour. */
const IS_FORGOTTEN = `(a.last_attempt_at < now() - interval '24 hours'
  or a.kind = 'address' and a.counted_since < now() - interval '1 hour')`
const NEXT_FAILURES = `(case when ${IS_FORGOTTEN} then 1 else a.failures + 1 end)`

/** The first wait begins with the failure that reaches the limit; each further one doubles it, up to an hour. */
const blockedUntil = (failures: string, limit: string): string => `case when ${failures} < ${limit} then null
  else now() + least($7::int * power(2, least(${failures} - ${limit}, 16)), 3600) * interval '1 second' end`

const COUNT_ATTEMPT = `
  with given (kind, key_hash, max_failures) as (
    values ('email_and_address', $1::text, $2::int), ('email', $3, $4), ('address', $5, $6)),
  waits as (
    select max(a.blocked_until) as until from login_attempts a join given using (kind, key_hash)
    where a.blocked_until > now()),
  counted as (
    insert into login_attempts as a (kind, key_hash, failures, blocked_until)
    select kind, key_hash, 1, ${blockedUntil('1', 'max_failures')} from given where (select until from waits) is null
    on conflict (kind, key_hash) do update set
      failures = case when a.blocked_until > now() then a.failures else ${NEXT_FAILURES} end,
      blocked_until = case when a.blocked_until > now() then a.blocked_until else ${blockedUntil(
        NEXT_FAILURES,
        `(case a.kind when 'email_and_address' then $2 when 'email' then $4 else $6 end)`,
      )} end,
      is_admitted = not coalesce(a.blocked_until > now(), false),
      counted_since = case when ${IS_FORGOTTEN} then now() else a.counted_since end,
      last_attempt_at = case when a.blocked_until > now() then a.last_attempt_at else now() end
    returning is_admitted, blocked_until)
  select ceil(extract(epoch from greatest(
    (select until from waits),
    (select max(blocked_until) from counted where not is_admitted)) - now()))::int as wait`

// The rows are locked first, in the order in which COUNT_ATTEMPT writes them: the two never wait in a ring.
const FORGIVE = `
  held as (
    select kind from login_attempts
    where (kind, key_hash) in (('email_and_address', $1::text), ('email', $2::text), ('address', $3::text))
    order by kind desc for update),
  gone as (
    delete from login_attempts
    where (kind = 'email_and_address' and key_hash = $1 or kind = 'email' and key_hash = $2)
      and (select count(*) from held) > 0),
  eased as (
    update login_attempts set failures = greatest(failures - 1, 0), blocked_until = null
    where kind = 'address' and key_hash = $3 and (select count(*) from held) > 0)`

const START_SESSION = `
  with ${FORGIVE},
  permitted as (
    select users.id, users.token_version from users join user_credentials c on c.user_id = users.id
    where users.id = $6 and users.is_active and users.deleted_at is null and c.credentials_changed_at = $25
    for share),
  begun as (
    insert into sessions (environment_id, id, user_id, account_id, client_id, user_agent, address, scope, refresh_hash,
      idle_expires_at, expires_at)
    select $4, $5::uuid, id, $7::uuid, $8, $9, $10, $11, $12,
      now() + $13::int * interval '1 second', now() + $14::int * interval '1 second'
    from permitted
    returning user_id),
  event as (
    insert into audit_events (environment_id, id, action, outcome, actor_type, actor_id, target_type, target_id,
      account_id, request_id, details, personal_commitment)
    select $4, $15::uuid, $16, 'success', $17, $18, 'user', user_id::text, $19::uuid, $20, $21::jsonb, $22 from begun
    returning id),
  personal as (
    insert into audit_personal_data (audit_event_id, subject_id, salt, data)
    select id, $6, $23::text, $24::jsonb from event where $24 is not null)
  select permitted.token_version from permitted, begun`
