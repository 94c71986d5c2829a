import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import {
  createUrlMapping,
  instructionsOf,
  LONGEST_URL,
  type MappingRule,
  MOST_INSTRUCTIONS,
} from '../../src/policy/url-mapping.ts'

const rule = (url: string, more: Partial<MappingRule> = {}): MappingRule => ({
  url,
  urlType: 'template',
  httpMethod: 'get',
  resource: 'document',
  action: 'read',
  priority: 0,
  ...more,
})
const HOST = 'https://api.test'
const find = (rules: MappingRule[], url: string, method = 'GET') => createUrlMapping(rules).find(url, method)

t.test('a template fits segment by segment, and names what stands in its places', async (t) => {
  const rules = [rule(`${HOST}/folders/{folder}/documents/{id}?version={v}&kind=full`)]
  const url = `${HOST}/folders/a%2Fb/documents/7?kind=full&version=2%203&more=x`
  t.same(find(rules, url), {
    resource: 'document',
    action: 'read',
    attributes: { folder: 'a%2Fb', id: '7', v: '2 3' },
  })
  for (const other of [
    `${HOST}/folders/a/documents/7`,
    `${HOST}/folders/a/documents/7?kind=full`,
    `${HOST}/folders/a/documents/7?kind=short&version=1`,
    `${HOST}/folders/a/documents/7/8?kind=full&version=1`,
    `${HOST}/folders/a/documents/?kind=full&version=1`,
    `${HOST}/folders//documents/7?kind=full&version=1`,
    `http://api.test/folders/a/documents/7?kind=full&version=1`,
    `https://other.test/folders/a/documents/7?kind=full&version=1`,
  ])
    t.equal(find(rules, other), undefined, other)
  t.equal(find(rules, url, 'POST'), undefined)
})

t.test('what a server may read otherwise fits no rule', async (t) => {
  const rules = [rule(`${HOST}/{a}/{b}`), rule(`${HOST}/`, { urlType: 'regex' }), rule(`${HOST}/x?a=1`)]
  for (const url of [
    `${HOST}/a/..`,
    `${HOST}/a/.`,
    `${HOST}/a/%2e%2E`,
    `${HOST}/a/..;x=1`,
    `${HOST}/a/b%2f..%2fadmin`,
    `${HOST}/a/b\\..\\admin`,
    `${HOST}/a/${'b'.repeat(LONGEST_URL)}`,
  ])
    t.equal(find(rules, url), undefined, url)
  t.ok(find(rules, `${HOST}/a/..b`))
  const [, , literal] = rules
  t.ok(literal && find([literal], `${HOST}/x?a=1`))
  t.equal(literal && find([literal], `${HOST}/x?a=1&a=2`), undefined, 'a parameter twice')
})

t.test('an expression is anchored at its start, and its named groups are what it says', async (t) => {
  const rules = [rule(`${HOST}/d/(?P<id>[0-9]+)(?:/(?P<part>[a-z]+))?`, { urlType: 'regex' })]
  t.same(find(rules, `${HOST}/d/12/body?x`)?.attributes, { id: '12', part: 'body' })
  t.same(find(rules, `${HOST}/d/12`)?.attributes, { id: '12' })
  t.equal(find(rules, `see ${HOST}/d/12`), undefined)
  t.equal(find([rule('(?<broken', { urlType: 'regex' })], HOST), undefined)
})

t.test('no expression makes a match slow', async (t) => {
  const text = 'a'.repeat(LONGEST_URL - 1)
  for (const expression of ['(a+)+$', '(a|a)*b', '(a|aa)+$', '(.*a){12}b', '([a-z]+)*!']) {
    t.ok((instructionsOf(expression) ?? Number.POSITIVE_INFINITY) < 1000, expression)
    // Backtracking would not end within the time of the test.
    t.equal(find([rule(expression, { urlType: 'regex' })], `${text}?`), undefined, expression)
  }
  t.ok((instructionsOf('((a{30}){30}){30}') ?? 0) > MOST_INSTRUCTIONS, 'known without compiling it')
  for (const expression of ['(?=a)b', '(a)\\1', '(', '(?<=x)y'])
    t.equal(instructionsOf(expression), undefined)
})

t.test(
  'the highest priority goes first, and the first of equals; the method is the action by default',
  async (t) => {
    const rules = [
      rule(`${HOST}/{a}`, { resource: 'first', action: null }),
      rule(`${HOST}/{b}`, { resource: 'second' }),
      rule(`${HOST}/{c}`, { resource: 'high', priority: 2, httpMethod: 'PUT' }),
      rule(`${HOST}/{d}`, { resource: 'low', httpMethod: 'put' }),
    ]
    t.same(find(rules, `${HOST}/x`), { resource: 'first', action: 'get', attributes: { a: 'x' } })
    t.match(find(rules, `${HOST}/x`, 'Put'), { resource: 'high', action: 'read' })
    t.same(
      createUrlMapping(rules)
        .rulesFor('PUT')
        .map(({ resource }) => resource),
      ['high', 'low'],
    )
  },
)

t.test('names in braces are never more than data', async (t) => {
  const found = find([rule(`${HOST}/{__proto__}/{constructor}`)], `${HOST}/x/y`)
  t.equal(Object.getPrototypeOf(found?.attributes ?? null), Object.prototype)
  t.same(Object.keys(found?.attributes ?? {}), ['__proto__', 'constructor'])
})

/** The same, slowly: by trying every rule in order, and comparing texts. */
function naively(rules: readonly MappingRule[], url: string, method: string) {
  const ordered = rules
    .map((one, place) => ({ one, place }))
    .sort((a, b) => b.one.priority - a.one.priority || a.place - b.place)
  for (const { one } of ordered) {
    if (one.httpMethod !== method) continue
    const [path = '', query = ''] = one.url.split('?')
    const [ownPath = '', ownQuery = ''] = url.split('?')
    const attributes: Record<string, string> = {}
    const same = (wanted: string, given: string | undefined): boolean => {
      if (given === undefined) return false
      if (!wanted.startsWith('{')) return wanted === given
      attributes[wanted.slice(1, -1)] = given
      return true
    }
    const own = ownPath.split('/')
    const parts = path.split('/')
    if (parts.length !== own.length) continue
    if (!parts.every((part, at) => (part.startsWith('{') ? own[at] !== '' : true) && same(part, own[at])))
      continue
    const pairs = ownQuery.split('&').map((pair) => pair.split('='))
    const wanted = query === '' ? [] : query.split('&').map((pair) => pair.split('='))
    const fits = wanted.every(([name, value = '']) => {
      const given = pairs.filter(([other]) => other === name)
      return given.length === 1 && same(value, given[0]?.[1] ?? '')
    })
    if (fits) return { resource: one.resource, action: one.action ?? method, attributes }
  }
  return undefined
}

t.test('finds what trying every rule finds', async () => {
  const word = fc.constantFrom('a', 'b', 'c')
  const path = (segment: fc.Arbitrary<string>) =>
    fc.array(segment, { minLength: 1, maxLength: 3 }).map((all) => `${HOST}/${all.join('/')}`)
  const query = (value: fc.Arbitrary<string>) =>
    fc
      .array(fc.tuple(word, value), { maxLength: 2 })
      .map((pairs) => (pairs.length === 0 ? '' : `?${pairs.map(([n, v]) => `${n}=${v}`).join('&')}`))
  const place = fc.oneof(word, fc.constantFrom('{x}', '{y}'))
  const method = fc.constantFrom('get', 'put')
  const anyRule = fc
    .record({
      path: path(place),
      query: query(place),
      httpMethod: method,
      resource: fc.constantFrom('r', 's', 't'),
      action: fc.constantFrom(null, 'read'),
      priority: fc.integer({ min: -1, max: 1 }),
    })
    .map(({ path, query, ...rest }): MappingRule => ({ ...rest, url: path + query, urlType: 'template' }))
  const url = fc.tuple(path(fc.oneof(word, fc.constant(''))), query(word)).map(([p, q]) => p + q)
  fc.assert(
    fc.property(fc.array(anyRule, { maxLength: 8 }), url, method, (rules, asked, by) => {
      assert.deepEqual(createUrlMapping(rules).find(asked, by), naively(rules, asked, by))
    }),
    { numRuns: 2000 },
  )
})
