import { randomBytes } from 'node:crypto'
import argon2 from 'argon2'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'

/**
 * Longest password in code points and in bytes of UTF-8: above NIST's 64 (SP 800-63B-4 §3.1.1.2), and a bound on
 * what a stranger can make us hash. Longer ones are refused, never cut.
 */
const MAX_CODE_POINTS = 256
const MAX_BYTES = 1024

export type PasswordHasher = ReturnType<typeof createPasswordHasher>

/** A place in the hashing pool, taken before any other work of a sign-in. It must be released. */
export type HashTicket = { release(): void }

type Parameters = Pick<
  Config['passwords'],
  'minLength' | 'memoryKib' | 'timeCost' | 'parallelism' | 'concurrency' | 'queue'
>

/**
 * Hashes passwords with argon2id in a bounded pool: `concurrency` at a time, `queue` waiting; beyond that
 * everything is refused at once, so that a flood of sign-ins slows down nothing else.
 * Parameters: OWASP Password Storage Cheat Sheet, argon2id m=19456 t=2 p=1 or stronger.
 */
export function createPasswordHasher(parameters: Parameters) {
  const { concurrency, queue, minLength } = parameters
  const options = {
    type: argon2.argon2id,
    memoryCost: parameters.memoryKib,
    timeCost: parameters.timeCost,
    parallelism: parameters.parallelism,
  } as const
  let admitted = 0
  let running = 0
  const waiting: (() => void)[] = []

  /** @throws AppError sign_in_busy when the pool and its queue are full */
  function admit(): HashTicket {
    if (admitted >= concurrency + queue) throw new AppError('sign_in_busy', { retryAfterSeconds: 1 })
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
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }

  const hashNow = async (password: string): Promise<string> => await argon2.hash(prepare(password), options)
  // Verified when there is no user, so that an unknown email costs what a known one does (ASVS 6.3.8).
  const decoy = randomBytes(16).toString('base64')
  let decoyHash: Promise<string> | undefined

  return {
    admit,

    /** The PHC string of the password. @param held a place in the pool that the caller has. @throws AppError sign_in_busy */
    async hash(password: string, held?: HashTicket): Promise<string> {
      const ticket = held ?? admit()
      try {
        return await run(async () => await hashNow(password))
      } finally {
        if (!held) ticket.release()
      }
    },

    /** True when `password` is the one hashed. Without a hash, the same work and false. Needs a ticket. */
    async verify(hash: string | undefined, password: string): Promise<boolean> {
      decoyHash ??= run(async () => await hashNow(decoy))
      const against = hash ?? (await decoyHash)
      const matches = await run(async () => await argon2.verify(against, prepare(password)))
      return matches && hash !== undefined
    },

    /** A new password of 144 random bits or more, long enough for the rules. */
    generate(): string {
      return randomBytes(Math.max(18, Math.ceil((minLength * 3) / 4))).toString('base64url')
    },

    /** True when the hash was made with other parameters than today's. */
    needsRehash(hash: string): boolean {
      return argon2.needsRehash(hash, options)
    },

    /** Makes the decoy hash ahead, so that the first unknown email takes no longer than the next. */
    async warmUp(): Promise<void> {
      decoyHash ??= run(async () => await hashNow(decoy))
      await decoyHash
    },

    /**
     * @throws AppError validation_failed when the password is too short or too long, counted in code points after
     * NFC (SP 800-63B-4 §3.1.1.2). No rules of composition.
     */
    assertAcceptable(password: string, pointer = '/body/password'): void {
      const length = Array.from(prepare(password)).length
      if (length < minLength) refuse(pointer, `must have at least ${minLength} characters`)
      if (length > MAX_CODE_POINTS) refuse(pointer, `must have at most ${MAX_CODE_POINTS} characters`)
      if (Buffer.byteLength(password) > MAX_BYTES) refuse(pointer, `must have at most ${MAX_BYTES} bytes`)
    },
  }
}

/** Unicode has several spellings for one letter; NFC makes them one (SP 800-63B-4 §3.1.1.2). */
const prepare = (password: string): string => password.normalize('NFC')

function refuse(pointer: string, detail: string): never {
  throw new AppError('validation_failed', { errors: [{ pointer, detail }] })
}
