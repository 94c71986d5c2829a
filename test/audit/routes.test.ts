import t from 'tap'
import { buildTestApp, type Method, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { isProblem, NO_SUCH_ID, pointersOf } from '../helpers/hostile.ts'
import { pagesLikeEveryList, walk } from '../helpers/lists.ts'

const OTHER_PASSWORD = 'another long password of mine'
/** Time stands still in a test of what is counted by the minute. */
const stopped = () => {
  const now = new Date()
  return { now: () => now }
}

type Event = {
  id: string
  occurred_at: string
  action: string
  outcome: 'success' | 'refused'
  actor_type: string
  actor_id: string | null
  target_type: string | null
  target_id: string | null
  account_id: string | null
  request_id: string | null
  details: Record<string, unknown>
  personal: Record<string, unknown> | null
  repeat_count: number
}

/** The events of this filter, newest first. */
const eventsOf = async ({ root }: TestApp, query = ''): Promise<Event[]> =>
  (await root.get(`/api/v1/audit-events?limit=1000&${query}`)).json<Event[]>()

/** What `act` writes into the trail. */
async function writtenBy(postern: TestApp, act: () => Promise<unknown>): Promise<Event[]> {
  const before = new Set((await eventsOf(postern)).map(({ id }) => id))
  await act()
  return (await eventsOf(postern)).filter(({ id }) => !before.has(id))
}

t.test('every change is an event', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, person, account, roleId, home, anonymous } = postern
  const guest = await roleId('GUEST')
  const manager = await roleId('ACCOUNT_MANAGER')
  const user = await person()
  const second = await account()
  let role = ''
  let created = ''
  let accountId = ''
  const newUser = { email: 'audited@postern.test', password: PASSWORD }
  const of = (path: string) => `/api/v1/users/${user.id}${path}`
  const idOf = (response: { json<T>(): T }): string => response.json<{ id: string }>().id

  for (const [action, act, about] of [
    [
      'user.created',
      async () => (created = idOf(await root.post('/api/v1/users', newUser))),
      () => ['user', created, null],
    ],
    ['user.updated', () => root.patch(of(''), { full_name: 'x' }), () => ['user', user.id, home]],
    [
      'user.updated',
      () => user.client.patch('/api/v1/users/me', { full_name: 'y' }),
      () => ['user', user.id, home],
    ],
    [
      'role.assigned',
      () => root.post('/api/v1/user-roles', { user_id: user.id, role_id: guest }),
      () => ['user', user.id, home],
    ],
    [
      'role.assigned',
      () => root.post(of('/roles'), { role_id: manager, account_id: second }),
      () => ['user', user.id, second],
    ],
    ['role.unassigned', () => root.delete(`/api/v1/user-roles/${user.id}`), () => ['user', user.id, home]],
    [
      'user.password_changed',
      () => root.patch(of(''), { password: OTHER_PASSWORD }),
      () => ['user', user.id, home],
    ],
    ['user.deactivated', () => root.post(of('/deactivate')), () => ['user', user.id, home]],
    ['user.activated', () => root.patch(of(''), { is_active: true }), () => ['user', user.id, home]],
    [
      'user.moved',
      () => root.post(`/api/v1/accounts/${second}/users`, { user_id: user.id }),
      () => ['user', user.id, second],
    ],
    [
      'member.added',
      () => root.put(`/api/v1/accounts/${home}/members/${user.id}`),
      () => ['user', user.id, home],
    ],
    [
      'member.removed',
      () => root.delete(`/api/v1/accounts/${home}/members/${user.id}`),
      () => ['user', user.id, home],
    ],
    ['user.deleted', () => root.delete(of('')), () => ['user', user.id, second]],
    [
      'role.created',
      async () => (role = idOf(await root.post('/api/v1/roles', { name: 'r', scopes: ['a:b'] }))),
      () => ['role', role, null],
    ],
    ['role.updated', () => root.patch(`/api/v1/roles/${role}`, { scopes: [] }), () => ['role', role, null]],
    ['role.deleted', () => root.delete(`/api/v1/roles/${role}`), () => ['role', role, null]],
    [
      'account.created',
      async () => (accountId = idOf(await root.post('/api/v1/accounts', { name: 'Audited' }))),
      () => ['account', accountId, accountId],
    ],
    [
      'account.updated',
      () => root.put(`/api/v1/accounts/${accountId}`, { name: 'x' }),
      () => ['account', accountId, accountId],
    ],
    [
      'account.deactivated',
      () => root.post(`/api/v1/accounts/${accountId}/deactivate`),
      () => ['account', accountId, accountId],
    ],
    [
      'account.activated',
      () => root.post(`/api/v1/accounts/${accountId}/reactivate`),
      () => ['account', accountId, accountId],
    ],
    [
      'account.deleted',
      () => root.delete(`/api/v1/accounts/${accountId}`),
      () => ['account', accountId, accountId],
    ],
    [
      'user.registered',
      () => anonymous.post('/api/v1/users/open', { ...newUser, email: 'open@x.test', full_name: 'x' }),
      undefined,
    ],
    ['session.created', () => anonymous.post('/api/v1/auth/login', newUser), () => ['user', created, null]],
  ] as [string, () => Promise<unknown>, (() => unknown[]) | undefined][]) {
    const written = await writtenBy(postern, act)

    t.same(
      written.map((event) => [event.action, event.outcome]),
      [[action, 'success']],
      action,
    )
    const [event] = written
    if (about)
      t.same(
        [event?.target_type, event?.target_id, event?.account_id],
        about(),
        `${action}: what it is about`,
      )
    t.ok(event?.request_id, `${action}: the request`)
    t.match(event?.personal, { address: '127.0.0.1' })
    const byRoot = !['user.registered', 'session.created'].includes(action) && event?.actor_id !== user.id
    if (byRoot) t.same([event?.actor_type, event?.actor_id], ['user', rootId], `${action}: who did it`)
  }
})

t.test('an event says what changed, and from what to what', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person, roleId } = postern
  const user = await person('GUEST')
  const role = (await root.post('/api/v1/roles', { name: 'r', scopes: ['a:b'] })).json<{ id: string }>().id

  const [updated] = await writtenBy(postern, () =>
    root.patch(`/api/v1/users/${user.id}`, { email: 'after@postern.test' }),
  )
  const [rescoped] = await writtenBy(postern, () => root.patch(`/api/v1/roles/${role}`, { scopes: ['a:c'] }))
  const replaced = await writtenBy(postern, async () =>
    root.put(`/api/v1/user-roles/${user.id}`, { role_id: await roleId('ACCOUNT_MANAGER') }),
  )

  t.match(updated?.details, { fields: ['email'] })
  t.match(updated?.personal, { email_before: user.email, email_after: 'after@postern.test' })
  t.match(rescoped?.details, { before: ['a:b'], after: ['a:c'] })
  t.same(replaced.map(({ action, details }) => [action, details['role']]).sort(), [
    ['role.assigned', 'ACCOUNT_MANAGER'],
    ['role.unassigned', 'GUEST'],
  ])
})

t.test('a change that fails is no event, however late it fails', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, person, roleId, account } = postern
  const user = await person('GUEST')
  const taken = await person('GUEST')
  const guest = await roleId('GUEST')
  const closed = await account()
  await root.post(`/api/v1/accounts/${closed}/deactivate`)
  const stale = { 'if-match': '"0"' }

  for (const [method, path, body, status, headers] of [
    ['PATCH', `/users/${user.id}`, { email: taken.email, full_name: 'x' }, 409],
    ['PATCH', `/users/${user.id}`, { full_name: 'x' }, 412, stale],
    ['PATCH', `/users/${user.id}`, { full_name: 'x', account_id: NO_SUCH_ID }, 404],
    ['PATCH', `/users/${user.id}`, { full_name: 'x\0' }, 422],
    ['PATCH', `/users/${rootId}`, { full_name: 'x', is_active: false }, 409],
    ['PATCH', `/users/${rootId}`, { full_name: 'x', account_id: closed }, 409],
    ['DELETE', `/users/${rootId}`, undefined, 409],
    ['PUT', `/user-roles/${rootId}`, { role_id: guest }, 409],
    ['PUT', `/user-roles/${user.id}`, { role_id: NO_SUCH_ID }, 404],
    ['POST', `/users/${user.id}/roles`, { role_id: guest }, 409],
    ['POST', '/roles', { name: 'GUEST', scopes: ['new:thing'] }, 409],
    ['POST', '/accounts', { name: 'x', key: 'default' }, 409],
    ['POST', `/accounts/${closed}/users`, { user_id: rootId }, 409],
  ] as [Method, string, unknown, number, Record<string, string>?][]) {
    const written = await writtenBy(postern, async () => {
      const response = await root.send(method, `/api/v1${path}`, body, headers)
      t.equal(response.statusCode, status, `${method} ${path}`, { body: response.body })
    })

    t.same(
      written.filter(({ outcome }) => outcome === 'success'),
      [],
      `${method} ${path}`,
    )
  }
})

t.test('refused writes are recorded once a minute, with their count', async (t) => {
  const postern = await buildTestApp(t, { clock: stopped() })
  const { person, account, rootId, roleId, home } = postern
  const guest = await person('GUEST')
  const admin = await person('ADMIN')
  const accountAdmin = await person('ACCOUNT_ADMIN')
  const foreign = await person('GUEST', { accountId: await account() })

  const written = await writtenBy(postern, async () => {
    for (let attempt = 0; attempt < 3; attempt++) {
      await guest.client.delete(`/api/v1/users/${foreign.id}`)
      await admin.client.patch(`/api/v1/users/${rootId}`, { password: OTHER_PASSWORD })
      await accountAdmin.client.patch(`/api/v1/users/${foreign.id}`, { full_name: 'x' })
    }
    await guest.client.post('/api/v1/user-roles', { user_id: guest.id, role_id: await roleId('ADMIN') })
  })

  t.same(
    written
      .map((event) => [event.actor_id, event.target_id, event.details['code'], event.repeat_count])
      .sort(),
    [
      [guest.id, 'DELETE /api/v1/users/:user_id', 'insufficient_scope', 3],
      [guest.id, 'POST /api/v1/user-roles', 'insufficient_scope', 1],
      [admin.id, 'PATCH /api/v1/users/:user_id', 'grant_exceeds_own', 3],
      [accountAdmin.id, 'PATCH /api/v1/users/:user_id', 'user_not_found', 3],
    ].sort(),
  )
  for (const event of written) {
    t.match(event, {
      action: 'access.refused',
      outcome: 'refused',
      target_type: 'route',
      account_id: home,
      actor_type: 'user',
    })
  }
})

t.test(
  'refused sign-ins are recorded once a minute, without naming anybody in the trail itself',
  async (t) => {
    const postern = await buildTestApp(t, { clock: stopped(), env: { LOGIN_MAX_FAILURES: '3' } })
    const { person, anonymous } = postern
    const user = await person('GUEST')

    const written = await writtenBy(postern, async () => {
      for (let attempt = 0; attempt < 5; attempt++) {
        await anonymous.post('/api/v1/auth/login', { email: user.email, password: OTHER_PASSWORD })
      }
      await anonymous.post('/api/v1/auth/login', { email: 'nobody@postern.test', password: OTHER_PASSWORD })
    })

    const summary = written.map((event) => [
      event.action,
      event.target_id,
      event.details['reason'],
      event.repeat_count,
    ])
    t.same(
      summary.sort(),
      [
        ['sign_in.refused', user.id, 'invalid_credentials', 3],
        ['sign_in.refused', null, 'throttled', 2],
        ['sign_in.refused', null, 'invalid_credentials', 1],
      ].sort(),
    )
  },
)

t.test('strangers and mistakes leave no trace', async (t) => {
  const postern = await buildTestApp(t)
  const { anonymous, root, person } = postern
  const guest = await person('GUEST')

  const written = await writtenBy(postern, async () => {
    await anonymous.post('/api/v1/users', {})
    await anonymous.delete(`/api/v1/users/${guest.id}`)
    await root.post('/api/v1/users', { email: 'x' })
    await root.patch(`/api/v1/users/${NO_SUCH_ID}`, { full_name: 'x' })
    await root.patch('/api/v1/users/x', { full_name: 'x' })
    await guest.client.get('/api/v1/users')
  })

  t.same(written, [])
})

t.test('what is personal lies apart, under a commitment, and can be erased', async (t) => {
  const postern = await buildTestApp(t)
  const { root, services, person, anonymous } = postern
  const { pool } = services.database
  const user = await person('GUEST', { email: 'very.personal@postern.test' })
  await root.patch(`/api/v1/users/${user.id}`, {
    email: 'still.personal@postern.test',
    full_name: 'Very Personal',
  })
  await anonymous.post('/api/v1/auth/login', {
    email: 'still.personal@postern.test',
    password: OTHER_PASSWORD,
  })
  await anonymous.post('/api/v1/auth/login', {
    email: 'unknown.personal@postern.test',
    password: OTHER_PASSWORD,
  })

  const { rows: trail } = await pool.query<{ text: string }>(
    'select audit_events::text as text from audit_events',
  )
  const { rows: apart } = await pool.query<{ text: string }>(
    'select data::text as text from audit_personal_data',
  )

  t.notOk(
    trail.some(({ text }) => /personal@|127\.0\.0\.1|Very Personal/.test(text)),
    'the trail names nobody',
  )
  t.ok(apart.some(({ text }) => text.includes('still.personal@postern.test')))
  t.notOk([...trail, ...apart].some(({ text }) => text.includes(PASSWORD) || text.includes(OTHER_PASSWORD)))
  const { rows: uncommitted } = await pool.query(
    `select from audit_personal_data p join audit_events e on e.id = p.audit_event_id where e.personal_commitment is null`,
  )
  t.equal(uncommitted.length, 0)
  await pool.query('delete from audit_personal_data where subject_id = $1', [user.id])
  const erased = await eventsOf(postern, `target_id=${user.id}`)
  t.ok(erased.length > 2)
  t.ok(erased.every(({ personal }) => personal === null))
})

t.test('a list of events', async (t) => {
  const postern = await buildTestApp(t)
  const { root, rootId, person, home } = postern
  const user = await person('GUEST')
  for (let index = 0; index < 4; index++)
    await root.patch(`/api/v1/users/${user.id}`, { full_name: `${index}` })

  await pagesLikeEveryList(t, { client: root, path: '/api/v1/audit-events', sorts: ['occurred_at'] })

  await t.test('begins with the newest', async (t) => {
    const events = await eventsOf(postern)

    t.same(
      events.map(({ id }) => id),
      events
        .map(({ id }) => id)
        .sort()
        .toReversed(),
    )
    t.match(events[0], { action: 'user.updated', target_id: user.id })
    t.same((await root.get('/api/v1/audit-events/?limit=1')).json(), events.slice(0, 1))
  })

  await t.test('is filtered', async (t) => {
    const all = await eventsOf(postern)
    const matching = async (query: string, test: (event: Event) => boolean) =>
      t.same(await eventsOf(postern, query), all.filter(test), query)
    const middle = all[2]?.occurred_at ?? ''

    await matching('action=user.updated', (event) => event.action === 'user.updated')
    await matching('outcome=success', (event) => event.outcome === 'success')
    await matching('outcome=refused', (event) => event.outcome === 'refused')
    await matching(`actor_id=${rootId}`, (event) => event.actor_id === rootId)
    await matching(`target_id=${user.id}`, (event) => event.target_id === user.id)
    await matching(`account_id=${home}`, (event) => event.account_id === home)
    await matching(`from=${middle}`, (event) => event.occurred_at >= middle)
    await matching(`until=${middle}`, (event) => event.occurred_at < middle)
    await matching(`from=${middle}&until=${middle}`, () => false)
    await matching(`action=user.updated&actor_id=${NO_SUCH_ID}`, () => false)
  })

  await t.test('refuses filters that are none', async (t) => {
    for (const [query, pointer] of [
      ['action=everything', '/query/action'],
      ['outcome=maybe', '/query/outcome'],
      ['account_id=x', '/query/account_id'],
      [`account_id=${home}&account_id=${home}`, '/query/account_id'],
      [`actor_id=${'x'.repeat(129)}`, '/query/actor_id'],
      ['from=yesterday', '/query/from'],
      ['from=2016-12-31T23:59:60Z', '/query/from'],
      ['until=9999-12-31T23:59:59-23:59', '/query/until'],
      ['until=0000-01-01T00:00:00Z', '/query/until'],
    ] as const) {
      const response = await root.get(`/api/v1/audit-events?${query}`)
      isProblem(t, response, 'validation_failed', query)
      t.same(pointersOf(response), [pointer])
    }
    for (const query of ['actor_id=%00', 'target_id=a%00']) {
      isProblem(t, await root.get(`/api/v1/audit-events?${query}`), 'validation_failed', query)
    }
  })

  await t.test('shows each event once while others are written', async (t) => {
    const before = await eventsOf(postern)

    const walked = await walk<Event>(root, '/api/v1/audit-events?limit=3', async () => {
      await root.patch(`/api/v1/users/${user.id}`, { full_name: 'x' })
    })

    t.same(walked, before)
  })
})

t.test('an account admin sees the events of the own account only', async (t) => {
  const postern = await buildTestApp(t)
  const { person, account, root, home } = postern
  const there = await account()
  const admin = await person('ACCOUNT_ADMIN', { accountId: there })
  const mate = await person('GUEST', { accountId: there })
  const stranger = await person('GUEST')
  await root.patch(`/api/v1/users/${mate.id}`, { full_name: 'x' })
  await root.patch(`/api/v1/users/${stranger.id}`, { full_name: 'x' })
  await mate.client.delete(`/api/v1/users/${mate.id}`)

  const events = (await admin.client.get('/api/v1/audit-events?limit=1000')).json<Event[]>()

  t.ok(events.length > 3)
  t.ok(events.every(({ account_id }) => account_id === there))
  t.same(events, await eventsOf(postern, `account_id=${there}`), 'all of them')
  t.ok(events.some(({ action }) => action === 'access.refused'))
  t.same((await admin.client.get(`/api/v1/audit-events?target_id=${stranger.id}`)).json(), [])
  t.same(
    (await admin.client.get(`/api/v1/audit-events?account_id=${there.toUpperCase()}&limit=1000`)).json(),
    events,
  )
  isProblem(t, await admin.client.get(`/api/v1/audit-events?account_id=${home}`), 'account_not_found')
  isProblem(t, await mate.client.get('/api/v1/audit-events'), 'insufficient_scope')
  const counted = await admin.client.get('/api/v1/audit-events?limit=1&total=true')
  t.equal(counted.headers['x-total-count'], String(events.length))
})

t.test('the trail cannot be written or erased by anybody', async (t) => {
  const { root } = await buildTestApp(t)

  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'] as const) {
    const response = await root.send(method, '/api/v1/audit-events')

    isProblem(t, response, 'method_not_allowed')
    t.equal(response.headers['allow'], 'GET, HEAD')
  }
  isProblem(t, await root.delete(`/api/v1/audit-events/${NO_SUCH_ID}`), 'not_found')
})
