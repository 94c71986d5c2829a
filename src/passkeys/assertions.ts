import type { AuthenticationResponseJSON } from '@simplewebauthn/server'
import type { AuditRepository } from '../audit/repository.ts'
import type { AuthenticationMethod } from '../auth/sign-in.ts'
import type { Clock } from '../clock.ts'
import { AppError } from '../errors.ts'
import type { Challenge, ChallengeKind, ChallengesRepository } from '../factors/challenges-repository.ts'
import {
  CHALLENGE_SECONDS,
  challengeIn,
  newChallenge,
  type RelyingParty,
  userHandleOf,
} from './relying-party.ts'
import type { CredentialDescriptor, PasskeyRow, PasskeysRepository } from './repository.ts'

/** What a challenge is asked for, and what the answer to it must belong to besides. */
export type Question = {
  kind: ChallengeKind
  userId?: string
  sessionId?: string
  /** The first step of a sign-in, or an email, as a hash. */
  boundTo?: string
}

/** A question to somebody who is known already. */
export type PersonalQuestion = Question & {
  userId: string
  /** Whether the authenticator must ask who uses it, because a passkey without that was shown before. */
  needsUserVerification?: boolean
}

export type Origin = { requestId: string; address: string }

export type PasskeyAssertions = ReturnType<typeof createPasskeyAssertions>

type Dependencies = {
  passkeys: PasskeysRepository
  challenges: ChallengesRepository
  relyingParty: RelyingParty
  audit: AuditRepository
  clock: Clock
}

/** Signatures by passkeys: asking for them, and what they show. Signs nobody in. */
export function createPasskeyAssertions(dependencies: Dependencies) {
  const { passkeys, challenges, relyingParty, audit, clock } = dependencies

  return {
    /** Notes a challenge of 256 bits, to be answered once within five minutes; `token` is what it is the hash of. */
    async ask({ boundTo, ...question }: Question): Promise<{ token: string; challenge: string }> {
      const asked = newChallenge()
      await challenges.insert({
        ...question,
        tokenHash: asked.challenge,
        data: boundTo === undefined ? {} : { boundTo },
        secondsToLive: CHALLENGE_SECONDS,
      })
      return asked
    },

    /** The challenge that a response answers, which nothing can answer again; undefined when it is none, or too old. */
    async take(
      kind: ChallengeKind,
      response: { response: { clientDataJSON: string } },
    ): Promise<(Challenge & { challenge: string }) | undefined> {
      const challenge = challengeIn(response)
      const asked = challenge === undefined ? undefined : await challenges.take(kind, challenge)
      return asked && challenge !== undefined ? { ...asked, challenge } : undefined
    },

    /** For `navigator.credentials.get` of somebody who is known already. @throws AppError passkey_not_found */
    async optionsFor({ needsUserVerification = false, ...question }: PersonalQuestion) {
      const own: CredentialDescriptor[] = await passkeys.listPasskeys(question.userId)
      if (own.length === 0) throw new AppError('passkey_not_found')
      const { challenge } = await this.ask(question)
      return await relyingParty.authenticationOptions(challenge, own, needsUserVerification)
    },

    /**
     * What the passkey of this person has shown: `hwk`, or `swk` when it is kept on more than one device (RFC 8176 §2),
     * and `user` and `mfa` when its authenticator has verified who uses it. The challenge is used up in any case.
     * @throws AppError invalid_passkey
     */
    async verify(
      response: AuthenticationResponseJSON,
      question: PersonalQuestion,
      origin: Origin,
    ): Promise<AuthenticationMethod[]> {
      const asked = await this.take(question.kind, response)
      const isMeant =
        asked?.userId === question.userId &&
        asked.sessionId === (question.sessionId ?? null) &&
        asked.data['boundTo'] === question.boundTo
      const passkey = isMeant ? await passkeys.findByCredentialId(response.id) : undefined
      if (!asked || passkey?.userId !== question.userId || !isHandleOf(response, passkey.userId, false))
        throw new AppError('invalid_passkey')
      const methods = await this.use(passkey, asked.challenge, response, origin)
      if (question.needsUserVerification && !methods.includes('user')) throw new AppError('invalid_passkey')
      return methods
    },

    /** Verifies a signature by this passkey and records its use. @throws AppError invalid_passkey */
    async use(
      passkey: PasskeyRow,
      challenge: string,
      response: AuthenticationResponseJSON,
      { requestId, address }: Origin,
    ): Promise<AuthenticationMethod[]> {
      const assertion = await relyingParty.verifyAssertion(response, challenge, passkey)
      if (await passkeys.recordUse(passkey.id, assertion)) return methodsOf(passkey, assertion.isUserVerified)
      // It may have been removed meanwhile.
      if (!(await passkeys.findByCredentialId(passkey.credentialId))) throw new AppError('invalid_passkey')
      await audit.appendRefusal(
        {
          action: 'passkey.counter_regressed',
          caller: { principal: undefined, requestId, address },
          target: { type: 'user', id: passkey.userId },
          details: { passkey_id: passkey.id, counter: assertion.counter, last_counter: passkey.counter },
        },
        passkey.id,
        clock.now(),
      )
      throw new AppError('invalid_passkey')
    },
  }
}

/** RFC 8176 §2. */
const methodsOf = ({ deviceType }: PasskeyRow, isUserVerified: boolean): AuthenticationMethod[] => [
  deviceType === 'multiDevice' ? 'swk' : 'hwk',
  ...(isUserVerified ? (['user', 'mfa'] as const) : []),
]

/** Whether the authenticator names this user, which it must when nobody was named to it (WebAuthn §7.2, step 6). */
export function isHandleOf(
  { response }: AuthenticationResponseJSON,
  userId: string,
  isNeeded: boolean,
): boolean {
  const handle = response.userHandle ?? undefined
  if (handle === undefined) return !isNeeded
  return Buffer.from(handle, 'base64url').equals(userHandleOf(userId))
}

/** Whether a passkey was shown: another one, or the same once more, is no further factor by itself. */
export const isPossessionShown = (methods: readonly AuthenticationMethod[]): boolean =>
  methods.includes('hwk') || methods.includes('swk')
