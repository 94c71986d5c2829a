import Type, { type Static } from 'typebox'
import { Attributes, Key, nullable, pageQuery, ref, Timestamp, Uuid } from '../http/schemas.ts'
import {
  ACCOUNT_SORTS,
  type AccountChanges,
  type AccountFilters,
  type AccountRow,
  type MemberRow,
  type Membership,
} from './repository.ts'

const AccountName = Type.String({ minLength: 1, maxLength: 255, examples: ['Acme'] })
const IsMfaRequired = Type.Boolean({ description: 'Whether a token for the account takes two factors' })
const Description = Type.String({ maxLength: 1000, examples: ['Makers of everything'] })

export const AccountSchema = Type.Object(
  {
    id: Uuid,
    key: Type.String({ examples: ['acme'] }),
    name: AccountName,
    description: nullable(Description),
    is_active: Type.Boolean(),
    is_mfa_required: IsMfaRequired,
    plan_id: nullable(Uuid),
    current_subscription_ends: nullable(Timestamp),
    attributes: nullable(Type.Object({}, { additionalProperties: true })),
    created_at: Timestamp,
    updated_at: Timestamp,
  },
  { $id: 'Account', title: 'Account' },
)

const optionalFields = {
  description: Type.Optional(nullable(Description)),
  is_active: Type.Optional(Type.Boolean()),
  is_mfa_required: Type.Optional(IsMfaRequired),
  plan_id: Type.Optional(nullable(Uuid)),
  current_subscription_ends: Type.Optional(nullable(Timestamp)),
  attributes: Type.Optional(nullable(Attributes)),
}

export const CreateAccountBody = Type.Object(
  { name: AccountName, key: Type.Optional(Key), ...optionalFields },
  { additionalProperties: false, examples: [{ name: 'Acme', description: 'Makers of everything' }] },
)

export const UpdateAccountBody = Type.Object(
  { name: Type.Optional(AccountName), ...optionalFields },
  {
    additionalProperties: false,
    minProperties: 1,
    examples: [{ description: 'Makers of nearly everything' }],
  },
)

export const ListAccountsQuery = Type.Object(
  {
    ...pageQuery(ACCOUNT_SORTS, 'created_at'),
    q: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 128,
        description: 'Text anywhere in the name, key or description',
      }),
    ),
    key: Type.Optional(Type.String({ maxLength: 128 })),
    is_active: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)

export const ListMembersQuery = Type.Object(pageQuery(['created_at'], 'created_at'), {
  additionalProperties: false,
})

export const MoveUserBody = Type.Object({ user_id: Uuid }, { additionalProperties: false })

export const MemberSchema = Type.Object(
  {
    user_id: Uuid,
    email: nullable(Type.String()),
    full_name: nullable(Type.String()),
    is_home: Type.Boolean({ description: 'Whether this is the user’s home account' }),
    status: Type.String({ enum: ['active', 'pending'] }),
    created_at: Timestamp,
  },
  { $id: 'Member', title: 'Member of an account' },
)

export const MembershipSchema = Type.Object(
  {
    account: ref(AccountSchema),
    is_home: Type.Boolean(),
    status: Type.String({ enum: ['active', 'pending'] }),
  },
  { $id: 'Membership', title: 'An account that one belongs to' },
)

/** An account as it is answered. */
export const presentAccount = (row: AccountRow): Static<typeof AccountSchema> => ({
  id: row.id,
  key: row.key,
  name: row.name,
  description: row.description,
  is_active: row.isActive,
  is_mfa_required: row.isMfaRequired,
  plan_id: row.planId,
  current_subscription_ends: row.currentSubscriptionEnds?.toISOString() ?? null,
  attributes: row.attributes,
  created_at: row.createdAt.toISOString(),
  updated_at: row.updatedAt.toISOString(),
})

/** A member of an account as it is answered. */
export const presentMember = (row: MemberRow): Static<typeof MemberSchema> => ({
  user_id: row.userId,
  email: row.email,
  full_name: row.fullName,
  is_home: row.isHome,
  status: row.status,
  created_at: row.createdAt.toISOString(),
})

/** An account that a person belongs to as it is answered. */
export const presentMembership = (row: Membership): Static<typeof MembershipSchema> => ({
  account: presentAccount(row.account),
  is_home: row.isHome,
  status: row.status,
})

type UpdateAccount = Static<typeof UpdateAccountBody>

/** The fields of a body as the service takes them. Absent stays absent, null stays null. */
export function accountFields(body: UpdateAccount): Omit<AccountChanges, 'key'> {
  const {
    is_active: isActive,
    is_mfa_required: isMfaRequired,
    plan_id: planId,
    current_subscription_ends: ends,
    name,
    description,
    attributes,
  } = body
  const currentSubscriptionEnds = typeof ends === 'string' ? new Date(ends) : ends
  const all = { name, description, attributes, isActive, isMfaRequired, planId, currentSubscriptionEnds }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

/** The filters that a query names; those it leaves out are absent. */
export function accountFilters({
  q,
  key,
  is_active: isActive,
}: Static<typeof ListAccountsQuery>): AccountFilters {
  return Object.fromEntries(Object.entries({ q, key, isActive }).filter(([, value]) => value !== undefined))
}
