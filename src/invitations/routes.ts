import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { accountIdOf, ofAccount } from '../accounts/access.ts'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { callerOf, personOf } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { AccountIdParams, NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import {
  AcceptedInvitationSchema,
  AcceptInvitationBody,
  CreateInvitationBody,
  InspectedInvitationSchema,
  InspectInvitationBody,
  InvitationParams,
  InvitationSchema,
  ListInvitationsQuery,
  presentAcceptance,
  presentInspected,
  presentInvitation,
} from './schemas.ts'

type Dependencies = Pick<Services, 'invitations'>

/** Who is invited will sign in, and people sign in to the default environment only. */
async function refuseOtherEnvironments({ environmentId }: FastifyRequest): Promise<void> {
  if (environmentId !== DEFAULT_ENVIRONMENT) throw new AppError('account_not_found')
}

/** Invitations to an account, and what the people who are invited do with them. */
export function invitationsRoutes({ invitations }: Dependencies): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/accounts/:account_id/invitations',
      {
        config: { access: ofAccount('postern.users:read') },
        preHandler: refuseOtherEnvironments,
        schema: {
          operationId: 'listInvitations',
          tags: ['Invitations'],
          summary: 'List the invitations to an account',
          params: AccountIdParams,
          querystring: ListInvitationsQuery,
          response: { 200: Type.Array(ref(InvitationSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const page = await invitations.listInvitations(
          accountIdOf(request),
          request.query.status,
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentInvitation)
      },
    )

    app.post(
      '/accounts/:account_id/invitations',
      {
        config: { access: ofAccount('postern.users:write') },
        preHandler: refuseOtherEnvironments,
        schema: {
          operationId: 'createInvitation',
          tags: ['Invitations'],
          summary: 'Invite somebody to an account by mail, with a role that the caller may give',
          params: AccountIdParams,
          body: CreateInvitationBody,
          response: {
            201: ref(InvitationSchema),
            404: problem('No such account or role'),
            409: problem('The address is invited already, or there are too many invitations'),
            429: problem('Too many mails to the address, or for the account; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { email, role_id } = request.body
        const accountId = accountIdOf(request)
        const invitation = await invitations.invite(callerOf(request), accountId, email, role_id)
        return reply
          .code(201)
          .header('location', `/api/v1/accounts/${accountId}/invitations/${invitation.id}`)
          .send(presentInvitation(invitation))
      },
    )

    app.get(
      '/accounts/:account_id/invitations/:invitation_id',
      {
        config: { access: ofAccount('postern.users:read') },
        preHandler: refuseOtherEnvironments,
        schema: {
          operationId: 'getInvitation',
          tags: ['Invitations'],
          summary: 'Get an invitation',
          params: InvitationParams,
          response: { 200: ref(InvitationSchema), 404: problem('No such account or invitation') },
        },
      },
      async (request) =>
        presentInvitation(
          await invitations.getInvitation(accountIdOf(request), request.params.invitation_id),
        ),
    )

    app.post(
      '/accounts/:account_id/invitations/:invitation_id/resend',
      {
        config: { access: ofAccount('postern.users:write') },
        preHandler: refuseOtherEnvironments,
        schema: {
          operationId: 'resendInvitation',
          tags: ['Invitations'],
          summary: 'Mail an invitation again, with another link; the one before opens nothing any more',
          params: InvitationParams,
          response: {
            200: ref(InvitationSchema),
            404: problem('No such account or invitation'),
            409: problem('It was accepted or revoked'),
            429: problem('Too many mails to the address, or for the account; Retry-After says when'),
          },
        },
      },
      async (request) =>
        presentInvitation(
          await invitations.resend(callerOf(request), accountIdOf(request), request.params.invitation_id),
        ),
    )

    app.delete(
      '/accounts/:account_id/invitations/:invitation_id',
      {
        config: { access: ofAccount('postern.users:write') },
        preHandler: refuseOtherEnvironments,
        schema: {
          operationId: 'revokeInvitation',
          tags: ['Invitations'],
          summary: 'Revoke an invitation: its link opens nothing any more',
          params: InvitationParams,
          response: {
            204: NoContent,
            404: problem('No such account or invitation'),
            409: problem('It was accepted or revoked'),
          },
        },
      },
      async (request, reply) => {
        await invitations.revoke(callerOf(request), accountIdOf(request), request.params.invitation_id)
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/invitations/inspect',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'inspectInvitation',
          tags: ['Invitations'],
          summary: 'What the link of an invitation is for',
          body: InspectInvitationBody,
          response: {
            200: ref(InspectedInvitationSchema),
            404: problem('The link is good for nothing, or not any more'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { invitation, needsSignIn } = await invitations.inspect(request.body.token)
        return presentInspected(invitation, needsSignIn)
      },
    )

    app.post(
      '/invitations/accept',
      {
        config: { access: 'public', ignoresEnvironment: true },
        schema: {
          operationId: 'acceptInvitation',
          tags: ['Invitations'],
          summary:
            'Join an account: with a new password, or signed in as the person whom the invitation is for',
          body: AcceptInvitationBody,
          response: {
            200: ref(AcceptedInvitationSchema),
            401: problem('The token that came along is not valid'),
            403: problem(
              'It is for another email, or something must be done first: a new password, a second factor',
            ),
            404: problem('The link is good for nothing, or not any more'),
            409: problem('The email belongs to somebody who must sign in first, or the invitation is void'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        // Open to all; but a token that comes along counts, or is refused.
        if (request.headers.authorization !== undefined) await app.authenticate(request)
        const { token, password, full_name: fullName } = request.body
        const person = request.principal === null ? undefined : personOf(request).principal
        const caller = { principal: person, requestId: request.id, address: request.ip }
        return presentAcceptance(await invitations.accept(caller, person, token, { password, fullName }))
      },
    )
  }
}
