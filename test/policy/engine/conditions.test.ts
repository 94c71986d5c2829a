import fc from 'fast-check'
import t from 'tap'
import {
  type Bag,
  compileCondition,
  type Scope,
  validateCondition,
} from '../../../src/policy/engine/conditions.ts'
import { condition } from './arbitraries.ts'

type Bags = Partial<Record<Bag, Record<string, unknown>>>
type Stored = Record<string, Record<string, unknown>>

const scopeOf = (bags: Bags, stored: Stored = {}): Scope => ({
  read: (bag, name) => (Object.hasOwn(bags[bag] ?? {}, name) ? bags[bag]?.[name] : undefined),
  stored: (type, key) => stored[`${type}:${key}`],
  spend: () => true,
})

/** Whether a condition that is in order holds. */
function holds(tree: unknown, bags: Bags, stored: Stored = {}): boolean {
  const faults = validateCondition(tree)
  if (faults.length > 0) throw new Error(JSON.stringify(faults))
  return compileCondition(tree).holds(scopeOf(bags, stored))
}

/** An operator, a value of the attribute (`undefined`: it has none), an operand, and whether that holds. */
type Row = [operator: string, value: unknown, operand: unknown, isTrue: boolean]

const EQUALITY: Row[] = [
  ['equals', 'a', 'a', true],
  ['equals', 'a', 'A', false],
  ['equals', '', '', true],
  ['equals', 1, 1, true],
  ['equals', 1, '1', false],
  ['equals', 0, -0, true],
  ['equals', 0, false, false],
  ['equals', 1, true, false],
  ['equals', 'true', true, false],
  ['equals', false, false, true],
  ['equals', null, null, true],
  ['equals', null, false, false],
  ['equals', null, '', false],
  ['equals', undefined, null, false],
  ['equals', undefined, '', false],
  ['equals', [], [], true],
  ['equals', ['a', 'b'], ['a', 'b'], true],
  ['equals', ['a', 'b'], ['b', 'a'], false],
  ['equals', ['a'], 'a', false],
  ['equals', 'a', ['a'], false],
  ['equals', [], {}, false],
  ['equals', {}, [], false],
  ['equals', { a: 1, b: [2, { c: null }] }, { b: [2, { c: null }], a: 1 }, true],
  ['equals', { a: 1 }, { a: 1, b: 2 }, false],
  ['equals', { a: 1, b: 2 }, { a: 1, c: 2 }, false],
  ['equals', { a: null }, {}, false],
  ['equals', {}, { toString: null }, false],
  ['not-equals', 'a', 'b', true],
  ['not-equals', 'a', 'a', false],
  ['not-equals', 1, '1', true],
  ['not-equals', null, 'a', true],
  ['not-equals', [1], [1], false],
  ['not-equals', [1], [2], true],
  ['not-equals', undefined, 'a', false],
  ['not-equals', undefined, null, false],
]

const ORDER: Row[] = [
  ['less-than', 1, 2, true],
  ['less-than', 2, 2, false],
  ['less-than', -1.5, -1, true],
  ['less-than', '1', 2, false],
  ['less-than', null, 2, false],
  ['less-than', true, 2, false],
  ['less-than', [1], 2, false],
  ['less-than', undefined, 2, false],
  ['less-than-equals', 2, 2, true],
  ['less-than-equals', 3, 2, false],
  ['less-than-equals', 'a', 2, false],
  ['greater-than', 3, 2, true],
  ['greater-than', 2, 2, false],
  ['greater-than', '3', 2, false],
  ['greater-than', undefined, 0, false],
  ['greater-than-equals', 2, 2, true],
  ['greater-than-equals', 1, 2, false],
  ['greater-than-equals', null, 0, false],
  ['greater-than-equals', '2027-01-01T00:00:00Z', 0, false],
  ['between', 15, [15, 18], true],
  ['between', 18, [15, 18], true],
  ['between', 14.9, [15, 18], false],
  ['between', 18.1, [15, 18], false],
  ['between', 16, [18, 15], false],
  ['between', '16', [15, 18], false],
  ['between', null, [0, 1], false],
  ['between', undefined, [0, 1], false],
]

const TEXTS_AND_LISTS: Row[] = [
  ['contains', 'ann@permit.io', 'permit.io', true],
  ['contains', 'ann@permit.io', 'Permit', false],
  ['contains', 'ann', '', true],
  ['contains', '', 'a', false],
  ['contains', ['ann'], 'ann', false],
  ['contains', 12, '1', false],
  ['contains', null, '', false],
  ['contains', undefined, '', false],
  ['in', 'a', ['a', 'b'], true],
  ['in', 'c', ['a', 'b'], false],
  ['in', 1, ['1'], false],
  ['in', null, [null], true],
  ['in', 'a', [], false],
  ['in', ['a'], [['a']], true],
  ['in', { x: 1, y: 2 }, [{ y: 2, x: 1 }], true],
  ['in', ['a'], ['a'], false],
  ['in', undefined, [null], false],
  ['array_contains', ['admin', 'editor'], 'admin', true],
  ['array_contains', ['admin'], 'Admin', false],
  ['array_contains', [1], '1', false],
  ['array_contains', [null], null, true],
  ['array_contains', [{ x: [1] }], { x: [1] }, true],
  ['array_contains', [['a']], ['a'], true],
  ['array_contains', [], 'a', false],
  ['array_contains', 'admin', 'admin', false],
  ['array_contains', { 0: 'admin' }, 'admin', false],
  ['array_contains', null, null, false],
  ['array_contains', undefined, null, false],
  ['array_subset', ['a', 'b'], ['a', 'b', 'c'], true],
  ['array_subset', ['a', 'd'], ['a', 'b'], false],
  ['array_subset', ['a', 'a'], ['a'], true],
  ['array_subset', [], [], true],
  ['array_subset', [], ['a'], true],
  ['array_subset', ['a'], [], false],
  ['array_subset', [{ x: 1 }], [{ x: 1 }, 2], true],
  ['array_subset', [1], ['1'], false],
  ['array_subset', 'a', ['a'], false],
  ['array_subset', undefined, ['a'], false],
  ['array_superset', ['a', 'b', 'c'], ['a', 'b'], true],
  ['array_superset', ['a'], ['a', 'b'], false],
  ['array_superset', ['a'], [], true],
  ['array_superset', [], [], true],
  ['array_superset', [[1]], [[1]], true],
  ['array_superset', null, [], false],
  ['array_superset', undefined, [], false],
  ['array_intersect', ['a', 'b', 'c'], ['c', 'd'], true],
  ['array_intersect', ['a'], ['b'], false],
  ['array_intersect', [], [], false],
  ['array_intersect', [{ x: 1 }], [{ x: 1 }], true],
  ['array_intersect', 'c', ['c'], false],
  ['array_intersect', undefined, ['c'], false],
]

const ITEMS = [
  { size: 1, tags: ['a'], of: { kind: 'x' } },
  { size: 3, tags: ['b'], of: { kind: 'x' } },
]
const MATCHES: Row[] = [
  ['object_match', ITEMS[0], { match: { size: { equals: 1 } } }, true],
  ['object_match', ITEMS[0], { match: { size: { equals: 1 }, tags: { array_contains: 'b' } } }, false],
  ['object_match', ITEMS[0], { match: { 'of.kind': { equals: 'x' } } }, true],
  ['object_match', ITEMS[0], { match: { none: { 'not-equals': 1 } } }, false],
  ['object_match', ITEMS[0], { match: { not: { none: { equals: 1 } } } }, true],
  ['object_match', ITEMS[0], { match: { or: [{ size: { equals: 9 } }, { size: { equals: 1 } }] } }, true],
  ['object_match', ITEMS[0], { match: {} }, true],
  ['object_match', [], { match: {} }, false],
  ['object_match', 'text', { match: {} }, false],
  ['object_match', null, { match: {} }, false],
  ['object_match', undefined, { match: {} }, false],
  ['any_match', ITEMS, { match: { size: { 'greater-than': 2 } } }, true],
  ['any_match', ITEMS, { match: { size: { 'greater-than': 3 } } }, false],
  ['any_match', ITEMS, { match: { size: { equals: 1 }, tags: { array_contains: 'b' } } }, false],
  ['any_match', [], { match: {} }, false],
  ['any_match', ['text', 7, null, []], { match: {} }, false],
  ['any_match', ITEMS[0], { match: {} }, false],
  ['any_match', undefined, { match: {} }, false],
  ['all_match', ITEMS, { match: { 'of.kind': { equals: 'x' } } }, true],
  ['all_match', ITEMS, { match: { size: { equals: 1 } } }, false],
  ['all_match', [], { match: { size: { equals: 1 } } }, true],
  ['all_match', [...ITEMS, 'text'], { match: {} }, false],
  ['all_match', null, { match: {} }, false],
  ['all_match', undefined, { match: {} }, false],
  [
    'any_match',
    [{ parts: [{ x: 1 }] }],
    { match: { parts: { any_match: { match: { x: { equals: 1 } } } } } },
    true,
  ],
]

for (const [name, rows] of Object.entries({ EQUALITY, ORDER, TEXTS_AND_LISTS, MATCHES })) {
  t.test(`every operator has its meaning: ${name.toLowerCase().replaceAll('_', ' ')}`, async (t) => {
    for (const [operator, value, operand, isTrue] of rows) {
      const bags = { resource: value === undefined ? {} : { a: value } }
      const row = `${JSON.stringify(value)} ${operator} ${JSON.stringify(operand)}`

      t.equal(holds({ 'resource.a': { [operator]: operand } }, bags), isTrue, row)
      t.equal(holds({ not: { 'resource.a': { [operator]: operand } } }, bags), !isTrue, `not ${row}`)
      if (operator.endsWith('_match')) continue
      const withRef = { 'resource.a': { [operator]: { ref: 'context.b' } } }
      t.equal(holds(withRef, { ...bags, context: { b: operand } }), isTrue, `${row} by ref`)
      t.equal(holds(withRef, bags), false, `${row} by a ref to nothing`)
    }
  })
}

t.test('a ref to a value of the wrong type holds for nothing', async (t) => {
  for (const [operator, value, wrong] of [
    ['less-than', 1, '2'],
    ['between', 1, [0]],
    ['between', 1, [0, '2']],
    ['contains', 'a', 1],
    ['in', 'a', 'a'],
    ['in', 'a', { a: 'a' }],
    ['array_subset', ['a'], 'a'],
    ['array_superset', ['a'], null],
    ['array_intersect', ['a'], { 0: 'a' }],
  ] as const)
    t.notOk(
      holds({ 'user.a': { [operator]: { ref: 'user.b' } } }, { user: { a: value, b: wrong } }),
      operator,
    )
})

t.test('logical operators combine: lists, aliases, several entries, attributes first', async (t) => {
  const user = { age: 16, level: 3, city: 'Ulm' }
  const yes = { 'user.age': { equals: 16 } }
  const no = { 'user.age': { equals: 17 } }

  for (const [tree, isTrue] of [
    [{}, true],
    [{ allOf: [] }, true],
    [{ and: [] }, true],
    [{ anyOf: [] }, false],
    [{ or: [] }, false],
    [{ not: {} }, false],
    [{ allOf: [{ allOf: [] }] }, true],
    [{ allOf: [yes, {}] }, true],
    [{ and: [yes, no] }, false],
    [{ anyOf: [no, yes] }, true],
    [{ or: [no, no] }, false],
    [{ not: yes }, false],
    [{ not: { not: yes } }, true],
    [{ ...yes, 'user.level': { equals: 3 } }, true],
    [{ ...yes, 'user.level': { equals: 4 } }, false],
    [{ ...yes, not: yes }, false],
    [{ allOf: [yes], anyOf: [no] }, false],
    [{ 'user.age': { 'greater-than': 15, 'less-than': 17 } }, true],
    [{ 'user.age': { 'greater-than': 15, 'less-than': 16 } }, false],
    [{ 'user.age': { or: [{ between: [15, 18] }, { 'greater-than': 40 }] } }, true],
    [{ 'user.age': { anyOf: [{ between: [1, 2] }, { 'greater-than': 40 }] } }, false],
    [{ 'user.age': { and: [{ between: [15, 18] }, { not: { equals: 17 } }] } }, true],
    [{ 'user.none': { not: { equals: 1 } } }, true],
  ] as const)
    t.equal(holds(tree, { user }), isTrue, JSON.stringify(tree))
})

t.test('bags go by their aliases', async (t) => {
  const bags: Bags = {
    user: { x: 1 },
    resource: { x: 2 },
    tenant: { x: 3 },
    context: { x: 4 },
    action: { x: 5 },
  }
  const expected = {
    user: 1,
    subject: 1,
    resource: 2,
    tenant: 3,
    context: 4,
    environment: 4,
    env: 4,
    action: 5,
  }

  for (const [bag, value] of Object.entries(expected)) {
    t.ok(holds({ [`${bag}.x`]: { equals: value } }, bags), bag)
    t.ok(
      holds(
        { 'context.x': { equals: 4 }, 'resource.x': { in: { ref: `${bag}.list` } } },
        {
          ...bags,
          ...Object.fromEntries(Object.entries(bags).map(([name, bag]) => [name, { ...bag, list: [2] }])),
        },
      ),
      `ref to ${bag}`,
    )
  }
})

t.test('dots lead into objects where no attribute has them in its name', async (t) => {
  const path = (name: string) => ({ [`user.${name}`]: { equals: 'Ulm' } })

  t.ok(holds(path('address.city'), { user: { address: { city: 'Ulm' } } }))
  t.ok(holds(path('a.b.c.d'), { user: { a: { b: { c: { d: 'Ulm' } } } } }))
  t.ok(holds(path('address.city'), { user: { 'address.city': 'Ulm', address: { city: 'Bonn' } } }))
  t.notOk(holds(path('address.city'), { user: { 'address.city': 'Bonn', address: { city: 'Ulm' } } }))
  t.notOk(holds(path('address.city'), { user: { 'address.city': null, address: { city: 'Ulm' } } }))
  t.notOk(holds(path('address.city'), { user: { address: 'Ulm' } }))
  t.notOk(holds(path('address.city'), { user: { address: null } }))
  t.notOk(holds(path('list.0'), { user: { list: ['Ulm'] } }), 'lists have no names')
  t.notOk(holds({ 'user.list.length': { equals: 1 } }, { user: { list: ['Ulm'] } }))
  t.notOk(holds({ 'user.text.length': { equals: 3 } }, { user: { text: 'Ulm' } }))
})

t.test('only what an object itself holds is read', async (t) => {
  const names = [
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    '__proto__.polluted',
    'constructor.name',
  ]

  for (const name of names) {
    const isThere = { [`user.${name}`]: { not: { equals: { ref: `user.${name}` } } } }
    t.ok(holds(isThere, { user: {} }), `${name} of nothing`)
    t.ok(
      holds(
        { 'user.o': { object_match: { match: { not: { [name]: { 'not-equals': 1 } } } } } },
        { user: { o: {} } },
      ),
    )
  }
  const user = JSON.parse('{"__proto__":"mine","constructor":{"name":"too"}}')
  t.ok(holds(JSON.parse('{"user.__proto__":{"equals":"mine"}}'), { user }))
  t.ok(holds({ 'user.constructor.name': { equals: 'too' } }, { user }))
})

t.test('refs inside match lead to the attributes outside', async (t) => {
  const tree = { 'resource.lines': { any_match: { match: { owner: { equals: { ref: 'user.key' } } } } } }

  t.ok(holds(tree, { user: { key: 'ann' }, resource: { lines: [{ owner: 'bob' }, { owner: 'ann' }] } }))
  t.notOk(holds(tree, { user: { key: 'eve' }, resource: { lines: [{ owner: 'bob' }, { owner: 'ann' }] } }))
})

t.test(
  'fk_resource_type matches the stored attributes of the instances that an attribute names',
  async (t) => {
    const stored = { 'doctor:d1': { ok: true }, 'doctor:d2': { ok: false }, 'nurse:d2': { ok: true } }
    const matching = (operator: string, value: unknown) =>
      holds(
        { 'resource.by': { [operator]: { match: { ok: { equals: true } }, fk_resource_type: 'doctor' } } },
        { resource: { by: value } },
        stored,
      )

    for (const [operator, value, isTrue] of [
      ['object_match', 'd1', true],
      ['object_match', 'd2', false],
      ['object_match', 'd3', false],
      ['object_match', '', false],
      ['object_match', { ok: true }, false],
      ['object_match', ['d1'], false],
      ['any_match', ['d2', 'd1'], true],
      ['any_match', ['d2', 'd3'], false],
      ['any_match', 'd1', false],
      ['any_match', [{ ok: true }], false],
      ['all_match', ['d1', 'd1'], true],
      ['all_match', ['d1', 'd3'], false],
      ['all_match', ['d1', 1], false],
      ['all_match', [], true],
    ] as const)
      t.equal(matching(operator, value), isTrue, `${JSON.stringify(value)} ${operator}`)
  },
)

t.test('a condition tells what it reads', async (t) => {
  const condition = compileCondition({
    allOf: [{ 'subject.age': { equals: { ref: 'env.age' } } }],
    'resource.by': {
      object_match: { match: { x: { equals: { ref: 'tenant.x' } } }, fk_resource_type: 'doctor' },
    },
  })

  t.strictSame([...condition.references].sort(), ['context.age', 'resource.by', 'tenant.x', 'user.age'])
  t.strictSame([...condition.lookups], ['doctor'])
})

t.test('roles held on instances are only asked for where they can matter', async (t) => {
  const needs = (tree: unknown) => compileCondition(tree).needsInstanceRoles

  for (const tree of [
    { 'user.age': { equals: 1 } },
    { 'user.roles': { array_contains: 'admin' } },
    { not: { 'user.roles': { array_superset: ['admin', 'editor'] } } },
    { 'subject.roles': { array_intersect: ['admin'] } },
    { 'resource.roles': { array_contains: 'doc#owner' } },
  ])
    t.notOk(needs(tree), JSON.stringify(tree))
  for (const tree of [
    { 'user.roles': { array_contains: 'doc#owner' } },
    { 'user.roles': { array_intersect: ['admin', 'doc#owner'] } },
    { 'user.roles': { array_subset: ['admin'] } },
    { 'user.roles': { equals: ['admin'] } },
    { 'user.roles': { 'not-equals': ['admin'] } },
    { 'user.roles': { array_contains: { ref: 'resource.role' } } },
    { 'user.roles': { or: [{ array_contains: 'doc#owner' }] } },
    { 'resource.role': { in: { ref: 'user.roles' } } },
  ])
    t.ok(needs(tree), JSON.stringify(tree))
})

t.test('a faulty condition is told where it is so', async (t) => {
  for (const [tree, pointer] of [
    [null, ''],
    [[], ''],
    ['user.x', ''],
    [{ age: { equals: 1 } }, '/age'],
    [{ 'users.age': { equals: 1 } }, '/users.age'],
    [{ 'user.': { equals: 1 } }, '/user.'],
    [{ '': {} }, '/'],
    [{ 'user.age': 1 }, '/user.age'],
    [{ 'user.age': {} }, '/user.age'],
    [{ 'user.age': null }, '/user.age'],
    [{ 'user.age': { equal: 1 } }, '/user.age/equal'],
    [{ 'user.age': { __proto__x: 1 } }, '/user.age/__proto__x'],
    [{ 'user.age': { constructor: 1 } }, '/user.age/constructor'],
    [{ 'user.age': { ref: 'user.x' } }, '/user.age/ref'],
    [{ 'user.age': { 'less-than': '1' } }, '/user.age/less-than'],
    [{ 'user.age': { between: [1] } }, '/user.age/between'],
    [{ 'user.age': { between: [1, '2'] } }, '/user.age/between'],
    [{ 'user.age': { between: [1, { ref: 'user.x' }] } }, '/user.age/between'],
    [{ 'user.age': { contains: 1 } }, '/user.age/contains'],
    [{ 'user.age': { in: 'a' } }, '/user.age/in'],
    [{ 'user.age': { array_subset: 'a' } }, '/user.age/array_subset'],
    [{ 'user.age': { equals: { ref: 'age' } } }, '/user.age/equals/ref'],
    [{ 'user.age': { equals: { ref: 1 } } }, '/user.age/equals/ref'],
    [{ allOf: {} }, '/allOf'],
    [{ anyOf: 'x' }, '/anyOf'],
    [{ allOf: [{}, 1] }, '/allOf/1'],
    [{ not: [] }, '/not'],
    [{ not: { 'user.a~b/c': {} } }, '/not/user.a~0b~1c'],
    [{ 'user.a': { or: [{ equals: 1 }, { nope: 1 }] } }, '/user.a/or/1/nope'],
    [{ 'user.a': { any_match: {} } }, '/user.a/any_match/match'],
    [{ 'user.a': { any_match: [] } }, '/user.a/any_match'],
    [{ 'user.a': { any_match: { match: {}, x: 1 } } }, '/user.a/any_match'],
    [{ 'user.a': { any_match: { match: { x: { nope: 1 } } } } }, '/user.a/any_match/match/x/nope'],
    [{ 'user.a': { any_match: { match: {}, fk_resource_type: '' } } }, '/user.a/any_match/fk_resource_type'],
    [{ 'user.a': { any_match: { match: {}, fk_resource_type: 1 } } }, '/user.a/any_match/fk_resource_type'],
  ] as const) {
    const faults = validateCondition(tree)

    t.strictSame(
      faults.map((fault) => fault.pointer),
      [pointer],
      JSON.stringify(tree),
    )
    t.notOk(compileCondition(tree).holds(scopeOf({})))
  }
  t.equal(validateCondition({ a: {}, b: {}, 'user.c': { d: 1, e: 1 } }).length, 4, 'all faults are told')
})

t.test('nothing holds by a fault, whatever stands around it', async (t) => {
  const bogus = { 'user.x': { bogus: 1 } }

  for (const tree of [
    { not: bogus },
    { anyOf: [{}, bogus] },
    { not: { not: bogus } },
    { not: { allOf: [bogus] } },
  ])
    t.notOk(compileCondition(tree).holds(scopeOf({ user: { x: 1 } })), JSON.stringify(tree))
})

const nested = (levels: number, wrap: (inner: unknown) => unknown, innermost: unknown = {}): unknown => {
  let tree = innermost
  for (let level = 0; level < levels; level++) tree = wrap(tree)
  return tree
}

t.test('what is nested too deeply or is too large is refused, in bounded time', async (t) => {
  const refused: Record<string, unknown> = {
    'a hundred levels of not': nested(100, (not) => ({ not })),
    'a hundred levels of lists': nested(100, (inner) => ({ allOf: [inner] })),
    'a hundred thousand levels': nested(100_000, (not) => ({ not })),
    'a hundred levels of match': nested(100, (x) => ({ any_match: { match: { x } } }), { equals: 1 }),
    'an operand of a hundred levels': { 'user.x': { equals: nested(100, (x) => [x]) } },
    'an operand of a hundred thousand levels': { 'user.x': { equals: nested(100_000, (x) => ({ x })) } },
    'a megabyte of conditions': {
      anyOf: Array.from({ length: 50_000 }, () => ({ 'user.x': { equals: 1 } })),
    },
    'a megabyte of attributes': Object.fromEntries(
      Array.from({ length: 50_000 }, (_, i) => [`user.x${i}`, { equals: 1 }]),
    ),
    'a megabyte of faults': Object.fromEntries(
      Array.from({ length: 50_000 }, (_, i) => [`x${i}`, { equals: 1 }]),
    ),
    'a megabyte in one list': { 'user.x': { in: Array.from({ length: 300_000 }, (_, i) => i) } },
    'a megabyte in lists': Object.fromEntries(
      Array.from({ length: 500 }, (_, i) => [`user.x${i}`, { in: Array.from({ length: 500 }, (_, n) => n) }]),
    ),
    'a name of a megabyte': { [`user.${'x'.repeat(1_000_000)}`]: { a: 1, b: 1 } },
    'a ref of a megabyte': { 'user.x': { equals: { ref: `user.${'x'.repeat(1_000_000)}` } } },
    'a million in a list of the wrong kind': {
      'user.x': { between: Array.from({ length: 1_000_000 }, () => 0) },
    },
  }

  for (const [name, tree] of Object.entries(refused)) {
    const begun = performance.now()
    const faults = validateCondition(tree)

    t.ok(performance.now() - begun < 30_000, `${name}: in time`)
    t.ok(faults.length > 0 && faults.length <= 100, `${name}: refused, with ${faults.length} faults`)
    t.ok(JSON.stringify(faults).length < 100_000, `${name}: briefly`)
    t.notOk(compileCondition(tree).holds(scopeOf({ user: { x: 1 } })), `${name}: never holds`)
  }
})

t.test('what is large but within the bounds is a condition', async (t) => {
  t.ok(
    holds(
      nested(15, (inner) => ({ allOf: [inner] })),
      {},
    ),
  )
  t.ok(holds({ allOf: Array.from({ length: 300 }, () => ({ 'user.x': { equals: 1 } })) }, { user: { x: 1 } }))
  t.ok(holds({ 'user.x': { in: Array.from({ length: 9_999 }, (_, i) => i) } }, { user: { x: 9_998 } }))
})

t.test('values nested as deeply as a request can say are compared without harm', async (t) => {
  const deep = () => nested(200_000, (x) => [x])

  t.ok(holds({ 'user.a': { equals: { ref: 'context.b' } } }, { user: { a: deep() }, context: { b: deep() } }))
  t.notOk(
    holds({ 'user.a': { equals: { ref: 'context.b' } } }, { user: { a: deep() }, context: { b: [deep()] } }),
  )
  t.ok(
    holds(
      { 'user.a': { array_subset: { ref: 'context.b' } } },
      { user: { a: [deep()] }, context: { b: [deep()] } },
    ),
  )
})

t.test('any condition is either in order or never holds, and asking never throws', async () => {
  const bags = fc.record({ user: fc.object(), resource: fc.object(), context: fc.object() })

  fc.assert(
    fc.property(condition, bags, (tree, { user, resource, context }) => {
      const isFaulty = validateCondition(tree).length > 0
      const isTrue = compileCondition(tree).holds(scopeOf({ user, resource, context } as Bags))

      return isFaulty === JSON.stringify(tree).includes('"bogus"') && !(isFaulty && isTrue)
    }),
    { numRuns: 2000 },
  )
})

t.test('any JSON at all is either in order or refused, and never throws', async () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), (tree) => {
      const isFaulty = validateCondition(tree).length > 0

      return !(isFaulty && compileCondition(tree).holds(scopeOf({})))
    }),
    { numRuns: 2000 },
  )
})
