import { isObject } from './compact.ts'
import { PosternError } from './errors.ts'
import { within } from './within.ts'

/** Who wants to do what to which: as Permit's SDKs ask it. */
export type Question = {
  /** Key of the user, or the user with attributes. */
  user: string | { key: string; attributes?: Record<string, unknown> }
  action: string
  resource: string | { type: string; key?: string; tenant?: string; attributes?: Record<string, unknown> }
  context?: Record<string, unknown>
}

export type DecisionOptions = {
  /** Postern's address. */
  url: string
  apiKey: string
  /** How long an answer is used again. Default: 1000; 0 never. */
  cacheMs?: number
  /** Most answers that are kept. Default: 10,000. */
  cachedAnswers?: number
  /** Default: 2000. */
  timeoutMs?: number
  /** What a question that cannot be answered comes to: an error (default), or a no. Never a yes. */
  onError?: 'throw' | 'deny'
}

/** The most questions that Postern takes at once. */
const MOST_AT_ONCE = 1000

type Waiting = { question: string; resolve: (isAllowed: boolean) => void; reject: (error: unknown) => void }

export type PosternClient = ReturnType<typeof createPosternClient>

/** Asks Postern whether somebody may do something. Questions of one turn of the event loop go in one request. */
export function createPosternClient(options: DecisionOptions) {
  const { url, apiKey, cacheMs = 1000, cachedAnswers = 10_000, timeoutMs = 2000, onError = 'throw' } = options
  const answers = new Map<string, { isAllowed: boolean; until: number }>()
  const underWay = new Map<string, Promise<boolean>>()
  let waiting: Waiting[] = []

  function keep(question: string, isAllowed: boolean): void {
    if (cacheMs <= 0) return
    answers.delete(question)
    answers.set(question, { isAllowed, until: performance.now() + cacheMs })
    const [oldest] = answers.keys()
    if (answers.size > cachedAnswers && oldest !== undefined) answers.delete(oldest)
  }

  async function request(questions: readonly string[]): Promise<boolean[]> {
    const { response, answer } = await within(timeoutMs, async (signal) => {
      const response = await fetch(`${url}/allowed/bulk`, {
        method: 'POST',
        headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
        body: `[${questions.join(',')}]`,
        redirect: 'error',
        signal,
      })
      return { response, answer: (await response.json()) as unknown }
    })
    const list = isObject(answer) ? answer['allow'] : undefined
    if (!response.ok || !Array.isArray(list) || list.length !== questions.length)
      throw new Error(`Postern answered ${response.status}`)
    return list.map((one) => isObject(one) && one['allow'] === true)
  }

  async function send(batch: readonly Waiting[]): Promise<void> {
    try {
      const decided = await request(batch.map(({ question }) => question))
      for (const [place, { question, resolve }] of batch.entries()) {
        const isAllowed = decided[place] === true
        keep(question, isAllowed)
        resolve(isAllowed)
      }
    } catch (cause) {
      for (const { reject } of batch)
        reject(new PosternError('decision_unavailable', 'Postern did not answer', { cause }))
    }
  }

  function sendAll(): void {
    const all = waiting
    waiting = []
    for (let first = 0; first < all.length; first += MOST_AT_ONCE)
      void send(all.slice(first, first + MOST_AT_ONCE))
  }

  function ask(question: string): Promise<boolean> {
    const asked = underWay.get(question)
    if (asked !== undefined) return asked
    const answer = new Promise<boolean>((resolve, reject) => {
      if (waiting.push({ question, resolve, reject }) === 1) setImmediate(sendAll)
    }).finally(() => underWay.delete(question))
    underWay.set(question, answer)
    return answer
  }

  async function check(question: Question): Promise<boolean> {
    const text = JSON.stringify(question)
    const known = answers.get(text)
    if (known && known.until > performance.now()) return known.isAllowed
    try {
      return await ask(text)
    } catch (error) {
      if (onError === 'deny') return false
      throw error
    }
  }

  return {
    /**
     * Whether they may; an answer may be as old as `cacheMs`.
     * @throws PosternError decision_unavailable unless `onError` is `deny`
     */
    check,

    /** The answers in the order of the questions. @throws as `check` */
    checkMany: async (questions: readonly Question[]): Promise<boolean[]> =>
      await Promise.all(questions.map(check)),
  }
}
