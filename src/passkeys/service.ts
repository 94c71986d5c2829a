import type { AuthenticationResponseJSON, RegistrationResponseJSON } from '@simplewebauthn/server'
import type { AuditRepository } from '../audit/repository.ts'
import type { AuthRepository, SignInRow } from '../auth/repository.ts'
import {
  type AuthenticationMethod,
  hashOfChallenge,
  type SignedIn,
  type SignInCompletion,
  type SignInContext,
  type SignInOutcome,
} from '../auth/sign-in.ts'
import type { Throttle } from '../auth/throttle.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Clock } from '../clock.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { ChallengesRepository } from '../factors/challenges-repository.ts'
import type { TellOfFactor } from '../factors/notices.ts'
import type { FactorsService } from '../factors/service.ts'
import { newId } from '../ids.ts'
import type { Caller, UserPrincipal } from '../principal.ts'
import type { SessionsRepository } from '../sessions/repository.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { Vault } from '../vault.ts'
import { isHandleOf, isPossessionShown, type PasskeyAssertions } from './assertions.ts'
import { plausibleCredentials } from './plausible-credentials.ts'
import { CHALLENGE_SECONDS, type RelyingParty } from './relying-party.ts'
import type { PasskeyRow, PasskeysRepository } from './repository.ts'

/** The most passkeys that one person may have. */
const MAX_PASSKEYS = 20
/** Pages ask for options when they are opened, before anybody has said that they want to sign in. */
const OPTIONS_PER_HOUR = 3000

export type PasskeySignIn = SignInContext & { challengeToken: string; response: AuthenticationResponseJSON }

type Dependencies = {
  database: Database
  passkeys: PasskeysRepository
  challenges: ChallengesRepository
  relyingParty: RelyingParty
  assertions: PasskeyAssertions
  users: UsersRepository
  sessions: SessionsRepository
  attempts: AuthRepository
  throttle: Throttle
  /** The most refused signatures of one address within an hour. */
  maxFailuresPerAddress: number
  signIn: SignInCompletion
  onSignIn: (outcome: SignInOutcome) => void
  factors: FactorsService
  audit: AuditRepository
  tell: TellOfFactor
  vault: Vault
  clock: Clock
}

/** Passkeys: credentials of WebAuthn Level 3, as the only factor, as two at once, or as the second one. */
export function createPasskeysService(dependencies: Dependencies) {
  const { database, passkeys, challenges, relyingParty, assertions, users, sessions } = dependencies
  const { attempts, throttle, maxFailuresPerAddress, signIn, onSignIn, factors, audit, tell, vault, clock } =
    dependencies
  const { db } = database

  /** How an email is noted in a challenge: without telling which one it is. */
  const emailPseudonym = (emailNormalized: string): string =>
    vault.mac('identifiers', `passkey_email|${emailNormalized}`)

  /** Whoever the signature signs in, by the passkey, and what it shows. */
  async function verifySignIn(
    input: PasskeySignIn,
  ): Promise<{ person: SignInRow; methods: AuthenticationMethod[] }> {
    const { response, challengeToken } = input
    const asked = await assertions.take('passkey_sign_in', response)
    if (asked?.challenge !== hashOfChallenge(challengeToken)) throw new AppError('invalid_passkey')
    const passkey = (await passkeys.findByCredentialId(response.id)) ?? fail('invalid_passkey')
    const { userId, emailNormalized } = passkey
    // With an email the passkey must be that person's: one's own passkey would otherwise tell whether the email of
    // somebody else is known.
    const email = asked.data['boundTo']
    const isMeant =
      email === undefined || (emailNormalized !== null && email === emailPseudonym(emailNormalized))
    if (!isMeant || !isHandleOf(response, userId, email === undefined)) throw new AppError('invalid_passkey')
    // Read before the passkey is used: if it is removed meanwhile, no session begins.
    const person = (await attempts.findForSignInById(userId)) ?? fail('invalid_passkey')
    return { person, methods: await assertions.use(passkey, asked.challenge, response, input) }
  }

  /** Each address may fail so often within an hour; what is right takes that back. */
  async function signInCounted(input: PasskeySignIn): Promise<SignedIn> {
    const failures = `failures|${throttle.addressKey(input.address)}`
    await throttle.count('passkey', failures, maxFailuresPerAddress, 3600)
    const { person, methods } = await verifySignIn(input)
    await throttle.forget('passkey', failures)
    return await signIn.complete(person, methods, input)
  }

  /** Repeats with one passkey within a minute share a row, and so do those of an address with unknown ones. */
  async function recordRefusal({ response, ...origin }: PasskeySignIn): Promise<void> {
    const passkey = await passkeys.findByCredentialId(response.id)
    if (!passkey) return await recordAnonymousRefusal(origin, 'invalid_passkey')
    await audit.appendRefusal(
      {
        action: 'sign_in.refused',
        caller: { principal: undefined, requestId: origin.requestId, address: origin.address },
        target: { type: 'user', id: passkey.userId },
        details: { reason: 'invalid_passkey', passkey_id: passkey.id },
      },
      passkey.id,
      clock.now(),
    )
  }

  async function recordAnonymousRefusal(
    { requestId, address }: Pick<PasskeySignIn, 'requestId' | 'address'>,
    reason: string,
  ): Promise<void> {
    await audit.appendRefusal(
      {
        action: 'sign_in.refused',
        caller: { principal: undefined, requestId, address },
        details: { reason },
      },
      throttle.pseudonym(`${reason}|${throttle.addressKey(address)}`),
      clock.now(),
    )
  }

  async function lockOwn({ userId }: UserPrincipal, tx: Tx): Promise<UserRow> {
    return (await users.lockUser(userId, tx)) ?? fail('user_not_found')
  }

  /** Whether somebody could still sign in with no more than these. */
  async function canSignInWith(userId: string, left: readonly PasskeyRow[], tx: Tx): Promise<boolean> {
    const hasPassword = ((await users.findCredentials(userId, tx))?.passwordHash ?? null) !== null
    return hasPassword || left.some(({ isUserVerifying }) => isUserVerifying)
  }

  return {
    /** The caller's own passkeys, oldest first. */
    listPasskeys: async ({ userId }: UserPrincipal): Promise<PasskeyRow[]> =>
      await passkeys.listPasskeys(userId),

    /**
     * For `navigator.credentials.create`; to be answered in the same session.
     * @throws AppError email_not_verified, limit_reached, too_many_requests
     */
    async registrationOptions({ userId, sessionId }: UserPrincipal) {
      await throttle.count('passkey', `options|${userId}`, OPTIONS_PER_HOUR, 3600)
      const user = (await users.findUser(userId)) ?? fail('user_not_found')
      await factors.assertMayEnrol(user)
      const existing = await passkeys.listPasskeys(userId)
      assertRoom(existing)
      const { challenge } = await assertions.ask({ kind: 'passkey_registration', userId, sessionId })
      const name = user.email ?? user.key
      return await relyingParty.registrationOptions(
        challenge,
        { id: userId, name, displayName: user.fullName ?? name },
        existing,
      )
    },

    /**
     * Registers a passkey; with the first second factor come recovery codes.
     * @throws AppError passkey_not_registered for every fault of the response; email_not_verified, passkey_exists,
     * limit_reached
     */
    async register(
      caller: Caller,
      principal: UserPrincipal,
      name: string,
      response: RegistrationResponseJSON,
    ): Promise<{ passkey: PasskeyRow; recoveryCodes: string[] | undefined }> {
      const asked = await assertions.take('passkey_registration', response)
      if (asked?.userId !== principal.userId || asked.sessionId !== principal.sessionId)
        throw new AppError('passkey_not_registered')
      const credential = await relyingParty.verifyRegistration(response, asked.challenge)
      return await transact(db, async (tx) => {
        const user = await lockOwn(principal, tx)
        await factors.assertMayEnrol(user, tx)
        assertRoom(await passkeys.listPasskeys(user.id, tx))
        const passkey = await passkeys.insertPasskey(
          { ...credential, id: newId(), userId: user.id, name },
          tx,
        )
        const recoveryCodes = await factors.onFactorAdded(caller, user, 'passkey', tx)
        await audit.append(
          {
            action: 'passkey.created',
            caller,
            target: { type: 'user', id: user.id },
            accountId: user.accountId,
            details: { passkey_id: passkey.id, is_user_verifying: passkey.isUserVerifying },
            personal: { name },
          },
          tx,
        )
        return { passkey, recoveryCodes }
      })
    },

    /** @throws AppError passkey_not_found */
    async renamePasskey(
      caller: Caller,
      principal: UserPrincipal,
      id: string,
      name: string,
    ): Promise<PasskeyRow> {
      return await transact(db, async (tx) => {
        const user = await lockOwn(principal, tx)
        const passkey = (await passkeys.renamePasskey(user.id, id, name, tx)) ?? fail('passkey_not_found')
        await audit.append(
          {
            action: 'passkey.updated',
            caller,
            target: { type: 'user', id: user.id },
            accountId: user.accountId,
            details: { passkey_id: id, fields: ['name'] },
            personal: { name },
          },
          tx,
        )
        return passkey
      })
    },

    /**
     * Removes a passkey. Every other session of the person ends: it may be a lost device that has one.
     * @throws AppError passkey_not_found; last_credential, when nobody could sign in any more; last_factor
     */
    async deletePasskey(caller: Caller, principal: UserPrincipal, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = await lockOwn(principal, tx)
        const own = await passkeys.listPasskeys(user.id, tx)
        const passkey = own.find((one) => one.id === id) ?? fail('passkey_not_found')
        const left = own.filter((one) => one.id !== id)
        if (!(await canSignInWith(user.id, left, tx))) throw new AppError('last_credential')
        await passkeys.deletePasskey(user.id, id, tx)
        await audit.append(
          {
            action: 'passkey.deleted',
            caller,
            target: { type: 'user', id: user.id },
            accountId: user.accountId,
            details: { passkey_id: id },
            personal: { name: passkey.name },
          },
          tx,
        )
        await factors.onFactorRemoved(caller, user, 'passkey', principal.sessionId, tx)
      })
    },

    /**
     * For `navigator.credentials.get` of somebody who is not signed in. With an email, its passkeys are named; of an
     * email that has none, as many as it could have are made up, always the same.
     * @throws AppError too_many_requests
     */
    async signInOptions(email: string | undefined, address: string) {
      await throttle.count('passkey', `options|${throttle.addressKey(address)}`, OPTIONS_PER_HOUR, 3600)
      const normalized = email === undefined ? undefined : normalizeEmail(email)
      const boundTo = normalized === undefined ? undefined : emailPseudonym(normalized)
      const { token, challenge } = await assertions.ask({
        kind: 'passkey_sign_in',
        ...(boundTo !== undefined && { boundTo }),
      })
      const known = normalized === undefined ? [] : await passkeys.listCredentialsOf(normalized)
      const madeUp = normalized === undefined ? [] : plausibleCredentials(vault, normalized)
      const options = await relyingParty.authenticationOptions(challenge, known.length > 0 ? known : madeUp)
      return { challengeToken: token, expiresInSeconds: CHALLENGE_SECONDS, options }
    },

    /**
     * Signs somebody in with a passkey. One that has verified its user is two factors; any other one is the first.
     * @throws AppError invalid_passkey for every refusal alike; too_many_requests; mfa_required, invalid_scope and
     * scope_too_large only after the signature was right
     */
    async signIn(input: PasskeySignIn): Promise<SignedIn> {
      try {
        return await signInCounted(input)
      } catch (error) {
        const code = error instanceof AppError ? error.code : undefined
        if (code === 'mfa_required') throw error
        onSignIn(code === undefined ? 'error' : code === 'too_many_requests' ? 'throttled' : 'refused')
        if (code === 'too_many_requests') await recordAnonymousRefusal(input, 'throttled')
        if (code !== 'invalid_passkey' && code !== 'invalid_credentials') throw error
        await recordRefusal(input)
        throw new AppError('invalid_passkey', { cause: error })
      }
    },

    /**
     * For the second step of a sign-in: the answer goes with `mfa_token` to where codes go.
     * @throws AppError invalid_mfa_token, passkey_not_found, too_many_requests
     */
    async secondFactorOptions(mfaToken: string) {
      const boundTo = hashOfChallenge(mfaToken)
      const { userId, data } = (await challenges.find('mfa', boundTo)) ?? fail('invalid_mfa_token')
      if (userId === null) throw new AppError('invalid_mfa_token')
      await throttle.count('passkey', `options|${userId}`, OPTIONS_PER_HOUR, 3600)
      return await assertions.optionsFor({
        kind: 'passkey_second_factor',
        userId,
        boundTo,
        needsUserVerification: isPossessionShown((data as { methods: AuthenticationMethod[] }).methods),
      })
    },

    /** For a step-up in the same session. @throws AppError passkey_not_found, too_many_requests */
    async stepUpOptions({ userId, sessionId }: UserPrincipal) {
      await throttle.count('passkey', `options|${userId}`, OPTIONS_PER_HOUR, 3600)
      return await assertions.optionsFor({ kind: 'passkey_step_up', userId, sessionId })
    },

    /**
     * Removes the caller's password: passkeys sign in alone from then on. Every other session ends.
     * @throws AppError no_password; no_passkey, without a passkey that verifies its user
     */
    async removePassword(caller: Caller, principal: UserPrincipal): Promise<void> {
      await transact(db, async (tx) => {
        const user = await lockOwn(principal, tx)
        const own = await passkeys.listPasskeys(user.id, tx)
        if (!own.some(({ isUserVerifying }) => isUserVerifying)) throw new AppError('no_passkey')
        if (!(await users.removePassword(user.id, tx))) throw new AppError('no_password')
        await sessions.endSessionsOf(user.id, 'password_changed', tx, principal.sessionId)
        await audit.append(
          {
            action: 'user.password_removed',
            caller,
            target: { type: 'user', id: user.id },
            accountId: user.accountId,
          },
          tx,
        )
        await tell(user, 'password_removed', tx)
      })
    },
  }
}

function assertRoom(existing: readonly PasskeyRow[]): void {
  if (existing.length >= MAX_PASSKEYS)
    throw new AppError('limit_reached', { detail: `A person may have ${MAX_PASSKEYS} passkeys` })
}
