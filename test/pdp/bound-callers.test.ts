import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'

t.test('who may ask about one account sees none but its members among authorized users', async (t) => {
  const { root, person, account, home, roleId } = await buildTestApp(t)
  await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read'] } },
    roles: { Reader: { permissions: ['Post:read'] }, Auditor: { permissions: ['Post:read'], reach: 'any' } },
  })
  const admin = await person('ACCOUNT_ADMIN')
  const member = await person('Reader')
  const elsewhere = await account()
  const stranger = await person(undefined, { accountId: elsewhere })
  const role_id = await roleId('Auditor')
  for (const { id } of [member, stranger])
    await root.post(`/api/v1/users/${id}/roles`, { role_id, account_id: null })
  const query = { action: 'read', resource: { type: 'Post', tenant: home } }
  const usersOf = async (client: typeof root) => {
    const response = await client.post('/authorized_users', query)
    t.equal(response.statusCode, 200, response.body)
    return Object.keys(response.json<{ users: object }>().users).sort()
  }

  t.same(await usersOf(admin.client), [member.id])
  t.same(await usersOf(root), [member.id, stranger.id].sort(), 'who may ask about all sees everybody')
})
