import { and, eq, isNotNull, isNull, lt, or, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { prune } from '../db/prune.ts'
import { passkeys, recoveryCodes, totpFactors, userCredentials } from '../db/schema.ts'
import { newId } from '../ids.ts'

/** The authenticator app of somebody. */
export type TotpRow = {
  id: string
  secretSealed: string
  /** The last time step whose code was accepted. */
  lastStep: number | null
}

/** What somebody has enrolled. */
export type FactorsRow = {
  totp: { confirmedAt: Date; lastUsedAt: Date | null } | undefined
  passkeys: number
  recoveryCodesLeft: number
}

export type FactorsRepository = ReturnType<typeof createFactorsRepository>

/** How long an enrolment waits for its first code. */
const PENDING_FOR = sql`interval '1 hour'`

/** The statements of authenticator apps, recovery codes and sign-ins that wait for one, in one environment. */
export function createFactorsRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const totpColumns = {
    id: totpFactors.id,
    secretSealed: totpFactors.secretSealed,
    lastStep: totpFactors.lastStep,
  }
  const totpOf = (userId: string) =>
    and(eq(totpFactors.environmentId, environmentId), eq(totpFactors.userId, userId))
  const codesOf = (userId: string) =>
    and(eq(recoveryCodes.environmentId, environmentId), eq(recoveryCodes.userId, userId))

  return {
    async findFactors(userId: string, ex: Executor = db): Promise<FactorsRow> {
      const [totp] = await ex
        .select({
          confirmedAt: sql`${totpFactors.confirmedAt}`.mapWith(totpFactors.createdAt),
          lastUsedAt: totpFactors.lastUsedAt,
        })
        .from(totpFactors)
        .where(and(totpOf(userId), isNotNull(totpFactors.confirmedAt)))
      return {
        totp,
        passkeys: await ex.$count(
          passkeys,
          and(eq(passkeys.environmentId, environmentId), eq(passkeys.userId, userId)),
        ),
        recoveryCodesLeft: await ex.$count(recoveryCodes, and(codesOf(userId), isNull(recoveryCodes.usedAt))),
      }
    },

    async findTotp(userId: string, ex: Executor = db): Promise<TotpRow | undefined> {
      const [row] = await ex
        .select(totpColumns)
        .from(totpFactors)
        .where(and(totpOf(userId), isNotNull(totpFactors.confirmedAt)))
      return row
    },

    /** An enrolment that waits for its first code. */
    async findPendingTotp(userId: string, ex: Executor = db): Promise<TotpRow | undefined> {
      const [row] = await ex
        .select(totpColumns)
        .from(totpFactors)
        .where(
          and(
            totpOf(userId),
            isNull(totpFactors.confirmedAt),
            sql`${totpFactors.createdAt} > now() - ${PENDING_FOR}`,
          ),
        )
      return row
    },

    /** In place of an enrolment that was begun before. */
    async replacePendingTotp(userId: string, secretSealed: string, tx: Tx): Promise<void> {
      await tx.delete(totpFactors).where(and(totpOf(userId), isNull(totpFactors.confirmedAt)))
      await tx.insert(totpFactors).values({ id: newId(), environmentId, userId, secretSealed })
    },

    /** Has the pending one count, in place of one that counted before. */
    async confirmTotp(userId: string, { id }: TotpRow, step: number, tx: Tx): Promise<void> {
      await tx.delete(totpFactors).where(and(totpOf(userId), isNotNull(totpFactors.confirmedAt)))
      await tx
        .update(totpFactors)
        .set({ confirmedAt: sql`now()`, lastUsedAt: sql`now()`, lastStep: step })
        .where(eq(totpFactors.id, id))
    },

    /** Accepts the code of a step. False when that or a later one was accepted before: of two uses one gets true. */
    async useTotpStep(id: string, step: number, ex: Executor): Promise<boolean> {
      const used = await ex
        .update(totpFactors)
        .set({ lastStep: step, lastUsedAt: sql`now()` })
        .where(
          and(
            eq(totpFactors.id, id),
            isNotNull(totpFactors.confirmedAt),
            or(isNull(totpFactors.lastStep), lt(totpFactors.lastStep, step)),
          ),
        )
        .returning({ id: totpFactors.id })
      return used.length === 1
    },

    /** Removes the authenticator app, and one that is being enrolled. */
    async deleteTotp(userId: string, tx: Tx): Promise<void> {
      await tx.delete(totpFactors).where(totpOf(userId))
    },

    async deletePasskeys(userId: string, tx: Tx): Promise<void> {
      await tx
        .delete(passkeys)
        .where(and(eq(passkeys.environmentId, environmentId), eq(passkeys.userId, userId)))
    },

    /** In place of all that there were, used or not. */
    async replaceRecoveryCodes(userId: string, hashes: readonly string[], tx: Tx): Promise<void> {
      await tx.delete(recoveryCodes).where(codesOf(userId))
      if (hashes.length === 0) return
      await tx.insert(recoveryCodes).values(hashes.map((codeHash) => ({ environmentId, userId, codeHash })))
    },

    /** Uses a code up. False when it is none, or was used: of two uses one gets true. */
    async useRecoveryCode(userId: string, codeHash: string, ex: Executor): Promise<boolean> {
      const used = await ex
        .update(recoveryCodes)
        .set({ usedAt: sql`now()` })
        .where(and(codesOf(userId), eq(recoveryCodes.codeHash, codeHash), isNull(recoveryCodes.usedAt)))
        .returning({ userId: recoveryCodes.userId })
      return used.length === 1
    },

    async isEmailVerified(userId: string, ex: Executor = db): Promise<boolean> {
      const isVerified = and(eq(userCredentials.userId, userId), isNotNull(userCredentials.emailVerifiedAt))
      return (await ex.$count(userCredentials, isVerified)) > 0
    },

    /** Whether an account that the person belongs to demands two factors. */
    async isRequiredByAnAccount(userId: string, ex: Executor = db): Promise<boolean> {
      const { rows } = await ex.execute(sql`
        select from account_members m join accounts a on a.id = m.account_id
        where m.user_id = ${userId} and m.status = 'active' and a.is_mfa_required and a.is_active
          and a.deleted_at is null
        limit 1`)
      return rows.length > 0
    },

    /** Notes that what the person signs in with has changed: sign-ins that began before are not completed. */
    async noteChange(userId: string, tx: Tx): Promise<void> {
      await tx
        .insert(userCredentials)
        .values({ userId, environmentId })
        .onConflictDoUpdate({
          target: userCredentials.userId,
          set: { credentialsChangedAt: sql`clock_timestamp()` },
        })
    },

    /** Every sealed secret, for who seals them anew. */
    async listSealed(ex: Executor): Promise<{ id: string; secretSealed: string }[]> {
      return await ex
        .select({ id: totpFactors.id, secretSealed: totpFactors.secretSealed })
        .from(totpFactors)
        .where(eq(totpFactors.environmentId, environmentId))
    },

    /** Unless the secret was replaced meanwhile. */
    async replaceSealed(id: string, before: string, after: string, ex: Executor): Promise<void> {
      await ex
        .update(totpFactors)
        .set({ secretSealed: after })
        .where(and(eq(totpFactors.id, id), eq(totpFactors.secretSealed, before)))
    },

    /** Removes enrolments that were never confirmed. Returns how many went. */
    async prune(): Promise<number> {
      return await prune(
        db,
        totpFactors,
        and(isNull(totpFactors.confirmedAt), lt(totpFactors.createdAt, sql`now() - ${PENDING_FOR}`)),
      )
    },
  }
}
