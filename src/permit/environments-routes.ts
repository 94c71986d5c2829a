import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { callerOf } from '../http/authenticate.ts'
import { assertHoldsAnywhere } from '../principal.ts'
import type { Services } from '../services.ts'
import { READ_PLACES, WRITE_PLACES } from './projects-routes.ts'
import {
  CopyBody,
  CreatePlaceBody,
  copyOptionsOf,
  EnvironmentParams,
  newPlace,
  PlacesQuery,
  ProjectParams,
  placeChanges,
  presentEnvironment,
  presentStatistics,
  targetOf,
  UpdatePlaceBody,
} from './projects-schemas.ts'
import { listed } from './schemas.ts'

type Dependencies = Pick<Services, 'environments' | 'modelOf'>

/** The environments of a project, by key or id. */
export function environmentsRoutes({ environments, modelOf }: Dependencies): FastifyPluginAsyncTypebox {
  const named = async (request: FastifyRequest, params: { proj_id: string; env_id: string }) =>
    await environments.getEnvironmentNamed(callerOf(request), `${params.proj_id}/${params.env_id}`)

  return async (app) => {
    app.get(
      '/',
      { config: READ_PLACES, schema: { hide: true, params: ProjectParams, querystring: PlacesQuery } },
      async (request) => {
        const { page, per_page: perPage, include_total_count: counts } = request.query
        const caller = callerOf(request)
        const { key: project } = await environments.getProjectNamed(caller, request.params.proj_id)
        const { items, total } = await environments.listEnvironments(
          caller,
          { project },
          { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total: counts },
        )
        return listed(items.map(presentEnvironment), counts ? total : undefined, perPage)
      },
    )

    app.post(
      '/',
      { config: WRITE_PLACES, schema: { hide: true, params: ProjectParams, body: CreatePlaceBody } },
      async (request) => {
        const caller = callerOf(request)
        const { key: project } = await environments.getProjectNamed(caller, request.params.proj_id)
        return presentEnvironment(
          await environments.createEnvironment(caller, { ...newPlace(request.body), project }),
        )
      },
    )

    app.get(
      '/:env_id',
      { config: READ_PLACES, schema: { hide: true, params: EnvironmentParams } },
      async (request) => presentEnvironment(await named(request, request.params)),
    )

    app.patch(
      '/:env_id',
      { config: WRITE_PLACES, schema: { hide: true, params: EnvironmentParams, body: UpdatePlaceBody } },
      async (request) => {
        const environment = await named(request, request.params)
        const changes = placeChanges(request.body)
        if (Object.keys(changes).length === 0) return presentEnvironment(environment)
        return presentEnvironment(
          await environments.updateEnvironment(callerOf(request), environment.id, changes),
        )
      },
    )

    app.delete(
      '/:env_id',
      { config: WRITE_PLACES, schema: { hide: true, params: EnvironmentParams } },
      async (request, reply) => {
        const { id } = await named(request, request.params)
        await environments.deleteEnvironment(callerOf(request), id)
        return await reply.code(204).send()
      },
    )

    app.get(
      '/:env_id/stats',
      { config: READ_PLACES, schema: { hide: true, params: EnvironmentParams } },
      async (request) => {
        const environment = await named(request, request.params)
        return presentStatistics(environment, await modelOf(environment.id).statistics.readStatistics())
      },
    )

    app.post(
      '/:env_id/copy',
      { config: WRITE_PLACES, schema: { hide: true, params: EnvironmentParams, body: CopyBody } },
      async (request, reply) => {
        // What it does is read one policy and write another.
        assertHoldsAnywhere(callerOf(request), 'postern.policy:read')
        assertHoldsAnywhere(callerOf(request), 'postern.policy:write')
        const copied = await environments.copyEnvironment(
          callerOf(request),
          await named(request, request.params),
          targetOf(request.body),
          copyOptionsOf(request.body),
        )
        return await reply.code(201).send(presentEnvironment(copied))
      },
    )
  }
}
