import type { LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import type { Client } from './app.ts'
import { isProblem, NO_SUCH_ID, pointersOf } from './hostile.ts'

/** The address of the next page, if there is one. */
export const nextOf = (response: LightMyRequestResponse): string | undefined =>
  /^<([^>]+)>; rel="next"$/.exec(String(response.headers['link'] ?? ''))?.[1]

/** Every row of a list, page by page; `between` runs after each page. */
export async function walk<Row>(
  client: Client,
  url: string,
  between: (page: number) => Promise<unknown> = async () => {},
): Promise<Row[]> {
  const rows: Row[] = []
  for (let page = 1, next: string | undefined = url; next !== undefined; page++) {
    const response: LightMyRequestResponse = await client.get(next)
    if (response.statusCode !== 200) throw new Error(`${next}: ${response.statusCode} ${response.body}`)
    rows.push(...response.json<Row[]>())
    next = nextOf(response)
    await between(page)
  }
  return rows
}

type List = { client: Client; path: string; sorts: readonly string[] }

/** What holds of the paging of every list. */
export async function pagesLikeEveryList(t: Test, { client, path, sorts }: List): Promise<void> {
  await t.test('pages have bounds', async (t) => {
    for (const query of [
      'limit=0',
      'limit=1001',
      'limit=-1',
      'limit=1.5',
      'limit=ten',
      'limit=',
      'limit=1&limit=2',
      'skip=-1',
      'skip=1000001',
      'skip=9007199254740993',
      'total=yes',
      'total=1',
      'sort=password_hash',
      'sort=--created_at',
      'sort=',
      'sort=__proto__',
      'after=',
      `after=${'a'.repeat(2049)}`,
      'unknown=1',
      '__proto__=1',
      'constructor=1',
    ]) {
      const response = await client.get(`${path}?${query}`)

      isProblem(t, response, 'validation_failed', query)
      t.same(pointersOf(response), [`/query/${query.split('=')[0]}`], query)
    }
    t.equal((await client.get(`${path}?limit=1000&skip=1000000`)).body, '[]')
    t.equal((await client.get(`${path}/?limit=1`)).statusCode, 200, 'a slash at the end is no difference')
  })

  await t.test('pages follow each other in every order, by cursor and by skip', async (t) => {
    for (const sort of sorts.flatMap((name) => [name, `-${name}`])) {
      const all = (await client.get(`${path}?sort=${sort}&limit=1000`)).json<unknown[]>()

      const [byCursor, skipped] = [
        await walk(client, `${path}?sort=${sort}&limit=2`),
        (await client.get(`${path}?sort=${sort}&skip=2&limit=2`)).json(),
      ]

      t.ok(all.length > 4, 'there is something to page through')
      t.same(byCursor, all, sort)
      t.same(skipped, all.slice(2, 4), `${sort}, skipped`)
      const opposite = sort.startsWith('-') ? sort.slice(1) : `-${sort}`
      t.same(
        (await client.get(`${path}?sort=${opposite}&limit=1000`)).json(),
        all.toReversed(),
        `${sort}, reversed`,
      )
    }
  })

  await t.test('rows are counted on request, whatever the page', async (t) => {
    const all = (await client.get(`${path}?limit=1000`)).json<unknown[]>()

    const [counted, uncounted] = [
      await client.get(`${path}?limit=1&total=true`),
      await client.get(`${path}?limit=1`),
    ]

    t.equal(counted.headers['x-total-count'], String(all.length))
    t.equal(uncounted.headers['x-total-count'], undefined)
  })

  await t.test('the last page names no next one', async (t) => {
    const all = (await client.get(`${path}?limit=1000`)).json<unknown[]>()

    t.equal(nextOf(await client.get(`${path}?limit=${all.length}`)), undefined)
    t.not(nextOf(await client.get(`${path}?limit=${all.length - 1}`)), undefined)
  })

  await t.test('a cursor goes with its own list and order, and without skip', async (t) => {
    const next = nextOf(await client.get(`${path}?limit=1`)) ?? ''
    const cursor = new URL(next, 'http://x').searchParams.get('after') ?? ''
    const [sort = '', value] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as string[]
    const forged = (parts: unknown) => Buffer.from(JSON.stringify(parts)).toString('base64url')

    const skipped = await client.get(`${path}?limit=1&skip=1&after=${cursor}`)

    isProblem(t, skipped, 'validation_failed')
    t.same(pointersOf(skipped), ['/query/skip'])
    for (const foreign of [
      'x',
      '%00',
      '%F0%9F%94%A5',
      'bnVsbA',
      forged([]),
      forged({}),
      forged(null),
      forged([sort, value]),
      forged([sort, value, 'x']),
      forged([sort, value, null]),
      forged([sort, 5, NO_SUCH_ID]),
      forged([sort, 'a\0', NO_SUCH_ID]),
      forged([sort, value, `${NO_SUCH_ID}'`]),
      forged(['another', value, NO_SUCH_ID]),
      forged([sort.startsWith('-') ? sort.slice(1) : `-${sort}`, value, NO_SUCH_ID]),
    ]) {
      const response = await client.get(`${path}?after=${foreign}`)
      isProblem(t, response, 'validation_failed', Buffer.from(foreign, 'base64url').toString())
      t.same(pointersOf(response), ['/query/after'])
    }
    for (const timed of sorts.filter((name) => name === 'updated_at')) {
      for (const time of [
        '1',
        'x',
        '',
        'infinity',
        '0000-01-01T00:00:00.000Z',
        '+010000-01-01T00:00:00.000Z',
        '2020-02-30',
      ]) {
        const response = await client.get(`${path}?sort=${timed}&after=${forged([timed, time, NO_SUCH_ID])}`)
        isProblem(t, response, 'validation_failed', time)
      }
    }
  })
}
