import { AppError } from '../errors.ts'
import { effectiveScopes, GUEST, type HeldRole } from '../permissions.ts'

/** A role as a token needs it. */
export type RoleAtSignIn = HeldRole & { key: string; isPrimary: boolean; expiresAt: string | null }

/** Whoever a token is made for, as stored now. */
export type Grantee = { mustChange: boolean; roles: RoleAtSignIn[] }

/** What a user may do in one account. */
export type EffectivePermissions = {
  accountId: string | null
  role: string
  roles: string[]
  scopes: string[]
}

/** The most that the scope claim may have, in bytes: tokens travel in headers. */
export const MAX_SCOPE_BYTES = 4096

/** The scopes that a request names, each once. */
export const scopesNamed = (scope: string | null | undefined): string[] => [
  ...new Set((scope ?? '').split(' ').filter((name) => name !== '')),
]

/**
 * What a token for `accountId` will carry: all that is held there, or the part of it that is `wanted`, which may be
 * nothing. Nothing at all until a password set by somebody else has been changed.
 * @throws AppError scope_too_large
 */
export function grant(
  grantee: Grantee,
  accountId: string | null,
  wanted: readonly string[],
): EffectivePermissions {
  if (grantee.mustChange) return { accountId, role: GUEST, roles: [], scopes: [] }
  const held = effective(grantee.roles, accountId)
  const scopes = wanted.length === 0 ? held.scopes : held.scopes.filter((scope) => wanted.includes(scope))
  const bytes = Buffer.byteLength(scopes.join(' '))
  if (bytes > MAX_SCOPE_BYTES) {
    throw new AppError('scope_too_large', {
      detail: `The scopes have ${bytes} bytes; name those needed in \`scope\`.`,
    })
  }
  return { ...held, scopes }
}

/** The seconds that a token may live: no longer than the first of the roles in it holds. */
export function lifetimeOf(
  held: readonly RoleAtSignIn[],
  accountId: string | null,
  ttlSeconds: number,
  now: Date,
): number {
  const ends = rolesIn(held, accountId)
    .map(({ expiresAt }) => expiresAt)
    .filter((end) => end !== null)
    .map((end) => Math.floor((new Date(end).getTime() - now.getTime()) / 1000))
  return Math.max(1, Math.min(ttlSeconds, ...ends))
}

const rolesIn = (held: readonly RoleAtSignIn[], accountId: string | null): RoleAtSignIn[] =>
  held.filter((role) => role.accountId === null || role.accountId === accountId)

/** What roles give in an account. */
export function effective(held: readonly RoleAtSignIn[], accountId: string | null): EffectivePermissions {
  const here = rolesIn(held, accountId)
  return {
    accountId,
    role: here.find((role) => role.isPrimary)?.key ?? GUEST,
    roles: [...new Set(here.map((role) => role.key))].sort(),
    scopes: effectiveScopes(here, accountId),
  }
}
