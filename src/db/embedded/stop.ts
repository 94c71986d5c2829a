import { ensureRunning } from './ensure-running.ts'
import { EmbeddedError } from './errors.ts'
import type { ServerFiles } from './layout.ts'
import { findRunning, readPidFile, shutDown } from './postmaster.ts'
import type { Progress } from './progress.ts'
import { closeSession } from './session.ts'
import { findLastingUser, findUser } from './users.ts'

/** Stops the server, known as `pid`, unless something is connected to it, and says whether it is stopped. */
export async function stopIfUnused(files: ServerFiles, pid: number): Promise<boolean> {
  const current = await findRunning(files)
  const user = current && (await findUser(current.session))
  if (current) await closeSession(current.session)
  if (user !== undefined) return false
  await shutDown(files, current?.pid ?? pid)
  return true
}

/**
 * Stops a server that nobody uses any more, and mends a database whose server was killed, so that its files are
 * complete and at rest. The caller holds the lock of DATA_DIR.
 * @throws EmbeddedError while something is connected
 */
export async function settle(files: ServerFiles, onProgress: Progress): Promise<void> {
  if (!(await readPidFile(files))) return
  const { running } = await ensureRunning(files.dataDir, false, onProgress)
  const user = await findLastingUser(running.session)
  await closeSession(running.session)
  if (user !== undefined) {
    throw new EmbeddedError(`The database in ${files.dataDir} is in use (${user}): stop that process first.`)
  }
  await shutDown(files, running.pid)
}
