import { AppError, type FieldError } from '../errors.ts'
import type { PolicyFile } from './schema.ts'

/** The kinds of definitions, in the order in which they can be written: each refers only to those before it. */
export const RECORD_KINDS = [
  'resource',
  'action',
  'attribute',
  'action_group',
  'relation',
  'user_attribute',
  'role',
  'resource_role',
  'derivation',
  'user_set',
  'resource_set',
  'rule',
] as const

export type RecordKind = (typeof RECORD_KINDS)[number]

/** One definition, under a name that is unique in its kind, with all defaults written out. */
export type PolicyRecord = { kind: RecordKind; name: string; value: Readonly<Record<string, unknown>> }

type Described = { name?: string | undefined; description?: string | undefined }

const described = (key: string, { name, description }: Described) => ({
  key,
  name: name ?? key,
  description: description ?? null,
})

const qualified = (resource: string, permission: string): string =>
  permission.includes(':') ? permission : `${resource}:${permission}`

/**
 * The definitions of a policy file, all references checked.
 * @throws AppError validation_failed with a pointer into the file for each fault
 */
export function recordsOf(file: PolicyFile): PolicyRecord[] {
  const records = [...resourceRecords(file), ...roleRecords(file), ...setRecords(file), ...ruleRecords(file)]
  const faults = [...duplicates(records), ...danglingReferences(file, records), ...cycles(file)]
  if (faults.length > 0) throw new AppError('validation_failed', { errors: faults.slice(0, 100) })
  const order = new Map(RECORD_KINDS.map((kind, index) => [kind, index]))
  return records.sort((a, b) => (order.get(a.kind) ?? 0) - (order.get(b.kind) ?? 0))
}

function resourceRecords({ resources = {}, user_attributes = {} }: PolicyFile): PolicyRecord[] {
  const records: PolicyRecord[] = []
  const add = (kind: RecordKind, name: string, value: PolicyRecord['value']) =>
    records.push({ kind, name, value })
  for (const [resource, entry] of Object.entries(resources)) {
    add('resource', resource, { ...described(resource, entry), urn: entry.urn ?? null })
    const actions = Array.isArray(entry.actions)
      ? Object.fromEntries(entry.actions.map((key) => [key, {}]))
      : (entry.actions ?? {})
    for (const [key, action] of Object.entries<Described & { attributes?: object }>(actions)) {
      add('action', `${resource}:${key}`, {
        resource,
        ...described(key, action),
        attributes: action.attributes ?? null,
      })
    }
    for (const [key, attribute] of Object.entries(entry.attributes ?? {})) {
      add('attribute', `${resource}.${key}`, { resource, key, ...declared(attribute) })
    }
    for (const [key, group] of Object.entries(entry.action_groups ?? {})) {
      const entry = groupOf(group)
      add('action_group', `${resource}:${key}`, {
        resource,
        ...described(key, entry),
        attributes: entry.attributes ?? null,
        actions: [...(entry.actions ?? [])].sort(),
      })
    }
    for (const [key, relation] of Object.entries(entry.relations ?? {})) {
      const { resource: subject, ...rest } = typeof relation === 'string' ? { resource: relation } : relation
      add('relation', `${resource}#${key}`, { resource, ...described(key, rest), subject_resource: subject })
    }
    for (const [key, role] of Object.entries(entry.roles ?? {})) {
      add('resource_role', `${resource}#${key}`, {
        resource,
        ...described(key, role),
        attributes: role.attributes ?? null,
        permissions: (role.permissions ?? []).map((permission) => qualified(resource, permission)).sort(),
        extends: [...(role.extends ?? [])].sort(),
        no_direct_roles_on_object: role.no_direct_roles_on_object ?? false,
      })
      for (const { role: source, on, via, no_direct_roles_on_object = false } of role.derived_from ?? []) {
        add('derivation', `${resource}#${key} from ${on}#${source} via ${via}`, {
          resource,
          role: key,
          on_resource: on,
          source_role: source,
          relation: via,
          no_direct_roles_on_object,
        })
      }
    }
  }
  for (const [key, attribute] of Object.entries(user_attributes)) {
    add('user_attribute', key, { key, ...declared(attribute) })
  }
  return records
}

type Group = Described & { actions?: readonly string[]; attributes?: object }

const groupOf = (group: readonly string[] | Group): Group =>
  Array.isArray(group) ? { actions: group } : (group as Group)

const declared = (attribute: string | { type: string; description?: string | undefined }) =>
  typeof attribute === 'string'
    ? { type: attribute, description: null }
    : { type: attribute.type, description: attribute.description ?? null }

function roleRecords({ roles = {} }: PolicyFile): PolicyRecord[] {
  return Object.entries(roles).map(([key, role]) => ({
    kind: 'role',
    name: key,
    value: {
      ...described(key, role),
      attributes: role.attributes ?? null,
      reach: role.reach ?? 'account',
      is_mfa_required: role.is_mfa_required ?? false,
      permissions: [...(role.permissions ?? [])].sort(),
      extends: [...(role.extends ?? [])].sort(),
    },
  }))
}

function setRecords({ user_sets = {}, resource_sets = {} }: PolicyFile): PolicyRecord[] {
  return [
    ...Object.entries(user_sets).map(([key, set]) => ({
      kind: 'user_set' as const,
      name: key,
      value: { ...described(key, set), conditions: set.conditions, parent: set.parent ?? null },
    })),
    ...Object.entries(resource_sets).map(([key, set]) => ({
      kind: 'resource_set' as const,
      name: key,
      value: {
        ...described(key, set),
        resource: set.resource,
        conditions: set.conditions,
        parent: set.parent ?? null,
      },
    })),
  ]
}

/** The two sides of a rule as it is named: `set:key`, `role:key`, `resource:key`. */
function ruleRecords({ rules = [] }: PolicyFile): PolicyRecord[] {
  return rules.flatMap(({ user_set, role, resource_set, resource, permissions }) =>
    permissions.map((permission) => {
      const who = user_set === undefined ? `role ${role}` : `set ${user_set}`
      const what = resource_set === undefined ? `resource ${resource}` : `set ${resource_set}`
      return {
        kind: 'rule' as const,
        name: `${who} may ${permission} on ${what}`,
        value: {
          user_set: user_set ?? null,
          role: role ?? null,
          permission,
          resource_set: resource_set ?? null,
          resource: resource ?? null,
        },
      }
    }),
  )
}

function duplicates(records: readonly PolicyRecord[]): FieldError[] {
  const seen = new Set<string>()
  const faults: FieldError[] = []
  for (const { kind, name } of records) {
    const id = `${kind} ${name}`
    if (seen.has(id)) faults.push({ pointer: '/body', detail: `says twice: ${kind} ${name}` })
    seen.add(id)
  }
  return faults
}

/** Every name that something refers to and nothing defines. */
function danglingReferences(file: PolicyFile, records: readonly PolicyRecord[]): FieldError[] {
  const known = new Set(records.map(({ kind, name }) => `${kind} ${name}`))
  const faults: FieldError[] = []
  const want = (pointer: string, kind: RecordKind, name: string): void => {
    if (!known.has(`${kind} ${name}`)) faults.push({ pointer, detail: `names an unknown ${kind}: ${name}` })
  }
  for (const [resource, entry] of Object.entries(file.resources ?? {})) {
    const at = `/body/resources/${resource}`
    for (const [key, group] of Object.entries(entry.action_groups ?? {})) {
      for (const action of groupOf(group).actions ?? []) {
        want(`${at}/action_groups/${key}`, 'action', `${resource}:${action}`)
      }
    }
    for (const [key, relation] of Object.entries(entry.relations ?? {})) {
      want(`${at}/relations/${key}`, 'resource', typeof relation === 'string' ? relation : relation.resource)
    }
    for (const [key, role] of Object.entries(entry.roles ?? {})) {
      const atRole = `${at}/roles/${key}`
      for (const permission of role.permissions ?? []) {
        want(`${atRole}/permissions`, 'action', qualified(resource, permission))
      }
      for (const parent of role.extends ?? [])
        want(`${atRole}/extends`, 'resource_role', `${resource}#${parent}`)
      for (const { role: source, on, via } of role.derived_from ?? []) {
        want(`${atRole}/derived_from`, 'resource_role', `${on}#${source}`)
        want(`${atRole}/derived_from`, 'relation', `${resource}#${via}`)
        const relation = entry.relations?.[via]
        const subject = typeof relation === 'string' ? relation : relation?.resource
        if (subject !== undefined && subject !== on) {
          faults.push({
            pointer: `${atRole}/derived_from`,
            detail: `${via} relates to ${subject}, not to ${on}`,
          })
        }
      }
    }
  }
  for (const [key, role] of Object.entries(file.roles ?? {})) {
    for (const permission of role.permissions ?? [])
      want(`/body/roles/${key}/permissions`, 'action', permission)
    for (const parent of role.extends ?? []) want(`/body/roles/${key}/extends`, 'role', parent)
  }
  for (const [key, set] of Object.entries(file.user_sets ?? {})) {
    if (set.parent !== undefined) want(`/body/user_sets/${key}/parent`, 'user_set', set.parent)
    if (Object.hasOwn(file.resource_sets ?? {}, key))
      faults.push({ pointer: `/body/user_sets/${key}`, detail: 'is the key of a resource set too' })
  }
  for (const [key, set] of Object.entries(file.resource_sets ?? {})) {
    const at = `/body/resource_sets/${key}`
    want(`${at}/resource`, 'resource', set.resource)
    if (set.parent === undefined) continue
    want(`${at}/parent`, 'resource_set', set.parent)
    // Keys such as `constructor` are found in every object.
    const parent = Object.hasOwn(file.resource_sets ?? {}, set.parent) && file.resource_sets?.[set.parent]
    if (parent && parent.resource !== set.resource)
      faults.push({
        pointer: `${at}/parent`,
        detail: `is a set of ${parent.resource}, not of ${set.resource}`,
      })
  }
  file.rules?.forEach((rule, index) => {
    const at = `/body/rules/${index}`
    if ((rule.user_set === undefined) === (rule.role === undefined))
      faults.push({ pointer: at, detail: 'must name either user_set or role' })
    if ((rule.resource_set === undefined) === (rule.resource === undefined))
      faults.push({ pointer: at, detail: 'must name either resource_set or resource' })
    if (rule.user_set !== undefined) want(at, 'user_set', rule.user_set)
    if (rule.role !== undefined) want(at, rule.role.includes('#') ? 'resource_role' : 'role', rule.role)
    if (rule.resource_set !== undefined) want(at, 'resource_set', rule.resource_set)
    if (rule.resource !== undefined) want(at, 'resource', rule.resource)
    const resource = rule.resource ?? file.resource_sets?.[rule.resource_set ?? '']?.resource
    for (const permission of rule.permissions) {
      want(`${at}/permissions`, 'action', permission)
      if (resource !== undefined && !permission.startsWith(`${resource}:`))
        faults.push({ pointer: `${at}/permissions`, detail: `${permission} is no permission on ${resource}` })
    }
  })
  return faults
}

/** Roles that extend themselves and sets that are their own ancestors. */
function cycles(file: PolicyFile): FieldError[] {
  const parentsOf = (entries: Record<string, { parent?: string | undefined }> | undefined) =>
    Object.fromEntries(
      Object.entries(entries ?? {}).map(([key, { parent }]) => [key, parent === undefined ? [] : [parent]]),
    )
  const extendsOf = (entries: Record<string, { extends?: readonly string[] | undefined }> | undefined) =>
    Object.fromEntries(
      Object.entries(entries ?? {}).map(([key, { extends: parents = [] }]) => [key, parents]),
    )
  return [
    ...cyclesIn('/body/roles', extendsOf(file.roles)),
    ...Object.entries(file.resources ?? {}).flatMap(([resource, { roles }]) =>
      cyclesIn(`/body/resources/${resource}/roles`, extendsOf(roles)),
    ),
    ...cyclesIn('/body/user_sets', parentsOf(file.user_sets)),
    ...cyclesIn('/body/resource_sets', parentsOf(file.resource_sets)),
  ]
}

/** Takes away whatever has no parents left, again and again (Kahn): what stays is in a cycle or below one. */
function cyclesIn(at: string, parents: Record<string, readonly string[]>): FieldError[] {
  const waitsFor = new Map(Object.keys(parents).map((key) => [key, 0]))
  const children = new Map<string, string[]>()
  for (const [key, above] of Object.entries(parents)) {
    for (const parent of above.filter((one) => waitsFor.has(one))) {
      waitsFor.set(key, (waitsFor.get(key) ?? 0) + 1)
      const known = children.get(parent)
      if (known) known.push(key)
      else children.set(parent, [key])
    }
  }
  const free = [...waitsFor].filter(([, count]) => count === 0).map(([key]) => key)
  for (let key = free.pop(); key !== undefined; key = free.pop()) {
    waitsFor.delete(key)
    for (const child of children.get(key) ?? []) {
      const count = (waitsFor.get(child) ?? 0) - 1
      waitsFor.set(child, count)
      if (count === 0) free.push(child)
    }
  }
  return [...waitsFor.keys()].map((key) => ({
    pointer: `${at}/${key}`,
    detail: 'is its own ancestor, or below one',
  }))
}
