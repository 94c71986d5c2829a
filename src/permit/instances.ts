import type { Page } from '../db/paging.ts'
import { fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { InstanceRow, TupleFilters, TupleRow } from '../instances/repository.ts'
import type { InstancesService, NewInstance, NewTuple, TupleName } from '../instances/service.ts'
import type { Caller } from '../principal.ts'
import type { ResourcesService } from '../resources/service.ts'
import type { PermitInstancesRepository, Relationship, TupleDetails } from './instances-repository.ts'
import { named } from './lookup.ts'
import { dashed } from './names.ts'
import type { NumberedPage } from './repository.ts'
import type { PermitService } from './service.ts'

type Json = Record<string, unknown>

/** `resource` and `tenant`: key or id. */
export type InstanceToWrite = { key: string; resource: string; tenant: string; attributes: Json | undefined }

/** `subject` and `object`: `type:key` or id. `tenant`: key or id. */
export type TupleToWrite = TupleName & { tenant: string | undefined }

export type ListOptions = NumberedPage & { isDetailed: boolean; total: boolean }

export type InstanceWithRelationships = InstanceRow & { relationships?: Relationship[] }
export type TupleWithDetails = TupleRow & { details?: TupleDetails | undefined }

/** Keys or ids; `subject` and `object`: `type:key` or id. */
type TupleNameFilters = { tenant: string | undefined } & {
  [K in Exclude<keyof TupleFilters, 'account'>]: string | undefined
}

const nothing = ({ total }: ListOptions) => ({ items: [], ...(total && { total: 0 }) })

/** Where the list stands in Permit's bulk requests. */
const OPERATIONS = '/body/operations'
const IDENTS = '/body/idents'

type Dependencies = {
  facts: PermitInstancesRepository
  permit: PermitService
  instances: InstancesService
  resources: ResourcesService
}

/** Instances and relationships as Permit's management API names them: by keys or ids, with or without dashes. */
export function createPermitInstances({ facts, permit, instances, resources }: Dependencies) {
  const pageOf = ({ page, perPage, total }: ListOptions) => ({
    limit: perPage,
    skip: (page - 1) * perPage,
    sort: 'created_at',
    total,
  })

  const findResource = async (name: string) => await named(name, resources.findResource)

  /** What a list is narrowed to; `undefined` when one of the names is that of nothing. */
  async function idsOf(names: { tenant?: string | undefined; resource?: string | undefined }) {
    const account = names.tenant === undefined ? undefined : await permit.findAccount(names.tenant)
    const resource = names.resource === undefined ? undefined : await findResource(names.resource)
    if ((names.tenant !== undefined && !account) || (names.resource !== undefined && !resource))
      return undefined
    return { ...(account && { account: account.id }), ...(resource && { resource: resource.key }) }
  }

  /** What each of the names stands for. Only what may be an id is looked up; keys are for the service to find. */
  async function meant(
    names: readonly string[],
    find: (name: string) => Promise<string>,
  ): Promise<(name: string) => string> {
    const known = new Map<string, string>()
    for (const name of new Set(names)) if (isUuid(dashed(name))) known.set(name, await find(name))
    return (name) => known.get(name) ?? name
  }

  const resourcesMeant = async (names: readonly string[]) =>
    await meant(names, async (name) => ((await findResource(name)) ?? fail('resource_not_found')).key)
  const tenantsMeant = async (names: readonly string[]) =>
    await meant(names, async (name) => (await permit.getAccount(name)).id)

  async function toServices(inputs: readonly InstanceToWrite[]): Promise<NewInstance[]> {
    const resourceOf = await resourcesMeant(inputs.map(({ resource }) => resource))
    const accountOf = await tenantsMeant(inputs.map(({ tenant }) => tenant))
    return inputs.map(({ key, resource, tenant, attributes }) => ({
      key,
      resource: resourceOf(resource),
      account: accountOf(tenant),
      ...(attributes && { attributes }),
    }))
  }

  async function toTuples(inputs: readonly TupleToWrite[]): Promise<NewTuple[]> {
    const accountOf = await tenantsMeant(inputs.flatMap(({ tenant = [] }) => tenant))
    return inputs.map(({ tenant, ...names }) => ({
      ...dashedEnds(names),
      ...(tenant !== undefined && { account: accountOf(tenant) }),
    }))
  }

  async function getInstance(name: string): Promise<InstanceRow> {
    return (await instances.findInstance(dashed(name))) ?? fail('instance_not_found')
  }

  return {
    /** One page of instances, the oldest first; detailed ones with the relationships whose objects they are. */
    async listInstances(
      filters: { tenant?: string | undefined; resource?: string | undefined; search?: string | undefined },
      options: ListOptions,
    ): Promise<Page<InstanceWithRelationships>> {
      const found = await idsOf(filters)
      if (!found) return nothing(options)
      const { search: q } = filters
      const page = await instances.listInstances({ ...found, ...(q !== undefined && { q }) }, pageOf(options))
      if (!options.isDetailed) return page
      const related = await facts.listRelationships(page.items.map(({ id }) => id))
      const items = page.items.map((item) => ({ ...item, relationships: related.get(item.id) ?? [] }))
      return { ...page, items }
    },

    /** The instance of this `type:key` or id. @throws AppError instance_not_found */
    getInstance,

    /** @throws AppError resource_not_found, account_not_found, instance_key_taken, validation_failed */
    async createInstance(caller: Caller, input: InstanceToWrite): Promise<InstanceRow> {
      const [instance = fail('instance_not_found')] = await toServices([input])
      return await instances.createInstance(caller, instance)
    },

    /** Replaces the attributes, if they are given; null clears them. @throws AppError instance_not_found */
    async updateInstance(
      caller: Caller,
      name: string,
      attributes: Json | null | undefined,
    ): Promise<InstanceRow> {
      const instance = await getInstance(name)
      if (attributes === undefined) return instance
      return await instances.updateInstance(caller, instance.id, { attributes })
    },

    /** @throws AppError instance_not_found */
    async deleteInstance(caller: Caller, name: string): Promise<void> {
      await instances.deleteInstance(caller, (await getInstance(name)).id)
    },

    /**
     * Creates what is not there and replaces the attributes of what is, all of it or nothing.
     * @throws AppError resource_not_found, account_not_found, validation_failed; instance_key_taken for one that is
     *   there in another account
     */
    async replaceInstances(caller: Caller, inputs: readonly InstanceToWrite[]): Promise<void> {
      const replaced = inputs.map((input) => ({ ...input, attributes: input.attributes ?? {} }))
      await instances.upsertInstances(caller, await toServices(replaced), OPERATIONS)
    },

    /** Deletes those that are there, all or none. @throws AppError validation_failed */
    async deleteInstances(caller: Caller, names: readonly string[]): Promise<void> {
      await instances.deleteInstances(caller, names.map(dashed), IDENTS)
    },

    /** One page of relationships, the oldest first. */
    async listTuples(
      { tenant, subject, object, relation, subjectType, objectType }: TupleNameFilters,
      options: ListOptions,
    ): Promise<Page<TupleWithDetails>> {
      const [subjects, objects] = [
        await idsOf({ tenant, resource: subjectType }),
        await idsOf({ resource: objectType }),
      ]
      if (!subjects || !objects) return nothing(options)
      const page = await instances.listTuples(
        {
          ...(subjects.account !== undefined && { account: subjects.account }),
          ...(subjects.resource !== undefined && { subjectType: subjects.resource }),
          ...(objects.resource !== undefined && { objectType: objects.resource }),
          ...(subject !== undefined && { subject: dashed(subject) }),
          ...(object !== undefined && { object: dashed(object) }),
          ...(relation !== undefined && { relation: [relation, dashed(relation)] }),
        },
        pageOf(options),
      )
      if (!options.isDetailed) return page
      const details = await facts.listDetails(page.items.map(({ id }) => id))
      return { ...page, items: page.items.map((item) => ({ ...item, details: details.get(item.id) })) }
    },

    /**
     * Puts one instance into a relation to another. One that is missing is created in the tenant that is named, or in
     * that of the other one.
     * @throws AppError tuple_exists, instance_not_found, resource_not_found, account_not_found, relation_mismatch,
     *   instances_in_different_accounts, validation_failed
     */
    async createTuple(caller: Caller, input: TupleToWrite): Promise<TupleRow> {
      const [tuple = fail('tuple_not_found')] = await toTuples([input])
      return await instances.createTuple(caller, tuple, { isBesideOther: true })
    },

    /** @throws AppError tuple_not_found */
    async deleteTuple(caller: Caller, names: TupleName): Promise<void> {
      const { items } = await instances.listTuples(dashedEnds(names), {
        limit: 1,
        skip: 0,
        sort: 'created_at',
      })
      await instances.deleteTuple(caller, (items[0] ?? fail('tuple_not_found')).id)
    },

    /** All of them or none; those that are there are left. @throws AppError as createTuple does */
    async createTuples(caller: Caller, inputs: readonly TupleToWrite[]): Promise<void> {
      await instances.createTuples(caller, await toTuples(inputs), {
        existing: 'skip',
        isBesideOther: true,
        pointer: OPERATIONS,
      })
    },

    /** Deletes those that are there, all or none. @throws AppError validation_failed */
    async deleteTuples(caller: Caller, names: readonly TupleName[]): Promise<void> {
      await instances.deleteTuples(caller, names.map(dashedEnds), { missing: 'skip', pointer: IDENTS })
    },
  }
}

const dashedEnds = ({ subject, relation, object }: TupleName): TupleName => ({
  subject: dashed(subject),
  relation,
  object: dashed(object),
})
