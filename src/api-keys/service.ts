import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, transact } from '../db/client.ts'
import type { EnvironmentsService } from '../environments/service.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { type ApiKeyAccess, type ApiKeyLevel, coversPerson, permissionsOfApiKey } from '../permissions.ts'
import { type Caller, principalId } from '../principal.ts'
import { hashOfKey, hintOfKey, newKey } from './format.ts'
import type { ApiKeyRow, ApiKeysRepository } from './repository.ts'
import type { ApiKeyVerifier } from './verifier.ts'

export type ApiKeyInput = {
  name: string
  access: ApiKeyAccess
  level?: ApiKeyLevel
  /** Name of the environment, at that level; see `ENVIRONMENT_NAME`. */
  environment?: string
  /** Key of the project, at that level. */
  project?: string
  expiresAt?: Date
}

/** A key with its secret, which cannot be shown again. */
export type IssuedApiKey = ApiKeyRow & { key: string }

type Dependencies = {
  database: Database
  apiKeys: ApiKeysRepository
  verifier: ApiKeyVerifier
  environments: EnvironmentsService
  audit: AuditRepository
  clock: Clock
}

/** Keys of machines. */
export function createApiKeysService(dependencies: Dependencies) {
  const { database, apiKeys, verifier, environments, audit, clock } = dependencies
  const { db } = database
  return {
    listKeys: apiKeys.listKeys,

    /** @throws AppError api_key_not_found */
    async getKey(id: string): Promise<ApiKeyRow> {
      return (await apiKeys.findKey(id)) ?? fail('api_key_not_found')
    },

    /**
     * Makes a key that gives no more than the caller holds. `environmentId` is the environment meant when the input
     * names none.
     * @throws AppError grant_exceeds_own, validation_failed, environment_not_found, project_not_found
     */
    async createKey(caller: Caller, input: ApiKeyInput, environmentId: string): Promise<IssuedApiKey> {
      const { name, access, level = 'environment', expiresAt = null } = input
      assertFits(input, level)
      if (expiresAt !== null && expiresAt <= clock.now()) throw fault('expires_at', 'must be in the future')
      const permissions = permissionsOfApiKey(access, level)
      if (!coversPerson(caller.principal, [{ accountId: null, permissions }]))
        throw new AppError('grant_exceeds_own')
      const opened = {
        level,
        access,
        project: level === 'project' ? (input.project ?? null) : null,
        environmentId:
          level !== 'environment'
            ? null
            : input.environment === undefined
              ? environmentId
              : await environments.resolve(input.environment),
      }
      const key = newKey()
      return await transact(db, async (tx) => {
        if (opened.project !== null) await environments.holdProject(opened.project, tx)
        const id = newId()
        await apiKeys.insertKey(
          {
            ...opened,
            id,
            name,
            expiresAt,
            keyHash: hashOfKey(key),
            keyHint: hintOfKey(key),
            createdByType: caller.principal.type,
            createdById: principalId(caller.principal) ?? null,
          },
          tx,
        )
        await audit.append(
          {
            action: 'api_key.created',
            caller,
            target: { type: 'api_key', id },
            details: {
              level,
              access,
              project: opened.project,
              environment_id: opened.environmentId,
              expires_at: expiresAt,
            },
          },
          tx,
        )
        return { ...((await apiKeys.findKey(id, tx)) ?? fail('api_key_not_found')), key }
      })
    },

    /** Refuses the key from now on; once more is no difference. @throws AppError api_key_not_found */
    async revokeKey(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const { revokedAt } = (await apiKeys.lockKey(id, tx)) ?? fail('api_key_not_found')
        if (revokedAt !== null) return
        await apiKeys.revokeKey(id, tx)
        await audit.append({ action: 'api_key.revoked', caller, target: { type: 'api_key', id } }, tx)
      })
      verifier.forget([id])
    },

    /**
     * Gives the key another secret; the one before is refused from now on.
     * @throws AppError api_key_not_found, api_key_is_revoked, grant_exceeds_own
     */
    async rotateKey(caller: Caller, id: string): Promise<IssuedApiKey> {
      const key = newKey()
      const rotated = await transact(db, async (tx) => {
        const row = (await apiKeys.lockKey(id, tx)) ?? fail('api_key_not_found')
        if (row.revokedAt !== null) throw new AppError('api_key_is_revoked')
        const permissions = permissionsOfApiKey(row.access, row.level)
        if (!coversPerson(caller.principal, [{ accountId: null, permissions }]))
          throw new AppError('grant_exceeds_own')
        const secret = { keyHash: hashOfKey(key), keyHint: hintOfKey(key) }
        await apiKeys.replaceSecret(id, secret, tx)
        await audit.append({ action: 'api_key.rotated', caller, target: { type: 'api_key', id } }, tx)
        return { ...row, keyHint: secret.keyHint, key }
      })
      verifier.forget([id])
      return rotated
    },
  }
}

/** What a key opens is named by its level, and by nothing else. */
function assertFits({ environment, project }: ApiKeyInput, level: ApiKeyLevel): void {
  if (level === 'project' && project === undefined)
    throw fault('project', 'is required for a key of a project')
  if (level !== 'project' && project !== undefined) throw fault('project', 'is only for keys of a project')
  if (level !== 'environment' && environment !== undefined)
    throw fault('environment', 'is only for keys of an environment')
}

const fault = (field: string, detail: string): AppError =>
  new AppError('validation_failed', { errors: [{ pointer: `/body/${field}`, detail }] })
