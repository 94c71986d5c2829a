import type { CompiledResourceRole, CompiledType } from './compile.ts'
import type { Bag, Scope } from './conditions.ts'
import { ownValue } from './equality.ts'
import { isWithin, tenantRolesOf } from './holdings.ts'
import type { Attributes, Facts, InstanceFacts, Question, TenantFacts, UserFacts } from './model.ts'
import { createWalk, findGrant, namesOfRolesOn, type Walk } from './relations.ts'

/** One decision compares no more values than this. */
export const MOST_STEPS = 1_000_000

/** A question about a known resource, with what is stored about the user and the account that it names. */
export type Case = {
  readonly question: Question
  readonly type: CompiledType
  readonly user: UserFacts | null
  readonly tenant: TenantFacts | null
}

/** The key of the instance asked about; `undefined` when the question is about the resource as such. */
export const keyOf = ({ resource }: Question): string | undefined =>
  resource.key === '' ? undefined : resource.key

/** `type:key` */
export const nameOf = ({ type, key }: InstanceFacts): string => `${type}:${key}`

const NO_NAMES: readonly string[] = []

/**
 * What rules and relationships see of a case, looked up when it is asked for. What a request says of users and
 * resources comes before what is stored about them, but `key`, `roles` and `tenants` of users, `type` and `key` of
 * resources, `key` of tenants and `name` of actions are always what they are. Nothing is stored about an instance that
 * belongs to another tenant than the request's, and nothing of a tenant is shown to who is not in it.
 *
 * A class, because one is made for each decision: functions of its own would cost more than the decision.
 */
export class CaseScope implements Scope {
  /** What was seen of the relationships; `undefined` for somebody unknown. */
  readonly walk: Walk | undefined
  private readonly asked: Case
  private readonly facts: Facts
  private readonly now: number
  private readonly withInstanceRoles: boolean
  private found: InstanceFacts | null | undefined
  private roles: readonly string[] | undefined
  private tenants: readonly string[] | undefined
  private steps = 0
  private isMissing = false

  /** @param withInstanceRoles whether `user.roles` tells the roles held on the instance asked about (`type#role`) */
  constructor(asked: Case, facts: Facts, now: number, withInstanceRoles: boolean) {
    this.asked = asked
    this.facts = facts
    this.now = now
    this.withInstanceRoles = withInstanceRoles
    this.walk = asked.user ? createWalk(asked.user, facts, now) : undefined
  }

  read(bag: Bag, name: string): unknown {
    const { action, context } = this.asked.question
    switch (bag) {
      case 'user':
        return this.readUser(name)
      case 'resource':
        return this.readResource(name)
      case 'tenant':
        return this.readTenant(name)
      case 'context':
        return ownValue(context, name)
      case 'action':
        return name === 'name' ? action.name : ownValue(action.properties, name)
    }
  }

  stored(type: string, key: string): Attributes | undefined {
    return this.find(type, key)?.attributes
  }

  spend(steps: number): boolean {
    this.steps += steps
    return this.steps <= MOST_STEPS
  }

  /** The instance asked about, if it is stored in the request's tenant. */
  instance(): InstanceFacts | undefined {
    if (this.found === undefined) {
      const key = keyOf(this.asked.question)
      this.found = (key === undefined ? undefined : this.find(this.asked.type.key, key)) ?? null
    }
    return this.found ?? undefined
  }

  holdsOnInstance(role: CompiledResourceRole): boolean {
    const on = this.instance()
    return !!this.walk && !!on && findGrant(this.walk, [role], nameOf(on)) !== undefined
  }

  /** True when facts were missing: whatever was answered is void. */
  isIncomplete(): boolean {
    return this.isMissing || this.walk?.isIncomplete === true
  }

  /** True when there was more to look at than one decision may: whatever was answered is void. */
  isTooLarge(): boolean {
    return this.steps > MOST_STEPS || this.walk?.isTooLarge === true
  }

  private find(type: string, key: string): InstanceFacts | undefined {
    const { tenant } = this.asked
    if (!tenant) return undefined
    const instance = this.facts.instance(`${type}:${key}`)
    if (instance === undefined) this.isMissing = true
    return instance && instance.type === type && instance.tenant === tenant.key ? instance : undefined
  }

  private readUser(name: string): unknown {
    const { user, question } = this.asked
    switch (name) {
      case 'key':
        return user?.key ?? question.user.key
      case 'roles':
        this.roles ??= this.rolesHeld()
        return this.roles
      case 'tenants':
        this.tenants ??= user ? [...user.tenants].sort() : NO_NAMES
        return this.tenants
      default: {
        const said = ownValue(question.user.attributes, name)
        return said === undefined ? ownValue(user?.attributes, name) : said
      }
    }
  }

  private rolesHeld(): readonly string[] {
    const { user, tenant, type } = this.asked
    if (!user || !tenant) return NO_NAMES
    const inTenant = tenantRolesOf(user, tenant, this.now)
    const on = this.withInstanceRoles ? this.instance() : undefined
    if (!this.walk || !on) return inTenant
    return [...new Set([...inTenant, ...namesOfRolesOn(this.walk, type.roles.values(), nameOf(on))])].sort()
  }

  private readResource(name: string): unknown {
    const { type, question } = this.asked
    switch (name) {
      case 'type':
        return type.key
      case 'key':
        return this.instance()?.key ?? keyOf(question)
      default: {
        const said = ownValue(question.resource.attributes, name)
        return said === undefined ? ownValue(this.instance()?.attributes, name) : said
      }
    }
  }

  private readTenant(name: string): unknown {
    const { user, tenant } = this.asked
    if (!user || !tenant || !isWithin(user, tenant, this.now)) return undefined
    return name === 'key' ? tenant.key : ownValue(tenant.attributes, name)
  }
}
