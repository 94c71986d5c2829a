import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { readTemplate } from '../../src/policy-file/templates.ts'
import { SYSTEM } from '../../src/principal.ts'
import { anEnvironment, inEnvironment } from '../helpers/api-keys.ts'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'
import { letSessionsAge } from '../helpers/factors.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'

const TEMPLATES = [
  'authzen-certification',
  'blog-access',
  'blog-rbac',
  'blogging-platform',
  'expense-approval-system-policy',
  'fga-tradeoffs',
  'gateway-api-authorization',
  'mesa-verde-banking-demo',
  'orm-data-filtering',
]

type Change = { change: string; kind: string; name: string }
const named = (changes: Change[]) => changes.map(({ change, kind, name }) => `${change} ${kind} ${name}`)

t.test('a set becomes one of the other kind, whatever its key', async (t) => {
  const { root } = await buildTestApp(t)
  const resources = { Post: { actions: ['read'] } }
  const apply = async (sets: object) => await root.post('/api/v1/policy', { version: 1, resources, ...sets })
  const key = 'constructor'
  const users = { user_sets: { [key]: { conditions: {} } } }
  const posts = { resource_sets: { [key]: { resource: 'Post', conditions: {} } } }
  t.equal((await apply(users)).statusCode, 200)
  t.equal((await apply(posts)).statusCode, 200)
  t.same((await apply(posts)).json(), [])
  t.equal((await apply(users)).statusCode, 200)
  const { user_sets, resource_sets } = (await root.get('/api/v1/policy')).json()
  t.same(Object.keys(user_sets), [key])
  t.equal(resource_sets, undefined)
})

t.test('a relation connects another resource from then on, unless it has relationships', async (t) => {
  const { root } = await buildTestApp(t)
  const file = (parent: string) => ({
    version: 1,
    resources: {
      Folder: { actions: ['read'] },
      Drive: { actions: ['read'] },
      Post: { actions: ['read'], relations: { parent } },
    },
  })
  const apply = async (parent: string) => await root.post('/api/v1/policy', file(parent))
  await apply('Folder')
  t.equal((await apply('Drive')).statusCode, 200)
  t.same((await apply('Drive')).json(), [])

  await root.post('/api/v1/relationship-tuples', {
    subject: 'Drive:d',
    relation: 'parent',
    object: 'Post:p',
    account: 'default',
  })
  const refused = await apply('Folder')
  t.equal(refused.statusCode, 409)
  t.match(refused.json(), { detail: /Post#parent has relationships/ })
  t.match((await root.get('/api/v1/policy')).json(), {
    resources: { Post: { relations: { parent: 'Drive' } } },
  })
})

t.test(
  'a policy is applied as a whole, read back as it was written, and applied again without a change',
  async (t) => {
    const { root } = await buildTestApp(t)
    const file = {
      version: 1,
      resources: {
        Folder: { actions: ['read'], roles: { editor: { permissions: ['read'] } } },
        Post: {
          name: 'Blog post',
          urn: 'urn:blog:post',
          actions: { create: { description: 'Write one' }, read: {} },
          attributes: { premium: 'bool', rating: { type: 'number', description: 'Of five' } },
          action_groups: { write: ['create'] },
          relations: { parent: 'Folder' },
          roles: {
            author: {
              permissions: ['create', 'read'],
              derived_from: [
                { role: 'editor', on: 'Folder', via: 'parent', no_direct_roles_on_object: true },
              ],
            },
            owner: { extends: ['author'], no_direct_roles_on_object: true },
          },
        },
      },
      user_attributes: { age: 'number' },
      roles: {
        Reader: { permissions: ['Post:read'] },
        Writer: { permissions: ['Post:create'], extends: ['Reader'], reach: 'any' },
      },
      user_sets: {
        adults: { conditions: { 'user.age': { 'greater-than-equals': 18 } } },
        seniors: { parent: 'adults', conditions: { 'user.age': { 'greater-than-equals': 65 } } },
      },
      resource_sets: { premium: { resource: 'Post', conditions: { 'resource.premium': { equals: true } } } },
      rules: [
        { user_set: 'seniors', permissions: ['Post:read'], resource_set: 'premium' },
        { role: 'Reader', permissions: ['Post:create', 'Post:read'], resource: 'Post' },
        { role: 'Post#author', permissions: ['Post:read'], resource: 'Post' },
      ],
    }

    const applied = await root.post('/api/v1/policy', file)
    t.equal(applied.statusCode, 200, applied.body)
    t.ok(named(applied.json()).includes('add derivation Post#author from Folder#editor via parent'))

    const exported = (await root.get('/api/v1/policy')).json<typeof file>()
    t.same(exported.resources.Post.relations, file.resources.Post.relations)
    t.same((await root.post('/api/v1/policy', exported)).json(), [], 'the export says the same')
    t.same((await root.post('/api/v1/policy', file)).json(), [], 'so does the file')
  },
)

t.test('what a file does not say is deleted, in one transaction, and a dry run only says so', async (t) => {
  const { root } = await buildTestApp(t)
  await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read', 'write'] } },
    roles: { Reader: { permissions: ['Post:read'] }, Writer: { permissions: ['Post:write'] } },
  })
  const smaller = { version: 1, resources: { Post: { actions: ['read'] } }, roles: { Reader: {} } }
  const expected = ['update role Reader', 'delete role Writer', 'delete action Post:write']

  const dry = await root.post('/api/v1/policy?dry_run=true', smaller)
  t.same(named(dry.json()), expected)
  t.same(Object.keys((await root.get('/api/v1/policy')).json<{ roles: object }>().roles), [
    'Reader',
    'Writer',
  ])

  t.same(named((await root.post('/api/v1/policy', smaller)).json()), expected)
  t.same((await root.get('/api/v1/policy')).json(), {
    version: 1,
    resources: { Post: { actions: ['read'] } },
    roles: { Reader: {} },
  })
})

t.test('built-in roles and resources are not in the file and cannot be', async (t) => {
  const { root } = await buildTestApp(t)

  t.same((await root.get('/api/v1/policy')).json(), { version: 1 })
  const taken = await root.post('/api/v1/policy', { version: 1, roles: { ADMIN: { permissions: [] } } })
  isProblem(t, taken, 'role_is_builtin')
  const builtin = await root.post('/api/v1/policy', { version: 1, resources: { 'postern.users': {} } })
  isProblem(t, builtin, 'validation_failed')
  t.equal((await root.get('/api/v1/roles?key=ADMIN')).json<unknown[]>().length, 1)
})

t.test('every fault of a file is told with its place, and nothing is changed', async (t) => {
  const { root } = await buildTestApp(t)
  const cases: [string, object, string][] = [
    ['an unknown field', { rules_: [] }, '/body/rules_'],
    ['an unknown action', { roles: { a: { permissions: ['Post:fly'] } } }, '/body/roles/a/permissions'],
    ['an unknown parent', { roles: { a: { extends: ['b'] } } }, '/body/roles/a/extends'],
    ['a cycle', { roles: { a: { extends: ['b'] }, b: { extends: ['a'] } } }, '/body/roles/a'],
    [
      'a derivation over a relation to something else',
      {
        resources: {
          A: { roles: { r: {} } },
          B: { roles: { r: {} } },
          C: { relations: { to: 'A' }, roles: { r: { derived_from: [{ role: 'r', on: 'B', via: 'to' }] } } },
        },
      },
      '/body/resources/C/roles/r/derived_from',
    ],
    [
      'a rule about nobody',
      { resources: { A: { actions: ['x'] } }, rules: [{ permissions: ['A:x'], resource: 'A' }] },
      '/body/rules/0',
    ],
    [
      'a set of nonsense',
      { user_sets: { s: { conditions: { 'user.a': { nonsense: 1 } } } } },
      '/body/user_sets/s/conditions/user.a/nonsense',
    ],
  ]
  for (const [what, part, pointer] of cases) {
    const response = await root.post('/api/v1/policy', { version: 1, ...part })
    isProblem(t, response, 'validation_failed', what)
    t.ok(pointersOf(response).includes(pointer), `${what}: ${pointersOf(response)}`)
  }
  t.same((await root.get('/api/v1/policy')).json(), { version: 1 })
})

t.test('facts that name what is not there change nothing at all', async (t) => {
  const { root } = await buildTestApp(t)
  const response = await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read'] } },
    facts: { users: { ann: { roles: [{ role: 'nobody' }] } } },
  })

  isProblem(t, response, 'validation_failed')
  t.same(pointersOf(response), ['/body/facts/users'])
  t.same((await root.get('/api/v1/policy')).json(), { version: 1 })
  t.same((await root.get('/api/v1/users?key=ann')).json(), [])
})

t.test('a token ends when a file takes a permission from a role of its holder', async (t) => {
  const { root, person, services } = await buildTestApp(t)
  await root.post('/api/v1/policy', {
    version: 1,
    resources: { Post: { actions: ['read', 'write'] } },
    roles: { Writer: { permissions: ['Post:read', 'Post:write'] } },
  })
  const writer = await person('Writer')
  t.equal((await writer.client.get('/api/v1/users/me')).statusCode, 200)

  await services.modelOf(DEFAULT_ENVIRONMENT).policyFile.apply(SYSTEM, {
    version: 1,
    resources: { Post: { actions: ['read', 'write'] } },
    roles: { Writer: { permissions: ['Post:read'] } },
  })

  t.equal((await writer.client.get('/api/v1/users/me')).statusCode, 401)
})

t.test('every template can be laid over every other, twice', async (t) => {
  const { root } = await buildTestApp(t)

  const listed = (await root.get('/api/v1/policy/templates')).json<{ name: string; description: string }[]>()
  t.same(
    listed.map(({ name }) => name),
    TEMPLATES,
  )
  for (const { name, description } of listed) {
    t.ok(description.length > 10, name)
    t.ok(readTemplate(name).version === 1)
    const first = await root.post(`/api/v1/policy/templates/${name}`)
    t.equal(first.statusCode, 200, `${name}: ${first.body}`)
    t.ok(first.json<unknown[]>().length > 0, name)
    t.same((await root.post(`/api/v1/policy/templates/${name}`)).json(), [], `${name} again`)
  }
  isProblem(t, await root.post('/api/v1/policy/templates/none'), 'template_not_found')
})

t.test('two files applied at once leave one of the two', async (t) => {
  const { root } = await buildTestApp(t)
  const files = ['A', 'B'].map((name) => ({
    version: 1,
    resources: { [name]: { actions: ['x', 'y', 'z'] } },
    roles: { [`only${name}`]: { permissions: [`${name}:x`, `${name}:y`] } },
  }))

  const answers = await Promise.all([...files, ...files].map((file) => root.post('/api/v1/policy', file)))

  t.same(new Set(answers.map(({ statusCode }) => statusCode)), new Set([200]))
  const left = (await root.get('/api/v1/policy')).json()
  t.ok(
    files.some((file) => JSON.stringify(file.resources) === JSON.stringify((left as typeof file).resources)),
  )
})

t.test('a role that demands a second factor does so after export and apply', async (t) => {
  const app = await buildTestApp(t)
  const { root, services } = app
  const policy = (roles: object, facts?: object) => ({
    version: 1,
    resources: { Post: { actions: ['read'] } },
    roles,
    ...(facts && { facts }),
  })
  const demanding = { Keeper: { is_mfa_required: true, permissions: ['Post:read'] }, Reader: {} }
  const demandOf = async (key: string, headers = {}) =>
    (await root.get(`/api/v1/roles?key=${key}`, headers)).json<{ is_mfa_required: boolean }[]>()[0]
      ?.is_mfa_required

  t.equal((await root.post('/api/v1/policy', policy(demanding))).statusCode, 200)
  const keeper = await app.person('Keeper')
  isProblem(t, await keeper.client.get('/api/v1/roles'), 'mfa_enrolment_required')
  const exported = (await root.get('/api/v1/policy')).json<{ roles: object }>()
  t.same(exported.roles, demanding, 'what is a default is not written')
  const elsewhere = inEnvironment((await anEnvironment(app)).name)
  t.equal((await root.post('/api/v1/policy', exported, elsewhere)).statusCode, 200)
  t.equal(await demandOf('Keeper', elsewhere), true)
  t.equal(await demandOf('Reader', elsewhere), false)

  await t.test('and so does its copy in another environment', async (t) => {
    const { environments, modelOf } = services
    const source = await environments.getEnvironmentNamed(SYSTEM, 'default/default')
    const copy = await environments.copyEnvironment(
      SYSTEM,
      source,
      { new: { key: 'copy', name: 'Copy' } },
      {},
    )
    const records = await modelOf(copy.id).policyFile.read()
    t.match(
      records.find(({ kind, name }) => kind === 'role' && name === 'Keeper'),
      { value: { is_mfa_required: true } },
    )
  })

  await t.test('until a file says otherwise, of somebody who might say so to the role itself', async (t) => {
    const lifted = policy({ ...demanding, Keeper: { permissions: ['Post:read'] } })
    const narrow = await app.anonymous.post('/api/v1/auth/login', {
      email: SUPER_ADMIN_EMAIL,
      password: PASSWORD,
      scope: 'postern.policy:write:any',
    })
    const writer = app.as(narrow.json<{ access_token: string }>().access_token)

    t.equal((await writer.post('/api/v1/policy', policy(demanding))).statusCode, 200)
    isProblem(t, await writer.post('/api/v1/policy', lifted), 'insufficient_scope')
    await letSessionsAge(app, app.rootId, 86_400)
    t.equal((await root.post('/api/v1/policy', policy(demanding))).statusCode, 200)
    isProblem(t, await root.post('/api/v1/policy', lifted), 'reauthentication_required')
    t.equal(await demandOf('Keeper'), true)
    await letSessionsAge(app, app.rootId, 0)
    t.equal((await root.post('/api/v1/policy', lifted)).statusCode, 200)
    t.equal(await demandOf('Keeper'), false)
  })

  await t.test('and an account that facts name is not let off by them', async (t) => {
    const acme = async (fields: object) => {
      const facts = { accounts: { acme: fields } }
      const { statusCode } = await root.post('/api/v1/policy', policy(demanding, facts))
      const [account] = (await root.get('/api/v1/accounts?key=acme')).json<{ is_mfa_required: boolean }[]>()
      return [statusCode, account?.is_mfa_required]
    }
    t.same(await acme({}), [200, false])
    t.same(await acme({ is_mfa_required: true }), [200, true])
    t.same(await acme({ name: 'Acme' }), [200, true])
    t.same(await acme({ is_mfa_required: false }), [422, true])
  })
})
