import Type, { type Static, type TSchema } from 'typebox'
import { ATTRIBUTE_TYPES } from '../db/schema.ts'
import { Attributes } from '../http/schemas.ts'
import { APPLICATION_KEY } from '../permissions.ts'

const strict = { additionalProperties: false }
const MAX_ENTRIES = 10_000

const Key = Type.String({ pattern: APPLICATION_KEY, maxLength: 128 })
const Text = Type.String({ maxLength: 1000 })
const Name = Type.String({ minLength: 1, maxLength: 128 })
/** `resource:action`, or the action alone where the resource is clear. */
const Permission = Type.String({ pattern: '^[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)?$', maxLength: 257 })
/** A role held in an account, or `resource#role`. */
const RoleName = Type.String({ pattern: '^[A-Za-z0-9_-]+(#[A-Za-z0-9_-]+)?$', maxLength: 257 })
/** `type:key`. */
const Instance = Type.String({ pattern: '^[A-Za-z0-9_-]+:[^\\u0000-\\u001f]+$', maxLength: 641 })
const AnyKey = Type.String({ pattern: '^[^\\u0000-\\u001f]+$', maxLength: 512 })

const byKey = <T extends TSchema>(schema: T, key: TSchema = Key) =>
  Type.Unsafe<Record<string, Static<T>>>({
    type: 'object',
    propertyNames: key,
    additionalProperties: schema,
    maxProperties: MAX_ENTRIES,
  })

const Permissions = Type.Array(Permission, { maxItems: MAX_ENTRIES, uniqueItems: true })
const Described = { name: Type.Optional(Name), description: Type.Optional(Text) }
const AttributeType = Type.String({ enum: [...ATTRIBUTE_TYPES] })
const AttributesDeclared = byKey(
  Type.Union([AttributeType, Type.Object({ type: AttributeType, description: Type.Optional(Text) }, strict)]),
)

const Role = Type.Object(
  {
    ...Described,
    permissions: Type.Optional(Permissions),
    extends: Type.Optional(Type.Array(Key, { maxItems: 100, uniqueItems: true })),
    attributes: Type.Optional(Attributes),
    reach: Type.Optional(Type.String({ enum: ['account', 'any'] })),
    is_mfa_required: Type.Optional(Type.Boolean()),
  },
  strict,
)

const ResourceRole = Type.Object(
  {
    ...Described,
    permissions: Type.Optional(Permissions),
    extends: Type.Optional(Type.Array(Key, { maxItems: 100, uniqueItems: true })),
    attributes: Type.Optional(Attributes),
    no_direct_roles_on_object: Type.Optional(Type.Boolean()),
    derived_from: Type.Optional(
      Type.Array(
        Type.Object(
          { role: Key, on: Key, via: Key, no_direct_roles_on_object: Type.Optional(Type.Boolean()) },
          strict,
        ),
        { maxItems: 1000 },
      ),
    ),
  },
  strict,
)

const Resource = Type.Object(
  {
    ...Described,
    urn: Type.Optional(Text),
    actions: Type.Optional(
      Type.Union([
        Type.Array(Key, { maxItems: 1000, uniqueItems: true }),
        byKey(Type.Object({ ...Described, attributes: Type.Optional(Attributes) }, strict)),
      ]),
    ),
    attributes: Type.Optional(AttributesDeclared),
    action_groups: Type.Optional(
      byKey(
        Type.Union([
          Type.Array(Key, { maxItems: 1000, uniqueItems: true }),
          Type.Object(
            {
              ...Described,
              actions: Type.Optional(Type.Array(Key, { maxItems: 1000, uniqueItems: true })),
              attributes: Type.Optional(Attributes),
            },
            strict,
          ),
        ]),
      ),
    ),
    relations: Type.Optional(byKey(Type.Union([Key, Type.Object({ ...Described, resource: Key }, strict)]))),
    roles: Type.Optional(byKey(ResourceRole)),
  },
  strict,
)

const Conditions = Type.Unsafe<Record<string, unknown>>({ type: 'object', additionalProperties: true })

const Rule = Type.Object(
  {
    user_set: Type.Optional(Key),
    role: Type.Optional(RoleName),
    permissions: Type.Array(Permission, { minItems: 1, maxItems: 1000, uniqueItems: true }),
    resource_set: Type.Optional(Key),
    resource: Type.Optional(Key),
  },
  strict,
)

/** Accounts, people and things: loaded beside the policy, never removed by it. */
const FactsSchema = Type.Object(
  {
    accounts: Type.Optional(
      byKey(
        Type.Object(
          {
            name: Type.Optional(Name),
            description: Type.Optional(Text),
            attributes: Type.Optional(Attributes),
            /** Facts add: a file may make an account demand it, and never lets it off. */
            is_mfa_required: Type.Optional(Type.Literal(true)),
          },
          strict,
        ),
      ),
    ),
    users: Type.Optional(
      byKey(
        Type.Object(
          {
            first_name: Type.Optional(Name),
            last_name: Type.Optional(Name),
            attributes: Type.Optional(Attributes),
            roles: Type.Optional(
              Type.Array(
                Type.Object(
                  { role: Key, account: Type.Optional(Key), instance: Type.Optional(Instance) },
                  strict,
                ),
                { maxItems: 1000 },
              ),
            ),
          },
          strict,
        ),
        Type.String({ pattern: '^[^\\s\\u0000-\\u001f]+$', maxLength: 254 }),
      ),
    ),
    instances: Type.Optional(
      Type.Array(
        Type.Object(
          { resource: Key, key: AnyKey, account: Type.Optional(Key), attributes: Type.Optional(Attributes) },
          strict,
        ),
        { maxItems: MAX_ENTRIES },
      ),
    ),
    relationships: Type.Optional(
      Type.Array(Type.Object({ subject: Instance, relation: Key, object: Instance }, strict), {
        maxItems: MAX_ENTRIES,
      }),
    ),
  },
  strict,
)

/** A policy as one readable document: what `postern policy export` writes and `apply` reads. */
export const PolicyFileSchema = Type.Object(
  {
    version: Type.Literal(1),
    description: Type.Optional(Type.String({ maxLength: 4000 })),
    resources: Type.Optional(byKey(Resource)),
    user_attributes: Type.Optional(AttributesDeclared),
    roles: Type.Optional(byKey(Role)),
    user_sets: Type.Optional(
      byKey(Type.Object({ ...Described, conditions: Conditions, parent: Type.Optional(Key) }, strict)),
    ),
    resource_sets: Type.Optional(
      byKey(
        Type.Object(
          { ...Described, resource: Key, conditions: Conditions, parent: Type.Optional(Key) },
          strict,
        ),
      ),
    ),
    rules: Type.Optional(Type.Array(Rule, { maxItems: MAX_ENTRIES })),
    facts: Type.Optional(FactsSchema),
  },
  {
    ...strict,
    examples: [
      {
        version: 1,
        resources: { Post: { actions: ['create', 'read'] } },
        roles: { Viewer: { permissions: ['Post:read'] } },
      },
    ],
  },
)

export type PolicyFile = Static<typeof PolicyFileSchema>
export type PolicyFacts = Static<typeof FactsSchema>
