import Type, { type Static } from 'typebox'
import { LONGEST_AUDIENCE, MOST_AUDIENCES } from '../audiences.ts'
import { Password } from '../http/schemas.ts'

/** A text as the form sends it: absent when it has no value (RFC 6749 §3.2). */
const Parameter = Type.String({ maxLength: 4096 })

/** What another sign-in on the device was answered. One that is not genuine counts for nothing. */
const DeviceToken = Type.String({
  maxLength: 128,
  description: '`device_token` of the last sign-in on this device, unless it is in the cookie',
})

/** RFC 8707 §2; see `resourcesOf`. */
const resource = (description: string, minLength: number) => {
  const one = { minLength, maxLength: LONGEST_AUDIENCE, examples: ['https://posts.example.com'] }
  return Type.Optional(
    Type.Union([Type.String(one), Type.Array(Type.String(one), { minItems: 1, maxItems: MOST_AUDIENCES })], {
      description,
    }),
  )
}
const AT_SIGN_IN =
  'Whom the tokens of the session are for, PUBLIC_URL or one of SERVICE_AUDIENCES, or several of them; ' +
  'default: PUBLIC_URL, and a refresh may name others'

/** At a refresh. */
export const RefreshResource = resource(
  'Whom this access token is for: one of those that the session was begun with, or when it was begun with none, ' +
    'PUBLIC_URL or one of SERVICE_AUDIENCES; or several of them. Default: as at sign-in',
  1,
)

/** The audiences that a request names, once or several times; `undefined` for none. Without a value it is not sent. */
export function resourcesOf(resource: string | readonly string[] | undefined): string[] | undefined {
  const named = [resource ?? []].flat().filter((one) => one !== '')
  return named.length > 0 ? named : undefined
}

/** RFC 6749 §4.3.2; parameters that we do not know are ignored (§3.2). */
export const PasswordGrantForm = Type.Object(
  {
    grant_type: Type.Optional(Type.String({ pattern: '^(password)?$', examples: ['password'] })),
    username: Type.String({
      minLength: 1,
      maxLength: 254,
      description: 'The email',
      examples: ['ada@example.com'],
    }),
    password: Password,
    scope: Type.Optional(Parameter),
    account: Type.Optional(
      Type.String({ maxLength: 128, description: 'Key or id of the account; default: the home account' }),
    ),
    resource: resource(AT_SIGN_IN, 0),
    device_token: Type.Optional(DeviceToken),
    client_id: Type.Optional(Parameter),
    client_secret: Type.Optional(Parameter),
  },
  { title: 'PasswordGrant' },
)

/** What whoever signs in may say of the tokens that they get. */
export const TokenWishes = {
  scope: Type.Optional(
    Type.String({
      maxLength: 4096,
      description: 'Space-separated; narrows the token',
      examples: ['post:read'],
    }),
  ),
  account: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 128,
      description: 'Key or id of the account that the token is for; default: the home account',
    }),
  ),
  resource: resource(AT_SIGN_IN, 1),
  use_cookie: Type.Optional(
    Type.Boolean({
      description:
        'True, from pages in a browser: the refresh token comes in an HttpOnly cookie and not in the answer',
    }),
  ),
}

export const LoginBody = Type.Object(
  {
    email: Type.String({ minLength: 1, maxLength: 254, examples: ['ada@example.com'] }),
    password: Password,
    device_token: Type.Optional(DeviceToken),
    ...TokenWishes,
  },
  { additionalProperties: false },
)

/** RFC 6749 §5.1. */
export const TokenSchema = Type.Object(
  {
    access_token: Type.String({ description: 'A JWT (RFC 9068)', examples: ['eyJhbGciOiJFUzI1NiIs…'] }),
    token_type: Type.Literal('bearer'),
    expires_in: Type.Integer({ description: 'Seconds', examples: [900] }),
    refresh_token: Type.Optional(
      Type.String({
        description: 'For POST /api/v1/auth/refresh, once; absent when it is in the cookie',
        examples: ['0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40.Yx0…'],
      }),
    ),
    device_token: Type.Optional(
      Type.String({
        description:
          'To be sent with the next sign-in on this device, which strangers cannot hold up then; of sign-ins only, and absent when it is in the cookie',
        examples: ['n0pG3yqkq1l2VdM5m8Q0Cw.tb3k2d.5u0G…'],
      }),
    ),
    scope: Type.String({ examples: ['post:read post:write'] }),
  },
  { $id: 'Token', title: 'An access token' },
)

type Tokens = {
  accessToken: string
  expiresInSeconds: number
  refreshToken: string | undefined
  deviceToken?: string | undefined
  scope: string
}

/** Tokens as a sign-in or a refresh answers them (RFC 6749 §5.1). */
export const presentToken = (tokens: Tokens): Static<typeof TokenSchema> => ({
  access_token: tokens.accessToken,
  token_type: 'bearer',
  expires_in: tokens.expiresInSeconds,
  ...(tokens.refreshToken !== undefined && { refresh_token: tokens.refreshToken }),
  ...(tokens.deviceToken !== undefined && { device_token: tokens.deviceToken }),
  scope: tokens.scope,
})

/** RFC 6749 §5.2, with `detail` for clients of the FastAPI service. */
export const OAuthErrorSchema = Type.Object(
  {
    error: Type.String({ examples: ['invalid_grant'] }),
    error_description: Type.String({ examples: ['Incorrect email or password'] }),
    detail: Type.String({ examples: ['Incorrect email or password'] }),
    mfa_token: Type.Optional(
      Type.String({ description: 'With `mfa_required`: for POST /api/v1/auth/mfa/verify' }),
    ),
    methods: Type.Optional(
      Type.Array(Type.String({ enum: ['totp', 'passkey', 'recovery_code'] }), {
        description: 'With `mfa_required`: what is enrolled',
      }),
    ),
    expires_in: Type.Optional(Type.Integer({ description: 'With `mfa_required`: seconds' })),
  },
  { $id: 'OAuthError', title: 'OAuth error' },
)

export const HashPasswordBody = Type.Object({ password: Password }, { additionalProperties: false })

export const ChangePasswordBody = Type.Object(
  { current_password: Password, new_password: Password },
  { additionalProperties: false },
)
