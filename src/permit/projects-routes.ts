import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyContextConfig, FastifyRequest } from 'fastify'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import {
  CreatePlaceBody,
  newPlace,
  PlacesQuery,
  ProjectParams,
  placeChanges,
  presentProject,
  UpdatePlaceBody,
} from './projects-schemas.ts'
import { listed } from './schemas.ts'

const spansEnvironments = { ignoresEnvironment: true, spansEnvironments: true }
/** Whoever reads policies may know where they are: each the places that they reach. */
export const READ_PLACES: FastifyContextConfig = {
  access: { permission: 'postern.policy:read' },
  ...spansEnvironments,
}
export const WRITE_PLACES: FastifyContextConfig = {
  access: { permission: 'postern.environments:write' },
  ...spansEnvironments,
}

/** The environments that a new project has from the start. */
const FIRST_ENVIRONMENTS = [
  { key: 'dev', name: 'Development' },
  { key: 'prod', name: 'Production' },
]

/** Projects, by key or id. */
export function projectsRoutes({ environments }: Pick<Services, 'environments'>): FastifyPluginAsyncTypebox {
  const named = async (request: FastifyRequest, name: string) =>
    await environments.getProjectNamed(callerOf(request), name)

  return async (app) => {
    app.get(
      '/',
      { config: READ_PLACES, schema: { hide: true, querystring: PlacesQuery } },
      async (request) => {
        const { page, per_page: perPage, include_total_count: counts } = request.query
        const { items, total } = await environments.listProjects(
          callerOf(request),
          {},
          { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total: counts },
        )
        return listed(items.map(presentProject), counts ? total : undefined, perPage)
      },
    )

    app.post('/', { config: WRITE_PLACES, schema: { hide: true, body: CreatePlaceBody } }, async (request) =>
      presentProject(
        await environments.createProject(callerOf(request), newPlace(request.body), FIRST_ENVIRONMENTS),
      ),
    )

    app.get(
      '/:proj_id',
      { config: READ_PLACES, schema: { hide: true, params: ProjectParams } },
      async (request) => presentProject(await named(request, request.params.proj_id)),
    )

    app.patch(
      '/:proj_id',
      { config: WRITE_PLACES, schema: { hide: true, params: ProjectParams, body: UpdatePlaceBody } },
      async (request) => {
        const project = await named(request, request.params.proj_id)
        const changes = placeChanges(request.body)
        if (Object.keys(changes).length === 0) return presentProject(project)
        return presentProject(await environments.updateProject(callerOf(request), project.id, changes))
      },
    )

    app.delete(
      '/:proj_id',
      { config: WRITE_PLACES, schema: { hide: true, params: ProjectParams } },
      async (request, reply) => {
        const { id } = await named(request, request.params.proj_id)
        await environments.deleteProject(callerOf(request), id, { withEnvironments: true })
        return await reply.code(204).send()
      },
    )
  }
}
