import type { FastifyRequest } from 'fastify'
import { AppError } from '../errors.ts'
import { createCookie } from './cookies.ts'

type Options = { publicUrl: string; corsOrigins: readonly string[] }

/** Keeps a refresh token out of the reach of scripts. Nothing but the routes of a session reads it. */
export function createRefreshCookie({ publicUrl, corsOrigins }: Options) {
  const origins = new Set([new URL(publicUrl).origin, ...corsOrigins])

  return {
    ...createCookie(publicUrl, 'postern-refresh'),

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
