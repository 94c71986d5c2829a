import type { AuditEvent } from '../audit/events.ts'
import { type AuditRepository, entryOf } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { effectiveScopes, GUEST } from '../permissions.ts'
import type { Caller, UserPrincipal } from '../principal.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import type { HashTicket, PasswordHasher } from './passwords.ts'
import type { AuthRepository, RoleAtSignIn, SignInRow } from './repository.ts'
import type { Attempt, Throttle } from './throttle.ts'
import { FIRST_PARTY_CLIENT, type TokenIssuer } from './tokens.ts'

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

export type SignedIn = { accessToken: string; expiresInSeconds: number; scope: string }

/** What a user may do in one account. */
export type EffectivePermissions = {
  accountId: string | null
  role: string
  roles: string[]
  scopes: string[]
}

/** The most that the scope claim may have, in bytes: tokens travel in headers. */
const MAX_SCOPE_BYTES = 4096

export type SignInOutcome = 'success' | 'refused' | 'throttled' | 'busy' | 'error'

type Dependencies = {
  database: Database
  attempts: AuthRepository
  throttle: Throttle
  passwords: PasswordHasher
  tokens: TokenIssuer
  users: UsersRepository
  usersService: UsersService
  audit: AuditRepository
  clock: Clock
  onSignIn: (outcome: SignInOutcome) => void
}

export function createAuthService(dependencies: Dependencies) {
  const { database, attempts, throttle, passwords, tokens, users, usersService, audit, clock, onSignIn } =
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
        return await issue(person, accountId, await startSession(person, accountId, input, attempt), granted)
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
      return grant(person, accountId, scope)
    } catch (error) {
      await attempt.succeed()
      throw error
    }
  }

  /** Begins a session and takes the attempt back; returns the session's id. */
  async function startSession(
    person: SignInRow,
    accountId: string | null,
    input: SignIn,
    attempt: Attempt,
  ): Promise<string> {
    const id = newId()
    const session = {
      id,
      userId: person.id,
      accountId,
      clientId: FIRST_PARTY_CLIENT,
      userAgent: input.userAgent?.slice(0, 512) ?? null,
      address: input.address,
      expiresAt: new Date(clock.now().getTime() + tokens.ttlSeconds * 1000),
    }
    const event = entryOf({
      action: 'session.created',
      caller: {
        principal: userCaller(person.id, accountId, id),
        requestId: input.requestId,
        address: input.address,
      },
      target: { type: 'user', id: person.id },
      accountId: accountId ?? person.accountId,
      details: { session_id: id },
    })
    await attempts.startSession(attempt.keys, session, event)
    return id
  }

  async function issue(
    person: SignInRow,
    accountId: string | null,
    sessionId: string,
    granted: EffectivePermissions,
  ): Promise<SignedIn> {
    const scope = granted.scopes.join(' ')
    const expiresInSeconds = lifetimeOf(person.roles, accountId, tokens.ttlSeconds, clock.now())
    const subject = {
      sub: person.id,
      client_id: FIRST_PARTY_CLIENT,
      scope,
      role: granted.role,
      roles: granted.roles,
      account_id: accountId,
      sid: sessionId,
      ver: person.tokenVersion,
    }
    return { accessToken: await tokens.issueAccessToken(subject, expiresInSeconds), expiresInSeconds, scope }
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
            if (!(await passwords.verify(stored?.passwordHash, current)))
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

const userCaller = (userId: string, accountId: string | null, sessionId: string): UserPrincipal => ({
  type: 'user',
  userId,
  sessionId,
  accountId,
  scopes: new Set(),
  mustChangePassword: false,
})

/** The part of the requested scopes that is held; without a request, all of it. */
function grant(
  person: SignInRow,
  accountId: string | null,
  requested: string | undefined,
): EffectivePermissions {
  if (person.mustChange) return { accountId, role: GUEST, roles: [], scopes: [] }
  const held = effective(person.roles, accountId)
  const wanted = (requested ?? '').split(' ').filter((scope) => scope !== '')
  const scopes = wanted.length === 0 ? held.scopes : held.scopes.filter((scope) => wanted.includes(scope))
  if (wanted.length > 0 && scopes.length === 0) throw new AppError('invalid_scope')
  const bytes = Buffer.byteLength(scopes.join(' '))
  if (bytes > MAX_SCOPE_BYTES) {
    throw new AppError('scope_too_large', {
      detail: `The scopes have ${bytes} bytes; name those needed in \`scope\`.`,
    })
  }
  return { ...held, scopes }
}

/** The seconds that a token may live: no longer than the first of the roles in it holds. */
function lifetimeOf(
  held: readonly RoleAtSignIn[],
  accountId: string | null,
  ttlSeconds: number,
  now: Date,
): number {
  const ends = rolesIn(held, accountId)
    .map(({ expiresAt }) => expiresAt)
    .filter((end) => end !== null)
    .map((end) => Math.floor((new Date(end).getTime() - now.getTime()) / 1000))
  return Math.max(1, Math.min(ttlSeconds, ...ends))
}

const rolesIn = (held: readonly RoleAtSignIn[], accountId: string | null): RoleAtSignIn[] =>
  held.filter((role) => role.accountId === null || role.accountId === accountId)

function effective(held: readonly RoleAtSignIn[], accountId: string | null): EffectivePermissions {
  const here = rolesIn(held, accountId)
  return {
    accountId,
    role: here.find((role) => role.isPrimary)?.key ?? GUEST,
    roles: [...new Set(here.map((role) => role.key))].sort(),
    scopes: effectiveScopes(here, accountId),
  }
}
