import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { EmbeddedError } from '../../../src/db/embedded/errors.ts'
import { findProcess } from '../../../src/db/embedded/process.ts'
import { type EmbeddedServer, findEmbedded, startEmbedded } from '../../../src/db/embedded/server.ts'
import { onServer } from '../../helpers/database.ts'
import { matchEach } from '../../helpers/matching.ts'

const isRoot = process.getuid?.() === 0
const NOBODY = 65534
const SERVER = new URL('../../../src/db/embedded/server.ts', import.meta.url).href
const TSX = import.meta.resolve('tsx')

type Started = Pick<EmbeddedServer, 'url' | 'pid' | 'port' | 'directory' | 'adopted'>

/** A folder that is not there yet, for a DATA_DIR; its server is stopped and its files are removed afterwards. */
async function aDataDir(t: Test, parentMode = 0o755): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), 'postern data-dir '))
  await chmod(parent, parentMode)
  const dataDir = join(parent, "it's here")
  t.teardown(async () => {
    const server = await findEmbedded(dataDir)
    await server?.stop()
    // Only root's servers live elsewhere, and there is no other way to tell where.
    if (server && !server.directory.startsWith(dataDir)) await rm(server.directory, { recursive: true })
    await rm(parent, { recursive: true, force: true })
  })
  return dataDir
}

/** A node process of its own, running a module with `startEmbedded` and `dataDir` in scope. */
function spawnNode(dataDir: string, body: string, user: { uid?: number; gid?: number } = {}): ChildProcess {
  const module = `
    const { startEmbedded, findEmbedded } = await import(${JSON.stringify(SERVER)})
    const dataDir = ${JSON.stringify(dataDir)}
    const print = (value) => console.log(JSON.stringify(value))
    ${body}`
  const command = [process.execPath, '--import', TSX, '--input-type=module', '--eval', module]
  // Without what tap puts into the environment of child processes: some of them may not write its reports.
  const env = ['-i', `PATH=${process.env.PATH}`, 'TSX_DISABLE_CACHE=1']
  return spawn('env', [...env, ...command], { cwd: '/', stdio: ['ignore', 'pipe', 'inherit'], ...user })
}

async function firstLine(child: ChildProcess): Promise<Started> {
  if (!child.stdout) throw new Error('the output of the process is not piped')
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line) as Started
  throw new Error('the process printed nothing')
}

async function untilGone(pid: number): Promise<void> {
  while (await findProcess(pid)) await sleep(10)
}

const insert = (url: string, n: number) =>
  onServer(url, (client) => client.query('insert into rows values ($1)', [n]))
const rowsOf = async (url: string) => {
  const { rows } = await onServer(url, (client) =>
    client.query<{ n: number }>('select n from rows order by n'),
  )
  return rows.map(({ n }) => n)
}
const modeOf = async (path: string) => (await stat(path)).mode & 0o777

t.test('the life of one database', async (t) => {
  const dataDir = await aDataDir(t)
  const start = () => startEmbedded({ dataDir })

  await t.test('the first start says what takes long and makes a database', async (t) => {
    const told: string[] = []
    const server = await startEmbedded({ dataDir, onProgress: (message) => told.push(message) })

    await onServer(server.url, (client) => client.query('create table rows (n int primary key)'))
    await insert(server.url, 1)

    matchEach(t, told, [/Creating the database/])
    t.equal(server.adopted, false)
    t.equal(new URL(server.url).pathname, '/postern')
  })

  await t.test('nobody else can read its files, and the service is no superuser', async (t) => {
    const { url, directory } = await start()
    const { rows } = await onServer(url, (client) =>
      client.query(`select rolsuper, rolcreaterole, rolcreatedb, current_setting('fsync') as fsync,
        current_setting('data_checksums') as checksums from pg_roles where rolname = current_user`),
    )

    t.strictSame(rows, [
      { rolsuper: false, rolcreaterole: false, rolcreatedb: false, fsync: 'on', checksums: 'on' },
    ])
    t.equal(await modeOf(join(directory, 'password')), 0o600)
    t.equal(await modeOf(join(directory, 'data')), 0o700)
    t.equal((await modeOf(dataDir)) & 0o066, 0)
    t.equal((await modeOf(directory)) & 0o066, 0)
  })

  await t.test('a server that runs is adopted by the same and by a relative path', async (t) => {
    const first = await start()
    const second = await startEmbedded({ dataDir: relative(process.cwd(), dataDir) })
    const third = await findEmbedded(dataDir)

    t.match(second, { adopted: true, pid: first.pid, url: first.url })
    t.match(third, { adopted: true, pid: first.pid, url: first.url })
  })

  await t.test('rows are there after stop and start, at the same address', async (t) => {
    const before = await start()
    await before.stop()
    t.equal(await findProcess(before.pid), undefined)
    t.equal(await findEmbedded(dataDir), undefined)

    const after = await start()

    t.match(after, { adopted: false, url: before.url })
    t.strictSame(await rowsOf(after.url), [1])
  })

  await t.test('a committed row survives kill -9 of the server', async (t) => {
    const before = await start()
    await insert(before.url, 2)
    process.kill(before.pid, 'SIGKILL')
    await untilGone(before.pid)

    const after = await start()

    t.not(after.pid, before.pid)
    t.strictSame(await rowsOf(after.url), [1, 2])
    await after.stop()
  })

  await t.test('a server outlives kill -9 of its node process and is adopted', async (t) => {
    const child = spawnNode(dataDir, 'print(await startEmbedded({ dataDir })); setInterval(() => {}, 1e6)')
    const before = await firstLine(child)
    child.kill('SIGKILL')
    await once(child, 'close')

    const after = await start()

    t.match(after, { adopted: true, pid: before.pid, url: before.url })
    t.strictSame(await rowsOf(after.url), [1, 2])
    await after.stop()
  })

  await t.test('a committed row survives kill -9 of both', async (t) => {
    const child = spawnNode(dataDir, 'print(await startEmbedded({ dataDir })); setInterval(() => {}, 1e6)')
    const before = await firstLine(child)
    await insert(before.url, 3)
    child.kill('SIGKILL')
    process.kill(before.pid, 'SIGKILL')

    const after = await start()

    t.equal(after.adopted, false)
    t.strictSame(await rowsOf(after.url), [1, 2, 3])
    await after.stop()
  })

  await t.test('Ctrl-C in the terminal does not reach the server', async (t) => {
    const child = spawnNode(dataDir, 'print(await startEmbedded({ dataDir })); setInterval(() => {}, 1e6)')
    const before = await firstLine(child)
    child.kill('SIGINT')
    await once(child, 'close')
    const group = spawnSync('ps', ['-o', 'pgid=', '-p', String(before.pid)], { encoding: 'utf8' })

    t.equal(Number(group.stdout), before.pid, 'the server leads a process group of its own')
    t.match(await findEmbedded(dataDir), { pid: before.pid })
  })

  await t.test('stopIfUnused leaves the server to a process that uses it', async (t) => {
    const mine = await start()
    const child = spawnNode(dataDir, 'print(await startEmbedded({ dataDir })); setInterval(() => {}, 1e6)')
    await firstLine(child)
    t.equal(await mine.stopIfUnused(), false)
    t.ok(await findProcess(mine.pid))

    child.kill('SIGKILL')
    await once(child, 'close')

    const later = await start()
    while (!(await later.stopIfUnused())) await sleep(10)
    t.equal(await findProcess(mine.pid), undefined)
  })

  await t.test('a process counts as one user, however often it asks for the server', async (t) => {
    const handles = [await start(), await start(), await start()]
    const { rows } = await onServer(handles[0]?.url ?? '', (client) =>
      client.query(
        `select pid from pg_stat_activity where application_name = 'postern attached pid=${process.pid}'`,
      ),
    )

    t.equal(rows.length, 1)
    t.equal(await handles[1]?.stopIfUnused(), true)
  })

  await t.test('a process that detaches does not count as a user', async (t) => {
    const other = await start()
    await other.detach()

    t.equal(await (await start()).stopIfUnused(), true)
  })

  await t.test('DATA_DIR may be moved while the server runs', async (t) => {
    const before = await start()
    const moved = `${dataDir} moved`
    await rename(dataDir, moved)

    t.match(await startEmbedded({ dataDir: moved }), { adopted: true, pid: before.pid })

    await rename(moved, dataDir)
    await (await start()).stop()
  })

  await t.test('an empty postmaster.pid, as a power cut may leave it, does not matter', async (t) => {
    const { directory, stop } = await start()
    await stop()
    await writeFile(join(directory, 'data', 'postmaster.pid'), '')

    t.strictSame(await rowsOf((await start()).url), [1, 2, 3])
  })

  await t.test('a killed server’s process id may by now be a stranger’s', async (t) => {
    const before = await start()
    const file = join(before.directory, 'data', 'postmaster.pid')
    const { uid, gid } = await stat(file)
    const stranger = spawn('sleep', ['1000'], { stdio: 'ignore', ...(isRoot && { uid, gid }) })
    t.teardown(() => stranger.kill())
    process.kill(before.pid, 'SIGKILL')
    await untilGone(before.pid)
    await writeFile(file, (await readFile(file, 'utf8')).replace(/^\d+/, String(stranger.pid)))

    const after = await start()

    t.equal(after.adopted, false)
    t.strictSame(await rowsOf(after.url), [1, 2, 3])
  })

  await t.test('a stopped server may be stopped again', async (t) => {
    const server = await start()

    await server.stop()
    await server.stop()

    t.equal(await server.stopIfUnused(), true)
  })
})

t.test('two processes that start at once get the same server', async (t) => {
  const dataDir = await aDataDir(t)
  const body = 'print(await startEmbedded({ dataDir, ephemeral: true })); setInterval(() => {}, 1e6)'
  const children = [spawnNode(dataDir, body), spawnNode(dataDir, body)]
  t.teardown(() => children.map((child) => child.kill('SIGKILL')))

  const [one, other] = await Promise.all(children.map(firstLine))

  t.equal(one?.url, other?.url)
  t.equal(one?.pid, other?.pid)
  t.not(one?.adopted, other?.adopted)
})

t.test('refusals are one sentence that says what to do', async (t) => {
  const dataDir = await aDataDir(t)
  const server = await startEmbedded({ dataDir, ephemeral: true })
  await server.stop()
  const { directory } = server
  const refused = async (t: Test, message: RegExp, at = dataDir) => {
    const error = await startEmbedded({ dataDir: at }).then(
      () => undefined,
      (error: unknown) => error,
    )
    if (!t.ok(error instanceof EmbeddedError) || !(error instanceof EmbeddedError)) return
    t.match(error.message, message)
    t.match(error.message, /^[^\n]+\.$/)
  }

  await t.test('a database of another major version', async (t) => {
    const file = join(directory, 'data', 'PG_VERSION')
    await writeFile(file, '17\n')
    await refused(t, /made by Postgres 17, and this Postern brings Postgres 18/)
    await writeFile(file, '18\n')
  })

  await t.test('a password that is missing, or another database’s', async (t) => {
    const file = join(directory, 'password')
    await rename(file, `${file}.kept`)
    await refused(t, /password is missing/)
    await writeFile(file, 'wrong', { mode: 0o600 })
    await refused(t, /is not the one of the database/)
    await rename(`${file}.kept`, file)
  })

  await t.test('an unfinished restore', async (t) => {
    const file = join(dataDir, 'restore-unfinished')
    await writeFile(file, '')
    await refused(t, /run "postern restore" again/)
    await rm(file)
  })

  await t.test('a DATA_DIR that cannot be a folder', async (t) => {
    await refused(t, /did not start|cannot be read and written/, join(directory, 'password', 'below-a-file'))
  })

  await t.test(
    'a DATA_DIR that this user may not write',
    { skip: isRoot && 'root may write anywhere' },
    async (t) => {
      await refused(t, /cannot be read and written by user/, '/postern-test')
    },
  )

  await t.test('a damaged database', async (t) => {
    const file = join(directory, 'data', 'global', 'pg_control')
    await rename(file, `${file}.kept`)
    await refused(t, /did not start \(.*pg_control.*\): see .*server\.log/)
    await rename(`${file}.kept`, file)
  })

  await t.test('and none of them harmed the database', async (t) => {
    t.match(await startEmbedded({ dataDir, ephemeral: true }), { adopted: false })
  })
})

t.test('an ordinary user', { skip: !isRoot && 'all other tests run as one' }, async (t) => {
  const canRead = spawnSync('cat', [process.execPath, new URL(SERVER).pathname], {
    uid: NOBODY,
    gid: NOBODY,
    stdio: 'ignore',
  })
  if (canRead.status !== 0) {
    t.plan(0, 'the checkout or node is not readable for other users')
    return
  }
  const dataDir = await aDataDir(t, 0o777)
  const body = `
    const { stop, ...first } = await startEmbedded({ dataDir, ephemeral: true })
    await stop()
    const { stopIfUnused, ...second } = await startEmbedded({ dataDir, ephemeral: true })
    print({ ...second, adopted: first.adopted || second.adopted || !(await stopIfUnused()) })`
  const child = spawnNode(dataDir, body, { uid: NOBODY, gid: NOBODY })

  t.match(await firstLine(child), { adopted: false, directory: join(dataDir, 'postgres') })
  t.equal((await stat(join(dataDir, 'postgres', 'data'))).uid, NOBODY)
  t.equal(await modeOf(dataDir), 0o700)

  await t.test('and then root: the database keeps its owner', async (t) => {
    const server = await startEmbedded({ dataDir, ephemeral: true })

    t.equal((await stat(join(server.directory, 'data'))).uid, NOBODY)
    await server.stop()
  })
})

t.test('root, and a DATA_DIR that others cannot enter', { skip: !isRoot && 'needs root' }, async (t) => {
  const dataDir = await aDataDir(t, 0o700)
  const start = () => startEmbedded({ dataDir, ephemeral: true })
  const first = await start()
  const pointer = join(dataDir, 'postgres.location')

  t.match(first.directory, /^\/var\/lib\/postern\/[0-9a-f]{16}/)
  t.equal((await readFile(pointer, 'utf8')).trim(), first.directory)
  t.equal(await modeOf(pointer), 0o600)

  await t.test('the database is found again', async (t) => {
    await first.stop()

    t.match(await start(), { adopted: false, directory: first.directory })
  })

  await t.test('a copy of DATA_DIR does not get at the original’s database', async (t) => {
    const copy = `${dataDir} copied`
    await cp(dataDir, copy, { recursive: true })

    await t.rejects(startEmbedded({ dataDir: copy }), /is a copy of .*: copy it with "postern backup"/)
  })

  await t.test('a moved DATA_DIR keeps its database, and its old place begins anew', async (t) => {
    const moved = `${dataDir} moved`
    await rename(dataDir, moved)
    const there = await startEmbedded({ dataDir: moved, ephemeral: true })
    const here = await start()
    t.teardown(async () => {
      await there.stop()
      await rm(there.directory, { recursive: true })
    })

    t.match(there, { adopted: true, directory: first.directory })
    t.not(here.directory, first.directory)
  })

  await t.test('it says so when the folder is gone that DATA_DIR points to', async (t) => {
    const server = await start()
    await rename(server.directory, `${server.directory}.kept`)
    await t.rejects(start(), /which is gone: restore a backup/)
    await rename(`${server.directory}.kept`, server.directory)
  })
})
