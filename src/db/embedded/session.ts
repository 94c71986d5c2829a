import { readFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import pg from 'pg'
import { EmbeddedError, errorCode } from './errors.ts'
import { ifMissing } from './file-system.ts'
import type { ServerFiles } from './layout.ts'

/** A connection of its own. Call `socket.unref()` on one that shall not keep the process alive. */
export type Session = { client: pg.Client; socket: Socket }

export const SUPERUSER = 'postgres'
/** The name of this process's superuser connections. */
export const SESSION_NAME = `postern attached pid=${process.pid}`

/** A session that is yet to be connected; destroy its socket if that fails. */
export function createSession(config: pg.ClientConfig): Session {
  const socket = new Socket()
  const client = new pg.Client({ ...config, connectionTimeoutMillis: 5_000, stream: () => socket })
  // Unheard, the event would end the process when the server stops. `end` follows, for whoever needs the server.
  client.on('error', () => {})
  return { client, socket }
}

/** Ends the connection, unless it has ended. */
export async function closeSession({ client, socket }: Session): Promise<void> {
  if (socket.destroyed) return
  socket.ref()
  await client.end()
}

/** Connects as superuser; `undefined` when it is worth trying again. */
export async function tryConnect(
  files: ServerFiles,
  { pid, port }: { pid: number; port: number },
): Promise<Session | 'another server' | undefined> {
  const session = createSession({
    host: '127.0.0.1',
    port,
    user: SUPERUSER,
    password: await readPassword(files),
    database: 'postgres',
    ssl: false,
    application_name: SESSION_NAME,
  })
  try {
    await session.client.connect()
    // A copy of these files has the same password, and may run on the port that a dead server left.
    const { rows } = await session.client.query<{ text: string }>(
      `select pg_read_file('postmaster.pid') as text`,
    )
    if (Number.parseInt(rows[0]?.text ?? '', 10) === pid) return session
    await session.client.end()
    return 'another server'
  } catch (error) {
    session.socket.destroy()
    if (errorCode(error) === '28P01') {
      throw new EmbeddedError(
        `The password in ${files.password} is not the one of the database beside it: restore both from one backup.`,
        { cause: error },
      )
    }
    // The server stops, starts or recovers (class 57), has no place left (53), or the connection broke.
    if (error instanceof pg.DatabaseError && !/^5[37]/.test(error.code ?? '')) throw error
    return undefined
  }
}

/** The superuser's. @throws EmbeddedError when it is missing */
export async function readPassword(files: ServerFiles): Promise<string> {
  const password = await readFile(files.password, 'utf8').catch(ifMissing(undefined))
  if (password !== undefined) return password
  throw new EmbeddedError(`${files.password} is missing: restore it, with the database, from a backup.`)
}
