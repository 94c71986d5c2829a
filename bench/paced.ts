import { Agent, request } from 'node:http'
import { performance } from 'node:perf_hooks'

type Request = { headers: Record<string, string>; body: string }

type Options = {
  url: string
  perSecond: number
  seconds: number
  connections: number
  /** The next request. */
  next: () => Request
  onAnswer?: (status: number, body: string) => void
}

type Paced = {
  /** How many were answered in each second: below what was asked for, the server was too slow. */
  perSecond: number
  /** The latency in milliseconds that 99 % stay below, waiting for a free connection included. */
  p99: number
  /** Those that were answered with another status than 200, or not at all. */
  failed: number
}

const TIMEOUT_MS = 10_000

/**
 * POSTs at even times, whatever becomes of those before: as many people who know nothing of each other send them.
 * autocannon's `overallRate` has each connection send its share of a second at once, and pause for the rest of it.
 */
export async function paced(options: Options): Promise<Paced> {
  const { url, perSecond, seconds, connections, next, onAnswer = () => {} } = options
  const total = perSecond * seconds
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const latencies: number[] = []
  const waiting: number[] = []
  let [free, sent, failed, lastAnswerAt] = [connections, 0, 0, 0]

  async function post({ headers, body }: Request): Promise<{ status: number; text: string }> {
    return await new Promise((resolve, reject) => {
      const sending = request(url, {
        method: 'POST',
        agent,
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        timeout: TIMEOUT_MS,
      })
      sending.on('timeout', () => sending.destroy(new Error('no answer')))
      sending.on('error', reject)
      sending.on('response', (response) => {
        let text = ''
        response.on('error', reject)
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      })
      sending.end(body)
    })
  }

  async function fire(dueAt: number): Promise<void> {
    try {
      const { status, text } = await post(next())
      lastAnswerAt = performance.now()
      latencies.push(lastAnswerAt - dueAt)
      if (status !== 200) failed++
      onAnswer(status, text)
    } catch {
      failed++
    }
    const waitingSince = waiting.shift()
    if (waitingSince === undefined) free++
    else void fire(waitingSince)
  }

  const startedAt = performance.now()
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const now = performance.now()
      // By the schedule, not by this timer: its delays are those of the person who waits.
      for (; sent < total; sent++) {
        const dueAt = startedAt + (sent / perSecond) * 1000
        if (dueAt > now) return
        if (free === 0) waiting.push(dueAt)
        else {
          free--
          void fire(dueAt)
        }
      }
      if (free < connections) return
      clearInterval(timer)
      resolve()
    }, 1)
  })
  agent.destroy()
  latencies.sort((a, b) => a - b)
  return {
    perSecond: latencies.length / ((lastAnswerAt - startedAt) / 1000),
    p99: latencies[Math.floor(latencies.length * 0.99)] ?? Number.NaN,
    failed,
  }
}
