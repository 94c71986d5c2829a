import {
  adminToken,
  type Bench,
  load,
  placeProcesses,
  ROUNDS,
  report,
  startBaseline,
  startPostern,
} from './harness.ts'

/** GET /users/me, and a bare Fastify route that runs the same prepared statement. */
export async function protectedRead(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  const { databaseUrl } = bench
  const postern = await startPostern({ databaseUrl })
  const token = await adminToken(postern.url)
  const { sid, sub, account_id } = claimsOf(token)
  const bare = await startBaseline('bench/bare-read.ts', {
    DATABASE_URL: databaseUrl,
    SESSION_ID: sid,
    USER_ID: sub,
    ACCOUNT_ID: account_id,
  })
  const headers = { authorization: `Bearer ${token}` }
  const rounds = { postern: [] as number[], bare: [] as number[], p99: [] as number[] }
  try {
    await load({ url: `${postern.url}/api/v1/users/me`, headers, seconds: 2 })
    await load({ url: bare.url, seconds: 2 })
    for (let round = 0; round < ROUNDS; round++) {
      rounds.bare.push((await load({ url: bare.url })).perSecond)
      const ours = await load({ url: `${postern.url}/api/v1/users/me`, headers })
      rounds.postern.push(ours.perSecond)
      rounds.p99.push(ours.p99)
    }
  } finally {
    await bare.stop()
    await postern.stop()
  }
  report('bare Fastify route, same statement', rounds.bare, '/s')
  report('GET /users/me', rounds.postern, '/s', rounds.bare)
  report('GET /users/me, p99', rounds.p99, 'ms')
}

function claimsOf(token: string): { sid: string; sub: string; account_id: string } {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as {
    sid: string
    sub: string
    account_id: string
  }
}
