import type { FastifyRequest } from 'fastify'
import { AppError, fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { Services } from '../services.ts'
import { dashed } from './names.ts'
import type { Place } from './repository.ts'
import { type PlaceIds, placeIds } from './schemas.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Where the environment of a request to Permit's API is. */
    place?: PlaceIds
  }
}

type Params = { proj_id?: string; env_id?: string }

/**
 * A hook that has the environment of the path be that of the request.
 * @throws AppError environment_not_allowed for one that the caller's key does not open
 */
export function enterPlace({ modelOf, environments }: Pick<Services, 'modelOf' | 'environments'>) {
  return async (request: FastifyRequest): Promise<void> => {
    const { proj_id: project, env_id: environment } = request.params as Params
    const here = await modelOf(request.environmentId).permit.findPlace()
    if (project === undefined || environment === undefined || (here && isAt(here, project, environment))) {
      request.place = placeIds(here ?? fail('environment_not_found'))
      return
    }
    const { principal } = request
    if (principal?.type !== 'api_key' || principal.environmentId !== null)
      throw new AppError('environment_not_allowed')
    const name = isUuid(dashed(environment)) ? dashed(environment) : `${project}/${environment}`
    const entry = await environments.enter(principal, name)
    const there = await modelOf(entry.environmentId).permit.findPlace()
    if (!there || !isAt(there, project, environment)) throw new AppError('environment_not_found')
    request.environmentId = entry.environmentId
    request.place = placeIds(there)
  }
}

/** The place of a request that has passed `enterPlace`. */
export const placeOf = ({ place }: FastifyRequest): PlaceIds => place ?? fail('environment_not_found')

const isAt = (place: Place, project: string, environment: string): boolean =>
  isNamed(project, place.projectKey, place.projectId) &&
  isNamed(environment, place.environmentKey, place.environmentId)

const isNamed = (name: string, key: string, id: string): boolean =>
  name === key || dashed(name).toLowerCase() === id
