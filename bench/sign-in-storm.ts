import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  adminCredentials,
  adminToken,
  type Bench,
  placeProcesses,
  post,
  residentMib,
  type Server,
  startPostern,
} from './harness.ts'

const STORM_SECONDS = Number(process.env['BENCH_SECONDS'] ?? 30)
const IDLE_SECONDS = Math.min(10, STORM_SECONDS)
const CAPACITY_SECONDS = 3
const TIMES_CAPACITY = 10
/** Checks, and as many requests whose token is verified, each second. */
const STREAM_PER_SECOND = 100
const RECOVERED_MS = 250

type Times = number[]

/**
 * Ten times as many sign-ins as can be hashed, from 2,000 addresses, beside a steady stream of checks and of requests
 * with a token. What the stream feels of it, how long those wait who are let in, and how soon the others are told.
 */
export async function signInStorm(bench: Bench): Promise<void> {
  placeProcesses(bench, false)
  const postern = await startPostern({ databaseUrl: bench.databaseUrl, isPinned: false })
  try {
    const stream = await createStream(postern)
    await stream.run(2)
    const idle = await stream.run(IDLE_SECONDS)
    const memoryIdle = residentMib(postern.pid)
    const capacity = await measureCapacity(postern)
    const rate = String(capacity * TIMES_CAPACITY)
    const storm = startAttackers(postern, { STORM_RATE: rate }, STORM_SECONDS)
    const beside = await stream.run(STORM_SECONDS - 1)
    const memoryStorm = residentMib(postern.pid)
    await storm.stopped
    const recovery = await timeToRecover(postern)
    const { sent, unsent, times } = await storm.result
    stream.close()

    print('capacity', capacity, '/s')
    print('sign-ins sent', sent / STORM_SECONDS, '/s')
    if (unsent > 0) print('not sent, because too many were under way', unsent, '')
    for (const [outcome, taken] of Object.entries(times)) {
      print(`answered ${outcome}`, taken.length / STORM_SECONDS, '/s')
      print(`answered ${outcome}, p50`, quantile(taken, 0.5), 'ms')
      print(`answered ${outcome}, p95`, quantile(taken, 0.95), 'ms')
    }
    for (const kind of ['check', 'token'] as const) {
      const [before, during] = [quantile(idle[kind], 0.99), quantile(beside[kind], 0.99)]
      print(`${kind}, p99 idle`, before, 'ms')
      print(`${kind}, p99 in the storm`, during, `ms   ${(during / before).toFixed(1)} × idle`)
    }
    print('memory idle', memoryIdle, 'MiB')
    print('memory in the storm', memoryStorm, 'MiB')
    print('until a sign-in is quick again', recovery, 'ms')
  } finally {
    await postern.stop()
  }
}

const print = (name: string, figure: number, unit: string): void =>
  console.log(`  ${name.padEnd(48)} ${figure.toFixed(figure < 100 ? 1 : 0).padStart(8)} ${unit}`)

/** Requests at fixed times; one that is late because of those before it is late in the figures too. */
async function createStream(postern: Server) {
  const token = await adminToken(postern.url)
  const agent = new Agent({ keepAlive: true, maxSockets: 20 })
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const question = JSON.stringify({
    subject: { type: 'user', id: adminCredentials.email },
    action: { name: 'read' },
    resource: { type: 'post', id: '1' },
  })
  const requests = {
    check: { method: 'POST', path: '/access/v1/evaluation', headers, body: question },
    token: { method: 'GET', path: '/api/v1/users/me', headers, body: undefined },
  } as const

  async function ask(kind: keyof typeof requests, due: number, taken: Times): Promise<void> {
    const { path, method, headers, body } = requests[kind]
    const sending = request(new URL(path, postern.url), { method, headers, agent })
    sending.end(body)
    const [response] = (await once(sending, 'response')) as [IncomingMessage]
    await once(response.resume(), 'end')
    if (response.statusCode !== 200) throw new Error(`${kind}: ${response.statusCode}`)
    taken.push(performance.now() - due)
  }

  return {
    close: (): void => agent.destroy(),
    async run(seconds: number): Promise<{ check: Times; token: Times }> {
      const taken = { check: [] as Times, token: [] as Times }
      const under: Promise<void>[] = []
      const began = performance.now()
      const total = seconds * STREAM_PER_SECOND
      for (let n = 0; n < total; n++) {
        const due = began + (n * 1000) / STREAM_PER_SECOND
        const wait = due - performance.now()
        if (wait > 0) await sleep(wait)
        // What the clock of this process is late by is none of the server's.
        const now = Math.max(due, performance.now() - 1)
        under.push(ask('check', now, taken.check), ask('token', now, taken.token))
      }
      await Promise.all(under)
      return taken
    },
  }
}

/** Sign-ins that are hashed each second, while there are always some under way. */
async function measureCapacity(postern: Server): Promise<number> {
  const { times } = await startAttackers(postern, { STORM_AT_ONCE: '4' }, CAPACITY_SECONDS).result
  return (times['401']?.length ?? 0) / CAPACITY_SECONDS
}

type StormResult = { sent: number; unsent: number; times: Record<string, Times> }

function startAttackers({ url }: Server, env: Record<string, string>, seconds: number) {
  const child: ChildProcess = spawn('node', ['--import', 'tsx', 'bench/storm/attackers.ts'], {
    env: { ...process.env, ...env, STORM_URL: url, STORM_SECONDS: String(seconds) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout ?? process.stdin })
  const stopped = once(lines, 'line')
  const result = stopped.then(async () => {
    const [line] = (await once(lines, 'line')) as [string]
    return JSON.parse(line) as StormResult
  })
  return { stopped, result }
}

/** From the end of the storm until somebody signs in as quickly as one does. */
async function timeToRecover({ url }: Server): Promise<number> {
  const began = performance.now()
  for (;;) {
    const asked = performance.now()
    const isIn = await post(`${url}/api/v1/auth/login`, adminCredentials).then(
      () => true,
      () => false,
    )
    if (isIn && performance.now() - asked < RECOVERED_MS) return performance.now() - began
    await sleep(10)
  }
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
