import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import type { PolicyDocument, Question } from '../../src/policy/engine/model.ts'
import { createServices, type Services } from '../../src/services.ts'
import { wireTo } from '../db/cuttable-proxy.ts'
import { buildTestApp } from '../helpers/app.ts'
import { SECRET_KEY, testConfig } from '../helpers/config.ts'
import { freshDatabase } from '../helpers/database.ts'
import { type FactsDraft, newEnvironment, storeFacts, storePolicy } from './loading.ts'

const POLICY: PolicyDocument = {
  resources: [
    {
      key: 'document',
      actions: ['read', 'write'],
      relations: [{ key: 'parent', subjectResource: 'folder' }],
      roles: [
        {
          key: 'reader',
          permissions: ['document:read'],
          extends: [],
          noDirectRolesOnObject: false,
          derivations: [
            { role: 'owner', onResource: 'folder', linkedByRelation: 'parent', noDirectRolesOnObject: false },
          ],
        },
      ],
    },
    {
      key: 'folder',
      actions: ['open'],
      relations: [{ key: 'parent', subjectResource: 'folder' }],
      roles: [
        {
          key: 'owner',
          permissions: ['folder:open'],
          extends: [],
          noDirectRolesOnObject: false,
          derivations: [
            { role: 'owner', onResource: 'folder', linkedByRelation: 'parent', noDirectRolesOnObject: false },
          ],
        },
      ],
    },
  ],
  roles: [{ key: 'editor', permissions: ['document:read', 'document:write'], extends: [] }],
  userSets: [],
  resourceSets: [],
  rules: [],
}

const FACTS: FactsDraft = {
  tenants: [{ key: 'north' }, { key: 'south' }],
  instances: [
    { type: 'folder', key: 'root', tenant: 'north' },
    { type: 'folder', key: 'inner', tenant: 'north', subjects: { parent: ['folder:root'] } },
    { type: 'document', key: 'plan', tenant: 'north', subjects: { parent: ['folder:inner'] } },
  ],
  users: [
    { key: 'anna', roles: [{ role: 'editor', tenant: 'north' }] },
    { key: 'bert', roles: [{ role: 'owner', instance: 'folder:root' }] },
  ],
}

const may = (user: string, action = 'read', key?: string, tenant = 'north'): Question => ({
  user: { key: user },
  action: { name: action },
  resource: { type: 'document', key, tenant },
})

/** A process of its own, over a database that others may serve too. */
function processOn(t: Test, databaseUrl: string, env: NodeJS.ProcessEnv = {}): Services {
  const services = createServices(testConfig(env), { databaseUrl, secretKey: SECRET_KEY })
  t.teardown(services.close)
  return services
}

async function buildProcess(t: Test, env: NodeJS.ProcessEnv = {}) {
  const { url } = await freshDatabase(t)
  const services = processOn(t, url, env)
  const environmentId = await newEnvironment(services, 'shop')
  await storePolicy(services, environmentId, POLICY)
  await storeFacts(services, environmentId, FACTS)
  const { decisions } = services.modelOf(environmentId)
  return {
    url,
    services,
    environmentId,
    decisions,
    allows: async (question: Question) => (await decisions.check(question)).allowed,
  }
}

/** Asks until the answer is this, for five seconds at most. */
async function eventually<T>(wanted: T, ask: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 5000
  for (;;) {
    const answer = await ask()
    if (answer === wanted || Date.now() > deadline) return answer
    await sleep(20)
  }
}

/** Runs SQL behind the back of every process, as another program would. */
const behind = async ({ database }: Services, text: string, values: unknown[] = []) =>
  await database.pool.query(text, values)

t.test('a role held in an account lets its holder do what it says, there and nowhere else', async (t) => {
  const { allows } = await buildProcess(t)

  t.equal(await allows(may('anna', 'write')), true)
  t.equal(await allows(may('anna', 'write', undefined, 'south')), false)
  t.equal(await allows(may('bert', 'write')), false)
  t.equal(await allows(may('nobody', 'read')), false)
  t.equal(await allows(may('anna', 'burn')), false)
})

t.test('a role on a folder reaches what lies in it, however deep', async (t) => {
  const { allows } = await buildProcess(t)

  t.equal(await allows(may('bert', 'read', 'plan')), true)
  t.equal(await allows(may('bert', 'read', 'other')), false)
})

t.test('people, accounts and things are known by their ids too', async (t) => {
  const { allows, services, environmentId } = await buildProcess(t)
  const idOf = async (table: string, key: string): Promise<string> =>
    (
      await behind(services, `select id from ${table} where environment_id = $1 and key = $2`, [
        environmentId,
        key,
      ])
    ).rows[0].id

  const anna = await idOf('users', 'anna')
  t.equal(await allows(may(anna, 'write', undefined, await idOf('accounts', 'north'))), true)
  t.equal(await allows(may(anna.toUpperCase(), 'write')), true)
  t.equal(await allows(may(anna.replaceAll('-', ''), 'write')), true)
  t.equal(
    await allows(may(await idOf('users', 'bert'), 'read', await idOf('resource_instances', 'plan'))),
    true,
  )
})

t.test('a cold question about a person takes one statement, and the second one none', async (t) => {
  const { decisions, services } = await buildProcess(t)
  await decisions.check(may('anna'))
  let statements = 0
  const { pool } = services.database
  const query = pool.query.bind(pool) as (...all: unknown[]) => unknown
  pool.query = ((...all: unknown[]) => {
    statements++
    return query(...all)
  }) as typeof pool.query

  await decisions.check(may('bert', 'read', 'plan'))
  t.equal(statements, 1, 'a person, and the whole path of folders above a document')
  await decisions.check(may('bert', 'read', 'plan'))
  t.equal(statements, 1)
  await Promise.all(['c', 'd', 'e'].map(async (user) => await decisions.check(may(user))))
  t.equal(statements, 2, 'whoever asks at the same time shares it')
  t.equal(decisions.checkNow(may('c'))?.allowed, false, 'without waiting')
})

t.test('what this process writes is seen by its next question', async (t) => {
  const { root, services, person } = await buildTestApp(t)
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  await storePolicy(services, DEFAULT_ENVIRONMENT, POLICY)
  const someone = await person()
  const question = may(someone.id, 'write', undefined, 'default')
  t.equal((await decisions.check(question)).allowed, false)

  const roles = (await root.get('/api/v1/roles?limit=100')).json<{ id: string; key: string }[]>()
  const role = roles.find(({ key }) => key === 'editor')
  const given = await root.post('/api/v1/user-roles', { user_id: someone.id, role_id: role?.id })
  t.equal(given.statusCode, 201, given.body)
  t.equal((await decisions.check(question)).allowed, true)

  const disabled = await root.patch(`/api/v1/users/${someone.id}`, { is_active: false })
  t.equal(disabled.statusCode, 200, disabled.body)
  t.match(await decisions.check(question), { allowed: false, refusal: 'user_inactive' })
})

t.test('somebody unknown who is then created is seen at once', async (t) => {
  const { allows, services, environmentId } = await buildProcess(t)
  t.equal(await allows(may('carla')), false)

  await storeFacts(services, environmentId, {
    users: [{ key: 'carla', roles: [{ role: 'editor', tenant: 'north' }] }],
  })

  t.equal(await allows(may('carla')), true)
})

t.test('a thing unknown that is then created is seen at once', async (t) => {
  const { allows, services, environmentId } = await buildProcess(t)
  t.equal(await allows(may('bert', 'read', 'memo')), false)

  await storeFacts(services, environmentId, {
    instances: [{ type: 'document', key: 'memo', tenant: 'north', subjects: { parent: ['folder:inner'] } }],
  })

  t.equal(await allows(may('bert', 'read', 'memo')), true)
})

t.test('a policy that changes holds for what is cached', async (t) => {
  const { allows, services, environmentId } = await buildProcess(t)
  t.equal(await allows(may('anna', 'write')), true)

  await behind(
    services,
    `delete from role_permissions p using roles r where r.id = p.role_id and r.environment_id = $1 and r.key = 'editor'`,
    [environmentId],
  )
  await services.policyCache.catchUp()

  t.equal(await allows(may('anna', 'write')), false)
})

t.test('in an account that was deactivated or deleted nothing is allowed', async (t) => {
  const { decisions, allows, services, environmentId } = await buildProcess(t)
  t.equal(await allows(may('anna')), true)
  t.equal(await allows(may('bert', 'read', 'plan')), true)

  await behind(
    services,
    `update accounts set is_active = false where environment_id = $1 and key = 'north'`,
    [environmentId],
  )
  await services.policyCache.catchUp()
  t.match(await decisions.check(may('anna')), { allowed: false, refusal: 'tenant_inactive' })
  t.match(await decisions.check(may('bert', 'read', 'plan')), { allowed: false, refusal: 'tenant_inactive' })

  await behind(
    services,
    `update accounts set deleted_at = now() where environment_id = $1 and key = 'north'`,
    [environmentId],
  )
  await storeFacts(services, environmentId, { tenants: [{ key: 'north' }] })
  t.equal(await allows(may('anna')), false, 'not in the new account of this name either')
  t.equal(await allows(may('bert', 'read', 'plan')), false)
})

t.test('a role that has expired holds no longer, without any change', async (t) => {
  const { decisions, services, environmentId } = await buildProcess(t)
  const expiresAt = new Date(Date.now() + 3_600_000)
  await storeFacts(services, environmentId, {
    users: [{ key: 'dora', roles: [{ role: 'editor', tenant: 'north', expiresAt }] }],
  })
  const at = async (now: Date) => (await decisions.check(may('dora'), { now })).allowed

  t.equal(await at(new Date(expiresAt.getTime() - 1)), true)
  t.equal(await at(expiresAt), false)
})

t.test('a built-in role says nothing about the application', async (t) => {
  const { services, person } = await buildTestApp(t)
  await storePolicy(services, DEFAULT_ENVIRONMENT, POLICY)
  const admin = await person('SUPER_ADMIN')

  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  t.equal((await decisions.check(may(admin.id, 'read', undefined, 'default'))).allowed, false)
  t.equal(
    (
      await decisions.check({
        user: { key: admin.id },
        action: { name: 'read' },
        resource: { type: 'postern.users', tenant: 'default' },
      })
    ).refusal,
    'no_such_resource',
  )
})

t.test('who is invited and has not come yet holds nothing in the account', async (t) => {
  const { allows, services, environmentId } = await buildProcess(t)
  await behind(
    services,
    `update account_members m set status = 'pending' from users u where u.id = m.user_id and u.environment_id = $1 and u.key = 'anna'`,
    [environmentId],
  )

  t.equal(await allows(may('anna')), false)
})

t.test('environments know nothing of each other', async (t) => {
  const { services, allows } = await buildProcess(t)
  const other = await newEnvironment(services, 'other')
  await storePolicy(services, other, POLICY)
  await storeFacts(services, other, { tenants: [{ key: 'north' }], users: [{ key: 'anna' }] })

  t.equal(await allows(may('anna')), true)
  t.equal((await services.modelOf(other).decisions.check(may('anna'))).allowed, false)
  t.equal(
    (await services.modelOf(DEFAULT_ENVIRONMENT).decisions.check(may('anna'))).refusal,
    'no_such_resource',
  )
})

t.test('an environment that is deleted answers nothing more', async (t) => {
  const { services, allows, environmentId } = await buildProcess(t)
  t.equal(await allows(may('anna')), true)

  await behind(services, 'delete from accounts where environment_id = $1', [environmentId]).catch(() => {})
  await behind(services, 'delete from environments where id = $1', [environmentId])
  await services.policyCache.catchUp()

  await t.rejects(allows(may('anna')), { code: 'not_found' })
})

t.test('a cache smaller than a question evicts, and the answers stay right', async (t) => {
  const { services, decisions, environmentId } = await buildProcess(t, {
    POLICY_CACHE_USERS: '10',
    POLICY_CACHE_INSTANCES: '10',
  })
  const folders = Array.from({ length: 30 }, (_, depth) => ({
    type: 'folder',
    key: `f${depth}`,
    tenant: 'north',
    subjects: { parent: [depth === 0 ? 'folder:root' : `folder:f${depth - 1}`] },
  }))
  await storeFacts(services, environmentId, {
    instances: [
      ...folders,
      { type: 'document', key: 'deep', tenant: 'north', subjects: { parent: ['folder:f29'] } },
    ],
    users: Array.from({ length: 40 }, (_, number) => ({
      key: `user-${number}`,
      ...(number % 2 === 0 && { roles: [{ role: 'editor', tenant: 'north' }] }),
    })),
  })

  const users = Array.from({ length: 40 }, (_, number) => may(`user-${number}`))
  for (let round = 0; round < 2; round++) {
    t.same(
      (await decisions.checkMany(users)).map(({ allowed }) => allowed),
      users.map((_, number) => number % 2 === 0),
    )
    t.equal((await decisions.check(may('bert', 'read', 'deep'))).allowed, true)
    t.equal((await decisions.check(may('anna', 'read', 'deep'))).source, 'rbac')
  }
  for (const { entries, kind } of services.policyCache.state().kinds) t.ok(entries <= 10, kind)
})

t.test(
  'what is large takes the place of many in the cache, and more than all of it is not kept',
  async (t) => {
    const { services, environmentId, allows } = await buildProcess(t, { POLICY_CACHE_INSTANCES: '10' })
    const inFolder = (key: string, kibibytes: number) => ({
      type: 'document',
      key,
      tenant: 'north',
      attributes: { text: 'x'.repeat(kibibytes * 1024) },
      subjects: { parent: ['folder:inner'] },
    })
    await storeFacts(services, environmentId, {
      instances: [inFolder('large', 7), inFolder('huge', 20)],
      users: Array.from({ length: 4 }, (_, n) => ({ key: `u${n}`, attributes: { text: 'x'.repeat(100) } })),
    })
    const entriesOf = (kind: string) =>
      services.policyCache.state().kinds.find((one) => one.kind === kind)?.entries

    for (const key of ['plan', 'none', 'nothing']) await allows(may('bert', 'read', key))
    t.equal(entriesOf('instances'), 5)
    t.equal(await allows(may('bert', 'read', 'large')), true)
    t.equal(entriesOf('instances'), 3, 'all that is left beside it')
    for (let round = 0; round < 2; round++) t.equal(await allows(may('bert', 'read', 'huge')), true)
    t.ok((entriesOf('instances') ?? 0) <= 3)
    for (let n = 0; n < 4; n++) await allows(may(`u${n}`))
    t.equal(entriesOf('users'), 5, 'an ordinary person counts as one')
  },
)

t.test('a fan wider than one statement loads is decided, whichever part of it comes later', async (t) => {
  const { services, environmentId, allows } = await buildProcess(t)
  await storeFacts(services, environmentId, {
    instances: [
      { type: 'folder', key: 'top', tenant: 'north' },
      { type: 'document', key: 'wide', tenant: 'north' },
    ],
    users: [{ key: 'wim', roles: [{ role: 'owner', instance: 'folder:top' }] }],
  })
  // Without triggers, which would take a second.
  await behind(
    services,
    `do $$ declare place record; begin
      alter table resource_instances disable trigger user;
      alter table relationship_tuples disable trigger user;
      select top.environment_id, top.account_id, top.resource_id, top.id as top, wide.id as wide,
          up.id as up, down.id as down into strict place
        from resource_instances top
        join resource_instances wide on wide.environment_id = top.environment_id and wide.key = 'wide'
        join relations up on up.resource_id = top.resource_id and up.key = 'parent'
        join relations down on down.resource_id = wide.resource_id and down.key = 'parent'
        where top.environment_id = '${environmentId}' and top.key = 'top';
      insert into resource_instances (id, environment_id, account_id, resource_id, key)
        select gen_random_uuid(), place.environment_id, place.account_id, place.resource_id, 'fan' || n
        from generate_series(1, 10001) n;
      insert into relationship_tuples (id, environment_id, account_id, subject_id, relation_id, object_id)
        select gen_random_uuid(), environment_id, account_id, id, place.down, place.wide
        from resource_instances where environment_id = place.environment_id and key like 'fan%';
      insert into relationship_tuples (id, environment_id, account_id, subject_id, relation_id, object_id)
        select gen_random_uuid(), environment_id, account_id, place.top, place.up, id
        from resource_instances where environment_id = place.environment_id and key = 'fan10001';
    end $$`,
  )

  t.equal(await allows(may('wim', 'read', 'wide')), true)
  t.equal(await allows(may('bert', 'read', 'wide')), false)
})

/** Somebody with a role on a folder in each account, and a way to have more of them that nobody has to write. */
async function buildCrowd(t: Test) {
  const { services, environmentId, decisions } = await buildProcess(t)
  await storeFacts(services, environmentId, {
    instances: [
      { type: 'folder', key: 'attic', tenant: 'south' },
      { type: 'document', key: 'map', tenant: 'south', subjects: { parent: ['folder:attic'] } },
    ],
    users: [
      {
        key: 'robot',
        roles: [
          { role: 'editor', tenant: 'south' },
          { role: 'owner', instance: 'folder:root' },
          { role: 'owner', instance: 'folder:attic' },
        ],
      },
    ],
  })
  await behind(
    services,
    `do $$ begin
      create table more (account text, count int, expires_at timestamptz);
      alter table role_assignments rename to written;
      create view role_assignments as
        select id, environment_id, user_id, role_id, account_id, resource_instance_id, expires_at from written
        union all
        select gen_random_uuid(), w.environment_id, w.user_id, w.role_id, w.account_id, w.resource_instance_id,
          more.expires_at
        from written w join users u on u.id = w.user_id and u.key = 'robot' join accounts a on a.id = w.account_id
        join more on more.account = a.key, generate_series(1, more.count)
        where w.resource_instance_id is not null;
    end $$`,
  )
  return {
    decisions,
    inNorth: async () => await decisions.check(may('robot', 'read', 'plan')),
    inSouth: async () => await decisions.check(may('robot', 'read', 'map', 'south')),
    /** From now on there are so many roles in an account besides the one that was written. */
    async add(account: string, count: number, expiresAt: string | null = null) {
      await behind(services, 'delete from more where account = $1 and expires_at is not distinct from $2', [
        account,
        expiresAt,
      ])
      await behind(services, 'insert into more values ($1, $2, $3)', [account, count, expiresAt])
      await this.change('first_name', `${account} ${count}`)
    },
    /** Changes robot behind the back of the process, which reads it anew. */
    async change(column: 'first_name' | 'last_name', value: string) {
      await behind(services, `update users set ${column} = $1 where environment_id = $2 and key = 'robot'`, [
        value,
        environmentId,
      ])
      await services.policyCache.catchUp()
    },
    membershipOf: async (account: string, status: 'active' | 'pending') =>
      await behind(
        services,
        `update account_members m set status = $2 from accounts a, users u
          where a.id = m.account_id and a.key = $1 and u.id = m.user_id and u.key = 'robot'`,
        [account, status],
      ),
  }
}

t.test('where somebody holds too many roles on instances, what needs them is refused', async (t) => {
  const crowd = await buildCrowd(t)
  const { decisions, inNorth } = crowd
  t.match(await inNorth(), { allowed: true, source: 'rebac' })

  await crowd.add('north', 100_000)

  t.match(await inNorth(), { allowed: false, refusal: 'graph_too_large' })
  t.match(await decisions.explain(may('robot', 'read', 'plan')), {
    decision: { allowed: false },
    rebac: { code: 'graph_too_large' },
  })
  t.match(await decisions.check(may('robot', 'write')), { allowed: false, refusal: undefined })
  await t.rejects(decisions.userPermissions({ user: { key: 'robot' } }), { code: 'answer_too_large' })
  const { user: _, ...readers } = may('robot', 'read', 'plan')
  await t.rejects(decisions.authorizedUsers(readers), { code: 'answer_too_large' })
  const inAccounts = { user: { key: 'robot' }, resourceTypes: ['__tenant'] }
  t.same(
    (await decisions.userPermissions(inAccounts)).map(({ permissions }) => permissions),
    [['document:read', 'document:write']],
  )
})

t.test('too many roles on instances in one account leave those in others as they are', async (t) => {
  const crowd = await buildCrowd(t)
  const { decisions, inNorth, inSouth } = crowd
  await crowd.add('north', 100_000)

  t.equal((await decisions.check(may('robot', 'write', 'map', 'south'))).source, 'rbac')
  t.match(await decisions.explain(may('robot', 'read', 'map', 'south')), {
    allowingSources: ['rbac', 'rebac'],
  })
  const permissions = await decisions.userPermissions({ user: { key: 'robot' }, tenants: ['south'] })
  t.same(permissions.map(({ on, roles }) => [on.kind, roles]).sort(), [
    ['instance', ['owner']],
    ['instance', ['reader']],
    ['tenant', ['editor']],
  ])
  await t.rejects(decisions.userPermissions({ user: { key: 'robot' }, tenants: ['south', 'north'] }), {
    code: 'answer_too_large',
  })
  const { user: _, ...readers } = may('robot', 'read', 'map', 'south')
  const { users } = await decisions.authorizedUsers(readers)
  t.same(
    users.get('robot')?.map(({ role }) => role),
    ['editor', 'folder#owner'],
  )

  await crowd.add('north', 0)
  await crowd.add('south', 100_000)
  t.match(await inNorth(), { allowed: true, source: 'rebac' })
  t.match(await decisions.explain(may('robot', 'read', 'map', 'south')), {
    rbac: { code: 'allow' },
    rebac: undefined,
    decision: { allowed: true },
  })
  t.match(await inSouth(), { allowed: true, source: 'rbac' })
})

t.test('100,000 roles on instances count, those of the accounts with the fewest first', async (t) => {
  const crowd = await buildCrowd(t)
  const { decisions, inNorth } = crowd
  const allows = async () => {
    const { rebac } = await decisions.explain(may('robot', 'read', 'map', 'south'))
    return [(await inNorth()).refusal ?? 'allowed', rebac?.code]
  }

  await crowd.add('north', 99_998)
  t.same(await allows(), ['allowed', 'allow'], 'all of 100,000')
  await crowd.add('north', 99_999)
  t.same(await allows(), ['graph_too_large', 'allow'], 'one more')
  await crowd.add('south', 100_000)
  t.same(await allows(), ['allowed', undefined], 'the other account has more now')
  await crowd.add('north', 100_000)
  t.same(await allows(), ['graph_too_large', undefined], 'both have too many')
})

t.test('roles that have ended, and those of who is no active member, do not make too many', async (t) => {
  const crowd = await buildCrowd(t)
  const { inNorth, inSouth } = crowd

  await crowd.add('north', 100_000, '2020-01-01T00:00:00Z')
  t.match(await inNorth(), { allowed: true, source: 'rebac' })
  await crowd.add('south', 50_000)
  await crowd.add('north', 60_000)
  t.match(await inNorth(), { allowed: false, refusal: 'graph_too_large' })
  await crowd.membershipOf('south', 'pending')
  await crowd.change('last_name', 'R')
  t.match(await inNorth(), { allowed: true, source: 'rebac' })
  t.match(await inSouth(), { allowed: false, refusal: undefined })
})

t.test('names that no key can be are those of nobody', async (t) => {
  const { allows } = await buildProcess(t)

  for (const name of [
    '',
    '\0',
    'a\0b',
    '\ud800',
    'x'.repeat(100_000),
    '__proto__',
    'constructor',
    "';--",
    'a:b',
  ])
    t.equal(
      await allows(may(name, 'read', name === '' ? undefined : name, name || 'north')),
      false,
      JSON.stringify(name.slice(0, 20)),
    )
})

t.test('facts read before a change and arriving after it are not kept', async (t) => {
  const { services, allows, url, environmentId, decisions } = await buildProcess(t)
  await decisions.check(may('nobody'))
  const writer = processOn(t, url)
  const { pool } = services.database
  const query = pool.query.bind(pool) as (...all: unknown[]) => Promise<unknown>
  let held = 0
  pool.query = (async (...all: unknown[]) => {
    const answer = await query(...all)
    const [{ text }] = all as [{ text: string }]
    if (!text.includes('as users') || held > 0) return answer
    held++
    // The answer is on its way; meanwhile the role goes, and this process hears of it.
    await behind(
      writer,
      `delete from role_assignments x using users u where u.id = x.user_id and u.environment_id = $1 and u.key = 'anna'`,
      [environmentId],
    )
    await services.policyCache.catchUp()
    return answer
  }) as unknown as typeof pool.query

  t.equal(await allows(may('anna')), false)
  t.equal(held, 1)
  t.equal(await allows(may('anna')), false)
})

t.test('another process follows, told by Postgres', async (t) => {
  const { services, url, environmentId, allows } = await buildProcess(t)
  const other = processOn(t, url)
  other.start()
  const there = async () => (await other.modelOf(environmentId).decisions.check(may('carla'))).allowed
  t.equal(await there(), false)
  t.equal(await eventually(true, async () => other.policyCache.state().isListening), true, 'LISTEN works')

  await storeFacts(services, environmentId, {
    users: [{ key: 'carla', roles: [{ role: 'editor', tenant: 'north' }] }],
  })

  t.equal(await allows(may('carla')), true)
  t.equal(await eventually(true, there), true)
})

t.test('a process that listens learns of a write that nobody told it', async (t) => {
  const { services, url, environmentId } = await buildProcess(t)
  // No question asks the database by itself, and no other work of the process does.
  const other = processOn(t, url, { POLICY_MAX_STALENESS: '600' })
  other.policyCache.start(url)
  const isListening = () => other.policyCache.state().isListening
  const there = async () => (await other.modelOf(environmentId).decisions.check(may('carla'))).allowed
  await there()
  t.equal(await eventually(true, async () => isListening()), true)
  // Until then it asked more often.
  await eventually(true, async () => other.policyCache.state().stalenessSeconds > 0.5)

  const notifying = (state: string) => `alter table policy_versions ${state} trigger policy_versions_notify`
  await behind(services, notifying('disable'))
  await storeFacts(services, environmentId, {
    users: [{ key: 'carla', roles: [{ role: 'editor', tenant: 'north' }] }],
  })
  await behind(services, notifying('enable'))

  t.equal(await eventually(true, async () => !isListening() || (await there())), true)
  t.equal(isListening(), true, 'all the while')
})

t.test('a process whose LISTEN connection was ended follows all the same, and listens again', async (t) => {
  const { services, url, environmentId } = await buildProcess(t)
  const other = processOn(t, url)
  other.start()
  const there = async () => (await other.modelOf(environmentId).decisions.check(may('carla'))).allowed
  await there()
  await eventually(true, async () => other.policyCache.state().isListening)

  await behind(
    services,
    `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'postern listen' and datname = current_database()`,
  )
  await storeFacts(services, environmentId, {
    users: [{ key: 'carla', roles: [{ role: 'editor', tenant: 'north' }] }],
  })

  t.equal(await eventually(true, there), true)
  t.equal(await eventually(true, async () => other.policyCache.state().isListening), true)
})

t.test('a process that missed more than is still written down begins anew', async (t) => {
  const { services, url, environmentId } = await buildProcess(t)
  const other = processOn(t, url)
  const there = async () => (await other.modelOf(environmentId).decisions.check(may('anna'))).allowed
  t.equal(await there(), true)

  await behind(
    services,
    `delete from role_assignments x using users u where u.id = x.user_id and u.environment_id = $1 and u.key = 'anna'`,
    [environmentId],
  )
  await behind(services, 'delete from policy_changes')
  await other.policyCache.catchUp()

  t.equal(await there(), false)
})

t.test('a question may demand a version that another process has written', async (t) => {
  const { services, url, environmentId } = await buildProcess(t)
  const other = processOn(t, url)
  const { decisions } = other.modelOf(environmentId)
  t.equal((await decisions.check(may('carla'))).allowed, false)
  await storeFacts(services, environmentId, {
    users: [{ key: 'carla', roles: [{ role: 'editor', tenant: 'north' }] }],
  })
  const minVersion = (await services.modelOf(environmentId).decisions.versionOfWrites()) ?? 0

  t.equal((await decisions.check(may('carla'), { minVersion })).allowed, true)
  await t.rejects(decisions.check(may('carla'), { minVersion: minVersion + 1 }), {
    code: 'unknown_consistency',
    status: 400,
  })
})

t.test(
  'while the database is away what is cached is served for some time, then nothing, until it is back',
  async (t) => {
    const { url } = await freshDatabase(t)
    const setUp = processOn(t, url)
    const environmentId = await newEnvironment(setUp, 'shop')
    await storePolicy(setUp, environmentId, POLICY)
    await storeFacts(setUp, environmentId, FACTS)
    const wire = await wireTo(t, url)
    const { modelOf } = processOn(t, wire.url, { POLICY_MAX_STALENESS: '2' })
    const { decisions } = modelOf(environmentId)
    const ask = async (question = may('anna')): Promise<unknown> =>
      await decisions.check(question).then(
        ({ allowed }) => allowed,
        (error) => error.code,
      )
    t.equal(await ask(), true)

    wire.cut()
    t.equal(await ask(), true, 'from the cache')
    t.equal(await ask(may('never-asked')), 'policy_unavailable', 'nothing is known of others')
    t.equal(await eventually<unknown>('policy_unavailable', ask), 'policy_unavailable')

    wire.mend()
    t.equal(await eventually<unknown>(true, ask), true)
  },
)

t.test('API keys that change are told to whoever keeps them', async (t) => {
  const { services } = await buildProcess(t)
  const heard: (readonly string[] | undefined)[] = []
  services.policyCache.onCredentialsChanged('api_key', (ids) => heard.push(ids))
  await services.policyCache.catchUp()
  heard.length = 0

  const addKey = async (id: string) =>
    await behind(
      services,
      `insert into api_keys (id, name, level, access, key_hash, key_hint, created_by_type)
        values ($1::uuid, 'k', 'org', 'full', $1::text, 'h', 'system')`,
      [id],
    )
  const id = '01890000-0000-7000-8000-000000000001'
  await addKey(id)
  await services.policyCache.catchUp()
  t.same(heard, [[id]])

  await addKey('01890000-0000-7000-8000-000000000002')
  await behind(services, 'delete from policy_changes')
  await services.policyCache.catchUp()
  t.same(heard, [[id], undefined], 'any may have changed, when it is not known which')
})

t.test('changes older than ten minutes are removed', async (t) => {
  const { services } = await buildProcess(t)
  await behind(
    services,
    `update policy_changes set created_at = now() - interval '11 minutes' where kind = 'user'`,
  )

  await services.policyCache.pruneChanges()

  const { rows } = await behind(services, 'select distinct kind from policy_changes order by kind')
  t.notOk(rows.some(({ kind }) => kind === 'user'))
  t.ok(rows.some(({ kind }) => kind === 'policy'))
})
