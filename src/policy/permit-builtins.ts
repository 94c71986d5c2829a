import { BUILTIN_RESOURCES, BUILTIN_ROLES } from '../permissions.ts'
import type { PolicyMirror } from './adapter.ts'
import { type PermitClient, PermitRefusalError } from './permit-client.ts'
import { builtinRoleInPermit, EVERYWHERE, permissionInPermit, resourceInPermit } from './permit-names.ts'

/**
 * Writes the built-in resources and roles, and the tenant for what is held in every account, as the guard asks for
 * them. What is there already is made so.
 * @throws PermitUnavailableError, PermitRefusalError
 */
export async function syncBuiltinsToPermit(permit: PermitClient, mirror: PolicyMirror): Promise<void> {
  for (const [resource, { name, actions }] of Object.entries(BUILTIN_RESOURCES)) {
    const key = resourceInPermit(resource)
    const fields = {
      name: `Postern: ${name}`,
      actions: Object.fromEntries(actions.map((action) => [action, { name: action }])),
    }
    await createOrUpdate(
      async () =>
        void (await permit.manage(async (sdk) => await sdk.api.resources.create({ key, ...fields }))),
      async () => void (await permit.manage(async (sdk) => await sdk.api.resources.update(key, fields))),
    )
  }
  for (const [role, { description, permissions }] of Object.entries(BUILTIN_ROLES)) {
    const key = builtinRoleInPermit(role)
    const fields = { name: `Postern: ${role}`, description, permissions: permissions.map(permissionInPermit) }
    await createOrUpdate(
      async () => void (await permit.manage(async (sdk) => await sdk.api.roles.create({ key, ...fields }))),
      async () => void (await permit.manage(async (sdk) => await sdk.api.roles.update(key, fields))),
    )
  }
  await mirror.createTenant({
    key: EVERYWHERE,
    name: 'Postern: every account',
    description: 'What is held here is held in every account',
    attributes: null,
  })
}

async function createOrUpdate(create: () => Promise<void>, update: () => Promise<void>): Promise<void> {
  try {
    await create()
  } catch (error) {
    if (!(error instanceof PermitRefusalError && error.status === 409)) throw error
    await update()
  }
}
