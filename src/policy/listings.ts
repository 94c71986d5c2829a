import { AppError } from '../errors.ts'
import type { CompiledPolicy } from './engine/compile.ts'
import { decide } from './engine/decide.ts'
import { explain } from './engine/explain.ts'
import { tenantRolesOf } from './engine/holdings.ts'
import { holdingsInTenant, holdingsOnInstance } from './engine/lists.ts'
import type { Attributes, Facts, InstanceFacts, Question, TenantFacts, UserFacts } from './engine/model.ts'
import { createWalk, findGrant } from './engine/relations.ts'

/** Which permissions are wanted. Absent: all. */
export type PermissionsQuery = {
  user: Question['user']
  /** Accounts, by key. */
  tenants?: readonly string[] | undefined
  /** Instances, `type:key`. */
  resources?: readonly string[] | undefined
  /** Resources whose instances are wanted, and `__tenant` for the accounts. */
  resourceTypes?: readonly string[] | undefined
  context?: Attributes | undefined
}

/** What somebody may do in an account, or to an instance, by the roles held there. Keys and permissions are sorted. */
export type HeldPermissions = {
  on:
    | { readonly kind: 'tenant'; readonly tenant: TenantFacts }
    | { readonly kind: 'instance'; readonly instance: InstanceFacts }
  roles: readonly string[]
  /** `resource:action` */
  permissions: readonly string[]
}

/**
 * By what somebody may do something: a role held in the account or (`resource#role`) given on an instance, or the user
 * set or role that a rule names.
 */
export type Authorization = {
  user: string
  tenant: string
  role: string
  /** `type:key`; of a rule `type:*` where no instance was asked about; `undefined` for a role held in the account. */
  instance: string | undefined
}

/** What a context says to have rules asked too, about one user's permissions and about a permission's users. */
export const ASK_RULES = 'enable_abac_user_permissions'
export const ASK_RULES_OF_USERS = 'enable_abac_authorized_users'
/** Rules are asked question by question, so what a list may cost is how often one of them is. */
export const MOST_RULES_ASKED = 500_000
/** So often at most before others have their turn. */
export const RULES_AT_ONCE = 10_000
/** What `resourceTypes` calls accounts. */
export const TENANT_TYPE = '__tenant'
/** An answer that is one whole lists no more instances than this. */
export const MOST_LISTED = 100_000

/** What somebody may do in an account; `undefined`: nothing is held there. */
export function permissionsIn(
  policy: CompiledPolicy,
  facts: Facts,
  query: PermissionsQuery,
  user: UserFacts | null,
  tenant: TenantFacts,
  now: number,
): HeldPermissions | undefined {
  const held = user ? holdingsInTenant(policy, user, tenant, now) : undefined
  const permissions = new Set([...(held?.permissions ?? []), ...byRules(policy, facts, query, tenant, now)])
  const roles = held?.roles ?? []
  if (roles.length === 0 && permissions.size === 0) return undefined
  return { on: { kind: 'tenant', tenant }, roles, permissions: [...permissions].sort() }
}

/** How many rules have to be asked for what the query wants of one account. */
export function rulesAsked(policy: CompiledPolicy, { resourceTypes, context }: PermissionsQuery): number {
  if (context?.[ASK_RULES] !== true) return 0
  return [...new Set(resourceTypes)]
    .flatMap((key) => [...(policy.types.get(key)?.actions.values() ?? [])])
    .reduce((sum, { rules }) => sum + 1 + rules.length, 0)
}

/** How many rules have to be asked about one user. */
export const rulesAskedOfUser = (
  policy: CompiledPolicy,
  { action, resource }: Omit<Question, 'user'>,
): number => 1 + (policy.types.get(resource.type)?.actions.get(action.name)?.rules.length ?? 0)

/** The user sets and roles by which rules let a stored user do that, each once. */
export function authorizationsByRules(
  policy: CompiledPolicy,
  facts: Facts,
  asked: Omit<Question, 'user'>,
  user: UserFacts,
  tenant: TenantFacts,
  now: number,
): Authorization[] {
  const { abac } = explain(policy, facts, { ...asked, user: { key: user.key } }, now)
  if (!abac?.allowed) return []
  const { type, key } = asked.resource
  const instance = `${type}:${key === undefined || key === '' ? '*' : key}`
  return [...new Set(abac.allowingRules.map(({ users }) => users))].map((role) => ({
    user: user.key,
    tenant: tenant.key,
    role,
    instance,
  }))
}

/** Rules may look at what only a question tells, so they are asked when the caller says so, and about what. */
function byRules(
  policy: CompiledPolicy,
  facts: Facts,
  { user, resourceTypes, context }: PermissionsQuery,
  tenant: TenantFacts,
  now: number,
): string[] {
  if (context?.[ASK_RULES] !== true) return []
  const types = [...new Set(resourceTypes)].flatMap((key) => policy.types.get(key) ?? [])
  return types.flatMap(({ key: type, actions }) =>
    [...actions.keys()]
      .filter((name) => {
        const resource = { type, tenant: tenant.key }
        return decide(policy, facts, { user, action: { name }, resource, context }, now).allowed
      })
      .map((name) => `${type}:${name}`),
  )
}

/** What somebody may do to an instance by the roles held on it; `undefined`: none is. */
export function permissionsOn(
  policy: CompiledPolicy,
  facts: Facts,
  user: UserFacts,
  name: string,
  now: number,
): HeldPermissions | undefined {
  const instance = facts.instance(name)
  if (!instance) return undefined
  const held = holdingsOnInstance(policy, facts, user, instance, now)
  if (held === 'graph_too_large') throw new AppError('answer_too_large')
  if (held.roles.length === 0) return undefined
  return { on: { kind: 'instance', instance }, roles: held.roles, permissions: [...held.permissions] }
}

/** The instance asked about, if it is in the account, and all that roles on it may be derived from. */
export function instancesBehind(
  facts: Facts,
  { resource }: Pick<Question, 'resource'>,
  tenant: TenantFacts,
): InstanceFacts[] {
  if (resource.key === undefined || resource.key === '') return []
  const first = facts.instance(`${resource.type}:${resource.key}`)
  if (!first || first.tenant !== tenant.key) return []
  const behind = new Map([[`${first.type}:${first.key}`, first]])
  for (const instance of behind.values()) {
    // Only relations over which roles are derived are loaded.
    for (const name of [...instance.subjects.values()].flat()) {
      const subject = behind.has(name) ? undefined : facts.instance(name)
      if (subject) behind.set(name, subject)
      if (behind.size > MOST_LISTED) throw new AppError('answer_too_large')
    }
  }
  return [...behind.values()]
}

/** By which roles somebody may do that. */
export function authorizationsOf(
  policy: CompiledPolicy,
  facts: Facts,
  { action: { name }, resource }: Omit<Question, 'user'>,
  user: UserFacts,
  tenant: TenantFacts,
  instance: InstanceFacts | undefined,
  now: number,
): Authorization[] {
  const action = policy.types.get(resource.type)?.actions.get(name)
  if (!action || !user.isActive) return []
  const found: Authorization[] = tenantRolesOf(user, tenant, now)
    .filter((role) => action.tenantRoles.has(role))
    .map((role) => ({ user: user.key, tenant: tenant.key, role, instance: undefined }))
  if (!instance) return found
  const walk = createWalk(user, facts, now)
  const roots = new Set<string>()
  for (const role of action.resourceRoles) {
    const grant = findGrant(walk, [role], `${instance.type}:${instance.key}`)
    if (!grant || roots.has(`${grant.role.name} ${grant.instance}`)) continue
    roots.add(`${grant.role.name} ${grant.instance}`)
    found.push({ user: user.key, tenant: tenant.key, role: grant.role.name, instance: grant.instance })
  }
  if (walk.isTooLarge) throw new AppError('answer_too_large')
  return found
}
