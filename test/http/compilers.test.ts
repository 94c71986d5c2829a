import SerializerSelector from '@fastify/fast-json-stringify-compiler'
import type { FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { type App, buildApp } from '../../src/app.ts'
import { AppError } from '../../src/errors.ts'
import { buildValidator } from '../../src/http/validation.ts'
import { createServices } from '../../src/services.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'

type Options = Pick<FastifyServerOptions, 'schemaController'>
type Part = { method: string; url: string; httpPart?: string; httpStatus?: string; schema: unknown }

/** The application over a database that nobody asks. */
async function anApp(t: Test, options: Options = {}): Promise<App> {
  const services = createServices(testConfig(), {
    databaseUrl: 'postgres://127.0.0.1:1/none',
    secretKey: SECRET_KEY,
  })
  const app = await buildApp(services, { logger: false, ...options })
  t.teardown(async () => {
    await app.close()
    await services.close()
  })
  return app
}

const BAD_VALIDATOR = { type: 'nonsense' }
const BAD_SERIALIZER = { type: 'object', properties: { id: { $ref: 'nowhere#' } } }
const PUBLIC = { config: { access: 'public' } } as const

t.test('every schema of every route can be compiled', async (t) => {
  let compiled = 0
  const failed: string[] = []
  /** Compiles at once, as Fastify does by itself, and notes what cannot be. */
  const noting =
    <Shared extends unknown[], R, Compiled>(build: (...shared: Shared) => (route: R) => Compiled) =>
    (...shared: Shared) => {
      const compile = build(...shared)
      const known = new Map<string, Compiled>()
      return (route: R): Compiled => {
        // What Fastify hands over, which the types of the two compilers say in part.
        const { method, url, httpPart, httpStatus, schema } = route as Part
        const key = JSON.stringify([httpPart, schema])
        try {
          const made = known.get(key) ?? compile(route)
          known.set(key, made)
          compiled++
          return made
        } catch {
          failed.push(`${method} ${url} ${httpPart ?? httpStatus}`)
          return (() => '') as Compiled
        }
      }
    }
  const app = await anApp(t, {
    schemaController: {
      compilersFactory: {
        buildValidator: noting(buildValidator),
        buildSerializer: noting(SerializerSelector()),
      },
    },
  })
  const schema = { body: BAD_VALIDATOR, response: { 200: BAD_SERIALIZER } }
  app.post('/planted', { ...PUBLIC, schema }, () => ({}))
  await app.ready()

  t.same(
    failed.sort(),
    ['POST /planted 200', 'POST /planted body'],
    'the ones that are planted, and no other',
  )
  t.ok(compiled > 1000, `${compiled} schemas`)
})

t.test('a schema that cannot be compiled ends no process and is an error of its route alone', async (t) => {
  const app = await anApp(t)
  const hook = async () => {}
  const hooks = { ...PUBLIC, preValidation: hook, preHandler: hook, onSend: hook }
  const response = { '2xx': BAD_SERIALIZER, '4xx': BAD_SERIALIZER, '5xx': BAD_SERIALIZER }
  const strict = { type: 'object', required: ['a'] }
  for (const part of ['body', 'querystring', 'params', 'headers'])
    app.post(`/planted/${part}`, { ...hooks, schema: { [part]: BAD_VALIDATOR } }, () => ({}))
  app.post('/planted/async', { ...hooks, schema: { response } }, async () => ({}))
  app.post('/planted/sent', { ...hooks, schema: { response } }, (_request, reply) => void reply.send({}))
  app.post('/planted/refused', { ...hooks, schema: { response } }, async () => {
    throw new AppError('user_not_found')
  })
  app.post('/planted/invalid', { ...hooks, schema: { response, body: strict } }, async () => ({}))

  const expected = {
    ...{ body: 500, querystring: 500, params: 500, headers: 500, async: 500, sent: 500 },
    // Problems are written without a schema.
    ...{ refused: 404, invalid: 422 },
  }
  for (const [route, status] of Object.entries(expected)) {
    const answer = await app.inject({ method: 'POST', url: `/planted/${route}`, payload: {} })
    t.equal(answer.statusCode, status, route)
  }
  t.equal((await app.inject('/health/live')).statusCode, 200)
})
