import { createHash } from 'node:crypto'
import { AppError } from '../errors.ts'
import { readPageToken, writePageToken } from '../page-tokens.ts'

/** Where a page begins, and how many results it may hold. */
export type SearchPage = { limit?: number | undefined; token?: string | undefined }

/**
 * One page of a search. It may be short, even empty, and yet have a `nextToken`: the work for one page is bounded.
 * Only the absence of a token says that there is no more.
 */
export type SearchResult<T> = { results: T[]; nextToken: string | undefined }

/** The most results, and the most candidates that are looked at, for one page. */
const MOST_RESULTS = 1000
const DEFAULT_RESULTS = 100
const MOST_CANDIDATES = 1000
const CHUNK = 250

type Search = {
  page: SearchPage
  /** All that the search asks: a token is good for this and nothing else. */
  question: unknown
  /** Up to `limit` candidates after `after`, in an order that does not change. */
  list: (after: string | undefined, limit: number) => Promise<readonly string[]>
  /** Which of the candidates are results; `over`: none is, and none of those to come will be. */
  select: (candidates: readonly string[]) => Promise<readonly boolean[] | 'over'>
}

/** @throws AppError validation_failed when the token is not one of this search */
export async function search({ page, question, list, select }: Search): Promise<SearchResult<string>> {
  const limit = Math.min(Math.max(page.limit ?? DEFAULT_RESULTS, 1), MOST_RESULTS)
  const digest = digestOf(question)
  let after = page.token === undefined ? undefined : positionOf(page.token, digest)
  const results: string[] = []
  for (let seen = 0; seen < MOST_CANDIDATES; ) {
    const size = Math.min(CHUNK, MOST_CANDIDATES - seen)
    const candidates = await list(after, size)
    const selected = candidates.length === 0 ? [] : await select(candidates)
    if (selected === 'over') return { results: [], nextToken: undefined }
    for (const [place, candidate] of candidates.entries()) {
      after = candidate
      if (!selected[place]) continue
      results.push(candidate)
      const isLast = candidates.length < size && place === candidates.length - 1
      if (results.length === limit) return { results, nextToken: isLast ? undefined : tokenOf(digest, after) }
    }
    if (candidates.length < size) return { results, nextToken: undefined }
    seen += candidates.length
  }
  return { results, nextToken: after === undefined ? undefined : tokenOf(digest, after) }
}

const tokenOf = (digest: string, position: string): string => writePageToken([digest, position])

function positionOf(token: string, digest: string): string {
  const [known, position, ...more] = readPageToken(token)
  if (known === digest && isPosition(position) && more.length === 0) return position
  throw new AppError('validation_failed', {
    errors: [
      { pointer: '/body/page/token', detail: 'must be the token of the page before, for the same question' },
    ],
  })
}

const isPosition = (value: unknown): value is string =>
  typeof value === 'string' && value.isWellFormed() && !value.includes('\0')

const digestOf = (question: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(question, sorted) ?? '')
    .digest('base64url')
    .slice(0, 22)

/** Objects with their names in order: the same question may be sent in another one. */
function sorted(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
