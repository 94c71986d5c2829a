import type { AuditRepository } from '../audit/repository.ts'
import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import type { AttributeType } from '../db/schema.ts'
import { AppError, fail } from '../errors.ts'
import { grouped } from '../grouping.ts'
import { isUuid, newId } from '../ids.ts'
import type { Caller } from '../principal.ts'
import type { IfMatch } from '../revisions.ts'
import type { DerivationRow, RoleRow, RolesRepository } from '../roles/repository.ts'
import type { NewDerivation, NewRole, RolesService, RoleUpdate } from '../roles/service.ts'
import type { UsersRepository } from '../users/repository.ts'
import { createDefinitionsService } from './definitions.ts'
import type {
  ActionGroupRow,
  ActionRow,
  AttributeRow,
  DefinitionsRepositories,
  RelationRow,
  Values,
} from './definitions-repository.ts'
import { assertApplicationKey } from './keys.ts'
import type { ResourceChanges, ResourceRow, ResourcesRepository } from './repository.ts'

export type ActionChanges = {
  name?: string
  description?: string | null
  attributes?: Record<string, unknown> | null
}
/** The name of an action, group or relation is its key until it is given one. */
export type NewAction = ActionChanges & { key: string }
/** `actions`: keys of the resource's own. */
export type ActionGroupChanges = ActionChanges & { actions?: readonly string[] }
export type NewActionGroup = ActionGroupChanges & { key: string }
export type AttributeChanges = { type?: AttributeType; description?: string | null }
export type NewAttribute = AttributeChanges & { key: string; type: AttributeType }
export type RelationChanges = { name?: string; description?: string | null }
/** `subjectResource`: key or id of the resource whose instances are the subjects. */
export type NewRelation = RelationChanges & { key: string; subjectResource: string }

export type NewResource = ResourceChanges & {
  key: string
  actions?: readonly NewAction[]
  attributes?: readonly NewAttribute[]
  relations?: readonly NewRelation[]
  roles?: readonly (NewRole & { key: string })[]
}

/** A resource with all that is defined on it. */
export type ResourceDetail = ResourceRow & {
  actions: ActionRow[]
  actionGroups: ActionGroupRow[]
  attributes: AttributeRow[]
  relations: RelationRow[]
  roles: RoleRow[]
}

type Dependencies = {
  database: Database
  resources: ResourcesRepository
  definitions: DefinitionsRepositories
  roles: RolesRepository
  rolesService: RolesService
  users: UsersRepository
  audit: AuditRepository
}

export type ResourcesService = ReturnType<typeof createResourcesService>

/** What the application's policy speaks of: resources, and all that is defined on them. */
export function createResourcesService(dependencies: Dependencies) {
  const { database, resources, definitions, roles, rolesService, users, audit } = dependencies
  const { db } = database

  const shared = {
    database,
    audit,
    lockDefinitions: roles.lockDefinitions,
    requireOwner: async (resourceId: string | null, ex?: Executor) =>
      resourceId === null ? null : await getResourceRow(resourceId, ex),
  }

  const actions = createDefinitionsService<ActionRow, NewAction, ActionChanges>(shared, {
    kind: 'action',
    notFound: 'action_not_found',
    rows: definitions.actions,
    valuesOf: named,
    beforeDelete: async (action, tx) => await endTokensWith({ actionId: action.id }, tx),
  })

  const actionGroups = createDefinitionsService<ActionGroupRow, NewActionGroup, ActionGroupChanges>(shared, {
    kind: 'action_group',
    notFound: 'action_group_not_found',
    rows: definitions.actionGroups,
    valuesOf: ({ actions: _, ...input }) => named(input),
    link: async (groupId, owner, { actions: keys }, tx, at) => {
      if (!keys || !owner) return
      const found = await definitions.findActionIds(owner.id, keys, tx)
      const errors = keys.flatMap((key, index) =>
        found.has(key) ? [] : [{ pointer: `${at}/actions/${index}`, detail: `is no action of ${owner.key}` }],
      )
      if (errors.length > 0) throw new AppError('validation_failed', { errors: errors.slice(0, 50) })
      await definitions.replaceGroupActions(groupId, owner.id, [...found.values()], tx)
    },
  })

  const attributes = createDefinitionsService<AttributeRow, NewAttribute, AttributeChanges>(shared, {
    kind: 'attribute',
    notFound: 'attribute_not_found',
    rows: definitions.attributes,
    valuesOf: ({ type, description }) => ({
      ...(type !== undefined && { type }),
      ...(description !== undefined && { description }),
    }),
  })

  const relations = createDefinitionsService<RelationRow, NewRelation, RelationChanges>(shared, {
    kind: 'relation',
    notFound: 'relation_not_found',
    rows: definitions.relations,
    valuesOf: async (input, tx, at) => {
      if (!('subjectResource' in input)) return named(input)
      const { subjectResource, ...fields } = input
      const subject = await findByKeyOrId(subjectResource, tx)
      if (subject) return { ...named(fields), subjectResourceId: subject.id }
      throw new AppError('validation_failed', {
        errors: [{ pointer: `${at}/subject_resource`, detail: 'is no resource' }],
      })
    },
  })

  return {
    actions,
    actionGroups,
    attributes,
    relations,

    listResources: resources.listResources,

    /** @throws AppError resource_not_found */
    async getResource(id: string): Promise<ResourceDetail> {
      const [detail] = await detailsOf([await getResourceRow(id)])
      return detail ?? fail('resource_not_found')
    },

    /** A resource by key or, failing that, by id. @throws AppError resource_not_found */
    async resolveResource(keyOrId: string): Promise<ResourceRow> {
      return (await findByKeyOrId(keyOrId)) ?? fail('resource_not_found')
    },

    /** The same; `undefined` when there is none. */
    findResource: findByKeyOrId,

    /** These resources with all that is defined on them. */
    detailsOf,

    /** An action of a resource by key or, failing that, by id. @throws AppError resource_not_found, action_not_found */
    resolveAction: actions.resolve,

    /** A role by key or, failing that, by id: of a resource, or held in accounts. @throws AppError role_not_found */
    resolveRole: async (keyOrId: string, resourceId: string | null = null): Promise<RoleRow> =>
      await rolesService.resolveRole(keyOrId, resourceId),

    /**
     * Defines a resource with what is on it, all or nothing. Its roles may extend those before them in the list.
     * @throws AppError resource_key_taken, validation_failed, limit_reached, and what its parts are refused with
     */
    async createResource(caller: Caller, input: NewResource): Promise<ResourceDetail> {
      const { actions: a = [], attributes: b = [], relations: c = [], roles: d = [] } = input
      const id = await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const owner = await this.addResource(caller, input, tx)
        for (const [at, one] of a.entries()) await actions.add(caller, owner, one, tx, `/body/actions/${at}`)
        for (const [at, one] of b.entries())
          await attributes.add(caller, owner, one, tx, `/body/attributes/${at}`)
        for (const [at, one] of c.entries())
          await relations.add(caller, owner, one, tx, `/body/relations/${at}`)
        for (const [at, one] of d.entries())
          await rolesService.addRole(caller, one, owner, tx, `/body/roles/${at}`)
        return owner.id
      })
      return await this.getResource(id)
    },

    /**
     * Defines a resource with nothing on it, in the caller's transaction, which holds `lockDefinitions`.
     * @throws AppError resource_key_taken, validation_failed, limit_reached
     */
    async addResource(
      caller: Caller,
      { key, name = key, description = null, urn = null }: ResourceChanges & { key: string },
      tx: Tx,
    ): Promise<ResourceRow> {
      assertApplicationKey(key, '/body/key')
      const id = newId()
      await resources.insertResource({ id, key, name, description, urn }, tx)
      await audit.append(
        { action: 'resource.created', caller, target: { type: 'resource', id }, details: { key } },
        tx,
      )
      return await getResourceRow(id, tx)
    },

    /** Changes what a resource is called; its key stays. @throws AppError resource_not_found */
    async updateResource(caller: Caller, id: string, changes: ResourceChanges): Promise<ResourceDetail> {
      await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        await getResourceRow(id, tx)
        await this.changeResource(caller, id, changes, tx)
      })
      return await this.getResource(id)
    },

    /** The same in the caller's transaction, which holds `lockDefinitions` and has found the resource in it. */
    async changeResource(caller: Caller, id: string, changes: ResourceChanges, tx: Tx): Promise<void> {
      await resources.updateResource(id, changes, tx)
      await audit.append(
        {
          action: 'resource.updated',
          caller,
          target: { type: 'resource', id },
          details: { fields: Object.keys(changes) },
        },
        tx,
      )
    },

    /**
     * Deletes a resource with all that is defined on it, its instances, the roles held on them, and the relations of
     * others to it. Tokens with one of its permissions end at once.
     * @throws AppError resource_not_found, resource_in_use
     */
    async deleteResource(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        const { key } = await getResourceRow(id, tx)
        if (await resources.hasForeignDescendants(id, tx)) throw new AppError('resource_in_use')
        await endTokensWith({ resourceId: id }, tx)
        await resources.deleteResource(id, tx)
        await audit.append(
          { action: 'resource.deleted', caller, target: { type: 'resource', id }, details: { key } },
          tx,
        )
      })
    },

    /** A page of a resource's roles. @throws AppError resource_not_found */
    async listRoles(
      resourceId: string,
      filters: { key?: string },
      request: PageRequest,
    ): Promise<Page<RoleRow>> {
      await getResourceRow(resourceId)
      return await roles.listRoles({ ...filters, resourceId }, request)
    },

    /** @throws AppError resource_not_found, role_not_found */
    async getRole(resourceId: string, id: string): Promise<RoleRow> {
      await getResourceRow(resourceId)
      return await rolesService.getRole(id, resourceId)
    },

    /** @throws AppError resource_not_found, and as `addRole` of roles */
    async createRole(caller: Caller, resourceId: string, input: NewRole): Promise<RoleRow> {
      return await transact(db, async (tx) => {
        await roles.lockDefinitions(tx)
        return await rolesService.addRole(caller, input, await getResourceRow(resourceId, tx), tx)
      })
    },

    /** @throws AppError resource_not_found, and as `updateRole` of roles */
    async updateRole(
      caller: Caller,
      resourceId: string,
      id: string,
      changes: RoleUpdate,
      ifMatch: IfMatch,
    ): Promise<RoleRow> {
      return await rolesService.updateRole(caller, id, changes, ifMatch, await getResourceRow(resourceId))
    },

    /** @throws AppError resource_not_found, and as `deleteRole` of roles */
    async deleteRole(caller: Caller, resourceId: string, id: string, ifMatch: IfMatch): Promise<void> {
      await rolesService.deleteRole(caller, id, ifMatch, await getResourceRow(resourceId))
    },

    /** @throws AppError resource_not_found, and as `addDerivation` of roles */
    async createDerivation(
      caller: Caller,
      resourceId: string,
      roleId: string,
      input: NewDerivation,
    ): Promise<DerivationRow> {
      const owner = await getResourceRow(resourceId)
      return await rolesService.addDerivation(
        caller,
        roleId,
        owner,
        input,
        async (key, tx) => (await resources.findResourceByKey(key, tx))?.id,
      )
    },

    /** @throws AppError resource_not_found, role_not_found, derivation_not_found */
    async deleteDerivation(
      caller: Caller,
      resourceId: string,
      roleId: string,
      derivationId: string,
    ): Promise<void> {
      await rolesService.removeDerivation(caller, roleId, await getResourceRow(resourceId), derivationId)
    },
  }

  async function getResourceRow(id: string, ex?: Executor): Promise<ResourceRow> {
    return (await resources.findResource(id, ex)) ?? fail('resource_not_found')
  }

  async function findByKeyOrId(keyOrId: string, ex?: Executor): Promise<ResourceRow | undefined> {
    const byKey = await resources.findResourceByKey(keyOrId, ex)
    return byKey ?? (isUuid(keyOrId) ? await resources.findResource(keyOrId, ex) : undefined)
  }

  async function detailsOf(rows: readonly ResourceRow[], ex?: Executor): Promise<ResourceDetail[]> {
    if (rows.length === 0) return []
    const ids = rows.map(({ id }) => id)
    const actionsOf = grouped(await definitions.actions.listOf(ids, ex), ownerOf)
    const groupsOf = grouped(await definitions.actionGroups.listOf(ids, ex), ownerOf)
    const attributesOf = grouped(await definitions.attributes.listOf(ids, ex), ownerOf)
    const relationsOf = grouped(await definitions.relations.listOf(ids, ex), ownerOf)
    const rolesOf = grouped(await roles.listRolesOf(ids, ex), ownerOf)
    return rows.map((row) => ({
      ...row,
      actions: actionsOf.get(row.id) ?? [],
      actionGroups: groupsOf.get(row.id) ?? [],
      attributes: attributesOf.get(row.id) ?? [],
      relations: relationsOf.get(row.id) ?? [],
      roles: rolesOf.get(row.id) ?? [],
    }))
  }

  /** Ends the tokens that carry a permission which is about to go. */
  async function endTokensWith(what: { resourceId: string } | { actionId: string }, tx: Tx): Promise<void> {
    const holders = await roles.lockHolderIds(await roles.listRoleIdsWith(what, tx), tx)
    await users.raiseTokenVersions(holders, tx)
  }
}

const ownerOf = ({ resourceId }: { resourceId: string | null }): string | null => resourceId

/** The columns of an input; what is new has its key as its name. */
function named(input: ActionChanges & { key?: string }): Values {
  const { key, name = key, description, attributes } = input
  return {
    ...(name !== undefined && { name }),
    ...(description !== undefined && { description }),
    ...(attributes !== undefined && { attributes }),
  }
}
