import type { FastifyContextConfig, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import plugin from 'fastify-plugin'
import { AppError, type ProblemCode } from '../errors.ts'
import { anywhere, type BuiltinPermission } from '../permissions.ts'
import type { GuardAdapter } from '../policy/adapter.ts'
import type { Principal, UserPrincipal } from '../principal.ts'
import { documentEnvironment } from './environment.ts'
import { problem } from './schemas.ts'

/**
 * Who may call a route. `public`: anyone. `signed-in`: whoever has a valid token. Otherwise the permission it
 * takes: held in every account, or in one of those that `accounts` names for the object of the request.
 */
export type Access = 'public' | 'signed-in' | Guarded

type Guarded = {
  permission: BuiltinPermission
  /** The accounts that the object belongs to. Absent: the route spans accounts, so the permission is needed everywhere. */
  accounts?: (request: FastifyRequest) => readonly string[] | Promise<readonly string[]>
  /** What a caller hears who holds the permission, but in another account: that there is no such object. */
  otherwise?: ProblemCode
  /** Who may call the route without the permission, where the handler lets them do less. */
  alsoFor?: (principal: Principal) => boolean
}

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access
    /** What else a person has to do first, and may call this route before. */
    isOpenBefore?: readonly ('password_change' | 'second_factor')[]
    /**
     * True for what a person may do only who has authenticated within STEP_UP_MAX_AGE_SECONDS, with a second factor if
     * they have one. Machines may without.
     */
    needsRecentAuthentication?: boolean
    /** True where clients may have their token in the body, so that it must be read first. */
    isAuthenticatedAfterBody?: boolean
  }
}

type Options = {
  policy: GuardAdapter
  /** @throws AppError reauthentication_required */
  assertRecentAuthentication: (person: UserPrincipal) => Promise<void>
}

/**
 * Turns `config.access` into hooks, and into the OpenAPI security of the route: authentication before the body is
 * read, the scope check before the handler. A route that declares nothing refuses to boot.
 */
export const accessControl = plugin<Options>(
  async (app, { policy, assertRecentAuthentication }) => {
    app.addHook('onRoute', (route) => {
      const access = route.config?.access
      if (access === undefined) throw new Error(`${String(route.method)} ${route.url} declares no access`)
      documentAccess(route, access)
      if (access === 'public') return
      const isLate = route.config?.isAuthenticatedAfterBody === true
      route.onRequest = [forbidStoring, ...(isLate ? [] : [app.authenticate]), ...hooksOf(route.onRequest)]
      route.preHandler = [
        ...(isLate ? [app.authenticate] : []),
        refuseLimited(route.config?.isOpenBefore ?? []),
        ...(access === 'signed-in' ? [refuseDelegatedWrites] : [scopeCheck(policy, access)]),
        ...(route.config?.needsRecentAuthentication ? [recencyCheck(assertRecentAuthentication)] : []),
        ...hooksOf(route.preHandler),
      ]
    })
  },
  { name: 'access-control', dependencies: ['authentication'] },
)

function hooksOf<T>(hooks: T | T[] | undefined): T[] {
  if (hooks === undefined) return []
  return Array.isArray(hooks) ? hooks : [hooks]
}

/** What one caller may see is nobody else's (RFC 9111 §5.2.2.5); a handler that knows better says so after this. */
function forbidStoring(_request: FastifyRequest, reply: FastifyReply, done: () => void): void {
  reply.header('cache-control', 'no-store')
  done()
}

/** The preHandler for sessions in which something must be done before anything else. */
const refuseLimited =
  (isOpenBefore: NonNullable<FastifyContextConfig['isOpenBefore']>) =>
  async ({ principal }: FastifyRequest): Promise<void> => {
    if (principal?.type !== 'user') return
    if (principal.mustChangePassword && !isOpenBefore.includes('password_change'))
      throw new AppError('password_change_required')
    if (principal.isMfaMissing && !isOpenBefore.includes('second_factor'))
      throw new AppError('mfa_enrolment_required')
  }

const recencyCheck =
  (assertRecentAuthentication: Options['assertRecentAuthentication']) =>
  async ({ principal }: FastifyRequest): Promise<void> => {
    if (principal?.type === 'user') await assertRecentAuthentication(principal)
  }

/** What needs no permission but to be oneself is not for those who act for another. */
async function refuseDelegatedWrites({ principal, method }: FastifyRequest): Promise<void> {
  const isDelegated = principal?.type === 'user' && principal.actingClientId !== undefined
  if (isDelegated && method !== 'GET' && method !== 'HEAD') throw new AppError('insufficient_scope')
}

/** The preHandler that asks the policy (RFC 6750 §3.1 for the refusal). */
function scopeCheck(policy: GuardAdapter, access: Guarded) {
  const { permission, accounts, otherwise = 'not_found', alsoFor } = access
  return async (request: FastifyRequest): Promise<void> => {
    const { principal } = request
    if (!principal) throw new AppError('authentication_required')
    if (alsoFor?.(principal)) return
    // Where the object belongs is asked only of those whose permission does not hold everywhere.
    const needsPlace = accounts !== undefined && !principal.scopes.has(anywhere(permission))
    const accountIds = needsPlace && principal.scopes.has(permission) ? await accounts(request) : undefined
    const decision = await policy.check({ principal, permission, accountIds })
    if (decision.allowed) return
    if (decision.reason === 'held_elsewhere' && accounts) throw new AppError(otherwise, { boundary: true })
    throw new AppError('insufficient_scope', { requiredScope: accounts ? permission : anywhere(permission) })
  }
}

/** Says in OpenAPI what the hooks do: the security of the route and the problems it can answer. */
function documentAccess(route: RouteOptions, access: Access): void {
  if (route.schema?.hide) return
  const { schema } = route
  const takesInput = schema?.params ?? schema?.querystring ?? schema?.body
  const environment =
    access === 'public' || route.config?.ignoresEnvironment ? undefined : documentEnvironment(schema)
  const refusals = {
    ...(access !== 'public' && {
      401: problem('No token, or one that is not valid'),
      403: problem('Not allowed'),
    }),
    ...((schema?.params ?? schema?.body) !== undefined && { 400: problem('The request could not be read') }),
    ...(takesInput !== undefined && { 422: problem('The request is not valid') }),
    ...environment?.refusals,
    ...(schema?.body !== undefined && {
      413: problem('The body is too large'),
      415: problem('Not a supported Content-Type'),
    }),
    500: problem('A fault of the service'),
    503: problem('The database is away, or the service is at its limit; Retry-After says when to try again'),
  }
  route.schema = {
    ...schema,
    ...(environment && { headers: environment.headers }),
    security:
      access === 'public'
        ? []
        : [{ password: access === 'signed-in' ? [] : [access.permission] }, { bearer: [] }],
    response: { ...refusals, ...(schema?.response as object) },
  }
}
