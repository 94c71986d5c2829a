import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { fail } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf, personOf } from '../http/authenticate.ts'
import { setEtag } from '../http/etag.ts'
import { NoContent, problem, ref, UserIdParams } from '../http/schemas.ts'
import type { UserPrincipal } from '../principal.ts'
import type { Services } from '../services.ts'
import { presentUser, UserSchema } from '../users/schemas.ts'

const exported = {
  description:
    'The record, credentials without secrets, factors, sessions, memberships, roles, events and more',
  content: {
    'application/json': { schema: Type.Unsafe<Readable>({ type: 'object', additionalProperties: true }) },
  },
}

/** What is known of somebody, its end, and the way back. */
export function erasureRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).erasure
  const resident: Access = {
    permission: 'postern.users:delete',
    accounts: async (request) =>
      await of(request).homeAccountOf((request.params as { user_id: string }).user_id),
    otherwise: 'user_not_found',
  }

  return async (app) => {
    app.get(
      '/users/me/export',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'exportOwnUser',
          tags: ['Users'],
          summary: 'Everything that is stored about oneself',
          response: { 200: exported },
        },
      },
      async (request, reply) => {
        const document = await of(request).exportOwn(callerOf(request), undelegated(request))
        return reply.type('application/json').send(Readable.from(document))
      },
    )

    app.delete(
      '/users/me',
      {
        config: { access: 'signed-in', ignoresEnvironment: true, needsRecentAuthentication: true },
        schema: {
          operationId: 'deleteOwnUser',
          tags: ['Users'],
          summary: 'Delete oneself: every session ends, and after a while everything personal is erased',
          response: { 204: NoContent, 409: problem('This is the last super admin') },
        },
      },
      async (request, reply) => {
        await of(request).deleteOwn(callerOf(request), undelegated(request))
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/users/:user_id/export',
      {
        // What is known of somebody reaches beyond any one account.
        config: { access: { permission: 'postern.users:read' } },
        schema: {
          operationId: 'exportUser',
          tags: ['Users'],
          summary: 'Everything that is stored about a user; one who is deleted too, until it is erased',
          params: UserIdParams,
          response: {
            200: exported,
            404: problem('No such user'),
            409: problem('A machine asks about somebody who can sign in'),
          },
        },
      },
      async (request, reply) => {
        const document = await of(request).exportUser(callerOf(request), request.params.user_id)
        return reply.type('application/json').send(Readable.from(document))
      },
    )

    app.post(
      '/users/:user_id/erase',
      {
        config: { access: resident, needsRecentAuthentication: true },
        schema: {
          operationId: 'eraseUser',
          tags: ['Users'],
          summary: 'Remove everything personal about a user, at once and for good',
          params: UserIdParams,
          response: {
            204: NoContent,
            404: problem('No such user'),
            409: problem('This is the last super admin'),
          },
        },
      },
      async (request, reply) => {
        await of(request).eraseUser(callerOf(request), request.params.user_id)
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/users/:user_id/restore',
      {
        config: { access: resident },
        schema: {
          operationId: 'restoreUser',
          tags: ['Users'],
          summary: 'Undo the deletion of a user, within USER_DELETION_GRACE_DAYS',
          params: UserIdParams,
          response: {
            200: ref(UserSchema),
            404: problem('No such user, or what was known is erased'),
            409: problem('The user is not deleted, or the email or key is taken'),
          },
        },
      },
      async (request, reply) => {
        const user = await of(request).restoreUser(callerOf(request), request.params.user_id)
        setEtag(reply, user)
        return presentUser(user)
      },
    )
  }
}

/** What concerns a person's whole record is not for who acts for them. @throws AppError insufficient_scope */
function undelegated(request: FastifyRequest): UserPrincipal {
  const { principal } = personOf(request)
  return principal.actingClientId === undefined ? principal : fail('insufficient_scope')
}
