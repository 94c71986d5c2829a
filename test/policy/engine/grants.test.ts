import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import type {
  HeldRole,
  InstanceFacts,
  PolicyDocument,
  ResourceRoleDefinition,
  RoleDefinition,
  UserFacts,
} from '../../../src/policy/engine/model.ts'
import { document, documentApart, parts, question, rule, world } from './arbitraries.ts'
import { factsOf, NOW, type World } from './builders.ts'

/*
 * Nothing in a policy forbids, so a further grant takes nothing away, with two exceptions that the rules themselves
 * make: `no_direct_roles_on_object`, for which a role given on an instance ends what was derived there; and conditions
 * that ask what somebody does not hold (`not`, `equals`, `array_subset` on `user.roles`, or attributes of an account
 * which a role held everywhere opens). So:
 *
 * - a permission, a parent role, a rule: whatever the policy says;
 * - a role held in an account or everywhere, a relationship, a derivation: when no condition speaks of roles, accounts;
 * - a role held on an instance: when, besides, no role has `no_direct_roles_on_object`.
 */

type Case = { policy: PolicyDocument; stored: World }
type Change = (before: Case) => Case

const replaced = <T extends { readonly key: string }>(
  list: readonly T[],
  key: string,
  change: (one: T) => T,
): T[] => list.map((one) => (one.key === key ? change(one) : one))

const onRole =
  (role: string, change: (one: RoleDefinition) => RoleDefinition): Change =>
  ({ policy, stored }) => ({ policy: { ...policy, roles: replaced(policy.roles, role, change) }, stored })

const onResourceRole =
  (type: string, role: string, change: (one: ResourceRoleDefinition) => ResourceRoleDefinition): Change =>
  ({ policy, stored }) => {
    const resources = replaced(policy.resources, type, (one) => ({
      ...one,
      roles: replaced(one.roles, role, change),
    }))
    return { policy: { ...policy, resources }, stored }
  }

const onUser =
  (user: string, change: (one: UserFacts) => UserFacts): Change =>
  ({ policy, stored }) => ({ policy, stored: { ...stored, users: replaced(stored.users, user, change) } })

const onInstance =
  (name: string, change: (one: InstanceFacts) => InstanceFacts): Change =>
  ({ policy, stored }) => {
    const instances = stored.instances.map((one) => (`${one.type}:${one.key}` === name ? change(one) : one))
    return { policy, stored: { ...stored, instances } }
  }

const withOne = <T>(
  lists: ReadonlyMap<string, readonly T[]>,
  name: string,
  one: T,
): ReadonlyMap<string, readonly T[]> => new Map([...lists, [name, [...(lists.get(name) ?? []), one]]])

const withoutExceptions = (policy: PolicyDocument): PolicyDocument => ({
  ...policy,
  resources: policy.resources.map((resource) => ({
    ...resource,
    roles: resource.roles.map((role) => ({
      ...role,
      noDirectRolesOnObject: false,
      derivations: role.derivations.map((derivation) => ({ ...derivation, noDirectRolesOnObject: false })),
    })),
  })),
})

const { role, type, tenant, permission, instanceName, relation, derivation } = parts
const user = fc.constantFrom('ann', '__proto__')
const given = role.map((name): HeldRole => ({ role: name, expiresAt: undefined }))

const GRANTS: Record<string, { policies: fc.Arbitrary<PolicyDocument>; changes: fc.Arbitrary<Change> }> = {
  'a permission for a role': {
    policies: document,
    changes: fc
      .tuple(role, permission)
      .map(([to, added]) => onRole(to, (one) => ({ ...one, permissions: [...one.permissions, added] }))),
  },
  'a permission for a role on instances': {
    policies: document,
    changes: fc
      .tuple(type, role, permission)
      .map(([of, to, added]) =>
        onResourceRole(of, to, (one) => ({ ...one, permissions: [...one.permissions, added] })),
      ),
  },
  'a parent for a role': {
    policies: document,
    changes: fc
      .tuple(role, role)
      .map(([to, parent]) => onRole(to, (one) => ({ ...one, extends: [...one.extends, parent] }))),
  },
  'a rule': {
    policies: document,
    changes: rule.map(
      (added): Change =>
        ({ policy, stored }) => ({
          policy: { ...policy, rules: [added, ...policy.rules] },
          stored,
        }),
    ),
  },
  'a role in an account, where no condition speaks of roles': {
    policies: documentApart,
    changes: fc
      .tuple(user, tenant, given)
      .map(([to, place, added]) =>
        onUser(to, (one) => ({ ...one, tenantRoles: withOne(one.tenantRoles, place, added) })),
      ),
  },
  'a role everywhere, where no condition speaks of roles or accounts': {
    policies: documentApart,
    changes: fc
      .tuple(user, given)
      .map(([to, added]) => onUser(to, (one) => ({ ...one, everywhere: [...one.everywhere, added] }))),
  },
  'a relationship, where no condition speaks of roles': {
    policies: documentApart,
    changes: fc
      .tuple(instanceName, relation, instanceName)
      .map(([object, by, subject]) =>
        onInstance(object, (one) => ({ ...one, subjects: withOne(one.subjects, by, subject) })),
      ),
  },
  'a derivation, where no condition speaks of roles': {
    policies: documentApart,
    changes: fc
      .tuple(type, role, derivation)
      .map(([of, to, added]) =>
        onResourceRole(of, to, (one) => ({ ...one, derivations: [...one.derivations, added] })),
      ),
  },
  'a role on an instance, where none ends by it and no condition speaks of roles': {
    policies: documentApart.map(withoutExceptions),
    changes: fc
      .tuple(user, instanceName, given)
      .map(([to, place, added]) =>
        onUser(to, (one) => ({ ...one, instanceRoles: withOne(one.instanceRoles, place, added) })),
      ),
  },
}

for (const [name, { policies, changes }] of Object.entries(GRANTS)) {
  t.test(`a further grant takes nothing away: ${name}`, async (t) => {
    let allowed = 0

    fc.assert(
      fc.property(policies, world, question, changes, (policy, stored, asked, change) => {
        const isAllowed = (at: Case) =>
          decide(compilePolicy(at.policy), factsOf(at.stored), asked, NOW).allowed
        const before = { policy, stored }
        if (!isAllowed(before)) return
        allowed++

        assert.ok(isAllowed(change(before)))
      }),
      { numRuns: 600 },
    )

    t.ok(allowed > 20, `asked about ${allowed} allowed questions`)
  })
}
