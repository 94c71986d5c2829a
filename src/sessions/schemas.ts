import Type, { type Static } from 'typebox'
import { RefreshResource } from '../auth/schemas.ts'
import { nullable, pageQuery, Timestamp, Uuid } from '../http/schemas.ts'
import { deviceOf } from './devices.ts'
import type { SessionRow } from './repository.ts'

const RefreshTokenText = Type.String({
  minLength: 1,
  maxLength: 512,
  description: 'Absent: the one of the cookie',
  examples: ['0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40.Yx0…'],
})

export const RefreshBody = nullable(
  Type.Object(
    {
      refresh_token: Type.Optional(RefreshTokenText),
      account: Type.Optional(
        Type.String({
          minLength: 1,
          maxLength: 128,
          description: 'Key or id of the account that the session goes on in; default: the one it is in',
        }),
      ),
      scope: Type.Optional(
        Type.String({
          maxLength: 4096,
          description: 'Space-separated; narrows this access token, within what was asked for at sign-in',
          examples: ['post:read'],
        }),
      ),
      resource: RefreshResource,
    },
    {
      additionalProperties: false,
      examples: [{ refresh_token: '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40.Yx0…' }],
    },
  ),
)

export const LogoutBody = nullable(
  Type.Object(
    { refresh_token: Type.Optional(RefreshTokenText) },
    {
      additionalProperties: false,
      examples: [{ refresh_token: '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40.Yx0…' }],
    },
  ),
)

export const SessionIdParams = Type.Object({ session_id: Uuid })
export const UserSessionParams = Type.Object({ user_id: Uuid, session_id: Uuid })
export const ListSessionsQuery = Type.Object(pageQuery(['created_at'], '-created_at'), {
  additionalProperties: false,
})

export const SessionSchema = Type.Object(
  {
    id: Type.String({ ...Uuid, description: 'The `sid` of its access tokens' }),
    client_id: Type.String({ examples: ['first-party'] }),
    account_id: nullable(Type.String({ ...Uuid, description: 'The account that its tokens are for' })),
    device: nullable(
      Type.String({ description: 'What the User-Agent seems to be', examples: ['Firefox on Linux'] }),
    ),
    user_agent: nullable(Type.String({ examples: ['Mozilla/5.0 (X11; Linux x86_64; rv:140.0) …'] })),
    address: nullable(Type.String({ description: 'Where it began', examples: ['203.0.113.7'] })),
    created_at: Timestamp,
    last_used_at: Type.String({ ...Timestamp, description: 'When it was last refreshed, or began' }),
    expires_at: Type.String({ ...Timestamp, description: 'When it ends unless it is refreshed before' }),
    is_current: Type.Boolean({ description: 'True for the session of this request' }),
  },
  { $id: 'Session', title: 'Session' },
)

/** @param currentId the session of the request, if it has one */
export const presentSession =
  (currentId?: string) =>
  (session: SessionRow): Static<typeof SessionSchema> => ({
    id: session.id,
    client_id: session.clientId,
    account_id: session.accountId,
    device: session.userAgent === null ? null : deviceOf(session.userAgent),
    user_agent: session.userAgent,
    address: session.address,
    created_at: session.createdAt.toISOString(),
    last_used_at: session.lastUsedAt.toISOString(),
    expires_at: session.expiresAt.toISOString(),
    is_current: session.id === currentId,
  })
