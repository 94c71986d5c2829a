import { and, eq, inArray, isNull, lt, or, type SQL, sql } from 'drizzle-orm'
import type { AuditEntry } from '../audit/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { accountMembers, accounts, loginAttempts, userCredentials, users } from '../db/schema.ts'
import type { RoleAtSignIn } from './grants.ts'

/**
 * What an attempt is counted under, each with its own limit: the email from one address, the email, the address. From
 * a known device, `near` is the device, and there is no address.
 */
export type AttemptKeys = {
  near: AttemptKey & { kind: 'email_and_address' | 'device' }
  email: AttemptKey
  address: AttemptKey | undefined
}
type AttemptKey = { keyHash: string; limit: number }

/** What becomes of an attempt: the seconds to wait, 0 when it is admitted, or that no password counts any more. */
export type Admission = { waitSeconds: number; isStopped: boolean }

/** Everything that a sign-in needs of a person, in one row. */
export type SignInRow = {
  id: string
  /** Normalised. */
  email: string | null
  isActive: boolean
  accountId: string | null
  isAccountActive: boolean
  /** Whether the home account demands two factors. */
  isAccountMfaRequired: boolean
  tokenVersion: number
  passwordHash: string | null
  credentialsChangedAt: Date | null
  mustChange: boolean
  emailVerifiedAt: Date | null
  roles: RoleAtSignIn[]
  /** What is enrolled, and can be shown in the second step of a sign-in. */
  secondFactors: SecondFactor[]
}

export type SecondFactor = 'totp' | 'passkey' | 'recovery_code'

/** An account that a token is to be for; none has the id null. */
export type ChosenAccount = { id: string | null; isMfaRequired: boolean }

export type NewSession = {
  id: string
  userId: string
  accountId: string | null
  clientId: string
  userAgent: string | null
  address: string | null
  /** What was asked for; null: all that is held. */
  scope: string | null
  /** Whom its access tokens are for; null: this service, unless a refresh names another. */
  audiences: readonly string[] | null
  /** How its user was authenticated. */
  amr: readonly string[]
  refreshHash: string
  idleSeconds: number
  maxSeconds: number
}

export type AuthRepository = ReturnType<typeof createAuthRepository>

/** The statements of sign-ins and of what an access token says of its holder, of one environment. */
export function createAuthRepository({ db, pool, prepare }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const heldRoles = sql<RoleAtSignIn[]>`${sql.raw(HELD_ROLES)}`

  const signInColumns = {
    id: users.id,
    email: users.emailNormalized,
    isActive: users.isActive,
    accountId: users.accountId,
    isAccountActive: sql<boolean>`coalesce(${accounts.isActive} and ${accounts.deletedAt} is null, true)`,
    isAccountMfaRequired: sql<boolean>`coalesce(${accounts.isMfaRequired}, false)`,
    tokenVersion: users.tokenVersion,
    passwordHash: userCredentials.passwordHash,
    credentialsChangedAt: userCredentials.credentialsChangedAt,
    emailVerifiedAt: userCredentials.emailVerifiedAt,
    mustChange: sql<boolean>`coalesce(${userCredentials.mustChange}, false)`,
    roles: heldRoles,
    secondFactors: sql<SecondFactor[]>`${sql.raw(SECOND_FACTORS)}`,
  }

  const selectForSignIn = (condition: SQL) =>
    db
      .select(signInColumns)
      .from(users)
      .leftJoin(userCredentials, eq(userCredentials.userId, users.id))
      .leftJoin(accounts, eq(accounts.id, users.accountId))
      .where(and(eq(users.environmentId, environmentId), condition, isNull(users.deletedAt)))

  const byEmail = selectForSignIn(eq(users.emailNormalized, sql.placeholder('email'))).prepare(
    prepare ? 'user_for_sign_in' : '',
  )

  const named = (name: string): { name?: string } => (prepare ? { name } : {})

  return {
    /** @param email normalised */
    async findForSignIn(email: string): Promise<SignInRow | undefined> {
      const [row] = await byEmail.execute({ email })
      return row
    },

    async findForSignInById(id: string): Promise<SignInRow | undefined> {
      const [row] = await selectForSignIn(eq(users.id, id))
      return row
    },

    /** An active account that the user is an active member of, by its key or id. */
    async findMembership(
      userId: string,
      keyOrId: string,
    ): Promise<(ChosenAccount & { id: string }) | undefined> {
      const [row] = await db
        .select({ id: accounts.id, isMfaRequired: accounts.isMfaRequired })
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
      return row
    },

    /** The roles that a user holds, as a token would carry them. */
    async findRolesAtSignIn(userId: string, ex: Executor = db): Promise<RoleAtSignIn[]> {
      const [row] = await ex.select({ roles: heldRoles }).from(users).where(eq(users.id, userId))
      return row?.roles ?? []
    },

    /**
     * Counts one attempt under each key, unless a wait lasts for one of them or the email is stopped. One statement;
     * concurrent attempts queue on the rows and see each other's counts.
     * @param owner by email or id: whose new password ends a stop
     * @param stopAfter failures in a row that stop an email; null: none do, and they are not counted
     */
    async countAttempt(
      { near, email, address }: AttemptKeys,
      owner: { email?: string; id?: string | undefined },
      backoffSeconds: number,
      stopAfter: number | null,
    ): Promise<Admission> {
      const { rows } = await pool.query<{ wait: number | null; is_stopped: boolean | null }>({
        text: COUNT_ATTEMPT,
        values: [
          ...[near, email, address].flatMap((key) => [key?.keyHash ?? null, key?.limit ?? null]),
          ...[backoffSeconds, stopAfter, environmentId, owner.email ?? null, owner.id ?? null],
        ],
        ...named('count_sign_in_attempt'),
      })
      return { waitSeconds: rows[0]?.wait ?? 0, isStopped: rows[0]?.is_stopped ?? false }
    },

    /**
     * Counts one attempt from a known device, for the device and for the email. Waits and stops of the email do not
     * hold it up; false when the device itself has failed too often.
     */
    async countDeviceAttempt({ near, email }: AttemptKeys): Promise<boolean> {
      const { rows } = await pool.query({
        text: COUNT_DEVICE_ATTEMPT,
        values: [near.keyHash, near.limit, email.keyHash],
        ...named('count_device_attempt'),
      })
      return rows.length > 0
    },

    /** Takes an attempt back: the email's counters begin anew, the address's loses the one. */
    async forgiveAttempt({ near, email, address }: AttemptKeys): Promise<void> {
      await pool.query(`with ${FORGIVE} select 1`, [near.keyHash, email.keyHash, address?.keyHash ?? null])
    },

    /**
     * A row of credentials for somebody who signs in without a password, by which changes of them are known. Returns
     * when they last changed.
     */
    async ensureCredentials(userId: string): Promise<Date | undefined> {
      const [row] = await db
        .insert(userCredentials)
        .values({ userId, environmentId })
        .onConflictDoUpdate({ target: userCredentials.userId, set: { userId } })
        .returning({ changedAt: userCredentials.credentialsChangedAt })
      return row?.changedAt
    },

    /**
     * The end of a sign-in in one statement: the attempt is taken back, the session begins, the audit row says so.
     * @returns the `ver` of the person's tokens now; `undefined` when the password that was looked at is no longer the
     * one in force, or its owner no longer active: a session that began beside the change would outlive it
     */
    async startSession(
      keys: AttemptKeys | undefined,
      session: NewSession,
      credentialsChangedAt: Date | null,
      entry: AuditEntry,
    ): Promise<number | undefined> {
      const { rows } = await pool.query<{ token_version: number }>({
        text: START_SESSION,
        values: [
          ...[keys?.near.keyHash, keys?.email.keyHash, keys?.address?.keyHash, environmentId],
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
          ...[credentialsChangedAt, session.amr, session.audiences],
        ],
        ...named('start_session'),
      })
      return rows[0]?.token_version
    },

    /** Removes the counters of an email, alone and together with any address or device. */
    async forgiveEmail(emailHash: string): Promise<void> {
      await db
        .delete(loginAttempts)
        .where(
          or(
            and(eq(loginAttempts.kind, 'email'), eq(loginAttempts.keyHash, emailHash)),
            and(
              inArray(loginAttempts.kind, ['email_and_address', 'device']),
              sql`starts_with(${loginAttempts.keyHash}, ${`${emailHash}.`})`,
            ),
          ),
        )
    },

    /** Counts within a window that begins with the first; returns the seconds to wait, 0 up to the limit. */
    async countWithin(kind: string, keyHash: string, limit: number, windowSeconds: number): Promise<number> {
      const { rows } = await db.execute<{ wait: number }>(sql`
        insert into login_attempts as a (kind, key_hash, failures, blocked_until)
        values (${kind}, ${keyHash}, 1, now() + ${windowSeconds}::int * interval '1 second')
        on conflict (kind, key_hash) do update set
          failures = case when a.blocked_until > now() then a.failures + 1 else 1 end,
          blocked_until = case when a.blocked_until > now() then a.blocked_until else excluded.blocked_until end,
          last_attempt_at = now()
        returning case when failures > ${limit}::int
          then ceil(extract(epoch from blocked_until - now()))::int else 0 end as wait`)
      return rows[0]?.wait ?? 0
    },

    /** Begins a count within a window anew. */
    async forgetCount(kind: string, keyHash: string): Promise<void> {
      await db
        .delete(loginAttempts)
        .where(and(eq(loginAttempts.kind, kind), eq(loginAttempts.keyHash, keyHash)))
    },

    /** Removes counters that decide nothing any more. Returns how many rows went. */
    async prune(signal?: AbortSignal): Promise<number> {
      const { lastAttemptAt, kind, consecutive, blockedUntil } = loginAttempts
      return await prune(
        db,
        loginAttempts,
        and(
          lt(lastAttemptAt, sql`now() - interval '24 hours'`),
          sql`coalesce(${blockedUntil} < now(), true)`,
          sql`case ${kind}
            when 'email' then ${consecutive} < ${MAX_CONSECUTIVE_FAILURES} and ${lastAttemptAt} < now() - interval '90 days'
            when 'device' then ${lastAttemptAt} < now() - interval '400 days'
            else true end`,
        ),
        signal,
      )
    },
  }
}

/** Failures in a row after which a password is taken from known devices only (SP 800-63B-4 §3.2.2). */
export const MAX_CONSECUTIVE_FAILURES = 100

/** The roles of the row of `users` as `RoleAtSignIn[]`. Names are written out, for statements of any kind around it. */
export const HELD_ROLES = `coalesce((
    select json_agg(json_build_object('key', roles.key, 'accountId', role_assignments.account_id,
      'isPrimary', role_assignments.is_primary, 'isMfaRequired', roles.is_mfa_required, 'expiresAt', role_assignments.expires_at, 'permissions', coalesce((
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

/** The second factors of the row of `users`, as `SecondFactor[]`. */
const SECOND_FACTORS = `array_remove(array[
    case when exists (select from totp_factors f where f.user_id = users.id and f.confirmed_at is not null)
      then 'totp' end,
    case when exists (select from passkeys p where p.user_id = users.id) then 'passkey' end,
    case when exists (select from recovery_codes c where c.user_id = users.id and c.used_at is null)
      then 'recovery_code' end], null)`

// The statements of every sign-in are written out and prepared by name: planning them anew costs more than they do.

/** An address is shared by many people, whose slips must not add up for ever: its count begins anew each hour. */
const IS_FORGOTTEN = `(a.last_attempt_at < now() - interval '24 hours'
  or a.kind = 'address' and a.counted_since < now() - interval '1 hour')`
const NEXT_FAILURES = `(case when ${IS_FORGOTTEN} then 1 else a.failures + 1 end)`

/**
 * The failures were of a password that has not been replaced since. Asked after the limit only, and then of
 * unknown emails too.
 */
const IS_STOPPED = `(a.kind = 'email' and a.consecutive >= $8::int and not exists (
  select from users join user_credentials c on c.user_id = users.id
  where users.environment_id = $9::uuid and users.deleted_at is null
    and (users.email_normalized = $10::text or users.id = $11::uuid)
    and c.password_changed_at > a.last_attempt_at))`
const IS_HELD_UP = `(coalesce(a.blocked_until > now(), false) or coalesce(${IS_STOPPED}, false))`

/** The first wait begins with the failure that reaches the limit; each further one doubles it, up to an hour. */
const blockedUntil = (failures: string, limit: string): string => `case when ${failures} < ${limit} then null
  else now() + least($7::int * power(2, least(${failures} - ${limit}, 16)), 3600) * interval '1 second' end`

// Nothing but a new password lets an attempt through after a stop: the count is of that one from then on.
const COUNT_ATTEMPT = `
  with given (kind, key_hash, max_failures) as (
    values ('email_and_address', $1::text, $2::int), ('email', $3, $4), ('address', $5, $6)),
  waits as (
    select max(a.blocked_until) filter (where a.blocked_until > now()) as until,
      coalesce(bool_or(${IS_STOPPED}), false) as is_stopped
    from login_attempts a join given using (kind, key_hash)),
  counted as (
    insert into login_attempts as a (kind, key_hash, failures, consecutive, blocked_until)
    select kind, key_hash, 1, case when $8 is null then 0 else 1 end, ${blockedUntil('1', 'max_failures')} from given
    where (select until is null and not is_stopped from waits)
    on conflict (kind, key_hash) do update set
      failures = case when ${IS_HELD_UP} then a.failures else ${NEXT_FAILURES} end,
      consecutive = case when ${IS_HELD_UP} then a.consecutive when $8 is null then 0
        when a.consecutive >= $8 then 1 else a.consecutive + 1 end,
      blocked_until = case when ${IS_HELD_UP} then a.blocked_until else ${blockedUntil(
        NEXT_FAILURES,
        `(case a.kind when 'email_and_address' then $2 when 'email' then $4 else $6 end)`,
      )} end,
      is_admitted = not ${IS_HELD_UP},
      counted_since = case when ${IS_FORGOTTEN} then now() else a.counted_since end,
      last_attempt_at = case when ${IS_HELD_UP} then a.last_attempt_at else now() end
    returning kind, is_admitted, blocked_until)
  select ceil(extract(epoch from greatest(
      (select until from waits),
      (select max(blocked_until) from counted where not is_admitted)) - now()))::int as wait,
    (select is_stopped from waits)
      or exists (select from counted where not is_admitted and coalesce(blocked_until <= now(), true)) as is_stopped`

const FAILURES_OF_DEVICE = `select failures from login_attempts where kind = 'device' and key_hash = $1::text`

// The email is written first, as everywhere: the two never wait in a ring. The device is looked at again under that lock,
// so that an attempt counts for both or for none. A stop stays a stop.
const COUNT_DEVICE_ATTEMPT = `
  with email as (
    insert into login_attempts as a (kind, key_hash, failures, consecutive)
    select 'email', $3, 0, 1 where coalesce((${FAILURES_OF_DEVICE}), 0) < $2::int
    on conflict (kind, key_hash) do update set consecutive = a.consecutive + 1
      where coalesce((${FAILURES_OF_DEVICE} for update), 0) < $2
    returning kind)
  insert into login_attempts as a (kind, key_hash, failures)
  select 'device', $1::text, 1 from email
  on conflict (kind, key_hash) do update set failures = a.failures + 1, last_attempt_at = now()
    where a.failures < $2
  returning failures`

// The rows are locked first, in the order in which they are counted: the two never wait in a ring.
const FORGIVE = `
  held as (
    select kind from login_attempts
    where (kind, key_hash) in (
      ('email_and_address', $1::text), ('email', $2::text), ('device', $1), ('address', $3::text))
    order by kind desc for update),
  gone as (
    delete from login_attempts
    where (kind in ('email_and_address', 'device') and key_hash = $1
        or kind = 'email' and key_hash = $2 and consecutive < ${MAX_CONSECUTIVE_FAILURES})
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
      idle_expires_at, expires_at, amr, audiences)
    select $4, $5::uuid, id, $7::uuid, $8, $9, $10, $11, $12,
      now() + $13::int * interval '1 second', now() + $14::int * interval '1 second', $26::text[], $27::text[]
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
