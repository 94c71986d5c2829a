import { and, eq, isNotNull } from 'drizzle-orm'
import type { Test } from 'tap'
import { DEFAULT_ENVIRONMENT, transact } from '../../src/db/client.ts'
import { roleAssignments, roles } from '../../src/db/schema.ts'
import type { Decisions } from '../../src/policy/decisions.ts'
import type { Question } from '../../src/policy/engine/model.ts'
import { SYSTEM } from '../../src/principal.ts'
import type { AssignmentTerms } from '../../src/roles/service.ts'
import type { UserInput } from '../../src/users/service.ts'
import type { TestApp } from '../helpers/app.ts'
import { PASSWORD } from '../helpers/config.ts'
import { matchEach } from '../helpers/matching.ts'
import { eventually } from '../helpers/processes.ts'

/** An engine, the Postern whose users, accounts and roles it decides by, and how to wait until it knows them. */
export type Candidate = { postern: TestApp; adapter: Decisions; settled: () => Promise<void> }

type MakeAdapter = (t: Test) => Promise<Candidate>

/** What every engine does alike, whatever it is made of. */
export async function policyAdapterContract(t: Test, makeAdapter: MakeAdapter): Promise<void> {
  const candidate = await makeAdapter(t)
  let worlds = 0

  await t.test('a role lets its holder do what it says, in its account and nowhere else', async (t) => {
    const { may, named, allows, people, give } = await world()
    await people('anna', 'north')
    await give('anna', 'editor', 'north')

    t.equal(await allows(may('anna', 'write')), true)
    t.equal(await allows(may('anna', 'write', 'south')), false)
    t.equal(await allows(may('anna', 'sign')), false)
    t.equal(await allows(may('nobody')), false)
    t.equal(await allows({ ...may('anna'), resource: { type: 'invoice', tenant: named('north') } }), false)
    t.equal(await allows(may('anna', 'burn')), false)
    t.equal(await allows(may('anna', 'write', 'nowhere')), false)
  })

  await t.test('people and accounts are known by their ids too', async (t) => {
    const { may, allows, people, give, idOf, accountOf } = await world()
    await people('anna', 'north')
    await give('anna', 'editor', 'north')

    t.equal(await allows(may(idOf('anna'), 'write', accountOf('north'))), true)
    t.equal(await allows(may(idOf('anna'), 'write', accountOf('south'))), false)
  })

  await t.test('attributes that come with the question are looked at', async (t) => {
    const { allows } = await world()
    const aged = (age: number) => ({
      ...may('stranger', 'sign'),
      user: { key: 'stranger', attributes: { age } },
    })

    t.equal(await allows(aged(30)), true)
    t.equal(await allows(aged(10)), false)
  })

  await t.test('what is stored of a user is looked at, as it is now', async (t) => {
    const { may, allows, people, postern, idOf } = await world()
    await people('anna', 'north', { firstName: 'Anna', attributes: { age: 30 } })
    t.equal(await allows(may('anna', 'sign')), true)
    t.equal(await allows(may('anna', 'file')), true)

    const change = { firstName: null, attributes: { age: 10 } }
    await postern.services.users.updateUser(SYSTEM, idOf('anna'), change, undefined)

    t.equal(await allows(may('anna', 'sign')), false)
    t.equal(await allows(may('anna', 'file')), false, 'a name that is cleared')
  })

  await t.test('a role on one instance holds there and nowhere else', async (t) => {
    const { may, named, allows, adapter, people, giveOn, take, postern, accountOf } = await world()
    await people('anna', 'north')
    for (const key of ['first', 'second']) {
      const instance = { resource: 'document', key: named(key), account: accountOf('north') }
      await postern.services.modelOf(DEFAULT_ENVIRONMENT).instances.createInstance(SYSTEM, instance)
    }
    const assignment = await giveOn('anna', 'author', `document:${named('first')}`)
    const on = (key: string, action = 'sign', tenant = 'north') => {
      const question = may('anna', action, tenant)
      return { ...question, resource: { ...question.resource, key: named(key) } }
    }

    t.equal(await allows(on('first')), true)
    t.equal(await allows(on('first', 'read')), false)
    t.equal(await allows(on('first', 'sign', 'south')), false)
    t.equal(await allows(on('second')), false)
    t.equal(await allows(may('anna', 'sign')), false)
    matchEach(
      t,
      await adapter.userPermissions({ user: { key: named('anna') }, resourceTypes: ['document'] }),
      [{ on: { kind: 'instance', instance: { key: named('first') } }, permissions: ['document:sign'] }],
    )

    await take('anna', assignment)
    t.equal(await allows(on('first')), false)
  })

  await t.test('a role holds until it ends', async (t) => {
    const { may, allows, people, give, postern } = await world()
    await people('anna', 'north')
    const assignment = await give('anna', 'reader', 'north', { expiresAt: new Date(Date.now() + 3_600_000) })
    t.equal(await allows(may('anna')), true)

    const endsAt = new Date(Date.now() + 300)
    await transact(postern.services.database.db, async (tx) => {
      await tx.update(roleAssignments).set({ expiresAt: endsAt }).where(eq(roleAssignments.id, assignment))
    })

    await eventually(async () => !(await allows(may('anna'))))
    t.ok(Date.now() >= endsAt.getTime(), 'and not before')
  })

  await t.test('somebody stored is asked about in their own accounts, a stranger in all', async (t) => {
    const { named, adapter, people, settled } = await world()
    await people('anna', 'north', { attributes: { age: 30 } })
    await settled()
    const where = async (user: Question['user']) =>
      (await adapter.checkAllTenants({ user, action: { name: 'sign' }, resource: { type: 'document' } })).map(
        ({ tenant }) => tenant.key,
      )

    t.same(await where({ key: named('anna') }), [named('north')])
    const everywhere = await where({ key: 'stranger', attributes: { age: 30 } })
    t.ok(everywhere.includes(named('north')) && everywhere.includes(named('south')))
  })

  await t.test('many questions are answered in their order', async (t) => {
    const { may, adapter, people, give, settled } = await world()
    await people('anna', 'north')
    await give('anna', 'reader', 'north')
    await settled()
    const questions = [
      may('anna'),
      may('anna', 'write'),
      may('nobody'),
      { ...may('anna'), context: { of: 'another kind' } },
      may('anna', 'read', 'south'),
    ]

    t.same(
      (await adapter.checkMany(questions)).map(({ allowed }) => allowed),
      [true, false, false, true, false],
    )
    t.same(await adapter.checkMany([]), [])
    const many = Array.from({ length: 1201 }, (_, index) => may(index % 2 === 0 ? 'anna' : 'nobody'))
    const answers = await adapter.checkMany(many)
    t.equal(answers.length, many.length)
    t.ok(answers.every(({ allowed }, index) => allowed === (index % 2 === 0)))
  })

  await t.test('what a user may do is listed by account', async (t) => {
    const { named, adapter, people, give, settled } = await world()
    await people('anna', 'north')
    await give('anna', 'editor', 'north')
    await give('anna', 'reader', 'south')
    await settled()
    const listed = async (user: string, tenants?: string[]) =>
      (await adapter.userPermissions({ user: { key: named(user) }, tenants }))
        .map(({ on, permissions, roles }) => [
          on.kind === 'tenant' ? on.tenant.key : '',
          [...permissions],
          [...roles],
        ])
        .sort()

    t.same(await listed('anna'), [
      [named('north'), ['document:read', 'document:write'], ['editor']],
      [named('south'), ['document:read'], ['reader']],
    ])
    t.same(await listed('anna', [named('south')]), [[named('south'), ['document:read'], ['reader']]])
    t.same(await listed('nobody'), [])
  })

  await t.test('a role taken away is gone', async (t) => {
    const { may, allows, people, give, take } = await world()
    await people('anna', 'north')
    const assignment = await give('anna', 'editor', 'north')
    await give('anna', 'reader', 'north')
    t.equal(await allows(may('anna', 'write')), true)

    await take('anna', assignment)

    t.equal(await allows(may('anna', 'write')), false)
    t.equal(await allows(may('anna', 'read')), true)
  })

  await t.test('a role held in every account holds in each, also in one that is made later', async (t) => {
    const { may, allows, people, give, account } = await world()
    await people('anna', 'north')
    await give('anna', 'reader', null)
    t.equal(await allows(may('anna', 'read', 'north')), true)
    t.equal(await allows(may('anna', 'read', 'south')), true)

    await account('west')

    t.equal(await allows(may('anna', 'read', 'west')), true)
    t.equal(await allows(may('anna', 'write', 'west')), false)
  })

  await t.test('nobody may do anything while they are not active', async (t) => {
    const { may, named, allows, people, give, postern, idOf, adapter } = await world()
    await people('anna', 'north')
    await give('anna', 'reader', 'north')
    t.equal(await allows(may('anna')), true)

    await postern.services.users.setActive(SYSTEM, idOf('anna'), false)
    t.equal((await adapter.check(may('anna'))).allowed, false, 'at once')
    t.equal(await allows(may('anna')), false, 'and later')
    t.same(await adapter.userPermissions({ user: { key: named('anna') } }), [])

    await postern.services.users.setActive(SYSTEM, idOf('anna'), true)
    t.equal(await allows(may('anna')), true)

    await postern.services.users.deleteUser(SYSTEM, idOf('anna'), undefined)
    t.equal((await adapter.check(may('anna'))).allowed, false, 'deleted: at once')
    t.same(await adapter.checkAllTenants(may('anna')), [])
    t.same(await adapter.userPermissions({ user: { key: named('anna') } }), [])
    t.equal(await allows(may('anna')), false, 'and later')
  })

  await t.test('nothing is allowed in an account that is not active', async (t) => {
    const { may, allows, people, give, postern, accountOf, adapter } = await world()
    await people('anna', 'south')
    await give('anna', 'reader', 'north')
    t.equal(await allows(may('anna')), true)

    await postern.services.accounts.updateAccount(SYSTEM, accountOf('north'), { isActive: false }, undefined)
    t.equal((await adapter.check(may('anna'))).allowed, false, 'at once')
    t.equal(await allows(may('anna')), false, 'and later')

    await postern.services.accounts.updateAccount(SYSTEM, accountOf('north'), { isActive: true }, undefined)
    t.equal(await allows(may('anna')), true)
  })

  await t.test('a user who gets another key is the same person', async (t) => {
    const { may, named, allows, people, give, postern, idOf, adapter } = await world()
    await people('anna', 'north')
    await give('anna', 'reader', 'north')
    t.equal(await allows(may('anna')), true)

    await postern.services.users.updateUser(SYSTEM, idOf('anna'), { key: named('anne') }, undefined)

    t.equal((await adapter.check(may('anna'))).allowed, false, 'at once')
    t.equal(await allows(may('anne')), true)
    t.equal(await allows(may('anna')), false)
  })

  /** People and accounts of its own, under names that no other test has. */
  async function world() {
    const suffix = `-${++worlds}`
    const named = (name: string) => (/^[a-z]+$/.test(name) ? `${name}${suffix}` : name)
    const { postern, adapter, settled } = candidate
    const { services } = postern
    const accounts = new Map<string, string>()
    const ids = new Map<string, string>()
    const account = async (key: string) => {
      accounts.set(key, (await services.accounts.createAccount(SYSTEM, { name: key, key: named(key) })).id)
    }
    const accountOf = (key: string) => accounts.get(key) ?? ''
    const idOf = (key: string) => ids.get(key) ?? ''
    await account('north')
    await account('south')
    return {
      ...candidate,
      named,
      may: (user: string, action?: string, tenant = 'north') => may(named(user), action, named(tenant)),
      account,
      accountOf,
      idOf,
      people: async (key: string, home: string, fields: Pick<UserInput, 'firstName' | 'attributes'> = {}) => {
        const user = await services.users.createUser(SYSTEM, {
          ...fields,
          key: named(key),
          email: `${named(key)}@postern.test`,
          password: PASSWORD,
          accountId: accountOf(home),
        })
        ids.set(key, user.id)
      },
      give: async (user: string, role: string, accountKey: string | null, terms?: AssignmentTerms) => {
        const accountId = accountKey === null ? null : accountOf(accountKey)
        const roleId = await postern.roleId(role)
        return (await services.roles.assignFurther(SYSTEM, idOf(user), roleId, accountId, terms)).id
      },
      giveOn: async (user: string, role: string, instance: string) => {
        const [{ id: roleId = '' } = {}] = await services.database.db
          .select()
          .from(roles)
          .where(and(eq(roles.key, role), isNotNull(roles.resourceId)))
        return (await services.roles.assignFurther(SYSTEM, idOf(user), roleId, undefined, { instance })).id
      },
      take: async (user: string, assignment: string) =>
        await services.roles.removeAssignment(SYSTEM, idOf(user), assignment),
      /** The answer once everything is known. */
      allows: async (question: Question) => {
        await settled()
        return (await adapter.check(question)).allowed
      },
    }
  }
}

export const may = (user: string, action = 'read', tenant = 'north'): Question => ({
  user: { key: user },
  action: { name: action },
  resource: { type: 'document', tenant },
})
