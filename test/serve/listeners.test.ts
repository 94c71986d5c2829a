import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer } from 'node:net'
import t, { type Test } from 'tap'
import { SECRET_KEY } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import { refusalOf, sdk } from '../helpers/permit.ts'
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

  await t.test('facts are written by way of PDP_PORT, by an SDK that waits for them', async (t) => {
    const created = await runPostern(t, ['api-keys', 'create', 'sdk', '--json'], {
      env: { DATABASE_URL: url, SECRET_KEY },
    })
    const { key } = JSON.parse(created.stdout) as { key: string }
    const permit = sdk(`http://127.0.0.1:${pdp}`, key, {
      apiUrl: await withoutFacts(t, service.url),
      log: { level: 'silent' },
      proxyFactsViaPdp: true,
      factsSyncTimeout: 10,
      factsSyncTimeoutPolicy: 'fail',
    })
    const { resources, tenants, users, roleAssignments, resourceInstances, relationshipTuples } = permit.api
    const document = { type: 'document', key: 'd', tenant: 'acme' }
    const theirs = { role: 'viewer', resource_instance: 'document:d', tenant: 'acme' }
    const held = { user: 'ida', ...theirs }
    await resources.create({
      key: 'document',
      name: 'Document',
      actions: { read: {} },
      roles: { viewer: { name: 'Viewer', permissions: ['read'] } },
    })
    await tenants.create({ key: 'acme', name: 'Acme' })
    await users.waitForSync(0).sync({ key: 'ida' })

    await roleAssignments.assign(held)
    t.equal(await permit.check('ida', 'read', document), true)
    await roleAssignments.waitForSync(null, 'ignore').unassign(held)
    t.equal(await permit.check('ida', 'read', document), false)

    await resources.create({
      key: 'page',
      name: 'Page',
      actions: { read: {} },
      relations: { of: 'document' },
      roles: {
        viewer: {
          name: 'Viewer',
          permissions: ['read'],
          granted_to: {
            users_with_role: [{ role: 'viewer', on_resource: 'document', linked_by_relation: 'of' }],
          },
        },
      },
    })
    const page = { type: 'page', key: 'p1', tenant: 'acme' }
    const pageOf = { subject: 'document:d', relation: 'of', object: 'page:p1', tenant: 'acme' }
    const [things, ties] = [
      resourceInstances.waitForSync(5, 'fail'),
      relationshipTuples.waitForSync(5, 'fail'),
    ]
    await things.create({ key: 'p1', resource: 'page', tenant: 'acme' })
    t.match(await things.update('page:p1', { attributes: { size: 1 } }), { attributes: { size: 1 } })
    await roleAssignments.waitForSync(5, 'fail').bulkAssign([held])
    t.equal(await permit.check('ida', 'read', page), false)
    await ties.create(pageOf)
    t.equal(await permit.check('ida', 'read', page), true)
    await ties.bulkUnRelationshipTuples([pageOf])
    t.equal(await permit.check('ida', 'read', page), false)
    await ties.bulkRelationshipTuples([pageOf])
    t.equal(await permit.check('ida', 'read', page), true)
    t.equal((await ties.list({ object: 'page:p1' })).length, 1)
    await roleAssignments.waitForSync(5, 'fail').bulkUnassign([held])
    t.equal(await permit.check('ida', 'read', page), false)
    await users.waitForSync(5, 'fail').bulkUserCreate([{ key: 'bob', role_assignments: [theirs] }])
    t.equal(await permit.check('bob', 'read', page), true)
    await users.waitForSync(5, 'fail').bulkUserDelete(['bob'])
    t.equal(await permit.check('bob', 'read', page), false)
    await things.delete('page:p1')
    t.equal(await refusalOf(things.get('page:p1')), '404 NOT_FOUND')

    t.equal(await refusalOf(users.waitForSync(Number.NaN).get('ida')), '400 INVALID_INPUT')
    const asPython = { authorization: `bearer ${key}`, 'x-wait-timeout': '10.0', 'x-timeout-policy': 'fail' }
    const answer = await fetch(`http://127.0.0.1:${pdp}/facts/users/ida`, { headers: asPython })
    t.match([answer.status, await answer.json()], [200, { key: 'ida' }])
  })

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

/** The service but for its facts, so that whoever writes them has been elsewhere. */
async function withoutFacts(t: Test, url: string): Promise<string> {
  const front = createHttpServer(async (request, response) => {
    const { method = '', headers } = request
    const body = (await request.toArray()).join('')
    if (request.url?.startsWith('/v2/facts')) return void response.writeHead(404).end('{}')
    const answer = await fetch(`${url}${request.url}`, {
      method,
      headers: { authorization: String(headers.authorization), 'content-type': 'application/json' },
      ...(body !== '' && { body }),
    })
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text())
  }).listen(0, '127.0.0.1')
  await once(front, 'listening')
  t.teardown(() => {
    front.close()
    front.closeAllConnections()
  })
  return `http://127.0.0.1:${(front.address() as AddressInfo).port}`
}
