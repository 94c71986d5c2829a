import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import type { UserToWrite } from './bulk.ts'
import { CreateTenantsBody, DeleteTenantsBody, DeleteUsersBody, WriteUsersBody } from './bulk-schemas.ts'
import { userChanges } from './schemas.ts'
import { grantsOf } from './users-routes.ts'

const WRITE_USERS: Access = { permission: 'postern.users:write' }
const DELETE_USERS: Access = { permission: 'postern.users:delete' }
const WRITE_TENANTS: Access = { permission: 'postern.accounts:write' }
const DELETE_TENANTS: Access = { permission: 'postern.accounts:delete' }

type Dependencies = Pick<Services, 'modelOf'> & { bulkBodyLimit: number }

/** Users and tenants, many at a time: all of a request or nothing. */
export function bulkRoutes({ modelOf, bulkBodyLimit: bodyLimit }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).permitBulk

  return async (app) => {
    app.post(
      '/bulk/users',
      { bodyLimit, config: { access: WRITE_USERS }, schema: { hide: true, body: WriteUsersBody } },
      async (request) => {
        await of(request).createUsers(callerOf(request), request.body.operations.map(toWrite))
        return {}
      },
    )

    app.put(
      '/bulk/users',
      { bodyLimit, config: { access: WRITE_USERS }, schema: { hide: true, body: WriteUsersBody } },
      async (request) => {
        await of(request).replaceUsers(callerOf(request), request.body.operations.map(toWrite))
        return {}
      },
    )

    app.delete(
      '/bulk/users',
      { bodyLimit, config: { access: DELETE_USERS }, schema: { hide: true, body: DeleteUsersBody } },
      async (request) => {
        await of(request).deleteUsers(callerOf(request), request.body.idents)
        return {}
      },
    )

    app.post(
      '/bulk/tenants',
      { bodyLimit, config: { access: WRITE_TENANTS }, schema: { hide: true, body: CreateTenantsBody } },
      async (request) => {
        const tenants = request.body.operations.map(
          ({ key, name, description = null, attributes = null }) => ({ key, name, description, attributes }),
        )
        await of(request).createTenants(callerOf(request), tenants)
        return {}
      },
    )

    app.delete(
      '/bulk/tenants',
      { bodyLimit, config: { access: DELETE_TENANTS }, schema: { hide: true, body: DeleteTenantsBody } },
      async (request) => {
        await of(request).deleteTenants(callerOf(request), request.body.idents)
        return {}
      },
    )
  }
}

type Operation = Static<typeof WriteUsersBody>['operations'][number]

const toWrite = ({ key, role_assignments: grants, ...fields }: Operation): UserToWrite => ({
  user: { key, ...userChanges(fields) },
  grants: grantsOf(grants),
})
