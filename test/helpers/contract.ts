import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import type { LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import type { Client, Method, TestApp } from './app.ts'

export type Schema = {
  $ref?: string
  type?: string | string[]
  properties?: Record<string, Schema>
  required?: string[]
  examples?: unknown[]
  enum?: unknown[]
  items?: Schema
}
type Media = { schema?: Schema; example?: unknown }
type Content = Record<string, Media>
type Parameter = { name: string; in: 'path' | 'query' | 'header'; required?: boolean; schema: Schema }
export type Operation = {
  operationId?: string
  summary?: string
  tags?: string[]
  security?: Record<string, string[]>[]
  parameters?: Parameter[]
  requestBody?: { required?: boolean; content: Content }
  responses: Record<string, { description?: string; content?: Content }>
}
export type Document = {
  openapi: string
  tags: { name: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema>; securitySchemes: Record<string, object> }
}
type Named = { name: string; method: Method; path: string; operation: Operation }

export const documentOf = async ({ anonymous }: TestApp): Promise<Document> =>
  (await anonymous.get('/api/v1/openapi.json')).json<Document>()

export const operationsOf = (document: Document): Named[] =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      method: method.toUpperCase() as Method,
      path,
      operation,
    })),
  )

/** The document as a check of responses: `checked` clients hold each answer against it. */
export async function contractOf(t: Test, postern: TestApp) {
  const document = await documentOf(postern)
  const operations = operationsOf(document)
  const ajv = validatorOf(document)
  const validators = new Map<string, ValidateFunction>()
  const reached = new Set<string>()

  function check(method: string, url: string, response: LightMyRequestResponse): void {
    const operation = findOperation(operations, method, url.split('?')[0] ?? '')
    const status = String(response.statusCode)
    const what = `${operation?.name ?? `${method} ${url}`} ${status}`
    const expected = operation?.operation.responses[status]
    reached.add(what)
    if (!expected || response.statusCode === 500) {
      t.fail(`${what} is not in the document`, { url: url.slice(0, 300), body: response.body.slice(0, 300) })
      return
    }
    const type = String(response.headers['content-type'] ?? '').split(';')[0] ?? ''
    if (!expected.content) {
      if (response.body !== '' || type !== '')
        t.fail(`${what} has a body`, { type, body: response.body.slice(0, 300) })
      return
    }
    const schema = expected.content[type]?.schema
    if (!schema) {
      t.fail(`${what} is ${type}, not ${Object.keys(expected.content)}`, {
        body: response.body.slice(0, 300),
      })
      return
    }
    const validate = validators.get(`${what} ${type}`) ?? ajv.compile(closed(schema, document))
    validators.set(`${what} ${type}`, validate)
    const body: unknown = type.endsWith('json') ? JSON.parse(response.body) : response.body
    if (!validate(body))
      t.fail(`${what}: ${ajv.errorsText(validate.errors)}`, { body: response.body.slice(0, 300) })
  }

  return {
    operations,
    reached: (name: string, status: string): boolean => reached.has(`${name} ${status}`),
    checked(client: Client): Client {
      const send: Client['send'] = async (method, url, payload, headers) => {
        const response = await client.send(method, url, payload, headers)
        check(method, url, response)
        return response
      }
      return {
        send,
        get: async (url, headers) => await send('GET', url, undefined, headers),
        post: async (url, body, headers) => await send('POST', url, body, headers),
        put: async (url, body, headers) => await send('PUT', url, body, headers),
        patch: async (url, body, headers) => await send('PATCH', url, body, headers),
        delete: async (url, headers) => await send('DELETE', url, undefined, headers),
      }
    },
  }
}

/** The operation that a request reaches: fixed segments win over parameters. */
function findOperation(operations: Named[], method: string, url: string): Named | undefined {
  const segments = url.replace(/\/$/, '').split('/')
  const matches = (path: string): boolean => {
    const parts = path.split('/')
    return (
      parts.length === segments.length &&
      parts.every((part, index) => part.startsWith('{') || part === segments[index])
    )
  }
  return operations
    .filter((one) => one.method === method && matches(one.path))
    .sort((a, b) => a.path.split('{').length - b.path.split('{').length)[0]
}

export function validatorOf(document: Document): Ajv2020 {
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  addFormats.default(ajv)
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    ajv.addSchema(schema, `#/components/schemas/${name}`)
  }
  return ajv
}

/** The schema with every object closed that does not say it is open: an answer may hold nothing undocumented. */
function closed(schema: Schema, document: Document): Schema {
  const { $ref, ...rest } = schema
  if ($ref !== undefined)
    return closed(document.components.schemas[$ref.split('/').at(-1) ?? ''] ?? {}, document)
  const inner = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(inner)
    return typeof value === 'object' && value !== null ? closed(value as Schema, document) : value
  }
  const copy = Object.fromEntries(
    Object.entries(rest).map(([key, value]) => [key, key === 'examples' ? value : inner(value)]),
  )
  return 'properties' in copy && !('additionalProperties' in copy)
    ? ({ ...copy, unevaluatedProperties: false } as Schema)
    : (copy as Schema)
}

/** The example of a body, or one made of the examples of its required properties. */
export function exampleOf({ schema, example }: Media): Record<string, unknown> {
  if (example !== undefined) return example as Record<string, unknown>
  const { properties = {}, required = [] } = schema ?? {}
  return Object.fromEntries(required.map((name) => [name, properties[name]?.examples?.[0]]))
}

export const bodyExampleOf = ({ requestBody }: Operation): Record<string, unknown> | undefined =>
  requestBody && exampleOf(Object.values(requestBody.content)[0] ?? {})
