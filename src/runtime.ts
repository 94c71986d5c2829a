import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import { claimDataDir, type DataDirClaim } from './db/embedded/claim.ts'
import { startEmbedded } from './db/embedded/server.ts'
import { StartupError } from './errors.ts'
import { findSecretKey } from './secret-key.ts'
import { createServices, type ServiceOptions, type Services } from './services.ts'

/** A process with a database: the services, where their database is, and how to let go of both. */
export type Runtime = {
  services: Services
  /** For advisory locks and other things that belong to a session. */
  directUrl: string
  /** Closes the pool, then the embedded server: `serve` stops it, a command leaves it to whoever uses it. */
  close(): Promise<void>
}

type Options = {
  /** `serve` owns DATA_DIR; a command attaches to a server that runs, or starts one for its own time. */
  as: 'serve' | 'command'
  onProgress?: (message: string) => void
  onDatabaseError?: (error: Error) => void
  logDecision?: ServiceOptions['logDecision']
  logMail?: ServiceOptions['logMail']
  warn?: ServiceOptions['warn']
  clock?: Clock
}

/**
 * Finds or starts the database and builds the services over it.
 * @throws StartupError with a sentence that says what to do
 */
export async function openRuntime(config: Config, options: Options): Promise<Runtime> {
  const { url } = config.database
  const secretKeyOf = async () =>
    await findSecretKey({ given: config.secretKey, dataDir: config.dataDir, mayGenerate: url === undefined })
  if (url !== undefined) return await runtimeOf(config, url, options, secretKeyOf)

  const embedded = await superviseEmbedded(config, options)
  try {
    const claim = options.as === 'serve' ? await claimOf(config, embedded.url, options) : undefined
    if (claim) embedded.watch()
    const onDatabaseError = (error: Error): void => {
      options.onDatabaseError?.(error)
      if (options.as === 'serve') embedded.revive()
    }
    return await runtimeOf(config, embedded.url, { ...options, onDatabaseError }, secretKeyOf, async () => {
      await claim?.release()
      if (options.as === 'serve') await embedded.stop()
      else await embedded.stopIfUnused()
    })
  } catch (error) {
    await embedded.stopIfUnused()
    throw error
  }
}

const WATCH_MS = 1_000

type HeldClaim = Extract<DataDirClaim, { held: true }>

async function claimOf(config: Config, url: string, { onDatabaseError }: Options): Promise<HeldClaim> {
  const claim = await claimDataDir(url, {
    onLost: (ownerPid) =>
      onDatabaseError?.(new Error(`process ${ownerPid} has claimed the data folder of this one`)),
  })
  if (claim.held) return claim
  const owner = claim.ownerPid === undefined ? 'another process' : `process ${claim.ownerPid}`
  throw new StartupError(
    `The data folder ${config.dataDir} is in use by ${owner}: stop it, or set DATA_DIR to another folder.`,
  )
}

/** The embedded server, and how to start it again when it died under us: on the same port, where the pool looks for it. */
async function superviseEmbedded({ dataDir }: Config, { onProgress, onDatabaseError }: Options) {
  let server = await startEmbedded({ dataDir, ...(onProgress && { onProgress }) })
  let reviving: Promise<void> | undefined
  let watch: NodeJS.Timeout | undefined
  const revive = (): void => {
    reviving ??= startEmbedded({ dataDir })
      .then(async (revived) => {
        const former = server
        server = revived
        await former.detach()
      })
      .catch((error: Error) => onDatabaseError?.(error))
      .finally(() => {
        reviving = undefined
      })
  }
  return {
    url: server.url,
    revive,
    /** Looks after it from now on: a pool that is idle has no connection whose end would tell. */
    watch(): void {
      watch = setInterval(() => {
        if (!isRunning(server.pid)) revive()
      }, WATCH_MS).unref()
    },
    async stop(): Promise<void> {
      clearInterval(watch)
      await reviving
      await server.stop()
    },
    async stopIfUnused(): Promise<void> {
      clearInterval(watch)
      await reviving
      await server.stopIfUnused()
    },
  }
}

/** Also true when the process is another user's. */
function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH')
  }
}

async function runtimeOf(
  config: Config,
  url: string,
  { onDatabaseError, logDecision, logMail, warn, clock }: Options,
  secretKeyOf: () => Promise<string>,
  release: () => Promise<void> = async () => {},
): Promise<Runtime> {
  const services = createServices(config, {
    databaseUrl: url,
    secretKey: await secretKeyOf(),
    ...(clock && { clock }),
    ...(onDatabaseError && { onDatabaseError }),
    ...(logDecision && { logDecision }),
    ...(logMail && { logMail }),
    ...(warn && { warn }),
  })
  return {
    services,
    directUrl: config.database.directUrl ?? url,
    async close() {
      await services.close()
      await release()
    },
  }
}
