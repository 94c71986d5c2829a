import Type, { type Static } from 'typebox'
import { ENVIRONMENT_NAMES, EnvironmentName } from '../environments/schemas.ts'
import { Key, nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import { API_KEY_ACCESS, API_KEY_LEVELS, type ApiKeyAccess, type ApiKeyLevel } from '../permissions.ts'
import type { ApiKeyRow } from './repository.ts'
import type { ApiKeyInput, IssuedApiKey } from './service.ts'

export const ApiKeyName = Type.String({ minLength: 1, maxLength: 255, examples: ['deployment'] })
const Access = Type.Unsafe<ApiKeyAccess>({
  type: 'string',
  enum: [...API_KEY_ACCESS],
  description:
    '`read` reads and asks for decisions; `write` writes people, accounts, roles and policy too; `full` also manages environments, projects and API keys, at a level above one environment',
})
const Level = Type.Unsafe<ApiKeyLevel>({
  type: 'string',
  enum: [...API_KEY_LEVELS],
  description: 'What the key opens: every environment, those of one project, or one',
})

const fields = {
  id: Uuid,
  name: ApiKeyName,
  level: Level,
  access: Access,
  project: nullable(Type.String({ description: 'Key of the project, for a key of a project' })),
  environment_id: nullable(Uuid),
  environment: nullable(Type.String({ description: '`project/key`', examples: ['default/default'] })),
  key_hint: Type.String({ description: 'The last characters of the key', examples: ['x7Qa'] }),
  created_at: Timestamp,
  last_used_at: Type.Unsafe<string | null>({
    ...nullable(Timestamp),
    description: 'When it was last used, to the minute',
  }),
  expires_at: nullable(Timestamp),
  revoked_at: nullable(Timestamp),
}

export const ApiKeySchema = Type.Object(fields, { $id: 'ApiKey', title: 'API key' })

export const IssuedApiKeySchema = Type.Object(
  { ...fields, key: Type.String({ description: 'The key itself, shown only now' }) },
  { $id: 'IssuedApiKey', title: 'API key with its secret' },
)

export const CreateApiKeyBody = Type.Object(
  {
    name: ApiKeyName,
    access: Access,
    level: Type.Optional(Type.Unsafe<ApiKeyLevel>({ ...Level, default: 'environment' })),
    environment: Type.Optional(
      Type.String({
        ...EnvironmentName,
        description: `${ENVIRONMENT_NAMES}; absent: the environment of the request`,
      }),
    ),
    project: Type.Optional(Key),
    expires_at: Type.Optional(Timestamp),
  },
  { additionalProperties: false, examples: [{ name: 'deployment', access: 'full' }] },
)

export const ListApiKeysQuery = Type.Object(
  { ...pageQuery(['created_at'], 'created_at'), environment_id: Type.Optional(Uuid) },
  { additionalProperties: false },
)

export const ApiKeyIdParams = Type.Object({ api_key_id: Uuid })

/** An API key as it is answered: its hint, never the key. */
export const presentApiKey = (row: ApiKeyRow): Static<typeof ApiKeySchema> => ({
  id: row.id,
  name: row.name,
  level: row.level,
  access: row.access,
  project: row.project,
  environment_id: row.environmentId,
  environment: row.environment,
  key_hint: row.keyHint,
  created_at: row.createdAt.toISOString(),
  last_used_at: row.lastUsedAt?.toISOString() ?? null,
  expires_at: row.expiresAt?.toISOString() ?? null,
  revoked_at: row.revokedAt?.toISOString() ?? null,
})

/** An API key with the key itself, for the one answer that shows it. */
export const presentIssuedApiKey = (row: IssuedApiKey): Static<typeof IssuedApiKeySchema> => ({
  ...presentApiKey(row),
  key: row.key,
})

/** The fields of a body as the service takes them. */
export const newApiKey = ({ expires_at, ...body }: Static<typeof CreateApiKeyBody>): ApiKeyInput => ({
  ...body,
  ...(expires_at !== undefined && { expiresAt: new Date(expires_at) }),
})
