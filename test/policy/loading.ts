import { eq } from 'drizzle-orm'
import { transact } from '../../src/db/client.ts'
import {
  accountMembers,
  accounts,
  actions,
  conditionSets,
  environments,
  policyVersions,
  relations,
  relationshipTuples,
  resourceInstances,
  resources,
  roleAssignments,
  roleDerivations,
  roleParents,
  rolePermissions,
  roles,
  setRules,
  users,
} from '../../src/db/schema.ts'
import { newId } from '../../src/ids.ts'
import type { Attributes, PolicyDocument, RoleDefinition } from '../../src/policy/engine/model.ts'
import type { Services } from '../../src/services.ts'

/** A policy as tests write it: whatever is left out is empty. */
export type PolicyDraft = { [K in keyof PolicyDocument]?: PolicyDocument[K] }

/** People and things as tests write them. `instance` and `subjects` are `type:key`. */
export type FactsDraft = {
  tenants?: readonly { key: string; isActive?: boolean; attributes?: Attributes }[]
  users?: readonly {
    key: string
    isActive?: boolean
    attributes?: Attributes
    email?: string
    tenants?: readonly string[]
    roles?: readonly { role: string; tenant?: string; instance?: string; expiresAt?: Date }[]
  }[]
  instances?: readonly {
    type: string
    key: string
    tenant: string
    attributes?: Attributes
    subjects?: Readonly<Record<string, readonly string[]>>
  }[]
}

/** A further environment, with nothing in it. */
export async function newEnvironment({ database }: Services, key: string): Promise<string> {
  const id = newId()
  await transact(database.db, async (tx) => {
    await tx.insert(environments).values({ id, project: 'default', key, name: key })
    await tx.insert(policyVersions).values({ environmentId: id })
  })
  return id
}

/** Writes a policy into an environment that has none, in one transaction. */
export async function storePolicy(
  { database }: Services,
  environmentId: string,
  policy: PolicyDraft,
): Promise<void> {
  await transact(database.db, async (tx) => {
    const resourceIds = new Map<string, string>()
    const actionIds = new Map<string, { id: string; resourceId: string }>()
    const roleIds = new Map<string, string>()
    const relationIds = new Map<string, string>()
    for (const { key, actions: keys } of policy.resources ?? []) {
      const id = newId()
      resourceIds.set(key, id)
      await tx.insert(resources).values({ id, environmentId, key, name: key })
      for (const action of keys) {
        const actionId = newId()
        actionIds.set(`${key}:${action}`, { id: actionId, resourceId: id })
        await tx
          .insert(actions)
          .values({ id: actionId, environmentId, resourceId: id, key: action, name: action })
      }
    }
    for (const { key, relations: own } of policy.resources ?? []) {
      for (const relation of own) {
        const id = newId()
        relationIds.set(`${key}#${relation.key}`, id)
        await tx.insert(relations).values({
          id,
          environmentId,
          resourceId: idOf(resourceIds, key),
          subjectResourceId: idOf(resourceIds, relation.subjectResource),
          key: relation.key,
          name: relation.key,
        })
      }
    }
    const allRoles: {
      name: string
      resource: string | undefined
      role: RoleDefinition
      isBarred: boolean
    }[] = [
      ...(policy.roles ?? []).map((role) => ({ name: role.key, resource: undefined, role, isBarred: false })),
      ...(policy.resources ?? []).flatMap((resource) =>
        resource.roles.map((role) => ({
          name: `${resource.key}#${role.key}`,
          resource: resource.key,
          role,
          isBarred: role.noDirectRolesOnObject,
        })),
      ),
    ]
    for (const { name, resource, role, isBarred } of allRoles) {
      const id = newId()
      roleIds.set(name, id)
      await tx.insert(roles).values({
        id,
        environmentId,
        resourceId: resource === undefined ? null : idOf(resourceIds, resource),
        key: role.key,
        name: role.key,
        noDirectRolesOnObject: isBarred,
      })
      for (const permission of role.permissions) {
        const actionId = idOf(actionIds, permission).id
        await tx.insert(rolePermissions).values({ environmentId, roleId: id, actionId })
      }
    }
    for (const { name, resource, role } of allRoles) {
      for (const parent of role.extends) {
        const parentId = idOf(roleIds, resource === undefined ? parent : `${resource}#${parent}`)
        await tx.insert(roleParents).values({ environmentId, roleId: idOf(roleIds, name), parentId })
      }
    }
    for (const resource of policy.resources ?? []) {
      for (const role of resource.roles) {
        for (const derivation of role.derivations) {
          await tx.insert(roleDerivations).values({
            id: newId(),
            environmentId,
            roleId: idOf(roleIds, `${resource.key}#${role.key}`),
            sourceRoleId: idOf(roleIds, `${derivation.onResource}#${derivation.role}`),
            relationId: idOf(relationIds, `${resource.key}#${derivation.linkedByRelation}`),
            noDirectRolesOnObject: derivation.noDirectRolesOnObject,
          })
        }
      }
    }
    const setIds = new Map<string, string>()
    const sets = [
      ...(policy.userSets ?? []).map((set) => ({ ...set, type: 'userset' as const, resource: undefined })),
      ...(policy.resourceSets ?? []).map((set) => ({ ...set, type: 'resourceset' as const })),
    ]
    for (const set of sets) {
      const id = newId()
      setIds.set(set.key, id)
      await tx.insert(conditionSets).values({
        id,
        environmentId,
        type: set.type,
        resourceId: set.resource === undefined ? null : idOf(resourceIds, set.resource),
        key: set.key,
        name: set.key,
        conditions: set.conditions,
        parentId: set.parent === null ? null : idOf(setIds, set.parent),
      })
    }
    for (const { users: who, resources: what, permission } of policy.rules ?? []) {
      await tx.insert(setRules).values({
        id: newId(),
        environmentId,
        userSetId: 'set' in who ? idOf(setIds, who.set) : null,
        roleId: 'role' in who ? idOf(roleIds, who.role) : null,
        actionId: idOf(actionIds, permission).id,
        resourceSetId: 'set' in what ? idOf(setIds, what.set) : null,
        resourceId: 'resource' in what ? idOf(resourceIds, what.resource) : null,
      })
    }
  })
}

/** Writes facts into an environment whose policy is stored, in one transaction. Accounts may be there already. */
export async function storeFacts(
  { database }: Services,
  environmentId: string,
  facts: FactsDraft,
): Promise<void> {
  await transact(database.db, async (tx) => {
    for (const { key, isActive = true, attributes } of facts.tenants ?? []) {
      await tx.insert(accounts).values({
        id: newId(),
        environmentId,
        key,
        name: key,
        searchText: key,
        isActive,
        ...(attributes && { attributes }),
      })
    }
    const tenantIds = new Map(
      (await tx.select().from(accounts).where(eq(accounts.environmentId, environmentId))).map((row) => [
        row.key,
        row.id,
      ]),
    )
    const resourceKeys = new Map(
      (await tx.select().from(resources).where(eq(resources.environmentId, environmentId))).map((row) => [
        row.id,
        row.key,
      ]),
    )
    const resourceIds = new Map([...resourceKeys].map(([id, key]) => [key, id]))
    const roleIds = new Map(
      (await tx.select().from(roles).where(eq(roles.environmentId, environmentId))).map((row) => [
        row.resourceId === null ? row.key : `${resourceKeys.get(row.resourceId)}#${row.key}`,
        row.id,
      ]),
    )
    const relationIds = new Map(
      (await tx.select().from(relations).where(eq(relations.environmentId, environmentId))).map((row) => [
        `${resourceKeys.get(row.resourceId)}#${row.key}`,
        row.id,
      ]),
    )
    const instanceIds = new Map<string, { id: string; accountId: string }>(
      (
        await tx.select().from(resourceInstances).where(eq(resourceInstances.environmentId, environmentId))
      ).map((row) => [`${resourceKeys.get(row.resourceId)}:${row.key}`, row]),
    )
    for (const { type, key, tenant, attributes } of facts.instances ?? []) {
      const id = newId()
      const accountId = idOf(tenantIds, tenant)
      instanceIds.set(`${type}:${key}`, { id, accountId })
      await tx.insert(resourceInstances).values({
        id,
        environmentId,
        accountId,
        resourceId: idOf(resourceIds, type),
        key,
        ...(attributes && { attributes }),
      })
    }
    for (const { type, key, subjects } of facts.instances ?? []) {
      const object = idOf(instanceIds, `${type}:${key}`)
      for (const [relation, names] of Object.entries(subjects ?? {})) {
        for (const name of names) {
          await tx.insert(relationshipTuples).values({
            id: newId(),
            environmentId,
            accountId: object.accountId,
            subjectId: idOf(instanceIds, name).id,
            relationId: idOf(relationIds, `${type}#${relation}`),
            objectId: object.id,
          })
        }
      }
    }
    for (const { key, isActive = true, attributes, email, tenants = [], roles: held = [] } of facts.users ??
      []) {
      const id = newId()
      await tx.insert(users).values({
        id,
        environmentId,
        key,
        isActive,
        searchText: key,
        ...(attributes && { attributes }),
        ...(email !== undefined && { email, emailNormalized: email }),
      })
      const homes = held.map(({ tenant, instance }) =>
        instance === undefined ? tenant && idOf(tenantIds, tenant) : idOf(instanceIds, instance).accountId,
      )
      const memberOf = new Set([...tenants.map((tenant) => idOf(tenantIds, tenant)), ...homes])
      for (const accountId of memberOf)
        if (accountId) await tx.insert(accountMembers).values({ environmentId, accountId, userId: id })
      for (const { role, tenant, instance, expiresAt } of held) {
        const on = instance === undefined ? undefined : idOf(instanceIds, instance)
        const name = instance === undefined ? role : `${instance.slice(0, instance.indexOf(':'))}#${role}`
        await tx.insert(roleAssignments).values({
          id: newId(),
          environmentId,
          userId: id,
          roleId: idOf(roleIds, name),
          accountId: on?.accountId ?? (tenant === undefined ? null : idOf(tenantIds, tenant)),
          resourceInstanceId: on?.id ?? null,
          expiresAt: expiresAt ?? null,
        })
      }
    }
  })
}

function idOf<T>(ids: ReadonlyMap<string, T>, name: string): T {
  const id = ids.get(name)
  if (id === undefined) throw new Error(`${name} is not stored`)
  return id
}
