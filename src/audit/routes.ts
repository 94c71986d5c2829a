import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { Access } from '../http/access.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { problem, ref } from '../http/schemas.ts'
import { anywhere } from '../permissions.ts'
import type { Services } from '../services.ts'
import {
  AuditEventSchema,
  auditFilters,
  CheckpointSchema,
  ExportAuditEventsQuery,
  ListAuditEventsQuery,
  ListCheckpointsQuery,
  presentAuditEvent,
  presentCheckpoint,
} from './schemas.ts'

/** The audit trail: everywhere for those who may read it everywhere, else of the own account. */
export function auditRoutes({
  modelOf,
  auditChain,
}: Pick<Services, 'modelOf' | 'auditChain'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const ofAccount: Access = {
    permission: 'postern.audit:read',
    accounts: ({ query, principal }) => {
      const { account_id } = query as { account_id?: string }
      return [account_id?.toLowerCase() ?? principal?.accountId ?? []].flat()
    },
    otherwise: 'account_not_found',
  }
  /** Whoever may not read everywhere reads of the account of the token. */
  const ownAccount = ({ principal }: FastifyRequest): { accountId?: string } => {
    const spansAccounts = principal?.scopes.has(anywhere('postern.audit:read')) ?? false
    return spansAccounts || !principal?.accountId ? {} : { accountId: principal.accountId }
  }

  return async (app) => {
    app.get(
      '/audit-events',
      {
        config: { access: ofAccount },
        schema: {
          operationId: 'listAuditEvents',
          tags: ['Audit'],
          summary: 'What happened and what was refused, newest first',
          querystring: ListAuditEventsQuery,
          response: { 200: Type.Array(ref(AuditEventSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const page = await of(request).audit.listEvents(
          { ...auditFilters(request.query), ...ownAccount(request) },
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentAuditEvent)
      },
    )

    app.get(
      '/audit-events/export',
      {
        config: { access: ofAccount },
        schema: {
          operationId: 'exportAuditEvents',
          tags: ['Audit'],
          summary: 'The sealed events as lines of JSON, in the order of the chain, each with its hash',
          querystring: ExportAuditEventsQuery,
          response: {
            200: {
              description: 'One event in each line. `postern audit verify --file` verifies them',
              content: { 'application/jsonl': { schema: Type.Unsafe<Readable>({ type: 'string' }) } },
            },
            404: problem('No such account'),
          },
        },
      },
      async (request, reply) => {
        const filters = { ...auditFilters(request.query), ...ownAccount(request) }
        return reply
          .type('application/jsonl')
          .send(Readable.from(auditChain.exportLines(filters, request.environmentId)))
      },
    )

    app.get(
      '/audit-checkpoints',
      {
        config: { access: { permission: 'postern.audit:read' }, ignoresEnvironment: true },
        schema: {
          operationId: 'listAuditCheckpoints',
          tags: ['Audit'],
          summary:
            'Where the chain of the audit trail was, signed; keep copies elsewhere. The last one first',
          querystring: ListCheckpointsQuery,
          response: { 200: Type.Array(ref(CheckpointSchema)) },
        },
      },
      async (request, reply) => {
        const page = await auditChain.listCheckpoints(pageRequestOf(request.query))
        return sendPage(request, reply, page, presentCheckpoint)
      },
    )
  }
}
