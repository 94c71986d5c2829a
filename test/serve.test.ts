import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { findEmbedded } from '../src/db/embedded/server.ts'
import { SECRET_KEY } from './helpers/config.ts'
import { freshDatabase } from './helpers/database.ts'
import {
  aDataDir,
  eventually,
  freePort,
  isServerRunning,
  refusedInOneSentence,
  runCurl,
  runPostern,
  signIn,
  startService,
  stopService,
} from './helpers/processes.ts'

const modeOf = async (path: string) => (await stat(path)).mode & 0o777

t.test('the life of one DATA_DIR', async (t) => {
  const dataDir = await aDataDir(t)
  const env = { DATA_DIR: dataDir }
  let password = ''

  await t.test('the first start says all that one needs to sign in, and its command works', async (t) => {
    const service = await startService(t, env)
    const { stdout, stderr } = service.said()
    password = /Admin password {2}(\S+)/.exec(stdout)?.[1] ?? ''
    const answer = await runCurl(/curl [\s\S]*?'\n/.exec(stdout)?.[0] ?? '')

    t.match(stdout, /Creating the database/)
    t.match(stdout, new RegExp(`Address +${service.url}\n`))
    t.match(stdout, new RegExp(`Documentation +${service.url}/docs\n`))
    t.match(stdout, /Admin email +admin@example\.com\n/)
    t.ok(password.length >= 15)
    t.equal(stderr, '')
    t.equal(answer.status, 200)
    t.equal((await fetch(`${service.url}/docs`)).status, 200)
    t.equal(await modeOf(join(dataDir, 'secret-key')), 0o600)
    t.match(await stopService(service), { code: 0, signal: null })
    t.equal(await isServerRunning(dataDir), false)
  })

  await t.test('the second start keeps the data and prints no password', async (t) => {
    const service = await startService(t, env)

    t.notMatch(service.said().stdout, /Admin password|Creating/)
    t.equal((await signIn(service, 'admin@example.com', password)).status, 200)

    service.child.kill('SIGKILL')
    t.match(await service.ended, { signal: 'SIGKILL' })
    t.equal(await isServerRunning(dataDir), true)
  })

  await t.test('after kill -9 of node a start takes over the server that stayed', async (t) => {
    const server = await findEmbedded(dataDir)
    await server?.detach()
    const service = await startService(t, env)
    const adopted = await findEmbedded(dataDir)
    await adopted?.detach()

    t.equal(adopted?.pid, server?.pid)
    t.equal((await signIn(service, 'admin@example.com', password)).status, 200)

    await t.test(
      'kill -9 of Postgres: requests are answered, and work again without a restart',
      async (t) => {
        process.kill(adopted?.pid ?? 0, 'SIGKILL')
        const during = await fetch(`${service.url}/health/ready`)
        await eventually(async () => (await fetch(`${service.url}/health/ready`)).ok)

        t.ok([200, 503].includes(during.status))
        t.equal((await signIn(service, 'admin@example.com', password)).status, 200)
      },
    )
    await t.test('another serve on the same folder is refused', async (t) => {
      const ended = await runPostern(t, ['serve'], { env: { ...env, PORT: String(await freePort()) } })

      refusedInOneSentence(t, ended, new RegExp(`data folder .* in use by process ${service.child.pid}: `))
      t.equal((await fetch(`${service.url}/health/ready`)).status, 200)
    })

    t.match(await stopService(service), { code: 0, signal: null })
    t.equal(await isServerRunning(dataDir), false)
  })

  await t.test('kill -9 of both: the next start recovers', async (t) => {
    const service = await startService(t, env)
    const server = await findEmbedded(dataDir)
    await server?.detach()
    service.child.kill('SIGKILL')
    process.kill(server?.pid ?? 0, 'SIGKILL')
    await service.ended

    const next = await startService(t, env)

    t.equal((await signIn(next, 'admin@example.com', password)).status, 200)
    // As under npm, where one Ctrl-C comes from the terminal and once more from npm.
    next.child.kill('SIGINT')
    await sleep(50)
    next.child.kill('SIGINT')
    t.match(await next.ended, { code: 0, signal: null })
    t.equal(await isServerRunning(dataDir), false)
  })

  await t.test(
    'a port in use, a HOST of another machine: refused, and the database is stopped',
    async (t) => {
      const { url } = await freshDatabase(t)
      const other = await startService(t, { DATABASE_URL: url, SECRET_KEY })
      const port = String(other.port)

      const taken = await runPostern(t, ['serve'], { env: { ...env, PORT: port } })
      refusedInOneSentence(t, taken, new RegExp(`^Port ${port} .* is in use: .*set PORT`))
      t.equal(await isServerRunning(dataDir), false)

      const foreign = await runPostern(t, ['serve'], {
        env: { ...env, HOST: '192.0.2.1', PORT: String(await freePort()) },
      })
      refusedInOneSentence(t, foreign, /^HOST=192\.0\.2\.1 is no address of this machine: /)
      t.equal(await isServerRunning(dataDir), false)
    },
  )

  await t.test('a secret key of another database: refused, and the database is stopped', async (t) => {
    const ended = await runPostern(t, ['serve'], {
      env: { ...env, SECRET_KEY, PORT: String(await freePort()) },
    })

    refusedInOneSentence(t, ended, /^SECRET_KEY does not fit this database: /)
    t.equal(await isServerRunning(dataDir), false)
  })
})
