import { and, eq, inArray, isNull, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../db/client.ts'
import {
  accountMembers,
  accounts,
  relations,
  relationshipTuples,
  resourceInstances,
  resources,
  roleAssignments,
  roles,
  users,
} from '../db/schema.ts'

const types = alias(resources, 'types')
const subjects = alias(resourceInstances, 'subjects')
const objects = alias(resourceInstances, 'objects')
const subjectTypes = alias(resources, 'subject_types')
const objectTypes = alias(resources, 'object_types')

const instanceName = sql<string>`${types.key} || ':' || ${resourceInstances.key}`

/** What of a page of facts is here, by keys alone: one statement for each page, whatever is on it. */
export function createPermitImportRepository({ db }: Database, environmentId: string) {
  return {
    async listAccounts(keys: readonly string[]) {
      return await db
        .select({
          key: accounts.key,
          name: accounts.name,
          description: accounts.description,
          attributes: accounts.attributes,
        })
        .from(accounts)
        .where(
          and(
            eq(accounts.environmentId, environmentId),
            isNull(accounts.deletedAt),
            inArray(accounts.key, [...keys]),
          ),
        )
    },

    async listUsers(keys: readonly string[]) {
      return await db
        .select({
          key: users.key,
          email: users.email,
          firstName: users.firstName,
          lastName: users.lastName,
          attributes: users.attributes,
        })
        .from(users)
        .where(
          and(eq(users.environmentId, environmentId), isNull(users.deletedAt), inArray(users.key, [...keys])),
        )
    },

    /** The keys of the accounts that these users belong to. */
    async listMemberships(keys: readonly string[]) {
      return await db
        .select({ user: users.key, tenant: accounts.key })
        .from(accountMembers)
        .innerJoin(users, and(eq(users.id, accountMembers.userId), isNull(users.deletedAt)))
        .innerJoin(accounts, and(eq(accounts.id, accountMembers.accountId), isNull(accounts.deletedAt)))
        .where(and(eq(users.environmentId, environmentId), inArray(users.key, [...keys])))
    },

    /** The roles of the application that these users hold; `instance` is `type:key`. */
    async listGrants(keys: readonly string[]) {
      return await db
        .select({ user: users.key, role: roles.key, tenant: accounts.key, instance: instanceName })
        .from(roleAssignments)
        .innerJoin(users, and(eq(users.id, roleAssignments.userId), isNull(users.deletedAt)))
        .innerJoin(roles, and(eq(roles.id, roleAssignments.roleId), eq(roles.isBuiltin, false)))
        .innerJoin(accounts, and(eq(accounts.id, roleAssignments.accountId), isNull(accounts.deletedAt)))
        .leftJoin(resourceInstances, eq(resourceInstances.id, roleAssignments.resourceInstanceId))
        .leftJoin(types, eq(types.id, resourceInstances.resourceId))
        .where(
          and(
            eq(users.environmentId, environmentId),
            inArray(users.key, [...keys]),
            sql`coalesce(${roleAssignments.expiresAt} > now(), true)`,
          ),
        )
    },

    /** Instances with one of these keys, of whatever type. */
    async listInstances(keys: readonly string[]) {
      return await db
        .select({
          name: instanceName,
          account: accounts.key,
          attributes: resourceInstances.attributes,
        })
        .from(resourceInstances)
        .innerJoin(types, eq(types.id, resourceInstances.resourceId))
        .innerJoin(accounts, eq(accounts.id, resourceInstances.accountId))
        .where(
          and(eq(resourceInstances.environmentId, environmentId), inArray(resourceInstances.key, [...keys])),
        )
    },

    /** Relationships whose ends have these keys, of whatever type. */
    async listTuples(ends: { subjects: readonly string[]; objects: readonly string[] }) {
      return await db
        .select({
          subject: sql<string>`${subjectTypes.key} || ':' || ${subjects.key}`,
          relation: relations.key,
          object: sql<string>`${objectTypes.key} || ':' || ${objects.key}`,
        })
        .from(relationshipTuples)
        .innerJoin(relations, eq(relations.id, relationshipTuples.relationId))
        .innerJoin(subjects, eq(subjects.id, relationshipTuples.subjectId))
        .innerJoin(subjectTypes, eq(subjectTypes.id, subjects.resourceId))
        .innerJoin(objects, eq(objects.id, relationshipTuples.objectId))
        .innerJoin(objectTypes, eq(objectTypes.id, objects.resourceId))
        .where(
          and(
            eq(objects.environmentId, environmentId),
            inArray(objects.key, [...ends.objects]),
            inArray(subjects.key, [...ends.subjects]),
          ),
        )
    },
  }
}
