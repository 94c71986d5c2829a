import { and, desc, eq, or, type SQL, sql } from 'drizzle-orm'
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
export type EnvironmentRow = ProjectRow & { project: string; projectId: string }

export type NewProject = { key: string; name: string; description?: string | null }
export type NewEnvironment = NewProject & { project: string }
export type EnvironmentChanges = { name?: string; description?: string | null }
export type ProjectChanges = EnvironmentChanges
export type EnvironmentFilters = { project?: string; key?: string; id?: string }

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
  projectId: projects.id,
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

/** The statements of projects and environments. */
export function createEnvironmentsRepository({ db }: Database) {
  const selectEnvironments = (ex: Executor) =>
    ex
      .select(environmentColumns)
      .from(environments)
      .innerJoin(projects, eq(projects.key, environments.project))

  return {
    async listEnvironments(filters: EnvironmentFilters, request: PageRequest): Promise<Page<EnvironmentRow>> {
      const clauses = pageClauses(request, environmentSorts, environments.id)
      const matching = and(
        filters.project === undefined ? undefined : eq(environments.project, filters.project),
        filters.key === undefined ? undefined : eq(environments.key, filters.key),
        filters.id === undefined ? undefined : eq(environments.id, filters.id),
      )
      const page = clauses.toPage(
        await selectEnvironments(db)
          .where(allOf(matching, clauses.where))
          .orderBy(...clauses.orderBy)
          .limit(clauses.limit)
          .offset(clauses.offset),
      )
      return request.total ? { ...page, total: await db.$count(environments, matching) } : page
    },

    async findEnvironment(id: string, ex: Executor = db): Promise<EnvironmentRow | undefined> {
      const [row] = await selectEnvironments(ex).where(eq(environments.id, id))
      return row
    },

    /**
     * An environment by `project/key`, by its key in project `default`, or by its id. In `project/key` either may be
     * an id; keys come first.
     */
    async findEnvironmentNamed(name: string): Promise<EnvironmentRow | undefined> {
      const [first = '', second] = name.split('/')
      const named =
        second === undefined
          ? or(
              and(eq(environments.project, 'default'), eq(environments.key, first)),
              isUuid(name) ? eq(environments.id, name) : undefined,
            )
          : and(isNamed(projects, first), isNamed(environments, second))
      const [row] = await selectEnvironments(db)
        .where(named)
        .orderBy(desc(eq(projects.key, first)), desc(eq(environments.key, second ?? first)))
        .limit(1)
      return row
    },

    /** A project by key or id; the key comes first. */
    async findProjectNamed(name: string): Promise<ProjectRow | undefined> {
      const [row] = await db
        .select(projectColumns)
        .from(projects)
        .where(isNamed(projects, name))
        .orderBy(desc(eq(projects.key, name)))
        .limit(1)
      return row
    },

    /** The environment, its row locked until the transaction ends: nothing can be put into it meanwhile. */
    async lockEnvironment(id: string, tx: Tx): Promise<EnvironmentRow | undefined> {
      const [row] = await selectEnvironments(tx)
        .where(eq(environments.id, id))
        .for('update', { of: environments })
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

    async updateProject(id: string, changes: ProjectChanges, tx: Tx): Promise<void> {
      await tx
        .update(projects)
        .set({ ...changes, updatedAt: sql`now()` })
        .where(eq(projects.id, id))
    },

    /** The project, its row locked until the transaction ends: no environment can be put into it meanwhile. */
    async lockProject(id: string, tx: Tx): Promise<ProjectRow | undefined> {
      const [row] = await tx.select(projectColumns).from(projects).where(eq(projects.id, id)).for('update')
      return row
    },

    /** Every environment of the project. */
    async listEnvironmentsOf(project: string, tx: Tx): Promise<EnvironmentRow[]> {
      return await selectEnvironments(tx).where(eq(environments.project, project)).orderBy(environments.id)
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

/** An id with its dashes or without them, which Postgres takes for the same. */
const ID = /^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i

const isNamed = (table: typeof environments | typeof projects, name: string): SQL | undefined =>
  or(eq(table.key, name), ID.test(name) ? eq(table.id, name) : undefined)

/** A key that equals another row's id would make both names ambiguous. */
async function assertKeyIsNoId(
  table: typeof environments | typeof projects,
  key: string,
  code: 'environment_key_taken' | 'project_key_taken',
  tx: Tx,
): Promise<void> {
  if (ID.test(key) && (await tx.$count(table, eq(table.id, key))) > 0) throw new AppError(code)
}
