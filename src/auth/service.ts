import type { AuditEvent } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { Decoys } from '../passwords/decoys.ts'
import type { Caller, UserPrincipal } from '../principal.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import { type EffectivePermissions, effective } from './grants.ts'
import { ownPassword } from './locks.ts'
import type { HashTicket, PasswordHasher } from './passwords.ts'
import type { AuthRepository, SignInRow } from './repository.ts'
import type { SignedIn, SignInCompletion, SignInContext, SignInOutcome } from './sign-in.ts'
import type { Attempt, Throttle } from './throttle.ts'

export type SignIn = SignInContext & { email: string; password: string }

export type AuthService = ReturnType<typeof createAuthService>

type Dependencies = {
  database: Database
  attempts: AuthRepository
  throttle: Throttle
  passwords: PasswordHasher
  decoys: Decoys
  signIn: SignInCompletion
  users: UsersRepository
  usersService: UsersService
  audit: AuditRepository
  clock: Clock
  onSignIn: (outcome: SignInOutcome) => void
}

/** Sign-in with a password, registration and password changes, throttled and recorded. */
export function createAuthService(dependencies: Dependencies) {
  const {
    database,
    attempts,
    throttle,
    passwords,
    decoys,
    signIn,
    users,
    usersService,
    audit,
    clock,
    onSignIn,
  } = dependencies
  const { db } = database

  async function signInByPassword(input: SignIn): Promise<SignedIn> {
    const email = normalizeEmail(input.email)
    // The order is fixed: a place in the pool, the throttle, the look-up, the hash. Nothing that a stranger can
    // tell apart depends on whether the person exists.
    const ticket = passwords.admit(throttle.isKnownDevice(email, input.deviceToken))
    try {
      return await throttle.attempt(
        email,
        input.address,
        async (attempt) => {
          const person = await verifyPerson(email, input.password, ticket)
          return await signIn.complete(person, ['pwd'], input, attempt)
        },
        { deviceToken: input.deviceToken },
      )
    } finally {
      ticket.release()
    }
  }

  /** The person, if the password is right and they may sign in. A hash of old parameters is made anew. */
  async function verifyPerson(email: string, password: string, ticket: HashTicket): Promise<SignInRow> {
    const person = await attempts.findForSignIn(email)
    const decoy = await decoys.hashFor(email)
    const isRight = await passwords.verify(person?.passwordHash ?? undefined, password, decoy)
    if (!person?.isActive || !isRight) throw new AppError('invalid_credentials')
    if (person.passwordHash && passwords.needsRehash(person.passwordHash)) {
      await users.rehash(person.id, person.passwordHash, await passwords.hash(password, ticket))
    }
    return person
  }

  /** Records a refusal after the password was looked at. Repeats of one email within a minute share a row. */
  async function recordRefusal(input: SignIn): Promise<void> {
    const email = normalizeEmail(input.email)
    const userId = await users.findUserIdByEmail(email)
    await audit.appendRefusal(
      {
        ...anonymousRefusal(input, 'invalid_credentials'),
        ...(userId !== undefined && { target: { type: 'user', id: userId } }),
        personal: { email: input.email },
      },
      throttle.pseudonym(`email|${email}`),
      clock.now(),
    )
  }

  /**
   * Records a refusal by the throttle. One row for what one subscriber holds of the addresses, and minute,
   * whatever emails are tried: a stranger who waits for nothing must not fill the disk.
   */
  async function recordThrottled(input: SignIn): Promise<void> {
    const from = throttle.pseudonym(`address|${throttle.addressKey(input.address)}`)
    await audit.appendRefusal(anonymousRefusal(input, 'throttled'), from, clock.now())
  }

  /** The hash of the caller's password, if this is it. Needs a ticket. Guesses at it are counted, wherever they are made. */
  async function verifyOwn(
    { address = '' }: Caller,
    { userId }: UserPrincipal,
    password: string,
  ): Promise<string | null | undefined> {
    const work = async (attempt: Attempt): Promise<string | null | undefined> => {
      const stored = (await users.findCredentials(userId))?.passwordHash
      if (!(await passwords.verify(stored ?? undefined, password))) throw new AppError('invalid_password')
      await attempt.succeed()
      return stored
    }
    return await throttle.attempt(ownPassword(userId), address, work, { ownerId: userId })
  }

  return {
    /**
     * Signs a person in by password and starts a session.
     * @throws AppError invalid_credentials for every refusal alike; too_many_requests; sign_in_busy;
     * mfa_required, invalid_scope and scope_too_large only after the password was right
     */
    async signIn(input: SignIn): Promise<SignedIn> {
      try {
        return await signInByPassword(input)
      } catch (error) {
        const code = error instanceof AppError ? error.code : undefined
        if (code === 'mfa_required') throw error
        onSignIn(outcomeOf(error))
        if (code === 'invalid_credentials') await recordRefusal(input)
        if (code === 'too_many_requests') await recordThrottled(input)
        throw error
      }
    },

    /**
     * Replaces the caller's own password. Every other session ends.
     * @throws AppError invalid_password, validation_failed, password_blocklisted, too_many_requests, sign_in_busy
     */
    async changePassword(
      caller: Caller,
      principal: UserPrincipal,
      current: string,
      next: string,
    ): Promise<void> {
      const owner = await usersService.getUser(principal.userId)
      await usersService.assertPasswordFits(next, owner, '/body/new_password')
      const ticket = passwords.admit()
      try {
        const passwordHash = await verifyOwn(caller, principal, current)
        const hash = await passwords.hash(next, ticket)
        await transact(db, async (tx) => {
          const user = (await users.lockUser(principal.userId, tx)) ?? fail('user_not_found')
          const unchanged = (await users.findCredentials(user.id, tx))?.passwordHash === passwordHash
          if (!unchanged) throw new AppError('conflict')
          await usersService.setPassword(caller, user, hash, false, tx, principal.sessionId)
        })
      } finally {
        ticket.release()
      }
    },

    /** Checks the caller's own password. @throws AppError invalid_password, too_many_requests, sign_in_busy */
    async verifyOwnPassword(caller: Caller, principal: UserPrincipal, password: string): Promise<void> {
      const ticket = passwords.admit()
      try {
        await verifyOwn(caller, principal, password)
      } finally {
        ticket.release()
      }
    },

    /** What the user may do in an account now, by the stored roles. */
    async effectivePermissions(userId: string, accountId: string | null): Promise<EffectivePermissions> {
      return effective(await attempts.findRolesAtSignIn(userId), accountId)
    },

    /** The PHC string of a password, for administrators who prepare imports. @throws AppError sign_in_busy */
    async hashPassword(password: string): Promise<string> {
      passwords.assertAcceptable(password)
      return await passwords.hash(password)
    },

    /** Lets an email sign in again at once, whatever failures came before. */
    async forgiveFailures(email: string): Promise<void> {
      await throttle.forgive(normalizeEmail(email))
    },

    /** @throws AppError too_many_requests */
    registrationFrom: throttle.registration,
    prune: attempts.prune,
  }
}

const anonymousRefusal = ({ requestId, address }: SignIn, reason: string): AuditEvent => ({
  action: 'sign_in.refused',
  caller: { principal: undefined, requestId, address },
  details: { reason },
})

function outcomeOf(error: unknown): SignInOutcome {
  if (!(error instanceof AppError)) return 'error'
  if (error.code === 'too_many_requests') return 'throttled'
  return error.code === 'sign_in_busy' ? 'busy' : 'refused'
}
