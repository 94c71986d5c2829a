import { readFile, writeFile } from 'node:fs/promises'
import { join, sep } from 'node:path'
import Type, { type Static } from 'typebox'
import Value from 'typebox/value'
import type { Amount } from './copy-tree.ts'
import { EmbeddedError } from './errors.ts'
import { ifMissing } from './file-system.ts'
import { filesIn, type ServerFiles } from './layout.ts'
import { loadPrograms } from './programs.ts'

const ManifestSchema = Type.Object({
  format: Type.Integer(),
  postern: Type.String(),
  /** The database's files fit this major version only. */
  postgres_major: Type.Integer(),
  postgres: Type.String(),
  created_at: Type.String(),
  files: Type.Integer(),
  bytes: Type.Integer(),
})

/** What `manifest.json` of a backup says. `bytes` is the sum of the sizes of its `files` files. */
export type BackupManifest = Static<typeof ManifestSchema>

const FORMAT = 1
const MANIFEST = 'manifest.json'

/** What a backup holds besides its manifest: `data-dir`, with everything in its usual place. */
export const contentOf = (backup: string): ServerFiles => filesIn(join(backup, 'data-dir'))

/** Writes and returns the manifest. @param postern Postern's own version @param major Postgres's, of the files */
export async function writeManifest(
  backup: string,
  postern: string,
  major: number,
  amount: Amount,
): Promise<BackupManifest> {
  const { version: postgres } = await loadPrograms()
  const manifest: BackupManifest = {
    format: FORMAT,
    postern,
    postgres_major: major,
    postgres,
    created_at: new Date().toISOString(),
    ...amount,
  }
  const text = `${JSON.stringify(manifest, undefined, 2)}\n`
  await writeFile(join(backup, MANIFEST), text, { mode: 0o600, flush: true })
  return manifest
}

/** @throws EmbeddedError when this is no complete backup, or one that this version cannot restore */
export async function readManifest(backup: string): Promise<BackupManifest> {
  const text = await readFile(join(backup, MANIFEST), 'utf8').catch(ifMissing(undefined))
  if (text === undefined) throw new EmbeddedError(`${backup} is no complete backup: it has no ${MANIFEST}.`)
  const manifest = parseManifest(text)
  if (!manifest) throw new EmbeddedError(`${join(backup, MANIFEST)} cannot be read: restore another backup.`)
  if (manifest.format !== FORMAT) {
    throw new EmbeddedError(
      `${backup} was made by Postern ${manifest.postern} in a format that this version does not know: restore it with that version.`,
    )
  }
  const { major } = await loadPrograms()
  if (manifest.postgres_major !== major) {
    throw new EmbeddedError(
      `${backup} holds a database of Postgres ${manifest.postgres_major}, and this Postern brings Postgres ${major}: restore it with Postern ${manifest.postern}.`,
    )
  }
  return manifest
}

function parseManifest(text: string): BackupManifest | undefined {
  try {
    const parsed: unknown = JSON.parse(text)
    return Value.Check(ManifestSchema, parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}

/** @throws EmbeddedError when one of the two folders lies in the other; both paths are canonical */
export function refuseNesting(dataDir: string, backup: string): void {
  const isInside = (inner: string, outer: string) => `${inner}${sep}`.startsWith(`${outer}${sep}`)
  if (!isInside(backup, dataDir) && !isInside(dataDir, backup)) return
  throw new EmbeddedError(`${backup} and ${dataDir} lie in each other: keep backups outside of DATA_DIR.`)
}
