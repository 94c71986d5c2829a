import { parseCookie, stringifySetCookie } from 'cookie'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { AppError } from '../errors.ts'

type Options = { publicUrl: string; corsOrigins: readonly string[] }

/** A header has room for more; a refresh token is 80 characters. */
const LONGEST_HEADER = 8192

/**
 * Reads and writes the cookie that keeps a refresh token out of the reach of scripts. Under https its name begins
 * with `__Host-`, so that no other host, sibling subdomains included, can set or see it (RFC 6265bis §4.1.3.2). Nothing
 * but the routes of a session reads it.
 */
export function createRefreshCookie({ publicUrl, corsOrigins }: Options) {
  const { protocol, origin: ownOrigin } = new URL(publicUrl)
  const isSecure = protocol === 'https:'
  const name = isSecure ? '__Host-postern-refresh' : 'postern-refresh'
  const origins = new Set([ownOrigin, ...corsOrigins])

  const write = (reply: FastifyReply, value: string, maxAge: number): void => {
    reply.header(
      'set-cookie',
      stringifySetCookie({
        name,
        value,
        maxAge,
        path: '/',
        httpOnly: true,
        secure: isSecure,
        sameSite: 'strict',
      }),
    )
  }

  return {
    name,

    read({ headers: { cookie } }: FastifyRequest): string | undefined {
      if (cookie === undefined || cookie.length > LONGEST_HEADER) return undefined
      return parseCookie(cookie)[name] || undefined
    },

    set: write,
    clear: (reply: FastifyReply): void => write(reply, '', 0),

    /**
     * To be called before a cookie counts, or is given. Browsers send it by themselves, so the request must be one that
     * a page of ours made (OWASP CSRF Prevention Cheat Sheet): what the browser says of its origin, and a content type
     * that no form can have and that asks foreign origins for a preflight first. SameSite comes on top.
     * @throws AppError cross_site_request
     */
    assertFromOwnPage({ headers }: FastifyRequest): void {
      const isJson = /^application\/json\s*(;|$)/i.test(headers['content-type'] ?? '')
      if (!isJson || !isFromOwnPage(headers)) throw new AppError('cross_site_request')
    },
  }

  function isFromOwnPage({ origin, 'sec-fetch-site': site }: FastifyRequest['headers']): boolean {
    if (site === 'same-origin') return true
    if (origin !== undefined) return origins.has(origin)
    // No browser leaves both out of a POST of another site.
    return site === undefined || site === 'none'
  }
}
