import type { Principal } from '../principal.ts'
import type { DecisionOptions } from './decisions.ts'
import type { Decision as EngineDecision, Question } from './engine/model.ts'
import type { HeldPermissions, PermissionsQuery } from './listings.ts'

/**
 * Decides on the permissions of applications. A failure to decide is a throw, never an allow. The decisions of an
 * environment are one (`local`), Permit is the other; both pass the same contract.
 */
export type PolicyAdapter = {
  /** @throws AppError policy_engine_unavailable, policy_unavailable; validation_failed, payload_too_large by Permit */
  check(question: Question, options?: DecisionOptions): Promise<EngineDecision>
  /** The same for many questions, answered in their order. */
  checkMany(questions: readonly Question[], options?: DecisionOptions): Promise<readonly EngineDecision[]>
  /** What a user may do in each account, and to each instance. */
  userPermissions(query: PermissionsQuery, options?: DecisionOptions): Promise<readonly HeldPermissions[]>
}

/** Takes over users, accounts and who holds which role. Each call may be repeated: what is there already is no error. */
export type PolicyMirror = {
  syncUser(user: MirroredUser): Promise<void>
  deleteUser(key: string): Promise<void>
  createTenant(tenant: MirroredTenant): Promise<void>
  deleteTenant(key: string): Promise<void>
  listAssignments(userKey: string): Promise<readonly MirroredAssignment[]>
  assignRole(assignment: MirroredAssignment): Promise<void>
  unassignRole(assignment: MirroredAssignment): Promise<void>
}

export type MirroredUser = {
  key: string
  email: string | null
  firstName: string | null
  lastName: string | null
  attributes: Readonly<Record<string, unknown>> | null
}

export type MirroredTenant = {
  key: string
  name: string
  description: string | null
  attributes: Readonly<Record<string, unknown>> | null
}

export type MirroredAssignment = {
  user: string
  role: string
  tenant: string
  /** `type:key`, for a role on one instance. */
  instance?: string | undefined
}

/**
 * May `principal` use `permission`? `accountIds` are the accounts that the object belongs to: one of them must
 * be the account in which the permission is held. `undefined` stands for every account.
 */
export type AccessQuery = {
  principal: Principal
  permission: string
  accountIds: readonly string[] | undefined
}

/** Why a decision of the guard fell as it did. */
export type DecisionReason = 'held_everywhere' | 'held_in_account' | 'held_elsewhere' | 'not_held'

/** The answer to an AccessQuery. `held_elsewhere`: the permission is held, but in no account of the object. */
export type Decision = { allowed: boolean; reason: DecisionReason }

/** Guards the routes of this service: asked before every handler. A failure to decide is a throw, never an allow. */
export type GuardAdapter = {
  check(query: AccessQuery): Promise<Decision>
}
