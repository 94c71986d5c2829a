import type { PolicyRecord } from '../policy-file/records.ts'

/** Keys to take and keys to leave, `*` standing for any characters. None to take: all; what is to be left wins. */
type CopyFilter = { include?: readonly string[]; exclude?: readonly string[] }

/** Which definitions are copied. What depends on a resource goes with it, and a rule with both of its sides. */
export type CopyScope = {
  resources?: CopyFilter
  roles?: CopyFilter
  user_sets?: CopyFilter
  resource_sets?: CopyFilter
}

/** Those of the definitions that the scope takes in. */
export function recordsWithin(records: readonly PolicyRecord[], scope: CopyScope): PolicyRecord[] {
  const takes = {
    resource: matcher(scope.resources),
    role: matcher(scope.roles),
    user_set: matcher(scope.user_sets),
    resource_set: matcher(scope.resource_sets),
  }
  const takesRole = (role: string): boolean => {
    const [resource = '', ofResource] = role.split('#')
    return ofResource === undefined ? takes.role(role) : takes.resource(resource)
  }
  return records.filter(({ kind, value }) => {
    const text = (field: string) => String(value[field])
    switch (kind) {
      case 'user_attribute':
        return true
      case 'role':
        return takes.role(text('key'))
      case 'resource':
        return takes.resource(text('key'))
      case 'user_set':
        return takes.user_set(text('key'))
      case 'resource_set':
        return takes.resource_set(text('key'))
      case 'rule':
        return (
          (value['user_set'] === null ? takesRole(text('role')) : takes.user_set(text('user_set'))) &&
          (value['resource_set'] === null
            ? takes.resource(text('resource'))
            : takes.resource_set(text('resource_set')))
        )
      default:
        return takes.resource(text('resource'))
    }
  })
}

function matcher({ include = [], exclude = [] }: CopyFilter = {}): (key: string) => boolean {
  const [included, excluded] = [include.map(isLike), exclude.map(isLike)]
  return (key) =>
    (included.length === 0 || included.some((matches) => matches(key))) &&
    !excluded.some((matches) => matches(key))
}

/** Whether a key is like the pattern: its parts between the asterisks, one after the other, both ends held. */
function isLike(pattern: string): (key: string) => boolean {
  const parts = pattern.split('*')
  const [first = ''] = parts
  if (parts.length === 1) return (key) => key === first
  const last = parts.at(-1) ?? ''
  return (key) => {
    if (!key.startsWith(first) || !key.endsWith(last) || key.length < first.length + last.length) return false
    const end = key.length - last.length
    let from = first.length
    for (const part of parts.slice(1, -1)) {
      const at = key.indexOf(part, from)
      if (at === -1 || at + part.length > end) return false
      from = at + part.length
    }
    return true
  }
}
