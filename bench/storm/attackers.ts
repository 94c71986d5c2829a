import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

/*
 * A process of its own, so that what it costs delays nobody else's clock: sign-ins with made-up emails from many
 * loopback addresses, at a fixed rate whether the answers come or not, or so many at once. Prints what came of them as
 * JSON.
 */

const { STORM_URL = '', STORM_RATE, STORM_AT_ONCE = '1', STORM_SECONDS = '10' } = process.env
const TICK_MS = 10
/** Each has its own limit of failures in an hour, which the storm stays below. */
const ADDRESSES = 2000
/** More than these under way at once are not sent, so that a server that hangs does not take this process along. */
const MOST_AT_ONCE = 4000

const agents = Array.from({ length: ADDRESSES }, (_, n) => ({
  localAddress: `127.${1 + (n >> 8)}.${n & 255}.1`,
  agent: new Agent({ keepAlive: true, maxSockets: 50 }),
}))
const target = new URL(STORM_URL)
const times: Record<string, number[]> = {}
let sent = 0
let open = 0
let unsent = 0

function attempt(): void {
  if (open >= MOST_AT_ONCE) {
    unsent++
    return
  }
  open++
  const from = agents[sent++ % ADDRESSES]
  const body = JSON.stringify({ email: `storm-${sent}@postern.test`, password: 'a password that is made up' })
  const began = performance.now()
  const done = (outcome: string): void => {
    open--
    times[outcome] ??= []
    times[outcome].push(performance.now() - began)
  }
  const sending = request(
    {
      host: target.hostname,
      port: target.port,
      path: '/api/v1/auth/login',
      method: 'POST',
      agent: from?.agent,
      localAddress: from?.localAddress,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    },
    (response) => {
      response.resume()
      response.on('end', () => done(String(response.statusCode)))
    },
  )
  sending.on('error', () => done('error'))
  sending.end(body)
}

const end = performance.now() + Number(STORM_SECONDS) * 1000
const began = performance.now()
while (performance.now() < end) {
  if (STORM_RATE === undefined) while (open < Number(STORM_AT_ONCE)) attempt()
  else while (sent + unsent < ((performance.now() - began) / 1000) * Number(STORM_RATE)) attempt()
  await sleep(STORM_RATE === undefined ? 1 : TICK_MS)
}
console.log('stopped')
while (open > 0) await sleep(TICK_MS)
console.log(JSON.stringify({ sent, unsent, times }))
process.exit(0)
