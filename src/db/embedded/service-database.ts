import { createHmac } from 'node:crypto'
import type { ServerFiles } from './layout.ts'
import type { Running } from './postmaster.ts'
import { readPassword } from './session.ts'

const DATABASE = 'postern'
const ROLE = 'postern'

/** Makes the service's role and database on first use and returns their URL. An ephemeral role may make more. */
export async function ensureDatabase(
  files: ServerFiles,
  { port, session: { client } }: Running,
  ephemeral: boolean,
): Promise<string> {
  // Derived, so that one file holds the secret and the service's password does not tell the superuser's.
  const password = createHmac('sha256', await readPassword(files))
    .update(ROLE)
    .digest('base64url')
  const { rows } = await client.query<{ role: boolean; database: boolean }>(
    `select exists (select from pg_roles where rolname = $1) as role,
            exists (select from pg_database where datname = $2) as database`,
    [ROLE, DATABASE],
  )
  if (!rows[0]?.role) {
    const right = ephemeral ? 'createdb' : ''
    await client.query(`create role ${ROLE} login ${right} password ${client.escapeLiteral(password)}`)
  }
  if (!rows[0]?.database) await client.query(`create database ${DATABASE} owner ${ROLE}`)
  return `postgres://${ROLE}:${password}@127.0.0.1:${port}/${DATABASE}`
}
