import { createHash } from 'node:crypto'

/** What can end. */
export type RevocationKind = 'session' | 'token' | 'user' | 'client' | 'key'

/** As the feed tells it. */
export type Revocation = { kind: RevocationKind; ref: string; ver?: number | null; exp: number }

/** What the store is asked about: kind and ref as 128 bits. Made once for each token. */
export type RevocationKey = { a: number; b: number; c: number; d: number }

/** Added to each kind's references, so that equal ids of two kinds are two entries. */
const KIND_SALT: Record<RevocationKind, number> = {
  session: 0x1b873593,
  token: 0x2545f491,
  user: 0x3c6ef372,
  client: 0x510e527f,
  key: 0x1f83d9ab,
}

/** Tables are small, so that making one larger never holds the process up. A power of two. */
const SHARDS = 512
const SMALLEST_CAPACITY = 8
const FULLEST = 0.8
/** Expired entries are cleared away one table at a time. */
const SWEEP_EVERY_MS = 100
/** `ver` of entries that end a token whatever its version is. */
const EVERY_VERSION = 0x7fffffff

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Of hexadecimal digits, by their character. */
const NIBBLES = new Uint8Array(128)
for (let digit = 0; digit < 16; digit++) NIBBLES[digit.toString(16).charCodeAt(0)] = digit

/** Four of the digits of a UUID. */
const quarter = (text: string, at: number): number =>
  ((NIBBLES[text.charCodeAt(at)] ?? 0) << 12) |
  ((NIBBLES[text.charCodeAt(at + 1)] ?? 0) << 8) |
  ((NIBBLES[text.charCodeAt(at + 2)] ?? 0) << 4) |
  (NIBBLES[text.charCodeAt(at + 3)] ?? 0)

/** The key of an entry. UUIDs are taken as they are; whatever else an id may be, as the start of its SHA-256. */
export function revocationKey(kind: RevocationKind, ref: string): RevocationKey {
  const salt = KIND_SALT[kind]
  if (!UUID.test(ref)) {
    const digest = createHash('sha256').update(ref).digest()
    const [a, b, c, d] = [0, 4, 8, 12].map((place) => digest.readInt32LE(place))
    return { a: (a ?? 0) ^ salt, b: b ?? 0, c: c ?? 0, d: d ?? 0 }
  }
  return {
    a: ((quarter(ref, 0) << 16) | quarter(ref, 4)) ^ salt,
    b: (quarter(ref, 9) << 16) | quarter(ref, 14),
    c: (quarter(ref, 19) << 16) | quarter(ref, 24),
    d: (quarter(ref, 28) << 16) | quarter(ref, 32),
  }
}

/** The last words are random in a UUIDv7; the first are the time. */
function hashOf(a: number, b: number, c: number, d: number): number {
  let hash = Math.imul(d ^ (c >>> 15), 0x85ebca6b) ^ Math.imul(c ^ b, 0xc2b2ae35) ^ Math.imul(a, 0x27d4eb2f)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  return (hash ^ (hash >>> 13)) >>> 0
}

/** A hash table with open addressing: 24 bytes for each slot, nothing for the collector to look at. */
type Shard = { size: number; mask: number; keys: Int32Array; versions: Int32Array; expiries: Uint32Array }

const newShard = (capacity: number): Shard => ({
  size: 0,
  mask: capacity - 1,
  keys: new Int32Array(capacity * 4),
  versions: new Int32Array(capacity),
  // 0 marks a free slot.
  expiries: new Uint32Array(capacity),
})

/** The slot of the key, or the free one where it belongs. */
function slotOf(shard: Shard, { a, b, c, d }: RevocationKey, hash: number): number {
  const { keys, expiries, mask } = shard
  for (let slot = (hash / SHARDS) & mask; ; slot = (slot + 1) & mask) {
    const at = slot * 4
    if (expiries[slot] === 0) return slot
    if (keys[at + 3] === d && keys[at + 2] === c && keys[at + 1] === b && keys[at] === a) return slot
  }
}

function put(shard: Shard, key: RevocationKey, hash: number, version: number, expiry: number): void {
  const slot = slotOf(shard, key, hash)
  const { keys, versions, expiries } = shard
  if (expiries[slot] === 0) {
    shard.size++
    keys.set([key.a, key.b, key.c, key.d], slot * 4)
    versions[slot] = version
    expiries[slot] = expiry
    return
  }
  versions[slot] = Math.max(versions[slot] ?? 0, version)
  expiries[slot] = Math.max(expiries[slot] ?? 0, expiry)
}

/** The same entries in a table of the right size, without those that have expired by `now`. */
function rebuilt(shard: Shard, now: number, room: number): Shard {
  const { keys, versions, expiries, mask } = shard
  let live = room
  for (let slot = 0; slot <= mask; slot++) if ((expiries[slot] ?? 0) > now) live++
  let capacity = SMALLEST_CAPACITY
  // With some room to grow, or the next entry would have it all done again.
  while (live > capacity * FULLEST * 0.9) capacity *= 2
  const fresh = newShard(capacity)
  for (let slot = 0; slot <= mask; slot++) {
    const expiry = expiries[slot] ?? 0
    if (expiry <= now) continue
    const at = slot * 4
    const [a = 0, b = 0, c = 0, d = 0] = [keys[at], keys[at + 1], keys[at + 2], keys[at + 3]]
    put(fresh, { a, b, c, d }, hashOf(a, b, c, d), versions[slot] ?? 0, expiry)
  }
  return fresh
}

export type RevocationStore = ReturnType<typeof createRevocationStore>

/**
 * Revocations until they are of no more use: about 50 bytes each. `nowSeconds` is the time by the clock; `limit` is the
 * most entries that are held.
 */
export function createRevocationStore({ nowSeconds, limit }: { nowSeconds: () => number; limit: number }) {
  const shards = Array.from({ length: SHARDS }, () => newShard(SMALLEST_CAPACITY))
  let size = 0
  let generation = 0
  let next = 0

  function clearNext(): void {
    const place = next
    next = (next + 1) % SHARDS
    const shard = shards[place]
    if (!shard || shard.size === 0) return
    const now = nowSeconds()
    if (!shard.expiries.some((expiry) => expiry !== 0 && expiry <= now)) return
    const fresh = rebuilt(shard, now, 0)
    size += fresh.size - shard.size
    shards[place] = fresh
  }

  const timer = setInterval(() => {
    clearNext()
    clearNext()
  }, SWEEP_EVERY_MS).unref()

  return {
    /** Adds an entry; one that is there already only becomes stronger. False: there is no room for more. */
    add({ kind, ref, ver, exp }: Revocation): boolean {
      const now = nowSeconds()
      if (exp <= now) return true
      if (size >= limit) return false
      const key = revocationKey(kind, ref)
      const hash = hashOf(key.a, key.b, key.c, key.d)
      const place = hash % SHARDS
      let shard = shards[place]
      if (!shard) return false
      const before = shard.size
      if (shard.size + 1 > (shard.mask + 1) * FULLEST) {
        shard = rebuilt(shard, now, 1)
        shards[place] = shard
      }
      put(shard, key, hash, ver ?? EVERY_VERSION, Math.min(Math.ceil(exp), 0xffffffff))
      size += shard.size - before
      generation++
      return true
    },

    /** Whether an entry ends a token of version `ver`. */
    ends(key: RevocationKey, ver: number): boolean {
      const hash = hashOf(key.a, key.b, key.c, key.d)
      const shard = shards[hash % SHARDS]
      if (!shard) return true
      const slot = slotOf(shard, key, hash)
      return shard.expiries[slot] !== 0 && ver < (shard.versions[slot] ?? 0)
    },

    /** Changes with every entry: who has asked since need not ask again. */
    generation: () => generation,
    size: () => size,
    close: () => clearInterval(timer),
  }
}
