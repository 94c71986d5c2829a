import t from 'tap'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'

type Role = { id: string; key: string; scopes: string[]; extends: string[]; effective_scopes: string[] }
type Resource = { id: string; actions: { id: string; key: string }[] }

const ROLES = '/api/v1/roles'

async function aRole({ root }: TestApp, name: string, fields: Record<string, unknown> = {}): Promise<Role> {
  const response = await root.post(ROLES, { name, ...fields })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<Role>()
}

const isAlive = async (client: Client) => (await client.get('/api/v1/users/me')).statusCode === 200

/** The scopes in a token that is issued now. */
async function scopesOf({ signIn }: TestApp, email: string): Promise<string[]> {
  const [, claims = ''] = (await signIn(email)).split('.')
  const { scope } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { scope: string }
  return scope === '' ? [] : scope.split(' ')
}

t.test('a role has the scopes of those that it extends', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  await aRole(postern, 'reader', { scopes: ['post:read'] })
  await aRole(postern, 'writer', { scopes: ['post:write'], extends: ['reader'] })
  const chief = await aRole(postern, 'chief', {
    scopes: ['post:delete', 'post:read'],
    extends: ['writer', 'reader'],
    attributes: { floor: 3 },
  })

  t.match(chief, { attributes: { floor: 3 } })
  t.same(chief.scopes, ['post:delete', 'post:read'], 'its own')
  t.same(chief.extends, ['reader', 'writer'])
  t.same(chief.effective_scopes, ['post:delete', 'post:read', 'post:write'])
  t.same((await root.get(`${ROLES}/${chief.id}`)).json(), chief)
  const holder = await person('chief')
  t.same(await scopesOf(postern, holder.email), ['post:delete', 'post:read', 'post:write'])
  const cleared = await root.patch(`${ROLES}/${chief.id}`, { attributes: null, extends: [] })
  t.match(cleared.json(), { attributes: null })
  t.same(cleared.json<Role>().effective_scopes, ['post:delete', 'post:read'])
})

t.test('tokens end when a permission is no longer inherited, and then only', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  const base = await aRole(postern, 'base', { scopes: ['a:read', 'a:write'] })
  const middle = await aRole(postern, 'middle', { scopes: ['b:read'], extends: ['base'] })
  const top = await aRole(postern, 'top', { extends: ['middle'] })
  const ofTop = async () => await person('top')
  const [bystander, change] = [
    await person('GUEST'),
    async (id: string, body: object) => await root.patch(`${ROLES}/${id}`, body),
  ]

  await t.test('a grandparent that loses a scope', async (t) => {
    const { client, email } = await ofTop()

    await change(base.id, { scopes: ['a:read', 'a:write', 'a:more'], description: 'x' })
    t.ok(await isAlive(client), 'gaining one ends nothing')
    await change(base.id, { scopes: ['a:read', 'a:more'] })

    t.notOk(await isAlive(client))
    t.same(await scopesOf(postern, email), ['a:more', 'a:read', 'b:read'])
  })

  await t.test('a scope that is inherited still', async (t) => {
    const { client } = await ofTop()

    await change(middle.id, { scopes: ['b:read', 'a:read'] })
    await change(middle.id, { scopes: ['b:read'] })

    t.ok(await isAlive(client), 'a:read comes from base all along')
  })

  await t.test('a parent that is left', async (t) => {
    const { client, email } = await ofTop()

    await change(middle.id, { extends: [] })

    t.notOk(await isAlive(client))
    t.same(await scopesOf(postern, email), ['b:read'])
  })

  await t.test('a parent that is deleted', async (t) => {
    const { client, email } = await ofTop()

    t.equal((await root.delete(`${ROLES}/${middle.id}`)).statusCode, 204)

    t.notOk(await isAlive(client))
    t.same(await scopesOf(postern, email), [])
    t.same((await root.get(`${ROLES}/${top.id}`)).json<Role>().extends, [])
  })

  t.ok(await isAlive(bystander.client))
})

t.test('deleting an action or a resource takes its scopes away from live tokens at once', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, services } = postern
  const resource = (
    await root.post('/api/v1/resources', { key: 'post', actions: ['read', 'write'] })
  ).json<Resource>()
  await aRole(postern, 'base', { scopes: ['post:read', 'post:write', 'page:read'] })
  await aRole(postern, 'heir', { extends: ['base'] })
  await aRole(postern, 'reader', { scopes: ['post:read'] })
  await aRole(postern, 'pager', { scopes: ['page:read'] })
  const people = async () => ({
    heir: await person('heir'),
    reader: await person('reader'),
    pager: await person('pager'),
  })
  const action = resource.actions.find(({ key }) => key === 'write')

  const before = await people()
  t.equal((await root.delete(`/api/v1/resources/${resource.id}/actions/${action?.id}`)).statusCode, 204)
  t.notOk(await isAlive(before.heir.client), 'it had the action by inheritance')
  t.ok(await isAlive(before.reader.client), 'it has another action of the resource')
  t.ok(await isAlive(before.pager.client))
  t.same(await scopesOf(postern, before.heir.email), ['page:read', 'post:read'])

  const between = await people()
  t.equal((await root.delete(`/api/v1/resources/${resource.id}`)).statusCode, 204)
  t.notOk(await isAlive(between.heir.client))
  t.notOk(await isAlive(between.reader.client))
  t.ok(await isAlive(between.pager.client))
  t.same(await scopesOf(postern, between.heir.email), ['page:read'])
  const { rows } = await services.database.pool.query(
    "select from role_permissions p join actions a on a.id = p.action_id join resources r on r.id = a.resource_id where r.key = 'post'",
  )
  t.equal(rows.length, 0)
})

t.test('a role extends only what it may', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const a = await aRole(postern, 'a')
  const b = await aRole(postern, 'b', { extends: ['a'] })
  const c = await aRole(postern, 'c', { extends: ['b'] })
  await root.post('/api/v1/resources', { key: 'doc', roles: [{ key: 'local' }] })

  for (const [role, parents] of [
    [a, ['a']],
    [a, ['b']],
    [a, ['c']],
    [b, ['a', 'c']],
  ] as const) {
    isProblem(
      t,
      await root.patch(`${ROLES}/${role.id}`, { extends: parents }),
      'role_cycle',
      `${role.key} ${parents}`,
    )
  }
  for (const [key, detail] of [
    ['SUPER_ADMIN', /built-in/],
    ['GUEST', /built-in/],
    ['nobody', /no role/],
    ['local', /no role/],
    [b.id, /no role/],
  ] as const) {
    for (const response of [
      await root.patch(`${ROLES}/${c.id}`, { extends: ['a', key] }),
      await root.post(ROLES, { name: 'd', extends: ['a', key] }),
    ]) {
      isProblem(t, response, 'validation_failed', key)
      t.same(pointersOf(response), ['/body/extends/1'])
      t.match(response.json<{ errors: { detail: string }[] }>().errors[0]?.detail, detail)
    }
  }
  isProblem(t, await root.post(ROLES, { name: 'self', extends: ['self'] }), 'validation_failed')
  isProblem(t, await root.patch(`${ROLES}/${c.id}`, { extends: ['a', 'a'] }), 'validation_failed')
  isProblem(t, await root.patch(`${ROLES}/${c.id}`, { extends: 'a' }), 'validation_failed')
  isProblem(
    t,
    await root.patch(`${ROLES}/${await postern.roleId('GUEST')}`, { extends: ['a'] }),
    'role_is_builtin',
  )
  t.same((await root.get(`${ROLES}/${c.id}`)).json(), c, 'what was refused changed nothing')
})

t.test('changes at the same time cannot make a cycle', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern

  for (let round = 0; round < 5; round++) {
    const ring = await Promise.all(
      [0, 1, 2].map(async (index) => await aRole(postern, `ring-${round}-${index}`)),
    )

    const responses = await Promise.all(
      ring.map(
        async (role, index) =>
          await root.patch(`${ROLES}/${role.id}`, { extends: [ring[(index + 1) % 3]?.key] }),
      ),
    )

    t.same(responses.map(({ statusCode }) => statusCode).sort(), [200, 200, 422], `round ${round}`)
    for (const refused of responses.filter(({ statusCode }) => statusCode === 422)) {
      isProblem(t, refused, 'role_cycle')
    }
  }
})
