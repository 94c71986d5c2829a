import { setTimeout as sleep } from 'node:timers/promises'
import { type Bench, placeProcesses, ROUNDS, report, residentMib, startPostern } from './harness.ts'

/** From the start of the process to a ready answer on a migrated database, and the memory of a process that idles. */
export async function startAndMemory(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  const { databaseUrl } = bench
  const rounds = { ready: [] as number[], memory: [] as number[] }
  await (await startPostern({ databaseUrl })).stop()
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now()
    const postern = await startPostern({ databaseUrl })
    rounds.ready.push(performance.now() - begun)
    await sleep(3000)
    rounds.memory.push(residentMib(postern.pid))
    await postern.stop()
  }
  report('start to ready', rounds.ready, 'ms')
  report('resident memory, idle', rounds.memory, 'MiB')
}
