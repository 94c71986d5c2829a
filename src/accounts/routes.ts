import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError, fail } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { callerOf, personOf } from '../http/authenticate.ts'
import { ifMatchOf, setEtag } from '../http/etag.ts'
import { pageRequestOf, sendPage } from '../http/paging.ts'
import { AccountIdParams, IfMatchHeaders, MemberParams, NoContent, problem, ref } from '../http/schemas.ts'
import { anywhere, type BuiltinPermission } from '../permissions.ts'
import type { Principal } from '../principal.ts'
import type { Services } from '../services.ts'
import { ListAccountUsersQuery, presentUser, UserSchema, userFilters } from '../users/schemas.ts'
import { ofAccount } from './access.ts'
import type { AccountRow } from './repository.ts'
import {
  AccountSchema,
  accountFields,
  accountFilters,
  CreateAccountBody,
  ListAccountsQuery,
  ListMembersQuery,
  MemberSchema,
  MoveUserBody,
  presentAccount,
  presentMember,
  UpdateAccountBody,
} from './schemas.ts'

type Dependencies = Pick<Services, 'modelOf' | 'throttle' | 'config'>

const CREATE = 'postern.accounts:write' satisfies BuiltinPermission
/** What whoever opens an account for themselves does not decide: what it has paid for, and whether it is served. */
const RESERVED_FIELDS = ['plan_id', 'current_subscription_ends', 'is_active'] as const
/** Refusals of a taken key tell what is taken, so that they have a limit too. */
const MOST_OPENED_AN_HOUR = 20

/** Access to the account that the token is for. */
const tokensAccount = (permission: BuiltinPermission): Access => ({
  permission,
  accounts: ({ principal }) => (principal?.accountId ? [principal.accountId] : []),
  otherwise: 'account_not_found',
})

/** Accounts (tenants), who is at home in them and who is a member. */
export function accountsRoutes({ modelOf, throttle, config }: Dependencies): FastifyPluginAsyncTypebox {
  const of = (request: FastifyRequest) => modelOf(request.environmentId)
  const { isCreationOpen, perPerson } = config.accounts
  const opensOwn = (principal: Principal): boolean =>
    isCreationOpen &&
    principal.type === 'user' &&
    principal.actingClientId === undefined &&
    !principal.scopes.has(anywhere(CREATE))

  /** Opens an account for whoever asks, who may decide less of it than an administrator. */
  async function openAccount(
    request: FastifyRequest,
    { name, key, ...fields }: Static<typeof CreateAccountBody>,
  ): Promise<AccountRow> {
    const { principal } = personOf(request)
    // People live in the default environment; in others nothing is theirs to open.
    if (request.environmentId !== DEFAULT_ENVIRONMENT)
      throw new AppError('insufficient_scope', { requiredScope: anywhere(CREATE) })
    const reserved = RESERVED_FIELDS.filter((field) => fields[field] !== undefined)
    if (reserved.length > 0) {
      throw new AppError('validation_failed', {
        errors: reserved.map((field) => ({
          pointer: `/body/${field}`,
          detail: 'is for administrators to set',
        })),
      })
    }
    await throttle.count('account', principal.userId, MOST_OPENED_AN_HOUR, 3600)
    const input = { ...accountFields(fields), name, ...(key !== undefined && { key }) }
    return await of(request).accounts.openAccount(callerOf(request), principal.userId, input, perPerson)
  }

  return async (app) => {
    app.get(
      '/accounts',
      {
        config: { access: { permission: 'postern.accounts:read' } },
        schema: {
          operationId: 'listAccounts',
          tags: ['Accounts'],
          summary: 'List accounts',
          querystring: ListAccountsQuery,
          response: { 200: Type.Array(ref(AccountSchema)) },
        },
      },
      async (request, reply) => {
        const page = await of(request).accounts.listAccounts(
          accountFilters(request.query),
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentAccount)
      },
    )

    app.post(
      '/accounts',
      {
        config: { access: { permission: CREATE, alsoFor: opensOwn } },
        schema: {
          operationId: 'createAccount',
          tags: ['Accounts'],
          summary:
            'Create an account; with ACCOUNTS_OPEN_CREATION anybody opens one of their own. The key is made from the name unless given',
          body: CreateAccountBody,
          response: {
            201: ref(AccountSchema),
            409: problem('The name or key is taken, or one has opened as many as one may'),
            429: problem('Too many attempts; Retry-After says when'),
          },
        },
      },
      async (request, reply) => {
        const { name, key, ...fields } = request.body
        const account = opensOwn(callerOf(request).principal)
          ? await openAccount(request, request.body)
          : await of(request).accounts.createAccount(callerOf(request), {
              ...accountFields(fields),
              name,
              ...(key !== undefined && { key }),
            })
        setEtag(reply, account)
        return reply
          .code(201)
          .header('location', `/api/v1/accounts/${account.id}`)
          .send(presentAccount(account))
      },
    )

    app.get(
      '/accounts/me',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'getOwnAccount',
          tags: ['Accounts'],
          summary: 'The account that the token is for',
          response: { 200: ref(AccountSchema), 404: problem('The token is for no account') },
        },
      },
      async (request, reply) => {
        const { principal } = personOf(request)
        const account = await of(request).accounts.getAccount(
          principal.accountId ?? fail('account_not_found'),
        )
        setEtag(reply, account)
        return presentAccount(account)
      },
    )

    app.get(
      '/accounts/users/me',
      {
        config: { access: tokensAccount('postern.users:read'), ignoresEnvironment: true },
        schema: {
          operationId: 'listUsersOfOwnAccount',
          tags: ['Accounts'],
          summary: 'List the users of the account that the token is for',
          querystring: ListAccountUsersQuery,
          response: { 200: Type.Array(ref(UserSchema)), 404: problem('The token is for no account') },
        },
      },
      async (request, reply) => {
        const accountId = request.principal?.accountId ?? fail('account_not_found')
        const filters = { ...userFilters(request.query), accountId }
        return sendPage(
          request,
          reply,
          await of(request).users.listUsers(filters, pageRequestOf(request.query)),
          presentUser,
        )
      },
    )

    app.get(
      '/accounts/:account_id',
      {
        config: { access: ofAccount('postern.accounts:read') },
        schema: {
          operationId: 'getAccount',
          tags: ['Accounts'],
          summary: 'Get an account',
          params: AccountIdParams,
          response: { 200: ref(AccountSchema), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const account = await of(request).accounts.getAccount(request.params.account_id)
        setEtag(reply, account)
        return presentAccount(account)
      },
    )

    for (const method of ['put', 'patch'] as const) {
      app[method](
        '/accounts/:account_id',
        {
          config: { access: ofAccount('postern.accounts:write') },
          schema: {
            operationId: `${method}Account`,
            tags: ['Accounts'],
            summary: 'Change an account: absent fields stay, null clears',
            params: AccountIdParams,
            headers: IfMatchHeaders,
            body: UpdateAccountBody,
            response: {
              200: ref(AccountSchema),
              404: problem('No such account'),
              409: problem('It is home to the last super admin'),
              412: problem('The record has changed'),
            },
          },
        },
        async (request, reply) => {
          const account = await of(request).accounts.updateAccount(
            callerOf(request),
            request.params.account_id,
            accountFields(request.body),
            ifMatchOf(request),
          )
          setEtag(reply, account)
          return presentAccount(account)
        },
      )
    }

    app.delete(
      '/accounts/:account_id',
      {
        config: { access: ofAccount('postern.accounts:delete') },
        schema: {
          operationId: 'deleteAccount',
          tags: ['Accounts'],
          summary: 'Delete an account without people',
          params: AccountIdParams,
          headers: IfMatchHeaders,
          response: {
            204: NoContent,
            404: problem('No such account'),
            409: problem('It still has people, or it is the first account'),
            412: problem('The record has changed'),
          },
        },
      },
      async (request, reply) => {
        await of(request).accounts.deleteAccount(
          callerOf(request),
          request.params.account_id,
          ifMatchOf(request),
        )
        return reply.code(204).send(null)
      },
    )

    for (const [verb, isActive] of [
      ['deactivate', false],
      ['reactivate', true],
    ] as const) {
      app.post(
        `/accounts/:account_id/${verb}`,
        {
          config: { access: ofAccount('postern.accounts:write') },
          schema: {
            operationId: `${verb}Account`,
            tags: ['Accounts'],
            summary: isActive
              ? 'Let the account’s tokens work again'
              : 'Refuse every token for the account, at once',
            params: AccountIdParams,
            headers: IfMatchHeaders,
            response: {
              200: ref(AccountSchema),
              412: problem('The record has changed'),
              404: problem('No such account'),
              ...(!isActive && { 409: problem('It is home to the last super admin') }),
            },
          },
        },
        async (request, reply) => {
          const { account_id } = request.params
          const account = await of(request).accounts.updateAccount(
            callerOf(request),
            account_id,
            { isActive },
            ifMatchOf(request),
          )
          setEtag(reply, account)
          return presentAccount(account)
        },
      )
    }

    app.post(
      '/accounts/:account_id/users',
      {
        config: { access: { permission: 'postern.users:write' } },
        schema: {
          operationId: 'moveUserToAccount',
          tags: ['Accounts'],
          summary: 'Make the account a user’s home; the primary role moves along',
          params: AccountIdParams,
          body: MoveUserBody,
          response: {
            200: ref(UserSchema),
            404: problem('No such account or user'),
            409: problem('This is the last super admin, and the account is not active'),
          },
        },
      },
      async (request, reply) => {
        const user = await of(request).accounts.moveUser(
          callerOf(request),
          request.params.account_id,
          request.body.user_id,
        )
        setEtag(reply, user)
        return presentUser(user)
      },
    )

    app.get(
      '/accounts/:account_id/users',
      {
        config: { access: ofAccount('postern.users:read') },
        schema: {
          operationId: 'listUsersOfAccount',
          tags: ['Accounts'],
          summary: 'List the users whose home is the account',
          params: AccountIdParams,
          querystring: ListAccountUsersQuery,
          response: { 200: Type.Array(ref(UserSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const { id: accountId } = await of(request).accounts.getAccount(request.params.account_id)
        const filters = { ...userFilters(request.query), accountId }
        return sendPage(
          request,
          reply,
          await of(request).users.listUsers(filters, pageRequestOf(request.query)),
          presentUser,
        )
      },
    )

    app.get(
      '/accounts/:account_id/members',
      {
        config: { access: ofAccount('postern.users:read') },
        schema: {
          operationId: 'listMembers',
          tags: ['Accounts'],
          summary: 'List the members of an account, those at home elsewhere included',
          params: AccountIdParams,
          querystring: ListMembersQuery,
          response: { 200: Type.Array(ref(MemberSchema)), 404: problem('No such account') },
        },
      },
      async (request, reply) => {
        const page = await of(request).accounts.listMembers(
          request.params.account_id,
          pageRequestOf(request.query),
        )
        return sendPage(request, reply, page, presentMember)
      },
    )

    app.put(
      '/accounts/:account_id/members/:user_id',
      {
        config: { access: { permission: 'postern.users:write' } },
        schema: {
          operationId: 'addMember',
          tags: ['Accounts'],
          summary: 'Make a user a member beside the home account',
          params: MemberParams,
          response: { 204: NoContent, 404: problem('No such account or user') },
        },
      },
      async (request, reply) => {
        const { account_id, user_id } = request.params
        await of(request).accounts.addMember(callerOf(request), account_id, user_id)
        return reply.code(204).send(null)
      },
    )

    app.delete(
      '/accounts/:account_id/members/:user_id',
      {
        config: { access: ofAccount('postern.users:write') },
        schema: {
          operationId: 'removeMember',
          tags: ['Accounts'],
          summary: 'End a membership, and every role held through it; with the one at home goes the home',
          params: MemberParams,
          response: {
            204: NoContent,
            404: problem('No such account, user or membership'),
            409: problem('It is the user’s home account, and they belong to no other'),
          },
        },
      },
      async (request, reply) => {
        const { account_id, user_id } = request.params
        await of(request).accounts.removeMember(callerOf(request), account_id, user_id)
        return reply.code(204).send(null)
      },
    )
  }
}
