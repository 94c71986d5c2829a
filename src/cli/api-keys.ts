import type { ApiKeyRow } from '../api-keys/repository.ts'
import { ApiKeyName, presentApiKey, presentIssuedApiKey } from '../api-keys/schemas.ts'
import { DEFAULT_ENVIRONMENT } from '../db/client.ts'
import { Timestamp, Uuid } from '../http/schemas.ts'
import { API_KEY_ACCESS, type ApiKeyAccess } from '../permissions.ts'
import { SYSTEM } from '../principal.ts'
import type { Services } from '../services.ts'
import { print } from '../terminal.ts'
import { columns, defineCommand, UsageError } from './command.ts'
import { assertFits } from './input.ts'
import { withSetUpServices } from './runtime.ts'

const JSON_FLAG = { json: { description: 'Print JSON, as the API answers it' } } as const

export const createApiKey = defineCommand({
  path: 'api-keys create',
  summary: 'Create an API key',
  details: [
    'The key is printed once and cannot be shown again. Without --environment, --project and --all-environments it',
    'opens the default environment.',
  ],
  positionals: ['NAME'],
  flags: {
    access: { value: API_KEY_ACCESS.join('|'), description: 'What the key may do; default: full' },
    environment: { value: 'PROJECT/KEY', description: 'The environment that it opens' },
    project: { value: 'KEY', description: 'It opens every environment of this project' },
    'all-environments': { description: 'It opens every environment' },
    expires: {
      value: 'TIME',
      description: 'Until when it works: 90d, 12h, or 2030-01-31T00:00:00Z; default: for ever',
    },
    ...JSON_FLAG,
  },
  examples: [
    'postern api-keys create deployment --expires 90d',
    'postern api-keys create reports --access read --environment default/production --json',
  ],
  async run(
    { access = 'full', environment, project, 'all-environments': everywhere, expires, json },
    [name = ''],
  ) {
    if ([environment, project, everywhere].filter((choice) => choice !== undefined).length > 1)
      throw new UsageError('Give one of --environment, --project and --all-environments')
    if (!isAccess(access)) throw new UsageError(`--access must be one of ${API_KEY_ACCESS.join(', ')}`)
    assertFits('name', ApiKeyName, name)
    const input = {
      name,
      access,
      ...(environment !== undefined && { environment }),
      ...(project !== undefined && { level: 'project' as const, project }),
      ...(everywhere && { level: 'org' as const }),
      ...(expires !== undefined && { expiresAt: timeOf(expires) }),
    }
    await withSetUpServices(async ({ apiKeys }) => {
      const issued = await apiKeys.createKey(SYSTEM, input, DEFAULT_ENVIRONMENT)
      if (json) return print(JSON.stringify(presentIssuedApiKey(issued), undefined, 2))
      print(`Created the API key ${name} with the id ${issued.id}: ${access} access to ${openedBy(issued)}.`)
      print(`Key: ${issued.key}   (shown only now)`)
    })
  },
})

export const listApiKeys = defineCommand({
  path: 'api-keys list',
  summary: 'List the API keys',
  flags: JSON_FLAG,
  examples: ['postern api-keys list'],
  async run({ json }) {
    await withSetUpServices(async (services) => {
      const keys = await allKeys(services)
      if (json) return print(JSON.stringify(keys.map(presentApiKey), undefined, 2))
      if (keys.length === 0) return print('There are no API keys.')
      const rows = keys.map(
        (key) =>
          [
            key.id,
            `…${key.keyHint}  ${key.name}: ${key.access} access to ${openedBy(key)}, ${stateOf(key, services)}`,
          ] as const,
      )
      for (const line of columns(rows)) print(line)
    })
  },
})

export const revokeApiKey = defineCommand({
  path: 'api-keys revoke',
  summary: 'Refuse an API key from now on',
  positionals: ['ID'],
  flags: {},
  examples: ['postern api-keys revoke 0192f4d1-7d0e-7c3a-9d2b-3f6a5c1e8b40'],
  async run(_flags, [id = '']) {
    assertFits('id', Uuid, id)
    await withSetUpServices(async ({ apiKeys }) => {
      await apiKeys.revokeKey(SYSTEM, id)
      print(`Revoked the API key ${(await apiKeys.getKey(SYSTEM, id)).name}.`)
    })
  },
})

const isAccess = (text: string): text is ApiKeyAccess => (API_KEY_ACCESS as readonly string[]).includes(text)

const HOURS = { h: 1, d: 24 } as const
const HOUR_MS = 3_600_000
const LONGEST_DAYS = 36_500

/** A time, or one so many hours or days from now. @throws UsageError */
function timeOf(text: string): Date {
  const [, count, unit] = /^(\d{1,6})([hd])$/.exec(text) ?? []
  if (count === undefined) {
    assertFits('expires', Timestamp, text)
    return new Date(text)
  }
  const hours = Number(count) * HOURS[unit === 'h' ? 'h' : 'd']
  if (hours === 0 || hours > LONGEST_DAYS * 24)
    throw new UsageError(`--expires must be between 1h and ${LONGEST_DAYS}d`)
  return new Date(Date.now() + hours * HOUR_MS)
}

function openedBy({ level, project, environment }: ApiKeyRow): string {
  if (level === 'org') return 'every environment'
  return level === 'project' ? `every environment of ${project}` : `${environment}`
}

function stateOf({ revokedAt, expiresAt }: ApiKeyRow, { clock }: Services): string {
  if (revokedAt !== null) return `revoked ${revokedAt.toISOString()}`
  if (expiresAt === null) return 'for ever'
  return `${expiresAt <= clock.now() ? 'expired' : 'until'} ${expiresAt.toISOString()}`
}

const PAGE = 1000

async function allKeys(services: Services, after?: string): Promise<ApiKeyRow[]> {
  const page = { limit: PAGE, skip: 0, sort: 'created_at', ...(after !== undefined && { after }) }
  const { items, next } = await services.apiKeys.listKeys(SYSTEM, {}, page)
  return next === undefined ? items : [...items, ...(await allKeys(services, next))]
}
