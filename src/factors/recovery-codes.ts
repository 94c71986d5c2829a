import { createHash, randomBytes } from 'node:crypto'

export const RECOVERY_CODES = 10
const CHARACTERS = 28
/** Crockford's Base32: nothing in it is taken for something else. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** A code of 140 random bits, in groups: above the 112 from which a plain hash is enough (SP 800-63B-4 §3.1.2.2). */
export function newRecoveryCode(): string {
  const characters = Array.from(randomBytes(CHARACTERS), (byte) => ALPHABET[byte % ALPHABET.length])
  return characters.join('').replaceAll(/(.{4})(?=.)/g, '$1-')
}

/** How a code is stored, however its owner writes it: without regard to case, hyphens, spaces and mixed-up letters. */
export function hashOfRecoveryCode(code: string): string {
  const written = code.toLowerCase().replaceAll(/[\s-]/g, '').replaceAll('o', '0').replaceAll(/[il]/g, '1')
  return createHash('sha256').update(written).digest('base64url')
}
