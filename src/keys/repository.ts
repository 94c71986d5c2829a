import { asc, eq, inArray, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { revocationFeed, revocations, signingKeys } from '../db/schema.ts'

export type SigningAlgorithm = 'ES256' | 'RS256' | 'EdDSA'

/** `next`: published, does not sign yet. `current`: signs. `retired`: published for as long as a token of it may live. */
export type SigningKeyState = 'next' | 'current' | 'retired'

export type SigningKeyRow = {
  kid: string
  algorithm: SigningAlgorithm
  publicJwk: Record<string, unknown>
  privateKeySealed: string
  state: SigningKeyState
  createdAt: Date
  /** Of the next key: when it becomes the current one. */
  activatesAt: Date | null
  activatedAt: Date | null
  retiredAt: Date | null
}

/** A key as the schedule sees it, by the time of the database: whether something is to be done about it. */
export type ScheduledKey = Pick<SigningKeyRow, 'kid' | 'state'> & { isDue: boolean }

type NewKey = Pick<SigningKeyRow, 'kid' | 'algorithm' | 'publicJwk' | 'privateKeySealed'>

const columns = {
  kid: signingKeys.kid,
  algorithm: signingKeys.algorithm,
  publicJwk: signingKeys.publicJwk,
  privateKeySealed: signingKeys.privateKeySealed,
  state: signingKeys.state,
  createdAt: signingKeys.createdAt,
  activatesAt: signingKeys.activatesAt,
  activatedAt: signingKeys.activatedAt,
  retiredAt: signingKeys.retiredAt,
}

/**
 * Whoever has a key signs tokens of any life: not the life of ours counts, but how long a verifier may go on with a key set
 * that it cannot read again, which is an hour unless it was told otherwise.
 */
const WITHDRAWN_SECONDS = 86_400

const inSeconds = (seconds: number) => sql`now() + ${seconds}::int * interval '1 second'`

export type KeysRepository = ReturnType<typeof createKeysRepository>

/** The statements of signing keys. */
export function createKeysRepository({ db }: Database) {
  return {
    /** Every key that is published, the oldest first. */
    async listKeys(ex: Executor = db): Promise<SigningKeyRow[]> {
      return await ex
        .select(columns)
        .from(signingKeys)
        .orderBy(asc(signingKeys.createdAt), asc(signingKeys.kid))
    },

    /** Lets the changes of the schedule through one at a time, until the end of the transaction. */
    async lockKeys(tx: Tx): Promise<void> {
      await tx
        .select({ kid: signingKeys.kid })
        .from(signingKeys)
        .where(eq(signingKeys.state, 'current'))
        .for('update')
    },

    /**
     * Due are a next key whose time has come, a current key that has signed for `rotationSeconds` (0: for ever), and a
     * retired key that no token outlives: the longest life of one, and `graceSeconds`.
     */
    async readSchedule(
      { rotationSeconds, graceSeconds }: { rotationSeconds: number; graceSeconds: number },
      ex: Executor = db,
    ): Promise<ScheduledKey[]> {
      return await ex
        .select({
          kid: signingKeys.kid,
          state: signingKeys.state,
          isDue: sql<boolean>`case ${signingKeys.state}
            when 'next' then ${signingKeys.activatesAt} <= now()
            when 'current' then ${rotationSeconds}::bigint > 0
              and ${signingKeys.activatedAt} + ${rotationSeconds}::bigint * interval '1 second' <= now()
            else ${signingKeys.retiredAt} + make_interval(secs => ${graceSeconds}::int
              + (select ${revocationFeed.tokenLifetimeSeconds} from ${revocationFeed})) <= now() end`,
        })
        .from(signingKeys)
    },

    async insertCurrentKey(key: NewKey, ex: Executor): Promise<void> {
      await ex.insert(signingKeys).values({ ...key, state: 'current', activatedAt: sql`now()` })
    },

    /** @param leadSeconds for so long it is published before it signs */
    async insertNextKey(key: NewKey, leadSeconds: number, tx: Tx): Promise<void> {
      await tx.insert(signingKeys).values({ ...key, state: 'next', activatesAt: inSeconds(leadSeconds) })
    },

    /** The current key retires, and the next one takes its place. */
    async activateNextKey(tx: Tx): Promise<void> {
      await tx
        .update(signingKeys)
        .set({ state: 'retired', retiredAt: sql`now()` })
        .where(eq(signingKeys.state, 'current'))
      await tx
        .update(signingKeys)
        .set({ state: 'current', activatedAt: sql`now()` })
        .where(eq(signingKeys.state, 'next'))
    },

    async deleteKeys(kids: readonly string[], tx: Tx): Promise<void> {
      if (kids.length > 0) await tx.delete(signingKeys).where(inArray(signingKeys.kid, [...kids]))
    },

    /** Deletes keys that others may know, and has every verifier that follows the revocations hear of it. */
    async withdrawKeys(kids: readonly string[], tx: Tx): Promise<void> {
      await this.deleteKeys(kids, tx)
      for (const ref of kids)
        await tx.insert(revocations).values({ kind: 'key', ref, expiresAt: inSeconds(WITHDRAWN_SECONDS) })
    },

    async replaceSealed(kid: string, privateKeySealed: string, ex: Executor): Promise<void> {
      await ex.update(signingKeys).set({ privateKeySealed }).where(eq(signingKeys.kid, kid))
    },
  }
}
