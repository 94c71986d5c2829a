import SerializerSelector from '@fastify/fast-json-stringify-compiler'
import type { FastifyServerOptions } from 'fastify'
import { buildValidator } from './validation.ts'

type SchemaController = NonNullable<FastifyServerOptions['schemaController']>
type Validate = { (data: unknown): unknown; errors?: readonly object[] | null | undefined }
/** What Fastify hands over besides the schema differs from route to route, and changes nothing of what is made. */
type Route = { schema: unknown; httpPart?: string }

/**
 * What makes validators and serializers of schemas, each when a request first needs it and once for all routes that
 * declare the same. To make those of all routes at the start takes a third of it, and the memory of what nobody asks for.
 */
export function createCompilers(): SchemaController {
  return {
    compilersFactory: {
      buildValidator: whenNeeded(buildValidator, (made) => {
        const validate: Validate = (data) => {
          const one = made()
          const isValid = one(data)
          validate.errors = one.errors
          return isValid
        }
        // Fastify calls it and reads its errors; the type promises more of Ajv's.
        return validate as ReturnType<typeof made>
      }),
      buildSerializer: whenNeeded(SerializerSelector(), (made) => (data) => made()(data)),
    },
  }
}

/** Compilers that give stand-ins, whose first use makes what they stand for. */
function whenNeeded<Shared extends unknown[], R, Compiled>(
  build: (...shared: Shared) => (route: R) => Compiled,
  standIn: (made: () => Compiled) => Compiled,
): (...shared: Shared) => (route: R) => Compiled {
  const scopes = new Map<string, { compile: (route: R) => Compiled; made: Map<string, Compiled> }>()
  return (...shared) => {
    let name: string | undefined
    return (route) => {
      let own: Compiled | undefined
      return standIn(() => {
        if (own !== undefined) return own
        name ??= JSON.stringify(shared)
        const scope = scopes.get(name) ?? { compile: build(...shared), made: new Map<string, Compiled>() }
        scopes.set(name, scope)
        const { schema, httpPart } = route as Route
        const key = JSON.stringify([httpPart, schema])
        own = scope.made.get(key) ?? scope.compile(route)
        scope.made.set(key, own)
        return own
      })
    }
  }
}
