import AjvCompiler from '@fastify/ajv-compiler'

const buildWithAjv = AjvCompiler()
type ExternalSchemas = Parameters<typeof buildWithAjv>[0]
type ValidatorOptions = NonNullable<Parameters<typeof buildWithAjv>[1]>
type Ajv = Parameters<NonNullable<ValidatorOptions['onCreate']>>[0]
type Compile = ReturnType<typeof buildWithAjv>
/** What Fastify really hands to the compiler and takes from it; the types of the package say less. */
type Part = { httpPart?: string; schema: { properties?: Record<string, { format?: string }> } }
type Validate = { (data: unknown): boolean; errors?: readonly object[] | null }

const options = (coerceTypes: boolean): ValidatorOptions => ({
  customOptions: { coerceTypes, removeAdditional: false, useDefaults: true, allErrors: true },
  onCreate: (ajv: Ajv) => {
    ajv.addFormat('date-time', isTimestamp)
    ajv.addFormat('uuid', /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i)
  },
})

/**
 * Bodies are taken as they are: `"5"` is no number and an unknown field is an error, not dropped. Queries, paths
 * and headers are text by nature, so their numbers and booleans are read from it.
 */
export function buildValidator(externalSchemas: ExternalSchemas): Compile {
  const strict = buildWithAjv(externalSchemas, options(false))
  const coercing = buildWithAjv(externalSchemas, options(true))
  return (route) => {
    const { httpPart, schema } = route as Part
    const isBody = httpPart === 'body'
    const validate = (isBody ? strict : coercing)(route) as Validate
    return withLowerCaseUuids(isBody ? withoutDeepNesting(validate) : validate, schema) as ReturnType<Compile>
  }
}

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/

/**
 * A time that JavaScript and Postgres read from each other without loss: no leap second, and in UTC a year from
 * 1970 (before, Postgres may print offsets with seconds and years that JavaScript takes for others) to 9999.
 */
function isTimestamp(text: string): boolean {
  if (!RFC3339.test(text)) return false
  const [time, day] = [new Date(text), new Date(`${text.slice(0, 10)}T00:00:00Z`)]
  if (Number.isNaN(time.getTime()) || Number.isNaN(day.getTime())) return false
  const year = time.getUTCFullYear()
  // The 30th of February is read as a day of March.
  return year >= 1970 && year <= 9999 && day.toISOString().slice(0, 10) === text.slice(0, 10)
}

/** UUIDs may come in either case (RFC 9562 §4); further in they are compared as text, in lower case. */
function withLowerCaseUuids(validate: Validate, { properties = {} }: Part['schema']): Validate {
  const names = Object.keys(properties).filter((name) => properties[name]?.format === 'uuid')
  if (names.length === 0) return validate
  return wrap(validate, (data) => {
    if (!validate(data)) return false
    const fields = data as Record<string, unknown>
    for (const name of names) {
      const value = fields[name]
      if (typeof value === 'string') fields[name] = value.toLowerCase()
    }
    return true
  })
}

/** How far a body may be nested: what writes it as JSON again, here and in Postgres, is recursive. */
const MAX_DEPTH = 64

function withoutDeepNesting(validate: Validate): Validate {
  return wrap(validate, (data) => {
    if (!isDeeperThan(MAX_DEPTH, data)) return validate(data)
    const message = `must not be nested deeper than ${MAX_DEPTH} levels`
    validate.errors = [{ instancePath: '', schemaPath: '', keyword: 'maxDepth', params: {}, message }]
    return false
  })
}

function isDeeperThan(levels: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(levels - 1, inner))
}

/** A validator that runs `check` and reports the errors of `validate`. */
function wrap(validate: Validate, check: (data: unknown) => boolean): Validate {
  const wrapped: Validate = (data) => {
    const isValid = check(data)
    wrapped.errors = isValid ? null : (validate.errors ?? null)
    return isValid
  }
  return wrapped
}
