import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { isProblem, NO_SUCH_ID, pointersOf } from '../helpers/hostile.ts'

type Role = { id: string; key: string; extends: string[]; derivations: Derivation[] }
type Derivation = {
  id: string
  role: string
  on_resource: string
  linked_by_relation: string
  no_direct_roles_on_object: boolean
}
type Resource = { id: string; roles: Role[]; relations: { id: string; key: string }[] }

const RESOURCES = '/api/v1/resources'

/** Folders, and documents that lie in them. */
async function library(t: Parameters<typeof buildTestApp>[0]) {
  const postern = await buildTestApp(t)
  const { root } = postern
  const make = async (body: object) => (await root.post(RESOURCES, body)).json<Resource>()
  const folder = await make({
    key: 'folder',
    actions: ['open'],
    relations: [{ key: 'parent', subject_resource: 'folder' }],
    roles: [{ key: 'editor', permissions: ['open'] }, { key: 'guest' }],
  })
  const document = await make({
    key: 'document',
    actions: ['read', 'write'],
    relations: [
      { key: 'parent', subject_resource: 'folder' },
      { key: 'copy_of', subject_resource: 'document' },
    ],
    roles: [
      { key: 'viewer', permissions: ['read'] },
      { key: 'editor', permissions: ['write', 'folder:open'], extends: ['viewer'] },
    ],
  })
  const roleOf = ({ roles }: Resource, key: string) => roles.find((role) => role.key === key)?.id ?? ''
  const editor = `${RESOURCES}/${document.id}/roles/${roleOf(document, 'editor')}`
  const viewer = `${RESOURCES}/${document.id}/roles/${roleOf(document, 'viewer')}`
  return { postern, root, folder, document, editor, viewer, roleOf }
}

const FITTING = { role: 'editor', on_resource: 'folder', linked_by_relation: 'parent' }

t.test('a role of a resource is derived from roles on related instances', async (t) => {
  const { root, editor } = await library(t)

  await t.test('and shows how', async (t) => {
    const plain = await root.post(`${editor}/derivations`, FITTING)
    const own = await root.post(`${editor}/derivations`, {
      role: 'viewer',
      on_resource: 'document',
      linked_by_relation: 'copy_of',
      no_direct_roles_on_object: true,
    })

    t.equal(plain.statusCode, 201)
    t.match(plain.json(), { ...FITTING, no_direct_roles_on_object: false })
    t.match(own.json(), { role: 'viewer', no_direct_roles_on_object: true })
    t.same((await root.get(`${editor}/derivations`)).json(), [plain.json(), own.json()])
    t.same((await root.get(editor)).json<Role>().derivations, [plain.json(), own.json()])
  })

  await t.test('once in each way', async (t) => {
    isProblem(t, await root.post(`${editor}/derivations`, FITTING), 'derivation_exists')
    isProblem(
      t,
      await root.post(`${editor}/derivations`, { ...FITTING, no_direct_roles_on_object: true }),
      'derivation_exists',
    )
    const other = { ...FITTING, role: 'guest' }
    const raced = await Promise.all(
      [1, 2, 3].map(async () => await root.post(`${editor}/derivations`, other)),
    )
    t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  })

  await t.test('until the derivation is deleted', async (t) => {
    const [first] = (await root.get(`${editor}/derivations`)).json<Derivation[]>()
    const before = String((await root.get(editor)).headers['etag'])

    t.equal((await root.delete(`${editor}/derivations/${first?.id}`)).statusCode, 204)

    isProblem(t, await root.delete(`${editor}/derivations/${first?.id}`), 'derivation_not_found')
    isProblem(t, await root.delete(`${editor}/derivations/${NO_SUCH_ID}`), 'derivation_not_found')
    isProblem(t, await root.patch(editor, { name: 'x' }, { 'if-match': before }), 'precondition_failed')
    t.equal((await root.post(`${editor}/derivations`, FITTING)).statusCode, 201)
  })
})

t.test('a derivation fits, or is refused with the reason', async (t) => {
  const { root, editor, viewer, folder, document, roleOf } = await library(t)

  for (const [change, pointer, detail] of [
    [{ on_resource: 'nothing' }, '/body/on_resource', 'is no resource'],
    [{ on_resource: folder.id }, '/body/on_resource', 'is no resource'],
    [{ on_resource: 'document' }, '/body/on_resource', 'is not the subject of the relation parent'],
    [{ linked_by_relation: 'nothing' }, '/body/linked_by_relation', 'is no relation of document'],
    [{ linked_by_relation: 'copy_of' }, '/body/on_resource', 'is not the subject of the relation copy_of'],
    [{ role: 'viewer' }, '/body/role', 'is no role of folder'],
    [{ role: 'SUPER_ADMIN' }, '/body/role', 'is no role of folder'],
    [{ role: 5 }, '/body/role', 'must be string'],
  ] as const) {
    const response = await root.post(`${editor}/derivations`, { ...FITTING, ...change })
    isProblem(t, response, 'validation_failed', JSON.stringify(change))
    t.same(response.json<{ errors: unknown }>().errors, [{ pointer, detail }])
  }
  t.same((await root.get(`${editor}/derivations`)).json(), [])
  const misplaced = `${RESOURCES}/${folder.id}/roles/${roleOf(document, 'editor')}/derivations`
  isProblem(t, await root.post(misplaced, FITTING), 'role_not_found')
  isProblem(t, await root.get(misplaced), 'role_not_found')
  isProblem(t, await root.delete(`${misplaced}/${NO_SUCH_ID}`), 'role_not_found')
  const made = (await root.post(`${editor}/derivations`, FITTING)).json<Derivation>()
  isProblem(t, await root.delete(`${viewer}/derivations/${made.id}`), 'derivation_not_found')
})

t.test('what a derivation rests on takes it along', async (t) => {
  const { root, editor, viewer, folder, document, roleOf } = await library(t)
  const derive = async (path: string, fields: object) =>
    (await root.post(`${path}/derivations`, { ...FITTING, ...fields })).statusCode
  t.same(
    [await derive(editor, {}), await derive(editor, { role: 'guest' }), await derive(viewer, {})],
    [201, 201, 201],
  )

  await root.delete(`${RESOURCES}/${folder.id}/roles/${roleOf(folder, 'guest')}`)
  t.same(
    (await root.get(editor)).json<Role>().derivations.map(({ role }) => role),
    ['editor'],
    'the role',
  )

  const parent = document.relations.find(({ key }) => key === 'parent')
  await root.delete(`${RESOURCES}/${document.id}/relations/${parent?.id}`)
  t.same((await root.get(viewer)).json<Role>().derivations, [], 'the relation')

  await root.post(`${RESOURCES}/${document.id}/relations`, { key: 'parent', subject_resource: 'folder' })
  t.equal(await derive(viewer, {}), 201)
  await root.delete(`${RESOURCES}/${folder.id}`)
  const left = (await root.get(`${RESOURCES}/${document.id}`)).json<Resource>()
  t.same(
    left.relations.map(({ key }) => key),
    ['copy_of'],
    'the resource, with the relations to it',
  )
  t.same(
    left.roles.map(({ derivations }) => derivations),
    [[], []],
  )
})

t.test('roles of a resource extend roles of the same resource only', async (t) => {
  const { root, editor, viewer } = await library(t)
  await root.post('/api/v1/roles', { name: 'tenant' })

  isProblem(t, await root.patch(viewer, { extends: ['editor'] }), 'role_cycle')
  for (const key of ['guest', 'tenant', 'SUPER_ADMIN']) {
    const response = await root.patch(viewer, { extends: [key] })
    isProblem(t, response, 'validation_failed', key)
    t.same(pointersOf(response), ['/body/extends/0'])
  }
  t.same((await root.get(editor)).json<Role>().extends, ['viewer'])
})

t.test('a role of a resource is changed in the state that the change is meant for', async (t) => {
  const { root, editor } = await library(t)
  const tag = String((await root.get(editor)).headers['etag'])

  const responses = await Promise.all(
    [1, 2, 3].map(async () => await root.patch(editor, { name: 'x' }, { 'if-match': tag })),
  )

  t.same(responses.map(({ statusCode }) => statusCode).sort(), [200, 412, 412])
  isProblem(t, await root.delete(editor, { 'if-match': tag }), 'precondition_failed')
  t.equal((await root.delete(editor, { 'if-match': '*' })).statusCode, 204)
})

t.test('roles of resources are no roles of accounts, even under one key', async (t) => {
  const { root, folder, document, roleOf } = await library(t)
  const ids = [roleOf(folder, 'editor'), roleOf(document, 'editor')]

  t.equal((await root.post('/api/v1/roles', { name: 'editor' })).statusCode, 201)

  for (const id of ids) {
    isProblem(t, await root.get(`/api/v1/roles/${id}`), 'role_not_found')
    isProblem(t, await root.patch(`/api/v1/roles/${id}`, { name: 'x' }), 'role_not_found')
    isProblem(t, await root.delete(`/api/v1/roles/${id}`), 'role_not_found')
  }
  t.equal((await root.get('/api/v1/roles?key=editor')).json<unknown[]>().length, 1)
})

t.test('a resource whose sets others descend from is not deleted', async (t) => {
  const { postern, root, folder, document } = await library(t)
  const { pool } = postern.services.database
  await pool.query(
    `with parent as (insert into condition_sets (id, environment_id, type, resource_id, key, name, conditions)
       select gen_random_uuid(), environment_id, 'resourceset', id, 'parent', 'p', '{}' from resources where id = $1
       returning id)
     insert into condition_sets (id, environment_id, type, resource_id, key, name, conditions, parent_id)
     select gen_random_uuid(), r.environment_id, 'resourceset', r.id, 'child', 'c', '{}', parent.id
     from resources r, parent where r.id = $2`,
    [folder.id, document.id],
  )

  isProblem(t, await root.delete(`${RESOURCES}/${folder.id}`), 'resource_in_use')
  t.equal((await root.delete(`${RESOURCES}/${document.id}`)).statusCode, 204)
  t.equal((await root.delete(`${RESOURCES}/${folder.id}`)).statusCode, 204)
})
