type Json = Record<string, unknown>

/** True for an object that is no array and not null. */
export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What an object says under this name itself: nothing is ever read from a prototype. */
export const ownValue = (object: unknown, name: string): unknown =>
  isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined

/**
 * True when two JSON values are equal in type and content, whatever the order of names. A name with the value
 * `undefined` is not there. Values may be nested as deeply as a request can say; the work is that of the smaller one.
 */
export function isEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true
  return typeof one === 'object' && typeof other === 'object' && isEqualWithin(one, other)
}

function isEqualWithin(one: unknown, other: unknown): boolean {
  const left = [one]
  const right = [other]
  while (left.length > 0) {
    const a = left.pop()
    const b = right.pop()
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
      if (names.length !== namesOf(b).length) return false
      for (const name of names) {
        left.push(a[name])
        right.push(ownValue(b, name))
      }
    }
  }
  return true
}

const namesOf = (object: Json): string[] => Object.keys(object).filter((name) => object[name] !== undefined)

/** A set of JSON values. */
export type Values = { has(value: unknown): boolean }

/** The set of the values of a list, equal ones being one. */
export function valuesOf(list: readonly unknown[]): Values {
  const plain = new Set<unknown>()
  const nested = new Set<string>()
  for (const value of list) {
    if (typeof value === 'object' && value !== null) nested.add(canonical(value))
    else plain.add(value)
  }
  return {
    has: (value) =>
      typeof value === 'object' && value !== null
        ? nested.size > 0 && nested.has(canonical(value))
        : plain.has(value),
  }
}

/** A text that two JSON values share exactly when they are equal: each list and object is led by its size. */
function canonical(value: unknown): string {
  let text = ''
  const pending = [value]
  while (pending.length > 0) {
    const next = pending.pop()
    if (Array.isArray(next)) {
      text += `[${next.length};`
      for (const item of next) pending.push(item)
    } else if (isObject(next)) {
      const names = namesOf(next).sort()
      text += `{${names.length};`
      for (const name of names) pending.push(next[name], name)
    } else {
      text += `${typeof next === 'string' ? JSON.stringify(next) : String(next)},`
    }
  }
  return text
}
