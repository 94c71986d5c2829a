import fc from 'fast-check'
import type { FastifyRequest } from 'fastify'
import t from 'tap'
import { ifMatchOf } from '../../src/http/etag.ts'
import { assertMatches } from '../../src/revisions.ts'
import { buildTestApp } from '../helpers/app.ts'

/** Only the headers are read of a request. */
const requestWith = (header: string | undefined): FastifyRequest =>
  ({ headers: header === undefined ? {} : { 'if-match': header } }) as FastifyRequest

function matches(header: string | undefined, revision: number): boolean {
  try {
    assertMatches(ifMatchOf(requestWith(header)), revision)
    return true
  } catch {
    return false
  }
}

const revision = fc.integer({ min: 1, max: 1_000_000 })
const space = fc.constantFrom('', ' ', '\t', '  ')
const foreignTag = fc.oneof(
  fc.constantFrom(
    'W/"1"',
    'w/"2"',
    '"abc"',
    '""',
    '"1x"',
    '"0x1"',
    '"-1"',
    '"1.0"',
    '1',
    "'1'",
    '"',
    '"01"',
    '"٣"',
  ),
  revision.map((number) => `W/"${number}"`),
  fc.stringMatching(/^"[a-z]{1,9}"$/),
)

t.test('a list matches exactly the revisions that it names as strong tags', async () => {
  const tag = fc.oneof(
    revision.map((number) => ({ text: `"${number}"`, number: number as number | undefined })),
    foreignTag.map((text) => ({ text, number: undefined })),
  )

  fc.assert(
    fc.property(fc.array(tag, { minLength: 1, maxLength: 6 }), revision, space, (tags, current, gap) => {
      const header = tags.map(({ text }) => text).join(`${gap},${gap}`)
      const named = tags.map(({ number }) => number)

      return [current, ...named].every(
        (number) => number === undefined || matches(header, number) === named.includes(number),
      )
    }),
  )
})

t.test('without a header, or with a star, every revision matches', async () => {
  fc.assert(fc.property(revision, (current) => matches(undefined, current) && matches(' * ', current)))
})

t.test('no text but a strong tag of the revision matches it', async () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), foreignTag), revision, (header, current) => {
      fc.pre(header.trim() !== '*' && !header.includes(`"${current}"`))

      return !matches(header, current)
    }),
    { numRuns: 1000 },
  )
})

t.test('of an update with the tag that was read, the first is done and the second refused', async (t) => {
  const app = await buildTestApp(t)
  const person = await app.person('GUEST')
  const account = await app.account('Acme')
  await app.root.post('/api/v1/roles', { name: 'writer', scopes: [] })
  const records = {
    [`/api/v1/users/${person.id}`]: { full_name: 'New Name' },
    [`/api/v1/accounts/${account}`]: { description: 'New' },
    [`/api/v1/roles/${await app.roleId('writer')}`]: { description: 'New' },
  }

  for (const [url, change] of Object.entries(records)) {
    for (const update of [app.root.put, app.root.patch]) {
      const { etag } = (await app.root.get(url)).headers
      const headers = { 'if-match': String(etag) }

      const first = await update(url, change, headers)
      const second = await update(url, change, headers)
      const weak = await update(url, change, { 'if-match': `W/${first.headers.etag}` })
      const star = await update(url, change, { 'if-match': '*' })

      t.equal(first.statusCode, 200, url)
      t.not(first.headers.etag, etag)
      t.equal(second.statusCode, 412)
      t.match(second.json(), { type: '/problems/precondition_failed' })
      t.equal(weak.statusCode, 412)
      t.equal(star.statusCode, 200)
    }
  }
})

t.test('a delete with an old tag deletes nothing', async (t) => {
  const app = await buildTestApp(t)
  const account = await app.account('Acme')
  const url = `/api/v1/accounts/${account}`

  const stale = await app.root.delete(url, { 'if-match': '"99"' })
  const still = await app.root.get(url)
  const done = await app.root.delete(url, { 'if-match': String(still.headers.etag) })

  t.equal(stale.statusCode, 412)
  t.equal(still.statusCode, 200)
  t.equal(done.statusCode, 204)
})
