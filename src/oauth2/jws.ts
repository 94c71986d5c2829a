import { constants, verify as verifySignature } from 'node:crypto'
import type { ProofAlgorithm, PublicKey } from '../clients/jwks.ts'

/** A JWT that somebody else has signed, read but not believed. */
export type Jws = {
  header: Record<string, unknown>
  payload: Record<string, unknown>
  /** True when it was signed with this key, by an algorithm that the key is for (RFC 8725 §3.1). */
  isSignedWith(key: PublicKey): boolean
}

const COMPACT = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/
const LONGEST = 8192

/** Reads a JWS in compact form (RFC 7515 §3.1); `undefined` for anything else, and for extensions we do not know. */
export function readJws(token: string): Jws | undefined {
  const [, head, body, tail] = (token.length <= LONGEST && COMPACT.exec(token)) || []
  if (head === undefined || body === undefined || tail === undefined) return undefined
  const [header, payload] = [readObject(head), readObject(body)]
  if (!header || !payload || 'crit' in header || 'b64' in header) return undefined
  return {
    header,
    payload,
    isSignedWith({ key, algorithms }) {
      const algorithm = algorithms.find((name) => name === header['alg'])
      if (algorithm === undefined) return false
      const signed = Buffer.from(`${head}.${body}`)
      const { digest, ...options } = PARAMETERS[algorithm]
      return verifySignature(digest, signed, { key, ...options }, Buffer.from(tail, 'base64url'))
    },
  }
}

/** RFC 7518 §3.3–3.5, RFC 8037 §3.1. */
const PARAMETERS = {
  ES256: { digest: 'sha256', dsaEncoding: 'ieee-p1363' },
  EdDSA: { digest: null },
  PS256: { digest: 'sha256', padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 },
  RS256: { digest: 'sha256', padding: constants.RSA_PKCS1_PADDING },
} as const satisfies Record<ProofAlgorithm, { digest: string | null } & Record<string, unknown>>

function readObject(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(UTF8.decode(Buffer.from(part, 'base64url')))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true })
