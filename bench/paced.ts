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

/**
 * POSTs at even times, whatever becomes of those before: as many people who know nothing of each other send them.
 * autocannon's `overallRate` has each connection send its share of a second at once, and pause for the rest of it.
 * @returns the latency in milliseconds that 99 % stay below, waiting for a free connection included
 */
export async function paced(options: Options): Promise<{ p99: number; failed: number }> {
  const { url, perSecond, seconds, connections, next, onAnswer = () => {} } = options
  const { hostname, port, pathname, host } = new URL(url)
  const latencies: number[] = []
  const waiting: number[] = []
  const free: Socket[] = []
  const sentAt = new Map<Socket, number>()
  let failed = 0

  function send(socket: Socket, dueAt: number): void {
    const { headers, body } = next()
    const lines = Object.entries({ host, ...headers, 'content-length': String(Buffer.byteLength(body)) })
    sentAt.set(socket, dueAt)
    socket.write(
      `POST ${pathname} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`,
    )
  }

  function done(socket: Socket, status: number, body: string): void {
    latencies.push(performance.now() - (sentAt.get(socket) ?? 0))
    sentAt.delete(socket)
    if (status !== 200) failed++
    onAnswer(status, body)
    const dueAt = waiting.shift()
    if (dueAt === undefined) free.push(socket)
    else send(socket, dueAt)
  }

  const sockets = await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect(Number(port), hostname)
      await once(socket, 'connect')
      let text = ''
      socket.setNoDelay(true)
      socket.setEncoding('latin1').on('data', (part: string) => {
        text += part
        const head = text.indexOf('\r\n\r\n')
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1])
        if (head < 0 || text.length < head + 4 + length) return
        const [status, body] = [Number(text.slice(9, 12)), text.slice(head + 4)]
        text = ''
        done(socket, status, body)
      })
      return socket
    }),
  )
  free.push(...sockets)
  const startedAt = performance.now()
  let sent = 0
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const now = performance.now()
      const due = Math.min(now - startedAt, seconds * 1000) * (perSecond / 1000)
      for (; sent < due; sent++) {
        const socket = free.shift()
        if (socket) send(socket, now)
        else waiting.push(now)
      }
      if (now - startedAt < seconds * 1000 || sentAt.size > 0 || waiting.length > 0) return
      clearInterval(timer)
      resolve()
    }, 1)
  })
  for (const socket of sockets) socket.destroy()
  latencies.sort((a, b) => a - b)
  return { p99: latencies[Math.floor(latencies.length * 0.99)] ?? Number.NaN, failed }
}
