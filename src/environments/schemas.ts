import Type, { type Static } from 'typebox'
import { Key, nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import type { EnvironmentRow, ProjectRow } from './repository.ts'
import { ENVIRONMENT_NAME } from './service.ts'

const Name = Type.String({ minLength: 1, maxLength: 255, examples: ['Production'] })
const Description = Type.String({ maxLength: 1000, examples: ['What customers see'] })
const ProjectKey = Type.String({ ...Key, description: 'Key of the project', examples: ['default'] })

export const ENVIRONMENT_NAMES = '`project/key`, the key of an environment of project `default`, or an id'

/** How a body or a header names an environment. */
export const EnvironmentName = Type.String({
  pattern: ENVIRONMENT_NAME,
  description: ENVIRONMENT_NAMES,
  examples: ['default/production'],
})

export const ProjectSchema = Type.Object(
  {
    id: Uuid,
    key: ProjectKey,
    name: Name,
    description: nullable(Description),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'Project', title: 'Project: a group of environments' },
)

export const EnvironmentSchema = Type.Object(
  {
    id: Uuid,
    project: ProjectKey,
    key: Type.String({ examples: ['production'] }),
    name: Name,
    description: nullable(Description),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'Environment', title: 'Environment: a policy with its users, accounts and facts' },
)

export const CreateProjectBody = Type.Object(
  { key: Key, name: Name, description: Type.Optional(nullable(Description)) },
  { additionalProperties: false, examples: [{ key: 'shop', name: 'Shop' }] },
)

export const CreateEnvironmentBody = Type.Object(
  {
    key: Key,
    name: Name,
    project: Type.Optional(Type.String({ ...ProjectKey, default: 'default' })),
    description: Type.Optional(nullable(Description)),
  },
  { additionalProperties: false, examples: [{ key: 'production', name: 'Production' }] },
)

export const UpdateEnvironmentBody = Type.Object(
  { name: Type.Optional(Name), description: Type.Optional(nullable(Description)) },
  { additionalProperties: false, minProperties: 1, examples: [{ name: 'Live' }] },
)

export const ListEnvironmentsQuery = Type.Object(
  {
    ...pageQuery(['created_at'], 'created_at'),
    project: Type.Optional(Type.String({ maxLength: 128, description: 'Key of the project' })),
    key: Type.Optional(Type.String({ maxLength: 128 })),
  },
  { additionalProperties: false },
)

export const ListProjectsQuery = Type.Object(
  { ...pageQuery(['created_at'], 'created_at'), key: Type.Optional(Type.String({ maxLength: 128 })) },
  { additionalProperties: false },
)

export const EnvironmentIdParams = Type.Object({ environment_id: Uuid })
export const ProjectIdParams = Type.Object({ project_id: Uuid })

/** A project as it is answered. */
export const presentProject = (row: ProjectRow): Static<typeof ProjectSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  description: row.description,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** An environment as it is answered. */
export const presentEnvironment = (row: EnvironmentRow): Static<typeof EnvironmentSchema> => ({
  ...presentProject(row),
  project: row.project,
})
