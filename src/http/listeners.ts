import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import type { FastifyInstance } from 'fastify'

/**
 * A further socket for the application, which does not listen yet. Its connections are handed to the server of the
 * application, whose limits and time-outs hold for them too.
 */
export function furtherListener(app: FastifyInstance): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
    app.server.emit('connection', socket),
  )
}

/** Listens; rejects with the error of the system. */
export async function listenOn(listener: Server, address: { host: string; port: number }): Promise<void> {
  listener.listen(address)
  await once(listener, 'listening')
}
