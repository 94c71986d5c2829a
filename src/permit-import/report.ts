import { readFile, rename, writeFile } from 'node:fs/promises'
import Type, { type Static } from 'typebox'
import Value from 'typebox/value'
import { StartupError } from '../errors.ts'
import { type LeftOut, shown } from './shapes.ts'

/** The kinds of facts, in the order in which they are copied: each refers only to those before it. */
export const FACT_KINDS = [
  'tenants',
  'users',
  'memberships',
  'instances',
  'relationships',
  'assignments',
  'proxies',
] as const
export type FactKind = (typeof FACT_KINDS)[number]

const Count = Type.Integer({ minimum: 0 })
const Counts = Type.Object({
  read: Count,
  created: Count,
  updated: Count,
  unchanged: Count,
  left_out: Count,
})
const Progress = Type.Object({
  ...Counts.properties,
  next_page: Type.Integer({ minimum: 1 }),
  is_done: Type.Boolean(),
})

const ReportSchema = Type.Object({
  version: Type.Literal(1),
  source: Type.Object({ api_url: Type.String(), project: Type.String(), environment: Type.String() }),
  /** The environment here. */
  environment_id: Type.String(),
  is_dry_run: Type.Boolean(),
  started_at: Type.String(),
  finished_at: Type.Union([Type.String(), Type.Null()]),
  definitions: Type.Object({ added: Count, updated: Count }),
  facts: Type.Object({
    tenants: Progress,
    users: Progress,
    memberships: Progress,
    instances: Progress,
    relationships: Progress,
    assignments: Progress,
    proxies: Progress,
  }),
  left_out: Type.Array(Type.Object({ kind: Type.String(), name: Type.String(), reason: Type.String() })),
})

/** What an import has done so far, as it is written to a file. It holds no key, but names of people. */
export type Report = Static<typeof ReportSchema>
export type Progress = Static<typeof Progress>
export type Source = Report['source']

const unbegun = (): Progress => ({
  read: 0,
  created: 0,
  updated: 0,
  unchanged: 0,
  left_out: 0,
  next_page: 1,
  is_done: false,
})

type Begin = { source: Source; environmentId: string; isDryRun: boolean; now: Date }

/** A report of nothing yet. */
export function newReport({ source, environmentId, isDryRun, now }: Begin): Report {
  return {
    version: 1,
    source,
    environment_id: environmentId,
    is_dry_run: isDryRun,
    started_at: now.toISOString(),
    finished_at: null,
    definitions: { added: 0, updated: 0 },
    facts: {
      tenants: unbegun(),
      users: unbegun(),
      memberships: unbegun(),
      instances: unbegun(),
      relationships: unbegun(),
      assignments: unbegun(),
      proxies: unbegun(),
    },
    left_out: [],
  }
}

/**
 * The report in the file, if it is of the same import and that has not come to its end; otherwise a new one.
 * @throws StartupError when the file holds something else, which writing would destroy
 */
export async function resumedReport(path: string, begin: Begin): Promise<Report> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new StartupError(`Cannot read ${path}: ${error.message}.`, { cause: error })
  })
  if (text === undefined) return newReport(begin)
  const report = parsed(text)
  if (!report) throw new StartupError(`${path} is no report of an import: give the name of another file.`)
  const { source, environmentId, isDryRun } = begin
  const isSame =
    report.environment_id === environmentId &&
    report.source.api_url === source.api_url &&
    report.source.project === source.project &&
    report.source.environment === source.environment
  const isOver = report.finished_at !== null || report.is_dry_run
  if (!isSame || (isDryRun && !isOver))
    throw new StartupError(`${path} is the report of another import: give the name of another file.`)
  return isOver ? newReport(begin) : report
}

function parsed(text: string): Report | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return Value.Check(ReportSchema, value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Replaces the file in one piece. Only its owner can read it: it names people. @throws StartupError */
export async function writeReport(path: string, report: Report): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`
  try {
    await writeFile(draft, `${JSON.stringify(report, null, 2)}\n`, { mode: 0o600 })
    await rename(draft, path)
  } catch (error) {
    throw new StartupError(
      `Cannot write ${path}: ${error instanceof Error ? error.message : String(error)}.`,
      { cause: error },
    )
  }
}

/** Collects what is left out, each of it once, as it may be shown. */
export function collectorOf(report: Report): (what: LeftOut) => void {
  const known = new Set(report.left_out.map(({ kind, name, reason }) => `${kind} ${name} ${reason}`))
  return (what) => {
    const { kind, name, reason } = { ...what, name: shown(what.name), reason: shown(what.reason) }
    const id = `${kind} ${name} ${reason}`
    if (known.has(id)) return
    known.add(id)
    report.left_out.push({ kind, name, reason })
  }
}
