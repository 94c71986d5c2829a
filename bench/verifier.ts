import { generateKeyPairSync, randomUUID, sign, verify } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createVerifier, type Verifier } from '../src/client/index.ts'
import { createRevocationStore } from '../src/client/revocations.ts'
import {
  adminToken,
  type Bench,
  load,
  placeProcesses,
  post,
  ROUNDS,
  report,
  startBaseline,
  startPostern,
} from './harness.ts'

const TOKENS = 10_000
const REPEATS = 200_000
const LIVE_REVOCATIONS = 1_000_000
const REVOKED_USERS = 20

/** Tokens where they are used: at first sight, again, behind a guard, and from a revocation to the refusals. */
export async function verifier(bench: Bench): Promise<void> {
  placeProcesses(bench, true)
  await signatures()
  await guard()
  memory()
  await untilRefused(bench)
}

type Issuer = {
  issuer: string
  publicKey: ReturnType<typeof generateKeyPairSync>['publicKey']
  token: () => string
  stop: () => void
}

async function openIssuer(): Promise<Issuer> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'bench', alg: 'ES256', use: 'sig' }
  const server = createServer((_request, response) => response.end(JSON.stringify({ keys: [jwk] }))).listen(
    0,
    '127.0.0.1',
  )
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const header = encode({ alg: 'ES256', typ: 'at+jwt', kid: 'bench' })
  return {
    issuer,
    publicKey,
    token() {
      const iat = Math.floor(Date.now() / 1000)
      const claims = {
        iss: issuer,
        aud: issuer,
        sub: randomUUID(),
        client_id: 'first-party',
        scope: 'post:read post:write',
        role: 'writer',
        roles: ['writer'],
        account_id: randomUUID(),
        sid: randomUUID(),
        ver: 1,
        iat,
        exp: iat + 3600,
        jti: randomUUID(),
      }
      const input = `${header}.${encode(claims)}`
      return `${input}.${sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
    },
    stop: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

const perSecond = (count: number, work: () => void): number => {
  const startedAt = performance.now()
  work()
  return (count / (performance.now() - startedAt)) * 1000
}

async function signatures(): Promise<void> {
  const issuer = await openIssuer()
  const rounds = { bare: [] as number[], first: [] as number[], again: [] as number[] }
  for (let round = 0; round <= ROUNDS; round++) {
    const tokens = Array.from({ length: TOKENS }, issuer.token)
    const verifier = createVerifier({ issuer: issuer.issuer, audience: issuer.issuer, cachedTokens: TOKENS })
    await verifier.ready()
    const bare = perSecond(TOKENS, () => {
      for (const token of tokens) {
        const end = token.lastIndexOf('.')
        const data = Buffer.from(token.slice(0, end))
        const signature = Buffer.from(token.slice(end + 1), 'base64url')
        if (!verify('sha256', data, { key: issuer.publicKey, dsaEncoding: 'ieee-p1363' }, signature))
          throw new Error()
      }
    })
    const first = perSecond(TOKENS, () => {
      for (const token of tokens) verifier.verifyNow(token)
    })
    // As a server gets them: each request has a string of its own.
    const headers = tokens.slice(0, 1000).map((token) => Buffer.from(`Bearer ${token}`))
    const again = perSecond(REPEATS, () => {
      for (let n = 0; n < REPEATS; n++) verifier.verifyNow(headers[n % 1000]?.toString('latin1', 7) ?? '')
    })
    await verifier.close()
    if (round === 0) continue
    rounds.bare.push(bare)
    rounds.first.push(first)
    rounds.again.push(again)
  }
  issuer.stop()
  report('crypto.verify of ES256 alone', rounds.bare, '/s')
  report('a token at first sight', rounds.first, '/s', rounds.bare)
  report('a token seen before', rounds.again, '/s')
}

/** A Fastify route behind the guard with the feed, with the guard alone, and bare, in a process of their own. */
async function guard(): Promise<void> {
  const issuer = await openIssuer()
  const server = await startBaseline('bench/guarded.ts', { ISSUER: issuer.issuer })
  const rounds = { bare: [] as number[], guarded: [] as number[], fed: [] as number[] }
  try {
    // A connection sends one of these with each request.
    const requests = Array.from({ length: 100 }, () => ({
      headers: { authorization: `Bearer ${issuer.token()}` },
    }))
    for (let round = 0; round <= ROUNDS; round++) {
      const bare = (await load({ url: `${server.url}/bare`, requests })).perSecond
      const guarded = (await load({ url: `${server.url}/guarded`, requests })).perSecond
      const fed = (await load({ url: `${server.url}/fed`, requests })).perSecond
      if (round === 0) continue
      rounds.bare.push(bare)
      rounds.guarded.push(guarded)
      rounds.fed.push(fed)
    }
  } finally {
    await server.stop()
    issuer.stop()
  }
  report('bare Fastify route', rounds.bare, '/s')
  report('behind the guard, without a feed', rounds.guarded, '/s', rounds.bare)
  report('behind the guard, 100,000 revocations', rounds.fed, '/s', rounds.bare)
}

function memory(): void {
  const before = process.memoryUsage()
  const store = createRevocationStore({ nowSeconds: () => Date.now() / 1000, limit: LIVE_REVOCATIONS })
  const exp = Math.floor(Date.now() / 1000) + 3600
  let longest = 0
  for (let n = 0; n < LIVE_REVOCATIONS; n++) {
    const startedAt = performance.now()
    store.add({ kind: 'session', ref: randomUUID(), exp })
    longest = Math.max(longest, performance.now() - startedAt)
  }
  globalThis.gc?.()
  const after = process.memoryUsage()
  store.close()
  const bytes = after.arrayBuffers - before.arrayBuffers + Math.max(0, after.heapUsed - before.heapUsed)
  report('1,000,000 live revocations', [bytes / 1e6], 'MB')
  report('1,000,000 live revocations, longest addition', [longest], 'ms')
}

/** Three verifiers at two processes: how long until each refuses a user who was deactivated. */
async function untilRefused(bench: Bench): Promise<void> {
  const { databaseUrl } = bench
  const PUBLIC_URL = 'http://postern.bench'
  const env = { PUBLIC_URL, LOGIN_MAX_FAILURES_PER_ADDRESS: '100000' }
  const servers = [await startPostern({ databaseUrl, env }), await startPostern({ databaseUrl, env })]
  const [first] = servers
  if (!first) return
  const root = await adminToken(first.url)
  const { key } = (await (
    await post(`${first.url}/api/v1/api-keys`, { name: 'bench', access: 'read' }, root)
  ).json()) as { key: string }
  const verifiers = [0, 0, 1].map((place) => {
    const url = servers[place]?.url
    return createVerifier({
      issuer: PUBLIC_URL,
      audience: PUBLIC_URL,
      jwksUri: `${url}/.well-known/jwks.json`,
      feed: { url: `${url}/api/v1/revocations`, apiKey: key },
    })
  })
  await Promise.all(verifiers.map(async (one) => await one.ready()))
  const times: number[] = []
  try {
    for (let n = 0; n < REVOKED_USERS; n++) {
      const person = { email: `bench-${randomUUID()}@postern.test`, password: 'a password for the benchmark' }
      const user = (await (
        await post(`${first.url}/api/v1/users`, { ...person, full_name: 'Bench' }, root)
      ).json()) as { id: string }
      const signedIn = (await (await post(`${first.url}/api/v1/auth/login`, person)).json()) as {
        access_token: string
      }
      for (const one of verifiers) await one.verify(signedIn.access_token)
      const startedAt = performance.now()
      const answered = post(`${first.url}/api/v1/users/${user.id}/deactivate`, {}, root)
      const waits = verifiers.map(async (one) => await untilRefusedBy(one, signedIn.access_token, startedAt))
      times.push(...(await Promise.all(waits)))
      await answered
    }
  } finally {
    for (const one of verifiers) await one.close()
    for (const server of servers) await server.stop()
  }
  report('deactivation sent, until a verifier refuses', times, 'ms')
  report('deactivation sent, until a verifier refuses, longest', [Math.max(...times)], 'ms')
}

async function untilRefusedBy(verifier: Verifier, token: string, startedAt: number): Promise<number> {
  const isGood = async (): Promise<boolean> =>
    await verifier.verify(token).then(
      () => true,
      () => false,
    )
  while (await isGood()) await sleep(1)
  return performance.now() - startedAt
}
