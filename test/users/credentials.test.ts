import t from 'tap'
import { anApiKey } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { letSessionsAge } from '../helpers/factors.ts'
import { isProblem } from '../helpers/hostile.ts'
import { aClient, basic, sendForm } from '../helpers/oauth.ts'

const OTHER_PASSWORD = 'another long password of mine'
const ISSUER = 'http://postern.test'

const postern = await buildTestApp(t)
const { root, person, account, as, roleId, services } = postern

let made = 0
const anEmail = () => `credentials-${++made}@postern.test`
const isVerified = async (userId: string): Promise<boolean> => {
  const { rows } = await services.database.pool.query<{ verified: boolean }>(
    'select email_verified_at is not null as verified from user_credentials where user_id = $1',
    [userId],
  )
  return rows[0]?.verified ?? false
}

t.test('deactivation and reactivation heed If-Match', async (t) => {
  const { id } = await person()
  const accountId = await account()
  const paths = [`/api/v1/users/${id}`, `/api/v1/accounts/${accountId}`]

  for (const path of paths) {
    const { etag = '' } = (await root.get(path)).headers
    const stale = await root.post(`${path}/deactivate`, undefined, { 'if-match': '"999"' })
    const unchanged = await root.get(path)
    const current = await root.post(`${path}/deactivate`, undefined, { 'if-match': etag })
    const again = await root.post(`${path}/reactivate`, undefined, { 'if-match': etag })

    t.equal(stale.statusCode, 412, path)
    t.equal(unchanged.json<{ is_active: boolean }>().is_active, true, path)
    t.equal(current.statusCode, 200, path)
    t.equal(current.json<{ is_active: boolean }>().is_active, false, path)
    t.equal(again.statusCode, 412, path)
  }
})

t.test('ASVS 7.5.1: the administrator of an account shows who they are like everybody else', async (t) => {
  const taken = await person()
  const admin = await person('ACCOUNT_ADMIN', { accountId: await account() })
  const own = `/api/v1/users/${admin.id}`
  const before = (await root.get(own)).json<Record<string, unknown>>()

  for (const method of ['PUT', 'PATCH'] as const) {
    const change = async (path: string, body: object) => await admin.client.send(method, path, body)
    for (const path of [own, '/api/v1/users/me'])
      for (const email of [anEmail(), taken.email])
        isProblem(t, await change(path, { full_name: 'x', email }), 'email_change_not_allowed', email)
    for (const body of [{ password: OTHER_PASSWORD }, { key: 'another' }, { attributes: { vip: true } }])
      isProblem(t, await change(own, body), 'not_for_oneself', JSON.stringify(body))
  }
  isProblem(t, await admin.client.post(`${own}/unlock`), 'not_for_oneself')
  isProblem(t, await admin.client.delete(`${own}/mfa`), 'not_for_oneself')
  t.same((await root.get(own)).json(), before)
  t.ok(await postern.signIn(admin.email))

  const { email, key, attributes } = before
  const named = await admin.client.put(own, { full_name: 'New Name', email, key, attributes })

  t.match(named.json(), { full_name: 'New Name', email, key })
})

t.test(
  'administrators of every account change their own email and attributes, not the password',
  async (t) => {
    const admin = await person('ADMIN')
    const own = `/api/v1/users/${admin.id}`
    await services.database.pool.query(
      'update user_credentials set email_verified_at = now() where user_id = $1',
      [admin.id],
    )
    const [first, second] = [anEmail(), anEmail()]

    const password = await admin.client.patch(own, { password: OTHER_PASSWORD })
    const described = await admin.client.patch(own, { key: 'the-admin', attributes: { level: 3 } })
    const here = await admin.client.patch('/api/v1/users/me', { email: first })
    const verified = await isVerified(admin.id)
    const there = await admin.client.patch(own, { email: second })
    await letSessionsAge(postern, admin.id, 601)
    const late = [
      await admin.client.patch('/api/v1/users/me', { email: anEmail() }),
      await admin.client.patch(own, { email: anEmail() }),
    ]

    isProblem(t, password, 'not_for_oneself')
    t.match(described.json(), { key: 'the-admin', attributes: { level: 3 } })
    t.match(here.json(), { email: first })
    t.notOk(verified, 'nobody has shown to read it')
    t.match(there.json(), { email: second })
    for (const refused of late) isProblem(t, refused, 'reauthentication_required')
  },
)

t.test('ASVS 7.5.1: who has authenticated long ago does not change what lets others in', async (t) => {
  const admin = await person('SUPER_ADMIN')
  const victim = await person('GUEST')
  const mfa = { is_mfa_required: true }
  const accountId = (await root.post('/api/v1/accounts', { name: `Guarded ${++made}`, ...mfa })).json<{
    id: string
  }>().id
  const role = (await root.post('/api/v1/roles', { name: `guarded-${++made}`, ...mfa })).json<{
    id: string
  }>().id
  const user = `/api/v1/users/${victim.id}`
  const lift = { is_mfa_required: false }
  const guarded = [
    () => admin.client.patch(user, { password: OTHER_PASSWORD }),
    () => admin.client.put(user, { full_name: 'x', password: OTHER_PASSWORD }),
    () => admin.client.patch(user, { email: anEmail() }),
    () => admin.client.put(user, { full_name: 'x', email: anEmail() }),
    () => admin.client.post(`${user}/unlock`),
    () => admin.client.delete(`${user}/mfa`),
    () => admin.client.patch(`/api/v1/accounts/${accountId}`, lift),
    () => admin.client.put(`/api/v1/accounts/${accountId}`, lift),
    () => admin.client.patch(`/api/v1/roles/${role}`, lift),
    () => admin.client.put(`/api/v1/roles/${role}`, { description: 'x', ...lift }),
  ]
  await letSessionsAge(postern, admin.id, 601)

  for (const [index, call] of guarded.entries())
    isProblem(t, await call(), 'reauthentication_required', String(index))
  t.equal(
    (await admin.client.put(user, { full_name: 'x', email: victim.email })).statusCode,
    200,
    'as it was',
  )
  t.equal((await admin.client.patch(`/api/v1/accounts/${accountId}`, mfa)).statusCode, 200, 'no less')
  t.ok(await postern.signIn(victim.email))
  t.match((await root.get(`/api/v1/accounts/${accountId}`)).json(), mfa)
  t.match((await root.get(`/api/v1/roles/${role}`)).json(), mfa)

  const stepped = await admin.client.post('/api/v1/auth/step-up', { password: PASSWORD })

  t.equal(stepped.statusCode, 200)
  for (const [index, call] of guarded.entries())
    t.match((await call()).statusCode.toString(), /^20[04]$/, String(index))
})

t.test('ASVS 7.5.3: a token stolen from an administrator does not make itself last', async (t) => {
  const admin = await person('SUPER_ADMIN')
  const [accomplice, holder] = [await person(), await person('ACCOUNT_ADMIN', { accountId: await account() })]
  const [client, key, elsewhere] = [await aClient(postern), await anApiKey(postern), await account()]
  const webhook = { url: 'https://hooks.postern.test/', events: ['user.created'] }
  const { id: hook } = (await root.post('/api/v1/webhooks', webhook)).json<{ id: string }>()
  const [own, ofHolder] = [`/api/v1/users/${accomplice.id}`, `/api/v1/user-roles/${holder.id}`]
  const [administrator, guest] = [await roleId('ADMIN'), await roleId('GUEST')]
  const further = { role_id: await roleId('ACCOUNT_ADMIN'), account_id: elsewhere }
  const held = (await root.post(`/api/v1/users/${holder.id}/roles`, further)).json<{ id: string }>()
  const guarded = [
    () => admin.client.post('/api/v1/user-roles', { user_id: accomplice.id, role_id: administrator }),
    () => admin.client.post(`${own}/roles`, further),
    () => admin.client.delete(`/api/v1/users/${holder.id}/roles/${held.id}`),
    () => admin.client.put(ofHolder, { role_id: administrator }),
    () => admin.client.patch(ofHolder, { role_id: guest }),
    () => admin.client.post('/api/v1/clients', { name: 'stolen' }),
    () => admin.client.put(`/api/v1/clients/${client.client_id}`, { name: 'stolen' }),
    () => admin.client.patch(`/api/v1/clients/${client.client_id}`, { scopes: ['post:read'] }),
    () => admin.client.post(`/api/v1/clients/${client.client_id}/secrets`, {}),
    () => admin.client.post('/api/v1/api-keys', { name: 'stolen', access: 'full' }),
    () => admin.client.post(`/api/v1/api-keys/${key.id}/rotate`),
    () => admin.client.post('/v2/api-key', { object_type: 'org', access_level: 'admin', name: 'stolen' }),
    () => admin.client.post(`/v2/api-key/${key.id}/rotate-secret`),
    () => admin.client.get('/v2/api-key/default/default'),
    () => admin.client.post('/api/v1/webhooks', webhook),
    () => admin.client.patch(`/api/v1/webhooks/${hook}`, { url: 'https://elsewhere.postern.test/' }),
    () => admin.client.post(`/api/v1/webhooks/${hook}/rotate-secret`),
    () => admin.client.post('/api/v1/keys/rotate'),
  ]
  // Whose role moves along with them would administer the account that they come to.
  const mover = await person('ACCOUNT_ADMIN', { accountId: await account() })
  guarded.push(() => admin.client.post(`/api/v1/accounts/${elsewhere}/users`, { user_id: mover.id }))
  guarded.push(() => admin.client.delete(`/api/v1/user-roles/${mover.id}`))
  await letSessionsAge(postern, admin.id, 601)
  const rowsBefore = await changesBy(admin.id)

  for (const call of guarded) {
    const { statusCode, body } = await call()
    t.equal(statusCode, 401, `${call}: ${body}`)
    t.match(body, /problems\/reauthentication_required/, String(call))
  }
  t.equal(await changesBy(admin.id), rowsBefore, 'nothing has changed')
  const harmless = { user_id: (await person()).id, role_id: guest }
  t.equal((await admin.client.post('/api/v1/user-roles', harmless)).statusCode, 201, 'no permissions of ours')
  t.equal((await admin.client.delete(`/api/v1/api-keys/${key.id}`)).statusCode, 204, 'taking away is open')

  await admin.client.post('/api/v1/auth/step-up', { password: PASSWORD })

  for (const call of guarded) {
    const { statusCode, body } = await call()
    t.ok([200, 201, 204, 404, 409].includes(statusCode), `${call}: ${statusCode} ${body}`)
  }
})

/** Successful changes by somebody. */
async function changesBy(userId: string): Promise<number> {
  const { rows } = await services.database.pool.query(
    `select 1 from audit_events where actor_id = $1 and outcome = 'success'`,
    [userId],
  )
  return rows.length
}

t.test('machines are not asked to authenticate again', async (t) => {
  const key = await anApiKey(postern)
  const path = `/api/v1/accounts/${await account()}`

  t.equal((await key.client.patch(path, { is_mfa_required: true })).statusCode, 200)
  t.match((await key.client.patch(path, { is_mfa_required: false })).json(), { is_mfa_required: false })
})

t.test('a client that acts for an administrator takes nobody over, and sees nobody’s factors', async (t) => {
  const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
  const scopes = ['postern.users:write', 'postern.users:delete', 'postern.roles:assign']
  const gateway = await aClient(postern, { grant_types: [grant], scopes, audiences: [ISSUER] })
  const admin = await person('ADMIN')
  const victim = await person('GUEST')
  const exchanged = await sendForm(
    postern,
    '/oauth2/token',
    {
      grant_type: grant,
      subject_token: admin.token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    },
    basic(gateway),
  )
  const delegated = as(exchanged.json<{ access_token: string }>().access_token)
  const user = `/api/v1/users/${victim.id}`

  for (const call of [
    () => delegated.patch(user, { password: OTHER_PASSWORD }),
    () => delegated.patch(user, { email: anEmail() }),
    () => delegated.post(`${user}/deactivate`),
    () => delegated.post(`${user}/unlock`),
    () => delegated.delete(`${user}/mfa`),
    () => delegated.delete(user),
    () => delegated.post(`${user}/erase`),
  ])
    isProblem(t, await call(), 'user_is_protected')
  for (const change of [{ email: anEmail() }, { password: OTHER_PASSWORD }, { attributes: {} }]) {
    const own = await delegated.patch(`/api/v1/users/${admin.id}`, change)
    isProblem(t, own, 'grant_exceeds_own', 'nor the one for whom it acts')
  }
  const builtin = { role_id: await roleId('GUEST'), account_id: null }
  isProblem(t, await delegated.post(`${user}/roles`, builtin), 'grant_exceeds_own')
  for (const path of ['mfa', 'email-verification'])
    isProblem(t, await delegated.get(`/api/v1/auth/${path}`), 'insufficient_scope')
  t.equal((await delegated.patch(user, { full_name: 'Renamed' })).statusCode, 200, 'what a machine may')
  t.ok(await postern.signIn(victim.email))
})
