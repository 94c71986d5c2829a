import formbody from '@fastify/formbody'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { mfaRequired } from '../factors/schemas.ts'
import { callerOf, personOf } from '../http/authenticate.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import { createSignInAnswers } from '../http/signed-in.ts'
import type { Services } from '../services.ts'
import { presentUser, UserSchema } from '../users/schemas.ts'
import { forbidCaching, sendOAuthError } from './oauth-errors.ts'
import {
  ChangePasswordBody,
  HashPasswordBody,
  LoginBody,
  OAuthErrorSchema,
  PasswordGrantForm,
  resourcesOf,
  TokenSchema,
} from './schemas.ts'

type Dependencies = Pick<Services, 'auth' | 'config' | 'issuer'>

/** Sign-in and passwords. */
export function authRoutes({ auth, config, issuer }: Dependencies): FastifyPluginAsyncTypebox {
  const signIns = createSignInAnswers({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
  return async (app) => {
    await app.register(async (form: Parameters<FastifyPluginAsyncTypebox>[0]) => {
      // This endpoint takes forms only, and answers as OAuth does.
      form.removeContentTypeParser('application/json')
      await form.register(formbody)
      form.setErrorHandler(sendOAuthError)
      form.post(
        '/auth/access-token',
        {
          config: { access: 'public' },
          schema: {
            operationId: 'createAccessToken',
            tags: ['Auth'],
            summary: 'Sign in with the OAuth 2 password form',
            consumes: ['application/x-www-form-urlencoded'],
            body: PasswordGrantForm,
            response: {
              200: ref(TokenSchema),
              400: ref(OAuthErrorSchema),
              413: ref(OAuthErrorSchema),
              415: ref(OAuthErrorSchema),
              422: ref(OAuthErrorSchema),
              429: ref(OAuthErrorSchema),
              500: ref(OAuthErrorSchema),
              503: ref(OAuthErrorSchema),
            },
          },
        },
        async (request, reply) => {
          const { username, password, scope, account, resource, device_token: deviceToken } = request.body
          forbidCaching(reply)
          return signIns.answer(
            reply,
            await auth.signIn({
              ...signIns.originOf(request, deviceToken || undefined),
              email: username,
              password,
              scope,
              account: account || undefined,
              resource: resourcesOf(resource),
            }),
          )
        },
      )
    })

    app.post(
      '/auth/login',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'login',
          tags: ['Auth'],
          summary: 'Sign in with JSON, for frontends',
          body: LoginBody,
          response: {
            200: ref(TokenSchema),
            400: problem('No such scope or resource, or too many'),
            401: problem('Refused: one answer for every reason'),
            403: mfaRequired(
              'The password is right and a second factor is required, or a cookie was asked for from a page of another site',
            ),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { email, password, scope, account, use_cookie, device_token: deviceToken } = request.body
        const resource = resourcesOf(request.body.resource)
        forbidCaching(reply)
        if (use_cookie) signIns.assertFromOwnPage(request)
        const origin = signIns.originOf(request, deviceToken)
        const signedIn = await auth.signIn({ ...origin, email, password, scope, account, resource })
        return signIns.answer(reply, signedIn, use_cookie)
      },
    )

    app.post(
      '/auth/test-token',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'testToken',
          tags: ['Auth'],
          summary: 'The user of the token',
          response: { 200: ref(UserSchema) },
        },
      },
      async (request) => presentUser(personOf(request).holder),
    )

    app.post(
      '/auth/hash-password',
      {
        config: { access: { permission: 'postern.users:write' }, ignoresEnvironment: true },
        schema: {
          operationId: 'hashPassword',
          tags: ['Auth'],
          summary: 'The argon2id hash of a password, to prepare imports',
          body: HashPasswordBody,
          response: { 200: Type.String({ examples: ['$argon2id$v=19$m=19456,t=2,p=1$…'] }) },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const hash = await auth.hashPassword(request.body.password)
        return reply.type('application/json').send(JSON.stringify(hash))
      },
    )

    app.post(
      '/auth/change-password',
      {
        config: {
          access: 'signed-in',
          isOpenBefore: ['password_change', 'second_factor'],
          ignoresEnvironment: true,
        },
        schema: {
          operationId: 'changePassword',
          tags: ['Auth'],
          summary: 'Change one’s own password; every other session ends',
          body: ChangePasswordBody,
          response: {
            204: NoContent,
            400: problem('The current password is wrong'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { principal } = personOf(request)
        const { current_password, new_password } = request.body
        await auth.changePassword(callerOf(request), principal, current_password, new_password)
        return reply.code(204).send(null)
      },
    )
  }
}
