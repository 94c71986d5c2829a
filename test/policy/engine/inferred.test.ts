import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { validateCondition } from '../../../src/policy/engine/conditions.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import type { ConditionTree, PolicyDocument, Question, UserFacts } from '../../../src/policy/engine/model.ts'
import { MOST_STEPS } from '../../../src/policy/engine/scope.ts'
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

/*
 * Where the language of conditions and roles leaves something open, this is what it means here: the reading that lets
 * fewer in. The numbers are those of the table in docs/policy.md.
 */

const tenants = [aTenant('acme', { attributes: { plan: 'pro', key: 'stored' } }), aTenant('umbra')]

const ask = (policy: PolicyDocument, world: World, question: Question): boolean =>
  decide(compilePolicy(policy), factsOf(world), question, NOW).allowed

/** A policy in which a condition alone decides about `doc:read`. */
const onlyIf = (conditions: ConditionTree, parts: Partial<PolicyDocument> = {}): PolicyDocument =>
  aDocument({
    resources: [aResource('doc', { roles: [anInstanceRole('owner')] })],
    userSets: [{ key: 'some', conditions, parent: null }],
    rules: [{ users: { set: 'some' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
    ...parts,
  })

const isTrue = (
  conditions: ConditionTree,
  world: Partial<World>,
  question: Parameters<typeof asks>[2],
  user = 'ann',
): boolean => ask(onlyIf(conditions), aWorld({ tenants, ...world }), asks(user, 'doc:read', question))

t.test('1: a role that extends another has its permissions, but does not count as it', async (t) => {
  const policy = aDocument({
    resources: [
      aResource('folder', {
        roles: [
          anInstanceRole('admin', [], { extends: ['editor'] }),
          anInstanceRole('editor', ['folder:write']),
        ],
      }),
      aResource('doc', {
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [
          anInstanceRole('editor', ['doc:write'], { derivations: [from('editor', 'folder', 'parent')] }),
        ],
      }),
    ],
    roles: [aRole('boss', [], ['clerk']), aRole('clerk', ['doc:read'])],
    rules: [{ users: { role: 'clerk' }, resources: { resource: 'doc' }, permission: 'doc:write' }],
  })
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'folder:f': ['admin'] } }), aUser('bob', { roles: { acme: ['boss'] } })],
    instances: [anInstance('folder:f'), anInstance('doc:d', { subjects: { parent: ['folder:f'] } })],
  })

  t.ok(ask(policy, world, asks('ann', 'folder:write', { key: 'f' })))
  t.notOk(ask(policy, world, asks('ann', 'doc:write', { key: 'd' })))
  t.ok(ask(policy, world, asks('bob', 'doc:read')))
  t.notOk(ask(policy, world, asks('bob', 'doc:write')))
})

t.test('2: a role on an instance gives actions of its own resource only', async (t) => {
  const policy = aDocument({
    resources: [
      aResource('folder', { roles: [anInstanceRole('owner', ['doc:read', 'folder:read'])] }),
      aResource('doc', { roles: [anInstanceRole('owner')] }),
    ],
  })
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'folder:1': ['owner'], 'doc:1': ['owner'] } })],
    instances: [anInstance('folder:1'), anInstance('doc:1')],
  })

  t.ok(ask(policy, world, asks('ann', 'folder:read', { key: '1' })))
  t.notOk(ask(policy, world, asks('ann', 'doc:read', { key: '1' })))
})

t.test('3: key, roles and tenants of a user are what they are, whatever is stored or said', async (t) => {
  const users = [
    aUser('ann', {
      attributes: {
        key: 'root',
        roles: ['root'],
        tenants: ['root'],
        email: 'ann@acme.test',
        first_name: 'Ann',
      },
    }),
  ]
  const said = { user: { key: 'root', roles: ['root'], tenants: ['root'] } }

  for (const question of [{}, said]) {
    t.ok(
      isTrue(
        { 'user.key': { equals: 'ann' }, 'user.roles': { equals: [] }, 'user.tenants': { equals: [] } },
        { users },
        question,
      ),
    )
    t.ok(
      isTrue(
        { 'user.email': { equals: 'ann@acme.test' }, 'user.first_name': { equals: 'Ann' } },
        { users },
        question,
      ),
    )
  }
  t.ok(isTrue({ 'user.key': { equals: 'ann' } }, { users }, {}, 'id-of-ann'), 'by id too')
  t.ok(
    isTrue({ 'user.key': { equals: 'eve' }, 'user.roles': { equals: [] } }, { users }, said, 'eve'),
    'of somebody unknown too',
  )
  t.ok(
    isTrue({ 'user.email': { equals: 'new@acme.test' } }, { users }, { user: { email: 'new@acme.test' } }),
    'others are as said',
  )
})

t.test('4: type and key of a resource are what they are, and key is absent without one', async (t) => {
  const instances = [anInstance('doc:d', { attributes: { type: 'stored', key: 'stored', open: false } })]
  const said = { resource: { type: 'said', key: 'said', open: true } }

  t.ok(
    isTrue(
      { 'resource.type': { equals: 'doc' }, 'resource.key': { equals: 'd' } },
      { instances },
      { key: 'd', ...said },
    ),
  )
  t.ok(isTrue({ 'resource.key': { equals: 'd' } }, { instances }, { key: 'id-of-d' }))
  t.ok(isTrue({ 'resource.key': { equals: 'unknown' } }, { instances }, { key: 'unknown', ...said }))
  t.notOk(isTrue({ 'resource.key': { 'not-equals': 'x' } }, { instances }, said))
  t.notOk(isTrue({ 'resource.key': { 'not-equals': 'x' } }, { instances }, { key: '', ...said }))
  t.ok(
    isTrue({ 'resource.open': { equals: true } }, { instances }, { key: 'd', ...said }),
    'others are as said',
  )
  t.ok(isTrue({ 'resource.open': { equals: false } }, { instances }, { key: 'd' }))
})

t.test('5: environment and env are the context', async (t) => {
  for (const bag of ['context', 'environment', 'env'])
    t.ok(isTrue({ [`${bag}.ip`]: { equals: '10.0.0.1' } }, {}, { context: { ip: '10.0.0.1' } }), bag)
})

t.test('6: between includes both ends', async (t) => {
  for (const [x, isWithin] of [
    [1, true],
    [2, true],
    [0.9, false],
    [2.1, false],
  ] as const)
    t.equal(isTrue({ 'user.x': { between: [1, 2] } }, {}, { user: { x } }), isWithin)
})

t.test(
  '7: a rule about a role of the resource means who holds it on the instance, given or derived',
  async (t) => {
    const policy = aDocument({
      resources: [
        aResource('folder', { roles: [anInstanceRole('owner')] }),
        aResource('doc', {
          relations: [{ key: 'parent', subjectResource: 'folder' }],
          roles: [anInstanceRole('owner', [], { derivations: [from('owner', 'folder', 'parent')] })],
        }),
      ],
      rules: [
        { users: { role: 'doc#owner' }, resources: { resource: 'doc' }, permission: 'doc:read' },
        { users: { role: 'folder#owner' }, resources: { resource: 'doc' }, permission: 'doc:write' },
      ],
    })
    const world = aWorld({
      tenants,
      users: [aUser('ann', { on: { 'doc:1': ['owner'] } }), aUser('bob', { on: { 'folder:f': ['owner'] } })],
      instances: [
        anInstance('doc:1', { subjects: { parent: ['folder:f'] } }),
        anInstance('doc:2'),
        anInstance('folder:f'),
      ],
    })

    t.ok(ask(policy, world, asks('ann', 'doc:read', { key: '1' })))
    t.ok(ask(policy, world, asks('bob', 'doc:read', { key: '1' })))
    t.notOk(ask(policy, world, asks('ann', 'doc:read', { key: '2' })))
    t.notOk(ask(policy, world, asks('ann', 'doc:read')))
    t.notOk(
      ask(policy, world, asks('bob', 'doc:write', { key: '1' })),
      'a role of another resource is held on no doc',
    )
  },
)

t.test('8: nothing stored about an instance counts in another account than its own', async (t) => {
  const policy = onlyIf(
    { 'resource.open': { equals: true } },
    { resources: [aResource('doc', { roles: [anInstanceRole('owner', ['doc:write'])] })] },
  )
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'doc:d': ['owner'] } })],
    instances: [anInstance('doc:d', { attributes: { open: true } })],
  })

  for (const permission of ['doc:read', 'doc:write']) {
    t.ok(ask(policy, world, asks('ann', permission, { key: 'd' })))
    for (const tenant of ['umbra', 'nowhere', '', undefined])
      t.notOk(ask(policy, world, asks('ann', permission, { key: 'd', tenant })), `${permission} in ${tenant}`)
  }
})

t.test('9: without an account, or in one that is not there, no roles apply, but attributes do', async (t) => {
  const world = { users: [aUser('ann', { roles: { acme: ['admin'] }, everywhere: [held('admin')] })] }

  for (const tenant of [undefined, '', 'nowhere']) {
    t.ok(isTrue({ 'user.roles': { equals: [] } }, world, { tenant }))
    t.ok(isTrue({ 'user.x': { equals: 1 } }, world, { tenant, user: { x: 1 } }))
    t.notOk(isTrue({ 'tenant.key': { 'not-equals': '' } }, world, { tenant }))
    t.notOk(
      ask(
        aDocument({ resources: [aResource('doc')], roles: [aRole('admin', ['doc:read'])] }),
        aWorld({ tenants, ...world }),
        asks('ann', 'doc:read', { tenant }),
      ),
    )
  }
})

t.test(
  '10: an account shows its attributes to who is in it: members, and holders of a role everywhere',
  async (t) => {
    const isShown = (user: UserFacts) =>
      isTrue({ 'tenant.plan': { equals: 'pro' }, 'tenant.key': { equals: 'acme' } }, { users: [user] }, {})

    t.ok(isShown(aUser('ann', { tenants: ['acme'] })))
    t.ok(isShown(aUser('ann', { everywhere: [held('any')] })))
    t.notOk(isShown(aUser('ann', { everywhere: [held('any', NOW)] })))
    t.notOk(isShown(aUser('ann', { tenants: ['umbra'] })))
    t.notOk(isShown(aUser('bob')))
  },
)

t.test(
  '11: user.roles lists the roles held in the account and everywhere and on the instance, sorted, each once',
  async (t) => {
    const users = [
      aUser('ann', {
        roles: { acme: ['b', 'a', held('gone', NOW)], umbra: ['c'] },
        everywhere: [held('a'), held('z')],
        on: { 'doc:d': ['owner', 'unknown'], 'doc:e': ['owner'] },
      }),
    ]
    const instances = [anInstance('doc:d'), anInstance('doc:e')]

    t.ok(
      isTrue({ 'user.roles': { equals: ['a', 'b', 'doc#owner', 'z'] } }, { users, instances }, { key: 'd' }),
    )
    t.ok(isTrue({ 'user.roles': { equals: ['a', 'b', 'z'] } }, { users, instances }, {}))
    t.ok(
      isTrue(
        { 'user.roles': { equals: ['a', 'c', 'z'] } },
        { users, instances },
        { tenant: 'umbra', key: 'd' },
      ),
    )
  },
)

t.test('12: a faulty condition holds for nobody, whatever stands around the fault', async (t) => {
  for (const conditions of [
    { 'user.x': { nope: 1 } },
    { not: { 'user.x': { nope: 1 } } },
    { or: [{}, { 'user.x': { nope: 1 } }] },
    { 'user.x': {} },
    { 'user.x': 1 },
    { x: { equals: 1 } },
    { 'user.x': { equals: { ref: 'x' } } },
  ]) {
    t.notOk(isTrue(conditions, {}, { user: { x: 1 } }), JSON.stringify(conditions))
    t.ok(validateCondition(conditions).length > 0)
  }
})

t.test('13: only numbers have an order; times and texts have none', async (t) => {
  const times = { user: { from: '2027-01-01T00:00:00Z', to: '2028-01-01T00:00:00Z', a: 'a' } }

  t.notOk(isTrue({ 'user.from': { 'less-than': { ref: 'user.to' } } }, {}, times))
  t.notOk(isTrue({ 'user.to': { 'greater-than': { ref: 'user.from' } } }, {}, times))
  t.ok(validateCondition({ 'user.a': { 'less-than': 'b' } }).length > 0)
})

t.test(
  '14: a ref stands for a whole operand, in match too, where it leads to the attributes outside',
  async (t) => {
    const said = { user: { x: 1, low: 0 }, resource: { list: [{ y: 1 }] } }

    t.ok(
      isTrue({ 'resource.list': { any_match: { match: { y: { equals: { ref: 'user.x' } } } } } }, {}, said),
    )
    t.ok(validateCondition({ 'user.x': { between: [{ ref: 'user.low' }, 2] } }).length > 0)
    t.notOk(isTrue({ 'user.x': { in: [{ ref: 'user.x' }] } }, {}, said))
  },
)

t.test('15: dots lead into objects, never into lists, and a name with dots comes first', async (t) => {
  t.ok(isTrue({ 'user.a.b': { equals: 1 } }, {}, { user: { a: { b: 1 } } }))
  t.ok(isTrue({ 'user.a.b': { equals: 2 } }, {}, { user: { a: { b: 1 }, 'a.b': 2 } }))
  t.notOk(isTrue({ 'user.a.0': { equals: 1 } }, {}, { user: { a: [1] } }))
  t.notOk(isTrue({ 'user.a.length': { equals: 1 } }, {}, { user: { a: [1] } }))
})

t.test(
  '16: fk_resource_type looks into the account of the question only, at stored attributes',
  async (t) => {
    const conditions = {
      'resource.by': { object_match: { match: { ok: { equals: true } }, fk_resource_type: 'doctor' } },
    }
    const instances = [
      anInstance('doctor:here', { attributes: { ok: true } }),
      anInstance('doctor:there', { tenant: 'umbra', attributes: { ok: true } }),
    ]

    t.ok(isTrue(conditions, { instances }, { resource: { by: 'here' } }))
    t.notOk(isTrue(conditions, { instances }, { resource: { by: 'there' } }))
    t.ok(isTrue(conditions, { instances }, { resource: { by: 'there' }, tenant: 'umbra' }))
    for (const tenant of [undefined, 'nowhere'])
      t.notOk(isTrue(conditions, { instances }, { resource: { by: 'here' }, tenant }))
    const empty = { 'resource.by': { object_match: { match: {}, fk_resource_type: 'doctor' } } }
    t.notOk(isTrue(empty, { instances }, { resource: { by: 'nobody' } }), 'who is not there matches nothing')
  },
)

t.test(
  '17: a set needs all of its ancestors, of its own resource; one that is missing fails it, a cycle adds nothing',
  async (t) => {
    const x = { 'user.x': { equals: 1 } }
    const y = { 'user.y': { equals: 1 } }
    const isIn = (
      parent: string | null,
      other: { parent: string | null } | undefined,
      user: Record<string, number>,
    ) =>
      ask(
        onlyIf(
          {},
          {
            userSets: [
              { key: 'some', conditions: x, parent },
              ...(other ? [{ key: 'other', conditions: y, ...other }] : []),
            ],
          },
        ),
        aWorld({ tenants }),
        asks('ann', 'doc:read', { user }),
      )

    t.ok(isIn('other', { parent: null }, { x: 1, y: 1 }))
    t.notOk(isIn('other', { parent: null }, { x: 1 }))
    t.notOk(isIn('other', { parent: null }, { y: 1 }))
    t.notOk(isIn('other', undefined, { x: 1, y: 1 }))
    t.notOk(isIn('other', { parent: 'nothing' }, { x: 1, y: 1 }))
    t.ok(isIn('other', { parent: 'some' }, { x: 1, y: 1 }))
    t.ok(isIn('some', undefined, { x: 1 }))

    const ofAnother = onlyIf(
      {},
      {
        resourceSets: [
          { key: 'these', resource: 'doc', conditions: {}, parent: 'those' },
          { key: 'those', resource: 'folder', conditions: {}, parent: null },
        ],
        rules: [{ users: { set: 'some' }, resources: { set: 'these' }, permission: 'doc:read' }],
      },
    )
    t.notOk(ask(ofAnother, aWorld({ tenants }), asks('ann', 'doc:read')))
  },
)

t.test('18: an expired role is none: it is not held, derives nothing and ends no derivation', async (t) => {
  const policy = aDocument({
    resources: [
      aResource('folder', { roles: [anInstanceRole('owner')] }),
      aResource('doc', {
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [
          anInstanceRole('owner', ['doc:read'], {
            noDirectRolesOnObject: true,
            derivations: [from('owner', 'folder', 'parent')],
          }),
          anInstanceRole('viewer'),
        ],
      }),
    ],
  })
  const instances = [anInstance('doc:d', { subjects: { parent: ['folder:f'] } }), anInstance('folder:f')]
  const mayRead = (on: Parameters<typeof aUser>[1]) =>
    ask(
      policy,
      aWorld({ tenants, instances, users: [aUser('ann', on)] }),
      asks('ann', 'doc:read', { key: 'd' }),
    )

  t.ok(mayRead({ on: { 'folder:f': ['owner'], 'doc:d': [held('viewer', NOW)] } }))
  t.notOk(mayRead({ on: { 'folder:f': ['owner'], 'doc:d': [held('viewer', NOW + 1)] } }))
  t.notOk(mayRead({ on: { 'folder:f': [held('owner', NOW)] } }))
})

t.test(
  '19: any role on the object ends a derivation with no_direct_roles_on_object, also one that says nothing',
  async (t) => {
    const policy = aDocument({
      resources: [
        aResource('doc', {
          relations: [{ key: 'twin', subjectResource: 'doc' }],
          roles: [
            anInstanceRole('owner', ['doc:read'], { derivations: [from('owner', 'doc', 'twin', true)] }),
          ],
        }),
      ],
    })
    const instances = [anInstance('doc:a', { subjects: { twin: ['doc:b'] } }), anInstance('doc:b')]
    const mayRead = (on: Record<string, string[]>) =>
      ask(
        policy,
        aWorld({ tenants, instances, users: [aUser('ann', { on })] }),
        asks('ann', 'doc:read', { key: 'a' }),
      )

    t.ok(mayRead({ 'doc:b': ['owner'] }))
    t.notOk(mayRead({ 'doc:b': ['owner'], 'doc:a': ['whatever'] }))
  },
)

t.test('20: what is more than one decision may look at is a refusal', async (t) => {
  const list = Array.from({ length: MOST_STEPS / 10 }, (_, i) => i)
  const conditions = {
    and: Array.from({ length: 11 }, () => ({ not: { 'user.list': { array_contains: -1 } } })),
  }
  const decision = decide(
    compilePolicy(onlyIf(conditions)),
    factsOf(aWorld({ tenants })),
    asks('ann', 'doc:read', { user: { list } }),
    NOW,
  )

  t.strictSame(decision, { allowed: false, source: undefined, refusal: 'graph_too_large' })
  t.ok(isTrue({ not: { 'user.list': { array_contains: -1 } } }, {}, { user: { list } }))

  // Rules are asked one after the other, so one that matches before the bound is reached allows.
  const [anybody, costly] = ['anybody', 'costly'].map((set) => ({
    users: { set },
    resources: { resource: 'doc' },
    permission: 'doc:read',
  }))
  const userSets = [
    { key: 'anybody', conditions: {}, parent: null },
    {
      key: 'costly',
      conditions: { and: [...conditions.and, { 'user.list': { array_contains: -1 } }] },
      parent: null,
    },
  ]
  const decided = (rules: PolicyDocument['rules']) =>
    decide(
      compilePolicy(onlyIf({}, { userSets, rules })),
      factsOf(aWorld({ tenants })),
      asks('ann', 'doc:read', { user: { list } }),
      NOW,
    )
  if (!anybody || !costly) throw new Error('two rules')
  t.match(decided([anybody, costly]), { allowed: true })
  t.match(decided([costly, anybody]), { allowed: false, refusal: 'graph_too_large' })
})

t.test('21: somebody unknown is judged by what the question says of them', async (t) => {
  const said = { user: { x: 1 } }

  t.ok(isTrue({ 'user.x': { equals: 1 } }, {}, said, 'eve'))
  t.notOk(isTrue({ 'tenant.plan': { equals: 'pro' } }, {}, said, 'eve'))
  t.notOk(isTrue({ 'user.roles': { array_contains: 'admin' } }, {}, said, 'eve'))
})

t.test('22: the name of an action is what it is; its properties are attributes beside it', async (t) => {
  const said = { action: { soft: true, name: 'said' } }

  t.ok(isTrue({ 'action.name': { equals: 'read' }, 'action.soft': { equals: true } }, {}, said))
})
