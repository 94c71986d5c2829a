import { randomBytes, timingSafeEqual } from 'node:crypto'
import { isIPv6 } from 'node:net'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import type { Vault } from '../vault.ts'
import { type AttemptKeys, type AuthRepository, MAX_CONSECUTIVE_FAILURES } from './repository.ts'

/** An attempt that was let through. */
export type Attempt = {
  /** What it was counted under, for the statement that takes it back together with the rest of a sign-in. */
  keys: AttemptKeys
  succeed(): Promise<void>
}

/** What is known of an attempt besides who is meant, and from where. */
type AttemptTraits = {
  /** What an earlier sign-in on the device has left; anything else in it counts for nothing. */
  deviceToken?: string | undefined
  /** Whose new password ends a stop, where the identifier is not an email. */
  ownerId?: string
  /** False of a secret that has too many bits to be guessed: failures lead to waits, but never to a stop. */
  isGuessable?: boolean
}

export type Throttle = ReturnType<typeof createThrottle>

type Limits = Config['throttle'] & { registrationsPerAddressAndHour: number }
type Dependencies = {
  attempts: AuthRepository
  vault: Vault
  limits: Limits
  clock: Clock
  /** Who is counted, apart from everybody else: the failures of machines must not keep people out. */
  realm?: 'clients' | 'second-factors'
}

/** How long a device is known after the last sign-in with it: as long as browsers keep a cookie (RFC 6265bis §5.5). */
export const DEVICE_LIFETIME_SECONDS = 400 * 86_400
/** So many passwords for one email from one address wait for their turn. */
const MOST_WAITING = 8
const STOPPED =
  'Too many attempts have failed. Wait and try again, sign in on a device that you have signed in on before or without a password, or have the password reset.'
const STOPPED_CODES =
  'Too many codes were wrong. Use another factor or a recovery code, or have an administrator reset the factors.'
const STOPPED_RETRY_SECONDS = 3600

/**
 * Slows down guessing, in Postgres, so that it holds across processes and restarts: failures are counted for the
 * email from one address, for the email, and for the address; each has its own limit, after which waits begin and
 * double (OWASP Authentication Cheat Sheet; SP 800-63B-4 §3.2.2). After `MAX_CONSECUTIVE_FAILURES` the password is
 * taken from known devices only, until it is replaced or somebody lifts the stop. An attempt is counted before the
 * password is looked at, and refused unseen while a wait lasts. Keys are HMACs: the table names nobody.
 *
 * A device is known when it presents the token that an earlier sign-in of the same person there has left. It has a
 * counter of its own, and strangers cannot hold it up (OWASP, Slow Down Online Guessing Attacks with Device Cookies).
 */
export function createThrottle({ attempts, vault, limits, clock, realm }: Dependencies) {
  const inRealm = (text: string): string => (realm === undefined ? text : `${realm}|${text}`)
  const mac = (text: string): string => vault.mac('identifiers', inRealm(text))
  // Attempts under way count as failures until they succeed. One fewer than the limit at a time, so that a burst
  // of right passwords (a job that signs in in parallel) is served one after the other, not refused. Passwords are
  // waited with in places of the pool that hashes, which are everybody's.
  const mostWaiting = realm === undefined ? MOST_WAITING : Number.POSITIVE_INFINITY
  const turns = createTurns(Math.max(1, limits.maxFailures - 1), mostWaiting)

  const emailHash = (identifier: string): string => mac(`email|${identifier}`)

  // What is near begins with the email's own hash, so that all of an email's counters can be found.
  function keysOf(identifier: string, address: string): AttemptKeys {
    const byEmail = emailHash(identifier)
    const byAddress = mac(`address|${addressBlock(address)}`)
    return {
      near: { kind: 'email_and_address', limit: limits.maxFailures, keyHash: `${byEmail}.${byAddress}` },
      email: { limit: limits.maxFailuresPerEmail, keyHash: byEmail },
      address: { limit: limits.maxFailuresPerAddress, keyHash: byAddress },
    }
  }

  function keysOfDevice(identifier: string, device: string): AttemptKeys {
    const byEmail = emailHash(identifier)
    return {
      near: { kind: 'device', limit: limits.maxFailures, keyHash: `${byEmail}.${mac(`device|${device}`)}` },
      email: { limit: limits.maxFailuresPerEmail, keyHash: byEmail },
      address: undefined,
    }
  }

  const proofOf = (identifier: string, device: string): string =>
    `device_token|${device}|${inRealm(identifier)}`

  /** The device that the token names, when it was given to a device of this very person. */
  function knownDevice(identifier: string, token: string | undefined): string | undefined {
    const [, device, issued, proof] = DEVICE_TOKEN.exec(token ?? '') ?? []
    if (device === undefined || issued === undefined || proof === undefined) return undefined
    const name = `${device}.${issued}`
    const isGenuine = vault
      .macs('identifiers', proofOf(identifier, name))
      .some((expected) => timingSafeEqual(Buffer.from(expected), Buffer.from(proof)))
    const ageSeconds = clock.now().getTime() / 1000 - Number.parseInt(issued, 36)
    return isGenuine && ageSeconds < DEVICE_LIFETIME_SECONDS ? device : undefined
  }

  async function countUnknown(
    identifier: string,
    keys: AttemptKeys,
    { ownerId, isGuessable = true }: AttemptTraits,
  ): Promise<void> {
    const { waitSeconds, isStopped } = await attempts.countAttempt(
      keys,
      ownerId === undefined ? { email: identifier } : { id: ownerId },
      limits.backoffSeconds,
      isGuessable ? MAX_CONSECUTIVE_FAILURES : null,
    )
    if (isStopped)
      throw new AppError('too_many_requests', {
        retryAfterSeconds: STOPPED_RETRY_SECONDS,
        detail: realm === 'second-factors' ? STOPPED_CODES : STOPPED,
      })
    if (waitSeconds > 0) throw new AppError('too_many_requests', { retryAfterSeconds: waitSeconds })
  }

  /** Counts the attempt, for the device while it is known. @throws AppError too_many_requests */
  async function admit(
    identifier: string,
    address: string,
    device: string | undefined,
    traits: AttemptTraits,
  ): Promise<AttemptKeys> {
    if (device !== undefined) {
      const ofDevice = keysOfDevice(identifier, device)
      if (await attempts.countDeviceAttempt(ofDevice)) return ofDevice
    }
    const keys = keysOf(identifier, address)
    await countUnknown(identifier, keys, traits)
    return keys
  }

  const countWithin = async (
    kind: CountKind,
    key: string,
    limit: number,
    windowSeconds: number,
  ): Promise<number> => await attempts.countWithin(kind, mac(`${kind}|${key}`), limit, windowSeconds)

  async function count(kind: CountKind, key: string, limit: number, windowSeconds: number): Promise<void> {
    const waitSeconds = await countWithin(kind, key, limit, windowSeconds)
    if (waitSeconds > 0) throw new AppError('too_many_requests', { retryAfterSeconds: waitSeconds })
  }

  return {
    /**
     * Counts an attempt to sign in as a failure, and runs `work`, which takes it back with `succeed`.
     * @throws AppError too_many_requests while a wait lasts, and after too many failures in a row; sign_in_busy when too
     * many passwords for the identifier are under way from there; the same for known and unknown identifiers
     */
    async attempt<T>(
      identifier: string,
      address: string,
      work: (attempt: Attempt) => Promise<T>,
      traits: AttemptTraits = {},
    ): Promise<T> {
      const device = knownDevice(identifier, traits.deviceToken)
      return await turns(`${identifier}|${device ?? addressBlock(address)}`, async () => {
        const keys = await admit(identifier, address, device, traits)
        return await work({ keys, succeed: async () => await attempts.forgiveAttempt(keys) })
      })
    },

    /** Whether the token is that of a known device of this person. Does no I/O. */
    isKnownDevice: (identifier: string, deviceToken: string | undefined): boolean =>
      knownDevice(identifier, deviceToken) !== undefined,

    /**
     * What makes the device known for `DEVICE_LIFETIME_SECONDS`, to be given to whoever has signed in. It names nobody,
     * and opens nothing: it only spares the device the waits that others have caused.
     * @param identifier as `attempt` takes it: the normalised email
     */
    deviceTokenFor(identifier: string): string {
      const issued = Math.floor(clock.now().getTime() / 1000).toString(36)
      const name = `${randomBytes(16).toString('base64url')}.${issued}`
      return `${name}.${vault.mac('identifiers', proofOf(identifier, name))}`
    },

    /** Ends every wait and stop that failures with this identifier have led to; those of addresses go on. */
    async forgive(identifier: string): Promise<void> {
      await attempts.forgiveEmail(emailHash(identifier))
    },

    /**
     * Counts one thing of a kind under a key: at most `limit` within `windowSeconds`, which begin with the first. To be
     * called before the thing is done, and alike for keys that exist and that do not. The key is kept as an HMAC.
     * @param windowSeconds up to a day
     * @throws AppError too_many_requests, with the rest of the window in Retry-After
     */
    count,

    /** The same, where it is no fault to be beyond the limit: whether the thing may be done. */
    isWithin: async (kind: CountKind, key: string, limit: number, windowSeconds: number): Promise<boolean> =>
      (await countWithin(kind, key, limit, windowSeconds)) === 0,

    /** Begins a count anew, as after a right code. */
    async forget(kind: CountKind, key: string): Promise<void> {
      await attempts.forgetCount(kind, mac(`${kind}|${key}`))
    },

    /** The part of an address that one subscriber holds, as the key of a count. */
    addressKey: addressBlock,

    /** Counts an open registration. @throws AppError too_many_requests */
    async registration(address: string): Promise<void> {
      await count('registration', addressBlock(address), limits.registrationsPerAddressAndHour, 3600)
    },

    /** Something that identifies somebody, as the audit trail groups by it without telling what it is. */
    pseudonym: (text: string): string => mac(`pseudonym|${text}`),
  }
}

/** What can be counted within a window. Not the names of the counters of `attempt`. */
export type CountKind =
  | 'registration'
  | 'password_reset'
  | 'email_verification'
  | 'email_change'
  | 'magic_link'
  | 'passkey'
  | 'invitation'
  | 'account'

/** Device, when it was issued (seconds, in base 36), MAC. */
const DEVICE_TOKEN = /^([A-Za-z0-9_-]{22})\.([0-9a-z]{1,10})\.([A-Za-z0-9_-]{43})$/

/**
 * Runs at most `atOnce` works of one name at a time, up to `mostWaiting` others in the order in which they came.
 * @throws AppError sign_in_busy for those beyond
 */
function createTurns(atOnce: number, mostWaiting: number) {
  const running = new Map<string, { count: number; waiting: (() => void)[] }>()
  return async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const line = running.get(name) ?? { count: 0, waiting: [] }
    if (line.waiting.length >= mostWaiting)
      throw new AppError('sign_in_busy', {
        retryAfterSeconds: 1,
        detail: 'Too many of the same person from one address are under way',
      })
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
