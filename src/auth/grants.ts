import { AppError } from '../errors.ts'
import { effectiveScopes, GUEST, type HeldRole, isBuiltinPermission } from '../permissions.ts'

/** A role as a token needs it. */
export type RoleAtSignIn = HeldRole & {
  key: string
  isPrimary: boolean
  /** Whether whoever holds it must show two factors. */
  isMfaRequired: boolean
  expiresAt: string | null
}

/** Whoever a token is made for, as stored now. `isMfaMissing`: two factors are required, and one was shown. */
export type Grantee = { mustChange: boolean; isMfaMissing: boolean; roles: RoleAtSignIn[] }

/** Of whom two factors are required, whatever accounts and roles say. */
export type MfaRule = 'none' | 'admins' | 'everyone'

/** What a user may do in one account. */
export type EffectivePermissions = {
  accountId: string | null
  role: string
  roles: string[]
  scopes: string[]
}

/** The most that the scopes of a token may have, and of a person its roles with them, in bytes: tokens travel in headers. */
export const MAX_SCOPE_BYTES = 4096

/** The scopes that a request names, each once. */
export const scopesNamed = (scope: string | null | undefined): string[] => [
  ...new Set((scope ?? '').split(' ').filter((name) => name !== '')),
]

/**
 * What a token for `accountId` will carry: all that is held there, or the part of it that is `wanted`, which may be
 * nothing. Nothing at all until a password set by somebody else has been changed, and a missing second factor shown.
 * Scopes that are wanted come before the roles: these are all there, or none when they do not fit beside them.
 * @throws AppError scope_too_large
 */
export function grant(
  grantee: Grantee,
  accountId: string | null,
  wanted: readonly string[],
): EffectivePermissions {
  if (grantee.mustChange || grantee.isMfaMissing) return { accountId, role: GUEST, roles: [], scopes: [] }
  const held = effective(grantee.roles, accountId)
  const scopes = wanted.length === 0 ? held.scopes : held.scopes.filter((scope) => wanted.includes(scope))
  const bytes = { scopes: Buffer.byteLength(scopes.join(' ')), roles: bytesOfRoles(held.roles) }
  const isFitting = bytes.scopes + bytes.roles <= MAX_SCOPE_BYTES
  if (bytes.scopes > MAX_SCOPE_BYTES || (wanted.length === 0 && !isFitting)) {
    throw new AppError('scope_too_large', {
      detail: `The scopes have ${bytes.scopes} bytes, the roles ${bytes.roles}; name the scopes needed in \`scope\`.`,
    })
  }
  return { accountId: held.accountId, role: held.role, roles: isFitting ? held.roles : [], scopes }
}

/** What roles take in the claim: each is in quotation marks, with a comma. */
const bytesOfRoles = (roles: readonly string[]): number =>
  roles.reduce((sum, role) => sum + Buffer.byteLength(role) + 3, 0)

/** True of methods that are two factors, by the claim `amr` (RFC 8176 §2). */
export const isMultiFactor = (amr: readonly string[]): boolean => amr.includes('mfa')

/**
 * Whether a token for the account takes two factors: because of the account, of one of the roles in the token, or of
 * `rule`, for which an administrator is who holds a built-in permission.
 */
export function needsSecondFactor(
  rule: MfaRule,
  held: readonly RoleAtSignIn[],
  account: { id: string | null; isMfaRequired: boolean },
): boolean {
  if (rule === 'everyone' || account.isMfaRequired) return true
  return rolesIn(held, account.id).some((role) => isDemanding(rule, role))
}

const isDemanding = (rule: MfaRule, { isMfaRequired, permissions }: RoleAtSignIn): boolean =>
  isMfaRequired || (rule === 'admins' && permissions.some(isBuiltinPermission))

/** The same for any token that somebody could have, as far as their roles decide it. */
export const needsSecondFactorSomewhere = (rule: MfaRule, held: readonly RoleAtSignIn[]): boolean =>
  rule === 'everyone' || held.some((role) => isDemanding(rule, role))

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
