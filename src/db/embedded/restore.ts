import { chmod, chown, mkdir, mkdtemp, readdir, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type Account, chooseAccount } from './account.ts'
import { type BackupManifest, contentOf, readManifest, refuseNesting } from './backup-folder.ts'
import { copyTree, PRIVATE, sum } from './copy-tree.ts'
import { ensureDataDir, FOLDER_MODE, locateFiles, placeFiles } from './data-dir.ts'
import { EmbeddedError, explaining } from './errors.ts'
import { canonical, exists, orRemove, syncFolder } from './file-system.ts'
import {
  isReplaceable,
  REPLACED,
  RESTORING_FILE,
  SERVER_FOLDER,
  type ServerFiles,
  STAGING,
} from './layout.ts'
import { withDataDirLock } from './lock.ts'
import { isRoot } from './platform.ts'
import type { Progress } from './progress.ts'
import { settle } from './stop.ts'

type RestoreOptions = {
  source: string
  dataDir: string
  /** Move what DATA_DIR holds into `DATA_DIR/replaced-<time>` instead of refusing. Nothing is deleted. */
  force?: boolean
  onProgress?: Progress
}

/**
 * Puts a backup into a DATA_DIR and returns its manifest. The service must be stopped. Until everything is copied
 * DATA_DIR is not touched; if it is interrupted after that, the server refuses to start until it has been repeated.
 * @throws EmbeddedError, also when DATA_DIR holds anything and `force` is not set
 */
export async function restoreDataDir(options: RestoreOptions): Promise<BackupManifest> {
  const { force = false, onProgress = () => {} } = options
  return await explaining(options.dataDir, 'The backup was not restored', async () => {
    const source = await canonical(options.source)
    const manifest = await readManifest(source)
    refuseNesting(await canonical(options.dataDir), source)
    const dataDir = await ensureDataDir(options.dataDir)
    const replace = async (): Promise<void> => {
      await makeReplaceable(dataDir, force, onProgress)
      onProgress('Copying the database')
      await swap(dataDir, await stage(source, dataDir, manifest))
    }
    await withDataDirLock(dataDir, replace, onProgress)
    return manifest
  })
}

/** Removes what interrupted restores left, and brings the database that is there to rest. */
async function makeReplaceable(dataDir: string, force: boolean, onProgress: Progress): Promise<void> {
  // An interrupted restore had permission, and no server has run since.
  const isRepeated = await exists(join(dataDir, RESTORING_FILE))
  const present = (await readdir(dataDir)).filter(isReplaceable)
  const litter = present.filter((name) => name.startsWith(STAGING))
  for (const name of litter) await rm(join(dataDir, name), { recursive: true, force: true })
  if (present.length > litter.length && !force && !isRepeated) {
    throw new EmbeddedError(
      `${dataDir} is not empty: restore into a new folder, or use --force to move what it holds aside.`,
    )
  }
  const files = isRepeated ? undefined : await locateFiles(dataDir)
  if (files) await settle(files, onProgress)
}

/** Copies the backup to a folder inside DATA_DIR, with the owners and modes that all of it shall have in the end. */
async function stage(source: string, dataDir: string, manifest: BackupManifest): Promise<string> {
  const { uid, gid } = await stat(dataDir)
  // Root may restore for the user whose DATA_DIR it is.
  const user: Account | undefined = isRoot && uid !== 0 ? { uid, gid } : undefined
  const account = user ?? (await chooseAccount())
  const staging = await mkdtemp(join(dataDir, STAGING))
  await orRemove(staging, async () => {
    const files = await placeFiles(dataDir, account, staging)
    await orRemove(files.folder, () => copyContent(source, files, manifest, user, account))
  })
  return staging
}

async function copyContent(
  source: string,
  target: ServerFiles,
  manifest: BackupManifest,
  user: Account | undefined,
  account: Account | undefined,
): Promise<void> {
  const content = contentOf(source)
  await mkdir(target.data, { mode: 0o700 })
  const copied = sum([
    await copyTree(content.dataDir, target.dataDir, {
      ...PRIVATE,
      owner: user,
      skip: (name) => name === SERVER_FOLDER,
    }),
    await copyTree(content.folder, target.folder, {
      ...PRIVATE,
      directoryMode: user ? 0o700 : FOLDER_MODE,
      owner: user,
      skip: (name) => name === 'data',
    }),
    await copyTree(content.data, target.data, { ...PRIVATE, owner: account }),
  ])
  if (copied.files !== manifest.files || copied.bytes !== manifest.bytes) {
    throw new EmbeddedError(
      `${source} is damaged (${copied.files} files of ${copied.bytes} bytes, and its manifest says ${manifest.files} of ${manifest.bytes}): restore another backup.`,
    )
  }
}

/** Moves what DATA_DIR holds aside and what is staged into its place. */
async function swap(dataDir: string, staging: string): Promise<void> {
  const marker = join(dataDir, RESTORING_FILE)
  const present = (await readdir(dataDir)).filter((name) => isReplaceable(name) && name !== basename(staging))
  await writeFile(marker, '', { mode: 0o600, flush: true })
  await syncFolder(dataDir)
  if (present.length > 0) {
    const aside = join(dataDir, `${REPLACED}${new Date().toISOString().replaceAll(':', '-')}`)
    // A DATA_DIR itself, should it be wanted back: of the same owner and mode, for the server to pass through.
    const { uid, gid, mode } = await stat(dataDir)
    await mkdir(aside, { mode: 0o700 })
    await chmod(aside, mode & 0o711)
    if (isRoot) await chown(aside, uid, gid)
    for (const name of present) await rename(join(dataDir, name), join(aside, name))
    await syncFolder(aside)
  }
  for (const name of await readdir(staging)) await rename(join(staging, name), join(dataDir, name))
  await rmdir(staging)
  await syncFolder(dataDir)
  await rm(marker)
  await syncFolder(dataDir)
}
