import { randomBytes } from 'node:crypto'

/** What becomes of a line about somebody who is there already. */
export const CONFLICT_RULES = ['skip', 'update', 'fail'] as const
export type ConflictRule = (typeof CONFLICT_RULES)[number]

/** Why a line was not imported; says nothing of passwords and hashes. */
export type Refusal = { line: number; reason: string }

/** How many lines came to what. */
export type ImportCounts = {
  created: number
  updated: number
  /** Of people who are there already, and are as the line says or stay as they are. */
  unchanged: number
  refused: number
}

/** Where an import stands: every line up to `line` is done. */
export type ImportProgress = ImportCounts & { line: number }

export const NOTHING_DONE: ImportProgress = { line: 0, created: 0, updated: 0, unchanged: 0, refused: 0 }

/**
 * An import from its beginning to its end, however often it was interrupted: of this and a line the id of whoever the line
 * makes follows, so that it can be told who was made already when a process ended before it had noted how far it was.
 */
export type ImportRun = { startedAt: Date; mark: Uint8Array }

export const MARK_BYTES = 16

/** A run of the import that begins now, with a mark of its own by which its rows are known. */
export const newImportRun = (): ImportRun => ({ startedAt: new Date(), mark: randomBytes(MARK_BYTES) })

export type ImportOptions = {
  /** Default: a new one. */
  run?: ImportRun
  onConflict: ConflictRule
  /** Reads and checks, and writes nothing. */
  isDryRun: boolean
  /** Makes the accounts that are named and not there. */
  createsAccounts: boolean
  /** Where an import before this one stopped. */
  from: ImportProgress
  onRefused(refusals: readonly Refusal[]): Promise<void>
  /** After each part that was written. */
  onProgress(progress: ImportProgress): Promise<void>
}
