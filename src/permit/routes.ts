import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Services } from '../services.ts'
import { answerErrorsAsPermit } from './errors.ts'
import { grantsRoutes } from './grants-routes.ts'
import { enterPlace } from './place.ts'
import { scopeOf } from './schemas.ts'
import { tenantsRoutes } from './tenants-routes.ts'
import { usersRoutes } from './users-routes.ts'

type Dependencies = Pick<Services, 'modelOf' | 'environments' | 'issuer'>

/** Facts under the path of their environment, and, as the Python SDK has them behind a PDP, under none. */
const FACTS = ['/v2/facts/:proj_id/:env_id', '/facts']

/**
 * The part of Permit's management API that its SDKs keep users, tenants and role assignments with. The protocol is not
 * ours, so it is no part of the OpenAPI document.
 */
export function permitRoutes(services: Dependencies): FastifyPluginAsyncTypebox {
  const { modelOf, environments, issuer } = services
  return async (app) => {
    answerErrorsAsPermit(app, issuer)

    app.get(
      '/v2/api-key/scope',
      { config: { access: 'signed-in' }, schema: { hide: true } },
      async ({ principal, environmentId }) => {
        const place = await modelOf(environmentId).permit.findPlace()
        const opensMore = principal?.type === 'api_key' && principal.environmentId === null
        if (!opensMore || !place) return scopeOf(place)
        return { ...scopeOf(principal.project === null ? undefined : place), environment_id: null }
      },
    )

    for (const prefix of FACTS) {
      await app.register(
        async (facts) => {
          facts.addHook('preHandler', enterPlace({ modelOf, environments }))
          await facts.register(usersRoutes(services))
          await facts.register(tenantsRoutes(services))
          await facts.register(grantsRoutes(services))
        },
        { prefix },
      )
    }
  }
}
