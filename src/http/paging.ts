import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError } from '../errors.ts'

type PageQuery = { skip: number; limit: number; sort: string; total: boolean; after?: string }

/** The page that a query asks for. @throws AppError validation_failed when it has both a cursor and a skip */
export function pageRequestOf(query: PageQuery): PageRequest {
  const { skip, limit, sort, total, after } = query
  if (after !== undefined && skip > 0) {
    throw new AppError('validation_failed', {
      errors: [{ pointer: '/query/skip', detail: 'cannot be combined with `after`' }],
    })
  }
  return { skip, limit, sort, total, ...(after !== undefined && { after }) }
}

/** Answers a page: the rows as a plain array, the next page in Link (RFC 8288), the count in X-Total-Count. */
export function sendPage<Row, Shown>(
  request: FastifyRequest,
  reply: FastifyReply,
  page: Page<Row>,
  present: (row: Row) => Shown,
): Shown[] {
  if (page.total !== undefined) reply.header('x-total-count', page.total)
  if (page.next !== undefined) reply.header('link', `<${nextUrl(request, page.next)}>; rel="next"`)
  return page.items.map(present)
}

/** Relative to the request, so that it is right behind every proxy (RFC 3986 §4.2). */
function nextUrl(request: FastifyRequest, cursor: string): string {
  const [path = '', query = ''] = request.url.split('?')
  const parameters = new URLSearchParams(query)
  parameters.delete('skip')
  parameters.delete('total')
  parameters.set('after', cursor)
  return `${path}?${parameters}`
}
