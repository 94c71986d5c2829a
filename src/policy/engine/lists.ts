import type { CompiledPolicy } from './compile.ts'
import { tenantRolesOf } from './holdings.ts'
import type { Facts, InstanceFacts, TenantFacts, UserFacts } from './model.ts'
import { createWalk, namesOfRolesOn } from './relations.ts'
import { nameOf } from './scope.ts'

/** What somebody holds at one place. */
export type Holdings = {
  /** `resource:action`, sorted. */
  readonly permissions: ReadonlySet<string>
  /** Keys, sorted. */
  readonly roles: readonly string[]
}

const NOTHING: Holdings = { permissions: new Set(), roles: [] }

/**
 * What the roles that a user holds in an account, or in every account, give there. Nothing when one of the two is not
 * active. Rules are not asked: they speak of single questions.
 */
export function holdingsInTenant(
  policy: CompiledPolicy,
  user: UserFacts,
  tenant: TenantFacts,
  now: number,
): Holdings {
  if (!user.isActive || !tenant.isActive) return NOTHING
  const roles = tenantRolesOf(user, tenant, now)
  const permissions: string[] = []
  for (const type of policy.types.values()) {
    for (const { key, tenantRoles } of type.actions.values())
      if (roles.some((role) => tenantRoles.has(role))) permissions.push(`${type.key}:${key}`)
  }
  return { permissions: new Set(permissions.sort()), roles }
}

/**
 * What the roles that a user holds on an instance, directly or by derivation, give on it. Nothing when the user or the
 * instance's account is not active. Void when facts were missing.
 */
export function holdingsOnInstance(
  policy: CompiledPolicy,
  facts: Facts,
  user: UserFacts,
  instance: InstanceFacts,
  now: number,
): Holdings | 'graph_too_large' {
  const type = policy.types.get(instance.type)
  if (!type || !user.isActive || facts.tenant(instance.tenant)?.isActive !== true) return NOTHING
  const walk = createWalk(user, facts, now)
  const held = new Set(namesOfRolesOn(walk, type.roles.values(), nameOf(instance)))
  if (walk.isTooLarge) return 'graph_too_large'
  const permissions: string[] = []
  for (const { key, resourceRoles } of type.actions.values())
    if (resourceRoles.some(({ name }) => held.has(name))) permissions.push(`${type.key}:${key}`)
  const roles = [...type.roles.values()].filter(({ name }) => held.has(name)).map(({ key }) => key)
  return { permissions: new Set(permissions.sort()), roles: roles.sort() }
}

/** A relation over which roles are derived: instances of `resource` name their subjects by it. */
type Edge = { readonly resource: string; readonly relation: string }

/** Every relation over which any role is derived, each once. */
export function edgesOf(policy: CompiledPolicy): Edge[] {
  const edges = new Map<string, Edge>()
  for (const { key: resource, roles } of policy.types.values()) {
    for (const { derivations } of roles.values())
      for (const { relation } of derivations)
        edges.set(JSON.stringify([resource, relation]), { resource, relation })
  }
  return [...edges.values()]
}
