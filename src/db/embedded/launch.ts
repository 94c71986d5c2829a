import { spawn } from 'node:child_process'
import { type FileHandle, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { join, parse } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster } from './cluster.ts'
import { startFailure } from './errors.ts'
import { ifMissing } from './file-system.ts'
import { isWindows } from './platform.ts'
import { freePort, preferredPort } from './port.ts'
import { findRunning, PATIENCE_MS, POLL_MS, type Running, readPidFile, shutDown } from './postmaster.ts'
import { environment, program } from './programs.ts'
import { announcing, type Progress } from './progress.ts'
import { settings } from './settings.ts'

const MAX_LOG_BYTES = 1_048_576

/**
 * Starts the server of a cluster that has none, recovers it after a crash, and returns when it answers.
 * @throws EmbeddedError
 */
export async function launch(cluster: Cluster, onProgress: Progress): Promise<Running> {
  const { files } = cluster
  const killed = await readPidFile(files)
  // A power cut may have left it empty, which Postgres would refuse.
  if (!killed) await rm(join(files.data, 'postmaster.pid'), { force: true })
  const doing = killed ? 'Recovering the database after an unclean stop' : 'Starting the database server'
  return await announcing(onProgress, doing, async () => {
    const patientUntil = Date.now() + PATIENCE_MS
    let port = await preferredPort(files)
    for (;;) {
      const outcome = await tryLaunch(cluster, port, killed?.pid)
      if ('pid' in outcome) return outcome
      if (/could not bind|Address already in use/.test(outcome.said)) port = await freePort()
      // The processes of a killed server finish their statement before they notice.
      else if (/pre-existing shared memory block/.test(outcome.said)) await sleep(100)
      else throw startFailure(outcome.said, files)
      if (Date.now() > patientUntil) throw startFailure(outcome.said, files)
    }
  })
}

async function tryLaunch(
  { files, programs, account, ephemeral }: Cluster,
  port: number,
  deadPid: number | undefined,
): Promise<Running | { said: string }> {
  const log = await openLog(files.log)
  try {
    const { size } = await log.stat()
    const child = spawn(program(programs, 'postgres'), ['-D', files.data, ...settings(port, ephemeral)], {
      cwd: parse(files.data).root,
      // Postgres takes a process with this id for no rival: the killed server may still be a zombie, or its id
      // may have gone to a stranger. Unlike deleting postmaster.pid, this keeps its check for surviving children.
      env: { ...environment(), ...(deadPid !== undefined && { PG_GRANDPARENT_PID: String(deadPid) }) },
      // A session of its own: Ctrl-C in the terminal must not end the server while requests are answered.
      detached: !isWindows,
      stdio: ['ignore', log.fd, log.fd],
      windowsHide: true,
      ...account,
    })
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject))
    child.unref()
    const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null
    try {
      while (!hasEnded()) {
        const recorded = await readPidFile(files)
        const running = recorded?.isReady && recorded.pid === child.pid ? await findRunning(files) : undefined
        if (running) return running
        await sleep(POLL_MS)
      }
    } catch (error) {
      if (child.pid !== undefined) await shutDown(files, child.pid)
      throw error
    }
    return { said: child.signalCode ? `ended by ${child.signalCode}` : await readFrom(files.log, size) }
  } finally {
    await log.close()
  }
}

/** Opened for appending; begins anew when it has grown, keeping one old one. */
async function openLog(file: string): Promise<FileHandle> {
  const size = await stat(file).then(({ size }) => size, ifMissing(0))
  if (size > MAX_LOG_BYTES) await rename(file, `${file}.old`)
  return await open(file, 'a', 0o600)
}

async function readFrom(file: string, offset: number): Promise<string> {
  const bytes = await readFile(file)
  return bytes.subarray(offset).toString('utf8')
}
