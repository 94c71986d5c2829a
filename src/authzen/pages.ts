import { readPageToken, writePageToken } from '../page-tokens.ts'
import type { SearchPage, SearchResult } from '../policy/searches.ts'
import { invalid } from './mapping.ts'
import type { PageRequest } from './schemas.ts'

/** One page of a search: where it begins, and what a token of it is good for. */
export type SearchedPage = {
  /** `undefined`: a page of no results was asked for. */
  page: SearchPage | undefined
  /** The answer; `page` comes first, and only when pages were asked for or there are more. */
  present: <T>(result: SearchResult<string>, toEntity: (key: string) => T) => Found<T>
}

type Found<T> = { page?: { next_token: string }; results: T[] }

/**
 * What a request asks of a search in pages. A token repeats the limit and the type of the subject, which may be left
 * out from then on but not changed (§8.2); the rest of the question is in the token of the search itself.
 * @throws AppError invalid_request when the token is not one of this search
 */
export function searchedPage(asked: PageRequest | undefined, subjectType: string): SearchedPage {
  const begun = asked?.token ? positionOf(asked.token, subjectType, asked.limit) : undefined
  const limit = begun ? begun.limit : asked?.limit
  const tokenAt = (token: string): string => writePageToken([limit ?? null, subjectType, token])
  return {
    page: limit === 0 ? undefined : { limit, token: begun?.token || undefined },
    present: ({ results, nextToken }, toEntity) => {
      const token = limit === 0 ? tokenAt(begun?.token ?? '') : nextToken && tokenAt(nextToken)
      return {
        ...((asked || token) && { page: { next_token: token ?? '' } }),
        results: results.map(toEntity),
      }
    },
  }
}

type Position = { limit: number | undefined; token: string }

function positionOf(token: string, subjectType: string, limit: number | undefined): Position {
  const [begunLimit, begunType, inner] = readToken(token)
  if (begunType !== subjectType)
    throw invalid('/page/token', 'must be the token of the page before, for the same question')
  if (limit !== undefined && limit !== begunLimit)
    throw invalid('/page/limit', 'must be that of the page before, or be left out')
  return { limit: begunLimit ?? undefined, token: inner }
}

function readToken(token: string): [limit: number | null, subjectType: string, token: string] {
  const [limit, type, inner, ...more] = readPageToken(token)
  const isRead = (limit === null || isLimit(limit)) && typeof type === 'string' && typeof inner === 'string'
  if (isRead && more.length === 0) return [limit, type, inner]
  throw invalid('/page/token', 'must be the token of the page before, for the same question')
}

const isLimit = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0
