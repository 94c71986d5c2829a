import fc from 'fast-check'
import type {
  Attributes,
  ConditionTree,
  HeldRole,
  InstanceFacts,
  PolicyDocument,
  Question,
  ResourceDefinition,
  ResourceRoleDefinition,
  ResourceSetDefinition,
  RoleDefinition,
  RuleDefinition,
  TenantFacts,
  UserFacts,
  UserSetDefinition,
} from '../../../src/policy/engine/model.ts'
import { NOW, type World } from './builders.ts'

/*
 * Small policies and worlds over few names, so that grants, questions and conditions meet. Some names are those of
 * properties that every object has.
 */

const TYPES = ['doc', 'folder', '__proto__']
const ACTIONS = ['read', 'constructor']
const ROLES = ['owner', 'éditeur', 'toString']
const TENANTS = ['acme', 'hasOwnProperty']
const USERS = ['ann', '__proto__']
const KEYS = ['1', 'constructor']
const RELATIONS = ['parent', 'valueOf']
const SETS = ['A', 'B', 'C']
const NAMES = ['x', 'x', 'x', 'y', '__proto__', 'o', 'o.x', 'list', 'key', 'roles', 'type', 'name']

const type = fc.constantFrom(...TYPES, 'doc', 'doc')
const action = fc.constantFrom(...ACTIONS, 'read', 'read')
const role = fc.constantFrom(...ROLES)
const tenant = fc.constantFrom('acme', 'acme', ...TENANTS)
const relation = fc.constantFrom(...RELATIONS)
const instanceName = fc.tuple(type, fc.constantFrom(...KEYS)).map(([of, key]) => `${of}:${key}`)
const PERMISSIONS = TYPES.flatMap((of) => ACTIONS.map((name) => `${of}:${name}`))
const permission = fc.tuple(type, action).map(([of, name]) => `${of}:${name}`)
const permissions = fc.subarray(PERMISSIONS, { minLength: 1, maxLength: 5 })
const few = <T>(one: fc.Arbitrary<T>, maxLength = 3): fc.Arbitrary<T[]> =>
  fc.array(one, { maxLength, size: 'max' })
const seldom = <T>(one: T, otherwise: T): fc.Arbitrary<T> =>
  fc.integer({ min: 0, max: 14 }).map((n) => (n === 7 ? one : otherwise))

const scalar = fc.constantFrom<unknown>(1, 2, 0.5, 'a', 'ab', '1', 'constructor', true, false, null)
const value = fc.oneof(
  { weight: 4, arbitrary: scalar },
  fc.array(fc.oneof(scalar, fc.constantFrom({ x: 1 }, { x: 'a' })), { maxLength: 3 }),
  fc.constantFrom<unknown>({ x: 1 }, { x: 'a', y: [1] }, { x: { x: 1 } }, {}),
)

/** An object that holds these names itself, whatever they are. */
const objectOf = (entries: readonly (readonly [string, unknown])[]): Attributes => Object.fromEntries(entries)
const attributes = fc.array(fc.tuple(fc.constantFrom(...NAMES), value), { maxLength: 5 }).map(objectOf)

const bag = fc.constantFrom(
  'user',
  'subject',
  'resource',
  'tenant',
  'context',
  'environment',
  'env',
  'action',
)
const path = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(bag, fc.constantFrom(...NAMES)).map(([of, name]) => `${of}.${name}`) },
  fc.constantFrom('user.roles', 'user.tenants', 'resource.key', 'tenant.key', 'user.o.x', 'user.key'),
)
const reference = path.map((ref) => ({ ref }))
const or = (constant: fc.Arbitrary<unknown>) => fc.oneof({ weight: 4, arbitrary: constant }, reference)
const list = fc.oneof(
  fc.array(scalar, { maxLength: 3 }),
  few(
    fc.oneof(
      role,
      role.map((name) => `doc#${name}`),
      tenant,
    ),
  ),
)
const operand = fc.oneof(
  { weight: 8, arbitrary: value.filter((one) => JSON.stringify(one).includes('ref') === false) },
  role,
  fc.tuple(type, role).map(([of, name]) => `${of}#${name}`),
)

const comparison = fc.oneof(
  fc.tuple(fc.constantFrom('equals', 'not-equals', 'array_contains'), or(operand)),
  fc.tuple(
    fc.constantFrom('less-than', 'less-than-equals', 'greater-than', 'greater-than-equals'),
    or(fc.constantFrom(0, 1, 2)),
  ),
  fc.tuple(fc.constant('between'), or(fc.constantFrom([0, 1], [1, 2], [2, 1]))),
  fc.tuple(fc.constant('contains'), or(fc.constantFrom('a', 'b', ''))),
  fc.tuple(fc.constantFrom('in', 'array_subset', 'array_superset', 'array_intersect'), or(list)),
)

const isolated = comparison.map((entry) => objectOf([entry]))
const match = fc
  .tuple(
    fc.constantFrom('object_match', 'any_match', 'all_match'),
    fc
      .array(fc.tuple(fc.constantFrom('x', 'y', '__proto__', 'o.x'), isolated), { maxLength: 2 })
      .map(objectOf),
    fc.option(type, { nil: undefined }),
  )
  .map(([name, inner, fk]): [string, unknown] => [
    name,
    { match: inner, ...(fk !== undefined && { fk_resource_type: fk }) },
  ])

const operators = fc.oneof(
  { weight: 8, arbitrary: isolated },
  { weight: 2, arbitrary: match.map((entry) => objectOf([entry])) },
  fc.array(comparison, { minLength: 2, maxLength: 2 }).map(objectOf),
  fc
    .tuple(fc.constantFrom('or', 'anyOf', 'allOf', 'and'), few(isolated, 2))
    .map((entry) => objectOf([entry])),
  isolated.map((inner) => ({ not: inner })),
)

const leaf = fc.oneof(
  { weight: 20, arbitrary: fc.tuple(path, operators).map((entry) => objectOf([entry])) },
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.constantFrom('user.x', 'resource.x', 'context.x', 'tenant.x'), fc.constantFrom(1, 'a', true))
      .map(([name, equals]): Attributes => ({ [name]: { equals } })),
  },
  {
    weight: 6,
    arbitrary: fc
      .oneof(
        role,
        fc.tuple(type, role).map(([of, name]) => `${of}#${name}`),
      )
      .map((name): Attributes => ({ 'user.roles': { array_contains: name } })),
  },
  { weight: 1, arbitrary: path.map((name): Attributes => ({ [name]: { bogus: 1 } })) },
)

/** Condition trees, now and then a faulty one (with an operator `bogus`). */
export const condition: fc.Arbitrary<ConditionTree> = fc.letrec<{ tree: ConditionTree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { weight: 6, arbitrary: leaf },
    { weight: 2, arbitrary: fc.constant({}) },
    { weight: 1, arbitrary: fc.tuple(leaf, leaf).map(([one, other]) => ({ ...one, ...other })) },
    { weight: 2, arbitrary: fc.array(tie('tree'), { maxLength: 3 }).map((allOf) => ({ allOf })) },
    { weight: 2, arbitrary: fc.array(tie('tree'), { maxLength: 3 }).map((anyOf) => ({ or: anyOf })) },
    { weight: 2, arbitrary: tie('tree').map((not) => ({ not })) },
  ),
})).tree

/** Condition trees that speak of neither roles nor accounts. */
const isApart = (tree: ConditionTree): boolean => !/\.roles|\.tenants|"tenant\./.test(JSON.stringify(tree))

const uniqueByKey = <T extends { readonly key: string }>(one: fc.Arbitrary<T>, maxLength: number) =>
  fc.uniqueArray(one, { selector: ({ key }) => key, minLength: 1, maxLength, size: 'max' })

const roleDefinition: fc.Arbitrary<RoleDefinition> = fc.record({
  key: role,
  permissions,
  extends: few(fc.oneof(role, fc.constant('nobody')), 2),
})

const derivation = fc.record({
  role: fc.oneof({ weight: 9, arbitrary: role }, fc.constant('nobody')),
  onResource: fc.oneof({ weight: 9, arbitrary: type }, fc.constant('nothing')),
  linkedByRelation: relation,
  noDirectRolesOnObject: seldom(true, false),
})

const resourceRole: fc.Arbitrary<ResourceRoleDefinition> = fc.record({
  key: role,
  permissions,
  extends: few(fc.oneof(role, fc.constant('nobody')), 2),
  derivations: few(derivation, 4),
  noDirectRolesOnObject: seldom(true, false),
})

const resource = (key: string): fc.Arbitrary<ResourceDefinition> =>
  fc.record({
    key: fc.constant(key),
    actions: fc.oneof({ weight: 9, arbitrary: fc.constant(ACTIONS) }, fc.subarray(ACTIONS)),
    roles: uniqueByKey(resourceRole, 3),
    relations: uniqueByKey(fc.record({ key: relation, subjectResource: type }), 2),
  })

const setParts = (conditions: fc.Arbitrary<ConditionTree>) => ({
  key: fc.constantFrom(...SETS),
  conditions,
  parent: fc.oneof(
    { weight: 5, arbitrary: fc.constant(null) },
    { weight: 2, arbitrary: fc.constantFrom(...SETS) },
    { weight: 1, arbitrary: fc.constant('none') },
  ),
})
const userSet = (conditions: fc.Arbitrary<ConditionTree>): fc.Arbitrary<UserSetDefinition> =>
  fc.record(setParts(conditions))
const resourceSet = (conditions: fc.Arbitrary<ConditionTree>): fc.Arbitrary<ResourceSetDefinition> =>
  fc.record({ ...setParts(conditions), resource: type })

/** Rules, some of them about what is not there. */
export const rule: fc.Arbitrary<RuleDefinition> = fc.record({
  users: fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...SETS).map((set) => ({ set })) },
    role.map((name) => ({ role: name })),
    fc.tuple(type, role).map(([of, name]) => ({ role: `${of}#${name}` })),
  ),
  resources: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...SETS).map((set) => ({ set })) },
    { weight: 2, arbitrary: type.map((of) => ({ resource: of })) },
  ),
  permission,
})

const documentWith = (conditions: fc.Arbitrary<ConditionTree>): fc.Arbitrary<PolicyDocument> =>
  fc.record({
    resources: fc
      .tuple(fc.tuple(...TYPES.map(resource)), seldom(1, 0))
      .map(([resources, missing]) => resources.slice(missing)),
    roles: uniqueByKey(roleDefinition, 3),
    userSets: uniqueByKey(userSet(conditions), 3),
    resourceSets: uniqueByKey(resourceSet(conditions), 3),
    rules: fc.array(rule, { minLength: 2, maxLength: 8, size: 'max' }),
  })

export const document = documentWith(condition)
/** Policies whose conditions speak of neither roles nor accounts. */
export const documentApart = documentWith(condition.filter(isApart))

/** As often true as not. */
const side: fc.Arbitrary<ConditionTree> = fc.oneof(
  condition,
  condition.map((not) => ({ not })),
  fc.constant({}),
)

/** Policies in which one rule about `doc:read` decides, by conditions on both sides. */
export const ruleAlone: fc.Arbitrary<PolicyDocument> = fc
  .record({
    users: side,
    resources: side,
    parent: fc.oneof(fc.constant(null), side),
    roles: uniqueByKey(resourceRole, 3),
  })
  .map(({ users, resources, parent, roles }) => ({
    resources: [
      { key: 'doc', actions: ['read'], roles, relations: [{ key: 'parent', subjectResource: 'doc' }] },
      { key: 'folder', actions: [], roles: [], relations: [] },
    ],
    roles: [],
    userSets: [
      { key: 'A', conditions: users, parent: parent && 'B' },
      ...(parent ? [{ key: 'B', conditions: parent, parent: null }] : []),
    ],
    resourceSets: [{ key: 'C', resource: 'doc', conditions: resources, parent: null }],
    rules: [{ users: { set: 'A' }, resources: { set: 'C' }, permission: 'doc:read' }],
  }))

const expiry = fc.constantFrom(undefined, undefined, undefined, undefined, NOW - 1, NOW, NOW + 1)
const heldRole: fc.Arbitrary<HeldRole> = fc.record({ role, expiresAt: expiry })
const rolesBy = (place: fc.Arbitrary<string>, maxLength: number) =>
  fc
    .array(fc.tuple(place, few(heldRole)), { minLength: 1, maxLength, size: 'max' })
    .map((entries) => new Map(entries))

const user = (key: string): fc.Arbitrary<UserFacts> =>
  fc.record({
    id: fc.constant(`id-${key}`),
    key: fc.constant(key),
    isActive: seldom(false, true),
    attributes,
    tenants: fc.uniqueArray(tenant),
    tenantRoles: rolesBy(tenant, 2),
    everywhere: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, few(heldRole, 1)),
    instanceRoles: rolesBy(instanceName, 8),
  })

const tenantFacts = (key: string): fc.Arbitrary<TenantFacts> =>
  fc.record({
    id: fc.constant(`id-${key}`),
    key: fc.constant(key),
    isActive: seldom(false, true),
    attributes,
  })

const instance = (name: string): fc.Arbitrary<InstanceFacts> => {
  const [of = '', key = ''] = name.split(':')
  return fc.record({
    id: fc.constant(`id-${key}`),
    type: fc.constant(of),
    key: fc.constant(key),
    tenant: fc.oneof({ weight: 4, arbitrary: fc.constant('acme') }, tenant),
    attributes,
    subjects: fc
      .array(fc.tuple(relation, few(instanceName)), { minLength: 1, maxLength: 2, size: 'max' })
      .map((entries) => new Map(entries)),
  })
}

const INSTANCES = TYPES.flatMap((of) => KEYS.map((key) => `${of}:${key}`))

/** What is stored: mostly everybody, every account and every instance that there is a name for. */
export const world: fc.Arbitrary<World> = fc.record({
  users: fc.tuple(...USERS.map(user)),
  tenants: fc.tuple(...TENANTS.map(tenantFacts)).chain((all) => fc.subarray(all, { minLength: 1 })),
  instances: fc.tuple(...INSTANCES.map(instance)).chain((all) => fc.subarray(all, { minLength: 3 })),
})

/** Questions by key or id, a few about what is not there. */
export const question: fc.Arbitrary<Question> = fc.record({
  user: fc.record({
    key: fc.oneof(
      { weight: 7, arbitrary: fc.constantFrom(...USERS) },
      { weight: 1, arbitrary: fc.constantFrom('id-ann', 'eve', 'constructor') },
    ),
    attributes: fc.option(attributes, { nil: undefined }),
  }),
  action: fc.record({
    name: fc.oneof({ weight: 40, arbitrary: action }, fc.constantFrom('toString', '')),
    properties: fc.option(attributes, { nil: undefined }),
  }),
  resource: fc.record({
    type: fc.oneof({ weight: 40, arbitrary: type }, fc.constantFrom('toString', '')),
    key: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom<string | undefined>(...KEYS) },
      { weight: 2, arbitrary: fc.constantFrom(undefined, '', 'id-1', 'toString') },
    ),
    tenant: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom<string | undefined>('acme', 'acme', 'hasOwnProperty') },
      { weight: 2, arbitrary: fc.constantFrom(undefined, '', 'id-acme', 'nowhere') },
    ),
    attributes: fc.option(attributes, { nil: undefined }),
  }),
  context: fc.option(attributes, { nil: undefined }),
})

/** Parts of which further grants are made. */
export const parts = {
  permission,
  permissions,
  type,
  role,
  tenant,
  instanceName,
  relation,
  heldRole,
  derivation,
}

/** Questions about reading a document. */
export const questionAboutDoc: fc.Arbitrary<Question> = question.map((asked) => ({
  ...asked,
  action: { ...asked.action, name: 'read' },
  resource: { ...asked.resource, type: 'doc' },
}))
