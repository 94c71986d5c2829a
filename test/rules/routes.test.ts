import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList, walk } from '../helpers/lists.ts'

type ConditionSet = {
  id: string
  key: string
  name: string
  type: string
  resource: string | null
  conditions: object
  parent: string | null
  parent_id: string | null
}
type Rule = {
  id: string
  user_set: string | null
  role: string | null
  permission: string
  resource_set: string | null
  resource: string | null
}

const SETS = '/api/v1/condition-sets'
const RULES = '/api/v1/set-rules'
const ADULT = { 'user.age': { 'greater-than-equals': 18 } }

const POLICY = {
  version: 1,
  resources: {
    folder: { actions: ['read'] },
    document: { actions: ['read', 'write'], roles: { owner: { permissions: ['read'] } } },
  },
  roles: { editor: { permissions: ['document:write'] } },
}

/** The application with folders, documents and the role `editor` defined. */
async function withPolicy(t: Parameters<typeof buildTestApp>[0]) {
  const postern = await buildTestApp(t)
  const policy = await postern.root.post('/api/v1/policy', POLICY)
  if (policy.statusCode !== 200) throw new Error(policy.body)
  return postern
}

async function aSet(root: Client, fields: Record<string, unknown> = {}): Promise<ConditionSet> {
  const response = await root.post(SETS, {
    key: crypto.randomUUID(),
    type: 'userset',
    conditions: ADULT,
    ...fields,
  })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<ConditionSet>()
}

const drafts = {
  type: 'resourceset',
  resource: 'document',
  conditions: { 'resource.draft': { equals: true } },
}

const statuses = (responses: readonly { statusCode: number }[]): number[] =>
  responses.map(({ statusCode }) => statusCode).sort()
const keysOf = async (client: Client, query: string): Promise<string[]> =>
  (await client.get(`${SETS}?${query}`)).json<ConditionSet[]>().map(({ key }) => key)
const rulesOf = async (client: Client, query = ''): Promise<string[]> =>
  (await client.get(`${RULES}?${query}`))
    .json<Rule[]>()
    .map((rule) => `${rule.user_set ?? rule.role} ${rule.permission} ${rule.resource_set ?? rule.resource}`)
const auditOf = async ({ root }: TestApp, action: string) =>
  (await root.get(`/api/v1/audit-events?action=${action}`)).json<{ target_id: string; details: object }[]>()

t.test('a condition set lives: it is created, read, changed and deleted', async (t) => {
  const postern = await withPolicy(t)
  const { root } = postern

  const response = await root.post(`${SETS}/`, {
    key: 'adults',
    name: 'Adults',
    type: 'userset',
    description: 'Of age',
    conditions: ADULT,
  })

  t.equal(response.statusCode, 201)
  const set = response.json<ConditionSet>()
  const path = `${SETS}/${set.id}`
  t.match(set, {
    key: 'adults',
    name: 'Adults',
    type: 'userset',
    resource: null,
    description: 'Of age',
    conditions: ADULT,
    parent: null,
    parent_id: null,
  })
  t.equal(response.headers['location'], path)
  t.same((await root.get(path)).json(), set)

  const conditions = { allOf: [ADULT, { not: { 'user.email': { contains: '@x' } } }] }
  const changed = await root.patch(path, { name: 'Grown-ups', description: null, conditions })
  t.match(changed.json(), { key: 'adults', name: 'Grown-ups', description: null, conditions })
  t.same((await root.patch(path, { conditions: {} })).json<ConditionSet>().conditions, {})
  t.equal((await root.get(path)).json<ConditionSet>().name, 'Grown-ups', 'absent fields stay')

  t.equal((await root.delete(path)).statusCode, 204)
  for (const gone of [await root.get(path), await root.patch(path, { name: 'x' }), await root.delete(path)])
    isProblem(t, gone, 'condition_set_not_found')
  for (const action of ['condition_set.created', 'condition_set.updated', 'condition_set.deleted'])
    t.match((await auditOf(postern, action))[0], { target_id: set.id, details: { key: 'adults' } })
  t.equal((await aSet(root, { key: 'adults' })).name, 'adults', 'the name is the key, unless it is given')
})

t.test('a condition set is created', async (t) => {
  const { root, app, rootToken, services } = await withPolicy(t)

  await t.test('of instances of a resource of the application', async (t) => {
    const set = await aSet(root, { key: 'drafts', ...drafts })

    t.match(set, { type: 'resourceset', resource: 'document', conditions: drafts.conditions })
    const body = { ...drafts, key: 'x' }
    isProblem(t, await root.post(SETS, { ...body, resource: 'nothing' }), 'resource_not_found')
    const without = await root.post(SETS, { ...body, resource: undefined })
    isProblem(t, without, 'validation_failed')
    t.same(pointersOf(without), ['/body/resource'])
    const user = await root.post(SETS, { ...body, type: 'userset' })
    t.same(pointersOf(user), ['/body/resource'])
    const { rules } = services.modelOf(DEFAULT_ENVIRONMENT)
    await t.rejects(
      rules.createConditionSet(SYSTEM, { ...body, type: 'resourceset', resource: 'postern.users' }),
      { code: 'resource_not_found' },
    )
    const [{ id } = { id: '' }] = (
      await services.database.pool.query<{ id: string }>(`select id from resources where key = 'document'`)
    ).rows
    const byId = await rules.createConditionSet(SYSTEM, {
      ...body,
      key: 'by-id',
      type: 'resourceset',
      resource: id,
    })
    t.equal(byId.resource, 'document', 'a face may name it by id')
  })

  await t.test('once: user sets and resource sets share their keys', async (t) => {
    const { key, id } = await aSet(root)
    for (const taken of [key, id]) {
      isProblem(
        t,
        await root.post(SETS, { key: taken, type: 'userset', conditions: {} }),
        'condition_set_key_taken',
      )
      isProblem(t, await root.post(SETS, { ...drafts, key: taken }), 'condition_set_key_taken')
    }
    const raced = await Promise.all(
      ['userset', 'userset', 'resourceset'].map(
        async (type) =>
          await root.post(SETS, {
            key: 'raced',
            type,
            conditions: {},
            ...(type === 'resourceset' && { resource: 'document' }),
          }),
      ),
    )
    t.same(statuses(raced), [201, 409, 409])
  })

  await t.test('and every fault is named by a pointer', async (t) => {
    const fine = { key: 'k', type: 'userset', conditions: {} }
    for (const [body, pointer] of [
      [{ ...fine, key: undefined }, '/body/key'],
      [{ ...fine, key: 'a b' }, '/body/key'],
      [{ ...fine, key: 'x'.repeat(129) }, '/body/key'],
      [{ ...fine, name: '' }, '/body/name'],
      [{ ...fine, type: undefined }, '/body/type'],
      [{ ...fine, type: 'set' }, '/body/type'],
      [{ ...fine, conditions: undefined }, '/body/conditions'],
      [{ ...fine, conditions: [] }, '/body/conditions'],
      [{ ...fine, conditions: null }, '/body/conditions'],
      [{ ...fine, conditions: { age: { equals: 1 } } }, '/body/conditions/age'],
      [{ ...fine, conditions: { 'user.a/b': { 'is~not': 1 } } }, '/body/conditions/user.a~1b/is~0not'],
      [
        { ...fine, conditions: { allOf: [{}, { 'user.age': { 'less-than': 'x', between: [1] } }] } },
        '/body/conditions/allOf/1/user.age/between',
      ],
      [{ ...fine, parent: '' }, '/body/parent'],
      [{ ...fine, description: 'x'.repeat(1001) }, '/body/description'],
      [{ ...fine, autogenerated: true }, '/body/autogenerated'],
    ] as const) {
      const response = await root.post(SETS, body)
      isProblem(t, response, 'validation_failed', JSON.stringify(body).slice(0, 90))
      t.ok(pointersOf(response).includes(pointer), `${pointer}: ${pointersOf(response)}`)
    }
    const unstorable = { ...fine, conditions: { 'user.name': { equals: 'a\0b' } } }
    isProblem(t, await root.post(SETS, unstorable), 'validation_failed', 'U+0000')
    t.same(await keysOf(root, 'key=k'), [], 'nothing was written')
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: SETS })
    const { id } = await aSet(root)
    await refusesBadBodies(t, { app, token: rootToken, method: 'PATCH', url: `${SETS}/${id}` })
    const faulty = await root.patch(`${SETS}/${id}`, { conditions: { age: 1 } })
    t.same(pointersOf(faulty), ['/body/conditions/age'])
    for (const body of [{ key: 'x' }, { type: 'userset' }, { resource: 'document' }, { conditions: null }])
      isProblem(t, await root.patch(`${SETS}/${id}`, body), 'validation_failed', JSON.stringify(body))
  })

  await t.test('but not with conditions that are too deep, too many or too large', async (t) => {
    let deep: object = ADULT
    for (let level = 0; level < 100; level++) deep = level % 2 ? { not: deep } : { allOf: [deep] }
    let shallow: object = ADULT
    for (let level = 0; level < 40; level++) shallow = { not: shallow }
    const wide = { anyOf: Array.from({ length: 20_000 }, () => ADULT) }
    const long = { 'user.role': { in: Array.from({ length: 100_000 }, (_, index) => index) } }
    const large = { 'user.name': { equals: 'x'.repeat(1_048_576) } }
    const before = await keysOf(root, 'limit=1000')

    for (const [conditions, code] of [
      [deep, 'validation_failed'],
      [shallow, 'validation_failed'],
      [wide, 'validation_failed'],
      [long, 'validation_failed'],
      [large, 'payload_too_large'],
    ] as const)
      isProblem(t, await root.post(SETS, { key: 'hostile', type: 'userset', conditions }), code)
    const responses = await Promise.all(
      Array.from(
        { length: 10 },
        async () => await root.post(SETS, { key: 'hostile', type: 'userset', conditions: wide }),
      ),
    )
    t.same(new Set(statuses(responses)), new Set([422]))
    t.same(await keysOf(root, 'limit=1000'), before)
  })
})

t.test('a condition set has a parent of its own kind', async (t) => {
  const { root } = await withPolicy(t)
  const adults = await aSet(root, { key: 'adults' })
  const folders = await aSet(root, { key: 'folders', ...drafts, resource: 'folder' })
  await aSet(root, { key: 'drafts', ...drafts })

  await t.test('named by key or id', async (t) => {
    const seniors = await aSet(root, { key: 'seniors', parent: 'adults' })
    t.match(seniors, { parent: 'adults', parent_id: adults.id })
    t.equal((await aSet(root, { parent: adults.id.toUpperCase() })).parent, 'adults')
    const path = `${SETS}/${seniors.id}`
    t.equal((await root.patch(path, { name: 'x' })).json<ConditionSet>().parent, 'adults')
    t.equal((await root.patch(path, { parent: null })).json<ConditionSet>().parent, null)
    t.equal((await root.patch(path, { parent: adults.id })).json<ConditionSet>().parent, 'adults')
    t.same((await keysOf(root, 'parent=adults')).length, 2)
    t.same(await keysOf(root, `parent=${seniors.id}`), [])
  })

  await t.test('that is there', async (t) => {
    const body = { key: 'x', type: 'userset', conditions: {} }
    for (const parent of ['nothing', NO_SUCH_ID]) {
      const response = await root.post(SETS, { ...body, parent })
      isProblem(t, response, 'condition_set_not_found')
      t.same(pointersOf(response), ['/body/parent'])
    }
    for (const refused of [
      await root.post(SETS, { ...body, parent: 'drafts' }),
      await root.post(SETS, { ...drafts, key: 'x', parent: 'adults' }),
      await root.post(SETS, { ...drafts, key: 'x', parent: 'folders' }),
      await root.patch(`${SETS}/${folders.id}`, { parent: 'drafts' }),
    ]) {
      isProblem(t, refused, 'validation_failed')
      t.same(pointersOf(refused), ['/body/parent'])
    }
  })

  await t.test('and is none of its ancestors', async (t) => {
    const line = [await aSet(root)]
    for (let index = 0; index < 4; index++) line.push(await aSet(root, { parent: line.at(-1)?.key }))
    const [first, , third] = line
    for (const parent of line.map(({ key }) => key))
      isProblem(t, await root.patch(`${SETS}/${first?.id}`, { parent }), 'condition_set_cycle')
    isProblem(t, await root.patch(`${SETS}/${third?.id}`, { parent: third?.id }), 'condition_set_cycle')
    t.equal((await root.patch(`${SETS}/${third?.id}`, { parent: first?.id })).statusCode, 200)
  })

  await t.test('not even when two of them become each other’s parent at once', async (t) => {
    for (let round = 0; round < 5; round++) {
      const [a, b, c] = [await aSet(root), await aSet(root), await aSet(root)]

      const responses = await Promise.all([
        root.patch(`${SETS}/${a.id}`, { parent: b.id }),
        root.patch(`${SETS}/${b.id}`, { parent: c.id }),
        root.patch(`${SETS}/${c.id}`, { parent: a.id }),
      ])

      t.same(statuses(responses), [200, 200, 409])
    }
  })

  await t.test('which stays while it is one', async (t) => {
    isProblem(t, await root.delete(`${SETS}/${adults.id}`), 'condition_set_has_children')
    const parent = await aSet(root)
    const child = await aSet(root, { parent: parent.key })
    isProblem(t, await root.delete(`${SETS}/${parent.id}`), 'condition_set_has_children')
    t.equal((await root.delete(`${SETS}/${child.id}`)).statusCode, 204)
    const raced = await Promise.all([
      root.delete(`${SETS}/${parent.id}`),
      root.post(SETS, { key: 'late', type: 'userset', conditions: {}, parent: parent.key }),
    ])
    t.ok(
      [
        [204, 404],
        [201, 409],
      ].some((expected) => String(expected) === String(statuses(raced))),
      String(statuses(raced)),
    )
  })
})

t.test('a list of condition sets', async (t) => {
  const { root } = await withPolicy(t)
  for (const key of ['b', 'c', 'a', 'e']) await aSet(root, { key })
  await aSet(root, { key: 'd', ...drafts })
  await aSet(root, { key: 'f', ...drafts, resource: 'folder' })

  await pagesLikeEveryList(t, { client: root, path: SETS, sorts: ['created_at', 'key'] })

  await t.test('is filtered and sorted', async (t) => {
    t.same(await keysOf(root, 'sort=key'), ['a', 'b', 'c', 'd', 'e', 'f'])
    t.same(await keysOf(root, 'type=resourceset&sort=-key'), ['f', 'd'])
    t.same(await keysOf(root, 'resource=document'), ['d'])
    t.same(await keysOf(root, 'key=c'), ['c'])
    for (const nothing of ['key=C', 'resource=nothing', 'parent=nothing', `parent=${NO_SUCH_ID}`])
      t.same(await keysOf(root, nothing), [])
    isProblem(t, await root.get(`${SETS}?type=set`), 'validation_failed')
    isProblem(t, await root.get(`${SETS}?key=%00`), 'validation_failed')
  })

  await t.test('shows each row once while others are created', async (t) => {
    const before = await keysOf(root, 'limit=1000')
    const walked = await walk<ConditionSet>(root, `${SETS}?limit=2`, async (page) => {
      if (page < 4) await Promise.all([aSet(root), aSet(root)])
    })
    const keys = walked.map(({ key }) => key)
    t.equal(new Set(keys).size, keys.length)
    t.same(keys.slice(0, before.length), before)
  })
})

t.test('a rule lives: it is created, read, listed and deleted', async (t) => {
  const postern = await withPolicy(t)
  const { root } = postern
  await aSet(root, { key: 'adults' })
  await aSet(root, { key: 'drafts', ...drafts })
  const ends = { user_set: null, role: null, resource_set: null, resource: null }
  for (const body of [
    { user_set: 'adults', permission: 'document:read', resource_set: 'drafts' },
    { user_set: 'adults', permission: 'document:read', resource: 'document' },
    { role: 'editor', permission: 'document:write', resource_set: 'drafts' },
    { role: 'document#owner', permission: 'document:write', resource: 'document' },
    { role: 'document#owner', permission: 'folder:read', resource: 'folder' },
  ]) {
    const response = await root.post(`${RULES}/`, body)

    t.equal(response.statusCode, 201, response.body)
    const rule = response.json<Rule>()
    const path = `${RULES}/${rule.id}`
    t.match(rule, { ...ends, ...body })
    t.equal(response.headers['location'], path)
    t.same((await root.get(path)).json(), rule)
    isProblem(t, await root.post(RULES, body), 'set_rule_exists')

    t.equal((await root.delete(path)).statusCode, 204)
    isProblem(t, await root.get(path), 'set_rule_not_found')
    isProblem(t, await root.delete(path), 'set_rule_not_found')
    for (const action of ['set_rule.created', 'set_rule.deleted']) {
      const [event] = await auditOf(postern, action)
      t.match(event, { target_id: rule.id, details: body })
    }
  }
  t.same(await rulesOf(root), [])
})

t.test('a rule joins what is there', async (t) => {
  const { root, app, rootToken, services } = await withPolicy(t)
  const adults = await aSet(root, { key: 'adults' })
  const set = await aSet(root, { key: 'drafts', ...drafts })
  const fine = { user_set: 'adults', permission: 'document:read', resource: 'document' }

  for (const [body, code, pointer] of [
    [{ ...fine, user_set: 'nothing' }, 'condition_set_not_found', '/body/user_set'],
    [{ ...fine, user_set: NO_SUCH_ID }, 'condition_set_not_found', '/body/user_set'],
    [{ ...fine, user_set: 'drafts' }, 'validation_failed', '/body/user_set'],
    [{ ...fine, resource: undefined, resource_set: 'adults' }, 'validation_failed', '/body/resource_set'],
    [{ ...fine, resource: undefined, resource_set: 'no' }, 'condition_set_not_found', '/body/resource_set'],
    [{ ...fine, user_set: undefined }, 'validation_failed', '/body/user_set'],
    [{ ...fine, role: 'editor' }, 'validation_failed', '/body/role'],
    [{ ...fine, resource: undefined }, 'validation_failed', '/body/resource_set'],
    [{ ...fine, resource_set: 'drafts' }, 'validation_failed', '/body/resource'],
    [{ ...fine, resource: 'folder' }, 'validation_failed', '/body/permission'],
    [{ ...fine, permission: 'folder:read' }, 'validation_failed', '/body/permission'],
    [
      { ...fine, permission: 'folder:read', resource: undefined, resource_set: 'drafts' },
      'validation_failed',
      '/body/permission',
    ],
    [{ ...fine, permission: 'document' }, 'validation_failed', '/body/permission'],
    [{ ...fine, permission: undefined }, 'validation_failed', '/body/permission'],
    [{ ...fine, permission: 'postern.users:read' }, 'validation_failed', '/body/permission'],
    [{ ...fine, user_set: undefined, role: 'a b' }, 'validation_failed', '/body/role'],
    [{ ...fine, id: NO_SUCH_ID }, 'validation_failed', '/body/id'],
    [{ ...fine, permission: 'document:fly' }, 'action_not_found', undefined],
    [{ ...fine, permission: 'nothing:read' }, 'action_not_found', undefined],
    [{ ...fine, resource: 'nothing' }, 'resource_not_found', undefined],
    [{ ...fine, user_set: undefined, role: 'nobody' }, 'role_not_found', undefined],
    [{ ...fine, user_set: undefined, role: 'owner' }, 'role_not_found', undefined],
    [{ ...fine, user_set: undefined, role: 'document#editor' }, 'role_not_found', undefined],
    [{ ...fine, user_set: undefined, role: 'folder#owner' }, 'role_not_found', undefined],
    [{ ...fine, user_set: undefined, role: 'SUPER_ADMIN' }, 'role_not_found', undefined],
  ] as const) {
    const response = await root.post(RULES, body)
    isProblem(t, response, code, JSON.stringify(body))
    t.same(pointersOf(response), pointer === undefined ? [] : [pointer])
  }
  const { rules } = services.modelOf(DEFAULT_ENVIRONMENT)
  const builtin = { userSet: 'adults', permission: 'postern.users:read', resource: 'postern.users' }
  await t.rejects(rules.createSetRule(SYSTEM, builtin), { code: 'action_not_found' }, 'whoever calls')
  t.same(await rulesOf(root), [])
  await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: RULES })

  const byId = { user_set: adults.id, permission: 'document:read', resource_set: set.id.toUpperCase() }
  t.match((await root.post(RULES, byId)).json(), { user_set: 'adults', resource_set: 'drafts' })
  const raced = await Promise.all([fine, fine, fine, fine].map(async (body) => await root.post(RULES, body)))
  t.same(statuses(raced), [201, 409, 409, 409])
})

t.test('whoever calls the service says whether a rule that exists or is missing is an error', async (t) => {
  const { services, root } = await withPolicy(t)
  await aSet(root, { key: 'adults' })
  const { rules } = services.modelOf(DEFAULT_ENVIRONMENT)
  const spec = { userSet: 'adults', permission: 'document:read', resource: 'document' }

  const first = await rules.createSetRule(SYSTEM, spec, { existing: 'return' })
  const again = await rules.createSetRule(SYSTEM, spec, { existing: 'return' })

  t.same([first.isNew, again.isNew], [true, false])
  t.same(again.rule, first.rule)
  await t.rejects(rules.createSetRule(SYSTEM, spec), { code: 'set_rule_exists' })
  t.equal(await rules.deleteSetRuleOf(SYSTEM, spec, { missing: 'fail' }), true)
  t.equal(await rules.deleteSetRuleOf(SYSTEM, spec, { missing: 'skip' }), false)
  await t.rejects(rules.deleteSetRuleOf(SYSTEM, spec, { missing: 'fail' }), { code: 'set_rule_not_found' })
})

t.test('a list of rules', async (t) => {
  const { root } = await withPolicy(t)
  await aSet(root, { key: 'adults' })
  const set = await aSet(root, { key: 'drafts', ...drafts })
  for (const body of [
    { user_set: 'adults', permission: 'document:read', resource_set: 'drafts' },
    { user_set: 'adults', permission: 'document:write', resource: 'document' },
    { role: 'editor', permission: 'document:read', resource_set: 'drafts' },
    { role: 'document#owner', permission: 'document:read', resource: 'document' },
    { role: 'editor', permission: 'folder:read', resource: 'folder' },
  ])
    await root.post(RULES, body)

  await pagesLikeEveryList(t, { client: root, path: RULES, sorts: ['created_at'] })

  for (const [query, expected] of [
    ['user_set=adults', ['adults document:read drafts', 'adults document:write document']],
    ['role=editor', ['editor document:read drafts', 'editor folder:read folder']],
    ['role=document%23owner', ['document#owner document:read document']],
    ['permission=folder:read', ['editor folder:read folder']],
    [`resource_set=${set.id}&role=editor`, ['editor document:read drafts']],
    ['resource=document', ['adults document:write document', 'document#owner document:read document']],
    ['role=owner', []],
    ['user_set=nobody', []],
    ['resource=drafts', []],
    ['permission=x', []],
  ] as const) {
    t.same((await rulesOf(root, query)).sort(), [...expected].sort(), query)
    const counted = await root.get(`${RULES}?${query}&total=true&limit=1`)
    t.equal(counted.headers['x-total-count'], String(expected.length), query)
  }
})

t.test('a rule goes with what it names', async (t) => {
  const { root, services } = await withPolicy(t)
  const adults = await aSet(root, { key: 'adults' })
  const set = await aSet(root, { key: 'drafts', ...drafts })
  await root.post(RULES, { user_set: 'adults', permission: 'document:read', resource: 'document' })
  await root.post(RULES, { role: 'editor', permission: 'document:read', resource_set: 'drafts' })
  await root.post(RULES, { role: 'editor', permission: 'document:write', resource: 'document' })
  await root.post(RULES, { role: 'document#owner', permission: 'folder:read', resource: 'folder' })

  await root.delete(`${SETS}/${adults.id}`)
  t.equal((await rulesOf(root)).length, 3)
  await root.delete(`${SETS}/${set.id}`)
  t.same(await rulesOf(root), ['editor document:write document', 'document#owner folder:read folder'])
  await services.database.pool.query(`delete from actions where key = 'write'`)
  t.same(await rulesOf(root), ['document#owner folder:read folder'])
  const raced = await Promise.all([
    root.post(RULES, { role: 'editor', permission: 'document:read', resource: 'document' }),
    root.post(SETS, { key: 'late', ...drafts }),
    services.database.pool
      .query(`delete from resources where key = 'document'`)
      .then(() => ({ statusCode: 204 })),
  ])
  t.ok(
    raced.every(({ statusCode }) => [201, 204, 404].includes(statusCode)),
    String(statuses(raced)),
  )
  t.same(await rulesOf(root), [])
})

t.test('there may be 10,000 sets and 50,000 rules, exactly, however many writers there are', async (t) => {
  const { root, services } = await withPolicy(t)
  const { pool } = services.database
  await aSet(root, { key: 'one-more' })
  await pool.query(
    `insert into condition_sets (id, environment_id, type, key, name, conditions)
     select gen_random_uuid(), $1, 'userset', 's' || n, 's', '{}' from generate_series(1, 9997) n`,
    [DEFAULT_ENVIRONMENT],
  )
  const raced = await Promise.all(
    Array.from(
      { length: 5 },
      async (_, index) => await root.post(SETS, { key: `r${index}`, type: 'userset', conditions: {} }),
    ),
  )
  t.same(statuses(raced), [201, 201, 409, 409, 409])
  isProblem(t, await root.post(SETS, { key: 'x', type: 'userset', conditions: {} }), 'limit_reached')

  await pool.query(
    `insert into set_rules (id, environment_id, user_set_id, action_id, resource_id)
     select gen_random_uuid(), $1, c.id, a.id, a.resource_id from condition_sets c cross join
       (select actions.id, resource_id from actions join resources on resources.id = resource_id
         where not is_builtin) a
     where c.key like 's%'`,
    [DEFAULT_ENVIRONMENT],
  )
  await pool.query(
    `insert into set_rules (id, environment_id, user_set_id, action_id, resource_set_id)
     select gen_random_uuid(), $1, c.id, a.id, s.id from condition_sets c
       cross join (select min(id::text)::uuid as id from actions) a
       cross join (select id from condition_sets where key in ('r0', 'r1', 'r2', 'r3', 'r4', 's1') ) s
     where c.key like 's%' order by c.id, s.id limit 49999 - (select count(*) from set_rules)`,
    [DEFAULT_ENVIRONMENT],
  )
  const rules = await Promise.all(
    ['document:read', 'document:write', 'document:read'].map(
      async (permission) =>
        await root.post(RULES, { user_set: 'one-more', permission, resource: 'document' }),
    ),
  )
  t.same(statuses(rules), [201, 409, 409])
  const last = await root.post(RULES, { user_set: 'one-more', permission: 'folder:read', resource: 'folder' })
  isProblem(t, last, 'limit_reached')
})

t.test('two environments know nothing of each other', async (t) => {
  const { root, services } = await withPolicy(t)
  const [environmentId, resourceId, actionId] = [1, 2, 3].map(() => crypto.randomUUID())
  const { pool } = services.database
  await pool.query(`insert into environments (id, project, key, name) values ($1, 'default', 'dev', 'Dev')`, [
    environmentId,
  ])
  await pool.query('insert into policy_versions (environment_id) values ($1)', [environmentId])
  await pool.query(
    `insert into resources (id, environment_id, key, name) values ($1, $2, 'document', 'document')`,
    [resourceId, environmentId],
  )
  await pool.query(
    `insert into actions (id, environment_id, resource_id, key, name) values ($1, $2, $3, 'read', 'read')`,
    [actionId, environmentId, resourceId],
  )
  const there = services.modelOf(environmentId ?? '').rules
  const ours = await aSet(root, { key: 'adults' })
  const body = { user_set: 'adults', permission: 'document:read', resource: 'document' }
  const ourRule = (await root.post(RULES, body)).json<Rule>()
  const spec = { userSet: 'adults', permission: 'document:read', resource: 'document' }
  const page = { limit: 10, skip: 0, sort: 'created_at', total: true }

  const theirs = await there.createConditionSet(SYSTEM, { key: 'adults', type: 'userset', conditions: {} })
  const { rule } = await there.createSetRule(SYSTEM, spec)

  t.same(
    (await there.listConditionSets({}, page)).items.map(({ id }) => id),
    [theirs.id],
  )
  t.same(
    (await there.listSetRules({}, page)).items.map(({ id }) => id),
    [rule.id],
  )
  t.same(
    [(await there.listConditionSets({}, page)).total, (await there.listSetRules({}, page)).total],
    [1, 1],
  )
  t.equal((await there.getConditionSet('adults')).id, theirs.id)
  for (const [refused, code] of [
    [async () => await there.getConditionSet(ours.id), 'condition_set_not_found'],
    [async () => await there.updateConditionSet(SYSTEM, ours.id, { name: 'x' }), 'condition_set_not_found'],
    [
      async () => await there.updateConditionSet(SYSTEM, theirs.id, { parent: ours.id }),
      'condition_set_not_found',
    ],
    [async () => await there.deleteConditionSet(SYSTEM, ours.id), 'condition_set_not_found'],
    [async () => await there.createSetRule(SYSTEM, { ...spec, userSet: ours.id }), 'condition_set_not_found'],
    [
      async () =>
        await there.createSetRule(SYSTEM, {
          permission: 'document:read',
          resource: 'document',
          role: 'editor',
        }),
      'role_not_found',
    ],
    [
      async () => await there.createSetRule(SYSTEM, { ...spec, permission: 'folder:read' }),
      'action_not_found',
    ],
    [async () => await there.getSetRule(ourRule.id), 'set_rule_not_found'],
    [async () => await there.deleteSetRule(SYSTEM, ourRule.id), 'set_rule_not_found'],
  ] as const)
    await t.rejects(async () => void (await refused()), { code })
  isProblem(t, await root.get(`${SETS}/${theirs.id}`), 'condition_set_not_found')
  isProblem(t, await root.get(`${RULES}/${rule.id}`), 'set_rule_not_found')
  t.same(await rulesOf(root), ['adults document:read document'])
})

t.test('ids that are none are refused wherever they stand', async (t) => {
  const { root } = await buildTestApp(t)

  for (const id of BAD_IDS) {
    for (const [method, path, pointer, body] of [
      ['GET', `${SETS}/${id}`, '/path/condition_set_id'],
      ['PATCH', `${SETS}/${id}`, '/path/condition_set_id', { name: 'x' }],
      ['DELETE', `${SETS}/${id}`, '/path/condition_set_id'],
      ['GET', `${RULES}/${id}`, '/path/set_rule_id'],
      ['DELETE', `${RULES}/${id}`, '/path/set_rule_id'],
    ] as const) {
      const response = await root.send(method, path, body)
      isProblem(t, response, 'validation_failed', `${method} ${path.slice(0, 60)}`)
      t.same(pointersOf(response), [pointer])
    }
  }
})
