import t from 'tap'
import { compilePolicy } from '../../../src/policy/engine/compile.ts'
import { decide } from '../../../src/policy/engine/decide.ts'
import type { Attributes } from '../../../src/policy/engine/model.ts'
import { aDocument, anInstance, aResource, asks, aTenant, aUser, aWorld, factsOf, NOW } from './builders.ts'

// The certification scenario of the AuthZEN Authorization API 1.0.
const policy = compilePolicy(
  aDocument({
    resources: [aResource('record', { actions: ['read', 'write', 'delete'] })],
    userSets: [
      { key: 'everyone', conditions: {}, parent: null },
      { key: 'alice', conditions: { 'user.key': { equals: 'alice' } }, parent: null },
      { key: 'admins', conditions: { 'user.role': { equals: 'admin' } }, parent: null },
      { key: 'alice_softly', conditions: { 'action.soft': { equals: true } }, parent: 'alice' },
    ],
    resourceSets: [
      {
        key: 'archived',
        resource: 'record',
        conditions: { 'resource.status': { equals: 'archived' } },
        parent: null,
      },
      {
        key: 'open',
        resource: 'record',
        conditions: { not: { 'resource.status': { equals: 'archived' } } },
        parent: null,
      },
    ],
    rules: [
      { users: { set: 'everyone' }, resources: { resource: 'record' }, permission: 'record:read' },
      { users: { set: 'alice' }, resources: { set: 'open' }, permission: 'record:write' },
      { users: { set: 'admins' }, resources: { set: 'archived' }, permission: 'record:write' },
      { users: { set: 'alice_softly' }, resources: { resource: 'record' }, permission: 'record:delete' },
    ],
  }),
)

const facts = factsOf(
  aWorld({
    tenants: [aTenant('default')],
    users: [
      aUser('alice', { tenants: ['default'] }),
      aUser('bob', { tenants: ['default'], attributes: { role: 'admin' } }),
    ],
    instances: [
      anInstance('record:record-1', { tenant: 'default', attributes: { status: 'active' } }),
      anInstance('record:record-2', { tenant: 'default', attributes: { status: 'archived' } }),
    ],
  }),
)

type Properties = { user?: Attributes; resource?: Attributes; action?: Attributes }

const may = (user: string, action: string, key: string, properties: Properties = {}): boolean =>
  decide(policy, facts, asks(user, `record:${action}`, { key, tenant: 'default', ...properties }), NOW)
    .allowed

t.test('every rule of the scenario is decided as it says', async (t) => {
  const archived = { status: 'archived' }
  const admin = { role: 'admin' }

  for (const [rule, user, action, key, properties, isAllowed] of [
    [1, 'alice', 'read', 'record-1', {}, true],
    [2, 'alice', 'write', 'record-1', {}, true],
    [3, 'bob', 'read', 'record-1', {}, true],
    [4, 'bob', 'write', 'record-1', {}, false],
    [5, 'alice', 'write', 'record-1', { resource: archived }, false],
    [5, 'alice', 'write', 'record-2', {}, false],
    [5, 'alice', 'write', 'record-9', { resource: archived }, false],
    [6, 'alice', 'write', 'record-1', { user: admin, resource: archived }, true],
    [6, 'bob', 'write', 'record-1', { user: admin, resource: archived }, true],
    [6, 'somebody', 'write', 'record-9', { user: admin, resource: archived }, true],
    [7, 'alice', 'delete', 'record-1', { action: { soft: true } }, true],
    [8, 'alice', 'delete', 'record-1', { action: { soft: false } }, false],
    [8, 'alice', 'delete', 'record-1', {}, false],
    [8, 'alice', 'delete', 'record-1', { action: { soft: 'true' } }, false],
    [8, 'bob', 'delete', 'record-1', { action: { soft: true } }, false],
  ] as const)
    t.equal(may(user, action, key, properties), isAllowed, `rule ${rule}: ${user} ${action} ${key}`)
})

t.test('every search of the scenario finds what it must, by what is stored', async (t) => {
  const users = ['alice', 'bob']
  const records = ['record-1', 'record-2']
  const actions = ['read', 'write', 'delete']

  t.strictSame(
    users.filter((user) => may(user, 'read', 'record-1')),
    ['alice', 'bob'],
  )
  t.strictSame(
    records.filter((record) => may('alice', 'read', record)),
    ['record-1', 'record-2'],
  )
  t.strictSame(
    actions.filter((action) => may('alice', action, 'record-1')),
    ['read', 'write'],
  )
  t.strictSame(
    users.filter((user) => may(user, 'write', 'record-2')),
    ['bob'],
  )
  t.strictSame(
    records.filter((record) => may('bob', 'write', record)),
    ['record-2'],
  )
  t.strictSame(
    actions.filter((action) => may('bob', action, 'record-2')),
    ['read', 'write'],
  )
})
