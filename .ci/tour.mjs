/**
 * Runs the tour of README.md as a reader would: every block marked `sh tour`, in order, in one POSIX shell. A block
 * marked `sh tour background` is a terminal of its own that stays open. A block marked `text tour` says what the
 * block before it prints; `…` in it stands for anything.
 *
 * The addresses 127.0.0.1:8000 and :3000 are replaced by free ports, and DATA_DIR is a new folder. Prints one line
 * of TAP for each block.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = new URL('../', import.meta.url)
const START_LIMIT_MS = 180_000
const BLOCK_LIMIT_MS = 120_000
const END_OF_BLOCK = '--- end of block'

/** The marked blocks of a Markdown text, each with what it prints if the text says so. */
function readTour(markdown) {
  const blocks = []
  for (const [, info, text] of markdown.matchAll(/^```((?:sh|text) tour.*)\n([\s\S]*?)^```$/gm)) {
    const line = markdown.slice(0, markdown.indexOf(text)).split('\n').length
    if (info === 'text tour') blocks.at(-1).output = text
    else blocks.push({ line, script: text, isBackground: info.endsWith('background') })
  }
  return blocks
}

/** Gives every port that the tour uses a free one. Pasted by a reader, the text works as it stands. */
async function withFreePorts(markdown) {
  const [postern, posts] = [await freePort(), await freePort()]
  const text = markdown.replaceAll('127.0.0.1:8000', `127.0.0.1:${postern}`)
  return {
    text: text.replaceAll('127.0.0.1:3000', `127.0.0.1:${posts}`),
    issuer: `http://127.0.0.1:${postern}`,
  }
}

async function freePort() {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

const matches = (expected, printed) => {
  const literal = (text) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
  return new RegExp(`^${expected.trim().split('…').map(literal).join('[\\s\\S]*')}$`).test(
    printed.replaceAll('\r', '').trim(),
  )
}

const passing = (expected, printed) =>
  expected === undefined || matches(`…${expected.trim()}…`, printed) ? undefined : `expected:\n${expected}`

/** Runs a block in the background, and waits until it has printed what it should. */
async function runInBackground({ script, output = '' }, env) {
  const port = /127\.0\.0\.1:(\d+)/.exec(output)?.[1]
  const child = spawn('sh', ['-c', script], {
    cwd: ROOT,
    env: { ...env, ...(port && { PORT: port }) },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (printed += chunk))
  const end = Date.now() + START_LIMIT_MS
  while (passing(output, printed) && child.exitCode === null && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return { child, printed, fault: passing(output, printed) }
}

/** One shell for all blocks, so that variables and functions stay. */
function openShell(env) {
  const shell = spawn('sh', [], { cwd: ROOT, env, stdio: ['pipe', 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [shell.stdout, shell.stderr]) stream.on('data', (chunk) => (printed += chunk))

  return {
    async run({ script, output }) {
      printed = ''
      shell.stdin.write(`${script}\necho "${END_OF_BLOCK} $?"\n`)
      const end = Date.now() + BLOCK_LIMIT_MS
      const marker = new RegExp(`${END_OF_BLOCK} (\\d+)\n`)
      while (!marker.test(printed) && shell.exitCode === null && Date.now() < end) {
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      const status = marker.exec(printed)?.[1]
      const shown = printed.replace(marker, '')
      if (status === undefined) return { printed: shown, fault: 'it did not end' }
      if (status !== '0') return { printed: shown, fault: `it ended with ${status}` }
      const fault = output === undefined || matches(output, shown) ? undefined : `expected:\n${output}`
      return { printed: shown, fault }
    },
    close: () => shell.kill(),
  }
}

/** Ends a background block with all that it started, as Ctrl-C would. */
async function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  process.kill(-child.pid, 'SIGTERM')
  await ended
}

async function main() {
  const dataDir = await mkdtemp(join(tmpdir(), 'postern-tour-'))
  const { text, issuer } = await withFreePorts(await readFile(new URL('README.md', ROOT), 'utf8'))
  const blocks = readTour(text)
  const env = { ...process.env, DATA_DIR: join(dataDir, 'data'), ISSUER: issuer }
  for (const name of ['PORT', 'HOST', 'PUBLIC_URL', 'DATABASE_URL']) delete env[name]
  const shell = openShell(env)
  const background = []
  let passed = 0
  let failed = 0
  try {
    for (const [index, block] of blocks.entries()) {
      const result = block.isBackground ? await runInBackground(block, env) : await shell.run(block)
      if (result.child) background.push(result.child)
      const name = `README.md:${block.line} ${block.script.split('\n', 1)[0]}`
      const reason = result.fault ? ` # ${JSON.stringify(`${result.fault}printed: ${result.printed}`)}` : ''
      process.stdout.write(`${result.fault ? 'not ok' : 'ok'} ${index + 1} - ${name}${reason}\n`)
      if (!result.fault) {
        passed++
        continue
      }
      failed++
      process.stdout.write(`${block.script}\n${result.fault}\nprinted:\n${result.printed}\n`)
      // What follows builds on it.
      break
    }
  } finally {
    shell.close()
    for (const child of background.reverse()) await stop(child)
    // What was started by npm may outlive it by a moment.
    await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 500 })
  }
  if (blocks.length === 0) process.stdout.write('README.md has no block marked `sh tour`\n')
  process.stdout.write(
    `# { total: ${passed + failed}, pass: ${passed}${failed ? `, fail: ${failed}` : ''} }\n`,
  )
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0
}

await main()
