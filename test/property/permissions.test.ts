import fc from 'fast-check'
import t from 'tap'
import {
  type Authority,
  BUILTIN_ROLES,
  covers,
  coversPerson,
  effectiveScopes,
  type HeldRole,
  holdsIn,
  isBuiltinPermission,
} from '../../src/permissions.ts'

const ACCOUNTS = ['a', 'b', 'c']
const BUILTIN = [
  'postern.users:read',
  'postern.users:write',
  'postern.roles:read',
  'postern.roles:assign',
  'postern.audit:read',
]
const PERMISSIONS = [...BUILTIN, 'post:read', 'post:write', 'post:any']

const account = fc.constantFrom(...ACCOUNTS)
const place = fc.option(account, { nil: null })
const role: fc.Arbitrary<HeldRole> = fc.record({
  accountId: place,
  permissions: fc.uniqueArray(fc.constantFrom(...PERMISSIONS)),
})
const roles = fc.array(role, { maxLength: 5 })

/** The naive oracle: somebody may use `permission` at a place when one role held there or everywhere gives it. */
const mayUse = (held: readonly HeldRole[], permission: string, at: string | null): boolean =>
  held.some(
    ({ accountId, permissions }) =>
      permissions.includes(permission) && (accountId === null || (at !== null && accountId === at)),
  )

/** What the holder of these roles may do with a token for `accountId`. */
const authorityOf = (held: readonly HeldRole[], accountId: string | null): Authority => ({
  accountId,
  scopes: new Set(effectiveScopes(held, accountId)),
})

t.test('the scopes of a token are what the roles give there, sorted and unique', async (t) => {
  fc.assert(
    fc.property(roles, place, (held, at) => {
      const scopes = effectiveScopes(held, at)

      const expected = PERMISSIONS.flatMap((permission) => [
        ...(mayUse(held, permission, at) ? [permission] : []),
        ...(mayUse(held, permission, null) ? [`${permission}:any`] : []),
      ])
      t.strictSame(scopes, [...new Set(expected)].sort())
    }),
  )
})

t.test('holding is what the roles say: everywhere, or in the account of the token', async () => {
  fc.assert(
    fc.property(roles, place, fc.constantFrom(...PERMISSIONS), place, (held, at, permission, where) => {
      const expected = mayUse(held, permission, null) || (where === at && mayUse(held, permission, at))

      // Nothing is held at no place, but everywhere.
      return (
        holdsIn(authorityOf(held, at), permission, where) ===
        (where === null && at === null ? mayUse(held, permission, null) : expected)
      )
    }),
  )
})

t.test('a token is worth nothing in another account but for what is held everywhere', async () => {
  fc.assert(
    fc.property(roles, account, account, fc.constantFrom(...PERMISSIONS), (held, at, where, permission) => {
      fc.pre(at !== where)

      return holdsIn(authorityOf(held, at), permission, where) === mayUse(held, permission, null)
    }),
  )
})

t.test('nobody covers a role that gives a built-in permission or reach beyond their own', async () => {
  fc.assert(
    fc.property(roles, account, role, (held, at, granted) => {
      const authority = authorityOf(held, at)
      fc.pre(covers(authority, granted))

      return [...ACCOUNTS, null].every((where) =>
        BUILTIN.every(
          (permission) => !mayUse([granted], permission, where) || mayUse(held, permission, where),
        ),
      )
    }),
    { numRuns: 2000 },
  )
})

t.test('covering is exactly holding each built-in permission of the role at its place', async () => {
  fc.assert(
    fc.property(roles, account, role, (held, at, granted) => {
      const isWithin = granted.permissions
        .filter((permission) => BUILTIN.includes(permission))
        .every(
          (permission) =>
            mayUse(held, permission, null) || (granted.accountId === at && mayUse(held, permission, at)),
        )
      const mayReach = granted.accountId !== null || mayUse(held, 'postern.roles:assign', null)

      return covers(authorityOf(held, at), granted) === (isWithin && mayReach)
    }),
    { numRuns: 1000 },
  )
})

t.test('who covers a person could cover each of the roles, but for the right to assign', async () => {
  fc.assert(
    fc.property(roles, account, roles, (held, at, others) => {
      const authority = authorityOf(held, at)
      const withAssign: Authority = {
        accountId: at,
        scopes: new Set([...authority.scopes, 'postern.roles:assign:any']),
      }
      fc.pre(!others.some(({ permissions }) => permissions.includes('postern.roles:assign')))

      return coversPerson(authority, others) === others.every((other) => covers(withAssign, other))
    }),
  )
})

t.test('a person with one role beyond one’s own is not covered, whatever the others are', async () => {
  fc.assert(
    fc.property(roles, account, roles, role, (held, at, others, exceeding) => {
      const authority = authorityOf(held, at)
      fc.pre(!coversPerson(authority, [exceeding]))

      return (
        !coversPerson(authority, [...others, exceeding]) && !coversPerson(authority, [exceeding, ...others])
      )
    }),
  )
})

t.test('more roles never cover less', async () => {
  fc.assert(
    fc.property(roles, role, account, role, (held, further, at, granted) => {
      fc.pre(covers(authorityOf(held, at), granted))

      return covers(authorityOf([...held, further], at), granted)
    }),
    { numRuns: 1000 },
  )
})

t.test('a role that gives more is never covered more easily', async () => {
  fc.assert(
    fc.property(roles, account, role, fc.constantFrom(...PERMISSIONS), (held, at, granted, permission) => {
      const wider = { ...granted, permissions: [...new Set([...granted.permissions, permission])] }
      fc.pre(!covers(authorityOf(held, at), granted))

      return !covers(authorityOf(held, at), wider)
    }),
  )
})

t.test('more roles never give fewer scopes, and their order is no matter', async (t) => {
  fc.assert(
    fc.property(roles, role, place, (held, further, at) => {
      const fewer = effectiveScopes(held, at)
      const more = new Set(effectiveScopes([...held, further], at))

      t.ok(fewer.every((scope) => more.has(scope)))
      t.strictSame(effectiveScopes([...held].reverse(), at), fewer)
    }),
  )
})

t.test(
  'application permissions are no obstacle within an account, and no key to anything built in',
  async () => {
    const application = fc.record({
      accountId: account,
      permissions: fc.uniqueArray(fc.constantFrom('post:read', 'post:write', 'post:any')),
    })

    fc.assert(
      fc.property(application, account, (granted, at) =>
        covers({ accountId: at, scopes: new Set() }, granted),
      ),
    )
    fc.assert(
      fc.property(fc.array(application), place, (held, at) =>
        effectiveScopes(held, at).every((scope) => !isBuiltinPermission(scope)),
      ),
    )
  },
)

t.test('no key of an application can name a built-in permission', async () => {
  const key = fc.stringMatching(/^[A-Za-z0-9_-]+$/)

  fc.assert(fc.property(key, key, (resource, action) => !isBuiltinPermission(`${resource}:${action}`)))
})

t.test('of the built-in roles each covers those below it in its reach, and none above', async (t) => {
  const keys = Object.keys(BUILTIN_ROLES) as (keyof typeof BUILTIN_ROLES)[]
  const held = (key: keyof typeof BUILTIN_ROLES): HeldRole => ({
    accountId: BUILTIN_ROLES[key].reach === 'any' ? null : 'a',
    permissions: BUILTIN_ROLES[key].permissions,
  })
  const table = Object.fromEntries(
    keys.map((key) => [key, keys.filter((other) => covers(authorityOf([held(key)], 'a'), held(other)))]),
  )

  t.same(table, {
    GUEST: ['GUEST', 'ACCOUNT_MANAGER'],
    ACCOUNT_MANAGER: ['GUEST', 'ACCOUNT_MANAGER'],
    ACCOUNT_ADMIN: ['GUEST', 'ACCOUNT_ADMIN', 'ACCOUNT_MANAGER'],
    ADMIN: ['GUEST', 'ACCOUNT_ADMIN', 'ACCOUNT_MANAGER', 'ADMIN'],
    SUPER_ADMIN: ['GUEST', 'ACCOUNT_ADMIN', 'ACCOUNT_MANAGER', 'ADMIN', 'SUPER_ADMIN'],
  })
})
