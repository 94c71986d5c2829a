import { userInfo } from 'node:os'
import { resolve } from 'node:path'
import { StartupError } from '../../errors.ts'

/** Why the embedded server cannot be had, in one sentence that says what to do. */
export class EmbeddedError extends StartupError {}

export const NOT_STARTED = 'The embedded Postgres did not start'

/**
 * Turns the system's errors of `work` into sentences for the operator.
 * @param folder what they are about if they name no path
 * @param failed how the sentence begins if the reason is not a known one
 * @throws EmbeddedError
 */
export async function explaining<T>(folder: string, failed: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    // Without a code it is a sentence already, or no error of the system's but a mistake of ours.
    if (!(error instanceof Error) || !('code' in error)) throw error
    const path = 'path' in error && typeof error.path === 'string' ? error.path : resolve(folder)
    const said = `${error.message}\n${'stderr' in error ? error.stderr : ''}`
    const isSpawn = 'syscall' in error && String(error.syscall).startsWith('spawn')
    const known = isSpawn ? unrunnable(path, errorCode(error)) : knownReason(said, path)
    throw new EmbeddedError(known ?? `${failed} (${lastWords(said)}).`, { cause: error })
  }
}

/** For a server that ended while it started, from what it `said` in its log. */
export function startFailure(said: string, { folder, log }: { folder: string; log: string }): EmbeddedError {
  return new EmbeddedError(knownReason(said, folder) ?? `${NOT_STARTED} (${lastWords(said)}): see ${log}.`)
}

/** The code that Node.js (`ENOENT`) or Postgres (`28P01`) gave the error. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

function knownReason(said: string, path: string): string | undefined {
  if (/ENOSPC|EDQUOT|No space left|Disk quota/.test(said)) {
    return `The disk of ${path} is full: free some space (a new database takes 60 MB) and try again.`
  }
  if (/could not look up effective user ID|user does not exist/.test(said)) {
    return `User id ${process.getuid?.()} is not in /etc/passwd, and Postgres wants a name for it: add it, or set DATABASE_URL.`
  }
  if (/EACCES|EPERM|EROFS|Permission denied|Read-only file system|Operation not permitted/.test(said)) {
    return `${path} cannot be read and written by ${userName()}: change its owner or mode, or choose another folder.`
  }
  if (/ENOMEM|Cannot allocate memory|could not map anonymous shared memory|could not fork/.test(said)) {
    return 'There is not enough memory for Postgres: free some, or set DATABASE_URL to a server elsewhere.'
  }
  if (/error while loading shared libraries|GLIBC_|symbol lookup error/.test(said)) {
    return unrunnable(path, 'ENOEXEC')
  }
  return undefined
}

/** @param code what the attempt to execute `file` gave; a missing program loader gives ENOENT */
function unrunnable(file: string, code: string | undefined): string {
  return code === 'ENOENT' || code === 'ENOEXEC'
    ? 'The embedded Postgres does not run on this system, as it needs glibc (Debian or Ubuntu, not Alpine): set DATABASE_URL.'
    : `${file} cannot be executed (${code ?? 'no reason given'}): permit it, or set DATABASE_URL.`
}

/** What tells most, without the time and process id that Postgres puts before it. */
function lastWords(said: string): string {
  const lines = said.split('\n').filter((line) => line.trim() !== '')
  const fatal = lines.findLast((line) => /FATAL|PANIC|error:/.test(line))
  const words = fatal?.replace(/^.*?(FATAL|PANIC|error): */, '') ?? lines.join(' ')
  return words.trim().slice(0, 300) || 'no reason given'
}

function userName(): string {
  try {
    return `user "${userInfo().username}"`
  } catch {
    return `user ${process.getuid?.()}`
  }
}
