import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { Test } from 'tap'

/** A wire to Postgres that can be cut. */
export type Wire = {
  /** The database by way of the proxy. */
  url: string
  /** Breaks every connection, and refuses new ones until `mend`. */
  cut(): void
  /** Breaks every connection; new ones are taken. */
  breakOnce(): void
  /** Swallows everything, in old and new connections, as a network without a route does. */
  stall(): void
  mend(): void
}

/** A TCP proxy in front of the server that `databaseUrl` names. */
export async function wireTo(t: Test, databaseUrl: string): Promise<Wire> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  let isCut = false
  let isStalled = false

  const server = createServer((client) => {
    if (isCut) {
      client.destroy()
      return
    }
    if (isStalled) {
      sockets.add(client)
      client.on('error', () => {}).on('close', () => sockets.delete(client))
      return
    }
    const upstream = connect(Number(target.port), target.hostname)
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const breakAll = () => {
    for (const socket of sockets) socket.destroy()
  }
  t.teardown(async () => {
    breakAll()
    await new Promise((resolve) => server.close(resolve))
  })

  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String((server.address() as AddressInfo).port)
  return {
    url: url.href,
    cut() {
      isCut = true
      breakAll()
    },
    breakOnce: breakAll,
    stall() {
      isStalled = true
      for (const socket of sockets) socket.unpipe().pause()
    },
    mend() {
      if (isStalled) breakAll()
      isStalled = false
      isCut = false
    },
  }
}
