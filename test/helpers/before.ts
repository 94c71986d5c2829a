import { access, constants, mkdtemp, statfs } from 'node:fs/promises'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbedded } from '../../src/db/embedded/server.ts'
import { buildWhatShips } from './build.ts'
import { databaseUrl, onServer, recordCluster, removeStaleClusters, TEMPLATE } from './database.ts'
import { prepareTemplate } from './template.ts'

const ENOUGH_BYTES = 4 * 1024 ** 3

const built = buildWhatShips()
await removeStaleClusters()
const dataDir = await mkdtemp(join(await folderForData(), 'postern-test-'))
const { url } = await startEmbedded({ dataDir, ephemeral: true })
await recordCluster(url, dataDir)
await onServer(url, (client) => client.query(`create database ${TEMPLATE}`))
await prepareTemplate(databaseUrl(url, TEMPLATE))
await built

/** In memory where there is plenty of it: several hundred databases are made and dropped, a quarter of the run on a disk. */
async function folderForData(): Promise<string> {
  const memory = '/dev/shm'
  try {
    const { bavail, bsize } = await statfs(memory)
    await access(memory, constants.W_OK)
    if (Math.min(bavail * bsize, freemem() / 2) > ENOUGH_BYTES) return memory
  } catch {
    // There is no such folder.
  }
  return tmpdir()
}
