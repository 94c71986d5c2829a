import type {
  Attributes,
  Facts,
  HeldRole,
  InstanceFacts,
  PolicyDocument,
  Question,
  ResourceDefinition,
  ResourceRoleDefinition,
  RoleDefinition,
  TenantFacts,
  UserFacts,
} from '../../../src/policy/engine/model.ts'

/** The time of every test that does not say otherwise. */
export const NOW = 1_800_000_000_000

/** Everything that is stored. */
export type World = {
  readonly users: readonly UserFacts[]
  readonly tenants: readonly TenantFacts[]
  readonly instances: readonly InstanceFacts[]
}

export const aWorld = (parts: Partial<World> = {}): World => ({
  users: [],
  tenants: [],
  instances: [],
  ...parts,
})

/** All of a world, by key and by id, key first. */
export function factsOf({ users, tenants, instances }: World): Facts {
  const byName = <T>(all: readonly T[], ...namesOf: ((one: T) => string)[]): Map<string, T> =>
    new Map(namesOf.toReversed().flatMap((nameOf) => all.map((one) => [nameOf(one), one] as const)))
  const userByName = byName(
    users,
    ({ key }) => key,
    ({ id }) => id,
  )
  const tenantByName = byName(
    tenants,
    ({ key }) => key,
    ({ id }) => id,
  )
  const instanceByName = byName(
    instances,
    ({ type, key }) => `${type}:${key}`,
    ({ type, id }) => `${type}:${id}`,
  )
  return {
    user: (ref) => userByName.get(ref) ?? null,
    tenant: (ref) => tenantByName.get(ref) ?? null,
    instance: (ref) => instanceByName.get(ref) ?? null,
  }
}

export const aDocument = (parts: Partial<PolicyDocument> = {}): PolicyDocument => ({
  resources: [],
  roles: [],
  userSets: [],
  resourceSets: [],
  rules: [],
  ...parts,
})

export const aResource = (key: string, parts: Partial<ResourceDefinition> = {}): ResourceDefinition => ({
  key,
  actions: ['read', 'write'],
  roles: [],
  relations: [],
  ...parts,
})

export const aRole = (
  key: string,
  permissions: readonly string[] = [],
  parents: readonly string[] = [],
): RoleDefinition => ({
  key,
  permissions,
  extends: parents,
})

export const anInstanceRole = (
  key: string,
  permissions: readonly string[] = [],
  parts: Partial<ResourceRoleDefinition> = {},
): ResourceRoleDefinition => ({
  ...aRole(key, permissions),
  derivations: [],
  noDirectRolesOnObject: false,
  ...parts,
})

/** `role` on `onResource` gives the role derived on whatever names it by `relation`. */
export const from = (
  role: string,
  onResource: string,
  linkedByRelation: string,
  noDirectRolesOnObject = false,
) => ({
  role,
  onResource,
  linkedByRelation,
  noDirectRolesOnObject,
})

export const held = (role: string, expiresAt?: number): HeldRole => ({ role, expiresAt })

/** Roles by the place where they are held. */
export type Roles = Readonly<Record<string, readonly (string | HeldRole)[]>>

const rolesBy = (roles: Roles) =>
  new Map(
    Object.entries(roles).map(([place, given]) => [
      place,
      given.map((role) => (typeof role === 'string' ? held(role) : role)),
    ]),
  )

type UserParts = Partial<Omit<UserFacts, 'tenantRoles' | 'instanceRoles'>> & { roles?: Roles; on?: Roles }

/** Somebody with `roles` by account and `on` by instance; a member of the accounts that they hold roles in. */
export function aUser(key: string, { roles = {}, on = {}, ...parts }: UserParts = {}): UserFacts {
  return {
    id: `id-of-${key}`,
    key,
    isActive: true,
    attributes: {},
    tenants: Object.keys(roles),
    tenantRoles: rolesBy(roles),
    everywhere: [],
    instanceRoles: rolesBy(on),
    ...parts,
  }
}

export const aTenant = (key: string, parts: Partial<TenantFacts> = {}): TenantFacts => ({
  id: `id-of-${key}`,
  key,
  isActive: true,
  attributes: {},
  ...parts,
})

/** An instance by its name (`type:key`), in acme, with its `subjects` by relation. */
export function anInstance(
  name: string,
  {
    subjects = {},
    ...parts
  }: Partial<Omit<InstanceFacts, 'subjects'>> & { subjects?: Record<string, readonly string[]> } = {},
): InstanceFacts {
  const colon = name.indexOf(':')
  return {
    id: `id-of-${name.slice(colon + 1)}`,
    type: name.slice(0, colon),
    key: name.slice(colon + 1),
    tenant: 'acme',
    attributes: {},
    subjects: new Map(Object.entries(subjects)),
    ...parts,
  }
}

/** May `user` do `permission` to the instance `key`, or to the resource as such? In acme, unless said otherwise. */
export function asks(
  user: string,
  permission: string,
  parts: {
    key?: string
    tenant?: string | undefined
    user?: Attributes
    resource?: Attributes
    action?: Attributes
    context?: Attributes
  } = {},
): Question {
  const [type = '', action = ''] = permission.split(':')
  return {
    user: { key: user, attributes: parts.user },
    action: { name: action, properties: parts.action },
    resource: {
      type,
      key: parts.key,
      tenant: 'tenant' in parts ? parts.tenant : 'acme',
      attributes: parts.resource,
    },
    context: parts.context,
  }
}
