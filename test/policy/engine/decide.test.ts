import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import type { PolicyDocument, Question } from '../../../src/policy/engine/model.ts'
import { createRecorder } from '../../../src/policy/engine/recorder.ts'
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
  type World,
} from './builders.ts'

const ask = (policy: PolicyDocument, world: World, question: Question) =>
  decide(compilePolicy(policy), factsOf(world), question, NOW)

const blog = aDocument({
  resources: [
    aResource('post', { actions: ['read', 'update'], roles: [anInstanceRole('owner', ['post:update'])] }),
    aResource('comment', { actions: ['read'] }),
  ],
  roles: [aRole('editor', ['post:update'], ['reader']), aRole('reader', ['post:read', 'comment:read'])],
})
const tenants = [aTenant('acme'), aTenant('umbra'), aTenant('closed', { isActive: false })]

t.test('a role held in the account gives its actions there, and nowhere else', async (t) => {
  const world = aWorld({ tenants, users: [aUser('ann', { roles: { acme: ['editor'] } })] })

  t.strictSame(ask(blog, world, asks('ann', 'post:update')), {
    allowed: true,
    source: 'rbac',
    refusal: undefined,
  })
  t.strictSame(ask(blog, world, asks('ann', 'post:update', { tenant: 'umbra' })), {
    allowed: false,
    source: undefined,
    refusal: undefined,
  })
  t.notOk(ask(blog, world, asks('ann', 'post:update', { tenant: undefined })).allowed)
  t.notOk(ask(blog, world, asks('ann', 'post:update', { tenant: '' })).allowed)
  t.notOk(ask(blog, world, asks('ann', 'post:update', { tenant: 'nowhere' })).allowed)
  t.notOk(ask(blog, world, asks('eve', 'post:update')).allowed)
})

t.test('people and accounts go by their keys and their ids', async (t) => {
  const world = aWorld({ tenants, users: [aUser('ann', { roles: { acme: ['editor'] } })] })

  t.ok(ask(blog, world, asks('id-of-ann', 'post:update', { tenant: 'id-of-acme' })).allowed)
})

t.test('a role has the permissions of those that it extends, over any number of steps', async (t) => {
  const roles = [
    aRole('a', [], ['b']),
    aRole('b', [], ['c', 'nobody']),
    aRole('c', ['post:read'], ['a']),
    aRole('d', ['post:update']),
  ]
  const world = aWorld({ tenants, users: [aUser('ann', { roles: { acme: ['a'] } })] })
  const policy = aDocument({ ...blog, roles })

  t.ok(ask(policy, world, asks('ann', 'post:read')).allowed)
  t.notOk(ask(policy, world, asks('ann', 'post:update')).allowed)
})

t.test('a role held everywhere applies in every account that is there and active', async (t) => {
  const world = aWorld({ tenants, users: [aUser('ann', { everywhere: [held('editor')] })] })
  const isAllowed = (tenant: string | undefined) =>
    ask(blog, world, asks('ann', 'post:update', { tenant })).allowed

  t.ok(isAllowed('acme'))
  t.ok(isAllowed('umbra'))
  t.notOk(isAllowed('closed'))
  t.notOk(isAllowed('nowhere'))
  t.notOk(isAllowed(undefined))
})

t.test('a role holds until it expires', async (t) => {
  const at = (expiresAt: number) =>
    ask(
      blog,
      aWorld({ tenants, users: [aUser('ann', { roles: { acme: [held('editor', expiresAt)] } })] }),
      asks('ann', 'post:update'),
    ).allowed

  t.ok(at(NOW + 1))
  t.notOk(at(NOW))
  t.notOk(at(NOW - 1))
})

t.test(
  'whoever is not active, or asks about an account that is not, is refused whatever rules say',
  async (t) => {
    const policy = aDocument({
      ...blog,
      userSets: [{ key: 'everybody', conditions: {}, parent: null }],
      rules: [{ users: { set: 'everybody' }, resources: { resource: 'post' }, permission: 'post:read' }],
    })
    const world = aWorld({
      tenants,
      users: [aUser('ann', { isActive: false, everywhere: [held('editor')] }), aUser('bob')],
    })

    t.equal(ask(policy, world, asks('ann', 'post:read')).refusal, 'user_inactive')
    t.equal(ask(policy, world, asks('ann', 'post:read', { tenant: undefined })).refusal, 'user_inactive')
    t.equal(ask(policy, world, asks('bob', 'post:read', { tenant: 'closed' })).refusal, 'tenant_inactive')
    t.equal(ask(policy, world, asks('eve', 'post:read', { tenant: 'closed' })).refusal, 'tenant_inactive')
    t.ok(ask(policy, world, asks('bob', 'post:read')).allowed)
  },
)

t.test('resources and actions that the policy does not know are refused', async (t) => {
  const world = aWorld({ tenants, users: [aUser('ann', { roles: { acme: ['editor'] } })] })

  t.equal(ask(blog, world, asks('ann', 'invoice:read')).refusal, 'no_such_resource')
  t.equal(ask(blog, world, asks('ann', 'comment:update')).refusal, 'no_such_action')
  t.equal(ask(blog, world, asks('ann', 'constructor:read')).refusal, 'no_such_resource')
  t.equal(ask(blog, world, asks('ann', 'post:toString')).refusal, 'no_such_action')
  t.equal(ask(blog, world, asks('ann', ':')).refusal, 'no_such_resource')
})

t.test('a role held on an instance gives its actions there', async (t) => {
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'post:p1': ['owner'], 'post:p3': [held('owner', NOW)] } })],
    instances: [anInstance('post:p1'), anInstance('post:p2'), anInstance('post:p3')],
  })

  t.strictSame(ask(blog, world, asks('ann', 'post:update', { key: 'p1' })), {
    allowed: true,
    source: 'rebac',
    refusal: undefined,
  })
  t.ok(ask(blog, world, asks('ann', 'post:update', { key: 'id-of-p1' })).allowed)
  for (const key of ['p2', 'p3', 'p9', '', undefined])
    t.notOk(
      ask(blog, world, asks('ann', 'post:update', key === undefined ? {} : { key })).allowed,
      String(key),
    )
})

t.test('what a question says of roles is not believed', async (t) => {
  const policy = aDocument({
    ...blog,
    userSets: [{ key: 'readers', conditions: { 'user.roles': { array_contains: 'reader' } }, parent: null }],
    rules: [{ users: { set: 'readers' }, resources: { resource: 'post' }, permission: 'post:read' }],
  })
  const world = aWorld({ tenants, users: [aUser('ann'), aUser('bob', { roles: { acme: ['reader'] } })] })
  const claim = { roles: ['reader'], tenants: ['acme'] }

  t.notOk(ask(policy, world, asks('ann', 'post:read', { user: claim })).allowed)
  t.notOk(ask(policy, world, asks('eve', 'post:read', { user: claim })).allowed)
  t.ok(ask(policy, world, asks('bob', 'post:read', { user: { roles: [] } })).allowed)
})

t.test('a decision by role asks for neither the instance nor anything else', async (t) => {
  const facts = factsOf(
    aWorld({ tenants, users: [aUser('ann', { roles: { acme: ['editor'] }, on: { 'post:p1': ['owner'] } })] }),
  )
  const recorder = createRecorder({ ...facts, instance: () => undefined })

  t.ok(decide(compilePolicy(blog), recorder.facts, asks('ann', 'post:update', { key: 'p1' }), NOW).allowed)
  t.ok(recorder.isComplete())
})

t.test('neither does a refusal of somebody who holds nothing on any instance', async (t) => {
  const facts = factsOf(aWorld({ tenants, users: [aUser('ann')] }))
  const recorder = createRecorder({ ...facts, instance: () => undefined })

  t.notOk(decide(compilePolicy(blog), recorder.facts, asks('ann', 'post:update', { key: 'p1' }), NOW).allowed)
  t.ok(recorder.isComplete())
})

t.test('everything that is missing is asked for at once', async (t) => {
  const nothing = { user: () => undefined, tenant: () => undefined, instance: () => undefined }
  const recorder = createRecorder(nothing)

  t.notOk(decide(compilePolicy(blog), recorder.facts, asks('ann', 'post:update', { key: 'p1' }), NOW).allowed)
  t.strictSame([...recorder.missing.users], ['ann'])
  t.strictSame([...recorder.missing.tenants], ['acme'])
  t.strictSame([...recorder.missing.instances], ['post:p1'])
})

t.test('nobody is let in while facts are missing', async (t) => {
  const policy = aDocument({
    ...blog,
    userSets: [
      { key: 'not_banned', conditions: { not: { 'user.banned': { equals: true } } }, parent: null },
      { key: 'everybody', conditions: {}, parent: null },
    ],
    resourceSets: [
      {
        key: 'unlocked',
        resource: 'post',
        conditions: { not: { 'resource.locked': { equals: true } } },
        parent: null,
      },
    ],
    rules: [{ users: { set: 'not_banned' }, resources: { set: 'unlocked' }, permission: 'post:read' }],
  })
  const facts = factsOf(aWorld({ tenants, users: [aUser('ann')], instances: [anInstance('post:p1')] }))
  const question = asks('ann', 'post:read', { key: 'p1' })

  t.ok(decide(compilePolicy(policy), facts, question, NOW).allowed)
  for (const missing of ['user', 'tenant', 'instance'])
    t.notOk(
      decide(compilePolicy(policy), { ...facts, [missing]: () => undefined }, question, NOW).allowed,
      missing,
    )
})

t.test('whatever dangles gives nothing, and nothing throws', async (t) => {
  const policy = aDocument({
    resources: [
      aResource('doc', {
        roles: [
          anInstanceRole('viewer', ['doc:read', 'doc:nothing', 'nothing:read'], {
            extends: ['nobody'],
            derivations: [
              from('nobody', 'folder', 'parent'),
              from('viewer', 'nothing', 'parent'),
              from('viewer', 'folder', 'nothing'),
            ],
          }),
        ],
        relations: [
          { key: 'parent', subjectResource: 'folder' },
          { key: 'lost', subjectResource: 'nothing' },
        ],
      }),
      aResource('folder', { roles: [anInstanceRole('viewer')] }),
    ],
    roles: [aRole('reader', ['nothing:read', 'doc', ':', ''], ['reader', 'nobody'])],
    userSets: [
      { key: 'orphans', conditions: {}, parent: 'nothing' },
      { key: 'everybody', conditions: {}, parent: null },
      { key: 'faulty', conditions: { not: { nothing: 1 } }, parent: null },
    ],
    resourceSets: [
      { key: 'orphaned', resource: 'doc', conditions: {}, parent: 'nothing' },
      { key: 'folders', resource: 'folder', conditions: {}, parent: null },
      { key: 'mixed', resource: 'doc', conditions: {}, parent: 'folders' },
    ],
    rules: [
      { users: { set: 'nothing' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { set: 'orphans' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { set: 'faulty' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { role: 'nobody' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { role: 'doc#nobody' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { role: 'nothing#viewer' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { set: 'nothing' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { set: 'orphaned' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { set: 'folders' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { set: 'mixed' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { resource: 'folder' }, permission: 'doc:read' },
      { users: { set: 'everybody' }, resources: { resource: 'nothing' }, permission: 'nothing:read' },
      { users: { set: 'everybody' }, resources: { resource: 'doc' }, permission: 'doc:nothing' },
    ],
  })
  const world = aWorld({
    tenants,
    users: [
      aUser('ann', {
        roles: { acme: ['reader', 'nobody'] },
        on: { 'folder:f': ['nobody', 'viewer'], 'doc:d': ['nobody'] },
      }),
    ],
    instances: [
      anInstance('doc:d', { subjects: { parent: ['folder:f', 'nothing', ''], nothing: ['folder:f'] } }),
    ],
  })

  t.strictSame(ask(policy, world, asks('ann', 'doc:read', { key: 'd' })), {
    allowed: false,
    source: undefined,
    refusal: undefined,
  })
})
