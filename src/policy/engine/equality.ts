type Json = Record<string, unknown>

/** True for an object that is no array and not null. */
export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What an object says under this name itself: nothing is ever read from a prototype. */
export const ownValue = (object: unknown, name: string): unknown =>
  isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined

/** The work that one decision may do to compare values. */
export type Effort = {
  /** False when so many steps are more than what is left; the decision is then a refusal, whatever else is answered. */
  spend(steps: number): boolean
}

/**
 * True when two JSON values are equal in type and content, whatever the order of names. A name with the value
 * `undefined` is not there. Values may be nested as deeply as a request can say; each pair that is looked at is a step.
 */
export function isEqual(one: unknown, other: unknown, effort: Effort): boolean {
  if (one === other) return true
  return typeof one === 'object' && typeof other === 'object' && isEqualWithin(one, other, effort)
}

function isEqualWithin(one: unknown, other: unknown, effort: Effort): boolean {
  const left = [one]
  const right = [other]
  while (left.length > 0) {
    const a = left.pop()
    const b = right.pop()
    if (!effort.spend(1)) return false
    if (a === b) continue
    if (Array.isArray(a)) {
      if (!Array.isArray(b) || a.length !== b.length) return false
      for (let i = 0; i < a.length; i++) {
        left.push(a[i])
        right.push(b[i])
      }
    } else {
      if (!isObject(a) || !isObject(b)) return false
      const names = namesOf(a)
      if (!effort.spend(names.length) || names.length !== namesOf(b).length) return false
      for (const name of names) {
        left.push(a[name])
        right.push(ownValue(b, name))
      }
    }
  }
  return true
}

const namesOf = (object: Json): string[] => Object.keys(object).filter((name) => object[name] !== undefined)

/** True when one of the items is as wished; each that is looked at is a step. */
export function isSome(
  list: readonly unknown[],
  effort: Effort,
  wished: (item: unknown) => boolean,
): boolean {
  for (const item of list) {
    if (!effort.spend(1)) return false
    if (wished(item)) return true
  }
  return false
}

/** True when all of the items are as wished; each that is looked at is a step. */
export function isEvery(
  list: readonly unknown[],
  effort: Effort,
  wished: (item: unknown) => boolean,
): boolean {
  for (const item of list) if (!effort.spend(1) || !wished(item)) return false
  return true
}

/** A set of JSON values. */
export type Values = { has(value: unknown, effort: Effort): boolean }

/** The set of the values of a list. */
export function valuesOf(list: readonly unknown[]): Values {
  const isNested = (value: unknown): boolean => typeof value === 'object' && value !== null
  const plain = new Set(list)
  const nested = list.filter(isNested)
  return {
    has: (value, effort) =>
      isNested(value) ? isSome(nested, effort, (one) => isEqual(one, value, effort)) : plain.has(value),
  }
}
