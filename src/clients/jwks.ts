import { createPublicKey, type KeyObject } from 'node:crypto'

/** Algorithms of signatures that others make for us to verify: assertions of clients, and DPoP proofs. */
export const PROOF_ALGORITHMS = ['ES256', 'EdDSA', 'PS256', 'RS256'] as const
export type ProofAlgorithm = (typeof PROOF_ALGORITHMS)[number]

/** A public key of somebody else, and the algorithms that it may be used with. */
export type PublicKey = { key: KeyObject; algorithms: readonly ProofAlgorithm[]; kid: string | undefined }

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']
const LEAST_RSA_BITS = 2048
/** Larger keys only cost time. */
const MOST_RSA_BITS = 4096

/**
 * The key of a JWK (RFC 7517), or a sentence that says what is wrong with it. Taken are EC keys on P-256, Ed25519 and
 * RSA with 2048 to 4096 bits, by their public members alone.
 */
export function readPublicJwk(jwk: Record<string, unknown>): PublicKey | string {
  if (PRIVATE_MEMBERS.some((member) => member in jwk)) return 'must hold no private key'
  if (jwk['use'] !== undefined && jwk['use'] !== 'sig') return 'must be for signatures'
  const { kty, crv, x, y, n, e } = jwk
  const members = kty === 'EC' ? { kty, crv, x, y } : kty === 'OKP' ? { kty, crv, x } : { kty, n, e }
  if (Object.values(members).some((member) => typeof member !== 'string' || member.length > 1024))
    return 'must have the members of an EC, OKP or RSA key'
  const key = importJwk(members)
  if (!key) return 'is not a valid public key'
  const fitting = algorithmsOf(key)
  const algorithms = jwk['alg'] === undefined ? fitting : fitting.filter((name) => name === jwk['alg'])
  if (algorithms.length === 0) return `must be a key for one of ${PROOF_ALGORITHMS.join(', ')}`
  return { key, algorithms, kid: typeof jwk['kid'] === 'string' ? jwk['kid'] : undefined }
}

function importJwk(members: Record<string, unknown>): KeyObject | undefined {
  try {
    return createPublicKey({ key: members as Record<string, string>, format: 'jwk' })
  } catch {
    return undefined
  }
}

function algorithmsOf(key: KeyObject): readonly ProofAlgorithm[] {
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'ec':
      return namedCurve === 'prime256v1' ? ['ES256'] : []
    case 'ed25519':
      return ['EdDSA']
    case 'rsa':
      return modulusLength >= LEAST_RSA_BITS && modulusLength <= MOST_RSA_BITS ? ['PS256', 'RS256'] : []
    default:
      return []
  }
}
