import { setTimeout as sleep } from 'node:timers/promises'
import type { ServerFiles } from './layout.ts'
import { POLL_MS } from './postmaster.ts'
import { findProcess } from './process.ts'
import { closeSession, SESSION_NAME, type Session } from './session.ts'

const GRACE_MS = 2_000

/** By the server's folder: the connection that keeps other processes from stopping the server as unused. */
const attached = new Map<string, Session>()

/** Keeps one connection in each process that uses a server; it does not keep the process alive. */
export async function attach({ folder }: ServerFiles, session: Session): Promise<void> {
  const earlier = attached.get(folder)
  if (earlier && !earlier.socket.destroyed) return await closeSession(session)
  session.socket.unref()
  attached.set(folder, session)
}

/** Ends this process’s use of the server. */
export async function detach({ folder }: ServerFiles): Promise<void> {
  const session = attached.get(folder)
  attached.delete(folder)
  if (session) await closeSession(session)
}

/** Who is connected besides the sessions of this process, by the name of the application. */
export async function findUser({ client }: Session): Promise<string | undefined> {
  const { rows } = await client.query<{ name: string }>(
    `select coalesce(nullif(application_name, ''), 'unnamed') as name from pg_stat_activity
      where backend_type = 'client backend' and application_name is distinct from $1
      order by application_name like 'postern serve pid=%' desc, application_name like '% pid=%' desc limit 1`,
    [SESSION_NAME],
  )
  return rows[0]?.name
}

/** The same, but Postgres has a moment to see the end of a process that was killed just now. */
export async function findLastingUser(session: Session): Promise<string | undefined> {
  const patientUntil = Date.now() + GRACE_MS
  let user = await findUser(session)
  while (user !== undefined && Date.now() < patientUntil && !(await isAlive(user))) {
    await sleep(POLL_MS)
    user = await findUser(session)
  }
  return user
}

/** Whether the process still runs that gave its id in the name of its connection. */
async function isAlive(user: string): Promise<boolean> {
  const pid = Number(/ pid=(\d+)$/.exec(user)?.[1])
  return pid > 0 && (await findProcess(pid)) !== undefined
}
