import { and, asc, eq, isNull, sql } from 'drizzle-orm'
import { foldCase } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, containing, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { accountMembers, accounts, resourceInstances, userInvites, users } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'

/** Memberships that can end alone. The others are of people who were deleted; they go when these are restored or erased. */
export const isOfGuest = sql`not exists (select from users u
  where u.id = ${accountMembers.userId} and u.account_id = ${accountMembers.accountId})`

export type AccountRow = {
  id: string
  key: string
  name: string
  description: string | null
  isActive: boolean
  /** Whether a token for it takes two factors. */
  isMfaRequired: boolean
  planId: string | null
  currentSubscriptionEnds: Date | null
  attributes: Record<string, unknown> | null
  revision: number
  createdAt: Date
  updatedAt: Date
}

export type AccountChanges = Partial<Omit<AccountRow, 'id' | 'revision' | 'createdAt' | 'updatedAt'>>

export type AccountFilters = { q?: string; key?: string; isActive?: boolean }

export type MemberRow = {
  userId: string
  email: string | null
  fullName: string | null
  isHome: boolean
  status: 'active' | 'pending'
  createdAt: Date
  /** The user id again: what a page of members is ordered by. */
  id: string
}

/** An account that a person belongs to. */
export type Membership = { account: AccountRow; isHome: boolean; status: 'active' | 'pending' }

const accountColumns = {
  id: accounts.id,
  key: accounts.key,
  name: accounts.name,
  description: accounts.description,
  isActive: accounts.isActive,
  isMfaRequired: accounts.isMfaRequired,
  planId: accounts.planId,
  currentSubscriptionEnds: accounts.currentSubscriptionEnds,
  attributes: accounts.attributes,
  revision: accounts.revision,
  createdAt: accounts.createdAt,
  updatedAt: accounts.updatedAt,
}

const sortKeys: Record<string, SortKey<AccountRow>> = {
  created_at: { by: accounts.id, cast: 'uuid', value: (row) => row.id },
  name: { by: accounts.name, cast: 'text', value: (row) => row.name },
  updated_at: { by: accounts.updatedAt, cast: 'timestamptz', value: (row) => row.updatedAt.toISOString() },
}

/** The names that a list of accounts can be sorted by. */
export const ACCOUNT_SORTS = ['created_at', 'name', 'updated_at'] as const

const memberSortKeys: Record<string, SortKey<MemberRow>> = {
  created_at: { by: accountMembers.userId, cast: 'uuid', value: (row) => row.id },
}

export type AccountsRepository = ReturnType<typeof createAccountsRepository>

/** The statements of accounts and members, of one environment; deleted accounts are not there. */
export function createAccountsRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isLive = and(eq(accounts.environmentId, environmentId), isNull(accounts.deletedAt))

  return {
    async findAccount(id: string, ex: Executor = db): Promise<AccountRow | undefined> {
      const [row] = await ex
        .select(accountColumns)
        .from(accounts)
        .where(and(eq(accounts.id, id), isLive))
      return row
    },

    async findAccountByKey(key: string, ex: Executor = db): Promise<AccountRow | undefined> {
      const [row] = await ex
        .select(accountColumns)
        .from(accounts)
        .where(and(eq(accounts.key, key), isLive))
      return row
    },

    /** The same, its row locked: `share` while people are put into it, `no key update` while it changes. */
    async lockAccount(
      id: string,
      tx: Tx,
      strength: 'share' | 'no key update' = 'no key update',
    ): Promise<AccountRow | undefined> {
      const [row] = await tx
        .select(accountColumns)
        .from(accounts)
        .where(and(eq(accounts.id, id), isLive))
        .for(strength)
      return row
    },

    async listAccounts(filters: AccountFilters, request: PageRequest): Promise<Page<AccountRow>> {
      const clauses = pageClauses(request, sortKeys, accounts.id)
      const matching = allOf(
        isLive,
        filters.q === undefined
          ? undefined
          : sql`${accounts.searchText} like ${containing(foldCase(filters.q))}`,
        filters.key === undefined ? undefined : eq(accounts.key, filters.key),
        filters.isActive === undefined ? undefined : eq(accounts.isActive, filters.isActive),
      )
      const page = clauses.toPage(
        await db
          .select(accountColumns)
          .from(accounts)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(accounts, matching) } : page
    },

    /** @throws AppError account_key_taken */
    async insertAccount(
      account: AccountChanges & { id: string; key: string; name: string; openedByUserId?: string },
      tx: Tx,
    ): Promise<void> {
      if (isUuid(account.key)) {
        // A key that equals another row's id would make both names ambiguous.
        const clashes = await tx.$count(
          accounts,
          and(eq(accounts.environmentId, environmentId), eq(accounts.id, account.key)),
        )
        if (clashes > 0) throw new AppError('account_key_taken')
      }
      try {
        await tx.insert(accounts).values({ ...account, environmentId, searchText: searchText(account) })
      } catch (error) {
        if (isUniqueViolation(error, 'accounts_key_key'))
          throw new AppError('account_key_taken', { cause: error })
        throw error
      }
    },

    /** The accounts that the person has opened, and that are there. */
    async countOpenedBy(userId: string, tx: Tx): Promise<number> {
      return await tx.$count(accounts, and(eq(accounts.openedByUserId, userId), isNull(accounts.deletedAt)))
    },

    async updateAccount(current: AccountRow, changes: AccountChanges, tx: Tx): Promise<void> {
      await tx
        .update(accounts)
        .set({
          ...changes,
          searchText: searchText({ ...current, ...changes }),
          revision: sql`${accounts.revision} + 1`,
          updatedAt: sql`now()`,
        })
        .where(eq(accounts.id, current.id))
    },

    async softDeleteAccount(id: string, tx: Tx): Promise<void> {
      await tx
        .update(accounts)
        .set({ deletedAt: sql`now()`, isActive: false, updatedAt: sql`now()` })
        .where(eq(accounts.id, id))
    },

    async hasPeople(accountId: string, tx: Tx): Promise<boolean> {
      const [row] = await tx
        .select({ userId: accountMembers.userId })
        .from(accountMembers)
        .innerJoin(users, and(eq(users.id, accountMembers.userId), isNull(users.deletedAt)))
        .where(eq(accountMembers.accountId, accountId))
        .limit(1)
      return row !== undefined
    },

    /** Whether somebody belongs to it who is at home there, has credentials or holds a built-in role. */
    async hasOwnPeople(accountId: string, tx: Tx): Promise<boolean> {
      const { rows } = await tx.execute(sql`select from account_members m
        join users u on u.id = m.user_id and u.deleted_at is null
        where m.account_id = ${accountId} and (u.account_id = m.account_id
          or exists (select from user_credentials c where c.user_id = u.id)
          or exists (select from role_assignments a join roles r on r.id = a.role_id and r.is_builtin
            where a.user_id = u.id))
        limit 1`)
      return rows.length > 0
    },

    /** Removes memberships, with the roles held through them, instances of resources in it, and invitations to it. */
    async deleteContents(accountId: string, tx: Tx): Promise<void> {
      await tx.delete(accountMembers).where(and(eq(accountMembers.accountId, accountId), isOfGuest))
      await tx.delete(resourceInstances).where(eq(resourceInstances.accountId, accountId))
      await tx.delete(userInvites).where(eq(userInvites.accountId, accountId))
    },

    /** Makes the user a member if there is no membership yet, pending or active. */
    async ensureMember(accountId: string, userId: string, tx: Tx): Promise<void> {
      await tx.insert(accountMembers).values({ environmentId, accountId, userId }).onConflictDoNothing()
    },

    /** Makes the user an active member, whatever the membership was before. */
    async upsertMember(accountId: string, userId: string, tx: Tx): Promise<void> {
      await tx
        .insert(accountMembers)
        .values({ environmentId, accountId, userId, status: 'active' })
        .onConflictDoUpdate({
          target: [accountMembers.accountId, accountMembers.userId],
          set: { status: 'active' },
        })
    },

    /** Ends the membership, and with it every role held in the account. False when there was none. */
    async deleteMember(accountId: string, userId: string, tx: Tx): Promise<boolean> {
      const gone = await tx
        .delete(accountMembers)
        .where(and(eq(accountMembers.accountId, accountId), eq(accountMembers.userId, userId)))
        .returning({ userId: accountMembers.userId })
      return gone.length > 0
    },

    async listMembers(accountId: string, request: PageRequest): Promise<Page<MemberRow>> {
      const clauses = pageClauses(request, memberSortKeys, accountMembers.userId)
      const matching = and(eq(accountMembers.accountId, accountId), isNull(users.deletedAt))
      const page = clauses.toPage(
        await db
          .select({
            id: accountMembers.userId,
            userId: accountMembers.userId,
            email: users.email,
            fullName: users.fullName,
            isHome: sql<boolean>`coalesce(${users.accountId} = ${accountMembers.accountId}, false)`,
            status: accountMembers.status,
            createdAt: accountMembers.createdAt,
          })
          .from(accountMembers)
          .innerJoin(users, eq(users.id, accountMembers.userId))
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      if (!request.total) return page
      const [count] = await db
        .select({ total: sql<number>`count(*)::int` })
        .from(accountMembers)
        .innerJoin(users, eq(users.id, accountMembers.userId))
        .where(matching)
      return { ...page, total: count?.total ?? 0 }
    },

    async listMemberships(userId: string): Promise<Membership[]> {
      return await db
        .select({
          account: accountColumns,
          isHome: sql<boolean>`coalesce(${users.accountId} = ${accounts.id}, false)`,
          status: accountMembers.status,
        })
        .from(accountMembers)
        .innerJoin(accounts, eq(accounts.id, accountMembers.accountId))
        .innerJoin(users, eq(users.id, accountMembers.userId))
        .where(and(eq(accountMembers.userId, userId), isLive))
        .orderBy(asc(accounts.name))
    },
  }
}

/** What an account is found by. */
export const searchText = (account: { key: string; name: string; description?: string | null }): string =>
  foldCase([account.name, account.key, account.description].filter(Boolean).join(' '))
