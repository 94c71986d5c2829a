import { AppError } from '../errors.ts'
import { splitPermission } from '../permissions.ts'
import type { AccessQuery, Decision, GuardAdapter, PolicyAdapter } from './adapter.ts'
import type { Question } from './engine/model.ts'
import { PermitRefusalError } from './permit-client.ts'
import { EVERYWHERE, resourceInPermit } from './permit-names.ts'

type Dependencies = {
  /** What decides by the scopes of the token. */
  scopes: GuardAdapter
  permit: PolicyAdapter
  /** Whether the scopes alone decide while Permit does not answer. */
  fallsBack: boolean
  onFallback: () => void
}

/**
 * Asks Permit for what the scopes of a token allow: both must. The question is about the tenant in which the
 * permission is held, `postern_everywhere` for one held in every account. Clients and API keys, whom Permit does not
 * know, are decided on by their scopes.
 */
export function createPermitGuard({ scopes, permit, fallsBack, onFallback }: Dependencies): GuardAdapter {
  return {
    async check(query) {
      const decision = await scopes.check(query)
      if (!decision.allowed || query.principal.type !== 'user') return decision
      try {
        const { allowed } = await permit.check(questionOf(query, query.principal.userId, decision))
        return allowed ? decision : { allowed: false, reason: 'not_held' }
      } catch (error) {
        const fault = asFaultOfPermit(error)
        const isAway = fault instanceof AppError && fault.code === 'policy_engine_unavailable'
        if (!isAway || !fallsBack) throw fault
        onFallback()
        return decision
      }
    },
  }
}

/** The question is our own, so that whoever makes a request cannot mend it when Permit does not take it. */
function asFaultOfPermit(error: unknown): unknown {
  const isRefusal = error instanceof AppError && error.cause instanceof PermitRefusalError
  return isRefusal ? new AppError('policy_engine_unavailable', { cause: error, retryAfterSeconds: 1 }) : error
}

function questionOf({ permission, principal }: AccessQuery, userId: string, { reason }: Decision): Question {
  const { resource, action } = splitPermission(permission)
  const tenant = reason === 'held_everywhere' ? EVERYWHERE : (principal.accountId ?? EVERYWHERE)
  return {
    user: { key: userId },
    action: { name: action },
    resource: { type: resourceInPermit(resource), tenant },
  }
}
