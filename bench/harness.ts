import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'

export type Bench = {
  databaseUrl: string
  postgresPid: number
  /** How many, where the command line says it. */
  count?: number
}

export const ROUNDS = 3
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 4)
const ADMIN = { email: 'bench@postern.test', password: 'a password for the benchmark' }

/** A server process under measurement. */
export type Server = { url: string; pid: number; output: () => string; stop(): Promise<void> }

const canPin = spawnSync('taskset', ['--version']).status === 0
const EVERY_CORE = `0-${availableParallelism() - 1}`
const pin = (cores: string, command: string[]): string[] =>
  canPin ? ['taskset', '-c', cores, ...command] : command

/**
 * With `apart`, Postgres and this process, which makes the load, share the second core and leave the first to the
 * server, so that neither takes the other's time; else everybody may use every core.
 */
export function placeProcesses({ postgresPid }: Bench, apart: boolean): void {
  if (!canPin) return
  for (const pid of [process.pid, postgresPid]) {
    spawnSync('taskset', ['-a', '-cp', apart ? '1' : EVERY_CORE, String(pid)])
  }
}

type StartOptions = { databaseUrl: string; env?: Record<string, string>; isPinned?: boolean }

/** Starts the built service as an operator would, and waits until it is ready. */
export async function startPostern({
  databaseUrl,
  env = {},
  isPinned = true,
}: StartOptions): Promise<Server> {
  const port = await freePort()
  return await startServer(
    port,
    '/health/ready',
    [
      'node',
      '--max-semi-space-size=8',
      '--max-old-space-size=512',
      '--no-allocation-site-pretenuring',
      'dist/server.js',
    ],
    isPinned,
    {
      DATABASE_URL: databaseUrl,
      PORT: String(port),
      ENVIRONMENT: 'prod',
      SECRET_KEY: 'a secret key that only the benchmark has',
      FIRST_SUPER_ADMIN_EMAIL: ADMIN.email,
      FIRST_SUPER_ADMIN_PASSWORD: ADMIN.password,
      ...env,
    },
  )
}

/** Starts another program that listens on PORT. */
export async function startBaseline(file: string, env: Record<string, string>): Promise<Server> {
  const port = await freePort()
  return await startServer(port, '/', ['node', '--import', 'tsx', file], true, { PORT: String(port), ...env })
}

/** Starts a program that listens on `port`, and waits until `path` answers. */
export async function startServer(
  port: number,
  path: string,
  command: string[],
  isPinned: boolean,
  env: Record<string, string>,
): Promise<Server> {
  const [program = '', ...args] = pin(isPinned ? '0' : EVERY_CORE, command)
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-20_000)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  const url = `http://127.0.0.1:${port}`
  await untilAnswering(`${url}${path}`, child, () => output)
  return { url, pid: child.pid ?? 0, output: () => output, stop: async () => await stop(child) }
}

async function untilAnswering(url: string, child: ChildProcess, output: () => string): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the server ended: ${output()}`)
    if (
      await fetch(url).then(
        (response) => response.ok,
        () => false,
      )
    )
      return
    await sleep(5)
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  await ended
}

/** An access token of the super admin. */
export async function adminToken(url: string): Promise<string> {
  const response = await post(`${url}/api/v1/auth/login`, ADMIN)
  return ((await response.json()) as { access_token: string }).access_token
}

export const adminCredentials = ADMIN

export async function post(url: string, body: unknown, token?: string): Promise<Response> {
  return await send('POST', url, body, token)
}

/** The answer, which must be a success. */
export async function send(
  method: 'POST' | 'PATCH' | 'DELETE',
  url: string,
  body: unknown,
  token?: string,
): Promise<Response> {
  const response = await fetch(url, {
    method,
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`)
  return response
}

type Load = { url: string; connections?: number; seconds?: number } & Pick<
  autocannon.Options,
  'method' | 'headers' | 'body' | 'requests'
>

/** Requests per second and latencies of one round. Every answer must be a success. */
export async function load({ connections = 50, seconds = SECONDS, ...options }: Load) {
  const result = await autocannon({ ...options, connections, duration: seconds })
  const failed = result.non2xx + result.errors + result.timeouts
  if (failed > 0) throw new Error(`${failed} of ${result.requests.total} requests failed`)
  return {
    perSecond: result.requests.total / result.duration,
    p50: result.latency.p50,
    p99: result.latency.p99,
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** Prints one figure with its unit, and its ratio to the baseline measured in the same rounds. */
export function report(
  name: string,
  values: readonly number[],
  unit: string,
  baseline?: readonly number[],
): void {
  const ratio = baseline && median(values.map((value, round) => value / (baseline[round] ?? Number.NaN)))
  const figure = median(values)
  const text = figure >= 100 ? Math.round(figure).toLocaleString('en') : figure.toFixed(2)
  console.log(
    `  ${name.padEnd(52)} ${text.padStart(10)} ${unit}${ratio === undefined ? '' : `   ${(ratio * 100).toFixed(1)} % of the baseline`}`,
  )
}

export async function freePort(): Promise<number> {
  return await new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}

/** The resident memory of a process, as the kernel counts it. */
export function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}

const SAMPLE_EVERY_MS = 100

/** What the work comes to, and the resident memory of a process in MiB every 100 ms while it goes on. */
export async function withMemory<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ result: T; memory: number[] }> {
  const memory = [residentMib(pid)]
  const timer = setInterval(() => memory.push(residentMib(pid)), SAMPLE_EVERY_MS)
  try {
    return { result: await work(), memory }
  } finally {
    clearInterval(timer)
  }
}
