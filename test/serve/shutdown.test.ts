import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { freshDatabase, onServer } from '../helpers/database.ts'
import { eventually, type Service, signIn, startService, stopService } from '../helpers/processes.ts'

t.test('SIGTERM', async (t) => {
  const start = async (t: Test) => {
    const { url } = await freshDatabase(t)
    return { databaseUrl: url, service: await startService(t, { DATABASE_URL: url, SECRET_KEY }) }
  }
  const open = async (t: Test, { port }: Service): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    return socket
  }

  await t.test('a request under way is answered first', async (t) => {
    const { service, databaseUrl } = await start(t)
    await onServer(databaseUrl, async (client) => {
      await client.query('begin')
      await client.query('lock table users')
      const answer = signIn(service, SUPER_ADMIN_EMAIL, PASSWORD)
      await eventually(async () => {
        const { rowCount } = await client.query('select from pg_locks where not granted')
        return (rowCount ?? 0) > 0
      })

      service.child.kill('SIGTERM')
      await eventually(
        async () =>
          await fetch(service.url).then(
            () => false,
            () => true,
          ),
      )
      await client.query('rollback')

      t.equal((await answer).status, 200)
      t.match(await service.ended, { code: 0, signal: null })
    })
  })

  await t.test('idle and never used connections do not hold it', async (t) => {
    const { service } = await start(t)
    await open(t, service)
    const kept = await open(t, service)
    kept.write('GET /health HTTP/1.1\r\nHost: postern\r\n\r\n')
    await once(kept, 'data')

    t.match(await stopService(service), { code: 0, signal: null })
  })

  await t.test('a client that never ends its request is cut when the time is up', async (t) => {
    const { url } = await freshDatabase(t)
    const service = await startService(t, {
      DATABASE_URL: url,
      SECRET_KEY,
      SHUTDOWN_TIMEOUT_MS: '100',
    })
    const socket = await open(t, service)
    socket.on('error', () => {})
    socket.write(
      'POST /api/v1/auth/login HTTP/1.1\r\nHost: postern\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
    )
    await fetch(`${service.url}/health`)

    t.match(await stopService(service), { code: 0, signal: null })
  })
})

t.test('a reader of the log that goes away does not end the service', async (t) => {
  const { url } = await freshDatabase(t)
  const service = await startService(t, { DATABASE_URL: url, SECRET_KEY, LOG_LEVEL: 'info' })
  service.child.stdout?.destroy()

  for (let n = 0; n < 3; n++) await fetch(`${service.url}/api/v1/users`)

  t.equal((await fetch(`${service.url}/health`)).status, 200)
  t.match(await stopService(service), { code: 0, signal: null, stderr: '' })
})
