import t from 'tap'
import { buildApp } from '../src/app.ts'
import { buildTestApp, type Client, type Method, type TestApp } from './helpers/app.ts'
import { PASSWORD } from './helpers/config.ts'

/** The account that the object of a call belongs to, and what makes the objects. */
type Scene = { postern: TestApp; accountId: string }
/** What fills the route: its path parameters, its query and its body. */
type Call = { params?: Record<string, string>; query?: string; body?: unknown; form?: Record<string, string> }
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
const aStranger = async ({ postern }: Scene) => (await postern.person('GUEST')).id

const PUBLIC = '200 200 200 200 200 200 200 200'
const SIGNED_IN = '401 200 200 200 200 200 200 401'
const READ_IN_ACCOUNT = '401 403 403 200 404 200 200 401'
const ADMINS = '401 403 403 403 403 200 200 401'

const ACTORS = [
  'anonymous',
  'GUEST',
  'ACCOUNT_MANAGER',
  'ACCOUNT_ADMIN',
  'ACCOUNT_ADMIN of another account',
  'ADMIN',
  'SUPER_ADMIN',
  'deactivated',
] as const

// Columns: anonymous · GUEST · ACCOUNT_MANAGER · ACCOUNT_ADMIN · ACCOUNT_ADMIN of another account · ADMIN · SUPER_ADMIN · deactivated
// biome-ignore format: one row, one line
const TABLE: Row[] = [
  ['POST /api/v1/auth/access-token', PUBLIC, async (scene) => ({ form: { username: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/login', PUBLIC, async (scene) => ({ body: { email: await credentials(scene), password: PASSWORD } })],
  ['POST /api/v1/auth/test-token', SIGNED_IN],
  ['POST /api/v1/auth/hash-password', ADMINS, () => ({ body: { password: PASSWORD } })],
  ['POST /api/v1/auth/change-password', '401 204 204 204 204 204 204 401', () => ({ body: { current_password: PASSWORD, new_password: 'another long password of mine' } })],

  ['GET /api/v1/users', ADMINS],
  ['POST /api/v1/users', '401 403 403 403 403 201 201 401', newUser],
  ['POST /api/v1/users/open', '201 201 201 201 201 201 201 201', newUser],
  ['GET /api/v1/users/me', SIGNED_IN],
  ['PUT /api/v1/users/me', SIGNED_IN, () => ({ body: { full_name: 'Renamed' } })],
  ['PATCH /api/v1/users/me', SIGNED_IN, () => ({ body: { full_name: 'Renamed' } })],
  ['GET /api/v1/users/me/permissions', SIGNED_IN],
  ['GET /api/v1/users/me/accounts', SIGNED_IN],
  ['GET /api/v1/users/:user_id', READ_IN_ACCOUNT, theUser],
  ['PUT /api/v1/users/:user_id', '401 403 403 200 404 200 200 401', renamedUser],
  ['PATCH /api/v1/users/:user_id', '401 403 403 200 404 200 200 401', renamedUser],
  ['DELETE /api/v1/users/:user_id', '401 403 403 403 403 204 204 401', theUser],
  ['POST /api/v1/users/:user_id/deactivate', '401 403 403 200 404 200 200 401', theUser],
  ['POST /api/v1/users/:user_id/reactivate', '401 403 403 200 404 200 200 401', theUser],

  ['GET /api/v1/roles', SIGNED_IN],
  ['POST /api/v1/roles', '401 403 403 403 403 403 201 401', () => ({ body: { name: unique('role') } })],
  ['GET /api/v1/roles/:role_id', SIGNED_IN, aRole],
  ['PUT /api/v1/roles/:role_id', '401 403 403 403 403 403 200 401', renamedRole],
  ['PATCH /api/v1/roles/:role_id', '401 403 403 403 403 403 200 401', renamedRole],
  ['DELETE /api/v1/roles/:role_id', '401 403 403 403 403 403 204 401', aRole],
  ['POST /api/v1/user-roles', '401 403 403 201 404 201 201 401', async (scene) => ({ body: { user_id: await aUser(scene), role_id: await scene.postern.roleId('GUEST') } })],
  ['GET /api/v1/user-roles/:user_id', READ_IN_ACCOUNT, theUser],
  ['PUT /api/v1/user-roles/:user_id', '401 403 403 200 404 200 200 401', anotherRole],
  ['PATCH /api/v1/user-roles/:user_id', '401 403 403 200 404 200 200 401', anotherRole],
  ['DELETE /api/v1/user-roles/:user_id', '401 403 403 204 404 204 204 401', theUser],
  ['GET /api/v1/users/:user_id/roles', READ_IN_ACCOUNT, theUser],
  ['POST /api/v1/users/:user_id/roles', '401 403 403 201 404 201 201 401', anotherRole],
  ['DELETE /api/v1/users/:user_id/roles/:assignment_id', '401 403 403 204 404 204 204 401', async (scene) => {
    const user_id = await aUser(scene, 'GUEST')
    const held = await scene.postern.root.get(`/api/v1/users/${user_id}/roles`)
    return { params: { user_id, assignment_id: held.json<{ id: string }[]>()[0]?.id ?? '' } }
  }],

  ['GET /api/v1/accounts', ADMINS],
  ['POST /api/v1/accounts', '401 403 403 403 403 201 201 401', () => ({ body: { name: unique('Company') } })],
  ['GET /api/v1/accounts/me', SIGNED_IN],
  ['GET /api/v1/accounts/users/me', '401 403 403 200 200 200 200 401'],
  ['GET /api/v1/accounts/:account_id', READ_IN_ACCOUNT, theAccount],
  ['PUT /api/v1/accounts/:account_id', '401 403 403 200 404 200 200 401', renamedAccount],
  ['PATCH /api/v1/accounts/:account_id', '401 403 403 200 404 200 200 401', renamedAccount],
  ['DELETE /api/v1/accounts/:account_id', '401 403 403 403 403 204 204 401', anEmptyAccount],
  ['POST /api/v1/accounts/:account_id/deactivate', '401 403 403 200 404 200 200 401', theAccount],
  ['POST /api/v1/accounts/:account_id/reactivate', '401 403 403 200 404 200 200 401', theAccount],
  ['GET /api/v1/accounts/:account_id/users', READ_IN_ACCOUNT, theAccount],
  ['POST /api/v1/accounts/:account_id/users', '401 403 403 403 403 200 200 401', async (scene) => ({ ...theAccount(scene), body: { user_id: await aStranger(scene) } })],
  ['GET /api/v1/accounts/:account_id/members', READ_IN_ACCOUNT, theAccount],
  ['PUT /api/v1/accounts/:account_id/members/:user_id', '401 403 403 403 403 204 204 401', async (scene) => ({ params: { account_id: scene.accountId, user_id: await aStranger(scene) } })],
  ['DELETE /api/v1/accounts/:account_id/members/:user_id', '401 403 403 204 404 204 204 401', aMember],

  ['GET /api/v1/audit-events', READ_IN_ACCOUNT, ({ accountId }) => ({ query: `?account_id=${accountId}` })],

  ['GET /.well-known/jwks.json', PUBLIC],
  ['GET /api/v1/openapi.json', PUBLIC],
  ['GET /docs', PUBLIC],
  ['GET /docs/json', PUBLIC],
  ['GET /docs/yaml', PUBLIC],
  ['GET /docs/static/index.html', '302 302 302 302 302 302 302 302'],
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
  { params = {}, query = '', body, form }: Call,
) {
  const url = path.replaceAll(/:(\w+)|\*/g, (name) => params[name.replace(':', '')] ?? name) + query
  if (!form) return await client.send(method as Method, url, body)
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
