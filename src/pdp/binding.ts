import type { FastifyRequest } from 'fastify'
import { AppError } from '../errors.ts'
import type { Access } from '../http/access.ts'
import type { ModelOf } from '../model.ts'
import { anywhere } from '../permissions.ts'
import type { Explanation } from '../policy/engine/explain.ts'
import type { Question } from '../policy/engine/model.ts'

const CHECK = 'postern.policy:check'
const CHECK_ANYWHERE = anywhere(CHECK)

/** Whoever may ask in one account only asks about that one (see `boundTo`). */
export const mayCheck: Access = {
  permission: CHECK,
  accounts: ({ principal }) => (principal?.accountId ? [principal.accountId] : []),
  otherwise: 'insufficient_scope',
}

export type Account = { id: string; key: string; attributes: Record<string, unknown> | null }

/** True for a caller who may ask about one account only. */
export const isBound = ({ principal }: FastifyRequest): boolean =>
  principal?.scopes.has(CHECK_ANYWHERE) !== true

/** The account that a bound caller may ask about. @throws AppError account_not_found */
export async function boundTo(request: FastifyRequest, modelOf: ModelOf): Promise<Account> {
  return await modelOf(request.environmentId).accounts.getAccount(request.principal?.accountId ?? '')
}

/** The key of the account, if it is the one that was named or none was. @throws AppError insufficient_scope */
export function tenantWithin(account: Account, tenant: string | undefined): string {
  if (tenant === undefined || tenant === account.key || tenant === account.id) return account.key
  throw new AppError('insufficient_scope', { requiredScope: CHECK_ANYWHERE, boundary: true })
}

/** The same question, asked about the account. @throws AppError insufficient_scope */
export const askedWithin = <Q extends { resource: Question['resource'] }>(
  account: Account,
  question: Q,
): Q => ({
  ...question,
  resource: { ...question.resource, tenant: tenantWithin(account, question.resource.tenant) },
})

/**
 * What a caller bound to the account may see of an explanation: of its members, without the other accounts that they
 * are in. `undefined`: of others, and of who is not stored, nothing.
 */
export function explanationWithin(account: Account, explanation: Explanation): Explanation | undefined {
  const { request } = explanation
  const { tenants } = request.user.attributes
  if (!Array.isArray(tenants) || !tenants.includes(account.key)) return undefined
  const user = { ...request.user, attributes: { ...request.user.attributes, tenants: [account.key] } }
  const shown = { ...explanation, request: { ...request, user } }
  return explanation.decision.allowed ? shown : withoutElsewhere(account, shown)
}

/** A refusal without what roles and attributes of other accounts have to do with it. */
function withoutElsewhere(account: Account, { rbac, abac, ...explanation }: Explanation): Explanation {
  const holdsNone = rbac?.code === 'no_role_in_tenant' || rbac?.code === 'no_user_roles'
  const isByRules = abac?.code === 'no_matching_usersets' || abac?.code === 'no_matching_resourcesets'
  return {
    ...explanation,
    rbac: holdsNone
      ? {
          ...rbac,
          code: 'no_user_roles',
          reason: `${explanation.request.user.key} holds no role in ${account.key}`,
        }
      : rbac,
    abac: abac && {
      ...abac,
      ...(isByRules && {
        code: 'no_matching_rules',
        reason: 'no rule is about both this user and this resource',
      }),
      matchingUserSets: [],
    },
  }
}
