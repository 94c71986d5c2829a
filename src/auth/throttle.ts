import { isIPv6 } from 'node:net'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import type { Vault } from '../vault.ts'
import type { AttemptKeys, AuthRepository } from './repository.ts'

/** An attempt that was let through. */
export type Attempt = {
  /** What it was counted under, for the statement that takes it back together with the rest of a sign-in. */
  keys: AttemptKeys
  succeed(): Promise<void>
}

export type Throttle = ReturnType<typeof createThrottle>

type Limits = Config['throttle'] & { registrationsPerAddressAndHour: number }
type Dependencies = {
  attempts: AuthRepository
  vault: Vault
  limits: Limits
  /** Who is counted, apart from everybody else: the failures of machines must not keep people out. */
  realm?: 'clients'
}

/**
 * Slows down guessing, in Postgres, so that it holds across processes and restarts: failures are counted for the
 * email from one address, for the email, and for the address; each has its own limit, after which waits begin and
 * double (OWASP Authentication Cheat Sheet; SP 800-63B-4 §3.2.2). An attempt is counted before the password is
 * looked at, and refused unseen while a wait lasts. Keys are HMACs: the table names nobody.
 */
export function createThrottle({ attempts, vault, limits, realm }: Dependencies) {
  const mac = (text: string): string =>
    vault.mac('identifiers', realm === undefined ? text : `${realm}|${text}`)
  // Attempts under way count as failures until they succeed. One fewer than the limit at a time, so that a burst
  // of right passwords (a job that signs in in parallel) is served one after the other, not refused.
  const turns = createTurns(Math.max(1, limits.maxFailures - 1))

  function keysOf(identifier: string, address: string): AttemptKeys {
    const byEmail = emailHash(identifier)
    const byAddress = mac(`address|${addressBlock(address)}`)
    return {
      // Begins with the email's own hash, so that all of an email's counters can be found.
      both: { limit: limits.maxFailures, keyHash: `${byEmail}.${byAddress}` },
      email: { limit: limits.maxFailuresPerEmail, keyHash: byEmail },
      address: { limit: limits.maxFailuresPerAddress, keyHash: byAddress },
    }
  }

  const emailHash = (identifier: string): string => mac(`email|${identifier}`)

  return {
    /**
     * Counts an attempt to sign in as a failure, and runs `work`, which takes it back with `succeed`.
     * @throws AppError too_many_requests while a wait lasts; the same for known and unknown identifiers
     */
    async attempt<T>(
      identifier: string,
      address: string,
      work: (attempt: Attempt) => Promise<T>,
    ): Promise<T> {
      const keys = keysOf(identifier, address)
      return await turns(`${identifier}|${address}`, async () => {
        const waitSeconds = await attempts.countAttempt(keys, limits.backoffSeconds)
        if (waitSeconds > 0) throw new AppError('too_many_requests', { retryAfterSeconds: waitSeconds })
        return await work({ keys, succeed: async () => await attempts.forgiveAttempt(keys) })
      })
    },

    /** Ends every wait that failures with this identifier have led to; those of addresses go on. */
    async forgive(identifier: string): Promise<void> {
      await attempts.forgiveEmail(emailHash(identifier))
    },

    /** Counts an open registration. @throws AppError too_many_requests */
    async registration(address: string): Promise<void> {
      const keyHash = mac(`registration|${addressBlock(address)}`)
      const waitSeconds = await attempts.countRegistration(keyHash, limits.registrationsPerAddressAndHour)
      if (waitSeconds > 0) throw new AppError('too_many_requests', { retryAfterSeconds: waitSeconds })
    },

    /** Something that identifies somebody, as the audit trail groups by it without telling what it is. */
    pseudonym: (text: string): string => mac(`pseudonym|${text}`),
  }
}

/** Runs at most `atOnce` works of one name at a time, the others in the order in which they came. */
function createTurns(atOnce: number) {
  const running = new Map<string, { count: number; waiting: (() => void)[] }>()
  return async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const line = running.get(name) ?? { count: 0, waiting: [] }
    running.set(name, line)
    if (line.count >= atOnce) await new Promise<void>((resolve) => line.waiting.push(resolve))
    else line.count++
    try {
      return await work()
    } finally {
      const next = line.waiting.shift()
      if (next) next()
      else if (--line.count === 0) running.delete(name)
    }
  }
}

/** The part of an address that one subscriber holds: an IPv4 address, or the /64 of an IPv6 one (RFC 6177). */
export function addressBlock(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped?.[1]) return mapped[1]
  if (!isIPv6(address)) return address
  const [head = '', tail] = (address.split('%')[0] ?? '').toLowerCase().split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail ? tail.split(':') : []
  const missing = tail === undefined ? 0 : 8 - left.length - right.length
  const groups = [...left, ...Array<string>(missing).fill('0'), ...right]
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`
}
