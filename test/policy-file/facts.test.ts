import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { aClient, basic, sendForm } from '../helpers/oauth.ts'

const POLICY = {
  version: 1,
  resources: { Post: { actions: ['read', 'write'], roles: { owner: { permissions: ['write'] } } } },
  roles: { Reader: { permissions: ['Post:read'] } },
}

t.test('no fact is called by the id of another one, which keys would shadow', async (t) => {
  const { root, rootId, home } = await buildTestApp(t)

  const { id: ada } = (await root.post('/facts/users', { key: 'ada' })).json<{ id: string }>()
  for (const [part, facts] of [
    ['users', { users: { [ada]: { first_name: 'Shadow' } } }],
    ['users', { users: { [rootId.toUpperCase()]: {} } }],
    ['accounts', { accounts: { [home]: {} } }],
  ] as const) {
    const response = await root.post('/api/v1/policy', { ...POLICY, facts })

    isProblem(t, response, 'validation_failed', JSON.stringify(facts))
    t.same(pointersOf(response), [`/body/facts/${part}`])
  }
  t.equal((await root.get('/api/v1/users')).json<object[]>().length, 2)
  t.notOk((await root.get('/api/v1/policy')).json<{ resources?: object }>().resources, 'nothing was written')

  await t.test('but somebody whose key is their own id may be described', async (t) => {
    const { id, key } = (await root.get(`/api/v1/users/${rootId}`)).json<{ id: string; key: string }>()
    t.equal(key, id)
    const facts = { users: { [id]: { attributes: { level: 3 } } } }

    const response = await root.post('/api/v1/policy', { ...POLICY, facts })

    t.equal(response.statusCode, 200, response.body)
    t.match((await root.get(`/api/v1/users/${id}`)).json(), { attributes: { level: 3 } })
  })
})

t.test('the trail says to whom a file gave which role', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const facts = {
    accounts: { acme: {} },
    users: { ada: { roles: [{ role: 'Reader', account: 'acme' }] }, bob: {} },
    instances: [{ resource: 'Post', key: 'p1' }],
  }

  await root.post('/api/v1/policy', { ...POLICY, facts })

  const [applied] = (await root.get('/api/v1/audit-events?action=policy.applied')).json<
    { details: object }[]
  >()
  t.match(applied?.details, {
    facts: { accounts: 1, users: 2, roles: 1, instances: 1, relationships: 0 },
  })
  const { id: ada } = (await root.get('/api/v1/users?key=ada')).json<{ id: string }[]>()[0] ?? { id: '' }
  const assigned = (await root.get(`/api/v1/audit-events?action=role.assigned&target_id=${ada}`)).json<
    object[]
  >()
  matchEach(t, assigned, [{ details: { role: 'Reader' } }])

  await t.test(
    'who may write the policy, but not people and accounts, writes none of them with it',
    async (t) => {
      const client = await aClient(postern, { scopes: ['postern.policy:write', 'postern.users:write'] })
      const issued = await sendForm(
        postern,
        '/oauth2/token',
        { grant_type: 'client_credentials' },
        basic(client),
      )
      const machine = postern.as(issued.json<{ access_token: string }>().access_token)
      const statusWith = async (part: object) =>
        (await machine.post('/api/v1/policy', { ...POLICY, facts: part })).statusCode

      t.equal(await statusWith({ accounts: { mine: {} } }), 403)
      t.equal(await statusWith({ users: { eve: { roles: [{ role: 'Reader', account: 'acme' }] } } }), 403)
      t.equal(await statusWith({ users: { eve: {} }, instances: [{ resource: 'Post', key: 'p2' }] }), 200)
    },
  )

  await t.test('once: what is held already is not given again', async (t) => {
    await root.post('/api/v1/policy', { ...POLICY, facts })

    const again = (await root.get(`/api/v1/audit-events?action=role.assigned&target_id=${ada}`)).json<
      object[]
    >()
    t.same(again, assigned)
  })
})
