import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import type { EnvironmentsService } from '../environments/service.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import {
  type ApiKeyAccess,
  type ApiKeyLevel,
  anywhere,
  coversPerson,
  permissionsOfApiKey,
} from '../permissions.ts'
import { type Caller, type Principal, principalId } from '../principal.ts'
import type { Vault } from '../vault.ts'
import { hashOfKey, hintOfKey, newKey } from './format.ts'
import type { ApiKeyFilters, ApiKeyRow, ApiKeysRepository } from './repository.ts'
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

/** A key with its secret, which cannot be shown again but for an environment's own key. */
export type IssuedApiKey = ApiKeyRow & { key: string }

type Dependencies = {
  database: Database
  apiKeys: ApiKeysRepository
  verifier: ApiKeyVerifier
  environments: EnvironmentsService
  audit: AuditRepository
  vault: Vault
  clock: Clock
}

const NAME_OF_OWN = 'The environment’s own key'

/**
 * Keys of machines. A key that manages keys does so within what it opens, makes none above its own level, and gives
 * nothing that outlasts it; a key of an environment manages none.
 */
export function createApiKeysService(dependencies: Dependencies) {
  const { database, apiKeys, verifier, environments, audit, vault, clock } = dependencies
  const { db } = database
  return {
    /** The keys that the caller manages. */
    async listKeys(caller: Caller, filters: ApiKeyFilters, request: PageRequest): Promise<Page<ApiKeyRow>> {
      if (!managesKeys(caller.principal)) return { items: [], total: 0 }
      const own = ownProject(caller.principal)
      if (own !== undefined && (filters.withinProject ?? own) !== own) return { items: [], total: 0 }
      return await apiKeys.listKeys({ ...filters, ...(own !== undefined && { withinProject: own }) }, request)
    },

    /** @throws AppError api_key_not_found */
    async getKey(caller: Caller, id: string): Promise<ApiKeyRow> {
      return managed(caller, await apiKeys.findKey(id))
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
        project: level === 'project' ? projectWithin(caller, input.project) : null,
        environmentId:
          level !== 'environment'
            ? null
            : input.environment === undefined
              ? environmentId
              : await idOfEnvironment(caller, input.environment),
      }
      const key = newKey()
      return await transact(db, async (tx) => {
        const own = await holdOwnKey(caller, tx)
        if (opened.project !== null) await environments.holdProject(opened.project, tx)
        const id = newId()
        await apiKeys.insertKey(
          {
            ...opened,
            id,
            name,
            expiresAt: expiresAt ?? own?.expiresAt ?? null,
            keyHash: hashOfKey(key),
            keyHint: hintOfKey(key),
            ...madeBy(caller),
          },
          tx,
        )
        const made = (await apiKeys.findKey(id, tx)) ?? fail('api_key_not_found')
        if (!isWithin(caller.principal, made) || outlasts(made, own)) throw new AppError('grant_exceeds_own')
        await auditCreated(caller, made, tx)
        return { ...made, key }
      })
    },

    /**
     * The key that belongs to the environment itself, with its secret: made when it is first asked for, and the same
     * from then on until it is revoked or rotated. Who asks must be able to do at least as much and for as long.
     * @throws AppError environment_not_found, insufficient_scope, grant_exceeds_own
     */
    async getEnvironmentsOwnKey(caller: Caller, environment: string): Promise<IssuedApiKey> {
      assertSeesSecrets(caller.principal)
      const { id: environmentId } = await environments.getEnvironmentNamed(caller, environment)
      return await transact(db, async (tx) => {
        const own = await holdOwnKey(caller, tx)
        const existing = await apiKeys.findEnvironmentsOwn(environmentId, tx)
        // Any other key of the environment would get a second secret by it, which outlives its own revocation.
        if (own?.level === 'environment' && own.id !== existing?.id)
          throw new AppError('insufficient_scope', { requiredScope: SEES_SECRETS })
        const key = existing ?? (await makeOwn())
        if (outlasts(key, own)) throw new AppError('grant_exceeds_own')
        await audit.append({ action: 'api_key.shown', caller, target: { type: 'api_key', id: key.id } }, tx)
        const { keySealed, ...row } = key
        return { ...row, key: vault.open('api-keys', keySealed) ?? failToOpen(row.id) }

        async function makeOwn() {
          const secret = newKey()
          const isNew = await apiKeys.insertEnvironmentsOwn(
            {
              id: newId(),
              name: NAME_OF_OWN,
              level: 'environment',
              access: 'full',
              project: null,
              environmentId,
              expiresAt: null,
              keyHash: hashOfKey(secret),
              keyHint: hintOfKey(secret),
              keySealed: vault.seal('api-keys', secret),
              ...madeBy(caller),
            },
            tx,
          )
          const made = (await apiKeys.findEnvironmentsOwn(environmentId, tx)) ?? fail('conflict')
          if (isNew) await auditCreated(caller, made, tx)
          return made
        }
      })
    },

    /** Refuses the key from now on; once more is no difference. @throws AppError api_key_not_found */
    async revokeKey(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        await holdOwnKey(caller, tx)
        const { revokedAt } = managed(caller, await apiKeys.lockKey(id, tx))
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
        const own = await holdOwnKey(caller, tx)
        const row = managed(caller, await apiKeys.lockKey(id, tx))
        if (row.revokedAt !== null) throw new AppError('api_key_is_revoked')
        const permissions = permissionsOfApiKey(row.access, row.level)
        if (!coversPerson(caller.principal, [{ accountId: null, permissions }]))
          throw new AppError('grant_exceeds_own')
        if (outlasts(row, own)) throw new AppError('grant_exceeds_own')
        const secret = { keyHash: hashOfKey(key), keyHint: hintOfKey(key) }
        const keySealed = row.isEnvironmentsOwn ? vault.seal('api-keys', key) : null
        await apiKeys.replaceSecret(id, { ...secret, keySealed }, tx)
        await audit.append({ action: 'api_key.rotated', caller, target: { type: 'api_key', id } }, tx)
        return { ...row, keyHint: secret.keyHint, key }
      })
      verifier.forget([id])
      return rotated
    },

    /** Seals under the SECRET_KEY of now what is sealed under the one before. */
    async reseal(ex: Executor): Promise<void> {
      for (const { id, keySealed } of await apiKeys.listSealed(ex)) {
        const sealed = vault.reseal('api-keys', keySealed)
        if (sealed !== undefined) await apiKeys.replaceSealed(id, keySealed, sealed, ex)
      }
    },
  }

  /** What a key does not open is not there for it. @throws AppError environment_not_found */
  async function idOfEnvironment(caller: Caller, name: string): Promise<string> {
    if (caller.principal.type !== 'api_key') return await environments.resolve(name)
    return (await environments.getEnvironmentNamed(caller, name)).id
  }

  /**
   * The key that asks, held as it is until the transaction ends, so that one that is being revoked makes no others.
   * @throws AppError invalid_token when it is gone
   */
  async function holdOwnKey({ principal }: Caller, tx: Tx): Promise<ApiKeyRow | undefined> {
    if (principal.type !== 'api_key') return undefined
    const own = await apiKeys.lockKey(principal.apiKeyId, tx)
    if (!own || own.revokedAt !== null) throw new AppError('invalid_token')
    return own
  }

  async function auditCreated(caller: Caller, made: ApiKeyRow, tx: Tx): Promise<void> {
    const { id, level, access, project, environmentId, expiresAt } = made
    await audit.append(
      {
        action: 'api_key.created',
        caller,
        target: { type: 'api_key', id },
        details: { level, access, project, environment_id: environmentId, expires_at: expiresAt },
      },
      tx,
    )
  }
}

const madeBy = ({ principal }: Caller) => ({
  createdByType: principal.type,
  createdById: principalId(principal) ?? null,
})

/** The one project whose keys a key of a project manages; `undefined`: every key. */
const ownProject = (principal: Principal): string | undefined =>
  (principal.type === 'api_key' ? principal.project : null) ?? undefined

/** Nobody does who is bound to one environment, but in the default one: its administrators are those of all. */
function managesKeys(principal: Principal): boolean {
  if (principal.type === 'client') return principal.environmentId === DEFAULT_ENVIRONMENT
  return principal.type !== 'api_key' || principal.level !== 'environment'
}

/** @throws AppError project_not_found for one that the key that asks does not open */
function projectWithin({ principal }: Caller, project: string | undefined): string | null {
  const own = ownProject(principal)
  if (own !== undefined && project !== own) throw new AppError('project_not_found')
  return project ?? null
}

/** Whether the key opens nothing that the one who manages it does not. */
function isWithin(principal: Principal, key: ApiKeyRow): boolean {
  if (!managesKeys(principal)) return false
  if (principal.type !== 'api_key' || principal.level === 'org') return true
  return key.withinProject === principal.project
}

/** @throws AppError api_key_not_found */
function managed({ principal }: Caller, key: ApiKeyRow | undefined): ApiKeyRow {
  if (!key || !isWithin(principal, key)) throw new AppError('api_key_not_found')
  return key
}

/** Whether the key works longer than the one that asks for it. */
const outlasts = (key: ApiKeyRow, own: ApiKeyRow | undefined): boolean =>
  own !== undefined && own.expiresAt !== null && (key.expiresAt === null || key.expiresAt > own.expiresAt)

const SEES_SECRETS = anywhere('postern.api-keys:write')

/** @throws AppError insufficient_scope */
function assertSeesSecrets(principal: Principal): void {
  const may = principal.type === 'api_key' ? principal.access === 'full' : principal.scopes.has(SEES_SECRETS)
  if (!may) throw new AppError('insufficient_scope', { requiredScope: SEES_SECRETS })
}

function failToOpen(id: string): never {
  throw new Error(`the API key ${id} was not sealed under this SECRET_KEY`)
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
