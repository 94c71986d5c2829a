import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { DEFAULT_ACCOUNT_KEY } from '../accounts/service.ts'
import { fail } from '../errors.ts'
import { callerOf } from '../http/authenticate.ts'
import { problem, ref } from '../http/schemas.ts'
import { askedWithin, boundTo, isBound, mayCheck } from '../pdp/binding.ts'
import { splitResource } from '../pdp/mapping.ts'
import { type PlaceIds, placeIds, presentTenant, presentUser } from '../permit/schemas.ts'
import type { Question } from '../policy/engine/model.ts'
import type { Services } from '../services.ts'
import {
  CheckPermissionBody,
  CreateTenantBody,
  NotPermittedSchema,
  PermittedSchema,
  SyncedUserSchema,
  SyncUserBody,
  TenantSchema,
} from './schemas.ts'

type Dependencies = Pick<Services, 'modelOf'>

/** The three endpoints that Permit's guides for FastAPI and Flask build, for whoever calls them already. */
export function guidesRoutes({ modelOf }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const placeOf = async (request: FastifyRequest): Promise<PlaceIds> =>
    placeIds((await of(request).permit.findPlace()) ?? fail('environment_not_found'))

  /** The question of a body, about the account that it names or else the caller's own, or the first one. */
  async function questionOf(
    request: FastifyRequest,
    body: Static<typeof CheckPermissionBody>,
  ): Promise<Question> {
    const { user, resource, action, tenant, attributes, context } = body
    const named: Question['resource'] = typeof resource === 'string' ? splitResource(resource) : resource
    const asked: Question = {
      user: typeof user === 'string' ? { key: await userKeyOf(request, user) } : user,
      action: { name: action },
      resource: {
        ...named,
        tenant: tenant ?? named.tenant,
        attributes: { ...named.attributes, ...attributes },
      },
      context,
    }
    if (isBound(request)) return askedWithin(await boundTo(request, modelOf), asked)
    if (asked.resource.tenant !== undefined) return asked
    return { ...asked, resource: { ...asked.resource, tenant: DEFAULT_ACCOUNT_KEY } }
  }

  /** Decisions know people by key and id; an email is looked up. */
  async function userKeyOf(request: FastifyRequest, user: string): Promise<string> {
    if (!user.includes('@')) return user
    return (await of(request).permit.findUserKey(user)) ?? user
  }

  return async (app) => {
    app.post(
      '/sync-user',
      {
        config: { access: { permission: 'postern.users:write' } },
        schema: {
          operationId: 'syncUser',
          tags: ['Guides'],
          summary: 'Make somebody known to the policy, by email; the first time with the email as key',
          body: SyncUserBody,
          response: { 201: ref(SyncedUserSchema), 409: problem('The email is the key of somebody else') },
        },
      },
      async (request, reply) => {
        const { email, first_name: firstName, last_name: lastName } = request.body
        const { user, holdings } = await of(request).permit.syncUserByEmail(callerOf(request), email, {
          firstName,
          lastName,
        })
        return await reply.code(201).send(presentUser(user, holdings, await placeOf(request)))
      },
    )

    app.post(
      '/create-tenant',
      {
        config: { access: { permission: 'postern.accounts:write' } },
        schema: {
          operationId: 'createTenant',
          tags: ['Guides'],
          summary: 'Create an account',
          body: CreateTenantBody,
          response: { 201: ref(TenantSchema), 409: problem('The key is taken') },
        },
      },
      async (request, reply) => {
        const account = await of(request).accounts.createAccount(callerOf(request), request.body)
        return await reply.code(201).send(presentTenant(account, await placeOf(request)))
      },
    )

    app.post(
      '/check-permission',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'checkPermission',
          tags: ['Guides'],
          summary: 'May this user do that to this resource?',
          body: CheckPermissionBody,
          response: {
            200: PermittedSchema,
            403: {
              description: 'The user is not permitted, or the caller may not ask',
              content: {
                'application/json': { schema: NotPermittedSchema },
                ...problem('').content,
              },
            },
          },
        },
      },
      async (request, reply) => {
        const question = await questionOf(request, request.body)
        const { allowed } = await of(request).decisions.check(question, { requestId: request.id })
        if (allowed) return { message: 'User is permitted' }
        return await reply.code(403).send({ message: 'User is not permitted' })
      },
    )
  }
}
