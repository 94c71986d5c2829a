import type { PolicyDocument, Question } from '../../src/policy/engine/model.ts'
import { aWorld, NOW, type World } from '../policy/engine/builders.ts'
import { oracle } from '../policy/engine/oracle.ts'

/*
 * Permit's management API as it would be over plain lists in memory: what it answers, what it refuses with, and what
 * the policy then allows. It shares nothing with the code that it is compared with.
 */

type Derivation = { role: string; on_resource: string; linked_by_relation: string; alone: boolean }
/** One held in tenants is derived from nothing. */
type Role = { permissions: string[]; extends: string[]; derivations: Derivation[]; alone: boolean }
type Resource = {
  /** Names by key. */
  actions: Map<string, string>
  groups: Map<string, string[]>
  /** Types by key. */
  attributes: Map<string, string>
  roles: Map<string, Role>
  /** What the subjects are, by key. */
  relations: Map<string, string>
}
type Grant = { user: string; role: string; tenant: string; instance: string | null }
type Tuple = { subject: string; relation: string; object: string }
type Rule = { userSet?: string; role?: string; permission: string; resourceSet?: string; resource?: string }
type Conditions = Record<string, unknown>
type ConditionSet = { conditions: Conditions; resource: string | null; parent: string | null }
/** Approved ones lead nowhere any more. */
type Invite = {
  email: string
  role: string
  tenant: string
  instance: string | undefined
  status: 'pending' | 'approved'
}
type When = { no_direct_roles_on_object: boolean }

export type DerivationBody = { role: string; on_resource: string; linked_by_relation: string; when?: When }
export type RoleBody = {
  permissions?: string[]
  extends?: string[]
  granted_to?: { when?: When; users_with_role?: DerivationBody[] }
}
/** One of many, of a resource or not. */
export type BulkRoleBody = RoleBody & { key: string; resource?: string }
/** Each part by its keys. */
export type ResourceBody = {
  actions?: Record<string, { name?: string }>
  attributes?: Record<string, { type: string }>
  relations?: Record<string, string>
  roles?: Record<string, RoleBody>
}
export type GrantBody = { user: string; role: string; tenant?: string; resource_instance?: string }
export type TupleBody = Tuple & { tenant?: string }
export type InviteBody = {
  key: string
  email: string
  role_id: string
  tenant_id: string
  resource_instance_id?: string
}
export type RuleBody = {
  user_set: string
  permission: string
  resource_set: string
  is_role: boolean
  is_resource: boolean
}

/** Between reasons of which any will do. */
export const OR = ' or '
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
/** Whether they derive the same: how is another matter. */
const isOfSameEnds = (a: Derivation, b: Derivation): boolean =>
  same({ ...a, alone: true }, { ...b, alone: true })
const typeOf = (ref: string): string => ref.slice(0, ref.indexOf(':'))
const full = (permission: string, resource: string | undefined): string =>
  resource === undefined || permission.includes(':') ? permission : `${resource}:${permission}`
const same = (a: object, b: object): boolean => JSON.stringify(a) === JSON.stringify(b)

export class PermitModel {
  tenants = new Map<string, { name: string }>([['default', { name: 'Default' }]])
  users = new Map<string, { age: number | null; email: string | null }>()
  members: { tenant: string; user: string }[] = []
  resources = new Map<string, Resource>()
  roles = new Map<string, Role>()
  instances = new Map<string, { tenant: string; draft: boolean | null }>()
  tuples: Tuple[] = []
  grants: Grant[] = []
  sets = new Map<string, ConditionSet>()
  rules: Rule[] = []
  userAttributes = new Map<string, string>()
  invites = new Map<string, Invite>()
  proxies = new Map<string, { name: string; urls: string[] }>()

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

  /** Whether `work` would be refused; nothing is changed. */
  refuses(work: (model: this) => unknown): boolean {
    const before = structuredClone({ ...this })
    const done = this.attempt(work)
    Object.assign(this, before)
    return typeof done === 'string'
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
    this.#dropInvites(({ tenant }) => tenant === key)
    this.tenants.delete(key)
  }

  /** Those that are there. */
  deleteTenants(keys: readonly string[]): void {
    for (const key of keys) if (this.tenants.has(key)) this.deleteTenant(key)
  }

  createUser(key: string, age: number | undefined, grants: readonly Omit<GrantBody, 'user'>[]): void {
    if (this.users.has(key)) refuse(TAKEN)
    this.users.set(key, { age: age ?? null, email: null })
    for (const grant of grants) this.#give({ ...grant, user: key })
  }

  /** @returns whether the user is new */
  syncUser(key: string, age: number | undefined, grants: readonly Omit<GrantBody, 'user'>[]): boolean {
    const isNew = !this.users.has(key)
    if (isNew) this.createUser(key, age, [])
    if (age !== undefined) this.updateUser(key, age)
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

  /** Those who are there. */
  deleteUsers(keys: readonly string[]): void {
    for (const key of keys) if (this.users.has(key)) this.deleteUser(key)
  }

  addToTenant(
    tenant: string,
    user: string,
    age: number | undefined,
    grants: readonly Omit<GrantBody, 'user'>[],
  ) {
    there(this.tenants.get(tenant))
    this.syncUser(user, age, grants)
    this.#join({ tenant, user })
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
  assignAll(grants: readonly GrantBody[], missingUsers: 'fail' | 'ignore' | 'create' = 'fail'): number {
    if (missingUsers === 'create')
      for (const { user } of grants) if (!this.users.has(user)) this.createUser(user, undefined, [])
    return this.#tryAll(this.#ofUsers(grants, missingUsers !== 'ignore'), (grant) => this.#give(grant))
  }

  /** @returns how many are gone */
  unassignAll(grants: readonly GrantBody[]): number {
    return this.#tryAll(this.#ofUsers(grants, false), (grant) => this.#take(grant))
  }

  createRole(key: string, body: RoleBody, resource?: string): void {
    const roles = this.#rolesOf(resource)
    this.#assertTies(body, resource)
    if (roles.has(key)) refuse(TAKEN)
    roles.set(key, { permissions: [], extends: [], derivations: [], alone: false })
    this.updateRole(key, body, resource)
  }

  updateRole(key: string, body: RoleBody, resource?: string): void {
    const role = there(this.#rolesOf(resource).get(key))
    this.#assertTies(body, resource)
    const { permissions, extends: parents, granted_to: granted } = body
    if (parents?.some((parent) => this.#closure(parent, resource).has(key))) refuse('400 INVALID_INPUT')
    if (permissions) role.permissions = [...new Set(permissions.map((one) => full(one, resource)))].sort()
    if (parents) role.extends = [...parents]
    role.alone = granted?.when?.no_direct_roles_on_object ?? role.alone
    if (resource === undefined || !granted?.users_with_role) return
    role.derivations = granted.users_with_role.map((body) => this.#derivation(resource, body))
  }

  /** Creates them, or replaces those that are there. They may name each other in any order. */
  putRoles(all: readonly BulkRoleBody[]): { created: string[]; updated: string[] } {
    const owners = [...new Set(all.map(({ resource }) => resource))]
    const done = { created: [] as string[], updated: [] as string[] }
    for (const resource of owners) this.#rolesOf(resource)
    const sorted = owners.flatMap((owner) => all.filter(({ resource }) => resource === owner))
    for (const { key, resource, ...body } of sorted)
      done[this.#putAlone(key, body, resource) ? 'created' : 'updated'].push(key)
    for (const { key, resource, ...body } of sorted) this.#putTies(key, body, resource)
    return done
  }

  setParent(key: string, parent: string, isParent: boolean, resource?: string): void {
    const { extends: parents } = there(this.#rolesOf(resource).get(key))
    there(this.#rolesOf(resource).get(parent))
    if (parents.includes(parent) === isParent) return
    const others = parents.filter((one) => one !== parent)
    this.updateRole(key, { extends: isParent ? [...others, parent] : others }, resource)
  }

  deleteRole(key: string, resource?: string): void {
    const roles = this.#rolesOf(resource)
    there(roles.get(key))
    const name = resource === undefined ? key : `${resource}#${key}`
    const owns = (instance: string | null) =>
      resource === undefined ? instance === null : instance !== null && typeOf(instance) === resource
    this.#dropGrants(({ role, instance }) => role === key && owns(instance))
    for (const role of roles.values()) role.extends = role.extends.filter((one) => one !== key)
    for (const other of this.resources.values())
      for (const role of other.roles.values())
        role.derivations = role.derivations.filter((one) => one.on_resource !== resource || one.role !== key)
    this.rules = this.rules.filter(({ role }) => role !== name)
    this.#dropInvites(({ role }) => role === name)
    roles.delete(key)
  }

  /** Of a role held in tenants, or of one of a resource. @returns what it has then */
  givePermissions(key: string, permissions: readonly string[], resource?: string): string[] {
    const role = there(this.#rolesOf(resource).get(key))
    const given = permissions.map((one) => full(one, resource))
    for (const permission of given) this.#assertAction(permission)
    role.permissions = [...new Set([...role.permissions, ...given])].sort()
    return role.permissions
  }

  takePermissions(key: string, permissions: readonly string[], resource?: string): string[] {
    const role = there(this.#rolesOf(resource).get(key))
    const taken = permissions.map((one) => full(one, resource))
    role.permissions = role.permissions.filter((one) => !taken.includes(one))
    return role.permissions
  }

  createResource(key: string, body: ResourceBody): void {
    if (this.resources.has(key)) refuse(TAKEN)
    this.resources.set(key, {
      actions: new Map(),
      groups: new Map(),
      attributes: new Map(),
      roles: new Map(),
      relations: new Map(),
    })
    this.updateResource(key, body)
  }

  /** What is not said of it, it has no longer. */
  replaceResource(key: string, body: ResourceBody): void {
    this.updateResource(key, { actions: {}, attributes: {}, relations: {}, roles: {}, ...body })
  }

  /** A part that is given is all that there is of it then. */
  updateResource(key: string, { actions, attributes, relations, roles }: ResourceBody): void {
    const resource = there(this.resources.get(key))
    if (roles) for (const role of resource.roles.keys()) if (!(role in roles)) this.deleteRole(role, key)
    if (relations) {
      for (const relation of resource.relations.keys())
        if (!(relation in relations)) this.deleteRelation(key, relation)
      for (const [relation, subject] of Object.entries(relations)) {
        there(this.resources.get(subject))
        if (resource.relations.get(relation) === subject) continue
        if (resource.relations.has(relation)) this.deleteRelation(key, relation)
        resource.relations.set(relation, subject)
      }
    }
    if (actions) {
      for (const action of resource.actions.keys()) if (!(action in actions)) this.deleteAction(key, action)
      for (const [action, { name = action }] of Object.entries(actions)) resource.actions.set(action, name)
    }
    if (attributes)
      resource.attributes = new Map(Object.entries(attributes).map(([name, { type }]) => [name, type]))
    if (!roles) return
    for (const [role, body] of Object.entries(roles)) this.#putAlone(role, body, key)
    for (const [role, body] of Object.entries(roles)) this.#putTies(role, body, key)
  }

  deleteResource(key: string): void {
    const { actions, roles } = there(this.resources.get(key))
    for (const action of actions.keys()) this.deleteAction(key, action)
    for (const role of roles.keys()) this.deleteRole(role, key)
    for (const [owner, { relations }] of this.resources)
      for (const [relation, subject] of relations)
        if (owner === key || subject === key) this.deleteRelation(owner, relation)
    for (const ref of this.instances.keys()) if (typeOf(ref) === key) this.#dropInstance(ref)
    for (const [set, { resource }] of this.sets) if (resource === key) this.#dropSet(set)
    this.resources.delete(key)
  }

  createAction(key: string, action: string, name: string): void {
    const { actions } = there(this.resources.get(key))
    if (actions.has(action)) refuse(TAKEN)
    actions.set(action, name)
  }

  renameAction(key: string, action: string, name: string): void {
    const { actions } = there(this.resources.get(key))
    there(actions.get(action))
    actions.set(action, name)
  }

  deleteAction(key: string, action: string): void {
    const { actions, groups } = there(this.resources.get(key))
    there(actions.get(action))
    actions.delete(action)
    for (const [group, members] of groups)
      groups.set(
        group,
        members.filter((one) => one !== action),
      )
    this.#dropPermission(`${key}:${action}`)
  }

  createGroup(key: string, group: string, actions: readonly string[]): void {
    const { groups } = there(this.resources.get(key))
    if (groups.has(group)) refuse(TAKEN)
    groups.set(group, [])
    this.setGroup(key, group, actions)
  }

  setGroup(key: string, group: string, members: readonly string[]): void {
    const { actions, groups } = there(this.resources.get(key))
    there(groups.get(group))
    if (members.some((one) => !actions.has(one))) refuse(INVALID)
    groups.set(group, [...members])
  }

  deleteGroup(key: string, group: string): void {
    const { groups } = there(this.resources.get(key))
    there(groups.get(group))
    groups.delete(group)
  }

  /** Of a resource, or of users. */
  createAttribute(resource: string | undefined, key: string, type: string): void {
    const attributes = this.#attributesOf(resource)
    if (attributes.has(key)) refuse(TAKEN)
    attributes.set(key, type)
  }

  updateAttribute(resource: string | undefined, key: string, type: string): void {
    const attributes = this.#attributesOf(resource)
    there(attributes.get(key))
    attributes.set(key, type)
  }

  deleteAttribute(resource: string | undefined, key: string): void {
    const attributes = this.#attributesOf(resource)
    there(attributes.get(key))
    attributes.delete(key)
  }

  derive(resource: string, key: string, body: DerivationBody): void {
    const { derivations } = there(there(this.resources.get(resource)).roles.get(key))
    const made = this.#derivation(resource, body)
    if (derivations.some((one) => isOfSameEnds(one, made))) refuse(TAKEN)
    derivations.push(made)
  }

  underive(resource: string, key: string, body: DerivationBody): void {
    const role = there(there(this.resources.get(resource)).roles.get(key))
    const ends = this.#derivation(resource, body)
    if (!role.derivations.some((one) => isOfSameEnds(one, ends))) refuse(NOT_FOUND)
    role.derivations = role.derivations.filter((one) => !isOfSameEnds(one, ends))
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

  /** Those that are there. */
  deleteInstances(refs: readonly string[]): void {
    for (const ref of refs) if (this.instances.has(ref)) this.#dropInstance(ref)
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

  /** Those that are there. */
  deleteTuples(tuples: readonly Tuple[]): void {
    this.tuples = this.tuples.filter((one) => !tuples.some((tuple) => same(one, tuple)))
  }

  createSet(key: string, set: ConditionSet): void {
    if (set.resource !== null) there(this.resources.get(set.resource))
    this.#assertParent(set.resource, set.parent)
    if (this.sets.has(key)) refuse(TAKEN)
    this.sets.set(key, set)
  }

  updateSet(key: string, changes: { conditions?: Conditions; parent?: string | null }): void {
    const set = there(this.sets.get(key))
    const { parent = set.parent } = changes
    this.#assertParent(set.resource, parent)
    if (parent === key || (parent !== null && this.ancestorsOfSet(parent).includes(key)))
      refuse('400 INVALID_INPUT')
    Object.assign(set, changes)
  }

  deleteSet(key: string): void {
    there(this.sets.get(key))
    if ([...this.sets.values()].some(({ parent }) => parent === key)) refuse('403 FORBIDDEN_ACCESS')
    this.#dropSet(key)
  }

  /** Its parent, the parent of that, and so on. */
  ancestorsOfSet(key: string): string[] {
    const { parent } = there(this.sets.get(key))
    return parent === null ? [] : [parent, ...this.ancestorsOfSet(parent)]
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

  createInvite(body: InviteBody): void {
    const { key, email, role_id: role, tenant_id: tenant, resource_instance_id: instance } = body
    this.#roleNamed(role)
    there(this.tenants.get(tenant))
    if (instance !== undefined && there(this.instances.get(instance)).tenant !== tenant) refuse(OTHER_TENANT)
    const [resource, isOfResource] = role.split('#')
    if (isOfResource !== undefined && (instance === undefined || typeOf(instance) !== resource))
      refuse(INVALID)
    if (this.invites.has(key)) refuse(TAKEN)
    this.invites.set(key, { email, role, tenant, instance, status: 'pending' })
  }

  /** The user has the role that the invitation is for. */
  approveInvite(key: string, email: string, user: string): void {
    const invite = there(this.invites.get(key))
    if (invite.status === 'approved') refuse(TAKEN)
    if (invite.email !== email) refuse(INVALID)
    this.createUser(user, undefined, [])
    if ([...this.users.values()].some((one) => one.email === email)) refuse(TAKEN)
    there(this.users.get(user)).email = email
    const [role = '', ofResource] = invite.role.split('#').reverse()
    const { tenant, instance } = invite
    this.#give({ user, role, tenant, ...(ofResource && instance && { resource_instance: instance }) })
    invite.status = 'approved'
  }

  deleteInvite(key: string): void {
    there(this.invites.get(key))
    this.invites.delete(key)
  }

  createProxy(key: string, name: string, urls: string[]): void {
    if (this.proxies.has(key)) refuse(TAKEN)
    this.proxies.set(key, { name, urls })
  }

  updateProxy(key: string, changes: { name?: string; urls?: string[] }): void {
    Object.assign(there(this.proxies.get(key)), changes)
  }

  deleteProxy(key: string): void {
    there(this.proxies.get(key))
    this.proxies.delete(key)
  }

  /** Whether the policy of this moment allows something, by all the rules read one after another. */
  decider(): (question: Question) => boolean {
    const [document, world] = [this.#document(), this.#world()]
    return (question) => oracle(document, world, question, NOW).allowed
  }

  /** How many change something. Which of several reasons to refuse is told is left open. */
  #tryAll<T>(all: readonly T[], work: (one: T) => boolean): number {
    const done = all.map((one) => this.attempt(() => work(one)))
    const reasons = new Set(done.filter((one) => typeof one === 'string'))
    if (reasons.size > 0) refuse([...reasons].join(OR))
    return done.filter((one) => one === true).length
  }

  #document(): PolicyDocument {
    const setsOf = <T>(
      isResourceSet: boolean,
      make: (set: { key: string; conditions: Conditions; parent: string | null }, of: string) => T,
    ) =>
      [...this.sets].flatMap(([key, { resource, ...set }]) =>
        (resource !== null) === isResourceSet ? [make({ key, ...set }, resource ?? '')] : [],
      )
    return {
      resources: [...this.resources].map(([key, { actions, roles, relations }]) => ({
        key,
        actions: [...actions.keys()],
        roles: [...roles].map(([role, { permissions, extends: parents, derivations, alone }]) => ({
          key: role,
          permissions,
          extends: parents,
          derivations: derivations.map((one) => ({
            role: one.role,
            onResource: one.on_resource,
            linkedByRelation: one.linked_by_relation,
            noDirectRolesOnObject: one.alone,
          })),
          noDirectRolesOnObject: alone,
        })),
        relations: [...relations].map(([relation, subjectResource]) => ({ key: relation, subjectResource })),
      })),
      roles: [...this.roles].map(([key, { permissions, extends: parents }]) => ({
        key,
        permissions,
        extends: parents,
      })),
      userSets: setsOf(false, (set) => set),
      resourceSets: setsOf(true, (set, resource) => ({ ...set, resource })),
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

  #rolesOf(resource: string | undefined): Map<string, Role> {
    return resource === undefined ? this.roles : there(this.resources.get(resource)).roles
  }

  #attributesOf(resource: string | undefined): Map<string, string> {
    return resource === undefined ? this.userAttributes : there(this.resources.get(resource)).attributes
  }

  /** The role without what it has of other roles anew. @returns whether it is new */
  #putAlone(
    key: string,
    { permissions = [], extends: parents = [], granted_to }: RoleBody,
    of?: string,
  ): boolean {
    const role = this.#rolesOf(of).get(key)
    const alone = {
      permissions,
      granted_to: { when: { no_direct_roles_on_object: false, ...granted_to?.when } },
    }
    if (!role) this.createRole(key, alone, of)
    else this.updateRole(key, { ...alone, extends: role.extends.filter((one) => parents.includes(one)) }, of)
    return !role
  }

  #putTies(key: string, { extends: parents = [], granted_to }: RoleBody, of?: string): void {
    this.updateRole(
      key,
      { extends: parents, granted_to: { users_with_role: granted_to?.users_with_role ?? [] } },
      of,
    )
  }

  #assertTies({ permissions = [], extends: parents = [] }: RoleBody, resource: string | undefined): void {
    for (const parent of parents) there(this.#rolesOf(resource).get(parent))
    for (const permission of permissions) this.#assertAction(full(permission, resource))
  }

  #assertAction(permission: string): void {
    const { actions } = there(this.resources.get(typeOf(permission)))
    there(actions.get(permission.slice(permission.indexOf(':') + 1)))
  }

  /** The role and all that it extends. */
  #closure(key: string, resource: string | undefined): Set<string> {
    const all = new Set([key])
    for (const one of all)
      for (const parent of this.#rolesOf(resource).get(one)?.extends ?? []) all.add(parent)
    return all
  }

  /** One of a role of this resource. */
  #derivation(resource: string, { when, ...ends }: DerivationBody): Derivation {
    const { relations } = there(this.resources.get(resource))
    const related = there(this.resources.get(ends.on_resource))
    const subject = there(relations.get(ends.linked_by_relation))
    if (subject !== ends.on_resource) refuse('400 MISMATCH_RELATION_TYPE')
    there(related.roles.get(ends.role))
    return { ...ends, alone: when?.no_direct_roles_on_object ?? false }
  }

  #assertParent(resource: string | null, parent: string | null): void {
    if (parent !== null && there(this.sets.get(parent)).resource !== resource) refuse(INVALID)
  }

  #ruleOf({ user_set, permission, resource_set, is_role, is_resource }: RuleBody): Rule {
    const isSet = (key: string, isNot: boolean) => !isNot && this.sets.has(key)
    const users = isSet(user_set, is_role) ? { userSet: user_set } : { role: this.#roleNamed(user_set) }
    const things = isSet(resource_set, is_resource)
      ? { resourceSet: resource_set }
      : { resource: this.#resourceNamed(resource_set) }
    this.#assertAction(permission)
    if ('userSet' in users && this.sets.get(user_set)?.resource !== null) refuse(INVALID)
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
    this.#join({ tenant: grant.tenant, user: grant.user })
    return true
  }

  #join(member: { tenant: string; user: string }): void {
    if (!this.members.some((one) => same(one, member))) this.members.push(member)
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
    this.#dropInvites(({ instance }) => instance === ref)
    this.instances.delete(ref)
  }

  #dropInvites(isMeant: (invite: Invite) => boolean): void {
    for (const [key, invite] of this.invites) if (isMeant(invite)) this.invites.delete(key)
  }

  #dropSet(key: string): void {
    this.rules = this.rules.filter(({ userSet, resourceSet }) => userSet !== key && resourceSet !== key)
    this.sets.delete(key)
  }

  #dropPermission(permission: string): void {
    const owners = [this.roles, ...[...this.resources.values()].map(({ roles }) => roles)]
    for (const roles of owners)
      for (const role of roles.values())
        role.permissions = role.permissions.filter((one) => one !== permission)
    this.rules = this.rules.filter((rule) => rule.permission !== permission)
  }
}
