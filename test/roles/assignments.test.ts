import { decodeJwt } from 'jose'
import t from 'tap'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { isProblem, NO_SUCH_ID, pointersOf } from '../helpers/hostile.ts'

type Assignment = {
  id: string
  account_id: string | null
  resource_instance: string | null
  resource_instance_id: string | null
  expires_at: string | null
  role: { name: string }
}
type Resource = { id: string; roles: { id: string; key: string }[] }

const LATER = '2099-01-01T00:00:00.000Z'

const scopesOf = async (client: Client): Promise<string[]> =>
  (await client.get('/api/v1/users/me/permissions')).json<{ scopes: string[] }>().scopes

async function aTenantRole({ root }: TestApp, scopes: string[] = ['post:read']): Promise<string> {
  const response = await root.post('/api/v1/roles', { name: `role-${crypto.randomUUID()}`, scopes })
  return response.json<{ id: string }>().id
}

/** A resource `name` with a role `viewer`, and instances of it in the accounts given. */
async function aResource({ root, services }: TestApp, name: string, instances: Record<string, string>) {
  const body = { key: name, actions: ['read'], roles: [{ key: 'viewer', permissions: ['read'] }] }
  const { id, roles } = (await root.post('/api/v1/resources', body)).json<Resource>()
  const ids: Record<string, string> = {}
  for (const [key, accountId] of Object.entries(instances)) {
    const { rows } = await services.database.pool.query<{ id: string }>(
      `insert into resource_instances (id, environment_id, account_id, resource_id, key)
       select gen_random_uuid(), environment_id, $2, id, $3 from resources where id = $1 returning id`,
      [id, accountId, key],
    )
    ids[key] = rows[0]?.id ?? ''
  }
  return { id, viewer: roles[0]?.id ?? '', instances: ids }
}

/** Makes an assignment one that expired a second ago. */
const expire = async ({ services }: TestApp, assignmentId: string) =>
  await services.database.pool.query(
    "update role_assignments set expires_at = now() - interval '1 second' where id = $1",
    [assignmentId],
  )

t.test('a role is held on an instance', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, account, home } = postern
  const second = await account()
  const document = await aResource(postern, 'document', { readme: home, 'a:b/c': second })
  const folder = await aResource(postern, 'folder', { inbox: home })
  const user = await person('GUEST')
  const path = `/api/v1/users/${user.id}/roles`

  await t.test('named by key or id, in its account', async (t) => {
    const byName = await root.post(path, { role_id: document.viewer, resource_instance: 'document:readme' })
    const byId = await root.post(path, {
      role_id: document.viewer,
      resource_instance: document.instances['a:b/c'],
      account_id: second,
      expires_at: '2099-01-01T01:00:00+01:00',
    })

    t.equal(byName.statusCode, 201)
    t.match(byName.json(), {
      role: { name: 'viewer' },
      account_id: home,
      resource_instance: 'document:readme',
      resource_instance_id: document.instances['readme'],
      expires_at: null,
    })
    t.match(byId.json(), { account_id: second, resource_instance: 'document:a:b/c', expires_at: LATER })
    const held = (await root.get(path)).json<Assignment[]>()
    t.same(
      held.map(({ resource_instance }) => resource_instance).sort(),
      ['document:a:b/c', 'document:readme', null].sort(),
    )
    const members = (await root.get(`/api/v1/accounts/${second}/members`)).json<{ user_id: string }[]>()
    t.ok(
      members.some(({ user_id }) => user_id === user.id),
      'it makes a member',
    )
  })

  await t.test('is in no token, so that giving and taking it ends none', async (t) => {
    const other = await person('GUEST')
    const url = `/api/v1/users/${other.id}/roles`

    const given = await root.post(url, { role_id: document.viewer, resource_instance: 'document:readme' })
    t.same(await scopesOf(other.client), [])
    t.equal((await root.delete(`${url}/${given.json<Assignment>().id}`)).statusCode, 204)

    t.same(await scopesOf(other.client), [])
    t.equal((await root.get(url)).json<Assignment[]>().length, 1)
  })

  await t.test('once', async (t) => {
    isProblem(
      t,
      await root.post(path, { role_id: document.viewer, resource_instance: 'document:readme' }),
      'role_already_assigned',
    )
    const raced = await Promise.all(
      [1, 2, 3].map(
        async () => await root.post(path, { role_id: folder.viewer, resource_instance: 'folder:inbox' }),
      ),
    )
    t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  })

  await t.test('of its own resource, and where it lies', async (t) => {
    const tenantRole = await aTenantRole(postern)
    const give = async (body: object) => await root.post(path, body)

    for (const role_id of [folder.viewer, tenantRole, await postern.roleId('GUEST'), NO_SUCH_ID]) {
      isProblem(t, await give({ role_id, resource_instance: 'document:readme' }), 'role_not_found')
    }
    isProblem(t, await give({ role_id: document.viewer }), 'role_not_found', 'without an instance')
    for (const resource_instance of ['document:nothing', 'nothing:readme', NO_SUCH_ID]) {
      isProblem(t, await give({ role_id: document.viewer, resource_instance }), 'instance_not_found')
    }
    for (const account_id of [second, null]) {
      const response = await give({
        role_id: document.viewer,
        resource_instance: 'document:readme',
        account_id,
      })
      isProblem(t, response, 'validation_failed')
      t.same(pointersOf(response), ['/body/account_id'])
    }
    for (const resource_instance of ['document', ':x', 'a.b:c', '', null, 5, `d:${'x'.repeat(640)}`]) {
      const response = await give({ role_id: document.viewer, resource_instance })
      isProblem(t, response, 'validation_failed', String(resource_instance).slice(0, 20))
      t.ok(pointersOf(response).includes('/body/resource_instance'))
    }
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: user.id, role_id: document.viewer }),
      'role_already_assigned',
    )
    const unassigned = await person()
    isProblem(
      t,
      await root.post('/api/v1/user-roles', { user_id: unassigned.id, role_id: document.viewer }),
      'role_not_found',
      'it is never the primary one',
    )
  })

  await t.test('given by those who assign roles in its account', async (t) => {
    const admin = await person('ACCOUNT_ADMIN')
    const other = await person('GUEST')
    const url = `/api/v1/users/${other.id}/roles`

    const given = await admin.client.post(url, {
      role_id: document.viewer,
      resource_instance: 'document:readme',
    })
    const away = await admin.client.post(url, {
      role_id: document.viewer,
      resource_instance: 'document:a:b/c',
    })

    t.equal(given.statusCode, 201)
    isProblem(t, away, 'instance_not_found')
    t.equal((await admin.client.delete(`${url}/${given.json<Assignment>().id}`)).statusCode, 204)
  })

  await t.test('until the instance is gone; while it is held, the role stays', async (t) => {
    isProblem(
      t,
      await root.delete(`/api/v1/resources/${document.id}/roles/${document.viewer}`),
      'role_in_use',
    )
    await postern.services.database.pool.query('delete from resource_instances where id = $1', [
      document.instances['readme'],
    ])
    const held = (await root.get(path)).json<Assignment[]>()
    t.notOk(held.some(({ resource_instance }) => resource_instance === 'document:readme'))

    t.equal((await root.delete(`/api/v1/resources/${document.id}`)).statusCode, 204)
    const left = (await root.get(path)).json<Assignment[]>()
    t.same(left.map(({ resource_instance }) => resource_instance).sort(), ['folder:inbox', null].sort())
  })
})

t.test('a role is held until it expires', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, as, signIn } = postern
  const role_id = await aTenantRole(postern)
  const user = await person('GUEST')
  const path = `/api/v1/users/${user.id}/roles`

  await t.test('at a time to come', async (t) => {
    for (const expires_at of [
      '2020-01-01T00:00:00Z',
      new Date().toISOString(),
      'tomorrow',
      '',
      null,
      5,
      '2099-02-30T00:00:00Z',
    ]) {
      const response = await root.post(path, { role_id, expires_at })
      isProblem(t, response, 'validation_failed', String(expires_at))
      t.ok(pointersOf(response).includes('/body/expires_at'))
    }
    t.equal((await root.get(path)).json<Assignment[]>().length, 1)
  })

  await t.test('and then it is as if it were not', async (t) => {
    const given = await root.post(path, { role_id, expires_at: LATER })
    t.match(given.json(), { expires_at: LATER, resource_instance: null, is_primary: false })
    t.same(await scopesOf(as(await signIn(user.email))), ['post:read'])
    isProblem(t, await root.post(path, { role_id }), 'role_already_assigned')
    isProblem(t, await root.delete(`/api/v1/roles/${role_id}`), 'role_in_use')
    t.equal((await root.get(`/api/v1/users?role_id=${role_id}`)).json<unknown[]>().length, 1)

    await expire(postern, given.json<Assignment>().id)

    t.same(await scopesOf(as(await signIn(user.email))), [])
    t.equal((await root.get(`/api/v1/users?role_id=${role_id}`)).json<unknown[]>().length, 0)
    const shown = (await root.get(path)).json<Assignment[]>().find(({ expires_at }) => expires_at !== null)
    t.ok(Date.parse(shown?.expires_at ?? '') < Date.now(), 'it is still listed, with its end')
  })

  await t.test('so that it can be given again', async (t) => {
    const again = await root.post(path, { role_id, expires_at: LATER })

    t.equal(again.statusCode, 201)
    const held = (await root.get(path)).json<Assignment[]>()
    t.equal(held.filter(({ expires_at }) => expires_at !== null).length, 1, 'in place of the expired one')
    await expire(postern, again.json<Assignment>().id)
    t.equal((await root.delete(`/api/v1/roles/${role_id}`)).statusCode, 204, 'and no longer keeps its role')
  })

  await t.test('and an expired built-in role protects nobody', async (t) => {
    const admin = await person('ACCOUNT_ADMIN')
    const former = await person('GUEST')
    const url = `/api/v1/users/${former.id}`
    const given = await root.post(`${url}/roles`, {
      role_id: await postern.roleId('SUPER_ADMIN'),
      expires_at: LATER,
    })
    isProblem(t, await admin.client.patch(url, { full_name: 'x' }), 'grant_exceeds_own')

    await expire(postern, given.json<Assignment>().id)

    t.equal((await admin.client.patch(url, { full_name: 'x' })).statusCode, 200)
  })

  await t.test('a super admin for a time does not stand in for one for good', async (t) => {
    const substitute = await person('GUEST')
    const superAdmin = await postern.roleId('SUPER_ADMIN')
    await root.post(`/api/v1/users/${substitute.id}/roles`, { role_id: superAdmin, expires_at: LATER })

    isProblem(t, await root.delete(`/api/v1/user-roles/${postern.rootId}`), 'last_super_admin')
  })

  await t.test('a service is told the same', async (t) => {
    const { roles } = postern.services
    const expiresAt = new Date(Date.now() - 1000)

    await t.rejects(
      roles.assignFurther(SYSTEM, user.id, await aTenantRole(postern), undefined, { expiresAt }),
      { code: 'validation_failed' },
    )
  })

  await t.test('a token lives no longer than the first of its roles', async (t) => {
    const substitute = await person('GUEST')
    const expires_at = new Date(Date.now() + 120_000).toISOString()
    await root.post(`/api/v1/users/${substitute.id}/roles`, {
      role_id: await aTenantRole(postern),
      expires_at,
    })

    const response = await postern.anonymous.post('/api/v1/auth/login', {
      email: substitute.email,
      password: PASSWORD,
    })

    const { expires_in, access_token } = response.json<{ expires_in: number; access_token: string }>()
    t.ok(expires_in > 60 && expires_in <= 120, String(expires_in))
    const { exp, iat } = decodeJwt(access_token)
    t.equal(Number(exp) - Number(iat), expires_in)
  })
})
