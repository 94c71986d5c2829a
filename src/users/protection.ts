import type { Tx } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { anywhere, type BuiltinPermission } from '../permissions.ts'
import { type Caller, isMachine, type Principal } from '../principal.ts'
import type { UsersRepository } from './repository.ts'

/**
 * Refuses people who have not authenticated within STEP_UP_MAX_AGE_SECONDS; machines have nothing to show again.
 * @throws AppError reauthentication_required
 */
export type RecencyCheck = (caller: Caller, tx: Tx) => Promise<void>

/**
 * Keeps machines from taking a person over: no program, in its own name or for somebody, changes what decides who can
 * sign in, or holds permissions of this service, as somebody who has credentials or a built-in role.
 * @throws AppError user_is_protected
 */
export async function refuseTakeover(
  { principal }: Caller,
  userId: string,
  users: UsersRepository,
  tx: Tx,
): Promise<void> {
  if (isMachine(principal) && (await users.isProtected(userId, tx))) throw new AppError('user_is_protected')
}

/** The same for everybody at home in an account, whom its activity switches on and off. @throws AppError user_is_protected */
export async function refuseTakeoverOfResidents(
  { principal }: Caller,
  accountId: string,
  users: UsersRepository,
  tx: Tx,
): Promise<void> {
  if (isMachine(principal) && (await users.hasProtectedResidents(accountId, tx))) {
    throw new AppError('user_is_protected', {
      detail: 'Somebody at home in the account has a password or a built-in role',
    })
  }
}

/**
 * Keeps whoever administers one account from becoming somebody who belongs to others too: with a password of their
 * choice, or without the person's factors, they would be that person there as well. The person's row must be locked.
 * @param permission what the caller needs for the change; whoever holds it in every account may
 * @throws AppError user_belongs_to_other_accounts
 */
export async function refuseTakeoverAcrossAccounts(
  { principal }: Caller,
  userId: string,
  permission: BuiltinPermission,
  users: UsersRepository,
  tx: Tx,
): Promise<void> {
  if (principal.scopes.has(anywhere(permission))) return
  if (await users.belongsBeyond(userId, principal.accountId, tx))
    throw new AppError('user_belongs_to_other_accounts')
}

/**
 * For what administrators do to others: one's own credentials change where the old ones are shown.
 * @throws AppError not_for_oneself
 */
export function refuseOneself({ principal }: Caller, userId: string): void {
  if (isOneself(principal, userId)) throw new AppError('not_for_oneself')
}

/** Whether the person is who asks, or somebody for whom a client asks. */
export const isOneself = (principal: Principal, userId: string): boolean =>
  principal.type === 'user' && principal.userId === userId
