import { readFile, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { type Report, resumedReport, writeReport } from '../../src/permit-import/report.ts'
import { anEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { SECRET_KEY } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { apiKey, listenForSdk, pythonClient, sdk } from '../helpers/permit.ts'
import { runPostern } from '../helpers/processes.ts'
import { junkLists } from './junk.ts'
import { contentsOf, fakeSource, importFrom, KEY, type Lists, leftOut } from './source.ts'

const count = async ({ services }: TestApp) =>
  (
    await services
      .modelOf(DEFAULT_ENVIRONMENT)
      .audit.listEvents({}, { limit: 1, skip: 0, sort: 'occurred_at', total: true })
  ).total

t.test('an environment of another Postern is copied whole, by the command', async (t) => {
  const source = await buildTestApp(t)
  const target = await buildTestApp(t)
  const { url } = await listenForSdk(t, source)
  const { key } = await apiKey(source, 'read')
  const { api } = sdk(url, (await apiKey(source)).key)
  const python = await pythonClient(source)

  await api.resources.create({
    key: 'folder',
    name: 'Folder',
    actions: { read: {}, share: { name: 'Share it' } },
  })
  await api.resources.create({
    key: 'document',
    name: 'Document',
    description: 'A text',
    actions: { read: {}, edit: {} },
    attributes: { status: { type: 'string', description: 'Of its life' } },
    relations: { parent: 'folder' },
  })
  await api.resourceRoles.create('folder', {
    key: 'owner',
    name: 'Owner',
    permissions: ['read', 'document:read'],
  })
  await api.resourceRoles.create('document', {
    key: 'editor',
    name: 'Editor',
    permissions: ['edit'],
    granted_to: {
      when: { no_direct_roles_on_object: true },
      users_with_role: [{ role: 'owner', on_resource: 'folder', linked_by_relation: 'parent' }],
    },
  })
  await api.actionGroups.create('document', { key: 'all', name: 'All of it', actions: ['read', 'edit'] })
  await api.resourceAttributes.create('__user', { key: 'age', type: 'number' })
  await api.roles.create({ key: 'reader', name: 'Reader', permissions: ['document:read'] })
  await python.post('/v2/schema/default/default/roles', {
    key: 'chief',
    name: 'Chief',
    extends: ['reader'],
    attributes: { level: 3 },
  })
  const adults = await api.conditionSets.create({
    key: 'adults',
    name: 'Adults',
    conditions: { 'user.age': { 'greater-than': 17 } },
  })
  await api.conditionSets.create({
    key: 'pensioners',
    name: 'Pensioners',
    parent_id: adults.id,
    conditions: { 'user.age': { 'greater-than': 66 } },
  })
  await api.conditionSets.create({
    key: 'drafts',
    name: 'Drafts',
    type: 'resourceset',
    resource_id: 'document',
    conditions: { 'resource.status': { equals: 'draft' } },
  })
  await api.conditionSetRules.create({
    user_set: 'pensioners',
    permission: 'document:edit',
    resource_set: 'drafts',
  })
  await python.post('/v2/facts/default/default/set_rules', {
    user_set: 'reader',
    permission: 'folder:share',
    resource_set: 'folder',
    is_role: true,
    is_resource: true,
  })
  await api.tenants.create({ key: 'acme', name: 'Acme', attributes: { plan: 'gold' } })
  await api.users.create({ key: 'ida', email: 'ida@acme.test', first_name: 'Ida', attributes: { age: 70 } })
  await api.users.create({ key: 'auth0|elon' })
  await api.users.assignRole({ user: 'ida', role: 'chief', tenant: 'acme' })
  await python.post('/v2/facts/default/default/tenants/acme/users', { key: 'guest' })
  await api.relationshipTuples.create({
    subject: 'folder:f:1',
    relation: 'parent',
    object: 'document:d1',
    tenant: 'acme',
  })
  await api.resourceInstances.update('document:d1', { attributes: { status: 'draft' } })
  await api.roleAssignments.assign({
    user: 'auth0|elon',
    role: 'owner',
    resource_instance: 'folder:f:1',
    tenant: 'acme',
  })

  await python.post('/v2/facts/default/default/proxy_configs', {
    key: 'gateway',
    name: 'Gateway',
    mapping_rules: [
      { url: 'https://api.test/{id}', http_method: 'get', resource: 'document', headers: { 'x-a': 'b' } },
    ],
  })

  const folder = t.testdir()
  const path = join(folder, 'report.json')
  const postern = async (...args: string[]) =>
    await runPostern(t, ['policy', 'import-permit', '--api-url', `${url}/`, ...args], {
      env: { DATABASE_URL: target.databaseUrl, SECRET_KEY, PERMIT_API_KEY: key },
    })
  const records = async ({ services }: TestApp) =>
    await services.modelOf(DEFAULT_ENVIRONMENT).policyFile.read()

  const before = await count(target)
  const dry = await postern('--dry-run')
  t.match(dry, { code: 0, stdout: /^\+ role reader$/m })
  t.match(dry.stdout, /^\+ user auth0\|elon$/m)
  t.match(dry.stdout, /^\+ relationship folder:f:1 parent document:d1$/m)
  t.same(await records(target), [])
  t.equal(await count(target), before, 'a dry run writes nothing')

  const done = await postern('--report', path)
  t.match(done, { code: 0, stdout: /^users: \d+ read, 3 made, 0 changed, 1 unchanged, 0 left out$/m })
  t.same(await contentsOf(target), await contentsOf(source))
  const client = await pythonClient(target)
  const may = async (user: string, action: string, resource: object) =>
    (
      await client.post('/allowed', {
        user: { key: user },
        action,
        resource: { tenant: 'acme', ...resource },
      })
    ).json().allow
  t.equal(await may('ida', 'read', { type: 'document' }), true, 'by a role that extends another')
  t.equal(await may('ida', 'edit', { type: 'document', key: 'd1' }), true, 'by sets')
  t.equal(await may('auth0|elon', 'edit', { type: 'document', key: 'd1' }), true, 'by a derived role')
  t.equal(await may('guest', 'read', { type: 'document', key: 'd1' }), false)

  const report = await readFile(path, 'utf8')
  t.notMatch(report, key)
  t.match(JSON.parse(report), { finished_at: String, is_dry_run: false })

  t.match(await postern('--api-url', 'ftp://permit.test'), { code: 2, stderr: /http/ })

  const after = await count(target)
  const again = await importFrom(url, target, { key })
  t.match(again, {
    error: undefined,
    report: { facts: { assignments: { created: 0, unchanged: 2 } } },
  })
  t.same(again.changes, [])
  t.equal(await count(target), after, 'what is there is not written again')

  await api.users.update('guest', { first_name: 'Gus' })
  const later = await importFrom(url, target, { key })
  t.match(later.report.facts.users, { created: 0, updated: 1 })
  await t.rejects(importFrom(url, target, { key: 'permit_key_that_is_none' }), /401/)
})

t.test('what is switched off there, ends by itself or is pending gives nothing here', async (t) => {
  const source = await buildTestApp(t)
  const target = await buildTestApp(t)
  const { url } = await listenForSdk(t, source)
  const { key } = await apiKey(source, 'read')
  const python = await pythonClient(source)
  const facts = '/v2/facts/default/default'
  for (const resource of [
    {
      key: 'document',
      name: 'Document',
      actions: { read: {}, edit: {} },
      roles: { editor: { permissions: ['edit'] } },
    },
  ])
    t.equal((await python.post('/v2/schema/default/default/resources', resource)).statusCode, 200)
  const reader = (
    await python.post('/v2/schema/default/default/roles', {
      key: 'reader',
      name: 'Reader',
      permissions: ['document:read'],
    })
  ).json()
  for (const tenant of ['acme', 'closed'])
    await python.post(`${facts}/tenants`, { key: tenant, name: tenant })
  const assign = async (user: string, tenant: string, more: object = { role: 'reader' }) =>
    (await python.post(`${facts}/role_assignments`, { user, tenant, ...more })).json()
  const people = new Map<string, string>()
  for (const user of ['ida', 'off', 'guest', 'temp', 'waiting'])
    people.set(user, (await python.post(`${facts}/users`, { key: user })).json().id)
  const { tenant_id: acme } = await assign('ida', 'acme')
  const { tenant_id: closed } = await assign('ida', 'closed')
  await assign('off', 'acme')
  await assign('off', 'acme', { role: 'editor', resource_instance: 'document:d1' })
  await assign('waiting', 'acme')
  await assign('waiting', 'acme', { role: 'editor', resource_instance: 'document:d1' })
  const { statusCode } = await source.root.post(`/api/v1/users/${people.get('temp')}/roles`, {
    role_id: reader.id,
    account_id: acme,
    expires_at: '2099-01-01T00:00:00Z',
  })
  t.equal(statusCode, 201)
  const copied = async () => {
    const { error, report } = await importFrom(url, target, { key })
    t.equal(error, undefined)
    return report
  }
  const targetPython = await pythonClient(target)
  const may = async (client: typeof python) => {
    const checks = [...people.keys()].flatMap((user) =>
      ['acme', 'closed'].flatMap((tenant) =>
        [
          ['read', {}],
          ['edit', { key: 'd1' }],
        ].map(([action, more]) => ({
          user: { key: user },
          action,
          resource: { type: 'document', tenant, ...(more as object) },
        })),
      ),
    )
    const { allow } = (await client.post('/allowed/bulk', checks)).json<{ allow: { allow: boolean }[] }>()
    return checks.flatMap(({ user, action, resource }, at) =>
      allow[at]?.allow ? [`${user.key} ${action} ${resource.tenant}`] : [],
    )
  }

  await source.root.patch(`/api/v1/users/${people.get('off')}`, { is_active: false })
  await source.root.patch(`/api/v1/accounts/${closed}`, { is_active: false })
  await source.services.database.pool.query(
    "update account_members set status = 'pending' where user_id = $1 and account_id = $2",
    [people.get('waiting'), acme],
  )

  await t.test('the lists mark it, and only it', async (t) => {
    const marked = (items: Record<string, unknown>[]) =>
      items.flatMap((item) =>
        'is_active' in item || 'expires_at' in item
          ? [
              {
                of: item['user'] ?? item['key'],
                is_active: item['is_active'],
                expires_at: item['expires_at'],
              },
            ]
          : [],
      )
    const off = { of: 'off', is_active: false, expires_at: undefined }
    t.same(marked((await python.get(`${facts}/users`)).json().data), [off])
    t.same(marked((await python.get(`${facts}/tenants/acme/users`)).json().data), [off])
    t.match((await python.get(`${facts}/users/off`)).json(), { is_active: false })
    t.notOk('is_active' in (await python.get(`${facts}/users/ida`)).json())
    t.same(marked((await python.get(`${facts}/tenants`)).json()), [{ ...off, of: 'closed' }])
    t.match((await python.get(`${facts}/tenants/closed`)).json(), { is_active: false })
    for (const path of ['role_assignments', 'role_assignments?detailed=true']) {
      const grants = (await python.get(`${facts}/${path}`)).json<Record<string, { key?: string }>[]>()
      t.same(
        marked(grants.map((grant) => ({ ...grant, user: grant['user']?.key ?? grant['user'] }))),
        [
          { ...off, of: 'ida' },
          off,
          off,
          { of: 'temp', is_active: undefined, expires_at: '2099-01-01T00:00:00.000Z' },
        ],
        path,
      )
    }
  })

  await t.test('the import leaves it out, with its reasons', async (t) => {
    const report = await copied()
    t.same(leftOut({ report }).sort(), [
      'assignment ida reader closed: is of somebody, or in a tenant, not active there',
      'assignment off editor document:d1: is of somebody, or in a tenant, not active there',
      'assignment off reader acme: is of somebody, or in a tenant, not active there',
      'assignment temp reader acme: ends at 2099-01-01T00:00:00.000Z, and would not end here',
      'assignment waiting editor document:d1: is of a membership that is pending there',
      'assignment waiting reader acme: is of a membership that is pending there',
      'membership waiting acme: is pending there: invite the person here',
      'tenant closed: is not active there; what was copied before stays',
      'user off: is not active there; what was copied before stays',
    ])
    t.same(await may(targetPython), ['ida read acme'])
    t.equal((await targetPython.get(`${facts}/users/off`)).statusCode, 404)
    t.equal((await targetPython.get(`${facts}/tenants/closed`)).statusCode, 404)
  })

  await t.test('so does one that goes on in another process after the people were read', async (t) => {
    const environmentId = (await anEnvironment(target)).id
    const first = await importFrom(url, target, { key, environmentId })
    const report = { ...first.report, finished_at: null }
    report.facts.assignments = { ...report.facts.assignments, next_page: 1, is_done: false, left_out: 0 }
    report.left_out = report.left_out.filter(({ kind }) => kind !== 'assignment')
    const again = await importFrom(url, target, { key, environmentId, report: structuredClone(report) })
    t.equal(leftOut(again).filter((line) => /^assignment waiting/.test(line)).length, 2)
  })

  await t.test('once it counts there, it is copied', async (t) => {
    await source.root.patch(`/api/v1/users/${people.get('off')}`, { is_active: true })
    await source.root.patch(`/api/v1/accounts/${closed}`, { is_active: true })
    await source.services.database.pool.query("update account_members set status = 'active'")
    t.match((await copied()).left_out, [{ kind: 'assignment', name: 'temp reader acme' }])
    const everything = (await may(python)).filter((one) => !one.startsWith('temp'))
    t.same(await may(targetPython), everything)
    t.ok(everything.includes('waiting edit acme') && everything.includes('off read acme'))
  })
})

const pageOf100 = { limit: 100, skip: 0, sort: 'created_at' }

const resource = (key: string, more: object = {}) => ({
  id: `id-of-${key}`,
  key,
  name: key,
  description: null,
  urn: null,
  actions: { read: { id: `read-${key}`, key: 'read', name: 'Read', description: null, attributes: null } },
  attributes: {},
  relations: {},
  roles: {},
  action_groups: {},
  ...more,
})
const role = (key: string, permissions: string[], more: object = {}) => ({
  id: `role-${key}`,
  key,
  name: key,
  permissions,
  extends: [],
  granted_to: null,
  ...more,
})
const user = (key: string, more: object = {}) => ({
  id: `user-${key}`,
  key,
  email: null,
  first_name: null,
  last_name: null,
  attributes: {},
  associated_tenants: [],
  ...more,
})

/** What is left out of the lists below, sorted. */
const EXPECTED = [
  'action group doc:all: is of an action that is not there: burn',
  'assignment ida emperor acme: is of a role that is not there: emperor',
  'assignment ida reader nowhere: tenant does not exist',
  'attribute doc.when: has a type that is not known here: eternity',
  'condition set below: is below a set that is not there',
  'condition set broken: has a condition that is not understood: /user.age/is-nearly is not an operator',
  'condition set orphans: is of a resource that is not there: nothing',
  'condition set snake: is its own ancestor, or below one',
  'condition set tail: is its own ancestor, or below one',
  'derivation constructor: a role held in tenants is not derived here',
  'derivation doc#editor: is from a role or relation that is not there: folder#owner via gone',
  'derivation doc#editor: when/no_direct_roles_on_object must be boolean',
  'instance doc:d3: account does not exist',
  'instance nothing:x: is of a resource that is not there: nothing',
  'invitation new@acme.test: was sent by the source, and its link leads there: invite again here',
  'membership lost nowhere: account does not exist',
  'membership waiting acme: is pending there: invite the person here',
  'permission doc#editor: is of an action that is not there: doc:burn',
  'permission folder#owner: is of an action that is not there: nothing:read',
  'permission reader: is of an action that is not there: doc:burn',
  'proxy configuration gateway: its secret was left away: no proxy is here that would show it',
  'relation doc#gone: is to a resource that is not there: nothing',
  'relationship folder:f1 gone doc:d1: is by a relation that is not there: doc#gone',
  'resource not a key: key must match pattern "^[A-Za-z0-9_-]+$"',
  'role b: would extend itself by way of a',
  'role reader: extends a role that is not there: nobody',
  'rule adults may doc:burn on doc: is about an action that is not there: doc:burn',
  'rule adults may folder:read on big: is about folder:read on doc',
  'rule broken may doc:read on big: is for a set or role that is not there: broken',
  'tenant Ac me: key must match pattern "^[A-Za-z0-9_-]+$"',
  'tenant odd: holds text that cannot be stored',
  'user odd: its email was left away: must match format "email"',
  'user other-ida: its email was left away: somebody else has the email here',
  'user something that is no object: must be object',
  'user white space: key must match pattern "^[^\\s\\u0000-\\u001f]+$"',
]

t.test('what a server may answer', async (t) => {
  const target = await buildTestApp(t)
  const fresh = async () => (await anEnvironment(target)).id

  await t.test('pages that are smaller than asked for, and answers that come later', async (t) => {
    const environmentId = await fresh()
    const refused = new Map([
      ['F/users 1', 429],
      ['F/users 2', 503],
      ['F/tenants 1', 500],
    ])
    const users = Array.from({ length: 7 }, (_, index) => user(`u${index}`))
    const { url } = await fakeSource(
      t,
      { users },
      {
        perPage: 3,
        interfere: (path, page, response) => {
          const status = refused.get(`${path} ${page}`)
          refused.delete(`${path} ${page}`)
          if (status === undefined) return false
          response.writeHead(status, status === 429 ? { 'retry-after': '7' } : {}).end()
          return true
        },
      },
    )
    const run = await importFrom(url, target, { environmentId })
    t.equal(run.error, undefined)
    t.match(run.report.facts.users, { read: 7, created: 7, is_done: true })
    t.same(run.waited, [500, 7000, 500])
  })

  await t.test('an import that was cut short goes on where it stopped', async (t) => {
    const environmentId = await fresh()
    let isCut = true
    const { url, asked } = await fakeSource(
      t,
      {
        tenants: [{ id: 't', key: 'acme', name: 'Acme' }],
        users: ['a', 'b', 'c', 'd'].map((key) => user(key)),
      },
      {
        perPage: 2,
        interfere: (path, page, response) => {
          if (!isCut || path !== 'F/users' || page !== 2) return false
          response.writeHead(403).end()
          return true
        },
      },
    )
    const first = await importFrom(url, target, { environmentId })
    t.match(first.error, /403/)
    t.match(first.report, { finished_at: null, facts: { users: { read: 2, next_page: 2, is_done: false } } })
    const path = join(t.testdir(), 'report.json')
    await writeReport(path, first.report)
    const begin = { source: first.report.source, environmentId, isDryRun: false, now: new Date() }
    await t.rejects(resumedReport(path, { ...begin, isDryRun: true }), /another import/)
    await t.rejects(
      resumedReport(path, { ...begin, source: { ...begin.source, api_url: 'http://other.test' } }),
      /another import/,
    )
    isCut = false
    asked.length = 0
    const report = await resumedReport(path, begin)
    const second = await importFrom(url, target, { environmentId, report })
    t.match(second.report, { finished_at: String, facts: { users: { read: 4, created: 4, is_done: true } } })
    t.notOk(asked.includes('F/tenants 1'))
    t.notOk(asked.includes('F/users 1'))
    await writeReport(path, second.report)
    t.equal((await resumedReport(path, begin)).facts.users.read, 0, 'one that is done begins anew')
    await writeFile(path, '{}')
    await t.rejects(resumedReport(path, begin), /no report of an import/)
  })

  await t.test(
    'what could not be written is counted when it is, and a list that is short is said to be',
    async (t) => {
      const environmentId = await fresh()
      const member = { associated_tenants: [{ tenant: 'acme', status: 'active', roles: [] }] }
      const { url } = await fakeSource(
        t,
        {
          tenants: [{ id: 't', key: 'acme', name: 'Acme' }],
          proxies: [{ id: 'p', key: 'gateway', name: 'Gateway', mapping_rules: [] }],
        },
        {
          interfere: (path, page, response) => {
            if (path !== 'F/users') return false
            const data = page === 1 ? [user('first', member), user('second'), 'no user'] : []
            response.writeHead(200, { 'content-type': 'application/json' })
            response.end(JSON.stringify({ data, total_count: 4 }))
            return true
          },
        },
      )
      const { pool } = target.services.database
      await pool.query(`create function refuse() returns trigger language plpgsql as
      $$ begin raise 'the database is stopping' using errcode = '57P01'; end $$`)
      let report: Report | undefined
      for (const table of ['users', 'account_members', 'proxy_configs']) {
        await pool.query(`create trigger away before insert on ${table} execute function refuse()`)
        const run = await importFrom(url, target, { environmentId, ...(report && { report }) })
        await pool.query(`drop trigger away on ${table}`)
        t.ok(run.error, `nothing can be written to ${table}`)
        report = run.report
        const { read } = table === 'proxy_configs' ? report.facts.proxies : report.facts.users
        t.equal(read, 0)
      }
      const last = await importFrom(url, target, { environmentId, ...(report && { report }) })

      t.equal(last.error, undefined)
      t.match(last.report.facts, {
        users: { read: 3, created: 0, unchanged: 2, left_out: 1 },
        memberships: { read: 1, created: 1, unchanged: 0 },
        proxies: { read: 1, created: 1 },
      })
      t.ok(leftOut(last).includes('list /users: has 4 by its own count, and showed 3'))
    },
  )

  await t.test('whatever cannot be taken over is named with its reason, and gives nobody more', async (t) => {
    const environmentId = await fresh()
    const lists: Lists = {
      resources: [
        resource('__tenant'),
        resource('doc', {
          attributes: { size: { type: 'number' }, when: { type: 'eternity' } },
          action_groups: { all: ['read', 'burn'] },
          relations: { parent: { resource: 'folder' }, gone: { resource: 'nothing' } },
          roles: {
            editor: role('editor', ['read', 'burn'], {
              granted_to: {
                when: { no_direct_roles_on_object: false },
                users_with_role: [
                  { role: 'owner', on_resource: 'folder', linked_by_relation: 'parent', when: {} },
                  { role: 'owner', on_resource: 'folder', linked_by_relation: 'gone', when: {} },
                  {
                    role: 'owner',
                    on_resource: 'folder',
                    linked_by_relation: 'parent',
                    when: { no_direct_roles_on_object: 'yes' },
                  },
                ],
              },
            }),
          },
        }),
        resource('folder', { roles: { owner: role('owner', ['doc:read', 'nothing:read']) } }),
        resource('not a key'),
      ],
      groups: { doc: [{ id: 'g', key: 'all', name: 'All', actions: ['read', 'burn'] }] },
      userAttributes: [
        { key: 'age', type: 'number' },
        { key: 'email', type: 'string', built_in: true },
      ],
      roles: [
        role('reader', ['doc:read', 'doc:burn'], { extends: ['nobody'] }),
        role('a', [], { extends: ['b'] }),
        role('b', [], { extends: ['a'] }),
        role('constructor', [], { granted_to: { users_with_role: [{ role: 'owner' }] } }),
      ],
      sets: [
        { id: 's1', key: 'adults', type: 'userset', conditions: { 'user.age': { 'greater-than': 17 } } },
        { id: 's2', key: 'broken', type: 'userset', conditions: { 'user.age': { 'is-nearly': 17 } } },
        { id: 's3', key: 'below', type: 'userset', parent_id: 's2', conditions: {} },
        { id: 's4', key: 'snake', type: 'userset', parent_id: 's5', conditions: {} },
        { id: 's5', key: 'tail', type: 'userset', parent_id: 's4', conditions: {} },
        { id: 's6', key: 'big', type: 'resourceset', resource_id: 'id-of-doc', conditions: {} },
        { id: 's7', key: 'orphans', type: 'resourceset', resource_id: 'nothing', conditions: {} },
        { id: 's8', key: '__autogen_reader', type: 'userset', autogenerated: true, conditions: {} },
      ],
      rules: [
        { id: 'r1', user_set: 'adults', permission: 'doc:read', resource_set: 'big' },
        { id: 'r2', user_set: '__autogen_reader', permission: 'doc:read', resource_set: '__autogen_doc' },
        { id: 'r3', user_set: 'broken', permission: 'doc:read', resource_set: 'big' },
        { id: 'r4', user_set: 'adults', permission: 'folder:read', resource_set: 'big' },
        { id: 'r5', user_set: 'adults', permission: 'doc:burn', resource_set: 'doc' },
      ],
      tenants: [
        { id: 't1', key: 'acme', name: 'Acme', attributes: null },
        { id: 't2', key: 'Ac me', name: 'Acme' },
        { id: 't3', key: 'odd', name: 7, attributes: { half: '\ud800' } },
      ],
      users: [
        user('ida', { email: 'ida@acme.test' }),
        user('other-ida', { email: 'IDA@acme.test', first_name: 'Ida' }),
        user('odd', { email: 'no email' }),
        user('white space'),
        user('waiting', { associated_tenants: [{ tenant: 'acme', status: 'pending', roles: [] }] }),
        user('lost', { associated_tenants: [{ tenant: 'nowhere', status: 'active', roles: [] }] }),
        null,
        'text',
      ],
      instances: [
        { id: 'i1', key: 'd1', resource: 'doc', tenant: 'acme', attributes: { size: 1 } },
        { id: 'i2', key: 'x', resource: 'nothing', tenant: 'acme' },
        { id: 'i3', key: 'd3', resource: 'doc', tenant: 'nowhere' },
        { id: 'i4', key: 'f1', resource: 'folder', tenant: 'acme' },
      ],
      tuples: [
        { id: 'u1', subject: 'folder:f1', relation: 'parent', object: 'doc:d1', tenant: 'acme' },
        { id: 'u2', subject: 'folder:f1', relation: 'gone', object: 'doc:d1', tenant: 'acme' },
      ],
      assignments: [
        { id: 'a1', user: 'ida', role: 'reader', tenant: 'acme', resource_instance: null },
        { id: 'a2', user: 'ida', role: 'emperor', tenant: 'acme' },
        { id: 'a3', user: 'ida', role: 'editor', tenant: 'acme', resource_instance: 'doc:d1' },
        { id: 'a4', user: 'ida', role: 'reader', tenant: 'nowhere' },
      ],
      proxies: [{ id: 'p', key: 'gateway', name: 'Gateway', secret: KEY }],
      invites: [
        { id: 'v', email: 'new@acme.test', status: 'pending' },
        { id: 'w', email: 'ida@acme.test', status: 'approved' },
      ],
    }
    const { url } = await fakeSource(t, lists, { perPage: 50 })

    const dry = await importFrom(url, target, { environmentId, isDryRun: true })
    t.equal(dry.error, undefined)
    t.ok(dry.changes.includes('add role reader') && dry.facts.includes('new user ida'))
    t.same(await target.services.modelOf(environmentId).policyFile.read(), [])

    const run = await importFrom(url, target, { environmentId })
    t.equal(run.error, undefined)
    t.same(leftOut(run).sort(), EXPECTED)
    t.match(run.report.facts, {
      tenants: { read: 3, created: 1, left_out: 2 },
      users: { read: 8, created: 5, left_out: 3 },
      memberships: { read: 1, created: 0, left_out: 1 },
      instances: { created: 2, left_out: 2 },
      relationships: { created: 1, left_out: 1 },
      assignments: { created: 2, left_out: 2 },
    })
    const names = new Set(
      (await target.services.modelOf(environmentId).policyFile.read()).map(
        ({ kind, name }) => `${kind} ${name}`,
      ),
    )
    t.ok(names.has('rule role reader may doc:read on resource doc'))
    t.ok(names.has('derivation doc#editor from folder#owner via parent'))
    t.notOk(names.has('user_set below'))

    const changed = await fakeSource(t, {
      resources: [
        resource('doc', { relations: { parent: { resource: 'doc' } } }),
        resource('folder', { name: 'A folder' }),
      ],
      sets: [{ id: 's', key: 'adults', type: 'resourceset', resource_id: 'doc', conditions: {} }],
    })
    const conflicting = await importFrom(changed.url, target, { environmentId })
    t.same(leftOut(conflicting), [
      'relation doc#parent: is to doc, and here to folder',
      'condition set adults: has the key of a set of the other type here',
    ])
    t.same(conflicting.changes, ['update resource folder'], 'nothing is deleted')

    const again = await importFrom(url, target, { environmentId })
    t.same(again.changes, ['update resource folder'])
    t.equal(again.report.facts.instances.unchanged, 2)
  })

  await t.test('proxy configurations are taken over together, or none of them is', async (t) => {
    const environmentId = await fresh()
    const rule = (url: string, more: object = {}) => ({
      ...{ url, url_type: null, http_method: 'get', resource: 'doc', headers: {}, action: 'read' },
      ...more,
    })
    const wide = { id: 'p1', key: 'wide', name: 'Wide', mapping_rules: [rule('/docs/{id}')] }
    const strict = (mapping: object) => ({
      id: 'p2',
      key: 'strict',
      name: 'Strict',
      mapping_rules: [mapping],
    })
    const secretOnly = rule('/docs/secret', { action: 'open', priority: 10 })
    const found = async () =>
      (await target.services.modelOf(environmentId).proxies.listProxyConfigs(pageOf100)).items
    const imported = async (proxies: unknown[], isDryRun = false) =>
      await importFrom((await fakeSource(t, { proxies })).url, target, { environmentId, isDryRun })

    const unfit = await imported([wide, strict({ ...secretOnly, http_method: 'brew' })])
    matchEach(t, leftOut(unfit), [
      /^proxy configuration strict: mapping_rules\/0\/http_method must match/,
      'proxy configuration wide: goes with one that is left out',
    ])
    const python = rule('/docs/(?=secret)', { url_type: 'regex', priority: 10 })
    const refused = await imported([wide, strict(python)])
    matchEach(t, leftOut(refused), [
      /^proxy configuration wide: is left out with all: strict\/mapping_rules\/0\/url must be a regular/,
      /^proxy configuration strict: /,
    ])
    t.match(refused.report.facts.proxies, { read: 2, created: 0, left_out: 2 })
    t.same(await found(), [], 'a wider rule does not answer in the place of one that is missing')

    t.same((await imported([wide, strict(secretOnly)], true)).facts, [
      'new proxy configuration wide',
      'new proxy configuration strict',
    ])
    t.same(await found(), [])
    t.match((await imported([wide, strict(secretOnly)])).report.facts.proxies, { created: 2, left_out: 0 })
    matchEach(t, await found(), [
      { key: 'wide', mappingRules: [{ url: '/docs/{id}', urlType: 'template' }] },
      { key: 'strict', mappingRules: [{ action: 'open', priority: 10 }] },
    ])
    const again = await imported([{ ...wide, name: 'Wider' }, strict(secretOnly)])
    t.match(again.report.facts.proxies, { created: 0, updated: 1, unchanged: 1 })
    await imported([wide, strict(python)])
    matchEach(
      t,
      await found(),
      [{ name: 'Wider' }, { mappingRules: [{ action: 'open' }] }],
      'nor half an update',
    )
  })

  await t.test('people who can sign in keep their email; built-in roles are not touched', async (t) => {
    const person = await target.person('ADMIN', { email: 'boss@postern.test' })
    const { key } = (await target.root.get(`/api/v1/users/${person.id}`)).json()
    const { url } = await fakeSource(t, {
      resources: [resource('doc')],
      roles: [role('ADMIN', ['doc:read'])],
      users: [user(key, { email: 'thief@acme.test', first_name: 'Bo' })],
      assignments: [{ id: 'a', user: key, role: 'ADMIN', tenant: 'default' }],
    })
    const run = await importFrom(url, target)
    t.equal(run.error, undefined)
    t.same(leftOut(run), [
      'role ADMIN: is the name of a built-in role here',
      `user ${key}: its email was left away: can sign in here, and keeps the email`,
      `assignment ${key} ADMIN default: is of a role that is not there: ADMIN`,
    ])
    t.match((await target.root.get(`/api/v1/users/${person.id}`)).json(), {
      email: 'boss@postern.test',
      first_name: 'Bo',
      is_active: true,
    })
  })

  await t.test('junk of any kind is left out or taken over, once', async (t) => {
    const environmentId = await fresh()
    await fc.assert(
      fc.asyncProperty(junkLists, async (lists) => {
        const { url } = await fakeSource(t, lists)
        const { error } = await importFrom(url, target, { environmentId })
        if (error !== undefined) throw new Error(error)
        const again = await importFrom(url, target, { environmentId })
        const isNew =
          again.changes.length + Object.values(again.report.facts).filter((one) => one.created > 0).length
        return again.error === undefined && isNew === 0
      }),
      { numRuns: 12 },
    )
  })

  await t.test('pages that repeat, lists without end, and what is no answer end the import', async (t) => {
    const environmentId = await fresh()
    const answering = async (path: string, write: (response: ServerResponse) => void, timeoutMs = 30_000) => {
      const { url } = await fakeSource(
        t,
        {},
        {
          interfere: (asked, _, response) => {
            if (asked !== path) return false
            write(response)
            return true
          },
        },
      )
      return await importFrom(url, target, { environmentId, timeoutMs })
    }
    const same = JSON.stringify([user('again')])
    const repeated = await answering('F/users', (response) => response.end(same))
    t.equal(repeated.error, undefined)
    t.equal(repeated.report.facts.users.read, 1)

    const short = await answering('F/users', (response) => response.end('{"data":[],"total_count":9}'))
    t.same(leftOut(short), ['list /users: has 9 by its own count, and showed 0'])
    const rude = await answering('F/tenants', (response) => response.end('[{"key":"\\u001b[2Jx"}]'))
    matchEach(
      t,
      leftOut(rude),
      [/^tenant \?\[2Jx: key must match/],
      'names cannot move the cursor of a terminal',
    )

    const elsewhere = await fakeSource(t, {})
    const redirected = await answering('F/tenants', (response) =>
      response.writeHead(302, { location: `${elsewhere.url}/v2/api-key/scope` }).end(),
    )
    t.match(redirected.error, /redirect, which is not followed/)
    t.same(elsewhere.asked, [])
    t.match((await answering('F/tenants', (response) => response.end('{"data":7}'))).error, /is not a list/)
    const silent = await answering('F/tenants', (response) => response.write('['), 200)
    t.match(silent.error, /does not answer \(TimeoutError\) .*after 8 attempts/)
    t.same(silent.waited.length, 7)
    const withoutInvites = await answering('F/user_invites', (response) => response.writeHead(403).end())
    matchEach(t, leftOut(withoutInvites), [/^list .*user_invites: is not offered/])
  })
})
