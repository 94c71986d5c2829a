import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { AppError } from '../errors.ts'
import type { Services } from '../services.ts'
import { apiKeysRoutes } from './api-keys-routes.ts'
import { bulkRoutes } from './bulk-routes.ts'
import { definitionsRoutes } from './definitions-routes.ts'
import { elementsRoutes } from './elements-routes.ts'
import { environmentsRoutes } from './environments-routes.ts'
import { answerErrorsAsPermit } from './errors.ts'
import { grantsRoutes } from './grants-routes.ts'
import { instancesRoutes, tuplesRoutes } from './instances-routes.ts'
import { invitesRoutes } from './invites-routes.ts'
import { inPlace } from './place.ts'
import { projectsRoutes } from './projects-routes.ts'
import { proxiesRoutes } from './proxies-routes.ts'
import { resourcesRoutes } from './resources-routes.ts'
import { rolesRoutes } from './roles-routes.ts'
import { conditionSetsRoutes, setRulesRoutes } from './sets-routes.ts'
import { tenantsRoutes } from './tenants-routes.ts'
import { usersRoutes } from './users-routes.ts'
import { readWaiting } from './waiting.ts'

type Dependencies = Pick<Services, 'modelOf' | 'environments' | 'apiKeys' | 'issuer' | 'config'>

/** Facts under the path of their environment, and, as the Python SDK has them behind a PDP, under none. */
const FACTS = ['/v2/facts/:proj_id/:env_id', '/facts']
/** What every path of Permit's API begins with. */
const ROOTS = ['/v2', '/facts']
/** How many times as large as other bodies those of bulk requests may be: Permit allows 3,000 users in one. */
const BULK_BODIES = 10
/** What the policy of an environment speaks of. */
const SCHEMA = '/v2/schema/:proj_id/:env_id'

/**
 * Permit's management API, as its SDKs call it. The protocol is not ours, so it is no part of the OpenAPI document.
 */
export function permitRoutes(services: Dependencies): FastifyPluginAsyncTypebox {
  const { modelOf, issuer, config } = services
  const bulk = { modelOf, bulkBodyLimit: config.http.bodyLimitBytes * BULK_BODIES }
  return async (app) => {
    answerErrorsAsPermit(app, issuer)

    // What is not offered is refused in the shape that SDKs read as well.
    for (const prefix of ROOTS) {
      await app.register(
        async (rest) => {
          rest.setNotFoundHandler(async () => {
            throw new AppError('not_found')
          })
        },
        { prefix },
      )
    }

    await app.register(apiKeysRoutes(services), { prefix: '/v2/api-key' })
    await app.register(projectsRoutes(services), { prefix: '/v2/projects' })
    await app.register(environmentsRoutes(services), { prefix: '/v2/projects/:proj_id/envs' })
    await app.register(elementsRoutes, { prefix: '/v2/auth' })

    for (const prefix of FACTS) {
      await app.register(
        async (facts) => {
          inPlace(facts, services)
          facts.addHook('preValidation', async ({ headers }) => readWaiting(headers))
          await facts.register(usersRoutes(services))
          await facts.register(tenantsRoutes(services))
          await facts.register(grantsRoutes(bulk))
          await facts.register(instancesRoutes(bulk))
          await facts.register(tuplesRoutes(bulk))
          await facts.register(bulkRoutes(bulk))
          await facts.register(setRulesRoutes(services))
          await facts.register(proxiesRoutes(services))
          await facts.register(invitesRoutes(services))
        },
        { prefix },
      )
    }

    await app.register(
      async (schema) => {
        inPlace(schema, services)
        await schema.register(rolesRoutes(bulk))
        await schema.register(resourcesRoutes(services))
        await schema.register(definitionsRoutes(services))
        await schema.register(conditionSetsRoutes(services))
      },
      { prefix: SCHEMA },
    )
  }
}
