import { allConditions, type Condition, compileCondition, NEVER } from './conditions.ts'
import type {
  PolicyDocument,
  ResourceDefinition,
  ResourceSetDefinition,
  RuleDefinition,
  UserSetDefinition,
} from './model.ts'

/** A policy made ready for decisions. It never changes; a changed policy is compiled anew. */
export type CompiledPolicy = { readonly types: ReadonlyMap<string, CompiledType> }

export type CompiledType = {
  readonly key: string
  readonly actions: ReadonlyMap<string, CompiledAction>
  /** Roles held on one instance. */
  readonly roles: ReadonlyMap<string, CompiledResourceRole>
}

export type CompiledAction = {
  readonly key: string
  /** Keys of the roles that give it in the account they are held in, by themselves or by what they extend. */
  readonly tenantRoles: ReadonlySet<string>
  /** Roles that give it on the instance they are held on. */
  readonly resourceRoles: readonly CompiledResourceRole[]
  readonly rules: readonly CompiledRule[]
  /** True when a rule's conditions may depend on the roles held on the instance asked about. */
  readonly needsInstanceRoles: boolean
}

export type CompiledResourceRole = {
  readonly key: string
  readonly type: string
  /** `type#role` */
  readonly name: string
  readonly derivations: readonly CompiledDerivation[]
}

export type CompiledDerivation = {
  readonly relation: string
  readonly source: CompiledResourceRole
  /** What the names of its subjects begin with: the source's type and a colon. */
  readonly prefix: string
  /** True: it gives nothing to who holds a role directly on the object. */
  readonly unlessDirect: boolean
}

export type CompiledRule = { readonly users: CompiledUsers; readonly resources: CompiledSet | undefined }

/** Whom a rule is about: a set, whoever holds a role in the account, or on the instance asked about. */
export type CompiledUsers =
  | { readonly kind: 'set'; readonly set: CompiledSet }
  | { readonly kind: 'tenantRole'; readonly role: string }
  | { readonly kind: 'instanceRole'; readonly role: CompiledResourceRole }

export type CompiledSet = { readonly key: string; readonly condition: Condition }

/**
 * A policy for `decide`, `explain` and the lists. Keys must be unique among their kind. Whatever names something that
 * is not there (a set, role, parent, relation, permission) gives nothing, and cycles add nothing; no document makes it
 * throw. Takes some milliseconds for thousands of roles and rules: conditions, and who holds an action by extending
 * which roles, are worked out when they are first asked about.
 */
export function compilePolicy(document: PolicyDocument): CompiledPolicy {
  const resourceRoles = compileResourceRoles(document.resources)
  const tenantRoles = holdersOf(document.roles)
  const rules = compileRules(document, resourceRoles)
  const types = document.resources.map((resource): [string, CompiledType] => {
    const roles = resourceRoles.get(resource.key) ?? new Map<string, CompiledResourceRole>()
    const instanceRoles = holdersOf(resource.roles)
    const actions = resource.actions.map((action): [string, CompiledAction] => {
      const permission = `${resource.key}:${action}`
      const onInstance = once(() => compact([...instanceRoles(permission)].map((role) => roles.get(role))))
      return [action, compileAction(action, permission, tenantRoles, onInstance, rules.get(permission) ?? [])]
    })
    return [resource.key, { key: resource.key, actions: new Map(actions), roles }]
  })
  return { types: new Map(types) }
}

function compileAction(
  key: string,
  permission: string,
  holders: (permission: string) => ReadonlySet<string>,
  resourceRoles: () => readonly CompiledResourceRole[],
  rules: readonly CompiledRule[],
): CompiledAction {
  const tenantRoles = once(() => holders(permission))
  const needsInstanceRoles = once(() =>
    rules.some(
      ({ users, resources }) =>
        (users.kind === 'set' && users.set.condition.needsInstanceRoles) ||
        resources?.condition.needsInstanceRoles,
    ),
  )
  return {
    key,
    get tenantRoles() {
      return tenantRoles()
    },
    get resourceRoles() {
      return resourceRoles()
    },
    rules,
    get needsInstanceRoles() {
      return needsInstanceRoles()
    },
  }
}

/** Which roles give a permission: those that name it, and those that extend one that gives it. */
function holdersOf(
  roles: readonly {
    readonly key: string
    readonly permissions: readonly string[]
    readonly extends: readonly string[]
  }[],
): (permission: string) => ReadonlySet<string> {
  const naming = new Map<string, string[]>()
  const extending = new Map<string, string[]>()
  for (const role of roles) {
    for (const permission of role.permissions) append(naming, permission, role.key)
    for (const parent of role.extends) append(extending, parent, role.key)
  }
  return (permission) => {
    const holders = new Set(naming.get(permission))
    for (const role of holders) for (const child of extending.get(role) ?? []) holders.add(child)
    return holders
  }
}

/** The roles of every resource, by its key. A derivation that leads nowhere is left out. */
function compileResourceRoles(resources: readonly ResourceDefinition[]) {
  const types = new Map(
    resources.map(({ key: type, roles }) => [
      type,
      new Map(
        roles.map(({ key }) => [
          key,
          { key, type, name: `${type}#${key}`, derivations: [] as CompiledDerivation[] },
        ]),
      ),
    ]),
  )
  for (const { key: type, roles, relations } of resources) {
    const subjects = new Map(relations.map(({ key, subjectResource }) => [key, subjectResource]))
    for (const { key, derivations, noDirectRolesOnObject } of roles) {
      for (const { role, onResource, linkedByRelation: relation, ...derivation } of derivations) {
        const source = types.get(onResource)?.get(role)
        if (!source || subjects.get(relation) !== onResource) continue
        const unlessDirect = noDirectRolesOnObject || derivation.noDirectRolesOnObject
        types
          .get(type)
          ?.get(key)
          ?.derivations.push({ relation, source, prefix: `${onResource}:`, unlessDirect })
      }
    }
  }
  return types
}

type ResourceRoles = ReadonlyMap<string, ReadonlyMap<string, CompiledResourceRole>>

/** The rules that can match, by permission. */
function compileRules(
  { resources, roles, userSets, resourceSets, rules }: PolicyDocument,
  resourceRoles: ResourceRoles,
): ReadonlyMap<string, readonly CompiledRule[]> {
  const typeOf = new Map<string, string>(
    resources.flatMap(({ key, actions }) => actions.map((action) => [`${key}:${action}`, key] as const)),
  )
  const tenantRoles = new Set(roles.map(({ key }) => key))
  const instanceRoles = new Map(
    [...resourceRoles.values()].flatMap((ofType) =>
      [...ofType.values()].map((role) => [role.name, role] as const),
    ),
  )
  const usersNamed = compileUserSets(userSets)
  const resourcesNamed = compileResourceSets(resourceSets)

  function usersOf(users: RuleDefinition['users'], type: string): CompiledUsers | undefined {
    if ('set' in users) {
      const set = usersNamed(users.set)
      return set && { kind: 'set', set }
    }
    if (!users.role.includes('#'))
      return tenantRoles.has(users.role) ? { kind: 'tenantRole', role: users.role } : undefined
    const role = instanceRoles.get(users.role)
    return role?.type === type ? { kind: 'instanceRole', role } : undefined
  }

  const compiled = new Map<string, CompiledRule[]>()
  for (const { users, resources: things, permission } of rules) {
    const type = typeOf.get(permission)
    const compiledUsers = type === undefined ? undefined : usersOf(users, type)
    if (type === undefined || !compiledUsers) continue
    if ('resource' in things) {
      if (things.resource === type)
        append(compiled, permission, { users: compiledUsers, resources: undefined })
      continue
    }
    const set = resourcesNamed(things.set, type)
    if (set) append(compiled, permission, { users: compiledUsers, resources: set })
  }
  return compiled
}

function compileUserSets(definitions: readonly UserSetDefinition[]) {
  const sets = compileSets(definitions, () => true)
  return (key: string): CompiledSet | undefined => sets.get(key)
}

function compileResourceSets(definitions: readonly ResourceSetDefinition[]) {
  const resources = new Map(definitions.map(({ key, resource }) => [key, resource]))
  const sets = compileSets(definitions, (set, ancestor) => set.resource === ancestor.resource)
  return (key: string, type: string): CompiledSet | undefined =>
    resources.get(key) === type ? sets.get(key) : undefined
}

/** Sets whose condition is their own and those of all their ancestors, each of which must be acceptable to them. */
function compileSets<T extends UserSetDefinition>(
  definitions: readonly T[],
  accepts: (set: T, ancestor: T) => boolean,
): ReadonlyMap<string, CompiledSet> {
  const byKey = new Map(
    definitions.map((definition) => [
      definition.key,
      { definition, own: once(() => compileCondition(definition.conditions)) },
    ]),
  )

  function conditionOf(definition: T): Condition {
    const conditions = new Map<string, Condition>()
    for (let key: string | null = definition.key; key !== null && !conditions.has(key); ) {
      const next = byKey.get(key)
      if (!next || !accepts(definition, next.definition)) return NEVER
      conditions.set(key, next.own())
      key = next.definition.parent
    }
    return allConditions([...conditions.values()])
  }

  return new Map(
    definitions.map((definition) => {
      const condition = once(() => conditionOf(definition))
      return [
        definition.key,
        {
          key: definition.key,
          get condition() {
            return condition()
          },
        },
      ]
    }),
  )
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

const compact = <T>(values: readonly (T | undefined)[]): T[] => values.filter((value) => value !== undefined)

function append<T>(lists: Map<string, T[]>, name: string, value: T): void {
  const list = lists.get(name)
  if (list) list.push(value)
  else lists.set(name, [value])
}
