import { and, eq, gt, inArray, isNotNull, isNull, lt, sql } from 'drizzle-orm'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { mailTokens, userCredentials, users } from '../db/schema.ts'

/** What the link in a mail is for. */
export type LinkKind = (typeof mailTokens.$inferSelect)['kind']

/** A link that somebody has followed. */
export type FoundLink = { id: string; userId: string; dataSealed: string | null }

/** Somebody who can be sent a link. */
export type Recipient = { id: string; email: string; accountId: string | null; emailVerifiedAt: Date | null }

export type NewLink = {
  id: string
  userId: string
  kind: LinkKind
  tokenHash: string
  dataSealed: string | null
  secondsToLive: number
}

export type MailLinksRepository = ReturnType<typeof createMailLinksRepository>

/** The statements of links in mails and of their recipients, of one environment. */
export function createMailLinksRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const recipientColumns = {
    id: users.id,
    // Checked below.
    email: sql<string>`${users.email}`,
    accountId: users.accountId,
    emailVerifiedAt: userCredentials.emailVerifiedAt,
  }

  /** Whoever has no credentials is another system's, and gets none by mail. */
  const selectRecipient = (ex: Executor) =>
    ex.select(recipientColumns).from(users).innerJoin(userCredentials, eq(userCredentials.userId, users.id))

  const isReachable = and(
    eq(users.environmentId, environmentId),
    eq(users.isActive, true),
    isNull(users.deletedAt),
    isNotNull(users.email),
  )

  /** Links live by the time of the database. */
  const isAlive = gt(mailTokens.expiresAt, sql`now()`)

  return {
    /** Somebody active with credentials and this email. Their row is locked: the email is theirs until the commit. */
    async lockRecipientByEmail(email: string, tx: Tx): Promise<Recipient | undefined> {
      const isMeant = and(eq(users.emailNormalized, normalizeEmail(email)), isReachable)
      const [row] = await selectRecipient(tx).where(isMeant).for('no key update', { of: users })
      return row
    },

    /** The same by id. */
    async lockRecipient(userId: string, tx: Tx): Promise<Recipient | undefined> {
      const isMeant = and(eq(users.id, userId), isReachable)
      const [row] = await selectRecipient(tx).where(isMeant).for('no key update', { of: users })
      return row
    },

    async findRecipient(userId: string): Promise<Recipient | undefined> {
      const [row] = await selectRecipient(db).where(and(eq(users.id, userId), isReachable))
      return row
    },

    async insertLink({ secondsToLive, ...link }: NewLink, tx: Tx): Promise<void> {
      await tx.insert(mailTokens).values({
        ...link,
        environmentId,
        expiresAt: sql`now() + ${secondsToLive}::int * interval '1 second'`,
      })
    },

    /** Ends links of somebody, whose row must be locked. */
    async endLinks(userId: string, kinds: readonly LinkKind[], tx: Tx): Promise<void> {
      await tx
        .delete(mailTokens)
        .where(and(eq(mailTokens.userId, userId), inArray(mailTokens.kind, [...kinds])))
    },

    /** A link that can still be followed. */
    async findLink(
      tokenHash: string,
      kinds: readonly LinkKind[],
      ex: Executor = db,
    ): Promise<(FoundLink & { kind: LinkKind }) | undefined> {
      const [row] = await ex
        .select({
          id: mailTokens.id,
          userId: mailTokens.userId,
          kind: mailTokens.kind,
          dataSealed: mailTokens.dataSealed,
        })
        .from(mailTokens)
        .where(and(eq(mailTokens.tokenHash, tokenHash), inArray(mailTokens.kind, [...kinds]), isAlive))
      return row
    },

    /** Uses a link up; `false` when somebody else was faster, or it has ended meanwhile. */
    async takeLink(id: string, tx: Tx): Promise<boolean> {
      const taken = await tx
        .delete(mailTokens)
        .where(and(eq(mailTokens.id, id), isAlive))
        .returning({ id: mailTokens.id })
      return taken.length === 1
    },

    /** The person's other link of a kind, if it can still be followed. */
    async findLinkOf(userId: string, kind: LinkKind, tx: Tx): Promise<FoundLink | undefined> {
      const [row] = await tx
        .select({ id: mailTokens.id, userId: mailTokens.userId, dataSealed: mailTokens.dataSealed })
        .from(mailTokens)
        .where(and(eq(mailTokens.userId, userId), eq(mailTokens.kind, kind), isAlive))
      return row
    },

    async setData(id: string, dataSealed: string, tx: Tx): Promise<void> {
      await tx.update(mailTokens).set({ dataSealed }).where(eq(mailTokens.id, id))
    },

    /** What lies sealed in the links of every environment, for a change of SECRET_KEY. */
    async listSealed(tx: Tx): Promise<{ id: string; dataSealed: string | null }[]> {
      return await tx
        .select({ id: mailTokens.id, dataSealed: mailTokens.dataSealed })
        .from(mailTokens)
        .where(isNotNull(mailTokens.dataSealed))
    },

    /** Removes links that have expired. Returns how many rows went. */
    async prune(): Promise<number> {
      return await prune(db, mailTokens, lt(mailTokens.expiresAt, sql`now()`))
    },
  }
}
