import type { Tx } from '../db/client.ts'
import type { Mailer } from '../mail/service.ts'
import type { UserRow } from '../users/repository.ts'

/** What is told to the person, in a mail. */
const SENTENCES = {
  totp_added: 'An authenticator app was added.',
  totp_removed: 'The authenticator app was removed.',
  passkey_added: 'A passkey was added.',
  passkey_removed: 'A passkey was removed.',
  password_removed: 'The password was removed. You sign in with passkeys only.',
  unproven_password_removed:
    'The password was removed, because it was set before you had shown that this address is yours. To have one, set a new one by "forgotten password".',
  recovery_codes_replaced: 'The recovery codes were replaced.',
  recovery_code_used: 'A recovery code was used.',
  factors_reset: 'An administrator has removed every second factor.',
} as const

export type FactorChange = keyof typeof SENTENCES

/** Tells somebody by mail that the means of their sign-in have changed; nothing where mails are not configured. */
export type TellOfFactor = (user: Pick<UserRow, 'email'>, change: FactorChange, tx: Tx) => Promise<void>

/** What tells people of their factors, by this mailer; somebody without an email hears nothing. */
export const createTellOfFactor =
  (mailer: Mailer): TellOfFactor =>
  async ({ email }, change, tx) => {
    if (email === null) return
    const data = { change: SENTENCES[change] }
    await mailer.send({ to: email, template: 'factor-changed', data }, tx)
  }
