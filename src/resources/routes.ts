import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { IfMatchHeaders, NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import { definitionRoutes } from './definition-routes.ts'
import {
  ActionGroupSchema,
  ActionSchema,
  AttributeSchema,
  CreateActionBody,
  CreateActionGroupBody,
  CreateAttributeBody,
  CreateDerivationBody,
  CreateRelationBody,
  CreateResourceBody,
  CreateResourceRoleBody,
  DerivationParams,
  DerivationSchema,
  ListDefinitionsQuery,
  ListResourcesQuery,
  newDerivation,
  newRelation,
  newResource,
  newResourceRole,
  presentAction,
  presentActionGroup,
  presentAttribute,
  presentDerivation,
  presentRelation,
  presentResource,
  presentResourceDetail,
  presentResourceRole,
  RelationSchema,
  ResourceDetailSchema,
  ResourceParams,
  ResourceRoleParams,
  ResourceRoleSchema,
  ResourceSchema,
  resourceRoleFields,
  UpdateActionBody,
  UpdateActionGroupBody,
  UpdateAttributeBody,
  UpdateRelationBody,
  UpdateResourceBody,
  UpdateResourceRoleBody,
} from './schemas.ts'

const read = { access: { permission: 'postern.policy:read' } } as const
const write = { access: { permission: 'postern.policy:write' } } as const

/** Resources, and what is defined on them: actions, groups of them, attributes, relations, roles and derivations. */
export function resourcesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).resources

  return async (app) => {
    app.get(
      '/resources',
      {
        config: read,
        schema: {
          operationId: 'listResources',
          tags: ['Policy'],
          summary: 'List the resources of the application',
          querystring: ListResourcesQuery,
          response: { 200: Type.Array(ref(ResourceSchema)) },
        },
      },
      async (request, reply) => {
        const { key } = request.query
        const page = await of(request).listResources(
          { ...(key !== undefined && { key }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentResource)
      },
    )

    app.post(
      '/resources',
      {
        config: write,
        schema: {
          operationId: 'createResource',
          tags: ['Policy'],
          summary: 'Define a resource, with what is on it if that is given: all or nothing',
          body: CreateResourceBody,
          response: {
            201: ref(ResourceDetailSchema),
            409: problem('A key is taken, or there are too many resources'),
          },
        },
      },
      async (request, reply) => {
        const resource = await of(request).createResource(callerOf(request), newResource(request.body))
        return reply
          .code(201)
          .header('location', `/api/v1/resources/${resource.id}`)
          .send(presentResourceDetail(resource))
      },
    )

    app.get(
      '/resources/:resource_id',
      {
        config: read,
        schema: {
          operationId: 'getResource',
          tags: ['Policy'],
          summary: 'A resource with its actions, action groups, attributes, relations and roles',
          params: ResourceParams,
          response: { 200: ref(ResourceDetailSchema), 404: problem('No such resource') },
        },
      },
      async (request) => presentResourceDetail(await of(request).getResource(request.params.resource_id)),
    )

    app.patch(
      '/resources/:resource_id',
      {
        config: write,
        schema: {
          operationId: 'updateResource',
          tags: ['Policy'],
          summary: 'Change what a resource is called: absent fields stay, the key too',
          params: ResourceParams,
          body: UpdateResourceBody,
          response: { 200: ref(ResourceDetailSchema), 404: problem('No such resource') },
        },
      },
      async (request) =>
        presentResourceDetail(
          await of(request).updateResource(callerOf(request), request.params.resource_id, request.body),
        ),
    )

    app.delete(
      '/resources/:resource_id',
      {
        config: write,
        schema: {
          operationId: 'deleteResource',
          tags: ['Policy'],
          summary:
            'Delete a resource with all that hangs on it: actions, roles and who holds them, instances and their relationships, sets and rules, relations of others to it. Tokens with its permissions end at once',
          params: ResourceParams,
          response: {
            204: NoContent,
            404: problem('No such resource'),
            409: problem('Sets of another resource descend from sets of this one'),
          },
        },
      },
      async (request, reply) => {
        await of(request).deleteResource(callerOf(request), request.params.resource_id)
        return reply.code(204).send(null)
      },
    )

    definitionRoutes(app, {
      path: '/resources/:resource_id/actions',
      param: 'action_id',
      names: { one: 'Action', many: 'Actions' },
      words: { one: 'action', many: 'actions', place: 'a resource' },
      schema: ActionSchema,
      createBody: CreateActionBody,
      updateBody: UpdateActionBody,
      whatItsDeletionTakes: '; roles and rules lose it, and tokens with it end at once',
      present: presentAction,
      service: (request) => of(request).actions,
    })

    definitionRoutes(app, {
      path: '/resources/:resource_id/action-groups',
      param: 'action_group_id',
      names: { one: 'ActionGroup', many: 'ActionGroups' },
      words: { one: 'action group', many: 'action groups', place: 'a resource' },
      schema: ActionGroupSchema,
      createBody: CreateActionGroupBody,
      updateBody: UpdateActionGroupBody,
      whatItsDeletionTakes: '; its actions stay',
      present: presentActionGroup,
      service: (request) => of(request).actionGroups,
    })

    for (const [path, names, place] of [
      [
        '/resources/:resource_id/attributes',
        { one: 'ResourceAttribute', many: 'ResourceAttributes' },
        'a resource',
      ],
      ['/user-attributes', { one: 'UserAttribute', many: 'UserAttributes' }, 'users'],
    ] as const) {
      definitionRoutes(app, {
        path,
        param: 'attribute_id',
        names,
        words: { one: 'attribute', many: 'attributes', place },
        schema: AttributeSchema,
        createBody: CreateAttributeBody,
        updateBody: UpdateAttributeBody,
        whatItsDeletionTakes: '; values that are stored stay',
        present: presentAttribute,
        service: (request) => of(request).attributes,
      })
    }

    definitionRoutes(app, {
      path: '/resources/:resource_id/relations',
      param: 'relation_id',
      names: { one: 'Relation', many: 'Relations' },
      words: { one: 'relation', many: 'relations', place: 'a resource' },
      schema: RelationSchema,
      createBody: CreateRelationBody,
      updateBody: UpdateRelationBody,
      whatItsDeletionTakes: ', with the relationships and derivations that use it',
      present: presentRelation,
      service: (request) => ({
        ...of(request).relations,
        create: async (caller, resourceId, body) =>
          await of(request).relations.create(caller, resourceId, newRelation(body)),
      }),
    })

    app.get(
      '/resources/:resource_id/roles',
      {
        config: read,
        schema: {
          operationId: 'listResourceRoles',
          tags: ['Policy'],
          summary: 'List the roles of a resource, which are held on its instances',
          params: ResourceParams,
          querystring: ListDefinitionsQuery,
          response: { 200: Type.Array(ref(ResourceRoleSchema)), 404: problem('No such resource') },
        },
      },
      async (request, reply) => {
        const { key } = request.query
        const page = await of(request).listRoles(
          request.params.resource_id,
          { ...(key !== undefined && { key }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentResourceRole)
      },
    )

    app.post(
      '/resources/:resource_id/roles',
      {
        config: write,
        schema: {
          operationId: 'createResourceRole',
          tags: ['Policy'],
          summary: 'Define a role that is held on instances of a resource',
          params: ResourceParams,
          body: CreateResourceRoleBody,
          response: {
            201: ref(ResourceRoleSchema),
            404: problem('No such resource'),
            409: problem('The key is taken, or there are too many roles'),
          },
        },
      },
      async (request, reply) => {
        const { resource_id } = request.params
        const role = await of(request).createRole(
          callerOf(request),
          resource_id,
          newResourceRole(request.body),
        )
        setEtag(reply, role)
        return reply
          .code(201)
          .header('location', `/api/v1/resources/${resource_id}/roles/${role.id}`)
          .send(presentResourceRole(role))
      },
    )

    app.get(
      '/resources/:resource_id/roles/:role_id',
      {
        config: read,
        schema: {
          operationId: 'getResourceRole',
          tags: ['Policy'],
          summary: 'Get a role of a resource',
          params: ResourceRoleParams,
          response: { 200: ref(ResourceRoleSchema), 404: problem('No such resource or role') },
        },
      },
      async (request, reply) => {
        const { resource_id, role_id } = request.params
        const role = await of(request).getRole(resource_id, role_id)
        setEtag(reply, role)
        return presentResourceRole(role)
      },
    )

    app.patch(
      '/resources/:resource_id/roles/:role_id',
      {
        config: write,
        schema: {
          operationId: 'updateResourceRole',
          tags: ['Policy'],
          summary: 'Change a role of a resource: absent fields stay, the key too',
          params: ResourceRoleParams,
          headers: IfMatchHeaders,
          body: UpdateResourceRoleBody,
          response: {
            200: ref(ResourceRoleSchema),
            404: problem('No such resource or role'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        const { resource_id, role_id } = request.params
        const role = await of(request).updateRole(
          callerOf(request),
          resource_id,
          role_id,
          resourceRoleFields(request.body),
          ifMatchOf(request),
        )
        setEtag(reply, role)
        return presentResourceRole(role)
      },
    )

    app.delete(
      '/resources/:resource_id/roles/:role_id',
      {
        config: write,
        schema: {
          operationId: 'deleteResourceRole',
          tags: ['Policy'],
          summary: 'Delete a role of a resource that nobody holds, with the derivations that use it',
          params: ResourceRoleParams,
          headers: IfMatchHeaders,
          response: {
            204: NoContent,
            404: problem('No such resource or role'),
            409: problem('The role is still held'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        const { resource_id, role_id } = request.params
        await of(request).deleteRole(callerOf(request), resource_id, role_id, ifMatchOf(request))
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/resources/:resource_id/roles/:role_id/derivations',
      {
        config: read,
        schema: {
          operationId: 'listDerivations',
          tags: ['Policy'],
          summary: 'Who holds a role of a resource because of a role on a related instance',
          params: ResourceRoleParams,
          response: {
            200: Type.Array(ref(DerivationSchema)),
            404: problem('No such resource or role'),
          },
        },
      },
      async (request) => {
        const { resource_id, role_id } = request.params
        return (await of(request).getRole(resource_id, role_id)).derivations.map(presentDerivation)
      },
    )

    app.post(
      '/resources/:resource_id/roles/:role_id/derivations',
      {
        config: write,
        schema: {
          operationId: 'createDerivation',
          tags: ['Policy'],
          summary: 'Have a role be held by whoever holds another one on a related instance',
          params: ResourceRoleParams,
          body: CreateDerivationBody,
          response: {
            201: ref(DerivationSchema),
            404: problem('No such resource or role'),
            409: problem('It is derived in this way already, or in too many ways'),
          },
        },
      },
      async (request, reply) => {
        const { resource_id, role_id } = request.params
        const derivation = await of(request).createDerivation(
          callerOf(request),
          resource_id,
          role_id,
          newDerivation(request.body),
        )
        return reply.code(201).send(presentDerivation(derivation))
      },
    )

    app.delete(
      '/resources/:resource_id/roles/:role_id/derivations/:derivation_id',
      {
        config: write,
        schema: {
          operationId: 'deleteDerivation',
          tags: ['Policy'],
          summary: 'End a derivation',
          params: DerivationParams,
          response: { 204: NoContent, 404: problem('No such resource, role or derivation') },
        },
      },
      async (request, reply) => {
        const { resource_id, role_id, derivation_id } = request.params
        await of(request).deleteDerivation(callerOf(request), resource_id, role_id, derivation_id)
        return reply.code(204).send(null)
      },
    )
  }
}
