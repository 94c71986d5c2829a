import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { placeOf } from './place.ts'
import {
  BulkGrantsQuery,
  GrantBody,
  GrantsBody,
  GrantsQuery,
  nameOf,
  namesOf,
  presentDetailedGrant,
  presentGrant,
} from './schemas.ts'
import { grantOf } from './users-routes.ts'

const READ: Access = { permission: 'postern.roles:read' }
const ASSIGN: Access = { permission: 'postern.roles:assign' }

/** Who holds which role, in a tenant or on an instance. */
export function grantsRoutes({
  modelOf,
  bulkBodyLimit: bodyLimit,
}: Pick<Services, 'modelOf'> & { bulkBodyLimit: number }): FastifyPluginAsyncTypebox {
  const permitOf = (request: FastifyRequest) => modelOf(request.environmentId).permit
  const bulkOf = (request: FastifyRequest) => modelOf(request.environmentId).permitBulk

  return async (app) => {
    app.get(
      '/role_assignments',
      { config: { access: READ }, schema: { hide: true, querystring: GrantsQuery } },
      async (request) => {
        const { page, per_page: perPage, detailed, include_total_count: counts, ...query } = request.query
        const filters = {
          users: namesOf(query.user),
          roles: namesOf(query.role),
          tenants: namesOf(query.tenant),
          resource: nameOf(query.resource),
          instance: nameOf(query.resource_instance),
        }
        const present = detailed ? presentDetailedGrant : presentGrant
        const grants = await permitOf(request).listGrants(filters, { page, perPage })
        const data = grants.map((grant) => present(grant, placeOf(request)))
        if (!counts) return data
        const total = await permitOf(request).countGrants(filters)
        return { data, total_count: total, page_count: Math.ceil(total / perPage) }
      },
    )

    app.post(
      '/role_assignments',
      { config: { access: ASSIGN }, schema: { hide: true, body: GrantBody } },
      async (request) =>
        presentGrant(
          await permitOf(request).assign(callerOf(request), grantOf(request.body.user, request.body)),
          placeOf(request),
        ),
    )

    app.delete(
      '/role_assignments',
      { config: { access: ASSIGN }, schema: { hide: true, body: GrantBody } },
      async (request, reply) => {
        await permitOf(request).unassign(callerOf(request), grantOf(request.body.user, request.body))
        return await reply.code(204).send()
      },
    )

    app.post(
      '/role_assignments/bulk',
      {
        bodyLimit,
        config: { access: ASSIGN },
        schema: { hide: true, body: GrantsBody, querystring: BulkGrantsQuery },
      },
      async (request) => ({
        assignments_created: await bulkOf(request).assign(
          callerOf(request),
          request.body.map((body) => grantOf(body.user, body)),
          request.query.missing_user_policy,
        ),
      }),
    )

    app.delete(
      '/role_assignments/bulk',
      { bodyLimit, config: { access: ASSIGN }, schema: { hide: true, body: GrantsBody } },
      async (request) => ({
        assignments_removed: await bulkOf(request).unassign(
          callerOf(request),
          request.body.map((body) => grantOf(body.user, body)),
        ),
      }),
    )
  }
}
