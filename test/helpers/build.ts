import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, stat, utimes } from 'node:fs/promises'
import { join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
/** What the compiler writes last. */
const RESULTS = ['dist/.tsbuildinfo', 'src/client/dist/.tsbuildinfo']
const SETTINGS = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json']

/** Compiles what is tested as it ships; nothing when no source is newer than the result. */
export async function buildWhatShips(): Promise<void> {
  const began = new Date()
  const builtAt = Math.min(...(await Promise.all(RESULTS.map(changedAt))))
  if ((await newestSource()) < builtAt) return
  const build = spawn('npm', ['run', '--silent', 'build'], {
    cwd: ROOT,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  const [code] = (await once(build, 'exit')) as [number | null]
  // What was saved while the compiler ran may have come too late for it.
  for (const result of RESULTS) {
    if (code === 0 || (await changedAt(result)) > began.getTime())
      await utimes(join(ROOT, result), began, began)
  }
}

async function newestSource(): Promise<number> {
  const files = await readdir(join(ROOT, 'src'), { recursive: true })
  const sources = files.filter((file) => /\.(ts|json)$/.test(file)).map((file) => join('src', file))
  const written = sources.filter((file) => !file.split(sep).includes('dist'))
  return Math.max(...(await Promise.all([...SETTINGS, ...written].map(changedAt))))
}

/** When it was written, in milliseconds; 0 if it is not there. */
async function changedAt(path: string): Promise<number> {
  const stats = await stat(join(ROOT, path)).catch(() => undefined)
  return stats?.mtimeMs ?? 0
}
