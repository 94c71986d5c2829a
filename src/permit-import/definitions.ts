import { ATTRIBUTE_TYPES } from '../db/schema.ts'
import type { PolicyRecord } from '../policy-file/records.ts'
import type { PolicyFile } from '../policy-file/schema.ts'
import {
  ActionShape,
  AttributeShape,
  DerivationShape,
  fieldOf,
  fitting,
  GrantedToShape,
  GroupShape,
  type Json,
  Label,
  type LeaveOut,
  RelationShape,
  type ResourceItem,
  ResourceShape,
  type RoleItem,
  RoleShape,
  Text,
} from './shapes.ts'

/** The policy as the source shows it. */
export type SourcePolicy = {
  resources: readonly unknown[]
  /** Action groups by the keys of their resources. */
  groups: ReadonlyMap<string, readonly unknown[]>
  userAttributes: readonly unknown[]
  roles: readonly unknown[]
  sets: readonly unknown[]
  rules: readonly unknown[]
}

/** What is here already, as far as it decides about what can be taken over. */
export type Here = {
  records: readonly PolicyRecord[]
  builtinRoles: ReadonlySet<string>
}

type Resources = NonNullable<PolicyFile['resources']>
type Resource = Resources[string]
type ResourceRole = NonNullable<Resource['roles']>[string]
type Derivation = NonNullable<ResourceRole['derived_from']>[number]
type Roles = NonNullable<PolicyFile['roles']>

/** Permit's own things begin so; they are no part of what an application defines. */
const isOwn = (key: unknown): boolean => typeof key === 'string' && key.startsWith('__')

/** A map without a prototype, in which the keys of strangers mean nothing but themselves. */
export function mapOf<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  const map: Record<string, T> = Object.create(null)
  for (const [key, value] of entries) map[key] = value
  return map
}

/** A resource with its parts that were found to fit, and the roles as they were read. */
type Read = { item: ResourceItem; resource: Resource; roles: RoleItem[] }

/**
 * Resources and roles of the source as a policy file has them. What refers to something that is left out is left out
 * too, so that the file is whole; nothing that is left out gives more to anybody.
 */
export function rolesAndResourcesOf(
  source: SourcePolicy,
  here: Here,
  leaveOut: LeaveOut,
): { resources: Resources; userAttributes: Json; roles: Roles } {
  const read = new Map<string, Read>()
  for (const value of source.resources) {
    const item = isOwn((value as Json | null)?.['key'])
      ? undefined
      : fitting('resource', ResourceShape, value, leaveOut)
    if (item) read.set(item.key, readResource(item, source.groups.get(item.key) ?? [], leaveOut))
  }
  const subjectsHere = new Map(
    here.records.flatMap(({ kind, name, value }) =>
      kind === 'relation' ? [[name, String(value['subject_resource'])] as const] : [],
    ),
  )
  for (const [key, { item, resource }] of read)
    resource.relations = relationsOf(key, item, { known: read, subjectsHere, leaveOut })

  const permissions = new Set(
    [...read].flatMap(([key, { resource }]) =>
      Object.keys(resource.actions ?? {}).map((one) => `${key}:${one}`),
    ),
  )
  for (const [key, { resource, roles }] of read) {
    const parents = parentsOf('role of a resource', roles, leaveOut, `${key}#`)
    resource.roles = mapOf(
      roles.map((role) => [
        role.key,
        {
          ...describedOf('role of a resource', `${key}#${role.key}`, role, leaveOut),
          permissions: permissionsOf(`${key}#${role.key}`, role, permissions, leaveOut, key),
          extends: parents.get(role.key) ?? [],
        },
      ]),
    )
  }
  for (const [key, { resource, roles }] of read) {
    for (const role of roles) {
      const target = resource.roles?.[role.key]
      if (target) Object.assign(target, derivationsOf(key, role, read, leaveOut))
    }
  }
  return {
    resources: mapOf([...read].map(([key, { resource }]) => [key, resource])),
    userAttributes: attributesOf('attribute of users', '', source.userAttributes, leaveOut),
    roles: rolesOf(source.roles, permissions, here, leaveOut),
  }
}

function readResource(item: ResourceItem, groups: readonly unknown[], leaveOut: LeaveOut): Read {
  const { key } = item
  const at = { kind: 'resource', name: key }
  const urn = fieldOf(at, 'urn', Text, item.urn, leaveOut)
  const actions = keyedItems(item.actions).flatMap((value) => {
    const action = fitting('action', ActionShape, value, leaveOut, `${key}:${value['key']}`)
    return action
      ? [[action.key, describedOf('action', `${key}:${action.key}`, action, leaveOut)] as const]
      : []
  })
  const known = new Set(actions.map(([action]) => action))
  const actionGroups = groups.flatMap((value) => {
    const group = fitting('action group', GroupShape, value, leaveOut)
    if (!group) return []
    const name = `${key}:${group.key}`
    const members = [...new Set(group.actions)]
    for (const action of members.filter((one) => !known.has(one)))
      leaveOut({ kind: 'action group', name, reason: `is of an action that is not there: ${action}` })
    const described = describedOf('action group', name, group, leaveOut)
    return [[group.key, { ...described, actions: members.filter((one) => known.has(one)) }] as const]
  })
  const roles = keyedItems(item.roles).flatMap(
    (value) => fitting('role of a resource', RoleShape, value, leaveOut, `${key}#${value['key']}`) ?? [],
  )
  return {
    item,
    roles,
    resource: {
      ...describedOf('resource', key, item, leaveOut),
      ...(urn !== undefined && { urn }),
      actions: mapOf(actions),
      attributes: attributesOf('attribute', `${key}.`, keyedItems(item.attributes), leaveOut),
      action_groups: mapOf(actionGroups),
    },
  }
}

/** The values of a map, each with its key. A text is the value of a relation in its short form. */
function keyedItems(map: Json | null | undefined): Json[] {
  return Object.entries(map ?? {}).map(([key, value]) => ({
    ...(typeof value === 'object' && value !== null ? value : { resource: value }),
    key,
  }))
}

type Described = { name?: unknown; description?: unknown; attributes?: Json | null | undefined }

function describedOf(kind: string, name: string, item: Described, leaveOut: LeaveOut) {
  const label = fieldOf({ kind, name }, 'name', Label, item.name, leaveOut)
  const description = fieldOf({ kind, name }, 'description', Text, item.description, leaveOut)
  return {
    ...(label !== undefined && { name: label }),
    ...(description !== undefined && { description }),
    ...(item.attributes && { attributes: item.attributes }),
  }
}

function attributesOf(kind: string, prefix: string, values: readonly unknown[], leaveOut: LeaveOut) {
  const types: readonly string[] = ATTRIBUTE_TYPES
  return mapOf(
    values.flatMap((value) => {
      const attribute = fitting(kind, AttributeShape, value, leaveOut)
      if (!attribute || attribute.built_in) return []
      const { key, type } = attribute
      const name = `${prefix}${key}`
      if (!types.includes(type)) {
        leaveOut({ kind, name, reason: `has a type that is not known here: ${type}` })
        return []
      }
      const description = fieldOf({ kind, name }, 'description', Text, attribute.description, leaveOut)
      return [[key, { type, ...(description !== undefined && { description }) }] as const]
    }),
  )
}

function relationsOf(
  key: string,
  item: ResourceItem,
  {
    known,
    subjectsHere,
    leaveOut,
  }: { known: ReadonlyMap<string, Read>; subjectsHere: ReadonlyMap<string, string>; leaveOut: LeaveOut },
) {
  const keyById = new Map([...known.values()].map(({ item: { id, key: one } }) => [id, one]))
  return mapOf(
    keyedItems(item.relations).flatMap((value) => {
      const name = `${key}#${value['key']}`
      const relation = fitting('relation', RelationShape, value, leaveOut, name)
      if (!relation) return []
      const subject = known.has(relation.resource) ? relation.resource : keyById.get(relation.resource)
      const leaveRelationOut = (reason: string): [] => {
        leaveOut({ kind: 'relation', name, reason })
        return []
      }
      if (subject === undefined)
        return leaveRelationOut(`is to a resource that is not there: ${relation.resource}`)
      const subjectHere = subjectsHere.get(name) ?? subject
      if (subjectHere !== subject) return leaveRelationOut(`is to ${subject}, and here to ${subjectHere}`)
      const described = { name: relation.relation_name, description: value['description'] }
      return [
        [relation.key, { ...describedOf('relation', name, described, leaveOut), resource: subject }] as const,
      ]
    }),
  )
}

/** Permissions of actions that are there, `resource:action`; of the role of a resource also the action alone. */
function permissionsOf(
  name: string,
  role: RoleItem,
  known: ReadonlySet<string>,
  leaveOut: LeaveOut,
  resource?: string,
): string[] {
  const full = (role.permissions ?? []).map((permission) =>
    resource === undefined || permission.includes(':') ? permission : `${resource}:${permission}`,
  )
  return [...new Set(full)].filter((permission) => {
    if (known.has(permission)) return true
    leaveOut({ kind: 'permission', name, reason: `is of an action that is not there: ${permission}` })
    return false
  })
}

/** The roles that each one extends: those that are there, and none where that would be a circle. */
function parentsOf(kind: string, roles: readonly RoleItem[], leaveOut: LeaveOut, prefix = '') {
  const keys = new Set(roles.map(({ key }) => key))
  const parents = new Map<string, string[]>()
  const reaches = (from: string, wanted: string): boolean => {
    const waiting = [from]
    const seen = new Set(waiting)
    for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
      if (key === wanted) return true
      for (const parent of parents.get(key) ?? []) {
        if (!seen.has(parent)) waiting.push(parent)
        seen.add(parent)
      }
    }
    return false
  }
  for (const { key, extends: above } of roles) {
    const kept: string[] = []
    parents.set(key, kept)
    for (const parent of new Set(above)) {
      if (keys.has(parent) && !reaches(parent, key)) {
        kept.push(parent)
        continue
      }
      const fault = keys.has(parent) ? 'would extend itself by way of' : 'extends a role that is not there:'
      leaveOut({ kind, name: `${prefix}${key}`, reason: `${fault} ${parent}` })
    }
  }
  return parents
}

/** What the role of a resource is derived from. A rule that is not understood gives nothing. */
function derivationsOf(
  resource: string,
  role: RoleItem,
  known: ReadonlyMap<string, Read>,
  leaveOut: LeaveOut,
): Pick<ResourceRole, 'no_direct_roles_on_object' | 'derived_from'> {
  if (role.granted_to === undefined || role.granted_to === null) return {}
  const kind = 'derivation'
  const name = `${resource}#${role.key}`
  const granted = fitting(kind, GrantedToShape, role.granted_to, leaveOut, name)
  const rules = new Map<string, Derivation>()
  for (const value of granted?.users_with_role ?? []) {
    const rule = fitting(kind, DerivationShape, value, leaveOut, name)
    if (!rule) continue
    const { role: from, on_resource: on, linked_by_relation: via, when } = rule
    const relation = known.get(resource)?.resource.relations?.[via]
    const subject = typeof relation === 'string' ? relation : relation?.resource
    if (subject !== on || !known.get(on)?.resource.roles?.[from]) {
      leaveOut({
        kind,
        name,
        reason: `is from a role or relation that is not there: ${on}#${from} via ${via}`,
      })
      continue
    }
    rules.set(`${on} ${from} ${via}`, {
      role: from,
      on,
      via,
      no_direct_roles_on_object: when?.no_direct_roles_on_object ?? false,
    })
  }
  return {
    no_direct_roles_on_object: granted?.when?.no_direct_roles_on_object ?? false,
    derived_from: [...rules.values()],
  }
}

function rolesOf(
  values: readonly unknown[],
  permissions: ReadonlySet<string>,
  { records, builtinRoles }: Here,
  leaveOut: LeaveOut,
): Roles {
  const kind = 'role'
  const items = values.flatMap((value) => {
    const role = isOwn((value as Json | null)?.['key'])
      ? undefined
      : fitting(kind, RoleShape, value, leaveOut)
    if (!role) return []
    if (!builtinRoles.has(role.key)) return [role]
    leaveOut({ kind, name: role.key, reason: 'is the name of a built-in role here' })
    return []
  })
  const rolesHere = new Map(
    records.flatMap((record) => (record.kind === kind ? [[record.name, record.value] as const] : [])),
  )
  const parents = parentsOf(kind, items, leaveOut)
  return mapOf(
    items.map((role) => {
      const { key } = role
      const granted = role.granted_to as Json | null | undefined
      const rules = granted?.['users_with_role']
      if (Array.isArray(rules) && rules.length > 0)
        leaveOut({ kind: 'derivation', name: key, reason: 'a role held in tenants is not derived here' })
      return [
        key,
        {
          ...describedOf(kind, key, role, leaveOut),
          permissions: permissionsOf(key, role, permissions, leaveOut),
          extends: parents.get(key) ?? [],
          // What the source knows nothing of stays as it is here.
          ...(rolesHere.get(key)?.['reach'] === 'any' && { reach: 'any' }),
          ...(rolesHere.get(key)?.['is_mfa_required'] === true && { is_mfa_required: true }),
        },
      ] as const
    }),
  )
}
