import type { CompiledResourceRole, CompiledType } from './compile.ts'
import type { Bag, Scope } from './conditions.ts'
import { ownValue } from './equality.ts'
import { isWithin, tenantRolesOf } from './holdings.ts'
import type { Attributes, Facts, InstanceFacts, Question, TenantFacts, UserFacts } from './model.ts'
import { createWalk, findGrant, namesOfRolesOn, type Walk } from './relations.ts'

/** One decision compares no more items of lists than this. */
export const MOST_STEPS = 1_000_000

/** A question about a known resource, with what is stored about whom and where it names. `null`: nothing is. */
export type Case = {
  readonly question: Question
  readonly type: CompiledType
  readonly user: UserFacts | null
  readonly tenant: TenantFacts | null
}

/** What rules and relationships see of a case. */
export type CaseScope = Scope & {
  /** The instance asked about, if it is stored in the request's tenant. */
  instance(): InstanceFacts | undefined
  /** What was seen of the relationships; `undefined` for somebody unknown. */
  readonly walk: Walk | undefined
  holdsOnInstance(role: CompiledResourceRole): boolean
  /** True when facts were missing: whatever was answered is void. */
  isIncomplete(): boolean
  /** True when there was more to look at than one decision may: whatever was answered is void. */
  isTooLarge(): boolean
}

/** The key of the instance asked about; `undefined` when the question is about the resource as such. */
export const keyOf = ({ resource }: Question): string | undefined =>
  resource.key === '' ? undefined : resource.key

/**
 * The attributes of a case. What a request says of users and resources comes before what is stored about them, but
 * `key`, `roles` and `tenants` of users, `type` and `key` of resources, `key` of tenants and `name` of actions are
 * always what they are. Nothing is stored about an instance that belongs to another tenant than the request's, and
 * nothing of a tenant is shown to who is not in it. Attributes are read when a condition asks for them.
 *
 * @param withInstanceRoles whether `user.roles` tells the roles held on the instance asked about (`type#role`)
 */
export function createScope(
  { question, type, user, tenant }: Case,
  facts: Facts,
  now: number,
  withInstanceRoles: boolean,
): CaseScope {
  const walk = user ? createWalk(user, facts, now) : undefined
  let isMissing = false
  let steps = 0
  let roles: readonly string[] | undefined
  let asked: { instance: InstanceFacts | undefined } | undefined

  function stored(resource: string, key: string): InstanceFacts | undefined {
    if (!tenant) return undefined
    const instance = facts.instance(`${resource}:${key}`)
    if (instance === undefined) isMissing = true
    return instance && instance.type === resource && instance.tenant === tenant.key ? instance : undefined
  }

  function instance(): InstanceFacts | undefined {
    if (!asked) {
      const key = keyOf(question)
      asked = { instance: key === undefined ? undefined : stored(type.key, key) }
    }
    return asked.instance
  }

  function rolesHeld(): readonly string[] {
    if (!user || !tenant) return []
    const inTenant = tenantRolesOf(user, tenant, now)
    const on = withInstanceRoles ? instance() : undefined
    if (!walk || !on) return inTenant
    return [...new Set([...inTenant, ...namesOfRolesOn(walk, type.roles.values(), nameOf(on))])].sort()
  }

  function readUser(name: string): unknown {
    switch (name) {
      case 'key':
        return user?.key ?? question.user.key
      case 'roles':
        roles ??= rolesHeld()
        return roles
      case 'tenants':
        return user ? [...user.tenants].sort() : []
      default:
        return firstOf(question.user.attributes, user?.attributes, name)
    }
  }

  function readResource(name: string): unknown {
    switch (name) {
      case 'type':
        return type.key
      case 'key':
        return instance()?.key ?? keyOf(question)
      default: {
        const said = ownValue(question.resource.attributes, name)
        return said === undefined ? ownValue(instance()?.attributes, name) : said
      }
    }
  }

  function readTenant(name: string): unknown {
    if (!user || !tenant || !isWithin(user, tenant, now)) return undefined
    return name === 'key' ? tenant.key : ownValue(tenant.attributes, name)
  }

  return {
    read(bag: Bag, name: string): unknown {
      switch (bag) {
        case 'user':
          return readUser(name)
        case 'resource':
          return readResource(name)
        case 'tenant':
          return readTenant(name)
        case 'context':
          return ownValue(question.context, name)
        case 'action':
          return name === 'name' ? question.action.name : ownValue(question.action.properties, name)
      }
    },
    stored: (resource, key) => stored(resource, key)?.attributes,
    spend(count) {
      steps += count
      return steps <= MOST_STEPS
    },
    instance,
    walk,
    holdsOnInstance(role) {
      const on = instance()
      return !!walk && !!on && findGrant(walk, [role], nameOf(on)) !== undefined
    },
    isIncomplete: () => isMissing || walk?.isIncomplete === true,
    isTooLarge: () => steps > MOST_STEPS || walk?.isTooLarge === true,
  }
}

/** `type:key` */
export const nameOf = ({ type, key }: InstanceFacts): string => `${type}:${key}`

function firstOf(said: Attributes | undefined, stored: Attributes | undefined, name: string): unknown {
  const value = ownValue(said, name)
  return value === undefined ? ownValue(stored, name) : value
}
