import Type, { type Static, type TSchema } from 'typebox'
import type { AccountRow } from '../accounts/repository.ts'
import { Attributes, Email, Key, nullable, UserKey } from '../http/schemas.ts'
import type { UserRow } from '../users/repository.ts'
import type { GrantRow, Holdings, Place } from './repository.ts'

/** The organization that everything belongs to: there is one. */
export const ORGANIZATION_ID = '00000000-0000-7000-8000-000000000003'

/** A field that may be absent or null: Permit’s Python SDK sends null for what is not set. */
export const optional = <T extends TSchema>(schema: T) => Type.Optional(nullable(schema))
/** A key or an id. */
export const Name = Type.String({ minLength: 1, maxLength: 512 })
export const PersonName = Type.String({ maxLength: 255 })
export const Description = Type.String({ maxLength: 1000 })

const GrantFields = { role: Name, tenant: optional(Name), resource_instance: optional(Name) }
export const UserGrantBody = Type.Object(GrantFields)
export const GrantBody = Type.Object({ user: Name, ...GrantFields })
/** The most assignments of one bulk request. */
const MOST_GRANTS = 2000
export const GrantsBody = Type.Array(GrantBody, { maxItems: MOST_GRANTS })

const userFields = {
  email: optional(Email),
  first_name: optional(PersonName),
  last_name: optional(PersonName),
  attributes: optional(Attributes),
}
const roleAssignments = { role_assignments: optional(Type.Array(UserGrantBody, { maxItems: 100 })) }

export const CreateUserBody = Type.Object({ key: UserKey, ...userFields, ...roleAssignments })
/** The key is in the path. */
export const SyncUserBody = Type.Object({ key: optional(UserKey), ...userFields, ...roleAssignments })
export const UpdateUserBody = Type.Object(userFields)

export const CreateTenantBody = Type.Object({
  key: Key,
  name: Type.String({ minLength: 1, maxLength: 255 }),
  description: optional(Description),
  attributes: optional(Attributes),
})
export const UpdateTenantBody = Type.Object({
  name: optional(Type.String({ minLength: 1, maxLength: 255 })),
  description: optional(Description),
  attributes: optional(Attributes),
})

/** The most items of a page. */
export const MOST_PER_PAGE = 100
export const page = {
  page: Type.Integer({ minimum: 1, maximum: 1_000_000, default: 1 }),
  per_page: Type.Integer({ minimum: 1, maximum: MOST_PER_PAGE, default: 30 }),
}
export const Search = Type.Optional(Type.String({ maxLength: 128 }))
/** One value, or the parameter repeated. */
const Names = Type.Optional(
  Type.Unsafe<string | string[]>({
    anyOf: [
      { type: 'string', maxLength: 512 },
      { type: 'array', maxItems: 100, items: { type: 'string', maxLength: 512 } },
    ],
  }),
)

export const UsersQuery = Type.Object({
  ...page,
  search: Search,
  role: Type.Optional(Type.String({ maxLength: 512 })),
})
export const TenantsQuery = Type.Object({
  ...page,
  search: Search,
  include_total_count: Type.Boolean({ default: false }),
})
export const GrantsQuery = Type.Object({
  ...page,
  user: Names,
  role: Names,
  tenant: Names,
  resource: Type.Optional(Type.String({ maxLength: 512 })),
  resource_instance: Type.Optional(Type.String({ maxLength: 1024 })),
  detailed: Type.Boolean({ default: false }),
  include_total_count: Type.Boolean({ default: false }),
})
export const BulkGrantsQuery = Type.Object({
  missing_user_policy: Type.Union([Type.Literal('fail'), Type.Literal('ignore'), Type.Literal('create')], {
    default: 'fail',
  }),
})

/** A list as SDKs want it: the items alone, or, when they were counted, with how many there are and on how many pages. */
export const listed = <T>(items: T[], total: number | undefined, perPage: number) =>
  total === undefined ? items : { data: items, total_count: total, page_count: Math.ceil(total / perPage) }

/** The names of a query parameter; an empty one is none. */
export function namesOf(value: string | string[] | undefined): string[] | undefined {
  const names = [value ?? []].flat().filter((name) => name !== '')
  return names.length === 0 ? undefined : names
}

/** Absent for an empty text. */
export const nameOf = (value: string | undefined): string | undefined => (value === '' ? undefined : value)

export type PlaceIds = { organization_id: string; project_id: string; environment_id: string }

/** The three ids of a place, as Permit’s API puts them into its answers. */
export const placeIds = ({
  projectId,
  environmentId,
}: Pick<Place, 'projectId' | 'environmentId'>): PlaceIds => ({
  organization_id: ORGANIZATION_ID,
  project_id: projectId,
  environment_id: environmentId,
})

/**
 * What says that something is switched off. Permit knows no such thing, and clients of its take what is listed to be
 * active: the field is there only when it is not.
 */
const unlessActive = (isActive: boolean) => (isActive ? {} : { is_active: false })

/** A person. Pages of them are written by the database in the same shape (`user-pages-repository.ts`). */
export function presentUser(user: UserRow, { members, grants }: Holdings, place: PlaceIds) {
  return {
    key: user.key,
    id: user.id,
    ...place,
    associated_tenants: members.map(({ tenant, status }) => {
      const held = grants.filter((grant) => grant.tenant === tenant)
      return {
        tenant,
        roles: held.filter(({ instance }) => instance === null).map(({ role }) => role),
        status,
        resource_instance_roles: held
          .filter(({ instance }) => instance !== null)
          .map(({ role, resource, instance }) => ({ role, resource, resource_instance: instance })),
      }
    }),
    roles: grants.filter(({ instance }) => instance === null).map(({ role, tenant }) => ({ role, tenant })),
    email: user.email,
    first_name: user.firstName,
    last_name: user.lastName,
    attributes: user.attributes ?? {},
    created_at: user.createdAt.toISOString(),
    updated_at: user.updatedAt.toISOString(),
    ...unlessActive(user.isActive),
  }
}

/** Without attributes, `attributes` is null: SDKs tell that apart from an empty object. */
export const presentTenant = (account: AccountRow, place: PlaceIds) => ({
  key: account.key,
  id: account.id,
  ...place,
  name: account.name,
  description: account.description,
  attributes: account.attributes,
  created_at: account.createdAt.toISOString(),
  updated_at: account.updatedAt.toISOString(),
  last_action_at: account.updatedAt.toISOString(),
  ...unlessActive(account.isActive),
})

const instanceName = ({ instance }: GrantRow): string | null =>
  instance && `${instance.resource}:${instance.key}`

/** A role that somebody holds, as Permit’s API answers it. It is not active when the person or the tenant is not. */
export const presentGrant = (grant: GrantRow, place: PlaceIds) => ({
  id: grant.id,
  user: grant.user.key,
  role: grant.role.key,
  tenant: grant.tenant.key,
  resource_instance: instanceName(grant),
  resource_instance_id: grant.instance?.id ?? null,
  user_id: grant.user.id,
  role_id: grant.role.id,
  tenant_id: grant.tenant.id,
  ...place,
  created_at: grant.createdAt.toISOString(),
  ...unlessActive(grant.user.isActive && grant.tenant.isActive),
  ...(grant.expiresAt && { expires_at: grant.expiresAt.toISOString() }),
})

/** A role that somebody holds, with the user, role and tenant themselves, as Permit’s API answers it. */
export const presentDetailedGrant = (grant: GrantRow, place: PlaceIds) => {
  const { user, role, tenant, instance } = grant
  return {
    ...presentGrant(grant, place),
    user: {
      id: user.id,
      key: user.key,
      email: user.email,
      first_name: user.firstName,
      last_name: user.lastName,
      attributes: user.attributes ?? {},
    },
    role: { id: role.id, key: role.key, name: role.name, permissions: role.permissions },
    tenant: { id: tenant.id, key: tenant.key, name: tenant.name, attributes: tenant.attributes ?? {} },
    resource_instance: instance && {
      id: instance.id,
      key: instance.key,
      resource: instance.resource,
      attributes: instance.attributes ?? {},
    },
  }
}

/** A role as the PDP lists it. */
export function presentLocalAssignment(grant: GrantRow) {
  const instance = instanceName(grant)
  return {
    user: grant.user.key,
    role: grant.role.key,
    tenant: grant.tenant.key,
    ...(instance !== null && { resource_instance: instance }),
  }
}

type UserFields = Static<typeof UpdateUserBody>

/** The fields of a body as the services take them: absent stays absent. */
export const userChanges = ({ email, first_name, last_name, attributes }: UserFields) => ({
  ...(email !== undefined && { email }),
  ...(first_name !== undefined && { firstName: first_name }),
  ...(last_name !== undefined && { lastName: last_name }),
  ...(attributes !== undefined && { attributes }),
})
