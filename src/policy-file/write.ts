import { stringify } from 'yaml'
import type { PolicyRecord } from './records.ts'

type Value = Readonly<Record<string, unknown>>
type Tree = Record<string, unknown>

/** The records as a policy file, in its shortest form: what is a default is left out. */
export function fileOf(records: readonly PolicyRecord[]): Tree {
  const of = (kind: PolicyRecord['kind']) =>
    records.filter((record) => record.kind === kind).map(({ value }) => value)
  const inResource = (kind: PolicyRecord['kind'], resource: unknown) =>
    of(kind).filter((value) => value['resource'] === resource)

  const resources = of('resource').map((resource) => {
    const key = resource['key']
    const actions = inResource('action', key)
    return [
      String(key),
      withoutEmpty({
        ...describedAs(resource),
        urn: resource['urn'],
        actions: actions.every(isBare)
          ? actions.map((action) => action['key'])
          : tree(actions, (action) => ({ ...describedAs(action), attributes: action['attributes'] })),
        attributes: tree(inResource('attribute', key), declaredAs),
        action_groups: tree(inResource('action_group', key), (group) =>
          isBare(group)
            ? group['actions']
            : { ...describedAs(group), attributes: group['attributes'], actions: group['actions'] },
        ),
        relations: tree(inResource('relation', key), (relation) =>
          isBare(relation)
            ? relation['subject_resource']
            : { ...describedAs(relation), resource: relation['subject_resource'] },
        ),
        roles: tree(inResource('resource_role', key), (role) => ({
          ...describedAs(role),
          permissions: (role['permissions'] as string[]).map((permission) =>
            permission.startsWith(`${key}:`) ? permission.slice(`${key}:`.length) : permission,
          ),
          extends: role['extends'],
          attributes: role['attributes'],
          no_direct_roles_on_object: role['no_direct_roles_on_object'],
          derived_from: of('derivation')
            .filter((value) => value['resource'] === key && value['role'] === role['key'])
            .map((value) =>
              withoutEmpty({
                role: value['source_role'],
                on: value['on_resource'],
                via: value['relation'],
                no_direct_roles_on_object: value['no_direct_roles_on_object'],
              }),
            ),
        })),
      }),
    ] as const
  })
  return {
    version: 1,
    ...withoutEmpty({
      resources: Object.fromEntries(resources),
      user_attributes: tree(of('user_attribute'), declaredAs),
      roles: tree(of('role'), (role) => ({
        ...describedAs(role),
        reach: role['reach'] === 'account' ? undefined : role['reach'],
        is_mfa_required: role['is_mfa_required'],
        permissions: role['permissions'],
        extends: role['extends'],
        attributes: role['attributes'],
      })),
      user_sets: tree(of('user_set'), (set) => ({
        ...describedAs(set),
        parent: set['parent'],
        conditions: set['conditions'],
      })),
      resource_sets: tree(of('resource_set'), (set) => ({
        ...describedAs(set),
        resource: set['resource'],
        parent: set['parent'],
        conditions: set['conditions'],
      })),
      rules: rulesOf(of('rule')),
    }),
  }
}

/** The file as YAML. */
export const yamlOf = (records: readonly PolicyRecord[]): string =>
  stringify(fileOf(records), { lineWidth: 100 })

/** Rules that differ in nothing but the permission stand as one. */
function rulesOf(rules: readonly Value[]): Tree[] {
  const merged = new Map<string, Tree & { permissions: unknown[] }>()
  for (const { permission, user_set, role, resource_set, resource } of rules) {
    const sides = withoutEmpty({ user_set, role, resource_set, resource })
    const known = merged.get(JSON.stringify(sides))
    if (known) known.permissions.push(permission)
    else merged.set(JSON.stringify(sides), { ...sides, permissions: [permission] })
  }
  return [...merged.values()]
}

const isBare = (value: Value): boolean =>
  value['name'] === value['key'] &&
  value['description'] === null &&
  (value['attributes'] === undefined || value['attributes'] === null)

const describedAs = (value: Value) => ({
  name: value['name'] === value['key'] ? undefined : value['name'],
  description: value['description'],
})

const declaredAs = (value: Value) =>
  value['description'] === null ? value['type'] : { type: value['type'], description: value['description'] }

function tree(values: readonly Value[], entry: (value: Value) => unknown): Tree {
  return Object.fromEntries(
    values.map((value) => {
      const written = entry(value)
      return [
        String(value['key']),
        typeof written === 'object' && written !== null && !Array.isArray(written)
          ? withoutEmpty(written as Tree)
          : written,
      ]
    }),
  )
}

/** Without what says nothing: undefined, null, false, empty lists and, but for conditions, empty objects. */
function withoutEmpty(entry: Tree): Tree {
  return Object.fromEntries(
    Object.entries(entry).filter(([name, value]) => {
      if (value === undefined || value === null || value === false) return false
      if (Array.isArray(value)) return value.length > 0
      return name === 'conditions' || typeof value !== 'object' || Object.keys(value).length > 0
    }),
  )
}
