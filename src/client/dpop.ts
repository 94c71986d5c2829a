import { createHash } from 'node:crypto'
import { isObject, readCompact } from './compact.ts'
import { PosternError, type Scheme } from './errors.ts'
import { ALGORITHMS, isSignedBy, type Jwk, keyOfJwk } from './keys.ts'

/** What a token that is bound to a key came with (RFC 9449 §7). */
export type ProofOfPossession = {
  /** The scheme of the Authorization header. */
  scheme: Scheme
  /** The DPoP header; `undefined` when there is none, or more than one. */
  proof: string | undefined
  method: string
  /** The URL that the client called, as it called it: behind a proxy not the one that this process sees. */
  url: string
}

const LONGEST_PROOF = 4096
/** How old a proof may be; and how much its clock may be ahead. */
const MAX_AGE_S = 60
const MAX_AHEAD_S = 5
/** The most proofs that are remembered at a time, twice over. Beyond, none is taken: one that is forgotten could come again. */
const REMEMBERED = 100_000

const refuse = (what: string): PosternError => new PosternError('proof_invalid', `The DPoP proof ${what}`)

/** Checks proofs of possession; remembers which it has seen. A process of its own does not know those of others. */
export function createProofChecker(nowSeconds: () => number, most = REMEMBERED) {
  let recent = new Set<string>()
  let older = new Set<string>()
  let turnedAt = nowSeconds()

  function useOnce(id: string, now: number): void {
    if (now - turnedAt > MAX_AGE_S + MAX_AHEAD_S) {
      older = recent
      recent = new Set()
      turnedAt = now
    }
    if (recent.has(id) || older.has(id)) throw refuse('has been used before')
    if (recent.size >= most) throw refuse('is one of too many within a minute')
    recent.add(id)
  }

  return {
    /**
     * Makes sure that whoever sent the token holds the key of `thumbprint` (RFC 9449 §4.3).
     * @throws PosternError proof_invalid
     */
    check(token: string, thumbprint: string, { proof, method, url }: ProofOfPossession): void {
      if (proof === undefined || proof.length > LONGEST_PROOF) throw refuse('is missing or too large')
      const compact = readCompact(proof)
      if (!compact) throw refuse('is no JWT')
      const { header, payload, data, signature } = compact
      const { jwk } = header
      if (header['typ'] !== 'dpop+jwt' || header['crit'] !== undefined) throw refuse('is of another kind')
      if (!isObject(jwk) || jwk['d'] !== undefined) throw refuse('has no public key')
      const key = keyOfJwk({ ...jwk, alg: header['alg'] }, ALGORITHMS)
      if (!key || !isSignedBy(key, data, signature)) throw refuse('is not signed by its key')
      if (thumbprintOf(jwk) !== thumbprint) throw refuse('is of another key than the token')
      const { htm, htu, iat, jti, ath } = payload
      if (htm !== method || typeof htu !== 'string' || !isSameTarget(htu, url))
        throw refuse('is for another request')
      if (ath !== createHash('sha256').update(token).digest('base64url')) throw refuse('is for another token')
      const now = nowSeconds()
      if (typeof iat !== 'number' || !(iat >= now - MAX_AGE_S && iat <= now + MAX_AHEAD_S))
        throw refuse('is too old or of the future')
      if (typeof jti !== 'string' || jti === '') throw refuse('has no jti')
      useOnce(idOf(thumbprint, jti), now)
    },
  }
}

const idOf = (thumbprint: string, jti: string): string =>
  createHash('sha256').update(`${thumbprint} ${jti}`).digest('base64url')

/** Without query and fragment, after normalisation (RFC 9449 §4.3). */
function isSameTarget(htu: string, url: string): boolean {
  const [claimed, actual] = [htu, url].map((text) => (URL.canParse(text) ? new URL(text) : undefined))
  return claimed !== undefined && claimed.origin === actual?.origin && claimed.pathname === actual.pathname
}

const THUMBPRINT_MEMBERS: Record<string, readonly string[]> = {
  EC: ['crv', 'kty', 'x', 'y'],
  RSA: ['e', 'kty', 'n'],
  OKP: ['crv', 'kty', 'x'],
}

/** RFC 7638 §3. */
function thumbprintOf(jwk: Jwk): string {
  const members = THUMBPRINT_MEMBERS[String(jwk['kty'])] ?? []
  const canonical = JSON.stringify(Object.fromEntries(members.map((name) => [name, jwk[name]])))
  return createHash('sha256').update(canonical).digest('base64url')
}
