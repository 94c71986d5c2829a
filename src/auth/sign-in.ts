import { createHash, randomBytes } from 'node:crypto'
import { entryOf } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { AppError, fail } from '../errors.ts'
import type { ChallengesRepository } from '../factors/challenges-repository.ts'
import type { VerificationGate } from '../mail-links/verification.ts'
import { sessionHolder } from '../principal.ts'
import type { SessionsService } from '../sessions/service.ts'
import {
  type EffectivePermissions,
  type Grantee,
  grant,
  isMultiFactor,
  type MfaRule,
  needsSecondFactor,
  scopesNamed,
} from './grants.ts'
import type { AuthRepository, ChosenAccount, SignInRow } from './repository.ts'
import type { Attempt, Throttle } from './throttle.ts'
import { FIRST_PARTY_CLIENT } from './tokens.ts'

/**
 * How somebody has shown who they are: values of the claim `amr`, by RFC 8176 but for `email` (a link that was mailed)
 * and `recovery` (a recovery code), which it has no name for. `mfa` stands beside two factors.
 */
export type AuthenticationMethod = 'pwd' | 'otp' | 'hwk' | 'swk' | 'user' | 'mfa' | 'email' | 'recovery'

/** What a sign-in asks for, and where it comes from. */
export type SignInContext = {
  /** Space-separated; narrows the token, never widens it. */
  scope?: string | undefined
  /** Key or id of the account that the token is for; default: the home account. */
  account?: string | undefined
  /** Whom the tokens of the session are for, and no other (RFC 8707); default: this service. */
  resource?: readonly string[] | undefined
  requestId: string
  address: string
  userAgent: string | undefined
  /** What tells that the device has signed in before. */
  deviceToken?: string | undefined
}

export type SignedIn = {
  accessToken: string
  expiresInSeconds: number
  scope: string
  refreshToken: string
  /** Until the session ends if it is not refreshed. */
  refreshExpiresInSeconds: number
  /** What makes the device known to the throttle; none for people without an email. */
  deviceToken: string | undefined
}

export type SignInOutcome = 'success' | 'challenged' | 'refused' | 'throttled' | 'busy' | 'error'

/** How long the second step of a sign-in may take. */
const MFA_TOKEN_SECONDS = 300

export type SignInCompletion = ReturnType<typeof createSignIn>

type Dependencies = {
  attempts: AuthRepository
  sessions: SessionsService
  challenges: ChallengesRepository
  mfaRule: MfaRule
  verificationGate: VerificationGate
  clock: Clock
  deviceTokenFor: Throttle['deviceTokenFor']
  onSignIn: (outcome: SignInOutcome) => void
}

/** The end of every sign-in, however it began. */
export function createSignIn({
  attempts,
  sessions,
  challenges,
  mfaRule,
  verificationGate,
  clock,
  deviceTokenFor,
  onSignIn,
}: Dependencies) {
  /** An active account that the person belongs to; by default the home account, null for none. */
  async function chooseAccount(person: SignInRow, account: string | undefined): Promise<ChosenAccount> {
    if (account !== undefined) {
      return (await attempts.findMembership(person.id, account)) ?? fail('invalid_credentials')
    }
    if (!person.isAccountActive) throw new AppError('invalid_credentials')
    return { id: person.accountId, isMfaRequired: person.isAccountMfaRequired }
  }

  /**
   * Notes what was shown and asked for, under a token for the second step: 256 random bits that open nothing else. It
   * is void as soon as the password or a factor changes.
   */
  async function demandSecondFactor(
    person: SignInRow,
    accountId: string | null,
    methods: readonly AuthenticationMethod[],
    { scope, resource }: SignInContext,
  ): Promise<AppError> {
    const mfaToken = randomBytes(32).toString('base64url')
    await challenges.insert({
      kind: 'mfa',
      userId: person.id,
      tokenHash: hashOfChallenge(mfaToken),
      data: {
        methods: [...methods],
        scope: scope ?? null,
        account: accountId,
        resource: resource ?? null,
        credentialsChangedAt: person.credentialsChangedAt?.toISOString() ?? null,
      },
      secondsToLive: MFA_TOKEN_SECONDS,
    })
    return new AppError('mfa_required', {
      extensions: { mfa_token: mfaToken, methods: person.secondFactors, expires_in: MFA_TOKEN_SECONDS },
    })
  }

  /** What the token will carry. @throws AppError invalid_scope, scope_too_large */
  function granting(
    grantee: Grantee,
    accountId: string | null,
    scope: string | undefined,
  ): EffectivePermissions {
    const wanted = scopesNamed(scope)
    const granted = grant(grantee, accountId, wanted)
    const isLimited = grantee.mustChange || grantee.isMfaMissing
    if (wanted.length > 0 && granted.scopes.length === 0 && !isLimited) throw new AppError('invalid_scope')
    return granted
  }

  /** What is asked for, if it can be given. Who it is was shown, so a refusal of that is no failure to count. */
  async function orForgive<T>(attempt: Attempt | undefined, chosen: () => T): Promise<T> {
    try {
      return chosen()
    } catch (error) {
      await attempt?.succeed()
      throw error
    }
  }

  /** Begins a session and takes the attempt back. @throws AppError invalid_credentials when they changed meanwhile */
  async function startSession(
    person: SignInRow,
    accountId: string | null,
    amr: readonly AuthenticationMethod[],
    audiences: readonly string[] | null,
    { scope, userAgent, address, requestId }: SignInContext,
    attempt: Attempt | undefined,
  ): Promise<ReturnType<SessionsService['begin']> & { tokenVersion: number }> {
    const begun = sessions.begin({
      userId: person.id,
      accountId,
      clientId: FIRST_PARTY_CLIENT,
      scope,
      audiences,
      amr,
      userAgent,
      address,
    })
    const { id } = begun.session
    const event = entryOf({
      action: 'session.created',
      caller: { principal: sessionHolder(person.id, accountId, id), requestId, address },
      target: { type: 'user', id: person.id },
      accountId: accountId ?? person.accountId,
      details: { session_id: id, amr },
    })
    const credentialsChangedAt =
      person.credentialsChangedAt ?? (await attempts.ensureCredentials(person.id)) ?? null
    const tokenVersion = await attempts.startSession(
      attempt?.keys,
      begun.session,
      credentialsChangedAt,
      event,
    )
    if (tokenVersion === undefined) throw new AppError('invalid_credentials')
    return { ...begun, tokenVersion }
  }

  return {
    /**
     * Signs in somebody who has shown `methods`: chooses the account, starts the session and issues its tokens. `mfa`
     * among the methods says that they are two factors, as those of a passkey are that has verified its user. What the
     * person must not have without two factors is not in the tokens.
     * @param attempt what the throttle has counted; taken back when this succeeds or demands a second factor
     * @throws AppError mfa_required with `mfa_token`, `methods` and `expires_in`, when one factor was shown and a second
     * one is enrolled; invalid_credentials for a person or account that is not active, an account one is no member of,
     * or credentials that changed meanwhile; invalid_scope, scope_too_large, invalid_target
     */
    async complete(
      person: SignInRow,
      methods: readonly AuthenticationMethod[],
      input: SignInContext,
      attempt?: Attempt,
    ): Promise<SignedIn> {
      if (!person.isActive) throw new AppError('invalid_credentials')
      verificationGate(person, input)
      const account = await chooseAccount(person, input.account)
      const audiences = await orForgive(attempt, () => sessions.audiencesOf(input.resource))
      if (hasSecondFactor(person) && !isMultiFactor(methods)) {
        await attempt?.succeed()
        const demand = await demandSecondFactor(person, account.id, methods, input)
        onSignIn('challenged')
        throw demand
      }
      const granteeOf = (row: SignInRow): Grantee => ({
        mustChange: row.mustChange,
        isMfaMissing: !isMultiFactor(methods) && needsSecondFactor(mfaRule, row.roles, account),
        roles: row.roles,
      })
      const granted = await orForgive(attempt, () => granting(granteeOf(person), account.id, input.scope))
      const begun = await startSession(person, account.id, methods, audiences, input, attempt)
      // Hashing takes its time: what changed meanwhile is read again, what changes from now on ends the token.
      const hasChanged = begun.tokenVersion !== person.tokenVersion
      const holder = hasChanged ? ((await attempts.findForSignInById(person.id)) ?? person) : person
      const access = await sessions.issueAccessToken({
        userId: holder.id,
        sessionId: begun.session.id,
        clientId: FIRST_PARTY_CLIENT,
        tokenVersion: holder.tokenVersion,
        granted: hasChanged ? grant(granteeOf(holder), account.id, scopesNamed(input.scope)) : granted,
        roles: holder.roles,
        audiences,
        amr: methods,
        authenticatedAt: clock.now(),
        secondsLeft: begun.session.maxSeconds,
      })
      onSignIn('success')
      const { refreshToken, refreshExpiresInSeconds } = begun
      const deviceToken = person.email === null ? undefined : deviceTokenFor(person.email)
      return { ...access, refreshToken, refreshExpiresInSeconds, deviceToken }
    },
  }
}

/** Whether a second factor is enrolled. Recovery codes stand in for one, and are none by themselves. */
const hasSecondFactor = ({ secondFactors }: Pick<SignInRow, 'secondFactors'>): boolean =>
  secondFactors.includes('totp') || secondFactors.includes('passkey')

/** How a challenge is stored: as SHA-256, which is enough for what cannot be guessed. */
export const hashOfChallenge = (token: string): string =>
  createHash('sha256').update(token).digest('base64url')
