import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'

/** What SECRET_KEY is used for. Each purpose has a key of its own, derived by HKDF-SHA-256 (RFC 5869). */
export type Purpose =
  | 'signing-keys'
  | 'api-keys'
  | 'identifiers'
  | 'refresh-tokens'
  | 'mail'
  | 'webhooks'
  | 'totp'
  | 'audit-checkpoints'
  | 'canary'

/** Seals texts under SECRET_KEY, and names things without telling what they are. */
export type Vault = ReturnType<typeof createVault>

const VERSION = 'v1'

type KeyFor = (purpose: Purpose) => Buffer

/**
 * @param secretKey at least 32 characters (held by the configuration)
 * @param previous the one before, which opens what has not been sealed again yet
 */
export function createVault(secretKey: string, previous?: string) {
  const keyFor = deriver(secretKey)
  const previousKeyFor = previous === undefined ? undefined : deriver(previous)

  const seal = (purpose: Purpose, text: string): string => {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', keyFor(purpose), nonce)
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
    return [VERSION, ...[nonce, sealed, cipher.getAuthTag()].map((part) => part.toString('base64url'))].join(
      '.',
    )
  }

  const openPrevious = (purpose: Purpose, sealed: string): string | undefined =>
    previousKeyFor && openWith(previousKeyFor(purpose), sealed)

  return {
    /** `text` encrypted with AES-256-GCM under a fresh nonce, as `v1.<nonce>.<ciphertext>.<tag>`. */
    seal,

    /** What was sealed, or `undefined` when it was changed or sealed under another key. */
    open: (purpose: Purpose, sealed: string): string | undefined =>
      openWith(keyFor(purpose), sealed) ?? openPrevious(purpose, sealed),

    /** The same text sealed under the key of now; `undefined` for what is so already, or cannot be opened. */
    reseal(purpose: Purpose, sealed: string): string | undefined {
      if (openWith(keyFor(purpose), sealed) !== undefined) return undefined
      const text = openPrevious(purpose, sealed)
      return text === undefined ? undefined : seal(purpose, text)
    },

    /** HMAC-SHA-256 of `text`, base64url: the same for the same text, and no way back without SECRET_KEY. */
    mac: (purpose: Purpose, text: string): string => macWith(keyFor(purpose), text),

    /** The MACs that `text` may have been given: under the key of now, and under the one before. */
    macs: (purpose: Purpose, text: string): string[] =>
      [keyFor, previousKeyFor].flatMap((key) => (key ? [macWith(key(purpose), text)] : [])),
  }
}

function deriver(secretKey: string): KeyFor {
  const keys = new Map<Purpose, Buffer>()
  return (purpose) => {
    const known = keys.get(purpose)
    if (known) return known
    const derived = Buffer.from(hkdfSync('sha256', secretKey, 'postern', purpose, 32))
    keys.set(purpose, derived)
    return derived
  }
}

const macWith = (key: Buffer, text: string): string =>
  createHmac('sha256', key).update(text).digest('base64url')

function openWith(key: Buffer, sealed: string): string | undefined {
  const [version, nonce, text, tag] = sealed.split('.')
  if (version !== VERSION || nonce === undefined || text === undefined || tag === undefined) return undefined
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(nonce, 'base64url'), {
      authTagLength: 16,
    })
    decipher.setAuthTag(Buffer.from(tag, 'base64url'))
    return Buffer.concat([decipher.update(Buffer.from(text, 'base64url')), decipher.final()]).toString('utf8')
  } catch {
    return undefined
  }
}
