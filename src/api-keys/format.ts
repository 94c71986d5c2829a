import { createHash, randomInt } from 'node:crypto'

const PREFIX = 'permit_key_'
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 512 bits; with the prefix 97 characters, the least that tools made for Permit's keys accept. */
const RANDOM_CHARACTERS = 86
const FORMAT = new RegExp(`^${PREFIX}[0-9A-Za-z]{${RANDOM_CHARACTERS}}$`)

/** A new key, as it is shown once. */
export const newKey = (): string =>
  PREFIX + Array.from({ length: RANDOM_CHARACTERS }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')

/** True for a token that is to be looked up as an API key, and not verified as a JWT. */
export const isApiKey = (token: string): boolean => token.startsWith(PREFIX)

/** True for what `newKey` can have made. */
export const isWellFormed = (key: string): boolean => FORMAT.test(key)

/**
 * What is stored of a key. A slow hash is for secrets that can be guessed; against 512 random bits there is nothing
 * to slow down, and every request needs the hash.
 */
export const hashOfKey = (key: string): string => createHash('sha256').update(key).digest('base64url')

/** The last four characters, by which people tell their keys apart. */
export const hintOfKey = (key: string): string => key.slice(-4)
