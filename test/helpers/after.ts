import { readCluster, removeCluster } from './database.ts'

await removeCluster(await readCluster())
