import { and, eq, isNull, or, sql } from 'drizzle-orm'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { roles, users } from '../db/schema.ts'
import { isUuid } from '../ids.ts'
import type { Reach } from '../permissions.ts'
import { namingConflicts, searchText, type UserFields } from '../users/repository.ts'

/** Somebody whose name an imported person has. */
export type Namesake = {
  id: string
  key: string
  emailNormalized: string | null
  isDeleted: boolean
}

/** A role held in accounts or everywhere. */
export type NamedRole = { id: string; key: string; defaultReach: Reach }

/** A new person, with everything that is written of one. */
export type NewPerson = UserFields & {
  id: string
  createdAt: Date | null
  passwordHash: string | null
  mustChange: boolean
  isEmailVerified: boolean
}

export type NewGrant = {
  id: string
  userId: string
  roleId: string
  accountId: string | null
  isPrimary: boolean
}

export type UserImportRepository = ReturnType<typeof createUserImportRepository>

/** Many people at a time: each function is one statement, whatever the number. */
export function createUserImportRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  return {
    /** Who has one of these keys or emails, or has had one of these keys as the id. */
    async listNamesakes(
      keys: readonly string[],
      emails: readonly string[],
      ex: Executor = db,
    ): Promise<Namesake[]> {
      const isNamed = or(
        sql`${users.key} = any(${sql.param([...keys])}::text[])`,
        sql`${users.emailNormalized} = any(${sql.param([...emails])}::text[])`,
      )
      return await ex
        .select({
          id: users.id,
          key: users.key,
          emailNormalized: users.emailNormalized,
          isDeleted: sql<boolean>`${users.deletedAt} is not null`,
        })
        .from(users)
        .where(
          and(
            eq(users.environmentId, environmentId),
            or(
              and(isNull(users.deletedAt), isNamed),
              sql`${users.id} = any(${sql.param(keys.filter(isUuid))}::uuid[])`,
            ),
          ),
        )
    },

    /** Which of these ids a user has, or has had. */
    async listKnownIds(ids: readonly string[]): Promise<string[]> {
      const rows = await db
        .select({ id: users.id })
        .from(users)
        .where(sql`${users.id} = any(${sql.param([...ids])}::uuid[])`)
      return rows.map(({ id }) => id)
    },

    /** The roles with these keys or ids, built-in ones too, held until the transaction ends. */
    async holdRoles(names: readonly string[], tx: Tx): Promise<NamedRole[]> {
      return await tx
        .select({ id: roles.id, key: roles.key, defaultReach: roles.defaultReach })
        .from(roles)
        .where(
          and(
            eq(roles.environmentId, environmentId),
            isNull(roles.resourceId),
            or(
              sql`${roles.key} = any(${sql.param([...names])}::text[])`,
              sql`${roles.id} = any(${sql.param(names.filter(isUuid))}::uuid[])`,
            ),
          ),
        )
        .orderBy(roles.id)
        .for('share')
    },

    /** Writes people with their credentials and home memberships. @throws AppError email_taken, user_key_taken */
    async insertPeople(people: readonly NewPerson[], tx: Tx): Promise<void> {
      const records = people.map((person) => ({
        ...person,
        emailNormalized: person.email === null ? null : normalizeEmail(person.email),
        searchText: searchText(person),
      }))
      // In the order of the keys, so that two imports of the same people do not wait for each other in a ring.
      await namingConflicts(() =>
        tx.execute(sql`
          with x as materialized (
            select * from json_to_recordset(${JSON.stringify(records)}::json) as x (id uuid, key text, email text,
              "emailNormalized" text, "fullName" text, "firstName" text, "lastName" text, "phoneNumber" text,
              attributes jsonb, "isActive" boolean, "accountId" uuid, "createdAt" timestamptz, "passwordHash" text,
              "mustChange" boolean, "isEmailVerified" boolean, "searchText" text)),
          person as (
            insert into users (id, environment_id, key, email, email_normalized, full_name, first_name, last_name,
              phone_number, attributes, is_active, account_id, search_text, created_at)
            select id, ${environmentId}::uuid, key, email, "emailNormalized", "fullName", "firstName", "lastName",
              "phoneNumber", attributes, "isActive", "accountId", "searchText", coalesce("createdAt", now())
            from x order by key),
          member as (
            insert into account_members (environment_id, account_id, user_id)
            select ${environmentId}::uuid, "accountId", id from x where "accountId" is not null)
          insert into user_credentials (user_id, environment_id, password_hash, must_change, email_verified_at)
          select id, ${environmentId}::uuid, "passwordHash", "mustChange", case when "isEmailVerified" then now() end
          from x where "passwordHash" is not null or "isEmailVerified"`),
      )
    },

    async insertGrants(grants: readonly NewGrant[], tx: Tx): Promise<void> {
      if (grants.length === 0) return
      await tx.execute(sql`
        insert into role_assignments (id, environment_id, user_id, role_id, account_id, is_primary)
        select id, ${environmentId}::uuid, "userId", "roleId", "accountId", "isPrimary"
        from json_to_recordset(${JSON.stringify(grants)}::json) as x (id uuid, "userId" uuid, "roleId" uuid,
          "accountId" uuid, "isPrimary" boolean)
        order by "userId", "roleId"`)
    },
  }
}
