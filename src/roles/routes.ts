import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import {
  AssignmentParams,
  IfMatchHeaders,
  NoContent,
  problem,
  RoleIdParams,
  ref,
  UserIdParams,
} from '../http/schemas.ts'
import { holdsIn } from '../permissions.ts'
import type { Services } from '../services.ts'
import {
  AssignFurtherBody,
  AssignmentSchema,
  AssignPrimaryBody,
  assignmentTerms,
  ChangePrimaryBody,
  CreateRoleBody,
  ListRolesQuery,
  newRole,
  presentAssignment,
  presentRole,
  presentUserRole,
  RoleSchema,
  roleFields,
  UpdateRoleBody,
  UserRoleSchema,
} from './schemas.ts'

type Dependencies = Pick<Services, 'modelOf'>

/** Roles, the primary role of a user, and further roles in further accounts. */
export function rolesRoutes({ modelOf }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const userIdOf = (request: FastifyRequest): string =>
    (request.params as { user_id?: string }).user_id ?? (request.body as { user_id: string }).user_id

  const assignPrimary: Access = {
    permission: 'postern.roles:assign',
    accounts: async (request) => await of(request).users.homeAccountOf(userIdOf(request)),
    otherwise: 'user_not_found',
  }
  const assignFurther: Access = {
    permission: 'postern.roles:assign',
    accounts: async (request) => await of(request).users.accountsOf(userIdOf(request)),
    otherwise: 'user_not_found',
  }

  return async (app) => {
    app.get(
      '/roles',
      {
        config: { access: 'signed-in' },
        schema: {
          operationId: 'listRoles',
          tags: ['Roles'],
          summary: 'List roles with their scopes',
          querystring: ListRolesQuery,
          response: { 200: Type.Array(ref(RoleSchema)) },
        },
      },
      async (request, reply) => {
        const { key } = request.query
        const page = await of(request).roles.listRoles(
          { ...(key !== undefined && { key }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentRole)
      },
    )

    app.post(
      '/roles',
      {
        config: { access: { permission: 'postern.roles:write' } },
        schema: {
          operationId: 'createRole',
          tags: ['Roles'],
          summary: 'Create a role; resources and actions that its scopes name are declared on the way',
          body: CreateRoleBody,
          response: { 201: ref(RoleSchema), 409: problem('The key is taken, or there are too many roles') },
        },
      },
      async (request, reply) => {
        const role = await of(request).roles.createRole(callerOf(request), newRole(request.body))
        setEtag(reply, role)
        return reply.code(201).header('location', `/api/v1/roles/${role.id}`).send(presentRole(role))
      },
    )

    app.get(
      '/roles/:role_id',
      {
        config: { access: 'signed-in' },
        schema: {
          operationId: 'getRole',
          tags: ['Roles'],
          summary: 'Get a role',
          params: RoleIdParams,
          response: { 200: ref(RoleSchema), 404: problem('No such role') },
        },
      },
      async (request, reply) => {
        const role = await of(request).roles.getRole(request.params.role_id)
        setEtag(reply, role)
        return presentRole(role)
      },
    )

    for (const method of ['put', 'patch'] as const) {
      app[method](
        '/roles/:role_id',
        {
          config: { access: { permission: 'postern.roles:write' } },
          schema: {
            operationId: `${method}Role`,
            tags: ['Roles'],
            summary: 'Change a role: absent fields stay. Tokens of those who lose a scope by it end at once',
            params: RoleIdParams,
            headers: IfMatchHeaders,
            body: UpdateRoleBody,
            response: {
              200: ref(RoleSchema),
              404: problem('No such role'),
              409: problem('The role is built in, or a resource would have too many actions'),
              412: problem('The record has changed'),
            },
          },
        },
        async (request, reply) => {
          const role = await of(request).roles.updateRole(
            callerOf(request),
            request.params.role_id,
            roleFields(request.body),
            ifMatchOf(request),
          )
          setEtag(reply, role)
          return presentRole(role)
        },
      )
    }

    app.delete(
      '/roles/:role_id',
      {
        config: { access: { permission: 'postern.roles:write' } },
        schema: {
          operationId: 'deleteRole',
          tags: ['Roles'],
          summary: 'Delete a role that nobody holds',
          params: RoleIdParams,
          headers: IfMatchHeaders,
          response: {
            204: NoContent,
            404: problem('No such role'),
            409: problem('The role is built in, or still held'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        await of(request).roles.deleteRole(callerOf(request), request.params.role_id, ifMatchOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/user-roles',
      {
        config: { access: assignPrimary },
        schema: {
          operationId: 'assignPrimaryRole',
          tags: ['Roles'],
          summary: 'Give a user the primary role',
          body: AssignPrimaryBody,
          response: {
            201: ref(UserRoleSchema),
            404: problem('No such user or role'),
            409: problem('The user has a primary role already, or no home account'),
          },
        },
      },
      async (request, reply) => {
        const { user_id, role_id } = request.body
        const assignment = await of(request).roles.assignPrimary(callerOf(request), user_id, role_id)
        return reply
          .code(201)
          .header('location', `/api/v1/user-roles/${user_id}`)
          .send(presentUserRole(assignment))
      },
    )

    app.get(
      '/user-roles/:user_id',
      {
        config: {
          access: {
            permission: 'postern.users:read',
            accounts: async (request) => await of(request).users.accountsOf(userIdOf(request)),
            otherwise: 'user_not_found',
          },
        },
        schema: {
          operationId: 'getPrimaryRole',
          tags: ['Roles'],
          summary: 'The primary role of a user',
          params: UserIdParams,
          response: { 200: ref(UserRoleSchema), 404: problem('No such user, or no role assigned') },
        },
      },
      async (request) => presentUserRole(await of(request).roles.getPrimary(request.params.user_id)),
    )

    for (const method of ['put', 'patch'] as const) {
      app[method](
        '/user-roles/:user_id',
        {
          config: { access: assignPrimary },
          schema: {
            operationId: `${method}PrimaryRole`,
            tags: ['Roles'],
            summary: 'Replace the primary role of a user',
            params: UserIdParams,
            body: ChangePrimaryBody,
            response: {
              200: ref(UserRoleSchema),
              404: problem('No such user or role, or no role assigned'),
              409: problem('This is the last super admin, or the user has no home account'),
            },
          },
        },
        async (request) => {
          const { user_id } = request.params
          return presentUserRole(
            await of(request).roles.changePrimary(callerOf(request), user_id, request.body.role_id),
          )
        },
      )
    }

    app.delete(
      '/user-roles/:user_id',
      {
        config: { access: assignPrimary },
        schema: {
          operationId: 'removePrimaryRole',
          tags: ['Roles'],
          summary: 'Take the primary role of a user away',
          params: UserIdParams,
          response: {
            204: NoContent,
            404: problem('No such user, or no role assigned'),
            409: problem('This is the last super admin'),
          },
        },
      },
      async (request, reply) => {
        await of(request).roles.removePrimary(callerOf(request), request.params.user_id)
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/users/:user_id/roles',
      {
        config: {
          access: {
            permission: 'postern.users:read',
            accounts: async (request) => await of(request).users.accountsOf(userIdOf(request)),
            otherwise: 'user_not_found',
          },
        },
        schema: {
          operationId: 'listUserRoles',
          tags: ['Roles'],
          summary: 'Every role that a user holds, in the accounts that the caller may read',
          params: UserIdParams,
          response: { 200: Type.Array(ref(AssignmentSchema)), 404: problem('No such user') },
        },
      },
      async (request) => {
        const { principal } = callerOf(request)
        const held = await of(request).roles.listAssignments(request.params.user_id)
        // What somebody holds in other accounts is those accounts' business.
        return held
          .filter(
            ({ accountId }) => accountId === null || holdsIn(principal, 'postern.users:read', accountId),
          )
          .map(presentAssignment)
      },
    )

    app.post(
      '/users/:user_id/roles',
      {
        config: { access: assignFurther },
        schema: {
          operationId: 'assignRole',
          tags: ['Roles'],
          summary:
            'Give a user a further role, in an account, in every account or on an instance of a resource',
          params: UserIdParams,
          body: AssignFurtherBody,
          response: {
            201: ref(AssignmentSchema),
            404: problem('No such user, role, account or instance'),
            409: problem('The user holds it already'),
          },
        },
      },
      async (request, reply) => {
        const { user_id } = request.params
        const { role_id, account_id } = request.body
        const assignment = await of(request).roles.assignFurther(
          callerOf(request),
          user_id,
          role_id,
          account_id,
          assignmentTerms(request.body),
        )
        return reply
          .code(201)
          .header('location', `/api/v1/users/${user_id}/roles/${assignment.id}`)
          .send(presentAssignment(assignment))
      },
    )

    app.delete(
      '/users/:user_id/roles/:assignment_id',
      {
        config: { access: assignFurther },
        schema: {
          operationId: 'unassignRole',
          tags: ['Roles'],
          summary: 'Take a role away from a user',
          params: AssignmentParams,
          response: {
            204: NoContent,
            404: problem('No such user or assignment'),
            409: problem('This is the last super admin'),
          },
        },
      },
      async (request, reply) => {
        const { user_id, assignment_id } = request.params
        await of(request).roles.removeAssignment(callerOf(request), user_id, assignment_id)
        return reply.code(204).send(null)
      },
    )
  }
}
