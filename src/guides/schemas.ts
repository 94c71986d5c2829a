import Type from 'typebox'
import { Attributes, Email, Key, nullable, Timestamp, Uuid } from '../http/schemas.ts'

const PersonName = Type.String({ maxLength: 255 })
const ids = { id: Uuid, organization_id: Uuid, project_id: Uuid, environment_id: Uuid }
const Json = Type.Object({}, { additionalProperties: true })

export const SyncUserBody = Type.Object(
  { email: Email, first_name: PersonName, last_name: PersonName },
  {
    additionalProperties: false,
    examples: [{ email: 'ada@example.com', first_name: 'Ada', last_name: 'Lovelace' }],
  },
)

/** A user as Permit returns one. */
export const SyncedUserSchema = Type.Object(
  {
    key: Type.String({ examples: ['ada@example.com'] }),
    ...ids,
    associated_tenants: Type.Array(
      Type.Object({
        tenant: Type.String(),
        roles: Type.Array(Type.String()),
        status: Type.String({ enum: ['active', 'pending'] }),
        resource_instance_roles: Type.Array(
          Type.Object({
            role: Type.String(),
            resource: nullable(Type.String()),
            resource_instance: nullable(Type.String()),
          }),
        ),
      }),
    ),
    roles: Type.Array(Type.Object({ role: Type.String(), tenant: Type.String() })),
    email: nullable(Type.String()),
    first_name: nullable(Type.String()),
    last_name: nullable(Type.String()),
    attributes: Json,
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'SyncedUser', title: 'User, as Permit has it' },
)

export const CreateTenantBody = Type.Object(
  {
    key: Key,
    name: Type.String({ minLength: 1, maxLength: 255 }),
    description: Type.Optional(nullable(Type.String({ maxLength: 1000 }))),
  },
  {
    additionalProperties: false,
    examples: [{ key: 'acme', name: 'Acme', description: 'Makers of everything' }],
  },
)

/** A tenant as Permit returns one. */
export const TenantSchema = Type.Object(
  {
    key: Type.String({ examples: ['acme'] }),
    ...ids,
    name: Type.String(),
    description: nullable(Type.String()),
    attributes: nullable(Json),
    created_at: Timestamp,
    updated_at: Timestamp,
    last_action_at: Timestamp,
  },
  { $id: 'Tenant', title: 'Tenant, as Permit has it' },
)

const Name = Type.String({ minLength: 1, maxLength: 512 })

export const CheckPermissionBody = Type.Object(
  {
    user: Type.Unsafe<string | { key: string; attributes?: Record<string, unknown> }>({
      anyOf: [Name, Type.Object({ key: Name, attributes: Type.Optional(Attributes) })],
      description: 'Key, id or email',
    }),
    action: Name,
    resource: Type.Unsafe<
      string | { type: string; key?: string; tenant?: string; attributes?: Record<string, unknown> }
    >({
      anyOf: [
        Name,
        Type.Object({
          type: Name,
          key: Type.Optional(Name),
          tenant: Type.Optional(Name),
          attributes: Type.Optional(Attributes),
        }),
      ],
      description: '`type`, `type:key`, or both apart',
    }),
    tenant: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 128,
        description: 'Account, by key or id. Default: the one of the token, or `default`',
      }),
    ),
    attributes: Type.Optional(
      Type.Unsafe<Record<string, unknown>>({ ...Attributes, description: 'Attributes of the resource' }),
    ),
    context: Type.Optional(Attributes),
  },
  {
    additionalProperties: false,
    examples: [{ user: 'ada@example.com', action: 'read', resource: 'document', tenant: 'acme' }],
  },
)

const message = (text: string) => Type.Object({ message: Type.String({ enum: [text], examples: [text] }) })

export const PermittedSchema = message('User is permitted')
export const NotPermittedSchema = message('User is not permitted')
