import t from 'tap'
import { buildApp } from '../src/app.ts'
import { DEFAULT_ENVIRONMENT } from '../src/db/client.ts'
import { SYSTEM } from '../src/principal.ts'
import { anApiKey, anEnvironment } from './helpers/api-keys.ts'
import { buildTestApp, type Client, type Method, type TestApp } from './helpers/app.ts'
import { PASSWORD } from './helpers/config.ts'
import { anInvitation } from './helpers/invitations.ts'
import { routesOf } from './helpers/routes.ts'

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

/** What an authenticator might have said, to nothing that was asked. */
const A_CREDENTIAL = { id: 'eA', rawId: 'eA', type: 'public-key' }
const A_REGISTRATION = { ...A_CREDENTIAL, response: { clientDataJSON: 'e30', attestationObject: 'oA' } }
const AN_ASSERTION = {
  ...A_CREDENTIAL,
  response: { clientDataJSON: 'e30', authenticatorData: 'eA', signature: 'eA' },
}

const newUser = () => ({
  body: { email: `${unique('new')}@postern.test`, password: PASSWORD, full_name: 'New' },
})
const credentials = async ({ postern, accountId }: Scene) =>
  (await postern.person('GUEST', { accountId })).email
const aRefreshToken = async (scene: Scene): Promise<string> => {
  const body = { email: await credentials(scene), password: PASSWORD }
  const signedIn = await scene.postern.anonymous.post('/api/v1/auth/login', body)
  return signedIn.json<{ refresh_token: string }>().refresh_token
}
/** A session of somebody at home in the account of the scene. */
const aSession = async ({ postern, accountId }: Scene): Promise<Call> => {
  const { id } = await postern.person('GUEST', { accountId })
  const [session] = (await postern.root.get(`/api/v1/users/${id}/sessions`)).json<{ id: string }[]>()
  return { params: { user_id: id, session_id: session?.id ?? '' } }
}
const theUser = async (scene: Scene): Promise<Call> => ({ params: { user_id: await aUser(scene, 'GUEST') } })
const aDeletedUser = async (scene: Scene): Promise<Call> => {
  const call = await theUser(scene)
  await scene.postern.root.delete(`/api/v1/users/${call.params?.['user_id']}`)
  return call
}
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
const theClient = async ({ postern }: Scene): Promise<Call & { params: Record<string, string> }> => {
  const made = await postern.root.post('/api/v1/clients', { name: 'New' })
  const { client_id, secrets } = made.json<{ client_id: string; secrets: { id: string }[] }>()
  return { params: { client_id, secret_id: secrets[0]?.id ?? '' } }
}
const newWebhook = ({ accountId }: Scene) => ({
  body: { url: 'https://example.com/hook', events: ['user.created'], account_id: accountId },
})
const theWebhook = async (scene: Scene): Promise<Call & { params: Record<string, string> }> => {
  const made = await scene.postern.root.post('/api/v1/webhooks', newWebhook(scene).body)
  const webhook_id = made.json<{ id: string }>().id
  const sent = await scene.postern.root.post(`/api/v1/webhooks/${webhook_id}/test`)
  return { params: { webhook_id, delivery_id: sent.json<{ id: string }>().id } }
}
/** A form of a client that has nothing to prove; whoever also sends a token proves too much. */
const aPublicForm = (form: Record<string, string>) => (): Call => ({
  form: { client_id: 'first-party', ...form },
})
const theKey = async ({ postern }: Scene) => ({ params: { id: (await anApiKey(postern)).id } })
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
/** The same as Permit names them. */
const newPermitInstance = async (scene: Scene) => {
  const { account: tenant, ...instance } = await newInstance(scene)
  return { ...instance, tenant }
}
const aPermitInstance = async (scene: Scene) => ({
  params: { ...PLACE, ...(await anInstance(scene)).params },
})
const newPermitTuple = async (scene: Scene) => {
  const { account: tenant, ...tuple } = await newTuple(scene)
  return { ...tuple, tenant }
}
const aPermitTuple = async (scene: Scene) => {
  const { account, ...tuple } = await newTuple(scene)
  await scene.postern.root.post('/api/v1/relationship-tuples', { ...tuple, account })
  return tuple
}
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
/** A condition set of Permit's, and a rule over it. */
const permitSet = async (scene: Scene, body?: object): Promise<Call> => ({
  params: { ...PLACE, condition_set_id: (await aSet(scene)).params.condition_set_id },
  ...(body && { body }),
})
const permitRule = async (scene: Scene): Promise<Call> => {
  const { user_set, permission, resource } = await newRule(scene)
  return { params: PLACE, body: { user_set, permission, resource_set: resource } }
}
const aProxy = async ({ postern }: Scene, body?: object): Promise<Call> => {
  const { proxies } = postern.services.modelOf(DEFAULT_ENVIRONMENT)
  const key = unique('proxy')
  await proxies.createProxyConfig(SYSTEM, { key, name: key, mappingRules: [] })
  return { params: { ...PLACE, proxy_config_id: key }, ...(body && { body }) }
}
const newInvite = async (scene: Scene) => {
  const { role, tenant } = await aReader(scene)
  return { email: `${unique('guest')}@postern.test`, role_id: role, tenant_id: tenant }
}
const anInvite = async (scene: Scene): Promise<Call> => {
  const { email, role_id, tenant_id } = await newInvite(scene)
  const { invites, permitSets } = scene.postern.services.modelOf(DEFAULT_ENVIRONMENT)
  const { id } = await invites.createInvite(SYSTEM, {
    key: undefined,
    email,
    firstName: null,
    lastName: null,
    role: await permitSets.getRole(role_id),
    accountId: tenant_id,
    instance: undefined,
  })
  return { params: { ...PLACE, user_invite_id: id }, body: { email, key: unique('guest') } }
}

/** An invitation to the account of the scene, and what the link in its mail would have. */
const invited = async (scene: Scene) => {
  const { params } = await aRole(scene)
  const { accountId } = scene
  const person = { accountId, roleId: params?.['role_id'] ?? '', email: `${unique('guest')}@postern.test` }
  const { id, token } = await anInvitation(scene.postern, person)
  return { params: { account_id: accountId, invitation_id: id }, token }
}
const theInvitation = async (scene: Scene): Promise<Call> => ({ params: (await invited(scene)).params })
const newInvitation = async (scene: Scene): Promise<Call> => {
  const { params } = await aRole(scene)
  const body = { email: `${unique('guest')}@postern.test`, role_id: params?.['role_id'] }
  return { ...theAccount(scene), body }
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
/** The same as Permit's faces have it; `of` names the kind whose definition the path is about. */
const inPlace =
  (of: string, body?: object) =>
  async (scene: Scene): Promise<Call> => {
    const { params } = await aResource(scene)
    const one = { ...PLACE, ...params, definition_id: params[`${of}_id`] ?? '' }
    return { params: one, ...(body && { body }) }
  }
const aRoleInPlace = (body?: object) => async (scene: Scene) => ({
  params: { ...PLACE, ...(await aRole(scene)).params },
  ...(body && { body }),
})
const twoRoles = async (scene: Scene) => {
  const parent = await aRole(scene)
  return {
    params: {
      ...PLACE,
      ...(await aRole(scene)).params,
      parent_role_id: String(parent.params?.['role_id']),
    },
  }
}
const twoOfAResource = async (scene: Scene) => {
  const { params } = await aResource(scene)
  const path = `/api/v1/resources/${params['resource_id']}/roles`
  const parent = (await scene.postern.root.post(path, { key: unique('parent') })).json<{ id: string }>()
  return { params: { ...PLACE, ...params, parent_role_id: parent.id } }
}
const newDerivation = async (scene: Scene) => {
  const { params, body } = await aDerivation(scene)
  return { params: { ...PLACE, ...params }, body }
}
const theDerivation = async (scene: Scene) => {
  const { params } = await aResource(scene)
  const path = `/api/v1/resources/${params['resource_id']}/relations/${params['relation_id']}`
  const relation = (await scene.postern.root.get(path)).json<{ subject_resource: string }>()
  const body = { role: 'keeper', on_resource: relation.subject_resource, linked_by_relation: 'parent' }
  return { params: { ...PLACE, ...params }, body }
}
const attributeOfUsers = (body?: object) => async (scene: Scene) => {
  const { params } = await aUserAttribute(scene)
  return {
    params: { ...PLACE, definition_id: String(params?.['attribute_id']) },
    ...(body && { body }),
  }
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
const DELETED_BY_SUPER_ADMINS = '401 403 403 403 403 403 204 401 403 403'
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

type Actor = (typeof ACTORS)[number]

const WRITTEN_BY_ADMINS = '401 403 403 403 403 200 200 401 200 403'
const NO_CONTENT_TO_ADMINS = '401 403 403 403 403 204 204 401 204 403'
const POLICY_WRITTEN = '401 403 403 403 403 403 200 401 200 403'
const WRITTEN_BY_SUPER_ADMINS = '401 403 403 403 403 403 200 401 200 403'
const NO_CONTENT_TO_SUPER_ADMINS = '401 403 403 403 403 403 204 401 204 403'
const CREATED_BY_ADMINS = '401 403 403 403 403 201 201 401 201 403'
const PDP_IN_ACCOUNT = '401 403 403 200 403 200 200 401 200 200'
const PDP = '401 403 403 200 200 200 200 401 200 200'
// There is no offline mode.
const NO_OFFLINE_MODE = '401 403 403 400 400 400 400 401 400 400'

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
  [`GET ${prefix}/set_rules`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/set_rules`, WRITTEN_BY_SUPER_ADMINS, permitRule],
  [`DELETE ${prefix}/set_rules`, NO_CONTENT_TO_SUPER_ADMINS, permitRule],
  [`GET ${prefix}/proxy_configs`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/proxy_configs`, WRITTEN_BY_SUPER_ADMINS, () => ({ params: PLACE, body: { key: unique('proxy'), name: 'New' } })],
  [`GET ${prefix}/proxy_configs/:proxy_config_id`, ADMINS, aProxy],
  [`PATCH ${prefix}/proxy_configs/:proxy_config_id`, WRITTEN_BY_SUPER_ADMINS, async (scene) => await aProxy(scene, { name: 'Renamed' })],
  [`DELETE ${prefix}/proxy_configs/:proxy_config_id`, NO_CONTENT_TO_SUPER_ADMINS, aProxy],
  [`GET ${prefix}/user_invites`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/user_invites`, WRITTEN_BY_ADMINS, async (scene) => ({ params: PLACE, body: await newInvite(scene) })],
  [`GET ${prefix}/user_invites/:user_invite_id`, ADMINS, anInvite],
  [`POST ${prefix}/user_invites/:user_invite_id/approve`, WRITTEN_BY_ADMINS, anInvite],
  [`DELETE ${prefix}/user_invites/:user_invite_id`, NO_CONTENT_TO_ADMINS, anInvite],
  [`GET ${prefix}/resource_instances`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/resource_instances`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: await newPermitInstance(scene) })],
  [`GET ${prefix}/resource_instances/:instance_id`, ADMINS, aPermitInstance],
  [`PATCH ${prefix}/resource_instances/:instance_id`, POLICY_WRITTEN, async (scene) => ({ ...(await aPermitInstance(scene)), body: { attributes: {} } })],
  [`DELETE ${prefix}/resource_instances/:instance_id`, '401 403 403 403 403 403 204 401 204 403', aPermitInstance],
  [`PUT ${prefix}/bulk/resource_instances`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: { operations: [await newPermitInstance(scene)] } })],
  [`DELETE ${prefix}/bulk/resource_instances`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: { idents: [(await anInstance(scene)).params.instance_id] } })],
  [`GET ${prefix}/relationship_tuples`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/relationship_tuples`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: await newPermitTuple(scene) })],
  [`DELETE ${prefix}/relationship_tuples`, '401 403 403 403 403 403 204 401 204 403', async (scene) => ({ params: PLACE, body: await aPermitTuple(scene) })],
  [`POST ${prefix}/relationship_tuples/bulk`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: { operations: [await newPermitTuple(scene)] } })],
  [`DELETE ${prefix}/relationship_tuples/bulk`, POLICY_WRITTEN, async (scene) => ({ params: PLACE, body: { idents: [await aPermitTuple(scene)] } })],
  [`POST ${prefix}/bulk/users`, WRITTEN_BY_ADMINS, () => ({ params: PLACE, body: { operations: [{ key: unique('user') }] } })],
  [`PUT ${prefix}/bulk/users`, WRITTEN_BY_ADMINS, () => ({ params: PLACE, body: { operations: [{ key: unique('user') }] } })],
  [`DELETE ${prefix}/bulk/users`, WRITTEN_BY_ADMINS, async (scene) => ({ params: PLACE, body: { idents: [(await aReader(scene)).user] } })],
  [`POST ${prefix}/bulk/tenants`, WRITTEN_BY_ADMINS, () => ({ params: PLACE, body: { operations: [{ key: unique('tenant'), name: 'New' }] } })],
  [`DELETE ${prefix}/bulk/tenants`, WRITTEN_BY_ADMINS, async ({ postern }) => ({ params: PLACE, body: { idents: [await postern.account()] } })],
]

// biome-ignore format: one row, one line
const rolesIn = (path: string, one: (body?: object) => (scene: Scene) => Promise<Call>, both: (scene: Scene) => Promise<Call>): Row[] => [
  [`GET ${path}`, ADMINS, one()],
  [`POST ${path}`, WRITTEN_BY_SUPER_ADMINS, async (scene) => await one({ key: unique('role') })(scene)],
  [`GET ${path}/:role_id`, ADMINS, one()],
  [`PATCH ${path}/:role_id`, WRITTEN_BY_SUPER_ADMINS, one({ name: 'Renamed' })],
  [`DELETE ${path}/:role_id`, NO_CONTENT_TO_SUPER_ADMINS, one()],
  [`POST ${path}/:role_id/permissions`, WRITTEN_BY_SUPER_ADMINS, one({ permissions: ['post:read'] })],
  [`DELETE ${path}/:role_id/permissions`, WRITTEN_BY_SUPER_ADMINS, one({ permissions: ['post:read'] })],
  [`GET ${path}/:role_id/ancestors`, ADMINS, one()],
  [`GET ${path}/:role_id/descendants`, ADMINS, one()],
  [`PUT ${path}/:role_id/parents/:parent_role_id`, WRITTEN_BY_SUPER_ADMINS, both],
  [`DELETE ${path}/:role_id/parents/:parent_role_id`, WRITTEN_BY_SUPER_ADMINS, both],
]
// biome-ignore format: one row, one line
const definitionsIn = (path: string, of: (body?: object) => (scene: Scene) => Promise<Call>, isFixed = false): Row[] => [
  [`GET ${path}`, ADMINS, of()],
  [`POST ${path}`, WRITTEN_BY_SUPER_ADMINS, async (scene) => await of({ key: unique('key'), type: 'string', subject_resource: 'post' })(scene)],
  [`GET ${path}/:definition_id`, ADMINS, of()],
  ...(isFixed ? [] : [[`PATCH ${path}/:definition_id`, WRITTEN_BY_SUPER_ADMINS, of({ description: 'Renamed' })] satisfies Row]),
  [`DELETE ${path}/:definition_id`, NO_CONTENT_TO_SUPER_ADMINS, of()],
]
// biome-ignore format: one row, one line
const schema = (prefix: string): Row[] => [
  ...rolesIn(`${prefix}/roles`, aRoleInPlace, twoRoles),
  [`PUT ${prefix}/bulk/roles`, WRITTEN_BY_SUPER_ADMINS, () => ({ params: PLACE, body: { operations: [] } })],
  ...rolesIn(`${prefix}/resources/:resource_id/roles`, (body) => inPlace('role', body), twoOfAResource),
  [`POST ${prefix}/resources/:resource_id/roles/:role_id/implicit_grants`, WRITTEN_BY_SUPER_ADMINS, newDerivation],
  [`DELETE ${prefix}/resources/:resource_id/roles/:role_id/implicit_grants`, NO_CONTENT_TO_SUPER_ADMINS, theDerivation],
  [`PUT ${prefix}/resources/:resource_id/roles/:role_id/implicit_grants/conditions`, WRITTEN_BY_SUPER_ADMINS, inPlace('role', { no_direct_roles_on_object: true })],
  [`GET ${prefix}/resources`, ADMINS, () => ({ params: PLACE })],
  [`POST ${prefix}/resources`, WRITTEN_BY_SUPER_ADMINS, () => ({ params: PLACE, body: { key: unique('resource') } })],
  [`GET ${prefix}/resources/:resource_id`, ADMINS, inPlace('resource')],
  [`PUT ${prefix}/resources/:resource_id`, WRITTEN_BY_SUPER_ADMINS, inPlace('resource', { name: 'Renamed' })],
  [`PATCH ${prefix}/resources/:resource_id`, WRITTEN_BY_SUPER_ADMINS, inPlace('resource', { name: 'Renamed' })],
  [`DELETE ${prefix}/resources/:resource_id`, NO_CONTENT_TO_SUPER_ADMINS, inPlace('resource')],
  ...definitionsIn(`${prefix}/resources/:resource_id/actions`, (body) => inPlace('action', body)),
  ...definitionsIn(`${prefix}/resources/:resource_id/action_groups`, (body) => inPlace('action_group', body)),
  ...definitionsIn(`${prefix}/resources/:resource_id/attributes`, (body) => inPlace('attribute', body)),
  ...definitionsIn(`${prefix}/resources/:resource_id/relations`, (body) => inPlace('relation', body), true),
  ...definitionsIn(`${prefix}/users/attributes`, attributeOfUsers),
]

// Columns: anonymous · GUEST · ACCOUNT_MANAGER · ACCOUNT_ADMIN · ACCOUNT_ADMIN of another account · ADMIN · SUPER_ADMIN · deactivated · api key (full) · api key (read)
// biome-ignore format: one row, one line
const TABLE: Row[] = [
  ['POST /api/v1/auth/access-token', PUBLIC, async (scene) => ({ form: { username: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/login', PUBLIC, async (scene) => ({ body: { email: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/refresh', PUBLIC, async (scene) => ({ body: { refresh_token: await aRefreshToken(scene) } })],
  ['POST /api/v1/auth/logout', '204 204 204 204 204 204 204 204 403 403'],
  ['GET /api/v1/auth/sessions', PEOPLE],
  ['DELETE /api/v1/auth/sessions', '401 204 204 204 204 204 204 401 403 403'],
  ['DELETE /api/v1/auth/sessions/:session_id', '401 404 404 404 404 404 404 401 403 403', aSession],
  ['POST /api/v1/auth/mfa/verify', '401 401 401 401 401 401 401 401 401 401', () => ({ body: { mfa_token: 'x', code: '123456' } })],
  ['POST /api/v1/auth/step-up', PEOPLE, () => ({ body: { password: PASSWORD } })],
  ['GET /api/v1/auth/mfa', PEOPLE],
  ['POST /api/v1/auth/mfa/totp/verify', '401 404 404 404 404 404 404 401 403 403', () => ({ body: { code: '123456' } })],
  ['POST /api/v1/auth/mfa/totp', PEOPLE],
  ['DELETE /api/v1/auth/mfa/totp', '401 404 404 404 404 404 404 401 403 403'],
  ['POST /api/v1/auth/mfa/recovery-codes', '401 409 409 409 409 409 409 401 403 403'],
  ['DELETE /api/v1/users/:user_id/mfa', '401 403 403 204 404 204 204 401 409 403', theUser],
  ['POST /api/v1/auth/passkeys/registration-options', PEOPLE],
  ['POST /api/v1/auth/passkeys', '401 400 400 400 400 400 400 401 403 403', () => ({ body: { name: 'Key', response: A_REGISTRATION } })],
  ['GET /api/v1/auth/passkeys', PEOPLE],
  ['PATCH /api/v1/auth/passkeys/:passkey_id', '401 404 404 404 404 404 404 401 403 403', () => ({ params: { passkey_id: DEFAULT_ENVIRONMENT }, body: { name: 'Key' } })],
  ['DELETE /api/v1/auth/passkeys/:passkey_id', '401 404 404 404 404 404 404 401 403 403', () => ({ params: { passkey_id: DEFAULT_ENVIRONMENT } })],
  ['DELETE /api/v1/auth/password', '401 409 409 409 409 409 409 401 403 403'],
  ['POST /api/v1/auth/passkey/options', PUBLIC, () => ({ body: {} })],
  ['POST /api/v1/auth/passkey/verify', '401 401 401 401 401 401 401 401 401 401', () => ({ body: { challenge_token: 'x', response: AN_ASSERTION } })],
  ['POST /api/v1/auth/mfa/passkey/options', '401 401 401 401 401 401 401 401 401 401', () => ({ body: { mfa_token: 'x' } })],
  ['POST /api/v1/auth/step-up/passkey/options', '401 404 404 404 404 404 404 401 403 403'],
  // There is no mail server.
  ['POST /api/v1/auth/password-reset', '503 503 503 503 503 503 503 503 503 503', async (scene) => ({ body: { email: await credentials(scene) } })],
  ['POST /api/v1/auth/password-reset/confirm', '400 400 400 400 400 400 400 400 400 400', () => ({ body: { token: 'x', password: PASSWORD } })],
  ['POST /api/v1/users/:user_id/password-reset', '401 403 403 503 404 503 503 401 503 403', theUser],
  ['POST /api/v1/auth/magic-link', '403 403 403 403 403 403 403 403 403 403', async (scene) => ({ body: { email: await credentials(scene) } })],
  ['POST /api/v1/auth/magic-link/verify', '403 403 403 403 403 403 403 403 403 403', () => ({ body: { token: 'x', request_token: 'x' } })],
  ['GET /api/v1/auth/email-verification', PEOPLE],
  ['POST /api/v1/auth/email-verification', '401 503 503 503 503 503 503 401 403 403'],
  ['POST /api/v1/auth/email-verification/confirm', '400 400 400 400 400 400 400 400 400 400', () => ({ body: { token: 'x' } })],
  ['POST /api/v1/auth/email-change', '401 503 503 503 503 503 503 401 403 403', () => ({ body: { email: `${unique('new')}@postern.test` } })],
  ['POST /api/v1/auth/email-change/confirm', '400 400 400 400 400 400 400 400 400 400', () => ({ body: { token: 'x' } })],
  ['POST /api/v1/auth/test-token', PEOPLE],
  ['POST /api/v1/auth/hash-password', '401 403 403 403 403 200 200 401 200 403', () => ({ body: { password: PASSWORD } })],
  ['POST /api/v1/auth/change-password', '401 204 204 204 204 204 204 401 403 403', () => ({ body: { current_password: PASSWORD, new_password: 'another long password of mine' } })],

  ['GET /api/v1/users', ADMINS],
  ['POST /api/v1/users', '401 403 403 403 403 201 201 401 422 403', newUser],
  ['POST /api/v1/users/open', '201 201 201 201 201 201 201 201 201 201', newUser],
  ['GET /api/v1/users/me', PEOPLE],
  ['PUT /api/v1/users/me', PEOPLE, () => ({ body: { full_name: 'Renamed' } })],
  ['PATCH /api/v1/users/me', PEOPLE, () => ({ body: { full_name: 'Renamed' } })],
  ['DELETE /api/v1/users/me', '401 204 204 204 204 204 204 401 403 403'],
  ['GET /api/v1/users/me/export', PEOPLE],
  ['GET /api/v1/users/me/permissions', PEOPLE],
  ['GET /api/v1/users/me/accounts', PEOPLE],
  ['GET /api/v1/users/:user_id', READ_IN_ACCOUNT, theUser],
  ['PUT /api/v1/users/:user_id', '401 403 403 200 404 200 200 401 200 403', renamedUser],
  ['PATCH /api/v1/users/:user_id', '401 403 403 200 404 200 200 401 200 403', renamedUser],
  ['DELETE /api/v1/users/:user_id', '401 403 403 403 403 204 204 401 409 403', theUser],
  ['GET /api/v1/users/:user_id/export', '401 403 403 403 403 200 200 401 409 409', theUser],
  ['POST /api/v1/users/:user_id/erase', '401 403 403 403 403 204 204 401 409 403', theUser],
  ['POST /api/v1/users/:user_id/restore', '401 403 403 403 403 200 200 401 409 403', aDeletedUser],
  ['POST /api/v1/users/:user_id/unlock', '401 403 403 204 404 204 204 401 409 403', theUser],
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
  ['GET /api/v1/users/:user_id/sessions', '401 403 403 200 404 200 200 401 403 403', theUser],
  ['DELETE /api/v1/users/:user_id/sessions', '401 403 403 204 404 204 204 401 403 403', theUser],
  ['DELETE /api/v1/users/:user_id/sessions/:session_id', '401 403 403 204 404 204 204 401 403 403', aSession],
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
  ['GET /api/v1/accounts/:account_id/invitations', READ_IN_ACCOUNT, theAccount],
  ['POST /api/v1/accounts/:account_id/invitations', '401 403 403 503 404 503 503 401 503 403', newInvitation],
  ['GET /api/v1/accounts/:account_id/invitations/:invitation_id', READ_IN_ACCOUNT, theInvitation],
  ['POST /api/v1/accounts/:account_id/invitations/:invitation_id/resend', '401 403 403 503 404 503 503 401 503 403', theInvitation],
  ['DELETE /api/v1/accounts/:account_id/invitations/:invitation_id', '401 403 403 204 404 204 204 401 204 403', theInvitation],
  ['POST /api/v1/invitations/inspect', PUBLIC, async (scene) => ({ body: { token: (await invited(scene)).token } })],
  ['POST /api/v1/invitations/accept', '200 403 403 403 403 403 403 401 403 403', async (scene) => ({ body: { token: (await invited(scene)).token, password: PASSWORD } })],

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
  ['GET /api/v1/keys', SUPER_ADMINS],
  ['POST /api/v1/keys/rotate', SUPER_ADMINS],
  ['GET /api/v1/clients', SUPER_ADMINS],
  ['POST /api/v1/clients', '401 403 403 403 403 403 201 401 403 403', () => ({ body: { name: 'New' } })],
  ['GET /api/v1/clients/:client_id', SUPER_ADMINS, theClient],
  ['PUT /api/v1/clients/:client_id', SUPER_ADMINS, async (scene) => ({ ...(await theClient(scene)), body: { name: 'Renamed' } })],
  ['PATCH /api/v1/clients/:client_id', SUPER_ADMINS, async (scene) => ({ ...(await theClient(scene)), body: { name: 'Renamed' } })],
  ['DELETE /api/v1/clients/:client_id', '401 403 403 403 403 403 204 401 403 403', theClient],
  ['POST /api/v1/clients/:client_id/secrets', '401 403 403 403 403 403 201 401 403 403', async (scene) => ({ ...(await theClient(scene)), body: {} })],
  ['DELETE /api/v1/clients/:client_id/secrets/:secret_id', '401 403 403 403 403 403 204 401 403 403', theClient],
  ['POST /oauth2/token', '200 401 401 401 401 401 401 401 401 401', async (scene) => aPublicForm({ grant_type: 'refresh_token', refresh_token: await aRefreshToken(scene) })()],
  ['POST /oauth2/revoke', '200 401 401 401 401 401 401 401 401 401', aPublicForm({ token: 'x' })],
  ['POST /oauth2/introspect', '401 403 403 403 403 200 200 401 403 403', () => ({ form: { token: 'x' } })],
  ['GET /.well-known/oauth-authorization-server', PUBLIC],

  ['GET /api/v1/revocations', '401 403 403 403 403 200 200 401 200 200'],

  ['GET /api/v1/webhooks', '401 403 403 200 404 200 200 401 403 403', ({ accountId }) => ({ query: `?account_id=${accountId}` })],
  ['POST /api/v1/webhooks', '401 403 403 201 404 201 201 401 403 403', newWebhook],
  ['GET /api/v1/webhooks/:webhook_id', '401 403 403 200 404 200 200 401 403 403', theWebhook],
  ['PATCH /api/v1/webhooks/:webhook_id', '401 403 403 200 404 200 200 401 403 403', async (scene) => ({ ...(await theWebhook(scene)), body: { is_active: false } })],
  ['DELETE /api/v1/webhooks/:webhook_id', '401 403 403 204 404 204 204 401 403 403', theWebhook],
  ['POST /api/v1/webhooks/:webhook_id/rotate-secret', '401 403 403 200 404 200 200 401 403 403', theWebhook],
  ['POST /api/v1/webhooks/:webhook_id/test', '401 403 403 202 404 202 202 401 403 403', theWebhook],
  ['GET /api/v1/webhooks/:webhook_id/deliveries', '401 403 403 200 404 200 200 401 403 403', theWebhook],
  ['POST /api/v1/webhooks/:webhook_id/deliveries/:delivery_id/redeliver', '401 403 403 202 404 202 202 401 403 403', theWebhook],
  ['GET /api/v1/audit-events', '401 403 403 200 404 200 200 401 403 403', ({ accountId }) => ({ query: `?account_id=${accountId}` })],
  ['GET /api/v1/audit-events/export', '401 403 403 200 404 200 200 401 403 403', ({ accountId }) => ({ query: `?account_id=${accountId}` })],
  ['GET /api/v1/audit-checkpoints', '401 403 403 403 403 200 200 401 403 403'],

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
  ['POST /allowed_url', PDP, () => ({ body: { user: { key: 'ada' }, http_method: 'get', url: 'https://api.test/' } })],
  // Off unless a setting says otherwise.
  ['POST /kong', '503 503 503 503 503 503 503 503 503 503', () => ({ body: {} })],
  ['POST /user-permissions', PDP, aCheck],
  ['POST /user-tenants', PDP, aCheck],
  ['POST /authorized_users', PDP_IN_ACCOUNT, aCheck],
  ['POST /nginx_allowed', PDP_IN_ACCOUNT, ({ accountId }) => ({ headers: { 'permit-user-key': 'ada', 'permit-tenant-id': accountId, 'permit-action': 'read', 'permit-resource-type': 'post' } })],
  ['GET /local/role_assignments', PDP_IN_ACCOUNT, ({ accountId }) => ({ query: `?tenant=${accountId}` })],
  ['GET /version', PDP],
  ['GET /control-plane/connectivity', PDP],
  ['POST /control-plane/connectivity/enable', NO_OFFLINE_MODE],
  ['POST /control-plane/connectivity/disable', NO_OFFLINE_MODE],
  ['GET /healthchecks/opa/healthy', PDP],
  ['GET /healthchecks/opa/ready', PDP],
  ['GET /healthchecks/opa/system', PDP],
  ['POST /update_policy', PDP],
  ['POST /update_policy_data', PDP],
  ['GET /healthy', PUBLIC],
  ['GET /ready', PUBLIC],

  ['GET /v2/api-key/scope', SIGNED_IN],
  ['GET /v2/api-key', SUPER_ADMINS],
  ['POST /v2/api-key', SUPER_ADMINS, () => ({ body: { object_type: 'org', access_level: 'read' } })],
  ['GET /v2/api-key/:id', SUPER_ADMINS, theKey],
  ['DELETE /v2/api-key/:id', DELETED_BY_SUPER_ADMINS, theKey],
  ['POST /v2/api-key/:id/rotate-secret', SUPER_ADMINS, theKey],
  ['GET /v2/api-key/:id/:env_id', '401 403 403 403 403 403 200 401 403 403', () => ({ params: { id: 'default', env_id: 'default' } })],
  ['GET /v2/projects', ADMINS],
  ['POST /v2/projects', SUPER_ADMINS, () => ({ body: { key: unique('project'), name: 'New' } })],
  ['GET /v2/projects/:proj_id', ADMINS, () => ({ params: PLACE })],
  ['PATCH /v2/projects/:proj_id', SUPER_ADMINS, () => ({ params: PLACE, body: { name: 'Renamed' } })],
  ['DELETE /v2/projects/:proj_id', DELETED_BY_SUPER_ADMINS, async (scene) => ({ params: { proj_id: (await theProject(scene)).params.project_id } })],
  ['GET /v2/projects/:proj_id/envs', ADMINS, () => ({ params: PLACE })],
  ['POST /v2/projects/:proj_id/envs', SUPER_ADMINS, () => ({ params: PLACE, body: { key: unique('env'), name: 'New' } })],
  ['GET /v2/projects/:proj_id/envs/:env_id', ADMINS, () => ({ params: PLACE })],
  ['PATCH /v2/projects/:proj_id/envs/:env_id', SUPER_ADMINS, () => ({ params: PLACE, body: { name: 'Renamed' } })],
  ['DELETE /v2/projects/:proj_id/envs/:env_id', DELETED_BY_SUPER_ADMINS, async (scene) => ({ params: { ...PLACE, env_id: (await theEnvironment(scene)).params.environment_id } })],
  ['GET /v2/projects/:proj_id/envs/:env_id/stats', ADMINS, () => ({ params: PLACE })],
  ['POST /v2/projects/:proj_id/envs/:env_id/copy', '401 403 403 403 403 403 201 401 403 403', () => ({ params: PLACE, body: { target_env: { new: { key: unique('env'), name: 'Copy' } } } })],
  ['POST /v2/auth/elements_login_as', '401 501 501 501 501 501 501 401 501 501'],
  ...facts('/v2/facts/:proj_id/:env_id'),
  ['GET /v2/schema/:proj_id/:env_id/condition_sets', ADMINS, () => ({ params: PLACE })],
  ['POST /v2/schema/:proj_id/:env_id/condition_sets', WRITTEN_BY_SUPER_ADMINS, () => ({ params: PLACE, body: newSet() })],
  ['GET /v2/schema/:proj_id/:env_id/condition_sets/:condition_set_id', ADMINS, permitSet],
  ['PATCH /v2/schema/:proj_id/:env_id/condition_sets/:condition_set_id', WRITTEN_BY_SUPER_ADMINS, async (scene) => await permitSet(scene, { name: 'Renamed' })],
  ['DELETE /v2/schema/:proj_id/:env_id/condition_sets/:condition_set_id', NO_CONTENT_TO_SUPER_ADMINS, permitSet],
  ['GET /v2/schema/:proj_id/:env_id/condition_sets/:condition_set_id/ancestors', ADMINS, permitSet],
  ['GET /v2/schema/:proj_id/:env_id/condition_sets/:condition_set_id/descendants', ADMINS, permitSet],
  ...facts('/facts'),
  ...schema('/v2/schema/:proj_id/:env_id'),

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

  // The last: nobody but who asks is signed in after it.
  ['DELETE /api/v1/sessions', '401 403 403 403 403 403 204 401 403 403'],
]

t.test('C.5 8.2.1: every route answers everybody as the table says', async (t) => {
  const postern = await buildTestApp(t, { env: { REGISTRATIONS_PER_ADDRESS: '1000' } })
  const sharedAccount = await postern.account()
  const residents = new Map<string, Client>()
  for (const actor of ACTORS) residents.set(actor, await clientFor(postern, actor, sharedAccount))

  for (const [route, statuses, make] of TABLE) {
    t.test(route, async (t) => {
      const [method = '', path = ''] = route.split(' ')
      let shared: Call | undefined

      for (const [column, actor] of ACTORS.entries()) {
        const expected = Number(statuses.split(' ')[column])
        // What is read or refused is the same afterwards, for everybody; whoever may change something has objects of
        // their own.
        const resident = method === 'GET' || expected >= 400 ? residents.get(actor) : undefined
        if (resident) shared ??= (await make?.({ postern, accountId: sharedAccount })) ?? {}
        const { client, call } =
          resident && shared ? { client: resident, call: shared } : await ownScene(postern, actor, make)

        const response = await send(client, method as Method, path, call)

        t.equal(response.statusCode, expected, actor, { body: response.body.slice(0, 200) })
        if (method === 'GET') {
          const head = await send(client, 'HEAD', path, call)
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

t.test('C.5 8.2.1: a route that declares no access keeps the application from starting', async (t) => {
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

/** The actor in an account of their own, and the call about objects of that account. */
async function ownScene(
  postern: TestApp,
  actor: Actor,
  make: Row[2],
): Promise<{ client: Client; call: Call }> {
  const accountId = await postern.account()
  const client = await clientFor(postern, actor, accountId)
  return { client, call: (await make?.({ postern, accountId })) ?? {} }
}

/** The actor, at home in the account that the objects of the call belong to. */
async function clientFor(postern: TestApp, actor: Actor, accountId: string): Promise<Client> {
  switch (actor) {
    case 'anonymous':
      return postern.anonymous
    case 'ACCOUNT_ADMIN of another account':
      return (await postern.person('ACCOUNT_ADMIN')).client
    case 'api key (full)':
    case 'api key (read)':
      return (await anApiKey(postern, { access: actor === 'api key (full)' ? 'full' : 'read' })).client
    case 'deactivated': {
      const { id, client } = await postern.person('SUPER_ADMIN', { accountId })
      await postern.root.post(`/api/v1/users/${id}/deactivate`)
      return client
    }
    default:
      return (await postern.person(actor, { accountId })).client
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
