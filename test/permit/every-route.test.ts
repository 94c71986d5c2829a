import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { anApiKey, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp, type Client, type Method } from '../helpers/app.ts'
import { matchEach } from '../helpers/matching.ts'
import { listenForSdk, sdk } from '../helpers/permit.ts'
import { routesOf } from '../helpers/routes.ts'
import { F, KEYS, type Name, type Names, PARAMS, ROWS, type Row, S } from './requests.ts'

/** What only the other environment says. */
const SECRET = /What is there/

t.test('every route of Permit’s API', async (t) => {
  const postern = await buildTestApp(t, { env: { WEBHOOKS_ALLOWED_NETWORKS: '127.0.0.0/8' } })
  const { app, root, anonymous, services } = postern
  const { pool } = services.database
  await root.post('/api/v1/projects', { key: KEYS.project, name: 'Shop' })
  const organization = (await anApiKey(postern, { level: 'org' })).client

  /** An environment of the project with one of each, named by ids. `secret` is in what they are called. */
  async function aScene(environment: string, secret: string) {
    const make = async (path: string, body: object): Promise<Record<string, string>> => {
      const made = await organization.post(path, body)
      if (made.statusCode !== 200) throw new Error(`${path} ${made.body}`)
      return made.json<Record<string, string>>()
    }
    const place = `${KEYS.project}/${environment}`
    const at = await make(`/v2/projects/${KEYS.project}/envs`, { key: environment, name: secret })
    const facts = async (path: string, body: object) =>
      (await make(`/v2/facts/${place}/${path}`, body))['id'] ?? ''
    const schema = async (path: string, body: object) =>
      (await make(`/v2/schema/${place}/${path}`, body))['id'] ?? ''
    const called = { name: secret, description: secret }

    const [folder, document, spare] = [
      await schema('resources', { key: 'folder', ...called }),
      await schema('resources', { key: 'document', ...called }),
      await schema('resources', { key: 'spare', ...called }),
    ]
    const on = (resource: string, part: string) => `resources/${resource}/${part}`
    const read = await schema(on('document', 'actions'), { key: 'read', ...called })
    const editor = await schema(on('document', 'roles'), { key: 'editor', permissions: ['read'], ...called })
    const ids: Names = {
      project: at['project_id'] ?? '',
      environment: at['id'] ?? '',
      another: at['project_id'] ?? '',
      apiKey: '',
      folder,
      document,
      spare,
      spareRead: await schema(on('spare', 'actions'), { key: 'read', ...called }),
      read,
      readDocument: read,
      edit: await schema(on('document', 'actions'), { key: 'edit', ...called }),
      old: await schema(on('document', 'actions'), { key: 'old', ...called }),
      reading: await schema(on('document', 'action_groups'), { key: 'reading', ...called }),
      status: await schema(on('document', 'attributes'), {
        key: 'status',
        type: 'string',
        description: secret,
      }),
      parent: await schema(on('document', 'relations'), {
        key: 'parent',
        subject_resource: 'folder',
        ...called,
      }),
      twin: await schema(on('document', 'relations'), { key: 'twin', subject_resource: 'folder', ...called }),
      owner: await schema(on('folder', 'roles'), { key: 'owner', ...called }),
      editor,
      editorOfDocument: editor,
      viewer: await schema(on('document', 'roles'), { key: 'viewer', ...called }),
      age: await schema('users/attributes', { key: 'age', type: 'number', description: secret }),
      reader: await schema('roles', { key: 'reader', permissions: ['document:read'], ...called }),
      writer: await schema('roles', { key: 'writer', ...called }),
      acme: await facts('tenants', { key: 'acme', ...called }),
      empty: await facts('tenants', { key: 'empty', ...called }),
      vacant: await facts('tenants', { key: 'vacant', ...called }),
      ida: await facts('users', { key: 'ida', first_name: secret, email: 'ida@postern.test' }),
      eva: await facts('users', { key: 'eva', first_name: secret }),
      bob: await facts('users', { key: 'bob', first_name: secret }),
      f1: await facts('resource_instances', {
        key: 'f1',
        resource: 'folder',
        tenant: 'acme',
        attributes: { secret },
      }),
      d1: await facts('resource_instances', {
        key: 'd1',
        resource: 'document',
        tenant: 'acme',
        attributes: { secret },
      }),
      d2: await facts('resource_instances', { key: 'd2', resource: 'document', tenant: 'acme' }),
      d3: await facts('resource_instances', { key: 'd3', resource: 'document', tenant: 'acme' }),
      held: await facts('role_assignments', { user: 'ida', role: 'reader', tenant: 'acme' }),
      grown: await schema('condition_sets', { key: 'grown', ...called }),
      kid: await schema('condition_sets', { key: 'kid', ...called }),
      drafts: await schema('condition_sets', {
        key: 'drafts',
        type: 'resourceset',
        resource_id: 'document',
        ...called,
      }),
      gate: await facts('proxy_configs', { key: 'gate', name: secret }),
      guest: await facts('user_invites', {
        key: 'guest',
        email: 'guest@postern.test',
        first_name: secret,
        role_id: 'reader',
        tenant_id: 'acme',
      }),
      lodger: await facts('user_invites', {
        key: 'lodger',
        email: 'lodger@postern.test',
        first_name: secret,
        role_id: 'reader',
        tenant_id: 'acme',
      }),
    }
    await facts('relationship_tuples', { subject: 'folder:f1', relation: 'parent', object: 'document:d1' })
    await facts('set_rules', { user_set: 'grown', permission: 'document:read', resource_set: 'drafts' })
    const { id: apiKey } = await anApiKey(postern, { environment: place })
    const { client, key } = await anApiKey(postern, { environment: place })
    return { ids: { ...ids, apiKey }, keys: { ...KEYS, environment, apiKey }, client, key, place }
  }

  const here = await aScene('here', 'What is here')
  const there = await aScene('there', 'What is there')
  const ours = await aScene('ours', 'What is ours')

  /** Sends the request of a row; `names` are what it is about, and `place` whose environment the path names. */
  async function send(client: Client, [route, call = {}]: Row, names: Names, place: Names, headers = {}) {
    const [method, path = ''] = route.split(' ')
    const isPlace = (param: string) => ['proj_id', 'env_id'].includes(param) && isPlaced(route)
    const url = path.replaceAll(/:(\w+)/g, (_, param: string) => {
      const name = call.params?.[param] ?? PARAMS[param]
      if (!name) throw new Error(`${route} has a parameter ${param} that nothing is said of`)
      return encodeURIComponent((isPlace(param) ? place : names)[name])
    })
    return await client.send(method as Method, url + (call.query?.(names) ?? ''), call.body?.(names), headers)
  }

  await t.test('is in the table of these tests', async (t) => {
    const routes = routesOf(app.printRoutes({ commonPrefix: false })).filter((route) =>
      route.includes(' /v2/'),
    )
    const listed = new Set(ROWS.map(([route]) => route))
    const unlisted: string[] = []
    for (const route of routes) {
      if (listed.has(route) || route.startsWith('HEAD ')) continue
      const [method, path = ''] = route.split(' ')
      const { statusCode } = await anonymous.send(method as Method, path.replaceAll(/:\w+/g, 'x'))
      if (statusCode !== 405) unlisted.push(route)
    }
    t.same(unlisted, [])
    t.same(
      [...listed].filter((route) => !routes.includes(route)),
      [],
    )
  })

  await t.test('refuses a key of another environment', async (t) => {
    const before = [await everythingIn(here), await everythingIn(there)]
    const wrong: string[] = []
    for (const [route, call = {}] of ROWS) {
      const { statusCode, body } = await send(here.client, [route, call], there.ids, there.ids)
      if (statusCode !== (call.refused ?? 403) || SECRET.test(body))
        wrong.push(`${route} ${statusCode} ${body}`)
      if (!route.includes(F)) continue
      // The same without a path to an environment, as a PDP has it, but with a header.
      const bare: Row = [route.replace(F, '/facts'), call]
      const named = await send(here.client, bare, there.ids, there.ids, inEnvironment(there.place))
      if (named.statusCode !== 403) wrong.push(`${bare[0]} ${named.statusCode} ${named.body}`)
    }
    t.same(wrong, [])
    t.same([await everythingIn(here), await everythingIn(there)], before)
  })

  await t.test('knows nothing of another environment', async (t) => {
    const before = await everythingIn(there)
    const wrong: string[] = []
    for (const [route, call = {}] of ROWS) {
      if (!isPlaced(route)) continue
      const used = namesUsed(route, call)
      // One foreign name among own ones, and then all of them at once.
      const foreign = used.map((name) => ({ ...here.ids, [name]: there.ids[name] }))
      for (const names of used.length > 1 ? [...foreign, there.ids] : foreign) {
        const { statusCode, body } = await send(here.client, [route, call], names, here.ids)
        if (![404, call.unknown].includes(statusCode) || SECRET.test(body))
          wrong.push(`${route} ${statusCode} ${body}`)
      }
    }
    t.same(wrong, [])
    t.same(await everythingIn(there), before)
  })

  await t.test('is heard by webhooks of its environment, and by no others', async (t) => {
    const heard: unknown[] = []
    const receiver = createServer(async (request, response) => {
      heard.push([request.url, JSON.parse((await request.toArray()).join(''))])
      response.writeHead(204).end()
    }).listen(0, '127.0.0.1')
    await once(receiver, 'listening')
    t.teardown(() => receiver.close())
    const { port } = receiver.address() as AddressInfo
    const listen = async ({ place }: { place: string }): Promise<string> => {
      const body = {
        url: `http://127.0.0.1:${port}/${place}`,
        events: ['user.created', 'tuple.bulk_changed'],
      }
      const made = await root.post('/api/v1/webhooks', body, inEnvironment(place))
      return `/api/v1/webhooks/${made.json<{ id: string }>().id}/deliveries`
    }
    await listen(here)
    const elsewhere = await listen(there)
    const { api } = sdk((await listenForSdk(t, postern)).url, here.key)

    const { id } = await api.users.create({ key: 'heard', email: 'heard@postern.test' })
    await api.relationshipTuples.bulkRelationshipTuples([
      { subject: 'folder:f1', relation: 'parent', object: 'document:d3', tenant: 'acme' },
    ])
    while (heard.length < 2) await services.webhookSender.sendDue()

    matchEach(t, heard, [
      ['/shop/here', { type: 'user.created', subject: { type: 'user', id } }],
      ['/shop/here', { type: 'tuple.bulk_changed' }],
    ])
    t.same((await root.get(elsewhere, inEnvironment(there.place))).json(), [])
  })

  await t.test('leaves what has the same name elsewhere, and is in the audit trail as our own', async (t) => {
    const before = await everythingIn(there)
    const wrong: string[] = []
    const written: { route: string; events: string; theirs: string[]; own: string[] }[] = []
    let made = ''
    for (const [route, call = {}] of ROWS) {
      const client = call.byOrganization ? organization : here.client
      const { statusCode, body, headers } = await send(client, [route, call], here.keys, here.keys)
      const isDone = statusCode < 300 || statusCode === 501
      if (!isDone || (!call.byOrganization && SECRET.test(body))) wrong.push(`${route} ${statusCode} ${body}`)
      const own: string[] = []
      for (const [method, path, sent] of call.ours?.(ours.ids) ?? []) {
        const url = `/api/v1/${path.replace('MADE', made)}`
        const answer = await root.send(method, url, sent, inEnvironment(ours.place))
        if (answer.statusCode >= 300) wrong.push(`${method} ${url} ${answer.statusCode} ${answer.body}`)
        if (answer.body !== '') made = answer.json<{ id?: string }>().id ?? made
        own.push(String(answer.headers['x-request-id']))
      }
      written.push({ route, events: call.events ?? '', theirs: [String(headers['x-request-id'])], own })
    }
    t.same(wrong, [])
    const { rows } = await pool.query<{ request: string; action: string; about: string }>(
      `select request_id as request, action, concat(action, ' of ', target_type, account_id is not null) as about
        from audit_events where request_id is not null order by action`,
    )
    const eventsOf = (requests: string[]) => rows.filter(({ request }) => requests.includes(request))
    const aboutOf = (requests: string[]) => eventsOf(requests).map(({ about }) => about)
    const actionsOf = (requests: string[]) => eventsOf(requests).map(({ action }) => action)
    t.same(
      written.map(({ route, theirs }) => [route, actionsOf(theirs).join(' ')]),
      written.map(({ route, events }) => [route, events]),
    )
    const both = written.filter(({ own }) => own.length > 0)
    t.same(
      both.map(({ route, theirs }) => [route, aboutOf(theirs)]),
      both.map(({ route, own }) => [route, aboutOf(own)]),
      'our own API says the same of it',
    )
    t.same(await everythingIn(there), before)
  })

  /** Every row of the environment, but for the audit trail and when its keys were used. */
  async function everythingIn({ ids }: { ids: Names }): Promise<Record<string, string[]>> {
    const { rows: tables } = await pool.query<{ name: string }>(
      `select table_name as name from information_schema.columns
        where column_name = 'environment_id' and table_schema = 'public' and table_name not like 'audit%'`,
    )
    const everything: Record<string, string[]> = {}
    for (const { name } of tables) {
      const { rows } = await pool.query<{ row: string }>(
        `select (to_jsonb(one) - 'last_used_at')::text as row from ${name} one where environment_id = $1 order by 1`,
        [ids.environment],
      )
      everything[name] = rows.map(({ row }) => row)
    }
    return everything
  }
})

/** The names that a request has in its path, its query and its body, but for that of the environment. */
function namesUsed(route: string, call: NonNullable<Row[1]>): Name[] {
  const params = [
    ...route
      .replace(F, '')
      .replace(S, '')
      .matchAll(/:(\w+)/g),
  ]
  const used = new Set(params.flatMap(([, param = '']) => call.params?.[param] ?? PARAMS[param] ?? []))
  const noting = new Proxy(KEYS, {
    get(keys, name: Name) {
      used.add(name)
      return keys[name]
    },
  })
  call.query?.(noting)
  call.body?.(noting)
  return [...used]
}

/** Whether the path names the environment that it is about. */
const isPlaced = (route: string): boolean => route.includes(F) || route.includes(S)
