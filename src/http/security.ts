import type { IncomingMessage, ServerResponse } from 'node:http'
import cors, { type FastifyCorsOptions } from '@fastify/cors'
import type { FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import helmet from 'helmet'

type Options = { corsOrigins: readonly string[] }

// What only concerns pages in old browsers is left out: no answer of ours but /docs is a page, and that has its own
// policy (the OWASP REST Security Cheat Sheet lists the headers that an API needs).
const setHeaders = helmet({
  contentSecurityPolicy: {
    directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    useDefaults: false,
  },
  originAgentCluster: false,
  xDnsPrefetchControl: false,
  xDownloadOptions: false,
  xPermittedCrossDomainPolicies: false,
  xXssProtection: false,
})

/** helmet's headers. It makes them anew for each answer, and they are the same for all of ours: 3 % of a read. */
function headersOfHelmet(): Record<string, string> {
  const headers: Record<string, string> = {}
  const response = {
    setHeader: (name: string, value: string) => {
      headers[name.toLowerCase()] = value
    },
    removeHeader: () => {},
  }
  setHeaders({} as IncomingMessage, response as unknown as ServerResponse, (error) => {
    if (error) throw error
  })
  return headers
}

/** Where the refresh cookie counts; pages of other origins send it along nowhere else. */
const COOKIE_PATHS = '/api/v1/auth/'

/** Headers that browsers obey, on every answer, and CORS for the origins that the operator named. */
export const browserSecurity = plugin<Options>(
  async (app, { corsOrigins }) => {
    const headers = headersOfHelmet()
    app.addHook('onRequest', (_request, reply, done) => {
      reply.headers(headers)
      done()
    })
    if (corsOrigins.length === 0) return
    const options = {
      origin: [...corsOrigins],
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: [
        'authorization',
        'content-type',
        'dpop',
        'if-match',
        'postern-environment',
        'x-request-id',
      ],
      exposedHeaders: [
        'etag',
        'link',
        'location',
        'retry-after',
        'www-authenticate',
        'x-request-id',
        'x-total-count',
      ],
      maxAge: 600,
    }
    await app.register(cors, {
      delegator: (
        request: FastifyRequest,
        done: (error: Error | null, options?: FastifyCorsOptions) => void,
      ) => done(null, { ...options, credentials: request.url.startsWith(COOKIE_PATHS) }),
    })
  },
  { name: 'browser-security' },
)
