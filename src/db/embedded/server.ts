import { ensureDataDir, locateFiles } from './data-dir.ts'
import { ensureRunning } from './ensure-running.ts'
import { explaining, NOT_STARTED } from './errors.ts'
import { canonical, exists } from './file-system.ts'
import type { ServerFiles } from './layout.ts'
import { withDataDirLock } from './lock.ts'
import { findRunning, type Running, shutDown } from './postmaster.ts'
import type { Progress } from './progress.ts'
import { ensureDatabase } from './service-database.ts'
import { closeSession } from './session.ts'
import { stopIfUnused } from './stop.ts'
import { attach, detach } from './users.ts'

/** A Postgres server of our own that runs now. */
export type EmbeddedServer = {
  /** Database `postern` over TCP on 127.0.0.1, as its owner `postern`, who is no superuser. Holds the password. */
  url: string
  /** Process id of the postmaster. */
  pid: number
  port: number
  /** Folder of the server's own files: `DATA_DIR/postgres`, or one under /var/lib/postern. */
  directory: string
  /** True if the server was already running. */
  adopted: boolean
  /**
   * Gives up the connection by which this process counts as a user of the server. Worth it for a process that
   * lives long and holds another one, such as a claim: a connection costs the server 6 MB.
   */
  detach(): Promise<void>
  /** Disconnects everyone and returns when the server has ended, its files complete. */
  stop(): Promise<void>
  /**
   * Stops the server unless something is connected to it, and says whether it is stopped. Every process that
   * called `startEmbedded` counts until it ends or detaches; of this one, its other connections: close them first.
   */
  stopIfUnused(): Promise<boolean>
}

type EmbeddedOptions = {
  /** DATA_DIR; made if missing. A relative path counts from the working directory. */
  dataDir: string
  /** For tests: faster, may create databases, and a power cut loses everything. */
  ephemeral?: boolean
  onProgress?: Progress
}

/**
 * The embedded server of this DATA_DIR: adopted if one runs, otherwise started, and made on the first start. It
 * outlives a killed node process and does not hear Ctrl-C: call `stop` or `stopIfUnused` on every way out.
 * After a crash of the server, a second call starts it again, on the same port while that is free.
 * @throws EmbeddedError
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<EmbeddedServer> {
  const { dataDir, ephemeral = false, onProgress = () => {} } = options
  return await explaining(dataDir, NOT_STARTED, async () => {
    const directory = await ensureDataDir(dataDir)
    const start = async (): Promise<EmbeddedServer> => {
      const { files, running, adopted } = await ensureRunning(directory, ephemeral, onProgress)
      return await createHandle(files, running, adopted, ephemeral)
    }
    return await withDataDirLock(directory, start, onProgress)
  })
}

/**
 * The server that already runs on this DATA_DIR, or `undefined`; starts nothing.
 * @throws EmbeddedError
 */
export async function findEmbedded(dataDir: string): Promise<EmbeddedServer | undefined> {
  return await explaining(dataDir, NOT_STARTED, async () => {
    const directory = await canonical(dataDir)
    if (!(await locateFiles(directory))) return undefined
    return await withDataDirLock(directory, async () => {
      const files = await locateFiles(directory)
      const running = files && (await findRunning(files))
      return running && (await createHandle(files, running, true, false))
    })
  })
}

async function createHandle(
  files: ServerFiles,
  running: Running,
  adopted: boolean,
  ephemeral: boolean,
): Promise<EmbeddedServer> {
  const { pid, port, session } = running
  const url = await ensureDatabase(files, running, ephemeral).catch(async (error: unknown) => {
    await closeSession(session)
    if (!adopted) await shutDown(files, pid)
    throw error
  })
  await attach(files, session)
  // A folder that was deleted under a running server has no lock to take.
  const locked = async <T>(work: () => Promise<T>): Promise<T> =>
    (await exists(files.dataDir)) ? await withDataDirLock(files.dataDir, work) : await work()
  return {
    url,
    pid,
    port,
    directory: files.folder,
    adopted,
    async detach() {
      await detach(files)
    },
    async stop() {
      await detach(files)
      await locked(() => shutDown(files, pid))
    },
    async stopIfUnused() {
      await detach(files)
      return await locked(() => stopIfUnused(files, pid))
    },
  }
}
