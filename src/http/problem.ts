import type { FastifyError, FastifyReply, FastifyRequest, FastifySchemaValidationError } from 'fastify'
import plugin from 'fastify-plugin'
import type { AuditRepository } from '../audit/repository.ts'
import { PROOF_ALGORITHMS } from '../clients/jwks.ts'
import type { Clock } from '../clock.ts'
import { isConcurrencyFailure, isForeignKeyViolation, isUnavailable, isUnstorable } from '../db/errors.ts'
import { AppError, type FieldError, PROBLEMS, type ProblemCode } from '../errors.ts'
import { principalId } from '../principal.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** What a failure means to the caller; faults are logged and refused writes recorded on the way. */
    reportFailure(error: Error, request: FastifyRequest): Promise<AppError>
  }
}

type Options = { audit: AuditRepository; clock: Clock }

/** Answers every failure with a problem document (RFC 9457), and records refused writes in the audit trail. */
export const problems = plugin<Options>(
  async (app, { audit, clock }) => {
    app.decorate('reportFailure', async (error: Error, request: FastifyRequest) => {
      const problem = toAppError(error)
      if (problem.status >= 500) request.log.error({ err: error }, 'request failed')
      if (isRefusedWrite(problem, request)) await recordRefusedWrite(problem, request)
      return problem
    })

    app.setErrorHandler(
      async (error: FastifyError, request, reply) =>
        await sendProblem(await app.reportFailure(error, request), request, reply),
    )

    app.setNotFoundHandler(
      async (request, reply) => await sendProblem(new AppError('not_found'), request, reply),
    )

    async function recordRefusedWrite(problem: AppError, request: FastifyRequest): Promise<void> {
      const { principal } = request
      const route = `${request.method} ${request.routeOptions.url ?? ''}`
      const actor = principal ? (principalId(principal) ?? principal.type) : 'anonymous'
      try {
        await audit.appendRefusal(
          {
            action: 'access.refused',
            caller: {
              principal: principal ?? undefined,
              requestId: request.id,
              address: principal ? request.ip : undefined,
            },
            target: { type: 'route', id: route },
            accountId: principal?.accountId ?? null,
            details: {
              code: problem.code,
              ...(problem.requiredScope && { required: problem.requiredScope }),
            },
          },
          `${actor}|${route}|${problem.code}`,
          clock.now(),
        )
      } catch (cause) {
        request.log.error({ err: cause }, 'a refused write could not be recorded')
      }
    }
  },
  { name: 'problems' },
)

const WRITES = new Set(['POST', 'PUT', 'PATCH', 'DELETE'])

function isRefusedWrite(problem: AppError, request: FastifyRequest): boolean {
  if (!WRITES.has(request.method)) return false
  return problem.status === 403 || problem.boundary || problem.code === 'last_super_admin'
}

/** Sends the document of one problem, with the headers that its status asks for. */
export async function sendProblem(
  problem: AppError,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<string> {
  const body = {
    type: `/problems/${problem.code}`,
    title: PROBLEMS[problem.code].title,
    status: problem.status,
    // A fault of ours is told to the log only.
    detail: problem.status === 500 ? undefined : problem.message,
    instance: request.id,
    required: problem.requiredScope,
    errors: problem.errors,
    ...problem.extensions,
  }
  setProblemHeaders(problem, reply)
  reply.code(problem.status).type('application/problem+json').serializer(String)
  return JSON.stringify(body)
}

/** WWW-Authenticate (RFC 6750 §3, RFC 9449 §7.1, RFC 9470 §3) and Retry-After (RFC 9110 §10.2.3). */
export function setProblemHeaders(problem: AppError, reply: FastifyReply): void {
  const challenge = challengeOf(problem, schemeOf(reply.request))
  if (challenge) reply.header('www-authenticate', challenge)
  const retryAfter = problem.retryAfterSeconds ?? (problem.status === 503 ? 1 : undefined)
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
}

/** Whoever tries a bound token is answered in its scheme. */
const schemeOf = ({ headers }: FastifyRequest): string =>
  /^dpop(\s|$)/i.test(headers.authorization ?? '') ? `DPoP algs="${PROOF_ALGORITHMS.join(' ')}",` : 'Bearer'

function challengeOf({ code, requiredScope, maxAgeSeconds }: AppError, scheme: string): string | undefined {
  switch (code) {
    case 'authentication_required':
      return `${scheme} realm="postern"`
    case 'invalid_token':
      return `${scheme} realm="postern", error="invalid_token", error_description="The access token is not valid"`
    case 'reauthentication_required':
      return `${scheme} realm="postern", error="insufficient_user_authentication", error_description="Authenticate again"${maxAgeSeconds === undefined ? '' : `, max_age="${maxAgeSeconds}"`}`
    case 'invalid_dpop_proof':
      return `${scheme} realm="postern", error="invalid_dpop_proof"`
    case 'insufficient_scope':
      return `${scheme} realm="postern", error="insufficient_scope"${requiredScope ? `, scope="${requiredScope}"` : ''}`
    default:
      return undefined
  }
}

/** What a failure means to the caller. Unknown ones are `internal_error`, and say nothing of their cause. */
export function toAppError(error: FastifyError | Error): AppError {
  if (error instanceof AppError) return error
  if ('validation' in error && error.validation) return validationProblem(error)
  const code = codeOf(error)
  if (code === 'validation_failed') {
    return new AppError(code, {
      errors: [{ pointer: '', detail: 'holds a character that cannot be stored, such as U+0000' }],
      cause: error,
    })
  }
  return new AppError(code, {
    cause: error,
    ...(code === 'database_unavailable' && { retryAfterSeconds: 1 }),
  })
}

function codeOf(error: Error): ProblemCode {
  if (isUnavailable(error)) return 'database_unavailable'
  if (isUnstorable(error)) return 'validation_failed'
  if (isConcurrencyFailure(error)) return 'conflict'
  // Its key or name was still known here while another request deleted it.
  if (isForeignKeyViolation(error, /_environment_id_environments_id_fk$/)) return 'environment_not_found'
  // Whether a row is there is asked before it is referred to: another request has deleted it meanwhile.
  if (isForeignKeyViolation(error, /./)) return 'conflict'
  switch ('statusCode' in error ? error.statusCode : undefined) {
    case 404:
      return 'not_found'
    case 413:
      return 'payload_too_large'
    case 415:
      return 'unsupported_media_type'
    case 431:
      return 'request_header_too_large'
    case 400:
    case 408:
    case 414:
      return 'malformed_request'
    default:
      return 'internal_error'
  }
}

/** The pointer's first part: where in the request the fault lies. */
const PARTS: Record<string, string> = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'headers',
}
const MOST_ERRORS = 50

function validationProblem(error: FastifyError): AppError {
  const part = PARTS[error.validationContext ?? ''] ?? 'body'
  const errors = (error.validation ?? []).slice(0, MOST_ERRORS).map((fault) => fieldError(part, fault))
  return new AppError('validation_failed', { errors, cause: error })
}

function fieldError(part: string, fault: FastifySchemaValidationError): FieldError {
  const { missingProperty, additionalProperty, allowedValues } = fault.params as Record<string, unknown>
  const field = missingProperty ?? additionalProperty
  const pointer = `/${part}${fault.instancePath}${field === undefined ? '' : `/${escapePointer(String(field))}`}`
  if (missingProperty !== undefined) return { pointer, detail: 'is required' }
  if (additionalProperty !== undefined) return { pointer, detail: 'is not a known field' }
  if (Array.isArray(allowedValues)) return { pointer, detail: `must be one of ${allowedValues.join(', ')}` }
  return { pointer, detail: fault.message ?? 'is not valid' }
}

const escapePointer = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1')
