import { PermitApiError } from 'permitio'
import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, sdk, storeExample } from '../helpers/permit.ts'

for (const proxyFactsViaPdp of [false, true]) {
  t.test(
    `the Node SDK keeps people, tenants and roles, ${proxyFactsViaPdp ? 'through the PDP' : 'directly'}`,
    async (t) => {
      const postern = await buildTestApp(t)
      await storeExample(postern)
      const { key } = await apiKey(postern)
      const { url } = await listenForSdk(t, postern)
      const permit = sdk(url, key, { proxyFactsViaPdp, factsSyncTimeout: 2 })
      const { api } = permit

      await t.test('tenants', async (t) => {
        const acme = await api.tenants.create({ key: 'acme', name: 'Acme', attributes: { tier: 'gold' } })
        t.match(acme, { key: 'acme', name: 'Acme', description: null, attributes: { tier: 'gold' } })
        t.equal((await api.tenants.create({ key: 'globex', name: 'Globex' })).attributes, null)
        t.match(await api.tenants.get(acme.id), acme)
        t.match(await api.tenants.update('acme', { description: 'Makers' }), {
          name: 'Acme',
          description: 'Makers',
        })
        t.same(
          (await api.tenants.list()).map((one) => one.key),
          ['default', 'acme', 'globex'],
        )
        t.equal(await refusalOf(api.tenants.create({ key: 'acme', name: 'Again' })), '409 DUPLICATE_ENTITY')
        t.equal(await refusalOf(api.tenants.get('nowhere')), '404 NOT_FOUND')
      })

      await t.test('users', async (t) => {
        const { user, created } = await api.users.sync({
          key: 'auth0|ada',
          email: 'ada@x.test',
          first_name: 'Ada',
          attributes: { age: 36 },
        })
        t.equal(created, true)
        t.match(user, {
          key: 'auth0|ada',
          email: 'ada@x.test',
          first_name: 'Ada',
          last_name: null,
          attributes: { age: 36 },
        })
        const again = await api.users.sync({ key: 'auth0|ada', last_name: 'King' })
        t.equal(again.created, false)
        t.match(again.user, { id: user.id, email: 'ada@x.test', first_name: 'Ada', last_name: 'King' })

        const bob = await api.users.create({
          key: 'bob',
          role_assignments: [{ role: 'reader', tenant: 'acme' }],
        })
        t.equal(bob.roles?.[0]?.role, 'reader')
        matchEach(t, bob.associated_tenants, [{ tenant: 'acme', roles: ['reader'], status: 'active' }])
        t.match(await api.users.update('bob', { attributes: { age: 3 } }), {
          key: 'bob',
          attributes: { age: 3 },
        })
        t.equal(await refusalOf(api.users.create({ key: 'bob' })), '409 DUPLICATE_ENTITY')
        t.equal(await refusalOf(api.users.get('nobody')), '404 NOT_FOUND')

        const found = await api.users.list({ search: 'auth0', page: 1, perPage: 10 })
        t.match(found, { data: [{ key: 'auth0|ada' }], total_count: 1, page_count: 1 })
        matchEach(t, (await api.users.list({ role: 'reader' })).data, [{ key: 'bob' }])
        matchEach(t, (await api.tenants.listTenantUsers({ tenantKey: 'acme' })).data, [{ key: 'bob' }])
      })

      await t.test('role assignments, at once in force', async (t) => {
        const role = { user: 'auth0|ada', role: 'reader', tenant: 'acme' }
        const document = { type: 'document', tenant: 'acme' }
        t.equal(await permit.check('auth0|ada', 'read', document), false)

        t.match(await api.users.assignRole(role), { ...role, resource_instance: null })
        t.equal(await permit.check('auth0|ada', 'read', document), true)
        t.equal(await refusalOf(api.users.assignRole(role)), '409 DUPLICATE_ENTITY')
        matchEach(t, await api.users.getAssignedRoles({ user: 'auth0|ada' }), [role])
        matchEach(t, await api.users.getAssignedRoles({ user: 'auth0|ada', detailed: true }), [
          {
            user: { key: 'auth0|ada' },
            role: { key: 'reader', permissions: ['document:read'] },
            tenant: { key: 'acme' },
          },
        ])
        t.match(await api.users.getAssignedRoles({ user: 'auth0|ada', includeTotalCount: true }), {
          data: [role],
          total_count: 1,
          page_count: 1,
        })

        await api.users.unassignRole(role)
        t.equal(await permit.check('auth0|ada', 'read', document), false)
        t.equal(await refusalOf(api.users.unassignRole(role)), '404 NOT_FOUND')
      })

      await t.test('roles on instances, which are made on the way', async (t) => {
        const editor = { user: 'auth0|ada', role: 'editor', resource_instance: 'document:d1' }
        t.equal(await refusalOf(api.roleAssignments.assign(editor)), '404 NOT_FOUND')

        t.match(await api.roleAssignments.assign({ ...editor, tenant: 'acme' }), {
          ...editor,
          tenant: 'acme',
        })
        t.equal(
          await permit.check('auth0|ada', 'edit', { type: 'document', key: 'd1', tenant: 'acme' }),
          true,
        )
        matchEach(t, await api.roleAssignments.list({ resourceInstance: 'document:d1' }), [editor])
        t.equal(
          await refusalOf(api.roleAssignments.assign({ ...editor, tenant: 'globex' })),
          '400 MISMATCH_RESOURCE_INSTANCES_TENANTS',
        )
        await api.roleAssignments.unassign(editor)
        t.same(await api.roleAssignments.list({ resourceInstance: 'document:d1' }), [])
      })

      await t.test('many at once', async (t) => {
        const many = ['auth0|ada', 'bob'].map((user) => ({ user, role: 'reader', tenant: 'globex' }))
        t.match(await api.roleAssignments.bulkAssign(many), { assignments_created: 2 })
        t.match(await api.roleAssignments.bulkAssign(many), { assignments_created: 0 })
        await t.rejects(
          api.roleAssignments.bulkAssign([...many, { user: 'nobody', role: 'reader', tenant: 'acme' }]),
        )
        t.equal((await api.roleAssignments.list({ tenant: 'globex' })).length, 2)
        t.match(await api.roleAssignments.bulkUnassign(many), { assignments_removed: 2 })
      })

      await t.test('ends', async (t) => {
        await api.tenants.deleteTenantUser('acme', 'bob')
        const { roles, associated_tenants } = await api.users.get('bob')
        t.same(roles, [])
        t.same(
          associated_tenants?.map((tenant) => [tenant.tenant, tenant.roles]),
          [
            ['acme', []],
            ['globex', []],
          ],
        )
        await api.users.delete('bob')
        t.equal(await refusalOf(api.users.get('bob')), '404 NOT_FOUND')
        await api.tenants.delete('acme')
        t.equal(await refusalOf(api.tenants.get('acme')), '404 NOT_FOUND')
        t.equal(await refusalOf(api.tenants.delete('default')), '403 FORBIDDEN_ACCESS')
      })
    },
  )
}

/** The status and code that a call is refused with. */
async function refusalOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'done'
  } catch (error) {
    if (!(error instanceof PermitApiError)) throw error
    return `${error.response?.status} ${error.response?.data.error_code}`
  }
}
