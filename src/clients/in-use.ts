import type { Clock } from '../clock.ts'
import { remembered } from '../db/remembered.ts'
import { isUuid } from '../ids.ts'
import { effectiveScopes } from '../permissions.ts'
import { type PublicKey, readPublicJwk } from './jwks.ts'
import type { AuthMethod, ClientOnUse } from './repository.ts'
import { hasHash } from './secrets.ts'

/** A client as requests need it, made ready once. */
export type Client = {
  id: string
  /** Null: of this service itself, and so of the default environment. */
  environmentId: string
  authMethod: AuthMethod
  grantTypes: ReadonlySet<string>
  /** All that its tokens may hold, sorted; see `effectiveScopes`. */
  scopes: readonly string[]
  /** Whom its tokens may be for; the first one by default. */
  audiences: readonly [string, ...string[]]
  keys: readonly PublicKey[]
  isDpopRequired: boolean
  accountId: string | null
  isActive: boolean
  tokenVersion: number
  hasSecret(secret: string): boolean
}

/** The clients in use. */
export type ClientsInUse = ReturnType<typeof createClientsInUse>

type Dependencies = {
  read: (id: string) => Promise<ClientOnUse | undefined>
  /** The audience of this service, which clients without another one have. */
  audience: string
  clock: Clock
}

const KEPT_CLIENTS = 10_000
/** So long a client that another process changed may stay as it was, should its news not arrive. */
const KEPT_MS = 1000

/** Clients in use are kept at hand for a second; made-up ones never, so that they push out none. */
export function createClientsInUse({ read, audience, clock }: Dependencies) {
  const known = remembered<Client>({
    read: async (id) => {
      const row = await read(id)
      return row && clientOf(row, audience, clock)
    },
    most: KEPT_CLIENTS,
    forMs: KEPT_MS,
  })
  return {
    /** The client with this id, active or not; `undefined` when there is none. */
    async find(id: string): Promise<Client | undefined> {
      return isUuid(id) ? await known.get(id.toLowerCase()) : undefined
    },

    /** Has the next use of these clients, or of all, read from the database. */
    forget(ids?: readonly string[]): void {
      known.forget(ids && (({ id }) => ids.includes(id)))
    },
  }
}

function clientOf(row: ClientOnUse, audience: string, clock: Clock): Client {
  const [first = audience, ...others] = row.audiences
  const secrets = row.secrets.map(({ hash, expiresAt }) => ({
    hash,
    expiresAt: expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt),
  }))
  return {
    id: row.id,
    environmentId: row.environmentId,
    authMethod: row.tokenEndpointAuthMethod,
    grantTypes: new Set(row.grantTypes),
    scopes: effectiveScopes([{ accountId: row.accountId, permissions: row.scopes }], row.accountId),
    audiences: [first, ...others],
    keys: (row.jwks?.keys ?? []).map(readPublicJwk).filter((key) => typeof key !== 'string'),
    isDpopRequired: row.isDpopRequired,
    accountId: row.accountId,
    isActive: row.isActive,
    tokenVersion: row.tokenVersion,
    hasSecret(secret) {
      const now = clock.now().getTime()
      const live = secrets.filter(({ expiresAt }) => expiresAt > now)
      return hasHash(
        secret,
        live.map(({ hash }) => hash),
      )
    },
  }
}
