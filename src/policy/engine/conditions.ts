import { type Effort, isEvery, isObject, isSome, ownValue } from './equality.ts'
import type { Attributes } from './model.ts'
import { OPERATORS } from './operators.ts'

/** The attributes that a condition can speak of. */
export type Bag = 'user' | 'resource' | 'tenant' | 'context' | 'action'

/** What a condition is asked about. */
export type Scope = Effort & {
  /** The attribute that a bag holds under exactly this name; `undefined` when there is none. */
  read(bag: Bag, name: string): unknown
  /** The stored attributes of an instance in the request's tenant; `undefined` when there is none. */
  stored(type: string, key: string): Attributes | undefined
}

/** A condition tree, made ready to be asked many times. */
export type Condition = {
  holds(scope: Scope): boolean
  /** Every attribute that it reads, `bag.name`. */
  readonly references: ReadonlySet<string>
  /** Resources of which it looks up instances (`fk_resource_type`). */
  readonly lookups: ReadonlySet<string>
  /** True when the roles held on the instance (`resource#role` in `user.roles`) can change what it says. */
  readonly needsInstanceRoles: boolean
}

/** What is wrong at one place of a condition tree: an RFC 6901 JSON pointer into it, and a sentence's end. */
export type ConditionFault = { readonly pointer: string; readonly detail: string }

/** Nested objects and lists, outermost included. */
const MOST_LEVELS = 32
/** Entries of objects and items of logical lists, together. */
const MOST_NODES = 1000
/** Values inside operands, together. */
const MOST_VALUES = 10_000
const LONGEST_NAME = 512
const MOST_FAULTS = 100
/** Looking an instance up costs as much as so many comparisons. */
const STEPS_OF_LOOKUP = 100

const BAGS: ReadonlyMap<string, Bag> = new Map([
  ['user', 'user'],
  ['subject', 'user'],
  ['resource', 'resource'],
  ['tenant', 'tenant'],
  ['context', 'context'],
  ['environment', 'context'],
  ['env', 'context'],
  ['action', 'action'],
])

/** What a set says that can hold for nobody: faulty, or with a reference to what is not there. */
export const NEVER: Condition = {
  holds: () => false,
  references: new Set(),
  lookups: new Set(),
  needsInstanceRoles: false,
}

/** True when all of them are. */
export function allConditions(conditions: readonly Condition[]): Condition {
  const [only] = conditions
  if (only && conditions.length === 1) return only
  return {
    holds: (scope) => conditions.every((condition) => condition.holds(scope)),
    get references() {
      return new Set(conditions.flatMap(({ references }) => [...references]))
    },
    get lookups() {
      return new Set(conditions.flatMap(({ lookups }) => [...lookups]))
    },
    needsInstanceRoles: conditions.some(({ needsInstanceRoles }) => needsInstanceRoles),
  }
}

/**
 * The condition that a tree says. One with any fault (see `validateCondition`) holds for nobody, whatever `not` stands
 * around the fault.
 */
export function compileCondition(tree: unknown): Condition {
  const reader = createReader()
  const test = reader.condition(tree)
  if (reader.faults.length > 0) return NEVER
  const { references, lookups } = reader
  return {
    holds: (scope) => test(scope, undefined),
    references,
    lookups,
    needsInstanceRoles: reader.needsInstanceRoles(),
  }
}

/**
 * What is wrong with a tree, at most 100 faults; none when it is a condition. Takes bounded time on any JSON value:
 * it looks at no more than 32 levels, 1,000 entries and 10,000 values of operands.
 */
export function validateCondition(tree: unknown): ConditionFault[] {
  const reader = createReader()
  reader.condition(tree)
  return reader.faults
}

/** Says whether what was read holds; `at` is the value that operators compare, or the item of a list that is matched. */
type Test = (scope: Scope, at: unknown) => boolean

/** A place in the tree. */
type Place = { readonly pointer: string; readonly level: number }

type Entry = (name: string, value: unknown, place: Place) => Test

const never: Test = () => false

function createReader() {
  const faults: ConditionFault[] = []
  const references = new Set<string>()
  const lookups = new Set<string>()
  let needsInstanceRoles = false
  let nodes = 0
  let values = 0

  const isOver = (): boolean => faults.length >= MOST_FAULTS || nodes > MOST_NODES

  function fault({ pointer }: Place, detail: string): Test {
    if (faults.length < MOST_FAULTS) faults.push({ pointer, detail })
    return never
  }

  /** What the entries of an object say, all of them; `entry` reads those that are not logical. */
  function entries(tree: unknown, place: Place, entry: Entry): Test {
    if (!isObject(tree)) return fault(place, 'must be an object')
    if (place.level > MOST_LEVELS) return fault(place, `is nested deeper than ${MOST_LEVELS} levels`)
    const tests: Test[] = []
    for (const [name, value] of Object.entries(tree)) {
      if (isOver() || !count(place)) break
      if (name.length > LONGEST_NAME) fault(place, `holds a name of more than ${LONGEST_NAME} characters`)
      else tests.push(logical(name, value, below(place, name), entry))
    }
    return all(tests)
  }

  function logical(name: string, value: unknown, place: Place, entry: Entry): Test {
    switch (name) {
      case 'allOf':
      case 'and':
        return all(items(value, place, entry))
      case 'anyOf':
      case 'or':
        return any(items(value, place, entry))
      case 'not': {
        const test = entries(value, place, entry)
        return (scope, at) => !test(scope, at)
      }
      default:
        return entry(name, value, place)
    }
  }

  function items(list: unknown, place: Place, entry: Entry): Test[] {
    if (!Array.isArray(list)) return [fault(place, 'must be a list of conditions')]
    const tests: Test[] = []
    for (const [index, item] of list.entries()) {
      if (isOver() || !count(place)) break
      tests.push(entries(item, below(place, index), entry))
    }
    return tests
  }

  function count(place: Place): boolean {
    nodes++
    if (nodes > MOST_NODES) fault(place, `makes the condition larger than ${MOST_NODES} entries`)
    return nodes <= MOST_NODES
  }

  /** `user.age: {operators}` */
  const attribute: Entry = (name, value, place) => {
    const path = pathOf(name)
    if (!path) return fault(place, 'must be an attribute of user, resource, tenant, context or action')
    references.add(path.reference)
    const test = operators(value, place, isRoles(path))
    return (scope) => test(scope, readPath(path, scope))
  }

  /** `age: {operators}` inside `match` */
  const itemAttribute: Entry = (name, value, place) => {
    const segments = name.split('.')
    const test = operators(value, place, false)
    return (scope, item) => {
      const own = ownValue(item, name)
      return test(scope, own === undefined ? ownNested(item, segments) : own)
    }
  }

  function operators(value: unknown, place: Place, onRoles: boolean): Test {
    if (isObject(value) && Object.keys(value).length === 0) return fault(place, 'must name an operator')
    return entries(value, place, (name, operand, at) => {
      const matches = MATCHES.get(name)
      if (onRoles && (matches || !ignoresInstanceRoles(name, operand))) needsInstanceRoles = true
      return matches ? match(matches, operand, at) : comparison(name, operand, at)
    })
  }

  function comparison(name: string, operand: unknown, place: Place): Test {
    const operator = OPERATORS.get(name)
    if (!operator) return fault(place, 'is not an operator')
    if (isReference(operand)) {
      const path = pathOf(operand.ref)
      if (!path)
        return fault(below(place, 'ref'), 'must be an attribute of user, resource, tenant, context or action')
      references.add(path.reference)
      if (isRoles(path)) needsInstanceRoles = true
      return (scope, at) => {
        if (at === undefined) return false
        const other = readPath(path, scope)
        if (other === undefined || !scope.spend(stepsOf(at) + (Array.isArray(other) ? other.length : 1)))
          return false
        return operator.against(other)?.(at, scope) === true
      }
    }
    const excess = excessOf(operand, place)
    if (excess !== undefined) return fault(place, excess)
    const holds = operator.against(operand)
    if (!holds) return fault(place, `must be ${operator.operand}, or a ref`)
    return (scope, at) => at !== undefined && scope.spend(stepsOf(at)) && holds(at, scope)
  }

  /** What is too large about an operand. */
  function excessOf(operand: unknown, place: Place): string | undefined {
    const pending: [value: unknown, level: number][] = [[operand, place.level]]
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [value, level] = next
      if (++values > MOST_VALUES) return `makes the condition larger than ${MOST_VALUES} values`
      if (typeof value !== 'object' || value === null) continue
      if (level > MOST_LEVELS) return `is nested deeper than ${MOST_LEVELS} levels`
      const inner = Array.isArray(value) ? value : Object.values(value)
      if (values + pending.length + inner.length > MOST_VALUES)
        return `makes the condition larger than ${MOST_VALUES} values`
      for (const item of inner) pending.push([item, level + 1])
    }
    return undefined
  }

  function match(matches: Match, operand: unknown, place: Place): Test {
    if (!isObject(operand)) return fault(place, 'must be an object with match')
    for (const name of Object.keys(operand)) {
      if (name === 'match' || name === 'fk_resource_type') continue
      return fault(place, 'may hold match and fk_resource_type only')
    }
    const test = entries(operand['match'], below(place, 'match'), itemAttribute)
    const resource = operand['fk_resource_type']
    if (resource === undefined) return matches((scope, item) => isObject(item) && test(scope, item))
    if (typeof resource !== 'string' || resource === '')
      return fault(below(place, 'fk_resource_type'), 'must be the key of a resource')
    lookups.add(resource)
    return matches((scope, key) => {
      if (typeof key !== 'string' || key === '' || !scope.spend(STEPS_OF_LOOKUP)) return false
      const stored = scope.stored(resource, key)
      return stored !== undefined && test(scope, stored)
    })
  }

  return {
    faults,
    references,
    lookups,
    needsInstanceRoles: () => needsInstanceRoles,
    condition: (tree: unknown): Test => entries(tree, { pointer: '', level: 1 }, attribute),
  }
}

/** What it costs to look at a text, a kilobyte at a time, or at any other value from outside. */
const stepsOf = (value: unknown): number => (typeof value === 'string' ? 1 + (value.length >> 10) : 1)

const below = ({ pointer, level }: Place, name: string | number): Place => ({
  pointer: `${pointer}/${typeof name === 'number' ? name : name.replaceAll('~', '~0').replaceAll('/', '~1')}`,
  level: level + 1,
})

function all(tests: readonly Test[]): Test {
  const [only] = tests
  if (only && tests.length === 1) return only
  return (scope, at) => {
    for (const test of tests) if (!test(scope, at)) return false
    return true
  }
}

function any(tests: readonly Test[]): Test {
  return (scope, at) => {
    for (const test of tests) if (test(scope, at)) return true
    return false
  }
}

/** How the objects that a value holds must match. */
type Match = (test: Test) => Test

const onItems =
  (holds: typeof isSome): Match =>
  (test) =>
  (scope, at) =>
    Array.isArray(at) && holds(at, scope, (item) => test(scope, item))

const MATCHES: ReadonlyMap<string, Match> = new Map([
  ['object_match', (test: Test): Test => test],
  ['any_match', onItems(isSome)],
  ['all_match', onItems(isEvery)],
])

const isReference = (operand: unknown): operand is { readonly ref: unknown } =>
  isObject(operand) && Object.hasOwn(operand, 'ref') && Object.keys(operand).length === 1

type Path = {
  readonly bag: Bag
  readonly name: string
  /** The name in its parts, when it has a dot. */
  readonly first: string
  readonly rest: readonly string[]
  /** `bag.name`, the bag by its first name. */
  readonly reference: string
}

function pathOf(text: unknown): Path | undefined {
  if (typeof text !== 'string' || text.length > LONGEST_NAME) return undefined
  const dot = text.indexOf('.')
  const bag = BAGS.get(text.slice(0, Math.max(dot, 0)))
  const name = text.slice(dot + 1)
  if (bag === undefined || name === '') return undefined
  const [first = name, ...rest] = name.split('.')
  return { bag, name, first, rest, reference: `${bag}.${name}` }
}

const isRoles = ({ bag, first }: Path): boolean => bag === 'user' && first === 'roles'

/** An attribute may have a dot in its name; otherwise dots lead into the objects that attributes hold. */
function readPath({ bag, name, first, rest }: Path, scope: Scope): unknown {
  const value = scope.read(bag, name)
  return value !== undefined || rest.length === 0 ? value : ownNested(scope.read(bag, first), rest)
}

function ownNested(object: unknown, segments: readonly string[]): unknown {
  let value = object
  for (const segment of segments) value = ownValue(value, segment)
  return value
}

const WITHOUT_REGARD_TO_OTHERS = new Set(['array_contains', 'array_superset', 'array_intersect'])

/** True when it is the same to a comparison with `user.roles` whether further roles of the form `resource#role` are in it. */
const ignoresInstanceRoles = (operator: string, operand: unknown): boolean =>
  WITHOUT_REGARD_TO_OTHERS.has(operator) &&
  (Array.isArray(operand) ? operand : [operand]).every(
    (value) => typeof value === 'string' && !value.includes('#'),
  )
