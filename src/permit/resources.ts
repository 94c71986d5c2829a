import { type Database, type Tx, transact } from '../db/client.ts'
import type { Page } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import type { Caller } from '../principal.ts'
import type { ResourceChanges, ResourceRow } from '../resources/repository.ts'
import type {
  ActionChanges,
  AttributeChanges,
  NewAttribute,
  RelationChanges,
  ResourceDetail,
  ResourcesService,
} from '../resources/service.ts'
import type { RoleRow, RolesRepository } from '../roles/repository.ts'
import type { RolesService } from '../roles/service.ts'
import { resourceNamed } from './lookup.ts'
import type { NumberedPage } from './repository.ts'
import { differs, type PermitRoleSets } from './role-sets.ts'
import type { NewRoleFields } from './roles.ts'

/** What may be said of a resource. A list of parts says all that there shall be of them. */
export type ResourceFields = ResourceChanges & {
  actions?: readonly (ActionChanges & { key: string })[]
  attributes?: readonly NewAttribute[]
  /** `subject`: key or id of a resource. */
  relations?: readonly (RelationChanges & { key: string; subject: string })[]
  roles?: readonly NewRoleFields[]
}

export type NewResourceFields = ResourceFields & { key: string }

/** What is defined on a resource. */
type Parts = Pick<ResourceDetail, 'actions' | 'attributes' | 'relations' | 'roles'>

const NO_PARTS: Parts = { actions: [], attributes: [], relations: [], roles: [] }

type Dependencies = {
  database: Database
  resources: ResourcesService
  roles: RolesService
  rolesRepository: RolesRepository
  permitRoleSets: PermitRoleSets
}

/** Resources that Permit has in every environment. Here they are not, and nothing else has their names. */
const RESERVED = new Set(['__user', '__tenant'])

/** Resources with all that is defined on them, written in one piece. By keys or ids. */
export function createPermitResources(dependencies: Dependencies) {
  const { database, resources, roles, rolesRepository, permitRoleSets } = dependencies
  const { db } = database

  async function write(work: (tx: Tx) => Promise<ResourceRow>): Promise<ResourceDetail> {
    return await transact(db, async (tx) => {
      await rolesRepository.lockDefinitions(tx)
      const { id } = await work(tx)
      return await detail((await resources.findResource(id, tx)) ?? fail('resource_not_found'), tx)
    })
  }

  async function detail(row: ResourceRow, tx?: Tx): Promise<ResourceDetail> {
    const [found] = await resources.detailsOf([row], tx)
    return found ?? fail('resource_not_found')
  }

  return {
    /** A page of resources, the oldest first. */
    async list({ page, perPage }: NumberedPage, total: boolean): Promise<Page<ResourceDetail>> {
      const found = await resources.listResources(
        {},
        { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total },
      )
      return { ...found, items: await resources.detailsOf(found.items) }
    },

    /** @throws AppError resource_not_found */
    async get(name: string): Promise<ResourceDetail> {
      return await detail(await resourceNamed(resources, name))
    },

    /**
     * Defines a resource with what is on it, all or nothing. Its roles may extend each other and be derived in any order.
     * @throws AppError resource_key_taken, limit_reached, validation_failed, resource_not_found for the subject of a
     *   relation, and what its parts are refused with
     */
    async create(caller: Caller, input: NewResourceFields): Promise<ResourceDetail> {
      if (RESERVED.has(input.key)) throw new AppError('resource_key_taken')
      return await write(async (tx) => {
        const { key, name, description, urn, ...parts } = input
        const row = await resources.addResource(
          caller,
          {
            key,
            ...(name !== undefined && { name }),
            ...(description !== undefined && { description }),
            ...(urn !== undefined && { urn }),
          },
          tx,
        )
        await setParts(caller, row, NO_PARTS, parts, tx)
        return row
      })
    },

    /**
     * Changes what the fields name; a list of parts replaces those that there are, and what is no longer in it goes
     * with all that uses it: permissions, relationships, derivations, roles that are held.
     * @throws AppError resource_not_found, and as `create`
     */
    async update(caller: Caller, name: string, fields: ResourceFields): Promise<ResourceDetail> {
      return await write(async (tx) => {
        const row = await resourceNamed(resources, name, tx)
        const { actions, attributes, relations, roles: ownRoles, ...changes } = fields
        if (Object.keys(changes).length > 0) await resources.changeResource(caller, row.id, changes, tx)
        const namesParts = actions ?? attributes ?? relations ?? ownRoles
        if (namesParts) await setParts(caller, row, await detail(row, tx), fields, tx)
        return row
      })
    },

    /** Deletes a resource with all that is on it. @throws AppError resource_not_found, resource_in_use */
    async remove(caller: Caller, name: string): Promise<void> {
      await resources.deleteResource(caller, (await resourceNamed(resources, name)).id)
    },
  }

  async function setParts(
    caller: Caller,
    row: ResourceRow,
    before: Parts,
    parts: ResourceFields,
    tx: Tx,
  ): Promise<void> {
    if (parts.roles) await dropRoles(caller, row, before.roles, parts.roles, tx)
    if (parts.relations) await setRelations(caller, row, before.relations, parts.relations, tx)
    if (parts.actions) await setActions(caller, row, before.actions, parts.actions, tx)
    if (parts.attributes) await setAttributes(caller, row, before.attributes, parts.attributes, tx)
    if (!parts.roles) return
    await permitRoleSets.putAlone(caller, parts.roles, row, tx)
    await permitRoleSets.putTies(caller, parts.roles, row, tx)
  }

  async function setActions(
    caller: Caller,
    owner: ResourceRow,
    before: ResourceDetail['actions'],
    wanted: NonNullable<ResourceFields['actions']>,
    tx: Tx,
  ): Promise<void> {
    const { old, gone } = compare(before, wanted)
    for (const { id } of gone) await resources.actions.drop(caller, owner, id, tx)
    for (const [at, { key, name = key, description = null, attributes = null }] of wanted.entries()) {
      const there = old.get(key)
      const whole = { name, description, attributes }
      if (!there) await resources.actions.add(caller, owner, { key, ...whole }, tx, `/body/actions/${at}`)
      else if (differs(there, whole)) await resources.actions.change(caller, owner, there.id, whole, tx)
    }
  }

  async function setAttributes(
    caller: Caller,
    owner: ResourceRow,
    before: ResourceDetail['attributes'],
    wanted: NonNullable<ResourceFields['attributes']>,
    tx: Tx,
  ): Promise<void> {
    const { old, gone } = compare(before, wanted)
    for (const { id } of gone) await resources.attributes.drop(caller, owner, id, tx)
    for (const [at, { key, type, description = null }] of wanted.entries()) {
      const there = old.get(key)
      const whole: AttributeChanges = { type, description }
      if (!there)
        await resources.attributes.add(
          caller,
          owner,
          { key, type, description },
          tx,
          `/body/attributes/${at}`,
        )
      else if (differs(there, whole)) await resources.attributes.change(caller, owner, there.id, whole, tx)
    }
  }

  /** A relation whose subject is another one now is made anew, because its relationships fit no longer. */
  async function setRelations(
    caller: Caller,
    owner: ResourceRow,
    before: ResourceDetail['relations'],
    wanted: NonNullable<ResourceFields['relations']>,
    tx: Tx,
  ): Promise<void> {
    const { old, gone } = compare(before, wanted)
    for (const { id } of gone) await resources.relations.drop(caller, owner, id, tx)
    for (const [at, { key, subject, ...fields }] of wanted.entries()) {
      const there = old.get(key)
      const subjectResource = (await resourceNamed(resources, subject, tx)).id
      if (there?.subjectResourceId === subjectResource) {
        if (differs(there, fields)) await resources.relations.change(caller, owner, there.id, fields, tx)
        continue
      }
      if (there) await resources.relations.drop(caller, owner, there.id, tx)
      const input = { ...fields, key, subjectResource }
      await resources.relations.add(caller, owner, input, tx, `/body/relations/${at}`)
    }
  }

  async function dropRoles(
    caller: Caller,
    owner: ResourceRow,
    before: readonly RoleRow[],
    wanted: NonNullable<ResourceFields['roles']>,
    tx: Tx,
  ): Promise<void> {
    for (const role of compare(before, wanted).gone) await roles.dropRole(caller, role, owner, tx)
  }
}

/** What is there by its key, and what is no longer wanted. */
function compare<T extends { key: string }>(
  before: readonly T[],
  wanted: readonly { key: string }[],
): { old: Map<string, T>; gone: T[] } {
  const keys = new Set(wanted.map(({ key }) => key))
  const old = new Map(before.filter(({ key }) => keys.has(key)).map((one) => [one.key, one]))
  return { old, gone: before.filter(({ key }) => !keys.has(key)) }
}
