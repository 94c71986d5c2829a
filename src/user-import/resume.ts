import { appendFile, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { StartupError } from '../errors.ts'
import { type ImportProgress, NOTHING_DONE, type Refusal } from './progress.ts'

type ResumeFile = ImportProgress & { source_bytes?: number }

/**
 * Where an import stopped that wrote this file; at the beginning when there is no such file.
 * @param sourceBytes the size of what is imported, by which another source is told; undefined when nobody knows it
 * @throws StartupError when it is no such file, or one of another source
 */
export async function readResumeFile(path: string, sourceBytes: number | undefined): Promise<ImportProgress> {
  const text = await orFail(path, 'read', async () => await readFile(path, 'utf8').catch(unlessMissing))
  if (text === undefined) return NOTHING_DONE
  const value: unknown = parse(text)
  if (!isResumeFile(value))
    throw new StartupError(`${path} is no file of an import: name another one, or remove it.`)
  const { source_bytes: bytes, ...progress } = value
  if (bytes !== sourceBytes)
    throw new StartupError(`${path} belongs to an import of another file: name another one, or remove it.`)
  return progress
}

/** Writes how far an import is, all of it or nothing. @throws StartupError */
export async function writeResumeFile(
  path: string,
  sourceBytes: number | undefined,
  progress: ImportProgress,
): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`
  const value = { ...(sourceBytes !== undefined && { source_bytes: sourceBytes }), ...progress }
  await orFail(path, 'write', async () => {
    await writeFile(draft, `${JSON.stringify(value)}\n`, { mode: 0o600 })
    await rename(draft, path)
  })
}

/** A file to write refusals to, one JSON object in each line; empty when the import begins. @throws StartupError */
export async function openRefusals(path: string, { line }: ImportProgress) {
  if (line === 0) {
    await orFail(path, 'write', async () => {
      await rm(path, { force: true })
      await writeFile(path, '', { mode: 0o600 })
    })
  }
  return async (refusals: readonly Refusal[]): Promise<void> => {
    const lines = refusals.map((refusal) => `${JSON.stringify(refusal)}\n`)
    await orFail(path, 'write', async () => await appendFile(path, lines.join(''), { mode: 0o600 }))
  }
}

function isResumeFile(value: unknown): value is ResumeFile {
  if (typeof value !== 'object' || value === null) return false
  const entries = Object.entries(value)
  const names = entries.map(([name]) => name)
  return (
    Object.keys(NOTHING_DONE).every((name) => names.includes(name)) &&
    entries.every(
      ([name, count]) => (name in NOTHING_DONE || name === 'source_bytes') && Number.isSafeInteger(count),
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
