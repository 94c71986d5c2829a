import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, methodsOf, noting, refusalOf, sdk } from '../helpers/permit.ts'

t.test('the flat methods of the Node SDK do what those of its parts do', async (t) => {
  const postern = await buildTestApp(t)
  const { key } = await apiKey(postern)
  const { url } = await listenForSdk(t, postern)
  const permit = sdk(url, key)
  const called = new Set<string>()
  const api = noting(permit.api, 'api', called)
  const role = { user: 'ada', role: 'reader', tenant: 'acme' }
  const rule = { user_set: 'grown', permission: 'document:write', resource_set: 'drafts' }
  const draft = { type: 'document', tenant: 'acme', attributes: { state: 'draft' } }

  await t.test('resources and roles', async (t) => {
    const actions = { read: {}, write: {} }
    t.match(await api.createResource({ key: 'document', name: 'Document', actions }), { key: 'document' })
    t.match(await api.updateResource('document', { name: 'Paper' }), { key: 'document', name: 'Paper' })
    const reader = await api.createRole({ key: 'reader', name: 'Reader', permissions: ['document:read'] })
    t.match(await api.updateRole('reader', { description: 'Reads' }), { id: reader.id, description: 'Reads' })
    t.match(await api.getRole('reader'), { id: reader.id, permissions: ['document:read'] })
    matchEach(t, await api.listRoles(), [{ key: 'reader' }])
  })

  await t.test('users, tenants and what users hold', async (t) => {
    t.match(await api.createTenant({ key: 'acme', name: 'Acme' }), { key: 'acme' })
    t.match(await api.updateTenant('acme', { description: 'Makers' }), { description: 'Makers' })
    t.match(await api.getTenant('acme'), { name: 'Acme', description: 'Makers' })
    matchEach(t, await api.listTenants(), [{ key: 'default' }, { key: 'acme' }])
    t.match(await api.createUser({ key: 'ada' }), { key: 'ada' })
    t.match(await api.syncUser({ key: 'bob' }), { key: 'bob' })
    t.match(await api.updateUser('ada', { first_name: 'Ada', attributes: { age: 36 } }), {
      first_name: 'Ada',
    })
    t.match(await api.getUser('ada'), { key: 'ada', attributes: { age: 36 } })
    t.ok((await api.listUsers()).some((user) => user.key === 'bob'))

    t.match(await api.assignRole(role), role)
    matchEach(t, await api.getAssignedRoles('ada', 'acme'), [role])
    t.equal(await permit.check('ada', 'read', { type: 'document', tenant: 'acme' }), true)
    await api.unassignRole(role)
    t.equal(await permit.check('ada', 'read', { type: 'document', tenant: 'acme' }), false)
  })

  await t.test('condition sets and their rules', async (t) => {
    const conditions = { allOf: [{ 'user.age': { 'greater-than': 17 } }] }
    t.match(await api.createConditionSet({ key: 'grown', name: 'Grown', type: 'userset', conditions }), {
      key: 'grown',
      type: 'userset',
    })
    await api.createConditionSet({
      key: 'drafts',
      name: 'Drafts',
      type: 'resourceset',
      resource_id: 'document',
      conditions: { allOf: [{ 'resource.state': { equals: 'draft' } }] },
    })
    t.match(await api.updateConditionSet('grown', { name: 'Grown up' }), { key: 'grown', name: 'Grown up' })
    matchEach(t, await api.listConditionSets('userset', 1, 10), [{ key: 'grown' }])
    matchEach(t, await api.assignConditionSetRule(rule), [rule])
    matchEach(t, await api.listConditionSetsRules(1, 10), [rule])
    t.equal(await permit.check('ada', 'write', draft), true)
    await api.unassignConditionSetRule(rule)
    t.equal(await permit.check('ada', 'write', draft), false)
  })

  await t.test('and all of them end', async (t) => {
    const { status } = await api.deleteUser('bob')
    t.equal(status, 204, 'with the answer as it came')
    await api.deleteConditionSet('drafts')
    await api.deleteConditionSet('grown')
    await api.deleteTenant('acme')
    await api.deleteRole('reader')
    await api.deleteResource('document')
    t.equal(await refusalOf(api.users.get('bob')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.tenants.get('acme')), '404 NOT_FOUND')
    t.equal(await refusalOf(api.roles.get('reader')), '404 NOT_FOUND')
    t.same(await api.listConditionSets('userset', 1, 10), [])
  })

  await t.test('there is no further one', async (t) => {
    t.same(
      [...called].sort(),
      methodsOf(permit.api).map((name) => `api.${name}`),
    )
  })
})
