import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import plugin from 'fastify-plugin'

type Options = { corsOrigins: readonly string[] }

/** Headers that browsers obey: those of helmet that concern an API, and CORS for the origins that the operator named. */
export const browserSecurity = plugin<Options>(
  async (app, { corsOrigins }) => {
    await app.register(helmet, {
      contentSecurityPolicy: {
        directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
        useDefaults: false,
      },
      // What only concerns pages in old browsers: no answer of ours but /docs is a page (OWASP REST Security
      // Cheat Sheet lists the headers that an API needs).
      originAgentCluster: false,
      xDnsPrefetchControl: false,
      xDownloadOptions: false,
      xPermittedCrossDomainPolicies: false,
      xXssProtection: false,
    })
    if (corsOrigins.length === 0) return
    await app.register(cors, {
      origin: [...corsOrigins],
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: ['authorization', 'content-type', 'if-match', 'x-request-id'],
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
    })
  },
  { name: 'browser-security' },
)
