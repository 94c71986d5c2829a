import type { AuditRepository } from '../audit/repository.ts'
import type { Tx } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import { listed } from '../users/bulk.ts'
import type { BulkAccountsRepository, NamedAccount, WrittenAccount } from './bulk-repository.ts'
import { DEFAULT_ACCOUNT_KEY } from './service.ts'

export type BulkAccounts = ReturnType<typeof createBulkAccounts>

type Dependencies = { accounts: BulkAccountsRepository; audit: AuditRepository }

/**
 * Accounts that another system keeps, many at a time, in the caller's transaction: under the rules that hold for one,
 * with a few statements for all of them and an audit row for each.
 */
export function createBulkAccounts({ accounts, audit }: Dependencies) {
  return {
    lockAccounts: accounts.lockAccounts,

    /** @throws AppError account_key_taken */
    async insertMany(caller: Caller, inputs: readonly Omit<WrittenAccount, 'id'>[], tx: Tx): Promise<void> {
      const keys = inputs.map(({ key }) => key)
      const names = new Set((await accounts.listNamesakes(keys, tx)).flatMap(({ id, key }) => [id, key]))
      const taken = keys.filter((key) => names.has(key) || names.has(key.toLowerCase()))
      if (taken.length > 0)
        throw new AppError('account_key_taken', { detail: `Taken already: ${listed(taken)}` })
      const rows = inputs.map((input) => ({ ...input, id: newId() }))
      await accounts.insertAccounts(rows, tx)
      await audit.appendAll(
        rows.map(({ id, key }) => ({
          action: 'account.created',
          caller,
          target: { type: 'account', id },
          accountId: id,
          details: { key },
        })),
        tx,
      )
    },

    /**
     * The end of accounts, whose rows must be locked, with the memberships of the people whom the other system keeps
     * and the instances of resources in them.
     * @throws AppError account_has_people, account_is_default
     */
    async deleteMany(caller: Caller, doomed: readonly NamedAccount[], tx: Tx): Promise<void> {
      if (doomed.length === 0) return
      if (doomed.some(({ key }) => key === DEFAULT_ACCOUNT_KEY)) throw new AppError('account_is_default')
      const ids = doomed.map(({ id }) => id)
      const peopled = await accounts.listWithOwnPeople(ids, tx)
      const kept = doomed.filter(({ id }) => peopled.has(id)).map(({ key }) => key)
      if (kept.length > 0)
        throw new AppError('account_has_people', { detail: `Has people of its own: ${listed(kept)}` })
      await accounts.deleteContents(ids, tx)
      await accounts.softDeleteAccounts(ids, tx)
      await audit.appendAll(
        doomed.map(({ id, key }) => ({
          action: 'account.deleted',
          caller,
          target: { type: 'account', id },
          accountId: id,
          details: { key },
        })),
        tx,
      )
    },
  }
}
