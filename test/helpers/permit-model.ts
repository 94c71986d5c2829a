import type { PolicyDocument, Question } from '../../src/policy/engine/model.ts'
import { aWorld, NOW, type World } from '../policy/engine/builders.ts'
import { oracle } from '../policy/engine/oracle.ts'

/*
 * Permit's management API as it would be over plain lists in memory: what it answers, what it refuses with, and what
 * the policy then allows. It shares nothing with the code that it is compared with.
 */

type Derivation = { role: string; on_resource: string; linked_by_relation: string }
type ResourceRole = { permissions: string[]; derivations: Derivation[]; alone: boolean }
type Resource = { actions: string[]; roles: Map<string, ResourceRole>; relations: Map<string, string> }
type Role = { permissions: string[]; extends: string[] }
type Grant = { user: string; role: string; tenant: string; instance: string | null }
type Tuple = { subject: string; relation: string; object: string }
type Rule = { userSet?: string; role?: string; permission: string; resourceSet?: string; resource?: string }
type Conditions = Record<string, unknown>

export type GrantBody = { user: string; role: string; tenant?: string; resource_instance?: string }
export type TupleBody = Tuple & { tenant?: string }
export type RuleBody = {
  user_set: string
  permission: string
  resource_set: string
  is_role: boolean
  is_resource: boolean
}

/** Why a request changes nothing: its status and the code in the answer. */
export class Refused extends Error {}
const NOT_FOUND = '404 NOT_FOUND'
const TAKEN = '409 DUPLICATE_ENTITY'
const OTHER_TENANT = '400 MISMATCH_RESOURCE_INSTANCES_TENANTS'
const INVALID = '422 INVALID_INPUT'

const refuse = (why: string): never => {
  throw new Refused(why)
}
/** What is there, or a refusal. */
const there = <T>(value: T | undefined): T => (value === undefined ? refuse(NOT_FOUND) : value)
const typeOf = (ref: string): string => ref.slice(0, ref.indexOf(':'))
const same = (a: object, b: object): boolean => JSON.stringify(a) === JSON.stringify(b)

export class PermitModel {
  tenants = new Map<string, { name: string }>([['default', { name: 'Default' }]])
  users = new Map<string, { age: number | null }>()
  members: { tenant: string; user: string }[] = []
  resources = new Map<string, Resource>()
  roles = new Map<string, Role>()
  instances = new Map<string, { tenant: string; draft: boolean | null }>()
  tuples: Tuple[] = []
  grants: Grant[] = []
  sets = new Map<string, { conditions: Conditions; resource: string | null }>()
  rules: Rule[] = []

  /** What `work` answers, or why it is refused; then nothing is changed. */
  attempt<T>(work: (model: this) => T): T | string {
    const before = structuredClone({ ...this })
    try {
      return work(this)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      Object.assign(this, before)
      return error.message
    }
  }

  createTenant(key: string, name: string): void {
    if (this.tenants.has(key)) refuse(TAKEN)
    this.tenants.set(key, { name })
  }

  renameTenant(key: string, name: string): void {
    there(this.tenants.get(key)).name = name
  }

  deleteTenant(key: string): void {
    there(this.tenants.get(key))
    if (key === 'default') refuse('403 FORBIDDEN_ACCESS')
    for (const [ref, { tenant }] of this.instances) if (tenant === key) this.#dropInstance(ref)
    this.#dropGrants(({ tenant }) => tenant === key)
    this.members = this.members.filter(({ tenant }) => tenant !== key)
    this.tenants.delete(key)
  }

  createUser(key: string, age: number | undefined, grants: readonly Omit<GrantBody, 'user'>[]): void {
    if (this.users.has(key)) refuse(TAKEN)
    this.users.set(key, { age: age ?? null })
    for (const grant of grants) this.#give({ ...grant, user: key })
  }

  /** @returns whether the user is new */
  syncUser(key: string, age: number | undefined, grants: readonly Omit<GrantBody, 'user'>[]): boolean {
    const isNew = !this.users.has(key)
    if (isNew) this.users.set(key, { age: null })
    if (age !== undefined) this.users.set(key, { age })
    for (const grant of grants) this.#give({ ...grant, user: key })
    return isNew
  }

  updateUser(key: string, age: number): void {
    there(this.users.get(key)).age = age
  }

  deleteUser(key: string): void {
    there(this.users.get(key))
    this.#dropGrants(({ user }) => user === key)
    this.members = this.members.filter(({ user }) => user !== key)
    this.users.delete(key)
  }

  removeFromTenant(tenant: string, user: string): void {
    there(this.tenants.get(tenant))
    there(this.users.get(user))
    if (!this.members.some((one) => one.tenant === tenant && one.user === user)) refuse(NOT_FOUND)
    this.#dropGrants((grant) => grant.tenant === tenant && grant.user === user)
  }

  assign(grant: GrantBody): void {
    if (!this.#give(grant)) refuse(TAKEN)
  }

  unassign(grant: GrantBody): void {
    if (!this.#take(grant)) refuse(NOT_FOUND)
  }

  /** @returns how many are new */
  assignAll(grants: readonly GrantBody[]): number {
    return this.#ofUsers(grants, true).filter((grant) => this.#give(grant)).length
  }

  /** @returns how many are gone */
  unassignAll(grants: readonly GrantBody[]): number {
    return this.#ofUsers(grants, false).filter((grant) => this.#take(grant)).length
  }

  createRole(key: string, permissions: readonly string[], parents: readonly string[]): void {
    this.#assertTiesOfRole(permissions, parents)
    if (this.roles.has(key)) refuse(TAKEN)
    this.roles.set(key, { permissions: [...permissions].sort(), extends: [...parents] })
  }

  updateRole(key: string, permissions: readonly string[], parents: readonly string[]): void {
    const role = there(this.roles.get(key))
    this.#assertTiesOfRole(permissions, parents)
    if (parents.some((parent) => this.#closure(parent).has(key))) refuse('400 INVALID_INPUT')
    Object.assign(role, { permissions: [...permissions].sort(), extends: [...parents] })
  }

  setParent(key: string, parent: string, isParent: boolean): void {
    const { permissions, extends: parents } = there(this.roles.get(key))
    there(this.roles.get(parent))
    if (parents.includes(parent) === isParent) return
    const others = parents.filter((one) => one !== parent)
    this.updateRole(key, permissions, isParent ? [...others, parent] : others)
  }

  deleteRole(key: string): void {
    there(this.roles.get(key))
    this.#dropGrants(({ role, instance }) => role === key && instance === null)
    for (const role of this.roles.values()) role.extends = role.extends.filter((one) => one !== key)
    this.rules = this.rules.filter(({ role }) => role !== key)
    this.roles.delete(key)
  }

  /** Of a role held in tenants, or of one of a resource. @returns what it has then */
  givePermissions(key: string, permissions: readonly string[], resource?: string): string[] {
    const role = this.#roleOf(key, resource)
    for (const permission of permissions) this.#assertAction(permission)
    role.permissions = [...new Set([...role.permissions, ...permissions])].sort()
    return role.permissions
  }

  takePermissions(key: string, permissions: readonly string[], resource?: string): string[] {
    const role = this.#roleOf(key, resource)
    role.permissions = role.permissions.filter((one) => !permissions.includes(one))
    return role.permissions
  }

  createResource(key: string, actions: readonly string[]): void {
    if (this.resources.has(key)) refuse(TAKEN)
    this.resources.set(key, { actions: [...actions], roles: new Map(), relations: new Map() })
  }

  setActions(key: string, actions: readonly string[]): void {
    const resource = there(this.resources.get(key))
    for (const action of resource.actions)
      if (!actions.includes(action)) this.#dropPermission(`${key}:${action}`)
    resource.actions = [...actions]
  }

  createAction(key: string, action: string): void {
    const resource = there(this.resources.get(key))
    if (resource.actions.includes(action)) refuse(TAKEN)
    resource.actions.push(action)
  }

  deleteAction(key: string, action: string): void {
    const { actions } = there(this.resources.get(key))
    if (!actions.includes(action)) refuse(NOT_FOUND)
    this.setActions(
      key,
      actions.filter((one) => one !== action),
    )
  }

  deleteResource(key: string): void {
    const { roles } = there(this.resources.get(key))
    this.setActions(key, [])
    for (const role of roles.keys()) this.deleteResourceRole(key, role)
    for (const [owner, { relations }] of this.resources)
      for (const [relation, subject] of relations)
        if (owner === key || subject === key) this.deleteRelation(owner, relation)
    for (const ref of this.instances.keys()) if (typeOf(ref) === key) this.#dropInstance(ref)
    for (const [set, { resource }] of this.sets) if (resource === key) this.deleteSet(set)
    this.resources.delete(key)
  }

  createResourceRole(resource: string, key: string, actions: readonly string[]): void {
    const { roles } = there(this.resources.get(resource))
    const permissions = actions.map((action) => `${resource}:${action}`).sort()
    for (const permission of permissions) this.#assertAction(permission)
    if (roles.has(key)) refuse(TAKEN)
    roles.set(key, { permissions, derivations: [], alone: false })
  }

  deleteResourceRole(resource: string, key: string): void {
    const { roles } = there(this.resources.get(resource))
    there(roles.get(key))
    this.#dropGrants(
      ({ role, instance }) => instance !== null && typeOf(instance) === resource && role === key,
    )
    for (const other of this.resources.values())
      for (const role of other.roles.values())
        role.derivations = role.derivations.filter((one) => one.on_resource !== resource || one.role !== key)
    this.rules = this.rules.filter(({ role }) => role !== `${resource}#${key}`)
    roles.delete(key)
  }

  derive(resource: string, key: string, rule: Derivation): void {
    const { derivations } = this.#derivable(resource, key, rule)
    if (derivations.some((one) => same(one, rule))) refuse(TAKEN)
    derivations.push(rule)
  }

  underive(resource: string, key: string, rule: Derivation): void {
    const role = this.#derivable(resource, key, rule)
    if (!role.derivations.some((one) => same(one, rule))) refuse(NOT_FOUND)
    role.derivations = role.derivations.filter((one) => !same(one, rule))
  }

  deriveOnlyAlone(resource: string, key: string, alone: boolean): void {
    there(there(this.resources.get(resource)).roles.get(key)).alone = alone
  }

  createRelation(resource: string, key: string, subject: string): void {
    const { relations } = there(this.resources.get(resource))
    there(this.resources.get(subject))
    if (relations.has(key)) refuse(TAKEN)
    relations.set(key, subject)
  }

  deleteRelation(resource: string, key: string): void {
    const { relations, roles } = there(this.resources.get(resource))
    there(relations.get(key))
    this.tuples = this.tuples.filter((one) => typeOf(one.object) !== resource || one.relation !== key)
    for (const role of roles.values())
      role.derivations = role.derivations.filter((one) => one.linked_by_relation !== key)
    relations.delete(key)
  }

  createInstance(ref: string, tenant: string, draft: boolean | null): void {
    there(this.resources.get(typeOf(ref)))
    there(this.tenants.get(tenant))
    if (this.instances.has(ref)) refuse(TAKEN)
    this.instances.set(ref, { tenant, draft })
  }

  /** Makes those that are missing, and replaces the attributes of the others. */
  replaceInstances(all: readonly { ref: string; tenant: string; draft: boolean }[]): void {
    for (const { ref } of all) there(this.resources.get(typeOf(ref)))
    for (const { tenant } of all) there(this.tenants.get(tenant))
    for (const { ref, tenant, draft } of all) {
      const found = this.instances.get(ref)
      if (found && found.tenant !== tenant) refuse(TAKEN)
      this.instances.set(ref, { tenant, draft })
    }
  }

  updateInstance(ref: string, draft: boolean): void {
    there(this.instances.get(ref)).draft = draft
  }

  deleteInstance(ref: string): void {
    there(this.instances.get(ref))
    this.#dropInstance(ref)
  }

  createTuple(tuple: TupleBody): void {
    if (this.createTuples([tuple]) === 0) refuse(TAKEN)
  }

  /** @returns how many are new */
  createTuples(tuples: readonly TupleBody[]): number {
    const ends = tuples.flatMap(({ subject, object, tenant }) => {
      const beside = tenant ?? this.instances.get(subject)?.tenant ?? this.instances.get(object)?.tenant
      return [subject, object].map((ref) => ({ ref, tenant: beside }))
    })
    const missing = ends.filter(({ ref }) => !this.instances.has(ref))
    for (const { tenant } of missing) there(tenant)
    for (const { ref, tenant = '' } of missing) {
      there(this.resources.get(typeOf(ref)))
      there(this.tenants.get(tenant))
      const made = this.instances.get(ref)
      if (made && made.tenant !== tenant) refuse(OTHER_TENANT)
      if (!made) this.instances.set(ref, { tenant, draft: null })
    }
    for (const { subject, object } of tuples)
      if (this.instances.get(subject)?.tenant !== this.instances.get(object)?.tenant) refuse(OTHER_TENANT)
    for (const { subject, relation, object } of tuples)
      if (this.resources.get(typeOf(object))?.relations.get(relation) !== typeOf(subject))
        refuse('400 MISMATCH_RELATION_TYPE')
    const before = this.tuples.length
    for (const { subject, relation, object } of tuples)
      if (!this.tuples.some((one) => same(one, { subject, relation, object })))
        this.tuples.push({ subject, relation, object })
    return this.tuples.length - before
  }

  deleteTuple(tuple: Tuple): void {
    if (!this.tuples.some((one) => same(one, tuple))) refuse(NOT_FOUND)
    this.tuples = this.tuples.filter((one) => !same(one, tuple))
  }

  createSet(key: string, conditions: Conditions, resource: string | null): void {
    if (resource !== null) there(this.resources.get(resource))
    if (this.sets.has(key)) refuse(TAKEN)
    this.sets.set(key, { conditions, resource })
  }

  updateSet(key: string, conditions: Conditions): void {
    there(this.sets.get(key)).conditions = conditions
  }

  deleteSet(key: string): void {
    there(this.sets.get(key))
    this.rules = this.rules.filter(({ userSet, resourceSet }) => userSet !== key && resourceSet !== key)
    this.sets.delete(key)
  }

  /** @returns whether it is new */
  allow(body: RuleBody): boolean {
    const rule = this.#ruleOf(body)
    if (this.rules.some((one) => same(one, rule))) return false
    this.rules.push(rule)
    return true
  }

  disallow(body: RuleBody): void {
    const rule = this.#ruleOf(body)
    this.rules = this.rules.filter((one) => !same(one, rule))
  }

  /** Whether the policy allows it, by all the rules read one after another. */
  isAllowed(question: Question): boolean {
    return oracle(this.#document(), this.#world(), question, NOW).allowed
  }

  #document(): PolicyDocument {
    const setsOf = <T>(
      isResourceSet: boolean,
      make: (key: string, conditions: Conditions, of: string) => T,
    ) =>
      [...this.sets].flatMap(([key, { conditions, resource }]) =>
        (resource !== null) === isResourceSet ? [make(key, conditions, resource ?? '')] : [],
      )
    return {
      resources: [...this.resources].map(([key, { actions, roles, relations }]) => ({
        key,
        actions,
        roles: [...roles].map(([role, { permissions, derivations, alone }]) => ({
          key: role,
          permissions,
          extends: [],
          derivations: derivations.map((one) => ({
            role: one.role,
            onResource: one.on_resource,
            linkedByRelation: one.linked_by_relation,
            noDirectRolesOnObject: false,
          })),
          noDirectRolesOnObject: alone,
        })),
        relations: [...relations].map(([relation, subjectResource]) => ({ key: relation, subjectResource })),
      })),
      roles: [...this.roles].map(([key, role]) => ({ key, ...role })),
      userSets: setsOf(false, (key, conditions) => ({ key, conditions, parent: null })),
      resourceSets: setsOf(true, (key, conditions, resource) => ({
        key,
        conditions,
        parent: null,
        resource,
      })),
      rules: this.rules.map(({ userSet, role = '', permission, resourceSet, resource = '' }) => ({
        users: userSet === undefined ? { role } : { set: userSet },
        resources: resourceSet === undefined ? { resource } : { set: resourceSet },
        permission,
      })),
    }
  }

  #world(): World {
    const held = (user: string, placeOf: (grant: Grant) => string | null) => {
      const places = new Map<string, { role: string; expiresAt: undefined }[]>()
      for (const grant of this.grants) {
        const place = placeOf(grant)
        if (grant.user !== user || place === null) continue
        places.set(place, [...(places.get(place) ?? []), { role: grant.role, expiresAt: undefined }])
      }
      return places
    }
    return aWorld({
      users: [...this.users].map(([key, { age }]) => ({
        id: `id of ${key}`,
        key,
        isActive: true,
        attributes: age === null ? {} : { age },
        tenants: this.members.filter(({ user }) => user === key).map(({ tenant }) => tenant),
        tenantRoles: held(key, ({ tenant, instance }) => (instance === null ? tenant : null)),
        everywhere: [],
        instanceRoles: held(key, ({ instance }) => instance),
      })),
      tenants: [...this.tenants.keys()].map((key) => ({
        id: `id of ${key}`,
        key,
        isActive: true,
        attributes: {},
      })),
      instances: [...this.instances].map(([ref, { tenant, draft }]) => ({
        id: `id of ${ref}`,
        type: typeOf(ref),
        key: ref.slice(typeOf(ref).length + 1),
        tenant,
        attributes: draft === null ? {} : { draft },
        subjects: this.#subjectsOf(ref),
      })),
    })
  }

  #subjectsOf(ref: string): Map<string, string[]> {
    const subjects = new Map<string, string[]>()
    for (const { subject, relation, object } of this.tuples)
      if (object === ref) subjects.set(relation, [...(subjects.get(relation) ?? []), subject])
    return subjects
  }

  #roleOf(key: string, resource: string | undefined): { permissions: string[] } {
    return there((resource === undefined ? this.roles : there(this.resources.get(resource)).roles).get(key))
  }

  #assertTiesOfRole(permissions: readonly string[], parents: readonly string[]): void {
    for (const parent of parents) there(this.roles.get(parent))
    for (const permission of permissions) this.#assertAction(permission)
  }

  #assertAction(permission: string): void {
    const { actions } = there(this.resources.get(typeOf(permission)))
    if (!actions.includes(permission.slice(permission.indexOf(':') + 1))) refuse(NOT_FOUND)
  }

  /** The role and all that it extends. */
  #closure(key: string): Set<string> {
    const all = new Set([key])
    for (const one of all) for (const parent of this.roles.get(one)?.extends ?? []) all.add(parent)
    return all
  }

  #derivable(resource: string, key: string, rule: Derivation): ResourceRole {
    const { roles, relations } = there(this.resources.get(resource))
    const role = there(roles.get(key))
    const related = there(this.resources.get(rule.on_resource))
    const subject = there(relations.get(rule.linked_by_relation))
    if (subject !== rule.on_resource) refuse('400 MISMATCH_RELATION_TYPE')
    there(related.roles.get(rule.role))
    return role
  }

  #ruleOf({ user_set, permission, resource_set, is_role, is_resource }: RuleBody): Rule {
    const isSet = (key: string, isNot: boolean) => !isNot && this.sets.has(key)
    const users = isSet(user_set, is_role) ? { userSet: user_set } : { role: this.#roleNamed(user_set) }
    const things = isSet(resource_set, is_resource)
      ? { resourceSet: resource_set }
      : { resource: this.#resourceNamed(resource_set) }
    this.#assertAction(permission)
    const of = 'resource' in things ? things.resource : this.sets.get(resource_set)?.resource
    if (of !== typeOf(permission)) refuse(INVALID)
    return { ...users, permission, ...things }
  }

  #resourceNamed(key: string): string {
    there(this.resources.get(key))
    return key
  }

  #roleNamed(name: string): string {
    const [resource = '', role] = name.split('#')
    if (role === undefined) there(this.roles.get(name))
    else there(this.resources.get(resource)?.roles.get(role))
    return name
  }

  /** Those of people who are there; others are refused or left out. */
  #ofUsers(grants: readonly GrantBody[], isStrict: boolean): GrantBody[] {
    if (isStrict) for (const { user } of grants) there(this.users.get(user))
    return grants.filter(({ user }) => this.users.has(user))
  }

  #place({ role, tenant, resource_instance: instance }: GrantBody, creates: boolean): Omit<Grant, 'user'> {
    if (instance === undefined) {
      if (tenant === undefined) return refuse(INVALID)
      there(this.tenants.get(tenant))
      there(this.roles.get(role))
      return { role, tenant, instance: null }
    }
    if (creates && !this.instances.has(instance)) this.createInstance(instance, there(tenant), null)
    const place = there(this.instances.get(instance))
    if (tenant !== undefined) {
      there(this.tenants.get(tenant))
      if (tenant !== place.tenant) refuse(OTHER_TENANT)
    }
    there(this.resources.get(typeOf(instance))?.roles.get(role))
    return { role, tenant: place.tenant, instance }
  }

  #give(body: GrantBody): boolean {
    there(this.users.get(body.user))
    const grant = { user: body.user, ...this.#place(body, true) }
    if (this.grants.some((one) => same(one, grant))) return false
    this.grants.push(grant)
    const member = { tenant: grant.tenant, user: grant.user }
    if (!this.members.some((one) => same(one, member))) this.members.push(member)
    return true
  }

  #take(body: GrantBody): boolean {
    there(this.users.get(body.user))
    const grant = { user: body.user, ...this.#place(body, false) }
    const before = this.grants.length
    this.#dropGrants((one) => same(one, grant))
    return this.grants.length < before
  }

  #dropGrants(isMeant: (grant: Grant) => boolean): void {
    this.grants = this.grants.filter((grant) => !isMeant(grant))
  }

  #dropInstance(ref: string): void {
    this.tuples = this.tuples.filter(({ subject, object }) => subject !== ref && object !== ref)
    this.#dropGrants(({ instance }) => instance === ref)
    this.instances.delete(ref)
  }

  #dropPermission(permission: string): void {
    const owners = [this.roles, ...[...this.resources.values()].map(({ roles }) => roles)]
    for (const roles of owners)
      for (const role of roles.values())
        role.permissions = role.permissions.filter((one) => one !== permission)
    this.rules = this.rules.filter((rule) => rule.permission !== permission)
  }
}
