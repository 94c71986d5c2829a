import { loadConfig } from '../config.ts'
import { StartupError } from '../errors.ts'
import { createSourceClient } from '../permit-import/client.ts'
import { FACT_KINDS, newReport, type Report, resumedReport, writeReport } from '../permit-import/report.ts'
import { importEnvironment, sourceOf } from '../permit-import/service.ts'
import { shown } from '../permit-import/shapes.ts'
import { SYSTEM } from '../principal.ts'
import { print, report as tell } from '../terminal.ts'
import { defineCommand, UsageError } from './command.ts'
import { readAll } from './passwords.ts'
import { DRY_RUN, ENVIRONMENT, modelNamed, printChanges } from './policy.ts'
import { withSetUpServices } from './runtime.ts'

export const policyImport = defineCommand({
  path: 'policy import-permit',
  summary: 'Copy an environment of Permit, or of a server that speaks its API, into one of Postern',
  details: [
    'Resources, roles, derivations, attributes, condition sets and rules in one transaction; then tenants, users, role',
    'assignments, instances and relationships, page by page; then proxy configurations. Nothing is deleted, and running',
    'it again writes what has changed. With --report, one that was cut short goes on where it stopped. What cannot be',
    'taken over is listed with the reason. The key is better given as PERMIT_API_KEY than as an option, which the',
    'process list shows.',
  ],
  flags: {
    'api-url': { value: 'URL', description: 'Where the API is, as https://api.permit.io', required: true },
    key: { value: 'KEY', description: 'Its API key; "-": from standard input; default: PERMIT_API_KEY' },
    from: { value: 'PROJECT/KEY', description: 'The environment there; default: the one that the key opens' },
    ...ENVIRONMENT,
    ...DRY_RUN,
    report: { value: 'FILE', description: 'Write there what was done and what was left out' },
  },
  examples: [
    'postern policy import-permit --api-url https://api.permit.io --dry-run',
    'postern policy import-permit --api-url https://api.permit.io --report import.json',
  ],
  async run({ 'api-url': url, key: given, from, environment, 'dry-run': dryRun, report: path }) {
    const apiUrl = addressOf(url)
    const client = createSourceClient({ apiUrl, key: await keyOf(given) })
    await withSetUpServices(async (services) => {
      const model = await modelNamed(services, environment)
      const begin = {
        source: await sourceOf(client, apiUrl, from),
        environmentId: model.environmentId,
        isDryRun: dryRun ?? false,
        now: new Date(),
      }
      const done = await importEnvironment({
        client,
        model,
        caller: SYSTEM,
        report: path === undefined ? newReport(begin) : await resumedReport(path, begin),
        save: async (report) => {
          if (path !== undefined) await writeReport(path, report)
        },
        onChanges: printChanges,
        onFact: (kind, name, standing) => print(`${standing === 'new' ? '+' : '~'} ${kind} ${shown(name)}`),
        onProgress: tell,
      })
      printSummary(done)
    })
  },
})

/** @throws UsageError for what is no http(s) URL, or holds a name and password */
function addressOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !['http:', 'https:'].includes(url.protocol))
    throw new UsageError('--api-url must be an http(s) URL')
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw new UsageError('--api-url must have no user, query or fragment')
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '')
}

/** @throws UsageError, StartupError when there is none, or it cannot stand in a header */
async function keyOf(given: string | undefined): Promise<string> {
  const key = given === '-' ? await readAll(process.stdin, 'key') : (given ?? loadConfig().permit.apiKey)
  if (!key) throw new UsageError('There is no key: set PERMIT_API_KEY, or give --key')
  if (!/^[\x21-\x7e]{1,1024}$/.test(key)) throw new StartupError('The key holds characters that no key has.')
  return key
}

function printSummary({ facts, left_out: leftOut, is_dry_run: isDryRun }: Report): void {
  for (const kind of FACT_KINDS) {
    const { read, created, updated, unchanged, left_out: without } = facts[kind]
    const [made, changed] = isDryRun ? ['to make', 'to change'] : ['made', 'changed']
    print(
      `${kind}: ${read} read, ${created} ${made}, ${updated} ${changed}, ${unchanged} unchanged, ${without} left out`,
    )
  }
  for (const { kind, name, reason } of leftOut) print(`! ${kind} ${name}: ${reason}`)
  print(
    leftOut.length === 0
      ? 'Everything was taken over.'
      : `${leftOut.length} left out or not as they are there.`,
  )
}
