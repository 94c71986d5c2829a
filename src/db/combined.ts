import { isUnavailable } from './errors.ts'

type Options<Call, Answer> = {
  /** What a call is about. Two about the same thing come one after the other. */
  keyOf: (call: Call) => string
  /** One statement for all of these. What it does not answer, by key, is left to `one`. */
  many: (calls: readonly Call[]) => Promise<ReadonlyMap<string, Answer>>
  one: (call: Call) => Promise<Answer | undefined>
  /** How many calls a statement takes. */
  most: number
}

type Waiting<Call, Answer> = {
  key: string
  call: Call
  resolve: (answer: Answer | undefined) => void
  reject: (error: unknown) => void
}

/**
 * Has calls that come while others are under way wait for those, and then go together: a statement and a commit for
 * many cost little more than for one, so that the more there is to do, the less each costs. A call that comes alone
 * goes at once. One statement at a time: two had half as many in each, and a fifth fewer answers on one core. `many`
 * must be all or nothing, and must not wait for locks, or one call would hold up others.
 */
export function combined<Call, Answer>(options: Options<Call, Answer>) {
  const { keyOf, many, one, most } = options
  // Made anew for each statement. A Map that lives on is copied again and again as keys come and go, and until the next
  // full collection the old copies keep all that waited in them.
  let waiting: Waiting<Call, Answer>[] = []
  /** Keys of the calls that are under way alone. */
  const alone = new Set<string>()
  let isRunning = false

  /** One call for each key, whoever came first in front. */
  function take(): Map<string, Waiting<Call, Answer>> {
    const taken = new Map<string, Waiting<Call, Answer>>()
    const left: Waiting<Call, Answer>[] = []
    const behind: Waiting<Call, Answer>[] = []
    for (const each of waiting) {
      if (taken.has(each.key)) behind.push(each)
      else if (taken.size === most || alone.has(each.key)) left.push(each)
      else taken.set(each.key, each)
    }
    waiting = left.concat(behind)
    return taken
  }

  function begin(): void {
    if (isRunning) return
    const taken = take()
    if (taken.size === 0) return
    isRunning = true
    void answer(taken)
  }

  async function answer(taken: ReadonlyMap<string, Waiting<Call, Answer>>): Promise<void> {
    const answers = await many([...taken.values()].map(({ call }) => call)).catch((error: unknown) => {
      if (!isUnavailable(error)) return new Map<string, Answer>()
      refuse(taken, error)
      return undefined
    })
    isRunning = false
    if (answers) for (const key of taken.keys()) if (!answers.has(key)) alone.add(key)
    begin()
    // After the next statement has been sent: Postgres works on it while these are answered, a twelfth more of them.
    if (answers) setImmediate(() => deliver(taken, answers))
  }

  function deliver(
    taken: ReadonlyMap<string, Waiting<Call, Answer>>,
    answers: ReadonlyMap<string, Answer>,
  ): void {
    for (const [key, { call, resolve, reject }] of taken) {
      const found = answers.get(key)
      if (found !== undefined) resolve(found)
      else
        void one(call)
          .then(resolve, reject)
          .finally(() => {
            alone.delete(key)
            begin()
          })
    }
  }

  /** Without a database those who wait need not find out one after the other. */
  function refuse(taken: ReadonlyMap<string, Waiting<Call, Answer>>, error: unknown): void {
    const all = [...taken.values(), ...waiting]
    waiting = []
    for (const { reject } of all) reject(error)
  }

  return async (call: Call): Promise<Answer | undefined> =>
    await new Promise((resolve, reject) => {
      waiting.push({ key: keyOf(call), call, resolve, reject })
      begin()
    })
}
