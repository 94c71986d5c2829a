import fc from 'fast-check'
import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import type { PolicyDocument, Question } from '../../src/policy/engine/model.ts'
import type { SearchPage, SearchResult } from '../../src/policy/searches.ts'
import { buildTestApp } from '../helpers/app.ts'
import { type FactsDraft, newEnvironment, storeFacts, storePolicy } from './loading.ts'

const PARENT = { linkedByRelation: 'parent', noDirectRolesOnObject: false }
const POLICY: PolicyDocument = {
  resources: [
    {
      key: 'doc',
      actions: ['read', 'write'],
      relations: [{ key: 'parent', subjectResource: 'doc' }],
      roles: [
        {
          key: 'owner',
          permissions: ['doc:read', 'doc:write'],
          extends: [],
          noDirectRolesOnObject: false,
          derivations: [{ role: 'owner', onResource: 'doc', ...PARENT }],
        },
        {
          key: 'reader',
          permissions: ['doc:read'],
          extends: [],
          noDirectRolesOnObject: false,
          derivations: [{ role: 'reader', onResource: 'doc', ...PARENT }],
        },
      ],
    },
  ],
  roles: [
    { key: 'editor', permissions: ['doc:read', 'doc:write'], extends: [] },
    { key: 'viewer', permissions: ['doc:read'], extends: [] },
  ],
  userSets: [],
  resourceSets: [],
  rules: [],
}

const TENANTS = ['north', 'south']
const DOCS = 6
const USERS = 7

/** Small models: documents in two accounts and in each other, people with roles in accounts and on documents. */
const models = fc.record({
  tenantOf: fc.array(fc.constantFrom(...TENANTS), { minLength: DOCS, maxLength: DOCS }),
  parents: fc.array(fc.tuple(fc.nat(DOCS - 1), fc.nat(DOCS - 1)), { maxLength: 8 }),
  users: fc.array(
    fc.record({
      isActive: fc.boolean(),
      tenantRoles: fc.uniqueArray(
        fc.tuple(fc.constantFrom('editor', 'viewer'), fc.constantFrom(...TENANTS, undefined)),
        { maxLength: 2, selector: String },
      ),
      docRoles: fc.uniqueArray(fc.tuple(fc.constantFrom('owner', 'reader'), fc.nat(DOCS - 1)), {
        maxLength: 2,
        selector: String,
      }),
    }),
    { minLength: USERS, maxLength: USERS },
  ),
  isSouthActive: fc.boolean(),
})

type Model = typeof models extends fc.Arbitrary<infer M> ? M : never

function factsOf({ tenantOf, parents, users, isSouthActive }: Model): FactsDraft {
  return {
    tenants: [{ key: 'north' }, { key: 'south', isActive: isSouthActive }],
    instances: tenantOf.map((tenant, doc) => ({
      type: 'doc',
      key: `d${doc}`,
      tenant,
      subjects: {
        parent: [
          ...new Set(
            parents
              .filter(([object, subject]) => object === doc && tenantOf[subject] === tenant)
              .map(([, subject]) => `doc:d${subject}`),
          ),
        ],
      },
    })),
    users: users.map(({ isActive, tenantRoles, docRoles }, user) => ({
      key: `u${user}`,
      isActive,
      roles: [
        ...tenantRoles.map(([role, tenant]) => ({ role, ...(tenant !== undefined && { tenant }) })),
        ...docRoles.map(([role, doc]) => ({ role, instance: `doc:d${doc}` })),
      ],
    })),
  }
}

const names = (letter: string, count: number) => Array.from({ length: count }, (_, n) => `${letter}${n}`)

/** All pages, one after the other. */
async function whole(
  size: number,
  ask: (page: SearchPage) => Promise<SearchResult<string>>,
): Promise<string[]> {
  const all: string[] = []
  let token: string | undefined
  do {
    const page = await ask({ limit: size, token })
    if (page.results.length > size) throw new Error('a page is longer than its limit')
    all.push(...page.results)
    token = page.nextToken
  } while (token !== undefined)
  return all
}

t.test('searches find whom and what a check of each one finds, page by page', async (t) => {
  const { services } = await buildTestApp(t)
  let made = 0
  await fc.assert(
    fc.asyncProperty(models, fc.integer({ min: 1, max: 8 }), async (model, size) => {
      const environmentId = await newEnvironment(services, `e${++made}`)
      await storePolicy(services, environmentId, POLICY)
      await storeFacts(services, environmentId, factsOf(model))
      const { decisions } = services.modelOf(environmentId)
      const allowedOf = async (candidates: string[], question: (name: string) => Question) => {
        const decided = await decisions.checkMany(candidates.map(question))
        return candidates.filter((_, place) => decided[place]?.allowed)
      }

      for (const tenant of [...TENANTS, undefined, 'nowhere']) {
        for (const action of ['read', 'write', 'burn']) {
          const doc = { type: 'doc', key: 'd0', tenant }
          t.same(
            await whole(
              size,
              async (page) =>
                await decisions.searchSubjects(
                  { subject: { type: 'user' }, action: { name: action }, resource: doc },
                  page,
                ),
            ),
            await allowedOf(names('u', USERS), (key) => ({
              user: { key },
              action: { name: action },
              resource: doc,
            })),
          )
          const there = names('d', DOCS).filter(
            (_, n) => tenant === undefined || model.tenantOf[n] === tenant,
          )
          const isOpen = (n: string) => model.isSouthActive || model.tenantOf[Number(n.slice(1))] !== 'south'
          t.same(
            await whole(
              size,
              async (page) =>
                await decisions.searchResources(
                  { user: { key: 'u0' }, action: { name: action }, resource: { type: 'doc', tenant } },
                  page,
                ),
            ),
            (
              await allowedOf(there, (key) => ({
                user: { key: 'u0' },
                action: { name: action },
                resource: { type: 'doc', key, tenant },
              }))
            ).filter(isOpen),
          )
        }
        const user = { key: 'u1' }
        const resource = { type: 'doc', key: 'd1', tenant }
        t.same(
          await whole(1, async (page) => await decisions.searchActions({ user, resource }, page)),
          await allowedOf(['read', 'write'], (name) => ({ user, action: { name }, resource })),
        )
      }
      for (const user of [...names('u', USERS), 'unknown']) {
        const question = { user: { key: user }, action: { name: 'read' }, resource: { type: 'doc' } }
        t.same(
          (await decisions.checkAllTenants(question)).map(({ tenant }) => tenant.key).sort(),
          await allowedOf(TENANTS, (tenant) => ({ ...question, resource: { type: 'doc', tenant } })),
        )
      }
    }),
    { numRuns: 12 },
  )
})

t.test('lists of permissions and of people hold what a check of each one allows', async (t) => {
  const { services } = await buildTestApp(t)
  let made = 0
  await fc.assert(
    fc.asyncProperty(models, async (model) => {
      const environmentId = await newEnvironment(services, `l${++made}`)
      await storePolicy(services, environmentId, POLICY)
      await storeFacts(services, environmentId, factsOf(model))
      const { decisions } = services.modelOf(environmentId)
      const users = names('u', USERS)
      const held = new Map<string, Set<string>>()
      for (const key of users) {
        const all = await decisions.userPermissions({ user: { key } })
        held.set(
          key,
          new Set(
            all.flatMap(({ on, permissions }) =>
              permissions.map(
                (permission) => `${on.kind === 'tenant' ? on.tenant.key : on.instance.key} ${permission}`,
              ),
            ),
          ),
        )
      }

      for (const [place, tenant] of model.tenantOf.entries()) {
        for (const name of ['read', 'write']) {
          const asked = { action: { name }, resource: { type: 'doc', key: `d${place}`, tenant } }
          const decided = await decisions.checkMany(users.map((key) => ({ ...asked, user: { key } })))
          const allowed = users.filter((_, user) => decided[user]?.allowed)
          const authorized = await decisions.authorizedUsers(asked)
          t.same([...authorized.users.keys()], allowed, 'the people')
          t.same(
            users.filter(
              (key) =>
                held.get(key)?.has(`${tenant} doc:${name}`) || held.get(key)?.has(`d${place} doc:${name}`),
            ),
            allowed,
            'the permissions',
          )
          for (const [user, decision] of decided.entries())
            t.same(
              (await decisions.explain({ ...asked, user: { key: `u${user}` } })).decision,
              decision,
              'the explanation',
            )
        }
      }
    }),
    { numRuns: 12 },
  )
})

t.test('permissions can be asked for some accounts, resources and instances only', async (t) => {
  const { services } = await buildTestApp(t)
  const environmentId = await newEnvironment(services, 'filters')
  await storePolicy(services, environmentId, POLICY)
  await storeFacts(services, environmentId, {
    tenants: [{ key: 'north' }, { key: 'south' }],
    instances: [
      { type: 'doc', key: 'n', tenant: 'north' },
      { type: 'doc', key: 'below', tenant: 'north', subjects: { parent: ['doc:n'] } },
      { type: 'doc', key: 's', tenant: 'south' },
    ],
    users: [
      {
        key: 'anna',
        roles: [
          { role: 'viewer', tenant: 'north' },
          { role: 'editor', tenant: 'south' },
          { role: 'owner', instance: 'doc:n' },
          { role: 'reader', instance: 'doc:s' },
        ],
      },
    ],
  })
  const { decisions } = services.modelOf(environmentId)
  const asked = async (query: object) =>
    (await decisions.userPermissions({ user: { key: 'anna' }, ...query })).map(
      ({ on, roles, permissions }) =>
        `${on.kind === 'tenant' ? on.tenant.key : on.instance.key} ${roles} ${permissions}`,
    )

  const tenants = ['north viewer doc:read', 'south editor doc:read,doc:write']
  const below = 'below owner doc:read,doc:write'
  t.same((await asked({})).sort(), [
    below,
    'n owner doc:read,doc:write',
    ...tenants.slice(0, 1),
    's reader doc:read',
    ...tenants.slice(1),
  ])
  t.same((await asked({ resourceTypes: ['__tenant'] })).sort(), tenants)
  t.same(await asked({ resourceTypes: ['doc'], tenants: ['south'] }), ['s reader doc:read'])
  t.same(await asked({ resourceTypes: ['doc'], resources: ['doc:below'] }), [below])
  t.same(await decisions.userPermissions({ user: { key: 'nobody' } }), [])

  const { users } = await decisions.authorizedUsers({
    action: { name: 'write' },
    resource: { type: 'doc', key: 'below', tenant: 'north' },
  })
  t.same([...users.values()], [[{ user: 'anna', tenant: 'north', role: 'doc#owner', instance: 'doc:n' }]])
})

t.test('the work for a page is bounded, and a page that found nothing yet says where to go on', async (t) => {
  const { services } = await buildTestApp(t)
  const environmentId = await newEnvironment(services, 'many')
  await storePolicy(services, environmentId, POLICY)
  await storeFacts(services, environmentId, {
    tenants: [{ key: 'north' }],
    users: [{ key: 'zoe', roles: [{ role: 'viewer', tenant: 'north' }] }],
  })
  await services.database.pool.query(
    `insert into users (id, environment_id, key, search_text)
      select gen_random_uuid(), $1, 'a' || lpad(n::text, 5, '0'), '' from generate_series(1, 1500) n`,
    [environmentId],
  )
  const { decisions } = services.modelOf(environmentId)
  const asked = {
    subject: { type: 'user' },
    action: { name: 'read' },
    resource: { type: 'doc', tenant: 'north' },
  }

  const first = await decisions.searchSubjects(asked)
  t.same(first.results, [])
  t.type(first.nextToken, 'string')
  t.same(await decisions.searchSubjects(asked, { token: first.nextToken }), {
    results: ['zoe'],
    nextToken: undefined,
  })
})

t.test('a token is good for its own question only', async (t) => {
  const { services } = await buildTestApp(t)
  await storePolicy(services, DEFAULT_ENVIRONMENT, POLICY)
  await storeFacts(services, DEFAULT_ENVIRONMENT, {
    users: names('u', 3).map((key) => ({ key, roles: [{ role: 'viewer', tenant: 'default' }] })),
  })
  const { decisions } = services.modelOf(DEFAULT_ENVIRONMENT)
  const asked = {
    subject: { type: 'user' },
    action: { name: 'read' },
    resource: { type: 'doc', tenant: 'default' },
  }
  const { results, nextToken } = await decisions.searchSubjects(asked, { limit: 1 })
  t.same(results, ['u0'])

  const reordered = {
    resource: { tenant: 'default', type: 'doc' },
    action: { name: 'read' },
    subject: { type: 'user' },
  }
  t.same((await decisions.searchSubjects(reordered, { limit: 1, token: nextToken })).results, ['u1'])
  for (const other of [
    decisions.searchSubjects({ ...asked, action: { name: 'write' } }, { token: nextToken }),
    decisions.searchSubjects({ ...asked, withinAccount: DEFAULT_ENVIRONMENT }, { token: nextToken }),
    decisions.searchSubjects(asked, { token: 'x' }),
    decisions.searchSubjects(asked, { token: '' }),
    decisions.searchResources(
      { user: { key: 'u0' }, action: { name: 'read' }, resource: asked.resource },
      { token: nextToken },
    ),
  ])
    await t.rejects(other, { code: 'validation_failed' })
})

t.test('a search within an account finds its active members and its own things only', async (t) => {
  const { services } = await buildTestApp(t)
  const environmentId = await newEnvironment(services, 'two')
  await storePolicy(services, environmentId, POLICY)
  await storeFacts(services, environmentId, {
    tenants: [{ key: 'north' }, { key: 'south' }],
    instances: [
      { type: 'doc', key: 'n', tenant: 'north' },
      { type: 'doc', key: 's', tenant: 'south' },
    ],
    users: [
      { key: 'inside', tenants: ['north'], roles: [{ role: 'viewer' }] },
      { key: 'outside', tenants: ['south'], roles: [{ role: 'viewer' }] },
    ],
  })
  const { rows } = await services.database.pool.query<{ id: string }>(
    `select id from accounts where environment_id = $1 and key = 'north'`,
    [environmentId],
  )
  const withinAccount = rows[0]?.id ?? ''
  const { decisions } = services.modelOf(environmentId)
  const resource = { type: 'doc', tenant: 'north' }
  const action = { name: 'read' }

  const subjects = { subject: { type: 'user' }, action, resource }
  t.same((await decisions.searchSubjects(subjects)).results, ['inside', 'outside'])
  t.same((await decisions.searchSubjects({ ...subjects, withinAccount })).results, ['inside'])

  const things = (tenant: string) => ({ user: { key: 'inside' }, action, resource: { type: 'doc', tenant } })
  t.same((await decisions.searchResources(things('south'))).results, ['s'])
  t.same((await decisions.searchResources({ ...things('south'), withinAccount })).results, [])
  t.same((await decisions.searchResources({ ...things('north'), withinAccount })).results, ['n'])
  t.same(await decisions.userTenants('inside').then((all) => all.map(({ key }) => key)), ['north'])
})
