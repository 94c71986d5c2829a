import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { buildTestApp } from '../helpers/app.ts'
import { pythonClient } from '../helpers/permit.ts'
import { storeFacts, storePolicy } from '../policy/loading.ts'

t.test('lists that ask rules too', async (t) => {
  const postern = await buildTestApp(t)
  const python = await pythonClient(postern)
  const { services } = postern
  await storePolicy(services, DEFAULT_ENVIRONMENT, {
    resources: [
      { key: 'document', actions: ['read', 'edit'], roles: [], relations: [] },
      { key: 'page', actions: ['read'], roles: [], relations: [] },
    ],
    roles: [{ key: 'reader', permissions: ['document:read'], extends: [] }],
    userSets: [
      { key: 'adults', conditions: { 'user.age': { 'greater-than': 17 } }, parent: null },
      { key: 'staff', conditions: { 'user.email': { contains: '@acme' } }, parent: null },
    ],
    resourceSets: [
      {
        key: 'drafts',
        resource: 'document',
        conditions: { 'resource.status': { equals: 'draft' } },
        parent: null,
      },
    ],
    rules: [
      { users: { set: 'adults' }, resources: { set: 'drafts' }, permission: 'document:edit' },
      { users: { set: 'staff' }, resources: { resource: 'document' }, permission: 'document:edit' },
      { users: { role: 'reader' }, resources: { set: 'drafts' }, permission: 'document:edit' },
      { users: { set: 'staff' }, resources: { resource: 'page' }, permission: 'page:read' },
    ],
  })
  await storeFacts(services, DEFAULT_ENVIRONMENT, {
    tenants: [{ key: 'acme' }, { key: 'closed', isActive: false }],
    users: [
      { key: 'ann', attributes: { age: 30 }, email: 'ann@acme.test' },
      { key: 'ben', attributes: { age: 12 } },
      { key: 'eve', attributes: { age: 40 }, isActive: false },
      { key: 'ria', tenants: ['acme'], roles: [{ role: 'reader', tenant: 'acme' }] },
    ],
    instances: [
      { type: 'document', key: 'd1', tenant: 'acme', attributes: { status: 'draft' } },
      { type: 'document', key: 'd2', tenant: 'acme', attributes: { status: 'final' } },
    ],
  })

  const context = { enable_abac_authorized_users: true }
  const who = async (resource: object, action = 'edit', asked: object = context) =>
    (
      await python.post('/authorized_users', {
        action,
        resource: { type: 'document', tenant: 'acme', ...resource },
        context: asked,
      })
    ).json<{ users: Record<string, object[]> }>().users
  const row = (user: string, role: string, resource: string) => ({ user, tenant: 'acme', resource, role })

  await t.test(
    'who may by a rule is listed with the set or role of the rule, when the question says so',
    async (t) => {
      t.same(await who({ key: 'd1' }), {
        ann: [row('ann', 'adults', 'document:d1'), row('ann', 'staff', 'document:d1')],
        ria: [row('ria', 'reader', 'document:d1')],
      })
      t.same(await who({ key: 'd2' }), { ann: [row('ann', 'staff', 'document:d2')] })
      t.same(await who({}), { ann: [row('ann', 'staff', 'document:*')] })
      t.same(await who({ attributes: { status: 'draft' } }).then(Object.keys), ['ann', 'ria'])
      t.same(await who({}, 'read'), { ria: [row('ria', 'reader', '__tenant:acme')] })

      t.same(await who({ key: 'd1' }, 'edit', {}), {})
      t.same(await who({ key: 'd1' }, 'edit', { enable_abac_authorized_users: 'true' }), {})
      for (const tenant of ['closed', 'nowhere', undefined]) t.same(await who({ tenant, key: 'd1' }), {})
    },
  )

  await t.test('what somebody may by rules is listed for the types that the question names', async (t) => {
    const permissions = async (user: string, resource_types: string[], more: object = {}) =>
      (
        await python.post('/user-permissions', {
          user: { key: user },
          tenants: ['acme'],
          resource_types,
          context: { enable_abac_user_permissions: true },
          ...more,
        })
      ).json<Record<string, { permissions: string[]; roles: string[] }>>()
    const types = ['__tenant', 'document', 'page', 'page']
    t.same(await permissions('ann', types), {})
    await python.post('/v2/facts/default/default/role_assignments', {
      user: 'ann',
      role: 'reader',
      tenant: 'acme',
    })
    const ann = (await permissions('ann', types))['__tenant:acme']
    t.same(ann?.permissions, ['document:edit', 'document:read', 'page:read'])
    t.same(ann?.roles, ['reader'])
    t.same((await permissions('ann', ['__tenant', 'page']))['__tenant:acme']?.permissions, [
      'document:read',
      'page:read',
    ])
    t.same((await permissions('ann', types, { context: {} }))['__tenant:acme']?.permissions, [
      'document:read',
    ])
    t.same(await permissions('eve', types), {})
  })

  await t.test('a list that would have to ask too much is refused, not cut', async (t) => {
    const { pool } = services.database
    await pool.query(`insert into actions (id, environment_id, resource_id, key, name)
      select gen_random_uuid(), environment_id, resource_id, 'a' || n, 'a' || n
      from actions, generate_series(1, 900) n where key = 'read'
        and resource_id in (select id from resources where key in ('document', 'page'))`)
    await pool.query(
      `insert into accounts (id, environment_id, key, name, search_text)
       select gen_random_uuid(), $1, 'tenant' || n, 'tenant' || n, '' from generate_series(1, 300) n`,
      [DEFAULT_ENVIRONMENT],
    )
    // After a write of its own the process knows of the others.
    await python.post('/v2/facts/default/default/tenants', { key: 'last', name: 'Last' })
    const answer = await python.post('/user-permissions', {
      user: { key: 'nobody' },
      resource_types: ['__tenant', 'document', 'page'],
      context: { enable_abac_user_permissions: true },
    })
    t.match([answer.statusCode, answer.json().detail], [422, /too large/])
  })
})
