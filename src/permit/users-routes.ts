import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { placeOf } from './place.ts'
import {
  CreateUserBody,
  nameOf,
  presentGrant,
  presentUser,
  SyncUserBody,
  UpdateUserBody,
  UserGrantBody,
  UsersQuery,
  userChanges,
} from './schemas.ts'
import type { Grant, UserWithHoldings } from './service.ts'
import type { UserPage } from './user-pages-repository.ts'

const READ: Access = { permission: 'postern.users:read' }
const WRITE: Access = { permission: 'postern.users:write' }
const DELETE: Access = { permission: 'postern.users:delete' }
const ASSIGN: Access = { permission: 'postern.roles:assign' }

const UserParams = Type.Object({ user_id: Type.String({ minLength: 1, maxLength: 512 }) })

/** Users, by key or id. */
export function usersRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const permitOf = (request: FastifyRequest) => modelOf(request.environmentId).permit
  const present = (request: FastifyRequest, { user, holdings }: UserWithHoldings) =>
    presentUser(user, holdings, placeOf(request))

  return async (app) => {
    app.get(
      '/users',
      { config: { access: READ }, schema: { hide: true, querystring: UsersQuery } },
      async (request, reply) => {
        const { page, per_page: perPage, search, role } = request.query
        const users = await permitOf(request).listUsers(
          { search: nameOf(search), role: nameOf(role) },
          { page, perPage },
          placeOf(request),
        )
        return await sendUsers(reply, users, perPage)
      },
    )

    app.post(
      '/users',
      { config: { access: WRITE }, schema: { hide: true, body: CreateUserBody } },
      async (request) => {
        const { key, role_assignments: grants, ...fields } = request.body
        const user = { ...userChanges(fields), key }
        return present(request, await permitOf(request).createUser(callerOf(request), user, grantsOf(grants)))
      },
    )

    app.get(
      '/users/:user_id',
      { config: { access: READ }, schema: { hide: true, params: UserParams } },
      async (request) => present(request, await permitOf(request).getUser(request.params.user_id)),
    )

    app.put(
      '/users/:user_id',
      { config: { access: WRITE }, schema: { hide: true, params: UserParams, body: SyncUserBody } },
      async (request, reply) => {
        const { key: _key, role_assignments: grants, ...fields } = request.body
        const { isNew, ...user } = await permitOf(request).syncUser(
          callerOf(request),
          request.params.user_id,
          userChanges(fields),
          grantsOf(grants),
        )
        return await reply.code(isNew ? 201 : 200).send(present(request, user))
      },
    )

    app.patch(
      '/users/:user_id',
      { config: { access: WRITE }, schema: { hide: true, params: UserParams, body: UpdateUserBody } },
      async (request) => {
        const { user_id: name } = request.params
        return present(
          request,
          await permitOf(request).updateUser(callerOf(request), name, userChanges(request.body)),
        )
      },
    )

    app.delete(
      '/users/:user_id',
      { config: { access: DELETE }, schema: { hide: true, params: UserParams } },
      async (request, reply) => {
        await permitOf(request).deleteUser(callerOf(request), request.params.user_id)
        return await reply.code(204).send()
      },
    )

    app.post(
      '/users/:user_id/roles',
      { config: { access: ASSIGN }, schema: { hide: true, params: UserParams, body: UserGrantBody } },
      async (request) =>
        presentGrant(
          await permitOf(request).assign(callerOf(request), grantOf(request.params.user_id, request.body)),
          placeOf(request),
        ),
    )

    app.delete(
      '/users/:user_id/roles',
      { config: { access: ASSIGN }, schema: { hide: true, params: UserParams, body: UserGrantBody } },
      async (request, reply) => {
        await permitOf(request).unassign(callerOf(request), grantOf(request.params.user_id, request.body))
        return await reply.code(204).send()
      },
    )
  }
}

/** Sends a page of people, which is JSON already. */
export const sendUsers = (reply: FastifyReply, { data, total }: UserPage, perPage: number) =>
  reply
    .type('application/json; charset=utf-8')
    .send(`{"data":${data},"total_count":${total},"page_count":${Math.ceil(total / perPage)}}`)

type GrantFields = Static<typeof UserGrantBody>

/** The role that a body names, for this user. */
export const grantOf = (user: string, { role, tenant, resource_instance: instance }: GrantFields): Grant => ({
  user,
  role,
  tenant: tenant ?? undefined,
  instance: instance ?? undefined,
})

/** Those of a new user. */
export const grantsOf = (grants: readonly GrantFields[] | null | undefined): Omit<Grant, 'user'>[] =>
  (grants ?? []).map((grant) => grantOf('', grant))
