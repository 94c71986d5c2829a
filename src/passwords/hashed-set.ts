import { createHash } from 'node:crypto'

/*
 * A set of texts as the first 40 bits of their SHA-256, sorted: 16 bits say in which bucket, 24 bits stand there. Four
 * bytes name the format, four count the entries, then comes the size of each bucket in one byte, then the entries.
 */
const FORMAT = 'PWS1'
const HEADER_BYTES = 8
const BUCKETS = 65_536
const ENTRY_BYTES = 3
const MOST_IN_A_BUCKET = 255

/** Whether a text is in a set. One that is not is taken for one that is with a chance of `size` in 2^40. */
export type HashedSet = { readonly size: number; has(text: string): boolean }

const hashOf = (text: string): Buffer => createHash('sha256').update(text).digest()
const bucketOf = (hash: Buffer): number => hash.readUInt16BE(0)
const entryOf = (hash: Buffer): number => hash.readUIntBE(2, ENTRY_BYTES)

/** The set of `texts` as a file. @throws RangeError for more texts than it can hold, about ten million */
export function encodeHashedSet(texts: Iterable<string>): Buffer {
  const buckets = Array.from({ length: BUCKETS }, () => new Set<number>())
  for (const text of texts) {
    const hash = hashOf(text)
    buckets[bucketOf(hash)]?.add(entryOf(hash))
  }
  const count = buckets.reduce((sum, { size }) => sum + size, 0)
  const file = Buffer.alloc(HEADER_BYTES + BUCKETS + count * ENTRY_BYTES)
  file.write(FORMAT, 'latin1')
  file.writeUInt32BE(count, FORMAT.length)
  let at = HEADER_BYTES + BUCKETS
  for (const [bucket, entries] of buckets.entries()) {
    if (entries.size > MOST_IN_A_BUCKET) throw new RangeError('too many texts for one set')
    file.writeUInt8(entries.size, HEADER_BYTES + bucket)
    for (const entry of [...entries].sort((a, b) => a - b)) at = file.writeUIntBE(entry, at, ENTRY_BYTES)
  }
  return file
}

/** Reads what `encodeHashedSet` made. @throws Error for anything else */
export function readHashedSet(file: Buffer): HashedSet {
  const size = file.length < HEADER_BYTES + BUCKETS ? -1 : file.readUInt32BE(FORMAT.length)
  const entries = file.subarray(HEADER_BYTES + BUCKETS)
  if (file.toString('latin1', 0, FORMAT.length) !== FORMAT || entries.length !== size * ENTRY_BYTES)
    throw new Error('this is no set of hashes, or a part of one')

  const starts = new Uint32Array(BUCKETS + 1)
  for (let bucket = 0; bucket < BUCKETS; bucket++)
    starts[bucket + 1] = (starts[bucket] ?? 0) + file.readUInt8(HEADER_BYTES + bucket)
  return {
    size,
    has(text) {
      const hash = hashOf(text)
      const bucket = bucketOf(hash)
      const entry = entryOf(hash)
      for (let place = starts[bucket] ?? 0; place < (starts[bucket + 1] ?? 0); place++)
        if (entries.readUIntBE(place * ENTRY_BYTES, ENTRY_BYTES) === entry) return true
      return false
    },
  }
}
