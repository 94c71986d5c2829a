import type { Method } from '../helpers/app.ts'

/** What there is in each environment, by the keys that it has in all of them. */
export const KEYS = {
  project: 'shop',
  environment: '',
  /** A project that the rows make. */
  another: 'new',
  apiKey: '',
  folder: 'folder',
  document: 'document',
  spare: 'spare',
  spareRead: 'read',
  read: 'read',
  readDocument: 'document:read',
  edit: 'edit',
  old: 'old',
  reading: 'reading',
  status: 'status',
  parent: 'parent',
  twin: 'twin',
  owner: 'owner',
  editor: 'editor',
  editorOfDocument: 'document#editor',
  viewer: 'viewer',
  age: 'age',
  reader: 'reader',
  writer: 'writer',
  acme: 'acme',
  empty: 'empty',
  vacant: 'vacant',
  ida: 'ida',
  eva: 'eva',
  bob: 'bob',
  f1: 'folder:f1',
  d1: 'document:d1',
  d2: 'document:d2',
  d3: 'document:d3',
  held: '',
  grown: 'grown',
  kid: 'kid',
  drafts: 'drafts',
  gate: 'gate',
  guest: 'guest',
  lodger: 'lodger',
}
export type Name = keyof typeof KEYS
export type Names = Record<Name, string>
/** `MADE` in the path stands for the id of what the calls before have made last. */
type OwnCall = [method: Method, path: string, body?: unknown]
export type Row = [
  route: string,
  call?: {
    params?: Record<string, Name>
    query?: (names: Names) => string
    body?: (names: Names) => unknown
    /** How a key of another environment is refused, when not with 403. */
    refused?: number
    /** What names of another environment are answered with, when not with 404. */
    unknown?: number
    /** Only a key of the organization may. */
    byOrganization?: true
    /** What the audit trail says of it. */
    events?: string
    /** The same by our own API. */
    ours?: (names: Names) => OwnCall[]
  },
]

/** What a parameter of a path names unless the row says otherwise. */
export const PARAMS: Record<string, Name> = {
  proj_id: 'project',
  env_id: 'environment',
  id: 'apiKey',
  user_id: 'ida',
  tenant_id: 'acme',
  resource_id: 'document',
  instance_id: 'd1',
  condition_set_id: 'grown',
  proxy_config_id: 'gate',
  user_invite_id: 'guest',
}

export const F = '/v2/facts/:proj_id/:env_id'
export const S = '/v2/schema/:proj_id/:env_id'
const grant = ({ ida, writer, acme }: Names) => ({ user: ida, role: writer, tenant: acme })
const grantOnInstance = ({ ida, editor, d1 }: Names) => ({ user: ida, role: editor, resource_instance: d1 })
const assigned = ({ ida, writer, acme }: Names): OwnCall[] => [
  ['POST', `users/${ida}/roles`, { role_id: writer, account_id: acme }],
]
const unassigned = ({ ida }: Names): OwnCall[] => [['DELETE', `users/${ida}/roles/MADE`]]
const tuple = ({ f1, d2 }: Names) => ({ subject: f1, relation: 'parent', object: d2 })
const TUPLE = { subject: 'folder:f1', relation: 'parent', object: 'document:d2' }
const rule = ({ kid, drafts }: Names) => ({
  user_set: kid,
  permission: 'document:edit',
  resource_set: drafts,
})
const rename = () => ({ name: 'Another' })
const describe = () => ({ description: 'Another' })

/** A list, one of it, and their writes. */
// biome-ignore format: one row, one line
const definitions = (path: string, own: (names: Names) => string, event: string, name: Name, more: object = {}): Row[] => [
  [`GET ${path}`, path.includes(':resource_id') ? {} : { unknown: 200 }],
  [`POST ${path}`, { body: () => ({ key: 'new', ...more }), events: `${event}.created`, ours: (names) => [['POST', own(names), { key: 'new', ...more }]] }],
  [`GET ${path}/:definition_id`, { params: { definition_id: name } }],
  [`PATCH ${path}/:definition_id`, { params: { definition_id: name }, body: describe, events: `${event}.updated`, ours: (names) => [['PATCH', `${own(names)}/${names[name]}`, describe()]] }],
  [`DELETE ${path}/:definition_id`, { params: { definition_id: name }, events: `${event}.deleted`, ours: (names) => [['DELETE', `${own(names)}/${names[name]}`]] }],
]

/** In an order in which each of them can be done. */
// biome-ignore format: one row, one line
export const ROWS: Row[] = [
  [`GET ${F}/users`, { query: ({ reader }) => `?role=${reader}`, unknown: 200 }],
  [`POST ${F}/users`, { body: () => ({ key: 'new', email: 'new@postern.test' }), events: 'user.created', ours: () => [['POST', 'users', { key: 'new', email: 'new@postern.test' }]] }],
  [`POST ${F}/users`, { body: ({ reader, acme }) => ({ key: 'granted', role_assignments: [{ role: reader, tenant: acme }] }), events: 'role.assigned user.created', ours: ({ reader, acme }) => [['POST', 'users', { key: 'granted' }], ['POST', 'users/MADE/roles', { role_id: reader, account_id: acme }]] }],
  [`GET ${F}/users/:user_id`],
  // Names that nobody has are names for somebody new.
  [`PUT ${F}/users/:user_id`, { params: { user_id: 'eva' }, body: () => ({ first_name: 'Eva' }), unknown: 201, events: 'user.updated', ours: ({ eva }) => [['PUT', `users/${eva}`, { first_name: 'Eva' }]] }],
  [`PATCH ${F}/users/:user_id`, { body: () => ({ attributes: { age: 3 } }), events: 'user.updated', ours: ({ ida }) => [['PATCH', `users/${ida}`, { attributes: { age: 3 } }]] }],
  [`POST ${F}/users/:user_id/roles`, { body: grant, events: 'role.assigned', ours: assigned }],
  [`DELETE ${F}/users/:user_id/roles`, { body: grant, events: 'role.unassigned', ours: unassigned }],
  [`GET ${F}/role_assignments`, { query: ({ ida, acme }) => `?user=${ida}&tenant=${acme}&detailed=true`, unknown: 200 }],
  [`POST ${F}/role_assignments`, { body: grant, events: 'role.assigned', ours: assigned }],
  [`DELETE ${F}/role_assignments`, { body: grant, events: 'role.unassigned', ours: unassigned }],
  [`POST ${F}/role_assignments`, { body: grantOnInstance, events: 'role.assigned', ours: ({ ida, editor }) => [['POST', `users/${ida}/roles`, { role_id: editor, resource_instance: 'document:d1' }]] }],
  [`DELETE ${F}/role_assignments`, { body: grantOnInstance, events: 'role.unassigned', ours: unassigned }],
  [`POST ${F}/role_assignments/bulk`, { body: (names) => [grant(names)], events: 'role.assigned', ours: assigned }],
  [`DELETE ${F}/role_assignments/bulk`, { body: (names) => [grant(names)], unknown: 200, events: 'role.unassigned', ours: unassigned }],
  [`GET ${F}/tenants`],
  [`POST ${F}/tenants`, { body: () => ({ key: 'new', name: 'New' }), events: 'account.created', ours: () => [['POST', 'accounts', { key: 'new', name: 'New' }]] }],
  [`GET ${F}/tenants/:tenant_id`],
  [`PATCH ${F}/tenants/:tenant_id`, { body: describe, events: 'account.updated', ours: ({ acme }) => [['PATCH', `accounts/${acme}`, describe()]] }],
  [`GET ${F}/tenants/:tenant_id/users`],
  [`POST ${F}/tenants/:tenant_id/users`, { body: () => ({ key: 'further' }), events: 'member.added user.created', ours: ({ acme }) => [['POST', 'users', { key: 'further' }], ['PUT', `accounts/${acme}/members/MADE`]] }],
  [`DELETE ${F}/tenants/:tenant_id/users/:user_id`, { events: 'role.unassigned', ours: ({ ida, held }) => [['DELETE', `users/${ida}/roles/${held}`]] }],
  [`POST ${F}/bulk/users`, { body: () => ({ operations: [{ key: 'many' }] }), events: 'user.created', ours: () => [['POST', 'users', { key: 'many' }]] }],
  [`PUT ${F}/bulk/users`, { body: ({ eva }) => ({ operations: [{ key: eva, first_name: 'Another' }] }), unknown: 200, events: 'user.updated', ours: ({ eva }) => [['PATCH', `users/${eva}`, { first_name: 'Another' }]] }],
  [`DELETE ${F}/bulk/users`, { body: ({ eva }) => ({ idents: [eva] }), unknown: 200, events: 'user.deleted', ours: ({ eva }) => [['DELETE', `users/${eva}`]] }],
  [`DELETE ${F}/users/:user_id`, { params: { user_id: 'bob' }, events: 'user.deleted', ours: ({ bob }) => [['DELETE', `users/${bob}`]] }],
  [`POST ${F}/bulk/tenants`, { body: () => ({ operations: [{ key: 'many', name: 'Many' }] }), events: 'account.created', ours: () => [['POST', 'accounts', { key: 'many', name: 'Many' }]] }],
  [`DELETE ${F}/bulk/tenants`, { body: ({ vacant }) => ({ idents: [vacant] }), unknown: 200, events: 'account.deleted', ours: ({ vacant }) => [['DELETE', `accounts/${vacant}`]] }],
  [`DELETE ${F}/tenants/:tenant_id`, { params: { tenant_id: 'empty' }, events: 'account.deleted', ours: ({ empty }) => [['DELETE', `accounts/${empty}`]] }],

  [`GET ${F}/resource_instances`, { query: ({ acme, document }) => `?tenant=${acme}&resource=${document}`, unknown: 200 }],
  [`POST ${F}/resource_instances`, { body: ({ document, acme }) => ({ key: 'new', resource: document, tenant: acme }), events: 'instance.created', ours: () => [['POST', 'resource-instances', { key: 'new', resource: 'document', account: 'acme' }]] }],
  [`GET ${F}/resource_instances/:instance_id`],
  [`PATCH ${F}/resource_instances/:instance_id`, { body: () => ({ attributes: { draft: true } }), events: 'instance.updated', ours: ({ d1 }) => [['PATCH', `resource-instances/${d1}`, { attributes: { draft: true } }]] }],
  [`PUT ${F}/bulk/resource_instances`, { body: ({ document, acme }) => ({ operations: [{ key: 'many', resource: document, tenant: acme }] }), events: 'instance.bulk_upserted', ours: () => [['PUT', 'resource-instances/bulk', { instances: [{ key: 'many', resource: 'document', account: 'acme' }] }]] }],
  [`DELETE ${F}/bulk/resource_instances`, { body: ({ d3 }) => ({ idents: [d3] }), unknown: 200, events: 'instance.deleted', ours: ({ d3 }) => [['DELETE', `resource-instances/${d3}`]] }],
  [`GET ${F}/relationship_tuples`, { query: ({ f1, acme }) => `?subject=${f1}&tenant=${acme}&detailed=true`, unknown: 200 }],
  [`POST ${F}/relationship_tuples`, { body: tuple, events: 'tuple.created', ours: () => [['POST', 'relationship-tuples', TUPLE]] }],
  [`DELETE ${F}/relationship_tuples`, { body: tuple, events: 'tuple.deleted', ours: () => [['DELETE', 'relationship-tuples/MADE']] }],
  [`POST ${F}/relationship_tuples/bulk`, { body: (names) => ({ operations: [tuple(names)] }), events: 'tuple.bulk_changed', ours: () => [['POST', 'relationship-tuples/bulk', { create: [TUPLE] }]] }],
  [`DELETE ${F}/relationship_tuples/bulk`, { body: (names) => ({ idents: [tuple(names)] }), unknown: 200, events: 'tuple.bulk_changed', ours: () => [['POST', 'relationship-tuples/bulk', { delete: [TUPLE] }]] }],
  [`DELETE ${F}/resource_instances/:instance_id`, { params: { instance_id: 'd2' }, events: 'instance.deleted', ours: ({ d2 }) => [['DELETE', `resource-instances/${d2}`]] }],

  [`GET ${S}/condition_sets`],
  [`POST ${S}/condition_sets`, { body: ({ grown }) => ({ key: 'new', name: 'New', parent_id: grown }), events: 'condition_set.created', ours: ({ grown }) => [['POST', 'condition-sets', { key: 'new', type: 'userset', conditions: {}, parent: grown }]] }],
  [`GET ${S}/condition_sets/:condition_set_id`],
  [`GET ${S}/condition_sets/:condition_set_id/ancestors`],
  [`GET ${S}/condition_sets/:condition_set_id/descendants`],
  [`PATCH ${S}/condition_sets/:condition_set_id`, { body: rename, events: 'condition_set.updated', ours: ({ grown }) => [['PATCH', `condition-sets/${grown}`, rename()]] }],
  [`GET ${F}/set_rules`, { query: ({ grown }) => `?user_set=${grown}`, unknown: 200 }],
  [`POST ${F}/set_rules`, { body: rule, events: 'set_rule.created', ours: () => [['POST', 'set-rules', rule(KEYS)]] }],
  [`DELETE ${F}/set_rules`, { body: rule, events: 'set_rule.deleted', ours: () => [['DELETE', 'set-rules/MADE']] }],
  [`DELETE ${S}/condition_sets/:condition_set_id`, { params: { condition_set_id: 'kid' }, events: 'condition_set.deleted', ours: ({ kid }) => [['DELETE', `condition-sets/${kid}`]] }],

  [`GET ${F}/proxy_configs`],
  [`POST ${F}/proxy_configs`, { body: () => ({ key: 'new', name: 'New' }), events: 'proxy_config.created' }],
  [`GET ${F}/proxy_configs/:proxy_config_id`],
  [`PATCH ${F}/proxy_configs/:proxy_config_id`, { body: rename, events: 'proxy_config.updated' }],
  [`DELETE ${F}/proxy_configs/:proxy_config_id`, { events: 'proxy_config.deleted' }],
  [`GET ${F}/user_invites`, { query: ({ reader, acme }) => `?role=${reader}&tenant=${acme}`, unknown: 200 }],
  [`POST ${F}/user_invites`, { body: ({ reader, acme }) => ({ key: 'new', email: 'invited@postern.test', role_id: reader, tenant_id: acme }), events: 'invite.created' }],
  [`POST ${F}/user_invites`, { body: ({ editorOfDocument, acme, d1 }) => ({ email: 'editor@postern.test', role_id: editorOfDocument, tenant_id: acme, resource_instance_id: d1 }), events: 'invite.created' }],
  [`GET ${F}/user_invites/:user_invite_id`],
  [`POST ${F}/user_invites/:user_invite_id/approve`, { body: () => ({ email: 'guest@postern.test', key: 'guest' }), events: 'invite.approved role.assigned user.created' }],
  [`DELETE ${F}/user_invites/:user_invite_id`, { params: { user_invite_id: 'lodger' }, events: 'invite.deleted' }],

  [`GET ${S}/roles`],
  [`POST ${S}/roles`, { body: ({ readDocument }) => ({ key: 'new', name: 'New', permissions: [readDocument] }), events: 'role.created', ours: () => [['POST', 'roles', { name: 'new', scopes: ['document:read'] }]] }],
  [`GET ${S}/roles/:role_id`, { params: { role_id: 'reader' } }],
  [`GET ${S}/roles/:role_id/ancestors`, { params: { role_id: 'reader' } }],
  [`GET ${S}/roles/:role_id/descendants`, { params: { role_id: 'reader' } }],
  [`PATCH ${S}/roles/:role_id`, { params: { role_id: 'reader' }, body: rename, events: 'role.updated', ours: ({ reader }) => [['PATCH', `roles/${reader}`, rename()]] }],
  [`POST ${S}/roles/:role_id/permissions`, { params: { role_id: 'writer' }, body: ({ readDocument }) => ({ permissions: [readDocument] }), events: 'role.updated', ours: ({ writer }) => [['PATCH', `roles/${writer}`, { scopes: ['document:read'] }]] }],
  [`DELETE ${S}/roles/:role_id/permissions`, { params: { role_id: 'writer' }, body: ({ readDocument }) => ({ permissions: [readDocument] }), events: 'role.updated', unknown: 200, ours: ({ writer }) => [['PATCH', `roles/${writer}`, { scopes: [] }]] }],
  [`PUT ${S}/roles/:role_id/parents/:parent_role_id`, { params: { role_id: 'writer', parent_role_id: 'reader' }, events: 'role.updated', ours: ({ writer }) => [['PATCH', `roles/${writer}`, { extends: ['reader'] }]] }],
  [`DELETE ${S}/roles/:role_id/parents/:parent_role_id`, { params: { role_id: 'writer', parent_role_id: 'reader' }, events: 'role.updated', ours: ({ writer }) => [['PATCH', `roles/${writer}`, { extends: [] }]] }],
  [`PUT ${S}/bulk/roles`, { body: ({ reader }) => ({ operations: [{ key: 'many', extends: [reader] }] }), events: 'role.created role.updated', ours: () => [['POST', 'roles', { name: 'many' }], ['PATCH', 'roles/MADE', { extends: ['reader'] }]] }],
  [`DELETE ${S}/roles/:role_id`, { params: { role_id: 'writer' }, events: 'role.deleted', ours: ({ writer }) => [['DELETE', `roles/${writer}`]] }],

  [`GET ${S}/resources/:resource_id/roles`],
  [`POST ${S}/resources/:resource_id/roles`, { body: ({ read }) => ({ key: 'new', name: 'New', permissions: [read] }), events: 'role.created', ours: ({ document }) => [['POST', `resources/${document}/roles`, { key: 'new', permissions: ['read'] }]] }],
  [`GET ${S}/resources/:resource_id/roles/:role_id`, { params: { role_id: 'editor' } }],
  [`GET ${S}/resources/:resource_id/roles/:role_id/ancestors`, { params: { role_id: 'editor' } }],
  [`GET ${S}/resources/:resource_id/roles/:role_id/descendants`, { params: { role_id: 'editor' } }],
  [`PATCH ${S}/resources/:resource_id/roles/:role_id`, { params: { role_id: 'viewer' }, body: rename, events: 'role.updated', ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, rename()]] }],
  [`POST ${S}/resources/:resource_id/roles/:role_id/permissions`, { params: { role_id: 'viewer' }, body: ({ edit }) => ({ permissions: [edit] }), events: 'role.updated', ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, { permissions: ['edit'] }]] }],
  [`DELETE ${S}/resources/:resource_id/roles/:role_id/permissions`, { params: { role_id: 'viewer' }, body: ({ edit }) => ({ permissions: [edit] }), events: 'role.updated', unknown: 200, ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, { permissions: [] }]] }],
  [`PUT ${S}/resources/:resource_id/roles/:role_id/parents/:parent_role_id`, { params: { role_id: 'viewer', parent_role_id: 'editor' }, events: 'role.updated', ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, { extends: ['editor'] }]] }],
  [`DELETE ${S}/resources/:resource_id/roles/:role_id/parents/:parent_role_id`, { params: { role_id: 'viewer', parent_role_id: 'editor' }, events: 'role.updated', ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, { extends: [] }]] }],
  [`POST ${S}/resources/:resource_id/roles/:role_id/implicit_grants`, { params: { role_id: 'viewer' }, body: ({ owner, folder, parent }) => ({ role: owner, on_resource: folder, linked_by_relation: parent }), events: 'derivation.created', ours: ({ document, viewer }) => [['POST', `resources/${document}/roles/${viewer}/derivations`, { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }]] }],
  [`DELETE ${S}/resources/:resource_id/roles/:role_id/implicit_grants`, { params: { role_id: 'viewer' }, body: ({ owner, folder, parent }) => ({ role: owner, on_resource: folder, linked_by_relation: parent }), events: 'derivation.deleted', ours: ({ document, viewer }) => [['DELETE', `resources/${document}/roles/${viewer}/derivations/MADE`]] }],
  [`PUT ${S}/resources/:resource_id/roles/:role_id/implicit_grants/conditions`, { params: { role_id: 'viewer' }, body: () => ({ no_direct_roles_on_object: true }), events: 'role.updated', ours: ({ document, viewer }) => [['PATCH', `resources/${document}/roles/${viewer}`, { no_direct_roles_on_object: true }]] }],
  [`DELETE ${S}/resources/:resource_id/roles/:role_id`, { params: { role_id: 'viewer' }, events: 'role.deleted', ours: ({ document, viewer }) => [['DELETE', `resources/${document}/roles/${viewer}`]] }],

  ...definitions(`${S}/resources/:resource_id/actions`, ({ document }) => `resources/${document}/actions`, 'action', 'old'),
  ...definitions(`${S}/resources/:resource_id/action_groups`, ({ document }) => `resources/${document}/action-groups`, 'action_group', 'reading'),
  ...definitions(`${S}/resources/:resource_id/attributes`, ({ document }) => `resources/${document}/attributes`, 'attribute', 'status', { type: 'string' }),
  ...definitions(`${S}/users/attributes`, () => 'user-attributes', 'attribute', 'age', { type: 'string' }),
  [`GET ${S}/resources/:resource_id/relations`],
  [`POST ${S}/resources/:resource_id/relations`, { body: ({ folder }) => ({ key: 'new', subject_resource: folder }), events: 'relation.created', ours: ({ document, folder }) => [['POST', `resources/${document}/relations`, { key: 'new', subject_resource: folder }]] }],
  [`GET ${S}/resources/:resource_id/relations/:definition_id`, { params: { definition_id: 'parent' } }],
  [`DELETE ${S}/resources/:resource_id/relations/:definition_id`, { params: { definition_id: 'twin' }, events: 'relation.deleted', ours: ({ document, twin }) => [['DELETE', `resources/${document}/relations/${twin}`]] }],
  [`GET ${S}/resources`],
  [`POST ${S}/resources`, { body: ({ folder }) => ({ key: 'new', name: 'New', relations: { up: folder } }), events: 'relation.created resource.created', ours: ({ folder }) => [['POST', 'resources', { key: 'new', relations: [{ key: 'up', subject_resource: folder }] }]] }],
  [`GET ${S}/resources/:resource_id`],
  [`PUT ${S}/resources/:resource_id`, { params: { resource_id: 'spare' }, body: () => ({ name: 'New', actions: { write: {} } }), events: 'action.created action.deleted resource.updated', ours: ({ spare, spareRead }) => [['PATCH', `resources/${spare}`, { name: 'New' }], ['POST', `resources/${spare}/actions`, { key: 'write' }], ['DELETE', `resources/${spare}/actions/${spareRead}`]] }],
  [`PATCH ${S}/resources/:resource_id`, { params: { resource_id: 'spare' }, body: describe, events: 'resource.updated', ours: ({ spare }) => [['PATCH', `resources/${spare}`, describe()]] }],
  [`DELETE ${S}/resources/:resource_id`, { params: { resource_id: 'spare' }, events: 'resource.deleted', ours: ({ spare }) => [['DELETE', `resources/${spare}`]] }],

  ['GET /v2/api-key/scope', { refused: 200 }],
  ['GET /v2/api-key', { byOrganization: true }],
  ['POST /v2/api-key', { body: ({ project, environment }) => ({ object_type: 'env', project_id: project, environment_id: environment }), byOrganization: true, events: 'api_key.created', ours: () => [['POST', 'api-keys', { name: 'new', access: 'full' }]] }],
  ['GET /v2/api-key/:id', { byOrganization: true }],
  ['POST /v2/api-key/:id/rotate-secret', { byOrganization: true, events: 'api_key.rotated', ours: ({ apiKey }) => [['POST', `api-keys/${apiKey}/rotate`]] }],
  ['GET /v2/api-key/:id/:env_id', { params: { id: 'project' }, refused: 404, byOrganization: true, events: 'api_key.created api_key.shown' }],
  ['DELETE /v2/api-key/:id', { byOrganization: true, events: 'api_key.revoked', ours: ({ apiKey }) => [['DELETE', `api-keys/${apiKey}`]] }],
  ['POST /v2/auth/elements_login_as', { refused: 501 }],
  ['GET /v2/projects', { refused: 200 }],
  ['GET /v2/projects/:proj_id', { refused: 200 }],
  ['PATCH /v2/projects/:proj_id', { body: describe, byOrganization: true, events: 'project.updated' }],
  ['GET /v2/projects/:proj_id/envs', { refused: 200 }],
  ['GET /v2/projects/:proj_id/envs/:env_id', { refused: 404 }],
  ['GET /v2/projects/:proj_id/envs/:env_id/stats', { refused: 404 }],
  ['PATCH /v2/projects/:proj_id/envs/:env_id', { body: describe, byOrganization: true, events: 'environment.updated', ours: ({ environment }) => [['PATCH', `environments/${environment}`, describe()]] }],
  ['POST /v2/projects/:proj_id/envs', { body: () => ({ key: 'new', name: 'New' }), byOrganization: true, events: 'account.created environment.created', ours: () => [['POST', 'environments', { project: 'shop', key: 'new-too', name: 'New' }]] }],
  ['POST /v2/projects/:proj_id/envs/:env_id/copy', { body: () => ({ target_env: { new: { key: 'copy', name: 'Copy' } } }), byOrganization: true, events: 'account.created environment.created policy.applied' }],
  ['DELETE /v2/projects/:proj_id/envs/:env_id', { byOrganization: true, events: 'environment.deleted', ours: ({ environment }) => [['DELETE', `environments/${environment}`]] }],
  ['POST /v2/projects', { body: () => ({ key: 'new', name: 'New' }), byOrganization: true, events: 'account.created account.created environment.created environment.created project.created', ours: () => [['POST', 'projects', { key: 'ours', name: 'Ours' }], ['POST', 'environments', { project: 'ours', key: 'dev', name: 'Dev' }], ['POST', 'environments', { project: 'ours', key: 'prod', name: 'Prod' }]] }],
  ['DELETE /v2/projects/:proj_id', { params: { proj_id: 'another' }, byOrganization: true, events: 'environment.deleted environment.deleted project.deleted' }],
]
