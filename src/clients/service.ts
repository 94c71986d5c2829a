import type { AccountsService } from '../accounts/service.ts'
import { isResource } from '../audiences.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { Clock } from '../clock.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Tx, transact } from '../db/client.ts'
import { AppError, type FieldError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { coversPerson, isBuiltinPermission, isPermission, permissionsOfApiKey } from '../permissions.ts'
import type { Caller } from '../principal.ts'
import { assertMatches, type IfMatch } from '../revisions.ts'
import { readPublicJwk } from './jwks.ts'
import type { ClientChanges, ClientRow, ClientsRepository, Jwks, NewClient } from './repository.ts'
import { hashOfSecret, hintOfSecret, newSecret } from './secrets.ts'

export type ClientInput = Omit<NewClient, 'id'>

/** A client with a secret of it, which cannot be shown again; `undefined` when it has none. */
export type IssuedClient = { client: ClientRow; secret: string | undefined }

type Dependencies = {
  database: Database
  environmentId: string
  clients: ClientsRepository
  accounts: Pick<AccountsService, 'getAccount'>
  audit: AuditRepository
  /** The audience of this service itself. */
  audience: string
  clock: Clock
}

/** So many secrets of one client hold at once: the one in use, and the one that replaces it. */
const MOST_LIVE_SECRETS = 2

/** Machines, and other programs, that get tokens of their own (RFC 6749 §2). */
export function createClientsService(dependencies: Dependencies) {
  const { database, environmentId, clients, accounts, audit, audience, clock } = dependencies
  const { db } = database

  /** A client that the caller may change: whose built-in permissions are no more than the caller's own. */
  async function lockOwnable(caller: Caller, id: string, ifMatch: IfMatch, tx: Tx): Promise<ClientRow> {
    const client = (await clients.lockClient(id, tx)) ?? fail('client_not_found')
    assertMatches(ifMatch, client.revision)
    assertCovered(caller, client)
    return client
  }

  function assertAcceptable(client: ClientInput): void {
    const faults = [
      ...grantFaults(client),
      ...scopeFaults(client.scopes, environmentId),
      ...audienceFaults(client.audiences, audience),
      ...jwksFaults(client),
    ]
    if (faults.length > 0) throw new AppError('validation_failed', { errors: faults })
  }

  async function addSecret(clientId: string, tx: Tx): Promise<{ id: string; secret: string }> {
    const [id, secret] = [newId(), newSecret()]
    const stored = { id, secretHash: hashOfSecret(secret), secretHint: hintOfSecret(secret) }
    await clients.insertSecret(clientId, stored, tx)
    return { id, secret }
  }

  return {
    listClients: clients.listClients,

    /** @throws AppError client_not_found */
    async getClient(id: string): Promise<ClientRow> {
      return (await clients.findClient(id)) ?? fail('client_not_found')
    },

    /**
     * Registers a client that may do no more here than the caller.
     * @throws AppError validation_failed, grant_exceeds_own, account_not_found
     */
    async createClient(caller: Caller, input: ClientInput): Promise<IssuedClient> {
      assertAcceptable(input)
      assertCovered(caller, input)
      if (input.accountId !== null) await accounts.getAccount(input.accountId)
      return await transact(db, async (tx) => {
        const id = newId()
        await clients.insertClient({ ...input, id }, tx)
        const issued = usesSecrets(input) ? await addSecret(id, tx) : undefined
        await audit.append(
          {
            action: 'client.created',
            caller,
            target: { type: 'client', id },
            accountId: input.accountId,
            details: {
              grant_types: input.grantTypes,
              scopes: input.scopes,
              audiences: input.audiences,
              token_endpoint_auth_method: input.tokenEndpointAuthMethod,
            },
          },
          tx,
        )
        const client = (await clients.findClient(id, tx)) ?? fail('client_not_found')
        return { client, secret: issued?.secret }
      })
    },

    /**
     * Changes a client. What takes something away from it ends every token that it has.
     * @throws AppError client_not_found, precondition_failed, validation_failed, grant_exceeds_own
     */
    async updateClient(
      caller: Caller,
      id: string,
      changes: ClientChanges,
      ifMatch: IfMatch,
    ): Promise<ClientRow> {
      return await transact(db, async (tx) => {
        const client = await lockOwnable(caller, id, ifMatch, tx)
        const changed = { ...client, ...changes }
        assertAcceptable(changed)
        assertCovered(caller, changed)
        await clients.updateClient(id, changes, takesAway(client, changed), tx)
        await audit.append(
          {
            action: 'client.updated',
            caller,
            target: { type: 'client', id },
            accountId: client.accountId,
            details: { fields: Object.keys(changes) },
          },
          tx,
        )
        return (await clients.findClient(id, tx)) ?? fail('client_not_found')
      })
    },

    /** Ends a client and its tokens. @throws AppError client_not_found, precondition_failed, grant_exceeds_own */
    async deleteClient(caller: Caller, id: string, ifMatch: IfMatch): Promise<void> {
      await transact(db, async (tx) => {
        const { accountId } = await lockOwnable(caller, id, ifMatch, tx)
        await clients.deleteClient(id, tx)
        await audit.append(
          { action: 'client.deleted', caller, target: { type: 'client', id }, accountId },
          tx,
        )
      })
    },

    /**
     * Gives the client a further secret; with `othersExpireAt` the others hold until then at the latest.
     * @throws AppError client_not_found, grant_exceeds_own, client_has_no_secrets, limit_reached
     */
    async createSecret(caller: Caller, id: string, othersExpireAt?: Date): Promise<IssuedClient> {
      return await transact(db, async (tx) => {
        const client = await lockOwnable(caller, id, undefined, tx)
        if (!usesSecrets(client)) throw new AppError('client_has_no_secrets')
        if (othersExpireAt) await clients.expireSecrets(id, othersExpireAt, tx)
        const now = clock.now()
        const secrets = (await clients.findClient(id, tx))?.secrets ?? []
        const expired = secrets.filter(({ expiresAt }) => expiresAt !== null && expiresAt <= now)
        if (secrets.length - expired.length >= MOST_LIVE_SECRETS) {
          throw new AppError('limit_reached', {
            detail: `A client may have ${MOST_LIVE_SECRETS} secrets at once; delete one first`,
          })
        }
        await clients.deleteSecrets(
          expired.map((secret) => secret.id),
          tx,
        )
        const { id: secretId, secret } = await addSecret(id, tx)
        await clients.updateClient(id, {}, false, tx)
        await audit.append(
          {
            action: 'client.secret_created',
            caller,
            target: { type: 'client', id },
            accountId: client.accountId,
            details: { secret_id: secretId, others_expire_at: othersExpireAt ?? null },
          },
          tx,
        )
        return { client: (await clients.findClient(id, tx)) ?? fail('client_not_found'), secret }
      })
    },

    /**
     * Refuses a secret from now on; tokens that were got with it live on.
     * @throws AppError client_not_found, grant_exceeds_own, client_secret_not_found
     */
    async deleteSecret(caller: Caller, id: string, secretId: string): Promise<void> {
      await transact(db, async (tx) => {
        const { secrets, accountId } = await lockOwnable(caller, id, undefined, tx)
        if (!secrets.some((secret) => secret.id === secretId)) throw new AppError('client_secret_not_found')
        await clients.deleteSecrets([secretId], tx)
        await clients.updateClient(id, {}, false, tx)
        await audit.append(
          {
            action: 'client.secret_deleted',
            caller,
            target: { type: 'client', id },
            accountId,
            details: { secret_id: secretId },
          },
          tx,
        )
      })
    },
  }
}

const usesSecrets = ({ tokenEndpointAuthMethod: method }: Pick<ClientInput, 'tokenEndpointAuthMethod'>) =>
  method === 'client_secret_basic' || method === 'client_secret_post'

/** @throws AppError grant_exceeds_own when the client would be able to do here what the caller is not */
function assertCovered(
  { principal }: Caller,
  { accountId, scopes }: Pick<ClientInput, 'accountId' | 'scopes'>,
) {
  if (!coversPerson(principal, [{ accountId, permissions: scopes }])) throw new AppError('grant_exceeds_own')
}

/** True when tokens made before could do what the client no longer may. */
function takesAway(before: ClientRow, after: ClientRow): boolean {
  const lost = (had: readonly string[], has: readonly string[]) => had.some((one) => !has.includes(one))
  return (
    (before.isActive && !after.isActive) ||
    (!before.isDpopRequired && after.isDpopRequired) ||
    lost(before.scopes, after.scopes) ||
    // Without any, its tokens are for this service.
    (before.audiences.length === 0 && after.audiences.length > 0) ||
    lost(before.audiences, after.audiences)
  )
}

const fault = (field: string, detail: string): FieldError => ({ pointer: `/body/${field}`, detail })

/** A client that cannot keep a secret gets no tokens in its own name, nor in that of others (RFC 6749 §4.4). */
const grantFaults = ({ tokenEndpointAuthMethod, grantTypes }: ClientInput): FieldError[] =>
  tokenEndpointAuthMethod === 'none' && grantTypes.some((grant) => grant !== 'refresh_token')
    ? [fault('grant_types', 'may only be refresh_token for a public client')]
    : []

/** What a client of an environment of its own may do here is what a key of that environment may. */
function scopeFaults(scopes: readonly string[], environmentId: string): FieldError[] {
  const allowed =
    environmentId === DEFAULT_ENVIRONMENT ? isPermission : isOneOf(permissionsOfApiKey('full', 'environment'))
  return scopes.flatMap((scope, index) =>
    scope.endsWith(':any')
      ? [fault(`scopes/${index}`, 'must be a permission without its reach: account_id says where it holds')]
      : isBuiltinPermission(scope) && !allowed(scope)
        ? [fault(`scopes/${index}`, 'is no permission that a client of this environment may hold')]
        : [],
  )
}

const isOneOf =
  (values: readonly string[]) =>
  (value: string): boolean =>
    values.includes(value)

/** RFC 8707 §2: an absolute URI without a fragment. */
const audienceFaults = (audiences: readonly string[], own: string): FieldError[] =>
  audiences.flatMap((audience, index) =>
    audience === own || isResource(audience)
      ? []
      : [fault(`audiences/${index}`, 'must be an absolute URI without a fragment')],
  )

function jwksFaults({ tokenEndpointAuthMethod, jwks }: ClientInput): FieldError[] {
  if ((tokenEndpointAuthMethod === 'private_key_jwt') !== (jwks !== null)) {
    return [fault('jwks', jwks === null ? 'is required for private_key_jwt' : 'is only for private_key_jwt')]
  }
  const keys = (jwks as Jwks | null)?.keys ?? []
  const kids = keys.map(({ kid }) => kid)
  return keys.flatMap((jwk, index) => {
    const read = readPublicJwk(jwk)
    if (typeof read === 'string') return [fault(`jwks/keys/${index}`, read)]
    const isAmbiguous = keys.length > 1 && (read.kid === undefined || kids.indexOf(read.kid) !== index)
    return isAmbiguous ? [fault(`jwks/keys/${index}`, 'must have a kid that no other key has')] : []
  })
}
