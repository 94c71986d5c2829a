import Type, { type Static, type TSchema } from 'typebox'
import { ATTRIBUTE_TYPES } from '../db/schema.ts'
import { Attributes, Key } from '../http/schemas.ts'
import { APPLICATION_KEY } from '../permissions.ts'
import type {
  ActionGroupRow,
  ActionRow,
  AttributeRow,
  RelationRow,
} from '../resources/definitions-repository.ts'
import type { ResourceRow } from '../resources/repository.ts'
import type { ActionChanges, ActionGroupChanges, ResourceDetail } from '../resources/service.ts'
import type { ResourceFields } from './resources.ts'
import { Label, presentMeta, presentResourceRole, roleFields, roleFieldsOf } from './roles-schemas.ts'
import { Description, Name, optional, type PlaceIds } from './schemas.ts'

/** The resource that attributes of users belong to. It is there for that alone. */
export const USER_RESOURCE = { id: '00000000-0000-7000-8000-000000000004', key: '__user' }

const Urn = Type.String({ maxLength: 1000 })
const AttributeType = Type.Unsafe<(typeof ATTRIBUTE_TYPES)[number]>({
  type: 'string',
  enum: [...ATTRIBUTE_TYPES],
})

/** Parts of a resource by their keys. */
const mapOf = <T extends TSchema>(schema: T, maxProperties: number) =>
  optional(
    Type.Unsafe<Record<string, Static<T>>>({
      type: 'object',
      maxProperties,
      propertyNames: { pattern: APPLICATION_KEY, maxLength: 128 },
      additionalProperties: schema,
    }),
  )

const actionFields = {
  name: optional(Label),
  description: optional(Description),
  attributes: optional(Attributes),
}
const attributeFields = { type: AttributeType, description: optional(Description) }
const groupFields = { ...actionFields, actions: optional(Type.Array(Key, { maxItems: 1000 })) }
/** The key or id of the subject's resource, also as it is read. */
const RelationBlock = Type.Unsafe<string | { resource: string; description?: string | null }>({
  anyOf: [
    Name,
    { ...Type.Object({ resource: Name, description: optional(Description) }), additionalProperties: true },
  ],
})

const resourceFields = {
  name: optional(Label),
  description: optional(Description),
  urn: optional(Urn),
  actions: mapOf(Type.Object(actionFields), 1000),
  attributes: mapOf(Type.Object(attributeFields), 500),
  relations: mapOf(RelationBlock, 200),
  roles: mapOf(Type.Object(roleFields), 200),
}
export const CreateResourceBody = Type.Object({ key: Key, ...resourceFields })
export const UpdateResourceBody = Type.Object(resourceFields)

export const CreateActionBody = Type.Object({ key: Key, ...actionFields })
export const UpdateActionBody = Type.Object(actionFields)
export const CreateActionGroupBody = Type.Object({ key: Key, ...groupFields })
export const UpdateActionGroupBody = Type.Object(groupFields)
export const CreateAttributeBody = Type.Object({ key: Key, ...attributeFields })
export const UpdateAttributeBody = Type.Object({
  // Written out, because null is no value of an enumeration.
  type: Type.Optional(
    Type.Unsafe<(typeof ATTRIBUTE_TYPES)[number] | null>({
      type: ['string', 'null'],
      enum: [...ATTRIBUTE_TYPES, null],
    }),
  ),
  description: optional(Description),
})
export const CreateRelationBody = Type.Object({
  key: Key,
  name: optional(Label),
  description: optional(Description),
  subject_resource: Name,
})

export const ResourceParams = Type.Object({ resource_id: Name })

/** The fields of an action or group as the services take them. A null that clears nothing says nothing. */
export const actionChanges = (body: Static<typeof UpdateActionBody>): ActionChanges => ({
  ...(body.name != null && { name: body.name }),
  ...(body.description !== undefined && { description: body.description }),
  ...(body.attributes !== undefined && { attributes: body.attributes }),
})

/** The changes to an action group that the body of a request asks for. */
export const groupChanges = (body: Static<typeof UpdateActionGroupBody>): ActionGroupChanges => ({
  ...actionChanges(body),
  ...(body.actions != null && { actions: body.actions }),
})

type ResourceBody = Static<typeof UpdateResourceBody>

const entriesOf = <T>(map: Record<string, T>): [key: string, value: T][] => Object.entries(map)

/** The fields of a body as the service takes them: absent and null parts stay as they are. */
export const resourceFieldsOf = (body: ResourceBody): ResourceFields => {
  const { name, description, urn, actions, attributes, relations, roles } = body
  return {
    ...(name != null && { name }),
    ...(description !== undefined && { description }),
    ...(urn !== undefined && { urn }),
    ...(actions && {
      actions: entriesOf(actions).map(([key, block]) => ({ ...actionChanges(block), key })),
    }),
    ...(attributes && {
      attributes: entriesOf(attributes).map(([key, { type, description: about = null }]) => ({
        key,
        type,
        description: about,
      })),
    }),
    ...(relations && { relations: entriesOf(relations).map(([key, block]) => relationOf(key, block)) }),
    ...(roles && { roles: entriesOf(roles).map(([key, block]) => ({ ...roleFieldsOf(block), key })) }),
  }
}

const relationOf = (key: string, block: Static<typeof RelationBlock>) =>
  typeof block === 'string'
    ? { key, subject: block }
    : {
        key,
        subject: block.resource,
        ...(block.description !== undefined && { description: block.description }),
      }

/** The resource with these fields and nothing that it had before. */
export const wholeResource = (key: string, body: ResourceBody): ResourceFields => ({
  name: key,
  description: null,
  urn: null,
  actions: [],
  attributes: [],
  relations: [],
  roles: [],
  ...resourceFieldsOf(body),
})

type Owner = Pick<ResourceRow, 'id' | 'key'>

/** An action as Permit’s API answers it. */
export const presentAction = (row: ActionRow, owner: Owner, place: PlaceIds) => ({
  key: row.key,
  name: row.name,
  description: row.description,
  attributes: row.attributes,
  permission_name: `${owner.key}:${row.key}`,
  resource_id: owner.id,
  ...presentMeta(row, place),
})

/** A group of actions as Permit’s API answers it. */
export const presentActionGroup = (row: ActionGroupRow, owner: Owner, place: PlaceIds) => ({
  key: row.key,
  name: row.name,
  description: row.description,
  attributes: row.attributes,
  actions: row.actions,
  resource_id: owner.id,
  ...presentMeta(row, place),
})

/** An attribute as Permit’s API answers it. */
export const presentAttribute = (row: AttributeRow, owner: Owner, place: PlaceIds) => ({
  key: row.key,
  type: row.type,
  description: row.description,
  resource_id: owner.id,
  resource_key: owner.key,
  built_in: false,
  ...presentMeta(row, place),
})

/** A relation as Permit’s API answers it. */
export const presentRelation = (row: RelationRow, owner: Owner, place: PlaceIds) => ({
  key: row.key,
  name: row.name,
  description: row.description,
  subject_resource: row.subjectResource,
  subject_resource_id: row.subjectResourceId,
  object_resource: owner.key,
  object_resource_id: owner.id,
  ...presentMeta(row, place),
})

const byKey = <T extends { key: string }, Shown>(rows: readonly T[], present: (row: T) => Shown) =>
  Object.fromEntries(rows.map((row) => [row.key, present(row)]))

/** A resource with all that is on it as Permit’s API answers it. */
export const presentResource = (resource: ResourceDetail, place: PlaceIds) => ({
  key: resource.key,
  name: resource.name,
  description: resource.description,
  urn: resource.urn,
  actions: byKey(resource.actions, ({ id, key, name, description, attributes }) => ({
    id,
    key,
    name,
    description,
    attributes,
  })),
  attributes: byKey(resource.attributes, ({ id, key, type, description }) => ({
    id,
    key,
    type,
    description,
  })),
  relations: byKey(resource.relations, ({ description, name, subjectResource, subjectResourceId }) => ({
    resource_id: subjectResourceId,
    resource: subjectResource,
    description,
    relation_name: name,
  })),
  roles: byKey(resource.roles, (role) => presentResourceRole(role, resource, place)),
  action_groups: byKey(resource.actionGroups, ({ actions }) => actions),
  ...presentMeta(resource, place),
})
