import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import { postern } from '../src/client/fastify.ts'
import { createVerifier } from '../src/client/index.ts'
import { newId } from '../src/ids.ts'

/** One route thrice: bare, behind the guard, and behind the guard with a feed that has told of 100,000 revocations. */
const issuer = process.env['ISSUER'] ?? ''

const feed = createServer((_request, response) => {
  response.setHeader('content-type', 'text/event-stream')
  const exp = Math.floor(Date.now() / 1000) + 3600
  for (let page = 0; page < 100; page++) {
    const entries = Array.from({ length: 1000 }, () => ({ kind: 'session', ref: newId(), exp }))
    response.write(`event: revoked\ndata: ${JSON.stringify(entries)}\n\n`)
  }
  const current = 'event: current\ndata: {"age_seconds":0}\n\n'
  response.write(current)
  setInterval(() => response.write(current), 5000).unref()
}).listen(0, '127.0.0.1')
await new Promise((resolve) => feed.once('listening', resolve))
const url = `http://127.0.0.1:${(feed.address() as AddressInfo).port}`

const app = Fastify()
const trust = { issuer, audience: issuer }
app.get('/', () => ({ ok: true }))
app.get('/bare', () => ({ ok: true }))
// Each in a scope of its own, because both decorate it.
for (const [path, options] of [
  ['/guarded', trust],
  ['/fed', { ...trust, feed: { url, apiKey: 'bench' } }],
] as const) {
  await app.register(async (scope) => {
    const verifier = createVerifier(options)
    await verifier.ready()
    await scope.register(postern, { verifier })
    scope.get(path, { onRequest: scope.requireScope('post:read') }, () => ({ ok: true }))
  })
}

await app.listen({ host: '127.0.0.1', port: Number(process.env['PORT']) })
process.once('SIGTERM', () => process.exit(0))
