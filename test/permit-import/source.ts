import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { createSourceClient } from '../../src/permit-import/client.ts'
import { newReport, type Report } from '../../src/permit-import/report.ts'
import { importEnvironment, sourceOf } from '../../src/permit-import/service.ts'
import { SYSTEM } from '../../src/principal.ts'
import type { TestApp } from '../helpers/app.ts'

export const KEY = 'permit_key_of_the_source'
const ORGANIZATION = '00000000-0000-4000-8000-00000000000a'
export const PROJECT = '00000000-0000-4000-8000-00000000000b'
export const ENVIRONMENT = '00000000-0000-4000-8000-00000000000c'
const S = `/v2/schema/${PROJECT}/${ENVIRONMENT}`
const F = `/v2/facts/${PROJECT}/${ENVIRONMENT}`

/** The lists of an environment, as Permit's management API shows them; what is left out is empty. */
export type Lists = {
  /** By the keys of their resources. */
  groups?: Record<string, unknown[]>
} & { [K in ListName]?: unknown[] }
type ListName =
  | 'resources'
  | 'userAttributes'
  | 'roles'
  | 'sets'
  | 'rules'
  | 'tenants'
  | 'users'
  | 'instances'
  | 'tuples'
  | 'assignments'
  | 'proxies'
  | 'invites'

/** Answers a request in its own way, and says whether it has. */
export type Interference = (path: string, page: number, response: ServerResponse) => boolean

/** `counted`: each page of each list with its totals, and not only where the protocol has it so always. */
type Options = { perPage?: number; counted?: boolean; interfere?: Interference }

/** A server that shows these lists and nothing else, at most `perPage` items at a time. */
export async function fakeSource(t: Test, lists: Lists, options: Options = {}) {
  const { perPage = 100, counted = false, interfere } = options
  const asked: string[] = []
  const byPath = new Map<string, unknown[]>([
    [`${S}/resources`, lists.resources ?? []],
    [`${S}/users/attributes`, lists.userAttributes ?? []],
    [`${S}/roles`, lists.roles ?? []],
    [`${S}/condition_sets`, lists.sets ?? []],
    [`${F}/set_rules`, lists.rules ?? []],
    [`${F}/tenants`, lists.tenants ?? []],
    [`${F}/users`, lists.users ?? []],
    [`${F}/resource_instances`, lists.instances ?? []],
    [`${F}/relationship_tuples`, lists.tuples ?? []],
    [`${F}/role_assignments`, lists.assignments ?? []],
    [`${F}/proxy_configs`, lists.proxies ?? []],
    [`${F}/user_invites`, lists.invites ?? []],
    ...Object.entries(lists.groups ?? {}).map(
      ([key, groups]) => [`${S}/resources/${key}/action_groups`, groups] as const,
    ),
  ])
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://source.test')
    const page = Number(searchParams.get('page') ?? 1)
    const size = Math.min(perPage, Number(searchParams.get('per_page') ?? 30))
    asked.push(`${pathname.replace(S, 'S').replace(F, 'F')} ${page}`)
    const send = (status: number, body: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    if (request.headers.authorization !== `Bearer ${KEY}`) return send(401, { error_code: 'UNAUTHORIZED' })
    if (interfere?.(pathname.replace(S, 'S').replace(F, 'F'), page, response)) return undefined
    if (pathname === '/v2/api-key/scope')
      return send(200, {
        organization_id: ORGANIZATION,
        project_id: PROJECT,
        environment_id: ENVIRONMENT,
      })
    const list = byPath.get(pathname)
    if (!list) return send(404, { error_code: 'NOT_FOUND' })
    const items = list.slice((page - 1) * size, page * size)
    return send(
      200,
      counted || pathname === `${F}/users`
        ? { data: items, total_count: list.length, page_count: Math.ceil(list.length / size) }
        : items,
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, asked }
}

type Run = { isDryRun?: boolean; environmentId?: string; report?: Report; key?: string; timeoutMs?: number }

/** Imports from the address, without waiting between attempts; `waited` are the waits there would have been. */
export async function importFrom(url: string, { services }: TestApp, run: Run = {}) {
  const waited: number[] = []
  const client = createSourceClient({
    apiUrl: url,
    key: run.key ?? KEY,
    ...(run.timeoutMs !== undefined && { timeoutMs: run.timeoutMs }),
    sleep: async (ms) => waited.push(ms),
  })
  const model = services.modelOf(run.environmentId ?? DEFAULT_ENVIRONMENT)
  const source = await sourceOf(client, url, undefined)
  const report =
    run.report ??
    newReport({
      source,
      environmentId: model.environmentId,
      isDryRun: run.isDryRun ?? false,
      now: new Date(),
    })
  const facts: string[] = []
  const changes: string[] = []
  const outcome = await importEnvironment({
    client,
    model,
    caller: SYSTEM,
    report,
    save: async () => {},
    onFact: (kind, name, standing) => facts.push(`${standing} ${kind} ${name}`),
    onChanges: (all) => changes.push(...all.map(({ change, kind, name }) => `${change} ${kind} ${name}`)),
  }).then(
    () => undefined,
    (error: unknown) => error,
  )
  return { report, waited, facts, changes, error: outcome instanceof Error ? outcome.message : undefined }
}

/** What was left out, one line each. */
export const leftOut = ({ report }: { report: Report }): string[] =>
  report.left_out.map(({ kind, name, reason }) => `${kind} ${name}: ${reason}`)

const FIXTURES = new URL('./fixtures/', import.meta.url)
const recorded = async (name: string): Promise<unknown[]> =>
  JSON.parse(await readFile(new URL(`${name}.json`, FIXTURES), 'utf8'))

/** An environment as Permit's management API shows it, every document with all the fields that it has there. */
export const recordedLists = async (): Promise<Lists> => ({
  resources: await recorded('resources'),
  groups: { document: await recorded('document.action_groups') },
  userAttributes: await recorded('user_attributes'),
  roles: await recorded('roles'),
  sets: await recorded('condition_sets'),
  rules: await recorded('set_rules'),
  tenants: await recorded('tenants'),
  users: await recorded('users'),
  instances: await recorded('resource_instances'),
  tuples: await recorded('relationship_tuples'),
  assignments: await recorded('role_assignments'),
  proxies: await recorded('proxy_configs'),
  invites: await recorded('user_invites'),
})

const LISTS_OF_FACTS = [
  ...['users', 'tenants', 'resource_instances', 'relationship_tuples', 'role_assignments'],
  ...['proxy_configs', 'user_invites'],
]

/** Policy and facts of an environment by names, without what each server makes itself, in an order of their own. */
export async function contentsOf(
  { services, as }: TestApp,
  environmentId = DEFAULT_ENVIRONMENT,
): Promise<Record<string, Record<string, unknown>[]>> {
  const { key } = await services.apiKeys.createKey(SYSTEM, { name: 'test', access: 'read' }, environmentId)
  const client = as(key)
  const { project_id: project, environment_id: environment } = (await client.get('/v2/api-key/scope')).json()
  const contents: Record<string, Record<string, unknown>[]> = {
    policy: await services.modelOf(environmentId).policyFile.read(),
  }
  for (const list of LISTS_OF_FACTS) {
    const answer = (await client.get(`/v2/facts/${project}/${environment}/${list}?per_page=100`)).json()
    const items: Record<string, unknown>[] = Array.isArray(answer) ? answer : answer.data
    contents[list] = items
      .map((item) => Object.fromEntries(Object.entries(item).filter(([name]) => !/(^|_)id$|_at$/.test(name))))
      .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
  }
  return contents
}
