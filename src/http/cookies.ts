import { parseCookie, stringifySetCookie } from 'cookie'
import type { FastifyReply, FastifyRequest } from 'fastify'

/** A header has room for more; a token is 80 characters. */
const LONGEST_HEADER = 8192

/**
 * A cookie that scripts do not reach, and that browsers send to this host alone, and never from the pages of other
 * sites. Under https its name begins with `__Host-`, so that no other host, sibling subdomains included, can set or
 * see it (RFC 6265bis §4.1.3.2).
 */
export function createCookie(publicUrl: string, baseName: string) {
  const isSecure = new URL(publicUrl).protocol === 'https:'
  const name = isSecure ? `__Host-${baseName}` : baseName

  const set = (reply: FastifyReply, value: string, maxAge: number): void => {
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

    set,
    clear: (reply: FastifyReply): void => set(reply, '', 0),
  }
}
