import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { problem, ref } from '../http/schemas.ts'
import { anywhere } from '../permissions.ts'
import type { Services } from '../services.ts'
import { AuditEventSchema, auditFilters, ListAuditEventsQuery, presentAuditEvent } from './schemas.ts'

/** The audit trail: everywhere for those who may read it everywhere, else of the own account. */
export function auditRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  return async (app) => {
    app.get(
      '/audit-events',
      {
        config: {
          access: {
            permission: 'postern.audit:read',
            accounts: ({ query, principal }) => {
              const { account_id } = query as { account_id?: string }
              return [account_id?.toLowerCase() ?? principal?.accountId ?? []].flat()
            },
            otherwise: 'account_not_found',
          },
        },
        schema: {
          operationId: 'listAuditEvents',
          tags: ['Audit'],
          summary: 'What happened and what was refused, newest first',
          querystring: ListAuditEventsQuery,
          response: { 200: Type.Array(ref(AuditEventSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const { principal } = request
        const spansAccounts = principal?.scopes.has(anywhere('postern.audit:read')) ?? false
        const own = spansAccounts || !principal?.accountId ? {} : { accountId: principal.accountId }
        const page = await of(request).audit.listEvents(
          { ...auditFilters(request.query), ...own },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentAuditEvent)
      },
    )
  }
}
