import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { explain } from '../../../src/policy/engine/explain.ts'
import type { Question } from '../../../src/policy/engine/model.ts'
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

const policy = compilePolicy(
  aDocument({
    resources: [
      aResource('folder', {
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [
          anInstanceRole('editor', ['folder:write'], { derivations: [from('editor', 'folder', 'parent')] }),
        ],
      }),
      aResource('document', {
        actions: ['read', 'write', 'share'],
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [
          anInstanceRole('editor', ['document:read', 'document:write'], {
            derivations: [from('editor', 'folder', 'parent')],
          }),
          anInstanceRole('viewer', ['document:read']),
        ],
      }),
      aResource('post', { actions: ['read', 'update', 'delete'] }),
    ],
    roles: [
      aRole('admin', ['document:read', 'post:update', 'post:delete']),
      aRole('editor', ['post:update', 'document:read']),
      aRole('guest'),
    ],
    userSets: [
      { key: 'staff', conditions: { 'user.email': { contains: '@acme.test' } }, parent: null },
      { key: 'grown_up', conditions: { 'user.age': { 'greater-than-equals': 18 } }, parent: null },
    ],
    resourceSets: [
      {
        key: 'open_documents',
        resource: 'document',
        conditions: { 'resource.open': { equals: true } },
        parent: null,
      },
      {
        key: 'drafts',
        resource: 'document',
        conditions: { 'resource.draft': { equals: true } },
        parent: null,
      },
    ],
    rules: [
      { users: { set: 'staff' }, resources: { set: 'open_documents' }, permission: 'document:read' },
      { users: { set: 'grown_up' }, resources: { set: 'drafts' }, permission: 'document:read' },
      { users: { role: 'guest' }, resources: { resource: 'document' }, permission: 'document:read' },
      {
        users: { role: 'document#viewer' },
        resources: { resource: 'document' },
        permission: 'document:share',
      },
    ],
  }),
)

const facts = factsOf(
  aWorld({
    tenants: [
      aTenant('acme', { attributes: { plan: 'pro' } }),
      aTenant('umbra'),
      aTenant('closed', { isActive: false }),
    ],
    users: [
      aUser('ann', {
        roles: { acme: ['editor'] },
        on: { 'folder:f1': ['editor'], 'document:d3': ['viewer'] },
        attributes: { email: 'ann@acme.test', age: 20 },
      }),
      aUser('bob', {
        roles: { umbra: ['editor', held('admin', NOW)] },
        on: { 'document:d1': ['viewer', 'editor'] },
      }),
      aUser('cid'),
      aUser('gus', { everywhere: [held('guest')], roles: { acme: ['guest', held('admin', NOW)] } }),
      aUser('off', { isActive: false }),
    ],
    instances: [
      anInstance('folder:f1'),
      anInstance('folder:f2', { subjects: { parent: ['folder:f1'] } }),
      anInstance('document:d1', { subjects: { parent: ['folder:f1'] }, attributes: { open: true } }),
      anInstance('document:d2', { subjects: { parent: ['folder:f2'] }, attributes: { draft: false } }),
      anInstance('document:d3'),
      anInstance('document:far', { tenant: 'umbra' }),
    ],
  }),
)

const because = (question: Question) => explain(policy, facts, question, NOW)

t.test('an allow by a role in the account names the roles', async (t) => {
  const { decision, allowingSources, rbac, abac, rebac, sentence } = because(asks('ann', 'post:update'))

  t.ok(decision.allowed)
  t.strictSame(allowingSources, ['rbac'])
  t.strictSame(rbac, {
    allowed: true,
    code: 'allow',
    reason: 'editor in acme may post:update',
    allowingRoles: ['editor'],
  })
  t.equal(abac, undefined)
  t.equal(rebac, undefined)
  t.equal(sentence, 'editor in acme may post:update')
})

t.test('every model that allows is there, and none that does not', async (t) => {
  const { allowingSources, rbac, abac, rebac } = because(asks('ann', 'document:read', { key: 'd1' }))

  t.strictSame(allowingSources, ['rbac', 'abac', 'rebac'])
  t.strictSame(rbac?.allowingRoles, ['editor'])
  t.strictSame(abac, {
    allowed: true,
    code: 'allow',
    reason: 'staff may document:read on open_documents',
    allowingRules: [{ users: 'staff', resources: 'open_documents' }],
    matchingUserSets: ['staff', 'grown_up'],
    matchingResourceSets: ['open_documents', 'document'],
  })
  t.strictSame(
    rebac?.allowingRoles.map(({ role }) => role),
    ['document#editor'],
  )
})

t.test('an allow by relationships tells the way from the role that was given', async (t) => {
  const two = because(asks('ann', 'document:write', { key: 'd1' }))
  const three = because(asks('ann', 'document:write', { key: 'd2' }))
  const one = because(asks('bob', 'document:write', { key: 'd1' }))

  t.equal(two.sentence, 'folder:f1#editor → document:d1#editor via parent')
  t.equal(three.sentence, 'folder:f1#editor → folder:f2#editor via parent → document:d2#editor via parent')
  t.equal(one.sentence, 'document:d1#editor may document:write')
  t.strictSame(three.rebac?.allowingRoles, [
    {
      role: 'document#editor',
      path: [
        { instance: 'folder:f1', role: 'editor', via: undefined },
        { instance: 'folder:f2', role: 'editor', via: 'parent' },
        { instance: 'document:d2', role: 'editor', via: 'parent' },
      ],
    },
  ])
})

t.test('each role that allows has its own way', async (t) => {
  const { rebac } = because(asks('bob', 'document:read', { key: 'd1' }))

  t.strictSame(rebac?.allowingRoles.map(({ role, path }) => [role, path.length]).sort(), [
    ['document#editor', 1],
    ['document#viewer', 1],
  ])
})

t.test('a refusal by roles has the first code that applies', async (t) => {
  for (const [question, code, sentence] of [
    [asks('ann', 'invoice:read'), 'no_such_resource', 'there is no resource invoice'],
    [asks('ann', 'post:fly'), 'no_such_action', 'post has no action fly'],
    [asks('off', 'post:read'), 'user_inactive', 'off is not active'],
    [asks('ann', 'post:read', { tenant: 'closed' }), 'tenant_inactive', 'closed is not active'],
    [asks('ann', 'post:read', { tenant: 'nowhere' }), 'no_such_tenant', 'there is no account nowhere'],
    [asks('eve', 'post:read', { tenant: undefined }), 'no_such_tenant', 'the question names no account'],
    [asks('eve', 'post:read'), 'user_not_synced', 'eve is not known'],
    [asks('cid', 'post:read'), 'no_user_roles', 'cid holds no role in any account'],
    [asks('bob', 'post:read'), 'no_role_in_tenant', 'bob holds no role in acme'],
    [asks('ann', 'post:delete'), 'no_permission', 'no role in acme gives post:delete'],
    [asks('gus', 'post:delete'), 'no_permission', 'no role in acme gives post:delete'],
    [asks('gus', 'post:delete', { tenant: 'umbra' }), 'no_permission', 'no role in umbra gives post:delete'],
  ] as const) {
    const { decision, rbac, sentence: told } = because(question)

    t.notOk(decision.allowed)
    t.equal(rbac?.code, code)
    t.equal(told, sentence)
  }
})

t.test('a refusal by rules has the first code that applies, and tells what matched', async (t) => {
  const codes = (user: string, parts: Parameters<typeof asks>[2]) => {
    const { abac } = because(asks(user, 'document:read', parts))
    return [abac?.code, abac?.matchingUserSets, abac?.matchingResourceSets]
  }

  t.strictSame(codes('eve', { resource: { open: true } }), [
    'no_matching_usersets',
    [],
    ['open_documents', 'document'],
  ])
  t.strictSame(codes('eve', { user: { email: 'eve@acme.test' } }), [
    'no_matching_rules',
    ['staff'],
    ['document'],
  ])
  t.strictSame(codes('eve', { user: { age: 30 }, resource: { open: true } }), [
    'no_matching_rules',
    ['grown_up'],
    ['open_documents', 'document'],
  ])
  t.equal(because(asks('ann', 'post:delete')).abac, undefined, 'no rule is about it')
})

t.test('no resource set matches', async (t) => {
  const onlySets = compilePolicy(
    aDocument({
      resources: [aResource('document')],
      userSets: [{ key: 'everybody', conditions: {}, parent: null }],
      resourceSets: [
        {
          key: 'open',
          resource: 'document',
          conditions: { 'resource.open': { equals: true } },
          parent: null,
        },
      ],
      rules: [{ users: { set: 'everybody' }, resources: { set: 'open' }, permission: 'document:read' }],
    }),
  )

  t.equal(explain(onlySets, facts, asks('ann', 'document:read'), NOW).abac?.code, 'no_matching_resourcesets')
})

t.test('a refusal by relationships has the first code that applies', async (t) => {
  for (const [question, code] of [
    [asks('ann', 'document:write', { key: 'd1', tenant: 'nowhere' }), 'no_such_tenant'],
    [asks('eve', 'document:write', { key: 'd1' }), 'user_not_synced'],
    [asks('ann', 'document:write', { key: 'd9' }), 'no_such_instance'],
    [asks('ann', 'document:write', { key: 'far' }), 'no_such_instance'],
    [asks('cid', 'document:write', { key: 'd1' }), 'no_role_on_instance'],
    [asks('ann', 'document:write', { key: 'd3' }), 'no_permission'],
    [asks('ann', 'document:write'), undefined],
    [asks('ann', 'post:delete', { key: 'p1' }), undefined],
  ] as const) {
    const { decision, rebac } = because(question)

    t.notOk(decision.allowed)
    t.equal(rebac?.code, code)
  }
})

t.test('the reasons of all models are in one line', async (t) => {
  t.equal(
    because(asks('bob', 'document:read', { key: 'd3' })).sentence,
    'bob holds no role in acme; no rule for document:read is about this user; bob holds no role on document:d3',
  )
})

t.test('the question is told as conditions saw it', async (t) => {
  const { request } = because(
    asks('id-of-ann', 'document:share', {
      key: 'd1',
      tenant: 'id-of-acme',
      user: { age: 30, roles: ['admin'], key: 'somebody' },
      resource: { size: 1, type: 'post', key: 'another' },
    }),
  )

  t.strictSame(request, {
    user: {
      key: 'ann',
      isSynced: true,
      attributes: { email: 'ann@acme.test', age: 30, roles: ['editor'], key: 'ann', tenants: ['acme'] },
    },
    tenant: 'acme',
    action: 'share',
    resource: {
      type: 'document',
      key: 'd1',
      attributes: { open: true, size: 1, type: 'document', key: 'd1' },
    },
  })
  t.strictSame(because(asks('eve', 'post:read', { tenant: 'nowhere', user: { x: 1 } })).request, {
    user: { key: 'eve', isSynced: false, attributes: { x: 1, key: 'eve', roles: [], tenants: [] } },
    tenant: 'nowhere',
    action: 'read',
    resource: { type: 'post', key: undefined, attributes: { type: 'post' } },
  })
})
