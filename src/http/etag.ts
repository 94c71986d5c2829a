import type { FastifyReply, FastifyRequest } from 'fastify'
import type { IfMatch } from '../revisions.ts'

/** Sets the ETag of a record: its revision, as a strong validator (RFC 9110 §8.8.3). */
export function setEtag(reply: FastifyReply, record: { revision: number }): void {
  reply.header('etag', `"${record.revision}"`)
}

/**
 * The revisions that If-Match names; `undefined` when it is absent or `*`. Weak and foreign tags match nothing,
 * as RFC 9110 §13.1.1 asks of the strong comparison.
 */
export function ifMatchOf(request: FastifyRequest): IfMatch {
  const header = request.headers['if-match']
  if (header === undefined || header.trim() === '*') return undefined
  return header
    .split(',')
    .map((tag) => /^\s*"([1-9]\d*)"\s*$/.exec(tag)?.[1])
    .filter((revision) => revision !== undefined)
    .map(Number)
}
