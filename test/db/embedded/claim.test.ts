import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { claimDataDir } from '../../../src/db/embedded/claim.ts'
import { freshDatabase, onServer } from '../../helpers/database.ts'

const CLAIM = new URL('../../../src/db/embedded/claim.ts', import.meta.url).href

async function aClaim(t: Test, url: string, options: Parameters<typeof claimDataDir>[1] = {}) {
  const claim = await claimDataDir(url, options)
  if (!claim.held) throw new Error(`held by ${claim.ownerPid}`)
  t.teardown(() => claim.release())
  return claim
}

type Owner = { backend: number; classid: number; objid: number }

async function findOwner(url: string): Promise<Owner | undefined> {
  const { rows } = await onServer(url, (client) =>
    client.query<Owner>(
      `select lock.pid as backend, classid::int, objid::int from pg_locks lock
        where locktype = 'advisory' and granted and database = (select oid from pg_database where datname = current_database())`,
    ),
  )
  return rows[0]
}

const disconnect = (url: string, backend: number) =>
  onServer(url, (client) => client.query('select pg_terminate_backend($1)', [backend]))

t.test('a DATA_DIR has one owner', async (t) => {
  const { url } = await freshDatabase(t)
  const { url: other } = await freshDatabase(t)
  const claim = await aClaim(t, url)

  t.strictSame(await claimDataDir(url), { held: false, ownerPid: process.pid })
  t.match(await aClaim(t, other), { held: true }, 'another one is free')

  await claim.release()
  t.match(await aClaim(t, url), { held: true })
  await claim.release()
})

t.test('a claim is free when its owner was killed', async (t) => {
  const { url } = await freshDatabase(t)
  const module = `
    const { claimDataDir } = await import(${JSON.stringify(CLAIM)})
    console.log(JSON.stringify(await claimDataDir(${JSON.stringify(url)})))
    setInterval(() => {}, 1e6)`
  const owner = spawn(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', module],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  t.teardown(() => owner.kill('SIGKILL'))
  const [line] = await once(createInterface({ input: owner.stdout }), 'line')
  t.match(JSON.parse(line), { held: true })
  t.strictSame(await claimDataDir(url), { held: false, ownerPid: owner.pid })

  owner.kill('SIGKILL')
  await once(owner, 'close')

  t.match(await aClaim(t, url), { held: true })
})

t.test('an owner that loses its connection claims again', async (t) => {
  const { url } = await freshDatabase(t)
  await aClaim(t, url, { onLost: () => t.fail('nobody else has claimed it') })
  const before = await findOwner(url)

  await disconnect(url, before?.backend ?? 0)
  let after = await findOwner(url)
  while (!after || after.backend === before?.backend) {
    await sleep(10)
    after = await findOwner(url)
  }

  t.strictSame(await claimDataDir(url), { held: false, ownerPid: process.pid })
})

t.test('an owner hears that another process was quicker', async (t) => {
  const { url } = await freshDatabase(t)
  const lost = new Promise((resolve) => aClaim(t, url, { onLost: resolve }).catch(resolve))
  let owner = await findOwner(url)
  while (!owner) owner = await findOwner(url)
  const rival = new pg.Client({ connectionString: url, application_name: 'postern serve pid=1' })
  rival.on('error', () => {})
  await rival.connect()
  t.teardown(() => rival.end())
  const taken = rival.query('select pg_advisory_lock($1::int, $2::int)', [owner.classid, owner.objid])

  await disconnect(url, owner.backend)
  await taken

  t.equal(await lost, 1)
})

t.test('a claim needs a server that answers', async (t) => {
  await t.rejects(claimDataDir('postgres://postern:x@127.0.0.1:1/postern'), { code: 'ECONNREFUSED' })
})
