import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'

const GRANT = { role: 'owner', tenant: 'default', resource_instance: 'Post:new' }

t.test('a grant makes the instance it is on only for who may write the policy', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read'], roles: { owner: { permissions: ['read'] } } } },
    facts: { users: { ada: {} } },
  })
  const admin = await person('ADMIN')
  const instances = async () => (await root.get('/api/v1/resource-instances')).json<object[]>().length

  for (const [path, body] of [
    ['/facts/role_assignments', { user: 'ada', ...GRANT }],
    ['/facts/role_assignments/bulk', [{ user: 'ada', ...GRANT }]],
    ['/facts/users/ada/roles', GRANT],
    ['/facts/users', { key: 'bob', role_assignments: [GRANT] }],
  ] as const) {
    const response = await admin.client.post(path, body)

    t.equal(response.statusCode, 403, `${path} ${response.body}`)
    t.equal(await instances(), 0)
  }
  const { client } = await anApiKey(postern)
  t.equal((await client.post('/facts/role_assignments', { user: 'ada', ...GRANT })).statusCode, 200)
  t.equal(await instances(), 1)
  const granted = await admin.client.post('/facts/users', { key: 'bob', role_assignments: [GRANT] })
  t.equal(granted.statusCode, 200, `one that is there: ${granted.body}`)
})
