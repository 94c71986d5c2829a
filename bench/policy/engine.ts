import { type CompiledPolicy, compilePolicy } from '../../src/policy/engine/compile.ts'
import { decide } from '../../src/policy/engine/decide.ts'
import { explain } from '../../src/policy/engine/explain.ts'
import type {
  Facts,
  HeldRole,
  InstanceFacts,
  PolicyDocument,
  Question,
  ResourceDefinition,
  TenantFacts,
  UserFacts,
} from '../../src/policy/engine/model.ts'
import { report } from '../harness.ts'

const ROUNDS = 9
const NOW = Date.now()
const QUESTIONS = 4096

type Expected = { question: Question; isAllowed: boolean }

/** Nanoseconds per decision, one value for each round. */
function measure(policy: CompiledPolicy, facts: Facts, cases: readonly Expected[], times = 20): number[] {
  return rounds(() => {
    for (let time = 0; time < times; time++) {
      for (const { question, isAllowed } of cases) {
        if (decide(policy, facts, question, NOW).allowed !== isAllowed)
          throw new Error(`wrong answer to ${JSON.stringify(question)}`)
      }
    }
  }).map((ms) => (ms * 1e6) / (times * cases.length))
}

function rounds(work: () => void): number[] {
  for (let warmUp = 0; warmUp < 3; warmUp++) work()
  return Array.from({ length: ROUNDS }, () => {
    const begun = performance.now()
    work()
    return performance.now() - begun
  })
}

const list = <T>(length: number, make: (index: number) => T): T[] =>
  Array.from({ length }, (_, index) => make(index))

const resource = (key: string, parts: Partial<ResourceDefinition> = {}): ResourceDefinition => ({
  key,
  actions: ['create', 'read', 'update', 'delete'],
  roles: [],
  relations: [],
  ...parts,
})
const document = (parts: Partial<PolicyDocument>): PolicyDocument => ({
  resources: [],
  roles: [],
  userSets: [],
  resourceSets: [],
  rules: [],
  ...parts,
})
const user = (key: string, parts: Partial<UserFacts> = {}): UserFacts => ({
  id: `id-${key}`,
  key,
  isActive: true,
  attributes: {},
  tenants: [],
  tenantRoles: new Map(),
  everywhere: [],
  instanceRoles: new Map(),
  ...parts,
})
const tenant = (key: string): TenantFacts => ({ id: `id-${key}`, key, isActive: true, attributes: {} })
const held = (role: string): HeldRole => ({ role, expiresAt: undefined })

function factsOf(users: UserFacts[], tenants: TenantFacts[], instances: InstanceFacts[] = []): Facts {
  const byUser = new Map(users.map((one) => [one.key, one]))
  const byTenant = new Map(tenants.map((one) => [one.key, one]))
  const byInstance = new Map(instances.map((one) => [`${one.type}:${one.key}`, one]))
  return {
    user: (ref) => byUser.get(ref) ?? null,
    tenant: (ref) => byTenant.get(ref) ?? null,
    instance: (ref) => byInstance.get(ref) ?? null,
  }
}

/** Fifty roles over twenty resources: each one may read everything, and do all else to one resource. */
const officePolicy = (): PolicyDocument => {
  const resources = list(20, (i) => resource(`resource_${i}`))
  return document({
    resources,
    roles: list(50, (i) => ({
      key: `role_${i}`,
      permissions: [
        ...resources.map(({ key }) => `${key}:read`),
        ...['create', 'update', 'delete'].map((action) => `resource_${i % 20}:${action}`),
      ],
      extends: [],
    })),
  })
}

function rbac(): void {
  const policy = compilePolicy(officePolicy())
  for (const assignments of [100, 1000, 10_000, 100_000]) {
    const tenants = list(50, (i) => tenant(`tenant_${i}`))
    const users = list(assignments / 2, (i) =>
      user(`user_${i}`, {
        tenants: [`tenant_${i % 50}`],
        tenantRoles: new Map([[`tenant_${i % 50}`, [held(`role_${i % 50}`), held(`role_${(i + 7) % 50}`)]]]),
      }),
    )
    const facts = factsOf(users, tenants)
    const about = (people: number): Expected[] =>
      list(QUESTIONS, (n) => {
        const i = ((n % people) * 7919) % users.length
        const own = (n % 3 === 0 ? i : i + 1) % 20
        return {
          question: {
            user: { key: `user_${i}` },
            action: { name: 'update' },
            resource: { type: `resource_${own}`, tenant: `tenant_${i % 50}` },
          },
          isAllowed: [i % 50, (i + 7) % 50].some((role) => role % 20 === own),
        }
      })
    const name = `decision by role, ${assignments.toLocaleString('en')} assignments`
    report(`${name}, about 50 people`, measure(policy, facts, about(50)), 'ns')
    report(`${name}, about all in turn`, measure(policy, facts, about(QUESTIONS)), 'ns')
  }
}

function abac(): void {
  const policy = compilePolicy(
    document({
      resources: [resource('invoice')],
      roles: [{ key: 'clerk', permissions: [], extends: [] }],
      userSets: [
        {
          key: 'seniors',
          conditions: {
            allOf: [
              {
                allOf: [
                  { 'user.level': { 'greater-than-equals': 3 } },
                  { 'user.roles': { array_contains: 'clerk' } },
                ],
              },
            ],
          },
          parent: null,
        },
      ],
      resourceSets: [
        {
          key: 'theirs',
          resource: 'invoice',
          conditions: {
            allOf: [
              {
                allOf: [
                  { 'resource.department': { equals: { ref: 'user.department' } } },
                  { 'resource.state': { in: ['open', 'late'] } },
                ],
              },
            ],
          },
          parent: null,
        },
      ],
      rules: [{ users: { set: 'seniors' }, resources: { set: 'theirs' }, permission: 'invoice:update' }],
    }),
  )
  const departments = ['sales', 'tax']
  const users = list(1000, (i) =>
    user(`user_${i}`, {
      attributes: { level: 3 + (i % 2), department: departments[i % 2] },
      tenants: ['acme'],
      tenantRoles: new Map([['acme', [held('clerk')]]]),
    }),
  )
  const instances = list(
    1000,
    (i): InstanceFacts => ({
      id: `id-${i}`,
      type: 'invoice',
      key: `${i}`,
      tenant: 'acme',
      attributes: { department: departments[i % 2], state: i % 3 === 0 ? 'paid' : 'open' },
      subjects: new Map(),
    }),
  )
  const facts = factsOf(users, [tenant('acme')], instances)
  const cases = (said: boolean): Expected[] =>
    list(QUESTIONS, (n) => {
      const [i, k] = [(n * 7919) % 1000, (n * 104_729) % 1000]
      const attributes = said ? instances[k]?.attributes : undefined
      return {
        question: {
          user: { key: `user_${i}` },
          action: { name: 'update' },
          resource: { type: 'invoice', tenant: 'acme', attributes, ...(!said && { key: `${k}` }) },
        },
        isAllowed: i % 2 === k % 2 && k % 3 !== 0,
      }
    })
  report('decision by a rule of four comparisons, attributes said', measure(policy, facts, cases(true)), 'ns')
  report('the same, attributes stored', measure(policy, facts, cases(false)), 'ns')
}

const drive = (): PolicyDocument => {
  const editorsOfParents = {
    role: 'editor',
    onResource: 'folder',
    linkedByRelation: 'parent',
    noDirectRolesOnObject: false,
  }
  const role = (key: string, type: string, derivations: (typeof editorsOfParents)[] = []) => ({
    key,
    permissions: [`${type}:read`, `${type}:update`],
    extends: [],
    derivations,
    noDirectRolesOnObject: false,
  })
  const ofTeams = {
    role: 'member',
    onResource: 'team',
    linkedByRelation: 'team',
    noDirectRolesOnObject: false,
  }
  return document({
    resources: [
      resource('team', { roles: [role('member', 'team')] }),
      resource('folder', {
        relations: [
          { key: 'parent', subjectResource: 'folder' },
          { key: 'team', subjectResource: 'team' },
        ],
        roles: [role('editor', 'folder', [editorsOfParents, ofTeams])],
      }),
      resource('document', {
        relations: [{ key: 'parent', subjectResource: 'folder' }],
        roles: [role('editor', 'document', [editorsOfParents]), role('viewer', 'document')],
      }),
    ],
  })
}

const instance = (name: string, subjects: Record<string, string[]> = {}): InstanceFacts => ({
  id: `id-${name}`,
  type: name.slice(0, name.indexOf(':')),
  key: name.slice(name.indexOf(':') + 1),
  tenant: 'acme',
  attributes: {},
  subjects: new Map(Object.entries(subjects)),
})

function rebac(): void {
  const policy = compilePolicy(drive())
  const instances = list(1000, (i) => [
    instance(`document:${i}`, { parent: [`folder:${i}`] }),
    instance(`folder:${i}`, { parent: [`folder:above_${i}`] }),
    instance(`folder:above_${i}`, { team: [`team:${i % 10}`] }),
  ]).flat()
  const users = list(1000, (i) =>
    user(`user_${i}`, { instanceRoles: new Map([[`team:${i % 10}`, [held('member')]]]) }),
  )
  const facts = factsOf(users, [tenant('acme')], instances)
  const ask = (who: string, key: string, isAllowed: boolean): Expected => ({
    question: {
      user: { key: who },
      action: { name: 'update' },
      resource: { type: 'document', key, tenant: 'acme' },
    },
    isAllowed,
  })
  const cases = list(QUESTIONS, (n) => {
    const [i, k] = [(n * 7919) % 1000, n % 2 === 0 ? (n * 7919) % 1000 : (n * 104_729) % 1000]
    return ask(`user_${i}`, `${k}`, i % 10 === k % 10)
  })
  report('decision over three relations', measure(policy, facts, cases), 'ns')
  report(
    'the same, explained',
    rounds(() => {
      for (const { question, isAllowed } of cases)
        if (explain(policy, facts, question, NOW).decision.allowed !== isAllowed)
          throw new Error('wrong answer')
    }).map((ms) => (ms * 1e6) / cases.length),
    'ns',
  )

  const chain = list(1000, (i) =>
    instance(`folder:${i}`, i < 999 ? { parent: [`folder:${i + 1}`] } : { team: ['team:last'] }),
  )
  const teams = list(10_000, (i) => `team:${i}`)
  const large = factsOf(
    [
      user('ann', {
        instanceRoles: new Map([
          ['team:last', [held('member')]],
          ['team:9999', [held('member')]],
        ]),
      }),
    ],
    [tenant('acme')],
    [
      ...chain,
      instance('document:deep', { parent: ['folder:0'] }),
      instance('folder:wide', { team: teams }),
      instance('document:wide', { parent: ['folder:wide'] }),
    ],
  )
  const us = (values: number[]): number[] => values.map((value) => value / 1000)
  report(
    'decision over a chain of 1,000 relations',
    us(measure(policy, large, [ask('ann', 'deep', true)])),
    'µs',
  )
  report('decision among 10,000 subjects', us(measure(policy, large, [ask('ann', 'wide', true)])), 'µs')
}

function compiling(): void {
  const resources = list(100, (i) => resource(`resource_${i}`))
  const permission = (n: number): string => `resource_${n % 100}:${resources[0]?.actions[n % 4]}`
  const policy = document({
    resources,
    roles: list(1000, (i) => ({
      key: `role_${i}`,
      permissions: list(10, (n) => permission(i * 7 + n * 13)),
      extends: i % 10 === 0 ? [] : [`role_${i - 1}`],
    })),
    userSets: list(1000, (i) => ({
      key: `users_${i}`,
      conditions: { allOf: [{ 'user.x': { equals: i } }, { 'user.y': { in: [1, 2, i] } }] },
      parent: null,
    })),
    resourceSets: list(1000, (i) => ({
      key: `resources_${i}`,
      resource: `resource_${i % 100}`,
      conditions: { 'resource.x': { equals: i } },
      parent: null,
    })),
    rules: list(1000, (i) => ({
      users: { set: `users_${i}` },
      resources: { set: `resources_${i}` },
      permission: permission(i),
    })),
  })
  const facts = factsOf(
    [user('ann', { tenantRoles: new Map([['acme', [held('role_9')]]]) })],
    [tenant('acme')],
  )
  const asked = resources.flatMap(({ key, actions }) =>
    actions.map(
      (name): Question => ({
        user: { key: 'ann' },
        action: { name },
        resource: { type: key, tenant: 'acme' },
      }),
    ),
  )
  report(
    'compiling 1,000 roles and 1,000 rules',
    rounds(() => {
      if (compilePolicy(policy).types.size !== 100) throw new Error('wrong policy')
    }),
    'ms',
  )
  report(
    'the same, and asking about each of 400 actions once',
    rounds(() => {
      const compiled = compilePolicy(policy)
      if (!asked.some((question) => decide(compiled, facts, question, NOW).allowed))
        throw new Error('wrong answer')
    }),
    'ms',
  )
}

/** The decision core alone, in this process, over facts in memory as in a warm cache. Every answer is compared. */
export function policyInProcess(): void {
  rbac()
  abac()
  rebac()
  compiling()
}
