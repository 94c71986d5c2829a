import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto'
import type { SigningAlgorithm } from './repository.ts'

/** The members that identify a key of each type, in the order that RFC 7638 §3.2 and RFC 8037 §2 hash them. */
const THUMBPRINT_MEMBERS = {
  EC: ['crv', 'kty', 'x', 'y'],
  RSA: ['e', 'kty', 'n'],
  OKP: ['crv', 'kty', 'x'],
} as const

/** SHA-256 thumbprint of a public JWK, base64url (RFC 7638). */
export function thumbprint(jwk: Record<string, unknown>): string {
  const members = THUMBPRINT_MEMBERS[jwk['kty'] as keyof typeof THUMBPRINT_MEMBERS]
  const canonical = JSON.stringify(Object.fromEntries(members.map((name) => [name, jwk[name]])))
  return createHash('sha256').update(canonical).digest('base64url')
}

/** A new key pair: PKCS #8 PEM of the private part, JWK of the public one with kid, alg and use. RSA has 2048 bits. */
export function generateKey(algorithm: SigningAlgorithm): {
  kid: string
  publicJwk: Record<string, unknown>
  privatePem: string
} {
  const { privateKey, publicKey } = generatePair(algorithm)
  const jwk = publicKey.export({ format: 'jwk' }) as Record<string, unknown>
  const kid = thumbprint(jwk)
  return {
    kid,
    publicJwk: { ...jwk, kid, alg: algorithm, use: 'sig' },
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

/** The public part of a private key, as SPKI PEM. */
export const publicPem = (privatePem: string): string =>
  createPublicKey(createPrivateKey(privatePem)).export({ type: 'spki', format: 'pem' }).toString()

function generatePair(algorithm: SigningAlgorithm): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (algorithm) {
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' })
    case 'RS256':
      return generateKeyPairSync('rsa', { modulusLength: 2048 })
    case 'EdDSA':
      return generateKeyPairSync('ed25519')
  }
}
