import pg from 'pg'

/** A connection that hears notifications, made anew whenever it breaks. */
export type Listener = { close(): Promise<void> }

type Options = {
  /** Without a pooler in transaction mode in between, which would pass nothing on. */
  url: string
  channel: string
  onNotification: (payload: string) => void
  /** The connection is there, after the first time or a break: whatever was told meanwhile was missed. */
  onConnect: () => void
  onDisconnect: () => void
}

const FIRST_WAIT_MS = 100
const LONGEST_WAIT_MS = 10_000
const CONNECT_TIMEOUT_MS = 5000
const END_TIMEOUT_MS = 1000

/** Listens on `channel` until closed. A failure to connect is tried again, ever more seldom. */
export function listen({ url, channel, onNotification, onConnect, onDisconnect }: Options): Listener {
  let client: pg.Client | undefined
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  let failures = 0

  async function connect(): Promise<void> {
    const fresh = new pg.Client({
      connectionString: url,
      keepAlive: true,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: 'postern listen',
    })
    client = fresh
    let isOver = false
    const onEnd = (): void => {
      if (isOver) return
      isOver = true
      void fresh.end().catch(() => {})
      onDisconnect()
      if (isClosed) return
      timer = setTimeout(
        () => void connect(),
        Math.min(FIRST_WAIT_MS * 2 ** failures++, LONGEST_WAIT_MS),
      ).unref()
    }
    fresh.on('error', onEnd)
    fresh.on('end', onEnd)
    fresh.on('notification', ({ payload }) => onNotification(payload ?? ''))
    try {
      await fresh.connect()
      await fresh.query(`listen ${pg.escapeIdentifier(channel)}`)
      if (isClosed) {
        onEnd()
        return
      }
      failures = 0
      onConnect()
    } catch {
      onEnd()
    }
  }

  void connect()
  return {
    async close() {
      isClosed = true
      clearTimeout(timer)
      const ended = client?.end().catch(() => {})
      const late = new Promise((resolve) => setTimeout(resolve, END_TIMEOUT_MS).unref())
      await Promise.race([ended, late])
    },
  }
}
