import { and, asc, eq, gt, inArray, isNotNull, isNull, lt, ne, type SQL, sql } from 'drizzle-orm'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { auditEvents, auditPersonalData, users } from '../db/schema.ts'
import { readSetting, writeSetting } from '../db/settings.ts'
import { LOWEST_ID } from '../ids.ts'
import { namingConflicts } from '../users/repository.ts'

/** Somebody who is there, deleted or erased. */
export type AnyUser = {
  id: string
  key: string
  email: string | null
  emailNormalized: string | null
  accountId: string | null
  deletedAt: Date | null
  erasedAt: Date | null
}

export type ErasureRepository = ReturnType<typeof createErasureRepository>

/** @param subjectTypes resources whose instances are people, as AuthZEN's subjects are */
export function createErasureRepository(
  { db }: Database,
  subjectTypes: readonly string[],
  environmentId = DEFAULT_ENVIRONMENT,
) {
  const columns = {
    id: users.id,
    key: users.key,
    email: users.email,
    emailNormalized: users.emailNormalized,
    accountId: users.accountId,
    deletedAt: users.deletedAt,
    erasedAt: users.erasedAt,
  }
  const isOurs = eq(users.environmentId, environmentId)

  return {
    /** Somebody, in whatever state; the row is locked until the transaction ends. */
    async lockAnyUser(id: string, tx: Tx): Promise<AnyUser | undefined> {
      const [found] = await tx
        .select(columns)
        .from(users)
        .where(and(isOurs, eq(users.id, id)))
        .for('no key update')
      return found
    },

    /** The home account of somebody who is not erased, deleted or not. */
    async findHomeAccount(id: string): Promise<string | undefined> {
      const [found] = await db
        .select({ accountId: users.accountId })
        .from(users)
        .where(and(isOurs, eq(users.id, id), isNull(users.erasedAt)))
      return found?.accountId ?? undefined
    },

    /** Those of all environments who were deleted so many days ago, the first of them but for `skip`. */
    async listDue(
      graceDays: number,
      limit: number,
      skip: number,
    ): Promise<{ id: string; environmentId: string }[]> {
      return await db
        .select({ id: users.id, environmentId: users.environmentId })
        .from(users)
        .where(
          and(
            isNotNull(users.deletedAt),
            isNull(users.erasedAt),
            lt(users.deletedAt, sql`now() - make_interval(days => ${graceDays})`),
          ),
        )
        .orderBy(asc(users.deletedAt), asc(users.id))
        .limit(limit)
        .offset(skip)
    },

    /**
     * Makes somebody who was deleted be there again, without their membership of accounts that were deleted meanwhile and
     * the roles held through it; returns those accounts.
     * @throws AppError email_taken, user_key_taken
     */
    async restoreUser(id: string, tx: Tx): Promise<string[]> {
      const { rows } = await tx.execute<{ account_id: string }>(sql`
        delete from account_members m using accounts a
        where m.user_id = ${id} and a.id = m.account_id and a.deleted_at is not null returning m.account_id`)
      const gone = rows.map((row) => row.account_id)
      await namingConflicts(() =>
        tx
          .update(users)
          .set({
            deletedAt: null,
            accountId: sql`case when ${users.accountId} = any(${sql.param(gone)}::uuid[]) then null
              else ${users.accountId} end`,
            revision: sql`${users.revision} + 1`,
            updatedAt: sql`now()`,
          })
          .where(eq(users.id, id)),
      )
      return gone
    },

    /** Removes all that is known of somebody; what is left of the record is the id. */
    async eraseUser({ id, key, email }: AnyUser, tx: Tx): Promise<void> {
      const remove = async (statement: SQL): Promise<number> => (await tx.execute(statement)).rowCount ?? 0
      const removeAll = async (statement: SQL): Promise<void> => {
        while ((await remove(sql`${statement} limit ${AT_ONCE})`)) === AT_ONCE);
      }
      const instances = instancesOf(key, id)

      // The trail itself stays, and with it the order of its chain.
      const emails = sql`any(${sql.param(await emailsOf(id, email, tx))}::text[])`
      await removeAll(sql`delete from audit_personal_data where audit_event_id in (
        select p.audit_event_id from audit_personal_data p join audit_events e on e.id = p.audit_event_id
        where p.subject_id is null and p.email_normalized = ${emails} and e.environment_id = ${environmentId}`)
      await removeAll(sql`delete from audit_personal_data where audit_event_id in (
        select audit_event_id from audit_personal_data where subject_id = ${id}`)
      await removePersonalDataOfActor(id, tx)
      await remove(sql`delete from audit_personal_data p using audit_events e
        where e.id = p.audit_event_id and e.environment_id = ${environmentId}
          and e.target_type = 'instance' and e.target_id in (select x.id::text from (${instances}) x)`)
      await removeAll(sql`delete from decision_log where id in (select id from decision_log
        where environment_id = ${environmentId} and user_key in (${key}, ${id})`)

      await remove(sql`delete from resource_instances where id in (${instances})`)
      await remove(sql`delete from account_invitations where environment_id = ${environmentId}
        and (accepted_by_user_id = ${id} or email_normalized = ${emails})`)
      await remove(sql`delete from user_invites where environment_id = ${environmentId}
        and (email_normalized = ${emails} or key = ${key})`)
      for (const table of OWN_TABLES) await remove(sql`delete from ${sql.raw(table)} where user_id = ${id}`)
      await tx
        .update(users)
        .set({
          key: id,
          email: null,
          emailNormalized: null,
          fullName: null,
          firstName: null,
          lastName: null,
          phoneNumber: null,
          attributes: null,
          searchText: '',
          accountId: null,
          isActive: false,
          tokenVersion: sql`${users.tokenVersion} + 1`,
          revision: sql`${users.revision} + 1`,
          updatedAt: sql`now()`,
          deletedAt: sql`coalesce(${users.deletedAt}, now())`,
          erasedAt: sql`now()`,
        })
        .where(eq(users.id, id))
    },

    /**
     * Removes, in all environments, what was written about somebody, or by them, while they were erased: a refused
     * sign-in, a session that opens nothing. That is looked for as long as a request may have been under way, and from
     * where the last time ended, however long ago that is.
     */
    async sweep(): Promise<void> {
      const { rows } = await db.execute<{ now: string }>(sql`select now()::text as now`)
      const last = (await readSetting(db, SWEPT)) ?? '-infinity'
      const erased = sql`select id from users where erased_at > ${last}::timestamptz - interval '1 day'`
      await db.execute(sql`delete from audit_personal_data p using audit_events e
        where e.id = p.audit_event_id and e.action <> 'user.erased' and p.subject_id in (${erased})`)
      await db.execute(sql`delete from audit_personal_data p using audit_events e, users u
        where u.id in (${erased}) and e.environment_id = u.environment_id and e.actor_id = u.id::text
          and e.actor_type = 'user' and p.audit_event_id = e.id`)
      for (const table of OWN_TABLES)
        await db.execute(sql`delete from ${sql.raw(table)} where user_id in (${erased})`)
      for (const { now } of rows) await writeSetting(db, SWEPT, now)
    },

    /** What is stored about somebody, but for what may be very much: see `readDecisions` and `readEvents`. */
    async describeUser({ id, key, emailNormalized }: AnyUser): Promise<Record<string, unknown>> {
      const rowsOf = (query: SQL): SQL => sql`(select coalesce(json_agg(x), '[]') from (${query}) x)`
      const rowOf = (query: SQL): SQL => sql`(select to_json(x) from (${query}) x)`
      const { rows } = await db.execute<{ described: Record<string, unknown> }>(sql`select json_build_object(
        'user', ${rowOf(sql`select id, key, email, full_name, first_name, last_name, phone_number, attributes, is_active,
          account_id, created_at, updated_at, deleted_at from users where id = ${id}`)},
        'credentials', ${rowOf(sql`select password_hash is not null as has_password, must_change, email_verified_at,
          credentials_changed_at from user_credentials where user_id = ${id}`)},
        'totp', ${rowsOf(sql`select created_at, confirmed_at, last_used_at from totp_factors where user_id = ${id}`)},
        'recovery_codes', ${rowsOf(sql`select created_at, used_at from recovery_codes where user_id = ${id}`)},
        'passkeys', ${rowsOf(sql`select name, credential_id, transports, device_type, is_backed_up, aaguid, created_at,
          last_used_at from passkeys where user_id = ${id} order by id`)},
        'accounts', ${rowsOf(sql`select a.id, a.key, a.name, m.status, m.created_at from account_members m
          join accounts a on a.id = m.account_id where m.user_id = ${id} order by a.name`)},
        'roles', ${rowsOf(sql`select r.key as role, g.account_id, t.key || ':' || i.key as instance, g.is_primary,
          g.expires_at, g.created_at from role_assignments g join roles r on r.id = g.role_id
          left join resource_instances i on i.id = g.resource_instance_id left join resources t on t.id = i.resource_id
          where g.user_id = ${id} order by g.id`)},
        'sessions', ${rowsOf(sql`select id, account_id, client_id, user_agent, address, amr, authenticated_at, created_at,
          refreshed_at, expires_at, ended_at, end_reason from sessions where user_id = ${id} order by id`)},
        'links_sent', ${rowsOf(sql`select kind, created_at, expires_at from mail_tokens where user_id = ${id} order by id`)},
        'invitations', ${rowsOf(sql`select v.account_id, v.email, r.key as role, v.status, v.created_at, v.expires_at
          from account_invitations v join roles r on r.id = v.role_id where v.environment_id = ${environmentId}
            and (v.accepted_by_user_id = ${id} or v.email_normalized = ${emailNormalized}) order by v.id`)},
        'invites', ${rowsOf(sql`select v.account_id, v.key, v.email, v.first_name, v.last_name, r.key as role, v.status,
          v.created_at from user_invites v join roles r on r.id = v.role_id where v.environment_id = ${environmentId}
            and (v.email_normalized = ${emailNormalized} or v.key = ${key}) order by v.id`)},
        'instances', ${rowsOf(sql`select t.key || ':' || i.key as instance, i.account_id, i.attributes, i.created_at
          from resource_instances i join resources t on t.id = i.resource_id
          where i.id in (${instancesOf(key, id)}) order by i.id`)},
        'relationships', ${rowsOf(sql`select st.key || ':' || s.key as subject, n.key as relation,
          ot.key || ':' || o.key as object, p.account_id, p.created_at from relationship_tuples p
          join relations n on n.id = p.relation_id
          join resource_instances s on s.id = p.subject_id join resources st on st.id = s.resource_id
          join resource_instances o on o.id = p.object_id join resources ot on ot.id = o.resource_id
          where p.subject_id in (${instancesOf(key, id)}) or p.object_id in (${instancesOf(key, id)}) order by p.id`)}
        ) as described`)
      return rows[0]?.described ?? {}
    },

    /** Logged decisions about somebody after `after`, the oldest first. */
    async readDecisions({ id, key }: AnyUser, after: string, limit: number): Promise<{ id: string }[]> {
      const { rows } = await db.execute<{ id: string }>(sql`
        select id, decided_at, action, resource, tenant, is_allowed, reason from decision_log
        where environment_id = ${environmentId} and user_key in (${key}, ${id}) and id > ${after}
        order by id limit ${limit}`)
      return rows
    },

    /**
     * Events that somebody caused or that are about them, after `after`, the oldest first. What is personal about them
     * is theirs only: the address is that of whoever acted, the rest is about whom it was done to.
     */
    async readEvents({ id }: AnyUser, after: string, limit: number): Promise<{ id: string }[]> {
      const { rows } = await db.execute<{ id: string }>(sql`
        select e.id, e.occurred_at, e.action, e.outcome, e.actor_type, e.actor_id, e.target_type, e.target_id, e.account_id,
          e.details, e.repeat_count,
          case when e.actor_id = ${id} and e.target_id = ${id} then p.data
            when e.actor_id = ${id} then jsonb_strip_nulls(jsonb_build_object('address', p.data -> 'address'))
            when e.actor_type = 'anonymous' then p.data else p.data - 'address' end as personal
        from ((select id from audit_events
            where environment_id = ${environmentId} and actor_id = ${id} and id > ${after} order by id limit ${limit})
          union (select id from audit_events
            where environment_id = ${environmentId} and target_id = ${id} and id > ${after} order by id limit ${limit})) x
        join audit_events e on e.id = x.id
        left join audit_personal_data p on p.audit_event_id = e.id
        order by e.id limit ${limit}`)
      return rows
    },
  }

  /**
   * The address of now and those of before, normalized, as far as the trail has them: not what was only asked for, which
   * may be anybody's, nor what somebody else has by now.
   */
  async function emailsOf(id: string, email: string | null, tx: Tx): Promise<string[]> {
    const { rows } = await tx.execute<{ email: string }>(sql`
      select distinct x.value as email from audit_personal_data p join audit_events e on e.id = p.audit_event_id,
        jsonb_each_text(p.data) x
      where p.subject_id = ${id} and x.value is not null and (x.key in ('email', 'email_before')
        or x.key = 'email_after' and e.action <> 'user.email_change_requested')
      union select ${email}::text where ${email}::text is not null`)
    const emails = [...new Set(rows.map((row) => normalizeEmail(row.email)))]
    const others = await tx
      .select({ email: users.emailNormalized })
      .from(users)
      .where(and(isOurs, inArray(users.emailNormalized, emails), ne(users.id, id), isNull(users.deletedAt)))
    const taken = new Set(others.map((other) => other.email))
    return emails.filter((one) => !taken.has(one))
  }

  /** Instances that stand for the person, by key or id. */
  function instancesOf(key: string, id: string): SQL {
    return sql`select i.id from resource_instances i join resources r on r.id = i.resource_id
      where i.environment_id = ${environmentId} and r.key = any(${sql.param([...subjectTypes])}::text[])
        and i.key in (${key}, ${id})`
  }

  async function removePersonalDataOfActor(id: string, tx: Tx): Promise<void> {
    for (let after: string | undefined = LOWEST_ID; after !== undefined; ) {
      const events: { id: string }[] = await tx
        .select({ id: auditEvents.id })
        .from(auditEvents)
        .where(
          and(
            eq(auditEvents.environmentId, environmentId),
            eq(auditEvents.actorId, id),
            eq(auditEvents.actorType, 'user'),
            gt(auditEvents.id, after),
          ),
        )
        .orderBy(asc(auditEvents.id))
        .limit(AT_ONCE)
      await tx
        .delete(auditPersonalData)
        .where(
          sql`${auditPersonalData.auditEventId} = any(${sql.param(events.map((one) => one.id))}::uuid[])`,
        )
      after = events.at(-1)?.id
    }
  }
}

const AT_ONCE = 10_000
/** The setting that says up to when what came after erasures was removed. */
const SWEPT = 'erasures_swept_until'

/** What is a person's own; roles go before the memberships that they are held through. */
const OWN_TABLES = [
  'mail_tokens',
  'challenges',
  'passkeys',
  'recovery_codes',
  'totp_factors',
  'user_credentials',
  'sessions',
  'role_assignments',
  'account_members',
] as const
