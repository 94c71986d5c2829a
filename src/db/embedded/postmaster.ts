import { execFile } from 'node:child_process'
import { readFile, readlink, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { EmbeddedError } from './errors.ts'
import { ifMissing } from './file-system.ts'
import type { ServerFiles } from './layout.ts'
import { isWindows } from './platform.ts'
import { findProcess } from './process.ts'
import { loadPrograms, program } from './programs.ts'
import { announcing, type Progress } from './progress.ts'
import { type Session, tryConnect } from './session.ts'

/** A server that answers, and a connection to it as superuser. */
export type Running = { pid: number; port: number; session: Session }

/** How long a server may take that should answer at once. */
export const PATIENCE_MS = 60_000
export const POLL_MS = 10

/** Waits for a server that starts, recovers or stops. A dead server's leftover file counts for nothing. */
export async function findRunning(
  files: ServerFiles,
  onProgress: Progress = () => {},
): Promise<Running | undefined> {
  return await announcing(onProgress, 'Waiting for the database server to answer', async () => {
    const patientUntil = Date.now() + PATIENCE_MS
    for (;;) {
      const recorded = await readPidFile(files)
      if (!recorded || !(await isPostmaster(recorded.pid, files))) return undefined
      const session = recorded.isReady ? await tryConnect(files, recorded) : undefined
      if (session === 'another server') return undefined
      if (session) return { pid: recorded.pid, port: recorded.port, session }
      // A recovery may take its time; a server that says it is ready may not.
      if (recorded.isReady && Date.now() > patientUntil) {
        throw new EmbeddedError(
          `Postgres (process ${recorded.pid}) does not answer on 127.0.0.1:${recorded.port}: end that process and start again.`,
        )
      }
      await sleep(POLL_MS)
    }
  })
}

/** Ends the postmaster in the way that needs no recovery, and returns when it is gone. */
export async function shutDown(files: ServerFiles, pid: number): Promise<void> {
  if (!(await isPostmaster(pid, files))) return
  if (isWindows) {
    const { folder } = await loadPrograms()
    const stop = ['stop', '-D', files.data, '-m', 'fast', '-w', '-t', '600']
    await promisify(execFile)(program(folder, 'pg_ctl'), stop)
    return
  }
  process.kill(pid, 'SIGINT')
  while (await isPostmaster(pid, files)) await sleep(POLL_MS)
}

/** What the server wrote into postmaster.pid when it began; it removes the file when it ends by itself. */
export async function readPidFile(
  files: ServerFiles,
): Promise<{ pid: number; port: number; isReady: boolean } | undefined> {
  const text = await readFile(join(files.data, 'postmaster.pid'), 'utf8').catch(ifMissing(undefined))
  if (text === undefined) return undefined
  // Lines 1, 4 and 8 of miscadmin.h's LOCK_FILE_LINE_*. A server that begins has not written them all.
  const lines = text.split('\n')
  const pid = Number(lines[0])
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  return { pid, port: Number(lines[3]), isReady: lines[7]?.trim() === 'ready' }
}

/** False only if it is certain that this process is not the postmaster of these files. */
async function isPostmaster(pid: number, files: ServerFiles): Promise<boolean> {
  const found = await findProcess(pid)
  if (!found) return false
  if (found.name !== undefined && !found.name.startsWith('postgres')) return false
  // A postmaster works in its data folder, wherever that was moved to meanwhile.
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
  const data = await realpath(files.data).catch(() => files.data)
  return cwd === undefined || cwd.replace(/ \(deleted\)$/, '') === data
}
