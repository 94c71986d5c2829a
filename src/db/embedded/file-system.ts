import { open, realpath, rm, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { errorCode } from './errors.ts'
import { isWindows } from './platform.ts'

/** For `catch`: `value` if the file is not there. */
export function ifMissing<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return value
    throw error
  }
}

/** True if something is at the path; throws where that cannot be told. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(ifMissing(undefined))) !== undefined
}

/** Absolute and without links, as far as the path exists. */
export async function canonical(path: string): Promise<string> {
  return await realpath(resolve(path)).catch(ifMissing(resolve(path)))
}

/** Returns when the content of a file is on the disk. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r')
  await handle.sync().finally(() => handle.close())
}

/** Brings the names in a folder to the disk, as renaming alone does not. */
export async function syncFolder(path: string): Promise<void> {
  if (!isWindows) await syncFile(path)
}

/** Runs `work` that fills `folder`, which is removed if it fails. */
export async function orRemove<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
}
