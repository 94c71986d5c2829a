import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { dashed } from './names.ts'
import { placeOf } from './place.ts'
import {
  CreateProxyConfigBody,
  ProxyConfigParams,
  ProxyConfigsQuery,
  presentProxyConfig,
  rulesOf,
  UpdateProxyConfigBody,
} from './proxies-schemas.ts'
import { listed } from './schemas.ts'

const READ: Access = { permission: 'postern.policy:read' }
const WRITE: Access = { permission: 'postern.policy:write' }

/** Proxies, by key or id, for their rules: which action a request to a URL is. */
export function proxiesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).proxies

  return async (app) => {
    app.get(
      '/proxy_configs',
      { config: { access: READ }, schema: { hide: true, querystring: ProxyConfigsQuery } },
      async (request) => {
        const { page, per_page: perPage, include_total_count: counts } = request.query
        const { items, total } = await of(request).listProxyConfigs({
          limit: perPage,
          skip: (page - 1) * perPage,
          sort: 'created_at',
          total: counts,
        })
        const data = items.map((config) => presentProxyConfig(config, placeOf(request)))
        return listed(data, total, perPage)
      },
    )

    app.post(
      '/proxy_configs',
      { config: { access: WRITE }, schema: { hide: true, body: CreateProxyConfigBody } },
      async (request) => {
        const { key, name, mapping_rules: rules } = request.body
        const config = { key, name, mappingRules: rulesOf(rules ?? []) }
        return presentProxyConfig(
          await of(request).createProxyConfig(callerOf(request), config),
          placeOf(request),
        )
      },
    )

    app.get(
      '/proxy_configs/:proxy_config_id',
      { config: { access: READ }, schema: { hide: true, params: ProxyConfigParams } },
      async (request) =>
        presentProxyConfig(
          await of(request).getProxyConfig(dashed(request.params.proxy_config_id)),
          placeOf(request),
        ),
    )

    app.patch(
      '/proxy_configs/:proxy_config_id',
      {
        config: { access: WRITE },
        schema: { hide: true, params: ProxyConfigParams, body: UpdateProxyConfigBody },
      },
      async (request) => {
        const { name, mapping_rules: rules } = request.body
        const config = await of(request).updateProxyConfig(
          callerOf(request),
          dashed(request.params.proxy_config_id),
          { ...(name != null && { name }), ...(rules != null && { mappingRules: rulesOf(rules) }) },
        )
        return presentProxyConfig(config, placeOf(request))
      },
    )

    app.delete(
      '/proxy_configs/:proxy_config_id',
      { config: { access: WRITE }, schema: { hide: true, params: ProxyConfigParams } },
      async (request, reply) => {
        await of(request).deleteProxyConfig(callerOf(request), dashed(request.params.proxy_config_id))
        return await reply.code(204).send()
      },
    )
  }
}
