import { AppError } from '../errors.ts'

/** The parameters of a form. Those without a value are as if they were not sent (RFC 6749 §3.2). */
export type Form = {
  get(name: string): string | undefined
  /** Of a parameter that may be repeated. */
  all(name: string): readonly string[]
}

/** RFC 8707 §2, RFC 8693 §2.1: a token may be for several services. */
const REPEATABLE = new Set(['resource', 'audience'])

/** Reads `application/x-www-form-urlencoded`. @throws AppError invalid_request when a parameter is there twice */
export function readForm(text: string): Form {
  const values = new Map<string, string[]>()
  for (const [name, value] of new URLSearchParams(text)) {
    if (value === '') continue
    const known = values.get(name)
    if (known === undefined) values.set(name, [value])
    else if (REPEATABLE.has(name)) known.push(value)
    else throw new AppError('invalid_request', { detail: `The parameter ${name} is there more than once` })
  }
  return { get: (name) => values.get(name)?.[0], all: (name) => values.get(name) ?? [] }
}
