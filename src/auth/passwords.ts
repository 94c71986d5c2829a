import { createHmac, randomBytes } from 'node:crypto'
import argon2 from 'argon2'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import type { Blocklist } from '../passwords/blocklist.ts'
import { readArgon2, readForeignHash } from '../passwords/foreign-hashes.ts'

/**
 * Longest password in code points and in bytes of UTF-8: above NIST's 64 (SP 800-63B-4 §3.1.1.2), and a bound on
 * what a stranger can make us hash. Longer ones are refused, never cut.
 */
const MAX_CODE_POINTS = 256
const MAX_BYTES = 1024

/** Nobody is let in who would have to wait longer for a hash, where no length of the queue is configured. */
const LONGEST_WAIT_MS = 600
/** So many may wait for each place however slow hashes are: a few people who sign in at once are no flood. */
const SHORTEST_QUEUE = 10
/** What a hash is taken to need before the first was made. */
const EXPECTED_HASH_MS = 30
/** How much each hash counts in the mean of those before it. */
const WEIGHT_OF_ONE = 0.1

export type PasswordHasher = ReturnType<typeof createPasswordHasher>

/** A place in the hashing pool, taken before any other work of a sign-in. It must be released. */
export type HashTicket = { release(): void }

/** What is known of whoever is to have a password. */
export type OwnerTraits = {
  /** What others know of the person: names, email. */
  words?: readonly string[]
  /** Whether the person never gets in without a second factor, so that a shorter password is enough. */
  needsSecondFactor?: boolean
}

type Parameters = Pick<
  Config['passwords'],
  'minLength' | 'memoryKib' | 'timeCost' | 'parallelism' | 'concurrency'
> & {
  queue?: number | undefined
  /** What verifying an imported hash may take, where that is more than our own take. */
  importMemoryKib?: number
  minLengthWithMfa?: number
  pepper?: string | undefined
  previousPepper?: string | undefined
}

type Options = {
  blocklist?: Blocklist
  /** Hears of stored hashes that cannot be verified. */
  warn?: (context: Record<string, unknown>, message: string) => void
}

/**
 * Hashes passwords with argon2id in a bounded pool: `concurrency` at a time, `queue` waiting (by default as many as have
 * their turn within 0.6 s, at the speed of the last hashes); beyond that everything is refused at once, so that a flood
 * of sign-ins slows down nothing else.
 * Parameters: OWASP Password Storage Cheat Sheet, argon2id m=19456 t=2 p=1 or stronger. With a pepper, it is the secret
 * key of the hash (RFC 9106 §3.1; SP 800-63B-4 §3.1.1.2), and its name stands before the PHC string.
 */
export function createPasswordHasher(parameters: Parameters, { blocklist, warn = () => {} }: Options = {}) {
  const { concurrency, minLength, minLengthWithMfa = minLength } = parameters
  const options = {
    type: argon2.argon2id,
    memoryCost: parameters.memoryKib,
    timeCost: parameters.timeCost,
    parallelism: parameters.parallelism,
  } as const
  const pepper = parameters.pepper === undefined ? undefined : pepperOf(parameters.pepper)
  const peppers = new Map(
    [parameters.pepper, parameters.previousPepper].flatMap((text) => {
      const one = text === undefined ? undefined : pepperOf(text)
      return one ? [[one.id, one]] : []
    }),
  )
  let admitted = 0
  let meanMs = EXPECTED_HASH_MS
  let running = 0
  const waiting: (() => void)[] = []

  const longestQueue = (): number =>
    parameters.queue ?? concurrency * Math.max(SHORTEST_QUEUE, Math.floor(LONGEST_WAIT_MS / meanMs))

  /**
   * A place in the pool or its queue.
   * @param isKnown somebody who has been here before, and for whom places are kept when strangers fill all others
   * @throws AppError sign_in_busy when it is full
   */
  function admit(isKnown = false): HashTicket {
    const queue = longestQueue()
    if (admitted >= concurrency + queue + (isKnown ? Math.ceil(queue / 2) : 0))
      throw new AppError('sign_in_busy', { retryAfterSeconds: 1 })
    admitted++
    let isHeld = true
    return {
      release() {
        if (isHeld) admitted--
        isHeld = false
      },
    }
  }

  async function run<T>(work: () => Promise<T>): Promise<T> {
    if (running >= concurrency) await new Promise<void>((resolve) => waiting.push(resolve))
    else running++
    const began = performance.now()
    try {
      return await work()
    } finally {
      meanMs += WEIGHT_OF_ONE * (performance.now() - began - meanMs)
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }

  async function hashNow(password: string): Promise<string> {
    const phc = await argon2.hash(prepare(password), { ...options, ...(pepper && { secret: pepper.secret }) })
    return `${pepper?.id ?? ''}${phc}`
  }

  /** How to verify a stored hash; a sentence's end when there is no way to. */
  function readStored(stored: string): ((password: string) => Promise<boolean>) | string {
    const { pepperId, phc } = partsOf(stored)
    if (phc === undefined) {
      const foreign = readForeignHash(stored)
      return typeof foreign === 'string' ? foreign : async (password) => await foreign.matches(password)
    }
    if (pepperId === undefined) return async (password) => await argon2.verify(phc, prepare(password))
    const key = peppers.get(pepperId)
    if (!key) return 'was made with another PASSWORD_PEPPER'
    return async (password) => await argon2.verify(phc, prepare(password), { secret: key.secret })
  }

  // Verified when there is no user, so that an unknown email costs what a known one does (ASVS 6.3.8).
  const decoy = randomBytes(16).toString('base64')
  let decoyHash: Promise<string> | undefined
  const hashOfDecoy = async (): Promise<string> => {
    decoyHash ??= run(async () => await hashNow(decoy)).catch((error: unknown) => {
      decoyHash = undefined
      throw error
    })
    return await decoyHash
  }

  return {
    admit,

    /**
     * The PHC string of the password, with the name of the pepper before it where there is one.
     * @param held a place in the pool that the caller has
     * @throws AppError sign_in_busy
     */
    async hash(password: string, held?: HashTicket): Promise<string> {
      const ticket = held ?? admit()
      try {
        return await run(async () => await hashNow(password))
      } finally {
        if (!held) ticket.release()
      }
    },

    /**
     * True when `password` is the one hashed, by us or by a program whose users were imported. Without a hash, or with
     * one that cannot be verified, the same work and false. Needs a ticket.
     * @param like where there is no hash, one whose cost is taken: that of somebody who could be meant
     */
    async verify(hash: string | undefined, password: string, like?: string): Promise<boolean> {
      const stored = hash ?? like ?? (await hashOfDecoy())
      const read = readStored(stored)
      if (typeof read !== 'string') {
        try {
          const matches = await run(async () => await read(password))
          return matches && hash !== undefined
        } catch (error) {
          // Ours can always be verified, unless something else is wrong.
          if (partsOf(stored).phc !== undefined) throw error
          warn({ err: error }, 'a stored password hash cannot be verified')
        }
      } else if (hash !== undefined) warn({ reason: read }, 'a stored password hash cannot be verified')
      const instead = await hashOfDecoy()
      await run(async () => await argon2.verify(partsOf(instead).phc ?? '', prepare(password)))
      return false
    },

    /** A new password of 144 random bits or more, long enough for the rules. */
    generate(): string {
      return randomBytes(Math.max(18, Math.ceil((minLength * 3) / 4))).toString('base64url')
    },

    /** True when the hash was made with other parameters than today's, with another pepper or by another program. */
    needsRehash(hash: string): boolean {
      const { pepperId, phc } = partsOf(hash)
      return pepperId !== pepper?.id || !phc?.startsWith('$argon2id$') || argon2.needsRehash(phc, options)
    },

    /**
     * A hash of an import as it is stored, when it is one that can be verified within bounds.
     * @returns the hash, or in `fault` the end of a sentence that says why it is not taken
     */
    adopt(hash: string): { hash: string } | { fault: string } {
      // Django writes the name of its hasher before argon2's.
      const plain = hash.startsWith('argon2$') ? hash.slice('argon2'.length) : hash
      const { phc } = partsOf(plain)
      const read = readStored(plain)
      if (typeof read === 'string') return { fault: read }
      const cost = phc === undefined ? readForeignHash(plain) : readArgon2(phc)
      if (typeof cost === 'string') return { fault: cost }
      // Strangers have such hashes verified as well: unknown emails are given the work of those that are stored.
      const mostKib = Math.max(parameters.memoryKib, parameters.importMemoryKib ?? 0)
      return cost.memoryKib <= mostKib
        ? { hash: plain }
        : { fault: `takes ${cost.memoryKib} KiB to verify, and PASSWORD_IMPORT_MEMORY_KIB is ${mostKib}` }
    },

    /** The name of the pepper that new hashes are made with, and of all that hashes can be verified with. */
    pepperIds: { current: pepper?.id, known: [...peppers.keys()] },

    /** Makes the decoy hash ahead, so that the first unknown email takes no longer than the next. */
    async warmUp(): Promise<void> {
      await hashOfDecoy()
    },

    /**
     * Checks a password that somebody chooses. Its length is counted in code points after NFC; there are no rules of
     * composition (SP 800-63B-4 §3.1.1.2).
     * @throws AppError validation_failed when it is too short or too long, password_blocklisted when it is one that
     * attackers would try
     */
    assertAcceptable(
      password: string,
      pointer = '/body/password',
      { words, needsSecondFactor = false }: OwnerTraits = {},
    ): void {
      const shortest = needsSecondFactor ? Math.min(minLength, minLengthWithMfa) : minLength
      const length = Array.from(prepare(password)).length
      if (length < shortest) refuse(pointer, `must have at least ${shortest} characters`)
      if (length > MAX_CODE_POINTS) refuse(pointer, `must have at most ${MAX_CODE_POINTS} characters`)
      if (Buffer.byteLength(password) > MAX_BYTES) refuse(pointer, `must have at most ${MAX_BYTES} bytes`)
      const fault = blocklist?.faultOf(password, words)
      if (fault !== undefined) {
        throw new AppError('password_blocklisted', {
          detail: `The password ${fault}`,
          errors: [{ pointer, detail: fault }],
        })
      }
    },
  }
}

/** Unicode has several spellings for one letter; NFC makes them one (SP 800-63B-4 §3.1.1.2). */
const prepare = (password: string): string => password.normalize('NFC')

function refuse(pointer: string, detail: string): never {
  throw new AppError('validation_failed', { errors: [{ pointer, detail }] })
}

/** A pepper as a key, and a name for it that tells nothing of it. */
function pepperOf(text: string): { id: string; secret: Buffer } {
  const mac = createHmac('sha256', text).update('the name of a password pepper').digest('base64url')
  return { id: mac.slice(0, PEPPER_ID_LENGTH), secret: Buffer.from(text) }
}

const PEPPER_ID_LENGTH = 8
const ARGON2 = new RegExp(`^([A-Za-z0-9_-]{${PEPPER_ID_LENGTH}})?(\\$argon2.*)$`)

/** An argon2 hash as it is stored: the name of its pepper, if it has one, and the PHC string. */
function partsOf(stored: string): { pepperId?: string | undefined; phc?: string | undefined } {
  const [, pepperId, phc] = ARGON2.exec(stored) ?? []
  return { pepperId, phc }
}
