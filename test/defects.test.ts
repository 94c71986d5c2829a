import type { LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { buildApp } from '../src/app.ts'
import { BUILTIN_ROLES } from '../src/permissions.ts'
import { createServices } from '../src/services.ts'
import { setUp } from '../src/setup.ts'
import { buildTestApp, clientOf, type Method, type Person, type TestApp } from './helpers/app.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL, testConfig } from './helpers/config.ts'
import { emptyDatabase } from './helpers/database.ts'
import { matchEach } from './helpers/matching.ts'

const OTHER_PASSWORD = 'another long password of mine'
const UNKNOWN = '0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'

// The eleven defects of the FastAPI service, each as the attack that worked there.

t.test('defect 1: nobody gives themself or others a role beyond their own', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root, roleId } = postern
  const nobody = await person()
  const accountAdmin = await person('ACCOUNT_ADMIN')
  const admin = await person('ADMIN')

  for (const role of Object.keys(BUILTIN_ROLES)) {
    const grant = { user_id: nobody.id, role_id: await roleId(role) }
    await refused(
      t,
      postern,
      () => nobody.client.post('/api/v1/user-roles', grant),
      403,
      'insufficient_scope',
    )
  }
  for (const [role, attacker] of [
    ['ADMIN', accountAdmin],
    ['SUPER_ADMIN', accountAdmin],
    ['SUPER_ADMIN', admin],
  ] as const) {
    const grant = { role_id: await roleId(role) }
    const further = `/api/v1/users/${nobody.id}/roles`
    for (const call of [
      () => attacker.client.post('/api/v1/user-roles', { ...grant, user_id: nobody.id }),
      () => attacker.client.put(`/api/v1/user-roles/${attacker.id}`, grant),
      () => attacker.client.patch(`/api/v1/user-roles/${attacker.id}`, grant),
      () => attacker.client.post(further, grant),
      () => attacker.client.post(further, { ...grant, account_id: null }),
      () => attacker.client.post(further, { ...grant, account_id: attacker.accountId }),
    ]) {
      await refused(t, postern, call, 403, 'grant_exceeds_own')
    }
  }

  const allowed = await root.post('/api/v1/user-roles', {
    user_id: nobody.id,
    role_id: await roleId('GUEST'),
  })
  t.equal(allowed.statusCode, 201)
})

t.test('defect 2: nobody moves people into an account without the permission in every account', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account } = postern
  const [ours, theirs] = [await account(), await account()]
  const victim = await person('GUEST', { accountId: theirs })

  for (const role of [undefined, 'GUEST', 'ACCOUNT_MANAGER', 'ACCOUNT_ADMIN'] as const) {
    const attacker = await person(role, { accountId: ours })
    for (const [accountId, userId] of [
      [ours, victim.id],
      [theirs, attacker.id],
      [theirs, victim.id],
    ] as const) {
      const move = () => attacker.client.post(`/api/v1/accounts/${accountId}/users`, { user_id: userId })
      const join = () => attacker.client.put(`/api/v1/accounts/${accountId}/members/${userId}`)
      await refused(t, postern, move, 403, 'insufficient_scope')
      await refused(t, postern, join, 403, 'insufficient_scope')
    }
  }
})

t.test(
  'defect 3: account admins stay in their account, and nobody touches more powerful people',
  async (t) => {
    const postern = await buildTestApp(t)
    const { person, account, roleId, rootId } = postern
    const there = await account()
    const victim = await person('GUEST', { accountId: there })
    const accountAdmin = await person('ACCOUNT_ADMIN')
    const admin = await person('ADMIN')
    const guest = { role_id: await roleId('GUEST') }

    await refused(
      t,
      postern,
      () => accountAdmin.client.put(`/api/v1/user-roles/${victim.id}`, guest),
      404,
      'user_not_found',
    )
    for (const attacker of [accountAdmin, admin]) {
      for (const call of attacksOn(attacker, rootId, guest.role_id)) {
        await refused(t, postern, call, 403, 'grant_exceeds_own')
      }
    }
    for (const call of attacksOn(accountAdmin, admin.id, guest.role_id)) {
      await refused(t, postern, call, 403, 'grant_exceeds_own')
    }
  },
)

t.test('defect 3: the last super admin cannot be demoted, disabled, deleted or shut out', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, roleId, home, account } = postern
  const guest = { role_id: await roleId('GUEST') }
  const closed = await account()
  await root.post(`/api/v1/accounts/${closed}/deactivate`)
  const assignment = (await root.get(`/api/v1/users/${rootId}/roles`)).json<{ id: string }[]>()[0]?.id

  for (const call of [
    () => root.put(`/api/v1/user-roles/${rootId}`, guest),
    () => root.patch(`/api/v1/user-roles/${rootId}`, guest),
    () => root.delete(`/api/v1/user-roles/${rootId}`),
    () => root.delete(`/api/v1/users/${rootId}/roles/${assignment}`),
    () => root.post(`/api/v1/users/${rootId}/deactivate`),
    () => root.put(`/api/v1/users/${rootId}`, { is_active: false }),
    () => root.patch(`/api/v1/users/${rootId}`, { is_active: false }),
    () => root.delete(`/api/v1/users/${rootId}`),
    () => root.post(`/api/v1/accounts/${home}/deactivate`),
    () => root.put(`/api/v1/accounts/${home}`, { is_active: false }),
    () => root.patch(`/api/v1/accounts/${home}`, { is_active: false }),
    () => root.post(`/api/v1/accounts/${closed}/users`, { user_id: rootId }),
    () => root.patch(`/api/v1/users/${rootId}`, { account_id: closed }),
  ]) {
    await refused(t, postern, call, 409, 'last_super_admin')
  }
})

t.test(
  'defect 4: an email is not changed without proof, and an administrator’s new password takes effect',
  async (t) => {
    const postern = await buildTestApp(t)
    const { person, root, anonymous } = postern
    const user = await person('GUEST')

    for (const change of [{ email: 'mine@evil.test' }, { email: user.email.toUpperCase() }]) {
      await refused(
        t,
        postern,
        () => user.client.put('/api/v1/users/me', change),
        403,
        'email_change_not_allowed',
      )
      await refused(
        t,
        postern,
        () => user.client.patch('/api/v1/users/me', change),
        403,
        'email_change_not_allowed',
      )
    }
    const changed = await root.put(`/api/v1/users/${user.id}`, { password: OTHER_PASSWORD })

    const login = async (password: string) =>
      (await anonymous.post('/api/v1/auth/login', { email: user.email, password })).statusCode
    t.equal(changed.statusCode, 200)
    t.equal(await login(OTHER_PASSWORD), 200)
    t.equal(await login(PASSWORD), 401)
    t.equal(
      (await user.client.get('/api/v1/users/me')).statusCode,
      401,
      'sessions of the old password have ended',
    )
  },
)

t.test('defect 5: hashing is for administrators, and sign-in tells nothing of who exists', async (t) => {
  const postern = await buildTestApp(t, { env: { LOGIN_MAX_FAILURES: '3' } })
  const { person, anonymous } = postern
  const user = await person('GUEST')
  const hash = { password: PASSWORD }

  await refused(
    t,
    postern,
    () => anonymous.post('/api/v1/auth/hash-password', hash),
    401,
    'authentication_required',
  )
  await refused(
    t,
    postern,
    () => user.client.post('/api/v1/auth/hash-password', hash),
    403,
    'insufficient_scope',
  )
  const answersTo = async (email: string) => {
    const answers: unknown[] = []
    for (let attempt = 0; attempt < 5; attempt++) {
      const response = await anonymous.post('/api/v1/auth/login', { email, password: OTHER_PASSWORD })
      const { instance: _, ...problem } = response.json<Record<string, unknown>>()
      answers.push([response.statusCode, problem, Object.keys(response.headers).sort()])
    }
    return answers
  }
  const [known, unknown] = [await answersTo(user.email), await answersTo('nobody@postern.test')]

  t.same(known, unknown, 'known and unknown emails are answered alike, throttling included')
  matchEach(t, known, [[401], [401], [401], [429], [429]])
})

t.test(
  'defect 6: 401 is for bad tokens and 403 for missing permissions, each with its challenge',
  async (t) => {
    const { app, anonymous, person } = await buildTestApp(t)
    const guest = await person('GUEST')
    const withToken = clientOf((options) => app.inject(options), 'not.a.token')

    const [none, bad, lacking] = [
      await anonymous.get('/api/v1/users'),
      await withToken.get('/api/v1/users'),
      await guest.client.get('/api/v1/users'),
    ]

    t.equal(none.statusCode, 401)
    t.equal(none.headers['www-authenticate'], 'Bearer realm="postern"')
    t.equal(bad.statusCode, 401)
    t.match(bad.headers['www-authenticate'], /^Bearer realm="postern", error="invalid_token"/)
    t.equal(lacking.statusCode, 403)
    t.equal(
      lacking.headers['www-authenticate'],
      'Bearer realm="postern", error="insufficient_scope", scope="postern.users:read:any"',
    )
    t.match(lacking.json(), { type: '/problems/insufficient_scope', required: 'postern.users:read:any' })
  },
)

t.test(
  'defect 7: whoever is deactivated, deleted, demoted or given a new password is refused at once',
  async (t) => {
    const postern = await buildTestApp(t)
    const { person, root, anonymous, roleId } = postern

    for (const [what, end] of [
      ['deactivated', ({ id }) => root.post(`/api/v1/users/${id}/deactivate`)],
      ['deactivated by a change', ({ id }) => root.patch(`/api/v1/users/${id}`, { is_active: false })],
      ['deleted', ({ id }) => root.delete(`/api/v1/users/${id}`)],
      ['account deactivated', ({ accountId }) => root.post(`/api/v1/accounts/${accountId}/deactivate`)],
      ['demoted', async ({ id }) => root.put(`/api/v1/user-roles/${id}`, { role_id: await roleId('GUEST') })],
      ['given a password', ({ id }) => root.patch(`/api/v1/users/${id}`, { password: OTHER_PASSWORD })],
    ] satisfies [string, (person: Person) => Promise<LightMyRequestResponse>][]) {
      const user = await person('ADMIN', { accountId: await postern.account() })
      t.equal((await user.client.get('/api/v1/users')).statusCode, 200)

      const ended = await end(user)

      t.ok(ended.statusCode < 300, `${what}: ${ended.body}`)
      t.equal((await user.client.get('/api/v1/users')).statusCode, 401, what)
      const login = await anonymous.post('/api/v1/auth/login', { email: user.email, password: PASSWORD })
      t.equal(login.statusCode, what === 'demoted' ? 200 : 401, `${what}: signing in again`)
    }
  },
)

t.test('defect 8: lists have a ceiling and a stable order', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root } = postern
  for (let count = 0; count < 5; count++) await person()

  for (const path of ['/api/v1/users', '/api/v1/accounts', '/api/v1/roles', '/api/v1/audit-events']) {
    for (const limit of ['0', '-1', '1001', '999999999999', '1.5', 'all']) {
      const call = () => root.get(`${path}?limit=${limit}`)
      await refused(t, postern, call, 422, 'validation_failed')
    }
  }
  const ids = async (query: string) =>
    (await root.get(`/api/v1/users${query}`)).json<{ id: string }[]>().map(({ id }) => id)
  const all = await ids('')
  t.same(await ids('?limit=3'), all.slice(0, 3))
  t.same(await ids('?skip=3&limit=3'), all.slice(3))
  t.same(await ids('?sort=-created_at'), all.toReversed())
})

t.test('defect 9: an email in other letters is the same email', async (t) => {
  const postern = await buildTestApp(t)
  const { root, anonymous } = postern
  const create = (email: string) => root.post('/api/v1/users', { email, password: PASSWORD })
  t.equal((await create('a@x.test')).statusCode, 201)

  for (const email of ['A@x.test', 'a@X.TEST', 'A@X.test']) {
    await refused(t, postern, () => create(email), 409, 'email_taken')
    const register = () =>
      anonymous.post('/api/v1/users/open', { email, password: PASSWORD, full_name: 'Second' })
    await refused(t, postern, register, 409, 'email_taken')
  }
  const login = await anonymous.post('/api/v1/auth/login', { email: 'A@X.TEST', password: PASSWORD })
  t.equal(login.statusCode, 200)

  const raced = await Promise.all(['R@x.test', 'r@x.test', 'r@X.test', 'R@X.TEST'].map(create))
  t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409, 409], 'created at the same time')
})

t.test('defect 10: from an empty database the service starts and accounts can be created', async (t) => {
  const { url } = await emptyDatabase(t)
  const services = createServices(testConfig(), { databaseUrl: url, secretKey: SECRET_KEY })
  await setUp(services, url)
  const app = await buildApp(services, { logger: false })
  t.teardown(async () => {
    await app.close()
    await services.close()
  })
  const login = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: SUPER_ADMIN_EMAIL, password: PASSWORD },
  })
  const first = clientOf(
    (options) => app.inject(options),
    login.json<{ access_token: string }>().access_token,
  )
  const fields = {
    name: 'Acme',
    description: 'Makers of everything',
    is_active: true,
    plan_id: UNKNOWN,
    current_subscription_ends: '2030-01-01T00:00:00.000Z',
  }

  const created = await first.post('/api/v1/accounts', fields)

  t.equal(created.statusCode, 201)
  t.match(created.json(), fields)
})

t.test('defect 11: signed-in users create no accounts', async (t) => {
  const postern = await buildTestApp(t)

  for (const role of [undefined, 'GUEST', 'ACCOUNT_MANAGER', 'ACCOUNT_ADMIN'] as const) {
    const { client } = await postern.person(role)
    const create = () => client.post('/api/v1/accounts', { name: 'Mine' })
    await refused(t, postern, create, 403, 'insufficient_scope')
  }
})

// Attacks of our own.

t.test('of parallel steps that would take every super admin away, the last is refused', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root, rootId, roleId } = postern
  const guest = { role_id: await roleId('GUEST') }
  const steps = {
    'demoting themselves': ({ id, client }: Pick<Person, 'id' | 'client'>) =>
      client.put(`/api/v1/user-roles/${id}`, guest),
    'deactivating themselves': ({ id, client }: Pick<Person, 'id' | 'client'>) =>
      client.post(`/api/v1/users/${id}/deactivate`),
    'deleting themselves': ({ id, client }: Pick<Person, 'id' | 'client'>) =>
      client.delete(`/api/v1/users/${id}`),
  }
  const kinds = Object.values(steps)
  const rounds = [
    ...Object.entries(steps).map(([name, step]) => [name, [step, step]] as const),
    ['all at once', kinds] as const,
  ]

  for (const [name, [...round]] of rounds) {
    // The super admins of the round; root is none while it lasts.
    const supers = await Promise.all(round.map(async () => await person('SUPER_ADMIN')))
    await postern.services.database.pool.query('update users set is_active = false where id = $1', [rootId])

    const answers = await Promise.all(supers.map((one, index) => round[index]?.(one)))

    const statuses = answers.map((answer) => answer?.statusCode ?? 0)
    t.equal(statuses.filter((status) => status === 409).length, 1, `${name}: ${statuses}`)
    t.equal(statuses.filter((status) => status < 300).length, supers.length - 1, `${name}: ${statuses}`)
    await postern.services.database.pool.query('update users set is_active = true where id = $1', [rootId])
    for (const { id } of supers) await root.delete(`/api/v1/users/${id}`)
  }
})

t.test('two super admins who demote each other at the same time leave one', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, person, roleId, app, signIn } = postern
  const guest = { role_id: await roleId('GUEST') }
  const second = await person('SUPER_ADMIN')

  const [first, other] = await Promise.all([
    root.put(`/api/v1/user-roles/${second.id}`, guest),
    second.client.put(`/api/v1/user-roles/${rootId}`, guest),
  ])

  const statuses = [first.statusCode, other.statusCode]
  t.equal(statuses.filter((status) => status === 200).length, 1, `${statuses}`)
  const winner = clientOf(
    (options) => app.inject(options),
    await signIn(first.statusCode === 200 ? SUPER_ADMIN_EMAIL : second.email),
  )
  const role = await roleId('SUPER_ADMIN')
  t.equal((await winner.get(`/api/v1/users?role_id=${role}`)).json<unknown[]>().length, 1)
})

t.test('C.5 8.2.2: an account admin reaches nothing of another account, by any endpoint', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root, roleId } = postern
  const [ours, theirs] = [await account(), await account()]
  const attacker = await person('ACCOUNT_ADMIN', { accountId: ours })
  const mate = await person('GUEST', { accountId: ours })
  const victim = await person('ACCOUNT_ADMIN', { accountId: theirs })
  const unassigned = await person(undefined, { accountId: theirs })
  const guest = await roleId('GUEST')
  const held = (await root.get(`/api/v1/users/${victim.id}/roles`)).json<{ id: string }[]>()[0]?.id
  const guestOf = { role_id: guest }

  const attacks: [method: Method, path: string, body: unknown, status: number, code: string][] = [
    ['GET', `/users/${victim.id}`, undefined, 404, 'user_not_found'],
    ['PUT', `/users/${victim.id}`, { full_name: 'x' }, 404, 'user_not_found'],
    ['PATCH', `/users/${victim.id}`, { password: OTHER_PASSWORD }, 404, 'user_not_found'],
    ['PATCH', `/users/${victim.id}`, { account_id: ours }, 404, 'user_not_found'],
    ['DELETE', `/users/${victim.id}`, undefined, 403, 'insufficient_scope'],
    ['POST', `/users/${victim.id}/deactivate`, undefined, 404, 'user_not_found'],
    ['POST', `/users/${victim.id}/reactivate`, undefined, 404, 'user_not_found'],
    ['POST', '/user-roles', { ...guestOf, user_id: unassigned.id }, 404, 'user_not_found'],
    ['GET', `/user-roles/${victim.id}`, undefined, 404, 'user_not_found'],
    ['PUT', `/user-roles/${victim.id}`, guestOf, 404, 'user_not_found'],
    ['PATCH', `/user-roles/${victim.id}`, guestOf, 404, 'user_not_found'],
    ['DELETE', `/user-roles/${victim.id}`, undefined, 404, 'user_not_found'],
    ['GET', `/users/${victim.id}/roles`, undefined, 404, 'user_not_found'],
    ['POST', `/users/${victim.id}/roles`, guestOf, 404, 'user_not_found'],
    ['POST', `/users/${victim.id}/roles`, { ...guestOf, account_id: ours }, 404, 'user_not_found'],
    ['DELETE', `/users/${victim.id}/roles/${held}`, undefined, 404, 'user_not_found'],
    ['DELETE', `/users/${mate.id}/roles/${held}`, undefined, 404, 'assignment_not_found'],
    ['POST', `/users/${mate.id}/roles`, { ...guestOf, account_id: theirs }, 404, 'account_not_found'],
    ['POST', `/users/${mate.id}/roles`, { ...guestOf, account_id: null }, 403, 'grant_exceeds_own'],
    ['PATCH', `/users/${mate.id}`, { account_id: theirs }, 403, 'insufficient_scope'],
    ['GET', `/accounts/${theirs}`, undefined, 404, 'account_not_found'],
    ['PUT', `/accounts/${theirs}`, { name: 'x' }, 404, 'account_not_found'],
    ['PATCH', `/accounts/${theirs}`, { is_active: false }, 404, 'account_not_found'],
    ['DELETE', `/accounts/${theirs}`, undefined, 403, 'insufficient_scope'],
    ['POST', `/accounts/${theirs}/deactivate`, undefined, 404, 'account_not_found'],
    ['POST', `/accounts/${theirs}/reactivate`, undefined, 404, 'account_not_found'],
    ['GET', `/accounts/${theirs}/users`, undefined, 404, 'account_not_found'],
    ['POST', `/accounts/${theirs}/users`, { user_id: mate.id }, 403, 'insufficient_scope'],
    ['POST', `/accounts/${ours}/users`, { user_id: victim.id }, 403, 'insufficient_scope'],
    ['GET', `/accounts/${theirs}/members`, undefined, 404, 'account_not_found'],
    ['PUT', `/accounts/${theirs}/members/${attacker.id}`, undefined, 403, 'insufficient_scope'],
    ['PUT', `/accounts/${ours}/members/${victim.id}`, undefined, 403, 'insufficient_scope'],
    ['DELETE', `/accounts/${theirs}/members/${victim.id}`, undefined, 404, 'account_not_found'],
    ['DELETE', `/accounts/${ours}/members/${victim.id}`, undefined, 404, 'member_not_found'],
    ['GET', `/audit-events?account_id=${theirs}`, undefined, 404, 'account_not_found'],
    ['GET', `/accounts/users/me?account_id=${theirs}`, undefined, 422, 'validation_failed'],
    ['GET', `/accounts/${ours}/users?account_id=${theirs}`, undefined, 422, 'validation_failed'],
    ['GET', '/users', undefined, 403, 'insufficient_scope'],
    ['GET', '/accounts', undefined, 403, 'insufficient_scope'],
    [
      'POST',
      '/users',
      { email: 'n@x.test', password: PASSWORD, account_id: theirs },
      403,
      'insufficient_scope',
    ],
  ]

  for (const [method, path, body, status, code] of attacks) {
    const call = () => attacker.client.send(method, `/api/v1${path}`, body)
    await t.test(`${method} ${path.replaceAll(/[0-9a-f-]{36}/g, '…')}`, async (t) => {
      await refused(t, postern, call, status, code)
    })
  }
  const events = await attacker.client.get(`/api/v1/audit-events?target_id=${victim.id}`)
  t.same(events.json(), [], 'events about people of other accounts are not seen')
})

t.test('C.5 8.2.2: the answer to another account’s object and to an unknown one is the same', async (t) => {
  const { person, account } = await buildTestApp(t)
  const attacker = await person('ACCOUNT_ADMIN', { accountId: await account() })
  const victim = await person('GUEST', { accountId: await account() })
  const answer = async (path: string) => {
    const { instance: _, ...problem } = (await attacker.client.get(path)).json<Record<string, unknown>>()
    return problem
  }

  for (const [foreign, unknown] of [
    [`/api/v1/users/${victim.id}`, `/api/v1/users/${UNKNOWN}`],
    [`/api/v1/accounts/${victim.accountId}`, `/api/v1/accounts/${UNKNOWN}`],
  ] as const) {
    t.same(await answer(foreign), await answer(unknown))
  }
})

t.test('a member who is at home elsewhere belongs to that account’s admins', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root, roleId } = postern
  const [ours, theirs] = [await account(), await account()]
  const attacker = await person('ACCOUNT_ADMIN', { accountId: ours })
  const member = await person('ACCOUNT_ADMIN', { accountId: theirs })
  await root.put(`/api/v1/accounts/${ours}/members/${member.id}`)
  const guest = { role_id: await roleId('GUEST') }
  const home = (await root.get(`/api/v1/users/${member.id}/roles`)).json<{ id: string }[]>()[0]?.id

  for (const call of [
    () => attacker.client.patch(`/api/v1/users/${member.id}`, { password: OTHER_PASSWORD }),
    () => attacker.client.post(`/api/v1/users/${member.id}/deactivate`),
    () => attacker.client.put(`/api/v1/user-roles/${member.id}`, guest),
    () => attacker.client.delete(`/api/v1/user-roles/${member.id}`),
  ]) {
    await refused(t, postern, call, 404, 'user_not_found')
  }
  await refused(
    t,
    postern,
    () => attacker.client.delete(`/api/v1/users/${member.id}/roles/${home}`),
    404,
    'account_not_found',
  )
  const given = await attacker.client.post(`/api/v1/users/${member.id}/roles`, { ...guest, account_id: ours })

  t.equal(given.statusCode, 201, 'a role in the own account is the admin’s to give')
  const seen = await attacker.client.get(`/api/v1/users/${member.id}/roles`)
  t.same(
    seen.json<{ account_id: string }[]>().map(({ account_id }) => account_id),
    [ours],
    'what a member holds in other accounts is not shown',
  )
})

t.test(
  'an account admin does not reset the password of somebody who administers another account too',
  async (t) => {
    const postern = await buildTestApp(t)
    const { person, account, root, roleId } = postern
    const [ours, theirs] = [await account(), await account()]
    const attacker = await person('ACCOUNT_ADMIN', { accountId: ours })
    const both = await person('GUEST', { accountId: ours })
    const role_id = await roleId('ACCOUNT_ADMIN')
    await root.post(`/api/v1/users/${both.id}/roles`, { role_id, account_id: theirs })

    for (const call of [
      () => attacker.client.patch(`/api/v1/users/${both.id}`, { password: OTHER_PASSWORD }),
      () => attacker.client.patch(`/api/v1/users/${both.id}`, { email: 'mine@evil.test' }),
      () => attacker.client.post(`/api/v1/users/${both.id}/deactivate`),
    ]) {
      await refused(t, postern, call, 403, 'grant_exceeds_own')
    }
  },
)

t.test('an account admin does not disable more powerful people by deactivating their account', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root } = postern
  const ours = await account()
  const attacker = await person('ACCOUNT_ADMIN', { accountId: ours })
  const admin = await person('ADMIN', { accountId: ours })
  const path = `/api/v1/accounts/${ours}`

  for (const call of [
    () => attacker.client.post(`${path}/deactivate`),
    () => attacker.client.put(path, { is_active: false }),
    () => attacker.client.patch(path, { is_active: false }),
  ]) {
    await refused(t, postern, call, 403, 'grant_exceeds_own')
  }
  await root.delete(`/api/v1/users/${admin.id}`)
  t.equal((await attacker.client.post(`${path}/deactivate`)).statusCode, 200)
})

t.test('ids in capital letters are the same ids, and get around nothing', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root, roleId, home } = postern
  const ours = await account()
  const attacker = await person('ACCOUNT_ADMIN', { accountId: ours })
  const resident = await person('GUEST', { accountId: ours })
  const guestOfRoot = await person('GUEST')
  await root.post(`/api/v1/users/${guestOfRoot.id}/roles`, {
    role_id: await roleId('ADMIN'),
    account_id: ours,
  })
  const OURS = ours.toUpperCase()

  const leave = () => attacker.client.delete(`/api/v1/accounts/${OURS}/members/${resident.id.toUpperCase()}`)
  await refused(t, postern, leave, 409, 'home_account_membership')
  const unseat = () =>
    attacker.client.delete(`/api/v1/accounts/${OURS}/members/${guestOfRoot.id.toUpperCase()}`)
  await refused(t, postern, unseat, 403, 'grant_exceeds_own')
  const before = await stateOf(postern)
  const moved = await root.post(`/api/v1/accounts/${OURS}/users`, { user_id: resident.id.toUpperCase() })
  const patched = await root.patch(`/api/v1/users/${guestOfRoot.id}`, {
    account_id: home.toUpperCase(),
    first_name: null,
  })

  t.equal(moved.statusCode, 200)
  t.equal(patched.statusCode, 200)
  const after = await stateOf(postern)
  t.same(after.members, before.members, 'a move to the account where one is does nothing')
  t.same(after.assignments, before.assignments)
})

t.test('C.5 8.2.3: fields that are not the client’s to set are refused, not ignored', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root, anonymous, account, roleId } = postern
  const user = await person('GUEST')
  const accountId = await account()
  const role = (await root.post('/api/v1/roles', { name: 'editor' })).json<{ id: string }>().id
  const guest = await roleId('GUEST')
  const ofEverything = [
    'id',
    'revision',
    'created_at',
    'updated_at',
    'deleted_at',
    'environment_id',
    'is_builtin',
    'search_text',
    'constructor',
  ]
  const ofPeople = [
    'role',
    'role_id',
    'roles',
    'user_role',
    'scopes',
    'token_version',
    'tokenVersion',
    'must_change',
    'mustChange',
    'password_hash',
    'email_verified_at',
    'email_normalized',
    'is_super_admin',
  ]
  const selfService = ['password', 'is_active', 'account_id', 'key', 'attributes']

  const takers: [
    name: string,
    call: (field: Record<string, unknown>) => Promise<LightMyRequestResponse>,
    fields: string[],
  ][] = [
    [
      'POST /users',
      (field) => root.post('/api/v1/users', { email: 'm@x.test', password: PASSWORD, ...field }),
      ofPeople,
    ],
    [
      'PUT /users/{id}',
      (field) => root.put(`/api/v1/users/${user.id}`, { full_name: 'x', ...field }),
      ofPeople,
    ],
    [
      'PATCH /users/{id}',
      (field) => root.patch(`/api/v1/users/${user.id}`, { full_name: 'x', ...field }),
      ofPeople,
    ],
    [
      'POST /users/open',
      (field) =>
        anonymous.post('/api/v1/users/open', {
          email: 'm@x.test',
          password: PASSWORD,
          full_name: 'x',
          ...field,
        }),
      [...ofPeople, 'is_active', 'account_id', 'key', 'attributes'],
    ],
    [
      'PUT /users/me',
      (field) => user.client.put('/api/v1/users/me', { full_name: 'x', ...field }),
      [...ofPeople, ...selfService],
    ],
    [
      'PATCH /users/me',
      (field) => user.client.patch('/api/v1/users/me', { full_name: 'x', ...field }),
      [...ofPeople, ...selfService],
    ],
    [
      'POST /roles',
      (field) => root.post('/api/v1/roles', { name: 'mine', ...field }),
      ['permissions', 'resource_id'],
    ],
    [
      'PUT /roles/{id}',
      (field) => root.put(`/api/v1/roles/${role}`, { name: 'mine', ...field }),
      ['permissions', 'key'],
    ],
    [
      'PATCH /roles/{id}',
      (field) => root.patch(`/api/v1/roles/${role}`, { name: 'mine', ...field }),
      ['permissions', 'key'],
    ],
    [
      'POST /accounts',
      (field) => root.post('/api/v1/accounts', { name: 'Mine', ...field }),
      ['members', 'users'],
    ],
    [
      'PUT /accounts/{id}',
      (field) => root.put(`/api/v1/accounts/${accountId}`, { name: 'Mine', ...field }),
      ['members', 'key'],
    ],
    [
      'PATCH /accounts/{id}',
      (field) => root.patch(`/api/v1/accounts/${accountId}`, { name: 'Mine', ...field }),
      ['members', 'key'],
    ],
    [
      'POST /user-roles',
      (field) => root.post('/api/v1/user-roles', { user_id: user.id, role_id: guest, ...field }),
      ['account_id', 'is_primary'],
    ],
    [
      'PUT /user-roles/{id}',
      (field) => root.put(`/api/v1/user-roles/${user.id}`, { role_id: guest, ...field }),
      ['account_id', 'user_id'],
    ],
    [
      'POST /users/{id}/roles',
      (field) => root.post(`/api/v1/users/${user.id}/roles`, { role_id: guest, ...field }),
      ['is_primary', 'user_id'],
    ],
    [
      'POST /accounts/{id}/users',
      (field) => root.post(`/api/v1/accounts/${accountId}/users`, { user_id: user.id, ...field }),
      ['role_id', 'status'],
    ],
  ]

  for (const [name, call, own] of takers) {
    await t.test(name, async (t) => {
      const before = await stateOf(postern)

      for (const field of [...ofEverything, ...own]) {
        const response = await call({ [field]: 'x' })

        t.equal(response.statusCode, 422, field)
        t.match(response.json(), { errors: [{ pointer: `/body/${field}`, detail: 'is not a known field' }] })
      }
      t.same(await stateOf(postern), before)
    })
  }
})

t.test('no role of an application holds a permission of the service itself', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const role = (await root.post('/api/v1/roles', { name: 'editor' })).json<{ id: string }>().id

  for (const scope of [
    'postern.users:write',
    'postern.users:read:any',
    'post:read:any',
    '*',
    'post:*',
    '*:*',
    'a:b c:d',
    'a:b\n',
    ':',
    'post',
  ]) {
    await refused(
      t,
      postern,
      () => root.post('/api/v1/roles', { name: 'mine', scopes: [scope] }),
      422,
      'validation_failed',
    )
    await refused(
      t,
      postern,
      () => root.patch(`/api/v1/roles/${role}`, { scopes: [scope] }),
      422,
      'validation_failed',
    )
  }
})

t.test('built-in roles are not changed and not deleted by anybody', async (t) => {
  const postern = await buildTestApp(t)

  for (const key of Object.keys(BUILTIN_ROLES)) {
    const path = `/api/v1/roles/${await postern.roleId(key)}`
    for (const call of [
      () => postern.root.put(path, { scopes: ['post:read'] }),
      () => postern.root.patch(path, { default_reach: 'any' }),
      () => postern.root.delete(path),
    ]) {
      await refused(t, postern, call, 409, 'role_is_builtin')
    }
  }
})

t.test('a role everywhere is given only by those who may give roles everywhere', async (t) => {
  const postern = await buildTestApp(t)
  const { person, root } = postern
  const accountAdmin = await person('ACCOUNT_ADMIN')
  const mate = await person()
  const global = { name: 'auditor', default_reach: 'any', scopes: ['report:read'] }
  const role_id = (await root.post('/api/v1/roles', global)).json<{ id: string }>().id

  for (const call of [
    () => accountAdmin.client.post('/api/v1/user-roles', { user_id: mate.id, role_id }),
    () => accountAdmin.client.put(`/api/v1/user-roles/${accountAdmin.id}`, { role_id }),
    () => accountAdmin.client.post(`/api/v1/users/${mate.id}/roles`, { role_id }),
    () => accountAdmin.client.post(`/api/v1/users/${mate.id}/roles`, { role_id, account_id: null }),
  ]) {
    await refused(t, postern, call, 403, 'grant_exceeds_own')
  }
  const here = await accountAdmin.client.post(`/api/v1/users/${mate.id}/roles`, {
    role_id,
    account_id: mate.accountId,
  })
  t.equal(here.statusCode, 201, 'in the own account it may be given')
  const everywhere = await root.post('/api/v1/user-roles', { user_id: mate.id, role_id })
  t.equal(everywhere.statusCode, 201)
  const take = () => accountAdmin.client.delete(`/api/v1/user-roles/${mate.id}`)
  await refused(t, postern, take, 403, 'grant_exceeds_own')
})

t.test('nobody is taken over by being moved into the mover’s account', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, rootId, root, signIn, as } = postern
  const [ours, theirs] = [await account(), await account()]
  const admin = await person('ADMIN')
  const accountAdmin = await person('ACCOUNT_ADMIN', { accountId: theirs })

  for (const call of [
    () => admin.client.post(`/api/v1/accounts/${ours}/users`, { user_id: rootId }),
    () => admin.client.patch(`/api/v1/users/${rootId}`, { account_id: ours }),
  ]) {
    await refused(t, postern, call, 403, 'grant_exceeds_own')
  }
  await refused(
    t,
    postern,
    () => root.patch(`/api/v1/users/${accountAdmin.id}`, { account_id: null }),
    422,
    'validation_failed',
  )
  const moved = await admin.client.post(`/api/v1/accounts/${ours}/users`, { user_id: accountAdmin.id })

  t.equal(moved.statusCode, 200)
  const there = await accountAdmin.client.get(`/api/v1/accounts/${theirs}`)
  t.equal(there.statusCode, 401, 'the token from before the move has ended')
  const after = as(await signIn(accountAdmin.email))
  t.equal(
    (await after.get(`/api/v1/accounts/${theirs}`)).statusCode,
    404,
    'nothing is left in the old account',
  )
  t.equal((await after.get(`/api/v1/accounts/${ours}`)).statusCode, 200, 'the primary role moved along')
})

t.test('a token narrowed by scope can do no more than it names', async (t) => {
  const postern = await buildTestApp(t)
  const { anonymous, as, person, rootId, roleId } = postern
  const narrowed = async (email: string, scope: string) => {
    const response = await anonymous.post('/api/v1/auth/login', { email, password: PASSWORD, scope })
    return response.json<{ access_token?: string; scope?: string; type?: string }>()
  }
  const second = await person('SUPER_ADMIN')
  const mate = await person('GUEST')
  const accountAdmin = await person('ACCOUNT_ADMIN')
  const writer = as((await narrowed(SUPER_ADMIN_EMAIL, 'postern.users:write:any')).access_token ?? '')

  await refused(t, postern, () => writer.get('/api/v1/users'), 403, 'insufficient_scope')
  await refused(t, postern, () => writer.post('/api/v1/roles', { name: 'mine' }), 403, 'insufficient_scope')
  await refused(t, postern, () => writer.delete(`/api/v1/users/${mate.id}`), 403, 'insufficient_scope')
  await refused(
    t,
    postern,
    () => writer.patch(`/api/v1/users/${second.id}`, { password: OTHER_PASSWORD }),
    403,
    'grant_exceeds_own',
  )
  await refused(
    t,
    postern,
    () => writer.patch(`/api/v1/users/${rootId}`, { email: 'mine@evil.test' }),
    403,
    'grant_exceeds_own',
  )
  const promote = { user_id: mate.id, role_id: await roleId('SUPER_ADMIN') }
  await refused(t, postern, () => writer.post('/api/v1/user-roles', promote), 403, 'insufficient_scope')
  t.equal((await writer.patch(`/api/v1/users/${mate.id}`, { full_name: 'x' })).statusCode, 200)

  const reader = as((await narrowed(SUPER_ADMIN_EMAIL, 'postern.users:read')).access_token ?? '')
  await refused(
    t,
    postern,
    () => reader.put('/api/v1/users/me', { email: 'mine@evil.test' }),
    403,
    'email_change_not_allowed',
  )
  await refused(t, postern, () => reader.get('/api/v1/users'), 403, 'insufficient_scope')

  const wider = await narrowed(
    accountAdmin.email,
    'postern.users:write postern.users:write:any postern.roles:write:any',
  )
  t.equal(wider.scope, 'postern.users:write', 'a request widens nothing')
  t.match(await narrowed(mate.email, 'postern.users:write:any'), { type: '/problems/invalid_scope' })
})

t.test('C.5 8.4.1: a token for one account opens nothing in another one of the same person', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root, roleId, anonymous, as } = postern
  const [first, second] = [await account(), await account()]
  const both = await person('ACCOUNT_ADMIN', { accountId: first })
  const guest = await roleId('GUEST')
  await root.post(`/api/v1/users/${both.id}/roles`, { role_id: guest, account_id: second })
  const signIn = async (accountId: string) => {
    const login = { email: both.email, password: PASSWORD, account: accountId }
    return as(
      (await anonymous.post('/api/v1/auth/login', login)).json<{ access_token: string }>().access_token,
    )
  }
  const [inFirst, inSecond] = [await signIn(first), await signIn(second)]

  t.equal((await inFirst.get(`/api/v1/accounts/${first}`)).statusCode, 200)
  await refused(t, postern, () => inFirst.get(`/api/v1/accounts/${second}`), 404, 'account_not_found')
  await refused(t, postern, () => inSecond.get(`/api/v1/accounts/${first}`), 403, 'insufficient_scope')
  await refused(t, postern, () => inSecond.get(`/api/v1/accounts/${second}`), 403, 'insufficient_scope')
  const stranger = { email: both.email, password: PASSWORD, account: postern.home }
  t.equal(
    (await anonymous.post('/api/v1/auth/login', stranger)).statusCode,
    401,
    'no token for an account one is not in',
  )
})

/** Sends an attack: it must be refused so, and the database must be what it was. */
async function refused(
  t: Test,
  postern: TestApp,
  attack: () => Promise<LightMyRequestResponse>,
  status: number,
  code: string,
): Promise<void> {
  const before = await stateOf(postern)

  const response = await attack()

  t.equal(response.statusCode, status, `${code} expected`, { body: response.body.slice(0, 300) })
  t.equal(response.json<{ type?: string }>().type, `/problems/${code}`)
  t.same(await stateOf(postern), before, 'nothing has changed')
}

/** Everything an attack could want to change, as rows. */
async function stateOf({ services: { database } }: TestApp) {
  const rows = async (query: string): Promise<unknown[]> => (await database.pool.query(query)).rows
  return {
    users: await rows('select * from users order by id'),
    credentials: await rows('select * from user_credentials order by user_id'),
    accounts: await rows('select * from accounts order by id'),
    members: await rows('select * from account_members order by account_id, user_id'),
    roles: await rows('select * from roles order by id'),
    permissions: await rows('select * from role_permissions order by role_id, action_id'),
    actions: await rows('select * from actions order by id'),
    assignments: await rows('select * from role_assignments order by id'),
    version: await rows('select * from policy_versions'),
  }
}

/** Everything that can be done to a person. */
function attacksOn({ client }: Person, victimId: string, roleId: string) {
  return [
    () => client.put(`/api/v1/users/${victimId}`, { full_name: 'x' }),
    () => client.patch(`/api/v1/users/${victimId}`, { email: 'mine@evil.test' }),
    () => client.patch(`/api/v1/users/${victimId}`, { password: OTHER_PASSWORD }),
    () => client.patch(`/api/v1/users/${victimId}`, { is_active: false }),
    () => client.post(`/api/v1/users/${victimId}/deactivate`),
    () => client.post(`/api/v1/users/${victimId}/reactivate`),
    () => client.put(`/api/v1/user-roles/${victimId}`, { role_id: roleId }),
    () => client.patch(`/api/v1/user-roles/${victimId}`, { role_id: roleId }),
    () => client.delete(`/api/v1/user-roles/${victimId}`),
  ]
}
