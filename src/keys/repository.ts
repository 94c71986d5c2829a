import { asc, eq, inArray } from 'drizzle-orm'
import type { Database, Executor } from '../db/client.ts'
import { signingKeys } from '../db/schema.ts'

export type SigningAlgorithm = 'ES256' | 'RS256' | 'EdDSA'

export type SigningKeyRow = {
  kid: string
  algorithm: SigningAlgorithm
  publicJwk: Record<string, unknown>
  privateKeySealed: string
  state: 'next' | 'current' | 'retired'
}

export type KeysRepository = ReturnType<typeof createKeysRepository>

export function createKeysRepository({ db }: Database) {
  return {
    /** Every key that is published. */
    async listKeys(): Promise<SigningKeyRow[]> {
      return await db
        .select({
          kid: signingKeys.kid,
          algorithm: signingKeys.algorithm,
          publicJwk: signingKeys.publicJwk,
          privateKeySealed: signingKeys.privateKeySealed,
          state: signingKeys.state,
        })
        .from(signingKeys)
        .where(inArray(signingKeys.state, ['next', 'current', 'retired']))
        .orderBy(asc(signingKeys.createdAt))
    },

    async hasCurrentKey(ex: Executor): Promise<boolean> {
      const found = await ex
        .select({ kid: signingKeys.kid })
        .from(signingKeys)
        .where(eq(signingKeys.state, 'current'))
      return found.length > 0
    },

    async insertKey(key: SigningKeyRow, activatedAt: Date | null, ex: Executor): Promise<void> {
      await ex.insert(signingKeys).values({ ...key, activatedAt })
    },
  }
}
