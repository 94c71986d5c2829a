import { realpath } from 'node:fs/promises'
import { type Config, loadConfig } from '../config.ts'
import { locateFiles } from '../db/embedded/data-dir.ts'
import { startEmbedded } from '../db/embedded/server.ts'
import { StartupError } from '../errors.ts'
import { openRuntime, type Runtime } from '../runtime.ts'
import { assertSetUp } from '../setup.ts'
import { report, watchForInterruption } from '../terminal.ts'

/**
 * Runs `work` over the services: on the server that runs, or on the embedded one started for this long.
 * @throws StartupError, Interruption
 */
export async function withServices<T>(
  config: Config,
  work: (services: Runtime['services'], directUrl: string) => Promise<T>,
): Promise<T> {
  return await closing(
    async () => await openRuntime(config, { as: 'command', onProgress: report }),
    async ({ services, directUrl }) => await work(services, directUrl),
  )
}

/** The same for a database that `serve` or `seed` has set up before. @throws StartupError when none has */
export async function withSetUpServices<T>(work: (services: Runtime['services']) => Promise<T>): Promise<T> {
  const config = loadConfig()
  if (!(await hasDatabase(config))) {
    throw new StartupError(
      `There is no database in ${config.dataDir}: run "postern seed" first, or check DATA_DIR.`,
    )
  }
  return await withServices(config, async (services, directUrl) => {
    await assertSetUp(services, directUrl)
    return await work(services)
  })
}

/** Runs `work` with the URL of the database alone, for what needs neither SECRET_KEY nor services. */
export async function withDatabaseUrl<T>(
  config: Config,
  work: (directUrl: string) => Promise<T>,
): Promise<T> {
  const { url, directUrl } = config.database
  if (url !== undefined) {
    return await closing(
      async () => ({ close: async () => {} }),
      async () => await work(directUrl ?? url),
    )
  }
  return await closing(
    async () => {
      const embedded = await startEmbedded({ dataDir: config.dataDir, onProgress: report })
      return { url: embedded.url, close: async () => void (await embedded.stopIfUnused()) }
    },
    async ({ url }) => await work(url),
  )
}

/** Whether there is a database to speak of, without making one. */
export async function hasDatabase({ database, dataDir }: Config): Promise<boolean> {
  if (database.url !== undefined) return true
  const directory = await realpath(dataDir).catch(() => undefined)
  return directory !== undefined && (await locateFiles(directory)) !== undefined
}

/** Opens, works and closes; a signal cuts the work short and closes all the same. */
async function closing<R extends { close(): Promise<void> }, T>(
  open: () => Promise<R>,
  work: (resource: R) => Promise<T>,
): Promise<T> {
  const interruption = watchForInterruption()
  try {
    const resource = await open()
    try {
      return await interruption.orUntilThen(async () => await work(resource))
    } finally {
      await resource.close()
    }
  } catch (error) {
    // A terminal's Ctrl-C also ends what was being started, whose failure is then no news.
    interruption.signal.throwIfAborted()
    throw error
  } finally {
    interruption.end()
  }
}
