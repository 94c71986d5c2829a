import { type Database, type Executor, type Tx, transact } from '../db/client.ts'
import type { Page } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { Caller } from '../principal.ts'
import type { ResourceRow } from '../resources/repository.ts'
import type { ResourcesService } from '../resources/service.ts'
import type { DerivationRow, RoleRow, RolesRepository } from '../roles/repository.ts'
import type { DerivationEnds, RolesService, RoleUpdate } from '../roles/service.ts'
import { findApplicationRole, named, permissionOf, permissionsNamed, resourceNamed } from './lookup.ts'
import { dashed } from './names.ts'
import type { NumberedPage } from './repository.ts'

/** What a role has beside its key. Permissions, roles, resources and relations by key or id. */
export type RoleFields = {
  name?: string
  description?: string | null
  permissions?: readonly string[]
  attributes?: Record<string, unknown> | null
  extends?: readonly string[]
  noDirectRolesOnObject?: boolean
  derivations?: readonly DerivationSpec[]
}

export type NewRoleFields = RoleFields & { key: string }

/** Who holds the derived role: whoever holds `role` of `onResource` on what the object names by the relation. */
export type DerivationSpec = {
  role: string
  onResource: string
  linkedByRelation: string
  noDirectRolesOnObject: boolean
}

/** A role of a resource with that, or one held in tenants. */
export type OwnedRole = { role: RoleRow; owner: ResourceRow | undefined }

type Dependencies = {
  database: Database
  roles: RolesService
  rolesRepository: RolesRepository
  resources: ResourcesService
}

/** The most permissions of a role. */
export const MOST_PERMISSIONS = 500

export type PermitRoles = ReturnType<typeof createPermitRoles>

/**
 * Roles held in tenants, and with a resource those held on its instances, by keys or ids. The rules are those of the
 * services behind it; built-in roles are not there, and permissions must be those of actions that are declared.
 */
export function createPermitRoles({ database, roles, rolesRepository, resources }: Dependencies) {
  const { db } = database

  /** Runs `work` in a transaction that no other change of definitions gets into. `resource`: key or id. */
  async function write<T>(
    resource: string | undefined,
    work: (owner: ResourceRow | undefined, tx: Tx) => Promise<T>,
  ): Promise<T> {
    return await transact(db, async (tx) => {
      await rolesRepository.lockDefinitions(tx)
      return await work(resource === undefined ? undefined : await getResource(resource, tx), tx)
    })
  }

  const getResource = async (name: string, ex: Executor = db): Promise<ResourceRow> =>
    await resourceNamed(resources, name, ex)

  async function getRole(name: string, owner: ResourceRow | undefined, ex: Executor = db): Promise<RoleRow> {
    return (
      (await findApplicationRole(rolesRepository, name, owner?.id ?? null, ex)) ??
      fail('role_not_found', { detail: `There is no role ${name}${owner ? ` of ${owner.key}` : ''}` })
    )
  }

  const permissionsOf = async (names: readonly string[], owner: ResourceRow | undefined, tx: Tx) => [
    ...new Set((await permissionsNamed(rolesRepository, names, owner, tx)).values()),
  ]

  /** The fields as the service behind takes them; derivations are written apart. */
  async function resolve(
    { permissions, extends: parents, derivations: _, ...fields }: RoleFields,
    owner: ResourceRow | undefined,
    tx: Tx,
  ): Promise<RoleUpdate> {
    const extended: string[] = []
    for (const parent of parents ?? []) extended.push((await getRole(parent, owner, tx)).key)
    return {
      ...fields,
      ...(permissions && { permissions: await permissionsOf(permissions, owner, tx) }),
      ...(parents && { extends: [...new Set(extended)] }),
    }
  }

  /** @throws AppError resource_not_found, relation_not_found, role_not_found, relation_mismatch */
  async function endsOf(spec: DerivationSpec, owner: ResourceRow, tx: Tx): Promise<DerivationEnds> {
    const subject = await getResource(spec.onResource, tx)
    const name = spec.linkedByRelation
    const relation =
      (await named(name, async (one) => await resources.relations.findNamed(owner.id, one, tx))) ??
      fail('relation_not_found', { detail: `There is no relation ${name} of ${owner.key}` })
    if (relation.subjectResourceId !== subject.id) throw new AppError('relation_mismatch')
    const source = await getRole(spec.role, subject, tx)
    return {
      sourceRoleId: source.id,
      relationId: relation.id,
      noDirectRolesOnObject: spec.noDirectRolesOnObject,
    }
  }

  /** Makes these the derivations of the role; those that are right already are left. */
  async function setDerivations(
    caller: Caller,
    role: RoleRow,
    owner: ResourceRow,
    specs: readonly DerivationSpec[],
    tx: Tx,
  ): Promise<void> {
    const wanted = new Map<string, DerivationEnds>()
    for (const spec of specs) {
      const ends = await endsOf(spec, owner, tx)
      wanted.set(pathOf(ends), ends)
    }
    for (const derivation of role.derivations) {
      const ends = wanted.get(pathOf(derivation))
      if (ends?.noDirectRolesOnObject === derivation.noDirectRolesOnObject) wanted.delete(pathOf(derivation))
      else await roles.underive(caller, role, owner, derivation.id, tx)
    }
    for (const ends of wanted.values()) await roles.derive(caller, role, owner, ends, tx)
  }

  return {
    /** A page of the roles held in tenants, or of those of a resource. The oldest first. */
    async list(
      resource: string | undefined,
      { page, perPage }: NumberedPage,
      total: boolean,
    ): Promise<Page<OwnedRole>> {
      const owner = resource === undefined ? undefined : await getResource(resource)
      const found = await rolesRepository.listRoles(
        { isBuiltin: false, ...(owner && { resourceId: owner.id }) },
        { limit: perPage, skip: (page - 1) * perPage, sort: 'created_at', total },
      )
      return { ...found, items: found.items.map((role) => ({ role, owner })) }
    },

    /** @throws AppError resource_not_found, role_not_found */
    async get(name: string, resource?: string): Promise<OwnedRole> {
      const owner = resource === undefined ? undefined : await getResource(resource)
      return { role: await getRole(name, owner), owner }
    },

    /** The roles that a role extends, or that extend it, directly or not. @throws AppError as `get` */
    async listRelatives(
      which: 'ancestors' | 'descendants',
      name: string,
      resource?: string,
    ): Promise<OwnedRole[]> {
      const { role, owner } = await this.get(name, resource)
      return (await rolesRepository.listRelatives(role, which)).map((one) => ({ role: one, owner }))
    },

    /**
     * @throws AppError resource_not_found, role_key_taken, limit_reached, action_not_found, role_not_found for one
     *   that it extends, and as `derive`
     */
    async create(caller: Caller, input: NewRoleFields, resource?: string): Promise<OwnedRole> {
      return await write(resource, async (owner, tx) => ({
        role: await this.add(caller, input, owner, tx),
        owner,
      }))
    },

    /** The same in the caller's transaction, which holds the definitions. */
    async add(
      caller: Caller,
      input: NewRoleFields,
      owner: ResourceRow | undefined,
      tx: Tx,
    ): Promise<RoleRow> {
      const { key, name = key } = input
      this.assertMayBeDerived(input, owner)
      const role = await roles.addRole(caller, { ...(await resolve(input, owner, tx)), key, name }, owner, tx)
      if (!owner || !input.derivations?.length) return role
      await setDerivations(caller, role, owner, input.derivations, tx)
      return await getRole(role.id, owner, tx)
    },

    /** @throws AppError resource_not_found, role_not_found, role_cycle, limit_reached, action_not_found, and as `derive` */
    async update(caller: Caller, name: string, fields: RoleFields, resource?: string): Promise<OwnedRole> {
      return await write(resource, async (owner, tx) => ({
        role: await this.change(caller, await getRole(name, owner, tx), fields, owner, tx),
        owner,
      }))
    },

    /** The same in the caller's transaction, which holds the definitions. */
    async change(
      caller: Caller,
      role: RoleRow,
      fields: RoleFields,
      owner: ResourceRow | undefined,
      tx: Tx,
    ): Promise<RoleRow> {
      this.assertMayBeDerived(fields, owner)
      const changed = await roles.changeRole(caller, role, await resolve(fields, owner, tx), owner, tx)
      if (!owner || !fields.derivations) return changed
      await setDerivations(caller, changed, owner, fields.derivations, tx)
      return await getRole(role.id, owner, tx)
    },

    /** Deletes a role, and takes it from who holds it. @throws AppError resource_not_found, role_not_found */
    async remove(caller: Caller, name: string, resource?: string): Promise<void> {
      await write(
        resource,
        async (owner, tx) => await roles.dropRole(caller, await getRole(name, owner, tx), owner, tx),
      )
    },

    /** @throws AppError resource_not_found, role_not_found, action_not_found, limit_reached */
    async addPermissions(
      caller: Caller,
      name: string,
      names: readonly string[],
      resource?: string,
    ): Promise<OwnedRole> {
      return await write(resource, async (owner, tx) => {
        const role = await getRole(name, owner, tx)
        const permissions = new Set([...role.permissions, ...(await permissionsOf(names, owner, tx))])
        if (permissions.size === role.permissions.length) return { role, owner }
        if (permissions.size > MOST_PERMISSIONS)
          throw new AppError('limit_reached', {
            detail: `There may be ${MOST_PERMISSIONS} permissions of a role at most`,
          })
        const changes = { permissions: [...permissions] }
        return { role: await roles.changeRole(caller, role, changes, owner, tx), owner }
      })
    },

    /** What the role does not have is passed over. @throws AppError resource_not_found, role_not_found */
    async removePermissions(
      caller: Caller,
      name: string,
      names: readonly string[],
      resource?: string,
    ): Promise<OwnedRole> {
      return await write(resource, async (owner, tx) => {
        const role = await getRole(name, owner, tx)
        const byId = await rolesRepository.findActionNames(names.map(dashed).filter(isUuid), tx)
        const gone = new Set([...names.map((one) => permissionOf(one, owner)), ...byId.values()])
        const permissions = role.permissions.filter((one) => !gone.has(one))
        if (permissions.length === role.permissions.length) return { role, owner }
        return { role: await roles.changeRole(caller, role, { permissions }, owner, tx), owner }
      })
    },

    /** Has the role extend another one of its kind, or no longer. @throws AppError resource_not_found, role_not_found, role_cycle */
    async setParent(
      caller: Caller,
      name: string,
      parent: string,
      isParent: boolean,
      resource?: string,
    ): Promise<OwnedRole> {
      return await write(resource, async (owner, tx) => {
        const role = await getRole(name, owner, tx)
        const { key } = await getRole(parent, owner, tx)
        if (role.extends.includes(key) === isParent) return { role, owner }
        const others = role.extends.filter((one) => one !== key)
        const changes = { extends: isParent ? [...others, key] : others }
        return { role: await roles.changeRole(caller, role, changes, owner, tx), owner }
      })
    },

    /**
     * Has the role of a resource be held by whoever holds another one on a related instance.
     * @throws AppError resource_not_found, role_not_found, relation_not_found, relation_mismatch, derivation_exists,
     *   limit_reached
     */
    async derive(
      caller: Caller,
      resource: string,
      name: string,
      spec: DerivationSpec,
    ): Promise<DerivationRow> {
      return await write(undefined, async (_, tx) => {
        const owner = await getResource(resource, tx)
        const role = await getRole(name, owner, tx)
        return await roles.derive(caller, role, owner, await endsOf(spec, owner, tx), tx)
      })
    },

    /** @throws AppError resource_not_found, role_not_found, relation_not_found, relation_mismatch, derivation_not_found */
    async underive(caller: Caller, resource: string, name: string, spec: DerivationSpec): Promise<void> {
      await write(undefined, async (_, tx) => {
        const owner = await getResource(resource, tx)
        const role = await getRole(name, owner, tx)
        const path = pathOf(await endsOf(spec, owner, tx))
        const derivation =
          role.derivations.find((one) => pathOf(one) === path) ?? fail('derivation_not_found')
        await roles.underive(caller, role, owner, derivation.id, tx)
      })
    },

    /** Roles held in tenants are derived from nothing here. To drop the rules in silence would lose access. */
    assertMayBeDerived(
      { derivations, noDirectRolesOnObject }: Pick<RoleFields, 'derivations' | 'noDirectRolesOnObject'>,
      owner: ResourceRow | undefined,
    ): void {
      if (owner || (!derivations?.length && !noDirectRolesOnObject)) return
      throw new AppError('validation_failed', {
        errors: [{ pointer: '/body/granted_to', detail: 'goes with roles of resources only' }],
      })
    },
  }
}

const pathOf = ({ sourceRoleId, relationId }: Pick<DerivationEnds, 'sourceRoleId' | 'relationId'>): string =>
  `${sourceRoleId} ${relationId}`
