import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { callerOf } from '../http/authenticate.ts'
import { problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import { PolicyFileSchema } from './schema.ts'
import {
  ApplyQuery,
  PolicyChangeSchema,
  PolicyDocumentSchema,
  TemplateParams,
  TemplateSchema,
} from './schemas.ts'
import { listTemplates, readTemplate } from './templates.ts'
import { fileOf } from './write.ts'

/** The policy of an environment as one document, and the templates that come with the service. */
export function policyFileRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  return async (app) => {
    app.get(
      '/policy',
      {
        config: { access: { permission: 'postern.policy:read' } },
        schema: {
          operationId: 'exportPolicy',
          tags: ['Policy'],
          summary: 'The whole policy as one document',
          response: { 200: ref(PolicyDocumentSchema) },
        },
      },
      async (request) => fileOf(await of(request).policyFile.read()),
    )

    app.post(
      '/policy',
      {
        config: { access: { permission: 'postern.policy:write' } },
        schema: {
          operationId: 'applyPolicy',
          tags: ['Policy'],
          summary:
            'Make the policy what the document says; what it does not say is deleted, facts are only added',
          querystring: ApplyQuery,
          body: PolicyFileSchema,
          response: {
            200: Type.Array(ref(PolicyChangeSchema), { description: 'The changes' }),
            409: problem('The document defines a built-in role, or too many of something'),
          },
        },
      },
      async (request) => {
        const { policyFile } = of(request)
        return request.query.dry_run
          ? await policyFile.diff(request.body)
          : await policyFile.apply(callerOf(request), request.body)
      },
    )

    app.get(
      '/policy/templates',
      {
        config: { access: { permission: 'postern.policy:read' } },
        schema: {
          operationId: 'listPolicyTemplates',
          tags: ['Policy'],
          summary: 'The policies that come with the service',
          response: { 200: Type.Array(ref(TemplateSchema)) },
        },
      },
      async () => listTemplates(),
    )

    app.get(
      '/policy/templates/:name',
      {
        config: { access: { permission: 'postern.policy:read' } },
        schema: {
          operationId: 'getPolicyTemplate',
          tags: ['Policy'],
          summary: 'A template as a policy document',
          params: TemplateParams,
          response: { 200: ref(PolicyDocumentSchema), 404: problem('No such template') },
        },
      },
      async (request) => readTemplate(request.params.name),
    )

    app.post(
      '/policy/templates/:name',
      {
        config: { access: { permission: 'postern.policy:write' } },
        schema: {
          operationId: 'applyPolicyTemplate',
          tags: ['Policy'],
          summary: 'Lay a template over the policy; nothing is deleted',
          params: TemplateParams,
          querystring: ApplyQuery,
          response: {
            200: Type.Array(ref(PolicyChangeSchema), { description: 'The changes' }),
            404: problem('No such template'),
          },
        },
      },
      async (request) => {
        const { policyFile } = of(request)
        const file = readTemplate(request.params.name)
        return request.query.dry_run
          ? await policyFile.diff(file, 'additions')
          : await policyFile.apply(callerOf(request), file, 'additions')
      },
    )
  }
}
