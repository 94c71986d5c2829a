import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { anywhere } from '../permissions.ts'
import type { Caller, Principal } from '../principal.ts'
import type { EnvironmentRow } from './repository.ts'

/** What somebody sees of projects and environments: one of them, or, with neither, all. */
type Reach = { project?: string; environmentId?: string }

/**
 * An API key sees what it opens, and a client of another environment than the default one that environment. A person
 * who may not read environments sees only the one that people sign in to.
 */
export function reachOf(principal: Principal): Reach {
  if (principal.type === 'api_key') {
    const { environmentId, project } = principal
    if (environmentId !== null) return { environmentId }
    return project === null ? {} : { project }
  }
  const environmentId = principal.type === 'client' ? principal.environmentId : DEFAULT_ENVIRONMENT
  const seesAll =
    environmentId === DEFAULT_ENVIRONMENT && principal.scopes.has(anywhere('postern.environments:read'))
  return seesAll ? {} : { environmentId }
}

/** @throws AppError environment_not_allowed for who does not reach all of the project */
export function assertReachesProject(principal: Principal, project: string): void {
  const reach = reachOf(principal)
  if (reach.environmentId !== undefined || (reach.project ?? project) !== project)
    throw new AppError('environment_not_allowed')
}

/** The environment, if the caller sees it. @throws AppError environment_not_found */
export function visible({ principal }: Caller, environment: EnvironmentRow | undefined): EnvironmentRow {
  const { project, environmentId } = reachOf(principal)
  if (
    !environment ||
    (environmentId ?? environment.id) !== environment.id ||
    (project ?? environment.project) !== environment.project
  )
    throw new AppError('environment_not_found')
  return environment
}
