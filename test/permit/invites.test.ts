import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { pythonClient, storeExample } from '../helpers/permit.ts'

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/
const F = '/v2/facts/default/default'
const I = `${F}/user_invites`

t.test('invitations', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, {
    tenants: [{ key: 'acme' }, { key: 'initrode' }],
    instances: [{ type: 'document', key: 'q3', tenant: 'acme' }],
  })
  const python = await pythonClient(postern)
  const readOnly = await pythonClient(postern, 'read')
  const idOf = async (path: string) => (await python.get(path)).json<{ id: string }>().id
  const role_id = await idOf('/v2/schema/default/default/roles/reader')
  const tenant_id = await idOf(`${F}/tenants/acme`)
  const editor = await idOf('/v2/schema/default/default/resources/document/roles/editor')
  const q3 = await idOf(`${F}/resource_instances/document:q3`)

  let made = 0
  const newInvite = (more: object = {}) => ({
    key: `guest${++made}@x.test`,
    status: 'pending',
    email: `guest${made}@x.test`,
    first_name: 'Gil',
    last_name: 'Guest',
    role_id,
    tenant_id,
    resource_instance_id: null,
    ...more,
  })
  const invited = async (more?: object) => {
    const answer = await python.post(I, newInvite(more))
    t.equal(answer.statusCode, 200, answer.body)
    return answer.json<{ id: string; key: string; email: string }>()
  }
  const approve = async ({ id, email, key }: { id: string; email: string; key: string }, more: object = {}) =>
    await python.post(`${I}/${id}/approve`, { email, key, attributes: null, ...more })
  const may = async (user: string, action: string, tenant: string, key?: string) =>
    (
      await python.post('/allowed', {
        user: { key: user },
        action,
        resource: { type: 'document', tenant, key },
      })
    ).json<{ allow: boolean }>().allow

  await t.test('who is approved is a user with the role from the next check on', async (t) => {
    const invite = await invited()
    t.match(invite, {
      id: UUID,
      status: 'pending',
      first_name: 'Gil',
      role_id,
      tenant_id,
      environment_id: UUID,
    })
    t.equal(await may(invite.key, 'read', 'acme'), false)

    const answer = await approve(
      { ...invite, email: invite.email.toUpperCase() },
      { attributes: { team: 'a' } },
    )
    t.equal(answer.statusCode, 200, answer.body)
    const roles = [{ role: 'reader', tenant: 'acme' }]
    t.match(answer.json(), { id: UUID, key: invite.key, email: invite.email, first_name: 'Gil', roles })
    t.same(answer.json().attributes, { team: 'a' })
    t.equal(await may(invite.key, 'read', 'acme'), true)
    t.equal(await may(invite.key, 'read', 'initrode'), false)

    t.equal((await python.get(`${I}/${invite.key}`)).json().status, 'approved')
    const again = await approve(invite, { key: 'another' })
    t.equal(again.statusCode, 409)
    t.equal((await python.get(`${F}/users/another`)).statusCode, 404)
    t.equal((await python.delete(`${I}/${invite.id}`)).statusCode, 204)
    t.equal(await may(invite.key, 'read', 'acme'), true, 'the user stays')
  })

  await t.test('a role of a resource is given on the instance that the invitation names', async (t) => {
    const invite = await invited({ role_id: editor, resource_instance_id: q3.replaceAll('-', '') })
    t.match(invite, { role_id: editor, resource_instance_id: q3 })
    t.equal((await approve(invite)).statusCode, 200)
    t.equal(await may(invite.key, 'edit', 'acme', 'q3'), true)
    t.equal(await may(invite.key, 'edit', 'acme'), false)
    const tenantRole = await invited({ resource_instance_id: 'document:q3' })
    t.equal((await approve(tenantRole)).statusCode, 200, 'as the SDK’s own tests have it')
    t.equal(await may(tenantRole.key, 'read', 'acme'), true)
    t.equal(await may(tenantRole.key, 'edit', 'acme', 'q3'), false)
  })

  await t.test('of many approvals at the same time one wins, and there is one user', async (t) => {
    const invite = await invited()
    const answers = await Promise.all(
      ['a', 'b', 'c', 'd'].map((letter) => approve(invite, { key: `${letter}-${invite.key}` })),
    )
    t.same(answers.map(({ statusCode }) => statusCode).sort(), [200, 409, 409, 409])
    const found = (await python.get(`${F}/users?search=${encodeURIComponent(invite.email)}`)).json()
    t.equal(found.total_count, 1)
  })

  await t.test('what is wrong is refused, and nothing is changed', async (t) => {
    const before = (await python.get(I)).json().total_count
    const { key } = await invited()
    for (const [more, status] of [
      [{ key }, 409],
      [{ email: 'no email' }, 422],
      [{ status: 'approved' }, 422],
      [{ role_id: 'nothing' }, 404],
      [{ role_id: 'SUPER_ADMIN' }, 404],
      [{ role_id: await postern.roleId('SUPER_ADMIN') }, 404],
      [{ tenant_id: 'nothing' }, 404],
      [{ role_id: editor }, 422],
      [{ resource_instance_id: 'document:nothing' }, 404],
      [{ tenant_id: 'initrode', resource_instance_id: q3 }, 400],
      [{ role_id: undefined }, 422],
    ] as const)
      t.equal((await python.post(I, newInvite(more))).statusCode, status, JSON.stringify(more))
    t.equal((await readOnly.post(I, newInvite())).statusCode, 403)
    t.equal((await python.get(I)).json().total_count, before + 1)

    const invite = await invited()
    await python.post(`${F}/users`, { key: 'taken', email: 'taken@x.test' })
    for (const [more, status] of [
      [{ email: 'other@x.test' }, 422],
      [{ email: undefined }, 422],
      [{ key: 'taken' }, 409],
      [{ key: 'with space' }, 422],
    ] as const)
      t.equal((await approve(invite, more)).statusCode, status, JSON.stringify(more))
    const protectedOne = await invited({ email: SUPER_ADMIN_EMAIL })
    t.equal((await approve(protectedOne)).statusCode, 409, 'an email that somebody has')
    t.equal((await readOnly.post(`${I}/${invite.id}/approve`, invite)).statusCode, 403)
    t.equal((await python.get(`${I}/${invite.id}`)).json().status, 'pending')
    for (const path of [`${I}/nothing`, `${I}/${tenant_id}`]) {
      t.equal((await python.get(path)).statusCode, 404)
      t.equal((await python.delete(path)).statusCode, 404)
      t.equal((await python.post(`${path}/approve`, { email: 'a@x.test', key: 'a' })).statusCode, 404)
    }
  })

  await t.test('lists are counted, and found by role, tenant and email', async (t) => {
    const invite = await invited({ key: null, tenant_id: 'initrode', email: 'Odd.One@x.test' })
    t.equal(invite.key, 'Odd.One@x.test')
    for (const query of ['tenant=initrode', 'search=odd.one', 'tenant=initrode&role=reader']) {
      const found = (await python.get(`${I}?${query}`)).json()
      t.match(found, { total_count: 1, page_count: 1, data: [{ id: invite.id }] }, query)
    }
    t.equal((await python.get(`${I}?tenant=initrode&role=editor`)).json().total_count, 0)
    const pages = await Promise.all([1, 2].map((page) => python.get(`${I}?per_page=2&page=${page}`)))
    t.equal(new Set(pages.flatMap((one) => one.json().data.map(({ id }: { id: string }) => id))).size, 4)

    t.equal((await python.delete(`${F}/tenants/initrode`)).statusCode, 204)
    t.equal((await python.get(`${I}/${invite.id}`)).statusCode, 404, 'gone with its tenant')
  })

  await t.test('whoever was invited to a tenant that is gone may be invited again', async (t) => {
    for (const end of [
      async () => await python.delete(`${F}/tenants/hooli`),
      async () => await python.send('DELETE', `${F}/bulk/tenants`, { idents: ['hooli'] }),
      async () => await postern.root.delete(`/api/v1/accounts/${await idOf(`${F}/tenants/hooli`)}`),
    ]) {
      await python.post(`${F}/tenants`, { key: 'hooli', name: 'Hooli' })
      const { id } = await invited({ key: 'again', tenant_id: 'hooli' })
      t.ok((await end()).statusCode < 300)
      t.equal((await python.get(`${I}/${id}`)).statusCode, 404)
    }
    await invited({ key: 'again' })
  })
})
