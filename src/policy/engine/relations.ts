import type { CompiledDerivation, CompiledResourceRole } from './compile.ts'
import { isHeld, rolesGivenOn } from './holdings.ts'
import type { Facts, UserFacts } from './model.ts'

/** One decision looks at no more subjects than this, and at no more roles of one user on instances. */
export const MOST_VISITS = 100_000

/**
 * What one decision has seen of the relationships behind one user's roles. The answers are void when `isIncomplete`
 * (facts are missing) or `isTooLarge` (there was more to look at than one decision may).
 */
export type Walk = {
  readonly user: UserFacts
  readonly facts: Facts
  readonly now: number
  visits: number
  isTooLarge: boolean
  isIncomplete: boolean
}

/** A search for the roles of one user on instances, which has visited nothing yet. `now` is in milliseconds. */
export const createWalk = (user: UserFacts, facts: Facts, now: number): Walk => ({
  user,
  facts,
  now,
  visits: 0,
  isTooLarge: false,
  isIncomplete: false,
})

/** A role held on an instance, and what it leads to: the first one was given, the last one is the one looked for. */
export type Grant = {
  readonly role: CompiledResourceRole
  /** `type:key` */
  readonly instance: string
  /** What is derived from it, by which relation of the next instance to this one. */
  readonly next: { readonly relation: string; readonly grant: Grant } | undefined
}

/**
 * How a user holds one of `roles` on an instance (`type:key`), directly or by derivation, over the fewest relations;
 * `undefined` when none is held. Each derivation asks for one role on one subject, so the least fixpoint of all of
 * them is what can be reached from the roles given, and it is searched backwards, without recursion; nothing is met
 * twice. `no_direct_roles_on_object` looks at roles given on that object only. Relationships do not leave an account, so
 * where it has more of the user's roles than are looked at, nothing is searched.
 */
export function findGrant(
  walk: Walk,
  roles: readonly CompiledResourceRole[],
  instance: string,
): Grant | undefined {
  if (isInCrowdedTenant(walk, instance)) {
    walk.isTooLarge = true
    return undefined
  }
  if (walk.user.instanceRoles.size === 0) return undefined
  const wanted = roles.map((role): Grant => ({ role, instance, next: undefined }))
  const given = wanted.find(({ role }) => isGiven(walk, role, instance))
  if (given) return given
  const queue = wanted.filter(({ role }) => role.derivations.length > 0)
  const met = new Map<CompiledResourceRole, Set<string>>(queue.map(({ role }) => [role, new Set([instance])]))
  for (const grant of queue) {
    const found = look(walk, grant, queue, met)
    if (found || walk.isTooLarge) return found
  }
  return undefined
}

function isInCrowdedTenant(walk: Walk, instance: string): boolean {
  const { crowdedTenants } = walk.user
  if (!crowdedTenants) return false
  const facts = walk.facts.instance(instance)
  if (facts === undefined) walk.isIncomplete = true
  return !!facts && crowdedTenants.has(facts.tenant)
}

/** The roles behind `grant`: the first one that was given; those that may be derived themselves join the queue. */
function look(
  walk: Walk,
  grant: Grant,
  queue: Grant[],
  met: Map<CompiledResourceRole, Set<string>>,
): Grant | undefined {
  const { role, instance } = grant
  const derivations = derivationsFor(walk, role, instance)
  if (derivations.length === 0) return undefined
  const object = walk.facts.instance(instance)
  if (object === undefined) walk.isIncomplete = true
  for (const { relation, source, prefix } of derivations) {
    const isGoingOn = source.derivations.length > 0
    const known = isGoingOn ? placesOf(met, source) : undefined
    for (const subject of object?.subjects.get(relation) ?? []) {
      if (!subject.startsWith(prefix)) continue
      if (++walk.visits > MOST_VISITS) {
        walk.isTooLarge = true
        return undefined
      }
      if (known?.has(subject)) continue
      const isFound = isGiven(walk, source, subject)
      if (!isFound && !known) continue
      const behind: Grant = { role: source, instance: subject, next: { relation, grant } }
      if (isFound) return behind
      known?.add(subject)
      queue.push(behind)
    }
  }
  return undefined
}

function derivationsFor(
  walk: Walk,
  { derivations }: CompiledResourceRole,
  instance: string,
): readonly CompiledDerivation[] {
  const hasDirect = rolesGivenOn(walk.user, instance).some((held) => isHeld(held, walk.now))
  return hasDirect ? derivations.filter(({ unlessDirect }) => !unlessDirect) : derivations
}

function placesOf(met: Map<CompiledResourceRole, Set<string>>, role: CompiledResourceRole): Set<string> {
  const known = met.get(role)
  if (known) return known
  const places = new Set<string>()
  met.set(role, places)
  return places
}

function isGiven({ user, now }: Walk, { key }: CompiledResourceRole, instance: string): boolean {
  for (const held of rolesGivenOn(user, instance)) if (held.role === key && isHeld(held, now)) return true
  return false
}

/** The names (`type#role`) of all of `roles` that a user holds on an instance, directly or by derivation. */
export function namesOfRolesOn(
  walk: Walk,
  roles: Iterable<CompiledResourceRole>,
  instance: string,
): string[] {
  const names: string[] = []
  for (const role of roles) if (findGrant(walk, [role], instance)) names.push(role.name)
  return names
}
