import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { resourcesOf, TokenSchema } from '../auth/schemas.ts'
import { mfaRequired } from '../factors/schemas.ts'
import { callerOf, personOf, themselves } from '../http/authenticate.ts'
import { NoContent, problem, ref, UserIdParams } from '../http/schemas.ts'
import { createSignInAnswers } from '../http/signed-in.ts'
import type { Services } from '../services.ts'
import {
  ACCEPTED,
  AcceptedSchema,
  ConfirmBody,
  ConfirmPasswordResetBody,
  EmailBody,
  EmailChangeSchema,
  EmailStateSchema,
  MagicLinkRequestSchema,
  presentEmailState,
  VerifyMagicLinkBody,
} from './schemas.ts'

type Dependencies = Pick<Services, 'mailLinks' | 'modelOf' | 'config' | 'issuer'>

const throttled = problem('Too many; Retry-After says when')
const invalidLink = problem('The link is not valid any more')
const noMail = problem('The service sends no mails, or is at its limit; Retry-After says when to try again')

/** What is proved by a mail: passwords that are set anew, confirmed and changed addresses, sign-in by a link. */
export function mailLinksRoutes({
  mailLinks,
  modelOf,
  config,
  issuer,
}: Dependencies): FastifyPluginAsyncTypebox {
  const signIns = createSignInAnswers({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
  // Also before a second factor is there that is demanded: it takes a confirmed address to enrol one.
  const beforeFactor = {
    access: 'signed-in',
    ignoresEnvironment: true,
    isOpenBefore: ['second_factor'],
  } as const
  return async (app) => {
    app.post(
      '/auth/password-reset',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'requestPasswordReset',
          tags: ['Auth'],
          summary:
            'Have a link mailed with which a new password is set; the answer is the same for every email',
          body: EmailBody,
          response: { 202: ref(AcceptedSchema), 429: throttled, 503: noMail },
        },
      },
      async (request, reply) => {
        await mailLinks.requestPasswordReset(request.body.email, originOf(request))
        return reply.code(202).send(ACCEPTED)
      },
    )

    app.post(
      '/auth/password-reset/confirm',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'confirmPasswordReset',
          tags: ['Auth'],
          summary: 'Set a new password by a link; every session ends, and nobody is signed in',
          body: ConfirmPasswordResetBody,
          response: { 204: NoContent, 400: invalidLink },
        },
      },
      async (request, reply) => {
        const { token, password } = request.body
        await mailLinks.confirmPasswordReset(token, password, originOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/users/:user_id/password-reset',
      {
        config: {
          access: {
            permission: 'postern.users:write',
            accounts: async (request) =>
              await modelOf(request.environmentId).users.homeAccountOf(
                (request.params as { user_id: string }).user_id,
              ),
            otherwise: 'user_not_found',
          },
        },
        schema: {
          operationId: 'sendPasswordReset',
          tags: ['Users'],
          summary: 'Mail a user a link with which they set a new password',
          params: UserIdParams,
          response: {
            202: ref(AcceptedSchema),
            404: problem('No such user'),
            409: problem('The user has no email or no credentials, or a machine asks'),
            503: noMail,
          },
        },
      },
      async (request, reply) => {
        await mailLinks.sendPasswordReset(callerOf(request), request.params.user_id)
        return reply.code(202).send(ACCEPTED)
      },
    )

    app.post(
      '/auth/magic-link',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'requestMagicLink',
          tags: ['Auth'],
          summary: 'Have a link mailed that signs in; the answer is the same for every email',
          body: EmailBody,
          response: {
            202: ref(MagicLinkRequestSchema),
            403: problem('Sign-in by mail is off'),
            429: throttled,
            503: noMail,
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const requestToken = await mailLinks.requestMagicLink(request.body.email, originOf(request))
        return reply.code(202).send({ request_token: requestToken })
      },
    )

    app.post(
      '/auth/magic-link/verify',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'signInByMagicLink',
          tags: ['Auth'],
          summary: 'Sign in by a link, where it was asked for',
          body: VerifyMagicLinkBody,
          response: {
            200: ref(TokenSchema),
            400: problem(
              'The link is not valid any more, or was asked for elsewhere; or no such scope or resource',
            ),
            401: problem('Refused'),
            403: mfaRequired(
              'The link is right and a second factor is required; or sign-in by mail is off, or a cookie was asked for from a page of another site',
            ),
          },
        },
      },
      async (request, reply) => {
        const { token, request_token, scope, account, use_cookie } = request.body
        forbidCaching(reply)
        if (use_cookie) signIns.assertFromOwnPage(request)
        const resource = resourcesOf(request.body.resource)
        const input = { ...signIns.originOf(request), scope, account, resource }
        const signedIn = await mailLinks.signInByLink(token, request_token, input)
        return signIns.answer(reply, signedIn, use_cookie)
      },
    )

    app.get(
      '/auth/email-verification',
      {
        config: beforeFactor,
        schema: {
          operationId: 'getEmailVerification',
          tags: ['Auth'],
          summary: 'Whether one’s own email was confirmed',
          response: { 200: ref(EmailStateSchema) },
        },
      },
      async (request) => presentEmailState(await mailLinks.emailState(themselves(request).userId)),
    )

    app.post(
      '/auth/email-verification',
      {
        config: beforeFactor,
        schema: {
          operationId: 'requestEmailVerification',
          tags: ['Auth'],
          summary: 'Have a link mailed that confirms one’s own email, unless that was done',
          response: {
            202: ref(AcceptedSchema),
            409: problem('The user has no email or no credentials'),
            429: throttled,
            503: noMail,
          },
        },
      },
      async (request, reply) => {
        await mailLinks.requestVerification(callerOf(request), personOf(request).principal)
        return reply.code(202).send(ACCEPTED)
      },
    )

    app.post(
      '/auth/email-verification/confirm',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'confirmEmailVerification',
          tags: ['Auth'],
          summary: 'Confirm an email by a link',
          body: ConfirmBody,
          response: { 204: NoContent, 400: invalidLink },
        },
      },
      async (request, reply) => {
        await mailLinks.confirmVerification(request.body.token, originOf(request))
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/auth/email-change',
      {
        config: { access: 'signed-in', needsRecentAuthentication: true, ignoresEnvironment: true },
        schema: {
          operationId: 'requestEmailChange',
          tags: ['Auth'],
          summary:
            'Begin a change of one’s own email: both addresses are mailed a link, and both must be followed',
          body: EmailBody,
          response: {
            202: ref(AcceptedSchema),
            409: problem('The user has no email or no credentials'),
            429: throttled,
            503: noMail,
          },
        },
      },
      async (request, reply) => {
        await mailLinks.requestEmailChange(callerOf(request), personOf(request).principal, request.body.email)
        return reply.code(202).send(ACCEPTED)
      },
    )

    app.post(
      '/auth/email-change/confirm',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'confirmEmailChange',
          tags: ['Auth'],
          summary: 'Confirm a change of an email by the link to one of the two addresses',
          body: ConfirmBody,
          response: {
            200: ref(EmailChangeSchema),
            400: invalidLink,
            409: problem('Somebody else has the email meanwhile'),
          },
        },
      },
      async (request) => ({
        is_changed: await mailLinks.confirmEmailChange(request.body.token, originOf(request)),
      }),
    )
  }
}

const originOf = (request: FastifyRequest) => ({ requestId: request.id, address: request.ip })
