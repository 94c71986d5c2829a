import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { findProcess } from './process.ts'
import { closeSession, createSession, type Session } from './session.ts'

/** Whether this process now owns the DATA_DIR, or who does (`undefined` if that is not known). */
export type DataDirClaim =
  | { held: true; release(): Promise<void> }
  | { held: false; ownerPid: number | undefined }

type ClaimOptions = {
  /** Called once if the connection was lost and another process had claimed the DATA_DIR before it was back. */
  onLost?: (ownerPid: number) => void
}

type ClaimAttempt = Session | { ownerPid: number | undefined }

/** Two numbers of our own: the key of the advisory lock that the owner's session holds. */
const CLAIM_KEY = [1_886_352_244, 1]
const OWNER_NAME = /^postern serve pid=(\d+)$/
const RECLAIM_MS = 250
const POLL_MS = 50
const DEAD_OWNER_MS = 5_000

/**
 * Makes this process the one owner of the DATA_DIR whose embedded server answers at `url`. The claim is an
 * advisory lock of a connection of its own, so Postgres frees it when the process dies; it does not keep the
 * process alive. When the connection breaks the claim is made again as soon as the server is back.
 * @throws the error of `pg` when the server cannot be reached
 */
export async function claimDataDir(url: string, options: ClaimOptions = {}): Promise<DataDirClaim> {
  const first = await claimFromTheLiving(url)
  if (!('client' in first)) return { held: false, ownerPid: first.ownerPid }

  let session = first
  let released = false
  const reclaim = async (): Promise<void> => {
    while (!released) {
      const attempt = await tryClaim(url).catch(() => undefined)
      if (attempt && 'client' in attempt) {
        session = attempt
        if (released) await attempt.client.end()
        else watch()
        return
      }
      const ownerPid = attempt?.ownerPid
      // Our own former session may still stand in the way until the server has noticed that it is gone.
      if (ownerPid !== undefined && ownerPid !== process.pid && (await findProcess(ownerPid))) {
        if (!released) options.onLost?.(ownerPid)
        return
      }
      await sleep(RECLAIM_MS, undefined, { ref: false })
    }
  }
  const watch = (): void => {
    session.client.once('end', () => {
      if (!released) void reclaim()
    })
  }
  watch()

  return {
    held: true,
    async release() {
      released = true
      await closeSession(session)
    },
  }
}

/** A killed owner may hold its lock for a moment longer, until Postgres has seen the end of its connection. */
async function claimFromTheLiving(url: string): Promise<ClaimAttempt> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const attempt = await tryClaim(url)
    if ('client' in attempt || waitedMs >= DEAD_OWNER_MS) return attempt
    if (attempt.ownerPid !== undefined && (await findProcess(attempt.ownerPid))) return attempt
    await sleep(POLL_MS)
  }
}

async function tryClaim(url: string): Promise<ClaimAttempt> {
  const session = createSession({
    connectionString: url,
    application_name: `postern serve pid=${process.pid}`,
    keepAlive: true,
  })
  const { client, socket } = session
  try {
    await client.connect()
    const { rows } = await client.query<{ held: boolean }>(
      'select pg_try_advisory_lock($1::int, $2::int) as held',
      CLAIM_KEY,
    )
    if (rows[0]?.held) {
      socket.unref()
      return session
    }
    const ownerPid = await findOwner(client)
    await client.end()
    return { ownerPid }
  } catch (error) {
    socket.destroy()
    throw error
  }
}

async function findOwner(client: pg.Client): Promise<number | undefined> {
  const { rows } = await client.query<{ name: string | null }>(
    `select activity.application_name as name
       from pg_locks lock
       join pg_stat_activity activity on activity.pid = lock.pid
       join pg_database database on database.oid = lock.database
      where lock.locktype = 'advisory' and lock.granted and lock.objsubid = 2
        and lock.classid = $1::oid and lock.objid = $2::oid and database.datname = current_database()`,
    CLAIM_KEY,
  )
  const pid = Number(OWNER_NAME.exec(rows[0]?.name ?? '')?.[1])
  return Number.isSafeInteger(pid) ? pid : undefined
}
