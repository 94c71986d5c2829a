import { AppError } from './errors.ts'
import {
  type ApiKeyAccess,
  type ApiKeyLevel,
  type Authority,
  anywhere,
  BUILTIN_RESOURCES,
  type BuiltinPermission,
} from './permissions.ts'

/** A person with a session. `accountId` is the account the token is for. */
export type UserPrincipal = Authority & {
  type: 'user'
  userId: string
  sessionId: string
  /** True until a password set by somebody else has been changed: nothing but that is allowed. */
  mustChangePassword: boolean
  /** True while two factors are demanded of a session that was begun with one: nothing but enrolling is allowed. */
  isMfaMissing: boolean
  /** The client that acts for the person, when one does. */
  actingClientId?: string
}

/** Somebody as the audit trail names them, for what they do without a token. */
export const sessionHolder = (
  userId: string,
  accountId: string | null,
  sessionId: string,
): UserPrincipal => ({
  type: 'user',
  userId,
  sessionId,
  accountId,
  scopes: new Set(),
  mustChangePassword: false,
  isMfaMissing: false,
})

/** A machine client with a token of its own. `environmentId` is the environment that it belongs to. */
export type ClientPrincipal = Authority & { type: 'client'; clientId: string; environmentId: string }

/** A client as whoever asks. */
export const clientPrincipal = (
  { id, environmentId }: { id: string; environmentId: string },
  accountId: string | null,
  scopes: ReadonlySet<string>,
): ClientPrincipal => ({ type: 'client', clientId: id, environmentId, accountId, scopes })

/** A machine with an API key. Its permissions hold in every account of the environments that the key opens. */
export type ApiKeyPrincipal = Authority & {
  type: 'api_key'
  apiKeyId: string
  level: ApiKeyLevel
  access: ApiKeyAccess
  /** The one environment that the key opens; null: more than one. */
  environmentId: string | null
  /** The key of the one project whose environments the key opens; null at the other levels. */
  project: string | null
}

/** The operator at the command line, who may do everything. */
export type SystemPrincipal = Authority & { type: 'system' }

/** Whoever asks for something, after authentication. */
export type Principal = UserPrincipal | ClientPrincipal | ApiKeyPrincipal | SystemPrincipal

/** Whether it is a program that asks, in its own name or for a person. */
export const isMachine = (principal: Principal): boolean =>
  principal.type === 'api_key' ||
  principal.type === 'client' ||
  (principal.type === 'user' && principal.actingClientId !== undefined)

/** A principal together with what the audit trail records of the request. */
export type Caller = { principal: Principal; requestId: string | undefined; address: string | undefined }

/** For what a request does besides that for which its route asks a permission. @throws AppError insufficient_scope */
export function assertHoldsAnywhere({ principal }: Caller, permission: BuiltinPermission): void {
  const needed = anywhere(permission)
  if (!principal.scopes.has(needed)) throw new AppError('insufficient_scope', { requiredScope: needed })
}

/** The caller of the command line and of the first start. */
export const SYSTEM: Caller = {
  principal: {
    type: 'system',
    accountId: null,
    scopes: new Set(
      Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { actions }]) =>
        actions.flatMap((action) => [`${resource}:${action}`, anywhere(`${resource}:${action}`)]),
      ),
    ),
  },
  requestId: undefined,
  address: undefined,
}

/** The principal's id as the audit trail names it. */
export function principalId(principal: Principal): string | undefined {
  switch (principal.type) {
    case 'user':
      return principal.userId
    case 'client':
      return principal.clientId
    case 'api_key':
      return principal.apiKeyId
    case 'system':
      return undefined
  }
}
