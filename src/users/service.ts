import { isDeepStrictEqual } from 'node:util'
import type { AccountsService } from '../accounts/service.ts'
import type { AnonymousCaller } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { PasswordHasher } from '../auth/passwords.ts'
import { normalizeEmail } from '../case-folding.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import type { Mailer } from '../mail/service.ts'
import type { PasswordOwner, PasswordRules } from '../passwords/rules.ts'
import { anywhere } from '../permissions.ts'
import { type Caller, isMachine } from '../principal.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import type { RolesService } from '../roles/service.ts'
import type { SessionsRepository } from '../sessions/repository.ts'
import { isOneself, type RecencyCheck, refuseTakeover, refuseTakeoverAcrossAccounts } from './protection.ts'
import type { UserChanges, UserRow, UsersRepository } from './repository.ts'

export type NewUser = Omit<UserChanges, 'email' | 'key'> & { email: string; password: string; key?: string }
/** Without a password: somebody who cannot sign in. */
export type UserInput = Omit<NewUser, 'email' | 'password'> & { email?: string | null; password?: string }
/** Somebody whom another system keeps: no credentials, no home account. */
export type SyncedUser = Pick<UserChanges, 'email' | 'firstName' | 'lastName' | 'attributes'> & {
  key: string
}
export type SyncedUserChanges = Omit<SyncedUser, 'key'>
export type UserUpdate = UserChanges & {
  password?: string
  /** Whether the new password must be changed at the next sign-in; by default as the configuration says. */
  mustChangePassword?: boolean
}

export type UsersService = ReturnType<typeof createUsersService>

type Dependencies = {
  database: Database
  environmentId: string
  users: UsersRepository
  sessions: SessionsRepository
  accounts: AccountsService
  roles: RolesService
  passwords: PasswordHasher
  passwordRules: PasswordRules
  mailer: Mailer
  audit: AuditRepository
  assertRecentAuthentication: RecencyCheck
  /** Whether a password set by an administrator must be changed at the next sign-in. */
  mustChangeWhenSetByAdmin: boolean
}

/** The rules for people of one environment: who changes what of whom, and what that ends. */
export function createUsersService(dependencies: Dependencies) {
  const {
    database,
    environmentId,
    users,
    sessions,
    accounts,
    roles,
    passwords,
    passwordRules,
    mailer,
    audit,
    assertRecentAuthentication,
    mustChangeWhenSetByAdmin,
  } = dependencies
  const { db } = database
  return {
    listUsers: users.listUsers,

    /** Checks a password that a person is to have. @throws AppError validation_failed, password_blocklisted */
    assertPasswordFits: passwordRules.assertFits,

    /** @throws AppError user_not_found */
    async getUser(id: string): Promise<UserRow> {
      return (await users.findUser(id)) ?? fail('user_not_found')
    },

    /** A person by email or id, whichever it is. */
    async findByEmailOrId(emailOrId: string): Promise<UserRow | undefined> {
      const id = isUuid(emailOrId) ? emailOrId : await users.findUserIdByEmail(emailOrId)
      return id === undefined ? undefined : await users.findUser(id)
    },

    /**
     * A person with a password, or, from an API key or in another environment than the default one, without.
     * @throws AppError email_taken, user_key_taken, account_not_found, sign_in_busy, validation_failed,
     * password_blocklisted
     */
    async createUser(caller: Caller, input: UserInput): Promise<UserRow> {
      const { password, ...fields } = input
      assertCredentialsFit(caller, input)
      const hash = password === undefined ? undefined : await hashed(password, fields)
      return await transact(db, async (tx) => {
        const id = await this.insertUser(fields, hash, mustChangeWhenSetByAdmin, tx)
        if (vouches(caller)) await users.verifyEmail(id, tx)
        await audit.append(
          {
            action: 'user.created',
            caller,
            target: { type: 'user', id },
            accountId: fields.accountId ?? null,
            personal: { email: fields.email ?? null },
          },
          tx,
        )
        return (await users.findUser(id, tx)) ?? fail('user_not_found')
      })
    },

    /**
     * A person registers: no role, no account.
     * @param alongside what is to be written in the same transaction
     * @throws AppError email_taken, password_blocklisted, sign_in_busy
     */
    async registerUser(
      caller: AnonymousCaller,
      input: NewUser,
      alongside: (user: UserRow, tx: Tx) => Promise<void> = async () => {},
    ): Promise<UserRow> {
      const { password, ...fields } = input
      const hash = await hashed(password, fields)
      return await transact(db, async (tx) => {
        const id = await this.insertUser(fields, hash, false, tx)
        await audit.append(
          {
            action: 'user.registered',
            caller,
            target: { type: 'user', id },
            personal: { email: fields.email },
          },
          tx,
        )
        const user = (await users.findUser(id, tx)) ?? fail('user_not_found')
        await alongside(user, tx)
        return user
      })
    },

    /** Writes the person, the membership in the home account and the credentials, if there are some. */
    async insertUser(
      fields: Omit<UserInput, 'password'>,
      passwordHash: string | undefined,
      mustChange: boolean,
      tx: Tx,
    ): Promise<string> {
      const id = newId()
      const fullName = fields.fullName ?? nameOf(fields)
      if (fields.accountId) await accounts.lockForPeople(fields.accountId, tx)
      await users.insertUser(
        { ...fields, ...(fullName !== undefined && { fullName }), id, key: fields.key ?? id },
        tx,
      )
      if (fields.accountId) await accounts.insertMember(fields.accountId, id, tx)
      if (passwordHash !== undefined) await users.upsertCredentials(id, passwordHash, mustChange, tx)
      return id
    },

    /**
     * An administrator's change. A new password ends every session of the person; a new home account moves them. Who
     * somebody is and can be is for administrators who reach as far as the person does; one's own password is not set
     * here. A person who sets somebody's password or email has authenticated recently.
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_belongs_to_other_accounts,
     * not_for_oneself, email_change_not_allowed, reauthentication_required, precondition_failed, email_taken,
     * user_key_taken, account_not_found, insufficient_scope, validation_failed, last_super_admin
     */
    async updateUser(caller: Caller, id: string, update: UserUpdate, ifMatch: IfMatch): Promise<UserRow> {
      const { password, mustChangePassword = mustChangeWhenSetByAdmin, accountId, ...changes } = update
      const hash =
        password === undefined || !takesPasswords(caller) || isOneself(caller.principal, id)
          ? undefined
          : await hashed(password, { ...(await this.getUser(id)), ...changes })
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(id, tx)) ?? fail('user_not_found')
        assertMatches(ifMatch, user.revision)
        if (caller.principal.type !== 'api_key') await roles.assertCoversPerson(caller, id, tx)
        if (isOneself(caller.principal, id)) assertOwnToChange(caller, user, update)
        else if (touchesPower(user, update))
          await refuseTakeoverAcrossAccounts(caller, id, 'postern.users:write', users, tx)
        if (password !== undefined || touchesIdentity(user, changes))
          await refuseTakeover(caller, id, users, tx)
        if (password !== undefined && hash === undefined) throw refusedPassword(caller)
        if (hash !== undefined || changesEmail(user, changes)) await assertRecentAuthentication(caller, tx)
        if (accountId !== undefined && accountId !== user.accountId)
          await this.changeHome(caller, user, accountId, tx)
        await this.writeChanges(caller, user, changes, tx)
        if (hash !== undefined) await this.setPassword(caller, user, hash, mustChangePassword, tx)
        if (hash !== undefined && vouches(caller)) await users.verifyEmail(id, tx)
        if (user.isActive && changes.isActive === false) await roles.assertSuperAdminStays(tx)
        return (await users.findUser(id, tx)) ?? fail('user_not_found')
      })
    },

    /**
     * A person's change to their own record. An email is taken only unchanged, or from an administrator of every account
     * who has authenticated recently: others show that they read it (`requestEmailChange`), and learn here nothing of
     * who has which.
     * @throws AppError user_not_found, email_change_not_allowed, reauthentication_required, precondition_failed,
     * email_taken
     */
    async updateOwn(caller: Caller, id: string, changes: UserChanges, ifMatch: IfMatch): Promise<UserRow> {
      return await transact(db, async (tx) => {
        const user = (await users.lockUser(id, tx)) ?? fail('user_not_found')
        assertMatches(ifMatch, user.revision)
        assertOwnToChange(caller, user, changes)
        const { email: _, ...others } = changes
        const isNewEmail = changesEmail(user, changes)
        if (isNewEmail) await assertRecentAuthentication(caller, tx)
        await this.writeChanges(caller, user, isNewEmail ? changes : others, tx)
        return (await users.findUser(id, tx)) ?? fail('user_not_found')
      })
    },

    /** Writes somebody whom another system keeps; returns the id. @throws AppError email_taken, user_key_taken */
    async insertSynced(caller: Caller, user: SyncedUser, tx: Tx): Promise<string> {
      const id = newId()
      const fullName = nameOf(user)
      await users.insertUser({ ...user, ...(fullName !== undefined && { fullName }), id }, tx)
      await audit.append(
        {
          action: 'user.created',
          caller,
          target: { type: 'user', id },
          personal: { email: user.email ?? null },
        },
        tx,
      )
      return id
    },

    /**
     * What another system says of a person, whose row must be locked. Whoever has credentials or a built-in role
     * keeps the email; names and attributes of theirs a machine may change.
     * @throws AppError user_is_protected, grant_exceeds_own, email_taken
     */
    async writeSynced(caller: Caller, user: UserRow, changes: SyncedUserChanges, tx: Tx): Promise<void> {
      if (caller.principal.type === 'user') await roles.assertCoversPerson(caller, user.id, tx)
      const { email, ...others } = changes
      const isNewEmail = email !== undefined && !isSameEmail(email, user.email)
      if (isNewEmail && (await users.isProtected(user.id, tx))) throw new AppError('user_is_protected')
      const wasNamedByParts = user.fullName === null || user.fullName === nameOf(user)
      const fullName = wasNamedByParts ? (nameOf({ ...user, ...others }) ?? null) : user.fullName
      await this.writeChanges(
        caller,
        user,
        { ...others, ...(isNewEmail && { email }), ...(fullName !== user.fullName && { fullName }) },
        tx,
      )
    },

    /** The end of somebody whom another system keeps. @throws AppError user_not_found, user_is_protected */
    async deleteSynced(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(id, tx)) ?? fail('user_not_found')
        if (await users.isProtected(id, tx)) throw new AppError('user_is_protected')
        await this.deleteLocked(caller, user, tx)
      })
    },

    /** @throws AppError user_not_found, grant_exceeds_own, user_belongs_to_other_accounts, last_super_admin */
    async setActive(caller: Caller, id: string, isActive: boolean, ifMatch?: IfMatch): Promise<UserRow> {
      return await this.updateUser(caller, id, { isActive }, ifMatch)
    },

    /**
     * @throws AppError user_not_found, grant_exceeds_own, user_is_protected, user_belongs_to_other_accounts,
     * last_super_admin, precondition_failed
     */
    async deleteUser(caller: Caller, id: string, ifMatch: IfMatch): Promise<void> {
      await transact(db, async (tx) => {
        const user = (await users.lockUser(id, tx)) ?? fail('user_not_found')
        assertMatches(ifMatch, user.revision)
        await refuseTakeover(caller, id, users, tx)
        await roles.assertCoversPerson(caller, id, tx)
        await refuseTakeoverAcrossAccounts(caller, id, 'postern.users:delete', users, tx)
        await this.deleteLocked(caller, user, tx)
        await roles.assertSuperAdminStays(tx)
      })
    },

    /** Writes the end of a person, whose row must be locked, and of their sessions. */
    async deleteLocked(caller: Caller, user: UserRow, tx: Tx): Promise<void> {
      await users.softDeleteUser(user.id, tx)
      await sessions.endSessionsOf(user.id, 'user_deleted', tx)
      await audit.append(
        {
          action: 'user.deleted',
          caller,
          target: { type: 'user', id: user.id },
          accountId: user.accountId,
          personal: { email: user.email },
        },
        tx,
      )
    },

    /** Where the person's record belongs, for the guard of reads: every account they are a member of. */
    async accountsOf(id: string): Promise<string[]> {
      return (await users.listAccountIds(id)).map(({ accountId }) => accountId)
    },

    /** Where the person's record belongs, for the guard of writes: the home account. */
    async homeAccountOf(id: string): Promise<string[]> {
      return (await users.listAccountIds(id)).filter(({ isHome }) => isHome).map(({ accountId }) => accountId)
    },

    /** Sets a password, ends every session but `keepSession` and tells the person. Their row must be locked. */
    async setPassword(
      caller: Caller,
      user: UserRow,
      hash: string,
      mustChange: boolean,
      tx: Tx,
      keepSession?: string,
    ): Promise<void> {
      await users.upsertCredentials(user.id, hash, mustChange, tx)
      await sessions.endSessionsOf(user.id, 'password_changed', tx, keepSession)
      if (keepSession === undefined) await users.raiseTokenVersions([user.id], tx)
      await audit.append(
        {
          action: 'user.password_changed',
          caller,
          target: { type: 'user', id: user.id },
          accountId: user.accountId,
        },
        tx,
      )
      if (user.email !== null)
        await mailer.send({ to: user.email, template: 'password-changed', data: {} }, tx)
    },

    /** Writes fields of the record; deactivation also ends the sessions. */
    async writeChanges(caller: Caller, user: UserRow, changes: UserChanges, tx: Tx): Promise<void> {
      const fields = Object.keys(changes)
      if (fields.length === 0) return
      const toggled = changes.isActive !== undefined && changes.isActive !== user.isActive
      await users.updateUser(user, changes, tx)
      if (toggled) {
        await users.raiseTokenVersions([user.id], tx)
        if (!changes.isActive) await sessions.endSessionsOf(user.id, 'user_deactivated', tx)
      }
      await audit.append(
        {
          action: !toggled ? 'user.updated' : changes.isActive ? 'user.activated' : 'user.deactivated',
          caller,
          target: { type: 'user', id: user.id },
          accountId: user.accountId,
          details: { fields },
          ...(changes.email !== undefined && {
            personal: { email_before: user.email, email_after: changes.email },
          }),
        },
        tx,
      )
    },

    /** A move through the record's `account_id` asks for what POST /accounts/{id}/users asks for. */
    async changeHome(caller: Caller, user: UserRow, accountId: string | null, tx: Tx): Promise<void> {
      if (!caller.principal.scopes.has('postern.users:write:any')) {
        throw new AppError('insufficient_scope', { requiredScope: 'postern.users:write:any' })
      }
      if (accountId === null) {
        throw new AppError('validation_failed', {
          errors: [
            {
              pointer: '/body/account_id',
              detail: 'must name an account; a home account can be changed, not removed',
            },
          ],
        })
      }
      await accounts.moveLockedUser(caller, user, accountId, tx)
    },
  }

  /** People sign in to the default environment only; and no machine decides with what. */
  function takesPasswords({ principal }: Caller): boolean {
    return environmentId === DEFAULT_ENVIRONMENT && !isMachine(principal)
  }

  function refusedPassword({ principal }: Caller): AppError {
    const detail =
      environmentId === DEFAULT_ENVIRONMENT && isMachine(principal)
        ? 'cannot be set by a machine'
        : 'cannot be set, because people sign in to the default environment only'
    return new AppError('validation_failed', { errors: [{ pointer: '/body/password', detail }] })
  }

  /** @throws AppError validation_failed */
  function assertCredentialsFit(caller: Caller, input: UserInput): void {
    if (!takesPasswords(caller)) {
      if (input.password !== undefined) throw refusedPassword(caller)
      return
    }
    const missing = (['email', 'password'] as const).filter((field) => input[field] == null)
    if (missing.length > 0) {
      throw new AppError('validation_failed', {
        errors: missing.map((field) => ({ pointer: `/body/${field}`, detail: 'is required' })),
      })
    }
  }

  async function hashed(password: string, owner: PasswordOwner): Promise<string> {
    await passwordRules.assertFits(password, owner)
    return await passwords.hash(password)
  }
}

/** The operator says whose email it is, and must not be kept out for want of a mail. */
const vouches = ({ principal }: Caller): boolean => principal.type === 'system'

/** Whether the change is of who the person is and can be, and not only of how they are called and described. */
const touchesIdentity = (user: UserRow, changes: UserChanges): boolean =>
  changesEmail(user, changes) ||
  changesKey(user, changes) ||
  (changes.isActive !== undefined && changes.isActive !== user.isActive)

/** Whether the change gives somebody else the person's place, or the person another one: rules read attributes too. */
const touchesPower = (user: UserRow, update: UserUpdate): boolean =>
  update.password !== undefined || touchesIdentity(user, update) || changesAttributes(user, update)

const changesEmail = (user: UserRow, { email }: UserChanges): boolean =>
  email !== undefined && email !== user.email

const changesKey = (user: UserRow, { key }: UserChanges): boolean => key !== undefined && key !== user.key

const changesAttributes = (user: UserRow, { attributes }: UserChanges): boolean =>
  attributes !== undefined && !isDeepStrictEqual(attributes, user.attributes)

/**
 * Of one's own record: the password and, but for administrators of every account, the email change where the old ones
 * are shown; what rules go by is for those administrators too.
 * @throws AppError not_for_oneself, email_change_not_allowed
 */
function assertOwnToChange({ principal }: Caller, user: UserRow, update: UserUpdate): void {
  if (update.password !== undefined) throw new AppError('not_for_oneself')
  if (principal.scopes.has(anywhere('postern.users:write'))) return
  if (changesEmail(user, update)) throw new AppError('email_change_not_allowed')
  if (changesKey(user, update) || changesAttributes(user, update)) throw new AppError('not_for_oneself')
}

/** Whether the two are one address, or both none. */
export const isSameEmail = (one: string | null, other: string | null): boolean =>
  one === null || other === null ? one === other : normalizeEmail(one) === normalizeEmail(other)

/** The whole name of somebody who has one in parts. */
export function nameOf({ firstName, lastName }: UserChanges): string | undefined {
  const name = [firstName, lastName].filter(Boolean).join(' ')
  return name === '' ? undefined : name
}
