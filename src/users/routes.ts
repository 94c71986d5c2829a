import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import { MembershipSchema, presentMembership } from '../accounts/schemas.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf, personOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { IfMatchHeaders, NoContent, problem, ref, UserIdParams } from '../http/schemas.ts'
import { ACCEPTED, AcceptedSchema } from '../mail-links/schemas.ts'
import type { BuiltinPermission } from '../permissions.ts'
import type { Services } from '../services.ts'
import {
  CreateUserBody,
  ListUsersQuery,
  PermissionsSchema,
  presentUser,
  RegisterUserBody,
  UpdateOwnBody,
  UpdateUserBody,
  UserSchema,
  userFields,
  userFilters,
} from './schemas.ts'

type Dependencies = Pick<
  Services,
  'users' | 'accounts' | 'modelOf' | 'auth' | 'mailLinks' | 'locks' | 'config'
>

const userIdOf = (request: FastifyRequest): string => (request.params as { user_id: string }).user_id

/** People: administrators' management, self-service and registration. */
export function usersRoutes({
  users,
  accounts,
  modelOf,
  auth,
  mailLinks,
  locks,
  config,
}: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  /** Reads reach every account that the person is a member of; writes only the home account. */
  const anyUser = (permission: BuiltinPermission): Access => ({ permission })
  const member = (permission: BuiltinPermission): Access => ({
    permission,
    accounts: async (request) => await of(request).users.accountsOf(userIdOf(request)),
    otherwise: 'user_not_found',
  })
  const resident = (permission: BuiltinPermission): Access => ({
    permission,
    accounts: async (request) => await of(request).users.homeAccountOf(userIdOf(request)),
    otherwise: 'user_not_found',
  })

  return async (app) => {
    app.get(
      '/users',
      {
        config: { access: anyUser('postern.users:read') },
        schema: {
          operationId: 'listUsers',
          tags: ['Users'],
          summary: 'List users',
          querystring: ListUsersQuery,
          response: { 200: Type.Array(ref(UserSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).users.listUsers(
          userFilters(request.query),
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentUser)
      },
    )

    app.post(
      '/users',
      {
        config: { access: anyUser('postern.users:write') },
        schema: {
          operationId: 'createUser',
          tags: ['Users'],
          summary: 'Create a user',
          body: CreateUserBody,
          response: {
            201: ref(UserSchema),
            404: problem('No such account'),
            409: problem('The email or key is taken'),
          },
        },
      },
      async (request, reply) => {
        const { email, password, ...fields } = request.body
        const user = await of(request).users.createUser(callerOf(request), {
          ...userFields(fields),
          ...(email !== undefined && { email }),
          ...(password !== undefined && { password }),
        })
        setEtag(reply, user)
        return reply.code(201).header('location', `/api/v1/users/${user.id}`).send(presentUser(user))
      },
    )

    const registration = <const R extends object>(answers: R) =>
      ({
        config: { access: 'public' },
        schema: {
          operationId: 'registerUser',
          tags: ['Users'],
          summary: 'Register oneself, when open registration is on',
          body: RegisterUserBody,
          response: {
            ...answers,
            403: problem('Open registration is off'),
            429: problem('Too many registrations from this address'),
          },
        },
      }) as const

    async function register(request: FastifyRequest<{ Body: Static<typeof RegisterUserBody> }>) {
      if (!config.registration.isOpen) throw new AppError('registration_closed')
      const { email, password, ...fields } = request.body
      await auth.registrationFrom(request.ip)
      return await mailLinks.register(
        { principal: undefined, requestId: request.id, address: request.ip },
        { ...userFields(fields), email, password },
      )
    }

    // Where addresses must be confirmed, nobody is told here whether one is taken.
    if (config.mail.verification === 'required') {
      app.post('/users/open', registration({ 202: ref(AcceptedSchema) }), async (request, reply) => {
        await register(request)
        return reply.code(202).send(ACCEPTED)
      })
    } else {
      const answers = { 201: ref(UserSchema), 409: problem('The email is taken') }
      app.post('/users/open', registration(answers), async (request, reply) => {
        const user = (await register(request)) ?? fail('email_taken')
        return reply.code(201).header('location', '/api/v1/users/me').send(presentUser(user))
      })
    }

    app.get(
      '/users/me',
      {
        config: {
          access: 'signed-in',
          isOpenBefore: ['password_change', 'second_factor'],
          ignoresEnvironment: true,
        },
        schema: {
          operationId: 'getOwnUser',
          tags: ['Users'],
          summary: 'The signed-in user',
          response: { 200: ref(UserSchema) },
        },
      },
      async (request, reply) => {
        const { holder } = personOf(request)
        setEtag(reply, holder)
        return presentUser(holder)
      },
    )

    const updateOwn = (operationId: string) =>
      ({
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId,
          tags: ['Users'],
          summary: 'Change one’s own record; an email only as an administrator of every account',
          headers: IfMatchHeaders,
          body: UpdateOwnBody,
          response: {
            200: ref(UserSchema),
            409: problem('The email is taken'),
            412: problem('The record has changed'),
          },
        },
      }) as const

    for (const method of ['put', 'patch'] as const) {
      app[method](
        '/users/me',
        updateOwn(`${method === 'put' ? 'put' : 'patch'}OwnUser`),
        async (request, reply) => {
          const { principal } = personOf(request)
          const changes = userFields(request.body)
          const user = await users.updateOwn(callerOf(request), principal.userId, changes, ifMatchOf(request))
          setEtag(reply, user)
          return presentUser(user)
        },
      )
    }

    app.get(
      '/users/me/permissions',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'getOwnPermissions',
          tags: ['Users'],
          summary: 'What the signed-in user may do in the account of the token, by the roles held now',
          response: { 200: ref(PermissionsSchema) },
        },
      },
      async (request) => {
        const { principal } = personOf(request)
        const { accountId, ...permissions } = await auth.effectivePermissions(
          principal.userId,
          principal.accountId,
        )
        return { account_id: accountId, ...permissions }
      },
    )

    app.get(
      '/users/me/accounts',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'listOwnAccounts',
          tags: ['Users'],
          summary: 'The accounts that the signed-in user belongs to',
          response: { 200: Type.Array(ref(MembershipSchema)) },
        },
      },
      async (request) =>
        (await accounts.listMemberships(personOf(request).principal.userId)).map(presentMembership),
    )

    app.get(
      '/users/:user_id',
      {
        config: { access: member('postern.users:read') },
        schema: {
          operationId: 'getUser',
          tags: ['Users'],
          summary: 'Get a user',
          params: UserIdParams,
          response: { 200: ref(UserSchema), 404: problem('No such user') },
        },
      },
      async (request, reply) => {
        const user = await of(request).users.getUser(request.params.user_id)
        setEtag(reply, user)
        return presentUser(user)
      },
    )

    const updateUser = (operationId: string) =>
      ({
        config: { access: resident('postern.users:write') },
        schema: {
          operationId,
          tags: ['Users'],
          summary: 'Change a user: absent fields stay, null clears',
          description:
            'Another email or a password asks a person to have authenticated recently. Of who belongs to other accounts, ' +
            'those, key, attributes and activity are for administrators of every account; one’s own password is changed ' +
            'at POST /api/v1/auth/change-password.',
          params: UserIdParams,
          headers: IfMatchHeaders,
          body: UpdateUserBody,
          response: {
            200: ref(UserSchema),
            404: problem('No such user or account'),
            409: problem(
              'The email or key is taken, the user belongs to other accounts, or this is the last super admin',
            ),
            412: problem('The record has changed'),
          },
        },
      }) as const

    for (const method of ['put', 'patch'] as const) {
      app[method]('/users/:user_id', updateUser(`${method}User`), async (request, reply) => {
        const { password, ...fields } = request.body
        const update = { ...userFields(fields), ...(password !== undefined && { password }) }
        const user = await of(request).users.updateUser(
          callerOf(request),
          request.params.user_id,
          update,
          ifMatchOf(request),
        )
        setEtag(reply, user)
        return presentUser(user)
      })
    }

    app.delete(
      '/users/:user_id',
      {
        config: {
          access: {
            permission: 'postern.users:delete',
            accounts: async (request) => await of(request).users.homeAccountOf(userIdOf(request)),
            otherwise: 'user_not_found',
          },
          needsRecentAuthentication: true,
        },
        schema: {
          operationId: 'deleteUser',
          tags: ['Users'],
          summary: 'Delete a user; every session ends and the email is free again',
          params: UserIdParams,
          headers: IfMatchHeaders,
          response: {
            204: NoContent,
            404: problem('No such user'),
            409: problem('This is the last super admin, or the user belongs to other accounts'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        await of(request).users.deleteUser(callerOf(request), request.params.user_id, ifMatchOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/users/:user_id/unlock',
      {
        config: { access: resident('postern.users:write'), needsRecentAuthentication: true },
        schema: {
          operationId: 'unlockUser',
          tags: ['Users'],
          summary: 'End the waits and stops after wrong passwords and codes of a user',
          params: UserIdParams,
          response: {
            204: NoContent,
            404: problem('No such user'),
            409: problem('It is a machine that asks, or the user belongs to other accounts'),
          },
        },
      },
      async (request, reply) => {
        // Whoever is in another environment does not sign in, and is never locked.
        if (request.environmentId !== DEFAULT_ENVIRONMENT) throw new AppError('user_not_found')
        await locks.unlock(callerOf(request), request.params.user_id)
        return reply.code(204).send(null)
      },
    )

    for (const [verb, isActive] of [
      ['deactivate', false],
      ['reactivate', true],
    ] as const) {
      app.post(
        `/users/:user_id/${verb}`,
        {
          config: { access: resident('postern.users:write') },
          schema: {
            operationId: `${verb}User`,
            tags: ['Users'],
            summary: isActive
              ? 'Let a user sign in again'
              : 'Refuse a user everywhere, at once; every session ends',
            params: UserIdParams,
            headers: IfMatchHeaders,
            response: {
              200: ref(UserSchema),
              412: problem('The record has changed'),
              404: problem('No such user'),
              409: problem(
                isActive
                  ? 'The user belongs to other accounts, or a machine asks about somebody who can sign in'
                  : 'This is the last super admin, or the user belongs to other accounts',
              ),
            },
          },
        },
        async (request, reply) => {
          const user = await of(request).users.setActive(
            callerOf(request),
            request.params.user_id,
            isActive,
            ifMatchOf(request),
          )
          setEtag(reply, user)
          return presentUser(user)
        },
      )
    }
  }
}
