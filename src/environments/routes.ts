import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  CreateEnvironmentBody,
  CreateProjectBody,
  EnvironmentIdParams,
  EnvironmentSchema,
  ListEnvironmentsQuery,
  ListProjectsQuery,
  ProjectIdParams,
  ProjectSchema,
  presentEnvironment,
  presentProject,
  UpdateEnvironmentBody,
} from './schemas.ts'
import { DEFAULT_KEY } from './service.ts'

const config = (permission: 'postern.environments:read' | 'postern.environments:write') => ({
  access: { permission } satisfies Access,
  ignoresEnvironment: true,
})

/** Projects and their environments. */
export function environmentsRoutes({
  environments,
}: Pick<Services, 'environments'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/environments',
      {
        config: config('postern.environments:read'),
        schema: {
          operationId: 'listEnvironments',
          tags: ['Environments'],
          summary: 'List environments',
          querystring: ListEnvironmentsQuery,
          response: { 200: Type.Array(ref(EnvironmentSchema)) },
        },
      },
      async (request, reply) => {
        const { project, key } = request.query
        const page = await environments.listEnvironments(
          callerOf(request),
          { ...(project !== undefined && { project }), ...(key !== undefined && { key }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentEnvironment)
      },
    )

    app.post(
      '/environments',
      {
        config: config('postern.environments:write'),
        schema: {
          operationId: 'createEnvironment',
          tags: ['Environments'],
          summary: 'Create an environment; it holds one account, `default`, and nothing else',
          body: CreateEnvironmentBody,
          response: {
            201: ref(EnvironmentSchema),
            404: problem('No such project'),
            409: problem('The key is taken'),
          },
        },
      },
      async (request, reply) => {
        const { project = DEFAULT_KEY, ...fields } = request.body
        const environment = await environments.createEnvironment(callerOf(request), { ...fields, project })
        return reply
          .code(201)
          .header('location', `/api/v1/environments/${environment.id}`)
          .send(presentEnvironment(environment))
      },
    )

    app.get(
      '/environments/:environment_id',
      {
        config: config('postern.environments:read'),
        schema: {
          operationId: 'getEnvironment',
          tags: ['Environments'],
          summary: 'Get an environment',
          params: EnvironmentIdParams,
          response: { 200: ref(EnvironmentSchema), 404: problem('No such environment') },
        },
      },
      async (request) =>
        presentEnvironment(
          await environments.getEnvironment(callerOf(request), request.params.environment_id),
        ),
    )

    app.patch(
      '/environments/:environment_id',
      {
        config: config('postern.environments:write'),
        schema: {
          operationId: 'updateEnvironment',
          tags: ['Environments'],
          summary: 'Change the name or description of an environment: absent fields stay',
          params: EnvironmentIdParams,
          body: UpdateEnvironmentBody,
          response: { 200: ref(EnvironmentSchema), 404: problem('No such environment') },
        },
      },
      async (request) =>
        presentEnvironment(
          await environments.updateEnvironment(
            callerOf(request),
            request.params.environment_id,
            request.body,
          ),
        ),
    )

    app.delete(
      '/environments/:environment_id',
      {
        config: config('postern.environments:write'),
        schema: {
          operationId: 'deleteEnvironment',
          tags: ['Environments'],
          summary: 'Delete an environment with everything in it, and the API keys that open it',
          params: EnvironmentIdParams,
          response: {
            204: NoContent,
            404: problem('No such environment'),
            409: problem('It is the default environment'),
          },
        },
      },
      async (request, reply) => {
        await environments.deleteEnvironment(callerOf(request), request.params.environment_id)
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/projects',
      {
        config: config('postern.environments:read'),
        schema: {
          operationId: 'listProjects',
          tags: ['Environments'],
          summary: 'List projects',
          querystring: ListProjectsQuery,
          response: { 200: Type.Array(ref(ProjectSchema)) },
        },
      },
      async (request, reply) => {
        const { key } = request.query
        const page = await environments.listProjects(
          callerOf(request),
          { ...(key !== undefined && { key }) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentProject)
      },
    )

    app.post(
      '/projects',
      {
        config: config('postern.environments:write'),
        schema: {
          operationId: 'createProject',
          tags: ['Environments'],
          summary: 'Create a project, without environments',
          body: CreateProjectBody,
          response: { 201: ref(ProjectSchema), 409: problem('The key is taken') },
        },
      },
      async (request, reply) => {
        const project = await environments.createProject(callerOf(request), request.body)
        return reply
          .code(201)
          .header('location', `/api/v1/projects/${project.id}`)
          .send(presentProject(project))
      },
    )

    app.get(
      '/projects/:project_id',
      {
        config: config('postern.environments:read'),
        schema: {
          operationId: 'getProject',
          tags: ['Environments'],
          summary: 'Get a project',
          params: ProjectIdParams,
          response: { 200: ref(ProjectSchema), 404: problem('No such project') },
        },
      },
      async (request) =>
        presentProject(await environments.getProject(callerOf(request), request.params.project_id)),
    )

    app.delete(
      '/projects/:project_id',
      {
        config: config('postern.environments:write'),
        schema: {
          operationId: 'deleteProject',
          tags: ['Environments'],
          summary: 'Delete a project without environments, and its API keys',
          params: ProjectIdParams,
          response: {
            204: NoContent,
            404: problem('No such project'),
            409: problem('It still has environments'),
          },
        },
      },
      async (request, reply) => {
        await environments.deleteProject(callerOf(request), request.params.project_id)
        return reply.code(204).send(null)
      },
    )
  }
}
