import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { apiKey, listenForSdk, sdk, storeExample } from '../helpers/permit.ts'

t.test('the Node SDK asks what it can ask', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, {
    tenants: [{ key: 'acme', attributes: { tier: 'gold' } }],
    users: [
      { key: 'ada', roles: [{ role: 'reader', tenant: 'acme' }] },
      { key: 'bob', attributes: { age: 30 }, tenants: ['acme'] },
      { key: 'cyd', roles: [{ role: 'owner', instance: 'folder:f1' }] },
    ],
    instances: [
      { type: 'folder', key: 'f1', tenant: 'acme' },
      { type: 'document', key: 'd1', tenant: 'acme', subjects: { parent: ['folder:f1'] } },
    ],
  })
  const { key } = await apiKey(postern)
  const { url } = await listenForSdk(t, postern)
  const permit = sdk(url, key)
  const document = { type: 'document', tenant: 'acme' }

  await t.test('check: by role, by attributes, by relationship', async (t) => {
    t.equal(await permit.check('ada', 'read', document), true)
    t.equal(await permit.check('ada', 'edit', document), false)
    t.equal(await permit.check('ada', 'read', 'document'), false, 'the default tenant is another one')
    t.equal(await permit.check('bob', 'edit', document), true)
    t.equal(await permit.check({ key: 'stranger', attributes: { age: 18 } }, 'edit', document), true)
    t.equal(await permit.check({ key: 'stranger', attributes: { age: 17 } }, 'edit', document), false)
    t.equal(await permit.check('cyd', 'edit', { ...document, key: 'd1' }), true)
    t.equal(await permit.check('cyd', 'edit', { ...document, key: 'd2' }), false)
    t.equal(await permit.check('ada', 'fly', 'kite'), false)
  })

  await t.test('check with useOpa', async (t) => {
    t.equal(await permit.check('ada', 'read', document, {}, { useOpa: true }), true)
    t.equal(await permit.check('ada', 'edit', document, {}, { useOpa: true }), false)
  })

  await t.test('bulkCheck answers in the order of the questions', async (t) => {
    const answers = await permit.bulkCheck([
      { user: 'ada', action: 'edit', resource: document },
      { user: 'ada', action: 'read', resource: document },
      { user: 'cyd', action: 'edit', resource: { ...document, key: 'd1' } },
    ])

    t.same(answers, [false, true, true])
    t.same(await permit.bulkCheck([]), [])
  })

  await t.test('checkAllTenants, whose token is in the body', async (t) => {
    const tenants = await permit.checkAllTenants('ada', 'read', 'document')

    t.same(tenants, [{ key: 'acme', attributes: { tier: 'gold' } }])
    t.same(await permit.checkAllTenants('ada', 'edit', 'document'), [])
    await t.rejects(sdk(url, `${key.slice(0, -1)}_`).checkAllTenants('ada', 'read', 'document'))
  })

  await t.test('getUserPermissions', async (t) => {
    t.match(await permit.getUserPermissions('ada'), {
      '__tenant:acme': {
        tenant: { key: 'acme', attributes: { tier: 'gold' } },
        permissions: ['document:read'],
        roles: ['reader'],
      },
    })
    const own = await permit.getUserPermissions('cyd')
    t.same(Object.keys(own).sort(), ['document:d1', 'folder:f1'])
    t.match(own['document:d1'], { resource: { type: 'document', key: 'd1' }, permissions: ['document:edit'] })
    t.same(Object.keys(await permit.getUserPermissions('cyd', [], ['f1'])), ['folder:f1'])
    t.same(Object.keys(await permit.getUserPermissions('cyd', [], [], ['document'])), ['document:d1'])
    t.same(await permit.getUserPermissions('ada', ['default']), {})
    t.same(await permit.getUserPermissions('nobody'), {})
  })

  await t.test('a key that is wrong or revoked is refused', async (t) => {
    const revoked = await apiKey(postern)
    t.equal(await sdk(url, revoked.key).check('ada', 'read', document), true)
    const response = await postern.root.delete(`/api/v1/api-keys/${revoked.id}`)
    t.equal(response.statusCode, 204)

    await t.rejects(sdk(url, revoked.key).check('ada', 'read', document))
    await t.rejects(sdk(url, 'permit_key_wrong').check('ada', 'read', document))
  })
})
