import Type from 'typebox'
import { Password } from '../http/schemas.ts'

/** A text as the form sends it: absent when it has no value (RFC 6749 §3.2). */
const Parameter = Type.String({ maxLength: 4096 })

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
    client_id: Type.Optional(Parameter),
    client_secret: Type.Optional(Parameter),
  },
  { title: 'PasswordGrant' },
)

export const LoginBody = Type.Object(
  {
    email: Type.String({ minLength: 1, maxLength: 254, examples: ['ada@example.com'] }),
    password: Password,
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
  },
  { additionalProperties: false },
)

/** RFC 6749 §5.1. */
export const TokenSchema = Type.Object(
  {
    access_token: Type.String({ description: 'A JWT (RFC 9068)', examples: ['eyJhbGciOiJFUzI1NiIs…'] }),
    token_type: Type.Literal('bearer'),
    expires_in: Type.Integer({ description: 'Seconds', examples: [900] }),
    scope: Type.String({ examples: ['post:read post:write'] }),
  },
  { $id: 'Token', title: 'An access token' },
)

/** RFC 6749 §5.2, with `detail` for clients of the FastAPI service. */
export const OAuthErrorSchema = Type.Object(
  {
    error: Type.String({ examples: ['invalid_grant'] }),
    error_description: Type.String({ examples: ['Incorrect email or password'] }),
    detail: Type.String({ examples: ['Incorrect email or password'] }),
  },
  { $id: 'OAuthError', title: 'OAuth error' },
)

export const HashPasswordBody = Type.Object({ password: Password }, { additionalProperties: false })

export const ChangePasswordBody = Type.Object(
  { current_password: Password, new_password: Password },
  { additionalProperties: false },
)
