import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyError, FastifyRequest } from 'fastify'
import { DEFAULT_ACCOUNT_KEY } from '../accounts/service.ts'
import { AppError } from '../errors.ts'
import type { Access } from '../http/access.ts'
import { toAppError } from '../http/problem.ts'
import { problem } from '../http/schemas.ts'
import { anywhere } from '../permissions.ts'
import type { Question } from '../policy/engine/model.ts'
import { explainMany } from '../policy/explanations.ts'
import type { SearchPage, SearchResult } from '../policy/searches.ts'
import type { Services } from '../services.ts'
import { answersTo, completed, type Prepared } from './evaluations.ts'
import {
  actionOf,
  answerOf,
  asksForReason,
  explainedAnswer,
  questionOf,
  resourceOf,
  tenantOf,
  unknownSubject,
  userOf,
} from './mapping.ts'
import { searchedPage } from './pages.ts'
import {
  ActionSearchBody,
  type Answer,
  AnswerSchema,
  AnswersSchema,
  type Evaluation,
  EvaluationBody,
  EvaluationsBody,
  FoundActionsSchema,
  FoundEntitiesSchema,
  MetadataSchema,
  type PageRequest,
  ResourceSearchBody,
  SubjectSearchBody,
} from './schemas.ts'

type Dependencies = Pick<Services, 'modelOf' | 'issuer' | 'config'>

const CHECK = 'postern.policy:check'

/** Who holds the permission in one account asks about that one only: see `ownAccount`. */
const mayCheck: Access = {
  permission: CHECK,
  accounts: ({ principal }) => (principal?.accountId ? [principal.accountId] : []),
}

const WELL_KNOWN = '/.well-known/authzen-configuration'
/** How long a client may keep the metadata. */
const MAX_AGE_SECONDS = 3600

const refusals = {
  400: problem('The request is malformed, or something in it is missing or of the wrong type'),
  403: problem('Not allowed, or not about this account'),
}

const NOTHING: SearchResult<string> = { results: [], nextToken: undefined }

type Account = { id: string; key: string }
type Searching = { subject: { type: string }; page?: PageRequest }

/** The decisions of the environment as the OpenID AuthZEN Authorization API 1.0. */
export function authzenRoutes({ modelOf, issuer, config }: Dependencies): FastifyPluginAsyncTypebox {
  const subjectTypes: ReadonlySet<string> = new Set(config.authzen.subjectTypes)
  const decisionsOf = (request: FastifyRequest) => modelOf(request.environmentId).decisions
  const wantsReason = (body: unknown): boolean => config.policy.debug || asksForReason(body)

  /** The account that the caller is bound to; `undefined` for who may ask about every account. */
  async function ownAccount({ principal, environmentId }: FastifyRequest): Promise<Account | undefined> {
    if (principal?.scopes.has(anywhere(CHECK))) return undefined
    return await modelOf(environmentId).accounts.getAccount(principal?.accountId ?? '')
  }

  function prepare(evaluation: Evaluation, own: Account | undefined, withReason: boolean): Prepared {
    const tenant = accountIn(own, tenantOf(evaluation.resource, evaluation.context))
    if (!subjectTypes.has(evaluation.subject.type)) return { answer: unknownSubject(withReason) }
    return { question: questionOf(evaluation, tenant) }
  }

  async function evaluate(request: FastifyRequest, evaluation: Evaluation): Promise<Answer> {
    const withReason = wantsReason(request.body)
    const own = await ownAccount(request)
    const prepared = prepare(evaluation, own, withReason)
    if ('answer' in prepared) return prepared.answer
    const { question } = prepared
    const options = { requestId: request.id }
    if (!withReason) return answerOf(await decisionsOf(request).check(question, options))
    return explainedAnswer(await decisionsOf(request).explain(question, options), own !== undefined)
  }

  async function evaluateAll(
    request: FastifyRequest,
    questions: readonly Question[],
    own: Account | undefined,
    withReason: boolean,
  ): Promise<Answer[]> {
    const decisions = decisionsOf(request)
    const options = { requestId: request.id }
    if (!withReason) return (await decisions.checkMany(questions, options)).map(answerOf)
    return await explainMany(
      decisions,
      questions,
      { explained: (explanation) => explainedAnswer(explanation, own !== undefined), decided: answerOf },
      options,
    )
  }

  /** Runs a search unless its answer is known to be empty. */
  async function searched<T>(
    { subject, page: asked }: Searching,
    search: (page: SearchPage) => Promise<SearchResult<string>>,
    toEntity: (key: string) => T,
  ) {
    const { page, present } = searchedPage(asked, subject.type)
    const isEmpty = page === undefined || !subjectTypes.has(subject.type)
    return present(isEmpty ? NOTHING : await search(page), toEntity)
  }

  return async (app) => {
    // Thrown on, it reaches the handler that answers every problem.
    app.setErrorHandler((error: FastifyError) => {
      throw asBadRequest(error)
    })

    app.post(
      '/access/v1/evaluation',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'evaluateAccess',
          tags: ['AuthZEN'],
          summary: 'May this subject do that to this resource?',
          body: EvaluationBody,
          response: { 200: AnswerSchema, ...refusals },
        },
      },
      async (request) => await evaluate(request, request.body),
    )

    app.post(
      '/access/v1/evaluations',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'evaluateAccesses',
          tags: ['AuthZEN'],
          summary: 'May they? A list of questions, with what they have in common said once',
          body: EvaluationsBody,
          response: { 200: AnswersSchema, ...refusals },
        },
      },
      async (request) => {
        const { evaluations = [], options, ...defaults } = request.body
        if (evaluations.length === 0) return await evaluate(request, completed({}, defaults))
        const withReason = wantsReason(request.body)
        const own = await ownAccount(request)
        const answers = await answersTo(evaluations, {
          semantic: options?.evaluations_semantic ?? 'execute_all',
          prepare: (item) => prepare(completed(item, defaults), own, withReason),
          answer: async (questions) => await evaluateAll(request, questions, own, withReason),
        })
        return { evaluations: answers }
      },
    )

    app.post(
      '/access/v1/search/subject',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'searchAuthorizedSubjects',
          tags: ['AuthZEN'],
          summary: 'Who may do that to this resource?',
          body: SubjectSearchBody,
          response: { 200: FoundEntitiesSchema, ...refusals },
        },
      },
      async (request) => {
        const { subject, action, resource, context } = request.body
        const own = await ownAccount(request)
        const asked = {
          subject: { type: 'user', attributes: subject.properties },
          action: actionOf(action),
          resource: resourceOf(resource, accountIn(own, tenantOf(resource, context))),
          context,
          withinAccount: own?.id,
        }
        return await searched(
          request.body,
          async (page) => await decisionsOf(request).searchSubjects(asked, page, { requestId: request.id }),
          (id) => ({ type: subject.type, id }),
        )
      },
    )

    app.post(
      '/access/v1/search/resource',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'searchAuthorizedResources',
          tags: ['AuthZEN'],
          summary: 'To which resources of a type may this subject do that?',
          body: ResourceSearchBody,
          response: { 200: FoundEntitiesSchema, ...refusals },
        },
      },
      async (request) => {
        const { subject, action, resource, context } = request.body
        const { type, properties } = resource
        const own = await ownAccount(request)
        const asked = {
          user: userOf(subject),
          action: actionOf(action),
          resource: resourceOf({ type, properties }, accountIn(own, tenantOf(resource, context))),
          context,
          withinAccount: own?.id,
        }
        return await searched(
          request.body,
          // No type is called that, and no statement can ask for it.
          async (page) =>
            type.includes('\0')
              ? NOTHING
              : await decisionsOf(request).searchResources(asked, page, { requestId: request.id }),
          (id) => ({ type, id }),
        )
      },
    )

    app.post(
      '/access/v1/search/action',
      {
        config: { access: mayCheck },
        schema: {
          operationId: 'searchAuthorizedActions',
          tags: ['AuthZEN'],
          summary: 'What may this subject do to this resource?',
          body: ActionSearchBody,
          response: { 200: FoundActionsSchema, ...refusals },
        },
      },
      async (request) => {
        const { subject, resource, context } = request.body
        const own = await ownAccount(request)
        const asked = {
          user: userOf(subject),
          resource: resourceOf(resource, accountIn(own, tenantOf(resource, context))),
          context,
        }
        return await searched(
          request.body,
          async (page) => await decisionsOf(request).searchActions(asked, page, { requestId: request.id }),
          (name) => ({ name }),
        )
      },
    )

    for (const path of wellKnownPaths(issuer)) {
      app.get(
        path,
        {
          config: { access: 'public' },
          schema: {
            hide: path !== WELL_KNOWN,
            operationId: 'getAuthzenConfiguration',
            tags: ['AuthZEN'],
            summary: 'Where the endpoints of this decision point are',
            response: { 200: MetadataSchema },
          },
        },
        async (_request, reply) => {
          reply.header('cache-control', `public, max-age=${MAX_AGE_SECONDS}`)
          return {
            policy_decision_point: issuer,
            access_evaluation_endpoint: `${issuer}/access/v1/evaluation`,
            access_evaluations_endpoint: `${issuer}/access/v1/evaluations`,
            search_subject_endpoint: `${issuer}/access/v1/search/subject`,
            search_resource_endpoint: `${issuer}/access/v1/search/resource`,
            search_action_endpoint: `${issuer}/access/v1/search/action`,
          }
        },
      )
    }
  }
}

/** A decision point whose identifier has a path has it at the end of the location (Authorization API 1.0 §9.2.1). */
function wellKnownPaths(issuer: string): string[] {
  const { pathname } = new URL(issuer)
  return pathname === '/' ? [WELL_KNOWN] : [WELL_KNOWN, `${WELL_KNOWN}${pathname}`]
}

/** The account to decide in. @throws AppError insufficient_scope when the caller is bound to another one */
function accountIn(own: Account | undefined, named: string | undefined): string {
  if (!own) return named ?? DEFAULT_ACCOUNT_KEY
  if (named === undefined || named === own.key || named === own.id) return own.key
  throw new AppError('insufficient_scope', { requiredScope: anywhere(CHECK) })
}

/** Here 400 stands for every fault of a request (Authorization API 1.0 §10.1.2, and its certification profile). */
function asBadRequest(error: FastifyError): AppError {
  const fault = toAppError(error)
  const { errors, cause } = fault
  switch (fault.code) {
    case 'validation_failed':
      return new AppError('invalid_request', { cause, ...(errors && { errors }) })
    case 'unsupported_media_type':
      return new AppError('invalid_request', { detail: 'The Content-Type must be application/json', cause })
    default:
      return fault
  }
}
