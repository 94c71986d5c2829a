import { and, eq, isNull, sql } from 'drizzle-orm'
import type { RoleAtSignIn } from '../auth/grants.ts'
import { HELD_ROLES } from '../auth/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor } from '../db/client.ts'
import { accounts, users } from '../db/schema.ts'

/** What decides whether somebody gets in with the password alone. */
export type SignInDemands = {
  hasSecondFactor: boolean
  roles: RoleAtSignIn[]
  /** Every account that a token of the person may be for; null is the token of somebody without a home account. */
  accounts: { id: string | null; isMfaRequired: boolean }[]
}

export type PasswordOwnersRepository = ReturnType<typeof createPasswordOwnersRepository>

/** The statements that tell what is known of whoever is to have a password, of one environment. */
export function createPasswordOwnersRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  return {
    async findAccountName(id: string): Promise<string | undefined> {
      const [row] = await db
        .select({ name: accounts.name })
        .from(accounts)
        .where(and(eq(accounts.environmentId, environmentId), eq(accounts.id, id)))
      return row?.name
    },

    /** Some of the stored hashes, the same ones each time as long as they stay. Reads all of them. */
    async sampleHashes(): Promise<string[]> {
      const { rows } = await db.execute<{ hash: string }>(sql`
        select password_hash as hash from user_credentials
        where environment_id = ${environmentId} and password_hash is not null
        order by uuid_hash(user_id), user_id limit 1000`)
      return rows.map(({ hash }) => hash)
    },

    async findDemands(userId: string): Promise<SignInDemands | undefined> {
      const [row] = await db
        .select({
          hasSecondFactor: sql<boolean>`exists (select from totp_factors f
              where f.user_id = users.id and f.confirmed_at is not null)
            or exists (select from passkeys p where p.user_id = users.id)`,
          roles: sql<RoleAtSignIn[]>`${sql.raw(HELD_ROLES)}`,
          accounts: sql<SignInDemands['accounts']>`coalesce((
              select json_agg(json_build_object('id', a.id, 'isMfaRequired', a.is_mfa_required))
              from account_members m join accounts a on a.id = m.account_id
              where m.user_id = users.id and m.status = 'active' and a.deleted_at is null), '[]')::jsonb
            || case when users.account_id is null then '[{"id": null, "isMfaRequired": false}]'::jsonb
              else '[]'::jsonb end`,
        })
        .from(users)
        .where(and(eq(users.environmentId, environmentId), eq(users.id, userId), isNull(users.deletedAt)))
      return row
    },
  }
}

/** Whether somebody's password is hashed with the pepper of that name. Reads every password when nobody's is. */
export async function isPepperInUse(ex: Executor, pepperId: string): Promise<boolean> {
  const { rows } = await ex.execute(
    sql`select from user_credentials where starts_with(password_hash, ${`${pepperId}$argon2`}) limit 1`,
  )
  return rows.length > 0
}
