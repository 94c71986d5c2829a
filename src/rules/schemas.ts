import Type, { type Static } from 'typebox'
import { Key, nullable, Permission, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import {
  CONDITION_SET_SORTS,
  type ConditionSetFilters,
  type ConditionSetRow,
  type SetRuleFilters,
  type SetRuleRow,
} from './repository.ts'
import type { SetRuleSpec } from './service.ts'

const SetName = Type.String({ minLength: 1, maxLength: 128, examples: ['Adults'] })
const Description = Type.String({ maxLength: 1000, examples: ['Whoever is of age'] })
const SetType = Type.Unsafe<'userset' | 'resourceset'>({
  type: 'string',
  enum: ['userset', 'resourceset'],
  description: 'Whether it describes users, or instances of a resource',
  examples: ['userset'],
})
/** The condition language is checked by the policy engine. */
const Conditions = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  description: 'Operators on attributes, joined by allOf, anyOf and not; {} holds for all',
  examples: [{ 'user.age': { 'greater-than-equals': 18 } }],
})
const SetReference = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Key or id of a condition set',
  examples: ['adults'],
})
const ResourceKey = Type.String({ ...Key, examples: ['document'] })
const RoleName = Type.String({
  pattern: '^[A-Za-z0-9_-]+(#[A-Za-z0-9_-]+)?$',
  maxLength: 257,
  description: 'Key of a role, or `resource#role`',
  examples: ['editor'],
})

export const ConditionSetSchema = Type.Object(
  {
    id: Uuid,
    key: Type.String({ examples: ['adults'] }),
    name: SetName,
    type: SetType,
    resource: nullable(Type.String({ description: 'Key of the resource of a resource set' })),
    resource_id: nullable(Uuid),
    description: nullable(Description),
    conditions: Type.Object({}, { additionalProperties: true }),
    parent: nullable(Type.String({ description: 'Key of the set whose conditions must hold too' })),
    parent_id: nullable(Uuid),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'ConditionSet', title: 'Users or instances that conditions describe' },
)

export const CreateConditionSetBody = Type.Object(
  {
    key: Type.String({ ...Key, examples: ['adults'] }),
    name: Type.Optional(SetName),
    type: SetType,
    resource: Type.Optional(ResourceKey),
    description: Type.Optional(nullable(Description)),
    conditions: Conditions,
    parent: Type.Optional(nullable(SetReference)),
  },
  {
    additionalProperties: false,
    examples: [
      {
        key: 'adults',
        name: 'Adults',
        type: 'userset',
        conditions: { 'user.age': { 'greater-than-equals': 18 } },
      },
    ],
  },
)

export const UpdateConditionSetBody = Type.Object(
  {
    name: Type.Optional(SetName),
    description: Type.Optional(nullable(Description)),
    conditions: Type.Optional(Conditions),
    parent: Type.Optional(nullable(SetReference)),
  },
  {
    additionalProperties: false,
    minProperties: 1,
    examples: [{ conditions: { 'user.age': { 'greater-than-equals': 21 } } }],
  },
)

export const SetRuleSchema = Type.Object(
  {
    id: Uuid,
    user_set: nullable(Type.String({ examples: ['adults'] })),
    role: nullable(Type.String({ description: 'Key of a role, or `resource#role`' })),
    permission: Type.String({ examples: ['document:read'] }),
    resource_set: nullable(Type.String()),
    resource: nullable(Type.String({ examples: ['document'] })),
    created_at: Timestamp,
  },
  { $id: 'SetRule', title: 'Users in the set, or with the role, have the permission on these' },
)

export const CreateSetRuleBody = Type.Object(
  {
    user_set: Type.Optional(SetReference),
    role: Type.Optional(RoleName),
    permission: Type.String({ ...Permission, examples: ['document:read'] }),
    resource_set: Type.Optional(SetReference),
    resource: Type.Optional(ResourceKey),
  },
  {
    additionalProperties: false,
    examples: [
      { user_set: 'adults', permission: 'document:read', resource: 'document' },
      { role: 'document#owner', permission: 'document:read', resource_set: 'drafts' },
    ],
  },
)

const keyFilter = (description: string) => Type.Optional(Type.String({ maxLength: 257, description }))

export const ListConditionSetsQuery = Type.Object(
  {
    ...pageQuery(CONDITION_SET_SORTS, 'created_at'),
    type: Type.Optional(SetType),
    key: keyFilter('Key of the set'),
    resource: keyFilter('Key of the resource'),
    parent: keyFilter('Key or id of the parent'),
  },
  { additionalProperties: false },
)

export const ListSetRulesQuery = Type.Object(
  {
    ...pageQuery(['created_at'], 'created_at'),
    user_set: keyFilter('Key or id of the user set'),
    role: keyFilter('Key of the role, or `resource#role`'),
    permission: keyFilter('`resource:action`'),
    resource_set: keyFilter('Key or id of the resource set'),
    resource: keyFilter('Key of the resource'),
  },
  { additionalProperties: false },
)

export const ConditionSetIdParams = Type.Object({ condition_set_id: Uuid })
export const SetRuleIdParams = Type.Object({ set_rule_id: Uuid })

/** A condition set as it is answered. */
export const presentConditionSet = (row: ConditionSetRow): Static<typeof ConditionSetSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  type: row.type,
  resource: row.resource,
  resource_id: row.resourceId,
  description: row.description,
  conditions: row.conditions,
  parent: row.parent,
  parent_id: row.parentId,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** A rule over condition sets as it is answered. */
export const presentSetRule = (row: SetRuleRow): Static<typeof SetRuleSchema> => ({
  id: row.id,
  user_set: row.userSet,
  role: row.role,
  permission: row.permission,
  resource_set: row.resourceSet,
  resource: row.resource,
  created_at: row.createdAt.toISOString(),
})

/** The rule that the body of a request asks for. */
export const setRuleSpec = ({
  user_set: userSet,
  resource_set: resourceSet,
  ...fields
}: Static<typeof CreateSetRuleBody>): SetRuleSpec => ({
  ...fields,
  ...(userSet !== undefined && { userSet }),
  ...(resourceSet !== undefined && { resourceSet }),
})

/** The filters that a query names; those it leaves out are absent. */
export const conditionSetFilters = ({
  type,
  key,
  resource,
  parent,
}: Static<typeof ListConditionSetsQuery>): ConditionSetFilters =>
  Object.fromEntries(
    Object.entries({ type, key, resource, parent }).filter(([, value]) => value !== undefined),
  )

/** The filters that a query names; those it leaves out are absent. */
export function setRuleFilters(query: Static<typeof ListSetRulesQuery>): SetRuleFilters {
  const { user_set: userSet, role, permission, resource_set: resourceSet, resource } = query
  const all = { userSet, role, permission, resourceSet, resource }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}
