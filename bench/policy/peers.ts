import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** What the benchmark is measured against; the versions belong to the figures. */
const PEERS = { cerbos: '0.51.0', casbin: '5.51.1', 'oidc-provider': '9.13.3' }
const FOLDER = new URL('../../node_modules/.cache/postern-bench/', import.meta.url).pathname

/** Installs the peers beside our own dependencies, once, and returns their folder. */
export async function installPeers(): Promise<string> {
  if (!Object.keys(PEERS).every((name) => existsSync(join(FOLDER, 'node_modules', name)))) {
    await mkdir(FOLDER, { recursive: true })
    await writeFile(join(FOLDER, 'package.json'), JSON.stringify({ private: true, dependencies: PEERS }))
    const { status, stderr } = spawnSync('npm', ['install', '--no-audit', '--no-fund'], { cwd: FOLDER })
    if (status !== 0) throw new Error(`the peers could not be installed: ${stderr.toString()}`)
  }
  return join(FOLDER, 'node_modules')
}

export const peerVersion = (name: keyof typeof PEERS): string => `${name} ${PEERS[name]}`

/** Of those that decisions are compared with. */
export const peerVersions = `${peerVersion('cerbos')}, ${peerVersion('casbin')}`
