import { anywhere } from '../permissions.ts'
import type { AccessQuery, Decision, GuardAdapter } from './adapter.ts'

/** Decides by the scopes of the principal's own token. Everything not held is refused. */
export function createTokenScopesAdapter(): GuardAdapter {
  return { check: async (query) => decide(query) }
}

function decide({ principal, permission, accountIds }: AccessQuery): Decision {
  if (principal.scopes.has(anywhere(permission))) return { allowed: true, reason: 'held_everywhere' }
  if (!principal.scopes.has(permission)) return { allowed: false, reason: 'not_held' }
  const { accountId } = principal
  if (accountId !== null && accountIds?.includes(accountId))
    return { allowed: true, reason: 'held_in_account' }
  return { allowed: false, reason: 'held_elsewhere' }
}
