import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import { buildApp } from '../../src/app.ts'
import type { Clock } from '../../src/clock.ts'
import { createCompilers } from '../../src/http/compilers.ts'
import type { BUILTIN_ROLES } from '../../src/permissions.ts'
import { SYSTEM } from '../../src/principal.ts'
import { createServices, type ServiceOptions, type Services } from '../../src/services.ts'
import { PASSWORD, SECRET_KEY, SUPER_ADMIN_EMAIL, testConfig } from './config.ts'
import { freshDatabase } from './database.ts'

export type TestApp = Awaited<ReturnType<typeof buildTestApp>>
export type Client = ReturnType<typeof clientOf>
export type Person = { id: string; email: string; accountId: string | null; client: Client; token: string }
export type RoleKey = keyof typeof BUILTIN_ROLES | (string & {})

/** One for the many applications of a test file: each schema is compiled once. */
const schemaController = createCompilers()

type Options = {
  env?: NodeJS.ProcessEnv
  clock?: Clock
  databaseUrl?: string
  warn?: ServiceOptions['warn']
  logMail?: ServiceOptions['logMail']
}

/**
 * The whole application over a database of its own: real Postgres, requests through `app.inject`.
 * `root` is signed in as the super admin of the first account.
 */
export async function buildTestApp(t: Test, { env, clock, databaseUrl, warn, logMail }: Options = {}) {
  const url = databaseUrl ?? (await freshDatabase(t)).url
  const config = testConfig(env)
  const services = createServices(config, {
    databaseUrl: url,
    secretKey: SECRET_KEY,
    ...(clock && { clock }),
    ...(warn && { warn }),
    ...(logMail && { logMail }),
  })
  const app = await buildApp(services, { logger: false, schemaController })
  await app.ready()
  t.teardown(async () => {
    await app.close()
    await services.close()
  })

  const anonymous = clientOf((options) => app.inject(options))
  const home = (await services.accounts.findByKeyOrId('default')) ?? missing('the first account')
  let people = 0

  /** A signed-in person with this primary role; `accountId` is the home account, by default the first one. */
  async function person(
    role?: RoleKey,
    { accountId = home.id as string | null, email = '' } = {},
  ): Promise<Person> {
    const address = email || `person-${++people}@postern.test`
    const user = await services.users.createUser(SYSTEM, {
      email: address,
      password: PASSWORD,
      fullName: `Person ${people}`,
      accountId,
    })
    if (role) await services.roles.assignPrimary(SYSTEM, user.id, await roleId(services, role))
    const token = await signIn(address)
    return {
      id: user.id,
      email: address,
      accountId,
      token,
      client: clientOf((options) => app.inject(options), token),
    }
  }

  /** An account of its own. */
  async function account(name = `Account ${++people}`): Promise<string> {
    return (await services.accounts.createAccount(SYSTEM, { name })).id
  }

  async function signIn(email: string, password = PASSWORD): Promise<string> {
    const response = await anonymous.post('/api/v1/auth/login', { email, password })
    if (response.statusCode !== 200)
      throw new Error(`sign-in of ${email}: ${response.statusCode} ${response.body}`)
    return response.json<{ access_token: string }>().access_token
  }

  const rootToken = await signIn(SUPER_ADMIN_EMAIL)
  const root = clientOf((options) => app.inject(options), rootToken)
  const rootId = (await root.get('/api/v1/users/me')).json<{ id: string }>().id

  return {
    app,
    services,
    config,
    databaseUrl: url,
    home: home.id,
    anonymous,
    root,
    rootId,
    rootToken,
    person,
    account,
    signIn,
    roleId: async (key: RoleKey) => await roleId(services, key),
    as: (token: string) => clientOf((options) => app.inject(options), token),
  }
}

/** Sends requests, with a token if it has one. */
export function clientOf(
  inject: (options: InjectOptions) => Promise<LightMyRequestResponse>,
  token?: string,
) {
  const send = async (method: Method, url: string, payload?: unknown, headers: Record<string, string> = {}) =>
    await inject({
      method,
      url,
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
      ...(payload !== undefined && { payload: payload as object }),
    })
  return {
    send,
    get: async (url: string, headers?: Record<string, string>) => await send('GET', url, undefined, headers),
    post: async (url: string, body?: unknown, headers?: Record<string, string>) =>
      await send('POST', url, body, headers),
    put: async (url: string, body?: unknown, headers?: Record<string, string>) =>
      await send('PUT', url, body, headers),
    patch: async (url: string, body?: unknown, headers?: Record<string, string>) =>
      await send('PATCH', url, body, headers),
    delete: async (url: string, headers?: Record<string, string>) =>
      await send('DELETE', url, undefined, headers),
  }
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

async function roleId(services: Services, key: string): Promise<string> {
  return ((await services.roles.findRoleByKey(key)) ?? missing(`role ${key}`)).id
}

function missing(what: string): never {
  throw new Error(`${what} is missing`)
}
