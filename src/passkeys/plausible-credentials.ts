import { createHash } from 'node:crypto'
import type { Vault } from '../vault.ts'
import type { CredentialDescriptor } from './repository.ts'

/** What the ids of common authenticators look like: their length in bytes, and how they are reached. */
const SHAPES = [
  { bytes: 20, transports: ['hybrid', 'internal'] },
  { bytes: 16, transports: ['hybrid', 'internal'] },
  { bytes: 32, transports: ['internal'] },
  { bytes: 48, transports: ['nfc', 'usb'] },
] as const

/**
 * Credentials that nobody has, for an email that has none: the same ones each time, so that asking twice tells
 * nothing (WebAuthn §14.6.2). One or two; the ids cannot be told from others without SECRET_KEY.
 * @param email normalised
 */
export function plausibleCredentials(vault: Vault, email: string): CredentialDescriptor[] {
  const seed = Buffer.from(vault.mac('identifiers', `passkey_of|${email}`), 'base64url')
  const count = (seed[0] ?? 0) < 192 ? 1 : 2
  return Array.from({ length: count }, (_, index) => {
    const { bytes, transports } = SHAPES[(seed[index + 1] ?? 0) % SHAPES.length] ?? SHAPES[0]
    const id = createHash('sha512').update(seed).update(String(index)).digest().subarray(0, bytes)
    return { credentialId: id.toString('base64url'), transports: [...transports] }
  })
}
