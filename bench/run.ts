import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbedded } from '../src/db/embedded/server.ts'
import { createUser } from './create-user.ts'
import type { Bench } from './harness.ts'
import { listUsers } from './list-users.ts'
import { describeMachine } from './machine.ts'
import { oauth2 } from './oauth2.ts'
import { permitBulk } from './permit-bulk.ts'
import { aMillionUsers } from './policy/a-million-users.ts'
import { policy } from './policy/over-http.ts'
import { protectedRead } from './protected-read.ts'
import { signIn } from './sign-in.ts'
import { signInStorm } from './sign-in-storm.ts'
import { signInTiming } from './sign-in-timing.ts'
import { startAndMemory } from './start.ts'
import { usersImport } from './users-import.ts'
import { verifier } from './verifier.ts'

/** Every benchmark by the name that `npm run bench -- NAME …` takes. */
const BENCHES: Record<string, (bench: Bench) => Promise<void>> = {
  'sign-in': signIn,
  'sign-in-storm': signInStorm,
  'sign-in-timing': signInTiming,
  'protected-read': protectedRead,
  'list-users': listUsers,
  'create-user': createUser,
  start: startAndMemory,
  oauth2,
  verifier,
  policy,
  'policy-million': aMillionUsers,
  'permit-bulk': permitBulk,
  'users-import': usersImport,
}

/**
 * Postgres with a log as it has after a while. A new cluster makes the segments of its log when each is first needed,
 * and nobody commits meanwhile (70 ms here); later it uses them again.
 */
async function startUsed(dataDir: string) {
  const fresh = await startEmbedded({ dataDir })
  const client = new pg.Client(fresh.url)
  await client.connect()
  await client.query(
    `select count(pg_logical_emit_message(false, 'bench', repeat('x', 1000000))) from generate_series(1, 200)`,
  )
  await client.end()
  await fresh.stop()
  return await startEmbedded({ dataDir })
}

const isNumber = (word: string): boolean => /^\d+$/.test(word)
const wanted = process.argv.slice(2).filter((word) => !isNumber(word))
const number = process.argv.slice(2).find(isNumber)
const count = number === undefined ? undefined : Number(number)
const unknown = wanted.filter((name) => !(name in BENCHES))
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(', ')}; there are ${Object.keys(BENCHES).join(', ')}`)
  process.exit(2)
}

const dataDir = await mkdtemp(join(tmpdir(), 'postern-bench-'))
const postgres = await startUsed(dataDir)
try {
  console.log(await describeMachine(postgres.url))
  for (const [name, run] of Object.entries(BENCHES)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    console.log(`\n${name}`)
    await run({ databaseUrl: postgres.url, postgresPid: postgres.pid, ...(count !== undefined && { count }) })
  }
} finally {
  await postgres.stop()
  await rm(dataDir, { recursive: true, force: true })
}
