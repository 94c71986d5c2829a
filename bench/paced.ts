import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
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

type Answer = { status: number; text: string }
type Connection = { post(request: Request): Promise<Answer>; close(): void }

const END_OF_HEADERS = '\r\n\r\n'
const TIMEOUT_MS = 10_000

/**
 * POSTs at even times, whatever becomes of those before: as many people who know nothing of each other send them.
 * autocannon's `overallRate` has each connection send its share of a second at once, and pause for the rest of it.
 */
export async function paced(options: Options): Promise<Paced> {
  const { url, perSecond, seconds, connections, next, onAnswer = () => {} } = options
  const total = perSecond * seconds
  const latencies: number[] = []
  const waiting: number[] = []
  const idle = await Promise.all(Array.from({ length: connections }, async () => await open(new URL(url))))
  let [sent, failed, lastAnswerAt] = [0, 0, 0]

  async function fire(connection: Connection, dueAt: number): Promise<void> {
    const { status, text } = await connection.post(next())
    lastAnswerAt = performance.now()
    latencies.push(lastAnswerAt - dueAt)
    if (status !== 200) failed++
    onAnswer(status, text)
    const waitingSince = waiting.shift()
    if (waitingSince === undefined) idle.push(connection)
    else void fire(connection, waitingSince)
  }

  const startedAt = performance.now()
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const now = performance.now()
      // By the schedule, not by this timer: its delays are those of the person who waits.
      for (; sent < total; sent++) {
        const dueAt = startedAt + (sent / perSecond) * 1000
        if (dueAt > now) return
        const connection = idle.shift()
        if (connection) void fire(connection, dueAt)
        else waiting.push(dueAt)
      }
      if (idle.length < connections) return
      clearInterval(timer)
      resolve()
    }, 1)
  })
  for (const connection of idle) connection.close()
  latencies.sort((a, b) => a - b)
  return {
    perSecond: latencies.length / ((lastAnswerAt - startedAt) / 1000),
    p99: latencies[Math.floor(latencies.length * 0.99)] ?? Number.NaN,
    failed,
  }
}

/**
 * A connection that takes one request after the other. Node's own client needs four times the processor time for a
 * request, on the core that the database needs too, and would measure itself.
 */
async function open({ hostname, port, host, pathname }: URL): Promise<Connection> {
  const socket: Socket = connect(Number(port), hostname).setNoDelay(true).setEncoding('latin1')
  let text = ''
  let answered: ((answer: Answer) => void) | undefined
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy())
  socket.on('error', () => {})
  socket.on('close', () => answered?.({ status: 0, text: 'the connection ended' }))
  socket.on('data', (part: string) => {
    text += part
    const end = text.indexOf(END_OF_HEADERS)
    if (end < 0) return
    const length = Number(/^content-length: (\d+)/im.exec(text)?.[1])
    const body = end + END_OF_HEADERS.length
    if (text.length < body + length) return
    const answer = { status: Number(text.slice(9, 12)), text: text.slice(body) }
    text = ''
    answered?.(answer)
  })
  await once(socket, 'connect')
  return {
    async post({ headers, body }) {
      const lines = Object.entries({ ...headers, host, 'content-length': Buffer.byteLength(body) })
      const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')
      if (socket.destroyed) return { status: 0, text: 'the connection has ended' }
      return await new Promise((resolve) => {
        answered = resolve
        socket.write(`POST ${pathname} HTTP/1.1\r\n${head}\r\n${body}`)
      })
    },
    close: () => socket.destroy(),
  }
}
