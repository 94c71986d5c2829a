import { type Config, loadConfig } from '../config.ts'
import { backupDataDir } from '../db/embedded/backup.ts'
import { restoreDataDir } from '../db/embedded/restore.ts'
import { StartupError } from '../errors.ts'
import { print, report, watchForInterruption } from '../terminal.ts'
import { VERSION } from '../version.ts'
import { defineCommand } from './command.ts'

const SCOPE = [
  'For the embedded database, while Postern is stopped: a copy of the files of the database and of the secrets in',
  'DATA_DIR. With DATABASE_URL, use pg_dump and pg_restore, and keep SECRET_KEY beside the dump.',
]

export const backupCommand = defineCommand({
  path: 'backup',
  summary: 'Copy the embedded database and its secrets into a new folder',
  details: [...SCOPE, 'The backup holds every secret: keep it as safe as DATA_DIR.'],
  positionals: ['TARGET'],
  flags: {},
  examples: ['postern backup /var/backups/postern-2026-11-20'],
  async run(_flags, [target = '']) {
    const { dataDir } = embeddedOf(loadConfig(), 'pg_dump')
    const { files, bytes } = await toItsEnd(
      async () => await backupDataDir({ dataDir, target, version: VERSION, onProgress: report }),
    )
    print(`Copied ${files} files of ${Math.ceil(bytes / 1_048_576)} MB to ${target}.`)
  },
})

export const restoreCommand = defineCommand({
  path: 'restore',
  summary: 'Bring a backup back into DATA_DIR',
  details: SCOPE,
  positionals: ['SOURCE'],
  flags: {
    force: { description: 'Move what DATA_DIR holds into DATA_DIR/replaced-<time>; nothing is deleted' },
  },
  examples: ['postern restore /var/backups/postern-2026-11-20'],
  async run({ force }, [source = '']) {
    const { dataDir } = embeddedOf(loadConfig(), 'pg_restore')
    await toItsEnd(
      async () =>
        await restoreDataDir({ source, dataDir, ...(force && { force: true }), onProgress: report }),
    )
    print(`Restored ${source} into ${dataDir}. "postern serve" starts with it.`)
  },
})

function embeddedOf(config: Config, tool: string): Config {
  if (config.database.url === undefined) return config
  throw new StartupError(`DATABASE_URL is set, and this command is for the embedded database: use ${tool}.`)
}

/** A copy that was begun is finished: half of one is of no use. A second signal ends it all the same. */
async function toItsEnd<T>(work: () => Promise<T>): Promise<T> {
  const interruption = watchForInterruption()
  interruption.signal.addEventListener('abort', () =>
    report('Finishing first; once more ends it now and leaves what was copied so far'),
  )
  try {
    const result = await work()
    interruption.signal.throwIfAborted()
    return result
  } finally {
    interruption.end()
  }
}
