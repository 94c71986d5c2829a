import type { FastifyInstance, FastifyRequest } from 'fastify'
import { fail } from '../errors.ts'
import type { Services } from '../services.ts'
import { type PlaceIds, placeIds } from './schemas.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Where the environment of a request to Permit's API is. */
    place?: PlaceIds
  }
}

type Params = { proj_id?: string; env_id?: string }
const PLACE_IN_PATH = '/:proj_id/:env_id'

/**
 * Has the environment that the path of a route within `app` names, by keys or ids, be that of the request, and its place
 * be known (`placeOf`). What the caller's key does not open is refused on entering, before anything else is looked at.
 */
export function inPlace(app: FastifyInstance, { environments }: Pick<Services, 'environments'>): void {
  app.addHook('onRoute', (route) => {
    if (route.url.includes(PLACE_IN_PATH)) route.config = { ...route.config, environmentInPath: nameInPath }
  })
  app.addHook('preHandler', async (request) => {
    request.place = placeIds(await environments.getPlace(request.environmentId))
  })
}

/** The place of a request to a route within `inPlace`. */
export const placeOf = ({ place }: FastifyRequest): PlaceIds => place ?? fail('environment_not_found')

function nameInPath({ params }: FastifyRequest): string {
  const { proj_id: project = '', env_id: environment = '' } = params as Params
  return `${project}/${environment}`
}
