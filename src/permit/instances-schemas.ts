import Type from 'typebox'
import { Attributes } from '../http/schemas.ts'
import type { InstanceWithRelationships, TupleWithDetails } from './instances.ts'
import type { InstanceDetails } from './instances-repository.ts'
import { Name, optional, type PlaceIds, page } from './schemas.ts'

/** The most of one bulk request. */
const MOST_INSTANCES = 3000
const MOST_TUPLES = 1000

const InstanceKey = Type.String({ minLength: 1, maxLength: 512 })
/** `type:key` or an id; what it names is checked further in. */
const InstanceName = Type.String({ minLength: 1, maxLength: 641 })
const Filter = Type.Optional(Type.String({ maxLength: 641 }))
const list = {
  ...page,
  detailed: Type.Boolean({ default: false }),
  include_total_count: Type.Boolean({ default: false }),
}

export const InstanceParams = Type.Object({ instance_id: InstanceName })
export const InstancesQuery = Type.Object({ ...list, tenant: Filter, resource: Filter, search: Filter })
export const CreateInstanceBody = Type.Object({
  key: InstanceKey,
  resource: Name,
  tenant: Name,
  attributes: optional(Attributes),
})
export const UpdateInstanceBody = Type.Object({ attributes: optional(Attributes) })
export const ReplaceInstancesBody = Type.Object({
  operations: Type.Array(CreateInstanceBody, { maxItems: MOST_INSTANCES }),
})
export const DeleteInstancesBody = Type.Object({
  idents: Type.Array(InstanceName, { maxItems: MOST_INSTANCES }),
})

export const TuplesQuery = Type.Object({
  ...list,
  tenant: Filter,
  subject: Filter,
  relation: Filter,
  object: Filter,
  subject_type: Filter,
  object_type: Filter,
})
export const DeleteTupleBody = Type.Object({ subject: InstanceName, relation: Name, object: InstanceName })
export const CreateTupleBody = Type.Object({ ...DeleteTupleBody.properties, tenant: optional(Name) })
export const CreateTuplesBody = Type.Object({
  operations: Type.Array(CreateTupleBody, { maxItems: MOST_TUPLES }),
})
export const DeleteTuplesBody = Type.Object({
  idents: Type.Array(DeleteTupleBody, { maxItems: MOST_TUPLES }),
})

/** An instance as Permit’s API answers it, with its relationships where they were asked for. */
export const presentInstance = (instance: InstanceWithRelationships, place: PlaceIds) => ({
  key: instance.key,
  tenant: instance.account,
  resource: instance.resource,
  id: instance.id,
  resource_id: instance.resourceId,
  tenant_id: instance.accountId,
  ...place,
  attributes: instance.attributes ?? {},
  created_at: instance.createdAt.toISOString(),
  updated_at: instance.updatedAt.toISOString(),
  ...(instance.relationships && { relationships: instance.relationships }),
})

/** A relationship never changes, so it was updated when it was created. */
export function presentTuple(tuple: TupleWithDetails, place: PlaceIds) {
  const { details, account: tenant } = tuple
  return {
    id: tuple.id,
    subject: tuple.subject,
    relation: tuple.relation,
    object: tuple.object,
    tenant,
    subject_id: tuple.subjectId,
    relation_id: tuple.relationId,
    object_id: tuple.objectId,
    tenant_id: tuple.accountId,
    ...place,
    created_at: tuple.createdAt.toISOString(),
    updated_at: tuple.createdAt.toISOString(),
    ...(details && {
      subject_details: presentDetails(details.subject, tenant),
      relation_details: details.relation,
      object_details: presentDetails(details.object, tenant),
      tenant_details: { ...details.tenant, attributes: details.tenant.attributes ?? {} },
    }),
  }
}

const presentDetails = ({ attributes, ...instance }: InstanceDetails, tenant: string) => ({
  ...instance,
  tenant,
  attributes: attributes ?? {},
})
