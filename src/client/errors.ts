import { ALGORITHMS } from './keys.ts'

/**
 * Why a request is not let in. Whoever wants to act on one compares `error.code`; messages may change.
 *
 * | code | status | meaning |
 * | --- | --- | --- |
 * | `token_missing` | 401 | there is no token |
 * | `token_malformed` | 401 | it is no JWT in compact form, or too large |
 * | `token_unsupported` | 401 | its header asks for what is not allowed: algorithm, `typ`, `crit`, a key of its own |
 * | `key_unknown` | 401 | its `kid` is none of the published ones |
 * | `signature_invalid` | 401 | |
 * | `claim_invalid` | 401 | a claim is missing, of the wrong type, or for somebody else |
 * | `token_expired` | 401 | |
 * | `token_not_yet_valid` | 401 | |
 * | `token_revoked` | 401 | its session, user, client or the token itself was ended |
 * | `proof_invalid` | 401 | it is bound to a key (RFC 9449), and the proof is missing or does not fit |
 * | `insufficient_authentication` | 401 | its person must authenticate again, or with two factors (RFC 9470) |
 * | `insufficient_scope` | 403 | the scope is missing, or held in another account |
 * | `keys_unavailable` | 503 | the key set cannot be read |
 * | `revocations_unknown` | 503 | it is not known what has been revoked, and the policy is to refuse then |
 * | `decision_unavailable` | 503 | Postern did not answer a question |
 */
export const STATUS = {
  token_missing: 401,
  token_malformed: 401,
  token_unsupported: 401,
  key_unknown: 401,
  signature_invalid: 401,
  claim_invalid: 401,
  token_expired: 401,
  token_not_yet_valid: 401,
  token_revoked: 401,
  proof_invalid: 401,
  insufficient_authentication: 401,
  insufficient_scope: 403,
  keys_unavailable: 503,
  revocations_unknown: 503,
  decision_unavailable: 503,
} as const satisfies Record<string, number>

export type ErrorCode = keyof typeof STATUS

/** How the person of a token must have authenticated. */
export type NeededAuthentication = {
  /** The claim `acr`: `urn:postern:acr:2` for two factors. */
  acr?: string
  /** The most seconds since, by the claim `auth_time`. */
  maxAgeSeconds?: number
  /** True: not by a recovery code, which has the same `acr` as what it stands in for. */
  withoutRecovery?: boolean
}

/** How a token comes: as RFC 6750 has it, or bound to a key (RFC 9449). */
export type Scheme = 'Bearer' | 'DPoP'

/** What a challenge says: which scope or authentication was missing, and the scheme that the token came in. */
type Challenged = { scope?: string; needed?: NeededAuthentication; scheme?: Scheme }

/** A refusal. 401 and 403 are the caller's fault; 503 is not: nothing is known against the token. */
export class PosternError extends Error {
  readonly code: ErrorCode
  /** The HTTP status to answer with. Fastify and Express find it by these names. */
  readonly statusCode: number
  readonly status: number
  /** Headers to answer with: the challenge of RFC 6750 §3 or RFC 9449 §7.1, or Retry-After. */
  readonly headers: Record<string, string>
  /** The scope that was missing. */
  readonly scope: string | undefined

  constructor(code: ErrorCode, message: string, options: Challenged & { cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'PosternError'
    this.code = code
    this.statusCode = STATUS[code]
    this.status = this.statusCode
    this.scope = options.scope
    this.headers = headersOf(code, options)
  }
}

/** What a challenge begins with: RFC 6750 §3 wants one parameter at least. */
const CHALLENGES: Record<Scheme, string> = {
  Bearer: 'Bearer realm="api"',
  DPoP: `DPoP realm="api", algs="${ALGORITHMS.join(' ')}"`,
}

function headersOf(
  code: ErrorCode,
  { scope, needed = {}, scheme = 'Bearer' }: Challenged,
): Record<string, string> {
  if (STATUS[code] === 503) return { 'retry-after': '1' }
  // A proof is asked for in its own scheme, whatever the token came as.
  const challenge = CHALLENGES[code === 'proof_invalid' ? 'DPoP' : scheme]
  return { 'www-authenticate': [challenge, ...parametersOf(code, scope, needed)].join(', ') }
}

function parametersOf(code: ErrorCode, scope: string | undefined, needed: NeededAuthentication): string[] {
  switch (code) {
    // Without a token the challenge names no error: the client may simply not have known (RFC 6750 §3.1).
    case 'token_missing':
      return []
    case 'proof_invalid':
      return ['error="invalid_dpop_proof"']
    case 'insufficient_authentication': {
      const { acr, maxAgeSeconds } = needed
      return [
        'error="insufficient_user_authentication"',
        ...(acr === undefined ? [] : [`acr_values="${acr}"`]),
        ...(maxAgeSeconds === undefined ? [] : [`max_age="${maxAgeSeconds}"`]),
      ]
    }
    case 'insufficient_scope':
      return ['error="insufficient_scope"', ...(scope === undefined ? [] : [`scope="${scope}"`])]
    default:
      return ['error="invalid_token"']
  }
}
