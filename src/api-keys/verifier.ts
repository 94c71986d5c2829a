import type { Clock } from '../clock.ts'
import { remembered } from '../db/remembered.ts'
import { AppError } from '../errors.ts'
import { anywhere, permissionsOfApiKey } from '../permissions.ts'
import type { ApiKeyPrincipal } from '../principal.ts'
import { hashOfKey, isWellFormed } from './format.ts'
import type { ApiKeysRepository, KeyOnUse } from './repository.ts'

/** Tells who presents an API key. */
export type ApiKeyVerifier = ReturnType<typeof createApiKeyVerifier>

type Dependencies = { apiKeys: ApiKeysRepository; clock: Clock }
type KnownKey = { principal: ApiKeyPrincipal; expiresAt: Date | null; usedAt: number }

const KEPT_KEYS = 10_000
/** So long a key that another process revoked may open this one, should its news not arrive. */
const KEPT_MS = 1000
const USE_RECORDED_EVERY_MS = 60_000

/** Keys in use are kept at hand for a second; made-up ones never, so that they push out none. */
export function createApiKeyVerifier({ apiKeys, clock }: Dependencies) {
  const known = remembered<KnownKey>({
    read: async (keyHash) => {
      const key = await apiKeys.findKeyOnUse(keyHash)
      return (
        key && {
          principal: apiKeyPrincipal(key),
          expiresAt: key.expiresAt,
          usedAt: key.lastUsedAt?.getTime() ?? Number.NEGATIVE_INFINITY,
        }
      )
    },
    most: KEPT_KEYS,
    forMs: KEPT_MS,
  })

  return {
    /** Who presents this key. @throws AppError invalid_token when it is unknown, revoked or expired */
    async verify(key: string): Promise<ApiKeyPrincipal> {
      const found = isWellFormed(key) ? await known.get(hashOfKey(key)) : undefined
      const now = clock.now()
      if (!found || (found.expiresAt !== null && found.expiresAt <= now)) throw new AppError('invalid_token')
      recordUse(found, now)
      return found.principal
    },

    /** Has the next use of these keys, or of all, read from the database. */
    forget(ids?: readonly string[]): void {
      known.forget(ids && (({ principal }) => ids.includes(principal.apiKeyId)))
    },
  }

  /** No request waits for it, or fails because of it. */
  function recordUse(key: KnownKey, now: Date): void {
    if (now.getTime() - key.usedAt < USE_RECORDED_EVERY_MS) return
    key.usedAt = now.getTime()
    apiKeys.recordUse(key.principal.apiKeyId, now).catch(() => {})
  }
}

/** A key as whoever asks. */
export const apiKeyPrincipal = ({
  id,
  level,
  access,
  environmentId,
  project,
}: Omit<KeyOnUse, 'lastUsedAt' | 'expiresAt'>): ApiKeyPrincipal => ({
  type: 'api_key',
  apiKeyId: id,
  level,
  access,
  environmentId,
  project,
  accountId: null,
  scopes: new Set(
    permissionsOfApiKey(access, level).flatMap((permission) => [permission, anywhere(permission)]),
  ),
})
