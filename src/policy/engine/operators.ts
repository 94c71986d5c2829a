import { isEqual, valuesOf } from './equality.ts'

/** The work that one decision may do on the lists that its conditions go through, one step per item. */
export type Effort = {
  /** False when so many steps are more than what is left; the decision is then a refusal. */
  spend(steps: number): boolean
}

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

const onLists = (against: (operand: readonly unknown[]) => (list: readonly unknown[]) => boolean): Operator =>
  operator('a list', isList, (operand) => {
    const holds = against(operand)
    return (value, effort) => isList(value) && effort.spend(value.length + operand.length) && holds(value)
  })

/**
 * Every operator that compares an attribute with a value. Types are strict: a number is never equal to a text, and
 * only numbers have an order.
 */
export const OPERATORS: ReadonlyMap<string, Operator> = new Map([
  ['equals', operator('a value', isAnything, (operand) => (value) => isEqual(value, operand))],
  ['not-equals', operator('a value', isAnything, (operand) => (value) => !isEqual(value, operand))],
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
      const values = valuesOf(operand)
      return (value) => values.has(value)
    }),
  ],
  [
    'array_contains',
    operator(
      'a value',
      isAnything,
      (operand) => (value, effort) =>
        isList(value) && effort.spend(value.length) && value.some((item) => isEqual(item, operand)),
    ),
  ],
  [
    'array_subset',
    onLists((operand) => {
      const values = valuesOf(operand)
      return (list) => list.every(values.has)
    }),
  ],
  ['array_superset', onLists((operand) => (list) => operand.every(valuesOf(list).has))],
  [
    'array_intersect',
    onLists((operand) => {
      const values = valuesOf(operand)
      return (list) => list.some(values.has)
    }),
  ],
])
