import Fastify from 'fastify'
import { createGuard, createTokenVerifier } from './tokens.js'

/**
 * Builds the service: posts in memory, each in the account of the token that wrote it.
 * @param {{ issuer: string, audience?: string, jwksUrl?: string }} options see `createTokenVerifier`
 */
export function buildApp(options) {
  const app = Fastify()
  const requireScope = createGuard(createTokenVerifier(options))
  const posts = []

  app.decorateRequest('claims', null)
  app.setErrorHandler((error, _request, reply) => {
    const { statusCode: status = 500, headers = {} } = error
    const detail = status === 500 ? 'Something went wrong' : error.message
    return reply.code(status).headers(headers).type('application/problem+json').send({ status, detail })
  })

  app.get('/posts', { onRequest: requireScope('post:read') }, ({ claims }) =>
    posts.filter((post) => post.account_id === claims.account_id),
  )

  app.post(
    '/posts',
    {
      onRequest: requireScope('post:write'),
      schema: {
        body: {
          type: 'object',
          required: ['title'],
          properties: { title: { type: 'string', minLength: 1, maxLength: 200 } },
        },
      },
    },
    ({ body, claims }, reply) => {
      const post = {
        id: posts.length + 1,
        title: body.title,
        author: claims.sub,
        account_id: claims.account_id,
      }
      posts.push(post)
      return reply.code(201).send(post)
    },
  )

  return app
}
