import Type, { type Static, type TSchema } from 'typebox'
import { buildValidator } from '../http/validation.ts'
import { UsageError } from './command.ts'

type Validate = { (value: unknown): boolean; errors?: { instancePath: string; message?: string }[] | null }

/** Finds what is wrong with values by `schema`, as `faultsOf` does for one. */
export function faultFinder(schema: TSchema): (value: unknown) => string[] {
  // The compiler's own type wants a whole route and promises a Fastify result.
  const validate = buildValidator({})({ schema, httpPart: 'body' } as never) as unknown as Validate
  return (value) =>
    validate(value)
      ? []
      : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`.trim())
}

/**
 * What is wrong with `value` by `schema`, under the validator of the API's bodies: `/name must be string`.
 * Nothing when it fits.
 */
export const faultsOf = (schema: TSchema, value: unknown): string[] => faultFinder(schema)(value)

/** @throws UsageError unless `value` of the option `--name` is one that the API would take */
export function assertFits<T extends TSchema>(name: string, schema: T, value: Static<T>): void {
  const faults = faultsOf(Type.Object({ value: schema }), { value })
  if (faults.length > 0) {
    throw new UsageError(`--${name} ${faults.map((fault) => fault.replace('/value ', '')).join(', ')}`)
  }
}
