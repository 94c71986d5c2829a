import { assertBelow, type LIMITS } from '../resources/limits.ts'
import type { PolicyRecord, RecordKind } from './records.ts'

type Value = PolicyRecord['value']

const inEnvironment = () => ''
const inResource = (value: Value) => String(value['resource'])

/** What limits the definitions of a kind, and within what they are counted. */
const COUNTED: Record<RecordKind, { limit: keyof typeof LIMITS; within: (value: Value) => string }> = {
  resource: { limit: 'resources', within: inEnvironment },
  action: { limit: 'actions', within: inResource },
  attribute: { limit: 'attributes', within: inResource },
  action_group: { limit: 'actionGroups', within: inResource },
  relation: { limit: 'relations', within: inResource },
  user_attribute: { limit: 'userAttributes', within: inEnvironment },
  role: { limit: 'roles', within: inEnvironment },
  resource_role: { limit: 'resourceRoles', within: inResource },
  derivation: { limit: 'derivations', within: (value) => `${inResource(value)}#${value['role']}` },
  user_set: { limit: 'conditionSets', within: inEnvironment },
  resource_set: { limit: 'conditionSets', within: inEnvironment },
  rule: { limit: 'setRules', within: inEnvironment },
}

/** Refuses a policy that is larger than one made a definition at a time can be. @throws AppError limit_reached */
export function assertWithinLimits(records: readonly PolicyRecord[]): void {
  const counts = new Map<string, { limit: keyof typeof LIMITS; count: number }>()
  for (const { kind, value } of records) {
    const { limit, within } = COUNTED[kind]
    const place = `${limit} ${within(value)}`
    counts.set(place, { limit, count: (counts.get(place)?.count ?? 0) + 1 })
  }
  for (const { limit, count } of counts.values()) assertBelow(limit, count, 0)
}
