import { randomUUID } from 'node:crypto'
import { adminToken, type Bench, load, placeProcesses, ROUNDS, report, startPostern } from './harness.ts'

/** POST /users: what the hash costs, and what everything else costs. */
export async function createUser(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  const { databaseUrl } = bench
  const postern = await startPostern({ databaseUrl })
  const token = await adminToken(postern.url)
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const rounds = { created: [] as number[], hashed: [] as number[] }
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const hashes = await load({
        url: `${postern.url}/api/v1/auth/hash-password`,
        method: 'POST',
        headers,
        body: JSON.stringify({ password: 'a password for the benchmark' }),
        connections: 8,
      })
      rounds.hashed.push(1000 / hashes.perSecond)
      const created = await load({
        url: `${postern.url}/api/v1/users`,
        method: 'POST',
        headers,
        connections: 8,
        requests: [
          {
            setupRequest: (request) => ({
              ...request,
              body: JSON.stringify({
                email: `${randomUUID()}@bench.test`,
                password: 'a password for the benchmark',
              }),
            }),
          },
        ],
      })
      rounds.created.push(1000 / created.perSecond)
    }
  } finally {
    await postern.stop()
  }
  report('POST /auth/hash-password, time of the core for one', rounds.hashed, 'ms')
  report('POST /users, time of the core for one', rounds.created, 'ms')
  report(
    'POST /users without the hash',
    rounds.created.map((ms, round) => ms - (rounds.hashed[round] ?? 0)),
    'ms',
  )
}
