import { and, eq, lt, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { challenges } from '../db/schema.ts'
import { newId } from '../ids.ts'

/** What a challenge is for; one of a kind is refused for every other. */
export type ChallengeKind =
  | 'mfa'
  | 'passkey_registration'
  | 'passkey_sign_in'
  | 'passkey_second_factor'
  | 'passkey_step_up'

export type NewChallenge = {
  kind: ChallengeKind
  userId?: string
  sessionId?: string
  /** SHA-256 of what names it. */
  tokenHash: string
  data?: Record<string, unknown>
  secondsToLive: number
}

export type Challenge = {
  id: string
  userId: string | null
  sessionId: string | null
  data: Record<string, unknown>
}

export type ChallengesRepository = ReturnType<typeof createChallengesRepository>

/** What is asked of somebody once and soon. */
export function createChallengesRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const returned = {
    id: challenges.id,
    userId: challenges.userId,
    sessionId: challenges.sessionId,
    data: challenges.data,
  }
  const isLive = (kind: ChallengeKind, tokenHash: string) =>
    and(
      eq(challenges.environmentId, environmentId),
      eq(challenges.tokenHash, tokenHash),
      eq(challenges.kind, kind),
      sql`${challenges.expiresAt} > now()`,
    )

  return {
    /** Returns the id. */
    async insert(
      { secondsToLive, data = {}, ...challenge }: NewChallenge,
      ex: Executor = db,
    ): Promise<string> {
      const id = newId()
      await ex.insert(challenges).values({
        ...challenge,
        data,
        id,
        environmentId,
        expiresAt: sql`now() + ${secondsToLive}::int * interval '1 second'`,
      })
      return id
    },

    async find(kind: ChallengeKind, tokenHash: string, ex: Executor = db): Promise<Challenge | undefined> {
      const [row] = await ex.select(returned).from(challenges).where(isLive(kind, tokenHash))
      return row
    },

    /** Counts an attempt before it is looked at; undefined when there is no such challenge, or it has had `most`. */
    async countAttempt(kind: ChallengeKind, tokenHash: string, most: number): Promise<Challenge | undefined> {
      const [row] = await db
        .update(challenges)
        .set({ failures: sql`${challenges.failures} + 1` })
        .where(and(isLive(kind, tokenHash), lt(challenges.failures, most)))
        .returning(returned)
      return row
    },

    /** Uses a challenge up: of concurrent uses one gets it. */
    async take(kind: ChallengeKind, tokenHash: string, ex: Executor = db): Promise<Challenge | undefined> {
      const [row] = await ex.delete(challenges).where(isLive(kind, tokenHash)).returning(returned)
      return row
    },

    /** Removes those that have expired. Returns how many went. */
    async prune(): Promise<number> {
      return await prune(db, challenges, lt(challenges.expiresAt, sql`now()`))
    },
  }
}
