import { type Config, loadConfig } from '../config.ts'
import { knownMigrations, type Migration, migrate, pendingMigrations, withStartLock } from '../db/migrate.ts'
import { print } from '../terminal.ts'
import { defineCommand } from './command.ts'
import { hasDatabase, withDatabaseUrl } from './runtime.ts'

export const migrateCommand = defineCommand({
  path: 'migrate',
  summary: 'Bring the schema of the database up to date',
  details: ['`serve` does that too when it starts.'],
  flags: { plan: { description: 'Print the files and statements that would run, and change nothing' } },
  examples: ['DATABASE_URL=postgres://postern@db/postern postern migrate --plan'],
  async run({ plan }) {
    const config = loadConfig()
    if (plan) {
      printPlan(await planOf(config))
      return
    }
    const applied = await withDatabaseUrl(config, async (url) => await withStartLock(url, migrate))
    if (applied.length === 0) print('The schema is up to date.')
    for (const name of applied) print(`Applied ${name}.sql`)
  },
})

async function planOf(config: Config): Promise<Migration[]> {
  if (!(await hasDatabase(config))) return knownMigrations()
  return await withDatabaseUrl(config, async (url) => await withStartLock(url, pendingMigrations))
}

/** SQL, comments included, so that the whole of it can be given to a database administrator or to psql. */
function printPlan(migrations: readonly Migration[]): void {
  if (migrations.length === 0) print('-- The schema is up to date.')
  for (const { name, sql } of migrations) {
    print(`-- ${name}.sql`)
    print(sql.replaceAll('--> statement-breakpoint', '').trim())
    print()
  }
}
