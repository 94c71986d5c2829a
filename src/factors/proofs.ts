import type { AuthenticationResponseJSON } from '@simplewebauthn/server'
import type { AnonymousCaller } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { AuthenticationMethod } from '../auth/sign-in.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { PasskeyAssertions, PersonalQuestion } from '../passkeys/assertions.ts'
import type { Caller } from '../principal.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { Vault } from '../vault.ts'
import type { TellOfFactor } from './notices.ts'
import { hashOfRecoveryCode } from './recovery-codes.ts'
import type { FactorsRepository, TotpRow } from './repository.ts'
import { stepOfCode } from './totp.ts'

/** A second factor, as it is shown: a code of the authenticator app, a recovery code or the signature of a passkey. */
export type Proof = { code: string } | { recoveryCode: string } | { passkey: AuthenticationResponseJSON }

type Asker = Caller | AnonymousCaller

export type Proofs = ReturnType<typeof createProofs>

type Dependencies = {
  database: Database
  factors: FactorsRepository
  passkeys: PasskeyAssertions
  users: UsersRepository
  audit: AuditRepository
  vault: Vault
  clock: Clock
  tell: TellOfFactor
}

/** What looks at second factors. Each code works once, whoever asks at the same time. Nothing here is throttled. */
export function createProofs({
  database,
  factors,
  passkeys,
  users,
  audit,
  vault,
  clock,
  tell,
}: Dependencies) {
  /** The time step of the code. @throws AppError invalid_code */
  function stepOf({ secretSealed, lastStep }: TotpRow, code: string): number {
    const secret = vault.open('totp', secretSealed)
    if (secret === undefined) throw new Error('the secret of an authenticator app cannot be opened')
    return stepOfCode(secret, code, clock.now(), lastStep) ?? fail('invalid_code')
  }

  async function useCode(userId: string, code: string): Promise<void> {
    await transact(database.db, async (tx) => {
      const totp = (await factors.findTotp(userId, tx)) ?? fail('invalid_code')
      if (!(await factors.useTotpStep(totp.id, stepOf(totp, code), tx))) throw new AppError('invalid_code')
    })
  }

  async function useRecoveryCode(caller: Asker, userId: string, code: string): Promise<void> {
    await transact(database.db, async (tx) => {
      if (!(await factors.useRecoveryCode(userId, hashOfRecoveryCode(code), tx)))
        throw new AppError('invalid_code')
      const user = (await users.findUser(userId, tx)) ?? fail('invalid_code')
      await audit.append(
        {
          action: 'recovery_code.used',
          caller,
          target: { type: 'user', id: userId },
          accountId: user.accountId,
        },
        tx,
      )
      await tell(user, 'recovery_code_used', tx)
    })
  }

  return {
    stepOf,

    /**
     * What the person has shown, as the claim `amr` has it; the code or signature is used up.
     * @param question what a passkey must have been asked, and whom
     * @throws AppError invalid_code, invalid_passkey
     */
    async verify(caller: Asker, proof: Proof, question: PersonalQuestion): Promise<AuthenticationMethod[]> {
      if ('passkey' in proof) {
        const { requestId = '', address = '' } = caller
        return await passkeys.verify(proof.passkey, question, { requestId, address })
      }
      if ('code' in proof) {
        await useCode(question.userId, proof.code)
        return ['otp']
      }
      await useRecoveryCode(caller, question.userId, proof.recoveryCode)
      return ['recovery']
    },
  }
}

/**
 * Whose failures the throttle counts: each kind of a person's factors by itself, so that guesses at one do not keep the
 * person from another one, and a new `mfa_token` gives no new guesses.
 */
export const identifierOf = (proof: Proof, userId: string): string =>
  `${'code' in proof ? 'totp' : 'recoveryCode' in proof ? 'recovery_code' : 'passkey'}|${userId}`

/** Of a code there are a million; recovery codes and signatures nobody guesses. */
export const isGuessable = (proof: Proof): boolean => 'code' in proof

/** Each of these of a person. */
export const identifiersOf = (userId: string): string[] =>
  ['totp', 'recovery_code', 'passkey', 'totp_enrolment'].map((kind) => `${kind}|${userId}`)
