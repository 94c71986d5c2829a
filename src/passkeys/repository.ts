import { and, asc, eq, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { passkeys, users } from '../db/schema.ts'
import { AppError, fail } from '../errors.ts'

export type PasskeyRow = {
  id: string
  userId: string
  credentialId: string
  /** Base64url of the COSE key. */
  publicKey: string
  counter: number
  transports: string[]
  deviceType: 'singleDevice' | 'multiDevice'
  isBackedUp: boolean
  isUserVerifying: boolean
  aaguid: string | null
  name: string
  createdAt: Date
  lastUsedAt: Date | null
}

export type NewPasskey = Omit<PasskeyRow, 'createdAt' | 'lastUsedAt'>

/** A credential as options name it. */
export type CredentialDescriptor = Pick<PasskeyRow, 'credentialId' | 'transports'>

const columns = {
  id: passkeys.id,
  userId: passkeys.userId,
  credentialId: passkeys.credentialId,
  publicKey: passkeys.publicKey,
  counter: passkeys.counter,
  transports: passkeys.transports,
  deviceType: passkeys.deviceType,
  isBackedUp: passkeys.isBackedUp,
  isUserVerifying: passkeys.isUserVerifying,
  aaguid: passkeys.aaguid,
  name: passkeys.name,
  createdAt: passkeys.createdAt,
  lastUsedAt: passkeys.lastUsedAt,
}

export type PasskeysRepository = ReturnType<typeof createPasskeysRepository>

/** The passkeys of people. */
export function createPasskeysRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const isOurs = eq(passkeys.environmentId, environmentId)

  return {
    /** Somebody's passkeys, oldest first. */
    async listPasskeys(userId: string, ex: Executor = db): Promise<PasskeyRow[]> {
      return await ex
        .select(columns)
        .from(passkeys)
        .where(and(isOurs, eq(passkeys.userId, userId)))
        .orderBy(asc(passkeys.id))
    },

    /** The credentials of whoever has this email. @param email normalised */
    async listCredentialsOf(email: string): Promise<CredentialDescriptor[]> {
      return await db
        .select({ credentialId: passkeys.credentialId, transports: passkeys.transports })
        .from(passkeys)
        .innerJoin(users, eq(users.id, passkeys.userId))
        .where(and(isOurs, eq(users.emailNormalized, email), sql`${users.deletedAt} is null`))
        .orderBy(asc(passkeys.id))
    },

    /** A passkey by what its authenticator calls it, and the email of its holder. */
    async findByCredentialId(
      credentialId: string,
    ): Promise<(PasskeyRow & { emailNormalized: string | null }) | undefined> {
      const [row] = await db
        .select({ ...columns, emailNormalized: users.emailNormalized })
        .from(passkeys)
        .innerJoin(users, eq(users.id, passkeys.userId))
        .where(and(isOurs, eq(passkeys.credentialId, credentialId)))
      return row
    },

    /** @throws AppError passkey_exists, whoever has it */
    async insertPasskey(passkey: NewPasskey, tx: Tx): Promise<PasskeyRow> {
      try {
        const [row] = await tx
          .insert(passkeys)
          .values({ ...passkey, environmentId })
          .returning(columns)
        return row ?? fail('conflict')
      } catch (error) {
        if (isUniqueViolation(error, 'passkeys_credential_id_key'))
          throw new AppError('passkey_exists', { cause: error })
        throw error
      }
    },

    async renamePasskey(userId: string, id: string, name: string, tx: Tx): Promise<PasskeyRow | undefined> {
      const [row] = await tx
        .update(passkeys)
        .set({ name })
        .where(and(isOurs, eq(passkeys.userId, userId), eq(passkeys.id, id)))
        .returning(columns)
      return row
    },

    async deletePasskey(userId: string, id: string, tx: Tx): Promise<void> {
      await tx.delete(passkeys).where(and(isOurs, eq(passkeys.userId, userId), eq(passkeys.id, id)))
    },

    /**
     * Records a use. False when the counter of the signature is not above that of the last one: two authenticators
     * have the same key (WebAuthn §6.1.1). One that does not count stays at zero.
     */
    async recordUse(
      id: string,
      use: { counter: number; isBackedUp: boolean; isUserVerified: boolean },
    ): Promise<boolean> {
      const used = await db
        .update(passkeys)
        .set({
          counter: use.counter,
          isBackedUp: use.isBackedUp,
          isUserVerifying: sql`${passkeys.isUserVerifying} or ${use.isUserVerified}::boolean`,
          lastUsedAt: sql`now()`,
        })
        .where(
          and(
            eq(passkeys.id, id),
            sql`(${passkeys.counter} < ${use.counter}::bigint or ${passkeys.counter} = 0 and ${use.counter}::bigint = 0)`,
          ),
        )
        .returning({ id: passkeys.id })
      return used.length === 1
    },
  }
}
