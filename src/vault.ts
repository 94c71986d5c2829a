import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'

/** What SECRET_KEY is used for. Each purpose has a key of its own, derived by HKDF-SHA-256 (RFC 5869). */
export type Purpose = 'signing-keys' | 'identifiers' | 'canary'

/** Seals texts under SECRET_KEY, and names things without telling what they are. */
export type Vault = ReturnType<typeof createVault>

const VERSION = 'v1'

/** @param secretKey at least 32 characters (held by the configuration) */
export function createVault(secretKey: string) {
  const keys = new Map<Purpose, Buffer>()
  const keyFor = (purpose: Purpose): Buffer => {
    const known = keys.get(purpose)
    if (known) return known
    const derived = Buffer.from(hkdfSync('sha256', secretKey, 'postern', purpose, 32))
    keys.set(purpose, derived)
    return derived
  }

  return {
    /** `text` encrypted with AES-256-GCM under a fresh nonce, as `v1.<nonce>.<ciphertext>.<tag>`. */
    seal(purpose: Purpose, text: string): string {
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', keyFor(purpose), nonce)
      const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
      return [
        VERSION,
        ...[nonce, sealed, cipher.getAuthTag()].map((part) => part.toString('base64url')),
      ].join('.')
    },

    /** What was sealed, or `undefined` when it was changed or sealed under another key. */
    open(purpose: Purpose, sealed: string): string | undefined {
      const [version, nonce, text, tag] = sealed.split('.')
      if (version !== VERSION || nonce === undefined || text === undefined || tag === undefined)
        return undefined
      try {
        const decipher = createDecipheriv('aes-256-gcm', keyFor(purpose), Buffer.from(nonce, 'base64url'), {
          authTagLength: 16,
        })
        decipher.setAuthTag(Buffer.from(tag, 'base64url'))
        return Buffer.concat([decipher.update(Buffer.from(text, 'base64url')), decipher.final()]).toString(
          'utf8',
        )
      } catch {
        return undefined
      }
    },

    /** HMAC-SHA-256 of `text`, base64url: the same for the same text, and no way back without SECRET_KEY. */
    mac(purpose: Purpose, text: string): string {
      return createHmac('sha256', keyFor(purpose)).update(text).digest('base64url')
    },
  }
}
