import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { AppError } from '../errors.ts'

/** Signing people in to the widgets of a console that this service does not have. */
export const elementsRoutes: FastifyPluginAsyncTypebox = async (app) => {
  app.post(
    '/elements_login_as',
    {
      config: { access: 'signed-in', ignoresEnvironment: true, spansEnvironments: true },
      schema: { hide: true },
    },
    async () => {
      throw new AppError('not_offered')
    },
  )
}
