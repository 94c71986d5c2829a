import Type, { type Static } from 'typebox'
import { Key } from '../http/schemas.ts'
import { LONGEST_URL } from '../policy/url-mapping.ts'
import type { ProxyConfigRow, ProxyMappingRule } from '../proxies/repository.ts'
import { Name, optional, type PlaceIds, page } from './schemas.ts'

const ProxyName = Type.String({ minLength: 1, maxLength: 255 })
const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options'] as const
const UrlType = Type.Unsafe<'regex' | null>({ type: ['string', 'null'], enum: ['regex', null] })
const Headers = Type.Unsafe<Record<string, string>>({
  type: 'object',
  additionalProperties: { type: 'string', maxLength: 1024 },
  propertyNames: { maxLength: 128 },
  maxProperties: 50,
})

const MappingRuleBody = Type.Object({
  url: Type.String({ minLength: 1, maxLength: LONGEST_URL }),
  url_type: Type.Optional(UrlType),
  http_method: Type.String({ pattern: `^(?:${METHODS.map(inEitherCase).join('|')})$` }),
  resource: Key,
  action: optional(Key),
  priority: optional(Type.Integer({ minimum: -1_000_000, maximum: 1_000_000 })),
  headers: optional(Headers),
  should_delete: optional(Type.Boolean()),
})

const MappingRules = optional(Type.Array(MappingRuleBody, { maxItems: 500 }))

/** `secret` and `auth_mechanism` are for a proxy that is not here: whatever they are, they are not kept. */
const secretFields = { secret: Type.Optional(Type.Unknown()), auth_mechanism: Type.Optional(Type.Unknown()) }

export const ProxyConfigParams = Type.Object({ proxy_config_id: Name })
export const CreateProxyConfigBody = Type.Object({
  key: Key,
  name: ProxyName,
  mapping_rules: MappingRules,
  ...secretFields,
})
export const UpdateProxyConfigBody = Type.Object({
  name: optional(ProxyName),
  mapping_rules: MappingRules,
  ...secretFields,
})
export const ProxyConfigsQuery = Type.Object({
  ...page,
  include_total_count: Type.Boolean({ default: false }),
})

/** The rules of a body; one that shall be deleted is left out, as the list is replaced as a whole. */
export const rulesOf = (rules: Static<typeof MappingRuleBody>[]): ProxyMappingRule[] =>
  rules
    .filter((rule) => rule.should_delete !== true)
    .map((rule) => ({
      url: rule.url,
      urlType: rule.url_type ?? 'template',
      httpMethod: rule.http_method.toLowerCase(),
      resource: rule.resource,
      action: rule.action ?? null,
      priority: rule.priority ?? 0,
      headers: rule.headers ?? {},
    }))

/** A proxy configuration as Permit’s API answers it; its secret is never kept. */
export const presentProxyConfig = (config: ProxyConfigRow, place: PlaceIds) => ({
  id: config.id,
  key: config.key,
  ...place,
  name: config.name,
  secret: '',
  auth_mechanism: 'Bearer',
  mapping_rules: config.mappingRules.map(({ headers, ...rule }) => ({
    ...presentMappingRule(rule),
    headers,
  })),
  created_at: config.createdAt.toISOString(),
  updated_at: config.updatedAt.toISOString(),
})

/** Without the headers, which may hold secrets of the proxy. */
export const presentMappingRule = (rule: Omit<ProxyMappingRule, 'headers'>) => ({
  url: rule.url,
  url_type: rule.urlType === 'regex' ? 'regex' : null,
  http_method: rule.httpMethod,
  resource: rule.resource,
  action: rule.action,
  priority: rule.priority,
})

function inEitherCase(method: string): string {
  return [...method].map((letter) => `[${letter}${letter.toUpperCase()}]`).join('')
}
