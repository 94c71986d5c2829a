import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { AppError } from '../errors.ts'
import { presentLocalAssignment } from '../permit/schemas.ts'
import type { Explanation } from '../policy/engine/explain.ts'
import type { Decision, Question } from '../policy/engine/model.ts'
import { explainMany } from '../policy/explanations.ts'
import type { PermissionsQuery } from '../policy/listings.ts'
import type { Services } from '../services.ts'
import {
  type Account,
  askedWithin,
  boundTo,
  explanationWithin,
  isBound,
  mayCheck,
  tenantWithin,
} from './binding.ts'
import { answerErrorsAsPdp } from './errors.ts'
import { questionOfKong, readKongRoutes } from './kong.ts'
import {
  permissionsQueryOf,
  questionAbout,
  questionOf,
  questionOfAllTenants,
  questionOfHeaders,
  questionsOf,
  tokenInBody,
  urlQuestionOf,
  userInQuery,
  usersQueryOf,
  withBareKeys,
} from './mapping.ts'
import {
  ALLOWED,
  type Allowed,
  AllowedSchema,
  AllTenantsSchema,
  AnyBody,
  BulkSchema,
  KongOffSchema,
  KongSchema,
  LocalAssignmentsQuery,
  OpaSchema,
  presentAuthorizedUsers,
  presentExplanation,
  presentTenant,
  presentUnmapped,
  presentUserPermissions,
  REFUSED,
  TenantsSchema,
} from './schemas.ts'

type Dependencies = Pick<Services, 'modelOf' | 'config' | 'isReady'>

const BODY_LIMIT_BYTES = 1_048_576

/**
 * The HTTP API of Permit's PDP, as its SDKs call it: checks and searches over the decisions of the environment that
 * the key is for. The protocol is not ours, so it is no part of the OpenAPI document.
 */
export function pdpRoutes({ modelOf, config, isReady }: Dependencies): FastifyPluginAsyncTypebox {
  const modelFor = (request: FastifyRequest) => modelOf(request.environmentId)
  const decisionsFor = (request: FastifyRequest) => modelFor(request).decisions
  const isDebugging = (body: unknown): boolean => config.policy.debug || asksForReasons(body)

  /** The question as this caller may ask it. */
  const within = async <Q extends { resource: Question['resource'] }>(
    request: FastifyRequest,
    question: Q,
  ): Promise<Q> => (isBound(request) ? askedWithin(await boundTo(request, modelOf), question) : question)

  async function answerWith(
    request: FastifyRequest,
    question: Question,
    withReasons: boolean,
  ): Promise<Allowed> {
    const own = isBound(request) ? await boundTo(request, modelOf) : undefined
    const asked = own ? askedWithin(own, question) : question
    const decisions = decisionsFor(request)
    if (withReasons) return explained(await decisions.explain(asked, { requestId: request.id }), own)
    return answerOf(await decisions.check(asked, { requestId: request.id }))
  }

  /** The answer, at once if nothing has to be waited for: most checks are answered here, so no promise is made. */
  function answer(request: FastifyRequest, body: unknown): Allowed | Promise<Allowed> {
    const question = questionOf(body)
    const withReasons = isDebugging(body)
    if (withReasons || isBound(request)) return answerWith(request, question, withReasons)
    const decision = decisionsFor(request).checkNow(question, { requestId: request.id })
    return decision ? answerOf(decision) : answerWith(request, question, false)
  }

  /** Kong has no key to send, so it is heard at the port for it alone, which the operator keeps to it. */
  const kongRoutes = config.pdp.kongRoutes === undefined ? undefined : readKongRoutes(config.pdp.kongRoutes)

  const guarded = { config: { access: mayCheck } } as const
  const asking = { ...guarded, bodyLimit: Math.min(BODY_LIMIT_BYTES, config.http.bodyLimitBytes) } as const

  return async (app) => {
    answerErrorsAsPdp(app)

    app.post(
      '/allowed',
      { ...asking, schema: { hide: true, body: AnyBody, response: { 200: AllowedSchema } } },
      (request, reply) => {
        const answered = answer(request, request.body)
        if (answered instanceof Promise) return answered
        // Not returned: a reply is a promise too.
        reply.send(answered)
        return undefined
      },
    )

    app.post(
      '/v1/data/permit/root',
      { ...asking, schema: { hide: true, body: AnyBody, response: { 200: OpaSchema } } },
      (request, reply) => {
        const answered = answer(request, inputOf(request.body))
        if (answered instanceof Promise) return answered.then((result) => ({ result }))
        reply.send({ result: answered })
        return undefined
      },
    )

    app.post(
      '/allowed/bulk',
      { ...asking, schema: { hide: true, body: AnyBody, response: { 200: BulkSchema } } },
      async (request) => {
        const questions = questionsOf(request.body)
        const own = isBound(request) ? await boundTo(request, modelOf) : undefined
        const asked = own ? questions.map((question) => askedWithin(own, question)) : questions
        const options = { requestId: request.id }
        const decisions = decisionsFor(request)
        const wantReasons = Array.isArray(request.body) ? request.body.map(isDebugging) : []
        const places = (withReasons: boolean) =>
          [...asked.keys()].filter((place) => (wantReasons[place] ?? false) === withReasons)
        const questionsAt = (some: readonly number[]) => some.flatMap((place) => asked[place] ?? [])
        const [plain, reasoned] = [places(false), places(true)]
        const allow: Allowed[] = asked.map(() => REFUSED)
        const put = (some: readonly number[], answers: readonly Allowed[]): void => {
          for (const [at, place] of some.entries()) allow[place] = answers[at] ?? REFUSED
        }
        if (plain.length > 0)
          put(plain, (await decisions.checkMany(questionsAt(plain), options)).map(answerOf))
        if (reasoned.length > 0) {
          const presenting = {
            explained: (explanation: Explanation) => explained(explanation, own),
            decided: answerOf,
          }
          put(reasoned, await explainMany(decisions, questionsAt(reasoned), presenting, options))
        }
        return { allow }
      },
    )

    app.post(
      '/allowed_url',
      { ...asking, schema: { hide: true, body: AnyBody, response: { 200: AllowedSchema } } },
      async (request) => {
        const asked = urlQuestionOf(request.body)
        const mapping = await decisionsFor(request).urlMapping()
        const mapped = mapping.find(asked.url, asked.httpMethod)
        if (mapped) return await answerWith(request, questionAbout(asked, mapped), isDebugging(request.body))
        return presentUnmapped(isBound(request) ? [] : mapping.rulesFor(asked.httpMethod))
      },
    )

    app.post(
      '/allowed/all-tenants',
      {
        ...asking,
        config: { access: mayCheck, isAuthenticatedAfterBody: true },
        preValidation: async ({ headers, body }) => {
          headers.authorization ??= tokenInBody(body)
        },
        schema: { hide: true, body: AnyBody, response: { 200: AllTenantsSchema } },
      },
      async (request) => {
        const question = questionOfAllTenants(request.body)
        const allowed = await allowedTenants(request, question)
        return { allowed_tenants: allowed, allowedTenants: allowed }
      },
    )

    app.post('/user-permissions', { ...asking, schema: { hide: true, body: AnyBody } }, async (request) => {
      const asked = permissionsQueryOf(request.body)
      const { query, isWanted } = withBareKeys(isBound(request) ? await askedOfOwn(request, asked) : asked)
      return presentUserPermissions((await decisionsFor(request).userPermissions(query)).filter(isWanted))
    })

    app.post(
      '/user-tenants',
      { ...asking, schema: { hide: true, body: AnyBody, response: { 200: TenantsSchema } } },
      async (request) => {
        const user = userInQuery(request.body)
        const tenants = await decisionsFor(request).userTenants(user.key)
        const own = isBound(request) ? await boundTo(request, modelOf) : undefined
        return tenants.filter(({ id }) => own === undefined || id === own.id).map(presentTenant)
      },
    )

    app.post('/authorized_users', { ...asking, schema: { hide: true, body: AnyBody } }, async (request) => {
      const query = await within(request, usersQueryOf(request.body))
      const asked = { ...query, membersOnly: isBound(request) }
      return presentAuthorizedUsers(query.resource, await decisionsFor(request).authorizedUsers(asked))
    })

    app.post(
      '/nginx_allowed',
      { ...asking, schema: { hide: true, response: { 200: AllowedSchema } } },
      async (request) => await answerWith(request, questionOfHeaders(request.headers), config.policy.debug),
    )

    app.post(
      '/kong',
      {
        ...asking,
        config: { access: 'public' },
        schema: { hide: true, body: AnyBody, response: { 200: KongSchema, 503: KongOffSchema } },
      },
      async (request, reply) => {
        if (!kongRoutes) return await reply.code(503).send({ detail: 'PDP_KONG_INTEGRATION is off' })
        if (request.socket.localPort !== config.pdp.port) throw new AppError('not_found')
        const question = questionOfKong(request.body, kongRoutes)
        if (!question) return { result: false }
        const { allowed } = await modelOf(DEFAULT_ENVIRONMENT).decisions.check(question, {
          requestId: request.id,
        })
        return { result: allowed }
      },
    )

    app.get(
      '/local/role_assignments',
      { ...guarded, schema: { hide: true, querystring: LocalAssignmentsQuery } },
      async (request) => {
        const { page, per_page: perPage, ...filters } = request.query
        const own = isBound(request) ? await boundTo(request, modelOf) : undefined
        const tenant = own ? tenantWithin(own, filters.tenant) : filters.tenant
        const grants = await modelFor(request).permit.listGrants(
          {
            users: filters.user === undefined ? undefined : [filters.user],
            roles: filters.role === undefined ? undefined : [filters.role],
            tenants: tenant === undefined ? undefined : [tenant],
            resource: filters.resource,
            instance: filters.resource_instance,
          },
          { page, perPage },
        )
        return grants.map(presentLocalAssignment)
      },
    )

    // There is nothing else that this could be cut off from.
    app.get('/control-plane/connectivity', { ...guarded, schema: { hide: true } }, async () => ({
      control_plane_connectivity_disabled: false,
      offline_mode_enabled: false,
    }))
    for (const change of ['enable', 'disable'])
      app.post(`/control-plane/connectivity/${change}`, { ...guarded, schema: { hide: true } }, async () => {
        throw new AppError('invalid_request', {
          detail: `Cannot ${change} control plane connectivity: offline mode is not enabled`,
        })
      })

    // As OPA answers for its own data.
    app.get('/healthchecks/opa/healthy', { ...guarded, schema: { hide: true } }, async () => ({
      result: true,
    }))
    app.get('/healthchecks/opa/ready', { ...guarded, schema: { hide: true } }, async () => ({
      result: await isReady(),
    }))
    app.get('/healthchecks/opa/system', { ...guarded, schema: { hide: true } }, async () => ({
      result: { healthy: true, ready: await isReady() },
    }))

    app.get('/version', { ...guarded, schema: { hide: true } }, async () => ({ api_version: 4 }))

    // There is nothing to be told: what is written is read at once.
    for (const path of ['/update_policy', '/update_policy_data'])
      app.post(path, { ...guarded, schema: { hide: true } }, async () => ({ status: 'ok' }))

    for (const path of ['/healthy', '/ready']) {
      app.get(
        path,
        { config: { access: 'public' }, logLevel: 'warn', schema: { hide: true } },
        async (_request, reply) => {
          const isUp = path === '/healthy' || (await isReady())
          return await reply.code(isUp ? 200 : 503).send(healthOf(isUp))
        },
      )
    }
  }

  /** The permissions in the caller's account only. @throws AppError insufficient_scope when another one is named */
  async function askedOfOwn(request: FastifyRequest, query: PermissionsQuery): Promise<PermissionsQuery> {
    const own = await boundTo(request, modelOf)
    for (const tenant of query.tenants ?? []) tenantWithin(own, tenant)
    return { ...query, tenants: [own.key] }
  }

  async function allowedTenants(request: FastifyRequest, question: Question) {
    if (!isBound(request)) {
      const found = await decisionsFor(request).checkAllTenants(question)
      return found.map(({ tenant }) => ({ ...ALLOWED, tenant: presentTenant(tenant) }))
    }
    const own = await boundTo(request, modelOf)
    const inOwn = { ...question, resource: { ...question.resource, tenant: own.key } }
    const { allowed } = await decisionsFor(request).check(inOwn, { requestId: request.id })
    if (!allowed) return []
    return [{ ...ALLOWED, tenant: { key: own.key, attributes: own.attributes ?? {} } }]
  }
}

const answerOf = ({ allowed }: Decision): Allowed => (allowed ? ALLOWED : REFUSED)

/** With reasons, as far as a caller bound to an account may see them. */
function explained(explanation: Explanation, own: Account | undefined): Allowed {
  const shown = own ? explanationWithin(own, explanation) : explanation
  return shown ? presentExplanation(shown) : answerOf(explanation.decision)
}

const asksForReasons = (body: unknown): boolean =>
  typeof body === 'object' && body !== null && 'use_debugger' in body && body.use_debugger === true

/** OPA's form has the query under `input`. */
const inputOf = (body: unknown): unknown =>
  typeof body === 'object' && body !== null && 'input' in body ? body.input : undefined

const healthOf = (isUp: boolean) => {
  const status = isUp ? 'ok' : 'error'
  const error = isUp ? null : 'the database does not answer'
  return {
    status,
    components: { horizon: { status, error, details: null }, opa: { status, error } },
  }
}
