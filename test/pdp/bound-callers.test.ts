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

t.test('who may ask about one account does not hear why not by what is elsewhere', async (t) => {
  const { root, person, home, account, roleId, services } = await buildTestApp(t)
  const elsewhere = await account()
  const elsewhereKey = (await services.accounts.getAccount(elsewhere)).key
  await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read'], attributes: { open: 'bool' } } },
    roles: { Reader: { permissions: ['Post:read'] } },
    user_sets: { theirs: { conditions: { 'user.tenants': { array_contains: elsewhereKey } } } },
    resource_sets: { open: { resource: 'Post', conditions: { 'resource.open': { equals: true } } } },
    rules: [{ user_set: 'theirs', permissions: ['Post:read'], resource_set: 'open' }],
  })
  const admin = await person('ACCOUNT_ADMIN')
  const [one, two] = [await person(), await person()]
  const members = await root.post(`/api/v1/users/${two.id}/roles`, {
    role_id: await roleId('Reader'),
    account_id: elsewhere,
  })
  t.equal(members.statusCode, 201, members.body)
  const debugOf = async (client: typeof root, user: string) => {
    const body = {
      user: { key: user },
      action: 'read',
      resource: { type: 'Post', tenant: home },
      use_debugger: true,
    }
    const { debug } = (await client.post('/allowed', body)).json()
    return { rbac: debug.rbac, abac: debug.abac }
  }

  const known = await debugOf(root, two.id)
  t.match(known, { rbac: { code: 'no_role_in_tenant' }, abac: { matching_usersets: ['theirs'] } })
  const shown = await debugOf(admin.client, two.id)
  t.match(shown, { rbac: { code: 'no_user_roles' }, abac: { matching_usersets: [] } })
  t.same(
    JSON.parse(JSON.stringify(shown).replaceAll(two.id, one.id)),
    await debugOf(admin.client, one.id),
    'it is the same of somebody who is nowhere else',
  )
})
