import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { backupDataDir } from '../../../src/db/embedded/backup.ts'
import { claimDataDir } from '../../../src/db/embedded/claim.ts'
import { EmbeddedError } from '../../../src/db/embedded/errors.ts'
import { findProcess } from '../../../src/db/embedded/process.ts'
import { restoreDataDir } from '../../../src/db/embedded/restore.ts'
import { findEmbedded, startEmbedded } from '../../../src/db/embedded/server.ts'
import { onServer } from '../../helpers/database.ts'

const isRoot = process.getuid?.() === 0

async function aFolder(t: Test, mode = 0o755): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-backup-'))
  await chmod(folder, mode)
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** A DATA_DIR with a secret and a database whose one row is `n`; it is stopped. */
async function aDataDir(t: Test, dataDir: string, n: number): Promise<string> {
  const server = await startEmbedded({ dataDir, ephemeral: true })
  t.teardown(async () => await (await findEmbedded(dataDir))?.stop())
  await writeFile(join(dataDir, 'secret'), `secret ${n}`, { mode: 0o600 })
  await onServer(server.url, async (client) => {
    await client.query('create table if not exists rows (n int)')
    await client.query('delete from rows')
    await client.query('insert into rows values ($1)', [n])
  })
  await server.stop()
  return dataDir
}

async function rowIn(dataDir: string): Promise<number | undefined> {
  const server = await startEmbedded({ dataDir, ephemeral: true })
  const { rows } = await onServer(server.url, (client) => client.query<{ n: number }>('select n from rows'))
  await server.stop()
  return rows[0]?.n
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

const modeOf = async (path: string) => (await stat(path)).mode & 0o777
const secretIn = (dataDir: string) => readFile(join(dataDir, 'secret'), 'utf8')

t.test('backup and restore', async (t) => {
  const folder = await aFolder(t)
  const dataDir = await aDataDir(t, join(folder, 'one'), 1)
  const backup = join(folder, 'backups', 'first')
  const back = (target = backup, of = dataDir) => backupDataDir({ dataDir: of, target, version: '1.2.3' })
  const refused = async (t: Test, work: Promise<unknown>, message: RegExp) => {
    const error = await work.then(
      () => undefined,
      (error: unknown) => error,
    )
    t.type(error, EmbeddedError)
    t.match(error, { message })
    t.match(error, { message: /^[^\n]+\.$/ })
  }

  await t.test('a backup holds database and secrets for nobody else to read', async (t) => {
    const manifest = await back()

    t.match(manifest, { format: 1, postern: '1.2.3', postgres: /^18\./, postgres_major: 18 })
    t.strictSame(JSON.parse(await readFile(join(backup, 'manifest.json'), 'utf8')), manifest)
    t.ok(Date.parse(manifest.created_at))
    const files = await filesBelow(backup)
    t.equal(files.length, manifest.files + 1)
    t.strictSame([...new Set(await Promise.all(files.map(modeOf)))], [0o600])
    t.equal(await modeOf(backup), 0o700)
    t.strictSame(await readdir(join(folder, 'backups')), ['first'])
  })

  await t.test('it is restored into a new DATA_DIR, and the original still works', async (t) => {
    const restored = join(folder, 'two')

    await restoreDataDir({ source: backup, dataDir: restored })

    t.equal(await secretIn(restored), 'secret 1')
    t.equal(await modeOf(join(restored, 'secret')), 0o600)
    t.equal((await modeOf(restored)) & 0o066, 0)
    t.equal(await rowIn(restored), 1)
    t.equal(await rowIn(dataDir), 1)
    t.strictSame((await readdir(restored)).sort(), ['postgres', 'secret'])
  })

  await t.test('a database in use is not copied or replaced', async (t) => {
    const { url, stop } = await startEmbedded({ dataDir, ephemeral: true })
    const claim = await claimDataDir(url)

    await refused(t, back(join(folder, 'busy')), new RegExp(`in use \\(postern serve pid=${process.pid}\\)`))
    await refused(t, restoreDataDir({ source: backup, dataDir, force: true }), /in use/)
    t.equal((await readdir(folder)).includes('busy'), false)

    if (claim.held) await claim.release()
    await stop()
  })

  await t.test('a server that nobody uses is stopped first', async (t) => {
    const { pid } = await startEmbedded({ dataDir, ephemeral: true })

    await back(join(folder, 'idle'))

    t.equal(await findProcess(pid), undefined)
  })

  await t.test('a database whose server was killed is mended first', async (t) => {
    const { pid, url, directory } = await startEmbedded({ dataDir })
    await onServer(url, (client) => client.query('update rows set n = 11'))
    process.kill(pid, 'SIGKILL')
    while (await findProcess(pid)) await sleep(10)

    await back(join(folder, 'mended'))
    await restoreDataDir({ source: join(folder, 'mended'), dataDir: join(folder, 'three') })

    t.equal(await rowIn(join(folder, 'three')), 11)
    t.notOk((await readdir(join(directory, 'data'))).includes('postmaster.pid'))
  })

  await t.test('what was moved to another disk is in the backup too', async (t) => {
    const data = join(dataDir, 'postgres', 'data')
    const [disk, secret] = [join(folder, 'disk'), join(dataDir, 'secret')]
    await mkdir(disk, { mode: 0o711 })
    for (const [path, name] of [
      [data, 'data'],
      [secret, 'secret'],
    ] as const) {
      await rename(path, join(disk, name))
      await symlink(join(disk, name), path)
    }

    await back(join(folder, 'linked'))
    await rm(disk, { recursive: true })
    await rm(dataDir, { recursive: true })
    await restoreDataDir({ source: join(folder, 'linked'), dataDir })

    t.equal(await secretIn(dataDir), 'secret 1')
    t.equal(await rowIn(dataDir), 11)
  })

  await t.test('a backup goes to a new or an empty folder outside of DATA_DIR', async (t) => {
    const empty = join(folder, 'empty')
    await mkdir(empty)

    await refused(t, back(backup), /is not empty/)
    await refused(t, back(join(dataDir, 'backup')), /lie in each other/)
    await refused(t, back(join(folder, 'nothing'), join(folder, 'no-such')), /no embedded database in/)
    t.match(await back(empty), { format: 1 })
  })

  await t.test('a DATA_DIR with content is replaced by force only, and kept', async (t) => {
    const target = join(folder, 'four')
    await restoreDataDir({ source: backup, dataDir: target })
    await aDataDir(t, target, 4)
    const restore = { source: backup, dataDir: target }
    await refused(t, restoreDataDir(restore), /is not empty: .* --force/)
    t.equal(await rowIn(target), 4)

    await restoreDataDir({ ...restore, force: true })

    t.equal(await secretIn(target), 'secret 1')
    t.equal(await rowIn(target), 1)
    const kept = (await readdir(target)).find((name) => name.startsWith('replaced-')) ?? ''
    t.equal(await secretIn(join(target, kept)), 'secret 4')
    t.equal((await modeOf(join(target, kept))) & 0o066, 0)

    await t.test('and what was kept is a DATA_DIR itself, not part of the next backup', async (t) => {
      await back(join(folder, 'again'), target)

      t.notOk((await filesBelow(join(folder, 'again'))).some((file) => file.includes('replaced-')))
      t.equal(await rowIn(join(target, kept)), 4)
    })
  })

  await t.test('an interrupted restore is not taken for a new DATA_DIR, and can be repeated', async (t) => {
    const target = join(folder, 'five')
    await restoreDataDir({ source: backup, dataDir: target })
    await aDataDir(t, target, 5)
    await mkdir(join(target, 'replaced-earlier'))
    await rename(join(target, 'postgres'), join(target, 'replaced-earlier', 'postgres'))
    await mkdir(join(target, 'restore.partial-x'))
    await writeFile(join(target, 'restore-unfinished'), '')
    await refused(t, startEmbedded({ dataDir: target }), /run "postern restore" again/)

    await restoreDataDir({ source: backup, dataDir: target })

    t.equal(await rowIn(target), 1)
    t.equal(await secretIn(target), 'secret 1')
    t.notOk((await readdir(target)).some((name) => name.includes('partial') || name.includes('unfinished')))
  })

  await t.test('a backup that is not whole is refused and leaves DATA_DIR as it is', async (t) => {
    const damaged = join(folder, 'idle')
    const target = join(folder, 'six')
    const restore = () => restoreDataDir({ source: damaged, dataDir: target })
    const manifestFile = join(damaged, 'manifest.json')
    const manifest = JSON.parse(await readFile(manifestFile, 'utf8'))
    const change = (changes: object) => writeFile(manifestFile, JSON.stringify({ ...manifest, ...changes }))

    await change({ format: 2 })
    await refused(t, restore(), /made by Postern 1\.2\.3 in a format/)
    await change({ postgres_major: 17 })
    await refused(t, restore(), /a database of Postgres 17/)
    await change({ bytes: 'many' })
    await refused(t, restore(), /manifest\.json cannot be read/)
    await change({})
    await truncate(join(damaged, 'data-dir', 'postgres', 'data', 'global', 'pg_control'), 100)
    await refused(t, restore(), /is damaged/)
    t.strictSame(await readdir(target), [])
    await rm(manifestFile)
    await refused(t, restore(), /no complete backup/)
  })
})

t.test('root, and a DATA_DIR that others cannot enter', { skip: !isRoot && 'needs root' }, async (t) => {
  const folder = await aFolder(t, 0o700)
  const restored = join(folder, 'two')
  const folders = async () => {
    const pointers = [join(folder, 'one', 'postgres.location'), join(restored, 'postgres.location')]
    return (await Promise.all(pointers.map((file) => readFile(file, 'utf8')))).map((line) => line.trim())
  }
  t.teardown(async () => {
    for (const place of await folders()) await rm(place, { recursive: true })
  })
  const dataDir = await aDataDir(t, join(folder, 'one'), 1)
  const backup = join(folder, 'backup')
  await backupDataDir({ dataDir, target: backup, version: '1.2.3' })

  await restoreDataDir({ source: backup, dataDir: restored })

  const [original, copy] = await folders()
  t.not(original, copy)
  t.equal(await rowIn(restored), 1)
  t.equal(await rowIn(dataDir), 1)
  t.equal((await stat(join(copy ?? '', 'data'))).uid === 0, false)
})
