import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Method } from '../helpers/app.ts'
import {
  type GrantBody,
  PermitModel,
  Refused,
  type RuleBody,
  type TupleBody,
} from '../helpers/permit-model.ts'

type Real = { client: Client; facts: string; schema: string }

/** A request, and what the model makes of it: what must be in the answer, if it is not refused. */
type Step = {
  method: Method
  path: string
  body?: object
  status?: number
  model: (model: PermitModel) => unknown
}

const TENANTS = ['default', 't1', 't2']
const USERS = ['u1', 'u2', 'u3']
const TYPES = ['r1', 'r2']
const ACTIONS = ['read', 'write']
const ROLES = ['p', 'q']
const INSTANCES = ['r1:a', 'r1:b', 'r2:a', 'r2:b']
const USER_SETS = ['grown', 'all']
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
  for (const [at, question] of QUESTIONS.entries()) {
    const expected = model.isAllowed(question)
    if (answers[at] !== expected) fail(JSON.stringify(ASKED[at]), answers[at], expected)
  }
  const at = Math.max(answers.indexOf(true), 0)
  const alone = (await client.post('/allowed', ASKED[at])).json<{ allow: boolean }>().allow
  if (alone !== answers[at]) fail(`alone, ${JSON.stringify(ASKED[at])}`, alone, answers[at])
}

class Request implements fc.AsyncCommand<PermitModel, Real> {
  readonly step: Step
  constructor(step: Step) {
    this.step = step
  }
  check = () => true
  async run(model: PermitModel, real: Real): Promise<void> {
    const { method, path, body, status = 200 } = this.step
    const isSchema = /^\/(roles|resources|condition_sets)/.test(path)
    const url = `${isSchema ? real.schema : real.facts}${path}`
    const expected = model.attempt(this.step.model)

    const response = await real.client.send(method, url, body)

    const answer = response.body === '' ? {} : response.json<Record<string, unknown>>()
    if (typeof expected === 'string') {
      const refusal = [response.statusCode, answer['error_code'] ?? []].flat().join(' ')
      if (refusal !== expected) fail(String(this), `${refusal} ${response.body}`, expected)
    } else {
      const isNew = expected === true && method === 'PUT'
      if (response.statusCode !== (isNew ? 201 : status)) fail(String(this), response.body, status)
      if (typeof expected === 'object' && !has(answer, expected)) fail(String(this), answer, expected)
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
const aSet = fc.constantFrom(...USER_SETS, 'drafts')
const several = <T>(all: readonly T[]) => fc.subarray([...all])
const maybe = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined })
const CONDITIONS: Record<string, Record<string, unknown>> = {
  grown: { 'user.age': { 'greater-than': 17 } },
  all: {},
  drafts: { 'resource.draft': { equals: true } },
}
const attributes = (value: number | undefined) => (value === undefined ? {} : { attributes: { age: value } })

const grant: fc.Arbitrary<GrantBody> = fc
  .record({ user, role, tenant: maybe(tenant), resource_instance: maybe(instance) })
  .map(({ tenant: at, resource_instance: on, ...rest }) => ({
    ...rest,
    ...(at !== undefined && { tenant: at }),
    ...(on !== undefined && { resource_instance: on }),
  }))
/** In a tenant, as a user comes with it. */
const ownGrants = fc.array(fc.record({ role, tenant }), { maxLength: 2 })
const tuple: fc.Arbitrary<Required<TupleBody>> = fc.record({
  subject: instance,
  relation,
  object: instance,
  tenant,
})
const derivation = fc.record({ role, on_resource: type, linked_by_relation: relation })
const rule: fc.Arbitrary<RuleBody> = fc.record({
  user_set: fc.constantFrom(...USER_SETS, ...ROLES, 'r1#p', 'r2#p'),
  permission: fc.constantFrom(...PERMISSIONS),
  resource_set: fc.constantFrom(...TYPES, 'drafts'),
  is_role: fc.boolean(),
  is_resource: fc.boolean(),
})

const draw = <T>(drawn: fc.Arbitrary<T>, make: (drawn: T) => Step) =>
  drawn.map((one) => new Request(make(one)))

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
  draw(fc.tuple(tenant, user), ([at, key]) => ({
    method: 'DELETE',
    path: `/tenants/${at}/users/${key}`,
    status: 204,
    model: (m) => m.removeFromTenant(at, key),
  })),
  draw(grant, (body) => ({
    method: 'POST',
    path: '/role_assignments',
    body,
    model: (m) => {
      m.assign(body)
      return body
    },
  })),
  draw(grant, (body) => ({
    method: 'DELETE',
    path: '/role_assignments',
    body,
    status: 204,
    model: (m) => m.unassign(body),
  })),
  draw(fc.array(grant, { maxLength: 4 }), (body) => ({
    method: 'POST',
    path: '/role_assignments/bulk',
    body,
    model: (m) => ({ assignments_created: m.assignAll(body) }),
  })),
  draw(fc.array(grant, { maxLength: 4 }), (body) => ({
    method: 'DELETE',
    path: '/role_assignments/bulk',
    body,
    model: (m) => ({ assignments_removed: m.unassignAll(body) }),
  })),
  draw(
    fc.uniqueArray(fc.record({ key: user, years: maybe(age), grants: ownGrants }), {
      selector: ({ key }) => key,
      maxLength: 2,
    }),
    (people) => ({
      method: 'POST',
      path: '/bulk/users',
      body: {
        operations: people.map(({ key, years, grants }) => ({
          key,
          ...attributes(years),
          role_assignments: grants,
        })),
      },
      model: (m) => {
        for (const { key } of people) if (m.users.has(key)) throw new Refused('409 DUPLICATE_ENTITY')
        for (const { key, years, grants } of people) m.createUser(key, years, grants)
        return {}
      },
    }),
  ),
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
  draw(fc.tuple(role, role, fc.boolean()), ([key, parent, isParent]) => ({
    method: isParent ? 'PUT' : 'DELETE',
    path: `/roles/${key}/parents/${parent}`,
    model: (m) => {
      m.setParent(key, parent, isParent)
      return { key, extends: m.roles.get(key)?.extends }
    },
  })),
  draw(fc.tuple(role, several(PERMISSIONS), several(ROLES)), ([key, permissions, parents]) => {
    const others = parents.filter((parent) => parent !== key)
    return {
      method: 'POST',
      path: '/roles',
      body: { key, name: key, permissions, extends: others },
      model: (m) => {
        m.createRole(key, permissions, others)
        return { key, permissions, extends: others }
      },
    }
  }),
  draw(fc.tuple(role, several(PERMISSIONS)), ([key, permissions]) => ({
    method: 'POST',
    path: `/roles/${key}/permissions`,
    body: { permissions },
    model: (m) => ({ permissions: m.givePermissions(key, permissions) }),
  })),
  draw(fc.tuple(role, several(PERMISSIONS)), ([key, permissions]) => ({
    method: 'DELETE',
    path: `/roles/${key}/permissions`,
    body: { permissions },
    model: (m) => ({ permissions: m.takePermissions(key, permissions) }),
  })),
  draw(fc.tuple(type, several(ACTIONS)), ([key, actions]) => ({
    method: 'POST',
    path: '/resources',
    body: { key, name: key, actions: Object.fromEntries(actions.map((one) => [one, {}])) },
    model: (m) => {
      m.createResource(key, actions)
      return { key }
    },
  })),
  draw(fc.tuple(type, action), ([key, one]) => ({
    method: 'POST',
    path: `/resources/${key}/actions`,
    body: { key: one, name: one },
    model: (m) => {
      m.createAction(key, one)
      return { permission_name: `${key}:${one}` }
    },
  })),
  draw(fc.tuple(type, role, several(ACTIONS)), ([of, key, permissions]) => ({
    method: 'POST',
    path: `/resources/${of}/roles`,
    body: { key, name: key, permissions },
    model: (m) => {
      m.createResourceRole(of, key, permissions)
      return { key, resource: of, permissions }
    },
  })),
  draw(fc.tuple(type, role, several(PERMISSIONS)), ([of, key, permissions]) => ({
    method: 'POST',
    path: `/resources/${of}/roles/${key}/permissions`,
    body: { permissions },
    model: (m) => void m.givePermissions(key, permissions, of),
  })),
  draw(fc.tuple(type, role, derivation), ([of, key, body]) => ({
    method: 'POST',
    path: `/resources/${of}/roles/${key}/implicit_grants`,
    body,
    model: (m) => {
      m.derive(of, key, body)
      return body
    },
  })),
  draw(fc.tuple(type, role, derivation), ([of, key, body]) => ({
    method: 'DELETE',
    path: `/resources/${of}/roles/${key}/implicit_grants`,
    body,
    status: 204,
    model: (m) => m.underive(of, key, body),
  })),
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
  draw(fc.tuple(instance, tenant, fc.boolean()), ([ref, at, draft]) => {
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
  }),
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
  draw(fc.tuple(tuple, fc.boolean()), ([{ tenant: at, ...ends }, isPlaced]) => {
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
  }),
  draw(tuple, ({ tenant: _, ...body }) => ({
    method: 'DELETE',
    path: '/relationship_tuples',
    body,
    status: 204,
    model: (m) => m.deleteTuple(body),
  })),
  draw(fc.array(tuple, { maxLength: 3 }), (operations) => ({
    method: 'POST',
    path: '/relationship_tuples/bulk',
    body: { operations },
    model: (m) => {
      m.createTuples(operations)
      return {}
    },
  })),
  draw(aSet, (key) => {
    const conditions = CONDITIONS[key] ?? {}
    const of = key === 'drafts' ? 'r1' : null
    return {
      method: 'POST',
      path: '/condition_sets',
      body: { key, name: key, conditions, type: of ? 'resourceset' : 'userset', resource_id: of },
      model: (m) => {
        m.createSet(key, conditions, of)
        return { key, conditions }
      },
    }
  }),
  draw(fc.tuple(aSet, fc.boolean()), ([key, isOpen]) => {
    const conditions = (isOpen ? undefined : CONDITIONS[key]) ?? {}
    return {
      method: 'PATCH',
      path: `/condition_sets/${key}`,
      body: { conditions },
      model: (m) => {
        m.updateSet(key, conditions)
        return { key, conditions }
      },
    }
  }),
  draw(aSet, (key) => ({
    method: 'DELETE',
    path: `/condition_sets/${key}`,
    status: 204,
    model: (m) => m.deleteSet(key),
  })),
  draw(rule, (body) => ({
    method: 'POST',
    path: '/set_rules',
    body,
    model: (m) => ({ length: m.allow(body) ? 1 : 0 }),
  })),
  draw(rule, (body) => ({
    method: 'DELETE',
    path: '/set_rules',
    body,
    status: 204,
    model: (m) => m.disallow(body),
  })),
]

/** What much hangs on ends, or is made anew. */
const ENDS = [
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
      m.updateRole(key, permissions, parents)
      return { key, permissions, extends: parents }
    },
  })),
  draw(role, (key) => ({
    method: 'DELETE',
    path: `/roles/${key}`,
    status: 204,
    model: (m) => m.deleteRole(key),
  })),
  draw(fc.tuple(type, several(ACTIONS)), ([key, actions]) => ({
    method: 'PATCH',
    path: `/resources/${key}`,
    body: { actions: Object.fromEntries(actions.map((one) => [one, {}])) },
    model: (m) => {
      m.setActions(key, actions)
      return { key }
    },
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
  draw(fc.tuple(type, role), ([of, key]) => ({
    method: 'DELETE',
    path: `/resources/${of}/roles/${key}`,
    status: 204,
    model: (m) => m.deleteResourceRole(of, key),
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
    model: ({ resources }) => (resources.has(key) ? { key } : refused()),
  })),
  draw(fc.tuple(type, role), ([of, key]) => ({
    method: 'GET',
    path: `/resources/${of}/roles/${key}`,
    model: ({ resources }) => (resources.get(of)?.roles.has(key) ? { key, resource: of } : refused()),
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
    shown: ['key', 'attributes'],
    model: ({ users }) => [...users].map(([key, one]) => ({ key, attributes: one.age === null ? {} : one })),
  },
  {
    path: '/roles',
    shown: ['key', 'permissions', 'extends'],
    model: ({ roles }) => [...roles].map(([key, one]) => ({ key, ...one })),
  },
  {
    path: '/resources',
    shown: ['key'],
    model: ({ resources }) => [...resources.keys()].map((key) => ({ key })),
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
    const isSchema = /^\/(roles|resources|condition_sets)/.test(path)
    const expected = expectedOf(model)
    const url = `${isSchema ? schema : facts}${path}`
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
  ['/condition_sets', { key: 'grown', name: 'grown', conditions: CONDITIONS['grown'] }],
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
const FACTS = [
  ['/tenants', { key: 't1', name: 'T1' }],
  ['/resource_instances', { key: 'b', resource: 'r2', tenant: 't1' }],
  ['/users', { key: 'u1', attributes: { age: 40 } }],
  ['/users', { key: 'u2' }],
  ['/relationship_tuples/bulk', { operations: TUPLES }],
  ['/role_assignments/bulk', GRANTS],
  ['/set_rules', RULE],
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
  model.createResource('r1', ['read', 'write'])
  model.createResource('r2', ['read'])
  model.createRelation('r1', 'in', 'r1')
  model.createRelation('r2', 'in', 'r1')
  model.createResourceRole('r1', 'p', ['read'])
  model.createResourceRole('r1', 'q', ['write'])
  model.createResourceRole('r2', 'p', ['read'])
  model.derive('r1', 'q', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' })
  model.derive('r2', 'p', { role: 'q', on_resource: 'r1', linked_by_relation: 'in' })
  model.createRole('p', ['r1:read'], [])
  model.createRole('q', ['r2:read'], ['p'])
  model.createSet('grown', CONDITIONS['grown'] ?? {}, null)
  model.createTenant('t1', 'T1')
  model.createInstance('r2:b', 't1', null)
  model.createUser('u1', 40, [])
  model.createUser('u2', undefined, [])
  model.createTuples(TUPLES)
  model.assignAll(GRANTS)
  model.allow(RULE)
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
    ...[...WRITES, ...READS].map((arbitrary) => ({ arbitrary, weight: 4 })),
    // Rarer, so that there is something to ask about.
    ...ENDS.map((arbitrary) => ({ arbitrary, weight: 1 })),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(request, { minLength: 12, maxLength: 25, size: 'max' }),
      fc.nat(5),
      async (requests, start) => {
        const model = start > 0 ? begun() : new PermitModel()
        const real = await open(start > 0)
        await assertDecisions(model, real)
        await fc.asyncModelRun(() => ({ model, real }), requests)
        await assertLists(model, real)
      },
    ),
    { numRuns: 60 },
  )
  t.pass('as the model says')
})
