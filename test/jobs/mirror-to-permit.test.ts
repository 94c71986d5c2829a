import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { DEFAULT_ENVIRONMENT, transact } from '../../src/db/client.ts'
import { createMirrorToPermit } from '../../src/jobs/mirror-to-permit.ts'
import { BUILTIN_RESOURCES, BUILTIN_ROLES } from '../../src/permissions.ts'
import {
  builtinRoleInPermit,
  EVERYWHERE,
  permissionInPermit,
  resourceInPermit,
} from '../../src/policy/permit-names.ts'
import { SYSTEM } from '../../src/principal.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { pythonClient } from '../helpers/permit.ts'
import { eventually } from '../helpers/processes.ts'
import { may } from '../policy/adapter-contract.ts'
import { newEnvironment, storeFacts, storePolicy } from '../policy/loading.ts'
import { buildPermit, buildUserOf, type PermitDouble } from '../policy/permit-double.ts'

const ENV = { POLICY_ENGINE: 'permit', PERMIT_BREAKER_FAILURES: '1000', PERMIT_TIMEOUT_MS: '20000' }

async function buildPair(t: Test, env: NodeJS.ProcessEnv = ENV) {
  const permit = await buildPermit(t)
  const postern = await buildUserOf(t, permit, env)
  const { services } = postern
  const { id: north } = await services.accounts.createAccount(SYSTEM, { name: 'north', key: 'north' })
  const create = async (key: string) =>
    (
      await services.users.createUser(SYSTEM, {
        key,
        email: `${key}@postern.test`,
        password: PASSWORD,
        accountId: north,
      })
    ).id
  const give = async (userId: string, role: string) =>
    (await services.roles.assignFurther(SYSTEM, userId, await postern.roleId(role), north)).id
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  /** What Permit itself would say, whoever asks it. */
  const permitAllows = async (user: string, action = 'read') =>
    (await permit.postern.services.modelOf(DEFAULT_ENVIRONMENT).decisions.check(may(user, action))).allowed
  const queue = postern.permit.jobs.queueState
  const db = services.database.pool
  return { permit, postern, services, north, create, give, decisions, permitAllows, queue, db }
}

/** What failed is due again. */
async function waitIsOver({ services }: TestApp): Promise<void> {
  await services.database.pool.query('update graphile_worker._private_jobs set run_at = now()')
}

t.test('a change and its job are written together, or not at all', async (t) => {
  const { postern, services, create, queue, db } = await buildPair(t)
  await postern.settled()

  await t.rejects(
    transact(services.database.db, async (tx) => {
      await services.users.insertUser({ email: 'lost@postern.test' }, undefined, false, tx)
      throw new Error('no')
    }),
  )
  t.match(await queue(), { pending: 0 })

  await db.query('alter table graphile_worker._private_jobs rename to elsewhere')
  const before = await db.query('select count(*) from users')
  await t.rejects(create('anna'))
  t.same((await db.query('select count(*) from users')).rows, before.rows)
  await db.query('alter table graphile_worker.elsewhere rename to _private_jobs')

  await create('anna')
  t.match(await queue(), { pending: 1, failed: 0 })
})

t.test('jobs name what changed, and hold nothing else', async (t) => {
  const { create, give, db } = await buildPair(t)
  const id = await create('anna')
  await give(id, 'reader')

  const { rows } = await db.query<{ payload: object; key: string; queue_name: string; priority: number }>(
    `select payload, key, queue_name, priority from graphile_worker._private_jobs jobs
      left join graphile_worker._private_job_queues q on q.id = jobs.job_queue_id where payload->>'kind' = 'user'`,
  )
  matchEach(t, rows, [
    {
      payload: { kind: 'user', ref: id },
      key: `mirror:user:${id}`,
      queue_name: /^mirror:\d+$/,
      priority: 20,
    },
  ])
  t.strictSame(rows[0]?.payload, { kind: 'user', ref: id })
})

t.test('other environments and changes of other kinds are no business of Permit', async (t) => {
  const { postern, services, queue } = await buildPair(t)
  await postern.settled()

  const elsewhere = await newEnvironment(services, 'elsewhere')
  await storeFacts(services, elsewhere, { tenants: [{ key: 'north' }], users: [{ key: 'anna' }] })
  await services.roles.createRole(SYSTEM, { name: 'nobody' })

  t.match(await queue(), { pending: 0 })
})

t.test('while Permit is away jobs wait, and then everything arrives', async (t) => {
  const { permit, postern, create, give, queue, services, permitAllows } = await buildPair(t)
  permit.set('cut')
  const anna = await create('anna')
  const bert = await create('bert')
  const cyd = await create('cyd')
  const assignment = await give(anna, 'reader')
  await give(bert, 'reader')
  await give(cyd, 'editor')
  // A worker ends when the only jobs left are behind those that others have under way.
  await eventually(async () => {
    await postern.services.jobs.runDue()
    return (await queue()).failed === 4
  })
  t.match(await queue(), { pending: 4, failed: 4 })
  t.ok((await queue()).oldestAt)
  matchEach(
    t,
    (await queue()).errors,
    Array.from({ length: 4 }, () => /^Permit is not available: unreachable/),
  )

  await services.roles.removeAssignment(SYSTEM, anna, assignment)
  await services.users.setActive(SYSTEM, bert, false)
  t.equal(await permitAllows('cyd'), false)

  permit.set('open')
  await waitIsOver(postern)
  await postern.settled()

  t.match(await queue(), { pending: 0, failed: 0 })
  t.equal(await permitAllows('anna'), false, 'what came last counts')
  t.equal(await permitAllows('bert'), false)
  t.equal(await permitAllows('cyd', 'write'), true)
})

t.test('changes of one user made while Permit comes and goes end as they are stored', async (t) => {
  const { permit, postern, create, give, services, permitAllows } = await buildPair(t)
  postern.services.start()
  const anna = await create('anna')
  let last = ''
  for (let round = 0; round < 6; round++) {
    permit.set(round % 2 === 0 ? { status: 503 } : 'open')
    if (last) await services.roles.removeAssignment(SYSTEM, anna, last)
    last = await give(anna, round % 2 === 0 ? 'reader' : 'editor')
    await sleep(30)
  }
  permit.set('open')
  await waitIsOver(postern)
  await postern.settled()

  t.equal(await permitAllows('anna', 'write'), true)
})

t.test('a worker that was killed loses nothing', async (t) => {
  const { permit, postern, create, give, queue, permitAllows, db } = await buildPair(t)
  await postern.settled()
  await give(await create('anna'), 'reader')
  // As a process leaves it that is killed while it works.
  const lockedFor = async (seconds: number) => {
    for (const table of ['_private_jobs', '_private_job_queues']) {
      await db.query(
        `update graphile_worker.${table} set locked_at = now() - interval '${seconds} seconds', locked_by = 'dead'`,
      )
    }
  }
  await db.query('update graphile_worker._private_jobs set attempts = 1')

  permit.requests.length = 0
  await lockedFor(30)
  await postern.services.jobs.runDue()
  t.equal((await queue()).pending, 1, 'it may be alive')
  t.equal(permit.requests.length, 0)

  await lockedFor(90)
  await postern.settled()
  t.equal(await permitAllows('anna'), true)
})

t.test('a role that Permit does not know fails visibly, and is taken over when it does', async (t) => {
  const { permit, postern, services, create, queue, permitAllows } = await buildPair(t)
  await services.roles.createRole(SYSTEM, { name: 'auditor', permissions: ['document:read'] })
  const anna = await create('anna')
  await services.roles.assignFurther(SYSTEM, anna, await postern.roleId('auditor'), null)
  // The job of the account asks for that of its people again.
  for (const _ of [1, 2]) await postern.services.jobs.runDue()
  t.match(await queue(), { pending: 1, failed: 1, errors: [/^Permit refused with 404/] })

  await permit.postern.services.roles.createRole(SYSTEM, { name: 'auditor', permissions: ['document:read'] })
  await waitIsOver(postern)
  await postern.settled()
  t.equal(await permitAllows('anna'), true)
})

t.test('roles that only Permit knows are left alone, others are made equal', async (t) => {
  const { permit, postern, create, give } = await buildPair(t)
  const anna = await create('anna')
  await give(anna, 'reader')
  await postern.settled()
  const theirs = permit.postern.services
  await theirs.roles.createRole(SYSTEM, { name: 'theirs', permissions: ['document:sign'] })
  const { rows } = await theirs.database.pool.query<{ id: string }>("select id from users where key = 'anna'")
  const id = rows[0]?.id ?? ''
  const north = (await theirs.accounts.findByKeyOrId('north'))?.id
  for (const role of ['theirs', 'editor'])
    await theirs.roles.assignFurther(SYSTEM, id, await permit.postern.roleId(role), north)

  await postern.permit.jobs.enqueue([{ kind: 'everything' }])
  await postern.settled()

  t.same((await theirs.roles.listAssignments(id)).map(({ role }) => role.key).sort(), ['reader', 'theirs'])
})

t.test('what somebody held by a role is taken away when the role goes', async (t) => {
  const { permit, postern, services, create, give, permitAllows } = await buildPair(t)
  const { roles } = services
  const { resources } = services.modelOf(DEFAULT_ENVIRONMENT)
  const ids = new Map<string, string>()
  for (const key of ['anna', 'bert', 'cyd']) ids.set(key, await create(key))
  const idOf = (key: string) => ids.get(key) ?? ''
  await postern.settled()
  for (const { services } of [permit.postern, postern]) {
    const account = (await services.accounts.findByKeyOrId('north'))?.id ?? ''
    const instance = { resource: 'document', key: 'plan', account }
    await services.modelOf(DEFAULT_ENVIRONMENT).instances.createInstance(SYSTEM, instance)
  }
  await give(idOf('anna'), 'editor')
  const ofBert = await give(idOf('bert'), 'reader')
  const document = (await resources.resolveResource('document')).id
  const author = (await roles.findRoleByKey('author', undefined, document))?.id ?? ''
  await roles.assignFurther(SYSTEM, idOf('cyd'), author, undefined, { instance: 'document:plan' })
  await postern.settled()
  const signs = async () => {
    const question = { ...may('cyd', 'sign'), resource: { type: 'document', key: 'plan', tenant: 'north' } }
    return (await permit.postern.services.modelOf(DEFAULT_ENVIRONMENT).decisions.check(question)).allowed
  }
  t.same([await permitAllows('anna', 'write'), await permitAllows('bert'), await signs()], [true, true, true])

  const client = await pythonClient(postern)
  const remove = async (path: string) =>
    t.equal((await client.delete(`/v2/schema/default/default/${path}`)).statusCode, 204)
  await remove('roles/editor')
  await postern.settled()
  t.equal(await permitAllows('anna', 'write'), false, 'the role takes the assignment along')

  permit.set('cut')
  await roles.removeAssignment(SYSTEM, idOf('bert'), ofBert)
  await postern.services.jobs.runDue()
  await remove('roles/reader')
  await roles.createRole(SYSTEM, { name: 'reader' })
  await remove('roles/reader')
  permit.set('open')
  await waitIsOver(postern)
  await postern.settled()
  t.equal(await permitAllows('bert'), false, 'also one of which the removal waited')

  await remove('resources/document')
  await postern.settled()
  t.equal(await signs(), false, 'also one that went with its resource')

  const { rows } = await services.database.pool.query('select name from gone_roles order by name')
  t.same(rows, [{ name: 'document#author' }, { name: 'editor' }, { name: 'reader' }])
})

t.test('who gets a key while it is taken out of Permit is there in the end', async (t) => {
  const { permit, postern, services, create, give, permitAllows } = await buildPair(t)
  const { adapter, jobs } = postern.permit
  const anna = await create('anna')
  const open = async () => (await services.accounts.createAccount(SYSTEM, { name: 'south', key: 'south' })).id
  const south = await open()
  await postern.settled()
  const theirs = async () => (await permit.postern.services.accounts.findByKeyOrId('south')) !== undefined
  await services.users.deleteUser(SYSTEM, anna, undefined)
  await services.accounts.deleteAccount(SYSTEM, south, undefined)

  /** The jobs of who is gone are late: whoever comes after them is mirrored before Permit hears of it. */
  const { run } = createMirrorToPermit({
    jobs,
    mirror: {
      ...adapter,
      async deleteUser(key) {
        await give(await create('anna'), 'reader')
        await postern.settled()
        t.equal(await permitAllows('anna'), true)
        await adapter.deleteUser(key)
      },
      async deleteTenant(key) {
        await open()
        await postern.settled()
        t.equal(await theirs(), true)
        await adapter.deleteTenant(key)
      },
    },
    scope: { application: true, builtin: false },
  })
  await run({ kind: 'user', ref: anna })
  await run({ kind: 'account', ref: south })
  await postern.settled()

  t.same([await permitAllows('anna'), await theirs()], [true, true])
})

t.test('a change made while a job runs is not put off until a role ends', async (t) => {
  const { permit, postern, services, create, give, north, permitAllows, db } = await buildPair(t)
  const anna = await create('anna')
  const expiresAt = new Date(Date.now() + 7_776_000_000)
  await services.roles.assignFurther(SYSTEM, anna, await postern.roleId('reader'), north, { expiresAt })
  const assignment = await give(anna, 'editor')
  await postern.settled()
  t.equal(await permitAllows('anna', 'write'), true)

  let open = (): void => {}
  permit.set({ opensAfter: new Promise<void>((resolve) => (open = resolve)) })
  permit.requests.length = 0
  await services.users.updateUser(SYSTEM, anna, { firstName: 'Anna' }, undefined)
  const running = services.jobs.runDue()
  await eventually(async () => permit.requests.length > 0)
  await services.roles.removeAssignment(SYSTEM, anna, assignment)
  open()
  await running
  await postern.settled()

  t.equal(await permitAllows('anna', 'write'), false)
  t.equal(await permitAllows('anna', 'read'), true)
  const { rows } = await db.query<{ run_at: Date }>(
    `select run_at from graphile_worker.jobs where key = 'mirror:user-ends:${anna}'`,
  )
  t.same(rows, [{ run_at: expiresAt }], 'and the end is waited for')
})

t.test('who is deleted or erased is refused at once, and gone from Permit with the next sync', async (t) => {
  const { permit, postern, services, create, give, decisions, permitAllows, db } = await buildPair(t)
  const ids = new Map<string, string>()
  for (const key of ['anna', 'bert', 'cyd']) {
    ids.set(key, await create(key))
    await give(ids.get(key) ?? '', 'reader')
  }
  await create('dora')
  await services.accounts.createAccount(SYSTEM, { name: 'south', key: 'south' })
  await postern.settled()
  const aged = (tenant: string) => ({
    ...may('stranger', 'sign', tenant),
    user: { key: 'stranger', attributes: { age: 30 } },
  })
  t.same(await allowed(['anna', 'bert', 'cyd'].map((key) => may(key))), [true, true, true])
  t.same(await allowed([aged('north'), aged('south')]), [true, true])

  // As a process without Permit leaves it.
  await db.query("update users set deleted_at = now() where key in ('anna', 'dora')")
  await db.query("update accounts set deleted_at = now() where key = 'south'")
  await services.users.deleteUser(SYSTEM, ids.get('bert') ?? '', undefined)
  await services.modelOf(DEFAULT_ENVIRONMENT).erasure.eraseUser(SYSTEM, ids.get('cyd') ?? '')
  await postern.services.policyCache.catchUp()

  const questions = ['anna', 'bert', 'cyd', ids.get('anna') ?? ''].map((key) => may(key))
  t.same(await allowed(questions), [false, false, false, false], 'whom Permit knows')
  t.equal(await permitAllows('anna'), true)
  for (const key of ['anna', 'bert', 'cyd']) t.same(await decisions.userPermissions({ user: { key } }), [])
  t.same(await allowed([aged('north'), aged('south')]), [true, false])
  t.match(await decisions.check({ ...may('\0'), resource: { type: 'document', tenant: '\0' } }), {
    allowed: false,
  })

  await postern.permit.jobs.enqueue([{ kind: 'everything' }])
  await postern.settled()
  const { rows } = await permit.postern.services.database.pool.query(
    "select key from users where key in ('anna', 'bert', 'cyd', 'dora') and deleted_at is null",
  )
  t.same(rows, [])
  t.notOk(await permit.postern.services.accounts.findByKeyOrId('south'))

  async function allowed(asked: ReturnType<typeof may>[]): Promise<boolean[]> {
    return (await decisions.checkMany(asked)).map(({ allowed }) => allowed)
  }
})

t.test('what is cleared here is cleared there', async (t) => {
  const { permit, postern, services, north, create } = await buildPair(t)
  const anna = await create('anna')
  await services.users.updateUser(SYSTEM, anna, { firstName: 'Anna', lastName: 'Arlt' }, undefined)
  await services.accounts.updateAccount(SYSTEM, north, { description: 'Up there' }, undefined)
  const theirs = async () => {
    await postern.settled()
    const { users, accounts } = permit.postern.services
    const { rows } = await permit.postern.services.database.pool.query<{ id: string }>(
      "select id from users where key = 'anna'",
    )
    const { email, firstName, lastName } = await users.getUser(rows[0]?.id ?? '')
    return [email, firstName, lastName, (await accounts.findByKeyOrId('north'))?.description]
  }
  t.same(await theirs(), ['anna@postern.test', 'Anna', 'Arlt', 'Up there'])

  await services.users.updateUser(SYSTEM, anna, { email: null, firstName: null, lastName: null }, undefined)
  // What is told of an account goes along with what counts for decisions.
  const change = { description: null, attributes: { region: 'north' } }
  await services.accounts.updateAccount(SYSTEM, north, change, undefined)

  t.same(await theirs(), [null, null, null, null])
})

t.test('a role that ends is taken away when it ends', async (t) => {
  const { postern, services, create, north, permitAllows, decisions } = await buildPair(t)
  const anna = await create('anna')
  await services.roles.assignFurther(SYSTEM, anna, await postern.roleId('reader'), north, {
    expiresAt: new Date(Date.now() + 1500),
  })
  await postern.settled()
  t.equal(await permitAllows('anna'), true)

  await sleep(1700)
  await postern.settled()
  t.equal(await permitAllows('anna'), false)
  t.equal((await decisions.check(may('anna'))).allowed, false)
})

/** What `policy sync` writes, as the schema of another Postern. */
async function storeBuiltins({ postern }: PermitDouble): Promise<void> {
  await storePolicy(postern.services, DEFAULT_ENVIRONMENT, {
    resources: Object.entries(BUILTIN_RESOURCES).map(([key, { actions }]) => ({
      key: resourceInPermit(key),
      actions,
      relations: [],
      roles: [],
    })),
    roles: Object.entries(BUILTIN_ROLES).map(([key, { permissions }]) => ({
      key: builtinRoleInPermit(key),
      permissions: permissions.map(permissionInPermit),
      extends: [],
    })),
  })
}

t.test('the guard asks Permit once it knows the built-in roles', async (t) => {
  const permit = await buildPermit(t)
  await storeBuiltins(permit)
  const postern = await buildUserOf(t, permit, {
    POLICY_GUARD: 'permit',
    PERMIT_TIMEOUT_MS: '5000',
    PERMIT_BREAKER_FAILURES: '1000',
  })
  const admin = await postern.person('ACCOUNT_ADMIN')
  const users = '/api/v1/users'
  const own = `/api/v1/accounts/${postern.home}/users`
  t.equal((await postern.root.get(users)).statusCode, 403, 'Permit knows nobody yet')

  await postern.permit.adapter.createTenant({
    key: EVERYWHERE,
    name: 'all',
    description: null,
    attributes: null,
  })
  await postern.permit.jobs.enqueue([{ kind: 'everything' }])
  await postern.settled()
  t.equal((await postern.root.get(users)).statusCode, 200)
  t.equal((await admin.client.get(own)).statusCode, 200)
  t.equal((await admin.client.get(users)).statusCode, 403)

  const { accounts } = postern.services
  const { id: namesake } = await accounts.createAccount(SYSTEM, { name: 'everywhere', key: EVERYWHERE })
  await accounts.updateAccount(SYSTEM, namesake, { isActive: false }, undefined)
  await postern.settled()
  t.equal((await postern.root.get(users)).statusCode, 200, 'an account of that name is another thing')
  await accounts.deleteAccount(SYSTEM, namesake, undefined)
  await postern.settled()
  t.equal((await postern.root.get(users)).statusCode, 200, 'also when it goes')

  permit.set({ status: 422 })
  t.equal((await postern.root.get(users)).statusCode, 503, 'the question is none of the caller')
  permit.set('open')

  const theirs = permit.postern.services
  await theirs.roles.updateRole(
    SYSTEM,
    await permit.postern.roleId('postern_ACCOUNT_ADMIN'),
    { permissions: [] },
    undefined,
  )
  t.equal((await admin.client.get(own)).statusCode, 403, 'Permit decides')

  permit.set('cut')
  const response = await postern.root.get(users)
  t.equal(response.statusCode, 503)
  t.ok(Number(response.headers['retry-after']) > 0)
  t.equal(
    (await postern.root.get('/api/v1/users/me')).statusCode,
    200,
    'what needs no permission is not asked',
  )
})

t.test('the built-in resources and roles are written to Permit, and may be written again', async (t) => {
  const stored = new Map<string, { permissions?: string[]; actions?: object }>()
  const server = createServer((request, reply) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const path = request.url ?? ''
      const body = JSON.parse(Buffer.concat(chunks).toString() || '{}') as {
        key?: string
        permissions?: string[]
        actions?: object
      }
      const name = request.method === 'POST' ? `${path}/${body.key}` : path
      const isTaken = request.method === 'POST' && stored.has(name)
      if (request.method !== 'GET' && !isTaken) stored.set(name, body)
      const scope = { organization_id: 'o', project_id: 'p', environment_id: 'e' }
      reply.writeHead(isTaken ? 409 : 200, { 'content-type': 'application/json' })
      reply.end(JSON.stringify(request.method === 'GET' ? scope : body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const postern = await buildTestApp(t, {
    env: { POLICY_GUARD: 'permit', PERMIT_API_KEY: 'k', PERMIT_PDP_URL: url, PERMIT_API_URL: url },
  })

  await postern.services.permit?.syncBuiltins()
  const names = [...stored.keys()].sort()
  await postern.services.permit?.syncBuiltins()

  t.same([...stored.keys()].sort(), names)
  t.ok(names.includes('/v2/schema/p/e/resources/postern_api-keys'))
  t.ok(names.includes('/v2/facts/p/e/tenants/postern_everywhere'))
  t.ok(stored.get('/v2/schema/p/e/roles/postern_ACCOUNT_ADMIN')?.permissions?.includes('postern_users:read'))
  t.same(Object.keys(stored.get('/v2/schema/p/e/resources/postern_users')?.actions ?? {}), [
    'read',
    'write',
    'delete',
  ])
})

t.test('with a fallback the scopes of the token guard while Permit is away', async (t) => {
  const permit = await buildPermit(t)
  const postern = await buildUserOf(t, permit, { POLICY_GUARD: 'permit', POLICY_FALLBACK: 'local' })
  permit.set('cut')

  t.equal((await postern.root.get('/api/v1/users')).statusCode, 200)
  t.equal((await (await postern.person('GUEST')).client.get('/api/v1/users')).statusCode, 403)
})
