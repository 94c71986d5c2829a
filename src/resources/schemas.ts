import Type, { type Static, type TSchema } from 'typebox'
import { ATTRIBUTE_TYPES } from '../db/schema.ts'
import { Attributes, nullable, pageQuery, ref, Timestamp, Uuid } from '../http/schemas.ts'
import { APPLICATION_KEY } from '../permissions.ts'
import type { DerivationRow, RoleRow } from '../roles/repository.ts'
import type { NewDerivation, NewRole, RoleUpdate } from '../roles/service.ts'
import type {
  ActionGroupRow,
  ActionRow,
  AttributeRow,
  DefinitionRow,
  RelationRow,
} from './definitions-repository.ts'
import type { ResourceRow } from './repository.ts'
import type { NewRelation, NewResource, ResourceDetail } from './service.ts'

const strict = { additionalProperties: false }
const changed = { additionalProperties: false, minProperties: 1 }

const keyed = (example: string) =>
  Type.String({ pattern: APPLICATION_KEY, maxLength: 128, examples: [example] })
const Name = Type.String({ minLength: 1, maxLength: 128, examples: ['Document'] })
const Description = Type.String({ maxLength: 1000, examples: ['What people write and read'] })
const Urn = Type.String({ minLength: 1, maxLength: 1000, examples: ['urn:example:document'] })
const AttributeType = Type.Unsafe<(typeof ATTRIBUTE_TYPES)[number]>({
  type: 'string',
  enum: [...ATTRIBUTE_TYPES],
  examples: ['string'],
})
const KeyOrId = Type.String({
  pattern: APPLICATION_KEY,
  maxLength: 128,
  description: 'Key or id',
  examples: ['folder'],
})
/** An action of the role's own resource, or `resource:action`. */
const OwnPermission = Type.String({
  pattern: '^[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)?$',
  maxLength: 257,
  examples: ['read'],
})
const listOf = <T extends TSchema>(schema: T, maxItems: number) =>
  Type.Array(schema, { maxItems, uniqueItems: true })

const described = { name: Type.Optional(Name), description: Type.Optional(nullable(Description)) }
const times = { created_at: Timestamp, updated_at: Timestamp }

export const ResourceSchema = Type.Object(
  {
    id: Uuid,
    key: keyed('document'),
    name: Name,
    description: nullable(Description),
    urn: nullable(Urn),
    ...times,
  },
  { $id: 'Resource', title: 'Resource' },
)

export const ActionSchema = Type.Object(
  {
    id: Uuid,
    resource_id: Uuid,
    key: keyed('read'),
    name: Name,
    description: nullable(Description),
    attributes: nullable(Attributes),
    ...times,
  },
  { $id: 'Action', title: 'Action of a resource' },
)

export const ActionGroupSchema = Type.Object(
  {
    id: Uuid,
    resource_id: Uuid,
    key: keyed('reading'),
    name: Name,
    description: nullable(Description),
    attributes: nullable(Attributes),
    actions: Type.Array(Type.String(), { description: 'Keys', examples: [['read']] }),
    ...times,
  },
  { $id: 'ActionGroup', title: 'Actions of a resource under one name' },
)

export const AttributeSchema = Type.Object(
  {
    id: Uuid,
    resource_id: nullable(Uuid),
    key: keyed('status'),
    type: AttributeType,
    description: nullable(Description),
    ...times,
  },
  { $id: 'AttributeDefinition', title: 'Attribute of a resource; resource_id null: of users' },
)

export const RelationSchema = Type.Object(
  {
    id: Uuid,
    resource_id: Uuid,
    key: keyed('parent'),
    name: Name,
    description: nullable(Description),
    subject_resource: Type.String({ description: 'Key', examples: ['folder'] }),
    subject_resource_id: Uuid,
    ...times,
  },
  { $id: 'Relation', title: 'Relation that instances of a resource have to those of another' },
)

export const DerivationSchema = Type.Object(
  {
    id: Uuid,
    role: Type.String({ description: 'Key of the role held on the subject', examples: ['editor'] }),
    on_resource: Type.String({ description: 'Key of the resource of the subject', examples: ['folder'] }),
    linked_by_relation: Type.String({
      description: 'Key of the relation by which the object names the subject',
      examples: ['parent'],
    }),
    no_direct_roles_on_object: Type.Boolean({
      description: 'True: it gives nothing to somebody who has any role directly on the object',
    }),
  },
  { $id: 'Derivation', title: 'Who holds a role on an object because of a role on a related instance' },
)

export const ResourceRoleSchema = Type.Object(
  {
    id: Uuid,
    resource_id: Uuid,
    key: keyed('editor'),
    name: Name,
    description: nullable(Description),
    permissions: Type.Array(Type.String(), {
      description: 'The role’s own, as `resource:action`',
      examples: [['document:read', 'document:write']],
    }),
    extends: Type.Array(Type.String(), {
      description: 'Keys of the roles of this resource whose permissions it has too',
      examples: [['viewer']],
    }),
    effective_permissions: Type.Array(Type.String(), { examples: [['document:read', 'document:write']] }),
    attributes: nullable(Attributes),
    no_direct_roles_on_object: Type.Boolean({
      description: 'True: no derivation gives the role to somebody who has any role directly on the object',
    }),
    derivations: Type.Array(ref(DerivationSchema)),
    ...times,
  },
  { $id: 'ResourceRole', title: 'Role held on instances of a resource' },
)

export const ResourceDetailSchema = Type.Object(
  {
    ...ResourceSchema.properties,
    actions: Type.Array(ref(ActionSchema)),
    action_groups: Type.Array(ref(ActionGroupSchema)),
    attributes: Type.Array(ref(AttributeSchema)),
    relations: Type.Array(ref(RelationSchema)),
    roles: Type.Array(ref(ResourceRoleSchema)),
  },
  { $id: 'ResourceDetail', title: 'Resource with all that is defined on it' },
)

const further = { ...described, attributes: Type.Optional(nullable(Attributes)) }
const group = { ...further, actions: Type.Optional(listOf(keyed('read'), 1000)) }
const role = {
  ...further,
  permissions: Type.Optional(listOf(OwnPermission, 500)),
  extends: Type.Optional(listOf(keyed('viewer'), 50)),
  no_direct_roles_on_object: Type.Optional(Type.Boolean()),
}

export const CreateActionBody = Type.Object(
  { key: keyed('read'), ...further },
  { ...strict, examples: [{ key: 'read', name: 'Read' }] },
)
export const UpdateActionBody = Type.Object(further, { ...changed, examples: [{ name: 'Read' }] })
export const CreateActionGroupBody = Type.Object(
  { key: keyed('reading'), ...group },
  { ...strict, examples: [{ key: 'reading', actions: ['read'] }] },
)
export const UpdateActionGroupBody = Type.Object(group, { ...changed, examples: [{ actions: ['read'] }] })
export const CreateAttributeBody = Type.Object(
  { key: keyed('status'), type: AttributeType, description: Type.Optional(nullable(Description)) },
  { ...strict, examples: [{ key: 'status', type: 'string' }] },
)
export const UpdateAttributeBody = Type.Object(
  { type: Type.Optional(AttributeType), description: Type.Optional(nullable(Description)) },
  { ...changed, examples: [{ type: 'string' }] },
)
export const CreateRelationBody = Type.Object(
  { key: keyed('parent'), ...described, subject_resource: KeyOrId },
  { ...strict, examples: [{ key: 'parent', subject_resource: 'folder' }] },
)
export const UpdateRelationBody = Type.Object(described, { ...changed, examples: [{ name: 'Parent' }] })
export const CreateResourceRoleBody = Type.Object(
  { key: keyed('editor'), ...role },
  { ...strict, examples: [{ key: 'editor', permissions: ['read', 'write'] }] },
)
export const UpdateResourceRoleBody = Type.Object(role, {
  ...changed,
  examples: [{ permissions: ['read', 'write'] }],
})
export const CreateDerivationBody = Type.Object(
  {
    role: keyed('editor'),
    on_resource: keyed('folder'),
    linked_by_relation: keyed('parent'),
    no_direct_roles_on_object: Type.Optional(Type.Boolean()),
  },
  { ...strict, examples: [{ role: 'editor', on_resource: 'folder', linked_by_relation: 'parent' }] },
)
export const CreateResourceBody = Type.Object(
  {
    key: keyed('document'),
    ...described,
    urn: Type.Optional(nullable(Urn)),
    actions: Type.Optional(
      Type.Array(
        Type.Union([keyed('read'), CreateActionBody], { description: 'A key, or the action with its key' }),
        { maxItems: 1000 },
      ),
    ),
    attributes: Type.Optional(Type.Array(CreateAttributeBody, { maxItems: 500 })),
    relations: Type.Optional(Type.Array(CreateRelationBody, { maxItems: 200 })),
    roles: Type.Optional(Type.Array(CreateResourceRoleBody, { maxItems: 200 })),
  },
  {
    ...strict,
    examples: [
      {
        key: 'document',
        actions: ['read', 'write'],
        roles: [{ key: 'editor', permissions: ['read', 'write'] }],
      },
    ],
  },
)
export const UpdateResourceBody = Type.Object(
  { ...described, urn: Type.Optional(nullable(Urn)) },
  { ...changed, examples: [{ name: 'Document' }] },
)

const byKey = { key: Type.Optional(Type.String({ maxLength: 128 })) }
export const ListResourcesQuery = Type.Object(
  { ...pageQuery(['created_at', 'key'], 'created_at'), ...byKey },
  strict,
)
export const ListDefinitionsQuery = Type.Object(
  { ...pageQuery(['created_at'], 'created_at'), ...byKey },
  strict,
)

export const ResourceParams = Type.Object({ resource_id: Uuid })
export const ResourceRoleParams = Type.Object({ resource_id: Uuid, role_id: Uuid })
export const DerivationParams = Type.Object({ resource_id: Uuid, role_id: Uuid, derivation_id: Uuid })

const presentTimes = (row: Pick<DefinitionRow, 'createdAt' | 'updatedAt'>) => ({
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

const presentDefinition = ({ id, key, description, ...row }: DefinitionRow) => ({
  id,
  // Only attributes are on none, and they say so themselves.
  resource_id: row.resourceId ?? '',
  key,
  description,
  ...presentTimes(row),
})

/** A resource as it is answered in lists. */
export const presentResource = (row: ResourceRow): Static<typeof ResourceSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  description: row.description,
  urn: row.urn,
  ...presentTimes(row),
})

/** An action of a resource as it is answered. */
export const presentAction = (row: ActionRow): Static<typeof ActionSchema> => ({
  ...presentDefinition(row),
  name: row.name,
  attributes: row.attributes,
})

/** A group of actions as it is answered. */
export const presentActionGroup = (row: ActionGroupRow): Static<typeof ActionGroupSchema> => ({
  ...presentAction(row),
  actions: row.actions,
})

/** An attribute of a resource as it is answered. */
export const presentAttribute = (row: AttributeRow): Static<typeof AttributeSchema> => ({
  ...presentDefinition(row),
  resource_id: row.resourceId,
  type: row.type,
})

/** A relation of a resource as it is answered. */
export const presentRelation = (row: RelationRow): Static<typeof RelationSchema> => ({
  ...presentDefinition(row),
  name: row.name,
  subject_resource: row.subjectResource,
  subject_resource_id: row.subjectResourceId,
})

/** A derivation of a role as it is answered. */
export const presentDerivation = (row: DerivationRow): Static<typeof DerivationSchema> => ({
  id: row.id,
  role: row.role,
  on_resource: row.onResource,
  linked_by_relation: row.linkedByRelation,
  no_direct_roles_on_object: row.noDirectRolesOnObject,
})

/** A role on instances as it is answered. */
export const presentResourceRole = (row: RoleRow): Static<typeof ResourceRoleSchema> => ({
  ...presentDefinition(row),
  name: row.name,
  permissions: row.permissions,
  extends: row.extends,
  effective_permissions: row.effectivePermissions,
  attributes: row.attributes,
  no_direct_roles_on_object: row.noDirectRolesOnObject,
  derivations: row.derivations.map(presentDerivation),
})

/** A resource with all that is on it as it is answered. */
export const presentResourceDetail = (row: ResourceDetail): Static<typeof ResourceDetailSchema> => ({
  ...presentResource(row),
  actions: row.actions.map(presentAction),
  action_groups: row.actionGroups.map(presentActionGroup),
  attributes: row.attributes.map(presentAttribute),
  relations: row.relations.map(presentRelation),
  roles: row.roles.map(presentResourceRole),
})

/** The relation that the body of a request asks for. */
export const newRelation = ({
  subject_resource,
  ...fields
}: Static<typeof CreateRelationBody>): NewRelation => ({ ...fields, subjectResource: subject_resource })

/** The fields of a role's body as the service takes them. */
export const resourceRoleFields = ({
  no_direct_roles_on_object,
  ...fields
}: Static<typeof UpdateResourceRoleBody>): RoleUpdate => ({
  ...fields,
  ...(no_direct_roles_on_object !== undefined && { noDirectRolesOnObject: no_direct_roles_on_object }),
})

/** A new role, whose name is its key until it is given one. */
export const newResourceRole = ({
  key,
  name = key,
  ...fields
}: Static<typeof CreateResourceRoleBody>): NewRole & { key: string } => ({
  ...resourceRoleFields(fields),
  key,
  name,
})

/** The derivation that the body of a request asks for. */
export const newDerivation = (body: Static<typeof CreateDerivationBody>): NewDerivation => ({
  role: body.role,
  onResource: body.on_resource,
  linkedByRelation: body.linked_by_relation,
  ...(body.no_direct_roles_on_object !== undefined && {
    noDirectRolesOnObject: body.no_direct_roles_on_object,
  }),
})

/** A new resource as the service takes it. */
export const newResource = ({
  actions = [],
  relations = [],
  roles = [],
  ...fields
}: Static<typeof CreateResourceBody>): NewResource => ({
  ...fields,
  actions: actions.map((action) => (typeof action === 'string' ? { key: action } : action)),
  relations: relations.map(newRelation),
  roles: roles.map(newResourceRole),
})
