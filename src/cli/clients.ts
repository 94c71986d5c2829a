import { AUTH_METHODS, type ClientRow, GRANT_TYPES } from '../clients/repository.ts'
import { CreateClientBody, newClient, presentClient, presentIssuedClient } from '../clients/schemas.ts'
import type { IssuedClient } from '../clients/service.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { fail } from '../errors.ts'
import { Uuid } from '../http/schemas.ts'
import { SYSTEM } from '../principal.ts'
import type { Services } from '../services.ts'
import { print } from '../terminal.ts'
import { columns, defineCommand, UsageError } from './command.ts'
import { assertFits, faultsOf } from './input.ts'
import { withSetUpServices } from './runtime.ts'

const JSON_FLAG = { json: { description: 'Print JSON, as the API answers it' } } as const
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

export const createClient = defineCommand({
  path: 'clients create',
  summary: 'Register an OAuth client in the default environment',
  details: ['Its secret is printed once and cannot be shown again. Lists are separated by commas.'],
  positionals: ['NAME'],
  flags: {
    scopes: { value: 'LIST', description: 'The most that its tokens may hold, such as post:read,post:write' },
    audiences: { value: 'LIST', description: 'Whom its tokens may be for; default: this service' },
    grants: {
      value: 'LIST',
      description: 'client_credentials, refresh_token, token-exchange; default: client_credentials',
    },
    auth: {
      value: 'METHOD',
      description: `${AUTH_METHODS.join(', ')}; default: client_secret_basic`,
    },
    jwks: { value: 'JSON', description: 'Its public keys (RFC 7517), for private_key_jwt' },
    dpop: { description: 'Its tokens must be bound to a key of its own (RFC 9449)' },
    account: {
      value: 'KEY',
      description: 'Key or id of the account that its scopes hold in; default: every account',
    },
    ...JSON_FLAG,
  },
  examples: [
    'postern clients create orders --scopes post:read --audiences https://billing.example.com',
    'postern clients create reports --scopes postern.audit:read --account default --json',
  ],
  async run({ scopes, audiences, grants, auth, jwks, dpop, account, json }, [name = '']) {
    const body = {
      name,
      ...(scopes !== undefined && { scopes: listOf(scopes) }),
      ...(audiences !== undefined && { audiences: listOf(audiences) }),
      ...(grants !== undefined && { grant_types: listOf(grants).map(longName) }),
      ...(auth !== undefined && { token_endpoint_auth_method: auth }),
      ...(jwks !== undefined && { jwks: readJson(jwks) }),
      ...(dpop && { dpop_bound_access_tokens: true }),
    }
    const faults = faultsOf(CreateClientBody, body)
    if (faults.length > 0) throw new UsageError(`The client is not valid: ${faults.join(', ')}`)
    await withSetUpServices(async (services) => {
      const accountId = account === undefined ? null : await accountIdOf(services, account)
      // The schema has just been checked.
      const input = { ...newClient(body as Parameters<typeof newClient>[0]), accountId }
      const issued = await clientsOf(services).createClient(SYSTEM, input)
      if (json) return print(JSON.stringify(presentIssuedClient(issued), undefined, 2))
      print(`Registered the client ${name} with the id ${issued.client.id}.`)
      printSecret(issued)
    })
  },
})

export const listClients = defineCommand({
  path: 'clients list',
  summary: 'List the OAuth clients of the default environment',
  flags: JSON_FLAG,
  examples: ['postern clients list'],
  async run({ json }) {
    await withSetUpServices(async (services) => {
      const clients = await allClients(services)
      if (json) return print(JSON.stringify(clients.map(presentClient), undefined, 2))
      if (clients.length === 0) return print('There are no OAuth clients.')
      for (const line of columns(clients.map((client) => [client.id, describe(client)] as const))) print(line)
    })
  },
})

export const deleteClient = defineCommand({
  path: 'clients delete',
  summary: 'Delete an OAuth client; its tokens are refused from now on',
  positionals: ['ID'],
  flags: {},
  examples: ['postern clients delete 0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'],
  async run(_flags, [id = '']) {
    assertFits('id', Uuid, id)
    await withSetUpServices(async (services) => {
      const { name } = await clientsOf(services).getClient(id)
      await clientsOf(services).deleteClient(SYSTEM, id, undefined)
      print(`Deleted the client ${name}.`)
    })
  },
})

export const rotateClientSecret = defineCommand({
  path: 'clients rotate-secret',
  summary: 'Give an OAuth client a second secret, to replace the first',
  details: ['The new secret is printed once. The one before holds on, unless --hours says for how long.'],
  positionals: ['ID'],
  flags: {
    hours: { value: 'NUMBER', description: 'The secret of before holds so long; 0: it is refused at once' },
    ...JSON_FLAG,
  },
  examples: ['postern clients rotate-secret 0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40 --hours 24'],
  async run({ hours, json }, [id = '']) {
    assertFits('id', Uuid, id)
    if (hours !== undefined && !/^\d{1,5}$/.test(hours))
      throw new UsageError('--hours must be a whole number from 0 to 99999')
    await withSetUpServices(async (services) => {
      const until =
        hours === undefined ? undefined : new Date(services.clock.now().getTime() + Number(hours) * HOUR_MS)
      const issued = await clientsOf(services).createSecret(SYSTEM, id, until)
      if (json) return print(JSON.stringify(presentIssuedClient(issued), undefined, 2))
      print(`The client ${issued.client.name} has a new secret.`)
      printSecret(issued)
    })
  },
})

const HOUR_MS = 3_600_000
const PAGE = 1000

const clientsOf = (services: Services) => services.modelOf(DEFAULT_ENVIRONMENT).clients

const listOf = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')

const longName = (grant: string): string =>
  GRANT_TYPES.find((name) => name === grant) ?? (grant === 'token-exchange' ? EXCHANGE : grant)

/** @throws UsageError */
function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new UsageError('--jwks must be JSON: {"keys": [...]}')
  }
}

/** @throws AppError account_not_found */
async function accountIdOf(services: Services, keyOrId: string): Promise<string> {
  const account = await services.accounts.findByKeyOrId(keyOrId)
  return account?.id ?? fail('account_not_found')
}

function printSecret({ secret }: IssuedClient): void {
  if (secret !== undefined) print(`Secret: ${secret}   (shown only now)`)
}

function describe({ name, scopes, tokenEndpointAuthMethod, isActive }: ClientRow): string {
  const holds = scopes.length === 0 ? 'no scopes' : scopes.join(' ')
  return `${name}: ${holds}, by ${tokenEndpointAuthMethod}${isActive ? '' : ', not active'}`
}

async function allClients(services: Services, after?: string): Promise<ClientRow[]> {
  const page = { limit: PAGE, skip: 0, sort: 'created_at', ...(after !== undefined && { after }) }
  const { items, next } = await clientsOf(services).listClients(page)
  return next === undefined ? items : [...items, ...(await allClients(services, next))]
}
