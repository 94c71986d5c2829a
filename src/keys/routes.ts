import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import Type from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import { JWKS_MAX_AGE_SECONDS } from './rotation.ts'
import { presentSigningKey, RotateKeysQuery, SigningKeySchema } from './schemas.ts'

const JwksSchema = Type.Object(
  { keys: Type.Array(Type.Object({}, { additionalProperties: true })) },
  {
    $id: 'Jwks',
    title: 'JWK Set',
    examples: [{ keys: [{ kty: 'EC', crv: 'P-256', x: '…', y: '…', kid: '…', alg: 'ES256', use: 'sig' }] }],
  },
)

/** The public keys, for whoever verifies tokens (RFC 7517). */
export function jwksRoutes({ keys }: Pick<Services, 'keys'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/.well-known/jwks.json',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'getJwks',
          tags: ['Keys'],
          summary: 'The public keys that verify access tokens',
          response: {
            200: {
              description: 'The key set; it may be kept for five minutes',
              content: { 'application/jwk-set+json': { schema: JwksSchema } },
            },
          },
        },
      },
      async (request, reply: FastifyReply) => {
        const { body, etag } = await keys.jwks()
        reply.header('cache-control', `public, max-age=${JWKS_MAX_AGE_SECONDS}`)
        reply.header('etag', etag)
        reply.header('access-control-allow-origin', '*')
        if (request.headers['if-none-match']?.includes(etag)) return await reply.code(304).send()
        // As bytes: a text would get a charset, which this media type does not have (RFC 7517 §8.5.1).
        return await reply.type('application/jwk-set+json').send(Buffer.from(body))
      },
    )
  }
}

/** The life of the keys. They belong to the whole service, whatever the environment. */
export function keysRoutes({ keys }: Pick<Services, 'keys'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/keys',
      {
        config: { access: { permission: 'postern.keys:read' }, ignoresEnvironment: true },
        schema: {
          operationId: 'listSigningKeys',
          tags: ['Keys'],
          summary: 'List the keys that sign access tokens, the oldest first',
          response: { 200: Type.Array(ref(SigningKeySchema)) },
        },
      },
      async () => (await keys.listKeys()).map(presentSigningKey),
    )

    app.post(
      '/keys/rotate',
      {
        config: {
          access: { permission: 'postern.keys:rotate' },
          ignoresEnvironment: true,
          needsRecentAuthentication: true,
        },
        schema: {
          operationId: 'rotateSigningKeys',
          tags: ['Keys'],
          summary: 'Have another key sign access tokens',
          description:
            'The next key is published now and signs from `activates_at` on, when every verifier can know it; asking again until then changes nothing. No token ends.',
          querystring: RotateKeysQuery,
          response: { 200: ref(SigningKeySchema) },
        },
      },
      async (request) => presentSigningKey(await keys.rotate(callerOf(request), request.query)),
    )
  }
}
