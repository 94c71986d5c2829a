import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import type {
  InstanceToWrite,
  InstanceWithRelationships,
  TupleToWrite,
  TupleWithDetails,
} from './instances.ts'
import {
  CreateInstanceBody,
  CreateTupleBody,
  CreateTuplesBody,
  DeleteInstancesBody,
  DeleteTupleBody,
  DeleteTuplesBody,
  InstanceParams,
  InstancesQuery,
  presentInstance,
  presentTuple,
  ReplaceInstancesBody,
  TuplesQuery,
  UpdateInstanceBody,
} from './instances-schemas.ts'
import { placeOf } from './place.ts'
import { listed, nameOf } from './schemas.ts'

const READ: Access = { permission: 'postern.policy:read' }
const WRITE: Access = { permission: 'postern.policy:write' }

type Dependencies = Pick<Services, 'modelOf'> & { bulkBodyLimit: number }

/** Instances of resources, and what they are related to. */
export function instancesRoutes({ modelOf, bulkBodyLimit }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).permitInstances
  const present = (request: FastifyRequest, instance: InstanceWithRelationships) =>
    presentInstance(instance, placeOf(request))

  return async (app) => {
    app.get(
      '/resource_instances',
      { config: { access: READ }, schema: { hide: true, querystring: InstancesQuery } },
      async (request) => {
        const { tenant, resource, search, ...query } = request.query
        const filters = { tenant: nameOf(tenant), resource: nameOf(resource), search: nameOf(search) }
        const { items, total } = await of(request).listInstances(filters, optionsOf(query))
        return listed(
          items.map((item) => present(request, item)),
          total,
          query.per_page,
        )
      },
    )

    app.post(
      '/resource_instances',
      { config: { access: WRITE }, schema: { hide: true, body: CreateInstanceBody } },
      async (request) =>
        present(request, await of(request).createInstance(callerOf(request), toWrite(request.body))),
    )

    app.get(
      '/resource_instances/:instance_id',
      { config: { access: READ }, schema: { hide: true, params: InstanceParams } },
      async (request) => present(request, await of(request).getInstance(request.params.instance_id)),
    )

    app.patch(
      '/resource_instances/:instance_id',
      { config: { access: WRITE }, schema: { hide: true, params: InstanceParams, body: UpdateInstanceBody } },
      async (request) => {
        const { instance_id: name } = request.params
        const { attributes } = request.body
        return present(request, await of(request).updateInstance(callerOf(request), name, attributes))
      },
    )

    app.delete(
      '/resource_instances/:instance_id',
      { config: { access: WRITE }, schema: { hide: true, params: InstanceParams } },
      async (request, reply) => {
        await of(request).deleteInstance(callerOf(request), request.params.instance_id)
        return await reply.code(204).send()
      },
    )

    app.put(
      '/bulk/resource_instances',
      {
        bodyLimit: bulkBodyLimit,
        config: { access: WRITE },
        schema: { hide: true, body: ReplaceInstancesBody },
      },
      async (request) => {
        await of(request).replaceInstances(callerOf(request), request.body.operations.map(toWrite))
        return {}
      },
    )

    app.delete(
      '/bulk/resource_instances',
      {
        bodyLimit: bulkBodyLimit,
        config: { access: WRITE },
        schema: { hide: true, body: DeleteInstancesBody },
      },
      async (request) => {
        await of(request).deleteInstances(callerOf(request), request.body.idents)
        return {}
      },
    )
  }
}

/** The relationships between instances. */
export function tuplesRoutes({ modelOf, bulkBodyLimit }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).permitInstances
  const present = (request: FastifyRequest, tuple: TupleWithDetails) => presentTuple(tuple, placeOf(request))

  return async (app) => {
    app.get(
      '/relationship_tuples',
      { config: { access: READ }, schema: { hide: true, querystring: TuplesQuery } },
      async (request) => {
        const { tenant, subject, relation, object, subject_type, object_type, ...query } = request.query
        const filters = {
          tenant: nameOf(tenant),
          subject: nameOf(subject),
          relation: nameOf(relation),
          object: nameOf(object),
          subjectType: nameOf(subject_type),
          objectType: nameOf(object_type),
        }
        const { items, total } = await of(request).listTuples(filters, optionsOf(query))
        return listed(
          items.map((item) => present(request, item)),
          total,
          query.per_page,
        )
      },
    )

    app.post(
      '/relationship_tuples',
      { config: { access: WRITE }, schema: { hide: true, body: CreateTupleBody } },
      async (request) =>
        present(request, await of(request).createTuple(callerOf(request), tupleToWrite(request.body))),
    )

    app.delete(
      '/relationship_tuples',
      { config: { access: WRITE }, schema: { hide: true, body: DeleteTupleBody } },
      async (request, reply) => {
        await of(request).deleteTuple(callerOf(request), request.body)
        return await reply.code(204).send()
      },
    )

    app.post(
      '/relationship_tuples/bulk',
      {
        bodyLimit: bulkBodyLimit,
        config: { access: WRITE },
        schema: { hide: true, body: CreateTuplesBody },
      },
      async (request) => {
        await of(request).createTuples(callerOf(request), request.body.operations.map(tupleToWrite))
        return {}
      },
    )

    app.delete(
      '/relationship_tuples/bulk',
      {
        bodyLimit: bulkBodyLimit,
        config: { access: WRITE },
        schema: { hide: true, body: DeleteTuplesBody },
      },
      async (request) => {
        await of(request).deleteTuples(callerOf(request), request.body.idents)
        return {}
      },
    )
  }
}

type ListQuery = { page: number; per_page: number; detailed: boolean; include_total_count: boolean }

const optionsOf = ({
  page,
  per_page: perPage,
  detailed: isDetailed,
  include_total_count: total,
}: ListQuery) => ({
  page,
  perPage,
  isDetailed,
  total,
})

const toWrite = ({
  key,
  resource,
  tenant,
  attributes,
}: Static<typeof CreateInstanceBody>): InstanceToWrite => ({
  key,
  resource,
  tenant,
  attributes: attributes ?? undefined,
})

const tupleToWrite = ({ tenant, ...names }: Static<typeof CreateTupleBody>): TupleToWrite => ({
  ...names,
  tenant: tenant ?? undefined,
})
