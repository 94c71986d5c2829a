import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp, type Method } from '../helpers/app.ts'

type Question = { user: string; action: string; type: string; key?: string; tenant: string }
type Write = {
  what: string
  method: Method
  path: string
  body?: object
  asks: Question
  /** What the check right after it says; right before it says the opposite. */
  becomes: boolean
}

t.test('the check right after a write knows of it, whatever was written', async (t) => {
  const postern = await buildTestApp(t)
  const { client: organization } = await anApiKey(postern, { level: 'org' })
  await organization.post('/v2/projects', { key: 'next', name: 'Next' })
  const [F, S] = ['/v2/facts/next/dev', '/v2/schema/next/dev']
  const { secret } = (await organization.get('/v2/api-key/next/dev')).json<{ secret: string }>()
  const client = postern.as(secret)
  const rule = { user_set: 'of-gold', permission: 'document:read', resource_set: 'drafts' }
  for (const [path, body] of [
    [
      `${S}/resources`,
      { key: 'folder', name: 'F', actions: { read: {} }, roles: { owner: { permissions: ['read'] } } },
    ],
    [
      `${S}/resources`,
      {
        key: 'document',
        name: 'D',
        actions: { read: {}, edit: {} },
        relations: { parent: 'folder' },
        roles: { editor: { permissions: ['edit'] } },
      },
    ],
    [`${S}/roles`, { key: 'reader', name: 'R', permissions: ['document:read'] }],
    [`${S}/roles`, { key: 'chief', name: 'C' }],
    [`${S}/condition_sets`, { key: 'of-gold', name: 'G', conditions: { 'tenant.plan': { equals: 'gold' } } }],
    [
      `${S}/condition_sets`,
      {
        key: 'drafts',
        name: 'D',
        type: 'resourceset',
        resource_id: 'document',
        conditions: { 'resource.draft': { equals: true } },
      },
    ],
    [`${F}/set_rules`, rule],
    [`${F}/bulk/tenants`, { operations: ['acme', 'doomed'].map((key) => ({ key, name: key })) }],
    [`${F}/bulk/users`, { operations: ['ida', 'bob', 'kim'].map((key) => ({ key })) }],
    [`${F}/tenants/acme/users`, { key: 'ida' }],
    [
      `${F}/resource_instances`,
      { resource: 'document', key: 'd', tenant: 'acme', attributes: { draft: true } },
    ],
    [`${F}/role_assignments`, { user: 'bob', role: 'reader', tenant: 'doomed' }],
    [`${F}/role_assignments`, { user: 'kim', role: 'chief', tenant: 'acme' }],
    [`${F}/role_assignments`, { user: 'kim', role: 'owner', resource_instance: 'folder:f', tenant: 'acme' }],
    [`${F}/relationship_tuples`, { subject: 'folder:f', relation: 'parent', object: 'document:d' }],
  ] as const) {
    const { statusCode, body: said } = await client.post(path, body)
    t.equal(statusCode, 200, said)
  }
  const ida = { user: 'ida', action: 'read', type: 'document', key: 'd', tenant: 'acme' }
  const inDoomed = { user: 'bob', action: 'read', type: 'document', tenant: 'doomed' }
  const chief = { user: 'kim', action: 'read', type: 'document', tenant: 'acme' }
  const edits = { user: 'kim', action: 'edit', type: 'document', key: 'd', tenant: 'acme' }
  const drafts = (draft: boolean) => ({
    operations: [{ resource: 'document', key: 'd', tenant: 'acme', attributes: { draft } }],
  })
  const derivation = { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }
  const parent = { subject: 'folder:f', relation: 'parent', object: 'document:d' }
  const grant = { user: 'bob', role: 'reader', tenant: 'acme' }
  const bob = { user: 'bob', action: 'read', type: 'document', tenant: 'acme' }

  const writes: Write[] = [
    {
      what: 'attributes of a tenant',
      method: 'PATCH',
      path: `${F}/tenants/acme`,
      body: { attributes: { plan: 'gold' } },
      asks: ida,
      becomes: true,
    },
    {
      what: 'attributes of instances, in bulk',
      method: 'PUT',
      path: `${F}/bulk/resource_instances`,
      body: drafts(false),
      asks: ida,
      becomes: false,
    },
    {
      what: 'the same, back',
      method: 'PUT',
      path: `${F}/bulk/resource_instances`,
      body: drafts(true),
      asks: ida,
      becomes: true,
    },
    {
      what: 'attributes of one instance',
      method: 'PATCH',
      path: `${F}/resource_instances/document:d`,
      body: { attributes: { draft: false } },
      asks: ida,
      becomes: false,
    },
    {
      what: 'conditions of a set',
      method: 'PATCH',
      path: `${S}/condition_sets/drafts`,
      body: { conditions: { 'resource.draft': { equals: false } } },
      asks: ida,
      becomes: true,
    },
    {
      what: 'a rule that goes',
      method: 'DELETE',
      path: `${F}/set_rules`,
      body: rule,
      asks: ida,
      becomes: false,
    },
    {
      what: 'a rule that comes',
      method: 'POST',
      path: `${F}/set_rules`,
      body: rule,
      asks: ida,
      becomes: true,
    },
    {
      what: 'attributes of a tenant that go',
      method: 'PATCH',
      path: `${F}/tenants/acme`,
      body: { attributes: null },
      asks: ida,
      becomes: false,
    },
    {
      what: 'a role that extends another',
      method: 'PUT',
      path: `${S}/roles/chief/parents/reader`,
      asks: chief,
      becomes: true,
    },
    {
      what: 'and no longer',
      method: 'DELETE',
      path: `${S}/roles/chief/parents/reader`,
      asks: chief,
      becomes: false,
    },
    {
      what: 'roles, in bulk',
      method: 'PUT',
      path: `${S}/bulk/roles`,
      body: { operations: [{ key: 'chief', name: 'C', permissions: ['document:read'] }] },
      asks: chief,
      becomes: true,
    },
    {
      what: 'permissions that go',
      method: 'DELETE',
      path: `${S}/roles/chief/permissions`,
      body: { permissions: ['document:read'] },
      asks: chief,
      becomes: false,
    },
    {
      what: 'permissions that come',
      method: 'POST',
      path: `${S}/roles/chief/permissions`,
      body: { permissions: ['document:read'] },
      asks: chief,
      becomes: true,
    },
    {
      what: 'a derivation',
      method: 'POST',
      path: `${S}/resources/document/roles/editor/implicit_grants`,
      body: derivation,
      asks: edits,
      becomes: true,
    },
    {
      what: 'relationships that go, in bulk',
      method: 'DELETE',
      path: `${F}/relationship_tuples/bulk`,
      body: { idents: [parent] },
      asks: edits,
      becomes: false,
    },
    {
      what: 'relationships that come, in bulk',
      method: 'POST',
      path: `${F}/relationship_tuples/bulk`,
      body: { operations: [parent] },
      asks: edits,
      becomes: true,
    },
    {
      what: 'a derivation that goes',
      method: 'DELETE',
      path: `${S}/resources/document/roles/editor/implicit_grants`,
      body: derivation,
      asks: edits,
      becomes: false,
    },
    {
      what: 'a derivation by a whole role',
      method: 'PATCH',
      path: `${S}/resources/document/roles/editor`,
      body: { granted_to: { users_with_role: [derivation] } },
      asks: edits,
      becomes: true,
    },
    {
      what: 'an instance that goes with its role',
      method: 'DELETE',
      path: `${F}/bulk/resource_instances`,
      body: { idents: ['folder:f'] },
      asks: edits,
      becomes: false,
    },
    {
      what: 'roles of people, in bulk',
      method: 'POST',
      path: `${F}/role_assignments/bulk`,
      body: [grant],
      asks: bob,
      becomes: true,
    },
    {
      what: 'roles that go, in bulk',
      method: 'DELETE',
      path: `${F}/role_assignments/bulk`,
      body: [grant],
      asks: bob,
      becomes: false,
    },
    {
      what: 'people with roles, in bulk',
      method: 'PUT',
      path: `${F}/bulk/users`,
      body: { operations: [{ key: 'bob', role_assignments: [{ role: 'reader', tenant: 'acme' }] }] },
      asks: bob,
      becomes: true,
    },
    {
      what: 'whoever leaves a tenant',
      method: 'DELETE',
      path: `${F}/tenants/acme/users/bob`,
      asks: bob,
      becomes: false,
    },
    {
      what: 'tenants that go, in bulk',
      method: 'DELETE',
      path: `${F}/bulk/tenants`,
      body: { idents: ['doomed'] },
      asks: inDoomed,
      becomes: false,
    },
    {
      what: 'people that go, in bulk',
      method: 'DELETE',
      path: `${F}/bulk/users`,
      body: { idents: ['kim'] },
      asks: chief,
      becomes: false,
    },
  ]
  const ask = async ({ user, type, key, tenant, action }: Question, by = client) =>
    (await by.post('/allowed', { user: { key: user }, action, resource: { type, key, tenant } })).json().allow
  for (const { what, method, path, body, asks, becomes } of writes) {
    t.equal(await ask(asks), !becomes, `before: ${what}`)
    const { statusCode, body: said } = await client.send(method, path, body)
    t.ok(statusCode < 300, `${what}: ${said}`)
    t.equal(await ask(asks), becomes, what)
  }

  await t.test('a copy over an environment that is there', async (t) => {
    const prod = (await organization.get('/v2/api-key/next/prod')).json<{ secret: string }>().secret
    const there = postern.as(prod)
    await there.post('/v2/schema/next/prod/resources', { key: 'document', name: 'D', actions: { read: {} } })
    await there.post('/v2/schema/next/prod/roles', { key: 'reader', name: 'R', permissions: [] })
    const held = { key: 'pat', role_assignments: [{ role: 'reader', tenant: 'default' }] }
    t.equal((await there.post('/v2/facts/next/prod/users', held)).statusCode, 200)
    const question = { user: 'pat', action: 'read', type: 'document', tenant: 'default' }
    t.equal(await ask(question, there), false)
    const copied = await organization.post('/v2/projects/next/envs/dev/copy', {
      target_env: { existing: 'prod' },
      conflict_strategy: 'overwrite',
    })
    t.equal(copied.statusCode, 201, copied.body)
    t.equal(await ask(question, there), true)
  })
})
