import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { callerOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  ApiKeyIdParams,
  ApiKeySchema,
  CreateApiKeyBody,
  IssuedApiKeySchema,
  ListApiKeysQuery,
  newApiKey,
  presentApiKey,
  presentIssuedApiKey,
} from './schemas.ts'

/** Keys of machines. */
export function apiKeysRoutes({ apiKeys }: Pick<Services, 'apiKeys'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/api-keys',
      {
        config: { access: { permission: 'postern.api-keys:read' }, ignoresEnvironment: true },
        schema: {
          operationId: 'listApiKeys',
          tags: ['API keys'],
          summary: 'List API keys of every environment, revoked ones included',
          querystring: ListApiKeysQuery,
          response: { 200: Type.Array(ref(ApiKeySchema)) },
        },
      },
      async (request, reply) => {
        const { environment_id: environmentId } = request.query
        const page = await apiKeys.listKeys(
          callerOf(request),
          { ...(environmentId !== undefined && { environmentId }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentApiKey)
      },
    )

    app.post(
      '/api-keys',
      {
        config: { access: { permission: 'postern.api-keys:write' }, needsRecentAuthentication: true },
        schema: {
          operationId: 'createApiKey',
          tags: ['API keys'],
          summary: 'Create an API key; the key itself is shown only in this answer',
          body: CreateApiKeyBody,
          response: { 201: ref(IssuedApiKeySchema), 404: problem('No such environment or project') },
        },
      },
      async (request, reply) => {
        const issued = await apiKeys.createKey(
          callerOf(request),
          newApiKey(request.body),
          request.environmentId,
        )
        forbidCaching(reply)
        return reply
          .code(201)
          .header('location', `/api/v1/api-keys/${issued.id}`)
          .send(presentIssuedApiKey(issued))
      },
    )

    app.get(
      '/api-keys/:api_key_id',
      {
        config: { access: { permission: 'postern.api-keys:read' }, ignoresEnvironment: true },
        schema: {
          operationId: 'getApiKey',
          tags: ['API keys'],
          summary: 'Get an API key, without its secret',
          params: ApiKeyIdParams,
          response: { 200: ref(ApiKeySchema), 404: problem('No such API key') },
        },
      },
      async (request) => presentApiKey(await apiKeys.getKey(callerOf(request), request.params.api_key_id)),
    )

    app.delete(
      '/api-keys/:api_key_id',
      {
        config: { access: { permission: 'postern.api-keys:write' }, ignoresEnvironment: true },
        schema: {
          operationId: 'revokeApiKey',
          tags: ['API keys'],
          summary: 'Revoke an API key: it is refused at once and stays in the list',
          params: ApiKeyIdParams,
          response: { 204: NoContent, 404: problem('No such API key') },
        },
      },
      async (request, reply) => {
        await apiKeys.revokeKey(callerOf(request), request.params.api_key_id)
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/api-keys/:api_key_id/rotate',
      {
        config: {
          access: { permission: 'postern.api-keys:write' },
          ignoresEnvironment: true,
          needsRecentAuthentication: true,
        },
        schema: {
          operationId: 'rotateApiKey',
          tags: ['API keys'],
          summary: 'Replace the secret of an API key; the one before is refused at once',
          params: ApiKeyIdParams,
          response: {
            200: ref(IssuedApiKeySchema),
            404: problem('No such API key'),
            409: problem('The key was revoked'),
          },
        },
      },
      async (request, reply) => {
        const issued = await apiKeys.rotateKey(callerOf(request), request.params.api_key_id)
        forbidCaching(reply)
        return presentIssuedApiKey(issued)
      },
    )
  }
}
