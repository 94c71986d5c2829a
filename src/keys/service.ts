import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import type { Caller } from '../principal.ts'
import type { Vault } from '../vault.ts'
import { publicPem } from './jwk.ts'
import type { KeysRepository, SigningAlgorithm, SigningKeyRow } from './repository.ts'
import type { KeyRotation } from './rotation.ts'

/** A key as this process uses it. */
export type SigningKey = { kid: string; algorithm: SigningAlgorithm; publicPem: string; privatePem: string }

/** The published key set as it is sent: JSON (RFC 7517 §5), and its entity tag. */
export type Jwks = { body: string; etag: string }

type KeySet = { byKid: ReadonlyMap<string, SigningKey>; current: SigningKey; jwks: Jwks; readAt: number }

/** Keys are read again after this time, so that every process follows a rotation. */
const MAX_AGE_MS = 5_000
/** Up to this age the keys are used while they are read again, so that nobody waits. */
const USABLE_MS = 60_000
/** An unknown kid makes us look again, but no stranger can make us look more often than this. */
const MIN_RELOAD_MS = 1_000
/** How often the schedule is looked at. Processes that started together do not stay in step. */
const TICK_MS = 2_000
const TICK_JITTER_MS = 1_000

export type KeysService = ReturnType<typeof createKeysService>

type Dependencies = {
  keys: KeysRepository
  rotation: KeyRotation
  vault: Vault
  clock: Clock
  /** Hears of a schedule that could not be kept; it is tried again. */
  onFailure: (error: unknown) => void
}

/** The signing keys in use, read anew every five seconds, and their rotation. */
export function createKeysService({ keys, rotation, vault, clock, onFailure }: Dependencies) {
  let known: KeySet | undefined
  let loading: Promise<KeySet> | undefined
  /** Keys that were published in the life of this process and are no longer. */
  const gone = new Set<string>()
  const stopped = new AbortController()

  /** One read of the table, shared by everybody who waits for it. */
  function load(): Promise<KeySet> {
    loading ??= read().finally(() => {
      loading = undefined
    })
    return loading
  }

  async function read(): Promise<KeySet> {
    const readAt = clock.now().getTime()
    const rows = await keys.listKeys()
    const byKid = new Map<string, SigningKey>()
    for (const row of rows) {
      const key = known?.byKid.get(row.kid) ?? open(row)
      if (key) byKid.set(row.kid, key)
    }
    const current = byKid.get(rows.find(({ state }) => state === 'current')?.kid ?? '')
    if (!current) throw new Error('there is no current signing key that this SECRET_KEY opens')
    for (const kid of known?.byKid.keys() ?? []) if (!byKid.has(kid)) gone.add(kid)
    const body = JSON.stringify({ keys: rows.map((row) => row.publicJwk) })
    const etag = `"${createHash('sha256').update(body).digest('base64url')}"`
    known = { byKid, current, jwks: { body, etag }, readAt }
    return known
  }

  /** Whoever writes to the table without SECRET_KEY makes no key that counts here. */
  function open({ kid, algorithm, privateKeySealed }: SigningKeyRow): SigningKey | undefined {
    const privatePem = vault.open('signing-keys', privateKeySealed)
    return privatePem === undefined
      ? undefined
      : { kid, algorithm, privatePem, publicPem: publicPem(privatePem) }
  }

  async function keySet(): Promise<KeySet> {
    if (!known) return await load()
    const age = clock.now().getTime() - known.readAt
    if (age < MAX_AGE_MS) return known
    // What is known stays good while the database is away.
    const fresh = load().catch(() => known ?? load())
    return age < USABLE_MS ? known : await fresh
  }

  async function advance(): Promise<void> {
    if (await rotation.advance()) await load()
  }

  async function keepSchedule(): Promise<void> {
    let isFailing = false
    while (!stopped.signal.aborted) {
      try {
        await advance()
        // So that a withdrawn key is noticed although nobody asks.
        await keySet()
        isFailing = false
      } catch (error) {
        // Once for each outage, however long it is.
        if (!isFailing && !stopped.signal.aborted) onFailure(error)
        isFailing = true
      }
      const pause = TICK_MS + Math.random() * TICK_JITTER_MS
      await sleep(pause, undefined, { ref: false, signal: stopped.signal }).catch(() => {})
    }
  }

  return {
    ensureCurrentKey: rotation.ensureCurrentKey,
    reseal: rotation.reseal,

    /** The published keys and their states, the oldest first. */
    listKeys: async (): Promise<SigningKeyRow[]> => await keys.listKeys(),

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

    /** True for a token whose key is published no longer, although its signature may have been verified before. */
    async isOfKeyThatIsGone(token: string): Promise<boolean> {
      await keySet()
      return gone.size > 0 && gone.has(kidOf(token))
    },

    /** The published keys: public parts only. */
    async jwks(): Promise<Jwks> {
      return (await keySet()).jwks
    },

    /**
     * Has another key sign from `activatesAt` on, when every verifier can know it; or, with `force`, at once, and
     * withdraws all others with the tokens that they signed. @returns the key that follows
     */
    async rotate(caller: Caller, { force }: { force: boolean }): Promise<SigningKeyRow> {
      const key = force ? await rotation.replaceAll(caller) : await rotation.rotate(caller)
      await load()
      return key
    },

    /** Does what the schedule of rotation has due by now. */
    advance,

    /** Keeps the schedule of rotation from now on. Only what serves does. */
    start(): void {
      void keepSchedule()
    },

    stop(): void {
      stopped.abort()
    },
  }
}

/** The kid of a token that was verified before. */
function kidOf(token: string): string {
  const header = Buffer.from(token.slice(0, token.indexOf('.')), 'base64url').toString()
  return String((JSON.parse(header) as { kid?: unknown }).kid)
}
