import Type, { type Static } from 'typebox'
import { Attributes, Key, nullable, Permission, pageQuery, ref, Timestamp, Uuid } from '../http/schemas.ts'
import type { AssignmentRow, RoleRow } from './repository.ts'
import type { AssignmentTerms } from './service.ts'

const RoleName = Type.String({ minLength: 1, maxLength: 128, examples: ['editor'] })
const Description = Type.String({ maxLength: 1000, examples: ['May write posts'] })
const Reach = Type.String({
  enum: ['account', 'any'],
  description:
    'Where the role holds when it is given as the primary one: in the home account, or in every account',
})
const IsMfaRequired = Type.Boolean({
  description:
    'Whether whoever holds the role must sign in with two factors; of a built-in role only this changes',
})
const Scopes = Type.Array(Permission, { maxItems: 500, uniqueItems: true })
const Extends = Type.Array(Key, {
  maxItems: 50,
  uniqueItems: true,
  description: 'Keys of roles whose scopes this one has too, and those of the roles that they extend',
  examples: [['viewer']],
})

export const RoleSchema = Type.Object(
  {
    id: Uuid,
    key: Type.String({ examples: ['editor'] }),
    name: RoleName,
    description: nullable(Description),
    default_reach: Reach,
    is_builtin: Type.Boolean(),
    is_mfa_required: IsMfaRequired,
    scopes: Type.Array(Type.String(), {
      description: 'The permissions of the role, which are the scopes of its holders’ tokens',
      examples: [['post:read', 'post:write']],
    }),
    extends: Type.Array(Type.String(), {
      description: 'Keys of the roles whose scopes this one has too',
      examples: [['viewer']],
    }),
    effective_scopes: Type.Array(Type.String(), {
      description: 'Its own scopes and those of every role that it extends, directly or not',
      examples: [['post:read', 'post:write']],
    }),
    attributes: nullable(Attributes),
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
    is_mfa_required: Type.Optional(IsMfaRequired),
    scopes: Type.Optional(Scopes),
    extends: Type.Optional(Extends),
    attributes: Type.Optional(nullable(Attributes)),
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
    is_mfa_required: Type.Optional(IsMfaRequired),
    scopes: Type.Optional(Scopes),
    extends: Type.Optional(Extends),
    attributes: Type.Optional(nullable(Attributes)),
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
    resource_instance: nullable(
      Type.String({
        description: '`type:key` of the instance that the role is held on; null: it is held in the account',
        examples: ['document:readme'],
      }),
    ),
    resource_instance_id: nullable(Uuid),
    is_primary: Type.Boolean(),
    expires_at: Type.Unsafe<string | null>({
      ...Timestamp,
      type: ['string', 'null'],
      description: 'From then on the role is no longer held; null: it is held until it is taken away',
    }),
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
        description:
          'Account to hold the role in; null: every account; absent: by the role’s reach, or the account of the instance',
      }),
    ),
    resource_instance: Type.Optional(
      Type.String({
        pattern: '^([A-Za-z0-9_-]+:[^\\u0000-\\u001f]+|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$',
        maxLength: 641,
        description:
          '`type:key` or id of the instance to hold the role on, which must be a role of its resource',
        examples: ['document:readme'],
      }),
    ),
    expires_at: Type.Optional(
      Type.String({
        format: 'date-time',
        description: 'In the future: until when the role is held',
        examples: ['2030-01-01T00:00:00.000Z'],
      }),
    ),
  },
  { additionalProperties: false },
)

/** A role as it is answered. */
export const presentRole = (row: RoleRow): Static<typeof RoleSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  description: row.description,
  default_reach: row.defaultReach,
  is_builtin: row.isBuiltin,
  is_mfa_required: row.isMfaRequired,
  scopes: row.permissions,
  extends: row.extends,
  effective_scopes: row.effectivePermissions,
  attributes: row.attributes,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** The primary role of a person as it is answered. */
export const presentUserRole = (row: AssignmentRow): Static<typeof UserRoleSchema> => ({
  user_id: row.userId,
  role_id: row.role.id,
  role: row.role,
})

/** One role that a person holds as it is answered. */
export const presentAssignment = (row: AssignmentRow): Static<typeof AssignmentSchema> => ({
  id: row.id,
  user_id: row.userId,
  role_id: row.role.id,
  role: row.role,
  account_id: row.accountId,
  resource_instance: row.instanceName,
  resource_instance_id: row.instanceId,
  is_primary: row.isPrimary,
  expires_at: row.expiresAt?.toISOString() ?? null,
  created_at: row.createdAt.toISOString(),
})

type UpdateRole = Static<typeof UpdateRoleBody>
type CreateRole = Static<typeof CreateRoleBody>

/** The terms of an assignment as the service takes them. */
export const assignmentTerms = ({
  resource_instance,
  expires_at,
}: Static<typeof AssignFurtherBody>): AssignmentTerms => ({
  ...(resource_instance !== undefined && { instance: resource_instance }),
  ...(expires_at !== undefined && { expiresAt: new Date(expires_at) }),
})

/** The fields of a body as the service takes them. */
export function roleFields({ default_reach, is_mfa_required, scopes, ...fields }: UpdateRole): Omit<
  UpdateRole,
  'default_reach' | 'is_mfa_required' | 'scopes'
> & {
  defaultReach?: 'account' | 'any'
  isMfaRequired?: boolean
  permissions?: string[]
} {
  return {
    ...fields,
    ...(default_reach !== undefined && { defaultReach: default_reach === 'any' ? 'any' : 'account' }),
    ...(is_mfa_required !== undefined && { isMfaRequired: is_mfa_required }),
    ...(scopes !== undefined && { permissions: scopes }),
  }
}

/** The role that the body of a request asks for; its key is the name where that fits. */
export const newRole = ({ name, key, ...fields }: CreateRole) => ({
  name,
  ...(key !== undefined && { key }),
  ...roleFields(fields),
})
