import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { forbidCaching } from '../auth/oauth-errors.ts'
import { presentToken, resourcesOf, TokenSchema } from '../auth/schemas.ts'
import { type AccessTokenClaims, FIRST_PARTY_CLIENT } from '../auth/tokens.ts'
import { AppError, fail } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf, personOf, themselves } from '../http/authenticate.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { createRefreshCookie } from '../http/refresh-cookie.ts'
import { NoContent, problem, ref, UserIdParams } from '../http/schemas.ts'
import type { BuiltinPermission } from '../permissions.ts'
import type { Services } from '../services.ts'
import {
  ListSessionsQuery,
  LogoutBody,
  presentSession,
  RefreshBody,
  SessionIdParams,
  SessionSchema,
  UserSessionParams,
} from './schemas.ts'

type Dependencies = Pick<Services, 'sessions' | 'users' | 'config' | 'issuer'>

/** Going on with a session, and ending it: one's own, and for administrators those of others. */
export function sessionsRoutes({ sessions, users, config, issuer }: Dependencies): FastifyPluginAsyncTypebox {
  const cookie = createRefreshCookie({ publicUrl: issuer, corsOrigins: config.http.corsOrigins })
  /** A session is its person's, not an account's: it concerns the administrators of the home account. */
  const resident = (permission: BuiltinPermission): Access => ({
    permission,
    accounts: async (request) => await users.homeAccountOf((request.params as { user_id: string }).user_id),
    otherwise: 'user_not_found',
  })
  const own = { access: 'signed-in', ignoresEnvironment: true } as const

  return async (app) => {
    app.post(
      '/auth/refresh',
      {
        config: { access: 'public' },
        schema: {
          operationId: 'refreshSession',
          tags: ['Auth'],
          summary: 'The next access token of a session, by its refresh token or cookie',
          description:
            'A refresh token is good for one use; the answer has the next one, in the body or, for a token from the ' +
            'cookie, in the cookie. Roles and scopes are read anew. An old token that is used again ends the session.',
          body: RefreshBody,
          response: {
            200: ref(TokenSchema),
            400: problem('No such scope or resource, or too many'),
            401: problem('The refresh token is not valid: sign in again'),
            403: problem('The cookie came from a page of another site'),
            404: problem('No such account, or one that the person is no member of'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const { refresh_token: given, account, scope, resource } = request.body ?? {}
        const fromCookie = given === undefined ? cookie.read(request) : undefined
        if (fromCookie !== undefined) cookie.assertFromOwnPage(request)
        const token = given ?? fromCookie ?? fail('invalid_refresh_token')
        const refreshed = await orForget(fromCookie !== undefined, reply, () =>
          sessions.refresh({
            token,
            clientId: FIRST_PARTY_CLIENT,
            account,
            scope,
            resource: resourcesOf(resource),
            ...origin(request),
          }),
        )
        if (fromCookie === undefined) return presentToken(refreshed)
        cookie.set(reply, refreshed.refreshToken, refreshed.refreshExpiresInSeconds)
        return presentToken({ ...refreshed, refreshToken: undefined })
      },
    )

    app.post(
      '/auth/logout',
      {
        config: { access: 'public', ignoresEnvironment: true },
        schema: {
          operationId: 'logout',
          tags: ['Auth'],
          summary: 'End the session of the access token, refresh token or cookie; done is done',
          body: LogoutBody,
          response: {
            204: NoContent,
            401: problem('The access token is not valid'),
            403: problem('The cookie came from a page of another site, or the token is a machine’s'),
          },
        },
      },
      async (request, reply) => {
        forbidCaching(reply)
        const given = request.body?.refresh_token
        const hasBearer = request.headers.authorization !== undefined
        const fromCookie = cookie.read(request)
        // With another credential, which no browser adds by itself, the request is no forgery.
        if (fromCookie !== undefined && given === undefined && !hasBearer) cookie.assertFromOwnPage(request)
        if (hasBearer) await endByAccessToken(app, request)
        for (const token of [given, fromCookie]) {
          if (token !== undefined) await sessions.endByRefreshToken(token, origin(request))
        }
        if (fromCookie !== undefined) cookie.clear(reply)
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/auth/sessions',
      {
        config: own,
        schema: {
          operationId: 'listOwnSessions',
          tags: ['Auth'],
          summary: 'List one’s own sessions that have not ended',
          querystring: ListSessionsQuery,
          response: { 200: Type.Array(ref(SessionSchema)) },
        },
      },
      async (request, reply) => {
        const { userId, sessionId } = themselves(request)
        const page = await sessions.listSessions(userId, pageRequestOf(request.query))
        return sendPage(request, reply, page, presentSession(sessionId))
      },
    )

    app.delete(
      '/auth/sessions',
      {
        config: own,
        schema: {
          operationId: 'endOtherSessions',
          tags: ['Auth'],
          summary: 'End every other session of one’s own; the one that asks goes on',
          response: { 204: NoContent },
        },
      },
      async (request, reply) => {
        await sessions.endOtherSessions(callerOf(request), personOf(request).principal)
        return reply.code(204).send(null)
      },
    )

    app.delete(
      '/auth/sessions/:session_id',
      {
        config: own,
        schema: {
          operationId: 'endOwnSession',
          tags: ['Auth'],
          summary: 'End one of one’s own sessions',
          params: SessionIdParams,
          response: { 204: NoContent, 404: problem('No such session') },
        },
      },
      async (request, reply) => {
        const { principal } = personOf(request)
        await sessions.endOwnSession(callerOf(request), principal, request.params.session_id)
        return reply.code(204).send(null)
      },
    )

    app.delete(
      '/sessions',
      {
        config: {
          access: { permission: 'postern.sessions:revoke' },
          needsRecentAuthentication: true,
          ignoresEnvironment: true,
        },
        schema: {
          operationId: 'endEverySession',
          tags: ['Users'],
          summary: 'End the sessions of everybody; the one that asks goes on',
          description:
            'For whoever holds all that a super admin holds. Access tokens are refused here at once, and by whoever ' +
            'follows the revocations within a second; to withdraw the others too, rotate the signing keys by force.',
          response: { 204: NoContent },
        },
      },
      async (request, reply) => {
        await sessions.endEverySession(callerOf(request))
        return reply.code(204).send(null)
      },
    )

    app.get(
      '/users/:user_id/sessions',
      {
        config: { access: resident('postern.sessions:read'), ignoresEnvironment: true },
        schema: {
          operationId: 'listUserSessions',
          tags: ['Users'],
          summary: 'List the sessions of a user that have not ended',
          params: UserIdParams,
          querystring: ListSessionsQuery,
          response: { 200: Type.Array(ref(SessionSchema)), 404: problem('No such user') },
        },
      },
      async (request, reply) => {
        const { principal } = callerOf(request)
        const page = await sessions.listSessionsOf(request.params.user_id, pageRequestOf(request.query))
        const currentId = principal.type === 'user' ? principal.sessionId : undefined
        return sendPage(request, reply, page, presentSession(currentId))
      },
    )

    app.delete(
      '/users/:user_id/sessions',
      {
        config: { access: resident('postern.sessions:revoke'), ignoresEnvironment: true },
        schema: {
          operationId: 'endUserSessions',
          tags: ['Users'],
          summary: 'End every session of a user',
          params: UserIdParams,
          response: { 204: NoContent, 404: problem('No such user') },
        },
      },
      async (request, reply) => {
        await sessions.endSessionsOfUser(callerOf(request), request.params.user_id)
        return reply.code(204).send(null)
      },
    )

    app.delete(
      '/users/:user_id/sessions/:session_id',
      {
        config: { access: resident('postern.sessions:revoke'), ignoresEnvironment: true },
        schema: {
          operationId: 'endUserSession',
          tags: ['Users'],
          summary: 'End one session of a user',
          params: UserSessionParams,
          response: { 204: NoContent, 404: problem('No such user or session') },
        },
      },
      async (request, reply) => {
        const { user_id, session_id } = request.params
        await sessions.endSessionOfUser(callerOf(request), user_id, session_id)
        return reply.code(204).send(null)
      },
    )
  }

  /** A cookie whose token is of no more use is taken back. */
  async function orForget<T>(isCookie: boolean, reply: FastifyReply, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (isCookie && error instanceof AppError && error.code === 'invalid_refresh_token') cookie.clear(reply)
      throw error
    }
  }

  /** @throws AppError invalid_token unless its session has ended already, insufficient_scope for who is not the person */
  async function endByAccessToken(app: FastifyInstance, request: FastifyRequest): Promise<void> {
    try {
      await app.authenticate(request)
    } catch (error) {
      if (
        error instanceof AppError &&
        error.code === 'invalid_token' &&
        (await isOfEndedSession(app, request))
      )
        return
      throw error
    }
    await sessions.endSession(callerOf(request), themselves(request).sessionId, 'signed_out')
  }

  async function isOfEndedSession(app: FastifyInstance, request: FastifyRequest): Promise<boolean> {
    const token = request.headers.authorization?.split(' ').at(-1) ?? ''
    try {
      const { sid } = await app.jwt.verify<AccessTokenClaims>(token)
      return sid !== undefined && !(await sessions.isLive(sid))
    } catch {
      return false
    }
  }
}

const origin = (request: FastifyRequest) => ({ requestId: request.id, address: request.ip })
