import { createReadStream } from 'node:fs'
import { appendFile, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { StartupError } from '../errors.ts'
import {
  type ImportProgress,
  type ImportRun,
  MARK_BYTES,
  NOTHING_DONE,
  newImportRun,
  type Refusal,
} from './progress.ts'

/** What the import of a source has come to. */
export type Resumption = { run: ImportRun; from: ImportProgress }

/** As it is written. `source_bytes`: the size of what is imported, by which another source is told. */
type ResumeFile = ImportProgress & { started_at: number; mark: string; source_bytes?: number }

/**
 * Where an import stopped that wrote this file; at the beginning of a new one when there is no such file.
 * @param sourceBytes undefined when nobody knows it
 * @throws StartupError when it is no such file, or one of another source
 */
export async function readResumeFile(path: string, sourceBytes: number | undefined): Promise<Resumption> {
  const text = await orFail(path, 'read', async () => await readFile(path, 'utf8').catch(unlessMissing))
  if (text === undefined) return { run: newImportRun(), from: NOTHING_DONE }
  const value: unknown = parse(text)
  if (!isResumeFile(value))
    throw new StartupError(`${path} is no file of an import: name another one, or remove it.`)
  const { source_bytes: bytes, started_at: startedAt, mark, ...from } = value
  if (bytes !== sourceBytes)
    throw new StartupError(`${path} belongs to an import of another file: name another one, or remove it.`)
  return { run: { startedAt: new Date(startedAt), mark: Buffer.from(mark, 'base64url') }, from }
}

/** Writes how far an import is, all of it or nothing. @throws StartupError */
export async function writeResumeFile(
  path: string,
  sourceBytes: number | undefined,
  { run, from }: Resumption,
): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`
  const value: ResumeFile = {
    ...(sourceBytes !== undefined && { source_bytes: sourceBytes }),
    started_at: run.startedAt.getTime(),
    mark: Buffer.from(run.mark).toString('base64url'),
    ...from,
  }
  await orFail(path, 'write', async () => {
    await writeFile(draft, `${JSON.stringify(value)}\n`, { mode: 0o600 })
    await rename(draft, path)
  })
}

/**
 * A file to write refusals to, one JSON object in each line. What an import before this one has written of lines that
 * are not done is taken out, as it is written again.
 * @throws StartupError
 */
export async function openRefusals(path: string, { line }: ImportProgress) {
  await orFail(path, 'write', async () => {
    const kept = line === 0 ? undefined : await bytesUpTo(path, line).catch(unlessMissing)
    if (kept === undefined) {
      await rm(path, { force: true })
      await writeFile(path, '', { mode: 0o600 })
    } else await truncate(path, kept)
  })
  return async (refusals: readonly Refusal[]): Promise<void> => {
    const lines = refusals.map((refusal) => `${JSON.stringify(refusal)}\n`)
    await orFail(path, 'write', async () => await appendFile(path, lines.join(''), { mode: 0o600 }))
  }
}

/** How much of a file of refusals is about lines up to this one; the lines of each part come in their order. */
async function bytesUpTo(path: string, line: number): Promise<number> {
  let bytes = 0
  for await (const text of createInterface({ input: createReadStream(path) })) {
    const refusal = parse(text)
    if (!isRefusal(refusal) || refusal.line > line) break
    bytes += Buffer.byteLength(text) + 1
  }
  return Math.min(bytes, (await stat(path)).size)
}

const isRefusal = (value: unknown): value is Refusal =>
  typeof value === 'object' && value !== null && 'line' in value && typeof value.line === 'number'

function isResumeFile(value: unknown): value is ResumeFile {
  if (typeof value !== 'object' || value === null) return false
  const { mark, ...counts } = value as Partial<ResumeFile>
  const names = new Set([...Object.keys(NOTHING_DONE), 'started_at'])
  return (
    typeof mark === 'string' &&
    Buffer.from(mark, 'base64url').length === MARK_BYTES &&
    [...names].every((name) => name in counts) &&
    Object.entries(counts).every(
      ([name, count]) => (names.has(name) || name === 'source_bytes') && Number.isSafeInteger(count),
    )
  )
}

function unlessMissing(error: unknown): undefined {
  if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function orFail<T>(path: string, what: 'read' | 'write', work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw new StartupError(
      `Cannot ${what} ${path}: ${error instanceof Error ? error.message : String(error)}.`,
      { cause: error },
    )
  }
}
