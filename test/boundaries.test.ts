import t from 'tap'
import { buildApp } from '../src/app.ts'
import { DEFAULT_ENVIRONMENT } from '../src/db/client.ts'
import { SYSTEM } from '../src/principal.ts'
import { anApiKey, anEnvironment } from './helpers/api-keys.ts'
import { buildTestApp, type Client, type Method, type TestApp } from './helpers/app.ts'
import { PASSWORD } from './helpers/config.ts'

/** The account that the object of a call belongs to, and what makes the objects. */
type Scene = { postern: TestApp; accountId: string }
/** What fills the route: its path parameters, its query and its body. */
type Call = {
  params?: Record<string, string>
  query?: string
  body?: unknown
  form?: Record<string, string>
  headers?: Record<string, string>
}
type Row = [route: string, statuses: string, make?: (scene: Scene) => Promise<Call> | Call]

let made = 0
const unique = (word: string): string => `${word}-${++made}`

/** Somebody at home in the account of the scene, with a primary role when one is named. */
const aUser = async ({ postern, accountId }: Scene, role?: string): Promise<string> =>
  (await postern.person(role, { accountId })).id

const newUser = () => ({
  body: { email: `${unique('new')}@postern.test`, password: PASSWORD, full_name: 'New' },
})
const credentials = async ({ postern, accountId }: Scene) =>
  (await postern.person('GUEST', { accountId })).email
const theUser = async (scene: Scene): Promise<Call> => ({ params: { user_id: await aUser(scene, 'GUEST') } })
const theAccount = ({ accountId }: Scene): Call => ({ params: { account_id: accountId } })
const renamedUser = async (scene: Scene) => ({ ...(await theUser(scene)), body: { full_name: 'Renamed' } })
const renamedAccount = (scene: Scene) => ({ ...theAccount(scene), body: { description: 'Renamed' } })
const aRole = async ({ postern }: Scene): Promise<Call> => {
  const role = await postern.root.post('/api/v1/roles', { name: unique('role'), scopes: ['post:read'] })
  return { params: { role_id: role.json<{ id: string }>().id } }
}
const renamedRole = async (scene: Scene) => ({ ...(await aRole(scene)), body: { name: 'Renamed' } })
const anotherRole = async (scene: Scene) => ({
  ...(await theUser(scene)),
  body: { role_id: await scene.postern.roleId('ACCOUNT_MANAGER') },
})
const anEmptyAccount = async ({ postern }: Scene) => ({ params: { account_id: await postern.account() } })
/** Somebody at home in the first account who is a member of the one of the scene. */
const aMember = async ({ postern, accountId }: Scene) => {
  const { id } = await postern.person('GUEST')
  await postern.root.put(`/api/v1/accounts/${accountId}/members/${id}`)
  return { params: { account_id: accountId, user_id: id } }
}
const theEnvironment = async ({ postern }: Scene) => ({
  params: { environment_id: (await anEnvironment(postern)).id },
})
const theProject = async ({ postern }: Scene) => {
  const made = await postern.root.post('/api/v1/projects', { key: unique('project'), name: 'New' })
  return { params: { project_id: made.json<{ id: string }>().id } }
}
const theApiKey = async ({ postern }: Scene) => ({ params: { api_key_id: (await anApiKey(postern)).id } })
const aStranger = async ({ postern }: Scene) => (await postern.person('GUEST')).id

/** A question for every AuthZEN endpoint, about the account of the scene. */
const aQuestion = ({ accountId }: Scene): Call => ({
  body: {
    subject: { type: 'user', id: 'ada' },
    action: { name: 'read' },
    resource: { type: 'post', id: '1' },
    context: { tenant: accountId },
  },
})

/** A resource, and one definition of each kind on it. */
const aResource = async ({ postern }: Scene): Promise<Call & { params: Record<string, string> }> => {
  const body = {
    key: unique('resource'),
    actions: ['read'],
    attributes: [{ key: 'status', type: 'string' }],
    relations: [{ key: 'parent', subject_resource: unique('folder') }],
    roles: [{ key: 'reader', permissions: ['read'] }],
  }
  const subject = body.relations[0]?.subject_resource
  await postern.root.post('/api/v1/resources', { key: subject, roles: [{ key: 'keeper' }] })
  const resource = (await postern.root.post('/api/v1/resources', body)).json<
    { id: string } & Record<string, { id: string }[]>
  >()
  const place = `/api/v1/resources/${resource.id}`
  const group = await postern.root.post(`${place}/action-groups`, { key: 'reading' })
  const roleId = resource['roles']?.[0]?.id ?? ''
  const derivation = { role: 'keeper', on_resource: subject, linked_by_relation: 'parent' }
  const derived = await postern.root.post(`${place}/roles/${roleId}/derivations`, derivation)
  return {
    params: {
      resource_id: resource.id,
      action_id: resource['actions']?.[0]?.id ?? '',
      action_group_id: group.json<{ id: string }>().id,
      attribute_id: resource['attributes']?.[0]?.id ?? '',
      relation_id: resource['relations']?.[0]?.id ?? '',
      role_id: roleId,
      derivation_id: derived.json<{ id: string }>().id,
    },
  }
}
const onResource = (body: () => object) => async (scene: Scene) => ({
  ...(await aResource(scene)),
  body: body(),
})
const renamed = onResource(() => ({ description: 'Renamed' }))
const aKey = onResource(() => ({ key: unique('key') }))
/** A derivation that the role does not have yet. */
const aDerivation = async (scene: Scene) => {
  const { params } = await aResource(scene)
  const place = `/api/v1/resources/${params['resource_id']}`
  const relation = { key: 'twin', subject_resource: params['resource_id'] }
  await scene.postern.root.post(`${place}/relations`, relation)
  const { key } = (await scene.postern.root.get(place)).json<{ key: string }>()
  return { params, body: { role: 'reader', on_resource: key, linked_by_relation: 'twin' } }
}
const aUserAttribute = async ({ postern }: Scene): Promise<Call> => {
  const made = await postern.root.post('/api/v1/user-attributes', {
    key: unique('attribute'),
    type: 'string',
  })
  return { params: { attribute_id: made.json<{ id: string }>().id } }
}

const created = async ({ postern }: Scene, path: string, body: object): Promise<string> =>
  (await postern.root.post(`/api/v1/${path}`, body)).json<{ id: string }>().id
/** A resource with an action and a relation to itself. */
const aThing = async (scene: Scene): Promise<string> => {
  const key = unique('thing')
  const resource_id = await created(scene, 'resources', { key, actions: ['read'] })
  const relation = { key: 'next', subject_resource: key }
  await created(scene, `resources/${resource_id}/relations`, relation)
  return key
}
const newInstance = async (scene: Scene) => ({
  resource: await aThing(scene),
  key: unique('instance'),
  account: scene.accountId,
})
const anInstance = async (scene: Scene) => ({
  params: { instance_id: await created(scene, 'resource-instances', await newInstance(scene)) },
})
const newTuple = async (scene: Scene) => {
  const key = await aThing(scene)
  return { subject: `${key}:a`, relation: 'next', object: `${key}:b`, account: scene.accountId }
}
const aTuple = async (scene: Scene) => ({
  params: { tuple_id: await created(scene, 'relationship-tuples', await newTuple(scene)) },
})
const newSet = () => ({ key: unique('set'), type: 'userset', conditions: {} })
const aSet = async (scene: Scene) => ({
  params: { condition_set_id: await created(scene, 'condition-sets', newSet()) },
})
const newRule = async (scene: Scene) => {
  const resource = await aThing(scene)
  return {
    user_set: await created(scene, 'condition-sets', newSet()),
    permission: `${resource}:read`,
    resource,
  }
}
const aRule = async (scene: Scene) => ({
  params: { set_rule_id: await created(scene, 'set-rules', await newRule(scene)) },
})

/** Somebody without a password who reads posts in the account of the scene, as the faces of Permit know such. */
const aReader = async ({ postern, accountId }: Scene) => {
  const role = unique('reader')
  await postern.root.post('/api/v1/roles', { name: role, scopes: ['post:read'] })
  const { permit } = postern.services.modelOf(DEFAULT_ENVIRONMENT)
  const user = unique('synced')
  await permit.createUser(SYSTEM, { key: user }, [{ role, tenant: accountId }])
  return { user, role, tenant: accountId }
}
/** A check for every endpoint of a PDP, about the account of the scene. */
const aCheck = ({ accountId }: Scene): Call => ({
  body: { user: { key: 'ada' }, action: 'read', resource: { type: 'post', tenant: accountId } },
})
const PLACE = { proj_id: 'default', env_id: 'default' }
const synced = async (scene: Scene, body?: object): Promise<Call> => ({
  params: { ...PLACE, user_id: (await aReader(scene)).user },
  ...(body && { body }),
})
const grantedTo = async (scene: Scene): Promise<Call> => {
  const { user, role, tenant } = await aReader(scene)
  return { params: { ...PLACE, user_id: user }, body: { user, role, tenant } }
}
/** What is yet to be granted: the same role in the first account. */
const toBeGranted = async (scene: Scene): Promise<Call> => {
  const { user, role } = await aReader(scene)
  return { params: { ...PLACE, user_id: user }, body: { user, role, tenant: 'default' } }
}
const inList = async (call: Promise<Call>): Promise<Call> => {
  const { body, ...rest } = await call
  return { ...rest, body: [body] }
}
const theTenant = (scene: Scene, body?: object): Call => ({
  params: { ...PLACE, tenant_id: scene.accountId },
  ...(body && { body }),
})

const PUBLIC = '200 200 200 200 200 200 200 200 200 200'
const SIGNED_IN = '401 200 200 200 200 200 200 401 200 200'
/** What only people have: their own record. */
const PEOPLE = '401 200 200 200 200 200 200 401 403 403'
const READ_IN_ACCOUNT = '401 403 403 200 404 200 200 401 200 200'
const ADMINS = '401 403 403 403 403 200 200 401 200 200'
const SUPER_ADMINS = '401 403 403 403 403 403 200 401 403 403'
// Whoever names another account is told that the question is not theirs to ask.
const CHECK_IN_ACCOUNT = '401 403 403 200 403 200 200 401 200 200'

const ACTORS = [
  'anonymous',
  'GUEST',
  'ACCOUNT_MANAGER',
  'ACCOUNT_ADMIN',
  'ACCOUNT_ADMIN of another account',
  'ADMIN',
  'SUPER_ADMIN',
  'deactivated',
  'api key (full)',
  'api key (read)',
] as const

const WRITTEN_BY_ADMINS = '401 403 403 403 403 200 200 401 200 403'
const NO_CONTENT_TO_ADMINS = '401 403 403 403 403 204 204 401 204 403'
const CREATED_BY_ADMINS = '401 403 403 403 403 201 201 401 201 403'
const PDP_IN_ACCOUNT = '401 403 403 200 403 200 200 401 200 200'
const PDP = '401 403 403 200 200 200 200 401 200 200'

// biome-ignore format: one row, one line
const facts = (prefix: string): Row[] => [
  [`GET ${prefix}/users`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/users`, WRITTEN_BY_ADMINS, () => ({ params: PLACE, body: { key: unique('user') } })],
  [`GET ${prefix}/users/:user_id`, ADMINS, async (scene) => await synced(scene)],
  [`PUT ${prefix}/users/:user_id`, WRITTEN_BY_ADMINS, async (scene) => await synced(scene, {})],
  [`PATCH ${prefix}/users/:user_id`, WRITTEN_BY_ADMINS, async (scene) => await synced(scene, { first_name: 'New' })],
  [`DELETE ${prefix}/users/:user_id`, NO_CONTENT_TO_ADMINS, async (scene) => await synced(scene)],
  [`POST ${prefix}/users/:user_id/roles`, WRITTEN_BY_ADMINS, toBeGranted],
  [`DELETE ${prefix}/users/:user_id/roles`, NO_CONTENT_TO_ADMINS, grantedTo],
  [`GET ${prefix}/tenants`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/tenants`, WRITTEN_BY_ADMINS, () => ({ params: PLACE, body: { key: unique('tenant'), name: 'New' } })],
  [`GET ${prefix}/tenants/:tenant_id`, ADMINS, theTenant],
  [`PATCH ${prefix}/tenants/:tenant_id`, WRITTEN_BY_ADMINS, (scene) => theTenant(scene, { name: 'Renamed' })],
  [`DELETE ${prefix}/tenants/:tenant_id`, NO_CONTENT_TO_ADMINS, async ({ postern }) => ({ params: { ...PLACE, tenant_id: await postern.account() } })],
  [`GET ${prefix}/tenants/:tenant_id/users`, ADMINS, theTenant],
  [`POST ${prefix}/tenants/:tenant_id/users`, WRITTEN_BY_ADMINS, (scene) => theTenant(scene, { key: unique('user') })],
  [`DELETE ${prefix}/tenants/:tenant_id/users/:user_id`, NO_CONTENT_TO_ADMINS, async (scene) => ({ params: { ...(await synced(scene)).params, tenant_id: scene.accountId } })],
  [`GET ${prefix}/role_assignments`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/role_assignments`, WRITTEN_BY_ADMINS, toBeGranted],
  [`DELETE ${prefix}/role_assignments`, NO_CONTENT_TO_ADMINS, grantedTo],
  [`POST ${prefix}/role_assignments/bulk`, WRITTEN_BY_ADMINS, async (scene) => await inList(toBeGranted(scene))],
  [`DELETE ${prefix}/role_assignments/bulk`, WRITTEN_BY_ADMINS, async (scene) => await inList(grantedTo(scene))],
]

// Columns: anonymous · GUEST · ACCOUNT_MANAGER · ACCOUNT_ADMIN · ACCOUNT_ADMIN of another account · ADMIN · SUPER_ADMIN · deactivated · api key (full) · api key (read)
// biome-ignore format: one row, one line
const TABLE: Row[] = [
  ['POST /api/v1/auth/access-token', PUBLIC, async (scene) => ({ form: { username: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/login', PUBLIC, async (scene) => ({ body: { email: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/test-token', PEOPLE],
  ['POST /api/v1/auth/hash-password', '401 403 403 403 403 200 200 401 200 403', () => ({ body: { password: PASSWORD } })],
  ['POST /api/v1/auth/change-password', '401 204 204 204 204 204 204 401 403 403', () => ({ body: { current_password: PASSWORD, new_password: 'another long password of mine' } })],

  ['GET /api/v1/users', ADMINS],
  ['POST /api/v1/users', '401 403 403 403 403 201 201 401 422 403', newUser],
  ['POST /api/v1/users/open', '201 201 201 201 201 201 201 201 201 201', newUser],
  ['GET /api/v1/users/me', PEOPLE],
  ['PUT /api/v1/users/me', PEOPLE, () => ({ body: { full_name: 'Renamed' } })],
  ['PATCH /api/v1/users/me', PEOPLE, () => ({ body: { full_name: 'Renamed' } })],
  ['GET /api/v1/users/me/permissions', PEOPLE],
  ['GET /api/v1/users/me/accounts', PEOPLE],
  ['GET /api/v1/users/:user_id', READ_IN_ACCOUNT, theUser],
  ['PUT /api/v1/users/:user_id', '401 403 403 200 404 200 200 401 200 403', renamedUser],
  ['PATCH /api/v1/users/:user_id', '401 403 403 200 404 200 200 401 200 403', renamedUser],
  ['DELETE /api/v1/users/:user_id', '401 403 403 403 403 204 204 401 409 403', theUser],
  ['POST /api/v1/users/:user_id/deactivate', '401 403 403 200 404 200 200 401 409 403', theUser],
  ['POST /api/v1/users/:user_id/reactivate', '401 403 403 200 404 200 200 401 200 403', theUser],

  ['GET /api/v1/roles', SIGNED_IN],
  ['POST /api/v1/roles', '401 403 403 403 403 403 201 401 201 403', () => ({ body: { name: unique('role') } })],
  ['GET /api/v1/roles/:role_id', SIGNED_IN, aRole],
  ['PUT /api/v1/roles/:role_id', '401 403 403 403 403 403 200 401 200 403', renamedRole],
  ['PATCH /api/v1/roles/:role_id', '401 403 403 403 403 403 200 401 200 403', renamedRole],
  ['DELETE /api/v1/roles/:role_id', '401 403 403 403 403 403 204 401 204 403', aRole],
  ['POST /api/v1/user-roles', '401 403 403 201 404 201 201 401 403 403', async (scene) => ({ body: { user_id: await aUser(scene), role_id: await scene.postern.roleId('GUEST') } })],
  ['GET /api/v1/user-roles/:user_id', READ_IN_ACCOUNT, theUser],
  ['PUT /api/v1/user-roles/:user_id', '401 403 403 200 404 200 200 401 403 403', anotherRole],
  ['PATCH /api/v1/user-roles/:user_id', '401 403 403 200 404 200 200 401 403 403', anotherRole],
  ['DELETE /api/v1/user-roles/:user_id', '401 403 403 204 404 204 204 401 403 403', theUser],
  ['GET /api/v1/users/:user_id/roles', READ_IN_ACCOUNT, theUser],
  ['POST /api/v1/users/:user_id/roles', '401 403 403 201 404 201 201 401 403 403', anotherRole],
  ['DELETE /api/v1/users/:user_id/roles/:assignment_id', '401 403 403 204 404 204 204 401 403 403', async (scene) => {
    const user_id = await aUser(scene, 'GUEST')
    const held = await scene.postern.root.get(`/api/v1/users/${user_id}/roles`)
    return { params: { user_id, assignment_id: held.json<{ id: string }[]>()[0]?.id ?? '' } }
  }],

  ['GET /api/v1/resources', ADMINS],
  ['POST /api/v1/resources', '401 403 403 403 403 403 201 401 201 403', () => ({ body: { key: unique('resource') } })],
  ['GET /api/v1/resources/:resource_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/actions', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/actions', '401 403 403 403 403 403 201 401 201 403', aKey],
  ['GET /api/v1/resources/:resource_id/actions/:action_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id/actions/:action_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id/actions/:action_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/action-groups', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/action-groups', '401 403 403 403 403 403 201 401 201 403', aKey],
  ['GET /api/v1/resources/:resource_id/action-groups/:action_group_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id/action-groups/:action_group_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id/action-groups/:action_group_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/attributes', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/attributes', '401 403 403 403 403 403 201 401 201 403', onResource(() => ({ key: unique('key'), type: 'string' }))],
  ['GET /api/v1/resources/:resource_id/attributes/:attribute_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id/attributes/:attribute_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id/attributes/:attribute_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/relations', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/relations', '401 403 403 403 403 403 201 401 201 403', async (scene) => { const { params } = await aResource(scene); return { params, body: { key: unique('key'), subject_resource: params['resource_id'] } } }],
  ['GET /api/v1/resources/:resource_id/relations/:relation_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id/relations/:relation_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id/relations/:relation_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/roles', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/roles', '401 403 403 403 403 403 201 401 201 403', aKey],
  ['GET /api/v1/resources/:resource_id/roles/:role_id', ADMINS, aResource],
  ['PATCH /api/v1/resources/:resource_id/roles/:role_id', '401 403 403 403 403 403 200 401 200 403', renamed],
  ['DELETE /api/v1/resources/:resource_id/roles/:role_id', '401 403 403 403 403 403 204 401 204 403', aResource],
  ['GET /api/v1/resources/:resource_id/roles/:role_id/derivations', ADMINS, aResource],
  ['POST /api/v1/resources/:resource_id/roles/:role_id/derivations', '401 403 403 403 403 403 201 401 201 403', aDerivation],
  ['DELETE /api/v1/resources/:resource_id/roles/:role_id/derivations/:derivation_id', '401 403 403 403 403 403 204 401 204 403', aResource],

  ['GET /api/v1/resource-instances', ADMINS],
  ['POST /api/v1/resource-instances', '401 403 403 403 403 403 201 401 201 403', async (scene) => ({ body: await newInstance(scene) })],
  ['GET /api/v1/resource-instances/:instance_id', ADMINS, anInstance],
  ['PATCH /api/v1/resource-instances/:instance_id', '401 403 403 403 403 403 200 401 200 403', async (scene) => ({ ...(await anInstance(scene)), body: { attributes: {} } })],
  ['DELETE /api/v1/resource-instances/:instance_id', '401 403 403 403 403 403 204 401 204 403', anInstance],
  ['PUT /api/v1/resource-instances/bulk', '401 403 403 403 403 403 200 401 200 403', async (scene) => ({ body: { instances: [await newInstance(scene)] } })],
  ['GET /api/v1/relationship-tuples', ADMINS],
  ['POST /api/v1/relationship-tuples', '401 403 403 403 403 403 201 401 201 403', async (scene) => ({ body: await newTuple(scene) })],
  ['GET /api/v1/relationship-tuples/:tuple_id', ADMINS, aTuple],
  ['DELETE /api/v1/relationship-tuples/:tuple_id', '401 403 403 403 403 403 204 401 204 403', aTuple],
  ['POST /api/v1/relationship-tuples/bulk', '401 403 403 403 403 403 200 401 200 403', async (scene) => ({ body: { create: [await newTuple(scene)] } })],
  ['GET /api/v1/condition-sets', ADMINS],
  ['POST /api/v1/condition-sets', '401 403 403 403 403 403 201 401 201 403', () => ({ body: newSet() })],
  ['GET /api/v1/condition-sets/:condition_set_id', ADMINS, aSet],
  ['PATCH /api/v1/condition-sets/:condition_set_id', '401 403 403 403 403 403 200 401 200 403', async (scene) => ({ ...(await aSet(scene)), body: { name: 'Renamed' } })],
  ['DELETE /api/v1/condition-sets/:condition_set_id', '401 403 403 403 403 403 204 401 204 403', aSet],
  ['GET /api/v1/policy', ADMINS],
  ['POST /api/v1/policy', '401 403 403 403 403 403 200 401 200 403', async ({ postern }) => ({ query: '?dry_run=true', body: (await postern.root.get('/api/v1/policy')).json() })],
  ['GET /api/v1/policy/templates', ADMINS],
  ['GET /api/v1/policy/templates/:name', ADMINS, () => ({ params: { name: 'blog-rbac' } })],
  ['POST /api/v1/policy/templates/:name', '401 403 403 403 403 403 200 401 200 403', () => ({ params: { name: 'blog-rbac' }, query: '?dry_run=true' })],
  ['GET /api/v1/set-rules', ADMINS],
  ['POST /api/v1/set-rules', '401 403 403 403 403 403 201 401 201 403', async (scene) => ({ body: await newRule(scene) })],
  ['GET /api/v1/set-rules/:set_rule_id', ADMINS, aRule],
  ['DELETE /api/v1/set-rules/:set_rule_id', '401 403 403 403 403 403 204 401 204 403', aRule],
  ['GET /api/v1/user-attributes', ADMINS],
  ['POST /api/v1/user-attributes', '401 403 403 403 403 403 201 401 201 403', () => ({ body: { key: unique('attribute'), type: 'string' } })],
  ['GET /api/v1/user-attributes/:attribute_id', ADMINS, aUserAttribute],
  ['PATCH /api/v1/user-attributes/:attribute_id', '401 403 403 403 403 403 200 401 200 403', async (scene) => ({ ...(await aUserAttribute(scene)), body: { description: 'x' } })],
  ['DELETE /api/v1/user-attributes/:attribute_id', '401 403 403 403 403 403 204 401 204 403', aUserAttribute],

  ['GET /api/v1/accounts', ADMINS],
  ['POST /api/v1/accounts', '401 403 403 403 403 201 201 401 201 403', () => ({ body: { name: unique('Company') } })],
  ['GET /api/v1/accounts/me', PEOPLE],
  ['GET /api/v1/accounts/users/me', '401 403 403 200 200 200 200 401 404 404'],
  ['GET /api/v1/accounts/:account_id', READ_IN_ACCOUNT, theAccount],
  ['PUT /api/v1/accounts/:account_id', '401 403 403 200 404 200 200 401 200 403', renamedAccount],
  ['PATCH /api/v1/accounts/:account_id', '401 403 403 200 404 200 200 401 200 403', renamedAccount],
  ['DELETE /api/v1/accounts/:account_id', '401 403 403 403 403 204 204 401 204 403', anEmptyAccount],
  ['POST /api/v1/accounts/:account_id/deactivate', '401 403 403 200 404 200 200 401 200 403', theAccount],
  ['POST /api/v1/accounts/:account_id/reactivate', '401 403 403 200 404 200 200 401 200 403', theAccount],
  ['GET /api/v1/accounts/:account_id/users', READ_IN_ACCOUNT, theAccount],
  ['POST /api/v1/accounts/:account_id/users', '401 403 403 403 403 200 200 401 409 403', async (scene) => ({ ...theAccount(scene), body: { user_id: await aStranger(scene) } })],
  ['GET /api/v1/accounts/:account_id/members', READ_IN_ACCOUNT, theAccount],
  ['PUT /api/v1/accounts/:account_id/members/:user_id', '401 403 403 403 403 204 204 401 204 403', async (scene) => ({ params: { account_id: scene.accountId, user_id: await aStranger(scene) } })],
  ['DELETE /api/v1/accounts/:account_id/members/:user_id', '401 403 403 204 404 204 204 401 204 403', aMember],

  ['GET /api/v1/environments', SUPER_ADMINS],
  ['POST /api/v1/environments', '401 403 403 403 403 403 201 401 403 403', () => ({ body: { key: unique('env'), name: 'New' } })],
  ['GET /api/v1/environments/:environment_id', SUPER_ADMINS, theEnvironment],
  ['PATCH /api/v1/environments/:environment_id', SUPER_ADMINS, async (scene) => ({ ...(await theEnvironment(scene)), body: { name: 'Renamed' } })],
  ['DELETE /api/v1/environments/:environment_id', '401 403 403 403 403 403 204 401 403 403', theEnvironment],
  ['GET /api/v1/projects', SUPER_ADMINS],
  ['POST /api/v1/projects', '401 403 403 403 403 403 201 401 403 403', () => ({ body: { key: unique('project'), name: 'New' } })],
  ['GET /api/v1/projects/:project_id', SUPER_ADMINS, theProject],
  ['DELETE /api/v1/projects/:project_id', '401 403 403 403 403 403 204 401 403 403', theProject],
  ['GET /api/v1/api-keys', SUPER_ADMINS],
  ['POST /api/v1/api-keys', '401 403 403 403 403 403 201 401 403 403', () => ({ body: { name: 'New', access: 'read' } })],
  ['GET /api/v1/api-keys/:api_key_id', SUPER_ADMINS, theApiKey],
  ['DELETE /api/v1/api-keys/:api_key_id', '401 403 403 403 403 403 204 401 403 403', theApiKey],
  ['POST /api/v1/api-keys/:api_key_id/rotate', SUPER_ADMINS, theApiKey],

  ['GET /api/v1/audit-events', '401 403 403 200 404 200 200 401 403 403', ({ accountId }) => ({ query: `?account_id=${accountId}` })],

  ['POST /sync-user', CREATED_BY_ADMINS, () => ({ body: { email: `${unique('synced')}@postern.test`, first_name: 'A', last_name: 'B' } })],
  ['POST /create-tenant', CREATED_BY_ADMINS, () => ({ body: { key: unique('tenant'), name: 'New' } })],
  ['POST /check-permission', PDP_IN_ACCOUNT, async (scene) => {
    const { user, tenant } = await aReader(scene)
    return { body: { user, action: 'read', resource: 'post', tenant } }
  }],

  ['POST /allowed', PDP_IN_ACCOUNT, aCheck],
  ['POST /v1/data/permit/root', PDP_IN_ACCOUNT, (scene) => ({ body: { input: aCheck(scene).body } })],
  ['POST /allowed/bulk', PDP_IN_ACCOUNT, (scene) => ({ body: [aCheck(scene).body] })],
  ['POST /allowed/all-tenants', PDP, aCheck],
  ['POST /user-permissions', PDP, aCheck],
  ['POST /user-tenants', PDP, aCheck],
  ['POST /authorized_users', PDP_IN_ACCOUNT, aCheck],
  ['POST /nginx_allowed', PDP_IN_ACCOUNT, ({ accountId }) => ({ headers: { 'permit-user-key': 'ada', 'permit-tenant-id': accountId, 'permit-action': 'read', 'permit-resource-type': 'post' } })],
  ['GET /local/role_assignments', PDP_IN_ACCOUNT, ({ accountId }) => ({ query: `?tenant=${accountId}` })],
  ['GET /version', PDP],
  ['POST /update_policy', PDP],
  ['POST /update_policy_data', PDP],
  ['GET /healthy', PUBLIC],
  ['GET /ready', PUBLIC],

  ['GET /v2/api-key/scope', SIGNED_IN],
  ...facts('/v2/facts/:proj_id/:env_id'),
  ...facts('/facts'),

  ['POST /access/v1/evaluation', CHECK_IN_ACCOUNT, aQuestion],
  ['POST /access/v1/evaluations', CHECK_IN_ACCOUNT, aQuestion],
  ['POST /access/v1/search/subject', CHECK_IN_ACCOUNT, aQuestion],
  ['POST /access/v1/search/resource', CHECK_IN_ACCOUNT, aQuestion],
  ['POST /access/v1/search/action', CHECK_IN_ACCOUNT, aQuestion],
  ['GET /.well-known/authzen-configuration', PUBLIC],

  ['GET /.well-known/jwks.json', PUBLIC],
  ['GET /api/v1/openapi.json', PUBLIC],
  ['GET /docs', PUBLIC],
  ['GET /docs/json', PUBLIC],
  ['GET /docs/yaml', PUBLIC],
  ['GET /docs/static/index.html', '302 302 302 302 302 302 302 302 302 302'],
  ['GET /docs/static/swagger-initializer.js', PUBLIC],
  ['GET /docs/*', PUBLIC, () => ({ params: { '*': 'static/swagger-ui.css' } })],
  ['GET /problems/:code', PUBLIC, () => ({ params: { code: 'user_not_found' } })],
  ['GET /health', PUBLIC],
  ['GET /health/live', PUBLIC],
  ['GET /health/ready', PUBLIC],
  ['GET /metrics', PUBLIC],
]

t.test('every route answers everybody as the table says', async (t) => {
  const postern = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '1000' } })
  const shared = new Map<string, Stage>()

  for (const [route, statuses, make] of TABLE) {
    t.test(route, async (t) => {
      const [method = '', path = ''] = route.split(' ')

      for (const [column, actor] of ACTORS.entries()) {
        // Reads share their people and accounts; whatever changes something has its own.
        const stage = (method === 'GET' && shared.get(actor)) || (await stageFor(postern, actor))
        if (method === 'GET') shared.set(actor, stage)
        const call = (await make?.({ postern, accountId: stage.accountId })) ?? {}
        const expected = Number(statuses.split(' ')[column])

        const response = await send(stage.client, method as Method, path, call)

        t.equal(response.statusCode, expected, actor, { body: response.body.slice(0, 200) })
        if (method === 'GET') {
          const head = await send(stage.client, 'HEAD', path, call)
          t.equal(head.statusCode, expected, `${actor}: HEAD`)
          t.equal(head.body, '', `${actor}: HEAD has no body`)
        }
      }
    })
  }
})

t.test(
  'every route of the application is in the table, and other methods are refused with Allow',
  async (t) => {
    const { app, anonymous } = await buildTestApp(t)
    const listed = new Set(TABLE.map(([route]) => route))
    const routes = routesOf(app.printRoutes({ commonPrefix: false }))

    const unlisted = routes.filter((route) => !listed.has(route.replace('HEAD ', 'GET ')))

    t.same(
      [...listed].filter((route) => !routes.includes(route)),
      [],
      'the table has no route that does not exist',
    )
    t.ok(unlisted.length > 100, 'the walk found the refusing routes')
    for (const route of unlisted) {
      const [method, path = ''] = route.split(' ')
      const response = await anonymous.send(method as Method, path.replaceAll(/:\w+/g, 'x'))
      t.equal(response.statusCode, 405, `${route} is not in the table of test/boundaries.test.ts`)
      t.same(String(response.headers.allow).split(', ').sort(), methodsOf(path), `${route}: Allow`)
    }
  },
)

t.test('a route that declares no access keeps the application from starting', async (t) => {
  const { services } = await buildTestApp(t)
  const app = await buildApp(services, { logger: false })
  t.teardown(async () => await app.close())

  app.register(async (inner) => {
    inner.get('/forgotten', async () => 'open to all')
  })

  await t.rejects(async () => await app.ready(), { message: 'GET /forgotten declares no access' })
})

t.test('a HEAD route is guarded as its GET route is', async (t) => {
  const { services, anonymous: _, person, rootToken } = await buildTestApp(t)
  const app = await buildApp(services, { logger: false })
  t.teardown(async () => await app.close())
  let runs = 0
  app.get(
    '/guarded',
    { config: { access: { permission: 'postern.users:read' } } },
    async () => `run ${++runs}`,
  )
  const guest = await person('GUEST')
  const head = async (token?: string) =>
    await app.inject({
      method: 'HEAD',
      url: '/guarded',
      headers: token ? { authorization: `Bearer ${token}` } : {},
    })

  const statuses = [await head(), await head(guest.token), await head(rootToken)].map((r) => r.statusCode)

  t.same(statuses, [401, 403, 200])
  t.equal(runs, 1)
})

/** The methods that a path takes by the table. */
function methodsOf(path: string): string[] {
  const methods = TABLE.map(([route]) => route.split(' ')).flatMap(([method = '', url]) =>
    url === path ? [method] : [],
  )
  return [...methods, ...(methods.includes('GET') ? ['HEAD'] : [])].sort()
}

type Stage = { client: Client; accountId: string }

/** An actor, and the account that the objects of its calls belong to. */
async function stageFor(postern: TestApp, actor: (typeof ACTORS)[number]): Promise<Stage> {
  const accountId = await postern.account()
  switch (actor) {
    case 'anonymous':
      return { accountId, client: postern.anonymous }
    case 'ACCOUNT_ADMIN of another account':
      return { accountId, client: (await postern.person('ACCOUNT_ADMIN')).client }
    case 'api key (full)':
    case 'api key (read)': {
      const access = actor === 'api key (full)' ? 'full' : 'read'
      return { accountId, client: (await anApiKey(postern, { access })).client }
    }
    case 'deactivated': {
      const { id, client } = await postern.person('SUPER_ADMIN', { accountId })
      await postern.root.post(`/api/v1/users/${id}/deactivate`)
      return { accountId, client }
    }
    default:
      return { accountId, client: (await postern.person(actor, { accountId })).client }
  }
}

async function send(
  client: Client,
  method: Method | 'HEAD',
  path: string,
  { params = {}, query = '', body, form, headers }: Call,
) {
  const url = path.replaceAll(/:(\w+)|\*/g, (name) => params[name.replace(':', '')] ?? name) + query
  if (!form) return await client.send(method as Method, url, body, headers)
  return await client.send(method as Method, url, new URLSearchParams(form).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
  })
}

/** `METHOD /path` of every line of the tree that Fastify prints. */
function routesOf(tree: string): string[] {
  const parents: string[] = []
  return tree.split('\n').flatMap((line) => {
    const match = /^(?<indent>[│├└─ ]*)(?<path>\S+)(?: \((?<methods>[A-Z, ]+)\))?$/.exec(line)
    if (!match?.groups) return []
    const { indent = '', path = '', methods = '' } = match.groups
    const depth = indent.length / 4
    const url = `${parents[depth - 1] ?? ''}${path}`
    parents[depth] = url
    const known = url === '/docs*' ? '/docs/*' : url
    return methods === '' ? [] : methods.split(', ').map((method) => `${method} ${known}`)
  })
}
