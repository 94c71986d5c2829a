import type { CompiledRule } from './compile.ts'
import { holdsTenantRole } from './holdings.ts'
import type { Case, CaseScope } from './scope.ts'

/** True when the user of the case is whom the rule is about. */
export function matchesUsers(
  { users }: CompiledRule,
  { user, tenant }: Case,
  scope: CaseScope,
  now: number,
): boolean {
  switch (users.kind) {
    case 'set':
      return users.set.condition.holds(scope)
    case 'tenantRole':
      return !!user && !!tenant && holdsTenantRole(users.role, user, tenant, now)
    case 'instanceRole':
      return scope.holdsOnInstance(users.role)
  }
}

/** True when the resource of the case is what the rule is about. */
export const matchesResources = ({ resources }: CompiledRule, scope: CaseScope): boolean =>
  resources === undefined || resources.condition.holds(scope)
