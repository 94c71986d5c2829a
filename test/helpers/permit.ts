import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { Permit, PermitApiError } from 'permitio'
import type { Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { furtherListener, listenOn } from '../../src/http/listeners.ts'
import { SYSTEM } from '../../src/principal.ts'
import { type FactsDraft, storeFacts, storePolicy } from '../policy/loading.ts'
import { clientOf, type TestApp } from './app.ts'

/** A policy that all three models have a part in. */
export async function storeExample(postern: TestApp, facts: FactsDraft = {}): Promise<void> {
  await storePolicy(postern.services, DEFAULT_ENVIRONMENT, {
    resources: [
      {
        key: 'folder',
        actions: ['read'],
        roles: [
          {
            key: 'owner',
            permissions: ['folder:read'],
            extends: [],
            derivations: [],
            noDirectRolesOnObject: false,
          },
        ],
        relations: [],
      },
      {
        key: 'document',
        actions: ['read', 'edit'],
        roles: [
          {
            key: 'editor',
            permissions: ['document:edit'],
            extends: [],
            derivations: [
              {
                role: 'owner',
                onResource: 'folder',
                linkedByRelation: 'parent',
                noDirectRolesOnObject: false,
              },
            ],
            noDirectRolesOnObject: false,
          },
        ],
        relations: [{ key: 'parent', subjectResource: 'folder' }],
      },
    ],
    roles: [{ key: 'reader', permissions: ['document:read'], extends: [] }],
    userSets: [{ key: 'adults', conditions: { 'user.age': { 'greater-than': 17 } }, parent: null }],
    resourceSets: [],
    rules: [{ users: { set: 'adults' }, resources: { resource: 'document' }, permission: 'document:edit' }],
  })
  await storeFacts(postern.services, DEFAULT_ENVIRONMENT, facts)
}

/** A key of the default environment. */
export const apiKey = async ({ services }: TestApp, access: 'full' | 'read' = 'full') =>
  await services.apiKeys.createKey(SYSTEM, { name: 'test', access }, DEFAULT_ENVIRONMENT)

/** Requests with this key, as the Python SDK sends them: the scheme in lower case, JSON as type even of no body. */
export const asPython = ({ app }: TestApp, key: string) =>
  clientOf(
    async ({ headers, ...options }) =>
      await app.inject({
        ...options,
        headers: { 'content-type': 'application/json', ...headers, authorization: `bearer ${key}` },
      }),
  )

/** The same with a new key. */
export const pythonClient = async (postern: TestApp, access?: 'full' | 'read') =>
  asPython(postern, (await apiKey(postern, access)).key)

/** The application on real sockets of a loopback address of its own, so that OPA's fixed port is free there. */
export async function listenForSdk(t: Test, { app }: TestApp): Promise<{ url: string; opaPort: number }> {
  for (;;) {
    const host = `127.${[0, 0, 0].map(() => 1 + Math.floor(Math.random() * 254)).join('.')}`
    const opa = furtherListener(app)
    try {
      await listenOn(opa, { host, port: 8181 })
    } catch {
      continue
    }
    const pdp = furtherListener(app)
    await listenOn(pdp, { host, port: 0 })
    const sockets = new Set<Socket>()
    for (const listener of [opa, pdp]) listener.on('connection', (socket) => sockets.add(socket))
    t.teardown(async () => {
      const closed = [opa, pdp].map(async (one) => await once(one.close(), 'close'))
      // The SDK keeps its connections open for seconds.
      for (const socket of sockets) socket.destroy()
      await Promise.all(closed)
    })
    return { url: `http://${host}:${(pdp.address() as AddressInfo).port}`, opaPort: 8181 }
  }
}

type Options = ConstructorParameters<typeof Permit>[0]

/** The Node SDK, unmodified. */
export const sdk = (url: string, token: string, options: Options = {}): Permit =>
  new Permit({ token, pdp: url, apiUrl: url, ...options })

/** The status and code that a call of the SDK is refused with, or `done`. */
export async function refusalOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'done'
  } catch (error) {
    if (!(error instanceof PermitApiError)) throw error
    return `${error.response?.status} ${error.response?.data.error_code}`
  }
}

/** What methods of the SDK have in common and call nothing by themselves. */
const HELPERS = new Set([
  'constructor',
  'clone',
  'ensureAccessLevel',
  'ensureContext',
  'getMethods',
  'handleApiError',
  'setContextFromApiKey',
])

/** Those of its methods that somebody may call, those that it inherits too. */
export function methodsOf(part: object): string[] {
  const methods = new Set<string>()
  for (let one = part; one !== Object.prototype; one = Object.getPrototypeOf(one))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(one)))
      if (typeof value === 'function' && !HELPERS.has(name)) methods.add(name)
  return [...methods].sort()
}

/** The part of the SDK, which notes in `called` those of its methods that are called from outside. */
export function noting<Part extends object>(part: Part, name: string, called: Set<string>): Part {
  return new Proxy(part, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property)
      if (typeof value !== 'function') return value
      return (...args: unknown[]) => {
        called.add(`${name}.${String(property)}`)
        return value.apply(target, args)
      }
    },
  })
}
