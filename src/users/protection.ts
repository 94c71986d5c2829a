import type { Tx } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { type Caller, isMachine } from '../principal.ts'
import type { UsersRepository } from './repository.ts'

/**
 * Keeps machines from taking a person over: in its own name no program changes what decides who can sign in, or holds
 * permissions of this service, as somebody who has credentials or a built-in role.
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
