import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

/** Claims that every access token of Postern has (RFC 9068 §2.2); `exp` among them, or a token could last forever. */
const REQUIRED_CLAIMS = ['exp', 'iat', 'sub', 'jti', 'client_id', 'scope', 'account_id']

/** The algorithms that Postern signs with. A token that names another one is refused before its key is looked up. */
const ALGORITHMS = ['ES256', 'RS256', 'EdDSA']

/** What jose throws when the token is at fault. Everything else, such as a key set that cannot be read, is our trouble. */
const TOKEN_FAULTS = [
  errors.JOSEAlgNotAllowed,
  errors.JOSENotSupported,
  errors.JWKSMultipleMatchingKeys,
  errors.JWKSNoMatchingKey,
  errors.JWSInvalid,
  errors.JWSSignatureVerificationFailed,
  errors.JWTClaimValidationFailed,
  errors.JWTExpired,
  errors.JWTInvalid,
]

/**
 * Returns a function that verifies an access token and returns its claims.
 * @param {{ issuer: string, audience?: string, jwksUrl?: string, clockToleranceSeconds?: number }} options
 *   `issuer` is Postern's PUBLIC_URL; the audience is the same unless Postern's TOKEN_AUDIENCE says otherwise
 */
export function createTokenVerifier({
  issuer,
  audience = issuer,
  jwksUrl = `${issuer}/.well-known/jwks.json`,
  clockToleranceSeconds = 5,
}) {
  // Keys are fetched when the first token comes, kept for five minutes, and fetched again for an unknown `kid`.
  const keys = createRemoteJWKSet(new URL(jwksUrl), { cacheMaxAge: 300_000, timeoutDuration: 5000 })

  return async function verifyToken(token) {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: 'at+jwt',
      algorithms: ALGORITHMS,
      requiredClaims: REQUIRED_CLAIMS,
      clockTolerance: clockToleranceSeconds,
    })
    return payload
  }
}

/** A refusal with the challenge of RFC 6750 §3. Fastify answers with its `statusCode`. */
class Refusal extends Error {
  constructor(statusCode, message, headers = {}) {
    super(message)
    this.statusCode = statusCode
    this.headers = headers
  }
}

const challenge = (parameters = {}) => ({
  'www-authenticate': [
    'Bearer realm="posts"',
    ...Object.entries(parameters).map(([name, value]) => `${name}="${value}"`),
  ].join(', '),
})

/** The token of the Authorization header, the only place where one is looked for. */
function bearerToken(request) {
  const [, token] = /^bearer +(\S+) *$/i.exec(request.headers.authorization ?? '') ?? []
  // Without a token the challenge names no error: the client may simply not have known (RFC 6750 §3.1).
  if (!token) throw new Refusal(401, 'Send an access token: Authorization: Bearer <token>', challenge())
  return token
}

async function verified(verifyToken, token) {
  try {
    return await verifyToken(token)
  } catch (error) {
    if (TOKEN_FAULTS.some((fault) => error instanceof fault)) {
      throw new Refusal(401, 'The access token is not valid', challenge({ error: 'invalid_token' }))
    }
    throw new Refusal(503, 'The keys of the auth service cannot be read', { 'retry-after': '1' })
  }
}

/** Returns `requireScope('post:read')`: an onRequest hook that lets in who holds the scope, as `request.claims`. */
export function createGuard(verifyToken) {
  return (scope) => async (request) => {
    const claims = await verified(verifyToken, bearerToken(request))
    if (!claims.scope.split(' ').includes(scope)) {
      throw new Refusal(
        403,
        `The token lacks the scope ${scope}`,
        challenge({ error: 'insufficient_scope', scope }),
      )
    }
    request.claims = claims
  }
}
