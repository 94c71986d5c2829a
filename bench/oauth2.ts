import { randomBytes } from 'node:crypto'
import autocannon from 'autocannon'
import {
  adminToken,
  type Bench,
  freePort,
  placeProcesses,
  post,
  ROUNDS,
  report,
  type Server,
  startPostern,
  startServer,
} from './harness.ts'
import { paced } from './paced.ts'
import { installPeers, peerVersion } from './policy/peers.ts'

const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 4)
const CONNECTIONS = 50
const SIGN_INS_AT_ONCE = 10
/** Of what a server reaches: what it is to answer quickly at. */
const LOAD = 0.7
/** A full collection of garbage, one in a minute or two, makes its round a slow one. */
const LOAD_ROUNDS = 5
/** The end of each load cuts off answers, and so loses the tokens that they hold. */
const REFRESH_TOKENS = CONNECTIONS * 2 * (ROUNDS + LOAD_ROUNDS)
const FORM = 'application/x-www-form-urlencoded'

type Round = { perSecond: number; p99: number }
/** One side of the comparison: where its endpoints are, and the client that calls them. */
type Side = {
  token: string
  introspection: string
  authorization: string
  refreshTokens: string[]
  introspected: string
  form: Record<string, string>
}
type Load = { side: Side; url: string; body: string; chained?: boolean }

/** Tokens for machines, refreshes with rotation and introspection, beside oidc-provider on the same Postgres. */
export async function oauth2(bench: Bench): Promise<void> {
  console.log(`  beside ${peerVersion('oidc-provider')}, ES256, one core for the server`)
  const peers = await installPeers()
  placeProcesses(bench, true)
  const ours = await startPostern({ databaseUrl: bench.databaseUrl, env: { HASH_QUEUE: '100' } })
  const theirs = await startProvider(bench.databaseUrl, peers)
  const bare = await startBare(bench.databaseUrl)
  try {
    const sides = [await providerSide(theirs), await posternSide(ours)] as const
    const works = {
      client_credentials: (side: Side) => ({
        side,
        url: side.token,
        body: form({ grant_type: 'client_credentials', scope: 'post:read' }),
      }),
      'refresh with rotation': (side: Side) => ({
        side,
        url: side.token,
        body: form({ grant_type: 'refresh_token', ...side.form }),
        chained: true,
      }),
      introspection: (side: Side) => ({
        side,
        url: side.introspection,
        body: form({ token: side.introspected }),
      }),
    }
    for (const [name, work] of Object.entries(works)) await compare(name, work(sides[0]), work(sides[1]))
    // What the other server leaves Postgres to tidy up is not in how quickly ours answers.
    await theirs.stop()
    for (const [name, work] of Object.entries(works)) await atLoad(name, work(sides[1]), bare)
  } finally {
    await bare.stop()
    await theirs.stop()
    await ours.stop()
  }
}

/** How much each does, and how quickly. */
async function compare(name: string, atTheirs: Load, atOurs: Load): Promise<void> {
  const rounds: { theirs: Round; ours: Round }[] = []
  for (let round = -1; round < ROUNDS; round++) {
    const both = { theirs: await fire(atTheirs), ours: await fire(atOurs) }
    if (round >= 0) rounds.push(both)
  }
  const rates = rounds.map(({ theirs }) => theirs.perSecond)
  const waits = rounds.map(({ theirs }) => theirs.p99)
  report(`oidc-provider, ${name}`, rates, '/s')
  report(
    `Postern, ${name}`,
    rounds.map(({ ours }) => ours.perSecond),
    '/s',
    rates,
  )
  report(`oidc-provider, ${name}, p99`, waits, 'ms')
  report(
    `Postern, ${name}, p99`,
    rounds.map(({ ours }) => ours.p99),
    'ms',
    waits,
  )
}

/** How quickly most are answered when the server has something in hand, beside a bare server in turns. */
async function atLoad(name: string, load: Load, bare: Server): Promise<void> {
  const bareLoad = { side: load.side, url: `${bare.url}/${load.chained ? 'written' : ''}`, body: '' }
  const rounds: { ours: Round; bare: Round }[] = []
  for (let round = -1; round < LOAD_ROUNDS; round++) {
    const both = { ours: await fireBelow(load), bare: await fireBelow(bareLoad) }
    if (round >= 0) rounds.push(both)
  }
  const waits = rounds.map((round) => round.bare.p99)
  report(
    `Postern, ${name}, p99 at 70 % load`,
    rounds.map(({ ours }) => ours.p99),
    'ms',
    waits,
  )
  report(`a bare server that ${load.chained ? 'writes and signs' : 'signs'}, p99 at 70 %`, waits, 'ms')
}

/** At a part of what it has just reached. */
async function fireBelow(load: Load): Promise<Round> {
  const { perSecond } = await fire(load)
  return await fire(load, perSecond * LOAD)
}

const form = (fields: Record<string, string>): string => new URLSearchParams(fields).toString()

const SECRET = randomBytes(32).toString('base64url')

async function startProvider(databaseUrl: string, peers: string): Promise<Server> {
  const port = await freePort()
  return await startServer(
    port,
    '/.well-known/openid-configuration',
    ['node', '--max-semi-space-size=8', 'bench/oauth2/provider.mjs'],
    true,
    { PORT: String(port), DATABASE_URL: databaseUrl, PEERS: peers, SECRET, NODE_ENV: 'production' },
  )
}

/** What the machine itself takes: it is asked as Postern is, and runs none of its code. */
async function startBare(databaseUrl: string): Promise<Server> {
  const port = await freePort()
  return await startServer(port, '/', ['node', '--max-semi-space-size=8', 'bench/oauth2/bare.mjs'], true, {
    PORT: String(port),
    DATABASE_URL: databaseUrl,
  })
}

const basic = (id: string, secret: string): string =>
  `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`

async function providerSide(server: Server): Promise<Side> {
  const authorization = basic('bench', SECRET)
  const token = `${server.url}/token`
  const answer = await fetch(`${server.url}/bench/refresh-tokens?count=${REFRESH_TOKENS}`)
  return {
    token,
    introspection: `${server.url}/token/introspection`,
    authorization,
    refreshTokens: (await answer.json()) as string[],
    introspected: await aToken(token, authorization, { resource: 'urn:bench:opaque' }),
    form: {},
  }
}

async function posternSide(server: Server): Promise<Side> {
  const admin = await adminToken(server.url)
  const client = { name: 'bench', scopes: ['post:read'] }
  const made = await post(`${server.url}/api/v1/clients`, client, admin)
  const { client_id, client_secret } = (await made.json()) as Record<string, string>
  const authorization = basic(client_id ?? '', client_secret ?? '')
  const token = `${server.url}/oauth2/token`
  const person = await aReader(server, admin)
  const refreshTokens: string[] = []
  while (refreshTokens.length < REFRESH_TOKENS) {
    const signIns = Array.from({ length: SIGN_INS_AT_ONCE }, async () => {
      const signedIn = await post(`${server.url}/api/v1/auth/login`, person)
      return ((await signedIn.json()) as { refresh_token: string }).refresh_token
    })
    refreshTokens.push(...(await Promise.all(signIns)))
  }
  return {
    token,
    introspection: `${server.url}/oauth2/introspect`,
    authorization,
    refreshTokens,
    introspected: await aToken(token, authorization),
    form: { client_id: 'first-party' },
  }
}

/** Somebody whose tokens carry the one scope that the provider's carry. */
async function aReader({ url }: Server, admin: string) {
  const person = { email: 'reader@bench.test', password: 'a password that only the benchmark has' }
  const user = (await (
    await post(`${url}/api/v1/users`, { ...person, full_name: 'Reader' }, admin)
  ).json()) as { id: string }
  const role = (await (
    await post(`${url}/api/v1/roles`, { name: 'reader', scopes: ['post:read'] }, admin)
  ).json()) as { id: string }
  const [account] = (await (
    await fetch(`${url}/api/v1/accounts`, { headers: { authorization: `Bearer ${admin}` } })
  ).json()) as { id: string }[]
  await post(`${url}/api/v1/users/${user.id}/roles`, { role_id: role.id, account_id: account?.id }, admin)
  await post(`${url}/api/v1/accounts/${account?.id}/users`, { user_id: user.id }, admin)
  return person
}

async function aToken(
  url: string,
  authorization: string,
  more: Record<string, string> = {},
): Promise<string> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': FORM, authorization },
    body: form({ grant_type: 'client_credentials', scope: 'post:read', ...more }),
  })
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`)
  return ((await response.json()) as { access_token: string }).access_token
}

/**
 * One round, as fast as it goes or at a rate. With `chained` each request takes the next refresh token, and its answer
 * gives another one.
 */
async function fire({ side, url, body, chained = false }: Load, perSecond?: number): Promise<Round> {
  const { refreshTokens } = side
  // A person's program has no secret; oidc-provider's client authenticates.
  const headers = {
    'content-type': FORM,
    ...(!(chained && side.form['client_id']) && { authorization: side.authorization }),
  }
  const nextBody = (): string =>
    chained ? `${body}&refresh_token=${encodeURIComponent(refreshTokens.shift() ?? '')}` : body
  const onAnswer = (status: number, answer: string): void => {
    if (chained && status === 200)
      refreshTokens.push((JSON.parse(answer) as { refresh_token: string }).refresh_token)
  }
  if (perSecond !== undefined) {
    const calm = { url, headers, perSecond, seconds: SECONDS, connections: CONNECTIONS, nextBody, onAnswer }
    const { perSecond: reached, p99, failed } = await paced(calm)
    if (failed > 0) throw new Error(`${failed} requests failed`)
    return { perSecond: reached, p99 }
  }
  const result = await autocannon({
    url,
    method: 'POST',
    connections: CONNECTIONS,
    duration: SECONDS,
    requests: [
      chained
        ? {
            headers,
            setupRequest: (request) => ({ ...request, headers, body: nextBody() }),
            onResponse: onAnswer,
          }
        : { headers, body },
    ],
  })
  const failed = result.non2xx + result.errors + result.timeouts
  if (failed > 0) throw new Error(`${failed} of ${result.requests.total} requests failed`)
  return { perSecond: result.requests.total / result.duration, p99: result.latency.p99 }
}
