import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import type { Executor } from '../db/client.ts'
import { SYSTEM } from '../principal.ts'
import type { Vault } from '../vault.ts'
import { generateKey, publicPem } from './jwk.ts'
import type { KeysRepository, SigningAlgorithm } from './repository.ts'

/** A key as this process uses it. `privatePem` is there for the current one. */
export type SigningKey = { kid: string; algorithm: SigningAlgorithm; publicPem: string; privatePem: string }

type KeySet = {
  byKid: Map<string, SigningKey>
  current: SigningKey
  jwks: { keys: Record<string, unknown>[] }
  readAt: number
}

/** Keys are read again after this time, so that every process follows a rotation. */
const MAX_AGE_MS = 30_000
/** An unknown kid makes us look again, but no stranger can make us look more often than this. */
const MIN_RELOAD_MS = 1_000

export type KeysService = ReturnType<typeof createKeysService>

type Dependencies = {
  keys: KeysRepository
  audit: AuditRepository
  vault: Vault
  algorithm: SigningAlgorithm
  clock: Clock
}

export function createKeysService({ keys, audit, vault, algorithm, clock }: Dependencies) {
  let known: KeySet | undefined
  let loading: Promise<KeySet> | undefined

  /** One read of the table, shared by everybody who waits for it. */
  function load(): Promise<KeySet> {
    loading ??= read().finally(() => {
      loading = undefined
    })
    return loading
  }

  async function read(): Promise<KeySet> {
    const rows = await keys.listKeys()
    const opened = rows.map((row) => {
      const privatePem = vault.open('signing-keys', row.privateKeySealed)
      if (privatePem === undefined)
        throw new Error(`signing key ${row.kid} cannot be opened with this SECRET_KEY`)
      return { kid: row.kid, algorithm: row.algorithm, privatePem, publicPem: publicPem(privatePem) }
    })
    const current = opened.find((_, index) => rows[index]?.state === 'current')
    if (!current) throw new Error('there is no current signing key')
    known = {
      byKid: new Map(opened.map((key) => [key.kid, key])),
      current,
      jwks: { keys: rows.map((row) => row.publicJwk) },
      readAt: clock.now().getTime(),
    }
    return known
  }

  async function keySet(): Promise<KeySet> {
    if (!known) return await load()
    if (clock.now().getTime() - known.readAt < MAX_AGE_MS) return known
    // What is known stays good while the database is away.
    return await load().catch(() => known ?? load())
  }

  return {
    /** Makes the first key of a new database. The caller holds the start lock. */
    async ensureCurrentKey(ex: Executor): Promise<void> {
      if (await keys.hasCurrentKey(ex)) return
      const { kid, publicJwk, privatePem } = generateKey(algorithm)
      await keys.insertKey(
        {
          kid,
          algorithm,
          publicJwk,
          privateKeySealed: vault.seal('signing-keys', privatePem),
          state: 'current',
        },
        clock.now(),
        ex,
      )
      await audit.append(
        { action: 'signing_key.created', caller: SYSTEM, target: { type: 'signing_key', id: kid } },
        ex,
      )
    },

    /** The key that signs now. */
    async currentKey(): Promise<SigningKey> {
      return (await keySet()).current
    },

    /** A published key by its kid, read again once when it is not known; `undefined` when there is none. */
    async findKey(kid: string): Promise<SigningKey | undefined> {
      const set = await keySet()
      const found = set.byKid.get(kid)
      if (found || clock.now().getTime() - set.readAt < MIN_RELOAD_MS) return found
      return (await load()).byKid.get(kid)
    },

    /** The published keys (RFC 7517 §5): public parts only. */
    async jwks(): Promise<{ keys: Record<string, unknown>[] }> {
      return (await keySet()).jwks
    },
  }
}
