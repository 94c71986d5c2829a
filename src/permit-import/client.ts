import { setTimeout as wait } from 'node:timers/promises'
import { StartupError } from '../errors.ts'

export type SourceOptions = {
  /** http(s), without a slash at its end. */
  apiUrl: string
  key: string
  /** How long one answer may take, its body included. */
  timeoutMs?: number
  sleep?: (ms: number) => Promise<unknown>
}

/** A page of a list, with nothing in it that an earlier page held. */
export type SourcePage = {
  number: number
  items: unknown[]
  /** How many the list has by its own count, if the server says. */
  total: number | undefined
}

export type SourceClient = ReturnType<typeof createSourceClient>

/** The most that a page may hold: what Permit allows. */
const PER_PAGE = '100'
/** A list has an end, whatever the server says. */
const MOST_PAGES = 100_000
const TIMEOUT_MS = 30_000
const LARGEST_ANSWER = 64 * 1024 * 1024
/** Answers of a server, or a plan, that has no such list, or does not show it to the key. */
const NOT_OFFERED: ReadonlySet<number> = new Set([402, 403, 404, 405, 501])
const MOST_ATTEMPTS = 8
const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 120_000

type Query = Record<string, string>
type Outcome = { answer: unknown } | { retryAfterMs: number | undefined; reason: string }

/**
 * Reads from a server that speaks Permit's management API. Whatever it says is taken for text from a stranger: answers
 * have a size and a time, redirects are not followed (the key would go along), and no message of its is repeated.
 */
export function createSourceClient({
  apiUrl,
  key,
  timeoutMs = TIMEOUT_MS,
  sleep = async (ms) => await wait(ms),
}: SourceOptions) {
  const headers = { authorization: `Bearer ${key}`, accept: 'application/json' }

  async function ask(path: string, query: Query, isOptional: boolean): Promise<Outcome> {
    const url = `${apiUrl}${path}?${new URLSearchParams(query)}`
    try {
      const response = await fetch(url, {
        headers,
        redirect: 'manual',
        signal: AbortSignal.timeout(timeoutMs),
      })
      const { status } = response
      if (response.ok) return { answer: parsed(await textOf(response), path) }
      await response.body?.cancel()
      if (isOptional && NOT_OFFERED.has(status)) return { answer: undefined }
      if (status === 408 || status === 429 || status >= 500)
        return { retryAfterMs: retryAfter(response), reason: `answers ${status}` }
      throw new StartupError(refusal(status, path))
    } catch (error) {
      if (error instanceof StartupError) throw error
      return { retryAfterMs: undefined, reason: `does not answer (${causeOf(error)})` }
    }
  }

  /**
   * What the server answers; undefined for what is optional and not offered. Tries again, with growing waits or as long
   * as Retry-After says.
   * @throws StartupError
   */
  async function get(path: string, query: Query = {}, isOptional = false): Promise<unknown> {
    for (let attempt = 1; ; attempt++) {
      const outcome = await ask(path, query, isOptional)
      if ('answer' in outcome) return outcome.answer
      if (attempt === MOST_ATTEMPTS)
        throw new StartupError(`${apiUrl} ${outcome.reason} to ${path}, after ${attempt} attempts.`)
      const waitMs = outcome.retryAfterMs ?? FIRST_WAIT_MS * 2 ** (attempt - 1)
      await sleep(Math.min(waitMs, LONGEST_WAIT_MS))
    }
  }

  return {
    get,

    /** Whether there is such a list, and the key shows it. @throws StartupError */
    offers: async (path: string): Promise<boolean> =>
      (await get(path, { page: '1', per_page: '1' }, true)) !== undefined,

    /**
     * A list page by page. It ends with the first page that holds nothing new: a server may cap the size of pages, so
     * that a short one says nothing, or not know pages at all.
     * @throws StartupError
     */
    async *pages(path: string, from = 1): AsyncGenerator<SourcePage> {
      const seen = new Set<string>()
      for (let number = from; number < from + MOST_PAGES; number++) {
        const answer = await get(path, { page: String(number), per_page: PER_PAGE })
        const { list, total } = listOf(answer, path)
        const items = list.filter((item) => {
          const id = identityOf(item)
          const isNew = !seen.has(id)
          seen.add(id)
          return isNew
        })
        if (items.length === 0 && number > from) return
        yield { number, items, total }
        if (items.length === 0) return
      }
      throw new StartupError(`The list ${path} does not end.`)
    },
  }
}

const refusal = (status: number, path: string): string => {
  if (status === 401) return `The key is not accepted: ${path} is answered with 401.`
  if (status === 403) return `The key does not open ${path}: it is answered with 403.`
  if (status === 404)
    return `${path} is answered with 404: is this the address of the API, and is there such an environment?`
  if (status >= 300 && status < 400)
    return `${path} is answered with a redirect, which is not followed: give the address that it leads to.`
  return `${path} is answered with ${status}.`
}

async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength
    if (size > LARGEST_ANSWER)
      throw new StartupError(`An answer has more than ${LARGEST_ANSWER / 1024 / 1024} MiB.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parsed(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new StartupError(
      /^\s*</.test(text)
        ? `What is answered to ${path} is a web page and not JSON: is this the address of the API?`
        : `What is answered to ${path} is not valid JSON.`,
    )
  }
}

/** A plain list, or one that was counted. @throws StartupError */
function listOf(answer: unknown, path: string): { list: unknown[]; total: number | undefined } {
  if (Array.isArray(answer)) return { list: answer, total: undefined }
  const { data: list, total_count: total } = isObject(answer) ? answer : {}
  if (!Array.isArray(list)) throw new StartupError(`What is answered to ${path} is not a list.`)
  return { list, total: typeof total === 'number' ? total : undefined }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null

const identityOf = (item: unknown): string =>
  isObject(item) && typeof item['id'] === 'string' ? item['id'] : JSON.stringify(item)

/** Seconds, or a date (RFC 9110 §10.2.3). */
function retryAfter({ headers }: Response): number | undefined {
  const value = headers.get('retry-after')
  if (value === null || value === '') return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  const { cause } = error
  if (cause instanceof Error && 'code' in cause && typeof cause.code === 'string') return cause.code
  return error.name
}
