import t from 'tap'
import { action, certified, EVALUATION, EVALUATIONS, record, user } from './certified.ts'

// https://github.com/openid/authzen/blob/main/certification/authorization-api-1_0-scenario.md

const ADMIN = { role: 'admin' }
const ARCHIVED = { status: 'archived' }
const decisions = (answers: { decision: boolean }[]) => answers.map(({ decision }) => decision)

t.test('the certification scenario of the Authorization API', async (t) => {
  const { root, anonymous, evaluate, evaluateAll, search, config } = await certified(t)

  await t.test('Basic: the eight decisions', async (t) => {
    for (const [rule, subject, what, resource, decision] of [
      [1, user('alice'), action('read'), record('record-1'), true],
      [2, user('alice'), action('write'), record('record-1'), true],
      [3, user('bob'), action('read'), record('record-1'), true],
      [4, user('bob'), action('write'), record('record-1'), false],
      [5, user('alice'), action('write'), record('record-2', ARCHIVED), false],
      [5, user('alice'), action('write'), record('record-1', ARCHIVED), false],
      [6, user('bob', ADMIN), action('write'), record('record-2', ARCHIVED), true],
      [6, user('carol', ADMIN), action('write'), record('record-9', ARCHIVED), true],
      [7, user('alice'), action('delete', { soft: true }), record('record-1'), true],
      [8, user('alice'), action('delete', { soft: false }), record('record-1'), false],
      [8, user('alice'), action('delete'), record('record-1'), false],
      [8, user('bob'), action('delete', { soft: true }), record('record-1'), false],
    ] as const) {
      const context = { time: '2025-06-27T18:03-07:00', ip: '192.168.1.1' }
      t.same(await evaluate(subject, what, resource), { decision }, `rule ${rule}`)
      t.same(await evaluate(subject, what, resource, { context }), { decision }, `rule ${rule} with context`)
    }
  })

  await t.test(
    'Basic: stored attributes count where the request says nothing, and yield to it',
    async (t) => {
      t.same(await evaluate(user('bob'), action('write'), record('record-2')), { decision: true })
      t.same(await evaluate(user('alice'), action('write'), record('record-2')), { decision: false })
      t.same(await evaluate(user('bob', { role: 'none' }), action('write'), record('record-2')), {
        decision: false,
      })
      t.same(await evaluate(user('alice'), action('write'), record('record-2', { status: 'active' })), {
        decision: true,
      })
    },
  )

  await t.test('Basic: further properties and unknown fields change nothing', async (t) => {
    const answer = await evaluate(
      { ...user('alice', { department: 'Sales', role: 'manager' }), foo: 1 },
      { ...action('read', { method: 'GET' }), foo: null },
      { ...record('record-1', { status: 'active', owner: 'bob' }), foo: [] },
      { foo: 'bar', futureField: { nested: true }, options: 'later', evaluations: 5 },
    )

    t.same(answer, { decision: true })
  })

  await t.test('Basic: the same question has the same answer, as JSON', async (t) => {
    const ask = { subject: user('alice'), action: action('read'), resource: record('record-1') }

    for (let time = 0; time < 5; time++) {
      const response = await root.post(EVALUATION, ask)
      t.equal(response.statusCode, 200)
      t.match(response.headers['content-type'], /^application\/json/)
      t.equal(response.body, '{"decision":true}')
    }
  })

  await t.test('Batch: defaults, properties and order', async (t) => {
    const same = { subject: user('alice'), action: action('write') }
    t.same(
      decisions(
        await evaluateAll({
          subject: user('bob'),
          resource: record('record-1'),
          evaluations: [{ action: action('read') }, { action: action('write') }],
        }),
      ),
      [true, false],
    )
    t.same(
      decisions(
        await evaluateAll({
          ...same,
          evaluations: [
            { resource: record('record-1', { status: 'active' }) },
            { resource: record('record-2', ARCHIVED) },
          ],
        }),
      ),
      [true, false],
    )
    t.same(
      decisions(
        await evaluateAll({
          action: action('write'),
          resource: record('record-2', ARCHIVED),
          evaluations: [{ subject: user('alice') }, { subject: user('bob', ADMIN) }],
        }),
      ),
      [false, true],
    )
    t.same(
      decisions(
        await evaluateAll({
          evaluations: [
            { subject: user('alice'), action: action('read'), resource: record('record-1') },
            { subject: user('bob'), action: action('write'), resource: record('record-1') },
          ],
        }),
      ),
      [true, false],
    )
    t.same(
      decisions(
        await evaluateAll({
          ...same,
          resource: { type: 'record' },
          evaluations: [
            { resource: { id: 'record-1', properties: { status: 'active' } } },
            { resource: record('record-2', ARCHIVED) },
          ],
        }),
      ),
      [true, false],
      'a missing type is that of the default',
    )
  })

  await t.test('Batch: what cannot be completed is refused in its place', async (t) => {
    const answers = await evaluateAll({
      subject: user('alice'),
      action: action('read'),
      evaluations: [{ resource: record('record-1') }, {}],
    })

    t.same(answers, [
      { decision: true },
      { decision: false, context: { error: { status: 400, message: 'resource is required' } } },
    ])
  })

  await t.test('Batch: without a list it is one question', async (t) => {
    const ask = { subject: user('alice'), action: action('read'), resource: record('record-1') }

    for (const body of [ask, { ...ask, evaluations: [] }]) {
      const response = await root.post(EVALUATIONS, body)
      t.equal(response.statusCode, 200)
      t.equal(response.body, '{"decision":true}')
    }
  })

  await t.test('Search: who, what and which', async (t) => {
    const { results: readers } = await search('subject', {
      subject: { type: 'user' },
      action: action('read'),
      resource: record('record-1'),
      context: { time: 'now' },
    })
    const { results: readable } = await search('resource', {
      subject: user('alice'),
      action: action('read'),
      resource: { type: 'record' },
    })
    const { results: possible } = await search('action', {
      subject: user('alice'),
      resource: record('record-1'),
    })

    t.same(readers, [user('alice'), user('bob')])
    t.same(readable, [record('record-1'), record('record-2')])
    t.same(possible, [{ name: 'read' }, { name: 'write' }])
  })

  await t.test('Search: by properties, of the request and stored', async (t) => {
    for (const [properties, role] of [
      [ARCHIVED, ADMIN],
      [undefined, undefined],
    ]) {
      t.same(
        (
          await search('subject', {
            subject: { type: 'user' },
            action: action('write'),
            resource: record('record-2', properties),
          })
        ).results,
        [user('bob')],
      )
      t.same(
        (
          await search('resource', {
            subject: user('bob', role),
            action: action('write'),
            resource: { type: 'record' },
          })
        ).results,
        [record('record-2')],
      )
      t.same(
        (await search('action', { subject: user('bob', role), resource: record('record-2', properties) }))
          .results,
        [{ name: 'read' }, { name: 'write' }],
      )
    }
  })

  await t.test('Search: whoever and whatever is unknown is found nowhere', async (t) => {
    const read = action('read')
    for (const [searched, body] of [
      ['action', { subject: user('nonexistent-user'), resource: record('record-1') }],
      ['action', { subject: { type: 'spaceship', id: 'alice' }, resource: record('record-1') }],
      ['action', { subject: user('alice'), resource: { type: 'spaceship', id: 'record-1' } }],
      ['subject', { subject: { type: 'spaceship' }, action: read, resource: record('record-1') }],
      ['subject', { subject: { type: 'user' }, action: read, resource: { type: 'spaceship', id: 'x' } }],
      ['subject', { subject: { type: 'user' }, action: action('fly'), resource: record('record-1') }],
      ['resource', { subject: user('nonexistent-user'), action: read, resource: { type: 'record' } }],
      ['resource', { subject: user('alice'), action: read, resource: { type: 'spaceship' } }],
      ['resource', { subject: user('alice'), action: action('fly'), resource: { type: 'record' } }],
    ] as const) {
      const response = await root.post(`/access/v1/search/${searched}`, body)

      t.equal(response.statusCode, 200, JSON.stringify(body))
      t.equal(response.body, '{"results":[]}', JSON.stringify(body))
    }
  })

  await t.test('Discovery: the metadata names the endpoints, and they answer', async (t) => {
    const response = await anonymous.get('/.well-known/authzen-configuration')

    t.equal(response.statusCode, 200)
    t.match(response.headers['content-type'], /^application\/json/)
    t.match(response.headers['cache-control'], /max-age=\d+/)
    const { policy_decision_point: identifier, ...endpoints } = response.json<Record<string, string>>()
    t.equal(identifier, config.http.publicUrl)
    t.same(endpoints, {
      access_evaluation_endpoint: `${identifier}/access/v1/evaluation`,
      access_evaluations_endpoint: `${identifier}/access/v1/evaluations`,
      search_subject_endpoint: `${identifier}/access/v1/search/subject`,
      search_resource_endpoint: `${identifier}/access/v1/search/resource`,
      search_action_endpoint: `${identifier}/access/v1/search/action`,
    })
    const ask = { subject: user('alice'), action: action('read'), resource: record('record-1') }
    for (const endpoint of Object.values(endpoints))
      t.equal((await root.post(new URL(endpoint).pathname, ask)).statusCode, 200, endpoint)
  })
})

t.test('a decision point below a path has its metadata where the standard looks for it', async (t) => {
  const { anonymous } = await certified(t, { PUBLIC_URL: 'https://pdp.test/tenant1' })

  for (const path of ['/.well-known/authzen-configuration/tenant1', '/.well-known/authzen-configuration']) {
    const { policy_decision_point, access_evaluation_endpoint } = (await anonymous.get(path)).json<
      Record<string, string>
    >()
    t.equal(policy_decision_point, 'https://pdp.test/tenant1', path)
    t.equal(access_evaluation_endpoint, 'https://pdp.test/tenant1/access/v1/evaluation', path)
  }
})
