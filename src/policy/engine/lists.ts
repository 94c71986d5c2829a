import type { CompiledPolicy, CompiledResourceRole, CompiledType } from './compile.ts'
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

/** The roles that can be behind an allowed action. */
export type GrantingRoles = {
  /** Keys of roles that give it in the account they are held in. */
  readonly tenantRoles: readonly string[]
  /** Roles that give it on the instance they are held on, and those from which one of these can be derived. */
  readonly instanceRoles: readonly { readonly resource: string; readonly role: string }[]
}

/** Which roles let their holders do `action` to a resource; none for an unknown resource or action. */
export function rolesGranting(policy: CompiledPolicy, resource: string, action: string): GrantingRoles {
  const compiled = policy.types.get(resource)?.actions.get(action)
  if (!compiled) return { tenantRoles: [], instanceRoles: [] }
  const behind = new Set(compiled.resourceRoles)
  for (const role of behind) for (const { source } of role.derivations) behind.add(source)
  return {
    tenantRoles: [...compiled.tenantRoles].sort(),
    instanceRoles: [...behind].map(({ type, key }) => ({ resource: type, role: key })),
  }
}

/** A relation over which roles are derived: instances of `resource` name their subjects by it. */
export type Edge = {
  readonly resource: string
  readonly relation: string
  readonly subjectResource: string
  /** True when roles on its subjects may be derived in turn, so that their own relationships matter too. */
  readonly goesOn: boolean
}

/** Every relation over which any role is derived. */
export const edgesOf = (policy: CompiledPolicy): Edge[] =>
  edgesFrom([...policy.types.values()].flatMap(rolesOf))

/** The relations that can matter to the roles held on an instance of a resource: from it to its subjects, and on. */
export function edgesBehind(policy: CompiledPolicy, resource: string): Edge[] {
  const roles = new Set(rolesOf(policy.types.get(resource)))
  for (const role of roles) for (const { source } of role.derivations) roles.add(source)
  return edgesFrom(roles)
}

/** The relations over which a role held on an instance of a resource gives others: from it to its objects, and on. */
export function edgesAhead(policy: CompiledPolicy, resource: string): Edge[] {
  const derivedFrom = new Map<CompiledResourceRole, CompiledResourceRole[]>()
  for (const role of [...policy.types.values()].flatMap(rolesOf)) {
    for (const { source } of role.derivations) {
      const derived = derivedFrom.get(source)
      if (derived) derived.push(role)
      else derivedFrom.set(source, [role])
    }
  }
  const roles = new Set(rolesOf(policy.types.get(resource)))
  for (const role of roles) for (const derived of derivedFrom.get(role) ?? []) roles.add(derived)
  return edgesFrom(roles, (source) => roles.has(source))
}

const rolesOf = (type: CompiledType | undefined): CompiledResourceRole[] => [...(type?.roles.values() ?? [])]

function edgesFrom(
  roles: Iterable<CompiledResourceRole>,
  isWanted: (source: CompiledResourceRole) => boolean = () => true,
): Edge[] {
  const edges = new Map<string, Edge>()
  for (const { type: resource, derivations } of roles) {
    for (const { relation, source } of derivations) {
      if (!isWanted(source)) continue
      const name = JSON.stringify([resource, relation])
      const goesOn = source.derivations.length > 0 || edges.get(name)?.goesOn === true
      edges.set(name, { resource, relation, subjectResource: source.type, goesOn })
    }
  }
  return [...edges.values()]
}
