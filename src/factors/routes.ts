import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { presentToken, TokenSchema } from '../auth/schemas.ts'
import { fail } from '../errors.ts'
import { callerOf, personOf, themselves } from '../http/authenticate.ts'
import { NoContent, problem, ref, UserIdParams } from '../http/schemas.ts'
import { createSignInAnswers } from '../http/signed-in.ts'
import type { Services } from '../services.ts'
import {
  ConfirmedTotpSchema,
  ConfirmTotpBody,
  FactorsSchema,
  mfaRequired,
  presentFactors,
  proofOf,
  RecoveryCodesSchema,
  StepUpBody,
  stepUpProofOf,
  TotpSecretSchema,
  VerifyMfaBody,
} from './schemas.ts'

type Dependencies = Pick<Services, 'factors' | 'secondStep' | 'users' | 'config' | 'issuer'>

/** Second factors: the second step of a sign-in, one's own factors, and those of others for administrators. */
export function factorsRoutes({
  factors,
  secondStep,
  users,
  config,
  issuer,
}: Dependencies): FastifyPluginAsyncTypebox {
  const signIns = createSignInAnswers({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
  // Also before a second factor is there that is demanded: this is how it gets there.
  const own = { access: 'signed-in', ignoresEnvironment: true, isOpenBefore: ['second_factor'] } as const
  // What lets somebody in from now on is for whoever has just shown who they are (ASVS 7.5.1).
  const ownRecently = { ...own, needsRecentAuthentication: true } as const

  return async (app) => {
    app.post(
      '/auth/mfa/verify',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'verifySecondFactor',
          tags: ['Auth'],
          summary: 'The second step of a sign-in',
          description:
            'With the `mfa_token` of the first step and one of `code`, `recovery_code` and `passkey`. A passkey signs ' +
            'what POST /api/v1/auth/mfa/passkey/options answers for the same token.',
          body: VerifyMfaBody,
          response: {
            200: ref(TokenSchema),
            400: problem('The code is wrong or was used, or no such scope or resource, or too many'),
            401: problem('The mfa_token is not valid any more, or the signature of the passkey is not'),
            403: problem('A cookie was asked for from a page of another site'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { mfa_token: mfaToken, use_cookie, ...shown } = request.body
        if (use_cookie) signIns.assertFromOwnPage(request)
        const signedIn = await secondStep.verify({
          mfaToken,
          proof: proofOf(shown) ?? failForProof(),
          ...signIns.originOf(request),
        })
        return signIns.answer(reply, signedIn, use_cookie)
      },
    )

    app.post(
      '/auth/step-up',
      {
        config: own,
        schema: {
          operationId: 'stepUp',
          tags: ['Auth'],
          summary: 'Authenticate anew in the same session',
          description:
            'Opens what answers `reauthentication_required` for STEP_UP_MAX_AGE_SECONDS. The answer has a further access ' +
            'token, and no refresh token: that of the session goes on.',
          body: StepUpBody,
          response: {
            200: ref(TokenSchema),
            400: problem('The password or code is wrong'),
            401: problem('The access token or the signature of the passkey is not valid'),
            403: mfaRequired('There is a second factor: show that one'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const proof = stepUpProofOf(request.body) ?? failForProof()
        const access = await factors.stepUp(callerOf(request), personOf(request).principal, proof)
        return presentToken({ ...access, refreshToken: undefined })
      },
    )

    app.get(
      '/auth/mfa',
      {
        config: own,
        schema: {
          operationId: 'getOwnFactors',
          tags: ['Auth'],
          summary: 'One’s own second factors',
          response: { 200: ref(FactorsSchema) },
        },
      },
      async (request) => presentFactors(await factors.getFactors(themselves(request).userId)),
    )

    app.post(
      '/auth/mfa/totp',
      {
        config: ownRecently,
        schema: {
          operationId: 'beginTotp',
          tags: ['Auth'],
          summary: 'Begin to enrol an authenticator app',
          description:
            'It counts after POST /api/v1/auth/mfa/totp/verify, within an hour. The secret is not shown again.',
          response: { 200: ref(TotpSecretSchema) },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { secret, otpauthUrl } = await factors.beginTotp(personOf(request).principal)
        return { secret, otpauth_url: otpauthUrl }
      },
    )

    app.post(
      '/auth/mfa/totp/verify',
      {
        config: ownRecently,
        schema: {
          operationId: 'confirmTotp',
          tags: ['Auth'],
          summary: 'Have the authenticator app count that shows this code',
          description:
            'Every other session ends. With the first second factor come recovery codes, in this answer only. The next ' +
            'refresh gives a token of two factors.',
          body: ConfirmTotpBody,
          response: {
            200: ref(ConfirmedTotpSchema),
            400: problem('The code is wrong'),
            404: problem('Nothing was begun, or longer than an hour ago'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { principal } = personOf(request)
        const codes = await factors.confirmTotp(callerOf(request), principal, request.body.code)
        return codes ? { recovery_codes: codes } : {}
      },
    )

    app.delete(
      '/auth/mfa/totp',
      {
        config: { ...ownRecently, isOpenBefore: [] },
        schema: {
          operationId: 'removeTotp',
          tags: ['Auth'],
          summary: 'Remove one’s own authenticator app; every other session ends',
          response: {
            204: NoContent,
            404: problem('There is none'),
            409: problem('It is the last second factor, and one is required'),
          },
        },
      },
      async (request, reply) => {
        await factors.removeTotp(callerOf(request), personOf(request).principal)
        return reply.code(204).send(null)
      },
    )

    app.post(
      '/auth/mfa/recovery-codes',
      {
        config: { ...ownRecently, isOpenBefore: [] },
        schema: {
          operationId: 'renewRecoveryCodes',
          tags: ['Auth'],
          summary: 'New recovery codes in place of the old ones; every other session ends',
          response: {
            200: ref(RecoveryCodesSchema),
            409: problem('There is no second factor that they could stand in for'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { principal } = personOf(request)
        return { recovery_codes: await factors.renewRecoveryCodes(callerOf(request), principal) }
      },
    )

    app.delete(
      '/users/:user_id/mfa',
      {
        config: {
          access: {
            permission: 'postern.users:write',
            accounts: async (request) =>
              await users.homeAccountOf((request.params as { user_id: string }).user_id),
            otherwise: 'user_not_found',
          },
          ignoresEnvironment: true,
          needsRecentAuthentication: true,
        },
        schema: {
          operationId: 'resetUserFactors',
          tags: ['Users'],
          summary: 'Remove every second factor of a user who has lost them; all their sessions end',
          params: UserIdParams,
          response: {
            204: NoContent,
            404: problem('No such user'),
            409: problem(
              'A machine asks about somebody who can sign in, or the user belongs to other accounts',
            ),
          },
        },
      },
      async (request, reply) => {
        await factors.resetFactors(callerOf(request), request.params.user_id)
        return reply.code(204).send(null)
      },
    )
  }
}

function failForProof(): never {
  return fail('validation_failed', {
    errors: [{ pointer: '/body', detail: 'must have one of `code`, `recovery_code` and `passkey`' }],
  })
}
