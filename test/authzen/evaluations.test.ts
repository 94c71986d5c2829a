import fc from 'fast-check'
import t from 'tap'
import { isProblem, pointersOf } from '../helpers/hostile.ts'
import { type Answer, action, certified, EVALUATIONS, record, user } from './certified.ts'

const GOOD = { subject: user('alice'), action: action('read'), resource: record('record-1') }
const YES = {}
const NO = { action: action('fly') }
const BROKEN = { resource: 5 }
const decisions = (answers: Answer[]) => answers.map(({ decision }) => decision)

t.test('what a question says of an entity replaces the default as a whole', async (t) => {
  const { evaluateAll } = await certified(t)
  const write = {
    subject: user('alice'),
    action: action('write'),
    resource: record('record-1', { status: 'archived' }),
  }

  const answers = await evaluateAll({
    ...write,
    evaluations: [
      {},
      { resource: record('record-1') },
      { resource: record('record-1', {}) },
      { resource: record('record-1', { other: 1 }) },
      { subject: user('bob', { role: 'admin' }) },
      { action: action('delete', { soft: true }), resource: record('record-1') },
      { action: action('delete') },
    ],
  })

  t.same(decisions(answers), [false, true, true, true, true, true, false])
})

t.test('a missing type, id or name is that of the default, and nothing else is', async (t) => {
  const { evaluateAll } = await certified(t)

  t.same(
    decisions(
      await evaluateAll({
        subject: { type: 'user' },
        action: { name: 'write', properties: { soft: true } },
        resource: record('record-1', { status: 'archived' }),
        evaluations: [
          { subject: { id: 'alice' }, resource: {} },
          { subject: { id: 'alice' }, resource: { id: 'record-2' } },
          { subject: { id: 'alice' }, action: { properties: {} }, resource: { type: 'record' } },
          { subject: { id: 'alice' }, action: { name: 'delete' }, resource: {} },
          { resource: {} },
        ],
      }),
    ),
    [true, false, true, false, false],
  )
})

t.test('the three semantics end the list where they should', async (t) => {
  const { evaluateAll } = await certified(t)
  const run = async (evaluations: unknown[], semantic?: string) =>
    decisions(
      await evaluateAll({
        ...GOOD,
        evaluations,
        ...(semantic && { options: { evaluations_semantic: semantic, another_option: 'value' } }),
      }),
    )
  const mixed = [YES, NO, YES, BROKEN, NO]

  t.same(await run(mixed), [true, false, true, false, false])
  t.same(await run(mixed, 'execute_all'), [true, false, true, false, false])
  t.same(await run(mixed, 'deny_on_first_deny'), [true, false])
  t.same(await run(mixed, 'permit_on_first_permit'), [true])
  t.same(await run([NO, BROKEN, NO, YES, NO], 'permit_on_first_permit'), [false, false, false, true])
  t.same(await run([YES, BROKEN, NO], 'deny_on_first_deny'), [true, false], 'what is broken is a refusal')
  t.same(await run([YES, YES], 'deny_on_first_deny'), [true, true])
  t.same(await run([NO, NO], 'permit_on_first_permit'), [false, false])
  const long = [...Array.from({ length: 99 }, () => YES), NO, YES]
  t.equal((await run(long, 'deny_on_first_deny')).length, 100, 'past what is decided at once')
})

t.test('a semantic that is none is 400, and so are options that are none', async (t) => {
  const { root } = await certified(t)

  for (const [options, pointer] of [
    [{ evaluations_semantic: 'execute_some' }, '/body/options/evaluations_semantic'],
    [{ evaluations_semantic: 'EXECUTE_ALL' }, '/body/options/evaluations_semantic'],
    [{ evaluations_semantic: null }, '/body/options/evaluations_semantic'],
    [{ evaluations_semantic: ['execute_all'] }, '/body/options/evaluations_semantic'],
    [null, '/body/options'],
    ['execute_all', '/body/options'],
  ] as const)
    for (const evaluations of [[YES], []]) {
      const response = await root.post(EVALUATIONS, { ...GOOD, options, evaluations })
      isProblem(t, response, 'invalid_request', JSON.stringify(options))
      t.ok(pointersOf(response).includes(pointer), String(pointersOf(response)))
    }
})

t.test('a question that cannot be completed is refused in its place, and the fault is named', async (t) => {
  const { evaluateAll } = await certified(t)
  const faults: [Record<string, unknown>, string][] = [
    [{}, 'subject is required'],
    [{ subject: user('alice') }, 'action is required'],
    [{ subject: user('alice'), action: action('read') }, 'resource is required'],
    ...[null, true, 5, 'alice', ['alice']].map((subject): [Record<string, unknown>, string] => [
      { ...GOOD, subject },
      'subject must be an object',
    ]),
    [{ ...GOOD, subject: { id: 'alice' } }, 'subject.type is required'],
    [{ ...GOOD, resource: { type: 'record' } }, 'resource.id is required'],
    [{ ...GOOD, action: {} }, 'action.name is required'],
    ...[null, 5, '', {}].map((name): [Record<string, unknown>, string] => [
      { ...GOOD, action: { name } },
      'action.name must be a string that is not empty',
    ]),
    ...[null, 5, 'x', []].map((properties): [Record<string, unknown>, string] => [
      { ...GOOD, resource: { ...GOOD.resource, properties } },
      'resource.properties must be an object',
    ]),
    ...[null, 5, 'x', []].map((context): [Record<string, unknown>, string] => [
      { ...GOOD, context },
      'context must be an object',
    ]),
    [{ ...GOOD, resource: record('record-1', { tenant: 5 }) }, 'resource.properties.tenant must be a string'],
    [{ ...GOOD, context: { tenant: {} } }, 'context.tenant must be a string'],
  ]

  const answers = await evaluateAll({ evaluations: [...faults.map(([item]) => item), GOOD] })

  for (const [place, [item, message]] of faults.entries())
    t.same(
      answers[place],
      { decision: false, context: { error: { status: 400, message } } },
      JSON.stringify(item),
    )
  t.same(answers.at(-1), { decision: true }, 'and the others are answered')
})

t.test('a fault of the whole is 400', async (t) => {
  const { root } = await certified(t)

  for (const [body, pointer] of [
    [{}, '/body/subject'],
    [{ evaluations: [] }, '/body/subject'],
    [{ ...GOOD, evaluations: null }, '/body/evaluations'],
    [{ ...GOOD, evaluations: {} }, '/body/evaluations'],
    [{ ...GOOD, evaluations: 'x' }, '/body/evaluations'],
    [{ ...GOOD, evaluations: [null] }, '/body/evaluations/0'],
    [{ ...GOOD, evaluations: [{}, []] }, '/body/evaluations/1'],
    [{ ...GOOD, evaluations: ['x'] }, '/body/evaluations/0'],
    [{ ...GOOD, subject: 'alice', evaluations: [GOOD] }, '/body/subject'],
    [{ ...GOOD, action: { name: 5 }, evaluations: [GOOD] }, '/body/action/name'],
    [{ ...GOOD, context: [], evaluations: [GOOD] }, '/body/context'],
  ] as const) {
    const response = await root.post(EVALUATIONS, body)
    isProblem(t, response, 'invalid_request', JSON.stringify(body))
    t.ok(pointersOf(response).includes(pointer), `${JSON.stringify(body)} ${pointersOf(response)}`)
  }
})

t.test('a list has at most a thousand questions', async (t) => {
  const { root, evaluateAll } = await certified(t)
  const questions = (length: number) =>
    Array.from({ length }, (_, index) => ({ resource: record(`r${index}`) }))

  const most = await evaluateAll({ ...GOOD, evaluations: questions(1000) })
  const more = await root.post(EVALUATIONS, { ...GOOD, evaluations: questions(1001) })

  t.equal(most.length, 1000)
  t.ok(most.every(({ decision }) => decision))
  isProblem(t, more, 'invalid_request')
  t.match(more.json(), {
    errors: [{ pointer: '/body/evaluations', detail: 'must NOT have more than 1000 items' }],
  })
})

t.test(
  'the answers of a list are those of its questions one by one, cut where the semantic says',
  async (t) => {
    const { evaluate, evaluateAll } = await certified(t)
    const properties = (name: string, ...values: unknown[]) =>
      fc.option(fc.dictionary(fc.constant(name), fc.constantFrom(...values)), { nil: undefined })
    const entity = (
      type: fc.Arbitrary<string>,
      id: fc.Arbitrary<string>,
      attributes: fc.Arbitrary<unknown>,
    ) =>
      fc
        .record({ type, id, properties: attributes }, { requiredKeys: ['type', 'id'] })
        .map((one) => JSON.parse(JSON.stringify(one)) as Record<string, unknown>)
    const subject = entity(
      fc.constantFrom('user', 'identity', 'robot'),
      fc.constantFrom('alice', 'bob', 'nobody'),
      properties('role', 'admin', 'none'),
    )
    const resource = entity(
      fc.constantFrom('record', 'record', 'spaceship'),
      fc.constantFrom('record-1', 'record-2', 'nothing'),
      properties('status', 'active', 'archived'),
    )
    const act = fc
      .record({
        name: fc.constantFrom('read', 'write', 'delete', 'fly'),
        properties: properties('soft', true, false),
      })
      .map((one) => JSON.parse(JSON.stringify(one)) as Record<string, unknown>)
    const question = fc.record({ subject, action: act, resource })
    const semantic = fc.constantFrom('execute_all', 'deny_on_first_deny', 'permit_on_first_permit')

    await fc.assert(
      fc.asyncProperty(
        fc.array(question, { minLength: 1, maxLength: 40 }),
        question,
        fc.infiniteStream(fc.boolean()),
        semantic,
        async (questions, defaults, stated, evaluations_semantic) => {
          const items = questions.map((one) =>
            Object.fromEntries(Object.entries(one).filter(() => stated.next().value)),
          )
          const alone: boolean[] = []
          for (const item of items) {
            const { subject, action, resource } = { ...defaults, ...item }
            alone.push((await evaluate(subject, action, resource)).decision)
          }
          const last = alone.indexOf(evaluations_semantic === 'permit_on_first_permit')
          const end = evaluations_semantic === 'execute_all' || last === -1 ? alone.length : last + 1

          const together = await evaluateAll({
            ...defaults,
            evaluations: items,
            options: { evaluations_semantic },
          })

          t.strictSame(
            together,
            alone.slice(0, end).map((decision) => ({ decision })),
          )
        },
      ),
      { numRuns: 40 },
    )
  },
)
