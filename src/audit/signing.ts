import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Vault } from '../vault.ts'

/** Where the chain was at a time. */
export type CheckpointFacts = {
  position: number
  hash: string
  /** Positions up to this one have been removed by retention. */
  removedUpTo: number
  createdAt: Date
}

export type Checkpoint = CheckpointFacts & { signature: string }

/** `unknown_key`: made with a key that is not at hand, so that nothing is known of it. */
export type SignatureState = 'valid' | 'wrong' | 'unknown_key'

type Keys = {
  /** Absent where SECRET_KEY is not at hand. */
  vault: Vault | undefined
  /** AUDIT_HMAC_KEY, and the one before. */
  hmacKey: string | undefined
  previousHmacKey: string | undefined
}

export type CheckpointSigner = ReturnType<typeof createCheckpointSigner>

const VERSION = 'v1'
const KEY_ID_LENGTH = 8

/**
 * Signs checkpoints with HMAC-SHA-256 under AUDIT_HMAC_KEY, or under a key derived from SECRET_KEY when there is none.
 * A signature names its key, `v1.<key id>.<mac>`: those of all keys at hand are good.
 */
export function createCheckpointSigner({ vault, hmacKey, previousHmacKey }: Keys) {
  /** The first is the key that signs. */
  const macsOf = (text: string): string[] => [
    ...(hmacKey === undefined ? [] : [macUnder(hmacKey, text)]),
    ...(vault?.macs('audit-checkpoints', text) ?? []),
    ...(previousHmacKey === undefined ? [] : [macUnder(previousHmacKey, text)]),
  ]
  const keyIds = macsOf('key id').map((mac) => mac.slice(0, KEY_ID_LENGTH))

  return {
    /** Whether there is a key to sign and verify with. */
    hasKey: keyIds.length > 0,

    sign(facts: CheckpointFacts): Checkpoint {
      const [mac] = macsOf(textOf(facts))
      const [keyId] = keyIds
      if (mac === undefined || keyId === undefined) throw new Error('there is no key to sign with')
      return { ...facts, signature: [VERSION, keyId, mac].join('.') }
    },

    verify({ signature, ...facts }: Checkpoint): SignatureState {
      const [version, keyId, mac = ''] = signature.split('.')
      const known = keyIds.indexOf(keyId ?? '')
      if (version !== VERSION || known === -1) return 'unknown_key'
      return isSame(mac, macsOf(textOf(facts))[known] ?? '') ? 'valid' : 'wrong'
    },

    /** What every signature of the key that signs begins with. */
    prefix: `${VERSION}.${keyIds[0]}.`,
  }
}

const macUnder = (key: string, text: string): string =>
  createHmac('sha256', key).update(text).digest('base64url')

const textOf = ({ position, hash, removedUpTo, createdAt }: CheckpointFacts): string =>
  ['postern audit checkpoint', position, hash, removedUpTo, createdAt.toISOString()].join('\n')

function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)]
  return a.length === b.length && timingSafeEqual(a, b)
}
