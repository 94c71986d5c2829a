import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import type { Warn } from '../../src/policy/engines.ts'
import { buildTestApp, type TestApp } from '../helpers/app.ts'
import { apiKey, listenForSdk } from '../helpers/permit.ts'
import { type PolicyDraft, storePolicy } from './loading.ts'

/** A policy of an application with one of each: a role, a role on instances, rules over attributes and names. */
export const POLICY: PolicyDraft = {
  resources: [
    {
      key: 'document',
      actions: ['read', 'write', 'sign', 'file'],
      relations: [],
      roles: [
        {
          key: 'author',
          permissions: ['document:sign'],
          extends: [],
          derivations: [],
          noDirectRolesOnObject: false,
        },
      ],
    },
  ],
  roles: [
    { key: 'editor', permissions: ['document:read', 'document:write'], extends: [] },
    { key: 'reader', permissions: ['document:read'], extends: [] },
  ],
  userSets: [
    { key: 'adults', conditions: { 'user.age': { 'greater-than': 17 } }, parent: null },
    { key: 'annas', conditions: { 'user.first_name': { equals: 'Anna' } }, parent: null },
  ],
  rules: [
    { users: { set: 'adults' }, resources: { resource: 'document' }, permission: 'document:sign' },
    { users: { set: 'annas' }, resources: { resource: 'document' }, permission: 'document:file' },
  ],
}

/** How the way to Permit is: as it should be, or broken in one of the ways that networks and servers know. */
export type Way =
  | 'open'
  | 'slow'
  | 'cut'
  | 'cut_within'
  | 'trickle'
  | { status: number; body?: string }
  | { body: string }
  /** As it should be for so many requests, and then no answer. */
  | { answers: number }
  /** As it should be, but later. */
  | { opensAfter: Promise<unknown> }

/** Another Postern, which plays Permit, and a way to it that can be broken. */
export async function buildPermit(t: Test) {
  const postern = await buildTestApp(t)
  await storePolicy(postern.services, DEFAULT_ENVIRONMENT, POLICY)
  const { url } = await listenForSdk(t, postern)
  const { key } = await apiKey(postern)
  const way = await wayTo(t, url)
  return { postern, key, ...way }
}

export type PermitDouble = Awaited<ReturnType<typeof buildPermit>>

/** A Postern with the same policy, which uses `permit` as its configuration says. */
export async function buildUserOf(
  t: Test,
  permit: Pick<PermitDouble, 'url' | 'key'>,
  env: NodeJS.ProcessEnv = { POLICY_ENGINE: 'permit' },
  options: { warn?: Warn } = {},
): Promise<TestApp & { permit: NonNullable<TestApp['services']['permit']>; settled: () => Promise<void> }> {
  const postern = await buildTestApp(t, {
    ...options,
    env: {
      PERMIT_API_KEY: permit.key,
      PERMIT_PDP_URL: permit.url,
      PERMIT_API_URL: permit.url,
      ...env,
    },
  })
  const engine = postern.services.permit
  if (!engine) throw new Error('Permit is not used')
  await engine.prepare()
  await storePolicy(postern.services, DEFAULT_ENVIRONMENT, POLICY)
  return { ...postern, permit: engine, settled: async () => await settled(postern.services, engine) }
}

/** Works through the jobs until none is left, also those that must be tried again; ten seconds at most. */
async function settled(
  { jobs: { runDue } }: TestApp['services'],
  { jobs }: NonNullable<TestApp['services']['permit']>,
): Promise<void> {
  const deadline = Date.now() + 10_000
  await runDue()
  for (;;) {
    const state = await jobs.queueState()
    if (state.pending === 0) return
    if (Date.now() > deadline) throw new Error(`not mirrored: ${JSON.stringify(state)}`)
    await sleep(100)
    await runDue()
  }
}

/** How the way is for one request, which is counted where they are. */
function answerLeft(
  way: Exclude<Way, { opensAfter: unknown }>,
): Exclude<Way, { answers: number } | { opensAfter: unknown }> {
  if (typeof way !== 'object' || !('answers' in way)) return way
  return way.answers-- > 0 ? 'open' : 'slow'
}

/** An HTTP proxy on a port of its own. */
async function wayTo(t: Test, target: string) {
  const { hostname, port } = new URL(target)
  let state: Way = 'open'
  const hanging = new Set<Socket>()
  const requests: { method: string; path: string }[] = []

  const server = createServer(async (request, reply) => {
    requests.push({ method: request.method ?? '', path: request.url ?? '' })
    if (typeof state === 'object' && 'opensAfter' in state) {
      await state.opensAfter
      state = 'open'
    }
    const current = answerLeft(state)
    if (current === 'cut') {
      request.socket.destroy()
      return
    }
    if (current === 'slow' || current === 'trickle') hanging.add(request.socket)
    if (current === 'slow') {
      request.resume()
      return
    }
    if (current === 'cut_within' || current === 'trickle') {
      request.resume()
      reply.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' })
      reply.write('{"allow":true')
      if (current === 'cut_within') setTimeout(() => request.socket.destroy(), 10)
      else {
        const dripping = setInterval(() => reply.write(' '), 20)
        request.socket.on('close', () => clearInterval(dripping))
      }
      return
    }
    if (typeof current === 'object') {
      request.resume()
      reply.writeHead('status' in current ? current.status : 200, { 'content-type': 'application/json' })
      reply.end(current.body ?? '{"message":"broken"}')
      return
    }
    const { method, url, headers } = request
    const upstream = httpRequest({ hostname, port, method, path: url, headers }, (answer) => {
      reply.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(reply)
    })
    upstream.on('error', () => reply.destroy())
    request.pipe(upstream)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    set(way: Way): void {
      state = way
      for (const socket of hanging) socket.destroy()
    },
  }
}
