import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

const RANDOM_BYTES = 32

/** A new secret, as it is shown once: 256 random bits, base64url. */
export const newSecret = (): string => randomBytes(RANDOM_BYTES).toString('base64url')

/**
 * What is stored of a secret. A slow hash is for secrets that can be guessed; against 256 random bits there is nothing
 * to slow down.
 */
export const hashOfSecret = (secret: string): string =>
  createHash('sha256').update(secret).digest('base64url')

/** The last four characters, by which people tell their secrets apart. */
export const hintOfSecret = (secret: string): string => secret.slice(-4)

/** True when `secret` has one of these hashes. All of them are compared, in constant time. */
export function hasHash(secret: string, hashes: readonly string[]): boolean {
  const given = Buffer.from(hashOfSecret(secret))
  return hashes.map((hash) => timingSafeEqual(given, Buffer.from(hash))).includes(true)
}
