import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { resourcesOf, TokenSchema } from '../auth/schemas.ts'
import { mfaRequired } from '../factors/schemas.ts'
import { callerOf, themselves } from '../http/authenticate.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import { createSignInAnswers } from '../http/signed-in.ts'
import type { Services } from '../services.ts'
import {
  AuthenticationOptionsSchema,
  CreatedPasskeySchema,
  CreatePasskeyBody,
  PasskeyIdParams,
  PasskeySchema,
  PasskeySignInBody,
  presentPasskey,
  RegistrationOptionsSchema,
  SecondFactorOptionsBody,
  SignInOptionsBody,
  SignInOptionsSchema,
  UpdatePasskeyBody,
} from './schemas.ts'

type Dependencies = Pick<Services, 'passkeys' | 'config' | 'issuer'>

/** Passkeys: one's own, and signing in with them. */
export function passkeysRoutes({ passkeys, config, issuer }: Dependencies): FastifyPluginAsyncTypebox {
  const signIns = createSignInAnswers({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
  // Also before a second factor is there that is demanded: a passkey is one.
  const own = { access: 'signed-in', ignoresEnvironment: true, isOpenBefore: ['second_factor'] } as const
  // What lets somebody in from now on is for whoever has just shown who they are (ASVS 7.5.1).
  const ownRecently = { ...own, needsRecentAuthentication: true } as const

  return async (app) => {
    app.post(
      '/auth/passkeys/registration-options',
      {
        config: ownRecently,
        schema: {
          operationId: 'getPasskeyRegistrationOptions',
          tags: ['Passkeys'],
          summary: 'What navigator.credentials.create takes; good for five minutes and one answer',
          response: {
            200: ref(RegistrationOptionsSchema),
            409: problem('There are as many passkeys as there may be'),
            429: problem('Too many options asked for; Retry-After says when'),
          },
        },
      },
      async (request) => await passkeys.registrationOptions(themselves(request)),
    )

    app.post(
      '/auth/passkeys',
      {
        config: ownRecently,
        schema: {
          operationId: 'createPasskey',
          tags: ['Passkeys'],
          summary: 'Register a passkey',
          description:
            'With the first second factor of a person come recovery codes, which are shown in this answer only. ' +
            'Every other session of the person ends.',
          body: CreatePasskeyBody,
          response: {
            201: ref(CreatedPasskeySchema),
            400: problem('The response is not one to the options'),
            409: problem('It is registered already, or there are as many passkeys as there may be'),
          },
        },
      },
      async (request, reply) => {
        const principal = themselves(request)
        const { name, response } = request.body
        const { passkey, recoveryCodes } = await passkeys.register(
          callerOf(request),
          principal,
          name,
          response,
        )
        forbidCaching(reply)
        return reply
          .code(201)
          .send({ ...presentPasskey(passkey), ...(recoveryCodes && { recovery_codes: recoveryCodes }) })
      },
    )

    app.get(
      '/auth/passkeys',
      {
        config: own,
        schema: {
          operationId: 'listPasskeys',
          tags: ['Passkeys'],
          summary: 'List one’s own passkeys, oldest first: 20 at most',
          response: { 200: Type.Array(ref(PasskeySchema)) },
        },
      },
      async (request) => (await passkeys.listPasskeys(themselves(request))).map(presentPasskey),
    )

    app.patch(
      '/auth/passkeys/:passkey_id',
      {
        config: own,
        schema: {
          operationId: 'updatePasskey',
          tags: ['Passkeys'],
          summary: 'Give a passkey another name',
          params: PasskeyIdParams,
          body: UpdatePasskeyBody,
          response: { 200: ref(PasskeySchema), 404: problem('No such passkey') },
        },
      },
      async (request) => {
        const principal = themselves(request)
        const { passkey_id: id } = request.params
        return presentPasskey(
          await passkeys.renamePasskey(callerOf(request), principal, id, request.body.name),
        )
      },
    )

    app.delete(
      '/auth/passkeys/:passkey_id',
      {
        config: ownRecently,
        schema: {
          operationId: 'deletePasskey',
          tags: ['Passkeys'],
          summary: 'Remove a passkey; every other session of the person ends',
          params: PasskeyIdParams,
          response: {
            204: NoContent,
            404: problem('No such passkey'),
            409: problem('Without it nobody could sign in, or a required second factor would be missing'),
          },
        },
      },
      async (request, reply) => {
        const principal = themselves(request)
        await passkeys.deletePasskey(callerOf(request), principal, request.params.passkey_id)
        return reply.code(204).send(null)
      },
    )

    app.delete(
      '/auth/password',
      {
        config: { ...ownRecently, isOpenBefore: [] },
        schema: {
          operationId: 'deletePassword',
          tags: ['Passkeys'],
          summary: 'Remove one’s own password: passkeys sign in alone from then on; every other session ends',
          response: {
            204: NoContent,
            409: problem('There is no password, or no passkey that verifies its user'),
          },
        },
      },
      async (request, reply) => {
        const principal = themselves(request)
        await passkeys.removePassword(callerOf(request), principal)
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/auth/passkey/options',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'getPasskeySignInOptions',
          tags: ['Passkeys'],
          summary: 'What navigator.credentials.get takes, to sign in without a password',
          description:
            'Good for five minutes and one answer. An email names the passkeys that may answer; for one that has none ' +
            'some are made up, always the same.',
          body: SignInOptionsBody,
          response: {
            200: ref(SignInOptionsSchema),
            429: problem('Too many options asked for; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { challengeToken, expiresInSeconds, options } = await passkeys.signInOptions(
          request.body?.email,
          request.ip,
        )
        return { challenge_token: challengeToken, expires_in: expiresInSeconds, options }
      },
    )

    app.post(
      '/auth/passkey/verify',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'signInWithPasskey',
          tags: ['Passkeys'],
          summary: 'Sign in with a passkey',
          description:
            'A passkey that has verified its user counts as two factors; any other one as the first, and then a second ' +
            'one is asked for.',
          body: PasskeySignInBody,
          response: {
            200: ref(TokenSchema),
            400: problem('No such scope or resource, or too many'),
            401: problem('Refused: one answer for every reason'),
            403: mfaRequired(
              'A second factor is required, or a cookie was asked for from a page of another site',
            ),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { challenge_token: challengeToken, response, scope, account, use_cookie } = request.body
        forbidCaching(reply)
        if (use_cookie) signIns.assertFromOwnPage(request)
        const signedIn = await passkeys.signIn({
          ...signIns.originOf(request),
          challengeToken,
          response,
          scope,
          account,
          resource: resourcesOf(request.body.resource),
        })
        return signIns.answer(reply, signedIn, use_cookie)
      },
    )

    app.post(
      '/auth/mfa/passkey/options',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'getSecondFactorOptions',
          tags: ['Passkeys'],
          summary: 'What navigator.credentials.get takes, for the second step of a sign-in',
          description:
            'The response goes as `passkey` to POST /api/v1/auth/mfa/verify, with the same `mfa_token`.',
          body: SecondFactorOptionsBody,
          response: {
            200: ref(AuthenticationOptionsSchema),
            401: problem('The sign-in cannot be completed any more'),
            404: problem('The person has no passkey'),
            429: problem('Too many options asked for; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        return await passkeys.secondFactorOptions(request.body.mfa_token)
      },
    )

    app.post(
      '/auth/step-up/passkey/options',
      {
        config: own,
        schema: {
          operationId: 'getStepUpOptions',
          tags: ['Passkeys'],
          summary: 'What navigator.credentials.get takes, to authenticate again',
          description: 'The response goes as `passkey` to POST /api/v1/auth/step-up.',
          response: {
            200: ref(AuthenticationOptionsSchema),
            404: problem('You have no passkey'),
            429: problem('Too many options asked for; Retry-After says when'),
          },
        },
      },
      async (request) => await passkeys.stepUpOptions(themselves(request)),
    )
  }
}
