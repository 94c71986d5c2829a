import Type, { type Static } from 'typebox'
import { Attributes, Key } from '../http/schemas.ts'
import type { DerivationRow, RoleRow } from '../roles/repository.ts'
import { type DerivationSpec, MOST_PERMISSIONS, type OwnedRole, type RoleFields } from './roles.ts'
import { Description, Name, optional, type PlaceIds, page } from './schemas.ts'

/** The most roles of one bulk request. */
const MOST_ROLES = 2000

export const Label = Type.String({ minLength: 1, maxLength: 255 })
/** `resource:action`, of a role of a resource also the action alone, or the id of an action. */
const Permissions = Type.Array(Type.String({ minLength: 1, maxLength: 257 }), { maxItems: MOST_PERMISSIONS })

const When = Type.Object({ no_direct_roles_on_object: optional(Type.Boolean()) })
const ruleFields = { role: Name, on_resource: Name, linked_by_relation: Name }
export const DerivationBody = Type.Object({ ...ruleFields, when: optional(When) })
export const DerivationEndsBody = Type.Object(ruleFields)
export const DerivationConditionsBody = When
const GrantedTo = Type.Object({
  when: optional(When),
  users_with_role: optional(Type.Array(DerivationBody, { maxItems: 100 })),
})

/** What a role has beside its key. */
export const roleFields = {
  name: optional(Label),
  description: optional(Description),
  permissions: optional(Permissions),
  attributes: optional(Attributes),
  extends: optional(Type.Array(Name, { maxItems: 50 })),
  granted_to: optional(GrantedTo),
}
export const CreateRoleBody = Type.Object({ key: Key, ...roleFields })
export const UpdateRoleBody = Type.Object(roleFields)
export const PermissionsBody = Type.Object({ permissions: Permissions })
export const BulkRolesBody = Type.Object({
  operations: Type.Array(Type.Object({ key: Key, resource: optional(Name), ...roleFields }), {
    maxItems: MOST_ROLES,
  }),
})

export const ListQuery = Type.Object({ ...page, include_total_count: Type.Boolean({ default: false }) })
/** Of a role held in tenants; with a resource, of a role on its instances. */
export const RolesParams = Type.Object({ resource_id: Type.Optional(Name) })
export const RoleParams = Type.Object({ resource_id: Type.Optional(Name), role_id: Name })
export const RoleParentParams = Type.Object({ ...RoleParams.properties, parent_role_id: Name })
export const ResourceRoleParams = Type.Object({ resource_id: Name, role_id: Name })

/** What every definition says of itself. */
export const presentMeta = (row: { id: string; createdAt: Date; updatedAt: Date }, place: PlaceIds) => ({
  id: row.id,
  ...place,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

const presentRole = (role: RoleRow, place: PlaceIds) => ({
  key: role.key,
  name: role.name,
  description: role.description,
  permissions: role.permissions,
  attributes: role.attributes,
  extends: role.extends,
  granted_to: null,
  ...presentMeta(role, place),
})

/** A role of a resource, or one held in tenants. */
export const presentOwnedRole = ({ role, owner }: OwnedRole, place: PlaceIds) =>
  owner ? presentResourceRole(role, owner, place) : presentRole(role, place)

/** Permissions on the resource of the role are shown as its actions, those on others as `resource:action`. */
export const presentResourceRole = (
  role: RoleRow,
  resource: { id: string; key: string },
  place: PlaceIds,
) => ({
  ...presentRole(role, place),
  permissions: role.permissions.map((permission) =>
    permission.startsWith(`${resource.key}:`) ? permission.slice(resource.key.length + 1) : permission,
  ),
  granted_to: presentGrantedTo(role),
  resource_id: resource.id,
  resource: resource.key,
})

/** The block of derivations has no id of its own: a role has one, so that the role's names it. */
const presentGrantedTo = ({ id, derivations, noDirectRolesOnObject }: RoleRow) =>
  derivations.length === 0 && !noDirectRolesOnObject
    ? null
    : {
        id,
        when: { no_direct_roles_on_object: noDirectRolesOnObject },
        users_with_role: derivations.map(presentDerivation),
      }

/** A derivation of a role as Permit’s API answers it. */
export const presentDerivation = (derivation: DerivationRow) => ({
  id: derivation.id,
  role_id: derivation.sourceRoleId,
  resource_id: derivation.onResourceId,
  relation_id: derivation.relationId,
  role: derivation.role,
  on_resource: derivation.onResource,
  linked_by_relation: derivation.linkedByRelation,
  when: { no_direct_roles_on_object: derivation.noDirectRolesOnObject },
})

/** A rule of derivation as the service takes it. */
export const derivationOf = (body: Static<typeof DerivationBody>): DerivationSpec => ({
  role: body.role,
  onResource: body.on_resource,
  linkedByRelation: body.linked_by_relation,
  noDirectRolesOnObject: body.when?.no_direct_roles_on_object ?? false,
})

/** The fields of a body as the service takes them. Null clears what may be absent, and else says nothing. */
export const roleFieldsOf = (body: Static<typeof UpdateRoleBody>): RoleFields => {
  const { name, description, permissions, attributes, extends: parents, granted_to: granted } = body
  const alone = granted?.when?.no_direct_roles_on_object
  return {
    ...(name != null && { name }),
    ...(description !== undefined && { description }),
    ...(permissions != null && { permissions }),
    ...(attributes !== undefined && { attributes }),
    ...(parents != null && { extends: parents }),
    ...(alone != null && { noDirectRolesOnObject: alone }),
    ...(granted?.users_with_role != null && { derivations: granted.users_with_role.map(derivationOf) }),
  }
}
