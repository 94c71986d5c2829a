import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  ChangeTuplesBody,
  CreateInstanceBody,
  CreateTupleBody,
  InstanceIdParams,
  InstanceSchema,
  InstancesUpsertedSchema,
  instanceFilters,
  ListInstancesQuery,
  ListTuplesQuery,
  newInstance,
  newTuple,
  presentChange,
  presentInstance,
  presentTuple,
  TupleIdParams,
  TupleSchema,
  TuplesChangedSchema,
  tupleFilters,
  UpdateInstanceBody,
  UpsertInstancesBody,
} from './schemas.ts'

const READ = { access: { permission: 'postern.policy:read' } } as const
const WRITE = { access: { permission: 'postern.policy:write' } } as const

/** Instances of resources, and the relationships between them. */
export function instancesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).instances
  return async (app) => {
    app.get(
      '/resource-instances',
      {
        config: READ,
        schema: {
          operationId: 'listResourceInstances',
          tags: ['Policy'],
          summary: 'List instances of resources',
          querystring: ListInstancesQuery,
          response: { 200: Type.Array(ref(InstanceSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).listInstances(
          instanceFilters(request.query),
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentInstance)
      },
    )

    app.post(
      '/resource-instances',
      {
        config: WRITE,
        schema: {
          operationId: 'createResourceInstance',
          tags: ['Policy'],
          summary: 'Create an instance of a resource in an account',
          body: CreateInstanceBody,
          response: {
            201: ref(InstanceSchema),
            404: problem('No such resource or account'),
            409: problem('The key is taken'),
          },
        },
      },
      async (request, reply) => {
        const instance = await of(request).createInstance(callerOf(request), newInstance(request.body))
        return reply
          .code(201)
          .header('location', `/api/v1/resource-instances/${instance.id}`)
          .send(presentInstance(instance))
      },
    )

    app.put(
      '/resource-instances/bulk',
      {
        config: WRITE,
        schema: {
          operationId: 'upsertResourceInstances',
          tags: ['Policy'],
          summary: 'Create instances, or change the attributes of those that are there; all of them or none',
          body: UpsertInstancesBody,
          response: {
            200: ref(InstancesUpsertedSchema),
            404: problem('No such resource or account'),
            409: problem('An instance is there in another account'),
          },
        },
      },
      async (request) =>
        await of(request).upsertInstances(
          callerOf(request),
          request.body.instances.map((one, index) => {
            const { attributes, ...fields } = newInstance(one, `/body/instances/${index}`)
            return { ...fields, ...(attributes && { attributes }) }
          }),
        ),
    )

    app.get(
      '/resource-instances/:instance_id',
      {
        config: READ,
        schema: {
          operationId: 'getResourceInstance',
          tags: ['Policy'],
          summary: 'Get an instance of a resource',
          params: InstanceIdParams,
          response: { 200: ref(InstanceSchema), 404: problem('No such instance') },
        },
      },
      async (request) => presentInstance(await of(request).getInstance(request.params.instance_id)),
    )

    app.patch(
      '/resource-instances/:instance_id',
      {
        config: WRITE,
        schema: {
          operationId: 'patchResourceInstance',
          tags: ['Policy'],
          summary: 'Replace the attributes of an instance',
          params: InstanceIdParams,
          body: UpdateInstanceBody,
          response: { 200: ref(InstanceSchema), 404: problem('No such instance') },
        },
      },
      async (request) =>
        presentInstance(
          await of(request).updateInstance(callerOf(request), request.params.instance_id, request.body),
        ),
    )

    app.delete(
      '/resource-instances/:instance_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteResourceInstance',
          tags: ['Policy'],
          summary: 'Delete an instance with its relationships and the roles held on it',
          params: InstanceIdParams,
          response: { 204: NoContent, 404: problem('No such instance') },
        },
      },
      async (request, reply) => {
        await of(request).deleteInstance(callerOf(request), request.params.instance_id)
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/relationship-tuples',
      {
        config: READ,
        schema: {
          operationId: 'listRelationshipTuples',
          tags: ['Policy'],
          summary: 'List relationships between instances',
          querystring: ListTuplesQuery,
          response: { 200: Type.Array(ref(TupleSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).listTuples(tupleFilters(request.query), pageRequestOf(request.query))
        return sendPage(request, reply, page, presentTuple)
      },
    )

    app.post(
      '/relationship-tuples',
      {
        config: WRITE,
        schema: {
          operationId: 'createRelationshipTuple',
          tags: ['Policy'],
          summary: 'Put an instance into a relation to another; with an account, missing ones are created',
          body: CreateTupleBody,
          response: {
            201: ref(TupleSchema),
            404: problem('No such instance, resource or account'),
            409: problem('The relationship exists, or the instances belong to different accounts'),
          },
        },
      },
      async (request, reply) => {
        const tuple = await of(request).createTuple(callerOf(request), newTuple(request.body))
        return reply
          .code(201)
          .header('location', `/api/v1/relationship-tuples/${tuple.id}`)
          .send(presentTuple(tuple))
      },
    )

    app.post(
      '/relationship-tuples/bulk',
      {
        config: WRITE,
        schema: {
          operationId: 'changeRelationshipTuples',
          tags: ['Policy'],
          summary:
            'Delete and then create relationships, all of it or nothing; what is so already is passed over',
          body: ChangeTuplesBody,
          response: {
            200: ref(TuplesChangedSchema),
            404: problem('No such instance, resource or account'),
            409: problem('Instances belong to different accounts'),
          },
        },
      },
      async (request) => {
        const { create = [], delete: remove = [] } = request.body
        return presentChange(
          await of(request).changeTuples(
            callerOf(request),
            {
              create: create.map((one, index) => newTuple(one, `/body/create/${index}`)),
              delete: remove,
            },
            { existing: 'skip', missing: 'skip' },
          ),
        )
      },
    )

    app.get(
      '/relationship-tuples/:tuple_id',
      {
        config: READ,
        schema: {
          operationId: 'getRelationshipTuple',
          tags: ['Policy'],
          summary: 'Get a relationship',
          params: TupleIdParams,
          response: { 200: ref(TupleSchema), 404: problem('No such relationship') },
        },
      },
      async (request) => presentTuple(await of(request).getTuple(request.params.tuple_id)),
    )

    app.delete(
      '/relationship-tuples/:tuple_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteRelationshipTuple',
          tags: ['Policy'],
          summary: 'Delete a relationship',
          params: TupleIdParams,
          response: { 204: NoContent, 404: problem('No such relationship') },
        },
      },
      async (request, reply) => {
        await of(request).deleteTuple(callerOf(request), request.params.tuple_id)
        return reply.code(204).send(null)
      },
    )
  }
}
