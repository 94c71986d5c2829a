/*
 * The words of the decision core: what a policy says, what is known about people and things, what is asked, and what
 * is answered. Keys are the application's own; an instance is named `type:key`. Nothing here does I/O.
 */

/** A JSON object of the application's own. */
export type Attributes = Readonly<Record<string, unknown>>

/** A condition tree, as stored: see docs/policy.md. Checked by `validateCondition`. */
export type ConditionTree = Readonly<Record<string, unknown>>

/** Everything that an environment's policy says, as it is stored. Built-in resources and roles are no part of it. */
export type PolicyDocument = {
  readonly resources: readonly ResourceDefinition[]
  /** Roles held in an account, or in every account. */
  readonly roles: readonly RoleDefinition[]
  readonly userSets: readonly UserSetDefinition[]
  readonly resourceSets: readonly ResourceSetDefinition[]
  readonly rules: readonly RuleDefinition[]
}

export type ResourceDefinition = {
  readonly key: string
  readonly actions: readonly string[]
  /** Roles held on one instance of this resource. */
  readonly roles: readonly ResourceRoleDefinition[]
  /** Relations that an instance of this resource (the object) has to instances of another (the subjects). */
  readonly relations: readonly { readonly key: string; readonly subjectResource: string }[]
}

export type RoleDefinition = {
  readonly key: string
  /** `resource:action`. */
  readonly permissions: readonly string[]
  /** Roles whose permissions this one has too, transitively. A cycle adds nothing. */
  readonly extends: readonly string[]
}

export type ResourceRoleDefinition = RoleDefinition & {
  /** Who holds this role on an object because of a role on a related one. */
  readonly derivations: readonly DerivationDefinition[]
  /** True: no derivation gives this role to somebody who has any role directly on the object. */
  readonly noDirectRolesOnObject: boolean
}

/** Whoever holds `role` on a subject that the object names by `relation` holds the role derived. */
export type DerivationDefinition = {
  readonly role: string
  readonly onResource: string
  readonly linkedByRelation: string
  /** True: this derivation gives nothing to somebody who has any role directly on the object. */
  readonly noDirectRolesOnObject: boolean
}

export type UserSetDefinition = {
  readonly key: string
  readonly conditions: ConditionTree
  /** The set whose conditions (and its parents') must hold too. */
  readonly parent: string | null
}

export type ResourceSetDefinition = UserSetDefinition & { readonly resource: string }

/**
 * `users` may do `actions` to `resources`: a set or a role on one side, a set or all of a resource on the other.
 * A role of a resource is written `resource#role`.
 */
export type RuleDefinition = {
  readonly users: { readonly set: string } | { readonly role: string }
  readonly resources: { readonly set: string } | { readonly resource: string }
  /** `resource:action`. */
  readonly permission: string
}

/** A role as somebody holds it. `expiresAt`: milliseconds since the epoch, at which it no longer holds. */
export type HeldRole = { readonly role: string; readonly expiresAt: number | undefined }

/** What is stored about a user. */
export type UserFacts = {
  readonly id: string
  readonly key: string
  readonly isActive: boolean
  /** Stored attributes, with `email`, `first_name` and `last_name` where they are known. */
  readonly attributes: Attributes
  /** Keys of the accounts that the user is an active member of. */
  readonly tenants: readonly string[]
  /** Roles held in an account, by its key. */
  readonly tenantRoles: ReadonlyMap<string, readonly HeldRole[]>
  /** Roles held in every account. */
  readonly everywhere: readonly HeldRole[]
  /** Roles held on an instance, by `type:key`. */
  readonly instanceRoles: ReadonlyMap<string, readonly HeldRole[]>
  /**
   * Keys of accounts in which there are more roles on instances than are looked at: none of these is in
   * `instanceRoles`, and what needs them is refused.
   */
  readonly crowdedTenants?: ReadonlySet<string>
}

/** What is stored about an account. */
export type TenantFacts = {
  readonly id: string
  readonly key: string
  readonly isActive: boolean
  readonly attributes: Attributes
}

/** What is stored about an instance of a resource. */
export type InstanceFacts = {
  readonly id: string
  readonly type: string
  readonly key: string
  /** The key of the account that it belongs to. */
  readonly tenant: string
  readonly attributes: Attributes
  /** By relation, the instances (`type:key`) that are in this relation to it. */
  readonly subjects: ReadonlyMap<string, readonly string[]>
}

/**
 * The facts at hand. `null`: there is no such row. `undefined`: not loaded; the decision is then void, and whoever
 * holds the facts loads what was asked for and asks again. Users and accounts are named by key or id, key first.
 */
export type Facts = {
  user(ref: string): UserFacts | null | undefined
  tenant(ref: string): TenantFacts | null | undefined
  /** @param ref `type:key` or `type:id` */
  instance(ref: string): InstanceFacts | null | undefined
}

/** May this user do that to this? */
export type Question = {
  readonly user: { readonly key: string; readonly attributes?: Attributes | undefined }
  readonly action: { readonly name: string; readonly properties?: Attributes | undefined }
  readonly resource: {
    readonly type: string
    /** Absent: the resource as such, not one instance. */
    readonly key?: string | undefined
    /** The account, by key or id. Absent: no role held in an account applies. */
    readonly tenant?: string | undefined
    readonly attributes?: Attributes | undefined
  }
  readonly context?: Attributes | undefined
}

/** Which of the three models allowed it. */
export type Source = 'rbac' | 'abac' | 'rebac'

/**
 * Why the answer is no whatever the models say. `graph_too_large`: there is more behind the question (relationships,
 * lists to compare) than one decision may look at.
 */
export type Refusal =
  | 'no_such_resource'
  | 'no_such_action'
  | 'user_inactive'
  | 'tenant_inactive'
  | 'graph_too_large'

/** The answer to a question. */
export type Decision = {
  readonly allowed: boolean
  /** What allowed it: the first model that did, in the order rbac, abac, rebac. Empty on a refusal. */
  readonly source: Source | undefined
  readonly refusal: Refusal | undefined
}
