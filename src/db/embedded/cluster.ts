import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join, parse } from 'node:path'
import { promisify } from 'node:util'
import { type Account, canEnter } from './account.ts'
import { EmbeddedError } from './errors.ts'
import { ifMissing, syncFolder } from './file-system.ts'
import type { ServerFiles } from './layout.ts'
import { isWindows } from './platform.ts'
import { environment, program } from './programs.ts'
import type { Progress } from './progress.ts'
import { SUPERUSER } from './session.ts'

/** The files of one database server, and how its programs are run on them. */
export type Cluster = {
  files: ServerFiles
  /** The folder of the programs. */
  programs: string
  account: Account | undefined
  /** Faster, and a power cut loses everything. */
  ephemeral: boolean
}

/** Makes an empty cluster (initdb) with a new superuser's password. It appears under its name when it is whole. */
export async function initialise(cluster: Cluster, onProgress: Progress): Promise<void> {
  const { files, programs, account, ephemeral } = cluster
  onProgress('Creating the database (first start only)')
  const unfinished = `${files.data}.unfinished`
  const passwordCopy = `${files.password}.initdb`
  const password = randomBytes(24).toString('base64url')
  await rm(unfinished, { recursive: true, force: true })
  await rm(passwordCopy, { force: true })
  await mkdir(unfinished, { mode: 0o700 })
  await writeFile(passwordCopy, password, { mode: 0o600 })
  if (account) {
    for (const path of [unfinished, passwordCopy]) await chown(path, account.uid, account.gid)
  }
  try {
    await promisify(execFile)(
      program(programs, 'initdb'),
      [
        `--pgdata=${unfinished}`,
        `--username=${SUPERUSER}`,
        `--pwfile=${passwordCopy}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        // Byte order, and the upper and lower case of every script: the same on every system.
        '--locale=C',
        '--locale-provider=builtin',
        '--builtin-locale=C.UTF-8',
        '--no-instructions',
        ...(ephemeral ? ['--no-sync'] : []),
      ],
      { cwd: parse(files.data).root, env: environment(), windowsHide: true, ...account },
    )
  } finally {
    await rm(passwordCopy, { force: true })
  }
  await writeFile(files.password, password, { mode: 0o600, flush: true })
  await rename(unfinished, files.data)
  await syncFolder(files.folder)
}

/** The major version of Postgres that made the database; `undefined` if there is none. */
export async function readMajor(files: ServerFiles): Promise<number | undefined> {
  const text = await readFile(join(files.data, 'PG_VERSION'), 'utf8').catch(ifMissing(undefined))
  return text === undefined ? undefined : Number.parseInt(text, 10)
}

/** @throws EmbeddedError when the database was made by another major version of Postgres than `ours` */
export async function refuseOtherVersion(files: ServerFiles, ours: number): Promise<void> {
  const major = await readMajor(files)
  if (major === undefined || major === ours) return
  throw new EmbeddedError(
    `The database in ${files.data} was made by Postgres ${major}, and this Postern brings Postgres ${ours}: dump it with the earlier Postern and load it into a new DATA_DIR, or set DATABASE_URL to a Postgres ${major} server.`,
  )
}

/** Postgres insists that it owns its data and that nobody else can look into it. */
export async function claimFiles({ files, account }: Cluster): Promise<void> {
  if (isWindows) return
  if (account && !(await canEnter(files.folder, account))) {
    throw new EmbeddedError(
      `Postgres runs as user ${account.uid} and cannot enter ${files.folder}: allow others to pass through the folders above it (chmod o+x).`,
    )
  }
  const { uid, mode } = await stat(files.data)
  if (uid === 0 && account) await chownTree(files.data, account)
  else if (uid !== (account?.uid ?? process.getuid?.())) {
    throw new EmbeddedError(`${files.data} belongs to user ${uid}: run Postern as that user or as root.`)
  }
  if (mode & 0o077) await chmod(files.data, 0o700)
}

async function chownTree(path: string, { uid, gid }: Account): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true })
  for (const entry of entries) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) await chownTree(inner, { uid, gid })
    else if (entry.isFile()) await chown(inner, uid, gid)
  }
  await chown(path, uid, gid)
}
