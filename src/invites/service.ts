import type { AccountsRepository } from '../accounts/repository.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import { assertBelow } from '../resources/limits.ts'
import type { RolesRepository } from '../roles/repository.ts'
import { assertMayGrant, type RolesService } from '../roles/service.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import type { InviteRow, InvitesRepository } from './repository.ts'

/** `resourceId`: of the role, null for one that is held in accounts. `instance`: `type:key` or id. */
export type InviteInput = {
  /** Default: the email. */
  key: string | undefined
  email: string
  firstName: string | null
  lastName: string | null
  role: { id: string; resourceId: string | null }
  accountId: string
  instance: string | undefined
}

/** Who comes of an invitation. */
export type InvitedUser = { email: string; key: string; attributes: Record<string, unknown> | undefined }

type Dependencies = {
  database: Database
  invites: InvitesRepository
  accounts: AccountsRepository
  roles: RolesService
  rolesRepository: RolesRepository
  users: UsersService
  usersRepository: UsersRepository
  audit: AuditRepository
}

/** People who shall become users with a role, once somebody who may give it approves. */
export function createInvitesService(dependencies: Dependencies) {
  const { database, invites, accounts, roles, rolesRepository, users, usersRepository, audit } = dependencies
  const { db } = database

  return {
    listInvites: invites.listInvites,

    /** By key, then by id. @throws AppError invite_not_found */
    async getInvite(ref: string): Promise<InviteRow> {
      return (await invites.findInvite(ref)) ?? fail('invite_not_found')
    },

    /**
     * Whoever invites must be allowed to give the role now, and whoever approves when it is given. A role of a resource
     * needs the instance that it is for.
     * @throws AppError role_not_found, account_not_found, instance_not_found, instances_in_different_accounts,
     *   invite_key_taken, grant_exceeds_own, limit_reached, validation_failed
     */
    async createInvite(caller: Caller, input: InviteInput): Promise<InviteRow> {
      const { key, role, accountId, instance: ref, ...person } = input
      return await transact(db, async (tx) => {
        assertBelow('invites', await invites.countInvites(tx))
        if (!(await accounts.lockAccount(accountId, tx, 'share'))) throw new AppError('account_not_found')
        const resourceId = role.resourceId ?? undefined
        const locked =
          (await rolesRepository.lockRole(role.id, tx, 'share', resourceId)) ?? fail('role_not_found')
        if (locked.isBuiltin) throw new AppError('role_not_found')
        assertMayGrant(caller, locked, accountId)
        const instance =
          ref === undefined
            ? undefined
            : ((await rolesRepository.findInstance(ref, tx)) ?? fail('instance_not_found'))
        if (instance && instance.accountId !== accountId)
          throw new AppError('instances_in_different_accounts')
        if (role.resourceId !== null && instance?.resourceId !== role.resourceId)
          throw new AppError('validation_failed', {
            errors: [
              {
                pointer: '/body/resource_instance_id',
                detail: 'must be an instance of the resource of the role',
              },
            ],
          })
        const id = newId()
        const invite = {
          ...person,
          id,
          key: key ?? person.email,
          roleId: role.id,
          accountId,
          resourceInstanceId: instance?.id ?? null,
        }
        await invites.insertInvite(invite, tx)
        await record('invite.created', caller, invite, {}, tx)
        return (await invites.findInvite(id, tx)) ?? fail('invite_not_found')
      })
    },

    /**
     * Makes the user, who has the role from then on. Of two at once, one does.
     * @returns the id of the user
     * @throws AppError invite_not_found, invite_is_approved, validation_failed for another email than the one that
     *   was invited, user_key_taken, email_taken, role_not_found, account_not_found, grant_exceeds_own
     */
    async approveInvite(
      caller: Caller,
      ref: string,
      { email, key, attributes }: InvitedUser,
    ): Promise<string> {
      const { id } = await this.getInvite(ref)
      return await transact(db, async (tx) => {
        const invite = (await invites.lockInvite(id, tx)) ?? fail('invite_not_found')
        if (invite.status === 'approved') throw new AppError('invite_is_approved')
        if (normalizeEmail(email) !== invite.emailNormalized)
          throw new AppError('validation_failed', {
            errors: [{ pointer: '/body/email', detail: 'must be the one that was invited' }],
          })
        const { firstName, lastName, roleId, accountId } = invite
        const userId = await users.insertSynced(
          caller,
          { key, email: invite.email, firstName, lastName, ...(attributes !== undefined && { attributes }) },
          tx,
        )
        const user = (await usersRepository.lockUser(userId, tx)) ?? fail('user_not_found')
        await roles.assign(caller, user, roleId, accountId, false, tx, await termsOf(invite, tx))
        await invites.markApproved(id, tx)
        await record('invite.approved', caller, invite, { user_id: userId }, tx)
        return userId
      })
    },

    /** The user who came of it stays. @throws AppError invite_not_found */
    async deleteInvite(caller: Caller, ref: string): Promise<void> {
      const { id } = await this.getInvite(ref)
      await transact(db, async (tx) => {
        const invite = (await invites.lockInvite(id, tx)) ?? fail('invite_not_found')
        await invites.deleteInvite(id, tx)
        await record('invite.deleted', caller, invite, {}, tx)
      })
    },
  }

  /** A role that is held in accounts is held in the invitation's, whether it names an instance or not. */
  async function termsOf({ roleId, resourceInstanceId: instance }: InviteRow, tx: Tx) {
    if (instance === null || (await rolesRepository.findRole(roleId, tx))) return {}
    return { instance }
  }

  /** Keys are emails as a rule, so they are kept where what is personal is. */
  async function record(
    action: 'invite.created' | 'invite.approved' | 'invite.deleted',
    caller: Caller,
    invite: Pick<InviteRow, 'id' | 'key' | 'email' | 'roleId' | 'accountId' | 'resourceInstanceId'>,
    details: Record<string, unknown>,
    tx: Tx,
  ): Promise<void> {
    const { id, key, email, roleId, accountId, resourceInstanceId } = invite
    await audit.append(
      {
        action,
        caller,
        target: { type: 'invite', id },
        accountId,
        details: {
          role_id: roleId,
          ...(resourceInstanceId !== null && { instance_id: resourceInstanceId }),
          ...details,
        },
        personal: { key, email },
      },
      tx,
    )
  }
}
