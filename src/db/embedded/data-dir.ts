import { createHash } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, realpath, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Account, canEnter } from './account.ts'
import { EmbeddedError } from './errors.ts'
import { canonical, exists, ifMissing, syncFolder } from './file-system.ts'
import { filesIn, POINTER_FILE, type ServerFiles, STATE_FOLDER } from './layout.ts'
import { isRoot } from './platform.ts'

/** Nobody else may look into it; into root's, others may pass through, for the server that runs as another user. */
export const FOLDER_MODE = isRoot ? 0o711 : 0o700
/** Lies in a folder of `STATE_FOLDER` and holds the path of the DATA_DIR that it belongs to. */
const OWNER_FILE = 'data-dir'

/** Makes DATA_DIR if it is missing and returns its canonical path. A folder with content is left as it is. */
export async function ensureDataDir(dataDir: string): Promise<string> {
  await mkdir(resolve(dataDir), { recursive: true, mode: FOLDER_MODE })
  const directory = await realpath(resolve(dataDir))
  const { uid } = await stat(directory)
  const isOurs = uid === process.getuid?.()
  if (isOurs && (await readdir(directory)).length === 0) await chmod(directory, FOLDER_MODE)
  return directory
}

/**
 * Where the database of this DATA_DIR is, or `undefined` if it has none yet.
 * @throws EmbeddedError when DATA_DIR points to a folder that is gone or that another DATA_DIR uses
 */
export async function locateFiles(path: string): Promise<ServerFiles | undefined> {
  const dataDir = await canonical(path)
  const folder = await readPointer(dataDir)
  if (folder === undefined) {
    const files = filesIn(dataDir)
    return (await exists(files.data)) ? files : undefined
  }
  const ownerFile = join(folder, OWNER_FILE)
  const owner = await readFile(ownerFile, 'utf8').catch(ifMissing(undefined))
  if (owner === undefined) {
    throw new EmbeddedError(
      `The database of ${dataDir} was in ${folder}, which is gone: restore a backup, or begin anew with another DATA_DIR.`,
    )
  }
  if (owner !== dataDir) {
    if ((await readPointer(owner)) === folder) {
      throw new EmbeddedError(
        `${dataDir} is a copy of ${owner} and leads to the same database: copy it with "postern backup" and "postern restore".`,
      )
    }
    await writeFile(ownerFile, dataDir)
  }
  return filesIn(dataDir, folder)
}

/**
 * Makes the folder for a new server's files: in DATA_DIR or, when the server's account cannot enter that, elsewhere.
 * @param place what holds the folder, or the file that points to it, until it is moved to DATA_DIR
 */
export async function placeFiles(
  dataDir: string,
  account: Account | undefined,
  place = dataDir,
): Promise<ServerFiles> {
  if (!account || (await canEnter(dataDir, account))) {
    const files = filesIn(place)
    await makeServerFolder(files.folder)
    return files
  }
  const folder = await reserveStateFolder(dataDir)
  await writeFile(join(place, POINTER_FILE), `${folder}\n`, { mode: 0o600, flush: true })
  await syncFolder(place)
  return filesIn(place, folder)
}

async function readPointer(dataDir: string): Promise<string | undefined> {
  const text = await readFile(join(dataDir, POINTER_FILE), 'utf8').catch(ifMissing(undefined))
  return text?.trim()
}

/** A new folder for the files of a server that cannot live in this DATA_DIR. Needs root. */
async function reserveStateFolder(dataDir: string): Promise<string> {
  const name = createHash('sha256').update(dataDir).digest('hex').slice(0, 16)
  await mkdir(STATE_FOLDER, { recursive: true, mode: 0o711 })
  for (let count = 0; ; count++) {
    // The plain name may be that of an earlier DATA_DIR at this path, which was deleted or moved.
    const folder = join(STATE_FOLDER, count === 0 ? name : `${name}-${count}`)
    if (await exists(folder)) continue
    await makeServerFolder(folder)
    await writeFile(join(folder, OWNER_FILE), dataDir, { mode: 0o600, flush: true })
    await syncFolder(STATE_FOLDER)
    return folder
  }
}

/** Makes the folder that holds `data` and `password`. It stays root's, so that the server's user cannot swap files. */
async function makeServerFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE })
  await chmod(folder, FOLDER_MODE)
}
