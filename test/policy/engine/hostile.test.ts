import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import { explain } from '../../../src/policy/engine/explain.ts'
import { holdingsInTenant, holdingsOnInstance } from '../../../src/policy/engine/lists.ts'
import type { PolicyDocument, Question } from '../../../src/policy/engine/model.ts'
import { document, world } from './arbitraries.ts'
import {
  aDocument,
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

const anyText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    '',
    '__proto__',
    'constructor',
    'doc',
    'read',
    'ann',
    'acme',
    '1',
    'doc:1',
    '\u0000',
    '\ud800',
    'doc#owner',
  ),
)
const anyAttributes = fc.option(fc.object({ key: anyText, maxDepth: 3 }), { nil: undefined })

const anyQuestion: fc.Arbitrary<Question> = fc.record({
  user: fc.record({ key: anyText, attributes: anyAttributes }),
  action: fc.record({ name: anyText, properties: anyAttributes }),
  resource: fc.record({
    type: anyText,
    key: fc.option(anyText, { nil: undefined }),
    tenant: fc.option(anyText, { nil: undefined }),
    attributes: anyAttributes,
  }),
  context: anyAttributes,
})

t.test('no question makes the engine throw', async () => {
  fc.assert(
    fc.property(document, world, anyQuestion, (policy, stored, question) => {
      const compiled = compilePolicy(policy)
      const facts = factsOf(stored)

      assert.deepEqual(
        explain(compiled, facts, question, NOW).decision,
        decide(compiled, facts, question, NOW),
      )
    }),
    { numRuns: 800 },
  )
})

t.test('attributes that are no JSON objects are none', async (t) => {
  const policy = compilePolicy(
    aDocument({
      resources: [aResource('doc')],
      userSets: [
        {
          key: 'some',
          conditions: { not: { 'user.x': { equals: 1 } }, 'context.0': { equals: 1 } },
          parent: null,
        },
      ],
      rules: [{ users: { set: 'some' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
    }),
  )

  for (const attributes of [null, 'text', 7, [1], [[1]], true, 10n, Symbol('x'), () => 1]) {
    const question = asks('ann', 'doc:read', { context: attributes as never, user: attributes as never })
    t.notOk(decide(policy, factsOf(aWorld()), question, NOW).allowed)
  }
})

t.test('values that are no JSON are equal to nothing, and harm nothing', async (t) => {
  const policy = compilePolicy(
    aDocument({
      resources: [aResource('doc')],
      userSets: [
        {
          key: 'some',
          conditions: {
            or: [
              { 'user.x': { equals: { a: 1 } } },
              { 'user.x': { in: [[1], { a: 1 }, 2] } },
              { 'user.x': { array_subset: [{ a: 1 }] } },
            ],
          },
          parent: null,
        },
      ],
      rules: [{ users: { set: 'some' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
    }),
  )

  for (const x of [
    10n,
    Symbol('x'),
    () => 1,
    new Date(),
    Number.NaN,
    [10n],
    [Symbol('x')],
    { a: 10n },
    [{ a: Symbol('x') }],
  ])
    t.notOk(decide(policy, factsOf(aWorld()), asks('ann', 'doc:read', { user: { x } }), NOW).allowed)
})

t.test('names that every object has are names like others', async (t) => {
  for (const name of [
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'valueOf',
    'ключ',
    '🔑',
    ' ',
  ]) {
    const policy = (permissions: string[]) =>
      compilePolicy(
        aDocument({
          resources: [
            aResource(name, {
              actions: [name],
              relations: [{ key: name, subjectResource: name }],
              roles: [anInstanceRole(name, permissions, { derivations: [from(name, name, name)] })],
            }),
          ],
          roles: [aRole(name, permissions, [name])],
        }),
      )
    const permission = `${name}:${name}`
    const facts = factsOf(
      aWorld({
        tenants: [aTenant(name)],
        users: [
          {
            ...aUser(name),
            tenantRoles: new Map([[name, [held(name)]]]),
            instanceRoles: new Map([[`${name}:2`, [held(name)]]]),
          },
        ],
        instances: [
          {
            id: 'i1',
            type: name,
            key: '1',
            tenant: name,
            attributes: {},
            subjects: new Map([[name, [`${name}:2`]]]),
          },
          { id: 'i2', type: name, key: '2', tenant: name, attributes: {}, subjects: new Map() },
        ],
      }),
    )

    t.equal(
      decide(policy([permission]), facts, asks(name, permission, { tenant: name }), NOW).source,
      'rbac',
      name,
    )
    t.notOk(decide(policy([]), facts, asks(name, permission, { tenant: name, key: '1' }), NOW).allowed, name)
    t.notOk(
      decide(policy([permission]), factsOf(aWorld()), asks(name, permission, { tenant: name }), NOW).allowed,
      name,
    )
    const user = facts.user(name)
    const tenant = facts.tenant(name)
    const instance = facts.instance(`${name}:1`)
    if (!user || !tenant || !instance) throw new Error('the world has them')
    t.strictSame([...holdingsInTenant(policy([permission]), user, tenant, NOW).permissions], [permission])
    const holdings = holdingsOnInstance(policy([permission]), facts, user, instance, NOW)
    t.strictSame(holdings === 'graph_too_large' ? [] : holdings.roles, [name])
  }
})

t.test('a long chain of parents, and one that ends in itself, is followed without harm', async (t) => {
  const length = 5000
  const roles = Array.from({ length }, (_, i) =>
    aRole(`r${i}`, i === length - 1 ? ['doc:read'] : [], [`r${(i + 1) % length}`]),
  )
  const sets = Array.from({ length }, (_, i) => ({
    key: `s${i}`,
    conditions: {},
    parent: `s${(i + 1) % length}`,
  }))
  const policy: PolicyDocument = aDocument({
    resources: [aResource('doc')],
    roles,
    userSets: sets,
    rules: [{ users: { set: 's0' }, resources: { resource: 'doc' }, permission: 'doc:write' }],
  })
  const facts = factsOf(
    aWorld({ tenants: [aTenant('acme')], users: [aUser('ann', { roles: { acme: ['r0'] } })] }),
  )

  t.ok(decide(compilePolicy(policy), facts, asks('ann', 'doc:read'), NOW).allowed)
  t.ok(decide(compilePolicy(policy), facts, asks('ann', 'doc:write'), NOW).allowed)
})

t.test('what costs more than one decision may do ends in a refusal, in bounded time', async (t) => {
  const many = (length: number, entry: (index: number) => Record<string, unknown>) => ({
    or: Array.from({ length }, (_, i) => entry(i)),
  })
  const numbers = Array.from({ length: 200_000 }, (_, i) => i)
  const items = numbers.map((x) => ({ x }))
  const text = 'x'.repeat(1_000_000)

  for (const [name, conditions, attributes] of [
    [
      'many comparisons for many items',
      { 'user.items': { any_match: { match: many(300, (i) => ({ x: { equals: -1 - i } })) } } },
      { items },
    ],
    [
      'many looks at one list',
      many(300, (i) => ({ 'user.numbers': { array_contains: -1 - i } })),
      { numbers },
    ],
    [
      'many lists against each other',
      many(300, () => ({ 'user.numbers': { array_intersect: { ref: 'context.b' } } })),
      { numbers },
    ],
    ['objects among objects', { 'user.items': { array_subset: { ref: 'context.items' } } }, { items }],
    [
      'large values, over and over',
      many(300, () => ({ 'user.items': { equals: { ref: 'context.almost' } } })),
      { items },
    ],
    [
      'large values inside others, over and over',
      many(300, () => ({ 'user.deep': { equals: { ref: 'context.deep' } } })),
      { deep: { items } },
    ],
    [
      'an object of many names, over and over',
      many(300, () => ({ 'user.wide': { equals: { a: 1 } } })),
      { wide: Object.fromEntries(numbers.map((i) => [`n${i}`, i])) },
    ],
    [
      'a large text, over and over',
      { 'user.list': { any_match: { match: many(300, () => ({ x: { contains: 'y' } })) } } },
      { list: Array.from({ length: 10 }, () => ({ x: text })) },
    ],
    [
      'instances without number',
      { 'user.numbers': { any_match: { match: {}, fk_resource_type: 'doc' } } },
      { numbers: numbers.map(String) },
    ],
  ] as const) {
    const policy = compilePolicy(
      aDocument({
        resources: [aResource('doc')],
        userSets: [{ key: 'some', conditions: { not: conditions }, parent: null }],
        rules: [{ users: { set: 'some' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
      }),
    )
    const question = asks('ann', 'doc:read', {
      user: attributes,
      context: {
        b: numbers.map((i) => -1 - i),
        items: items.toReversed(),
        almost: [...items.slice(0, -1), { x: -1 }],
        deep: { items: [{ x: -1 }, ...items.slice(1)] },
      },
    })
    const facts = factsOf(aWorld({ tenants: [aTenant('acme')] }))
    const begun = performance.now()

    t.equal(decide(policy, facts, question, NOW).refusal, 'graph_too_large', name)
    t.equal(explain(policy, facts, question, NOW).abac?.code, 'graph_too_large', name)
    t.ok(performance.now() - begun < 30_000, `${name}: in time`)
  }
})

t.test('a rule that could not be judged to its end is no reason to allow', async (t) => {
  const policy = compilePolicy(
    aDocument({
      resources: [aResource('doc')],
      roles: [aRole('reader', ['doc:read'])],
      userSets: [
        {
          key: 'some',
          conditions: {
            not: { 'user.items': { any_match: { match: { x: { in: [-1] }, y: { in: [-1] } } } } },
          },
          parent: null,
        },
      ],
      rules: [{ users: { set: 'some' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
    }),
  )
  const facts = factsOf(
    aWorld({ tenants: [aTenant('acme')], users: [aUser('ann', { roles: { acme: ['reader'] } })] }),
  )
  const question = asks('ann', 'doc:read', {
    user: { items: Array.from({ length: 600_000 }, () => ({ x: 1 })) },
  })
  const { decision, allowingSources } = explain(policy, facts, question, NOW)

  t.equal(decision.source, 'rbac')
  t.strictSame(allowingSources, ['rbac'])
})
