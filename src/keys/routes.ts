import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import type { Services } from '../services.ts'

const JwksSchema = Type.Object(
  { keys: Type.Array(Type.Object({}, { additionalProperties: true })) },
  {
    $id: 'Jwks',
    title: 'JWK Set',
    examples: [{ keys: [{ kty: 'EC', crv: 'P-256', x: '…', y: '…', kid: '…', alg: 'ES256', use: 'sig' }] }],
  },
)

/** How long a verifier may keep the key set. A new key is published at least this long before it signs. */
const MAX_AGE_SECONDS = 300

/** The public keys, for whoever verifies tokens (RFC 7517). */
export function keysRoutes({ keys }: Pick<Services, 'keys'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/.well-known/jwks.json',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'getJwks',
          tags: ['Keys'],
          summary: 'The public keys that verify access tokens',
          response: { 200: JwksSchema },
        },
      },
      async (_request, reply) => {
        reply.header('cache-control', `public, max-age=${MAX_AGE_SECONDS}`)
        return await keys.jwks()
      },
    )
  }
}
