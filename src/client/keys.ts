import { createPublicKey, type KeyObject, verify as verifySignature } from 'node:crypto'

/** The algorithms that Postern signs with. */
export const ALGORITHMS = ['ES256', 'RS256', 'EdDSA'] as const
export type Algorithm = (typeof ALGORITHMS)[number]

/** A public key and the one algorithm that it is used with (RFC 8725 §3.1). */
export type VerificationKey = { algorithm: Algorithm; key: KeyObject }

export type Jwk = Record<string, unknown>

/** The public members of each type of key: nothing else of a JWK is looked at. */
const MEMBERS = {
  ES256: { kty: 'EC', crv: 'P-256', read: ['x', 'y'] },
  RS256: { kty: 'RSA', crv: undefined, read: ['n', 'e'] },
  EdDSA: { kty: 'OKP', crv: 'Ed25519', read: ['x'] },
} as const satisfies Record<Algorithm, { kty: string; crv: string | undefined; read: readonly string[] }>

const SMALLEST_RSA_BITS = 2048

/** The key that a JWK holds for one of `algorithms`; `undefined` when it is none that may verify signatures. */
export function keyOfJwk(jwk: Jwk, algorithms: readonly Algorithm[]): VerificationKey | undefined {
  const algorithm = algorithms.find((one) => MEMBERS[one].kty === jwk['kty'])
  if (algorithm === undefined || (jwk['alg'] !== undefined && jwk['alg'] !== algorithm)) return undefined
  if (jwk['use'] !== undefined && jwk['use'] !== 'sig') return undefined
  const { kty, crv, read } = MEMBERS[algorithm]
  if (jwk['crv'] !== crv) return undefined
  try {
    const members = Object.fromEntries(read.map((name) => [name, jwk[name]]))
    const key = createPublicKey({ key: { kty, ...(crv && { crv }), ...members }, format: 'jwk' })
    const bits = key.asymmetricKeyDetails?.modulusLength
    return bits !== undefined && bits < SMALLEST_RSA_BITS ? undefined : { algorithm, key }
  } catch {
    return undefined
  }
}

/** Whether `signature` is one of `data` by the key. ECDSA signatures are r and s side by side (RFC 7518 §3.4). */
export function isSignedBy({ algorithm, key }: VerificationKey, data: Buffer, signature: Buffer): boolean {
  switch (algorithm) {
    case 'ES256':
      return (
        signature.length === 64 &&
        verifySignature('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature)
      )
    case 'RS256':
      return verifySignature('sha256', data, key, signature)
    case 'EdDSA':
      return verifySignature(null, data, key, signature)
  }
}
