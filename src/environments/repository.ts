import { and, eq, or, sql } from 'drizzle-orm'
import type { Database, Executor, Tx } from '../db/client.ts'
import { isForeignKeyViolation, isUniqueViolation } from '../db/errors.ts'
import { allOf, type Page, type PageRequest, pageClauses, type SortKey } from '../db/paging.ts'
import { environments, policyVersions, projects } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { isUuid } from '../ids.ts'

export type ProjectRow = {
  id: string
  key: string
  name: string
  description: string | null
  createdAt: Date
  updatedAt: Date
}

/** `project` is the key of one. */
export type EnvironmentRow = ProjectRow & { project: string }

export type NewProject = { key: string; name: string; description?: string | null }
export type NewEnvironment = NewProject & { project: string }
export type EnvironmentChanges = { name?: string; description?: string | null }
export type EnvironmentFilters = { project?: string; key?: string }

const projectColumns = {
  id: projects.id,
  key: projects.key,
  name: projects.name,
  description: projects.description,
  createdAt: projects.createdAt,
  updatedAt: projects.updatedAt,
}

const environmentColumns = {
  id: environments.id,
  project: environments.project,
  key: environments.key,
  name: environments.name,
  description: environments.description,
  createdAt: environments.createdAt,
  updatedAt: environments.updatedAt,
}

const environmentSorts: Record<string, SortKey<EnvironmentRow>> = {
  created_at: { by: environments.id, cast: 'uuid', value: (row) => row.id },
}
const projectSorts: Record<string, SortKey<ProjectRow>> = {
  created_at: { by: projects.id, cast: 'uuid', value: (row) => row.id },
}

export type EnvironmentsRepository = ReturnType<typeof createEnvironmentsRepository>

export function createEnvironmentsRepository({ db }: Database) {
  return {
    async listEnvironments(filters: EnvironmentFilters, request: PageRequest): Promise<Page<EnvironmentRow>> {
      const clauses = pageClauses(request, environmentSorts, environments.id)
      const matching = and(
        filters.project === undefined ? undefined : eq(environments.project, filters.project),
        filters.key === undefined ? undefined : eq(environments.key, filters.key),
      )
      const page = clauses.toPage(
        await db
          .select(environmentColumns)
          .from(environments)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(environments, matching) } : page
    },

    async findEnvironment(id: string, ex: Executor = db): Promise<EnvironmentRow | undefined> {
      const [row] = await ex.select(environmentColumns).from(environments).where(eq(environments.id, id))
      return row
    },

    /** An environment by `project/key`, by its key in project `default`, or by its id. */
    async findEnvironmentNamed(name: string): Promise<EnvironmentRow | undefined> {
      const [first = '', second] = name.split('/')
      const [project, key] = second === undefined ? ['default', first] : [first, second]
      const [row] = await db
        .select(environmentColumns)
        .from(environments)
        .where(
          or(
            and(eq(environments.project, project), eq(environments.key, key)),
            isUuid(name) ? eq(environments.id, name) : undefined,
          ),
        )
      return row
    },

    /** The environment, its row locked until the transaction ends: nothing can be put into it meanwhile. */
    async lockEnvironment(id: string, tx: Tx): Promise<EnvironmentRow | undefined> {
      const [row] = await tx
        .select(environmentColumns)
        .from(environments)
        .where(eq(environments.id, id))
        .for('update')
      return row
    },

    /** Writes the environment and its version. @throws AppError environment_key_taken */
    async insertEnvironment(environment: NewEnvironment & { id: string }, tx: Tx): Promise<void> {
      await assertKeyIsNoId(environments, environment.key, 'environment_key_taken', tx)
      try {
        await tx.insert(environments).values(environment)
      } catch (error) {
        if (isUniqueViolation(error, 'environments_project_key_key'))
          throw new AppError('environment_key_taken', { cause: error })
        throw error
      }
      await tx.insert(policyVersions).values({ environmentId: environment.id })
    },

    async updateEnvironment(id: string, changes: EnvironmentChanges, tx: Tx): Promise<void> {
      await tx
        .update(environments)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(environments.id, id))
    },

    /** Removes the environment; foreign keys take everything in it along. */
    async deleteEnvironment(id: string, tx: Tx): Promise<void> {
      await tx.delete(environments).where(eq(environments.id, id))
    },

    async listProjects(filters: { key?: string }, request: PageRequest): Promise<Page<ProjectRow>> {
      const clauses = pageClauses(request, projectSorts, projects.id)
      const matching = filters.key === undefined ? undefined : eq(projects.key, filters.key)
      const page = clauses.toPage(
        await db
          .select(projectColumns)
          .from(projects)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(projects, matching) } : page
    },

    async findProject(id: string, ex: Executor = db): Promise<ProjectRow | undefined> {
      const [row] = await ex.select(projectColumns).from(projects).where(eq(projects.id, id))
      return row
    },

    /** The project with this key, held against deletion until the transaction ends. */
    async lockProjectByKey(key: string, tx: Tx): Promise<ProjectRow | undefined> {
      const [row] = await tx.select(projectColumns).from(projects).where(eq(projects.key, key)).for('share')
      return row
    },

    /** @throws AppError project_key_taken */
    async insertProject(project: NewProject & { id: string }, tx: Tx): Promise<void> {
      await assertKeyIsNoId(projects, project.key, 'project_key_taken', tx)
      try {
        await tx.insert(projects).values(project)
      } catch (error) {
        if (isUniqueViolation(error, 'projects_key_key'))
          throw new AppError('project_key_taken', { cause: error })
        throw error
      }
    },

    /** The project that was removed, if there was one. @throws AppError project_has_environments */
    async deleteProject(id: string, tx: Tx): Promise<ProjectRow | undefined> {
      try {
        const [row] = await tx.delete(projects).where(eq(projects.id, id)).returning(projectColumns)
        return row
      } catch (error) {
        if (isForeignKeyViolation(error, /^environments_project_fkey$/))
          throw new AppError('project_has_environments', { cause: error })
        throw error
      }
    },
  }
}

/** A key that equals another row's id would make both names ambiguous. */
async function assertKeyIsNoId(
  table: typeof environments | typeof projects,
  key: string,
  code: 'environment_key_taken' | 'project_key_taken',
  tx: Tx,
): Promise<void> {
  if (isUuid(key) && (await tx.$count(table, eq(table.id, key))) > 0) throw new AppError(code)
}
