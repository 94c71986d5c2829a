import { readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { EmbeddedError } from './errors.ts'
import { ifMissing } from './file-system.ts'
import { isRoot } from './platform.ts'

/** Whom Postgres runs as when this process is root, which Postgres refuses to run as. */
export type Account = { uid: number; gid: number }

/**
 * Whom Postgres shall run as: the owner of the database in `data` if there is one, else `postgres`, else `nobody`;
 * `undefined` (as this process) unless this process is root.
 * @throws EmbeddedError for root on a system without these users
 */
export async function chooseAccount(data?: string): Promise<Account | undefined> {
  if (!isRoot) return undefined
  const owner = data === undefined ? undefined : await stat(data).catch(ifMissing(undefined))
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '')
  const users = new Map(passwd.split('\n').map((line) => [line.split(':')[0], line.split(':')]))
  for (const [, , uid, gid] of [users.get('postgres') ?? [], users.get('nobody') ?? []]) {
    if (Number(uid) > 0) return { uid: Number(uid), gid: Number(gid) }
  }
  throw new EmbeddedError(
    'Postgres refuses to run as root, and there is no user "postgres" or "nobody": run Postern as an ordinary user, or set DATABASE_URL.',
  )
}

/** True if this account may pass through every folder of the path. */
export async function canEnter(folder: string, account: Account): Promise<boolean> {
  for (let at = folder; ; at = dirname(at)) {
    if (!(await isPermitted(at, account, 0o1))) return false
    if (at === dirname(at)) return true
  }
}

/** True if this account may read and run a program, through every folder of its path. */
export async function canRun(file: string, account: Account): Promise<boolean> {
  return (await canEnter(dirname(file), account)) && (await isPermitted(file, account, 0o5))
}

async function isPermitted(path: string, account: Account, wanted: number): Promise<boolean> {
  const { uid, gid, mode } = await stat(path)
  const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0
  return ((mode >> shift) & wanted) === wanted
}
