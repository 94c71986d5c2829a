/** The policy that all engines are given: what each role may do to each type. */
export const TYPES = Array.from({ length: 10 }, (_, index) => `document${index}`)
export const ACTIONS = ['create', 'read', 'update', 'delete', 'publish'] as const
type Action = (typeof ACTIONS)[number]
export const ROLES: Record<string, readonly Action[]> = {
  viewer: ['read'],
  author: ['create', 'read'],
  editor: ['create', 'read', 'update'],
  publisher: ['create', 'read', 'update', 'publish'],
  owner: ACTIONS,
}
const ROLE_KEYS = Object.keys(ROLES)

/** One question and what everybody must answer to it. */
export type Asked = { user: string; role: string; type: string; action: Action; isAllowed: boolean }

/** `count` questions, spread over users, types and actions; the same ones every time. */
export function questionsOf(count: number, users: number): Asked[] {
  return Array.from({ length: count }, (_, index) => {
    const place = (index * 7919) % users
    const role = roleOf(place)
    const action = ACTIONS[(index * 3) % ACTIONS.length] ?? 'read'
    return {
      user: userKey(place),
      role,
      type: TYPES[(index * 11) % TYPES.length] ?? '',
      action,
      isAllowed: (ROLES[role] ?? []).includes(action),
    }
  })
}

export const userKey = (place: number): string => `user-${place}`
export const roleOf = (place: number): string => ROLE_KEYS[place % ROLE_KEYS.length] ?? ''

/** The same policy in the format of policy files. */
export const POLICY_FILE = {
  version: 1,
  resources: {
    ...Object.fromEntries(TYPES.map((type) => [type, { actions: [...ACTIONS] }])),
    folder: { actions: ['read'], roles: { reader: { permissions: ['read'] } } },
    shelf: {
      actions: ['read'],
      relations: { parent: 'folder' },
      roles: {
        reader: { permissions: ['read'], derived_from: [{ role: 'reader', on: 'folder', via: 'parent' }] },
      },
    },
    book: {
      actions: ['read'],
      relations: { parent: 'shelf' },
      roles: {
        reader: { permissions: ['read'], derived_from: [{ role: 'reader', on: 'shelf', via: 'parent' }] },
      },
    },
    page: {
      actions: ['read'],
      relations: { parent: 'book' },
      roles: {
        reader: { permissions: ['read'], derived_from: [{ role: 'reader', on: 'book', via: 'parent' }] },
      },
    },
  },
  roles: Object.fromEntries(
    ROLE_KEYS.map((role) => [
      role,
      { permissions: TYPES.flatMap((type) => (ROLES[role] ?? []).map((action) => `${type}:${action}`)) },
    ]),
  ),
}
