import { and, eq, inArray, isNotNull, isNull, type Placeholder, type SQL, sql } from 'drizzle-orm'
import { LRUCache } from 'lru-cache'
import type { MfaRule } from '../auth/grants.ts'
import { foldCase, normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import {
  allOf,
  containing,
  type Page,
  type PageRequest,
  type PageValues,
  pageClauses,
  type SortKey,
} from '../db/paging.ts'
import {
  accountMembers,
  accounts,
  roleAssignments,
  roles,
  sessions,
  userCredentials,
  users,
} from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { BUILTIN_ROLES } from '../permissions.ts'
import { countPeople } from '../policy/versions.ts'

/** How many people one statement updates. */
const RAISED_AT_ONCE = 5000

/** A person as stored, with the primary role. */
export type UserRow = {
  id: string
  key: string
  email: string | null
  fullName: string | null
  firstName: string | null
  lastName: string | null
  phoneNumber: string | null
  attributes: Record<string, unknown> | null
  isActive: boolean
  accountId: string | null
  revision: number
  createdAt: Date
  updatedAt: Date
  primaryRole: { id: string; name: string; description: string | null } | null
}

/** The fields that are written. */
export type UserFields = Pick<
  UserRow,
  | 'key'
  | 'email'
  | 'fullName'
  | 'firstName'
  | 'lastName'
  | 'phoneNumber'
  | 'attributes'
  | 'isActive'
  | 'accountId'
>

/** `undefined` keeps what is there, `null` clears it. */
export type UserChanges = Partial<UserFields>

export type UserFilters = {
  q?: string
  email?: string
  key?: string
  isActive?: boolean
  accountId?: string
  /** The account that they are members of, at home there or not. */
  memberOf?: string
  /** A role that they hold; with `memberOf`, one that applies in that account. */
  roleId?: string
}

/** Everything about the holder of a token that a request needs: the person and the state of the session. */
export type Holder = UserRow & {
  tokenVersion: number
  isAccountActive: boolean
  mustChangePassword: boolean
  /** Whether two factors are demanded of the session, and it was begun with one. */
  isMfaMissing: boolean
}

const userColumns = {
  id: users.id,
  key: users.key,
  email: users.email,
  fullName: users.fullName,
  firstName: users.firstName,
  lastName: users.lastName,
  phoneNumber: users.phoneNumber,
  attributes: users.attributes,
  isActive: users.isActive,
  accountId: users.accountId,
  revision: users.revision,
  createdAt: users.createdAt,
  updatedAt: users.updatedAt,
  primaryRole: { id: roles.id, name: roles.name, description: roles.description },
}

const sortKeys: Record<string, SortKey<UserRow>> = {
  created_at: { by: users.id, cast: 'uuid', value: (row) => row.id },
  email: {
    by: sql`coalesce(${users.emailNormalized}, '')`,
    cast: 'text',
    value: (row) => (row.email === null ? '' : normalizeEmail(row.email)),
  },
  full_name: { by: sql`coalesce(${users.fullName}, '')`, cast: 'text', value: (row) => row.fullName ?? '' },
  updated_at: { by: users.updatedAt, cast: 'timestamptz', value: (row) => row.updatedAt.toISOString() },
}

/** The names that a list of users can be sorted by. */
export const USER_SORTS = ['created_at', 'email', 'full_name', 'updated_at'] as const

export type UsersRepository = ReturnType<typeof createUsersRepository>

/** The built-in roles that hold a permission of this service; roles of the application cannot hold one. */
const ADMIN_ROLES = Object.entries(BUILTIN_ROLES)
  .filter(([, { permissions }]) => permissions.length > 0)
  .map(([key]) => key)

/** Of how many accounts the number of members is kept. */
const KEPT_COUNTS = 100

/** How many orders and sizes of pages are kept prepared, on each connection. */
const PREPARED_PAGES = 50

/** The statements of people, of one environment; deleted ones are not there. */
export function createUsersRepository({ db, prepare }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const selectUsers = (ex: Executor) =>
    ex
      .select(userColumns)
      .from(users)
      .leftJoin(
        roleAssignments,
        and(eq(roleAssignments.userId, users.id), eq(roleAssignments.isPrimary, true)),
      )
      .leftJoin(roles, eq(roles.id, roleAssignments.roleId))

  const isLive = and(eq(users.environmentId, environmentId), isNull(users.deletedAt))

  const holderQuery = db
    .select({
      ...userColumns,
      tokenVersion: users.tokenVersion,
      isAccountActive: sql<boolean>`coalesce(${accounts.isActive} and ${accounts.deletedAt} is null, true)`,
      mustChangePassword: sql<boolean>`coalesce(${userCredentials.mustChange}, false)`,
      isMfaMissing: sql<boolean>`case when 'mfa' = any(${sessions.amr}) then false
        when ${sql.placeholder('mfaRule')}::text = 'everyone' or ${accounts.isMfaRequired} then true
        else exists (select from role_assignments held join roles r on r.id = held.role_id
          where held.user_id = ${users.id} and held.resource_instance_id is null
            and (held.account_id is null or held.account_id = ${sql.placeholder('accountId')}::uuid)
            and coalesce(held.expires_at > now(), true)
            and (r.is_mfa_required or ${sql.placeholder('mfaRule')}::text = 'admins'
              and r.key in ${ADMIN_ROLES} and r.is_builtin)) end`,
    })
    .from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .leftJoin(accounts, sql`${accounts.id} = ${sql.placeholder('accountId')}::uuid`)
    .leftJoin(userCredentials, eq(userCredentials.userId, users.id))
    .leftJoin(roleAssignments, and(eq(roleAssignments.userId, users.id), eq(roleAssignments.isPrimary, true)))
    .leftJoin(roles, eq(roles.id, roleAssignments.roleId))
    .where(
      and(
        eq(sessions.id, sql.placeholder('sessionId')),
        eq(sessions.userId, sql.placeholder('userId')),
        isNull(sessions.endedAt),
        isLive,
      ),
    )
  const counts = new LRUCache<string, { version: string; total: number }>({ max: KEPT_COUNTS })
  const preparedPages = new Map<string, { execute(values: PageValues): Promise<UserRow[]> }>()
  const preparedHolder = holderQuery.prepare(prepare ? 'holder_of_session' : '')

  return {
    /**
     * The holder of a session that has not ended, however inactive; one indexed statement.
     * @param accountId the account that the token is for: its session may have gone on in another one
     */
    async findHolder(
      sessionId: string,
      userId: string,
      accountId: string | null,
      mfaRule: MfaRule,
    ): Promise<Holder | undefined> {
      const [row] = await preparedHolder.execute({ sessionId, userId, accountId, mfaRule })
      return row
    },

    async findUser(id: string, ex: Executor = db): Promise<UserRow | undefined> {
      const [row] = await selectUsers(ex).where(and(eq(users.id, id), isLive))
      return row
    },

    async findUserByKey(key: string, ex: Executor = db): Promise<UserRow | undefined> {
      const [row] = await selectUsers(ex).where(and(eq(users.key, key), isLive))
      return row
    },

    /** True for whoever has credentials or holds a built-in role. */
    async isProtected(id: string, tx: Tx): Promise<boolean> {
      const [row] = await tx
        .select({
          // Names are written out, because Drizzle leaves the table's name away in a statement over one table.
          isProtected: sql<boolean>`exists (select from user_credentials c where c.user_id = users.id)
            or exists (select from role_assignments a join roles r on r.id = a.role_id and r.is_builtin
              where a.user_id = users.id)`,
        })
        .from(users)
        .where(eq(users.id, id))
      return row?.isProtected ?? false
    },

    /** Whether somebody is an active member of another account, or holds a role in another one or in every account. */
    async belongsBeyond(id: string, accountId: string | null, tx: Tx): Promise<boolean> {
      const { rows } = await tx.execute<{ belongs: boolean }>(sql`select
        exists (select from account_members m where m.user_id = ${id} and m.status = 'active'
          and m.account_id is distinct from ${accountId}::uuid)
        or exists (select from role_assignments a where a.user_id = ${id}
          and a.account_id is distinct from ${accountId}::uuid
          and coalesce(a.expires_at > now(), true)) as belongs`)
      return rows[0]?.belongs ?? false
    },

    /** True when somebody at home in the account is protected in that sense. */
    async hasProtectedResidents(accountId: string, tx: Tx): Promise<boolean> {
      const { rows } = await tx.execute(sql`select from users u
        where u.account_id = ${accountId} and u.deleted_at is null
          and (exists (select from user_credentials c where c.user_id = u.id)
            or exists (select from role_assignments a join roles r on r.id = a.role_id and r.is_builtin
              where a.user_id = u.id))
        limit 1`)
      return rows.length > 0
    },

    /** The same, its row locked until the transaction ends, so that changes to one person come one by one. */
    async lockUser(id: string, tx: Tx): Promise<UserRow | undefined> {
      const [locked] = await tx
        .select({ id: users.id })
        .from(users)
        .where(and(eq(users.id, id), isLive))
        .for('no key update')
      return locked && (await this.findUser(id, tx))
    },

    /** A page of users. @throws AppError validation_failed for a foreign cursor */
    async listUsers(filters: UserFilters, request: PageRequest): Promise<Page<UserRow>> {
      const clauses = pageClauses(request, sortKeys, users.id)
      const matching = allOf(isLive, ...filterClauses(filters))
      const isFiltered = Object.values(filters).some((filter) => filter !== undefined)
      const page = clauses.toPage(
        isFiltered
          ? await selectPage(clauses, allOf(matching, clauses.where), clauses.offset)
          : await unfilteredPage(clauses),
      )
      return request.total ? { ...page, total: await countUsers(filters, matching) } : page
    },

    /**
     * A page of ids in the order in which people came into the list, and how many there are: holders of a role by when
     * it was first given, members of an account by when they joined, others by age. Whoever comes while somebody reads
     * page after page comes at the end.
     */
    async listIdsByArrival(
      filters: Pick<UserFilters, 'q' | 'memberOf' | 'roleId'>,
      { limit, skip }: Pick<PageRequest, 'limit' | 'skip'>,
    ): Promise<{ ids: string[]; total: number }> {
      const { roleId, memberOf, ...others } = filters
      const holders = roleId === undefined ? undefined : holdersOf(roleId, memberOf)
      const came = holders
        ? sql`join (select distinct on (held.user_id) held.user_id, held.id as at from ${holders}
            order by held.user_id, held.id) came on came.user_id = ${users.id}`
        : memberOf === undefined
          ? sql``
          : sql`join (select m.user_id, m.created_at as at from account_members m where m.account_id = ${memberOf}) came
              on came.user_id = ${users.id}`
      const isListed = holders && memberOf !== undefined ? { ...others, memberOf } : others
      const order = holders || memberOf !== undefined ? sql`came.at, came.user_id` : sql`${users.id}`
      const { rows } = await db.execute<{ id: string }>(sql`
        select ${users.id} from ${users} ${came} where ${allOf(isLive, ...filterClauses(isListed))}
        order by ${order} limit ${limit} offset ${skip}`)
      return {
        ids: rows.map(({ id }) => id),
        total: await countUsers(filters, allOf(isLive, ...filterClauses(filters))),
      }
    },

    /** @throws AppError email_taken, user_key_taken */
    async insertUser(user: UserChanges & { id: string; key: string }, tx: Tx): Promise<void> {
      await assertKeyIsNoForeignId(user.key, user.id, tx)
      await namingConflicts(() =>
        tx.insert(users).values({
          ...user,
          environmentId,
          emailNormalized: user.email == null ? null : normalizeEmail(user.email),
          searchText: searchText(user),
        }),
      )
    },

    /** Writes the changes and raises the revision. @throws AppError email_taken, user_key_taken */
    async updateUser(current: UserRow, changes: UserChanges, tx: Tx): Promise<void> {
      const next = { ...current, ...changes }
      if (next.key !== current.key) await assertKeyIsNoForeignId(next.key, current.id, tx)
      await namingConflicts(() =>
        tx
          .update(users)
          .set({
            ...changes,
            emailNormalized: next.email === null ? null : normalizeEmail(next.email),
            searchText: searchText(next),
            revision: sql`${users.revision} + 1`,
            updatedAt: sql`now()`,
          })
          .where(eq(users.id, current.id)),
      )
    },

    /** Raises the version that tokens carry: those issued until now are refused from the commit on. */
    async raiseTokenVersions(ids: readonly string[], tx: Tx): Promise<void> {
      // Each statement stays far below the time that the database gives one.
      for (let first = 0; first < ids.length; first += RAISED_AT_ONCE) {
        await tx
          .update(users)
          .set({
            tokenVersion: sql`${users.tokenVersion} + 1`,
            revision: sql`${users.revision} + 1`,
            updatedAt: sql`now()`,
          })
          .where(sql`${users.id} = any(${sql.param(ids.slice(first, first + RAISED_AT_ONCE))}::uuid[])`)
      }
    },

    /** Marks the user as deleted: gone from every face, its email free again. */
    async softDeleteUser(id: string, tx: Tx): Promise<void> {
      await tx
        .update(users)
        .set({
          deletedAt: sql`now()`,
          tokenVersion: sql`${users.tokenVersion} + 1`,
          updatedAt: sql`now()`,
        })
        .where(eq(users.id, id))
    },

    async findCredentials(
      userId: string,
      ex: Executor = db,
    ): Promise<{ passwordHash: string | null } | undefined> {
      const [row] = await ex
        .select({ passwordHash: userCredentials.passwordHash })
        .from(userCredentials)
        .where(eq(userCredentials.userId, userId))
      return row
    },

    async upsertCredentials(
      userId: string,
      passwordHash: string,
      mustChange: boolean,
      tx: Tx,
    ): Promise<void> {
      await tx
        .insert(userCredentials)
        .values({ userId, environmentId, passwordHash, mustChange })
        .onConflictDoUpdate({
          target: userCredentials.userId,
          set: { passwordHash, mustChange, credentialsChangedAt: sql`now()`, passwordChangedAt: sql`now()` },
        })
    },

    /** Takes the password away; false when there was none. */
    async removePassword(userId: string, tx: Tx): Promise<boolean> {
      const removed = await tx
        .update(userCredentials)
        .set({
          passwordHash: null,
          mustChange: false,
          credentialsChangedAt: sql`now()`,
          passwordChangedAt: sql`now()`,
        })
        .where(and(eq(userCredentials.userId, userId), isNotNull(userCredentials.passwordHash)))
        .returning({ userId: userCredentials.userId })
      return removed.length === 1
    },

    /** Notes that the person reads what is sent to their email; false when that was known. */
    async verifyEmail(userId: string, tx: Tx): Promise<boolean> {
      const verified = await tx
        .update(userCredentials)
        .set({ emailVerifiedAt: sql`now()` })
        .where(and(eq(userCredentials.userId, userId), isNull(userCredentials.emailVerifiedAt)))
        .returning({ userId: userCredentials.userId })
      return verified.length === 1
    },

    /** Replaces a hash by one of the same password, unless the password was changed meanwhile. */
    async rehash(userId: string, oldHash: string, newHash: string): Promise<void> {
      await db
        .update(userCredentials)
        .set({ passwordHash: newHash })
        .where(and(eq(userCredentials.userId, userId), eq(userCredentials.passwordHash, oldHash)))
    },

    async findUserIdByEmail(email: string): Promise<string | undefined> {
      const [row] = await db
        .select({ id: users.id })
        .from(users)
        .where(and(eq(users.emailNormalized, normalizeEmail(email)), isLive))
      return row?.id
    },

    /** The accounts that the user is an active member of, the home account first. */
    async listAccountIds(userId: string): Promise<{ accountId: string; isHome: boolean }[]> {
      return await db
        .select({
          accountId: accountMembers.accountId,
          isHome: sql<boolean>`${users.accountId} = ${accountMembers.accountId}`,
        })
        .from(users)
        .innerJoin(
          accountMembers,
          and(eq(accountMembers.userId, users.id), eq(accountMembers.status, 'active')),
        )
        .where(and(eq(users.id, userId), isLive))
    },
  }

  type PageClauses = ReturnType<typeof pageClauses<UserRow>>

  /** Rows that are skipped are counted in the index alone; only those of the page are read and joined. */
  function selectPage(
    { orderBy, limit }: PageClauses,
    wanted: SQL | undefined,
    offset: number | Placeholder,
  ) {
    const skipping = () =>
      inArray(
        users.id,
        db
          .select({ id: users.id })
          .from(users)
          .where(wanted)
          .orderBy(...orderBy)
          .limit(limit)
          .offset(offset),
      )
    return selectUsers(db)
      .where(offset === 0 ? wanted : skipping())
      .orderBy(...orderBy)
      .limit(limit)
  }

  /** The list that everybody opens first: building and planning it costs more than running it, so it is prepared. */
  async function unfilteredPage(clauses: PageClauses): Promise<UserRow[]> {
    const { where, values, shape } = clauses.prepared()
    const known = preparedPages.get(shape)
    if (known) return await known.execute(values)
    if (preparedPages.size >= PREPARED_PAGES)
      return await selectPage(clauses, allOf(isLive, clauses.where), clauses.offset)
    const query = selectPage(clauses, allOf(isLive, where), values.skip > 0 ? sql.placeholder('skip') : 0)
    const statement = query.prepare(prepare ? `users_page_${shape}` : '')
    preparedPages.set(shape, statement)
    return await statement.execute(values)
  }

  /**
   * How many match. To count everybody, or all members of an account, would cost more than the page beside it. How many
   * there are of all is kept in the database. Every change of who is a member raises the version of the policy, so that
   * members are counted once for each version: what is kept is right as of the statement that reads the version.
   */
  async function countUsers(
    { memberOf, ...others }: UserFilters,
    matching: SQL | undefined,
  ): Promise<number> {
    if (Object.values(others).some((filter) => filter !== undefined)) return await db.$count(users, matching)
    if (memberOf === undefined) return await countPeople(environmentId, { db })
    const kept = counts.get(memberOf)
    const { rows } = await db.execute<{ version: string; total: number | null }>(sql`
      select v.version::text, case when v.version::text = ${kept?.version ?? ''} then null
        else (select count(*)::int from ${users} where ${matching}) end as total
      from policy_versions v where v.environment_id = ${environmentId}`)
    const [now] = rows
    if (!now) return await db.$count(users, matching)
    const total = now.total ?? kept?.total ?? 0
    if (now.total !== null) counts.set(memberOf, { version: now.version, total })
    return total
  }

  function filterClauses(filters: UserFilters): (SQL | undefined)[] {
    return [
      filters.q === undefined ? undefined : sql`${users.searchText} like ${containing(foldCase(filters.q))}`,
      filters.email === undefined ? undefined : eq(users.emailNormalized, normalizeEmail(filters.email)),
      filters.key === undefined ? undefined : eq(users.key, filters.key),
      filters.isActive === undefined ? undefined : eq(users.isActive, filters.isActive),
      filters.accountId === undefined ? undefined : eq(users.accountId, filters.accountId),
      filters.memberOf === undefined
        ? undefined
        : sql`exists (select from ${accountMembers} m where m.user_id = ${users.id} and m.account_id = ${filters.memberOf})`,
      filters.roleId === undefined
        ? undefined
        : sql`exists (select from ${holdersOf(filters.roleId, filters.memberOf)} and held.user_id = ${users.id})`,
    ]
  }

  /** The assignments of a role that are in force, and with an account apply in it, as `held`; to go on with `and`. */
  function holdersOf(roleId: string, accountId: string | undefined): SQL {
    return sql`${roleAssignments} held
      where held.role_id = ${roleId} and coalesce(held.expires_at > now(), true)
        and (${accountId ?? null}::uuid is null or held.account_id is null
          or held.account_id = ${accountId ?? null}::uuid)`
  }

  /** A key that equals another row's id would make both names ambiguous. */
  async function assertKeyIsNoForeignId(key: string, ownId: string, tx: Tx): Promise<void> {
    if (key === ownId || !isUuid(key)) return
    const [clash] = await tx
      .select({ id: users.id })
      .from(users)
      .where(and(eq(users.environmentId, environmentId), eq(users.id, key)))
    if (clash) throw new AppError('user_key_taken')
  }
}

/** What a person is found by. */
export const searchText = (user: UserChanges & { key: string }): string =>
  foldCase(
    [user.email, user.fullName, user.firstName, user.lastName, user.phoneNumber, user.key]
      .filter(Boolean)
      .join(' '),
  )

/** @throws AppError email_taken, user_key_taken in place of the broken constraint */
export async function namingConflicts(write: () => Promise<unknown>): Promise<void> {
  try {
    await write()
  } catch (error) {
    if (isUniqueViolation(error, 'users_email_key')) throw new AppError('email_taken', { cause: error })
    if (isUniqueViolation(error, 'users_key_key')) throw new AppError('user_key_taken', { cause: error })
    throw error
  }
}
