import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  adminToken,
  type Bench,
  placeProcesses,
  post,
  report,
  type Server,
  send,
  startPostern,
} from '../harness.ts'

const WRITES = 100
const LONGEST_MS = 10_000
const FACTS = '/v2/facts/default/default'

/**
 * Two processes at one database: a role is given or taken through the first, and the second, which has the person at hand,
 * is asked until it answers so. The time begins when the write is sent.
 */
export async function seenByAnotherProcess(bench: Bench): Promise<void> {
  placeProcesses(bench, false)
  const options = { databaseUrl: bench.databaseUrl, isPinned: false }
  const writer = await startPostern(options)
  try {
    const reader = await startPostern(options)
    try {
      const times = await writeAndAsk(writer, reader)
      report('a write sent, until another process answers so', times, 'ms')
      report('the same, longest', [Math.max(...times)], 'ms')
    } finally {
      await reader.stop()
    }
  } finally {
    await writer.stop()
  }
}

async function writeAndAsk(writer: Server, reader: Server): Promise<number[]> {
  const run = randomUUID().slice(0, 8)
  const [user, role, resource] = [`seen-${run}`, `seeing-${run}`, `sight-${run}`]
  const token = await adminToken(writer.url)
  const made = await post(`${writer.url}/api/v1/api-keys`, { name: run, access: 'full' }, token)
  const { key } = (await made.json()) as { key: string }
  for (const [path, body] of [
    ['/v2/schema/default/default/resources', { key: resource, name: resource, actions: { read: {} } }],
    ['/v2/schema/default/default/roles', { key: role, name: role, permissions: [`${resource}:read`] }],
    [`${FACTS}/users`, { key: user }],
  ] as const)
    await post(`${writer.url}${path}`, body, key)
  const question = { user: { key: user }, action: 'read', resource: { type: resource, tenant: 'default' } }
  const isAllowed = async (): Promise<boolean> =>
    ((await (await post(`${reader.url}/allowed`, question, key)).json()) as { allow: boolean }).allow

  if (await isAllowed()) throw new Error('somebody without a role is allowed')
  const times: number[] = []
  for (let n = 0; n < WRITES; n++) {
    const isGiven = n % 2 === 0
    const startedAt = performance.now()
    const grant = { user, role, tenant: 'default' }
    await send(isGiven ? 'POST' : 'DELETE', `${writer.url}${FACTS}/role_assignments`, grant, key)
    while ((await isAllowed()) !== isGiven) {
      if (performance.now() - startedAt > LONGEST_MS) throw new Error('the other process does not hear of it')
      await sleep(1)
    }
    times.push(performance.now() - startedAt)
  }
  return times
}
