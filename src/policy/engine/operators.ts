import { type Effort, isEqual, isEvery, isSome, valuesOf } from './equality.ts'

/** Whether an attribute that is there compares as wished. */
type Comparison = (value: unknown, effort: Effort) => boolean

type Operator = {
  /** What the operand must be, as the end of a sentence. */
  readonly operand: string
  /** The comparison with an operand; `undefined` when it is of the wrong type. */
  readonly against: (operand: unknown) => Comparison | undefined
}

function operator<T>(
  operand: string,
  isOperand: (value: unknown) => value is T,
  against: (operand: T) => Comparison,
): Operator {
  return { operand, against: (value) => (isOperand(value) ? against(value) : undefined) }
}

const isAnything = (value: unknown): value is unknown => value !== undefined
const isNumber = (value: unknown): value is number => typeof value === 'number'
const isString = (value: unknown): value is string => typeof value === 'string'
const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value)
const isRange = (value: unknown): value is readonly [number, number] =>
  isList(value) && value.length === 2 && value.every(isNumber)

const onNumbers = (holds: (value: number, operand: number) => boolean): Operator =>
  operator('a number', isNumber, (operand) => (value) => isNumber(value) && holds(value, operand))

type ListComparison = (list: readonly unknown[], effort: Effort) => boolean

const onLists = (against: (operand: readonly unknown[]) => ListComparison): Operator =>
  operator('a list', isList, (operand) => {
    const holds = against(operand)
    return (value, effort) => isList(value) && holds(value, effort)
  })

/**
 * Every operator that compares an attribute with a value. Types are strict: a number is never equal to a text, and
 * only numbers have an order.
 */
export const OPERATORS: ReadonlyMap<string, Operator> = new Map([
  [
    'equals',
    operator('a value', isAnything, (operand) => (value, effort) => isEqual(value, operand, effort)),
  ],
  [
    'not-equals',
    operator('a value', isAnything, (operand) => (value, effort) => !isEqual(value, operand, effort)),
  ],
  ['less-than', onNumbers((value, operand) => value < operand)],
  ['less-than-equals', onNumbers((value, operand) => value <= operand)],
  ['greater-than', onNumbers((value, operand) => value > operand)],
  ['greater-than-equals', onNumbers((value, operand) => value >= operand)],
  [
    'between',
    operator(
      'a list of two numbers',
      isRange,
      ([least, most]) =>
        (value) =>
          isNumber(value) && least <= value && value <= most,
    ),
  ],
  [
    'contains',
    operator('a text', isString, (operand) => (value) => isString(value) && value.includes(operand)),
  ],
  [
    'in',
    operator('a list', isList, (operand) => {
      const { has } = valuesOf(operand)
      return has
    }),
  ],
  [
    'array_contains',
    operator(
      'a value',
      isAnything,
      (operand) => (value, effort) =>
        isList(value) && isSome(value, effort, (item) => isEqual(item, operand, effort)),
    ),
  ],
  [
    'array_subset',
    onLists((operand) => {
      const values = valuesOf(operand)
      return (list, effort) => isEvery(list, effort, (item) => values.has(item, effort))
    }),
  ],
  [
    'array_superset',
    onLists((operand) => (list, effort) => {
      if (!effort.spend(list.length)) return false
      const values = valuesOf(list)
      return isEvery(operand, effort, (item) => values.has(item, effort))
    }),
  ],
  [
    'array_intersect',
    onLists((operand) => {
      const values = valuesOf(operand)
      return (list, effort) => isSome(list, effort, (item) => values.has(item, effort))
    }),
  ],
])
