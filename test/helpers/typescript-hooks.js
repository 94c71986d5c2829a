import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

// Every test file is a process of its own and imports nearly all of the application: whoever compiles it there pays
// several seconds for each file. Here the first process that meets a file compiles it, for all later ones.
const CACHE = new URL('../../node_modules/.cache/postern-tests/', import.meta.url)

const OPTIONS = {
  loader: 'ts',
  format: 'esm',
  target: 'node20.19',
  sourcemap: 'inline',
  sourcesContent: false,
  tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
}

// These two come in five hundred files, and to find and open those takes as long as all the rest of a start.
const BUNDLED = {
  typebox: 'typebox',
  'typebox/value': 'typebox-value',
  'drizzle-orm': 'drizzle-orm',
  'drizzle-orm/pg-core': 'drizzle-orm-pg-core',
  'drizzle-orm/node-postgres': 'drizzle-orm-node-postgres',
  'drizzle-orm/node-postgres/migrator': 'drizzle-orm-node-postgres-migrator',
}

const BUNDLING = {
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: OPTIONS.target,
  external: ['pg'],
  keepNames: true,
}

let bundles

/** Node's hook: the packages in the table above are found in their bundles. */
export async function resolve(specifier, context, nextResolve) {
  if (Object.hasOwn(BUNDLED, specifier)) {
    bundles ??= bundleOnce()
    const url = new URL(`${BUNDLED[specifier]}.mjs`, await bundles).href
    return { url, format: 'module', shortCircuit: true }
  }
  if (/^(typebox|drizzle-orm)(\/|$)/.test(specifier)) {
    throw new Error(`Name ${specifier} in ${import.meta.url}: a package must not be loaded twice`)
  }
  // What a module with a query imports, tap may want to replace.
  if (specifier.startsWith('.') && specifier.endsWith('.ts') && !context.parentURL?.includes('?')) {
    return { url: new URL(specifier, context.parentURL).href, format: 'module', shortCircuit: true }
  }
  return await nextResolve(specifier, context)
}

/** Node's hook: gives the JavaScript of a TypeScript file of the repository, with its source map. */
export async function load(url, context, nextLoad) {
  // A module may be asked for with a query, to have it loaded once more.
  if (!/^file:[^?#]*\.ts(\?|$)/.test(url)) return await nextLoad(url, context)
  return { format: 'module', source: await compiled(fileURLToPath(url)), shortCircuit: true }
}

async function compiled(file) {
  const source = await readFile(file, 'utf8')
  const cached = new URL(`${digest(file, source, JSON.stringify(OPTIONS))}.js`, CACHE)
  try {
    return await readFile(cached, 'utf8')
  } catch {
    const { transformSync } = await import('esbuild')
    const { code } = transformSync(source, { ...OPTIONS, sourcefile: file })
    await keep(cached, code)
    return code
  }
}

/** Whole at once: other test processes read it meanwhile. */
async function keep(cached, code) {
  const draft = new URL(`${cached.href}.${process.pid}`)
  await mkdir(CACHE, { recursive: true })
  await writeFile(draft, code)
  await rename(draft, cached)
}

/** The folder of the bundles, made if it is not there. */
async function bundleOnce() {
  const lockfile = await readFile(new URL('../../package-lock.json', import.meta.url), 'utf8')
  const name = `bundles-${digest(lockfile, JSON.stringify(BUNDLED), JSON.stringify(BUNDLING))}`
  const folder = new URL(`${name}/`, CACHE)
  if (existsSync(folder)) return folder
  const { build } = await import('esbuild')
  const draft = new URL(`${name}.${process.pid}/`, CACHE)
  await build({
    entryPoints: Object.entries(BUNDLED).map(([specifier, out]) => ({ in: specifier, out })),
    absWorkingDir: fileURLToPath(new URL('../../', import.meta.url)),
    outdir: fileURLToPath(draft),
    outExtension: { '.js': '.mjs' },
    ...BUNDLING,
  })
  // Another process may have been faster; its bundles are the same.
  await rename(draft, folder).catch(() => rm(draft, { recursive: true }))
  return folder
}

function digest(...texts) {
  const hash = createHash('sha1')
  for (const text of texts) hash.update(`${text.length}:${text}`)
  return hash.digest('hex')
}
