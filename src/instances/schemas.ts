import Type, { type Static, type TSchema } from 'typebox'
import { AppError } from '../errors.ts'
import { Attributes, Key, nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import type { InstanceFilters, InstanceRow, TupleFilters, TupleRow } from './repository.ts'
import {
  INSTANCE_KEY,
  LONGEST_INSTANCE_KEY,
  type NewInstance,
  type NewTuple,
  type TuplesChanged,
} from './service.ts'

const MOST_AT_ONCE = 1000

const ResourceKey = Type.String({ ...Key, examples: ['document'] })
const InstanceKey = Type.String({
  pattern: INSTANCE_KEY,
  maxLength: LONGEST_INSTANCE_KEY,
  description: 'Anything printable; unique per resource',
  examples: ['q3-report'],
})
/** `type:key`; its parts are checked by the service. */
const InstanceName = Type.String({
  pattern: '^[A-Za-z0-9_-]+:[^\\u0000-\\u001f]+$',
  maxLength: 641,
  description: '`type:key` or `type:id`',
  examples: ['document:q3-report'],
})
const AccountName = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Key or id of the account',
  examples: ['default'],
})
const Tenant = Type.String({ minLength: 1, maxLength: 128, description: 'The same as `account`' })

export const InstanceSchema = Type.Object(
  {
    id: Uuid,
    resource: Type.String({ examples: ['document'] }),
    resource_id: Uuid,
    key: Type.String({ examples: ['q3-report'] }),
    account: Type.String({ description: 'Key of the account', examples: ['default'] }),
    account_id: Uuid,
    attributes: nullable(Type.Object({}, { additionalProperties: true })),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'ResourceInstance', title: 'Instance of a resource' },
)

export const TupleSchema = Type.Object(
  {
    id: Uuid,
    subject: Type.String({ examples: ['folder:finance'] }),
    subject_id: Uuid,
    relation: Type.String({ examples: ['parent'] }),
    object: Type.String({ examples: ['document:q3-report'] }),
    object_id: Uuid,
    account: Type.String({ description: 'Key of the account of both', examples: ['default'] }),
    account_id: Uuid,
    created_at: Timestamp,
  },
  { $id: 'RelationshipTuple', title: 'The subject is in this relation to the object' },
)

export const CreateInstanceBody = Type.Object(
  {
    resource: ResourceKey,
    key: InstanceKey,
    account: Type.Optional(AccountName),
    tenant: Type.Optional(Tenant),
    attributes: Type.Optional(nullable(Attributes)),
  },
  {
    additionalProperties: false,
    examples: [
      { resource: 'document', key: 'q3-report', account: 'default', attributes: { confidential: true } },
    ],
  },
)

export const UpdateInstanceBody = Type.Object(
  { attributes: nullable(Attributes) },
  { additionalProperties: false, examples: [{ attributes: { confidential: false } }] },
)

const listOf = <T extends TSchema>(schema: T) => Type.Array(schema, { maxItems: MOST_AT_ONCE })

export const UpsertInstancesBody = Type.Object(
  {
    instances: listOf(
      Type.Object(
        {
          resource: ResourceKey,
          key: InstanceKey,
          account: Type.Optional(AccountName),
          tenant: Type.Optional(Tenant),
          attributes: Type.Optional(Attributes),
        },
        { additionalProperties: false },
      ),
    ),
  },
  {
    additionalProperties: false,
    examples: [
      {
        instances: [
          { resource: 'document', key: 'q3-report', account: 'default' },
          { resource: 'document', key: 'q4-report', account: 'default', attributes: { draft: true } },
        ],
      },
    ],
  },
)

const tupleName = { subject: InstanceName, relation: Key, object: InstanceName }
const NewTupleBody = Type.Object(
  {
    ...tupleName,
    account: Type.Optional(
      Type.String({
        ...AccountName,
        description: 'Key or id of the account that missing instances are created in',
      }),
    ),
    tenant: Type.Optional(Tenant),
  },
  { additionalProperties: false },
)

export const CreateTupleBody = Type.Object(NewTupleBody.properties, {
  additionalProperties: false,
  examples: [{ subject: 'folder:finance', relation: 'parent', object: 'document:q3-report' }],
})

export const ChangeTuplesBody = Type.Object(
  {
    create: Type.Optional(listOf(NewTupleBody)),
    delete: Type.Optional(listOf(Type.Object(tupleName, { additionalProperties: false }))),
  },
  {
    additionalProperties: false,
    minProperties: 1,
    examples: [
      {
        create: [
          {
            subject: 'folder:finance',
            relation: 'parent',
            object: 'document:q4-report',
            account: 'default',
          },
        ],
        delete: [{ subject: 'folder:finance', relation: 'parent', object: 'document:q3-report' }],
      },
    ],
  },
)

const Count = Type.Integer({ minimum: 0, examples: [1] })

export const InstancesUpsertedSchema = Type.Object(
  { created: Count, updated: Count },
  { $id: 'InstancesUpserted', title: 'What a bulk write of instances did' },
)

export const TuplesChangedSchema = Type.Object(
  {
    created: Count,
    existing: Type.Integer({ description: 'Those to create that were there' }),
    deleted: Count,
    missing: Type.Integer({ description: 'Those to delete that were not there' }),
    instances_created: Count,
  },
  { $id: 'TuplesChanged', title: 'What a bulk write of relationships did' },
)

const keyFilter = (description: string) => Type.Optional(Type.String({ maxLength: 641, description }))

export const ListInstancesQuery = Type.Object(
  {
    ...pageQuery(['created_at'], 'created_at'),
    account: keyFilter('Key or id of the account'),
    resource: keyFilter('Key of the resource'),
    key: keyFilter('Key of the instance'),
  },
  { additionalProperties: false },
)

export const ListTuplesQuery = Type.Object(
  {
    ...pageQuery(['created_at'], 'created_at'),
    subject: keyFilter('`type:key`, `type:id` or id of the subject'),
    relation: keyFilter('Key of the relation'),
    object: keyFilter('`type:key`, `type:id` or id of the object'),
    account: keyFilter('Key or id of the account'),
    subject_type: keyFilter('Key of the subject’s resource'),
    object_type: keyFilter('Key of the object’s resource'),
  },
  { additionalProperties: false },
)

export const InstanceIdParams = Type.Object({ instance_id: Uuid })
export const TupleIdParams = Type.Object({ tuple_id: Uuid })

/** An instance as it is answered. */
export const presentInstance = (row: InstanceRow): Static<typeof InstanceSchema> => ({
  id: row.id,
  resource: row.resource,
  resource_id: row.resourceId,
  key: row.key,
  account: row.account,
  account_id: row.accountId,
  attributes: row.attributes,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** A relationship as it is answered. */
export const presentTuple = (row: TupleRow): Static<typeof TupleSchema> => ({
  id: row.id,
  subject: row.subject,
  subject_id: row.subjectId,
  relation: row.relation,
  object: row.object,
  object_id: row.objectId,
  account: row.account,
  account_id: row.accountId,
  created_at: row.createdAt.toISOString(),
})

/** How many relationships and instances a request has changed. */
export const presentChange = ({
  instancesCreated,
  ...counts
}: TuplesChanged): Static<typeof TuplesChangedSchema> => ({ ...counts, instances_created: instancesCreated })

/** The fields of a body as the service takes them. @throws AppError validation_failed */
export function newInstance(
  { tenant, account, ...fields }: Static<typeof CreateInstanceBody>,
  pointer = '/body',
): NewInstance {
  const named = oneAccount({ account, tenant }, pointer)
  if (named !== undefined) return { ...fields, account: named }
  throw new AppError('validation_failed', {
    errors: [{ pointer: `${pointer}/account`, detail: 'is required' }],
  })
}

/** The same for a tuple. @throws AppError validation_failed */
export function newTuple(
  { tenant, account, ...fields }: Static<typeof NewTupleBody>,
  pointer = '/body',
): NewTuple {
  const named = oneAccount({ account, tenant }, pointer)
  return { ...fields, ...(named !== undefined && { account: named }) }
}

function oneAccount(
  { account, tenant }: { account?: string | undefined; tenant?: string | undefined },
  pointer: string,
): string | undefined {
  if (account === undefined || tenant === undefined || account === tenant) return account ?? tenant
  throw new AppError('validation_failed', {
    errors: [{ pointer: `${pointer}/tenant`, detail: 'is another one than `account`' }],
  })
}

/** The filters that a query names; those it leaves out are absent. */
export const instanceFilters = ({
  account,
  resource,
  key,
}: Static<typeof ListInstancesQuery>): InstanceFilters => given({ account, resource, key })

/** The filters that a query names; those it leaves out are absent. */
export const tupleFilters = (query: Static<typeof ListTuplesQuery>): TupleFilters => {
  const { subject, relation, object, account, subject_type: subjectType, object_type: objectType } = query
  return given({ subject, relation, object, account, subjectType, objectType })
}

const given = <T extends Record<string, string | undefined>>(filters: T) =>
  Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: string
  }
