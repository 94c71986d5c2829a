import { and, asc, eq, inArray, isNull, or, type SQL, sql } from 'drizzle-orm'
import { DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { accountMembers, accounts, resourceInstances, userInvites } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { type AccountRow, isOfGuest, searchText } from './repository.ts'

/** The part of an account that a bulk write knows. */
export type NamedAccount = Pick<AccountRow, 'id' | 'key'>
/** The part of an account's row that a bulk write writes. */
export type WrittenAccount = Pick<AccountRow, 'id' | 'key' | 'name' | 'description' | 'attributes'>

export type BulkAccountsRepository = ReturnType<typeof createBulkAccountsRepository>

/** Many accounts at a time: each function is one or two statements, whatever the number. */
export function createBulkAccountsRepository(environmentId = DEFAULT_ENVIRONMENT) {
  const isLive = and(eq(accounts.environmentId, environmentId), isNull(accounts.deletedAt))
  const among = (ids: readonly string[]): SQL => sql`any(${sql.param([...ids])}::uuid[])`

  return {
    /** Those with these keys or ids, locked: `share` while people are put into them, else for a change. */
    async lockAccounts(
      names: readonly string[],
      strength: 'share' | 'no key update',
      tx: Tx,
    ): Promise<NamedAccount[]> {
      return await tx
        .select({ id: accounts.id, key: accounts.key })
        .from(accounts)
        .where(
          and(
            isLive,
            or(
              sql`${accounts.key} = any(${sql.param([...names])}::text[])`,
              sql`${accounts.id} = ${among(names.filter(isUuid))}`,
            ),
          ),
        )
        .orderBy(asc(accounts.id))
        .for(strength)
    },

    /** Who has one of these keys, as key or as id. */
    async listNamesakes(keys: readonly string[], tx: Tx): Promise<NamedAccount[]> {
      const suspects = keys.filter(isUuid)
      return await tx
        .select({ id: accounts.id, key: accounts.key })
        .from(accounts)
        .where(
          or(
            and(isLive, sql`${accounts.key} = any(${sql.param([...keys])}::text[])`),
            suspects.length === 0
              ? undefined
              : and(eq(accounts.environmentId, environmentId), inArray(accounts.id, suspects)),
          ),
        )
    },

    /** @throws AppError account_key_taken */
    async insertAccounts(rows: readonly WrittenAccount[], tx: Tx): Promise<void> {
      if (rows.length === 0) return
      const records = rows.map((row) => ({ ...row, searchText: searchText(row) }))
      try {
        await tx.execute(sql`
          insert into accounts (id, environment_id, key, name, description, attributes, search_text)
          select id, ${environmentId}::uuid, key, name, description, attributes, "searchText"
          from json_to_recordset(${JSON.stringify(records)}::json) as x (id uuid, key text, name text,
            description text, attributes jsonb, "searchText" text)
          order by key`)
      } catch (error) {
        if (isUniqueViolation(error, 'accounts_key_key'))
          throw new AppError('account_key_taken', { cause: error })
        throw error
      }
    },

    /** Those of them to which somebody belongs who is at home there, has credentials or holds a built-in role. */
    async listWithOwnPeople(ids: readonly string[], tx: Tx): Promise<Set<string>> {
      const { rows } = await tx.execute<{ id: string }>(sql`
        select w.id from unnest(${sql.param([...ids])}::uuid[]) as w (id)
        where exists (select from account_members m join users u on u.id = m.user_id and u.deleted_at is null
          where m.account_id = w.id and (u.account_id = m.account_id
            or exists (select from user_credentials c where c.user_id = u.id)
            or exists (select from role_assignments a join roles r on r.id = a.role_id and r.is_builtin
              where a.user_id = u.id)))`)
      return new Set(rows.map(({ id }) => id))
    },

    /** Removes memberships, with the roles held through them, instances of resources in them, and invitations to them. */
    async deleteContents(ids: readonly string[], tx: Tx): Promise<void> {
      await tx.delete(accountMembers).where(and(sql`${accountMembers.accountId} = ${among(ids)}`, isOfGuest))
      await tx.delete(resourceInstances).where(sql`${resourceInstances.accountId} = ${among(ids)}`)
      await tx.delete(userInvites).where(sql`${userInvites.accountId} = ${among(ids)}`)
    },

    async softDeleteAccounts(ids: readonly string[], tx: Tx): Promise<void> {
      await tx
        .update(accounts)
        .set({ deletedAt: sql`now()`, isActive: false, updatedAt: sql`now()` })
        .where(sql`${accounts.id} = ${among(ids)}`)
    },
  }
}
