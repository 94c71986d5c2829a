import Fastify from 'fastify'
import { postern } from 'postern-client/fastify'

/**
 * Builds the service: posts in memory, each in the account of the token that wrote it.
 * @param {import('postern-client/fastify').PosternPluginOptions} trust whose tokens are let in
 */
export async function buildApp(trust) {
  const app = Fastify()
  const posts = []

  app.setErrorHandler((error, _request, reply) => {
    const { statusCode: status = 500, headers = {} } = error
    const detail = status === 500 ? 'Something went wrong' : error.message
    return reply.code(status).headers(headers).type('application/problem+json').send({ status, detail })
  })

  await app.register(postern, trust)

  app.get('/posts', { onRequest: app.requireScope('post:read') }, ({ auth }) =>
    posts.filter((post) => post.account_id === auth.account_id),
  )

  app.post(
    '/posts',
    {
      onRequest: app.requireScope('post:write'),
      schema: {
        body: {
          type: 'object',
          required: ['title'],
          properties: { title: { type: 'string', minLength: 1, maxLength: 200 } },
        },
      },
    },
    ({ body, auth }, reply) => {
      const post = {
        id: posts.length + 1,
        title: body.title,
        author: auth.sub,
        account_id: auth.account_id,
      }
      posts.push(post)
      return reply.code(201).send(post)
    },
  )

  // The account is in the path here, so the guard can compare: a scope that is held everywhere opens each of them.
  app.get(
    '/accounts/:account_id/posts',
    { onRequest: app.requireScope('post:read', { account: ({ params }) => params.account_id }) },
    ({ params }) => posts.filter((post) => post.account_id === params.account_id),
  )

  return app
}
