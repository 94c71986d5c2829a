import Type, { type Static } from 'typebox'
import { Key, nullable, Permission, pageQuery, ref, Timestamp, Uuid } from '../http/schemas.ts'
import type { AssignmentRow, RoleRow } from './repository.ts'

const RoleName = Type.String({ minLength: 1, maxLength: 128, examples: ['editor'] })
const Description = Type.String({ maxLength: 1000, examples: ['May write posts'] })
const Reach = Type.String({
  enum: ['account', 'any'],
  description:
    'Where the role holds when it is given as the primary one: in the home account, or in every account',
})
const Scopes = Type.Array(Permission, { maxItems: 500, uniqueItems: true })

export const RoleSchema = Type.Object(
  {
    id: Uuid,
    key: Type.String({ examples: ['editor'] }),
    name: RoleName,
    description: nullable(Description),
    default_reach: Reach,
    is_builtin: Type.Boolean(),
    scopes: Type.Array(Type.String(), {
      description: 'The permissions of the role, which are the scopes of its holders’ tokens',
      examples: [['post:read', 'post:write']],
    }),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'Role', title: 'Role' },
)

/** A role as it stands inside other records. */
export const RoleSummarySchema = Type.Object(
  { id: Uuid, name: RoleName, description: nullable(Description) },
  { $id: 'RoleSummary', title: 'Role, in short' },
)

export const CreateRoleBody = Type.Object(
  {
    name: RoleName,
    key: Type.Optional(Key),
    description: Type.Optional(nullable(Description)),
    default_reach: Type.Optional(Reach),
    scopes: Type.Optional(Scopes),
  },
  {
    additionalProperties: false,
    examples: [{ name: 'editor', description: 'May write posts', scopes: ['post:read', 'post:write'] }],
  },
)

export const UpdateRoleBody = Type.Object(
  {
    name: Type.Optional(RoleName),
    description: Type.Optional(nullable(Description)),
    default_reach: Type.Optional(Reach),
    scopes: Type.Optional(Scopes),
  },
  {
    additionalProperties: false,
    minProperties: 1,
    examples: [{ scopes: ['post:read', 'post:write', 'post:delete'] }],
  },
)

export const ListRolesQuery = Type.Object(
  { ...pageQuery(['created_at'], 'created_at'), key: Type.Optional(Type.String({ maxLength: 128 })) },
  { additionalProperties: false },
)

export const UserRoleSchema = Type.Object(
  { user_id: Uuid, role_id: Uuid, role: ref(RoleSummarySchema) },
  { $id: 'UserRole', title: 'The primary role of a user' },
)

export const AssignmentSchema = Type.Object(
  {
    id: Uuid,
    user_id: Uuid,
    role_id: Uuid,
    role: ref(RoleSummarySchema),
    account_id: nullable(Uuid),
    is_primary: Type.Boolean(),
    created_at: Timestamp,
  },
  { $id: 'RoleAssignment', title: 'A role held by a user; account_id null: in every account' },
)

export const AssignPrimaryBody = Type.Object(
  { user_id: Uuid, role_id: Uuid },
  { additionalProperties: false },
)
export const ChangePrimaryBody = Type.Object({ role_id: Uuid }, { additionalProperties: false })
export const AssignFurtherBody = Type.Object(
  {
    role_id: Uuid,
    account_id: Type.Optional(
      Type.Unsafe<string | null>({
        ...Uuid,
        type: ['string', 'null'],
        description: 'Account to hold the role in; null: every account; absent: by the role’s reach',
      }),
    ),
  },
  { additionalProperties: false },
)

export const presentRole = (row: RoleRow): Static<typeof RoleSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  description: row.description,
  default_reach: row.defaultReach,
  is_builtin: row.isBuiltin,
  scopes: row.permissions,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

export const presentUserRole = (row: AssignmentRow): Static<typeof UserRoleSchema> => ({
  user_id: row.userId,
  role_id: row.role.id,
  role: row.role,
})

export const presentAssignment = (row: AssignmentRow): Static<typeof AssignmentSchema> => ({
  id: row.id,
  user_id: row.userId,
  role_id: row.role.id,
  role: row.role,
  account_id: row.accountId,
  is_primary: row.isPrimary,
  created_at: row.createdAt.toISOString(),
})

type UpdateRole = Static<typeof UpdateRoleBody>
type CreateRole = Static<typeof CreateRoleBody>

/** The fields of a body as the service takes them. */
export function roleFields({ default_reach, scopes, ...fields }: UpdateRole): Omit<
  UpdateRole,
  'default_reach' | 'scopes'
> & {
  defaultReach?: 'account' | 'any'
  permissions?: string[]
} {
  return {
    ...fields,
    ...(default_reach !== undefined && { defaultReach: default_reach === 'any' ? 'any' : 'account' }),
    ...(scopes !== undefined && { permissions: scopes }),
  }
}

export const newRole = ({ name, key, ...fields }: CreateRole) => ({
  name,
  ...(key !== undefined && { key }),
  ...roleFields(fields),
})
