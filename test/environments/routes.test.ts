import t from 'tap'
import { anApiKey, anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { BAD_IDS, isProblem, NO_SUCH_ID, pointersOf, refusesBadBodies } from '../helpers/hostile.ts'
import { pagesLikeEveryList } from '../helpers/lists.ts'
import { matchEach } from '../helpers/matching.ts'

type Environment = { id: string; project: string; key: string; name: string }
const DEFAULT_ENVIRONMENT = '00000000-0000-7000-8000-000000000001'
const environments = '/api/v1/environments'
const projects = '/api/v1/projects'

/** Every table that says which environment a row belongs to, with how many rows of this one it has. */
async function rowsOf({ services }: TestApp, environmentId: string): Promise<Record<string, number>> {
  const { pool } = services.database
  const { rows: tables } = await pool.query<{ name: string }>(
    "select table_name as name from information_schema.columns where table_schema = 'public' and column_name = 'environment_id'",
  )
  const counts: Record<string, number> = {}
  for (const { name } of tables) {
    const { rows } = await pool.query<{ count: number }>(
      `select count(*)::int as count from "${name}" where environment_id = $1`,
      [environmentId],
    )
    counts[name] = rows[0]?.count ?? 0
  }
  return counts
}

t.test('an environment lives', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern
  const fields = { key: 'production', name: 'Production', description: 'What customers see' }

  const created = await root.post(environments, fields)

  t.equal(created.statusCode, 201)
  const environment = created.json<Environment>()
  const path = `${environments}/${environment.id}`
  t.match(environment, { ...fields, project: 'default' })
  t.equal(created.headers['location'], path)
  t.same((await root.get(path)).json(), environment)
  t.same(
    (await root.get(environments)).json<Environment[]>().map(({ project, key }) => `${project}/${key}`),
    ['default/default', 'default/production'],
  )
  t.same((await root.get(`${environments}?project=default&key=production`)).json(), [environment])

  await t.test('with one account and a version, and nothing else', async (t) => {
    const { policy_changes: changes, audit_events: events, ...counts } = await rowsOf(postern, environment.id)

    t.same(
      Object.entries(counts).filter(([, count]) => count > 0),
      [
        ['accounts', 1],
        ['policy_versions', 1],
      ].sort(),
    )
    t.ok(changes === 1 && events === 1)
    const header = inEnvironment('production')
    matchEach(t, (await root.get('/api/v1/accounts', header)).json(), [{ key: 'default', name: 'Default' }])
    t.same((await root.get('/api/v1/roles', header)).json(), [])
    t.same((await root.get('/api/v1/users', header)).json(), [])
  })
  await t.test('is renamed', async (t) => {
    const changed = await root.patch(path, { name: 'Live', description: null })

    t.equal(changed.statusCode, 200)
    t.match(changed.json(), { key: 'production', name: 'Live', description: null })
  })
  await t.test('and is gone when it is deleted', async (t) => {
    t.equal((await root.delete(path)).statusCode, 204)

    isProblem(t, await root.delete(path), 'environment_not_found')
    isProblem(t, await root.get(path), 'environment_not_found')
    isProblem(t, await root.patch(path, { name: 'x' }), 'environment_not_found')
    isProblem(t, await root.get('/api/v1/users', inEnvironment('production')), 'environment_not_found')
    const trail = (await root.get(`/api/v1/audit-events?target_id=${environment.id}`)).json<
      { action: string }[]
    >()
    t.same(trail.map(({ action }) => action).sort(), [
      'environment.created',
      'environment.deleted',
      'environment.updated',
    ])
    const again = await root.post(environments, fields)
    t.equal(again.statusCode, 201, 'its key is free again')
    t.same((await root.get('/api/v1/users', inEnvironment('production'))).json(), [])
  })
})

t.test('the default environment and project stay', async (t) => {
  const { root } = await buildTestApp(t)
  const [project] = (await root.get(projects)).json<{ id: string }[]>()

  isProblem(t, await root.delete(`${environments}/${DEFAULT_ENVIRONMENT}`), 'environment_is_default')
  isProblem(t, await root.delete(`${projects}/${project?.id}`), 'project_has_environments')
  t.equal((await root.patch(`${environments}/${DEFAULT_ENVIRONMENT}`, { name: 'Main' })).statusCode, 200)
})

t.test('deleting an environment full of data removes every row of it and none of another', async (t) => {
  const postern = await buildTestApp(t)
  const { root, services } = postern
  const { pool } = services.database
  const doomed = await anEnvironment(postern)
  await anApiKey(postern, { environment: doomed.name })
  const header = inEnvironment(doomed.name)
  const make = async (path: string, body: object) => {
    const response = await root.post(`/api/v1${path}`, body, header)
    t.equal(response.statusCode, 201, `${path}: ${response.body}`)
    return response.json<{ id: string }>().id
  }
  const accountId = await make('/accounts', { name: 'Acme' })
  const userId = await make('/users', { key: 'ada', account_id: accountId })
  const roleId = await make('/roles', { name: 'editor', scopes: ['post:read', 'post:write'] })
  const parentId = await make('/roles', { name: 'viewer', scopes: ['post:read'] })
  await make('/user-roles', { user_id: userId, role_id: roleId })
  await make(`/users/${userId}/roles`, { role_id: parentId })
  await make('/clients', { name: 'orders' })
  const goneId = await make('/roles', { name: 'former', scopes: [] })
  t.equal((await root.delete(`/api/v1/roles/${goneId}`, header)).statusCode, 204)
  for (const [path, body] of [
    ['proxy_configs', { key: 'gateway', name: 'Gateway' }],
    ['user_invites', { email: 'bob@postern.test', role_id: 'editor', tenant_id: accountId }],
  ] as const) {
    const response = await root.post(`/facts/${path}`, body, header)
    t.equal(response.statusCode, 200, response.body)
  }
  const values = { environment: doomed.id, account: accountId, user: userId, role: roleId, parent: parentId }
  // The rest of the model, row by row, as its own routes would write it.
  await pool.query(filled(REST_OF_THE_MODEL, values))
  const before = await rowsOf(postern, doomed.id)
  const others = await rowsOf(postern, DEFAULT_ENVIRONMENT)
  const empty = Object.keys(before).filter((table) => before[table] === 0)
  t.same(empty.sort(), ['sessions'], 'the environment has something of everything but sign-ins')

  const response = await root.delete(`${environments}/${doomed.id}`)

  t.equal(response.statusCode, 204, response.body)
  const { audit_events: events, ...after } = await rowsOf(postern, doomed.id)
  t.same(
    Object.entries(after).filter(([, count]) => count > 0),
    [],
  )
  t.equal(events, before['audit_events'], 'the audit trail stays')
  const kept = await rowsOf(postern, DEFAULT_ENVIRONMENT)
  for (const table of ['users', 'accounts', 'roles', 'role_assignments', 'resources', 'actions'])
    t.equal(kept[table], others[table], table)
  const { rows } = await pool.query('select 1 from action_group_actions')
  t.same(rows, [])
})

const filled = (text: string, values: Record<string, string>): string =>
  text.replaceAll(/:(\w+)/g, (whole, name: string) => (values[name] ? `'${values[name]}'::uuid` : whole))

const REST_OF_THE_MODEL = `do $$
  declare post uuid; folder uuid; act uuid; relation uuid := gen_random_uuid(); docs uuid := gen_random_uuid();
    one uuid := gen_random_uuid(); two uuid := gen_random_uuid(); grp uuid := gen_random_uuid();
    outer_set uuid := gen_random_uuid(); inner_set uuid := gen_random_uuid(); things uuid := gen_random_uuid();
    owner uuid := gen_random_uuid(); reader uuid := gen_random_uuid();
  begin
    select id into post from resources where environment_id = :environment and key = 'post';
    select id into act from actions where resource_id = post and key = 'read';
    folder := gen_random_uuid();
    insert into resources (id, environment_id, key, name) values (folder, :environment, 'folder', 'Folder');
    insert into attribute_definitions (id, environment_id, resource_id, key, type)
      values (gen_random_uuid(), :environment, post, 'title', 'string'), (gen_random_uuid(), :environment, null, 'age', 'number');
    insert into action_groups (id, environment_id, resource_id, key, name) values (grp, :environment, post, 'all', 'All');
    insert into action_group_actions (resource_id, group_id, action_id) values (post, grp, act);
    insert into relations (id, environment_id, resource_id, subject_resource_id, key, name)
      values (relation, :environment, post, folder, 'parent', 'Parent');
    insert into roles (id, environment_id, resource_id, key, name)
      values (owner, :environment, folder, 'owner', 'Owner'), (reader, :environment, post, 'reader', 'Reader');
    insert into role_parents (environment_id, role_id, parent_id) values (:environment, :role, :parent);
    insert into role_derivations (id, environment_id, role_id, source_role_id, relation_id)
      values (gen_random_uuid(), :environment, reader, owner, relation);
    insert into resource_instances (id, environment_id, account_id, resource_id, key)
      values (one, :environment, :account, folder, 'f1'), (two, :environment, :account, post, 'p1');
    insert into relationship_tuples (id, environment_id, account_id, subject_id, relation_id, object_id)
      values (gen_random_uuid(), :environment, :account, one, relation, two);
    insert into role_assignments (id, environment_id, user_id, role_id, account_id, resource_instance_id)
      values (gen_random_uuid(), :environment, :user, owner, :account, one);
    insert into condition_sets (id, environment_id, type, key, name, conditions, parent_id)
      values (outer_set, :environment, 'userset', 'adults', 'Adults', '{}', null),
        (inner_set, :environment, 'userset', 'elders', 'Elders', '{}', outer_set);
    insert into condition_sets (id, environment_id, type, resource_id, key, name, conditions)
      values (things, :environment, 'resourceset', post, 'drafts', 'Drafts', '{}');
    insert into set_rules (id, environment_id, user_set_id, action_id, resource_set_id)
      values (gen_random_uuid(), :environment, inner_set, act, things);
    insert into decision_log (id, environment_id, user_key, action, resource, is_allowed, reason)
      values (gen_random_uuid(), :environment, 'ada', 'read', 'post', true, 'role');
    insert into user_credentials (user_id, environment_id, password_hash) values (:user, :environment, 'x');
    insert into users (id, environment_id, key, search_text, deleted_at)
      values (gen_random_uuid(), :environment, 'gone', '', now());
    insert into webhooks (id, environment_id, url, events, secret_sealed)
      values (gen_random_uuid(), :environment, 'https://example.com/', '{*}', 'x');
    insert into account_invitations (id, environment_id, account_id, role_id, email, email_normalized, token_hash,
        invited_by_type, expires_at)
      values (gen_random_uuid(), :environment, :account, :role, 'a@b.test', 'a@b.test', 'x', 'system', now());
    insert into challenges (id, environment_id, kind, user_id, token_hash, expires_at)
      values (gen_random_uuid(), :environment, 'mfa', :user, 'x', now());
    insert into mail_tokens (id, environment_id, user_id, kind, token_hash, expires_at)
      values (gen_random_uuid(), :environment, :user, 'magic_link', 'x', now());
    insert into passkeys (id, environment_id, user_id, credential_id, public_key, device_type, name)
      values (gen_random_uuid(), :environment, :user, 'x', 'x', 'singleDevice', 'x');
    insert into recovery_codes (environment_id, user_id, code_hash) values (:environment, :user, 'x');
    insert into totp_factors (id, environment_id, user_id, secret_sealed) values (gen_random_uuid(), :environment, :user, 'x');
  end $$`

t.test('projects group environments', async (t) => {
  const postern = await buildTestApp(t)
  const { root } = postern

  const created = await root.post(projects, { key: 'shop', name: 'Shop', description: 'Sells' })

  t.equal(created.statusCode, 201)
  const { id } = created.json<{ id: string }>()
  t.equal(created.headers['location'], `${projects}/${id}`)
  t.match((await root.get(`${projects}/${id}`)).json(), { key: 'shop', name: 'Shop', description: 'Sells' })
  t.same((await root.get(`${projects}?key=shop`)).json<object[]>().length, 1)
  const environment = await anEnvironment(postern, { project: 'shop', key: 'default' })
  t.equal(environment.name, 'shop/default', 'a key is unique within its project only')
  isProblem(t, await root.delete(`${projects}/${id}`), 'project_has_environments')
  await root.delete(`${environments}/${environment.id}`)
  t.equal((await root.delete(`${projects}/${id}`)).statusCode, 204)
  isProblem(t, await root.delete(`${projects}/${id}`), 'project_not_found')
  isProblem(t, await root.get(`${projects}/${id}`), 'project_not_found')
  const trail = (await root.get(`/api/v1/audit-events?target_id=${id}`)).json<{ action: string }[]>()
  t.same(trail.map(({ action }) => action).sort(), ['project.created', 'project.deleted'])
})

t.test('what clashes or is no environment or project is refused', async (t) => {
  const postern = await buildTestApp(t)
  const { root, app, rootToken } = postern
  const { id } = await anEnvironment(postern, { key: 'dev' })
  const valid = { key: 'k', name: 'n' }

  isProblem(t, await root.post(environments, { key: 'dev', name: 'x' }), 'environment_key_taken')
  isProblem(t, await root.post(environments, { key: 'default', name: 'x' }), 'environment_key_taken')
  isProblem(t, await root.post(environments, { key: id, name: 'x' }), 'environment_key_taken')
  isProblem(t, await root.post(environments, { ...valid, project: 'nope' }), 'project_not_found')
  isProblem(t, await root.post(projects, { key: 'default', name: 'x' }), 'project_key_taken')
  const raced = await Promise.all([1, 2, 3].map(async () => await root.post(environments, valid)))
  t.same(raced.map(({ statusCode }) => statusCode).sort(), [201, 409, 409])
  for (const [body, pointer] of [
    [{ name: 'x' }, '/body/key'],
    [{ ...valid, key: 'a b' }, '/body/key'],
    [{ ...valid, key: 'a/b' }, '/body/key'],
    [{ ...valid, key: '' }, '/body/key'],
    [{ ...valid, key: 'x'.repeat(129) }, '/body/key'],
    [{ key: 'x' }, '/body/name'],
    [{ ...valid, name: '' }, '/body/name'],
    [{ ...valid, project: 'a/b' }, '/body/project'],
    [{ ...valid, project: null }, '/body/project'],
    [{ ...valid, id: NO_SUCH_ID }, '/body/id'],
  ] as const) {
    const response = await root.post(environments, body)
    isProblem(t, response, 'validation_failed', JSON.stringify(body))
    t.same(pointersOf(response), [pointer])
  }
  const rekeyed = await root.patch(`${environments}/${id}`, { key: 'other' })
  t.same(pointersOf(rekeyed), ['/body/key'], 'a key stays')
  for (const bad of BAD_IDS) {
    isProblem(t, await root.get(`${environments}/${bad}`), 'validation_failed', bad)
    isProblem(t, await root.delete(`${projects}/${bad}`), 'validation_failed', bad)
  }
  for (const url of [environments, projects])
    await refusesBadBodies(t, { app, token: rootToken, method: 'POST', url })
  await refusesBadBodies(t, { app, token: rootToken, method: 'PATCH', url: `${environments}/${id}` })
})

t.test('environments and projects are listed in pages', async (t) => {
  const postern = await buildTestApp(t)
  for (let count = 0; count < 6; count++) {
    await anEnvironment(postern)
    await postern.root.post(projects, { key: `project-${count}`, name: 'x' })
  }

  await pagesLikeEveryList(t, { client: postern.root, path: environments, sorts: ['created_at'] })
  await pagesLikeEveryList(t, { client: postern.root, path: projects, sorts: ['created_at'] })
})

t.test('only super admins and wide keys manage environments', async (t) => {
  const postern = await buildTestApp(t)
  const { root, person } = postern
  await root.post(projects, { key: 'shop', name: 'Shop' })
  await root.post(projects, { key: 'blog', name: 'Blog' })
  const blog = await anEnvironment(postern, { project: 'blog' })
  const shop = await anEnvironment(postern, { project: 'shop' })

  for (const role of ['ADMIN', 'ACCOUNT_ADMIN', 'GUEST']) {
    const { client } = await person(role)
    isProblem(t, await client.get(environments), 'insufficient_scope', role)
    isProblem(t, await client.post(projects, { key: 'x', name: 'x' }), 'insufficient_scope', role)
  }
  await t.test('a key of everything all of them', async (t) => {
    const { client } = await anApiKey(postern, { level: 'org' })

    t.equal((await client.get(environments)).json<object[]>().length, 3)
    t.equal((await client.post(environments, { key: 'x', name: 'x', project: 'blog' })).statusCode, 201)
    t.equal((await client.post(projects, { key: 'x', name: 'x' })).statusCode, 201)
  })
  await t.test('a key of a project its own', async (t) => {
    const { client } = await anApiKey(postern, { level: 'project', project: 'shop' })

    t.same(
      (await client.get(environments)).json<Environment[]>().map(({ id }) => id),
      [shop.id],
    )
    t.same((await client.get(`${environments}?project=blog`)).json(), [])
    t.same(
      (await client.get(projects)).json<{ key: string }[]>().map(({ key }) => key),
      ['shop'],
    )
    for (const method of ['GET', 'DELETE'] as const)
      isProblem(t, await client.send(method, `${environments}/${blog.id}`), 'environment_not_found', method)
    isProblem(t, await client.patch(`${environments}/${blog.id}`, { name: 'x' }), 'environment_not_found')
    const elsewhere = await client.post(environments, { key: 'x', name: 'x', project: 'blog' })
    isProblem(t, elsewhere, 'environment_not_allowed')
    isProblem(t, await client.post(projects, { key: 'y', name: 'x' }), 'environment_not_allowed')
    t.equal((await client.post(environments, { key: 'x', name: 'x', project: 'shop' })).statusCode, 201)
    t.equal((await client.delete(`${environments}/${shop.id}`)).statusCode, 204)
  })
  await t.test('a key that reads none', async (t) => {
    const { client } = await anApiKey(postern, { level: 'org', access: 'read' })

    isProblem(t, await client.get(environments), 'insufficient_scope')
  })
})
