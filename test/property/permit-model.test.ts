import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Method } from '../helpers/app.ts'
import {
  type DerivationBody,
  type GrantBody,
  OR,
  PermitModel,
  Refused,
  type ResourceBody,
  type RoleBody,
  type RuleBody,
  type TupleBody,
} from '../helpers/permit-model.ts'

type Response = Awaited<ReturnType<Client['send']>>
type Real = { client: Client; facts: string; schema: string }

/** A request, and what the model makes of it: what must be in the answer, if it is not refused. */
type Step = {
  method: Method
  path: string
  body?: object
  status?: number
  /** What must be of the answer exactly what the model says. */
  shown?: (response: Response) => unknown
  model: (model: PermitModel) => unknown
}

const TENANTS = ['default', 't1', 't2']
const USERS = ['u1', 'u2', 'u3']
const TYPES = ['r1', 'r2']
const ACTIONS = ['read', 'write']
const ROLES = ['p', 'q']
const INSTANCES = ['r1:a', 'r1:b', 'r2:a', 'r2:b']
const CONDITIONS: Record<string, Record<string, unknown>> = {
  grown: { 'user.age': { 'greater-than': 17 } },
  all: {},
  readers: { 'user.roles': { array_contains: 'p' } },
  drafts: { 'resource.draft': { equals: true } },
  first: { 'resource.key': { equals: 'a' } },
  far: {},
}
const SETS = Object.keys(CONDITIONS)
/** Sets of what is not among them are of users. */
const SET_RESOURCES: Record<string, string> = { drafts: 'r1', first: 'r1', far: 'r2' }
const PERMISSIONS = TYPES.flatMap((type) => ACTIONS.map((action) => `${type}:${action}`))

const QUESTIONS = TENANTS.flatMap((tenant) =>
  USERS.flatMap((user) =>
    [...TYPES, ...INSTANCES].flatMap((ref) =>
      ACTIONS.map((name) => {
        const [type = '', key] = ref.split(':')
        return { user: { key: user }, action: { name }, resource: { type, tenant, ...(key && { key }) } }
      }),
    ),
  ),
)
const ASKED = QUESTIONS.map((question) => ({ ...question, action: question.action.name }))

/** What is no fact. */
const IN_SCHEMA = /^\/(roles|resources|condition_sets|bulk\/roles|users\/attributes)/

function fail(what: string, actual: unknown, expected: unknown): never {
  throw new Error(`${what}: ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`)
}

/** True when everything in `expected` is in `actual`. */
function has(actual: unknown, expected: unknown): boolean {
  if (Array.isArray(expected) || typeof expected !== 'object' || expected === null)
    return isDeepStrictEqual(actual, expected)
  return (
    typeof actual === 'object' &&
    actual !== null &&
    Object.entries(expected).every(([name, value]) => has(Reflect.get(actual, name), value))
  )
}

async function assertDecisions(model: PermitModel, { client }: Real): Promise<void> {
  const response = await client.post('/allowed/bulk', ASKED)
  const answers = response.json<{ allow: { allow: boolean }[] }>().allow.map(({ allow }) => allow)
  const isAllowed = model.decider()
  for (const [at, question] of QUESTIONS.entries()) {
    const expected = isAllowed(question)
    if (answers[at] !== expected) fail(JSON.stringify(ASKED[at]), answers[at], expected)
  }
  const at = Math.max(answers.indexOf(true), 0)
  const alone = (await client.post('/allowed', ASKED[at])).json<{ allow: boolean }>().allow
  if (alone !== answers[at]) fail(`alone, ${JSON.stringify(ASKED[at])}`, alone, answers[at])
}

class Request implements fc.AsyncCommand<PermitModel, Real> {
  readonly step: Step
  /** Whether it is sent also when it will be refused: most are not, so that much is done. */
  readonly isBold: boolean
  constructor(step: Step, isBold: boolean) {
    this.step = step
    this.isBold = isBold
  }
  check = (model: PermitModel) => this.isBold || !model.refuses(this.step.model)
  async run(model: PermitModel, real: Real): Promise<void> {
    const { method, path, body, status = 200, shown } = this.step
    const url = `${IN_SCHEMA.test(path) ? real.schema : real.facts}${path}`
    const expected = model.attempt(this.step.model)

    const response = await real.client.send(method, url, body)

    const answer = response.body === '' ? {} : response.json<Record<string, unknown>>()
    if (typeof expected === 'string') {
      const refusal = [response.statusCode, answer['error_code'] ?? []].flat().join(' ')
      if (!expected.split(OR).includes(refusal)) fail(String(this), `${refusal} ${response.body}`, expected)
    } else {
      const isNew = expected === true && method === 'PUT'
      if (response.statusCode !== (isNew ? 201 : status)) fail(String(this), response.body, status)
      const found = shown?.(response)
      if (shown && !isDeepStrictEqual(found, expected)) fail(String(this), found, expected)
      if (!shown && typeof expected === 'object' && !has(answer, expected))
        fail(String(this), answer, expected)
    }
    if (method !== 'GET') await assertDecisions(model, real)
  }
  toString(): string {
    const { method, path, body } = this.step
    return `${method} ${path}${body ? ` ${JSON.stringify(body)}` : ''}`
  }
}

const tenant = fc.constantFrom('default', 'default', ...TENANTS)
const user = fc.constantFrom('u1', ...USERS)
const type = fc.constantFrom(...TYPES)
const role = fc.constantFrom(...ROLES)
const action = fc.constantFrom(...ACTIONS)
const instance = fc.constantFrom(...INSTANCES)
const relation = fc.constantFrom('in', 'of')
const age = fc.constantFrom(10, 40)
const invite = fc.constantFrom('i1', 'i2')
const aSet = fc.constantFrom('grown', 'all', 'drafts', 'first', ...SETS)
const several = <T>(all: readonly T[]) => fc.subarray([...all])
const maybe = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined })
const some = { maxLength: 2 }
const attributes = (value: number | undefined) => (value === undefined ? {} : { attributes: { age: value } })

const anyGrant: fc.Arbitrary<GrantBody> = fc
  .record({ user, role, tenant: maybe(tenant), resource_instance: maybe(instance) })
  .map(({ tenant: at, resource_instance: on, ...rest }) => ({
    ...rest,
    ...(at !== undefined && { tenant: at }),
    ...(on !== undefined && { resource_instance: on }),
  }))
/** Most often fit to be, as what follows. */
const grant = fc.oneof(
  fc.record({ user, role, tenant: fc.constant('default') }),
  fc.record({ user, role, resource_instance: instance }),
  anyGrant,
)
/** In a tenant, as a user comes with it. */
const ownGrants = fc.array(fc.record({ role, tenant }), some)
const people = fc.uniqueArray(fc.record({ key: user, years: maybe(age), grants: ownGrants }), {
  selector: ({ key }) => key,
  ...some,
})
const fitTuple = fc.record({
  subject: fc.constantFrom('r1:a', 'r1:b'),
  relation: fc.constant('in'),
  object: instance,
  tenant: fc.constant('default'),
})
const tuple: fc.Arbitrary<Required<TupleBody>> = fc.oneof(
  fitTuple,
  fc.record({ subject: instance, relation, object: instance, tenant }),
)
const derivationEnds = fc.oneof(
  fc.record({ role, on_resource: fc.constant('r1'), linked_by_relation: fc.constant('in') }),
  fc.record({ role, on_resource: type, linked_by_relation: relation }),
)
const when = fc.record({ no_direct_roles_on_object: fc.boolean() })
const derivation: fc.Arbitrary<DerivationBody> = fc
  .tuple(derivationEnds, maybe(when))
  .map(([ends, settings]) => ({ ...ends, ...(settings && { when: settings }) }))
/** As a role of a resource is written: most often fit to be. */
const roleBody = (permissions: readonly string[]): fc.Arbitrary<RoleBody> =>
  fc.record(
    {
      permissions: several(permissions),
      extends: fc.oneof(several<string>([]), several(ROLES)),
      granted_to: fc.record(
        { when, users_with_role: fc.array(derivation, { maxLength: 1 }) },
        { requiredKeys: [] },
      ),
    },
    { requiredKeys: [] },
  )
const mapOf = <T>(keys: readonly string[], one: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> =>
  several(keys).chain((drawn) => fc.record(Object.fromEntries(drawn.map((key) => [key, one]))))
const attributeType = fc.constantFrom('string', 'number')
const label = fc.constantFrom('A', 'B')
const parts: fc.Arbitrary<ResourceBody> = fc.record(
  {
    actions: fc.oneof(
      fc.constant({ read: {}, write: { name: 'A' } }),
      mapOf(ACTIONS, fc.record({ name: label })),
    ),
    attributes: mapOf(['size', 'kind'], fc.record({ type: attributeType })),
    relations: fc.oneof(fc.constant({ in: 'r1' }), mapOf(['in', 'of'], type)),
    roles: mapOf(ROLES, roleBody(ACTIONS)),
  },
  { requiredKeys: [] },
)
const operation = fc
  .tuple(maybe(type), role, roleBody(['r1:read', 'r1:write', 'r2:read']))
  .map(([resource, key, { granted_to: granted, ...body }]) =>
    resource === undefined
      ? { key, ...body }
      : { key, resource, ...body, ...(granted && { granted_to: granted }) },
  )
const rule: fc.Arbitrary<RuleBody> = fc.oneof(
  fc.record({
    user_set: fc.constantFrom('grown', 'all', 'readers'),
    permission: fc.constantFrom('r1:read', 'r1:write'),
    resource_set: fc.constantFrom('r1', 'drafts', 'first'),
    is_role: fc.constant(false),
    is_resource: fc.constant(false),
  }),
  fc.record({
    user_set: fc.constantFrom('grown', ...SETS, ...ROLES, 'r1#p', 'r2#p'),
    permission: fc.constantFrom(...PERMISSIONS),
    resource_set: fc.constantFrom('drafts', 'first', ...TYPES, ...SETS),
    is_role: fc.boolean(),
    is_resource: fc.boolean(),
  }),
)

/** A role as it is shown, its lists in order. */
const roleShown = ({ permissions, extends: parents, granted_to: granted }: RoleAnswer) => ({
  permissions: [...permissions].sort(),
  extends: parents,
  alone: granted?.when.no_direct_roles_on_object ?? false,
  derivations: (granted?.users_with_role ?? [])
    .map(({ when: { no_direct_roles_on_object: alone }, ...one }) => endsOf({ ...one, alone }))
    .sort(),
})
type RoleAnswer = {
  permissions: string[]
  extends: string[]
  granted_to: { when: When; users_with_role: (Required<DerivationBody> & { when: When })[] } | null
}
type When = { no_direct_roles_on_object: boolean }
const endsOf = (one: { role: string; on_resource: string; linked_by_relation: string; alone: boolean }) =>
  `${one.role} of ${one.on_resource} by ${one.linked_by_relation}${one.alone ? ' alone' : ''}`
const inRole = (response: Response) => roleShown(response.json<RoleAnswer>())

/** The same of the model. */
function roleOf({ roles, resources }: PermitModel, key: string, of?: string) {
  const {
    permissions,
    extends: parents,
    derivations,
    alone,
  } = (of === undefined ? roles : resources.get(of)?.roles)?.get(key) ?? refused()
  return {
    permissions: permissions
      .map((one) => (one.startsWith(`${of}:`) ? one.slice(`${of}:`.length) : one))
      .sort(),
    extends: parents,
    alone,
    derivations: derivations.map(endsOf).sort(),
  }
}

type ResourceAnswer = {
  key: string
  actions: Record<string, { name: string }>
  action_groups: Record<string, string[]>
  attributes: Record<string, { type: string }>
  relations: Record<string, { resource: string }>
  roles: Record<string, RoleAnswer>
}
const mapped = <T, Shown>(map: Record<string, T>, show: (one: T) => Shown): Record<string, Shown> =>
  Object.fromEntries(Object.entries(map).map(([key, one]) => [key, show(one)]))
const sorted = (list: readonly string[]) => [...list].sort()
const resourceShown = (one: ResourceAnswer) => ({
  key: one.key,
  actions: mapped(one.actions, ({ name }) => name),
  groups: mapped(one.action_groups, sorted),
  attributes: mapped(one.attributes, ({ type: kind }) => kind),
  relations: mapped(one.relations, ({ resource }) => resource),
  roles: mapped(one.roles, roleShown),
})
const inResource = (response: Response) => resourceShown(response.json<ResourceAnswer>())

function resourceOf(model: PermitModel, key: string) {
  const { actions, groups, attributes: own, relations, roles } = model.resources.get(key) ?? refused()
  return {
    key,
    actions: Object.fromEntries(actions),
    groups: mapped(Object.fromEntries(groups), sorted),
    attributes: Object.fromEntries(own),
    relations: Object.fromEntries(relations),
    roles: Object.fromEntries([...roles.keys()].map((one) => [one, roleOf(model, one, key)])),
  }
}

const draw = <T>(drawn: fc.Arbitrary<T>, make: (drawn: T) => Step, weight = 4) => ({
  arbitrary: fc.tuple(drawn, fc.nat(7)).map(([one, caution]) => new Request(make(one), caution === 0)),
  weight,
})
/** The weight of what can seldom be done, because it takes much that must be there. */
const SELDOM = 12

const rolesOf = (of: string | undefined) => (of === undefined ? '/roles' : `/resources/${of}/roles`)
const attributesOf = (of: string | undefined) =>
  of === undefined ? '/users/attributes' : `/resources/${of}/attributes`

const WRITES = [
  draw(fc.tuple(tenant, fc.constantFrom('A', 'B')), ([key, name]) => ({
    method: 'POST',
    path: '/tenants',
    body: { key, name },
    model: (m) => {
      m.createTenant(key, name)
      return { key, name, attributes: null }
    },
  })),
  draw(tenant, (key) => ({
    method: 'PATCH',
    path: `/tenants/${key}`,
    body: { name: 'C' },
    model: (m) => {
      m.renameTenant(key, 'C')
      return { key, name: 'C' }
    },
  })),
  draw(fc.tuple(user, maybe(age), ownGrants), ([key, years, grants]) => ({
    method: 'POST',
    path: '/users',
    body: { key, ...attributes(years), role_assignments: grants },
    model: (m) => {
      m.createUser(key, years, grants)
      return { key }
    },
  })),
  draw(fc.tuple(user, maybe(age), ownGrants), ([key, years, grants]) => ({
    method: 'PUT',
    path: `/users/${key}`,
    body: { key, email: undefined, ...attributes(years), role_assignments: grants },
    model: (m) => m.syncUser(key, years, grants),
  })),
  draw(fc.tuple(user, age), ([key, years]) => ({
    method: 'PATCH',
    path: `/users/${key}`,
    body: attributes(years),
    model: (m) => {
      m.updateUser(key, years)
      return { key, ...attributes(years) }
    },
  })),
  draw(fc.tuple(tenant, user, maybe(age), ownGrants), ([at, key, years, grants]) => ({
    method: 'POST',
    path: `/tenants/${at}/users`,
    body: { key, ...attributes(years), role_assignments: grants },
    model: (m) => {
      m.addToTenant(at, key, years, grants)
      return { key }
    },
  })),
  draw(fc.tuple(tenant, user), ([at, key]) => ({
    method: 'DELETE',
    path: `/tenants/${at}/users/${key}`,
    status: 204,
    model: (m) => m.removeFromTenant(at, key),
  })),
  draw(
    grant,
    (body) => ({
      method: 'POST',
      path: '/role_assignments',
      body,
      model: (m) => {
        m.assign(body)
        return body
      },
    }),
    SELDOM,
  ),
  draw(
    grant,
    (body) => ({
      method: 'DELETE',
      path: '/role_assignments',
      body,
      status: 204,
      model: (m) => m.unassign(body),
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(grant, fc.boolean()),
    ([{ user: key, ...body }, isGiven]) => ({
      method: isGiven ? 'POST' : 'DELETE',
      path: `/users/${key}/roles`,
      body,
      status: isGiven ? 200 : 204,
      model: (m) => {
        if (!isGiven) return m.unassign({ user: key, ...body })
        m.assign({ user: key, ...body })
        return { user: key, ...body }
      },
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(fc.array(grant, { maxLength: 4 }), fc.constantFrom('fail', 'ignore', 'create')),
    ([body, missing]) => ({
      method: 'POST',
      path: `/role_assignments/bulk?missing_user_policy=${missing}`,
      body,
      model: (m) => ({ assignments_created: m.assignAll(body, missing) }),
    }),
  ),
  draw(fc.array(grant, { maxLength: 4 }), (body) => ({
    method: 'DELETE',
    path: '/role_assignments/bulk',
    body,
    model: (m) => ({ assignments_removed: m.unassignAll(body) }),
  })),
  draw(fc.tuple(people, fc.boolean()), ([all, isReplaced]) => ({
    method: isReplaced ? 'PUT' : 'POST',
    path: '/bulk/users',
    body: {
      operations: all.map(({ key, years, grants }) => ({
        key,
        ...attributes(years),
        role_assignments: grants,
      })),
    },
    model: (m) => {
      const known = all.filter(({ key }) => m.users.has(key))
      if (known.length > 0 && !isReplaced) throw new Refused('409 DUPLICATE_ENTITY')
      for (const { key } of all) if (!m.users.has(key)) m.createUser(key, undefined, [])
      // What those have who were there is listed first.
      for (const one of new Set([...known, ...all])) m.syncUser(one.key, one.years, one.grants)
      return {}
    },
  })),
  draw(fc.uniqueArray(tenant, { maxLength: 2 }), (keys) => ({
    method: 'POST',
    path: '/bulk/tenants',
    body: { operations: keys.map((key) => ({ key, name: key })) },
    model: (m) => {
      for (const key of keys) m.createTenant(key, key)
      return {}
    },
  })),
  draw(
    fc.uniqueArray(fc.record({ ref: instance, at: tenant, draft: fc.boolean() }), {
      selector: ({ ref }) => ref,
      maxLength: 3,
    }),
    (things) => ({
      method: 'PUT',
      path: '/bulk/resource_instances',
      body: {
        operations: things.map(({ ref, at, draft }) => {
          const [resource, key] = ref.split(':')
          return { resource, key, tenant: at, attributes: { draft } }
        }),
      },
      model: (m) => {
        m.replaceInstances(things.map(({ ref, at, draft }) => ({ ref, tenant: at, draft })))
        return {}
      },
    }),
  ),
  draw(
    fc.tuple(maybe(type), role, role, fc.boolean()),
    ([of, key, parent, isParent]) => ({
      method: isParent ? 'PUT' : 'DELETE',
      path: `${rolesOf(of)}/${key}/parents/${parent}`,
      shown: inRole,
      model: (m) => {
        m.setParent(key, parent, isParent, of)
        return roleOf(m, key, of)
      },
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(role, several(PERMISSIONS), several(ROLES)),
    ([key, permissions, parents]) => {
      const others = parents.filter((parent) => parent !== key)
      return {
        method: 'POST',
        path: '/roles',
        body: { key, name: key, permissions, extends: others },
        model: (m) => {
          m.createRole(key, { permissions, extends: others })
          return { key, permissions, extends: others }
        },
      }
    },
    SELDOM,
  ),
  draw(
    fc.tuple(maybe(type), role, several(PERMISSIONS), fc.boolean()),
    ([of, key, permissions, isGiven]) => ({
      method: isGiven ? 'POST' : 'DELETE',
      path: `${rolesOf(of)}/${key}/permissions`,
      body: { permissions },
      shown: inRole,
      model: (m) => {
        if (isGiven) m.givePermissions(key, permissions, of)
        else m.takePermissions(key, permissions, of)
        return roleOf(m, key, of)
      },
    }),
  ),
  draw(
    fc.uniqueArray(operation, {
      selector: ({ key, ...body }) => ('resource' in body ? `${body.resource}#${key}` : key),
      maxLength: 3,
    }),
    (operations) => ({
      method: 'PUT',
      path: '/bulk/roles',
      body: { operations },
      shown: (response) => response.json(),
      model: (m) => m.putRoles(operations),
    }),
  ),
  draw(
    fc.tuple(type, parts),
    ([key, body]) => ({
      method: 'POST',
      path: '/resources',
      body: { key, name: key, ...body },
      shown: inResource,
      model: (m) => {
        m.createResource(key, body)
        return resourceOf(m, key)
      },
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(type, parts, fc.boolean()),
    ([key, body, isWhole]) => ({
      method: isWhole ? 'PUT' : 'PATCH',
      path: `/resources/${key}`,
      body: { name: key, ...body },
      shown: inResource,
      model: (m) => {
        if (isWhole) m.replaceResource(key, body)
        else m.updateResource(key, body)
        return resourceOf(m, key)
      },
    }),
    SELDOM,
  ),
  draw(fc.tuple(type, action, label), ([key, one, name]) => ({
    method: 'POST',
    path: `/resources/${key}/actions`,
    body: { key: one, name },
    model: (m) => {
      m.createAction(key, one, name)
      return { permission_name: `${key}:${one}`, name }
    },
  })),
  draw(fc.tuple(type, action, label), ([key, one, name]) => ({
    method: 'PATCH',
    path: `/resources/${key}/actions/${one}`,
    body: { name },
    model: (m) => {
      m.renameAction(key, one, name)
      return { key: one, name }
    },
  })),
  draw(
    fc.tuple(type, several(ACTIONS), fc.boolean()),
    ([key, actions, isNew]) => ({
      method: isNew ? 'POST' : 'PATCH',
      path: `/resources/${key}/action_groups${isNew ? '' : '/group'}`,
      body: { ...(isNew && { key: 'group', name: 'Group' }), actions },
      shown: (response) => sorted(response.json<{ actions: string[] }>().actions),
      model: (m) => {
        if (isNew) m.createGroup(key, 'group', actions)
        else m.setGroup(key, 'group', actions)
        return actions
      },
    }),
    SELDOM,
  ),
  draw(fc.tuple(maybe(type), attributeType, fc.boolean()), ([of, kind, isNew]) => ({
    method: isNew ? 'POST' : 'PATCH',
    path: `${attributesOf(of)}${isNew ? '' : '/size'}`,
    body: { ...(isNew && { key: 'size' }), type: kind },
    model: (m) => {
      if (isNew) m.createAttribute(of, 'size', kind)
      else m.updateAttribute(of, 'size', kind)
      return { key: 'size', type: kind }
    },
  })),
  draw(
    fc.tuple(type, role, roleBody(PERMISSIONS), fc.boolean()),
    ([of, key, body, isNew]) => ({
      method: isNew ? 'POST' : 'PATCH',
      path: `/resources/${of}/roles${isNew ? '' : `/${key}`}`,
      body: { ...(isNew && { key }), name: key, ...body },
      shown: inRole,
      model: (m) => {
        if (isNew) m.createRole(key, body, of)
        else m.updateRole(key, body, of)
        return roleOf(m, key, of)
      },
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(type, role, derivation),
    ([of, key, body]) => ({
      method: 'POST',
      path: `/resources/${of}/roles/${key}/implicit_grants`,
      body,
      model: (m) => {
        m.derive(of, key, body)
        return body
      },
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(type, role, derivationEnds),
    ([of, key, body]) => ({
      method: 'DELETE',
      path: `/resources/${of}/roles/${key}/implicit_grants`,
      body,
      status: 204,
      model: (m) => m.underive(of, key, body),
    }),
    SELDOM,
  ),
  draw(fc.tuple(type, role, fc.boolean()), ([of, key, alone]) => ({
    method: 'PUT',
    path: `/resources/${of}/roles/${key}/implicit_grants/conditions`,
    body: { no_direct_roles_on_object: alone },
    model: (m) => {
      m.deriveOnlyAlone(of, key, alone)
      return { no_direct_roles_on_object: alone }
    },
  })),
  draw(fc.tuple(type, relation, type), ([of, key, subject]) => ({
    method: 'POST',
    path: `/resources/${of}/relations`,
    body: { key, name: key, subject_resource: subject },
    model: (m) => {
      m.createRelation(of, key, subject)
      return { subject_resource: subject, object_resource: of }
    },
  })),
  draw(
    fc.tuple(instance, tenant, fc.boolean()),
    ([ref, at, draft]) => {
      const [resource, key] = ref.split(':')
      return {
        method: 'POST',
        path: '/resource_instances',
        body: { key, resource, tenant: at, attributes: { draft } },
        model: (m) => {
          m.createInstance(ref, at, draft)
          return { key, resource, tenant: at, attributes: { draft } }
        },
      }
    },
    SELDOM,
  ),
  draw(fc.tuple(instance, fc.boolean()), ([ref, draft]) => ({
    method: 'PATCH',
    path: `/resource_instances/${ref}`,
    body: { attributes: { draft } },
    model: (m) => {
      m.updateInstance(ref, draft)
      return { attributes: { draft } }
    },
  })),
  draw(instance, (ref) => ({
    method: 'DELETE',
    path: `/resource_instances/${ref}`,
    status: 204,
    model: (m) => m.deleteInstance(ref),
  })),
  draw(
    fc.tuple(tuple, fc.boolean()),
    ([{ tenant: at, ...ends }, isPlaced]) => {
      const body = { ...ends, ...(isPlaced && { tenant: at }) }
      return {
        method: 'POST',
        path: '/relationship_tuples',
        body,
        model: (m) => {
          m.createTuple(body)
          return ends
        },
      }
    },
    SELDOM,
  ),
  draw(
    tuple,
    ({ tenant: _, ...body }) => ({
      method: 'DELETE',
      path: '/relationship_tuples',
      body,
      status: 204,
      model: (m) => m.deleteTuple(body),
    }),
    SELDOM,
  ),
  draw(fc.array(tuple, { maxLength: 3 }), (operations) => ({
    method: 'POST',
    path: '/relationship_tuples/bulk',
    body: { operations },
    model: (m) => {
      m.createTuples(operations)
      return {}
    },
  })),
  draw(fc.array(tuple, some), (tuples) => {
    const idents = tuples.map(({ tenant: _, ...ends }) => ends)
    return {
      method: 'DELETE',
      path: '/relationship_tuples/bulk',
      body: { idents },
      model: (m) => {
        m.deleteTuples(idents)
        return {}
      },
    }
  }),
  draw(
    fc.tuple(aSet, fc.option(aSet), maybe(type)),
    ([key, parent, stray]) => {
      const conditions = CONDITIONS[key] ?? {}
      const own = SET_RESOURCES[key]
      const resource = own && (stray ?? own)
      return {
        method: 'POST',
        path: '/condition_sets',
        body: {
          key,
          name: key,
          conditions,
          parent_id: parent,
          ...(resource && { type: 'resourceset', resource_id: resource }),
        },
        model: (m) => {
          m.createSet(key, { conditions, resource: resource ?? null, parent })
          return { key, conditions, resource: resource && { key: resource } }
        },
      }
    },
    SELDOM,
  ),
  draw(
    fc.tuple(aSet, maybe(fc.option(aSet)), maybe(fc.boolean())),
    ([key, parent, isOpen]) => {
      const conditions = isOpen === undefined ? undefined : isOpen ? {} : CONDITIONS[key]
      const changes = { ...(conditions && { conditions }), ...(parent !== undefined && { parent }) }
      return {
        method: 'PATCH',
        path: `/condition_sets/${key}`,
        body: { conditions, ...(parent !== undefined && { parent_id: parent }) },
        model: (m) => {
          m.updateSet(key, changes)
          return { key, ...(conditions && { conditions }), ...(parent === null && { parent_id: null }) }
        },
      }
    },
    SELDOM,
  ),
  draw(aSet, (key) => ({
    method: 'DELETE',
    path: `/condition_sets/${key}`,
    status: 204,
    model: (m) => m.deleteSet(key),
  })),
  draw(
    rule,
    (body) => ({
      method: 'POST',
      path: '/set_rules',
      body,
      model: (m) => ({ length: m.allow(body) ? 1 : 0 }),
    }),
    SELDOM,
  ),
  draw(
    rule,
    (body) => ({
      method: 'DELETE',
      path: '/set_rules',
      body,
      status: 204,
      model: (m) => m.disallow(body),
    }),
    SELDOM,
  ),
  draw(
    fc.tuple(invite, fc.constantFrom(...ROLES, 'r1#p', 'r2#p'), tenant, maybe(instance)),
    ([key, role_id, tenant_id, on]) => {
      const body = {
        key,
        email: `${key}@x.test`,
        role_id,
        tenant_id,
        ...(on && { resource_instance_id: on }),
      }
      return {
        method: 'POST',
        path: '/user_invites',
        body,
        model: (m) => {
          m.createInvite(body)
          return { key, email: body.email, status: 'pending' }
        },
      }
    },
    SELDOM,
  ),
  draw(
    fc.tuple(invite, user),
    ([key, by]) => ({
      method: 'POST',
      path: `/user_invites/${key}/approve`,
      body: { email: `${key}@x.test`, key: by },
      model: (m) => {
        m.approveInvite(key, `${key}@x.test`, by)
        return { key: by, email: `${key}@x.test` }
      },
    }),
    SELDOM,
  ),
  draw(fc.tuple(fc.constantFrom('x', 'y'), label, fc.boolean()), ([key, name, isNew]) => ({
    method: isNew ? 'POST' : 'PATCH',
    path: `/proxy_configs${isNew ? '' : `/${key}`}`,
    body: {
      ...(isNew && { key }),
      name,
      mapping_rules: [{ url: `/${name}`, http_method: 'get', resource: 'r1' }],
    },
    model: (m) => {
      if (isNew) m.createProxy(key, name, [`/${name}`])
      else m.updateProxy(key, { name, urls: [`/${name}`] })
      return { key, name }
    },
  })),
]

const endMany = (
  one: fc.Arbitrary<string>,
  path: string,
  end: (model: PermitModel, idents: readonly string[]) => void,
) =>
  draw(fc.array(one, some), (idents) => ({
    method: 'DELETE',
    path,
    body: { idents },
    model: (m) => {
      end(m, idents)
      return {}
    },
  }))

/** What much hangs on ends, or is made anew. */
const ENDS = [
  endMany(tenant, '/bulk/tenants', (m, idents) => m.deleteTenants(idents)),
  endMany(user, '/bulk/users', (m, idents) => m.deleteUsers(idents)),
  endMany(instance, '/bulk/resource_instances', (m, idents) => m.deleteInstances(idents)),
  draw(invite, (key) => ({
    method: 'DELETE',
    path: `/user_invites/${key}`,
    status: 204,
    model: (m) => m.deleteInvite(key),
  })),
  draw(fc.constantFrom('x', 'y'), (key) => ({
    method: 'DELETE',
    path: `/proxy_configs/${key}`,
    status: 204,
    model: (m) => m.deleteProxy(key),
  })),
  draw(type, (key) => ({
    method: 'DELETE',
    path: `/resources/${key}/action_groups/group`,
    status: 204,
    model: (m) => m.deleteGroup(key, 'group'),
  })),
  draw(maybe(type), (of) => ({
    method: 'DELETE',
    path: `${attributesOf(of)}/size`,
    status: 204,
    model: (m) => m.deleteAttribute(of, 'size'),
  })),
  draw(tenant, (key) => ({
    method: 'DELETE',
    path: `/tenants/${key}`,
    status: 204,
    model: (m) => m.deleteTenant(key),
  })),
  draw(user, (key) => ({
    method: 'DELETE',
    path: `/users/${key}`,
    status: 204,
    model: (m) => m.deleteUser(key),
  })),
  draw(fc.tuple(role, several(PERMISSIONS), several(ROLES)), ([key, permissions, parents]) => ({
    method: 'PATCH',
    path: `/roles/${key}`,
    body: { permissions, extends: parents },
    model: (m) => {
      m.updateRole(key, { permissions, extends: parents })
      return { key, permissions, extends: parents }
    },
  })),
  draw(fc.tuple(maybe(type), role), ([of, key]) => ({
    method: 'DELETE',
    path: `${rolesOf(of)}/${key}`,
    status: 204,
    model: (m) => m.deleteRole(key, of),
  })),
  draw(type, (key) => ({
    method: 'DELETE',
    path: `/resources/${key}`,
    status: 204,
    model: (m) => m.deleteResource(key),
  })),
  draw(fc.tuple(type, action), ([key, one]) => ({
    method: 'DELETE',
    path: `/resources/${key}/actions/${one}`,
    status: 204,
    model: (m) => m.deleteAction(key, one),
  })),
  draw(fc.tuple(type, relation), ([of, key]) => ({
    method: 'DELETE',
    path: `/resources/${of}/relations/${key}`,
    status: 204,
    model: (m) => m.deleteRelation(of, key),
  })),
]

const READS = [
  draw(user, (key) => ({
    method: 'GET',
    path: `/users/${key}`,
    model: ({ users, grants, members }) => {
      if (!users.has(key)) return refused()
      const own = grants.filter((one) => one.user === key)
      return {
        key,
        roles: own
          .filter(({ instance: on }) => on === null)
          .map((one) => ({ role: one.role, tenant: one.tenant })),
        associated_tenants: members
          .filter((one) => one.user === key)
          .map(({ tenant: at }) => tenantOf(own, at))
          .sort((a, b) => (a.tenant < b.tenant ? -1 : 1)),
      }
    },
  })),
  draw(tenant, (key) => ({
    method: 'GET',
    path: `/tenants/${key}`,
    model: ({ tenants }) => tenants.get(key) ?? refused(),
  })),
  draw(type, (key) => ({
    method: 'GET',
    path: `/resources/${key}`,
    shown: inResource,
    model: (m) => resourceOf(m, key),
  })),
  draw(fc.tuple(maybe(type), role), ([of, key]) => ({
    method: 'GET',
    path: `${rolesOf(of)}/${key}`,
    shown: inRole,
    model: (m) => roleOf(m, key, of),
  })),
  draw(fc.tuple(aSet, fc.boolean()), ([key, isUp]) => ({
    method: 'GET',
    path: `/condition_sets/${key}/${isUp ? 'ancestors' : 'descendants'}`,
    shown: (response) => sorted(response.json<{ key: string }[]>().map((one) => one.key)),
    model: (m) => {
      const line = m.sets.has(key) ? m.ancestorsOfSet(key) : refused()
      return isUp
        ? line.sort()
        : [...m.sets.keys()].filter((one) => m.ancestorsOfSet(one).includes(key)).sort()
    },
  })),
  draw(instance, (ref) => ({
    method: 'GET',
    path: `/resource_instances/${ref}`,
    model: ({ instances }) => {
      const found = instances.get(ref)
      return found ? { tenant: found.tenant } : refused()
    },
  })),
]

function refused(): never {
  throw new Refused('404 NOT_FOUND')
}

const tenantOf = (own: PermitModel['grants'], at: string) => {
  const here = own.filter((one) => one.tenant === at)
  return {
    tenant: at,
    roles: here.filter(({ instance: on }) => on === null).map((one) => one.role),
    status: 'active',
    resource_instance_roles: here.flatMap(({ role: held, instance: on }) => {
      const [resource, key] = on?.split(':') ?? []
      return resource === undefined ? [] : [{ role: held, resource, resource_instance: key }]
    }),
  }
}

/** Every list, and what it must show of each of its things, in order. */
const LISTS: { path: string; shown: string[]; model: (model: PermitModel) => object[] }[] = [
  {
    path: '/tenants',
    shown: ['key', 'name'],
    model: ({ tenants }) => [...tenants].map(([key, one]) => ({ key, ...one })),
  },
  {
    path: '/users',
    shown: ['key', 'email', 'attributes'],
    model: ({ users }) =>
      [...users].map(([key, { email, age: years }]) => ({
        key,
        email,
        attributes: years === null ? {} : { age: years },
      })),
  },
  {
    path: '/tenants/default/users',
    shown: ['key'],
    model: ({ users, members }) =>
      [...users.keys()]
        .filter((key) => members.some((one) => one.user === key && one.tenant === 'default'))
        .map((key) => ({ key })),
  },
  {
    path: '/roles',
    shown: ['key', 'permissions', 'extends'],
    model: ({ roles }) =>
      [...roles].map(([key, { permissions, extends: parents }]) => ({ key, permissions, extends: parents })),
  },
  {
    path: '/resources',
    shown: ['key'],
    model: ({ resources }) => [...resources.keys()].map((key) => ({ key })),
  },
  {
    path: '/users/attributes',
    shown: ['key', 'type'],
    model: ({ userAttributes }) => [...userAttributes].map(([key, kind]) => ({ key, type: kind })),
  },
  {
    path: '/user_invites',
    shown: ['key', 'email', 'status'],
    model: ({ invites }) => [...invites].map(([key, { email, status }]) => ({ key, email, status })),
  },
  {
    path: '/proxy_configs',
    shown: ['key', 'name'],
    model: ({ proxies }) => [...proxies].map(([key, { name }]) => ({ key, name })),
  },
  {
    path: '/resource_instances',
    shown: ['resource', 'key', 'tenant', 'attributes'],
    model: ({ instances }) =>
      [...instances].map(([ref, { tenant: at, draft }]) => {
        const [resource, key] = ref.split(':')
        return { resource, key, tenant: at, attributes: draft === null ? {} : { draft } }
      }),
  },
  {
    path: '/relationship_tuples',
    shown: ['subject', 'relation', 'object'],
    model: ({ tuples }) => tuples,
  },
  {
    path: '/role_assignments',
    shown: ['user', 'role', 'tenant', 'resource_instance'],
    model: ({ grants }) => grants.map(({ instance: on, ...one }) => ({ ...one, resource_instance: on })),
  },
  {
    path: '/role_assignments?role=p&user=u1&user=u2&tenant=default',
    shown: ['user', 'role', 'resource_instance'],
    model: ({ grants }) =>
      grants
        .filter((one) => one.role === 'p' && one.user !== 'u3' && one.tenant === 'default')
        .map(({ user: by, role: held, instance: on }) => ({ user: by, role: held, resource_instance: on })),
  },
  {
    path: '/condition_sets',
    shown: ['key', 'conditions'],
    model: ({ sets }) => [...sets].map(([key, { conditions }]) => ({ key, conditions })),
  },
  {
    path: '/set_rules',
    shown: ['user_set', 'permission', 'resource_set'],
    model: ({ rules }) =>
      rules.map(({ userSet, role: held, permission, resourceSet, resource }) => ({
        user_set: userSet ?? `__autogen_${held}`,
        permission,
        resource_set: resourceSet ?? `__autogen_${resource}`,
      })),
  },
]

async function assertLists(model: PermitModel, { client, facts, schema }: Real): Promise<void> {
  for (const { path, shown, model: expectedOf } of LISTS) {
    const expected = expectedOf(model)
    const url = `${IN_SCHEMA.test(path) ? schema : facts}${path}`
    const counted = `${url}${path.includes('?') ? '&' : '?'}include_total_count=true&per_page=100`
    const { data, total_count: total } = (await client.get(counted)).json<{
      data: Record<string, unknown>[]
      total_count: number
    }>()
    const rows = data.map((row) => Object.fromEntries(shown.map((name) => [name, row[name]])))
    if (!isDeepStrictEqual(rows, expected)) fail(path, rows, expected)
    if (total !== expected.length) fail(`count of ${path}`, total, expected.length)
    const walked: unknown[] = []
    for (let page = 1; page <= Math.ceil(total / 2); page++) {
      const small = counted.replace('per_page=100', `per_page=2&page=${page}`)
      walked.push(...(await client.get(small)).json<{ data: unknown[] }>().data)
    }
    if (!isDeepStrictEqual(walked, data)) fail(`pages of ${path}`, walked, data)
  }
  const resources = (await client.get(`${schema}/resources?per_page=100`)).json<ResourceAnswer[]>()
  const found = resources.map(resourceShown)
  const wanted = [...model.resources.keys()].map((key) => resourceOf(model, key))
  if (!isDeepStrictEqual(found, wanted)) fail('resources', found, wanted)
}

/** What most runs begin with: a hierarchy, roles that extend each other, and people who hold some of them. */
const POLICY = [
  ['/resources', { key: 'r1', name: 'r1', actions: { read: {}, write: {} }, relations: { in: 'r1' } }],
  ['/resources', { key: 'r2', name: 'r2', actions: { read: {} }, relations: { in: 'r1' } }],
  ['/resources/r1/roles', { key: 'p', name: 'p', permissions: ['read'] }],
  ['/resources/r1/roles', { key: 'q', name: 'q', permissions: ['write'] }],
  ['/resources/r2/roles', { key: 'p', name: 'p', permissions: ['read'] }],
  ['/resources/r1/roles/q/implicit_grants', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' }],
  ['/resources/r2/roles/p/implicit_grants', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' }],
  ['/roles', { key: 'p', name: 'p', permissions: ['r1:read'] }],
  ['/roles', { key: 'q', name: 'q', permissions: ['r2:read'], extends: ['p'] }],
  ['/condition_sets', { key: 'all', name: 'all', conditions: {} }],
  ['/condition_sets', { key: 'grown', name: 'grown', conditions: CONDITIONS['grown'] }],
  [
    '/condition_sets',
    {
      key: 'drafts',
      name: 'drafts',
      type: 'resourceset',
      resource_id: 'r1',
      conditions: CONDITIONS['drafts'],
    },
  ],
  [
    '/condition_sets',
    {
      key: 'first',
      name: 'first',
      type: 'resourceset',
      resource_id: 'r1',
      conditions: CONDITIONS['first'],
      parent_id: 'drafts',
    },
  ],
] as const
const TUPLES = [
  { subject: 'r1:a', relation: 'in', object: 'r1:b', tenant: 'default' },
  { subject: 'r1:b', relation: 'in', object: 'r2:a', tenant: 'default' },
]
const GRANTS = [
  { user: 'u1', role: 'q', tenant: 'default' },
  { user: 'u2', role: 'p', resource_instance: 'r2:a' },
  { user: 'u2', role: 'q', resource_instance: 'r1:a' },
]
const RULE = {
  user_set: 'grown',
  permission: 'r1:write',
  resource_set: 'r1',
  is_role: false,
  is_resource: true,
}
const INVITE = { key: 'i1', email: 'i1@x.test', role_id: 'p', tenant_id: 't1' }
const FACTS = [
  ['/tenants', { key: 't1', name: 'T1' }],
  ['/resource_instances', { key: 'b', resource: 'r2', tenant: 't1' }],
  ['/users', { key: 'u1', attributes: { age: 40 } }],
  ['/users', { key: 'u2' }],
  ['/relationship_tuples/bulk', { operations: TUPLES }],
  ['/role_assignments/bulk', GRANTS],
  ['/set_rules', RULE],
  ['/user_invites', INVITE],
] as const

async function post(
  client: Client,
  base: string,
  bodies: readonly (readonly [string, unknown])[],
): Promise<void> {
  for (const [path, body] of bodies) {
    const { statusCode, body: said } = await client.post(`${base}${path}`, body)
    if (statusCode !== 200) throw new Error(said)
  }
}

function begun(): PermitModel {
  const model = new PermitModel()
  model.createResource('r1', { actions: { read: {}, write: {} }, relations: { in: 'r1' } })
  model.createResource('r2', { actions: { read: {} }, relations: { in: 'r1' } })
  model.createRole('p', { permissions: ['read'] }, 'r1')
  model.createRole('q', { permissions: ['write'] }, 'r1')
  model.createRole('p', { permissions: ['read'] }, 'r2')
  model.derive('r1', 'q', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' })
  model.derive('r2', 'p', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' })
  model.createRole('p', { permissions: ['r1:read'] })
  model.createRole('q', { permissions: ['r2:read'], extends: ['p'] })
  model.createSet('all', { conditions: {}, resource: null, parent: null })
  model.createSet('grown', { conditions: CONDITIONS['grown'] ?? {}, resource: null, parent: null })
  model.createSet('drafts', { conditions: CONDITIONS['drafts'] ?? {}, resource: 'r1', parent: null })
  model.createSet('first', { conditions: CONDITIONS['first'] ?? {}, resource: 'r1', parent: 'drafts' })
  model.createTenant('t1', 'T1')
  model.createInstance('r2:b', 't1', null)
  model.createUser('u1', 40, [])
  model.createUser('u2', undefined, [])
  model.createTuples(TUPLES)
  model.assignAll(GRANTS)
  model.allow(RULE)
  model.createInvite(INVITE)
  return model
}

t.test('whatever is written in whichever order is answered, kept and decided as in memory', async (t) => {
  const postern = await buildTestApp(t)
  const { client: organization } = await anApiKey(postern, { level: 'org' })
  await organization.post('/v2/projects', { key: 'model', name: 'Model' })
  await post(organization, '/v2/schema/model/dev', POLICY)
  let environments = 0

  /** A fresh environment, begun or empty. */
  async function open(isBegun: boolean): Promise<Real> {
    const key = `e${++environments}`
    const envs = '/v2/projects/model/envs'
    const made = isBegun
      ? await organization.post(`${envs}/dev/copy`, { target_env: { new: { key, name: key } } })
      : await organization.post(envs, { key, name: key })
    if (made.statusCode > 201) throw new Error(made.body)
    const { secret } = (await organization.get(`/v2/api-key/model/${key}`)).json<{ secret: string }>()
    const client = postern.as(secret)
    if (isBegun) await post(client, '/facts', FACTS)
    return { client, facts: '/facts', schema: `/v2/schema/model/${key}` }
  }

  const request = fc.oneof(
    ...WRITES,
    // Rarer, so that there is something to ask about.
    ...[...READS, ...ENDS].map((one) => ({ ...one, weight: 1 })),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(request, { minLength: 25, maxLength: 45, size: 'max' }),
      fc.nat(5),
      async (requests, start) => {
        const model = start > 0 ? begun() : new PermitModel()
        const real = await open(start > 0)
        await assertDecisions(model, real)
        await fc.asyncModelRun(() => ({ model, real }), requests)
        await assertLists(model, real)
      },
    ),
    { numRuns: 50 },
  )
  t.pass('as the model says')
})
