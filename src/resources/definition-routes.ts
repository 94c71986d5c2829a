import type { FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type Static, type TSchema } from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { NoContent, problem, ref, Uuid } from '../http/schemas.ts'
import type { DefinitionsService } from './definitions.ts'
import type { DefinitionRow } from './definitions-repository.ts'
import { ListDefinitionsQuery } from './schemas.ts'

/** One kind of definition as it is offered: five routes under a resource, or under /api/v1 itself for users. */
type Offer<Row extends DefinitionRow, Shown extends TSchema, New extends TSchema, Changes extends TSchema> = {
  /** Path of the list, with `:resource_id` or without. */
  path: string
  /** The path parameter of one definition. */
  param: string
  /** What the operations are called: `listActions`, `createAction`. */
  names: { one: string; many: string }
  /** What the summaries say: `an action of a resource`. */
  words: { one: string; many: string; place: string }
  schema: Shown
  createBody: New
  updateBody: Changes
  whatItsDeletionTakes: string
  present: (row: Row) => Static<Shown>
  service: (request: FastifyRequest) => {
    [Name in keyof Pick<
      DefinitionsService<Row, Static<New>, Static<Changes>>,
      'list' | 'get' | 'remove'
    >]: DefinitionsService<Row, Static<New>, Static<Changes>>[Name]
  } & {
    create(caller: ReturnType<typeof callerOf>, resourceId: string | null, input: Static<New>): Promise<Row>
    update(
      caller: ReturnType<typeof callerOf>,
      resourceId: string | null,
      id: string,
      changes: Static<Changes>,
    ): Promise<Row>
  }
}

const read = { access: { permission: 'postern.policy:read' } } as const
const write = { access: { permission: 'postern.policy:write' } } as const

/** Registers the routes of one kind of definition. */
export function definitionRoutes<
  Row extends DefinitionRow,
  Shown extends TSchema,
  New extends TSchema,
  Changes extends TSchema,
>(app: FastifyInstance, offer: Offer<Row, Shown, New, Changes>): void {
  const { path, param, names, words, schema, present, service } = offer
  const isOnResource = path.includes(':resource_id')
  const onResource = isOnResource ? { resource_id: Uuid } : {}
  const params = isOnResource ? { params: Type.Object(onResource) } : {}
  const oneParams = { params: Type.Object({ ...onResource, [param]: Uuid }) }
  const missing = problem(isOnResource ? `No such resource or ${words.one}` : `No such ${words.one}`)
  const shown = ref(schema)

  // Ajv has checked the parameters and the body against the schemas above them.
  const ownerOf = (request: FastifyRequest) =>
    (request.params as { resource_id?: string }).resource_id ?? null
  const idOf = (request: FastifyRequest) => (request.params as Record<string, string>)[param] ?? ''

  app.get(
    path,
    {
      config: read,
      schema: {
        operationId: `list${names.many}`,
        tags: ['Policy'],
        summary: `List the ${words.many} of ${words.place}`,
        ...params,
        querystring: ListDefinitionsQuery,
        response: { 200: Type.Array(shown), ...(isOnResource && { 404: problem('No such resource') }) },
      },
    },
    async (request, reply) => {
      const query = request.query as Static<typeof ListDefinitionsQuery>
      const filters = query.key === undefined ? {} : { key: query.key }
      const page = await service(request).list(ownerOf(request), filters, pageRequestOf(query))
      return sendPage(request, reply, page, present)
    },
  )

  app.post(
    path,
    {
      config: write,
      schema: {
        operationId: `create${names.one}`,
        tags: ['Policy'],
        summary: `Define one of the ${words.many} of ${words.place}`,
        ...params,
        body: offer.createBody,
        response: {
          201: shown,
          ...(isOnResource && { 404: problem('No such resource') }),
          409: problem('The key is taken, or there are too many'),
        },
      },
    },
    async (request, reply) => {
      const row = await service(request).create(
        callerOf(request),
        ownerOf(request),
        request.body as Static<New>,
      )
      const list = request.url.split('?')[0]?.replace(/\/$/, '')
      return reply.code(201).header('location', `${list}/${row.id}`).send(present(row))
    },
  )

  app.get(
    `${path}/:${param}`,
    {
      config: read,
      schema: {
        operationId: `get${names.one}`,
        tags: ['Policy'],
        summary: `One of the ${words.many} of ${words.place}`,
        ...oneParams,
        response: { 200: shown, 404: missing },
      },
    },
    async (request) => present(await service(request).get(ownerOf(request), idOf(request))),
  )

  app.patch(
    `${path}/:${param}`,
    {
      config: write,
      schema: {
        operationId: `update${names.one}`,
        tags: ['Policy'],
        summary: `Change one of the ${words.many} of ${words.place}: absent fields stay, the key too`,
        ...oneParams,
        body: offer.updateBody,
        response: { 200: shown, 404: missing },
      },
    },
    async (request) =>
      present(
        await service(request).update(
          callerOf(request),
          ownerOf(request),
          idOf(request),
          request.body as Static<Changes>,
        ),
      ),
  )

  app.delete(
    `${path}/:${param}`,
    {
      config: write,
      schema: {
        operationId: `delete${names.one}`,
        tags: ['Policy'],
        summary: `Delete one of the ${words.many} of ${words.place}${offer.whatItsDeletionTakes}`,
        ...oneParams,
        response: { 204: NoContent, 404: missing },
      },
    },
    async (request, reply) => {
      await service(request).remove(callerOf(request), ownerOf(request), idOf(request))
      return reply.code(204).send(null)
    },
  )
}
