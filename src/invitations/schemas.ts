import Type, { type Static } from 'typebox'
import { Email, nullable, Password, PersonName, pageQuery, ref, Timestamp, Uuid } from '../http/schemas.ts'
import { RoleSummarySchema } from '../roles/schemas.ts'
import { INVITATION_STATES, type InvitationRow, type InvitationState } from './repository.ts'
import type { Acceptance } from './service.ts'

const Token = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'What the link in the mail has',
  examples: ['q1Zc0Wb9fN6u5Qk3sT8xYd2hLm7pRv4aJe0oGiUyBnE'],
})
const AccountName = Type.String({ examples: ['Acme'] })

export const InvitationSchema = Type.Object(
  {
    id: Uuid,
    account_id: Uuid,
    email: Type.String({ examples: ['grace@example.com'] }),
    role: ref(RoleSummarySchema),
    status: Type.String({ enum: INVITATION_STATES }),
    invited_by: Type.Object({
      type: Type.String({ enum: ['user', 'client', 'api_key', 'system'] }),
      id: nullable(Type.String()),
    }),
    accepted_by: nullable(Uuid),
    created_at: Timestamp,
    expires_at: Timestamp,
  },
  { $id: 'Invitation', title: 'Invitation to an account' },
)

export const CreateInvitationBody = Type.Object(
  { email: Email, role_id: Uuid },
  { additionalProperties: false },
)

export const ListInvitationsQuery = Type.Object(
  {
    ...pageQuery(['created_at'], 'created_at'),
    status: Type.Optional(Type.Unsafe<InvitationState>(Type.String({ enum: INVITATION_STATES }))),
  },
  { additionalProperties: false },
)

export const InvitationParams = Type.Object({ account_id: Uuid, invitation_id: Uuid })

export const InspectInvitationBody = Type.Object({ token: Token }, { additionalProperties: false })

export const InspectedInvitationSchema = Type.Object(
  {
    account: Type.Object({ name: AccountName }),
    role: Type.Object({ name: Type.String({ examples: ['editor'] }) }),
    email: Type.String({ examples: ['grace@example.com'] }),
    needs_sign_in: Type.Boolean({
      description:
        'True when the email belongs to somebody: sign in before accepting. Else choose a password',
    }),
    expires_at: Timestamp,
  },
  { $id: 'InspectedInvitation', title: 'What an invitation is for' },
)

export const AcceptInvitationBody = Type.Object(
  {
    token: Token,
    password: Type.Optional(Type.String({ ...Password, description: 'Required of people who are new' })),
    full_name: Type.Optional(PersonName),
  },
  { additionalProperties: false },
)

export const AcceptedInvitationSchema = Type.Object(
  {
    user_id: Uuid,
    account_id: Uuid,
    role: ref(RoleSummarySchema),
    is_new_user: Type.Boolean({ description: 'Whether the user was made now, with the account as the home' }),
  },
  { $id: 'AcceptedInvitation', title: 'What came of an invitation' },
)

const presentRole = ({ id, name, description }: InvitationRow['role']) => ({ id, name, description })

/** An invitation as administrators of its account see it, without its token. */
export const presentInvitation = (row: InvitationRow): Static<typeof InvitationSchema> => ({
  id: row.id,
  account_id: row.accountId,
  email: row.email,
  role: presentRole(row.role),
  status: row.state,
  invited_by: { type: row.invitedByType, id: row.invitedById },
  accepted_by: row.acceptedByUserId,
  created_at: row.createdAt.toISOString(),
  expires_at: row.expiresAt.toISOString(),
})

/** An invitation as whoever has its link sees it. */
export const presentInspected = (
  { accountName, role, email, expiresAt }: InvitationRow,
  needsSignIn: boolean,
): Static<typeof InspectedInvitationSchema> => ({
  account: { name: accountName },
  role: { name: role.name },
  email,
  needs_sign_in: needsSignIn,
  expires_at: expiresAt.toISOString(),
})

/** What has become of whoever accepted an invitation. */
export const presentAcceptance = ({
  invitation,
  userId,
  isNewUser,
}: Acceptance): Static<typeof AcceptedInvitationSchema> => ({
  user_id: userId,
  account_id: invitation.accountId,
  role: presentRole(invitation.role),
  is_new_user: isNewUser,
})
