import { constants } from 'node:fs'
import { chmod, chown, copyFile, lstat, mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from './account.ts'
import { syncFile, syncFolder } from './file-system.ts'

/** Number of files and the sum of their sizes. */
export type Amount = { files: number; bytes: number }

type CopyOptions = {
  directoryMode: number
  fileMode: (mode: number) => number
  owner?: Account | undefined
  /** Copy what symbolic links lead to; otherwise they are left out. */
  followLinks?: boolean
  /** True for what shall be left out of all that lies right in the source. */
  skip?: (name: string) => boolean
}

/** Options for what nobody but the owner may read. */
export const PRIVATE = { directoryMode: 0o700, fileMode: () => 0o600 }

const COPIES_AT_ONCE = 8

/** Copies what is in a folder into an existing one and returns, once it is on the disk, how much that was. */
export async function copyTree(source: string, target: string, options: CopyOptions): Promise<Amount> {
  const { skip, ...inner } = options
  const names = (await readdir(source)).filter((name) => !skip?.(name))
  const copied: Amount[] = []
  for (let at = 0; at < names.length; at += COPIES_AT_ONCE) {
    const copies = names
      .slice(at, at + COPIES_AT_ONCE)
      .map(async (name) => await copyEntry(join(source, name), join(target, name), inner))
    copied.push(...(await Promise.all(copies)))
  }
  await setAccess(target, options.directoryMode, options.owner)
  await syncFolder(target)
  return sum(copied)
}

async function copyEntry(from: string, to: string, options: CopyOptions): Promise<Amount> {
  const found = options.followLinks ? await stat(from) : await lstat(from)
  if (found.isDirectory()) {
    await mkdir(to, { mode: 0o700 })
    return await copyTree(from, to, options)
  }
  if (!found.isFile()) return { files: 0, bytes: 0 }
  await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  await setAccess(to, options.fileMode(found.mode), options.owner)
  await syncFile(to)
  return { files: 1, bytes: found.size }
}

async function setAccess(path: string, mode: number, owner: Account | undefined): Promise<void> {
  await chmod(path, mode)
  if (owner) await chown(path, owner.uid, owner.gid)
}

/** The files and bytes of all parts together. */
export function sum(parts: Amount[]): Amount {
  return {
    files: parts.reduce((total, part) => total + part.files, 0),
    bytes: parts.reduce((total, part) => total + part.bytes, 0),
  }
}
