import Type, { type Static } from 'typebox'
import {
  Attributes,
  Email,
  nullable,
  Password,
  PersonName,
  PhoneNumber,
  pageQuery,
  ref,
  Timestamp,
  UserKey,
  Uuid,
} from '../http/schemas.ts'
import { UserRoleSchema } from '../roles/schemas.ts'
import { USER_SORTS, type UserChanges, type UserFilters, type UserRow } from './repository.ts'

export const UserSchema = Type.Object(
  {
    id: Uuid,
    key: Type.String({ examples: ['0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'] }),
    email: nullable(Type.String({ examples: ['ada@example.com'] })),
    full_name: nullable(Type.String({ examples: ['Ada Lovelace'] })),
    first_name: nullable(Type.String({ examples: ['Ada'] })),
    last_name: nullable(Type.String({ examples: ['Lovelace'] })),
    phone_number: nullable(Type.String({ examples: ['+44 20 7946 0000'] })),
    attributes: nullable(Type.Object({}, { additionalProperties: true })),
    is_active: Type.Boolean(),
    account_id: nullable(Uuid),
    user_role: Type.Union([ref(UserRoleSchema), Type.Null()], { description: 'The primary role, or null' }),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'User', title: 'User' },
)

const names = {
  full_name: Type.Optional(nullable(PersonName)),
  first_name: Type.Optional(nullable(PersonName)),
  last_name: Type.Optional(nullable(PersonName)),
  phone_number: Type.Optional(nullable(PhoneNumber)),
}

export const CreateUserBody = Type.Object(
  {
    email: Type.Optional(
      Type.String({ ...Email, description: 'Required of people who can sign in; see `password`' }),
    ),
    password: Type.Optional(
      Type.String({
        ...Password,
        description:
          'Required in the default environment, unless an API key asks. With an API key and in other environments there is none',
      }),
    ),
    ...names,
    key: Type.Optional(UserKey),
    attributes: Type.Optional(nullable(Attributes)),
    account_id: Type.Optional(nullable(Uuid)),
    is_active: Type.Optional(Type.Boolean({ default: true })),
  },
  {
    additionalProperties: false,
    examples: [{ email: 'ada@example.com', password: 'correct horse battery', full_name: 'Ada Lovelace' }],
  },
)

export const RegisterUserBody = Type.Object(
  {
    email: Email,
    password: Password,
    full_name: PersonName,
    phone_number: Type.Optional(nullable(PhoneNumber)),
  },
  {
    additionalProperties: false,
    examples: [{ email: 'grace@example.com', password: 'a long enough password', full_name: 'Grace Hopper' }],
  },
)

export const UpdateUserBody = Type.Object(
  {
    email: Type.Optional(Email),
    password: Type.Optional(Password),
    ...names,
    key: Type.Optional(UserKey),
    attributes: Type.Optional(nullable(Attributes)),
    account_id: Type.Optional(nullable(Uuid)),
    is_active: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false, minProperties: 1, examples: [{ full_name: 'Ada King' }] },
)

export const UpdateOwnBody = Type.Object(
  { email: Type.Optional(Email), ...names },
  { additionalProperties: false, minProperties: 1, examples: [{ phone_number: '+44 20 7946 0001' }] },
)

const filters = {
  q: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 128,
      description: 'Text anywhere in the email, names, phone number or key',
    }),
  ),
  email: Type.Optional(Type.String({ maxLength: 254 })),
  key: Type.Optional(Type.String({ maxLength: 254 })),
  is_active: Type.Optional(Type.Boolean()),
  role_id: Type.Optional(Uuid),
}

export const ListUsersQuery = Type.Object(
  { ...pageQuery(USER_SORTS, 'created_at'), ...filters, account_id: Type.Optional(Uuid) },
  { additionalProperties: false },
)

export const ListAccountUsersQuery = Type.Object(
  { ...pageQuery(USER_SORTS, 'created_at'), ...filters },
  { additionalProperties: false },
)

export const PermissionsSchema = Type.Object(
  {
    account_id: nullable(Uuid),
    role: Type.String({ description: 'The primary role, or GUEST' }),
    roles: Type.Array(Type.String()),
    scopes: Type.Array(Type.String(), { examples: [['post:read', 'post:write']] }),
  },
  { $id: 'Permissions', title: 'What a user may do in an account' },
)

/** A person as the API answers them. */
export const presentUser = (row: UserRow): Static<typeof UserSchema> => ({
  id: row.id,
  key: row.key,
  email: row.email,
  full_name: row.fullName,
  first_name: row.firstName,
  last_name: row.lastName,
  phone_number: row.phoneNumber,
  attributes: row.attributes,
  is_active: row.isActive,
  account_id: row.accountId,
  user_role: row.primaryRole && { user_id: row.id, role_id: row.primaryRole.id, role: row.primaryRole },
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

type Fields = Partial<Omit<Static<typeof UpdateUserBody>, 'password'>>

const COLUMNS = {
  email: 'email',
  full_name: 'fullName',
  first_name: 'firstName',
  last_name: 'lastName',
  phone_number: 'phoneNumber',
  key: 'key',
  attributes: 'attributes',
  account_id: 'accountId',
  is_active: 'isActive',
} as const satisfies Record<keyof Fields, keyof UserChanges>

/** The fields of a body as the service takes them. Absent stays absent, null stays null. */
export function userFields(body: Fields): UserChanges {
  const given = Object.entries(COLUMNS).filter(([field]) => body[field as keyof Fields] !== undefined)
  return Object.fromEntries(given.map(([field, column]) => [column, body[field as keyof Fields]]))
}

/** The filters of a query as the repository takes them. */
export function userFilters(
  query: Static<typeof ListAccountUsersQuery> & { account_id?: string },
): UserFilters {
  const { q, email, key, is_active: isActive, role_id: roleId, account_id: accountId } = query
  const all = { q, email, key, isActive, roleId, accountId }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}
