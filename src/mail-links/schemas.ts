import Type, { type Static } from 'typebox'
import { TokenWishes } from '../auth/schemas.ts'
import { Email, nullable, Password, Timestamp } from '../http/schemas.ts'

const EXAMPLE_TOKEN = 'lUEgR6z0QT0xcMUOr3KDJPjR0CRgTHhZNQyg5x4qwVM'

const LinkToken = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'What the link in the mail carries',
  examples: [EXAMPLE_TOKEN],
})

export const EmailBody = Type.Object({ email: Email }, { additionalProperties: false })

/** What is not answered at once, and alike whatever comes of it. */
export const AcceptedSchema = Type.Object(
  { status: Type.Literal('accepted', { description: 'A mail is sent if there is somebody to send it to' }) },
  { $id: 'Accepted', title: 'A mail was asked for' },
)

export const ACCEPTED: Static<typeof AcceptedSchema> = { status: 'accepted' }

export const ConfirmBody = Type.Object({ token: LinkToken }, { additionalProperties: false })

export const ConfirmPasswordResetBody = Type.Object(
  { token: LinkToken, password: Password },
  { additionalProperties: false },
)

export const MagicLinkRequestSchema = Type.Object(
  {
    request_token: Type.String({
      description: 'To be kept where the link was asked for, and sent with it: the link works only there',
      examples: [EXAMPLE_TOKEN],
    }),
  },
  { $id: 'MagicLinkRequest', title: 'A link that was asked for' },
)

export const VerifyMagicLinkBody = Type.Object(
  {
    token: LinkToken,
    request_token: Type.String({
      minLength: 1,
      maxLength: 128,
      description: 'What POST /api/v1/auth/magic-link has answered',
      examples: [EXAMPLE_TOKEN],
    }),
    ...TokenWishes,
  },
  { additionalProperties: false },
)

export const EmailStateSchema = Type.Object(
  {
    email: nullable(Type.String({ examples: ['ada@example.com'] })),
    verified_at: nullable(Timestamp),
  },
  { $id: 'EmailState', title: 'One’s own email, and when it was confirmed' },
)

export const EmailChangeSchema = Type.Object(
  {
    is_changed: Type.Boolean({ description: 'False while the other address has not confirmed the change' }),
  },
  { $id: 'EmailChange', title: 'How far a change of an email is' },
)

/** Whether one’s own email is confirmed, and since when, as it is answered. */
export const presentEmailState = (state: {
  email: string | null
  verifiedAt: Date | null
}): Static<typeof EmailStateSchema> => ({
  email: state.email,
  verified_at: state.verifiedAt?.toISOString() ?? null,
})
