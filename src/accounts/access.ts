import type { FastifyRequest } from 'fastify'
import type { Access } from '../http/access.ts'
import type { BuiltinPermission } from '../permissions.ts'

/** The account that the path names by `account_id`. */
export const accountIdOf = (request: FastifyRequest): string =>
  (request.params as { account_id: string }).account_id.toLowerCase()

/** Access to the account that the path names; to others it is not there. */
export const ofAccount = (permission: BuiltinPermission): Access => ({
  permission,
  accounts: (request) => [accountIdOf(request)],
  otherwise: 'account_not_found',
})
