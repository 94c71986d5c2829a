import type { Executor, Tx } from '../db/client.ts'
import { fail } from '../errors.ts'
import { isUuid } from '../ids.ts'
import type { ResourceRow } from '../resources/repository.ts'
import type { ResourcesService } from '../resources/service.ts'
import type { RoleRow, RolesRepository } from '../roles/repository.ts'
import { dashed } from './names.ts'

/** What `find` finds under the name as it is or, when that is nothing, under the id that it may be without dashes. */
export async function named<T>(
  name: string,
  find: (keyOrId: string) => Promise<T | undefined>,
): Promise<T | undefined> {
  return (await find(name)) ?? (dashed(name) === name ? undefined : await find(dashed(name)))
}

/** A resource of the application by key or id. @throws AppError resource_not_found */
export async function resourceNamed(
  resources: Pick<ResourcesService, 'findResource'>,
  name: string,
  ex?: Executor,
): Promise<ResourceRow> {
  const found = await named(name, async (keyOrId) => await resources.findResource(keyOrId, ex))
  return found ?? fail('resource_not_found', { detail: `There is no resource ${name}` })
}

/** A role of the application by key or id: of a resource, or, with null, one held in tenants. */
export async function findApplicationRole(
  roles: RolesRepository,
  name: string,
  resourceId: string | null,
  ex?: Executor,
): Promise<RoleRow | undefined> {
  const id = dashed(name)
  const role =
    (await roles.findRoleByKey(name, ex, resourceId)) ??
    (isUuid(id) ? await roles.findRole(id, ex, resourceId) : undefined)
  return role?.isBuiltin ? undefined : role
}

/** Permissions as `resource:action`, by the names that they were given. @throws AppError action_not_found */
export async function permissionsNamed(
  roles: RolesRepository,
  names: readonly string[],
  owner: Pick<ResourceRow, 'key'> | undefined,
  tx: Tx,
): Promise<Map<string, string>> {
  const wanted = [...new Set(names)]
  if (wanted.length === 0) return new Map()
  const full = (name: string) => permissionOf(name, owner)
  const declared = await roles.findActionIds(wanted.map(full), tx)
  const rest = wanted.filter((name) => !declared.has(full(name)))
  const byId = await roles.findActionNames(rest.map(dashed).filter(isUuid), tx)
  return new Map(
    wanted.map((name) => [
      name,
      (declared.has(full(name)) ? full(name) : byId.get(dashed(name).toLowerCase())) ??
        fail('action_not_found', {
          detail: `There is no permission ${name}: it is the action of no resource`,
        }),
    ]),
  )
}

/** `resource:action` for the action alone, of a role of a resource. */
export const permissionOf = (name: string, owner: Pick<ResourceRow, 'key'> | undefined): string =>
  owner && !name.includes(':') ? `${owner.key}:${name}` : name
