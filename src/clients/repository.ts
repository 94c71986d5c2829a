import { and, eq, inArray, type SQL, sql } from 'drizzle-orm'
import { type Database, DEFAULT_ENVIRONMENT, type Executor, type Tx } from '../db/client.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { accounts, clientSecrets, clients } from '../db/schema.ts'

/** What a client may ask tokens with (RFC 6749 §1.3, RFC 8693 §2.1). */
export const GRANT_TYPES = [
  'client_credentials',
  'refresh_token',
  'urn:ietf:params:oauth:grant-type:token-exchange',
] as const
export type GrantType = (typeof GRANT_TYPES)[number]

/** How a client shows who it is (RFC 7591 §2). */
export const AUTH_METHODS = ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'] as const
export type AuthMethod = (typeof AUTH_METHODS)[number]

export type Jwks = { keys: Record<string, unknown>[] }

export type SecretRow = { id: string; secretHint: string; createdAt: Date; expiresAt: Date | null }

export type ClientRow = {
  id: string
  name: string
  grantTypes: string[]
  scopes: string[]
  audiences: string[]
  tokenEndpointAuthMethod: AuthMethod
  jwks: Jwks | null
  isDpopRequired: boolean
  accountId: string | null
  isActive: boolean
  revision: number
  createdAt: Date
  updatedAt: Date
  /** Expired ones included, oldest first. */
  secrets: SecretRow[]
}

/** What authentication, and whoever issues tokens, needs to know of a client. */
export type ClientOnUse = {
  id: string
  environmentId: string
  grantTypes: string[]
  scopes: string[]
  audiences: string[]
  tokenEndpointAuthMethod: AuthMethod
  jwks: Jwks | null
  isDpopRequired: boolean
  accountId: string | null
  /** The client itself, and the account that it is bound to. */
  isActive: boolean
  tokenVersion: number
  secrets: { hash: string; expiresAt: string | null }[]
}

export type NewClient = Pick<
  ClientRow,
  | 'id'
  | 'name'
  | 'grantTypes'
  | 'scopes'
  | 'audiences'
  | 'tokenEndpointAuthMethod'
  | 'jwks'
  | 'isDpopRequired'
  | 'accountId'
>

export type ClientChanges = Partial<
  Pick<ClientRow, 'name' | 'grantTypes' | 'scopes' | 'audiences' | 'jwks' | 'isDpopRequired' | 'isActive'>
>

export type NewClientSecret = { id: string; secretHash: string; secretHint: string }

const columns = {
  id: clients.id,
  name: clients.name,
  grantTypes: clients.grantTypes,
  scopes: clients.scopes,
  audiences: clients.audiences,
  tokenEndpointAuthMethod: clients.tokenEndpointAuthMethod,
  jwks: clients.jwks,
  isDpopRequired: clients.isDpopRequired,
  accountId: clients.accountId,
  isActive: clients.isActive,
  revision: clients.revision,
  createdAt: clients.createdAt,
  updatedAt: clients.updatedAt,
}

const sortKeys: Record<string, SortKey<Pick<ClientRow, 'id'>>> = {
  created_at: { by: clients.id, cast: 'uuid', value: (row) => row.id },
}

export type ClientsRepository = ReturnType<typeof createClientsRepository>

/** The clients of one environment. */
export function createClientsRepository({ db }: Database, environmentId = DEFAULT_ENVIRONMENT) {
  const own = (id: string): SQL | undefined =>
    and(eq(clients.environmentId, environmentId), eq(clients.id, id))

  async function withSecrets<Row extends { id: string }>(
    rows: Row[],
    ex: Executor,
  ): Promise<(Row & { secrets: SecretRow[] })[]> {
    if (rows.length === 0) return []
    const secrets = await ex
      .select({
        clientId: clientSecrets.clientId,
        id: clientSecrets.id,
        secretHint: clientSecrets.secretHint,
        createdAt: clientSecrets.createdAt,
        expiresAt: clientSecrets.expiresAt,
      })
      .from(clientSecrets)
      .where(
        inArray(
          clientSecrets.clientId,
          rows.map(({ id }) => id),
        ),
      )
      .orderBy(clientSecrets.id)
    return rows.map((row) => ({ ...row, secrets: secrets.filter(({ clientId }) => clientId === row.id) }))
  }

  return {
    async listClients(request: PageRequest): Promise<Page<ClientRow>> {
      const clauses = pageClauses(request, sortKeys, clients.id)
      const matching = eq(clients.environmentId, environmentId)
      const rows = await db
        .select(columns)
        .from(clients)
        .where(allOf(matching, clauses.where))
        .orderBy(...clauses.orderBy)
        .limit(clauses.limit)
        .offset(clauses.offset)
      const { items, ...place } = clauses.toPage(rows)
      const page = { ...place, items: await withSecrets(items as typeof rows, db) }
      return request.total ? { ...page, total: await db.$count(clients, matching) } : page
    },

    async findClient(id: string, ex: Executor = db): Promise<ClientRow | undefined> {
      const [row] = await withSecrets(await ex.select(columns).from(clients).where(own(id)), ex)
      return row
    },

    /** The same, its row locked until the transaction ends, so that changes to one client come one by one. */
    async lockClient(id: string, tx: Tx): Promise<ClientRow | undefined> {
      const [locked] = await tx.select({ id: clients.id }).from(clients).where(own(id)).for('no key update')
      return locked && (await this.findClient(id, tx))
    },

    async insertClient(client: NewClient, tx: Tx): Promise<void> {
      await tx.insert(clients).values({ ...client, environmentId })
    },

    /** Writes the changes; with `endsTokens` every token issued until now is dead. */
    async updateClient(id: string, changes: ClientChanges, endsTokens: boolean, tx: Tx): Promise<void> {
      await tx
        .update(clients)
        .set({
          ...changes,
          ...(endsTokens && { tokenVersion: sql`${clients.tokenVersion} + 1` }),
          revision: sql`${clients.revision} + 1`,
          updatedAt: sql`now()`,
        })
        .where(own(id))
    },

    async deleteClient(id: string, tx: Tx): Promise<void> {
      await tx.delete(clients).where(own(id))
    },

    async insertSecret(clientId: string, secret: NewClientSecret, tx: Tx): Promise<void> {
      await tx.insert(clientSecrets).values({ ...secret, clientId })
    },

    /** Has the secrets of the client expire at this time, unless they do before. */
    async expireSecrets(clientId: string, at: Date, tx: Tx): Promise<void> {
      await tx
        .update(clientSecrets)
        .set({ expiresAt: sql`least(${clientSecrets.expiresAt}, ${at.toISOString()}::timestamptz)` })
        .where(eq(clientSecrets.clientId, clientId))
    },

    async deleteSecrets(ids: readonly string[], tx: Tx): Promise<void> {
      await tx.delete(clientSecrets).where(inArray(clientSecrets.id, [...ids]))
    },
  }
}

/** Reads a client of any environment as `ClientOnUse`; one prepared statement. */
export function createFindClientOnUse({ db, prepare }: Database) {
  const onUse = db
    .select({
      id: clients.id,
      environmentId: clients.environmentId,
      grantTypes: clients.grantTypes,
      scopes: clients.scopes,
      audiences: clients.audiences,
      tokenEndpointAuthMethod: clients.tokenEndpointAuthMethod,
      jwks: clients.jwks,
      isDpopRequired: clients.isDpopRequired,
      accountId: clients.accountId,
      isActive: sql<boolean>`${clients.isActive}
        and coalesce(${accounts.isActive} and ${accounts.deletedAt} is null, true)`,
      tokenVersion: clients.tokenVersion,
      secrets: sql<ClientOnUse['secrets']>`coalesce((
        select json_agg(json_build_object('hash', s.secret_hash, 'expiresAt', s.expires_at))
        from client_secrets s where s.client_id = clients.id), '[]')`,
    })
    .from(clients)
    .leftJoin(accounts, eq(accounts.id, clients.accountId))
    .where(eq(clients.id, sql.placeholder('id')))
    .prepare(prepare ? 'client_on_use' : '')
  return async (id: string): Promise<ClientOnUse | undefined> => {
    const [row] = await onUse.execute({ id })
    return row
  }
}
