import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type Static, type TSchema } from 'typebox'
import type { ProblemCode } from '../errors.ts'
import { fail } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { DefinitionsService } from '../resources/definitions.ts'
import type { DefinitionRow } from '../resources/definitions-repository.ts'
import type { ResourcesService } from '../resources/service.ts'
import type { Services } from '../services.ts'
import { named, resourceNamed } from './lookup.ts'
import { dashed } from './names.ts'
import { placeOf } from './place.ts'
import {
  actionChanges,
  CreateActionBody,
  CreateActionGroupBody,
  CreateAttributeBody,
  CreateRelationBody,
  groupChanges,
  presentAction,
  presentActionGroup,
  presentAttribute,
  presentRelation,
  UpdateActionBody,
  UpdateActionGroupBody,
  UpdateAttributeBody,
  USER_RESOURCE,
} from './resources-schemas.ts'
import { ListQuery } from './roles-schemas.ts'
import { listed, Name, type PlaceIds } from './schemas.ts'

const READ: Access = { permission: 'postern.policy:read' }
const WRITE: Access = { permission: 'postern.policy:write' }

/** What a definition is on. `resourceId` null: it is one of users. */
type Owner = { id: string; key: string; resourceId: string | null }

/** One kind of definition as it is offered. */
type Offer<Row extends DefinitionRow, New, Changes, Create extends TSchema, Update extends TSchema> = {
  /** Path of the list. */
  path: string
  service: (resources: ResourcesService) => DefinitionsService<Row, New, Changes>
  ownerOf: (request: FastifyRequest, resources: ResourcesService) => Promise<Owner>
  notFound: ProblemCode
  createBody: Create
  inputOf: (body: Static<Create>, resources: ResourcesService) => New | Promise<New>
  /** Absent: it cannot be changed. */
  update?: { body: Update; changesOf: (body: Static<Update>) => Changes }
  present: (row: Row, owner: Owner, place: PlaceIds) => object
}

/** Actions, action groups, attributes and relations of resources, and attributes of users. By keys or ids. */
export function definitionsRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    offer(app, {
      path: '/resources/:resource_id/actions',
      service: ({ actions }) => actions,
      ownerOf: resourceOf,
      notFound: 'action_not_found',
      createBody: CreateActionBody,
      inputOf: ({ key, ...fields }) => ({ ...actionChanges(fields), key }),
      update: { body: UpdateActionBody, changesOf: actionChanges },
      present: presentAction,
    })
    offer(app, {
      path: '/resources/:resource_id/action_groups',
      service: ({ actionGroups }) => actionGroups,
      ownerOf: resourceOf,
      notFound: 'action_group_not_found',
      createBody: CreateActionGroupBody,
      inputOf: ({ key, ...fields }) => ({ ...groupChanges(fields), key }),
      update: { body: UpdateActionGroupBody, changesOf: groupChanges },
      present: presentActionGroup,
    })
    for (const [path, ownerOf] of [
      ['/resources/:resource_id/attributes', resourceOrUsersOf],
      ['/users/attributes', async () => USERS],
    ] as const) {
      offer(app, {
        path,
        service: ({ attributes }) => attributes,
        ownerOf,
        notFound: 'attribute_not_found',
        createBody: CreateAttributeBody,
        inputOf: ({ key, type, description = null }) => ({ key, type, description }),
        update: {
          body: UpdateAttributeBody,
          changesOf: ({ type, description }) => ({
            ...(type != null && { type }),
            ...(description !== undefined && { description }),
          }),
        },
        present: presentAttribute,
      })
    }
    offer(app, {
      path: '/resources/:resource_id/relations',
      service: ({ relations }) => relations,
      ownerOf: resourceOf,
      notFound: 'relation_not_found',
      createBody: CreateRelationBody,
      inputOf: async ({ key, subject_resource: subject, ...fields }, resources) => ({
        ...actionChanges(fields),
        key,
        subjectResource: (await resourceNamed(resources, subject)).id,
      }),
      present: presentRelation,
    })
  }

  /** Registers the routes of one kind. */
  function offer<Row extends DefinitionRow, New, Changes, Create extends TSchema, Update extends TSchema>(
    app: FastifyInstance,
    kind: Offer<Row, New, Changes, Create, Update>,
  ): void {
    const { path, service, ownerOf, present, update } = kind
    const owned = path.includes(':resource_id') ? { resource_id: Name } : {}
    const params = Type.Object(owned)
    const oneParams = Type.Object({ ...owned, definition_id: Name })

    const open = async (request: FastifyRequest) => {
      const { resources } = modelOf(request.environmentId)
      const owner = await ownerOf(request, resources)
      const definitions = service(resources)
      const find = async () =>
        (await named(
          // Ajv has checked the parameters.
          (request.params as { definition_id: string }).definition_id,
          async (keyOrId) => await definitions.findNamed(owner.resourceId, keyOrId),
        )) ?? fail(kind.notFound)
      return {
        resources,
        owner,
        definitions,
        find,
        show: (row: Row) => present(row, owner, placeOf(request)),
      }
    }

    app.get(
      path,
      { config: { access: READ }, schema: { hide: true, params, querystring: ListQuery } },
      async (request) => {
        // Ajv has checked it against this schema, and the body below against its own.
        const query = request.query as Static<typeof ListQuery>
        const { page, per_page: perPage, include_total_count: total } = query
        const { owner, definitions, show } = await open(request)
        const clauses = { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total }
        const found = await definitions.list(owner.resourceId, {}, clauses)
        return listed(found.items.map(show), found.total, perPage)
      },
    )

    app.post(
      path,
      { config: { access: WRITE }, schema: { hide: true, params, body: kind.createBody } },
      async (request) => {
        const { resources, owner, definitions, show } = await open(request)
        const input = await kind.inputOf(request.body as Static<Create>, resources)
        return show(await definitions.create(callerOf(request), owner.resourceId, input))
      },
    )

    app.get(
      `${path}/:definition_id`,
      { config: { access: READ }, schema: { hide: true, params: oneParams } },
      async (request) => {
        const { find, show } = await open(request)
        return show(await find())
      },
    )

    if (update) {
      app.patch(
        `${path}/:definition_id`,
        { config: { access: WRITE }, schema: { hide: true, params: oneParams, body: update.body } },
        async (request) => {
          const { owner, definitions, find, show } = await open(request)
          const changes = update.changesOf(request.body as Static<Update>)
          const { id } = await find()
          return show(await definitions.update(callerOf(request), owner.resourceId, id, changes))
        },
      )
    }

    app.delete(
      `${path}/:definition_id`,
      { config: { access: WRITE }, schema: { hide: true, params: oneParams } },
      async (request, reply) => {
        const { owner, definitions, find } = await open(request)
        await definitions.remove(callerOf(request), owner.resourceId, (await find()).id)
        return await reply.code(204).send()
      },
    )
  }
}

const USERS: Owner = { ...USER_RESOURCE, resourceId: null }

async function resourceOf(request: FastifyRequest, resources: ResourcesService): Promise<Owner> {
  const row = await resourceNamed(resources, nameOf(request))
  return { id: row.id, key: row.key, resourceId: row.id }
}

const resourceOrUsersOf = async (request: FastifyRequest, resources: ResourcesService): Promise<Owner> =>
  [USER_RESOURCE.id, USER_RESOURCE.key].includes(dashed(nameOf(request)))
    ? USERS
    : await resourceOf(request, resources)

// Ajv has checked the parameters.
const nameOf = ({ params }: FastifyRequest): string => (params as { resource_id: string }).resource_id
