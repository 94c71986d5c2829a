import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
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
type Json = Record<string, unknown>

/** A policy namespace of a project. `default` of `default` exists from the first migration on. */
export const environments = pgTable(
  'environments',
  {
    id: uuid().primaryKey(),
    project: text().notNull(),
    key: text().notNull(),
    name: text().notNull(),
    createdAt: createdAt(),
  },
  (t) => [unique('environments_project_key_key').on(t.project, t.key)],
)

/** One counter per environment, raised as the last statement of each policy or fact transaction. */
export const policyVersions = pgTable('policy_versions', {
  environmentId: uuid()
    .primaryKey()
    .references(() => environments.id, { onDelete: 'cascade' }),
  version: bigint({ mode: 'number' }).notNull().default(1),
})

export const accounts = pgTable(
  'accounts',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id),
    key: text().notNull(),
    name: text().notNull(),
    description: text(),
    isActive: boolean().notNull().default(true),
    planId: uuid(),
    currentSubscriptionEnds: timestamptz(),
    attributes: jsonb().$type<Json>(),
    searchText: text().notNull(),
    revision: integer().notNull().default(1),
    createdAt: createdAt(),
    updatedAt: createdAt(),
    deletedAt: timestamptz(),
  },
  (t) => [
    unique('accounts_environment_id_id_key').on(t.environmentId, t.id),
    uniqueIndex('accounts_key_key').on(t.environmentId, t.key).where(sql`deleted_at is null`),
    index('accounts_list_idx').on(t.environmentId, t.id).where(sql`deleted_at is null`),
    index('accounts_name_idx').on(t.environmentId, t.name, t.id).where(sql`deleted_at is null`),
    index('accounts_updated_at_idx').on(t.environmentId, t.updatedAt, t.id).where(sql`deleted_at is null`),
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
      .references(() => environments.id),
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
    passwordHash: text().notNull(),
    mustChange: boolean().notNull().default(false),
    emailVerifiedAt: timestamptz(),
    credentialsChangedAt: createdAt(),
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
    createdAt: createdAt(),
  },
  (t) => [
    unique('actions_environment_id_id_key').on(t.environmentId, t.id),
    unique('actions_key_key').on(t.resourceId, t.key),
    check('actions_key_check', sql`${t.key} ~ '^[A-Za-z0-9_-]+$'`),
    foreignKey({
      name: 'actions_resource_id_fkey',
      columns: [t.environmentId, t.resourceId],
      foreignColumns: [resources.environmentId, resources.id],
    }).onDelete('cascade'),
  ],
)

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
    isBuiltin: boolean().notNull().default(false),
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

/** A role held in an account, or in every account (`account_id` null). At most one per user is the primary one. */
export const roleAssignments = pgTable(
  'role_assignments',
  {
    id: uuid().primaryKey(),
    environmentId: uuid().notNull(),
    userId: uuid().notNull(),
    roleId: uuid().notNull(),
    accountId: uuid(),
    isPrimary: boolean().notNull().default(false),
    createdAt: createdAt(),
  },
  (t) => [
    unique('role_assignments_key').on(t.userId, t.roleId, t.accountId).nullsNotDistinct(),
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
    access: text().$type<'full' | 'read'>().notNull(),
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
  },
  (t) => [
    unique('api_keys_key_hash_key').on(t.keyHash),
    index('api_keys_environment_id_idx').on(t.environmentId, t.id),
    check('api_keys_level_check', isIn(t.level, ['org', 'project', 'environment'])),
    check('api_keys_access_check', isIn(t.access, ['full', 'read'])),
    check('api_keys_environment_check', sql`(${t.level} = 'environment') = (${t.environmentId} is not null)`),
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
    createdAt: createdAt(),
    expiresAt: timestamptz().notNull(),
    endedAt: timestamptz(),
    endReason: text(),
  },
  (t) => [
    index('sessions_user_id_idx').on(t.userId, t.id),
    index('sessions_expires_at_idx').on(t.expiresAt),
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

/** Failure counters of sign-in and registration, keyed by an HMAC so that the table names nobody. */
export const loginAttempts = pgTable(
  'login_attempts',
  {
    kind: text().notNull(),
    keyHash: text().notNull(),
    failures: integer().notNull(),
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

/** The audit trail: ids and a salted commitment; what is personal lies in `audit_personal_data`. */
export const auditEvents = pgTable(
  'audit_events',
  {
    id: uuid().primaryKey(),
    environmentId: uuid()
      .notNull()
      .references(() => environments.id),
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

/** The erasable side of the audit trail. `salt` opens the commitment in `audit_events`. */
export const auditPersonalData = pgTable(
  'audit_personal_data',
  {
    auditEventId: uuid()
      .primaryKey()
      .references(() => auditEvents.id, { onDelete: 'cascade' }),
    subjectId: uuid(),
    salt: text().notNull(),
    data: jsonb().$type<Json>().notNull(),
  },
  (t) => [index('audit_personal_data_subject_id_idx').on(t.subjectId)],
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
