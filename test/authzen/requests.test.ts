import type { InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { isProblem, pointersOf } from '../helpers/hostile.ts'
import { action, certified, EVALUATION, EVALUATIONS, record, user } from './certified.ts'

const GOOD = { subject: user('alice'), action: action('read'), resource: record('record-1') }
const WRONG = [null, true, 5, 'x', ['x']]
const NO_TEXT = [null, true, 5, {}, ['x'], '']
const PATHS = [
  EVALUATION,
  EVALUATIONS,
  ...['subject', 'resource', 'action'].map((one) => `/access/v1/search/${one}`),
]

type Fields = Record<string, unknown>
const without = (entity: Fields, field: string): Fields =>
  Object.fromEntries(Object.entries(entity).filter(([name]) => name !== field))

/** Every way in which an entity can be wrong, and the pointer to it. */
function faultsOf(name: 'subject' | 'action' | 'resource', required: readonly string[]): [Fields, string][] {
  const good = GOOD[name] as Fields
  return [
    [without(GOOD, name), `/body/${name}`],
    ...WRONG.map((value): [Fields, string] => [{ ...GOOD, [name]: value }, `/body/${name}`]),
    ...required.flatMap((field): [Fields, string][] => [
      [{ ...GOOD, [name]: without(good, field) }, `/body/${name}/${field}`],
      ...NO_TEXT.map((value): [Fields, string] => [
        { ...GOOD, [name]: { ...good, [field]: value } },
        `/body/${name}/${field}`,
      ]),
    ]),
    ...WRONG.map((value): [Fields, string] => [
      { ...GOOD, [name]: { ...good, properties: value } },
      `/body/${name}/properties`,
    ]),
  ]
}

const ENTITIES = { subject: ['type', 'id'], action: ['name'], resource: ['type', 'id'] } as const
const CONTEXTS = WRONG.map((value): [Fields, string] => [{ ...GOOD, context: value }, '/body/context'])
const PAGES = [
  ...WRONG.map((value): [Fields, string] => [{ ...GOOD, page: value }, '/body/page']),
  ...[null, true, '5', 1.5, -1, {}].map((limit): [Fields, string] => [
    { ...GOOD, page: { limit } },
    '/body/page/limit',
  ]),
  ...[null, true, 5, {}].map((token): [Fields, string] => [{ ...GOOD, page: { token } }, '/body/page/token']),
]

t.test(
  'whatever is missing or of the wrong type is 400 with a pointer, and nothing is read into it',
  async (t) => {
    const { root } = await certified(t)
    const all = [
      ...faultsOf('subject', ENTITIES.subject),
      ...faultsOf('action', ENTITIES.action),
      ...faultsOf('resource', ENTITIES.resource),
    ]
    const table: [string, [Fields, string][]][] = [
      [EVALUATION, [...all, ...CONTEXTS]],
      [EVALUATIONS, [...all, ...CONTEXTS]],
      [
        '/access/v1/search/subject',
        [
          ...faultsOf('subject', ['type']),
          ...faultsOf('action', ENTITIES.action),
          ...faultsOf('resource', ENTITIES.resource),
          ...CONTEXTS,
          ...PAGES,
        ],
      ],
      [
        '/access/v1/search/resource',
        [
          ...faultsOf('subject', ENTITIES.subject),
          ...faultsOf('action', ENTITIES.action),
          ...faultsOf('resource', ['type']),
          ...CONTEXTS,
          ...PAGES,
        ],
      ],
      [
        '/access/v1/search/action',
        [
          ...faultsOf('subject', ENTITIES.subject),
          ...faultsOf('resource', ENTITIES.resource),
          ...CONTEXTS,
          ...PAGES,
        ],
      ],
    ]

    for (const [path, faults] of table) {
      t.equal((await root.post(path, GOOD)).statusCode, 200, path)
      for (const [body, pointer] of faults) {
        const response = await root.post(path, body)
        const what = `${path} ${JSON.stringify(body)}`
        t.equal(response.statusCode, 400, what)
        isProblem(t, response, 'invalid_request', what)
        t.ok(pointersOf(response).includes(pointer), `${what}: ${pointersOf(response)}`)
      }
    }
  },
)

t.test('what a search does not ask for is ignored, whatever it is', async (t) => {
  const { search } = await certified(t)

  for (const id of [null, 5, {}, '', 'bob']) {
    const who = await search('subject', { ...GOOD, subject: { type: 'user', id } })
    const which = await search('resource', { ...GOOD, resource: { type: 'record', id } })
    const what = await search('action', { ...GOOD, action: id })

    t.same(who.results, [user('alice'), user('bob')])
    t.same(which.results, [record('record-1'), record('record-2')])
    t.same(what.results, [{ name: 'read' }, { name: 'write' }])
  }
})

t.test('a body that is no JSON object is 400', async (t) => {
  const { app, rootToken } = await certified(t)

  for (const url of PATHS) {
    const send = async (payload: string | undefined, contentType: string | undefined) =>
      await app.inject({
        method: 'POST',
        url,
        headers: {
          authorization: `Bearer ${rootToken}`,
          ...(contentType && { 'content-type': contentType }),
        },
        ...(payload !== undefined && { payload }),
      } satisfies InjectOptions)
    const json = 'application/json'
    const good = JSON.stringify(GOOD)
    const deep = `${good.slice(0, -1)},"context":${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}}`
    const deepList = `${good.slice(0, -1)},"context":{"a":${'['.repeat(5000)}${']'.repeat(5000)}}}`

    for (const type of [json, 'application/json; charset=utf-8', 'APPLICATION/JSON'])
      t.equal((await send(good, type)).statusCode, 200, `${url} ${type}`)
    for (const [what, response] of [
      ['XML', await send('<a/>', 'application/xml')],
      ['JSON said to be XML', await send(good, 'application/xml')],
      ['JSON said to be text', await send(good, 'text/plain')],
      ['JSON said to be a form', await send(good, 'application/x-www-form-urlencoded')],
      ['JSON said to be nothing', await send(good, undefined)],
      ['JSON said to be no type', await send(good, 'json')],
      ['another kind of JSON', await send(good, 'application/jsonlines')],
      ['nothing', await send(undefined, undefined)],
      ['nothing said to be JSON', await send('', json)],
      ['a list', await send('[]', json)],
      ['a list of one', await send(`[${good}]`, json)],
      ['a text', await send('"x"', json)],
      ['a number', await send('5', json)],
      ['null', await send('null', json)],
      ['deep objects', await send(deep, json)],
      ['deep lists', await send(deepList, json)],
    ] as const) {
      t.equal(response.statusCode, 400, `${url} ${what}`)
      isProblem(t, response, 'invalid_request', `${url} ${what}`)
    }
    for (const [what, payload] of [
      ['broken', '{'],
      ['a form', 'subject=alice'],
      ['two objects', `${good}${good}`],
      ['__proto__', good.replace('{', '{"__proto__":{"subject":1},')],
      [
        '__proto__ in properties',
        good.replace('"alice"', '"alice","properties":{"__proto__":{"role":"admin"}}'),
      ],
      ['constructor', good.replace('{', '{"constructor":{"prototype":{}},')],
    ] as const) {
      isProblem(t, await send(payload, json), 'malformed_request', `${url} ${what}`)
    }
    isProblem(
      t,
      await send(`${good.slice(0, -1)},"x":"${'x'.repeat(1_048_577)}"}`, json),
      'payload_too_large',
      url,
    )
    const large = await send(`${good.slice(0, -1)},"context":{"x":"${'x'.repeat(1_000_000)}"}}`, json)
    t.equal(large.statusCode, 200, 'a megabyte that is within the limit')
  }
})

t.test('ids and names are any text', async (t) => {
  const { root, evaluate } = await certified(t)
  const strange = [
    ' ',
    'a b',
    'a:b#c',
    '__proto__',
    'constructor',
    'toString',
    'a\0b',
    '\ud800',
    '😀'.repeat(300),
    'x'.repeat(20_000),
    "' or 1=1; --",
    '%_\\',
    '../../etc/passwd',
    'postern.users',
  ]

  for (const text of strange) {
    for (const [subject, what, resource] of [
      [user(text), action('read'), record('record-1')],
      [{ type: text, id: 'alice' }, action('read'), record('record-1')],
      [user('alice'), action(text), record('record-1')],
      [user('alice'), action('read'), { type: text, id: 'record-1' }],
      [user('alice', { tenant: text }), action('read'), record('record-1', { tenant: text })],
    ] as const)
      t.same(await evaluate(subject, what, resource), { decision: false }, JSON.stringify(text).slice(0, 80))
    t.equal(
      (await evaluate(user('alice'), action('read'), record(text))).decision,
      true,
      'a reader reads all',
    )
    for (const searched of ['subject', 'resource', 'action']) {
      const response = await root.post(`/access/v1/search/${searched}`, {
        subject: user(text),
        action: action('read'),
        resource: { type: text, id: text },
        page: { limit: 5 },
      })
      t.equal(response.body, '{"page":{"next_token":""},"results":[]}')
    }
  }
})

t.test('properties named like those of every object are attributes like others', async (t) => {
  const { evaluate } = await certified(t)
  const odd = {
    toString: 1,
    hasOwnProperty: 'x',
    valueOf: null,
    __defineGetter__: {},
    length: 1e9,
    '': { '': [] },
  }

  t.same(
    await evaluate(user('alice', odd), action('write', odd), record('record-1', odd), { context: odd }),
    {
      decision: true,
    },
  )
  t.same(await evaluate(user('bob', odd), action('write', odd), record('record-1', odd)), { decision: false })
})

t.test('X-Request-ID comes back as it was sent, whatever the answer', async (t) => {
  const { app, rootToken, person } = await certified(t)
  const guest = await person('GUEST')
  const send = async (id: string, options: InjectOptions, token: string | undefined = rootToken) =>
    await app.inject({
      method: 'POST',
      payload: GOOD,
      ...options,
      headers: { ...(token && { authorization: `Bearer ${token}` }), 'x-request-id': id, ...options.headers },
    })
  const json = { 'content-type': 'application/json' }
  const answers: [number, InjectOptions, string?][] = [
    ...PATHS.map((url): [number, InjectOptions] => [200, { url }]),
    [200, { url: '/.well-known/authzen-configuration', method: 'GET' }],
    [400, { url: EVALUATION, payload: {} }],
    [400, { url: EVALUATION, payload: '{', headers: json }],
    [400, { url: EVALUATION, payload: '<x/>', headers: { 'content-type': 'application/xml' } }],
    [401, { url: EVALUATION }, ''],
    [401, { url: EVALUATION }, 'no token of ours'],
    [403, { url: EVALUATION }, guest.token],
    [404, { url: '/access/v1/nothing' }],
    [405, { url: EVALUATION, method: 'GET' }],
    [413, { url: EVALUATION, payload: 'x'.repeat(1_048_577), headers: json }],
  ]

  for (const id of ['bfe9eb29-ab87-4ca3-be83-a1d5d8305716', 'a b/c?"<d>{e}', '~'.repeat(256)]) {
    for (const [status, options, token] of answers) {
      const response = await send(id, options, token)
      const what = `${String(options.url)} ${status} ${id}`
      t.equal(response.statusCode, status, what)
      t.equal(response.headers['x-request-id'], id, what)
    }
  }
  for (const id of ['~'.repeat(257), 'é', '', '\t']) {
    const response = await send(id, { url: EVALUATION })
    t.equal(response.statusCode, 200)
    t.match(response.headers['x-request-id'], /^[0-9a-f-]{36}$/, 'an id of our own')
  }
})

t.test('who may not ask is told so, and how to', async (t) => {
  const { root, app, person } = await certified(t)
  const guest = await person('GUEST')
  const ask = async (url: string, authorization?: string) =>
    await app.inject({
      method: 'POST',
      url,
      payload: GOOD,
      headers: { ...(authorization && { authorization }) },
    })

  for (const url of PATHS) {
    const nobody = await ask(url)
    const stranger = await ask(url, 'Bearer permit_key_of_nobody')
    const basic = await ask(url, 'Basic YWxpY2U6eA==')
    const powerless = await ask(url, `Bearer ${guest.token}`)

    t.same(
      [nobody, stranger, basic, powerless].map(({ statusCode }) => statusCode),
      [401, 401, 401, 403],
      url,
    )
    for (const refused of [nobody, stranger, basic])
      t.match(refused.headers['www-authenticate'], /^Bearer realm=/)
    t.match(powerless.headers['www-authenticate'], /insufficient_scope.*postern\.policy:check/)
  }
  t.equal((await root.post(EVALUATION, GOOD)).statusCode, 200)
})

t.test('an API key asks, of every access and level', async (t) => {
  const { root, as } = await certified(t)

  for (const access of ['read', 'full'])
    for (const level of ['environment', 'org']) {
      const issued = await root.post('/api/v1/api-keys', { name: `${access} ${level}`, access, level })
      t.equal(issued.statusCode, 201, issued.body)
      const client = as(issued.json<{ key: string }>().key)

      t.same((await client.post(EVALUATION, GOOD)).json(), { decision: true }, `${access} ${level}`)
      await asksEverything(t, async (path) => (await client.post(path, GOOD)).statusCode)
    }
})

async function asksEverything(t: Test, ask: (path: string) => Promise<number>): Promise<void> {
  for (const path of PATHS) t.equal(await ask(path), 200, path)
}

t.test('the reason is told when the request or the configuration wants it, and not otherwise', async (t) => {
  const quiet = await certified(t)
  const talkative = await certified(t, { POLICY_DEBUG: 'true' })
  const wants = { options: { reason: true } }
  const reads = [user('alice'), action('read'), record('record-1')] as const
  const writes = [user('alice'), action('write'), record('record-1')] as const
  const flies = [user('alice'), action('fly'), record('record-1')] as const

  t.same(await quiet.evaluate(...reads), { decision: true })
  t.same(await quiet.evaluate(...reads, { options: { reason: 'yes' } }), { decision: true })
  const becauseOfRole = { decision: true, context: { reason: 'reader in default may record:read' } }
  const becauseOfRule = { decision: true, context: { reason: 'alice may record:write on not_archived' } }
  const becauseOfNothing = { decision: false, context: { reason: 'record has no action fly' } }
  t.same(await quiet.evaluate(...reads, wants), becauseOfRole)
  t.same(await quiet.evaluate(...writes, wants), becauseOfRule)
  t.same(await quiet.evaluate(...flies, wants), becauseOfNothing)
  t.match(await quiet.evaluate({ type: 'robot', id: 'r2' }, action('read'), record('record-1'), wants), {
    decision: false,
    context: { reason: /type of subject/ },
  })
  const evaluations = [{}, { action: action('fly') }, { action: action('write') }]
  const [first, ...rest] = [becauseOfRole, becauseOfNothing, becauseOfRule]
  const asked = { subject: user('alice'), action: action('read'), resource: record('record-1'), evaluations }
  t.same(await quiet.evaluateAll({ ...asked, ...wants }), [first, ...rest])
  const untilYes = { reason: true, evaluations_semantic: 'permit_on_first_permit' }
  t.same(await quiet.evaluateAll({ ...asked, options: untilYes }), [first])
  t.same(await talkative.evaluate(...reads), becauseOfRole)
})

t.test('the types of subjects that are users are configured', async (t) => {
  const usual = await certified(t)
  const own = await certified(t, { AUTHZEN_SUBJECT_TYPES: 'person, bot' })
  const as = (type: string) => [{ type, id: 'alice' }, action('read'), record('record-1')] as const
  const decisions = async ({ evaluate }: typeof usual, types: string[]) =>
    await Promise.all(types.map(async (type) => (await evaluate(...as(type))).decision))

  t.same(await decisions(usual, ['user', 'identity', 'person', 'User', 'user ']), [
    true,
    true,
    false,
    false,
    false,
  ])
  t.same(await decisions(own, ['user', 'identity', 'person', 'bot', 'person, bot']), [
    false,
    false,
    true,
    true,
    false,
  ])
  const found = await usual.search('subject', { ...GOOD, subject: { type: 'identity' } })
  t.same(found.results, [
    { type: 'identity', id: 'alice' },
    { type: 'identity', id: 'bob' },
  ])
})
