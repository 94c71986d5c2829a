import { randomUUID } from 'node:crypto'
import { open, readFile, readlink, rm, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode } from './errors.ts'
import { LOCK_FILE } from './layout.ts'
import { findProcess } from './process.ts'
import type { Progress } from './progress.ts'

const POLL_MS = 50
const HEARTBEAT_MS = 3_000
const SILENT_FOR_MS = 15_000

/** `startedAt` and `scene` tell the holder from a later process that was given the same id. */
type LockRecord = { pid: number; startedAt: string; scene: string; token: string }

/**
 * Runs `work` while no other process starts, stops or copies the database of this DATA_DIR, and returns what it
 * returns. Waits for the holder as long as that lives; the lock of a dead one is broken.
 * @param onProgress told after a second of waiting
 * @throws the file system's error when DATA_DIR is missing or not writable
 */
export async function withDataDirLock<T>(
  dataDir: string,
  work: () => Promise<T>,
  onProgress: Progress = () => {},
): Promise<T> {
  return await withLock(join(dataDir, LOCK_FILE), work, onProgress)
}

async function withLock<T>(file: string, work: () => Promise<T>, onProgress: Progress): Promise<T> {
  const token = await acquire(file, onProgress)
  const heartbeat = setInterval(() => {
    const now = new Date()
    utimes(file, now, now).catch(() => {})
  }, HEARTBEAT_MS).unref()
  try {
    return await work()
  } finally {
    clearInterval(heartbeat)
    if ((await readLock(file))?.record?.token === token) await rm(file, { force: true })
  }
}

async function acquire(file: string, onProgress: Progress): Promise<string> {
  const record: LockRecord = {
    pid: process.pid,
    startedAt: (await findProcess(process.pid))?.startedAt ?? '',
    scene: await currentScene(),
    token: randomUUID(),
  }
  for (let waitedMs = 0; !(await createLock(file, record)); waitedMs += POLL_MS) {
    if (await isStale(file, record.scene)) {
      await breakLock(file, record.scene)
      continue
    }
    if (waitedMs === 1_000) onProgress(waitingFor((await readLock(file))?.record?.pid))
    await sleep(POLL_MS)
  }
  return record.token
}

function waitingFor(pid: number | undefined): string {
  const holder = pid === undefined ? 'another process' : `process ${pid}`
  return `Waiting for ${holder}, which is starting, stopping or copying the database`
}

async function createLock(file: string, record: LockRecord): Promise<boolean> {
  try {
    // Readable by all: an ordinary user must be able to judge a lock that root left behind. It holds no secret.
    const handle = await open(file, 'wx', 0o644)
    try {
      await handle.writeFile(JSON.stringify(record))
    } finally {
      await handle.close()
    }
    return true
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    if (errorCode(error) === 'ENOSPC') await rm(file, { force: true })
    throw error
  }
}

/**
 * Only one process may remove a given stale lock, or a slow second one would remove the next holder's. Should
 * that process die in between, its own lock is broken in the same way.
 */
async function breakLock(file: string, scene: string): Promise<void> {
  const removeIfStale = async (): Promise<void> => {
    if (await isStale(file, scene)) await rm(file, { force: true })
  }
  await withLock(`${file}.break`, removeIfStale, () => {})
}

async function isStale(file: string, scene: string): Promise<boolean> {
  const lock = await readLock(file)
  if (!lock) return false
  // A process of another boot, container or host cannot be looked up from here; its heartbeat tells.
  if (lock.record?.scene !== scene) return Math.abs(Date.now() - lock.touchedAt) > SILENT_FOR_MS
  const holder = await findProcess(lock.record.pid)
  return holder === undefined || (holder.startedAt ?? '') !== lock.record.startedAt
}

/** `record` is absent while the lock is being written, and when it cannot be read. */
async function readLock(file: string): Promise<{ record?: LockRecord; touchedAt: number } | undefined> {
  const found = await stat(file).catch(() => undefined)
  if (!found) return undefined
  try {
    // Written by createLock; whatever else it might be is not of this scene, and judged by its age.
    return { record: JSON.parse(await readFile(file, 'utf8')) as LockRecord, touchedAt: found.mtimeMs }
  } catch {
    return { touchedAt: found.mtimeMs }
  }
}

/** Within one scene a process id means one thing: the same boot of the same host or container. */
async function currentScene(): Promise<string> {
  if (process.platform !== 'linux') return hostname()
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => hostname())
  const pidNamespace = await readlink('/proc/self/ns/pid').catch(() => '')
  return `${boot.trim()} ${pidNamespace}`
}
