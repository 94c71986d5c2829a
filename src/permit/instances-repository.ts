import { eq, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../db/client.ts'
import { accounts, relations, relationshipTuples, resourceInstances, resources } from '../db/schema.ts'

type Json = Record<string, unknown>

/** A relationship in names. */
export type Relationship = { subject: string; relation: string; object: string }

/** What a relationship's parts are, beside their names. */
export type TupleDetails = {
  subject: InstanceDetails
  relation: { id: string; key: string; name: string; description: string | null }
  object: InstanceDetails
  tenant: { id: string; key: string; name: string; attributes: Json | null }
}
export type InstanceDetails = { id: string; key: string; resource: string; attributes: Json | null }

const subjects = alias(resourceInstances, 'subjects')
const objects = alias(resourceInstances, 'objects')
const subjectTypes = alias(resources, 'subject_types')
const objectTypes = alias(resources, 'object_types')

const among = (ids: readonly string[]) => sql`any(${sql.param([...ids])}::uuid[])`

export type PermitInstancesRepository = ReturnType<typeof createPermitInstancesRepository>

/** What Permit's detailed lists say of instances and relationships that were found already. */
export function createPermitInstancesRepository({ db }: Database) {
  return {
    /** The relationships of which these instances are the objects, by their ids; the oldest first. */
    async listRelationships(objectIds: readonly string[]): Promise<Map<string, Relationship[]>> {
      if (objectIds.length === 0) return new Map()
      const rows = await db
        .select({
          objectId: relationshipTuples.objectId,
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
        .where(sql`${relationshipTuples.objectId} = ${among(objectIds)}`)
        .orderBy(relationshipTuples.id)
      const found = new Map<string, Relationship[]>()
      for (const { objectId, ...relationship } of rows) {
        const known = found.get(objectId)
        if (known) known.push(relationship)
        else found.set(objectId, [relationship])
      }
      return found
    },

    /** The parts of these relationships, by their ids. */
    async listDetails(tupleIds: readonly string[]): Promise<Map<string, TupleDetails>> {
      if (tupleIds.length === 0) return new Map()
      const rows = await db
        .select({
          id: relationshipTuples.id,
          subject: {
            id: subjects.id,
            key: subjects.key,
            resource: subjectTypes.key,
            attributes: subjects.attributes,
          },
          relation: {
            id: relations.id,
            key: relations.key,
            name: relations.name,
            description: relations.description,
          },
          object: {
            id: objects.id,
            key: objects.key,
            resource: objectTypes.key,
            attributes: objects.attributes,
          },
          tenant: {
            id: accounts.id,
            key: accounts.key,
            name: accounts.name,
            attributes: accounts.attributes,
          },
        })
        .from(relationshipTuples)
        .innerJoin(relations, eq(relations.id, relationshipTuples.relationId))
        .innerJoin(subjects, eq(subjects.id, relationshipTuples.subjectId))
        .innerJoin(subjectTypes, eq(subjectTypes.id, subjects.resourceId))
        .innerJoin(objects, eq(objects.id, relationshipTuples.objectId))
        .innerJoin(objectTypes, eq(objectTypes.id, objects.resourceId))
        .innerJoin(accounts, eq(accounts.id, relationshipTuples.accountId))
        .where(sql`${relationshipTuples.id} = ${among(tupleIds)}`)
      return new Map(rows.map(({ id, ...details }) => [id, details]))
    },
  }
}
