import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbedded } from '../../src/db/embedded/server.ts'
import { buildWhatShips } from './build.ts'
import { databaseUrl, onServer, recordCluster, removeStaleClusters, TEMPLATE } from './database.ts'
import { prepareTemplate } from './template.ts'

const built = buildWhatShips()
await removeStaleClusters()
const dataDir = await mkdtemp(join(tmpdir(), 'postern-test-'))
const { url } = await startEmbedded({ dataDir, ephemeral: true })
await recordCluster(url, dataDir)
await onServer(url, (client) => client.query(`create database ${TEMPLATE}`))
await prepareTemplate(databaseUrl(url, TEMPLATE))
await built
