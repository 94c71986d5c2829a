import type { AuditEvent } from '../audit/events.ts'
import { type AuditRepository, entryOf } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { type Caller, sessionHolder, type UserPrincipal } from '../principal.ts'
import type { SessionsService } from '../sessions/service.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import { type EffectivePermissions, effective, grant, scopesNamed } from './grants.ts'
import type { HashTicket, PasswordHasher } from './passwords.ts'
import type { AuthRepository, SignInRow } from './repository.ts'
import type { Attempt, Throttle } from './throttle.ts'
import { FIRST_PARTY_CLIENT } from './tokens.ts'

export type SignIn = {
  email: string
  password: string
  /** Space-separated; narrows the token, never widens it. */
  scope?: string | undefined
  /** Key or id of the account that the token is for; default: the home account. */
  account?: string | undefined
  requestId: string
  address: string
  userAgent: string | undefined
}

export type SignedIn = {
  accessToken: string
  expiresInSeconds: number
  scope: string
  refreshToken: string
  /** Until the session ends if it is not refreshed. */
  refreshExpiresInSeconds: number
}

export type SignInOutcome = 'success' | 'refused' | 'throttled' | 'busy' | 'error'

type Dependencies = {
  database: Database
  attempts: AuthRepository
  throttle: Throttle
  passwords: PasswordHasher
  sessions: SessionsService
  users: UsersRepository
  usersService: UsersService
  audit: AuditRepository
  clock: Clock
  onSignIn: (outcome: SignInOutcome) => void
}

export function createAuthService(dependencies: Dependencies) {
  const { database, attempts, throttle, passwords, sessions, users, usersService, audit, clock, onSignIn } =
    dependencies
  const { db } = database

  async function signIn(input: SignIn): Promise<SignedIn> {
    const email = normalizeEmail(input.email)
    // The order is fixed: a place in the pool, the throttle, the look-up, the hash. Nothing that a stranger can
    // tell apart depends on whether the person exists.
    const ticket = passwords.admit()
    try {
      return await throttle.attempt(email, input.address, async (attempt) => {
        const person = await verifyPerson(email, input.password, ticket)
        const accountId = await chooseAccount(person, input.account)
        const granted = await grantOrForgive(person, accountId, input.scope, attempt)
        const begun = await startSession(person, accountId, input, attempt)
        // Hashing takes its time: what changed meanwhile is read again, what changes from now on ends the token.
        const hasChanged = begun.tokenVersion !== person.tokenVersion
        const holder = hasChanged ? ((await attempts.findForSignIn(email)) ?? person) : person
        const access = await sessions.issueAccessToken({
          userId: holder.id,
          sessionId: begun.session.id,
          clientId: FIRST_PARTY_CLIENT,
          tokenVersion: holder.tokenVersion,
          granted: hasChanged ? grant(holder, accountId, scopesNamed(input.scope)) : granted,
          roles: holder.roles,
          secondsLeft: begun.session.maxSeconds,
        })
        const { refreshToken, refreshExpiresInSeconds } = begun
        return { ...access, refreshToken, refreshExpiresInSeconds }
      })
    } finally {
      ticket.release()
    }
  }

  /** The person, if the password is right and they may sign in. A hash of old parameters is made anew. */
  async function verifyPerson(email: string, password: string, ticket: HashTicket): Promise<SignInRow> {
    const person = await attempts.findForSignIn(email)
    const isRight = await passwords.verify(person?.passwordHash ?? undefined, password)
    if (!person?.isActive || !isRight) throw new AppError('invalid_credentials')
    if (person.passwordHash && passwords.needsRehash(person.passwordHash)) {
      await users.rehash(person.id, person.passwordHash, await passwords.hash(password, ticket))
    }
    return person
  }

  /** An active account that the person belongs to; by default the home account, null for none. */
  async function chooseAccount(person: SignInRow, account: string | undefined): Promise<string | null> {
    if (account !== undefined) {
      return (await attempts.findMembership(person.id, account)) ?? fail('invalid_credentials')
    }
    if (!person.isAccountActive) throw new AppError('invalid_credentials')
    return person.accountId
  }

  /** What the token will carry. The password was right, so a refusal of the scopes is no failure to count. */
  async function grantOrForgive(
    person: SignInRow,
    accountId: string | null,
    scope: string | undefined,
    attempt: Attempt,
  ): Promise<EffectivePermissions> {
    try {
      const wanted = scopesNamed(scope)
      const granted = grant(person, accountId, wanted)
      if (wanted.length > 0 && granted.scopes.length === 0 && !person.mustChange)
        throw new AppError('invalid_scope')
      return granted
    } catch (error) {
      await attempt.succeed()
      throw error
    }
  }

  /** Begins a session and takes the attempt back. @throws AppError invalid_credentials when they changed meanwhile */
  async function startSession(
    person: SignInRow,
    accountId: string | null,
    input: SignIn,
    attempt: Attempt,
  ): Promise<ReturnType<SessionsService['begin']> & { tokenVersion: number }> {
    const { scope, userAgent, address, requestId } = input
    const begun = sessions.begin({
      userId: person.id,
      accountId,
      clientId: FIRST_PARTY_CLIENT,
      scope,
      userAgent,
      address,
    })
    const { id } = begun.session
    const event = entryOf({
      action: 'session.created',
      caller: { principal: sessionHolder(person.id, accountId, id), requestId, address },
      target: { type: 'user', id: person.id },
      accountId: accountId ?? person.accountId,
      details: { session_id: id },
    })
    const tokenVersion = await attempts.startSession(
      attempt.keys,
      begun.session,
      person.credentialsChangedAt,
      event,
    )
    if (tokenVersion === undefined) throw new AppError('invalid_credentials')
    return { ...begun, tokenVersion }
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
   * Records a refusal by the throttle. One row for an address and minute, whatever emails it tries: a stranger
   * who waits for nothing must not fill the disk.
   */
  async function recordThrottled(input: SignIn): Promise<void> {
    const from = throttle.pseudonym(`address|${input.address}`)
    await audit.appendRefusal(anonymousRefusal(input, 'throttled'), from, clock.now())
  }

  return {
    /**
     * Signs a person in and starts a session.
     * @throws AppError invalid_credentials for every refusal alike; too_many_requests; sign_in_busy;
     * invalid_scope and scope_too_large only after the password was right
     */
    async signIn(input: SignIn): Promise<SignedIn> {
      try {
        const signedIn = await signIn(input)
        onSignIn('success')
        return signedIn
      } catch (error) {
        onSignIn(outcomeOf(error))
        const code = error instanceof AppError ? error.code : undefined
        if (code === 'invalid_credentials') await recordRefusal(input)
        if (code === 'too_many_requests') await recordThrottled(input)
        throw error
      }
    },

    /**
     * Replaces the caller's own password. Every other session ends.
     * @throws AppError invalid_password, validation_failed, too_many_requests, sign_in_busy
     */
    async changePassword(
      caller: Caller,
      principal: UserPrincipal,
      current: string,
      next: string,
    ): Promise<void> {
      passwords.assertAcceptable(next, '/body/new_password')
      const ticket = passwords.admit()
      try {
        const credentials = await throttle.attempt(
          `change-password|${principal.userId}`,
          caller.address ?? '',
          async (attempt) => {
            const stored = await users.findCredentials(principal.userId)
            if (!(await passwords.verify(stored?.passwordHash ?? undefined, current)))
              throw new AppError('invalid_password')
            await attempt.succeed()
            return stored
          },
        )
        const hash = await passwords.hash(next, ticket)
        await transact(db, async (tx) => {
          const user = (await users.lockUser(principal.userId, tx)) ?? fail('user_not_found')
          const unchanged =
            (await users.findCredentials(user.id, tx))?.passwordHash === credentials?.passwordHash
          if (!unchanged) throw new AppError('conflict')
          await usersService.setPassword(caller, user, hash, false, tx, principal.sessionId)
        })
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
