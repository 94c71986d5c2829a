import { isDeepStrictEqual } from 'node:util'
import type { AccountsService } from '../accounts/service.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { SYSTEM } from '../principal.ts'
import type { RolesRepository } from '../roles/repository.ts'
import type { RolesService } from '../roles/service.ts'
import type { UserChanges, UserRow, UsersRepository } from '../users/repository.ts'
import { isSameEmail, type UsersService } from '../users/service.ts'
import { type Credentials, type Item, namesOf } from './newcomers.ts'
import type { ImportedUser } from './records.ts'

export type Updates = ReturnType<typeof createUpdates>

type Dependencies = {
  database: Database
  users: UsersRepository
  usersService: UsersService
  roles: RolesService
  rolesRepository: RolesRepository
  audit: AuditRepository
  accounts: AccountsService
}

/** Makes people who are there already what a line says. */
export function createUpdates(dependencies: Dependencies) {
  const { database, users, usersService, roles, rolesRepository, accounts, audit } = dependencies

  /** A home is given to whoever has none. @returns whether it was. @throws AppError account_not_found, conflict */
  async function settle(user: UserRow, name: string | undefined, tx: Tx): Promise<boolean> {
    if (name === undefined) return false
    const { id: accountId } =
      (await accounts.findByKeyOrId(name)) ??
      fail('account_not_found', { detail: `there is no account ${JSON.stringify(name)}` })
    if (user.accountId === accountId) return false
    if (user.accountId !== null)
      throw new AppError('conflict', { detail: 'is at home in another account, which no import changes' })
    await usersService.changeHome(SYSTEM, user, accountId, tx)
    return true
  }

  /** A password that is there stays: the person may have changed it since. */
  async function giveCredentials(
    user: UserRow,
    { passwordHash, mustChange }: Credentials,
    tx: Tx,
  ): Promise<boolean> {
    if (passwordHash === null || (await users.findCredentials(user.id, tx))?.passwordHash) return false
    await users.upsertCredentials(user.id, passwordHash, mustChange, tx)
    await audit.append(
      {
        action: 'user.password_changed',
        caller: SYSTEM,
        target: { type: 'user', id: user.id },
        accountId: user.accountId,
      },
      tx,
    )
    return true
  }

  async function roleNamed(name: string) {
    try {
      return await roles.resolveRole(name)
    } catch (cause) {
      throw new AppError('role_not_found', { detail: `there is no role ${JSON.stringify(name)}`, cause })
    }
  }

  /** The primary role becomes that of the line; further ones are added. */
  async function giveRoles(
    user: UserRow,
    { role, roles: further = [] }: ImportedUser,
    tx: Tx,
  ): Promise<boolean> {
    const held = await rolesRepository.listAssignments(user.id, tx)
    const primary = held.find(({ isPrimary }) => isPrimary)
    let hasChanged = false
    if (role !== undefined) {
      const { id } = await roleNamed(role)
      if (primary?.role.id !== id) {
        if (primary) await roles.unassign(SYSTEM, primary, user.accountId, tx)
        await roles.assign(SYSTEM, user, id, undefined, true, tx)
        if (primary) await roles.assertSuperAdminStays(tx, [primary.role.key])
        hasChanged = true
      }
    }
    for (const name of further) {
      const { id } = await roleNamed(name)
      if (held.some((one) => one.role.id === id && one.instanceId === null)) continue
      await roles.assign(SYSTEM, user, id, undefined, false, tx)
      hasChanged = true
    }
    return hasChanged
  }

  return {
    /**
     * Writes what the line says, in one transaction; what it does not name stays, and so do the password and the home
     * account of whoever has one. @returns whether anything changed. @throws AppError when it cannot be
     */
    async update(
      { record }: Item,
      credentials: Credentials,
      userId: string,
      { isDryRun }: { isDryRun: boolean },
    ): Promise<boolean> {
      try {
        return await transact(database.db, async (tx) => {
          const found = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
          const hasMoved = await settle(found, record.account, tx)
          const user = hasMoved ? ((await users.findUser(userId, tx)) ?? found) : found
          const changes = changesOf(record, user)
          await usersService.writeChanges(SYSTEM, user, changes, tx)
          const hasPassword = await giveCredentials(user, credentials, tx)
          const isVerified = record.email_verified === true && (await users.verifyEmail(userId, tx))
          const hasRoles = await giveRoles(user, record, tx)
          if (changes.isActive === false) await roles.assertSuperAdminStays(tx)
          const hasChanged =
            hasMoved || hasPassword || isVerified || hasRoles || Object.keys(changes).length > 0
          if (isDryRun) throw new Rehearsal(hasChanged)
          return hasChanged
        })
      } catch (error) {
        if (error instanceof Rehearsal) return error.hasChanged
        throw error
      }
    },
  }
}

/** Ends the transaction of a dry run. */
class Rehearsal extends Error {
  readonly hasChanged: boolean

  constructor(hasChanged: boolean) {
    super('a dry run')
    this.hasChanged = hasChanged
  }
}

/** The fields that the line gives and that differ. */
function changesOf(record: ImportedUser, user: UserRow): UserChanges {
  const { key, email, attributes, is_active: isActive } = record
  if (key !== undefined && key !== user.key)
    throw new AppError('conflict', { detail: 'has the email of a user with another key' })
  const { fullName = user.fullName, ...names } = namesOf(record)
  const given: UserChanges = {
    ...names,
    fullName: record.full_name ?? user.fullName ?? fullName,
    ...(email !== undefined && !isSameEmail(email, user.email) && { email }),
    ...(attributes !== undefined && { attributes }),
    ...(isActive !== undefined && { isActive }),
  }
  const fields = Object.keys(given) as (keyof UserChanges)[]
  return Object.fromEntries(
    fields
      .filter((field) => !isDeepStrictEqual(given[field], user[field]))
      .map((field) => [field, given[field]]),
  )
}
