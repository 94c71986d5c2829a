import type { Executor } from '../db/client.ts'
import { createRevocationFeed } from './feed.ts'
import type { RevocationsRepository } from './repository.ts'

type Dependencies = { revocations: RevocationsRepository; ttlSeconds: number; now: () => number }

/** Tokens that end before they expire. Sessions, users and clients are written down by triggers when they change. */
export function createRevocationsService({ revocations, ttlSeconds, now }: Dependencies) {
  return {
    feed: createRevocationFeed({ revocations, now }),

    /** Ends one access token for every verifier; `expiresAt` is its own `exp`. For the transaction that says why. */
    async revokeToken(jti: string, expiresAt: Date, ex: Executor): Promise<void> {
      await revocations.insertToken(jti, expiresAt, ex)
    },

    /** Makes sure that entries outlive the tokens that this process issues. Before it issues any. */
    async noteTokenLifetime(ex: Executor): Promise<void> {
      await revocations.noteTokenLifetime(ttlSeconds, ex)
    },

    /** Removes what no token outlives. */
    prune: revocations.prune,
  }
}
