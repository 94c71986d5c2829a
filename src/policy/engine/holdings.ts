import type { HeldRole, TenantFacts, UserFacts } from './model.ts'

/** True until the moment at which it expires. */
export const isHeld = ({ expiresAt }: HeldRole, now: number): boolean =>
  expiresAt === undefined || expiresAt > now

const NONE: readonly HeldRole[] = []

/** The roles that somebody was given in an account, expired ones included. */
export const rolesGivenIn = (user: UserFacts, tenant: TenantFacts): readonly HeldRole[] =>
  user.tenantRoles.get(tenant.key) ?? NONE

/** The roles that somebody was given on an instance (`type:key`), expired ones included. */
export const rolesGivenOn = (user: UserFacts, instance: string): readonly HeldRole[] =>
  user.instanceRoles.get(instance) ?? NONE

/** True when somebody holds one of these roles in an account or everywhere. */
export const holdsOneOf = (
  roles: ReadonlySet<string>,
  user: UserFacts,
  tenant: TenantFacts,
  now: number,
): boolean => areHeld(rolesGivenIn(user, tenant), roles, now) || areHeld(user.everywhere, roles, now)

function areHeld(given: readonly HeldRole[], roles: ReadonlySet<string>, now: number): boolean {
  for (const held of given) if (roles.has(held.role) && isHeld(held, now)) return true
  return false
}

/** True when somebody holds a role in an account or everywhere. */
export const holdsTenantRole = (role: string, user: UserFacts, tenant: TenantFacts, now: number): boolean =>
  [rolesGivenIn(user, tenant), user.everywhere].some((given) =>
    given.some((held) => held.role === role && isHeld(held, now)),
  )

/** The roles that somebody holds in an account, those held everywhere included: sorted, each once. */
export function tenantRolesOf(user: UserFacts, tenant: TenantFacts, now: number): string[] {
  const roles: string[] = []
  for (const given of [rolesGivenIn(user, tenant), user.everywhere])
    for (const held of given) if (isHeld(held, now)) roles.push(held.role)
  return roles.length > 1 ? [...new Set(roles)].sort() : roles
}

/** True for members of an account and for whoever holds a role in every account. */
export const isWithin = (user: UserFacts, tenant: TenantFacts, now: number): boolean =>
  user.tenants.includes(tenant.key) || user.everywhere.some((held) => isHeld(held, now))
