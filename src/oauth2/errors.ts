import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { describe, forbidCaching } from '../auth/oauth-errors.ts'
import type { AppError, ProblemCode } from '../errors.ts'
import { setProblemHeaders, toAppError } from '../http/problem.ts'

type Name = { status: number; error: string }

/** What problems are called at these endpoints (RFC 6749 §5.2, 8707 §2, 9449 §5). Others are an `invalid_request`. */
const NAMES: Partial<Record<ProblemCode, Name>> = {
  invalid_client: { status: 401, error: 'invalid_client' },
  invalid_grant: { status: 400, error: 'invalid_grant' },
  invalid_refresh_token: { status: 400, error: 'invalid_grant' },
  account_not_found: { status: 400, error: 'invalid_grant' },
  unauthorized_client: { status: 400, error: 'unauthorized_client' },
  unsupported_grant_type: { status: 400, error: 'unsupported_grant_type' },
  invalid_scope: { status: 400, error: 'invalid_scope' },
  scope_too_large: { status: 400, error: 'invalid_scope' },
  invalid_target: { status: 400, error: 'invalid_target' },
  invalid_dpop_proof: { status: 400, error: 'invalid_dpop_proof' },
  // Of whoever asks with an access token (RFC 6750 §3.1).
  authentication_required: { status: 401, error: 'invalid_token' },
  invalid_token: { status: 401, error: 'invalid_token' },
  insufficient_scope: { status: 403, error: 'insufficient_scope' },
  password_change_required: { status: 403, error: 'insufficient_scope' },
  environment_not_allowed: { status: 403, error: 'insufficient_scope' },
  too_many_requests: { status: 429, error: 'temporarily_unavailable' },
  internal_error: { status: 500, error: 'server_error' },
}

const nameOf = ({ code, status }: AppError): Name =>
  NAMES[code] ??
  (status >= 500
    ? { status, error: 'temporarily_unavailable' }
    : { status: status === 413 ? 413 : 400, error: 'invalid_request' })

/** Answers a failure as RFC 6749 §5.2 says. */
export async function sendOAuth2Error(failure: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  const problem = toAppError(failure)
  if (problem.status >= 500) request.log.error({ err: failure }, 'request failed')
  const { status, error } = nameOf(problem)
  setProblemHeaders(problem, reply)
  forbidCaching(reply)
  // RFC 6749 §5.2 asks for it when the client tried Basic, RFC 9110 §15.5.2 always.
  if (error === 'invalid_client') reply.header('www-authenticate', 'Basic realm="postern", charset="UTF-8"')
  return await reply.code(status).send({ error, error_description: describe(problem) })
}
