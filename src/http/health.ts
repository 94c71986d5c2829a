import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { AppError } from '../errors.ts'

type Options = {
  /** Whether the database answers and has the migrations that this code needs. */
  isReady: () => Promise<boolean>
}

const Healthy = Type.Object({
  message: Type.Literal('ok!'),
  status: Type.Literal('ok'),
})

/** What orchestrators ask: is the process alive, and can it serve? */
export const healthRoutes =
  ({ isReady }: Options): FastifyPluginAsyncTypebox =>
  async (app) => {
    const alive = async () => ({ message: 'ok!', status: 'ok' }) as const
    const route = (operationId: string, summary: string) => ({
      config: { access: 'public' } as const,
      logLevel: 'warn' as const,
      schema: { operationId, tags: ['Operation'], summary, response: { 200: Healthy } },
    })

    app.get('/health', route('getHealth', 'The process answers'), alive)
    app.get('/health/live', route('getLiveness', 'The process answers: restart it when it does not'), alive)
    app.get(
      '/health/ready',
      route('getReadiness', 'The database answers and is migrated: send requests only then'),
      async () => {
        if (!(await isReady())) throw new AppError('database_unavailable', { retryAfterSeconds: 1 })
        return await alive()
      },
    )
  }
