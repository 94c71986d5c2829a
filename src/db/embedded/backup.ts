import { mkdir, mkdtemp, readdir, rename, rmdir } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type BackupManifest, contentOf, refuseNesting, writeManifest } from './backup-folder.ts'
import { readMajor } from './cluster.ts'
import { copyTree, PRIVATE, sum } from './copy-tree.ts'
import { locateFiles } from './data-dir.ts'
import { EmbeddedError, explaining } from './errors.ts'
import { canonical, ifMissing, orRemove, syncFolder } from './file-system.ts'
import { isSecret, type ServerFiles } from './layout.ts'
import { withDataDirLock } from './lock.ts'
import type { Progress } from './progress.ts'
import { settle } from './stop.ts'

type BackupOptions = {
  dataDir: string
  /** A folder that is missing or empty, outside of DATA_DIR. */
  target: string
  /** Postern's own version, for the manifest. */
  version: string
  onProgress?: Progress
}

/**
 * Copies the database and the secrets of a DATA_DIR into a new folder, and returns its manifest. The service must
 * be stopped; a database whose server was killed is mended first. The folder appears under its name when all of
 * it is on the disk. It holds every secret: keep it as safe as DATA_DIR.
 * @throws EmbeddedError
 */
export async function backupDataDir(options: BackupOptions): Promise<BackupManifest> {
  const { version, onProgress = () => {} } = options
  const target = resolve(options.target)
  return await explaining(target, 'The backup was not made', async () => {
    const dataDir = await canonical(options.dataDir)
    if (!(await locateFiles(dataDir))) throw noDatabase(dataDir)
    await mkdir(dirname(target), { recursive: true })
    refuseNesting(dataDir, await canonical(target))
    await clearTarget(target)
    const copy = async (): Promise<BackupManifest> => {
      const files = await locateFiles(dataDir)
      if (!files) throw noDatabase(dataDir)
      await settle(files, onProgress)
      onProgress('Copying the database')
      return await writeBackup(files, target, version)
    }
    return await withDataDirLock(dataDir, copy, onProgress)
  })
}

async function writeBackup(files: ServerFiles, target: string, version: string): Promise<BackupManifest> {
  const unfinished = await mkdtemp(`${target}.partial-`)
  return await orRemove(unfinished, async () => {
    const copy = contentOf(unfinished)
    await mkdir(copy.data, { recursive: true, mode: 0o700 })
    // Whoever moved a part to another disk left a link in its place.
    const options = { ...PRIVATE, followLinks: true }
    const parts = [
      await copyTree(files.dataDir, copy.dataDir, { ...options, skip: (name) => !isSecret(name) }),
      await copyTree(files.folder, copy.folder, { ...options, skip: (name) => name !== 'password' }),
      await copyTree(files.data, copy.data, { ...options, skip: (name) => name === 'postmaster.opts' }),
    ]
    const major = (await readMajor(files)) ?? 0
    const manifest = await writeManifest(unfinished, version, major, sum(parts))
    await syncFolder(unfinished)
    await rename(unfinished, target)
    await syncFolder(dirname(target))
    return manifest
  })
}

/** An empty target folder makes way for the finished backup, which is moved to its name. */
async function clearTarget(target: string): Promise<void> {
  const names = await readdir(target).catch(ifMissing(undefined))
  if (names === undefined) return
  if (names.length > 0)
    throw new EmbeddedError(`${target} is not empty: name a folder that is not there yet.`)
  await rmdir(target).catch((error: unknown) => {
    throw new EmbeddedError(`${target} cannot be replaced: name a new folder inside it.`, { cause: error })
  })
}

function noDatabase(dataDir: string): EmbeddedError {
  return new EmbeddedError(
    `There is no embedded database in ${dataDir}: check DATA_DIR, or back up the server of DATABASE_URL with pg_dump.`,
  )
}
