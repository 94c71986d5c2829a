import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import t from 'tap'
import { SECRET_KEY } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import {
  freePort,
  refusedInOneSentence,
  runPostern,
  startService,
  stopService,
} from '../helpers/processes.ts'

t.test('PDP_PORT and OPA_PORT: the same service on further ports, which end with it', async (t) => {
  const { url } = await freshDatabase(t)
  const [pdp, opa] = [await freePort(), await freePort()]
  const service = await startService(t, {
    DATABASE_URL: url,
    SECRET_KEY,
    PDP_PORT: String(pdp),
    OPA_PORT: String(opa),
  })

  for (const port of [service.port, pdp, opa]) {
    const health = await fetch(`http://127.0.0.1:${port}/healthy`)
    t.match([health.status, await health.json()], [200, { status: 'ok' }])
    t.equal((await fetch(`http://127.0.0.1:${port}/allowed`, { method: 'POST' })).status, 401)
  }

  const neverUsed = connect(pdp, '127.0.0.1')
  t.teardown(() => neverUsed.destroy())
  await once(neverUsed, 'connect')
  t.match(await stopService(service), { code: 0, signal: null })
  await t.rejects(fetch(`http://127.0.0.1:${pdp}/healthy`))
})

t.test('a further port that is in use is named with its variable', async (t) => {
  const { url } = await freshDatabase(t)
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const { port } = taken.address() as { port: number }

  const ended = await runPostern(t, ['serve'], {
    env: { DATABASE_URL: url, SECRET_KEY, PORT: String(await freePort()), PDP_PORT: String(port) },
  })

  refusedInOneSentence(
    t,
    ended,
    new RegExp(`^Port ${port} on .* is in use: .* set PDP_PORT to another number`),
  )
})
