import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { placeOf } from './place.ts'
import {
  CreateResourceBody,
  presentResource,
  ResourceParams,
  resourceFieldsOf,
  UpdateResourceBody,
  wholeResource,
} from './resources-schemas.ts'
import { ListQuery } from './roles-schemas.ts'
import { listed } from './schemas.ts'

const READ: Access = { permission: 'postern.policy:read' }
const WRITE: Access = { permission: 'postern.policy:write' }

/** Resources, by key or id, with all that is defined on them. */
export function resourcesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const resourcesOf = (request: FastifyRequest) => modelOf(request.environmentId).permitResources

  return async (app) => {
    app.get(
      '/resources',
      { config: { access: READ }, schema: { hide: true, querystring: ListQuery } },
      async (request) => {
        const { page, per_page: perPage, include_total_count: counts } = request.query
        const { items, total } = await resourcesOf(request).list({ page, perPage }, counts)
        return listed(
          items.map((resource) => presentResource(resource, placeOf(request))),
          total,
          perPage,
        )
      },
    )

    app.post(
      '/resources',
      { config: { access: WRITE }, schema: { hide: true, body: CreateResourceBody } },
      async (request) => {
        const { key, ...fields } = request.body
        const input = { ...resourceFieldsOf(fields), key }
        return presentResource(await resourcesOf(request).create(callerOf(request), input), placeOf(request))
      },
    )

    app.get(
      '/resources/:resource_id',
      { config: { access: READ }, schema: { hide: true, params: ResourceParams } },
      async (request) =>
        presentResource(await resourcesOf(request).get(request.params.resource_id), placeOf(request)),
    )

    app.put(
      '/resources/:resource_id',
      { config: { access: WRITE }, schema: { hide: true, params: ResourceParams, body: UpdateResourceBody } },
      async (request) => {
        const { key } = await resourcesOf(request).get(request.params.resource_id)
        const fields = wholeResource(key, request.body)
        return presentResource(
          await resourcesOf(request).update(callerOf(request), key, fields),
          placeOf(request),
        )
      },
    )

    app.patch(
      '/resources/:resource_id',
      { config: { access: WRITE }, schema: { hide: true, params: ResourceParams, body: UpdateResourceBody } },
      async (request) => {
        const { resource_id: name } = request.params
        const fields = resourceFieldsOf(request.body)
        return presentResource(
          await resourcesOf(request).update(callerOf(request), name, fields),
          placeOf(request),
        )
      },
    )

    app.delete(
      '/resources/:resource_id',
      { config: { access: WRITE }, schema: { hide: true, params: ResourceParams } },
      async (request, reply) => {
        await resourcesOf(request).remove(callerOf(request), request.params.resource_id)
        return await reply.code(204).send()
      },
    )
  }
}
