import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import plugin from 'fastify-plugin'
import type { DestinationStream } from 'pino'
import type { Config } from '../config.ts'

const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/
/** AuthZEN clients get back whatever id they sent (Authorization API 1.0 §10.1.4): printable ASCII, within bounds. */
const AUTHZEN_REQUEST_ID = /^[\x20-\x7e]{1,256}$/
const AUTHZEN_PATHS = /^\/(access\/v1|\.well-known\/authzen-configuration)\b/

/** The id of a request: the client's own when it is short and plain, else a new one. */
export function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id']
  const isAuthzen = AUTHZEN_PATHS.test(request.url ?? '')
  const accepted = isAuthzen ? AUTHZEN_REQUEST_ID : REQUEST_ID
  return typeof given === 'string' && accepted.test(given) ? given : randomUUID()
}

/** JSON lines; readable ones on a terminal in development. Neither headers nor bodies nor queries are logged. */
export function loggerOptions(config: Config) {
  return {
    level: config.logLevel,
    redact: {
      paths: [
        'authorization',
        'cookie',
        'password',
        'token',
        'secret',
        '*.authorization',
        '*.cookie',
        '*.password',
        '*.token',
        '*.secret',
      ],
      censor: '[redacted]',
    },
    serializers: { err: loggedError },
  }
}

const LOG_DELAY_MS = 100
const LOG_BUFFER_CHARACTERS = 8192

/**
 * Where a serving process writes its log: standard output, up to a tenth of a second late and many lines at a
 * time, because a system call for each request costs more than what it tells. The end of the process flushes it.
 */
export async function logStream(config: Config): Promise<DestinationStream> {
  if (config.environment === 'dev' && process.stdout.isTTY) {
    const { default: pretty } = await import('pino-pretty')
    return pretty({ translateTime: 'HH:MM:ss', ignore: 'pid,hostname', sync: true })
  }
  let lines = ''
  let timer: NodeJS.Timeout | undefined
  const flush = (): void => {
    clearTimeout(timer)
    timer = undefined
    const written = lines
    lines = ''
    if (written !== '') process.stdout.write(written)
  }
  process.once('exit', flush)
  return {
    write(line) {
      lines += line
      if (lines.length >= LOG_BUFFER_CHARACTERS) flush()
      else timer ??= setTimeout(flush, LOG_DELAY_MS).unref()
    },
  }
}

/** An error as the log has it: a failed statement without its parameters, which may hold personal data. */
function loggedError(error: Error): { type: string; message: string; stack: string } {
  const inner = error.cause instanceof Error ? error.cause : undefined
  const hasParameters = 'params' in error && 'query' in error
  return {
    type: error.name,
    message: hasParameters ? 'a statement failed' : error.message,
    stack: (hasParameters ? inner?.stack : error.stack) ?? '',
    ...('code' in error && { code: error.code }),
    ...(inner && {
      cause: { type: inner.name, message: inner.message, ...('code' in inner && { code: inner.code }) },
    }),
  }
}

/** One line for each request, and its id in X-Request-Id. */
export const requestLog = plugin(
  async (app) => {
    // With a callback: on the way of every request a promise costs as much as the line.
    app.addHook('onRequest', (request, reply, done) => {
      reply.header('x-request-id', request.id)
      done()
    })
    // Its fields are known and none is secret, so nothing is searched for what to redact.
    const lines = app.log.child({}, { redact: [] })
    app.addHook('onResponse', (request, reply, done) => {
      if (request.log.level !== lines.level) return done() // the route logs less than the service
      lines.info(
        {
          reqId: request.id,
          method: request.method,
          path: request.url.split('?', 1)[0],
          status: reply.statusCode,
          ms: Math.round(reply.elapsedTime * 10) / 10,
          address: request.ip,
          ...(request.principal?.type === 'user' && { userId: request.principal.userId }),
        },
        'request',
      )
      done()
    })
  },
  { name: 'request-log' },
)
