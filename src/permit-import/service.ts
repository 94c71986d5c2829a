import { StartupError } from '../errors.ts'
import type { Model } from '../model.ts'
import { BUILTIN_ROLES } from '../permissions.ts'
import type { Change } from '../policy-file/diff.ts'
import type { Caller } from '../principal.ts'
import type { SourceClient } from './client.ts'
import type { SourcePolicy } from './definitions.ts'
import { type Copier, createCopiers, membershipsOf, type Placed, type Standing, writeAll } from './facts.ts'
import { PROXY, placedProxies, writeProxies } from './proxies.ts'
import { collectorOf, type FactKind, type Progress, type Report, type Source } from './report.ts'
import { type Names, policyFileOf } from './sets.ts'
import { fitting, type Json, type LeaveOut, ScopeShape } from './shapes.ts'

type Import = {
  client: SourceClient
  model: Model
  caller: Caller
  /** What was done before, and is done from here on. */
  report: Report
  /** Called when a part is done that would be a pity to do again. */
  save: (report: Report) => Promise<void>
  /** Hears of the definitions that change, and in a dry run of each fact that would. */
  onChanges?: (changes: readonly Change[]) => void
  onFact?: (kind: string, name: string, standing: Standing) => void
  onProgress?: (message: string) => void
}

/** How some things are written: `write` returns those that it left out. */
type Settling<T> = {
  kind: string
  nameOf: (item: T) => string
  write: (changing: readonly Placed<T>[]) => Promise<Placed<T>[]>
}

/** How many definitions of a kind are read: more than any environment here may have. */
const MOST_DEFINITIONS = 60_000
const PAGES_BETWEEN_SAVES = 10

/** The project and environment that the key opens. @throws StartupError when it opens more than one, or none */
export async function sourceOf(
  client: SourceClient,
  apiUrl: string,
  named: string | undefined,
): Promise<Source> {
  if (named !== undefined) {
    const [project, environment, ...rest] = named.split('/')
    if (!project || !environment || rest.length > 0)
      throw new StartupError(`"${named}" is no environment: give PROJECT/KEY.`)
    return { api_url: apiUrl, project, environment }
  }
  const scope = fitting('scope', ScopeShape, await client.get('/v2/api-key/scope'), () => {})
  if (!scope)
    throw new StartupError(`${apiUrl} does not say what the key opens: is it the address of the API?`)
  const { project_id: project, environment_id: environment } = scope
  if (!project || !environment)
    throw new StartupError('The key opens more than one environment: say which with --from PROJECT/KEY.')
  return { api_url: apiUrl, project, environment }
}

/**
 * Copies the environment that `report` names from a server that speaks Permit's management API: definitions in one
 * transaction, then facts, page by page. Nothing here is deleted; what is the same already is not written again. A
 * report that is not finished is gone on with where it stopped.
 * @throws StartupError for a source that cannot be read; AppError limit_reached
 */
export async function importEnvironment(options: Import): Promise<Report> {
  const { client, model, caller, report, save, onChanges, onFact, onProgress } = options
  const place = `${encodeURIComponent(report.source.project)}/${encodeURIComponent(report.source.environment)}`
  const [schema, facts] = [`/v2/schema/${place}`, `/v2/facts/${place}`]
  const leaveOut: LeaveOut = collectorOf(report)

  const names = await copyDefinitions()
  const copiers = createCopiers({ model, caller, names, leaveOut, leftOut: report.left_out })
  try {
    await copyFacts('tenants', '/tenants', async (items) => await copy('tenants', copiers.tenants, items))
    await copyFacts('users', '/users', async (items) => {
      await copy('users', copiers.users, items)
      await copy(
        'memberships',
        copiers.memberships,
        items.flatMap((item) => membershipsOf(item, names, leaveOut)),
      )
    })
    report.facts.memberships.is_done = true
    await copyFacts(
      'instances',
      '/resource_instances',
      async (items) => await copy('instances', copiers.things, items),
    )
    await copyFacts(
      'relationships',
      '/relationship_tuples',
      async (items) => await copy('relationships', copiers.relationships, items),
    )
    await copyFacts(
      'assignments',
      '/role_assignments',
      async (items) => await copy('assignments', copiers.assignments, items),
    )
    await copyProxies()
    await nameInvitations()
    report.finished_at = new Date().toISOString()
  } finally {
    await save(report)
  }
  return report

  async function copyDefinitions(): Promise<Names> {
    const resources = await everything(`${schema}/resources`)
    const groups = new Map<string, readonly unknown[]>()
    for (const resource of resources) {
      const { key, action_groups: group } = (resource ?? {}) as Json
      if (typeof key === 'string' && typeof group === 'object' && group && Object.keys(group).length > 0)
        groups.set(key, await everything(`${schema}/resources/${encodeURIComponent(key)}/action_groups`))
    }
    const source: SourcePolicy = {
      resources,
      groups,
      userAttributes: await optional(`${schema}/users/attributes`),
      roles: await everything(`${schema}/roles`),
      sets: await everything(`${schema}/condition_sets`),
      rules: await everything(`${facts}/set_rules`),
    }
    const builtinRoles = new Set<string>()
    for (const key of Object.keys(BUILTIN_ROLES))
      if ((await model.roles.findRoleByKey(key))?.isBuiltin) builtinRoles.add(key)
    const here = { records: await model.policyFile.read(), builtinRoles }
    const { file, names: found } = policyFileOf(source, here, leaveOut)
    const changes = report.is_dry_run
      ? await model.policyFile.diff(file, 'additions')
      : await model.policyFile.apply(caller, file, 'additions')
    report.definitions.added += changes.filter(({ change }) => change === 'add').length
    report.definitions.updated += changes.filter(({ change }) => change === 'update').length
    onChanges?.(changes)
    await save(report)
    return found
  }

  async function everything(path: string): Promise<unknown[]> {
    const found: unknown[] = []
    for await (const { items } of client.pages(path)) {
      found.push(...items)
      if (found.length > MOST_DEFINITIONS)
        throw new StartupError(`${path} lists more than ${MOST_DEFINITIONS}.`)
    }
    return found
  }

  async function optional(path: string): Promise<unknown[]> {
    if (await client.offers(path)) return await everything(path)
    leaveOut({ kind: 'list', name: path, reason: 'is not offered by the source, or not to the key' })
    return []
  }

  async function copyFacts(
    kind: FactKind,
    path: string,
    copyPage: (items: readonly unknown[]) => Promise<void>,
  ): Promise<void> {
    const progress = report.facts[kind]
    if (progress.is_done) return
    let said = 0
    for await (const { number, items, total = 0 } of client.pages(`${facts}${path}`, progress.next_page)) {
      said = total
      await wholly(async () => await copyPage(items))
      progress.next_page = number + 1
      if (number % PAGES_BETWEEN_SAVES === 0) {
        onProgress?.(`${kind}: ${progress.read} read`)
        await save(report)
      }
    }
    if (progress.read < said)
      leaveOut({
        kind: 'list',
        name: path,
        reason: `has ${said} by its own count, and showed ${progress.read}`,
      })
    progress.is_done = true
    await save(report)
  }

  /** Of what fails half-way nothing is counted: it is done again, and counted then. */
  async function wholly(work: () => Promise<void>): Promise<void> {
    const before = structuredClone(report.facts)
    try {
      await work()
    } catch (error) {
      report.facts = before
      throw error
    }
  }

  async function copy<T>(kind: FactKind, copier: Copier<T>, values: readonly unknown[]): Promise<void> {
    const progress = report.facts[kind]
    const items = new Map<string, T>()
    let leftOut = 0
    for (const value of values) {
      const item = copier.read(value)
      if (item === undefined) leftOut++
      else items.set(copier.nameOf(item), item)
    }
    const distinct = [...items.values()]
    const standings = distinct.length === 0 ? [] : await copier.standingsOf(distinct)
    const placed = standings.flatMap((standing, index): Placed<T>[] => {
      const item = distinct[index]
      return item === undefined ? [] : [{ item, standing }]
    })
    progress.read += values.length
    progress.left_out += leftOut
    await settle(progress, placed, {
      kind: copier.kind,
      nameOf: copier.nameOf,
      write: async (changing) => await writeAll(copier, changing, leaveOut),
    })
  }

  async function copyProxies(): Promise<void> {
    const progress = report.facts.proxies
    if (progress.is_done) return
    const values = await optional(`${facts}/proxy_configs`)
    const placed = await placedProxies(values, { model, leaveOut })
    await wholly(async () => {
      progress.read += values.length
      progress.left_out += values.length - placed.length
      await settle(progress, placed, {
        kind: PROXY,
        nameOf: ({ key }) => key,
        write: async (changing) => await writeProxies(caller, changing, { model, leaveOut }),
      })
    })
    progress.is_done = true
  }

  /** Writes what has changed, or in a dry run says what would be written, and counts all of it. */
  async function settle<T>(
    progress: Progress,
    placed: readonly Placed<T>[],
    { kind, nameOf, write }: Settling<T>,
  ): Promise<void> {
    const changing = placed.filter(({ standing }) => standing !== 'unchanged')
    if (report.is_dry_run) for (const { item, standing } of changing) onFact?.(kind, nameOf(item), standing)
    const refused = report.is_dry_run ? [] : await write(changing)
    const written = changing.filter((one) => !refused.includes(one))
    progress.left_out += refused.length
    progress.created += written.filter(({ standing }) => standing === 'new').length
    progress.updated += written.filter(({ standing }) => standing === 'changed').length
    progress.unchanged += placed.length - changing.length
  }

  async function nameInvitations(): Promise<void> {
    for (const item of await optional(`${facts}/user_invites`)) {
      const { key, email, id, status } = (item ?? {}) as Json
      // Who has come already is among the users.
      if (status === 'approved') continue
      const reason = 'was sent by the source, and its link leads there: invite again here'
      leaveOut({ kind: 'invitation', name: String(email ?? key ?? id ?? '(none)'), reason })
    }
  }
}
