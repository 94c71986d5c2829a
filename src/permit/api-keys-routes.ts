import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyContextConfig, FastifyRequest } from 'fastify'
import type { ApiKeyRow } from '../api-keys/repository.ts'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import { environmentInHeader } from '../http/environment.ts'
import { isUuid } from '../ids.ts'
import type { Services } from '../services.ts'
import {
  CreateKeyBody,
  KeyParams,
  KeysQuery,
  levelOf,
  newApiKey,
  OwnKeyParams,
  presentApiKey,
  presentIssuedApiKey,
} from './api-keys-schemas.ts'
import { dashed } from './names.ts'
import { listed, nameOf, ORGANIZATION_ID } from './schemas.ts'

const open = (access: Access): FastifyContextConfig => ({
  access,
  ignoresEnvironment: true,
  spansEnvironments: true,
})
const READ = open({ permission: 'postern.api-keys:read' })
const WRITE = open({ permission: 'postern.api-keys:write' })
/** Held by every key that writes; the service says which of those of full access, and which people, see a secret. */
const SHOW = { ...open({ permission: 'postern.policy:write' }), needsRecentAuthentication: true }
/** What a stolen token of a person would make itself last with. */
const GIVE = { ...WRITE, needsRecentAuthentication: true }

type Dependencies = Pick<Services, 'apiKeys' | 'environments'>

/** Keys of machines: what the one that asks opens, and those that it manages. Revoked ones are not there. */
export function apiKeysRoutes({ apiKeys, environments }: Dependencies): FastifyPluginAsyncTypebox {
  async function inForce(request: FastifyRequest, name: string): Promise<ApiKeyRow> {
    const id = dashed(name).toLowerCase()
    const key = isUuid(id) ? await apiKeys.getKey(callerOf(request), id) : undefined
    if (!key || key.revokedAt !== null) throw new AppError('api_key_not_found')
    return key
  }

  return async (app) => {
    app.get('/scope', { config: open('signed-in'), schema: { hide: true } }, async (request) => {
      const caller = callerOf(request)
      const { principal } = caller
      const scope = { organization_id: ORGANIZATION_ID, project_id: null, environment_id: null }
      if (principal.type === 'api_key' && principal.level === 'org') return scope
      if (principal.type === 'api_key' && principal.project !== null)
        return { ...scope, project_id: (await environments.getProjectNamed(caller, principal.project)).id }
      const { environmentId } = await environments.enter(principal, environmentInHeader(request))
      const { id, projectId } = await environments.getEnvironment(caller, environmentId)
      return { ...scope, project_id: projectId, environment_id: id }
    })

    app.get('/', { config: READ, schema: { hide: true, querystring: KeysQuery } }, async (request) => {
      const { page, per_page: perPage, object_type: objectType, proj_id: projectName } = request.query
      const caller = callerOf(request)
      const named = nameOf(projectName)
      const project = named === undefined ? undefined : await environments.getProjectNamed(caller, named)
      const { items, total = 0 } = await apiKeys.listKeys(
        caller,
        {
          isRevoked: false,
          ...(objectType !== undefined && { level: levelOf(objectType) }),
          ...(project && { withinProject: project.key }),
        },
        { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total: true },
      )
      return listed(items.map(presentApiKey), total, perPage)
    })

    app.post('/', { config: GIVE, schema: { hide: true, body: CreateKeyBody } }, async (request, reply) => {
      const caller = callerOf(request)
      const { project, ...input } = newApiKey(request.body)
      const issued = await apiKeys.createKey(
        caller,
        {
          ...input,
          ...(project !== undefined && {
            project: (await environments.getProjectNamed(caller, project)).key,
          }),
        },
        DEFAULT_ENVIRONMENT,
      )
      forbidCaching(reply)
      return presentIssuedApiKey(issued)
    })

    app.get('/:id', { config: READ, schema: { hide: true, params: KeyParams } }, async (request) =>
      presentApiKey(await inForce(request, request.params.id)),
    )

    app.delete(
      '/:id',
      { config: WRITE, schema: { hide: true, params: KeyParams } },
      async (request, reply) => {
        const { id } = await inForce(request, request.params.id)
        await apiKeys.revokeKey(callerOf(request), id)
        return await reply.code(204).send()
      },
    )

    app.post(
      '/:id/rotate-secret',
      { config: GIVE, schema: { hide: true, params: KeyParams } },
      async (request, reply) => {
        const { id } = await inForce(request, request.params.id)
        const issued = await apiKeys.rotateKey(callerOf(request), id)
        forbidCaching(reply)
        return presentIssuedApiKey(issued)
      },
    )

    app.get(
      '/:id/:env_id',
      { config: SHOW, schema: { hide: true, params: OwnKeyParams } },
      async (request, reply) => {
        const { id: project, env_id: environment } = request.params
        const own = await apiKeys.getEnvironmentsOwnKey(callerOf(request), `${project}/${environment}`)
        forbidCaching(reply)
        return presentIssuedApiKey(own)
      },
    )
  }
}
