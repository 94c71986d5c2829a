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
import type { Attempt, Throttle } from '../auth/throttle.ts'
import type { Clock } from '../clock.ts'
import { AppError, fail, type ProblemCode } from '../errors.ts'
import { isPossessionShown } from '../passkeys/assertions.ts'
import type { Challenge, ChallengesRepository } from './challenges-repository.ts'
import { identifierOf, isGuessable, type Proof, type Proofs } from './proofs.ts'

/** The second step of a sign-in. What it is for was said in the first one. */
export type SecondStep = Omit<SignInContext, 'scope' | 'account' | 'resource'> & {
  mfaToken: string
  proof: Proof
}

/** The refusals that the audit trail tells of, as it does of those in the first step. */
const RECORDED: ReadonlySet<string> = new Set<ProblemCode>([
  'invalid_code',
  'invalid_passkey',
  'invalid_credentials',
  'too_many_requests',
])

/** Attempts that one `mfa_token` is good for. */
const MOST_ATTEMPTS = 5

type Dependencies = {
  challenges: ChallengesRepository
  attempts: AuthRepository
  proofs: Proofs
  signIn: SignInCompletion
  throttle: Throttle
  audit: AuditRepository
  clock: Clock
  onSignIn: (outcome: SignInOutcome) => void
}

/** Completes sign-ins with a second factor. */
export function createSecondStep(dependencies: Dependencies) {
  const { challenges, attempts, proofs, signIn, throttle, audit, clock, onSignIn } = dependencies

  async function verify(userId: string, { mfaToken, proof, ...context }: SecondStep): Promise<SignedIn> {
    const tokenHash = hashOfChallenge(mfaToken)
    const work = async (attempt: Attempt): Promise<SignedIn> => {
      const challenge =
        (await challenges.countAttempt('mfa', tokenHash, MOST_ATTEMPTS)) ?? fail('invalid_mfa_token')
      const asked = readChallenge(challenge)
      const person = (await attempts.findForSignInById(userId)) ?? fail('invalid_mfa_token')
      if (!isUnchanged(person, asked)) throw new AppError('invalid_mfa_token')
      const question = {
        kind: 'passkey_second_factor' as const,
        userId,
        boundTo: tokenHash,
        needsUserVerification: isPossessionShown(asked.methods),
      }
      const { requestId, address } = context
      const shown = await proofs.verify({ principal: undefined, requestId, address }, proof, question)
      if (!(await challenges.take('mfa', tokenHash))) throw new AppError('invalid_mfa_token')
      const methods = [...new Set([...asked.methods, ...shown, 'mfa' as const])]
      const { scope, account, resource } = asked
      return await signIn.complete(
        person,
        methods,
        {
          ...context,
          scope: scope ?? undefined,
          account: account ?? undefined,
          resource: resource ?? undefined,
        },
        attempt,
      )
    }
    const identifier = identifierOf(proof, userId)
    return await throttle.attempt(identifier, context.address, work, { isGuessable: isGuessable(proof) })
  }

  /** As refusals of the first step: repeats by one person within a minute share a row, and so do those of an address. */
  async function recordRefusal(code: string, userId: string, step: SecondStep): Promise<void> {
    const isThrottled = code === 'too_many_requests'
    await audit.appendRefusal(
      {
        action: 'sign_in.refused',
        caller: { principal: undefined, requestId: step.requestId, address: step.address },
        ...(!isThrottled && { target: { type: 'user', id: userId } }),
        details: { reason: isThrottled ? 'throttled' : code },
      },
      throttle.pseudonym(isThrottled ? `address|${throttle.addressKey(step.address)}` : `user|${userId}`),
      clock.now(),
    )
  }

  return {
    /**
     * Signs in whoever has shown the first factor, by the second one. The token of the first step works once, and for
     * five attempts at most.
     * @throws AppError invalid_mfa_token; invalid_code, invalid_passkey; too_many_requests; what
     * `SignInCompletion.complete` throws
     */
    async verify(step: SecondStep): Promise<SignedIn> {
      const found = await challenges.find('mfa', hashOfChallenge(step.mfaToken))
      const userId = found?.userId ?? fail('invalid_mfa_token')
      try {
        return await verify(userId, step)
      } catch (error) {
        const code = error instanceof AppError ? error.code : undefined
        onSignIn(code === undefined ? 'error' : code === 'too_many_requests' ? 'throttled' : 'refused')
        if (code !== undefined && RECORDED.has(code)) await recordRefusal(code, userId, step)
        throw error
      }
    },
  }
}

/** What the first step has noted. */
type Asked = {
  methods: AuthenticationMethod[]
  scope: string | null
  account: string | null
  resource: string[] | null
  credentialsChangedAt: string | null
}

// The row is of kind `mfa`, which nothing but the first step writes.
const readChallenge = ({ data }: Challenge): Asked => data as Asked

/** Whether the person may still sign in with what was shown in the first step. */
const isUnchanged = (person: SignInRow, { credentialsChangedAt }: Asked): boolean =>
  person.isActive && (person.credentialsChangedAt?.toISOString() ?? null) === credentialsChangedAt
