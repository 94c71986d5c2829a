import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import { explain } from '../../../src/policy/engine/explain.ts'
import type { PolicyDocument } from '../../../src/policy/engine/model.ts'
import { createRecorder } from '../../../src/policy/engine/recorder.ts'
import { MOST_VISITS } from '../../../src/policy/engine/relations.ts'
import {
  aDocument,
  anInstance,
  anInstanceRole,
  aResource,
  asks,
  aTenant,
  aUser,
  aWorld,
  factsOf,
  from,
  held,
  NOW,
  type Roles,
  type World,
} from './builders.ts'

const tenants = [aTenant('acme'), aTenant('umbra')]

/** Documents in folders in folders, with accounts above: editors of what is above are editors of what is below. */
const drive = ({ block = false, rule = false } = {}): PolicyDocument =>
  aDocument({
    resources: [
      aResource('account', { roles: [anInstanceRole('admin')] }),
      aResource('folder', {
        relations: [
          { key: 'account', subjectResource: 'account' },
          { key: 'parent', subjectResource: 'folder' },
        ],
        roles: [
          anInstanceRole('editor', ['folder:write'], {
            noDirectRolesOnObject: block,
            derivations: [from('admin', 'account', 'account', rule), from('editor', 'folder', 'parent')],
          }),
          anInstanceRole('viewer', ['folder:read']),
        ],
      }),
      aResource('doc', {
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [
          anInstanceRole('editor', ['doc:write'], { derivations: [from('editor', 'folder', 'parent')] }),
          anInstanceRole('viewer', ['doc:read'], { derivations: [from('viewer', 'folder', 'parent')] }),
        ],
      }),
    ],
  })

const tree = [
  anInstance('account:a'),
  anInstance('folder:f1', { subjects: { account: ['account:a'] } }),
  anInstance('folder:f2', { subjects: { parent: ['folder:f1'] } }),
  anInstance('doc:d', { subjects: { parent: ['folder:f2'] } }),
]

const may = (policy: PolicyDocument, world: World, permission: string, key: string): boolean =>
  decide(compilePolicy(policy), factsOf(world), asks('ann', permission, { key }), NOW).allowed

const withAnn = (on: Roles): World => aWorld({ tenants, users: [aUser('ann', { on })], instances: tree })

t.test('a role is derived over any number of relations', async (t) => {
  t.ok(may(drive(), withAnn({ 'folder:f2': ['editor'] }), 'doc:write', 'd'), 'one')
  t.ok(may(drive(), withAnn({ 'folder:f1': ['editor'] }), 'doc:write', 'd'), 'two')
  t.ok(may(drive(), withAnn({ 'account:a': ['admin'] }), 'doc:write', 'd'), 'three')
  t.notOk(
    may(drive(), withAnn({ 'folder:f1': ['viewer'] }), 'doc:read', 'd'),
    'viewers of folders above are none here',
  )
  t.notOk(may(drive(), withAnn({ 'doc:d': ['editor'] }), 'folder:write', 'f2'), 'nothing is derived upwards')
})

t.test('a role that has expired derives nothing', async (t) => {
  t.notOk(may(drive(), withAnn({ 'folder:f2': [held('editor', NOW)] }), 'doc:write', 'd'))
})

t.test('an instance of another account than the question’s opens for no role on it', async (t) => {
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'doc:d': ['editor'] } })],
    instances: [anInstance('doc:d', { tenant: 'umbra' })],
  })

  t.notOk(may(drive(), world, 'doc:write', 'd'))
  t.ok(
    decide(
      compilePolicy(drive()),
      factsOf(world),
      asks('ann', 'doc:write', { key: 'd', tenant: 'umbra' }),
      NOW,
    ).allowed,
  )
})

for (const { name, policy } of [
  { name: 'of the role', policy: drive({ block: true }) },
  { name: 'of the derivation', policy: drive({ rule: true }) },
]) {
  t.test(
    `no_direct_roles_on_object ${name} ends what is derived for who holds a role there directly`,
    async (t) => {
      const admin = { 'account:a': ['admin'] }
      t.ok(may(policy, withAnn(admin), 'folder:write', 'f1'))
      t.notOk(may(policy, withAnn({ ...admin, 'folder:f1': ['viewer'] }), 'folder:write', 'f1'))
      t.notOk(
        may(policy, withAnn({ ...admin, 'folder:f1': ['viewer'] }), 'folder:write', 'f2'),
        'nothing goes on from it',
      )
      t.notOk(may(policy, withAnn({ ...admin, 'folder:f1': ['viewer'] }), 'doc:write', 'd'))
      t.ok(
        may(policy, withAnn({ ...admin, 'folder:f1': [held('viewer', NOW)] }), 'doc:write', 'd'),
        'an expired role is none',
      )
      t.ok(
        may(policy, withAnn({ ...admin, 'doc:d': ['viewer'] }), 'doc:write', 'd'),
        'a role elsewhere is no matter',
      )
      t.ok(may(policy, withAnn({ ...admin, 'account:a': ['admin', 'viewer'] }), 'doc:write', 'd'))
    },
  )
}

t.test('of a derivation it leaves the others of the role alone', async (t) => {
  const on = { 'account:a': ['admin'], 'folder:f2': ['viewer'] }

  t.ok(may(drive({ rule: true }), withAnn(on), 'folder:write', 'f2'), 'by the folder above')
  t.notOk(may(drive({ block: true }), withAnn(on), 'folder:write', 'f2'))
})

t.test('cycles of relations add nothing', async (t) => {
  const instances = [
    anInstance('folder:a', { subjects: { parent: ['folder:b', 'folder:a'] } }),
    anInstance('folder:b', { subjects: { parent: ['folder:c'] } }),
    anInstance('folder:c', { subjects: { parent: ['folder:a'] } }),
  ]

  t.notOk(
    may(
      drive(),
      aWorld({ tenants, instances, users: [aUser('ann', { on: { 'folder:x': ['editor'] } })] }),
      'folder:write',
      'a',
    ),
  )
  t.ok(
    may(
      drive(),
      aWorld({ tenants, instances, users: [aUser('ann', { on: { 'folder:c': ['editor'] } })] }),
      'folder:write',
      'a',
    ),
  )
})

t.test('roles that are derived from each other add nothing', async (t) => {
  const policy = aDocument({
    resources: [
      aResource('doc', {
        relations: [{ key: 'twin', subjectResource: 'doc' }],
        roles: [
          anInstanceRole('one', ['doc:read'], { derivations: [from('other', 'doc', 'twin')] }),
          anInstanceRole('other', [], { derivations: [from('one', 'doc', 'twin')] }),
        ],
      }),
    ],
  })
  const instances = [
    anInstance('doc:a', { subjects: { twin: ['doc:b'] } }),
    anInstance('doc:b', { subjects: { twin: ['doc:a'] } }),
  ]
  const world = (on: Record<string, string[]>) =>
    aWorld({ tenants, instances, users: [aUser('ann', { on })] })

  t.notOk(may(policy, world({ 'doc:c': ['one'] }), 'doc:read', 'a'))
  t.ok(may(policy, world({ 'doc:b': ['other'] }), 'doc:read', 'a'))
  t.notOk(may(policy, world({ 'doc:b': ['one'] }), 'doc:read', 'a'))
  t.notOk(may(policy, world({ 'doc:a': ['other'] }), 'doc:read', 'a'))
})

t.test('subjects of another resource than the derivation’s give nothing', async (t) => {
  const instances = [anInstance('doc:d', { subjects: { parent: ['doc:f', 'folderx:f', 'folder', ''] } })]
  const users = [
    aUser('ann', {
      on: { 'doc:f': ['editor'], 'folderx:f': ['editor'], folder: ['editor'], '': ['editor'] },
    }),
  ]

  t.notOk(may(drive(), aWorld({ tenants, users, instances }), 'doc:write', 'd'))
})

t.test('subjects from which nothing is derived are not loaded', async (t) => {
  const members = Array.from({ length: 100 }, (_, i) => `account:${i}`)
  const world = aWorld({
    tenants,
    users: [aUser('ann', { on: { 'account:99': ['admin'] } })],
    instances: [anInstance('folder:f', { subjects: { account: members } })],
  })
  const recorder = createRecorder(factsOf(world))
  const loaded: string[] = []
  const facts = {
    ...recorder.facts,
    instance: (ref: string) => {
      loaded.push(ref)
      return recorder.facts.instance(ref)
    },
  }

  t.ok(decide(compilePolicy(drive()), facts, asks('ann', 'folder:write', { key: 'f' }), NOW).allowed)
  t.strictSame([...new Set(loaded)], ['folder:f'])
})

t.test('subjects that are missing are asked for together', async (t) => {
  const parents = Array.from({ length: 50 }, (_, i) => `folder:${i}`)
  const all = factsOf(
    aWorld({
      tenants,
      users: [aUser('ann', { on: { 'folder:x': ['editor'] } })],
      instances: [anInstance('doc:d', { subjects: { parent: parents } })],
    }),
  )
  const recorder = createRecorder({ ...all, instance: (ref) => all.instance(ref) ?? undefined })

  t.notOk(decide(compilePolicy(drive()), recorder.facts, asks('ann', 'doc:write', { key: 'd' }), NOW).allowed)
  t.strictSame([...recorder.missing.instances], parents)
})

t.test('roles that may yet turn out to be held are not taken for roles that are not', async (t) => {
  const policy: PolicyDocument = {
    ...drive(),
    userSets: [
      {
        key: 'strangers',
        conditions: { not: { 'user.roles': { array_contains: 'doc#editor' } } },
        parent: null,
      },
    ],
    rules: [{ users: { set: 'strangers' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
  }
  const all = factsOf(withAnn({ 'folder:f1': ['editor'] }))
  const question = asks('ann', 'doc:read', { key: 'd' })
  const without = (name: string) => ({
    ...all,
    instance: (ref: string) => (ref === name ? undefined : all.instance(ref)),
  })

  for (const facts of [all, without('doc:d'), without('folder:f2')])
    t.notOk(decide(compilePolicy(policy), facts, question, NOW).allowed)
})

const chain = (length: number) =>
  Array.from({ length }, (_, i) => anInstance(`folder:${i}`, { subjects: { parent: [`folder:${i + 1}`] } }))

t.test('a chain of a thousand relations is followed to its end', async (t) => {
  const world = aWorld({
    tenants,
    instances: chain(1000),
    users: [
      aUser('ann', { on: { 'folder:1000': ['editor'] } }),
      aUser('bob', { on: { 'folder:x': ['editor'] } }),
    ],
  })
  const compiled = compilePolicy(drive())

  const { decision, rebac } = explain(
    compiled,
    factsOf(world),
    asks('ann', 'folder:write', { key: '0' }),
    NOW,
  )
  t.ok(decision.allowed)
  t.equal(rebac?.allowingRoles[0]?.path.length, 1001)
  t.notOk(decide(compiled, factsOf(world), asks('bob', 'folder:write', { key: '0' }), NOW).allowed)
})

t.test('among ten thousand subjects the one is found on which a role is held', async (t) => {
  const groups = Array.from({ length: 10_000 }, (_, i) => `account:${i}`)
  const folders = Array.from({ length: 10_000 }, (_, i) => `folder:${i}`)
  const world = (on: Record<string, string[]>) =>
    aWorld({
      tenants,
      instances: [
        anInstance('folder:f', { subjects: { account: groups } }),
        anInstance('doc:d', { subjects: { parent: folders } }),
        ...folders.map((name) => anInstance(name)),
      ],
      users: [aUser('ann', { on })],
    })

  t.ok(may(drive(), world({ 'account:9999': ['admin'] }), 'folder:write', 'f'))
  t.notOk(may(drive(), world({ 'account:x': ['admin'] }), 'folder:write', 'f'))
  t.ok(may(drive(), world({ 'folder:9999': ['editor'] }), 'doc:write', 'd'))
  t.notOk(may(drive(), world({ 'folder:x': ['editor'] }), 'doc:write', 'd'))
})

t.test('more relationships than one decision may walk are a refusal, never an allow', async (t) => {
  const folders = Array.from({ length: MOST_VISITS + 1 }, (_, i) => `folder:${i}`)
  const world = aWorld({
    tenants,
    instances: [anInstance('doc:d', { subjects: { parent: folders } })],
    users: [aUser('ann', { on: { [`folder:${MOST_VISITS}`]: ['editor'] } })],
  })
  const compiled = compilePolicy(drive())
  const question = asks('ann', 'doc:write', { key: 'd' })

  t.equal(decide(compiled, factsOf(world), question, NOW).refusal, 'graph_too_large')
  const { decision, rebac, allowingSources } = explain(compiled, factsOf(world), question, NOW)
  t.equal(decision.refusal, 'graph_too_large')
  t.equal(rebac?.code, 'graph_too_large')
  t.strictSame(allowingSources, [])
})

t.test('where more roles of somebody were left out than are looked at, nothing is concluded', async (t) => {
  const anybodyElse = aDocument({
    resources: [aResource('doc', { roles: [anInstanceRole('owner', ['doc:read'])] })],
    userSets: [
      { key: 'others', conditions: { not: { 'user.roles': { array_contains: 'doc#owner' } } }, parent: null },
    ],
    rules: [{ users: { set: 'others' }, resources: { resource: 'doc' }, permission: 'doc:write' }],
  })
  const compiled = compilePolicy(anybodyElse)
  const instances = [anInstance('doc:d'), anInstance('doc:e', { tenant: 'umbra' })]
  const ask = (crowded: string[], permission: string, key: string, tenant: string) => {
    const ann = aUser('ann', { on: { 'doc:e': ['owner'] }, crowdedTenants: new Set(crowded) })
    const facts = factsOf(aWorld({ tenants, instances, users: [ann] }))
    const decision = decide(compiled, facts, asks('ann', permission, { key, tenant }), NOW)
    return decision.refusal ?? decision.source
  }

  t.equal(ask([], 'doc:write', 'd', 'acme'), 'abac')
  t.equal(ask(['acme'], 'doc:write', 'd', 'acme'), 'graph_too_large', 'who knows whether ann owns it?')
  t.equal(ask(['acme'], 'doc:read', 'd', 'acme'), 'graph_too_large')
  t.equal(ask(['acme'], 'doc:read', 'e', 'umbra'), 'rebac')
  t.equal(ask(['acme'], 'doc:write', 'e', 'umbra'), undefined)
})

t.test(
  'a graph in which everything is related to everything is walked once, not over and over',
  async (t) => {
    const folders = Array.from({ length: 300 }, (_, i) => `folder:${i}`)
    const instances = folders.map((name) => anInstance(name, { subjects: { parent: folders } }))
    const world = aWorld({ tenants, instances, users: [aUser('ann', { on: { 'folder:x': ['editor'] } })] })

    t.strictSame(
      decide(compilePolicy(drive()), factsOf(world), asks('ann', 'folder:write', { key: '0' }), NOW),
      {
        allowed: false,
        source: undefined,
        refusal: undefined,
      },
    )
  },
)

t.test('rules see the roles held on the instance, given or derived', async (t) => {
  const owned = (conditions: Record<string, unknown>): PolicyDocument => ({
    ...drive(),
    userSets: [{ key: 'writers', conditions, parent: null }],
    rules: [{ users: { set: 'writers' }, resources: { resource: 'doc' }, permission: 'doc:read' }],
  })
  const byRole: PolicyDocument = {
    ...drive(),
    rules: [
      { users: { role: 'doc#editor' }, resources: { resource: 'doc' }, permission: 'doc:read' },
      { users: { role: 'folder#editor' }, resources: { resource: 'doc' }, permission: 'doc:read' },
    ],
  }

  for (const policy of [
    byRole,
    owned({ 'user.roles': { array_contains: 'doc#editor' } }),
    owned({ 'user.roles': { equals: ['doc#editor'] } }),
  ]) {
    t.ok(may(policy, withAnn({ 'doc:d': ['editor'] }), 'doc:read', 'd'), 'given')
    t.ok(may(policy, withAnn({ 'account:a': ['admin'] }), 'doc:read', 'd'), 'derived')
    t.notOk(may(policy, withAnn({ 'account:b': ['admin'] }), 'doc:read', 'd'), 'on another')
  }
  t.notOk(
    may(
      owned({ 'user.roles': { array_contains: 'folder#editor' } }),
      withAnn({ 'folder:f2': ['editor'] }),
      'doc:read',
      'd',
    ),
    'only of the instance asked about',
  )
})
