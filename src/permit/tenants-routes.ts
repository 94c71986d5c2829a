import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { placeOf } from './place.ts'
import {
  CreateTenantBody,
  CreateUserBody,
  nameOf,
  presentTenant,
  presentUser,
  TenantsQuery,
  UpdateTenantBody,
  UsersQuery,
  userChanges,
} from './schemas.ts'
import { grantsOf, sendUsers } from './users-routes.ts'

const READ: Access = { permission: 'postern.accounts:read' }
const WRITE: Access = { permission: 'postern.accounts:write' }
const DELETE: Access = { permission: 'postern.accounts:delete' }
const READ_USERS: Access = { permission: 'postern.users:read' }
const WRITE_USERS: Access = { permission: 'postern.users:write' }
const ASSIGN: Access = { permission: 'postern.roles:assign' }

const Name = Type.String({ minLength: 1, maxLength: 512 })
const TenantParams = Type.Object({ tenant_id: Name })
const TenantUserParams = Type.Object({ tenant_id: Name, user_id: Name })

/** Tenants, by key or id, and who belongs to them. */
export function tenantsRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)

  return async (app) => {
    app.get(
      '/tenants',
      { config: { access: READ }, schema: { hide: true, querystring: TenantsQuery } },
      async (request) => {
        const { page, per_page: perPage, search, include_total_count: counts } = request.query
        const q = nameOf(search)
        const { items, total = 0 } = await of(request).accounts.listAccounts(q === undefined ? {} : { q }, {
          limit: perPage,
          skip: (page - 1) * perPage,
          sort: 'created_at',
          total: counts,
        })
        const data = items.map((account) => presentTenant(account, placeOf(request)))
        return counts ? { data, total_count: total, page_count: Math.ceil(total / perPage) } : data
      },
    )

    app.post(
      '/tenants',
      { config: { access: WRITE }, schema: { hide: true, body: CreateTenantBody } },
      async (request) => {
        const { key, name, description = null, attributes = null } = request.body
        const account = await of(request).accounts.createAccount(callerOf(request), {
          key,
          name,
          description,
          attributes,
        })
        return presentTenant(account, placeOf(request))
      },
    )

    app.get(
      '/tenants/:tenant_id',
      { config: { access: READ }, schema: { hide: true, params: TenantParams } },
      async (request) =>
        presentTenant(await of(request).permit.getAccount(request.params.tenant_id), placeOf(request)),
    )

    app.patch(
      '/tenants/:tenant_id',
      { config: { access: WRITE }, schema: { hide: true, params: TenantParams, body: UpdateTenantBody } },
      async (request) => {
        const { permit, accounts } = of(request)
        const { id } = await permit.getAccount(request.params.tenant_id)
        const { name, description, attributes } = request.body
        const changes = {
          ...(name != null && { name }),
          ...(description !== undefined && { description }),
          ...(attributes !== undefined && { attributes }),
        }
        return presentTenant(
          await accounts.updateAccount(callerOf(request), id, changes, undefined),
          placeOf(request),
        )
      },
    )

    app.delete(
      '/tenants/:tenant_id',
      { config: { access: DELETE }, schema: { hide: true, params: TenantParams } },
      async (request, reply) => {
        const { permit, accounts } = of(request)
        const { id } = await permit.getAccount(request.params.tenant_id)
        await accounts.deleteSynced(callerOf(request), id)
        return await reply.code(204).send()
      },
    )

    app.get(
      '/tenants/:tenant_id/users',
      {
        config: { access: READ_USERS },
        schema: { hide: true, params: TenantParams, querystring: UsersQuery },
      },
      async (request, reply) => {
        const { permit } = of(request)
        const { page, per_page: perPage, search, role } = request.query
        const { id: accountId } = await permit.getAccount(request.params.tenant_id)
        const users = await permit.listUsers(
          { search: nameOf(search), role: nameOf(role), accountId },
          { page, perPage },
          placeOf(request),
        )
        return await sendUsers(reply, users, perPage)
      },
    )

    app.post(
      '/tenants/:tenant_id/users',
      { config: { access: WRITE_USERS }, schema: { hide: true, params: TenantParams, body: CreateUserBody } },
      async (request) => {
        const { key, role_assignments: grants, ...fields } = request.body
        const { user, holdings } = await of(request).permit.addUserToAccount(
          callerOf(request),
          request.params.tenant_id,
          { ...userChanges(fields), key },
          grantsOf(grants),
        )
        return presentUser(user, holdings, placeOf(request))
      },
    )

    app.delete(
      '/tenants/:tenant_id/users/:user_id',
      { config: { access: ASSIGN }, schema: { hide: true, params: TenantUserParams } },
      async (request, reply) => {
        const { tenant_id: tenant, user_id: user } = request.params
        await of(request).permit.removeUserFromAccount(callerOf(request), tenant, user)
        return await reply.code(204).send()
      },
    )
  }
}
