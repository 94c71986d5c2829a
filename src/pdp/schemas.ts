import Type, { type Static } from 'typebox'
import { presentMappingRule } from '../permit/proxies-schemas.ts'
import type { Explanation } from '../policy/engine/explain.ts'
import type { Question, TenantFacts } from '../policy/engine/model.ts'
import type { Authorization, HeldPermissions } from '../policy/listings.ts'
import type { MappingRule } from '../policy/url-mapping.ts'

/** Anything that is JSON; what it must be, mapping.ts says. The check of its depth comes with having a schema. */
export const AnyBody = Type.Unknown()

const Json = Type.Unsafe<Record<string, unknown>>({ type: 'object', additionalProperties: true })

export const AllowedSchema = Type.Object({
  allow: Type.Boolean(),
  result: Type.Boolean(),
  allowing_sources: Type.Optional(Type.Array(Type.String())),
  debug: Type.Optional(Json),
})
/** `result` says the same as `allow`, for old SDKs. */
export type Allowed = Static<typeof AllowedSchema>

export const BulkSchema = Type.Object({ allow: Type.Array(AllowedSchema) })

/** What OPA answers. */
export const OpaSchema = Type.Object({ result: AllowedSchema })

const TenantSchema = Type.Object({ key: Type.String(), attributes: Json })
export const TenantsSchema = Type.Array(TenantSchema)

const AllowedTenants = Type.Array(
  Type.Object({ allow: Type.Boolean(), result: Type.Boolean(), tenant: TenantSchema }),
)
/** In both spellings: the Node SDK reads the one that the PDP does not send. */
export const AllTenantsSchema = Type.Object({
  allowed_tenants: AllowedTenants,
  allowedTenants: AllowedTenants,
})

const Filter = Type.Optional(Type.String({ maxLength: 1024 }))
export const LocalAssignmentsQuery = Type.Object({
  user: Filter,
  role: Filter,
  tenant: Filter,
  resource: Filter,
  resource_instance: Filter,
  page: Type.Integer({ minimum: 1, maximum: 1_000_000, default: 1 }),
  per_page: Type.Integer({ minimum: 1, maximum: 100, default: 30 }),
})

/** What Kong's OPA plugin takes. */
export const KongSchema = Type.Object({ result: Type.Boolean() })
export const KongOffSchema = Type.Object({ detail: Type.String() })

export const ALLOWED: Allowed = Object.freeze({ allow: true, result: true })
export const REFUSED: Allowed = Object.freeze({ allow: false, result: false })

/** An account as the PDP answers it: a tenant. */
export const presentTenant = ({ key, attributes }: TenantFacts): Static<typeof TenantSchema> => ({
  key,
  attributes: { ...attributes },
})

/** So many rules are shown at most when none fits: what they are is not the answer. */
const MOST_RULES_SHOWN = 100

/** The answer when no rule is about the request. `rules`: those about its method, as far as the caller may see them. */
export const presentUnmapped = (rules: readonly MappingRule[]): Allowed => ({
  ...REFUSED,
  debug: {
    reason: 'No mapping rule fits the URL and the HTTP method',
    mapping_rules: rules.slice(0, MOST_RULES_SHOWN).map(presentMappingRule),
  },
})

/** Permissions by `__tenant:KEY` and by `type:key`. */
export const presentUserPermissions = (held: readonly HeldPermissions[]) =>
  Object.fromEntries(
    held.map(({ on, permissions, roles }) => {
      if (on.kind === 'tenant')
        return [`__tenant:${on.tenant.key}`, { tenant: presentTenant(on.tenant), permissions, roles }]
      const { type, key, attributes } = on.instance
      return [`${type}:${key}`, { resource: { key, type, attributes }, permissions, roles }]
    }),
  )

type Authorized = { tenant: TenantFacts | undefined; users: ReadonlyMap<string, readonly Authorization[]> }

/** Who may, and by which roles: held in the tenant, or given on an instance. */
export const presentAuthorizedUsers = (resource: Question['resource'], { tenant, users }: Authorized) => ({
  resource: `${resource.type}:${resource.key ?? '*'}`,
  tenant: tenant?.key ?? resource.tenant ?? '',
  users: Object.fromEntries(
    [...users].map(([user, authorizations]) => [
      user,
      authorizations.map(({ tenant, role, instance }) => ({
        user,
        tenant,
        resource: instance ?? `__tenant:${tenant}`,
        role,
      })),
    ]),
  ),
})

const supportLink = (isAllowed: boolean, code: string) =>
  isAllowed ? {} : { support_link: `https://docs.permit.io/errors/${code}` }

/** A decision with its reasons, in the words of the PDP's debug output. */
export function presentExplanation(explanation: Explanation): Allowed {
  const { decision, request, rbac, abac, rebac, allowingSources } = explanation
  const { user, tenant, action, resource } = request
  return {
    allow: decision.allowed,
    result: decision.allowed,
    allowing_sources: [...allowingSources],
    debug: {
      request: {
        user: { key: user.key, synced: user.isSynced, attributes: user.attributes },
        ...(tenant !== undefined && { tenant }),
        action,
        resource: {
          type: resource.type,
          ...(resource.key !== undefined && { key: resource.key }),
          attributes: resource.attributes,
        },
      },
      ...(rbac && {
        rbac: {
          allow: rbac.allowed,
          code: rbac.code,
          reason: rbac.reason,
          allowing_roles: rbac.allowingRoles,
          ...supportLink(rbac.allowed, rbac.code),
        },
      }),
      ...(abac && {
        abac: {
          allow: abac.allowed,
          code: abac.code,
          reason: abac.reason,
          allowing_rules: abac.allowingRules.map(({ users, resources }) => ({
            userset: users,
            resourceset: resources,
          })),
          matching_usersets: abac.matchingUserSets,
          matching_resourcesets: abac.matchingResourceSets,
          ...supportLink(abac.allowed, abac.code),
        },
      }),
      ...(rebac && {
        rebac: {
          allow: rebac.allowed,
          code: rebac.code,
          reason: rebac.reason,
          allowing_roles: rebac.allowingRoles,
          ...supportLink(rebac.allowed, rebac.code),
        },
      }),
    },
  }
}
