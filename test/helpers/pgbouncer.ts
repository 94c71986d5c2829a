import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { access, chmod, chown, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { chooseAccount } from '../../src/db/embedded/account.ts'
import { onServer } from './database.ts'
import { freePort } from './processes.ts'

/** Where Debian has it. */
const PROGRAM = '/usr/sbin/pgbouncer'

/** A PgBouncer in transaction mode. */
export type PgBouncer = {
  /** The database by way of it. */
  url: string
  /** Ends it at once, and every connection with it. */
  stop(): Promise<void>
  start(): Promise<void>
}

/** Says why a test cannot use PgBouncer; `false` when it can. */
export async function lacksPgbouncer(): Promise<string | false> {
  return await access(PROGRAM, constants.X_OK).then(
    () => false as const,
    () => `there is no PgBouncer at ${PROGRAM}: "apt-get install pgbouncer"`,
  )
}

/**
 * A PgBouncer in front of the server of `databaseUrl`, without prepared statements, as it was before 1.21 and as
 * Debian 12 has it. It may drop the time limits that Postern asks for, and refuses every other start-up parameter.
 */
export async function bouncerTo(
  t: Test,
  databaseUrl: string,
  { ignoresTimeLimits = true } = {},
): Promise<PgBouncer> {
  const target = new URL(databaseUrl)
  const port = await freePort()
  // As Postgres, it refuses to run as root.
  const account = await chooseAccount()
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'postern-pgbouncer-')))
  const [ini, users] = [join(folder, 'pgbouncer.ini'), join(folder, 'users.txt')]
  const password = decodeURIComponent(target.password)
  await writeFile(users, `"${target.username}" "${password}"\n`, { mode: 0o600 })
  await writeFile(
    ini,
    [
      '[databases]',
      `* = host=${target.hostname} port=${target.port}`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      'unix_socket_dir =',
      'auth_type = scram-sha-256',
      `auth_file = ${users}`,
      'pool_mode = transaction',
      'default_pool_size = 5',
      'server_login_retry = 1',
      ...(ignoresTimeLimits
        ? ['ignore_startup_parameters = statement_timeout,idle_in_transaction_session_timeout']
        : []),
    ].join('\n'),
    { mode: 0o600 },
  )
  if (account) {
    for (const path of [folder, ini, users]) await chown(path, account.uid, account.gid)
    await chmod(folder, 0o700)
  }

  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String(port)
  let child: ChildProcess | undefined
  let said = ''

  const bouncer: PgBouncer = {
    url: url.href,
    async start() {
      const started = spawn(PROGRAM, [ini], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'], ...account })
      child = started
      started.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text
      })
      for (;;) {
        try {
          await onServer(url.href, (client) => client.query('select 1'))
          return
        } catch (error) {
          if (started.exitCode !== null) throw new Error(`PgBouncer ended: ${said}`, { cause: error })
          await sleep(50)
        }
      }
    },
    async stop() {
      if (!child || child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
  t.teardown(async () => {
    await bouncer.stop()
    await rm(folder, { recursive: true, force: true })
  })
  await bouncer.start()
  return bouncer
}
