import type { CompiledAction, CompiledPolicy } from './compile.ts'
import { holdsOneOf } from './holdings.ts'
import type { Decision, Facts, Question, Refusal, Source, TenantFacts, UserFacts } from './model.ts'
import { findGrant } from './relations.ts'
import { matchesResources, matchesUsers } from './rules.ts'
import { type Case, CaseScope, keyOf, nameOf } from './scope.ts'

const allowed = (source: Source): Decision => Object.freeze({ allowed: true, source, refusal: undefined })
const refused = (refusal: Refusal): Decision => Object.freeze({ allowed: false, source: undefined, refusal })

const ALLOWED = { rbac: allowed('rbac'), abac: allowed('abac'), rebac: allowed('rebac') }
const DENIED: Decision = Object.freeze({ allowed: false, source: undefined, refusal: undefined })
const REFUSED = {
  no_such_resource: refused('no_such_resource'),
  no_such_action: refused('no_such_action'),
  user_inactive: refused('user_inactive'),
  tenant_inactive: refused('tenant_inactive'),
  graph_too_large: refused('graph_too_large'),
} satisfies Record<Refusal, Decision>

/**
 * May this user do that to this? Yes, if a role in the account gives the action, or a rule matches, or a role held on
 * the instance gives it; else no. Never throws, and never allows more over facts that are missing than over all of
 * them; but when `facts` answered `undefined` to anything, the decision is void (see `createRecorder`).
 *
 * @param now milliseconds since the epoch: roles that expire by then do not hold
 */
export function decide(policy: CompiledPolicy, facts: Facts, question: Question, now: number): Decision {
  const type = policy.types.get(question.resource.type)
  if (!type) return REFUSED.no_such_resource
  const action = type.actions.get(question.action.name)
  if (!action) return REFUSED.no_such_action
  const user = facts.user(question.user.key)
  const tenant = findTenant(facts, question)
  if (user === undefined || tenant === undefined) {
    askAhead(facts, question, action)
    return DENIED
  }
  if (user?.isActive === false) return REFUSED.user_inactive
  if (tenant?.isActive === false) return REFUSED.tenant_inactive
  if (user && tenant && holdsOneOf(action.tenantRoles, user, tenant, now)) return ALLOWED.rbac
  if (action.rules.length === 0 && !mayHoldOnInstance(user, tenant, question, action)) return DENIED
  return decideInScope(action, { question, type, user, tenant }, facts, now)
}

/** The account that a question names, by its key or id; `null`: none, or one that is not there. */
export function findTenant(facts: Facts, { resource }: Question): TenantFacts | null | undefined {
  return resource.tenant === undefined || resource.tenant === '' ? null : facts.tenant(resource.tenant)
}

/** Asks for the instance while other things are missing, so that all of it is loaded at once. */
function askAhead(facts: Facts, question: Question, action: CompiledAction): void {
  const key = keyOf(question)
  if (key === undefined || findTenant(facts, question) === null) return
  if (action.rules.length > 0 || action.resourceRoles.length > 0)
    facts.instance(`${question.resource.type}:${key}`)
}

function mayHoldOnInstance(
  user: UserFacts | null,
  tenant: TenantFacts | null,
  question: Question,
  action: CompiledAction,
): boolean {
  if (!user || !tenant) return false
  if (user.instanceRoles.size === 0 && !user.crowdedTenants?.has(tenant.key)) return false
  return keyOf(question) !== undefined && action.resourceRoles.length > 0
}

function decideInScope(action: CompiledAction, asked: Case, facts: Facts, now: number): Decision {
  const scope = new CaseScope(asked, facts, now, action.needsInstanceRoles)
  const isByRule = matchesAnyRule(action, asked, scope, now)
  const isByInstanceRole = !isByRule && holdsGrantingRole(action, asked, scope)
  if (scope.isIncomplete()) return DENIED
  if (scope.isTooLarge()) return REFUSED.graph_too_large
  if (isByRule) return ALLOWED.abac
  return isByInstanceRole ? ALLOWED.rebac : DENIED
}

function matchesAnyRule({ rules }: CompiledAction, asked: Case, scope: CaseScope, now: number): boolean {
  for (const rule of rules)
    if (matchesUsers(rule, asked, scope, now) && matchesResources(rule, scope)) return true
  return false
}

function holdsGrantingRole(
  action: CompiledAction,
  { user, tenant, question }: Case,
  scope: CaseScope,
): boolean {
  if (!mayHoldOnInstance(user, tenant, question, action)) return false
  const instance = scope.instance()
  return (
    !!instance && !!scope.walk && findGrant(scope.walk, action.resourceRoles, nameOf(instance)) !== undefined
  )
}
