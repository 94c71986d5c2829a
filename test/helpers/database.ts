import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Test } from 'tap'
import { findProcess } from '../../src/db/embedded/process.ts'
import { findEmbedded } from '../../src/db/embedded/server.ts'

/** The database server of one run of tap. `runner` is the process that spawns `before`, the tests and `after`. */
export type Cluster = { url: string; dataDir: string; runner: { pid: number; startedAt: string | undefined } }

export const TEMPLATE = 'postern_template'

const FOLDER = new URL('../../.tap/', import.meta.url)
/** One file for each run, so that two runs in one checkout do not disturb each other. */
const fileOf = (runnerPid: number): URL => new URL(`postgres-${runnerPid}.json`, FOLDER)

/** A database of its own for this test, migrated and seeded; dropped when the test ends. */
export async function freshDatabase(t: Test): Promise<{ url: string }> {
  return await createDatabase(t, TEMPLATE)
}

/** A database of its own for this test with nothing in it; dropped when the test ends. */
export async function emptyDatabase(t: Test): Promise<{ url: string }> {
  return await createDatabase(t, 'template0')
}

async function createDatabase(t: Test, template: string): Promise<{ url: string }> {
  const { url } = await readCluster()
  const name = `t_${process.pid}_${randomBytes(4).toString('hex')}`
  await onServer(url, (client) => copyDatabase(client, name, template))
  t.teardown(() => onServer(url, (client) => client.query(`drop database if exists ${name} with (force)`)))
  return { url: databaseUrl(url, name) }
}

async function copyDatabase(client: pg.Client, name: string, template: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      // Without fsync copying files is three times as fast as writing them through the WAL.
      await client.query(`create database ${name} template ${template} strategy file_copy`)
      return
    } catch (error) {
      const isTemplateInUse = error instanceof pg.DatabaseError && error.code === '55006'
      if (!isTemplateInUse || attempt === 100) throw error
      await sleep(50)
    }
  }
}

/** The URL of another database on the same server. */
export function databaseUrl(url: string, name: string): string {
  const other = new URL(url)
  other.pathname = `/${name}`
  return other.href
}

/** Runs `work` on a connection that is closed afterwards. */
export async function onServer<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

export async function readCluster(): Promise<Cluster> {
  return JSON.parse(await readFile(fileOf(process.ppid), 'utf8')) as Cluster
}

export async function recordCluster(url: string, dataDir: string): Promise<void> {
  const startedAt = (await findProcess(process.ppid))?.startedAt
  const cluster: Cluster = { url, dataDir, runner: { pid: process.ppid, startedAt } }
  await mkdir(FOLDER, { recursive: true })
  await writeFile(fileOf(process.ppid), JSON.stringify(cluster), { mode: 0o600 })
}

export async function removeCluster({ dataDir, runner }: Cluster): Promise<void> {
  const server = await findEmbedded(dataDir)
  await server?.stop()
  await rm(dataDir, { recursive: true, force: true })
  await rm(fileOf(runner.pid), { force: true })
}

/** Removes what runs left behind that were killed before their `after`. */
export async function removeStaleClusters(): Promise<void> {
  const names = await readdir(FOLDER).catch(() => [])
  for (const name of names.filter((name) => /^postgres-\d+\.json$/.test(name))) {
    const cluster = JSON.parse(await readFile(new URL(name, FOLDER), 'utf8')) as Cluster
    const runner = await findProcess(cluster.runner.pid)
    if (runner?.startedAt !== cluster.runner.startedAt || !runner) await removeCluster(cluster)
  }
}
