import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type Client, type TestApp } from '../helpers/app.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList, walk } from '../helpers/lists.ts'

type Instance = {
  id: string
  resource: string
  key: string
  account: string
  account_id: string
  attributes: Record<string, unknown> | null
}
type Tuple = { id: string; subject: string; relation: string; object: string; account: string }

const INSTANCES = '/api/v1/resource-instances'
const TUPLES = '/api/v1/relationship-tuples'

const POLICY = {
  version: 1,
  resources: {
    folder: { actions: ['read'], relations: { parent: 'folder' } },
    document: {
      actions: ['read'],
      relations: { parent: 'folder', sibling: 'document' },
      roles: { owner: { permissions: ['read'] } },
    },
  },
}

/** The application with folders and documents defined, and a second account, `other`. */
async function withResources(t: Parameters<typeof buildTestApp>[0]) {
  const postern = await buildTestApp(t)
  const policy = await postern.root.post('/api/v1/policy', POLICY)
  if (policy.statusCode !== 200) throw new Error(policy.body)
  const other = await postern.root.post('/api/v1/accounts', { name: 'Other', key: 'other' })
  return { ...postern, other: other.json<{ id: string }>().id }
}

async function anInstance(root: Client, fields: Record<string, unknown> = {}): Promise<Instance> {
  const response = await root.post(INSTANCES, {
    resource: 'document',
    key: crypto.randomUUID(),
    account: 'default',
    ...fields,
  })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json<Instance>()
}

/** A body as the name of an assertion, which must not hold what TAP takes for the end of a line. */
const shown = (body: object): string =>
  JSON.stringify(body)
    .replaceAll(/[^ -~]/g, '?')
    .slice(0, 90)
const keysOf = async (client: Client, query: string): Promise<string[]> =>
  (await client.get(`${INSTANCES}?${query}`)).json<Instance[]>().map(({ key }) => key)
const tuplesOf = async (client: Client, query = ''): Promise<string[]> =>
  (await client.get(`${TUPLES}?${query}`))
    .json<Tuple[]>()
    .map(({ subject, relation, object }) => `${subject} ${relation} ${object}`)
const statuses = (responses: readonly { statusCode: number }[]): number[] =>
  responses.map(({ statusCode }) => statusCode).sort()
const auditOf = async ({ root }: Pick<TestApp, 'root'>, action: string) =>
  (await root.get(`/api/v1/audit-events?action=${action}`)).json<
    { target_id: string; account_id: string | null; details: object; personal: { key?: string } | null }[]
  >()

t.test('an instance lives: it is created, read, changed and deleted', async (t) => {
  const postern = await withResources(t)
  const { root, home } = postern

  const response = await root.post(`${INSTANCES}/`, {
    resource: 'document',
    key: 'q3',
    account: 'default',
    attributes: { confidential: true },
  })

  t.equal(response.statusCode, 201)
  const instance = response.json<Instance>()
  const path = `${INSTANCES}/${instance.id}`
  t.match(instance, {
    resource: 'document',
    key: 'q3',
    account: 'default',
    account_id: home,
    attributes: { confidential: true },
  })
  t.equal(response.headers['location'], path)
  t.same((await root.get(path)).json(), instance)

  const replaced = await root.patch(path, { attributes: { pages: 3 } })
  t.same(replaced.json<Instance>().attributes, { pages: 3 })
  const cleared = await root.patch(path, { attributes: null })
  t.equal(cleared.json<Instance>().attributes, null)
  t.same((await root.get(path)).json(), cleared.json())

  t.equal((await root.delete(path)).statusCode, 204)
  for (const gone of [
    await root.get(path),
    await root.patch(path, { attributes: {} }),
    await root.delete(path),
  ])
    isProblem(t, gone, 'instance_not_found')
  for (const action of ['instance.created', 'instance.updated', 'instance.deleted']) {
    const [event] = await auditOf(postern, action)
    t.match(event, { target_id: instance.id, account_id: home, details: { resource: 'document' } })
    t.equal(event?.personal?.key, 'q3', 'the key is kept with what is personal')
  }
})

t.test('an instance is created', async (t) => {
  const postern = await withResources(t)
  const { root, app, rootToken, other } = postern

  await t.test('in an account named by key, by id, or as the tenant', async (t) => {
    for (const fields of [
      { account: 'other' },
      { account: other },
      { account: other.toUpperCase() },
      { account: undefined, tenant: 'other' },
      { account: 'other', tenant: 'other' },
    ]) {
      const instance = await anInstance(root, fields)
      t.match(instance, { account: 'other', account_id: other })
      t.equal(instance.attributes, null)
    }
    await root.post(`/api/v1/accounts/${other}/deactivate`)
    t.equal((await anInstance(root, { account: 'other' })).account, 'other', 'an inactive one too')
    await root.post(`/api/v1/accounts/${other}/reactivate`)
  })

  await t.test('with any printable key, which comes back as it was', async (t) => {
    for (const key of [
      'a',
      'x'.repeat(512),
      '🚪'.repeat(512),
      'a:b:c',
      'path/to|thing?x=1&y=%20#z',
      'with space',
      'quotes \' " ` \\ and {braces}, NULL',
      'ünï – 文書 \u{1f511}',
      '..',
      '__proto__',
      '%',
      '\u00a0',
    ]) {
      const { id } = await anInstance(root, { key })
      t.equal((await root.get(`${INSTANCES}/${id}`)).json<Instance>().key, key)
      t.same(await keysOf(root, new URLSearchParams({ key, resource: 'document' }).toString()), [key])
      const tuple = await root.post(TUPLES, {
        subject: `document:${key}`,
        relation: 'sibling',
        object: `document:${key}`,
      })
      t.equal(tuple.json<Tuple>().subject, `document:${key}`)
      const found = await tuplesOf(root, new URLSearchParams({ subject: `document:${key}` }).toString())
      t.same(found, [`document:${key} sibling document:${key}`])
    }
  })

  await t.test('once: its key is free on other resources only', async (t) => {
    const { id, key } = await anInstance(root)
    const again = { resource: 'document', key, account: 'default' }

    isProblem(t, await root.post(INSTANCES, again), 'instance_key_taken')
    isProblem(t, await root.post(INSTANCES, { ...again, account: 'other' }), 'instance_key_taken')
    isProblem(t, await root.post(INSTANCES, { ...again, key: id }), 'instance_key_taken', 'an id')
    isProblem(t, await root.post(INSTANCES, { ...again, key: id.toUpperCase() }), 'instance_key_taken')
    t.equal((await root.post(INSTANCES, { ...again, resource: 'folder' })).statusCode, 201)
    const raced = await Promise.all(
      ['default', 'default', 'other', 'other'].map(
        async (account) => await root.post(INSTANCES, { ...again, key: 'raced', account }),
      ),
    )
    t.same(statuses(raced), [201, 409, 409, 409])
  })

  await t.test('under a key that is free again when its account is gone', async (t) => {
    const ended = (await root.post('/api/v1/accounts', { name: 'Ended', key: 'ended' })).json<{
      id: string
    }>()
    const gone = await anInstance(root, { key: 'reused', account: 'ended' })
    t.equal((await root.delete(`/api/v1/accounts/${ended.id}`)).statusCode, 204)
    isProblem(t, await root.get(`${INSTANCES}/${gone.id}`), 'instance_not_found')
    t.not((await anInstance(root, { key: 'reused' })).id, gone.id)
  })

  await t.test('of a resource and in an account that are there', async (t) => {
    const body = { resource: 'document', key: 'k', account: 'default' }

    isProblem(t, await root.post(INSTANCES, { ...body, resource: 'nothing' }), 'resource_not_found')
    isProblem(t, await root.post(INSTANCES, { ...body, account: 'nowhere' }), 'account_not_found')
    isProblem(t, await root.post(INSTANCES, { ...body, account: NO_SUCH_ID }), 'account_not_found')
    const builtin = await root.post(INSTANCES, { ...body, resource: 'postern.users' })
    isProblem(t, builtin, 'validation_failed')
    await t.rejects(
      postern.services
        .modelOf(DEFAULT_ENVIRONMENT)
        .instances.createInstance(SYSTEM, { ...body, resource: 'postern.users' }),
      { code: 'resource_not_found' },
      'whoever calls',
    )
    const gone = await postern.account()
    await root.delete(`/api/v1/accounts/${gone}`)
    isProblem(t, await root.post(INSTANCES, { ...body, account: gone }), 'account_not_found')
  })

  await t.test('and every fault is named by a pointer', async (t) => {
    const fine = { resource: 'document', key: 'k', account: 'default' }
    for (const [body, pointer] of [
      [{ ...fine, resource: undefined }, '/body/resource'],
      [{ ...fine, resource: 'a b' }, '/body/resource'],
      [{ ...fine, key: undefined }, '/body/key'],
      [{ ...fine, key: '' }, '/body/key'],
      [{ ...fine, key: 'x'.repeat(513) }, '/body/key'],
      [{ ...fine, key: 'a\nb' }, '/body/key'],
      [{ ...fine, key: 'a\0b' }, '/body/key'],
      [{ ...fine, key: 'a\u007fb' }, '/body/key'],
      [{ ...fine, key: 'a\u0085b' }, '/body/key'],
      [{ ...fine, key: 'a\u2028b' }, '/body/key'],
      [{ ...fine, key: 'a\ud800b' }, '/body/key'],
      [{ ...fine, key: 5 }, '/body/key'],
      [{ ...fine, account: undefined }, '/body/account'],
      [{ ...fine, account: '' }, '/body/account'],
      [{ ...fine, account: null }, '/body/account'],
      [{ ...fine, tenant: 'other' }, '/body/tenant'],
      [{ ...fine, attributes: [] }, '/body/attributes'],
      [{ ...fine, attributes: 'x' }, '/body/attributes'],
      [{ ...fine, id: NO_SUCH_ID }, '/body/id'],
    ] as const) {
      const response = await root.post(INSTANCES, body)
      isProblem(t, response, 'validation_failed', shown(body))
      t.same(pointersOf(response), [pointer])
    }
    const unstorable = await root.post(INSTANCES, { ...fine, attributes: { a: 'x\0' } })
    isProblem(t, unstorable, 'validation_failed', 'U+0000')
    isProblem(t, await root.post(INSTANCES, { ...fine, attributes: { a: '\ud800' } }), 'validation_failed')
    t.same(await keysOf(root, 'key=k'), [], 'nothing was written')
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: INSTANCES })
    const { id } = await anInstance(root)
    await refusesBadBodies(t, { app, token: rootToken, method: 'PATCH', url: `${INSTANCES}/${id}` })
  })
})

t.test('a list of instances', async (t) => {
  const { root, other } = await withResources(t)
  for (let index = 0; index < 5; index++) await anInstance(root, { key: `listed-${index}` })
  await anInstance(root, { key: 'listed-0', resource: 'folder' })
  await anInstance(root, { key: 'elsewhere', account: 'other' })

  await pagesLikeEveryList(t, { client: root, path: INSTANCES, sorts: ['created_at'] })

  await t.test('is filtered', async (t) => {
    t.same(await keysOf(root, 'resource=folder'), ['listed-0'])
    t.same(await keysOf(root, 'key=listed-0'), ['listed-0', 'listed-0'])
    t.same(await keysOf(root, 'account=other'), ['elsewhere'])
    t.same(await keysOf(root, `account=${other}&resource=document`), ['elsewhere'])
    t.same(await keysOf(root, 'account=other&resource=folder'), [])
    for (const nothing of ['account=nowhere', `account=${NO_SUCH_ID}`, 'resource=nothing', 'key=LISTED-0'])
      t.same(await keysOf(root, nothing), [])
    const counted = await root.get(`${INSTANCES}?resource=document&total=true&limit=1`)
    t.equal(counted.headers['x-total-count'], '6')
    isProblem(t, await root.get(`${INSTANCES}?key=%00`), 'validation_failed')
  })

  await t.test('shows each row once while others are created and deleted', async (t) => {
    const before = await keysOf(root, 'limit=1000')
    const made: string[] = []

    const walked = await walk<Instance>(root, `${INSTANCES}?limit=2`, async (page) => {
      if (page > 3) return
      const [one, two] = await Promise.all([anInstance(root), anInstance(root)])
      made.push(one.id)
      await root.delete(`${INSTANCES}/${two.id}`)
    })

    const ids = walked.map(({ id }) => id)
    t.equal(new Set(ids).size, ids.length)
    t.same(walked.map(({ key }) => key).slice(0, before.length), before)
    t.same(
      made.filter((id) => !ids.includes(id)),
      [],
    )
  })
})

t.test('many instances are written at once', async (t) => {
  const postern = await withResources(t)
  const { root, app, rootToken } = postern
  const path = `${INSTANCES}/bulk`
  const one = (key: string, fields: object = {}) => ({
    resource: 'document',
    key,
    account: 'default',
    ...fields,
  })

  await t.test('new ones are created, those that are there get the attributes that are given', async (t) => {
    const first = await root.put(path, {
      instances: [one('a', { attributes: { n: 1 } }), one('b', { attributes: { n: 1 } }), one('c')],
    })
    const second = await root.put(path, {
      instances: [
        one('d'),
        one('a'),
        one('b', { attributes: { n: 2 } }),
        { resource: 'folder', key: 'a', tenant: 'default' },
      ],
    })

    t.same(
      [first.json(), second.json()],
      [
        { created: 3, updated: 0 },
        { created: 2, updated: 2 },
      ],
    )
    const now = (await root.get(`${INSTANCES}?resource=document`)).json<Instance[]>()
    t.same(Object.fromEntries(now.map(({ key, attributes }) => [key, attributes])), {
      a: { n: 1 },
      b: { n: 2 },
      c: null,
      d: null,
    })
    t.same((await root.put(path, { instances: [] })).json(), { created: 0, updated: 0 })
    t.same(
      (await auditOf(postern, 'instance.bulk_upserted')).map(({ details }) => details),
      [
        { created: 2, updated: 2 },
        { created: 3, updated: 0 },
      ],
      'one row each',
    )
  })

  await t.test('all of them or none', async (t) => {
    const before = await keysOf(root, 'limit=1000')
    const { id } = await anInstance(root, { key: 'theirs', account: 'other' })
    for (const [last, code, pointer] of [
      [one('z', { resource: 'nothing' }), 'resource_not_found', '/body/instances/1/resource'],
      [one('z', { account: 'nowhere' }), 'account_not_found', '/body/instances/1/account'],
      [one('theirs'), 'instance_key_taken', '/body/instances/1/key'],
      [one('new'), 'validation_failed', '/body/instances/1/key'],
      [one('z', { key: 'a\nb' }), 'validation_failed', '/body/instances/1/key'],
      [one('z', { account: undefined }), 'validation_failed', '/body/instances/1/account'],
      [one('z', { tenant: 'other' }), 'validation_failed', '/body/instances/1/tenant'],
      [one('z', { attributes: null }), 'validation_failed', '/body/instances/1/attributes'],
    ] as const) {
      const response = await root.put(path, { instances: [one('new'), last] })
      isProblem(t, response, code, JSON.stringify(last))
      t.same(pointersOf(response), [pointer])
    }
    isProblem(t, await root.put(path, { instances: [one('new'), one(id)] }), 'instance_key_taken')
    t.same((await keysOf(root, 'limit=1000')).sort(), [...before, 'theirs'].sort())
    const tooMany = await root.put(path, {
      instances: Array.from({ length: 1001 }, (_, index) => one(`m${index}`)),
    })
    isProblem(t, tooMany, 'validation_failed')
    t.same(pointersOf(tooMany), ['/body/instances'])
    await refusesBadBodies(t, { app, token: rootToken, method: 'PUT', url: path })
  })

  await t.test('a thousand, by several writers in different orders, while others read', async (t) => {
    const many = Array.from({ length: 1000 }, (_, index) => one(`m${index}`, { attributes: { index } }))

    const [writes, reads] = await Promise.all([
      Promise.all(
        [many, many.toReversed(), many].map(async (instances) => await root.put(path, { instances })),
      ),
      Promise.all(
        Array.from({ length: 10 }, async () => await root.get(`${INSTANCES}?limit=1000&resource=document`)),
      ),
    ])

    const counts = writes.map((response) => response.json<{ created: number; updated: number }>())
    t.equal(
      counts.reduce((sum, { created }) => sum + created, 0),
      1000,
    )
    t.ok(counts.every(({ created, updated }) => created + updated === 1000))
    for (const read of reads) {
      const seen = read.json<Instance[]>().filter(({ key }) => key.startsWith('m'))
      t.ok(seen.length === 0 || seen.length > 900, 'a reader sees none of them or all')
    }
  })
})

t.test('a relationship lives: it is created, read, listed and deleted', async (t) => {
  const postern = await withResources(t)
  const { root, home } = postern
  const folder = await anInstance(root, { resource: 'folder', key: 'finance' })
  const document = await anInstance(root, { key: 'q3' })
  const body = { subject: 'folder:finance', relation: 'parent', object: 'document:q3' }

  const response = await root.post(`${TUPLES}/`, body)

  t.equal(response.statusCode, 201)
  const tuple = response.json<Tuple>()
  const path = `${TUPLES}/${tuple.id}`
  t.match(tuple, {
    ...body,
    subject_id: folder.id,
    object_id: document.id,
    account: 'default',
    account_id: home,
  })
  t.equal(response.headers['location'], path)
  t.same((await root.get(path)).json(), tuple)
  isProblem(t, await root.post(TUPLES, body), 'tuple_exists')
  const byId = { ...body, subject: `folder:${folder.id}`, object: `document:${document.id.toUpperCase()}` }
  isProblem(t, await root.post(TUPLES, byId), 'tuple_exists', 'by the ids of its ends')
  t.same(await tuplesOf(root), ['folder:finance parent document:q3'])

  t.equal((await root.delete(path)).statusCode, 204)
  isProblem(t, await root.get(path), 'tuple_not_found')
  isProblem(t, await root.delete(path), 'tuple_not_found')
  t.equal((await root.post(TUPLES, byId)).json<Tuple>().subject, 'folder:finance')
  for (const action of ['tuple.created', 'tuple.deleted']) {
    t.match((await auditOf(postern, action)).at(-1), {
      target_id: tuple.id,
      account_id: home,
      details: { subject_id: folder.id, relation: 'parent', object_id: document.id },
    })
  }
})

t.test('a relationship creates the instances that are missing, in the account it names', async (t) => {
  const postern = await withResources(t)
  const { root } = postern
  const body = { subject: 'folder:new', relation: 'parent', object: 'document:new' }

  const unnamed = await root.post(TUPLES, body)
  isProblem(t, unnamed, 'instance_not_found')
  t.same(pointersOf(unnamed), ['/body/subject', '/body/object'])
  const nowhere = await root.post(TUPLES, { ...body, account: 'nowhere' })
  isProblem(t, nowhere, 'account_not_found')
  const untyped = await root.post(TUPLES, { ...body, object: 'nothing:new', account: 'other' })
  isProblem(t, untyped, 'resource_not_found')
  t.same(pointersOf(untyped), ['/body/object'])
  const builtin = await root.post(TUPLES, { ...body, object: 'postern.users:x', account: 'other' })
  isProblem(t, builtin, 'validation_failed')
  const mismatched = await root.post(TUPLES, { ...body, relation: 'sibling', account: 'other' })
  isProblem(t, mismatched, 'relation_mismatch')
  t.same(await keysOf(root, 'key=new'), [], 'a refused one creates nothing')

  const created = await root.post(TUPLES, { ...body, tenant: 'other' })

  t.equal(created.json<Tuple>().account, 'other')
  t.same(await keysOf(root, 'account=other'), ['new', 'new'])
  t.equal((await auditOf(postern, 'instance.created')).length, 2)
  await anInstance(root, { resource: 'folder', key: 'ours' })
  const across = await root.post(TUPLES, { ...body, subject: 'folder:ours', account: 'other' })
  isProblem(t, across, 'instances_in_different_accounts')
  const implied = { subject: 'folder:ours', relation: 'parent', object: 'document:fresh', account: 'other' }
  isProblem(t, await root.post(TUPLES, implied), 'instances_in_different_accounts')
  t.same(await keysOf(root, 'key=fresh'), [])
  const self = { subject: 'document:self', relation: 'sibling', object: 'document:self', account: 'other' }
  t.equal((await root.post(TUPLES, self)).statusCode, 201, 'one instance on both ends is created once')
})

t.test('a relationship is what the resources define, and every fault is named by a pointer', async (t) => {
  const { root, app, rootToken } = await withResources(t)
  for (const [resource, key] of [
    ['folder', 'f'],
    ['document', 'd'],
    ['document', 'e'],
  ]) {
    await anInstance(root, { resource, key })
  }
  const fine = { subject: 'folder:f', relation: 'parent', object: 'document:d' }

  for (const [body, code, pointer] of [
    [{ ...fine, relation: 'owner' }, 'relation_mismatch', '/body/relation'],
    [{ ...fine, relation: 'sibling' }, 'relation_mismatch', '/body/relation'],
    [{ ...fine, object: 'folder:f', subject: 'document:d' }, 'relation_mismatch', '/body/relation'],
    [{ ...fine, subject: 'folder' }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: 'folder:' }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: ':f' }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: 'folder:f\n' }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: 'folder:f\u2029' }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: `folder:${'x'.repeat(513)}` }, 'validation_failed', '/body/subject'],
    [{ ...fine, subject: `${'x'.repeat(129)}:f` }, 'validation_failed', '/body/subject'],
    [{ ...fine, object: undefined }, 'validation_failed', '/body/object'],
    [{ ...fine, relation: 'a b' }, 'validation_failed', '/body/relation'],
    [{ ...fine, account: 'a', tenant: 'b' }, 'validation_failed', '/body/tenant'],
    [{ ...fine, id: NO_SUCH_ID }, 'validation_failed', '/body/id'],
  ] as const) {
    const response = await root.post(TUPLES, body)
    isProblem(t, response, code, shown(body))
    t.same(pointersOf(response), [pointer])
  }
  await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: TUPLES })
  t.same(await tuplesOf(root), [])
  const raced = await Promise.all([fine, fine, fine, fine].map(async (body) => await root.post(TUPLES, body)))
  t.same(statuses(raced), [201, 409, 409, 409], 'the same in parallel is made once')
  const implied = { subject: 'folder:race', relation: 'parent', object: 'document:race', account: 'default' }
  const together = await Promise.all(
    [implied, implied, implied].map(async (body) => await root.post(TUPLES, body)),
  )
  t.same(statuses(together), [201, 409, 409], 'and so with instances created on the way')
})

t.test('a list of relationships', async (t) => {
  const { root } = await withResources(t)
  const tuple = (subject: string, relation: string, object: string, account = 'default') => ({
    subject,
    relation,
    object,
    account,
  })
  const created = await root.post(`${TUPLES}/bulk`, {
    create: [
      tuple('folder:a', 'parent', 'folder:b'),
      tuple('folder:a', 'parent', 'document:x'),
      tuple('folder:b', 'parent', 'document:x'),
      tuple('document:y', 'sibling', 'document:x'),
      tuple('folder:b', 'parent', 'document:y'),
      tuple('folder:o', 'parent', 'document:o', 'other'),
    ],
  })
  t.same(created.json(), { created: 6, existing: 0, deleted: 0, missing: 0, instances_created: 6 })

  await pagesLikeEveryList(t, { client: root, path: TUPLES, sorts: ['created_at'] })

  await t.test('is filtered', async (t) => {
    const folderA = (await root.get(`${INSTANCES}?resource=folder&key=a`)).json<Instance[]>()[0]?.id
    for (const [query, expected] of [
      ['subject=folder:a', ['folder:a parent document:x', 'folder:a parent folder:b']],
      [`subject=folder:${folderA}&object_type=folder`, ['folder:a parent folder:b']],
      [`subject=${folderA}&object_type=document`, ['folder:a parent document:x']],
      ['object=document:x&subject_type=document', ['document:y sibling document:x']],
      ['object=document:y', ['folder:b parent document:y']],
      ['relation=sibling', ['document:y sibling document:x']],
      ['account=other', ['folder:o parent document:o']],
      ['subject_type=folder&object_type=folder', ['folder:a parent folder:b']],
      ['subject=folder:none', []],
      ['subject=x', []],
      ['relation=none', []],
      ['account=none', []],
      [`subject=${NO_SUCH_ID}`, []],
    ] as const) {
      t.same((await tuplesOf(root, query)).sort(), expected, query)
      const counted = await root.get(`${TUPLES}?${query}&total=true&limit=1`)
      t.equal(counted.headers['x-total-count'], String(expected.length), query)
    }
    isProblem(t, await root.get(`${TUPLES}?subject=%00`), 'validation_failed')
  })

  await t.test('shows each row once while others are created', async (t) => {
    const before = await tuplesOf(root, 'limit=1000')
    const walked = await walk<Tuple>(root, `${TUPLES}?limit=2`, async (page) => {
      if (page < 3) await root.post(TUPLES, tuple(`folder:w${page}`, 'parent', 'document:x'))
    })
    const names = walked.map(({ subject, relation, object }) => `${subject} ${relation} ${object}`)
    t.equal(new Set(names).size, names.length)
    t.same(names.slice(0, before.length), before)
  })
})

t.test('many relationships are changed at once', async (t) => {
  const postern = await withResources(t)
  const { root, app, rootToken } = postern
  const path = `${TUPLES}/bulk`
  const one = (index: number, fields: object = {}) => ({
    subject: 'folder:f',
    relation: 'parent',
    object: `document:d${index}`,
    account: 'default',
    ...fields,
  })
  const gone = (index: number) => ({ subject: 'folder:f', relation: 'parent', object: `document:d${index}` })

  await t.test('what is so already is passed over', async (t) => {
    const first = await root.post(path, { create: [one(1), one(2), one(2)], delete: [gone(3)] })
    const second = await root.post(path, {
      create: [one(2), one(4)],
      delete: [gone(1), gone(1), gone(9), { ...gone(2), relation: 'none' }, { ...gone(2), object: 'none:x' }],
    })
    const third = await root.post(path, { create: [one(2)], delete: [gone(2)] })

    t.same(first.json(), { created: 2, existing: 1, deleted: 0, missing: 1, instances_created: 3 })
    t.same(second.json(), { created: 1, existing: 1, deleted: 1, missing: 4, instances_created: 1 })
    t.match(third.json(), { created: 1, deleted: 1 }, 'deletions come first')
    t.same((await tuplesOf(root)).sort(), ['folder:f parent document:d2', 'folder:f parent document:d4'])
    t.match((await root.post(path, { delete: [] })).json(), { created: 0, deleted: 0 })
    t.same(
      (await auditOf(postern, 'tuple.bulk_changed')).map(({ details }) => details).length,
      3,
      'one row for each that changed something',
    )
  })

  await t.test('all of it or nothing', async (t) => {
    const before = await tuplesOf(root)
    await anInstance(root, { key: 'theirs', account: 'other' })
    for (const [last, code, pointer] of [
      [one(7, { account: undefined }), 'instance_not_found', '/body/create/1/object'],
      [one(7, { relation: 'sibling' }), 'relation_mismatch', '/body/create/1/relation'],
      [one(7, { account: 'nowhere' }), 'account_not_found', '/body/create/1/account'],
      [one(7, { account: 'other' }), 'instances_in_different_accounts', '/body/create/1/object'],
      [one(7, { object: 'document:theirs' }), 'instances_in_different_accounts', '/body/create/1/object'],
      [one(6, { account: 'other' }), 'instances_in_different_accounts', '/body/create/1/object'],
      [one(7, { object: 'nothing:x' }), 'resource_not_found', '/body/create/1/object'],
      [one(7, { object: 'document' }), 'validation_failed', '/body/create/1/object'],
      [one(7, { tenant: 'other' }), 'validation_failed', '/body/create/1/tenant'],
    ] as const) {
      const response = await root.post(path, { create: [one(6), last], delete: [gone(2)] })
      isProblem(t, response, code, JSON.stringify(last))
      t.same(pointersOf(response), [pointer])
    }
    const unreadable = await root.post(path, { delete: [{ ...gone(2), subject: 'folder:\u0085' }] })
    t.same(pointersOf(unreadable), ['/body/delete/0/subject'])
    const tooMany = await root.post(path, { create: Array.from({ length: 1001 }, (_, index) => one(index)) })
    t.same(pointersOf(tooMany), ['/body/create'])
    t.same(await tuplesOf(root), before)
    t.same(await keysOf(root, 'key=d6'), [])
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url: path })
  })

  await t.test('by several writers in different orders', async (t) => {
    const many = Array.from({ length: 300 }, (_, index) => one(100 + index))
    const responses = await Promise.all(
      [many, many.toReversed(), many].map(async (create) => await root.post(path, { create })),
    )

    const counts = responses.map((response) => response.json<{ created: number; existing: number }>())
    t.same(statuses(responses), [200, 200, 200])
    t.equal(
      counts.reduce((sum, { created }) => sum + created, 0),
      300,
    )
    const removed = await Promise.all(
      [many, many.toReversed()].map(
        async (tuples) =>
          await root.post(path, {
            delete: tuples.map(({ subject, relation, object }) => ({ subject, relation, object })),
          }),
      ),
    )
    t.equal(
      removed.reduce((sum, response) => sum + response.json<{ deleted: number }>().deleted, 0),
      300,
    )
  })
})

t.test('a deleted instance takes its relationships and the roles held on it along', async (t) => {
  const postern = await withResources(t)
  const { root, person, services, home } = postern
  await root.post(`${TUPLES}/bulk`, {
    create: [
      { subject: 'folder:f', relation: 'parent', object: 'document:d', account: 'default' },
      { subject: 'document:d', relation: 'sibling', object: 'document:e', account: 'default' },
      { subject: 'folder:f', relation: 'parent', object: 'document:e', account: 'default' },
    ],
  })
  const [document] = (await root.get(`${INSTANCES}?key=d`)).json<Instance[]>()
  const user = await person('GUEST')
  const { pool } = services.database
  await pool.query(
    `insert into role_assignments (id, environment_id, user_id, role_id, account_id, resource_instance_id)
     select $1, environment_id, $2, id, $3, $4 from roles where key = 'owner'`,
    [crypto.randomUUID(), user.id, home, document?.id],
  )

  t.equal((await root.delete(`${INSTANCES}/${document?.id}`)).statusCode, 204)

  t.same(await tuplesOf(root), ['folder:f parent document:e'])
  const held = await pool.query('select from role_assignments where resource_instance_id is not null')
  t.equal(held.rowCount, 0)
})

t.test('no relationship spans accounts, whatever happens at the same time', async (t) => {
  const { root, services } = await withResources(t)
  const body = { subject: 'folder:f', relation: 'parent', object: 'document:d' }

  for (let round = 0; round < 6; round++) {
    const { id } = await anInstance(root, { resource: 'folder', key: 'f' })
    const document = await anInstance(root, { key: 'd' })

    const responses = await Promise.all([
      root.post(TUPLES, body),
      root.delete(`${INSTANCES}/${id}`),
      root.post(TUPLES, { ...body, account: 'other' }),
      root.put(`${INSTANCES}/bulk`, { instances: [{ resource: 'folder', key: 'f', account: 'other' }] }),
      root.post(`${TUPLES}/bulk`, { create: [{ ...body, account: 'other' }] }),
    ])

    t.ok(
      responses.every(({ statusCode }) => [200, 201, 204, 404, 409].includes(statusCode)),
      String(responses.map(({ statusCode }) => statusCode)),
    )
    const { rows } = await services.database.pool.query(`select t.id from relationship_tuples t
      join resource_instances s on s.id = t.subject_id join resource_instances o on o.id = t.object_id
      where s.account_id <> o.account_id or t.account_id <> s.account_id`)
    t.same(rows, [])
    await root.delete(`${INSTANCES}/${document.id}`)
    for (const left of (await root.get(`${INSTANCES}?key=f`)).json<Instance[]>())
      await root.delete(`${INSTANCES}/${left.id}`)
  }
})

t.test('what points at a resource that is deleted at the same time is refused or goes with it', async (t) => {
  const { root, services } = await withResources(t)
  const { pool } = services.database

  for (let round = 0; round < 5; round++) {
    await root.post('/api/v1/policy', POLICY)
    const responses = await Promise.all([
      pool.query(`delete from resources where key = 'folder'`).then(() => ({ statusCode: 204 })),
      root.post(INSTANCES, { resource: 'folder', key: `k${round}`, account: 'default' }),
      root.post(TUPLES, {
        subject: `folder:r${round}`,
        relation: 'parent',
        object: `document:r${round}`,
        account: 'default',
      }),
    ])
    t.ok(
      responses.every(({ statusCode }) => [201, 204, 404, 422].includes(statusCode)),
      String(responses.map(({ statusCode }) => statusCode)),
    )
  }
})

t.test('two environments know nothing of each other', async (t) => {
  const { root, services } = await withResources(t)
  const [environmentId, resourceId, accountId] = [1, 2, 3].map(() => crypto.randomUUID())
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
    `insert into accounts (id, environment_id, key, name, search_text) values ($1, $2, 'default', 'D', 'd')`,
    [accountId, environmentId],
  )
  await pool.query(
    `insert into relations (id, environment_id, resource_id, subject_resource_id, key, name)
     values ($1, $2, $3, $3, 'sibling', 'sibling')`,
    [crypto.randomUUID(), environmentId, resourceId],
  )
  const there = services.modelOf(environmentId ?? '').instances
  const ours = await anInstance(root, { key: 'same' })
  const sibling = { subject: 'document:same', relation: 'sibling', object: 'document:same' }
  const ourTuple = (await root.post(TUPLES, sibling)).json<Tuple>()
  const page = { limit: 10, skip: 0, sort: 'created_at', total: true }

  const theirs = await there.createInstance(SYSTEM, { resource: 'document', key: 'same', account: 'default' })
  const theirTuple = await there.createTuple(SYSTEM, sibling)

  t.same(
    (await there.listInstances({}, page)).items.map(({ id }) => id),
    [theirs.id],
  )
  t.equal((await there.listInstances({}, page)).total, 1)
  t.same(
    (await there.listTuples({}, page)).items.map(({ id }) => id),
    [theirTuple.id],
  )
  t.equal((await there.findInstance('document:same'))?.id, theirs.id)
  for (const ref of [ours.id, `document:${ours.id}`, 'folder:same', 'document:none', 'same', ''])
    t.equal(await there.findInstance(ref), undefined, ref)
  for (const refused of [
    async () => await there.getInstance(ours.id),
    async () => await there.updateInstance(SYSTEM, ours.id, { attributes: {} }),
    async () => await there.deleteInstance(SYSTEM, ours.id),
    async () => await there.createTuple(SYSTEM, { ...sibling, subject: `document:${ours.id}` }),
  ])
    await t.rejects(async () => void (await refused()), { code: 'instance_not_found' })
  await t.rejects(there.getTuple(ourTuple.id), { code: 'tuple_not_found' })
  await t.rejects(there.deleteTuple(SYSTEM, ourTuple.id), { code: 'tuple_not_found' })
  const foreign = { resource: 'folder', key: 'k', account: 'default' }
  await t.rejects(there.createInstance(SYSTEM, foreign), { code: 'resource_not_found' })
  await t.rejects(
    there.createInstance(SYSTEM, { ...foreign, resource: 'document', account: ours.account_id }),
    {
      code: 'account_not_found',
    },
  )
  t.equal((await root.get(`${INSTANCES}/${ours.id}`)).statusCode, 200)
  isProblem(t, await root.get(`${INSTANCES}/${theirs.id}`), 'instance_not_found')
  isProblem(t, await root.get(`${TUPLES}/${theirTuple.id}`), 'tuple_not_found')
})

t.test('whoever calls the service says whether what is there or missing is an error', async (t) => {
  const { services, root } = await withResources(t)
  const { instances } = services.modelOf(DEFAULT_ENVIRONMENT)
  const tuple = { subject: 'folder:f', relation: 'parent', object: 'document:d', account: 'default' }

  t.match(await instances.createTuples(SYSTEM, [tuple], { existing: 'fail' }), { created: 1 })
  t.match(await instances.createTuples(SYSTEM, [tuple], { existing: 'skip' }), { created: 0, existing: 1 })
  const another = { ...tuple, object: 'document:e' }
  await t.rejects(instances.createTuples(SYSTEM, [another, tuple], { existing: 'fail' }), {
    code: 'tuple_exists',
  })
  await t.rejects(instances.deleteTuples(SYSTEM, [tuple, another], { missing: 'fail' }), {
    code: 'tuple_not_found',
  })
  t.same(await tuplesOf(root), ['folder:f parent document:d'], 'a refused one changes nothing')
  t.match(await instances.deleteTuples(SYSTEM, [tuple, another], { missing: 'skip' }), {
    deleted: 1,
    missing: 1,
  })

  const { db } = services.database
  const ensure = async (ref: string, account?: string) =>
    await db.transaction(async (tx) => await instances.ensureInstance(SYSTEM, ref, account, tx))
  const made = await ensure('document:ensured', 'other')
  t.match(made, { resource: 'document', key: 'ensured', account: 'other' })
  t.same(await ensure('document:ensured'), made)
  t.same(await ensure(`document:${made.id}`, 'default'), made, 'where it is stays')
  await t.rejects(ensure('document:unknown'), { code: 'instance_not_found' })
  await t.rejects(ensure('nothing:unknown', 'default'), { code: 'resource_not_found' })
  await t.rejects(ensure('document', 'default'), { code: 'validation_failed' })
})

t.test('ids that are none are refused wherever they stand', async (t) => {
  const { root } = await buildTestApp(t)

  for (const id of BAD_IDS) {
    for (const [method, path, pointer, body] of [
      ['GET', `${INSTANCES}/${id}`, '/path/instance_id'],
      ['PATCH', `${INSTANCES}/${id}`, '/path/instance_id', { attributes: {} }],
      ['DELETE', `${INSTANCES}/${id}`, '/path/instance_id'],
      ['GET', `${TUPLES}/${id}`, '/path/tuple_id'],
      ['DELETE', `${TUPLES}/${id}`, '/path/tuple_id'],
    ] as const) {
      const response = await root.send(method, path, body)
      isProblem(t, response, 'validation_failed', `${method} ${path.slice(0, 60)}`)
      t.same(pointersOf(response), [pointer])
    }
  }
})
