/**
 * The built-in resources and their actions. Their keys hold a dot, which the pattern of
 * application keys refuses, so that no application role can create, shadow or grant one.
 */
export const BUILTIN_RESOURCES = {
  'postern.users': { name: 'Users', actions: ['read', 'write', 'delete'] },
  'postern.accounts': { name: 'Accounts', actions: ['read', 'write', 'delete'] },
  'postern.roles': { name: 'Roles', actions: ['read', 'write', 'assign'] },
  'postern.policy': { name: 'Policy', actions: ['read', 'write', 'check'] },
  'postern.environments': { name: 'Environments', actions: ['read', 'write'] },
  'postern.clients': { name: 'OAuth clients', actions: ['read', 'write'] },
  'postern.api-keys': { name: 'API keys', actions: ['read', 'write'] },
  'postern.keys': { name: 'Signing keys', actions: ['read', 'rotate'] },
  'postern.sessions': { name: 'Sessions', actions: ['read', 'revoke'] },
  'postern.webhooks': { name: 'Webhooks', actions: ['read', 'write'] },
  'postern.audit': { name: 'Audit trail', actions: ['read'] },
} as const satisfies Record<string, { name: string; actions: readonly string[] }>

type BuiltinResources = typeof BUILTIN_RESOURCES
/** A built-in permission, `resource:action`. */
export type BuiltinPermission = {
  [R in keyof BuiltinResources]: `${R}:${BuiltinResources[R]['actions'][number]}`
}[keyof BuiltinResources]

/** How far a role reaches: one account, or every account (the platform). */
export type Reach = 'account' | 'any'

/** The suffix of a permission that is held in every account. */
const ANY = ':any'

const all = <R extends keyof BuiltinResources>(...resources: R[]): BuiltinPermission[] =>
  resources.flatMap((resource) =>
    BUILTIN_RESOURCES[resource].actions.map((action) => `${resource}:${action}` as BuiltinPermission),
  )

/** The key of the role whose last holder cannot be removed. */
export const SUPER_ADMIN = 'SUPER_ADMIN'
/** What the `role` claim says of a user without an effective primary role. */
export const GUEST = 'GUEST'

/** The five roles of the FastAPI service and what they hold here. */
export const BUILTIN_ROLES = {
  GUEST: { description: 'A Guest Account', reach: 'account', permissions: [] },
  ACCOUNT_ADMIN: {
    description: 'Primary Administrator/Superuser For an Account',
    reach: 'account',
    permissions: [
      'postern.users:read',
      'postern.users:write',
      'postern.accounts:read',
      'postern.accounts:write',
      'postern.roles:read',
      'postern.roles:assign',
      'postern.sessions:read',
      'postern.sessions:revoke',
      'postern.audit:read',
      'postern.webhooks:read',
      'postern.webhooks:write',
      'postern.policy:check',
    ],
  },
  ACCOUNT_MANAGER: {
    description: 'Day to Day Administrator of Events For an Account',
    reach: 'account',
    permissions: [],
  },
  ADMIN: {
    description: 'Admin of Application Ecosystem',
    reach: 'any',
    permissions: [
      ...all('postern.users', 'postern.accounts', 'postern.sessions', 'postern.webhooks', 'postern.audit'),
      'postern.roles:read',
      'postern.roles:assign',
      'postern.policy:read',
      'postern.policy:check',
    ],
  },
  SUPER_ADMIN: {
    description: 'Super Administrator of Application Ecosystem',
    reach: 'any',
    permissions: all(...(Object.keys(BUILTIN_RESOURCES) as (keyof BuiltinResources)[])),
  },
} as const satisfies Record<
  string,
  { description: string; reach: Reach; permissions: readonly BuiltinPermission[] }
>

/** What an API key opens: every environment, those of one project, or one. */
export const API_KEY_LEVELS = ['org', 'project', 'environment'] as const
export type ApiKeyLevel = (typeof API_KEY_LEVELS)[number]
/** What an API key may do there. Only `full` reaches beyond policy and facts. */
export const API_KEY_ACCESS = ['full', 'write', 'read'] as const
export type ApiKeyAccess = (typeof API_KEY_ACCESS)[number]

const MODEL = all('postern.policy', 'postern.users', 'postern.accounts', 'postern.roles')
const API_KEY_PERMISSIONS = {
  full: MODEL,
  write: MODEL,
  read: MODEL.filter((permission) => permission.endsWith(':read') || permission === 'postern.policy:check'),
} as const satisfies Record<ApiKeyAccess, readonly BuiltinPermission[]>

/**
 * The permissions of an API key, in every account of what it opens. None is about clients, sessions or the audit trail.
 * Environments, projects and keys are for full keys of a project or of everything; which of them is for their services to say.
 */
export const permissionsOfApiKey = (
  access: ApiKeyAccess,
  level: ApiKeyLevel,
): readonly BuiltinPermission[] =>
  access === 'full' && level !== 'environment'
    ? [...API_KEY_PERMISSIONS.full, ...all('postern.environments', 'postern.api-keys')]
    : API_KEY_PERMISSIONS[access]

/** True for a permission of this service itself, with or without the suffix `:any`. */
export const isBuiltinPermission = (permission: string): boolean => permission.startsWith('postern.')

/** True for a permission that this service itself knows. */
export const isPermission = (permission: string): permission is BuiltinPermission => {
  const { resource, action } = splitPermission(permission)
  const known: Record<string, { actions: readonly string[] }> = BUILTIN_RESOURCES
  return Object.hasOwn(known, resource) && (known[resource]?.actions.includes(action) ?? false)
}

/** `permission` as it is written when it is held in every account. */
export const anywhere = (permission: string): string => `${permission}${ANY}`

/** A role as somebody holds it: the account it is held in, `null` for every account. */
export type HeldRole = { accountId: string | null; permissions: readonly string[] }

/**
 * The scopes of a token for `accountId`: what the roles held there and everywhere give, sorted and unique.
 * A permission held everywhere appears plain and with `:any`.
 */
export function effectiveScopes(roles: readonly HeldRole[], accountId: string | null): string[] {
  const scopes = new Set<string>()
  for (const role of roles) {
    if (role.accountId !== null && role.accountId !== accountId) continue
    for (const permission of role.permissions) {
      scopes.add(permission)
      if (role.accountId === null) scopes.add(anywhere(permission))
    }
  }
  return [...scopes].sort()
}

/** What somebody may do: the scopes they hold, and the account in which the plain ones hold. */
export type Authority = { accountId: string | null; scopes: ReadonlySet<string> }

/** Those of `scopes` that are held in every account. */
export const scopesEverywhere = (scopes: ReadonlySet<string>): ReadonlySet<string> =>
  new Set([...scopes].filter((scope) => scope.endsWith(ANY) || scopes.has(anywhere(scope))))

/** True when `permission` is held everywhere, or held at all and `accountId` is the account it is held in. */
export function holdsIn(authority: Authority, permission: string, accountId: string | null): boolean {
  if (authority.scopes.has(anywhere(permission))) return true
  return accountId !== null && accountId === authority.accountId && authority.scopes.has(permission)
}

/**
 * True when holding `role` gives no built-in permission or reach beyond `authority`'s own.
 * Application permissions are no obstacle, but a role held everywhere needs the right to assign everywhere.
 */
export function covers(authority: Authority, role: HeldRole): boolean {
  if (role.accountId === null && !authority.scopes.has(anywhere('postern.roles:assign'))) return false
  return coversPermissions(authority, role)
}

/**
 * True when none of the built-in permissions that the roles give exceeds `authority`'s own in permission or
 * reach: the test for editing, disabling or deleting the person who holds them.
 */
export const coversPerson = (authority: Authority, roles: readonly HeldRole[]): boolean =>
  roles.every((role) => coversPermissions(authority, role))

const coversPermissions = (authority: Authority, role: HeldRole): boolean =>
  role.permissions
    .filter(isBuiltinPermission)
    .every((permission) => holdsIn(authority, permission, role.accountId))

/** The pattern of keys that applications give. */
export const APPLICATION_KEY = '^[A-Za-z0-9_-]+$'

/** Splits `resource:action` at its one colon. */
export function splitPermission(permission: string): { resource: string; action: string } {
  const colon = permission.indexOf(':')
  return { resource: permission.slice(0, colon), action: permission.slice(colon + 1) }
}
