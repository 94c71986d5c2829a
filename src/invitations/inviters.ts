import type { ApiKeysRepository } from '../api-keys/repository.ts'
import { apiKeyPrincipal } from '../api-keys/verifier.ts'
import type { ClientsInUse } from '../clients/in-use.ts'
import type { Clock } from '../clock.ts'
import { DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { effectiveScopes } from '../permissions.ts'
import { clientPrincipal, type Principal, SYSTEM, sessionHolder } from '../principal.ts'
import type { RolesRepository } from '../roles/repository.ts'
import type { UsersRepository } from '../users/repository.ts'
import type { Inviter } from './repository.ts'

type Dependencies = {
  users: UsersRepository
  roles: RolesRepository
  apiKeys: ApiKeysRepository
  clients: ClientsInUse
  clock: Clock
}

export type Inviters = ReturnType<typeof createInviters>

/** Finds out what whoever invited may do by now. */
export function createInviters({ users, roles, apiKeys, clients, clock }: Dependencies) {
  /** A person acts here without a session, through what they left behind. */
  async function personNow(userId: string, accountId: string, tx: Tx): Promise<Principal | undefined> {
    const person = await users.findUser(userId, tx)
    if (!person?.isActive) return undefined
    const scopes = effectiveScopes(await roles.listHeldRoles(userId, tx), accountId)
    return { ...sessionHolder(userId, accountId, ''), scopes: new Set(scopes) }
  }

  async function apiKeyNow(id: string, tx: Tx): Promise<Principal | undefined> {
    const key = await apiKeys.findKey(id, tx)
    if (!key || key.revokedAt !== null) return undefined
    return key.expiresAt === null || key.expiresAt > clock.now() ? apiKeyPrincipal(key) : undefined
  }

  async function clientNow(id: string): Promise<Principal | undefined> {
    const client = await clients.find(id)
    if (!client?.isActive || client.environmentId !== DEFAULT_ENVIRONMENT) return undefined
    return clientPrincipal(client, client.accountId, new Set(client.scopes))
  }

  return {
    /** The inviter with the permissions of this moment in an account; `undefined` when there is no such any more. */
    async principalNow({ type, id }: Inviter, accountId: string, tx: Tx): Promise<Principal | undefined> {
      if (type === 'system') return SYSTEM.principal
      if (id === null) return undefined
      if (type === 'user') return await personNow(id, accountId, tx)
      return type === 'api_key' ? await apiKeyNow(id, tx) : await clientNow(id)
    },
  }
}
