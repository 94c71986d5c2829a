import { and, asc, eq, isNull, or, type SQL, sql } from 'drizzle-orm'
import { foldCase, normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { accounts, roles, userInvites } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'

export type InviteRow = typeof userInvites.$inferSelect

export type NewInvite = Pick<
  InviteRow,
  'id' | 'key' | 'email' | 'firstName' | 'lastName' | 'roleId' | 'accountId' | 'resourceInstanceId'
>

/** `role`, `account`: key or id. `search`: part of the key or email. */
export type InviteFilters = {
  role?: string | undefined
  account?: string | undefined
  search?: string | undefined
}

export type InvitesRepository = ReturnType<typeof createInvitesRepository>

/** The statements of people who shall become users with a role, of one environment. */
export function createInvitesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isOwn = eq(userInvites.environmentId, environmentId)

  const matching = ({ role, account, search }: InviteFilters): SQL | undefined =>
    and(
      isOwn,
      role === undefined ? undefined : or(eq(roles.key, role), isUuid(role) ? eq(roles.id, role) : undefined),
      account === undefined
        ? undefined
        : or(eq(accounts.key, account), isUuid(account) ? eq(accounts.id, account) : undefined),
      search === undefined
        ? undefined
        : sql`(strpos(${userInvites.emailNormalized}, ${foldCase(search)}) > 0
            or strpos(${userInvites.key}, ${search}) > 0)`,
    )

  const from = (ex: Executor) => ({
    select: () =>
      ex
        .select({ invite: userInvites })
        .from(userInvites)
        .innerJoin(roles, eq(roles.id, userInvites.roleId))
        .innerJoin(accounts, and(eq(accounts.id, userInvites.accountId), isNull(accounts.deletedAt))),
    count: () =>
      ex
        .select({ total: sql<number>`count(*)::int` })
        .from(userInvites)
        .innerJoin(roles, eq(roles.id, userInvites.roleId))
        .innerJoin(accounts, and(eq(accounts.id, userInvites.accountId), isNull(accounts.deletedAt))),
  })

  return {
    /** The oldest first. Invitations to accounts that are gone are not there. */
    async listInvites(
      filters: InviteFilters,
      { limit, skip }: { limit: number; skip: number },
    ): Promise<{ items: InviteRow[]; total: number }> {
      const rows = await from(db)
        .select()
        .where(matching(filters))
        .orderBy(asc(userInvites.id))
        .limit(limit)
        .offset(skip)
      const [count] = await from(db).count().where(matching(filters))
      return { items: rows.map(({ invite }) => invite), total: count?.total ?? 0 }
    },

    /** By key, then by id. */
    async findInvite(ref: string, ex: Executor = db): Promise<InviteRow | undefined> {
      const [row] = await from(ex)
        .select()
        .where(and(isOwn, or(eq(userInvites.key, ref), isUuid(ref) ? eq(userInvites.id, ref) : undefined)))
        .orderBy(sql`${userInvites.key} = ${ref} desc`)
        .limit(1)
      return row?.invite
    },

    /** The same by id, locked, so that it is approved once. */
    async lockInvite(id: string, tx: Tx): Promise<InviteRow | undefined> {
      const [locked] = await tx
        .select()
        .from(userInvites)
        .where(and(isOwn, eq(userInvites.id, id)))
        .for('update')
      return locked
    },

    async countInvites(tx: Tx): Promise<number> {
      return await tx.$count(userInvites, isOwn)
    },

    /** @throws AppError invite_key_taken */
    async insertInvite(invite: NewInvite, tx: Tx): Promise<void> {
      // A key that equals another row's id would make both names ambiguous.
      if (
        isUuid(invite.key) &&
        (await tx.$count(userInvites, and(isOwn, eq(userInvites.id, invite.key)))) > 0
      )
        throw new AppError('invite_key_taken')
      try {
        await tx
          .insert(userInvites)
          .values({ ...invite, environmentId, emailNormalized: normalizeEmail(invite.email) })
      } catch (error) {
        if (isUniqueViolation(error, 'user_invites_key_key'))
          throw new AppError('invite_key_taken', { cause: error })
        throw error
      }
    },

    async markApproved(id: string, tx: Tx): Promise<void> {
      await tx
        .update(userInvites)
        .set({ status: 'approved', updatedAt: sql`now()` })
        .where(eq(userInvites.id, id))
    },

    async deleteInvite(id: string, tx: Tx): Promise<void> {
      await tx.delete(userInvites).where(eq(userInvites.id, id))
    },
  }
}
