import { isDeepStrictEqual } from 'node:util'
import { type Database, type Tx, transact } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { grouped } from '../grouping.ts'
import type { Caller } from '../principal.ts'
import type { ResourceRow } from '../resources/repository.ts'
import type { ResourcesService } from '../resources/service.ts'
import type { RoleRow, RolesRepository } from '../roles/repository.ts'
import type { RolesService } from '../roles/service.ts'
import { permissionsNamed, resourceNamed } from './lookup.ts'
import type { NewRoleFields, PermitRoles, RoleFields } from './roles.ts'

type Dependencies = {
  database: Database
  roles: RolesService
  rolesRepository: RolesRepository
  resources: ResourcesService
  permitRoles: PermitRoles
}

export type PermitRoleSets = ReturnType<typeof createPermitRoleSets>

/** Many roles at once, which may name one another in any order. What a role has that its fields leave out, it loses. */
export function createPermitRoleSets(dependencies: Dependencies) {
  const { database, roles, rolesRepository, resources, permitRoles } = dependencies

  return {
    /**
     * Creates the roles, or replaces those that are there, all or none. `resource`: key or id of the one that a role is
     * of. @returns their keys
     * @throws AppError validation_failed for a role that is named twice, and as `create` and `update` of one role
     */
    async put(
      caller: Caller,
      inputs: readonly (NewRoleFields & { resource?: string | undefined })[],
    ): Promise<{ created: string[]; updated: string[] }> {
      return await transact(database.db, async (tx) => {
        await rolesRepository.lockDefinitions(tx)
        const sets: { owner: ResourceRow | undefined; wanted: NewRoleFields[] }[] = []
        for (const [resource, wanted] of grouped(inputs, (input) => input.resource)) {
          const owner = resource === undefined ? undefined : await resourceNamed(resources, resource, tx)
          const known = sets.find((set) => set.owner?.id === owner?.id)
          if (known) known.wanted.push(...wanted)
          else sets.push({ owner, wanted })
        }
        const done = { created: [] as string[], updated: [] as string[] }
        for (const { owner, wanted } of sets) {
          const there = await this.putAlone(caller, wanted, owner, tx)
          for (const { key } of wanted) done[there.has(key) ? 'updated' : 'created'].push(key)
        }
        for (const { owner, wanted } of sets) await this.putTies(caller, wanted, owner, tx)
        return done
      })
    },

    /**
     * Each role by itself, in the caller's transaction, which holds the definitions: without what it has of others
     * anew. @returns the keys of those that were there
     */
    async putAlone(
      caller: Caller,
      wanted: readonly NewRoleFields[],
      owner: ResourceRow | undefined,
      tx: Tx,
    ): Promise<Set<string>> {
      const there = await listWanted(wanted, owner, tx)
      const permissions = await permissionsNamed(
        rolesRepository,
        wanted.flatMap((input) => input.permissions ?? []),
        owner,
        tx,
      )
      const fresh: (RoleFields & { key: string; name: string })[] = []
      for (const input of wanted) {
        const { key, name = key, extends: parents = [], derivations, ...fields } = input
        permitRoles.assertMayBeDerived({ ...fields, ...(derivations && { derivations }) }, owner)
        const whole = {
          description: null,
          attributes: null,
          noDirectRolesOnObject: false,
          ...fields,
          name,
          permissions: [
            ...new Set((input.permissions ?? []).map((one) => permissions.get(one) ?? one)),
          ].sort(),
        }
        const role = there.get(key)
        if (!role) {
          fresh.push({ ...whole, key })
          continue
        }
        const changes = { ...whole, extends: role.extends.filter((parent) => parents.includes(parent)) }
        if (differs(role, changes))
          await roles.changeRole(caller, role, differences(role, changes), owner, tx)
      }
      await roles.addRoles(caller, fresh, owner, tx)
      return new Set(there.keys())
    },

    /** What the roles, which are all there, have of others. In the caller's transaction. */
    async putTies(
      caller: Caller,
      wanted: readonly NewRoleFields[],
      owner: ResourceRow | undefined,
      tx: Tx,
    ): Promise<void> {
      const there = await listWanted(wanted, owner, tx)
      for (const { key, extends: parents = [], derivations = [] } of wanted) {
        const role = there.get(key)
        if (!role) continue
        const ties = role.extends.length + role.derivations.length + parents.length + derivations.length
        if (ties > 0) await permitRoles.change(caller, role, { extends: parents, derivations }, owner, tx)
      }
    },
  }

  /** Those that are there, by key. @throws AppError role_key_taken for a built-in one, validation_failed for one named twice */
  async function listWanted(
    wanted: readonly NewRoleFields[],
    owner: ResourceRow | undefined,
    tx: Tx,
  ): Promise<Map<string, RoleRow>> {
    const keys = wanted.map(({ key }) => key)
    const twice = keys.findIndex((key, at) => keys.indexOf(key) !== at)
    if (twice >= 0)
      throw new AppError('validation_failed', {
        errors: [{ pointer: `/body/operations/${twice}/key`, detail: 'names a role that is named before' }],
      })
    const found = await rolesRepository.listRolesByKeys(keys, owner?.id ?? null, tx)
    if (found.some(({ isBuiltin }) => isBuiltin)) throw new AppError('role_key_taken')
    return new Map(found.map((role) => [role.key, role]))
  }
}

/** True when one of the fields is not what the row has. */
export const differs = (row: object, fields: object): boolean =>
  Object.keys(differences(row, fields)).length > 0

/** Those of the fields that are not what the row has. */
function differences<T extends object>(row: object, fields: T): Partial<T> {
  const has = new Map(Object.entries(row))
  const different: Partial<T> = { ...fields }
  for (const field in fields) if (isDeepStrictEqual(has.get(field), fields[field])) delete different[field]
  return different
}
