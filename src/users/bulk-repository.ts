import { and, eq, inArray, isNull, or, sql } from 'drizzle-orm'
import { normalizeEmail } from '../case-folding.ts'
import { DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { users } from '../db/schema.ts'
import { isUuid } from '../ids.ts'
import { namingConflicts, searchText, type UserRow } from './repository.ts'

/** The part of a person's row that a bulk write reads. */
export type KnownUser = Pick<
  UserRow,
  'id' | 'key' | 'email' | 'fullName' | 'firstName' | 'lastName' | 'phoneNumber' | 'attributes' | 'accountId'
>

/** The part of a person's row that a bulk write writes. */
export type WrittenUser = Omit<KnownUser, 'accountId'>

export type BulkUsersRepository = ReturnType<typeof createBulkUsersRepository>

/** Many people at a time: each function is one statement, whatever the number. */
export function createBulkUsersRepository(environmentId = DEFAULT_ENVIRONMENT) {
  const isLive = and(eq(users.environmentId, environmentId), isNull(users.deletedAt))

  return {
    /** Those named by key or id, their rows locked in the order of their ids so that two requests do not wait in a ring. */
    async lockUsers(keys: readonly string[], ids: readonly string[], tx: Tx): Promise<KnownUser[]> {
      return await tx
        .select({
          id: users.id,
          key: users.key,
          email: users.email,
          fullName: users.fullName,
          firstName: users.firstName,
          lastName: users.lastName,
          phoneNumber: users.phoneNumber,
          attributes: users.attributes,
          accountId: users.accountId,
        })
        .from(users)
        .where(
          and(
            isLive,
            or(
              sql`${users.key} = any(${sql.param([...keys])}::text[])`,
              sql`${users.id} = any(${sql.param([...ids])}::uuid[])`,
            ),
          ),
        )
        .orderBy(users.id)
        .for('no key update')
    },

    /** Who has one of these keys, as key or as id, or one of these emails. */
    async listNamesakes(
      keys: readonly string[],
      emails: readonly string[],
      tx: Tx,
    ): Promise<{ id: string; key: string; emailNormalized: string | null }[]> {
      const suspects = keys.filter(isUuid)
      return await tx
        .select({ id: users.id, key: users.key, emailNormalized: users.emailNormalized })
        .from(users)
        .where(
          or(
            and(isLive, sql`${users.key} = any(${sql.param([...keys])}::text[])`),
            and(isLive, sql`${users.emailNormalized} = any(${sql.param([...emails])}::text[])`),
            suspects.length === 0
              ? undefined
              : and(eq(users.environmentId, environmentId), inArray(users.id, suspects)),
          ),
        )
    },

    /** Those of them who have credentials or hold a built-in role. */
    async listProtected(ids: readonly string[], tx: Tx): Promise<Set<string>> {
      const { rows } = await tx.execute<{ id: string }>(sql`
        select u.id from unnest(${sql.param([...ids])}::uuid[]) as u(id)
        where exists (select from user_credentials c where c.user_id = u.id)
          or exists (select from role_assignments a join roles r on r.id = a.role_id and r.is_builtin
            where a.user_id = u.id)`)
      return new Set(rows.map(({ id }) => id))
    },

    /** @throws AppError email_taken, user_key_taken */
    async insertUsers(rows: readonly WrittenUser[], tx: Tx): Promise<void> {
      if (rows.length === 0) return
      // In the order of the keys, so that two requests for the same people do not wait for each other in a ring.
      await namingConflicts(() =>
        tx.execute(sql`
          insert into users (id, environment_id, key, email, email_normalized, full_name, first_name, last_name,
            attributes, search_text)
          select id, ${environmentId}::uuid, key, email, "emailNormalized", "fullName", "firstName", "lastName",
            attributes, "searchText"
          from ${recordsOf(rows)} order by key`),
      )
    },

    /** Writes the rows and raises their revisions. @throws AppError email_taken */
    async updateUsers(rows: readonly WrittenUser[], tx: Tx): Promise<void> {
      if (rows.length === 0) return
      await namingConflicts(() =>
        tx.execute(sql`
          update users u set email = x.email, email_normalized = x."emailNormalized", full_name = x."fullName",
            first_name = x."firstName", last_name = x."lastName", attributes = x.attributes,
            search_text = x."searchText", revision = u.revision + 1, updated_at = now()
          from ${recordsOf(rows)} where u.id = x.id`),
      )
    },

    /** Marks as deleted who cannot sign in: they have no sessions to end. */
    async softDeleteUsers(ids: readonly string[], tx: Tx): Promise<void> {
      await tx
        .update(users)
        .set({
          deletedAt: sql`now()`,
          tokenVersion: sql`${users.tokenVersion} + 1`,
          updatedAt: sql`now()`,
        })
        .where(sql`${users.id} = any(${sql.param([...ids])}::uuid[])`)
    },
  }
}

/** The rows as a table `x`. One JSON text is written and read faster than an array for each column. */
function recordsOf(rows: readonly WrittenUser[]) {
  const records = rows.map((row) => ({
    id: row.id,
    key: row.key,
    email: row.email,
    emailNormalized: row.email === null ? null : normalizeEmail(row.email),
    fullName: row.fullName,
    firstName: row.firstName,
    lastName: row.lastName,
    attributes: row.attributes,
    searchText: searchText(row),
  }))
  return sql`json_to_recordset(${JSON.stringify(records)}::json) as x (id uuid, key text, email text,
    "emailNormalized" text, "fullName" text, "firstName" text, "lastName" text, attributes jsonb, "searchText" text)`
}
