import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { locateFiles } from '../../src/db/embedded/data-dir.ts'
import { findEmbedded } from '../../src/db/embedded/server.ts'
import { runCommandLine } from './command-line.ts'

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** How a process ended, and everything that it said. */
export type Ended = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }

/** `postern` as a process of its own. */
export type Process = {
  child: ChildProcess
  /** What it has said so far. */
  said(): { stdout: string; stderr: string }
  /** The match of `pattern` in standard output, as soon as it is there. */
  until(pattern: RegExp): Promise<RegExpExecArray>
  ended: Promise<Ended>
}

type Options = { env?: NodeJS.ProcessEnv; input?: string }

/** Starts `postern` as it was built. Killed when the test ends, whatever happens. */
export function spawnPostern(t: Test, args: readonly string[], { env = {}, input }: Options = {}): Process {
  // Without what tap puts into the environment of child processes, and with nothing of the developer's settings.
  const child = spawn(process.execPath, [CLI, ...args], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text
  })
  child.stdin.on('error', () => {}).end(input ?? '')
  const ended = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
    ...output,
  }))
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return { child, said: () => output, ended, until: (pattern) => until(child, output, pattern) }
}

async function until(
  child: ChildProcess,
  output: { stdout: string; stderr: string },
  pattern: RegExp,
): Promise<RegExpExecArray> {
  for (;;) {
    const match = pattern.exec(output.stdout)
    if (match) return match
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`the process ended before it said ${pattern}: ${output.stdout}${output.stderr}`)
    }
    await sleep(10)
  }
}

/** Runs `postern` to its end: in this process, but for `serve`. A test that is about processes spawns one. */
export async function runPostern(t: Test, args: readonly string[], options: Options = {}): Promise<Ended> {
  if (args[0] === 'serve') return await spawnPostern(t, args, options).ended
  const { PATH, HOME } = process.env
  const { env, input = '' } = options
  return { signal: null, ...(await runCommandLine(args, { PATH, HOME, ...env }, input)) }
}

/** A service that has said that it is ready. */
export type Service = Process & { url: string; port: number }

/** Starts `postern serve` on a free port and waits until it is ready. */
export async function startService(t: Test, env: NodeJS.ProcessEnv): Promise<Service> {
  const port = Number(env['PORT'] ?? (await freePort()))
  const process = spawnPostern(t, ['serve'], { env: { LOG_LEVEL: 'warn', ...env, PORT: String(port) } })
  await process.until(/Next, sign in:[\s\S]*\n\n/)
  return { ...process, port, url: `http://127.0.0.1:${port}` }
}

/** Sends SIGTERM and returns how the process ended. */
export async function stopService({ child, ended }: Process): Promise<Ended> {
  child.kill('SIGTERM')
  return await ended
}

/**
 * A folder that is not there yet, for a DATA_DIR; its server is stopped and its files are removed afterwards, when
 * the processes of the test are gone. Call it before starting them.
 */
export async function aDataDir(t: Test, parentMode = 0o755): Promise<string> {
  const parent = await realpath(await mkdtemp(join(tmpdir(), 'postern-cli-')))
  await chmod(parent, parentMode)
  const dataDir = join(parent, 'data')
  t.teardown(async () => {
    const server = await findEmbedded(dataDir)
    await server?.stop()
    // Only root's servers may live elsewhere.
    const files = await locateFiles(dataDir)
    if (files) await rm(files.folder, { recursive: true, force: true })
    await rm(parent, { recursive: true, force: true })
  })
  return dataDir
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

/** Whether the embedded server of this DATA_DIR runs. */
export async function isServerRunning(dataDir: string): Promise<boolean> {
  const server = await findEmbedded(dataDir)
  await server?.detach()
  return server !== undefined
}

/** Sends the request that a printed curl command would send: the shell takes it apart, and nobody needs curl. */
export async function runCurl(command: string): Promise<Response> {
  const shell = spawnSync('sh', ['-c', `curl() { printf '%s\\0' "$@"; }\n${command}`], { encoding: 'utf8' })
  const words = shell.stdout.split('\0').slice(0, -1)
  const after = (option: string) => words[words.indexOf(option) + 1] ?? ''
  const url = words.find((word) => word.startsWith('http')) ?? ''
  const [name = '', value = ''] = after('-H').split(': ')
  return await fetch(url, { method: 'POST', headers: { [name]: value }, body: after('-d') })
}

/** What the JSON login answers. */
export async function signIn({ url }: Service, email: string, password: string): Promise<Response> {
  return await fetch(`${url}/api/v1/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
}

/** Tries until it is so; the limit is the runner's. */
export async function eventually(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo().catch(() => false))) await sleep(50)
}

/** The process ended with exit code 1 and one sentence that matches. */
export function refusedInOneSentence(t: Test, { code, stdout, stderr }: Ended, pattern: RegExp): void {
  t.equal(code, 1)
  t.match(stderr, pattern)
  t.match(stderr, /^[^\n]+\.\n$/)
  t.notMatch(stdout, /ready/)
}
