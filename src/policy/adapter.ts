import type { Principal } from '../principal.ts'

/**
 * May `principal` use `permission`? `accountIds` are the accounts that the object belongs to: one of them must
 * be the account in which the permission is held. `undefined` stands for every account.
 */
export type AccessQuery = {
  principal: Principal
  permission: string
  accountIds: readonly string[] | undefined
}

/** Why a decision fell as it did. */
export type DecisionReason = 'held_everywhere' | 'held_in_account' | 'held_elsewhere' | 'not_held'

/** The answer to an AccessQuery. `held_elsewhere`: the permission is held, but in no account of the object. */
export type Decision = { allowed: boolean; reason: DecisionReason }

/** Decides. The route guard asks it before every handler; a failure to decide is a throw, never an allow. */
export type PolicyAdapter = {
  check(query: AccessQuery): Promise<Decision>
}
