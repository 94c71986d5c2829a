import type { FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { ModelOf } from '../model.ts'
import { CONSISTENCY_HEADER, consistencyToken, versionOfToken } from '../policy/consistency.ts'

const READS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** True for what writes nothing, by its method or because it asks for decisions. */
function isReading({ method, routeOptions }: FastifyRequest): boolean {
  const { access } = routeOptions.config
  return READS.has(method) || (typeof access === 'object' && access.permission === 'postern.policy:check')
}

/**
 * Answers to writes carry the version of what they wrote (`X-Postern-Consistency`). A request that sends it back is
 * answered as of that version or a later one, by whichever process.
 */
export const consistency = plugin<{ modelOf: ModelOf }>(
  async (app, { modelOf }) => {
    app.addHook('preHandler', async (request) => {
      const token = request.headers[CONSISTENCY_HEADER]
      if (typeof token !== 'string' || !request.principal || request.routeOptions.config.spansEnvironments)
        return
      const { environmentId } = request
      await modelOf(environmentId).decisions.ensureVersion(versionOfToken(environmentId, token))
    })

    app.addHook('onSend', async (request, reply) => {
      if (isReading(request) || reply.statusCode >= 400 || !request.principal) return
      if (request.routeOptions.config.spansEnvironments) return
      const { environmentId } = request
      const version = await modelOf(environmentId).decisions.versionOfWrites()
      if (version !== undefined) reply.header(CONSISTENCY_HEADER, consistencyToken(environmentId, version))
    })
  },
  { name: 'consistency', dependencies: ['authentication'] },
)
