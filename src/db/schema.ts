import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  customType,
  foreignKey,
  index,
  integer,
  jsonb,
  type PgColumn,
  pgTable,
  primaryKey,
  text,
  timestamp,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core'

/*
 * One picture of the database. Ids are UUIDv7 made by the application. Every row of the model belongs to an
 * environment; foreign keys carry it, so that no row can point across two environments.
 * Two foreign keys are deferred to the commit, which Drizzle cannot say: see migrations/0000_init.sql.
 */

/** Milliseconds, as JavaScript's dates have them, so that a cursor made from one finds its row again. */
const timestamptz = () => timestamp({ withTimezone: true, precision: 3 })
const createdAt = () => timestamptz().notNull().defaultNow()
const isIn = (column: PgColumn, values: readonly string[]) =>
  sql`${column} in (${sql.raw(values.map((value) => `'${value}'`).join(', '))})`
/** The pattern of the keys that applications give. */
const isKey = (column: PgColumn) => sql`${column} ~ '^[A-Za-z0-9_-]+$'`
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })
type Json = Record<string, unknown>

/** What environments are grouped by. `default` exists from the first migration on. */
export const projects = pgTable(
  'projects',
  {
    id: uuid().primaryKey(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [unique('projects_key_key').on(t.key), check('projects_key_check', isKey(t.key))],
)

/** The types that an attribute may be declared with. */
export const ATTRIBUTE_TYPES = [
  'bool',
  'number',
  'string',
  'time',
  'array',
  'json',
  'object',
  'object_array',
] as const
export type AttributeType = (typeof ATTRIBUTE_TYPES)[number]

/** A policy namespace of a project. `default` of `default` exists from the first migration on. */
export const environments = pgTable(
  'environments',
  {
    id: uuid().primaryKey(),
    project: text().notNull(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('environments_project_key_key').on(t.project, t.key),
    check('environments_key_check', isKey(t.key)),
    foreignKey({
      name: 'environments_project_fkey',
      columns: [t.project],
      foreignColumns: [projects.key],
    }).onUpdate('cascade'),
  ],
)

/**
 * One row per environment, written by a trigger at the end of each transaction that changes policy or facts: its version,
 * and how many people there are who are not deleted.
 */
export const policyVersions = pgTable('policy_versions', {
  environmentId: uuid()
    .primaryKey()
    .references(() => environments.id, { onDelete: 'cascade' }),
  version: bigint({ mode: 'number' }).notNull().default(1),
  people: bigint({ mode: 'number' }).notNull().default(0),
  /** The version since which they are the same people. */
  peopleVersion: bigint({ mode: 'number' }).notNull().default(1),
})

/**
 * What changed with which version, so that caches forget that and no more. Written by triggers on every table that a
 * decision reads; pruned after some minutes. Without a foreign key, because deleting an environment writes rows too.
 */
export const policyChanges = pgTable(
  'policy_changes',
  {
    id: bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    environmentId: uuid().notNull(),
    /** Null until the transaction ends. */
    version: bigint({ mode: 'number' }),
    transactionId: xid8().notNull().default(sql`pg_current_xact_id()`),
    kind: text()
      .$type<'policy' | 'user' | 'account' | 'instance' | 'api_key' | 'client' | 'token' | 'everything'>()
      .notNull(),
    /** Ids and keys of what changed. */
    refs: text().array().notNull(),
    /** How many people came and were not deleted, less those who went; null where they stayed the same ones. */
    peopleAdded: bigint({ mode: 'number' }),
    createdAt: createdAt(),
  },
  (t) => [
    index('policy_changes_version_idx').on(t.environmentId, t.version),
    index('policy_changes_unsealed_idx').on(t.transactionId).where(sql`version is null`),
    index('policy_changes_created_at_idx').on(t.createdAt),
  ],
)

export const accounts = pgTable(
  'accounts',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    isActive: boolean().notNull().default(true),
    planId: uuid(),
    currentSubscriptionEnds: timestamptz(),
    attributes: jsonb().$type<Json>(),
    /** Whether tokens for it need a second factor. */
    isMfaRequired: boolean().notNull().default(false),
    /** The person who opened it for themselves. */
    openedByUserId: uuid(),
    searchText: text().notNull(),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
    deletedAt: timestamptz(),
  },
  (t) => [
    unique('accounts_environment_id_id_key').on(t.environmentId, t.id),
    uniqueIndex('accounts_key_key').on(t.environmentId, t.key).where(sql`deleted_at is null`),
    index('accounts_gone_key_idx').on(t.environmentId, t.key).where(sql`deleted_at is not null`),
    index('accounts_list_idx').on(t.environmentId, t.id).where(sql`deleted_at is null`),
    index('accounts_name_idx').on(t.environmentId, t.name, t.id).where(sql`deleted_at is null`),
    index('accounts_updated_at_idx').on(t.environmentId, t.updatedAt, t.id).where(sql`deleted_at is null`),
    index('accounts_opened_by_user_id_idx')
      .on(t.openedByUserId)
      .where(sql`opened_by_user_id is not null and deleted_at is null`),
    index('accounts_search_idx').using('gin', t.searchText.op('gin_trgm_ops')),
    check('accounts_key_check', sql`${t.key} ~ '^[A-Za-z0-9_-]+$'`),
  ],
)

export const users = pgTable(
  'users',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    key: text().notNull(),
    email: text(),
    emailNormalized: text(),
    fullName: text(),
    firstName: text(),
    lastName: text(),
    phoneNumber: text(),
    attributes: jsonb().$type<Json>(),
    isActive: boolean().notNull().default(true),
    accountId: uuid(),
    tokenVersion: integer().notNull().default(1),
    searchText: text().notNull(),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
    deletedAt: timestamptz(),
    /** When everything personal was removed; what is left is an id. */
    erasedAt: timestamptz(),
  },
  (t) => [
    unique('users_environment_id_id_key').on(t.environmentId, t.id),
    uniqueIndex('users_email_key').on(t.environmentId, t.emailNormalized).where(sql`deleted_at is null`),
    uniqueIndex('users_key_key').on(t.environmentId, t.key).where(sql`deleted_at is null`),
    index('users_account_id_idx').on(t.environmentId, t.accountId, t.id).where(sql`deleted_at is null`),
    index('users_list_idx').on(t.environmentId, t.id).where(sql`deleted_at is null`),
    index('users_full_name_idx')
      .on(t.environmentId, sql`coalesce(full_name, '')`, t.id)
      .where(sql`deleted_at is null`),
    index('users_email_sort_idx')
      .on(t.environmentId, sql`coalesce(email_normalized, '')`, t.id)
      .where(sql`deleted_at is null`),
    index('users_updated_at_idx').on(t.environmentId, t.updatedAt, t.id).where(sql`deleted_at is null`),
    index('users_gone_key_idx').on(t.environmentId, t.key).where(sql`deleted_at is not null`),
    index('users_erasable_idx').on(t.deletedAt).where(sql`deleted_at is not null and erased_at is null`),
    index('users_erased_at_idx').on(t.erasedAt).where(sql`erased_at is not null`),
    index('users_search_idx').using('gin', t.searchText.op('gin_trgm_ops')),
    check('users_email_check', sql`(${t.email} is null) = (${t.emailNormalized} is null)`),
    foreignKey({
      name: 'users_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }),
  ],
)

/** What a user signs in with. A user synced from outside may have none. */
export const userCredentials = pgTable(
  'user_credentials',
  {
    userId: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    /** Null: signs in by other means only. */
    passwordHash: text(),
    mustChange: boolean().notNull().default(false),
    emailVerifiedAt: timestamptz(),
    /** When anything changed that the person signs in with: password or factors. */
    credentialsChangedAt: createdAt(),
    /** When the password was replaced or removed, but not when its hash was made anew. */
    passwordChangedAt: createdAt(),
  },
  (t) => [
    foreignKey({
      name: 'user_credentials_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/** Who belongs to which account. Every role held in an account and every home account implies a row. */
export const accountMembers = pgTable(
  'account_members',
  {
    environmentId: uuid().notNull(),
    accountId: uuid().notNull(),
    userId: uuid().notNull(),
    status: text().$type<'active' | 'pending'>().notNull().default('active'),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'account_members_pkey', columns: [t.accountId, t.userId] }),
    unique('account_members_environment_key').on(t.environmentId, t.accountId, t.userId),
    index('account_members_user_id_idx').on(t.userId),
    index('account_members_joined_idx').on(t.accountId, t.createdAt, t.userId),
    check('account_members_status_check', isIn(t.status, ['active', 'pending'])),
    foreignKey({
      name: 'account_members_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'account_members_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

export const resources = pgTable(
  'resources',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    urn: text(),
    isBuiltin: boolean().notNull().default(false),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('resources_environment_id_id_key').on(t.environmentId, t.id),
    unique('resources_key_key').on(t.environmentId, t.key),
    check('resources_key_check', sql`${t.isBuiltin} or ${t.key} ~ '^[A-Za-z0-9_-]+$'`),
  ],
)

export const actions = pgTable(
  'actions',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    resourceId: uuid().notNull(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    attributes: jsonb().$type<Json>(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('actions_environment_id_id_key').on(t.environmentId, t.id),
    unique('actions_key_key').on(t.resourceId, t.key),
    unique('actions_resource_id_id_key').on(t.resourceId, t.id),
    check('actions_key_check', sql`${t.key} ~ '^[A-Za-z0-9_-]+$'`),
    foreignKey({
      name: 'actions_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** Attributes that an application declares for a resource, or, with `resource_id` null, for its users. */
export const attributeDefinitions = pgTable(
  'attribute_definitions',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    resourceId: uuid(),
    key: text().notNull(),
    type: text().$type<AttributeType>().notNull(),
    description: text(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('attribute_definitions_key_key').on(t.environmentId, t.resourceId, t.key).nullsNotDistinct(),
    check('attribute_definitions_key_check', isKey(t.key)),
    check('attribute_definitions_type_check', isIn(t.type, ATTRIBUTE_TYPES)),
    foreignKey({
      name: 'attribute_definitions_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** Actions of a resource under one name. */
export const actionGroups = pgTable(
  'action_groups',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    resourceId: uuid().notNull(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    attributes: jsonb().$type<Json>(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('action_groups_key_key').on(t.resourceId, t.key),
    unique('action_groups_resource_id_id_key').on(t.resourceId, t.id),
    check('action_groups_key_check', isKey(t.key)),
    foreignKey({
      name: 'action_groups_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

export const actionGroupActions = pgTable(
  'action_group_actions',
  {
    resourceId: uuid().notNull(),
    groupId: uuid().notNull(),
    actionId: uuid().notNull(),
  },
  (t) => [
    primaryKey({ name: 'action_group_actions_pkey', columns: [t.groupId, t.actionId] }),
    index('action_group_actions_action_id_idx').on(t.actionId),
    foreignKey({
      name: 'action_group_actions_group_id_fkey',
      columns: [t.resourceId, t.groupId],
      foreignColumns: [actionGroups.resourceId, actionGroups.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'action_group_actions_action_id_fkey',
      columns: [t.resourceId, t.actionId],
      foreignColumns: [actions.resourceId, actions.id],
    }).onDelete('cascade'),
  ],
)

/** A relation that instances of a resource (the objects) may have to instances of another (the subjects). */
export const relations = pgTable(
  'relations',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    resourceId: uuid().notNull(),
    subjectResourceId: uuid().notNull(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('relations_key_key').on(t.resourceId, t.key),
    unique('relations_environment_id_id_key').on(t.environmentId, t.id),
    index('relations_subject_resource_id_idx').on(t.subjectResourceId),
    check('relations_key_check', isKey(t.key)),
    foreignKey({
      name: 'relations_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'relations_subject_resource_id_fkey',
      columns: [t.environmentId, t.subjectResourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** A role held in an account or everywhere; with `resource_id`, one held on instances of that resource. */
export const roles = pgTable(
  'roles',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    resourceId: uuid(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    defaultReach: text().$type<'account' | 'any'>().notNull().default('account'),
    attributes: jsonb().$type<Json>(),
    /** No derivation gives this role to somebody who has any role directly on the object. */
    noDirectRolesOnObject: boolean().notNull().default(false),
    isBuiltin: boolean().notNull().default(false),
    /** Whether it takes effect only in tokens of a second factor. */
    isMfaRequired: boolean().notNull().default(false),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('roles_environment_id_id_key').on(t.environmentId, t.id),
    unique('roles_key_key').on(t.environmentId, t.resourceId, t.key).nullsNotDistinct(),
    check('roles_key_check', sql`${t.key} ~ '^[A-Za-z0-9_-]+$'`),
    check('roles_default_reach_check', isIn(t.defaultReach, ['account', 'any'])),
    foreignKey({
      name: 'roles_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** Names of application roles that were deleted (`role`, `resource#role`), written by triggers: see the mirror to Permit. */
export const goneRoles = pgTable(
  'gone_roles',
  {
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    name: text().notNull(),
  },
  (t) => [primaryKey({ name: 'gone_roles_pkey', columns: [t.environmentId, t.name] })],
)

export const rolePermissions = pgTable(
  'role_permissions',
  {
    environmentId: uuid().notNull(),
    roleId: uuid().notNull(),
    actionId: uuid().notNull(),
  },
  (t) => [
    primaryKey({ name: 'role_permissions_pkey', columns: [t.roleId, t.actionId] }),
    index('role_permissions_action_id_idx').on(t.actionId),
    foreignKey({
      name: 'role_permissions_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_permissions_action_id_fkey',
      columns: [t.environmentId, t.actionId],
      foreignColumns: [actions.environmentId, actions.id],
    }).onDelete('cascade'),
  ],
)

/** A role has the permissions of its parents too. */
export const roleParents = pgTable(
  'role_parents',
  {
    environmentId: uuid().notNull(),
    roleId: uuid().notNull(),
    parentId: uuid().notNull(),
  },
  (t) => [
    primaryKey({ name: 'role_parents_pkey', columns: [t.roleId, t.parentId] }),
    index('role_parents_parent_id_idx').on(t.parentId),
    check('role_parents_check', sql`${t.roleId} <> ${t.parentId}`),
    foreignKey({
      name: 'role_parents_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_parents_parent_id_fkey',
      columns: [t.environmentId, t.parentId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
  ],
)

/** Whoever holds `source_role` on a subject that an object names by the relation holds `role` on the object. */
export const roleDerivations = pgTable(
  'role_derivations',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    roleId: uuid().notNull(),
    sourceRoleId: uuid().notNull(),
    relationId: uuid().notNull(),
    noDirectRolesOnObject: boolean().notNull().default(false),
    createdAt: createdAt(),
  },
  (t) => [
    unique('role_derivations_key').on(t.roleId, t.sourceRoleId, t.relationId),
    index('role_derivations_source_role_id_idx').on(t.sourceRoleId),
    index('role_derivations_relation_id_idx').on(t.relationId),
    foreignKey({
      name: 'role_derivations_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_derivations_source_role_id_fkey',
      columns: [t.environmentId, t.sourceRoleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_derivations_relation_id_fkey',
      columns: [t.environmentId, t.relationId],
      foreignColumns: [relations.environmentId, relations.id],
    }).onDelete('cascade'),
  ],
)

/** A thing of the application that roles, relationships and attribute rules know by name. It belongs to one account. */
export const resourceInstances = pgTable(
  'resource_instances',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    accountId: uuid().notNull(),
    resourceId: uuid().notNull(),
    key: text().notNull(),
    attributes: jsonb().$type<Json>(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('resource_instances_key_key').on(t.resourceId, t.key),
    unique('resource_instances_account_id_id_key').on(t.environmentId, t.accountId, t.id),
    index('resource_instances_list_idx').on(t.environmentId, t.id),
    index('resource_instances_account_id_idx').on(t.environmentId, t.accountId, t.resourceId, t.key),
    check('resource_instances_key_check', sql`${t.key} <> '' and length(${t.key}) <= 512`),
    foreignKey({
      name: 'resource_instances_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'resource_instances_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** `subject` is in `relation` to `object`. Both belong to the tuple's account. */
export const relationshipTuples = pgTable(
  'relationship_tuples',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    accountId: uuid().notNull(),
    subjectId: uuid().notNull(),
    relationId: uuid().notNull(),
    objectId: uuid().notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    unique('relationship_tuples_key').on(t.objectId, t.relationId, t.subjectId),
    index('relationship_tuples_subject_id_idx').on(t.subjectId, t.relationId),
    index('relationship_tuples_relation_id_idx').on(t.relationId),
    index('relationship_tuples_list_idx').on(t.environmentId, t.id),
    index('relationship_tuples_account_id_idx').on(t.accountId, t.id),
    foreignKey({
      name: 'relationship_tuples_subject_id_fkey',
      columns: [t.environmentId, t.accountId, t.subjectId],
      foreignColumns: [resourceInstances.environmentId, resourceInstances.accountId, resourceInstances.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'relationship_tuples_object_id_fkey',
      columns: [t.environmentId, t.accountId, t.objectId],
      foreignColumns: [resourceInstances.environmentId, resourceInstances.accountId, resourceInstances.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'relationship_tuples_relation_id_fkey',
      columns: [t.environmentId, t.relationId],
      foreignColumns: [relations.environmentId, relations.id],
    }).onDelete('cascade'),
  ],
)

/** Users, or instances of one resource, described by conditions on their attributes. */
export const conditionSets = pgTable(
  'condition_sets',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    type: text().$type<'userset' | 'resourceset'>().notNull(),
    resourceId: uuid(),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    conditions: jsonb().$type<Json>().notNull(),
    parentId: uuid(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('condition_sets_key_key').on(t.environmentId, t.key),
    unique('condition_sets_environment_id_id_key').on(t.environmentId, t.id),
    index('condition_sets_resource_id_idx').on(t.resourceId),
    index('condition_sets_parent_id_idx').on(t.parentId),
    check('condition_sets_key_check', isKey(t.key)),
    check('condition_sets_type_check', isIn(t.type, ['userset', 'resourceset'])),
    check('condition_sets_resource_check', sql`(${t.type} = 'resourceset') = (${t.resourceId} is not null)`),
    foreignKey({
      name: 'condition_sets_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'condition_sets_parent_id_fkey',
      columns: [t.environmentId, t.parentId],
      foreignColumns: [t.environmentId, t.id],
    }),
  ],
)

/** Whom a rule allows what: a user set or a role; a resource set or a whole resource. */
export const setRules = pgTable(
  'set_rules',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userSetId: uuid(),
    roleId: uuid(),
    actionId: uuid().notNull(),
    resourceSetId: uuid(),
    resourceId: uuid(),
    createdAt: createdAt(),
  },
  (t) => [
    unique('set_rules_key')
      .on(t.actionId, t.userSetId, t.roleId, t.resourceSetId, t.resourceId)
      .nullsNotDistinct(),
    index('set_rules_list_idx').on(t.environmentId, t.id),
    index('set_rules_user_set_id_idx').on(t.userSetId),
    index('set_rules_role_id_idx').on(t.roleId),
    index('set_rules_resource_set_id_idx').on(t.resourceSetId),
    index('set_rules_resource_id_idx').on(t.resourceId),
    check('set_rules_users_check', sql`num_nonnulls(${t.userSetId}, ${t.roleId}) = 1`),
    check('set_rules_resources_check', sql`num_nonnulls(${t.resourceSetId}, ${t.resourceId}) = 1`),
    foreignKey({
      name: 'set_rules_user_set_id_fkey',
      columns: [t.environmentId, t.userSetId],
      foreignColumns: [conditionSets.environmentId, conditionSets.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'set_rules_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'set_rules_action_id_fkey',
      columns: [t.environmentId, t.actionId],
      foreignColumns: [actions.environmentId, actions.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'set_rules_resource_set_id_fkey',
      columns: [t.environmentId, t.resourceSetId],
      foreignColumns: [conditionSets.environmentId, conditionSets.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'set_rules_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

/** Somebody who shall become a user with a role, once somebody approves. */
export const userInvites = pgTable(
  'user_invites',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    key: text().notNull(),
    email: text().notNull(),
    emailNormalized: text().notNull(),
    firstName: text(),
    lastName: text(),
    status: text().$type<'pending' | 'approved'>().notNull().default('pending'),
    roleId: uuid().notNull(),
    accountId: uuid().notNull(),
    resourceInstanceId: uuid(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('user_invites_key_key').on(t.environmentId, t.key),
    index('user_invites_list_idx').on(t.environmentId, t.id),
    index('user_invites_role_id_idx').on(t.roleId),
    index('user_invites_account_id_idx').on(t.accountId),
    index('user_invites_resource_instance_id_idx').on(t.resourceInstanceId),
    check('user_invites_status_check', isIn(t.status, ['pending', 'approved'])),
    foreignKey({
      name: 'user_invites_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'user_invites_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'user_invites_resource_instance_id_fkey',
      columns: [t.environmentId, t.accountId, t.resourceInstanceId],
      foreignColumns: [resourceInstances.environmentId, resourceInstances.accountId, resourceInstances.id],
    }).onDelete('cascade'),
  ],
)

/** Which action on which resource a request to a URL is, for services that ask by URL. */
export const proxyConfigs = pgTable(
  'proxy_configs',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    key: text().notNull(),
    name: text().notNull(),
    mappingRules: jsonb()
      .$type<
        {
          url: string
          urlType: 'template' | 'regex'
          httpMethod: string
          resource: string
          action: string | null
          priority: number
          headers: Record<string, string>
        }[]
      >()
      .notNull(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    unique('proxy_configs_key_key').on(t.environmentId, t.key),
    check('proxy_configs_key_check', isKey(t.key)),
  ],
)

/** Decisions that were made, when the operator asks for a record of them. */
export const decisionLog = pgTable(
  'decision_log',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    decidedAt: createdAt(),
    userKey: text().notNull(),
    action: text().notNull(),
    resource: text().notNull(),
    tenant: text(),
    isAllowed: boolean().notNull(),
    reason: text().notNull(),
    requestId: text(),
  },
  (t) => [
    index('decision_log_list_idx').on(t.environmentId, t.id),
    index('decision_log_user_key_idx').on(t.environmentId, t.userKey, t.id),
    index('decision_log_decided_at_idx').on(t.decidedAt),
  ],
)

/**
 * A role held in an account, in every account (`account_id` null), or on an instance of a resource. At most one per
 * user is the primary one.
 */
export const roleAssignments = pgTable(
  'role_assignments',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    roleId: uuid().notNull(),
    accountId: uuid(),
    /** With it, `account_id` is the account of the instance. */
    resourceInstanceId: uuid(),
    isPrimary: boolean().notNull().default(false),
    expiresAt: timestamptz(),
    createdAt: createdAt(),
  },
  (t) => [
    unique('role_assignments_key')
      .on(t.userId, t.roleId, t.accountId, t.resourceInstanceId)
      .nullsNotDistinct(),
    index('role_assignments_resource_instance_id_idx').on(t.resourceInstanceId),
    index('role_assignments_list_idx').on(t.environmentId, t.id),
    index('role_assignments_expires_at_idx').on(t.expiresAt).where(sql`expires_at is not null`),
    check(
      'role_assignments_instance_check',
      sql`${t.resourceInstanceId} is null or (${t.accountId} is not null and not ${t.isPrimary})`,
    ),
    foreignKey({
      name: 'role_assignments_resource_instance_id_fkey',
      columns: [t.environmentId, t.accountId, t.resourceInstanceId],
      foreignColumns: [resourceInstances.environmentId, resourceInstances.accountId, resourceInstances.id],
    }).onDelete('cascade'),
    uniqueIndex('role_assignments_primary_key').on(t.userId).where(sql`is_primary`),
    index('role_assignments_role_id_idx').on(t.roleId),
    index('role_assignments_account_id_idx').on(t.accountId),
    foreignKey({
      name: 'role_assignments_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_assignments_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'role_assignments_member_fkey',
      columns: [t.environmentId, t.accountId, t.userId],
      foreignColumns: [accountMembers.environmentId, accountMembers.accountId, accountMembers.userId],
    }).onDelete('cascade'),
  ],
)

/** Keys that sign access tokens. The private part is sealed under SECRET_KEY. One key is current at a time. */
export const signingKeys = pgTable(
  'signing_keys',
  {
    kid: text().primaryKey(),
    algorithm: text().$type<'ES256' | 'RS256' | 'EdDSA'>().notNull(),
    publicJwk: jsonb().$type<Json>().notNull(),
    privateKeySealed: text().notNull(),
    state: text().$type<'next' | 'current' | 'retired'>().notNull(),
    createdAt: createdAt(),
    /** When the next key becomes the current one: not before every verifier can know it. */
    activatesAt: timestamptz(),
    activatedAt: timestamptz(),
    retiredAt: timestamptz(),
  },
  (t) => [
    uniqueIndex('signing_keys_current_key').on(t.state).where(sql`state in ('next', 'current')`),
    check('signing_keys_state_check', isIn(t.state, ['next', 'current', 'retired'])),
    check('signing_keys_algorithm_check', isIn(t.algorithm, ['ES256', 'RS256', 'EdDSA'])),
  ],
)

/** Keys of machines for the policy faces. Only a hash is kept. */
export const apiKeys = pgTable(
  'api_keys',
  {
    id: uuid().primaryKey(),
    name: text().notNull(),
    level: text().$type<'org' | 'project' | 'environment'>().notNull(),
    access: text().$type<'full' | 'write' | 'read'>().notNull(),
    project: text(),
    environmentId: uuid().references(() => environments.id, { onDelete: 'cascade' }),
    keyHash: text().notNull(),
    keyHint: text().notNull(),
    createdByType: text().notNull(),
    createdById: text(),
    createdAt: createdAt(),
    lastUsedAt: timestamptz(),
    expiresAt: timestamptz(),
    revokedAt: timestamptz(),
    /** Made on demand as the environment's own, and shown again; only such a key is kept, sealed under SECRET_KEY. */
    isEnvironmentsOwn: boolean().notNull().default(false),
    keySealed: text(),
    /** Set by processes of the version before, on keys of one environment: the access is then `write`. */
    isCalledWrite: boolean().notNull().default(false),
  },
  (t) => [
    unique('api_keys_key_hash_key').on(t.keyHash),
    uniqueIndex('api_keys_environments_own_key')
      .on(t.environmentId)
      .where(sql`is_environments_own and revoked_at is null`),
    index('api_keys_environment_id_idx').on(t.environmentId, t.id),
    check('api_keys_level_check', isIn(t.level, ['org', 'project', 'environment'])),
    check('api_keys_access_check', isIn(t.access, ['full', 'write', 'read'])),
    check('api_keys_environment_check', sql`(${t.level} = 'environment') = (${t.environmentId} is not null)`),
    check('api_keys_environments_own_check', sql`${t.isEnvironmentsOwn} = (${t.keySealed} is not null)`),
    check(
      'api_keys_called_write_check',
      sql`not ${t.isCalledWrite} or (${t.access} = 'full' and ${t.level} = 'environment')`,
    ),
    check('api_keys_project_check', sql`(${t.level} = 'project') = (${t.project} is not null)`),
  ],
)

/** One sign-in. Access tokens name it (`sid`); ending it ends them here at once. */
export const sessions = pgTable(
  'sessions',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    accountId: uuid(),
    clientId: text().notNull(),
    userAgent: text(),
    address: text(),
    /** What was asked for at sign-in; null: all that is held. */
    scope: text(),
    /** Whom its access tokens are for; null: this service, unless a refresh names another. */
    audiences: text().array(),
    /** Thumbprint of the key that its tokens are bound to (RFC 9449). */
    dpopThumbprint: text(),
    /** How its user was authenticated, as RFC 8176 names it, and when last. */
    amr: text().array().notNull().default(sql`'{pwd}'`),
    authenticatedAt: createdAt(),
    /** SHA-256 of the refresh token in use, and of the one before it. Null: the session cannot be refreshed. */
    refreshHash: text(),
    previousRefreshHash: text(),
    refreshedAt: timestamptz(),
    /** When it ends unless it is refreshed before. */
    idleExpiresAt: timestamptz(),
    createdAt: createdAt(),
    expiresAt: timestamptz().notNull(),
    endedAt: timestamptz(),
    endReason: text(),
  },
  (t) => [
    index('sessions_user_id_idx').on(t.userId, t.id),
    index('sessions_end_idx').on(sql`least(expires_at, ended_at)`),
    index('sessions_account_id_idx').on(t.accountId).where(sql`ended_at is null`),
    foreignKey({
      name: 'sessions_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'sessions_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
  ],
)

/** Machines, and other programs, that get tokens of their own (RFC 6749 §2). */
export const clients = pgTable(
  'clients',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    name: text().notNull(),
    grantTypes: text().array().notNull(),
    /** The most that its tokens may hold. */
    scopes: text().array().notNull(),
    /** Whom its tokens may be for, the first by default; empty: this service. */
    audiences: text().array().notNull(),
    tokenEndpointAuthMethod: text()
      .$type<'client_secret_basic' | 'client_secret_post' | 'private_key_jwt' | 'none'>()
      .notNull(),
    /** The public keys of `private_key_jwt`. */
    jwks: jsonb().$type<{ keys: Json[] }>(),
    /** True: its tokens are bound to a key of its own (RFC 9449). */
    isDpopRequired: boolean().notNull().default(false),
    /** The one account that its scopes hold in; null: every account. */
    accountId: uuid(),
    isActive: boolean().notNull().default(true),
    tokenVersion: integer().notNull().default(1),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    index('clients_list_idx').on(t.environmentId, t.id),
    index('clients_account_id_idx').on(t.accountId),
    check(
      'clients_auth_method_check',
      isIn(t.tokenEndpointAuthMethod, [
        'client_secret_basic',
        'client_secret_post',
        'private_key_jwt',
        'none',
      ]),
    ),
    check(
      'clients_jwks_check',
      sql`(${t.tokenEndpointAuthMethod} = 'private_key_jwt') = (${t.jwks} is not null)`,
    ),
    foreignKey({
      name: 'clients_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
  ],
)

/** Secrets of clients, only as hashes. Two may hold at once, so that one can be replaced. */
export const clientSecrets = pgTable(
  'client_secrets',
  {
    id: uuid().primaryKey(),
    clientId: uuid()
      .notNull()
      .references(() => clients.id, { onDelete: 'cascade' }),
    secretHash: text().notNull(),
    secretHint: text().notNull(),
    createdAt: createdAt(),
    expiresAt: timestamptz(),
  },
  (t) => [index('client_secrets_client_id_idx').on(t.clientId)],
)

/** One-time tokens of others that were seen: client assertions (RFC 7523) and DPoP proofs, until they expire. */
export const seenTokens = pgTable(
  'seen_tokens',
  {
    kind: text().$type<'client_assertion' | 'dpop_proof'>().notNull(),
    keyHash: text().notNull(),
    expiresAt: timestamptz().notNull(),
  },
  (t) => [
    primaryKey({ name: 'seen_tokens_pkey', columns: [t.kind, t.keyHash] }),
    index('seen_tokens_expires_at_idx').on(t.expiresAt),
  ],
)

/** The one row that says where `revocations` stand. */
export const revocationFeed = pgTable(
  'revocation_feed',
  {
    isOnly: boolean().primaryKey().default(true),
    /** Names this history of versions: whoever comes with another one begins anew. */
    epoch: text().notNull(),
    /** The version given last. */
    version: bigint({ mode: 'number' }).notNull().default(0),
    /** The longest life of an access token that any process on this database has issued. */
    tokenLifetimeSeconds: integer().notNull().default(900),
  },
  (t) => [check('revocation_feed_is_only_check', sql`${t.isOnly}`)],
)

/**
 * Which access tokens are dead before they expire, for those who verify them elsewhere. Written by triggers; a row stays
 * as long as a token that it names could live.
 */
export const revocations = pgTable(
  'revocations',
  {
    id: bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    /** In the order of commits. Null until the transaction ends. */
    version: bigint({ mode: 'number' }),
    transactionId: xid8().notNull().default(sql`pg_current_xact_id()`),
    kind: text().$type<'session' | 'token' | 'user' | 'client' | 'key'>().notNull(),
    /** The `sid`, `jti`, `sub` or `kid` of the tokens. */
    ref: text().notNull(),
    /** Of a user or client: tokens whose `ver` is lower are dead. */
    tokenVersion: integer(),
    createdAt: createdAt(),
    expiresAt: timestamptz().notNull(),
  },
  (t) => [
    index('revocations_version_idx').on(t.version),
    index('revocations_unsealed_idx').on(t.transactionId).where(sql`version is null`),
    index('revocations_expires_at_idx').on(t.expiresAt),
    check('revocations_kind_check', isIn(t.kind, ['session', 'token', 'user', 'client', 'key'])),
  ],
)

/** Failure counters of sign-in and registration, keyed by an HMAC so that the table names nobody. */
export const loginAttempts = pgTable(
  'login_attempts',
  {
    kind: text().notNull(),
    keyHash: text().notNull(),
    failures: integer().notNull(),
    /** Failures in a row, however far apart. Counts for emails only. */
    consecutive: integer().notNull().default(0),
    blockedUntil: timestamptz(),
    /** Whether the last attempt was let through. */
    isAdmitted: boolean().notNull().default(true),
    countedSince: createdAt(),
    lastAttemptAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'login_attempts_pkey', columns: [t.kind, t.keyHash] }),
    index('login_attempts_last_attempt_at_idx').on(t.lastAttemptAt),
  ],
)

/**
 * The audit trail: ids and a salted commitment; what is personal lies in `audit_personal_data`. It outlives the
 * environment that it is about.
 */
export const auditEvents = pgTable(
  'audit_events',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    occurredAt: createdAt(),
    action: text().notNull(),
    outcome: text().$type<'success' | 'refused'>().notNull(),
    actorType: text().$type<'user' | 'client' | 'api_key' | 'system' | 'anonymous'>().notNull(),
    actorId: text(),
    targetType: text(),
    targetId: text(),
    accountId: uuid(),
    requestId: text(),
    details: jsonb().$type<Json>().notNull(),
    personalCommitment: text(),
    repeatKey: text(),
    repeatCount: integer().notNull().default(1),
  },
  (t) => [
    unique('audit_events_repeat_key_key').on(t.repeatKey),
    index('audit_events_list_idx').on(t.environmentId, t.id),
    index('audit_events_account_id_idx').on(t.environmentId, t.accountId, t.id),
    index('audit_events_actor_id_idx').on(t.environmentId, t.actorId, t.id),
    index('audit_events_target_id_idx').on(t.environmentId, t.targetId, t.id),
    index('audit_events_action_idx').on(t.environmentId, t.action, t.id),
    check('audit_events_outcome_check', isIn(t.outcome, ['success', 'refused'])),
  ],
)

/**
 * The erasable side of the audit trail. `salt` opens the commitment in `audit_events`. `emailNormalized` is outside of
 * it: the email of somebody who is no user, to be found when a user with that email is erased.
 */
export const auditPersonalData = pgTable(
  'audit_personal_data',
  {
    auditEventId: uuid()
      .primaryKey()
      .references(() => auditEvents.id, { onDelete: 'cascade' }),
    subjectId: uuid(),
    salt: text().notNull(),
    data: jsonb().$type<Json>().notNull(),
    emailNormalized: text(),
  },
  (t) => [
    index('audit_personal_data_subject_id_idx').on(t.subjectId),
    index('audit_personal_data_email_idx').on(t.emailNormalized).where(sql`subject_id is null`),
  ],
)

/** Secrets of authenticator apps. One confirmed secret per user; one that is not is replaced by the next. */
export const totpFactors = pgTable(
  'totp_factors',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    secretSealed: text().notNull(),
    /** The last time step whose code was accepted: each is accepted once. */
    lastStep: bigint({ mode: 'number' }),
    createdAt: createdAt(),
    confirmedAt: timestamptz(),
    lastUsedAt: timestamptz(),
  },
  (t) => [
    uniqueIndex('totp_factors_confirmed_key').on(t.userId).where(sql`confirmed_at is not null`),
    uniqueIndex('totp_factors_pending_key').on(t.userId).where(sql`confirmed_at is null`),
    foreignKey({
      name: 'totp_factors_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/** Codes of 128 bits for whoever has lost the second factor, as SHA-256. Each works once. */
export const recoveryCodes = pgTable(
  'recovery_codes',
  {
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    codeHash: text().notNull(),
    createdAt: createdAt(),
    usedAt: timestamptz(),
  },
  (t) => [
    primaryKey({ name: 'recovery_codes_pkey', columns: [t.userId, t.codeHash] }),
    foreignKey({
      name: 'recovery_codes_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/** Public keys of WebAuthn authenticators. */
export const passkeys = pgTable(
  'passkeys',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    /** Base64url, as the authenticator made it. */
    credentialId: text().notNull(),
    /** Base64url of the COSE key. */
    publicKey: text().notNull(),
    counter: bigint({ mode: 'number' }).notNull().default(0),
    transports: text().array().notNull().default(sql`'{}'`),
    deviceType: text().$type<'singleDevice' | 'multiDevice'>().notNull(),
    isBackedUp: boolean().notNull().default(false),
    /** Whether it has ever shown who uses it (by PIN or biometrics), so that it can stand alone. */
    isUserVerifying: boolean().notNull().default(false),
    aaguid: text(),
    name: text().notNull(),
    createdAt: createdAt(),
    lastUsedAt: timestamptz(),
  },
  (t) => [
    unique('passkeys_credential_id_key').on(t.credentialId),
    index('passkeys_user_id_idx').on(t.userId),
    check('passkeys_device_type_check', isIn(t.deviceType, ['singleDevice', 'multiDevice'])),
    foreignKey({
      name: 'passkeys_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/**
 * Something that is asked of somebody once and soon: the second step of a sign-in, or a signature of a passkey.
 * Used by deleting its row.
 */
export const challenges = pgTable(
  'challenges',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    kind: text().notNull(),
    /** Null where nobody is known yet. */
    userId: uuid(),
    sessionId: uuid(),
    /** SHA-256 of what names it. */
    tokenHash: text().notNull(),
    data: jsonb().$type<Json>().notNull().default({}),
    failures: integer().notNull().default(0),
    createdAt: createdAt(),
    expiresAt: timestamptz().notNull(),
  },
  (t) => [
    unique('challenges_token_hash_key').on(t.tokenHash),
    index('challenges_expires_at_idx').on(t.expiresAt),
    index('challenges_user_id_idx').on(t.userId),
    foreignKey({
      name: 'challenges_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/** What a link in a mail proves. Works once; kept as SHA-256. */
export const mailTokens = pgTable(
  'mail_tokens',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    kind: text()
      .$type<
        'email_verification' | 'password_reset' | 'email_change' | 'email_change_consent' | 'magic_link'
      >()
      .notNull(),
    tokenHash: text().notNull(),
    /** The address that it was sent to, sealed; for a change, the new address too. */
    dataSealed: text(),
    createdAt: createdAt(),
    expiresAt: timestamptz().notNull(),
  },
  (t) => [
    unique('mail_tokens_token_hash_key').on(t.tokenHash),
    index('mail_tokens_user_id_idx').on(t.userId, t.kind),
    index('mail_tokens_expires_at_idx').on(t.expiresAt),
    foreignKey({
      name: 'mail_tokens_user_id_fkey',
      columns: [t.environmentId, t.userId],
      foreignColumns: [users.environmentId, users.id],
    }).onDelete('cascade'),
  ],
)

/** People asked by mail to join an account with a role. */
export const accountInvitations = pgTable(
  'account_invitations',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    accountId: uuid().notNull(),
    roleId: uuid().notNull(),
    email: text().notNull(),
    emailNormalized: text().notNull(),
    tokenHash: text().notNull(),
    /** Who invited; what they may grant is looked at again when it is accepted. */
    invitedByType: text().$type<'user' | 'client' | 'api_key' | 'system'>().notNull(),
    invitedById: text(),
    status: text().$type<'pending' | 'accepted' | 'revoked'>().notNull().default('pending'),
    acceptedByUserId: uuid(),
    createdAt: createdAt(),
    updatedAt: createdAt(),
    expiresAt: timestamptz().notNull(),
  },
  (t) => [
    unique('account_invitations_token_hash_key').on(t.tokenHash),
    uniqueIndex('account_invitations_pending_key')
      .on(t.accountId, t.emailNormalized)
      .where(sql`status = 'pending'`),
    index('account_invitations_list_idx').on(t.accountId, t.id),
    index('account_invitations_role_id_idx').on(t.roleId),
    index('account_invitations_email_idx').on(t.environmentId, t.emailNormalized),
    check('account_invitations_status_check', isIn(t.status, ['pending', 'accepted', 'revoked'])),
    foreignKey({
      name: 'account_invitations_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
    foreignKey({
      name: 'account_invitations_role_id_fkey',
      columns: [t.environmentId, t.roleId],
      foreignColumns: [roles.environmentId, roles.id],
    }).onDelete('cascade'),
  ],
)

/** Events that are not in `audit_chain` yet. Written by a trigger. */
export const auditUnsealed = pgTable('audit_unsealed', {
  auditEventId: uuid().primaryKey(),
  createdAt: createdAt(),
})

/** The order of the audit trail, sealed after the fact: each hash covers its event and the hash before it. */
export const auditChain = pgTable(
  'audit_chain',
  {
    position: bigint({ mode: 'number' }).primaryKey(),
    auditEventId: uuid().notNull(),
    hash: text().notNull(),
    sealedAt: createdAt(),
  },
  (t) => [
    unique('audit_chain_audit_event_id_key').on(t.auditEventId),
    check('audit_chain_position_check', sql`${t.position} > 0`),
  ],
)

/** Where the chain was at a time, signed with a key that is not in the database. */
export const auditCheckpoints = pgTable('audit_checkpoints', {
  id: uuid().notNull(),
  position: bigint({ mode: 'number' }).primaryKey(),
  hash: text().notNull(),
  /** Positions up to this one have been removed by retention. */
  removedUpTo: bigint({ mode: 'number' }).notNull().default(0),
  createdAt: createdAt(),
  signature: text().notNull(),
})

/** Where events are sent to. */
export const webhooks = pgTable(
  'webhooks',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id, { onDelete: 'cascade' }),
    url: text().notNull(),
    description: text(),
    /** Names of events, or `*`. */
    events: text().array().notNull(),
    /** The account whose events it hears; null: of all. */
    accountId: uuid(),
    secretSealed: text().notNull(),
    /** Signs too until its end, so that receivers can change over. */
    previousSecretSealed: text(),
    previousSecretExpiresAt: timestamptz(),
    isActive: boolean().notNull().default(true),
    disabledReason: text(),
    /** How many tries have failed since one succeeded, and since when. */
    failures: integer().notNull().default(0),
    failingSince: timestamptz(),
    /** Nothing is sent to it before. */
    pausedUntil: timestamptz(),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
  },
  (t) => [
    index('webhooks_list_idx').on(t.environmentId, t.id),
    foreignKey({
      name: 'webhooks_account_id_fkey',
      columns: [t.environmentId, t.accountId],
      foreignColumns: [accounts.environmentId, accounts.id],
    }).onDelete('cascade'),
  ],
)

/** The outbox: one row per event and receiver, written in the transaction of the change. */
export const webhookDeliveries = pgTable(
  'webhook_deliveries',
  {
    id: uuid().primaryKey(),
    webhookId: uuid()
      .notNull()
      .references(() => webhooks.id, { onDelete: 'cascade' }),
    auditEventId: uuid().notNull(),
    event: text().notNull(),
    /** Whom or what it is about: deliveries of one subject keep their order. */
    subject: text().notNull(),
    /** The order among those of a subject. */
    sequence: bigint({ mode: 'number' }).notNull().generatedAlwaysAsIdentity(),
    status: text().$type<'pending' | 'delivered' | 'failed'>().notNull().default('pending'),
    attempts: integer().notNull().default(0),
    nextAttemptAt: createdAt(),
    lastStatus: integer(),
    lastError: text(),
    createdAt: createdAt(),
    deliveredAt: timestamptz(),
  },
  (t) => [
    index('webhook_deliveries_due_idx')
      .on(t.webhookId, t.nextAttemptAt, t.sequence)
      .where(sql`status = 'pending'`),
    index('webhook_deliveries_subject_idx')
      .on(t.webhookId, t.subject, t.sequence)
      .where(sql`status = 'pending'`),
    index('webhook_deliveries_list_idx').on(t.webhookId, t.sequence),
    index('webhook_deliveries_failed_idx').on(t.webhookId).where(sql`status = 'failed'`),
    index('webhook_deliveries_created_at_idx').on(t.createdAt),
    check('webhook_deliveries_status_check', isIn(t.status, ['pending', 'delivered', 'failed'])),
  ],
)

/** Facts about this database itself, such as the canary that proves SECRET_KEY fits. */
export const settings = pgTable('settings', {
  name: text().primaryKey(),
  value: text().notNull(),
})

/** What each migration asks of the code: only code older than `min_code` refuses to start. */
export const schemaCompatibility = pgTable('schema_compatibility', {
  version: integer().primaryKey(),
  minCode: integer().notNull(),
})
