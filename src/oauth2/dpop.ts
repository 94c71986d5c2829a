import { createHash } from 'node:crypto'
import { readPublicJwk } from '../clients/jwks.ts'
import type { Clock } from '../clock.ts'
import { AppError, fail } from '../errors.ts'
import { thumbprint } from '../keys/jwk.ts'
import { readJws } from './jws.ts'
import type { OAuth2Repository } from './repository.ts'

/** The request that a proof must have been made for. `path` begins with a slash; a query in it is left out. */
export type ProvenRequest = { method: string; path: string; accessToken?: string }

/** Verifies DPoP proofs. */
export type DpopVerifier = ReturnType<typeof createDpopVerifier>

type Dependencies = { issuer: string; repository: OAuth2Repository; clock: Clock }

const TYPE = 'dpop+jwt'
const MAX_AGE_SECONDS = 60
const LONGEST_JTI = 256

/** Verifies proofs of possession (RFC 9449) at the addresses of this service. */
export function createDpopVerifier({ issuer, repository, clock }: Dependencies) {
  const { origin, pathname } = new URL(issuer)
  const base = `${origin}${pathname.replace(/\/$/, '')}`

  return {
    /**
     * The thumbprint (RFC 7638) of the key that a proof shows possession of, for this request and no other
     * (RFC 9449 §4.3). One statement notes its `jti`, so that it cannot be sent again.
     * @throws AppError invalid_dpop_proof
     */
    async verify(proof: string, { method, path, accessToken }: ProvenRequest): Promise<string> {
      const jws = readJws(proof) ?? refuse('is not a JWT')
      if (jws.header['typ'] !== TYPE) refuse(`must have the typ ${TYPE}`)
      const jwk = asObject(jws.header['jwk']) ?? refuse('must have its public key in the header')
      const key = readPublicJwk(jwk)
      if (typeof key === 'string') return refuse(`has a key that ${key}`)
      if (!jws.isSignedWith(key)) refuse('is not signed with the key in its header')
      const { jti, htm, htu, iat, ath } = jws.payload
      if (htm !== method) refuse('is for another method')
      if (typeof htu !== 'string' || normalized(htu) !== normalized(`${base}${path}`))
        refuse('is for another address')
      const now = clock.now().getTime() / 1000
      if (typeof iat !== 'number' || Math.abs(now - iat) > MAX_AGE_SECONDS)
        return refuse('was not made just now')
      if (accessToken !== undefined && ath !== hashOf(accessToken)) refuse('is for another access token')
      if (typeof jti !== 'string' || jti === '' || jti.length > LONGEST_JTI) refuse('must have a jti')
      const jkt = thumbprint(jwk)
      const expiresAt = new Date((iat + 2 * MAX_AGE_SECONDS) * 1000)
      if (!(await repository.useOnce('dpop_proof', `${jkt}|${jti}`, expiresAt))) refuse('was sent before')
      return jkt
    },
  }
}

const refuse = (reason: string): never => fail('invalid_dpop_proof', { detail: `The DPoP proof ${reason}` })

const asObject = (value: unknown): Record<string, unknown> | undefined =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined

const hashOf = (token: string): string => createHash('sha256').update(token, 'ascii').digest('base64url')

/** An address without query and fragment, in the one spelling of RFC 3986 §6.2.2 and §6.2.3. */
function normalized(address: string): string | undefined {
  if (!URL.canParse(address)) return undefined
  const { origin, pathname } = new URL(address)
  return `${origin}${pathname}`
}

/** @throws AppError invalid_token unless a token with this `cnf` may come with this proof of possession, or with none */
export function assertBoundTo(confirmed: { jkt: string } | undefined, proven: string | undefined): void {
  if (confirmed?.jkt !== proven) throw new AppError('invalid_token')
}
