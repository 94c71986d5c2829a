import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type AppError, PROBLEMS, type ProblemCode } from '../errors.ts'
import { setProblemHeaders } from '../http/problem.ts'
import { MOST_PER_PAGE } from './schemas.ts'

/** The codes of Permit's errors that are sent here; SDKs know no others. */
type ErrorCode =
  | 'INVALID_INPUT'
  | 'UNEXPECTED_ERROR'
  | 'NOT_FOUND'
  | 'DUPLICATE_ENTITY'
  | 'FORBIDDEN_ACCESS'
  | 'MISMATCH_RESOURCE_INSTANCES_TENANTS'
  | 'MISMATCH_RELATION_TYPE'
  | 'CONCURRENT_OPERATION_DISALLOWED'
  | 'PAGINATION_SIZE_OVERREACHED'
  | 'UNAUTHORIZED'

const OWN_CODES: Partial<Record<ProblemCode, ErrorCode>> = {
  conflict: 'CONCURRENT_OPERATION_DISALLOWED',
  instances_in_different_accounts: 'MISMATCH_RESOURCE_INSTANCES_TENANTS',
  relation_mismatch: 'MISMATCH_RELATION_TYPE',
  user_is_protected: 'FORBIDDEN_ACCESS',
  account_has_people: 'FORBIDDEN_ACCESS',
  account_is_default: 'FORBIDDEN_ACCESS',
  environment_is_default: 'FORBIDDEN_ACCESS',
  last_super_admin: 'FORBIDDEN_ACCESS',
  resource_in_use: 'FORBIDDEN_ACCESS',
  condition_set_has_children: 'FORBIDDEN_ACCESS',
}

const CODES: Record<number, ErrorCode> = {
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN_ACCESS',
  404: 'NOT_FOUND',
  409: 'DUPLICATE_ENTITY',
}

/** Where 409 says that the thing is there or done already, or that a person is protected, as on every other face. */
const isConflict = (code: ProblemCode): boolean =>
  /_(taken|exists)$/.test(code) ||
  ['role_already_assigned', 'invite_is_approved', 'user_is_protected'].includes(code)

/** To SDKs 409 says that a thing exists already, and 422 that fields are not valid: other refusals are 403 or 400. */
function statusOf({ code, status }: AppError): number {
  if (status === 422) return code === 'validation_failed' ? 422 : 400
  if (status !== 409 || isConflict(code)) return status
  return OWN_CODES[code] === 'FORBIDDEN_ACCESS' ? 403 : 400
}

/** Answers every failure within `app` as Permit's management API does. `baseUrl`: where the pages of problems are. */
export function answerErrorsAsPermit(app: FastifyInstance, baseUrl: string): void {
  app.setErrorHandler(async (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    const problem = await app.reportFailure(error, request)
    setProblemHeaders(problem, reply)
    const body =
      problem.code === 'validation_failed'
        ? validationError(problem, request, baseUrl)
        : errorOf(problem, request.id, baseUrl)
    // As bytes, because the framework adds a charset to texts, and a client compares the type with this one.
    return await reply
      .code(statusOf(problem))
      .header('content-type', 'application/json')
      .send(Buffer.from(JSON.stringify(body)))
  })
}

function errorOf(problem: AppError, requestId: string, baseUrl: string) {
  const { code } = problem
  const status = statusOf(problem)
  return {
    id: requestId,
    title: PROBLEMS[code].title,
    error_code: OWN_CODES[code] ?? CODES[status] ?? (status < 500 ? 'INVALID_INPUT' : 'UNEXPECTED_ERROR'),
    message: status === 500 ? PROBLEMS[code].title : problem.message,
    support_link: `${baseUrl}/problems/${code}`,
    additional_info: null,
  }
}

/**
 * A fault of the request: SDKs that know 422 read `detail`, FastAPI's list of faults; others have the code and the message,
 * which names the first.
 */
function validationError(problem: AppError, request: FastifyRequest, baseUrl: string) {
  const { errors = [] } = problem
  const error = errorOf(problem, request.id, baseUrl)
  const [first] = errors
  return {
    ...error,
    ...(first && { message: `${first.pointer} ${first.detail}`.trim() }),
    ...(asksForTooMany(request.query) && TOO_LARGE_PAGE),
    detail: errors.map(({ pointer, detail }) => ({
      loc: pointer.split('/').slice(1).map(segmentOf),
      msg: detail,
      type: 'value_error',
    })),
  }
}

const asksForTooMany = (query: unknown): boolean =>
  typeof query === 'object' && query !== null && 'per_page' in query && Number(query.per_page) > MOST_PER_PAGE

const TOO_LARGE_PAGE = {
  error_code: 'PAGINATION_SIZE_OVERREACHED',
  message: `A page has ${MOST_PER_PAGE} items at most`,
} satisfies { error_code: ErrorCode; message: string }

const segmentOf = (segment: string): string | number =>
  /^\d+$/.test(segment) ? Number(segment) : segment.replaceAll('~1', '/').replaceAll('~0', '~')
