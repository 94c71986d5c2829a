import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { storeExample } from '../helpers/permit.ts'

t.test('the endpoints of the guides', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, {
    tenants: [{ key: 'acme' }],
    users: [{ key: 'u-1', email: 'ada@x.test', roles: [{ role: 'reader', tenant: 'acme' }] }],
  })
  const { client } = await anApiKey(postern)
  const reader = await anApiKey(postern, { access: 'read' })
  const names = { first_name: 'Grace', last_name: 'Hopper' }

  await t.test('POST /sync-user makes somebody known, and later only changes the names', async (t) => {
    const made = await client.post('/sync-user', { email: 'grace@x.test', ...names })
    t.equal(made.statusCode, 201)
    t.match(made.json(), { key: 'grace@x.test', email: 'grace@x.test', ...names, project_id: /-/ })
    t.same(made.json().roles, [])

    const again = await client.post('/sync-user', { email: 'GRACE@x.test', first_name: 'G', last_name: '' })
    t.match(
      [again.statusCode, again.json()],
      [201, { id: made.json().id, email: 'grace@x.test', first_name: 'G' }],
    )

    const root = await client.post('/sync-user', { email: SUPER_ADMIN_EMAIL, ...names })
    t.match([root.statusCode, root.json()], [201, { id: postern.rootId, email: SUPER_ADMIN_EMAIL, ...names }])
    t.equal((await postern.root.get('/api/v1/users/me')).statusCode, 200)
    t.equal((await client.post('/sync-user', { email: 'x', ...names })).statusCode, 422)
    t.equal((await reader.client.post('/sync-user', { email: 'grace@x.test', ...names })).statusCode, 403)
  })

  await t.test('POST /create-tenant', async (t) => {
    const made = await client.post('/create-tenant', { key: 'globex', name: 'Globex' })
    t.equal(made.statusCode, 201)
    t.match(made.json(), { key: 'globex', name: 'Globex', description: null, environment_id: /-/ })
    t.equal((await client.post('/create-tenant', { key: 'globex', name: 'Globex' })).statusCode, 409)
    t.equal((await client.post('/create-tenant', { key: 'g x', name: 'G' })).statusCode, 422)
    t.equal((await reader.client.post('/create-tenant', { key: 'x', name: 'X' })).statusCode, 403)
  })

  await t.test('POST /check-permission knows people by key, id and email', async (t) => {
    const { id } = (await postern.root.get('/api/v1/users?key=u-1')).json<{ id: string }[]>()[0] ?? { id: '' }
    const asked = { action: 'read', resource: 'document', tenant: 'acme' }
    for (const user of ['u-1', id, 'ada@x.test', 'ADA@x.test', { key: 'u-1' }]) {
      const permitted = await reader.client.post('/check-permission', { user, ...asked })
      t.match([permitted.statusCode, permitted.json()], [200, { message: 'User is permitted' }], String(user))
    }
    const refused = await client.post('/check-permission', { user: 'u-1', ...asked, action: 'edit' })
    t.match([refused.statusCode, refused.json()], [403, { message: 'User is not permitted' }])
    t.match(refused.headers['content-type'], /^application\/json/)
  })

  await t.test('POST /check-permission takes attributes, and objects for user and resource', async (t) => {
    const ask = async (body: object) => (await client.post('/check-permission', body)).statusCode
    const adult = { key: 'stranger', attributes: { age: 20 } }
    const resource = { type: 'document', key: 'd1', tenant: 'acme' }
    t.equal(await ask({ user: adult, action: 'edit', resource }), 200)
    t.equal(await ask({ user: adult, action: 'edit', resource: 'document:d1' }), 200)
    t.equal(
      await ask({ user: 'u-1', action: 'read', resource: 'document' }),
      403,
      'another tenant is the default',
    )
    t.equal(await ask({ user: 'stranger', action: 'edit', resource, attributes: { a: 1 }, context: {} }), 403)
    t.equal(await ask({ user: 'u-1', action: 'read' }), 422)
    t.equal(await ask({ user: 5, action: 'read', resource: 'document' }), 422)
  })

  await t.test('an account administrator asks about the own account', async (t) => {
    const acme = await postern.services.accounts.findByKeyOrId('acme')
    const admin = await postern.person('ACCOUNT_ADMIN', { accountId: acme?.id ?? '' })
    const ask = async (tenant?: string) =>
      await admin.client.post('/check-permission', {
        user: 'u-1',
        action: 'read',
        resource: 'document',
        ...(tenant && { tenant }),
      })
    t.equal((await ask()).statusCode, 200)
    t.equal((await ask('acme')).statusCode, 200)
    const other = await ask('default')
    t.match([other.statusCode, other.headers['content-type']], [403, /^application\/problem\+json/])
  })
})
