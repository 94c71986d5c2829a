import { BUILTIN_RESOURCES, BUILTIN_ROLES, splitPermission } from '../permissions.ts'

/**
 * How the built-in resources, roles and reach are called in Permit, whose keys have no dots. A role held in every
 * account is held in one tenant of its own there.
 */
const PREFIX = 'postern_'

/** The tenant in which Permit keeps what is held in every account. */
export const EVERYWHERE = `${PREFIX}everywhere`

/** `postern.users` is `postern_users`. */
export const resourceInPermit = (resource: string): string => resource.replaceAll('.', '_')

/** `postern.users:read` is `postern_users:read`. */
export function permissionInPermit(permission: string): string {
  const { resource, action } = splitPermission(permission)
  return `${resourceInPermit(resource)}:${action}`
}

/** `ADMIN` is `postern_ADMIN`, so that it meets no role of the application. */
export const builtinRoleInPermit = (role: string): string => `${PREFIX}${role}`

const GUARD_NAMES: ReadonlySet<string> = new Set([
  EVERYWHERE,
  ...Object.keys(BUILTIN_ROLES).map(builtinRoleInPermit),
  ...Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { actions }]) =>
    actions.map((action) => permissionInPermit(`${resource}:${action}`)),
  ),
])

/** True for a tenant, role or permission that is there for the guard, and is no part of an application's policy. */
export const isOfGuard = (name: string): boolean => GUARD_NAMES.has(name)
