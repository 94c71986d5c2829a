import { isObject } from './compact.ts'
import type { Revocation, RevocationStore } from './revocations.ts'
import { within } from './within.ts'

/** What the service presents to read the feed: one of an API key, a token, or a client's id and secret. */
export type Credentials =
  | { apiKey: string }
  | { token: string | (() => string | Promise<string>) }
  | { clientCredentials: { clientId: string; clientSecret: string; tokenUrl: string } }

export type FeedOptions = Credentials & {
  /** Postern's `/api/v1/revocations`. */
  url: string
}

type Dependencies = FeedOptions & {
  store: RevocationStore
  /** Hears that keys were withdrawn, once `store` knows it. */
  onKeysWithdrawn: () => void
  onError: (error: unknown) => void
}

/** The server says something every ten seconds. */
const SILENCE_MS = 25_000
const CONNECT_TIMEOUT_MS = 10_000
const FIRST_RETRY_MS = 100
const LONGEST_RETRY_MS = 5000
/** The server sends at most 1,000 entries in one event. */
const LONGEST_EVENT = 1_048_576
/** A token of a client is replaced before it expires. */
const RENEWED_EARLIER_S = 30

const KINDS: readonly string[] = ['session', 'token', 'user', 'client', 'key'] satisfies Revocation['kind'][]

/** Fills `store` from the feed until closed; a connection that breaks is made anew and goes on where it was. */
export function followFeed({ url, store, onKeysWithdrawn, onError, ...credentials }: Dependencies) {
  const closing = new AbortController()
  const bearer = bearerOf(credentials)
  let lastId: string | undefined
  /** Everything until then, by the monotonic clock, is known. */
  let knownAt = Number.NEGATIVE_INFINITY
  let failures = 0
  const waiting = new Set<() => void>()

  function take(id: string | undefined, name: string, data: string): void {
    const content: unknown = JSON.parse(data)
    if (name === 'revoked') {
      if (!Array.isArray(content) || !content.every(isRevocation))
        throw new Error('the feed sent no revocations')
      for (const one of content)
        if (!store.add(one)) throw new Error('there are more revocations than may be held')
      if (content.some(({ kind }) => kind === 'key')) onKeysWithdrawn()
    } else if (name === 'current') {
      const age = isObject(content) ? content['age_seconds'] : undefined
      if (typeof age !== 'number' || !(age >= 0)) throw new Error('the feed did not say how old it is')
      knownAt = Math.max(knownAt, performance.now() - age * 1000)
      failures = 0
      for (const wake of waiting) wake()
      waiting.clear()
    }
    // Only after it was taken: a connection that breaks within an event has it sent again.
    if (id !== undefined) lastId = id
  }

  async function open(signal: AbortSignal): Promise<Response> {
    return await fetch(url, {
      headers: {
        accept: 'text/event-stream',
        authorization: `Bearer ${await bearer.get(signal)}`,
        ...(lastId !== undefined && { 'last-event-id': lastId }),
      },
      redirect: 'error',
      signal,
    })
  }

  async function connect(): Promise<void> {
    const response = await within(CONNECT_TIMEOUT_MS, open, closing.signal)
    if (response.status === 401) bearer.forget()
    const type = response.headers.get('content-type') ?? ''
    if (!response.ok || !type.startsWith('text/event-stream') || !response.body) {
      await response.body?.cancel()
      throw new Error(`${url} answered ${response.status} ${type}`)
    }
    await readAll(response.body.getReader())
  }

  /** Reads until the stream ends, falls silent or this is closed: cancelled, because the signal may not reach it. */
  async function readAll(body: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const events = createEventReader(take)
    let isSilent = false
    const end = (): void => void body.cancel().catch(() => {})
    const endSilence = (): void => {
      isSilent = true
      end()
    }
    let watchdog = setTimeout(endSilence, CONNECT_TIMEOUT_MS).unref()
    closing.signal.addEventListener('abort', end)
    if (closing.signal.aborted) end()
    try {
      for (;;) {
        const { done, value } = await body.read()
        if (done) break
        clearTimeout(watchdog)
        watchdog = setTimeout(endSilence, SILENCE_MS).unref()
        events.push(value)
      }
      if (isSilent) throw new Error(`${url} has fallen silent`)
    } finally {
      clearTimeout(watchdog)
      closing.signal.removeEventListener('abort', end)
      end()
    }
  }

  async function follow(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        // Servers end streams now and then; that is no failure.
        await connect()
      } catch (error) {
        if (closing.signal.aborted) return
        onError(error)
      }
      const wait = Math.min(FIRST_RETRY_MS * 2 ** failures++, LONGEST_RETRY_MS)
      await sleep(wait * (0.5 + Math.random() / 2), closing.signal)
    }
  }
  const following = follow()

  return {
    /** How old the knowledge of revocations is; Infinity before there is any. */
    ageSeconds: (): number => (performance.now() - knownAt) / 1000,

    /** Once everything until now is known. Waits for as long as that takes, or until closed. */
    async ready(): Promise<void> {
      if (knownAt === Number.NEGATIVE_INFINITY && !closing.signal.aborted)
        await new Promise<void>((resolve) => waiting.add(resolve))
    },

    async close(): Promise<void> {
      closing.abort()
      for (const wake of waiting) wake()
      await following
    },
  }
}

function isRevocation(value: unknown): value is Revocation {
  if (!isObject(value)) return false
  const { kind, ref, ver, exp } = value
  return (
    KINDS.includes(kind as string) &&
    typeof ref === 'string' &&
    ref.length <= 256 &&
    (ver === undefined || ver === null || Number.isSafeInteger(ver)) &&
    Number.isSafeInteger(exp)
  )
}

/** Reads a stream of events (WHATWG HTML §9.2.6), in as far as Postern makes use of the format. */
function createEventReader(take: (id: string | undefined, name: string, data: string) => void) {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let unread = ''

  function event(text: string): void {
    const fields = new Map<string, string>()
    for (const line of text.split('\n')) {
      const colon = line.indexOf(':')
      if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).replace(/^ /, ''))
    }
    const data = fields.get('data')
    if (data !== undefined) take(fields.get('id'), fields.get('event') ?? 'message', data)
  }

  return {
    push(chunk: Uint8Array): void {
      unread += decoder.decode(chunk, { stream: true })
      for (let end = unread.indexOf('\n\n'); end >= 0; end = unread.indexOf('\n\n')) {
        const text = unread.slice(0, end)
        unread = unread.slice(end + 2)
        event(text)
      }
      if (unread.length > LONGEST_EVENT) throw new Error('the feed sent an event without end')
    },
  }
}

/** What stands behind `Bearer`, and how it is renewed. */
function bearerOf(credentials: Credentials) {
  if ('apiKey' in credentials) return { get: async () => credentials.apiKey, forget: () => {} }
  if ('token' in credentials) {
    const { token } = credentials
    return { get: async () => (typeof token === 'string' ? token : await token()), forget: () => {} }
  }
  const { clientId, clientSecret, tokenUrl } = credentials.clientCredentials
  let known: { token: string; until: number } | undefined
  return {
    async get(signal: AbortSignal): Promise<string> {
      if (known && performance.now() < known.until) return known.token
      // RFC 6749 §2.3.1: both are form-encoded before they are put together.
      const [id, secret] = [formEncoded(clientId), formEncoded(clientSecret)]
      const response = await fetch(tokenUrl, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
        body: new URLSearchParams({ grant_type: 'client_credentials' }),
        redirect: 'error',
        signal,
      })
      const answer: unknown = await response.json().catch(() => undefined)
      const { access_token: token, expires_in: seconds } = isObject(answer) ? answer : {}
      if (!response.ok || typeof token !== 'string')
        throw new Error(`${tokenUrl} answered ${response.status}`)
      const life = typeof seconds === 'number' ? seconds - RENEWED_EARLIER_S : 0
      known = { token, until: performance.now() + life * 1000 }
      return token
    },
    forget(): void {
      known = undefined
    },
  }
}

const formEncoded = (text: string): string => new URLSearchParams({ '': text }).toString().slice(1)

async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds).unref()
    signal.addEventListener('abort', done)
  })
}
