import { once } from 'node:events'
import { connect } from 'node:net'
import { performance } from 'node:perf_hooks'

type Options = {
  url: string
  headers: Record<string, string>
  perSecond: number
  seconds: number
  connections: number
  /** What the next request says. */
  nextBody: () => string
  onAnswer: (status: number, body: string) => void
}

type Paced = {
  /** How many were answered in each second: below what was asked for, the server was too slow. */
  perSecond: number
  /** The latency in milliseconds that 99 % stay below, waiting for a free connection included. */
  p99: number
  /** Those that were answered with another status than 200. */
  failed: number
}

type Connection = {
  /** When the request that it is busy with was due. */
  dueAt: number
  post(body: string): void
  close(): void
  onAnswer: (status: number, body: string) => void
  onEnd: () => void
}

const END_OF_HEADERS = '\r\n\r\n'
const STATUS_AT = 'HTTP/1.1 '.length
const TIMEOUT_MS = 10_000
const READ_BYTES = 16_384

/**
 * POSTs at even times, whatever becomes of those before: as many people who know nothing of each other send them.
 * autocannon's `overallRate` has each connection send its share of a second at once, and pause for the rest of it.
 * It makes little anew for a request, because a collection of its garbage would count as the server's time.
 *
 * @throws Error when a connection ends, or has not answered for 10 s.
 */
export async function paced(options: Options): Promise<Paced> {
  const { perSecond, nextBody, onAnswer } = options
  const total = Math.floor(perSecond * options.seconds)
  const latencies = new Float64Array(total)
  const connections = await Promise.all(
    Array.from({ length: options.connections }, async () => await open(options)),
  )
  const idle = [...connections]
  let [sent, answered, failed] = [0, 0, 0]
  const startedAt = performance.now()

  /** By the schedule, not by when this is called: what is late here is late for the person who waits. */
  function sendWhatIsDue(): void {
    const now = performance.now()
    for (; sent < total; sent++) {
      const dueAt = startedAt + (sent / perSecond) * 1000
      const connection = dueAt > now ? undefined : idle.shift()
      if (!connection) return
      connection.dueAt = dueAt
      connection.post(nextBody())
    }
  }

  const timer = setInterval(sendWhatIsDue, 1)
  await new Promise<void>((resolve, reject) => {
    for (const connection of connections) {
      connection.onEnd = () => reject(new Error(`a connection to ${options.url} ended`))
      connection.onAnswer = (status, body) => {
        latencies[answered++] = performance.now() - connection.dueAt
        if (status !== 200) failed++
        onAnswer(status, body)
        idle.push(connection)
        if (answered === total) resolve()
        else sendWhatIsDue()
      }
    }
  }).finally(() => {
    clearInterval(timer)
    for (const connection of connections) connection.close()
  })
  const took = performance.now() - startedAt
  latencies.sort()
  return {
    perSecond: total / (took / 1000),
    p99: latencies[Math.floor(total * 0.99)] ?? Number.NaN,
    failed,
  }
}

/**
 * A connection that takes one request after the other. Node's own client needs four times the processor time for a
 * request, on the core that the database needs too, and would measure itself.
 */
async function open({ url, headers }: Options): Promise<Connection> {
  const { hostname, port, host, pathname } = new URL(url)
  const lines = Object.entries({ ...headers, host }).map(([name, value]) => `${name}: ${value}\r\n`)
  const head = `POST ${pathname} HTTP/1.1\r\n${lines.join('')}content-length: `
  let text = ''
  const received = Buffer.allocUnsafe(READ_BYTES)
  const read = (bytes: number): boolean => {
    text += received.toString('latin1', 0, bytes)
    const end = text.indexOf(END_OF_HEADERS)
    if (end < 0) return true
    const body = end + END_OF_HEADERS.length
    if (text.length < body + Number(/^content-length: (\d+)/im.exec(text)?.[1])) return true
    const answer = text
    text = ''
    connection.onAnswer(Number(answer.slice(STATUS_AT, STATUS_AT + 3)), answer.slice(body))
    return true
  }
  const onread = { buffer: received, callback: read }
  const socket = connect({ port: Number(port), host: hostname, noDelay: true, onread })
  const connection: Connection = {
    dueAt: 0,
    post(body) {
      if (socket.destroyed) connection.onEnd()
      else socket.write(`${head}${Buffer.byteLength(body)}${END_OF_HEADERS}${body}`)
    },
    close: () => socket.destroy(),
    onAnswer: () => {},
    onEnd: () => {},
  }
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.on('close', () => connection.onEnd())
  return connection
}
