import { AppError, fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { Caller } from '../principal.ts'
import type { ResourceRow } from '../resources/repository.ts'
import type { ResourceDetail, ResourcesService } from '../resources/service.ts'
import type { ConditionSetRow, SetRuleFilters, SetRuleRow, SetType } from '../rules/repository.ts'
import type { NewConditionSet, RulesService, SetRuleSpec } from '../rules/service.ts'
import { dashed } from './names.ts'
import type { RoleOwner, SetOwner, SetsRepository } from './sets-repository.ts'

/** Permit makes such a set for each role and each resource, and shows it to nobody who does not ask for it by name. */
const GENERATED = '__autogen_'

/** A rule as Permit has it: each side is the name of a set, of a role or of a resource. */
export type NamedRule = {
  userSet: string
  permission: string
  resourceSet: string
  /** True: `userSet` is the name of a role, also where a set has the same. */
  isRole: boolean
  isResource: boolean
}

/** A set that was made, or one that stands for a role or a resource. */
export type NamedSet = ConditionSetRow & { isGenerated: boolean }

type Users = { userSet: string } | { role: string }
type Things = { resourceSet: string } | { resource: string }

/** With the resource of a resource set. */
export type SetWithResource = { set: NamedSet; resource: ResourceDetail | undefined }

type Dependencies = {
  rules: RulesService
  sets: SetsRepository
  resources: Pick<ResourcesService, 'findResource' | 'detailsOf'>
}

/**
 * Condition sets and rules in the words of Permit, where whoever holds a role is a set too. Here a rule names the role
 * itself.
 */
export function createPermitSets({ rules, sets, resources }: Dependencies) {
  async function findUsers(name: string, isRole = false): Promise<Users | undefined> {
    const generated = afterPrefix(name)
    const set = isRole || generated !== undefined ? undefined : await rules.findConditionSet(dashed(name))
    if (set) return { userSet: set.id }
    const role = await sets.findRole(dashed(generated ?? name))
    return role && { role: role.name }
  }

  async function findThings(name: string, isResource = false): Promise<Things | undefined> {
    const generated = afterPrefix(name)
    const set = isResource || generated !== undefined ? undefined : await rules.findConditionSet(dashed(name))
    if (set) return { resourceSet: set.id }
    const resource = await resources.findResource(dashed(generated ?? name))
    return resource && { resource: resource.id }
  }

  async function specOf({
    userSet,
    isRole,
    permission,
    resourceSet,
    isResource,
  }: NamedRule): Promise<SetRuleSpec> {
    return {
      ...((await findUsers(userSet, isRole)) ?? fail(isRole ? 'role_not_found' : 'condition_set_not_found')),
      ...((await findThings(resourceSet, isResource)) ??
        fail(isResource ? 'resource_not_found' : 'condition_set_not_found')),
      permission: await permissionNamed(permission),
    }
  }

  /** `resource:action`, also of an action by id. @throws AppError action_not_found, validation_failed */
  async function permissionNamed(name: string): Promise<string> {
    if (/^[^:]+:[^:]+$/.test(name)) return name
    const id = dashed(name)
    if (isUuid(id)) return (await sets.findPermission(id)) ?? fail('action_not_found')
    throw new AppError('validation_failed', {
      errors: [{ pointer: '/body/permission', detail: 'must be resource:action' }],
    })
  }

  async function findGenerated(name: string): Promise<NamedSet | undefined> {
    const owner = afterPrefix(name)
    if (owner === undefined) return undefined
    const role = await sets.findRole(owner)
    if (role) return setOfRole(role)
    const resource = await resources.findResource(owner)
    return resource && setOfResource(resource)
  }

  return {
    /** A role held in accounts by key, one of a resource as `resource#role`, or either by id. @throws AppError role_not_found */
    async getRole(name: string): Promise<RoleOwner> {
      return (await sets.findRole(dashed(name))) ?? fail('role_not_found')
    },

    /** The sets with their resources. */
    async withResources(rows: readonly NamedSet[]): Promise<SetWithResource[]> {
      const owners: ResourceRow[] = []
      for (const id of new Set(rows.flatMap(({ resourceId }) => resourceId ?? []))) {
        const owner = await resources.findResource(id)
        if (owner) owners.push(owner)
      }
      const details = new Map((await resources.detailsOf(owners)).map((detail) => [detail.id, detail]))
      return rows.map((set) => ({
        set,
        resource: set.resourceId === null ? undefined : details.get(set.resourceId),
      }))
    },

    /** By key, then by id, with or without dashes. @throws AppError condition_set_not_found */
    async getSet(name: string): Promise<NamedSet> {
      return (await findGenerated(name)) ?? made(await rules.getConditionSet(dashed(name)))
    },

    /** @throws AppError as `createConditionSet` of the rules; condition_set_key_taken for what is generated */
    async createSet(caller: Caller, { resource, parent, ...set }: NewConditionSet): Promise<NamedSet> {
      if (await findGenerated(set.key)) throw new AppError('condition_set_key_taken')
      if (set.key.startsWith(GENERATED)) throw reserved('/body/key')
      const row = await rules.createConditionSet(caller, {
        ...set,
        ...(resource !== undefined && { resource: dashed(resource) }),
        ...(parent != null && { parent: dashed(parent) }),
      })
      return made(row)
    },

    /** The set that may be changed. @throws AppError condition_set_not_found, validation_failed for a generated one */
    async getOwnSet(name: string): Promise<ConditionSetRow> {
      if (await findGenerated(name)) throw reserved('/path/condition_set_id')
      return await rules.getConditionSet(dashed(name))
    },

    /** The filters of a list of rules; `undefined` when one names nothing, so that there are none. */
    async filtersOf(query: {
      userSet: string | undefined
      permission: string | undefined
      resourceSet: string | undefined
    }): Promise<SetRuleFilters | undefined> {
      const filters: SetRuleFilters = {}
      if (query.userSet !== undefined) {
        const users = await findUsers(query.userSet)
        if (!users) return undefined
        Object.assign(filters, users)
      }
      if (query.resourceSet !== undefined) {
        const things = await findThings(query.resourceSet)
        if (!things) return undefined
        if ('resource' in things)
          filters.resource = (await resources.findResource(things.resource))?.key ?? ''
        else filters.resourceSet = things.resourceSet
      }
      const { permission } = query
      if (permission?.includes(':')) filters.permission = permission
      else if (permission !== undefined) filters.action = dashed(permission)
      return filters
    },

    /**
     * What is new: nothing, if the rule is there.
     * @throws AppError condition_set_not_found, role_not_found, resource_not_found, action_not_found,
     *   validation_failed, limit_reached
     */
    async allow(caller: Caller, rule: NamedRule): Promise<SetRuleRow[]> {
      const { rule: row, isNew } = await rules.createSetRule(caller, await specOf(rule), {
        existing: 'return',
      })
      return isNew ? [row] : []
    },

    /** Takes the rule away if it is there. @throws AppError as `allow` */
    async disallow(caller: Caller, rule: NamedRule): Promise<void> {
      await rules.deleteSetRuleOf(caller, await specOf(rule), { missing: 'skip' })
    },
  }
}

/** The names of both sides of a rule, as `createPermitSets` takes them. */
export const namesOfRule = ({ userSet, role, resourceSet, resource }: SetRuleRow) => ({
  userSet: userSet ?? `${GENERATED}${role}`,
  resourceSet: resourceSet ?? `${GENERATED}${resource}`,
})

/** A set that was made, as against one that is generated. */
export const made = (row: ConditionSetRow): NamedSet => ({ ...row, isGenerated: false })

const setOfRole = ({ name, ...role }: RoleOwner): NamedSet =>
  generated(role, 'userset', name, null, { 'user.roles': { array_contains: name } })

const setOfResource = (resource: SetOwner): NamedSet =>
  generated(resource, 'resourceset', resource.key, resource, { 'resource.type': { equals: resource.key } })

const generated = (
  { id, createdAt, updatedAt }: SetOwner,
  type: SetType,
  name: string,
  resource: SetOwner | null,
  condition: Record<string, unknown>,
): NamedSet => ({
  id,
  key: `${GENERATED}${name}`,
  name: `${GENERATED}${name}`,
  type,
  resourceId: resource?.id ?? null,
  resource: resource?.key ?? null,
  description: null,
  conditions: { allOf: [{ allOf: [condition] }] },
  parentId: null,
  parent: null,
  createdAt,
  updatedAt,
  isGenerated: true,
})

const afterPrefix = (name: string): string | undefined =>
  name.startsWith(GENERATED) ? name.slice(GENERATED.length) : undefined

const reserved = (pointer: string): AppError =>
  new AppError('validation_failed', {
    errors: [
      { pointer, detail: `must not begin with ${GENERATED}: such sets stand for roles and resources` },
    ],
  })
