import { isDeepStrictEqual } from 'node:util'
import type {
  Decision,
  HeldRole,
  InstanceFacts,
  PolicyDocument,
  Question,
  RuleDefinition,
  TenantFacts,
  UserFacts,
  UserSetDefinition,
} from '../../../src/policy/engine/model.ts'
import type { World } from './builders.ts'

/*
 * What the answer must be, worked out as slowly and plainly as the rules say it, from the stored policy itself. It
 * shares nothing with the engine. Conditions with an operator named `bogus` are the faulty ones.
 */

type Bag = Record<string, unknown>
type Bags = Record<string, Bag>

/** Everything that a decision is about. */
type Matter = {
  document: PolicyDocument
  world: World
  question: Question
  now: number
  user: UserFacts | undefined
  tenant: TenantFacts | undefined
  instance: InstanceFacts | undefined
}

export function oracle(document: PolicyDocument, world: World, question: Question, now: number): Decision {
  const no = (refusal?: Decision['refusal']): Decision => ({ allowed: false, source: undefined, refusal })
  const resource = document.resources.find(({ key }) => key === question.resource.type)
  if (!resource) return no('no_such_resource')
  if (!resource.actions.includes(question.action.name)) return no('no_such_action')
  const matter = matterOf(document, world, question, now)
  if (matter.user && !matter.user.isActive) return no('user_inactive')
  if (matter.tenant && !matter.tenant.isActive) return no('tenant_inactive')
  if (rbac(matter)) return { allowed: true, source: 'rbac', refusal: undefined }
  if (abac(matter)) return { allowed: true, source: 'abac', refusal: undefined }
  if (rebac(matter)) return { allowed: true, source: 'rebac', refusal: undefined }
  return no()
}

/** Which of the models allow, each asked by itself. */
export function oracleSources(document: PolicyDocument, world: World, question: Question, now: number) {
  const decision = oracle(document, world, question, now)
  if (decision.refusal) return []
  const matter = matterOf(document, world, question, now)
  return [
    ...(rbac(matter) ? ['rbac'] : []),
    ...(abac(matter) ? ['abac'] : []),
    ...(rebac(matter) ? ['rebac'] : []),
  ]
}

function matterOf(document: PolicyDocument, world: World, question: Question, now: number): Matter {
  const { resource } = question
  const named = <T extends { key: string; id: string }>(all: readonly T[], ref: string) =>
    all.find(({ key }) => key === ref) ?? all.find(({ id }) => id === ref)
  const tenant = resource.tenant ? named(world.tenants, resource.tenant) : undefined
  const instances = world.instances.filter(({ type }) => type === resource.type)
  const instance = resource.key ? named(instances, resource.key) : undefined
  return {
    document,
    world,
    question,
    now,
    user: named(world.users, question.user.key),
    tenant,
    instance: instance && tenant && instance.tenant === tenant.key ? instance : undefined,
  }
}

const current = (roles: readonly HeldRole[] | undefined, now: number): string[] =>
  (roles ?? []).filter(({ expiresAt }) => expiresAt === undefined || expiresAt > now).map(({ role }) => role)

function tenantRoles({ user, tenant, now }: Matter): string[] {
  if (!user || !tenant) return []
  return [...new Set([...current(user.tenantRoles.get(tenant.key), now), ...current(user.everywhere, now)])]
}

/** A role and whatever it extends, over and over. */
function withParents(role: string, roles: readonly { key: string; extends: readonly string[] }[]): string[] {
  const all = [role]
  for (let grown = true; grown; ) {
    grown = false
    for (const { key, extends: parents } of roles) {
      if (!all.includes(key)) continue
      for (const parent of parents) {
        if (all.includes(parent)) continue
        all.push(parent)
        grown = true
      }
    }
  }
  return all
}

const gives = (
  role: string,
  permission: string,
  roles: readonly { key: string; extends: readonly string[]; permissions: readonly string[] }[],
): boolean =>
  withParents(role, roles).some((key) =>
    roles.some((definition) => definition.key === key && definition.permissions.includes(permission)),
  )

const permissionOf = ({ resource, action }: Question): string => `${resource.type}:${action.name}`

const rbac = (matter: Matter): boolean =>
  tenantRoles(matter).some((role) => gives(role, permissionOf(matter.question), matter.document.roles))

function rebac(matter: Matter): boolean {
  const { document, question } = matter
  const roles = document.resources.find(({ key }) => key === question.resource.type)?.roles ?? []
  return rolesOnInstance(matter).some((role) => gives(role, permissionOf(question), roles))
}

/** The roles held on the instance asked about: the least fixpoint, by adding whatever follows until nothing does. */
function rolesOnInstance({ document, world, user, instance, now }: Matter): string[] {
  if (!user || !instance) return []
  const direct = (ref: string): string[] => current(user.instanceRoles.get(ref), now)
  const holds = new Set(
    [...user.instanceRoles.keys()].flatMap((ref) => direct(ref).map((role) => `${ref}#${role}`)),
  )
  for (let size = -1; size !== holds.size; ) {
    size = holds.size
    for (const object of world.instances) {
      const ref = `${object.type}:${object.key}`
      const resource = document.resources.find(({ key }) => key === object.type)
      for (const role of resource?.roles ?? []) {
        for (const derivation of role.derivations) {
          const isSuppressed = role.noDirectRolesOnObject || derivation.noDirectRolesOnObject
          if (isSuppressed && direct(ref).length > 0) continue
          const relation = resource?.relations.find(({ key }) => key === derivation.linkedByRelation)
          if (relation?.subjectResource !== derivation.onResource) continue
          const related = document.resources.find(({ key }) => key === derivation.onResource)
          if (!related?.roles.some(({ key }) => key === derivation.role)) continue
          for (const subject of object.subjects.get(derivation.linkedByRelation) ?? []) {
            if (subject.split(':')[0] !== derivation.onResource) continue
            if (holds.has(`${subject}#${derivation.role}`)) holds.add(`${ref}#${role.key}`)
          }
        }
      }
    }
  }
  const own = document.resources.find(({ key }) => key === instance.type)?.roles ?? []
  return own.map(({ key }) => key).filter((role) => holds.has(`${instance.type}:${instance.key}#${role}`))
}

function abac(matter: Matter): boolean {
  const bags = bagsOf(matter)
  return matter.document.rules.some(
    (rule) =>
      rule.permission === permissionOf(matter.question) &&
      isUserOf(rule, matter, bags) &&
      isResourceOf(rule, matter, bags),
  )
}

function isUserOf({ users }: RuleDefinition, matter: Matter, bags: Bags): boolean {
  const { document, question } = matter
  if ('set' in users) return isInSet(users.set, document.userSets, matter, bags)
  const { type } = question.resource
  if (!users.role.includes('#'))
    return document.roles.some(({ key }) => key === users.role) && tenantRoles(matter).includes(users.role)
  return rolesOnInstance(matter).some((role) => `${type}#${role}` === users.role)
}

function isResourceOf({ resources }: RuleDefinition, matter: Matter, bags: Bags): boolean {
  const { document, question } = matter
  if ('resource' in resources) return resources.resource === question.resource.type
  const sets = document.resourceSets.filter(({ resource }) => resource === question.resource.type)
  return isInSet(resources.set, sets, matter, bags)
}

function isInSet(
  key: string,
  sets: readonly UserSetDefinition[],
  matter: Matter,
  bags: Bags,
  seen: string[] = [],
): boolean {
  if (seen.includes(key)) return true
  const set = sets.find((one) => one.key === key)
  if (!set || JSON.stringify(set.conditions).includes('"bogus"')) return false
  if (!every(set.conditions, (name, value) => attributeHolds(name, value, bags, matter))) return false
  return set.parent === null || isInSet(set.parent, sets, matter, bags, [...seen, key])
}

function bagsOf(matter: Matter): Bags {
  const { question, user, tenant, instance, now } = matter
  const { type } = question.resource
  const onInstance = rolesOnInstance(matter).map((role) => `${type}#${role}`)
  const isWithin =
    user && tenant && (user.tenants.includes(tenant.key) || current(user.everywhere, now).length > 0)
  const bag = (...parts: (object | undefined)[]): Bag => Object.assign(Object.create(null), ...parts)
  const key = instance?.key ?? question.resource.key
  const resource = bag(instance?.attributes, question.resource.attributes, { type, key })
  if (!key) delete resource['key']
  const bags = {
    user: bag(user?.attributes, question.user.attributes, {
      key: user?.key ?? question.user.key,
      roles: [...tenantRoles(matter), ...onInstance].sort(),
      tenants: [...(user?.tenants ?? [])].sort(),
    }),
    resource,
    tenant: isWithin ? bag(tenant.attributes, { key: tenant.key }) : bag(),
    context: bag(question.context),
    action: bag(question.action.properties, { name: question.action.name }),
  }
  return { ...bags, subject: bags.user, environment: bags.context, env: bags.context }
}

/** True when every entry of a condition holds; `leaf` is asked about those that are not logical. */
function every(tree: unknown, leaf: (name: string, value: unknown) => boolean): boolean {
  return Object.entries(tree as object).every(([name, value]) => {
    if (name === 'allOf' || name === 'and') return value.every((item: unknown) => every(item, leaf))
    if (name === 'anyOf' || name === 'or') return value.some((item: unknown) => every(item, leaf))
    if (name === 'not') return !every(value, leaf)
    return leaf(name, value)
  })
}

const attributeHolds = (name: string, operators: unknown, bags: Bags, matter: Matter): boolean =>
  every(operators, (operator, operand) => compares(operator, attributeAt(name, bags), operand, bags, matter))

function attributeAt(path: string, bags: Bags): unknown {
  const [bag = '', ...rest] = path.split('.')
  return within(bags[bag], rest.join('.'))
}

function within(object: unknown, path: string): unknown {
  const read = (from: unknown, name: string): unknown =>
    typeof from === 'object' && from !== null && !Array.isArray(from)
      ? Object.entries(from).find(([key]) => key === name)?.[1]
      : undefined
  const literal = read(object, path)
  return literal === undefined ? path.split('.').reduce(read, object) : literal
}

const isRange = (value: unknown): value is [number, number] =>
  Array.isArray(value) && value.length === 2 && value.every((one) => typeof one === 'number')

function compares(operator: string, value: unknown, operand: unknown, bags: Bags, matter: Matter): boolean {
  if (value === undefined) return false
  if (operator.endsWith('_match')) return matches(operator, value, operand, bags, matter)
  const isRef = typeof operand === 'object' && operand !== null && Object.keys(operand).join() === 'ref'
  const other = isRef ? attributeAt((operand as { ref: string }).ref, bags) : operand
  if (other === undefined) return false
  const equal = isDeepStrictEqual
  const lists = Array.isArray(value) && Array.isArray(other)
  const numbers = typeof value === 'number' && typeof other === 'number'
  switch (operator) {
    case 'equals':
      return equal(value, other)
    case 'not-equals':
      return !equal(value, other)
    case 'less-than':
      return numbers && value < other
    case 'less-than-equals':
      return numbers && value <= other
    case 'greater-than':
      return numbers && value > other
    case 'greater-than-equals':
      return numbers && value >= other
    case 'between':
      return typeof value === 'number' && isRange(other) && other[0] <= value && value <= other[1]
    case 'contains':
      return typeof value === 'string' && typeof other === 'string' && value.includes(other)
    case 'in':
      return Array.isArray(other) && other.some((one) => equal(one, value))
    case 'array_contains':
      return Array.isArray(value) && value.some((one) => equal(one, other))
    case 'array_subset':
      return lists && value.every((one) => other.some((another) => equal(one, another)))
    case 'array_superset':
      return lists && other.every((one) => value.some((another) => equal(one, another)))
    case 'array_intersect':
      return lists && other.some((one) => value.some((another) => equal(one, another)))
    default:
      throw new Error(`the oracle knows no ${operator}`)
  }
}

function matches(operator: string, value: unknown, operand: unknown, bags: Bags, matter: Matter): boolean {
  const { match, fk_resource_type: fk } = operand as { match: object; fk_resource_type?: string }
  const isMatch = (item: unknown): boolean => {
    const object = fk === undefined ? item : storedAttributes(fk, item, matter)
    if (typeof object !== 'object' || object === null || Array.isArray(object)) return false
    return every(match, (name, operators) =>
      every(operators, (inner, wanted) => compares(inner, within(object, name), wanted, bags, matter)),
    )
  }
  if (operator === 'object_match') return isMatch(value)
  if (!Array.isArray(value)) return false
  return operator === 'any_match' ? value.some(isMatch) : value.every(isMatch)
}

function storedAttributes(type: string, key: unknown, { world, tenant }: Matter): unknown {
  const ofType = world.instances.filter((one) => one.type === type)
  const found = ofType.find((one) => one.key === key) ?? ofType.find((one) => one.id === key)
  return found && tenant && found.tenant === tenant.key ? found.attributes : undefined
}
