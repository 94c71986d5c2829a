import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Vault } from '../vault.ts'

/** A refresh token as a client presents it. */
export type RefreshToken = { text: string; sessionId: string }

/** Makes refresh tokens and knows its own again. */
export type RefreshTokens = ReturnType<typeof createRefreshTokens>

/** The session, 128 random bits or more, and the first 126 bits of a MAC over both. Opaque to clients. */
const FORMAT = /^([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})\.([\w-]{22})([\w-]{21})$/
const NONCE_BYTES = 16
const NONCE_CHARACTERS = 22
const SEAL_CHARACTERS = 21

/**
 * Refresh tokens `<session id>.<secret>`. The secret ends in a MAC, so that an old token of a session can be told from
 * one that somebody made up: the first one ends the session, the second must not, because session ids are no secret.
 * The successor of a token is derived from it and stored nowhere.
 */
export function createRefreshTokens(vault: Vault) {
  const sealed = (sessionId: string, nonce: string): string => `seal|${sessionId}|${nonce}`
  const write = (sessionId: string, nonce: string, mac: string): string =>
    `${sessionId}.${nonce}${mac.slice(0, SEAL_CHARACTERS)}`

  return {
    /** The first token of a session. */
    create(sessionId: string): string {
      const nonce = randomBytes(NONCE_BYTES).toString('base64url')
      return write(sessionId, nonce, vault.mac('refresh-tokens', sealed(sessionId, nonce)))
    },

    /** The token that follows, always the same one under one SECRET_KEY; then the one under the SECRET_KEY before. */
    successorsOf: ({ text, sessionId }: RefreshToken): string[] =>
      vault.macs('refresh-tokens', `successor|${text}`).map((mac, key) => {
        const nonce = mac.slice(0, NONCE_CHARACTERS)
        return write(sessionId, nonce, vault.macs('refresh-tokens', sealed(sessionId, nonce))[key] ?? '')
      }),

    /** A text in the form of a token; whether it is one is for `isGenuine` or for its hash to say. */
    read(text: string): RefreshToken | undefined {
      const sessionId = FORMAT.exec(text)?.[1]
      return sessionId === undefined ? undefined : { text, sessionId }
    },

    /** True for every token that was ever issued for its session under this SECRET_KEY or the one before. */
    isGenuine({ text, sessionId }: RefreshToken): boolean {
      const [, , nonce = '', given = ''] = FORMAT.exec(text) ?? []
      return vault
        .macs('refresh-tokens', sealed(sessionId, nonce))
        .map((mac) => mac.slice(0, SEAL_CHARACTERS))
        .some(
          (expected) =>
            given.length === expected.length && timingSafeEqual(Buffer.from(given), Buffer.from(expected)),
        )
    },
  }
}

/** How a token is stored: as SHA-256, which is enough for what cannot be guessed. */
export const hashOf = (text: string): string => createHash('sha256').update(text).digest('base64url')
