import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { AppError } from '../errors.ts'
import { setProblemHeaders } from '../http/problem.ts'

/** Answers every failure within `app` as a PDP does: `{"detail": "…"}`. A body that cannot be read is not valid. */
export function answerErrorsAsPdp(app: FastifyInstance): void {
  app.setErrorHandler(async (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    const problem = await app.reportFailure(error, request)
    setProblemHeaders(problem, reply)
    return await reply
      .code(problem.code === 'malformed_request' ? 422 : problem.status)
      .send({ detail: detailOf(problem) })
  })
}

function detailOf({ status, errors, message }: AppError): string {
  if (status === 500) return 'Something went wrong here'
  const [first] = errors ?? []
  if (!first) return message
  const field = first.pointer.replace(/^\/(body\/?|\w+\/)/, '').replaceAll('/', '.')
  return field === '' ? `The request ${first.detail}` : `${field} ${first.detail}`
}
