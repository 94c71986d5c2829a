import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate as drizzleMigrate } from 'drizzle-orm/node-postgres/migrator'
import pg from 'pg'
import { StartupError } from '../errors.ts'

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))
const MIGRATIONS_TABLE = 'schema_migrations'
/** A number of our own, so that two processes starting at once migrate and seed one after the other. */
const START_LOCK = 7_076_201_451

type JournalEntry = { idx: number; tag: string; when: number }

/** One migration: its name, its SQL, and when it was made (the order in which migrations run). */
export type Migration = { name: string; sql: string; madeAt: number }

/** The migrations this code knows, oldest first. */
export function knownMigrations(): Migration[] {
  const journal = JSON.parse(readFileSync(`${MIGRATIONS_FOLDER}/meta/_journal.json`, 'utf8')) as {
    entries: JournalEntry[]
  }
  return journal.entries.map(({ tag, when }) => ({
    name: tag,
    madeAt: when,
    sql: readFileSync(`${MIGRATIONS_FOLDER}/${tag}.sql`, 'utf8'),
  }))
}

/** The number of migrations this code knows: what `min_code` is compared with. */
export const codeVersion = (): number => knownMigrations().length

/** Runs `work` on one connection while no other process migrates or seeds the same database. */
export async function withStartLock<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(url)
  try {
    await client.query('select pg_advisory_lock($1)', [START_LOCK])
    return await work(client)
  } finally {
    await client.end()
  }
}

/** @throws StartupError when the URL is none, or leads to no database */
async function connect(url: string): Promise<pg.Client> {
  try {
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: 10_000,
      application_name: 'postern migrate',
    })
    client.on('error', () => {})
    await client.connect()
    return client
  } catch (error) {
    throw new StartupError(
      `Cannot reach the database (${reason(error)}): check DATABASE_URL and that the server runs.`,
      { cause: error },
    )
  }
}

/**
 * Applies what is pending, all of it or nothing, and returns the names applied.
 * @param client a connection that holds the start lock
 * @throws StartupError when the schema asks for newer code, or the server is older than Postgres 15
 */
export async function migrate(client: pg.Client): Promise<string[]> {
  await assertServerVersion(client)
  const pending = await pendingMigrations(client)
  if (pending.length === 0) return []
  await drizzleMigrate(drizzle(client), {
    migrationsFolder: MIGRATIONS_FOLDER,
    migrationsTable: MIGRATIONS_TABLE,
    migrationsSchema: 'public',
  })
  return pending.map((migration) => migration.name)
}

/**
 * The migrations that would run, oldest first.
 * @throws StartupError when the schema asks for newer code
 */
export async function pendingMigrations(client: pg.Client): Promise<Migration[]> {
  const known = knownMigrations()
  if (!(await tableExists(client, MIGRATIONS_TABLE))) return known
  await assertCodeIsNewEnough(client, known.length)
  const { rows } = await client.query<{ last: string | null }>(
    `select max(created_at) as last from ${MIGRATIONS_TABLE}`,
  )
  const last = Number(rows[0]?.last ?? 0)
  return known.filter((migration) => migration.madeAt > last)
}

/** True when every migration this code knows has been applied and none asks for newer code. */
export async function isMigrated(pool: pg.Pool): Promise<boolean> {
  if (!(await tableExists(pool, 'schema_compatibility'))) return false
  const newest = knownMigrations().at(-1)
  const { rows } = await pool.query<{ applied: boolean }>(
    `select exists (select from ${MIGRATIONS_TABLE} where created_at >= $1)
        and not exists (select from schema_compatibility where min_code > $2) as applied`,
    [newest?.madeAt ?? 0, codeVersion()],
  )
  return rows[0]?.applied ?? false
}

async function assertCodeIsNewEnough(client: pg.Client, version: number): Promise<void> {
  if (!(await tableExists(client, 'schema_compatibility'))) return
  const { rows } = await client.query<{ needed: number | null }>(
    'select max(min_code) as needed from schema_compatibility',
  )
  const needed = rows[0]?.needed ?? 0
  if (needed > version) {
    throw new StartupError(
      `The database schema needs newer code (schema level ${needed}, this version knows ${version}): start the newer version of Postern, or restore a backup.`,
    )
  }
}

async function assertServerVersion(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ version: number }>(
    `select current_setting('server_version_num')::int as version`,
  )
  const major = Math.floor((rows[0]?.version ?? 0) / 10_000)
  if (major < 15) throw new StartupError(`Postgres ${major} is too old: Postern needs Postgres 15 or newer.`)
}

async function tableExists(client: pg.Client | pg.Pool, name: string): Promise<boolean> {
  const { rows } = await client.query<{ found: string | null }>('select to_regclass($1) as found', [name])
  return rows[0]?.found != null
}

/** A connection's failure in a few words, without the password that a URL may hold. */
function reason(error: unknown): string {
  if (error instanceof AggregateError) return reason(error.errors[0])
  if (!(error instanceof Error)) return 'unknown'
  return error.message.replaceAll(/postgres(ql)?:\/\/\S+/g, 'the given URL')
}
