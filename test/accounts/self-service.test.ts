import t from 'tap'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Person } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { isProblem } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { aClient, basic, sendForm } from '../helpers/oauth.ts'

const postern = await buildTestApp(t, {
  env: {
    ACCOUNTS_OPEN_CREATION: 'true',
    ACCOUNTS_PER_PERSON: '2',
    // Nobody listens there, and nothing is sent: jobs are not worked through here.
    SMTP_URL: 'smtp://127.0.0.1:9',
    MAIL_FROM: 'postern@postern.test',
  },
})
const { anonymous, root, person, as } = postern

let made = 0
const named = () => ({ name: `Own ${++made}` })
const codeOf = (response: { json(): unknown }) => (response.json() as { type: string }).type.split('/').at(-1)
const idOf = (response: { json(): unknown }) => (response.json() as { id: string }).id

/** The same person, signed in anew, to an account. */
async function signInTo({ email }: Person, account?: string): Promise<Client> {
  const body = { email, password: PASSWORD, ...(account && { account }) }
  const response = await anonymous.post('/api/v1/auth/login', body)
  if (response.statusCode !== 200) throw new Error(response.body)
  return as(response.json<{ access_token: string }>().access_token)
}

/** Somebody with an account of their own, signed in to it. */
async function owner() {
  const founder = await person(undefined, { accountId: null })
  const account = idOf(await founder.client.post('/api/v1/accounts', named()))
  return { ...founder, account, client: await signInTo(founder) }
}

t.test('whoever has no account opens one, is at home in it, and its administrator', async (t) => {
  const ada = await person(undefined, { accountId: null })

  const response = await ada.client.post('/api/v1/accounts', { name: 'Ada & Co', description: 'Engines' })

  t.equal(response.statusCode, 201)
  t.match(response.json(), { key: 'ada-co', description: 'Engines', is_active: true })
  const client = await signInTo(ada)
  t.match((await client.get('/api/v1/users/me')).json(), {
    account_id: idOf(response),
    user_role: { role: { name: 'ACCOUNT_ADMIN' } },
  })
  t.match((await client.get('/api/v1/accounts/me')).json(), { id: idOf(response) })
  t.equal((await client.get('/api/v1/accounts')).statusCode, 403, 'of this account, and of no other')
})

t.test('whoever has an account stays at home there, and is the administrator of the new one', async (t) => {
  const ada = await person('GUEST')

  const account = idOf(await ada.client.post('/api/v1/accounts', named()))

  const client = await signInTo(ada, account)
  t.match((await client.get('/api/v1/users/me')).json(), {
    account_id: postern.home,
    user_role: { role: { name: 'GUEST' } },
  })
  t.equal((await client.get(`/api/v1/accounts/${account}/members`)).statusCode, 200)
  t.equal((await client.get(`/api/v1/accounts/${postern.home}/members`)).statusCode, 404)
})

t.test('a person opens so many and no more, at once or one by one', async (t) => {
  const ada = await person('GUEST')

  const answers = await Promise.all([1, 2, 3, 4].map(() => ada.client.post('/api/v1/accounts', named())))

  t.equal(answers.filter(({ statusCode }) => statusCode === 201).length, 2)
  const refused = answers.filter(({ statusCode }) => statusCode !== 201)
  for (const answer of refused)
    t.ok(['account_limit_reached', 'invalid_token'].includes(codeOf(answer) ?? ''))
  t.equal(codeOf(await (await signInTo(ada)).post('/api/v1/accounts', named())), 'account_limit_reached')
})

t.test(
  'ASVS 8.2.3: what an account has paid for, and whether it is served, is not for its owner to say',
  async (t) => {
    const ada = await person('GUEST')
    const later = '2030-01-01T00:00:00.000Z'

    for (const field of [
      { plan_id: crypto.randomUUID() },
      { current_subscription_ends: later },
      { is_active: false },
    ])
      t.equal((await ada.client.post('/api/v1/accounts', { ...named(), ...field })).statusCode, 422)

    const own = await owner()
    const url = `/api/v1/accounts/${own.account}`
    for (const field of [{ plan_id: crypto.randomUUID() }, { current_subscription_ends: later }])
      t.equal(codeOf(await own.client.patch(url, field)), 'insufficient_scope')
    t.equal((await own.client.patch(url, { plan_id: null, name: 'Renamed' })).statusCode, 200, 'as it was')
    t.equal((await root.patch(url, { plan_id: crypto.randomUUID() })).statusCode, 200)
  },
)

t.test('an owner lists, gives roles to and removes the members of the account', async (t) => {
  const own = await owner()
  const member = await person('GUEST')
  await root.put(`/api/v1/accounts/${own.account}/members/${member.id}`)
  const role = idOf(await root.post('/api/v1/roles', { name: `role-${++made}`, scopes: ['post:read'] }))
  const members = `/api/v1/accounts/${own.account}/members`

  matchEach(t, (await own.client.get(members)).json(), [{ user_id: own.id }, { user_id: member.id }])
  const given = await own.client.post(`/api/v1/users/${member.id}/roles`, {
    role_id: role,
    account_id: own.account,
  })
  t.equal(given.statusCode, 201)
  t.equal((await own.client.delete(`/api/v1/users/${member.id}/roles/${idOf(given)}`)).statusCode, 204)
  t.equal((await own.client.delete(`${members}/${member.id}`)).statusCode, 204)
  t.equal((await own.client.get(`/api/v1/users/${member.id}`)).statusCode, 404, 'who is theirs no more')
})

t.test('ASVS 8.4.1: an owner reaches nobody and nothing in other accounts', async (t) => {
  const [own, other] = [await owner(), await owner()]
  const member = await person('GUEST')
  await root.put(`/api/v1/accounts/${own.account}/members/${member.id}`)
  const role = idOf(await root.post('/api/v1/roles', { name: `role-${++made}`, scopes: ['post:read'] }))
  const superAdmin = await postern.roleId('SUPER_ADMIN')
  const { client } = own
  const theirs = `/api/v1/accounts/${other.account}`
  const roles = `/api/v1/users/${member.id}/roles`

  const hidden = [
    await client.get(theirs),
    await client.patch(theirs, { name: 'Mine' }),
    await client.post(`${theirs}/deactivate`),
    await client.get(`${theirs}/members`),
    await client.delete(`${theirs}/members/${other.id}`),
    await client.get(`${theirs}/invitations`),
    await client.post(`${theirs}/invitations`, { email: 'x@postern.test', role_id: role }),
    await client.get(`/api/v1/users/${other.id}`),
    await client.post(`/api/v1/users/${other.id}/roles`, { role_id: role, account_id: own.account }),
    await client.post(roles, { role_id: role, account_id: other.account }),
    await client.patch(`/api/v1/users/${member.id}`, { full_name: 'Mine' }),
    await client.post(`/api/v1/users/${member.id}/deactivate`),
    await client.post(`/api/v1/users/${member.id}/unlock`),
  ]
  for (const answer of hidden) t.equal(answer.statusCode, 404)
  const refused = [
    await client.put(`/api/v1/accounts/${own.account}/members/${other.id}`),
    await client.post(`/api/v1/accounts/${own.account}/users`, { user_id: other.id }),
    await client.post(roles, { role_id: superAdmin, account_id: own.account }),
    await client.post(roles, { role_id: role, account_id: null }),
    await client.delete(`/api/v1/accounts/${own.account}`),
  ]
  for (const answer of refused) t.equal(answer.statusCode, 403)
})

/** Somebody at home in an account, with a role of the application in another one. */
async function ofTwoAccounts(home: string) {
  const vic = await person(undefined, { accountId: home })
  const other = await postern.account()
  const finance = idOf(await root.post('/api/v1/roles', { name: `role-${++made}`, scopes: ['invoice:pay'] }))
  await root.post(`/api/v1/users/${vic.id}/roles`, { role_id: finance, account_id: other })
  return { vic, other, finance }
}

t.test(
  'ASVS 8.2.2: who administers an account does not become somebody who belongs to others too',
  async (t) => {
    const own = await owner()
    const { vic, other, finance } = await ofTwoAccounts(own.account)
    const user = `/api/v1/users/${vic.id}`
    const body = { email: `${vic.id}@postern.test`, key: `key-${vic.id}`, attributes: { vip: true } }
    const attacks = [
      () => own.client.post(`${user}/unlock`),
      () => own.client.delete(`${user}/mfa`),
      () => own.client.patch(user, { attributes: body.attributes }),
      () => own.client.patch(user, { key: body.key }),
      () => own.client.patch(user, { email: body.email }),
      () => own.client.put(user, { full_name: 'x', ...body }),
      () => own.client.patch(user, { password: 'a password of the attacker' }),
      () => own.client.put(user, { full_name: 'x', password: 'a password of the attacker' }),
      () => own.client.post(`${user}/deactivate`),
      () => own.client.patch(user, { is_active: true }),
    ]
    const refuses = async (why: string) => {
      const before = (await root.get(user)).json()
      // The last one is no change as long as they are active.
      for (const [index, attack] of attacks.slice(0, -1).entries())
        isProblem(t, await attack(), 'user_belongs_to_other_accounts', `${why}, ${index}`)
      t.same((await root.get(user)).json(), before)
    }

    await refuses('a member elsewhere')
    t.ok(await signInTo(vic, other), 'with their own password')
    t.equal((await own.client.post(`${user}/password-reset`)).statusCode, 202, 'which proves the mailbox')
    await root.delete(`/api/v1/accounts/${other}/members/${vic.id}`)
    const everywhere = await root.post(`${user}/roles`, { role_id: finance, account_id: null })
    await refuses('a role in every account')
    await root.delete(`${user}/roles/${idOf(everywhere)}`)

    for (const [index, attack] of attacks.entries())
      t.match(String((await attack()).statusCode), /^20[04]$/, `no longer elsewhere, ${index}`)
  },
)

t.test('administrators of every account reach whoever belongs to several', async (t) => {
  const own = await owner()
  const { vic } = await ofTwoAccounts(own.account)
  const user = `/api/v1/users/${vic.id}`

  for (const call of [
    () => own.client.patch(user, { full_name: 'Vic', phone_number: '1' }),
    () => root.post(`${user}/unlock`),
    () => root.delete(`${user}/mfa`),
    () => root.patch(user, { attributes: { vip: true }, password: 'a password of the operator' }),
    () => root.post(`${user}/deactivate`),
    () => root.delete(user),
    () => root.post(`${user}/erase`),
  ])
    t.match(String((await call()).statusCode), /^20[04]$/)
})

t.test('nor does a client of one account delete or erase whoever belongs to others', async (t) => {
  const [home, other] = [await postern.account(), await postern.account()]
  const scopes = ['postern.users:delete', 'postern.users:write']
  const client = await aClient(postern, { account_id: home, scopes })
  const granted = await sendForm(
    postern,
    '/oauth2/token',
    { grant_type: 'client_credentials' },
    basic(client),
  )
  const machine = as(granted.json<{ access_token: string }>().access_token)
  const key = (await anApiKey(postern)).client
  const synced = idOf(await key.post('/api/v1/users', { key: `synced-${++made}`, account_id: home }))
  await root.put(`/api/v1/accounts/${other}/members/${synced}`)
  const user = `/api/v1/users/${synced}`

  for (const call of [
    () => machine.delete(user),
    () => machine.post(`${user}/erase`),
    () => machine.post(`${user}/deactivate`),
  ])
    isProblem(t, await call(), 'user_belongs_to_other_accounts')
  await root.delete(`/api/v1/accounts/${other}/members/${synced}`)
  t.equal((await machine.delete(user)).statusCode, 204)
})

t.test('whoever belongs to others can be sent away from their home', async (t) => {
  const own = await owner()
  const { vic, other } = await ofTwoAccounts(own.account)
  const onlyHere = await person('GUEST', { accountId: own.account })
  const admin = await person('ADMIN', { accountId: own.account })
  const members = `/api/v1/accounts/${own.account}/members`
  const founder = await person(undefined, { accountId: own.account })
  const founded = idOf(await founder.client.post('/api/v1/accounts', named()))

  const gone = await own.client.delete(`${members}/${vic.id}`)

  t.equal(gone.statusCode, 204)
  t.match((await root.get(`/api/v1/users/${vic.id}`)).json(), { account_id: null })
  t.equal((await vic.client.get('/api/v1/users/me')).statusCode, 401, 'tokens of before are void')
  t.equal((await own.client.get(`/api/v1/users/${vic.id}`)).statusCode, 404)
  await t.rejects(signInTo(vic, own.account))
  const there = await signInTo(vic, other)
  t.match((await there.get('/api/v1/users/me/permissions')).json(), { scopes: ['invoice:pay'] })
  const otherAdmin = await person('ACCOUNT_ADMIN', { accountId: other })
  const taken = await otherAdmin.client.patch(`/api/v1/users/${vic.id}`, { password: 'a password of theirs' })
  isProblem(t, taken, 'user_not_found', 'the home does not pass to the account that is left')
  isProblem(t, await own.client.delete(`${members}/${onlyHere.id}`), 'home_account_membership')
  isProblem(t, await own.client.delete(`${members}/${admin.id}`), 'grant_exceeds_own')
  t.equal(
    (await own.client.delete(`${members}/${founder.id}`)).statusCode,
    204,
    'whatever they are elsewhere',
  )
  t.ok(await signInTo(founder, founded))
  const [event] = (await root.get(`/api/v1/audit-events?target_id=${vic.id}&action=member.removed`)).json<
    { details: unknown }[]
  >()
  t.match(event, { details: { was_home: true } })
})

t.test('machines, and people in other environments, open no account of their own', async (t) => {
  const ada = await person('GUEST')
  const reader = await anApiKey(postern, { access: 'read' })
  const { name } = await anEnvironment(postern)

  t.equal((await reader.client.post('/api/v1/accounts', named())).statusCode, 403)
  t.equal((await ada.client.post('/api/v1/accounts', named(), inEnvironment(name))).statusCode, 403)
  t.equal((await anonymous.post('/api/v1/accounts', named())).statusCode, 401)
})

t.test('guesses at the keys of other accounts have a limit', async (t) => {
  const ada = await person('GUEST')
  const tries = []
  for (let n = 0; n < 21; n++)
    tries.push((await ada.client.post('/api/v1/accounts', { name: 'x', key: 'default' })).statusCode)

  t.same(tries, [...Array(20).fill(409), 429])
})

t.test('nobody opens an account where that is not said', async (t) => {
  const closed = await buildTestApp(t, { databaseUrl: postern.databaseUrl })
  const ada = await closed.person('GUEST', { email: 'closed@postern.test' })

  t.equal(codeOf(await ada.client.post('/api/v1/accounts', named())), 'insufficient_scope')
})
