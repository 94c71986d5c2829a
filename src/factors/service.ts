import type { AuditAction } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { isMultiFactor, type MfaRule, needsSecondFactorSomewhere } from '../auth/grants.ts'
import type { AuthRepository } from '../auth/repository.ts'
import type { AuthService } from '../auth/service.ts'
import type { AuthenticationMethod } from '../auth/sign-in.ts'
import type { Attempt, Throttle } from '../auth/throttle.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { Caller, UserPrincipal } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import type { SessionsRepository } from '../sessions/repository.ts'
import type { SessionsService } from '../sessions/service.ts'
import { refuseOneself, refuseTakeover, refuseTakeoverAcrossAccounts } from '../users/protection.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { Vault } from '../vault.ts'
import type { ChallengesRepository } from './challenges-repository.ts'
import type { TellOfFactor } from './notices.ts'
import { identifierOf, identifiersOf, isGuessable, type Proof, type Proofs } from './proofs.ts'
import { hashOfRecoveryCode, newRecoveryCode, RECOVERY_CODES } from './recovery-codes.ts'
import type { FactorsRepository, FactorsRow } from './repository.ts'
import { newTotpSecret, otpauthUrl } from './totp.ts'

/** The kinds of second factors. */
export type FactorKind = 'totp' | 'passkey'

/** Shown at a step-up: the password by whoever has nothing else, or a second factor. */
export type StepUpProof = { password: string } | Proof

export type Factors = FactorsRow & {
  /** Whether an account, a role or the configuration demands one of the person. */
  isRequired: boolean
}

export type FactorsService = ReturnType<typeof createFactorsService>

type Dependencies = {
  database: Database
  factors: FactorsRepository
  challenges: ChallengesRepository
  proofs: Proofs
  attempts: AuthRepository
  auth: AuthService
  throttle: Throttle
  users: UsersRepository
  roles: RolesService
  sessions: SessionsRepository
  sessionsService: SessionsService
  audit: AuditRepository
  vault: Vault
  tell: TellOfFactor
  /** Whether people can be asked to confirm their address. */
  mailsLinks: boolean
  mfaRule: MfaRule
  /** The name of the service in authenticator apps. */
  issuerName: string
  stepUpMaxAgeSeconds: number
}

/** What the person shows in a session when a factor of this kind is added in it. */
const SHOWN: Record<FactorKind, AuthenticationMethod[]> = { totp: ['otp', 'mfa'], passkey: ['hwk', 'mfa'] }

/** Second factors: enrolling and removing them, the codes that stand in for them, and showing them again. */
export function createFactorsService(dependencies: Dependencies) {
  const { database, factors, challenges, proofs, attempts, auth, throttle, users, roles } = dependencies
  const {
    sessions,
    sessionsService,
    audit,
    vault,
    tell,
    mailsLinks,
    mfaRule,
    issuerName,
    stepUpMaxAgeSeconds,
  } = dependencies
  const { db } = database

  const lockUser = async (userId: string, tx: Tx): Promise<UserRow> =>
    (await users.lockUser(userId, tx)) ?? fail('user_not_found')

  async function record(caller: Caller, user: UserRow, action: AuditAction, tx: Tx): Promise<void> {
    await audit.append(
      { action, caller, target: { type: 'user', id: user.id }, accountId: user.accountId },
      tx,
    )
  }

  /** Ends what was begun before a change of factors: other sessions (ASVS 7.4.3), and sign-ins under way. */
  async function changed(user: UserRow, exceptSession: string | undefined, tx: Tx): Promise<void> {
    await factors.noteChange(user.id, tx)
    await sessions.endSessionsOf(user.id, 'factor_changed', tx, exceptSession)
  }

  async function isRequired(userId: string, ex?: Executor): Promise<boolean> {
    if (await factors.isRequiredByAnAccount(userId, ex)) return true
    return needsSecondFactorSomewhere(mfaRule, await attempts.findRolesAtSignIn(userId, ex))
  }

  async function makeRecoveryCodes(userId: string, tx: Tx): Promise<string[]> {
    const codes = Array.from({ length: RECOVERY_CODES }, newRecoveryCode)
    await factors.replaceRecoveryCodes(userId, codes.map(hashOfRecoveryCode), tx)
    return codes
  }

  const sessionOf = ({ principal }: Caller): string | undefined =>
    principal.type === 'user' ? principal.sessionId : undefined

  return {
    /** What the person has enrolled, and whether something must be. */
    async getFactors(userId: string): Promise<Factors> {
      return { ...(await factors.findFactors(userId)), isRequired: await isRequired(userId) }
    },

    /**
     * Refuses a further factor for whoever has not shown that the email is theirs, where mails are sent: it would outlive
     * the password that the owner of the address sets.
     * @throws AppError email_not_verified
     */
    async assertMayEnrol({ id, email }: Pick<UserRow, 'id' | 'email'>, ex?: Executor): Promise<void> {
      if (mailsLinks && email !== null && !(await factors.isEmailVerified(id, ex)))
        throw new AppError('email_not_verified')
    },

    /**
     * Begins to enrol an authenticator app, which counts after its first code. One that counts goes on until then.
     * @throws AppError email_not_verified
     * @returns the secret in Base32, and the same as a URL for a QR code; neither is ever shown again
     */
    async beginTotp({ userId }: UserPrincipal): Promise<{ secret: string; otpauthUrl: string }> {
      const secret = newTotpSecret()
      const user = await transact(db, async (tx) => {
        const locked = await lockUser(userId, tx)
        await this.assertMayEnrol(locked, tx)
        await factors.replacePendingTotp(userId, vault.seal('totp', secret), tx)
        return locked
      })
      return { secret, otpauthUrl: otpauthUrl(issuerName, user.email ?? user.key, secret) }
    },

    /**
     * Has the authenticator app count that shows this code. Every other session of the person ends; this one has shown
     * two factors from now on.
     * @returns recovery codes when it is the first second factor
     * @throws AppError email_not_verified, factor_not_found, invalid_code, too_many_requests
     */
    async confirmTotp(
      caller: Caller,
      { userId }: UserPrincipal,
      code: string,
    ): Promise<string[] | undefined> {
      return await throttle.attempt(`totp_enrolment|${userId}`, caller.address ?? '', async (attempt) => {
        const codes = await transact(db, async (tx) => {
          const user = await lockUser(userId, tx)
          await this.assertMayEnrol(user, tx)
          const pending = (await factors.findPendingTotp(userId, tx)) ?? fail('factor_not_found')
          await factors.confirmTotp(userId, pending, proofs.stepOf(pending, code), tx)
          await record(caller, user, 'totp.enrolled', tx)
          return await this.onFactorAdded(caller, user, 'totp', tx)
        })
        await attempt.succeed()
        // A new secret has no failures: those that stopped the one before were of that.
        await throttle.forgive(identifierOf({ code }, userId))
        return codes
      })
    },

    /** @throws AppError factor_not_found, last_factor */
    async removeTotp(caller: Caller, { userId }: UserPrincipal): Promise<void> {
      await transact(db, async (tx) => {
        const user = await lockUser(userId, tx)
        if (!(await factors.findTotp(userId, tx))) throw new AppError('factor_not_found')
        await factors.deleteTotp(userId, tx)
        await record(caller, user, 'totp.removed', tx)
        await this.onFactorRemoved(caller, user, 'totp', sessionOf(caller), tx)
      })
    },

    /** New recovery codes in place of the old ones. @throws AppError no_second_factor */
    async renewRecoveryCodes(caller: Caller, { userId, sessionId }: UserPrincipal): Promise<string[]> {
      return await transact(db, async (tx) => {
        const user = await lockUser(userId, tx)
        const { totp, passkeys } = await factors.findFactors(userId, tx)
        if (!totp && passkeys === 0) throw new AppError('no_second_factor')
        const codes = await makeRecoveryCodes(userId, tx)
        await changed(user, sessionId, tx)
        await record(caller, user, 'recovery_codes.created', tx)
        await tell(user, 'recovery_codes_replaced', tx)
        return codes
      })
    },

    /**
     * To be called in the transaction that adds a second factor, after it was written, and by nothing else: every
     * other session of the person ends, that of the caller has shown two factors from now on, and the person is told.
     * The person's row must be locked. The audit row of the factor is for who calls this.
     * @returns the recovery codes that come with the first one, which are shown once
     */
    async onFactorAdded(
      caller: Caller,
      user: UserRow,
      kind: FactorKind,
      tx: Tx,
    ): Promise<string[] | undefined> {
      const sessionId = sessionOf(caller)
      await changed(user, sessionId, tx)
      if (sessionId !== undefined) await sessions.reauthenticate(sessionId, SHOWN[kind], tx)
      await tell(user, `${kind}_added`, tx)
      const { totp, passkeys, recoveryCodesLeft } = await factors.findFactors(user.id, tx)
      const isFirst = passkeys + (totp ? 1 : 0) === 1
      return isFirst && recoveryCodesLeft === 0 ? await makeRecoveryCodes(user.id, tx) : undefined
    },

    /**
     * To be called in the transaction that removes a second factor, after it was removed. With the last one the
     * recovery codes go.
     * @param exceptSession the one session that goes on
     * @throws AppError last_factor when one is required of the person and none is left
     */
    async onFactorRemoved(
      _caller: Caller,
      user: UserRow,
      kind: FactorKind,
      exceptSession: string | undefined,
      tx: Tx,
    ): Promise<void> {
      const { totp, passkeys } = await factors.findFactors(user.id, tx)
      if (!totp && passkeys === 0) {
        if (await isRequired(user.id, tx)) throw new AppError('last_factor')
        await factors.replaceRecoveryCodes(user.id, [], tx)
      }
      await changed(user, exceptSession, tx)
      await tell(user, `${kind}_removed`, tx)
    },

    /**
     * An administrator removes every second factor of somebody who has lost them; all sessions of the person end.
     * Whoever must have one enrols it at the next sign-in.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_belongs_to_other_accounts,
     * not_for_oneself
     */
    async resetFactors(caller: Caller, userId: string): Promise<void> {
      refuseOneself(caller, userId)
      await transact(db, async (tx) => {
        const user = await lockUser(userId, tx)
        await refuseTakeover(caller, userId, users, tx)
        await roles.assertCoversPerson(caller, userId, tx)
        await refuseTakeoverAcrossAccounts(caller, userId, 'postern.users:write', users, tx)
        await factors.deleteTotp(userId, tx)
        await factors.deletePasskeys(userId, tx)
        await factors.replaceRecoveryCodes(userId, [], tx)
        await factors.noteChange(userId, tx)
        await sessions.endSessionsOf(userId, 'factors_reset', tx)
        // Who has no password cannot sign in any more.
        await roles.assertSuperAdminStays(tx)
        await record(caller, user, 'user.factors_reset', tx)
        await tell(user, 'factors_reset', tx)
      })
      for (const identifier of identifiersOf(userId)) await throttle.forgive(identifier)
    },

    /**
     * The caller authenticates anew, so that what asks for that is open for a while: by the password where there is no
     * second factor, else by that.
     * @returns a further access token of the session, which says so
     * @throws AppError mfa_required for a password where there is a second factor; invalid_password, invalid_code,
     * invalid_passkey, factor_not_found, too_many_requests, sign_in_busy
     */
    async stepUp(
      caller: Caller,
      principal: UserPrincipal,
      proof: StepUpProof,
    ): ReturnType<SessionsService['reauthenticate']> {
      const methods =
        'password' in proof
          ? await this.showPassword(caller, principal, proof.password)
          : await this.showSecondFactor(caller, principal, proof)
      return await sessionsService.reauthenticate(caller, principal, methods)
    },

    async showPassword(
      caller: Caller,
      principal: UserPrincipal,
      password: string,
    ): Promise<AuthenticationMethod[]> {
      const { totp, passkeys } = await factors.findFactors(principal.userId)
      if (totp || passkeys > 0) throw new AppError('mfa_required')
      await auth.verifyOwnPassword(caller, principal, password)
      return ['pwd']
    },

    async showSecondFactor(
      caller: Caller,
      { userId, sessionId }: UserPrincipal,
      proof: Proof,
    ): Promise<AuthenticationMethod[]> {
      const question = { kind: 'passkey_step_up' as const, userId, sessionId }
      const work = async (attempt: Attempt): Promise<AuthenticationMethod[]> => {
        const methods = await proofs.verify(caller, proof, question)
        await attempt.succeed()
        // The session has begun with another factor.
        return [...methods, 'mfa']
      }
      const identifier = identifierOf(proof, userId)
      return await throttle.attempt(identifier, caller.address ?? '', work, {
        isGuessable: isGuessable(proof),
      })
    },

    /**
     * Refuses what is for people only who have authenticated within STEP_UP_MAX_AGE_SECONDS, with a second factor if
     * they have one (RFC 9470). Machines have nothing to show again, and pass.
     * @throws AppError reauthentication_required
     */
    async assertRecentAuthentication({ userId, sessionId }: UserPrincipal, ex?: Executor): Promise<void> {
      const shown = await sessions.findAuthentication(sessionId, ex)
      const isRecent = shown !== undefined && shown.ageSeconds <= stepUpMaxAgeSeconds
      if (isRecent && (isMultiFactor(shown.amr) || !(await this.hasSecondFactor(userId, ex)))) return
      throw new AppError('reauthentication_required', { maxAgeSeconds: stepUpMaxAgeSeconds })
    },

    async hasSecondFactor(userId: string, ex?: Executor): Promise<boolean> {
      const { totp, passkeys } = await factors.findFactors(userId, ex)
      return totp !== undefined || passkeys > 0
    },

    /** Seals under the SECRET_KEY of now what is sealed under the one before. */
    async reseal(ex: Executor): Promise<void> {
      for (const { id, secretSealed } of await factors.listSealed(ex)) {
        const sealed = vault.reseal('totp', secretSealed)
        if (sealed !== undefined) await factors.replaceSealed(id, secretSealed, sealed, ex)
      }
    },

    /** Removes challenges that have expired, and enrolments that were never confirmed. */
    async prune(): Promise<void> {
      await challenges.prune()
      await factors.prune()
    },
  }
}
