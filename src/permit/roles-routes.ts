import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import { callerOf } from '../http/authenticate.ts'
import type { Services } from '../services.ts'
import { placeOf } from './place.ts'
import type { OwnedRole } from './roles.ts'
import {
  BulkRolesBody,
  CreateRoleBody,
  DerivationBody,
  DerivationConditionsBody,
  DerivationEndsBody,
  derivationOf,
  ListQuery,
  PermissionsBody,
  presentDerivation,
  presentOwnedRole,
  ResourceRoleParams,
  RoleParams,
  RoleParentParams,
  RolesParams,
  roleFieldsOf,
  UpdateRoleBody,
} from './roles-schemas.ts'
import { listed } from './schemas.ts'

type Accesses = { read: Access; write: Access }
const OF_TENANTS: Accesses = {
  read: { permission: 'postern.roles:read' },
  write: { permission: 'postern.roles:write' },
}
const OF_RESOURCES: Accesses = {
  read: { permission: 'postern.policy:read' },
  write: { permission: 'postern.policy:write' },
}

/** Roles by key or id: those held in tenants, and those of a resource, with what they are derived from. */
export function rolesRoutes({
  modelOf,
  bulkBodyLimit: bodyLimit,
}: Pick<Services, 'modelOf'> & { bulkBodyLimit: number }): FastifyPluginAsyncTypebox {
  const rolesOf = (request: FastifyRequest) => modelOf(request.environmentId).permitRoles

  return async (app) => {
    await app.register(routesOf('/roles', OF_TENANTS))
    await app.register(routesOf('/resources/:resource_id/roles', OF_RESOURCES))

    app.put(
      '/bulk/roles',
      // Some of the roles may be of resources.
      { bodyLimit, config: { access: OF_RESOURCES.write }, schema: { hide: true, body: BulkRolesBody } },
      async (request) =>
        await modelOf(request.environmentId).permitRoleSets.put(
          callerOf(request),
          request.body.operations.map(({ key, resource, ...fields }) => ({
            ...roleFieldsOf(fields),
            key,
            resource: resource ?? undefined,
          })),
        ),
    )

    app.post(
      '/resources/:resource_id/roles/:role_id/implicit_grants',
      {
        config: { access: OF_RESOURCES.write },
        schema: { hide: true, params: ResourceRoleParams, body: DerivationBody },
      },
      async (request) => {
        const { resource_id: resource, role_id: role } = request.params
        const spec = derivationOf(request.body)
        return presentDerivation(await rolesOf(request).derive(callerOf(request), resource, role, spec))
      },
    )

    app.delete(
      '/resources/:resource_id/roles/:role_id/implicit_grants',
      {
        config: { access: OF_RESOURCES.write },
        schema: { hide: true, params: ResourceRoleParams, body: DerivationEndsBody },
      },
      async (request, reply) => {
        const { resource_id: resource, role_id: role } = request.params
        await rolesOf(request).underive(callerOf(request), resource, role, derivationOf(request.body))
        return await reply.code(204).send()
      },
    )

    app.put(
      '/resources/:resource_id/roles/:role_id/implicit_grants/conditions',
      {
        config: { access: OF_RESOURCES.write },
        schema: { hide: true, params: ResourceRoleParams, body: DerivationConditionsBody },
      },
      async (request) => {
        const { resource_id: resource, role_id: name } = request.params
        const noDirectRolesOnObject = request.body.no_direct_roles_on_object ?? false
        const { role } = await rolesOf(request).update(
          callerOf(request),
          name,
          { noDirectRolesOnObject },
          resource,
        )
        return { no_direct_roles_on_object: role.noDirectRolesOnObject }
      },
    )
  }

  /** The routes that roles of both kinds have. */
  function routesOf(path: string, { read, write }: Accesses): FastifyPluginAsyncTypebox {
    const present = (request: FastifyRequest, role: OwnedRole) => presentOwnedRole(role, placeOf(request))

    return async (app) => {
      app.get(
        path,
        { config: { access: read }, schema: { hide: true, params: RolesParams, querystring: ListQuery } },
        async (request) => {
          const { page, per_page: perPage, include_total_count: counts } = request.query
          const { resource_id: resource } = request.params
          const { items, total } = await rolesOf(request).list(resource, { page, perPage }, counts)
          return listed(
            items.map((role) => present(request, role)),
            total,
            perPage,
          )
        },
      )

      app.post(
        path,
        { config: { access: write }, schema: { hide: true, params: RolesParams, body: CreateRoleBody } },
        async (request) => {
          const { key, ...fields } = request.body
          const input = { ...roleFieldsOf(fields), key }
          const { resource_id: resource } = request.params
          return present(request, await rolesOf(request).create(callerOf(request), input, resource))
        },
      )

      app.get(
        `${path}/:role_id`,
        { config: { access: read }, schema: { hide: true, params: RoleParams } },
        async (request) => {
          const { role_id: role, resource_id: resource } = request.params
          return present(request, await rolesOf(request).get(role, resource))
        },
      )

      app.patch(
        `${path}/:role_id`,
        { config: { access: write }, schema: { hide: true, params: RoleParams, body: UpdateRoleBody } },
        async (request) => {
          const { role_id: role, resource_id: resource } = request.params
          const fields = roleFieldsOf(request.body)
          return present(request, await rolesOf(request).update(callerOf(request), role, fields, resource))
        },
      )

      app.delete(
        `${path}/:role_id`,
        { config: { access: write }, schema: { hide: true, params: RoleParams } },
        async (request, reply) => {
          const { role_id: role, resource_id: resource } = request.params
          await rolesOf(request).remove(callerOf(request), role, resource)
          return await reply.code(204).send()
        },
      )

      app.post(
        `${path}/:role_id/permissions`,
        { config: { access: write }, schema: { hide: true, params: RoleParams, body: PermissionsBody } },
        async (request) => {
          const { role_id: role, resource_id: resource } = request.params
          const { permissions } = request.body
          return present(
            request,
            await rolesOf(request).addPermissions(callerOf(request), role, permissions, resource),
          )
        },
      )

      app.delete(
        `${path}/:role_id/permissions`,
        { config: { access: write }, schema: { hide: true, params: RoleParams, body: PermissionsBody } },
        async (request) => {
          const { role_id: role, resource_id: resource } = request.params
          const { permissions } = request.body
          return present(
            request,
            await rolesOf(request).removePermissions(callerOf(request), role, permissions, resource),
          )
        },
      )

      for (const which of ['ancestors', 'descendants'] as const) {
        app.get(
          `${path}/:role_id/${which}`,
          { config: { access: read }, schema: { hide: true, params: RoleParams } },
          async (request) => {
            const { role_id: role, resource_id: resource } = request.params
            const found = await rolesOf(request).listRelatives(which, role, resource)
            return found.map((one) => present(request, one))
          },
        )
      }

      for (const [method, isParent] of [
        ['PUT', true],
        ['DELETE', false],
      ] as const) {
        app.route({
          method,
          url: `${path}/:role_id/parents/:parent_role_id`,
          config: { access: write },
          schema: { hide: true, params: RoleParentParams },
          handler: async (request) => {
            const { role_id: role, parent_role_id: parent, resource_id: resource } = request.params
            return present(
              request,
              await rolesOf(request).setParent(callerOf(request), role, parent, isParent, resource),
            )
          },
        })
      }
    }
  }
}
