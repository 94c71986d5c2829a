import type { Claims } from './claims.ts'
import { hasScope } from './claims.ts'
import type { ProofOfPossession } from './dpop.ts'
import { type NeededAuthentication, PosternError, type Scheme } from './errors.ts'
import type { Verifier } from './verifier.ts'

/** The parts of a request that say who sends it. */
export type Credentials = {
  authorization: string | undefined
  /** The DPoP header; more than one is none. */
  dpop: string | readonly string[] | undefined
  method: string
  /** Called only for tokens that are bound to a key: it costs more than all the rest. */
  url: () => string
}

const SCHEME = /^(bearer|dpop) +([^\s]+) *$/i
const BEARER = 'Bearer '

/** The token of a header in the form that nearly all have; the pattern would look at each character of it. */
function plainToken(authorization: string): string | undefined {
  if (!authorization.startsWith(BEARER)) return undefined
  const token = authorization.slice(BEARER.length)
  return token === '' || token.includes(' ') || token.includes('\t') ? undefined : token
}

/**
 * The claims of the token in the Authorization header, the only place where one is looked for (RFC 6750 §2.1, RFC 9449
 * §7.1); at once when that is possible.
 * @throws PosternError token_missing, and what the verifier throws
 */
export function claimsOf(verifier: Verifier, credentials: Credentials): Claims | Promise<Claims> {
  const { authorization = '' } = credentials
  const plain = plainToken(authorization)
  if (plain !== undefined) return verifier.verifyNow(plain)
  const [, scheme = '', token = ''] = SCHEME.exec(authorization) ?? []
  if (token === '')
    throw new PosternError('token_missing', 'Send an access token: Authorization: Bearer <token>')
  if (scheme.length !== 'dpop'.length) return verifier.verifyNow(token)
  const { dpop, method, url } = credentials
  const possession: ProofOfPossession = {
    scheme: 'DPoP',
    proof: typeof dpop === 'string' ? dpop : undefined,
    method,
    url: url(),
  }
  try {
    const claims = verifier.verifyNow(token, possession)
    return claims instanceof Promise ? claims.catch(refuseInDpop) : claims
  } catch (error) {
    return refuseInDpop(error)
  }
}

/** Whoever came with a proof is answered in its scheme (RFC 9449 §7.1). */
function refuseInDpop(error: unknown): never {
  if (!(error instanceof PosternError)) throw error
  throw new PosternError(error.code, error.message, { cause: error, scheme: 'DPoP' })
}

/** The scheme in which the token of these claims can only have come. */
const schemeOf = ({ cnf }: Claims): Scheme => (cnf?.jkt === undefined ? 'Bearer' : 'DPoP')

/** What was thrown, as an error: frameworks take what is none, such as `undefined`, for leave to go on. */
export const errorOf = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error('The check of the token has failed', { cause: thrown })

/**
 * Makes sure that the person of the token has authenticated as is needed, however long the token lives (RFC 9470). The
 * token of a client says nothing of that, and is refused.
 * @throws PosternError insufficient_authentication
 */
export function assertAuthentication(
  claims: Claims,
  needed: NeededAuthentication,
  now = Date.now() / 1000,
): void {
  const { acr, maxAgeSeconds, withoutRecovery = false } = needed
  const isStrong = acr === undefined || claims.acr === acr
  // Without a word of how it was, it may have been a recovery code.
  const isInPerson = !withoutRecovery || (claims.amr !== undefined && !claims.amr.includes('recovery'))
  const isRecent =
    maxAgeSeconds === undefined || (claims.auth_time !== undefined && now - claims.auth_time <= maxAgeSeconds)
  if (isStrong && isRecent && isInPerson) return
  throw new PosternError('insufficient_authentication', 'Authenticate again', {
    needed,
    scheme: schemeOf(claims),
  })
}

/**
 * Makes sure that the token may do `scope` in `account`; see `hasScope`.
 * @throws PosternError insufficient_scope
 */
export function assertScope(claims: Claims, scope: string, account?: string | null): void {
  if (hasScope(claims, scope, account)) return
  throw new PosternError(
    'insufficient_scope',
    `The token lacks the scope ${scope}${account === undefined ? '' : ' here'}`,
    { scope, scheme: schemeOf(claims) },
  )
}
