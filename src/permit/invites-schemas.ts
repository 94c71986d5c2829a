import Type from 'typebox'
import { Attributes, Email, UserKey } from '../http/schemas.ts'
import type { InviteRow } from '../invites/repository.ts'
import { Name, optional, PersonName, type PlaceIds, page, Search } from './schemas.ts'

export const InviteParams = Type.Object({ user_invite_id: Name })

export const CreateInviteBody = Type.Object({
  key: optional(UserKey),
  email: Email,
  first_name: optional(PersonName),
  last_name: optional(PersonName),
  /** An invitation begins so; `approve` is the way on. */
  status: optional(Type.String({ pattern: '^pending$' })),
  role_id: Name,
  tenant_id: Name,
  resource_instance_id: optional(Name),
})

export const ApproveInviteBody = Type.Object({
  email: Email,
  key: UserKey,
  attributes: optional(Attributes),
})

const Filter = Type.Optional(Type.String({ maxLength: 512 }))
export const InvitesQuery = Type.Object({ ...page, search: Search, role: Filter, tenant: Filter })

/** An invitation as Permit’s API answers it. */
export const presentInvite = (invite: InviteRow, place: PlaceIds) => ({
  id: invite.id,
  key: invite.key,
  ...place,
  status: invite.status,
  email: invite.email,
  first_name: invite.firstName,
  last_name: invite.lastName,
  role_id: invite.roleId,
  tenant_id: invite.accountId,
  resource_instance_id: invite.resourceInstanceId,
  created_at: invite.createdAt.toISOString(),
  updated_at: invite.updatedAt.toISOString(),
})
