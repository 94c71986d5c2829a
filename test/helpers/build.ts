import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const CLIENT = join('src', 'client')
/** By these `npm run build` would take for its own what was compiled here. */
const RECORDS = [join('dist', '.tsbuildinfo'), join(CLIENT, 'dist', '.tsbuildinfo')]

/**
 * Brings up to date what is tested as it ships: compiles the files that changed since `npm run build`, each for
 * itself and without a look at its types, because a whole build takes half a minute.
 */
export async function buildWhatShips(): Promise<void> {
  const files = (await readdir(join(ROOT, 'src'), { recursive: true })).map((file) => join('src', file))
  const sources = files.filter((file) => file.endsWith('.ts') && !file.split(sep).includes('dist'))
  const changed = (await Promise.all(sources.map(unlessCompiled))).filter((file) => file !== undefined)
  if (changed.length === 0) return
  for (const record of RECORDS) await rm(join(ROOT, record), { force: true })
  await Promise.all(changed.map(compile))
}

async function unlessCompiled(source: string): Promise<string | undefined> {
  return (await changedAt(compiledOf(source))) < (await changedAt(source)) ? source : undefined
}

function compiledOf(source: string): string {
  const file = source.replace(/\.ts$/, '.js')
  return file.startsWith(CLIENT + sep)
    ? join(CLIENT, 'dist', file.slice(CLIENT.length))
    : join('dist', file.slice('src'.length))
}

async function compile(source: string): Promise<void> {
  const { transform } = await import('esbuild')
  const text = await readFile(join(ROOT, source), 'utf8')
  const { code } = await transform(text, { loader: 'ts', format: 'esm', target: 'es2023' })
  const compiled = join(ROOT, compiledOf(source))
  // Whole at once: another run may start a process from it.
  const draft = `${compiled}.${process.pid}`
  await mkdir(dirname(compiled), { recursive: true })
  await writeFile(draft, code.replace(/(\bfrom |\bimport |\bimport\()"(\.[^"\n]*)\.ts"/g, '$1"$2.js"'))
  await rename(draft, compiled)
}

/** When it was written, in milliseconds; 0 if it is not there. */
async function changedAt(path: string): Promise<number> {
  const stats = await stat(join(ROOT, path)).catch(() => undefined)
  return stats?.mtimeMs ?? 0
}
