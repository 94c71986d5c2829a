import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import {
  ApproveInviteBody,
  CreateInviteBody,
  InviteParams,
  InvitesQuery,
  presentInvite,
} from './invites-schemas.ts'
import { dashed } from './names.ts'
import { placeOf } from './place.ts'
import { listed, nameOf, presentUser } from './schemas.ts'

const READ: Access = { permission: 'postern.users:read' }
const WRITE: Access = { permission: 'postern.users:write' }
const ASSIGN: Access = { permission: 'postern.roles:assign' }

/** Invitations, by key or id. */
export function invitesRoutes({ modelOf }: Pick<Services, 'modelOf'>): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const named = ({ params }: { params: { user_invite_id: string } }) => dashed(params.user_invite_id)

  return async (app) => {
    app.get(
      '/user_invites',
      { config: { access: READ }, schema: { hide: true, querystring: InvitesQuery } },
      async (request) => {
        const { page, per_page: perPage, search, role, tenant } = request.query
        const { items, total } = await of(request).invites.listInvites(
          {
            search: nameOf(search),
            role: role && dashed(role),
            account: tenant && dashed(tenant),
          },
          { limit: perPage, skip: (page - 1) * perPage },
        )
        return listed(
          items.map((invite) => presentInvite(invite, placeOf(request))),
          total,
          perPage,
        )
      },
    )

    app.post(
      '/user_invites',
      { config: { access: ASSIGN }, schema: { hide: true, body: CreateInviteBody } },
      async (request) => {
        const { permit, permitSets, invites } = of(request)
        const { key, email, first_name, last_name, role_id, tenant_id, resource_instance_id } = request.body
        const invite = await invites.createInvite(callerOf(request), {
          key: key ?? undefined,
          email,
          firstName: first_name ?? null,
          lastName: last_name ?? null,
          role: await permitSets.getRole(role_id),
          accountId: (await permit.getAccount(tenant_id)).id,
          instance: resource_instance_id == null ? undefined : dashed(resource_instance_id),
        })
        return presentInvite(invite, placeOf(request))
      },
    )

    app.get(
      '/user_invites/:user_invite_id',
      { config: { access: READ }, schema: { hide: true, params: InviteParams } },
      async (request) => presentInvite(await of(request).invites.getInvite(named(request)), placeOf(request)),
    )

    app.post(
      '/user_invites/:user_invite_id/approve',
      { config: { access: WRITE }, schema: { hide: true, params: InviteParams, body: ApproveInviteBody } },
      async (request) => {
        const { invites, permit } = of(request)
        const { email, key, attributes } = request.body
        const id = await invites.approveInvite(callerOf(request), named(request), {
          email,
          key,
          attributes: attributes ?? undefined,
        })
        const { user, holdings } = await permit.getUser(id)
        return presentUser(user, holdings, placeOf(request))
      },
    )

    app.delete(
      '/user_invites/:user_invite_id',
      { config: { access: ASSIGN }, schema: { hide: true, params: InviteParams } },
      async (request, reply) => {
        await of(request).invites.deleteInvite(callerOf(request), named(request))
        return await reply.code(204).send()
      },
    )
  }
}
