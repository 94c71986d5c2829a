import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import { fail } from '../errors.ts'
import { type Caller, SYSTEM } from '../principal.ts'
import type { Vault } from '../vault.ts'
import { generateKey } from './jwk.ts'
import type { KeysRepository, SigningAlgorithm, SigningKeyRow } from './repository.ts'

/** How long a verifier may keep the key set (RFC 9111 §5.2.2.1), in seconds. */
export const JWKS_MAX_AGE_SECONDS = 300
/** A new key is published for the age that a key set may have, and a minute for slow verifiers, before it signs. */
const LEAD_SECONDS = JWKS_MAX_AGE_SECONDS + 60
/** A retired key outlives its tokens by this, for clocks that differ and processes that learn of a rotation late. */
const GRACE_SECONDS = 120

type Dependencies = {
  database: Database
  keys: KeysRepository
  audit: AuditRepository
  vault: Vault
  algorithm: SigningAlgorithm
  /** After so many seconds the current key is replaced; 0: never by itself. */
  rotationSeconds: number
}

export type KeyRotation = ReturnType<typeof createKeyRotation>

/**
 * The life of signing keys: next, current, retired, gone. Each step is one transaction under one row lock, judged by
 * the database's time, so that any process may do it at any moment, and none does it twice.
 */
export function createKeyRotation(dependencies: Dependencies) {
  const { database, keys, audit, vault, algorithm, rotationSeconds } = dependencies
  const { db } = database
  const terms = { rotationSeconds, graceSeconds: GRACE_SECONDS }

  function newKey() {
    const { kid, publicJwk, privatePem } = generateKey(algorithm)
    return { kid, algorithm, publicJwk, privateKeySealed: vault.seal('signing-keys', privatePem) }
  }

  async function record(action: KeyAction, kid: string, caller: Caller, ex: Executor): Promise<void> {
    await audit.append({ action, caller, target: { type: 'signing_key', id: kid } }, ex)
  }

  async function keyIn(state: 'next' | 'current', tx: Tx): Promise<SigningKeyRow | undefined> {
    return (await keys.listKeys(tx)).find((key) => key.state === state)
  }

  async function publishNext(caller: Caller, tx: Tx): Promise<void> {
    const key = newKey()
    await keys.insertNextKey(key, LEAD_SECONDS, tx)
    await record('signing_key.created', key.kid, caller, tx)
  }

  async function advance(tx: Tx): Promise<void> {
    await keys.lockKeys(tx)
    const schedule = await keys.readSchedule(terms, tx)
    const expired = schedule.filter(({ state, isDue }) => state === 'retired' && isDue)
    await keys.deleteKeys(
      expired.map(({ kid }) => kid),
      tx,
    )
    for (const { kid } of expired) await record('signing_key.removed', kid, SYSTEM, tx)
    const next = schedule.find(({ state }) => state === 'next')
    if (next?.isDue) {
      await keys.activateNextKey(tx)
      await record('signing_key.activated', next.kid, SYSTEM, tx)
    } else if (!next && schedule.some(({ state, isDue }) => state === 'current' && isDue)) {
      await publishNext(SYSTEM, tx)
    }
  }

  return {
    /** Makes the first key of a new database. The caller holds the start lock. */
    async ensureCurrentKey(ex: Executor): Promise<void> {
      const published = await keys.listKeys(ex)
      if (published.some(({ state }) => state === 'current')) return
      const key = newKey()
      await keys.insertCurrentKey(key, ex)
      await record('signing_key.created', key.kid, SYSTEM, ex)
    },

    /** Does what is due by now. @returns whether anything was */
    async advance(): Promise<boolean> {
      const isDue = (await keys.readSchedule(terms)).some((key) => key.isDue)
      if (isDue) await transact(db, advance)
      return isDue
    },

    /**
     * Publishes the next key, or tells of the one that is published already. It signs from `activatesAt` on, when every
     * verifier can know it.
     */
    async rotate(caller: Caller): Promise<SigningKeyRow> {
      return await transact(db, async (tx) => {
        await keys.lockKeys(tx)
        if (!(await keyIn('next', tx))) await publishNext(caller, tx)
        return (await keyIn('next', tx)) ?? fail('conflict')
      })
    },

    /**
     * For a key that others may know: withdraws every key, so that all tokens issued until now are refused, and makes a
     * new one that signs at once.
     */
    async replaceAll(caller: Caller): Promise<SigningKeyRow> {
      return await transact(db, async (tx) => {
        await keys.lockKeys(tx)
        const withdrawn = (await keys.listKeys(tx)).map(({ kid }) => kid)
        await keys.withdrawKeys(withdrawn, tx)
        for (const kid of withdrawn) await record('signing_key.withdrawn', kid, caller, tx)
        const key = newKey()
        await keys.insertCurrentKey(key, tx)
        await record('signing_key.created', key.kid, caller, tx)
        return (await keyIn('current', tx)) ?? fail('conflict')
      })
    },

    /** Seals under the SECRET_KEY of now what is sealed under the one before. */
    async reseal(ex: Executor): Promise<void> {
      for (const { kid, privateKeySealed } of await keys.listKeys(ex)) {
        const sealed = vault.reseal('signing-keys', privateKeySealed)
        if (sealed !== undefined) await keys.replaceSealed(kid, sealed, ex)
      }
    },
  }
}

type KeyAction =
  | 'signing_key.created'
  | 'signing_key.activated'
  | 'signing_key.removed'
  | 'signing_key.withdrawn'
