import type { Static, TSchema } from 'typebox'
import { parse, YAMLParseError } from 'yaml'
import { AppError, type FieldError } from '../errors.ts'
import { buildValidator } from '../http/validation.ts'
import { PolicyFileSchema } from './schema.ts'

type Validate = {
  (value: unknown): boolean
  errors?: { instancePath: string; message?: string; params?: { additionalProperty?: string } }[] | null
}

/** Aliases that a file may use: more are an attempt to make it very large (a "billion laughs"). */
const MAX_ALIASES = 100
const MAX_FAULTS = 100

/**
 * A reader of YAML, of which JSON is a part, that fits `schema` by the rules of the API's bodies. It throws
 * AppError validation_failed with a pointer into the file, or the line, for each fault.
 */
export function yamlReader<T extends TSchema>(schema: T): (text: string) => Static<T> {
  let compiled: Validate | undefined
  return (text) => {
    const value = parsed(text)
    // The compiler's own type wants a whole route and promises a Fastify result.
    compiled ??= buildValidator({})({ schema, httpPart: 'body' } as never) as unknown as Validate
    if (compiled(value)) return value as Static<T>
    throw new AppError('validation_failed', {
      errors: (compiled.errors ?? []).slice(0, MAX_FAULTS).map(faultOf),
    })
  }
}

/** A policy file from YAML. @throws AppError validation_failed */
export const readPolicyFile = yamlReader(PolicyFileSchema)

function faultOf({
  instancePath,
  message = 'is not valid',
  params,
}: NonNullable<Validate['errors']>[number]): FieldError {
  const unknown = params?.additionalProperty
  return unknown === undefined
    ? { pointer: `/body${instancePath}`, detail: message }
    : { pointer: `/body${instancePath}/${unknown}`, detail: 'is not known here' }
}

function parsed(text: string): unknown {
  try {
    return parse(text, { maxAliasCount: MAX_ALIASES, uniqueKeys: true, prettyErrors: true })
  } catch (error) {
    const reason =
      error instanceof YAMLParseError ? (error.message.split('\n', 1)[0] ?? '') : 'too many aliases'
    throw new AppError('validation_failed', {
      errors: [{ pointer: '/body', detail: `is not valid YAML: ${reason}` }],
      cause: error,
    })
  }
}
