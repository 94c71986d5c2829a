import { and, eq, gt, lte, ne, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { prune } from '../db/prune.ts'
import { accountInvitations, accounts, roles } from '../db/schema.ts'
import { AppError } from '../errors.ts'

/** What has become of an invitation; `expired` is a pending one whose time is over. */
export const INVITATION_STATES = ['pending', 'accepted', 'revoked', 'expired'] as const
export type InvitationState = (typeof INVITATION_STATES)[number]

export type InvitationRow = {
  id: string
  accountId: string
  accountName: string
  email: string
  emailNormalized: string
  role: { id: string; key: string; name: string; description: string | null }
  state: InvitationState
  invitedByType: Inviter['type']
  invitedById: string | null
  acceptedByUserId: string | null
  createdAt: Date
  expiresAt: Date
}

/** Who invited. */
export type Inviter = { type: 'user' | 'client' | 'api_key' | 'system'; id: string | null }

export type NewInvitation = {
  id: string
  accountId: string
  roleId: string
  email: string
  emailNormalized: string
  tokenHash: string
  inviter: Inviter
  secondsToLive: number
}

const state = sql<InvitationState>`case when ${accountInvitations.status} = 'pending'
  and ${accountInvitations.expiresAt} <= now() then 'expired' else ${accountInvitations.status} end`

const columns = {
  id: accountInvitations.id,
  accountId: accountInvitations.accountId,
  accountName: accounts.name,
  email: accountInvitations.email,
  emailNormalized: accountInvitations.emailNormalized,
  role: { id: roles.id, key: roles.key, name: roles.name, description: roles.description },
  state,
  invitedByType: accountInvitations.invitedByType,
  invitedById: accountInvitations.invitedById,
  acceptedByUserId: accountInvitations.acceptedByUserId,
  createdAt: accountInvitations.createdAt,
  expiresAt: accountInvitations.expiresAt,
}

const sortKeys: Record<string, SortKey<InvitationRow>> = {
  created_at: { by: accountInvitations.id, cast: 'uuid', value: (row) => row.id },
}

/** How long one that nobody can accept any more is shown, before it is removed with the email in it. */
const KEPT = sql`interval '30 days'`

export type InvitationsRepository = ReturnType<typeof createInvitationsRepository>

/** Invitations to accounts that are active; to others there are none. */
export function createInvitationsRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const select = (ex: Executor) =>
    ex
      .select(columns)
      .from(accountInvitations)
      .innerJoin(roles, eq(roles.id, accountInvitations.roleId))
      .innerJoin(
        accounts,
        and(
          eq(accounts.id, accountInvitations.accountId),
          eq(accounts.isActive, true),
          sql`${accounts.deletedAt} is null`,
        ),
      )

  const isOpen = and(eq(accountInvitations.status, 'pending'), gt(accountInvitations.expiresAt, sql`now()`))
  const isOwn = eq(accountInvitations.environmentId, environmentId)

  return {
    async listInvitations(
      accountId: string,
      wanted: InvitationState | undefined,
      request: PageRequest,
    ): Promise<Page<InvitationRow>> {
      const clauses = pageClauses(request, sortKeys, accountInvitations.id)
      const matching = and(
        isOwn,
        eq(accountInvitations.accountId, accountId),
        wanted === undefined ? undefined : sql`${state} = ${wanted}`,
      )
      const page = clauses.toPage(
        await select(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(accountInvitations, matching) } : page
    },

    async findInvitation(
      accountId: string,
      id: string,
      ex: Executor = db,
    ): Promise<InvitationRow | undefined> {
      const [row] = await select(ex).where(
        and(isOwn, eq(accountInvitations.accountId, accountId), eq(accountInvitations.id, id)),
      )
      return row
    },

    /** The same, its row locked until the transaction ends. */
    async lockInvitation(accountId: string, id: string, tx: Tx): Promise<InvitationRow | undefined> {
      const [locked] = await tx
        .select({ id: accountInvitations.id })
        .from(accountInvitations)
        .where(and(isOwn, eq(accountInvitations.accountId, accountId), eq(accountInvitations.id, id)))
        .for('update')
      return locked && (await this.findInvitation(accountId, id, tx))
    },

    /** The invitation that a token opens now: pending, and within its time. */
    async findByToken(tokenHash: string, ex: Executor = db): Promise<InvitationRow | undefined> {
      const [row] = await select(ex).where(and(isOwn, eq(accountInvitations.tokenHash, tokenHash), isOpen))
      return row
    },

    /** Takes the invitation, once: true for one of all who try. */
    async markAccepted(tokenHash: string, userId: string, tx: Tx): Promise<boolean> {
      const taken = await tx
        .update(accountInvitations)
        .set({ status: 'accepted', acceptedByUserId: userId, updatedAt: sql`now()` })
        .where(and(isOwn, eq(accountInvitations.tokenHash, tokenHash), isOpen))
        .returning({ id: accountInvitations.id })
      return taken.length > 0
    },

    /** In place of one to the same address that has expired. @throws AppError invitation_exists */
    async insertInvitation({ inviter, secondsToLive, ...invitation }: NewInvitation, tx: Tx): Promise<void> {
      const { accountId, emailNormalized } = invitation
      await tx
        .delete(accountInvitations)
        .where(
          and(
            eq(accountInvitations.accountId, accountId),
            eq(accountInvitations.emailNormalized, emailNormalized),
            eq(accountInvitations.status, 'pending'),
            lte(accountInvitations.expiresAt, sql`now()`),
          ),
        )
      try {
        await tx.insert(accountInvitations).values({
          ...invitation,
          environmentId,
          invitedByType: inviter.type,
          invitedById: inviter.id,
          expiresAt: sql`now() + ${secondsToLive}::int * interval '1 second'`,
        })
      } catch (error) {
        if (isUniqueViolation(error, 'account_invitations_pending_key'))
          throw new AppError('invitation_exists', { cause: error })
        throw error
      }
    },

    /** Gives it its whole time again. With another token, the one before opens nothing any more. */
    async renewInvitation(
      id: string,
      renewal: Pick<NewInvitation, 'inviter' | 'secondsToLive'> & { tokenHash?: string },
      tx: Tx,
    ): Promise<void> {
      const { tokenHash, inviter, secondsToLive } = renewal
      await tx
        .update(accountInvitations)
        .set({
          ...(tokenHash !== undefined && { tokenHash }),
          invitedByType: inviter.type,
          invitedById: inviter.id,
          expiresAt: sql`now() + ${secondsToLive}::int * interval '1 second'`,
          updatedAt: sql`now()`,
        })
        .where(eq(accountInvitations.id, id))
    },

    async markRevoked(id: string, tx: Tx): Promise<void> {
      await tx
        .update(accountInvitations)
        .set({ status: 'revoked', updatedAt: sql`now()` })
        .where(eq(accountInvitations.id, id))
    },

    async countPending(accountId: string, tx: Tx): Promise<number> {
      return await tx.$count(accountInvitations, and(eq(accountInvitations.accountId, accountId), isOpen))
    },

    /** Removes what has been decided or has expired a while ago. Returns how many rows went. */
    async prune(): Promise<number> {
      return await prune(
        db,
        accountInvitations,
        sql`case when ${ne(accountInvitations.status, 'pending')} then ${accountInvitations.updatedAt}
            else ${accountInvitations.expiresAt} end < now() - ${KEPT}`,
      )
    },
  }
}
