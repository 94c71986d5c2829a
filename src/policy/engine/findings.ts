import type { CompiledAction, CompiledRule } from './compile.ts'
import { isHeld, rolesGivenIn, tenantRolesOf } from './holdings.ts'
import type { Facts, HeldRole, Refusal, UserFacts } from './model.ts'
import { createWalk, findGrant, type Grant, namesOfRolesOn } from './relations.ts'
import { matchesResources, matchesUsers } from './rules.ts'
import { type Case, CaseScope, keyOf, nameOf } from './scope.ts'

/** What one of the models says: its answer, the first reason for it that applies, and that as a sentence. */
type Finding<Code> = { readonly allowed: boolean; readonly code: Code; readonly reason: string }

/** `no_such_resource` to `tenant_inactive`: no model was asked. */
export type RbacFinding = Finding<
  | 'allow'
  | Exclude<Refusal, 'graph_too_large'>
  | 'no_such_tenant'
  | 'user_not_synced'
  | 'no_user_roles'
  | 'no_role_in_tenant'
  | 'no_permission'
> & { readonly allowingRoles: readonly string[] }

/** A rule by its two sides: a set or a role (`resource#role` on an instance), and a set or a resource. */
export type RuleName = { readonly users: string; readonly resources: string }

export type AbacFinding = Finding<
  'allow' | 'no_matching_usersets' | 'no_matching_resourcesets' | 'no_matching_rules' | 'graph_too_large'
> & {
  readonly allowingRules: readonly RuleName[]
  /** Of the rules about this action; roles and resources among them as in `RuleName`. */
  readonly matchingUserSets: readonly string[]
  readonly matchingResourceSets: readonly string[]
}

/** How a role is held: first the one that was given, then each one derived, the last on the instance asked about. */
export type Path = readonly {
  /** `type:key` */
  readonly instance: string
  readonly role: string
  /** The relation by which it is derived from the one before. */
  readonly via: string | undefined
}[]

export type RebacFinding = Finding<
  | 'allow'
  | 'no_such_tenant'
  | 'user_not_synced'
  | 'no_such_instance'
  | 'no_role_on_instance'
  | 'no_permission'
  | 'graph_too_large'
> & {
  /** `resource#role`, each with the shortest path to it. */
  readonly allowingRoles: readonly { readonly role: string; readonly path: Path }[]
}

export const TOO_LARGE = 'there is more behind the question than one decision may look at'

const permissionOf = ({ type }: Case, action: CompiledAction): string => `${type.key}:${action.key}`

/** What the roles held in the account say. */
export function findRbac(action: CompiledAction, asked: Case, now: number): RbacFinding {
  const { user, tenant, question } = asked
  const denied = (code: RbacFinding['code'], reason: string): RbacFinding => ({
    allowed: false,
    code,
    reason,
    allowingRoles: [],
  })
  if (!tenant) return denied('no_such_tenant', noSuchTenant(asked))
  if (!user) return denied('user_not_synced', `${question.user.key} is not known`)
  const allowingRoles = tenantRolesOf(user, tenant, now).filter((role) => action.tenantRoles.has(role))
  const permission = permissionOf(asked, action)
  if (allowingRoles.length > 0) {
    const reason = `${allowingRoles.join(', ')} in ${tenant.key} may ${permission}`
    return { allowed: true, code: 'allow', reason, allowingRoles }
  }
  const given = [...rolesGivenIn(user, tenant), ...user.everywhere]
  if (holdsAny(given, now)) return denied('no_permission', `no role in ${tenant.key} gives ${permission}`)
  if (holdsAnywhere(user, now))
    return denied('no_role_in_tenant', `${user.key} holds no role in ${tenant.key}`)
  return denied('no_user_roles', `${user.key} holds no role in any account`)
}

const noSuchTenant = ({ question: { resource } }: Case): string =>
  resource.tenant ? `there is no account ${resource.tenant}` : 'the question names no account'

const holdsAny = (given: readonly HeldRole[], now: number): boolean => given.some((held) => isHeld(held, now))
const holdsAnywhere = (user: UserFacts, now: number): boolean =>
  [...user.tenantRoles.values()].some((given) => holdsAny(given, now))

const usersName = ({ users }: CompiledRule): string => {
  switch (users.kind) {
    case 'set':
      return users.set.key
    case 'tenantRole':
      return users.role
    case 'instanceRole':
      return users.role.name
  }
}

/** What the rules about an action say. */
export function findAbac(action: CompiledAction, asked: Case, facts: Facts, now: number): AbacFinding {
  const resourcesName = ({ resources }: CompiledRule): string => resources?.key ?? asked.type.key
  const matchingOf = (matches: (rule: CompiledRule, scope: CaseScope) => boolean) => {
    const scope = new CaseScope(asked, facts, now, action.needsInstanceRoles)
    const matching: CompiledRule[] = []
    for (const rule of action.rules) {
      const isMatching = matches(rule, scope)
      if (scope.isTooLarge()) return { matching, isTooLarge: true }
      if (isMatching) matching.push(rule)
    }
    return { matching, isTooLarge: false }
  }

  const allowing = matchingOf(
    (rule, scope) => matchesUsers(rule, asked, scope, now) && matchesResources(rule, scope),
  )
  const users = matchingOf((rule, scope) => matchesUsers(rule, asked, scope, now))
  const resources = matchingOf(matchesResources)
  const found = {
    allowingRules: allowing.matching.map((rule) => ({
      users: usersName(rule),
      resources: resourcesName(rule),
    })),
    matchingUserSets: [...new Set(users.matching.map(usersName))],
    matchingResourceSets: [...new Set(resources.matching.map(resourcesName))],
  }
  const permission = permissionOf(asked, action)
  const denied = (code: AbacFinding['code'], reason: string): AbacFinding => ({
    allowed: false,
    code,
    reason,
    ...found,
  })
  const [rule] = found.allowingRules
  if (rule) {
    const reason = `${rule.users} may ${permission} on ${rule.resources}`
    return { allowed: true, code: 'allow', reason, ...found }
  }
  if (allowing.isTooLarge) return denied('graph_too_large', TOO_LARGE)
  if (found.matchingUserSets.length === 0)
    return denied('no_matching_usersets', `no rule for ${permission} is about this user`)
  if (found.matchingResourceSets.length === 0)
    return denied('no_matching_resourcesets', `no rule for ${permission} is about this resource`)
  return denied('no_matching_rules', `no rule for ${permission} is about both this user and this resource`)
}

/** What the roles held on the instance say. */
export function findRebac(action: CompiledAction, asked: Case, facts: Facts, now: number): RebacFinding {
  const { user, tenant, question, type } = asked
  const denied = (code: RebacFinding['code'], reason: string): RebacFinding => ({
    allowed: false,
    code,
    reason,
    allowingRoles: [],
  })
  if (!tenant) return denied('no_such_tenant', noSuchTenant(asked))
  if (!user) return denied('user_not_synced', `${question.user.key} is not known`)
  const stored = new CaseScope(asked, facts, now, false).instance()
  if (!stored)
    return denied('no_such_instance', `there is no ${type.key}:${keyOf(question)} in ${tenant.key}`)

  const instance = nameOf(stored)
  const first = findGrant(createWalk(user, facts, now), action.resourceRoles, instance)
  const permission = permissionOf(asked, action)
  const walk = createWalk(user, facts, now)
  if (!first) {
    const held = namesOfRolesOn(walk, type.roles.values(), instance)
    if (walk.isTooLarge) return denied('graph_too_large', TOO_LARGE)
    return held.length > 0
      ? denied('no_permission', `no role on ${instance} gives ${permission}`)
      : denied('no_role_on_instance', `${user.key} holds no role on ${instance}`)
  }
  const grants = [first, ...action.resourceRoles.map((role) => findGrant(walk, [role], instance))]
  const paths = new Map<string, Path>()
  for (const grant of grants) {
    if (!grant) continue
    const role = objectOf(grant).role.name
    if (!paths.has(role)) paths.set(role, pathOf(grant))
  }
  return {
    allowed: true,
    code: 'allow',
    reason: first.next ? sentenceOf(pathOf(first)) : `${instance}#${first.role.key} may ${permission}`,
    allowingRoles: [...paths].map(([role, path]) => ({ role, path })),
  }
}

/** The end of the path: what is held on the instance asked about. */
function objectOf(root: Grant): Grant {
  let grant = root
  while (grant.next) grant = grant.next.grant
  return grant
}

const sentenceOf = (path: Path): string =>
  path
    .map(({ instance, role, via }) => `${instance}#${role}${via === undefined ? '' : ` via ${via}`}`)
    .join(' → ')

function pathOf(root: Grant): Path {
  const path: { instance: string; role: string; via: string | undefined }[] = []
  let via: string | undefined
  for (let grant: Grant | undefined = root; grant; grant = grant.next?.grant) {
    path.push({ instance: grant.instance, role: grant.role.key, via })
    via = grant.next?.relation
  }
  return path
}
