import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type AppError, PROBLEMS, type ProblemCode } from '../errors.ts'
import { setProblemHeaders } from '../http/problem.ts'

/** The codes of Permit's errors that are sent here; SDKs know no others. */
type ErrorCode =
  | 'INVALID_INPUT'
  | 'UNEXPECTED_ERROR'
  | 'NOT_FOUND'
  | 'DUPLICATE_ENTITY'
  | 'FORBIDDEN_ACCESS'
  | 'MISMATCH_RESOURCE_INSTANCES_TENANTS'
  | 'CONCURRENT_OPERATION_DISALLOWED'
  | 'UNAUTHORIZED'

const OWN_CODES: Partial<Record<ProblemCode, ErrorCode>> = {
  conflict: 'CONCURRENT_OPERATION_DISALLOWED',
  instances_in_different_accounts: 'MISMATCH_RESOURCE_INSTANCES_TENANTS',
  user_is_protected: 'FORBIDDEN_ACCESS',
  account_has_people: 'FORBIDDEN_ACCESS',
  account_is_default: 'FORBIDDEN_ACCESS',
  last_super_admin: 'FORBIDDEN_ACCESS',
}

const CODES: Record<number, ErrorCode> = {
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN_ACCESS',
  404: 'NOT_FOUND',
  409: 'DUPLICATE_ENTITY',
}

/** Answers every failure within `app` as Permit's management API does. `baseUrl`: where the pages of problems are. */
export function answerErrorsAsPermit(app: FastifyInstance, baseUrl: string): void {
  app.setErrorHandler(async (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    const problem = await app.reportFailure(error, request)
    setProblemHeaders(problem, reply)
    const body =
      problem.code === 'validation_failed' ? validationError(problem) : errorOf(problem, request.id, baseUrl)
    // As bytes, because the framework adds a charset to texts, and a client compares the type with this one.
    return await reply
      .code(problem.status)
      .header('content-type', 'application/json')
      .send(Buffer.from(JSON.stringify(body)))
  })
}

function errorOf(problem: AppError, requestId: string, baseUrl: string) {
  const { code, status } = problem
  return {
    id: requestId,
    title: PROBLEMS[code].title,
    error_code: OWN_CODES[code] ?? CODES[status] ?? (status < 500 ? 'INVALID_INPUT' : 'UNEXPECTED_ERROR'),
    message: status === 500 ? PROBLEMS[code].title : problem.message,
    support_link: `${baseUrl}/problems/${code}`,
    additional_info: null,
  }
}

const validationError = ({ errors = [] }: AppError) => ({
  detail: errors.map(({ pointer, detail }) => ({
    loc: pointer.split('/').slice(1).map(segmentOf),
    msg: detail,
    type: 'value_error',
  })),
})

const segmentOf = (segment: string): string | number =>
  /^\d+$/.test(segment) ? Number(segment) : segment.replaceAll('~1', '/').replaceAll('~0', '~')
