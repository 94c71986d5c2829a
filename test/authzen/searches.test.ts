import fc from 'fast-check'
import t from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { isProblem, pointersOf } from '../helpers/hostile.ts'
import { action, applied, asking, certified, type Found, record, type Searched, user } from './certified.ts'

const number = (index: number): string => String(index).padStart(3, '0')

/** Twenty-five people who may read, as many who may not, and records half of which are open to everybody. */
async function aLibrary(t: Parameters<typeof buildTestApp>[0]) {
  const postern = await buildTestApp(t)
  const actions = Array.from({ length: 12 }, (_, index) => `act${number(index)}`)
  await applied(postern.root, {
    resources: { book: { actions: ['read', 'burn', ...actions], attributes: { open: 'bool' } } },
    roles: { reader: { permissions: ['book:read', ...actions.map((one) => `book:${one}`)] } },
    user_sets: { everybody: { conditions: {} } },
    resource_sets: { open: { resource: 'book', conditions: { 'resource.open': { equals: true } } } },
    rules: [{ user_set: 'everybody', permissions: ['book:burn'], resource_set: 'open' }],
    facts: {
      users: Object.fromEntries(
        Array.from({ length: 50 }, (_, index) => [
          `u${number(index)}`,
          index % 2 === 0 ? { roles: [{ role: 'reader', account: 'default' }] } : {},
        ]),
      ),
      instances: Array.from({ length: 40 }, (_, index) => ({
        resource: 'book',
        key: `b${number(index)}`,
        attributes: { open: index % 2 === 0 },
      })),
    },
  })
  return { ...postern, ...asking(postern.root) }
}

const book = (id: string) => ({ type: 'book', id })
const READERS = { subject: { type: 'user' }, action: action('read'), resource: book('b000') }
const BURNABLE = { subject: user('u001'), action: action('burn'), resource: { type: 'book' } }
const ACTIONS = { subject: user('u000'), resource: book('b001') }
const CASES: [Searched, Record<string, unknown>, number][] = [
  ['subject', READERS, 25],
  ['resource', BURNABLE, 20],
  ['action', ACTIONS, 13],
]

t.test('pages hold every result once, in one order, and the last has an empty token', async (t) => {
  const { search } = await aLibrary(t)

  for (const [searched, body, total] of CASES) {
    const whole = await search(searched, body)
    t.equal(whole.results.length, total, searched)
    t.same(whole.page, undefined, 'no page where none was asked for and none follows')
    for (const limit of [1, 3, total - 1, total, total + 1, 1000, 1e9]) {
      const pages: Found[] = []
      for (let token = ''; pages.length === 0 || token !== ''; ) {
        const page = await search(searched, { ...body, page: { limit, ...(token && { token }) } })
        pages.push(page)
        token = page.page?.next_token ?? ''
        t.ok(page.results.length <= limit, 'no page is larger than asked for')
        t.ok(page.page, 'every page says whether it is the last')
        if (pages.length > 100) break
      }
      t.same(
        pages.flatMap(({ results }) => results),
        whole.results,
        `${searched} by ${limit}`,
      )
      t.ok(pages.slice(0, -1).every(({ results }) => results.length > 0))
    }
  }
})

t.test('page comes first in the answer', async (t) => {
  const { root } = await aLibrary(t)

  for (const [searched, body] of CASES) {
    const response = await root.post(`/access/v1/search/${searched}`, { ...body, page: { limit: 1 } })
    t.ok(response.body.startsWith('{"page":{"next_token":"'), response.body.slice(0, 100))
  }
})

t.test('a search without a page says so when it has more than it gives', async (t) => {
  const { search, root } = await aLibrary(t)
  await applied(root, {
    resources: { book: { actions: ['read', 'burn'] } },
    roles: { reader: { permissions: ['book:read'] } },
    facts: {
      users: Object.fromEntries(
        Array.from({ length: 120 }, (_, index) => [
          `v${number(index)}`,
          { roles: [{ role: 'reader', account: 'default' }] },
        ]),
      ),
    },
  })

  const first = await search('subject', READERS)
  const second = await search('subject', { ...READERS, page: { token: first.page?.next_token } })

  t.equal(first.results.length, 100)
  t.equal(second.results.length, 45)
  t.same(second.page, { next_token: '' })
})

t.test('a token is good for its question and its limit only; the limit may be left out', async (t) => {
  const { root, search } = await aLibrary(t)

  for (const [searched, body] of CASES) {
    const first = await search(searched, { ...body, page: { limit: 5 } })
    const token = first.page?.next_token ?? ''
    const ask = async (changes: Record<string, unknown>, page: Record<string, unknown> = {}) =>
      await root.post(`/access/v1/search/${searched}`, { ...body, ...changes, page: { token, ...page } })

    const again = await ask({})
    t.equal(again.json<Found>().results.length, 5, 'the limit stays when it is left out')
    t.same((await ask({}, { limit: 5 })).json(), again.json())
    t.same((await ask({ foo: 'bar' }, { properties: { sort: 'id' }, foo: 1 })).json(), again.json())
    for (const [changes, page, pointer] of [
      [{}, { limit: 6 }, '/body/page/limit'],
      [{}, { limit: 0 }, '/body/page/limit'],
      [{ context: { a: 1 } }, {}, '/body/page/token'],
      [{ subject: { type: 'identity', id: 'u000' } }, {}, '/body/page/token'],
      [{ subject: { type: 'robot', id: 'u000' } }, {}, '/body/page/token'],
      [{ subject: { ...(body['subject'] as object), properties: { a: 1 } } }, {}, '/body/page/token'],
      [{ resource: { ...(body['resource'] as object), properties: { a: 1 } } }, {}, '/body/page/token'],
      [{}, { token: 'x' }, '/body/page/token'],
      [{}, { token: `x${token}` }, '/body/page/token'],
      [{}, { token: Buffer.from('[1,2]').toString('base64url') }, '/body/page/token'],
      [{}, { token: Buffer.from('["5","user","x"]').toString('base64url') }, '/body/page/token'],
      [{}, { token: Buffer.from('[5,"user","x"]').toString('base64url') }, '/body/page/token'],
    ] as const) {
      const response = await ask(changes, page)
      isProblem(t, response, 'invalid_request', `${searched} ${JSON.stringify([changes, page])}`)
      t.same(pointersOf(response), [pointer], `${searched} ${JSON.stringify([changes, page])}`)
    }
    for (const [other] of CASES.filter(([name]) => name !== searched)) {
      const { status } = (
        await root.post(`/access/v1/search/${other}`, {
          ...READERS,
          ...BURNABLE,
          resource: book('b001'),
          page: { token },
        })
      ).json<{ status: number }>()
      t.equal(status, 400, `a token of ${searched} is none of ${other}`)
    }
  }
})

t.test(
  'an empty token is the beginning, and a limit of nothing gives nothing and forgets nothing',
  async (t) => {
    const { search } = await aLibrary(t)

    for (const [searched, body, total] of CASES) {
      const whole = await search(searched, body)
      t.same((await search(searched, { ...body, page: { token: '' } })).results, whole.results)
      t.same(await search(searched, { ...body, page: {} }), {
        page: { next_token: '' },
        results: whole.results,
      })

      const none = await search(searched, { ...body, page: { limit: 0 } })
      t.same(none.results, [])
      t.not(none.page?.next_token, '', 'there is more')
      const still = await search(searched, { ...body, page: { token: none.page?.next_token } })
      t.same(still, none)
      t.ok(total > 0)
    }
  },
)

t.test('exactly what a search finds evaluates to true', async (t) => {
  const { evaluate, search, rootId } = await certified(t)
  const people = ['alice', 'bob']
  const records = ['record-1', 'record-2']
  const actions = ['delete', 'read', 'write']
  const role = fc.constantFrom<Record<string, unknown> | undefined>(
    undefined,
    {},
    { role: 'admin' },
    { role: 'none' },
  )
  const status = fc.constantFrom<Record<string, unknown> | undefined>(
    undefined,
    {},
    { status: 'archived' },
    { status: 'active' },
  )

  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...people),
      fc.constantFrom(...records),
      fc.constantFrom(...actions),
      role,
      status,
      async (who, what, name, ofSubject, ofResource) => {
        const decided = async (
          candidates: string[],
          ask: (candidate: string) => ReturnType<typeof evaluate>,
        ) => {
          const answers = await Promise.all(candidates.map(ask))
          return candidates.filter((_, place) => answers[place]?.decision)
        }

        const subjects = await search('subject', {
          subject: { type: 'user', ...(ofSubject && { properties: ofSubject }) },
          action: action(name),
          resource: record(what, ofResource),
        })
        const resources = await search('resource', {
          subject: user(who, ofSubject),
          action: action(name),
          resource: { type: 'record', ...(ofResource && { properties: ofResource }) },
        })
        const possible = await search('action', {
          subject: user(who, ofSubject),
          resource: record(what, ofResource),
        })

        const strangers = ofSubject?.['role'] === 'admin' ? [rootId] : []
        t.same(
          subjects.results.map(({ id }) => id).filter((id) => !strangers.includes(id ?? '')),
          await decided(people, (id) =>
            evaluate(user(id, ofSubject), action(name), record(what, ofResource)),
          ),
        )
        t.same(
          resources.results.map(({ id }) => id),
          await decided(records, (id) =>
            evaluate(user(who, ofSubject), action(name), record(id, ofResource)),
          ),
        )
        t.same(
          possible.results.map((one) => one['name']),
          await decided(actions, (one) =>
            evaluate(user(who, ofSubject), action(one), record(what, ofResource)),
          ),
        )
      },
    ),
    { numRuns: 40 },
  )
})
