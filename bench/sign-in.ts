import argon2 from 'argon2'
import { loadConfig } from '../src/config.ts'
import {
  adminCredentials,
  type Bench,
  load,
  placeProcesses,
  ROUNDS,
  report,
  startPostern,
} from './harness.ts'

const SECONDS = 6
const CONNECTIONS = 16

/** Sign-ins over HTTP, and the bare hash with the same parameters and library, each on both cores. */
export async function signIn(bench: Bench): Promise<void> {
  placeProcesses(bench, false)
  const { databaseUrl } = bench
  const { memoryKib, timeCost, parallelism } = loadConfig({}).passwords
  console.log(`  argon2id m=${memoryKib} t=${timeCost} p=${parallelism}, package argon2`)
  const postern = await startPostern({ databaseUrl, isPinned: false, env: { HASH_QUEUE: '100' } })
  const rounds = { hash: [] as number[], signIn: [] as number[], p99: [] as number[] }
  try {
    const request = {
      url: `${postern.url}/api/v1/auth/login`,
      method: 'POST' as const,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(adminCredentials),
      connections: CONNECTIONS,
      seconds: SECONDS,
    }
    await load({ ...request, seconds: 2 })
    for (let round = 0; round < ROUNDS; round++) {
      rounds.hash.push(await bareHashes({ memoryCost: memoryKib, timeCost, parallelism }))
      const ours = await load(request)
      rounds.signIn.push(ours.perSecond)
      rounds.p99.push(ours.p99)
    }
  } finally {
    await postern.stop()
  }
  report('bare argon2 verify, two at a time', rounds.hash, '/s')
  report('POST /auth/login', rounds.signIn, '/s', rounds.hash)
  report('POST /auth/login, p99', rounds.p99, 'ms')
}

/** Verifications per second with as many at a time as the service's pool has on this machine. */
async function bareHashes(options: argon2.Options): Promise<number> {
  const hash = await argon2.hash(adminCredentials.password, options)
  const end = performance.now() + SECONDS * 1000
  let done = 0
  const worker = async (): Promise<void> => {
    while (performance.now() < end) {
      await argon2.verify(hash, adminCredentials.password)
      done++
    }
  }
  await Promise.all(Array.from({ length: loadConfig({}).passwords.concurrency }, worker))
  return done / SECONDS
}
