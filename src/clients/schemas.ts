import Type, { type Static } from 'typebox'
import { nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import {
  AUTH_METHODS,
  type AuthMethod,
  type ClientChanges,
  type ClientRow,
  GRANT_TYPES,
  type GrantType,
  type Jwks,
} from './repository.ts'
import type { ClientInput, IssuedClient } from './service.ts'

const ClientName = Type.String({ minLength: 1, maxLength: 255, examples: ['orders'] })
const GrantTypes = Type.Array(Type.Unsafe<GrantType>({ type: 'string', enum: [...GRANT_TYPES] }), {
  uniqueItems: true,
  description: 'What it may ask tokens with',
  examples: [['client_credentials']],
})
/** RFC 6749 §3.3. */
const ClientScope = Type.String({
  pattern: '^[\\x21\\x23-\\x5b\\x5d-\\x7e]+$',
  maxLength: 257,
  examples: ['post:read'],
})
/** The scopes of a token have to fit into headers, and each may appear a second time with its reach. */
const Scopes = Type.Array(ClientScope, {
  uniqueItems: true,
  maxItems: 200,
  description:
    'The most that its tokens may hold: permissions of the application or of this service, without reach',
  examples: [['post:read']],
})
const Audiences = Type.Array(
  Type.String({ minLength: 1, maxLength: 255, examples: ['https://orders.example.com'] }),
  {
    uniqueItems: true,
    maxItems: 50,
    description:
      'Whom its tokens may be for, the first by default, and whose tokens it may introspect and exchange; empty: this service',
    examples: [['https://orders.example.com']],
  },
)
const Method = Type.Unsafe<AuthMethod>({
  type: 'string',
  enum: [...AUTH_METHODS],
  description: 'How it shows who it is (RFC 7591 §2)',
})
const JwksSchema = Type.Object(
  { keys: Type.Array(Type.Object({}, { additionalProperties: true }), { minItems: 1, maxItems: 10 }) },
  { additionalProperties: false, description: 'The public keys of `private_key_jwt` (RFC 7517)' },
)
const DpopRequired = Type.Boolean({ description: 'Its tokens are bound to a key of its own (RFC 9449)' })

const SecretSchema = Type.Object({
  id: Uuid,
  hint: Type.String({ description: 'The last characters of the secret', examples: ['x7Qa'] }),
  created_at: Timestamp,
  expires_at: nullable(Timestamp),
})

const fields = {
  client_id: Uuid,
  name: ClientName,
  grant_types: GrantTypes,
  scopes: Scopes,
  audiences: Audiences,
  token_endpoint_auth_method: Method,
  jwks: nullable(JwksSchema),
  dpop_bound_access_tokens: DpopRequired,
  account_id: Type.Unsafe<string | null>({
    ...nullable(Uuid),
    description: 'The one account that its scopes hold in; null: every account',
  }),
  is_active: Type.Boolean(),
  secrets: Type.Array(SecretSchema),
  created_at: Timestamp,
  updated_at: Timestamp,
}

export const ClientSchema = Type.Object(fields, { $id: 'Client', title: 'OAuth client' })

export const IssuedClientSchema = Type.Object(
  {
    ...fields,
    client_secret: Type.Optional(
      Type.String({ description: 'Shown only now; absent for clients without secrets' }),
    ),
  },
  { $id: 'IssuedClient', title: 'OAuth client with a secret' },
)

export const CreateClientBody = Type.Object(
  {
    name: ClientName,
    grant_types: Type.Optional(GrantTypes),
    scopes: Type.Optional(Scopes),
    audiences: Type.Optional(Audiences),
    token_endpoint_auth_method: Type.Optional(Method),
    jwks: Type.Optional(JwksSchema),
    dpop_bound_access_tokens: Type.Optional(DpopRequired),
    account_id: Type.Optional(nullable(Uuid)),
  },
  {
    additionalProperties: false,
    examples: [{ name: 'orders', grant_types: ['client_credentials'], scopes: ['post:read'] }],
  },
)

export const UpdateClientBody = Type.Object(
  {
    name: Type.Optional(ClientName),
    grant_types: Type.Optional(GrantTypes),
    scopes: Type.Optional(Scopes),
    audiences: Type.Optional(Audiences),
    jwks: Type.Optional(JwksSchema),
    dpop_bound_access_tokens: Type.Optional(DpopRequired),
    is_active: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false, minProperties: 1, examples: [{ scopes: ['post:read', 'post:write'] }] },
)

export const CreateClientSecretBody = Type.Object(
  {
    others_expire_at: Type.Optional(
      Type.String({
        ...Timestamp,
        description: 'Until when the secrets of before hold; absent: as long as they did',
      }),
    ),
  },
  { additionalProperties: false, examples: [{ others_expire_at: '2026-12-01T00:00:00Z' }] },
)

export const ListClientsQuery = Type.Object(pageQuery(['created_at'], 'created_at'), {
  additionalProperties: false,
})

export const ClientIdParams = Type.Object({ client_id: Uuid })
export const ClientSecretParams = Type.Object({ client_id: Uuid, secret_id: Uuid })

/** An OAuth client as it is answered, without its secret. */
export const presentClient = (row: ClientRow): Static<typeof ClientSchema> => ({
  client_id: row.id,
  name: row.name,
  grant_types: row.grantTypes as GrantType[],
  scopes: row.scopes,
  audiences: row.audiences,
  token_endpoint_auth_method: row.tokenEndpointAuthMethod,
  jwks: row.jwks,
  dpop_bound_access_tokens: row.isDpopRequired,
  account_id: row.accountId,
  is_active: row.isActive,
  secrets: row.secrets.map(({ id, secretHint, createdAt, expiresAt }) => ({
    id,
    hint: secretHint,
    created_at: createdAt.toISOString(),
    expires_at: expiresAt?.toISOString() ?? null,
  })),
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** An OAuth client with its secret, for the one answer that shows it. */
export const presentIssuedClient = ({ client, secret }: IssuedClient): Static<typeof IssuedClientSchema> => ({
  ...presentClient(client),
  ...(secret !== undefined && { client_secret: secret }),
})

/** The fields of a body as the service takes them. */
export const newClient = (body: Static<typeof CreateClientBody>): ClientInput => ({
  name: body.name,
  grantTypes: body.grant_types ?? ['client_credentials'],
  scopes: body.scopes ?? [],
  audiences: body.audiences ?? [],
  tokenEndpointAuthMethod: body.token_endpoint_auth_method ?? 'client_secret_basic',
  jwks: (body.jwks as Jwks | undefined) ?? null,
  isDpopRequired: body.dpop_bound_access_tokens ?? false,
  accountId: body.account_id ?? null,
})

/** The changes that the body of a request asks for. */
export const clientChanges = (body: Static<typeof UpdateClientBody>): ClientChanges => ({
  ...(body.name !== undefined && { name: body.name }),
  ...(body.grant_types !== undefined && { grantTypes: body.grant_types }),
  ...(body.scopes !== undefined && { scopes: body.scopes }),
  ...(body.audiences !== undefined && { audiences: body.audiences }),
  ...(body.jwks !== undefined && { jwks: body.jwks as Jwks }),
  ...(body.dpop_bound_access_tokens !== undefined && { isDpopRequired: body.dpop_bound_access_tokens }),
  ...(body.is_active !== undefined && { isActive: body.is_active }),
})
