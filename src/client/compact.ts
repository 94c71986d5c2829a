import { isUtf8 } from 'node:buffer'

/** A JWT in compact form (RFC 7515 §7.1), taken apart and not yet believed. */
export type Compact = {
  header: Record<string, unknown>
  payload: Record<string, unknown>
  /** What is signed. */
  data: Buffer
  signature: Buffer
}

/** Unpadded, and bits that are left over are zero (RFC 4648 §3.5), or one signature had many spellings. */
const BASE64URL = /^[A-Za-z0-9_-]+$/
const LAST_OF_TWO = /[AQgw]$/
const LAST_OF_THREE = /[AEIMQUYcgkosw048]$/

/** Tokens of one issuer have few headers: each is read once. */
const readHeaders = new Map<string, Record<string, unknown>>()
const MOST_HEADERS = 100
const LONGEST_KEPT_HEADER = 512

/**
 * Takes a token apart; `undefined` when it is not exactly three parts of unpadded, canonical base64url, of which the
 * first two are JSON objects in UTF-8. Being strict makes a token one string: nobody can vary it.
 */
export function readCompact(token: string): Compact | undefined {
  const first = token.indexOf('.')
  const second = token.indexOf('.', first + 1)
  if (first < 1 || second < 0 || token.indexOf('.', second + 1) >= 0) return undefined
  const header = readHeader(token.slice(0, first))
  const payload = header && readObject(token.slice(first + 1, second))
  const signature = payload && readBase64url(token.slice(second + 1))
  if (!header || !payload || !signature) return undefined
  return { header, payload, data: Buffer.from(token.slice(0, second), 'latin1'), signature }
}

function readHeader(text: string): Record<string, unknown> | undefined {
  const known = readHeaders.get(text)
  if (known) return known
  const header = readObject(text)
  if (!header || text.length > LONGEST_KEPT_HEADER) return header
  // Strangers can fill it, and then it begins anew.
  if (readHeaders.size >= MOST_HEADERS) readHeaders.clear()
  readHeaders.set(text, header)
  return header
}

function readBase64url(text: string): Buffer | undefined {
  const rest = text.length % 4
  const isCanonical =
    rest === 0 || (rest === 2 && LAST_OF_TWO.test(text)) || (rest === 3 && LAST_OF_THREE.test(text))
  return isCanonical && BASE64URL.test(text) ? Buffer.from(text, 'base64url') : undefined
}

function readObject(text: string): Record<string, unknown> | undefined {
  const bytes = readBase64url(text)
  if (!bytes || !isUtf8(bytes)) return undefined
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** True for an object that is no array and not null. */
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
