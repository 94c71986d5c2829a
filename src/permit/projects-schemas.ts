import Type, { type Static } from 'typebox'
import type { EnvironmentRow, ProjectRow } from '../environments/repository.ts'
import { type ConflictStrategy, type CopyTarget, DEFAULT_KEY } from '../environments/service.ts'
import { AppError } from '../errors.ts'
import { Key } from '../http/schemas.ts'
import { Description, Name, ORGANIZATION_ID, optional, page } from './schemas.ts'
import type { Statistics } from './statistics-repository.ts'

const ShownName = Type.String({ minLength: 1, maxLength: 255 })

export const ProjectParams = Type.Object({ proj_id: Name })
export const EnvironmentParams = Type.Object({ proj_id: Name, env_id: Name })
export const PlacesQuery = Type.Object({ ...page, include_total_count: Type.Boolean({ default: false }) })

/** Of a project and of an environment alike. */
export const CreatePlaceBody = Type.Object({
  key: Key,
  name: ShownName,
  description: optional(Description),
})
export const UpdatePlaceBody = Type.Object({
  name: optional(ShownName),
  description: optional(Description),
})

const Patterns = optional(Type.Array(Type.String({ minLength: 1, maxLength: 128 }), { maxItems: 1000 }))
const Filter = optional(Type.Object({ include: Patterns, exclude: Patterns }))
export const CopyBody = Type.Object({
  target_env: Type.Object({ existing: optional(Name), new: optional(CreatePlaceBody) }),
  conflict_strategy: Type.Optional(
    Type.Unsafe<ConflictStrategy | null>({ enum: ['fail', 'overwrite', null] }),
  ),
  scope: optional(
    Type.Object({ resources: Filter, roles: Filter, user_sets: Filter, resource_sets: Filter }),
  ),
})

type NewPlace = Static<typeof CreatePlaceBody>
type CopyFields = Static<typeof CopyBody>

/** The project or environment that the body of a request asks for. */
export const newPlace = ({ key, name, description }: NewPlace) => ({
  key,
  name,
  ...(typeof description === 'string' && { description }),
})

/** What a body changes. Null clears a description, and is else as good as absent. */
export const placeChanges = ({ name, description }: Static<typeof UpdatePlaceBody>) => ({
  ...(typeof name === 'string' && { name }),
  ...(description !== undefined && { description }),
})

/** Where a copy goes. @throws AppError validation_failed unless the body names one environment */
export function targetOf({ target_env: { existing, new: made } }: CopyFields): CopyTarget {
  if (typeof existing === 'string' && !made) return { existing }
  if (made && typeof existing !== 'string') return { new: newPlace(made) }
  throw new AppError('validation_failed', {
    errors: [{ pointer: '/body/target_env', detail: 'must name either `existing` or `new`' }],
  })
}

/** What is copied, and how: what the body says nothing of is copied whole. */
export function copyOptionsOf({ scope, conflict_strategy: strategy }: CopyFields) {
  const filterOf = (part: keyof NonNullable<typeof scope>) => {
    const { include, exclude } = scope?.[part] ?? {}
    return { include: include ?? [], exclude: exclude ?? [] }
  }
  return {
    onConflict: strategy ?? ('fail' as const),
    scope: {
      resources: filterOf('resources'),
      roles: filterOf('roles'),
      user_sets: filterOf('user_sets'),
      resource_sets: filterOf('resource_sets'),
    },
  }
}

const described = (row: ProjectRow) => ({
  key: row.key,
  id: row.id,
  organization_id: ORGANIZATION_ID,
  name: row.name,
  description: row.description,
  settings: {},
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** What this service has no notion of is there, and says nothing. */
export const presentProject = (row: ProjectRow) => ({
  urn_namespace: null,
  active_policy_repo_id: null,
  initial: row.key === DEFAULT_KEY,
  ...described(row),
})

/** An environment as Permit’s API answers it. */
export const presentEnvironment = (row: EnvironmentRow) => ({
  project_id: row.projectId,
  custom_branch_name: null,
  jwks: null,
  ...described(row),
})

/** An environment with the counts of what is in it, as Permit’s API answers it. */
export const presentStatistics = (row: EnvironmentRow, statistics: Statistics) => ({
  pdp_configs: [],
  stats: { ...statistics, members: [] },
  ...presentEnvironment(row),
})
