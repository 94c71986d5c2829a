import type { LightMyRequestResponse } from 'fastify'
import { decodeJwt } from 'jose'
import t from 'tap'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'

const WRONG = 'a wrong password of good length'

const login = async ({ anonymous }: TestApp, body: unknown) =>
  await anonymous.post('/api/v1/auth/login', body)

const scopeOf = (response: LightMyRequestResponse): string => response.json<{ scope: string }>().scope
const tokenOf = (response: LightMyRequestResponse): string =>
  response.json<{ access_token: string }>().access_token

/** A person with the role `writer` (post:read, post:write) in the first account. */
async function buildWriter(t: Parameters<typeof buildTestApp>[0]) {
  const app = await buildTestApp(t)
  await app.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
  return { app, writer: await app.person('writer') }
}

t.test('C.1.7: a password set by an administrator must be changed first, when configured', async (t) => {
  const app = await buildTestApp(t, { env: { PASSWORD_SET_BY_ADMIN_MUST_CHANGE: 'true' } })
  const admin = await app.person('SUPER_ADMIN')
  const next = 'a password of my very own'

  const { scope, roles } = decodeJwt(admin.token)
  t.same({ scope, roles }, { scope: '', roles: [] })
  t.equal((await admin.client.get('/api/v1/users/me')).statusCode, 200)
  for (const request of [
    admin.client.get('/api/v1/users'),
    admin.client.get('/api/v1/roles'),
    admin.client.get('/api/v1/users/me/permissions'),
    admin.client.get('/api/v1/accounts/me'),
    admin.client.patch('/api/v1/users/me', { full_name: 'X' }),
    admin.client.post('/api/v1/auth/test-token'),
  ]) {
    const response = await request
    t.equal(response.statusCode, 403)
    t.equal(response.json<{ type: string }>().type, '/problems/password_change_required')
  }

  const changed = await admin.client.post('/api/v1/auth/change-password', {
    current_password: PASSWORD,
    new_password: next,
  })

  t.equal(changed.statusCode, 204)
  const again = await login(app, { email: admin.email, password: next })
  t.match(scopeOf(again), /postern\.users:read:any/)
  t.equal((await app.as(tokenOf(again)).get('/api/v1/users')).statusCode, 200)
  t.equal((await admin.client.get('/api/v1/users')).statusCode, 403, 'the first token gains nothing')
})

t.test('C.1.9: by default a password set by an administrator may stay', async (t) => {
  const app = await buildTestApp(t)
  const guest = await app.person('GUEST')

  t.equal((await guest.client.get('/api/v1/roles')).statusCode, 200)
})

t.test('C.1.8: a password is changed by who knows the old one', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const next = 'another horse battery staple'
  const change = async (current_password: string, new_password: string) =>
    await person.client.post('/api/v1/auth/change-password', { current_password, new_password })

  const wrong = await change(WRONG, next)
  const short = await change(PASSWORD, 'too short')

  t.equal(wrong.statusCode, 400)
  t.match(wrong.json(), { type: '/problems/invalid_password' })
  t.equal(short.statusCode, 422)
  t.match(short.json(), { errors: [{ pointer: '/body/new_password' }] })
  t.equal((await login(app, { email: person.email, password: PASSWORD })).statusCode, 200)

  t.equal((await change(PASSWORD, next)).statusCode, 204)

  t.equal((await login(app, { email: person.email, password: PASSWORD })).statusCode, 401)
  t.equal((await login(app, { email: person.email, password: next })).statusCode, 200)
})

t.test('a password is changed even when the pool has one place', async (t) => {
  const app = await buildTestApp(t, { env: { HASH_CONCURRENCY: '1', HASH_QUEUE: '0' } })
  const person = await app.person('GUEST')

  const response = await person.client.post('/api/v1/auth/change-password', {
    current_password: PASSWORD,
    new_password: 'another horse battery staple',
  })

  t.equal(response.statusCode, 204)
})

t.test('a stolen token does not find out the password at the change endpoint', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const change = async (current_password: string) =>
    await person.client.post('/api/v1/auth/change-password', {
      current_password,
      new_password: 'another horse battery staple',
    })

  const statuses = []
  for (let n = 0; n < 6; n++) statuses.push((await change(WRONG)).statusCode)
  const right = await change(PASSWORD)

  t.same(statuses, [400, 400, 400, 400, 400, 429])
  t.equal(right.statusCode, 429)
  t.match(right.headers['retry-after'], /^\d+$/)
  t.equal((await login(app, { email: person.email, password: PASSWORD })).statusCode, 200)
})

t.test('C.1.8: a change of password ends every other session and keeps its own', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const others = [await app.signIn(person.email), await app.signIn(person.email)]

  await person.client.post('/api/v1/auth/change-password', {
    current_password: PASSWORD,
    new_password: 'another horse battery staple',
  })

  for (const token of others) t.equal((await app.as(token).get('/api/v1/users/me')).statusCode, 401)
  t.equal((await person.client.get('/api/v1/users/me')).statusCode, 200)
})

t.test('a password set by an administrator ends every session', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')

  await app.root.patch(`/api/v1/users/${person.id}`, { password: 'chosen by somebody else' })

  t.equal((await person.client.get('/api/v1/users/me')).statusCode, 401)
  t.equal((await login(app, { email: person.email, password: 'chosen by somebody else' })).statusCode, 200)
})

t.test('C.5 8.3.2: whatever takes something from a holder ends the token at once', async (t) => {
  const app = await buildTestApp(t)
  const pool = app.services.database.pool
  await app.root.post('/api/v1/roles', { name: 'writer', scopes: ['post:read', 'post:write'] })
  const acme = await app.account('Acme')
  type Person = Awaited<ReturnType<typeof app.person>>
  const losses: Record<string, (person: Person) => Promise<unknown>> = {
    'the user is deactivated': ({ id }) => app.root.post(`/api/v1/users/${id}/deactivate`),
    'the user is deleted': ({ id }) => app.root.delete(`/api/v1/users/${id}`),
    'the role is replaced': async ({ id }) =>
      await app.root.put(`/api/v1/user-roles/${id}`, { role_id: await app.roleId('GUEST') }),
    'the role is taken away': ({ id }) => app.root.delete(`/api/v1/user-roles/${id}`),
    'the user moves': ({ id }) => app.root.post(`/api/v1/accounts/${acme}/users`, { user_id: id }),
    'the session ends': ({ token }) =>
      pool.query('update sessions set ended_at = now() where id = $1', [decodeJwt(token)['sid']]),
    'the session is gone': ({ token }) =>
      pool.query('delete from sessions where id = $1', [decodeJwt(token)['sid']]),
  }

  for (const [what, lose] of Object.entries(losses)) {
    const person = await app.person('writer')
    t.equal((await person.client.get('/api/v1/users/me')).statusCode, 200, `before ${what}`)

    await lose(person)

    const after = await person.client.get('/api/v1/users/me')
    t.equal(after.statusCode, 401, what)
    t.match(after.headers['www-authenticate'], /error="invalid_token"/, what)
  }
})

t.test('C.5 8.3.2: a token ends when its role loses a scope', async (t) => {
  const { app, writer } = await buildWriter(t)

  await app.root.patch(`/api/v1/roles/${await app.roleId('writer')}`, { scopes: ['post:read'] })

  t.equal((await writer.client.get('/api/v1/users/me')).statusCode, 401)
  t.equal(scopeOf(await login(app, { email: writer.email, password: PASSWORD })), 'post:read')
})

t.test('a token for an account ends with the membership and with the account', async (t) => {
  const { app, writer } = await buildWriter(t)
  const acme = await app.account('Acme')
  const signIn = async () =>
    app.as(tokenOf(await login(app, { email: writer.email, password: PASSWORD, account: 'acme' })))
  await app.root.put(`/api/v1/accounts/${acme}/members/${writer.id}`)
  const first = await signIn()
  t.equal((await first.get('/api/v1/accounts/me')).statusCode, 200)

  await app.root.post(`/api/v1/accounts/${acme}/deactivate`)
  t.equal((await first.get('/api/v1/users/me')).statusCode, 401, 'the account is inactive')
  t.equal((await writer.client.get('/api/v1/users/me')).statusCode, 200, 'another account is not touched')

  await app.root.post(`/api/v1/accounts/${acme}/reactivate`)
  const second = await signIn()
  t.equal((await second.get('/api/v1/users/me')).statusCode, 200)

  await app.root.delete(`/api/v1/accounts/${acme}/members/${writer.id}`)
  t.equal((await second.get('/api/v1/users/me')).statusCode, 401, 'the membership is over')
})

t.test('a reactivated user signs in anew; old tokens stay dead', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  await app.root.post(`/api/v1/users/${person.id}/deactivate`)

  await app.root.post(`/api/v1/users/${person.id}/reactivate`)

  t.equal((await person.client.get('/api/v1/users/me')).statusCode, 401)
  t.equal((await login(app, { email: person.email, password: PASSWORD })).statusCode, 200)
})
