import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import { edgesOf, holdingsInTenant, holdingsOnInstance } from '../../../src/policy/engine/lists.ts'
import type { PolicyDocument } from '../../../src/policy/engine/model.ts'
import { document, world } from './arbitraries.ts'
import {
  aDocument,
  anInstance,
  anInstanceRole,
  aResource,
  aRole,
  asks,
  aTenant,
  aUser,
  aWorld,
  factsOf,
  from,
  held,
  NOW,
} from './builders.ts'

const drive = aDocument({
  resources: [
    aResource('group', { actions: [], roles: [anInstanceRole('member')] }),
    aResource('folder', {
      relations: [
        { key: 'parent', subjectResource: 'folder' },
        { key: 'team', subjectResource: 'group' },
      ],
      roles: [
        anInstanceRole('editor', ['folder:write'], {
          derivations: [from('member', 'group', 'team'), from('editor', 'folder', 'parent')],
        }),
        anInstanceRole('viewer', ['folder:read']),
      ],
    }),
    aResource('doc', {
      relations: [
        { key: 'parent', subjectResource: 'folder' },
        { key: 'team', subjectResource: 'group' },
        { key: 'unused', subjectResource: 'group' },
      ],
      roles: [
        anInstanceRole('editor', ['doc:write'], {
          extends: ['reader'],
          derivations: [from('editor', 'folder', 'parent')],
        }),
        anInstanceRole('reader', ['doc:read'], { derivations: [from('member', 'group', 'team')] }),
      ],
    }),
    aResource('post'),
  ],
  roles: [
    aRole('admin', ['doc:write', 'post:read'], ['reader']),
    aRole('reader', ['doc:read']),
    aRole('none'),
  ],
})
const policy = compilePolicy(drive)
const acme = aTenant('acme')

t.test('what roles give in an account is listed with the roles', async (t) => {
  const ann = aUser('ann', {
    roles: { acme: ['admin', held('none', NOW)] },
    everywhere: [held('none'), held('admin')],
  })

  const { permissions, roles } = holdingsInTenant(policy, ann, acme, NOW)
  t.strictSame([...permissions], ['doc:read', 'doc:write', 'post:read'])
  t.strictSame(roles, ['admin', 'none'])
  t.strictSame([...holdingsInTenant(policy, aUser('bob'), acme, NOW).permissions], [])
  t.strictSame(holdingsInTenant(policy, { ...ann, isActive: false }, acme, NOW).roles, [])
  t.strictSame(holdingsInTenant(policy, ann, { ...acme, isActive: false }, NOW).roles, [])
})

t.test('what roles give on an instance is listed with the roles', async (t) => {
  const doc = anInstance('doc:d', { subjects: { parent: ['folder:f'], team: ['group:g'] } })
  const stored = aWorld({
    tenants: [acme],
    instances: [doc, anInstance('folder:f', { subjects: { team: ['group:h'] } })],
  })
  const list = (on: Record<string, string[]>) => {
    const holdings = holdingsOnInstance(policy, factsOf(stored), aUser('ann', { on }), doc, NOW)
    return holdings === 'graph_too_large' ? holdings : [[...holdings.permissions], holdings.roles]
  }

  t.strictSame(list({ 'group:g': ['member'] }), [['doc:read'], ['reader']])
  t.strictSame(list({ 'group:h': ['member'] }), [['doc:read', 'doc:write'], ['editor']])
  t.strictSame(list({ 'doc:d': ['reader'], 'folder:f': ['editor'] }), [
    ['doc:read', 'doc:write'],
    ['editor', 'reader'],
  ])
  t.strictSame(list({}), [[], []])
})

t.test('the relations that matter are those that derivations name', async (t) => {
  t.strictSame(
    edgesOf(policy).map(({ resource, relation }) => `${resource} ${relation}`),
    ['folder team', 'folder parent', 'doc parent', 'doc team'],
  )
})

const withoutRules = (from: PolicyDocument): PolicyDocument => ({ ...from, rules: [] })

t.test('what is listed for an account is what is allowed there without a key', async () => {
  fc.assert(
    fc.property(document, world, (definition, stored) => {
      const compiled = compilePolicy(withoutRules(definition))
      const facts = factsOf(stored)
      for (const user of stored.users) {
        for (const tenant of stored.tenants) {
          const { permissions } = holdingsInTenant(compiled, user, tenant, NOW)
          for (const { key, actions } of definition.resources) {
            for (const action of actions) {
              const question = asks(user.key, `${key}:${action}`, { tenant: tenant.key })
              const { allowed } = decide(compiled, facts, question, NOW)

              assert.equal(permissions.has(`${key}:${action}`), allowed)
            }
          }
        }
      }
    }),
    { numRuns: 150 },
  )
})

t.test('what is listed for an instance is what is allowed on it by relationships', async () => {
  fc.assert(
    fc.property(document, world, (definition, stored) => {
      const compiled = compilePolicy({ ...withoutRules(definition), roles: [] })
      const facts = factsOf(stored)
      for (const user of stored.users) {
        for (const instance of stored.instances) {
          const { type, key, tenant } = instance
          const holdings = holdingsOnInstance(compiled, facts, user, instance, NOW)
          assert.notEqual(holdings, 'graph_too_large')
          const permissions = holdings === 'graph_too_large' ? new Set() : holdings.permissions
          const resource = definition.resources.find((one) => one.key === type)
          for (const action of resource?.actions ?? []) {
            const question = asks(user.key, `${type}:${action}`, { key, tenant })
            const { allowed } = decide(compiled, facts, question, NOW)

            assert.equal(permissions.has(`${type}:${action}`), allowed)
          }
        }
      }
    }),
    { numRuns: 150 },
  )
})

t.test('relationships that no edge names can be left out', async () => {
  fc.assert(
    fc.property(
      document,
      world,
      fc.constantFrom('doc', 'folder', '__proto__'),
      (definition, stored, type) => {
        const compiled = compilePolicy(definition)
        const edges = edgesOf(compiled)
        const instances = stored.instances.map((instance) => ({
          ...instance,
          subjects: new Map(
            [...instance.subjects].filter(([relation]) =>
              edges.some((edge) => edge.resource === instance.type && edge.relation === relation),
            ),
          ),
        }))
        const facts = [factsOf(stored), factsOf({ ...stored, instances })]
        for (const user of stored.users) {
          for (const { key, tenant } of instances.filter((instance) => instance.type === type)) {
            const question = asks(user.key, `${type}:read`, { key, tenant })
            const [all, fewer] = facts.map((each) => decide(compiled, each, question, NOW))

            assert.deepEqual(fewer, all)
          }
        }
      },
    ),
    { numRuns: 200 },
  )
})
