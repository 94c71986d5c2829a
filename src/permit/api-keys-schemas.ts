import Type, { type Static } from 'typebox'
import type { ApiKeyRow } from '../api-keys/repository.ts'
import { ApiKeyName } from '../api-keys/schemas.ts'
import type { ApiKeyInput } from '../api-keys/service.ts'
import { AppError } from '../errors.ts'
import type { ApiKeyAccess, ApiKeyLevel } from '../permissions.ts'
import { dashed } from './names.ts'
import { Name, ORGANIZATION_ID, optional, page } from './schemas.ts'

type ObjectType = 'org' | 'project' | 'env'
type AccessLevel = 'admin' | 'write' | 'read'
type OwnerType = 'pdp_config' | 'member' | 'elements'

const LEVELS: Record<ObjectType, ApiKeyLevel> = { org: 'org', project: 'project', env: 'environment' }
const OBJECT_TYPES: Record<ApiKeyLevel, ObjectType> = { org: 'org', project: 'project', environment: 'env' }
const ACCESS: Record<AccessLevel, ApiKeyAccess> = { admin: 'full', write: 'write', read: 'read' }
const ACCESS_LEVELS: Record<ApiKeyAccess, AccessLevel> = { full: 'admin', write: 'write', read: 'read' }

const oneOf = <T extends string>(...names: T[]) =>
  Type.Optional(Type.Unsafe<T | null>({ enum: [...names, null] }))

export const KeyParams = Type.Object({ id: Name })
/** Here `id` is the project: routes that differ in what follows a parameter have one name for it. */
export const OwnKeyParams = Type.Object({ id: Name, env_id: Name })
export const KeysQuery = Type.Object({
  ...page,
  object_type: Type.Optional(Type.Unsafe<ObjectType>({ type: 'string', enum: Object.keys(LEVELS) })),
  proj_id: Type.Optional(Type.String({ maxLength: 512 })),
})
export const CreateKeyBody = Type.Object({
  organization_id: optional(Name),
  project_id: optional(Name),
  environment_id: optional(Name),
  object_type: oneOf<ObjectType>('org', 'project', 'env'),
  access_level: oneOf<AccessLevel>('admin', 'write', 'read'),
  owner_type: oneOf<OwnerType>('pdp_config', 'member', 'elements'),
  name: optional(ApiKeyName),
})

/** The level of keys that Permit calls by the type of what they open. */
export const levelOf = (objectType: ObjectType): ApiKeyLevel => LEVELS[objectType]

/** The key that a body asks for. @throws AppError validation_failed */
export function newApiKey(body: Static<typeof CreateKeyBody>): ApiKeyInput {
  const objectType = body.object_type ?? 'env'
  if (typeof body.organization_id === 'string' && dashed(body.organization_id) !== ORGANIZATION_ID)
    throw fault('organization_id', 'is not the organization of this service')
  if (body.owner_type === 'elements') throw fault('owner_type', 'must be member or pdp_config')
  return {
    name: body.name ?? `${objectType} key`,
    level: LEVELS[objectType],
    access: ACCESS[body.access_level ?? 'admin'],
    ...openedBy(objectType, body.project_id ?? undefined, body.environment_id ?? undefined),
  }
}

/** A client that knows the ids above the level may say them; one below it would be misunderstood. */
function openedBy(
  objectType: ObjectType,
  project: string | undefined,
  environment: string | undefined,
): Pick<ApiKeyInput, 'project' | 'environment'> {
  if (objectType !== 'env' && environment !== undefined)
    throw fault('environment_id', 'is only for keys of an environment')
  if (objectType === 'org') {
    if (project !== undefined) throw fault('project_id', 'is not for keys of the organization')
    return {}
  }
  if (objectType === 'project') {
    if (project === undefined) throw fault('project_id', 'is required for a key of a project')
    return { project }
  }
  if (environment === undefined) throw fault('environment_id', 'is required for a key of an environment')
  return { environment: project === undefined ? dashed(environment) : `${project}/${environment}` }
}

const fault = (field: string, detail: string): AppError =>
  new AppError('validation_failed', { errors: [{ pointer: `/body/${field}`, detail }] })

/** An API key as Permit’s API answers it, without the key. */
export const presentApiKey = (row: ApiKeyRow) => ({
  id: row.id,
  organization_id: ORGANIZATION_ID,
  project_id: row.projectId,
  environment_id: row.environmentId,
  object_type: OBJECT_TYPES[row.level],
  access_level: ACCESS_LEVELS[row.access],
  owner_type: row.isEnvironmentsOwn ? 'pdp_config' : 'member',
  name: row.name,
  created_at: row.createdAt.toISOString(),
  last_used_at: row.lastUsedAt?.toISOString() ?? null,
})

/** An API key with the key itself, as Permit’s API shows it. */
export const presentIssuedApiKey = (row: ApiKeyRow & { key: string }) => ({
  ...presentApiKey(row),
  secret: row.key,
})
