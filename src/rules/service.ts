import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { splitPermission } from '../permissions.ts'
import { validateCondition } from '../policy/engine/conditions.ts'
import type { Caller } from '../principal.ts'
import { assertApplicationKey } from '../resources/keys.ts'
import { assertBelow } from '../resources/limits.ts'
import type { ConditionSetRow, RuleEnds, RulesRepository, SetRuleRow, SetType } from './repository.ts'

type Json = Record<string, unknown>

/** `resource` and `parent`: key or id. */
export type NewConditionSet = {
  key: string
  /** Default: the key. */
  name?: string
  type: SetType
  /** For a resource set. */
  resource?: string
  description?: string | null
  conditions: Json
  parent?: string | null
}

export type ConditionSetUpdate = {
  name?: string
  description?: string | null
  conditions?: Json
  /** Key or id; null: none. */
  parent?: string | null
}

/** Whom a rule allows what. One of `userSet` and `role`, one of `resourceSet` and `resource`. */
export type SetRuleSpec = {
  /** Key or id. */
  userSet?: string
  /** The key of a role held in accounts, or `resource#role`. */
  role?: string
  /** `resource:action`. */
  permission: string
  /** Key or id. */
  resourceSet?: string
  /** Key or id. */
  resource?: string
}

type Dependencies = {
  database: Database
  rules: RulesRepository
  audit: AuditRepository
  lockDefinitions: (tx: Tx) => Promise<void>
}

export type RulesService = ReturnType<typeof createRulesService>

/** Sets of users and of instances that conditions on their attributes describe, and the rules that join them. */
export function createRulesService({ database, rules, audit, lockDefinitions }: Dependencies) {
  const { db } = database

  return {
    listConditionSets: rules.listConditionSets,
    listSetRules: rules.listSetRules,

    /** By key, then by id. */
    findConditionSet: rules.findConditionSet,

    /** By key, then by id. @throws AppError condition_set_not_found */
    async getConditionSet(ref: string): Promise<ConditionSetRow> {
      return (await rules.findConditionSet(ref)) ?? fail('condition_set_not_found')
    },

    /** Its parents and theirs, or its children and theirs. @throws AppError condition_set_not_found */
    async listConditionSetLine(
      ref: string,
      towards: 'ancestors' | 'descendants',
    ): Promise<ConditionSetRow[]> {
      const { id } = await this.getConditionSet(ref)
      return await rules.listConditionSetLine(id, towards)
    },

    /**
     * @throws AppError validation_failed, also for a parent of another type or resource; resource_not_found,
     *   condition_set_not_found for the parent, condition_set_key_taken, limit_reached
     */
    async createConditionSet(caller: Caller, input: NewConditionSet): Promise<ConditionSetRow> {
      const { key, name = key, type, resource, parent, conditions, ...fields } = input
      assertApplicationKey(key, '/body/key')
      assertConditions(conditions)
      if (type === 'resourceset' && resource === undefined)
        throw invalid('/body/resource', 'is required for a resource set')
      if (type === 'userset' && resource !== undefined)
        throw invalid('/body/resource', 'goes with resource sets only')
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        assertBelow('conditionSets', await rules.countConditionSets(tx))
        const resourceId =
          resource === undefined
            ? null
            : ((await rules.holdResource(resource, tx))?.id ?? fail('resource_not_found'))
        const parentId = await parentOf({ type, resourceId }, parent, tx)
        const id = newId()
        await rules.insertConditionSet(
          { ...fields, id, key, name, type, resourceId, conditions, parentId },
          tx,
        )
        await audit.append(
          {
            action: 'condition_set.created',
            caller,
            target: { type: 'condition_set', id },
            details: { key, type },
          },
          tx,
        )
        return (await rules.findConditionSet(id, tx)) ?? fail('condition_set_not_found')
      })
    },

    /**
     * @throws AppError validation_failed, also for a parent of another type or resource; condition_set_not_found,
     *   condition_set_cycle
     */
    async updateConditionSet(
      caller: Caller,
      id: string,
      changes: ConditionSetUpdate,
    ): Promise<ConditionSetRow> {
      const { parent, ...fields } = changes
      if (fields.conditions !== undefined) assertConditions(fields.conditions)
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        const set = (await rules.lockConditionSet(id, tx)) ?? fail('condition_set_not_found')
        const parentId = parent === undefined ? set.parentId : await parentOf(set, parent, tx)
        if (parent != null && parentId !== null && (await rules.descendsFrom(parentId, id, tx)))
          throw new AppError('condition_set_cycle')
        await rules.updateConditionSet(id, { ...fields, parentId }, tx)
        await audit.append(
          {
            action: 'condition_set.updated',
            caller,
            target: { type: 'condition_set', id },
            details: { key: set.key, fields: Object.keys(changes) },
          },
          tx,
        )
        return (await rules.findConditionSet(id, tx)) ?? fail('condition_set_not_found')
      })
    },

    /** Deletes the set and the rules that name it. @throws AppError condition_set_not_found, condition_set_has_children */
    async deleteConditionSet(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        await lockDefinitions(tx)
        const set = (await rules.lockConditionSet(id, tx)) ?? fail('condition_set_not_found')
        if (await rules.hasChildren(id, tx)) throw new AppError('condition_set_has_children')
        await rules.deleteConditionSet(id, tx)
        await audit.append(
          {
            action: 'condition_set.deleted',
            caller,
            target: { type: 'condition_set', id },
            details: { key: set.key, type: set.type },
          },
          tx,
        )
      })
    },

    /** @throws AppError set_rule_not_found */
    async getSetRule(id: string): Promise<SetRuleRow> {
      return (await rules.findSetRule(id)) ?? fail('set_rule_not_found')
    },

    /**
     * @param options.existing what to do when the rule is there: refuse, or answer it
     * @throws AppError set_rule_exists, validation_failed, condition_set_not_found, role_not_found, resource_not_found,
     *   action_not_found, limit_reached
     */
    async createSetRule(
      caller: Caller,
      spec: SetRuleSpec,
      options: { existing: 'fail' | 'return' } = { existing: 'fail' },
    ): Promise<{ rule: SetRuleRow; isNew: boolean }> {
      return await transact(db, async (tx) => {
        await lockDefinitions(tx)
        const ends = await endsOf(spec, tx)
        const existing = await rules.findSetRuleOf(ends, tx)
        if (existing && options.existing === 'return') return { rule: existing, isNew: false }
        if (existing) throw new AppError('set_rule_exists')
        assertBelow('setRules', await rules.countSetRules(tx))
        const id = newId()
        // False only for a writer that does not take the lock.
        if (!(await rules.insertSetRule({ ...ends, id }, tx))) throw new AppError('set_rule_exists')
        const rule = (await rules.findSetRule(id, tx)) ?? fail('set_rule_not_found')
        await audit.append(ruleEvent('set_rule.created', caller, rule), tx)
        return { rule, isNew: true }
      })
    },

    /** @throws AppError set_rule_not_found */
    async deleteSetRule(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const rule = (await rules.findSetRule(id, tx)) ?? fail('set_rule_not_found')
        await remove(caller, rule, tx)
      })
    },

    /**
     * Deletes the rule that says this. @returns whether there was one
     * @param options.missing whether it is an error when there is none
     * @throws AppError set_rule_not_found, validation_failed, condition_set_not_found, role_not_found,
     *   resource_not_found, action_not_found
     */
    async deleteSetRuleOf(
      caller: Caller,
      spec: SetRuleSpec,
      options: { missing: 'fail' | 'skip' },
    ): Promise<boolean> {
      return await transact(db, async (tx) => {
        const rule = await rules.findSetRuleOf(await endsOf(spec, tx), tx)
        if (rule) await remove(caller, rule, tx)
        else if (options.missing === 'fail') throw new AppError('set_rule_not_found')
        return rule !== undefined
      })
    },
  }

  async function remove(caller: Caller, rule: SetRuleRow, tx: Tx): Promise<void> {
    if (!(await rules.deleteSetRule(rule.id, tx))) throw new AppError('set_rule_not_found')
    await audit.append(ruleEvent('set_rule.deleted', caller, rule), tx)
  }

  async function parentOf(
    set: { type: SetType; resourceId: string | null },
    parent: string | null | undefined,
    tx: Tx,
  ): Promise<string | null> {
    if (parent == null) return null
    const found =
      (await rules.holdConditionSet(parent, tx)) ??
      fail('condition_set_not_found', {
        errors: [{ pointer: '/body/parent', detail: 'does not exist' }],
      })
    if (found.type === set.type && found.resourceId === set.resourceId) return found.id
    throw invalid('/body/parent', 'must be a set of the same type, and of the same resource')
  }

  /** What a rule says, found and held until the transaction ends. */
  async function endsOf(spec: SetRuleSpec, tx: Tx): Promise<RuleEnds> {
    assertOne(spec, 'userSet', 'role')
    assertOne(spec, 'resourceSet', 'resource')
    const { resource: type, action } = splitPermission(spec.permission)
    const typeId = (await rules.holdResource(type, tx)) ?? fail('action_not_found')
    if (typeId.key !== type) throw new AppError('action_not_found')
    const actionId = (await rules.holdAction(typeId.id, action, tx)) ?? fail('action_not_found')
    const userSet = await setOf('userset', spec.userSet, '/body/user_set', tx)
    const resourceSet = await setOf('resourceset', spec.resourceSet, '/body/resource_set', tx)
    const resource =
      spec.resource === undefined
        ? undefined
        : ((await rules.holdResource(spec.resource, tx)) ?? fail('resource_not_found'))
    if ((resourceSet?.resourceId ?? resource?.id) !== typeId.id)
      throw invalid('/body/permission', 'must be a permission on the resource')
    return {
      actionId,
      userSetId: userSet?.id ?? null,
      roleId: spec.role === undefined ? null : await roleOf(spec.role, tx),
      resourceSetId: resourceSet?.id ?? null,
      resourceId: resource?.id ?? null,
    }
  }

  async function setOf(type: SetType, ref: string | undefined, pointer: string, tx: Tx) {
    if (ref === undefined) return undefined
    const set =
      (await rules.holdConditionSet(ref, tx)) ??
      fail('condition_set_not_found', { errors: [{ pointer, detail: 'does not exist' }] })
    if (set.type === type) return set
    throw invalid(pointer, `must be a ${type === 'userset' ? 'user' : 'resource'} set`)
  }

  async function roleOf(name: string, tx: Tx): Promise<string> {
    const hash = name.indexOf('#')
    const found =
      hash < 0
        ? await rules.holdRole(null, name, tx)
        : await rules.holdRole(name.slice(0, hash), name.slice(hash + 1), tx)
    return found ?? fail('role_not_found')
  }
}

const invalid = (pointer: string, detail: string): AppError =>
  new AppError('validation_failed', { errors: [{ pointer, detail }] })

const FIELDS = {
  userSet: '/body/user_set',
  role: '/body/role',
  resourceSet: '/body/resource_set',
  resource: '/body/resource',
} as const

/** @throws AppError validation_failed unless the rule has one of the two */
function assertOne(spec: SetRuleSpec, set: keyof typeof FIELDS, other: keyof typeof FIELDS): void {
  if (spec[set] === undefined && spec[other] === undefined)
    throw invalid(FIELDS[set], `or ${FIELDS[other].slice('/body/'.length)} is required`)
  if (spec[set] !== undefined && spec[other] !== undefined)
    throw invalid(FIELDS[other], `cannot be combined with ${FIELDS[set].slice('/body/'.length)}`)
}

/** @throws AppError validation_failed */
function assertConditions(conditions: Json): void {
  const faults = validateCondition(conditions)
  if (faults.length === 0) return
  throw new AppError('validation_failed', {
    errors: faults.map(({ pointer, detail }) => ({ pointer: `/body/conditions${pointer}`, detail })),
  })
}

const ruleEvent = (action: 'set_rule.created' | 'set_rule.deleted', caller: Caller, rule: SetRuleRow) =>
  ({
    action,
    caller,
    target: { type: 'set_rule', id: rule.id },
    details: {
      user_set: rule.userSet,
      role: rule.role,
      permission: rule.permission,
      resource_set: rule.resourceSet,
      resource: rule.resource,
    },
  }) as const
