import { AppError } from '../errors.ts'

/** How many of each there may be, so that a compiled policy and its answers stay of a size that one process holds. */
export const LIMITS = {
  resources: { most: 1000, what: 'resources in an environment' },
  roles: { most: 2000, what: 'roles in an environment' },
  userAttributes: { most: 500, what: 'attributes of users' },
  actions: { most: 1000, what: 'actions of a resource' },
  actionGroups: { most: 200, what: 'action groups of a resource' },
  attributes: { most: 500, what: 'attributes of a resource' },
  relations: { most: 200, what: 'relations of a resource' },
  resourceRoles: { most: 200, what: 'roles of a resource' },
  derivations: { most: 100, what: 'derivations of a role' },
  conditionSets: { most: 10_000, what: 'condition sets in an environment' },
  setRules: { most: 50_000, what: 'set rules in an environment' },
  proxyConfigs: { most: 100, what: 'proxies in an environment' },
  mappingRules: { most: 2000, what: 'mapping rules in an environment' },
  expressions: { most: 10_000, what: 'instructions in the regular expressions of an environment' },
  accountInvitations: { most: 1000, what: 'open invitations to an account' },
  webhooks: { most: 1000, what: 'webhooks in an environment' },
  accountWebhooks: { most: 20, what: 'webhooks of an account' },
  invites: { most: 10_000, what: 'invitations in an environment' },
} as const

/**
 * Refuses to add `adding` to the `count` there are already, when that would be too many.
 * @throws AppError limit_reached
 */
export function assertBelow(limit: keyof typeof LIMITS, count: number, adding = 1): void {
  const { most, what } = LIMITS[limit]
  if (count + adding <= most) return
  throw new AppError('limit_reached', { detail: `There may be ${most} ${what} at most` })
}
