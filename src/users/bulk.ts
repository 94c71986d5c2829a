import type { AuditRepository } from '../audit/repository.ts'
import { normalizeEmail } from '../case-folding.ts'
import type { Tx } from '../db/client.ts'
import { AppError, type ProblemCode } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import type { RolesService } from '../roles/service.ts'
import type { BulkUsersRepository, KnownUser, WrittenUser } from './bulk-repository.ts'
import { isSameEmail, nameOf, type SyncedUser, type SyncedUserChanges } from './service.ts'

export type BulkUsers = ReturnType<typeof createBulkUsers>

type Dependencies = { users: BulkUsersRepository; roles: RolesService; audit: AuditRepository }

/**
 * People whom another system keeps, many at a time, in the caller's transaction: under the rules that hold for one,
 * with a few statements for all of them and an audit row for each.
 */
export function createBulkUsers({ users, roles, audit }: Dependencies) {
  /** @throws AppError user_key_taken, email_taken */
  async function assertFree(
    keys: readonly string[],
    emails: readonly { email: string; ownerId?: string }[],
    tx: Tx,
  ): Promise<void> {
    if (keys.length + emails.length === 0) return
    const owners = new Map<string, string | undefined>()
    const twice = emails.filter(({ email, ownerId }) => {
      const normalized = normalizeEmail(email)
      const isKnown = owners.has(normalized)
      owners.set(normalized, ownerId)
      return isKnown
    })
    refuseTaken(
      'email_taken',
      twice.map(({ email }) => email),
    )
    const namesakes = await users.listNamesakes(keys, [...owners.keys()], tx)
    const names = new Set(namesakes.flatMap(({ id, key }) => [id, key]))
    refuseTaken(
      'user_key_taken',
      keys.filter((key) => names.has(key) || names.has(key.toLowerCase())),
    )
    const others = new Set(
      namesakes.flatMap(({ id, emailNormalized: email }) =>
        email !== null && owners.has(email) && owners.get(email) !== id ? [email] : [],
      ),
    )
    refuseTaken(
      'email_taken',
      emails.map(({ email }) => email).filter((email) => others.has(normalizeEmail(email))),
    )
  }

  return {
    lockUsers: users.lockUsers,

    /** Writes new people. @returns their ids, in the same order. @throws AppError user_key_taken, email_taken */
    async insertMany(caller: Caller, people: readonly SyncedUser[], tx: Tx): Promise<string[]> {
      await assertFree(
        people.map(({ key }) => key),
        people.flatMap(({ email }) => (email == null ? [] : [{ email }])),
        tx,
      )
      const rows = people.map((person): WrittenUser => {
        const { key, email = null, firstName = null, lastName = null, attributes = null } = person
        const fullName = nameOf(person) ?? null
        return { id: newId(), key, email, fullName, firstName, lastName, phoneNumber: null, attributes }
      })
      await users.insertUsers(rows, tx)
      await audit.appendAll(
        rows.map(({ id, email }) => ({
          action: 'user.created',
          caller,
          target: { type: 'user', id },
          personal: { email },
        })),
        tx,
      )
      return rows.map(({ id }) => id)
    },

    /**
     * What another system says of people, whose rows must be locked. Whoever has credentials or a built-in role keeps
     * the email.
     * @throws AppError user_is_protected, grant_exceeds_own, email_taken
     */
    async writeMany(
      caller: Caller,
      writes: readonly { user: KnownUser; changes: SyncedUserChanges }[],
      tx: Tx,
    ): Promise<void> {
      const changed = writes.filter(({ changes }) => Object.keys(changes).length > 0)
      if (changed.length === 0) return
      const protectedIds = await users.listProtected(
        changed.map(({ user }) => user.id),
        tx,
      )
      // Nobody else holds a built-in permission, the only ones that the check looks at.
      if (caller.principal.type === 'user')
        for (const id of protectedIds) await roles.assertCoversPerson(caller, id, tx)
      const moved = changed.filter(
        ({ user, changes: { email } }) => email !== undefined && !isSameEmail(email, user.email),
      )
      const kept = moved.filter(({ user }) => protectedIds.has(user.id)).map(({ user }) => user.key)
      if (kept.length > 0)
        throw new AppError('user_is_protected', { detail: `The email of ${listed(kept)} stays` })
      await assertFree(
        [],
        moved.flatMap(({ user, changes: { email } }) => (email == null ? [] : [{ email, ownerId: user.id }])),
        tx,
      )
      await users.updateUsers(changed.map(written), tx)
      await audit.appendAll(
        changed.map(({ user, changes }) => ({
          action: 'user.updated',
          caller,
          target: { type: 'user', id: user.id },
          accountId: user.accountId,
          details: { fields: Object.keys(changes) },
          ...(changes.email !== undefined &&
            !isSameEmail(changes.email, user.email) && {
              personal: { email_before: user.email, email_after: changes.email },
            }),
        })),
        tx,
      )
    },

    /** The end of people, whose rows must be locked. @throws AppError user_is_protected */
    async deleteMany(caller: Caller, people: readonly KnownUser[], tx: Tx): Promise<void> {
      if (people.length === 0) return
      const ids = people.map(({ id }) => id)
      const protectedIds = await users.listProtected(ids, tx)
      const kept = people.filter(({ id }) => protectedIds.has(id)).map(({ key }) => key)
      if (kept.length > 0)
        throw new AppError('user_is_protected', { detail: `${listed(kept)} can sign in here` })
      await users.softDeleteUsers(ids, tx)
      await audit.appendAll(
        people.map(({ id, accountId, email }) => ({
          action: 'user.deleted',
          caller,
          target: { type: 'user', id },
          accountId,
          personal: { email },
        })),
        tx,
      )
    },
  }
}

/** The row after the changes. A whole name that was made of the parts follows them. */
function written({ user, changes }: { user: KnownUser; changes: SyncedUserChanges }): WrittenUser {
  const { accountId: _, ...known } = user
  const { email, ...others } = changes
  const wasNamedByParts = user.fullName === null || user.fullName === nameOf(user)
  return {
    ...known,
    ...others,
    email: email === undefined || isSameEmail(email, user.email) ? user.email : email,
    fullName: wasNamedByParts ? (nameOf({ ...user, ...others }) ?? null) : user.fullName,
  }
}

function refuseTaken(code: ProblemCode, names: readonly string[]): void {
  if (names.length > 0) throw new AppError(code, { detail: `Taken already: ${listed(names)}` })
}

const MOST_LISTED = 10

/** The first of many names, and how many more there are. */
export function listed(names: readonly string[]): string {
  const more = names.length - MOST_LISTED
  return `${names.slice(0, MOST_LISTED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}
