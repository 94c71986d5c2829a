import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { AppError } from '../errors.ts'
import { ref } from '../http/schemas.ts'
import { anywhere } from '../permissions.ts'
import { principalId } from '../principal.ts'
import type { Services } from '../services.ts'
import type { FeedEvent } from './feed.ts'
import { cursorOf, ListRevocationsQuery, presentEvent, presentPage, RevocationsSchema } from './schemas.ts'

/** How soon a browser's EventSource comes back; our verifier has its own rule. */
const RETRY_MS = 1000
/** A stream that has been told to end and does not is cut off. */
const CUT_MS = 1000

/**
 * Which tokens are dead before they expire: a page of it, or a stream of server-sent events. Every machine may read it,
 * because verifying tokens is what they are for and the rows hold ids only; of people those who see all sessions.
 */
export function revocationsRoutes({
  revocations: { feed },
}: Pick<Services, 'revocations'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.addHook('preClose', async () => feed.endStreams())

    app.get(
      '/revocations',
      {
        config: { access: 'signed-in', ignoresEnvironment: true },
        schema: {
          operationId: 'listRevocations',
          tags: ['Keys'],
          summary: 'Sessions, tokens, users and clients whose access tokens are dead before they expire',
          description:
            'For services that verify tokens themselves. Each entry stays as long as a token that it ends could live. With `Accept: text/event-stream` the answer is a stream that goes on: events `revoked`, whose data is an array of entries, and `current`, at least every ten seconds, which says how old the knowledge is. `Last-Event-ID` resumes it. For API keys, clients, and people who hold `postern.sessions:read` everywhere.',
          querystring: ListRevocationsQuery,
          response: { 200: ref(RevocationsSchema) },
        },
      },
      async (request, reply) => {
        mayRead(request)
        const { since, limit } = request.query
        const wantsStream = request.headers.accept?.includes('text/event-stream') && request.method === 'GET'
        if (!wantsStream) return presentPage(await feed.page(cursorOf(since), limit))
        const lastId = request.headers['last-event-id']
        return await sendStream(request, reply, typeof lastId === 'string' ? lastId : since)
      },
    )

    async function sendStream(request: FastifyRequest, reply: FastifyReply, since: string | undefined) {
      const { principal } = request
      const caller = `${principal?.type}:${principal && principalId(principal)}`
      const { events, controller } = await feed.stream(cursorOf(since), caller)
      const body = Readable.from(textOf(events), { objectMode: false, highWaterMark: 0 })
      // The body itself closes no sooner than its next event.
      reply.raw.on('close', () => controller.abort())
      controller.signal.addEventListener('abort', () => {
        setTimeout(() => body.destroy(), CUT_MS).unref()
      })
      reply.header('content-type', 'text/event-stream; charset=utf-8')
      reply.header('cache-control', 'no-store, no-transform')
      // nginx would keep events back until its buffer is full.
      reply.header('x-accel-buffering', 'no')
      // The types know the page only.
      return reply.send(body as never)
    }
  }
}

/** @throws AppError insufficient_scope */
function mayRead({ principal }: FastifyRequest): void {
  const permission = anywhere('postern.sessions:read')
  if (principal?.type === 'user' && !principal.scopes.has(permission))
    throw new AppError('insufficient_scope', { requiredScope: permission })
}

async function* textOf(events: AsyncGenerator<FeedEvent>): AsyncGenerator<string> {
  yield `retry: ${RETRY_MS}\n\n`
  for await (const event of events) yield presentEvent(event)
}
