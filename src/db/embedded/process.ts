import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { promisify } from 'node:util'
import { errorCode } from './errors.ts'

/** A process that runs. What the system does not tell (Windows; other users' processes, where hidden) is absent. */
type ProcessFacts = { name?: string; startedAt?: string }
type ProcessLine = { name: string; state: string; startedAt: string }

/**
 * The process with this id, or `undefined` if there is none. A zombie, dead but not yet reaped, counts as none.
 * `startedAt` is only good for telling a process from a later one with the same id.
 */
export async function findProcess(pid: number): Promise<ProcessFacts | undefined> {
  if (!answersSignals(pid)) return undefined
  if (process.platform === 'win32') return {}
  const found = process.platform === 'linux' ? await readProc(pid) : await askPs(pid)
  if (!found) return answersSignals(pid) ? {} : undefined
  return /^[ZX]/.test(found.state) ? undefined : { name: found.name, startedAt: found.startedAt }
}

function answersSignals(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return errorCode(error) === 'EPERM'
  }
}

async function readProc(pid: number): Promise<ProcessLine | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // proc_pid_stat(5): the name stands in parentheses and may hold any character; state is field 3, starttime 22.
  const end = line.lastIndexOf(')')
  const [state, ...rest] = line.slice(end + 2).split(' ')
  const startedAt = rest[18]
  if (end < 0 || state === undefined || startedAt === undefined) return undefined
  return { name: line.slice(line.indexOf('(') + 1, end), state, startedAt }
}

async function askPs(pid: number): Promise<ProcessLine | undefined> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'state=,lstart=,comm=', '-p', String(pid)], {
    env: { ...process.env, LC_ALL: 'C' },
  }).catch(() => ({ stdout: '' }))
  const match = /^\s*(\S+)\s+(\S+\s+\S+\s+\S+\s+\S+\s+\S+)\s+(.+?)\s*$/.exec(stdout)
  const [, state, startedAt, command] = match ?? []
  if (state === undefined || startedAt === undefined || command === undefined) return undefined
  return { name: basename(command), state, startedAt }
}
