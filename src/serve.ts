import { once } from 'node:events'
import type { Server } from 'node:net'
import closeWithGrace from 'close-with-grace'
import { type App, buildApp } from './app.ts'
import { lowerHashingPriority } from './auth/hashing-priority.ts'
import { type Config, loadConfig, publicUrl } from './config.ts'
import { StartupError } from './errors.ts'
import { furtherListener, listenOn } from './http/listeners.ts'
import { loggerOptions, logStream } from './http/request-log.ts'
import { openRuntime, type Runtime } from './runtime.ts'
import { type FirstSuperAdmin, setUp } from './setup.ts'
import {
  Interruption,
  type InterruptionWatch,
  onEndRequested,
  outliveReaders,
  watchForInterruption,
} from './terminal.ts'

/** Starts the service, serves until SIGTERM or SIGINT, and ends with exit code 0; 1 when it cannot start. */
export async function serve(): Promise<void> {
  outliveReaders()
  const interruption = watchForInterruption()
  try {
    await start(loadConfig(), interruption)
  } catch (error) {
    // A terminal's Ctrl-C also ends what was being started, whose failure is then no news.
    const cause: unknown = interruption.signal.aborted ? interruption.signal.reason : error
    if (cause instanceof Interruption) process.exit(cause.exitCode)
    process.stderr.write(`${startupMessage(error)}\n`)
    process.exit(1)
  }
}

async function start(config: Config, interruption: InterruptionWatch): Promise<void> {
  const report: { app?: App } = {}
  const runtime = await openRuntime(config, {
    as: 'serve',
    onProgress: (message) => process.stdout.write(`${message}\n`),
    onDatabaseError: (error) => report.app?.log.warn({ err: error }, 'a database connection broke'),
    logDecision: (decision) => report.app?.log.info({ decision }, 'decision'),
    logMail: (mail) => report.app?.log.info({ mail }, 'a mail, printed because there is no SMTP_URL'),
    warn: (details, message) => report.app?.log.warn(details, message),
  })
  try {
    const { app, firstSuperAdmin } = await interruption.orUntilThen(async () => await prepare(runtime))
    report.app = app
    const listeners = furtherListeners(app, config)
    closeGracefully(app, listeners, runtime, config)
    interruption.end()
    await listen(app, listeners, config)
    runtime.services.start()
    void lowerThreads(app, config)
    const { warning } = runtime.services.mailer
    if (warning !== undefined) app.log.warn(warning)
    printWelcome(config, firstSuperAdmin)
  } catch (error) {
    await runtime.close().catch(() => {})
    throw error
  }
}

async function lowerThreads({ log }: App, { passwords: { threads, priority } }: Config): Promise<void> {
  try {
    const found = await lowerHashingPriority(threads, priority)
    if (found !== undefined && found < threads)
      log.warn({ threads, found }, 'some of the threads that hash passwords keep their priority')
  } catch (error) {
    log.warn({ err: error }, 'the threads that hash passwords have not the priority that HASH_PRIORITY says')
  }
}

async function prepare({ services, directUrl }: Runtime): Promise<Prepared> {
  const { config } = services
  const logger = { ...loggerOptions(config), stream: await logStream(config) }
  // The database and the hash are waited for while the routes are registered.
  const [{ firstSuperAdmin }, app] = await Promise.all([
    setUp(services, directUrl),
    buildApp(services, { logger }),
    services.passwords.warmUp(),
  ])
  return { app, firstSuperAdmin }
}

type Prepared = { app: App; firstSuperAdmin: FirstSuperAdmin | undefined }

/** A port besides PORT on which the same service answers, and the variable that names it. */
type FurtherListener = { listener: Server; port: number; variable: string }

function furtherListeners(app: App, { pdp }: Config): FurtherListener[] {
  const wanted = [
    { variable: 'PDP_PORT', port: pdp.port },
    { variable: 'OPA_PORT', port: pdp.opaPort },
  ]
  return wanted.flatMap(({ variable, port }) =>
    port === undefined ? [] : [{ variable, port, listener: furtherListener(app) }],
  )
}

async function listen(
  app: App,
  listeners: FurtherListener[],
  { http: { host, port } }: Config,
): Promise<void> {
  await orExplain('PORT', host, port, async () => void (await app.listen({ host, port })))
  for (const further of listeners) {
    const address = { host, port: further.port }
    await orExplain(
      further.variable,
      host,
      further.port,
      async () => await listenOn(further.listener, address),
    )
  }
}

async function orExplain(
  variable: string,
  host: string,
  port: number,
  bind: () => Promise<void>,
): Promise<void> {
  try {
    await bind()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'EADDRINUSE') {
      throw new StartupError(
        `Port ${port} on ${host} is in use: stop the other program, or set ${variable} to another number.`,
      )
    }
    if (code === 'EACCES')
      throw new StartupError(
        `Port ${port} needs more rights than this user has: set ${variable} to 1024 or above.`,
      )
    if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
      throw new StartupError(
        `HOST=${host} is no address of this machine: set it to one, or to 0.0.0.0 for all.`,
      )
    }
    throw error
  }
}

/**
 * SIGTERM and SIGINT: stop accepting, let requests under way finish, then close the pool and the database. Node's
 * own close waits for idle keep-alive and never-used connections, so those are cut here.
 */
function closeGracefully(
  app: App,
  further: readonly FurtherListener[],
  runtime: Runtime,
  { http }: Config,
): void {
  const listeners = further.map(({ listener }) => listener)
  let ended: Promise<unknown> = Promise.resolve()

  let isClosing = false
  app.addHook('onSend', async (_request, reply) => {
    if (isClosing) reply.header('connection', 'close')
  })
  app.addHook('preClose', async () => {
    isClosing = true
    const cutIdle = setInterval(() => app.server.closeIdleConnections(), 100).unref()
    const cutAll = setTimeout(() => app.server.closeAllConnections(), http.shutdownTimeoutMs).unref()
    ended = Promise.all([app.server, ...listeners].map(async (server) => await once(server, 'close')))
    for (const listener of listeners) listener.close()
    void ended.then(() => {
      clearInterval(cutIdle)
      clearTimeout(cutAll)
    })
  })
  const delay = http.shutdownTimeoutMs + 5000
  // Signals are heard by onEndRequested, because this package ends the process at the second one.
  const options = {
    delay,
    logger: false,
    skip: ['SIGINT', 'SIGTERM', 'SIGHUP'],
  } satisfies closeWithGrace.Options
  const { close } = closeWithGrace(options, async ({ err }) => {
    if (err) app.log.fatal({ err }, 'an unexpected fault ends the process')
    await app.close()
    await ended
    await runtime.close()
  })
  onEndRequested(
    () => void close(),
    () => process.exit(1),
  )
}

function printWelcome(config: Config, firstSuperAdmin: FirstSuperAdmin | undefined): void {
  const url = publicUrl(config.http)
  const email = firstSuperAdmin?.email ?? config.firstSuperAdmin.email
  const password = firstSuperAdmin?.password
  const lines = [
    '',
    '  Postern is ready.',
    '',
    `    Address         ${url}`,
    `    Documentation   ${url}/docs`,
    `    Admin email     ${email}`,
    ...(password === undefined ? [] : [`    Admin password  ${password}   (shown only now: keep it)`]),
    '',
    '  Next, sign in:',
    '',
    `    curl -s ${url}/api/v1/auth/login -H 'content-type: application/json' \\`,
    `      -d ${quoted(JSON.stringify({ email, password: password ?? 'YOUR PASSWORD' }))}`,
    '',
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** `text` as one word of a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** One sentence for what the operator can mend; the whole error for what only we can. */
function startupMessage(error: unknown): string {
  if (error instanceof StartupError) return error.message
  return `Postern could not start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}
