import { PermitApiError } from 'permitio'
import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, pythonClient, sdk, storeExample } from '../helpers/permit.ts'

const F = '/v2/facts/default/default'
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/

t.test('instances and relationships, by the Node SDK', async (t) => {
  const postern = await buildTestApp(t)
  await storeExample(postern, { tenants: [{ key: 'acme' }, { key: 'globex' }], users: [{ key: 'ada' }] })
  const { key } = await apiKey(postern)
  const { url } = await listenForSdk(t, postern)
  const permit = sdk(url, key)
  const { resourceInstances, relationshipTuples, roleAssignments } = permit.api

  await t.test('an instance is created, read, changed and deleted', async (t) => {
    const made = await resourceInstances.create({
      key: 'd/1',
      resource: 'document',
      tenant: 'acme',
      attributes: { draft: true },
    })
    t.match(made, { key: 'd/1', resource: 'document', tenant: 'acme', attributes: { draft: true } })
    t.match(made, { id: UUID, resource_id: UUID, tenant_id: UUID, organization_id: UUID, project_id: UUID })
    for (const name of ['document:d/1', made.id, made.id.replaceAll('-', '')])
      t.same(await resourceInstances.get(name), made)
    t.match(await resourceInstances.update('document:d/1', { attributes: { draft: false } }), {
      id: made.id,
      attributes: { draft: false },
    })
    t.match(await resourceInstances.update(made.id, {}), { attributes: { draft: false } })
    t.equal(
      await refusalOf(resourceInstances.create({ key: 'd/1', resource: 'document', tenant: 'acme' })),
      '409 DUPLICATE_ENTITY',
    )
    await resourceInstances.delete('document:d/1')
    t.equal(await refusalOf(resourceInstances.get('document:d/1')), '404 NOT_FOUND')
    t.equal(await refusalOf(resourceInstances.delete(made.id)), '404 NOT_FOUND')
  })

  await t.test('instances are listed by tenant and resource, page by page', async (t) => {
    for (const [name, resource, tenant] of [
      ['a', 'document', 'acme'],
      ['b', 'document', 'globex'],
      ['c', 'folder', 'acme'],
    ] as const)
      await resourceInstances.create({ key: name, resource, tenant })
    const keys = async (params?: Parameters<typeof resourceInstances.list>[0]) =>
      (await resourceInstances.list(params)).map((one) => one.key)

    t.same(await keys(), ['a', 'b', 'c'])
    t.same(await keys({ tenant: 'acme' }), ['a', 'c'])
    t.same(await keys({ resource: 'document', tenant: 'acme' }), ['a'])
    t.same(await keys({ tenant: 'nowhere' }), [])
    t.same(await keys({ page: 2, perPage: 2 }), ['c'])
  })

  await t.test('a relationship makes the instances that it lacks and holds at once', async (t) => {
    const owner = { user: 'ada', role: 'owner', resource_instance: 'folder:f1', tenant: 'acme' }
    await roleAssignments.assign(owner)
    const document = { type: 'document', key: 'd1', tenant: 'acme' }
    t.equal(await permit.check('ada', 'edit', document), false)
    const parent = { subject: 'folder:f1', relation: 'parent', object: 'document:d1' }

    const made = await relationshipTuples.create(parent)

    t.match(made, {
      ...parent,
      id: UUID,
      tenant: 'acme',
      subject_id: UUID,
      relation_id: UUID,
      object_id: UUID,
    })
    t.equal(await permit.check('ada', 'edit', document), true)
    t.equal(await refusalOf(relationshipTuples.create(parent)), '409 DUPLICATE_ENTITY')
    matchEach(t, await relationshipTuples.list({ object: 'document:d1' }), [made])
    await relationshipTuples.delete(parent)
    t.equal(await permit.check('ada', 'edit', document), false)
    t.equal(await refusalOf(relationshipTuples.delete(parent)), '404 NOT_FOUND')
  })

  await t.test('relationships that cannot be are refused by their reason', async (t) => {
    const tuple = { subject: 'folder:g1', relation: 'parent', object: 'document:g1' }
    t.equal(await refusalOf(relationshipTuples.create(tuple)), '404 NOT_FOUND', 'no tenant, nothing there')
    await relationshipTuples.create({ ...tuple, tenant: 'globex' })
    for (const [wrong, refusal] of [
      [{ ...tuple, subject: 'folder:f1' }, '400 MISMATCH_RESOURCE_INSTANCES_TENANTS'],
      [{ ...tuple, subject: 'document:a', object: 'document:b' }, '400 MISMATCH_RESOURCE_INSTANCES_TENANTS'],
      [{ subject: 'document:g1', relation: 'parent', object: 'folder:g1' }, '400 MISMATCH_RELATION_TYPE'],
      [{ ...tuple, subject: 'nothing:x', tenant: 'globex' }, '404 NOT_FOUND'],
      [{ ...tuple, subject: 'folder:new', tenant: 'nowhere' }, '404 NOT_FOUND'],
    ] as const)
      t.equal(await refusalOf(relationshipTuples.create(wrong)), refusal, JSON.stringify(wrong))
  })

  await t.test('many relationships at once: all or nothing, and no harm in a second time', async (t) => {
    const many = ['m1', 'm2'].map((name) => ({
      subject: 'folder:m',
      relation: 'parent',
      object: `document:${name}`,
      tenant: 'acme',
    }))
    t.same(await relationshipTuples.bulkRelationshipTuples([...many, ...many]), {})
    await relationshipTuples.bulkRelationshipTuples(many)
    const objects = async () =>
      (await relationshipTuples.list({ subject: 'folder:m' })).map(({ object }) => object)
    t.same(await objects(), ['document:m1', 'document:m2'])
    const bad = { subject: 'folder:m', relation: 'nothing', object: 'document:m3', tenant: 'acme' }
    const good = { subject: 'folder:m', relation: 'parent', object: 'document:m4', tenant: 'acme' }
    t.equal(
      await refusalOf(relationshipTuples.bulkRelationshipTuples([good, bad])),
      '400 MISMATCH_RELATION_TYPE',
    )
    t.same(await objects(), ['document:m1', 'document:m2'])
    t.equal(await refusalOf(resourceInstances.get('document:m4')), '404 NOT_FOUND')

    t.same(await relationshipTuples.bulkUnRelationshipTuples([...many, good]), {})
    t.same(await objects(), [])
  })

  await t.test('lists of relationships narrow by every filter, and tell details', async (t) => {
    const python = await pythonClient(postern)
    const list = async (query: string) => {
      const response = await python.get(`${F}/relationship_tuples?${query}`)
      t.equal(response.statusCode, 200, response.body)
      return response.json()
    }
    await relationshipTuples.create({
      subject: 'folder:x',
      relation: 'parent',
      object: 'document:x',
      tenant: 'acme',
    })
    const [{ subject_id, relation_id, tenant_id }] = await list('subject=folder:x')
    for (const query of [
      'object=document:x',
      `subject=${subject_id.replaceAll('-', '')}`,
      `relation=${relation_id}&subject=folder:x`,
      `tenant=${tenant_id}&relation=parent`,
      'tenant=acme&subject_type=folder&object_type=document',
    ])
      matchEach(t, await list(query), [{ subject: 'folder:x', object: 'document:x' }], query)
    for (const query of [
      'subject=folder:none',
      'relation=none',
      'subject_type=none',
      'tenant=none',
      'object=x',
    ])
      t.same(await list(query), [], query)
    t.match(await list('subject=folder:x&detailed=true&include_total_count=true'), {
      data: [
        {
          subject_details: { key: 'x', resource: 'folder', tenant: 'acme', attributes: Object },
          relation_details: { key: 'parent', name: 'parent' },
          object_details: { key: 'x', resource: 'document' },
          tenant_details: { key: 'acme', name: String, attributes: Object },
        },
      ],
      total_count: 1,
      page_count: 1,
    })
    const [detailed] = (
      await python.get(`${F}/resource_instances?detailed=true&search=x&resource=document`)
    ).json()
    t.same(detailed.relationships, [{ subject: 'folder:x', relation: 'parent', object: 'document:x' }])
    t.notHas((await python.get(`${F}/resource_instances/document:x`)).json(), { relationships: Array })
  })

  await t.test('bulk writes of instances, as the Python SDK sends them', async (t) => {
    const python = await pythonClient(postern)
    const put = async (operations: object[]) =>
      await python.put(`/facts/bulk/resource_instances`, { operations })
    const one = { key: 'r1', resource: 'document', tenant: 'acme', attributes: { n: 1 } }
    t.same((await put([one, { ...one, key: 'r2', attributes: null }])).json(), {})
    t.equal((await put([{ ...one, attributes: { n: 2 } }])).statusCode, 200)
    t.match((await python.get(`${F}/resource_instances/document:r1`)).json(), { attributes: { n: 2 } })
    for (const [operations, status] of [
      [
        [
          { ...one, key: 'r3' },
          { ...one, resource: 'nothing' },
        ],
        404,
      ],
      [
        [
          { ...one, key: 'r3' },
          { ...one, tenant: 'nowhere' },
        ],
        404,
      ],
      [
        [
          { ...one, key: 'r3' },
          { ...one, tenant: 'globex' },
        ],
        409,
      ],
      [
        [
          { ...one, key: 'r3' },
          { ...one, key: 'r3' },
        ],
        422,
      ],
      [[{ ...one, key: 'r3', tenant: undefined }], 422],
      [Array.from({ length: 3001 }, (_, n) => ({ ...one, key: `r${n}` })), 422],
    ] as const) {
      t.equal((await put([...operations])).statusCode, status)
      t.equal((await python.get(`${F}/resource_instances/document:r3`)).statusCode, 404)
    }
    const { id } = (await python.get(`${F}/resource_instances/document:r2`)).json()
    const idents = ['document:r1', id.replaceAll('-', ''), 'document:gone']
    t.same((await python.send('DELETE', '/facts/bulk/resource_instances', { idents })).json(), {})
    t.same(
      (await python.get(`${F}/resource_instances?search=r`)).json().map((x: { key: string }) => x.key),
      [],
    )
    const nameless = await python.send('DELETE', `${F}/bulk/resource_instances`, { idents: ['nonsense'] })
    t.match(nameless.json(), { detail: [{ loc: ['body', 'idents', 0] }] })
  })

  await t.test('how long to wait must be said as to a PDP', async (t) => {
    const python = await pythonClient(postern)
    for (const [headers, status] of [
      [{ 'x-wait-timeout': '' }, 200],
      [{ 'x-wait-timeout': '-1', 'x-timeout-policy': 'ignore' }, 200],
      [{ 'x-wait-timeout': '1.5e1', 'x-timeout-policy': 'FAIL' }, 200],
      [{ 'x-wait-timeout': 'soon' }, 400],
      [{ 'x-wait-timeout': '1', 'x-timeout-policy': 'maybe' }, 400],
    ] as const) {
      for (const path of ['/facts/users', `${F}/resource_instances`]) {
        const response = await python.get(path, { ...headers })
        t.equal(response.statusCode, status, `${JSON.stringify(headers)} ${response.body}`)
      }
    }
    t.equal((await postern.anonymous.get('/facts/users', { 'x-wait-timeout': 'soon' })).statusCode, 401)
  })

  await t.test('built-in things are neither seen nor made instances of', async (t) => {
    const python = await pythonClient(postern)
    const refused = await python.post(`${F}/resource_instances`, {
      key: 'x',
      resource: 'postern.users',
      tenant: 'acme',
    })
    t.equal(refused.statusCode, 404)
    t.same((await python.get(`${F}/resource_instances?resource=postern.users`)).json(), [])
    const reader = await pythonClient(postern, 'read')
    t.equal((await reader.get(`${F}/resource_instances`)).statusCode, 200)
    t.equal((await reader.send('DELETE', `${F}/resource_instances/document:a`)).statusCode, 403)
  })
})

/** The status and code that a call is refused with. */
async function refusalOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'done'
  } catch (error) {
    if (!(error instanceof PermitApiError)) throw error
    return `${error.response?.status} ${error.response?.data.error_code}`
  }
}
