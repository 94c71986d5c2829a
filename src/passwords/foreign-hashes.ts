import { createHash, createHmac, pbkdf2, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import bcrypt from 'bcrypt'

/** A hash that another program made. */
export type ForeignHash = {
  /** What a verification takes, where it is as much as to be counted: with scrypt. */
  memoryKib: number
  /** Whether the password is the one hashed: as it was typed, because those programs did not normalise. */
  matches(password: string): Promise<boolean>
}

/*
 * What one verification may cost at most: about a second of a core, and 128 MiB (argon2: 256). A stored hash that asked
 * for more would keep everybody else waiting. PASSWORD_IMPORT_MEMORY_KIB is a lower bound, for what is imported.
 */
const MOST_BCRYPT_ROUNDS = 14
const MOST_SCRYPT_BYTES = 2 ** 27
const MOST_SCRYPT_BYTES_OF_LANES = 2 ** 28
const MOST_PBKDF2_ITERATIONS = 3_000_000
const MOST_ARGON2_KIB = 2 ** 18
const MOST_ARGON2_KIB_PASSES = 2 ** 20
const MOST_ARGON2_LANES = 16

/** Shorter digests would be met by chance; longer ones cost a multiple. */
const LEAST_DIGEST_BYTES = 16
const MOST_DIGEST_BYTES = 64

/** bcrypt looks at no more of a password; the programs that hashed with it cut it there in silence. */
const BCRYPT_BYTES = 72

const TOO_EXPENSIVE = 'costs more to verify than is allowed'
const NO_DIGEST = `holds no digest of ${LEAST_DIGEST_BYTES} to ${MOST_DIGEST_BYTES} bytes`

/** The pattern of one way to write a hash, and what its groups mean: a hash, or why it is none that we take. */
type Format = readonly [pattern: RegExp, read: (...groups: string[]) => ForeignHash | string]

const bytesOf = (text: string): Buffer => Buffer.from(text, 'utf8')
/** Base64 with or without padding, also where passlib writes a dot for the plus. */
const base64 = (text: string): Buffer => Buffer.from(text.replaceAll('.', '+'), 'base64')
const hex = (text: string): Buffer => Buffer.from(text, 'hex')

const FORMATS: readonly Format[] = [
  // bcrypt as everybody writes it; with the prefix of Django.
  [/^(?:bcrypt\$)?\$2[aby]\$(\d\d)\$([./A-Za-z0-9]{53})$/, (rounds, rest) => bcryptOf(rounds, rest)],
  // Django: of the SHA-256 in hexadecimal.
  [
    /^bcrypt_sha256\$\$2[aby]\$(\d\d)\$([./A-Za-z0-9]{53})$/,
    (rounds, rest) =>
      bcryptOf(rounds, rest, (password) => bytesOf(createHash('sha256').update(password).digest('hex'))),
  ],
  // passlib: of the HMAC-SHA-256 under the salt, before 1.7.3 of the SHA-256, in base64.
  [
    /^\$bcrypt-sha256\$v=2,t=2b,r=(\d{1,2})\$([./A-Za-z0-9]{22})\$([./A-Za-z0-9]{31})$/,
    (rounds, salt, digest) =>
      bcryptOf(rounds, salt + digest, (password) =>
        bytesOf(createHmac('sha256', salt).update(password).digest('base64')),
      ),
  ],
  [
    /^\$bcrypt-sha256\$2[ab],(\d{1,2})\$([./A-Za-z0-9]{22})\$([./A-Za-z0-9]{31})$/,
    (rounds, salt, digest) =>
      bcryptOf(rounds, salt + digest, (password) =>
        bytesOf(createHash('sha256').update(password).digest('base64')),
      ),
  ],
  // PHC and passlib; Werkzeug; Django.
  [
    /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/,
    (ln, r, p, salt, digest) => scryptOf(2 ** Number(ln), r, p, base64(salt), base64(digest)),
  ],
  [
    /^scrypt:(\d{1,9}):(\d{1,3}):(\d{1,3})\$([^$]+)\$([0-9a-f]+)$/,
    (n, r, p, salt, digest) => scryptOf(Number(n), r, p, bytesOf(salt), hex(digest)),
  ],
  [
    /^scrypt\$(\d{1,9})\$([^$]+)\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/]+=*)$/,
    (n, salt, r, p, digest) => scryptOf(Number(n), r, p, bytesOf(salt), base64(digest)),
  ],
  // passlib; Werkzeug; Django.
  [
    /^\$pbkdf2(-sha256|-sha512|)\$(\d{1,9})\$([A-Za-z0-9./]*)\$([A-Za-z0-9./]+)$/,
    (hash, iterations, salt, digest) =>
      pbkdf2Of(hash === '' ? 'sha1' : hash.slice(1), iterations, base64(salt), base64(digest)),
  ],
  [
    /^pbkdf2:(sha1|sha256|sha512):(\d{1,9})\$([^$]+)\$([0-9a-f]+)$/,
    (hash, iterations, salt, digest) => pbkdf2Of(hash, iterations, bytesOf(salt), hex(digest)),
  ],
  [
    /^pbkdf2_(sha1|sha256|sha512)\$(\d{1,9})\$([^$]+)\$([A-Za-z0-9+/]+=*)$/,
    (hash, iterations, salt, digest) => pbkdf2Of(hash, iterations, bytesOf(salt), base64(digest)),
  ],
]

/**
 * Reads a hash that another program made: bcrypt, scrypt or PBKDF2 as passlib, Django, Werkzeug and most others write
 * them. @returns a sentence's end that says why not, when it is none of them or would cost too much
 */
export function readForeignHash(text: string): ForeignHash | string {
  for (const [pattern, read] of FORMATS) {
    const groups = pattern.exec(text)?.slice(1)
    if (groups) return read(...groups)
  }
  return 'is in no known format'
}

/** What verifying an argon2 hash of another program takes; a sentence's end that says why not, when it is not taken. */
export function readArgon2(phc: string): Pick<ForeignHash, 'memoryKib'> | string {
  const parts =
    /^\$argon2(?:id|i|d)\$v=(?:16|19)\$m=(\d{1,8}),t=(\d{1,4}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,})\$([A-Za-z0-9+/]+)$/.exec(
      phc,
    )
  if (!parts) return 'is in no known format'
  const [, memoryKib = 0, passes = 0, lanes = 0] = parts.map(Number)
  const fits = memoryKib >= 8 * lanes && passes > 0 && lanes > 0
  if (!fits) return 'holds parameters that argon2 does not have'
  const isCheap =
    memoryKib <= MOST_ARGON2_KIB && memoryKib * passes <= MOST_ARGON2_KIB_PASSES && lanes <= MOST_ARGON2_LANES
  if (!isCheap) return TOO_EXPENSIVE
  return isDigest(base64(parts[5] ?? '')) ? { memoryKib } : NO_DIGEST
}

const isDigest = ({ length }: Buffer): boolean => length >= LEAST_DIGEST_BYTES && length <= MOST_DIGEST_BYTES

function bcryptOf(
  rounds: string,
  saltAndDigest: string,
  prepare = (password: string) => bytesOf(password).subarray(0, BCRYPT_BYTES),
): ForeignHash | string {
  const cost = Number(rounds)
  if (cost < 4) return 'holds parameters that bcrypt does not have'
  if (cost > MOST_BCRYPT_ROUNDS) return TOO_EXPENSIVE
  // 2a, 2b and 2y differ in what they make of more than 255 bytes only.
  const hash = `$2b$${String(cost).padStart(2, '0')}$${saltAndDigest}`
  return { memoryKib: 0, matches: async (password) => await bcrypt.compare(prepare(password), hash) }
}

const deriveByScrypt = promisify<Buffer, Buffer, number, ScryptOptions, Buffer>(scrypt)

function scryptOf(N: number, r: string, p: string, salt: Buffer, digest: Buffer): ForeignHash | string {
  const options = { N, r: Number(r), p: Number(p) }
  const isPowerOfTwo = N > 1 && Number.isInteger(Math.log2(N))
  // RFC 7914 §2: N is below 2^(128 r / 8).
  const fits = isPowerOfTwo && options.r > 0 && options.p > 0 && Math.log2(N) < 16 * options.r
  if (!fits) return 'holds parameters that scrypt does not have'
  const bytes = 128 * N * options.r
  if (bytes > MOST_SCRYPT_BYTES || bytes * options.p > MOST_SCRYPT_BYTES_OF_LANES) return TOO_EXPENSIVE
  if (!isDigest(digest)) return NO_DIGEST
  return {
    // One lane after the other, in the same memory.
    memoryKib: Math.ceil(bytes / 1024),
    matches: async (password) => {
      // OpenSSL counts the blocks of all lanes and the working memory too, and fails above the bound.
      const maxmem = bytes + 128 * options.r * (options.p + 2) + 2 ** 20
      const derived = await deriveByScrypt(bytesOf(password), salt, digest.length, { ...options, maxmem })
      return timingSafeEqual(derived, digest)
    },
  }
}

const deriveByPbkdf2 = promisify(pbkdf2)

/** What the hash of PBKDF2 gives at a time; a longer digest takes all iterations again for each further part. */
const HASH_BYTES: Readonly<Record<string, number>> = { sha1: 20, sha256: 32, sha512: 64 }

function pbkdf2Of(hash: string, rounds: string, salt: Buffer, digest: Buffer): ForeignHash | string {
  const iterations = Number(rounds)
  if (iterations < 1) return 'holds parameters that PBKDF2 does not have'
  if (!isDigest(digest)) return NO_DIGEST
  const parts = Math.ceil(digest.length / (HASH_BYTES[hash] ?? 1))
  if (iterations * parts > MOST_PBKDF2_ITERATIONS) return TOO_EXPENSIVE
  return {
    memoryKib: 0,
    matches: async (password) =>
      timingSafeEqual(await deriveByPbkdf2(bytesOf(password), salt, iterations, digest.length, hash), digest),
  }
}
