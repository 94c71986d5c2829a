import t, { type Test } from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'
import { matchEach } from '../helpers/matching.ts'
import { action, applied, asking, EVALUATION, EVALUATIONS, SEARCHES, succeeded, user } from './certified.ts'

const page = (id: string, properties?: Record<string, unknown>) => ({
  type: 'page',
  id,
  ...(properties && { properties }),
})
const read = action('read')

/** Two accounts, the first one and `acme`, each with a reader and a page of its own. */
async function twoAccounts(t: Test) {
  const postern = await buildTestApp(t)
  await applied(postern.root, {
    resources: { page: { actions: ['read'], attributes: { open: 'bool' } } },
    roles: { reader: { permissions: ['page:read'] } },
    user_sets: { guests: { conditions: { 'user.guest': { equals: true } } } },
    resource_sets: { open: { resource: 'page', conditions: { 'resource.open': { equals: true } } } },
    rules: [{ user_set: 'guests', permissions: ['page:read'], resource_set: 'open' }],
    facts: {
      accounts: { acme: {} },
      users: {
        ann: { roles: [{ role: 'reader', account: 'acme' }] },
        ben: { roles: [{ role: 'reader', account: 'default' }] },
      },
      instances: [
        { resource: 'page', key: 'acme-page', account: 'acme', attributes: { open: true } },
        { resource: 'page', key: 'our-page', attributes: { open: true } },
      ],
    },
  })
  const acme = (await postern.services.accounts.findByKeyOrId('acme'))?.id ?? ''
  const admin = await postern.person('ACCOUNT_ADMIN', { accountId: acme })
  return { ...postern, ...asking(postern.root), acme, admin: admin.client, inAcme: asking(admin.client) }
}

t.test('the account is that of the resource, of the context, or the first one', async (t) => {
  const { evaluate, evaluateAll, search, acme } = await twoAccounts(t)
  const decide = async (
    id: string,
    properties?: Record<string, unknown>,
    context?: Record<string, unknown>,
  ) => (await evaluate(user(id), read, page('any', properties), { ...(context && { context }) })).decision

  t.same([await decide('ann'), await decide('ben')], [false, true])
  for (const tenant of ['acme', acme]) {
    t.same([await decide('ann', { tenant }), await decide('ben', { tenant })], [true, false])
    t.same(
      [await decide('ann', undefined, { tenant }), await decide('ben', undefined, { tenant })],
      [true, false],
    )
  }
  t.equal(await decide('ann', { tenant: 'acme' }, { tenant: 'default' }), true, 'the resource goes before')
  t.equal(await decide('ben', { tenant: null }, {}), true, 'null is as good as absent')
  t.equal(await decide('ben', { tenant: 'nowhere' }), false)
  t.same(
    (
      await evaluateAll({
        subject: user('ann'),
        action: read,
        evaluations: [
          { resource: page('x') },
          { resource: page('x', { tenant: 'acme' }) },
          { resource: page('x'), context: { tenant: 'acme' } },
        ],
      })
    ).map(({ decision }) => decision),
    [false, true, true],
  )
  t.same(
    (await search('subject', { subject: { type: 'user' }, action: read, resource: page('x') })).results,
    [user('ben')],
  )
  t.same(
    (
      await search('subject', {
        subject: { type: 'user' },
        action: read,
        resource: page('x'),
        context: { tenant: 'acme' },
      })
    ).results,
    [user('ann')],
  )
  t.same(
    (
      await search('resource', {
        subject: user('ann'),
        action: read,
        resource: { type: 'page', properties: { tenant: 'acme' } },
      })
    ).results,
    [page('acme-page')],
  )
})

t.test('an account that is no text is a fault, and no other account steps in', async (t) => {
  const { root } = await twoAccounts(t)

  for (const tenant of [5, true, {}, ['default']])
    for (const path of [EVALUATION, EVALUATIONS, ...SEARCHES.map((one) => `/access/v1/search/${one}`)]) {
      const inResource = await root.post(path, {
        subject: user('ben'),
        action: read,
        resource: page('x', { tenant }),
      })
      const inContext = await root.post(path, {
        subject: user('ben'),
        action: read,
        resource: page('x'),
        context: { tenant },
      })

      isProblem(t, inResource, 'invalid_request')
      isProblem(t, inContext, 'invalid_request')
      t.same(pointersOf(inResource), ['/body/resource/properties/tenant'])
      t.same(pointersOf(inContext), ['/body/context/tenant'])
    }
})

t.test('who is bound to an account asks about that one, and hears of no other', async (t) => {
  const { admin, inAcme, acme, evaluate, services } = await twoAccounts(t)

  t.same(await inAcme.evaluate(user('ann'), read, page('x')), { decision: true }, 'it need not be named')
  t.same(await inAcme.evaluate(user('ann'), read, page('x', { tenant: 'acme' })), { decision: true })
  t.same(await inAcme.evaluate(user('ann'), read, page('x'), { context: { tenant: acme } }), {
    decision: true,
  })
  t.same(await inAcme.evaluate(user('ben'), read, page('x')), { decision: false })
  for (const tenant of ['default', 'nowhere', ''])
    for (const path of [EVALUATION, EVALUATIONS, ...SEARCHES.map((one) => `/access/v1/search/${one}`)]) {
      const refused = await admin.post(path, {
        subject: user('ben'),
        action: read,
        resource: page('x', { tenant }),
      })
      isProblem(t, refused, 'insufficient_scope', `${path} ${tenant}`)
    }
  const answers = await inAcme.evaluateAll({
    action: read,
    evaluations: [
      { subject: user('ben'), resource: page('x', { tenant: 'default' }) },
      { subject: user('ann'), resource: page('x') },
    ],
  })
  matchEach(t, answers, [{ decision: false, context: { error: { status: 403 } } }, { decision: true }])

  const wants = { options: { reason: true } }
  t.match((await inAcme.evaluate(user('ann'), read, page('x'), wants)).context, {
    reason: /in acme may page:read/,
  })
  const reasons = [user('ben'), user('nobody')].map(
    async (subject) => (await inAcme.evaluate(subject, read, page('x'), wants)).context?.reason,
  )
  const [ofBen, ofNobody] = await Promise.all(reasons)
  t.ok(ofBen)
  t.equal(ofBen, ofNobody, 'not even whether somebody is known elsewhere')
  await services.database.pool.query("update users set is_active = false where key = 'ben'")
  await services.policyCache.catchUp()
  t.equal((await inAcme.evaluate(user('ben'), read, page('x'), wants)).context?.reason, ofNobody, 'or active')
  t.match((await evaluate(user('ben'), read, page('x'), wants)).context?.reason, /not active/)
})

t.test('searches of who is bound to an account range over its people and things only', async (t) => {
  const { inAcme, search } = await twoAccounts(t)
  const guest = { guest: true }
  const guests = {
    subject: { type: 'user', properties: guest },
    action: read,
    resource: page('x', { open: true }),
  }
  const pages = { subject: user('ben', guest), action: read, resource: { type: 'page' } }

  const all = (await search('subject', guests)).results.map(({ id }) => id)
  const own = (await inAcme.search('subject', guests)).results.map(({ id }) => id)

  t.ok(all.includes('ann') && all.includes('ben') && all.length > 2, 'an attribute rule lets everybody in')
  t.ok(own.includes('ann') && !own.includes('ben'), String(own))
  t.equal(own.length, 2, 'the reader and the admin of the account')
  t.same((await inAcme.search('resource', pages)).results, [page('acme-page')])
  t.same((await search('resource', pages)).results, [page('our-page')])
})

t.test('environments know nothing of each other', async (t) => {
  const postern = await buildTestApp(t)
  const { root, as } = postern
  const production = { 'postern-environment': 'default/production' }
  succeeded(await root.post('/api/v1/environments', { key: 'production', name: 'Production' }))
  succeeded(await root.post('/api/v1/policy/templates/authzen-certification', undefined, production))
  const keyFor = async (environment: string) =>
    succeeded(await root.post('/api/v1/api-keys', { name: environment, access: 'read', environment })).json<{
      key: string
    }>().key
  const there = as(await keyFor('default/production'))
  const here = as(await keyFor('default/default'))
  const reads = { subject: user('alice'), action: read, resource: { type: 'record', id: 'record-1' } }

  t.same((await there.post(EVALUATION, reads)).json(), { decision: true })
  t.same((await here.post(EVALUATION, reads)).json(), { decision: false })
  t.same((await root.post(EVALUATION, reads)).json(), { decision: false })
  t.same((await root.post(EVALUATION, reads, production)).json(), { decision: true })
  t.equal((await here.post(EVALUATION, reads, production)).statusCode, 403)
  for (const searched of SEARCHES) {
    t.not(
      (await there.post(`/access/v1/search/${searched}`, reads)).json<{ results: [] }>().results.length,
      0,
    )
    t.same((await here.post(`/access/v1/search/${searched}`, reads)).json(), { results: [] })
  }
  const paged = { ...reads, subject: { type: 'user' }, page: { limit: 1 } }
  const first = (await there.post('/access/v1/search/subject', paged)).json<{
    page: { next_token: string }
  }>()
  t.not(first.page.next_token, '')
  const elsewhere = await here.post('/access/v1/search/subject', {
    ...paged,
    page: { token: first.page.next_token },
  })
  t.same(elsewhere.json(), { page: { next_token: '' }, results: [] }, 'a token opens no other environment')
  const nowhere = await root.post(EVALUATION, reads, { 'postern-environment': 'default/nowhere' })
  t.equal(nowhere.statusCode, 404)
  t.equal((await root.post(EVALUATION, reads, { 'postern-environment': 'a b' })).statusCode, 400)
})

t.test('a change holds from the next question on', async (t) => {
  const { root, evaluate, services } = await twoAccounts(t)
  const ask = async () => (await evaluate(user('ben'), read, page('our-page'))).decision
  const ben = (await root.get('/api/v1/users?limit=1000'))
    .json<{ id: string; key: string }[]>()
    .find(({ key }) => key === 'ben')
  t.equal(await ask(), true)

  succeeded(await root.post(`/api/v1/users/${ben?.id}/deactivate`))
  t.equal(await ask(), false)
  succeeded(await root.post(`/api/v1/users/${ben?.id}/reactivate`))
  t.equal(await ask(), true)
  const reader = await services.roles.findRoleByKey('reader')
  succeeded(await root.patch(`/api/v1/roles/${reader?.id}`, { scopes: [] }))
  t.equal(await ask(), false)
})
