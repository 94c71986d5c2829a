import { join } from 'node:path'
import { chooseAccount } from './account.ts'
import { type Cluster, claimFiles, initialise, refuseOtherVersion } from './cluster.ts'
import { locateFiles, placeFiles } from './data-dir.ts'
import { EmbeddedError } from './errors.ts'
import { exists } from './file-system.ts'
import { launch } from './launch.ts'
import { RESTORING_FILE, type ServerFiles } from './layout.ts'
import { findRunning, type Running } from './postmaster.ts'
import { loadPrograms, makeRunnable } from './programs.ts'
import type { Progress } from './progress.ts'

/**
 * Adopts the server of a DATA_DIR, or else starts it, on a new cluster if there is none. The caller holds the lock
 * of DATA_DIR.
 * @throws EmbeddedError, and the system's errors
 */
export async function ensureRunning(
  dataDir: string,
  ephemeral: boolean,
  onProgress: Progress,
): Promise<{ files: ServerFiles; running: Running; adopted: boolean }> {
  if (await exists(join(dataDir, RESTORING_FILE))) {
    throw new EmbeddedError(`A restore into ${dataDir} was interrupted: run "postern restore" again.`)
  }
  const located = await locateFiles(dataDir)
  const account = await chooseAccount(located?.data)
  const files = located ?? (await placeFiles(dataDir, account))
  const installed = await loadPrograms()
  await refuseOtherVersion(files, installed.major)

  const found = await findRunning(files, onProgress)
  if (found) return { files, running: found, adopted: true }

  const programs = await makeRunnable(installed, files, account, onProgress)
  const cluster: Cluster = { files, programs, account, ephemeral }
  if (await exists(files.data)) await claimFiles(cluster)
  else await initialise(cluster, onProgress)
  return { files, running: await launch(cluster, onProgress), adopted: false }
}
