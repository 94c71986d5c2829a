import { type Actor, type Claims, checkClaims, type Expectation } from './claims.ts'
import { type Compact, readCompact } from './compact.ts'
import { createProofChecker, type ProofOfPossession } from './dpop.ts'
import { PosternError } from './errors.ts'
import { type Credentials, followFeed } from './feed.ts'
import { createKeySet } from './jwks.ts'
import { ALGORITHMS, type Algorithm, isSignedBy, type VerificationKey } from './keys.ts'
import { createRevocationStore, type RevocationKey, revocationKey } from './revocations.ts'
import { createSeenTokens } from './seen-tokens.ts'

export type VerifierOptions = {
  /** Postern's PUBLIC_URL, exactly as tokens have it in `iss`. */
  issuer: string
  /** This service's own name: one of them must be in `aud`. */
  audience: string | readonly string[]
  /** Where the keys are. Default: `issuer` + `/.well-known/jwks.json`. */
  jwksUri?: string
  /**
   * How this service reads what has been revoked. Without it a token is good until it expires. `url` defaults to
   * `issuer` + `/api/v1/revocations`.
   */
  feed?: Credentials & { url?: string }
  /**
   * What happens while it is not known what has been revoked: `closed` (default) refuses every token with 503, `open`
   * goes on with what is known for `maxStalenessSeconds`, and refuses then.
   */
  onStale?: 'closed' | 'open'
  /** Knowledge that is older than this is stale. The feed says every ten seconds that nothing is missing. Default: 30. */
  staleAfterSeconds?: number
  /** How old knowledge may become with `open`. Default: 900, the life of an access token. */
  maxStalenessSeconds?: number
  /** How much clocks may differ. Default: 5; at most 300. */
  clockToleranceSeconds?: number
  /** Default: ES256, RS256 and EdDSA. A key is used with its own algorithm only. */
  algorithms?: readonly Algorithm[]
  /** Larger tokens are refused unread. Default: 8192. */
  maxTokenBytes?: number
  /** Verified tokens that are remembered; up to twice as many are held. Default: 10,000. */
  cachedTokens?: number
  /** Most revocations that are held, about 50 bytes each. Beyond, knowledge becomes stale. Default: 2,000,000. */
  maxRevocations?: number
  /** An unknown `kid` makes the verifier read the keys again at most so often. Default: 5. */
  jwksCooldownSeconds?: number
  /** For so long known keys are used while the key set cannot be read. Default: 3600. */
  jwksMaxStaleSeconds?: number
  /** Hears of what goes wrong in the background: the keys or the feed cannot be read. */
  onError?: (error: unknown) => void
  /** Milliseconds since 1970. Default: Date.now. */
  now?: () => number
}

/** A token that has been verified, and what is to be looked at each time it comes again. */
type Verified = {
  claims: Claims
  kid: string
  key: VerificationKey
  keyGeneration: number
  endings: readonly { key: RevocationKey; ver: number }[]
  revocationGeneration: number
}

export type Verifier = ReturnType<typeof createVerifier>

const LONGEST_KID = 256
const TOKEN_TYPES: readonly unknown[] = ['at+jwt', 'application/at+jwt']
/** Headers by which a token would choose its own key or its own rules. */
const REFUSED_HEADERS = ['crit', 'b64', 'jku', 'jwk', 'x5u', 'x5c', 'zip', 'enc']

/**
 * Verifies access tokens of one Postern without asking it (RFC 9068 §4, RFC 8725). Reads the keys and follows the feed
 * in the background until `close`.
 * @throws TypeError for options that would verify nothing
 */
export function createVerifier(options: VerifierOptions) {
  const {
    issuer,
    algorithms = ALGORITHMS,
    onStale = 'closed',
    staleAfterSeconds = 30,
    maxStalenessSeconds = 900,
    clockToleranceSeconds = 5,
    maxTokenBytes = 8192,
    onError = () => {},
    now = Date.now,
  } = options
  const audiences = [options.audience].flat()
  assertUsable({
    issuer,
    audiences,
    algorithms,
    onStale,
    clockToleranceSeconds,
    staleAfterSeconds,
    maxStalenessSeconds,
  })
  const expected: Expectation = { issuer, audiences, toleranceSeconds: clockToleranceSeconds }
  const nowSeconds = (): number => now() / 1000

  const keys = createKeySet({
    uri: options.jwksUri ?? `${issuer}/.well-known/jwks.json`,
    algorithms,
    cooldownSeconds: options.jwksCooldownSeconds ?? 5,
    maxStaleSeconds: options.jwksMaxStaleSeconds ?? 3600,
    onError,
  })
  const store = createRevocationStore({
    // Tokens are taken for so much longer than they say.
    nowSeconds: () => nowSeconds() - clockToleranceSeconds,
    limit: options.maxRevocations ?? 2_000_000,
  })
  const feed =
    options.feed &&
    followFeed({
      url: `${issuer}/api/v1/revocations`,
      ...options.feed,
      store,
      // What the withdrawn ones have signed is refused from now on; what their successor signs is to be known soon.
      onKeysWithdrawn: keys.reload,
      onError,
    })
  const seen = createSeenTokens<Verified>(options.cachedTokens ?? 10_000)
  const proofs = createProofChecker(nowSeconds)
  const createdAt = performance.now()
  void keys.ready().catch(() => {})

  /** @throws PosternError revocations_unknown */
  function assertKnowledge(): void {
    if (!feed) return
    const age = feed.ageSeconds()
    if (age <= staleAfterSeconds) return
    // Before anything is known it is as old as this verifier.
    const bounded = Math.min(age, (performance.now() - createdAt) / 1000)
    if (onStale === 'open' && bounded <= maxStalenessSeconds) return
    throw new PosternError('revocations_unknown', 'It is not known which tokens have been revoked')
  }

  function isRevoked(verified: Verified): boolean {
    const generation = store.generation()
    if (verified.revocationGeneration === generation) return false
    if (verified.endings.some(({ key, ver }) => store.ends(key, ver))) return true
    verified.revocationGeneration = generation
    return false
  }

  /** A key that is no longer published, or was last seen too long ago, verifies nothing that it has verified before. */
  function isKeyGone(verified: Verified): boolean {
    if (!keys.isUsable()) return true
    const generation = keys.generation()
    if (verified.keyGeneration === generation) return false
    const published = keys.known(verified.kid)
    if (!published?.key.equals(verified.key.key)) return true
    verified.keyGeneration = generation
    return false
  }

  /** What holds of a token each time it comes. */
  function admit(token: string, verified: Verified, possession: ProofOfPossession | undefined): Claims {
    const { claims } = verified
    assertKnowledge()
    if (claims.exp + clockToleranceSeconds <= nowSeconds()) {
      seen.forget(token)
      throw new PosternError('token_expired', 'The token has expired')
    }
    if (isRevoked(verified)) throw new PosternError('token_revoked', 'The token has been revoked')
    const thumbprint = claims.cnf?.jkt
    if (thumbprint !== undefined) {
      if (possession?.scheme !== 'DPoP')
        throw new PosternError('proof_invalid', 'The token is bound to a key and must come with a DPoP proof')
      proofs.check(token, thumbprint, possession)
    } else if (possession?.scheme === 'DPoP')
      throw new PosternError('proof_invalid', 'The token is not bound to a key')
    return claims
  }

  function verifyWith(
    token: string,
    compact: Compact,
    kid: string,
    key: VerificationKey | undefined,
    possession: ProofOfPossession | undefined,
  ): Claims {
    if (!key) throw new PosternError('key_unknown', 'The key of the token is not published')
    if (key.algorithm !== compact.header['alg'])
      throw new PosternError('token_unsupported', 'The key of the token has another algorithm')
    if (!isSignedBy(key, compact.data, compact.signature))
      throw new PosternError('signature_invalid', 'The signature of the token is wrong')
    const claims = checkClaims(compact.payload, expected, nowSeconds())
    const verified: Verified = {
      claims,
      kid,
      key,
      keyGeneration: keys.generation(),
      endings: feed ? [{ key: endingOf(key, kid), ver: 0 }, ...endingsOf(claims)] : [],
      revocationGeneration: -1,
    }
    seen.add(token, verified)
    return admit(token, verified, possession)
  }

  /**
   * The claims of a token that is good now, at once when its key is at hand, else as a promise. `possession` says what
   * the token came with; without it tokens that are bound to a key are refused.
   * @throws PosternError any code but insufficient_scope and decision_unavailable
   */
  function verifyNow(token: string, possession?: ProofOfPossession): Claims | Promise<Claims> {
    if (typeof token !== 'string' || token.length > maxTokenBytes)
      throw new PosternError('token_malformed', 'The token is too large')
    const known = seen.find(token)
    if (known && !isKeyGone(known)) return admit(token, known, possession)
    if (known) seen.forget(token)
    const compact = readCompact(token)
    if (!compact) throw new PosternError('token_malformed', 'The token is no JWT')
    const kid = kidOf(compact.header, algorithms)
    const key = keys.known(kid)
    if (key) return verifyWith(token, compact, kid, key, possession)
    return keys.find(kid).then((found) => verifyWith(token, compact, kid, found, possession))
  }

  return {
    verifyNow,

    /** As `verifyNow`, always as a promise. */
    verify: async (token: string, possession?: ProofOfPossession): Promise<Claims> =>
      await verifyNow(token, possession),

    /**
     * Once the keys are read and, with a feed, everything that has been revoked until now is known.
     * @throws PosternError keys_unavailable
     */
    async ready(): Promise<void> {
      await Promise.all([keys.ready(), feed?.ready()])
    },

    /** How old the knowledge of revocations is; Infinity before there is any, and without a feed. */
    knowledgeAgeSeconds: (): number => feed?.ageSeconds() ?? Number.POSITIVE_INFINITY,

    /** Revocations that are held, for metrics. */
    revocations: (): number => store.size(),

    /** Ends what runs in the background. */
    async close(): Promise<void> {
      keys.close()
      store.close()
      await feed?.close()
    },
  }
}

/** @throws PosternError token_unsupported */
function kidOf(header: Record<string, unknown>, algorithms: readonly Algorithm[]): string {
  const { alg, typ, kid } = header
  const isSupported =
    algorithms.some((one) => one === alg) &&
    TOKEN_TYPES.includes(typ) &&
    !REFUSED_HEADERS.some((name) => name in header)
  if (!isSupported || typeof kid !== 'string' || kid.length > LONGEST_KID)
    throw new PosternError('token_unsupported', 'The header of the token asks for what is not allowed')
  return kid
}

/** Made once for each key, because its hash takes longer than all the rest. */
const endingsOfKeys = new WeakMap<VerificationKey, RevocationKey>()

/** What would end every token of a key. */
function endingOf(key: VerificationKey, kid: string): RevocationKey {
  const known = endingsOfKeys.get(key) ?? revocationKey('key', kid)
  endingsOfKeys.set(key, known)
  return known
}

/** What would end the token: itself, its session, its subject, which without a session is a client, and who acts for it. */
function endingsOf({ jti, sid, sub, ver = 0, act }: Claims): Verified['endings'] {
  return [
    { key: revocationKey('token', jti), ver: 0 },
    ...(sid === undefined ? [] : [{ key: revocationKey('session', sid), ver: 0 }]),
    { key: revocationKey(sid === undefined ? 'client' : 'user', sub), ver },
    ...actorsOf(act).map((actor) => ({ key: revocationKey('client', actor.sub), ver: actor.ver ?? 0 })),
  ]
}

const actorsOf = (act: Actor | undefined): Actor[] => (act ? [act, ...actorsOf(act.act)] : [])

function assertUsable(options: {
  issuer: unknown
  audiences: readonly unknown[]
  algorithms: readonly Algorithm[]
  onStale: unknown
  clockToleranceSeconds: number
  staleAfterSeconds: number
  maxStalenessSeconds: number
}): void {
  const isText = (value: unknown): boolean => typeof value === 'string' && value !== ''
  if (!isText(options.issuer)) throw new TypeError('issuer must be the PUBLIC_URL of Postern')
  if (options.audiences.length === 0 || !options.audiences.every(isText))
    throw new TypeError('audience must name this service')
  if (options.algorithms.length === 0 || !options.algorithms.every((one) => ALGORITHMS.includes(one)))
    throw new TypeError(`algorithms must be some of ${ALGORITHMS.join(', ')}`)
  if (options.onStale !== 'open' && options.onStale !== 'closed')
    throw new TypeError('onStale must be open or closed')
  if (!(options.clockToleranceSeconds >= 0 && options.clockToleranceSeconds <= 300))
    throw new TypeError('clockToleranceSeconds must be from 0 to 300')
  if (!(options.staleAfterSeconds > 0 && options.maxStalenessSeconds > 0))
    throw new TypeError('staleAfterSeconds and maxStalenessSeconds must be above 0')
}
