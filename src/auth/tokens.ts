import { createPrivateKey, randomUUID, sign } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { KeysService, SigningKey } from '../keys/service.ts'

/** The client that acts for the subject of a token, its version, and who acted before it (RFC 8693 §4.1). */
export type Actor = { sub: string; ver: number; act?: Actor }

/** The claims of an access token (RFC 9068 §2.2). `account_id` is null for no account. */
export type AccessTokenClaims = {
  iss: string
  aud: string | string[]
  sub: string
  client_id: string
  iat: number
  exp: number
  jti: string
  scope: string
  /** Of people only. */
  role?: string
  roles: string[]
  account_id: string | null
  /** The session of a person. Without it the subject is a client. */
  sid?: string
  ver: number
  /** When, how and how strongly a person was authenticated last (RFC 9068 §2.2.1). */
  auth_time?: number
  amr?: readonly string[]
  acr?: string
  /** The key that the token is bound to (RFC 9449 §6.1). */
  cnf?: { jkt: string }
  act?: Actor
}

/** What differs from token to token; the rest is the issuer's. `aud` is this service unless it says otherwise. */
export type TokenSubject = Omit<AccessTokenClaims, 'iss' | 'aud' | 'iat' | 'exp' | 'jti'> & {
  aud?: string | string[]
}

/** The `typ` of an access token (RFC 9068 §2.1): no other JWT is taken for one. */
export const ACCESS_TOKEN_TYPE = 'at+jwt'
/** The claim `acr` of one factor and of two. */
export const ONE_FACTOR = 'urn:postern:acr:1'
export const TWO_FACTORS = 'urn:postern:acr:2'
/** The `client_id` of people who sign in at this service's own endpoints. */
export const FIRST_PARTY_CLIENT = 'first-party'

export type TokenIssuer = ReturnType<typeof createTokenIssuer>

type Dependencies = { keys: KeysService; issuer: string; audience: string; ttlSeconds: number; clock: Clock }

/** Issues access tokens (RFC 9068), signed with the current key and valid for `ttlSeconds`. */
export function createTokenIssuer({ keys, issuer, audience, ttlSeconds, clock }: Dependencies) {
  // Parsing a key costs ten times a signature.
  const signers = new Map<string, (claims: AccessTokenClaims) => string>()

  function signerOf(key: SigningKey): (claims: AccessTokenClaims) => string {
    const known = signers.get(key.kid)
    if (known) return known
    const signer = createSigner(key)
    signers.set(key.kid, signer)
    return signer
  }

  return {
    ttlSeconds,

    /**
     * An access token, signed with the current key and valid for so long from now (RFC 9068 §2): `ttlSeconds`, or
     * less when what it says holds for less.
     * @param latest seconds since 1970 that it does not outlive, whatever the clock shows when it is signed
     */
    async issueAccessToken(
      subject: TokenSubject,
      lifetimeSeconds = ttlSeconds,
      latest = Number.POSITIVE_INFINITY,
    ): Promise<string> {
      const key = await keys.currentKey()
      const iat = Math.floor(clock.now().getTime() / 1000)
      return signerOf(key)({
        iss: issuer,
        aud: audience,
        ...subject,
        iat,
        exp: Math.min(iat + lifetimeSeconds, latest),
        jti: randomUUID(),
      })
    },
  }
}

/** Writes JWTs in compact form, signed with the key (RFC 7515 §3.1, RFC 7518 §3.3 and §3.4, RFC 8037 §3.1). */
function createSigner({ kid, algorithm, privatePem }: SigningKey): (claims: AccessTokenClaims) => string {
  const header = base64url(JSON.stringify({ alg: algorithm, typ: ACCESS_TOKEN_TYPE, kid }))
  const digest = algorithm === 'EdDSA' ? null : 'sha256'
  const key = { key: createPrivateKey(privatePem), dsaEncoding: 'ieee-p1363' } as const
  return (claims) => {
    const input = `${header}.${base64url(JSON.stringify(claims))}`
    return `${input}.${sign(digest, Buffer.from(input), key).toString('base64url')}`
  }
}

const base64url = (text: string): string => Buffer.from(text).toString('base64url')
