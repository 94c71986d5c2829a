/**
 * Packs postern-client, installs it in a new project as its user would, and runs `.ci/as-a-user.mjs` there with each
 * version of Node that the README names. Prints a line for each, and ends with 1 if one failed.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
/** Those of package.json and the README, but the one that runs this. */
const OTHER_VERSIONS = ['20', '22', '24'].filter((version) => !process.version.startsWith(`v${version}.`))
const LIMIT_MS = 120_000

const work = mkdtempSync(join(tmpdir(), 'postern-versions-'))
const npm = (folder, ...args) =>
  execFileSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })

/** A new folder with an empty package. */
function newProject(name) {
  const folder = join(work, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
  return folder
}

function otherNode(version) {
  const folder = newProject(`node-${version}`)
  npm(folder, 'install', `node@${version}`)
  return join(folder, 'node_modules', 'node', 'bin', 'node')
}

try {
  const [{ filename }] = JSON.parse(
    npm(join(ROOT, 'src/client'), 'pack', '--json', '--ignore-scripts', '--pack-destination', work),
  )
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const project = newProject('service')
  npm(project, 'install', join(work, filename), `fastify@${dependencies.fastify}`, 'express@5')
  copyFileSync(join(ROOT, '.ci/as-a-user.mjs'), join(project, 'program.js'))

  for (const node of [process.execPath, ...OTHER_VERSIONS.map(otherNode)]) {
    const data = mkdtempSync(join(work, 'data-'))
    const { status, signal } = spawnSync(node, ['program.js', join(ROOT, 'dist/server.js'), data], {
      cwd: project,
      stdio: 'inherit',
      timeout: LIMIT_MS,
    })
    if (status !== 0) process.exitCode = 1
    process.stdout.write(`${status === 0 ? 'ok' : `not ok (${signal ?? status})`} - ${node}\n`)
  }
} finally {
  rmSync(work, { recursive: true, force: true, maxRetries: 20, retryDelay: 500 })
}
