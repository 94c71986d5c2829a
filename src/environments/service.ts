import { DEFAULT_ACCOUNT_KEY } from '../accounts/service.ts'
import type { ApiKeysRepository } from '../api-keys/repository.ts'
import type { AuditRepository } from '../audit/repository.ts'
import { type Database, DEFAULT_ENVIRONMENT, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { remembered } from '../db/remembered.ts'
import { AppError, fail } from '../errors.ts'
import { isUuid, newId } from '../ids.ts'
import type { ModelOf } from '../model.ts'
import { anywhere, scopesEverywhere } from '../permissions.ts'
import type { ApiKeyPrincipal, Caller, Principal } from '../principal.ts'
import { type CopyScope, recordsWithin } from './copies.ts'
import { assertReachesProject, reachOf, visible } from './reach.ts'
import type {
  EnvironmentChanges,
  EnvironmentFilters,
  EnvironmentRow,
  EnvironmentsRepository,
  NewEnvironment,
  NewProject,
  ProjectChanges,
  ProjectRow,
} from './repository.ts'

/** The key of the first project, and of the environment that each project is expected to have. */
export const DEFAULT_KEY = 'default'

/** How a request names an environment: `project/key`, a key of project `default`, or an id. */
export const ENVIRONMENT_NAME = '^[A-Za-z0-9_-]{1,128}(/[A-Za-z0-9_-]{1,128})?$'
const NAME = new RegExp(ENVIRONMENT_NAME)
const KEY = /^[A-Za-z0-9_-]{1,128}$/

/** What a copy of an environment does with definitions that its target has already. */
export type ConflictStrategy = 'fail' | 'overwrite'

/** Into which environment a policy is copied: one that is there, by key or id, or a new one. */
export type CopyTarget = { existing: string } | { new: Omit<NewEnvironment, 'project'> }

/** The environment that a request is about, and the caller as far as they reach in it. */
export type Entry = { environmentId: string; principal: Principal }

export type EnvironmentsService = ReturnType<typeof createEnvironmentsService>

type Dependencies = {
  database: Database
  environments: EnvironmentsRepository
  apiKeys: ApiKeysRepository
  modelOf: ModelOf
  /** The trail of the default environment: what happens to environments outlives them. */
  audit: AuditRepository
  /** To be called when API keys have gone along with what they opened. */
  onKeysGone: () => void
}

const KEPT_NAMES = 1000
/** So long another process may take an environment for there that is gone; it finds nothing in it. */
const KEPT_MS = 5000

/** Projects and their environments. */
export function createEnvironmentsService(dependencies: Dependencies) {
  const { database, environments, apiKeys, modelOf, audit, onKeysGone } = dependencies
  const { db } = database
  const named = remembered<EnvironmentRow>({
    read: environments.findEnvironmentNamed,
    most: KEPT_NAMES,
    forMs: KEPT_MS,
  })

  return {
    /** The environments that the caller may see. */
    async listEnvironments(
      caller: Caller,
      filters: EnvironmentFilters,
      request: PageRequest,
    ): Promise<Page<EnvironmentRow>> {
      const { project, environmentId } = reachOf(caller.principal)
      if (project !== undefined && filters.project !== undefined && filters.project !== project)
        return { items: [], total: 0 }
      return await environments.listEnvironments(
        {
          ...filters,
          ...(project !== undefined && { project }),
          ...(environmentId !== undefined && { id: environmentId }),
        },
        request,
      )
    },

    /** @throws AppError environment_not_found */
    async getEnvironment(caller: Caller, id: string): Promise<EnvironmentRow> {
      return visible(caller, await environments.findEnvironment(id))
    },

    /** The environment of this name (`ENVIRONMENT_NAME`). @throws AppError environment_not_found */
    async getEnvironmentNamed(caller: Caller, name: string): Promise<EnvironmentRow> {
      return visible(caller, NAME.test(name) ? await environments.findEnvironmentNamed(name) : undefined)
    },

    /**
     * Makes an environment with one account, `default`, and nothing else.
     * @throws AppError project_not_found, environment_not_allowed, environment_key_taken
     */
    async createEnvironment(caller: Caller, input: NewEnvironment): Promise<EnvironmentRow> {
      assertReachesProject(caller.principal, input.project)
      return await transact(db, async (tx) => {
        await this.holdProject(input.project, tx)
        return await insertEnvironment(caller, input, tx)
      })
    },

    /**
     * Lays the policy of an environment, or the part of it within `scope`, over that of another one of the project.
     * Nothing in the target is deleted, and facts are not copied. All of it happens, or nothing.
     * @throws AppError environment_not_found, environment_key_taken, definition_exists (with `fail`, and for what
     *   cannot be overwritten), validation_failed when something refers to what is neither copied nor there,
     *   limit_reached
     */
    async copyEnvironment(
      caller: Caller,
      source: EnvironmentRow,
      target: CopyTarget,
      { scope = {}, onConflict = 'fail' }: { scope?: CopyScope; onConflict?: ConflictStrategy },
    ): Promise<EnvironmentRow> {
      const existing =
        'existing' in target
          ? await this.getEnvironmentNamed(caller, `${source.projectId}/${target.existing}`)
          : undefined
      if (existing?.id === source.id) throw invalidTarget('must be another environment')
      const { project } = source
      assertReachesProject(caller.principal, project)
      const records = recordsWithin(await modelOf(source.id).policyFile.read(), scope)
      return await transact(db, async (tx) => {
        await this.holdProject(project, tx)
        const made =
          'new' in target ? await insertEnvironment(caller, { ...target.new, project }, tx) : existing
        const { id } = made ?? fail('environment_not_found')
        await modelOf(id).policyFile.overlay(caller, records, { onConflict, from: source.id }, tx)
        return (await environments.findEnvironment(id, tx)) ?? fail('environment_not_found')
      })
    },

    /** @throws AppError environment_not_found */
    async updateEnvironment(
      caller: Caller,
      id: string,
      changes: EnvironmentChanges,
    ): Promise<EnvironmentRow> {
      return await transact(db, async (tx) => {
        visible(caller, await environments.lockEnvironment(id, tx))
        await environments.updateEnvironment(id, changes, tx)
        await audit.append(
          {
            action: 'environment.updated',
            caller,
            target: { type: 'environment', id },
            details: { fields: Object.keys(changes) },
          },
          tx,
        )
        return (await environments.findEnvironment(id, tx)) ?? fail('environment_not_found')
      })
    },

    /**
     * Removes an environment with everything in it and the API keys that open it; its audit trail stays.
     * @throws AppError environment_not_found, environment_is_default
     */
    async deleteEnvironment(caller: Caller, id: string): Promise<void> {
      await transact(db, async (tx) => {
        await removeEnvironment(caller, visible(caller, await environments.lockEnvironment(id, tx)), tx)
      })
      named.forget((environment) => environment.id === id)
      onKeysGone()
    },

    /** The projects that the caller may see. */
    async listProjects(
      caller: Caller,
      filters: { key?: string },
      request: PageRequest,
    ): Promise<Page<ProjectRow>> {
      const own = await ownProject(caller.principal)
      if (own !== undefined && filters.key !== undefined && filters.key !== own)
        return { items: [], total: 0 }
      return await environments.listProjects({ ...filters, ...(own !== undefined && { key: own }) }, request)
    },

    /** @throws AppError project_not_found */
    async getProject(caller: Caller, id: string): Promise<ProjectRow> {
      return await visibleProject(caller, await environments.findProject(id))
    },

    /** The project with this key or id. @throws AppError project_not_found */
    async getProjectNamed(caller: Caller, name: string): Promise<ProjectRow> {
      return await visibleProject(
        caller,
        KEY.test(name) ? await environments.findProjectNamed(name) : undefined,
      )
    },

    /**
     * Makes a project with these environments.
     * @throws AppError project_key_taken, environment_not_allowed
     */
    async createProject(
      caller: Caller,
      input: NewProject,
      within: readonly Omit<NewEnvironment, 'project'>[] = [],
    ): Promise<ProjectRow> {
      assertReachesProject(caller.principal, input.key)
      return await transact(db, async (tx) => {
        const id = newId()
        await environments.insertProject({ ...input, id }, tx)
        await audit.append(
          {
            action: 'project.created',
            caller,
            target: { type: 'project', id },
            details: { key: input.key },
          },
          tx,
        )
        for (const environment of within)
          await insertEnvironment(caller, { ...environment, project: input.key }, tx)
        return (await environments.findProject(id, tx)) ?? fail('project_not_found')
      })
    },

    /** @throws AppError project_not_found, environment_not_allowed */
    async updateProject(caller: Caller, id: string, changes: ProjectChanges): Promise<ProjectRow> {
      return await transact(db, async (tx) => {
        const { key } = await visibleProject(caller, await environments.lockProject(id, tx))
        assertReachesProject(caller.principal, key)
        await environments.updateProject(id, changes, tx)
        await audit.append(
          {
            action: 'project.updated',
            caller,
            target: { type: 'project', id },
            details: { fields: Object.keys(changes) },
          },
          tx,
        )
        return (await environments.findProject(id, tx)) ?? fail('project_not_found')
      })
    },

    /**
     * Removes a project and its API keys: a later project of the same key is another one. Its environments go along
     * only if that is asked for.
     * @throws AppError project_not_found, environment_not_allowed, project_has_environments, environment_is_default
     */
    async deleteProject(
      caller: Caller,
      id: string,
      { withEnvironments = false }: { withEnvironments?: boolean } = {},
    ): Promise<void> {
      const { key } = await this.getProject(caller, id)
      assertReachesProject(caller.principal, key)
      await transact(db, async (tx) => {
        if (withEnvironments) {
          await environments.lockProject(id, tx)
          for (const one of await environments.listEnvironmentsOf(key, tx)) {
            const locked = await environments.lockEnvironment(one.id, tx)
            if (locked) await removeEnvironment(caller, locked, tx)
          }
        }
        if (!(await environments.deleteProject(id, tx))) throw new AppError('project_not_found')
        await apiKeys.deleteKeysOfProject(key, tx)
        await audit.append(
          { action: 'project.deleted', caller, target: { type: 'project', id }, details: { key } },
          tx,
        )
      })
      named.forget((environment) => environment.projectId === id)
      onKeysGone()
    },

    /** Keeps the project from being deleted until the transaction ends. @throws AppError project_not_found */
    async holdProject(key: string, tx: Tx): Promise<void> {
      if (!(await environments.lockProjectByKey(key, tx))) throw new AppError('project_not_found')
    },

    /** The ids of an environment and its project; up to some seconds old. @throws AppError environment_not_found */
    async getPlace(environmentId: string): Promise<{ projectId: string; environmentId: string }> {
      const { projectId } = (await find(environmentId)) ?? fail('environment_not_found')
      return { projectId, environmentId }
    },

    /** The id of the environment of this name (`ENVIRONMENT_NAME`). @throws AppError environment_not_found */
    async resolve(name: string): Promise<string> {
      return (await find(name))?.id ?? fail('environment_not_found')
    },

    /**
     * Where a request goes that names this environment, or none. Only what a person holds in every account counts
     * outside the default environment, because accounts of one environment mean nothing in another.
     * @throws AppError environment_not_found, environment_not_allowed for a key that does not open it,
     * insufficient_scope for a person who may not enter any but the default one
     */
    async enter(principal: Principal, name: string | undefined): Promise<Entry> {
      if (principal.type === 'api_key') {
        return { environmentId: await environmentOfKey(principal, name), principal }
      }
      if (principal.type === 'client' && principal.environmentId !== DEFAULT_ENVIRONMENT) {
        const isOwn = name === undefined || (await find(name))?.id === principal.environmentId
        return isOwn ? { environmentId: principal.environmentId, principal } : fail('environment_not_allowed')
      }
      if (name === undefined || isDefault(name) || (await find(name))?.id === DEFAULT_ENVIRONMENT)
        return { environmentId: DEFAULT_ENVIRONMENT, principal }
      const needed = anywhere('postern.environments:read')
      if (!principal.scopes.has(needed)) throw new AppError('insufficient_scope', { requiredScope: needed })
      const environmentId = await this.resolve(name)
      return {
        environmentId,
        principal: { ...principal, accountId: null, scopes: scopesEverywhere(principal.scopes) },
      }
    },
  }

  async function insertEnvironment(caller: Caller, input: NewEnvironment, tx: Tx): Promise<EnvironmentRow> {
    const id = newId()
    await environments.insertEnvironment({ ...input, id }, tx)
    await modelOf(id).accounts.insertAccount(caller, { key: DEFAULT_ACCOUNT_KEY, name: 'Default' }, tx)
    await audit.append(
      {
        action: 'environment.created',
        caller,
        target: { type: 'environment', id },
        details: { project: input.project, key: input.key },
      },
      tx,
    )
    return (await environments.findEnvironment(id, tx)) ?? fail('environment_not_found')
  }

  /** Its row must be locked. */
  async function removeEnvironment(
    caller: Caller,
    { id, project, key }: EnvironmentRow,
    tx: Tx,
  ): Promise<void> {
    if (id === DEFAULT_ENVIRONMENT) throw new AppError('environment_is_default')
    await environments.deleteEnvironment(id, tx)
    await audit.append(
      {
        action: 'environment.deleted',
        caller,
        target: { type: 'environment', id },
        details: { project, key },
      },
      tx,
    )
  }

  /** The key of the one project that somebody sees; `undefined`: every project. */
  async function ownProject(principal: Principal): Promise<string | undefined> {
    const { project, environmentId } = reachOf(principal)
    if (environmentId === undefined) return project
    return (await environments.findEnvironment(environmentId))?.project ?? fail('environment_not_found')
  }

  async function visibleProject({ principal }: Caller, project: ProjectRow | undefined): Promise<ProjectRow> {
    const own = await ownProject(principal)
    if (!project || (own !== undefined && own !== project.key)) throw new AppError('project_not_found')
    return project
  }

  async function find(name: string): Promise<EnvironmentRow | undefined> {
    if (!NAME.test(name)) return undefined
    return await named.get(isUuid(name) ? name.toLowerCase() : name)
  }

  async function environmentOfKey(key: ApiKeyPrincipal, name: string | undefined): Promise<string> {
    const { environmentId, project } = key
    if (environmentId !== null) {
      if (name !== undefined && (await find(name))?.id !== environmentId)
        throw new AppError('environment_not_allowed')
      return environmentId
    }
    const wanted = name ?? `${project ?? DEFAULT_KEY}/${DEFAULT_KEY}`
    const found = await find(wanted)
    if (found && (project === null || project === found.project)) return found.id
    // Whether there is such an environment is told only of those that the key opens.
    const isOwn = project === null || wanted.startsWith(`${project}/`)
    throw new AppError(isOwn ? 'environment_not_found' : 'environment_not_allowed')
  }
}

const isDefault = (name: string): boolean =>
  name === DEFAULT_KEY ||
  name === `${DEFAULT_KEY}/${DEFAULT_KEY}` ||
  name.toLowerCase() === DEFAULT_ENVIRONMENT

const invalidTarget = (detail: string): AppError =>
  new AppError('validation_failed', { errors: [{ pointer: '/body/target_env', detail }] })
