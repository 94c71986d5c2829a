import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { AppError, ProblemCode } from '../errors.ts'
import { setProblemHeaders, toAppError } from '../http/problem.ts'

type OAuthError = { status: number; error: string; description: string }

const INVALID_GRANT: OAuthError = {
  status: 400,
  error: 'invalid_grant',
  description: 'Incorrect email or password',
}

const UNSUPPORTED_GRANT: OAuthError = {
  status: 400,
  error: 'unsupported_grant_type',
  description: 'The grant_type must be password',
}

/** What the refusals of a sign-in are called in OAuth (RFC 6749 §5.2). */
const NAMES: Partial<Record<ProblemCode, OAuthError>> = {
  invalid_credentials: INVALID_GRANT,
  mfa_required: { status: 400, error: 'mfa_required', description: 'A second factor is required' },
  invalid_scope: { status: 400, error: 'invalid_scope', description: 'None of the requested scopes is held' },
  scope_too_large: { status: 400, error: 'invalid_scope', description: 'The scopes do not fit into a token' },
  invalid_target: {
    status: 400,
    error: 'invalid_target',
    description: 'Tokens for this resource are not to be had',
  },
  too_many_requests: { status: 429, error: 'temporarily_unavailable', description: 'Too many attempts' },
  sign_in_busy: { status: 503, error: 'temporarily_unavailable', description: 'Too many sign-ins at once' },
  database_unavailable: {
    status: 503,
    error: 'temporarily_unavailable',
    description: 'The service is not available',
  },
  internal_error: { status: 500, error: 'server_error', description: 'Something went wrong here' },
}

/** Answers a failure of an OAuth endpoint as RFC 6749 §5.2 says. */
export async function sendOAuthError(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  const problem = toAppError(error)
  if (problem.status >= 500) request.log.error({ err: error }, 'request failed')
  const {
    status,
    error: name,
    description,
  } = NAMES[problem.code] ?? (isForeignGrant(error) ? UNSUPPORTED_GRANT : invalidRequest(problem))
  setProblemHeaders(problem, reply)
  forbidCaching(reply)
  const { extensions } = problem
  return await reply
    .code(status)
    .send({ error: name, error_description: description, detail: description, ...extensions })
}

/** RFC 6749 §5.1: no answer of a token endpoint is kept by anybody. */
export function forbidCaching(reply: FastifyReply): void {
  reply.header('cache-control', 'no-store').header('pragma', 'no-cache')
}

/** A grant type that is not ours, whatever else the form lacks. A repeated parameter is another fault. */
const isForeignGrant = ({ validation }: FastifyError): boolean =>
  validation?.some((fault) => fault.instancePath === '/grant_type' && fault.keyword === 'pattern') ?? false

function invalidRequest(problem: AppError): OAuthError {
  return {
    status: problem.status === 413 ? 413 : 400,
    error: 'invalid_request',
    description: describe(problem),
  }
}

/** The sentence of a problem. It may have printable ASCII without quotes and backslashes only (RFC 6749 §5.2). */
export function describe(problem: AppError): string {
  const first = problem.errors?.[0]
  const sentence = first ? `${first.pointer.replace('/body/', '')} ${first.detail}` : problem.message
  return sentence.replaceAll(/[^\x20\x21\x23-\x5b\x5d-\x7e]/g, ' ')
}
