import formbody from '@fastify/formbody'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { callerOf, personOf } from '../http/authenticate.ts'
import { createRefreshCookie } from '../http/refresh-cookie.ts'
import { NoContent, problem, ref } from '../http/schemas.ts'
import type { Services } from '../services.ts'
import { presentUser, UserSchema } from '../users/schemas.ts'
import { forbidCaching, sendOAuthError } from './oauth-errors.ts'
import {
  ChangePasswordBody,
  HashPasswordBody,
  LoginBody,
  OAuthErrorSchema,
  PasswordGrantForm,
  presentToken,
  TokenSchema,
} from './schemas.ts'

type Dependencies = Pick<Services, 'auth' | 'config' | 'issuer'>

/** Sign-in and passwords. */
export function authRoutes({ auth, config, issuer }: Dependencies): FastifyPluginAsyncTypebox {
  const cookie = createRefreshCookie({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
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
          const { username, password, scope, account } = request.body
          forbidCaching(reply)
          return presentToken(
            await auth.signIn({
              ...client(request),
              email: username,
              password,
              scope,
              account: account || undefined,
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
            400: problem('No such scope, or too many'),
            401: problem('Refused: one answer for every reason'),
            403: problem('A cookie was asked for from a page of another site'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { email, password, scope, account, use_cookie } = request.body
        forbidCaching(reply)
        if (use_cookie) cookie.assertFromOwnPage(request)
        const signedIn = await auth.signIn({ ...client(request), email, password, scope, account })
        if (!use_cookie) return presentToken(signedIn)
        cookie.set(reply, signedIn.refreshToken, signedIn.refreshExpiresInSeconds)
        return presentToken({ ...signedIn, refreshToken: undefined })
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
        config: { access: 'signed-in', isOpenBeforePasswordChange: true, ignoresEnvironment: true },
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

const client = (request: FastifyRequest) => ({
  requestId: request.id,
  address: request.ip,
  userAgent: request.headers['user-agent'],
})
