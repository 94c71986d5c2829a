import type { FastifyServerOptions } from 'fastify'
import { buildSerializer } from '../../src/http/serialization.ts'
import { buildValidator } from '../../src/http/validation.ts'

type Validate = { (data: unknown): unknown; errors?: readonly object[] | null | undefined }

/**
 * The service's own compilers of schemas, for the many applications of one test file: a schema is compiled when a
 * request first needs it, and once for all of them. A test uses few of the several hundred routes, and to compile
 * them all takes longer than most tests. `postern serve`, which other tests start, compiles everything at once.
 */
export const sharedCompilers: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: {
    buildValidator: whenNeeded(buildValidator, (compiled) => {
      const validate: Validate = (data) => {
        const made = compiled()
        const isValid = made(data)
        validate.errors = made.errors
        return isValid
      }
      // Fastify calls it and reads its errors; the type promises more of Ajv's.
      return validate as ReturnType<typeof compiled>
    }),
    buildSerializer: whenNeeded(buildSerializer, (compiled) => (data) => compiled()(data)),
  },
}

function whenNeeded<Shared extends unknown[], Route, Compiled>(
  build: (...shared: Shared) => (route: Route) => Compiled,
  standIn: (compiled: () => Compiled) => Compiled,
): (...shared: Shared) => (route: Route) => Compiled {
  const scopes = new Map<string, { compile: (route: Route) => Compiled; made: Map<string, Compiled> }>()
  return (...shared) => {
    let name: string | undefined
    return (route) => {
      let own: Compiled | undefined
      return standIn(() => {
        if (own) return own
        name ??= JSON.stringify(shared)
        const { compile, made } = scopes.get(name) ?? { compile: build(...shared), made: new Map() }
        scopes.set(name, { compile, made })
        const key = JSON.stringify(route)
        const one = made.get(key) ?? compile(route)
        made.set(key, one)
        own = one
        return one
      })
    }
  }
}
