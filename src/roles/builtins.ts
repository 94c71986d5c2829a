import { and, eq, inArray, sql } from 'drizzle-orm'
import { DEFAULT_ENVIRONMENT, type Tx } from '../db/client.ts'
import { actions, resources, rolePermissions, roles } from '../db/schema.ts'
import { newId } from '../ids.ts'
import { BUILTIN_RESOURCES, BUILTIN_ROLES } from '../permissions.ts'

const environmentId = DEFAULT_ENVIRONMENT

/**
 * Makes the built-in resources, actions and roles what this code says they are. Idempotent; what is so already is not
 * written, because every write of a definition makes each process compile its policy anew.
 */
export async function syncBuiltins(tx: Tx): Promise<void> {
  const resourceIds = await syncResources(tx)
  const actionIds = await syncActions(resourceIds, tx)
  const roleIds = await syncRoles(tx)
  await syncPermissions(roleIds, actionIds, tx)
}

async function syncResources(tx: Tx): Promise<Map<string, string>> {
  await tx
    .insert(resources)
    .values(
      Object.entries(BUILTIN_RESOURCES).map(([key, { name }]) => ({
        id: newId(),
        environmentId,
        key,
        name,
        isBuiltin: true,
      })),
    )
    .onConflictDoUpdate({
      target: [resources.environmentId, resources.key],
      set: { name: sql`excluded.name`, isBuiltin: true },
      setWhere: sql`(${resources.name}, ${resources.isBuiltin}) is distinct from (excluded.name, true)`,
    })
  const rows = await tx
    .select({ id: resources.id, key: resources.key })
    .from(resources)
    .where(and(eq(resources.environmentId, environmentId), eq(resources.isBuiltin, true)))
  return new Map(rows.map(({ key, id }) => [key, id]))
}

async function syncActions(resourceIds: Map<string, string>, tx: Tx): Promise<Map<string, string>> {
  const values = Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { actions: keys }]) =>
    keys.map((key) => ({
      id: newId(),
      environmentId,
      resourceId: idOf(resourceIds, resource),
      key,
      name: key,
    })),
  )
  await tx
    .insert(actions)
    .values(values)
    .onConflictDoUpdate({
      target: [actions.resourceId, actions.key],
      set: { name: sql`excluded.name` },
      setWhere: sql`${actions.name} is distinct from excluded.name`,
    })
  const rows = await tx
    .select({ id: actions.id, key: actions.key, resourceId: actions.resourceId })
    .from(actions)
    .where(inArray(actions.resourceId, [...resourceIds.values()]))
  const resourceKeys = new Map([...resourceIds].map(([key, id]) => [id, key]))
  return new Map(rows.map((row) => [`${resourceKeys.get(row.resourceId)}:${row.key}`, row.id]))
}

async function syncRoles(tx: Tx): Promise<Map<string, string>> {
  await tx
    .insert(roles)
    .values(
      Object.entries(BUILTIN_ROLES).map(([key, { description, reach }]) => ({
        id: newId(),
        environmentId,
        key,
        name: key,
        description,
        defaultReach: reach,
        isBuiltin: true,
      })),
    )
    .onConflictDoUpdate({
      target: [roles.environmentId, roles.resourceId, roles.key],
      set: {
        description: sql`excluded.description`,
        defaultReach: sql`excluded.default_reach`,
        isBuiltin: true,
      },
      setWhere: sql`(${roles.description}, ${roles.defaultReach}, ${roles.isBuiltin})
        is distinct from (excluded.description, excluded.default_reach, true)`,
    })
  const rows = await tx
    .select({ id: roles.id, key: roles.key })
    .from(roles)
    .where(and(eq(roles.environmentId, environmentId), eq(roles.isBuiltin, true)))
  return new Map(rows.map(({ key, id }) => [key, id]))
}

async function syncPermissions(
  roleIds: Map<string, string>,
  actionIds: Map<string, string>,
  tx: Tx,
): Promise<void> {
  const wanted = Object.entries(BUILTIN_ROLES).flatMap(([role, { permissions }]) =>
    permissions.map((permission) => ({
      environmentId,
      roleId: idOf(roleIds, role),
      actionId: idOf(actionIds, permission),
    })),
  )
  await tx.insert(rolePermissions).values(wanted).onConflictDoNothing()
  const kept = new Set(wanted.map(({ roleId, actionId }) => `${roleId} ${actionId}`))
  const held = await tx
    .select({ roleId: rolePermissions.roleId, actionId: rolePermissions.actionId })
    .from(rolePermissions)
    .where(inArray(rolePermissions.roleId, [...roleIds.values()]))
  for (const { roleId, actionId } of held.filter((row) => !kept.has(`${row.roleId} ${row.actionId}`))) {
    await tx
      .delete(rolePermissions)
      .where(and(eq(rolePermissions.roleId, roleId), eq(rolePermissions.actionId, actionId)))
  }
}

function idOf(ids: Map<string, string>, key: string): string {
  const id = ids.get(key)
  if (id === undefined) throw new Error(`${key} is not a built-in`)
  return id
}
