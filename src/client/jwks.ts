import { isObject } from './compact.ts'
import { PosternError } from './errors.ts'
import { type Algorithm, keyOfJwk, type VerificationKey } from './keys.ts'
import { within } from './within.ts'

export type JwksOptions = {
  uri: string
  algorithms: readonly Algorithm[]
  /** An unknown `kid` makes us look again at most so often. */
  cooldownSeconds: number
  /** For so long after the last good answer its keys are used while the key set cannot be read. */
  maxStaleSeconds: number
  onError: (error: unknown) => void
}

const TIMEOUT_MS = 5000
const MOST_BYTES = 1_048_576
const MOST_KEYS = 100
/** When the answer does not say how long it holds (RFC 9111 §5.2.2.1), and between what that is kept. */
const DEFAULT_MAX_AGE_S = 300
const SHORTEST_MAX_AGE_S = 10
const LONGEST_MAX_AGE_S = 3600
/** It is read again before it is too old, so that nobody waits for it. */
const REFRESH_AT = 0.75
const FIRST_RETRY_MS = 500
const LONGEST_RETRY_MS = 30_000

/** The published keys of an issuer (RFC 7517), always at hand once they have been read. Reads nothing until asked. */
export function createKeySet({ uri, algorithms, cooldownSeconds, maxStaleSeconds, onError }: JwksOptions) {
  let keys: ReadonlyMap<string, VerificationKey> | undefined
  let readAt = Number.NEGATIVE_INFINITY
  let askedAt = Number.NEGATIVE_INFINITY
  let loading: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let failures = 0
  let generation = 0
  const closing = new AbortController()

  function readAgainIn(milliseconds: number): void {
    clearTimeout(timer)
    if (closing.signal.aborted) return
    timer = setTimeout(() => void load().catch(() => {}), milliseconds).unref()
  }

  async function download(signal: AbortSignal): Promise<{ response: Response; text: string }> {
    const headers = { accept: 'application/jwk-set+json, application/json' }
    const response = await fetch(uri, { headers, redirect: 'error', signal })
    if (!response.ok) throw new Error(`${uri} answered ${response.status}`)
    return { response, text: await textOf(response) }
  }

  async function read(): Promise<void> {
    askedAt = performance.now()
    try {
      const { response, text } = await within(TIMEOUT_MS, download, closing.signal)
      keys = keysOf(JSON.parse(text), algorithms)
      generation++
      readAt = askedAt
      failures = 0
      // A little sooner or later, or all instances of a service would ask at once.
      readAgainIn(maxAgeSeconds(response) * 1000 * REFRESH_AT * (0.9 + Math.random() * 0.1))
    } catch (error) {
      readAgainIn(Math.min(FIRST_RETRY_MS * 2 ** failures++, LONGEST_RETRY_MS))
      if (!closing.signal.aborted) onError(error)
      throw new PosternError('keys_unavailable', 'The keys of the issuer cannot be read', { cause: error })
    }
  }

  /** One request, shared by everybody who waits for it. */
  function load(): Promise<void> {
    loading ??= read().finally(() => {
      loading = undefined
    })
    return loading
  }

  const isUsable = (): boolean => performance.now() - readAt <= maxStaleSeconds * 1000

  return {
    /** Whether the last good answer is recent enough for its keys to be used. */
    isUsable,

    /** The key, when it is at hand. No wait, no request. */
    known: (kid: string): VerificationKey | undefined => (isUsable() ? keys?.get(kid) : undefined),

    /**
     * The key, after looking for it at the issuer if that was not done lately; `undefined` when it is not published.
     * @throws PosternError keys_unavailable
     */
    async find(kid: string): Promise<VerificationKey | undefined> {
      const found = this.known(kid)
      if (found) return found
      const isCool = performance.now() - askedAt >= cooldownSeconds * 1000
      // Who comes while the first answer is awaited waits for it; a failure is not tried again before its time.
      if (loading || isCool) await load()
      if (!keys || !isUsable())
        throw new PosternError('keys_unavailable', 'The keys of the issuer cannot be read')
      return keys.get(kid)
    },

    /** Reads the key set if that has not been done. @throws PosternError keys_unavailable */
    async ready(): Promise<void> {
      if (!keys) await load()
    },

    /** Reads the key set again, because it has changed. */
    reload: (): void => void load().catch(() => {}),

    /** Changes with every answer: what was remembered of keys is to be looked at anew. */
    generation: () => generation,

    close(): void {
      closing.abort()
      clearTimeout(timer)
    },
  }
}

/** The body as text, unless it is larger than any key set. */
async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    if (size > MOST_BYTES) throw new Error('the key set is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function keysOf(document: unknown, algorithms: readonly Algorithm[]): ReadonlyMap<string, VerificationKey> {
  const list = isObject(document) ? document['keys'] : undefined
  if (!Array.isArray(list)) throw new Error('this is no key set')
  const keys = new Map<string, VerificationKey>()
  for (const jwk of list.slice(0, MOST_KEYS)) {
    const key = isObject(jwk) ? keyOfJwk(jwk, algorithms) : undefined
    if (key && typeof jwk.kid === 'string') keys.set(jwk.kid, key)
  }
  if (keys.size === 0) throw new Error('the key set has no key that could verify a token')
  return keys
}

function maxAgeSeconds(response: Response): number {
  const [, text] = /(?:^|[,\s])max-age=(\d{1,9})/i.exec(response.headers.get('cache-control') ?? '') ?? []
  const seconds = text === undefined ? DEFAULT_MAX_AGE_S : Number(text)
  return Math.min(Math.max(seconds, SHORTEST_MAX_AGE_S), LONGEST_MAX_AGE_S)
}
