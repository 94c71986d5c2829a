import t from 'tap'
import { grant, MAX_SCOPE_BYTES, type RoleAtSignIn } from '../../src/auth/grants.ts'

const role = (key: string, permissions: string[]): RoleAtSignIn => ({
  key,
  accountId: 'acme',
  permissions,
  isPrimary: false,
  isMfaRequired: false,
  expiresAt: null,
})

const granted = (roles: RoleAtSignIn[], ...wanted: string[]) =>
  grant({ mustChange: false, isMfaMissing: false, roles }, 'acme', wanted)

t.test('scopes and roles together have a bound; named scopes come before the roles', async (t) => {
  const scope = `a:${'b'.repeat(2000)}`
  const fitting = 'r'.repeat(MAX_SCOPE_BYTES - scope.length - '"",'.length)

  t.match(granted([role(fitting, [scope])]), { scopes: [scope], roles: [fitting] })
  t.match(granted([role(fitting, [scope])], scope), { scopes: [scope], roles: [fitting] })
  t.throws(() => granted([role(`${fitting}r`, [scope])]), { code: 'scope_too_large' })
  t.same(granted([role(`${fitting}r`, [scope])], scope).roles, [])
  t.same(granted([role(`${fitting}r`, [scope])], scope).scopes, [scope])
  const huge = `a:${'b'.repeat(MAX_SCOPE_BYTES)}`
  t.throws(() => granted([role('r', [huge])], huge), { code: 'scope_too_large' }, 'scopes are never left out')
})
