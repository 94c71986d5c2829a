import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Bench, placeProcesses, report, residentMib, startPostern } from './harness.ts'

const QUICK = 100_000
/** A bcrypt hash, as 60 characters that nobody verifies here. */
const HASH = '$2b$12$abcdefghijklmnopqrstuuI6KXJ5V6yQFZ5C5vZb1uT2nUu3D9y7K'

/** `postern users import`: people with a bcrypt hash, a home account and a role each, and how much memory it takes. */
export async function usersImport(bench: Bench): Promise<void> {
  const { databaseUrl, count = QUICK } = bench
  placeProcesses(bench, false)
  const folder = await mkdtemp(join(tmpdir(), 'postern-import-'))
  const file = join(folder, 'users.csv')
  // Only for the tables: an import needs no server.
  await (await startPostern({ databaseUrl })).stop()
  try {
    await writePeople(file, count)
    const first = await importPeople(file, databaseUrl)
    const again = await importPeople(file, databaseUrl)
    console.log(`  ${count.toLocaleString('en')} people`)
    report('imported', [count / first.seconds], 'people/s')
    report('the time that takes', [first.seconds], 's')
    report(
      'resident memory after a tenth of them',
      [first.memory[Math.floor(first.memory.length / 10)] ?? 0],
      'MiB',
    )
    report('the most it had', [Math.max(...first.memory)], 'MiB')
    report('the same people again, all there already', [count / again.seconds], 'people/s')
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function writePeople(file: string, count: number): Promise<void> {
  const output = createWriteStream(file)
  output.write('key,email,full_name,phone_number,account,role,password_hash,is_active,created_at\n')
  const run = Date.now()
  for (let place = 0; place < count; place++) {
    const name = `import-${run}-${place}`
    const createdAt = new Date(1_600_000_000_000 + place * 1000).toISOString()
    const line = `${name},${name}@bench.test,Person ${place},+44 ${place},default,ACCOUNT_MANAGER,${HASH},t,${createdAt}\n`
    if (!output.write(line)) await once(output, 'drain')
  }
  output.end()
  await once(output, 'close')
}

async function importPeople(
  file: string,
  databaseUrl: string,
): Promise<{ seconds: number; memory: number[] }> {
  const startedAt = performance.now()
  const child = spawn('node', ['dist/cli.js', 'users', 'import', file], {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      SECRET_KEY: 'a secret key that only the benchmark has',
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  const ended = once(child, 'exit')
  const memory: number[] = []
  while (child.exitCode === null && child.pid !== undefined) {
    const now = residentMib(child.pid)
    if (Number.isFinite(now)) memory.push(now)
    await Promise.race([ended, sleep(200)])
  }
  if (child.exitCode !== 0 || errors !== '') throw new Error(`the import failed: ${errors}`)
  return { seconds: (performance.now() - startedAt) / 1000, memory }
}
