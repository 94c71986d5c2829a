import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { callerOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { IfMatchHeaders, NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  ClientIdParams,
  ClientSchema,
  ClientSecretParams,
  CreateClientBody,
  CreateClientSecretBody,
  clientChanges,
  IssuedClientSchema,
  ListClientsQuery,
  newClient,
  presentClient,
  presentIssuedClient,
  UpdateClientBody,
} from './schemas.ts'

const READ = { access: { permission: 'postern.clients:read' } } as const
const WRITE = { access: { permission: 'postern.clients:write' } } as const
/** What a stolen token would make itself last with; taking away is open at once. */
const GIVE = { ...WRITE, needsRecentAuthentication: true } as const

/** Machines, and other programs, that get tokens of their own. */
export function clientsRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId).clients
  return async (app) => {
    app.get(
      '/clients',
      {
        config: READ,
        schema: {
          operationId: 'listClients',
          tags: ['OAuth clients'],
          summary: 'List OAuth clients',
          querystring: ListClientsQuery,
          response: { 200: Type.Array(ref(ClientSchema)) },
        },
      },
      async (request, reply) =>
        sendPage(request, reply, await of(request).listClients(pageRequestOf(request.query)), presentClient),
    )

    app.post(
      '/clients',
      {
        config: GIVE,
        schema: {
          operationId: 'createClient',
          tags: ['OAuth clients'],
          summary: 'Register an OAuth client; its secret is shown only in this answer',
          body: CreateClientBody,
          response: { 201: ref(IssuedClientSchema), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const issued = await of(request).createClient(callerOf(request), newClient(request.body))
        setEtag(reply, issued.client)
        forbidCaching(reply)
        return reply
          .code(201)
          .header('location', `/api/v1/clients/${issued.client.id}`)
          .send(presentIssuedClient(issued))
      },
    )

    app.get(
      '/clients/:client_id',
      {
        config: READ,
        schema: {
          operationId: 'getClient',
          tags: ['OAuth clients'],
          summary: 'Get an OAuth client, without its secrets',
          params: ClientIdParams,
          response: { 200: ref(ClientSchema), 404: problem('No such client') },
        },
      },
      async (request, reply) => {
        const client = await of(request).getClient(request.params.client_id)
        setEtag(reply, client)
        return presentClient(client)
      },
    )

    for (const method of ['put', 'patch'] as const) {
      app[method](
        '/clients/:client_id',
        {
          config: GIVE,
          schema: {
            operationId: `${method}Client`,
            tags: ['OAuth clients'],
            summary: 'Change an OAuth client: absent fields stay; what takes something away ends its tokens',
            params: ClientIdParams,
            headers: IfMatchHeaders,
            body: UpdateClientBody,
            response: {
              200: ref(ClientSchema),
              404: problem('No such client'),
              412: problem('The record has changed'),
            },
          },
        },
        async (request, reply) => {
          const client = await of(request).updateClient(
            callerOf(request),
            request.params.client_id,
            clientChanges(request.body),
            ifMatchOf(request),
          )
          setEtag(reply, client)
          return presentClient(client)
        },
      )
    }

    app.delete(
      '/clients/:client_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteClient',
          tags: ['OAuth clients'],
          summary: 'Delete an OAuth client; its tokens are refused at once',
          params: ClientIdParams,
          headers: IfMatchHeaders,
          response: {
            204: NoContent,
            404: problem('No such client'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        await of(request).deleteClient(callerOf(request), request.params.client_id, ifMatchOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/clients/:client_id/secrets',
      {
        config: GIVE,
        schema: {
          operationId: 'createClientSecret',
          tags: ['OAuth clients'],
          summary: 'Give an OAuth client a second secret, to replace the first',
          params: ClientIdParams,
          body: CreateClientSecretBody,
          response: {
            201: ref(IssuedClientSchema),
            404: problem('No such client'),
            409: problem('It has two secrets already, or authenticates without any'),
          },
        },
      },
      async (request, reply) => {
        const { others_expire_at: at } = request.body
        const issued = await of(request).createSecret(
          callerOf(request),
          request.params.client_id,
          at === undefined ? undefined : new Date(at),
        )
        setEtag(reply, issued.client)
        forbidCaching(reply)
        return reply
          .code(201)
          .header('location', `/api/v1/clients/${issued.client.id}`)
          .send(presentIssuedClient(issued))
      },
    )

    app.delete(
      '/clients/:client_id/secrets/:secret_id',
      {
        config: WRITE,
        schema: {
          operationId: 'deleteClientSecret',
          tags: ['OAuth clients'],
          summary: 'Refuse a secret of an OAuth client from now on',
          params: ClientSecretParams,
          response: { 204: NoContent, 404: problem('No such client or secret') },
        },
      },
      async (request, reply) => {
        const { client_id, secret_id } = request.params
        await of(request).deleteSecret(callerOf(request), client_id, secret_id)
        return reply.code(204).send(null)
      },
    )
  }
}
