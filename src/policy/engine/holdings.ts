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

/** The first of the wanted roles that somebody holds in an account or everywhere. */
export function findTenantRole(
  user: UserFacts,
  tenant: TenantFacts,
  wanted: { has(role: string): boolean },
  now: number,
): string | undefined {
  return findHeld(rolesGivenIn(user, tenant), wanted, now) ?? findHeld(user.everywhere, wanted, now)
}

function findHeld(given: readonly HeldRole[], wanted: { has(role: string): boolean }, now: number) {
  for (const held of given) if (wanted.has(held.role) && isHeld(held, now)) return held.role
  return undefined
}

/** The roles that somebody holds in an account, those held everywhere included: sorted, each once. */
export function tenantRolesOf(user: UserFacts, tenant: TenantFacts, now: number): string[] {
  const roles = new Set<string>()
  for (const held of rolesGivenIn(user, tenant)) if (isHeld(held, now)) roles.add(held.role)
  for (const held of user.everywhere) if (isHeld(held, now)) roles.add(held.role)
  return [...roles].sort()
}

/** True for members of an account and for whoever holds a role in every account. */
export const isWithin = (user: UserFacts, tenant: TenantFacts, now: number): boolean =>
  user.tenants.includes(tenant.key) || user.everywhere.some((held) => isHeld(held, now))
