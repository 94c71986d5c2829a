import t from 'tap'
import { combined } from '../../src/db/combined.ts'

type Call = { key: string; name: string }

/** Statements that end when the test says so, and what has been asked of them. */
function build({ most = 10 } = {}) {
  const asked: string[] = []
  const open = new Map<
    string,
    { answer: (found: Map<string, string>) => void; fail: (error: Error) => void }
  >()
  const single = new Map<string, { answer: (found: string) => void; fail: (error: Error) => void }>()
  const ask = combined<Call, string>({
    keyOf: ({ key }) => key,
    many: async (calls) => {
      const names = calls.map(({ name }) => name).join(' ')
      asked.push(names)
      return await new Promise((answer, fail) => open.set(names, { answer, fail }))
    },
    one: async ({ name }) => {
      asked.push(`one ${name}`)
      return await new Promise((answer, fail) => single.set(name, { answer, fail }))
    },
    most,
  })
  /** `a1` is about `a`. */
  const call = async (name: string) => await ask({ key: name.slice(0, 1), name })
  /** Answers are given a turn of the event loop after their statement has ended. */
  const turn = async () => {
    for (let turns = 0; turns < 2; turns++) await new Promise((resolve) => setImmediate(resolve))
  }
  /** Ends a statement with an answer to each of its calls, or without one for those of `left`. */
  async function answer(names: string, left = ''): Promise<void> {
    const answered = names.split(' ').filter((name) => !left.split(' ').includes(name))
    open.get(names)?.answer(new Map(answered.map((name) => [name.slice(0, 1), `${name} done`])))
    await turn()
  }
  return {
    asked,
    call,
    answer,
    fail: async (names: string, error: Error) => {
      open.get(names)?.fail(error)
      await turn()
    },
    one: async (name: string, outcome: string | Error) => {
      const { answer, fail } = single.get(name) ?? {}
      if (outcome instanceof Error) fail?.(outcome)
      else answer?.(outcome)
      await turn()
    },
  }
}

const away = () => Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
const outcomeOf = async (call: Promise<string | undefined>): Promise<string | undefined> =>
  await call.catch((error: Error) => `refused: ${error.message}`)

t.test('who comes alone goes at once, those who come meanwhile go together', async (t) => {
  const { asked, call, answer } = build()
  const calls = Promise.all(['a1', 'b1', 'c1'].map(call))
  t.same(asked, ['a1'])
  await answer('a1')
  await answer('b1 c1')

  t.same(await calls, ['a1 done', 'b1 done', 'c1 done'])
  t.same(asked, ['a1', 'b1 c1'])
})

t.test('the next statement is under way before those of the last are answered', async (t) => {
  const { asked, call, answer } = build()
  const calls = ['a1', 'b1', 'a2'].map(async (name) => asked.push(`${await call(name)}, answered`))
  await answer('a1')
  await answer('b1 a2')

  await Promise.all(calls)
  t.same(asked, ['a1', 'b1 a2', 'a1 done, answered', 'b1 done, answered', 'a2 done, answered'])
})

t.test('calls about the same thing come one after the other, and let others in between', async (t) => {
  const { asked, call, answer } = build({ most: 1 })
  const calls = Promise.all(['a1', 'a2', 'a3', 'b1'].map(call))
  for (const name of ['a1', 'a2', 'b1', 'a3']) await answer(name)

  await calls
  t.same(asked, ['a1', 'a2', 'b1', 'a3'])
})

t.test('many calls about one thing hold up nobody else', async (t) => {
  const { asked, call, answer } = build({ most: 2 })
  const calls = Promise.all(['a1', 'a2', 'a3', 'a4', 'b1', 'c1'].map(call))
  for (const names of ['a1', 'a2 b1', 'c1 a3', 'a4']) await answer(names)

  await calls
  t.same(asked, ['a1', 'a2 b1', 'c1 a3', 'a4'])
})

t.test('what a statement does not answer, or fails at, is asked for alone', async (t) => {
  const { asked, call, answer, fail, one } = build()
  const [a1, b1, c1, b2] = ['a1', 'b1', 'c1', 'b2'].map((name) => outcomeOf(call(name)))
  await answer('a1', 'a1')
  await fail('b1 c1', new Error('one of them breaks a rule'))
  t.same(asked, ['a1', 'b1 c1', 'one a1', 'one b1', 'one c1'])

  await one('a1', 'a1 alone')
  await one('b1', new Error('it was b1'))
  await one('c1', 'c1 alone')
  await answer('b2')
  t.same(await Promise.all([a1, b1, c1, b2]), ['a1 alone', 'refused: it was b1', 'c1 alone', 'b2 done'])
})

t.test('without a database all who wait are refused, but not what is under way alone', async (t) => {
  const { asked, call, answer, fail, one } = build()
  const [a1, b1, a2, c1] = ['a1', 'b1', 'a2', 'c1'].map((name) => outcomeOf(call(name)))
  await answer('a1', 'a1')
  t.same(asked, ['a1', 'b1 c1', 'one a1'])
  await fail('b1 c1', away())
  for (const refused of [b1, a2, c1]) t.equal(await refused, 'refused: connect ECONNREFUSED')

  const a3 = outcomeOf(call('a3'))
  const b2 = outcomeOf(call('b2'))
  t.same(asked, ['a1', 'b1 c1', 'one a1', 'b2'], 'a3 waits for a1, which is still asked for')
  await one('a1', 'a1 alone')
  await answer('b2')
  await answer('a3')
  t.same(await Promise.all([a1, a3, b2]), ['a1 alone', 'a3 done', 'b2 done'])
})
